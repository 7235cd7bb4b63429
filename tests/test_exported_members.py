"""The public statistics: exported, listed on their page, documented, and imported at first use."""

import ast
import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qaeval import stats

PAGE = Path(__file__).parents[1] / "docs" / "statistics.md"
FUNCTIONS = [name for name in stats.__all__ if inspect.isfunction(getattr(stats, name))]
CLASSES = [name for name in stats.__all__ if inspect.isclass(getattr(stats, name))]


def test_the_page_lists_what_is_exported() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    results = re.findall(r"`([A-Z]\w+)`", PAGE.read_text())
    assert len(rows) == len(set(rows))
    assert set(rows) | (set(results) - {"NaN", "ValueError"}) == set(stats.__all__)
    assert set(FUNCTIONS) <= set(rows)


def test_type_checkers_see_what_is_exported() -> None:
    tree = ast.parse(inspect.getsource(stats))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("qaeval.stats.")
        for alias in node.names
    }
    assert imported == set(stats.__all__)


def test_every_exported_name_is_a_function_or_a_class_of_the_package() -> None:
    assert sorted(FUNCTIONS + CLASSES) == sorted(stats.__all__)
    assert all(getattr(stats, name).__module__.startswith("qaeval.stats.") for name in stats.__all__)
    assert set(stats.__all__) <= set(dir(stats))


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'cohens_kappa'"):
        stats.cohens_kappa  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_exported_function_says_shapes_range_undefined_case_and_source(name: str) -> None:
    function = getattr(stats, name)
    text = inspect.getdoc(function) or ""
    parameters = inspect.signature(function).parameters
    arguments = text.partition("Args:\n")[2].partition("\nReturns:\n")[0]
    returned = text.partition("\nReturns:\n")[2].partition("\nRaises:\n")[0]
    assert [f"{parameter}: " in arguments for parameter in parameters] == [True] * len(parameters)
    arrays = [parameter for parameter, value in parameters.items() if "ArrayLike" in str(value.annotation)]
    assert not arrays or "hape (" in text, "shape of its arrays"
    assert re.search(r"NaN|[Aa]lways defined", returned), "undefined case"
    assert re.search(r"in \[|in \(|[Aa]t (least|most)|unit|log-odds|its own range|True or False", returned), (
        "range"
    )
    assert re.search(
        r"Sources?\b|:math:|`clustered_r\w+`|`simulated_power`|counts?\b", text, re.IGNORECASE
    ), "source or formula"
    assert "Raises:" in text


@pytest.mark.parametrize("name", CLASSES)
def test_every_exported_class_and_its_public_members_are_documented(name: str) -> None:
    public = [
        value
        for key, value in vars(getattr(stats, name)).items()
        if not key.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property | classmethod))
    ]
    assert inspect.getdoc(getattr(stats, name))
    assert all(inspect.getdoc(member) for member in public)


def test_the_examples_of_the_page_give_what_it_prints() -> None:
    blocks = re.findall(r"^```pycon\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, PAGE.name, str(PAGE), 0)
    report: list[str] = []
    outcome = doctest.DocTestRunner().run(test, out=report.append)
    assert outcome.attempted > 30
    assert outcome.failed == 0, "".join(report)


@pytest.mark.parametrize("code", ["import qaeval.stats", "from qaeval.cli import run; run(['--help'])"])
def test_neither_the_package_nor_the_help_loads_numpy(code: str) -> None:
    loaded = f"{code}; import sys; print(sorted({{'numpy', 'scipy', 'pandas'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
