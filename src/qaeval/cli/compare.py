"""`qaeval compare`, `generate`, `grade` and `report`: a run, whole or stage by stage."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qaeval.cli.options import (
    AsJson,
    ChunksFile,
    Concurrency,
    Endpoints,
    EvalName,
    Fields,
    JudgeName,
    Labels,
    Machine,
    Margin,
    MetricsHost,
    MetricsPort,
    Names,
    NoCache,
    Number,
    Out,
    OutOrStore,
    Registry,
    Resume,
    RubricName,
    RunDirectory,
    SamplesFile,
    Seed,
    ShardOf,
    in_flight,
    mapping,
)
from qaeval.errors import QaevalError, UsageError

FORMATS = ("html", "md", "json", "csv")
"""What `qaeval report --format` knows."""

if TYPE_CHECKING:
    from qaeval.comparison.report import Report
    from qaeval.registry.config import Config
    from qaeval.run.plan import Plan
    from qaeval.run.runner import Runner
    from qaeval.serving.exporter import Exporter
    from qaeval.storage.run_directory import RunStore

    _Source = tuple[Path | None, Path | None, list[str] | None]
    """Files of chunks and of samples, and what the chunk file calls its fields."""


def compare(
    models: Names,
    eval_name: EvalName = None,
    chunks: ChunksFile = None,
    samples: SamplesFile = None,
    field: Fields = None,
    judge: JudgeName = None,
    rubric: RubricName = None,
    n: Number = None,
    seed: Seed = None,
    out: OutOrStore = None,
    shard: ShardOf = None,
    resume: Resume = False,
    endpoint: Endpoints = None,
    config: Registry = None,
    concurrency: Concurrency = None,
    no_cache: NoCache = False,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
    labels: Labels = None,
    margin: Margin = None,
    hardware: Machine = None,
    as_json: AsJson = False,
) -> None:
    """Compare models: generate, grade, report. At least two names, all on the same chunks."""
    from qaeval.cli.progress import exporting
    from qaeval.cli.shards import compare_shard, where
    from qaeval.comparison.analysis import ReportOptions
    from qaeval.comparison.run_data import require_labels
    from qaeval.comparison.write_report import write_report
    from qaeval.registry.find import find_config, find_hosted, find_machines, with_endpoints
    from qaeval.run.plan import find_judging
    from qaeval.storage.run_directory import RunStore

    if len(models) < 2:  # noqa: PLR2004 - one is nothing to compare
        raise UsageError(
            "compare needs at least two models; one alone is `qaeval generate`, `grade`, `report`"
        )
    registry = with_endpoints(find_config(config), endpoint or [])
    defaults = registry.defaults
    sharded = where(shard, out, registry)
    if sharded is not None and (labels or margin):
        raise UsageError("--labels and --margin belong to the report: `qaeval report` after `qaeval merge`")
    plan = planned(registry, models, eval_name=eval_name, source=(chunks, samples, field), n=n, seed=seed)
    judging = find_judging(registry, plan.candidates, judge=judge, rubric=rubric or plan.definition.rubric)
    path, label_paths = Path(out) if out else _new_run(), labels or list(plan.definition.label_paths)
    require_labels(label_paths)
    settings = {**plan.settings(), "grading": judging.settings()}
    machines = find_machines(registry, [settings], hardware)
    metered = exporting(metrics_port, metrics_host, run=path, settings=settings, machines=machines)
    if sharded is not None:
        start = _starter(metered, registry, concurrency, no_cache=no_cache)
        compare_shard(*sharded, plan, judging, start, as_json=as_json)
        return
    with (
        metered as exporter,
        RunStore.create(path, settings, plan.samples, resume=resume) as store,
        _resumable(path),
    ):
        with runner_of(store, registry, concurrency, no_cache=no_cache, exporter=exporter) as runner:
            runner.check(*plan.candidates, judging.judge)
            runner.compare(plan.candidates, plan.definition, judging)
        options = ReportOptions(
            label_paths=label_paths,
            margin=margin or defaults.margin,
            machines=machines,
            hosted_prices=find_hosted(registry),
            command=_command(),
        )
        analysis = write_report(store, options)
    _show(analysis.report, path, as_json=as_json)


def generate(
    models: Names,
    eval_name: EvalName = None,
    chunks: ChunksFile = None,
    samples: SamplesFile = None,
    field: Fields = None,
    n: Number = None,
    seed: Seed = None,
    out: Out = None,
    resume: Resume = False,
    endpoint: Endpoints = None,
    config: Registry = None,
    concurrency: Concurrency = None,
    no_cache: NoCache = False,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
) -> None:
    """Only the first stage: have the models write their items. `qaeval grade` goes on from there."""
    from qaeval.cli.progress import exporting
    from qaeval.registry.find import find_config, find_machines, with_endpoints
    from qaeval.storage.run_directory import RunStore

    registry = with_endpoints(find_config(config), endpoint or [])
    plan = planned(registry, models, eval_name=eval_name, source=(chunks, samples, field), n=n, seed=seed)
    path, settings = out or _new_run(), plan.settings()
    machines = find_machines(registry, [settings], None)
    with (
        exporting(metrics_port, metrics_host, run=path, settings=settings, machines=machines) as exporter,
        RunStore.create(path, settings, plan.samples, resume=resume) as store,
        _resumable(path),
        runner_of(store, registry, concurrency, no_cache=no_cache, exporter=exporter) as runner,
    ):
        runner.check(*plan.candidates)
        runner.generate(plan.candidates, plan.definition)
    print(f"{path}\nnext: qaeval grade {shlex.quote(str(path))}")


def grade(
    run: RunDirectory,
    judge: JudgeName = None,
    rubric: RubricName = None,
    endpoint: Endpoints = None,
    config: Registry = None,
    concurrency: Concurrency = None,
    no_cache: NoCache = False,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
) -> None:
    """Only the second stage: have the judge grade the items. Those that have a letter keep it."""
    from qaeval.cli.progress import exporting
    from qaeval.registry.find import find_config, find_machines, with_endpoints
    from qaeval.run.plan import find_judging
    from qaeval.storage.run_directory import RunStore

    registry = with_endpoints(find_config(config), endpoint or [])
    with RunStore.open(run) as store:
        settings = store.settings()
        candidates = tuple(registry.candidate(name) for name in settings["candidates"])
        judging = find_judging(registry, candidates, judge=judge, rubric=rubric or settings["eval"]["rubric"])
        machines = find_machines(registry, [{**settings, "grading": judging.settings()}], None)
        with (
            exporting(metrics_port, metrics_host, run=run, settings=settings, machines=machines) as exporter,
            runner_of(store, registry, concurrency, no_cache=no_cache, exporter=exporter) as runner,
        ):
            runner.grade(judging)
    print(f"{run}\nnext: qaeval report {shlex.quote(str(run))}")


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directory; several side by side.")
    ],
    labels: Labels = None,
    margin: Margin = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="Print the report on stdout: html, md, json or csv (items)."),
    ] = None,
    hardware: Machine = None,
    config: Registry = None,
    as_json: AsJson = False,
) -> None:
    """Only the last stage: analyse a run and write its report. Several runs are put side by side."""
    from qaeval.comparison.analysis import ReportOptions
    from qaeval.comparison.write_report import read_report, render, write_report
    from qaeval.evals.find import find_labels
    from qaeval.registry.find import find_config, find_hosted, find_machines
    from qaeval.storage.run_directory import RunStore

    if format_ not in {None, *FORMATS}:
        raise UsageError(f"--format is {', '.join(FORMATS)}, not {format_!r}")
    registry = find_config(config)
    with ExitStack() as stack:
        stores = [stack.enter_context(RunStore.open(run)) for run in runs]
        settings = [store.settings() for store in stores]
        options = ReportOptions(
            label_paths=labels or find_labels(settings[0]["eval"]["name"]),
            margin=margin or registry.defaults.margin,
            machines=find_machines(registry, settings, hardware),
            hosted_prices=find_hosted(registry),
            command=_command(),
        )
        analysis = write_report(stores[0], options) if len(stores) == 1 else read_report(stores, options)
    if format_ is not None:
        sys.stdout.write(render(analysis, format_))  # type: ignore[arg-type]
    else:
        _show(analysis.report, runs[0] if len(runs) == 1 else None, as_json=as_json)


def planned(
    registry: "Config",
    models: list[str],
    *,
    eval_name: str | None,
    source: "_Source",
    n: int | None,
    seed: int | None,
) -> "Plan":
    """Resolve what was typed; what was not comes from the registry's defaults."""
    from qaeval.run.plan import make_plan

    defaults = registry.defaults
    chunks, samples, fields = source
    return make_plan(
        registry,
        models,
        eval_name=eval_name or defaults.eval,
        chunks=chunks,
        samples=samples,
        fields=mapping(fields, "--field"),
        n=n,
        seed=defaults.seed if seed is None else seed,
    )


def _new_run() -> Path:
    from qaeval.environment import new_run_name

    return Path("results", new_run_name())


def _starter(
    metered: "AbstractContextManager[Exporter | None]",
    registry: "Config",
    concurrency: str | None,
    *,
    no_cache: bool,
) -> "Callable[[RunStore, frozenset[str]], AbstractContextManager[Runner]]":
    """Make what asks the models about some of the samples, with its numbers served where somebody asked for them."""

    @contextmanager
    def start(store: "RunStore", only: frozenset[str]) -> "Iterator[Runner]":
        with (
            metered as exporter,
            runner_of(
                store, registry, concurrency, no_cache=no_cache, exporter=exporter, only=only
            ) as runner,
        ):
            yield runner

    return start


def runner_of(
    store: "RunStore",
    registry: "Config",
    concurrency: str | None,
    *,
    no_cache: bool,
    exporter: "Exporter | None",
    only: "frozenset[str] | None" = None,
) -> "Runner":
    """Make what asks the models of a run, as the options and the registry say; drawn on stderr.

    Args:
        store: The run.
        registry: Where to ask, and what nobody typed.
        concurrency: As typed; None: what the registry says.
        no_cache: Whether every question is asked anew.
        exporter: Takes the counts; None: nobody reads them.
        only: Ids of the samples to work on; None: all.
    """
    from rich.console import Console

    from qaeval.cli.progress import Metered, progress_for
    from qaeval.environment import cache_folder
    from qaeval.run.runner import Runner

    for warning in store.warnings:
        print(f"qaeval: {warning}", file=sys.stderr)
    progress = progress_for(Console(stderr=True))
    return Runner(
        store,
        progress if exporter is None else Metered(progress, exporter),
        concurrency=in_flight(concurrency or str(registry.defaults.concurrency)),
        outage_s=registry.defaults.outage_s,
        cache=cache_folder() if registry.defaults.cache and not no_cache else None,
        serving=registry.serving,
        allow_external=registry.allow_external,
        exporter=exporter,
        only=only,
        on_stop=lambda: print(
            "stopping: what is in flight finishes; Ctrl-C again abandons it", file=sys.stderr
        ),
    )


def _command() -> str:
    return shlex.join(["qaeval", *sys.argv[1:]])


@contextmanager
def _resumable(path: Path) -> Iterator[None]:
    """Tell how to go on when a run ends before its end."""
    try:
        yield
    except (QaevalError, KeyboardInterrupt):
        arguments = [word for word in sys.argv[1:] if word != "--resume"]
        if not any(word == "--out" or word.startswith("--out=") for word in arguments):
            arguments += ["--out", str(path)]
        print(f"to go on: {shlex.join(['qaeval', *arguments, '--resume'])}", file=sys.stderr)
        raise


def _show(report: "Report", path: Path | None, *, as_json: bool) -> None:
    from qaeval.cli.tables import print_summary

    if as_json:
        where = {} if path is None else {"path": str(path)}
        print(json.dumps({**where, **report.model_dump(mode="json")}, ensure_ascii=False))
    else:
        print_summary(report, path)
