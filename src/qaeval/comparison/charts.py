"""Charts of a report as SVG, drawn by matplotlib: for ``report.md``, and in the page where a chart needs axes.

A chart is an image without scripts; a sentence beside it says the same. The same report gives the same bytes.
"""

from dataclasses import dataclass
from typing import Any

from qaeval.calibration.sections import reliability_diagram
from qaeval.comparison.report import Report
from qaeval.report import numbers
from qaeval.report.chart import (
    FAILED,
    HIGH,
    LETTERS,
    NONE,
    SERIES,
    Chart,
    Theme,
    draw_intervals,
    fit_height,
    legend_columns,
    wrap_label,
    x_reach,
)
from qaeval.report.measure import Measure


def charts(report: Report) -> tuple[Chart, ...]:
    """List the charts of a report, in the order of its sections."""
    all_charts = (
        letters(report),
        differences(report),
        answers(report),
        front(report),
        None if report.soft is None else reliability_diagram(report.soft, report.rubric.best),
    )
    return tuple(chart for chart in all_charts if chart is not None)


def letters(report: Report) -> Chart:
    """Draw the letters of all expected items as bars, and the usable rate with its interval."""
    names = [candidate.facts.name for candidate in report.candidates]
    last = len(report.rubric.letters) - 1
    colours = [LETTERS[round(4 * index / last)] for index in range(last + 1)]
    kinds = [*report.rubric.letters, "no letter", "failed"]

    def draw(axes: Any, theme: Theme) -> None:  # noqa: ANN401 - matplotlib has no types here
        rows = range(len(names))
        left = [0.0] * len(names)
        for index, (kind, colour) in enumerate(zip(kinds, [*colours, NONE, FAILED], strict=True)):
            counts = [
                (*candidate.letters, candidate.ungraded, candidate.failed)[index].n
                for candidate in report.candidates
            ]
            shares = [
                100 * n / candidate.n_expected for n, candidate in zip(counts, report.candidates, strict=True)
            ]
            if any(counts):
                axes.barh(rows, shares, left=left, height=0.55, color=colour, label=kind)
            left = [start + share for start, share in zip(left, shares, strict=True)]
        draw_intervals(axes, [candidate.usable for candidate in report.candidates], theme.ink)
        axes.set_yticks(rows, map(wrap_label, names))
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of all expected items")
        axes.invert_yaxis()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.42 / len(names) - 0.12), ncols=6)

    alt = "; ".join(
        f"{candidate.facts.name}: {numbers.rate(candidate.usable)} usable" for candidate in report.candidates
    )
    return Chart(
        "letters", "Letters, and the usable rate with its interval", alt, draw, fit_height(len(names))
    )


def differences(report: Report) -> Chart | None:
    """Draw all differences on one scale, with the margin's band; None without pairs."""
    bars = difference_bars(report)
    if not bars:
        return None
    names = [bar.name for bar in bars]

    def draw(axes: Any, theme: Theme) -> None:  # noqa: ANN401
        axes.axvspan(-100 * report.margin, 100 * report.margin, color=theme.band, zorder=0)
        axes.axvline(0, color=theme.soft, linewidth=1)
        axes.set_yticks(range(len(names)), map(wrap_label, names))
        draw_intervals(axes, [bar.measure for bar in bars], SERIES[0])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(f"points of usable rate; the band is the margin of {100 * report.margin:g} points")

    alt = "; ".join(f"{bar.name}: {numbers.difference(bar.measure)}" for bar in bars)
    return Chart("differences", "Differences in usable rate", alt, draw, fit_height(len(names)))


@dataclass(frozen=True)
class DifferenceBar:
    """One interval of a chart of differences."""

    name: str
    measure: Measure
    outcome: str


def difference_bars(report: Report) -> list[DifferenceBar]:
    """Return for each pair its difference by the labels that decide, if any, and by the judge's letters."""
    bars = []
    for pair in report.differences:
        name = f"{pair.b} {numbers.MINUS} {pair.a}"
        outcomes = {"a is better": f"{pair.a} is better", "b is better": f"{pair.b} is better"}
        judged = outcomes.get(pair.outcome, pair.outcome)
        if not report.verdict.trusts_judge:
            judged += ", by a refuted judge"
        if first := pair.deciding:
            by_labels = outcomes.get(first.outcome, first.outcome)
            bars.append(DifferenceBar(f"{name}, by {first.rater}'s labels", first.difference, by_labels))
            name = f"{name}, by the judge alone"
        bars.append(DifferenceBar(name, pair.difference, judged))
    return bars


def answers(report: Report) -> Chart | None:
    """Draw how long the answers are; None where there is no answer."""
    lengths = [
        (candidate.facts.name, candidate.answer_words)
        for candidate in report.candidates
        if candidate.answer_words.n
    ]
    if not lengths:
        return None

    def draw(axes: Any, _look: Theme) -> None:  # noqa: ANN401
        for index, (name, words) in enumerate(lengths):
            edges = [10 * step for step in range(len(words.histogram) + 1)]
            axes.stairs(
                [100 * n / words.n for n in words.histogram],
                edges,
                label=wrap_label(name),
                color=SERIES[index % len(SERIES)],
                linewidth=1.8,
                linestyle=("-", "--", ":", "-.")[index % 4],
            )
        axes.set_xlim(0, 110)
        axes.set_ylim(0)
        axes.set_xticks([*range(0, 100, 20), 100], [*map(str, range(0, 100, 20)), "100 and more"])
        axes.set_xlabel("words of an answer")
        axes.set_ylabel("% of answers")
        columns = legend_columns([name for name, _ in lengths])
        # inside the axes it would cover bars
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=columns)

    alt = "; ".join(f"{name}: median {numbers.decimal(words.median, 0)} words" for name, words in lengths)
    return Chart("answers", "Length of answers", alt, draw, 2.8, in_page=True)


def front(report: Report) -> Chart | None:
    """Draw quality against cost; None where fewer than two candidates have a cost in one unit."""
    unit = report.timing.cost_unit
    priced = [
        (cost, measure)
        for cost in report.timing.costs
        if (measure := cost.in_unit(unit)) is not None and measure.value is not None
    ]
    if len(priced) < 2:
        return None
    rates = {candidate.facts.name: candidate.usable for candidate in report.candidates}

    def draw(axes: Any, theme: Theme) -> None:  # noqa: ANN401
        for index, (cost, measure) in enumerate(priced):
            rate = rates[cost.candidate]
            axes.errorbar(
                [measure.value],
                [100 * (rate.value or 0)],
                yerr=x_reach(rate, 100),
                fmt="o" if cost.is_on_front else "x",
                color=SERIES[index % len(SERIES)],
                capsize=3,
            )
            axes.annotate(
                wrap_label(cost.candidate),
                (measure.value, 100 * (rate.value or 0)),
                xytext=(7, 5 if (rate.value or 0) < HIGH else -12),
                textcoords="offset points",
                color=theme.ink,
            )
        axes.set_xlim(0, 1.25 * max(measure.value or 0 for _, measure in priced))
        axes.set_ylim(0, 103)
        axes.set_xlabel(
            f"{'machine seconds' if unit == 'seconds' else unit} for 1,000 usable items, without grading"
        )
        axes.set_ylabel("usable items, %")

    alt = "; ".join(
        f"{cost.candidate}: {numbers.rate(rates[cost.candidate])} usable at {numbers.cost(measure, unit)}"
        for cost, measure in priced
    )
    title = "Quality against cost (dot: nobody is cheaper and better)"
    return Chart("cost", title, alt, draw, 3.4, in_page=True)
