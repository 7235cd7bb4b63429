"""What fits on one GPU: weights, a share for activations, and what is left for the KV cache."""

from dataclasses import dataclass
from typing import Final

from qaeval.registry.config import ModelSpec

OVERHEAD_GIB: Final = 1.0
"""Activations, CUDA context and graphs of a 7 to 14 B model; vLLM measures its own when it starts."""
_GIB_KIB: Final = 2**20
_UTILISATION: Final = 0.92
"""vLLM's default where an entry says nothing."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Memory of one server, in GiB."""

    name: str
    total: float
    utilisation: float
    weights: float
    left: float
    """For the KV cache: total x utilisation - weights - overhead."""
    tokens: int | None
    """Tokens that the cache holds; None where the entry does not say what one takes."""
    context: int | None
    """Longest sequence that the server is started with."""

    @property
    def fits(self) -> bool:
        """Whether weights, overhead and one sequence fit."""
        if self.tokens is None or self.context is None:
            return self.left > 0
        return self.tokens >= self.context

    @property
    def arithmetic(self) -> str:
        """The calculation, to be checked by hand."""
        room = f"{self.utilisation:g} x {self.total:g} - {self.weights:g} - {OVERHEAD_GIB:g} = {self.left:.2f} GiB"
        if self.tokens is None:
            return f"{room} for the KV cache"
        held = f"{room} for the KV cache, {self.tokens:,} tokens"
        if self.context is None:
            return held
        return f"{held}: {self.tokens / self.context:.1f} sequences of {self.context:,}"


def budget(spec: ModelSpec, gpu_gib: float) -> Budget | None:
    """Count a server's memory on a GPU of its own; None where the entry has no `weights_gib`.

    Args:
        spec: The registry's entry; an adapter counts as its base.
        gpu_gib: Memory of the GPU as CUDA reports it.
    """
    if spec.weights_gib is None:
        return None
    utilisation = spec.utilisation or _UTILISATION
    left = gpu_gib * utilisation - spec.weights_gib - OVERHEAD_GIB
    per_token = spec.kv_kib_per_token
    return Budget(
        name=spec.hosting.name,
        total=gpu_gib,
        utilisation=utilisation,
        weights=spec.weights_gib,
        left=left,
        tokens=None if per_token is None else max(0, int(left * _GIB_KIB / per_token)),
        context=spec.context,
    )


def fit_together(one: Budget, other: Budget) -> bool:
    """Whether two servers fit on the GPU at once, each with the cache for one of its longest sequences."""
    needed = 0.0
    for each in (one, other):
        cache = each.left / each.tokens * each.context if each.tokens and each.context else 0.0
        needed += each.weights + OVERHEAD_GIB + cache
    return needed <= one.total * min(one.utilisation, other.utilisation)
