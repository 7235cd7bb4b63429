"""Figures of the layout, each on a package small enough to count by hand."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "measure_house.py"

FILES = {
    "pyproject.toml": """
[[tool.importlinter.contracts]]
name = "imports point down"
type = "layers"
containers = ["qaeval"]
exhaustive = true
layers = ["cli", "gate | report", "rows : files"]
""",
    "src/qaeval/__init__.py": '"""A package."""\n',
    "src/qaeval/__main__.py": "from qaeval.cli import main\n\nmain()\n",
    "src/qaeval/cli.py": "from qaeval.gate import rules\n\n\ndef main():\n    from qaeval import report\n",
    "src/qaeval/gate/__init__.py": "",
    "src/qaeval/gate/rules.py": '"""Rules."""\nfrom . import claims\nfrom qaeval.report import Row\n\nclass Rule:\n    """A\n    rule."""\n',
    "src/qaeval/gate/claims.py": "import qaeval.gate.rules\n\n# A claim.\none = found = told = 1\nclass Row: pass\n",
    "src/qaeval/report.py": "class Row:\n    name = 'a'\n    'A string under a field.'\ndef of(one, *, told=None): return one\n",
    "src/qaeval/rows.py": "import json\nfrom qaeval.files import read\nfrom qaeval.cli import main\n",
    "src/qaeval/files/__init__.py": "read = [\n\n    None]\n",
    "src/qaeval/files/templates/page.html": "",
    "src/qaeval/chat/embedded/lead.py": "x = 1\n",
    "src/qaeval_floor/lead.py": "'''A model.'''\nx = 1\ny = 2\n",
    "tests/test_a.py": """
def test_of_a_phrase(): assert "one two three four five" in text
def test_of_four_words(): assert "one two three four" in text
def test_of_a_message(): assert text, "one two three four five"
class TestB:
    def test_of_a_match(self):
        with raises(ValueError, match="one two three four five"): pass
def helper(): assert text == "one two three four five"
""",
}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_house", TOOL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkout")
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        # qaeval, gate, files, templates, chat, embedded, qaeval_floor; __init__, __main__, cli, report, rows
        ("folders_and_loose_files", 7 + 5),
        # __main__ → cli, cli → gate, cli → report, gate → report, rows → files, rows → cli
        ("import_arrows", 6),
        ("loose_files", 3),
        ("modules", 11),
        # __main__ 2, cli 3, rules 3, claims 3, report 3, rows 3, files 2
        ("code_lines", 19),
        # embedded/lead 1, qaeval_floor/lead 2
        ("floor_code_lines", 3),
        # rules ↔ claims; cli → gate.rules → report and rows → cli close none
        ("import_cycles", 1),
        # gate → report: independent siblings; rows → cli: up; __main__ → cli: no layer; rows → files may
        ("upward_imports", 3),
        # Row
        ("repeated_class_names", 1),
        # claims 3, report 2
        ("idiom_bindings", 5),
        # the assert and the match
        ("phrase_tests", 2),
    ],
)
def test_a_figure_of_a_small_package(tool: ModuleType, root: Path, figure: str, value: int) -> None:
    assert getattr(tool, figure)(tool.Checkout(root)) == value


def test_every_figure_has_a_definition(tool: ModuleType) -> None:
    assert all(figure.__doc__ for figure, _ in tool.FIGURES.values())


def test_a_revision_stands_beside_the_working_tree(root: Path) -> None:
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "a"], check=True)
    (root / "src/qaeval/more.py").write_text("")
    arguments = [sys.executable, str(TOOL), "--root", str(root), "--before", "HEAD"]
    output = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    (root / "src/qaeval/more.py").unlink()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.splitlines()]
    assert cells[0] == ["figure", "before", "after", "target"]
    assert ["modules", "11", "12", "about 225"] in cells
