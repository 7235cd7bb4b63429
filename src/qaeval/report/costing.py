"""Costs as data: the document of ``qaeval cost``. What is undefined is ``null`` with a reason, never 0."""

from typing import Final

from qaeval.report.document import CandidateCost
from qaeval.report.facts import HostedFacts, Part
from qaeval.report.nodes import NodeCost

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


class Way(Part):
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
    ways: tuple[Way, ...]
    break_evens: tuple[BreakEven, ...]
    waiting: Waiting | None = None
    """None where the user gave no hourly rate."""
    cautions: tuple[str, ...] = ()
