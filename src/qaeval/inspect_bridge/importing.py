"""Inspect logs as a run: what `qaeval report` and everything behind it reads.

Several logs over the same samples are several candidates. A log must have been made by a task of qaeval's, or by
`export_logs`: no other one says which chunk, rubric and judge a letter belongs to.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

from inspect_ai.log import EvalLog, read_eval_log
from pydantic import ValidationError

from qaeval import __version__
from qaeval.chat.guard import is_internal
from qaeval.comparison.run_data import same_letter
from qaeval.corpus.sampling import sample_set_digest
from qaeval.environment import now
from qaeval.errors import DataError, NotComparableError, UsageError
from qaeval.inspect_bridge.scoring import LETTERS, read_entry
from qaeval.inspect_bridge.settings import read_settings
from qaeval.inspect_bridge.tasks import FORMAT, GRADER, METADATA
from qaeval.records import (
    Failure,
    GenerateRow,
    Generation,
    Grade,
    GradeRow,
    Item,
    Sample,
    Session,
    author,
    record_id,
)
from qaeval.run import generate as generating
from qaeval.run import grade as grading
from qaeval.storage.run_directory import GENERATIONS, GRADES, SESSIONS, RunStore

_INSIDE: Final = re.compile(r"localhost|[^.]+|.+\.(?:local|internal|lan|svc|home\.arpa)", re.IGNORECASE)
"""Names that no public host has; no name is looked up."""

_Reply: TypeAlias = tuple[GenerateRow, list[tuple[Item, GradeRow]]]
"""A reply, and each of its items with what became of it."""


@dataclass
class _Part:
    """What one log holds.

    Attributes:
        path: Of the log.
        settings: Of the run, with its candidate and judge.
        candidate: Who was asked.
        samples: By id.
        replies: Each with its items and what became of them.
        sessions: Who worked on it, and when.
    """

    path: Path
    settings: dict[str, Any]
    candidate: str
    samples: dict[str, Sample] = field(default_factory=dict)
    replies: list[_Reply] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)


def import_log(paths: Sequence[Path], out: Path) -> Path:
    """Make a run of Inspect logs.

    Args:
        paths: Logs of qaeval's tasks, or of `export_logs`, all over the same samples; each other model in them is another
            candidate, and the numbered parts of one candidate belong together.
        out: The run directory; a new one.

    Returns:
        The run directory.

    Raises:
        UsageError: no log is named, or the directory holds a run.
        DataError: a log was made by something else, is not finished, or misses something; the message says what.
        NotComparableError: the logs differ in more than their candidates.
    """
    if not paths:
        raise UsageError("no log to import")
    parts = [_read(path) for path in paths]
    settings = _joined(parts)
    samples = _sample_set(parts, settings)
    with RunStore.create(out, settings, samples, resume=False) as store:
        _write(store, parts)
    return out


def _read(path: Path) -> _Part:
    try:
        log = read_eval_log(str(path), resolve_attachments=True)
    except Exception as error:  # whatever a file that is no log brings about
        raise DataError(f"{path}: not readable as an Inspect log: {type(error).__name__}: {error}") from error
    about = (log.eval.metadata or {}).get(METADATA)
    if not isinstance(about, dict):
        raise DataError(
            f"{path}: made by another task ({log.eval.task!r}): its metadata has no {METADATA!r}, so nothing says which chunk, "
            f"rubric and judge its scores belong to. Import logs of `inspect eval qaeval/…`, or of qaeval's own export"
        )
    if about.get("format") != FORMAT:
        raise DataError(f"{path}: layout {about.get('format')!r}; this version of qaeval reads {FORMAT}")
    if log.status != "success":
        raise DataError(
            f"{path}: the eval did not finish ({log.status}); go on with `inspect eval-retry {path}`"
        )
    try:
        return _part(path, log, about)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise DataError(f"{path}: {error.title}: {where}: {problem['msg']}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: something is missing: {type(error).__name__}: {error}") from error
    except ValueError as error:  # a date that is none, half a character
        raise DataError(f"{path}: not what qaeval writes: {type(error).__name__}: {error}") from error


def _part(path: Path, log: EvalLog, about: Mapping[str, Any]) -> _Part:
    settings, kept = read_settings(path, about, candidate=log.eval.model, judge=_judge(log))
    (candidate,) = settings["candidates"]
    part = _Part(path, settings, candidate)
    hosts: dict[str, str] = {}
    for one in log.samples or []:
        letters = (one.scores or {}).get(LETTERS)
        if one.epoch != 1 or letters is None or not letters.metadata or "generation" not in letters.metadata:
            raise DataError(
                f"{path}: sample {one.id}, epoch {one.epoch}: expected one epoch with a score {LETTERS!r} of qaeval's; a sample "
                f"that failed in Inspect itself has none"
            )
        sample = Sample.model_validate(one.metadata["sample"])
        if sample.sample_id in part.samples:
            raise _twice(str(path), candidate)
        part.samples[sample.sample_id] = sample
        reply = _reply(letters.metadata)
        _check(part, sample, reply)
        _check_ids(part, sample, reply)
        part.replies.append(reply)
        hosts |= letters.metadata.get("hosts") or {}
    part.sessions = list(kept) or list(_sessions(log, part, hosts))
    return part


def _judge(log: EvalLog) -> str | None:
    role = (log.eval.model_roles or {}).get(GRADER)
    role = role[0] if isinstance(role, list) else role
    return None if role is None else role.model


def _reply(metadata: Mapping[str, Any]) -> _Reply:
    entries = [read_entry(entry) for entry in metadata["grades"]]
    row = metadata["generation"]
    if row["kind"] == "failure":
        return Failure.model_validate(row), entries
    return Generation.model_validate({**row, "items": [item for item, _ in entries]}), entries


def _check(part: _Part, sample: Sample, reply: _Reply) -> None:
    """Refuse rows of another sample, candidate, judge or rubric than the log says, and replies of more or fewer items."""
    row, entries = reply
    places = list(range(part.settings["eval"]["items_per_sample"] if isinstance(row, Generation) else 0))
    if (came_at := sorted(item.position for item, _ in entries)) != places:
        raise DataError(
            f"{part.path}: sample {sample.sample_id}: grades: expected items at positions {places}, got {came_at}"
        )
    judge, rubric = part.settings["grading"]["judge"]["name"], part.settings["grading"]["rubric"]
    scale = [level["letter"] for level in rubric["scale"]]
    about = [row.sample_id, *(one.sample_id for _, one in entries if isinstance(one, Failure))]
    found = {
        "sample": (set(about), [sample.sample_id]),
        "candidate": ({author(row)}, [part.candidate]),
        "judge": ({one.judge if isinstance(one, Grade) else one.model for _, one in entries}, [judge]),
        "rubric": ({one.rubric_sha for _, one in entries if isinstance(one, Grade)}, [rubric["sha"]]),
        "scale": ({one.letter for _, one in entries if isinstance(one, Grade)}, scale),
    }
    for what, (came, expected) in found.items():
        if others := came.difference(expected):
            raise DataError(
                f"{part.path}: sample {sample.sample_id}: another {what} than the log's: {min(others)!r}, expected "
                f"{' or '.join(map(repr, expected))}"
            )


def _check_ids(part: _Part, sample: Sample, reply: _Reply) -> None:
    """Refuse ids that are not the hashes of what they name: labels and letters would stick to other words.

    An item that was graded apart for this candidate (`_apart`) has the id that the two of them make.
    """
    row, entries = reply
    judge = part.settings["grading"]["judge"]["name"]
    of = Sample.of(sample.chunk, sample.question, sample.given)
    ids = [
        ("sample_id", {of.sample_id}, sample.sample_id),
        ("generation.task_id", {generating.task_id(part.candidate, sample.sample_id)}, row.task_id),
    ]
    for item, grade in entries:
        words = item.model_dump(include={"type", "question", "answer", "parts"})
        own = Item.of(sample.sample_id, item.position, **words).item_id
        where = f"grades[{item.position + 1}]"
        ids += [
            (f"{where}.item_id", {own, _id_apart(own, part.candidate)}, item.item_id),
            (f"{where}.task_id", {grading.task_id(judge, item.item_id)}, grade.task_id),
        ]
    for key, expected, came in ids:
        if came not in expected:
            raise DataError(
                f"{part.path}: sample {sample.sample_id}: {key}: expected {' or '.join(sorted(expected))}, the hash of the "
                f"words that it names, got {came!r}: they were changed"
            )


def _sessions(log: EvalLog, part: _Part, hosts: Mapping[str, str]) -> Iterator[Session]:
    """Say who worked when, as far as Inspect knows: the models took turns sample by sample, so both took all of the time."""
    started = log.stats.started_at or now()
    ended = log.stats.completed_at or started
    seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
    judge = part.settings["grading"]["judge"]["name"]
    n_graded = sum(len(entries) for _, entries in part.replies)
    for stage, model, n in (("generate", part.candidate, len(part.replies)), ("grade", judge, n_graded)):
        host = hosts.get(model) or ""
        yield Session(
            stage="generate" if stage == "generate" else "grade",
            model=model,
            started=started,
            seconds=max(0.0, seconds),
            n_tasks=n,
            qaeval_version=__version__,
            host=host or f"unknown, the log of {model} does not say",
            external=not _is_inside(host),
            alongside=True,
        )


def _is_inside(host: str) -> bool:
    """Return whether a host is surely in the user's own network; a host that nobody knows is not."""
    try:
        return is_internal(host)
    except ValueError:
        return bool(host and _INSIDE.fullmatch(host))


def _joined(parts: Sequence[_Part]) -> dict[str, Any]:
    """Make one run's settings of those of several logs.

    Raises:
        NotComparableError: they differ in more than their candidates.
    """
    first = parts[0]
    settings = {**first.settings, "candidates": {}}
    for part in parts:
        different = [
            what
            for what in ("format", "eval", "sample_set", "grading")
            if part.settings[what] != first.settings[what]
        ]
        known = settings["candidates"].get(part.candidate)
        own = part.settings["candidates"][part.candidate]
        if different or (known is not None and known != own):
            raise NotComparableError(
                f"{first.path} and {part.path} differ in {', '.join(different or ['the candidate ' + part.candidate])}; logs are "
                f"put together only when nothing but the candidates differs"
            )
        settings["candidates"][part.candidate] = own
    return settings


def _sample_set(parts: Sequence[_Part], settings: Mapping[str, Any]) -> list[Sample]:
    """Check that every candidate was asked for exactly the samples of the set, and return them in the order of the draw.

    Raises:
        DataError: it was asked for fewer, others, or for one twice.
    """
    samples: dict[str, Sample] = {}
    for candidate in settings["candidates"]:
        own = [part for part in parts if part.candidate == candidate]
        ids = [sample_id for part in own for sample_id in part.samples]
        where = " and ".join(str(part.path) for part in own)
        if len(set(ids)) < len(ids):
            raise _twice(where, candidate)
        drawn = settings["sample_set"]
        if sample_set_digest(sample for part in own for sample in part.samples.values()) != drawn["digest"]:
            raise DataError(
                f"{where}: {len(ids)} samples of {candidate}, expected the {drawn['n']} that were drawn: name all parts of an export, "
                f"and draw fewer with -T n=… instead of --limit"
            )
        if len(ids) != drawn["n"]:
            raise DataError(
                f"{where}: settings.sample_set.n: expected {len(ids)}, the samples, got {drawn['n']}"
            )
        samples |= {sample_id: sample for part in own for sample_id, sample in part.samples.items()}
    return sorted(samples.values(), key=lambda one: (one.chunk.document, one.chunk.chunk_id, one.sample_id))


def _twice(where: str, candidate: str) -> DataError:
    return DataError(
        f"{where}: {candidate} answers a sample twice; name each log once, and one log per candidate"
    )


def _write(store: RunStore, parts: Sequence[_Part]) -> None:
    """Write the rows. An item that the judge graded differently for two candidates stays two items, as in `join_runs`."""
    known: dict[str, GradeRow] = {}
    with store.writer(GENERATIONS) as generations, store.writer(GRADES) as grades:
        for part in parts:
            for row, entries in part.replies:
                items = []
                for item, grade in entries:
                    own_item, own_grade = item, grade
                    before = known.get(item.item_id)
                    if before is not None and not same_letter(before, grade):
                        own_item, own_grade = _apart(item, grade, part.candidate)
                    items.append(own_item)
                    if own_item.item_id not in known:
                        known[own_item.item_id] = own_grade
                        grades.append(own_grade)
                generations.append(
                    row.model_copy(update={"items": tuple(items)}) if isinstance(row, Generation) else row
                )
    with store.writer(SESSIONS) as sessions:
        for one in dict.fromkeys(session.model_dump_json() for part in parts for session in part.sessions):
            sessions.append(Session.model_validate_json(one))


def _apart(item: Item, grade: GradeRow, candidate: str) -> tuple[Item, GradeRow]:
    item_id = _id_apart(item.item_id, candidate)
    judge = grade.judge if isinstance(grade, Grade) else grade.model
    update = {"item_id": item_id, "task_id": grading.task_id(judge, item_id)}
    return item.model_copy(update={"item_id": item_id}), grade.model_copy(update=update)


def _id_apart(item_id: str, candidate: str) -> str:
    """Name an item that a judge graded for this candidate otherwise than for an earlier one."""
    return record_id("item", item_id, candidate)
