"""What ``qaeval plan`` says: sentences, then the numbers behind them."""

from qaeval.report import numbers
from qaeval.report.planning import PlanReport
from qaeval.report.tables import Section, Table


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
