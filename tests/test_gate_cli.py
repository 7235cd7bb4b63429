import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gate_runs import draw_letters, write_run
from qaeval.cli import run

WIDE = "rules:\n  - {quantity: usable_rate, margin: 0.3}\n"
"""A margin that 24 chunks can decide."""
NARROW = "rules:\n  - {quantity: usable_rate, margin: 0.05}\n"
"""A margin that 24 chunks cannot decide."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a graded run of the embedded models on 24 chunks of the shipped eval."""
    path = tmp_path_factory.mktemp("demo") / "demo"
    assert run(["generate", "embedded-lead", "embedded-salient", "--n", "24", "--out", str(path)]) == 0
    assert run(["grade", str(path)]) == 0
    return path


@pytest.fixture(autouse=True)
def work_in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def gate(*arguments: object) -> int:
    return run(["gate", *map(str, arguments)])


@pytest.mark.slow
def test_an_identical_run_passes_and_writes_its_verdict(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gate.yaml").write_text(WIDE)
    assert run(["baseline", "set", str(demo)]) == 0
    assert "baselines/qa_pairs.json: " in capsys.readouterr().out
    assert gate(demo, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((demo / "gate.json").read_text())
    assert (printed["outcome"], printed["policy"]) == ("pass", "gate.yaml")
    assert gate(demo) == 0
    assert capsys.readouterr().out.startswith(printed["headline"])


@pytest.mark.slow
def test_a_worse_candidate_exits_1(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(demo, "--baseline", demo, "--candidate", "embedded-lead=embedded-salient") == 1
    printed = capsys.readouterr().out
    assert printed.startswith("Regression in usable_rate")
    assert max(map(len, printed.split("\n\n")[1].splitlines())) <= 80


@pytest.mark.slow
def test_an_underpowered_gate_exits_2_and_says_how_many_chunks_are_needed(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gate.yaml").write_text(NARROW)
    assert gate(demo, "--baseline", demo) == 2
    assert "more chunks would decide" in capsys.readouterr().out


def test_a_policy_of_limits_takes_no_baseline_that_is_not_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_run(tmp_path / "run", {"alpha": draw_letters(24, 0.95)})
    (tmp_path / "gate.yaml").write_text("rules:\n  - {quantity: usable_rate, at_least: 0.5}\n")
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "qa_pairs.json").write_text("{}")
    assert gate(made) == 0
    assert "against" not in capsys.readouterr().out
    assert gate(made, "--baseline", "baselines/qa_pairs.json") == 65


@pytest.mark.slow
def test_a_missing_required_certificate_exits_3(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "strict.yaml").write_text("certificate: require\n" + WIDE)
    assert gate(demo, "--baseline", demo, "--policy", "strict.yaml") == 3
    assert "certificates/qa_pairs-embedded-lexical-qa_pair_abc-" in capsys.readouterr().out.splitlines()[0]
    (tmp_path / "warned.yaml").write_text("certificate: warn\n" + WIDE)
    assert gate(demo, "--baseline", demo, "--policy", "warned.yaml") == 0
    assert "\n! " in capsys.readouterr().out


@pytest.fixture
def other_rubric(demo: Path, tmp_path: Path) -> Path:
    """Grade a copy of the demo's replies by another version of the rubric."""
    shipped = Path(__file__).parents[1] / "rubrics" / "qa_pair_abc.yaml"
    rubric = tmp_path / "qa_pair_abc.yaml"
    rubric.write_text(shipped.read_text().replace("version: 3", "version: 4", 1))
    copy = tmp_path / "copy"
    shutil.copytree(demo, copy)
    (copy / "grades.jsonl").unlink()
    settings = json.loads((copy / "settings.json").read_text())
    (copy / "settings.json").write_text(json.dumps({**settings, "grading": None}))
    assert run(["grade", str(copy), "--rubric", str(rubric)]) == 0
    return copy


@pytest.mark.slow
def test_a_changed_rubric_exits_4_and_regrading_makes_it_comparable(
    demo: Path, other_rubric: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gate.yaml").write_text(WIDE)
    assert gate(other_rubric, "--baseline", demo) == 4
    printed = capsys.readouterr().out
    assert printed.startswith("Not comparable:")
    assert all(detail in printed for detail in ("copy", "demo", "qa_pair_abc/4", "--regrade"))
    demo_grades = (demo / "grades.jsonl").read_bytes()
    assert gate(other_rubric, "--baseline", demo, "--regrade") == 0
    assert (demo / "grades.jsonl").read_bytes() == demo_grades
    (copy,) = demo.parent.glob("demo.regraded-*")
    regraded = (copy / "grades.jsonl").read_bytes()
    assert gate(other_rubric, "--baseline", demo, "--regrade") == 0
    assert (copy / "grades.jsonl").read_bytes() == regraded


@pytest.mark.slow
def test_changed_baseline_replies_are_regraded(demo: Path, other_rubric: Path, tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text(WIDE)
    baseline = tmp_path / "baseline"
    shutil.copytree(demo, baseline)
    assert gate(other_rubric, "--baseline", baseline, "--regrade") == 0
    lines = (baseline / "generations.jsonl").read_bytes().splitlines(keepends=True)
    (baseline / "generations.jsonl").write_bytes(b"".join(reversed(lines)))
    assert gate(other_rubric, "--baseline", baseline, "--regrade") == 0
    assert len(list(tmp_path.glob("baseline.regraded-*"))) == 2


def test_a_baseline_file_cannot_be_regraded(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["baseline", "set", str(demo)]) == 0
    assert gate(demo, "--regrade") == 64
    assert "baselines/qa_pairs.json" in capsys.readouterr().err


@pytest.mark.slow
def test_different_samples_exit_4_unless_unpaired(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text(WIDE)
    other_samples = write_run(tmp_path / "other", {"alpha": draw_letters(200, 0.8)}, samples_digest="0" * 64)
    sample_run = write_run(tmp_path / "one", {"alpha": draw_letters(200, 0.8)})
    assert gate(sample_run, "--baseline", demo) == 4
    assert gate(sample_run, "--baseline", other_samples) == 4
    assert gate(sample_run, "--baseline", other_samples, "--unpaired") == 0


@pytest.mark.slow
def test_a_closed_output_pipe_does_not_change_the_exit_code(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text(NARROW)
    command = [Path(sys.executable).with_name("qaeval"), "gate", demo, "--baseline", demo]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["results/dmeo", "--baseline", "x.json"], 65, "results/dmeo: no run here"),
        (["DEMO"], 64, "no baseline"),
        (["DEMO", "--baseline", "baselines/missing.json"], 65, "no such file"),
        (["DEMO", "--baseline", "DEMO", "--policy", "gat.yaml"], 65, "gat.yaml: no such file"),
        (["DEMO", "--baseline", "DEMO", "--candidate", "x"], 64, "expected NAME=VALUE"),
        (["DEMO", "--baseline", "DEMO", "--candidate", "x=y"], 64, "the run has no candidate 'x'"),
        (["DEMO", "--baseline", "DEMO", "--seed", "3"], 64, "belong to a sequential gate"),
        ([], 64, "Missing argument"),
    ],
)
def test_invalid_gate_arguments_are_refused(
    arguments: list[str], exit_code: int, message: str, demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resolved = [str(demo) if argument == "DEMO" else argument for argument in arguments]
    assert gate(*resolved) == exit_code
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_empty_and_ungraded_runs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline = write_run(tmp_path / "baseline", {"alpha": draw_letters(30, 0.8)})
    empty = write_run(tmp_path / "empty", {"alpha": draw_letters(30, 0.8)})
    (empty / "generations.jsonl").write_text("")
    (empty / "grades.jsonl").write_text("")
    assert gate(empty, "--baseline", baseline) == 65
    ungraded = write_run(tmp_path / "ungraded", {"alpha": ["---"] * 30})
    capsys.readouterr()
    assert gate(ungraded, "--baseline", baseline) == 65
    assert gate(baseline, "--baseline", ungraded) == 65
    assert run(["baseline", "set", str(ungraded)]) == 65
    printed = capsys.readouterr().err
    assert printed.count("90 of 90 items") == 3
    assert not (tmp_path / "baselines").exists()


@pytest.mark.slow
def test_the_row_order_on_disk_does_not_change_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    letters = {"alpha": draw_letters(40, 0.7, flagged_share=0.1)}
    write_run(tmp_path / "baseline", {"alpha": draw_letters(40, 0.8)})
    results = []
    for folder, is_reversed in (("a", False), ("b", True)):
        path = write_run(tmp_path / folder / "run", letters, is_reversed=is_reversed)
        code = gate(path, "--baseline", "baseline", "--json")
        results.append((code, json.loads(capsys.readouterr().out)))
    assert results[0] == results[1]
    assert results[0][0] == {"pass": 0, "regression": 1, "inconclusive": 2}[results[0][1]["outcome"]]


@pytest.mark.slow
def test_ci_files_are_written(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_text("before\n")
    views = ["--junit", "junit.xml", "--summary", "summary.md", "--comment", "comment.md"]
    assert gate(demo, "--baseline", demo, "--candidate", "embedded-lead=embedded-salient", *views) == 1
    assert "<failure" in (tmp_path / "junit.xml").read_text()
    assert (tmp_path / "summary.md").read_text().startswith("before\n")
    assert "usable_rate" in (tmp_path / "comment.md").read_text()
    assert gate(demo, "--baseline", demo, "--junit", "summary.md/junit.xml") == 74


@pytest.mark.slow
def test_baseline_show_and_list_print_contents_and_age(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["baseline", "set", str(demo), "--out", "b/release.json"]) == 0
    assert "in place of" not in capsys.readouterr().out
    assert run(["baseline", "set", str(demo), "--out", "b/release.json"]) == 0
    assert "in place of" in capsys.readouterr().out
    assert run(["baseline", "set", str(demo), "--out", "b/there.json", "--pointer"]) == 0
    (tmp_path / "b" / "broken.json").write_text("{}")
    capsys.readouterr()
    assert run(["baseline", "show", "b/release.json"]) == 0
    details = capsys.readouterr().out
    assert "under 1 hour" in details
    assert "qa_pair_abc/3" in details
    assert run(["baseline", "show", "b/there.json"]) == 0
    assert run(["baseline", "list", "--folder", "b"]) == 0
    listing = capsys.readouterr().out
    assert "embedded-salient" in listing
    assert "cannot be read" in listing
    assert run(["baseline", "list", "--folder", "b", "--json"]) == 0
    (row,) = [row for row in json.loads(capsys.readouterr().out) if "age_days" in row]
    assert row["age_days"] == 0
    assert 0 <= row["age_hours"] < 1


def test_the_baseline_that_a_gate_takes_here_is_shown_without_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["baseline", "show"]) == 64
    assert (
        "baselines/qa_pairs.json does not exist. `qaeval baseline set RUN` writes it"
        in capsys.readouterr().err
    )
    shutil.copytree(Path(__file__).parents[1] / "baselines", "baselines")
    assert run(["baseline", "show"]) == 0
    assert capsys.readouterr().out.startswith("baselines/qa_pairs.json: ")
    shutil.move("baselines/qa_pairs.json", "ours.json")
    Path("gate.yaml").write_text(
        "baseline: ours.json\nrules:\n  - {quantity: usable_rate, margin: 5 points}\n"
    )
    assert run(["baseline", "show"]) == 0
    assert capsys.readouterr().out.startswith("ours.json: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [(["set", "nothing"], 65), (["show", "nothing.json"], 65), (["list", "--folder", "nothing"], 64)],
)
def test_a_mistyped_baseline_command_is_refused(arguments: list[str], exit_code: int) -> None:
    assert run(["baseline", *arguments]) == exit_code


@pytest.mark.slow
def test_baseline_set_lists_rules_that_can_never_pass(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def never_passing(*options: str) -> list[str]:
        capsys.readouterr()
        assert run(["baseline", "set", str(demo), *options, "--json"]) == 0
        return list(json.loads(capsys.readouterr().out)["never_passing"])

    assert never_passing() == []
    policy = tmp_path / "p.yaml"
    policy.write_text(f"{NARROW}  - {{quantity: p95_latency, margin: 20%}}\n")
    too_narrow, unmeasured = [
        sentence for sentence in never_passing("--policy", "p.yaml") if "lead" in sentence
    ]
    assert "more chunks" in too_narrow
    assert "p95 latency cannot be evaluated" in unmeasured
    assert run(["baseline", "set", str(demo), "--policy", "p.yaml"]) == 0
    printed = capsys.readouterr().out
    assert too_narrow in printed
    assert "\nEven an identical run would not pass this gate (policy p.yaml):\n" in printed
    policy.write_text(f"certificate: require\n{WIDE}")
    assert run(["baseline", "set", str(demo), "--policy", "p.yaml"]) == 0
    assert (
        "\nWith this judge, even an identical run would not pass this gate (policy p.yaml):\n"
        in capsys.readouterr().out
    )
    policy.write_text("rules:\n  - {quantity: flag_rate, flag: rude, margin: 0.3}\n")
    assert run(["baseline", "set", str(demo), "--policy", "p.yaml", "--out", "b.json"]) == 65
    assert not (tmp_path / "b.json").exists()
    policy.rename(tmp_path / "gate.yaml")
    (problem,) = never_passing()
    assert "rude" in problem


@pytest.mark.slow
@pytest.mark.parametrize("n", [78, 20])
def test_the_default_policy_passes_an_equal_run_and_fails_a_worse_one(
    n: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("release", "today"):
        out = str(tmp_path / name)
        assert run(["generate", "embedded-lead", "embedded-salient", "--n", str(n), "--out", out]) == 0
        assert run(["grade", out]) == 0
    assert run(["baseline", "set", "release"]) == 0
    capsys.readouterr()
    assert gate("today") == 0
    assert f"{n} chunks" in capsys.readouterr().out
    assert gate("today", "--candidate", "embedded-salient=embedded-lead") == 0
    assert gate("today", "--candidate", "embedded-lead=embedded-salient") == 1


@pytest.mark.slow
def test_the_committed_baseline_is_comparable_with_the_shipped_eval(tmp_path: Path) -> None:
    committed = Path(__file__).parents[1] / "baselines" / "qa_pairs.json"
    assert committed.stat().st_size < 200_000
    out = tmp_path / "run"
    assert run(["generate", "embedded-lead", "embedded-salient", "--out", str(out)]) == 0
    assert run(["grade", str(out)]) == 0
    options = ("--baseline", committed, "--policy", committed.parents[1] / "gate.yaml")
    assert gate(out, *options) == 0
    assert gate(out, *options, "--candidate", "embedded-lead=embedded-salient") == 1
