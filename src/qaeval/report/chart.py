"""Charts: colours, rendering as SVG, and intervals on axes."""

import logging
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property
from io import StringIO
from typing import Any, Final

from qaeval.report.measure import Measure

_WIDTH: Final = 7.0
"""Inches; pages scale charts."""
LETTERS: Final = ("#2a9d8f", "#8ab17d", "#e9c46a", "#e08a4f", "#c0473b")
"""Colours of letters, from best to worst."""
NONE, FAILED = "#7a858b", "#3c4449"
SERIES: Final = ("#3d6fb6", "#7353ba", "#c2559d", "#2191c9", "#5b6b7d", "#a08ad8")
"""Colours of candidates; none of them is near the colour of a letter."""
_COLOUR: Final = re.compile("(fill|stroke): (#[0-9a-f]{6})")
"""A colour in a style of an SVG."""
HIGH: Final = 0.9
"""Rates from which a label is below its point, since the title is above."""


@dataclass(frozen=True)
class Theme:
    """Colours of a light or dark chart."""

    paper: str
    ink: str
    soft: str
    band: str


LIGHT: Final = Theme(paper="#ffffff", ink="#1a2226", soft="#5b666b", band="#e6ebec")
DARK: Final = Theme(paper="#14181a", ink="#e7eaea", soft="#a5afb3", band="#2b3337")


@dataclass(frozen=True)
class Chart:
    """A chart of a report."""

    name: str
    """Stem of its file name."""
    title: str
    alt: str
    """Text alternative."""
    draw: Callable[[Any, Theme], None]
    """Function that draws on matplotlib axes."""
    height: float
    """Inches."""
    in_page: bool = False
    """Whether ``report.html`` shows it; the page draws bars and intervals in HTML instead."""

    def svg(self, theme: Theme = LIGHT) -> str:
        """Render as SVG; the same data give the same bytes (no date, fixed hash salt).

        The chart is laid out and drawn once; another theme replaces the colours.
        """
        colours = {getattr(LIGHT, field.name): getattr(theme, field.name) for field in fields(Theme)}
        return _COLOUR.sub(lambda match: f"{match[1]}: {colours.get(match[2], match[2])}", self._light)

    @cached_property
    def _light(self) -> str:
        # imported here: 0.4 s that only a report needs; its log would report the path of its font cache
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        import matplotlib as mpl  # noqa: PLC0415
        from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415

        ink, soft, paper = LIGHT.ink, LIGHT.soft, LIGHT.paper
        with mpl.rc_context(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": self.name,
                "text.parse_math": False,
                "font.family": "sans-serif",
                "font.size": 9.5,
                **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), ink),
                "axes.edgecolor": soft,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.facecolor": paper,
                "legend.frameon": False,
            }
        ):
            figure = Figure(figsize=(_WIDTH, self.height), facecolor=paper, layout="constrained")
            FigureCanvasSVG(figure)
            axes = figure.subplots()
            self.draw(axes, LIGHT)
            axes.set_title(self.title, loc="left", fontsize=10.5, fontweight="bold")
            out = StringIO()
            figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        return out.getvalue()


def draw_bars(axes: Any, times: Sequence[datetime], rates: Sequence[Measure], colour: str) -> None:  # noqa: ANN401
    """Draw vertical intervals of rates, in percent, over time."""
    for time, rate in zip(times, rates, strict=True):
        reach = x_reach(rate, 100)
        if reach is not None:
            axes.errorbar([time], [100 * (rate.value or 0)], yerr=reach, fmt="none", color=colour, capsize=3)


def wrap_label(text: str) -> str:
    """Break a label into at most three lines of 34 characters: a longer one leaves no room for the axes."""
    return textwrap.fill(text, 34, max_lines=3, placeholder=" …")


def legend_columns(labels: Sequence[str]) -> int:
    """Return how many columns of a legend, 1 to 3, fit below a chart."""
    return max(1, min(3, len(labels), 72 // max((len(wrap_label(label)) for label in labels), default=1)))


def fit_height(n: int) -> float:
    """Return the height, in inches, of a chart with ``n`` rows."""
    return 1.15 + 0.45 * n


def draw_intervals(axes: Any, measures: Sequence[Measure], colour: str) -> None:  # noqa: ANN401
    """Draw horizontal intervals, in percent, one per row."""
    for row, measure in enumerate(measures):
        if measure.value is not None:
            axes.errorbar(
                [100 * measure.value], [row], xerr=x_reach(measure, 100), fmt="o", color=colour, capsize=4
            )


def x_reach(measure: Measure, factor: float) -> list[list[float]] | None:
    """Return the distances from a value to its interval's ends, in the format of matplotlib; None without an interval."""
    value, low, high = measure.value, measure.low, measure.high
    if value is None or low is None or high is None:
        return None
    return [[factor * max(0.0, value - low)], [factor * max(0.0, high - value)]]
