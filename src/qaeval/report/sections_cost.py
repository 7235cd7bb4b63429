"""What ``qaeval cost`` says, and a report of other people's prices: sentences, then the numbers behind them."""

from collections.abc import Sequence
from typing import Final

from qaeval.report import numbers
from qaeval.report.cost_tables import item_costs, node_table
from qaeval.report.costing import CostReport, Work
from qaeval.report.document import Report
from qaeval.report.tables import Section, Table
from qaeval.report.ways import BreakEven, HostedCost, Way

_RUN: Final = "Cost of the run = sum over machines of (start + idle + work) seconds / 3,600 × price per hour."
_TOKENS: Final = (
    "Price elsewhere = (prompt tokens × price in + completion tokens × price out) / 1,000,000, with the tokens that your own servers counted. Nothing "
    "was sent there. Another model cuts text into other tokens and writes replies of another length; what an offer takes less for "
    "cached prompts is not known and not taken off."
)
_WAYS: Final = (
    "Always on = 24 × price per hour, however many runs. Scale to zero = (start + idle + work + linger) / 3,600 × price per hour, for "
    "each run. Hosted = tokens × their prices, for each run. Two ways cost the same at (difference per day) / (difference per run) runs."
)
_ASK: Final = "`qaeval cost RUN` takes what no run knows: --start, --linger, --always-on, --hourly-rate."
_WORK: Final = "Seconds = items / items per second; price = seconds / 3,600 × price per hour, for one machine that does nothing else."


def write_cost_report(found: CostReport) -> tuple[Section, ...]:
    """Turn a cost report into sections: the run, items, the same tokens elsewhere, break-even, waiting."""
    run = Section(
        anchor="cost",
        title=f"What {found.source} cost",
        paragraphs=(_total(found), _RUN, *(f"! {text}" for text in found.cautions)),
        tables=(*node_table(found.nodes), *item_costs(found.candidates)),
    )
    return (run, _hosted(found.hosted), _ways(found.ways, found.break_evens), *_waiting(found))


def elsewhere(report: Report) -> Section | None:
    """Say what a run's tokens would have cost at the registry's offers, and from how many runs a day a machine of one's own pays."""
    found = report.timing.hosting
    if found is None:
        return None
    offers, ways = _hosted(found.costs), _ways(found.ways, found.break_evens)
    return Section(
        anchor="elsewhere",
        title="Machines of your own, or hosted",
        paragraphs=(*ways.paragraphs, *offers.paragraphs, *(f"! {text}" for text in found.cautions), _ASK),
        tables=(*ways.tables, *offers.tables),
    )


def write_work(works: Sequence[Work], currency: str, priced: str) -> tuple[Section, ...]:
    """Say what items cost at one or several steady speeds.

    Args:
        works: The slowest first.
        currency: Of the price.
        priced: The price per hour, and where it comes from.
    """
    rows = tuple(
        (
            f"{one.per_s:,g} /s",
            f"{one.seconds:,.0f} s",
            f"{one.hours:,.3f} h",
            f"{currency} {numbers.money(one.price)}",
            f"{currency} {numbers.money(one.price_per_1000)}",
        )
        for one in works
    )
    header = ("Items per second", "Time", "Node hours", f"Price of {works[0].n:,}", "of 1,000")
    slow, fast = works[0], works[-1]
    less = (
        (
            f"At {fast.per_s:g} items per second they cost {numbers.percent(1 - fast.price / slow.price)} less than at {slow.per_s:g}.",
        )
        if fast.per_s > slow.per_s
        else ()
    )
    return (
        Section(
            anchor="work",
            title=f"What {works[0].n:,} items cost",
            paragraphs=(*less, f"Price: {priced}.", _WORK),
            tables=(Table(caption="At a steady speed", header=header, rows=rows),),
        ),
    )


def _total(found: CostReport) -> str:
    worked = f"It worked for {numbers.seconds(found.run_s)}"
    if found.price is None:
        return f"{worked}; in money that is not known: {found.reason}."
    machines = {one.machine.name: one.machine.priced for one in found.nodes if one.machine is not None}
    return (
        f"{worked} and cost {found.currency} {numbers.money(found.price)} ({'; '.join(machines.values())})."
    )


def _hosted(costs: Sequence[HostedCost]) -> Section:
    title = "The same tokens elsewhere"
    if not costs:
        text = (
            "Nothing to compare with: the registry holds no `hosted_prices:`, or no model of this run has a server. A price needs its "
            "day (as_of) and its source; the form stands in qaeval's own qaeval.yaml."
        )
        return Section(anchor="hosted", title=title, paragraphs=(text,))
    rows = tuple(
        (
            f"{one.stage} {one.model}",
            one.prices.name,
            numbers.count(one.prompt_tokens),
            numbers.count(one.completion_tokens),
            _money(one.prices.currency, one.price),
            "–"
            if one.price_per_1000_usable is None
            else _money(one.prices.currency, one.price_per_1000_usable),
        )
        for one in costs
    )
    header = ("Stage", "At", "Prompt tokens", "Completion tokens", "Price", "1,000 usable items")
    prices = {one.prices.name: f"{one.prices.priced} (source: {one.prices.source})" for one in costs}
    notes = tuple(f"{one.stage} {one.model}, {one.prices.name}: {one.reason}." for one in costs if one.reason)
    return Section(
        anchor="hosted",
        title=title,
        paragraphs=(_TOKENS, f"Prices: {'; '.join(prices.values())}."),
        tables=(
            Table(
                caption="What the same tokens would have cost",
                header=header,
                rows=rows,
                notes=notes,
                words=frozenset({1}),
            ),
        ),
    )


def _ways(ways: Sequence[Way], break_evens: Sequence[BreakEven]) -> Section:
    rows = tuple(
        (
            one.name,
            _money(one.currency, one.per_day),
            _money(one.currency, one.per_run),
            "–" if one.most_runs is None else f"{one.most_runs:,.1f}",
        )
        for one in ways
    )
    notes = tuple(f"{one.name}: {one.reason}." for one in ways if one.reason)
    header = ("Way", "Per day", "Per run", "Runs that fit into a day")
    return Section(
        anchor="break-even",
        title="Always on, scaled to zero, or hosted",
        paragraphs=(*_sentences(break_evens, ways), _WAYS),
        tables=(Table(caption="What a day costs", header=header, rows=rows, notes=notes),),
    )


def _sentences(pairs: Sequence[BreakEven], ways: Sequence[Way]) -> list[str]:
    known = {one.name for one in ways if one.per_run is not None}
    return [_sentence(one) for one in pairs if {one.a, one.b} <= known]


def _sentence(one: BreakEven) -> str:
    if one.runs_per_day is None:
        return f"{one.a} and {one.b}: no break-even, {one.reason}."
    return (
        f"{one.a} and {one.b}: the same at {one.runs_per_day:,.1f} runs a day; {one.below} is cheaper with fewer, {one.above} with "
        "more."
    )


def _waiting(found: CostReport) -> tuple[Section, ...]:
    one = found.waiting
    if one is None:
        return ()
    text = (
        f"One person who waits for it: {numbers.seconds(one.seconds)} at {one.currency} {numbers.money(one.hourly_rate)} per hour "
        f"= {one.currency} {numbers.money(one.price)}. The rate is yours."
    )
    return (Section(anchor="waiting", title="Waiting", paragraphs=(text,)),)


def _money(currency: str, price: float | None) -> str:
    return "not known" if price is None else f"{currency} {numbers.money(price)}"
