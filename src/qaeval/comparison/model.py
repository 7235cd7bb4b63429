"""Data of a comparison: differences between candidates, their ranks, the verdict, and the noise of replies and letters."""

from typing import Final, Literal, TypeAlias

from pydantic import Field

from qaeval.report.facts import Part, is_unset
from qaeval.report.measure import Measure
from qaeval.report.numbers import plural
from qaeval.stats.estimate import MIN_CLUSTERS

ALPHA: Final = 0.05
"""Error rate of a family of comparisons."""

Outcome: TypeAlias = Literal[
    "a is better", "b is better", "no difference shown", "not enough data", "too few chunks"
]
"""``no difference shown`` rules out every difference above the margin; ``not enough data`` does not."""


RaterKind: TypeAlias = Literal["human", "model", "mixed"]

EstimateBasis: TypeAlias = Literal["all labelled", "corrected", "labels alone"]
"""What an estimate rests on: labels of everything; labels and the judge's letters; or labels alone, where the judge's
letters do not make it more precise."""


class LabelledDifference(Part):
    """The difference of two candidates by one rater's labels, the judge's error taken off."""

    rater: str
    rater_kind: RaterKind
    n_chunks: int
    """Chunks in which the rater labelled every item of both candidates."""
    basis: EstimateBasis
    difference: Measure
    """Usable rate of `b` minus usable rate of `a`, corrected by the labels."""
    labels: Measure
    """The same from the labelled chunks alone."""
    p: float | None
    """Of the hypothesis that the difference is 0, two-sided; None with too few labelled chunks."""
    p_holm: float | None = None
    """The same, adjusted for the number of pairs (Holm); None unless this rater's labels decide."""
    error: Measure
    """Differential error: the judge's difference minus the labels'; positive where the judge favours `b`."""
    p_error: float | None
    """Exact sign-flip test that the judge favours neither; None where the labels allow no exact test."""
    tuning: float | None
    """Weight of the judge's differences in the estimate, 0 to 1."""
    correlation: float | None = None
    """Between the judge's and the labels' differences on the labelled chunks; None where either does not vary."""
    sd: float | None = None
    """Standard deviation of the labels' difference between chunks; None with one labelled chunk."""
    width_ratio: float | None
    """Width of the interval with the judge's letters over that of the labels alone."""
    p_equivalent: float | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of the deciding rater in a run until decided: as `Difference.p_equivalent`, adjusted for the number of pairs."""
    outcome: Outcome
    n_more_chunks: int | None = None
    """With ``not enough data``: about how many labelled chunks more would decide if the difference stays as it is."""

    @property
    def is_enough(self) -> bool:
        """Whether enough chunks are labelled for an interval."""
        return self.n_chunks >= MIN_CLUSTERS and self.difference.has_interval


class LabelledRate(Part):
    """A rate of one candidate by one rater's labels, the judge's error taken off."""

    candidate: str
    name: str
    """``usable``; ``A or B`` for a letter at least as good as B; or a flag."""
    rater: str
    rater_kind: RaterKind
    n_items: int
    """Labelled items of the candidate."""
    n_chunks: int
    """Chunks with a labelled item of the candidate."""
    basis: EstimateBasis
    rate: Measure
    """Share of the expected items; of a flag, of the items that did not fail."""
    labels: Measure
    """The same from the labelled items alone."""
    judged: float | None
    """The same by the judge's letters or flags."""

    @property
    def is_enough(self) -> bool:
        """Whether enough chunks hold labels for an interval."""
        return self.n_chunks >= MIN_CLUSTERS and self.rate.has_interval


class Difference(Part):
    """Two candidates on the same chunks: usable rate of `b` minus usable rate of `a`, by the judge's letters."""

    a: str
    b: str
    difference: Measure
    p: float
    """Exact sign-flip test over chunks, two-sided; with `at_every_look` a test by betting."""
    p_holm: float
    """The same, adjusted for the number of pairs (Holm)."""
    p_equivalent: float | None = None
    """Two one-sided tests that the true difference is within the margin; None where there is no interval. With
    `at_every_look` adjusted for the number of pairs."""
    at_every_look: bool = Field(default=False, exclude_if=is_unset)
    """Whether intervals and tests of the pair hold at all looks together, as in a run until decided."""
    n_chunks_b_better: int
    n_chunks_equal: int
    n_chunks_a_better: int
    chunks: tuple[tuple[int, ...], ...] = ()
    """Chunks by how many usable items each of the two made of them: `a` in rows, `b` in columns, from 0 up."""
    outcome: Outcome
    n_more_chunks: int | None = None
    """With ``not enough data``: about how many chunks more would decide if the difference stays as it is."""
    labelled: tuple[LabelledDifference, ...] = ()
    """By the labels of each rater; the first one decides if enough chunks are labelled (`deciding`)."""
    sentence: str

    @property
    def deciding(self) -> LabelledDifference | None:
        """The difference by labels that decides; None where the judge's letters do."""
        first = next(iter(self.labelled), None)
        return first if first is not None and first.is_enough else None

    @property
    def effective(self) -> Measure:
        """The difference that decides: by labels where enough chunks are labelled, else by the judge's letters."""
        return self.difference if self.deciding is None else self.deciding.difference

    def effective_outcome(self, margin: float) -> Outcome:
        """Return what the difference that decides shows, for a margin in (0, 1)."""
        first = self.deciding
        if first is None:
            return self.judged_outcome(margin)
        p_holm = 1.0 if first.p_holm is None else first.p_holm
        return outcome_of(first.difference, p_holm, margin=margin, p_equivalent=first.p_equivalent)

    def judged_outcome(self, margin: float) -> Outcome:
        """Return what the judge's letters alone show, for a margin in (0, 1)."""
        p_equivalent = self.p_equivalent if self.at_every_look else None
        return outcome_of(self.difference, self.p_holm, margin=margin, p_equivalent=p_equivalent)


def outcome_of(
    measure: Measure, p_holm: float, *, margin: float, p_equivalent: float | None = None
) -> Outcome:
    """Decide what a difference shows: who is better by the test, that no difference matters by the interval.

    The test of the judge's letters is the exact sign-flip test, whose power a plan promises (`qaeval.stats.planning`).

    Args:
        measure: Difference of the usable rates, `b` minus `a`.
        p_holm: P-value of its test, adjusted for the family.
        margin: Smallest difference that matters, in (0, 1).
        p_equivalent: P-value of the test of equivalence, adjusted for the family, that decides in place of the interval.
    """
    if measure.value is None or measure.low is None or measure.high is None:
        return "too few chunks"
    if p_holm <= ALPHA:
        return "b is better" if measure.value > 0 else "a is better"
    within = max(-measure.low, measure.high) <= margin if p_equivalent is None else p_equivalent <= ALPHA
    return "no difference shown" if within else "not enough data"


def depends_on_ungraded(measure: Measure, outcome: Outcome, shift: float, margin: float) -> bool:
    """Whether a difference by the judge's letters would show something else if the items without a letter were usable.

    They count as not usable, so a candidate whose items the judge failed to grade would lose by the judge's failures. The interval
    grows by the difference of the two shares, as that of a gate does (`qaeval.gate.estimates.with_ungraded_items`).

    Args:
        measure: Difference of the usable rates, `b` minus `a`.
        outcome: What it shows with these items as not usable.
        shift: Share of the items of `b` that have no letter minus that of `a`.
        margin: Smallest difference that matters, in (0, 1).
    """
    if not shift or measure.low is None or measure.high is None:
        return False
    low, high = measure.low + min(0.0, shift), measure.high + max(0.0, shift)
    if outcome == "no difference shown":
        return max(-low, high) > margin
    return (outcome == "b is better" and low <= 0) or (outcome == "a is better" and high >= 0)


class LookPair(Part):
    """What the chunks up to a look show of two candidates."""

    a: str
    b: str
    rater: str = Field(default="", exclude_if=is_unset)
    """The rater whose labels decide; empty where the judge's letters do."""
    difference: Measure
    """Usable rate of `b` minus usable rate of `a`; the interval holds at all looks together."""
    p_holm: float
    """Of the hypothesis that the difference is 0, at every look, adjusted for the number of pairs (Holm)."""
    p_equivalent: float
    """Of the hypothesis that the difference is the margin or more, at every look, adjusted for the number of pairs (Holm)."""
    outcome: Outcome


class Look(Part):
    """A look of a run until decided."""

    n_chunks: int
    pairs: tuple[LookPair, ...]
    leader: str
    """The candidate with the highest mean difference from the others."""
    is_decided: bool
    """Whether the leader is better than each other candidate, or shown to differ from it by less than the margin."""


class StoppingTiming(Part):
    """Machine time of a run until decided; an estimate."""

    seconds_saved: float
    """Work of all servers on the chunks that were not asked for, at the speed of the others, less `reload_s`; below 0 where starting
    servers again took longer than what was saved."""
    reload_s: float
    """Starts of servers that a run in one batch would not have needed."""


class Stopping(Part):
    """How a run until decided ended."""

    n_chunks: int
    """Chunks that were asked for: the first in random order."""
    n_chunks_planned: int
    n_items: int
    """Items of all candidates in these chunks."""
    n_items_planned: int
    margin: float
    """Smallest difference that matters, fixed before the first look."""
    is_decided: bool
    """Whether the first place was decided; otherwise all chunks were asked for."""
    looks: tuple[Look, ...]
    timing: StoppingTiming


class SampleWeights(Part):
    """How differently the samples of a run weigh."""

    n_samples: int
    n_effective: float
    """Samples of equal weight that would tell as much about the documents (Kish)."""
    smallest: float
    """Smallest probability with which a sample was drawn, above 0."""
    largest: float

    @property
    def sentence(self) -> str:
        """Say that estimates are weighted."""
        return weighted_sentence(self.n_samples, self.n_effective)


def weighted_sentence(n_samples: int, n_effective: float) -> str:
    """Say that estimates weigh samples by the probability with which they were drawn, and what that costs."""
    return (
        "Weighted by inclusion probability: estimates are for the documents, not the sample. The "
        f"{plural(n_samples, 'sample')} tell as much about the documents as {n_effective:,.0f} drawn with equal probabilities."
    )


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
    "ungraded",
    "level",
    "better",
    "no_difference",
    "labelled",
    "few_labels",
    "not_labelled",
    "judge_differs",
    "raters_differ",
]
"""
=========================  ===========================================================================one_candidate              the run has one candidate
nothing_graded             no item has a letter; most failed for the reason `failure`
nothing_usable             no candidate wrote a usable item
judge_refuted              by the labels of `raters`, the judge does not beat chance or the commonest letter
judge_tells_nothing_apart  by planted controls, or by one letter for nearly all items: `Report.controls`
embedded_only              every candidate is embedded: none of them can be hosted
too_few_chunks             there is no interval of the difference between the leader and `candidates`
not_enough_data            more chunks are needed to tell the leader from `candidates`
ungraded                   the interval does not decide about `candidates` if items without a letter are usable
level                      the leader and the first of `candidates` have the same usable rate
better                     the leader is better than `candidates`
no_difference              a difference that matters between the leader and `candidates` is ruled out
labelled                   labels of `raters` in enough chunks decide about `candidates`
few_labels                 labels of `raters` decide about `candidates`, in too few chunks to lift the condition
not_labelled               the judge's letters decide about `candidates`: fewer than 10 chunks are labelled
judge_differs              by the judge's letters alone, the comparison with `candidates` would end differently
raters_differ              by the labels of `raters`, the comparison with `candidates` would end differently
=========================  ==========================================================================="""


class Reason(Part):
    """What a verdict follows from."""

    code: str
    """A `ReasonCode`; a later version of qaeval may write others."""
    candidates: tuple[str, ...] = ()
    raters: tuple[str, ...] = ()
    n_chunks: int | None = None
    """Labelled chunks; where pairs differ, the fewest."""
    n_more_chunks: int | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of ``not_enough_data``: about how many more chunks, labelled ones if labels decide, tell the leader from all of `candidates`;
    None where that is not known."""
    failure: str = Field(default="", exclude_if=is_unset)
    """The most frequent `qaeval.records.FailureReason`, where nothing was graded."""
    detail: str = Field(default="", exclude_if=is_unset)
    """Of ``judge_refuted``: what the labels of each rater show, in words without a full stop; empty in reports of earlier versions."""


class Verdict(Part):
    """Which candidate to use, on what condition and why."""

    kind: VerdictKind
    candidate: str | None = None
    """The candidate to use; None unless `kind` is ``use``."""
    candidates: tuple[str, ...] = ()
    """The candidates that are equal, the highest usable rate first; empty unless `kind` is ``equal``."""
    leader: str | None = None
    """The candidate with the highest usable rate, corrected by labels where they decide, whether or not a difference is shown."""
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
