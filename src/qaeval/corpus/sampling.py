"""The sample set: a stratified draw, the same for all candidates."""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from heapq import heappop, heappush
from typing import Any, Final

from qaeval.errors import DataError, UsageError
from qaeval.records import Sample, digest, record_id

_IDENTITY_FIELDS: Final = ("type", "stratum", "persona", "scenario_facts")


def draw(samples: Sequence[Sample], *, n: int | None, seed: int) -> tuple[Sample, ...]:
    """Draw samples in proportion to the size of their strata.

    Guarantees, for one seed:

    - a stratum with a share of ``s`` gets ``n * s`` samples, rounded down or up;
    - the draw does not depend on the order of the samples;
    - a smaller draw is a subset of every larger one: ``draw(n=10)`` of ``draw(n=20)``;
    - within a stratum, an additional sample does not change the order of the others.

    Args:
        samples: All samples, with unique ids.
        n: Number of samples; None: all.
        seed: Seed of the draw.

    Returns:
        The samples, ordered by document and chunk id.

    Raises:
        UsageError: ``n`` is out of range, or there are no samples.
        DataError: two samples share an id.
    """
    if len(set(map(_draw_key, samples))) < len(samples):
        raise DataError("the samples are not unique: two of them share a chunk_id, or chunk and question")
    if not samples:
        raise UsageError("no samples to draw from")
    if n is not None and not 1 <= n <= len(samples):
        raise UsageError(f"cannot draw {n:,} of {len(samples):,} samples; expected 1 to {len(samples):,}")
    drawn = list(samples) if n is None else _stratified(samples, n, seed)
    drawn.sort(key=lambda sample: (sample.chunk.document, sample.chunk.chunk_id, sample.sample_id))
    return tuple(drawn)


def _draw_key(sample: Sample) -> str:
    """Return the key of a sample in the draw: the chunk id, so that correcting its text keeps the draw."""
    return sample.sample_id if sample.question else sample.chunk.chunk_id


def sample_set_digest(samples: Iterable[Sample]) -> str:
    """Hash the samples of a set, independent of their order, into 64 hex digits.

    Type, stratum, persona and scenario count as well, although ids do not contain them: results by type of
    two sets that differ in them are not comparable.
    """
    return digest(sorted((_identity(sample) for sample in samples), key=str))


def random_order(chunks: Iterable[str], *, sample_set: str, seed: int) -> tuple[str, ...]:
    """Order chunks by a hash of sample set, seed and chunk: random as far as letters go, and not chosen by anybody.

    Args:
        chunks: Ids of chunks.
        sample_set: Hash of the sample set (`sample_set_digest`).
        seed: Seed of the order.
    """
    return tuple(sorted(chunks, key=lambda chunk: sha256(f"{sample_set} {seed} {chunk}".encode()).digest()))


def _identity(sample: Sample) -> str | list[Any]:
    fields = {name: sample.given[name] for name in _IDENTITY_FIELDS if name in sample.given}
    return [sample.sample_id, fields] if fields else sample.sample_id


def _stratified(samples: Sequence[Sample], n: int, seed: int) -> list[Sample]:
    strata: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: record_id("draw", str(seed), _draw_key(sample))):
        strata.setdefault(sample.stratum, []).append(sample)
    sizes = {name: len(members) for name, members in strata.items()}
    return [sample for name, count in _allocate(sizes, n, seed).items() for sample in strata[name][:count]]


def _allocate(sizes: dict[str, int], n: int, seed: int) -> dict[str, int]:
    """Allocate ``n`` seats to strata by the quota method of Balinski and Young (1975).

    Seat k goes to the stratum with the largest ``size / (count + 1)`` among those below their exact share
    of k. Every count is the exact share rounded down or up, as with largest remainders; in contrast to
    these, no count falls when ``n`` grows.
    """
    total = sum(sizes.values())
    counts = dict.fromkeys(sizes, 0)
    ready: list[tuple[float, str, str]] = []
    waiting = [(1, name) for name in sorted(sizes)]
    for seat in range(1, n + 1):
        while waiting and waiting[0][0] <= seat:
            _, name = heappop(waiting)
            # ties are broken by a random draw, not by the alphabet
            heappush(ready, (-sizes[name] / (counts[name] + 1), record_id("lot", str(seed), name), name))
        _, _, name = heappop(ready)
        counts[name] += 1
        heappush(waiting, (counts[name] * total // sizes[name] + 1, name))
    return counts
