"""From a name in the registry to a model that can be asked, after a check of its endpoint."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from inspect import iscoroutinefunction
from ipaddress import ip_address
from pathlib import Path
from traceback import extract_tb

from qaeval.chat.guard import check_host
from qaeval.chat.http import HttpChat
from qaeval.chat.protocol import ChatError, ChatModel, ChatRequest, Completion
from qaeval.errors import EndpointError, QaevalError, UsageError, install_command
from qaeval.registry.config import ModelSpec
from qaeval.registry.plugins import MODELS, load_plugin
from qaeval.serving.hosted import HostedChat, HostedServer
from qaeval.serving.probe import EndpointFacts, files_digest, probe, probe_hosted


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model answers and what it can do.

    Attributes:
        spec: the registry's entry.
        facts: what the probe found; None for models without a server.
        host: the server's host; None for models without a server.
        addresses: what the host resolved to when it was checked; nothing else is connected to.
        external: whether requests leave the user's own network.
        load_s: seconds that the start of its server took; 0 where it was up.
        replicas: base URL and addresses of further servers of the same model.
        gpu_addresses: addresses of the exporter that reports the energy of its GPUs.
        factory: creates a model that runs inside this process; None for servers.
    """

    spec: ModelSpec
    facts: EndpointFacts | None = None
    host: str | None = None
    addresses: tuple[str, ...] = ()
    external: bool = False
    load_s: float = 0.0
    replicas: tuple[tuple[str, tuple[str, ...]], ...] = ()
    gpu_addresses: tuple[str, ...] = ()
    factory: Callable[[], object] | None = None

    @property
    def machine(self) -> str | None:
        """Host of the machine that works for the model; None for embedded models, and for a hosted API, which is paid by the token."""
        return None if self.spec.kind == "hosted" else self.host


async def resolve(spec: ModelSpec, *, api_key: str | None, allow_external: Collection[str]) -> Endpoint:
    """Find the model's endpoint and probe it once.

    Raises:
        UsageError: the registry has no URL for the model, or no installed package registers it.
        EndpointError: the host is not allowed, nothing answers there, the server does not serve the model, or
            the package that registers it cannot be imported.
    """
    if spec.in_process:
        return Endpoint(spec, factory=load_plugin(MODELS, spec.entry))
    if spec.url is None:
        raise UsageError(without_server(spec))
    if spec.kind == "hosted":
        return await _hosted(spec, api_key=api_key, allow_external=allow_external)
    location = check_host(spec.url, allow_external=allow_external)
    exporter = _gpu_addresses(spec, allow_external)
    facts = await probe(
        spec.url,
        spec.served,
        api_key=api_key,
        addresses=location.addresses,
        omitted=spec.sampling.omitted,
        reply_names=spec.reply_names,
    )
    _require(spec, facts)
    _require_probabilities(spec, facts)
    facts = await asyncio.to_thread(_with_files, facts, location.addresses)
    replicas = [
        await resolve(
            spec.model_copy(update={"url": url, "replicas": ()}),
            api_key=api_key,
            allow_external=allow_external,
        )
        for url in spec.replicas
    ]
    for replica in replicas:
        _require_alike(spec, facts, replica)
    return Endpoint(
        spec,
        facts,
        location.host,
        location.addresses,
        external=location.external or any(replica.external for replica in replicas),
        replicas=tuple((replica.spec.url or "", replica.addresses) for replica in replicas),
        gpu_addresses=exporter,
    )


async def _hosted(spec: ModelSpec, *, api_key: str | None, allow_external: Collection[str]) -> Endpoint:
    """Find a hosted model, and probe it with its SDK.

    Raises:
        UsageError: nobody agreed to send to it, or the SDK is not installed.
        EndpointError: the host is not allowed, or the API cannot be used.
    """
    location = check_host(spec.url or "", allow_external=allow_external)
    if not spec.consented:
        raise UsageError(
            f"{spec.name} is hosted at {location.host}, and this command sends nothing to hosted models without consent: "
            f"`--consent {location.host}` of compare, generate, grade, label and certify agrees to it"
        )
    async with HostedServer(spec.url or "", api_key, addresses=location.addresses) as server:
        facts = await probe_hosted(
            server, spec.served, omitted=spec.sampling.omitted, reply_names=spec.reply_names
        )
    _require(spec, facts)
    _require_probabilities(spec, facts)
    return Endpoint(spec, facts, location.host, location.addresses, external=location.external)


def _gpu_addresses(spec: ModelSpec, allow_external: Collection[str]) -> tuple[str, ...]:
    if spec.gpu_metrics is None:
        return ()
    try:
        return check_host(spec.gpu_metrics.url, allow_external=allow_external).addresses
    except EndpointError as error:
        raise EndpointError(f"{spec.name}: gpu_metrics: {error}") from error


def _with_files(facts: EndpointFacts, addresses: Sequence[str]) -> EndpointFacts:
    """Add the hash of the model's folder where the server is on this machine, and so is the folder."""
    folder = Path(facts.root or "")
    is_here = all(ip_address(address).is_loopback for address in addresses)
    with suppress(
        OSError
    ):  # the path is one in the server's container; a folder of that name here may be unreadable
        if is_here and folder.is_absolute() and folder.is_dir():
            return facts.model_copy(update={"files_sha256": files_digest(folder)})
    return facts


def _require_alike(spec: ModelSpec, facts: EndpointFacts, replica: Endpoint) -> None:
    """Refuse servers behind one name whose replies would differ.

    Raises:
        EndpointError: they differ in version, context length, structured output or system role.
    """
    for aspect in ("version", "max_model_len", "structured_output", "system_role"):
        first, second = getattr(facts, aspect), getattr(replica.facts, aspect)
        if first != second:
            raise EndpointError(
                f"{spec.name}: its servers differ in {aspect.replace('_', ' ')}: {first!r} at {spec.url}, "
                f"{second!r} at {replica.spec.url}; their replies would be mixed in one run"
            )


def without_server(spec: ModelSpec) -> str:
    """Return a message for a model without a server, and the ways to get one, a line each."""
    command = " ".join(spec.serve_arguments())
    return "\n".join(
        (
            f"{spec.name!r} has no server: qaeval.yaml has no url for it, and vLLM is not installed here to start one.",
            f"  a running server:  --endpoint {spec.name}=http://127.0.0.1:8000/v1, or `url:` in qaeval.yaml",
            f"  started by qaeval: {install_command('vllm')} on the machine with the GPU, or serving.command in qaeval.yaml",
            f"  started by you:    vllm serve {command}",
            "  without a GPU:     the candidates embedded-lead and embedded-salient, and the judge embedded-lexical",
        )
    )


def _require(spec: ModelSpec, facts: EndpointFacts) -> None:
    if spec.structured == "json_schema" and facts.structured_output is False:
        problem = (
            f"refuses response_format json_schema: {facts.schema_refusal}"
            if facts.schema_refusal
            else "ignores response_format json_schema (a reply did not match the schema)"
        )
        raise EndpointError(
            f"{spec.url}: the server {problem}. "
            f"Serve the model with structured outputs, or set `structured: off` for {spec.name!r} in "
            f"qaeval.yaml to parse free text"
        )


def _require_probabilities(spec: ModelSpec, facts: EndpointFacts) -> None:
    if spec.judge_mode == "cascade" and facts.max_logprobs == 0:
        raise EndpointError(
            f"{spec.url}: the server returns no log-probabilities, by which judge mode `cascade` of {spec.name!r} tells unsure letters; "
            "use another `judge_mode` in qaeval.yaml, or --judge-mode"
        )


@asynccontextmanager
async def connect(
    endpoint: Endpoint,
    *,
    api_key: str | None,
    outage_s: float = 120.0,
    on_message: Callable[[str], None] = lambda _text: None,
    on_busy: Callable[[], None] = lambda: None,
) -> AsyncIterator[ChatModel]:
    """Open the model for one stage.

    Args:
        endpoint: Where it answers.
        api_key: Sent to all its servers.
        outage_s: Longest wait for a server that stopped answering, in seconds.
        on_message: Called when a server stopped answering, and when it answers again.
        on_busy: Called when a server asks for fewer requests.

    Raises:
        EndpointError: the factory of a model without a server fails, or returns no chat model.
    """
    spec, facts = endpoint.spec, endpoint.facts
    if endpoint.factory is not None:
        yield InProcess(spec.name, endpoint.factory)
        return
    assert facts is not None  # noqa: S101 - a server was probed
    if spec.kind == "hosted":
        async with HostedChat(
            HostedServer(spec.url or "", api_key, addresses=endpoint.addresses),
            model=spec.served,
            api_key=api_key,
            structured=spec.structured,
            system_role=spec.system_role,
            max_top_logprobs=facts.max_logprobs or 0,
            fields=facts.fields,
            reply_names=spec.reply_names,
            extra_body=spec.request_extras(),
        ) as hosted:
            yield hosted
        return
    async with HttpChat(
        base_url=spec.url or "",
        model=spec.served,
        api_key=api_key,
        structured=spec.structured,
        system_role="merge" if facts.system_role is False else spec.system_role,
        max_top_logprobs=20 if facts.max_logprobs is None else facts.max_logprobs,
        fields=facts.fields,
        reply_names=spec.reply_names,
        prefix_items=facts.version is not None,
        context=facts.max_model_len if facts.tokenizer else None,
        tokenizer=bool(facts.tokenizer),
        addresses=endpoint.addresses,
        replicas=endpoint.replicas,
        outage_s=outage_s,
        on_message=on_message,
        on_busy=on_busy,
        extra_body=spec.request_extras(knows_repetition=bool(facts.repetition_detection)),
    ) as model:
        yield model


class InProcess:
    """A model that runs inside this process; errors of its code are reported as the model's.

    Args:
        name: The model's name.
        factory: Creates the model.

    Raises:
        EndpointError: the factory raised, or what it returned has no ``async def complete``.
    """

    def __init__(self, name: str, factory: Callable[[], object]) -> None:
        self._name = name
        try:
            model = factory()
        except Exception as error:
            raise EndpointError(f"{name}: its factory failed: {_described(error)}") from error
        if isinstance(model, type) or not isinstance(model, ChatModel):
            raise EndpointError(
                f"{name}: its factory returned {model!r}, which is not a chat model; expected an object with "
                f"`async def complete(self, request)` (qaeval.chat.protocol.ChatModel)"
            )
        if not iscoroutinefunction(model.complete):
            raise EndpointError(f"{name}: `complete` of {type(model).__name__} is not an `async def`")
        self._model = model

    async def complete(self, request: ChatRequest) -> Completion:
        """Ask the model.

        Raises:
            ChatError: when the model has no reply.
            EndpointError: its code raised another exception, or returned no completion.
        """
        try:
            completion = await self._model.complete(request)
        except (ChatError, QaevalError):
            raise
        except Exception as error:
            raise EndpointError(f"{self._name}: the model failed: {_described(error)}") from error
        if not isinstance(completion, Completion):
            raise EndpointError(f"{self._name}: expected a Completion as its reply, got {completion!r}")
        return completion


def _described(error: Exception) -> str:
    """Name an exception and the line that raised it: its traceback is not shown."""
    *_, frame = extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
