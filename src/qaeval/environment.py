"""Clock, git and environment: no other module reads them."""

import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from qaeval.records import record_id


def now() -> str:
    """Return the time in UTC, ISO 8601, with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_run_name() -> str:
    """Return a name for a run: the present time."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def git_commit() -> str:
    """Return the commit of the working directory, with ``-dirty`` where files differ; empty without git."""
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
    """Return the folder of the reply cache: QAEVAL_CACHE, default ``results/.cache``; None for ``off``."""
    folder = os.environ.get("QAEVAL_CACHE", "")
    return None if folder == "off" else Path(folder or "results/.cache")


def shard_folder(store: str) -> Path:
    """Return the local folder for shards of a store: in QAEVAL_SHARDS, default ``results/.shards``."""
    return Path(os.environ.get("QAEVAL_SHARDS") or "results/.shards", record_id("store", store.rstrip("/")))


def quiet_mlflow(host: str) -> None:
    """Set MLflow's environment: no telemetry, no redirect or proxy on the way to the host, short timeouts.

    Call it before MLflow is imported, which reads these variables once.
    """
    os.environ.update(
        MLFLOW_DISABLE_TELEMETRY="true",
        DO_NOT_TRACK="true",
        MLFLOW_ALLOW_HTTP_REDIRECTS="false",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",
        MLFLOW_HTTP_REQUEST_TIMEOUT="30",
    )
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), host)))


def quiet_ray() -> None:
    """Set Ray's environment: no usage statistics, no lines of its C++ core on stderr, no deprecations of its own code.

    Call it before Ray is imported. The head of a cluster that is up decides about its statistics itself.
    """
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", DO_NOT_TRACK="true", RAY_BACKEND_LOG_LEVEL="fatal")


def environment() -> Mapping[str, str]:
    """Return the environment that a server started by qaeval inherits."""
    return os.environ
