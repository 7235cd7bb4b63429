"""Data of summaries: candidates, judge, failures and timing of a run."""

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import Field

from qaeval.records import FailureReason
from qaeval.report.facts import ModelFacts, Part, is_unset
from qaeval.report.measure import Measure


class Sentence(Part):
    """A sentence of the headline."""

    kind: Literal["verdict", "finding", "caution", "note"]
    text: str


class Count(Part):
    """A count of items, and their share with an interval clustered by chunk."""

    name: str
    n: int
    share: Measure


class AnswerLength(Part):
    """Lengths of answers in words; None without answers."""

    n: int
    mean: float | None
    median: float | None
    p95: float | None
    share_over_60: float | None
    histogram: tuple[int, ...] = ()
    """Number of answers with 0 to 9 words, 10 to 19 and so on; the last bin holds all longer ones."""


class Tokens(Part):
    """Tokens counted by the server, failed replies included; None if the model counts none."""

    n_replies: int
    """Replies with a token count."""
    prompt: int | None
    completion: int | None


class ServerSpan(Part):
    """Metrics of a server over a stage; None for a metric that the server lacks."""

    n_readings: int
    ttft_s: float | None
    """Mean time to the first token."""
    ttft_p50_s: float | None = None
    """Percentiles are interpolated linearly within the buckets of the server's histograms, and capped at the client's exact ones; None
    above the last bound."""
    ttft_p95_s: float | None = None
    inter_token_s: float | None
    """Mean time between two tokens, pooled over requests (ITL)."""
    inter_token_p50_s: float | None = None
    inter_token_p95_s: float | None = None
    tpot_s: float | None = None
    """Mean time per output token after the first, averaged over requests (TPOT)."""
    tpot_p50_s: float | None = None
    tpot_p95_s: float | None = None
    e2e_s: float | None = None
    """Mean time of a request in the server (E2E)."""
    e2e_p50_s: float | None = None
    e2e_p95_s: float | None = None
    requests_per_s: float | None = None
    """Finished requests per second between the first and the last reading."""
    tokens_per_s: float | None = None
    """Output tokens per second between the first and the last reading."""
    queue_s: float | None
    """Mean time of a request in the queue."""
    running_max: float | None
    """Maximum number of running requests in a reading."""
    waiting_max: float | None
    kv_cache_max: float | None
    """Maximum share of the KV cache in use in a reading, 0 to 1."""
    preemptions: float | None
    prefix_hit_rate: float | None
    """Share of prompt tokens found in the prefix cache, 0 to 1."""
    missing: tuple[str, ...] = ()
    """Metrics that the server lacks."""


class Timing(Part):
    """Everything that may differ between two equal runs: times and cache hits."""

    wall_s: float | None = None
    """Wall seconds of the stage, all sessions together."""
    load_s: float | None = None
    """Start-up seconds of the servers that qaeval started; None if it started none."""
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    items_per_s: float | None = None
    """Finished items per wall second, without items from the cache of replies."""
    cached_prompt_tokens: int | None = None
    alongside: bool = False
    """Whether generation and grading ran at the same time."""
    fresh: float = 1.0
    """Share of replies that were requested; the others come from the cache of replies and take no time."""
    server: ServerSpan | None = None
    """Metrics of the server; None if it has none."""


NOT_NAMED: Final = "not named"
"""Name of the count of items below the best letter without a flaw."""


class CandidateSummary(Part):
    """Quality, reliability and speed of a candidate."""

    facts: ModelFacts
    n_expected: int
    n_valid: int
    """Items of valid generations."""
    n_graded: int
    n_duplicate_questions: int
    """Items whose question is identical to an earlier one of the candidate."""
    n_near_questions: int | None = None
    """Items whose question has nearly the words of an earlier one, identical ones included; None if there are
    too many to compare, or if the questions were given."""
    usable: Measure
    """Primary rate: items with the best letter, of all expected items. Failed and ungraded items are not usable."""
    usable_if_ungraded_were: float
    """The same rate if every ungraded item had the best letter."""
    usable_of_graded: Measure
    """Conditional rate: items with the best letter, of the graded items."""
    letters: tuple[Count, ...]
    """Counts of each letter, of all expected items."""
    failed: Count
    """Items without a valid generation, of all expected items."""
    ungraded: Count
    """Items without a letter, of all expected items."""
    failed_by_reason: Mapping[FailureReason, int]
    ungraded_by_reason: Mapping[FailureReason, int]
    flags: tuple[Count, ...]
    """Counts of each flag, of the graded items."""
    flaws: tuple[Count, ...] = Field(default=(), exclude_if=is_unset)
    """Counts of each flaw that the judge named, of the graded items, then of those below the best letter without one
    (`NOT_NAMED`); empty where the judge is not asked for flaws."""
    n_best_flagged: int = 0
    """Items with the best letter and a flag, which contradict each other."""
    question_types: Mapping[str, int]
    answer_words: AnswerLength
    tokens: Tokens
    timing: Timing


class JudgeSummary(Part):
    """The judge and its grading."""

    facts: ModelFacts
    tuned: bool
    """Whether the judge was tuned on this eval's labels."""
    n_asked: int
    """Distinct items to grade."""
    n_graded: int
    tokens: Tokens
    timing: Timing


class StratumRate(Part):
    """Usable rate of a candidate in a stratum."""

    candidate: str
    n_usable: int
    n_expected: int
    n_failed: int | None = None
    """Expected items that failed or got no letter; None in reports of versions that did not count them."""
    usable: Measure


class StratumSummary(Part):
    """Usable rates of all candidates in a stratum."""

    stratum: str
    n_chunks: int
    rates: tuple[StratumRate, ...]


class EscapedText(Part):
    """Text in the prompts of a model that was broken, since the model could take it for control."""

    stage: Literal["generate", "grade"]
    model: str
    n_requests: int
    """Requests with such text, those without a reply included."""
    n_special_tokens: int
    """Special tokens of chat templates and of the model's tokenizer; harmless text of the same form included."""
    n_marks: int
    """Marks and tags of the judge's fence, which a text has only if it is written against the judge."""


class FailureExample(Part):
    """A failure."""

    sample_id: str
    chunk_id: str
    item_id: str | None
    detail: str
    text: str
    """The first 300 characters of the raw reply."""


class FailureGroup(Part):
    """Failures of a candidate in a stage, for the same reason."""

    candidate: str
    stage: Literal["generate", "grade"]
    reason: FailureReason
    meaning: str
    n_items: int
    examples: tuple[FailureExample, ...]
