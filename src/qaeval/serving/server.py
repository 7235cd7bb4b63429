"""One ``vllm serve`` of qaeval's own: started, waited for, and gone again, whatever happens in between.

Something that runs beside a block and ends with it.
"""

import asyncio
import re
import shlex
import socket
import sys
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, Final

from qaeval.errors import EndpointError, Interrupted, UsageError, closest
from qaeval.registry.config import ModelSpec, Serving
from qaeval.serving.client import Server
from qaeval.serving.diagnosis import diagnose, progress

GRACE_S: Final = 15.0
"""Time between asking a server to end and killing it; vLLM needs 0.5 s."""

QUIET: Final[Mapping[str, str]] = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""No server that qaeval starts reports anything to anybody."""

_OFFLINE: Final[Mapping[str, str]] = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_OPTION: Final = re.compile(r"^  (?:-\w(?: [A-Z_]+)?, )?(--[^\s,]+.*)$", re.MULTILINE)
_NAME: Final = re.compile(r"--[\w.-]+")
_POLL_S: Final = 0.25
_LAST_LINES: Final = 30
_HELP_S: Final = 120.0
_OK: Final = 200


def serve_command(
    spec: ModelSpec, *, command: Sequence[str], port: int, adapters: Sequence[ModelSpec] = ()
) -> list[str]:
    """Return the command that serves a model on loopback.

    Args:
        spec: The registry's entry of the base model.
        command: How vLLM is called, for example ``["vllm"]``.
        port: Where it listens.
        adapters: Entries of LoRA adapters of this model, served beside it.

    Raises:
        UsageError: the entry does not say what to serve.
    """
    if not spec.hf_id:
        raise UsageError(f"{spec.name}: qaeval cannot start it, the registry has no hf_id (what to serve)")
    loras = [one.lora for one in adapters if one.lora is not None]
    lora = []
    if loras:
        modules = [f"{one.served}={one.lora.path}" for one in adapters if one.lora is not None]
        lora = [
            "--enable-lora",
            "--max-lora-rank",
            str(max(one.rank for one in loras)),
            "--lora-modules",
            *modules,
        ]
    return [*command, "serve", *spec.serve_arguments(), *lora, "--host", "127.0.0.1", "--port", str(port)]


def environment(
    spec: ModelSpec, serving: Serving, base: Mapping[str, str], *, api_key: str | None
) -> dict[str, str]:
    """Return the server's environment: qaeval's, no telemetry, no hub where the weights are a folder, the key."""
    offline = _OFFLINE if Path(spec.hf_id or "").is_dir() else {}
    key = {"VLLM_API_KEY": api_key} if api_key else {}
    return {**base, **QUIET, **offline, **serving.env, **key}


def options_of(help_text: str) -> frozenset[str]:
    """Read the long options that ``vllm serve --help=all`` lists."""
    return frozenset(
        name for line in _OPTION.findall(help_text) for name in _NAME.findall(line.split("  ")[0])
    )


def check_arguments(argv: Sequence[str], known: Collection[str]) -> None:
    """Refuse an option that the installed version does not list, before a model is loaded for it.

    A dotted option (``--structured-outputs-config.backend``) is known where its first part is, and a spelling with
    underscores is the one with dashes, as vLLM has it.

    Raises:
        UsageError: naming the option and the closest known one.
    """
    for word in argv:
        name = word.partition("=")[0]
        if not name.startswith("--"):
            continue
        spelled = name.partition(".")[0].replace("_", "-")
        if spelled not in known:
            raise UsageError(
                f"vllm serve does not know {name}.{closest(spelled, list(known))} Correct `vllm_args` in qaeval.yaml, or "
                f"install the version that has it"
            )


async def known_options(command: Sequence[str], env: Mapping[str, str]) -> frozenset[str]:
    """Ask the installed vLLM for its options.

    Raises:
        UsageError: it cannot be called.
    """
    shown = shlex.join(command)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            "serve",
            "--help=all",
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise UsageError(
            f"{shown!r} cannot be started ({error.strerror}): install vLLM where the model is to run, or set "
            f"serving.command in qaeval.yaml"
        ) from error
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _HELP_S)
    except TimeoutError:
        process.kill()
        raise UsageError(f"`{shown} serve --help=all` did not end within {_HELP_S:g} s") from None
    options = options_of(output.decode(errors="replace"))
    if process.returncode or not options:
        last = "\n".join(output.decode(errors="replace").splitlines()[-5:])
        raise UsageError(f"`{shown} serve --help=all` failed, so vLLM is not usable:\n{last}")
    return options


def free_port() -> int:
    """Return a port that is free on loopback at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class VllmServer:
    """A running ``vllm serve``; `stop` it, or let the supervisor do so when qaeval dies.

    Args:
        name: Of the model, for messages.
        argv: From `serve_command`.
        env: From `environment`.
        port: Where it listens.
        log: Takes its output, behind what earlier starts wrote there.
    """

    def __init__(
        self, name: str, argv: Sequence[str], env: Mapping[str, str], *, port: int, log: Path
    ) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}/v1"
        self.log = log
        self._argv = tuple(argv)
        self._env = dict(env)
        self._process: asyncio.subprocess.Process | None = None
        self._output: IO[bytes] | None = None
        self._start_of_log = 0

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    async def start(
        self,
        *,
        deadline_s: float,
        told: Callable[[str], None] = lambda _step: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> float:
        """Start it and wait until it answers; return the seconds that took.

        Args:
            deadline_s: Longest wait.
            told: Called with each new step: "loading weights 3/5".
            stopped: Whether the user asked to stop meanwhile.

        Raises:
            EndpointError: it died or is not ready in time; the message explains and has the end of its log.
            Interrupted: the user asked to stop.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._output = self.log.open("ab")
        self._start_of_log = self._output.tell()
        self._output.write(f"$ {shlex.join(self._argv)}\n".encode())
        self._output.flush()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "qaeval.serving.supervisor", str(GRACE_S), *self._argv),
            env=self._env,
            stdin=asyncio.subprocess.PIPE,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
        )
        try:
            await self._ready(began + deadline_s, told, stopped)
        except BaseException:
            await self.stop()
            raise
        return clock() - began

    async def _ready(self, until: float, told: Callable[[str], None], stopped: Callable[[], bool]) -> None:
        clock = asyncio.get_running_loop().time
        last = ""
        async with Server(self.url, None, timeout_s=5.0) as server:
            while (await server.ask("/health", root=True)).status != _OK:
                if not self.is_alive:
                    raise EndpointError(self._said("the server died while it started"))
                if stopped():
                    raise Interrupted(f"stopped while {self.name} was starting")
                if clock() > until:
                    raise EndpointError(self._said("the server was not ready in time (serving.startup_s)"))
                step = progress(self._log_text())
                if step and step != last:
                    told(step)
                    last = step
                await asyncio.sleep(_POLL_S)
        if not self.is_alive:
            # something else answers on its port
            raise EndpointError(self._said("the server died while it started"))

    async def wait(self) -> None:
        """Wait until it ends."""
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """End it and its whole group; nothing is left when this returns."""
        process = self._process
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                await asyncio.wait_for(asyncio.shield(process.wait()), GRACE_S + 5)
            except TimeoutError:  # pragma: no cover - a supervisor that hangs
                process.kill()
                await process.wait()
        if self._output is not None:
            self._output.close()
            self._output = None

    def why_dead(self) -> str:
        """Explain the death of a server that had been ready."""
        return self._said("the server died")

    def _said(self, what: str) -> str:
        text = self._log_text()
        cause = diagnose(text)
        last = "\n".join(f"  | {line}" for line in text.splitlines()[-_LAST_LINES:])
        return f"{self.name}: {what}{f': {cause}' if cause else ''}. The end of {self.log}:\n{last}"

    def _log_text(self) -> str:
        with self.log.open("rb") as file:
            file.seek(self._start_of_log)
            return file.read().decode(errors="replace")


@asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a coroutine for as long as the block does; cancelled at its end, and waited for."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
