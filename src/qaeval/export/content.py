"""What goes into the folder of an export, beside its card."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Literal

from qaeval.errors import DataError
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
from qaeval.storage.run_directory import RunStore

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
class Training:
    """What is asked of training data."""

    labels: Sequence[Label]
    filters: Filters
    accept: Iterable[str]
    """Models or licences whose terms the user has read."""
    shares: tuple[float, float, float]
    seed: int
    by: By


def sft_content(store: RunStore, asked: Training, *, with_context: bool | None) -> Content:
    """Make conversations of the items that pass the filters.

    Args:
        store: A graded run.
        asked: What is asked.
        with_context: Put the chunk before the question; None: where the eval asks for answers from it.
    """
    grading = Grading.of(store)
    if with_context is None:
        # an answer, a refusal above all, makes sense beside the passage that it speaks of alone
        with_context = grading.settings["eval"].get("item_kind") == "answer"
    items = graded_items(store, asked.labels, model_labels=asked.filters.model_labels)
    selected = select(items, asked.filters, grading)
    _require_some(store, items, selected)
    made = sft_examples(selected.items, with_context=with_context)
    dropped = {step.name: step.dropped for step in selected.steps}
    return _training(store, made, dropped, grading, asked)


def dpo_content(store: RunStore, asked: Training, *, per_sample: int) -> Content:
    """Make pairs, in which the items that pass the filters are preferred."""
    grading, filters = Grading.of(store), asked.filters
    items = graded_items(store, asked.labels, model_labels=filters.model_labels)
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
    return _training(store, made, dropped, grading, asked)


def table_content(
    store: RunStore, labels: Sequence[Label], filters: Filters, to: Literal["csv", "parquet"]
) -> Content:
    """Make the table of all items."""
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
    grading = Grading.of(store)
    if precomputed:
        made = precomputed_rows(store, labels, candidates=filters.candidates)
        files = tuple(File(name, as_jsonl(made[one]), len(made[one])) for one, name in _file_names(made))
        letters = (
            "Values run from 0, the lowest letter, to 1, the best; the mean where a reply has several items."
        )
    else:
        items = graded_items(store, [])
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
    asked: Training,
) -> Content:
    """Drop duplicates, ask the licences, split, and count."""
    order = sorted(range(len(made)), key=lambda place: _preference(made[place], grading))
    unique = deduplicate([example.text for example in made], order)
    examples = [made[place] for place in unique.places]
    sources = {one.item.item_id: one for example in examples for one in example.items}
    notes = refuse_unfit([*_authors(examples, grading), *_raters(sources.values(), grading)], asked.accept)
    assigned = assign(
        [example.place for example in examples], shares=asked.shares, seed=asked.seed, by=asked.by
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
        letters=_letters(sources, grading, asked),
        notes=(*notes, *_remarks(parts, assigned.moved, asked.by)),
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


def _raters(items: Iterable[GradedItem], grading: Grading) -> list[Model]:
    """Name the models that gave letters: the judge, and those whose labels were counted."""
    judge, candidates = grading.settings["grading"]["judge"], grading.settings["candidates"]
    known = {**candidates, judge["name"]: judge}
    names = dict.fromkeys(
        name
        for one in items
        for name in (
            [judge["name"]]
            if one.source == "grade"
            else [label.rater for label in one.labels if label.rater_kind == "model"]
        )
    )
    return [Model.of(name, known[name]) if name in known else Model.of_rater(name) for name in names]


def _letters(sources: Mapping[str, GradedItem], grading: Grading, asked: Training) -> str:
    """Say who gave the letters of the items that are in the data."""
    by = Counter(one.source for one in sources.values())
    sentences = []
    if by["grade"]:
        judge = grading.settings["grading"]["judge"]["name"]
        sentences.append(
            f"The judge `{judge}` gave the letters of {by['grade']:,} items by the rubric `{grading.rubric}`."
        )
    if by["label"]:
        raters = sorted(
            {f"{label.rater} ({label.rater_kind})" for one in sources.values() for label in one.labels}
        )
        sentences.append(
            f"Labels gave those of {by['label']:,} items: {', '.join(raters)}. People count before models, then the majority, "
            "then the lower letter."
        )
    models = sorted({label.rater for label in asked.labels if label.rater_kind == "model"})
    if models:
        sentences.append(
            f"Labels by models ({', '.join(models)}) count where no person gave one: --model-labels was asked for."
            if asked.filters.model_labels
            else f"Labels by models ({', '.join(models)}) decided nothing: --model-labels was not asked for."
        )
    return " ".join(sentences)


def _remarks(parts: Mapping[str, Sequence[Example]], moved: int, by: By) -> list[str]:
    remarks = [f"{split}.jsonl is left out: no row fell into it." for split, own in parts.items() if not own]
    if moved:
        remarks.append(
            f"{moved:,} {by}s were moved to an earlier split, because they share a question or a text with a {by} there."
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


def _file_names(made: Mapping[str, object]) -> list[tuple[str, str]]:
    """Name a file for each candidate, so that no two get the same one, on disks that tell no case apart either."""
    names: list[tuple[str, str]] = []
    taken: set[str] = set()
    for one in made:
        plain = _UNSAFE.sub("-", one)
        free = (f"{number}-{plain}" if number > 1 else plain for number in count(1))
        name = next(name for name in free if name.casefold() not in taken)
        taken.add(name.casefold())
        names.append((one, f"{name}.jsonl"))
    return names


def _who(filters: Filters) -> str:
    return ", ".join(filters.candidates) or "the run"
