"""Adjudication: a third person settles items to which people gave different letters."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qaeval.agreement.analysis import fits
from qaeval.agreement.label_files import read_rater_rows, require_rater_name
from qaeval.comparison.run_data import labels_of_run
from qaeval.environment import now
from qaeval.errors import UsageError
from qaeval.evals.rubric import Rubric
from qaeval.export.select import GradedItem, GradedItems, Grading, require_finished
from qaeval.files.rows import Closable
from qaeval.labelling.question import Question, as_question, checked_answer, rubric_of
from qaeval.labelling.rater_file import LABELS, RaterFile
from qaeval.records import REJECTED, Label, UndoneLabel, record_id
from qaeval.report.facts import RubricFacts
from qaeval.storage.run_directory import RunStore


@dataclass(frozen=True, kw_only=True)
class Dispute:
    """An item with different letters, as the third person is shown it."""

    item_id: str
    question: Question
    labels: tuple[Label, ...]
    """One of each rater, by name, with letter, flags and note."""
    settled: Label | None
    """The letter that settles it; None where it is open."""


class Adjudication(Closable):
    """The items of a run to which people gave different letters; a context manager.

    The settling letters are in the file of the third person. `agreement`, report and gate take them as the reference in place of both.

    Attributes:
        rater: Name of the third person.
    """

    def __init__(
        self,
        *,
        run: Path,
        rater: str,
        items: Mapping[str, GradedItem],
        rubric: Rubric,
        rubric_text: str,
        disputes: Mapping[str, Sequence[Label]],
        file: RaterFile,
        clock: Callable[[], str],
    ) -> None:
        self.run = run
        self.rater = rater
        self._items = items
        self._rubric = rubric
        self._rubric_text = rubric_text
        self._disputes = {
            record_id("dispute", item_id): (item_id, labels) for item_id, labels in disputes.items()
        }
        self._file = file
        self._clock = clock

    @classmethod
    def open(
        cls,
        run_directory: Path | str,
        rater: str,
        *,
        clock: Callable[[], str] = now,
        sync: Callable[[int], None] = os.fsync,
    ) -> "Adjudication":
        """Open the disputes of a run that a third person can settle: those of items that this person did not label.

        Args:
            run_directory: A graded and finished run.
            rater: Name of the third person.
            clock: Time in UTC, ISO 8601.
            sync: Brings a file descriptor's data to the disk.

        Raises:
            UsageError: The name is not valid, nobody differs, or this person labelled every item in dispute.
            DataError: There is no graded and finished run, or a label file is not readable or contradicts itself.
            StoreError: Another process labels under this name, or the folder cannot be written.
        """
        name = require_rater_name(rater)
        path = Path(run_directory)
        items, grading, everything = _read_disputes(path)
        rubric, text = rubric_of(grading)
        if not everything:
            raise UsageError(
                f"{path}: no item has different letters by two people: there is nothing to settle"
            )
        disputes = {
            item_id: labels
            for item_id, labels in everything.items()
            if name not in {label.rater for label in labels}
        }
        if not disputes:
            raise UsageError(
                f"{name} labelled {'the item' if len(everything) == 1 else f'all {len(everything)} items'} in dispute: a third person "
                f"settles a difference; name one with --rater"
            )
        file = RaterFile(path / LABELS / f"{name}.jsonl", sync=sync)
        return cls(
            run=path,
            rater=name,
            items=items,
            rubric=rubric,
            rubric_text=text,
            disputes=disputes,
            file=file,
            clock=clock,
        )

    @property
    def n_total(self) -> int:
        """Items in dispute."""
        return len(self._disputes)

    @property
    def n_settled(self) -> int:
        """Those that are settled."""
        return len(self._settled())

    def disputes(self) -> tuple[Dispute, ...]:
        """Return all disputes in their order, settled or open."""
        self._file.refresh()
        settled = self._settled()
        return tuple(
            _dispute(
                self._items[item_id],
                labels,
                assignment=assignment,
                number=number,
                rubric=self._rubric,
                rubric_text=self._rubric_text,
                settled=settled.get(assignment),
            )
            for number, (assignment, (item_id, labels)) in enumerate(self._disputes.items(), start=1)
        )

    def current(self) -> Dispute | None:
        """Return the first open dispute; None when all are settled."""
        return next((dispute for dispute in self.disputes() if dispute.settled is None), None)

    def settle(self, assignment: str, letter: str, flags: Sequence[str] = (), note: str = "") -> None:
        """Settle a dispute; the letter is on the disk when this returns. Another letter replaces it.

        Args:
            assignment: Id of the question.
            letter: A letter of the scale.
            flags: Names of flags that the item raises.
            note: Any text.

        Raises:
            UsageError: The question, letter or a flag does not exist.
            StoreError: The file cannot be written; nothing is recorded.
            DataError: The file was edited, and holds a line that is not a row.
        """
        item_id, _ = self._assigned(assignment)
        raised, note = checked_answer(self._rubric, letter, flags, note)
        self._file.refresh()
        before = self._settled().get(assignment)
        if before is not None and (before.letter, before.flags, before.note) == (letter, raised, note):
            return
        graded = self._items[item_id]
        self._file.append(
            Label(
                item_id=item_id,
                rater=self.rater,
                rater_kind="human",
                letter=letter,
                flags=raised,
                rubric=f"{self._rubric.name}/{self._rubric.version}",
                note=note,
                split=graded.sample.chunk.split or "held-out",
                chunk_id=graded.sample.chunk.chunk_id,
                question=graded.item.question,
                answer=graded.item.answer,
                rejected=graded.item.parts.get(REJECTED, ""),
                assignment=assignment,
                settles=True,
                time=self._clock(),
            )
        )

    def undo(self, assignment: str = "") -> Dispute | None:
        """Open a settled dispute again; return it.

        Args:
            assignment: Id of the question; empty: the one settled last.

        Returns:
            The dispute; None where nothing is settled.

        Raises:
            UsageError: The question does not exist.
            StoreError: The file cannot be written.
        """
        self._file.refresh()
        settled = self._settled()
        assignment = assignment or next(reversed(settled), "")
        if not assignment:
            return None
        self._assigned(assignment)
        if assignment in settled:
            self._file.append(UndoneLabel(assignment=assignment, rater=self.rater, time=self._clock()))
        return next(dispute for dispute in self.disputes() if dispute.question.assignment == assignment)

    def _settled(self) -> dict[str, Label]:
        return {
            assignment: answer
            for assignment, answer in self._file.rows.answers.items()
            if assignment in self._disputes and isinstance(answer, Label)
        }

    def _assigned(self, assignment: str) -> tuple[str, Sequence[Label]]:
        try:
            return self._disputes[assignment]
        except KeyError:
            raise UsageError(
                f"question {assignment[:40]!r}: not a question in dispute; reload the page"
            ) from None

    def close(self) -> None:
        """Release the lock of the file."""
        self._file.close()


def open_disputes(run: Path) -> tuple[Dispute, ...]:
    """Return the items of a run to which people gave different letters and that nobody settled.

    Args:
        run: A graded and finished run.

    Raises:
        DataError: There is no graded and finished run, or a label file is not readable.
    """
    items, grading, disputes = _read_disputes(run)
    rubric, text = rubric_of(grading)
    settled = {
        label.item_id
        for file in labels_of_run(run, grading.settings)
        for label in read_rater_rows(file).labels
        if label.settles and label.rubric in grading.label_rubrics
    }
    return tuple(
        _dispute(
            items[item_id],
            labels,
            assignment=item_id,
            number=number,
            rubric=rubric,
            rubric_text=text,
            settled=None,
        )
        for number, (item_id, labels) in enumerate(disputes.items(), start=1)
        if item_id not in settled
    )


def _read_disputes(run: Path) -> tuple[dict[str, GradedItem], Grading, dict[str, tuple[Label, ...]]]:
    """Read the items of a run, its grading, and the labels of the items to which people gave different letters."""
    with RunStore.open(run) as store:
        require_finished(store)
        grading = Grading.of(store)
        items = {item.item.item_id: item for item in GradedItems(store)}
    labels = [
        label
        for file in labels_of_run(run, grading.settings)
        for label in read_rater_rows(file).labels
        if label.item_id in items and label.rubric in grading.label_rubrics
    ]
    return items, grading, _different_letters(labels)


def _dispute(
    graded: GradedItem,
    labels: Sequence[Label],
    *,
    assignment: str,
    number: int,
    rubric: Rubric,
    rubric_text: str,
    settled: Label | None,
) -> Dispute:
    question = as_question(
        graded, assignment=assignment, number=number, rubric=rubric, rubric_text=rubric_text
    )
    return Dispute(item_id=graded.item.item_id, question=question, labels=tuple(labels), settled=settled)


def disputed_items(labels: Iterable[Label], rubric: RubricFacts) -> dict[str, tuple[Label, ...]]:
    """Return the items to which people gave different letters, and that nobody settled, with these labels.

    Args:
        labels: Of all raters.
        rubric: Rubric of the run; labels under another one are left out.
    """
    fitting = [label for label in labels if fits(label, rubric)]
    settled = {label.item_id for label in fitting if label.settles}
    return {
        item_id: disputed
        for item_id, disputed in _different_letters(fitting).items()
        if item_id not in settled
    }


def _different_letters(labels: Iterable[Label]) -> dict[str, tuple[Label, ...]]:
    """Return the labels by people of the items to which they gave different letters, by item."""
    by_item: dict[str, dict[str, Label]] = {}
    for label in labels:
        if label.rater_kind == "human" and not label.settles:
            by_item.setdefault(label.item_id, {})[label.rater] = label
    return {
        item_id: tuple(label for _, label in sorted(by_rater.items()))
        for item_id, by_rater in sorted(by_item.items())
        if len({label.letter for label in by_rater.values()}) > 1
    }
