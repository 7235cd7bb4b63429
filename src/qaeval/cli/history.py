"""`qaeval history` and `qaeval compare-runs`: run history, and the same candidates across runs."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from qaeval.cli.options import AsJson, Labels, Margin, Registry, find_run_argument
from qaeval.cli.terminal import say, say_json
from qaeval.errors import UsageError

if TYPE_CHECKING:
    from qaeval.history.model import HistoryRun

_Folder: TypeAlias = Annotated[
    Path | None, typer.Argument(metavar="FOLDER", help="Folder of run directories; default: results.")
]
_Page: TypeAlias = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="HTML page; default: history.html in the folder."),
]
_Tracking: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--mlflow",
        metavar="URL",
        help="MLflow tracking server in your own network to read runs from, in place of the folder.",
    ),
]
_Experiment: TypeAlias = Annotated[
    str, typer.Option("--experiment", help="Experiment on the tracking server.")
]
_Push: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--push",
        help="Write the runs of the folder to the tracking server; existing runs stay unchanged.",
    ),
]
_Several: TypeAlias = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN",
        parser=find_run_argument,
        help="Two or more run directories, or `latest`; the first is the reference.",
    ),
]


def history(
    folder: _Folder = None,
    out: _Page = None,
    mlflow: _Tracking = None,
    experiment: _Experiment = "qaeval",
    push: _Push = False,
    as_json: AsJson = False,
) -> None:
    """Show run history: usable rates over time.

    A line breaks where runs are not comparable: another judge, rubric, eval or sample set.
    """
    from qaeval import __version__
    from qaeval.cli.tables import print_sections
    from qaeval.files.whole import write_file
    from qaeval.history.model import history_of
    from qaeval.history.read import read_runs
    from qaeval.history.sections import render_history, write_history

    root = folder or Path("results")
    if push and mlflow is None:
        raise UsageError("--push requires --mlflow URL, the tracking server to write to")
    if mlflow is None or push:
        runs, unread = read_runs(root)
    elif folder is not None:
        raise UsageError(
            f"{folder}: with --mlflow, runs are read from the tracking server, not from a folder; to write a folder there, add --push"
        )
    else:
        from qaeval.history.mlflow import fetch

        root = Path()
        runs, unread = fetch(mlflow, experiment)
    history = history_of(runs, unread)
    if as_json:
        say_json(history.model_dump_json())
    else:
        print_sections(write_history(history))
    if push and mlflow:
        _push(mlflow, experiment, runs)
    if out or not as_json:
        page = write_file(out or root / "history.html", render_history(history, version=__version__))
        if not as_json:
            say(f"\nchart: {page}")


def _push(url: str, experiment: str, runs: "tuple[HistoryRun, ...]") -> None:

    from qaeval.history.mlflow import push

    written = push(url, experiment, runs)
    n_known = len(runs) - len(written)
    say(f"{url}: {len(written)} runs written, {n_known} already present", error=True)


def compare_runs(
    runs: _Several,
    labels: Labels = None,
    margin: Margin = None,
    config: Registry = None,
    as_json: AsJson = False,
) -> None:
    """Compare the same candidates across runs.

    Shows the paired changes by chunk and the settings that differ.
    """
    from qaeval.cli.tables import print_sections
    from qaeval.comparison.run_data import labels_of_runs
    from qaeval.history.compare import compare_runs as compare
    from qaeval.history.sections import write_comparison
    from qaeval.registry.find import find_config
    from qaeval.storage.run_directory import RunStore

    if len(runs) < 2:
        raise UsageError("compare-runs: expected two or more run directories")
    with ExitStack() as stack:
        stores = [stack.enter_context(RunStore.open(path)) for path in runs]
        comparison = compare(
            stores,
            margin=margin or find_config(config).defaults.margin,
            label_paths=labels or labels_of_runs(runs, [store.settings() for store in stores]),
        )
    if as_json:
        say_json(comparison.model_dump_json())
    else:
        print_sections(write_comparison(comparison))
