"""`qaeval export` and `qaeval import`: training data, tables, label sheets and Inspect logs, and items made elsewhere."""

import shlex
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from qaeval.cli.options import (
    AsJson,
    EvalName,
    Labels,
    Margin,
    Out,
    Registry,
    RubricName,
    RunDirectory,
    Seed,
    command_line,
    find_run_argument,
    mapping,
)
from qaeval.cli.terminal import say, say_json
from qaeval.errors import UsageError, install_command

if TYPE_CHECKING:
    from types import ModuleType

    from qaeval.export import ExportResult
    from qaeval.records import Label
    from qaeval.storage.run_directory import RunStore

TARGETS = ("sft", "dpo", "parquet", "csv", "labels", "inspect")
"""What `qaeval export --to` knows."""

_SHARES = 3


Target: TypeAlias = Annotated[
    str, typer.Option("--to", metavar="FORMAT", help=f"Target format: {', '.join(TARGETS)}.")
]
Folder: TypeAlias = Annotated[
    Path | None, typer.Option("--out", help="Output folder; default: RUN-FORMAT beside the run.")
]
Letters: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--letter", help="sft, dpo: letter of the items to export; repeatable; default: the best letter."
    ),
]
MinProbability: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--min-probability",
        min=0,
        max=1,
        help="sft, dpo: minimum probability of the judge's letter.",
    ),
]
ChecksPassed: TypeAlias = Annotated[
    bool,
    typer.Option("--checks-passed", help="sft, dpo: exclude items with check findings."),
]
ModelLabels: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--model-labels",
        help="sft, dpo: labels by models override the grade too; labels by people always do.",
    ),
]
Candidates: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--candidate", help="Export the items of this candidate only; repeatable; default: all candidates."
    ),
]
Context: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--context/--no-context",
        help="sft: put the chunk before the question; default: only for evals of answers from a chunk.",
    ),
]
Split: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="A,B,C",
        help="sft, dpo: shares of train, validation and test, split by chunk; default: 0.8,0.1,0.1.",
    ),
]
SplitBy: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--by",
        help="sft, dpo: unit that the split keeps together, chunk or document; default: chunk.",
    ),
]
PerSample: TypeAlias = Annotated[
    int | None,
    typer.Option("--per-sample", min=1, help="dpo: maximum number of pairs per sample; default: 3."),
]
Drawn: TypeAlias = Annotated[
    int | None, typer.Option("--n", min=1, help="labels: number of items to draw; default: all.")
]
Precomputed: TypeAlias = Annotated[
    bool, typer.Option("--precomputed", help="labels: write letters as precomputed scores of Inspect.")
]
Next: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--next",
        help="labels: draw the most informative items, given the existing labels: whole chunks of all candidates, or items "
        "of one candidate by the judge's letter.",
    ),
]
Spreadsheet: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--spreadsheet",
        metavar="LANGUAGE",
        help="labels: language of the spreadsheet that opens labels.csv, for example en or de: a byte order mark and its "
        "separator; default: commas, no mark.",
    ),
]
AcceptLicence: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--accept-licence",
        help="sft, dpo: model or licence whose training terms you accept; repeatable.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The options of an export; None, an empty list and False stand for absent ones."""

    labels: list[Path] | None
    letter: list[str] | None
    min_probability: float | None
    checks_passed: bool
    model_labels: bool
    candidate: list[str] | None
    context: bool | None
    split: str | None
    by: str | None
    per_sample: int | None
    n: int | None
    seed: int | None
    precomputed: bool
    next: bool
    spreadsheet: str | None
    accept_licence: list[str] | None


_TRAINING = ("sft", "dpo")
_TABLES = ("parquet", "csv")
_TARGETS_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((field.name for field in fields(ExportOptions)), _TRAINING),
    "labels": (*_TRAINING, *_TABLES, "labels"),
    "candidate": (*_TRAINING, *_TABLES, "labels"),
    "seed": (*_TRAINING, "labels"),
    "context": ("sft",),
    "per_sample": ("dpo",),
    "n": ("labels",),
    "precomputed": ("labels",),
    "next": ("labels",),
    "spreadsheet": ("labels",),
}
"""Targets that accept an option."""


def export(
    run: RunDirectory,
    to: Target,
    out: Folder = None,
    labels: Labels = None,
    letter: Letters = None,
    min_probability: MinProbability = None,
    checks_passed: ChecksPassed = False,
    model_labels: ModelLabels = False,
    candidate: Candidates = None,
    context: Context = None,
    split: Split = None,
    by: SplitBy = None,
    per_sample: PerSample = None,
    n: Drawn = None,
    seed: Seed = None,
    precomputed: Precomputed = False,
    next_: Next = False,
    spreadsheet: Spreadsheet = None,
    accept_licence: AcceptLicence = None,
) -> None:
    """Export a run as training data, tables, labels or logs."""
    from qaeval.storage.run_directory import RunStore

    options = ExportOptions(
        labels=labels,
        letter=letter,
        min_probability=min_probability,
        checks_passed=checks_passed,
        model_labels=model_labels,
        candidate=candidate,
        context=context,
        split=split,
        by=by,
        per_sample=per_sample,
        n=n,
        seed=seed,
        precomputed=precomputed,
        next=next_,
        spreadsheet=spreadsheet,
        accept_licence=accept_licence,
    )
    _require_applicable(to, options)
    target = out or run.resolve().with_name(f"{run.resolve().name}-{to}")
    with RunStore.open(run) as store:
        store.require_unchanged()
        if to == "inspect":
            _export_logs(store, target)
        else:
            _print_export(_write(store, to, target, options))
            if to == "labels":
                say(
                    f"next: fill in `label`, save as NAME.csv beside draw.json, then qaeval labels import {run} NAME.csv"
                )


def _require_applicable(to: str, options: ExportOptions) -> None:
    """Refuse an unknown target, and options that the target would ignore."""
    if to not in TARGETS:
        raise UsageError(f"--to: expected {', '.join(TARGETS)}, got {to!r}")
    for field in fields(options):
        value = getattr(options, field.name)
        # an absent switch is False; --no-context is False and present
        is_absent = value in (None, []) or (field.type is bool and not value)
        targets = _TARGETS_OF[field.name]
        if not is_absent and to not in targets:
            name = field.name.replace("_", "-")
            option = f"--no-{name}" if field.name == "context" and value is False else f"--{name}"
            raise UsageError(f"{option} has no effect with --to {to}: it applies to {' and '.join(targets)}")


def _write(store: "RunStore", to: str, target: Path, options: ExportOptions) -> "ExportResult":
    from qaeval.export import Filters, write_export
    from qaeval.export.select import Grading
    from qaeval.export.training import PAIRS_PER_SAMPLE
    from qaeval.registry.find import find_config

    by = options.by or "chunk"
    if by not in {"chunk", "document"}:
        raise UsageError(f"--by: expected chunk or document, got {by!r}")
    return write_export(
        store,
        to,  # type: ignore[arg-type]
        target,
        filters=Filters(
            letters=tuple(options.letter or Grading.of(store).scale[:1]),
            min_probability=options.min_probability,
            checks_passed=options.checks_passed,
            candidates=tuple(options.candidate or ()),
            model_labels=options.model_labels,
        ),
        labels=_labels(store, options.labels),
        split=_shares("0.8,0.1,0.1" if options.split is None else options.split),
        seed=find_config(None).defaults.seed if options.seed is None else options.seed,
        accept=tuple(options.accept_licence or ()),
        by=by,  # type: ignore[arg-type]
        with_context=options.context,
        per_sample=PAIRS_PER_SAMPLE if options.per_sample is None else options.per_sample,
        n=options.n,
        precomputed=options.precomputed,
        next_=options.next,
        spreadsheet=options.spreadsheet or "",
    )


def _export_logs(store: "RunStore", target: Path) -> None:
    from qaeval.export.select import require_finished

    bridge = _bridge()
    require_finished(store)
    existed = target.exists()
    try:
        paths = bridge.export_logs(store, target)
    except BaseException:
        if not existed:
            with suppress(OSError):
                target.rmdir()  # only if it is empty
        raise
    for path in paths:
        say(path)
    say(f"next: inspect view --log-dir {target}")


def _labels(store: "RunStore", paths: list[Path] | None) -> "list[Label]":
    """Read the given label files, else those of the run."""
    from qaeval.agreement.label_files import read_labels
    from qaeval.comparison.run_data import labels_of_run

    label_paths = paths or labels_of_run(store.path, store.settings())
    return [label for path in label_paths for label in read_labels(path)]


def _print_export(result: "ExportResult") -> None:
    from qaeval.report.numbers import plural

    for path in result.paths:
        say(path)
    for name, rows in result.counts.items():
        say(f"{name}: {plural(rows, 'row')}")
    for reason, rows in result.dropped.items():
        if rows:
            say(f"left out, {reason}: {plural(rows, 'row')}")
    for note in result.notes:
        say(f"! {note}")


def _shares(argument: str) -> tuple[float, float, float]:
    try:
        shares = tuple(float(part) for part in argument.split(","))
    except ValueError:
        shares = ()
    if len(shares) != _SHARES:
        raise UsageError(f"--split: expected three shares such as 0.8,0.1,0.1, got {argument!r}")
    return shares[0], shares[1], shares[2]


def _bridge() -> "ModuleType":
    """Import the bridge to Inspect, which is an extra."""
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec("inspect_ai") is None:
        raise UsageError(f"Inspect AI is not installed here: {install_command('inspect')}")
    return import_module("qaeval.inspect_bridge")


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="Files of items (JSON Lines, JSON array, CSV, Parquet, a datasets folder), results of promptfoo, DeepEval, Ragas, lm-eval or "
            "EvalScope, or Inspect logs; one candidate per file, unless a column names candidates.",
        ),
    ],
    out: Out = None,
    chunks: Annotated[
        Path | None,
        typer.Option(
            "--chunks",
            help="JSONL file of the chunks that items refer to by id; default: the chunks of the eval.",
        ),
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option(
            "--candidate",
            help="Candidate name, given once, or once per file; default: the column candidate or model, else the file name.",
        ),
    ] = None,
    candidate_field: Annotated[
        str | None, typer.Option("--candidate-field", metavar="COLUMN", help="Column with candidate names.")
    ] = None,
    eval_name: EvalName = None,
    rubric: RubricName = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            metavar="FIELD=COLUMN",
            help="Column of a field (question, answer, chunk_id, text, …); repeatable. Common names need no mapping.",
        ),
    ] = None,
    grade_field: Annotated[
        list[str] | None,
        typer.Option(
            "--grade-field",
            metavar="JUDGE=COLUMN",
            help="Column with the letters of a judge, for example judge=grade.",
        ),
    ] = None,
    label_field: Annotated[
        list[str] | None,
        typer.Option(
            "--label-field", metavar="RATER=COLUMN", help="Column with the labels of a rater; repeatable."
        ),
    ] = None,
    common: Annotated[
        bool, typer.Option("--common", help="Keep only the samples that all candidates have.")
    ] = False,
    join: Annotated[
        Path | None,
        typer.Option(
            "--join",
            metavar="RUN",
            parser=find_run_argument,
            help="Run on the same samples; its candidates are added to --out.",
        ),
    ] = None,
    config: Registry = None,
) -> None:
    """Import items, or results of other harnesses, as a run.

    The next step is `qaeval grade`; for logs of qaeval's tasks and graded items `qaeval report`.
    """
    from qaeval.environment import new_run_name
    from qaeval.importing.reading import format_of
    from qaeval.storage.run_directory import RunStore

    target = out or Path("results", new_run_name())
    is_run = {format_of(path) for path in files} == {"inspect"} and all(
        _bridge().is_own_log(path) for path in files
    )
    if is_run:
        of_items = {
            "--chunks": chunks,
            "--candidate": candidate,
            "--candidate-field": candidate_field,
            "--eval": eval_name,
            "--rubric": rubric,
            "--field": field,
            "--grade-field": grade_field,
            "--label-field": label_field,
            "--common": common,
            "--join": join,
        }
        for option, value in of_items.items():
            if value:
                raise UsageError(
                    f"{option} does nothing with logs of qaeval's tasks in Inspect, which name all of it themselves"
                )
        _bridge().import_log(files, target)
        with RunStore.open(target, writable=True) as store:
            store.keep_command(command_line())
        say(f"{target}\nnext: qaeval report {target}")
        return
    from qaeval import api

    api.import_items(
        files,
        out=target,
        chunks=chunks,
        candidate=candidate,
        candidate_field=candidate_field,
        eval_name=eval_name,
        rubric=rubric,
        fields=mapping(field, "--field"),
        grade_field=mapping(grade_field, "--grade-field"),
        label_fields=mapping(label_field, "--label-field"),
        common=common,
        join=join,
        config=config,
        command=command_line(),
    )
    _print_import(target, is_graded=bool(grade_field))


def _print_import(path: Path, *, is_graded: bool) -> None:
    from qaeval.report.numbers import plural
    from qaeval.storage.run_directory import RunStore

    with RunStore.open(path) as store:
        settings = store.settings()
    say(path)
    for name, counts in settings["imported"]["counts"].items():
        n, n_valid = sum(counts.values()), counts.get("valid", 0)
        failed = ", ".join(f"{reason} {k:,}" for reason, k in counts.items() if reason != "valid")
        say(f"{name}: {plural(n, 'item')}, {n_valid:,} valid{f'; failed: {failed}' if failed else ''}")
    for note in settings["imported"]["notes"]:
        say(f"! {note}")
    say(f"next: qaeval {'report' if is_graded else 'grade'} {shlex.quote(str(path))}")


def count(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help="Parquet files of `qaeval export`, or folders of them."),
    ],
    eval_name: EvalName = None,
    rubric: RubricName = None,
    margin: Margin = None,
    config: Registry = None,
    as_json: AsJson = False,
) -> None:
    """Compare candidates by the letters of exported items.

    Prints rates and differences as in a report, also of more items than fit into memory. Reads files of `qaeval export --to parquet`.
    """
    from qaeval.cli.tables import print_sections
    from qaeval.comparison.items_at_scale import count_items, write_item_counts
    from qaeval.evals.find import find_eval, find_rubric
    from qaeval.registry.find import find_config

    defaults = find_config(config).defaults
    definition = find_eval(eval_name or defaults.eval)
    counts = count_items(
        paths,
        find_rubric(rubric or definition.rubric).letters,
        items_per_sample=definition.items_per_sample,
        margin=defaults.margin if margin is None else margin,
    )
    if as_json:
        say_json(counts.model_dump_json())
    else:
        print_sections(write_item_counts(counts))
