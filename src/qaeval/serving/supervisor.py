"""Stops a server when qaeval ends: ``python -m qaeval.serving.supervisor GRACE COMMAND...``.

The supervisor starts the command in a new process group. Its standard input is a pipe from qaeval, which
closes when qaeval stops the server, ends with an exception or is killed with SIGKILL. The group then gets
SIGTERM, and SIGKILL after GRACE seconds. This module imports nothing of qaeval, so that it starts in
milliseconds.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

_POLL_S = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: list[str]) -> int:
    """Run the command until it or standard input ends; return its exit code, 128 + n after signal n."""
    grace, *command = arguments
    received: list[int] = []
    for signum in _SIGNALS:
        # no exception: a second signal would end the supervisor while it stops the server
        signal.signal(signum, lambda signum, _frame: received.append(signum))
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - the user's own server
    try:
        while server.poll() is None and not received and not _is_closed():
            pass
    finally:
        _end(server, float(grace))
    if received:
        return 128 + received[0]
    code = server.returncode
    return code if code >= 0 else 128 - code


def _is_closed() -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], _POLL_S)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


def _end(server: "subprocess.Popen[bytes]", grace: float) -> None:
    """Stop the whole group, also where the server has ended and left child processes."""
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
