"""Split Markdown into sentence-like units, words, numbers and names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from qaeval.text.lexicon import (
    ABBREVIATIONS,
    ENGLISH_MARKS,
    ENGLISH_STOP,
    GERMAN_MARKS,
    GERMAN_STOP,
    MONTHS,
    NUMBER_WORDS,
    word_set,
)

__all__ = [
    "Unit",
    "content_words",
    "count_words",
    "has_no_spaces",
    "is_german",
    "named_terms",
    "numbers",
    "sentences",
    "stem",
    "units",
    "word_pattern",
    "words",
]

UnitKind = Literal["sentence", "item", "row", "heading", "code"]

_WORD = re.compile(r"[^\W_]+(?:[-_.'’/:@][^\W_]+|_+[^\W_]+)*%?")
_CHARACTERS = "\u3040-\u30ff\u3400-\u9fff"
"""Chinese and Japanese: each character counts as a word."""
_LETTERS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Thai, Lao, Burmese and Khmer: four letters count as a word."""
_SPACELESS = re.compile(rf"[{_CHARACTERS}{_LETTERS}]")
_SPACELESS_SHARE = 0.1
_NUMBER = re.compile(r"(?<![A-Za-z_\d.])(?<![A-Za-z]-)\d+(?:[.,]\d+)*(?:\s?%)?")
_FENCE = re.compile(r"^\s*(```|~~~)")
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+(.*)$")
_ITEM = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])\s+(?:\[[ xX]\]\s+)?(\S.*)$")
_RULE = re.compile(r"^\s*+\|?\s*+:?-{2,}+:?\s*+(?:\|\s*+:?-*+:?\s*+)*+\|?\s*+$")
_BOUNDARY = re.compile(r"(?<![.!?…])[.!?…]++[\"”’»)\]]*\s+|[。！？]\s*")
_LINK = re.compile(r"!?\[([^\[\]]{1,200})\]\([^()\s]{1,500}\)")
_TAG = re.compile(
    r"</?(?:h\d|p|em|img|a|abbr|br|div|span|strong|b|i|details|summary|sub|sup|kbd)\b[^<>`]{0,500}>"
)
_EMPHASIS = re.compile(r"\*\*|(?<!\w)(?:[*_]|__)(?=[^\s*_])|(?<=[^\s*_])(?:[*_]|__)(?!\w)")
_SENTENCE_STARTERS = word_set(
    "The A An It This These In If When For Each You We They No All To Der Die Das Es Ein Eine Wenn Sie Wir"
)
_CACHED_TEXTS = 256
"""Texts that each function caches: a chunk is analysed once per item about it."""
_CACHED_SENTENCES = 8192
"""Cached sentences; the words of a sentence are compared with those of many others."""
_LONG_STEM, _SHORT_STEM = 5, 3
_VOWEL = re.compile(r"[aeiouyäöü]")
_DAY_DIGITS = 2
"""``3. Oktober`` and ``12. Mai``: the full stop after a day does not end a sentence."""


@dataclass(frozen=True)
class Unit:
    """A piece of a chunk that can be quoted on its own."""

    kind: UnitKind
    text: str
    """Text without Markdown emphasis and links; a table row reads ``key: column value; column value``."""
    block: int
    """Number of its paragraph, list or table."""
    heading: str
    """The closest heading above it; empty if there is none."""
    cells: tuple[tuple[str, str], ...] = ()
    """Column and value pairs of a table row."""


def units(text: str) -> list[Unit]:
    """Split a chunk into headings, sentences, list items, table rows and code blocks, in their order.

    Args:
        text: Markdown or plain text.

    Returns:
        The units; empty only if the text has no visible characters.
    """
    return list(_units(text))


@lru_cache(maxsize=_CACHED_TEXTS)
def _units(text: str) -> tuple[Unit, ...]:
    result: list[Unit] = []
    heading = ""
    for number, (kind, lines) in enumerate(_blocks(text)):
        if kind == "heading":
            heading = _clean(lines[0])
        if kind == "row":
            result.extend(Unit("row", row, number, heading, cells) for row, cells in _rows(lines))
        elif kind == "code":
            result.append(Unit("code", "\n".join(lines).strip(), number, heading))
        else:
            prose = _clean(" ".join(lines))
            parts = [prose] if kind == "heading" else _split(prose)
            result.extend(Unit(kind, part, number, heading) for part in parts)
    return tuple(unit for unit in result if unit.text)


def sentences(text: str) -> list[str]:
    """Return the sentences, list items and table rows of a chunk, without its headings and code blocks.

    Args:
        text: Markdown or plain text.

    Returns:
        The sentences in their order; empty if the chunk is only code or headings.
    """
    return list(_sentences(text))


@lru_cache(maxsize=_CACHED_TEXTS)
def _sentences(text: str) -> tuple[str, ...]:
    return tuple(unit.text for unit in units(text) if unit.kind not in {"heading", "code"})


def words(text: str) -> list[str]:
    """Return lower-case tokens: hyphenated words, identifiers, numbers with their unit or percent sign."""
    return list(_words(text))


@lru_cache(maxsize=_CACHED_TEXTS)
def _words(text: str) -> tuple[str, ...]:
    return tuple(match.casefold() for match in _WORD.findall(text))


def word_pattern(characters: str = "") -> re.Pattern[str]:
    """Return a pattern of words between spaces, or what counts as one in scripts that have no spaces.

    Args:
        characters: Further characters that count as a word each, as a range of a regular expression.
    """
    single = _CHARACTERS + characters
    return re.compile(rf"[{single}]|[{_LETTERS}]{{1,4}}|[^\s{single}{_LETTERS}]+")


_COUNTED = word_pattern()


def count_words(text: str) -> int:
    """Count the words between spaces; of Chinese and Japanese each character, of Thai, Lao, Burmese and Khmer four letters."""
    return len(text.split()) if text.isascii() else len(_COUNTED.findall(text))


def has_no_spaces(text: str) -> bool:
    """Whether a text is in a script without spaces, so that its words are not known; a few quoted words do not count."""
    return len(_SPACELESS.findall(text)) > _SPACELESS_SHARE * len(text)


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """Return a light stem that joins the inflections of an English or German word; at least three letters."""
    if word.endswith("ies") and len(word) > _LONG_STEM:
        word = word[:-3] + "y"
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > _SHORT_STEM:
        word = word[:-1]
    shorter = _strip_suffix(word)
    while shorter != word:
        word, shorter = shorter, _strip_suffix(shorter)
    return word


def content_words(text: str) -> list[str]:
    """Return the stems of all words but English and German stop words."""
    return list(_content_words(text))


@lru_cache(maxsize=_CACHED_SENTENCES)
def _content_words(text: str) -> tuple[str, ...]:
    return tuple(stem(word) for word in _words(text) if word not in ENGLISH_STOP and word not in GERMAN_STOP)


def content_stems(text: str) -> frozenset[str]:
    """Return the different `content_words` of a text; faster than these where most words repeat."""
    return frozenset(map(stem, set(_words(text)).difference(ENGLISH_STOP, GERMAN_STOP)))


def number_values(text: str) -> frozenset[str]:
    """Return the different `numbers` of a text, faster than these."""
    spelled = {NUMBER_WORDS[word] for word in set(_words(text)) & NUMBER_WORDS.keys()}
    return frozenset(map(_plain, _NUMBER.findall(text))) | spelled


def numbers(text: str) -> list[str]:
    """Return normalised numbers in order: ``1,000`` is ``1000``, ``1,5`` is ``1.5``, ``three`` is ``3``.

    Args:
        text: Any text. Digits inside a name (``qwen2.5-7b``, ``utf-8``) are not numbers.

    Returns:
        The numbers without units; a percentage keeps its sign (``5 %`` is ``5%``).
    """
    return list(_numbers(text))


@lru_cache(maxsize=_CACHED_TEXTS)
def _numbers(text: str) -> tuple[str, ...]:
    numbers_at = [(match.start(), _plain(match.group())) for match in _NUMBER.finditer(text)]
    for match in _WORD.finditer(text):
        spelled = NUMBER_WORDS.get(match.group().casefold())
        if spelled is not None:
            numbers_at.append((match.start(), spelled))
    return tuple(number for _, number in sorted(numbers_at))


def named_terms(text: str) -> list[str]:
    """Return names and identifiers: capitalised words, CamelCase, ALLCAPS, with digits or underscores.

    Args:
        text: Any text. In German, where every noun is capitalised, a capital alone does not make a name.

    Returns:
        Each term once, in the order of its first appearance.
    """
    return list(_named_terms(text))


@lru_cache(maxsize=_CACHED_TEXTS)
def _named_terms(text: str) -> tuple[str, ...]:
    german = is_german(text)
    terms: dict[str, None] = {}
    for sentence in sentences(text):
        for position, match in enumerate(_WORD.finditer(sentence)):
            word = match.group()
            capital = word[0].isupper() and position > 0 and not german and word != "I"
            quoted = sentence[match.start() - 1 : match.start()] == "`"
            if capital or quoted or _looks_like_identifier(word):
                terms.setdefault(word)
    return tuple(terms)


def is_german(text: str) -> bool:
    """Whether the text has more German-only words than English-only words."""
    german = english = 0
    for word in words(text[:20_000]):
        german += word in GERMAN_MARKS
        english += word in ENGLISH_MARKS
    return german > english


def _looks_like_identifier(word: str) -> bool:
    inner_capital = any(letter.isupper() for letter in word[1:])
    letters = any(letter.isalpha() for letter in word)
    digits = any(letter.isdigit() for letter in word) and not word[0].isdigit()
    return letters and (inner_capital or digits or "_" in word)


def _plain(number: str) -> str:
    percent = "%" if number.endswith("%") else ""
    digits = number.rstrip("%").strip()
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", digits):
        digits = digits.replace(",", "")
    return digits.replace(",", ".") + percent


def _strip_suffix(word: str) -> str:
    for suffix, ending in (("ing", ""), ("ern", "er"), ("ed", ""), ("en", ""), ("e", "")):
        root = word.removesuffix(suffix)
        if root == word or len(root) < _SHORT_STEM or not _VOWEL.search(root) or root.endswith("e"):
            continue
        if (
            suffix in {"ing", "ed"}
            and root[-1] == root[-2]
            and root[-1] not in "lsfz"
            and len(root) > _SHORT_STEM
        ):
            root = root[:-1]
        return root + ending
    return word


def _clean(text: str) -> str:
    text = _TAG.sub("", _LINK.sub(r"\1", _LINK.sub(r"\1", text)))  # a link may hold an image
    parts = text.split("`")  # odd parts are between backticks, where an asterisk is part of the name
    parts[::2] = [_EMPHASIS.sub("", part) for part in parts[::2]]
    return " ".join("`".join(parts).split())


def _blocks(text: str) -> Iterator[tuple[UnitKind, list[str]]]:
    """Group lines into blocks of one kind; a list item is a block of its own."""
    kind: UnitKind = "sentence"
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        if _FENCE.match(line):
            if lines:
                yield kind, lines
            fenced, lines = not fenced, []
            kind = "code" if fenced else "sentence"
            continue
        if fenced:
            lines.append(line)
            continue
        next_kind, content = _kind(line, kind if lines else "sentence")
        if lines and (next_kind != kind or next_kind == "heading" or not content or _ITEM.match(line)):
            yield kind, lines
            lines = []
        kind = next_kind
        if content:
            lines.append(content)
    if lines:
        yield kind, lines


def _kind(line: str, current: UnitKind) -> tuple[UnitKind, str]:
    """Return the kind and content of a line outside a fence; a blank line has no content."""
    bare = line.strip().removeprefix("> ")
    if not bare:
        return "sentence", ""
    heading = _HEADING.match(line)
    if heading:
        return "heading", heading.group(1).rstrip("#").rstrip()
    item = _ITEM.match(line)
    if item:
        return "item", item.group(1)
    if bare.startswith("|") or (current == "row" and "|" in bare):
        return "row", bare
    if current == "item" and line[:1].isspace():
        return "item", bare
    return "sentence", bare


def _rows(lines: list[str]) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    table = [
        [_clean(cell) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        for line in lines
        if not _RULE.match(line)
    ]
    ruled = any(_RULE.match(line) for line in lines)
    header = table[0] if ruled and len(table) > 1 else []
    for row in table[1:] if header else table:
        named = zip(header or [""] * len(row), row, strict=False)
        cells = tuple((column, value) for column, value in named if value)
        if cells:
            others = "; ".join(f"{column} {value}".strip() for column, value in cells[1:])
            yield f"{cells[0][1]}: {others}" if others else cells[0][1], cells


def _split(prose: str) -> list[str]:
    parts: list[str] = []
    start = 0
    for match in _BOUNDARY.finditer(prose):
        if _ends_sentence(prose, start, match):
            parts.append(prose[start : match.end()].strip())
            start = match.end()
    parts.append(prose[start:].strip())
    return [part for part in parts if part]


def _ends_sentence(prose: str, start: int, match: re.Match[str]) -> bool:
    mark = match.group()[0]
    if mark in "。！？":
        return True
    following = prose[match.end() : match.end() + 40].split(" ", 1)[0]
    if not following or (following.isalpha() and following.islower()):
        return False
    if mark != ".":
        return True
    before = (
        prose[max(start, match.start() - 20) : match.start()].rsplit(" ", 1)[-1].lstrip("([\"'„“").casefold()
    )
    is_date = before.isdigit() and len(before) <= _DAY_DIGITS and following.casefold() in MONTHS
    if before in ABBREVIATIONS or is_date:
        return False
    return not (len(before) == 1 and before.isalpha() and following not in _SENTENCE_STARTERS)
