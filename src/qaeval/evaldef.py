"""The frozen definition of an eval: prompt, items asked for, rubric and chunks, read from ``evals/<eval>/``."""

import re
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field, StringConstraints, field_validator

from qaeval.documents import read_text, read_yaml, validated
from qaeval.errors import DataError, closest
from qaeval.records import Record, digest

PLACEHOLDERS: Final = ("chunk", "title")
"""What a prompt can name as ``$chunk`` or ``${chunk}``; a plain dollar sign is ``$$``."""

_FILE: Final = "eval.yaml"
_SECTIONS: Final = ("system", "user")
_HEADING: Final = re.compile(rf"^# ({'|'.join(_SECTIONS)})[ \t]*$", re.MULTILINE)

_Word: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
_Text: TypeAlias = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Prompt(Record):
    """Templates of the two messages that a candidate gets."""

    system: str = ""
    """Empty: no system message."""
    user: str


class EvalSampling(Record):
    """Sampling parameters of the candidates; all are sent, so that no server default leaks in."""

    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=1024, ge=1)
    seed: int | None = 0


class EvalDefinition(Record):
    """What is asked of every candidate, and how the replies are graded."""

    name: _Word
    title: _Text
    item_kind: Literal["qa_pair"] = "qa_pair"
    items_per_sample: int = Field(default=3, ge=1, le=50)
    item_types: tuple[_Word, ...] = Field(default=("factual", "conceptual", "comparison"), min_length=1)
    rubric: _Word
    """Name of a file in ``rubrics/``."""
    chunks: str = Field(default="chunks.jsonl", min_length=1)
    """File in the eval's folder."""
    prompt: Prompt
    sampling: EvalSampling = EvalSampling()
    directory: Path = Field(exclude=True)
    """Where the eval stands; no part of its identity."""
    label_paths: tuple[Path, ...] = Field(default=(), exclude=True)
    """``labels/*.jsonl``, sorted: one file per rater; labels come and go without changing the eval."""

    @property
    def chunks_path(self) -> Path:
        """The file with the chunks."""
        return self.directory / self.chunks

    @cached_property
    def digest(self) -> str:
        """Hash of everything that a reply depends on, prompt included, 64 hex digits. Chunks have their own."""
        return digest(self.model_dump(mode="json"))

    @field_validator("item_types")
    @classmethod
    def _unique(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(types)) < len(types):
            raise ValueError(f"each type stands once, got {', '.join(types)}")
        return types


def load_eval(directory: Path) -> EvalDefinition:
    """Read ``eval.yaml`` and the prompt that it names.

    Raises:
        DataError: a file is missing, a key is wrong, or the prompt names something that cannot be filled in.
    """
    path = directory / _FILE
    data = read_yaml(path)
    for key in ("directory", "label_paths"):
        if key in data:
            raise DataError(f"{path}: unknown key {key!r}; labels are found in labels/*.jsonl")
    prompt = data.get("prompt", "prompt.md")
    if not isinstance(prompt, str):
        raise DataError(f"{path}: prompt: expected the name of a file, got {prompt!r}")
    labels = tuple(sorted(directory.glob("labels/*.jsonl")))
    found = {"prompt": load_prompt(directory / prompt), "directory": directory, "label_paths": labels}
    return validated(EvalDefinition, {**data, **found}, path)


def load_prompt(path: Path) -> Prompt:
    """Read a prompt file: a heading line ``# user``, and optionally ``# system`` before it, each with its template.

    Raises:
        DataError: a heading is missing or doubled, or a placeholder is unknown or missing.
    """
    before, *parts = _HEADING.split(read_text(path))
    names, texts = parts[::2], [text.strip() for text in parts[1::2]]
    if before.strip() or "user" not in names:
        raise DataError(
            f"{path}: expected a heading line '# user' with the prompt under it ('# system' may stand before it)"
        )
    if len(set(names)) < len(names):
        raise DataError(f"{path}: each of '# system' and '# user' may stand once, got {', '.join(names)}")
    sections = dict(zip(names, texts, strict=True))
    for name, text in sections.items():
        _check_template(text, f"{path}: {name}")
    if "chunk" not in _named(sections["user"]):
        raise DataError(
            f"{path}: user: no $chunk: without the chunk in the prompt no answer can be grounded in it"
        )
    return Prompt(**sections)


def _check_template(text: str, where: str) -> None:
    if not Template(text).is_valid():
        raise DataError(f"{where}: a dollar sign that starts no placeholder; write $$ for a plain one")
    for name in sorted(_named(text)):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"${known}" for known in PLACEHOLDERS)
            raise DataError(
                f"{where}: unknown placeholder ${name}; known: {known}.{closest(name, PLACEHOLDERS)}"
            )


def _named(text: str) -> set[str]:
    return set(Template(text).get_identifiers())


def item_schema(definition: EvalDefinition) -> dict[str, Any]:
    """Return the JSON schema of a candidate's reply: ``{"pairs": [...]}`` with exactly the items asked for.

    Strings have no length bounds: constrained decoding turns those into patterns that break JSON.
    """
    pair = {
        "type": {"type": "string", "enum": list(definition.item_types)},
        "question": {"type": "string"},
        "answer": {"type": "string"},
    }
    n = definition.items_per_sample
    pairs = {"type": "array", "minItems": n, "maxItems": n, "items": _object(pair)}
    return _object({"pairs": pairs})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
