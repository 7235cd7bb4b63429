"""Why a server died, from its log, and what to do.

The patterns are from logs of vLLM 0.32 (on a CPU: missing weights, wrong arguments, cache too small, port in
use), and from its public issue threads for errors that need a GPU (out of memory, compute capability) or the
hub (gated weights).
"""

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Cause:
    """A known cause of death."""

    pattern: re.Pattern[str]
    meaning: str
    """What happened and what to do."""


def _cause(pattern: str, meaning: str) -> Cause:
    return Cause(re.compile(pattern), meaning)


_CAUSES: Final = (
    _cause(
        r"unrecognized arguments|invalid choice: |expected one argument|error: argument --",
        "this version of vLLM does not know one of its arguments; correct `vllm_args` in qaeval.yaml",
    ),
    _cause(
        r"(?i)address already in use",
        "the port is in use; another server may still be running",
    ),
    _cause(
        r"(?i)gated repo|GatedRepoError|Access to model .* is restricted",
        "the weights are gated: accept the terms on the model's page and set HF_TOKEN, or download them",
    ),
    _cause(
        r"RepositoryNotFoundError|RevisionNotFoundError|Repo id must be in the form|is not a local folder "
        r"and is not a valid "
        r"model identifier|No such file or directory: '.*config\.json'|Invalid repository ID or local "
        r"directory",
        "there are no such weights: check `hf_id` and `revision` in qaeval.yaml",
    ),
    _cause(
        r"LocalEntryNotFoundError|outgoing traffic has been disabled|couldn't connect to "
        r"'https://huggingface\.co'",
        "the weights are not on this machine and the hub cannot be reached: download them first (`hf "
        "download`)",
    ),
    _cause(
        r"larger than the available KV cache memory",
        "the memory left for the KV cache does not hold one sequence of --max-model-len; lower "
        "--max-model-len or raise --gpu-memory-utilization",
    ),
    _cause(
        r"No available memory for the cache blocks",
        "the weights leave no memory for the KV cache; take a smaller or quantised model, or raise "
        "--gpu-memory-utilization",
    ),
    _cause(
        r"is less than desired GPU memory utilization",
        "other processes hold the GPU's memory (`nvidia-smi` lists them); stop them or lower "
        "--gpu-memory-utilization",
    ),
    _cause(
        r"CUDA out of memory|OutOfMemoryError|HIP out of memory",
        "the GPU ran out of memory; lower --gpu-memory-utilization, --max-num-seqs or --max-model-len, or "
        "take a smaller model",
    ),
    _cause(
        r"is not supported for the current GPU|Minimum capability|Unknown quantization method|"
        r"[Qq]uantization (?:method|scheme).*not supported|does not match the quantization method specified|"
        r"Cannot find the config file for ",
        "this GPU or vLLM version does not support the quantisation; serve other weights of the model",
    ),
    _cause(
        r"Failed to infer device type|No CUDA GPUs are available|libcuda\.so\.1: cannot open",
        "vLLM finds no GPU here; name a running server with --endpoint",
    ),
    _cause(
        r"CPU Generator does not use offset",
        "on a CPU this vLLM cannot split the prompt of a seeded request: add --no-enable-chunked-prefill and "
        "--max-num-batched-tokens (at least --max-model-len) to `vllm_args` in qaeval.yaml",
    ),
    _cause(r"No space left on device", "the disk is full"),
)


def diagnose(log: str) -> str:
    """Return the cause with what to do; empty where the log has no known one."""
    causes = [(match.start(), cause.meaning) for cause in _CAUSES if (match := cause.pattern.search(log))]
    # one error causes others: the first in the log is the cause
    return min(causes)[1] if causes else ""


def progress(log: str) -> str:
    """Return the present step of a start; empty where the log has none."""
    steps = re.findall(
        r"Loading safetensors checkpoint shards: +\d+% Completed \| (\d+/\d+)"
        r"|(Starting to load model|Loading weights took|Capturing CUDA graphs?|GPU KV cache "
        r"size|torch\.compile takes"
        r"|Application startup complete)",
        log,
    )
    if not steps:
        return ""
    shards, step = steps[-1]
    if shards:
        return f"loading weights {shards}"
    names = {
        "Starting to load model": "loading weights",
        "Loading weights took": "weights loaded",
        "torch.compile takes": "compiling",
        "GPU KV cache size": "reserving the KV cache",
        "Application startup complete": "ready",
    }
    return names.get(step, "capturing graphs")
