"""The fixture `qaeval`, in a pytest inside pytest: what passes, what fails, what is skipped, and with which words."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from qaeval.gate.baseline import EvidenceReader
from qaeval.gate.decide import GateRequest, gate
from qaeval.registry.find import find_config

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "results" / "example"
PLUGIN = ("-p", "no:qaeval", "-p", "qaeval.pytest_plugin", "-p", "no:cacheprovider", "-p", "no:asyncio")
"""As the entry point loads it, also where the package was installed before it had one."""
WIDE = "rules: [{quantity: usable_rate, margin: 0.3}]\n"


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import what a gate needs: the inner pytest forgets what it imports, and numpy cannot be imported twice."""
    run = tmp_path_factory.mktemp("runs") / "run"
    shutil.copytree(EXAMPLE, run)
    gate(GateRequest(run=run, baseline=str(EXAMPLE)), EvidenceReader(config=find_config(None)))


@pytest.fixture
def runs(pytester: pytest.Pytester) -> Path:
    """Two copies of the example in the folder of the inner pytest, and a policy that twelve chunks can decide."""
    for name in ("main", "today"):
        shutil.copytree(EXAMPLE, pytester.path / name)
    pytester.makefile(".yaml", gate=WIDE)
    return pytester.path


def outcome(pytester: pytest.Pytester, line: str, **expected: int) -> str:
    """Run one test with one line; return what pytest printed."""
    pytester.makepyfile(f"def test_quality(qaeval):\n    {line}\n")
    done = pytester.runpytest_inprocess(*PLUGIN, "-rs")
    done.assert_outcomes(**expected)
    assert done.ret == (1 if expected.get("failed") else 0)
    return str(done.stdout)


def spoil(run: Path) -> None:
    """Make every letter the worst one, of a run without a report."""
    (run / "manifest.json").unlink()
    grades = (run / "grades.jsonl").read_text().replace('"letter":"A"', '"letter":"C"')
    (run / "grades.jsonl").write_text(grades)


@pytest.mark.slow
def test_a_gate_that_passes_is_a_test_that_passes(pytester: pytest.Pytester, runs: Path) -> None:
    outcome(pytester, "assert qaeval.gate('today', baseline='main').outcome == 'pass'", passed=1)
    assert json.loads((runs / "today" / "gate.json").read_text())["policy"] == "gate.yaml"


@pytest.mark.slow
def test_a_regression_fails_with_the_words_of_the_gate(pytester: pytest.Pytester, runs: Path) -> None:
    spoil(runs / "today")
    out = outcome(pytester, "qaeval.gate('today', baseline='main')", failed=1)
    assert "AssertionError: Regression in usable_rate@embedded-salient" in out
    assert "usable rate is lower" in out
    assert "pytest_plugin.py" not in out  # the traceback ends in the test


@pytest.mark.slow
def test_too_little_data_fails(pytester: pytest.Pytester, runs: Path) -> None:
    (runs / "gate.yaml").write_text("rules: [{quantity: usable_rate, margin: 5 points}]\n")
    out = outcome(pytester, "qaeval.gate('today', baseline='main')", failed=1)
    assert "Inconclusive" in out
    assert "more chunks would decide" in out


@pytest.mark.slow
def test_too_little_data_is_skipped_where_the_policy_lets_it_through(
    pytester: pytest.Pytester, runs: Path
) -> None:
    (runs / "soft.yaml").write_text("inconclusive: warn\nrules: [{quantity: usable_rate, margin: 0.05}]\n")
    out = outcome(pytester, "qaeval.gate('today', baseline='main', policy='soft.yaml')", skipped=1)
    assert "Inconclusive" in out


@pytest.mark.slow
def test_a_judge_without_a_required_certificate_fails(pytester: pytest.Pytester, runs: Path) -> None:
    (runs / "gate.yaml").write_text("certificate: require\n" + WIDE)
    assert "not trusted" in outcome(pytester, "qaeval.gate('today', baseline='main')", failed=1)


def test_runs_that_are_not_comparable_fail_with_the_difference(pytester: pytest.Pytester, runs: Path) -> None:
    path = runs / "today" / "settings.json"
    settings = json.loads(path.read_text())
    settings["grading"]["judge"]["name"] = "other"
    path.write_text(json.dumps(settings))
    (runs / "today" / "manifest.json").unlink()
    grades = (runs / "today" / "grades.jsonl").read_text().replace('"embedded-lexical"', '"other"')
    (runs / "today" / "grades.jsonl").write_text(grades)
    assert "Not comparable" in outcome(pytester, "qaeval.gate('today', baseline='main')", failed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("qaeval.gate('todai', baseline='main')", "no run here"),
        ("qaeval.gate('today', baseline='mian')", "mian"),
        ("qaeval.gate('today')", "no baseline"),
        ("qaeval.assert_not_worse('today', 'main', margin=0)", "between 0 and 1"),
        ("qaeval.assert_not_worse('today', 'main', 0.3, quantity='usable_rat')", "usable_rate"),
    ],
)
def test_a_mistake_is_never_green(pytester: pytest.Pytester, runs: Path, line: str, words: str) -> None:
    assert runs.is_dir()
    out = outcome(pytester, line, failed=1)
    assert words in out
    assert "def open(" not in out  # the traceback ends in the test
    assert "pytest_plugin.py" not in out


@pytest.mark.slow
def test_one_quantity_can_be_asserted(pytester: pytest.Pytester, runs: Path) -> None:
    line = "qaeval.assert_not_worse('today', 'main', margin=0.3, quantity='success_rate')"
    outcome(pytester, line, passed=1)
    spoil(runs / "today")
    outcome(pytester, line, passed=1)
    more = (
        "qaeval.assert_not_worse('today', 'main', 0.3, candidates={'embedded-salient': 'embedded-salient'})"
    )
    out = outcome(pytester, more, failed=1)
    assert "Regression in usable_rate" in out


def test_it_is_an_entry_point_and_loads_nothing_that_takes_time() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"qaeval": "qaeval.pytest_plugin"}
    program = (
        "import sys, pytest; before = set(sys.modules); import qaeval.pytest_plugin\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["qaeval", "qaeval.pytest_plugin"]
