"""Wait until every server answers /health: weights and compilation take minutes, and a node may have to be bought first.

python wait_for_servers.py SECONDS URL...
"""

import sys
import time
from http.client import HTTPException
from urllib.request import urlopen


def healthy(url: str) -> bool:
    """Return whether the URL answers 200."""
    try:
        with urlopen(url, timeout=5) as reply:  # noqa: S310 - the URLs stand in the manifest
            return bool(reply.status == 200)
    except (OSError, HTTPException):  # a proxy in front of a server that starts may answer anything
        return False


def main() -> int:
    """Return 0 when all are healthy, 69 when one is not at the deadline."""
    deadline = time.monotonic() + float(sys.argv[1])
    missing = sys.argv[2:]
    while missing := [url for url in missing if not healthy(url)]:
        if time.monotonic() > deadline:
            print("no answer from", *missing, file=sys.stderr)
            return 69
        time.sleep(2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
