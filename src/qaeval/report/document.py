"""``report.json``: what a run showed, as data. A gate reads it; markdown, HTML and terminal are views of it.

Two runs of the same deterministic models give the same document, apart from `run` and the objects named
`timing`. A number that does not exist is ``null`` with a reason, never NaN and never 0. Rates and differences
of rates are shares (0.05 is 5 %, or 5 points).
"""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from pydantic import Field

from qaeval.records import FailureReason
from qaeval.report.facts import EvalFacts, ModelFacts, Part, RubricFacts, RunFacts
from qaeval.report.measure import Measure

FORMAT: Final = 1
"""Version of the document's layout."""


class Sentence(Part):
    """One sentence of the headline."""

    kind: Literal["finding", "caution", "note"]
    text: str


class Count(Part):
    """How often something occurred, and its share with an interval over chunks."""

    name: str
    n: int
    share: Measure


class AnswerLength(Part):
    """Words of the answers; None when there is no answer."""

    n: int
    mean: float | None
    median: float | None
    p95: float | None
    share_over_60: float | None


class Tokens(Part):
    """Tokens as the server counted them, failed replies included; None when the model counts none."""

    n_replies: int
    """Replies that came with a count."""
    prompt: int | None
    completion: int | None


class Timing(Part):
    """What may differ between two equal runs: times, and what the server's cache happened to hold."""

    wall_s: float | None = None
    """Wall seconds of the stage, all sessions together."""
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    items_per_s: float | None = None
    """Finished items per wall second."""
    cached_prompt_tokens: int | None = None


class CandidateSummary(Part):
    """One candidate: how good, how reliable, how fast."""

    facts: ModelFacts
    n_expected: int
    n_valid: int
    """Items that came out of a generation."""
    n_graded: int
    n_duplicate_questions: int
    """Items whose question repeats, letter by letter, one that the candidate asked before."""
    usable: Measure
    """Primary: items with the best letter, of the expected ones. What failed or has no letter is not usable."""
    usable_if_ungraded_were: float
    """The same rate if every item without a letter had the best one."""
    usable_of_graded: Measure
    """Conditional: items with the best letter, of the graded ones."""
    letters: tuple[Count, ...]
    """Each letter of the scale, of the expected items."""
    failed: Count
    """Items that no valid generation brought, of the expected ones."""
    ungraded: Count
    """Items that the judge gave no letter, of the expected ones."""
    failed_by_reason: Mapping[FailureReason, int]
    ungraded_by_reason: Mapping[FailureReason, int]
    flags: tuple[Count, ...]
    """Each flag of the rubric, of the graded items."""
    question_types: Mapping[str, int]
    answer_words: AnswerLength
    tokens: Tokens
    timing: Timing


class JudgeSummary(Part):
    """Who graded."""

    facts: ModelFacts
    tuned: bool
    """Whether the judge was tuned on this eval's labels."""
    n_asked: int
    """Different items that were to be graded."""
    n_graded: int
    tokens: Tokens
    timing: Timing


class StratumRate(Part):
    """Usable rate of one candidate in one stratum."""

    candidate: str
    n_usable: int
    n_expected: int
    usable: Measure


class StratumSummary(Part):
    """One stratum of the sample set."""

    stratum: str
    n_chunks: int
    rates: tuple[StratumRate, ...]


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
    n_chunks_b_better: int
    n_chunks_equal: int
    n_chunks_a_better: int
    outcome: Outcome
    n_more_chunks: int | None = None
    """With ``not enough data``: about how many chunks more would decide if the difference stays as it is."""
    sentence: str


class LetterAgreement(Part):
    """How well the judge finds one letter of the rater."""

    letter: str
    recall: Measure
    """Of the items to which the rater gave the letter, the share to which the judge gave it too."""
    precision: Measure
    """Of the items to which the judge gave the letter, the share to which the rater gave it too."""


class FlagAgreement(Part):
    """One flag, raised by rater and judge."""

    flag: str
    n_both: int
    n_rater_only: int
    n_judge_only: int
    n_neither: int
    recall: Measure
    precision: Measure


class LabelledCandidate(Part):
    """Best letters on the labelled items of one candidate: does the judge favour somebody?"""

    candidate: str
    n: int
    n_best_by_rater: int
    n_best_by_judge: int


class Coefficients(Part):
    """Agreement of two raters on items that both graded."""

    n: int
    n_chunks: int
    confusion: tuple[tuple[int, ...], ...]
    """Counts; the reference in rows, the other in columns, in the order of the scale."""
    observed: Measure
    kappa: Measure
    kappa_linear: Measure
    kappa_max: float | None
    """Largest unweighted kappa that the two raters' own rates of letters allow."""


Standing: TypeAlias = Literal["no labels joined", "too few chunks", "chance", "majority", "beats both"]
"""What the labels show of the judge; ``majority`` means that it is not shown to beat the commonest letter."""


class RaterAgreement(Part):
    """The judge against one rater."""

    rater: str
    rater_kind: Literal["human", "model", "mixed"]
    n_labels: int
    n_tuning_excluded: int
    """Labels that the judge was tuned on."""
    n_ungraded: int
    """Labels of items of this run that have no letter."""
    n_not_in_run: int
    """Labels of items that this run does not hold."""
    standing: Standing
    sentences: tuple[str, ...]
    """In plain words, the most important first."""
    coefficients: Coefficients | None
    """None when no label joined."""
    majority_letter: str = ""
    majority_baseline: float | None = None
    """Agreement of a judge that always gives the rater's commonest letter."""
    leniency: Measure | None = None
    """Share of items with a better letter than the rater's minus share with a worse one."""
    letters: tuple[LetterAgreement, ...] = ()
    flags: tuple[FlagAgreement, ...] = ()
    candidates: tuple[LabelledCandidate, ...] = ()


class RaterPair(Part):
    """Two raters on the items that both labelled: the ceiling for any judge."""

    a: str
    b: str
    sentence: str
    coefficients: Coefficients


class FailureExample(Part):
    """One failure, as it came."""

    sample_id: str
    chunk_id: str
    item_id: str | None
    detail: str
    text: str
    """The first 300 characters of the raw reply."""


class FailureGroup(Part):
    """Failures of one kind that cost one candidate items."""

    candidate: str
    stage: Literal["generate", "grade"]
    reason: FailureReason
    meaning: str
    n_items: int
    examples: tuple[FailureExample, ...]


class Report(Part):
    """What a run showed."""

    format: int = FORMAT
    run: RunFacts
    headline: tuple[Sentence, ...]
    eval: EvalFacts
    rubric: RubricFacts
    judge: JudgeSummary
    candidates: tuple[CandidateSummary, ...] = Field(min_length=1)
    margin: float
    """Smallest difference of usable rates that matters, as a share; it decides what is enough data."""
    differences: tuple[Difference, ...]
    agreement: tuple[RaterAgreement, ...]
    raters: tuple[RaterPair, ...]
    strata: tuple[StratumSummary, ...]
    failures: tuple[FailureGroup, ...]
    data_left: tuple[str, ...] = ()
    """Hosts outside the user's network that were sent chunks; empty when nothing left."""
