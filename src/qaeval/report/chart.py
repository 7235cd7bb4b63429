"""What every chart is made of: colours, the chart itself, and intervals drawn on axes."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from typing import Any, Final

from qaeval.report.measure import Measure

_WIDTH: Final = 7.0
"""Inches; a chart scales with the page."""
LETTERS: Final = ("#2a9d8f", "#8ab17d", "#e9c46a", "#e08a4f", "#c0473b")
"""Best letter to worst."""
NONE, FAILED = "#7a858b", "#3c4449"
SERIES: Final = ("#0b7a80", "#c0473b", "#7353ba", "#b07a12", "#3d6fb6", "#4d7c2c")
HIGH: Final = 0.9
"""A rate from which a name stands below its point: above it is the title."""


@dataclass(frozen=True)
class Theme:
    """Colours of paper and ink."""

    paper: str
    ink: str
    soft: str
    band: str


LIGHT: Final = Theme(paper="#ffffff", ink="#1a2226", soft="#5b666b", band="#e6ebec")
DARK: Final = Theme(paper="#14181a", ink="#e7eaea", soft="#a5afb3", band="#2b3337")


@dataclass(frozen=True)
class Chart:
    """One chart of a report."""

    name: str
    """Stem of its file."""
    title: str
    alt: str
    """What it shows, in words."""
    draw: Callable[[Any, Theme], None]
    """Draws on matplotlib axes."""
    height: float
    """Inches."""
    in_page: bool = False
    """Whether ``report.html`` shows it too; the page has its own bars and intervals, as text and boxes."""

    def svg(self, theme: Theme = LIGHT) -> str:
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
                **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), theme.ink),
                "axes.edgecolor": theme.soft,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.facecolor": theme.paper,
                "legend.frameon": False,
            }
        ):
            figure = Figure(figsize=(_WIDTH, self.height), facecolor=theme.paper, layout="constrained")
            FigureCanvasSVG(figure)
            axes = figure.subplots()
            self.draw(axes, theme)
            axes.set_title(self.title, loc="left", fontsize=10.5, fontweight="bold")
            out = StringIO()
            figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        return out.getvalue()


def draw_bars(axes: Any, times: Sequence[datetime], rates: Sequence[Measure], colour: str) -> None:  # noqa: ANN401
    """Draw vertical intervals of rates, in percent, at points in time."""
    for time, rate in zip(times, rates, strict=True):
        reach = x_reach(rate, 100)
        if reach is not None:
            axes.errorbar([time], [100 * (rate.value or 0)], yerr=reach, fmt="none", color=colour, capsize=3)


def fit_height(n: int) -> float:
    """Return the height, in inches, of a chart with ``n`` rows."""
    return 1.15 + 0.45 * n


def draw_intervals(axes: Any, measures: Sequence[Measure], colour: str) -> None:  # noqa: ANN401
    """Draw one horizontal interval a row, in percent."""
    for row, measure in enumerate(measures):
        if measure.value is not None:
            axes.errorbar(
                [100 * measure.value], [row], xerr=x_reach(measure, 100), fmt="o", color=colour, capsize=4
            )


def x_reach(measure: Measure, factor: float) -> list[list[float]] | None:
    """Return how far an interval reaches down and up from its value, as matplotlib takes it."""
    value, low, high = measure.value, measure.low, measure.high
    if value is None or low is None or high is None:
        return None
    return [[factor * max(0.0, value - low)], [factor * max(0.0, high - value)]]
