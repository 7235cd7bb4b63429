"""The data of ``sweep.json``: speed of one server by number of requests in flight. Times are in seconds."""

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


class LatencySummary(Part):
    """Times of all successful requests of a level; None if there are none."""

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
    """Requests without warm-up."""
    n_failed: int
    window_s: float
    """The steady window, in which all requests are in flight: from the first start to the first end after
    the last start."""
    requests_per_s: float
    """Replies; a reply that lies partly in the window counts by that part."""
    tokens_per_s: float
    """Output tokens, counted in the same way."""
    items_per_s: float
    e2e_mean_s: float | None


class LoadLevel(Part):
    """All repeats of one number of requests in flight."""

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
    ttft: LatencySummary
    """Time to the first token."""
    tpot: LatencySummary
    """Time per output token, ``(E2E - TTFT) / (n - 1)``, of each request."""
    itl: LatencySummary
    """Gaps between chunks, pooled over all requests."""
    e2e: LatencySummary
    """Time from sending the request to the last token."""
    little: float | None
    """Requests per second × mean E2E: by Little's law the requests in flight."""
    server: ServerSpan | None = None
    """The server's metrics; None without ``/metrics``."""

    @property
    def failed_share(self) -> float:
        """Share of the requests that failed."""
        return self.n_failed / self.n_requests

    @property
    def preemptions(self) -> float | None:
        """Preempted requests; None if the server does not report them."""
        return None if self.server is None else self.server.preemptions


class KneeShare(Part):
    """Share of the draws of the mean throughputs in which a level is the knee."""

    concurrency: int
    share: float


class Knee(Part):
    """The fewest requests in flight with 95 % of the best throughput, without errors or preemptions."""

    concurrency: int | None
    """The knee by mean throughputs; None if no level qualifies."""
    is_found: bool
    """Whether a higher level was tried; at the last level throughput may still rise."""
    best: int | None
    """The qualifying level with the best throughput."""
    share_of_best: float | None
    """Throughput at the knee as a share of the best."""
    least: int | None = None
    """Lower bound of the requests in flight for 95 % of the best: n requests are at most n times as fast as
    one."""
    excluded: Mapping[int, str] = Field(default_factory=dict)
    """Levels that do not qualify, with the reason."""
    possible: tuple[KneeShare, ...] = ()
    """Levels that may be the knee, given the variation of the repeats; empty without intervals."""
    reason: str | None = None
    """Why the knee is not found."""


class LevelCost(Part):
    """Cost of 1,000 items at one level."""

    concurrency: int
    work: Work


class Sweep(Part):
    """The result of ``qaeval sweep``."""

    format: int = FORMAT
    id: str
    """Name of the sweep's directory."""
    started: str
    """UTC, ISO 8601."""
    finished: str
    qaeval_version: str
    git_commit: str = ""
    command: str = ""
    model: ModelFacts
    stage: str
    """The stage of the prompts: ``generate`` or ``grade``."""
    source: str
    """The eval, or the run with the graded items."""
    noun: str
    """Name of an item: pair, answer, letter."""
    n_prompts: int
    """Number of distinct prompts; a level with more requests repeats them."""
    max_tokens: int
    is_salted: bool
    """Whether a cache salt kept prompts from hitting their own earlier prefix."""
    external: bool = False
    """Whether prompts left the user's network."""
    levels: tuple[LoadLevel, ...]
    unfinished: tuple[str, ...] = ()
    """Planned repeats that were not finished."""
    knee: Knee
    machine: MachineFacts | None = None
    costs: tuple[LevelCost, ...] = ()
    """Costs at the lowest level and at the knee; empty without a price."""
    stale_days: int | None = None
    """Age of the price, if it is too old."""
