"""A sitting: one rater labels items of a run, one question at a time; every answer is on disk before the next question shows."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from qaeval.agreement.analysis import require_no_contradiction
from qaeval.agreement.label_files import read_rater_rows, require_rater_name
from qaeval.agreement.label_rows import RaterRows
from qaeval.comparison.analysis import RunData
from qaeval.comparison.run_data import labels_of_run, read_run
from qaeval.environment import now
from qaeval.errors import DataError, UsageError
from qaeval.evals.rubric import Rubric
from qaeval.export.draw import draw_items
from qaeval.export.select import GradedItem, GradedItems, Grading, require_finished
from qaeval.files.rows import Closable
from qaeval.labelling.model import SittingSummary
from qaeval.labelling.question import Question, as_question, checked_answer, rubric_of, storable
from qaeval.labelling.rater_file import LABELS, RaterFile
from qaeval.labelling.status import stopping_decision, summarise
from qaeval.labelling.stopping import decide_sitting
from qaeval.records import (
    REJECTED,
    Grade,
    Label,
    LabelDraw,
    LabelPlan,
    SkippedItem,
    UndoneLabel,
    record_id,
    record_number,
)
from qaeval.stats.stopping import Estimand, LabelDecision
from qaeval.storage.run_directory import RunStore
from qaeval.text.units import words

PLANS: Final[tuple[LabelPlan, ...]] = ("plan", "chunks", "uncertain", "stratified", "random", "disagree")
N_REPEATS: Final = 5
"""Items of a sitting that are asked a second time."""
_ITEMS_PER_REPEAT: Final = 4
"""A sitting of fewer than 20 items has fewer repeats."""


@dataclass(frozen=True, kw_only=True)
class SittingProgress:
    """Progress of a sitting."""

    answered: int
    """Questions with a letter, or skipped."""
    total: int
    """Questions of the sitting, repeats included."""
    labelled: int
    skipped: int
    median_seconds: float | None
    """Median time of an answer; None before the first."""
    remaining_seconds: float | None
    """Time for the rest at that pace."""
    is_decided: bool
    """Whether the sitting ended early, since more labels do not change which candidate is best."""

    @property
    def remaining(self) -> int:
        """Questions that are left."""
        return self.total - self.answered


class Sitting(Closable):
    """The questions of one rater, in the same order at every start; a context manager.

    A sitting that was broken off goes on where it stopped. The file of the rater is locked while the sitting is open.

    Attributes:
        rater: Name of the rater.
        settings: Those of the run.
        rubric: Rubric of the run.
        notes: Remarks for the rater, for example that an earlier sitting goes on.
    """

    def __init__(
        self,
        *,
        run: Path,
        rater: str,
        rater_kind: Literal["human", "model"],
        items: Mapping[str, GradedItem],
        rubric: Rubric,
        rubric_text: str,
        file: RaterFile,
        draw: LabelDraw,
        clock: Callable[[], str],
        data: RunData,
        margin: float,
        estimand: Estimand,
        until_decided: bool,
        settings: Mapping[str, Any],
    ) -> None:
        self.run = run
        self.settings = settings
        self.rubric = rubric
        self.rater = rater
        self.rater_kind = rater_kind
        self.notes: list[str] = []
        self._items = items
        self._rubric_text = rubric_text
        self._file = file
        self._draw = draw
        self._clock = clock
        self._order = _questions(draw, items)
        self._margin = margin
        self._estimand: Estimand = estimand
        self._until_decided = until_decided
        self._data = data
        self._table: pd.DataFrame | None = None
        self._decision: tuple[object, LabelDecision | None] = ((), None)

    @classmethod
    def open(
        cls,
        run_directory: Path | str,
        rater: str,
        *,
        n: int = 100,
        by: LabelPlan = "plan",
        seed: int = 0,
        until_decided: bool = False,
        estimand: Estimand = "pool",
        margin: float = 0.05,
        rater_kind: Literal["human", "model"] = "human",
        clock: Callable[[], str] = now,
        sync: Callable[[int], None] = os.fsync,
    ) -> "Sitting":
        """Open a sitting: go on with the one that was broken off, else draw items.

        Args:
            run_directory: A graded and finished run.
            rater: Name of the rater, the name of the label file.
            n: Items to draw; of whole chunks, about so many.
            by: How items are chosen.
            seed: Seed of the draw.
            until_decided: Draw whole chunks in random order, and end the sitting as soon as more labels do not change which candidate is
                best. Of a run of two candidates or more. Without it, a sitting that ended so goes on with the rest of its questions.
            estimand: What is decided about: ``"pool"``, the chunks of this run, or ``"future"``, documents to come.
            margin: Smallest difference of usable rates that matters, in (0, 1).
            rater_kind: ``"model"`` where a program answers.
            clock: Time in UTC, ISO 8601.
            sync: Brings a file descriptor's data to the disk.

        Raises:
            UsageError: The name, `n` or `by` is not valid, or the rater has labelled everything.
            DataError: There is no graded and finished run, or a label file is not readable or contradicts itself.
            StoreError: Another process labels under this name, or the folder cannot be written.
        """
        name = require_rater_name(rater)
        if by not in PLANS or n < 1:
            raise UsageError(
                f"a sitting needs n of at least 1 and by one of {', '.join(PLANS)}, got {n!r}, {by!r}"
            )
        if until_decided and by not in {"plan", "chunks"}:
            raise UsageError(
                f"--until-decided needs whole chunks in random order; it does not go with --by {by}"
            )
        path = Path(run_directory)
        with RunStore.open(path) as store:
            require_finished(store)
            grading = Grading.of(store)
            items = {item.item.item_id: item for item in GradedItems(store)}
            opinions = _judged(store) if by == "disagree" else {}
            data = read_run(store)
        if until_decided and len(data.candidates) < 2:
            raise UsageError(f"{path}: --until-decided compares candidates, and the run has one; omit it")
        if not items:
            raise DataError(f"{path}: no candidate wrote an item: there is nothing to label")
        rubric, rubric_text = rubric_of(grading)
        file = RaterFile(path / LABELS / f"{name}.jsonl", sync=sync)
        try:
            existing = _given(path, grading, name)
            earlier = _unfinished(file.rows, grading, items)
            if earlier is None:
                drawn = draw_items(
                    _countable(items.values(), judge_tuned=data.judge_tuned),
                    existing,
                    by="chunks" if until_decided else by,
                    n=n,
                    seed=seed,
                    scale=rubric.letters,
                    rater=name,
                    # with a fixed share of others' items the order would not be random; and these are what raters differ on
                    drawn_by_others=()
                    if until_decided or by == "disagree"
                    else _drawn_by_others(path, name, existing, grading),
                    opinions=_with_labels(opinions, existing),
                )
                started = clock()
                order = _in_order(drawn.items, rater=name, seed=seed)
                draw = LabelDraw(
                    draw_id=record_id("draw", name, str(len(file.all_rows)), started, *order),
                    rater=name,
                    by=by,
                    until_decided=until_decided,
                    n=n,
                    seed=seed,
                    rubric=grading.rubric,
                    rubric_sha=grading.rubric_sha,
                    time=started,
                    unit=drawn.unit,
                    probability=drawn.probability,
                    probabilities=drawn.probabilities,
                    items=order,
                )
                file.append(draw)
            sitting = cls(
                run=path,
                rater=name,
                rater_kind=rater_kind,
                items=items,
                rubric=rubric,
                rubric_text=rubric_text,
                file=file,
                draw=earlier or draw,
                clock=clock,
                data=data,
                margin=margin,
                estimand=estimand,
                until_decided=until_decided,
                settings=grading.settings,
            )
            sitting._note_questions() if earlier is None else sitting._note_resumed(n=n, by=by)
        except BaseException:
            file.close()
            raise
        return sitting

    def _note_questions(self) -> None:
        """Say why there are more questions than items were asked for."""
        n_items = len({item_id for item_id, _ in self._order.values()})
        reasons = []
        if n_items > self._draw.n:
            reasons.append(f"{n_items} items, because whole chunks are labelled")
        if n_repeats := len(self._order) - n_items:
            reasons.append(f"{n_repeats} shown twice, to measure how consistent the labels are")
        if reasons:
            self.notes.append(f"{len(self._order)} questions for --n {self._draw.n}: {'; '.join(reasons)}")

    def _note_resumed(self, *, n: int, by: LabelPlan) -> None:
        left, draw = len(self._open()), self._draw
        note = f"the sitting of {draw.time[:10] or 'a sheet'} continues: {left} questions are left"
        if (n, by) != (draw.n, draw.by):
            note += f"; it has {draw.n} items by {draw.by}, and other options apply to the next sitting"
        if self._until_decided and not draw.until_decided:
            note += "; its order is not random, so that it does not end before its last question"
        self.notes.append(note)

    # ---------------------------------------------------------------- questions and answers

    def current(self) -> Question | None:
        """Return the first question without an answer; None when the sitting is over."""
        self._file.refresh()
        if self._is_decided():
            return None
        assignment = next(iter(self._open()), "")
        if not assignment:
            return None
        return self._question(assignment)

    def open_items(self) -> list[tuple[str, GradedItem]]:
        """Return the id and the item of every question without an answer, in their order."""
        self._file.refresh()
        return [(assignment, self._items[self._order[assignment][0]]) for assignment in self._open()]

    def record(
        self,
        assignment: str,
        letter: str,
        flags: Sequence[str] = (),
        note: str = "",
        seconds: float | None = None,
    ) -> None:
        """Record a letter; it is on the disk when this returns. The same letter again changes nothing, another one replaces it.

        Args:
            assignment: Id of the question.
            letter: A letter of the scale.
            flags: Names of flags that the item raises.
            note: Any text.
            seconds: Time that the rater took; a negative or infinite one counts as unknown.

        Raises:
            UsageError: The question, letter or a flag does not exist.
            StoreError: The file cannot be written; nothing is recorded.
            DataError: The file was edited, and holds a line that is not a row.
        """
        item_id, is_repeat = self._assigned(assignment)
        raised, note = checked_answer(self.rubric, letter, flags, note)
        self._file.refresh()
        before = self._answers().get(assignment)
        if isinstance(before, Label) and (before.letter, before.flags, before.note) == (letter, raised, note):
            return
        graded = self._items[item_id]
        self._file.append(
            Label(
                item_id=item_id,
                rater=self.rater,
                rater_kind=self.rater_kind,
                letter=letter,
                flags=raised,
                rubric=f"{self.rubric.name}/{self.rubric.version}",
                note=note,
                split=graded.sample.chunk.split or "held-out",
                chunk_id=graded.sample.chunk.chunk_id,
                question=graded.item.question,
                answer=graded.item.answer,
                rejected=graded.item.parts.get(REJECTED, ""),
                assignment=assignment,
                repeat=is_repeat,
                seconds=_valid_seconds(seconds),
                words=self._n_new_words(assignment),
                time=self._clock(),
            )
        )

    def _n_new_words(self, assignment: str) -> int:
        """Count the words of question and answer, and of the chunk unless the question before was about it too."""
        order = list(self._order)
        index = order.index(assignment)
        chunk, item = (
            self._items[self._order[assignment][0]].sample.chunk,
            self._items[self._order[assignment][0]].item,
        )
        before = self._items[self._order[order[index - 1]][0]].sample.chunk if index else None
        texts = [item.question, item.answer, item.parts.get(REJECTED, "")]
        if before is None or before.chunk_id != chunk.chunk_id:
            texts.append(chunk.text)
        return sum(len(words(text)) for text in texts)

    def skip(self, assignment: str, reason: str = "", seconds: float | None = None) -> None:
        """Record that the rater does not label an item; as `record`.

        Raises:
            UsageError: The question does not exist.
            StoreError: The file cannot be written; nothing is recorded.
        """
        item_id, _ = self._assigned(assignment)
        reason = storable(reason)
        self._file.refresh()
        before = self._answers().get(assignment)
        if isinstance(before, SkippedItem) and before.reason == reason:
            return
        self._file.append(
            SkippedItem(
                assignment=assignment,
                item_id=item_id,
                rater=self.rater,
                reason=reason,
                seconds=_valid_seconds(seconds),
                time=self._clock(),
            )
        )

    def undo(self, assignment: str = "") -> Question | None:
        """Take an answer back; return its question, which is open again.

        Args:
            assignment: Id of the question; empty: the one answered last. With an id, taking it back twice changes nothing.

        Returns:
            The question; None where nothing is answered.

        Raises:
            UsageError: The question does not exist.
            StoreError: The file cannot be written; nothing is taken back.
        """
        self._file.refresh()
        answered = self._answers()
        if not assignment:
            assignment = next(reversed(answered), "")
            if not assignment:
                return None
        self._assigned(assignment)
        if assignment in answered:
            self._file.append(UndoneLabel(assignment=assignment, rater=self.rater, time=self._clock()))
        return self._question(assignment)

    def progress(self) -> SittingProgress:
        """Return how many questions are answered, and how long the rest takes."""
        self._file.refresh()
        answers = self._answers().values()
        n_labelled = sum(isinstance(answer, Label) for answer in answers)
        seconds = [answer.seconds for answer in answers if answer.seconds is not None]
        median = float(np.median(seconds)) if seconds else None
        is_decided = self._is_decided()
        left = 0 if is_decided else len(self._open())
        return SittingProgress(
            answered=len(answers),
            total=len(answers) + left,
            labelled=n_labelled,
            skipped=len(answers) - n_labelled,
            median_seconds=median,
            remaining_seconds=None if median is None else left * median,
            is_decided=is_decided,
        )

    def decision(self) -> LabelDecision | None:
        """Decide which candidate is best from this rater's labels; None before the first, and if chunks were not drawn for it."""
        if not self._draw.until_decided:
            return None
        if self._table is None:
            self._table = self._data.table()
        rows = self._file.rows
        labelled = {label.item_id: label.letter for label in rows.labels}
        open_chunks = {
            self._items[item_id].sample.chunk.chunk_id
            for item_id, is_repeat in self._order.values()
            if not is_repeat and item_id not in labelled
        }
        # only whole chunks count, so that nothing is computed before a chunk ends
        state = [(label.item_id, label.letter) for label in rows.labels if label.chunk_id not in open_chunks]
        if self._decision[0] != state:
            self._decision = (
                state,
                decide_sitting(
                    self._table,
                    rows.labels,
                    rows.draws,
                    candidates=[facts.name for facts in self._data.candidates],
                    rubric=self._data.rubric,
                    judge_tuned=self._data.judge_tuned,
                    margin=self._margin,
                    estimand=self._estimand,
                ),
            )
        return self._decision[1]

    def _is_decided(self) -> bool:
        if not self._until_decided:
            return False
        decision = self.decision()
        return decision is not None and decision.is_decided

    def summary(self) -> SittingSummary:
        """Return the summary of the labels: agreement, corrected differences, verdict, quality of the rater."""
        decision = self.decision()
        words_of = (
            None
            if decision is None
            else stopping_decision(decision, [facts.name for facts in self._data.candidates])
        )
        return summarise(self.run, self.rater, margin=self._margin, decision=words_of)

    def _answers(self) -> dict[str, Label | SkippedItem]:
        """Return the answers to the questions of this sitting, in the order in which they were given."""
        return {
            assignment: answer
            for assignment, answer in self._file.rows.answers.items()
            if assignment in self._order
        }

    def _assigned(self, assignment: str) -> tuple[str, bool]:
        try:
            return self._order[assignment]
        except KeyError:
            raise UsageError(
                f"question {assignment[:40]!r}: not a question of this sitting; reload the page"
            ) from None

    def _open(self) -> list[str]:
        """Return the questions without an answer, in their order."""
        return _open_questions(self._order, self._file.rows)

    def _question(self, assignment: str) -> Question:
        return as_question(
            self._items[self._order[assignment][0]],
            assignment=assignment,
            number=list(self._order).index(assignment) + 1,
            rubric=self.rubric,
            rubric_text=self._rubric_text,
        )

    def close(self) -> None:
        """Release the lock of the rater's file."""
        self._file.close()


def _questions(draw: LabelDraw, items: Mapping[str, GradedItem]) -> dict[str, tuple[str, bool]]:
    """Return item and whether it is a repeat by the id of the question, in the order of the sitting."""
    questions: dict[str, tuple[str, bool]] = {}
    seen: set[str] = set()
    for index, item_id in enumerate(draw.items):
        if item_id in items:
            questions[record_id("assignment", draw.draw_id, str(index))] = (item_id, item_id in seen)
            seen.add(item_id)
    return questions


def _in_order(items: Sequence[GradedItem], *, rater: str, seed: int) -> tuple[str, ...]:
    """Shuffle chunks, and the items of each chunk; in the second half some items of the first half are asked again."""
    rng = np.random.default_rng(record_number("order", rater, str(seed)))
    by_chunk: dict[str, list[str]] = {}
    for item in items:
        by_chunk.setdefault(item.sample.chunk.chunk_id, []).append(item.item.item_id)
    names = sorted(by_chunk)
    groups = [
        [by_chunk[names[index]][other] for other in rng.permutation(len(by_chunk[names[index]]))]
        for index in rng.permutation(len(names))
    ]
    n = len(items)
    n_repeats = min(N_REPEATS, n // _ITEMS_PER_REPEAT)
    first_half = [item_id for group in groups for item_id in group][: n // 2]
    chosen = sorted(rng.choice(len(first_half), n_repeats, replace=False).tolist()) if n_repeats else []
    # a repeat comes half a sitting after its item or later, and between two chunks
    due = [(n // 2 + index + 1, first_half[index]) for index in chosen]
    order: list[str] = []
    n_asked = 0
    for group in groups:
        order += group
        n_asked += len(group)
        while due and due[0][0] <= n_asked:
            order.append(due.pop(0)[1])
    return tuple(order + [item_id for _, item_id in due])


def _unfinished(rows: RaterRows, grading: Grading, items: Mapping[str, GradedItem]) -> LabelDraw | None:
    """Return the last draw of the rater under the run's rubric if it has questions without an answer."""
    draws = [draw for draw in rows.draws if draw.rubric_sha in {"", grading.rubric_sha} and draw.rater]
    if not draws:
        return None
    return draws[-1] if _open_questions(_questions(draws[-1], items), rows) else None


def _open_questions(questions: Mapping[str, tuple[str, bool]], rows: RaterRows) -> list[str]:
    """Return the questions without an answer; an item that was labelled in a sheet is not asked."""
    in_sheets = {label.item_id for label in rows.labels if not label.assignment}
    return [
        assignment
        for assignment, (item_id, is_repeat) in questions.items()
        if assignment not in rows.answers and (is_repeat or item_id not in in_sheets)
    ]


def _given(run: Path, grading: Grading, rater: str) -> list[Label]:
    """Read the labels by people, and those of the rater, under the rubric of the run.

    Raises:
        DataError: a file is not readable, or a rater gave an item two different labels.
    """
    labels = [
        label
        for file in labels_of_run(run, grading.settings)
        for label in read_rater_rows(file).labels
        if (label.rater_kind == "human" or label.rater == rater)
        and label.rubric in grading.label_rubrics
        and not label.settles
    ]
    require_no_contradiction(labels)
    return labels


def _drawn_by_others(run: Path, rater: str, labels: Sequence[Label], grading: Grading) -> set[str]:
    drawn = {label.item_id for label in labels if label.rater != rater}
    for file in sorted((run / LABELS).glob("*.jsonl")):
        for draw in read_rater_rows(file).draws:
            if draw.rater != rater and draw.rubric in grading.label_rubrics:
                drawn.update(draw.items)
    return drawn


def _countable(items: Iterable[GradedItem], *, judge_tuned: bool) -> list[GradedItem]:
    """Return the items whose labels would count: those of the half that the judge was tuned on do not."""
    items = list(items)
    held_out = [item for item in items if item.sample.chunk.split != "tuning"]
    return held_out if judge_tuned and held_out else items


def _judged(store: RunStore) -> dict[str, set[str]]:
    """Return the letters of all judges by item."""
    letters: dict[str, set[str]] = {}
    for rows in (store.grades(), *(store.grades_of(name) for name in store.further_judges())):
        for row in rows:
            if isinstance(row, Grade):
                letters.setdefault(row.item_id, set()).add(row.letter)
    return letters


def _with_labels(letters: Mapping[str, set[str]], labels: Sequence[Label]) -> dict[str, set[str]]:
    out = {item_id: set(judged) for item_id, judged in letters.items()}
    for label in labels:
        out.setdefault(label.item_id, set()).add(label.letter)
    return out


def _valid_seconds(seconds: float | None) -> float | None:
    # a clock that was turned back measures less than nothing
    return seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None
