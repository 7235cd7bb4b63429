"""Text that a model could take for control: special tokens of chat templates, and the marks of a fence.

A space breaks such text, after the first character of a special token and inside a mark: ``<|im_end|>`` becomes
``< |im_end|>``, which no tokenizer turns into one id. Only prompts are altered; what is stored stays as it is.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_MAX_PIECE: Final = 64
"""Characters between the brackets of a special token; the longest known ones have about 40."""

_NAMES: Final = (
    r"/?(?:s|bos|eos|pad|unk|mask|sep|cls|sop|eop|eod|eot|bom|eom|sot|think|tool_calls?|tool_responses?|function_calls?"
    r"|PRE|SUF|MID|EOT|BOS|EOS|PAD|UNK|AI|USER|SYS)"
    r"|(?:start|end|begin)_of_\w{1,40}|end_?of_?(?:text|turn)|im_(?:start|end)|fim[_-]\w{1,20}|(?:BOS|EOS|PAD|UNK|MASK|SEP|CLS)_TOKEN"
    r"|\w{1,30}_(?:soft_)?token|unused_?\d{1,6}|extra(?:_id)?_\d{1,6}|reserved_\w{1,40}|SPECIAL_\d{1,6}|ctrl\d{1,6}|control_\d{1,6}"
    r"|repo_?name|file_sep|gh_stars|issue_(?:start|comment|closed)|jupyter_\w{1,30}|commit_(?:before|msg|after)|empty_output"
    r"|seed:\w{1,40}|minimax:\w{1,40}|/seed:\w{1,40}|/minimax:\w{1,40}"
)
"""Special tokens of the shape ``<name>``."""
_CAPITALS: Final = (
    r"/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|THINK|MODEL_SETTINGS|ARGS|CALL_ID|IMG(?:_BREAK|_END)?"
    r"|(?:BEGIN_)?AUDIO|PREFIX|SUFFIX|MIDDLE|REFERENCE_DOC_\d{1,4}|[gsx]?MASK|CLS|SEP|PAD|UNK|BOS|EOS|UNUSED_TOKEN_\d{1,6}|unused\d{1,6}"
    r"|control_\d{1,6})"
)
"""Special tokens of the shape ``[NAME]``."""
_SPECIAL: Final = re.compile(
    rf"[<＜](?=[|｜][^<>＜＞\n]{{1,{_MAX_PIECE}}}[>＞]|[^<>＜＞|｜\s][^<>＜＞|｜\n]{{0,{_MAX_PIECE}}}[|｜][>＞]|(?:{_NAMES})[>＞]|</?SYS>>)"
    rf"|\[(?=\|[^\[\]\n]{{1,{_MAX_PIECE}}}\|\]|(?:{_CAPITALS})\])"
    r"|[\[\]](?=[!a-z]{0,3}~[!a-z]{0,3}[\[\]])|>(?=>[A-Z]{2,20}<<)"
)
"""The first character of a special token of a known chat template: ChatML, Llama, Mistral, Gemma, Phi, DeepSeek, Cohere,
Harmony, Granite, GLM, Falcon, EXAONE, MiniMax, Nemotron, T5, BERT, and those of code models for filling in the middle."""

_BRACKETS: Final = "<＜[]>"
"""A text without any of these has no special token; most texts have none."""
_PIECE: Final = re.compile(rf"(?=(<[^<>\s]{{1,{_MAX_PIECE}}}>|\[[^\[\]\s]{{1,{_MAX_PIECE}}}\]))")
"""Pieces that may be special tokens of an unknown tokenizer; they overlap."""
_FENCE: Final = re.compile(
    r"<\s{0,4}/?\s{0,4}(?:title|source|expected|question|answer|prompt|chosen|rejected)\s{1,4}[0-9a-f]{4}(?=[0-9a-f]{4})",
    re.IGNORECASE,
)
"""A tag like those of the judge's fence, with any mark, up to the middle of the mark."""


@dataclass(frozen=True, slots=True)
class Escaped:
    """A text in which nothing acts as control.

    Attributes:
        text: the text, with a space in each place that was broken.
        n_tokens: special tokens that were broken.
        n_marks: marks and tags of the fence that were broken.
    """

    text: str
    n_tokens: int
    n_marks: int


@lru_cache(maxsize=64)
def unknown_pieces(text: str) -> frozenset[str]:
    """Return the pieces of the shapes ``<…>`` and ``[…]`` that may be special tokens and have no known form."""
    if "<" not in text and "[" not in text:
        return frozenset()
    return frozenset(piece for piece in _PIECE.findall(text) if not _SPECIAL.match(piece))


def escape(text: str, special: Collection[str] = (), mark: str = "") -> Escaped:
    """Break the special tokens of a text, and marks and tags of a fence.

    Args:
        text: any text.
        special: pieces of the shapes ``<…>`` and ``[…]`` that the model's tokenizer turns into one id.
        mark: mark of the fence around the text, of hex digits; empty: there is no fence.
    """
    escaped, n_tokens = text, 0
    if any(bracket in text for bracket in _BRACKETS):
        escaped, n_tokens = _SPECIAL.subn(r"\g<0> ", text)
    for piece in special:
        if n := escaped.count(piece):
            n_tokens += n
            escaped = escaped.replace(piece, f"{piece[0]} {piece[1:]}")
    if not mark:
        return Escaped(escaped, n_tokens, 0)
    escaped, n_marks = _FENCE.subn(r"\g<0> ", escaped) if "<" in escaped else (escaped, 0)
    if mark in escaped.lower():
        middle = len(mark) // 2
        escaped, n = re.subn(f"({mark[:middle]})({mark[middle:]})", r"\1 \2", escaped, flags=re.IGNORECASE)
        n_marks += n
    return Escaped(escaped, n_tokens, n_marks)
