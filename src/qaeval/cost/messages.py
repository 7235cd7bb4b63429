"""Sentences about cost that are part of a document: the headline, cautions and reasons."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from qaeval.analysis.model import Sentence
from qaeval.cost.model import CandidateCost, HostedCost, NodeCost, StageCost
from qaeval.report import numbers
from qaeval.report.measure import Measure

NO_SERVER: Final = "no model of this run has a server"
NO_MACHINE: Final = "no model of this run has a machine"
CACHED: Final = "cached replies of earlier runs took no time in this run: repeat the run with --no-cache"
NO_START: Final = "the servers were already running, so the time of a start is unknown: pass --start SECONDS"


def write_headline(
    costs: Sequence[CandidateCost], unit: str, grading: StageCost | None
) -> tuple[Sentence, ...]:
    """Compare the candidates' costs in their common unit, and warn of old prices."""
    stages = [*(cost.stage for cost in costs), *([grading] if grading else [])]
    ages = {stage.machine.name: stage.stale_days for stage in stages if stage.machine and stage.stale_days}
    return (
        *_comparison(costs, unit),
        *(
            Sentence(
                kind="caution",
                text=f"The price of {name} was {days:,} days old at the end of the run: update it.",
            )
            for name, days in ages.items()
        ),
    )


def _comparison(costs: Sequence[CandidateCost], unit: str) -> Iterator[Sentence]:
    priced = [
        (cost, measure) for cost in costs if (measure := cost.in_unit(unit)) is not None and measure.value
    ]
    if len(priced) < 2:
        return
    priced.sort(key=_value)
    (first, lowest), (second, next_lowest) = priced[:2]
    listed = "; ".join(f"{cost.candidate} {numbers.cost(measure, unit)}" for cost, measure in priced)
    machine = first.stage.machine
    basis = (
        "machine time; add a price to the registry for money"
        if unit == "seconds" or machine is None
        else machine.priced
    )
    saving = numbers.percent(1 - (lowest.value or 0.0) / (next_lowest.value or 1.0))
    second_name = second.candidate if len(priced) == 2 else f"the next, {second.candidate}"
    yield Sentence(
        kind="finding",
        text=f"Cost of 1,000 usable items, without grading: {listed} ({basis}). "
        f"{first.candidate} costs {saving} less than {second_name}.",
    )


def _value(priced: tuple[CandidateCost, Measure]) -> float:
    return priced[1].value or 0.0


def missing_price(nodes: Sequence[NodeCost]) -> str:
    """Say which machines have no price."""
    hosts = dict.fromkeys(node.host for node in nodes if node.price is None)
    return (
        f"no price for the machine at {', '.join(hosts)}: add price_per_hour, as_of and source under `hardware:` in qaeval.yaml, "
        "and pass its name with --hardware"
    )


def hosted_models(names: Sequence[str]) -> list[str]:
    """Say that the price of the machines leaves hosted APIs out."""
    if not names:
        return []
    return [
        f"{numbers.listed(names)}: answered by a hosted API, which bills tokens. They are not in the price of the run."
    ]


def not_on_machines(names: Sequence[str]) -> str:
    """Say why own machines cannot be compared for a run with models of hosted APIs."""
    return f"{numbers.listed(names)} ran at a hosted API, so that the time on a machine is unknown"


def stale_prices(nodes: Iterable[NodeCost], costs: Iterable[HostedCost]) -> list[str]:
    """Warn of each old price of a machine or of a hosted API."""
    ages = {node.machine.name: node.stale_days for node in nodes if node.machine and node.stale_days}
    ages |= {cost.prices.name: cost.stale_days for cost in costs if cost.stale_days}
    return [f"The price of {name} is {days:,} days old: update it." for name, days in ages.items()]


def incomplete_counts(costs: Iterable[HostedCost]) -> list[str]:
    """Warn of stages whose price is a lower bound."""
    texts = (
        f"{cost.stage} {cost.model}: {cost.reason}."
        for cost in costs
        if cost.price is not None and cost.reason
    )
    return list(dict.fromkeys(texts))
