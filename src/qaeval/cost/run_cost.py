"""The whole cost of a finished run: machines, hosted prices of the same tokens, break-even, waiting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qaeval.cost import messages
from qaeval.cost.alternatives import (
    always_on,
    break_evens,
    hosted_costs,
    hosted_option,
    price_per_run,
    scale_to_zero,
    unknown_option,
)
from qaeval.cost.candidates import common_unit, cost_candidates, cost_stage
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
    """The user's own numbers, which no run measures. A number that is not given is not assumed."""

    start_s: float | None = None
    """Seconds until a machine exists and, if the run found its servers running, until they answer."""
    idle_timeout_s: float = 0.0
    """Seconds that a machine is paid after a run, before it is released."""
    always_on_machine: MachineFacts | None = None
    """Machine whose price counts for always on; default: the machines of the run."""
    hourly_rate: float | None = None
    """Cost of one hour of a waiting person."""
    currency: str = ""
    """Of the hourly rate; default: that of the machines."""


def run_timing(
    run: MeasuredRun, machines: Mapping[str, MachineFacts], hosted_prices: Sequence[HostedFacts] = ()
) -> RunTiming:
    """Compute everything that depends on times: costs, and the choice that weighs cost and speed.

    Args:
        run: The run.
        machines: Machine of each model, by the model's name; a model without an entry has no price.
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
        headline=messages.write_headline(costs, unit, grading),
        costs=costs,
        cost_unit=unit,
        grading=grading,
        nodes=node_costs(run.sessions, run.readings, machines, run.priced_at, hosted=run.hosted),
        choice=weigh(run.candidates, costs, unit, external, run.priced_at),
        energy_wh=run_wh(run.sessions),
    )
    return timing.model_copy(update={"hosting": _compare_hosting(run, timing, hosted_prices)})


def cost_run(
    run: MeasuredRun, timing: RunTiming, hosted_prices: Sequence[HostedFacts], assumptions: CostAssumptions
) -> CostReport:
    """Compute the cost of a run, the hosted cost of its tokens, and the cheapest hosting option by runs per day.

    Args:
        run: The run.
        timing: Its costs, from `run_timing`.
        hosted_prices: Prices of hosted APIs.
        assumptions: The user's own numbers.

    Raises:
        UsageError: The hourly rate has no currency.
    """
    nodes, run_s = timing.nodes, run_seconds(run.sessions)
    reason = _unpriced(nodes)
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
        cautions=(
            *messages.hosted_models(run.hosted),
            *messages.stale_prices(nodes, token_costs),
            *messages.incomplete_counts(token_costs),
        ),
    )


def _compare_hosting(
    run: MeasuredRun, timing: RunTiming, hosted_prices: Sequence[HostedFacts]
) -> HostingComparison | None:
    """Compare the run's machines with hosted APIs; None without a hosted price, or without a server that counts tokens."""
    report = cost_run(run, timing, hosted_prices, CostAssumptions()) if hosted_prices else None
    if report is None or not report.hosted:
        return None
    return HostingComparison(
        costs=report.hosted,
        ways=report.ways,
        break_evens=report.break_evens,
        # the headline of the report has the cautions about machines
        cautions=(*messages.stale_prices((), report.hosted), *messages.incomplete_counts(report.hosted)),
    )


def _unpriced(nodes: Sequence[NodeCost]) -> str | None:
    """Say why the machines together have no price; None if they have one."""
    if not nodes:
        return messages.NO_MACHINE
    if any(node.price is None for node in nodes):
        return messages.missing_price(nodes)
    currencies = _currencies(nodes)
    return None if len(currencies) == 1 else f"prices in {' and '.join(currencies)} cannot be added"


def _currencies(nodes: Sequence[NodeCost]) -> list[str]:
    return sorted({node.machine.currency for node in nodes if node.machine is not None})


def _machine_options(
    run: MeasuredRun,
    nodes: Sequence[NodeCost],
    run_s: float,
    reason: str | None,
    assumptions: CostAssumptions,
) -> tuple[HostingOption, HostingOption]:
    """Return both options of own machines: always on, and scaled to zero."""
    stages = [(model.facts, model.timing) for model in run.candidates]
    stages.append((run.judge.facts, run.judge.timing))
    if any(timing.fresh < 1 for facts, timing in stages if not facts.is_embedded):
        reason = messages.CACHED
    if run.hosted:
        reason = messages.not_on_machines(run.hosted)
    if reason:
        return unknown_option("always on", reason), unknown_option("scale to zero", reason)
    machines = [node.machine for node in nodes if node.machine is not None]
    always_on_machine = assumptions.always_on_machine
    paid = machines if always_on_machine is None else [always_on_machine] * len(nodes)
    always_on_option = always_on(
        price_per_hour=sum(machine.price_per_hour or 0.0 for machine in paid),
        run_s=run_s,
        currency=paid[0].currency,
    )
    if assumptions.start_s is None and any(not node.load_s for node in nodes):
        return always_on_option, unknown_option("scale to zero", messages.NO_START)
    extra_s = (assumptions.start_s or 0.0) + assumptions.idle_timeout_s
    price = sum(
        (node.seconds + extra_s) / _HOUR * (machine.price_per_hour or 0.0)
        for node, machine in zip(nodes, machines, strict=True)
    )
    currency = machines[0].currency
    return always_on_option, scale_to_zero(price_per_run=price, run_s=run_s + extra_s, currency=currency)


def _api_option(prices: HostedFacts, costs: Sequence[HostedCost]) -> HostingOption:
    stages = [cost for cost in costs if cost.prices.name == prices.name]
    price = price_per_run(stages)
    if price is None:
        reasons = ", ".join(
            f"{cost.stage} {cost.model}: {cost.reason}" for cost in stages if cost.price is None
        )
        return unknown_option(prices.name, reasons or f"{messages.NO_SERVER} that counts tokens")
    return hosted_option(prices.name, price_per_run=price, currency=prices.currency)


def _waiting(run_s: float, currency: str, assumptions: CostAssumptions) -> Waiting | None:
    if assumptions.hourly_rate is None:
        return None
    rate_currency = assumptions.currency or currency
    if not rate_currency:
        raise UsageError("--hourly-rate: the run has no price and thus no currency; add --currency EUR")
    return Waiting(
        seconds=run_s,
        hourly_rate=assumptions.hourly_rate,
        currency=rate_currency,
        price=run_s / _HOUR * assumptions.hourly_rate,
    )
