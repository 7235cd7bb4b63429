"""The sample set: drawn once, in proportion from every stratum, the same for every candidate."""

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from qaeval.errors import DataError, UsageError
from qaeval.records import Chunk, Sample, digest, record_id


def draw(chunks: Sequence[Chunk], *, n: int | None, seed: int) -> tuple[Sample, ...]:
    """Draw chunks in proportion to the size of their strata.

    Guarantees, for one seed:

    - a stratum with a share of ``s`` gets ``n * s`` chunks, rounded down or up;
    - the draw does not depend on the order of the chunks;
    - a smaller draw is part of every larger one: ``draw(n=10)`` is in ``draw(n=20)``;
    - within a stratum, a chunk that is added to the corpus does not change the order of the others.

    Args:
        chunks: the corpus; ids are unique.
        n: how many; None takes all.
        seed: another seed draws other chunks.

    Returns:
        The samples, by document and chunk id.

    Raises:
        UsageError: ``n`` is less than one or more than there are, or there are none.
        DataError: two chunks share an id.
    """
    if len({chunk.chunk_id for chunk in chunks}) < len(chunks):
        raise DataError("the chunks to draw from are not unique: two of them share a chunk_id")
    if not chunks:
        raise UsageError("there are no chunks to draw from")
    if n is not None and not 1 <= n <= len(chunks):
        raise UsageError(
            f"cannot draw {n:,} samples: there are {len(chunks):,} chunks; ask for 1 to {len(chunks):,}"
        )
    drawn = list(chunks) if n is None else _stratified(chunks, n, seed)
    drawn.sort(key=lambda chunk: (chunk.document, chunk.chunk_id))
    return tuple(map(Sample.of, drawn))


def sample_set_digest(samples: Iterable[Sample]) -> str:
    """Hash which samples are in the set, whatever their order, into 64 hex digits."""
    return digest(sorted(sample.sample_id for sample in samples))


def _stratified(chunks: Sequence[Chunk], n: int, seed: int) -> list[Chunk]:
    strata: dict[str, list[Chunk]] = {}
    for chunk in sorted(chunks, key=lambda chunk: record_id("draw", str(seed), chunk.chunk_id)):
        strata.setdefault(chunk.stratum, []).append(chunk)
    sizes = {name: len(members) for name, members in strata.items()}
    return [chunk for name, count in _allocate(sizes, n, seed).items() for chunk in strata[name][:count]]


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
