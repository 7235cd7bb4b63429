"""Costs of stages, items and runs as data, and the document of ``qaeval cost``.

An undefined number is ``null`` with a reason, never 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from pydantic import Field

from qaeval.analysis.model import CandidateSummary, JudgeSummary, Sentence
from qaeval.records import Reading, Session
from qaeval.report.facts import HostedFacts, MachineFacts, Part
from qaeval.report.measure import Measure


def _is_none(value: object) -> bool:
    return value is None


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """What a run measured, as far as its cost depends on it."""

    name: str
    """Of the run, for the reader."""
    n_samples: int
    candidates: Sequence[CandidateSummary]
    judge: JudgeSummary
    sessions: Sequence[Session] = ()
    readings: Sequence[Reading] = ()
    """Metrics of the servers, in the order of time."""
    priced_at: str
    """ISO 8601; the age of a price is counted up to this time."""


class WeightedCriterion(Part):
    """What one candidate scores on one criterion."""

    name: str
    weight: float
    score: float | None
    """0 to 1; None where it is not known."""
    counts: bool = True
    """False where it is not known for every candidate: then it is left out of all means."""


class Choice(Part):
    """One candidate, weighed for hosting."""

    candidate: str
    criteria: tuple[WeightedCriterion, ...]
    mean: float
    """Weighted mean of the scores that count."""


EnergyBasis: TypeAlias = Literal["energy counter", "integrated power", "power limit"]
"""How energy is known: counted by the GPU, its power added up, or at most what its power limit allows."""


class StageEnergy(Part):
    """Energy of one model's stage."""

    method: EnergyBasis | None
    """None where it is not known; then `reason` says why."""
    source: str = ""
    """What was read: NVML, a DCGM exporter; of a power limit the machine's name."""
    gpus: tuple[str, ...] = ()
    """What each of them is called; several may be of one name."""
    seconds: float = 0.0
    """Of measuring; of a power limit the stage's."""
    wh: float | None = None
    """Watt-hours, what the GPUs use when they idle included; of a power limit an upper bound."""
    idle_wh: float | None = None
    """What they would have used in that time without a request; None where that is not known."""
    idle: str = ""
    """Where the idle power is from: ``measured`` or ``registry``."""
    notes: tuple[str, ...] = ()
    reason: str = ""
    """Why it was not measured."""

    @property
    def is_measured(self) -> bool:
        """Whether it was measured."""
        return self.method in {"energy counter", "integrated power"}

    @property
    def work_wh(self) -> float | None:
        """What the work took: without idle, where that is known."""
        return None if self.wh is None else self.wh - (self.idle_wh or 0.0)


class StageCost(Part):
    """What one model's stage cost: machine seconds, and money where its machine has a price."""

    model: str
    machine: MachineFacts | None
    """None where the registry names no machine."""
    work_s: float
    """Wall seconds of the stage."""
    load_s: float
    """Seconds of starting servers of qaeval's own."""
    price: float | None
    """Of work and load, in the machine's currency; None without a price."""
    stale_days: int | None = None
    """Age of the price at the end of the run where that is more than it should be."""
    energy: StageEnergy | None = None
    """What its GPUs used, measured or at most; None where nothing is known."""


class CandidateCost(Part):
    """What a candidate's items cost to make; grading is not part of it."""

    candidate: str
    stage: StageCost
    seconds_per_1000: float | None
    """Machine seconds of work for 1,000 valid items."""
    seconds_per_1000_usable: Measure
    """For 1,000 usable items; the interval is that of the usable rate, with the time as it was."""
    price_per_1000: float | None
    price_per_1000_usable: Measure | None
    """None without a price."""
    wh_per_1000_usable: Measure | None = None
    """Watt-hours as `stage.energy` has them, without idle where that is known; of a power limit an upper bound."""
    co2_g_per_1000_usable: Measure | None = None
    """Grams of CO2: that energy times the grid factor of the machine; None without either."""
    is_on_front: bool = False
    """Whether no other candidate is both cheaper and better."""

    def in_unit(self, unit: str) -> Measure | None:
        """Return the cost of 1,000 usable items in a currency or in ``seconds``; None where it has none."""
        if unit == "seconds":
            return self.seconds_per_1000_usable
        return self.price_per_1000_usable if unit else None


class BreakEven(Part):
    """Where two ways cost the same."""

    a: str
    b: str
    runs_per_day: float | None
    """None where they do not meet at a number of runs that can be done; `reason` says why."""
    below: str | None
    """Which is cheaper with fewer runs a day; None where nothing can be said."""
    above: str | None
    """Which is cheaper with more."""
    reason: str | None = None


class HostedCost(Part):
    """What the tokens of one stage would have cost elsewhere; nothing was sent there."""

    stage: str
    """``generate`` or ``grade``."""
    model: str
    """Whose tokens these are."""
    prices: HostedFacts
    prompt_tokens: int | None
    completion_tokens: int | None
    price: float | None
    """In the prices' currency."""
    price_per_1000_usable: float | None
    """Of 1,000 usable items of a candidate; None for the judge."""
    reason: str | None = None
    """Why a price is missing, or what it leaves out."""
    stale_days: int | None = None
    """Age of the prices in days where that is more than it should be."""


class HostingOption(Part):
    """A way to have runs done: what a day of it costs is ``per_day + per_run × runs``."""

    name: str
    currency: str = ""
    per_day: float | None
    """Paid every day, with or without runs; None where it is not known."""
    per_run: float | None
    """Paid for each run; None where it is not known."""
    most_runs: float | None = None
    """Runs that a day has room for; None where nothing of ours bounds them."""
    reason: str | None = None
    """Why it has no cost."""


class HostingComparison(Part):
    """A run's tokens at other people's prices, beside machines of one's own."""

    costs: tuple[HostedCost, ...]
    ways: tuple[HostingOption, ...]
    break_evens: tuple[BreakEven, ...]
    cautions: tuple[str, ...] = ()
    """Prices that are old, counts that are not whole."""


class NodeCost(Part):
    """One machine: a host that models were served on, and the registry's price of it."""

    host: str
    models: tuple[str, ...]
    """In the order in which they came."""
    machine: MachineFacts | None
    """None where the registry names no machine for these models."""
    load_s: float
    """Seconds in which servers of qaeval's own started."""
    idle_s: float
    """Seconds in which it waited: other machines worked on the run, or its server had no request. At least: a server without
    metrics is taken to have worked all through its stage."""
    work_s: float
    """Seconds of the rest of its stages."""
    price: float | None
    """Of all three, in the machine's currency; None without a price."""
    stale_days: int | None = None
    """Age of the price in days where that is more than it should be."""

    @property
    def seconds(self) -> float:
        """Load, idle and work together."""
        return self.load_s + self.idle_s + self.work_s


class RunTiming(Part):
    """What depends on times and belongs to no candidate alone."""

    headline: tuple[Sentence, ...] = ()
    """What the headline says of cost."""
    costs: tuple[CandidateCost, ...] = ()
    """In the order of the candidates; those without a server are left out."""
    cost_unit: str = ""
    """What the candidates' costs can be compared in: a currency, or ``seconds``; empty where in nothing."""
    grading: StageCost | None = None
    """What the judge's stage cost; None where it has no server."""
    nodes: tuple[NodeCost, ...] = ()
    """What each machine did with its time."""
    choice: tuple[Choice, ...] = ()
    """The candidates weighed for hosting, the best first; speed is part of it."""
    energy_wh: float | None = Field(default=None, exclude_if=_is_none)
    """What all GPUs used in all stages, idle included, stages side by side once; None where a stage was not measured."""
    hosting: HostingComparison | None = Field(default=None, exclude_if=_is_none)
    """The same tokens elsewhere, and how many runs a day make which way the cheapest; None where no offer has a price."""


FORMAT: Final = 1
"""Version of the layout of `CostReport`."""


class Work(Part):
    """What a number of items takes at a steady speed."""

    n: int
    per_s: float
    """Items per second."""
    seconds: float
    hours: float
    """Node hours, of one machine."""
    price: float
    """Of these hours, in the currency of the price per hour."""
    price_per_1000: float
    """Of 1,000 items."""


class Waiting(Part):
    """What it costs that somebody waits for a run; only at a rate that the user gave."""

    seconds: float
    hourly_rate: float
    currency: str
    price: float


class CostReport(Part):
    """What ``qaeval cost`` found."""

    format: int = FORMAT
    source: str
    """The run, or the runs."""
    run_s: float
    """Seconds that the run worked, the start of servers included; stages side by side count once."""
    nodes: tuple[NodeCost, ...]
    price: float | None
    """Of all machines together; None where one has no price, or the currencies differ."""
    currency: str
    """Of `price`; empty without one."""
    reason: str | None
    """Why there is no price."""
    candidates: tuple[CandidateCost, ...]
    unit: str
    """What the candidates' costs can be compared in."""
    hosted: tuple[HostedCost, ...]
    ways: tuple[HostingOption, ...]
    break_evens: tuple[BreakEven, ...]
    waiting: Waiting | None = None
    """None where the user gave no hourly rate."""
    cautions: tuple[str, ...] = ()
