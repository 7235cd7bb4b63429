"""The alternatives at one token of a reply, read without building those of all others.

The log-probabilities of a reply of 95 tokens are 38 of its 40 kB, and one token is read. Their list is taken out of the
body as bytes, and only the tokens near its end are read, where the letter is. JSON text makes that safe: a quotation mark
inside a string is escaped, so a key with its colon cannot be part of one. A body in which anything differs from vLLM's
form is read whole.
"""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import orjson

from qaeval.chat.protocol import Alternatives

_LIST: Final = b',"logprobs":{"content":['
_LIST_END: Final = b"]}]"
"""Ends of the last token's alternatives, of the token, and of the list."""
_TOKEN: Final = b'{"token":'
_AFTER: Final = len(_TOKEN)
_LOGPROB: Final = b',"logprob":'
_TOP: Final = b',"top_logprobs":['
_TAIL: Final = 24
"""Tokens that are read first: from the name of the field with the letter to the end of the reply there are about 15 to 20."""
_ROUNDING: Final = 0.01
"""A log-probability may be this far above 0."""

NOT_READABLE: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What `alternatives` raises for log-probabilities that are not in the form of the API."""


def load_reply(body: bytes) -> tuple[Any, bytes]:
    """Parse a chat completion, and leave the list of its log-probabilities as it is.

    Returns:
        The reply, and the tokens of the list as JSON without its brackets. They are empty, and part of the reply, where
        the list is not in vLLM's form.

    Raises:
        ValueError: the body is not JSON.
    """
    start, end = body.find(_LIST) + len(_LIST), body.rfind(_LIST_END) + 2
    if len(_LIST) <= start < end:
        try:
            reply = orjson.loads(body[:start] + body[end:])
            if reply["choices"][0]["logprobs"]["content"] == []:
                return reply, body[start:end]
        except (LookupError, TypeError, ValueError):
            pass  # another list ended there
    return orjson.loads(body), b""


def alternatives(
    logprobs: Mapping[str, Any] | None, tokens: bytes, pattern: re.Pattern[str] | None
) -> Alternatives | None:
    """Return the alternatives at the match alone; None where there is no match, or nothing was asked for.

    Args:
        logprobs: of the reply.
        tokens: what `load_reply` left of them.
        pattern: finds the token: the first group of its last match in the text of all tokens. It does not depend on
            text before the match.

    Raises:
        NOT_READABLE: they are not in the form of the API.
    """
    if pattern is None:
        return None
    if not tokens:
        return _in_list((logprobs or {}).get("content") or (), pattern)
    try:
        return _in_bytes(tokens, pattern)
    except NOT_READABLE:
        return _in_list(orjson.loads(b"[%b]" % tokens), pattern)


def joint_probability(
    logprobs: Mapping[str, Any] | None, tokens: bytes, pattern: re.Pattern[str] | None
) -> float | None:
    """Return the product over the tokens of all matches, 0 to 1; None where there is no match, or nothing was asked for.

    Args:
        logprobs: of the reply.
        tokens: what `load_reply` left of them.
        pattern: finds the parts: the first group of each match in the text of all tokens.

    Raises:
        NOT_READABLE: they are not in the form of the API.
    """
    if pattern is None:
        return None
    listed = orjson.loads(b"[%b]" % tokens) if tokens else (logprobs or {}).get("content") or ()
    texts = [token["token"] for token in listed]
    ends = list(accumulate(map(len, texts)))
    spans = [match.span(1) for match in pattern.finditer("".join(texts))]
    named = {
        at for start, end in spans for at in range(bisect_right(ends, start), bisect_left(ends, end) + 1)
    }
    return math.exp(min(0.0, sum(_logprob(listed[at]["logprob"]) for at in named))) if named else None


def _in_bytes(tokens: bytes, pattern: re.Pattern[str]) -> Alternatives | None:
    """Find the token from the end of the list."""
    pieces: list[bytes] = [tokens]
    texts: list[str] = []
    for n_read in (_TAIL, -1):
        # each piece but the last one ends with a token, without its alternatives
        earlier = pieces[0].rsplit(_TOP, n_read)
        literals = [piece[piece.rindex(_TOKEN) + _AFTER : piece.rindex(_LOGPROB)] for piece in earlier[:-1]]
        pieces[:1], texts[:0] = earlier, orjson.loads(b"[%b]" % b",".join(literals))
        if place := _place(texts, pattern):
            index, at = place
            rest = pieces[index + 1]
            if index + 2 < len(pieces):
                rest = rest[: rest.rindex(_TOKEN)]
            piece = pieces[index]
            token = orjson.loads(piece[piece.rindex(_TOKEN) :] + b"}")
            token["top_logprobs"] = orjson.loads(b"[" + rest[: rest.rindex(b"]}") + 1])
            return Alternatives(texts[index], at, _top(token))
        if len(texts) < _TAIL:
            break
    return None


def _in_list(tokens: Sequence[Mapping[str, Any]], pattern: re.Pattern[str]) -> Alternatives | None:
    texts = [token["token"] for token in tokens]
    place = _place(texts, pattern)
    return Alternatives(texts[place[0]], place[1], _top(tokens[place[0]])) if place else None


def _place(texts: Sequence[str], pattern: re.Pattern[str]) -> tuple[int, int] | None:
    """Return the index of the token with the match, and the place inside its text."""
    matches = list(pattern.finditer("".join(texts)))
    if not matches:
        return None
    at = matches[-1].start(1)  # the last match: a reason may quote the field
    ends = list(accumulate(map(len, texts)))
    index = bisect_right(ends, at)
    return index, at - (ends[index] - len(texts[index]))


def _top(token: Mapping[str, Any]) -> dict[str, float]:
    """Return log-probabilities by text; tokens with the same text and different ids are added up."""
    top: dict[str, float] = {}
    for alternative in token.get("top_logprobs") or ():
        text, logprob = alternative["token"], _logprob(alternative["logprob"])
        if text in top:
            low, high = sorted((top[text], logprob))
            logprob = high + math.log1p(math.exp(low - high))
        top[text] = logprob
    top.setdefault(token["token"], _logprob(token["logprob"]))
    return top


def _logprob(value: Any) -> float:  # noqa: ANN401 - any JSON value
    """Check a log-probability.

    Raises:
        ValueError: it is no number of at most 0, rounding aside; vLLM writes -9999 for minus infinity.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value <= _ROUNDING:
        raise ValueError("expected a log-probability")
    return float(value)
