"""JSON from a model's reply: the value exactly as written, or an error. Pure."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from qaeval.records import FailureReason

_MAX_DEPTH: Final = 100
"""Far below Python's recursion limit, so that later code can walk the value."""
_EXCERPT: Final = 80

_BRACKET: Final = re.compile(r"[\[{]")
_FLAT: Final = re.compile(r"\[[^\[\]{}\"]*\]|\{[^\[\]{}\"]*\}")
"""Brackets without strings or brackets inside: a citation mark such as [1], a placeholder, or a small
value."""

_FIELD: Final = re.compile(r"\{\s*(?:'[^']*'|\w+)\s*:")
"""The beginning of an object whose keys are not JSON strings."""
_PATH: Final = re.compile(r"\b[A-Za-z]:\\")
_CONTROL: Final = re.compile(r"(?<!\\)\\[bfnrt](?=\w)")
"""An escape that can also be a backslash and the first letter of a folder's name."""

_TOKEN: Final = re.compile(
    r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|(?P<unclosed>\\?\Z))|[\[\]{},]|[^\s\[\]{},"]++', re.DOTALL
)
"""Every quotation mark begins a string, closed or not: a second scan from the next mark would take quadratic time."""
_INVALID_ESCAPE: Final = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|(\\)')
_LATEX: Final = re.compile(
    r'\\(?:["\\/]|u[0-9a-fA-F]{4}|(?P<literal>[bf](?=[A-Za-z])'
    r"|(?:nabla|neq|neg|rho|right(?:arrow)?|rangle|theta|tau|tilde|times|text(?:bf|it|rm|tt)?)(?![A-Za-z]))|[bfnrt]|(?P<other>))"
)
"""An escape of JSON, or (``literal``, ``other``) a backslash that stands for itself."""


class ReplyError(Exception):
    """A reply without the expected content.

    Attributes:
        reason: reason of the failure row.
        detail: what was expected, what was received.
    """

    def __init__(self, reason: FailureReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class FoundJson:
    """The JSON value of a reply.

    Attributes:
        value: the value.
        source: the part of the reply that it was read from, as written.
    """

    value: Any
    source: str


def extract_json(text: str, *, lenient: bool) -> Any:  # noqa: ANN401 - any JSON value
    """Return the JSON value in a reply; arguments and errors as in `find_json`."""
    return find_json(text, lenient=lenient).value


def find_json(text: str, *, lenient: bool) -> FoundJson:
    r"""Return the JSON value in a reply, and the text that it was read from. Takes time linear in the reply.

    Always accepted: raw control characters inside strings, which vLLM's grammar allows. Never accepted: a
    duplicate key, NaN, numbers too large for a float, half a surrogate pair, nesting deeper than 100.

    Args:
        text: the reply.
        lenient: for servers that enforce no schema. Words and code fences around the value, a byte order
            mark, trailing commas and backslashes that escape nothing (``\_``, LaTeX) are then accepted; such
            a backslash is kept. Two values are ambiguous and refused.

    Raises:
        ReplyError: ``empty`` or ``invalid_json``.
    """
    stripped = text.strip().strip("\ufeff").strip() if lenient else text.strip()
    if not stripped:
        raise ReplyError("empty", "expected JSON, got no text")
    try:
        return FoundJson(_loads(stripped), stripped)
    except _Malformed as error:
        if not lenient:
            raise ReplyError("invalid_json", f"expected JSON, got {stripped[:_EXCERPT]!r}: {error}") from None
    try:
        entry = _single([*_values(stripped)])
    except _Malformed as error:
        raise ReplyError(
            "invalid_json", f"expected one JSON value, got {stripped[:_EXCERPT]!r}: {error}"
        ) from None
    return FoundJson(entry.value, entry.source)


class _Malformed(Exception):  # noqa: N818 - never leaves this module
    """Text that is not JSON, or (``final``) JSON that is not accepted, so that no repair is tried."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


@dataclass(frozen=True, slots=True)
class _JsonValue:
    """A value inside the reply; ``flat`` without strings or brackets inside."""

    value: Any
    flat: bool
    source: str


def _loads(text: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise _Malformed("nested too deeply", final=True) from None
    except json.JSONDecodeError as error:
        raise _Malformed(f"{error.msg} at character {error.pos}") from None
    except ValueError:  # a number of more digits than Python reads
        raise _Malformed("a number is too long", final=True) from None
    if text.count("[") + text.count("{") > _MAX_DEPTH and _depth(value) > _MAX_DEPTH:
        raise _Malformed("nested too deeply", final=True)
    if _has_surrogate(value, text):
        raise _Malformed("half a surrogate pair", final=True)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        duplicate = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Malformed(f"duplicate key {duplicate!r} in an object", final=True)
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Malformed(f"the number {digits[:20]} is too large", final=True)
    return value


def _no_constant(name: str) -> NoReturn:
    raise _Malformed(f"{name} is not a JSON number", final=True)


_DECODER: Final = json.JSONDecoder(
    strict=False, object_pairs_hook=_object, parse_float=_float, parse_constant=_no_constant
)


def _depth(value: object) -> int:
    depth, level = 0, [value]
    while level := [child for parent in level for child in _children(parent)]:
        depth += 1
    return depth


def _children(value: object) -> Iterator[Any]:
    if isinstance(value, Mapping):
        return iter(value.values())
    return iter(value if isinstance(value, list) else ())


def _has_surrogate(value: Any, text: str) -> bool:  # noqa: ANN401 - any JSON value
    if text.isascii() and "\\ud" not in text.lower():
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _values(text: str) -> Iterator[_JsonValue]:
    """Find the JSON values in a text; brackets in plain prose are not values.

    A closing bracket after a value that has no opening one belongs into the value: a quotation mark in it was
    not escaped.
    """
    at, is_after = 0, False
    while bracket := _BRACKET.search(text, at):
        if is_after and _closes(text[at : bracket.start()]):
            raise _Malformed("a closing bracket after the value has no opening one")
        flat = _FLAT.match(text, bracket.start())
        if flat:
            at = flat.end()
            yield from _small(flat.group())
            continue
        start = bracket.start()
        repaired, at = _repaired(text, start)
        is_after = True
        yield _JsonValue(_loads(repaired), flat=False, source=text[start:at])
    if is_after and _closes(text[at:]):
        raise _Malformed("a closing bracket after the value has no opening one")


def _closes(text: str) -> bool:
    """Whether prose has a closing bracket; surplus ones right after a value are ignored."""
    return any(bracket in text.lstrip("]} \t\r\n") for bracket in "]}")


def _small(text: str) -> Iterator[_JsonValue]:
    try:
        yield _JsonValue(_loads(_repaired(text, 0)[0]), flat=True, source=text)
    except _Malformed as error:
        if error.final or _FIELD.match(text):
            raise


def _single(entries: list[_JsonValue]) -> _JsonValue:
    """Return the only value; flat ones (citation marks) count where there is no other."""
    values = [entry for entry in entries if not entry.flat]
    if not values:
        values = [entry for entry in entries if isinstance(entry.value, dict)] or entries
    if len(values) > 1:
        raise _Malformed(f"{len(values)} JSON values are ambiguous")
    if not values:
        raise _Malformed("it has none")
    return values[0]


def _repaired(text: str, start: int) -> tuple[str, int]:
    """Return the bracketed text from ``start`` to its closing bracket as strict JSON, and where it ends."""
    parts: list[str] = []
    depth, previous = 0, ""
    for token in _TOKEN.finditer(text, start):
        part = token.group()
        if token["unclosed"] is not None:
            raise _Malformed(f"the string at character {token.start()} is never closed")
        if part in "]}" and previous == "," and len(parts) > 1 and parts[-2] not in "[{,":
            parts.pop()
        parts.append(_string(part) if part[0] == '"' else part)
        depth += (part in "[{") - (part in "]}")
        previous = part
        if depth > _MAX_DEPTH:
            raise _Malformed("nested too deeply", final=True)
        if depth == 0:
            return " ".join(parts), token.end()
    raise _Malformed(f"the bracket at character {start} is never closed")


def _string(quoted: str) -> str:
    r"""Double the backslashes that escape nothing.

    In a string that has one, ``\f`` and ``\b`` before a letter and LaTeX commands such as ``\times`` are not
    escapes either: the model did not escape backslashes in it.
    """
    if not any(match.group(1) for match in _INVALID_ESCAPE.finditer(quoted)):
        return quoted
    if _PATH.search(quoted) and _CONTROL.search(quoted):
        raise _Malformed("a path with unescaped backslashes is ambiguous")
    return _LATEX.sub(_doubled, quoted)


def _doubled(match: re.Match[str]) -> str:
    literal = match["literal"] is not None or match["other"] is not None
    return f"\\{match.group()}" if literal else match.group()
