"""Read Markdown, HTML, plain text and PDF as lines with their place in the source, without boilerplate."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from markdown_it import MarkdownIt

from qaeval.corpus.pages import page_as_markdown
from qaeval.errors import DataError
from qaeval.files.kinds import DOCUMENTS, hint
from qaeval.files.yaml import LONE_SURROGATE, read_text
from qaeval.text.language import language_code

_EXPECTED: Final = f"expected a document ({', '.join(DOCUMENTS)})"
_INLINE: Final = MarkdownIt("commonmark")
MARKDOWN: Final = MarkdownIt("commonmark").enable("table").disable("inline")
"""The block parser whose line ranges cleaning and chunking use; inline parsing is off."""

_SKIPPED: Final = frozenset({"node_modules", "__pycache__"})
_CHARSET: Final = re.compile(rb"""(?i)charset\s*=\s*["']?([\w.:-]+)""")

_FRONT_KEY: Final = r"""["']?[\w.-]+["']?[ \t]*[:=]"""
_FRONT_MATTER: Final = re.compile(
    rf"(?m)(---|\+\+\+)[ \t]*\n{_FRONT_KEY}.*\n"
    rf"(?>(?!\1)(?:{_FRONT_KEY}|[ \t]+\S|[-#\]}})]|[ \t]*$).*\n)*?\1[ \t]*$"
)
_FRONT_TITLE: Final = re.compile(r"""(?im)^["']?title["']?[ \t]*[:=](.*)$""")
_FRONT_LANGUAGE: Final = re.compile(r"""(?im)^["']?lang(?:uage)?["']?[ \t]*[:=](.*)$""")
_QUOTED: Final = re.compile(r"""(["'])(.*)\1""")
_TICKS_OR_COMMENT: Final = re.compile("`+|<!--")
_IMAGE: Final = r"!\[[^\[\]]*\](?:\([^()]*\)|\[[^\[\]]*\])?"
_BADGES: Final = rf"(?:\s*(?:{_IMAGE}|\[{_IMAGE}\](?:\([^()]*\)|\[[^\[\]]*\])))+[\s\\]*"
_NOISE: Final = re.compile(rf"(?i){_BADGES}|\s*(?:\[\[?_?toc_?\]\]?|\{{:toc\}})\s*")
_ANCHOR: Final = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(#[^()]*\)\s*|\s*")
_CONTENTS: Final = re.compile(
    r"(?i)[\s#]*(?:(?:table of )?contents|toc|[io]n this (?:page|article)|inhalt(?:sverzeichnis)?)[\s#:]*"
)
_HEADING_ID: Final = re.compile(r"(?<!\s)\s*+\{[#:][^{}]*\}\Z")
_LINKED_HEADING: Final = re.compile(
    r"\A([\s>#]*+)\[((?:[^\[\]]|\[[^\[\]]*\])*+)\]\(#[^()\s]*\)(?=[\s#]*\Z|[ \t]*\n[\s>]*(?:=+|-+)\s*\Z)"
)
_TOP_HEADING: Final = re.compile(r" {0,3}(?:#(?:[ \t]|$)|=+[ \t]*$)")
"""A line that may be a top heading, or the line below its text."""
_HEADING_DISTANCE: Final = 20
"""Lines above a list that are searched for the heading of a table of contents."""

_EDGE_LINES: Final = 3
"""Lines at the top and bottom of a PDF page that are searched for headers and footers."""
_MIN_PAGES: Final = 4
"""Least pages for the search: on fewer, the same line on most pages may be a coincidence."""
_NUMBER: Final = re.compile(r"\d{1,9}")
_PAGE_NUMBER: Final = re.compile(r"(?i)(?:page|seite|p|pg|s|of|von|[\W_])*")
_BROKEN_WORD: Final = re.compile(r"[^\W\d_](?:-|\u00ad)$")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text and its place: line number or page, from 1; 0 for HTML, which has neither."""

    text: str
    place: int


@dataclass(frozen=True)
class Document:
    """The content of a file without boilerplate."""

    path: Path
    name: str
    """The relative path in chunk ids, with forward slashes."""
    title: str
    lines: tuple[Line, ...]
    places: Literal["lines", "pages", "blocks"]
    """Unit of the lines' places; chunks of HTML are located by block number."""
    markdown: bool
    """Whether the lines are Markdown; otherwise they are plain text."""
    language: str = ""
    """ISO 639-1 code of the language that the file states; empty if it states none, or one that is not known."""


def find_documents(paths: Sequence[Path], ignored: Counter[str] | None = None) -> list[tuple[Path, str]]:
    """Find the documents among files and folders, ordered by name.

    Hidden files and folders, ``node_modules`` and ``__pycache__`` are skipped; a file with several links
    counts once.

    Args:
        paths: Files and folders.
        ignored: Is filled with the number of other files in the folders, by suffix, and of links out of them.

    Returns:
        Each document with its name: its path below the folder, or the given path if it is a relative file
        path.

    Raises:
        DataError: a path cannot be read, a file is not a document, a name is not UTF-8, or two documents
            would have the same name.
    """
    visited: set[str] = set()
    names: dict[str, Path] = {}
    for path in paths:
        base = path.parent if path.is_absolute() or ".." in path.parts else Path()
        for file in _files(path, visited, Counter() if ignored is None else ignored):
            name = file.relative_to(path if path.is_dir() else base).as_posix()
            if LONE_SURROGATE.search(name):
                shown = os.fsencode(file).decode("utf-8", "backslashreplace")
                raise DataError(f"{shown}: the file name is not UTF-8; rename the file")
            if name in names:
                raise DataError(
                    f"{file}: its document name {name!r} is that of {names[name]}; names must be unique: "
                    "pass the folder of both, or rename one"
                )
            names[name] = file
    return [(file, name) for name, file in names.items()]


def _files(path: Path, visited: set[str], ignored: Counter[str], root: str = "") -> Iterator[Path]:
    """Walk a file or folder; ``root`` is the real path of the given folder, empty at the top."""
    real_path = os.path.realpath(path)
    if root and path.is_symlink() and not Path(real_path).is_relative_to(root):
        ignored["link out of the folder"] += 1
        return
    is_document = path.is_file() and path.suffix.lower() in DOCUMENTS
    if not root and not is_document and not path.is_dir():
        problem = f"{_EXPECTED}.{hint(path)}" if path.exists() else "no such file or folder"
        raise DataError(f"{path}: {problem}")
    if path.is_file() and not is_document:
        ignored[path.suffix.lower()] += 1
    elif real_path not in visited:
        visited.add(real_path)
        if is_document:
            yield path
        elif path.is_dir():
            try:
                entries = sorted(path.iterdir(), key=lambda entry: entry.name)
            except OSError as error:
                raise DataError(f"{path}: cannot list the folder: {error.strerror}") from error
            for entry in entries:
                if not entry.name.startswith(".") and entry.name not in _SKIPPED:
                    yield from _files(entry, visited, ignored, root or real_path)


def read_documents(files: Iterable[tuple[Path, str]]) -> tuple[list[Document], list[str]]:
    """Read the result of `find_documents`; return the documents, and a message for each unreadable file."""
    documents, problems = [], []
    for path, name in files:
        try:
            documents.append(read_document(path, name))
        except DataError as error:
            problems.append(str(error))
    return documents, problems


def read_document(path: Path, name: str = "") -> Document:
    """Read a document of a known suffix.

    Args:
        path: The file.
        name: The relative path in chunk ids; default: the file name.

    Raises:
        DataError: the file is missing, of an unknown kind, broken, neither in UTF-8 nor in the encoding
            that HTML declares, or a PDF without text.
    """
    kind = DOCUMENTS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path}: {_EXPECTED}, got {path.suffix!r}")
    empty = Document(path, name or path.name, path.stem, (), "lines", markdown=kind in {"markdown", "html"})
    if kind == "pdf":
        title, language, lines = _pdf(path)
        return replace(
            empty,
            title=title or path.stem,
            lines=tuple(lines),
            places="pages",
            language=language_code(language),
        )
    source = _source(path)
    lines = [Line(text, number) for number, text in enumerate(source.split("\n"), start=1)]
    if kind == "text":
        return replace(empty, lines=tuple(lines))
    if kind == "html":
        title, language, source = page_as_markdown(path, source)
        lines = _clean([Line(text, 0) for text in source.split("\n")])
        title = _heading(lines) or title
    else:
        title, language, n_front = _front_matter(source)
        lines = _clean(lines[n_front:])
        title = title or _heading(lines)
    places: Literal["lines", "blocks"] = "lines" if kind == "markdown" else "blocks"
    return replace(
        empty,
        title=title or path.stem,
        lines=tuple(lines),
        places=places,
        language=language_code(language),
    )


def inline_text(content: str, references: dict[str, Any]) -> str:
    """Return the visible text of inline Markdown: no markup, no link targets, no images."""
    visible = (
        child.content if child.type in {"text", "code_inline"} else " " if "break" in child.type else ""
        for child in _INLINE.parseInline(content, references)[0].children or ()
    )
    return _HEADING_ID.sub("", "".join(visible).rstrip()).strip()


def _heading(lines: list[Line]) -> str:
    """Return the text of the first top heading that stands in no other block."""
    texts = [line.text for line in lines]
    first = next((number for number, text in enumerate(texts) if _TOP_HEADING.match(text)), None)
    if first is None:
        return ""
    start = texts[: first + 2]  # the next line can make a table of it; of later ones only references matter
    return _first_heading([] if "[" in "".join(start) else start) or _first_heading(texts)


def _first_heading(texts: list[str]) -> str:
    references: dict[str, Any] = {}
    for token, inline in pairwise(MARKDOWN.parse("\n".join(texts), references)):
        if token.tag == "h1" and token.nesting > 0 == token.level:
            return inline_text(inline.content, references)
    return ""


def _source(path: Path) -> str:
    try:
        text = read_text(path)
    except DataError as error:
        declared = None
        if isinstance(error.__cause__, UnicodeDecodeError) and DOCUMENTS[path.suffix.lower()] == "html":
            declared = _CHARSET.search(path.read_bytes()[:2048])
        if declared is None:
            raise
        encoding = declared[1].decode()
        try:
            text = path.read_bytes().decode(encoding)
        except (LookupError, ValueError) as cause:
            raise DataError(f"{path}: not in its declared encoding {encoding!r}; save it as UTF-8") from cause
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # the line ends of the Markdown parser
    if "\0" in text:
        line = text.partition("\0")[0].count("\n") + 1
        raise DataError(f"{path}:{line}: a NUL character; expected text, this looks like a binary file")
    return text


def _front_matter(source: str) -> tuple[str, str, int]:
    """Return title and language in a Markdown file's front matter, and the number of lines of the front matter."""
    match = _FRONT_MATTER.match(source)
    if match is None:
        return "", "", 0
    title, language = (_front_value(pattern, match[0]) for pattern in (_FRONT_TITLE, _FRONT_LANGUAGE))
    return title, language, match[0].count("\n") + 1


def _front_value(pattern: re.Pattern[str], front: str) -> str:
    match = pattern.search(front)
    value = match[1].strip() if match else ""
    quoted = _QUOTED.fullmatch(value)
    return quoted[2] if quoted else value


def code_spans(text: str) -> dict[int, int]:
    """Find code in a paragraph: the end of each code span by its start."""
    spans: dict[int, int] = {}
    following: dict[int, int] = {}  # end of the next run of backticks, by the length of the run
    for ticks in reversed(list(re.finditer("`+", text))):
        if (end := following.get(len(ticks[0]))) is not None:
            spans[ticks.start()] = end
        following[len(ticks[0])] = ticks.end()
    return spans


def _without_comments(text: str) -> str:
    """Remove comments and the spaces before them; keep their line ends, and comments inside code."""
    spans, parts, copied, position = code_spans(text), [], 0, 0
    while mark := _TICKS_OR_COMMENT.search(text, position):
        if mark[0] != "<!--":
            position = spans.get(mark.start(), mark.end())
            continue
        end = text.find("-->", mark.end()) + 3
        if end < mark.end():
            break
        parts += [text[copied : mark.start()].rstrip(" \t"), "\n" * text.count("\n", mark.end(), end)]
        copied = position = end
    return "".join([*parts, text[copied:]])


def _clean(lines: list[Line]) -> list[Line]:
    """Remove the boilerplate of Markdown; at most one blank line remains of it."""
    texts = [line.text for line in lines]
    for token in MARKDOWN.parse("\n".join(texts)):
        if not token.map:
            continue
        start, end = token.map
        if token.type in {"paragraph_open", "heading_open", "table_open", "html_block"}:
            block_text = _without_comments("\n".join(texts[start:end]))
            if token.type == "heading_open":
                block_text = _LINKED_HEADING.sub(r"\1\2", block_text, count=1)
            texts[start:end] = block_text.split("\n")
        block = texts[start:end]
        if token.type == "html_block":
            only_images = "<img" in "".join(block) and not re.sub("<[^<>]*>", "", "".join(block)).strip()
            texts[start:end] = [""] * len(block) if only_images else block
        elif token.type == "paragraph_open":
            texts[start:end] = ["" if _NOISE.fullmatch(text) else text for text in block]
        elif token.type.endswith("_list_open") and not token.level and all(map(_ANCHOR.fullmatch, block)):
            heading = next(
                (
                    line
                    for line in range(start - 1, max(start - _HEADING_DISTANCE, 0) - 1, -1)
                    if texts[line].strip()
                ),
                start,
            )
            start = heading if _CONTENTS.fullmatch(texts[heading]) else start
            texts[start:end] = [""] * (end - start)
    result: list[Line] = []
    gap = True
    for line, text in zip(lines, texts, strict=True):
        gap = not text.strip() and (gap or text != line.text)
        if not gap or (result and result[-1].text.strip()):
            result.append(Line(text, line.place))
    return result


def _pdf(path: Path) -> tuple[str, str, list[Line]]:
    """Return title, stated language and lines; a blank line separates two pages unless a sentence continues on the second."""
    from pypdf import PdfReader  # noqa: PLC0415 - importing it takes a fifth of a second

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # its messages do not name the file; ours do
    try:
        with path.open("rb") as file:
            reader = PdfReader(file)
            title = str((reader.metadata and reader.metadata.title) or "")
            language = str(reader.root_object.get("/Lang") or "")
            texts = [title, *(page.extract_text() for page in reader.pages)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # a broken file can raise anything in the library
        raise DataError(f"{path}: unreadable PDF: {error}; open it in a viewer and save it again") from error
    title, *pages = [LONE_SURROGATE.sub("\ufffd", text).replace("\0", "") for text in texts]
    if not any(page.strip() for page in pages):
        raise DataError(f"{path}: the PDF has no text, only images; run OCR first (ocrmypdf IN OUT)")
    lines: list[Line] = []
    for number, page in enumerate(_without_edges([page.splitlines() for page in pages]), start=1):
        start = "".join(page).lstrip()[:1]
        if not start.islower() or (lines and lines[-1].text.rstrip()[-1:] in ".!?:…"):
            lines.append(Line("", number))
        for text in page:
            if lines and _BROKEN_WORD.search(lines[-1].text) and text[:1].islower():
                head, _, remainder = text.partition(" ")
                lines[-1] = replace(lines[-1], text=lines[-1].text[:-1] + head)
                lines += [Line(remainder, number)] if remainder else []
            else:
                lines.append(Line(text, number))
    return title.strip(), language, lines


def _without_edges(pages: list[list[str]]) -> list[list[str]]:
    """Drop headers and footers: edge lines that more than half of the pages share, page numbers aside.

    Where pages share other edge lines but for their numbers, they are filled forms, and ``Server 3`` on the third
    is no page number. A page of which nothing would remain is kept.
    """
    edges = _edges(pages)
    too_many = len(pages) // 2 + 1 if len(pages) >= _MIN_PAGES else len(pages) + 1
    on_pages = Counter(line for edge in edges for line in set(edge.values()))
    shared = {line for line, n in on_pages.items() if n >= too_many}
    wordings = Counter(wording for edge in edges for wording in {line.wording for line in edge.values()})
    shared_wordings = {wording for wording, n in wordings.items() if n >= too_many}
    if shared_wordings - {line.wording for line in shared}:
        shared = {line for line in shared if not line.is_numbered or _PAGE_NUMBER.fullmatch(line.wording)}
    remaining = []
    for page, edge in zip(pages, edges, strict=True):
        kept = [text for number, text in enumerate(page) if edge.get(number) not in shared]
        remaining.append(kept if any(text.strip() for text in kept) else page)
    return remaining


class _EdgeLine(NamedTuple):
    wording: str
    """The line without spaces, and with # in place of each number."""
    numbers: tuple[int, ...]
    """Those that follow the page less its index."""
    is_numbered: bool
    """Whether a number follows the page."""


def _edges(pages: list[list[str]]) -> list[dict[int, _EdgeLine]]:
    """Return the first and last lines of each page by line number."""
    found: list[dict[int, tuple[str, list[int]]]] = []
    values: dict[tuple[str, int], tuple[Counter[int], Counter[int]]] = {}
    for index, page in enumerate(pages):
        filled = [number for number, text in enumerate(page) if text.strip()]
        texts = {n: "".join(page[n].split()) for n in {*filled[:_EDGE_LINES], *filled[-_EDGE_LINES:]}}
        found.append(
            {n: (_NUMBER.sub("#", text), [*map(int, _NUMBER.findall(text))]) for n, text in texts.items()}
        )
        for wording, numbers in found[-1].values():
            for position, number in enumerate(numbers):
                fixed, following = values.setdefault((wording, position), (Counter(), Counter()))
                fixed[number] += 1
                following[number - index] += 1
    follows = {
        place: max(following.values()) > max(fixed.values()) for place, (fixed, following) in values.items()
    }

    def edge_line(wording: str, numbers: list[int], index: int) -> _EdgeLine:
        is_following = [follows[wording, position] for position in range(len(numbers))]
        relative = tuple(n - index * moves for n, moves in zip(numbers, is_following, strict=True))
        return _EdgeLine(wording, relative, any(is_following))

    return [
        {number: edge_line(*line, index) for number, line in edge.items()} for index, edge in enumerate(found)
    ]
