"""Pages that name a benchmark's result file hold no number that is not in it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = {path.name: path.read_text("utf-8") for path in ROOT.glob("benchmarks/results/*.md")}
PAGES = [*sorted(ROOT.glob("docs/seeds/*.md")), *sorted(ROOT.glob("docs/explanation/where_*.md"))]
NUMBER = re.compile(r"(?<![\d.])[+-]?\d+\.\d+(?: ± \d+\.\d+)?|\d+ ± \d+")


def claims(text):
    """Pairs of a block, a table's row or a paragraph, and the result files that it names."""
    for block in re.split(r"\n\n+|\n(?=\|)", text):
        files = [name for name in re.findall(r"`(\w+\.md)`", block) if name in RESULTS]
        if files:
            yield block, files


def strays(block, files):
    """Numbers of the block that none of the files has, as a whole number of theirs."""
    texts = [RESULTS[name] for name in files]
    return [
        number
        for number in NUMBER.findall(block)
        if not any(re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", text) for text in texts)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_numbers_are_those_of_the_files(page):
    found = {block: strays(block, files) for block, files in claims(page.read_text("utf-8"))}
    assert {block: numbers for block, numbers in found.items() if numbers} == {}


def test_a_number_that_is_not_in_the_file_is_found():
    block = "| caught | 0.617 against 0.506: 0.113 ± 0.033, -0.61 | `feedback.md` |"
    assert strays(block, ["feedback.md"]) == ["0.113 ± 0.033", "-0.61"]


def test_the_pages_make_claims():
    n_claims = {page.stem: len(list(claims(page.read_text("utf-8")))) for page in PAGES}
    assert n_claims.pop("index") == 0
    assert min(n_claims.values()) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
