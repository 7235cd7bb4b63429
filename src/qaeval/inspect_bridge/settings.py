"""Validate the run settings in the metadata of a log as strictly as qaeval's own loaders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, StrictBool, StrictInt

from qaeval.errors import DataError
from qaeval.evals.definition import EvalDefinition
from qaeval.evals.rubric import Rubric
from qaeval.files.yaml import validated
from qaeval.records import Record, Session, digest
from qaeval.registry.model import ModelSpec, PromptedModel
from qaeval.run.plan import described

_EXCLUDED_KEYS: Final = ("directory", "label_paths")
"""Keys of local paths, which are not part of an eval's settings."""


class _SampleSet(Record):
    """The sample set."""

    n: StrictInt = Field(ge=1)
    seed: StrictInt | None
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Grading(Record):
    """Judge and rubric; logs of Inspect tasks name the judge elsewhere."""

    judge: dict[str, Any] | None = None
    rubric: dict[str, Any]
    allow_same_family: StrictBool = False


class _Settings(Record):
    """The settings of a run; models, eval and rubric are validated separately."""

    format: Literal[1]
    eval: dict[str, Any]
    sample_set: _SampleSet
    candidates: dict[str, dict[str, Any]] = Field(max_length=1)
    """The candidate of an exported log; logs of Inspect tasks name it elsewhere."""
    grading: _Grading


class _RequestOptions(Record):
    """Options of the requests to an Inspect model."""

    structured: StrictBool
    merge_system: StrictBool = False
    judge_mode: Literal["reason_first", "letter"] = "reason_first"


class _LogMetadata(Record):
    settings: _Settings
    candidate: _RequestOptions | None = None
    judge: _RequestOptions | None = None
    sessions: tuple[Session, ...] = ()


def read_settings(
    path: Path, metadata: Mapping[str, Any], *, candidate: str, judge: str | None
) -> tuple[dict[str, Any], tuple[Session, ...]]:
    """Read the settings and sessions of a run from the metadata of a log.

    Args:
        path: Path of the log.
        metadata: qaeval's metadata of the log.
        candidate: Inspect's name of the candidate, for logs of Inspect tasks.
        judge: Inspect's name of the judge, for logs of Inspect tasks.

    Raises:
        DataError: a value is missing, changed or invalid; the message names log and key.
    """
    fields = {key: metadata[key] for key in _LogMetadata.model_fields if key in metadata}
    log_metadata = validated(_LogMetadata, fields, path)
    settings_read, location = log_metadata.settings, f"{path}: settings"
    if settings_read.candidates:
        candidates = {
            name: _model(f"{location}.candidates.{name}", {**model, "name": name}, set(model))
            for name, model in settings_read.candidates.items()
        }
        judge_settings = _judge(f"{location}.grading.judge", settings_read.grading.judge)
    else:
        candidates = {candidate: _model_as_requested(f"{path}: candidate", candidate, log_metadata.candidate)}
        judge_settings = {"name": judge, **_model_as_requested(f"{path}: judge", judge, log_metadata.judge)}
    rubric = _rubric(f"{location}.grading.rubric", settings_read.grading.rubric)
    settings = {
        "format": settings_read.format,
        "eval": _eval(f"{location}.eval", settings_read.eval),
        "sample_set": settings_read.sample_set.model_dump(),
        "candidates": candidates,
        "grading": {
            "judge": judge_settings,
            "rubric": rubric,
            **({"allow_same_family": True} if settings_read.grading.allow_same_family else {}),
        },
    }
    return settings, log_metadata.sessions


def _eval(location: str, eval_settings: Mapping[str, Any]) -> dict[str, Any]:
    for key in _EXCLUDED_KEYS:
        if key in eval_settings:
            raise DataError(
                f"{location}: unknown key {key!r}; local paths are not part of an eval's settings"
            )
    content = _unhashed(location, eval_settings, "digest")
    definition = validated(EvalDefinition, {**content, "directory": Path()}, location)
    return {**definition.model_dump(mode="json"), "digest": _hash(location, eval_settings, "digest")}


def _rubric(location: str, rubric_settings: Mapping[str, Any]) -> dict[str, Any]:
    rubric = validated(Rubric, _unhashed(location, rubric_settings, "sha"), location)
    return {**rubric.model_dump(mode="json"), "sha": _hash(location, rubric_settings, "sha")}


def _unhashed(location: str, settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    if key not in settings:
        raise DataError(f"{location}: missing key {key!r}")
    return {name: value for name, value in settings.items() if name != key}


def _hash(location: str, settings: Mapping[str, Any], key: str) -> str:
    """Return the stored hash, checked against the content as stored, without defaults of this version."""
    expected = digest(_unhashed(location, settings, key))
    if settings[key] != expected:
        raise DataError(
            f"{location}: {key}: expected {expected!r}, the hash of the content, got {settings[key]!r}: "
            "the content was changed"
        )
    return expected


def _judge(location: str, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    if settings is None:
        raise DataError(f"{location}: expected a mapping (key: value), got None")
    return _model(location, settings, set(settings))


def _model(location: str, settings: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    """Return the settings of a model, validated as a registry entry."""
    if "kind" not in keys:
        raise DataError(f"{location}: missing key 'kind'")
    kind = PromptedModel if "prompt" in keys else ModelSpec
    is_imported = settings["kind"] == "imported"
    spec = validated(kind, {**settings, **({"kind": "server"} if is_imported else {})}, location)
    values = {**spec.model_dump(mode="json"), "kind": settings["kind"]}
    return {key: values[key] for key in settings if key in keys}


def _model_as_requested(location: str, name: str | None, options: _RequestOptions | None) -> dict[str, Any]:
    """Return the settings of a model that are known from an Inspect log: its name and request options."""
    if options is None:
        raise DataError(f"{location}: missing request options (structured: true or false)")
    if not name:
        raise DataError(f"{location}: the log has no model with this role")
    spec = ModelSpec(
        name=name,
        served_name=name,
        structured="json_schema" if options.structured else "off",
        system_role="merge" if options.merge_system else "keep",
        judge_mode=options.judge_mode,
    )
    return described(spec)
