"""Start the servers, wait for the run to end, stop the servers.

They are stopped when the Job is complete, has failed or is gone, and when this pod itself is told to stop. One process decides, so
two shards that end at the same moment cannot leave the servers on.

    DEPLOYMENTS   names, with blanks between
    JOB           the Job that needs them
    NAMESPACE
"""

import json
import os
import signal
import ssl
import sys
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

ACCOUNT = Path(os.environ.get("ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
PAUSE = float(os.environ.get("PAUSE", "10"))
NOT_FOUND = 404
NO_ANSWER = (OSError, HTTPException, ValueError)
"""What a request ends with whose reply does not come, is cut off, or is no JSON."""


class Stopped(Exception):  # noqa: N818 - no error
    """The pod was told to stop."""


def api_server() -> str:
    """Return its address; by number, so that this pod needs no DNS."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    host = f"[{host}]" if ":" in host else host
    return os.environ.get("API_SERVER") or f"https://{host}:{os.environ['KUBERNETES_SERVICE_PORT']}"


def ask(path: str, patch: dict[str, Any] | None = None) -> dict[str, Any]:
    """GET, or PATCH where there is something to change. The token is read anew: it is renewed every hour."""
    url = f"{api_server()}{path}"
    request = Request(url, method="PATCH" if patch else "GET")  # noqa: S310 - the API server
    request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text().strip()}")
    if patch:
        request.data = json.dumps(patch).encode()
        request.add_header("Content-Type", "application/merge-patch+json")
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")) if url.startswith("https") else None
    with urlopen(request, timeout=30, context=context) as reply:  # noqa: S310 - as above
        return dict(json.load(reply))


def scale(replicas: int) -> None:
    """Set every Deployment's replicas; try for five minutes, because a server that stays on costs money."""
    for name in os.environ["DEPLOYMENTS"].split():
        path = f"/apis/apps/v1/namespaces/{os.environ['NAMESPACE']}/deployments/{name}/scale"
        for attempt in range(100):
            try:
                ask(path, {"spec": {"replicas": replicas}})
                break
            except NO_ANSWER as error:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                if attempt == 99:
                    raise
                time.sleep(min(3.0, PAUSE))
        print(f"{name}: {replicas}", flush=True)


def is_over() -> bool:
    """Return whether the Job has ended or is gone; an API server that does not answer says nothing."""
    try:
        job = ask(f"/apis/batch/v1/namespaces/{os.environ['NAMESPACE']}/jobs/{os.environ['JOB']}")
    except HTTPError as error:
        return error.code == NOT_FOUND
    except NO_ANSWER:
        return False
    conditions = job.get("status", {}).get("conditions") or []
    return any(entry["type"] in {"Complete", "Failed"} and entry["status"] == "True" for entry in conditions)


def _stop(*_: object) -> None:
    raise Stopped


def main() -> int:
    """Return 0 when the servers are stopped."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        if not is_over():
            scale(1)
        while not is_over():
            time.sleep(PAUSE)
    except Stopped:
        print("told to stop", flush=True)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        scale(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
