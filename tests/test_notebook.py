"""The notebook of the documents runs in a real kernel; docs/api.md and docs/cli.md match the code."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "examples" / "notebook.ipynb"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning")
@pytest.mark.slow
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


@pytest.mark.parametrize("script", ["make_api_docs", "make_cli_docs"])
def test_a_generated_page_is_up_to_date(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    try:
        module = importlib.import_module(script)  # a script beside the package
        expected, page = module.page(), module.PAGE
    finally:
        sys.modules.pop(script, None)
    if page.read_text(encoding="utf-8") != expected:
        pytest.fail(f"{page.relative_to(ROOT)} is out of date: run `make docs`", pytrace=False)
