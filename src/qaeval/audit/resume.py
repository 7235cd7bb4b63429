"""The command that finishes an audit."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qaeval.errors import DataError
from qaeval.storage.run_directory import RunStore


def require_finished(store: RunStore) -> None:
    """Refuse an audit whose judge is still to be asked.

    Args:
        store: The open directory of the audit.

    Raises:
        DataError: The audit is not finished; the message has the command that finishes it.
    """
    n = sum(row.is_pending for row in store.audit_items())
    if n:
        raise DataError(
            f"{store.path}: the audit is not finished, {n:,} of its items wait for the judge: "
            f"`{command_to_finish(store.settings(), store.path)}`"
        )


def command_to_finish(settings: Mapping[str, Any], path: Path) -> str:
    """Return the command that continues an audit, from its settings.

    Args:
        settings: Of the audit's directory.
        path: The directory.
    """
    about, grading, definition = settings["audit"], settings["grading"], settings["eval"]
    rubric = grading["rubric"]["name"]
    options = {"--eval": definition["name"], "--n": about["n"], "--seed": about["seed"]}
    if rubric != definition["rubric"]:
        options["--rubric"] = rubric
    if about["families"]:  # of the candidates of a run, whose path is not recorded
        options["--run"] = "RUN"
    words = [str(word) for option in options.items() for word in option]
    return shlex.join(["qaeval", "audit", grading["judge"]["name"], *words, "--out", str(path), "--resume"])
