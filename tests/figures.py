"""Figures that tests report: they travel with the reports of tests, so the workers of xdist deliver them too."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

Bar: TypeAlias = Callable[[str, float, float], None]
"""The fixture `bar`: what was measured, its value, the highest that is fine."""


def report(request: pytest.FixtureRequest, name: str, value: Any) -> None:
    """Attach a figure to the test that runs; it must be JSON."""
    request.node.user_properties.append((name, value))


def reported(terminalreporter: Any, name: str) -> list[Any]:
    """Return the figures of a name that all tests reported."""
    reports = [one for kind in terminalreporter.stats.values() for one in kind]
    calls = [one for one in reports if getattr(one, "when", None) == "call"]
    return [value for call in calls for key, value in call.user_properties if key == name]
