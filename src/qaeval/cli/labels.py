"""`qaeval labels`: status, import, export and adjudication of the labels of a run."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from qaeval.cli.options import AllowHosts, AsJson, Margin, NoBrowser, Port, RunDirectory
from qaeval.cli.terminal import say, say_json
from qaeval.errors import UsageError

if TYPE_CHECKING:
    from qaeval.labelling import Adjudication, Dispute

labels_app = typer.Typer(help="Manage the labels of a run.", no_args_is_help=True, rich_markup_mode=None)

Spreadsheet: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--spreadsheet",
        metavar="LANGUAGE",
        help="Language of the spreadsheet that opens a .csv file, for example en or de: a byte order mark and its separator; "
        "default: commas, no mark.",
    ),
]


@labels_app.command()
def status(
    run: RunDirectory,
    margin: Margin = None,
    as_json: AsJson = False,
) -> None:
    """Show raters, their agreement, and what more labels would buy."""
    from qaeval import api

    report = api.label_status(run, margin=margin)
    if as_json:
        say_json(report.model_dump_json())
        return
    from qaeval.cli.tables import print_sections
    from qaeval.labelling.sections import write_status

    print_sections(write_status(report))


@labels_app.command("import")
def import_(
    run: RunDirectory,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Label files of other machines, filled-in sheets, exports."),
    ],
    rater: Annotated[
        str | None,
        typer.Option(
            "--rater",
            metavar="NAME",
            help="Rater of all labels; default: that of each row, else the file name.",
        ),
    ] = None,
) -> None:
    """Merge label files into a run.

    Labels that the run has already are left out. If a rater gave an item two different letters, the items are named and nothing is
    imported.
    """
    from qaeval.labelling.transfer import import_labels
    from qaeval.report.numbers import plural

    imported = import_labels(run, files, rater=rater or "")
    for path, (name, n) in zip(imported.paths, imported.added.items(), strict=True):
        say(f"{path}: {plural(n, 'new label')} by {name}")
    for n, what in (
        (imported.n_present, "already in the run"),
        (imported.n_not_in_run, "of items that the run does not have, left out"),
        (imported.n_other_rubric, "under another rubric, left out"),
    ):
        if n:
            say(f"{plural(n, 'label')} {what}")
    if n := imported.n_without_probability:
        say(
            f"{plural(n, 'label')} without the probability of the draw, which is in the draw.json of an exported sheet: estimates "
            "assume that the draw depends on nothing but the judge's letters"
        )


@labels_app.command("export")
def export_(
    run: RunDirectory,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write: .csv or .jsonl.")],
    rater: Annotated[
        list[str] | None,
        typer.Option("--rater", metavar="NAME", help="Labels of this rater only; repeatable; default: all."),
    ] = None,
    spreadsheet: Spreadsheet = None,
) -> None:
    """Write the labels of a run as one file.

    The file has the probability with which each item was drawn; every command that takes labels reads it.
    """
    from qaeval.labelling.transfer import export_labels
    from qaeval.report.numbers import plural

    counts = export_labels(run, out, raters=rater or (), spreadsheet=spreadsheet or "")
    say(out)
    for name, n in counts.items():
        say(f"{name}: {plural(n, 'label')}")


@labels_app.command()
def adjudicate(
    run: RunDirectory,
    rater: Annotated[
        str | None, typer.Option("--rater", metavar="NAME", help="Third person, who settles the items.")
    ] = None,
    settle: Annotated[
        list[str] | None,
        typer.Option("--settle", metavar="ITEM=LETTER", help="Settle an item by this letter; repeatable."),
    ] = None,
    note: Annotated[
        str | None, typer.Option("--note", help="Reason, stored with the letters of --settle.")
    ] = None,
    port: Port = None,
    no_browser: NoBrowser = False,
    allow_host: AllowHosts = None,
    as_json: AsJson = False,
) -> None:
    """List or settle items to which people gave different letters.

    With --rater, a local page shows the letters and notes of an item without names, and the third person decides. A settled letter is
    the reference of agreement, report and gate in place of both.
    """
    from qaeval.cli.label import serve
    from qaeval.labelling import Adjudication, open_disputes
    from qaeval.web.adjudicate import adjudication_page

    if settle and not rater:
        raise UsageError("--settle requires --rater: a third person settles an item")
    if not rater:
        disputes = open_disputes(run)
        _print_disputes(disputes, as_json=as_json)
        if not disputes and not as_json:
            say("No item has different letters by two people that nobody settled.")
        return
    with Adjudication.open(run, rater) as adjudication:
        if settle:
            _settle(adjudication, settle, note or "")
        if as_json:
            left = [dispute for dispute in adjudication.disputes() if dispute.settled is None]
            _print_disputes(left, as_json=True)
            return
        if not settle:
            page = adjudication_page(adjudication)
            serve(page, adjudication, port, allow_host, open_browser=not no_browser)
        say(f"{adjudication.n_settled} of {adjudication.n_total} settled")


def _settle(adjudication: "Adjudication", pairs: list[str], note: str) -> None:
    by_item = {dispute.item_id: dispute.question.assignment for dispute in adjudication.disputes()}
    decisions = []
    for pair in pairs:
        item_id, separator, letter = pair.rpartition("=")
        if not separator or item_id not in by_item:
            raise UsageError(
                f"--settle {pair}: expected ITEM=LETTER with an item in dispute; the command without --settle lists them"
            )
        decisions.append((by_item[item_id], letter))
    for assignment, letter in decisions:
        adjudication.settle(assignment, letter, note=note)


def _print_disputes(disputes: "Iterable[Dispute]", *, as_json: bool) -> None:
    if as_json:
        say_json(
            [
                {
                    "item_id": dispute.item_id,
                    "title": dispute.question.title,
                    "text": dispute.question.text,
                    "question": dispute.question.question,
                    "answer": dispute.question.answer,
                    "rejected": dispute.question.rejected,
                    "labels": [
                        {
                            "rater": label.rater,
                            "letter": label.letter,
                            "flags": label.flags,
                            "note": label.note,
                        }
                        for label in dispute.labels
                    ],
                }
                for dispute in disputes
            ]
        )
        return
    for dispute in disputes:
        say(f"{dispute.item_id}  {dispute.question.question}")
        say(f"  {dispute.question.answer}")
        for label in dispute.labels:
            flags = f" ({', '.join(label.flags)})" if label.flags else ""
            say(f"  {label.rater}: {label.letter}{flags}{'  ' + label.note if label.note else ''}")
