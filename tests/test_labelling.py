"""Labelling sittings: questions, durability, and recovery from interruptions, second tabs and edited files."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from qaeval import api
from qaeval.agreement.label_files import read_labels, read_rater_rows
from qaeval.agreement.label_rows import with_settled
from qaeval.agreement.model import RaterAgreement, RaterQuality
from qaeval.comparison.model import Verdict
from qaeval.errors import DataError, StoreError, UsageError
from qaeval.labelling import Adjudication, Question, Sitting, label_status, open_disputes
from qaeval.labelling.model import LabelStatus, RaterWork
from qaeval.labelling.sections import write_status
from qaeval.records import Label
from qaeval.storage.run_directory import InUseError
from qaeval.testing import make_run
from report_builders import RUBRIC, case, items_of, label_of

N_CHUNKS = 12
BETTER_LETTERS, WORSE_LETTERS = ["AAA"] * N_CHUNKS, ["AAC", "ABC"] * (N_CHUNKS // 2)


@pytest.fixture(scope="module")
def graded_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(
        tmp_path_factory.mktemp("runs") / "run", {"alpha": BETTER_LETTERS, "beta": WORSE_LETTERS}
    ).path


@pytest.fixture
def run(graded_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(graded_run, tmp_path / "run"))


def answer_all(sitting: Sitting, letter: str | Callable[[Question], str] = "A") -> Iterator[Question]:
    """Answer every question and yield it afterwards."""
    while (question := sitting.current()) is not None:
        sitting.record(
            question.assignment, letter if isinstance(letter, str) else letter(question), seconds=2.0
        )
        yield question


def answer_n(sitting: Sitting, n: int, letter: str | Callable[[Question], str] = "A") -> list[Question]:
    return list(islice(answer_all(sitting, letter), n))


def judge_letter(question: Question) -> str:
    """Return the judge's letter: always A for alpha, only A for the first item of beta."""
    return "A" if question.question.startswith(("alpha", "beta, factual")) else "C"


def read_rows(run: Path, rater: str = "anna") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "labels" / f"{rater}.jsonl").read_text().splitlines()]


def chunks(questions: Iterable[Question]) -> list[str]:
    return [question.text.split(".")[0] for question in questions]


# ------------------------------------------------------------------------------ questions


def test_items_of_a_chunk_are_consecutive_and_repeats_are_in_the_second_half(run: Path) -> None:
    with Sitting.open(run, "anna", n=36) as sitting:
        notes = sitting.notes
        questions = list(answer_all(sitting))
    assert notes == ["41 questions for --n 36: 5 shown twice, to measure how consistent the labels are"]
    rows = read_rows(run)[1:]
    first_chunk_ids = [row["chunk_id"] for row in rows if "repeat" not in row]
    assert len(first_chunk_ids) == 36
    assert len(dict.fromkeys(first_chunk_ids)) == sum(
        a != b for a, b in zip(first_chunk_ids, ["", *first_chunk_ids[:-1]], strict=True)
    )
    assert {first_chunk_ids.count(chunk) for chunk in first_chunk_ids} == {
        6
    }  # two candidates with three items each
    repeat_indices = [index for index, row in enumerate(rows) if row.get("repeat")]
    assert len(repeat_indices) == 5
    assert min(repeat_indices) >= 18
    assert len(questions) == 41


def test_more_items_than_asked_for_are_explained(run: Path) -> None:
    with Sitting.open(run, "anna", n=3) as sitting:
        assert sitting.notes == [
            "7 questions for --n 3: 6 items, because whole chunks are labelled; 1 shown twice, to measure how consistent the labels are"
        ]


@pytest.mark.slow
def test_each_rater_has_a_different_but_stable_order(run: Path) -> None:
    orders = {}
    for rater in ("anna", "bert", "anna"):
        with Sitting.open(run, rater, n=72) as sitting:
            first_questions = [sitting.current()]
            orders.setdefault(rater, []).append(first_questions[0])
    assert orders["anna"][0] == orders["anna"][1]
    assert read_rows(run, "anna")[0]["items"] != read_rows(run, "bert")[0]["items"]


@pytest.mark.slow
def test_a_question_names_neither_candidate_nor_letter_nor_item(run: Path) -> None:
    table = api.load_run(run).items
    with Sitting.open(run, "anna", n=6) as sitting:
        question = sitting.current()
    assert question is not None
    (row,) = table[table["question"] == question.question].to_dict("records")
    assert question.assignment != row["item_id"]
    assert not {"candidate", "letter", "reason"} & set(question.__dataclass_fields__)
    assert question.letters == ("A", "B", "C")
    assert [flag.name for flag in question.flags] == ["hallucination"]
    assert "## Scale, best first" in question.rubric
    assert [question.parts[index] for index in question.support] == [
        part for part in question.parts if "opens at" in part
    ]


def test_a_second_rater_gets_a_fifth_of_the_first_raters_items(run: Path) -> None:
    for rater in ("anna", "bert"):
        with Sitting.open(run, rater, n=30) as sitting:  # 5 of 12 chunks
            list(answer_all(sitting))
    anna, bert = ({row["chunk_id"] for row in read_rows(run, rater)[1:]} for rater in ("anna", "bert"))
    assert (len(anna), len(bert), len(anna & bert)) == (5, 5, 1)


def test_raters_on_different_machines_share_items(graded_run: Path, tmp_path: Path) -> None:
    chunks_by_rater = []
    for rater in ("anna", "bert", "cleo", "dirk"):
        run_copy = Path(shutil.copytree(graded_run, tmp_path / rater))
        with Sitting.open(run_copy, rater, n=6) as sitting:
            list(answer_all(sitting))
        chunks_by_rater.append({row["chunk_id"] for row in read_rows(run_copy, rater)[1:]})
    assert set.intersection(*chunks_by_rater)


def test_further_sittings_ask_the_remaining_items_until_none_is_left(run: Path) -> None:
    question_texts = []
    for _ in range(2):
        with Sitting.open(run, "anna", n=36) as sitting:
            question_texts += [question.question for question in answer_all(sitting)]
    assert len(set(question_texts)) == 72
    with pytest.raises(UsageError, match="every item"):
        Sitting.open(run, "anna")


@pytest.mark.parametrize("by", ["chunks", "random", "stratified"])
def test_every_plan_stores_the_probability_of_its_items(run: Path, by: Any) -> None:
    with Sitting.open(run, "anna", n=24, by=by) as sitting:
        list(answer_all(sitting))
    labels = read_labels(run / "labels" / "anna.jsonl")
    assert len(labels) == pytest.approx(24, abs=2)
    assert all(label.inclusion is not None for label in labels)
    assert {label.chunk_inclusion is not None for label in labels} == {by == "chunks"}


def test_plans_that_need_missing_data_are_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="no probabilities"):
        Sitting.open(run, "anna", by="uncertain")
    with pytest.raises(UsageError, match="two different letters"):
        Sitting.open(run, "anna", by="disagree")
    assert not (run / "labels" / "anna.jsonl").exists()


def test_disputed_items_are_more_likely_to_be_drawn(run: Path) -> None:
    with Sitting.open(run, "anna", n=12) as sitting:
        list(answer_all(sitting, "B"))  # the judge gave A or C to nearly all
    with Sitting.open(run, "bert", n=12, by="disagree") as sitting:
        list(answer_all(sitting))
    probabilities = read_rows(run, "bert")[0]["probabilities"]
    labelled = {row["item_id"] for row in read_rows(run)[1:]}
    disputed = [p for item_id, p in probabilities.items() if item_id in labelled]
    assert disputed
    assert min(disputed) > read_rows(run, "bert")[0]["probability"]


# ------------------------------------------------------------------------------ durability


def test_a_label_is_on_the_disk_before_record_returns(run: Path) -> None:
    synced_rows = []

    def sync(descriptor: int) -> None:
        os.fsync(descriptor)
        synced_rows.append(read_rows(run)[-1])

    with Sitting.open(run, "anna", n=6, sync=sync) as sitting:
        question = sitting.current()
        assert question is not None
        sitting.record(question.assignment, "B", ["hallucination"], "why", 3.5)
        row = synced_rows[-1]
        sitting.skip(sitting.current().assignment, "unclear")  # type: ignore[union-attr]
        sitting.undo()
    assert (row["letter"], row["flags"], row["note"], row["seconds"]) == ("B", ["hallucination"], "why", 3.5)
    assert [row.get("kind", "label") for row in synced_rows] == ["draw", "label", "skip", "undo"]
    assert (synced_rows[2]["reason"], row["rater_kind"]) == ("unclear", "human")


def test_a_kill_between_write_and_reply_loses_nothing_and_a_retry_adds_no_row(run: Path) -> None:
    class KilledError(BaseException):
        pass

    is_armed = []

    def sync(descriptor: int) -> None:
        os.fsync(descriptor)
        if is_armed:
            raise KilledError

    sitting = Sitting.open(run, "anna", n=6, sync=sync)
    (first,) = answer_n(sitting, 1)
    second = sitting.current()
    assert second is not None
    is_armed.append(True)
    with pytest.raises(KilledError):
        sitting.record(second.assignment, "C")
    sitting.close()  # the system releases the lock of a killed process
    with Sitting.open(run, "anna") as resumed:
        before = read_rows(run)
        resumed.record(second.assignment, "C")  # the browser resends an unconfirmed answer
        assert read_rows(run) == before
        assert resumed.progress().labelled == 2
        assert resumed.current() not in (None, first, second)


def test_a_full_disk_leaves_the_file_unchanged(run: Path) -> None:
    is_full = []

    def sync(_: int) -> None:
        if is_full:
            raise OSError(28, "No space left on device")

    with Sitting.open(run, "anna", n=6, sync=sync) as sitting:
        answer_n(sitting, 2)
        before, question = (run / "labels" / "anna.jsonl").read_bytes(), sitting.current()
        assert question is not None
        is_full.append(True)
        with pytest.raises(StoreError, match="No space left"):
            sitting.record(question.assignment, "A")
        assert (run / "labels" / "anna.jsonl").read_bytes() == before
        assert sitting.current() == question
        is_full.clear()
        sitting.record(question.assignment, "A")
        assert sitting.progress().labelled == 3


def test_an_incomplete_last_line_is_dropped_and_its_item_asked_again(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Sitting.open(run, "anna", n=6) as sitting:
        answer_n(sitting, 3)
    path = run / "labels" / "anna.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    assert len(read_labels(path)) == 2
    assert "incomplete" in caplog.text
    with Sitting.open(run, "anna") as sitting:
        assert sitting.progress().labelled == 2
        answer_n(sitting, 9)
    assert len(read_labels(path)) == 6


def test_a_last_line_without_its_newline_is_kept(run: Path) -> None:
    with Sitting.open(run, "anna", n=6) as sitting:
        answer_n(sitting, 3)
    path = run / "labels" / "anna.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    with Sitting.open(run, "anna") as sitting:
        answer_n(sitting, 1)
        assert sitting.progress().labelled == 4
    assert len(read_labels(path)) == 4


# ------------------------------------------------------------------------------ answers


def test_a_repeated_answer_adds_no_row_and_a_different_answer_replaces_it(run: Path) -> None:
    with Sitting.open(run, "anna", n=6) as sitting:
        (question,) = answer_n(sitting, 1)
        n_rows = len(read_rows(run))
        sitting.record(question.assignment, "A")
        assert len(read_rows(run)) == n_rows
        sitting.record(question.assignment, "B")  # from a second tab
        assert sitting.progress().labelled == 1
    assert [label.letter for label in read_labels(run / "labels" / "anna.jsonl")] == ["B"]


def test_undo_reopens_the_last_answer_and_is_idempotent_for_an_id(run: Path) -> None:
    with Sitting.open(run, "anna", n=6) as sitting:
        first, second = answer_n(sitting, 2)
        assert sitting.undo(second.assignment) == second
        assert sitting.undo(second.assignment) == second  # sent twice
        assert sitting.current() == second
        assert sitting.undo() == first
        assert sitting.undo() is None
        answer_n(sitting, 1, "C")
    assert [label.letter for label in read_labels(run / "labels" / "anna.jsonl")] == ["C"]


def test_a_skipped_item_is_not_asked_again_and_has_no_label(run: Path) -> None:
    with Sitting.open(run, "anna", n=6) as sitting:
        skipped = sitting.current()
        assert skipped is not None
        sitting.skip(skipped.assignment, "unclear")
        assert skipped not in list(answer_all(sitting))
        progress = sitting.progress()
    assert (progress.skipped, progress.labelled, progress.remaining) == (1, progress.total - 1, 0)
    (row,) = read_rater_rows(run / "labels" / "anna.jsonl").skipped
    assert (row.reason, len(read_labels(run / "labels" / "anna.jsonl"))) == ("unclear", 5)


@pytest.mark.parametrize(
    ("letter", "flags", "message"), [("D", (), "'D'"), ("", (), "''"), ("A", ("no_such",), "no_such")]
)
def test_answers_outside_the_scale_are_refused(
    run: Path, letter: str, flags: tuple[str, ...], message: str
) -> None:
    with Sitting.open(run, "anna", n=6) as sitting:
        question = sitting.current()
        assert question is not None
        with pytest.raises(UsageError, match=message):
            sitting.record(question.assignment, letter, flags)
        with pytest.raises(UsageError, match="of this sitting"):
            sitting.record("0" * 16, "A")
    assert len(read_rows(run)) == 1


def test_lone_surrogates_and_control_characters_in_a_note_are_stored(run: Path) -> None:
    with Sitting.open(run, "anna", n=6) as sitting:
        question = sitting.current()
        assert question is not None
        sitting.record(question.assignment, "A", note="\ud83d \0 \u202e")
    assert read_labels(run / "labels" / "anna.jsonl")[0].note == "\ufffd \0 \u202e"


@pytest.mark.slow
def test_a_clock_running_backwards_changes_neither_order_nor_times(run: Path) -> None:
    times = (f"20{99 - index}-01-01T00:00:00+00:00" for index in range(99))
    with Sitting.open(run, "anna", n=20, clock=lambda: next(times)) as sitting:
        for number, question in enumerate(answer_all(sitting)):
            sitting.record(question.assignment, "A", seconds=-5.0 if number == 0 else 2.0 + number, note="x")
        progress = sitting.progress()
        quality = sitting.summary().agreement.quality  # type: ignore[union-attr]
    assert progress.remaining == 0
    assert quality is not None
    assert quality.n_timed == len(read_labels(run / "labels" / "anna.jsonl")) - 1
    assert quality.seconds_first is not None
    assert quality.seconds_last is not None
    assert quality.seconds_first < quality.seconds_last


# ------------------------------------------------------------------------------ concurrent sittings and edited files


@pytest.mark.slow
def test_a_second_sitting_of_the_same_rater_is_refused_but_another_rater_is_allowed(run: Path) -> None:
    with Sitting.open(run, "anna", n=6):
        with pytest.raises(InUseError, match="anna"):
            Sitting.open(run, "anna", n=6)
        Sitting.open(run, "bert", n=6).close()
        assert api.load_run(run).report.candidates  # a report can be made meanwhile
    Sitting.open(run, "anna").close()


def test_a_file_edited_during_a_sitting_is_read_again(run: Path) -> None:
    path = run / "labels" / "anna.jsonl"
    with Sitting.open(run, "anna", n=6) as sitting:
        first, second = answer_n(sitting, 2)
        path.write_text(path.read_text().replace('"letter":"A"', '"letter":"B"'))
        third = sitting.current()
        assert third not in (first, second, None)
        answer_n(sitting, 1, "C")
    assert [label.letter for label in read_labels(path)] == ["B", "B", "C"]


def test_a_file_corrupted_during_a_sitting_is_named_and_loses_nothing(run: Path) -> None:
    path = run / "labels" / "anna.jsonl"
    with Sitting.open(run, "anna", n=6) as sitting:
        answer_n(sitting, 2)
        content = path.read_bytes()
        path.write_bytes(content + b"{broken}\n")
        with pytest.raises(DataError, match=r"anna\.jsonl:4"):
            sitting.current()
        path.write_bytes(content)
        answer_n(sitting, 1)
        assert sitting.progress().labelled == 3
        path.unlink()  # a deleted file is written again
        answer_n(sitting, 1)
    assert len(read_labels(path)) == 4


@pytest.mark.parametrize(
    "name", ["a/b", "../anna", "", "  ", ".anna", "a\0b", "a\nb", "x" * 65, "a:b", "anna."]
)
def test_rater_names_that_are_invalid_file_names_are_refused(run: Path, name: str) -> None:
    with pytest.raises(UsageError, match="rater"):
        Sitting.open(run, name)
    assert not (run / "labels").exists()


def test_an_unfinished_run_is_refused_with_what_is_missing(run: Path) -> None:
    rows = (run / "grades.jsonl").read_text().splitlines(keepends=True)
    (run / "grades.jsonl").write_text("".join(rows[:-1]))
    with pytest.raises(DataError, match=r"1 grades are missing.*--resume"):
        Sitting.open(run, "anna")
    assert not (run / "labels").exists()


def test_a_directory_that_cannot_be_written_is_named(run: Path) -> None:
    (run / "labels").write_text("a file in place of the folder")
    with pytest.raises(StoreError, match="cannot be written"):
        Sitting.open(run, "anna")


def test_labels_of_another_rubric_version_do_not_count(run: Path) -> None:
    with Sitting.open(run, "anna", n=72) as sitting:
        list(answer_all(sitting))
    path = run / "labels" / "anna.jsonl"
    path.write_text(
        path.read_text()
        .replace("qa_pair_abc/3", "qa_pair_abc/0")
        .replace('"rubric_sha":"', '"rubric_sha":"0')
    )
    with Sitting.open(run, "anna", n=72) as sitting:
        assert sitting.progress().answered == 0
        assert sitting.current() is not None


@pytest.mark.slow
def test_conflicting_labels_of_one_rater_are_refused(run: Path) -> None:
    table = api.load_run(run).letters
    item = table["item_id"][0]
    folder = run / "labels"
    folder.mkdir()
    rows = [Label(item_id=item, rater="anna", rater_kind="human", letter=letter) for letter in "AB"]
    (folder / "sheet.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    with pytest.raises(DataError, match=item):
        Sitting.open(run, "anna")


# ------------------------------------------------------------------------------ effects of the labels


@pytest.mark.slow
def test_new_labels_are_used_by_agreement_report_and_gate(run: Path) -> None:
    with Sitting.open(run, "anna", n=72) as sitting:
        list(answer_all(sitting, judge_letter))
        summary = sitting.summary()
    loaded = api.load_run(run)
    rater, *_ = loaded.agreement().agreement
    assert (rater.rater, rater.rater_kind, rater.n_labels) == ("anna", "human", 72)
    assert loaded.report.verdict == summary.verdict
    assert loaded.report.differences == summary.differences
    (pair,) = summary.differences
    assert pair.deciding is not None
    assert (pair.deciding.rater, pair.deciding.n_chunks) == ("anna", N_CHUNKS)
    assert summary.agreement == loaded.report.agreement[0]
    assert not summary.is_decided  # 12 chunks are too few to lift the condition
    policy = {"rules": [{"quantity": "usable_rate", "margin": 0.1, "corrected": True}]}
    verdicts = api.gate(loaded, baseline=run, policy=policy).rules
    assert {rule.labelled_by for rule in verdicts} == {"anna"}


@pytest.mark.slow
def test_the_summary_reports_repeats_drift_and_labels_given_too_fast(run: Path) -> None:
    with Sitting.open(run, "anna", n=36) as sitting:
        for number, question in enumerate(answer_all(sitting, judge_letter)):
            sitting.record(
                question.assignment, "A" if number < 18 else "C", seconds=0.1 if number % 2 else 30
            )
        quality = sitting.summary().agreement.quality  # type: ignore[union-attr]
    assert quality is not None
    assert (quality.n_timed, quality.n_readable) == (36, 36)
    assert (quality.best_first, quality.best_last) == (1.0, 0.0)
    assert (quality.n_repeats, quality.n_repeats_same) == (5, 0)
    fast = [row for row in read_rows(run)[1:] if row.get("seconds") == 0.1 and "repeat" not in row]
    fast_assignments = {row["assignment"] for row in fast}
    assert quality.n_too_fast == len(fast_assignments)


@pytest.mark.slow
def test_a_sitting_ends_as_soon_as_the_labels_decide(run: Path) -> None:
    with Sitting.open(run, "anna", n=72, until_decided=True) as sitting:
        questions = list(answer_all(sitting, judge_letter))
        progress, summary = sitting.progress(), sitting.summary()
        assert summary.decision is not None
        assert (summary.decision.outcome, summary.decision.leaders) == ("best", ("alpha",))
        assert summary.decision.estimand == "pool"
        assert (progress.is_decided, progress.remaining) == (True, 0)
        assert len(questions) < 72
        assert summary.decision.n_labelled == summary.differences[0].labelled[0].n_chunks
        reopened = sitting.undo()
        assert reopened is not None
        assert sitting.current() == reopened  # nothing is decided without the last chunk
        answer_n(sitting, 1, judge_letter)
        assert sitting.current() is None
    with Sitting.open(run, "anna", until_decided=True) as sitting:
        assert sitting.current() is None
    with Sitting.open(run, "anna") as sitting:  # without until_decided the remaining items are asked
        assert len(list(answer_all(sitting, judge_letter))) == 77 - len(questions)


@pytest.mark.slow
def test_a_sitting_about_future_documents_decides_at_planned_looks(run: Path) -> None:
    with Sitting.open(run, "anna", n=72, until_decided=True, estimand="future") as sitting:
        questions = list(answer_all(sitting, judge_letter))
        decision = sitting.summary().decision
    assert decision is not None
    assert (decision.estimand, decision.outcome) == ("future", "best")
    assert decision.n_labelled >= 10
    assert len(questions) >= 60


@pytest.mark.slow
def test_until_decided_needs_two_candidates_and_whole_chunks(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="whole chunks"):
        Sitting.open(run, "anna", by="random", until_decided=True)
    single_candidate_run = make_run(tmp_path / "alone", {"alpha": ["AAB"] * 3}).path
    with pytest.raises(UsageError, match="has one"):
        Sitting.open(single_candidate_run, "anna", until_decided=True)
    with Sitting.open(single_candidate_run, "anna", n=5) as sitting:
        assert len(list(answer_all(sitting))) == 6  # one of them a repeat
        summary = sitting.summary()
    assert summary.differences == ()
    assert [(rate.candidate, rate.n_items, rate.rate.value) for rate in summary.rates] == [("alpha", 5, 1.0)]


# ------------------------------------------------------------------------------ adjudication


def label_with_two_raters(run: Path) -> None:
    for rater, letter in (("anna", "A"), ("bert", "B")):
        with Sitting.open(run, rater, n=72) as sitting:
            list(
                answer_all(
                    sitting, lambda question, letter=letter: letter if "beta" in question.question else "A"
                )
            )  # type: ignore[misc]


@pytest.mark.slow
def test_a_third_rater_settles_disputes_and_agreement_uses_the_settled_letter(run: Path) -> None:
    label_with_two_raters(run)
    before = api.load_run(run).report.agreement
    assert len(open_disputes(run)) == 36
    with pytest.raises(UsageError, match="third person"):
        Adjudication.open(run, "anna")
    with Adjudication.open(run, "cleo") as adjudication:
        dispute = adjudication.current()
        assert dispute is not None
        assert [(label.rater, label.letter) for label in dispute.labels] == [("anna", "A"), ("bert", "B")]
        dispute_labels = [label for each in open_disputes(run) for label in each.labels]
        while (dispute := adjudication.current()) is not None:
            adjudication.settle(dispute.question.assignment, "C", note="the text says otherwise")
        assert (adjudication.n_settled, adjudication.n_total) == (36, 36)
        stored = read_labels(run / "labels" / "cleo.jsonl")
        assert {(label.rater, label.rater_kind, label.letter, label.note) for label in stored} == {
            ("cleo", "human", "C", "the text says otherwise")
        }
        assert {label.rubric for label in stored} == {label.rubric for label in dispute_labels} != {""}
        assert {label.chunk_id for label in stored} == {label.chunk_id for label in dispute_labels} != {""}
        assert adjudication.undo() is not None
        assert adjudication.n_settled == 35
    report = api.load_run(run).report
    people = [rater for rater in report.agreement if rater.rater_kind == "human"]
    assert [(rater.rater, rater.n_settled, rater.settled_by) for rater in people] == [
        ("anna", 35, ("cleo",)),
        ("bert", 35, ("cleo",)),
    ]
    assert report.agreement[0].coefficients != before[0].coefficients
    assert report.raters[0].coefficients.confusion[0][1] == 36  # the agreement between the two is unchanged
    status = label_status(run)
    assert (status.n_disputed, status.n_settled) == (1, 35)


def settled_letters(*labels: Label) -> list[str]:
    return [label.letter for label in with_settled(labels)]


def test_a_settling_label_without_a_rubric_applies_to_every_rubric() -> None:
    anna = Label(item_id="i", rater="anna", rater_kind="human", letter="A", rubric="r/1")
    bert = anna.model_copy(update={"rater": "bert", "letter": "B", "rubric": ""})
    cleo = anna.model_copy(update={"rater": "cleo", "letter": "C", "rubric": "", "settles": True})
    assert settled_letters(anna, bert, cleo) == ["C", "C"]
    # a label of the same rubric takes precedence, one of another rubric settles nothing
    same_rubric, other_rubric = (
        cleo.model_copy(update={"rubric": name, "letter": "D"}) for name in ("r/1", "s/1")
    )
    assert settled_letters(anna, same_rubric, cleo) == ["D"]
    assert settled_letters(anna, other_rubric, cleo) == ["C"]
    assert settled_letters(anna, other_rubric) == ["A"]
    assert settled_letters(bert, cleo, same_rubric) == ["D"]  # the last one wins if the rater names no rubric


@pytest.mark.parametrize(
    ("settler", "n_settled", "letter"), [("", 12, "C"), ("qa_quality/1", 12, "C"), ("qa_quality/0", 0, "A")]
)
def test_settled_letters_replace_labels_of_compatible_rubrics(
    settler: str, n_settled: int, letter: str
) -> None:
    judged_case = case({"alpha": ["AB"] * 12}, items_per_sample=2)
    judged_case = replace(judged_case, rubric=RUBRIC.model_copy(update={"labels_from": (0,)}))
    items = items_of(judged_case, "alpha")
    rubric = f"{RUBRIC.name}/{RUBRIC.version}"
    labels = [label_of(item, "A", rubric=rubric) for item in items]
    labels += [label_of(item, "C", rater="cleo", rubric=settler, settles=True) for item in items[:12]]
    (anna,) = judged_case.with_rows(labels=tuple(labels)).report().agreement
    assert (anna.n_settled, anna.settled_by) == (n_settled, ("cleo",) if n_settled else ())
    assert anna.coefficients is not None
    letter_counts = dict(zip("ABC", map(sum, anna.coefficients.confusion), strict=True))
    assert letter_counts[letter] == (12 if n_settled else 24)


def test_adjudication_without_disputes_is_a_usage_error(run: Path) -> None:
    with pytest.raises(UsageError, match="nothing to settle"):
        Adjudication.open(run, "cleo")


# ------------------------------------------------------------------------------ the table of raters


def make_work(rater: str, n_labels: int) -> RaterWork:
    return RaterWork(rater=rater, rater_kind="human", n_labels=n_labels, n_chunks=12, n_skipped=3, n_open=0)


def make_agreement(rater: str, **quality: float) -> RaterAgreement:
    names = ("median_seconds", "seconds_first", "seconds_last", "best_first", "best_last")
    counts = dict.fromkeys(("n_timed", "n_too_fast", "n_readable", "n_repeats", "n_repeats_same"), 0)
    return RaterAgreement(
        rater=rater,
        rater_kind="human",
        n_labels=40,
        n_tuning_excluded=0,
        n_ungraded=0,
        n_not_in_run=0,
        standing="no labels joined",
        sentences=(),
        coefficients=None,
        quality=RaterQuality.model_validate({**dict.fromkeys(names), **counts, **quality}),
    )


def test_the_table_of_raters_shows_work_and_quality_with_dashes_for_unknown_values() -> None:
    status = LabelStatus(
        source="run",
        judge="selene",
        letters=("A", "B", "C"),
        raters=(make_work("anna", 1234), make_work("bert", 5), make_work("cleo", 0)),
        agreement=(
            make_agreement("bert", n_repeats=0, n_readable=0),
            make_agreement(
                "anna", median_seconds=12.0, n_repeats=5, n_repeats_same=4, n_readable=30, n_too_fast=2
            ),
        ),
        pairs=(),
        n_disputed=0,
        n_settled=0,
        more=(),
        verdict=Verdict(kind="undecided"),
        sentences=("Labelled.",),
    )
    raters, labels = write_status(status)
    (table,) = raters.tables
    assert "selene" in table.header[5]
    assert [row[:5] for row in table.rows] == [
        ("anna", "human", "1,234", "12", "3"),
        ("bert", "human", "5", "12", "3"),
        ("cleo", "human", "0", "12", "3"),
    ]
    assert [row[7:] for row in table.rows] == [("4 of 5", "2 of 30"), ("–", "–"), ("–", "–")]
    assert [row[6][:2] for row in table.rows] == ["12", "–", "–"]
    assert (labels.paragraphs, table.words) == (("Labelled.",), frozenset({1}))
    (only_section,) = write_status(status.model_copy(update={"raters": ()}))
    assert only_section.anchor == "labels"
