"""Facts about an endpoint: version, models, capabilities; None for those that a server does not reveal.

`files_digest` identifies the files of a server that runs on this machine.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import Field

from qaeval.chat.wire import another_model, content_text, is_unfinished, rename_fields, server_message
from qaeval.errors import EndpointError, closest
from qaeval.records import Record
from qaeval.registry.levers import REPETITION_DETECTION
from qaeval.serving.client import HttpAnswer, Server

_OK: Final = 200
_KEY_REFUSED: Final = frozenset({401, 403})
_REDIRECT: Final = range(300, 400)
_MAX_ATTEMPTS: Final = 4
_FIRST_WAIT_S: Final = 0.1
_SLOW_S: Final = 10.0
"""A server that fails this slowly is not asked again: the probe runs before every stage."""
_TRANSIENT: Final = frozenset({0, 408, 429, *range(500, 600)})
"""No answer at all, or a status that may change."""
_NOT_FOUND: Final = 404
_SERVER_ERROR: Final = range(500, 600)
_START: Final = re.compile(rb"(?m)^process_start_time_seconds ([0-9.e+]{1,30})$")
_LOGPROB_LIMITS: Final = (20, 5, 1)
_ROOM_FOR_THINKING: Final = 2048
"""Limit of tokens for models that think before they reply to any question."""

_WORD: Final = "quokka-7319"
"""A model writes this only if the schema forces it to."""

_WORD_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"word": {"type": "string", "enum": [_WORD]}},
    "required": ["word"],
    "additionalProperties": False,
}
_USER: Final = {"role": "user", "content": "Say hello."}
_SYSTEM: Final = {"role": "system", "content": "You are a careful reader of technical documents."}


class ServedModel(Record):
    """One name under which a server answers."""

    name: str
    max_model_len: int | None = None
    adapter_of: str | None = None
    """The base model of a LoRA adapter."""
    root: str | None = None
    """Path or id that the server loaded it from."""


class EndpointFacts(Record):
    """Results of the probe; None for facts that the server does not reveal."""

    base_url: str
    model: str
    version: str | None = None
    """vLLM's version; None for other servers."""
    served: tuple[ServedModel, ...] | None = None
    model_found: bool | None = None
    max_model_len: int | None = None
    """Context length in tokens; an adapter has its base model's."""
    system_role: bool | None = None
    """Whether a system message reaches the model; False where the template refuses or drops it."""
    structured_output: bool | None = None
    """Whether a JSON schema is enforced, proved by one reply."""
    schema_refusal: str = Field(default="", exclude_if=lambda text: not text)
    """The server's words where it refuses a JSON schema, or fails on it alone."""
    fields: Mapping[str, str] = Field(default_factory=dict, exclude_if=lambda fields: not fields)
    """Name under which the server takes a sampling field of a request; empty for one that it refuses or that is omitted."""
    max_logprobs: int | None = None
    """Alternatives per token that the server returns, up to 20; 0 for none."""
    repetition_detection: bool | None = Field(default=None, exclude_if=lambda known: known is None)
    """Whether the server ends replies that repeat themselves; None where it is no vLLM."""
    tokenizer: bool | None = None
    """Whether ``/tokenize`` renders messages and counts their tokens."""
    metrics: bool | None = None
    """Whether ``/metrics`` answers."""
    root: str | None = None
    """Path or id that the server reports to have loaded: an id on Hugging Face, or a folder on its
    machine."""
    files_sha256: str | None = None
    """Hash of that folder, where it is on this machine; see `files_digest`."""
    started: str | None = Field(default=None, exclude_if=lambda started: started is None)
    """Start of the server's process in seconds since 1970, as its metrics say it."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the LoRA adapters that are loaded."""
        return tuple(model.name for model in self.served or () if model.adapter_of)


class Reach(Record):
    """Whether an endpoint answers."""

    ok: bool
    detail: str
    """The answer in one line."""
    models: tuple[str, ...] = ()
    seconds: float = Field(default=0.0, ge=0)


async def probe(
    base_url: str,
    model: str,
    *,
    addresses: Sequence[str],
    api_key: str | None = None,
    timeout_s: float = 60.0,
    omitted: Sequence[str] = (),
    reply_names: Sequence[str] = (),
) -> EndpointFacts:
    """Probe a server, with small requests to the model: first a plain one.

    Args:
        base_url: up to and with ``/v1``.
        model: the served name.
        api_key: sent as bearer token.
        addresses: the only addresses to connect to: those that the guard checked.
        timeout_s: for one request.
        omitted: sampling fields that are left out of every request.
        reply_names: further names of models that may answer.

    Raises:
        EndpointError: nothing answers, the key is refused, the model is not served, a plain request is refused, or another model
            answers.
    """
    async with Server(base_url, api_key, timeout_s, addresses=addresses) as server:
        served = await _served(server)
        _require(server, served, model)
        ask = await _plain(server, model, dict.fromkeys(omitted, ""), reply_names)
        version, tokens, schema, logprobs, metrics = await asyncio.gather(
            _version(server),
            _system_by_tokenizer(server, model),
            _structured(ask),
            _max_logprobs(ask),
            server.ask("/metrics", root=True),
        )
        structured, schema_refusal = schema
        system = tokens if tokens is not None else await _system_by_request(ask)
        repetition = None if version is None else await _repetition_detection(ask)
    return EndpointFacts(
        base_url=base_url,
        model=model,
        root=next((entry.root for entry in served or () if entry.name == model), None),
        version=version,
        served=served,
        model_found=None if served is None else True,
        max_model_len=_max_model_len(served or (), model),
        system_role=system,
        structured_output=structured,
        schema_refusal=schema_refusal,
        fields=ask.fields,
        max_logprobs=logprobs,
        repetition_detection=repetition,
        tokenizer=tokens is not None,
        metrics=metrics.status == _OK,
        started=_started(metrics),
    )


class _Asked(Protocol):
    """What the probe asks: a server of our own, or a hosted API."""

    @property
    def base(self) -> str:
        """URL up to and with ``/v1``."""
        ...

    async def ask(self, path: str, body: Mapping[str, Any] | None = None) -> HttpAnswer:
        """Send GET, or POST with a body."""
        ...


async def probe_hosted(
    server: _Asked, model: str, *, omitted: Sequence[str] = (), reply_names: Sequence[str] = ()
) -> EndpointFacts:
    """Probe a hosted API, with a few requests of a token each.

    Args:
        server: The API.
        model: Name of the model.
        omitted: Sampling fields that are left out of every request.
        reply_names: Further names of models that may answer.

    Raises:
        EndpointError: the API does not answer, refuses the key or a plain request, or another model answers.
    """
    ask = await _plain(server, model, dict.fromkeys(omitted, ""), reply_names, is_dated_allowed=True)
    (structured, schema_refusal), logprobs = await asyncio.gather(_structured(ask), _max_logprobs(ask))
    return EndpointFacts(
        base_url=server.base,
        model=model,
        structured_output=structured,
        schema_refusal=schema_refusal,
        fields=ask.fields,
        max_logprobs=logprobs,
        tokenizer=False,
        metrics=False,
    )


async def reach(
    base_url: str, *, addresses: Sequence[str], api_key: str | None = None, timeout_s: float = 3.0
) -> Reach:
    """Ask for health and model names; never raises."""
    started = asyncio.get_running_loop().time()
    async with Server(base_url, api_key, timeout_s, addresses=addresses) as server:
        health, models = await asyncio.gather(server.ask("/health", root=True), server.ask("/models"))
    seconds = asyncio.get_running_loop().time() - started
    names = tuple(model.name for model in _models(models.body) or ())
    if models.status == _OK:
        return Reach(
            ok=True, detail=f"serves {', '.join(names) or 'no model'}", models=names, seconds=seconds
        )
    if health.status == _OK and models.status not in _KEY_REFUSED:
        return Reach(ok=True, detail=f"healthy; /models: {models.summary}", seconds=seconds)
    return Reach(ok=False, detail=models.summary, seconds=seconds)


async def served_models(
    base_url: str, *, api_key: str | None, addresses: Sequence[str], timeout_s: float = 10.0
) -> tuple[ServedModel, ...]:
    """Return the models of a server.

    Args:
        base_url: up to and with ``/v1``.
        api_key: sent as bearer token.
        addresses: the only addresses to connect to.
        timeout_s: for the request.

    Raises:
        EndpointError: nothing answers, the key is refused, or the answer is not a list of models.
    """
    async with Server(base_url, api_key, timeout_s, addresses=addresses) as server:
        models = await _served(server)
    if models is None:
        raise EndpointError(
            f"{base_url}/models: expected the list of models, got something else; is the URL right?"
        )
    return models


async def _served(server: Server) -> tuple[ServedModel, ...] | None:
    answer = await server.ask("/models")
    expected = f"{server.base}/models: expected the list of models, got {answer.summary}"
    if answer.status == 0:
        raise EndpointError(f"{expected}; is the server up, and the URL right?")
    if answer.status in _KEY_REFUSED:
        raise EndpointError(
            f"{expected}; set an environment variable to the API key, and name it as `api_key_env` in "
            f"qaeval.yaml"
        )
    if answer.status in _REDIRECT:
        raise EndpointError(f"{expected}, a redirect, which is not followed; give the final URL")
    if answer.status in _SERVER_ERROR:
        raise EndpointError(f"{expected}; it may still be loading, see its log")
    if answer.status == _NOT_FOUND and server.root == server.base:
        raise EndpointError(f"{expected}; should the URL end with /v1?")
    return _models(answer.body)


def _models(body: object) -> tuple[ServedModel, ...] | None:
    entries = body.get("data") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        return None
    return tuple(
        _model(entry) for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)
    )


def _model(entry: Mapping[str, Any]) -> ServedModel:
    length, parent, root = entry.get("max_model_len"), entry.get("parent"), entry.get("root")
    return ServedModel(
        name=entry["id"],
        max_model_len=length if isinstance(length, int) else None,
        adapter_of=parent if isinstance(parent, str) else None,
        root=root if isinstance(root, str) else None,
    )


def _require(server: Server, served: tuple[ServedModel, ...] | None, model: str) -> None:
    if served is None or model in {entry.name for entry in served}:
        return
    names = [entry.name for entry in served]
    raise EndpointError(
        f"{server.base}: expected a server of {model!r}, it serves {names}.{closest(model, names)} Set "
        f"`served_name` in qaeval.yaml to one of these"
    )


def _max_model_len(served: tuple[ServedModel, ...], model: str) -> int | None:
    by_name = {entry.name: entry for entry in served}
    entry = by_name.get(model)
    if entry and entry.max_model_len is None and entry.adapter_of:
        entry = by_name.get(entry.adapter_of)
    return entry.max_model_len if entry else None


async def _version(server: Server) -> str | None:
    body = (await server.ask("/version", root=True)).body
    version = body.get("version") if isinstance(body, dict) else None
    return version if isinstance(version, str) else None


def _started(metrics: HttpAnswer) -> str | None:
    match = _START.search(metrics.content) if metrics.status == _OK else None
    return match[1].decode() if match else None


async def _system_by_tokenizer(server: Server, model: str) -> bool | None:
    """Count tokens with and without a system message: a template that drops it adds none."""
    plain, with_system = await asyncio.gather(
        _count(server, model, [_USER]), _count(server, model, [_SYSTEM, _USER])
    )
    if not plain:
        return None
    return None if with_system is None else with_system > plain


async def _count(server: Server, model: str, messages: list[dict[str, str]]) -> int | None:
    """Count tokens; 0 when the server refuses the messages, None when it does not count."""
    answer = await server.ask("/tokenize", {"model": model, "messages": messages}, root=True)
    if answer.refused:
        return 0
    count = answer.body.get("count") if answer.status == _OK and isinstance(answer.body, dict) else None
    return count if isinstance(count, int) else None


@dataclass(frozen=True)
class _Asker:
    """Asks the model for a short deterministic reply, in the form that the server takes."""

    server: _Asked
    model: str
    fields: Mapping[str, str]

    async def chat(self, messages: Sequence[Mapping[str, str]], **extras: object) -> HttpAnswer:
        """Send a request, and again with room for thinking where the model reached its limit before the reply began."""
        fixed = {"temperature": 0, "top_p": 1, "seed": 0, "max_tokens": 1}
        body = {"model": self.model, "messages": messages, **fixed, **extras}
        answer = await self._sent(body)
        if answer.refused and is_unfinished(answer.content):
            answer = await self._sent({**body, "max_tokens": _ROOM_FOR_THINKING})
        return answer

    async def _sent(self, body: dict[str, Any]) -> HttpAnswer:
        """Send a request; transient errors are retried, because a wrong fact would change all requests of the run."""
        body = dict(body)
        rename_fields(body, self.fields)
        start_s = asyncio.get_running_loop().time()
        for attempt in range(_MAX_ATTEMPTS):
            answer = await self.server.ask("/chat/completions", body)
            if answer.status not in _TRANSIENT or asyncio.get_running_loop().time() - start_s > _SLOW_S:
                break
            await asyncio.sleep(_FIRST_WAIT_S * 2**attempt)
        return answer


_SAMPLING: Final = ("top_p", "seed", "temperature", "max_tokens")
"""Fields that may be left out or renamed; of two that a server names, the first: at temperature 0 the others say little."""
_OTHER_LIMIT: Final = "max_completion_tokens"


async def _plain(
    server: _Asked,
    model: str,
    fields: dict[str, str],
    names: Collection[str],
    *,
    is_dated_allowed: bool = False,
) -> _Asker:
    """Ask without any extra; a sampling field that the server refuses by its name is left out, or renamed, from then on.

    Raises:
        EndpointError: a plain request is refused, or a model of another name answers.
    """
    while True:
        ask = _Asker(server, model, dict(fields))
        answer = await ask.chat([_USER])
        if not answer.refused:
            break
        said = server_message(answer.content, secret=None)
        refused = next(
            (name for name in _SAMPLING if name not in fields and re.search(rf"\b{name}\b", said)), None
        )
        if refused is None or is_unfinished(answer.content):  # which names a field that the server knows
            raise EndpointError(f"{server.base}: the server refuses a plain request: {said}{_advice(said)}")
        fields[refused] = _OTHER_LIMIT if refused == "max_tokens" else ""
    answered = answer.body.get("model") if answer.status == _OK and isinstance(answer.body, dict) else None
    if is_dated_allowed and answer.status != _OK:  # a server of our own may be loading
        raise EndpointError(
            f"{server.base}: expected a reply, got {answer.summary}; check the URL, the key and the model's name"
        )
    named = answered if isinstance(answered, str) else ""
    if problem := another_model(model, named, names, is_dated_allowed=is_dated_allowed):
        raise EndpointError(f"{server.base}: {problem}")
    return ask


def _advice(said: str) -> str:
    if re.search(r"chat[ _]template", said, re.IGNORECASE):
        return (
            "; the model has no chat template, as base models do not: serve one that is tuned for chat, or pass `--chat-template FILE` "
            "to vLLM (`vllm_args:` in qaeval.yaml)"
        )
    return ""


async def _system_by_request(ask: _Asker) -> bool | None:
    """Send a request with a system message; a refusal counts only if one without it is answered."""
    if (await ask.chat([_SYSTEM, _USER])).status == _OK:
        return True
    return False if (await ask.chat([_USER])).status == _OK else None


async def _structured(ask: _Asker) -> tuple[bool | None, str]:
    """Ask for a constant that the prompt does not contain: only an enforced schema produces it.

    Returns:
        Whether the schema is enforced, None where that is not known; and the server's words where it refuses the field, or
        fails on it although a plain request is answered.
    """
    schema = {"name": "probe", "schema": _WORD_SCHEMA, "strict": True}
    answer = await ask.chat(
        [_USER], response_format={"type": "json_schema", "json_schema": schema}, max_tokens=64
    )
    choice = _choice(answer)
    if choice is None:
        said = server_message(answer.content, secret=None)
        if answer.refused:
            return (None, "") if is_unfinished(answer.content) else (False, said)
        fails = answer.status in _SERVER_ERROR and (await ask.chat([_USER])).status == _OK
        return (
            (False, f"HTTP {answer.status} {said}, while plain requests are answered")
            if fails
            else (None, "")
        )
    message = choice.get("message")
    try:
        text = "".join(content_text(message.get("content") if isinstance(message, dict) else None).split())
    except TypeError:
        text = ""
    expected = f'{{"word":"{_WORD}"}}'
    if choice.get("finish_reason") == "length" and expected.startswith(text):
        return None, ""  # cut off on the way to the constant: neither proved nor refuted
    return text == expected, ""


async def _max_logprobs(ask: _Asker) -> int | None:
    for limit in _LOGPROB_LIMITS:
        answer = await ask.chat([_USER], logprobs=True, top_logprobs=limit)
        choice = _choice(answer)
        if choice is not None:
            logprobs = choice.get("logprobs")
            tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
            first = tokens[0] if isinstance(tokens, list) and tokens else None
            return limit if isinstance(first, dict) and first.get("top_logprobs") else 0
        if not answer.refused:
            return None
    return 0


async def _repetition_detection(ask: _Asker) -> bool:
    """Whether the server knows the field: it refuses a count of 1, which is none, and takes a right one.

    vLLM ignores fields that it does not know, and a gateway may refuse every one of them.
    """
    right = dict(REPETITION_DETECTION["repetition_detection"])
    wrong = await ask.chat([_USER], repetition_detection={**right, "min_count": 1})
    return wrong.refused and _choice(await ask.chat([_USER], repetition_detection=right)) is not None


def _choice(answer: HttpAnswer) -> Mapping[str, Any] | None:
    choices = answer.body.get("choices") if answer.status == _OK and isinstance(answer.body, dict) else None
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None


_READ: Final = frozenset({".json", ".model", ".txt", ".jinja"})
"""Suffixes of files whose content is hashed: settings, tokenizer, index of the weights. Of the weights name
and size count."""
_MAX_READ: Final = 64 * 2**20


def files_digest(folder: Path) -> str:
    """Hash a model's folder: names and sizes of all files, and the content of small ones.

    Weights are not read: 15 GB would take minutes before every stage. Weights that were replaced by others of
    the same names and sizes are therefore not noticed.

    Raises:
        OSError: the folder cannot be read.
    """
    lines = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        size = path.stat().st_size
        is_read = path.suffix in _READ and size <= _MAX_READ
        content = hashlib.sha256(path.read_bytes()).hexdigest() if is_read else "-"
        lines.append(f"{path.name}\t{size}\t{content}\n")
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()
