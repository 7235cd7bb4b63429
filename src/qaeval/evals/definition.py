"""The definition of an eval: prompt, items, rubric, checks and data, read from ``evals/<eval>/``."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from string import Template
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

from pydantic import Field, StringConstraints, field_validator, model_validator

from qaeval.checks.check import CheckSpec, spec_problem
from qaeval.checks.claims import load_facts
from qaeval.checks.registry import CHECKS, KINDS
from qaeval.errors import DataError, UsageError, closest
from qaeval.files.yaml import read_text, read_yaml, refuse, validated
from qaeval.records import Chunk, Record, digest
from qaeval.text.units import count_words

ItemKind: TypeAlias = Literal["qa_pair", "answer", "preference_pair"]
"""``qa_pair``: the candidate writes questions and answers; ``answer``: it answers the sample's question;
``preference_pair``: it writes a prompt with a better and a worse answer."""

JudgeSees: TypeAlias = Literal["title", "expected"]
"""What a judge can be shown besides chunk and item: the chunk's title, and the expected answer of the sample."""

DEFAULT_JUDGE_SEES: Final[tuple[JudgeSees, ...]] = ("title",)

PLACEHOLDERS: Final = ("chunk", "title", "question", "language")
"""Placeholders of a prompt, ``$chunk`` or ``${chunk}``; a literal dollar sign is ``$$``. ``$question``
exists only for samples with a question. ``$language`` is the language of question or chunk, in words."""

PREFERENCE: Final = ("prompt", "chosen", "rejected")
"""Fields of a preference pair in a reply."""

WRITTEN: Final[Mapping[ItemKind, tuple[str, ...]]] = {
    "qa_pair": ("question", "answer"),
    "answer": ("answer",),
    "preference_pair": PREFERENCE,
}
"""Fields of an item that the candidate writes, by kind."""

_TEXT: Final = {"type": "string"}
_FILE: Final = "eval.yaml"
_SECTIONS: Final = ("system", "user")
_HEADING: Final = re.compile(rf"^# ({'|'.join(_SECTIONS)})[ \t]*$", re.MULTILINE)

_Slug: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
_Text: TypeAlias = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Prompt(Record):
    """Templates of the two messages to a candidate."""

    system: str = ""
    """System message; empty: none."""
    user: str


class NamedPrompt(Prompt):
    """A prompt of a candidate, in place of the eval's."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Stem of its file; part of the candidate's name."""


def recorded_prompt(settings: Mapping[str, Any], candidate: str) -> Mapping[str, str]:
    """Return the prompt of a candidate by the settings of its run: its own, else the eval's; ``system`` and ``user``."""
    own = settings["candidates"][candidate].get("prompt") or settings["eval"]["prompt"]
    return {key: text for key, text in own.items() if key in Prompt.model_fields}


class EvalSampling(Record):
    """Sampling parameters of the candidates; all are sent, so that no server default applies."""

    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=1024, ge=1)
    seed: int | None = 0


class Form(Record):
    """A form with closed fields that a candidate fills in beside its answer."""

    name: _Slug
    """Key of the form in the reply."""
    fields: dict[str, tuple[str, ...]] = Field(min_length=1)
    """Allowed values by field."""


class EvalDefinition(Record):
    """The task of every candidate, and how replies are graded."""

    name: _Slug
    title: _Text
    item_kind: ItemKind = "qa_pair"
    items_per_sample: int = Field(default=3, ge=1, le=50)
    item_types: tuple[_Slug, ...] = Field(default=("factual", "conceptual", "comparison"), min_length=1)
    """Allowed types of questions in a ``qa_pair`` reply; for the other kinds, the types of the samples."""
    fewer_allowed: int = Field(default=0, ge=0, exclude_if=lambda words: not words)
    """Words of a chunk below which a reply may have fewer items than ``items_per_sample``, but at least one; 0: never."""
    rubric: _Slug
    """Name of a file in ``rubrics/``."""
    chunks: str = Field(default="chunks.jsonl", min_length=1)
    """File in the eval's folder, or relative to it (``../other/chunks.jsonl``)."""
    samples: str = ""
    """File of questions about chunks, or of topic cards; empty: each chunk is a sample."""
    prompt: Prompt
    enforce_schema: bool = True
    """Whether the server enforces the reply schema; false measures how well the candidate keeps the
    format."""
    form: Form | None = None
    """Form beside the answer."""
    judge_sees: tuple[JudgeSees, ...] = Field(
        default=DEFAULT_JUDGE_SEES, exclude_if=lambda seen: seen == DEFAULT_JUDGE_SEES
    )
    """What the judge is shown besides chunk and item: ``title`` of the chunk, ``expected`` of the sample."""
    checks: tuple[CheckSpec, ...] = ()
    """Checks of every item; their findings are stored with the item."""
    sampling: EvalSampling = EvalSampling()
    directory: Path = Field(exclude=True)
    """Folder of the eval; not part of its identity."""
    label_paths: tuple[Path, ...] = Field(default=(), exclude=True)
    """``labels/*.jsonl``, sorted: one file per rater; not part of the eval's identity."""

    @property
    def chunks_path(self) -> Path:
        """Path of the chunk file."""
        return self.directory / self.chunks

    @property
    def samples_path(self) -> Path | None:
        """Path of the sample file; None if each chunk is a sample."""
        return self.directory / self.samples if self.samples else None

    @cached_property
    def digest(self) -> str:
        """Hash of everything but the data that a reply depends on, 64 hex digits."""
        return digest(self.model_dump(mode="json"))

    def fewest_items(self, chunk: Chunk) -> int:
        """Return the smallest number of items that a reply about a chunk may have."""
        return 1 if count_words(chunk.text) < self.fewer_allowed else self.items_per_sample

    @property
    def example_texts(self) -> frozenset[str]:
        """Texts of the fields of an item in an example of the reply in the prompt; a reply must not repeat them."""
        return _example_texts(self.prompt, self.item_kind)

    @field_validator("item_types")
    @classmethod
    def _unique(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(types)) < len(types):
            raise ValueError(f"duplicate type in {', '.join(types)}")
        return types

    @model_validator(mode="after")
    def _check_consistency(self) -> "EvalDefinition":
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[str]:
        if self.item_kind != "qa_pair" and self.items_per_sample != 1:
            yield f"items_per_sample: expected 1 for {self.item_kind}, got {self.items_per_sample}"
        if self.item_kind != "qa_pair" and self.fewer_allowed:
            yield f"fewer_allowed: expected 0 for {self.item_kind}, got {self.fewer_allowed}"
        if self.item_kind != "qa_pair" and not self.samples:
            yield f"samples: an eval of kind {self.item_kind} needs a sample file"
        if self.form is not None and self.item_kind != "answer":
            yield "form: only evals of kind answer can have a form"
        for spec in self.checks:
            if problem := spec_problem(spec, CHECKS):
                yield f"checks: {problem}"
            if (kind := KINDS.get(spec.name)) and kind != self.item_kind:
                yield f"checks: {spec.name} is for items of kind {kind}, not {self.item_kind}"
            if unknown := sorted(set(spec.types) - set(self.item_types)):
                yield f"checks: {spec.name}: unknown type {unknown[0]!r}; known: {list(self.item_types)}"
        names = [spec.name for spec in self.checks]
        if len(set(names)) < len(names):
            yield f"checks: duplicate check in {', '.join(names)}"


@lru_cache  # not a cached property: a candidate's own prompt replaces that of a copy, which would keep the old texts
def _example_texts(prompt: Prompt, kind: ItemKind) -> frozenset[str]:
    examples = re.compile(rf'"(?:{"|".join(WRITTEN[kind])})"\s*:\s*("[^"\\$]*(?:\\.[^"\\$]*)*")')
    return frozenset(_string(text).strip() for text in examples.findall(f"{prompt.system}\n{prompt.user}"))


def _string(text: str) -> str:
    """Read a JSON string; an example in a prompt need not be valid."""
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        return text[1:-1]


def load_eval(directory: Path) -> EvalDefinition:
    """Read ``eval.yaml`` and its prompt file.

    Raises:
        DataError: a file is missing, a key is wrong, or the prompt has an unknown placeholder.
    """
    path = directory / _FILE
    data = read_yaml(path)
    problems = [
        f"unknown key {key!r}; labels are read from labels/*.jsonl"
        for key in ("directory", "label_paths")
        if key in data
    ]
    kind, kinds = data.get("item_kind", "qa_pair"), get_args(ItemKind)
    parsed = {
        "prompt": _ANY_PROMPT,
        "directory": directory,
        "label_paths": tuple(sorted(directory.glob("labels/*.jsonl"))),
        "checks": list(_checks(data, path, problems)),
    }
    prompt, prompt_problem = data.get("prompt", "prompt.md"), ""
    if not isinstance(prompt, str):
        problems.append(f"prompt: expected a file name, got {prompt!r}")
    elif kind in kinds:  # which says what the prompt needs; another kind is reported below
        try:
            parsed["prompt"] = load_prompt(directory / prompt, required=_required(kind))
        except DataError as error:
            prompt_problem = str(error)
    try:
        definition = validated(EvalDefinition, {**data, **parsed}, path, problems)
    except DataError as error:
        raise DataError(f"{error}\n{prompt_problem}".rstrip()) from error
    if prompt_problem:
        raise DataError(prompt_problem)
    return definition


_ANY_PROMPT: Final = Prompt(user="$chunk")
"""Placeholder for a prompt that has a problem, while the other keys are checked."""


def _required(kind: str) -> str:
    """Return the placeholder that the user message of an eval's prompt must have."""
    return "question" if kind == "answer" else "chunk"


def load_prompts(definition: EvalDefinition, names: Sequence[str]) -> tuple[NamedPrompt, ...]:
    """Read the prompts of candidates.

    Args:
        definition: The eval.
        names: Paths, or names of files in the eval's folder, with or without ``.md``.

    Raises:
        UsageError: there is no such file, or two have the same stem.
        DataError: a file is not a prompt of this eval; see `load_prompt`.
    """
    paths: dict[str, Path] = {}
    for name in names:
        path = _prompt_path(definition, name)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", path.stem):
            raise UsageError(
                f"{path}: the file's name becomes part of the candidate's; expected letters, digits, '.', '_' and '-'"
            )
        stem = path.stem.casefold()
        if stem in paths:
            raise UsageError(f"{paths[stem]} and {path} have the same name; it tells the candidates apart")
        paths[stem] = path
    return tuple(
        NamedPrompt(
            name=path.stem,
            **load_prompt(path, required=_required(definition.item_kind)).model_dump(),
        )
        for path in paths.values()
    )


def _prompt_path(definition: EvalDefinition, name: str) -> Path:
    folder = definition.directory
    for path in (Path(name), folder / name, folder / f"{name}.md"):
        if path.is_file():
            return path
    known = sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")
    raise UsageError(
        f"no prompt {name!r}, neither as a path nor in {folder}.{closest(name, known)} There: {', '.join(known)}"
    )


def _checks(data: Mapping[str, Any], path: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    """Read the checks of an eval; those with a problem are left out, and the problem is appended."""
    checks = data.get("checks")
    if not isinstance(checks, list | None):
        problems.append(f"checks: expected a list, got {str(checks)[:60]!r}")
        return
    for check in checks or ():
        try:
            yield _check(check, data, path)
        except DataError as error:
            problems.append(str(error).removeprefix(f"{path}: "))


def _check(check: object, data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Read ``name`` or ``name: {option: value}``; a ``facts`` file is replaced by its content."""
    if isinstance(check, str):
        name, options = check, {}
    elif isinstance(check, dict) and len(check) == 1 and isinstance(next(iter(check.values())), dict):
        (name, arguments) = next(iter(check.items()))
        options = dict(arguments)
    else:
        raise DataError(
            f"{path}: checks: expected a name or a name with options (`- words: {{prompt: [80, 120]}}`), "
            f"got {check!r}"
        )
    types = options.pop("types", ())
    if isinstance(file := options.get("facts"), str):
        options["facts"] = load_facts(path.parent / file).model_dump(mode="json")
    if name == "form" and "fields" not in options and isinstance(data.get("form"), dict):
        options["fields"] = data["form"].get("fields")
    return {"name": name, "types": types, "options": options}


def load_prompt(path: Path, *, required: str = "chunk") -> Prompt:
    """Read a prompt file: a section ``# user`` and, optionally, ``# system``, each with a template.

    Args:
        path: The file.
        required: A placeholder besides ``$chunk`` that the user message must have.

    Raises:
        DataError: a heading is missing or duplicated, or a placeholder is unknown or missing.
    """
    preamble, *parts = _HEADING.split(read_text(path))
    names, texts = parts[::2], [text.strip() for text in parts[1::2]]
    if preamble.strip() or "user" not in names:
        raise DataError(
            f"{path}: expected a section '# user' with the prompt and, optionally, '# system' before it"
        )
    if len(set(names)) < len(names):
        raise DataError(f"{path}: duplicate section in {', '.join(names)}")
    sections = dict(zip(names, texts, strict=True))
    placeholders = [name for name in PLACEHOLDERS if name != "question" or required == name]
    for name, text in sections.items():
        _check_template(text, f"{path}: {name}", placeholders)
    if "chunk" not in _placeholders(sections["user"]):
        raise DataError(f"{path}: user: missing $chunk; answers must be grounded in the chunk")
    if required not in _placeholders(sections["user"]):
        raise DataError(f"{path}: user: missing ${required}")
    return Prompt(**sections)


def _check_template(text: str, location: str, placeholders: Sequence[str]) -> None:
    if not Template(text).is_valid():
        raise DataError(
            f"{location}: a dollar sign without a placeholder; write $$ for a literal dollar sign"
        )
    for name in sorted(_placeholders(text)):
        if name not in placeholders:
            known_names = ", ".join(f"${known_names}" for known_names in placeholders)
            raise DataError(
                f"{location}: unknown placeholder ${name}; known: {known_names}.{closest(name, placeholders)}"
            )


def _placeholders(text: str) -> set[str]:
    return set(Template(text).get_identifiers())


def item_schema(definition: EvalDefinition, chunk: Chunk | None = None) -> dict[str, Any]:
    """Return the JSON schema of a candidate's reply about a chunk; None: about one of any length.

    ``{"pairs": [...]}`` with the requested number of question/answer pairs, whose types are fixed by position where
    there are as many types as pairs (``prefixItems``, for servers that know it; ``items`` allows the same types in any
    order); ``{"answer": …}``, with the
    form if the eval has one; ``{"prompt": …, "chosen": …, "rejected": …}``. Strings have no length bounds:
    constrained decoding turns those into patterns that break JSON.
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
    n, types = definition.items_per_sample, definition.item_types
    pairs = {
        "type": "array",
        "minItems": definition.fewest_items(chunk) if chunk else n,
        "maxItems": n,
        **({"prefixItems": [_pair_schema([name]) for name in types]} if len(types) == n else {}),
        "items": _pair_schema(types),
    }
    return _object({"pairs": pairs})


def _pair_schema(types: Sequence[str]) -> dict[str, Any]:
    kind = {"type": "string", "enum": list(types)}
    return _object({"type": kind, "question": _TEXT, "answer": _TEXT})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
