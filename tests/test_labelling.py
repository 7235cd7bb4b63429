"""A sitting: what a rater is shown, what is on the disk when, and what becomes of interruptions, second tabs and edited files."""

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
BETTER, WORSE = ["AAA"] * N_CHUNKS, ["AAC", "ABC"] * (N_CHUNKS // 2)


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run", {"alpha": BETTER, "beta": WORSE}).path


@pytest.fixture
def run(graded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(graded, tmp_path / "run"))


def questions(sitting: Sitting, letter: str | Callable[[Question], str] = "A") -> Iterator[Question]:
    """Answer every question; yield it after its answer."""
    while (question := sitting.current()) is not None:
        sitting.record(
            question.assignment, letter if isinstance(letter, str) else letter(question), seconds=2.0
        )
        yield question


def answer(sitting: Sitting, n: int, letter: str | Callable[[Question], str] = "A") -> list[Question]:
    return list(islice(questions(sitting, letter), n))


def judged(question: Question) -> str:
    """Give the judge's letters: those of alpha are all A, of beta only the first one."""
    return "A" if question.question.startswith(("alpha", "beta, factual")) else "C"


def lines(run: Path, rater: str = "anna") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "labels" / f"{rater}.jsonl").read_text().splitlines()]


def chunks(asked: Iterable[Question]) -> list[str]:
    return [question.text.split(".")[0] for question in asked]


# ------------------------------------------------------------------------------ what is asked


def test_all_items_of_a_chunk_follow_each_other_and_repeats_come_in_the_second_half(run: Path) -> None:
    with Sitting.open(run, "anna", n=36) as sitting:
        notes = sitting.notes
        asked = list(questions(sitting))
    assert notes == ["41 questions for --n 36: 5 shown twice, to measure how consistent the labels are"]
    rows = lines(run)[1:]
    first = [row["chunk_id"] for row in rows if "repeat" not in row]
    assert len(first) == 36
    assert len(dict.fromkeys(first)) == sum(a != b for a, b in zip(first, ["", *first[:-1]], strict=True))
    assert {first.count(chunk) for chunk in first} == {6}  # both candidates, three items each
    again = [index for index, row in enumerate(rows) if row.get("repeat")]
    assert len(again) == 5
    assert min(again) >= 18
    assert len(asked) == 41


def test_more_items_than_asked_for_are_explained(run: Path) -> None:
    with Sitting.open(run, "anna", n=3) as sitting:
        assert sitting.notes == [
            "7 questions for --n 3: 6 items, because whole chunks are labelled; 1 shown twice, to measure how consistent the labels are"
        ]


@pytest.mark.slow
def test_raters_get_orders_of_their_own_and_the_same_one_at_every_start(run: Path) -> None:
    orders = {}
    for rater in ("anna", "bert", "anna"):
        with Sitting.open(run, rater, n=72) as sitting:
            asked = [sitting.current()]
            orders.setdefault(rater, []).append(asked[0])
    assert orders["anna"][0] == orders["anna"][1]
    assert lines(run, "anna")[0]["items"] != lines(run, "bert")[0]["items"]


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


def test_a_second_rater_gets_a_fifth_of_the_first_ones_items(run: Path) -> None:
    for rater in ("anna", "bert"):
        with Sitting.open(run, rater, n=30) as sitting:  # 5 of 12 chunks
            list(questions(sitting))
    anna, bert = ({row["chunk_id"] for row in lines(run, rater)[1:]} for rater in ("anna", "bert"))
    assert (len(anna), len(bert), len(anna & bert)) == (5, 5, 1)


def test_raters_on_two_machines_share_a_fifth_too(graded: Path, tmp_path: Path) -> None:
    drawn = []
    for rater in ("anna", "bert", "cleo", "dirk"):
        own = Path(shutil.copytree(graded, tmp_path / rater))
        with Sitting.open(own, rater, n=6) as sitting:
            list(questions(sitting))
        drawn.append({row["chunk_id"] for row in lines(own, rater)[1:]})
    assert set.intersection(*drawn)


def test_a_further_sitting_asks_what_is_left_until_nothing_is(run: Path) -> None:
    asked = []
    for _ in range(2):
        with Sitting.open(run, "anna", n=36) as sitting:
            asked += [question.question for question in questions(sitting)]
    assert len(set(asked)) == 72
    with pytest.raises(UsageError, match="every item"):
        Sitting.open(run, "anna")


@pytest.mark.parametrize("by", ["chunks", "random", "stratified"])
def test_every_plan_stores_the_probability_of_its_items(run: Path, by: Any) -> None:
    with Sitting.open(run, "anna", n=24, by=by) as sitting:
        list(questions(sitting))
    labels = read_labels(run / "labels" / "anna.jsonl")
    assert len(labels) == pytest.approx(24, abs=2)
    assert all(label.inclusion is not None for label in labels)
    assert {label.chunk_inclusion is not None for label in labels} == {by == "chunks"}


def test_plans_that_go_by_what_the_run_lacks_are_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="no probabilities"):
        Sitting.open(run, "anna", by="uncertain")
    with pytest.raises(UsageError, match="two different letters"):
        Sitting.open(run, "anna", by="disagree")
    assert not (run / "labels" / "anna.jsonl").exists()


def test_items_in_dispute_are_drawn_before_others(run: Path) -> None:
    with Sitting.open(run, "anna", n=12) as sitting:
        list(questions(sitting, "B"))  # the judge gave A or C to nearly all
    with Sitting.open(run, "bert", n=12, by="disagree") as sitting:
        list(questions(sitting))
    probabilities = lines(run, "bert")[0]["probabilities"]
    labelled = {row["item_id"] for row in lines(run)[1:]}
    disputed = [p for item_id, p in probabilities.items() if item_id in labelled]
    assert disputed
    assert min(disputed) > lines(run, "bert")[0]["probability"]


# ------------------------------------------------------------------------------ what is on the disk


def test_a_label_is_on_the_disk_before_record_returns(run: Path) -> None:
    seen = []

    def sync(descriptor: int) -> None:
        os.fsync(descriptor)
        seen.append(lines(run)[-1])

    with Sitting.open(run, "anna", n=6, sync=sync) as sitting:
        question = sitting.current()
        assert question is not None
        sitting.record(question.assignment, "B", ["hallucination"], "why", 3.5)
        row = seen[-1]
        sitting.skip(sitting.current().assignment, "unclear")  # type: ignore[union-attr]
        sitting.undo()
    assert (row["letter"], row["flags"], row["note"], row["seconds"]) == ("B", ["hallucination"], "why", 3.5)
    assert [row.get("kind", "label") for row in seen] == ["draw", "label", "skip", "undo"]
    assert (seen[2]["reason"], row["rater_kind"]) == ("unclear", "human")


def test_killed_between_write_and_reply_nothing_is_lost_and_the_retry_doubles_nothing(run: Path) -> None:
    class KilledError(BaseException):
        pass

    is_armed = []

    def sync(descriptor: int) -> None:
        os.fsync(descriptor)
        if is_armed:
            raise KilledError

    sitting = Sitting.open(run, "anna", n=6, sync=sync)
    (done,) = answer(sitting, 1)
    second = sitting.current()
    assert second is not None
    is_armed.append(True)
    with pytest.raises(KilledError):
        sitting.record(second.assignment, "C")
    sitting.close()  # the lock of a killed process is released by the system
    with Sitting.open(run, "anna") as again:
        before = lines(run)
        again.record(second.assignment, "C")  # the browser sends again what was not confirmed
        assert lines(run) == before
        assert again.progress().labelled == 2
        assert again.current() not in (None, done, second)


def test_a_full_disk_leaves_the_file_as_it_was(run: Path) -> None:
    is_full = []

    def sync(_: int) -> None:
        if is_full:
            raise OSError(28, "No space left on device")

    with Sitting.open(run, "anna", n=6, sync=sync) as sitting:
        answer(sitting, 2)
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


def test_a_torn_last_line_is_cut_off_and_its_item_asked_again(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Sitting.open(run, "anna", n=6) as sitting:
        answer(sitting, 3)
    path = run / "labels" / "anna.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    assert len(read_labels(path)) == 2
    assert "incomplete" in caplog.text
    with Sitting.open(run, "anna") as sitting:
        assert sitting.progress().labelled == 2
        answer(sitting, 9)
    assert len(read_labels(path)) == 6


def test_a_last_line_without_its_newline_is_kept(run: Path) -> None:
    with Sitting.open(run, "anna", n=6) as sitting:
        answer(sitting, 3)
    path = run / "labels" / "anna.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    with Sitting.open(run, "anna") as sitting:
        answer(sitting, 1)
        assert sitting.progress().labelled == 4
    assert len(read_labels(path)) == 4


# ------------------------------------------------------------------------------ answers


def test_the_same_answer_again_adds_no_row_and_another_one_counts_instead(run: Path) -> None:
    with Sitting.open(run, "anna", n=6) as sitting:
        (question,) = answer(sitting, 1)
        n = len(lines(run))
        sitting.record(question.assignment, "A")
        assert len(lines(run)) == n
        sitting.record(question.assignment, "B")  # from a second tab
        assert sitting.progress().labelled == 1
    assert [label.letter for label in read_labels(run / "labels" / "anna.jsonl")] == ["B"]


def test_undo_opens_the_last_answer_again_and_with_an_id_only_once(run: Path) -> None:
    with Sitting.open(run, "anna", n=6) as sitting:
        first, second = answer(sitting, 2)
        assert sitting.undo(second.assignment) == second
        assert sitting.undo(second.assignment) == second  # sent twice
        assert sitting.current() == second
        assert sitting.undo() == first
        assert sitting.undo() is None
        answer(sitting, 1, "C")
    assert [label.letter for label in read_labels(run / "labels" / "anna.jsonl")] == ["C"]


def test_a_skipped_item_is_not_asked_again_and_has_no_label(run: Path) -> None:
    with Sitting.open(run, "anna", n=6) as sitting:
        skipped = sitting.current()
        assert skipped is not None
        sitting.skip(skipped.assignment, "unclear")
        assert skipped not in list(questions(sitting))
        progress = sitting.progress()
    assert (progress.skipped, progress.labelled, progress.remaining) == (1, progress.total - 1, 0)
    (row,) = read_rater_rows(run / "labels" / "anna.jsonl").skipped
    assert (row.reason, len(read_labels(run / "labels" / "anna.jsonl"))) == ("unclear", 5)


@pytest.mark.parametrize(
    ("letter", "flags", "message"), [("D", (), "'D'"), ("", (), "''"), ("A", ("no_such",), "no_such")]
)
def test_answers_off_the_scale_are_refused(
    run: Path, letter: str, flags: tuple[str, ...], message: str
) -> None:
    with Sitting.open(run, "anna", n=6) as sitting:
        question = sitting.current()
        assert question is not None
        with pytest.raises(UsageError, match=message):
            sitting.record(question.assignment, letter, flags)
        with pytest.raises(UsageError, match="of this sitting"):
            sitting.record("0" * 16, "A")
    assert len(lines(run)) == 1


def test_half_characters_and_control_characters_in_a_note_are_stored(run: Path) -> None:
    with Sitting.open(run, "anna", n=6) as sitting:
        question = sitting.current()
        assert question is not None
        sitting.record(question.assignment, "A", note="\ud83d \0 \u202e")
    assert read_labels(run / "labels" / "anna.jsonl")[0].note == "\ufffd \0 \u202e"


@pytest.mark.slow
def test_a_clock_that_is_turned_back_changes_no_order_and_no_time(run: Path) -> None:
    times = (f"20{99 - index}-01-01T00:00:00+00:00" for index in range(99))
    with Sitting.open(run, "anna", n=20, clock=lambda: next(times)) as sitting:
        for number, question in enumerate(questions(sitting)):
            sitting.record(question.assignment, "A", seconds=-5.0 if number == 0 else 2.0 + number, note="x")
        progress = sitting.progress()
        quality = sitting.summary().agreement.quality  # type: ignore[union-attr]
    assert progress.remaining == 0
    assert quality is not None
    assert quality.n_timed == len(read_labels(run / "labels" / "anna.jsonl")) - 1
    assert quality.seconds_first is not None
    assert quality.seconds_last is not None
    assert quality.seconds_first < quality.seconds_last


# ------------------------------------------------------------------------------ others beside it


@pytest.mark.slow
def test_a_second_process_of_the_same_rater_is_refused_and_another_rater_is_not(run: Path) -> None:
    with Sitting.open(run, "anna", n=6):
        with pytest.raises(InUseError, match="anna"):
            Sitting.open(run, "anna", n=6)
        Sitting.open(run, "bert", n=6).close()
        assert api.load_run(run).report.candidates  # a report meanwhile
    Sitting.open(run, "anna").close()


def test_a_file_that_was_edited_meanwhile_is_read_again(run: Path) -> None:
    path = run / "labels" / "anna.jsonl"
    with Sitting.open(run, "anna", n=6) as sitting:
        first, second = answer(sitting, 2)
        path.write_text(path.read_text().replace('"letter":"A"', '"letter":"B"'))
        third = sitting.current()
        assert third not in (first, second, None)
        answer(sitting, 1, "C")
    assert [label.letter for label in read_labels(path)] == ["B", "B", "C"]


def test_a_file_that_was_broken_meanwhile_is_named_and_loses_nothing(run: Path) -> None:
    path = run / "labels" / "anna.jsonl"
    with Sitting.open(run, "anna", n=6) as sitting:
        answer(sitting, 2)
        whole = path.read_bytes()
        path.write_bytes(whole + b"{broken}\n")
        with pytest.raises(DataError, match=r"anna\.jsonl:4"):
            sitting.current()
        path.write_bytes(whole)
        answer(sitting, 1)
        assert sitting.progress().labelled == 3
        path.unlink()  # deleted: what it held is written again
        answer(sitting, 1)
    assert len(read_labels(path)) == 4


@pytest.mark.parametrize(
    "name", ["a/b", "../anna", "", "  ", ".anna", "a\0b", "a\nb", "x" * 65, "a:b", "anna."]
)
def test_names_that_are_no_file_are_refused(run: Path, name: str) -> None:
    with pytest.raises(UsageError, match="rater"):
        Sitting.open(run, name)
    assert not (run / "labels").exists()


def test_a_run_that_is_still_being_written_is_refused_with_what_is_missing(run: Path) -> None:
    rows = (run / "grades.jsonl").read_text().splitlines(keepends=True)
    (run / "grades.jsonl").write_text("".join(rows[:-1]))
    with pytest.raises(DataError, match=r"1 grades are missing.*--resume"):
        Sitting.open(run, "anna")
    assert not (run / "labels").exists()


def test_a_directory_that_cannot_be_written_is_named(run: Path) -> None:
    (run / "labels").write_text("a file in place of the folder")
    with pytest.raises(StoreError, match="cannot be written"):
        Sitting.open(run, "anna")


def test_labels_of_another_rubric_version_count_as_none(run: Path) -> None:
    with Sitting.open(run, "anna", n=72) as sitting:
        list(questions(sitting))
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
def test_two_labels_of_one_rater_for_one_item_are_named(run: Path) -> None:
    table = api.load_run(run).letters
    item = table["item_id"][0]
    folder = run / "labels"
    folder.mkdir()
    rows = [Label(item_id=item, rater="anna", rater_kind="human", letter=letter) for letter in "AB"]
    (folder / "sheet.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    with pytest.raises(DataError, match=item):
        Sitting.open(run, "anna")


# ------------------------------------------------------------------------------ the loop closes


@pytest.mark.slow
def test_the_labels_are_in_agreement_report_and_gate_at_once(run: Path) -> None:
    with Sitting.open(run, "anna", n=72) as sitting:
        list(questions(sitting, judged))
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
    assert not summary.is_decided  # 12 chunks are fewer than lift the condition
    policy = {"rules": [{"quantity": "usable_rate", "margin": 0.1, "corrected": True}]}
    verdicts = api.gate(loaded, baseline=run, policy=policy).rules
    assert {rule.labelled_by for rule in verdicts} == {"anna"}


@pytest.mark.slow
def test_the_rater_is_told_of_repeats_drift_and_labels_too_fast_to_have_read(run: Path) -> None:
    with Sitting.open(run, "anna", n=36) as sitting:
        for number, question in enumerate(questions(sitting, judged)):
            sitting.record(
                question.assignment, "A" if number < 18 else "C", seconds=0.1 if number % 2 else 30
            )
        quality = sitting.summary().agreement.quality  # type: ignore[union-attr]
    assert quality is not None
    assert (quality.n_timed, quality.n_readable) == (36, 36)
    assert (quality.best_first, quality.best_last) == (1.0, 0.0)
    assert (quality.n_repeats, quality.n_repeats_same) == (5, 0)
    fast = [row for row in lines(run)[1:] if row.get("seconds") == 0.1 and "repeat" not in row]
    counted = {row["assignment"] for row in fast}
    assert quality.n_too_fast == len(counted)


@pytest.mark.slow
def test_a_sitting_ends_as_soon_as_the_labels_decide(run: Path) -> None:
    with Sitting.open(run, "anna", n=72, until_decided=True) as sitting:
        asked = list(questions(sitting, judged))
        progress, summary = sitting.progress(), sitting.summary()
        assert summary.decision is not None
        assert (summary.decision.outcome, summary.decision.leaders) == ("best", ("alpha",))
        assert summary.decision.estimand == "pool"
        assert (progress.is_decided, progress.remaining) == (True, 0)
        assert len(asked) < 72
        assert summary.decision.n_labelled == summary.differences[0].labelled[0].n_chunks
        reopened = sitting.undo()
        assert reopened is not None
        assert sitting.current() == reopened  # without its last chunk nothing is decided
        answer(sitting, 1, judged)
        assert sitting.current() is None
    with Sitting.open(run, "anna", until_decided=True) as sitting:
        assert sitting.current() is None
    with Sitting.open(run, "anna") as sitting:  # the rest is asked on request
        assert len(list(questions(sitting, judged))) == 77 - len(asked)


@pytest.mark.slow
def test_a_sitting_that_decides_about_future_documents_asks_at_planned_looks(run: Path) -> None:
    with Sitting.open(run, "anna", n=72, until_decided=True, estimand="future") as sitting:
        asked = list(questions(sitting, judged))
        decision = sitting.summary().decision
    assert decision is not None
    assert (decision.estimand, decision.outcome) == ("future", "best")
    assert decision.n_labelled >= 10
    assert len(asked) >= 60


@pytest.mark.slow
def test_until_decided_needs_candidates_and_whole_chunks(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="whole chunks"):
        Sitting.open(run, "anna", by="random", until_decided=True)
    alone = make_run(tmp_path / "alone", {"alpha": ["AAB"] * 3}).path
    with pytest.raises(UsageError, match="has one"):
        Sitting.open(alone, "anna", until_decided=True)
    with Sitting.open(alone, "anna", n=5) as sitting:
        assert len(list(questions(sitting))) == 6  # one of them a repeat
        summary = sitting.summary()
    assert summary.differences == ()
    assert [(rate.candidate, rate.n_items, rate.rate.value) for rate in summary.rates] == [("alpha", 5, 1.0)]


# ------------------------------------------------------------------------------ differences settled


def two_raters(run: Path) -> None:
    for rater, letter in (("anna", "A"), ("bert", "B")):
        with Sitting.open(run, rater, n=72) as sitting:
            list(
                questions(
                    sitting, lambda question, letter=letter: letter if "beta" in question.question else "A"
                )
            )  # type: ignore[misc]


@pytest.mark.slow
def test_a_third_person_settles_what_two_differ_on_and_agreement_takes_that_letter(run: Path) -> None:
    two_raters(run)
    before = api.load_run(run).report.agreement
    assert len(open_disputes(run)) == 36
    with pytest.raises(UsageError, match="third person"):
        Adjudication.open(run, "anna")
    with Adjudication.open(run, "cleo") as adjudication:
        dispute = adjudication.current()
        assert dispute is not None
        assert [(label.rater, label.letter) for label in dispute.labels] == [("anna", "A"), ("bert", "B")]
        while (dispute := adjudication.current()) is not None:
            adjudication.settle(dispute.question.assignment, "C", note="the text says otherwise")
        assert (adjudication.n_settled, adjudication.n_total) == (36, 36)
        assert adjudication.undo() is not None
        assert adjudication.n_settled == 35
    report = api.load_run(run).report
    people = [rater for rater in report.agreement if rater.rater_kind == "human"]
    assert [(rater.rater, rater.n_settled, rater.settled_by) for rater in people] == [
        ("anna", 35, ("cleo",)),
        ("bert", 35, ("cleo",)),
    ]
    assert report.agreement[0].coefficients != before[0].coefficients
    assert report.raters[0].coefficients.confusion[0][1] == 36  # what the two said of each other stays
    status = label_status(run)
    assert (status.n_disputed, status.n_settled) == (1, 35)


def settled_letters(*labels: Label) -> list[str]:
    return [label.letter for label in with_settled(labels)]


def test_a_settling_label_that_names_no_rubric_is_of_every_rubric() -> None:
    anna = Label(item_id="i", rater="anna", rater_kind="human", letter="A", rubric="r/1")
    bert = anna.model_copy(update={"rater": "bert", "letter": "B", "rubric": ""})
    cleo = anna.model_copy(update={"rater": "cleo", "letter": "C", "rubric": "", "settles": True})
    assert settled_letters(anna, bert, cleo) == ["C", "C"]
    # one of the same rubric comes first, one of another rubric settles nothing
    same, other = (cleo.model_copy(update={"rubric": name, "letter": "D"}) for name in ("r/1", "s/1"))
    assert settled_letters(anna, same, cleo) == ["D"]
    assert settled_letters(anna, other, cleo) == ["C"]
    assert settled_letters(anna, other) == ["A"]
    assert settled_letters(bert, cleo, same) == ["D"]  # the last one, where the rater names no rubric


@pytest.mark.parametrize(
    ("settler", "n_settled", "letter"), [("", 12, "C"), ("qa_quality/1", 12, "C"), ("qa_quality/0", 0, "A")]
)
def test_letters_are_settled_where_they_are_replaced(settler: str, n_settled: int, letter: str) -> None:
    run = case({"alpha": ["AB"] * 12}, items_per_sample=2)
    run = replace(run, rubric=RUBRIC.model_copy(update={"labels_from": (0,)}))
    items = items_of(run, "alpha")
    rubric = f"{RUBRIC.name}/{RUBRIC.version}"
    labels = [label_of(item, "A", rubric=rubric) for item in items]
    labels += [label_of(item, "C", rater="cleo", rubric=settler, settles=True) for item in items[:12]]
    (anna,) = run.with_rows(labels=tuple(labels)).report().agreement
    assert (anna.n_settled, anna.settled_by) == (n_settled, ("cleo",) if n_settled else ())
    assert anna.coefficients is not None
    given = dict(zip("ABC", map(sum, anna.coefficients.confusion), strict=True))
    assert given[letter] == (12 if n_settled else 24)


def test_nothing_to_settle_is_an_error_of_use(run: Path) -> None:
    with pytest.raises(UsageError, match="nothing to settle"):
        Adjudication.open(run, "cleo")


# ------------------------------------------------------------------------------ the table of raters


def work_of(rater: str, n_labels: int) -> RaterWork:
    return RaterWork(rater=rater, rater_kind="human", n_labels=n_labels, n_chunks=12, n_skipped=3, n_open=0)


def agreement_of(rater: str, **quality: float) -> RaterAgreement:
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


def test_the_table_of_raters_has_work_and_quality_of_each_and_a_dash_for_what_is_not_known() -> None:
    status = LabelStatus(
        source="run",
        judge="selene",
        letters=("A", "B", "C"),
        raters=(work_of("anna", 1234), work_of("bert", 5), work_of("cleo", 0)),
        agreement=(
            agreement_of("bert", n_repeats=0, n_readable=0),
            agreement_of(
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
    (alone,) = write_status(status.model_copy(update={"raters": ()}))
    assert alone.anchor == "labels"
