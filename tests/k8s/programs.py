"""External programs that the manifest tests need."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALL_HINTS = {
    "kubectl": "https://kubernetes.io/docs/tasks/tools says how, at least 1.29 (Debian's kubernetes-client is too old)",
    "promtool": "`make promtool` takes it out of Debian's package `prometheus` without installing it",
    "checkov": "`make checkov` puts it into an environment of its own, .venv-checkov (300 MB)",
}
LOCAL_PATHS = {
    "promtool": ROOT / ".tools" / "promtool",
    "checkov": ROOT / ".venv-checkov" / "bin" / "checkov",
}


def program(name: str) -> str:
    """Return the path of a program; without it, the test is skipped, or fails if CI is set."""
    path = shutil.which(LOCAL_PATHS[name]) if name in LOCAL_PATHS else None
    path = path or shutil.which(name)
    if path is None:
        message = f"{name} is not there: {INSTALL_HINTS[name]}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path
