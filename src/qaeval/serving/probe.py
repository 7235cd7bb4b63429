"""Facts about an endpoint: version, models, capabilities; None for those that a server does not reveal.

`files_digest` identifies the files of a server that runs on this machine.
"""

import asyncio
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from qaeval.errors import EndpointError, closest
from qaeval.records import Record
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
_LOGPROB_LIMITS: Final = (20, 5, 1)

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
    max_logprobs: int | None = None
    """Alternatives per token that the server returns, up to 20; 0 for none."""
    tokenizer: bool | None = None
    """Whether ``/tokenize`` renders messages and counts their tokens."""
    metrics: bool | None = None
    """Whether ``/metrics`` answers."""
    root: str | None = None
    """Path or id that the server reports to have loaded: an id on Hugging Face, or a folder on its
    machine."""
    files_sha256: str | None = None
    """Hash of that folder, where it is on this machine; see `files_digest`."""

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
) -> EndpointFacts:
    """Probe a server, with at most six small requests to the model.

    Args:
        base_url: up to and with ``/v1``.
        model: the served name.
        api_key: sent as bearer token.
        addresses: the only addresses to connect to: those that the guard checked.
        timeout_s: for one request.

    Raises:
        EndpointError: nothing answers, the key is refused, or the model is not served.
    """
    async with Server(base_url, api_key, timeout_s, addresses=addresses) as server:
        served = await _served(server)
        _require(server, served, model)
        version, tokens, structured, logprobs, metrics = await asyncio.gather(
            _version(server),
            _system_by_tokenizer(server, model),
            _structured(server, model),
            _max_logprobs(server, model),
            server.ask("/metrics", root=True),
        )
        system = tokens if tokens is not None else await _system_by_request(server, model)
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
        max_logprobs=logprobs,
        tokenizer=tokens is not None,
        metrics=metrics.status == _OK,
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


async def _system_by_request(server: Server, model: str) -> bool | None:
    """Send a request with a system message; a refusal counts only if one without it is answered."""
    if (await _chat(server, model, [_SYSTEM, _USER])).status == _OK:
        return True
    return False if (await _chat(server, model, [_USER])).status == _OK else None


async def _chat(server: Server, model: str, messages: list[dict[str, str]], **fields: object) -> HttpAnswer:
    """Ask the model for a short deterministic reply.

    Transient errors are retried, because a wrong fact would change all requests of the run.
    """
    fixed = {"model": model, "messages": messages, "temperature": 0, "top_p": 1, "seed": 0, "max_tokens": 1}
    start_s = asyncio.get_running_loop().time()
    for attempt in range(_MAX_ATTEMPTS):
        answer = await server.ask("/chat/completions", {**fixed, **fields})
        if answer.status not in _TRANSIENT or asyncio.get_running_loop().time() - start_s > _SLOW_S:
            break
        await asyncio.sleep(_FIRST_WAIT_S * 2**attempt)
    return answer


async def _structured(server: Server, model: str) -> bool | None:
    """Ask for a constant that the prompt does not contain: only an enforced schema produces it."""
    schema = {"name": "probe", "schema": _WORD_SCHEMA, "strict": True}
    fields = {"response_format": {"type": "json_schema", "json_schema": schema}, "max_tokens": 64}
    answer = await _chat(server, model, [_USER], **fields)
    choice = _choice(answer)
    if choice is None:
        return False if answer.refused else None
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    text = "".join(content.split()) if isinstance(content, str) else ""
    expected = f'{{"word":"{_WORD}"}}'
    if choice.get("finish_reason") == "length" and expected.startswith(text):
        return None  # cut off on the way to the constant: neither proved nor refuted
    return text == expected


async def _max_logprobs(server: Server, model: str) -> int | None:
    for limit in _LOGPROB_LIMITS:
        answer = await _chat(server, model, [_USER], logprobs=True, top_logprobs=limit)
        choice = _choice(answer)
        if choice is not None:
            logprobs = choice.get("logprobs")
            tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
            return limit if tokens and tokens[0].get("top_logprobs") else 0
        if not answer.refused:
            return None
    return 0


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
