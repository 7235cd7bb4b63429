"""`qaeval sweep`: a server under rising load, and its knee."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from qaeval.cli.options import (
    AsJson,
    ChunksFile,
    DuplicateIdsOption,
    Endpoints,
    EvalName,
    Fields,
    Machine,
    Number,
    Registry,
    RubricName,
    SamplesFile,
    Seed,
    endpoint_urls,
    mapping,
)
from qaeval.cli.terminal import say, say_json
from qaeval.errors import UsageError

if TYPE_CHECKING:
    from qaeval.corpus.loading import DuplicateIds
    from qaeval.registry.config import Config
    from qaeval.sweep.load import Load

_LEVELS: Final = (1, 2, 4, 8, 16, 32, 64)
"""Powers of two: throughput saturates on a logarithmic scale."""
_MAX_LEVEL: Final = 4096
"""Each request in flight costs memory in this process too."""

_Model: TypeAlias = Annotated[
    str, typer.Argument(metavar="MODEL", help="Model name from the registry; `qaeval models` lists them.")
]
_Run: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--run",
        help="Run whose items supply grading prompts, for a judge; default: the generation prompts of the eval.",
    ),
]
_Levels: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--concurrency",
        metavar="N,N,...",
        help="Load levels, in requests in flight; default: 1,2,4,8,16,32,64.",
    ),
]
_Requests: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--requests",
        min=1,
        help="Requests per level and repeat; default: 5 per request in flight, at least 20.",
    ),
]
_Repeats: TypeAlias = Annotated[
    int, typer.Option("--repeats", min=1, help="Repeats per level; intervals need three or more.")
]
_Out: TypeAlias = Annotated[
    Path | None, typer.Option("--out", help="New directory; default: results/sweep-<time>.")
]


def sweep(
    model: _Model,
    eval_name: EvalName = None,
    chunks: ChunksFile = None,
    samples: SamplesFile = None,
    field: Fields = None,
    duplicate_ids: DuplicateIdsOption = "refuse",
    run: _Run = None,
    rubric: RubricName = None,
    n: Number = None,
    seed: Seed = None,
    concurrency: _Levels = None,
    requests: _Requests = None,
    repeats: _Repeats = 3,
    out: _Out = None,
    endpoint: Endpoints = None,
    config: Registry = None,
    hardware: Machine = None,
    as_json: AsJson = False,
) -> None:
    """Measure a server under rising load and find its knee.

    The prompts are those of the eval, or of the grading of a run (--run).
    """
    from rich.console import Console

    from qaeval.cli.progress import progress_for
    from qaeval.cli.tables import print_sections
    from qaeval.environment import new_run_name
    from qaeval.registry.find import find_config, find_machines
    from qaeval.sweep.loops import SweepPlan
    from qaeval.sweep.sections import write_sweep
    from qaeval.sweep.sweeper import Sweeper

    registry = find_config(config).with_endpoints(endpoint_urls(endpoint))
    machines = find_machines(registry, [{"candidates": {model: {}}, "grading": None}], hardware)
    given = {"--eval": eval_name, "--chunks": chunks, "--samples": samples, "--n": n, "--seed": seed}
    if run is not None and (both := [option for option, value in given.items() if value is not None]):
        raise UsageError(
            f"{both[0]} and --run exclude each other: prompts are those of an eval, or of the grading of a run"
        )
    if run is None and rubric is not None:
        raise UsageError("--rubric applies to grading prompts: name the run to grade with --run")
    load = (
        _of_eval(registry, model, eval_name, (chunks, samples, field, duplicate_ids), n, seed)
        if run is None
        else _of_run(registry, model, run, rubric)
    )
    plan = SweepPlan(levels=_levels(concurrency), repeats=repeats, requests=requests)
    folder = out or Path("results", f"sweep-{new_run_name()}")
    sweeper = Sweeper(
        folder,
        progress_for(Console(stderr=True)),
        serving=registry.serving,
        allow_external=registry.allow_external,
        on_stop=lambda: say("stopping: requests in flight finish; Ctrl-C again abandons them", error=True),
    )
    with sweeper:
        measured = sweeper.measure(load, plan)
    report = sweeper.write_report(
        measured, machine=machines.get(model), command=shlex.join(["qaeval", *sys.argv[1:]])
    )
    if as_json:
        say_json(report.model_dump_json())
    else:
        print_sections(write_sweep(report))
        say(f"\npage: {folder / 'sweep.html'}")
    if measured.stopped_by is not None:
        raise measured.stopped_by


def _of_eval(
    registry: "Config",
    model: str,
    eval_name: str | None,
    source: tuple[Path | None, Path | None, list[str] | None, "DuplicateIds"],
    n: int | None,
    seed: int | None,
) -> "Load":
    from qaeval.run.plan import make_plan
    from qaeval.sweep.load import generation_load

    if model in registry.judges and model not in registry.models:
        raise UsageError(f"{model} is a judge: name the run to grade with --run")
    chunks, samples, fields, duplicate_ids = source
    plan = make_plan(
        registry,
        [model],
        eval_name=eval_name,
        chunks=chunks,
        samples=samples,
        fields=mapping(fields, "--field"),
        duplicate_ids=duplicate_ids,
        n=n,
        seed=seed,
    )
    return generation_load(plan)


def _of_run(registry: "Config", model: str, run: Path, rubric: str | None) -> "Load":
    from qaeval.run.plan import find_judging
    from qaeval.storage.run_directory import RunStore
    from qaeval.sweep.load import grading_load

    with RunStore.open(run) as store:
        judging = find_judging(registry, (), judge=model, rubric=rubric or store.settings()["eval"]["rubric"])
        return grading_load(store, judging)


def _levels(argument: str | None) -> tuple[int, ...]:
    """Parse ``--concurrency``: comma-separated numbers, returned in ascending order."""
    if argument is None:
        return _LEVELS
    numbers = [number.strip() for number in argument.split(",")]
    if not all(number.isdecimal() and 1 <= int(number) <= _MAX_LEVEL for number in numbers):
        raise UsageError(
            f"--concurrency: expected numbers from 1 to {_MAX_LEVEL:,}, like 1,2,4,8, got {argument!r}"
        )
    return tuple(sorted({int(number) for number in numbers}))
