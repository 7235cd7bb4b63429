"""GPU memory of a server: weights, an allowance for activations, and the rest for the KV cache."""

from dataclasses import dataclass
from typing import Final

from qaeval.registry.config import ModelSpec

OVERHEAD_GIB: Final = 1.0
"""Activations, CUDA context and graphs of a 7 to 14 B model; vLLM measures its own when it starts."""
_GIB_KIB: Final = 2**20
_UTILISATION: Final = 0.92
"""vLLM's default for --gpu-memory-utilization."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Memory of one server, in GiB of each of its GPUs."""

    name: str
    total: float
    utilisation: float
    weights: float
    """A GPU's part of the weights."""
    kv_cache: float
    """Total x utilisation - weights - overhead."""
    tokens: int | None
    """Tokens that the cache holds; None where the entry has no size of a token."""
    context: int | None
    """Longest sequence of the server, in tokens."""
    n_shards: int = 1
    """GPUs that share the weights and the cache."""

    @property
    def fits(self) -> bool:
        """Whether weights, overhead and one sequence fit."""
        if self.tokens is None or self.context is None:
            return self.kv_cache > 0
        return self.tokens >= self.context

    @property
    def arithmetic(self) -> str:
        """The calculation, to be checked by hand."""
        n = self.n_shards
        weights = f"{self.weights:g}" if n == 1 else f"{self.weights * n:g} / {n}"
        cache = (
            f"{self.utilisation:g} x {self.total:g} - {weights} - {OVERHEAD_GIB:g} = {self.kv_cache:.2f} GiB"
            f"{'' if n == 1 else f' on each of {n} GPUs'}"
        )
        if self.tokens is None:
            return f"{cache} for the KV cache"
        capacity = f"{cache} for the KV cache, {self.tokens:,} tokens"
        if self.context is None:
            return capacity
        return f"{capacity}: {self.tokens / self.context:.1f} sequences of {self.context:,}"


def estimate_memory(spec: ModelSpec, gpu_gib: float) -> MemoryEstimate | None:
    """Estimate a server's memory on GPUs that it does not share; None where the entry has no `weights_gib`.

    Tensor and pipeline parallelism split weights and cache evenly over the GPUs; data parallelism repeats both.

    Args:
        spec: The registry's entry; an adapter counts as its base.
        gpu_gib: Memory of one GPU as CUDA reports it.
    """
    if spec.weights_gib is None:
        return None
    utilisation, n = spec.utilisation or _UTILISATION, spec.n_shards
    weights = spec.weights_gib / n
    kv_cache = gpu_gib * utilisation - weights - OVERHEAD_GIB
    per_token = spec.kv_kib_per_token
    return MemoryEstimate(
        name=spec.hosting.name,
        total=gpu_gib,
        utilisation=utilisation,
        weights=weights,
        kv_cache=kv_cache,
        tokens=None if per_token is None else max(0, int(kv_cache * _GIB_KIB * n / per_token)),
        context=spec.context,
        n_shards=n,
    )


def fit_together(first: MemoryEstimate, second: MemoryEstimate) -> bool:
    """Whether two servers fit on one GPU together, each with the cache for one of its longest sequences."""
    needed = 0.0
    for server in (first, second):
        needed += server.weights + OVERHEAD_GIB
        if server.tokens and server.context:
            needed += server.kv_cache / server.tokens * server.context
    return needed <= first.total * min(first.utilisation, second.utilisation)
