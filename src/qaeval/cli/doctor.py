"""`qaeval doctor`: what is there, what answers, and what to type next."""

import asyncio
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from qaeval import __version__
from qaeval.config import Config, ModelSpec
from qaeval.errors import QaevalError
from qaeval.run import api_key
from qaeval.serving.guard import check_host
from qaeval.serving.probe import reach


def examine(config: Config) -> None:
    """Print the findings; nothing is changed and nothing is asked of a model."""
    print(f"qaeval {__version__}, Python {sys.version.split()[0]}")
    print(
        f"GPU driver: {'nvidia-smi found' if shutil.which('nvidia-smi') else 'none found (nvidia-smi is not on the path)'}"
    )
    print(
        f"vLLM here: {'installed' if find_spec('vllm') else 'not installed; needed only to serve models on this machine'}"
    )
    specs = {spec.name: spec for spec in (*config.models.values(), *config.judges.values())}
    servers = [spec for spec in specs.values() if spec.url]
    print(
        "\nendpoints:"
        if servers
        else "\nendpoints: none; --endpoint NAME=URL or `url:` in qaeval.yaml names one"
    )
    answering = asyncio.run(_reach_all(servers, config.allow_external))
    print(f"\nnext: {_next_command(answering, config)}")


async def _reach_all(servers: Sequence[ModelSpec], allow_external: Sequence[str]) -> list[str]:
    answering = []
    for spec in servers:
        try:
            check_host(spec.url or "", allow_external=allow_external)
            found = await reach(spec.url or "", api_key(spec))
        except QaevalError as error:
            print(f"  {spec.name}: {error}")
            continue
        print(f"  {spec.name}: {spec.url}: {found.detail}")
        if found.ok:
            answering.append(spec.name)
    return answering


def _next_command(answering: Sequence[str], config: Config) -> str:
    candidates = [name for name in answering if name in config.models]
    judges = [name for name in answering if name in config.judges]
    if len(candidates) > 1 and judges:
        return f"qaeval compare {' '.join(candidates)} --judge {judges[0]}"
    return "qaeval compare embedded-lead embedded-salient --n 20"
