"""The command line as a user in a folder types it, in this process: a process of its own costs a second of imports."""

import contextlib
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from qaeval.cli import run


@dataclass(frozen=True)
class Typed:
    """What came of a command."""

    returncode: int
    stdout: str
    stderr: str


def qaeval(*words: object, cwd: Path) -> Typed:
    """Run a command in a folder."""
    arguments, out, err = [*map(str, words)], StringIO(), StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch.object(sys, "argv", ["qaeval", *arguments]),
    ):
        code = run(arguments)
    return Typed(code, out.getvalue(), err.getvalue())
