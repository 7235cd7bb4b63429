"""The sample set: drawn once, in proportion from every stratum, the same for every candidate."""

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import Any, Final

from qaeval.errors import DataError, UsageError
from qaeval.records import Sample, digest, record_id

_SAID: Final = ("type", "stratum", "persona", "scenario_facts")


def draw(samples: Sequence[Sample], *, n: int | None, seed: int) -> tuple[Sample, ...]:
    """Draw samples in proportion to the size of their strata.

    Guarantees, for one seed:

    - a stratum with a share of ``s`` gets ``n * s`` samples, rounded down or up;
    - the draw does not depend on the order of the samples;
    - a smaller draw is part of every larger one: ``draw(n=10)`` is in ``draw(n=20)``;
    - within a stratum, a sample that is added does not change the order of the others.

    Args:
        samples: all there are; ids are unique.
        n: how many; None takes all.
        seed: another seed draws other samples.

    Returns:
        The samples, by document and chunk id.

    Raises:
        UsageError: ``n`` is less than one or more than there are, or there are none.
        DataError: two samples share an id.
    """
    if len(set(map(_name, samples))) < len(samples):
        raise DataError(
            "the samples to draw from are not unique: two share a chunk_id, or the chunk and the question"
        )
    if not samples:
        raise UsageError("there are no samples to draw from")
    if n is not None and not 1 <= n <= len(samples):
        raise UsageError(
            f"cannot draw {n:,} samples: there are {len(samples):,}; ask for 1 to {len(samples):,}"
        )
    drawn = list(samples) if n is None else _stratified(samples, n, seed)
    drawn.sort(key=lambda sample: (sample.chunk.document, sample.chunk.chunk_id, sample.sample_id))
    return tuple(drawn)


def _name(sample: Sample) -> str:
    """What a sample is drawn by: its chunk's id, so that a corrected chunk keeps its place."""
    return sample.sample_id if sample.question else sample.chunk.chunk_id


def sample_set_digest(samples: Iterable[Sample]) -> str:
    """Hash which samples are in the set, whatever their order, into 64 hex digits.

    What the data says of a sample and no id holds counts too: letters by type or stratum of two sets that differ there do not
    belong together.
    """
    return digest(sorted((_identity(sample) for sample in samples), key=str))


def _identity(sample: Sample) -> str | list[Any]:
    said = {name: sample.given[name] for name in _SAID if name in sample.given}
    return [sample.sample_id, said] if said else sample.sample_id


def _stratified(samples: Sequence[Sample], n: int, seed: int) -> list[Sample]:
    strata: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: record_id("draw", str(seed), _name(sample))):
        strata.setdefault(sample.stratum, []).append(sample)
    sizes = {name: len(members) for name, members in strata.items()}
    return [sample for name, count in _allocate(sizes, n, seed).items() for sample in strata[name][:count]]


def _allocate(sizes: dict[str, int], n: int, seed: int) -> dict[str, int]:
    """Share ``n`` among strata by the quota method of Balinski and Young (1975).

    The k-th place goes to the stratum with the largest ``size / (count + 1)`` among those that are still below
    their exact share of k. Every count is the exact share rounded down or up, as with largest remainders, and no
    count ever falls when ``n`` grows, which largest remainders do not promise.
    """
    total = sum(sizes.values())
    counts = dict.fromkeys(sizes, 0)
    ready: list[tuple[float, str, str]] = []
    waiting = [(1, name) for name in sorted(sizes)]
    for place in range(1, n + 1):
        while waiting and waiting[0][0] <= place:
            _, name = heappop(waiting)
            # equal claims go by lot, not by the alphabet
            heappush(ready, (-sizes[name] / (counts[name] + 1), record_id("lot", str(seed), name), name))
        _, _, name = heappop(ready)
        counts[name] += 1
        heappush(waiting, (counts[name] * total // sizes[name] + 1, name))
    return counts
