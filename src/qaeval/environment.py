"""The only reader of clock, git and environment."""

import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from qaeval.records import record_id


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_run_name() -> str:
    """Name a run by the time it starts."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def git_commit() -> str:
    """Return the commit of the working directory, ``-dirty`` appended where files differ; "" without git."""
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],  # noqa: S607 - the user's git
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""


def cache_folder() -> Path | None:
    """Return where replies of earlier runs are kept: ``results/.cache``, or what QAEVAL_CACHE says; None for ``off``."""
    said = os.environ.get("QAEVAL_CACHE", "")
    return None if said == "off" else Path(said or "results/.cache")


def shard_folder(store: str) -> Path:
    """Return where shards that are kept in a store are made: in ``results/.shards``, or where QAEVAL_SHARDS says."""
    return Path(os.environ.get("QAEVAL_SHARDS") or "results/.shards", record_id("store", store.rstrip("/")))


def quiet_mlflow(host: str) -> None:
    """Before MLflow is imported: no telemetry, no redirect or proxy on the way to the host, and an answer soon."""
    os.environ.update(
        MLFLOW_DISABLE_TELEMETRY="true",
        DO_NOT_TRACK="true",
        MLFLOW_ALLOW_HTTP_REDIRECTS="false",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",
        MLFLOW_HTTP_REQUEST_TIMEOUT="30",
    )
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), host)))


def environment() -> Mapping[str, str]:
    """Return the environment that a server of qaeval's own inherits."""
    return os.environ
