"""The items of a graded run with the letter that counts, and the filters that training data pass."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from qaeval.errors import DataError, UsageError, closest
from qaeval.records import Failure, Generation, Grade, Item, Label, Sample, author
from qaeval.storage.run_directory import RunStore

Source: TypeAlias = Literal["label", "grade", "none"]
"""Where an item's letter is from; ``none``: it has no letter."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which items become training data; one with a flag, raised by whoever gave its letter, never does."""

    letters: tuple[str, ...] = ("A",)
    min_probability: float | None = None
    """Least probability that the judge gave its own letter. A grade without one does not pass; a label is not measured by it."""
    checks_passed: bool = False
    """Leave out items on which a check of the eval found something."""
    candidates: tuple[str, ...] = ()
    """Items of these candidates alone; empty: all."""
    model_labels: bool = False
    """Labels by models win over the grade, too; those by people always do."""


@dataclass(frozen=True)
class GradedItem:
    """An item as one candidate wrote it, with the letter that counts."""

    sample: Sample
    candidate: str
    item: Item
    letter: str
    """Empty where neither judge nor label gave one."""
    source: Source
    probability: float | None
    """The judge's probability of its letter, where the server gave one; None for a label."""
    flags: tuple[str, ...]
    """Raised by whoever gave the letter."""
    reason: str
    labels: tuple[Label, ...] = ()
    """Those that the letter was taken from."""


@dataclass(frozen=True)
class Step:
    """What one filter did."""

    name: str
    """The filter with its value, as a sentence can name it."""
    dropped: int
    left: int


@dataclass(frozen=True)
class Selected:
    """The items that passed, and what each filter took."""

    items: tuple[GradedItem, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Grading:
    """What the settings of a graded run say about letters."""

    settings: Mapping[str, Any]
    scale: tuple[str, ...]
    """Letters, best first."""
    rubric: str
    """Name and version, ``qa_pair_abc/1``."""
    rubric_sha: str

    @classmethod
    def of(cls, store: RunStore) -> "Grading":
        """Read the settings of a run.

        Raises:
            DataError: the run is not graded.
        """
        settings = store.settings()
        grading = settings.get("grading")
        if not grading:
            raise DataError(f"{store.path}: not graded yet; `qaeval grade {store.path}` comes first")
        rubric = grading["rubric"]
        scale = tuple(level["letter"] for level in rubric["scale"])
        return cls(settings, scale, f"{rubric['name']}/{rubric['version']}", rubric["sha"])


def require_finished(store: RunStore) -> None:
    """Refuse a run that is not whole: what is missing would be taken for something that nobody asked for.

    Raises:
        DataError: the run is not graded, or replies or grades are missing.
    """
    names = list(Grading.of(store).settings["candidates"])
    replied: set[tuple[str, str]] = set()
    items: set[str] = set()
    for row in store.generations():
        replied.add((row.sample_id, author(row)))
        if isinstance(row, Generation):
            items.update(item.item_id for item in row.items)
    replies = sum((sample_id, name) not in replied for sample_id in store.sample_ids() for name in names)
    grades = len(items.difference(row.item_id for row in store.grades()))
    if replies or grades:
        raise DataError(
            f"{store.path}: not finished: {replies:,} replies and {grades:,} grades are missing; finish the run with "
            "--resume first"
        )


def graded_items(store: RunStore, labels: Iterable[Label], *, model_labels: bool = False) -> list[GradedItem]:
    """Join a run's items with their letters; an item that several candidates wrote comes once for each.

    Args:
        store: A graded run.
        labels: Labels of any items; those of another rubric or of items that the run does not have are passed over.
        model_labels: Labels by models win over the grade, too; those by people always do.

    Returns:
        All items, by sample, candidate and position; those without a letter have an empty one.

    Raises:
        DataError: the run is not graded, or holds grades by another rubric.
    """
    grading = Grading.of(store)
    given = labels_by_item((one for one in labels if model_labels or one.rater_kind == "human"), grading)
    grades: dict[str, Grade] = {}
    for row in store.grades():
        if isinstance(row, Grade):
            _require_rubric(store, row, grading)
            grades[row.item_id] = row
    replies: dict[tuple[str, str], tuple[Item, ...]] = {
        (row.sample_id, row.candidate): row.items
        for row in store.generations()
        if isinstance(row, Generation)
    }
    names = list(grading.settings["candidates"])
    return [
        _graded(sample, name, item, grades.get(item.item_id), given.get(item.item_id, ()), grading.scale)
        for sample in store.samples()
        for name in names
        for item in replies.get((sample.sample_id, name), ())
    ]


def failed_replies(store: RunStore) -> int:
    """Count the replies that gave no item."""
    return sum(isinstance(row, Failure) for row in store.generations())


def labels_by_item(labels: Iterable[Label], grading: Grading) -> dict[str, tuple[Label, ...]]:
    """Sort the labels that fit the run's rubric by item; of two by one rater the later one counts.

    Raises:
        DataError: a label's letter is off the rubric's scale.
    """
    found: dict[str, dict[str, Label]] = {}
    for label in labels:
        if label.rubric not in {"", grading.rubric}:
            continue
        if label.letter not in grading.scale:
            raise DataError(
                f"label of {label.rater} for item {label.item_id}: expected a letter of {grading.rubric}, "
                f"{'/'.join(grading.scale)}, got {label.letter!r}; mend the label file"
            )
        found.setdefault(label.item_id, {})[label.rater] = label
    return {item_id: tuple(own.values()) for item_id, own in found.items()}


def deciding(labels: Sequence[Label], scale: Sequence[str]) -> tuple[str, tuple[Label, ...]]:
    """Return the letter that several raters' labels come to, and the labels that were counted.

    People count before models. The most frequent letter wins, and of equally frequent ones the lowest.
    """
    counted = [label for label in labels if label.rater_kind == "human"] or list(labels)
    votes = Counter(label.letter for label in counted)
    letter = max(votes, key=lambda letter: (votes[letter], scale.index(letter)))
    return letter, tuple(counted)


def select(items: Sequence[GradedItem], filters: Filters, grading: Grading) -> Selected:
    """Apply the filters one after the other.

    Raises:
        UsageError: a filter names a candidate or a letter that the run does not have.
    """
    check(filters, grading)
    least = filters.min_probability
    tests: list[tuple[str, Callable[[GradedItem], bool]]] = [
        (f"candidates {', '.join(filters.candidates)}", lambda one: _by(one, filters)),
        ("a letter by judge or label", lambda one: one.letter != ""),
        (f"letters {', '.join(filters.letters)}", lambda one: one.letter in filters.letters),
        (f"probability of at least {least}", lambda one: _sure(one, least)),
        ("checks passed", lambda one: not one.item.findings),
        ("no flag raised", lambda one: not one.flags),
    ]
    asked = (bool(filters.candidates), True, True, least is not None, filters.checks_passed, True)
    left, steps = list(items), []
    for (name, test), wanted in zip(tests, asked, strict=True):
        if wanted:
            kept = [one for one in left if test(one)]
            steps.append(Step(name, len(left) - len(kept), len(kept)))
            left = kept
    return Selected(tuple(left), tuple(steps))


def may_be_rejected(item: GradedItem, filters: Filters) -> bool:
    """Whether an item may stand on the worse side of a pair: of a candidate that was asked for, its letter sure."""
    return item.letter != "" and _by(item, filters) and _sure(item, filters.min_probability)


def check(filters: Filters, grading: Grading) -> None:
    """Refuse filters that no item of the run can pass.

    Raises:
        UsageError: a candidate or a letter is unknown, or the probability is none.
    """
    known = list(grading.settings["candidates"])
    for name in filters.candidates:
        if name not in known:
            raise UsageError(
                f"no candidate {name!r} in this run.{closest(name, known)} It has {', '.join(known)}"
            )
    for letter in filters.letters:
        if letter not in grading.scale:
            raise UsageError(
                f"letter {letter!r}: expected letters of {'/'.join(grading.scale)}, the run's scale"
            )
    if not filters.letters:
        raise UsageError(f"no letters: name at least one of {'/'.join(grading.scale)}")
    if filters.min_probability is not None and not 0 <= filters.min_probability <= 1:
        raise UsageError(f"probability {filters.min_probability}: expected a number from 0 to 1, like 0.9")


def _graded(
    sample: Sample,
    candidate: str,
    item: Item,
    grade: Grade | None,
    labels: Sequence[Label],
    scale: Sequence[str],
) -> GradedItem:
    if labels:
        letter, counted = deciding(labels, scale)
        agreed = [label for label in counted if label.letter == letter]
        flags = tuple(sorted({flag for label in agreed for flag in label.flags}))
        reason = next((label.note for label in agreed if label.note), "")
        return GradedItem(sample, candidate, item, letter, "label", None, flags, reason, counted)
    if grade is None:
        return GradedItem(sample, candidate, item, "", "none", None, (), "")
    probability = grade.probabilities.get(grade.letter) if grade.probabilities else None
    return GradedItem(sample, candidate, item, grade.letter, "grade", probability, grade.flags, grade.reason)


def _require_rubric(store: RunStore, row: Grade, grading: Grading) -> None:
    if row.rubric_sha != grading.rubric_sha or row.letter not in grading.scale:
        raise DataError(
            f"{store.path}: item {row.item_id}: expected a grade by {grading.rubric} ({grading.rubric_sha[:12]}), got "
            f"{row.letter!r} by {row.rubric_sha[:12]}; letters of two rubrics are never pooled: grade the run anew"
        )


def _by(item: GradedItem, filters: Filters) -> bool:
    return not filters.candidates or item.candidate in filters.candidates


def _sure(item: GradedItem, least: float | None) -> bool:
    if least is None or item.source == "label":
        return True
    return item.probability is not None and item.probability >= least
