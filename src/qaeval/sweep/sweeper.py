"""A sweep from its prompts to its page: measured, summed up, written."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qaeval import __version__
from qaeval.analysis.server_metrics import server_span
from qaeval.cost.candidates import days_stale
from qaeval.environment import git_commit, now
from qaeval.errors import EndpointError, Interrupted, QaevalError, StoreError, UsageError
from qaeval.files.rows import explained
from qaeval.records import Reading, TimedRequest
from qaeval.registry.config import ModelSpec, Serving
from qaeval.report import numbers
from qaeval.report.facts import MachineFacts, ModelFacts
from qaeval.run.endpoint import Endpoint
from qaeval.run.hosting import ServerManager
from qaeval.run.watch import Stop, stop_on_signals
from qaeval.storage.run_directory import RunStore, model_json
from qaeval.sweep.knee import find_knee, level_costs, summarise
from qaeval.sweep.load import Load
from qaeval.sweep.loops import REQUESTS, Course, Loops, Progress, streaming
from qaeval.sweep.model import Sweep
from qaeval.sweep.page import render_sweep_html, render_sweep_markdown, sweep_charts
from qaeval.sweep.sections import three_digits


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured until the end, or until something ended it."""

    load: Load
    endpoint: Endpoint
    started: str
    rows: tuple[TimedRequest, ...]
    """Of whole repeats."""
    readings: tuple[Reading, ...]
    unfinished: tuple[str, ...]
    ended: QaevalError | None
    """What ended it before its end."""


class Sweeper:
    """Measures one model; a context manager, so that no server of its own outlives it.

    Args:
        folder: Takes rows and documents; must be new.
        progress: Told of every request.
        serving: How a model without a URL is served.
        allow_external: Hosts outside the user's network that may be sent data.
        on_stop: Called when the user asks to stop for the first time.

    Raises:
        UsageError: the folder is there already.
    """

    def __init__(
        self,
        folder: Path,
        progress: Progress,
        *,
        serving: Serving | None = None,
        allow_external: Sequence[str] = (),
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        if folder.exists():
            raise UsageError(f"{folder}: is there already; a sweep is not resumed, choose another --out")
        self._store = RunStore(folder)
        self._progress = progress
        self._stop = Stop(on_stop)
        self._servers = ServerManager(
            serving,
            logs=folder / "logs",
            on_message=progress.note,
            stopped=self._stop.is_set,
            allow_external=allow_external,
        )

    def __enter__(self) -> Self:
        self._loop = asyncio.Runner()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._loop.run(self._servers.close())
        finally:
            self._loop.close()

    def measure(self, load: Load, course: Course) -> Measured:
        """Go through the course; what ends it early is told in the result, beside what was finished.

        Raises:
            UsageError: the model has no server, or several.
            EndpointError: its server cannot be used, or no request brought a reply.
            Interrupted: the user asked to stop before the first repeat was finished.
        """
        if load.spec.in_process:
            raise UsageError(f"{load.spec.name} runs inside qaeval; a sweep measures a server")
        if load.spec.replicas:
            raise UsageError(
                f"{load.spec.name} has several servers; a sweep measures one: --endpoint {load.spec.name}={load.spec.url}"
            )
        return self._loop.run(self._measure(load, course))

    async def _measure(self, load: Load, course: Course) -> Measured:
        with stop_on_signals(self._stop):
            started, endpoint = now(), await self._resolve(load.spec)
            with explained(self._store.path, "making the directory"):
                self._store.path.mkdir(parents=True, exist_ok=True)  # a server of our own has its log there
            kept: list[TimedRequest] = []
            readings: list[Reading] = []
            left = list(course.repeats_in_turn())
            n_repeats = len(left)
            shown = self._progress.stage("sweep", load.spec.name, total=course.n_all, done=0)
            loop = Loops(self._store, load, endpoint, shown, self._stop)
            ended: QaevalError | None = None
            try:
                async with streaming(endpoint) as model:
                    while left:
                        rows, seen = await loop.run(model, *left[0], course.n_requests(left[0][0]))
                        kept += rows
                        readings += seen
                        if not any(row.reason is None for row in kept):
                            raise _no_reply(load.spec.name, rows)
                        self._progress.note(_said(rows))
                        del left[0]
            except (EndpointError, StoreError) as error:
                ended = error
            except Interrupted:
                ended = Interrupted(
                    f"stopped; {n_repeats - len(left)} of {numbers.plural(n_repeats, 'repeat')} are finished; all rows are kept in "
                    f"{self._store.path / REQUESTS}"
                )
            finally:
                shown.end()
        if ended is not None and not any(row.reason is None for row in kept):
            raise ended
        return Measured(
            load=load,
            endpoint=endpoint,
            started=started,
            rows=tuple(kept),
            readings=tuple(readings),
            unfinished=tuple(f"{level} in flight, repeat {repeat}" for level, repeat in left),
            ended=ended,
        )

    async def _resolve(self, spec: ModelSpec) -> Endpoint:
        """Find where the model answers; a server of our own is looked at before it is started."""
        if spec.is_hosted:
            self._servers.adapters = (spec,) if spec.lora else ()
            await self._servers.check([spec])
        return await self._servers.resolve(spec)

    def publish(self, measured: Measured, *, machine: MachineFacts | None, command: str) -> Sweep:
        """Sum up, and write sweep.json, sweep.md with its charts, and sweep.html.

        Raises:
            StoreError: a file cannot be written.
        """
        sweep = describe(measured, self._store.path.name, machine=machine, command=command)
        self._store.write_text("sweep.json", model_json(sweep))
        for chart in sweep_charts(sweep):
            self._store.write_text(f"charts/{chart.name}.svg", chart.svg())
        self._store.write_text("sweep.md", render_sweep_markdown(sweep))
        self._store.write_text("sweep.html", render_sweep_html(sweep))
        return sweep


def _no_reply(name: str, rows: Sequence[TimedRequest]) -> EndpointError:
    first = next(row for row in rows if row.reason is not None)
    return EndpointError(
        f"{name}: none of the first {len(rows)} requests brought a reply; the first one: {first.detail}"
    )


def _said(rows: Sequence[TimedRequest]) -> str:
    """Say how a repeat went, in one line."""
    (level,) = summarise(rows)
    failed = f", {level.n_failed} failed" if level.n_failed else ""
    return (
        f"{level.concurrency} in flight, repeat {rows[0].repeat}: {three_digits(level.requests_per_s.value)} requests/s, "
        f"{three_digits(level.tokens_per_s.value)} output tokens/s, TTFT p95 {three_digits(level.ttft.p95)} s{failed}"
    )


def describe(measured: Measured, name: str, *, machine: MachineFacts | None, command: str = "") -> Sweep:
    """Sum up what was measured.

    Args:
        measured: At least one repeat.
        name: Of its directory.
        machine: What the model runs on; None where nobody knows.
        command: What the user typed.
    """
    load, endpoint, finished = measured.load, measured.endpoint, now()
    levels = summarise(measured.rows, _spans(measured))
    knee = find_knee(levels)
    hourly = None if machine is None else machine.price_per_hour
    facts = endpoint.facts
    return Sweep(
        id=name,
        started=measured.started,
        finished=finished,
        qaeval_version=__version__,
        git_commit=git_commit(),
        command=command,
        model=_model_facts(load, endpoint),
        stage=load.stage,
        source=load.source,
        noun=load.noun,
        n_prompts=len(load.prompts),
        max_tokens=load.prompts[0].request.sampling.max_tokens,
        is_salted=facts is not None and bool(facts.version),
        external=endpoint.external,
        levels=levels,
        unfinished=measured.unfinished,
        knee=knee,
        machine=machine,
        costs=() if hourly is None else level_costs(levels, knee, hourly),
        stale_days=None if machine is None else days_stale(machine.as_of, finished),
    )


def _spans(measured: Measured) -> dict[int, Any]:
    """Sum up what the server said of itself, by level."""
    stage, name = measured.load.stage, measured.load.spec.name
    by_level: dict[int, list[Reading]] = {}
    for reading in measured.readings:
        by_level.setdefault(int(reading.session.partition("/")[0]), []).append(reading)
    return {level: server_span(own, stage, name) for level, own in by_level.items()}


def _model_facts(load: Load, endpoint: Endpoint) -> ModelFacts:
    spec, facts = load.spec, endpoint.facts
    sampling = load.prompts[0].request.sampling
    return ModelFacts(
        name=spec.name,
        kind="server",
        hf_id=spec.hf_id or "",
        revision=spec.revision or "",
        licence=spec.licence,
        openness=spec.openness or "",
        host=endpoint.host or "",
        server=f"vllm {facts.version}" if facts is not None and facts.version else "",
        max_model_len=None if facts is None else facts.max_model_len,
        sampling={
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        },
    )
