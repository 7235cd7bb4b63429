"""The items of a graded run with their final letter, and the filters of training data."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from qaeval.agreement.label_rows import with_settled
from qaeval.analysis.repeated import fail_repeated
from qaeval.errors import DataError, UsageError, closest
from qaeval.records import (
    Failure,
    GenerateRow,
    Generation,
    Grade,
    Item,
    Label,
    Sample,
    author,
    label_names,
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


@dataclass(frozen=True)
class FilterStep:
    """The effect of a filter."""

    name: str
    """The filter with its value."""
    dropped: int
    n_left: int


@dataclass(frozen=True)
class Selection:
    """The items that passed all filters, and the effect of each filter."""

    items: tuple[GradedItem, ...]
    steps: tuple[FilterStep, ...]


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
        DataError: the run is not graded, or replies or grades are missing.
    """
    names = list(Grading.of(store).settings["candidates"])
    replied_pairs: set[tuple[str, str]] = set()
    items: set[str] = set()
    for row in store.generations():
        replied_pairs.add((row.sample_id, author(row)))
        if isinstance(row, Generation):
            items.update(item.item_id for item in row.items)
    replies = sum(
        (sample_id, name) not in replied_pairs for sample_id in store.sample_ids() for name in names
    )
    grades = len(items.difference(row.item_id for row in store.grades()))
    if replies or grades:
        raise DataError(
            f"{store.path}: not finished: {replies:,} replies and {grades:,} grades are missing; "
            f"{way_on(store.path)} completes it"
        )


def graded_items(store: RunStore, labels: Iterable[Label], *, model_labels: bool = False) -> list[GradedItem]:
    """Join the items of a run with their letters; an item of several candidates occurs once per candidate.

    Args:
        store: A graded run.
        labels: Labels of any items; labels of other rubrics or items are ignored.
        model_labels: Labels by models override the grade; labels by people always do.

    Returns:
        All items by sample, candidate and position, but those of replies that are the same for several chunks; the letter is
        empty if there is none.

    Raises:
        DataError: the run is not graded, or has grades of another rubric.
    """
    grading = Grading.of(store)
    labels_of = labels_by_item(
        (label for label in labels if model_labels or label.rater_kind == "human"), grading
    )
    grades: dict[str, Grade] = {}
    for row in store.grades():
        if isinstance(row, Grade):
            _require_rubric(store, row, grading)
            grades[row.item_id] = row
    replies: dict[tuple[str, str], tuple[Item, ...]] = {
        (row.sample_id, row.candidate): row.items for row in replies_of(store) if isinstance(row, Generation)
    }
    names = list(grading.settings["candidates"])
    return [
        _graded(sample, name, item, grades.get(item.item_id), labels_of.get(item.item_id, ()), grading.scale)
        for sample in store.samples()
        for name in names
        for item in replies.get((sample.sample_id, name), ())
    ]


def failed_replies(store: RunStore) -> int:
    """Count the replies that failed whole, imported ones of which every item is lost included."""
    return sum(isinstance(row, Failure) or (not row.items and bool(row.lost)) for row in replies_of(store))


def replies_of(store: RunStore) -> list[GenerateRow]:
    """Return the last row of every generation task; a reply that is the same for several chunks is a failure."""
    return fail_repeated(store.samples(), store.generations())


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


def select(items: Sequence[GradedItem], filters: Filters, grading: Grading) -> Selection:
    """Apply the filters in order.

    Raises:
        UsageError: a filter names a candidate or a letter that the run does not have.
    """
    check_filters(filters, grading)
    min_probability = filters.min_probability
    tests: list[tuple[str, Callable[[GradedItem], bool]]] = [
        (f"candidates {', '.join(filters.candidates)}", lambda item: _is_selected_candidate(item, filters)),
        ("a letter by judge or label", lambda item: item.letter != ""),
        (f"letters {', '.join(filters.letters)}", lambda item: item.letter in filters.letters),
        (f"probability of at least {min_probability}", lambda item: _is_probable(item, min_probability)),
        ("checks passed", lambda item: not item.item.findings),
        ("no flag raised", lambda item: not item.flags),
    ]
    enabled = (bool(filters.candidates), True, True, min_probability is not None, filters.checks_passed, True)
    remaining, steps = list(items), []
    for (name, test), is_enabled in zip(tests, enabled, strict=True):
        if is_enabled:
            passed = [item for item in remaining if test(item)]
            steps.append(FilterStep(name, len(remaining) - len(passed), len(passed)))
            remaining = passed
    return Selection(tuple(remaining), tuple(steps))


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
    grade: Grade | None,
    labels: Sequence[Label],
    scale: Sequence[str],
) -> GradedItem:
    if labels:
        letter, counted = majority_letter(labels, scale)
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
