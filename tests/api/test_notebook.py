"""Results as a notebook shows them: a table, a progress bar, a figure."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

CELLS = (
    """
from attnsearch.progress import progress
with progress("counting", 10, "things") as advance:
    for _ in range(10):
        advance(1)
""",
    "import attnsearch\nranking = attnsearch.rank({store!r}, 'entropy')\nranking",
    "ranking.figure()",
    "ranking.to_pandas()",
    "attnsearch.maps({store!r}, 'one:L0H1').figure()",
)


@pytest.fixture(scope="module")
def outputs(store: Path) -> list[list[Any]]:
    """What every cell of an executed notebook shows."""
    cells = [nbformat.v4.new_code_cell(text.format(store=str(store))) for text in CELLS]
    book = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(book, timeout=None, kernel_name="python3").execute()
    return [cell["outputs"] for cell in book.cells]


def shown(outputs: list[Any], kind: str) -> list[str]:
    """What a cell shows in a form, such as text/html."""
    return [output["data"][kind] for output in outputs if kind in output.get("data", {})]


def test_progress_is_shown_and_nothing_else(outputs: list[list[Any]]) -> None:
    (bar,) = shown(outputs[0], "text/html")
    assert bar.startswith('<progress value="10" max="10"></progress> counting: 10 of 10 things')
    # That of reading is gone when all is read.
    assert set(shown(outputs[1][:-1], "text/html")) == {""}
    assert all(output["output_type"] != "stream" for output in outputs[0])


def test_a_result_is_a_table_with_its_notes(outputs: list[list[Any]]) -> None:
    html = shown(outputs[1], "text/html")[-1]
    assert html.count("<tr>") == 1 + 12
    assert "<caption>entropy heads of maps.zarr" in html
    assert "median |score| of 12 heads" in html
    assert "<table" in shown(outputs[3], "text/html")[0]


@pytest.mark.parametrize("cell", [2, 4])
def test_a_figure_is_shown_as_a_picture(outputs: list[list[Any]], cell: int) -> None:
    assert shown(outputs[cell], "image/png")
