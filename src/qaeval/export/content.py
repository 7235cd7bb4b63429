"""What goes into the folder of an export, beside its card."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from qaeval.errors import DataError, UsageError
from qaeval.export.card import Counts, File
from qaeval.export.dedup import deduplicate
from qaeval.export.licences import Model, refuse_unfit
from qaeval.export.select import (
    Filters,
    GradedItem,
    Grading,
    Selected,
    failed_replies,
    graded_items,
    may_be_rejected,
    select,
)
from qaeval.export.sheets import SHEET_COLUMNS, label_rows, precomputed_rows
from qaeval.export.split import SPLITS, By, assign
from qaeval.export.tables import as_csv, as_parquet, table_rows
from qaeval.export.training import Example, dpo_examples, sft_examples
from qaeval.records import Label
from qaeval.store import RunStore

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]+")
"""What does not stand in the name of a file."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """Files with what the card says of them."""

    files: tuple[File, ...]
    tables: Mapping[str, Counts] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    """What was left out, by reason; reasons that took nothing among them."""
    letters: str
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Rows by split; of tables and sheets by file."""
        return {file.name.removesuffix(".jsonl"): file.rows for file in self.files}


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """How training data are split."""

    shares: tuple[float, float, float]
    seed: int
    by: By


def sft_content(
    store: RunStore,
    labels: Sequence[Label],
    filters: Filters,
    splitting: Splitting,
    accept: Iterable[str],
    *,
    with_context: bool,
    system: str,
) -> Content:
    """Make conversations of the items that pass the filters."""
    grading = Grading.of(store)
    items = graded_items(store, labels, prefer_labels=filters.prefer_labels)
    selected = select(items, filters, grading)
    _require_some(store, items, selected)
    made = sft_examples(selected.items, with_context=with_context, system=system)
    dropped = {step.name: step.dropped for step in selected.steps}
    return _training(store, made, dropped, grading, labels, splitting, accept)


def dpo_content(
    store: RunStore,
    labels: Sequence[Label],
    filters: Filters,
    splitting: Splitting,
    accept: Iterable[str],
    *,
    per_sample: int,
) -> Content:
    """Make pairs, in which the items that pass the filters are preferred."""
    grading = Grading.of(store)
    items = graded_items(store, labels, prefer_labels=filters.prefer_labels)
    selected = select(items, filters, grading)
    _require_some(store, items, selected)
    best = grading.scale[0]
    passed = {one.item.item_id for one in selected.items}
    made = dpo_examples(
        (one for one in items if may_be_rejected(one, filters)),
        best=best,
        scale=grading.scale,
        prompt=grading.settings["eval"]["prompt"],
        chosen=lambda one: one.item.item_id in passed,
        per_sample=per_sample,
    )
    if not made:
        raise DataError(
            f"{store.path}: no pairs: {len(selected.items)} items passed the filters, and none of them has the best letter, "
            f"{best}, beside one of the same sample and type with a worse letter; loosen the filters, or compare more candidates"
        )
    dropped = {f"{step.name} (of the chosen)": step.dropped for step in selected.steps}
    return _training(store, made, dropped, grading, labels, splitting, accept)


def table_content(
    store: RunStore, labels: Sequence[Label], filters: Filters, to: Literal["csv", "parquet"]
) -> Content:
    """Make the table of all items."""
    _require_no_quality(filters, to)
    rows = table_rows(store, labels, candidates=filters.candidates)
    if not rows:
        raise DataError(f"{store.path}: the run has no replies to write down; finish it with --resume")
    data = as_csv(rows) if to == "csv" else as_parquet(rows)
    grading = Grading.of(store)
    judge = grading.settings["grading"]["judge"]["name"]
    return Content(
        files=(File(f"items.{to}", data, len(rows), "train"),),
        letters=f"The judge `{judge}` gave `letter`, `flags`, `reason` and `probability`. Labels stand in `labels`.",
    )


def sheet_content(
    store: RunStore, labels: Sequence[Label], filters: Filters, *, n: int | None, seed: int, precomputed: bool
) -> Content:
    """Make a sheet to be filled in, or the letters as Inspect takes scores."""
    _require_no_quality(filters, "labels")
    grading = Grading.of(store)
    if precomputed:
        made = precomputed_rows(
            store, labels, candidates=filters.candidates, prefer_labels=filters.prefer_labels
        )
        files = tuple(File(name, as_jsonl(made[one]), len(made[one])) for one, name in _file_names(made))
        letters = (
            "Values run from 0, the lowest letter, to 1, the best; the mean where a reply has several items."
        )
    else:
        items = graded_items(store, labels, prefer_labels=False)
        own = [one for one in items if not filters.candidates or one.candidate in filters.candidates]
        rows = label_rows(own, grading, n=n, seed=seed)
        files = tuple(
            File(f"labels.{kind}", data, len(rows))
            for kind, data in (("jsonl", as_jsonl(rows)), ("csv", as_csv(rows, SHEET_COLUMNS)))
            if rows
        )
        letters = f"Nobody has given any yet. The scale is {'/'.join(grading.scale)}, of the rubric `{grading.rubric}`."
    if not files:
        raise DataError(f"{store.path}: no item of {_who(filters)} has a letter; `qaeval grade` comes first")
    return Content(files=files, letters=letters)


def as_jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Write rows as JSON lines in UTF-8."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _training(
    store: RunStore,
    made: Sequence[Example],
    dropped: Mapping[str, int],
    grading: Grading,
    labels: Iterable[Label],
    splitting: Splitting,
    accept: Iterable[str],
) -> Content:
    """Drop duplicates, ask the licences, split, and count."""
    order = sorted(range(len(made)), key=lambda place: _preference(made[place], grading))
    unique = deduplicate([example.text for example in made], order)
    examples = [made[place] for place in unique.places]
    sources = {one.item.item_id: one for example in examples for one in example.items}
    graded = any(one.source == "grade" for one in sources.values())
    notes = refuse_unfit(_authors(examples, grading), _judge(grading) if graded else None, accept)
    assigned = assign(
        [example.place for example in examples],
        shares=splitting.shares,
        seed=splitting.seed,
        by=splitting.by,
    )
    parts = {
        split: [one for one, own in zip(examples, assigned.splits, strict=True) if own == split]
        for split in SPLITS
    }
    files = [
        File(f"{split}.jsonl", as_jsonl(example.row for example in own), len(own), split)
        for split, own in parts.items()
        if own
    ]
    return Content(
        files=tuple(files),
        tables={
            "letter": _counted(parts, lambda one: one.letter, grading.scale),
            "candidate": _counted(parts, lambda one: one.items[0].candidate, grading.settings["candidates"]),
        },
        dropped={
            **dropped,
            "exact duplicates": unique.exact,
            "near duplicates": unique.near,
            "replies that gave no item": failed_replies(store),
        },
        letters=_letters(sources, grading, labels),
        notes=(*notes, *_remarks(parts, assigned.moved, splitting.by), *_rater_notes(sources, labels)),
    )


def _preference(example: Example, grading: Grading) -> tuple[int, bool]:
    """Of duplicates keep the one with the better letter, and of equal ones that which a label spoke for."""
    return grading.scale.index(example.letter), example.items[0].source != "label"


def _counted(
    parts: Mapping[str, Sequence[Example]], of: Callable[[Example], str], order: Iterable[str]
) -> dict[str, dict[str, int]]:
    counts = {split: Counter(map(of, own)) for split, own in parts.items()}
    names = [name for name in order if any(name in own for own in counts.values())]
    return {split: {name: own[name] for name in names} for split, own in counts.items()}


def _authors(examples: Iterable[Example], grading: Grading) -> list[Model]:
    names = {one.candidate for example in examples for one in example.items}
    return [Model.of(name, about) for name, about in grading.settings["candidates"].items() if name in names]


def _judge(grading: Grading) -> Model:
    about = grading.settings["grading"]["judge"]
    return Model.of(about["name"], about)


def _letters(sources: Mapping[str, GradedItem], grading: Grading, labels: Iterable[Label]) -> str:
    """Say who gave the letters of the items that are in the data."""
    by = Counter(one.source for one in sources.values())
    sentences = []
    if by["grade"]:
        judge = grading.settings["grading"]["judge"]["name"]
        sentences.append(
            f"The judge `{judge}` gave the letters of {by['grade']:,} items by the rubric `{grading.rubric}`."
        )
    if by["label"]:
        raters = ", ".join(f"{name} ({kind})" for name, kind in _raters(sources, labels))
        sentences.append(
            f"Labels gave those of {by['label']:,} items: {raters}. People count before models, then the majority, then the "
            "lower letter."
        )
    return " ".join(sentences)


def _raters(sources: Mapping[str, GradedItem], labels: Iterable[Label]) -> list[tuple[str, str]]:
    """Name the raters of the items whose letter is from a label."""
    return sorted(
        {
            (label.rater, label.rater_kind)
            for label in labels
            if label.item_id in sources and sources[label.item_id].source == "label"
        }
    )


def _rater_notes(sources: Mapping[str, GradedItem], labels: Iterable[Label]) -> list[str]:
    return [
        f"The rater {name} is a model whose licence is not known here: read what its terms say about training on its letters."
        for name, kind in _raters(sources, labels)
        if kind == "model"
    ]


def _remarks(parts: Mapping[str, Sequence[Example]], moved: int, by: By) -> list[str]:
    remarks = [f"{split}.jsonl is left out: no row fell into it." for split, own in parts.items() if not own]
    if moved:
        remarks.append(
            f"{moved:,} {by}s were moved to an earlier split, because they share a question with a {by} there."
        )
    return remarks


def _require_some(store: RunStore, items: Sequence[GradedItem], selected: Selected) -> None:
    if not items:
        raise DataError(f"{store.path}: the run has no items: no reply of any candidate could be read")
    before = len(items)
    for step in selected.steps:
        if not step.left:
            raise DataError(
                f"{store.path}: nothing left to export: none of {before} items passed the filter {step.name!r}; loosen it"
            )
        before = step.left


def _require_no_quality(filters: Filters, to: str) -> None:
    """Refuse a filter that would silently do nothing."""
    if filters.min_probability is not None or filters.checks_passed:
        raise UsageError(
            f"--to {to} writes every item: a least probability or passed checks filter sft and dpo alone; leave them out"
        )


def _file_names(made: Mapping[str, object]) -> list[tuple[str, str]]:
    """Name a file for each candidate, so that no two get the same one."""
    names: list[tuple[str, str]] = []
    for number, one in enumerate(made, start=1):
        name = f"{_UNSAFE.sub('-', one)}.jsonl"
        taken = {other for _, other in names}
        names.append((one, f"{number}-{name}" if name in taken else name))
    return names


def _who(filters: Filters) -> str:
    return ", ".join(filters.candidates) or "the run"
