"""`qaeval compare`, `generate`, `grade` and `report`: a run, whole or stage by stage."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qaeval.cli.options import (
    AllocationOption,
    AllowSameFamily,
    AsJson,
    BackendName,
    ChunksFileOrStore,
    Concurrency,
    ConsentTo,
    DecidingPanel,
    DuplicateIdsOption,
    Endpoints,
    Escalate,
    EscalateBelow,
    EscalateError,
    EvalName,
    Fields,
    JudgeModeName,
    JudgeName,
    Labels,
    Machine,
    Margin,
    MetricsHost,
    MetricsPort,
    Names,
    NoCache,
    NoControls,
    Number,
    Out,
    OutOrStore,
    PanelNames,
    Prompts,
    RayAddress,
    RayBlock,
    RayStore,
    ReasonsBelow,
    ReasonsFor,
    Registry,
    RepeatCandidate,
    RepeatGrade,
    RepeatJudge,
    Resume,
    RubricName,
    RunDirectories,
    RunDirectory,
    SamplesFile,
    Seed,
    ShardOf,
    UntilDecided,
    Yes,
    comma_separated,
    command_line,
    endpoint_urls,
    in_flight,
    mapping,
    prompt_names,
)
from qaeval.cli.terminal import say, say_file, say_json
from qaeval.errors import EndpointError, InUseError, QaevalError, ReadOnlyError, ResumeNote, UsageError

FORMATS = ("html", "md", "json", "csv")
"""What `qaeval report --format` knows."""

if TYPE_CHECKING:
    from qaeval.comparison.report import Report


def compare(
    models: Names,
    prompts: Prompts = None,
    eval_name: EvalName = None,
    chunks: ChunksFileOrStore = None,
    samples: SamplesFile = None,
    field: Fields = None,
    duplicate_ids: DuplicateIdsOption = "refuse",
    judge: JudgeName = None,
    judge_mode: JudgeModeName = None,
    reasons_below: ReasonsBelow = None,
    reasons_for: ReasonsFor = None,
    panel: PanelNames = None,
    escalate: Escalate = None,
    escalate_error: EscalateError = 0.1,
    escalate_below: EscalateBelow = None,
    rubric: RubricName = None,
    allow_same_family: AllowSameFamily = False,
    n: Number = None,
    seed: Seed = None,
    allocation: AllocationOption = "proportional",
    out: OutOrStore = None,
    shard: ShardOf = None,
    resume: Resume = False,
    endpoint: Endpoints = None,
    config: Registry = None,
    concurrency: Concurrency = None,
    no_cache: NoCache = False,
    no_controls: NoControls = False,
    repeat: RepeatCandidate = None,
    repeat_judge: RepeatJudge = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
    labels: Labels = None,
    margin: Margin = None,
    until_decided: UntilDecided = None,
    hardware: Machine = None,
    backend: BackendName = "local",
    ray_address: RayAddress = None,
    ray_store: RayStore = None,
    ray_block: RayBlock = 200,
    yes: Yes = False,
    consent: ConsentTo = None,
    as_json: AsJson = False,
) -> None:
    """Compare candidates: generate, grade, report. A single candidate is evaluated without a comparison."""
    from qaeval import api
    from qaeval.cli.progress import confirm_on_stderr, consent_on_stderr, progress_on_stderr

    if shard is not None or (out is not None and out.startswith("s3:")):
        from qaeval.cli.shards import print_shard, resumable_shard, shard_of

        if labels or margin:
            raise UsageError(
                "--labels and --margin apply to the report: use `qaeval report` after `qaeval merge`"
            )
        if until_decided:
            raise UsageError(
                "--until-decided looks at all chunks so far before it asks for more, which no shard can: omit --shard, or "
                "omit --until-decided for a fixed sample"
            )
        if panel is not None:
            raise UsageError(
                "--panel grades a whole run: use `qaeval grade DIR --panel JUDGE,...` after `qaeval merge`"
            )
        if escalate is not None:
            raise UsageError(
                "--escalate needs a whole run: use `qaeval grade DIR --escalate JUDGE` after `qaeval merge`"
            )
        if repeat is not None or repeat_judge is not None:
            raise UsageError(
                "--repeat and --repeat-judge belong to a whole run: after `qaeval merge`, `qaeval compare … --out DIR --resume` "
                "adds replies and `qaeval grade DIR --repeat R` letters"
            )
        if backend == "ray":
            raise UsageError(
                "--backend ray distributes a run itself: --out is a run directory, and --ray-store the location that all nodes see"
            )
        which, location = shard_of(shard, out)
        with resumable_shard():
            result = api.compare_shard(
                models,
                shard=which,
                out=location,
                prompts=prompt_names(prompts),
                eval_name=eval_name,
                chunks=chunks,
                samples=samples,
                fields=mapping(field, "--field"),
                duplicate_ids=duplicate_ids,
                n=n,
                seed=seed,
                allocation=allocation,
                judge=judge,
                judge_mode=judge_mode,
                reasons_below=reasons_below,
                reasons_for=comma_separated(reasons_for, "--reasons-for"),
                rubric=rubric,
                allow_same_family=allow_same_family,
                config=config,
                endpoints=endpoint_urls(endpoint),
                concurrency=in_flight(concurrency),
                cache=not no_cache,
                controls=not no_controls,
                hardware=hardware,
                metrics_port=metrics_port,
                metrics_host=metrics_host,
                progress=progress_on_stderr(),
            )
        print_shard(result, as_json=as_json)
        return
    if backend == "local" and (ray_address or ray_store):
        raise UsageError("--ray-address and --ray-store apply to a run on Ray; add --backend ray")
    path = None if resume and not out else Path(out) if out else _new_run()
    with _resumable(as_json=as_json):
        run = api.compare(
            models,
            prompts=prompt_names(prompts),
            eval_name=eval_name,
            chunks=chunks,
            samples=samples,
            fields=mapping(field, "--field"),
            duplicate_ids=duplicate_ids,
            n=n,
            seed=seed,
            allocation=allocation,
            judge=judge,
            judge_mode=judge_mode,
            reasons_below=reasons_below,
            reasons_for=comma_separated(reasons_for, "--reasons-for"),
            panel=comma_separated(panel, "--panel"),
            escalate=escalate,
            escalate_error=escalate_error,
            escalate_below=escalate_below,
            rubric=rubric,
            allow_same_family=allow_same_family,
            out=path,
            resume=resume,
            endpoints=endpoint_urls(endpoint),
            config=config,
            concurrency=in_flight(concurrency),
            cache=not no_cache,
            controls=not no_controls,
            repeat=repeat,
            repeat_judge=repeat_judge,
            labels=labels,
            margin=margin,
            until_decided=until_decided,
            hardware=hardware,
            metrics_port=metrics_port,
            metrics_host=metrics_host,
            backend=backend,
            ray_address=ray_address,
            ray_store=ray_store,
            ray_block=ray_block,
            progress=progress_on_stderr(),
            confirm=confirm_on_stderr(yes=yes),
            consent=consent_on_stderr(consent),
            command=command_line(),
        )
    _show(run.report, run.path, as_json=as_json)


def generate(
    models: Names,
    prompts: Prompts = None,
    eval_name: EvalName = None,
    chunks: ChunksFileOrStore = None,
    samples: SamplesFile = None,
    field: Fields = None,
    duplicate_ids: DuplicateIdsOption = "refuse",
    n: Number = None,
    seed: Seed = None,
    allocation: AllocationOption = "proportional",
    out: Out = None,
    resume: Resume = False,
    endpoint: Endpoints = None,
    config: Registry = None,
    concurrency: Concurrency = None,
    no_cache: NoCache = False,
    repeat: RepeatCandidate = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
    yes: Yes = False,
    consent: ConsentTo = None,
) -> None:
    """Generate the items of a new run. `qaeval grade` is the next stage."""
    from qaeval import api
    from qaeval.cli.progress import confirm_on_stderr, consent_on_stderr, progress_on_stderr

    path = None if resume and not out else out or _new_run()
    with _resumable():
        run = api.generate(
            models,
            prompts=prompt_names(prompts),
            eval_name=eval_name,
            chunks=chunks,
            samples=samples,
            fields=mapping(field, "--field"),
            duplicate_ids=duplicate_ids,
            n=n,
            seed=seed,
            allocation=allocation,
            out=path,
            resume=resume,
            endpoints=endpoint_urls(endpoint),
            config=config,
            concurrency=in_flight(concurrency),
            cache=not no_cache,
            repeat=repeat,
            metrics_port=metrics_port,
            metrics_host=metrics_host,
            progress=progress_on_stderr(),
            confirm=confirm_on_stderr(yes=yes),
            consent=consent_on_stderr(consent),
            command=command_line(),
        )
    say(f"{run.path}\nnext: qaeval grade {shlex.quote(str(run.path))}")


def grade(
    run: RunDirectory,
    judge: JudgeName = None,
    judge_mode: JudgeModeName = None,
    reasons_below: ReasonsBelow = None,
    reasons_for: ReasonsFor = None,
    panel: PanelNames = None,
    escalate: Escalate = None,
    escalate_error: EscalateError = 0.1,
    escalate_below: EscalateBelow = None,
    labels: Labels = None,
    rubric: RubricName = None,
    allow_same_family: AllowSameFamily = False,
    endpoint: Endpoints = None,
    config: Registry = None,
    concurrency: Concurrency = None,
    no_cache: NoCache = False,
    no_controls: NoControls = False,
    repeat: RepeatGrade = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
    yes: Yes = False,
    consent: ConsentTo = None,
) -> None:
    """Grade the items of a run. Items that already have a grade keep it; the letters of a further judge are kept beside them."""
    from qaeval import api
    from qaeval.cli.progress import confirm_on_stderr, consent_on_stderr, progress_on_stderr

    api.grade(
        run,
        judge=judge,
        judge_mode=judge_mode,
        reasons_below=reasons_below,
        reasons_for=comma_separated(reasons_for, "--reasons-for"),
        panel=comma_separated(panel, "--panel"),
        escalate=escalate,
        escalate_error=escalate_error,
        escalate_below=escalate_below,
        labels=labels or None,
        rubric=rubric,
        allow_same_family=allow_same_family,
        endpoints=endpoint_urls(endpoint),
        config=config,
        concurrency=in_flight(concurrency),
        cache=not no_cache,
        controls=not no_controls,
        repeat=repeat,
        metrics_port=metrics_port,
        metrics_host=metrics_host,
        progress=progress_on_stderr(),
        confirm=confirm_on_stderr(yes=yes),
        consent=consent_on_stderr(consent),
        command=command_line(),
    )
    if escalate is not None:
        _print_escalation(run)
    options = f" --panel {shlex.quote(panel)}" if panel else ""
    say(f"{run}\nnext: qaeval report {shlex.quote(str(run))}{options}")


def _print_escalation(run: Path) -> None:
    from qaeval.calibration.sections import escalation_sentences
    from qaeval.comparison.run_data import escalation_of
    from qaeval.storage.run_directory import RunStore

    with RunStore.open(run) as store:
        escalation = escalation_of(store)
    for sentence in () if escalation is None else escalation_sentences(escalation):
        say(sentence)


def report(
    runs: RunDirectories,
    labels: Labels = None,
    margin: Margin = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format", help="Print the report on stdout as html, md, json or csv (one row per item)."
        ),
    ] = None,
    decide_by: Annotated[
        str | None,
        typer.Option(
            "--decide-by",
            metavar="JUDGE",
            help="Judge whose letters decide, for a run with several judges; default: the first judge.",
        ),
    ] = None,
    panel: DecidingPanel = None,
    hardware: Machine = None,
    config: Registry = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a run. Several runs are compared side by side."""
    from qaeval import api
    from qaeval.storage.run_directory import MANIFEST

    if format_ not in {None, *FORMATS}:
        raise UsageError(f"--format is {', '.join(FORMATS)}, not {format_!r}")
    loaded = api.load_run(
        runs,
        labels=labels,
        margin=margin,
        decide_by=decide_by,
        panel=comma_separated(panel, "--panel"),
        hardware=hardware,
        config=config,
        command=command_line(),
    )
    path: Path | None = runs[0] if len(runs) == 1 else None
    # what is printed in a format changes no file of a finished run
    if path is not None and (format_ is None or not (path / MANIFEST).is_file()):
        try:
            loaded.write_report()
        except (ReadOnlyError, InUseError) as error:
            # the report of a run that is read only, or being written by another process, is printed all the same
            say(f"! The report is not written: {error}", error=True)
            path = None
    if labels:
        for rater in loaded.report.agreement:
            if rater.coefficients is None:
                message = "belongs to a graded item of this run: are the labels of another run or rubric?"
                say(f"! No label by {rater.rater} {message}", error=True)
    if format_ is not None:
        say_file(loaded.render(format_))  # type: ignore[arg-type] # checked above
    else:
        _show(loaded.report, path, as_json=as_json)


def _new_run() -> Path:
    from qaeval.environment import new_run_name

    return Path("results", new_run_name())


@contextmanager
def _resumable(*, as_json: bool = False) -> Iterator[None]:
    """Print the command that continues a run that ended early, and the report of a run in which nothing was graded.

    A run that never began has nothing to continue.
    """
    try:
        yield
    except (QaevalError, KeyboardInterrupt) as error:
        from qaeval.storage.runs import resume_command

        reported = error.reported if isinstance(error, QaevalError) else None
        if reported is not None:
            from qaeval.comparison.report_file import load_report

            _show(load_report(reported), reported, as_json=as_json)
        paths = (note.path for note in getattr(error, "__notes__", ()) if isinstance(note, ResumeNote))
        path = next(paths, None)
        if path is not None and (reported is None or isinstance(error, EndpointError)):
            say(f"to continue: {resume_command(['qaeval', *sys.argv[1:]], path)}", error=True)
        raise


def _show(report: "Report", path: Path | None, *, as_json: bool) -> None:
    from qaeval.cli.tables import print_summary

    if as_json:
        where: dict[str, Any] = {} if path is None else {"path": str(path)}
        say_json({**where, **report.model_dump(mode="json")})
    else:
        print_summary(report, path)
