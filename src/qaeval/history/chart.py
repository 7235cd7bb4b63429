"""Chart of usable rates over time."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from qaeval.history.model import EvalHistory, HistoryRun
from qaeval.report import numbers
from qaeval.report.chart import SERIES, Chart, Theme, draw_bars, legend_columns, wrap_label
from qaeval.report.measure import Measure


def trend(history: EvalHistory, name: str) -> Chart:
    """Draw usable rates over time; lines connect comparable runs only, and a mark separates segments."""
    names = history.candidates

    def draw(axes: Any, theme: Theme) -> None:  # noqa: ANN401
        labelled = set()  # one entry per candidate in the legend, although each segment has its own line
        for segment in history.stretches:
            for candidate, points in _points(segment.runs).items():
                index = names.index(candidate)
                times, rates = zip(*points, strict=True)
                axes.plot(
                    times,
                    [100 * (rate.value or 0) for rate in rates],
                    color=SERIES[index % len(SERIES)],
                    marker="osD^v"[index % 5],
                    markersize=5,
                    linestyle=("-", "--", ":", "-.")[index // len(SERIES) % 4],
                    label=wrap_label(candidate) if candidate not in labelled else None,
                )
                draw_bars(axes, times, rates, SERIES[index % len(SERIES)])
                labelled.add(candidate)
        for previous, segment in pairwise(history.stretches):
            start, end = _moment(previous.runs[-1].started), _moment(segment.runs[0].started)
            middle = start + (end - start) / 2
            axes.axvline(middle, color=theme.soft, linewidth=1, linestyle="--")
            label = ", ".join(change.partition(":")[0] for change in segment.changes)
            axes.annotate(
                label,
                (middle, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -2),
                textcoords="offset points",
                rotation=90,
                va="top",
                fontsize=8,
                color=theme.soft,
            )
        axes.set_ylim(0, 100)
        axes.set_ylabel("usable items, %")
        _dates(axes, [_moment(run.started) for segment in history.stretches for run in segment.runs])
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=legend_columns(names))

    last = history.stretches[-1].runs[-1]
    alt = "; ".join(f"{rate.candidate}: {numbers.rate(rate.usable)} usable" for rate in last.rates)
    marks = numbers.plural(len(history.stretches) - 1, "change")
    return Chart(
        name,
        f"Usable rate of {history.eval}",
        f"{marks} of judge, rubric, samples or eval. Last run {last.name}: {alt}",
        draw,
        3.6,
    )


def _points(runs: Sequence[HistoryRun]) -> dict[str, list[tuple[datetime, Measure]]]:
    """Collect time and rate by candidate; undefined rates are skipped."""
    points: dict[str, list[tuple[datetime, Measure]]] = {}
    for run in runs:
        for rate in run.rates:
            if rate.usable.value is not None:
                points.setdefault(rate.candidate, []).append((_moment(run.started), rate.usable))
    return points


def _moment(utc: str) -> datetime:
    return datetime.fromisoformat(utc)


def _dates(axes: Any, times: Sequence[datetime]) -> None:  # noqa: ANN401
    """Set the time axis, with a margin that gives a single run a width."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415

    locator = AutoDateLocator(maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    margin = max(0.04 * (times[-1] - times[0]), timedelta(minutes=30))
    axes.set_xlim(times[0] - margin, times[-1] + margin)
