"""The notebook runs from top to bottom without a warning, and is stored as such a run left it."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "fraud_detection.ipynb"


def complaints(notebook):
    """What the cells' outputs hold of errors and of text on stderr."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [
        output.get("text") or output.get("ename")
        for output in outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_stored_as_a_run_from_top_to_bottom_left_it(notebook):
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert complaints(notebook) == []


def test_it_tells_nothing_of_the_machine(notebook):
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    text = nbformat.writes(notebook)
    assert [word for word in ("/home/", "/tmp/", "/root/", "site-packages") if word in text] == []


def test_complaints_are_found():
    new = nbformat.v4
    warned = new.new_output("stream", name="stderr", text="a warning")
    failed = new.new_output("error", ename="ValueError", evalue="", traceback=[])
    said = new.new_output("stream", name="stdout", text="fine")
    cell = new.new_code_cell("1", outputs=[said, warned, failed])
    assert complaints(new.new_notebook(cells=[cell])) == ["a warning", "ValueError"]


def test_links_lead_somewhere(notebook):
    text = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    assert [link for link in links if not (NOTEBOOK.parent / link).exists()] == []


@pytest.mark.slow
def test_it_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "default")  # the kernel hides none
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises where a cell does
    assert complaints(notebook) == []
