"""Costs as data: the document of ``qaeval cost``. What is undefined is ``null`` with a reason, never 0."""

from typing import Final

from qaeval.report.cost import CandidateCost
from qaeval.report.facts import Part
from qaeval.report.nodes import NodeCost
from qaeval.report.ways import BreakEven, HostedCost, Way

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
    ways: tuple[Way, ...]
    break_evens: tuple[BreakEven, ...]
    waiting: Waiting | None = None
    """None where the user gave no hourly rate."""
    cautions: tuple[str, ...] = ()
