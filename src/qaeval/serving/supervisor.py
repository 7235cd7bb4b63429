"""Keeps a server from outliving qaeval: ``python -m qaeval.serving.supervisor GRACE COMMAND...``.

It starts the command in a process group of its own and holds qaeval's end of a pipe as its standard input. When the
pipe closes, because qaeval stopped the server, died of an exception or was killed with SIGKILL, the group is asked
to end, and killed after GRACE seconds. It imports nothing of qaeval, so it starts in an instant.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

_POLL_S = 0.1


def main(arguments: list[str]) -> int:
    """Run the command until it ends or standard input does; return its exit code, 128 + n after signal n."""
    grace, *command = arguments
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _as_exit)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - the user's own server
    try:
        while server.poll() is None and not _is_closed():
            pass
    finally:
        _end(server, float(grace))
    code = server.returncode
    return code if code >= 0 else 128 - code


def _as_exit(signum: int, _frame: object) -> None:
    raise SystemExit(128 + signum)


def _is_closed() -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], _POLL_S)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


def _end(server: "subprocess.Popen[bytes]", grace: float) -> None:
    """End the whole group, also where the server itself is gone and left others behind."""
    until = time.monotonic() + grace
    _signal(server.pid, signal.SIGTERM)
    while server.poll() is None and time.monotonic() < until:
        time.sleep(_POLL_S / 2)
    _signal(server.pid, signal.SIGKILL)
    server.wait()


def _signal(group: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
