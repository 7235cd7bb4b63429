"""`report.json` of any version is read, and `cost`, `decide` and `history` compute no statistics."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qaeval.comparison.decision import decide
from qaeval.comparison.report_file import load_priced, load_report
from qaeval.errors import DataError
from qaeval.report.facts import MachineFacts
from qaeval.storage.run_directory import RunStore, model_json
from report_builders import JUDGE, RUN, Case, case

EXAMPLE = Path(__file__).parents[1] / "results" / "example"
MACHINE = MachineFacts(
    name="ours", price_per_hour=1.2, currency="EUR", as_of="2026-01-01", source="an offer", gpu_watts=72.0
)
LETTERS = {"alpha": ["AB", "BB", "AA", "BB"] * 5, "beta": ["AA", "AB", "AB", "BB"] * 5}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return shutil.copytree(EXAMPLE, tmp_path / "run")


def rewrite(run: Path, *keys: str | int, value: Any) -> None:
    """Set one value of the run's report."""
    document = json.loads((run / "report.json").read_text())
    parent = document
    for key in keys[:-1]:
        parent = parent[key]
    parent[keys[-1]] = value
    (run / "report.json").write_text(json.dumps(document))


@pytest.mark.slow
def test_a_written_report_is_read_back(run: Path) -> None:
    report = case(LETTERS, items_per_sample=2).report()
    (run / "report.json").write_text(model_json(report))
    assert load_report(run) == report


@pytest.mark.parametrize("keys", [("new",), ("run", "new"), ("candidates", 0, "usable", "new")])
def test_unknown_keys_of_later_versions_are_ignored(run: Path, keys: tuple[str | int, ...]) -> None:
    expected = load_report(run)
    rewrite(run, *keys, value={"more": 1})
    assert load_report(run) == expected


def test_keys_missing_in_earlier_versions_get_defaults(run: Path) -> None:
    document = json.loads((run / "report.json").read_text())
    for key in ("agreement", "checks", "data_left", "ranking", "raters", "strata", "timing", "types"):
        del document[key]
    (run / "report.json").write_text(json.dumps(document))
    report = load_report(run)
    assert (report.agreement, report.timing.costs, report.data_left) == ((), (), ())
    assert report.candidates[0].facts.name == "embedded-lead"


@pytest.mark.parametrize("key", ["run", "eval", "rubric", "judge", "candidates", "margin", "differences"])
def test_a_report_without_a_required_key_names_it(run: Path, key: str) -> None:
    document = json.loads((run / "report.json").read_text())
    del document[key]
    (run / "report.json").write_text(json.dumps(document))
    with pytest.raises(DataError) as error:
        load_report(run)
    assert str(run / "report.json") in str(error.value)
    assert f" {key}: " in str(error.value)
    assert f"qaeval report {run}" in str(error.value)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("candidates",), []),
        (("candidates", 0, "n_valid"), "many"),
        (("candidates", 0, "usable", "value"), math.nan),
        (("differences", 0, "outcome"), "who knows"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_location(
    run: Path, keys: tuple[str | int, ...], value: Any
) -> None:
    rewrite(run, *keys, value=value)
    with pytest.raises(DataError) as error:
        load_report(run)
    assert ".".join(map(str, keys)) in str(error.value)


@pytest.mark.parametrize("name", ["report.json", "manifest.json"])
def test_an_unreported_run_is_refused_with_the_report_command(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(DataError, match=f"qaeval report {run}"):
        load_report(run)


@pytest.mark.parametrize("text", ["", '{"run": ', "[]", "null"])
def test_an_invalid_report_file_is_refused(run: Path, text: str) -> None:
    (run / "report.json").write_text(text)
    with pytest.raises(DataError, match=r"report\.json"):
        load_report(run)


def write_stored_run(tmp_path: Path, inputs: Case, **options: Any) -> Path:
    """Write the files of a run that `cost` and `decide` read: report, sessions and manifest."""
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "report.json").write_text(model_json(inputs.report(**options)))
    sessions = [session.model_dump_json(exclude_none=True) for session in inputs.rows.sessions]
    (tmp_path / "sessions.jsonl").write_text("\n".join(sessions) + "\n")
    return tmp_path


@pytest.mark.slow
def test_stored_reports_are_repriced_like_a_new_analysis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = case(LETTERS, items_per_sample=2)
    sessions = [
        session.model_copy(update={"host": "node-1", "load_s": 30.0}) for session in inputs.rows.sessions
    ]
    inputs = inputs.with_rows(sessions=tuple(sessions))
    machines = dict.fromkeys(["alpha", "beta", JUDGE.name], MACHINE)
    monkeypatch.setattr("qaeval.comparison.report_file.now", lambda: RUN.finished)
    with RunStore.open(write_stored_run(tmp_path, inputs)) as store:
        report, measured_run = load_priced(store, machines)
    assert report == inputs.report(machines=machines)
    assert measured_run.sessions == inputs.rows.sessions


@pytest.mark.parametrize("margin", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.slow
def test_a_decision_at_another_margin_equals_a_new_analysis(margin: float) -> None:
    inputs = case({**LETTERS, "gamma": ["AA"] * 20}, items_per_sample=2)
    analysed = decide(inputs.report(margin=margin), {})
    assert decide(inputs.report(margin=0.05), {}, margin=margin) == analysed


@pytest.mark.parametrize(
    "arguments", [["cost", "example"], ["decide", "example"], ["history", ".", "--json"]]
)
@pytest.mark.slow
def test_the_commands_import_no_statistics_packages(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from qaeval.cli import run\n"
        "code = run(sys.argv[1:])\n"
        "print(code, sorted({'pandas', 'scipy', 'matplotlib'} & set(sys.modules)), file=sys.stderr)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=EXAMPLE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stderr.splitlines()[-1] == "0 []", process.stderr
