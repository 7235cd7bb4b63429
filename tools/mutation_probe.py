"""Plugin of pytest for `tools/mutation.py`: notes what a test executes, and runs the tests of a mutant in a given order.

MUTATION_LOG names a file to which every report goes; MUTATION_TESTS a file with the ids of the tests to run.
"""

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest

try:
    import coverage
except ImportError:  # needed for the map alone
    coverage = None  # type: ignore[assignment]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Give what is executed from here on to the test."""
    running = coverage and coverage.Coverage.current()
    if running:
        running.switch_context(item.nodeid)
    try:
        return (yield)
    finally:
        if running:
            running.switch_context("")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note outcome and seconds of a test; with several workers their controller does."""
    if "PYTEST_XDIST_WORKER" not in os.environ and (log := os.environ.get("MUTATION_LOG")):
        with Path(log).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([report.nodeid, report.outcome, report.duration]) + "\n")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the named tests, in the order in which they are named."""
    if path := os.environ.get("MUTATION_TESTS"):
        ranks = {name: rank for rank, name in enumerate(Path(path).read_text(encoding="utf-8").splitlines())}
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in ranks])
        items[:] = sorted(
            (item for item in items if item.nodeid in ranks), key=lambda item: ranks[item.nodeid]
        )
