"""The code in README and docs runs as it stands, from top to bottom of each page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def code_of(page):
    """All blocks of Python on a page, one after the other."""
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S))


WITH_CODE = [page for page in PAGES if code_of(page)]


def test_there_is_code_to_run():
    assert {page.name for page in WITH_CODE} >= {"README.md", "neural_stages.md"}


@pytest.mark.slow
# Of dask's reading and writing of Parquet with the newest pandas.
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame")
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_code_runs(page):
    exec(compile(code_of(page), str(page), "exec"), {})
