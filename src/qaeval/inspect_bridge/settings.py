"""What a log says of its run, held to what qaeval itself would have written: nothing of it has passed a loader of qaeval's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, StrictBool, StrictInt

from qaeval.errors import DataError
from qaeval.evals.definition import EvalDefinition
from qaeval.evals.rubric import Rubric
from qaeval.files.yaml import validated
from qaeval.records import Record, Session, digest
from qaeval.registry.model import ModelSpec
from qaeval.run.plan import described

_NO_PART: Final = ("directory", "label_paths")
"""Where an eval stands on somebody's disk; no log says it."""


class _Drawn(Record):
    """The sample set."""

    n: StrictInt = Field(ge=1)
    seed: StrictInt | None
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Grading(Record):
    """Who grades, and by what; Inspect names the judge elsewhere in its own logs."""

    judge: dict[str, Any] | None
    rubric: dict[str, Any]


class _Settings(Record):
    """A run's settings, the models and what is hashed still unread."""

    format: Literal[1]
    eval: dict[str, Any]
    sample_set: _Drawn
    candidates: dict[str, dict[str, Any]] = Field(max_length=1)
    """The one candidate of an exported log; Inspect names it elsewhere in its own."""
    grading: _Grading


class _Asked(Record):
    """How a model of Inspect's was asked."""

    structured: StrictBool
    merge_system: StrictBool = False
    judge_mode: Literal["reason_first", "letter"] = "reason_first"


class _About(Record):
    settings: _Settings
    candidate: _Asked | None = None
    judge: _Asked | None = None
    sessions: tuple[Session, ...] = ()


def read_settings(
    path: Path, about: Mapping[str, Any], *, candidate: str, judge: str | None
) -> tuple[dict[str, Any], tuple[Session, ...]]:
    """Read a run's settings, and who worked on it, out of what a log says for qaeval.

    Args:
        path: Of the log.
        about: What it says.
        candidate: Inspect's name of the candidate, for a log that qaeval did not export.
        judge: The same of the judge.

    Raises:
        DataError: something is missing, changed or not what it has to be; the message names log and key.
    """
    read = validated(_About, {key: about[key] for key in _About.model_fields if key in about}, path)
    found, where = read.settings, f"{path}: settings"
    if found.candidates:
        candidates = {
            name: _model(f"{where}.candidates.{name}", {**one, "name": name}, set(one))
            for name, one in found.candidates.items()
        }
        judged = _judge(f"{where}.grading.judge", found.grading.judge)
    else:
        candidates = {candidate: _as_asked(f"{path}: candidate", candidate, read.candidate)}
        judged = {"name": judge, **_as_asked(f"{path}: judge", judge, read.judge)}
    settings = {
        "format": found.format,
        "eval": _eval(f"{where}.eval", found.eval),
        "sample_set": found.sample_set.model_dump(),
        "candidates": candidates,
        "grading": {"judge": judged, "rubric": _rubric(f"{where}.grading.rubric", found.grading.rubric)},
    }
    return settings, read.sessions


def _eval(where: str, about: Mapping[str, Any]) -> dict[str, Any]:
    for key in _NO_PART:
        if key in about:
            raise DataError(f"{where}: unknown key {key!r}; where an eval stands is no part of it")
    content = _unhashed(where, about, "digest")
    definition = validated(EvalDefinition, {**content, "directory": Path()}, where)
    return {**definition.model_dump(mode="json"), "digest": _hash(where, about, "digest")}


def _rubric(where: str, about: Mapping[str, Any]) -> dict[str, Any]:
    rubric = validated(Rubric, _unhashed(where, about, "sha"), where)
    return {**rubric.model_dump(mode="json"), "sha": _hash(where, about, "sha")}


def _unhashed(where: str, about: Mapping[str, Any], key: str) -> dict[str, Any]:
    if key not in about:
        raise DataError(f"{where}: missing key {key!r}")
    return {name: value for name, value in about.items() if name != key}


def _hash(where: str, about: Mapping[str, Any], key: str) -> str:
    """Return the hash beside a content, which must be the content's; keys that this version adds have no part in it."""
    expected = digest(_unhashed(where, about, key))
    if about[key] != expected:
        raise DataError(
            f"{where}: {key}: expected {expected!r}, the hash of its content, got {about[key]!r}: it was changed"
        )
    return expected


def _judge(where: str, about: Mapping[str, Any] | None) -> dict[str, Any]:
    if about is None:
        raise DataError(f"{where}: expected a mapping (key: value), got None")
    return _model(where, about, set(about))


def _model(where: str, about: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    """Return what a run says of a model, read as the registry's entry that it was made of."""
    if "kind" not in keys:
        raise DataError(f"{where}: missing key 'kind'")
    spec = validated(ModelSpec, about, where).model_dump(mode="json")
    return {key: spec[key] for key in about if key in keys}


def _as_asked(where: str, name: str | None, asked: _Asked | None) -> dict[str, Any]:
    """Say of a model what an Inspect log knows of it: what it is called, and how it was asked."""
    if asked is None:
        raise DataError(f"{where}: expected how it was asked (structured: true or false), got None")
    if not name:
        raise DataError(f"{where}: no model has this role in the log, so nobody is named")
    spec = ModelSpec(
        name=name,
        served_name=name,
        structured="json_schema" if asked.structured else "off",
        system_role="merge" if asked.merge_system else "keep",
        judge_mode=asked.judge_mode,
    )
    return described(spec)
