"""Cost of the candidates' items: machine time, money if the machine has a price, and energy.

Cost is work: wall seconds of the candidate's stage x price per hour / 3,600. The start of a server is counted separately
because it does not grow with the number of items. Time was measured once, so an interval is that of the usable rate.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final

from qaeval.analysis.model import CandidateSummary, Timing
from qaeval.cost.energy import energy_bound, flag_implausible
from qaeval.cost.model import CandidateCost, StageCost, StageEnergy
from qaeval.report.facts import MachineFacts, ModelFacts
from qaeval.report.measure import Measure

STALE_DAYS: Final = 90
"""An older price is flagged."""

_HOUR: Final = 3600.0


def cost_candidates(
    candidates: Sequence[CandidateSummary],
    machines: Mapping[str, MachineFacts],
    priced_at: str,
    energies: Mapping[tuple[str, str], StageEnergy],
) -> tuple[CandidateCost, ...]:
    """Compute the cost of each candidate with a machine, and the Pareto front of quality and cost.

    Args:
        candidates: Of one run.
        machines: Machine of each model, by the model's name.
        priced_at: ISO 8601; the age of a price is counted up to this time.
        energies: Measured energy, by stage and model.
    """
    costs = [
        _cost_candidate(candidate, stage)
        for candidate in candidates
        if (
            stage := cost_stage(
                candidate.facts,
                candidate.timing,
                machines,
                priced_at,
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
    priced_at: str,
    energy: StageEnergy | None = None,
) -> StageCost | None:
    """Compute the cost of one model's stage; None for a model without a machine or a stage without a time."""
    if facts.is_embedded or facts.is_hosted_api or timing.wall_s is None or not timing.fresh:
        return None
    machine, load_s = machines.get(facts.name), timing.load_s or 0.0
    hourly = None if machine is None else machine.price_per_hour
    return StageCost(
        model=facts.name,
        machine=machine,
        work_s=timing.wall_s,
        load_s=load_s,
        price=None if hourly is None else (timing.wall_s + load_s) / _HOUR * hourly,
        stale_days=None if machine is None else days_stale(machine.as_of, priced_at),
        energy=flag_implausible(energy, machine)
        if energy is not None and energy.is_measured
        else energy_bound(machine, timing.wall_s, "" if energy is None else energy.reason),
    )


def common_unit(costs: Sequence[CandidateCost]) -> str:
    """Return the unit that costs can be compared in: a currency, ``seconds`` on equal machines, else the empty string."""
    machines = [cost.stage.machine for cost in costs]
    currencies = {
        None if machine is None or machine.price_per_hour is None else machine.currency
        for machine in machines
    }
    if len(currencies) == 1 and None not in currencies:
        return str(next(iter(currencies)))
    return "seconds" if len({None if machine is None else machine.name for machine in machines}) == 1 else ""


def _cost_candidate(candidate: CandidateSummary, stage: StageCost) -> CandidateCost:
    machine = stage.machine
    hourly = None if machine is None else machine.price_per_hour
    grams = None if machine is None else machine.grid_g_per_kwh
    # replies of earlier runs took no time in this one: the time is shared by the fresh items alone
    n_valid, n_expected = (candidate.timing.fresh * n for n in (candidate.n_valid, candidate.n_expected))
    per_1000 = 1000 * stage.work_s / n_valid if n_valid else None
    seconds = _per_usable(candidate.usable, 1000 * stage.work_s / n_expected, "time of work")
    energy = _energy(candidate, stage.energy, n_expected)
    return CandidateCost(
        candidate=candidate.facts.name,
        stage=stage,
        seconds_per_1000=per_1000,
        seconds_per_1000_usable=seconds,
        price_per_1000=None if per_1000 is None or hourly is None else per_1000 / _HOUR * hourly,
        price_per_1000_usable=None if hourly is None else seconds.scaled(hourly / _HOUR),
        wh_per_1000_usable=energy,
        co2_g_per_1000_usable=None if energy is None or grams is None else energy.scaled(grams / 1000),
    )


def _energy(candidate: CandidateSummary, energy: StageEnergy | None, n_expected: float) -> Measure | None:
    """Return the energy of 1,000 usable items, without idle energy if that is known."""
    if energy is None or energy.work_wh is None:
        return None
    if energy.work_wh <= 0:
        return candidate.usable.without_value("the GPUs used no more energy than when idle")
    return _per_usable(candidate.usable, 1000 * energy.work_wh / n_expected, "energy of work")


def _per_usable(usable: Measure, per_1000: float, basis: str) -> Measure:
    """Divide by the usable rate; the ends swap, because the higher rate is the lower cost."""
    if not usable.value:
        return usable.without_value("no item is usable")
    return usable.model_copy(
        update={
            "value": per_1000 / usable.value,
            "low": per_1000 / usable.high if usable.high and usable.low else None,
            "high": per_1000 / usable.low if usable.low else None,
            "method": f"{basis} / ({usable.method})",
        }
    )


def _is_on_front(name: str, points: Mapping[str, tuple[float, float]]) -> bool:
    if name not in points:
        return False
    rate, cost = points[name]
    return not any(
        rival_rate >= rate and rival_cost <= cost and (rival_rate, rival_cost) != (rate, cost)
        for rival_rate, rival_cost in points.values()
    )


def days_stale(as_of: str | None, priced_at: str) -> int | None:
    """Return the age of a price in days if it is more than `STALE_DAYS`; None for a newer price, or without a date."""
    if not as_of:
        return None
    days = (datetime.fromisoformat(priced_at).date() - date.fromisoformat(as_of)).days
    return days if days > STALE_DAYS else None
