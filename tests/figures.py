"""Figures measured by tests: attached to the test reports, so they also arrive from xdist workers."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

Bar: TypeAlias = Callable[[str, float, float], None]
"""The fixture `bar`: the name of the measurement, its value, and the highest acceptable value."""


def attach_figure(request: pytest.FixtureRequest, name: str, value: Any) -> None:
    """Attach a figure to the running test; it must be JSON serialisable."""
    request.node.user_properties.append((name, value))


def collect_figures(terminalreporter: Any, name: str) -> list[Any]:
    """Return the figures with a name from all tests."""
    reports = [report for kind_reports in terminalreporter.stats.values() for report in kind_reports]
    calls = [report for report in reports if getattr(report, "when", None) == "call"]
    return [value for call in calls for key, value in call.user_properties if key == name]
