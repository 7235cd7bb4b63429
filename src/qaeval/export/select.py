"""The items of a graded run with their final letter, and the filters of training data."""

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from qaeval.agreement.label_rows import with_settled
from qaeval.analysis.repeated import ReplyTexts, failed_if_repeated, repeated_replies, texts_of
from qaeval.errors import DataError, UsageError, closest
from qaeval.files.rows import RowIndex
from qaeval.records import (
    Failure,
    GenerateRow,
    Generation,
    Grade,
    GradeRow,
    Item,
    Label,
    Sample,
    author,
    label_names,
    record_number,
)
from qaeval.storage.run_directory import RunStore
from qaeval.storage.runs import way_on

Source: TypeAlias = Literal["label", "grade", "none"]
"""Source of an item's letter; ``none``: the item has no letter."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Filters of training data. Items with a flag from the rater of their letter never pass."""

    letters: tuple[str, ...] = ("A",)
    min_probability: float | None = None
    """Minimum probability of the judge's letter. Grades without a probability fail; labels pass."""
    checks_passed: bool = False
    """Exclude items with findings of checks."""
    candidates: tuple[str, ...] = ()
    """Candidates to include; empty: all."""
    model_labels: bool = False
    """Labels by models override the grade; labels by people always do."""


@dataclass(frozen=True)
class GradedItem:
    """An item of a candidate with its final letter."""

    sample: Sample
    candidate: str
    item: Item
    letter: str
    """Letter of a label or of the judge; empty if there is neither."""
    source: Source
    probability: float | None
    """The judge's probability of its letter, if the server returns it; None for a label."""
    flags: tuple[str, ...]
    """Flags from the rater of the letter."""
    reason: str
    labels: tuple[Label, ...] = ()
    """Labels that determined the letter."""

    @property
    def item_id(self) -> str:
        """Id of the item."""
        return self.item.item_id

    @property
    def chunk_id(self) -> str:
        """Id of its chunk."""
        return self.sample.chunk.chunk_id


@dataclass(frozen=True)
class Grading:
    """Settings of a graded run: scale and rubric."""

    settings: Mapping[str, Any]
    scale: tuple[str, ...]
    """Letters, best first."""
    rubric: str
    """Name and version, ``qa_pair_abc/1``."""
    rubric_sha: str
    label_rubrics: frozenset[str]
    """Names of the rubric in labels that hold, those of earlier versions included; the empty one is any rubric's."""

    @classmethod
    def of(cls, store: RunStore) -> "Grading":
        """Read the settings of a run.

        Raises:
            DataError: the run is not graded.
        """
        settings = store.settings()
        grading = settings.get("grading")
        if not grading:
            raise DataError(f"{store.path}: not graded yet; run `qaeval grade {store.path}` first")
        rubric = grading["rubric"]
        scale = tuple(level["letter"] for level in rubric["scale"])
        name, version = rubric["name"], rubric["version"]
        names = label_names(name, version, rubric.get("labels_from", ())) | {""}
        return cls(settings, scale, f"{name}/{version}", rubric["sha"], names)


def require_finished(store: RunStore) -> None:
    """Refuse an unfinished run, whose missing rows would look like rows that were never requested.

    Raises:
        DataError: the run is not graded, or replies or grades are missing, or a row is not valid.
    """
    names = {name: number for number, name in enumerate(Grading.of(store).settings["candidates"])}
    replied, items, graded = array("Q"), array("Q"), array("Q")
    for row in store.generations():
        if author(row) in names:
            replied.append(record_number(row.sample_id, str(names[author(row)])))
        if isinstance(row, Generation):
            items.extend(record_number(item.item_id) for item in row.items)
    graded.extend(record_number(row.item_id) for row in store.grades() if row.item_id)
    asked = array(
        "Q", (record_number(sample_id, str(n)) for sample_id in store.sample_ids() for n in range(len(names)))
    )
    replies, grades = _n_missing(asked, replied), _n_missing(items, graded)
    if replies or grades:
        raise DataError(
            f"{store.path}: not finished: {replies:,} replies and {grades:,} grades are missing; "
            f"{way_on(store.path)} completes it"
        )


def _n_missing(expected: "array[int]", present: "array[int]") -> int:
    """Count the different ids that are not there."""
    return len(np.setdiff1d(np.asarray(expected, np.uint64), np.asarray(present, np.uint64)))


class Replies:
    """The replies of a run, by sample and candidate, read again at every iteration: 32 bytes a row are held, and no text.

    A reply that is the same for several chunks is a failure.

    Args:
        store: The run.

    Attributes:
        n_failed: Number of replies that failed whole, imported ones of which every item is lost included.
    """

    def __init__(self, store: RunStore) -> None:
        self._store, self._names = store, list(store.settings()["candidates"])
        self._rows, self._repeated = store.rows_by_sample(), dict[tuple[str, str], int]()
        self.n_failed = 0
        self._repeated = repeated_replies(self._texts())
        self.n_failed += len(self._repeated)

    def _texts(self) -> Iterator[ReplyTexts]:
        for sample, _, row in self:
            if row is not None:
                self.n_failed += isinstance(row, Failure) or (not row.items and bool(row.lost))
                yield from texts_of(sample, row)

    def __iter__(self) -> Iterator[tuple[Sample, str, GenerateRow | None]]:
        """Yield sample, candidate and reply; None in place of a reply that was not asked for."""
        with self._rows as rows:
            for sample in self._store.samples():
                by_author = {author(row): row for row in rows.of(sample.sample_id)}
                for name in self._names:
                    row = by_author.get(name)
                    yield sample, name, row and failed_if_repeated(row, self._repeated)


class GradedItems:
    """The items of a run with their letters, read again at every iteration; an item of several candidates occurs once per candidate.

    They come by sample, candidate and position, without those of replies that are the same for several chunks; the letter is
    empty if there is none.

    Args:
        store: A graded run.
        labels: Labels of any items; labels of other rubrics or items are ignored.
        model_labels: Labels by models override the grade; labels by people always do.
        candidates: Candidates to include; empty: all.

    Attributes:
        replies: The replies that hold the items.

    Raises:
        DataError: the run is not graded, or, at an iteration, has grades of another rubric.
    """

    def __init__(
        self,
        store: RunStore,
        labels: Iterable[Label] = (),
        *,
        model_labels: bool = False,
        candidates: Collection[str] = (),
    ) -> None:
        self._store, self._grading, self._candidates = store, Grading.of(store), candidates
        self._labels = labels_by_item(
            (label for label in labels if model_labels or label.rater_kind == "human"), self._grading
        )
        self.replies = Replies(store)
        self._grades = store.grades_by_item()

    def __iter__(self) -> Iterator[GradedItem]:
        scale = self._grading.scale
        with self._grades as grades:
            for sample, name, row in self.replies:
                if self._candidates and name not in self._candidates:
                    continue
                for item in row.items if isinstance(row, Generation) else ():
                    grade = last_grade(grades, item.item_id)
                    if isinstance(grade, Grade):
                        _require_rubric(self._store, grade, self._grading)
                    labels = self._labels.get(item.item_id, ())
                    yield _graded(sample, name, item, grade, labels, scale)


def last_grade(grades: RowIndex, item_id: str) -> Grade | Failure | None:
    """Return the last row of an item's grading; None where there is none."""
    return next(reversed(grades.of(item_id)), None)


def labels_by_item(labels: Iterable[Label], grading: Grading) -> dict[str, tuple[Label, ...]]:
    """Group the labels of the run's rubric by item; the last label of a rater counts, and a settled letter for all.

    Raises:
        DataError: the letter of a label is not on the rubric's scale.
    """
    by_item: dict[str, dict[str, Label]] = {}
    for label in with_settled(labels):
        if label.rubric not in grading.label_rubrics:
            continue
        if label.letter not in grading.scale:
            raise DataError(
                f"label of {label.rater} for item {label.item_id}: expected a letter of {grading.rubric} "
                f"({'/'.join(grading.scale)}), got {label.letter!r}; correct the label file"
            )
        by_item.setdefault(label.item_id, {})[label.rater] = label
    return {item_id: tuple(by_rater.values()) for item_id, by_rater in by_item.items()}


def majority_letter(labels: Sequence[Label], scale: Sequence[str]) -> tuple[str, tuple[Label, ...]]:
    """Return the majority letter of several raters, and the counted labels.

    If there are labels by people, those by models do not count. In a tie the lowest letter wins.
    """
    counted = [label for label in labels if label.rater_kind == "human"] or list(labels)
    votes = Counter(label.letter for label in counted)
    letter = max(votes, key=lambda letter: (votes[letter], scale.index(letter)))
    return letter, tuple(counted)


class Selection:
    """The filters of training data in their order, with a count of the items that each of them drops.

    Attributes:
        n_items: Items that were tested.
        n_passed: Those that passed all filters.
    """

    def __init__(self, filters: Filters) -> None:
        minimum = filters.min_probability
        tests: list[tuple[str, bool, Callable[[GradedItem], bool]]] = [
            (
                f"candidates {', '.join(filters.candidates)}",
                bool(filters.candidates),
                lambda item: _is_selected_candidate(item, filters),
            ),
            ("a letter by judge or label", True, lambda item: item.letter != ""),
            (f"letters {', '.join(filters.letters)}", True, lambda item: item.letter in filters.letters),
            (
                f"probability of at least {minimum}",
                minimum is not None,
                lambda item: _is_probable(item, minimum),
            ),
            ("checks passed", filters.checks_passed, lambda item: not item.item.findings),
            ("no flag raised", True, lambda item: not item.flags),
        ]
        self._tests = [(name, test) for name, is_enabled, test in tests if is_enabled]
        self.reset()

    def reset(self) -> None:
        """Begin to count."""
        self.n_items = self.n_passed = 0
        self._dropped: Counter[str] = Counter()

    def passes(self, item: GradedItem) -> bool:
        """Test and count an item."""
        self.n_items += 1
        failed = next((name for name, test in self._tests if not test(item)), None)
        if failed is None:
            self.n_passed += 1
        else:
            self._dropped[failed] += 1
        return failed is None

    @property
    def dropped(self) -> dict[str, int]:
        """Items that each filter dropped, by its name with its value, in the order of the filters."""
        return {name: self._dropped[name] for name, _ in self._tests}


def can_be_rejected(item: GradedItem, filters: Filters) -> bool:
    """Whether an item can be the rejected one of a pair: of a selected candidate, with a probable letter."""
    return (
        item.letter != ""
        and _is_selected_candidate(item, filters)
        and _is_probable(item, filters.min_probability)
    )


def check_filters(filters: Filters, grading: Grading) -> None:
    """Refuse filters that no item of the run can pass.

    Raises:
        UsageError: a candidate or a letter is unknown, or the probability is out of range.
    """
    candidates = list(grading.settings["candidates"])
    for name in filters.candidates:
        if name not in candidates:
            raise UsageError(
                f"unknown candidate {name!r}.{closest(name, candidates)} The run has {', '.join(candidates)}"
            )
    for letter in filters.letters:
        if letter not in grading.scale:
            raise UsageError(
                f"letter {letter!r}: expected letters of the run's scale {'/'.join(grading.scale)}"
            )
    if not filters.letters:
        raise UsageError(f"no letters; expected at least one of {'/'.join(grading.scale)}")
    if filters.min_probability is not None and not 0 <= filters.min_probability <= 1:
        raise UsageError(f"probability {filters.min_probability}: expected a number from 0 to 1")


def _graded(
    sample: Sample,
    candidate: str,
    item: Item,
    grade: GradeRow | None,
    labels: Sequence[Label],
    scale: Sequence[str],
) -> GradedItem:
    if labels:
        letter, counted = majority_letter(labels, scale)
        agreed = [label for label in counted if label.letter == letter]
        flags = tuple(sorted({flag for label in agreed for flag in label.flags}))
        reason = next((label.note for label in agreed if label.note), "")
        return GradedItem(sample, candidate, item, letter, "label", None, flags, reason, counted)
    if not isinstance(grade, Grade):
        return GradedItem(sample, candidate, item, "", "none", None, (), "")
    probability = grade.probabilities.get(grade.letter) if grade.probabilities else None
    return GradedItem(sample, candidate, item, grade.letter, "grade", probability, grade.flags, grade.reason)


def _require_rubric(store: RunStore, row: Grade, grading: Grading) -> None:
    if row.rubric_sha != grading.rubric_sha or row.letter not in grading.scale:
        raise DataError(
            f"{store.path}: item {row.item_id}: expected a grade by {grading.rubric} "
            f"({grading.rubric_sha[:12]}), got {row.letter!r} by {row.rubric_sha[:12]}; letters of two "
            "rubrics cannot be pooled: grade the run again"
        )


def _is_selected_candidate(item: GradedItem, filters: Filters) -> bool:
    return not filters.candidates or item.candidate in filters.candidates


def _is_probable(item: GradedItem, minimum: float | None) -> bool:
    if minimum is None or item.source == "label":
        return True
    return item.probability is not None and item.probability >= minimum
