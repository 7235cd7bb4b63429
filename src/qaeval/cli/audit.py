"""`qaeval audit`: is a judge fit to grade? Planted defects and probes, without labels."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from qaeval.cli.options import (
    AsJson,
    Concurrency,
    Endpoints,
    EvalName,
    Labels,
    Registry,
    Resume,
    RubricName,
    Seed,
    command_line,
    complete_judge,
    endpoint_urls,
    find_run_argument,
    in_flight,
)
from qaeval.cli.terminal import say, say_json
from qaeval.errors import DataError, QaevalError

if TYPE_CHECKING:
    from qaeval.audit.model import Audit

_Judge: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="JUDGE|DIR",
        help="Judge from the registry; or the directory of an audit, to show it again.",
        autocompletion=complete_judge,
    ),
]
_Run: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--run",
        parser=find_run_argument,
        metavar="RUN",
        help="Run with labels, to compare the judge with them by the families of the candidates.",
    ),
]
_Out: TypeAlias = Annotated[
    Path | None, typer.Option("--out", help="Directory of the audit; default: results/audit-<time>.")
]
_N: TypeAlias = Annotated[
    int,
    typer.Option("--n", min=10, help="Good items that all probes use, at most; a good judge needs about 40."),
]


def audit(
    judge: _Judge,
    eval_name: EvalName = None,
    rubric: RubricName = None,
    labels: Labels = None,
    run: _Run = None,
    n: _N = 40,
    seed: Seed = None,
    out: _Out = None,
    resume: Resume = False,
    endpoint: Endpoints = None,
    config: Registry = None,
    concurrency: Concurrency = None,
    as_json: AsJson = False,
) -> None:
    """Audit a judge by planted defects and probes.

    It plants one defect each in good items, asks the judge about both, and asks again in ways that should change no letter. Needs no labels. Exit code 0: trusted so far, 2: not enough data, 3: not trusted.
    """
    from qaeval.audit.run import REPORT, make_audit_plan, run_audit, show_again
    from qaeval.cli.progress import progress_on_stderr
    from qaeval.environment import new_run_name
    from qaeval.registry.find import find_config
    from qaeval.storage.run_directory import AUDIT, RunStore
    from qaeval.storage.runs import RESULTS, find_unfinished, list_audits, resume_command, way_on

    if (Path(judge) / REPORT).is_file():
        _show(show_again(Path(judge)), as_json=as_json)
        return
    if (Path(judge) / AUDIT).is_file():
        raise DataError(f"{judge}: the audit is not finished: {way_on(Path(judge))}")
    registry = find_config(config).with_endpoints(endpoint_urls(endpoint))
    plan = make_audit_plan(
        registry, judge, eval_name=eval_name, rubric=rubric, labels=labels or (), run=run, n=n, seed=seed
    )
    shown = progress_on_stderr()
    path = out or Path("results", f"audit-{new_run_name()}")
    if resume and out is None:
        path = find_unfinished(
            list_audits(RESULTS),
            lambda audit: RunStore(audit).difference_from(plan.settings),
            finished=REPORT,
        )
        shown.note(f"continuing {path}")
    limit = in_flight(concurrency)
    try:
        result = run_audit(
            plan,
            path,
            shown,
            config=registry,
            resume=resume,
            concurrency=None if limit == "auto" else limit,
            command=command_line(),
        )
    except (QaevalError, KeyboardInterrupt):
        if (path / AUDIT).is_file() and not (path / REPORT).is_file():
            say(f"to continue: {resume_command(['qaeval', *sys.argv[1:]], path)}", error=True)
        raise
    _show(result, as_json=as_json, path=path)


def _show(result: "Audit", *, as_json: bool, path: Path | None = None) -> None:
    from qaeval.audit.sections import write_audit_sections
    from qaeval.cli.tables import print_sections

    if as_json:
        say_json(result.model_dump_json())
    else:
        print_sections(write_audit_sections(result))
        if path is not None:
            say(f"\npage: {path / 'audit.html'}")
    if result.exit_code:
        raise typer.Exit(result.exit_code)
