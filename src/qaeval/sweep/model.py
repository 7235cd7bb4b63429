"""``sweep.json``: how fast one server answers with more and more requests in flight, as data. Times are in seconds."""

from collections.abc import Mapping
from typing import Final

from pydantic import Field

from qaeval.analysis.model import ServerSpan
from qaeval.cost.model import Work
from qaeval.records import FailureReason
from qaeval.report.facts import MachineFacts, ModelFacts, Part
from qaeval.report.measure import Measure

FORMAT: Final = 1
"""Version of the layout of `Sweep`."""


class Spread(Part):
    """Times of all requests of a level that brought a reply; None where there are none."""

    n: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class RepeatSummary(Part):
    """One closed loop at one level, over its steady window."""

    concurrency: int
    repeat: int
    n_requests: int
    """Those that count: without the ones that filled the server."""
    n_failed: int
    window_s: float
    """From the start of the first request that counts to the first end after the last start: as long, all are in flight."""
    requests_per_s: float
    """Replies; one of which a part came in the window counts in part."""
    tokens_per_s: float
    """Output tokens, counted alike."""
    items_per_s: float
    e2e_mean_s: float | None


class Level(Part):
    """All repeats with one number of requests in flight."""

    concurrency: int = Field(ge=1)
    repeats: tuple[RepeatSummary, ...] = Field(min_length=1)
    n_requests: int
    n_failed: int
    failed_by_reason: Mapping[FailureReason, int]
    n_cut: int
    """Replies that ended at max_tokens."""
    n_items: int
    requests_per_s: Measure
    tokens_per_s: Measure
    items_per_s: Measure
    ttft: Spread
    """Time to the first token."""
    tpot: Spread
    """Time per output token, ``(E2E - TTFT) / (n - 1)``, of each request."""
    itl: Spread
    """Gaps between chunks, those of all requests pooled."""
    e2e: Spread
    """From sending to the last token."""
    little: float | None
    """Requests per second × mean E2E: by Little's law the requests in flight."""
    server: ServerSpan | None = None
    """What the server's own metrics say; None where it has none."""

    @property
    def failed_share(self) -> float:
        """Share of the requests that failed."""
        return self.n_failed / self.n_requests

    @property
    def preemptions(self) -> float | None:
        """How often the server threw a running request out; None where it does not say."""
        return None if self.server is None else self.server.preemptions


class KneeShare(Part):
    """How often a level was the knee when the throughputs were drawn anew within their intervals."""

    concurrency: int
    share: float


class Knee(Part):
    """The smallest number of requests in flight that brings 95 % of the best throughput without errors or preemptions."""

    concurrency: int | None
    """By the mean throughputs; None where no level qualifies."""
    is_found: bool
    """Whether it is the knee: a higher level was tried, and gave no more or did not qualify."""
    best: int | None
    """The level with the best throughput of those that qualify."""
    share_of_best: float | None
    """Throughput at the knee, of the best."""
    least: int | None = None
    """With fewer in flight 95 % of the best cannot be reached: n at once are at most n times as fast as one alone."""
    excluded: Mapping[int, str] = Field(default_factory=dict)
    """Levels that do not qualify, and why."""
    possible: tuple[KneeShare, ...] = ()
    """Levels that may be the knee, given how the repeats differ; empty without an interval."""
    reason: str | None = None
    """Why it is not found."""


class LevelCost(Part):
    """What 1,000 items cost at one level."""

    concurrency: int
    work: Work


class Sweep(Part):
    """What ``qaeval sweep`` found."""

    format: int = FORMAT
    id: str
    """Name of the directory."""
    started: str
    """UTC, ISO 8601."""
    finished: str
    qaeval_version: str
    git_commit: str = ""
    command: str = ""
    model: ModelFacts
    stage: str
    """``generate`` or ``grade``: whose prompts these are."""
    source: str
    """The eval, or the run whose items are graded."""
    noun: str
    """What an item is: pair, answer, letter."""
    n_prompts: int
    """Different ones; a level of more requests asks some again."""
    max_tokens: int
    is_salted: bool
    """Whether no prompt found itself in the prefix cache from before."""
    external: bool = False
    """Whether the prompts left the user's own network."""
    levels: tuple[Level, ...]
    unfinished: tuple[str, ...] = ()
    """What was to be measured and was not."""
    knee: Knee
    machine: MachineFacts | None = None
    costs: tuple[LevelCost, ...] = ()
    """At the lowest level and at the knee; empty without a price."""
    stale_days: int | None = None
    """Age of the price where that is more than it should be."""
