"""The ways to have runs done, and what each costs, as data."""

from qaeval.report.facts import HostedFacts, Part


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


class Hosting(Part):
    """A run's tokens at other people's prices, beside machines of one's own."""

    costs: tuple[HostedCost, ...]
    ways: tuple[Way, ...]
    break_evens: tuple[BreakEven, ...]
    cautions: tuple[str, ...] = ()
    """Prices that are old, counts that are not whole."""
