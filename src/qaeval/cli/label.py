"""`qaeval label`: label items of a run on a local page."""

import shlex
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from qaeval.cli.options import AllowHosts, Margin, NoBrowser, Port, Registry, RunDirectory
from qaeval.cli.terminal import say

if TYPE_CHECKING:
    from qaeval.labelling import Adjudication, Sitting
    from qaeval.web.label import LabelPage

Rater: TypeAlias = Annotated[
    str, typer.Option("--rater", metavar="NAME", help="Name of the rater, and of the label file.")
]
Number: TypeAlias = Annotated[int, typer.Option("--n", min=1, help="Number of items to label.")]
By: TypeAlias = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="PLAN",
        help="How items are drawn: plan (chunks to compare candidates, stratified by letter for a single one), chunks, uncertain, "
        "stratified, random or disagree.",
    ),
]
Seed: TypeAlias = Annotated[int, typer.Option("--seed", min=0, help="Random seed of the draw.")]
UntilDecided: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--until-decided", help="End the sitting once more labels do not change which candidate is best."
    ),
]
About: TypeAlias = Annotated[
    str,
    typer.Option(
        "--estimand",
        metavar="pool|future",
        help="With --until-decided: decide about the chunks of the run (pool) or about documents to come (future).",
    ),
]
Mutants: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--mutants",
        help="RUN is the directory of an audit: label its planted items and their originals, to check that a defect is one.",
    ),
]


def label(
    run: RunDirectory,
    rater: Rater,
    n: Number = 100,
    by: By = "plan",
    seed: Seed = 0,
    until_decided: UntilDecided = False,
    estimand: About = "pool",
    margin: Margin = None,
    config: Registry = None,
    port: Port = None,
    no_browser: NoBrowser = False,
    allow_host: AllowHosts = None,
    mutants: Mutants = False,
) -> None:
    """Label items of a run on a local page.

    The page shows neither candidates nor grades; every label is on disk before the next item appears. The same command resumes a
    sitting.
    """
    from qaeval.errors import UsageError, closest
    from qaeval.labelling import PLANS, Sitting
    from qaeval.registry.find import find_config
    from qaeval.web.label import LabelPage
    from qaeval.web.summary import summary_sections

    if by not in PLANS:
        raise UsageError(f"--by {by}: expected one of {', '.join(PLANS)}.{closest(by, PLANS)}")
    if estimand not in {"pool", "future"}:
        raise UsageError(f"--estimand {estimand}: expected pool or future")
    audit = run
    if mutants:
        from qaeval.audit.mutants import write_mutants

        run = write_mutants(audit)
    with Sitting.open(
        run,
        rater,
        n=n,
        by="random" if mutants else by,
        seed=seed,
        until_decided=until_decided,
        estimand=estimand,  # type: ignore[arg-type] # checked above
        margin=margin or find_config(config).defaults.margin,
    ) as sitting:
        page = LabelPage(
            sitting,
            summarise=lambda language: summary_sections(sitting.summary(), language),
            run=sitting.run.resolve().name,
            rater=sitting.rater,
        )
        serve(page, sitting, port, allow_host, open_browser=not no_browser)
        progress = sitting.progress()
        say(f"{progress.answered} of {progress.total} questions answered, {progress.skipped} skipped")
        if progress.labelled:
            status = f"qaeval labels status {shlex.quote(str(sitting.run))}"
            say(f"next: {f'qaeval audit {shlex.quote(str(audit))}' if mutants else status}")


def serve(
    page: "LabelPage",
    session: "Sitting | Adjudication",
    port: int | None,
    allow_hosts: list[str] | None,
    *,
    open_browser: bool,
) -> None:
    """Serve a page in this process until Ctrl-C."""
    from qaeval.labelling.rater_file import LABELS
    from qaeval.web.server import PageServer

    # flushed: a pipe reads the address at once
    server = PageServer(
        page.routes(), port=port, allow_hosts=allow_hosts or (), on_message=partial(say, flush=True)
    )
    for note in getattr(session, "notes", ()):
        say(note)
    server.run(open_browser=open_browser)
    say(f"labels: {session.run / LABELS / session.rater}.jsonl")
