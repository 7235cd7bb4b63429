"""The data files of an export, and the facts for its card."""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import compress, count, groupby
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from qaeval.agreement.label_files import DRAW
from qaeval.errors import DataError
from qaeval.evals.definition import recorded_prompt
from qaeval.export.card import Counts
from qaeval.export.dedup import deduplicate
from qaeval.export.licences import SourceModel, check_licences
from qaeval.export.select import (
    Filters,
    GradedItems,
    Grading,
    Selection,
    Source,
    can_be_rejected,
)
from qaeval.export.sheets import label_sheet, next_sheet, precomputed_rows
from qaeval.export.split import SPLITS, SplitKey, SplitUnit, assign
from qaeval.export.tables import table_columns, table_rows, write_csv, write_parquet
from qaeval.export.training import Example, dpo_examples, sft_examples
from qaeval.records import Label, record_number
from qaeval.storage.run_directory import RunStore
from qaeval.storage.runs import way_on

_JUDGE: Final = ("", "")
"""In place of name and kind of a rater."""
_UNSAFE_CHARS: Final = re.compile(r"[^A-Za-z0-9_-]+")
"""Characters that are replaced in file names."""


class DataFile(NamedTuple):
    """A file that was written."""

    name: str
    rows: int
    split: str = ""
    """As in `ExportFile`."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What an export writes, and the facts about it for the card."""

    write: Callable[[Path], Iterable[DataFile]]
    """Writes the data files to a folder. Texts are read again from the run, row by row."""
    tables: Mapping[str, Counts] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Excluded rows by reason, including reasons with zero rows."""
    letters: str
    notes: tuple[str, ...] = ()


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
    grading, filters = Grading.of(store), options.filters
    if with_context is None:
        # an answer from a chunk, and a refusal in particular, makes no sense without the chunk
        with_context = grading.settings["eval"].get("item_kind") == "answer"
    items = GradedItems(store, options.labels, model_labels=filters.model_labels)
    selection = Selection(filters)

    def examples() -> Iterator[Example]:
        selection.reset()
        return sft_examples(filter(selection.passes, items), with_context=with_context)

    return _training(store, items, examples, selection, options)


def dpo_content(store: RunStore, options: TrainingOptions, *, per_sample: int) -> Content:
    """Return preference pairs; items that pass the filters are the chosen ones."""
    grading, filters = Grading.of(store), options.filters
    items = GradedItems(store, options.labels, model_labels=filters.model_labels)
    selection, best = Selection(filters), grading.scale[0]

    def examples() -> Iterator[Example]:
        selection.reset()
        for _, of_sample in groupby(items, key=lambda item: item.sample.sample_id):
            sample_items = list(of_sample)
            passed = {item.item.item_id for item in sample_items if selection.passes(item)}
            yield from dpo_examples(
                (item for item in sample_items if can_be_rejected(item, filters)),
                best=best,
                scale=grading.scale,
                prompt=lambda candidate: recorded_prompt(grading.settings, candidate),
                chosen=lambda item, passed=passed: item.item.item_id in passed,  # type: ignore[misc]
                per_sample=per_sample,
            )

    return _training(store, items, examples, selection, options, of=" (of the chosen)")


def table_content(
    store: RunStore, labels: Sequence[Label], filters: Filters, to: Literal["csv", "parquet"]
) -> Content:
    """Return the table of all items."""
    if not any(True for _ in store.sample_ids()):
        raise DataError(f"{store.path}: the run has no replies; {way_on(store.path)} completes it")
    columns, rows = table_columns(store), table_rows(store, labels, candidates=filters.candidates)

    def write(folder: Path) -> Iterable[DataFile]:
        with (folder / f"items.{to}").open("wb") as file:
            n_rows = (write_csv if to == "csv" else write_parquet)(rows, columns, file)
        return [DataFile(f"items.{to}", n_rows, "train")]

    judge = Grading.of(store).settings["grading"]["judge"]["name"]
    return Content(
        write=write,
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
    """Return a sheet for labels, or the letters in the format of Inspect's precomputed scores; the rows of both are held."""
    grading = Grading.of(store)
    data: dict[str, tuple[bytes, int]] = {}
    if precomputed:
        records = precomputed_rows(store, labels, candidates=filters.candidates)
        data = {name: (as_jsonl(records[item]), len(records[item])) for item, name in _file_names(records)}
        letters = (
            "Values range from 0 (lowest letter) to 1 (best letter); the mean over the items of a reply, in which a lost "
            "item counts 0."
        )
    else:
        selected = GradedItems(store, candidates=filters.candidates)
        sheet = (
            next_sheet(selected, grading, labels, n=n, seed=seed)
            if next_
            else label_sheet(selected, grading, n=n, seed=seed)
        )
        if sheet.rows:
            n_rows, draw = len(sheet.rows), sheet.draw.model_dump_json().encode() + b"\n"
            data = {
                "labels.jsonl": (as_jsonl(sheet.rows), n_rows),
                "labels.csv": (sheet.as_csv(spreadsheet), n_rows),
                DRAW: (draw, n_rows),
            }
        letters = (
            f"To be filled in. The scale is {'/'.join(grading.scale)}, of the rubric `{grading.rubric}`."
        )
    if not data:
        names = _candidate_names(filters)
        raise DataError(f"{store.path}: no item of {names} has a letter; run `qaeval grade` first")

    def write(folder: Path) -> Iterable[DataFile]:
        for name, (content, _) in data.items():
            (folder / name).write_bytes(content)
        return [DataFile(name, n_rows) for name, (_, n_rows) in data.items()]

    return Content(write=write, letters=letters)


def as_jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Write rows as JSON lines in UTF-8."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _training(
    store: RunStore,
    items: GradedItems,
    examples: Callable[[], Iterator[Example]],
    selection: Selection,
    options: TrainingOptions,
    *,
    of: str = "",
) -> Content:
    """Drop duplicates, check licences, split and count.

    The run is read three times: for what decides about duplicates, for what decides about split and card, and to write the rows.
    """
    grading = Grading.of(store)
    unique = deduplicate(replace(example.text, rank=_rank(example, grading)) for example in examples())
    _require_examples(store, selection, grading, n_examples=unique.n)
    kept = np.zeros(unique.n, dtype=bool)
    kept[list(unique.indices)] = True
    facts = _Facts()
    assigned = assign(
        map(facts.add, compress(examples(), kept)), shares=options.shares, seed=options.seed, by=options.by
    )
    notes = check_licences([*facts.authors(grading), *facts.raters(grading)], options.accept)
    n_rows = Counter(assigned.splits)

    def write(folder: Path) -> Iterable[DataFile]:
        with ExitStack() as stack:
            files = {
                split: stack.enter_context((folder / f"{split}.jsonl").open("wb"))
                for split in SPLITS
                if n_rows[split]
            }
            for example, split in zip(compress(examples(), kept), assigned.splits, strict=True):
                files[split].write(as_jsonl([example.row]))
        return [DataFile(f"{split}.jsonl", n_rows[split], split) for split in files]

    return Content(
        write=write,
        tables={
            "letter": _count_by(facts.letters, assigned.splits, grading.scale),
            "candidate": _count_by(facts.candidates, assigned.splits, grading.settings["candidates"]),
        },
        dropped={
            **{f"{name}{of}": n for name, n in selection.dropped.items()},
            "exact duplicates": unique.exact,
            "near duplicates": unique.near,
            "replies without items": items.replies.n_failed,
        },
        letters=facts.letters_note(grading, options),
        notes=(*notes, *_split_notes(n_rows, assigned.n_moved, options.by)),
    )


def _rank(example: Example, grading: Grading) -> int:
    """Return the rank among duplicates: the better letter first, then labels before grades."""
    return 2 * grading.scale.index(example.letter) + (example.items[0].source != "label")


def _count_by(
    values: Iterable[str], splits: Iterable[str], order: Iterable[str]
) -> dict[str, dict[str, int]]:
    counts = Counter(zip(splits, values, strict=True))
    names = [name for name in order if any(counts[split, name] for split in SPLITS)]
    return {split: {name: counts[split, name] for name in names} for split in SPLITS}


class _Facts:
    """What the card says of the examples: who wrote their items, and who gave the letters.

    Attributes:
        letters: Letter of each example.
        candidates: Candidate of each example; of a pair that of the chosen item.
    """

    def __init__(self) -> None:
        self.letters: list[str] = []
        self.candidates: list[str] = []
        self._names: set[str] = set()
        self._n_by_source: Counter[Source] = Counter()
        self._raters: dict[tuple[str, str], None] = {}
        self._seen: set[int] = set()

    def add(self, example: Example) -> SplitKey:
        """Add an example, and return what its split depends on."""
        self.letters.append(sys.intern(example.letter))
        self.candidates.append(sys.intern(example.items[0].candidate))
        for item in example.items:
            self._names.add(item.candidate)
            number = record_number(item.item_id)
            if number not in self._seen:
                self._seen.add(number)
                self._n_by_source[item.source] += 1
                raters = [(label.rater, label.rater_kind) for label in item.labels]
                self._raters.update(dict.fromkeys(raters if item.source == "label" else [_JUDGE]))
        return example.split_key

    def authors(self, grading: Grading) -> list[SourceModel]:
        """Return the candidates that wrote the items."""
        candidates = grading.settings["candidates"].items()
        return [SourceModel.of(name, settings) for name, settings in candidates if name in self._names]

    def raters(self, grading: Grading) -> list[SourceModel]:
        """Return the models that gave letters: the judge, and models with counted labels."""
        judge, candidates = grading.settings["grading"]["judge"], grading.settings["candidates"]
        settings = {**candidates, judge["name"]: judge}
        names = dict.fromkeys(name or judge["name"] for name, kind in self._raters if kind != "human")
        return [
            SourceModel.of(name, settings[name]) if name in settings else SourceModel.of_rater(name)
            for name in names
        ]

    def letters_note(self, grading: Grading, options: TrainingOptions) -> str:
        """Return who gave the letters of the exported items."""
        n_by_source = self._n_by_source
        messages = []
        if n_by_source["grade"]:
            judge = grading.settings["grading"]["judge"]["name"]
            messages.append(
                f"The judge `{judge}` graded {n_by_source['grade']:,} items with the rubric `{grading.rubric}`."
            )
        if n_by_source["label"]:
            raters = sorted(f"{name} ({kind})" for name, kind in self._raters if name)
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


def _split_notes(n_rows: Mapping[str, int], n_moved: int, unit: SplitUnit) -> list[str]:
    notes = [f"{split}.jsonl is missing: the split has no rows." for split in SPLITS if not n_rows[split]]
    if n_moved:
        notes.append(
            f"{n_moved:,} {unit}s were moved to an earlier split: they share a question or text with a "
            f"{unit} there."
        )
    return notes


def _require_examples(store: RunStore, selection: Selection, grading: Grading, *, n_examples: int) -> None:
    if not selection.n_items:
        raise DataError(f"{store.path}: the run has no items: every generation failed")
    n_left = selection.n_items
    for name, dropped in selection.dropped.items():
        if n_left == dropped:
            raise DataError(
                f"{store.path}: nothing to export: none of {n_left} items passed the filter {name!r}; relax it"
            )
        n_left -= dropped
    if not n_examples:
        raise DataError(
            f"{store.path}: no pairs: {selection.n_passed} items passed the filters, but none has the "
            f"best letter {grading.scale[0]} and a counterpart of the same sample and type with a worse letter; relax "
            "the filters, or compare more candidates"
        )


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
