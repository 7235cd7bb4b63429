"""Fail unless this pod cannot reach the outside: a NetworkPolicy that nobody enforces looks like one that is enforced.

Some network plugins let a new pod talk until its rules are in place, so the test waits: every target has to be closed in three
looks in a row before the deadline. Nothing is sent; a connection that opens is closed at once.

    EGRESS_TARGETS    host:port, with blanks between
    EGRESS_NAME       a name whose lookup has to fail too; empty where the pod may ask the cluster's DNS
    EGRESS_DEADLINE   seconds
"""

import os
import socket
import sys
import time

LOOKS_IN_A_ROW = 3


def opens(target: str) -> bool:
    """Return whether a TCP connection to ``host:port`` opens."""
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError:
        return False
    return True


def resolves(name: str) -> bool:
    """Return whether the name can be looked up."""
    try:
        socket.getaddrinfo(name, 443)
    except OSError:
        return False
    return True


def open_ways(targets: list[str], name: str) -> list[str]:
    """Return what can be reached."""
    found = [target for target in targets if opens(target)]
    return [*found, f"DNS ({name})"] if name and resolves(name) else found


def main() -> int:
    """Return 0 when every way out is closed, 1 when one is still open at the deadline."""
    targets = os.environ.get("EGRESS_TARGETS", "1.1.1.1:443 8.8.8.8:53 169.254.169.254:80").split()
    name = os.environ.get("EGRESS_NAME", "")
    pause = float(os.environ.get("EGRESS_PAUSE", "2"))
    deadline = time.monotonic() + float(os.environ.get("EGRESS_DEADLINE", "90"))
    closed = 0
    while closed < LOOKS_IN_A_ROW:
        found = open_ways(targets, name)
        closed = 0 if found else closed + 1
        if found and time.monotonic() > deadline:
            print(
                f"egress-selftest: {', '.join(found)} can be reached from this pod, and nothing may be. Does the network plugin "
                "enforce NetworkPolicy? See k8s/README.md, first section.",
                file=sys.stderr,
            )
            return 1
        time.sleep(pause)
    print("egress-selftest: closed:", *targets, name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
