"""Chunks and labelled chunks that the next comparison needs: analysis, data and view of ``qaeval plan``."""

from collections.abc import Sequence
from itertools import combinations
from math import isnan
from typing import Final

import pandas as pd
from pydantic import Field

from qaeval.agreement.model import JudgeDiscrimination
from qaeval.comparison.headline import doubt_clause
from qaeval.comparison.model import ALPHA, Difference, LabelledDifference, Reason
from qaeval.comparison.verdict import SHOWN_FROM
from qaeval.report import numbers
from qaeval.report.facts import Part, is_unset
from qaeval.report.numbers import percent, plural, size
from qaeval.report.tables import Section, Table
from qaeval.stats.estimate import MIN_CLUSTERS
from qaeval.stats.labelling import labelled_chunks_needed
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
    """Chunks that find the difference asked for with that power; None where even a million do not, or no number does."""
    power: float
    """Probability that `n_chunks` find the difference asked for."""
    n_labelled: int | None = None
    """Labelled chunks, of those of the run, that show the difference asked for; None where even all do not, or without a run."""
    correlation: float | None = None
    """Between the judge's and the labels' differences of a chunk; 0 is assumed without labels of 10 chunks. None without a run."""
    sentence: str


class ClusterSpread(Part):
    """How the usable items of one candidate spread over the chunks."""

    candidate: str
    usable: float
    icc: float | None
    """Correlation of two items of a chunk; None where it does not exist."""
    design_effect: float | None
    """How many times more items are needed than if they were independent."""


_ASSUMED: Final = "assumed: "


class PlanReport(Part):
    """What ``qaeval plan`` found."""

    format: int = FORMAT
    source: str
    """Run directory, or what was assumed."""
    difference: float
    wanted_power: float
    alpha: float
    items_per_chunk: int
    spreads: tuple[ClusterSpread, ...]
    pairs: tuple[PairPlan, ...]
    doubts: tuple[Reason, ...] = Field(default=(), exclude_if=is_unset)
    """Why the letters of the run's judge decide nothing, however many chunks there are; empty where they may decide."""
    controls: JudgeDiscrimination | None = Field(default=None, exclude_if=is_unset)
    """Whether the run's judge tells anything apart; None without a run."""

    @property
    def is_assumed(self) -> bool:
        """Whether the spread of the chunks is assumed, and not that of a run."""
        return self.source.startswith(_ASSUMED)


def plan_run(
    table: pd.DataFrame,
    *,
    source: str,
    candidates: Sequence[str],
    best: str,
    difference: float,
    power: float,
    n_chunks: int | None = None,
    labelled: Sequence[Difference] = (),
    doubts: Sequence[Reason] = (),
    controls: JudgeDiscrimination | None = None,
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
        n_chunks: Chunks of the comparison that is planned; default: those of the run.
        labelled: Differences of the pairs with what labels say of them; from these, how many labelled chunks decide.
        doubts: Why the judge's letters decide nothing: then no number of chunks does, and labels alone decide.
        controls: Whether the judge tells anything apart.

    Raises:
        ValueError: an argument is out of range.
    """
    by_pair = {(pair.a, pair.b): pair.deciding for pair in labelled}
    usable = table.assign(usable=table["letter"] == best)
    rates = usable.pivot_table("usable", "cluster", "candidate", aggfunc="mean", sort=False).fillna(0)
    owed = usable.groupby(["candidate", "cluster"], sort=False).size()
    items_per_chunk = max(1, round(float(owed.mean())))
    counts = (rates * items_per_chunk).round()
    pairs = list(combinations(candidates, 2))

    def plan_pair(a: str, b: str) -> PairPlan:
        pilot = Pilot.of(counts[a], counts[b], items_per_chunk)
        shared = {"power": power, "alpha": ALPHA / len(pairs)}
        n = n_chunks or len(counts)
        if not doubts and difference > pilot.rates[0]:
            best = percent(pilot.rates[0])
            sentence = (
                f"They cannot differ by {size(difference)}: the better of the two has {best} usable items."
            )
            return _without_numbers(a, b, pilot, n, sentence)
        pair = _pair(a, b, pilot, difference, n_chunks=n, is_judge_trusted=not doubts, **shared)
        return _with_labels(pair, by_pair.get((a, b)), difference, is_judge_trusted=not doubts, **shared)

    return PlanReport(
        source=source,
        difference=difference,
        wanted_power=power,
        alpha=ALPHA,
        items_per_chunk=items_per_chunk,
        spreads=tuple(
            _spread(name, usable[usable["candidate"] == name], items_per_chunk) for name in candidates
        ),
        pairs=tuple(plan_pair(a, b) for a, b in pairs),
        doubts=tuple(doubts),
        controls=controls,
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
        source=f"{_ASSUMED}usable rate {percent(rate)}, correlation {icc:g} between items of a chunk",
        difference=difference,
        wanted_power=power,
        alpha=ALPHA,
        items_per_chunk=items_per_chunk,
        spreads=(ClusterSpread(candidate="assumed", usable=rate, icc=icc, design_effect=effect),),
        pairs=(_pair("A", "B", pilot, difference, n_chunks=n_chunks, power=power, alpha=ALPHA),),
    )


def _spread(name: str, rows: pd.DataFrame, items_per_chunk: int) -> ClusterSpread:
    values = rows["usable"].to_numpy(float)
    icc = icc1(values, rows["cluster"].to_numpy(object))
    is_defined = not isnan(icc)
    return ClusterSpread(
        candidate=name,
        usable=float(values.mean()),
        icc=icc if is_defined else None,
        design_effect=design_effect(items_per_chunk, icc) if is_defined else None,
    )


def _pair(
    a: str,
    b: str,
    pilot: Pilot,
    difference: float,
    *,
    n_chunks: int,
    power: float,
    alpha: float,
    is_judge_trusted: bool = True,
) -> PairPlan:
    if not is_judge_trusted:
        return _without_numbers(a, b, pilot, n_chunks, "No number of chunks decides by this judge's letters.")
    planned = plan(pilot, difference, n_chunks=n_chunks, alpha=alpha, power=power)
    return PairPlan(
        a=a,
        b=b,
        n_chunks=n_chunks,
        sd=planned.sd,
        detectable=None if isnan(planned.detectable) else planned.detectable,
        needed=planned.needed,
        power=planned.power,
        sentence=_sentence(difference, power, planned.needed, planned.detectable, n_chunks)
        + _apart(pilot, difference),
    )


def _without_numbers(a: str, b: str, pilot: Pilot, n_chunks: int, sentence: str) -> PairPlan:
    """Plan a pair about which no number of chunks decides."""
    return PairPlan(
        a=a,
        b=b,
        n_chunks=n_chunks,
        sd=float(((pilot.usable_b - pilot.usable_a) / pilot.size).std(ddof=1)),
        detectable=None,
        needed=None,
        power=0.0,
        sentence=sentence,
    )


def _with_labels(
    pair: PairPlan,
    labelled: LabelledDifference | None,
    difference: float,
    *,
    power: float,
    alpha: float,
    is_judge_trusted: bool,
) -> PairPlan:
    """Add how many labelled chunks decide, from the labels of the pair; without any, from the judge's spread alone."""
    if pair.n_chunks < MIN_CLUSTERS:
        return pair
    if labelled is None and not is_judge_trusted:
        sentence = (
            f"{pair.sentence} Label {MIN_CLUSTERS} chunks first: they show how many labelled chunks it takes."
        )
        return pair.model_copy(update={"sentence": sentence})
    correlation = max(0.0, (labelled.correlation or 0.0) if labelled else 0.0)
    sd = labelled.sd if labelled and labelled.sd else pair.sd
    needed = (
        labelled_chunks_needed(
            difference, sd=sd, correlation=correlation, n_chunks=pair.n_chunks, alpha=alpha, power=power
        )
        if sd > 0
        else None
    )
    # fewer leave the verdict conditional on the judge
    enough = None if needed is None or pair.n_chunks < SHOWN_FROM else max(needed, SHOWN_FROM)
    basis = (
        f"by {labelled.rater}'s labels so far, which agree with the judge's differences at a correlation of {correlation:.2f}"
        if labelled
        else "taking nothing from the judge's letters"
    )
    chunks_needed = (
        f" Labels of {plural(enough, 'chunk')} show it without relying on the judge ({basis})."
        if enough
        else f" Labels of all {plural(pair.n_chunks, 'chunk')} would not be enough to show it without relying on the judge ({basis})."
    )
    return pair.model_copy(
        update={"n_labelled": enough, "correlation": correlation, "sentence": pair.sentence + chunks_needed}
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
    goal = f"To tell {size(difference)} apart with a power of {100 * power:g} %"
    needs = (
        "not even a million chunks are enough"
        if needed is None
        else f"you need about {plural(needed, 'chunk')}"
    )
    sees = "nothing with that power" if isnan(detectable) else f"{size(detectable)} or more"
    return f"{goal} {needs}; with {plural(n_chunks, 'chunk')} you can see {sees}."


def write_plan(report: PlanReport) -> tuple[Section, ...]:
    """Turn a plan into one section."""
    is_family = len(report.pairs) > 1
    sentences = [
        f"{pair.a} and {pair.b}: {pair.sentence}" if is_family else pair.sentence for pair in report.pairs
    ]
    pilot = report.source[:1].upper() + report.source[1:] if report.is_assumed else f"Pilot: {report.source}"
    method = f"{pilot}. Power of the two-sided sign-flip test at {100 * report.alpha:g} %"
    if is_family:
        method += f", shared by {len(report.pairs)} pairs"
    doubt = (
        (f"More chunks decide nothing: {doubt_clause(report.doubts, report.controls)}.",)
        if report.doubts
        else ()
    )
    return (
        Section(
            anchor="plan",
            title="Plan",
            paragraphs=(
                *doubt,
                *sentences,
                f"{method}, simulated with {'chunks of that kind' if report.is_assumed else 'chunks drawn from the pilot'}.",
            ),
            tables=(_pairs(report), _spreads(report)),
        ),
    )


def _pairs(report: PlanReport) -> Table:
    has_labels = any(pair.correlation is not None for pair in report.pairs)
    header = (
        "pair",
        "chunks",
        "spread",
        f"found with {100 * report.wanted_power:g} %",
        f"chunks for {numbers.size(report.difference)}",
        "power at these chunks",
        *(("labelled chunks",) if has_labels else ()),
    )
    rows = tuple(
        (
            f"{pair.a}, {pair.b}",
            f"{pair.n_chunks:,}",
            numbers.decimal(pair.sd),
            "nothing" if pair.detectable is None else numbers.size(pair.detectable),
            _needed(pair, is_judge_trusted=not report.doubts),
            numbers.percent(pair.power),
            *(
                ("more than there are" if pair.n_labelled is None else f"{pair.n_labelled:,}",)
                if has_labels
                else ()
            ),
        )
        for pair in report.pairs
    )
    return Table(caption="Paired comparison", header=header, rows=rows)


def _needed(pair: PairPlan, *, is_judge_trusted: bool) -> str:
    if not is_judge_trusted:
        return "no number"
    if pair.needed is None:
        return "over a million" if pair.power else "no number"
    return f"{pair.needed:,}"


def _spreads(report: PlanReport) -> Table:
    rows = tuple(
        (
            spread.candidate,
            numbers.percent(spread.usable),
            numbers.decimal(spread.icc),
            numbers.decimal(spread.design_effect, 1),
        )
        for spread in report.spreads
    )
    caption = f"Clustering: {numbers.plural(report.items_per_chunk, 'item')} of each chunk"
    header = ("candidate", "usable", "correlation in a chunk (ICC)", "design effect")
    return Table(caption=caption, header=header, rows=rows)
