"""A gate that grades while it decides: chunks in random order, until the answer is certain.

What is in flight then finishes and is kept, so that ``qaeval grade`` can grade the rest later. The same run, baseline, policy
and seed give the same verdict, however often the gate was stopped on the way: chunks count in the order that was fixed before
the first one was graded, whenever their letters come.
"""

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any, Final

import orjson

from qaeval.analysis.letters import cluster_of
from qaeval.errors import Interrupted, NotComparableError
from qaeval.gate.baseline import EvidenceReader
from qaeval.gate.decide import GateInputs, decide, pairs_of
from qaeval.gate.evidence import Evidence
from qaeval.gate.model import GateReport
from qaeval.gate.rules import RuleCase, cases_of, verdicts_of
from qaeval.gate.sequential import (
    SequentialMonitor,
    grading_order,
    require_same_samples,
    require_sequential,
)
from qaeval.records import GradeRow, Sample
from qaeval.run.plan import Judging
from qaeval.run.runner import Runner
from qaeval.storage.run_directory import RunStore

ORDER: Final = "order.json"
"""The file of the run directory that holds the seed of the order."""

_IN_VAIN: Final = 16
"""One item in so many may be in flight when the answer becomes certain."""
_LEAST_IN_FLIGHT: Final = 4


def gate_sequentially(
    store: RunStore,
    runner: Runner,
    judging: Judging,
    sources: EvidenceReader,
    ask: Callable[[Evidence], GateInputs],
    *,
    seed: int = 0,
) -> GateReport:
    """Grade a run until its gate is decided.

    Args:
        store: The open run: generated to its end, graded in part or not at all.
        runner: Of the same run.
        judging: Who grades by what.
        sources: What evidence is read with.
        ask: Makes the run's evidence, without letters yet, the question of the gate.
        seed: Of the order of the chunks; the first one a run is gated with stays.

    Returns:
        The report; `sequential` holds ``chunks_looked_at`` of ``chunks``, ``items_graded`` of ``items``, ``share_saved`` of the
        grading, and how often a run that is as good as its baseline passes the rule that pays most for the looking: ``power``, and
        ``power_at_once`` where everything is graded first.

    Raises:
        DataError: generations are missing, or the policy asks for what is known only when everything is graded.
        NotComparableError: another judge graded the run, the baseline has other samples, or the order was another one.
        Interrupted, EndpointError, StoreError: as in `Runner.grade`; the same call goes on.
    """
    store.require_settings(
        {**store.settings(), "grading": store.settings().get("grading") and judging.settings()}
    )
    grading = json.loads(json.dumps(judging.settings()))

    def read() -> Evidence:
        return sources.of_store(store, name=store.path.name, grading=grading)

    asked = ask(read())
    first = decide(asked)
    if first.outcome in {"not comparable", "untrusted"}:
        return first
    require_sequential(asked.policy)
    require_same_samples(asked.run, asked.baseline)
    _keep_seed(store, asked.run, seed)
    work = _Work(store, asked, read, seed)
    work.advance()
    if not work.is_decided:
        _grade(runner, judging, work)
    run = read()
    report = decide(replace(asked, run=run), work.cases(run))
    said = {"sequential": work.summary(), "multiplicity": f"{report.multiplicity} {_LOOKS}"}
    return report.model_copy(update=said)


def _grade(runner: Runner, judging: Judging, work: "_Work") -> None:
    max_concurrency = max(_LEAST_IN_FLIGHT, work.n_items // _IN_VAIN)
    try:
        runner.grade(
            judging, samples=work, candidates=work.gated, on_row=work.note, max_concurrency=max_concurrency
        )
    except Interrupted as error:
        raise Interrupted(f"{error}; not decided yet, and the same command goes on from there") from error


_LOOKS: Final = "Both error rates hold at whatever chunk the grading stops (betting, Ville's inequality)."


class _Work:
    """Samples in the order of the gate, until it is decided; told of every letter.

    Iterating gives the samples whose items are to be graded next; it ends when the gate is decided.
    """

    def __init__(self, store: RunStore, asked: GateInputs, read: Callable[[], Evidence], seed: int) -> None:
        self._asked, self._read = asked, read
        self._pairs = pairs_of(asked.run, asked.baseline, asked.candidates)
        cases = cases_of(asked.policy, asked.run, asked.baseline, self._pairs)
        gated = tuple(candidate for candidate in asked.run.candidates if candidate.name in self._pairs)
        run = replace(asked.run, candidates=gated)
        self._monitor = SequentialMonitor(cases, run, asked.baseline, alpha=asked.policy.alpha)
        self._passed: dict[str, bool] | None = None if self._monitor.n_tests < len(cases) else {}
        self._order = grading_order(run, seed)
        self._items = _items_by_chunk(run)
        self._samples: dict[str, list[Sample]] = {}
        for sample in store.samples():
            self._samples.setdefault(cluster_of(sample), []).append(sample)
        self._grades: dict[str, GradeRow] = {
            row.item_id: row for row in store.grades() if row.item_id is not None
        }
        self.is_decided = False

    @property
    def gated(self) -> Collection[str]:
        """Candidates whose items are graded."""
        return self._pairs.keys()

    @property
    def n_items(self) -> int:
        """Different items of the run."""
        return len(set().union(*self._items.values()))

    def __iter__(self) -> Iterator[Sample]:
        for chunk in self._order[self._monitor.n_seen :]:
            for sample in self._samples[chunk]:
                if self.is_decided:
                    return
                yield sample

    async def note(self, row: Any) -> None:  # noqa: ANN401 - a row of the grade stage
        """Take a row of the judge, and look whether that decides."""
        self._grades[row.item_id] = row
        self.advance()

    def advance(self) -> None:
        """Look at each chunk whose turn it is and whose items are all graded."""
        while not self.is_decided and self._monitor.n_seen < len(self._order):
            chunk = self._order[self._monitor.n_seen]
            if not self._items[chunk] <= self._grades.keys():
                return
            self._monitor.update(chunk, self._grades)
            # what is in flight may be there already: only letters of chunks that were looked at may count
            if self._passed is None and self._monitor.graded_candidates >= self._pairs.keys():
                self._learn(self._read())
            self.is_decided = self._monitor.is_decided(self._passed or {})

    def _learn(self, run: Evidence) -> None:
        """Decide the rules that no letter changes: once, on all samples."""
        asked = self._asked
        cases = cases_of(asked.policy, run, asked.baseline, self._pairs)
        self._monitor.update_others(cases)
        self._passed = {one.id: one.verdict == "pass" for one in verdicts_of(cases, asked.policy.alpha)}

    def cases(self, run: Evidence) -> list[RuleCase]:
        """Return all cases as the data are now."""
        self._learn(run)
        return self._monitor.cases()

    def summary(self) -> dict[str, float]:
        """Say how much was graded, what that saved, and what it costs in power."""
        n_items = self.n_items
        n_graded = len(self._grades.keys() & set().union(*self._items.values()))
        found: dict[str, float] = {
            "chunks_looked_at": self._monitor.n_seen,
            "chunks": self._monitor.n_chunks,
            "items_graded": n_graded,
            "items": n_items,
            "share_saved": 1 - n_graded / n_items if n_items else 0.0,
        }
        power = self._monitor.power()
        if power is not None:
            found |= {"power": power.sequential, "power_at_once": power.fixed}
        return found


def _items_by_chunk(run: Evidence) -> dict[str, set[str]]:
    """Return the ids of each chunk's delivered items."""
    items: dict[str, set[str]] = {chunk: set() for chunk in run.chunk_names}
    for candidate in run.candidates:
        for chunk, row in zip(run.chunks.tolist(), candidate.item_ids.tolist(), strict=True):
            items[chunk] |= set(row) - {""}
    return items


def _keep_seed(store: RunStore, run: Evidence, seed: int) -> None:
    """Write down the order before anything is graded in it, and refuse another one later: it may not be chosen by its result."""
    wanted = {"seed": seed, "samples": run.source.identity.samples_digest}
    path = store.path / ORDER
    if not path.is_file():
        store.write_text(ORDER, json.dumps(wanted) + "\n")
        return
    found = orjson.loads(path.read_bytes())
    if found != wanted:
        raise NotComparableError(
            f"{path}: this run is gated in the order of seed {found.get('seed')}, not {seed}: an order may not be chosen by its result"
        )
