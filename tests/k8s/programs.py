"""Programs that the tests of the manifests hold them against, beside Python's."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOW = {
    "kubectl": "https://kubernetes.io/docs/tasks/tools says how, at least 1.29 (Debian's kubernetes-client is too old)",
    "promtool": "`make promtool` takes it out of Debian's package `prometheus` without installing it",
    "checkov": "`make checkov` puts it into an environment of its own, .venv-checkov (300 MB)",
}
PLACES = {"promtool": ROOT / ".tools" / "promtool", "checkov": ROOT / ".venv-checkov" / "bin" / "checkov"}


def program(name: str) -> str:
    """Return where a program is; without it the test is skipped, and fails where CI is set: there nobody reads what was skipped."""
    found = shutil.which(PLACES[name]) if name in PLACES else None
    found = found or shutil.which(name)
    if found is None:
        said = f"{name} is not there: {HOW[name]}"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    return found
