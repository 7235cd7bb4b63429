"""What was tried and what was lost, printed at the end."""

from collections.abc import Callable
from typing import Any

import pytest

from figures import report, reported

_LOSSES = "losses"


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keep a line of figures: what was tried, faults, rows lost, rows doubled, letters that differ."""

    def keep(*cells: object) -> None:
        report(request, _LOSSES, [str(cell) for cell in cells])

    return keep


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if lines := reported(terminalreporter, _LOSSES):
        terminalreporter.section("faults")
        terminalreporter.write_line(
            "| tried | faults | items | rows lost | rows doubled | letters that differ |"
        )
        terminalreporter.write_line("|---|---|---|---|---|---|")
        for line in lines:
            terminalreporter.write_line(f"| {' | '.join(line)} |")
