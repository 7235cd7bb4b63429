"""`qaeval agreement` and `qaeval plan`: agreement of the judge with labels, and the size of a comparison."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from qaeval.cli.options import AsJson, Labels, Registry, find_run_argument, margin_option
from qaeval.cli.terminal import say_json
from qaeval.errors import UsageError

if TYPE_CHECKING:
    from qaeval.comparison.planning import PlanReport


_Source: TypeAlias = Annotated[
    Path | None,
    typer.Argument(
        metavar="RUN|FILE",
        parser=find_run_argument,
        help="Run directory, `latest`, or CSV/TSV/JSONL file with one column of letters per rater.",
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
    typer.Option(
        "--judge",
        help="Judge of a run with several judges, or judge column of a file; default: the first judge, or the second of two "
        "rater columns.",
    ),
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
        help="Check a published claim by the letter counts of both raters (111,50,10:167,3,1), or by the whole table, rows of "
        "the reference (17,13/0,9).",
    ),
]
_Percent: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--agreement",
        metavar="NUMBER",
        help="With --table: published agreement with its printed digits, in percent (65.0) or as a share (0.65).",
    ),
]
_Items: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--items",
        min=1,
        metavar="N",
        help="With --table: number of items; the table may then hold percentages.",
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
    items: _Items = None,
    as_json: AsJson = False,
) -> None:
    """Measure agreement between judge and labels.

    The source is a run, a file of letters, or published letter counts (--table).
    """
    from qaeval import api

    if table is not None:
        if source is not None:
            raise UsageError("--table checks published counts; omit the run or file")
        from qaeval.agreement.published import check_claim, claim_json
        from qaeval.cli.tables import print_published

        check = check_claim(table, agreement=percent, kappa=kappa, items=items)
        if as_json:
            say_json(claim_json(check))
        else:
            print_published(check, claimed=percent is not None or kappa is not None)
        return
    if source is None:
        raise UsageError("agreement needs a run directory, a file with columns of letters, or --table")
    if percent or kappa or items:
        raise UsageError("--agreement, --kappa and --items require --table")
    if source.is_dir():
        file_options = {"--columns": columns, "--cluster": cluster, "--scale": scale}
        if wrong := [option for option, value in file_options.items() if value]:
            raise UsageError(f"{wrong[0]} applies to a file; a run has its own")
    elif labels:
        raise UsageError("--labels applies to a run; the raters of a file are its columns")
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
        say_json(report.model_dump_json())
        return
    from qaeval.agreement.messages import verdict_line
    from qaeval.agreement.sections import write_agreement
    from qaeval.cli.tables import print_sections

    print_sections(write_agreement(report), verdict=verdict_line(report))


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


def plan(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            parser=find_run_argument,
            help="Run that the plan is based on, or `latest`; without it, --rate and --icc apply.",
        ),
    ] = None,
    difference: Annotated[
        float,
        typer.Option(
            "--difference",
            metavar="MARGIN",
            parser=margin_option,
            help="Difference to detect: 5 points, 5%, 5pp or 0.05.",
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
                    "--rate and --icc are assumptions for a plan without a run; omit them, the run has its own"
                )
            report = _plan_run(run, chunks, difference=difference, power=power)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if as_json:
        say_json(report.model_dump_json())
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
    from qaeval.comparison.analysis import check_judge, require_graded
    from qaeval.comparison.correction import correct_differences
    from qaeval.comparison.differences import compare_candidates
    from qaeval.comparison.planning import plan_run
    from qaeval.comparison.run_data import labels_of_run, read_run
    from qaeval.comparison.verdict import judge_doubts
    from qaeval.storage.run_directory import RunStore

    with RunStore.open(run) as store:
        data = read_run(store, label_paths=labels_of_run(run, store.settings()))
    names = [facts.name for facts in data.candidates]
    if len(names) < 2:
        raise UsageError(
            f"{run}: has one candidate; expected a run of two or more, or --rate and --icc without a run"
        )
    table, best = data.table(), data.rubric.best
    require_graded(table, run)
    agreement, controls = check_judge(data, table)
    judged = compare_candidates(table, candidates=names, best=best, margin=difference)
    return plan_run(
        table,
        source=str(run),
        candidates=names,
        best=best,
        difference=difference,
        power=power,
        n_chunks=chunks,
        labelled=correct_differences(
            judged,
            table,
            data.rows.labels,
            rubric=data.rubric,
            margin=difference,
            judge_tuned=data.judge_tuned,
        ),
        doubts=judge_doubts(agreement, controls),
        controls=controls,
    )
