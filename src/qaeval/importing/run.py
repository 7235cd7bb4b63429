"""A run of items that were made elsewhere: rows are grouped by candidate and sample, and written as a run's files.

Rows are read once and put aside in a file, so that 100,000 items take the memory of their ids and of the chunks.
Everything is written into a folder beside the run directory, which becomes the run directory by a rename.
"""

import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Final, Literal, Self, TypeAlias

import numpy as np
import orjson
import pandas as pd

from qaeval.chat.reply import ReplyError
from qaeval.checks.check import run_checks
from qaeval.checks.registry import CHECKS
from qaeval.corpus.sampling import sample_set_digest
from qaeval.environment import now
from qaeval.errors import DataError, NotComparableError, UsageError
from qaeval.evals.definition import EvalDefinition
from qaeval.evals.rubric import Rubric
from qaeval.files.rows import EachRow, explained
from qaeval.files.whole import whole_folder
from qaeval.files.yaml import validated
from qaeval.importing.entries import Entry, EntryReader, Slot, letters_of
from qaeval.importing.formats.rows import HarnessRow, Score
from qaeval.importing.reading import read_source
from qaeval.importing.sources import KnownSamples, SampleFinder
from qaeval.records import (
    REJECTED,
    Chunk,
    Failure,
    FailureReason,
    GenerateRow,
    Generation,
    Grade,
    GradeRow,
    Item,
    Label,
    LostItem,
    Record,
    Sample,
    record_id,
)
from qaeval.report.numbers import plural
from qaeval.run import generate, grade
from qaeval.run.items import read_items, refuse_placeholder
from qaeval.storage.run_directory import (
    COMMAND,
    GENERATIONS,
    GRADES,
    SAMPLES,
    SETTINGS,
    RunStore,
    further_files,
)

Source: TypeAlias = Path | pd.DataFrame

FORMAT: Final = 1
LABELS: Final = "labels"
"""Folder of a run directory with the label files that came with its items."""
KIND: Final = "imported"
"""Kind of a candidate or judge whose items or letters were made elsewhere."""

_ITEM, _REPLY, _ERROR = range(3)
_MAX_SHOWN: Final = 3
_MAX_ITEMS: Final = 50
_NAME_CHARS: Final = 100


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What is imported, and how it is read.

    Attributes:
        sources: Files or tables of items, all of one kind.
        definition: The eval.
        rubric: Rubric of the letters; also says whether an item needs its chunk.
        rubric_name: Name or path of the rubric, where it is not the eval's.
        known: Reads the chunks that rows refer to by id.
        chunks_given: Whether the user names these chunks.
        candidates: Name of each source's candidate; empty: from a column, else the name of the file.
        candidate_field: Column of the candidate.
        fields: Column by field name.
        grade_fields: Column of letters by judge; the first judge decides, the others are further judges.
        label_fields: Column of letters by rater.
        common: Whether to keep the samples that all candidates have.
        join: A run whose candidates the imported ones join.
        model_facts: Description of a registered model by candidate name.
    """

    sources: Sequence[Source]
    definition: EvalDefinition
    rubric: Rubric
    rubric_name: str | None
    known: Callable[[], KnownSamples]
    chunks_given: bool
    candidates: Sequence[str] = ()
    candidate_field: str | None = None
    fields: Mapping[str, str]
    grade_fields: Mapping[str, str]
    label_fields: Mapping[str, str]
    common: bool = False
    join: RunStore | None = None
    model_facts: Callable[[str], Mapping[str, Any]]


def import_run(request: ImportRequest, out: Path, command: str) -> Path:
    """Make a run of items, whole or not at all.

    Args:
        request: What is imported.
        out: Run directory.
        command: Kept in the run, whose report shows it.

    Returns:
        The run directory.

    Raises:
        UsageError: ``out`` holds files, or names of candidates or raters are not usable.
        DataError: a file or row is not valid; the message has file and line.
        NotComparableError: the candidates answer different samples, and ``request.common`` is off.
        StoreError: ``out`` cannot be written.
    """
    if (out / SETTINGS).is_file():
        raise UsageError(f"{out}: already holds a run; choose another --out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: exists and is not empty; choose another --out")
    with whole_folder(out) as folder:
        with _Spill(folder / "rows") as spill:
            grouped = _read(request, spill)
            _write(request, grouped, spill, folder)
        (folder / "rows").unlink()
        (folder / COMMAND).write_text(f"{command}\n", encoding="utf-8")
    return out


# ---------------------------------------------------------------- reading


class _Spill:
    """Rows that are put aside in a file and read back by their offset; a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with explained(path, "opening"):
            self._file: IO[bytes] = path.open("wb+")
        self._end = 0
        self._writing = True

    def put(self, value: object, where: str) -> int:
        """Write a value; return its offset.

        Raises:
            DataError: a text holds half a character.
        """
        try:
            line = orjson.dumps(value) + b"\n"
        except TypeError as error:
            raise DataError(
                f"{where}: a text holds half a character (a lone surrogate); export it again as valid UTF-8"
            ) from error
        offset = self._end
        with explained(self._path, "writing"):
            self._end += self._file.write(line)
        return offset

    def get(self, offset: int) -> Any:  # noqa: ANN401 - what was written
        """Read a value back."""
        self._file.seek(offset)
        line = self._file.readline()
        self._file.seek(self._end)
        return orjson.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@dataclass
class _Grouped:
    """What was read: the rows by candidate and sample, as offsets of the file that holds them."""

    candidates: dict[str, int] = field(default_factory=dict)
    """Position by name."""
    samples: dict[str, int] = field(default_factory=dict)
    """Position by sample id."""
    sample_offsets: "array[int]" = field(default_factory=lambda: array("q"))
    sample_keys: list[tuple[str, str, str]] = field(default_factory=list)
    """Document, chunk and sample id: the order of a sample set."""
    is_placed: "array[int]" = field(default_factory=lambda: array("b"))
    candidate_of: "array[int]" = field(default_factory=lambda: array("i"))
    sample_of: "array[int]" = field(default_factory=lambda: array("i"))
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    kinds: "array[int]" = field(default_factory=lambda: array("b"))
    n_slots: "array[int]" = field(default_factory=lambda: array("i"))
    files: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    """Hashes of what candidates were asked in files of other harnesses, whose epochs and repetitions ask again."""
    words: dict[str, str] = field(default_factory=dict)
    """By rater of another harness: the first of its letters that is not one of the rubric's; empty where all are."""


def _read(request: ImportRequest, spill: _Spill) -> _Grouped:
    if not request.sources:
        raise UsageError("no file to import")
    columns = [*request.label_fields.values(), *request.grade_fields.values()]
    reader = EntryReader(
        request.definition.item_kind,
        eval_name=request.definition.name,
        rubric=request.rubric,
        fields=request.fields,
        letter_columns=columns,
        candidate_field=request.candidate_field,
        chunks_given=request.chunks_given,
    )
    finder = SampleFinder(
        request.definition.item_kind,
        request.known,
        is_given=request.chunks_given,
        put=lambda chunk, where: spill.put(chunk.model_dump(), where),
        get=lambda offset: Chunk.model_validate(spill.get(offset)),
    )
    grouped = _Grouped()
    letters = letters_of(request.rubric)
    names = _source_names(request)
    no_source: list[str] = []
    stems: dict[str, Source] = {}
    n_rows = 0
    for source, name in zip(request.sources, names, strict=True):
        before = n_rows
        seen: dict[str, None] = {}
        repeats: list[str] = []
        for row in read_source(source):
            n_rows += 1
            entry = reader.read(row)
            _note_scores(grouped, entry, letters)
            seen |= dict.fromkeys(reader.columns_of(row))
            resolved = finder.resolve(entry)
            if isinstance(row[1], HarnessRow) and _is_repeat(grouped, entry, resolved.sample, source):
                repeats.append(entry.where)
                continue
            if request.rubric.needs_source and not resolved.sample.chunk.text:
                no_source.append(entry.where)
                entry = _without_source(entry)
            candidate = _candidate_of(request, entry, source, name, stems)
            _add(
                grouped,
                entry,
                resolved.sample,
                is_placed=resolved.is_placed,
                candidate=candidate,
                spill=spill,
            )
        source_name = "the table" if isinstance(source, pd.DataFrame) else str(source)
        if n_rows == before:
            raise DataError(f"{source_name}: no rows; expected items, one a line")
        reader.require_columns(seen, source_name)
        if repeats:
            grouped.notes.append(
                f"{source_name}: {len(repeats):,} further answers of a candidate to the same question and context are left out, "
                f"the first in {repeats[0]}"
            )
        grouped.files.append(
            {"name": "table" if isinstance(source, pd.DataFrame) else source.name, "rows": n_rows - before}
        )
    if len(no_source) == len(grouped.offsets):
        raise DataError(
            f"{no_source[0]}: no row has its chunk: expected a column with the text (text, chunk, context), or a chunk_id of "
            f"--chunks FILE. Rubric {request.rubric.name} grades against the chunk; one with `needs_source: false` (--rubric) does not"
        )
    if no_source:
        grouped.notes.append(
            f"{plural(len(no_source), 'row has', 'rows have')} no chunk, the first in {no_source[0]}; the "
            f"{'item counts' if len(no_source) == 1 else 'items count'} as failed: no_source"
        )
    return grouped


def _candidate_of(
    request: ImportRequest, entry: Entry, source: Source, name: str, stems: dict[str, Source]
) -> str:
    """Return the candidate of an entry, from a column or the name of its source."""
    if not entry.candidate and request.candidate_field:
        raise DataError(
            f"{entry.where}: no candidate in column {request.candidate_field!r}; fill it in every row"
        )
    if not entry.candidate and not request.candidates:
        _require_own_name(stems, name, source)
    return name if request.candidates else entry.candidate or name


def _is_repeat(grouped: _Grouped, entry: Entry, sample: Sample, source: Source) -> bool:
    """Return whether a harness's file has an earlier answer of the candidate to the question about the context."""
    questions = (slot.question for slot in entry.slots)
    key = record_id("" if entry.candidate else str(source), entry.candidate, sample.sample_id, *questions)
    is_repeat = key in grouped.asked
    grouped.asked.add(key)
    return is_repeat


def _note_scores(grouped: _Grouped, entry: Entry, letters: Mapping[str, str]) -> None:
    """Note what raters of other harnesses call their letters; a rater with any other one has another scale.

    Raises:
        DataError: a rater's name cannot be that of a file.
    """
    for rater, (letter, _) in entry.scores.items():
        if rater not in grouped.words:
            _require_name(rater, "rater", entry.where, grouped.words)
        if not grouped.words.setdefault(rater, "") and letter.casefold() not in letters:
            grouped.words[rater] = letter


def _without_source(entry: Entry) -> Entry:
    """Make every item of an entry a failure: it cannot be graded without its chunk."""
    detail = f"{entry.where}: chunk {entry.chunk_id!r} is not known" if entry.chunk_id else "no chunk"
    entry.slots = [
        slot
        if slot.reason
        else Slot(position=slot.position, reason="no_source", detail=detail, question=slot.question)
        for slot in entry.slots
    ]
    if entry.reply and not entry.slots:
        entry.error, entry.reason, entry.reply = detail, "no_source", ""
    return entry


def _source_names(request: ImportRequest) -> list[str]:
    """Return the candidate of each source, for rows that name none."""
    sources, given = request.sources, request.candidates
    paths = [source.resolve() for source in sources if isinstance(source, Path)]
    if duplicates := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise UsageError(f"{duplicates[0]} is named twice; name each file once")
    if given and request.candidate_field:
        raise UsageError("--candidate and --candidate-field exclude each other")
    if len(given) == 1:
        return [given[0]] * len(sources)
    if given and len(given) != len(sources):
        raise UsageError(
            f"{len(given)} candidates for {len(sources)} files; pass --candidate once, or once for each file"
        )
    if given:
        return list(given)
    return ["imported" if isinstance(source, pd.DataFrame) else source.stem for source in sources]


def _require_own_name(stems: dict[str, Source], name: str, source: Source) -> None:
    """Refuse two files of one name, which would become one candidate."""
    first = stems.setdefault(name, source)
    if first is not source:
        raise UsageError(
            f"{first} and {source} have the same name, which names their candidates; name them with --candidate, once "
            "for each file in their order"
        )


def _add(
    grouped: _Grouped, entry: Entry, sample: Sample, *, is_placed: bool, candidate: str, spill: _Spill
) -> None:
    if candidate not in grouped.candidates:
        _require_name(candidate, "candidate", entry.where, grouped.candidates)
        grouped.candidates[candidate] = len(grouped.candidates)
    index = grouped.samples.get(sample.sample_id)
    if index is None:
        index = grouped.samples[sample.sample_id] = len(grouped.samples)
        grouped.sample_offsets.append(spill.put(sample.model_dump(), entry.where))
        grouped.sample_keys.append((sample.chunk.document, sample.chunk.chunk_id, sample.sample_id))
        grouped.is_placed.append(is_placed)
    kind = _ITEM if entry.slots else _REPLY if entry.reply else _ERROR
    grouped.candidate_of.append(grouped.candidates[candidate])
    grouped.sample_of.append(index)
    grouped.kinds.append(kind)
    grouped.n_slots.append(len(entry.slots))
    grouped.offsets.append(spill.put(entry, entry.where))


def _require_name(name: str, what: str, where: str, taken: Iterable[str]) -> None:
    """Refuse a name that a report, a file or an option of another command cannot hold.

    Raises:
        DataError: it is empty, too long, has control characters, ``/`` or ``=``, or differs from another one
            in case only.
    """
    if not name.strip() or len(name) > _NAME_CHARS or not name.isprintable() or set(name) & set("/\\="):
        raise DataError(
            f"{where}: {what} {name[:_NAME_CHARS]!r}: expected a name of 1 to {_NAME_CHARS} printable characters without "
            "'/', '\\' and '='"
        )
    for other in taken:
        if other != name and other.casefold() == name.casefold():
            raise DataError(
                f"{where}: {what} {name!r} differs from {other!r} in case only; write one name the same way everywhere"
            )


# ---------------------------------------------------------------- the sample set


@dataclass(frozen=True)
class _Groups:
    """The rows of the samples that are kept, in the order in which they are written."""

    definition: EvalDefinition
    is_kept: "np.ndarray[Any, np.dtype[np.bool_]]"
    """By position of the sample."""
    order: "np.ndarray[Any, np.dtype[np.int64]]"
    """Positions of the rows, by sample in the order of the sample set."""
    n_whole: Mapping[int, int]
    """By candidate: items of a reply that failed as a whole."""
    notes: list[str]


def _group(request: ImportRequest, grouped: _Grouped) -> _Groups:
    """Decide which samples are kept and how many items one has.

    Raises:
        NotComparableError: the candidates answer different samples.
        DataError: a sample has more items than can be.
    """
    notes = [*grouped.notes, *_notes_about_scores(request, grouped)]
    samples, candidates = np.asarray(grouped.sample_of), np.asarray(grouped.candidate_of)
    is_kept = _kept_samples(request, grouped, samples, candidates, notes)
    n = len(grouped.candidates)
    group = samples.astype(np.int64) * n + candidates
    kinds, n_slots = np.asarray(grouped.kinds), np.asarray(grouped.n_slots)
    shape = len(grouped.samples) * n
    slots = np.bincount(group, weights=n_slots, minlength=shape).astype(int)
    errors = np.bincount(group, weights=kinds == _ERROR, minlength=shape).astype(int)
    counts = (slots + np.where((slots > 0) | (errors > 1), errors, 0)).reshape(-1, n)
    has_reply = np.zeros(shape, dtype=bool)
    has_reply[group[kinds == _REPLY]] = True
    replies = has_reply.reshape(-1, n)
    definition = _definition(request, grouped, counts, has_replies=bool(replies.any()), notes=notes)
    n_whole = {}
    for candidate in range(n):
        of_items = counts[counts[:, candidate] > 0, candidate]
        replied = bool(replies[:, candidate].any()) or not len(of_items)
        n_whole[candidate] = (
            definition.items_per_sample if replied else max(1, round(float(np.median(of_items))))
        )
    rank = np.empty(len(grouped.samples), dtype=np.int64)
    rank[sorted(range(len(rank)), key=lambda index: grouped.sample_keys[index])] = np.arange(len(rank))
    order = np.argsort(rank[samples], kind="stable")
    return _Groups(definition, is_kept, order[is_kept[samples[order]]], n_whole, notes)


def _notes_about_scores(request: ImportRequest, grouped: _Grouped) -> list[str]:
    """Say which labels of other harnesses' scorers are compared with the judge's letters."""
    other = {rater: letter for rater, letter in grouped.words.items() if letter}
    same = [rater for rater, letter in grouped.words.items() if not letter]
    notes = []
    if same:
        notes.append(
            f"labels of {', '.join(same)} are letters of {request.rubric.name}: the report compares them, as those of models"
        )
    if other:
        shown = ", ".join(f"{rater} ({letter})" for rater, letter in other.items())
        notes.append(
            f"labels of {shown} have a scale of their own: they are in {LABELS}/, and not compared with letters of "
            f"{request.rubric.name}"
        )
    return notes


def _kept_samples(
    request: ImportRequest,
    grouped: _Grouped,
    samples: "np.ndarray[Any, np.dtype[np.int32]]",
    candidates: "np.ndarray[Any, np.dtype[np.int32]]",
    notes: list[str],
) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    names = list(grouped.candidates)
    has_row = np.zeros((len(grouped.samples), len(names)), dtype=bool)
    has_row[samples, candidates] = True
    placed = np.asarray(grouped.is_placed, dtype=bool)
    is_common = has_row.all(axis=1)
    missing: dict[str, list[str]] = {}
    for column, name in enumerate(names):
        lacking = [grouped.sample_keys[index][1] for index in np.flatnonzero(placed & ~has_row[:, column])]
        missing[name] = lacking
    n_all, of_run = int(placed.sum()), ""
    left_out = int((placed & ~is_common).sum())
    if request.join is not None:
        known = request.known()
        is_known = np.array([sample_id in known.samples for sample_id in grouped.samples], dtype=bool)
        if not placed.all():
            index = int(np.flatnonzero(~placed)[0])
            raise DataError(
                f"{grouped.sample_keys[index][1]}: the row names no chunk; to join {known.name} every row needs the "
                "chunk_id of one of its chunks"
            )
        foreign = [grouped.sample_keys[index][1] for index in np.flatnonzero(~is_known)]
        for column, name in enumerate(names):
            answered = {sample_id for sample_id, index in grouped.samples.items() if has_row[index, column]}
            missing[name] = [
                sample.chunk.chunk_id
                for sample_id, sample in known.samples.items()
                if sample_id not in answered
            ]
        n_all, of_run = len(known.samples), f" of {known.name}"
        is_common &= is_known
        left_out = len(known.samples) - int(is_common.sum()) + len(foreign)
        if foreign:
            missing[known.name] = foreign
    kept = is_common | ~placed
    if any(missing.values()):
        differences = "; ".join(
            f"{name} lacks {len(ids):,} ({_first(ids)})" for name, ids in missing.items() if ids
        )
        if not request.common:
            raise NotComparableError(
                f"the candidates answer different samples: of {n_all:,}{of_run}, {differences}. Add rows with an `error` for "
                "what failed, or pass --common to keep the samples that all have"
            )
        if not is_common.any():
            raise NotComparableError(f"the candidates have no sample in common: {differences}")
        notes.append(f"{left_out:,} samples that not all candidates have are left out: {differences}")
    return np.asarray(kept)


def _first(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_MAX_SHOWN]) + (", …" if len(ids) > _MAX_SHOWN else "")


def _definition(
    request: ImportRequest,
    grouped: _Grouped,
    counts: "np.ndarray[Any, np.dtype[np.int64]]",
    *,
    has_replies: bool,
    notes: list[str],
) -> EvalDefinition:
    """Return the eval, with more items per sample where the files have more."""
    definition = request.definition
    n = definition.items_per_sample
    most = int(counts.max())
    if most <= n or definition.item_kind != "qa_pair":
        if definition.item_kind == "qa_pair" and not has_replies and (counts[counts > 0] < n).any():
            notes.append(
                f"some chunks have fewer items than the {n} that {definition.name} asks for; missing items do not "
                "count as failures"
            )
        return definition
    index = int(counts.max(axis=1).argmax())
    chunk_id = grouped.sample_keys[index][1]
    if request.join is not None or has_replies or most > _MAX_ITEMS:
        limit = n if request.join is not None or has_replies else _MAX_ITEMS
        raise DataError(
            f"chunk {chunk_id!r} has {most} items of one candidate, more than the {limit} that can be of one chunk"
            f"{f' in {definition.name}' if limit == n else ''}; correct the chunk ids, or cut the chunks"
        )
    notes.append(
        f"chunks have up to {most} items, {definition.name} asks for {n}: this run cannot be compared with runs of "
        f"{definition.name} as it is"
    )
    fields = {name: getattr(definition, name) for name in EvalDefinition.model_fields}
    return validated(EvalDefinition, {**fields, "items_per_sample": most}, definition.name)


# ---------------------------------------------------------------- writing


class _Files:
    """The row files of the new run; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, IO[bytes]] = {}

    def write(self, name: str, row: Record) -> None:
        """Append a row to a file."""
        with explained(self._folder / name, "writing"):
            if name not in self._open:
                path = self._folder / name
                path.parent.mkdir(exist_ok=True)
                self._open[name] = path.open("ab")
            self._open[name].write(row.model_dump_json(exclude_none=True).encode() + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name, file in self._open.items():
            with explained(self._folder / name, "writing"):
                file.close()  # `whole_folder` syncs it


def _write(request: ImportRequest, grouped: _Grouped, spill: _Spill, folder: Path) -> None:
    groups = _group(request, grouped)
    names = list(grouped.candidates)
    base = request.join.settings() if request.join is not None else None
    _require_names(request, names, base)
    counts = {name: Counter[str]() for name in names}
    with _Files(folder) as files:
        ratings = _Ratings(request, files, grouped.words)
        if request.join is not None:
            kept = {sample_id for sample_id, index in grouped.samples.items() if groups.is_kept[index]}
            _copy_base(request.join, kept, files, ratings, folder)
        for index, rows in groupby(groups.order.tolist(), key=grouped.sample_of.__getitem__):
            sample = Sample.model_validate(spill.get(grouped.sample_offsets[index]))
            if request.join is None:
                files.write(SAMPLES, sample)
            entries: dict[int, list[Entry]] = {}
            for row in rows:
                entry = _entry(spill.get(grouped.offsets[row]))
                entries.setdefault(grouped.candidate_of[row], []).append(entry)
            for name, candidate in grouped.candidates.items():
                reply = _Reply(
                    name, sample, groups.definition, entries.get(candidate, []), groups.n_whole[candidate]
                )
                generation = ratings.rate(name, sample, *reply.row())
                files.write(GENERATIONS, generation)
                _count(counts[name], generation, groups.definition.items_per_sample)
    samples = RunStore(folder).samples()
    settings = _settings(request, groups, samples, names, base)
    settings["imported"] = _about(request, grouped, groups, counts, base)
    store = RunStore(folder)
    for grading in _gradings(request)[1:]:
        store.write_further_judge(grading)
    store.write_settings(settings)


def _require_names(request: ImportRequest, names: Sequence[str], base: Mapping[str, Any] | None) -> None:
    """Refuse names that the joined run has, and those of judges and raters that no file can have."""
    if base is not None and (taken := sorted(set(names) & set(base["candidates"]))):
        raise UsageError(
            f"{request.known().name} has a candidate {taken[0]!r}; name the imported one with --candidate"
        )
    for what, given in (("rater", request.label_fields), ("judge", request.grade_fields)):
        for number, name in enumerate(given):
            _require_name(name, what, f"{what} {number + 1}", given)
    if request.join is not None and len(request.grade_fields) > 1:
        raise UsageError(f"{request.known().name}: letters of several judges cannot join a run; name one")


def _entry(value: dict[str, Any]) -> Entry:
    return Entry(**{**value, "slots": [Slot(**slot) for slot in value["slots"]]})


def _count(counts: "Counter[str]", row: GenerateRow, n: int) -> None:
    if isinstance(row, Failure):
        counts[row.reason] += n
        return
    counts["valid"] += len(row.items)
    for lost in row.lost or ():
        counts[lost.reason] += 1


@dataclass(frozen=True)
class _Rated:
    """What came with an item: letters by column of the file, and scores by rater of another harness."""

    letters: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, Score] = field(default_factory=dict)


@dataclass(frozen=True)
class _Reply:
    """What a candidate wrote about one sample, from the rows of the files."""

    candidate: str
    sample: Sample
    definition: EvalDefinition
    entries: list[Entry]
    n_whole: int
    """Items of the reply, where it failed as a whole."""

    def row(self) -> tuple[GenerateRow, list[_Rated]]:
        """Return the row of the run, and what came with each of its items.

        Raises:
            DataError: two rows are about the same item.
        """
        if not self.entries:  # a sample that is another candidate's alone, without a chunk
            return self._generation((), ()), []
        first = self.entries[0]
        if any(entry.reply for entry in self.entries) and len(self.entries) > 1:
            raise self._twice(first.where, self.entries[1].where, "a reply")
        if first.reply:
            return self._of_reply(first)
        if len(self.entries) == 1 and not first.slots:
            return self._failure(first.reason, first.error), []
        return self._of_slots()

    def _of_reply(self, entry: Entry) -> tuple[GenerateRow, list[_Rated]]:
        if entry.error:
            return self._failure(entry.reason, entry.error, entry.reply), []
        try:
            items = read_items(entry.reply, self.sample, self.definition, lenient=True)
        except ReplyError as error:
            return self._failure(error.reason, error.detail, entry.reply), []
        if entry.letters and len(items) > 1:
            raise DataError(
                f"{entry.where}: one letter for a reply with {len(items)} items; give the items in a list, each with its "
                "letter"
            )
        return self._generation(items, None, entry.reply), [_Rated(entry.letters) for _ in items]

    def _of_slots(self) -> tuple[GenerateRow, list[_Rated]]:
        slots: list[tuple[str, Slot]] = []
        scores: dict[str, Mapping[str, Score]] = {}
        for entry in self.entries:
            lost = Slot(reason=entry.reason, detail=entry.error)
            slots += [(entry.where, slot) for slot in entry.slots or [lost]]
            scores[entry.where] = entry.scores
        self._require_different(slots)
        slots.sort(key=lambda pair: -1 if pair[1].position is None else pair[1].position)
        raw = next((entry.raw for entry in self.entries if entry.raw), "")
        items, lost_items, rated = [], [], []
        for position, (where, slot) in enumerate(slots):
            if slot.reason is not None:
                lost_items.append(LostItem(position=position, reason=slot.reason, detail=slot.detail))
                continue
            item = self._item(slot, position)
            try:
                refuse_placeholder(item, position + 1, self.definition)
            except ReplyError as error:
                lost_items.append(LostItem(position=position, reason=error.reason, detail=error.detail))
                continue
            items.append(item)
            rated.append(_Rated(slot.letters, scores[where]))
        checked = (
            run_checks(items, self.sample, raw, self.definition.checks, CHECKS)
            if self.definition.checks
            else tuple(items)
        )
        return self._generation(checked, tuple(lost_items), raw), rated

    def _require_different(self, slots: Sequence[tuple[str, Slot]]) -> None:
        if self.definition.item_kind != "qa_pair" and len(slots) > 1:
            raise self._twice(slots[0][0], slots[1][0], "an item")
        positions: dict[int, str] = {}
        texts: dict[tuple[str, str], tuple[str, int | None]] = {}
        for where, slot in slots:
            if slot.position is not None:
                if slot.position in positions:
                    raise self._twice(positions[slot.position], where, f"position {slot.position}")
                positions[slot.position] = where
            if slot.reason is not None:
                continue
            text = (slot.question, slot.answer)
            if text in texts and texts[text][0] != where and slot.position is None:
                raise self._twice(texts[text][0], where, "the same item")
            texts[text] = (where, slot.position)

    def _item(self, slot: Slot, position: int) -> Item:
        if self.definition.item_kind == "qa_pair":
            return Item.of(
                self.sample.sample_id,
                position,
                type=slot.type,
                question=slot.question,
                answer=slot.answer,
            )
        is_pair = self.definition.item_kind == "preference_pair"
        return Item.of(
            self.sample.sample_id,
            position,
            type=self.sample.type,
            question=slot.question if is_pair else self.sample.question,
            answer=slot.answer,
            parts={REJECTED: slot.rejected} if is_pair else None,
        )

    def _generation(
        self, items: tuple[Item, ...], lost: tuple[LostItem, ...] | None, text: str = ""
    ) -> Generation:
        return Generation(
            task_id=generate.task_id(self.candidate, self.sample.sample_id),
            candidate=self.candidate,
            sample_id=self.sample.sample_id,
            items=items,
            lost=lost,
            text=text,
            latency_s=0,
        )

    def _failure(self, reason: FailureReason, detail: str, text: str = "") -> GenerateRow:
        """Return the row of a reply without items: a failure of as many items as the candidate's replies have."""
        if self.n_whole != self.definition.items_per_sample:
            lost = tuple(
                LostItem(position=position, reason=reason, detail=detail, text=text)
                for position in range(self.n_whole)
            )
            return self._generation((), lost, text)
        return Failure(
            task_id=generate.task_id(self.candidate, self.sample.sample_id),
            stage="generate",
            model=self.candidate,
            sample_id=self.sample.sample_id,
            reason=reason,
            detail=detail,
            text=text,
        )

    def _twice(self, first: str, second: str, what: str) -> DataError:
        return DataError(
            f"{second}: {self.candidate} has {what} of chunk {self.sample.chunk.chunk_id!r} twice, first in {first}; keep "
            "the row that counts, or number the items of a chunk in a column `position`"
        )


class _Ratings:
    """The letters that came with the items: grades of a judge, labels of raters, and scores of other harnesses.

    An item that two candidates wrote and that came with different letters becomes two items, as in
    `join_runs`: each candidate keeps its own.
    """

    def __init__(self, request: ImportRequest, files: _Files, words: Mapping[str, str]) -> None:
        self._request = request
        self._files = files
        self._words = words
        """Raters of other harnesses, as `_Grouped.words`."""
        self._letters = letters_of(request.rubric)
        self._letters_of: dict[str, tuple[str, ...]] = {}
        self._shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._columns = [*request.label_fields.values(), *request.grade_fields.values()]

    def known(self, item_id: str, letter: str) -> None:
        """Note the letter of an item of the run that is joined."""
        if self._request.grade_fields:
            blank = [""] * len(self._request.label_fields)
            self._letters_of[item_id] = (*blank, letter, *[""] * len(self._words))

    def rate(self, candidate: str, sample: Sample, row: GenerateRow, rated: Sequence[_Rated]) -> GenerateRow:
        """Write grades and labels of a reply's items; return the reply, with the ids that its items have now."""
        if not (self._columns or self._words) or isinstance(row, Failure):
            return row
        items = []
        for item, given in zip(row.items, rated, strict=True):
            letters_of_item = (
                *(given.letters.get(column, "") for column in self._columns),
                *(given.scores.get(rater, ("", ""))[0] for rater in self._words),
            )
            new_item, own = item, self._shared.setdefault(letters_of_item, letters_of_item)
            earlier = self._letters_of.get(item.item_id)
            if earlier is not None and earlier != own:
                item_id = record_id("item", item.item_id, candidate)
                new_item, earlier = (
                    item.model_copy(update={"item_id": item_id}),
                    self._letters_of.get(item_id),
                )
            items.append(new_item)
            if earlier is None:
                self._letters_of[new_item.item_id] = own
                self._write(sample, new_item, given)
        return row.model_copy(update={"items": tuple(items)})

    def _write(self, sample: Sample, item: Item, given: _Rated) -> None:
        rubric, letters = self._request.rubric, given.letters
        own = f"{rubric.name}/{rubric.version}"
        for number, (judge, column) in enumerate(self._request.grade_fields.items()):
            file = further_files(judge)[1] if number else GRADES
            self._files.write(file, _grade(judge, rubric, sample, item, letters.get(column, ""), column))
        for rater, column in self._request.label_fields.items():
            if column in letters:
                self._files.write(
                    f"{LABELS}/{rater}.jsonl", _label(rater, sample, item, letters[column], own)
                )
        for rater, (text, note) in given.scores.items():
            # the rubric of a scorer with a scale of its own is its name
            is_other = bool(self._words[rater])
            letter = text if is_other else self._letters[text.casefold()]
            rubric_of = rater if is_other else own
            label = _label(rater, sample, item, letter, rubric_of, rater_kind="model", note=note)
            self._files.write(f"{LABELS}/{rater}.jsonl", label)


def _label(
    rater: str,
    sample: Sample,
    item: Item,
    letter: str,
    rubric: str,
    *,
    rater_kind: Literal["human", "model"] = "human",
    note: str = "",
) -> Label:
    return Label(
        item_id=item.item_id,
        rater=rater,
        rater_kind=rater_kind,
        letter=letter,
        rubric=rubric,
        split=sample.chunk.split or "held-out",
        note=note,
        chunk_id=sample.chunk.chunk_id,
        question=item.question,
        answer=item.answer,
        rejected=item.parts.get(REJECTED, ""),
    )


def _grade(judge: str, rubric: Rubric, sample: Sample, item: Item, letter: str, column: str) -> GradeRow:
    task_id = grade.task_id(judge, item.item_id)
    if not letter:
        return Failure(
            task_id=task_id,
            stage="grade",
            model=judge,
            sample_id=sample.sample_id,
            item_id=item.item_id,
            reason="reported",
            detail=f"no letter in column {column!r}",
        )
    return Grade(
        task_id=task_id,
        judge=judge,
        rubric_sha=rubric.sha,
        item_id=item.item_id,
        letter=letter,
        text="",
        latency_s=0,
    )


def _copy_base(store: RunStore, kept: set[str], files: _Files, ratings: _Ratings, folder: Path) -> None:
    """Copy a run's samples that are kept, with their rows."""
    for sample in store.samples():
        if sample.sample_id in kept:
            files.write(SAMPLES, sample)
    item_ids: set[str] = set()
    for row in store.generations():
        if row.sample_id in kept:
            files.write(GENERATIONS, row)
            if isinstance(row, Generation):
                item_ids.update(item.item_id for item in row.items)
    for graded in store.grades():
        if graded.item_id in item_ids:
            files.write(GRADES, graded)
            ratings.known(graded.item_id, graded.letter if isinstance(graded, Grade) else "")
    rows = {file for pattern in ("*.jsonl", "*/*.jsonl") for file in store.path.glob(pattern)}
    for path in sorted(rows - {store.path / name for name in (SAMPLES, GENERATIONS, GRADES)}):
        # in this order repeats of replies come before those of letters
        _copy_rows(path, folder / path.relative_to(store.path), kept, item_ids)
    with explained(folder, "writing"):
        for path in store.path.glob("grades/*.json"):  # further judges
            shutil.copyfile(path, folder / path.relative_to(store.path))


def _copy_rows(path: Path, target: Path, kept: set[str], item_ids: set[str]) -> None:
    """Copy the lines of a file of rows that are about samples or items that are kept, or about neither."""
    with explained(target, "writing"):
        target.parent.mkdir(exist_ok=True)
        with path.open("rb") as old, target.open("wb") as new:
            for number, line in enumerate(old, 1):
                if line.isspace():
                    continue
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    if not line.endswith(b"\n"):  # a killed process did not finish it
                        break
                    raise DataError(f"{path}:{number}: not a valid row: {error}") from error
                if not isinstance(row, dict):  # a file of a labelling tool: no row of ours
                    new.write(line.rstrip(b"\n") + b"\n")
                    continue
                if row.get("sample_id", next(iter(kept))) not in kept:
                    continue
                item_ids.update(item["item_id"] for item in row.get("items") or ())
                is_of_item = "item_id" in row and not {"sample_id", "rater"} & row.keys()
                if not is_of_item or row["item_id"] in item_ids:
                    new.write(line.rstrip(b"\n") + b"\n")


# ---------------------------------------------------------------- settings


def _settings(
    request: ImportRequest,
    groups: _Groups,
    samples: EachRow,
    names: Sequence[str],
    base: Mapping[str, Any] | None,
) -> dict[str, Any]:
    definition = groups.definition
    candidates = {name: {"kind": KIND, **request.model_facts(name)} for name in names}
    settings: dict[str, Any] = {
        "format": FORMAT,
        "eval": {**definition.model_dump(mode="json"), "digest": definition.digest},
        "sample_set": {"n": len(samples), "seed": None, "digest": sample_set_digest(samples)},
        "candidates": candidates,
        "grading": None,
    }
    if base is not None:
        settings = {
            **base,
            "sample_set": {
                **base["sample_set"],
                **{key: settings["sample_set"][key] for key in ("n", "digest")},
            },
            "candidates": {**base["candidates"], **candidates},
        }
    if request.grade_fields:
        grading, *_ = _gradings(request)
        if settings.get("grading") not in (None, grading):
            raise NotComparableError(
                f"{request.known().name} is graded by {settings['grading']['judge']['name']!r}; leave out --grade-field, "
                "and have `qaeval grade` grade the imported items"
            )
        settings["grading"] = grading
    return settings


def _gradings(request: ImportRequest) -> list[dict[str, Any]]:
    """Return what is recorded of each judge whose letters came with the items."""
    rubric = {**request.rubric.model_dump(mode="json"), "sha": request.rubric.sha}
    return [{"judge": {"name": judge, "kind": KIND}, "rubric": rubric} for judge in request.grade_fields]


def _about(
    request: ImportRequest,
    grouped: _Grouped,
    groups: _Groups,
    counts: Mapping[str, "Counter[str]"],
    base: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what is recorded of the import: files, counts, and what was left out."""
    earlier = (base or {}).get("imported") or {}
    return {
        "at": now(),
        "rubric": request.rubric_name or earlier.get("rubric"),
        "files": [*earlier.get("files", ()), *grouped.files],
        "counts": {**earlier.get("counts", {}), **{name: dict(count) for name, count in counts.items()}},
        "notes": [*earlier.get("notes", ()), *groups.notes],
    }
