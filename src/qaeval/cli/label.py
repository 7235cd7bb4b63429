"""`qaeval label`: label items of a run on a local page."""

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from qaeval.cli.options import (
    AllowHosts,
    ConsentTo,
    Endpoints,
    Margin,
    NoBrowser,
    Port,
    Registry,
    RunDirectory,
    endpoint_urls,
)
from qaeval.cli.terminal import say
from qaeval.registry.numbers import MAX_NUMBER

if TYPE_CHECKING:
    from qaeval.labelling import Adjudication, Sitting
    from qaeval.web.label import LabelPage

_EVERY: Final = 20
"""Answers of a model between two lines of progress."""

Rater: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--rater",
        metavar="NAME",
        help="Name of the rater, and of the label file; of a model default: its name.",
    ),
]
LabelModel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Have a model of the registry label the items, for example a hosted one, in place of a person on the page.",
    ),
]
Number: TypeAlias = Annotated[
    int, typer.Option("--n", min=1, help="Number of items to label, rounded up to whole chunks.")
]
By: TypeAlias = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="PLAN",
        help="How items are drawn: plan (chunks to compare candidates, stratified by letter for a single one), chunks, uncertain, "
        "stratified, random or disagree.",
    ),
]
Seed: TypeAlias = Annotated[
    int, typer.Option("--seed", min=0, max=MAX_NUMBER, help="Random seed of the draw.")
]
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
    rater: Rater = None,
    model: LabelModel = None,
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
    endpoint: Endpoints = None,
    consent: ConsentTo = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, help="With --model: requests in flight.")
    ] = 8,
) -> None:
    """Label items of a run on a local page, or by a model.

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
    if model is not None:
        if until_decided or mutants or port is not None or allow_host:
            raise UsageError(
                "--model labels without a page: omit --until-decided, --mutants, --port and --allow-host"
            )
        _by_model(run, model, rater, n, by, seed, config, endpoint, consent, concurrency)
        return
    if rater is None:
        raise UsageError("expected --rater NAME, the person who labels, or --model NAME")
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


def _by_model(
    run: Path,
    model: str,
    rater: str | None,
    n: int,
    by: str,
    seed: int,
    config: Path | None,
    endpoint: list[str] | None,
    consent: list[str] | None,
    concurrency: int,
) -> None:
    from qaeval import api
    from qaeval.cli.progress import consent_on_stderr
    from qaeval.labelling.rater_file import LABELS

    def on_answer(done: int, total: int) -> None:
        if done % _EVERY == 0 or done == total:
            say(f"label {model}: {done:,}/{total:,}", error=True)

    labels = api.label_by_model(
        run,
        model,
        n=n,
        by=by,  # type: ignore[arg-type] # checked by the caller
        seed=seed,
        rater=rater,
        endpoints=endpoint_urls(endpoint),
        config=config,
        concurrency=concurrency,
        consent=consent_on_stderr(consent),
        on_answer=on_answer,
    )
    say(f"{labels.n_labelled:,} items labelled by {model}, a model")
    for reason, count in labels.failures.most_common():
        say(f"{count:,} without a letter: {reason}")
    if labels.refusal:
        say(f"first: {labels.refusal}")
    say(f"labels: {run / LABELS / (rater or model)}.jsonl")
    say(f"next: qaeval agreement {shlex.quote(str(run))}")


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
