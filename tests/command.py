"""The command line as a user in a folder types it, in this process: a process of its own costs a second of imports."""

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from qaeval.cli import run

_WATCHED = """
import json, sys
seen = []
def watch(event, arguments):
    if event in {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"}:
        seen.append([event, repr(arguments[1] if event.startswith("socket.connect") else arguments[0])])
sys.addaudithook(watch)
from qaeval.cli import run
code = run(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump([code, seen], file)
"""


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


def sockets_of(*words: str, log: Path) -> tuple[set[str], set[str]]:
    """Run a command that ends well in a process of its own; return the addresses it connected to, and the names it looked up."""
    subprocess.run([sys.executable, "-c", _WATCHED, str(log), *words], check=True, timeout=300)
    code, seen = json.loads(log.read_text())
    assert code == 0
    connected = {where for event, where in seen if event == "socket.connect"}
    return connected, {where for event, where in seen if event != "socket.connect"}
