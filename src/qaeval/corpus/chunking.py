"""Documents to chunks: whole blocks up to a size in tokens, cut from the source as they stand.

A document is taken apart into units, which are never cut: headings, sentences, table rows, lines of code. A chunk is
a run of units, so its text is a slice of the source; only a piece of a table or of a fenced block repeats the table's
head or the fence's lines.
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
from qaeval.errors import DataError, UsageError
from qaeval.records import record_id
from qaeval.text.lexicon import ABBREVIATIONS

_PLAIN: Final = frozenset({"heading_open", "hr", "gap"})
_LEAVES: Final = _PLAIN | {"paragraph_open", "table_open", "fence", "code_block", "html_block"}
_ATOM: Final = re.compile(r"`+|\]\([^()\s]*\)|<[^<>\s][^<>]*>")
_SENTENCE_END: Final = re.compile(
    r"""(?:(?<![.!?…])[.!?…]++["'”’»)\]*_]*(?=\s+(\S))|[。！？]+["”』）]*(?=\s*\S))\s*"""
)
_LAST_WORD: Final = re.compile(r"[^\s(\[\"'„“]+$")
_NUMBERED: Final = re.compile(r"[\s>*_+-]*\d+")
_MARKER: Final = re.compile(r"^(?:[\s>]*(?:[-*+]|\d{1,9}[.)])[ \t]+)+")
_LONG_SENTENCE: Final = (
    8  # lines; a longer paragraph without a sentence's end is a listing, parted at its lines
)
_CJK: Final = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD: Final = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
"""A word between spaces; Chinese, Japanese and Korean are written without, and each character counts."""


@dataclass(frozen=True)
class DocumentChunk:
    """A chunk, with the names that its row in a file has."""

    chunk_id: str
    text: str
    title: str
    """The headings it stands under, ``Guide > Install > From source``; those that all of it shares."""
    stratum: str
    """The document's top folder, or the document's name without its suffix when it lies in none."""
    document: str
    language: str
    place: Mapping[str, list[int]]
    """First and last line, page or (HTML) block in the source, from 1: ``{"lines": [12, 40]}``."""
    n_tokens: int

    def row(self) -> dict[str, Any]:
        """Return the row of a JSON Lines file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is never cut: a span of the document's text."""

    start: int
    end: int
    rank: int
    """How deep inside a block it begins: 0 begins a block; parting before a lower rank is better."""
    level: int
    """Of a heading: 1 to 6; else 0."""
    binds: bool
    """Whether it is a heading with something below it, which no chunk may end with."""
    block: int
    section: int
    path: tuple[str, ...]
    before: str
    after: str
    """What a piece of a table or of a fenced block repeats where a chunk begins, or ends, with the unit."""


def words_counter() -> Callable[[str], int]:
    """Count tokens without a tokenizer: four for every three words."""
    return lambda text: ceil(len(_WORD.findall(text)) * 4 / 3)


def tokenizer_counter(path: Path) -> Callable[[str], int]:
    """Count tokens with a model's own tokenizer; nothing is downloaded.

    Args:
        path: a ``tokenizer.json``, or a folder that holds one.

    Raises:
        DataError: there is none, or it is broken.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415 - only those who name a tokenizer need the library

    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{file}: no such file; expected a model's tokenizer.json; or count by words")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"{file}: expected a tokenizer.json of the tokenizers library: {error}") from error
    tokenizer.no_truncation()  # a file may ask for it, and every long text would have the same length
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def chunk_documents(
    documents: Iterable[Document],
    *,
    size: int,
    overlap: int = 0,
    count: Callable[[str], int],
    least: int | None = None,
) -> Iterator[DocumentChunk]:
    """Cut documents into chunks.

    Chunks are filled with whole blocks. A block that is larger than ``size``, or that follows less than ``least``
    tokens and does not fit beside them, is parted between list items, table rows, lines of code or sentences; a
    single one of these is never cut, even when it is larger than ``size``. A heading begins a new chunk once the
    current one holds ``least`` tokens, and stays with what follows it. Every line is in one chunk; with ``overlap``,
    the last units of a chunk are repeated in the next one of the same section.

    Args:
        documents: what to cut; their names are unique.
        size: tokens that a chunk holds at most, but for headings and a single unit that is larger.
        overlap: tokens that are repeated at most.
        count: counts the tokens of a text.
        least: see above; None is a quarter of the size.

    Raises:
        UsageError: the sizes contradict one another.
        DataError: two documents have the same name.
    """
    least = size // 4 if least is None else least
    if size < 1 or not 0 <= overlap < size or not 0 <= least <= size:
        raise UsageError(
            f"size {size}, overlap {overlap}, least {least}: expected a size of at least 1, an overlap below the size "
            f"and a least size up to the size"
        )
    names: set[str] = set()
    for document in documents:
        if document.name in names:
            raise DataError(f"{document.path}: a second document with the name {document.name!r}; rename one")
        names.add(document.name)
        yield from _Cutter(document, count, (size, overlap, least)).chunks()


class _Cutter:
    def __init__(self, document: Document, count: Callable[[str], int], sizes: tuple[int, int, int]) -> None:
        self.document, self.count, (self.size, self.overlap, self.least) = document, count, sizes
        self.text = "\n".join(line.text for line in document.lines)
        self.offsets = [0, *accumulate(len(line.text) + 1 for line in document.lines)]
        self.units = _units(document, self.text, self.offsets)
        ends = [*(unit.start for unit in self.units[1:]), len(self.text)]
        spans = zip(self.units, ends, strict=False)
        self.sums = [0, *accumulate(count(self.text[unit.start : end]) for unit, end in spans)]

    def slice(self, first: int, end: int) -> str:
        """Return the text of units, with what a piece of a table or of a fenced block repeats."""
        head, tail = self.units[first], self.units[end - 1]
        return head.before + self.text[head.start : tail.end] + tail.after

    def fits(self, first: int, end: int) -> bool:
        return self.count(self.slice(first, end)) <= self.size

    def chunks(self) -> Iterator[DocumentChunk]:
        first = new = ordinal = 0
        while new < len(self.units):
            first = self._first(new, first)
            end = self._end(first, new)
            ordinal += 1
            yield self._chunk(ordinal, first, end)
            new = end

    def _first(self, new: int, previous: int) -> int:
        """Step back from the first new unit over those that are repeated."""
        units, first = self.units, new
        while (
            first > previous
            and units[first - 1].section == units[new].section
            and not units[first - 1].level
            and self.count(self.slice(first - 1, new)) <= self.overlap
            and self.fits(first - 1, new + 1)
        ):
            first -= 1
        return first

    def _end(self, first: int, new: int) -> int:
        """Choose where a chunk ends: at a heading, or else where the fewest blocks are parted."""
        units = self.units
        soonest = new + 1
        while units[soonest - 1].binds:
            soonest += 1
        furthest = self._furthest(first, soonest)
        ends = [end for end in range(soonest, furthest + 1) if not units[end - 1].binds]
        for end in ends:
            if end < len(units) and units[end].level and self.count(self.slice(new, end)) >= self.least:
                return end
        if furthest == len(units):
            return furthest
        best = sorted(ends, key=lambda end: (units[end].rank, -end))
        return next((end for end in best if self.count(self.slice(new, end)) >= self.least), ends[-1])

    def _furthest(self, first: int, soonest: int) -> int:
        """Return the end up to which the units fit; the sum of their sizes is close to it and cheap."""
        end = max(soonest, bisect_right(self.sums, self.sums[first] + self.size) - 1)
        while end > soonest and not self.fits(first, end):
            end -= 1
        while end < len(self.units) and self.fits(first, end + 1):
            end += 1
        return end

    def _chunk(self, ordinal: int, first: int, end: int) -> DocumentChunk:
        document, units, text = self.document, self.units[first:end], self.slice(first, end)
        paths = [unit.path for unit in units if not unit.binds]
        shared = takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))
        starts = (bisect_right(self.offsets, at) - 1 for at in (units[0].start, units[-1].end - 1))
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
    """A run of lines without blocks inside: a heading, a paragraph, a table, a block of code."""

    kind: str
    start: int
    end: int
    rank: int
    depth: int = 0
    markup: str = ""
    level: int = 0
    title: str = ""


def _units(document: Document, text: str, offsets: Sequence[int]) -> list[_Unit]:
    lines = [line.text for line in document.lines]
    leaves = _markdown_leaves(lines, text) if document.markdown else _text_leaves(lines)
    units: list[_Unit] = []
    path = [] if any(leaf.level == 1 for leaf in leaves) else [(0, document.title)]
    block = section = 0
    for leaf, follows in zip_longest(leaves, leaves[1:]):
        block += not leaf.rank
        if leaf.level:
            section += 1
            path = [*(above for above in path if above[0] < leaf.level), (leaf.level, leaf.title)]
        names = tuple(name for _, name in path if name)
        binds = follows is not None and leaf.level > 0 and not 0 < follows.level <= leaf.level
        for number, (start, end, before, after) in enumerate(_spans(leaf, lines, offsets)):
            rank = leaf.depth + 1 if number else leaf.rank
            units.append(_Unit(start, end, rank, leaf.level, binds, block, section, names, before, after))
    return units


def _text_leaves(lines: Sequence[str]) -> list[_Leaf]:
    runs = groupby(range(len(lines)), key=lambda line: bool(lines[line].strip()))
    paragraphs = [list(run) for is_filled, run in runs if is_filled]
    return [_Leaf("paragraph_open", run[0], run[-1] + 1, rank=0) for run in paragraphs]


def _markdown_leaves(lines: Sequence[str], text: str) -> list[_Leaf]:
    """Find the leaves in their order; lines that the parser has no token for, as link targets, are leaves of their own."""
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
    known = {line for leaf in leaves for line in range(leaf.start, leaf.end)}
    for line, source in enumerate(lines):
        if source.strip() and line not in known:
            rank = ranks.get(line, int(line > 0 and bool(lines[line - 1].strip())))
            leaves.append(_Leaf("gap", line, line + 1, rank))
    return sorted(leaves, key=lambda leaf: leaf.start)


def _spans(leaf: _Leaf, lines: Sequence[str], offsets: Sequence[int]) -> Iterator[tuple[int, int, str, str]]:
    """Part a leaf into what is never cut; the last two of each are what a piece repeats before and after it."""
    filled = [line for line in range(leaf.start, leaf.end) if lines[line].strip()]
    n, before, after = len(filled), "", ""
    opening = lines[leaf.start]
    if leaf.depth:  # a list's marker gives way to spaces, for it would begin another item
        opening = _MARKER.sub(lambda marker: re.sub(r"[^\s>]", " ", marker[0]), opening)
    firsts = [*range(n)]  # of the lines that a piece begins with
    if leaf.kind in _PLAIN:
        firsts = [0]
    elif leaf.kind == "paragraph_open":
        text, start = "\n".join(lines[filled[0] : filled[-1] + 1]), offsets[filled[0]]
        sentences = [(start + first, start + last, "", "") for first, last in _sentences(text)]
        if len(sentences) > 1 or n <= _LONG_SENTENCE:
            yield from sentences
            return
    elif leaf.kind == "table_open":
        firsts = [0, *range(3, n)]  # the head stays with the first row
        before = f"{opening}\n{lines[leaf.start + 1]}\n"
    elif leaf.kind == "fence":
        fence = leaf.markup
        is_closed = set(lines[filled[-1]].strip(" \t>")) == {fence[0]} and n > 1
        firsts = [0, *range(2, n - is_closed)]
        before, after = f"{opening}\n", f"\n{opening[: opening.index(fence)]}{fence}"
    for first, following in zip(firsts, [*firsts[1:], n], strict=True):
        stop = offsets[filled[following - 1]] + len(lines[filled[following - 1]])
        yield offsets[filled[first]], stop, before if first else "", after if following < n else ""


def _masked(text: str) -> str:
    """Write X over code, links' targets and tags."""
    spans, parts, at = code_spans(text), [], 0
    while atom := _ATOM.search(text, at):
        is_code = atom[0][0] == "`"
        end = spans.get(atom.start(), 0) if is_code else atom.end()
        parts += [text[at : atom.start()], "X" * (end - atom.start()) or atom[0]]
        at = end or atom.end()
    return "".join([*parts, text[at:]])


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    """Find where sentences begin and end; a full stop in code, in a link's target or after an abbreviation is no end."""
    masked = _masked(text)
    start = seen = 0
    has_letters = False
    for match in _SENTENCE_END.finditer(masked):
        before = _LAST_WORD.search(masked, max(start, match.start() - 24), match.start())
        word = before[0].casefold() if before else ""
        is_short = match[0][0] == "." and (word in ABBREVIATIONS or (len(word) == 1 and word.isalpha()))
        if match[1] and (is_short or match[1].islower() or match[1] in ".!?…"):
            continue
        has_letters = has_letters or any(map(str.isalnum, masked[seen : match.start()]))
        seen = match.end()
        if has_letters and not _NUMBERED.fullmatch(masked, start, match.start()):
            yield start, start + len(masked[start : match.end()].rstrip())
            start, has_letters = match.end(), False
    if rest := text[start:].rstrip():
        yield start, start + len(rest)
