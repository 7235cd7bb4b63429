"""What the commands print on stdout."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich import markup
from rich.console import Console
from rich.table import Table as Grid

from qaeval.cli.terminal import printable

if TYPE_CHECKING:
    from qaeval.comparison.report import Report
    from qaeval.registry.config import Config, ModelSpec
    from qaeval.report.tables import Section, Table
    from qaeval.stats.published import PublishedCheck

_MARKS: Final = {"caution": "! ", "finding": "> "}
"""What stands before a sentence, by its kind."""

_HEAD: Final = 3
"""Cells that name a row of texts: candidate, check or reason, chunk."""


def escape(text: str) -> str:
    """Make any text safe for the terminal: no markup, no control characters."""
    return markup.escape(printable(text))


def print_summary(report: "Report", path: Path | None) -> None:
    """Print the comparison and, of one run, where the report stands."""
    from qaeval.comparison.terminal import render_text_rows

    console = Console(highlight=False)
    summary = render_text_rows(report)
    print_table(console, summary.header, summary.rows)
    for kind, text in summary.headline:
        line = (
            f"\n[bold]{escape(text)}[/bold]"
            if kind == "verdict"
            else f"{_MARKS.get(kind, '  ')}{escape(text)}"
        )
        console.print(line, soft_wrap=not console.is_terminal)
    if path is not None:
        console.print(f"\nreport: {escape(str(path / 'report.html'))}", soft_wrap=True)


def print_sections(sections: Iterable["Section"]) -> None:
    """Print sentences first, then the tables, with their notes."""
    console = Console(highlight=False)
    for index, section in enumerate(sections):
        if index:
            console.print()
        console.print(f"[bold]{escape(section.title)}[/bold]")
        for text in section.paragraphs:
            console.print(f"  {escape(text)}", soft_wrap=not console.is_terminal)
        for table in section.tables:
            console.print(f"\n{escape(table.caption)}", soft_wrap=True)
            if table.kind == "text":
                _print_blocks(console, table)
            else:
                print_table(
                    console, _short(table), table.rows, marked=table.is_diagonal, unbroken=("candidate",)
                )
            for note in table.notes:
                console.print(f"  {escape(note)}", soft_wrap=not console.is_terminal)


def _print_blocks(console: Console, table: "Table") -> None:
    """Print each row as lines under its first cells: texts in narrow columns cannot be read."""
    for row in table.rows:
        console.print(f"  [bold]{escape(' · '.join(row[:_HEAD]))}[/bold]", soft_wrap=not console.is_terminal)
        for name, cell in zip(table.header[_HEAD:], row[_HEAD:], strict=True):
            console.print(f"    {escape(name)}: {escape(cell)}", soft_wrap=not console.is_terminal)


def _short(table: "Table") -> tuple[str, ...]:
    """Leave the judge's name out of the columns of a confusion matrix, whose caption has it."""
    if table.kind != "confusion":
        return table.header
    return ("", *(name.rsplit(" ", 1)[-1] for name in table.header[1:]))


def print_published(check: "PublishedCheck", *, claimed: bool) -> None:
    """Print what published counts allow: the verdict, why, what speaks against the judge, and the numbers."""
    console = Console(highlight=False)
    if claimed:
        verdict = "possible" if check.is_possible else "impossible"
        console.print(f"[bold]The claim is {verdict}.[/bold]")
    for text in check.contradictions:
        console.print(f"> {escape(_sentence(text))}", soft_wrap=not console.is_terminal)
    for text in check.warnings:
        console.print(f"! {escape(_sentence(text))}", soft_wrap=not console.is_terminal)
    kappas = (
        ("kappa", check.bounds),
        ("linear weights", check.linear),
        ("quadratic weights", check.quadratic),
    )
    rows = [
        ("items", f"{check.n:,}"),
        (
            "agreement that the counts allow",
            f"{_pair(check.bounds.agreement_min, check.bounds.agreement_max, 100)} %",
        ),
        ("agreement by chance", f"{100 * check.expected:.1f} %"),
        ("always the commonest letter", f"{100 * check.baseline:.1f} %"),
        *((f"{name} that they allow", _pair(bounds.kappa_min, bounds.kappa_max)) for name, bounds in kappas),
    ]
    if not isnan(check.kappa_low):
        rows.append(("kappa of the printed agreement", _pair(check.kappa_low, check.kappa_high)))
    if check.n_tables is not None:
        rows.append(("tables of whole items that fit", f"{check.n_tables:,}"))
    console.print()
    print_table(console, ("from the counts", "value"), rows)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _pair(low: float, high: float, factor: float = 1) -> str:
    digits = 1 if factor > 1 else 3
    return f"{factor * low:.{digits}f} to {factor * high:.{digits}f}"


def print_models(config: "Config", *, as_json: bool) -> None:
    """Print the registry: candidates, then judges."""
    groups = {"candidate": config.models, "judge": config.judges}
    if as_json:
        print(
            json.dumps(
                {
                    role: {name: spec.model_dump(mode="json") for name, spec in group.items()}
                    for role, group in groups.items()
                }
            )
        )
        return
    rows = [_model_row(role, spec) for role, group in groups.items() for spec in group.values()]
    print_table(Console(highlight=False), ("name", "role", "model", "licence", "where"), rows)


def _model_row(role: str, spec: "ModelSpec") -> tuple[str, ...]:
    location = "runs inside qaeval" if spec.in_process else spec.url or "no url: --endpoint"
    return (spec.name, role, spec.hf_id or "-", spec.licence or "-", location)


def print_table(
    console: Console,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    marked: Callable[[int, int], bool] = lambda _row, _column: False,
    unbroken: Collection[str] = (),
) -> None:
    """Print a table; the first column, and those named as unbroken, are never broken."""
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(header):
        # the first column holds names that people copy: it is never broken
        grid.add_column(escape(name), overflow="fold", no_wrap=index == 0 or name in unbroken)
    for row, cells in enumerate(rows):
        texts = (
            f"[bold]{escape(cell)}[/bold]" if marked(row, column) else escape(cell)
            for column, cell in enumerate(cells)
        )
        grid.add_row(*texts)
    console.print(grid)
