"""Options and fixtures of all suites.

Hypothesis searches anew on a developer's machine and repeats the same cases in CI. Only `--nightly` holds seconds to
their bars: in any other run a busy machine would fail a good change.
"""

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from figures import Bar, attach_figure, collect_figures

settings.register_profile("developer", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "developer")

# a question of an earlier test must not be answered from a cache; the tests of the cache set a folder of their own
os.environ["QAEVAL_CACHE"] = "off"

_BAR = "bar"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--nightly",
        action="store_true",
        help="run tests marked nightly, hold seconds to their bars, kill more often",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--nightly"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("nightly")])
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]


@pytest.fixture(scope="session")
def nightly(pytestconfig: pytest.Config) -> bool:
    """Whether this is a nightly run."""
    return bool(pytestconfig.getoption("--nightly"))


@pytest.fixture(scope="session")
def embedded_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of both embedded candidates on 24 chunks, made once for all workers; take a copy of it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / "embedded-run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "embedded" / "run" / "manifest.json").is_file():
            from qaeval import api  # noqa: PLC0415 - most tests need no run

            api.compare(["embedded-lead", "embedded-salient"], n=24, out=folder / "embedded" / "run")
    return folder / "embedded" / "run"


@pytest.fixture
def bar(request: pytest.FixtureRequest, nightly: bool) -> Bar:
    """Hold a value to a bar: above it, a nightly run fails and any other prints a line at its end."""

    def hold(what: str, value: float, limit: float) -> None:
        if value > limit:
            line = f"{what}: {value:.2f}, the bar is {limit:g}"
            assert not nightly, line
            attach_figure(request, _BAR, line)

    return hold


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if lines := collect_figures(terminalreporter, _BAR):
        terminalreporter.section("above the bar (held by --nightly)")
        for line in lines:
            terminalreporter.write_line(line)
