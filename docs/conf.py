"""The site: ``python -m sphinx -j 2 -W --keep-going -b html docs docs/_build/html``.

The gallery runs the examples, and a failing one fails the build. Examples that have not changed
since the last build are not run again.
"""

import inspect
import re
from functools import cached_property
from pathlib import Path

import skmsc

DOCS = Path(__file__).parent
# Where the classes are, by name: TabularNet -> skmsc.neural.TabularNet.
REFERENCE = (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
PATHS = {
    path.rpartition(".")[2]: path
    for path in re.findall(r"~(skmsc\.(?:\w+\.)*[A-Z]\w+)$", REFERENCE, re.M)
}

project = "skmsc"
author = copyright = "the skmsc developers"
version = release = skmsc.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "gallery/*.ipynb", "gallery/*.md5"]
templates_path = ["_templates"]
default_role = "py:obj"  # `TabularNet` in a docstring leads to its page

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "groupwise"
autodoc_typehints = "none"  # the docstrings tell more
toc_object_entries_show_parents = "hide"
suppress_warnings = ["ref.term"]  # inherited docstrings name terms of scikit-learn's glossary
numpydoc_show_class_members = False  # the template of a class has them

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("skmsc",),
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "parallel": True,  # as many examples at a time as sphinx has jobs, `-j 2`
}

html_theme = "pydata_sphinx_theme"
html_title = "skmsc"
html_static_path = ["_static"]
html_css_files = ["skmsc.css"]
html_show_sourcelink = False
html_sidebars = {"index": []}
html_theme_options = {
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_end": [],
}
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def copy_tables():
    """The benchmarks' tables as pages; one that has not changed is not written again."""
    for table in (DOCS.parent / "benchmarks" / "results").glob("*.md"):
        page, text = DOCS / "measured" / table.name, table.read_text(encoding="utf-8")
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def link_within_site(app, docname, source):
    """Lead links to files of the repository, and names of public objects, to pages of the site."""
    text = source[0]
    text = re.sub(r"\((?:\.\./)+benchmarks/results/(\w+)\.md\)", r"(/measured/\1.md)", text)
    text = re.sub(r"\((?:\.\./)+benchmarks/README\.md", "(/measured/protocols.md", text)
    text = re.sub(r"\((?:\.\./)+examples/(plot_\w+)\.py\)", r"(/gallery/\1.rst)", text)
    if not docname.startswith(("reference/", "gallery/", "measured/")):
        names = "|".join(PATHS)
        text = re.sub(
            rf"(?<![`\[\w])`({names})`", lambda found: f"{{py:obj}}`~{PATHS[found[1]]}`", text
        )
    source[0] = text


def skip_what_others_define(app, what, name, obj, skip, options):
    """Members that scikit-learn, or Python, gives a class are documented there."""
    if isinstance(obj, property):
        obj = obj.fget
    elif isinstance(obj, cached_property):
        obj = obj.func
    home = getattr(inspect.unwrap(obj) if callable(obj) else obj, "__module__", None) or "skmsc"
    return True if home.split(".")[0] != "skmsc" else None


def setup(app):
    """Called by Sphinx."""
    copy_tables()
    app.connect("source-read", link_within_site)
    app.connect("autodoc-skip-member", skip_what_others_define)
