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
    HostingComparison,
    HostingOption,
    NodeCost,
    RunTiming,
    StageCost,
    StageEnergy,
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


def write_cost_report(report: CostReport) -> tuple[Section, ...]:
    """Turn a cost report into sections: the run, items, the same tokens elsewhere, break-even, waiting."""
    run = Section(
        anchor="cost",
        title=f"What {report.source} cost",
        paragraphs=(_total(report), _RUN, *(f"! {text}" for text in report.cautions)),
        tables=(*node_table(report.nodes), *item_costs(report.candidates)),
    )
    return (run, _token_costs(report.hosted), _options(report.ways, report.break_evens), *_waiting(report))


def hosting_section(hosting: HostingComparison) -> Section:
    """Say what a run's tokens would have cost at the registry's offers, and from how many runs a day a machine of one's own pays."""
    tokens, options = _token_costs(hosting.costs), _options(hosting.ways, hosting.break_evens)
    return Section(
        anchor="elsewhere",
        title="Machines of your own, or hosted",
        paragraphs=(
            *options.paragraphs,
            *tokens.paragraphs,
            *(f"! {text}" for text in hosting.cautions),
            _ASK,
        ),
        tables=(*options.tables, *tokens.tables),
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
            f"{work.per_s:,g} /s",
            f"{work.seconds:,.0f} s",
            f"{work.hours:,.3f} h",
            f"{currency} {numbers.money(work.price)}",
            f"{currency} {numbers.money(work.price_per_1000)}",
        )
        for work in works
    )
    header = ("Items per second", "Time", "Node hours", f"Price of {works[0].n:,}", "of 1,000")
    slow, fast = works[0], works[-1]
    saving = (
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
            paragraphs=(*saving, f"Price: {priced}.", _WORK),
            tables=(Table(caption="At a steady speed", header=header, rows=rows),),
        ),
    )


def _total(report: CostReport) -> str:
    worked = f"It worked for {numbers.seconds(report.run_s)}"
    if report.price is None:
        return f"{worked}; in money that is not known: {report.reason}."
    machines = {node.machine.name: node.machine.priced for node in report.nodes if node.machine is not None}
    return (
        f"{worked} and cost {report.currency} {numbers.money(report.price)} ({'; '.join(machines.values())})."
    )


def _token_costs(costs: Sequence[HostedCost]) -> Section:
    title = "The same tokens elsewhere"
    if not costs:
        text = (
            "Nothing to compare with: the registry holds no `hosted_prices:`, or no model of this run has a server. A price needs its "
            "day (as_of) and its source; the form stands in qaeval's own qaeval.yaml."
        )
        return Section(anchor="hosted", title=title, paragraphs=(text,))
    rows = tuple(
        (
            f"{cost.stage} {cost.model}",
            cost.prices.name,
            numbers.count(cost.prompt_tokens),
            numbers.count(cost.completion_tokens),
            _money(cost.prices.currency, cost.price),
            "–"
            if cost.price_per_1000_usable is None
            else _money(cost.prices.currency, cost.price_per_1000_usable),
        )
        for cost in costs
    )
    header = ("Stage", "At", "Prompt tokens", "Completion tokens", "Price", "1,000 usable items")
    prices = {cost.prices.name: f"{cost.prices.priced} (source: {cost.prices.source})" for cost in costs}
    notes = tuple(
        f"{cost.stage} {cost.model}, {cost.prices.name}: {cost.reason}." for cost in costs if cost.reason
    )
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


def _options(options: Sequence[HostingOption], break_evens: Sequence[BreakEven]) -> Section:
    rows = tuple(
        (
            option.name,
            _money(option.currency, option.per_day),
            _money(option.currency, option.per_run),
            "–" if option.most_runs is None else f"{option.most_runs:,.1f}",
        )
        for option in options
    )
    notes = tuple(f"{option.name}: {option.reason}." for option in options if option.reason)
    header = ("Way", "Per day", "Per run", "Runs that fit into a day")
    return Section(
        anchor="break-even",
        title="Always on, scaled to zero, or hosted",
        paragraphs=(*_sentences(break_evens, options), _WAYS),
        tables=(Table(caption="What a day costs", header=header, rows=rows, notes=notes),),
    )


def _sentences(pairs: Sequence[BreakEven], options: Sequence[HostingOption]) -> list[str]:
    priced = {option.name for option in options if option.per_run is not None}
    return [_sentence(break_even) for break_even in pairs if {break_even.a, break_even.b} <= priced]


def _sentence(break_even: BreakEven) -> str:
    if break_even.runs_per_day is None:
        return f"{break_even.a} and {break_even.b}: no break-even, {break_even.reason}."
    return (
        f"{break_even.a} and {break_even.b}: the same at {break_even.runs_per_day:,.1f} runs a day; {break_even.below} is cheaper with fewer, {break_even.above} with "
        "more."
    )


def _waiting(report: CostReport) -> tuple[Section, ...]:
    waiting = report.waiting
    if waiting is None:
        return ()
    text = (
        f"One person who waits for it: {numbers.seconds(waiting.seconds)} at {waiting.currency} {numbers.money(waiting.hourly_rate)} per hour "
        f"= {waiting.currency} {numbers.money(waiting.price)}. The rate is yours."
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


def cost_method(timing: RunTiming) -> tuple[str, ...]:
    """Say how cost was counted, and in which prices."""
    stages = _stages(timing)
    if not stages:
        return ()
    machines = {stage.machine.name: stage.machine for stage in stages if stage.machine is not None}
    priced = [machine for machine in machines.values() if machine.price_per_hour is not None]
    prices = (
        f"Prices: {'; '.join(f'{machine.priced} (source: {machine.source})' for machine in priced)}."
        if priced
        else _PRICELESS
    )
    grids = [
        f"{machine.grid_g_per_kwh:g} g of CO₂ per kWh for {machine.name} (source: {machine.grid_source})"
        for machine in machines.values()
        if machine.grid_g_per_kwh is not None and _uses_energy(machine.name, stages)
    ]
    grid = (f"CO₂ is that energy × {'; '.join(grids)}.",) if grids else ()
    return (_FORMULA, prices, *_energy_method(stages), *grid)


def _uses_energy(machine: str, stages: Sequence[StageCost]) -> bool:
    on_machine = [stage for stage in stages if stage.machine is not None and stage.machine.name == machine]
    return any(stage.energy is not None and stage.energy.wh is not None for stage in on_machine)


def _energy_method(stages: Sequence[StageCost]) -> tuple[str, ...]:
    energies = [stage.energy for stage in stages if stage.energy is not None and stage.energy.wh is not None]
    if not any(energy.is_measured for energy in energies):
        return (_BOUND,) if energies else ()
    return (_MEASURED,) if all(energy.is_measured for energy in energies) else (_MEASURED, _MIXED)


def _stages(timing: RunTiming) -> list[StageCost]:
    grading = timing.grading
    return [*(cost.stage for cost in timing.costs), *([grading] if grading else [])]


def item_costs(costs: Sequence[CandidateCost]) -> tuple[Table, ...]:
    """Return what the items of each candidate cost, and their energy; nothing where no candidate has a server."""
    notes = Notes()
    if not costs:
        return ()
    rows = tuple(
        (
            cost.candidate,
            numbers.seconds(cost.seconds_per_1000),
            notes.cost(cost.seconds_per_1000_usable, "seconds", cost.candidate),
            _price(cost, cost.price_per_1000),
            "no price"
            if cost.price_per_1000_usable is None
            else notes.cost(cost.price_per_1000_usable, _currency(cost.stage), cost.candidate),
            "yes" if cost.is_on_front else "no",
        )
        for cost in costs
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
    table = Table(caption="Cost of making items", header=header, rows=rows, notes=(front, *notes.lines()))
    return (table, *_item_energy(costs))


def _item_energy(costs: Sequence[CandidateCost]) -> tuple[Table, ...]:
    """Return the energy of the items of each candidate; nothing where it is known for none."""
    if all(cost.wh_per_1000_usable is None for cost in costs):
        return ()
    has_grid = any(cost.co2_g_per_1000_usable is not None for cost in costs)
    at_most = "" if any(_is_measured(cost) for cost in costs) else " at most"
    notes = Notes()
    rows = tuple(
        (
            cost.candidate,
            _energy_cell(notes, cost, cost.wh_per_1000_usable, "Wh", at_most),
            *((_energy_cell(notes, cost, cost.co2_g_per_1000_usable, "g", at_most),) if has_grid else ()),
        )
        for cost in costs
    )
    header = (
        "Candidate",
        f"Energy{at_most}, 1,000 usable",
        *((f"CO₂{at_most}, 1,000 usable",) if has_grid else ()),
    )
    return (Table(caption="Energy of making items", header=header, rows=rows, notes=notes.lines()),)


def _is_measured(cost: CandidateCost) -> bool:
    return cost.stage.energy is not None and cost.stage.energy.is_measured


def _energy_cell(notes: Notes, cost: CandidateCost, measure: Measure | None, unit: str, at_most: str) -> str:
    """Print energy or CO2; a bound says so where the column's head does not."""
    if measure is None:
        return "not known"
    is_bound = not (at_most or _is_measured(cost))
    return f"{'at most ' if is_bound else ''}{notes.cost(measure, unit, cost.candidate)}"


def _price(cost: CandidateCost, price: float | None) -> str:
    return "no price" if price is None else f"{_currency(cost.stage)} {numbers.money(price)}"


def _currency(stage: StageCost) -> str:
    return stage.machine.currency if stage.machine is not None else ""


def stage_costs(timing: RunTiming) -> tuple[Table, ...]:
    """Return what the run itself cost, stage by stage."""
    stages = _stages(timing)
    if not stages:
        return ()
    rows = tuple(
        (
            f"{'grade' if stage is timing.grading else 'generate'} {stage.model}",
            stage.machine.name if stage.machine is not None else "not named",
            numbers.seconds(stage.work_s),
            numbers.seconds(stage.load_s) if stage.load_s else "–",
            "no price" if stage.price is None else f"{_currency(stage)} {numbers.money(stage.price)}",
        )
        for stage in stages
    )
    header = ("Stage", "Machine", "Work", "Start of servers", "Price of both")
    return (Table(caption="Cost of this run", header=header, rows=rows, words=frozenset({1})),)


def node_table(nodes: Sequence[NodeCost]) -> tuple[Table, ...]:
    """Return what each machine did with its time; nothing where no model has a server."""
    if not nodes:
        return ()
    rows = tuple(
        (
            node.host,
            node.machine.name if node.machine is not None else "not named",
            numbers.listed(node.models),
            *(numbers.seconds(part) if part else "–" for part in (node.load_s, node.idle_s, node.work_s)),
            "no price"
            if node.price is None or node.machine is None
            else f"{node.machine.currency} {numbers.money(node.price)}",
        )
        for node in nodes
    )
    header = ("Host", "Machine", "Models", "Start of servers", "Idle, at least", "Work", "Price of all")
    return (
        Table(caption="Node seconds", header=header, rows=rows, notes=(_NODES,), words=frozenset({1, 2})),
    )


def energy_table(timing: RunTiming) -> tuple[Table, ...]:
    """Return what the GPUs of each stage used and how that is known; nothing where it was neither measured nor tried."""
    energies = [
        (f"{'grade' if stage is timing.grading else 'generate'} {stage.model}", stage.energy)
        for stage in _stages(timing)
    ]
    stages = [(name, energy) for name, energy in energies if energy is not None]
    if not any(energy.is_measured or energy.reason for _, energy in stages):
        return ()
    rows = tuple(
        (
            name,
            _basis(energy),
            numbers.listed([f"{n} × {name}" if n > 1 else name for name, n in Counter(energy.gpus).items()])
            or "–",
            numbers.seconds(energy.seconds) if energy.wh is not None else "–",
            f"{'' if energy.is_measured else 'at most '}{_wh(energy.wh)}",
            f"{_wh(energy.idle_wh)}{f' ({energy.idle})' if energy.idle else ''}"
            if energy.is_measured
            else "–",
            _wh(energy.work_wh if energy.idle_wh is not None else None) if energy.is_measured else "–",
        )
        for name, energy in stages
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
        *(f"{name}: not measured, {energy.reason}." for name, energy in stages if energy.reason),
        *(f"{name}: {note}." for name, energy in stages for note in energy.notes),
    )
    return (
        Table(caption="Energy of the GPUs", header=header, rows=rows, notes=notes, words=frozenset({1, 2})),
    )


def _basis(energy: StageEnergy) -> str:
    if energy.method is None:
        return "not known"
    return f"{energy.method} ({energy.source})"


def _wh(value: float | None) -> str:
    if value is None:
        return "not known"
    return f"{numbers.MINUS if value < 0 else ''}{numbers.money(abs(value))} Wh"
