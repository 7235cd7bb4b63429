"""What the replies of each model in each stage took: tokens and times, counted while the rows go by."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from qaeval.analysis.spans import worked_s
from qaeval.records import Failure, GenerateRow, Generation, GradeRow, Session
from qaeval.report.document import ServerSpan, Timing, Tokens

Row: TypeAlias = GenerateRow | GradeRow


@dataclass
class Replies:
    """The replies of one model in one stage."""

    n: int = 0
    n_failed: int = 0
    n_known: int = 0
    """Given in earlier runs."""
    n_counted: int = 0
    """With a count of tokens."""
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    """Tokens, as the server counted them."""
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    """Seconds; requests that were never answered have none."""

    def add(self, row: Row) -> None:
        """Count a row."""
        self.n += 1
        if isinstance(row, Failure):
            self.n_failed += 1
        else:
            self.n_known += row.cached
        if row.latency_s > 0:
            self.latencies.append(row.latency_s)
        if row.usage is not None:
            self.n_counted += 1
            self.prompt += row.usage.prompt_tokens
            self.completion += row.usage.completion_tokens
            self.cached += row.usage.cached_tokens

    @property
    def tokens(self) -> Tokens:
        """All tokens, failed replies included."""
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
        """Summarise the times of the model's sessions in the stage."""
        wall_s = worked_s(sessions) if sessions else None
        fresh = 1 - self.n_known / self.n if self.n else 1.0
        p50, p95 = np.quantile(self.latencies, [0.5, 0.95]) if self.latencies else (None, None)
        return Timing(
            wall_s=wall_s,
            load_s=sum(one.load_s for one in sessions) or None,
            latency_p50_s=None if p50 is None else float(p50),
            latency_p95_s=None if p95 is None else float(p95),
            items_per_s=n_items * fresh / wall_s if wall_s and fresh else None,
            cached_prompt_tokens=self.cached if self.n_counted else None,
            server=server,
            alongside=alongside,
            fresh=fresh,
        )


class Tally:
    """Counts rows by stage and model while somebody else reads them."""

    def __init__(self) -> None:
        self._by_model: defaultdict[tuple[str, str], Replies] = defaultdict(Replies)

    def generations(self, rows: Iterable[GenerateRow]) -> Iterator[GenerateRow]:
        """Hand on the rows of the generate stage."""
        for row in rows:
            self.of("generate", row.candidate if isinstance(row, Generation) else row.model).add(row)
            yield row

    def grades(self, rows: Iterable[GradeRow]) -> Iterator[GradeRow]:
        """Hand on the rows of the grade stage."""
        for row in rows:
            self.of("grade", row.model if isinstance(row, Failure) else row.judge).add(row)
            yield row

    def of(self, stage: str, model: str) -> Replies:
        """Return what was counted of one model in one stage."""
        return self._by_model[stage, model]
