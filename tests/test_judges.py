"""Several judges on the same items: all letters are kept, one judge decides, and the report compares them."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qaeval
from command import qaeval as run_command
from qaeval.agreement.model import FurtherJudge
from qaeval.comparison.run_data import read_run
from qaeval.errors import NotComparableError, UsageError
from qaeval.gate.baseline import EvidenceReader, evidence_digest
from qaeval.registry.find import find_config
from qaeval.stats import kappa_difference
from qaeval.storage.run_directory import RunStore
from qaeval.testing import ScriptedModel, grade_reply, make_run, registered

N_CHUNKS = 24
N_ITEMS = 2 * N_CHUNKS * 3


def _random_letters(seed: int, best: float) -> list[str]:
    rng = random.Random(seed)  # noqa: S311 - letters of a test
    weights = [best, 1 - best - 0.1, 0.1]
    return ["".join(rng.choices("ABC", weights, k=3)) for _ in range(N_CHUNKS)]


def _add_noise(letters: list[str], seed: int, share: float) -> list[str]:
    rng = random.Random(seed)  # noqa: S311 - letters of a test
    return ["".join(rng.choice("ABC") if rng.random() < share else mark for mark in word) for word in letters]


LETTERS = {"m": _random_letters(1, 0.5), "n": _random_letters(2, 0.8)}
LABELS = {"anna": {name: _add_noise(letters, 3, 0.2) for name, letters in LETTERS.items()}}


def second_judge(request: Any) -> str:
    """Return letters that depend only on the item, not on any label."""
    return grade_reply("ABC"[sum(map(ord, request.inputs["question"])) % 3])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", LETTERS, labels=LABELS)
    return tmp_path / "run"


def grade_by_second(run: Path, **options: Any) -> tuple[qaeval.Run, int]:
    """Grade with the second judge; return the run and the number of requests."""
    model = ScriptedModel(second_judge)
    with registered("second", model):
        graded = qaeval.grade(run, judge="second", cache=False, **options)
    return graded, len(model.requests)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_second_judge_without_letters_does_not_change_the_report(run: Path) -> None:
    before = qaeval.load_run(run).report.verdict
    with RunStore.open(run, writable=True) as store:
        grading = store.settings()["grading"]
        store.write_further_judge({**grading, "judge": {**grading["judge"], "name": "absent"}})
    assert run_command("report", str(run), cwd=run.parent).returncode == 0
    assert qaeval.load_run(run).report.verdict == before


@pytest.mark.slow
def test_letters_of_both_judges_are_kept_and_no_item_is_graded_twice(run: Path) -> None:
    before = (run / "grades.jsonl").read_bytes()
    settings = (run / "settings.json").read_bytes()
    _, n = grade_by_second(run)
    assert n == N_ITEMS
    assert (run / "grades.jsonl").read_bytes() == before
    assert (run / "settings.json").read_bytes() == settings
    rows = _read_rows(run / "grades" / "second.jsonl")
    assert {row["judge"] for row in rows} == {"second"}
    assert {row["item_id"] for row in rows} == {row["item_id"] for row in _read_rows(run / "grades.jsonl")}
    _, n = grade_by_second(run)
    assert n == 0


@pytest.mark.slow
def test_an_interrupted_second_judge_resumes(run: Path) -> None:
    grade_by_second(run)
    path = run / "grades" / "second.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-11]) + lines[-11][:40])  # a killed process leaves a torn line
    report = qaeval.load_run(run, labels=[]).report
    assert (report.judges[0].n_graded, report.judges[0].n_items) == (N_ITEMS - 11, N_ITEMS)
    assert report.judges[0].coefficients is not None
    assert report.judges[0].coefficients.n == N_ITEMS - 11
    _, n = grade_by_second(run)
    assert n == 11


def _further_judge(run: Path, **options: Any) -> FurtherJudge:
    (judge,) = qaeval.load_run(run, labels=run / "labels" / "anna.jsonl", **options).report.judges
    return judge


@pytest.mark.slow
def test_the_report_compares_the_judges_on_the_same_items(run: Path) -> None:
    grade_by_second(run)
    further = _further_judge(run)
    first_letters = {row["item_id"]: row["letter"] for row in _read_rows(run / "grades.jsonl")}
    second_letters = {row["item_id"]: row["letter"] for row in _read_rows(run / "grades" / "second.jsonl")}
    labels = {row["item_id"]: row["label"] for row in _read_rows(run / "labels" / "anna.jsonl")}
    table = qaeval.load_run(run, labels=[]).letters
    clusters = dict(zip(table["item_id"], table["chunk_id"], strict=True))
    assert further.coefficients is not None
    assert further.coefficients.observed.value == pytest.approx(
        np.mean([first_letters[item] == second_letters[item] for item in first_letters])
    )
    (change,) = further.kappa_differences
    rated_codes = [
        ["ABC".index(letter_by_item[item]) for item in labels]
        for letter_by_item in (labels, first_letters, second_letters)
    ]
    expected = kappa_difference(*rated_codes, [clusters[item] for item in labels], n_levels=3)
    assert (change.rater, change.n) == ("anna", len(labels))
    assert change.difference.value == pytest.approx(expected.value)
    assert change.difference.high == pytest.approx(expected.high)
    assert change.difference.high is not None
    assert change.difference.high < 0  # the second judge agrees only by chance
    assert change.difference.value == pytest.approx(
        (change.kappa_of_other.value or 0) - (change.kappa.value or 0)
    )
    (rater,) = further.agreement
    assert rater.standing != "beats both"
    assert rater.coefficients is not None
    assert rater.coefficients.kappa.value == pytest.approx(change.kappa_of_other.value)
    assert further.p_rates is not None
    assert further.p_rates < 0.05
    counts_by_candidate = {candidate.candidate: candidate for candidate in further.candidates}
    item_ids_of_m = table[table["candidate"] == "m"]["item_id"]
    assert counts_by_candidate["m"].n_usable == sum(first_letters[item] == "A" for item in item_ids_of_m)
    assert counts_by_candidate["m"].n_usable_by_other == sum(
        second_letters[item] == "A" for item in item_ids_of_m
    )


@pytest.mark.slow
def test_the_deciding_judge_can_be_chosen(run: Path, tmp_path: Path) -> None:
    grade_by_second(run)
    first, second = (qaeval.load_run(run, labels=[], decide_by=name) for name in (None, "second"))
    second_letters = {row["item_id"]: row["letter"] for row in _read_rows(run / "grades" / "second.jsonl")}
    letters = second.letters
    assert letters["letter"].tolist() == [second_letters[item] for item in letters["item_id"]]
    assert second.report.judge.facts.name == "second"
    assert [judge.judge for judge in second.report.judges] == ["scripted-judge"]
    usable = [candidate.n_usable_by_other for candidate in first.report.judges[0].candidates]
    assert [candidate.n_usable for candidate in second.report.judges[0].candidates] == usable
    result = run_command("report", "run", "--decide-by", "second", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for name in ("report.md", "report.html"):
        assert "graded by second, which decides," in (run / name).read_text()
    manifest = json.loads((run / "manifest.json").read_text())
    assert {"grades/second.json", "grades/second.jsonl"} <= set(manifest["sha256"])
    result = run_command("report", "run", "--decide-by", "third", cwd=tmp_path)
    assert result.returncode == 64
    assert "scripted-judge, second" in result.stderr


@pytest.mark.slow
def test_each_judge_is_measured_against_labels_separately(run: Path, tmp_path: Path) -> None:
    grade_by_second(run)
    first, second = (
        qaeval.agreement(run, run / "labels" / "anna.jsonl", judge=judge).agreement[0].coefficients
        for judge in ("scripted-judge", "second")
    )
    assert first is not None
    assert second is not None
    (change,) = _further_judge(run).kappa_differences
    assert (first.kappa.value, second.kappa.value) == (change.kappa.value, change.kappa_of_other.value)
    result = run_command(
        "agreement", "run", "--judge", "third", "--labels", "run/labels/anna.jsonl", cwd=tmp_path
    )
    assert result.returncode == 64


@pytest.mark.slow
def test_a_gate_does_not_show_the_verdict_of_another_judge(run: Path, tmp_path: Path) -> None:
    grade_by_second(run)

    def gated(judge: str) -> tuple[bool, bool, bool]:
        shown = run_command("report", "run", "--decide-by", judge, cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
        shown = run_command("gate", "run", "--baseline", "run", "--comment", "comment.md", cwd=tmp_path)
        report, comment = json.loads((run / "gate.json").read_text()), (tmp_path / "comment.md").read_text()
        return (
            report["verdict"] is not None,
            "Comparison: " in shown.stdout,
            "<summary>The run: candidates" in comment,
        )

    assert gated("scripted-judge") == (True, True, True)
    assert gated("second") == (False, False, False)


@pytest.mark.slow
def test_a_gate_uses_the_first_judge_only(run: Path) -> None:
    reader = EvidenceReader(config=find_config(None), labels=[run / "labels" / "anna.jsonl"])
    before = evidence_digest(reader.run(run))
    grade_by_second(run)
    assert evidence_digest(reader.run(run)) == before


@pytest.mark.slow
def test_a_report_of_one_judge_has_no_judge_comparison(run: Path) -> None:
    report = json.loads(qaeval.load_run(run, labels=[]).render("json"))
    assert "judges" not in report
    assert not (run / "grades").exists()


@pytest.mark.slow
def test_timings_and_costs_are_those_of_the_deciding_judge(run: Path, tmp_path: Path) -> None:
    before = qaeval.load_run(run, labels=[]).report.judge
    grade_by_second(run)
    after = qaeval.load_run(run, labels=[]).report.judge
    assert (before.n_asked, before.timing.wall_s) == (after.n_asked, after.timing.wall_s)
    run_command("report", "run", cwd=tmp_path)
    assert run_command("cost", "run", cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_side_by_side_runs_use_their_first_judges(tmp_path: Path, run: Path) -> None:
    grade_by_second(run)
    make_run(tmp_path / "other", {"o": LETTERS["m"]})
    assert qaeval.load_run([run, tmp_path / "other"], labels=[]).report.judges == ()


# ------------------------------------------------------------------------------------------ refused input


def test_another_rubric_is_refused_before_any_request(run: Path) -> None:
    (run / "mine.yaml").write_text(
        run_command("rubric", "show", "qa_pair_abc", cwd=run).stdout.replace("qa_pair_abc", "mine", 1)
    )
    with pytest.raises(NotComparableError, match="another rubric"):
        grade_by_second(run, rubric=str(run / "mine.yaml"))
    assert not (run / "grades").exists()


def test_two_judges_with_one_name_and_different_settings_are_refused(run: Path) -> None:
    grade_by_second(run)
    path = run / "grades" / "second.json"
    recorded = json.loads(path.read_text())
    recorded["judge"]["judge_mode"] = "letter"
    path.write_text(json.dumps(recorded))
    with pytest.raises(NotComparableError, match="judge_mode"):
        grade_by_second(run)
    path.write_text("{")
    with pytest.raises(qaeval.errors.DataError, match=r"second\.json"):
        qaeval.load_run(run, labels=[]).report  # noqa: B018 - computed at the first access


def test_repeats_of_a_second_judge_are_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="scripted-judge"):
        grade_by_second(run, repeat=3)


@pytest.mark.slow
def test_a_second_judge_of_a_candidates_family_is_refused(run: Path) -> None:
    with registered("m", ScriptedModel(second_judge)), pytest.raises(UsageError, match="the same model"):
        qaeval.grade(run, judge="m")
    with registered("m", ScriptedModel(second_judge)):
        qaeval.grade(run, judge="m", allow_same_family=True)
        qaeval.grade(run, judge="m")  # the first call accepted it
    with RunStore.open(run) as store:
        assert "m" in store.further_judges()
        assert list(read_run(store).rows.further_grades) == ["m"]
