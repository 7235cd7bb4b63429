"""The data files of an export, and the facts for its card."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Literal

from qaeval.agreement.label_files import DRAW
from qaeval.errors import DataError
from qaeval.evals.definition import recorded_prompt
from qaeval.export.card import Counts, ExportFile
from qaeval.export.dedup import deduplicate
from qaeval.export.licences import SourceModel, check_licences
from qaeval.export.select import (
    Filters,
    GradedItem,
    Grading,
    Selection,
    can_be_rejected,
    failed_replies,
    graded_items,
    select,
)
from qaeval.export.sheets import label_sheet, next_sheet, precomputed_rows
from qaeval.export.split import SPLITS, SplitUnit, assign
from qaeval.export.tables import as_csv, as_parquet, table_rows
from qaeval.export.training import Example, dpo_examples, sft_examples
from qaeval.records import Label
from qaeval.storage.run_directory import RunStore
from qaeval.storage.runs import way_on

_UNSAFE_CHARS: Final = re.compile(r"[^A-Za-z0-9_-]+")
"""Characters that are replaced in file names."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """Data files and the facts about them for the card."""

    files: tuple[ExportFile, ...]
    tables: Mapping[str, Counts] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Excluded rows by reason, including reasons with zero rows."""
    letters: str
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Rows by split; for tables and sheets, by file."""
        return {file.name.removesuffix(".jsonl"): file.rows for file in self.files if file.name != DRAW}


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of training data."""

    labels: Sequence[Label]
    filters: Filters
    accept: Iterable[str]
    """Models or licences whose terms the user has accepted."""
    shares: tuple[float, float, float]
    seed: int
    by: SplitUnit


def sft_content(store: RunStore, options: TrainingOptions, *, with_context: bool | None) -> Content:
    """Return conversations from the items that pass the filters.

    Args:
        store: A graded run.
        options: Options of training data.
        with_context: Put the chunk before the question; None: only in evals of kind answer.
    """
    grading = Grading.of(store)
    if with_context is None:
        # an answer from a chunk, and a refusal in particular, makes no sense without the chunk
        with_context = grading.settings["eval"].get("item_kind") == "answer"
    items = graded_items(store, options.labels, model_labels=options.filters.model_labels)
    selected = select(items, options.filters, grading)
    _require_items(store, items, selected)
    examples = sft_examples(selected.items, with_context=with_context)
    dropped = {step.name: step.dropped for step in selected.steps}
    return _training(store, examples, dropped, grading, options)


def dpo_content(store: RunStore, options: TrainingOptions, *, per_sample: int) -> Content:
    """Return preference pairs; items that pass the filters are the chosen ones."""
    grading, filters = Grading.of(store), options.filters
    items = graded_items(store, options.labels, model_labels=filters.model_labels)
    selected = select(items, filters, grading)
    _require_items(store, items, selected)
    best = grading.scale[0]
    passed = {item.item.item_id for item in selected.items}
    examples = dpo_examples(
        (item for item in items if can_be_rejected(item, filters)),
        best=best,
        scale=grading.scale,
        prompt=lambda candidate: recorded_prompt(grading.settings, candidate),
        chosen=lambda item: item.item.item_id in passed,
        per_sample=per_sample,
    )
    if not examples:
        raise DataError(
            f"{store.path}: no pairs: {len(selected.items)} items passed the filters, but none has the "
            f"best letter {best} and a counterpart of the same sample and type with a worse letter; relax "
            "the filters, or compare more candidates"
        )
    dropped = {f"{step.name} (of the chosen)": step.dropped for step in selected.steps}
    return _training(store, examples, dropped, grading, options)


def table_content(
    store: RunStore, labels: Sequence[Label], filters: Filters, to: Literal["csv", "parquet"]
) -> Content:
    """Return the table of all items."""
    rows = table_rows(store, labels, candidates=filters.candidates)
    if not rows:
        raise DataError(f"{store.path}: the run has no replies; {way_on(store.path)} completes it")
    data = as_csv(rows) if to == "csv" else as_parquet(rows)
    grading = Grading.of(store)
    judge = grading.settings["grading"]["judge"]["name"]
    return Content(
        files=(ExportFile(f"items.{to}", data, len(rows), "train"),),
        letters=f"`letter`, `flags`, `flaw`, `reason`, `facts` and `probability` are from the judge `{judge}`.",
    )


def sheet_content(
    store: RunStore,
    labels: Sequence[Label],
    filters: Filters,
    *,
    n: int | None,
    seed: int,
    precomputed: bool,
    next_: bool = False,
    spreadsheet: str = "",
) -> Content:
    """Return a sheet for labels, or the letters in the format of Inspect's precomputed scores."""
    grading = Grading.of(store)
    if precomputed:
        records = precomputed_rows(store, labels, candidates=filters.candidates)
        files = tuple(
            ExportFile(name, as_jsonl(records[item]), len(records[item]))
            for item, name in _file_names(records)
        )
        letters = (
            "Values range from 0 (lowest letter) to 1 (best letter); the mean over the items of a reply, in which a lost "
            "item counts 0."
        )
    else:
        items = graded_items(store, [])
        selected = [item for item in items if not filters.candidates or item.candidate in filters.candidates]
        sheet = (
            next_sheet(selected, grading, labels, n=n, seed=seed)
            if next_
            else label_sheet(selected, grading, n=n, seed=seed)
        )
        draw = sheet.draw.model_dump_json().encode() + b"\n"
        data = {"labels.jsonl": as_jsonl(sheet.rows), "labels.csv": sheet.as_csv(spreadsheet), DRAW: draw}
        files = tuple(
            ExportFile(name, content, len(sheet.rows)) for name, content in data.items() if sheet.rows
        )
        letters = (
            f"To be filled in. The scale is {'/'.join(grading.scale)}, of the rubric `{grading.rubric}`."
        )
    if not files:
        names = _candidate_names(filters)
        raise DataError(f"{store.path}: no item of {names} has a letter; run `qaeval grade` first")
    return Content(files=files, letters=letters)


def as_jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Write rows as JSON lines in UTF-8."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _training(
    store: RunStore,
    examples: Sequence[Example],
    dropped: Mapping[str, int],
    grading: Grading,
    options: TrainingOptions,
) -> Content:
    """Drop duplicates, check licences, split and count."""
    order = sorted(range(len(examples)), key=lambda index: _preference(examples[index], grading))
    unique = deduplicate([example.text for example in examples], order)
    unique_examples = [examples[index] for index in unique.indices]
    sources = {item.item.item_id: item for example in unique_examples for item in example.items}
    notes = check_licences(
        [*_authors(unique_examples, grading), *_raters(sources.values(), grading)], options.accept
    )
    assigned = assign(
        [example.split_key for example in unique_examples],
        shares=options.shares,
        seed=options.seed,
        by=options.by,
    )
    parts = {
        split: [item for item, part in zip(unique_examples, assigned.splits, strict=True) if part == split]
        for split in SPLITS
    }
    files = [
        ExportFile(f"{split}.jsonl", as_jsonl(example.row for example in part), len(part), split)
        for split, part in parts.items()
        if part
    ]
    return Content(
        files=tuple(files),
        tables={
            "letter": _count_by(parts, lambda item: item.letter, grading.scale),
            "candidate": _count_by(
                parts, lambda item: item.items[0].candidate, grading.settings["candidates"]
            ),
        },
        dropped={
            **dropped,
            "exact duplicates": unique.exact,
            "near duplicates": unique.near,
            "replies without items": failed_replies(store),
        },
        letters=_letters_note(sources, grading, options),
        notes=(*notes, *_split_notes(parts, assigned.n_moved, options.by)),
    )


def _preference(example: Example, grading: Grading) -> tuple[int, bool]:
    """Return the sort key among duplicates: the better letter first, then labels before grades."""
    return grading.scale.index(example.letter), example.items[0].source != "label"


def _count_by(
    parts: Mapping[str, Sequence[Example]], key: Callable[[Example], str], order: Iterable[str]
) -> dict[str, dict[str, int]]:
    counts = {split: Counter(map(key, part)) for split, part in parts.items()}
    names = [name for name in order if any(name in part for part in counts.values())]
    return {split: {name: part[name] for name in names} for split, part in counts.items()}


def _authors(examples: Iterable[Example], grading: Grading) -> list[SourceModel]:
    names = {item.candidate for example in examples for item in example.items}
    return [
        SourceModel.of(name, settings)
        for name, settings in grading.settings["candidates"].items()
        if name in names
    ]


def _raters(items: Iterable[GradedItem], grading: Grading) -> list[SourceModel]:
    """Return the models that gave letters: the judge, and models with counted labels."""
    judge, candidates = grading.settings["grading"]["judge"], grading.settings["candidates"]
    settings = {**candidates, judge["name"]: judge}
    names = dict.fromkeys(
        name
        for item in items
        for name in (
            [judge["name"]]
            if item.source == "grade"
            else [label.rater for label in item.labels if label.rater_kind == "model"]
        )
    )
    return [
        SourceModel.of(name, settings[name]) if name in settings else SourceModel.of_rater(name)
        for name in names
    ]


def _letters_note(sources: Mapping[str, GradedItem], grading: Grading, options: TrainingOptions) -> str:
    """Return who gave the letters of the exported items."""
    n_by_source = Counter(item.source for item in sources.values())
    messages = []
    if n_by_source["grade"]:
        judge = grading.settings["grading"]["judge"]["name"]
        messages.append(
            f"The judge `{judge}` graded {n_by_source['grade']:,} items with the rubric `{grading.rubric}`."
        )
    if n_by_source["label"]:
        raters = sorted(
            {f"{label.rater} ({label.rater_kind})" for item in sources.values() for label in item.labels}
        )
        messages.append(
            f"The letters of {n_by_source['label']:,} items are labels of {', '.join(raters)}. Labels by "
            "people take precedence over those by models; among them the majority decides, and in a tie "
            "the lower letter."
        )
    models = sorted({label.rater for label in options.labels if label.rater_kind == "model"})
    if models:
        messages.append(
            f"Labels by models ({', '.join(models)}) count for items without a label by a person "
            "(--model-labels)."
            if options.filters.model_labels
            else f"Labels by models ({', '.join(models)}) were not used (without --model-labels)."
        )
    return " ".join(messages)


def _split_notes(parts: Mapping[str, Sequence[Example]], n_moved: int, unit: SplitUnit) -> list[str]:
    notes = [
        f"{split}.jsonl is missing: the split has no rows."
        for split, examples in parts.items()
        if not examples
    ]
    if n_moved:
        notes.append(
            f"{n_moved:,} {unit}s were moved to an earlier split: they share a question or text with a "
            f"{unit} there."
        )
    return notes


def _require_items(store: RunStore, items: Sequence[GradedItem], selected: Selection) -> None:
    if not items:
        raise DataError(f"{store.path}: the run has no items: every generation failed")
    n_before = len(items)
    for step in selected.steps:
        if not step.n_left:
            raise DataError(
                f"{store.path}: nothing to export: none of {n_before} items passed the filter "
                f"{step.name!r}; relax it"
            )
        n_before = step.n_left


def _file_names(candidates: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return a file name for each candidate, unique even on case-insensitive file systems."""
    names: list[tuple[str, str]] = []
    taken: set[str] = set()
    for candidate in candidates:
        safe_name = _UNSAFE_CHARS.sub("-", candidate)
        free_names = (f"{number}-{safe_name}" if number > 1 else safe_name for number in count(1))
        name = next(name for name in free_names if name.casefold() not in taken)
        taken.add(name.casefold())
        names.append((candidate, f"{name}.jsonl"))
    return names


def _candidate_names(filters: Filters) -> str:
    return ", ".join(filters.candidates) or "the run"
