"""From arguments to an import: names resolved, chunks and rubric found."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from qaeval.agreement.label_files import require_rater_name
from qaeval.corpus.loading import ALIASES, load_chunks
from qaeval.corpus.samples import load_samples
from qaeval.errors import UsageError
from qaeval.evals.definition import EvalDefinition
from qaeval.evals.find import find_eval, find_rubric
from qaeval.evals.rubric import Rubric
from qaeval.importing.entries import CHUNK_FIELDS
from qaeval.importing.reading import is_harness_file
from qaeval.importing.run import ImportRequest, Source
from qaeval.importing.sources import KnownSamples
from qaeval.registry.config import Config
from qaeval.run.plan import rubric_of
from qaeval.storage.run_directory import RunStore

_DESCRIPTION: Final = ("hf_id", "licence", "openness", "released", "family", "parameters")
"""What the registry says of a model and what does not depend on how it was asked."""

_OF_ANSWERS: Final = "rag_qa"
"""Eval of files of other harnesses, whose test cases ask the question."""


def make_request(
    config: Config,
    sources: Sequence[Source],
    *,
    eval_name: str | None,
    rubric: str | None,
    chunks: Path | None,
    candidates: Sequence[str],
    candidate_field: str | None,
    fields: Mapping[str, str],
    grade_field: Mapping[str, str],
    label_fields: Mapping[str, str],
    common: bool,
    join: RunStore | None,
) -> ImportRequest:
    """Resolve the names of an import.

    Raises:
        UsageError: a name is unknown or not one of a rater, or options exclude each other.
        DataError: the chunk file, the eval or the rubric is not valid.
    """
    # the label commands find the file by this name
    label_fields = {require_rater_name(rater): column for rater, column in label_fields.items()}
    if both := set(grade_field) & set(label_fields):
        raise UsageError(f"{min(both)!r} is named as judge and as rater; choose one")
    if join is not None and (eval_name is not None or chunks is not None):
        raise UsageError(f"--join has eval and chunks of {join.path}; leave --eval and --chunks out")
    definition = _eval(config, sources, eval_name) if join is None else _definition_of(join.settings())
    return ImportRequest(
        sources=sources,
        definition=definition,
        rubric=_rubric(rubric, definition, join),
        rubric_name=rubric,
        known=_once(lambda: _known(definition, chunks, fields, join)),
        chunks_given=chunks is not None or join is not None,
        candidates=candidates,
        candidate_field=candidate_field,
        fields=fields,
        grade_fields=grade_field,
        label_fields=label_fields,
        common=common,
        join=join,
        model_facts=lambda name: _model_facts(config, name),
    )


def _eval(config: Config, sources: Sequence[Source], name: str | None) -> EvalDefinition:
    """Return the eval that is named, else the registry's; for files of other harnesses one of answers."""
    definition = find_eval(name or config.defaults.eval)
    if name is None and definition.item_kind != "answer" and all(map(is_harness_file, sources)):
        return find_eval(_OF_ANSWERS)
    return definition


def _definition_of(settings: Mapping[str, Any]) -> EvalDefinition:
    """Return the eval of a run, from its settings."""
    definition = {key: value for key, value in settings["eval"].items() if key != "digest"}
    return EvalDefinition.model_validate({**definition, "directory": Path()})


def _rubric(name: str | None, definition: EvalDefinition, join: RunStore | None) -> Rubric:
    """Return the rubric that is named, else that by which the joined run was graded, else the eval's."""
    settings = {} if join is None else join.settings()
    if name is None and (grading := settings.get("grading")):
        return Rubric.model_validate({key: value for key, value in grading["rubric"].items() if key != "sha"})
    return find_rubric(name or (rubric_of(settings) if settings else definition.rubric))


def _known(
    definition: EvalDefinition, chunks: Path | None, fields: Mapping[str, str], join: RunStore | None
) -> KnownSamples:
    if join is not None:
        return KnownSamples.of(str(join.path), join.samples())
    if chunks is not None:
        named = {name: column for name, column in fields.items() if name in CHUNK_FIELDS and name in ALIASES}
        return KnownSamples.of(str(chunks), (), load_chunks(chunks, named))
    more = () if definition.item_kind == "preference_pair" else load_chunks(definition.chunks_path)
    return KnownSamples.of(f"the eval {definition.name}", load_samples(definition), more)


def _once(read: Callable[[], KnownSamples]) -> Callable[[], KnownSamples]:
    known: list[KnownSamples] = []

    def once() -> KnownSamples:
        if not known:
            known.append(read())
        return known[0]

    return once


def _model_facts(config: Config, name: str) -> dict[str, Any]:
    """Return what the registry says of a model of this name; unknown is how it was asked."""
    spec = config.models.get(name)
    return {} if spec is None else spec.model_dump(mode="json", include=set(_DESCRIPTION), exclude_none=True)
