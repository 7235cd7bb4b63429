"""`qaeval view`: runs, reports and labelling on a local page."""

from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from qaeval.cli.options import AllowHosts, NoBrowser, Port, find_run_argument
from qaeval.cli.terminal import say
from qaeval.errors import DataError

_Shown: TypeAlias = Annotated[
    Path | None,
    typer.Argument(
        metavar="RUN",
        parser=find_run_argument,
        help="Run directory, `latest`, or a folder of runs; default: the list of results.",
    ),
]


def view(
    run: _Shown = None,
    port: Port = None,
    no_browser: NoBrowser = False,
    allow_host: AllowHosts = None,
) -> None:
    """Show runs on a local page: verdicts, reports, history.

    The page lists the runs of a folder, follows one that is being written, compares runs side by side and starts labelling. Only
    this machine can reach it.
    """
    from qaeval.storage.run_directory import SETTINGS
    from qaeval.storage.runs import RESULTS
    from qaeval.web.server import PageServer
    from qaeval.web.view import RunPages

    folder, first = RESULTS, ""
    if run is not None:
        if not run.is_dir():
            raise DataError(f"{run}: no such directory; expected a run directory, or a folder of them")
        folder = run.resolve()
        if (run / SETTINGS).is_file():
            folder, first = folder.parent, folder.name
    pages = RunPages(folder, first)
    server = PageServer(
        pages.routes(), port=port, allow_hosts=allow_host or (), on_message=partial(say, flush=True)
    )
    try:
        server.run(open_browser=not no_browser)
    finally:
        pages.close()
