"""What was tried and what was lost, printed at the end."""

import os
from collections.abc import Callable
from typing import Any, Final

import pytest

from figures import attach_figure, collect_figures

# read when moto is imported: else the first part of a store's name is taken for its bucket
os.environ["S3_IGNORE_SUBDOMAIN_BUCKETNAME"] = "true"

_TABLES: Final = {
    "faults": ("tried", "faults", "items", "rows lost", "rows doubled", "letters that differ"),
    "crashes": (
        "command",
        "operations",
        "tried",
        "kills",
        "EIO",
        "full disk",
        "lost",
        "doubled",
        "unhealed",
    ),
    "connections": ("command", "servers", "connections", "lookups", "outside"),
}


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keep a line of figures for a table: by default what was tried, faults, rows lost, rows doubled, letters that differ."""

    def keep(*cells: object, table: str = "faults") -> None:
        assert len(cells) == len(_TABLES[table])
        attach_figure(request, table, [str(cell) for cell in cells])

    return keep


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for table, columns in _TABLES.items():
        if lines := collect_figures(terminalreporter, table):
            terminalreporter.section(table)
            terminalreporter.write_line(f"| {' | '.join(columns)} |")
            terminalreporter.write_line("|---" * len(columns) + "|")
            for line in lines:
                terminalreporter.write_line(f"| {' | '.join(line)} |")
