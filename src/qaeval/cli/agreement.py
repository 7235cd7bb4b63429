"""`qaeval agreement` and `qaeval plan`: how far a judge can be trusted, and how much data a decision needs."""

import json
import re
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from qaeval.cli.options import AsJson, Labels, Registry
from qaeval.errors import UsageError

if TYPE_CHECKING:
    from qaeval.comparison.planning import PlanReport

_TABLE: Final = re.compile(r"\d+(?:,\d+)+:\d+(?:,\d+)+")
_NUMBER: Final = re.compile(r"-?\d+(?:\.(\d+))?")


_Source: TypeAlias = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RUN|FILE]",
        help="Run directory, or CSV/TSV/JSONL file with one column of letters per rater.",
    ),
]
_By: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--by", help="Break the agreement down by candidate, stratum or type; for a file, by any column."
    ),
]
_Columns: TypeAlias = Annotated[
    str | None,
    typer.Option("--columns", metavar="A,B[,C]", help="Rater columns of a file, the reference first."),
]
_Judge: TypeAlias = Annotated[
    str | None,
    typer.Option("--judge", help="Judge column of a file; default: the second of two rater columns."),
]
_Cluster: TypeAlias = Annotated[
    str | None,
    typer.Option("--cluster", help="Cluster column of a file: the chunk or document of each row."),
]
_Scale: TypeAlias = Annotated[
    str | None, typer.Option("--scale", metavar="A,B,C", help="Scale of the letters in a file, best first.")
]
_Published: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--table",
        metavar="REFERENCE:JUDGE",
        help="Check a published claim by the letter counts of both raters, for example 111,50,10:167,3,1.",
    ),
]
_Percent: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--agreement",
        metavar="PERCENT",
        help="With --table: published agreement in percent, with its printed digits (65.0).",
    ),
]
_Kappa: TypeAlias = Annotated[
    str | None, typer.Option("--kappa", help="With --table: published kappa, with its printed digits (0.30).")
]


def agreement(
    source: _Source = None,
    labels: Labels = None,
    by: _By = None,
    columns: _Columns = None,
    judge: _Judge = None,
    cluster: _Cluster = None,
    scale: _Scale = None,
    table: _Published = None,
    percent: _Percent = None,
    kappa: _Kappa = None,
    as_json: AsJson = False,
) -> None:
    """Measure agreement between judge and labels.

    The source is a run, a file of letters, or published letter counts (--table).
    """
    from qaeval import api

    if table is not None:
        if source is not None:
            raise UsageError("--table checks published counts; leave the run or file out")
        _published(table, percent, kappa, as_json=as_json)
        return
    if source is None:
        raise UsageError("agreement needs a run directory, a file with columns of letters, or --table")
    if percent or kappa:
        raise UsageError("--agreement and --kappa belong to --table")
    if source.is_dir():
        of_files = {"--columns": columns, "--judge": judge, "--cluster": cluster, "--scale": scale}
        if wrong := [option for option, value in of_files.items() if value]:
            raise UsageError(f"{wrong[0]} belongs to a file; a run has its own")
    elif labels:
        raise UsageError("--labels belongs to a run; a file has its raters in columns")
    report = api.agreement(
        source,
        labels or None,
        by=by or "",
        columns=_listed(columns),
        judge=judge or "",
        cluster=cluster or "",
        scale=_listed(scale),
    )
    if as_json:
        print(report.model_dump_json())
        return
    from qaeval.agreement.sections import write_agreement
    from qaeval.cli.tables import print_sections

    print_sections(write_agreement(report))


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


def _published(table: str, percent: str | None, kappa: str | None, *, as_json: bool) -> None:
    from qaeval.stats.published import check_published

    if not _TABLE.fullmatch(table.replace(" ", "")):
        raise UsageError(f"--table needs the letter counts of both raters, 111,50,10:167,3,1; got {table!r}")
    reference, judge = ([int(n) for n in side.split(",")] for side in table.replace(" ", "").split(":"))
    try:
        found = check_published(
            reference,
            judge,
            agreement_percent=_printed(percent, "--agreement"),
            agreement_decimals=_decimals(percent),
            kappa=_printed(kappa, "--kappa"),
            kappa_decimals=_decimals(kappa),
        )
    except ValueError as error:
        raise UsageError(f"--table {table}: {error}") from error
    if as_json:
        known = {
            key: None if isinstance(value, float) and isnan(value) else value
            for key, value in asdict(found).items()
        }
        print(json.dumps({**known, "is_possible": found.is_possible}))
        return
    from qaeval.cli.tables import print_published

    print_published(found, claimed=percent is not None or kappa is not None)


def _printed(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    if not _NUMBER.fullmatch(text.strip()):
        raise UsageError(f"{option} needs the number as it was printed, with its digits; got {text!r}")
    return float(text)


def _decimals(text: str | None) -> int:
    """Digits after the point: they say how exactly a number was printed."""
    found = _NUMBER.fullmatch((text or "").strip())
    return len(found.group(1) or "") if found else 0


def plan(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]", help="Run that the plan is based on; without it, --rate and --icc apply."
        ),
    ] = None,
    difference: Annotated[
        float,
        typer.Option(
            "--difference", min=0.001, max=0.999, help="Difference to detect; 0.05 is 5 percentage points."
        ),
    ] = 0.05,
    power: Annotated[
        float, typer.Option("--power", min=0.05, max=0.999, help="Probability of detecting the difference.")
    ] = 0.8,
    chunks: Annotated[
        int | None,
        typer.Option(
            "--chunks", min=2, help="Number of available chunks; default: those of the run, or of the eval."
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", min=0.001, max=0.999, help="Without a run: expected usable rate; default: 0.8."
        ),
    ] = None,
    icc: Annotated[
        float | None,
        typer.Option(
            "--icc",
            min=0.0,
            max=0.99,
            help="Without a run: intraclass correlation of the items of a chunk; default: 0.2.",
        ),
    ] = None,
    items: Annotated[int, typer.Option("--items", min=1, help="Without a run: items per chunk.")] = 3,
    as_json: AsJson = False,
    config: Registry = None,
) -> None:
    """Estimate the number of chunks that a comparison needs.

    For a run, also the smallest difference that its chunks can detect.
    """
    from qaeval.cli.tables import print_sections
    from qaeval.comparison.planning import write_plan

    try:
        if run is None:
            report = _plan_assumed(
                0.8 if rate is None else rate,
                0.2 if icc is None else icc,
                items,
                chunks,
                difference=difference,
                power=power,
                config=config,
            )
        else:
            if rate is not None or icc is not None:
                raise UsageError(
                    "--rate and --icc are assumptions for a plan without a run; a run shows its own"
                )
            report = _plan_run(run, chunks, difference=difference, power=power)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if as_json:
        print(report.model_dump_json())
    else:
        print_sections(write_plan(report))


def _plan_assumed(
    rate: float,
    icc: float,
    items: int,
    chunks: int | None,
    *,
    difference: float,
    power: float,
    config: Path | None,
) -> "PlanReport":
    from qaeval.comparison.planning import plan_assumed
    from qaeval.corpus.loading import load_chunks
    from qaeval.evals.find import find_eval
    from qaeval.registry.find import find_config

    if chunks is None:
        chunks = len(load_chunks(find_eval(find_config(config).defaults.eval).chunks_path))
    return plan_assumed(
        rate=rate, icc=icc, items_per_chunk=items, n_chunks=chunks, difference=difference, power=power
    )


def _plan_run(run: Path, chunks: int | None, *, difference: float, power: float) -> "PlanReport":
    from qaeval.comparison.planning import plan_run
    from qaeval.comparison.run_data import read_run
    from qaeval.storage.run_directory import RunStore

    with RunStore.open(run) as store:
        data = read_run(store, label_paths=())
    names = [facts.name for facts in data.candidates]
    if len(names) < 2:
        raise UsageError(
            f"{run}: has one candidate; a plan needs a run of two, or --rate and --icc without a run"
        )
    return plan_run(
        data.table(),
        source=str(run),
        candidates=names,
        best=data.rubric.best,
        difference=difference,
        power=power,
        n_chunks=chunks,
    )
