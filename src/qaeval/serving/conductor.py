"""One GPU, several models in turns: whoever is needed next is served, and whoever was served before is stopped first."""

import asyncio
import shlex
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qaeval.errors import UsageError
from qaeval.registry.config import ModelSpec, Serving
from qaeval.serving.server import (
    VllmServer,
    check_arguments,
    environment,
    free_port,
    known_options,
    serve_command,
)


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a server."""

    model: str
    command: str
    seconds: float


class Conductor:
    """Serves one model at a time; use it as an async context manager, so that nothing outlives it.

    Args:
        serving: How servers are started.
        env: Environment that they inherit.
        logs: Folder of their logs.
        told: Called with what happens: a start, its steps, a stop.
        stopped: Whether the user asked to stop.
    """

    def __init__(
        self,
        serving: Serving,
        *,
        env: Mapping[str, str],
        logs: Path,
        told: Callable[[str], None] = lambda _text: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._serving = serving
        self._env = dict(env)
        self._logs = logs
        self._told = told
        self._stopped = stopped
        self._options: frozenset[str] = frozenset()
        self._current: tuple[str, VllmServer] | None = None
        self.starts: list[Start] = []

    @property
    def is_available(self) -> bool:
        """Whether the command that starts servers is there."""
        return shutil.which(self._serving.command[0], path=self._env.get("PATH")) is not None

    def gpus(self, n: int) -> tuple[str, ...]:
        """Name the GPUs of this machine that a server of ours takes, by index or UUID: the first of those that it may see."""
        visible = {**self._env, **self._serving.env}.get("CUDA_VISIBLE_DEVICES")
        named = map(str, range(n)) if visible is None else (one.strip() for one in visible.split(","))
        return tuple(one for one in named if one)[:n]

    async def check(self, specs: Collection[ModelSpec]) -> None:
        """Refuse arguments that the installed vLLM does not know, before anything is started.

        Raises:
            UsageError: vLLM cannot be called, or does not know an argument.
        """
        if not specs:
            return
        if not self._options:
            self._told(f"asking {self._serving.command[0]} which arguments it knows")
            self._options = await known_options(self._serving.command, self._env)
        for spec in specs:
            argv = serve_command(spec.hosting, command=self._serving.command, port=1)
            try:
                check_arguments(argv, self._options)
            except UsageError as error:
                raise UsageError(f"{spec.name}: {error}") from error

    async def serve(
        self, spec: ModelSpec, *, adapters: Sequence[ModelSpec] = (), api_key: str | None = None
    ) -> str:
        """Serve a model, unless it is served already, and return its base URL.

        Args:
            spec: The model; of an adapter its base is served.
            adapters: All adapters of that base that the run needs, so that one start serves them all.
            api_key: The key that the server is to ask for.

        Raises:
            UsageError: the entry does not say what to serve.
            EndpointError: the server died or was not ready in time.
            Interrupted: the user asked to stop.
        """
        base = spec.hosting
        key = shlex.join(serve_command(base, command=(), port=0, adapters=adapters))
        if self._current is not None:
            current, server = self._current
            if current == key and server.is_alive:
                return server.url
            if not server.is_alive:
                self._told(f"{server.name}: the server died; starting it again (log: {server.log})")
            await self.close()
        port = free_port()
        argv = serve_command(base, command=self._serving.command, port=port, adapters=adapters)
        env = environment(base, self._serving, self._env, api_key=api_key)
        server = VllmServer(base.name, argv, env, port=port, log=self._logs / f"{base.name}.log")
        self._told(f"starting {base.name}: {shlex.join(argv)}")
        self._current = (key, server)
        seconds = await server.start(
            deadline_s=self._serving.startup_s,
            told=lambda step: self._told(f"starting {base.name}: {step}"),
            stopped=self._stopped,
        )
        self.starts.append(Start(base.name, shlex.join(argv), seconds))
        self._told(f"{base.name} is ready after {seconds:.0f} s")
        return server.url

    def lost(self) -> str:
        """Say why the server that was last served is dead; empty while it lives, or where there is none."""
        if self._current is None or self._current[1].is_alive:
            return ""
        return self._current[1].why_dead()

    async def death(self) -> None:
        """Wait until the present server dies; for ever where there is none."""
        if self._current is None:
            await asyncio.Event().wait()
        else:
            await self._current[1].wait()

    async def close(self) -> None:
        """Stop the present server."""
        if self._current is not None:
            _, server = self._current
            self._current = None
            await server.stop()
