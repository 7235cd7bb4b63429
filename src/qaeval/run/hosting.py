"""Servers of a run's models: one that is up is found, one that qaeval has to start is started and watched."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from qaeval.environment import environment
from qaeval.errors import EndpointError, UsageError
from qaeval.registry.config import ModelSpec, Serving
from qaeval.registry.family import urls
from qaeval.registry.find import api_key
from qaeval.run.endpoint import Endpoint, without_server
from qaeval.run.endpoint import resolve as find_endpoint
from qaeval.serving.conductor import Conductor

_SLOW_PROBE_S: Final = 3.0
"""A probe that takes longer is announced; a server under load answers it late."""
_DEATH_S: Final = 5.0
"""Longest time from the last answer of a server that dies to its end: vLLM's engine ends before its process."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class ServerManager:
    """Finds the servers of a run's models, and starts those that have none.

    Args:
        serving: How servers are started; default: ``vllm`` on the path.
        logs: Folder of the servers' output.
        on_message: Called with a sentence when a server starts, or died.
        stopped: Returns whether the user asked to stop.
        allow_external: Hosts outside the user's network that may be sent data.

    Attributes:
        local_env: Environment of the servers; None where a container or a wrapper may run them in another.
        adapters: LoRA adapters of the run; a base model is started with all of its adapters.
    """

    def __init__(
        self,
        serving: Serving | None,
        *,
        logs: Path,
        on_message: Callable[[str], None],
        stopped: Callable[[], bool],
        allow_external: Sequence[str] = (),
    ) -> None:
        serving = serving or Serving()
        is_local = [Path(part).name for part in serving.command] == ["vllm"]
        self.local_env = {**environment(), **serving.env} if is_local else None
        self._conductor = Conductor(
            serving, env=environment(), logs=logs, on_message=on_message, stopped=stopped
        )
        self._allow_external = tuple(allow_external)
        self._on_message = on_message
        self.adapters: tuple[ModelSpec, ...] = ()
        self._carried: dict[str, float] = {}

    def carry_load(self, spec: ModelSpec, seconds: float) -> None:
        """Count the start of a model's server in the next stage, where the one that waited for it is no part of the run."""
        self._carried[spec.hosting.name] = seconds

    async def close(self) -> None:
        """Stop the server that is up, if qaeval started it."""
        await self._conductor.close()

    async def check(self, specs: Sequence[ModelSpec]) -> list[Endpoint]:
        """Probe every endpoint, and check the arguments of every server to start; start none.

        Returns:
            The endpoints that were probed.

        Raises:
            as `resolve`.
        """
        hosted = [spec for spec in specs if spec.is_hosted]
        endpoints = []
        for spec in specs:
            if not spec.is_hosted:
                if spec.url is not None:
                    self._on_message(f"probing {spec.name} at {', '.join((spec.url, *spec.replicas))}")
                endpoints.append(await self.resolve(spec))
            elif not self._conductor.is_available:
                raise UsageError(without_server(spec))
            else:
                api_key(spec)
        await self._conductor.check(hosted)
        return endpoints

    async def run_while_alive(self, spec: ModelSpec, work: Coroutine[Any, Any, None]) -> str:
        """Run the work on a model's server; where qaeval started that server, drop the work when it dies.

        Requests in flight are then not recorded as failed: they are asked again.

        Returns:
            Why the server died; empty when it is alive, and the work is done.

        Raises:
            whatever ``work`` raises while the server is alive.
        """
        if not spec.is_hosted:
            await work
            return ""
        try:
            await self._until_death(asyncio.ensure_future(work))
        except EndpointError:
            if not self._conductor.why_dead():
                raise
        return self._conductor.why_dead()

    async def why_dead(self, spec: ModelSpec) -> str:
        """Return why a server does not answer any more, where qaeval started it and it has died; else an empty text."""
        if not spec.is_hosted:
            return ""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._conductor.death(), _DEATH_S)
        return self._conductor.why_dead()

    async def _until_death(self, work: "asyncio.Future[None]") -> None:
        """Wait for the work, or for the death of the server, which cancels it."""
        death = asyncio.ensure_future(self._conductor.death())
        try:
            await asyncio.wait([work, death], return_when=asyncio.FIRST_COMPLETED)
            died = not work.done()
            if died:
                work.cancel()
            try:
                await work
            except asyncio.CancelledError:
                if not died:
                    raise
        finally:
            work.cancel()
            death.cancel()
            await asyncio.gather(
                work, death, return_exceptions=True
            )  # the session is written before this returns

    async def resolve(self, spec: ModelSpec) -> Endpoint:
        """Find where a model answers, and start its server where there is none.

        Raises:
            UsageError: it cannot be reached or started, or its key is missing.
            EndpointError: the server cannot be used, or died while it started.
            Interrupted: the user asked to stop meanwhile.
        """
        key = api_key(spec)
        started_s = self._carried.pop(spec.hosting.name, 0.0)
        if spec.is_hosted:
            if not self._conductor.is_available:
                raise UsageError(without_server(spec))
            beside = [
                adapter
                for adapter in self.adapters
                if adapter.lora and adapter.lora.base == spec.hosting.name
            ]
            # models of other servers are found meanwhile: what is started here is counted here
            n_starts = len(self._conductor.starts)
            url = await self._conductor.serve(spec, adapters=beside, api_key=key)
            started_s += sum(start.seconds for start in self._conductor.starts[n_starts:])
            spec = spec.model_copy(
                update={"url": url, "gpus": spec.gpus or self._conductor.gpus(spec.n_gpus)}
            )
        waiting = asyncio.get_running_loop().call_later(
            _SLOW_PROBE_S, self._on_message, f"waiting for {spec.name} at {spec.url} to answer the probe"
        )
        try:
            endpoint = await find_endpoint(spec, api_key=key, allow_external=self._allow_external)
        finally:
            waiting.cancel()
        return replace(endpoint, load_s=started_s)


def in_turns(specs: Sequence[ModelSpec]) -> list[ModelSpec]:
    """Order models so that each server that qaeval starts is started once: an adapter follows its base."""
    bases = list(dict.fromkeys(spec.hosting.name for spec in specs))
    return sorted(specs, key=lambda spec: (spec.is_hosted, bases.index(spec.hosting.name)))


def lanes(specs: Sequence[ModelSpec]) -> list[list[ModelSpec]]:
    """Group models with servers: those of a group share a server or a GPU and take turns, the groups work side by side.

    Each group is in the order of `in_turns`. Models inside qaeval's process are no server's: they are left out.
    """
    groups: list[list[ModelSpec]] = []
    for spec in in_turns(specs):
        if not spec.in_process:
            sharing = [group for group in groups if any(_share(spec, other) for other in group)]
            groups = [group for group in groups if group not in sharing]
            groups.append([*chain.from_iterable(sharing), spec])
    return groups


def _share(spec: ModelSpec, other: ModelSpec) -> bool:
    """Whether two models share a server or a GPU; a server here whose GPUs are not known may share those of one that qaeval starts."""
    if (spec.is_hosted and other.is_hosted) or urls(spec) & urls(other):
        return True
    if spec.gpus and other.gpus:
        return not set(spec.gpus).isdisjoint(other.gpus)
    is_here = any(urlsplit(url).hostname in _LOOPBACK for url in urls(spec) | urls(other))
    return is_here and (spec.is_hosted or other.is_hosted)


def runs_apart(candidates: Sequence[ModelSpec], judge: ModelSpec) -> bool:
    """Whether judge and candidates have servers that are up, and the judge shares none with a candidate."""
    running = all(spec.kind == "server" and spec.url is not None for spec in (*candidates, judge))
    return running and not any(urls(judge) & urls(spec) for spec in candidates)
