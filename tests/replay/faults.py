"""What can go wrong with a server, and the words in which vLLM says so."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal

from aiohttp import web

Fault = Literal[
    "rate_limit",  # 429 with Retry-After
    "error_500",
    "reset",  # the connection is cut without an answer
    "garbage",  # bytes that are not HTTP
    "hang",  # no answer before the client gives up
    "redirect",
    "no_choices",
    "truncated",  # finish_reason "length" at half of the text
    "abort",  # finish_reason "abort" with HTTP 200
    "invalid_json",  # the JSON lacks its last characters
    "wrong_item_count",  # one item fewer than the schema asks for
    "ignore_schema",  # prose instead of JSON
    "reject_system",  # the chat template knows no system role
    "drop_system",  # the chat template leaves the system message out
    "no_tokenizer",
    "not_vllm",  # neither /health nor /version nor /tokenize nor /metrics
]

TOO_LONG: Final = (
    "This model's maximum context length is {limit} tokens. However, your prompt contains at least {value} input "
    "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. "
    "(parameter=input_tokens, value={value})"
)
TOO_MANY: Final = (
    "Requested sample logprobs of {asked}, which is greater than max allowed: {limit} "
    "(parameter=logprobs, value={asked})"
)


def error(status: int, text: str, param: str | None = None) -> web.Response:
    kinds = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}
    inner = {"message": text, "type": kinds.get(status, "Error"), "param": param, "code": status}
    headers = {"Retry-After": "7"} if status == 429 else None
    return web.json_response({"error": inner}, status=status, headers=headers)


def route(answer: Callable[[], Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        body = answer()
        return web.Response(text=body) if isinstance(body, str) else web.json_response(body)

    return handle


async def _hang(_: web.Request) -> web.Response:
    await asyncio.sleep(3600)
    return web.Response()


async def _reset(request: web.Request) -> web.Response:
    if request.transport:
        request.transport.abort()
    return web.Response()


async def _garbage(request: web.Request) -> web.Response:
    if request.transport:
        request.transport.write(b"HTTP/9 what\r\n\r\n")
        request.transport.close()
    return web.Response()


async def _rate_limit(_: web.Request) -> web.Response:
    return error(429, "Too many requests")


async def _error_500(_: web.Request) -> web.Response:
    return error(500, "EngineCore encountered an issue. See stack trace (above) for the root cause.")


async def _redirect(_: web.Request) -> web.Response:
    return web.Response(status=307, headers={"Location": "http://user:secret@example.com/v1?key=1"})


async def _no_choices(_: web.Request) -> web.Response:
    return web.json_response({"object": "list"})


FAULTS: Final[Mapping[Fault, Callable[[web.Request], Awaitable[web.Response]]]] = {
    "hang": _hang,
    "reset": _reset,
    "garbage": _garbage,
    "rate_limit": _rate_limit,
    "error_500": _error_500,
    "redirect": _redirect,
    "no_choices": _no_choices,
}
