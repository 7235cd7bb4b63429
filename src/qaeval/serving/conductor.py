"""Several models on one GPU in turn: each server starts after the previous one has stopped."""

import asyncio
import shlex
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qaeval.errors import UsageError
from qaeval.registry.config import ModelSpec, Serving
from qaeval.registry.levers import LEVERS, lever_arguments
from qaeval.serving.server import (
    VllmServer,
    check_arguments,
    environment,
    free_port,
    known_options,
    require_chat_template,
    serve_command,
)


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a server."""

    model: str
    command: str
    seconds: float


class Conductor:
    """Serves one model at a time; `close` it, so that no server outlives it.

    Args:
        serving: How servers are started.
        env: Environment that servers inherit.
        logs: Folder of the servers' logs.
        on_message: Called when a server starts, makes progress, is ready or died.
        stopped: Returns whether the user asked to stop.
    """

    def __init__(
        self,
        serving: Serving,
        *,
        env: Mapping[str, str],
        logs: Path,
        on_message: Callable[[str], None] = lambda _text: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._serving = serving
        self._env = dict(env)
        self._logs = logs
        self._on_message = on_message
        self._stopped = stopped
        self._options: frozenset[str] = frozenset()
        self._current: tuple[str, VllmServer] | None = None
        self.starts: list[Start] = []

    @property
    def is_available(self) -> bool:
        """Whether the command that starts servers is on the path."""
        return shutil.which(self._serving.command[0], path=self._env.get("PATH")) is not None

    def gpus(self, n: int) -> tuple[str, ...]:
        """Return index or UUID of the GPUs that a server of this process takes: the first n visible ones."""
        visible = {**self._env, **self._serving.env}.get("CUDA_VISIBLE_DEVICES")
        names = map(str, range(n)) if visible is None else (name.strip() for name in visible.split(","))
        return tuple(name for name in names if name)[:n]

    async def check(self, specs: Collection[ModelSpec]) -> None:
        """Check arguments against those of the installed vLLM, and folders of weights, before a server is started.

        Raises:
            UsageError: vLLM cannot be called, does not know an argument, or a folder has no chat template.
            Interrupted: the user asked to stop.
        """
        if not specs:
            return
        for spec in specs:
            require_chat_template(spec)
        if not self._options:
            self._on_message(f"reading the arguments of {self._serving.command[0]}")
            self._options = await known_options(self._serving.command, self._env, stopped=self._stopped)
        for spec in specs:
            argv = serve_command(spec.hosting, command=self._serving.command, port=1, options=self._options)
            _, unknown = lever_arguments(spec.hosting.levers, self._options)
            for lever in unknown:
                self._on_message(
                    f"{spec.name}: the installed vLLM does not know {LEVERS[lever].option}; it is served without {lever}"
                )
            try:
                check_arguments(argv, self._options)
            except UsageError as error:
                raise UsageError(f"{spec.name}: {error}") from error

    async def serve(
        self, spec: ModelSpec, *, adapters: Sequence[ModelSpec] = (), api_key: str | None = None
    ) -> str:
        """Serve a model, unless it is served already, and return its base URL.

        Args:
            spec: The model; of an adapter the base is served.
            adapters: All adapters of the base that the run needs, so that one start serves all of them.
            api_key: Key that the server requires.

        Raises:
            UsageError: the entry has no model to serve.
            EndpointError: the server died or was not ready in time.
            Interrupted: the user asked to stop.
        """
        base = spec.hosting
        key = shlex.join(serve_command(base, command=(), port=0, adapters=adapters, options=self._options))
        if self._current is not None:
            current, server = self._current
            if current == key and server.is_alive:
                return server.url
            if not server.is_alive:
                self._on_message(f"{server.name}: the server died; starting it again (log: {server.log})")
            await self.close()
        port = free_port()
        argv = serve_command(
            base, command=self._serving.command, port=port, adapters=adapters, options=self._options
        )
        env = environment(base, self._serving, self._env, api_key=api_key)
        server = VllmServer(base.name, argv, env, port=port, log=self._logs / f"{base.name}.log")
        self._on_message(f"starting {base.name}: {shlex.join(argv)}")
        self._current = (key, server)
        seconds = await server.start(
            deadline_s=self._serving.startup_s,
            on_step=lambda step: self._on_message(f"starting {base.name}: {step}"),
            stopped=self._stopped,
        )
        self.starts.append(Start(base.name, shlex.join(argv), seconds))
        self._on_message(f"{base.name} is ready after {seconds:.0f} s")
        return server.url

    def why_dead(self) -> str:
        """Return why the current server died; empty while it is alive, and without a server."""
        if self._current is None or self._current[1].is_alive:
            return ""
        return self._current[1].why_dead()

    async def death(self) -> None:
        """Wait until the current server dies; forever without a server."""
        if self._current is None:
            await asyncio.Event().wait()
        else:
            await self._current[1].wait()

    async def close(self) -> None:
        """Stop the current server."""
        if self._current is not None:
            _, server = self._current
            self._current = None
            await server.stop()
