"""The section of times, tokens and cost."""

from collections.abc import Iterable, Sequence
from typing import Final

from qaeval.report import numbers
from qaeval.report.document import CandidateCost, Report, ServerSpan, StageCost, Timing, Tokens
from qaeval.report.measure import Measure
from qaeval.report.nodes import NodeCost
from qaeval.report.tables import Notes, Section, Table

_ALONGSIDE = "Generation and grading ran side by side on servers of their own; the judge's wall time holds its waiting for items."

_FORMULA: Final = (
    "Cost = wall seconds of the stage × price per hour / 3,600; of 1,000 usable items: of all the work, divided by the usable items "
    "that came of it, without grading and without the start of servers. Intervals are those of the usable rate; the time was "
    "measured once."
)
_ENERGY: Final = "Energy is an upper bound: the power limit of the machine's GPUs over the time of work. It was not measured."
_NODES: Final = (
    "A machine is paid from its first server's start to the end of its last stage; idle is while other machines work on the run, or "
    "its server's metrics show no request. Interruptions of the run are not counted."
)
_PRICELESS: Final = (
    "No machine of this run has a price in the registry, so cost is machine time. Add `hardware:` to qaeval.yaml and name it with "
    "--hardware for money."
)


def speed(report: Report) -> Section:
    """Times and tokens."""
    judge = report.judge
    rows = [_speed(f"generate {one.facts.name}", one.timing, one.tokens) for one in report.candidates]
    rows.append(_speed(f"grade {judge.facts.name}", judge.timing, judge.tokens))
    header = (
        "Stage",
        "Wall time",
        "Items",
        "Latency p50",
        "Latency p95",
        "Prompt tokens",
        "from cache",
        "Completion tokens",
        "per second",
    )
    spans = [(f"generate {one.facts.name}", one.timing.server) for one in report.candidates]
    spans.append((f"grade {judge.facts.name}", judge.timing.server))
    return Section(
        anchor="speed",
        title="Performance and cost",
        paragraphs=(*((_ALONGSIDE,) if judge.timing.alongside else ()), *_known(report), *_how(report)),
        tables=(
            Table(caption="Time and tokens by stage", header=header, rows=tuple(rows)),
            *_servers(spans),
            *item_costs(report.timing.costs),
            *_stages(report),
            *node_table(report.timing.nodes),
        ),
    )


def _known(report: Report) -> tuple[str, ...]:
    """Say whose replies were known from earlier runs."""
    judge = report.judge
    timings = [(one.facts.name, one.timing) for one in report.candidates] + [(judge.facts.name, judge.timing)]
    known = [f"{name} {numbers.percent(1 - timing.fresh)}" for name, timing in timings if timing.fresh < 1]
    if not known:
        return ()
    return (f"Replies known from earlier runs: {', '.join(known)}. Speed and cost are of the others.",)


def _how(report: Report) -> tuple[str, ...]:
    """Say how cost was counted, and in which prices."""
    stages = _costed(report)
    if not stages:
        return ()
    machines = {one.machine.name: one.machine for one in stages if one.machine is not None}
    priced = [one for one in machines.values() if one.price_per_hour is not None]
    prices = (
        f"Prices: {'; '.join(f'{one.priced} (source: {one.source})' for one in priced)}."
        if priced
        else _PRICELESS
    )
    known = any(one.gpu_watts is not None for one in machines.values())
    grids = [
        f"{one.grid_g_per_kwh:g} g of CO₂ per kWh for {one.name} (source: {one.grid_source})"
        for one in machines.values()
        if one.gpu_watts is not None and one.grid_g_per_kwh is not None
    ]
    grid = (f"CO₂ is that energy × {'; '.join(grids)}.",) if grids else ()
    return (_FORMULA, prices, *((_ENERGY,) if known else ()), *grid)


def _costed(report: Report) -> list[StageCost]:
    grading = report.timing.grading
    return [*(one.stage for one in report.timing.costs), *([grading] if grading else [])]


def item_costs(costs: Sequence[CandidateCost]) -> tuple[Table, ...]:
    """Return what the items of each candidate cost; nothing where no candidate has a server."""
    notes = Notes()
    if not costs:
        return ()
    has_grid = any(one.co2_g_per_1000_usable is not None for one in costs)
    rows = tuple(
        (
            one.candidate,
            numbers.seconds(one.seconds_per_1000),
            notes.cost(one.seconds_per_1000_usable, "seconds", one.candidate),
            _price(one, one.price_per_1000),
            "no price"
            if one.price_per_1000_usable is None
            else notes.cost(one.price_per_1000_usable, _currency(one.stage), one.candidate),
            _bound(notes, one.wh_per_1000_usable, "Wh", one.candidate),
            *((_bound(notes, one.co2_g_per_1000_usable, "g", one.candidate),) if has_grid else ()),
            "yes" if one.is_on_front else "no",
        )
        for one in costs
    )
    header = (
        "Candidate",
        "Machine time, 1,000 items",
        "1,000 usable",
        "Price, 1,000 items",
        "1,000 usable",
        "Energy at most, 1,000 usable",
        *(("CO₂ at most, 1,000 usable",) if has_grid else ()),
        "On the front",
    )
    front = "On the front are those than which no other is both cheaper and better."
    return (Table(caption="Cost of making items", header=header, rows=rows, notes=(front, *notes.lines())),)


def _bound(notes: Notes, measure: Measure | None, unit: str, candidate: str) -> str:
    return "not known" if measure is None else notes.cost(measure, unit, candidate)


def _price(one: CandidateCost, price: float | None) -> str:
    return "no price" if price is None else f"{_currency(one.stage)} {numbers.money(price)}"


def _currency(stage: StageCost) -> str:
    return stage.machine.currency if stage.machine is not None else ""


def _stages(report: Report) -> tuple[Table, ...]:
    """Return what the run itself cost, stage by stage."""
    stages = _costed(report)
    if not stages:
        return ()
    rows = tuple(
        (
            f"{'grade' if one is report.timing.grading else 'generate'} {one.model}",
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


def _servers(spans: Iterable[tuple[str, ServerSpan | None]]) -> tuple[Table, ...]:
    """Return what the servers say of themselves; nothing where none was read, no column that none of them has."""
    known = [(name, span) for name, span in spans if span is not None]
    if not known:
        return ()
    columns = {
        "First token, mean / p50 / p95": [
            _times(one.ttft_s, one.ttft_p50_s, one.ttft_p95_s) for _, one in known
        ],
        "Between tokens, mean / p50 / p95": [
            _times(one.inter_token_s, one.inter_token_p50_s, one.inter_token_p95_s) for _, one in known
        ],
        "In the queue, mean": [_times(one.queue_s) for _, one in known],
        "Running, at most": [_whole(one.running_max) for _, one in known],
        "Waiting, at most": [_whole(one.waiting_max) for _, one in known],
        "KV cache, at most": [_share(one.kv_cache_max) for _, one in known],
        "Preemptions": [_whole(one.preemptions) for _, one in known],
        "Prompt from cache": [_share(one.prefix_hit_rate) for _, one in known],
    }
    measured = {head: cells for head, cells in columns.items() if set(cells) != {numbers.NOT_MEASURED}}
    rows = tuple((name, *cells) for (name, _), *cells in zip(known, *measured.values(), strict=True))
    stages: dict[tuple[str, ...], list[str]] = {}
    for name, span in known:
        if span.missing:
            stages.setdefault(span.missing, []).append(name)
    notes = tuple(
        f"{'Every server' if len(names) == len(known) else ', '.join(names)}: not there are {', '.join(missing)}."
        for missing, names in stages.items()
    )
    caption = "What the servers' metrics say of the stage"
    return (Table(caption=caption, header=("Stage", *measured), rows=rows, notes=notes),)


def _times(*values: float | None) -> str:
    if not any(value is not None for value in values):
        return numbers.NOT_MEASURED
    return " / ".join("?" if value is None else numbers.seconds(value) for value in values)


def _share(value: float | None) -> str:
    return numbers.NOT_MEASURED if value is None else numbers.percent(value)


def _whole(value: float | None) -> str:
    return numbers.NOT_MEASURED if value is None else f"{value:,.0f}"


def _speed(name: str, timing: Timing, tokens: Tokens) -> tuple[str, ...]:
    return (
        name,
        numbers.seconds(timing.wall_s),
        numbers.per_second(timing.items_per_s),
        numbers.seconds(timing.latency_p50_s),
        numbers.seconds(timing.latency_p95_s),
        numbers.count(tokens.prompt),
        numbers.count(timing.cached_prompt_tokens),
        numbers.count(tokens.completion),
        numbers.NOT_MEASURED
        if tokens.completion is None or not timing.wall_s
        else numbers.count(round(tokens.completion / timing.wall_s)),
    )
