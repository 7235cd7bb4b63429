"""The charts of a report as SVG, drawn by matplotlib: for ``report.md``, and in the page where a chart needs axes.

A chart is an image: nothing in it can run, its text is text, and the sentence that says the same stands beside it. The same
report gives the same bytes.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import StringIO
from typing import Any, Final

from qaeval.report import numbers
from qaeval.report.document import Report
from qaeval.report.history import EvalHistory, HistoryRun
from qaeval.report.measure import Measure

_WIDTH: Final = 7.0
"""Inches; a chart scales with the page."""
_LETTERS: Final = ("#2a9d8f", "#8ab17d", "#e9c46a", "#e08a4f", "#c0473b")
"""Best letter to worst."""
_NONE, _FAILED = "#7a858b", "#3c4449"
_SERIES: Final = ("#0b7a80", "#c0473b", "#7353ba", "#b07a12", "#3d6fb6", "#4d7c2c")
_HIGH: Final = 0.9
"""A rate from which a name stands below its point: above it is the title."""


@dataclass(frozen=True)
class Look:
    """Colours of paper and ink."""

    paper: str
    ink: str
    soft: str
    band: str


LIGHT: Final = Look(paper="#ffffff", ink="#1a2226", soft="#5b666b", band="#e6ebec")
DARK: Final = Look(paper="#14181a", ink="#e7eaea", soft="#a5afb3", band="#2b3337")


@dataclass(frozen=True)
class Chart:
    """One chart of a report."""

    name: str
    """Stem of its file."""
    title: str
    alt: str
    """What it shows, in words."""
    draw: Callable[[Any, Look], None]
    """Draws on matplotlib axes."""
    height: float
    """Inches."""
    in_page: bool = False
    """Whether ``report.html`` shows it too; the page has its own bars and intervals, as text and boxes."""

    def svg(self, look: Look = LIGHT) -> str:
        """Draw it."""
        # 0.4 s of import that only a report needs; its log says where it keeps its cache of fonts
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        import matplotlib as mpl  # noqa: PLC0415
        from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415

        with mpl.rc_context(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": self.name,
                "text.parse_math": False,
                "font.family": "sans-serif",
                "font.size": 9.5,
                **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), look.ink),
                "axes.edgecolor": look.soft,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.facecolor": look.paper,
                "legend.frameon": False,
            }
        ):
            figure = Figure(figsize=(_WIDTH, self.height), facecolor=look.paper, layout="constrained")
            FigureCanvasSVG(figure)
            axes = figure.subplots()
            self.draw(axes, look)
            axes.set_title(self.title, loc="left", fontsize=10.5, fontweight="bold")
            out = StringIO()
            figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        return out.getvalue()


def charts(report: Report) -> tuple[Chart, ...]:
    """List the charts of a report, in the order of its sections."""
    found = (letters(report), differences(report), answers(report), front(report))
    return tuple(chart for chart in found if chart is not None)


def letters(report: Report) -> Chart:
    """Draw the letters of all expected items as bars, and the usable rate with its interval."""
    names = [one.facts.name for one in report.candidates]
    last = len(report.rubric.letters) - 1
    colours = [_LETTERS[round(4 * place / last)] for place in range(last + 1)]
    kinds = [*report.rubric.letters, "no letter", "failed"]

    def draw(axes: Any, look: Look) -> None:  # noqa: ANN401 - matplotlib has no types here
        left = [0.0] * len(names)
        for place, (kind, colour) in enumerate(zip(kinds, [*colours, _NONE, _FAILED], strict=True)):
            counts = [(*one.letters, one.ungraded, one.failed)[place].n for one in report.candidates]
            shares = [100 * n / one.n_expected for n, one in zip(counts, report.candidates, strict=True)]
            if any(counts):
                axes.barh(names, shares, left=left, height=0.55, color=colour, label=kind)
            left = [start + share for start, share in zip(left, shares, strict=True)]
        _intervals(axes, [one.usable for one in report.candidates], look.ink)
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of all expected items")
        axes.invert_yaxis()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.42 / len(names) - 0.12), ncols=6)

    alt = "; ".join(f"{one.facts.name}: {numbers.rate(one.usable)} usable" for one in report.candidates)
    return Chart("letters", "Letters, and the usable rate with its interval", alt, draw, _tall(len(names)))


def differences(report: Report) -> Chart | None:
    """Draw all differences on one scale, with the margin's band; None without pairs."""
    pairs = report.differences
    if not pairs:
        return None
    names = [f"{pair.b} {numbers.MINUS} {pair.a}" for pair in pairs]

    def draw(axes: Any, look: Look) -> None:  # noqa: ANN401
        axes.axvspan(-100 * report.margin, 100 * report.margin, color=look.band, zorder=0)
        axes.axvline(0, color=look.soft, linewidth=1)
        axes.set_yticks(range(len(names)), names)
        _intervals(axes, [pair.difference for pair in pairs], _SERIES[0])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(f"points of usable rate; the band is the margin of {100 * report.margin:g} points")

    alt = "; ".join(
        f"{name}: {numbers.difference(pair.difference)}" for name, pair in zip(names, pairs, strict=True)
    )
    return Chart("differences", "Differences in usable rate", alt, draw, _tall(len(names)))


def answers(report: Report) -> Chart | None:
    """Draw how long the answers are; None where there is no answer."""
    known = [(one.facts.name, one.answer_words) for one in report.candidates if one.answer_words.n]
    if not known:
        return None

    def draw(axes: Any, _look: Look) -> None:  # noqa: ANN401
        for place, (name, words) in enumerate(known):
            edges = [10 * step for step in range(len(words.histogram) + 1)]
            axes.stairs(
                [100 * n / words.n for n in words.histogram],
                edges,
                label=name,
                color=_SERIES[place % len(_SERIES)],
                linewidth=1.8,
                linestyle=("-", "--", ":", "-.")[place % 4],
            )
        axes.set_xlim(0, 110)
        axes.set_ylim(0)
        axes.set_xticks([*range(0, 100, 20), 100], [*map(str, range(0, 100, 20)), "100 and more"])
        axes.set_xlabel("words of an answer")
        axes.set_ylabel("% of answers")
        axes.legend(loc="best")  # said, or matplotlib warns wherever placing it takes more than a second

    alt = "; ".join(f"{name}: median {numbers.decimal(words.median, 0)} words" for name, words in known)
    return Chart("answers", "Length of answers", alt, draw, 2.8, in_page=True)


def front(report: Report) -> Chart | None:
    """Draw quality against cost; None where fewer than two candidates have a cost in one unit."""
    unit = report.timing.cost_unit
    costs = [(one, one.in_unit(unit)) for one in report.timing.costs]
    known = [(one, cost) for one, cost in costs if cost is not None and cost.value is not None]
    if len(known) < 2:  # noqa: PLR2004 - one point compares nothing
        return None
    rates = {one.facts.name: one.usable for one in report.candidates}

    def draw(axes: Any, look: Look) -> None:  # noqa: ANN401
        for place, (one, cost) in enumerate(known):
            rate = rates[one.candidate]
            axes.errorbar(
                [cost.value],
                [100 * (rate.value or 0)],
                yerr=_reach(rate, 100),
                fmt="o" if one.is_on_front else "x",
                color=_SERIES[place % len(_SERIES)],
                capsize=3,
            )
            axes.annotate(
                one.candidate,
                (cost.value, 100 * (rate.value or 0)),
                xytext=(7, 5 if (rate.value or 0) < _HIGH else -12),
                textcoords="offset points",
                color=look.ink,
            )
        axes.set_xlim(0, 1.25 * max(cost.value or 0 for _, cost in known))
        axes.set_ylim(0, 103)
        axes.set_xlabel(
            f"{'machine seconds' if unit == 'seconds' else unit} for 1,000 usable items, without grading"
        )
        axes.set_ylabel("usable items, %")

    alt = "; ".join(
        f"{one.candidate}: {numbers.rate(rates[one.candidate])} usable at {numbers.cost(cost, unit)}"
        for one, cost in known
    )
    title = "Quality against cost (dot: nobody is cheaper and better)"
    return Chart("cost", title, alt, draw, 3.4, in_page=True)


def trend(history: EvalHistory, name: str) -> Chart:
    """Draw usable rates over time; a line goes through a stretch of comparable runs alone, and a mark stands between two."""
    names = history.candidates

    def draw(axes: Any, look: Look) -> None:  # noqa: ANN401
        labelled = set()
        for stretch in history.stretches:
            for candidate, points in _points(stretch.runs).items():
                place = names.index(candidate)
                times, rates = zip(*points, strict=True)
                axes.plot(
                    times,
                    [100 * (rate.value or 0) for rate in rates],
                    color=_SERIES[place % len(_SERIES)],
                    marker="osD^v"[place % 5],
                    markersize=5,
                    linestyle=("-", "--", ":", "-.")[place // len(_SERIES) % 4],
                    label=candidate if candidate not in labelled else None,
                )
                _bars(axes, times, rates, _SERIES[place % len(_SERIES)])
                labelled.add(candidate)
        for before, after in zip(history.stretches, history.stretches[1:], strict=False):
            start, end = _moment(before.runs[-1].started), _moment(after.runs[0].started)
            middle = start + (end - start) / 2
            axes.axvline(middle, color=look.soft, linewidth=1, linestyle="--")
            what = ", ".join(change.partition(":")[0] for change in after.changes)
            axes.annotate(
                what,
                (middle, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -2),
                textcoords="offset points",
                rotation=90,
                va="top",
                fontsize=8,
                color=look.soft,
            )
        axes.set_ylim(0, 100)
        axes.set_ylabel("usable items, %")
        _dates(axes, [_moment(run.started) for stretch in history.stretches for run in stretch.runs])
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=min(3, len(names)))

    last = history.stretches[-1].runs[-1]
    alt = "; ".join(f"{one.candidate}: {numbers.rate(one.usable)} usable" for one in last.rates)
    marks = numbers.plural(len(history.stretches) - 1, "change")
    return Chart(
        name,
        f"Usable rate of {history.eval}",
        f"{marks} of what runs hang on. Last run {last.name}: {alt}",
        draw,
        3.6,
    )


def _points(runs: Sequence[HistoryRun]) -> dict[str, list[tuple[datetime, Measure]]]:
    """Collect time and rate by candidate; a rate that does not exist is no point."""
    found: dict[str, list[tuple[datetime, Measure]]] = {}
    for run in runs:
        for one in run.rates:
            if one.usable.value is not None:
                found.setdefault(one.candidate, []).append((_moment(run.started), one.usable))
    return found


def _bars(axes: Any, times: Sequence[datetime], rates: Sequence[Measure], colour: str) -> None:  # noqa: ANN401
    for time, rate in zip(times, rates, strict=True):
        reach = _reach(rate, 100)
        if reach is not None:
            axes.errorbar([time], [100 * (rate.value or 0)], yerr=reach, fmt="none", color=colour, capsize=3)


def _moment(utc: str) -> datetime:
    return datetime.fromisoformat(utc)


def _dates(axes: Any, times: Sequence[datetime]) -> None:  # noqa: ANN401
    """Set a scale of time that has a width also for one run."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415

    locator = AutoDateLocator(maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    margin = max(0.04 * (times[-1] - times[0]), timedelta(minutes=30))
    axes.set_xlim(times[0] - margin, times[-1] + margin)


def _tall(n: int) -> float:
    return 1.15 + 0.45 * n


def _intervals(axes: Any, measures: Sequence[Measure], colour: str) -> None:  # noqa: ANN401
    for place, measure in enumerate(measures):
        if measure.value is not None:
            axes.errorbar(
                [100 * measure.value], [place], xerr=_reach(measure, 100), fmt="o", color=colour, capsize=4
            )


def _reach(measure: Measure, factor: float) -> list[list[float]] | None:
    """Return how far an interval reaches down and up from its value, as matplotlib takes it."""
    value, low, high = measure.value, measure.low, measure.high
    if value is None or low is None or high is None:
        return None
    return [[factor * max(0.0, value - low)], [factor * max(0.0, high - value)]]
