"""``report.html``: one file that loads nothing and reads without scripts.

All text of models is escaped. The content security policy allows only the style sheet, the script and the images of the file
itself, by hash, so that text of a model could not run even if it were not escaped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from markupsafe import Markup

from qaeval.analysis.model import Count
from qaeval.comparison.charts import charts, difference_bars
from qaeval.comparison.items import UNSURE, ChunkItems
from qaeval.comparison.overview import CandidateLine, Overview, build_overview
from qaeval.comparison.report import Report
from qaeval.comparison.sections import headline, subtitle, title, write_sections
from qaeval.report import numbers
from qaeval.report.chart import Chart
from qaeval.report.measure import Measure
from qaeval.report.page import SCRIPT, STYLE, TICKS, content_policy, data_url, page_environment

_PALETTE: Final = 4
"""Colours run from ``letter-0`` (best) to ``letter-4`` (worst)."""
_SHARE_OF_CHARACTER: Final = 0.022
"""Share of a bar, on a phone, that a character takes; a text without room is left out, and is in the text alternative."""
_MENU: Final = {
    "quality": "Quality",
    "agreement": "Judge",
    "speed": "Speed and cost",
    "failures": "Failures",
    "provenance": "Provenance",
}


_Strip: TypeAlias = tuple[int, int, int, int]
"""Ticks before an interval, inside it up to the value, inside it behind the value, behind it."""


@dataclass(frozen=True)
class _Piece:
    """A piece of a bar: its name and count, its width in ticks, its colour class, and the text that has room in it."""

    name: str
    n: int
    width: int
    css_class: str
    text: str


@dataclass(frozen=True)
class _Bar:
    """One candidate's letters as a stacked bar, and its usable rate as a strip."""

    candidate: CandidateLine
    pieces: tuple[_Piece, ...]
    counts: str
    rate: str
    interval: str
    strip: _Strip | None


@dataclass(frozen=True)
class _Difference:
    """One difference on a common scale."""

    name: str
    text: str
    outcome: str
    strip: _Strip | None
    is_deciding: bool = True


@dataclass(frozen=True)
class _Forest:
    """Differences on one scale, with the margin's band around 0."""

    rows: tuple[_Difference, ...]
    band: tuple[int, int, int]
    """Ticks before the band, in each half of it, behind it."""
    ends: tuple[str, str]


@dataclass(frozen=True)
class _FlawCell:
    """How many items of one candidate have a flaw: text, interval, and a bar beside the rest of its scale, in ticks."""

    text: str
    rate: str
    width: int
    rest: int


@dataclass(frozen=True)
class PageLinks:
    """Links from a report to the other pages of a server; the file on disk has none."""

    home: str
    """List of runs."""
    label: str
    """Labelling of this run."""


def render_html(
    report: Report,
    items: Sequence[ChunkItems] = (),
    *,
    links: PageLinks | None = None,
    drawn: Sequence[Chart] | None = None,
) -> str:
    """Render a report as one self-contained page; the same arguments give the same text.

    Args:
        report: the report.
        items: what `comparison.analysis.Analysis.items` gathered; without them the page has no list of items.
        links: Other pages of the server that shows it; None: a file by itself.
        drawn: The charts of the report, where the caller has them.
    """
    environment = page_environment()
    screen = build_overview(report)
    bars = tuple(_bar(candidate, report.rubric.letters) for candidate in screen.candidates)
    leading = _forest(
        [
            _Difference(
                line.pair if line.is_deciding else "",
                numbers.difference(line.measure),
                line.source,
                None,
                line.is_deciding,
            )
            for line in screen.differences
        ],
        [line.measure for line in screen.differences],
        report.margin,
    )
    pairs = difference_bars(report)
    forest = _forest(
        [_Difference(bar.name, numbers.difference(bar.measure), bar.outcome, None) for bar in pairs],
        [bar.measure for bar in pairs],
        report.margin,
    )
    pictures = {chart.name: chart for chart in drawn or charts(report) if chart.in_page}
    flaws = _flaws(screen)
    widths = _widths(bars, leading, forest) | {
        ticks for _, cells in flaws for cell in cells for ticks in (cell.width, cell.rest)
    }
    style = environment.get_template(STYLE).render(widths=sorted(widths)).strip()
    script = environment.get_template(SCRIPT).render().strip()
    return environment.get_template("report.html.j2").render(
        title=title(report),
        subtitle=subtitle(report),
        report=report,
        screen=screen,
        headline=headline(report),
        sections=write_sections(report),
        menu=_menu(report),
        bars=bars,
        leading=leading,
        flaws=flaws,
        forest=forest,
        pictures=pictures,
        image=data_url,
        letters=report.rubric.letters,
        looks=_looks(report.rubric.letters),
        items=items,
        n_left_out=_left_out(report, items),
        strata=sorted({chunk.stratum for chunk in items}),
        types=sorted(
            {item.type for chunk in items for candidate in chunk.candidates for item in candidate.items}
            - {""}
        ),
        different={chunk.sample_id for chunk in items if _differs(chunk)},
        unsure=UNSURE,
        links=links,
        style=Markup(style),  # noqa: S704 - our own file, numbers filled in
        script=Markup(script),  # noqa: S704 - our own file
        policy=content_policy(style, script),
    )


def _menu(report: Report) -> tuple[tuple[str, str], ...]:
    """List the entries of the menu, anchor and name: the sections that most readers look for."""
    present = {section.anchor for section in write_sections(report)}
    return tuple((anchor, name) for anchor, name in _MENU.items() if anchor in present)


def _left_out(report: Report, items: Sequence[ChunkItems]) -> int:
    """Count the expected items that are not among those shown."""
    shown = sum(len(candidate.items) for chunk in items for candidate in chunk.candidates)
    return sum(candidate.n_expected for candidate in report.candidates) - shown


def _differs(chunk: ChunkItems) -> bool:
    """Whether the candidates' letters about a chunk differ, whatever their order."""
    letters = {
        tuple(sorted(item.letter or item.status for item in candidate.items))
        for candidate in chunk.candidates
    }
    return len(letters) > 1


def _looks(letters: Sequence[str]) -> dict[str, str]:
    """Give each letter its colour class, spread over the palette."""
    last = len(letters) - 1
    return {letter: f"letter-{round(index * _PALETTE / last)}" for index, letter in enumerate(letters)}


def _bar(candidate: CandidateLine, letters: Sequence[str]) -> _Bar:
    classes = {**_looks(letters), "no letter": "ungraded", "failed": "failed"}
    n_expected, rate = candidate.summary.n_expected, candidate.rate
    return _Bar(
        candidate=candidate,
        pieces=tuple(
            _Piece(
                name,
                n,
                max(1, round(TICKS * n / n_expected)),
                classes[name],
                _piece_text(name, n / n_expected),
            )
            for name, n in candidate.counts
            if n
        ),
        counts=" · ".join(f"{name} {n:,}" for name, n in candidate.counts),
        rate=numbers.whole_percent(rate.value),
        interval=numbers.whole_interval(rate),
        strip=_strip(rate),
    )


def _piece_text(name: str, share: float) -> str:
    """Return letter and share of a piece of a bar, the letter alone, or nothing, as its room allows."""
    texts = (f"{name} {100 * share:.0f}", name)
    return next((text for text in texts if share >= _SHARE_OF_CHARACTER * (len(text) + 1)), "")


def _strip(rate: Measure) -> _Strip | None:
    if rate.value is None or rate.low is None or rate.high is None:
        return None
    low, value, high = (round(TICKS * end) for end in (rate.low, rate.value, rate.high))
    return low, value - low, high - value, TICKS - high


def _forest(rows: Sequence[_Difference], measures: Sequence[Measure], margin: float) -> _Forest | None:
    """Put differences on one scale that is symmetric around 0; None without any."""
    if not rows:
        return None
    ends = [
        abs(end)
        for measure in measures
        for end in (measure.low, measure.value, measure.high)
        if end is not None
    ]
    reach = 1.08 * max([margin, *ends])

    def tick(share: float) -> int:
        return round(TICKS * (share + reach) / (2 * reach))

    def strip(measure: Measure) -> _Strip | None:
        low, value, high = measure.low, measure.value, measure.high
        if low is None or value is None or high is None:
            return None
        at = [tick(end) for end in (low, value, high)]
        return at[0], at[1] - at[0], at[2] - at[1], TICKS - at[2]

    before = tick(-margin)
    return _Forest(
        tuple(replace(row, strip=strip(measure)) for row, measure in zip(rows, measures, strict=True)),
        (before, TICKS // 2 - before, before),
        (numbers.points(-reach), numbers.points(reach)),
    )


def _flaws(screen: Overview) -> tuple[tuple[str, tuple[_FlawCell, ...]], ...]:
    """Put the flaws on a scale that ends at the most frequent one."""
    shares = [count.share.value or 0.0 for flaw in screen.flaws for count in flaw.counts]
    scale = max([*shares, 0.01])

    def cell(count: Count) -> _FlawCell:
        width = round(TICKS * (count.share.value or 0.0) / scale)
        return _FlawCell(numbers.percent(count.share.value), numbers.rate(count.share), width, TICKS - width)

    return tuple((flaw.name, tuple(map(cell, flaw.counts))) for flaw in screen.flaws)


def _widths(bars: Sequence[_Bar], *forests: _Forest | None) -> set[int]:
    """List every width that the page needs: its policy forbids style attributes."""
    used = {piece.width for bar in bars for piece in bar.pieces}
    used |= {ticks for bar in bars for ticks in bar.strip or ()}
    for forest in forests:
        if forest is not None:
            used |= {ticks for row in forest.rows for ticks in row.strip or ()} | set(forest.band)
    return used
