"""Commands that carry runs elsewhere: training data, tables, Inspect's logs, and back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qaeval.cli.options import Labels, Out, RunDirectory, Seed
from qaeval.errors import UsageError

if TYPE_CHECKING:
    from types import ModuleType

    from qaeval.export import Written
    from qaeval.records import Label
    from qaeval.store import RunStore

TARGETS = ("sft", "dpo", "parquet", "csv", "labels", "inspect")
"""What `qaeval export --to` knows."""

_SHARES = 3


def export(
    run: RunDirectory,
    to: Annotated[str, typer.Option("--to", help=f"{', '.join(TARGETS)}.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; RUN-TO when left out.")] = None,
    labels: Labels = None,
    letter: Annotated[
        list[str] | None,
        typer.Option(
            "--letter", help="Letters of items that become training data; the best one when left out."
        ),
    ] = None,
    min_probability: Annotated[
        float | None,
        typer.Option(
            "--min-probability", min=0, max=1, help="Least probability that the judge gave its letter."
        ),
    ] = None,
    checks_passed: Annotated[
        bool, typer.Option("--checks-passed", help="Leave out items on which a check found something.")
    ] = False,
    candidate: Annotated[
        list[str] | None,
        typer.Option("--candidate", help="Items of this candidate alone; repeat for several."),
    ] = None,
    with_context: Annotated[
        bool, typer.Option("--with-context", help="sft: put the chunk before the question.")
    ] = False,
    split: Annotated[
        str, typer.Option("--split", metavar="A,B,C", help="Shares of train, validation and test, by chunk.")
    ] = "0.8,0.1,0.1",
    by: Annotated[
        str, typer.Option("--by", help="What stays on one side of the split: chunk or document.")
    ] = "chunk",
    per_sample: Annotated[
        int, typer.Option("--per-sample", min=1, help="dpo: most pairs of one sample.")
    ] = 3,
    n: Annotated[int | None, typer.Option("--n", min=1, help="labels: how many items to draw.")] = None,
    seed: Seed = None,
    precomputed: Annotated[
        bool, typer.Option("--precomputed", help="labels: write letters as Inspect takes precomputed scores.")
    ] = False,
    accept_licence: Annotated[
        list[str] | None,
        typer.Option(
            "--accept-licence",
            help="Model or licence whose terms on training you have read; repeat for several.",
        ),
    ] = None,
) -> None:
    """Write a graded run as training data (sft, dpo), tables (parquet, csv), a sheet to label, or logs for Inspect."""
    from qaeval.store import RunStore

    if to not in TARGETS:
        raise UsageError(f"--to is {', '.join(TARGETS)}, not {to!r}")
    if by not in {"chunk", "document"}:
        raise UsageError(f"--by is chunk or document, not {by!r}")
    target = out or run.resolve().with_name(f"{run.resolve().name}-{to}")
    with RunStore.open(run) as store:
        if to == "inspect":
            _export_logs(store, target)
            return
        from qaeval.export import Filters, write_export
        from qaeval.export.select import Grading

        written = write_export(
            store,
            to,  # type: ignore[arg-type]
            target,
            filters=Filters(
                letters=tuple(letter or Grading.of(store).scale[:1]),
                min_probability=min_probability,
                checks_passed=checks_passed,
                candidates=tuple(candidate or ()),
            ),
            labels=_labels(store, labels),
            split=_shares(split),
            seed=seed or 0,
            accept=tuple(accept_licence or ()),
            by=by,  # type: ignore[arg-type]
            with_context=with_context,
            per_sample=per_sample,
            n=n,
            precomputed=precomputed,
        )
    _tell(written)


def _export_logs(store: "RunStore", target: Path) -> None:
    for path in _bridge().export_logs(store, target):
        print(path)
    print(f"next: inspect view --log-dir {target}")


def _labels(store: "RunStore", paths: list[Path] | None) -> "list[Label]":
    """Read the labels that were named, else those of the run's eval."""
    from qaeval.prepare import find_labels
    from qaeval.rundata import read_labels

    found = paths or find_labels(store.settings()["eval"]["name"])
    return [label for path in found for label in read_labels(path)]


def _tell(written: "Written") -> None:
    for path in written.paths:
        print(path)
    for name, rows in written.counts.items():
        print(f"{name}: {rows:,} rows")
    for reason, rows in written.dropped.items():
        if rows:
            print(f"left out, {reason}: {rows:,}")
    for note in written.notes:
        print(f"! {note}")


def _shares(typed: str) -> tuple[float, float, float]:
    try:
        shares = tuple(float(part) for part in typed.split(","))
    except ValueError:
        shares = ()
    if len(shares) != _SHARES:
        raise UsageError(f"--split: expected three shares such as 0.8,0.1,0.1, got {typed!r}")
    return shares[0], shares[1], shares[2]


def _bridge() -> "ModuleType":
    """Import the bridge to Inspect, which is not in the core."""
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec("inspect_ai") is None:
        raise UsageError("Inspect AI is not installed here: pip install 'qaeval[inspect]'")
    return import_module("qaeval.inspect_bridge")


def import_(
    logs: Annotated[
        list[Path],
        typer.Argument(metavar="LOG...", help="Inspect's .eval logs; several are several candidates."),
    ],
    out: Out = None,
) -> None:
    """Make a run of Inspect's logs, for `qaeval report` and what follows."""
    from qaeval.surroundings import new_run_name

    target = out or Path("results", new_run_name())
    _bridge().import_log(logs, target)
    print(f"{target}\nnext: qaeval report {target}")
