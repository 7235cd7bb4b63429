"""From a candidate's reply to its items, by the eval's item kind. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from qaeval.chat.reply import ReplyError, extract_json
from qaeval.checks.check import run_checks
from qaeval.checks.registry import CHECKS
from qaeval.evals.definition import PREFERENCE, EvalDefinition
from qaeval.records import FORM, REJECTED, Item, Sample

_INVISIBLE: Final = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))
_FIELDS: Final = ("type", "question", "answer")


_DOTS: Final = re.compile(r"[\s\"'<>()\[\]{}*]*(?:…+|\.{3,}|_{3,})[\s\"'<>()\[\]{}*]*")
"""Dots or a blank line in place of a text, with or without brackets. A single mark, ``..`` and code can be answers."""


def is_dots(text: str) -> bool:
    """Whether a text is dots or a blank line, as in an example of a reply."""
    return _DOTS.fullmatch(text) is not None


def read_items(text: str, sample: Sample, definition: EvalDefinition, *, lenient: bool) -> tuple[Item, ...]:
    """Read the items from a reply, with the findings of the eval's checks.

    Args:
        text: the reply.
        sample: the sample that was asked about; its id becomes part of each item's id.
        definition: the eval, with kind and number of the items.
        lenient: the server did not enforce the schema, so that JSON may come in a code fence or between
            words.

    Raises:
        ReplyError: the reply is not what the eval asks for; it then has no items at all.
    """
    value = extract_json(text, lenient=lenient or not definition.enforce_schema)
    if (
        isinstance(value, list)
        and not _holds_objects(value)
        and not text.lstrip().startswith(("[", "\ufeff[", "```"))
    ):
        raise ReplyError("invalid_json", f"expected JSON, got text that contains {json.dumps(value)[:40]}")
    items = _READERS[definition.item_kind](value, sample, definition)
    for number, item in enumerate(items, start=1):
        refuse_placeholder(item, number, definition)
    if not definition.checks:
        return items
    prompt = f"{definition.prompt.system}\n{definition.prompt.user}"
    return run_checks(items, sample, text, definition.checks, CHECKS, prompt=prompt)


def refuse_placeholder(item: Item, number: int, definition: EvalDefinition) -> None:
    """Refuse an item that repeats an example of the prompt, or that has dots where a text belongs.

    Raises:
        ReplyError: it does.
    """
    texts = (item.question, item.answer, item.parts.get(REJECTED, ""))
    for text in texts[definition.item_kind == "answer" :]:
        if is_dots(text) or text in definition.example_texts:
            raise ReplyError(
                "placeholder",
                f"item {number}: expected a text, got {text[:60]!r}, as in an example of a reply",
            )


def _pairs(value: Any, sample: Sample, definition: EvalDefinition) -> tuple[Item, ...]:  # noqa: ANN401 - parsed JSON
    if isinstance(value, dict) and "pairs" in value and (unknown := sorted(set(value) - {"pairs"})):
        raise ReplyError("missing_field", f"unknown field {unknown[0]!r} beside 'pairs'")
    pairs = value.get("pairs") if isinstance(value, dict) else value
    if not isinstance(pairs, list):
        raise ReplyError("missing_field", f"expected an object with a list 'pairs', got {_kind(value)}")
    most = definition.items_per_sample
    least = definition.fewest_items(sample.chunk)
    if not least <= len(pairs) <= most:
        expected = f"{most}" if least == most else f"{least} to {most}"
        raise ReplyError("wrong_item_count", f"expected {expected} pairs, got {len(pairs)}")
    return tuple(_pair(pair, position, sample, definition) for position, pair in enumerate(pairs))


def _pair(pair: Any, position: int, sample: Sample, definition: EvalDefinition) -> Item:  # noqa: ANN401 - parsed JSON
    fields = _texts(pair, f"pair {position + 1}: ", _FIELDS)
    if fields["type"] not in definition.item_types:
        types = list(definition.item_types)
        raise ReplyError(
            "missing_field", f"pair {position + 1}: expected a type of {types}, got {fields['type']!r}"
        )
    return Item.of(
        sample.sample_id, position, type=fields["type"], question=fields["question"], answer=fields["answer"]
    )


def _answer(value: Any, sample: Sample, definition: EvalDefinition) -> tuple[Item, ...]:  # noqa: ANN401 - parsed JSON
    """Read an answer; a check looks at the form that comes with it."""
    form = definition.form.name if definition.form else ""
    fields = _texts(value, "", ("answer",), optional=(form,) if form else ())
    parts = {FORM: json.dumps(value[form], ensure_ascii=False)} if form in value else {}
    return (
        Item.of(
            sample.sample_id,
            0,
            type=sample.type,
            question=sample.question,
            answer=fields["answer"],
            parts=parts,
        ),
    )


def _preference_pair(value: Any, sample: Sample, _definition: EvalDefinition) -> tuple[Item, ...]:  # noqa: ANN401 - parsed JSON
    fields = _texts(value, "", PREFERENCE)
    parts = {REJECTED: fields["rejected"]}
    return (
        Item.of(
            sample.sample_id,
            0,
            type=sample.type,
            question=fields["prompt"],
            answer=fields["chosen"],
            parts=parts,
        ),
    )


_READERS: Final = {"qa_pair": _pairs, "answer": _answer, "preference_pair": _preference_pair}


def _texts(value: Any, where: str, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, str]:  # noqa: ANN401 - parsed JSON
    """Read the text fields of an object that has all of them, and otherwise optional ones alone."""
    if not isinstance(value, dict):
        raise ReplyError("missing_field", f"{where}expected an object, got {_kind(value)}")
    if unknown := sorted(set(value) - {*names, *optional}):
        raise ReplyError(
            "missing_field", f"{where}unknown field {unknown[0]!r}; expected {[*names, *optional]}"
        )
    return {name: _text(value, name, where) for name in names}


def _text(fields: Mapping[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.translate(_INVISIBLE).strip():
        got = "nothing" if name not in fields else repr(value)[:60]
        raise ReplyError("missing_field", f"{where}expected text in {name!r}, got {got}")
    return value.strip()


def _holds_objects(value: list[Any]) -> bool:
    return any(isinstance(element, dict | list) for element in value)


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}
    return names.get(type(value), repr(value)[:40])
