"""Checks that turn whatever was passed into arrays, or say in a sentence what is wrong with it."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

TINY = 1e-12
"""Differences smaller than this are rounding: sums of thousands of shares keep about 13 digits."""


def as_codes(values: ArrayLike, *, n_levels: int, name: str) -> Ints:
    """Return the letters as integer codes in ``range(n_levels)``, shape (n_items,)."""
    if n_levels < 2:
        raise ValueError(f"a scale needs at least 2 levels, got n_levels={n_levels!r}")
    raw = np.asarray(values)
    if raw.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {raw.shape}")
    if raw.size == 0:
        raise ValueError(f"{name} is empty: there is nothing to compute")
    if raw.dtype.kind not in "iufb":
        raise ValueError(f"{name} must hold integer codes in range({n_levels}), got {raw[0]!r}")
    wrong = ~((raw >= 0) & (raw < n_levels) & (raw == np.floor(raw)))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(
            f"{name} must hold integer codes in range({n_levels}), "
            f"got {raw[first].item()!r} at position {first}"
        )
    return raw.astype(np.int64)


def as_values(values: ArrayLike, *, name: str) -> Floats:
    """Return finite numbers, shape (n,), n at least 1."""
    out = np.asarray(values, dtype=np.float64)
    if out.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {out.shape}")
    if out.size == 0:
        raise ValueError(f"{name} is empty: there is nothing to compute")
    if not np.isfinite(out).all():
        first = int(np.argmax(~np.isfinite(out)))
        raise ValueError(f"{name} must be finite, got {out[first].item()!r} at position {first}")
    return out


def as_table(table: ArrayLike, *, name: str = "table") -> Floats:
    """Return square tables of counts, shape (..., K, K), non-negative and finite."""
    out = np.asarray(table, dtype=np.float64)
    if out.ndim < 2 or out.shape[-1] != out.shape[-2] or out.shape[-1] < 2:
        raise ValueError(f"{name} must be square with at least 2 levels, got shape {out.shape}")
    if not np.isfinite(out).all() or (out < 0).any():
        raise ValueError(f"{name} must hold counts, finite and not negative")
    return out


def same_length(**arrays: NDArray[np.generic]) -> None:
    """Raise when the named arrays have different lengths."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError("lengths differ: " + ", ".join(f"{name} has {n}" for name, n in lengths.items()))


def cluster_codes(clusters: ArrayLike, *, n: int) -> tuple[Ints, int]:
    """Return each item's cluster as a code in ``range(G)``, and G."""
    raw = np.asarray(clusters)
    if raw.ndim != 1 or len(raw) != n:
        raise ValueError(f"clusters must name one cluster for each of the {n} items, got shape {raw.shape}")
    if raw.dtype.kind == "f" and np.isnan(raw).any():
        raise ValueError("clusters must not be NaN: every item comes from some cluster")
    names, codes = np.unique(raw, return_inverse=True)
    return codes.astype(np.int64), len(names)


def check_level(level: float) -> None:
    """Raise unless the confidence level is inside (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, for example 0.95, got {level!r}")
