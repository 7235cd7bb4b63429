"""``report.html``: one file that loads nothing and reads without scripts.

All text of models is escaped. The content security policy allows only the style sheet, the script and the images of the file
itself, by hash, so that text of a model could not run even if it were not escaped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from qaeval.analysis.model import CandidateSummary
from qaeval.comparison.charts import charts, difference_bars
from qaeval.comparison.items import UNSURE, ChunkItems
from qaeval.comparison.provenance import data_left
from qaeval.comparison.report import Report
from qaeval.comparison.sections import headline, subtitle, title, write_sections
from qaeval.report import numbers
from qaeval.report.page import STYLE, content_policy, data_url, page_environment

_SCRIPT: Final = "page.js"
_PALETTE: Final = 4
"""Colours run from ``letter-0`` (best) to ``letter-4`` (worst)."""
_TICKS: Final = 1000
"""Resolution of the interval strip."""
_LEAST_LABELLED: Final = 0.06
"""A narrower piece of a bar has its name in the text below alone."""


@dataclass(frozen=True)
class _Piece:
    """A piece of a bar: its name, how wide it is, its colour class."""

    name: str
    n: int
    css_class: str
    labelled: bool = True


@dataclass(frozen=True)
class _Bar:
    """One candidate's letters as a stacked bar, and its usable rate as a strip."""

    candidate: str
    pieces: tuple[_Piece, ...]
    counts: str
    rate: str
    strip: tuple[int, int, int, int] | None
    """Ticks before the interval, inside it up to the value, inside it behind the value, behind it."""


@dataclass(frozen=True)
class _Difference:
    """One pair's difference on a common scale, in ticks from the left."""

    name: str
    text: str
    outcome: str
    strip: tuple[int, int, int, int] | None
    """Ticks before the interval, inside it up to the value, inside it behind the value, behind it."""


@dataclass(frozen=True)
class _Forest:
    """All pairs on one scale, with the margin's band around 0."""

    rows: tuple[_Difference, ...]
    band: tuple[int, int, int]
    """Ticks before the band, in each half of it, behind it."""
    ends: tuple[str, str]


def render_html(report: Report, items: Sequence[ChunkItems] = ()) -> str:
    """Render a report as one self-contained page; the same arguments give the same text.

    Args:
        report: the report.
        items: what `comparison.analysis.Analysis.items` gathered; without them the page has no list of items.
    """
    environment = page_environment()
    bars = tuple(_bar(candidate, report.rubric.letters) for candidate in report.candidates)
    forest = _forest(report)
    pictures = {chart.name: chart for chart in charts(report) if chart.in_page}
    style = environment.get_template(STYLE).render(widths=_widths(bars, forest)).strip()
    script = environment.get_template(_SCRIPT).render().strip()
    return environment.get_template("report.html.j2").render(
        title=title(report),
        subtitle=subtitle(report),
        report=report,
        headline=headline(report),
        sections=write_sections(report),
        bars=bars,
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
        data_left=data_left(report),
        style=Markup(style),  # noqa: S704 - our own file, numbers filled in
        script=Markup(script),  # noqa: S704 - our own file
        policy=content_policy(style, script),
    )


def _left_out(report: Report, items: Sequence[ChunkItems]) -> int:
    """Count the expected items that are not among those shown."""
    shown = sum(len(candidate.items) for chunk in items for candidate in chunk.candidates)
    return report.eval.n_expected * len(report.candidates) - shown


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


def _bar(candidate: CandidateSummary, letters: Sequence[str]) -> _Bar:
    classes = _looks(letters)
    named = [(count.name, count.n, classes[count.name]) for count in candidate.letters]
    named += [("no letter", candidate.ungraded.n, "ungraded"), ("failed", candidate.failed.n, "failed")]
    return _Bar(
        candidate=candidate.facts.name,
        pieces=tuple(
            _Piece(name, n, css_class, labelled=n >= _LEAST_LABELLED * candidate.n_expected)
            for name, n, css_class in named
            if n
        ),
        counts=" · ".join(f"{name} {n:,}" for name, n, _ in named),
        rate=numbers.rate(candidate.usable),
        strip=_strip(candidate),
    )


def _strip(candidate: CandidateSummary) -> tuple[int, int, int, int] | None:
    usable = candidate.usable
    if usable.value is None or usable.low is None or usable.high is None:
        return None
    low, value, high = (round(_TICKS * end) for end in (usable.low, usable.value, usable.high))
    return low, value - low, high - value, _TICKS - high


def _forest(report: Report) -> _Forest | None:
    """Put all differences on one scale that is symmetric around 0; None without pairs."""
    if not report.differences:
        return None
    bars = difference_bars(report)
    ends = [
        abs(end)
        for bar in bars
        for end in (bar.measure.low, bar.measure.value, bar.measure.high)
        if end is not None
    ]
    reach = 1.08 * max([report.margin, *ends])

    def tick(share: float) -> int:
        return round(_TICKS * (share + reach) / (2 * reach))

    rows = []
    for bar in bars:
        low, value, high = bar.measure.low, bar.measure.value, bar.measure.high
        strip = None
        if low is not None and value is not None and high is not None:
            at = [tick(end) for end in (low, value, high)]
            strip = (at[0], at[1] - at[0], at[2] - at[1], _TICKS - at[2])
        rows.append(_Difference(bar.name, numbers.difference(bar.measure), bar.outcome, strip))
    before = tick(-report.margin)
    band = (before, _TICKS // 2 - before, before)
    return _Forest(tuple(rows), band, (numbers.points(-reach), numbers.points(reach)))


def _widths(bars: Sequence[_Bar], forest: _Forest | None) -> list[int]:
    """List every width that the page needs: its policy forbids style attributes."""
    used = {piece.n for bar in bars for piece in bar.pieces}
    used |= {ticks for bar in bars for ticks in bar.strip or ()}
    if forest is not None:
        used |= {ticks for row in forest.rows for ticks in row.strip or ()} | set(forest.band)
    return sorted(used)
