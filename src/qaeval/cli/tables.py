"""Output of commands on stdout."""

import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich import markup
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from qaeval.cli.terminal import say_json
from qaeval.text.visible import visible

if TYPE_CHECKING:
    from qaeval.comparison.report import Report
    from qaeval.registry.config import Config, ModelSpec
    from qaeval.report.tables import Section, Table
    from qaeval.stats.published import PublishedCheck

_STYLES: Final = {"verdict": "bold", "good": "green", "open": "yellow", "bad": "red"}
"""Style of a verdict, and of the mark of a badge or caution."""

_GAP: Final = 2
"""Blanks between two columns."""
_HEAD: Final = 3
"""First cells of a row of texts, its heading: candidate, check or reason, chunk."""


def escape(text: str) -> str:
    """Escape untrusted text for the terminal: no markup, no control characters."""
    return markup.escape(visible(text))


def print_summary(report: "Report", path: Path | None) -> None:
    """Print the first screen of a report and, for a single run, the path of the report."""
    from qaeval.comparison.terminal import overview_text

    console = Console(highlight=False)
    for line in overview_text(report):
        style = _STYLES.get(line.kind, "")
        text = Text(visible(line.text), style if line.kind == "verdict" else "")
        if not console.is_terminal:
            console.print(Text.assemble(line.mark, text), soft_wrap=True)
            continue
        lines = text.wrap(console, max(20, console.width - len(line.mark)))
        for index, part in enumerate(lines or [text]):
            mark = line.mark if index == 0 else " " * len(line.mark)
            console.print(Text.assemble((mark, style), part), soft_wrap=True)
    if path is not None:
        console.print(f"\nreport: {escape(str(path / 'report.html'))}", soft_wrap=True)


def print_sections(sections: Iterable["Section"], *, verdict: str = "") -> None:
    """Print the verdict where there is one, then sections: sentences, then tables with their notes."""
    console = Console(highlight=False)
    if verdict:
        console.print(f"[bold]{escape(verdict)}[/bold]\n", soft_wrap=not console.is_terminal)
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
    """Print each row as a block of lines, since texts in narrow columns are hard to read."""
    for row in table.rows:
        console.print(f"  [bold]{escape(' · '.join(row[:_HEAD]))}[/bold]", soft_wrap=not console.is_terminal)
        for name, cell in zip(table.header[_HEAD:], row[_HEAD:], strict=True):
            console.print(f"    {escape(name)}: {escape(cell)}", soft_wrap=not console.is_terminal)


def _short(table: "Table") -> tuple[str, ...]:
    """Omit the judge's name in the header of a confusion matrix; the caption has it."""
    if table.kind != "confusion":
        return table.header
    return ("", *(name.rsplit(" ", 1)[-1] for name in table.header[1:]))


def print_published(check: "PublishedCheck", *, claimed: bool) -> None:
    """Print the check of a published claim: verdict, contradictions, warnings and numbers."""
    console = Console(highlight=False)
    if claimed:
        verdict = "possible" if check.is_possible else "impossible"
        console.print(f"[bold]The claim is {verdict}.[/bold]")
    for text in check.contradictions:
        console.print(f"> {escape(_sentence(text))}", soft_wrap=not console.is_terminal)
    for text in check.warnings:
        console.print(f"! {escape(_sentence(text))}", soft_wrap=not console.is_terminal)
    is_known = check.bounds.agreement_min == check.bounds.agreement_max
    possible = "" if is_known else "possible "
    kappas = (
        ("kappa", check.bounds),
        ("kappa, linear weights", check.linear),
        ("kappa, quadratic weights", check.quadratic),
    )
    rows = [
        ("items", f"{check.n:,}"),
        (
            f"{possible}agreement",
            f"{_pair(check.bounds.agreement_min, check.bounds.agreement_max, 100)} %",
        ),
        ("agreement by chance", f"{100 * check.expected:.1f} %"),
        ("always the most frequent letter", f"{100 * check.baseline:.1f} %"),
        *((f"{possible}{name}", _pair(bounds.kappa_min, bounds.kappa_max)) for name, bounds in kappas),
    ]
    if not isnan(check.kappa_low):
        rows.append(("kappa of the published agreement", _pair(check.kappa_low, check.kappa_high)))
    if check.n_tables is not None:
        rows.append(("tables of counts that fit", f"{check.n_tables:,}"))
    console.print()
    print_table(console, ("from the counts", "value"), rows)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _pair(low: float, high: float, factor: float = 1) -> str:
    digits = 1 if factor > 1 else 3
    if isnan(low):
        return "undefined"
    if low == high:
        return f"{factor * low:.{digits}f}"
    return f"{factor * low:.{digits}f} to {factor * high:.{digits}f}"


def print_models(config: "Config", *, as_json: bool) -> None:
    """Print the models of the registry: candidates, then judges."""
    groups = {"candidate": config.models, "judge": config.judges}
    if as_json:
        say_json(
            {
                role: {name: spec.model_dump(mode="json") for name, spec in group.items()}
                for role, group in groups.items()
            }
        )
        return
    console = Console(highlight=False)
    for role, group in groups.items():
        print_table(console, (role, "model", "licence"), map(_model_row, group.values()), unbroken=("model",))
        console.print()
    command = config.serving.command[0]
    is_hosted = any(spec.is_hosted for group in groups.values() for spec in group.values())
    if is_hosted and shutil.which(command) is not None:
        console.print("qaeval starts the server of a model without a URL.", soft_wrap=not console.is_terminal)
    elif is_hosted:
        console.print(
            f"{escape(command)} is not installed here: start the servers yourself, and name each with --endpoint NAME=URL "
            "or `url:` in qaeval.yaml.",
            soft_wrap=not console.is_terminal,
        )


def _model_row(spec: "ModelSpec") -> tuple[str, ...]:
    """Return name, model and licence; a server that qaeval does not start is named with the model."""
    model = "runs inside qaeval" if spec.in_process else spec.hf_id or "-"
    return (spec.name, f"{model} at {spec.url}" if spec.url else model, spec.licence or "-")


def print_table(
    console: Console,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    marked: Callable[[int, int], bool] = lambda _row, _column: False,
    unbroken: Collection[str] = (),
) -> None:
    """Print a table; text wraps between words, except in the first column and those named `unbroken`."""
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    shown = [[*map(visible, cells)] for cells in rows]
    # the first column holds names to copy: it must not wrap
    is_unbroken = [index == 0 or name in unbroken for index, name in enumerate(header)]
    widths = _widths([[*map(visible, header)], *shown], is_unbroken, console.width)
    for name, no_wrap, width in zip(header, is_unbroken, widths, strict=True):
        grid.add_column(escape(name), overflow="fold", no_wrap=no_wrap, width=width)
    for row, cells in enumerate(shown):
        texts = (
            f"[bold]{markup.escape(cell)}[/bold]" if marked(row, column) else markup.escape(cell)
            for column, cell in enumerate(cells)
        )
        grid.add_row(*texts)
    console.print(grid)


def _widths(lines: Sequence[Sequence[str]], is_unbroken: Sequence[bool], available: int) -> list[int | None]:
    """Return the widths of a table's columns: wide ones narrowed alike, none below its longest word.

    All are None where the longest words do not fit beside each other: then rich breaks words.
    """
    columns = [*zip(*lines, strict=True)]
    widths = [max(map(cell_len, column)) for column in columns]
    least = [
        width if whole else max(cell_len(word) for cell in column for word in (cell.split() or [""]))
        for column, width, whole in zip(columns, widths, is_unbroken, strict=True)
    ]
    available -= _GAP * (len(columns) - 1)
    for widest in range(available, -1, -1):
        narrowed = [max(low, min(width, widest)) for low, width in zip(least, widths, strict=True)]
        if sum(narrowed) <= available:
            return [*narrowed]
    return [None] * len(columns)
