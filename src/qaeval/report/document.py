"""``report.json``: what a run showed, as data. A gate reads it; markdown, HTML and terminal are views of it.

Two runs of the same deterministic models give the same document, apart from `run` and the objects named
`timing`. A number that does not exist is ``null`` with a reason, never NaN and never 0. Rates and differences
of rates are shares (0.05 is 5 %, or 5 points).
"""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from pydantic import Field

from qaeval.records import FailureReason
from qaeval.report.agreement import RaterAgreement, RaterPair
from qaeval.report.cost import CandidateCost, StageCost
from qaeval.report.facts import CheckFacts, EvalFacts, ModelFacts, Part, RubricFacts, RunFacts
from qaeval.report.measure import Measure
from qaeval.report.nodes import NodeCost
from qaeval.report.ways import Hosting

FORMAT: Final = 1
"""Version of the document's layout."""


def _is_none(value: object) -> bool:
    return value is None


class Sentence(Part):
    """One sentence of the headline."""

    kind: Literal["verdict", "finding", "caution", "note"]
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
    histogram: tuple[int, ...] = ()
    """Answers of 0 to 9 words, of 10 to 19, and so on; the last one holds all longer ones."""


class Tokens(Part):
    """Tokens as the server counted them, failed replies included; None when the model counts none."""

    n_replies: int
    """Replies that came with a count."""
    prompt: int | None
    completion: int | None


class ServerSpan(Part):
    """What a server said of itself over a stage; None where it does not say."""

    n_readings: int
    ttft_s: float | None
    """Mean time to the first token."""
    ttft_p50_s: float | None = None
    """Percentiles are read off the server's histograms, straight inside a bucket; None above the last bound."""
    ttft_p95_s: float | None = None
    inter_token_s: float | None
    """Mean time between two tokens, the gaps of all requests pooled (ITL)."""
    inter_token_p50_s: float | None = None
    inter_token_p95_s: float | None = None
    tpot_s: float | None = None
    """Mean over requests of the time per output token after the first (TPOT)."""
    tpot_p50_s: float | None = None
    tpot_p95_s: float | None = None
    e2e_s: float | None = None
    """Mean time of a whole request in the server (E2E)."""
    e2e_p50_s: float | None = None
    e2e_p95_s: float | None = None
    requests_per_s: float | None = None
    """Finished requests per second between the first and the last reading."""
    tokens_per_s: float | None = None
    """Output tokens per second between them."""
    queue_s: float | None
    """Mean time that a request waited."""
    running_max: float | None
    """Most requests at work at a reading."""
    waiting_max: float | None
    kv_cache_max: float | None
    """Largest share of the KV cache in use at a reading."""
    preemptions: float | None
    prefix_hit_rate: float | None
    """Share of prompt tokens that the prefix cache held."""
    missing: tuple[str, ...] = ()
    """Metrics that were looked for and that the server does not have."""


class Timing(Part):
    """What may differ between two equal runs: times, and what the server's cache happened to hold."""

    wall_s: float | None = None
    """Wall seconds of the stage, all sessions together."""
    load_s: float | None = None
    """Seconds that servers of qaeval's own took to start for it; None where none was started."""
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    items_per_s: float | None = None
    """Finished items per wall second, of those that were asked for."""
    cached_prompt_tokens: int | None = None
    alongside: bool = False
    """Whether generation and grading ran at the same time."""
    fresh: float = 1.0
    """Share of the replies that were asked for; the others were known from earlier runs, and no time is theirs."""
    server: ServerSpan | None = None
    """What the server's own metrics say; None where it has none."""


class CandidateSummary(Part):
    """One candidate: how good, how reliable, how fast."""

    facts: ModelFacts
    n_expected: int
    n_valid: int
    """Items that came out of a generation."""
    n_graded: int
    n_duplicate_questions: int
    """Items whose question repeats, letter by letter, one that the candidate asked before."""
    n_near_questions: int | None = None
    """Items whose question has nearly the words of an earlier one, the repeated ones among them; None
    where there are too many, and where the candidates were given their questions."""
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
    n_best_flagged: int = 0
    """Items with the best letter on which the judge raised a flag all the same."""
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


class Criterion(Part):
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
    criteria: tuple[Criterion, ...]
    mean: float
    """Weighted mean of the scores that count."""


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
    hosting: Hosting | None = Field(default=None, exclude_if=_is_none)
    """The same tokens elsewhere, and how many runs a day make which way the cheapest; None where no offer has a price."""


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


class CheckRate(Part):
    """How often a check found something in one candidate's items."""

    candidate: str
    n_checked: int
    n_found: int
    share: Measure
    """Of the items that were checked."""


class CheckExample(Part):
    """One finding of a check."""

    candidate: str
    chunk_id: str
    item_id: str
    finding: str
    question: str
    """The first 200 characters."""
    answer: str
    """The first 200 characters."""


class CheckGroup(Part):
    """What one check found."""

    check: CheckFacts
    rates: tuple[CheckRate, ...]
    """In the order of the candidates."""
    examples: tuple[CheckExample, ...]


class Selection(Part):
    """What one candidate's preference pairs are like."""

    candidate: str
    prompt_words: float | None
    """Mean; None where there is no pair."""
    chosen_words: float | None
    rejected_words: float | None
    n_without_findings: int
    """Pairs in which no check found anything."""
    n_personas: int
    """Personas with a valid pair."""
    n_personas_expected: int
    scenarios: Mapping[str, int]
    """Valid pairs by type of scenario."""
    scenarios_expected: Mapping[str, int]


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
    ranking: tuple[Rank, ...] = ()
    """The strongest first; of three candidates or more."""
    agreement: tuple[RaterAgreement, ...]
    raters: tuple[RaterPair, ...]
    strata: tuple[StratumSummary, ...]
    types: tuple[StratumSummary, ...] = ()
    """By type: that a candidate gave its question, of the items that there are; of the sample where it has one, failures included."""
    failures: tuple[FailureGroup, ...]
    checks: tuple[CheckGroup, ...] = ()
    """In the order of the eval's checks."""
    selection: tuple[Selection, ...] = ()
    """Of preference pairs."""
    timing: RunTiming = RunTiming()
    data_left: tuple[str, ...] = ()
    """Hosts outside the user's network that were sent chunks; empty when nothing left."""
