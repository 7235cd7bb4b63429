"""Convert HTML to Markdown: the main part of a page, without navigation and other boilerplate."""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from bs4 import BeautifulSoup, Tag
from bs4.builder import ParserRejectedMarkup
from bs4.element import NavigableString
from markdownify import MarkdownConverter

from qaeval.errors import DataError

_DROPPED: Final = frozenset(
    [
        "script",
        "style",
        "nav",
        "header",
        "footer",
        "button",
        "template",
        "noscript",
        "svg",
        "iframe",
    ]
)
_DROPPED_ROLES: Final = frozenset({"navigation", "search", "contentinfo", "banner"})
_DROPPED_CLASSES: Final = frozenset({"headerlink", "linenos"})
_LISTINGS: Final = frozenset({"highlighttable", "rouge-table"})
"""Classes of tables with line numbers beside a listing."""
_HIDDEN: Final = re.compile(r"(?i)display\s*:\s*none|visibility\s*:\s*hidden")
_COOKIES: Final = re.compile(
    r"(?i)\b(?<!has-)(?<!with-)(?<!no-)(?:cookie|consent|gdpr)s?[-_]*(?:banner|notice|bar|popup|consent|modal|overlay)"
    r"|onetrust|cookiebot"
)
_SIDEBAR: Final = re.compile(
    r"(?i)side-?bar|table-?of-?contents|newsletter|\b(?:toc\b|related|share\b|social|promo|ads?\b|advert)"
)
_NOTE: Final = re.compile(
    r"(?i)\b(?:note|tip|hint|info|important|warning|caution|danger|attention|alert|admonition|callout|footnote)\b"
)
_NO_PROSE: Final = _DROPPED | {"a", "label", "legend", "option", "select", "textarea"}
_MIN_PROSE: Final = 500
"""Characters of prose that make a form a part of the text."""
_PAGE_LINK: Final = re.compile(
    r"(?i)(?:edit|improve|view|show)(?: this| the)? (?:page|source|page source|on git(?:hub|lab))|[¶#🔗]"
)
_CODE_CLASS: Final = re.compile(r"\b(?:language|highlight|lang)-(?!default)(\w[\w+#-]*)")
_NO_POWER: Final = re.compile(r"(?i)st|nd|rd|th|tm|sm|[^\w]*|\[.*\]", re.DOTALL)
"""Superscripts that stay as they are: ordinals, trademarks, charges, numbers of references."""
_MAX_POWER: Final = 100
"""Characters; longer superscripts are small print."""
_HEADINGS: Final = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_BLOCKS: Final = _HEADINGS | frozenset(
    re.findall(
        r"\w+",
        """address article aside blockquote center dd details dialog dir div dl dt fieldset figcaption figure
        footer form header hgroup hr li main menu nav ol p pre search section summary table ul""",
    )
)
"""Tags that end an open paragraph."""
_FRAMES: Final = frozenset(["button", "caption", "object", "table", "td", "template", "th"])
_CELLS, _ROWS = frozenset({"td", "th"}), frozenset({"thead", "tbody", "tfoot"})
_ITEM_FRAMES: Final = (_BLOCKS | _FRAMES) - {"address", "div", "p"}
_TO_THE_END: Final = 65_534
"""Rows that HTML lets a cell span; ``rowspan=0`` means all that follow in its part of the table."""
_MAX_COPIED: Final = 500
"""Characters; a longer cell that spans others, as in a layout, is not repeated."""
_IMPLIED_ENDS: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    "li": (frozenset({"li"}), _ITEM_FRAMES - {"li"}),
    **dict.fromkeys(("dt", "dd"), (frozenset({"dt", "dd"}), _ITEM_FRAMES - {"dt", "dd"})),
    **dict.fromkeys(_CELLS, (_CELLS | {"caption"}, frozenset({"tr", "table"}))),
    "tr": (_CELLS | {"tr", "caption", "colgroup"}, frozenset({"table"})),
    **dict.fromkeys(_ROWS, (_CELLS | _ROWS | {"tr", "caption", "colgroup"}, frozenset({"table"}))),
    "option": (frozenset({"option"}), frozenset({"select"})),
}
"""By start tag: the open elements that it implicitly ends, and the elements that limit this."""
_MAX_DEPTH: Final = 600
"""Open elements; the converter's recursion already fails at fewer."""


class _Tag(Tag):
    def find_parent(self, name: Any = None, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - overrides
        """Find a parent by its name alone, which the converter asks of each tag, without the library's filters."""
        if isinstance(name, str) and not args and not kwargs:
            return next((parent for parent in self.parents if parent.name == name), None)
        return super().find_parent(name, *args, **kwargs)


class _Page(BeautifulSoup):
    """A page parser that adds optional end tags, as HTML prescribes."""

    def handle_starttag(self, name: str, *args: Any, **kwargs: Any) -> Tag | None:  # noqa: ANN401 - overrides
        if len(self.tagStack) > _MAX_DEPTH:
            raise RecursionError
        if name in _IMPLIED_ENDS:
            self._end(*_IMPLIED_ENDS[name])
        if name in _BLOCKS:
            self._end(frozenset({"p"}), _FRAMES)
        return super().handle_starttag(name, *args, **kwargs)

    def _end(self, ended: frozenset[str], frames: frozenset[str]) -> None:
        if any(self.open_tag_counter.get(name) for name in ended):
            for tag in list(takewhile(lambda tag: tag.name not in frames, reversed(self.tagStack))):
                if tag.name in ended:
                    self.handle_endtag(tag.name)


class _Converter(MarkdownConverter):
    def __init__(self, n_copied: int, **options: Any) -> None:  # noqa: ANN401 - the library's
        super().__init__(**options)
        self.n_items: Counter[int] = Counter()
        self.n_copied = n_copied
        """Characters that repeated cells may still take."""
        self.cells: dict[int, str] = {}
        self.above: dict[int, dict[int, tuple[str, int]]] = {}
        """By part of a table and column: the cell that reaches into the next row, and the rows that it still spans."""

    def convert_li(self, el: Tag, text: str, parent_tags: set[str]) -> str:  # noqa: ARG002 - overrides
        """Convert an item like the library, which counts all preceding items for each one, in linear time."""
        bullet = "- "
        if el.parent is not None and el.parent.name == "ol":
            start = re.fullmatch("[0-9]{1,9}", str(el.parent.get("start")))
            bullet = f"{int(start[0] if start else 1) + self.n_items[id(el.parent)]}. "
            self.n_items[id(el.parent)] += 1
        text = re.sub("(?m)^(?=.)", " " * len(bullet), text.strip())
        return f"{bullet}{text[len(bullet) :]}\n" if text else "\n"

    def convert_sup(self, el: Tag, text: str, parent_tags: set[str]) -> str:  # noqa: ARG002 - overrides
        """Write a superscript as ``10^6`` or ``10^(-3)``; drop a link to a footnote."""
        if _is_footnote_link(el):
            return ""
        power = text.strip()
        if _NO_POWER.fullmatch(power) or len(power) > _MAX_POWER:
            return text
        is_simple = re.fullmatch(r"\d+|\w|\(.*\)", power, re.DOTALL)
        return f"^{power}" if is_simple else f"^({power})"

    def process_text(self, el: NavigableString, parent_tags: set[str]) -> str:
        """Convert text like the library; a bar of a cell would start another one."""
        text = str(super().process_text(el, parent_tags))  # type: ignore[misc]
        return text if _CELLS.isdisjoint(parent_tags) else text.replace("|", r"\|")

    def convert_td(self, el: Tag, text: str, parent_tags: set[str]) -> str:  # noqa: ARG002 - overrides
        self.cells[id(el)] = text.strip().replace("\n", " ")
        return f" {self.cells[id(el)]} |"

    convert_th = convert_td

    def convert_tr(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """Convert a row like the library, which shifts the cells beside one that spans rows."""
        above = self.above.pop(id(el.parent), {}) if self.n_copied > 0 else {}
        cells = [cell for cell in el.children if isinstance(cell, Tag) and cell.name in _CELLS]
        if above or any("rowspan" in cell.attrs or "colspan" in cell.attrs for cell in cells):
            row, self.above[id(el.parent)] = self._spanned_row(cells, above)
            text = "".join(f" {cell} |" for cell in row)
        return str(super().convert_tr(el, text, parent_tags))  # type: ignore[misc]

    def _spanned_row(
        self, cells: Sequence[Tag], above: dict[int, tuple[str, int]]
    ) -> tuple[list[str], dict[int, tuple[str, int]]]:
        """Return the cells of a row, repeated where they span columns or rows, and those that reach further down."""
        row: list[str] = []
        below: dict[int, tuple[str, int]] = {}
        for cell in [*cells, None]:
            while above and (cell is None or len(row) in above):
                text, n_rows = above.pop(len(row), ("", 1))
                if n_rows > 1:
                    below[len(row)] = text, n_rows - 1
                row.append(self._copy(text))
            if cell is None:
                break
            n_rows = int(str(cell.get("rowspan", "1"))) or _TO_THE_END
            for column in range(max(1, int(str(cell.get("colspan", "1"))))):
                above.pop(len(row), None)
                if n_rows > 1:
                    below[len(row)] = self.cells[id(cell)], n_rows - 1
                row.append(self._copy(self.cells[id(cell)]) if column else self.cells[id(cell)])
        return row, below

    def _copy(self, text: str) -> str:
        copied = text if len(text) <= min(_MAX_COPIED, self.n_copied) else ""
        self.n_copied -= len(copied) + len(" |")
        return copied

    def convert_pre(self, el: Tag, text: str, parent_tags: set[str]) -> str:  # noqa: ARG002 - overrides
        fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 0)
        near = [el, *el.find_all("code", limit=1), *list(el.parents)[:2]]
        language = _CODE_CLASS.search(" ".join(" ".join(tag.get_attribute_list("class")) for tag in near))
        code = text.strip("\n")
        return f"\n\n{fence}{language[1] if language else ''}\n{code}\n{fence}\n\n"


def page_as_markdown(path: Path, source: str) -> tuple[str, str, str]:
    """Return a page's title, its language as it states it (``<html lang>``), and its main part as Markdown.

    Raises:
        DataError: the page is nested too deeply, or the parser rejects it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about text that looks like a file name, and about XHTML
            soup = _Page(_escape_unclosed(source), "html.parser", element_classes={Tag: _Tag})
        title = soup.title.get_text(" ", strip=True) if soup.title else ""
        language = str((soup.html and (soup.html.get("lang") or soup.html.get("xml:lang"))) or "")
        root = _main_part(soup)
        _strip(root)
        converter = _Converter(
            n_copied=len(source) + 10_000,
            heading_style="ATX",
            bullets="-",
            table_infer_header=True,
            escape_asterisks=False,
            escape_underscores=False,
        )
        return title, language, str(converter.convert_soup(root)).replace("\r", "\n")
    except RecursionError as error:
        raise DataError(f"{path}: the page is nested too deeply; simplify it") from error
    except ParserRejectedMarkup as error:
        raise DataError(f"{path}: invalid HTML: a broken <![…]> section; fix or remove it") from error


def _escape_unclosed(source: str) -> str:
    """Escape unclosed tags and comments: the parser would scan the rest of the page for each of them."""
    for opening, end in (("<!--", "-->"), ("<", ">")):
        closed, mark, remainder = source.rpartition(end)
        source = closed + mark + remainder.replace(opening, f"&lt;{opening[1:]}")
    return source


def _main_part(soup: BeautifulSoup) -> Tag:
    tags, body = list(_tags(soup)), soup.body or soup
    mains = [tag for tag in tags if _is_main(tag)]
    articles = [tag for tag in tags if tag.name == "article"]
    if not mains and len(articles) == 1:
        n_headings = sum(tag.name == "h1" for tag in tags)
        has_the_headings = 0 < n_headings == len(articles[0].find_all("h1"))
        if has_the_headings or 2 * _n_prose(articles[0]) >= _n_prose(body):
            mains = articles  # not a teaser
    return next((main for main in mains if main.get_text(strip=True)), body)


def _is_main(tag: Tag) -> bool:
    return tag.name == "main" or tag.get("role") == "main"


def _n_prose(root: Tag) -> int:
    """Count the characters outside links, controls and what is dropped."""
    n, parts = 0, [root]
    while parts:
        for node in parts.pop().contents:
            if not isinstance(node, Tag):
                n += len(node.strip()) if type(node) is NavigableString else 0
            elif node.name not in _NO_PROSE:
                parts.append(node)
    return n


def _tags(root: Tag) -> Iterator[Tag]:
    return (node for node in root.descendants if isinstance(node, Tag))


def _strip(root: Tag) -> None:
    if root.name in {"main", "article"}:
        for heading in [tag for tag in root.find_all("h1") if tag.find_parent("header")]:
            # the page's heading, not the site's
            heading.find_parents("header")[-1].insert_before(heading.extract())
    tags = list(_tags(root))
    wrappers = _wrappers(tags)
    _extract([tag for tag in tags if _is_boilerplate(tag, is_wrapper=id(tag) in wrappers)])
    tags = list(_tags(root))
    _strip_forms(root, [tag for tag in tags if tag.name == "form"])
    for link in [tag for tag in tags if tag.name == "a" and _is_anchor_of_heading(tag)]:
        link.unwrap()
    for table in [tag for tag in tags if not _LISTINGS.isdisjoint(_classes(tag)) and tag.find("pre")]:
        table.replace_with(table.find_all("pre")[-1])  # line numbers beside a listing
    for cell in root.find_all(["td", "th"]):
        _on_one_line(cell)


def _wrappers(tags: Iterable[Tag]) -> set[int]:
    """Return the ids of the tags around a main part, an article or a top heading."""
    wrappers: set[int] = set()
    for tag in tags:
        if tag.name in {"article", "h1"} or _is_main(tag):
            wrappers.update(
                id(parent) for parent in takewhile(lambda tag: id(tag) not in wrappers, tag.parents)
            )
    return wrappers


def _strip_forms(root: Tag, forms: Sequence[Tag]) -> None:
    """Drop forms to fill in; a form around the text, as ASP.NET has it, is another part of the page."""
    n_prose = _n_prose(root) if forms else 0
    dropped = []
    for form in reversed(forms):  # a form in a form is that of the outer one, as browsers have it
        n_own = _MIN_PROSE if form.find_parent("form") else _n_prose(form)
        if n_own >= _MIN_PROSE or 2 * n_own > n_prose:
            form.name = "div"
        else:
            dropped.append(form)
    _extract(dropped)


def _extract(dropped: Sequence[Tag]) -> None:
    """Take tags out of the page; without its index the library would search each among all its siblings."""
    ids = {id(tag) for tag in dropped}
    for parent in {id(tag.parent): tag.parent for tag in dropped if tag.parent is not None}.values():
        for index in reversed(range(len(parent.contents))):
            if id(parent.contents[index]) in ids:
                parent.contents[index].extract(index)


def _is_boilerplate(tag: Tag, *, is_wrapper: bool) -> bool:
    attributes, name = tag.attrs, tag.name
    if name in _DROPPED or (name == "dialog" and "open" not in attributes):
        return True
    if name == "aside" and _is_beside_the_text(tag):
        return True
    if not attributes:
        return False
    classes = _classes(tag)
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") in _DROPPED_ROLES
        or not _DROPPED_CLASSES.isdisjoint(classes)
        or bool(_HIDDEN.search(str(attributes.get("style") or "")))
        or (not is_wrapper and bool(_COOKIES.search(_names(tag))))
        or (name == "a" and bool(_PAGE_LINK.fullmatch(" ".join(tag.get_text().split()))))
        or (name == "img" and str(attributes.get("src")).startswith("data:"))
    )


def _classes(tag: Tag) -> Sequence[str]:
    return tag.get_attribute_list("class") if "class" in tag.attrs else ()


def _names(tag: Tag) -> str:
    return " ".join([*_classes(tag), str(tag.get("id") or "")])


def _is_beside_the_text(aside: Tag) -> bool:
    if _SIDEBAR.search(_names(aside)):
        return True
    if aside.get("role") == "note" or _NOTE.search(_names(aside)):
        return False
    return not any(tag.name == "article" or _is_main(tag) for tag in aside.parents)


def _is_anchor_of_heading(link: Tag) -> bool:
    """Whether a link to a place of the page stands in a heading, or around it."""
    if not str(link.get("href", "")).startswith("#"):
        return False
    return any(tag.name in _HEADINGS for tag in (*link.parents, *_tags(link)))


def _is_footnote_link(superscript: Tag) -> bool:
    """Whether a superscript holds links to places of a page and no other words, or is all of such a link."""
    text = superscript.get_text()
    if len(text) > _MAX_POWER:
        return False
    parent = superscript.parent
    if parent is not None and parent.name == "a" and len(parent.contents) == 1:
        links = [parent]
    else:
        links = superscript.find_all("a")
        text = re.sub(r"\W", "", text)
        if re.sub(r"\W", "", "".join(link.get_text() for link in links)) != text:
            return False
    return bool(links) and all("#" in str(link.get("href", "")) for link in links)


def _on_one_line(cell: Tag) -> None:
    if not re.fullmatch("[0-9]{1,2}", str(cell.get("colspan", ""))):
        del cell["colspan"]  # missing, or a value that the library cannot parse
    if not re.fullmatch("[0-9]{1,5}", str(cell.get("rowspan", ""))):
        del cell["rowspan"]
    for pre in cell.find_all("pre"):
        pre.name = "code"
