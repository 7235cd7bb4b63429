"""`qaeval label`: label items of a run on a local page."""

from functools import partial
from typing import Annotated, TypeAlias

import typer

from qaeval.cli.options import AllowHosts, NoBrowser, Port, RunDirectory
from qaeval.cli.terminal import printable

Rater: TypeAlias = Annotated[
    str, typer.Option("--rater", metavar="NAME", help="Name of the rater, and of the label file.")
]
Number: TypeAlias = Annotated[int, typer.Option("--n", min=1, help="Items to label.")]
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
    typer.Option("--until-decided", help="End the sitting once further labels cannot change the verdict."),
]


def label(
    run: RunDirectory,
    rater: Rater,
    n: Number = 100,
    by: By = "plan",
    seed: Seed = 0,
    until_decided: UntilDecided = False,
    port: Port = None,
    no_browser: NoBrowser = False,
    allow_host: AllowHosts = None,
) -> None:
    """Label items of a run on a local page.

    The page shows neither candidates nor grades; every label is on disk before the next item appears. The same command resumes a
    sitting.
    """
    from qaeval.labelling import Sitting
    from qaeval.labelling.rater_file import LABELS
    from qaeval.web.label import LabelPage
    from qaeval.web.server import PageServer
    from qaeval.web.summary import summarise

    with Sitting.open(
        run,
        rater,
        n=n,
        by=by,  # type: ignore[arg-type] # Sitting.open checks it
        seed=seed,
        until_decided=until_decided,
    ) as sitting:
        page = LabelPage(
            sitting,
            summarise=partial(summarise, sitting),
            run=sitting.run.resolve().name,
            rater=sitting.rater,
        )
        say = partial(print, flush=True)
        server = PageServer(page.routes(), port=port, allow_hosts=allow_host or (), on_message=say)
        for note in sitting.notes:
            say(printable(note))
        server.run(open_browser=not no_browser)
        progress = sitting.progress()
        print(
            f"\n{progress.answered} of {progress.total} items labelled or skipped: {sitting.run / LABELS / sitting.rater}.jsonl"
        )
