"""A server on loopback that answers in vLLM's envelope: recorded replies, made-up ones, and faults on demand.

In tests: ``with LoopbackServer() as server: ... server.url``. By hand: ``python tests/replay/server.py --port 8000
--models a,b``. The same prompt to the same model always brings the same reply.
"""

import argparse
import asyncio
import itertools
import json
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

from aiohttp import web
from aiohttp.typedefs import Handler

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))
from replay.answers import PIECE, Writer, count_tokens, envelope, token_ids, usage_of
from replay.faults import FAULTS, TOO_LONG, TOO_MANY, Fault, error, route

RECORDED: Final = Path(__file__).parent / "vllm-0.32.0"


class LoopbackServer:
    """The server; it runs in a thread of its own, so that synchronous tests and subprocesses can use it too.

    Args:
        models: served names, or a mapping to their context length.
        port: 0 takes a free one.
        api_key: when given, /v1 wants it.
        latency_s: before every chat reply.
        die_after: the server is gone after that many chat replies.
        adapters: LoRA adapters, by name the model that they belong to.
        special: texts that the tokenizer turns into one id wherever they stand.
        ordinary: texts that the tokenizer turns into one id where nothing stands beside them.
        max_logprobs: requests for more alternatives are refused.
        gap_s: between two tokens of a stream; the first comes after ``latency_s``.
        roots: ids of the weights by served name.
        repetition: what it makes of the field ``repetition_detection``.
        started: start of its process, as /metrics says it.

    Attributes:
        requests: bodies of all chat requests, in order.
        headers: their headers.
        tokenized: texts that /tokenize was asked about.
        n_counted: how many lists of messages it was asked about.
        most_in_flight: the highest number of chat requests at one time.
    """

    def __init__(
        self,
        models: Sequence[str] | Mapping[str, int] = ("tiny-gen", "tiny-judge"),
        *,
        port: int = 0,
        api_key: str | None = None,
        latency_s: float = 0.0,
        die_after: int | None = None,
        adapters: Mapping[str, str] | None = None,
        special: Sequence[str] = (),
        ordinary: Sequence[str] = (),
        max_logprobs: int = 20,
        gap_s: float = 0.0,
        roots: Mapping[str, str] | None = None,
        repetition: Literal["known", "ignored", "refused"] = "known",
        started: float | None = None,
    ) -> None:
        self.models = dict(models) if isinstance(models, Mapping) else dict.fromkeys(models, 8192)
        self.port, self.api_key, self.latency_s, self.die_after = port, api_key, latency_s, die_after
        self.adapters, self.max_logprobs = dict(adapters or {}), max_logprobs
        self.gap_s, self.roots, self.started = gap_s, dict(roots or {}), started
        self.repetition = repetition
        self.special, self.ordinary = tuple(special), tuple(ordinary)
        self.tokenized: list[str] = []
        self.n_counted = 0
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.in_flight = self.most_in_flight = 0
        self._script: deque[web.Response] = deque()
        self._faults: dict[str, float] = {}
        self._ids = itertools.count()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def fail(self, fault: Fault, times: float = math.inf) -> None:
        """Switch a fault on for the next ``times`` requests; 0 switches it off."""
        self._faults[fault] = times

    def answer(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Answer the next chat request with this: JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **(headers or {})}
        self._script.append(web.Response(status=status, body=content, headers=headers))

    def replay(self, *names: str) -> None:
        """Answer the next chat requests with what vLLM was recorded to answer."""
        for name in names:
            self.answer(**recorded(name))

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the loopback server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        if self.alive and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self.join()

    def join(self) -> None:
        """Wait until the server is gone."""
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = web.Application(client_max_size=2**26, middlewares=[self._guard])
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_get("/v1/models", route(lambda: {"object": "list", "data": self._model_list()}))
        app.router.add_get("/version", route(lambda: {"version": "0.32.0"}))
        app.router.add_get("/health", route(lambda: ""))
        app.router.add_get("/metrics", route(self._metrics))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, backlog=1024).start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        is_root = not request.path.startswith("/v1/")
        if not is_root and self.api_key and request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        no_tokenizer = request.path == "/tokenize" and self._active("no_tokenizer")
        if is_root and (no_tokenizer or self._active("not_vllm")):
            return web.json_response({"detail": "Not Found"}, status=404)
        try:
            return await handler(request)
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as refused:
            return web.json_response({"detail": refused.reason}, status=refused.status)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.latency_s)
            if answer := await self._fault(request) or self._refusal(body):
                return answer
            reply = self._reply(body)
            return await self._stream(request, reply) if body.get("stream") else reply
        finally:
            self.in_flight -= 1
            if self.die_after is not None and len(self.requests) >= self.die_after and self._loop:
                self._loop.call_later(0.05, self._stop.set)

    async def _fault(self, request: web.Request) -> web.Response | None:
        if self._script:
            return self._script.popleft()
        for fault, act in FAULTS.items():
            if self._take(fault):
                return await act(request)
        return None

    def _reply(self, body: Mapping[str, Any]) -> web.Response:
        schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
        prompt = "\n".join(turn["content"] for turn in body["messages"])
        question = body["messages"][-1]["content"]
        writer = Writer(f"{body['model']}\n{prompt}", question, one_less=self._take("wrong_item_count"))
        if schema is None or self._take("ignore_schema"):
            text = writer.unbound(question) if schema is None else f"Hello. {writer.sentence(0)}"
        else:
            text = json.dumps(writer.value(schema), ensure_ascii=False)
        text = text[:-2] if self._take("invalid_json") else text
        pieces, limit, finish = PIECE.findall(text), body.get("max_tokens", 1024), "stop"
        if self._take("truncated"):
            limit = len(pieces) // 2
        if len(pieces) > limit:
            pieces, finish = pieces[:limit], "length"
        finish = "abort" if self._take("abort") else finish
        spent = body.get("max_tokens", 1024) if finish == "length" else len(pieces) + 1
        logprobs = writer.logprobs(pieces, body.get("top_logprobs", 0)) if body.get("logprobs") else None
        reply = envelope(body["model"], "".join(pieces), finish, logprobs, usage_of(prompt, spent))
        return web.json_response({"id": f"chatcmpl-{next(self._ids):016x}", **reply})

    async def _stream(self, request: web.Request, reply: web.Response) -> web.StreamResponse:
        """Send a reply in vLLM's chunks: role, tokens, usage, the end."""
        whole = json.loads(reply.text or "")
        choice, usage = whole["choices"][0], whole.pop("usage")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)

        async def send(**fields: Any) -> None:
            chunk = {"id": whole["id"], "object": "chat.completion.chunk", "model": whole["model"], **fields}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())

        def choices(delta: Mapping[str, str], finish: str | None = None) -> list[dict[str, Any]]:
            return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]

        await send(choices=choices({"role": "assistant", "content": ""}))
        pieces = PIECE.findall(choice["message"]["content"])
        for index, piece in enumerate(pieces):
            if index:
                await asyncio.sleep(self.gap_s)
            finish = choice["finish_reason"] if index + 1 == len(pieces) else None
            await send(choices=choices({"content": piece}, finish))
        await send(choices=[], usage=usage)
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        model, messages = body.get("model"), body.get("messages") or []
        if model not in self.models and model not in self.adapters:
            aliases = ", ".join(self.models)
            return error(404, f"The model `{model}` does not exist. Valid aliases: {aliases}.", "model")
        if self._active("reject_system") and any(turn["role"] == "system" for turn in messages):
            return error(400, "Conversation roles must alternate user/assistant/user/assistant/...")
        if count_tokens(messages) > (limit := self._context(model)):
            return error(400, TOO_LONG.format(limit=limit, value=limit + 1), "input_tokens")
        if (requested := body.get("top_logprobs") or 0) > self.max_logprobs:
            return error(400, TOO_MANY.format(asked=requested, limit=self.max_logprobs), "logprobs")
        return self._repetition_refusal(body.get("repetition_detection"))

    def _repetition_refusal(self, field: Mapping[str, int] | None) -> web.Response | None:
        if field and self.repetition == "refused":
            return error(400, "Extra inputs are not permitted: repetition_detection")
        if field and self.repetition == "known" and field["min_count"] < 2:
            return error(400, "min_count must be >= 2 to detect repetitive patterns in engine output.")
        return None

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        if "prompt" in body and body.get("model") in {*self.models, *self.adapters}:
            self.tokenized.append(body["prompt"])
            ids = token_ids(body["prompt"], self.special, self.ordinary)
            return web.json_response({"count": len(ids), "tokens": ids, "token_strs": None})
        self.n_counted += 1
        messages = body.get("messages") or [{"role": "user", "content": body.get("prompt", "")}]
        if refusal := self._refusal({"model": body.get("model"), "messages": messages}):
            return refusal
        if self._active("drop_system"):
            messages = [turn for turn in messages if turn["role"] != "system"]
        count = count_tokens(messages)
        counted = {"count": count, "max_model_len": self._context(body["model"])}
        return web.json_response({**counted, "tokens": [*range(count)], "token_strs": None})

    def _context(self, model: str) -> int:
        return self.models[self.adapters.get(model, model)]

    def _model_list(self) -> list[dict[str, Any]]:
        base = [{"id": name, "parent": None, "max_model_len": size} for name, size in self.models.items()]
        adapters = [
            {"id": name, "parent": model, "max_model_len": None} for name, model in self.adapters.items()
        ]
        common = {"object": "model", "created": 1795208013, "owned_by": "vllm", "permission": []}
        return [
            {**common, "root": self.roots.get(entry["id"], f"models/{entry['id']}"), **entry}
            for entry in base + adapters
        ]

    def _metrics(self) -> str:
        label, n = f'{{engine="0",model_name="{next(iter(self.models))}"}}', len(self.requests)
        values = {
            "num_requests_running": self.in_flight,
            "num_requests_waiting": 0,
            "prompt_tokens_total": sum(count_tokens(body["messages"]) for body in self.requests),
            "generation_tokens_total": 30 * n,
            "prefix_cache_queries_total": 100 * n,
            "prefix_cache_hits_total": 64 * n,
        }
        kinds = {name: "counter" if name.endswith("_total") else "gauge" for name in values}
        start = "" if self.started is None else f"process_start_time_seconds {self.started:.11e}\n"
        return start + "".join(
            f"# TYPE vllm:{name} {kinds[name]}\nvllm:{name}{label} {value:.1f}\n"
            for name, value in values.items()
        )

    def _active(self, fault: Fault) -> bool:
        return self._faults.get(fault, 0) > 0

    def _take(self, fault: Fault) -> bool:
        active = self._active(fault)
        if active:
            self._faults[fault] -= 1
        return active


def recorded(name: str) -> dict[str, Any]:
    """Return status and body of a recorded reply."""
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Answer as vLLM would, on loopback.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--models", default="tiny-gen,tiny-judge", help="served names, with commas")
    parser.add_argument("--api-key")
    parser.add_argument("--latency-s", type=float, default=0.0, help="before every chat reply")
    parser.add_argument("--die-after", type=int, help="chat replies before the server is gone")
    parser.add_argument("--fault", action="append", default=[], help=f"NAME[:TIMES] of {get_args(Fault)}")
    arguments = vars(parser.parse_args())
    faults, models = arguments.pop("fault"), arguments.pop("models").split(",")
    if unknown := {fault.partition(":")[0] for fault in faults} - {*get_args(Fault)}:
        parser.error(f"unknown faults: {sorted(unknown)}")
    with LoopbackServer(models, **arguments) as server:
        for fault in faults:
            name, _, times = fault.partition(":")
            server.fail(name, float(times or math.inf))
        print(server.url, flush=True)  # noqa: T201 - the one line that a script reads
        while server.alive:
            time.sleep(0.2)


if __name__ == "__main__":
    main()
