"""A ``vllm serve`` that qaeval starts: its command, its start, its end, whatever happens in between."""

import asyncio
import os
import re
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import orjson

from qaeval.errors import EndpointError, Interrupted, UsageError, closest
from qaeval.registry.config import ModelSpec, Serving
from qaeval.serving.client import Server
from qaeval.serving.diagnosis import diagnose, progress

GRACE_S: Final = 15.0
"""Time between SIGTERM and SIGKILL; vLLM needs 0.5 s."""

QUIET: Final[Mapping[str, str]] = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""Servers that qaeval starts send no telemetry."""

LOOPBACK: Final = "127.0.0.1"
_OFFLINE: Final[Mapping[str, str]] = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_OPTION: Final = re.compile(r"^  (?:-\w(?: [A-Z_]+)?, )?(--[^\s,]+.*)$", re.MULTILINE)
_NAME: Final = re.compile(r"--[\w.-]+")
_POLL_S: Final = 0.25
_LOG_TAIL: Final = 30
"""Lines of the log in an error message."""
_HELP_S: Final = 120.0
"""Longest wait for ``vllm serve --help=all``, which imports all of vLLM."""
_OK: Final = 200


_TEMPLATES: Final = ("chat_template.jinja", "chat_template.json", "chat_templates")
"""Files of a chat template beside the tokenizer's settings."""


def require_chat_template(spec: ModelSpec) -> None:
    """Refuse a local folder of a base model: without a chat template its server refuses every request.

    Raises:
        UsageError: the folder has settings of a tokenizer, and no template in them or beside them.
    """
    folder = Path(spec.hf_id or "")
    settings = folder / "tokenizer_config.json"
    if any(argument.startswith("--chat-template") for argument in spec.vllm_args) or not settings.is_file():
        return
    try:
        has_template = bool(orjson.loads(settings.read_bytes()).get("chat_template"))
    except (OSError, ValueError, AttributeError):
        return  # vLLM says what is wrong with it
    if not has_template and not any((folder / name).exists() for name in _TEMPLATES):
        raise UsageError(
            f"{spec.name}: {folder} has no chat template, as base models do not. Serve a model that is tuned for chat, or add "
            '`vllm_args: ["--chat-template", FILE]` to its entry in qaeval.yaml'
        )


def serve_command(
    spec: ModelSpec,
    *,
    command: Sequence[str],
    port: int,
    adapters: Sequence[ModelSpec] = (),
    options: Collection[str] = (),
) -> list[str]:
    """Return the command that serves a model on loopback.

    Args:
        spec: The registry's entry of the base model.
        command: How vLLM is called, for example ``["vllm"]``.
        port: Port to listen on.
        adapters: Entries of LoRA adapters of this model, which are served too.
        options: Options of the installed vLLM; levers that need another one are left out. Empty: not known.

    Raises:
        UsageError: the entry has no `hf_id`.
    """
    if not spec.hf_id:
        raise UsageError(f"{spec.name}: qaeval cannot start it: the registry has no hf_id")
    loras = [adapter.lora for adapter in adapters if adapter.lora is not None]
    lora_options = []
    if loras:
        modules = [
            f"{adapter.served}={adapter.lora.path}" for adapter in adapters if adapter.lora is not None
        ]
        lora_options = [
            "--enable-lora",
            "--max-lora-rank",
            str(max(lora.rank for lora in loras)),
            "--lora-modules",
            *modules,
        ]
    arguments = [*spec.serve_arguments(options), *lora_options, "--host", LOOPBACK, "--port", str(port)]
    return [*command, "serve", *arguments]


def environment(
    spec: ModelSpec, serving: Serving, base: Mapping[str, str], *, api_key: str | None
) -> dict[str, str]:
    """Return the server's environment: no telemetry, no hub for weights in a folder, the API key."""
    offline = _OFFLINE if Path(spec.hf_id or "").is_dir() else {}
    key = {"VLLM_API_KEY": api_key} if api_key else {}
    return {**base, **QUIET, **offline, **serving.env, **key}


def options_of(help_text: str) -> frozenset[str]:
    """Read the long options from ``vllm serve --help=all``."""
    return frozenset(
        name for line in _OPTION.findall(help_text) for name in _NAME.findall(line.split("  ")[0])
    )


def check_arguments(argv: Sequence[str], options: Collection[str]) -> None:
    """Check options against those of the installed version, before a model is loaded.

    A dotted option (``--structured-outputs-config.backend``) is checked by its first part; vLLM accepts
    underscores for dashes.

    Raises:
        UsageError: an option is unknown; the message names the closest one.
    """
    for word in argv:
        name = word.partition("=")[0]
        if not name.startswith("--"):
            continue
        spelled = name.partition(".")[0].replace("_", "-")
        if spelled not in options:
            raise UsageError(
                f"vllm serve does not know {name}.{closest(spelled, list(options))} Correct `vllm_args` in "
                f"qaeval.yaml, or install a version that has it"
            )


async def known_options(
    command: Sequence[str], env: Mapping[str, str], *, stopped: Callable[[], bool] = lambda: False
) -> frozenset[str]:
    """Read the options of the installed vLLM.

    Args:
        command: How vLLM is called.
        env: Environment of the call.
        stopped: Returns whether the user asked to stop meanwhile.

    Raises:
        UsageError: it cannot be called.
        Interrupted: the user asked to stop.
    """
    program = shlex.join(command)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            "serve",
            "--help=all",
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C that reached it too would look like a broken vLLM
        )
    except OSError as error:
        raise UsageError(
            f"{program!r} cannot be started ({error.strerror}): install vLLM on the machine of the model, or "
            f"set serving.command in qaeval.yaml"
        ) from error
    reading = asyncio.ensure_future(process.communicate())
    try:
        async with asyncio.timeout(_HELP_S):
            while not (await asyncio.wait([reading], timeout=_POLL_S))[0]:
                if stopped():
                    raise Interrupted(f"stopped while reading the arguments of {command[0]}")
    except TimeoutError:
        raise UsageError(f"`{program} serve --help=all` did not end within {_HELP_S:g} s") from None
    finally:
        if not reading.done():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # of a wrapper the program as well
            await reading
    output = reading.result()[0].decode(errors="replace")
    options = options_of(output)
    if process.returncode or not options:
        tail = "\n".join(output.splitlines()[-5:])
        raise UsageError(f"`{program} serve --help=all` failed, so that vLLM cannot be used:\n{tail}")
    return options


def free_port() -> int:
    """Return a port that is free on loopback at present."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class VllmServer:
    """A ``vllm serve`` process; the supervisor stops it when qaeval dies without `stop`.

    Args:
        name: The model's name, for messages.
        argv: From `serve_command`.
        env: From `environment`.
        port: Port that it listens on.
        log: File of its output; appended to.
    """

    def __init__(
        self, name: str, argv: Sequence[str], env: Mapping[str, str], *, port: int, log: Path
    ) -> None:
        self.name = name
        self.url = f"http://{LOOPBACK}:{port}/v1"
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
        on_step: Callable[[str], None] = lambda _step: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> float:
        """Start the server and wait until it answers.

        Args:
            deadline_s: Longest wait.
            on_step: Called with each new step: "loading weights 3/5".
            stopped: Returns whether the user asked to stop meanwhile.

        Returns:
            Seconds until it answered.

        Raises:
            EndpointError: it died or is not ready in time; the message has the cause and the end of its log.
            Interrupted: the user asked to stop.
        """
        clock = asyncio.get_running_loop().time
        start_s = clock()
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
            await self._wait_ready(start_s + deadline_s, on_step, stopped)
        except BaseException:
            await self.stop()
            raise
        return clock() - start_s

    async def _wait_ready(
        self, until: float, on_step: Callable[[str], None], stopped: Callable[[], bool]
    ) -> None:
        clock = asyncio.get_running_loop().time
        last_step = ""
        async with Server(self.url, None, timeout_s=5.0, addresses=(LOOPBACK,)) as server:
            while (await server.ask("/health", root=True)).status != _OK:
                if not self.is_alive:
                    raise EndpointError(self._explain("the server died while it started"))
                if stopped():
                    raise Interrupted(f"stopped while {self.name} was starting")
                if clock() > until:
                    raise EndpointError(self._explain("the server was not ready in time (serving.startup_s)"))
                step = progress(self._log_text())
                if step and step != last_step:
                    on_step(step)
                    last_step = step
                await asyncio.sleep(_POLL_S)
        if not self.is_alive:
            # another process answers on its port
            raise EndpointError(self._explain("the server died while it started"))

    async def wait(self) -> None:
        """Wait until it ends."""
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """Stop the server and all its child processes; none is left when this returns."""
        process = self._process
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()  # the supervisor reads the end of its input as a request to stop
            try:
                await asyncio.wait_for(asyncio.shield(process.wait()), GRACE_S + 5)
            except TimeoutError:  # pragma: no cover - a supervisor that hangs
                process.kill()
                await process.wait()
        if self._output is not None:
            self._output.close()
            self._output = None

    def why_dead(self) -> str:
        """Explain the death of a server that had answered before."""
        return self._explain("the server died")

    def _explain(self, event: str) -> str:
        text = self._log_text()
        cause = diagnose(text)
        tail = "\n".join(f"  | {line}" for line in text.splitlines()[-_LOG_TAIL:])
        return f"{self.name}: {event}{f': {cause}' if cause else ''}. The end of {self.log}:\n{tail}"

    def _log_text(self) -> str:
        with self.log.open("rb") as file:
            file.seek(self._start_of_log)
            return file.read().decode(errors="replace")


@asynccontextmanager
async def background_task(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a coroutine in the background of a block; cancel it at the end, and wait for it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
