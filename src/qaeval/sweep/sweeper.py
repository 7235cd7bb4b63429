"""Run a sweep: measure, summarise, write the report."""

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
from qaeval.sweep.knee import find_knee, level_costs, summarise_levels
from qaeval.sweep.load import Load
from qaeval.sweep.loops import REQUESTS, ClosedLoopRunner, SweepPlan, SweepProgress, streaming
from qaeval.sweep.model import Sweep
from qaeval.sweep.page import render_sweep_html, render_sweep_markdown, sweep_charts
from qaeval.sweep.sections import three_digits


@dataclass(frozen=True, kw_only=True)
class SweepMeasurement:
    """The measurements of a sweep that finished or was stopped."""

    load: Load
    endpoint: Endpoint
    started: str
    rows: tuple[TimedRequest, ...]
    """Requests of complete repeats."""
    readings: tuple[Reading, ...]
    unfinished: tuple[str, ...]
    stopped_by: QaevalError | None
    """The error that stopped the sweep early; None if it finished."""


class Sweeper:
    """Measures one model. A context manager: on exit it stops a server that it started.

    Args:
        folder: New directory for rows and documents.
        progress: Display of progress.
        serving: How to serve a model without a URL.
        allow_external: Hosts outside the user's network that may receive data.
        on_stop: Called at the user's first request to stop.

    Raises:
        UsageError: the folder exists.
    """

    def __init__(
        self,
        folder: Path,
        progress: SweepProgress,
        *,
        serving: Serving | None = None,
        allow_external: Sequence[str] = (),
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        if folder.exists():
            raise UsageError(f"{folder} exists; a sweep cannot be resumed, choose another --out")
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

    def measure(self, load: Load, plan: SweepPlan) -> SweepMeasurement:
        """Measure all repeats of a plan. A sweep that stops early returns its finished repeats and the error.

        Raises:
            UsageError: the model has no server, or several.
            EndpointError: the server cannot be used, or no request succeeded.
            Interrupted: the user asked to stop before the first repeat was finished.
        """
        spec = load.spec
        if spec.in_process:
            raise UsageError(f"{spec.name} runs inside qaeval; a sweep measures a server")
        if spec.kind == "hosted":
            raise UsageError(
                f"{spec.name} is a hosted API, whose load others share; a sweep measures a server"
            )
        if spec.replicas:
            raise UsageError(
                f"{spec.name} has several servers; a sweep measures one: --endpoint {spec.name}={spec.url}"
            )
        return self._loop.run(self._measure(load, plan))

    async def _measure(self, load: Load, plan: SweepPlan) -> SweepMeasurement:
        with stop_on_signals(self._stop):
            started, endpoint = now(), await self._resolve(load.spec)
            with explained(self._store.path, "making the directory"):
                self._store.path.mkdir(parents=True, exist_ok=True)  # a started server may have its log there
            rows: list[TimedRequest] = []
            readings: list[Reading] = []
            pending = list(plan.repeats_in_turn())
            n_repeats = len(pending)
            progress = self._progress.stage("sweep", load.spec.name, total=plan.n_all, done=0)
            runner = ClosedLoopRunner(self._store, load, endpoint, progress, self._stop)
            stopped_by: QaevalError | None = None
            try:
                async with streaming(endpoint) as model:
                    while pending:
                        new_rows, new_readings = await runner.run(
                            model, *pending[0], plan.n_requests(pending[0][0])
                        )
                        rows += new_rows
                        readings += new_readings
                        if not any(row.reason is None for row in rows):
                            raise _no_reply(load.spec.name, new_rows)
                        self._progress.note(_repeat_message(new_rows))
                        del pending[0]
            except EndpointError as error:
                why_dead = await self._servers.why_dead(load.spec)
                stopped_by = EndpointError(why_dead) if why_dead else error
            except StoreError as error:
                stopped_by = error
            except Interrupted:
                stopped_by = Interrupted(
                    f"stopped after {n_repeats - len(pending)} of {numbers.plural(n_repeats, 'repeat')}; "
                    f"all rows are in {self._store.path / REQUESTS}"
                )
            finally:
                progress.end()
        if stopped_by is not None and not any(row.reason is None for row in rows):
            raise stopped_by
        return SweepMeasurement(
            load=load,
            endpoint=endpoint,
            started=started,
            rows=tuple(rows),
            readings=tuple(readings),
            unfinished=tuple(f"{level} in flight, repeat {repeat}" for level, repeat in pending),
            stopped_by=stopped_by,
        )

    async def _resolve(self, spec: ModelSpec) -> Endpoint:
        """Return the model's endpoint; check the arguments of a server before starting it."""
        if spec.is_hosted:
            self._servers.adapters = (spec,) if spec.lora else ()
            await self._servers.check([spec])
        return await self._servers.resolve(spec)

    def write_report(
        self, measured: SweepMeasurement, *, machine: MachineFacts | None, command: str
    ) -> Sweep:
        """Write sweep.json, sweep.md with its charts, and sweep.html.

        Raises:
            StoreError: a file cannot be written.
        """
        sweep = describe(measured, self._store.name, machine=machine, command=command)
        self._store.write_text("sweep.json", model_json(sweep))
        for chart in sweep_charts(sweep):
            self._store.write_text(f"charts/{chart.name}.svg", chart.svg())
        self._store.write_text("sweep.md", render_sweep_markdown(sweep))
        self._store.write_text("sweep.html", render_sweep_html(sweep))
        return sweep


def _no_reply(name: str, rows: Sequence[TimedRequest]) -> EndpointError:
    first = next(row for row in rows if row.reason is not None)
    return EndpointError(
        f"{name}: none of the first {len(rows)} requests succeeded; the first error: {first.detail}"
    )


def _repeat_message(rows: Sequence[TimedRequest]) -> str:
    """Return the result of a repeat in one line."""
    (level,) = summarise_levels(rows)
    failed = f", {level.n_failed} failed" if level.n_failed else ""
    requests, tokens = three_digits(level.requests_per_s.value), three_digits(level.tokens_per_s.value)
    return (
        f"{level.concurrency} in flight, repeat {rows[0].repeat}: {requests} requests/s, {tokens} output "
        f"tokens/s, TTFT p95 {three_digits(level.ttft.p95)} s{failed}"
    )


def describe(
    measured: SweepMeasurement, name: str, *, machine: MachineFacts | None, command: str = ""
) -> Sweep:
    """Summarise a measurement.

    Args:
        measured: A measurement of at least one repeat.
        name: Name of its directory.
        machine: Machine of the model; None if unknown.
        command: The command line.
    """
    load, endpoint, finished = measured.load, measured.endpoint, now()
    levels = summarise_levels(measured.rows, _spans(measured))
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


def _spans(measured: SweepMeasurement) -> dict[int, Any]:
    """Return the server's metrics by level."""
    stage, name = measured.load.stage, measured.load.spec.name
    by_level: dict[int, list[Reading]] = {}
    for reading in measured.readings:
        by_level.setdefault(int(reading.session.partition("/")[0]), []).append(reading)
    return {level: server_span(readings, stage, name) for level, readings in by_level.items()}


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
