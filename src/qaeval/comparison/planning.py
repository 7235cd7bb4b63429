"""How many chunks the next comparison needs, from the letters of a run or from assumptions.

Plans as data: the document of ``qaeval plan``.

What ``qaeval plan`` says: sentences, then the numbers behind them.
"""

from collections.abc import Sequence
from itertools import combinations
from math import isnan
from typing import Final

import pandas as pd

from qaeval.comparison.model import ALPHA
from qaeval.report import numbers
from qaeval.report.facts import Part
from qaeval.report.numbers import percent, plural, size
from qaeval.report.tables import Section, Table
from qaeval.stats.planning import Pilot, plan
from qaeval.stats.power import design_effect, icc1

FORMAT: Final = 1
"""Version of the layout of `PlanReport`."""


class PairPlan(Part):
    """What a comparison of two candidates can see."""

    a: str
    b: str
    n_chunks: int
    sd: float
    """Standard deviation of the paired difference between chunks."""
    detectable: float | None
    """Smallest true difference found with the power asked for; None where none is."""
    needed: int | None
    """Chunks that find the difference asked for with that power; None where even a million do not."""
    power: float
    """Probability that `n_chunks` find the difference asked for."""
    sentence: str


class Spread(Part):
    """How the usable items of one candidate spread over the chunks."""

    candidate: str
    usable: float
    icc: float | None
    """Correlation of two items of a chunk; None where it does not exist."""
    design_effect: float | None
    """How many times more items are needed than if they were independent."""


class PlanReport(Part):
    """What ``qaeval plan`` found."""

    format: int = FORMAT
    source: str
    """Run directory, or what was assumed."""
    difference: float
    wanted_power: float
    alpha: float
    items_per_chunk: int
    spreads: tuple[Spread, ...]
    pairs: tuple[PairPlan, ...]


def plan_run(
    table: pd.DataFrame,
    *,
    source: str,
    candidates: Sequence[str],
    best: str,
    difference: float,
    power: float,
    n_chunks: int | None = None,
) -> PlanReport:
    """Plan with the chunks of a run as the pilot.

    Where chunks have different numbers of items, each is taken to have as many as they have in the mean, rounded, with its
    own rates rounded to whole items.

    Args:
        table: The table of letters.
        source: The run, for the reader.
        candidates: At least two, in the order of the report.
        best: The letter of a usable item.
        difference: True difference of usable rates that matters, above 0.
        power: Probability to find it.
        n_chunks: Chunks of the comparison that is planned; those of the run when left out.

    Raises:
        ValueError: an argument is out of range.
    """
    usable = table.assign(usable=table["letter"] == best)
    rates = usable.pivot_table("usable", "cluster", "candidate", aggfunc="mean", sort=False).fillna(0)
    owed = usable.groupby(["candidate", "cluster"], sort=False).size()
    items_per_chunk = max(1, round(float(owed.mean())))
    counts = (rates * items_per_chunk).round()
    pairs = list(combinations(candidates, 2))
    return PlanReport(
        source=source,
        difference=difference,
        wanted_power=power,
        alpha=ALPHA,
        items_per_chunk=items_per_chunk,
        spreads=tuple(
            _spread(name, usable[usable["candidate"] == name], items_per_chunk) for name in candidates
        ),
        pairs=tuple(
            _pair(
                a,
                b,
                Pilot.of(counts[a], counts[b], items_per_chunk),
                difference,
                n_chunks=n_chunks or len(counts),
                power=power,
                alpha=ALPHA / len(pairs),
            )
            for a, b in pairs
        ),
    )


def plan_assumed(
    *, rate: float, icc: float, items_per_chunk: int, n_chunks: int, difference: float, power: float
) -> PlanReport:
    """Plan before any run, for two candidates that are equal but for the difference.

    Raises:
        ValueError: an argument is out of range.
    """
    pilot = Pilot.assumed(rate, icc, items_per_chunk)
    effect = design_effect(items_per_chunk, icc)
    return PlanReport(
        source=f"assumed: usable rate {percent(rate)}, correlation {icc:g} between items of a chunk",
        difference=difference,
        wanted_power=power,
        alpha=ALPHA,
        items_per_chunk=items_per_chunk,
        spreads=(Spread(candidate="assumed", usable=rate, icc=icc, design_effect=effect),),
        pairs=(_pair("one", "other", pilot, difference, n_chunks=n_chunks, power=power, alpha=ALPHA),),
    )


def _spread(name: str, rows: pd.DataFrame, items_per_chunk: int) -> Spread:
    values = rows["usable"].to_numpy(float)
    icc = icc1(values, rows["cluster"].to_numpy(object))
    known = not isnan(icc)
    return Spread(
        candidate=name,
        usable=float(values.mean()),
        icc=icc if known else None,
        design_effect=design_effect(items_per_chunk, icc) if known else None,
    )


def _pair(
    a: str, b: str, pilot: Pilot, difference: float, *, n_chunks: int, power: float, alpha: float
) -> PairPlan:
    found = plan(pilot, difference, n_chunks=n_chunks, alpha=alpha, power=power)
    return PairPlan(
        a=a,
        b=b,
        n_chunks=n_chunks,
        sd=found.sd,
        detectable=None if isnan(found.detectable) else found.detectable,
        needed=found.needed,
        power=found.power,
        sentence=_sentence(difference, power, found.needed, found.detectable, n_chunks)
        + _apart(pilot, difference),
    )


def _apart(pilot: Pilot, difference: float) -> str:
    """Say what was assumed where the pilot's candidates differ by more than the difference asked for."""
    better, worse = pilot.rates
    if better - worse <= difference:
        return ""
    return (
        f" The pilot's candidates are {size(better - worse)} apart, so the better one is taken to lose items until "
        f"{size(difference)} are left; plan from candidates that are nearer to each other if you can."
    )


def _sentence(difference: float, power: float, needed: int | None, detectable: float, n_chunks: int) -> str:
    wanted = f"To tell {size(difference)} apart with a power of {100 * power:g} %"
    needs = (
        "not even a million chunks are enough"
        if needed is None
        else f"you need about {plural(needed, 'chunk')}"
    )
    sees = "nothing with that power" if isnan(detectable) else f"{size(detectable)} or more"
    return f"{wanted} {needs}; with {plural(n_chunks, 'chunk')} you can see {sees}."


def write_plan(found: PlanReport) -> tuple[Section, ...]:
    """Turn a plan into one section."""
    several = len(found.pairs) > 1
    sentences = [f"{one.a} and {one.b}: {one.sentence}" if several else one.sentence for one in found.pairs]
    how = f"Pilot: {found.source}. Power of the two-sided sign-flip test at {100 * found.alpha:g} %"
    if several:
        how += f", shared by {len(found.pairs)} pairs"
    return (
        Section(
            anchor="plan",
            title="Plan",
            paragraphs=(*sentences, f"{how}, simulated with chunks drawn from the pilot."),
            tables=(_pairs(found), _spreads(found)),
        ),
    )


def _pairs(found: PlanReport) -> Table:
    header = (
        "pair",
        "chunks",
        "spread",
        f"found with {100 * found.wanted_power:g} %",
        f"chunks for {numbers.size(found.difference)}",
        "power at these chunks",
    )
    rows = tuple(
        (
            f"{one.a}, {one.b}",
            f"{one.n_chunks:,}",
            numbers.decimal(one.sd),
            "nothing" if one.detectable is None else numbers.size(one.detectable),
            "over a million" if one.needed is None else f"{one.needed:,}",
            numbers.percent(one.power),
        )
        for one in found.pairs
    )
    return Table(caption="Paired comparison", header=header, rows=rows)


def _spreads(found: PlanReport) -> Table:
    rows = tuple(
        (
            one.candidate,
            numbers.percent(one.usable),
            numbers.decimal(one.icc),
            numbers.decimal(one.design_effect, 1),
        )
        for one in found.spreads
    )
    caption = f"Clustering: {numbers.plural(found.items_per_chunk, 'item')} of each chunk"
    header = ("candidate", "usable", "correlation in a chunk (ICC)", "design effect")
    return Table(caption=caption, header=header, rows=rows)
