"""What the candidates' items cost: machine time, money where the machine has a price, and energy, measured or at most.

Cost is work: wall seconds of the candidate's stage x price per hour / 3,600. What a server of our own took to start is told
apart, because it does not grow with the number of items. Time was measured once, so the intervals are those of the usable
rate alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from types import MappingProxyType
from typing import Final

from qaeval.analysis.model import CandidateSummary, Sentence, Timing
from qaeval.cost.energy import energy_bound, flag_implausible
from qaeval.cost.model import CandidateCost, StageCost, StageEnergy
from qaeval.report import numbers
from qaeval.report.facts import MachineFacts, ModelFacts
from qaeval.report.measure import Measure

STALE_DAYS: Final = 90
"""An older price is flagged."""

_HOUR: Final = 3600.0
_NOTHING_MEASURED: Final[Mapping[tuple[str, str], StageEnergy]] = MappingProxyType({})


def cost_candidates(
    candidates: Sequence[CandidateSummary],
    machines: Mapping[str, MachineFacts],
    finished: str,
    energies: Mapping[tuple[str, str], StageEnergy] = _NOTHING_MEASURED,
) -> tuple[CandidateCost, ...]:
    """Cost of what each candidate with a server made, and which of them nobody beats in both quality and cost.

    Args:
        candidates: Of one run.
        machines: What each model runs on, by its name; those that nobody knows are left out.
        finished: End of the run, ISO 8601; prices are dated against it.
        energies: What was measured, by stage and model.
    """
    costs = [
        _candidate(candidate, stage)
        for candidate in candidates
        if (
            stage := cost_stage(
                candidate.facts,
                candidate.timing,
                machines,
                finished,
                energies.get(("generate", candidate.facts.name)),
            )
        )
        is not None
    ]
    unit = common_unit(costs)
    rates = {candidate.facts.name: candidate.usable.value or 0.0 for candidate in candidates}
    points = {
        cost.candidate: (rates[cost.candidate], value)
        for cost in costs
        if (measure := cost.in_unit(unit)) is not None and (value := measure.value) is not None
    }
    return tuple(
        cost.model_copy(update={"is_on_front": _is_on_front(cost.candidate, points)}) for cost in costs
    )


def cost_stage(
    facts: ModelFacts,
    timing: Timing,
    machines: Mapping[str, MachineFacts],
    finished: str,
    energy: StageEnergy | None = None,
) -> StageCost | None:
    """Cost of one model's stage; None for a model without a server or a stage without a time."""
    if facts.is_embedded or timing.wall_s is None or not timing.fresh:
        return None
    machine, load = machines.get(facts.name), timing.load_s or 0.0
    hourly = None if machine is None else machine.price_per_hour
    return StageCost(
        model=facts.name,
        machine=machine,
        work_s=timing.wall_s,
        load_s=load,
        price=None if hourly is None else (timing.wall_s + load) / _HOUR * hourly,
        stale_days=None if machine is None else days_stale(machine.as_of, finished),
        energy=flag_implausible(energy, machine)
        if energy is not None and energy.is_measured
        else energy_bound(machine, timing.wall_s, "" if energy is None else energy.reason),
    )


def common_unit(costs: Sequence[CandidateCost]) -> str:
    """Say what costs can be compared in: a currency, ``seconds`` on equal machines; empty where in nothing."""
    machines = [cost.stage.machine for cost in costs]
    currencies = {
        None if machine is None or machine.price_per_hour is None else machine.currency
        for machine in machines
    }
    if len(currencies) == 1 and None not in currencies:
        return str(next(iter(currencies)))
    return "seconds" if len({None if machine is None else machine.name for machine in machines}) == 1 else ""


def write_cost(costs: Sequence[CandidateCost], unit: str, grading: StageCost | None) -> tuple[Sentence, ...]:
    """Say what the candidates cost against each other in their common unit, and what to beware of in the prices."""
    stages = [*(cost.stage for cost in costs), *([grading] if grading else [])]
    ages = {
        stage.machine.name: stage.stale_days
        for stage in stages
        if stage.machine is not None and stage.stale_days is not None
    }
    return (
        *_findings(costs, unit),
        *(
            Sentence(
                kind="caution",
                text=f"The price of {name} was {days:,} days old when the run ended: look it up again.",
            )
            for name, days in ages.items()
        ),
    )


def _findings(costs: Sequence[CandidateCost], unit: str) -> Iterable[Sentence]:
    priced = [(cost, value) for cost in costs if (value := cost.in_unit(unit)) is not None and value.value]
    if len(priced) < 2:  # noqa: PLR2004 - nothing to compare
        return
    priced.sort(key=lambda pair: pair[1].value or 0.0)
    listed = "; ".join(f"{cost.candidate} {numbers.cost(value, unit)}" for cost, value in priced)
    (first, lowest), (second, next_lowest) = priced[:2]
    share = 1 - (lowest.value or 0.0) / (next_lowest.value or 1.0)
    machine = first.stage.machine
    by = (
        "(machine time; a price in the registry makes it money)"
        if unit == "seconds" or machine is None
        else f"({machine.priced})"
    )
    than = second.candidate if len(priced) == 2 else f"{second.candidate}, the next"  # noqa: PLR2004
    yield Sentence(
        kind="finding",
        text=(
            f"Cost of 1,000 usable items, without grading: {listed} {by}. {first.candidate} costs {numbers.percent(share)} less "
            f"than {than}."
        ),
    )


def _candidate(candidate: CandidateSummary, stage: StageCost) -> CandidateCost:
    machine, work = stage.machine, stage.work_s
    hourly = None if machine is None else machine.price_per_hour
    fresh = candidate.timing.fresh
    each = 1000 * work / (fresh * candidate.n_valid) if candidate.n_valid else None
    seconds = _per_usable(candidate.usable, 1000 * work / (fresh * candidate.n_expected), "time of work")
    energy = _energy(candidate, stage.energy)
    grams = None if machine is None else machine.grid_g_per_kwh
    return CandidateCost(
        candidate=candidate.facts.name,
        stage=stage,
        seconds_per_1000=each,
        seconds_per_1000_usable=seconds,
        price_per_1000=None if each is None or hourly is None else each / _HOUR * hourly,
        price_per_1000_usable=None if hourly is None else _scaled(seconds, hourly / _HOUR),
        wh_per_1000_usable=energy,
        co2_g_per_1000_usable=None if energy is None or grams is None else _scaled(energy, grams / 1000),
    )


def _energy(candidate: CandidateSummary, energy: StageEnergy | None) -> Measure | None:
    """Return the energy of 1,000 usable items: of the work alone where the idle power is known."""
    if energy is None or energy.work_wh is None:
        return None
    if energy.work_wh <= 0:
        reason = "the GPUs used no more than when they idle"
        return candidate.usable.model_copy(
            update={"value": None, "low": None, "high": None, "reason": reason}
        )
    return _per_usable(
        candidate.usable,
        1000 * energy.work_wh / (candidate.timing.fresh * candidate.n_expected),
        "energy of work",
    )


def _per_usable(usable: Measure, per_1000: float, basis: str) -> Measure:
    """Divide by the usable rate, ends too: the higher rate is the lower cost."""
    if not usable.value:
        return usable.model_copy(
            update={"value": None, "low": None, "high": None, "reason": "no item is usable"}
        )
    return usable.model_copy(
        update={
            "value": per_1000 / usable.value,
            "low": per_1000 / usable.high if usable.high and usable.low else None,
            "high": per_1000 / usable.low if usable.low else None,
            "method": f"{basis} / ({usable.method})",
        }
    )


def _scaled(measure: Measure, factor: float) -> Measure:
    ends = {name: getattr(measure, name) for name in ("value", "low", "high")}
    return measure.model_copy(
        update={name: None if end is None else factor * end for name, end in ends.items()}
    )


def _is_on_front(name: str, points: Mapping[str, tuple[float, float]]) -> bool:
    if name not in points:
        return False
    rate, cost = points[name]
    return not any(
        other_rate >= rate and price <= cost and (other_rate, price) != (rate, cost)
        for other_rate, price in points.values()
    )


def days_stale(as_of: str | None, finished: str) -> int | None:
    """Return the age of a price in days where that is more than it should be; None for a fresh one, or where there is none."""
    if not as_of:
        return None
    days = (datetime.fromisoformat(finished).date() - date.fromisoformat(as_of)).days
    return days if days > STALE_DAYS else None
