"""Import Inspect logs as a run.

Logs over the same samples become candidates of one run. Only logs of qaeval's tasks or of `export_logs` are read here: other logs do
not record chunk, rubric and judge of a score, and are files of items (`qaeval.importing`).
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

_INTERNAL_NAME: Final = re.compile(
    r"localhost|[^.]+|.+\.(?:local|internal|lan|svc|home\.arpa)", re.IGNORECASE
)
"""Host names that are not public; names are not resolved."""

_Reply: TypeAlias = tuple[GenerateRow, list[tuple[Item, GradeRow]]]
"""A reply, and its items with their grades or failures."""


@dataclass
class _LogPart:
    """The content of a log.

    Attributes:
        path: Path of the log.
        settings: Settings of the run, with candidate and judge.
        candidate: Name of the candidate.
        samples: Samples by id.
        replies: Replies with their items and grades or failures.
        sessions: Sessions of candidate and judge.
    """

    path: Path
    settings: dict[str, Any]
    candidate: str
    samples: dict[str, Sample] = field(default_factory=dict)
    replies: list[_Reply] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)


def import_log(paths: Sequence[Path], out: Path) -> Path:
    """Import Inspect logs as a run.

    Args:
        paths: Logs of qaeval's tasks or of `export_logs`, all over the same samples; each model is a
            candidate, and the numbered logs of a candidate are joined.
        out: A new run directory.

    Returns:
        The run directory.

    Raises:
        UsageError: ``paths`` is empty, or the directory has a run.
        DataError: a log is from another task, unfinished or incomplete; the message has the details.
        NotComparableError: the logs differ in more than their candidates.
    """
    if not paths:
        raise UsageError("no logs to import")
    parts = [_read(path) for path in paths]
    settings = _join_settings(parts)
    samples = _sample_set(parts, settings)
    with RunStore.create(out, settings, samples, resume=False) as store:
        _write(store, parts)
    return out


def is_own_log(path: Path) -> bool:
    """Return whether a log is of one of qaeval's tasks; `qaeval.importing` reads the others as files of items.

    Raises:
        DataError: it is no log.
    """
    return METADATA in (_log(path, header_only=True).eval.metadata or {})


def _log(path: Path, *, header_only: bool = False) -> EvalLog:
    try:
        return read_eval_log(str(path), header_only=header_only, resolve_attachments=not header_only)
    except Exception as error:  # the reader raises many types for invalid files
        raise DataError(f"{path}: not an Inspect log: {type(error).__name__}: {error}") from error


def _read(path: Path) -> _LogPart:
    log = _log(path)
    metadata = (log.eval.metadata or {}).get(METADATA)
    if not isinstance(metadata, dict):
        raise DataError(
            f"{path}: log of another task ({log.eval.task!r}): its metadata has no {METADATA!r} with "
            "chunk, rubric and judge of its scores. This reads logs of `inspect eval qaeval/…` and of `qaeval export --to inspect`; "
            "`qaeval import` reads others as files of items"
        )
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path}: format {metadata.get('format')!r}; this version of qaeval reads {FORMAT}")
    if log.status != "success":
        raise DataError(
            f"{path}: the eval did not finish ({log.status}); continue with `inspect eval-retry {path}`"
        )
    try:
        return _part(path, log, metadata)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"]))
        raise DataError(f"{path}: {error.title}: {key}: {problem['msg']}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: incomplete: {type(error).__name__}: {error}") from error
    except ValueError as error:  # an invalid date, a lone surrogate
        raise DataError(f"{path}: invalid: {type(error).__name__}: {error}") from error


def _part(path: Path, log: EvalLog, metadata: Mapping[str, Any]) -> _LogPart:
    settings, sessions = read_settings(path, metadata, candidate=log.eval.model, judge=_judge(log))
    (candidate,) = settings["candidates"]
    part = _LogPart(path, settings, candidate)
    hosts: dict[str, str] = {}
    for log_sample in log.samples or []:
        letters = (log_sample.scores or {}).get(LETTERS)
        if (
            log_sample.epoch != 1
            or letters is None
            or not letters.metadata
            or "generation" not in letters.metadata
        ):
            raise DataError(
                f"{path}: sample {log_sample.id}, epoch {log_sample.epoch}: expected one epoch with "
                f"qaeval's score {LETTERS!r}; a sample that failed in Inspect has none"
            )
        sample = Sample.model_validate(log_sample.metadata["sample"])
        if sample.sample_id in part.samples:
            raise _duplicate_error(str(path), candidate)
        part.samples[sample.sample_id] = sample
        reply = _reply(letters.metadata)
        _check_rows(part, sample, reply)
        _check_ids(part, sample, reply)
        part.replies.append(reply)
        hosts |= letters.metadata.get("hosts") or {}
    part.sessions = list(sessions) or list(_sessions(log, part, hosts))
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


def _check_rows(part: _LogPart, sample: Sample, reply: _Reply) -> None:
    """Refuse rows of another sample, candidate, judge or rubric, and a wrong number of items."""
    row, entries = reply
    positions = _positions(row, len(entries), part.settings["eval"]["items_per_sample"])
    if (actual_positions := sorted(item.position for item, _ in entries)) != positions:
        raise DataError(
            f"{part.path}: sample {sample.sample_id}: grades: expected items at positions {positions}, "
            f"got {actual_positions}"
        )
    judge, rubric = part.settings["grading"]["judge"]["name"], part.settings["grading"]["rubric"]
    scale = [level["letter"] for level in rubric["scale"]]
    sample_ids = [row.sample_id, *(grade.sample_id for _, grade in entries if isinstance(grade, Failure))]
    values = {
        "sample": (set(sample_ids), [sample.sample_id]),
        "candidate": ({author(row)}, [part.candidate]),
        "judge": (
            {grade.judge if isinstance(grade, Grade) else grade.model for _, grade in entries},
            [judge],
        ),
        "rubric": ({grade.rubric_sha for _, grade in entries if isinstance(grade, Grade)}, [rubric["sha"]]),
        "scale": ({grade.letter for _, grade in entries if isinstance(grade, Grade)}, scale),
    }
    for name, (actual, expected) in values.items():
        if unexpected := actual.difference(expected):
            raise DataError(
                f"{part.path}: sample {sample.sample_id}: {name} {min(unexpected)!r} differs from the "
                f"log's: expected {' or '.join(map(repr, expected))}"
            )


def _positions(row: GenerateRow, n_items: int, items_per_sample: int) -> list[int]:
    """Return the positions that the items of a reply have."""
    if isinstance(row, Failure):
        return []
    if row.lost is None:
        return list(range(items_per_sample))
    lost = {item.position for item in row.lost}
    return [position for position in range(n_items + len(lost)) if position not in lost]


def _check_ids(part: _LogPart, sample: Sample, reply: _Reply) -> None:
    """Refuse ids that are not the hash of their content: labels and letters would apply to other content.

    An item with a separate grade for this candidate (`_with_separate_id`) has the hash of its id and the
    candidate.
    """
    row, entries = reply
    judge = part.settings["grading"]["judge"]["name"]
    expected_sample = Sample.of(sample.chunk, sample.question, sample.given)
    ids = [
        ("sample_id", {expected_sample.sample_id}, sample.sample_id),
        ("generation.task_id", {generating.task_id(part.candidate, sample.sample_id)}, row.task_id),
    ]
    for item, grade in entries:
        content = item.model_dump(include={"type", "question", "answer", "parts"})
        item_id = Item.of(sample.sample_id, item.position, **content).item_id
        item_key = f"grades[{item.position + 1}]"
        ids += [
            (f"{item_key}.item_id", {item_id, _separate_id(item_id, part.candidate)}, item.item_id),
            (f"{item_key}.task_id", {grading.task_id(judge, item.item_id)}, grade.task_id),
        ]
    for key, expected, actual in ids:
        if actual not in expected:
            raise DataError(
                f"{part.path}: sample {sample.sample_id}: {key}: expected {' or '.join(sorted(expected))}, "
                f"the hash of the content, got {actual!r}: the content was changed"
            )


def _sessions(log: EvalLog, part: _LogPart, hosts: Mapping[str, str]) -> Iterator[Session]:
    """Yield the sessions of candidate and judge; both span the eval, since Inspect alternates by sample."""
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
            host=host or f"unknown: not in the log of {model}",
            external=not _is_internal_host(host),
            alongside=True,
        )


def _is_internal_host(host: str) -> bool:
    """Return whether a host is certainly in the user's network; an unknown host is not."""
    try:
        return is_internal(host)
    except ValueError:
        return bool(host and _INTERNAL_NAME.fullmatch(host))


def _join_settings(parts: Sequence[_LogPart]) -> dict[str, Any]:
    """Join the settings of several logs.

    Raises:
        NotComparableError: they differ in more than their candidates.
    """
    first = parts[0]
    settings = {**first.settings, "candidates": {}}
    for part in parts:
        differences = [
            key
            for key in ("format", "eval", "sample_set", "grading")
            if part.settings[key] != first.settings[key]
        ]
        known_settings = settings["candidates"].get(part.candidate)
        candidate_settings = part.settings["candidates"][part.candidate]
        if differences or (known_settings is not None and known_settings != candidate_settings):
            names = ", ".join(differences or [f"the candidate {part.candidate}"])
            raise NotComparableError(
                f"{first.path} and {part.path} differ in {names}; logs of one run may differ in their "
                "candidates only"
            )
        settings["candidates"][part.candidate] = candidate_settings
    return settings


def _sample_set(parts: Sequence[_LogPart], settings: Mapping[str, Any]) -> list[Sample]:
    """Check that every candidate has exactly the samples of the set; return these in the order of the draw.

    Raises:
        DataError: a candidate has missing, other or duplicate samples.
    """
    samples: dict[str, Sample] = {}
    for candidate in settings["candidates"]:
        candidate_parts = [part for part in parts if part.candidate == candidate]
        ids = [sample_id for part in candidate_parts for sample_id in part.samples]
        paths = " and ".join(str(part.path) for part in candidate_parts)
        if len(set(ids)) < len(ids):
            raise _duplicate_error(paths, candidate)
        sample_set = settings["sample_set"]
        candidate_samples = {key: value for part in candidate_parts for key, value in part.samples.items()}
        if sample_set_digest(candidate_samples.values()) != sample_set["digest"]:
            raise DataError(
                f"{paths}: {len(ids)} samples of {candidate}, expected the {sample_set['n']} of the sample "
                "set: pass all logs of an export, and use -T n=… instead of --limit to draw fewer"
            )
        if len(ids) != sample_set["n"]:
            raise DataError(
                f"{paths}: settings.sample_set.n: expected {len(ids)}, the number of samples, got "
                f"{sample_set['n']}"
            )
        samples |= candidate_samples
    return sorted(samples.values(), key=_draw_order)


def _draw_order(sample: Sample) -> tuple[str, str, str]:
    return sample.chunk.document, sample.chunk.chunk_id, sample.sample_id


def _duplicate_error(where: str, candidate: str) -> DataError:
    return DataError(
        f"{where}: {candidate} has a sample twice; pass each log once, and one log per candidate"
    )


def _write(store: RunStore, parts: Sequence[_LogPart]) -> None:
    """Write the rows; an item with two different grades becomes two items, as in `join_runs`."""
    grade_of: dict[str, GradeRow] = {}
    with store.writer(GENERATIONS) as generations, store.writer(GRADES) as grades:
        for part in parts:
            for row, entries in part.replies:
                items = []
                for item, grade in entries:
                    final_item, final_grade = item, grade
                    earlier_grade = grade_of.get(item.item_id)
                    if earlier_grade is not None and not same_letter(earlier_grade, grade):
                        final_item, final_grade = _with_separate_id(item, grade, part.candidate)
                    items.append(final_item)
                    if final_item.item_id not in grade_of:
                        grade_of[final_item.item_id] = final_grade
                        grades.append(final_grade)
                generations.append(
                    row.model_copy(update={"items": tuple(items)}) if isinstance(row, Generation) else row
                )
    with store.writer(SESSIONS) as sessions:
        for text in dict.fromkeys(session.model_dump_json() for part in parts for session in part.sessions):
            sessions.append(Session.model_validate_json(text))


def _with_separate_id(item: Item, grade: GradeRow, candidate: str) -> tuple[Item, GradeRow]:
    item_id = _separate_id(item.item_id, candidate)
    judge = grade.judge if isinstance(grade, Grade) else grade.model
    update = {"item_id": item_id, "task_id": grading.task_id(judge, item_id)}
    return item.model_copy(update={"item_id": item_id}), grade.model_copy(update=update)


def _separate_id(item_id: str, candidate: str) -> str:
    """Return the id of an item whose grade for this candidate differs from an earlier candidate's."""
    return record_id("item", item_id, candidate)
