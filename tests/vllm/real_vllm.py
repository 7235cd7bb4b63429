"""A real vLLM of the tests: where it is, how its servers start on a CPU."""

import os
from pathlib import Path
from typing import Any

from qaeval.registry.config import ModelSpec, Serving
from qaeval.serving.server import VllmServer, environment, free_port, serve_command

ROOT = Path(__file__).parents[2]
VLLM = Path(os.environ.get("QAEVAL_VLLM", ROOT / ".venv-vllm" / "bin" / "vllm"))
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
ARGUMENTS = (
    "--dtype=float32",
    "--enforce-eager",
    "--distributed-executor-backend=uni",
    "--kv-cache-memory-bytes=64M",
    "--block-size=32",
    # vLLM 0.32 on a CPU ends with "CPU Generator does not use offset" when it splits the prompt of a seeded request
    "--no-enable-chunked-prefill",
    "--max-num-batched-tokens=8192",
    "--enable-prompt-tokens-details",
    "--uvicorn-log-level=warning",
)
SERVING = Serving(command=(str(VLLM),), env=SETTINGS, startup_s=180)


def spec(model: Path, name: str, *arguments: str, **fields: Any) -> ModelSpec:
    return ModelSpec(name=name, hf_id=str(model), vllm_args=(*ARGUMENTS, *arguments), **fields)


async def started(model: ModelSpec, folder: Path, *, adapters: tuple[ModelSpec, ...] = ()) -> VllmServer:
    port = free_port()
    argv = serve_command(model, command=SERVING.command, port=port, adapters=adapters)
    env = environment(model, SERVING, os.environ, api_key=None)
    server = VllmServer(model.name, argv, env, port=port, log=folder / f"{model.name}.log")
    await server.start(deadline_s=180)
    return server
