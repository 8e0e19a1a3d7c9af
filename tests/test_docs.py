"""The code in README and docs runs as it stands, from top to bottom of each page."""

import doctest
import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MADE = {"_build", "gallery", "measured"}  # by the build of the site
PAGES = sorted(
    page
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if not MADE & set(page.relative_to(ROOT).parts)
)
AS_PRINTED = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks_of(page):
    """The blocks of Python on a page, each with what it prints, where the page shows that."""
    block = r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?"
    return re.findall(block, page.read_text(encoding="utf-8"), re.S)


def name_of(page):
    return page.relative_to(ROOT).as_posix()


WITH_CODE = [page for page in PAGES if blocks_of(page)]


def test_there_is_code_to_run():
    folders = {page.parent.name for page in WITH_CODE}
    assert folders >= {ROOT.name, "tutorials", "how_to", "explanation"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    # The gallery has no files before it is built; the build checks the links to it.
    files = [link for link in links if link and "://" not in link and "gallery/" not in link]
    assert [link for link in files if not (page.parent / link).exists()] == []


@pytest.mark.slow
# Of dask's reading and writing of Parquet with the newest pandas.
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame")
@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_code_runs(page):
    names = {}
    for code, shown in blocks_of(page):
        said = io.StringIO()
        with redirect_stdout(said):
            exec(compile(code, str(page), "exec"), names)
        printed = said.getvalue()
        if shown:
            assert doctest.OutputChecker().check_output(shown, printed, AS_PRINTED), printed
