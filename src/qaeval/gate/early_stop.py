"""Grading in random order until a gate is decided.

What is in flight at the end finishes and is kept, so that ``qaeval grade`` can grade the rest later. The same run, baseline, policy
and seed give the same verdict, however often the gate was stopped on the way: chunks count in the order that was fixed before
the first one was graded, whenever their letters come.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import orjson

from qaeval.analysis.letters import cluster_of
from qaeval.errors import Interrupted, NotComparableError
from qaeval.gate.evidence import Evidence
from qaeval.gate.rules import GateInputs, RuleCase, cases_of, verdicts_of
from qaeval.gate.sequential import SequentialMonitor, grading_order
from qaeval.records import GradeRow, Sample
from qaeval.run.plan import Judging
from qaeval.run.runner import Runner
from qaeval.storage.run_directory import RunStore

ORDER: Final = "order.json"
"""File of the run directory that holds the seed of the order."""

_MAX_WASTED_SHARE: Final = 1 / 16
"""Share of the items that may be in flight when the answer becomes certain: each of them is graded in vain."""
_MIN_IN_FLIGHT: Final = 4
"""Requests in flight of a small run, so that its judge does not idle."""


class SequentialGrading:
    """Grades the samples of a run in the order of its gate, until the gate is decided.

    Iterating gives the samples whose items are to be graded next; it ends when the gate is decided.

    Args:
        store: The open run: generated to its end, graded in part or not at all.
        inputs: The gate, with the run as it is now.
        seed: Seed of the order of the chunks; a run keeps the seed of its first gate.
    """

    def __init__(self, store: RunStore, inputs: GateInputs, *, seed: int) -> None:
        self._inputs = inputs
        self._pairs = inputs.pairs
        cases = cases_of(inputs)
        gated = tuple(candidate for candidate in inputs.run.candidates if candidate.name in self._pairs)
        run = replace(inputs.run, candidates=gated)
        self._monitor = SequentialMonitor(cases, run, inputs.baseline, alpha=inputs.policy.alpha)
        verdicts = verdicts_of(cases, inputs.policy.alpha)
        self._passed = {verdict.id: verdict.verdict == "pass" for verdict in verdicts}
        """By id; the monitor asks only for the rules that no letter changes."""
        self._order = grading_order(run, seed)
        self._items = _items_by_chunk(run)
        self._item_ids = frozenset[str]().union(*self._items.values())
        self._samples: dict[str, list[Sample]] = {}
        for sample in store.samples():
            self._samples.setdefault(cluster_of(sample), []).append(sample)
        self._grades: dict[str, GradeRow] = {
            row.item_id: row for row in store.grades() if row.item_id is not None
        }
        self._is_decided = False
        self._store, self._seed = store, seed

    def grade(self, runner: Runner, judging: Judging) -> None:
        """Have the judge grade until the gate is decided; letters that exist already may decide it.

        Raises:
            NotComparableError: The run is graded in the order of another seed.
            Interrupted: The user stopped; the same gate continues from there.
            EndpointError: The judge's server cannot be used.
            StoreError: A row could not be written.
        """
        is_continued = (self._store.path / ORDER).is_file()
        self._keep_seed()
        self._advance()
        if self._is_decided and not (is_continued and self._has_pending_controls):
            return
        in_flight = max(_MIN_IN_FLIGHT, int(len(self._item_ids) * _MAX_WASTED_SHARE))
        try:
            runner.grade(
                judging,
                samples=self,
                candidates=self._pairs,
                on_row=self._note,
                max_concurrency=in_flight,
                controls=self._store.settings().get("controls", True),
            )
        except Interrupted as error:
            raise Interrupted(f"{error}; the gate is undecided, and the same command continues it") from error

    @property
    def _has_pending_controls(self) -> bool:
        """Whether planted controls are wanted and the judge is still to be asked about one."""
        controls = self._store.controls()
        is_wanted: bool = self._store.settings().get("controls", True)
        return is_wanted and (not controls or any(control.is_pending for control in controls))

    def _keep_seed(self) -> None:
        """Write down the order before anything is graded in it, and refuse another one later: its result must not choose it."""
        samples_digest = self._inputs.run.source.identity.samples_digest
        order = {"seed": self._seed, "samples": samples_digest}
        path = self._store.path / ORDER
        if not path.is_file():
            self._store.write_text(ORDER, json.dumps(order) + "\n")
            return
        recorded = orjson.loads(path.read_bytes())
        if recorded != order:
            raise NotComparableError(
                f"{path}: the run is graded in the order of seed {recorded.get('seed')}, not {self._seed}: an order may not be chosen "
                "by its result"
            )

    def __iter__(self) -> Iterator[Sample]:
        for chunk in self._order[self._monitor.n_seen :]:
            for sample in self._samples[chunk]:
                if self._is_decided:
                    return
                yield sample

    async def _note(self, row: Any) -> None:  # noqa: ANN401 - a row of the grade stage
        self._grades[row.item_id] = row
        self._advance()

    def _advance(self) -> None:
        """Count each chunk whose turn it is and whose items are all graded."""
        while not self._is_decided and self._monitor.n_seen < len(self._order):
            chunk = self._order[self._monitor.n_seen]
            if not self._items[chunk] <= self._grades.keys():
                return
            self._monitor.update(chunk, self._grades)
            self._is_decided = self._monitor.is_decided(self._passed)

    def cases(self) -> list[RuleCase]:
        """Return all rules with their estimates: those that no letter changes on all samples, the others on the chunks that count."""
        return self._monitor.cases()

    def summary(self) -> dict[str, float]:
        """Return what was graded, what that saved, and what it costs in power.

        Returns:
            ``chunks_looked_at`` of ``chunks``, ``items_graded`` of ``items``, ``share_saved`` of the grading. Where a rule has a margin,
            ``power`` is the share of such gates in which a run as good as its baseline passes the rule that loses most by looking, and
            ``power_at_once`` the share where everything is graded first.
        """
        n_items = len(self._item_ids)
        n_graded = len(self._grades.keys() & self._item_ids)
        summary: dict[str, float] = {
            "chunks_looked_at": self._monitor.n_seen,
            "chunks": self._monitor.n_chunks,
            "items_graded": n_graded,
            "items": n_items,
            "share_saved": 1 - n_graded / n_items if n_items else 0.0,
        }
        power = self._monitor.power()
        if power is not None:
            summary |= {"power": power.sequential, "power_at_once": power.fixed}
        return summary


def _items_by_chunk(run: Evidence) -> dict[str, set[str]]:
    """Return the ids of each chunk's delivered items."""
    items: dict[str, set[str]] = {chunk: set() for chunk in run.chunk_names}
    for candidate in run.candidates:
        for chunk, row in zip(run.chunks.tolist(), candidate.item_ids.tolist(), strict=True):
            items[chunk] |= set(row) - {""}
    return items
