"""What ``qaeval cost`` says, and a report of other people's prices: sentences, then the numbers behind them.

The tables of what a run cost: of its items, its stages, its machines, and the energy of its GPUs.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from qaeval.cost.model import (
    BreakEven,
    CandidateCost,
    CostReport,
    HostedCost,
    Hosting,
    NodeCost,
    RunTiming,
    StageCost,
    StageEnergy,
    Way,
    Work,
)
from qaeval.report import numbers
from qaeval.report.measure import Measure
from qaeval.report.tables import Notes, Section, Table

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


def hosting_section(found: Hosting) -> Section:
    """Say what a run's tokens would have cost at the registry's offers, and from how many runs a day a machine of one's own pays."""
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


_FORMULA: Final = (
    "Cost = wall seconds of the stage × price per hour / 3,600; of 1,000 usable items: of all the work, divided by the usable items "
    "that came of it, without grading and without the start of servers. Intervals are those of the usable rate; the time was "
    "measured once."
)
_BOUND: Final = (
    "Energy is an upper bound: the power limit of the machine's GPUs over the time of work. It was not measured: that takes the extra "
    "qaeval[energy] on the server's own machine, or `gpu_metrics:` in the registry."
)
_MEASURED: Final = (
    "Energy of 1,000 usable items is that of the work: what the GPUs used in the stage, less what they would have used without a "
    "request, where that is known; divided by the usable items."
)
_MIXED: Final = (
    "Where it was not measured it is “at most”: the power limit of the machine's GPUs over the time of work."
)
_ENERGY: Final = (
    "GPUs alone, while the stages worked: no processor, memory, fan or start of a server. An energy counter is the GPU's own; "
    "integrated power is readings of its power, about one each second, added up by the trapezoid rule; a power limit is an upper "
    "bound. Idle is what they would have used in that time with the model loaded and no request: measured for 3 s before the stage, "
    "or `idle_watts` of the registry."
)
_NODES: Final = (
    "A machine is paid from its first server's start to the end of its last stage; idle is while other machines work on the run, or "
    "its server's metrics show no request. Interruptions of the run are not counted."
)
_PRICELESS: Final = (
    "No machine of this run has a price in the registry, so cost is machine time. Add `hardware:` to qaeval.yaml and name it with "
    "--hardware for money."
)


def how_counted(timing: RunTiming) -> tuple[str, ...]:
    """Say how cost was counted, and in which prices."""
    stages = _costed(timing)
    if not stages:
        return ()
    machines = {one.machine.name: one.machine for one in stages if one.machine is not None}
    priced = [one for one in machines.values() if one.price_per_hour is not None]
    prices = (
        f"Prices: {'; '.join(f'{one.priced} (source: {one.source})' for one in priced)}."
        if priced
        else _PRICELESS
    )
    grids = [
        f"{one.grid_g_per_kwh:g} g of CO₂ per kWh for {one.name} (source: {one.grid_source})"
        for one in machines.values()
        if one.grid_g_per_kwh is not None and _uses_energy(one.name, stages)
    ]
    grid = (f"CO₂ is that energy × {'; '.join(grids)}.",) if grids else ()
    return (_FORMULA, prices, *_energy_words(stages), *grid)


def _uses_energy(machine: str, stages: Sequence[StageCost]) -> bool:
    own = [one for one in stages if one.machine is not None and one.machine.name == machine]
    return any(one.energy is not None and one.energy.wh is not None for one in own)


def _energy_words(stages: Sequence[StageCost]) -> tuple[str, ...]:
    known = [one.energy for one in stages if one.energy is not None and one.energy.wh is not None]
    if not any(one.is_measured for one in known):
        return (_BOUND,) if known else ()
    return (_MEASURED,) if all(one.is_measured for one in known) else (_MEASURED, _MIXED)


def _costed(timing: RunTiming) -> list[StageCost]:
    grading = timing.grading
    return [*(one.stage for one in timing.costs), *([grading] if grading else [])]


def item_costs(costs: Sequence[CandidateCost]) -> tuple[Table, ...]:
    """Return what the items of each candidate cost, and their energy; nothing where no candidate has a server."""
    notes = Notes()
    if not costs:
        return ()
    rows = tuple(
        (
            one.candidate,
            numbers.seconds(one.seconds_per_1000),
            notes.cost(one.seconds_per_1000_usable, "seconds", one.candidate),
            _price(one, one.price_per_1000),
            "no price"
            if one.price_per_1000_usable is None
            else notes.cost(one.price_per_1000_usable, _currency(one.stage), one.candidate),
            "yes" if one.is_on_front else "no",
        )
        for one in costs
    )
    header = (
        "Candidate",
        "Machine time, 1,000 items",
        "Machine time, 1,000 usable",
        "Price, 1,000 items",
        "Price, 1,000 usable",
        "On the front",
    )
    front = "On the front are those than which no other is both cheaper and better."
    made = Table(caption="Cost of making items", header=header, rows=rows, notes=(front, *notes.lines()))
    return (made, *_item_energy(costs))


def _item_energy(costs: Sequence[CandidateCost]) -> tuple[Table, ...]:
    """Return the energy of the items of each candidate; nothing where it is known for none."""
    if all(one.wh_per_1000_usable is None for one in costs):
        return ()
    has_grid = any(one.co2_g_per_1000_usable is not None for one in costs)
    at_most = "" if any(_is_measured(one) for one in costs) else " at most"
    notes = Notes()
    rows = tuple(
        (
            one.candidate,
            _energy_cell(notes, one, one.wh_per_1000_usable, "Wh", at_most),
            *((_energy_cell(notes, one, one.co2_g_per_1000_usable, "g", at_most),) if has_grid else ()),
        )
        for one in costs
    )
    header = (
        "Candidate",
        f"Energy{at_most}, 1,000 usable",
        *((f"CO₂{at_most}, 1,000 usable",) if has_grid else ()),
    )
    return (Table(caption="Energy of making items", header=header, rows=rows, notes=notes.lines()),)


def _is_measured(one: CandidateCost) -> bool:
    return one.stage.energy is not None and one.stage.energy.is_measured


def _energy_cell(notes: Notes, one: CandidateCost, measure: Measure | None, unit: str, at_most: str) -> str:
    """Print energy or CO2; a bound says so where the column's head does not."""
    if measure is None:
        return "not known"
    is_bound = not (at_most or _is_measured(one))
    return f"{'at most ' if is_bound else ''}{notes.cost(measure, unit, one.candidate)}"


def _price(one: CandidateCost, price: float | None) -> str:
    return "no price" if price is None else f"{_currency(one.stage)} {numbers.money(price)}"


def _currency(stage: StageCost) -> str:
    return stage.machine.currency if stage.machine is not None else ""


def stage_costs(timing: RunTiming) -> tuple[Table, ...]:
    """Return what the run itself cost, stage by stage."""
    stages = _costed(timing)
    if not stages:
        return ()
    rows = tuple(
        (
            f"{'grade' if one is timing.grading else 'generate'} {one.model}",
            one.machine.name if one.machine is not None else "not named",
            numbers.seconds(one.work_s),
            numbers.seconds(one.load_s) if one.load_s else "–",
            "no price" if one.price is None else f"{_currency(one)} {numbers.money(one.price)}",
        )
        for one in stages
    )
    header = ("Stage", "Machine", "Work", "Start of servers", "Price of both")
    return (Table(caption="Cost of this run", header=header, rows=rows, words=frozenset({1})),)


def node_table(nodes: Sequence[NodeCost]) -> tuple[Table, ...]:
    """Return what each machine did with its time; nothing where no model has a server."""
    if not nodes:
        return ()
    rows = tuple(
        (
            one.host,
            one.machine.name if one.machine is not None else "not named",
            numbers.listed(one.models),
            *(numbers.seconds(part) if part else "–" for part in (one.load_s, one.idle_s, one.work_s)),
            "no price"
            if one.price is None or one.machine is None
            else f"{one.machine.currency} {numbers.money(one.price)}",
        )
        for one in nodes
    )
    header = ("Host", "Machine", "Models", "Start of servers", "Idle, at least", "Work", "Price of all")
    return (
        Table(caption="Node seconds", header=header, rows=rows, notes=(_NODES,), words=frozenset({1, 2})),
    )


def energy_table(timing: RunTiming) -> tuple[Table, ...]:
    """Return what the GPUs of each stage used and how that is known; nothing where it was neither measured nor tried."""
    energies = [
        (f"{'grade' if one is timing.grading else 'generate'} {one.model}", one.energy)
        for one in _costed(timing)
    ]
    known = [(name, one) for name, one in energies if one is not None]
    if not any(one.is_measured or one.reason for _, one in known):
        return ()
    rows = tuple(
        (
            name,
            _basis(one),
            numbers.listed([f"{n} × {name}" if n > 1 else name for name, n in Counter(one.gpus).items()])
            or "–",
            numbers.seconds(one.seconds) if one.wh is not None else "–",
            f"{'' if one.is_measured else 'at most '}{_wh(one.wh)}",
            f"{_wh(one.idle_wh)}{f' ({one.idle})' if one.idle else ''}" if one.is_measured else "–",
            _wh(one.work_wh if one.idle_wh is not None else None) if one.is_measured else "–",
        )
        for name, one in known
    )
    header = ("Stage", "How it is known", "GPUs", "Time", "Used", "of it idle", "Work")
    total = timing.energy_wh
    notes = (
        _ENERGY,
        *(
            (f"All stages together used {_wh(total)}; stages side by side on one GPU count once.",)
            if total
            else ()
        ),
        *(f"{name}: not measured, {one.reason}." for name, one in known if one.reason),
        *(f"{name}: {note}." for name, one in known for note in one.notes),
    )
    return (
        Table(caption="Energy of the GPUs", header=header, rows=rows, notes=notes, words=frozenset({1, 2})),
    )


def _basis(one: StageEnergy) -> str:
    if one.method is None:
        return "not known"
    return f"{one.method} ({one.source})"


def _wh(value: float | None) -> str:
    if value is None:
        return "not known"
    return f"{numbers.MINUS if value < 0 else ''}{numbers.money(abs(value))} Wh"
