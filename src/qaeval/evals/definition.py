"""The frozen definition of an eval: prompt, items asked for, rubric and chunks, read from ``evals/<eval>/``."""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

from pydantic import Field, StringConstraints, field_validator, model_validator

from qaeval.checks.check import CheckSpec, spec_problem
from qaeval.checks.claims import load_facts
from qaeval.checks.registry import CHECKS, KINDS
from qaeval.errors import DataError, closest
from qaeval.files.yaml import read_text, read_yaml, validated
from qaeval.records import Record, digest

ItemKind: TypeAlias = Literal["qa_pair", "answer", "preference_pair"]
"""``qa_pair``: the candidate writes questions and answers; ``answer``: it answers the sample's question; ``preference_pair``: it
writes a prompt with a better and a worse answer."""

PLACEHOLDERS: Final = ("chunk", "title", "question")
"""What a prompt can name as ``$chunk`` or ``${chunk}``; a plain dollar sign is ``$$``. Only samples with a question fill in ``$question``."""

PREFERENCE: Final = ("prompt", "chosen", "rejected")
"""Fields of a preference pair in a reply."""

_TEXT: Final = {"type": "string"}
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


class Form(Record):
    """A closed form that a candidate fills in beside its answer."""

    name: _Word
    """Its key in the reply."""
    fields: dict[str, tuple[str, ...]] = Field(min_length=1)
    """Allowed values by field."""


class EvalDefinition(Record):
    """What is asked of every candidate, and how the replies are graded."""

    name: _Word
    title: _Text
    item_kind: ItemKind = "qa_pair"
    items_per_sample: int = Field(default=3, ge=1, le=50)
    item_types: tuple[_Word, ...] = Field(default=("factual", "conceptual", "comparison"), min_length=1)
    """Labels that a candidate may give its questions; of the other kinds, the types of the samples."""
    rubric: _Word
    """Name of a file in ``rubrics/``."""
    chunks: str = Field(default="chunks.jsonl", min_length=1)
    """File in the eval's folder, or beside it (``../other/chunks.jsonl``)."""
    samples: str = ""
    """File with what is asked about which chunk, or with topic cards; empty: each chunk is a sample."""
    prompt: Prompt
    enforce_schema: bool = True
    """Whether the server holds the candidate to the schema; false measures whether it keeps the format by itself."""
    form: Form | None = None
    """What an answer carries beside its text."""
    checks: tuple[CheckSpec, ...] = ()
    """Run over every item; what they find stands beside the grade."""
    sampling: EvalSampling = EvalSampling()
    directory: Path = Field(exclude=True)
    """Where the eval stands; no part of its identity."""
    label_paths: tuple[Path, ...] = Field(default=(), exclude=True)
    """``labels/*.jsonl``, sorted: one file per rater; labels come and go without changing the eval."""

    @property
    def chunks_path(self) -> Path:
        """The file with the chunks."""
        return self.directory / self.chunks

    @property
    def samples_path(self) -> Path | None:
        """The file with the samples; None where each chunk is one."""
        return self.directory / self.samples if self.samples else None

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

    @model_validator(mode="after")
    def _fits(self) -> "EvalDefinition":
        if self.item_kind != "qa_pair" and self.items_per_sample != 1:
            raise ValueError(
                f"items_per_sample: a sample brings one {self.item_kind}, got {self.items_per_sample}"
            )
        if self.item_kind != "qa_pair" and not self.samples:
            raise ValueError(f"samples: an eval of kind {self.item_kind} needs a file of samples")
        if self.form is not None and self.item_kind != "answer":
            raise ValueError("form: only an answer carries one")
        for spec in self.checks:
            if problem := spec_problem(spec, CHECKS):
                raise ValueError(f"checks: {problem}")
            if (only := KINDS.get(spec.name)) and only != self.item_kind:
                raise ValueError(f"checks: {spec.name} looks at items of kind {only}, not {self.item_kind}")
            if unknown := sorted(set(spec.types) - set(self.item_types)):
                raise ValueError(
                    f"checks: {spec.name}: type {unknown[0]!r} is none of {list(self.item_types)}"
                )
        names = [spec.name for spec in self.checks]
        if len(set(names)) < len(names):
            raise ValueError("checks: each check stands once")
        return self


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
    kind = data.get("item_kind", "qa_pair")
    if kind not in get_args(ItemKind):
        raise DataError(
            f"{path}: item_kind: expected one of {', '.join(get_args(ItemKind))}, got {kind!r}.{closest(str(kind), get_args(ItemKind))}"
        )
    found = {
        "prompt": load_prompt(directory / prompt, needs="question" if kind == "answer" else "chunk"),
        "directory": directory,
        "label_paths": labels,
        "checks": [_check(check, data, path) for check in _listed(data.get("checks"), path)],
    }
    return validated(EvalDefinition, {**data, **found}, path)


def _listed(checks: object, path: Path) -> list[object]:
    if checks is None or isinstance(checks, list):
        return checks or []
    raise DataError(f"{path}: checks: expected a list, got {str(checks)[:60]!r}")


def _check(check: object, data: dict[str, Any], path: Path) -> dict[str, Any]:
    """Read ``name`` or ``name: {option: value}``; the facts that an option names are read into it."""
    if isinstance(check, str):
        name, options = check, {}
    elif isinstance(check, dict) and len(check) == 1 and isinstance(next(iter(check.values())), dict):
        (name, given) = next(iter(check.items()))
        options = dict(given)
    else:
        raise DataError(
            f"{path}: checks: expected a name, or a name with its options (`- words: {{prompt: [80, 120]}}`), got {check!r}"
        )
    types = options.pop("types", ())
    if isinstance(file := options.get("facts"), str):
        options["facts"] = load_facts(path.parent / file).model_dump(mode="json")
    if name == "form" and "fields" not in options and isinstance(data.get("form"), dict):
        options["fields"] = data["form"].get("fields")
    return {"name": name, "types": types, "options": options}


def load_prompt(path: Path, *, needs: str = "chunk") -> Prompt:
    """Read a prompt file: a heading line ``# user``, and optionally ``# system`` before it, each with its template.

    Args:
        path: The file.
        needs: Besides ``$chunk``, what the user message must name.

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
    known = [name for name in PLACEHOLDERS if name != "question" or needs == name]
    for name, text in sections.items():
        _check_template(text, f"{path}: {name}", known)
    if "chunk" not in _named(sections["user"]):
        raise DataError(
            f"{path}: user: no $chunk: without the chunk in the prompt no answer can be grounded in it"
        )
    if needs not in _named(sections["user"]):
        raise DataError(f"{path}: user: no ${needs}: what is asked of the candidate must stand in the prompt")
    return Prompt(**sections)


def _check_template(text: str, where: str, placeholders: Sequence[str]) -> None:
    if not Template(text).is_valid():
        raise DataError(f"{where}: a dollar sign that starts no placeholder; write $$ for a plain one")
    for name in sorted(_named(text)):
        if name not in placeholders:
            known = ", ".join(f"${known}" for known in placeholders)
            raise DataError(
                f"{where}: unknown placeholder ${name}; known: {known}.{closest(name, placeholders)}"
            )


def _named(text: str) -> set[str]:
    return set(Template(text).get_identifiers())


def item_schema(definition: EvalDefinition) -> dict[str, Any]:
    """Return the JSON schema of a candidate's reply.

    ``{"pairs": [...]}`` with exactly the question/answer pairs asked for; ``{"answer": …}`` with the form where there is one;
    ``{"prompt": …, "chosen": …, "rejected": …}``. Strings have no length bounds: constrained decoding turns those into patterns
    that break JSON.
    """
    if definition.item_kind == "preference_pair":
        return _object(dict.fromkeys(PREFERENCE, _TEXT))
    if definition.item_kind == "answer":
        form = definition.form
        fields = (
            {name: {"type": "string", "enum": list(allowed)} for name, allowed in form.fields.items()}
            if form
            else {}
        )
        return _object({"answer": _TEXT, **({form.name: _object(fields)} if form else {})})
    pair = {
        "type": {"type": "string", "enum": list(definition.item_types)},
        "question": _TEXT,
        "answer": _TEXT,
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
