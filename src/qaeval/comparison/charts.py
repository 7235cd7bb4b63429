"""The charts of a report as SVG, drawn by matplotlib: for ``report.md``, and in the page where a chart needs axes.

A chart is an image: nothing in it can run, its text is text, and the sentence that says the same stands beside it. The same
report gives the same bytes.
"""

from typing import Any

from qaeval.comparison.report import Report
from qaeval.report import numbers
from qaeval.report.chart import (
    FAILED,
    HIGH,
    LETTERS,
    NONE,
    SERIES,
    Chart,
    Look,
    draw_intervals,
    fit_height,
    x_reach,
)


def charts(report: Report) -> tuple[Chart, ...]:
    """List the charts of a report, in the order of its sections."""
    found = (letters(report), differences(report), answers(report), front(report))
    return tuple(chart for chart in found if chart is not None)


def letters(report: Report) -> Chart:
    """Draw the letters of all expected items as bars, and the usable rate with its interval."""
    names = [one.facts.name for one in report.candidates]
    last = len(report.rubric.letters) - 1
    colours = [LETTERS[round(4 * place / last)] for place in range(last + 1)]
    kinds = [*report.rubric.letters, "no letter", "failed"]

    def draw(axes: Any, look: Look) -> None:  # noqa: ANN401 - matplotlib has no types here
        left = [0.0] * len(names)
        for place, (kind, colour) in enumerate(zip(kinds, [*colours, NONE, FAILED], strict=True)):
            counts = [(*one.letters, one.ungraded, one.failed)[place].n for one in report.candidates]
            shares = [100 * n / one.n_expected for n, one in zip(counts, report.candidates, strict=True)]
            if any(counts):
                axes.barh(names, shares, left=left, height=0.55, color=colour, label=kind)
            left = [start + share for start, share in zip(left, shares, strict=True)]
        draw_intervals(axes, [one.usable for one in report.candidates], look.ink)
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of all expected items")
        axes.invert_yaxis()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.42 / len(names) - 0.12), ncols=6)

    alt = "; ".join(f"{one.facts.name}: {numbers.rate(one.usable)} usable" for one in report.candidates)
    return Chart(
        "letters", "Letters, and the usable rate with its interval", alt, draw, fit_height(len(names))
    )


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
        draw_intervals(axes, [pair.difference for pair in pairs], SERIES[0])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(f"points of usable rate; the band is the margin of {100 * report.margin:g} points")

    alt = "; ".join(
        f"{name}: {numbers.difference(pair.difference)}" for name, pair in zip(names, pairs, strict=True)
    )
    return Chart("differences", "Differences in usable rate", alt, draw, fit_height(len(names)))


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
                color=SERIES[place % len(SERIES)],
                linewidth=1.8,
                linestyle=("-", "--", ":", "-.")[place % 4],
            )
        axes.set_xlim(0, 110)
        axes.set_ylim(0)
        axes.set_xticks([*range(0, 100, 20), 100], [*map(str, range(0, 100, 20)), "100 and more"])
        axes.set_xlabel("words of an answer")
        axes.set_ylabel("% of answers")
        axes.legend(
            loc="best"
        )  # explicit: with the default, matplotlib warns where placing it takes over a second

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
                yerr=x_reach(rate, 100),
                fmt="o" if one.is_on_front else "x",
                color=SERIES[place % len(SERIES)],
                capsize=3,
            )
            axes.annotate(
                one.candidate,
                (cost.value, 100 * (rate.value or 0)),
                xytext=(7, 5 if (rate.value or 0) < HIGH else -12),
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
