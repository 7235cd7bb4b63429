"""The candidates of a run, its judge, failures and timing, summarised as data."""

from collections.abc import Mapping
from typing import Literal

from qaeval.records import FailureReason
from qaeval.report.facts import ModelFacts, Part
from qaeval.report.measure import Measure


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
