"""A loopback server that behaves like the hosted APIs: odd about sampling, busy, overloaded, and refusing now and then."""

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Final, Self

KEY: Final = "sk-hosted-not-for-logs"
LETTERS: Final = "ABCAB"
UNFINISHED: Final = (
    "Could not finish the message because max_tokens or model output limit was reached. "
    "Please try again with higher max_tokens."
)


class HostedApi:
    """Serves one model; a context manager.

    Args:
        busy: Number of requests that are first refused with 429 and ``Retry-After``.
        overloaded: Number of requests that are first refused with 529.
        refuses: Every so many requests the model refuses to answer; 0: never.
        fields: Sampling fields that are refused by name; ``together`` refuses temperature and top_p in one request.
        min_tokens: Tokens that the model thinks at least: a smaller limit is refused.

    Attributes:
        requests: Bodies of all chat requests.
        keys: Their ``Authorization`` headers.
        most_in_flight: Highest number of requests at one time.
    """

    def __init__(
        self,
        *,
        busy: int = 0,
        overloaded: int = 0,
        refuses: int = 0,
        fields: tuple[str, ...] = ("together",),
        min_tokens: int = 0,
    ) -> None:
        self.busy, self.overloaded, self.refuses, self.fields = busy, overloaded, refuses, fields
        self.min_tokens = min_tokens
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.n_graded = self.in_flight = self.most_in_flight = 0
        self.lock = Lock()

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.api = self  # type: ignore[attr-defined]
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def answer(self, body: Mapping[str, Any], key: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Return status, body and headers of a request."""
        self.requests.append(dict(body))
        self.keys.append(key)
        if key != f"Bearer {KEY}":
            return 401, _error("authentication_error", f"invalid key {key}"), {}
        if refusal := self._refusal(body):
            return 400, _error("invalid_request_error", refusal), {}
        if self.busy:
            self.busy -= 1
            return 429, _error("rate_limit_error", "slow down"), {"Retry-After": "0.05"}
        if self.overloaded:
            self.overloaded -= 1
            return 529, _error("overloaded_error", "Overloaded"), {}
        return 200, self._completion(body), {}

    def _refusal(self, body: Mapping[str, Any]) -> str:
        if "together" in self.fields and {"temperature", "top_p"} <= body.keys():
            return "temperature and top_p cannot both be specified"
        for name in self.fields:
            if name in body:
                return f"Unsupported parameter: '{name}'"
        limit = body.get("max_completion_tokens", body.get("max_tokens", self.min_tokens))
        return UNFINISHED if limit < self.min_tokens else ""

    def _completion(self, body: Mapping[str, Any]) -> dict[str, Any]:
        schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema", {})
        properties = schema.get("properties", {})
        content: dict[str, Any] = {"text": "hello"}
        refusal = None
        if "word" in properties:
            content = {"word": properties["word"]["enum"][0]}
        elif "letter" in properties:
            self.n_graded += 1
            if self.refuses and self.n_graded % self.refuses == 0:
                refusal = "I can't help with grading this."
            letter = LETTERS[self.n_graded % len(LETTERS)]
            content = {"reason": "The text says so.", "letter": letter}
            for name, form in properties.items():
                if name not in content:
                    content[name] = False if form.get("type") == "boolean" else form.get("enum", [""])[0]
        message = {
            "role": "assistant",
            "content": None if refusal else json.dumps(content),
            "refusal": refusal,
        }
        usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return {
            "id": "1",
            "object": "chat.completion",
            "model": "opus-5-2026-10-01",
            "choices": [choice],
            "usage": usage,
        }


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        api: HostedApi = self.server.api  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with api.lock:
            api.in_flight += 1
            api.most_in_flight = max(api.most_in_flight, api.in_flight)
        with api.lock:
            status, answer, headers = api.answer(body, self.headers.get("Authorization", ""))
        content = json.dumps(answer).encode()
        self.send_response(status)
        fixed = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        for name, value in {**fixed, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        with api.lock:
            api.in_flight -= 1
