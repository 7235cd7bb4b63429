"""Data of a comparison: the differences between candidates, their ranks and the verdict."""

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


def outcome_of(measure: Measure, p_holm: float, *, n_pairs: int, margin: float) -> Outcome:
    """Decide what a difference shows: the interval excludes 0 and, in a family of pairs, the adjusted test agrees.

    Args:
        measure: Difference of the usable rates, `b` minus `a`.
        p_holm: P-value of the sign-flip test, adjusted for the family.
        n_pairs: Pairs in the family.
        margin: Smallest difference that matters, in (0, 1).
    """
    if measure.low is None or measure.high is None:
        return "too few chunks"
    excludes_zero = measure.low > 0 or measure.high < 0
    # one pair needs no correction, so its interval alone decides
    if excludes_zero and (n_pairs == 1 or p_holm <= ALPHA):
        return "b is better" if measure.low > 0 else "a is better"
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


VerdictKind: TypeAlias = Literal["use", "equal", "undecided", "none"]
"""``use``: one candidate is better than every other. ``equal``: several show no difference that matters.
``undecided``: the data do not decide. ``none``: there is nothing to compare, or nothing to compare it by."""

Condition: TypeAlias = Literal["shown", "if_judge_right"]
"""``shown``: labels of enough chunks show it. ``if_judge_right``: it rests on the judge's letters."""

ReasonCode: TypeAlias = Literal[
    "one_candidate",
    "nothing_graded",
    "nothing_usable",
    "judge_refuted",
    "judge_tells_nothing_apart",
    "embedded_only",
    "too_few_chunks",
    "not_enough_data",
    "level",
    "better",
    "no_difference",
    "not_labelled",
]
"""
=========================  ============================================================================
one_candidate              the run has one candidate
nothing_graded             no item has a letter
nothing_usable             no candidate wrote a usable item
judge_refuted              by the labels of `raters`, the judge does not beat chance or the commonest letter
judge_tells_nothing_apart  by planted controls, or by one letter for nearly all items: `Report.controls`
embedded_only              every candidate is embedded: none of them can be hosted
too_few_chunks             there is no interval of the difference between the leader and `candidates`
not_enough_data            more chunks are needed to tell the leader from `candidates`
level                      the leader and the first of `candidates` have the same usable rate
better                     the leader is better than `candidates`
no_difference              a difference that matters between the leader and `candidates` is ruled out
not_labelled               the verdict rests on the judge's letters alone
=========================  ============================================================================
"""


class Reason(Part):
    """What a verdict follows from."""

    code: str
    """A `ReasonCode`; a later version of qaeval may write others."""
    candidates: tuple[str, ...] = ()
    raters: tuple[str, ...] = ()


class Verdict(Part):
    """Which candidate to use, on what condition and why."""

    kind: VerdictKind
    candidate: str | None = None
    """The candidate to use; None unless `kind` is ``use``."""
    candidates: tuple[str, ...] = ()
    """The candidates that are equal, the highest usable rate first; empty unless `kind` is ``equal``."""
    leader: str | None = None
    """The candidate with the highest usable rate, whether or not a difference is shown."""
    condition: Condition | None = None
    """None unless `kind` is ``use`` or ``equal``."""
    reasons: tuple[Reason, ...] = ()
    """What decided first."""

    def reason(self, code: ReasonCode) -> Reason | None:
        """Return the reason with a code; None if the verdict does not have it."""
        return next((reason for reason in self.reasons if reason.code == code), None)

    @property
    def trusts_judge(self) -> bool:
        """Whether the judge's letters may decide at all: labels or controls that refute it leave no quality to choose by."""
        return self.reason("judge_refuted") is None and self.reason("judge_tells_nothing_apart") is None
