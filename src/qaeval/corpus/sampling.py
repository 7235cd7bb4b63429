"""The sample set: a stratified draw, the same for all candidates."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from heapq import heapify, heappop, heappush
from sys import intern
from typing import Any, Final, Literal, TypeAlias

from qaeval.errors import DataError, UsageError
from qaeval.files.spool import SpooledRows
from qaeval.records import Sample, digest, record_id

Allocation: TypeAlias = Literal["proportional", "at-least-one", "equal"]
"""How many samples each stratum gets: in proportion to its size, the same with at least one, or the same number."""

_IDENTITY_FIELDS: Final = ("type", "stratum", "persona", "scenario_facts")


def draw(
    samples: SpooledRows[Sample], *, n: int | None, seed: int, allocation: Allocation = "proportional"
) -> SpooledRows[Sample]:
    """Draw samples from all strata.

    Guarantees, for one seed:

    - ``proportional``: a stratum with a share of ``s`` gets ``n * s`` samples, rounded down or up;
    - ``at-least-one``: the same, but one sample where that would be none, at the cost of the other strata;
    - ``equal``: strata get the same number of samples, up to one; one that has fewer gives all of them;
    - the draw does not depend on the order of the samples;
    - a smaller draw is a subset of every larger one: ``draw(n=10)`` of ``draw(n=20)``;
    - within a stratum, an additional sample does not change the order of the others.

    A proportional draw weighs all samples alike. The other ones record in each sample the probability with which it was drawn,
    the drawn share of its stratum (times that of an earlier draw), by which the analysis weighs.

    Args:
        samples: All samples, with unique ids.
        n: Number of samples; None: all.
        seed: Seed of the draw.
        allocation: How many samples each stratum gets.

    Returns:
        The samples, ordered by document and chunk id.

    Raises:
        UsageError: ``n`` is out of range, or below the number of strata where each of them gets a sample; or there are no samples.
        DataError: two samples share an id.
    """
    names, strata, positions = [], [], []
    for sample in samples:
        names.append(_draw_key(sample))
        strata.append(intern(sample.stratum))
        # samples without a question have different chunks
        last = sample.sample_id if sample.question else ""
        positions.append((intern(sample.chunk.document), sample.chunk.chunk_id, last))
    if len(set(names)) < len(samples):
        raise DataError("the samples are not unique: two of them share a chunk_id, or chunk and question")
    if not samples:
        raise UsageError("no samples to draw from")
    if n is not None and not 1 <= n <= len(samples):
        raise UsageError(f"cannot draw {n:,} of {len(samples):,} samples; expected 1 to {len(samples):,}")
    if n is None:
        return samples.take(sorted(range(len(samples)), key=positions.__getitem__))
    members = _by_stratum(names, strata, seed)
    sizes = {name: len(indices) for name, indices in members.items()}
    counts = _allocate(sizes, n, seed, allocation)
    indices = [index for name, count in counts.items() for index in members[name][:count]]
    drawn = samples.take(sorted(indices, key=positions.__getitem__))
    if allocation == "proportional":
        return drawn

    def with_inclusion(sample: Sample) -> Sample:
        count, size = counts[sample.stratum], sizes[sample.stratum]
        return sample.model_copy(update={"inclusion": sample.inclusion * count / size})

    return SpooledRows(Sample, map(with_inclusion, drawn))


def _draw_key(sample: Sample) -> str:
    """Return the key of a sample in the draw: the chunk id, so that correcting its text keeps the draw."""
    return sample.sample_id if sample.question else sample.chunk.chunk_id


def sample_set_digest(samples: Iterable[Sample]) -> str:
    """Hash the samples of a set, independent of their order, into 64 hex digits.

    Type, stratum, persona and scenario count as well, although ids do not contain them: results by type of
    two sets that differ in them are not comparable. So does the probability of being drawn, where samples weigh differently.
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
    if sample.weight != 1:
        fields["weight"] = sample.weight
    return [sample.sample_id, fields] if fields else sample.sample_id


def _by_stratum(names: Sequence[str], strata: Sequence[str], seed: int) -> dict[str, list[int]]:
    """Return the indices of each stratum's samples in the order of the draw."""
    members: dict[str, list[int]] = {}
    for index in sorted(range(len(names)), key=lambda index: record_id("draw", str(seed), names[index])):
        members.setdefault(strata[index], []).append(index)
    return members


def _allocate(sizes: Mapping[str, int], n: int, seed: int, allocation: Allocation) -> dict[str, int]:
    """Return how many samples each stratum gets."""
    if allocation == "proportional":
        return _in_proportion(sizes, n, seed, dict.fromkeys(sizes, 0))
    if n < len(sizes):
        raise UsageError(
            f"--allocation {allocation}: cannot draw {n:,} samples from {len(sizes):,} strata; draw at least {len(sizes):,} "
            "(--n), so that each stratum gets one, or draw proportionally"
        )
    if allocation == "equal":
        return _alike(sizes, n, seed)
    return _in_proportion(sizes, n, seed, dict.fromkeys(sizes, 1))


def _in_proportion(sizes: Mapping[str, int], n: int, seed: int, counts: dict[str, int]) -> dict[str, int]:
    """Allocate seats to strata, up to ``n``, by the quota method of Balinski and Young (1975).

    Seat k goes to the stratum with the largest ``size / (count + 1)`` among those below their exact share
    of k. From no seats on, every count is the exact share rounded down or up, as with largest remainders; in
    contrast to these, no count falls when ``n`` grows.

    Args:
        sizes: Size of each stratum.
        n: Number of seats.
        seed: Of the lots by which ties are broken.
        counts: Seats that each stratum has to begin with; counted on.
    """
    total = sum(sizes.values())
    ready: list[tuple[float, str, str]] = []
    waiting = [(counts[name] * total // sizes[name] + 1, name) for name in sorted(sizes)]
    heapify(waiting)
    for seat in range(sum(counts.values()) + 1, n + 1):
        while waiting and waiting[0][0] <= seat:
            _, name = heappop(waiting)
            # ties are broken by a random draw, not by the alphabet
            heappush(ready, (-sizes[name] / (counts[name] + 1), record_id("lot", str(seed), name), name))
        _, _, name = heappop(ready)
        counts[name] += 1
        heappush(waiting, (counts[name] * total // sizes[name] + 1, name))
    return counts


def _alike(sizes: Mapping[str, int], n: int, seed: int) -> dict[str, int]:
    """Allocate ``n`` seats one to each stratum in turn, in an order drawn by lot, until a stratum has no sample left."""
    counts = dict.fromkeys(sizes, 0)
    order = sorted(sizes, key=lambda name: record_id("lot", str(seed), name))
    while n:
        order = [name for name in order if counts[name] < sizes[name]]
        for name in order[:n]:
            counts[name] += 1
        n -= min(n, len(order))
    return counts
