"""A run until decided: its samples in batches, and how large the next batch is."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import ceil, sqrt
from typing import Any, Final

from qaeval.analysis.letters import cluster_of
from qaeval.comparison.model import Look
from qaeval.comparison.until_decided import SequencePlan
from qaeval.corpus.sampling import sample_set_digest
from qaeval.errors import NotComparableError
from qaeval.files.spool import SpooledRows
from qaeval.records import Sample, Session
from qaeval.registry.config import ModelSpec
from qaeval.report import numbers
from qaeval.run.plan import Plan
from qaeval.storage.run_directory import RunStore

FIRST: Final = 50
"""Chunks of the first batch where every server stays up; fewer decide little, and a server idles at the end of each batch."""
FIRST_IN_TURNS: Final = 250
"""Chunks of the first batch where servers take turns on a GPU: how long a start takes is not known yet."""
_GROWTH: Final = 8
"""A batch is at least this part of the chunks before it, so that the share asked for in vain, and the number of looks, stay small."""
_ROUND: Final = 10
KEY: Final = "until_decided"


def take_turns(specs: Sequence[ModelSpec]) -> bool:
    """Whether qaeval has to start one server after the other in each batch."""
    return len({spec.hosting.name for spec in specs if spec.is_hosted}) > 1


def next_batch(n_done: int, n_chunks: int, sessions: Sequence[Session], n_batches: int) -> int:
    r"""Return how many chunks to ask for next.

    With starts of servers that take L seconds a batch and work of w seconds a chunk, n chunks in batches of b take
    :math:`L n / b` for starts and :math:`w b / 2` for chunks that are asked for in vain after the deciding one. The sum is
    smallest at :math:`b = \sqrt{2 n L / w}`; n is taken as the chunks so far.

    Args:
        n_done: Chunks so far, at least 1.
        n_chunks: Chunks of the plan.
        sessions: Of the run so far.
        n_batches: Batches so far, at least 1.
    """
    start_s = sum(session.load_s for session in sessions) / n_batches
    work_s = sum(session.seconds for session in sessions) / n_done
    best = sqrt(2 * n_done * start_s / work_s) if work_s else 0.0
    size = _ROUND * ceil(max(FIRST, n_done / _GROWTH, min(best, 2.0 * n_done)) / _ROUND)
    left = n_chunks - n_done
    # a rest of less than half a batch is not worth a look
    return left if left < 1.5 * size else size


class Batches:
    """The samples of a run until decided.

    Args:
        plan: All samples of the run, and its candidates.
        margin: Smallest difference that matters, in (0, 1).
        recorded: Settings of the run that is resumed; None: a new one.
        in_turns: Whether servers take turns (`take_turns`).
    """

    def __init__(
        self, plan: Plan, *, margin: float, recorded: Mapping[str, Any] | None, in_turns: bool
    ) -> None:
        by_chunk = Counter(map(cluster_of, plan.samples))
        first = FIRST_IN_TURNS if in_turns else FIRST
        n_chunks = len(by_chunk)
        old = None if recorded is None else SequencePlan.of(recorded)
        self.sequence = SequencePlan(
            seed=plan.seed,
            margin=margin,
            digest=plan.digest,
            n_samples=len(plan.samples),
            n_chunks=n_chunks,
            max_samples=max(by_chunk.values()),
            looks=(n_chunks if n_chunks < 1.5 * first else first,) if old is None else old.looks,
        )
        self._plan = plan
        self._order = self.sequence.order(by_chunk)

    @property
    def is_complete(self) -> bool:
        """Whether all chunks were asked for."""
        return self.sequence.looks[-1] >= self.sequence.n_chunks

    @property
    def ratio(self) -> float:
        """Samples of the plan for each sample so far: a run that stays undecided is so many times larger."""
        return self.sequence.n_samples / len(self.samples())

    def samples(self) -> SpooledRows[Sample]:
        """Return the samples of all batches so far, in the order of the plan."""
        chunks, samples = frozenset(self._order[: self.sequence.looks[-1]]), self._plan.samples
        return samples.take(index for index, sample in enumerate(samples) if cluster_of(sample) in chunks)

    def settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a run with the batches so far as its sample set.

        Args:
            settings: Those of the run, such as `Plan.settings`.
        """
        samples = self.samples()
        sample_set = {**settings["sample_set"], "n": len(samples), "digest": sample_set_digest(samples)}
        return {**settings, "sample_set": sample_set, KEY: self.sequence.model_dump(mode="json")}

    def run(
        self,
        store: RunStore,
        work: Callable[[], None],
        look: Callable[[], Look],
        on_message: Callable[[str], None],
    ) -> None:
        """Work batch by batch until a look decides, or all chunks were asked for.

        Args:
            store: The open run, whose sample set grows.
            work: Asks for and grades what is pending in the run.
            look: Looks at the run.
            on_message: Called with a sentence after each look.
        """
        while True:
            # a process that was killed between both files left the samples of one batch more
            store.write_samples(self.samples(), self.settings(store.settings()))
            work()
            if self.is_complete:
                return
            seen = look()
            n, sequence = seen.n_chunks, self.sequence
            if seen.is_decided:
                on_message(f"decided after {n:,} of {numbers.plural(sequence.n_chunks, 'chunk')}")
                return
            size = next_batch(n, sequence.n_chunks, store.sessions(), len(sequence.looks))
            on_message(
                f"undecided after {n:,} of {numbers.plural(sequence.n_chunks, 'chunk')} ({_leads(seen)}); next: {size:,} more"
            )
            self.sequence = sequence.model_copy(update={"looks": (*sequence.looks, n + size)})


def _leads(look: Look) -> str:
    """Print the differences of the leader from the others."""
    pairs = [pair for pair in look.pairs if look.leader in {pair.a, pair.b}]
    return "; ".join(
        f"{pair.b} {numbers.MINUS} {pair.a} {numbers.difference(pair.difference)}" for pair in pairs
    )


def require_same_ending(recorded: Mapping[str, Any] | None, *, until_decided: bool, path: object) -> None:
    """Refuse to continue a run until decided as a fixed sample, or the other way: its result must not choose how it ends.

    Args:
        recorded: Settings of the run that is resumed; None: a new one.
        until_decided: What is asked for.
        path: The run directory, for the error.

    Raises:
        NotComparableError: The run began otherwise.
    """
    if recorded is None or (KEY in recorded) is until_decided:
        return
    raise NotComparableError(
        f"{path}: the run began until decided; resume it with --until-decided, or choose another --out"
        if KEY in recorded
        else f"{path}: the run began with a fixed sample; resume it with --all-chunks, or choose another --out"
    )
