"""Differences between candidates, their ranks, and the noise of replies and letters, as data."""

from typing import Final, Literal, TypeAlias

from qaeval.report.facts import Part
from qaeval.report.measure import Measure

ALPHA: Final = 0.05
"""Error rate of a family of comparisons."""

Outcome: TypeAlias = Literal[
    "a is better", "b is better", "no difference shown", "not enough data", "too few chunks"
]
"""``no difference shown`` rules out every difference above the margin; ``not enough data`` does not."""


class Difference(Part):
    """Two candidates on the same chunks: usable rate of `b` minus usable rate of `a`."""

    a: str
    b: str
    difference: Measure
    p: float
    """Exact sign-flip test over chunks, two-sided."""
    p_holm: float
    """The same, adjusted for the number of pairs (Holm)."""
    p_equivalent: float | None = None
    """Two one-sided tests that the true difference is within the margin; None where there is no interval."""
    n_chunks_b_better: int
    n_chunks_equal: int
    n_chunks_a_better: int
    chunks: tuple[tuple[int, ...], ...] = ()
    """Chunks by how many usable items each of the two made of them: `a` in rows, `b` in columns, from 0 up."""
    outcome: Outcome
    n_more_chunks: int | None = None
    """With ``not enough data``: about how many chunks more would decide if the difference stays as it is."""
    sentence: str


def outcome_of(measure: Measure, p_holm: float, *, margin: float) -> Outcome:
    """Decide what a difference shows: who is better by the test, that no difference matters by the interval.

    The test is the exact sign-flip test, whose power a plan promises (`qaeval.stats.planning`).

    Args:
        measure: Difference of the usable rates, `b` minus `a`.
        p_holm: P-value of the sign-flip test, adjusted for the family.
        margin: Smallest difference that matters, in (0, 1).
    """
    if measure.value is None or measure.low is None or measure.high is None:
        return "too few chunks"
    if p_holm <= ALPHA:
        return "b is better" if measure.value > 0 else "a is better"
    return "no difference shown" if max(-measure.low, measure.high) <= margin else "not enough data"


class Rank(Part):
    """One candidate's place among all, by Bradley-Terry strengths from wins and losses in each chunk."""

    candidate: str
    rank: int | None
    """1 for the strongest; None where strengths do not exist."""
    rank_low: int | None
    """Best place inside the interval."""
    rank_high: int | None
    strength: Measure
    """Logarithm; the mean of all candidates is 0."""


NoiseSource: TypeAlias = Literal["chunk", "item", "reply", "judge"]


class NoiseComponent(Part):
    """One source of the spread of letters."""

    source: NoiseSource
    variance: Measure
    """Of a letter that is usable (1) or not (0); without value where the source has no repeats, and then part of the one before."""
    share: Measure
    """Of the total variance."""


class CandidateNoise(Part):
    """Where the spread of one candidate's letters comes from."""

    candidate: str
    n_letters: int
    """Letters and failed replies that entered."""
    n_missing: int
    """Items without a letter, in the run or in a repeat, that could not enter."""
    n_replies: int
    """Largest number of replies to a sample, that of the run included."""
    total: Measure
    """Variance of a single letter of a random chunk."""
    components: tuple[NoiseComponent, ...]
    """Chunk, item, reply, judge."""
    without_judge_noise: float | None
    """Width of the usable rate's interval if every item had endlessly many letters, relative to the width now; None where the
    judge's noise is unknown."""


class JudgeNoise(Part):
    """How far the judge agrees with itself about the items of the run."""

    n_items: int
    """With two letters or more."""
    n_letters: int
    """Largest number of letters for an item."""
    self_agreement: Measure
    """Probability that two letters for an item are the same."""
    flips: Measure
    """Probability that one is the best and the other the worst."""
    alpha: Measure
    """Krippendorff's alpha, nominal."""


class Noise(Part):
    """What the repeats of a run show."""

    candidates: tuple[CandidateNoise, ...]
    judge: JudgeNoise | None
    """None where no item has a second letter."""
    at_temperature_0: tuple[str, ...] = ()
    """Models with repeats whose replies show the noise of their servers alone."""
