"""The notebook of the documents runs in a real kernel, and docs/api.md is what the docstrings say."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "examples" / "notebook.ipynb"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning")
def test_the_notebook_runs_as_it_is(tmp_path: Path) -> None:
    import nbformat  # noqa: PLC0415 - 0.3 s that only this test needs
    from nbclient import NotebookClient  # noqa: PLC0415

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert len(outputs) == 7
    assert not [output for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert (tmp_path / "results" / "notebook" / "report.html").is_file()


def test_the_page_of_the_api_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import make_api_docs  # noqa: PLC0415 - a script beside the package

    try:
        assert make_api_docs.PAGE.read_text(encoding="utf-8") == make_api_docs.page(), "run `make docs`"
    finally:
        sys.modules.pop("make_api_docs", None)
