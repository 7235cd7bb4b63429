"""The samples of an eval: its chunks, questions about its chunks, or topic cards."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic_core import from_json

from qaeval.checks.answers import accepted_corrections
from qaeval.corpus.loading import (
    DuplicateIds,
    LineError,
    each_chunk,
    each_object,
    inclusion_field,
    load_chunks,
    text_field,
)
from qaeval.errors import UsageError, closest
from qaeval.evals.definition import EvalDefinition
from qaeval.files.spool import SpooledRows
from qaeval.records import Chunk, Sample

FORBIDDEN: Final = ("money", "durations", "hardware")
"""Content that a card can forbid; the check ``forbidden`` finds it."""
_QUESTION: Final = ("question", "query", "prompt")
_CARD: Final = ("card_id", "id")


def load_samples(
    definition: EvalDefinition,
    *,
    chunks: Path | None = None,
    samples: Path | None = None,
    fields: Mapping[str, str] = MappingProxyType({}),
    duplicate_ids: DuplicateIds = "refuse",
) -> SpooledRows[Sample]:
    """Read all samples of an eval; they are not held in memory.

    Args:
        definition: The eval.
        chunks: Chunk file; default: that of the eval.
        samples: Sample file; default: that of the eval.
        fields: Key in the chunk file by field name.
        duplicate_ids: What becomes of two chunks with one id.

    Raises:
        UsageError: the eval does not read the given file.
        DataError: a file or some of its lines are invalid.
        StoreError: the temporary folder is full.
    """
    source = samples or definition.samples_path
    if source is None or definition.item_kind == "qa_pair":
        if samples is not None:
            raise UsageError(f"--samples: the samples of {definition.name} are chunks; use --chunks")
        spooled = SpooledRows(Sample)
        each_chunk(
            chunks or definition.chunks_path,
            lambda chunk: spooled.append(Sample.of(chunk)),
            fields,
            duplicate_ids=duplicate_ids,
        )
        return spooled
    if definition.item_kind == "preference_pair":
        if chunks is not None:
            raise UsageError(f"--chunks: the samples of {definition.name} are topic cards; use --samples")
        return load_cards(source, definition)
    if chunks is not None and samples is None:
        raise UsageError(
            f"--chunks without --samples: the questions of {definition.name} are about its own chunks; "
            "pass your questions with --samples"
        )
    known = load_chunks(chunks or definition.chunks_path, fields, duplicate_ids=duplicate_ids)
    return load_questions(source, known, definition)


def load_questions(path: Path, chunks: tuple[Chunk, ...], definition: EvalDefinition) -> SpooledRows[Sample]:
    """Read questions about chunks: ``chunk_id``, ``question``, ``type``, ``inclusion`` and any further fields.

    Raises:
        DataError: a line lacks a field, its chunk is unknown, or its ``accepts`` are no regular expressions.
    """
    chunks_by_id = {chunk.chunk_id: chunk for chunk in chunks}
    samples = SpooledRows(Sample)

    def add(row: dict[str, Any], _line: int) -> None:
        chunk_id, question = text_field(row, ("chunk_id",)), text_field(row, _QUESTION)
        if not chunk_id or not question:
            raise LineError("expected 'chunk_id' and 'question'")
        if chunk_id not in chunks_by_id:
            raise LineError(
                f"unknown chunk {chunk_id!r}.{closest(chunk_id, chunks_by_id)} "
                "Known are the chunks of the eval, or of --chunks"
            )
        inclusion = inclusion_field(row)
        data = {key: value for key, value in row.items() if key not in {"chunk_id", "inclusion", *_QUESTION}}
        try:
            accepted_corrections(data)
        except ValueError as error:
            raise LineError(str(error)) from error
        samples.append(
            Sample.of(chunks_by_id[chunk_id], question, _typed(data, definition), inclusion=inclusion)
        )

    each_object(path, add)
    return samples


def load_cards(path: Path, definition: EvalDefinition) -> SpooledRows[Sample]:
    """Read topic cards: ``card_id``, ``type``, ``persona``, ``title``, ``situation``, ``features`` and more.

    The text of a card in prompts is rendered from its fields.

    Raises:
        DataError: a line lacks a field, or a field is invalid.
    """
    samples = SpooledRows(Sample)

    def add(row: dict[str, Any], _line: int) -> None:
        card_id = text_field(row, _CARD)
        for name, value in (
            ("card_id", card_id),
            ("situation", row.get("situation")),
            ("persona", row.get("persona")),
        ):
            if not isinstance(value, str) or not value:
                raise LineError(f"expected text in {name!r}, got {value!r:.40}")
        inclusion = inclusion_field(row)
        data = _typed(
            {key: value for key, value in row.items() if key not in {"inclusion", *_CARD}}, definition
        )
        chunk = Chunk(
            chunk_id=card_id,
            text=_card_text(data),
            stratum=data["type"],
            document=path.name,
            title=text_field(row, ("title",)),
            language=text_field(row, ("language",)) or "en",
        )
        samples.append(Sample.of(chunk, given=data, inclusion=inclusion))

    each_object(path, add)
    return samples


def _typed(data: dict[str, Any], definition: EvalDefinition) -> dict[str, Any]:
    kind = data.get("type")
    if kind not in definition.item_types:
        raise LineError(f"type: expected one of {', '.join(definition.item_types)}, got {kind!r:.40}")
    try:
        from_json(json.dumps({"given": data}, ensure_ascii=False, allow_nan=False).encode())
    except ValueError as error:  # a lone surrogate, NaN, or more levels than the row can be read with
        raise LineError(f"not valid in a row of JSON: {error}") from error
    return data


def _card_text(card: Mapping[str, Any]) -> str:
    """Render a card as the text of its chunk."""
    features = card.get("features", [])
    if not isinstance(features, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("about"), str)
        for entry in features
    ):
        raise LineError("features: expected a list of objects with 'name' and 'about'")
    lines = [
        f"Persona: {card['persona']}",
        f"Scenario ({card['type']}): {card['situation']}",
        *(["Features:", *(f"- {entry['name']}: {entry['about']}" for entry in features)] if features else []),
        *(
            f"{title}: {card[name]}"
            for name, title in (("mistake", "A weaker approach"), ("check", "How to see that it worked"))
            if card.get(name)
        ),
    ]
    forbidden = card.get("forbidden", [])
    if not isinstance(forbidden, list) or not all(entry in FORBIDDEN for entry in forbidden):
        raise LineError(f"forbidden: expected a list of {', '.join(FORBIDDEN)}, got {forbidden!r:.60}")
    if forbidden:
        lines.append(f"Must not be mentioned: {', '.join(forbidden)}")
    return "\n".join(lines)
