"""What the commands print on stdout."""

import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qaeval.config import Config, ModelSpec
from qaeval.report.document import Report
from qaeval.report.render_terminal import render_text_rows


def print_summary(report: Report, path: Path) -> None:
    """Print the comparison and where the report stands."""
    console = Console(highlight=False)
    summary = render_text_rows(report)
    _print_table(console, summary.header, summary.rows)
    for kind, text in summary.headline:
        mark = {"caution": "! ", "finding": "> "}.get(kind, "  ")
        console.print(f"{mark}{escape(text)}", soft_wrap=not console.is_terminal)
    console.print(f"\nreport: {escape(str(path / 'report.html'))}", soft_wrap=True)


def print_models(config: Config, *, as_json: bool) -> None:
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
    _print_table(Console(highlight=False), ("name", "role", "model", "licence", "where"), rows)


def _model_row(role: str, spec: ModelSpec) -> tuple[str, ...]:
    where = "built in" if spec.kind == "embedded" else spec.url or "no url: --endpoint"
    return (spec.name, role, spec.hf_id or "-", spec.licence or "-", where)


def _print_table(console: Console, header: tuple[str, ...], rows: object) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(header):
        # the first column holds names that people copy: it is never broken
        table.add_column(escape(name), overflow="fold", no_wrap=place == 0)
    for row in rows:  # type: ignore[attr-defined]
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
