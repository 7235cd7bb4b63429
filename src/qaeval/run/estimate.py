"""The estimate of a run: requests, tokens, time and price, from a probe of its first samples.

The rows of the probe are not part of the run: they would change the measured speed of candidates.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from qaeval.records import Failure, GenerateRow, GradeRow, Session
from qaeval.registry.config import ModelSpec
from qaeval.report.facts import MachineFacts
from qaeval.report.numbers import listed, money, plural, seconds
from qaeval.run.hosting import in_turns, lanes
from qaeval.run.watch import Progress, Unwatched

N_PROBED: Final = 5
"""Samples of the probe."""
MIN_SAMPLES: Final = 10 * N_PROBED
"""Fewest samples for a probe; a smaller run takes little longer than its probe, whose requests are sent again."""
_HOUR: Final = 3600.0


@dataclass(frozen=True, kw_only=True)
class WorkEstimate:
    """Upper bounds for a run: with more requests in flight than in the probe, servers are faster.

    Attributes:
        n_requests: Requests to candidates and judge, if no reply fails.
        n_samples: Samples of the run.
        prompt_tokens: Tokens of prompts; None where a server does not count.
        completion_tokens: Tokens of replies; None where a server does not count.
        wall_s: Wall time in seconds.
        machine_s: Seconds of work of each model's machine; a hosted API has none.
        measured: Models that were probed.
        assumed: Models that were not probed, because qaeval has to start their servers first.
    """

    n_requests: int
    n_samples: int
    prompt_tokens: int | None
    completion_tokens: int | None
    wall_s: float
    machine_s: Mapping[str, float]
    measured: tuple[str, ...]
    assumed: tuple[str, ...] = ()

    def times(self, n: float) -> "WorkEstimate":
        """Return the estimate of a run that asks for everything ``n`` times, for repeats and further judges."""

        def all_of(tokens: int | None) -> int | None:
            return None if tokens is None else round(n * tokens)

        return replace(
            self,
            n_requests=round(n * self.n_requests),
            prompt_tokens=all_of(self.prompt_tokens),
            completion_tokens=all_of(self.completion_tokens),
            wall_s=n * self.wall_s,
            machine_s={name: n * work for name, work in self.machine_s.items()},
        )

    def sentence(self, machines: Mapping[str, MachineFacts]) -> str:
        """Describe the estimate in one sentence.

        Args:
            machines: Machine of each model, for the price.
        """
        parts = [plural(self.n_requests, "request")]
        if self.prompt_tokens is not None and self.completion_tokens is not None:
            parts.append(f"{_round(self.prompt_tokens)} + {_round(self.completion_tokens)} tokens")
        parts.append(f"at most {seconds(self.wall_s)}")
        if self.machine_s:
            parts.append(_price(self.machine_s, machines))
        basis = f"{N_PROBED} of {self.n_samples:,} samples at {N_PROBED} in flight"
        assumed = f", the same assumed for {listed(self.assumed)}" if self.assumed else ""
        return f"estimate: {', '.join(parts)} ({basis}, by {listed(self.measured)}{assumed})"


def _round(n: int) -> str:
    return f"{n / 1e6:,.1f} million" if n >= 1_000_000 else f"{n:,}"


def _price(machine_s: Mapping[str, float], machines: Mapping[str, MachineFacts]) -> str:
    priced = {name: machines[name] for name in machine_s if name in machines}
    currencies = {machine.currency for machine in priced.values() if machine.price_per_hour is not None}
    if (
        len(priced) < len(machine_s)
        or len(currencies) != 1
        or any(m.price_per_hour is None for m in priced.values())
    ):
        return "no price of the machines in qaeval.yaml"
    cost = sum(work / _HOUR * (machines[name].price_per_hour or 0.0) for name, work in machine_s.items())
    return f"{currencies.pop()} {money(cost)}"


def probed_candidates(
    candidates: Sequence[ModelSpec], judge: ModelSpec | None
) -> tuple[list[ModelSpec], bool]:
    """Choose the candidates of the probe, and whether the judge is probed too.

    If every server is up, all candidates and the judge; else the candidates whose servers are up; else the candidate whose server
    starts first, since that server stays up. Nothing is probed if no model has a server, or if a server that qaeval starts serves
    adapters.
    """
    models = [*candidates, *([judge] if judge else [])]
    if not any(spec.kind == "server" for spec in models) or any(
        spec.is_hosted and spec.lora for spec in models
    ):
        return [], False
    if not any(spec.is_hosted for spec in models):
        return list(candidates), judge is not None
    servers = [spec for spec in candidates if spec.kind == "server"]
    return [spec for spec in servers if not spec.is_hosted] or in_turns(servers)[:1], False


def estimate(
    rows: Iterable[GenerateRow | GradeRow],
    sessions: Sequence[Session],
    *,
    wall_s: float,
    probed: Sequence[ModelSpec],
    candidates: Sequence[ModelSpec],
    judge: ModelSpec | None,
    is_judge_probed: bool,
    n_samples: int,
    items_per_sample: int,
) -> WorkEstimate:
    """Extrapolate a probe to its run.

    Assumptions: a candidate that was not probed takes as long as the mean of the probed ones, and grading as long as generation.
    Candidates with servers of their own work side by side, in the probe as in the run.

    Args:
        rows: Rows of the probe.
        sessions: Sessions of the probe.
        wall_s: Wall time of the probe in seconds, without starts of servers.
        probed: Candidates of the probe.
        candidates: Candidates of the run.
        judge: Judge of the run; None where nothing is graded.
        is_judge_probed: Whether the probe was graded.
        n_samples: Samples of the run.
        items_per_sample: Items that a reply should have.
    """
    scale = n_samples / N_PROBED
    work: dict[str, float] = {}
    for session in sessions:
        if not session.host:
            continue  # a model inside qaeval has no machine of its own
        work[session.model] = work.get(session.model, 0.0) + session.seconds * scale
    unprobed = [spec for spec in candidates if spec not in probed]
    assumed = [*unprobed, *([judge] if judge is not None and not is_judge_probed else [])]
    per_candidate = sum(work.get(spec.name, 0.0) for spec in probed) / len(probed)
    for spec in assumed:
        share = len(candidates) if spec is judge else 1
        work[spec.name] = work.get(spec.name, 0.0) + share * per_candidate
    load_s = max((session.load_s for session in sessions), default=0.0)

    def assumed_s(models: Iterable[ModelSpec]) -> float:
        """Time of models after each other that were not probed, with the starts of their servers."""
        new = [spec for spec in models if spec in assumed]
        starts = {spec.hosting.name for spec in new if spec.is_hosted} - {
            spec.hosting.name for spec in probed
        }
        return len(starts) * load_s + sum(
            per_candidate * (len(candidates) if spec is judge else 1) for spec in new
        )

    side_by_side = [
        assumed_s(group) + (wall_s * scale if any(spec in probed for spec in group) else 0.0)
        for group in lanes(candidates)
    ]
    wall = max(side_by_side) + assumed_s(spec for spec in candidates if spec.in_process)
    wall += 0.0 if judge is None else assumed_s([judge])
    prompt_tokens, completion_tokens = (None, None) if assumed else _tokens(rows, scale)
    apis = {spec.name for spec in (*candidates, *([judge] if judge else [])) if spec.kind == "hosted"}
    return WorkEstimate(
        n_requests=len(candidates) * n_samples * (1 + (items_per_sample if judge else 0)),
        n_samples=n_samples,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        wall_s=wall,
        machine_s={name: work_s for name, work_s in work.items() if name not in apis},
        measured=tuple(dict.fromkeys(session.model for session in sessions if session.host)),
        assumed=tuple(spec.name for spec in assumed),
    )


def estimate_grades(
    rows: Iterable[GradeRow], sessions: Sequence[Session], *, wall_s: float, n_items: int, n_samples: int
) -> WorkEstimate:
    """Extrapolate the grades of a few samples to all items.

    Args:
        rows: Rows of the probe.
        sessions: Sessions of the probe.
        wall_s: Wall time of the probe in seconds, without the start of the server.
        n_items: Items of the run without a grade.
        n_samples: Samples of the run.
    """
    scale = n_items / max(1, sum(session.n_tasks for session in sessions))
    prompt_tokens, completion_tokens = _tokens(rows, scale)
    return WorkEstimate(
        n_requests=n_items,
        n_samples=n_samples,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        wall_s=wall_s * scale,
        machine_s={session.model: session.seconds * scale for session in sessions},
        measured=tuple(session.model for session in sessions),
    )


def _tokens(rows: Iterable[GenerateRow | GradeRow], scale: float) -> tuple[int, int] | tuple[None, None]:
    """Scale the tokens of prompts and replies; None where a server does not count them."""
    usages = [row.usage for row in rows if not isinstance(row, Failure)]
    counted = [usage for usage in usages if usage is not None]
    if not counted or len(counted) < len(usages):
        return None, None
    return (
        round(scale * sum(usage.prompt_tokens for usage in counted)),
        round(scale * sum(usage.completion_tokens for usage in counted)),
    )


@dataclass(frozen=True)
class Quiet:
    """A progress that shows notes only."""

    progress: Progress

    def stage(self, _name: str, _model: str, *, total: int, done: int) -> Unwatched:  # noqa: ARG002 - of the protocol
        """Begin a stage without a display."""
        return Unwatched()

    def note(self, text: str) -> None:
        """Pass a message on."""
        self.progress.note(text)
