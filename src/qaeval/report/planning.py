"""Plans as data: the document of ``qaeval plan``."""

from typing import Final

from qaeval.report.facts import Part

FORMAT: Final = 1
"""Version of the layout of `PlanReport`."""


class Spread(Part):
    """How the usable items of one candidate spread over the chunks."""

    candidate: str
    usable: float
    icc: float | None
    """Correlation of two items of a chunk; None where it does not exist."""
    design_effect: float | None
    """How many times more items are needed than if they were independent."""


class PairPlan(Part):
    """What a comparison of two candidates can see."""

    a: str
    b: str
    n_chunks: int
    sd: float
    """Standard deviation of the paired difference between chunks."""
    detectable: float | None
    """Smallest true difference found with the power asked for; None where none is."""
    needed: int | None
    """Chunks that find the difference asked for with that power; None where even a million do not."""
    power: float
    """Probability that `n_chunks` find the difference asked for."""
    sentence: str


class PlanReport(Part):
    """What ``qaeval plan`` found."""

    format: int = FORMAT
    source: str
    """Run directory, or what was assumed."""
    difference: float
    wanted_power: float
    alpha: float
    items_per_chunk: int
    spreads: tuple[Spread, ...]
    pairs: tuple[PairPlan, ...]
