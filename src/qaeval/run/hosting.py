"""From an entry of the registry to an endpoint that answers: one that is up, or a server of qaeval's own, kept alive."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from qaeval.environment import environment
from qaeval.errors import EndpointError, UsageError
from qaeval.registry.config import ModelSpec, Serving
from qaeval.registry.find import api_key
from qaeval.run.endpoint import Endpoint, without_server
from qaeval.run.endpoint import resolve as find_endpoint
from qaeval.serving.conductor import Conductor

_RESTARTS: Final = 2
"""So often a server of ours that died during a stage is started again."""

_Todo = TypeVar("_Todo")


class Hosting:
    """Where the models of a run answer.

    Args:
        conductor: Serves those that nobody else serves.
        allow_external: Hosts outside the user's network that may be sent data.
    """

    def __init__(self, conductor: Conductor, *, allow_external: Sequence[str] = ()) -> None:
        self._conductor = conductor
        self._allow_external = tuple(allow_external)
        self.adapters: tuple[ModelSpec, ...] = ()

    @classmethod
    def with_servers(
        cls,
        serving: Serving | None,
        *,
        logs: Path,
        told: Callable[[str], None],
        stopped: Callable[[], bool],
        allow_external: Sequence[str] = (),
    ) -> "Hosting":
        """Host with servers of qaeval's own for models without a URL.

        Args:
            serving: How they are started; vLLM on the path where left out.
            logs: Folder of what they print.
            told: Takes a sentence when a server starts, or died.
            stopped: Whether the user asked to stop.
            allow_external: Hosts outside the user's network that may be sent data.
        """
        conductor = Conductor(serving or Serving(), env=environment(), logs=logs, told=told, stopped=stopped)
        return cls(conductor, allow_external=allow_external)

    async def close(self) -> None:
        """Stop the server that is up, if it is one of ours."""
        await self._conductor.close()

    async def check(self, specs: Sequence[ModelSpec]) -> None:
        """Look at every endpoint, and at the arguments of every server to start; start none.

        Raises:
            as `resolve`.
        """
        hosted = [spec for spec in specs if spec.is_hosted]
        for spec in specs:
            if not spec.is_hosted:
                await self.resolve(spec)
            elif not self._conductor.is_available:
                raise UsageError(without_server(spec))
            else:
                api_key(spec)
        await self._conductor.check(hosted)

    async def through(
        self,
        spec: ModelSpec,
        unfinished: Callable[[], _Todo],
        stage: Callable[[Endpoint, _Todo], Coroutine[Any, Any, None]],
    ) -> None:
        """Work through a model's stage; a server of ours that dies meanwhile is started again, a few times."""
        for restarts_left in range(_RESTARTS, -1, -1):
            todo = unfinished()
            if not todo:
                return
            endpoint = await self.resolve(spec)
            if not spec.is_hosted:
                await stage(endpoint, todo)
                return
            try:
                await self._until_death(asyncio.ensure_future(stage(endpoint, todo)))
            except EndpointError:
                if not self._conductor.lost():
                    raise
            why = self._conductor.lost()
            if not why:
                return
            if not restarts_left:
                raise EndpointError(
                    f"{why}\nstarted {_RESTARTS + 1} times and given up; finished rows are kept"
                )

    async def _until_death(self, work: "asyncio.Future[None]") -> None:
        """Wait for the work; where the server dies first, what is in flight is dropped, not recorded as failed."""
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

    async def resolve(self, spec: ModelSpec) -> Endpoint:
        """Find where a model answers, and start its server where nobody else serves it.

        Raises:
            UsageError: it cannot be reached or started, or its key is missing.
            EndpointError: the server cannot be used, or died while it started.
            Interrupted: the user asked to stop meanwhile.
        """
        key = api_key(spec)
        started = len(self._conductor.starts)
        if spec.is_hosted:
            if not self._conductor.is_available:
                raise UsageError(without_server(spec))
            beside = [one for one in self.adapters if one.lora and one.lora.base == spec.hosting.name]
            url = await self._conductor.serve(spec, adapters=beside, api_key=key)
            spec = spec.model_copy(
                update={"url": url, "gpus": spec.gpus or self._conductor.gpus(spec.n_gpus)}
            )
        endpoint = await find_endpoint(spec, api_key=key, allow_external=self._allow_external)
        return replace(endpoint, load_s=sum(one.seconds for one in self._conductor.starts[started:]))


def in_turns(specs: Sequence[ModelSpec]) -> list[ModelSpec]:
    """Order models so that each server that qaeval starts is started once: an adapter follows its base."""
    bases = list(dict.fromkeys(spec.hosting.name for spec in specs))
    return sorted(specs, key=lambda spec: (spec.is_hosted, bases.index(spec.hosting.name)))


def runs_apart(candidates: Sequence[ModelSpec], judge: ModelSpec) -> bool:
    """Whether the judge has a server of its own that is up, and so has every candidate."""
    running = all(spec.kind == "server" and spec.url is not None for spec in (*candidates, judge))
    return running and judge.url not in {spec.url for spec in candidates}
