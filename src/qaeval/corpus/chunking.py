"""Cut documents into chunks: whole blocks up to a size in tokens, verbatim slices of the source.

A document consists of units that are not cut: headings, sentences, table rows, lines of code; one that is far
above the size is cut at spaces into several. A chunk is a run of units; a piece of a table also repeats the
table's header, and a piece of a fenced block the fence.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, groupby, takewhile, zip_longest
from math import ceil
from pathlib import Path, PurePosixPath
from typing import Any, Final

from qaeval.corpus.reading import MARKDOWN, Document, code_spans, inline_text
from qaeval.errors import DataError, UsageError, install_command
from qaeval.records import record_id
from qaeval.text.lexicon import ABBREVIATIONS
from qaeval.text.units import word_pattern

_PLAIN: Final = frozenset({"heading_open", "hr", "gap"})
_LEAVES: Final = _PLAIN | {"paragraph_open", "table_open", "fence", "code_block", "html_block"}
_ATOM: Final = re.compile(r"`+|\]\([^()\s]*\)|<[^<>\s][^<>]*>")
_SENTENCE_END: Final = re.compile(
    r"""(?:(?<![.!?…])[.!?…]++["'”’»)\]*_]*(?=\s+(\S))|[。！？]+["”』）]*(?=\s*\S))\s*"""
)
_LAST_WORD: Final = re.compile(r"[^\s(\[\"'„“]+$")
_NUMBERED: Final = re.compile(r"[\s>*_+-]*\d+")
_LIST_MARKER: Final = re.compile(r"^(?:[\s>]*(?:[-*+]|\d{1,9}[.)])[ \t]+)+")
_LONG_SENTENCE: Final = 8
"""Lines; a longer paragraph without the end of a sentence is a listing, and is split at its lines."""
_WORD: Final = word_pattern(characters="\uac00-\ud7af")
"""A word as `count_words` has it; Korean has spaces, but a token is hardly more than one of its syllables."""
_VISIBLE: Final = re.compile(r"\S")

_LONG_WORD: Final = 2_000
"""Characters; of a longer word, like base64 data, each five count as a word."""
_FAR_ABOVE: Final = 8
"""Sizes that a sentence, row or line of code may take before it is cut."""
_NEVER_CUT: Final = 2_000
"""Tokens of a unit that is not cut, however small the size."""
_ALWAYS_CUT: Final = 15_000
"""Tokens of a unit that is cut, however large the size: a run refuses chunks of 20,000 words."""
_CLOSE: Final = 16
"""Units by which an estimate may be too large before it is halved."""
_MAX_TITLE: Final = 1_000
_MAX_REPEATED: Final = 10_000
"""Characters of a table header that each of its chunks repeats."""


@dataclass(frozen=True)
class DocumentChunk:
    """A chunk; the field names are the keys of its row."""

    chunk_id: str
    text: str
    title: str
    """The headings above all of the chunk, ``Guide > Install > From source``."""
    stratum: str
    """The document's top folder; without a folder the document's name without suffix."""
    document: str
    language: str
    place: Mapping[str, list[int]]
    """First and last line, page or (for HTML) block in the source, from 1: ``{"lines": [12, 40]}``."""
    n_tokens: int

    def row(self) -> dict[str, Any]:
        """Return the row of a JSON Lines file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Unit:
    """A span of the document's text that is not cut."""

    start: int
    end: int
    rank: int
    """Nesting depth of its start: 0 starts a block. A cut before a lower rank is better."""
    level: int
    """Level of a heading, 1 to 6; 0 for other units."""
    binds: bool
    """Whether it is a heading with content below it; no chunk ends with such a heading."""
    block: int
    section: int
    path: tuple[str, ...]
    before: str
    after: str
    """Lines of a table or fenced block that a chunk repeats if it begins (``before``) or ends (``after``)
    here."""


def words_counter() -> Callable[[str], int]:
    """Return a counter without a tokenizer: four tokens per three words."""

    def count(text: str) -> int:
        words = _WORD.findall(text)
        n = len(words)
        if len(text) > _LONG_WORD:
            long_words = (word for word in words if len(word) > _LONG_WORD)
            n += sum(sum(map(str.isalnum, word)) // 5 for word in long_words)
        return ceil(n * 4 / 3)

    return count


def tokenizer_counter(path: Path) -> Callable[[str], int]:
    """Return a counter that uses a model's tokenizer; nothing is downloaded.

    Args:
        path: A ``tokenizer.json``, or its folder.

    Raises:
        DataError: the file is missing or invalid.
        UsageError: the package tokenizers is not installed.
    """
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - optional dependency
    except ImportError as error:
        raise UsageError(
            f"--tokenizer needs the package tokenizers: {install_command('tokenizer')}"
        ) from error

    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{file}: no such file; expected a model's tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain exceptions
        raise DataError(f"{file}: not a tokenizer.json of the tokenizers library: {error}") from error
    tokenizer.no_truncation()  # with the file's truncation all long texts would have the same length
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def chunk_documents(
    documents: Iterable[Document],
    *,
    size: int,
    overlap: int = 0,
    count: Callable[[str], int],
    min_tokens: int | None = None,
) -> Iterator[DocumentChunk]:
    """Cut documents into chunks.

    Chunks are filled with whole blocks. A block that is larger than ``size``, or that does not fit into a
    chunk with fewer than ``min_tokens`` tokens, is split between list items, table rows, lines of code or
    sentences; a single one of these is not cut, even if it is larger than ``size``, unless it is far larger:
    then it is cut at spaces, or at characters where it has none. A heading starts a new chunk once the
    current chunk has ``min_tokens`` tokens, and stays with the text below it. Every line is in one chunk, if
    it is not cut; with ``overlap``, the last units of a chunk are repeated in the next chunk of the same
    section.

    Args:
        documents: Documents with unique names.
        size: Maximum number of tokens of a chunk; only headings or a larger single unit exceed it.
        overlap: Maximum number of repeated tokens.
        count: Counts the tokens of a text.
        min_tokens: See above; None: a quarter of ``size``.

    Raises:
        UsageError: the sizes are inconsistent.
        DataError: two documents have the same name.
    """
    min_tokens = size // 4 if min_tokens is None else min_tokens
    if size < 1 or not 0 <= overlap < size or not 0 <= min_tokens <= size:
        raise UsageError(
            f"size {size}, overlap {overlap}, least {min_tokens}: "
            "expected size >= 1, 0 <= overlap < size and 0 <= least <= size"
        )
    names: set[str] = set()
    for document in documents:
        if document.name in names:
            raise DataError(f"{document.path}: duplicate document name {document.name!r}; rename one of them")
        names.add(document.name)
        yield from _Chunker(document, count, (size, overlap, min_tokens)).chunks()


class _Chunker:
    def __init__(self, document: Document, count: Callable[[str], int], sizes: tuple[int, int, int]) -> None:
        self.document, self.count, (self.size, self.overlap, self.min_tokens) = document, count, sizes
        self.text = "\n".join(line.text for line in document.lines)
        self.offsets = [0, *accumulate(len(line.text) + 1 for line in document.lines)]
        self.longest = max(self.size, _NEVER_CUT, min(_FAR_ABOVE * self.size, _ALWAYS_CUT))
        self.units = _units(document, self.text, self.offsets, self._pieces)
        ends = [*(unit.start for unit in self.units[1:]), len(self.text)]
        spans = zip(self.units, ends, strict=False)
        self.sums = [0, *accumulate(count(self.text[unit.start : end]) for unit, end in spans)]

    def _pieces(self, start: int, end: int, repeated: str) -> Iterator[tuple[int, int]]:
        """Cut a unit that is far above the size at spaces, or where it has none at characters.

        Args:
            start: Its start.
            end: Its end.
            repeated: Text that is added to each piece.
        """
        n_tokens = self.count(self.text[start:end]) if end - start > self.longest else 0
        if n_tokens <= self.longest:
            yield start, end
            return
        size = max(self.size // 2, self.size - self.count(repeated), 1)
        n_chars = max(1, (end - start) * size // n_tokens)
        while start < end:
            stop = self._piece_end(start, end, n_chars, size)
            yield start, stop
            following = _VISIBLE.search(self.text, stop, end)
            start = following.start() if following else end

    def _piece_end(self, start: int, end: int, n_chars: int, size: int) -> int:
        """Return the end of a piece of the size: of whole words, or of so many characters of a long one."""
        while True:
            piece = self.text[start : min(start + n_chars + 1, end)]
            if len(piece) > n_chars:
                head, *tail = piece.rsplit(None, 1)
                piece = piece.rstrip() if piece[-1].isspace() else head if tail else piece[:-1]
            if n_chars == 1 or (n_tokens := self.count(piece)) <= size:
                return start + len(piece)
            n_chars = max(1, n_chars * size // n_tokens)

    def slice(self, first: int, end: int) -> str:
        """Return the text of units, with the repeated lines of a table or fenced block."""
        head, tail = self.units[first], self.units[end - 1]
        return head.before + self.text[head.start : tail.end] + tail.after

    def fits(self, first: int, end: int) -> bool:
        return self.count(self.slice(first, end)) <= self.size

    def chunks(self) -> Iterator[DocumentChunk]:
        first = next_unit = ordinal = 0
        while next_unit < len(self.units):
            first = self._first_unit(next_unit, first)
            end = self._last_end(first, next_unit)
            ordinal += 1
            yield self._chunk(ordinal, first, end)
            next_unit = end

    def _first_unit(self, next_unit: int, previous: int) -> int:
        """Step back from the first new unit over the units of the overlap."""
        units, first = self.units, next_unit
        while (
            first > previous
            and units[first - 1].section == units[next_unit].section
            and not units[first - 1].level
            and self.count(self.slice(first - 1, next_unit)) <= self.overlap
            and self.fits(first - 1, next_unit + 1)
        ):
            first -= 1
        return first

    def _last_end(self, first: int, next_unit: int) -> int:
        """Choose the end of a chunk: before a heading, or else at the lowest nesting depth."""
        units = self.units
        earliest = next_unit + 1
        while units[earliest - 1].binds:
            earliest += 1
        furthest = self._fitting_end(first, earliest)
        ends = [end for end in range(earliest, furthest + 1) if not units[end - 1].binds]
        for end in ends:
            if end < len(units) and units[end].level and self._is_large_enough(next_unit, end):
                return end
        if furthest == len(units):
            return furthest
        ranked = sorted(ends, key=lambda end: (units[end].rank, -end))
        return next((end for end in ranked if self._is_large_enough(next_unit, end)), ends[-1])

    def _is_large_enough(self, first: int, end: int) -> bool:
        return self.count(self.slice(first, end)) >= self.min_tokens

    def _fitting_end(self, first: int, earliest: int) -> int:
        """Return the end of the units that fit."""
        # the sum of the units' sizes is a cheap estimate of the size of their text: few exact counts remain
        end = max(earliest, bisect_right(self.sums, self.sums[first] + self.size) - 1)
        # pieces of one long word are estimated far too small: counting back one by one would read the whole word each time
        while end - earliest > _CLOSE and not self.fits(first, middle := (earliest + end) // 2):
            end = middle
        while end > earliest and not self.fits(first, end):
            end -= 1
        while end < len(self.units) and self.fits(first, end + 1):
            end += 1
        return end

    def _chunk(self, ordinal: int, first: int, end: int) -> DocumentChunk:
        document, units, text = self.document, self.units[first:end], self.slice(first, end)
        paths = [unit.path for unit in units if not unit.binds]
        shared = takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))
        starts = (bisect_right(self.offsets, offset) - 1 for offset in (units[0].start, units[-1].end - 1))
        places = [document.lines[line].place for line in starts]
        name = PurePosixPath(document.name)
        return DocumentChunk(
            chunk_id=f"{document.name}#{ordinal:03d}-{record_id('chunk', text)[:8]}",
            text=text,
            title=" > ".join(names[0] for names in shared) or document.title,
            stratum=name.parts[0] if len(name.parts) > 1 else name.stem,
            document=document.name,
            language=document.language,
            place={
                document.places: [units[0].block, units[-1].block] if document.places == "blocks" else places
            },
            n_tokens=self.count(text),
        )


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A block without blocks inside: a heading, a paragraph, a table, a block of code."""

    kind: str
    start: int
    end: int
    rank: int
    depth: int = 0
    markup: str = ""
    level: int = 0
    title: str = ""


def _units(
    document: Document,
    text: str,
    offsets: Sequence[int],
    pieces: Callable[[int, int, str], Iterable[tuple[int, int]]] = lambda start, end, _: [(start, end)],
) -> list[_Unit]:
    """Return the units of a document; ``pieces`` cuts those that are too long."""
    lines = [line.text for line in document.lines]
    leaves = _markdown_leaves(lines, text) if document.markdown else _text_leaves(lines)
    units: list[_Unit] = []
    path = [] if any(leaf.level == 1 for leaf in leaves) else [(0, document.title)]
    block = section = 0
    for leaf, follows in zip_longest(leaves, leaves[1:]):
        block += not leaf.rank
        if leaf.level:
            section += 1
            heading = leaf.level, leaf.title[:_MAX_TITLE]
            path = [*(heading for heading in path if heading[0] < leaf.level), heading]
        names = tuple(name for _, name in path if name)
        binds = follows is not None and leaf.level > 0 and not 0 < follows.level <= leaf.level
        whole, before, after = _spans(leaf, lines, offsets)
        spans = [piece for span in whole for piece in pieces(*span, before + after)]
        for number, (start, end) in enumerate(spans):
            is_last = number == len(spans) - 1
            rank, level = (leaf.depth + 1, 0) if number else (leaf.rank, leaf.level)
            edges = before if number else "", "" if is_last else after
            units.append(_Unit(start, end, rank, level, binds and is_last, block, section, names, *edges))
    return units


def _text_leaves(lines: Sequence[str]) -> list[_Leaf]:
    runs = groupby(range(len(lines)), key=lambda line: bool(lines[line].strip()))
    paragraphs = [list(run) for is_filled, run in runs if is_filled]
    return [_Leaf("paragraph_open", run[0], run[-1] + 1, rank=0) for run in paragraphs]


def _markdown_leaves(lines: Sequence[str], text: str) -> list[_Leaf]:
    """Return the leaves in order; lines without a parser token, like link targets, are separate leaves."""
    leaves: list[_Leaf] = []
    ranks: dict[int, int] = {}
    references: dict[str, Any] = {}
    tokens = MARKDOWN.parse(text, references)
    for number, token in enumerate(tokens):
        if not token.map or token.type == "inline":
            continue
        start, end = token.map
        ranks.setdefault(start, token.level)  # the outermost block that begins on the line comes first
        if token.type in _LEAVES and any(line.strip() for line in lines[start:end]):
            is_heading = token.type == "heading_open" and not token.level
            level = int(token.tag[1]) if is_heading else 0
            title = inline_text(tokens[number + 1].content, references) if is_heading else ""
            leaves += [_Leaf(token.type, start, end, ranks[start], token.level, token.markup, level, title)]
    covered = {line for leaf in leaves for line in range(leaf.start, leaf.end)}
    for line, source in enumerate(lines):
        if source.strip() and line not in covered:
            rank = ranks.get(line, int(line > 0 and bool(lines[line - 1].strip())))
            leaves.append(_Leaf("gap", line, line + 1, rank))
    return sorted(leaves, key=lambda leaf: leaf.start)


def _spans(
    leaf: _Leaf, lines: Sequence[str], offsets: Sequence[int]
) -> tuple[list[tuple[int, int]], str, str]:
    """Split a leaf into spans, and return with them the text to repeat before and after a piece of it."""
    filled = [line for line in range(leaf.start, leaf.end) if lines[line].strip()]
    n, before, after = len(filled), "", ""
    opening = lines[leaf.start]
    if leaf.depth:  # a repeated list marker would start another item, so spaces replace it
        opening = _LIST_MARKER.sub(lambda marker: re.sub(r"[^\s>]", " ", marker[0]), opening)
    firsts = [*range(n)]  # first lines of the pieces
    if leaf.kind in _PLAIN:
        firsts = [0]
    elif leaf.kind == "paragraph_open":
        text, start = "\n".join(lines[filled[0] : filled[-1] + 1]), offsets[filled[0]]
        sentences = [(start + first, start + last) for first, last in _sentences(text)]
        if len(sentences) > 1 or n <= _LONG_SENTENCE:
            return sentences, "", ""
    elif leaf.kind == "table_open":
        firsts = [0, *range(3, n)]  # the header stays with the first row
        before = f"{opening}\n{lines[leaf.start + 1]}\n"
    elif leaf.kind == "fence":
        fence = leaf.markup
        is_closed = set(lines[filled[-1]].strip(" \t>")) == {fence[0]} and n > 1
        firsts = [0, *range(2, n - is_closed)]
        before, after = f"{opening}\n", f"\n{opening[: opening.index(fence)]}{fence}"
    if len(before) > _MAX_REPEATED:
        before = after = ""
    lasts = [filled[following - 1] for following in [*firsts[1:], n]]
    spans = zip(firsts, lasts, strict=True)
    return (
        [(offsets[filled[first]], offsets[last] + len(lines[last])) for first, last in spans],
        before,
        after,
    )


def _masked(text: str) -> str:
    """Replace code, link targets and tags by X."""
    spans, parts, position = code_spans(text), [], 0
    while atom := _ATOM.search(text, position):
        is_code = atom[0][0] == "`"
        end = spans.get(atom.start(), 0) if is_code else atom.end()
        parts += [text[position : atom.start()], "X" * (end - atom.start()) or atom[0]]
        position = end or atom.end()
    return "".join([*parts, text[position:]])


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each sentence; a full stop in code, a link or an abbreviation is no end."""
    masked = _masked(text)
    start = scanned = 0
    has_letters = False
    for match in _SENTENCE_END.finditer(masked):
        before = _LAST_WORD.search(masked, max(start, match.start() - 24), match.start())
        word = before[0].casefold() if before else ""
        is_short = match[0][0] == "." and (word in ABBREVIATIONS or (len(word) == 1 and word.isalpha()))
        if match[1] and (is_short or match[1].islower() or match[1] in ".!?…"):
            continue
        has_letters = has_letters or any(map(str.isalnum, masked[scanned : match.start()]))
        scanned = match.end()
        if has_letters and not _NUMBERED.fullmatch(masked, start, match.start()):
            yield start, start + len(masked[start : match.end()].rstrip())
            start, has_letters = match.end(), False
    if tail := text[start:].rstrip():
        yield start, start + len(tail)
