"""A run that was changed after its report was written is not gated, set as a baseline, or exported."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qaeval.cli import run as command
from qaeval.testing import make_run

COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "gate": lambda run: ["gate", str(run), "--baseline", str(run)],
    "gate against it": lambda run: ["gate", str(run.with_name("intact")), "--baseline", str(run)],
    "baseline": lambda run: ["baseline", "set", str(run), "--out", str(run.with_name("b.json"))],
    "pointer": lambda run: ["baseline", "set", str(run), "--pointer", "--out", str(run.with_name("b.json"))],
    "export": lambda run: ["export", str(run), "--to", "csv", "--out", str(run.with_name("export"))],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a graded and reported run."""
    letters = {"alpha": ["AAB"] * 20 + ["ABB"] * 10, "beta": ["AAA"] * 10 + ["BBC"] * 20}
    run = make_run(tmp_path_factory.mktemp("made") / "run", letters)
    run.write_report()
    return run.path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "intact")
    return shutil.copytree(made, tmp_path / "run")


def better(run: Path, name: str = "grades.jsonl") -> None:
    """Make a letter of the run an A."""
    rows = [json.loads(line) for line in (run / name).read_text().splitlines()]
    row = next(row for row in rows if row.get("letter") == "B")
    row["letter"] = "A"
    (run / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_letter_that_was_changed_after_the_report_is_refused(
    name: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = COMMANDS[name](run)
    assert command(arguments) == 0
    (run / "gate.json").unlink(missing_ok=True)
    shutil.rmtree(run.with_name("export"), ignore_errors=True)
    run.with_name("b.json").unlink(missing_ok=True)
    better(run)
    capsys.readouterr()
    assert command(arguments) == 65
    message = capsys.readouterr().err
    assert f"{run}: grades.jsonl changed after the report was written" in message
    assert f"qaeval report {run}" in message
    assert not (run / "gate.json").exists()
    assert not run.with_name("b.json").exists()
    assert not run.with_name("export").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", ["settings.json", "samples.jsonl", "generations.jsonl", "controls.jsonl", "report.json"]
)
def test_every_file_of_the_manifest_that_decides_is_compared(
    file: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (run / file).open("a") as stream:
        stream.write("\n")
    assert command(COMMANDS["gate"](run)) == 65
    assert file in capsys.readouterr().err
    (run / file).unlink()
    assert command(COMMANDS["gate"](run)) == 65


@pytest.mark.slow
def test_what_is_only_shown_may_change_and_a_new_report_accepts_a_change(run: Path) -> None:
    (run / "report.html").write_text("mine")
    (run / "notes.json").write_text("{}")
    assert command(COMMANDS["gate"](run)) == 0
    better(run)
    assert command(COMMANDS["gate"](run)) == 65
    assert command(["report", str(run)]) == 0
    assert command(COMMANDS["gate"](run)) == 0


def test_a_run_without_a_report_has_nothing_to_compare_with(run: Path) -> None:
    (run / "manifest.json").unlink()
    better(run)
    assert command(COMMANDS["gate"](run)) == 0
