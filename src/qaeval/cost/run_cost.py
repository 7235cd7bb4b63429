"""From a finished run to everything that it cost, or would have: machines, tokens elsewhere, break-even, waiting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qaeval.cost.alternatives import (
    always_on,
    break_evens,
    hosted,
    hosted_costs,
    not_known,
    per_run,
    scale_to_zero,
)
from qaeval.cost.candidates import common_unit, cost_candidates, cost_stage, write_cost
from qaeval.cost.energy import run_wh, stage_energies
from qaeval.cost.machines import node_costs, run_seconds
from qaeval.cost.model import (
    CostReport,
    HostedCost,
    Hosting,
    MeasuredRun,
    NodeCost,
    RunTiming,
    Waiting,
    Way,
)
from qaeval.cost.weights import weigh
from qaeval.errors import UsageError
from qaeval.report.facts import HostedFacts, MachineFacts

_HOUR: Final = 3600.0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What no run knows: the user's own numbers. What is not given is not assumed."""

    start_s: float | None = None
    """Seconds until a machine is there and, where the run found its servers up, until they answer."""
    linger_s: float = 0.0
    """Seconds that a machine is paid after a run until it is given back."""
    kept: MachineFacts | None = None
    """What a machine costs that is always on; None: what it cost in the run."""
    hourly_rate: float | None = None
    """What an hour costs of somebody who waits."""
    currency: str = ""
    """Of the hourly rate; that of the machines where left out."""


def run_timing(
    run: MeasuredRun, machines: Mapping[str, MachineFacts], offers: Sequence[HostedFacts] = ()
) -> RunTiming:
    """Compute everything that depends on times: costs, and the choice that cost and speed are part of.

    Args:
        run: The run.
        machines: What each model runs on, by its name; a model without an entry has no price.
        offers: Prices of hosted APIs.
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
    return timing.model_copy(update={"hosting": _hosting(run, timing, offers)})


def cost_run(run: MeasuredRun, timing: RunTiming, offers: Sequence[HostedFacts], asked: Asked) -> CostReport:
    """Put together what a run cost, what its tokens would have cost elsewhere, and which way is cheapest for how many runs.

    Args:
        run: The run.
        timing: Its costs, from `run_timing`.
        offers: Prices of hosted APIs.
        asked: The user's own numbers.

    Raises:
        UsageError: an hourly rate has no currency.
    """
    nodes, run_s = timing.nodes, run_seconds(run.sessions)
    reason = _priceless(nodes)
    currency = "" if reason else _currencies(nodes)[0]
    elsewhere = hosted_costs(run, offers)
    ways = (
        *_own(run, nodes, run_s, reason, asked),
        *(_elsewhere(one, elsewhere) for one in offers),
    )
    return CostReport(
        source=run.name,
        run_s=run_s,
        nodes=nodes,
        price=None if reason else sum(one.price or 0.0 for one in nodes),
        currency=currency,
        reason=reason,
        candidates=timing.costs,
        unit=timing.cost_unit,
        hosted=elsewhere,
        ways=ways,
        break_evens=break_evens(ways),
        waiting=_waiting(run_s, currency, asked),
        cautions=(*_old(nodes, elsewhere), *_less(elsewhere)),
    )


def _hosting(run: MeasuredRun, timing: RunTiming, offers: Sequence[HostedFacts]) -> Hosting | None:
    """Compare a run's own machines with other people's offers; None where there is no offer, or no server whose tokens it prices."""
    found = cost_run(run, timing, offers, Asked()) if offers else None
    if found is None or not found.hosted:
        return None
    return Hosting(
        costs=found.hosted,
        ways=found.ways,
        break_evens=found.break_evens,
        cautions=(*_old((), found.hosted), *_less(found.hosted)),
    )


def _priceless(nodes: Sequence[NodeCost]) -> str | None:
    """Say why the machines have no price together; None where they have."""
    if not nodes:
        return "no model of this run has a server"
    without = [one.host for one in nodes if one.price is None]
    if without:
        return (
            f"no price is known for the machine at {', '.join(dict.fromkeys(without))}: add one under `hardware:` in qaeval.yaml, with "
            "as_of and source, and name it with --hardware"
        )
    several = _currencies(nodes)
    return None if len(several) == 1 else f"{' and '.join(several)} are not added up"


def _currencies(nodes: Sequence[NodeCost]) -> list[str]:
    return sorted({one.machine.currency for one in nodes if one.machine is not None})


def _own(
    run: MeasuredRun, nodes: Sequence[NodeCost], run_s: float, reason: str | None, asked: Asked
) -> tuple[Way, Way]:
    """Return the two ways of having machines of one's own."""
    judge = run.judge
    stages = [(one.facts, one.timing) for one in run.candidates] + [(judge.facts, judge.timing)]
    if any(timing.fresh < 1 for facts, timing in stages if not facts.is_embedded):
        reason = "replies known from earlier runs took no time here: make the run again with --no-cache"
    if reason:
        return not_known("always on", reason), not_known("scale to zero", reason)
    machines = [one.machine for one in nodes if one.machine is not None]
    kept = [asked.kept] * len(nodes) if asked.kept is not None else machines
    standing = always_on(
        price_per_hour=sum(one.price_per_hour or 0.0 for one in kept), run_s=run_s, currency=kept[0].currency
    )
    if asked.start_s is None and any(not one.load_s for one in nodes):
        why = "the run found its servers up, so what a start takes is not known: give --start SECONDS"
        return standing, not_known("scale to zero", why)
    more_s = (asked.start_s or 0.0) + asked.linger_s
    price = sum(
        (node.seconds + more_s) / _HOUR * (machine.price_per_hour or 0.0)
        for node, machine in zip(nodes, machines, strict=True)
    )
    currency = machines[0].currency
    return standing, scale_to_zero(price_per_run=price, run_s=run_s + more_s, currency=currency)


def _elsewhere(offer: HostedFacts, costs: Sequence[HostedCost]) -> Way:
    own = [one for one in costs if one.prices.name == offer.name]
    price = per_run(own)
    if price is None:
        why = ", ".join(f"{one.stage} {one.model}: {one.reason}" for one in own if one.price is None)
        return not_known(offer.name, why or "no model of this run has a server that counts tokens")
    return hosted(offer.name, price_per_run=price, currency=offer.currency)


def _waiting(run_s: float, currency: str, asked: Asked) -> Waiting | None:
    if asked.hourly_rate is None:
        return None
    paid_in = asked.currency or currency
    if not paid_in:
        raise UsageError(
            "--hourly-rate: the run has no price whose currency it could be in; add --currency EUR"
        )
    return Waiting(
        seconds=run_s,
        hourly_rate=asked.hourly_rate,
        currency=paid_in,
        price=run_s / _HOUR * asked.hourly_rate,
    )


def _old(nodes: Sequence[NodeCost], costs: Sequence[HostedCost]) -> list[str]:
    ages = {one.machine.name: one.stale_days for one in nodes if one.machine and one.stale_days}
    ages |= {one.prices.name: one.stale_days for one in costs if one.stale_days}
    return [f"The price of {name} is {days:,} days old: look it up again." for name, days in ages.items()]


def _less(costs: Sequence[HostedCost]) -> list[str]:
    return list(
        dict.fromkeys(
            f"{one.stage} {one.model}: {one.reason}." for one in costs if one.price is not None and one.reason
        )
    )
