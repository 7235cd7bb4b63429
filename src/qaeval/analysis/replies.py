"""Tokens and times of the replies of each model in each stage, and the time spans of sessions."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np

from qaeval.analysis.model import EscapedText, ServerSpan, Timing, Tokens
from qaeval.records import ControlText, Failure, GenerateRow, Generation, Grade, GradeRow, Session

Row: TypeAlias = GenerateRow | GradeRow


class BothGrades(NamedTuple):
    """An item that a cascade graded without and with reasons."""

    item_id: str
    letter: str
    """Without reasons; empty where the reply had none."""
    probability: float | None
    """Of that letter."""
    letter_with_reasons: str
    is_control: bool
    """Whether it is of the random share that is graded in both modes."""
    completion_tokens: int | None
    """Of both replies; None where the server counts none."""


@dataclass
class ReplyTotals:
    """Totals of the replies of a model in a stage."""

    n: int = 0
    n_failed: int = 0
    n_known: int = 0
    """Replies from the cache of replies."""
    n_items: int = 0
    """Items of the candidate's replies."""
    n_counted: int = 0
    """Replies with a token count."""
    prompt: int = 0
    completion: int = 0
    completion_graded: int = 0
    """Tokens of the replies that gave a letter."""
    cached: int = 0
    """Prompt tokens in the prefix cache, counted by the server like the two before."""
    n_escaped: int = 0
    """Requests with text that was broken, since a model could take it for control."""
    escaped: Counter[ControlText] = field(default_factory=Counter)
    """Places that were broken, by kind."""
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    """Seconds; requests without an answer have no latency."""
    in_both_modes: list[BothGrades] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Count a row."""
        self.n += 1
        if isinstance(row, Failure):
            self.n_failed += 1
        else:
            self.n_known += row.cached
        if row.escaped:
            self.n_escaped += 1
            self.escaped.update(row.escaped)
        if row.latency_s > 0:
            self.latencies.append(row.latency_s)
        if row.usage is not None:
            self.n_counted += 1
            self.prompt += row.usage.prompt_tokens
            self.completion += row.usage.completion_tokens
            self.cached += row.usage.cached_tokens
        if isinstance(row, Grade):
            self._add_grade(row)

    def _add_grade(self, row: Grade) -> None:
        tokens = None if row.usage is None else row.usage.completion_tokens
        self.completion_graded += tokens or 0
        if (short := row.short) is not None:
            both = BothGrades(
                row.item_id, short.letter, short.probability, row.letter, short.is_control, tokens
            )
            self.in_both_modes.append(both)

    def escaped_text(self, stage: Literal["generate", "grade"], model: str) -> EscapedText | None:
        """Return the text that was broken in the prompts of the model; None if there is none."""
        if not self.n_escaped:
            return None
        return EscapedText(
            stage=stage,
            model=model,
            n_requests=self.n_escaped,
            n_special_tokens=self.escaped["special token"],
            n_marks=self.escaped["mark"],
        )

    @property
    def tokens(self) -> Tokens:
        """Token totals, failed replies included."""
        counted = self.n_counted > 0
        return Tokens(
            n_replies=self.n_counted,
            prompt=self.prompt if counted else None,
            completion=self.completion if counted else None,
        )

    def timing(
        self,
        sessions: Sequence[Session],
        *,
        n_items: int,
        server: ServerSpan | None = None,
        alongside: bool = False,
    ) -> Timing:
        """Summarise the times of the model in the stage."""
        wall_s = worked_s(sessions) if sessions else None
        fresh = 1 - self.n_known / self.n if self.n else 1.0
        p50, p95 = np.quantile(self.latencies, [0.5, 0.95]) if self.latencies else (None, None)
        return Timing(
            wall_s=wall_s,
            load_s=sum(session.load_s for session in sessions) or None,
            latency_p50_s=None if p50 is None else float(p50),
            latency_p95_s=None if p95 is None else float(p95),
            items_per_s=n_items * fresh / wall_s if wall_s and fresh else None,
            cached_prompt_tokens=self.cached if self.n_counted else None,
            server=server if p50 is None or p95 is None else _capped(server, p50, p95),
            alongside=alongside,
            fresh=fresh,
        )


def _capped(server: ServerSpan | None, p50: float, p95: float) -> ServerSpan | None:
    """Cap percentiles of the server's histograms at the exact ones of the client, which waits for each reply at least as long.

    A bucket may be wider than the whole stage.
    """
    if server is None:
        return None
    exact = {"ttft_p50_s": p50, "ttft_p95_s": p95, "e2e_p50_s": p50, "e2e_p95_s": p95}
    return server.model_copy(
        update={
            name: min(value, float(exact[name]))
            for name in exact
            if (value := getattr(server, name)) is not None
        }
    )


class ReplyTally:
    """Totals by stage and model, counted while another consumer reads the rows: they are read once."""

    def __init__(self) -> None:
        self._by_model: defaultdict[tuple[str, str], ReplyTotals] = defaultdict(ReplyTotals)

    def generations(self, rows: Iterable[GenerateRow]) -> Iterator[GenerateRow]:
        """Count and yield the rows of the generate stage."""
        for row in rows:
            totals = self.of("generate", row.candidate if isinstance(row, Generation) else row.model)
            totals.add(row)
            totals.n_items += len(row.items) if isinstance(row, Generation) else 0
            yield row

    def grades(self, rows: Iterable[GradeRow]) -> Iterator[GradeRow]:
        """Count and yield the rows of the grade stage."""
        for row in rows:
            self.of("grade", row.model if isinstance(row, Failure) else row.judge).add(row)
            yield row

    def of(self, stage: str, model: str) -> ReplyTotals:
        """Return the totals of a model in a stage."""
        return self._by_model[stage, model]


_CLOCK_S: Final = 1.0
"""Session starts are rounded to the second: a session that starts up to this much before the end of the previous one
is taken to follow it."""

Span: TypeAlias = tuple[float, float]
"""Start and end, in seconds since 1970."""


@dataclass(frozen=True)
class TimedSession:
    """A session with its start."""

    session: Session
    start: float
    """Seconds since 1970."""

    @property
    def work(self) -> Span:
        """The span of its requests."""
        return self.start, self.start + self.session.seconds

    @property
    def load(self) -> Span:
        """The span in which qaeval started a server for it."""
        return self.start - self.session.load_s, self.start


def time_sessions(sessions: Sequence[Session]) -> list[TimedSession]:
    """Sort sessions by start and correct overlaps from rounding; sessions of different shards may overlap."""
    timed: list[TimedSession] = []
    ends: dict[str, float] = {}
    for session in sorted(sessions, key=lambda session: session.started):
        start, end = (
            datetime.fromisoformat(session.started).timestamp(),
            ends.get(session.shard, float("-inf")),
        )
        if not session.alongside and 0 < end - (start - session.load_s) <= _CLOCK_S:
            start = end + session.load_s
        timed.append(TimedSession(session, start))
        ends[session.shard] = max(end, timed[-1].work[1])
    return timed


def worked_s(sessions: Sequence[Session]) -> float:
    """Return the wall seconds of the sessions of a stage; overlapping shards count once."""
    if len({session.shard for session in sessions}) < 2:
        return sum(session.seconds for session in sessions)
    return length(union(timed.work for timed in time_sessions(sessions)))


def union(spans: Iterable[Span]) -> list[Span]:
    """Merge spans into disjoint ones, sorted by start; empty spans are dropped."""
    merged: list[Span] = []
    for first, last in sorted(span for span in spans if span[1] > span[0]):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def cut(spans: Iterable[Span], first: float, last: float) -> list[Span]:
    """Return the parts of disjoint spans between two times."""
    parts = ((max(first, start), min(last, end)) for start, end in spans)
    return [part for part in parts if part[1] > part[0]]


def length(spans: Iterable[Span]) -> float:
    """Return the total seconds of disjoint spans."""
    return sum(end - start for start, end in spans)
