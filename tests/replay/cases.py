"""Replays the replies of `tests/data/cases/replies.jsonl`: each case is a server at ``/<id>/v1``.

Real requests get the reply of the case; ``/v1/models`` and small probes are answered well unless the case has ``also_probe``. Fields of a
case: id, good (what must hold), status, headers, body (JSON) or raw (text), when ("all", "every 3rd", "only 22nd"; other requests
get a good reply), refuse (a request field that is refused with 400, with the words of ``says``).
"""

import json
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Final, Self

REPLIES: Final = Path(__file__).parents[1] / "data" / "cases" / "replies.jsonl"
CASES: Final[Mapping[str, dict[str, Any]]] = {
    row["id"]: row for line in REPLIES.read_text("utf-8").splitlines() if (row := json.loads(line))
}


class CaseServer:
    """Serves all cases on a free port of the loopback; a context manager."""

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.seen = Counter()  # type: ignore[attr-defined]
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, case: str) -> str:
        """Return the base URL of a case."""
        return f"http://127.0.0.1:{self._server.server_port}/{case}/v1"

    def n_asked(self, case: str) -> int:
        """Return how many requests got the reply of the case."""
        return int(self._server.seen[case])  # type: ignore[attr-defined]


def _good(request: Mapping[str, Any]) -> dict[str, Any]:
    schema = (request.get("response_format") or {}).get("json_schema", {}).get("schema", {})
    properties = schema.get("properties", {})
    content: dict[str, Any] = {"reason": "It stands in the source.", "letter": "A", "hallucination": False}
    if "word" in properties:
        content = {"word": properties["word"]["enum"][0]}
    elif "letter" not in properties and "to grade" not in json.dumps(request.get("messages")):
        kinds = ("factual", "conceptual", "comparison")
        content = {
            "pairs": [
                {"type": kind, "question": f"What is the {kind} point?", "answer": "Ten."} for kind in kinds
            ]
        }
    message = {"role": "assistant", "content": json.dumps(content)}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}
    return {"id": "1", "object": "chat.completion", "model": "m", "usage": usage, "choices": [choice]}


def _is_due(when: str, number: int) -> bool:
    word, _, nth = when.partition(" ")
    count = int("".join(filter(str.isdigit, nth)) or 1)
    return number == count if word == "only" else number % count == 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.endswith("/models"):
            served = {"id": "m", "object": "model", "max_model_len": 8192}
            self._send(200, json.dumps({"object": "list", "data": [served]}).encode())
        else:
            self._send(200 if self.path.endswith("/health") else 404, b"")

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        case = CASES[self.path.split("/")[1]]
        if not self.path.endswith("/chat/completions"):
            return self._send(404, b'{"detail":"Not Found"}')
        if case.get("refuse") in request:
            return self._send(400, json.dumps({"error": {"message": case["says"]}}).encode())
        is_probe = request["messages"][-1]["content"] == "Say hello." and not case.get("also_probe")
        seen: Counter[str] = self.server.seen  # type: ignore[attr-defined]
        if is_probe:
            return self._send(200, json.dumps(_good(request)).encode())
        seen[case["id"]] += 1
        if not _is_due(case.get("when", "all"), seen[case["id"]]):
            return self._send(200, json.dumps(_good(request)).encode())
        content = case["raw"].encode() if "raw" in case else json.dumps(case["body"]).encode()
        return self._send(case["status"], content, case.get("headers", {}))

    def _send(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        fixed = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        for name, value in {**fixed, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
