"""Output of `qaeval doctor`: installed software, endpoints, and the plan of a run."""

import asyncio
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qaeval import __version__
from qaeval.chat.guard import check_host
from qaeval.cli.terminal import say
from qaeval.errors import QaevalError
from qaeval.registry.config import Config, ModelSpec, Serving
from qaeval.registry.find import api_key
from qaeval.registry.plugins import MODELS, load_plugin
from qaeval.run.hosting import in_turns
from qaeval.run.plan import Judging, Plan
from qaeval.serving.gpus import NotMeteredError, gpu_meter
from qaeval.serving.memory import MemoryEstimate, estimate_memory, fit_together
from qaeval.serving.probe import reach
from qaeval.text.units import count_words
from qaeval.text.visible import visible

_FIRST_PORT: Final = 8001
_IMPORT_S: Final = 120.0
"""Longest wait for a version: vLLM imports torch first."""
_GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a model can be asked now, and why."""

    usable: bool
    detail: str
    is_asked: bool = False
    """Whether it has a server that was asked."""


def print_machine() -> None:
    """Print versions, GPU and free space."""
    say(f"qaeval {__version__}, Python {sys.version.split()[0]}")
    say(f"GPU: {_gpu()}")
    free = shutil.disk_usage(Path()).free / _GIB
    say(f"disk: {free:,.1f} GiB free here; runs go to {Path('results')}/")


def _gpu() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "none (nvidia-smi is missing); needed only to serve models on this machine"
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        result = _run(query)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi does not answer: {error}"
    lines = (result.stdout if result.returncode == 0 else result.stderr or result.stdout).strip().splitlines()
    return "; ".join(lines) or f"nvidia-smi ended with code {result.returncode}"


def _run(command: Sequence[str], *, timeout_s: float = 10.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)  # noqa: S603 - fixed, or the user's


def print_serving(serving: Serving) -> None:
    """Ask the command that serves models for its version, and print it."""
    command = shlex.join(serving.command)
    say(f"vLLM (serving.command: {visible(command)}): ", end="", flush=True)
    say(_served_version(serving))


def _served_version(serving: Serving) -> str:
    executable = shutil.which(serving.command[0])
    if executable is None:
        return "not installed here; needed only to serve models on this machine"
    # without the import of torch, which takes up to a minute, where the command's environment says what it holds
    environment = Path(executable).resolve().parents[1]
    if installed := next(environment.glob("lib/python3*/site-packages/vllm-*.dist-info"), None):
        return installed.name.removeprefix("vllm-").removesuffix(".dist-info")
    try:
        result = _run([*serving.command, "--version"], timeout_s=_IMPORT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not answer `--version`: {error}"
    lines = (result.stdout if result.returncode == 0 else result.stderr or result.stdout).strip().splitlines()
    last = lines[-1].strip() if lines else "no output"
    return last if result.returncode == 0 else f"`--version` ended with code {result.returncode}: {last}"


def print_plan(plan: Plan, judging: Judging) -> None:
    """Print samples, candidates, judge and number of requests of a `compare`."""
    strata = {sample.stratum for sample in plan.samples}
    n_samples, n_candidates = len(plan.samples), len(plan.candidates)
    n_items = plan.definition.items_per_sample
    say(
        f"\na run of {plan.definition.name}: {n_samples:,} chunks from {len(strata)} strata, {n_items} "
        f"items from each\n"
        f"  candidates: {', '.join(spec.name for spec in plan.candidates)}: "
        f"{n_candidates * n_samples:,} requests to generate\n"
        f"  judge: {judging.judge.name}, rubric {judging.rubric.name} version {judging.rubric.version}: "
        f"up to {n_candidates * n_samples * n_items:,} requests to grade"
    )
    longest = max(plan.samples, key=lambda sample: len(sample.chunk.text))
    say(f"  longest chunk: {count_words(longest.chunk.text):,} words ({longest.chunk.chunk_id})")


def print_memory(specs: Sequence[ModelSpec], gpu_gib: float) -> None:
    """Print the memory of each server, in the order of their turns, and whether two fit together."""
    servers = [spec for spec in in_turns(specs) if spec.kind == "server"]
    say(f"\none GPU of {gpu_gib:g} GiB (serving.gpu_gib), one server at a time")
    if not servers:
        say("  no model of this run needs a GPU")
    by_name: dict[str, MemoryEstimate] = {}
    for spec in servers:
        estimate = estimate_memory(spec, gpu_gib)
        if estimate is None:
            say(f"  {spec.hosting.name}: weights_gib and kv_kib_per_token are not in the registry")
        elif estimate.name not in by_name:
            by_name[estimate.name] = estimate
            say(f"  {estimate.name}: {estimate.arithmetic}{'' if estimate.fits else '; DOES NOT FIT'}")
    estimates = list(by_name.values())
    for candidate in estimates[:-1]:
        if fit_together(candidate, judge := estimates[-1]):
            say(
                f"  {candidate.name} and {judge.name} fit together, each with its share of "
                f"--gpu-memory-utilization: start both and name their URLs, then generation and grading "
                f"overlap"
            )


def check_endpoints(specs: Sequence[ModelSpec], config: Config) -> dict[str, Availability]:
    """Ask every server for its health and models, print and return the answers; no model is asked."""
    answers = asyncio.run(_check_endpoints(specs, config))
    say("\nendpoints")
    for name, answer in answers.items():
        say(f"  {name}: {answer.detail}")
    return answers


async def _check_endpoints(specs: Sequence[ModelSpec], config: Config) -> dict[str, Availability]:
    answers = await asyncio.gather(
        *(_availability(spec, config.allow_external, config.serving.command[0]) for spec in specs)
    )
    return {spec.name: answer for spec, answer in zip(specs, answers, strict=True)}


async def _availability(spec: ModelSpec, allow_external: Sequence[str], command: str) -> Availability:
    if spec.in_process:
        load_plugin(MODELS, spec.name)
        return Availability(usable=True, detail="runs inside qaeval")
    if spec.is_hosted and shutil.which(command):
        return Availability(
            usable=True, detail=f"no url; qaeval starts it with {command} when its turn comes"
        )
    if spec.url is None:
        return Availability(usable=False, detail="no server (--endpoint NAME=URL, or `url:` in qaeval.yaml)")
    servers = await asyncio.gather(
        *(_server_availability(spec, url, allow_external) for url in (spec.url, *spec.replicas))
    )
    usable = all(server.usable for server in servers)
    energy = await energy_of(spec, allow_external) if usable else ""
    detail = "; ".join(server.detail for server in servers)
    return Availability(usable=usable, detail=f"{detail}{energy}", is_asked=True)


async def _server_availability(spec: ModelSpec, url: str, allow_external: Sequence[str]) -> Availability:
    """Ask one server of a model, which may have several."""
    try:
        key = api_key(spec)
        addresses = check_host(url, allow_external=allow_external).addresses
    except QaevalError as error:
        return Availability(usable=False, detail=str(error), is_asked=True)
    answer = await reach(url, addresses=addresses, api_key=key)
    if answer.ok and answer.models and spec.served not in answer.models:
        advice = (
            f"it does not serve {spec.served!r}; set `served_name: {answer.models[0]}` in qaeval.yaml "
            f"if this is the model"
        )
        return Availability(usable=False, detail=f"{url}: {answer.detail}; {advice}", is_asked=True)
    return Availability(usable=answer.ok, detail=f"{url}: {answer.detail}", is_asked=True)


async def energy_of(spec: ModelSpec, allow_external: Sequence[str]) -> str:
    """Return the GPUs of an entry's exporter, or why they cannot be measured; empty without an exporter."""
    if spec.gpu_metrics is None:
        return ""
    try:
        addresses = check_host(spec.gpu_metrics.url, allow_external=allow_external).addresses
        meter = gpu_meter(spec, addresses=(), exporter_addresses=addresses)
        assert meter is not None  # noqa: S101 - for mypy: an entry with an exporter has a meter
        async with meter:
            gpus = await meter.read()
    except (QaevalError, NotMeteredError) as error:
        return f"; energy cannot be measured: {error}"
    return f"; energy by {meter.source}: {', '.join(f'{gpu.name} {uuid}' for uuid, gpu in gpus.items())}"


def next_command(
    plan: Plan, judging: Judging, answers: Mapping[str, Availability], options: Sequence[str]
) -> str:
    """Return the next command: start the servers that are missing, else compare.

    Args:
        plan: the plan of the run.
        judging: judge and rubric.
        answers: availability of every model of the run.
        options: the options that shaped the plan, which are repeated.
    """
    specs = {spec.name: spec for spec in (*plan.candidates, judging.judge)}
    missing = [spec for name, spec in specs.items() if not answers[name].usable]
    compare = ["qaeval", "compare", *(spec.name for spec in plan.candidates), *options]
    unserved = [spec for spec in missing if spec.url is None]
    if not missing:
        return shlex.join(compare)
    if not unserved:
        return f"start {', '.join(spec.name for spec in missing)}, then: {shlex.join(compare)}"
    ports = {spec.name: _FIRST_PORT + index for index, spec in enumerate(unserved)}
    starts = [
        shlex.join(["vllm", "serve", *spec.serve_arguments(), "--port", str(ports[spec.name])])
        for spec in unserved
    ]
    endpoints = [
        word for name, port in ports.items() for word in ("--endpoint", f"{name}=http://127.0.0.1:{port}/v1")
    ]
    return "\n  ".join(["on machines with a GPU", *starts, "then", shlex.join([*compare, *endpoints])])
