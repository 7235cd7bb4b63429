"""From a finished run to everything that it cost, or would have: machines, tokens elsewhere, break-even, waiting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qaeval.cost.alternatives import (
    always_on,
    break_evens,
    hosted_costs,
    hosted_option,
    price_per_run,
    scale_to_zero,
    unknown_option,
)
from qaeval.cost.candidates import common_unit, cost_candidates, cost_stage, write_cost
from qaeval.cost.energy import run_wh, stage_energies
from qaeval.cost.machines import node_costs, run_seconds
from qaeval.cost.model import (
    CostReport,
    HostedCost,
    HostingComparison,
    HostingOption,
    MeasuredRun,
    NodeCost,
    RunTiming,
    Waiting,
)
from qaeval.cost.weights import weigh
from qaeval.errors import UsageError
from qaeval.report.facts import HostedFacts, MachineFacts

_HOUR: Final = 3600.0


@dataclass(frozen=True, kw_only=True)
class CostAssumptions:
    """What no run knows: the user's own numbers. What is not given is not assumed."""

    start_s: float | None = None
    """Seconds until a machine is there and, where the run found its servers up, until they answer."""
    idle_timeout_s: float = 0.0
    """Seconds that a machine is paid after a run until it is given back."""
    always_on_machine: MachineFacts | None = None
    """What a machine costs that is always on; None: what it cost in the run."""
    hourly_rate: float | None = None
    """What an hour costs of somebody who waits."""
    currency: str = ""
    """Of the hourly rate; that of the machines where left out."""


def run_timing(
    run: MeasuredRun, machines: Mapping[str, MachineFacts], hosted_prices: Sequence[HostedFacts] = ()
) -> RunTiming:
    """Compute everything that depends on times: costs, and the choice that cost and speed are part of.

    Args:
        run: The run.
        machines: What each model runs on, by its name; a model without an entry has no price.
        hosted_prices: Prices of hosted APIs.
    """
    judge, energies = run.judge, stage_energies(run.sessions)
    costs = cost_candidates(run.candidates, machines, run.priced_at, energies)
    unit = common_unit(costs)
    grading = cost_stage(
        judge.facts, judge.timing, machines, run.priced_at, energies.get(("grade", judge.facts.name))
    )
    external = {session.model for session in run.sessions if session.external}
    timing = RunTiming(
        headline=write_cost(costs, unit, grading),
        costs=costs,
        cost_unit=unit,
        grading=grading,
        nodes=node_costs(run.sessions, run.readings, machines, run.priced_at),
        choice=weigh(run.candidates, costs, unit, external, run.priced_at),
        energy_wh=run_wh(run.sessions),
    )
    return timing.model_copy(update={"hosting": _hosting(run, timing, hosted_prices)})


def cost_run(
    run: MeasuredRun, timing: RunTiming, hosted_prices: Sequence[HostedFacts], assumptions: CostAssumptions
) -> CostReport:
    """Put together what a run cost, what its tokens would have cost elsewhere, and which way is cheapest for how many runs.

    Args:
        run: The run.
        timing: Its costs, from `run_timing`.
        hosted_prices: Prices of hosted APIs.
        assumptions: The user's own numbers.

    Raises:
        UsageError: an hourly rate has no currency.
    """
    nodes, run_s = timing.nodes, run_seconds(run.sessions)
    reason = _missing_price(nodes)
    currency = "" if reason else _currencies(nodes)[0]
    token_costs = hosted_costs(run, hosted_prices)
    options = (
        *_machine_options(run, nodes, run_s, reason, assumptions),
        *(_api_option(prices, token_costs) for prices in hosted_prices),
    )
    return CostReport(
        source=run.name,
        run_s=run_s,
        nodes=nodes,
        price=None if reason else sum(node.price or 0.0 for node in nodes),
        currency=currency,
        reason=reason,
        candidates=timing.costs,
        unit=timing.cost_unit,
        hosted=token_costs,
        ways=options,
        break_evens=break_evens(options),
        waiting=_waiting(run_s, currency, assumptions),
        cautions=(*_stale_prices(nodes, token_costs), *_incomplete_counts(token_costs)),
    )


def _hosting(
    run: MeasuredRun, timing: RunTiming, hosted_prices: Sequence[HostedFacts]
) -> HostingComparison | None:
    """Compare a run's own machines with other people's offers; None where there is no offer, or no server whose tokens it prices."""
    report = cost_run(run, timing, hosted_prices, CostAssumptions()) if hosted_prices else None
    if report is None or not report.hosted:
        return None
    return HostingComparison(
        costs=report.hosted,
        ways=report.ways,
        break_evens=report.break_evens,
        cautions=(*_stale_prices((), report.hosted), *_incomplete_counts(report.hosted)),
    )


def _missing_price(nodes: Sequence[NodeCost]) -> str | None:
    """Say why the machines have no price together; None where they have."""
    if not nodes:
        return "no model of this run has a server"
    without = [node.host for node in nodes if node.price is None]
    if without:
        return (
            f"no price is known for the machine at {', '.join(dict.fromkeys(without))}: add one under `hardware:` in qaeval.yaml, with "
            "as_of and source, and name it with --hardware"
        )
    currencies = _currencies(nodes)
    return None if len(currencies) == 1 else f"{' and '.join(currencies)} are not added up"


def _currencies(nodes: Sequence[NodeCost]) -> list[str]:
    return sorted({node.machine.currency for node in nodes if node.machine is not None})


def _machine_options(
    run: MeasuredRun,
    nodes: Sequence[NodeCost],
    run_s: float,
    reason: str | None,
    assumptions: CostAssumptions,
) -> tuple[HostingOption, HostingOption]:
    """Return the two ways of having machines of one's own."""
    judge = run.judge
    stages = [(candidate.facts, candidate.timing) for candidate in run.candidates] + [
        (judge.facts, judge.timing)
    ]
    if any(timing.fresh < 1 for facts, timing in stages if not facts.is_embedded):
        reason = "replies known from earlier runs took no time here: make the run again with --no-cache"
    if reason:
        return unknown_option("always on", reason), unknown_option("scale to zero", reason)
    machines = [node.machine for node in nodes if node.machine is not None]
    always_on_machines = (
        [assumptions.always_on_machine] * len(nodes)
        if assumptions.always_on_machine is not None
        else machines
    )
    always_on_option = always_on(
        price_per_hour=sum(machine.price_per_hour or 0.0 for machine in always_on_machines),
        run_s=run_s,
        currency=always_on_machines[0].currency,
    )
    if assumptions.start_s is None and any(not node.load_s for node in nodes):
        no_start = "the run found its servers up, so what a start takes is not known: give --start SECONDS"
        return always_on_option, unknown_option("scale to zero", no_start)
    more_s = (assumptions.start_s or 0.0) + assumptions.idle_timeout_s
    price = sum(
        (node.seconds + more_s) / _HOUR * (machine.price_per_hour or 0.0)
        for node, machine in zip(nodes, machines, strict=True)
    )
    currency = machines[0].currency
    return always_on_option, scale_to_zero(price_per_run=price, run_s=run_s + more_s, currency=currency)


def _api_option(prices: HostedFacts, costs: Sequence[HostedCost]) -> HostingOption:
    stage_costs = [cost for cost in costs if cost.prices.name == prices.name]
    price = price_per_run(stage_costs)
    if price is None:
        reasons = ", ".join(
            f"{cost.stage} {cost.model}: {cost.reason}" for cost in stage_costs if cost.price is None
        )
        return unknown_option(prices.name, reasons or "no model of this run has a server that counts tokens")
    return hosted_option(prices.name, price_per_run=price, currency=prices.currency)


def _waiting(run_s: float, currency: str, assumptions: CostAssumptions) -> Waiting | None:
    if assumptions.hourly_rate is None:
        return None
    paid_in = assumptions.currency or currency
    if not paid_in:
        raise UsageError(
            "--hourly-rate: the run has no price whose currency it could be in; add --currency EUR"
        )
    return Waiting(
        seconds=run_s,
        hourly_rate=assumptions.hourly_rate,
        currency=paid_in,
        price=run_s / _HOUR * assumptions.hourly_rate,
    )


def _stale_prices(nodes: Sequence[NodeCost], costs: Sequence[HostedCost]) -> list[str]:
    ages = {node.machine.name: node.stale_days for node in nodes if node.machine and node.stale_days}
    ages |= {cost.prices.name: cost.stale_days for cost in costs if cost.stale_days}
    return [f"The price of {name} is {days:,} days old: look it up again." for name, days in ages.items()]


def _incomplete_counts(costs: Sequence[HostedCost]) -> list[str]:
    return list(
        dict.fromkeys(
            f"{cost.stage} {cost.model}: {cost.reason}."
            for cost in costs
            if cost.price is not None and cost.reason
        )
    )
