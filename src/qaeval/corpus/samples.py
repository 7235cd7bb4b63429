"""The samples that an eval can draw from: its chunks, questions about its chunks, or topic cards."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from qaeval.corpus.loading import LineError, each_object, load_chunks, text_field
from qaeval.errors import UsageError, closest
from qaeval.evals.definition import EvalDefinition
from qaeval.records import Chunk, Sample

FORBIDDEN: Final = ("money", "durations", "hardware")
"""What a card may forbid to mention; the check ``forbidden`` looks for it."""
_QUESTION: Final = ("question", "query", "prompt")
_CARD: Final = ("card_id", "id")


def load_samples(
    definition: EvalDefinition,
    *,
    chunks: Path | None = None,
    samples: Path | None = None,
    fields: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Sample, ...]:
    """Read all samples of an eval.

    Args:
        definition: which kind, and where the eval's own files are.
        chunks: another file of chunks than the eval's.
        samples: another file of samples than the eval's.
        fields: the chunk file's own names of fields, by field.

    Raises:
        UsageError: a file was named that this eval does not read.
        DataError: a file or some of its lines are not usable.
    """
    source = samples or definition.samples_path
    if source is None or definition.item_kind == "qa_pair":
        if samples is not None:
            raise UsageError(
                f"--samples: {definition.name} asks about whole chunks; name a file with --chunks"
            )
        return tuple(map(Sample.of, load_chunks(chunks or definition.chunks_path, fields)))
    if definition.item_kind == "preference_pair":
        if chunks is not None:
            raise UsageError(
                f"--chunks: {definition.name} starts from topic cards; name a file with --samples"
            )
        return load_cards(source, definition)
    if chunks is not None and samples is None:
        raise UsageError(
            f"--chunks alone: the questions of {definition.name} are about its own chunks; name yours with --samples"
        )
    return load_questions(source, load_chunks(chunks or definition.chunks_path, fields), definition)


def load_questions(path: Path, chunks: tuple[Chunk, ...], definition: EvalDefinition) -> tuple[Sample, ...]:
    """Read questions about chunks: ``chunk_id``, ``question``, ``type``, and whatever else is known of them.

    Raises:
        DataError: a line lacks something, or names a chunk that there is not.
    """
    known = {chunk.chunk_id: chunk for chunk in chunks}
    found: list[Sample] = []

    def take(row: dict[str, Any], _line: int) -> None:
        chunk_id, question = text_field(row, ("chunk_id",)), text_field(row, _QUESTION)
        if not chunk_id or not question:
            raise LineError("expected 'chunk_id' and 'question'")
        if chunk_id not in known:
            raise LineError(
                f"no chunk {chunk_id!r}.{closest(chunk_id, known)} The chunks are those of the eval, or of --chunks"
            )
        given = {key: value for key, value in row.items() if key not in {"chunk_id", *_QUESTION}}
        found.append(Sample.of(known[chunk_id], question, _typed(given, definition)))

    each_object(path, take)
    return tuple(found)


def load_cards(path: Path, definition: EvalDefinition) -> tuple[Sample, ...]:
    """Read topic cards: ``card_id``, ``type``, ``persona``, ``title``, ``situation``, ``features`` and more.

    A card's text, as candidates and judge see it, is made of its fields.

    Raises:
        DataError: a line lacks something.
    """
    found: list[Sample] = []

    def take(row: dict[str, Any], _line: int) -> None:
        card_id = text_field(row, _CARD)
        for name, value in (
            ("card_id", card_id),
            ("situation", row.get("situation")),
            ("persona", row.get("persona")),
        ):
            if not isinstance(value, str) or not value:
                raise LineError(f"expected text in {name!r}, got {value!r:.40}")
        given = _typed({key: value for key, value in row.items() if key not in _CARD}, definition)
        chunk = Chunk(
            chunk_id=card_id,
            text=_card_text(given),
            stratum=given["type"],
            document=path.name,
            title=text_field(row, ("title",)),
            language=text_field(row, ("language",)) or "en",
        )
        found.append(Sample.of(chunk, given=given))

    each_object(path, take)
    return tuple(found)


def _typed(given: dict[str, Any], definition: EvalDefinition) -> dict[str, Any]:
    kind = given.get("type")
    if kind not in definition.item_types:
        raise LineError(f"type: expected one of {', '.join(definition.item_types)}, got {kind!r:.40}")
    try:
        json.dumps(given, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:  # half a character, or a number that JSON does not have
        raise LineError(f"holds what no row can hold: {error}") from error
    return given


def _card_text(card: Mapping[str, Any]) -> str:
    """Render a card as text."""
    features = card.get("features", [])
    if not isinstance(features, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("about"), str)
        for one in features
    ):
        raise LineError("features: expected a list of objects with 'name' and 'about'")
    lines = [
        f"Persona: {card['persona']}",
        f"Scenario ({card['type']}): {card['situation']}",
        *(["Features:", *(f"- {one['name']}: {one['about']}" for one in features)] if features else []),
        *(
            f"{title}: {card[name]}"
            for name, title in (("mistake", "A weaker approach"), ("check", "How to see that it worked"))
            if card.get(name)
        ),
    ]
    forbidden = card.get("forbidden", [])
    if not isinstance(forbidden, list) or not all(one in FORBIDDEN for one in forbidden):
        raise LineError(f"forbidden: expected a list of {', '.join(FORBIDDEN)}, got {forbidden!r:.60}")
    if forbidden:
        lines.append(f"Must not be mentioned: {', '.join(forbidden)}")
    return "\n".join(lines)
