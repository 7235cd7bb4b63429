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

    @property
    def hosted(self) -> tuple[str, ...]:
        """Models of hosted APIs."""
        models = (*(candidate.facts for candidate in self.candidates), self.judge.facts)
        return tuple(facts.name for facts in models if facts.is_hosted_api)


class WeightedCriterion(Part):
    """Score of one candidate on one criterion."""

    name: str
    weight: float
    score: float | None
    """0 to 1; None if unknown."""
    counts: bool = True
    """False if the score of any candidate is unknown: the criterion is then left out of all means."""


class Choice(Part):
    """Scores of one candidate for the choice of a model to host."""

    candidate: str
    criteria: tuple[WeightedCriterion, ...]
    mean: float
    """Weighted mean of the scores that count."""


EnergyBasis: TypeAlias = Literal["energy counter", "integrated power", "power limit"]
"""Counted by the GPU, integrated from its power, or bounded by its power limit."""


class StageEnergy(Part):
    """Energy of one model's stage."""

    method: EnergyBasis | None
    """None if unknown; then `reason` says why."""
    source: str = ""
    """What was read: NVML, a DCGM exporter; of a power limit the machine's name."""
    gpus: tuple[str, ...] = ()
    """Name of each GPU; names may repeat."""
    seconds: float = 0.0
    """Measured time; of a power limit the time of the stage."""
    wh: float | None = None
    """Watt-hours, idle energy included; of a power limit an upper bound."""
    idle_wh: float | None = None
    """Energy in that time without a request; None if unknown."""
    idle: str = ""
    """Source of the idle power: ``measured`` or ``registry``."""
    notes: tuple[str, ...] = ()
    reason: str = ""
    """Why it was not measured."""

    @property
    def is_measured(self) -> bool:
        """Whether it was measured."""
        return self.method in {"energy counter", "integrated power"}

    @property
    def work_wh(self) -> float | None:
        """Energy of the work: without idle energy if that is known."""
        return None if self.wh is None else self.wh - (self.idle_wh or 0.0)


class StageCost(Part):
    """Cost of one model's stage: machine seconds, and money if its machine has a price."""

    model: str
    machine: MachineFacts | None
    """None if the registry names no machine."""
    work_s: float
    """Wall seconds of the stage."""
    load_s: float
    """Seconds in which qaeval's own servers started."""
    price: float | None
    """Of work and load, in the machine's currency; None without a price."""
    stale_days: int | None = None
    """Age of an old price, in days; None for a newer one."""
    energy: StageEnergy | None = None
    """Measured energy or its upper bound; None if nothing is known."""


class CandidateCost(Part):
    """Cost of a candidate's items, without grading."""

    candidate: str
    stage: StageCost
    seconds_per_1000: float | None
    """Machine seconds of work for 1,000 valid items."""
    seconds_per_1000_usable: Measure
    """For 1,000 usable items; the interval is that of the usable rate, time held fixed."""
    price_per_1000: float | None
    price_per_1000_usable: Measure | None
    """None without a price."""
    wh_per_1000_usable: Measure | None = None
    """Watt-hours of the work in `stage.energy`; of a power limit an upper bound."""
    co2_g_per_1000_usable: Measure | None = None
    """Grams of CO2: energy x grid factor of the machine; None without either."""
    is_on_front: bool = False
    """Whether no other candidate is both cheaper and better."""

    def in_unit(self, unit: str) -> Measure | None:
        """Return the cost of 1,000 usable items in a currency or in ``seconds``; None without one."""
        if unit == "seconds":
            return self.seconds_per_1000_usable
        return self.price_per_1000_usable if unit else None


class BreakEven(Part):
    """Number of runs per day at which two hosting options cost the same."""

    a: str
    b: str
    runs_per_day: float | None
    """None if there is no such number or a day does not fit it; `reason` says why."""
    below: str | None
    """The cheaper option with fewer runs per day; None if unknown."""
    above: str | None
    """The cheaper option with more runs per day."""
    reason: str | None = None


class HostedCost(Part):
    """Price of the tokens of one stage at a hosted API; nothing was sent there."""

    stage: str
    """``generate`` or ``grade``."""
    model: str
    """Model that used the tokens."""
    prices: HostedFacts
    prompt_tokens: int | None
    completion_tokens: int | None
    price: float | None
    """In the prices' currency."""
    price_per_1000_usable: float | None
    """Of 1,000 usable items of a candidate; None for the judge."""
    reason: str | None = None
    """Why a price is missing or incomplete."""
    stale_days: int | None = None
    """Age of old prices, in days; None for newer ones."""


class HostingOption(Part):
    """A hosting option: one day costs ``per_day + per_run × runs``."""

    name: str
    currency: str = ""
    per_day: float | None
    """Paid every day, with or without runs; None if unknown."""
    per_run: float | None
    """Paid for each run; None if unknown."""
    most_runs: float | None = None
    """Runs that fit into a day; None without a limit."""
    reason: str | None = None
    """Why the cost is unknown."""


class HostingComparison(Part):
    """Own machines compared with hosted APIs, for the tokens of a run."""

    costs: tuple[HostedCost, ...]
    ways: tuple[HostingOption, ...]
    break_evens: tuple[BreakEven, ...]
    cautions: tuple[str, ...] = ()
    """Old prices and incomplete counts."""


class NodeCost(Part):
    """One machine: a host that served models, and its price in the registry."""

    host: str
    models: tuple[str, ...]
    """In the order of their stages."""
    machine: MachineFacts | None
    """None if the registry names no machine for these models."""
    load_s: float
    """Seconds in which qaeval's own servers started."""
    idle_s: float
    """Seconds in which other machines worked on the run, or its server had no request. A lower bound: a server without metrics
    counts as working throughout its stage."""
    work_s: float
    """Remaining seconds of its stages."""
    price: float | None
    """Of load, idle and work, in the machine's currency; None without a price."""
    stale_days: int | None = None
    """Age of an old price, in days; None for a newer one."""

    @property
    def seconds(self) -> float:
        """Load, idle and work together."""
        return self.load_s + self.idle_s + self.work_s


class RunTiming(Part):
    """Everything that depends on times and belongs to no single candidate."""

    headline: tuple[Sentence, ...] = ()
    """Sentences of the headline about cost."""
    costs: tuple[CandidateCost, ...] = ()
    """In the order of the candidates, without those that have no machine."""
    cost_unit: str = ""
    """Common unit of the candidates' costs: a currency or ``seconds``; empty without one."""
    grading: StageCost | None = None
    """Cost of grading; None if the judge has no machine."""
    nodes: tuple[NodeCost, ...] = ()
    """Time and price of each machine."""
    choice: tuple[Choice, ...] = ()
    """Scores of the candidates for hosting, the best first; they depend on speed."""
    energy_wh: float | None = Field(default=None, exclude_if=_is_none)
    """Energy of all GPUs in all stages, idle energy included, parallel stages once; None if a stage was not measured."""
    hosting: HostingComparison | None = Field(default=None, exclude_if=_is_none)
    """Hosted cost of the same tokens, and break-even; None without hosted prices."""


FORMAT: Final = 1
"""Version of the layout of `CostReport`."""


class Work(Part):
    """Time and price of items at a steady speed."""

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
    """Cost of a person who waits for a run, at the user's hourly rate."""

    seconds: float
    hourly_rate: float
    currency: str
    price: float


class CostReport(Part):
    """The document of ``qaeval cost``."""

    format: int = FORMAT
    source: str
    """The run, or the runs."""
    run_s: float
    """Working time of the run, server starts included; parallel stages count once."""
    nodes: tuple[NodeCost, ...]
    price: float | None
    """Of all machines together; None if one has no price or the currencies differ."""
    currency: str
    """Of `price`; empty without one."""
    reason: str | None
    """Why there is no price."""
    candidates: tuple[CandidateCost, ...]
    unit: str
    """Common unit of the candidates' costs."""
    hosted: tuple[HostedCost, ...]
    ways: tuple[HostingOption, ...]
    break_evens: tuple[BreakEven, ...]
    waiting: Waiting | None = None
    """None without an hourly rate."""
    cautions: tuple[str, ...] = ()
