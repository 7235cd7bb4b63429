"""What ``qaeval cost`` prints, and the report's sections and tables about cost and energy."""

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
from qaeval.errors import DISTRIBUTION
from qaeval.report import numbers
from qaeval.report.facts import MachineFacts
from qaeval.report.measure import Measure
from qaeval.report.tables import Notes, Section, Table

_RUN: Final = "Cost of the run = sum over machines of (start + idle + work) seconds / 3,600 × price per hour."
_TOKENS: Final = (
    "Hosted price = (prompt tokens × input price + completion tokens × output price) / 1,000,000, for the tokens that the run "
    "counted; nothing was sent for this comparison. Another model splits text into other tokens and writes replies of another length; "
    "discounts for cached prompts are unknown and not applied."
)
_NO_HOSTED_PRICES: Final = (
    "No comparison: the registry has no `hosted_prices:`, or no model of this run has a server. A price needs its date (as_of) and "
    "its source; qaeval's own qaeval.yaml shows the format."
)
_OPTIONS: Final = (
    "Always on = 24 × price per hour, for any number of runs. Scale to zero = (start + idle + work + linger) / 3,600 × price per hour, "
    "per run. Hosted = tokens × prices, per run. Two options cost the same at (difference per day) / (difference per run) runs."
)
_MORE_OPTIONS: Final = (
    "`qaeval cost RUN` takes the numbers that no run measures: --start, --linger, --always-on, --hourly-rate."
)
_WORK: Final = (
    "Seconds = items / items per second; price = seconds / 3,600 × price per hour, for one dedicated machine."
)
_COST: Final = (
    "Cost = wall seconds of the stage × price per hour / 3,600. The cost of 1,000 usable items divides all work by the usable items, "
    "without grading and without the start of servers. Its interval is that of the usable rate; time was measured once."
)
_NO_PRICE: Final = (
    "No machine of this run has a price in the registry, so cost is machine time. For money, add `hardware:` to qaeval.yaml and pass "
    "its name with --hardware."
)
_BOUND: Final = (
    "Energy is an upper bound: power limit of the machine's GPUs × time of work. To measure it, install the extra "
    f"{DISTRIBUTION}[energy] on the server's machine, or add `gpu_metrics:` to the registry."
)
_MEASURED: Final = (
    "Energy of 1,000 usable items covers the work: energy of the GPUs in the stage, minus their idle energy if it is known, divided "
    "by the usable items."
)
_PARTLY_MEASURED: Final = "Where energy was not measured, “at most” marks an upper bound: power limit of the machine's GPUs × time of work."
_ENERGY: Final = (
    "GPUs only, while the stages worked: no CPU, memory, fans or server start. Energy counter: read from the GPU. Integrated power: "
    "about one power reading per second, integrated by the trapezoid rule. Power limit: an upper bound. Idle: energy in the same time "
    "with the model loaded and no request, from 3 s before the stage or from `idle_watts` in the registry."
)
_NODES: Final = (
    "A machine is paid from the start of its first server to the end of its last stage. It is idle while other machines work on the "
    "run, or while its server's metrics show no request. Interruptions of the run do not count."
)
_FRONT: Final = "On the front: no other candidate is both cheaper and better."


# ------------------------------------------------------------------------------ qaeval cost


def write_cost_report(report: CostReport) -> tuple[Section, ...]:
    """Turn a cost report into sections: run, items, hosted prices, break-even, waiting."""
    run = Section(
        anchor="cost",
        title=f"Cost of {report.source}",
        paragraphs=(_total(report), _RUN, *(f"! {text}" for text in report.cautions)),
        tables=(*node_table(report.nodes), *item_costs(report.candidates)),
    )
    return (
        run,
        _hosted_section(report.hosted),
        _options_section(report.ways, report.break_evens),
        *_waiting(report),
    )


def write_work(works: Sequence[Work], currency: str, priced: str) -> tuple[Section, ...]:
    """Show the cost of items at steady speeds.

    Args:
        works: The slowest first.
        currency: Of the price.
        priced: Price per hour, and its source.
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
    slow, fast = works[0], works[-1]
    saving = (
        (
            f"At {fast.per_s:g} items per second they cost {numbers.percent(1 - fast.price / slow.price)} less than at {slow.per_s:g}.",
        )
        if fast.per_s > slow.per_s
        else ()
    )
    header = ("Items per second", "Time", "Node hours", f"Price of {slow.n:,}", "of 1,000")
    return (
        Section(
            anchor="work",
            title=f"Cost of {slow.n:,} items",
            paragraphs=(*saving, f"Price: {priced}.", _WORK),
            tables=(Table(caption="At a steady speed", header=header, rows=rows),),
        ),
    )


def _total(report: CostReport) -> str:
    worked = f"The run worked for {numbers.seconds(report.run_s)}"
    if report.price is None:
        return f"{worked}; its price is unknown: {report.reason}."
    machines = {node.machine.name: node.machine.priced for node in report.nodes if node.machine is not None}
    return f"{worked} and cost {_money(report.currency, report.price)} ({'; '.join(machines.values())})."


def _waiting(report: CostReport) -> tuple[Section, ...]:
    waiting = report.waiting
    if waiting is None:
        return ()
    text = (
        f"One person waiting for the run: {numbers.seconds(waiting.seconds)} at {_money(waiting.currency, waiting.hourly_rate)} "
        f"per hour (your rate) = {_money(waiting.currency, waiting.price)}."
    )
    return (Section(anchor="waiting", title="Waiting", paragraphs=(text,)),)


# ------------------------------------------------------------------------------ own machines and hosted APIs


def hosting_section(hosting: HostingComparison) -> Section:
    """Compare own machines with hosted APIs, for the tokens of a run."""
    tokens, options = _hosted_section(hosting.costs), _options_section(hosting.ways, hosting.break_evens)
    cautions = (f"! {text}" for text in hosting.cautions)
    return Section(
        anchor="elsewhere",
        title="Own machines or hosted API",
        paragraphs=(*options.paragraphs, *tokens.paragraphs, *cautions, _MORE_OPTIONS),
        tables=(*options.tables, *tokens.tables),
    )


def _hosted_section(costs: Sequence[HostedCost]) -> Section:
    title = "Hosted price of the same tokens"
    if not costs:
        return Section(anchor="hosted", title=title, paragraphs=(_NO_HOSTED_PRICES,))
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
    table = Table(
        caption="Price of the same tokens at hosted APIs",
        header=("Stage", "API", "Prompt tokens", "Completion tokens", "Price", "1,000 usable items"),
        rows=rows,
        notes=tuple(
            f"{cost.stage} {cost.model}, {cost.prices.name}: {cost.reason}." for cost in costs if cost.reason
        ),
        words=frozenset({1}),
    )
    prices = {cost.prices.name: f"{cost.prices.priced} (source: {cost.prices.source})" for cost in costs}
    return Section(
        anchor="hosted",
        title=title,
        paragraphs=(_TOKENS, f"Prices: {'; '.join(prices.values())}."),
        tables=(table,),
    )


def _options_section(options: Sequence[HostingOption], break_evens: Sequence[BreakEven]) -> Section:
    rows = tuple(
        (
            option.name,
            _money(option.currency, option.per_day),
            _money(option.currency, option.per_run),
            "–" if option.most_runs is None else f"{option.most_runs:,.1f}",
        )
        for option in options
    )
    table = Table(
        caption="Price per day",
        header=("Option", "Per day", "Per run", "Runs that fit into a day"),
        rows=rows,
        notes=tuple(f"{option.name}: {option.reason}." for option in options if option.reason),
    )
    # an option without a price has its reason in the notes; repeating it for every pair would bury the numbers
    priced = {option.name for option in options if option.per_run is not None}
    sentences = [_break_even(pair) for pair in break_evens if {pair.a, pair.b} <= priced]
    return Section(
        anchor="break-even",
        title="Always on, scaled to zero, or hosted",
        paragraphs=(*sentences, _OPTIONS),
        tables=(table,),
    )


def _break_even(pair: BreakEven) -> str:
    if pair.runs_per_day is None:
        return f"{pair.a} and {pair.b}: no break-even; {pair.reason}."
    return (
        f"{pair.a} and {pair.b} cost the same at {pair.runs_per_day:,.1f} runs per day; {pair.below} is cheaper below that number, "
        f"{pair.above} above it."
    )


# ------------------------------------------------------------------------------ items, stages, machines


def cost_method(timing: RunTiming) -> tuple[str, ...]:
    """Explain how cost was computed, and at which prices."""
    stages = _stages(timing)
    if not stages:
        return ()
    machines = {stage.machine.name: stage.machine for stage in stages if stage.machine is not None}
    priced = [machine for machine in machines.values() if machine.price_per_hour is not None]
    prices = (
        f"Prices: {'; '.join(f'{machine.priced} (source: {machine.source})' for machine in priced)}."
        if priced
        else _NO_PRICE
    )
    return (_COST, prices, *_energy_method(stages), *_grid(tuple(machines.values()), stages))


def _energy_method(stages: Sequence[StageCost]) -> tuple[str, ...]:
    energies = [stage.energy for stage in stages if stage.energy is not None and stage.energy.wh is not None]
    if not any(energy.is_measured for energy in energies):
        return (_BOUND,) if energies else ()
    return (_MEASURED,) if all(energy.is_measured for energy in energies) else (_MEASURED, _PARTLY_MEASURED)


def _grid(machines: Sequence[MachineFacts], stages: Sequence[StageCost]) -> tuple[str, ...]:
    with_energy = {
        stage.machine.name
        for stage in stages
        if stage.machine is not None and stage.energy is not None and stage.energy.wh is not None
    }
    grids = [
        f"{machine.grid_g_per_kwh:g} g of CO₂ per kWh for {machine.name} (source: {machine.grid_source})"
        for machine in machines
        if machine.grid_g_per_kwh is not None and machine.name in with_energy
    ]
    return (f"CO₂ = energy × {'; '.join(grids)}.",) if grids else ()


def item_costs(costs: Sequence[CandidateCost]) -> tuple[Table, ...]:
    """Return the cost and energy of each candidate's items; no table if no candidate has a machine."""
    if not costs:
        return ()
    notes = Notes()
    rows = tuple(
        (
            cost.candidate,
            numbers.seconds(cost.seconds_per_1000),
            notes.cost(cost.seconds_per_1000_usable, "seconds", cost.candidate),
            _price(cost.stage, cost.price_per_1000),
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
    table = Table(
        caption="Cost of generating items", header=header, rows=rows, notes=(_FRONT, *notes.lines())
    )
    return (table, *_item_energy(costs))


def _item_energy(costs: Sequence[CandidateCost]) -> tuple[Table, ...]:
    if all(cost.wh_per_1000_usable is None for cost in costs):
        return ()
    has_grid = any(cost.co2_g_per_1000_usable is not None for cost in costs)
    # if every number is a bound, the head of the column says so, else each cell
    at_most = "" if any(_is_measured(cost) for cost in costs) else " at most"
    notes = Notes()

    def cell(cost: CandidateCost, measure: Measure | None, unit: str) -> str:
        if measure is None:
            return "unknown"
        is_bound = not (at_most or _is_measured(cost))
        return f"{'at most ' if is_bound else ''}{notes.cost(measure, unit, cost.candidate)}"

    rows = tuple(
        (
            cost.candidate,
            cell(cost, cost.wh_per_1000_usable, "Wh"),
            *((cell(cost, cost.co2_g_per_1000_usable, "g"),) if has_grid else ()),
        )
        for cost in costs
    )
    header = (
        "Candidate",
        f"Energy{at_most}, 1,000 usable",
        *((f"CO₂{at_most}, 1,000 usable",) if has_grid else ()),
    )
    return (Table(caption="Energy of generating items", header=header, rows=rows, notes=notes.lines()),)


def stage_costs(timing: RunTiming) -> tuple[Table, ...]:
    """Return the cost of each stage of the run; no table if no model has a machine."""
    stages = _stages(timing)
    if not stages:
        return ()
    rows = tuple(
        (
            _stage_name(stage, timing),
            _machine_name(stage.machine),
            numbers.seconds(stage.work_s),
            numbers.seconds(stage.load_s) if stage.load_s else "–",
            _price(stage, stage.price),
        )
        for stage in stages
    )
    header = ("Stage", "Machine", "Work", "Start of servers", "Price of both")
    return (Table(caption="Cost of this run", header=header, rows=rows, words=frozenset({1})),)


def node_table(nodes: Sequence[NodeCost]) -> tuple[Table, ...]:
    """Return the time and price of each machine; no table if no model has a machine."""
    if not nodes:
        return ()
    rows = tuple(
        (
            node.host,
            _machine_name(node.machine),
            numbers.listed(node.models),
            *(numbers.seconds(part) if part else "–" for part in (node.load_s, node.idle_s, node.work_s)),
            "no price"
            if node.price is None or node.machine is None
            else _money(node.machine.currency, node.price),
        )
        for node in nodes
    )
    header = ("Host", "Machine", "Models", "Start of servers", "Idle, at least", "Work", "Price of all")
    return (
        Table(caption="Node seconds", header=header, rows=rows, notes=(_NODES,), words=frozenset({1, 2})),
    )


def energy_table(timing: RunTiming) -> tuple[Table, ...]:
    """Return the energy of each stage's GPUs; no table if nothing tried to measure it."""
    energies = [
        (_stage_name(stage, timing), stage.energy) for stage in _stages(timing) if stage.energy is not None
    ]
    if not any(energy.is_measured or energy.reason for _, energy in energies):
        return ()
    rows = tuple((name, *_energy_cells(energy)) for name, energy in energies)
    total = (
        (f"All stages together used {_wh(timing.energy_wh)}; parallel stages on one GPU count once.",)
        if timing.energy_wh
        else ()
    )
    notes = (
        _ENERGY,
        *total,
        *(f"{name}: not measured, {energy.reason}." for name, energy in energies if energy.reason),
        *(f"{name}: {note}." for name, energy in energies for note in energy.notes),
    )
    header = ("Stage", "Method", "GPUs", "Time", "Energy", "of which idle", "Work")
    return (
        Table(caption="Energy of the GPUs", header=header, rows=rows, notes=notes, words=frozenset({1, 2})),
    )


def _energy_cells(energy: StageEnergy) -> tuple[str, ...]:
    method = "unknown" if energy.method is None else f"{energy.method} ({energy.source})"
    gpus = [f"{n} × {name}" if n > 1 else name for name, n in Counter(energy.gpus).items()]
    time = numbers.seconds(energy.seconds) if energy.wh is not None else "–"
    if not energy.is_measured:
        bound = "unknown" if energy.wh is None else f"at most {_wh(energy.wh)}"
        return (method, numbers.listed(gpus) or "–", time, bound, "–", "–")
    idle = f"{_wh(energy.idle_wh)}{f' ({energy.idle})' if energy.idle else ''}"
    work = _wh(energy.work_wh if energy.idle_wh is not None else None)
    return (method, numbers.listed(gpus) or "–", time, _wh(energy.wh), idle, work)


def _stages(timing: RunTiming) -> list[StageCost]:
    grading = timing.grading
    return [*(cost.stage for cost in timing.costs), *([grading] if grading else [])]


def _stage_name(stage: StageCost, timing: RunTiming) -> str:
    return f"{'grade' if stage is timing.grading else 'generate'} {stage.model}"


def _machine_name(machine: MachineFacts | None) -> str:
    return "not named" if machine is None else machine.name


def _is_measured(cost: CandidateCost) -> bool:
    return cost.stage.energy is not None and cost.stage.energy.is_measured


def _price(stage: StageCost, price: float | None) -> str:
    return "no price" if price is None else _money(_currency(stage), price)


def _currency(stage: StageCost) -> str:
    return stage.machine.currency if stage.machine is not None else ""


def _money(currency: str, price: float | None) -> str:
    return "unknown" if price is None else f"{currency} {numbers.money(price)}"


def _wh(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{numbers.MINUS if value < 0 else ''}{numbers.money(abs(value))} Wh"
