"""A fake MLflow tracking server on loopback: the REST paths a history needs, with a record of requests."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

API = "/api/2.0/mlflow/"


class TrackingServer:
    """Experiments and runs in memory."""

    def __init__(self) -> None:
        self.url = ""
        self.page = 1000
        self.requests: list[str] = []
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.requests.append(path)
        handlers = {
            "experiments/get-by-name": self._experiment,
            "experiments/create": self._create_experiment,
            "runs/create": self._create_run,
            "runs/get": lambda body: (200, {"run": self.runs[body["run_id"]]}),
            "runs/log-batch": self._log,
            "runs/update": self._update,
            "runs/search": self._search,
        }
        name = path.removeprefix(API)
        if name not in handlers:
            return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": path}
        return handlers[name](body)

    def _experiment(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = body["experiment_name"]
        if name not in self.experiments:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": name}
        return 200, {
            "experiment": {
                "experiment_id": self.experiments[name],
                "name": name,
                "lifecycle_stage": "active",
            }
        }

    def _create_experiment(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.experiments[body["name"]] = str(len(self.experiments) + 1)
        return 200, {"experiment_id": self.experiments[body["name"]]}

    def _create_run(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        run_id = f"{len(self.runs):032x}"
        info = {
            "run_id": run_id,
            "run_uuid": run_id,
            "run_name": body["run_name"],
            "experiment_id": body["experiment_id"],
            "status": "RUNNING",
            "start_time": body["start_time"],
            "lifecycle_stage": "active",
        }
        data = {"tags": body.get("tags", []), "metrics": [], "params": []}
        self.runs[run_id] = {"info": info, "data": data}
        return 200, {"run": self.runs[run_id]}

    def _log(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        for kind in ("metrics", "params", "tags"):
            self.runs[body["run_id"]]["data"][kind] += body.get(kind, [])
        return 200, {}

    def _update(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        info = self.runs[body["run_id"]]["info"]
        info.update({name: body[name] for name in ("status", "end_time") if name in body})
        return 200, {"run_info": info}

    def _search(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        matching = [
            run for run in self.runs.values() if run["info"]["experiment_id"] in body["experiment_ids"]
        ]
        start = int(body.get("page_token") or 0)
        end = start + self.page
        return 200, {
            "runs": matching[start:end],
            **({"next_page_token": str(end)} if end < len(matching) else {}),
        }


@contextmanager
def tracking_server() -> Iterator[TrackingServer]:
    """Run a tracking server until the end of the block."""
    tracking = TrackingServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self._reply(parts.path, query)

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._reply(urlsplit(self.path).path, json.loads(text or b"{}"))

        def _reply(self, path: str, body: dict[str, Any]) -> None:
            status, answer = tracking.answer(path, body)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Suppress logging."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tracking.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield tracking
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
