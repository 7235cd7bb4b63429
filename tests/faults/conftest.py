"""What was tried and what was lost, printed at the end."""

from collections.abc import Callable
from typing import Any

import pytest

_FIGURES = pytest.StashKey[list[tuple[str, ...]]]()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keep a line of figures: what was tried, faults, rows lost, rows doubled, letters that differ."""
    lines = request.config.stash.setdefault(_FIGURES, [])

    def keep(*cells: object) -> None:
        lines.append(tuple(map(str, cells)))

    return keep


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    lines = config.stash.get(_FIGURES, [])
    if lines:
        terminalreporter.section("faults")
        terminalreporter.write_line(
            "| tried | faults | items | rows lost | rows doubled | letters that differ |"
        )
        terminalreporter.write_line("|---|---|---|---|---|---|")
        for line in lines:
            terminalreporter.write_line(f"| {' | '.join(line)} |")
