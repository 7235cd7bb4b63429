"""A run until decided: chunks in random order, looked at batch by batch until the first place is decided.

What a run shows at a look follows from its letters, its labels and the plan in its settings alone, so that a report, a resumed run and
a run without interruption agree. The bets are in `qaeval.stats.sequential`; Holm's correction over the pairs holds at every look
because each p-value does.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import numpy as np
import pandas as pd

from qaeval.analysis.letters import UNGRADED
from qaeval.comparison.correction import ChunkRates, precedence
from qaeval.comparison.differences import judged_sentence, labelled_sentence, more_chunks
from qaeval.comparison.model import (
    ALPHA,
    Difference,
    LabelledDifference,
    Look,
    LookPair,
    Outcome,
    Stopping,
    StoppingTiming,
    depends_on_ungraded,
    outcome_of,
)
from qaeval.corpus.sampling import random_order
from qaeval.records import Label, Session
from qaeval.report.facts import Part, RubricFacts
from qaeval.report.measure import Measure
from qaeval.stats.estimate import MIN_CLUSTERS, Estimate
from qaeval.stats.paired import holm
from qaeval.stats.sequential import SequentialLook, corrected_looks, sequential_looks

_METHOD: Final = "bets on chunks in random order, holds at every look"
_EQUAL_DRAW: Final = 1.01
"""Ratio of the largest to the smallest probability of a draw that counts as even."""
_UNEVEN: Final = "no interval of labels that were drawn with different probabilities holds at every look; they decide once all chunks were asked for"


class SequencePlan(Part):
    """The chunks of a run until decided; in its settings as ``until_decided``."""

    seed: int
    """Of the random order."""
    margin: float
    """Smallest difference that matters, in (0, 1)."""
    digest: str
    """Hash of the whole sample set; that of the settings is of the chunks that were asked for."""
    n_samples: int
    n_chunks: int
    max_samples: int
    """Largest number of samples of a chunk."""
    looks: tuple[int, ...]
    """Chunks that were asked for at the end of each batch, the one that runs included."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "SequencePlan | None":
        """Read the plan of a run; None of one with a fixed sample."""
        plan = settings.get("until_decided")
        return None if plan is None else cls.model_validate(plan)

    def order(self, chunks: Iterable[str]) -> tuple[str, ...]:
        """Put chunks into the random order of the run."""
        return random_order(chunks, sample_set=self.digest, seed=self.seed)

    @property
    def is_sequential(self) -> bool:
        """Whether there was a look before the last chunk; a run in one batch has a fixed sample."""
        return self.looks[0] < self.n_chunks


@dataclass(frozen=True)
class _Shown:
    """What one source of letters shows of a pair at a look."""

    look: SequentialLook
    pair: int
    value: float
    n_chunks: int
    rater: str = ""
    rank: tuple[Any, ...] = ()
    method: str = _METHOD
    shift: float = 0.0
    """Share of the items of the second candidate that have no letter minus that of the first; 0 of labels."""

    @property
    def p(self) -> float:
        return float(self.look.p_value[self.pair])

    @property
    def p_equivalent(self) -> float:
        return float(self.look.p_equivalent[self.pair])

    def measure(self) -> Measure:
        low, high = float(self.look.low[self.pair]), float(self.look.high[self.pair])
        return Measure.of(
            Estimate(
                value=min(max(self.value, low), high),
                low=low,
                high=max(low, high),
                method=self.method,
                n=self.n_chunks,
                n_clusters=self.n_chunks,
            )
        )


class _Chunks:
    """The chunks of a run in its random order, as arrays."""

    def __init__(
        self, table: pd.DataFrame, plan: SequencePlan, pairs: Sequence[Difference], best: str
    ) -> None:
        usable = table.assign(usable=(table["letter"] == best).astype(float))
        means = usable.pivot_table("usable", "cluster", "candidate", aggfunc="mean", sort=False)
        self.order = list(plan.order(map(str, means.index)))
        self.names = [(pair.a, pair.b) for pair in pairs]
        self.judged = np.array([(means[b] - means[a])[self.order] for a, b in self.names], dtype=float)
        missing = table.assign(missing=(table["status"] == UNGRADED).astype(float))
        missing = missing.pivot_table("missing", "cluster", "candidate", aggfunc="mean", sort=False)
        self._ungraded = np.array([(missing[b] - missing[a])[self.order] for a, b in self.names], dtype=float)
        samples = table.groupby("cluster", sort=False)["sample_id"].nunique()[self.order].to_numpy(float)
        mean = plan.n_samples / plan.n_chunks
        self.weights, self.max_weight = samples / mean, plan.max_samples / mean
        self._plan = plan

    def _options(self, looks: Sequence[int]) -> dict[str, Any]:
        return {
            "looks": looks,
            "n_values": self._plan.n_chunks,
            "margin": self._plan.margin,
            "weights": self.weights,
            "max_weight": self.max_weight,
            "alpha": ALPHA,
            "n_pairs": len(self.names),
        }

    def by_judge(self, looks: Sequence[int]) -> list[list[_Shown]]:
        """What the judge's letters show of each pair at each look; by look, then pair."""
        return [
            [
                _Shown(
                    look,
                    pair,
                    float(np.average(self.judged[pair, :n], weights=self.weights[:n])),
                    n,
                    shift=float(np.average(self._ungraded[pair, :n], weights=self.weights[:n])),
                )
                for pair in range(len(self.names))
            ]
            for n, look in zip(looks, sequential_looks(self.judged, **self._options(looks)), strict=True)
        ]

    def by_rater(
        self, pair: int, rates: ChunkRates, estimate: LabelledDifference, looks: Sequence[int]
    ) -> list[_Shown | None]:
        """What the labels of a rater show of a pair at each look; None where no interval of them holds.

        Labels that were drawn with different probabilities show something at the last chunk of the plan alone. Nothing was decided by
        them before, so that the estimate for a fixed sample holds there.
        """
        labelled, is_labelled = self._labelled(pair, rates)
        judged, weights = self.judged[pair], self.weights
        shown: list[SequentialLook | None] = [None] * len(looks)
        method = _METHOD
        if _is_even(rates.probabilities(list(self.names[pair]))):
            shown = list(corrected_looks(judged[None], labelled[None], **self._options(looks)))
        elif looks[-1] == self._plan.n_chunks:
            shown[-1], method = _fixed(estimate, self._plan.margin), estimate.difference.method
        results: list[_Shown | None] = []
        for n, look in zip(looks, shown, strict=True):
            if look is None:
                results.append(None)
                continue
            known, n_labelled = ~np.isnan(labelled[:n]), int(is_labelled[:n].sum())
            value = np.average(judged[:n], weights=weights[:n])
            if known.any():
                value += np.average((labelled - judged)[:n][known], weights=weights[:n][known])
            ranked = estimate.model_copy(update={"n_chunks": n_labelled})
            results.append(
                _Shown(
                    look,
                    0,
                    float(value),
                    n_labelled,
                    rater=estimate.rater,
                    rank=precedence(ranked)[1:],
                    method=method,
                )
            )
        return results

    def _labelled(self, pair: int, rates: ChunkRates) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels' differences in the order of the run, NaN where a chunk is not known for both, and which are labelled."""
        a, b = self.names[pair]
        rates = rates.of_both([a, b])
        differences = (rates.labelled[b] - rates.labelled[a]).reindex(self.order)
        has_items = (rates.n_items[[a, b]].sum(axis=1) > 0).reindex(self.order)
        is_labelled = differences.notna() & has_items
        share = is_labelled.sum() / max(int(has_items.sum()), 1)
        # a chunk in which both failed is known without a label: it belongs to the labelled ones as often as another chunk does
        joined = [not full and _uniform(chunk) < share for chunk, full in has_items.items()]
        return differences.where(is_labelled | np.array(joined, dtype=bool)).to_numpy(
            float
        ), is_labelled.to_numpy(bool)


def _fixed(estimate: LabelledDifference, margin: float) -> SequentialLook | None:
    """Return what an estimate for a fixed sample shows; None without an interval."""
    low, high = estimate.difference.low, estimate.difference.high
    if low is None or high is None:
        return None
    is_equal = -margin <= low and high <= margin
    return SequentialLook(
        low=np.array([low]),
        high=np.array([high]),
        p_value=np.array([1.0 if estimate.p is None else estimate.p]),
        p_equivalent=np.array([0.0 if is_equal else 1.0]),
    )


def _is_even(probabilities: np.ndarray | None) -> bool:
    """Whether labelled chunks were drawn with the same probability, or it is not known with which."""
    if probabilities is None:
        return True
    known = probabilities[~np.isnan(probabilities)]
    return not len(known) or bool(known.max() <= _EQUAL_DRAW * known.min())


def _uniform(chunk: object) -> float:
    return int.from_bytes(sha256(f"labelled {chunk}".encode()).digest()[:8]) / 2**64


def at_every_look(
    differences: Sequence[Difference],
    table: pd.DataFrame,
    labels: Iterable[Label],
    *,
    plan: SequencePlan,
    candidates: Sequence[str],
    rubric: RubricFacts,
    judge_tuned: bool,
    is_judge_blind: bool = False,
) -> tuple[tuple[Difference, ...], tuple[Look, ...]]:
    """Replace intervals, tests and outcomes by those that hold at every look, and return the looks.

    Each pair is decided by labels where the first rater labelled enough of the chunks up to the look, else by the judge's letters.

    Args:
        differences: Of every pair, for a fixed sample.
        table: The table of letters of the chunks that were asked for.
        labels: Of all raters.
        plan: Of the run.
        candidates: Names, in the order of the report.
        rubric: Its scale.
        judge_tuned: Whether labels that the judge was tuned on are left out.
        is_judge_blind: Whether the judge tells nothing apart: more chunks would then decide nothing.

    Raises:
        DataError: labels contradict each other or use letters that the rubric does not have.
    """
    chunks = _Chunks(table, plan, differences, rubric.best)
    looks = [n for n in plan.looks if n <= len(chunks.order)] or [len(chunks.order)]
    by_judge = chunks.by_judge(looks)
    rates = ChunkRates.by_rater(table, labels, rubric, judge_tuned=judge_tuned)
    by_rater = [
        [chunks.by_rater(index, rates[estimate.rater], estimate, looks) for estimate in pair.labelled]
        for index, pair in enumerate(differences)
    ]
    n_pairs = len(differences)
    results = []
    for number, n in enumerate(looks):
        deciding = [
            min(
                (
                    shown
                    for at_looks in by_rater[index]
                    if (shown := at_looks[number]) is not None and shown.n_chunks >= MIN_CLUSTERS
                ),
                key=lambda shown: shown.rank,
                default=by_judge[number][index],
            )
            for index in range(n_pairs)
        ]
        results.append(_look(differences, deciding, n, candidates, plan.margin))
    judged = _adjusted(by_judge[-1])
    replaced = tuple(
        _replaced(
            pair,
            by_judge[-1][index],
            judged[index],
            {
                estimate.rater: at_looks[-1]
                for estimate, at_looks in zip(pair.labelled, by_rater[index], strict=True)
            },
            results[-1].pairs[index],
            n_pairs=n_pairs,
            plan=plan,
            is_judge_blind=is_judge_blind,
        )
        for index, pair in enumerate(differences)
    )
    # the estimates of the last look are those of the report, so that both have one leader
    last = results[-1]
    pairs = tuple(
        look_pair.model_copy(update={"difference": pair.effective})
        for look_pair, pair in zip(last.pairs, replaced, strict=True)
    )
    return replaced, (*results[:-1], _decided(pairs, last.n_chunks, candidates))


def _adjusted(shown: Sequence[_Shown]) -> list[tuple[float, float]]:
    """Adjust both p-values of each pair for the number of pairs."""
    better, equal = holm([pair.p for pair in shown]), holm([pair.p_equivalent for pair in shown])
    return list(zip(better.tolist(), equal.tolist(), strict=True))


def _look(
    differences: Sequence[Difference],
    deciding: Sequence[_Shown],
    n: int,
    candidates: Sequence[str],
    margin: float,
) -> Look:
    pairs = []
    for pair, shown, (p_holm, p_equivalent) in zip(differences, deciding, _adjusted(deciding), strict=True):
        measure = shown.measure()
        outcome = _outcome(measure, p_holm, p_equivalent, n, margin)
        if depends_on_ungraded(measure, outcome, shown.shift, margin):
            outcome = "not enough data"
        pairs.append(
            LookPair(
                a=pair.a,
                b=pair.b,
                rater=shown.rater,
                difference=measure,
                p_holm=p_holm,
                p_equivalent=p_equivalent,
                outcome=outcome,
            )
        )
    return _decided(tuple(pairs), n, candidates)


def _outcome(measure: Measure, p_holm: float, p_equivalent: float, n: int, margin: float) -> Outcome:
    if n < MIN_CLUSTERS:
        return "too few chunks"
    return outcome_of(measure, p_holm, margin=margin, p_equivalent=p_equivalent)


def _decided(pairs: tuple[LookPair, ...], n: int, candidates: Sequence[str]) -> Look:
    """Say who leads, and whether that is decided against every other candidate."""
    leads = dict.fromkeys(candidates, 0.0)
    for pair in pairs:
        leads[pair.a] -= pair.difference.value or 0.0
        leads[pair.b] += pair.difference.value or 0.0
    leader = max(candidates, key=lambda name: round(leads[name], 9))
    is_decided = all(
        pair.outcome in {"a is better" if pair.a == leader else "b is better", "no difference shown"}
        for pair in pairs
        if leader in {pair.a, pair.b}
    )
    return Look(n_chunks=n, pairs=pairs, leader=leader, is_decided=is_decided)


def _replaced(
    pair: Difference,
    judged: _Shown,
    judged_p: tuple[float, float],
    by_rater: Mapping[str, _Shown | None],
    look: LookPair,
    *,
    n_pairs: int,
    plan: SequencePlan,
    is_judge_blind: bool,
) -> Difference:
    """Return a difference with what holds at every look."""
    n, is_last = judged.n_chunks, judged.n_chunks == plan.n_chunks
    measure = judged.measure()
    p_holm, p_equivalent = judged_p
    outcome = _outcome(measure, p_holm, p_equivalent, n, plan.margin)
    is_open = outcome == "not enough data" and not is_judge_blind and is_last
    n_more = more_chunks(measure, plan.margin, n_pairs) if is_open else None
    labelled = sorted(
        (
            _relabelled(estimate, by_rater[estimate.rater], look, plan, n_pairs, look_is_last=is_last)
            for estimate in pair.labelled
        ),
        key=precedence,
    )
    replaced = pair.model_copy(
        update={
            "difference": measure,
            "p": judged.p,
            "p_holm": p_holm,
            "p_equivalent": p_equivalent,
            "at_every_look": True,
            "outcome": outcome,
            "n_more_chunks": n_more,
            "labelled": tuple(labelled),
            "sentence": judged_sentence(
                pair.a, pair.b, measure, outcome, p=judged.p, p_holm=p_holm, n_pairs=n_pairs, n_more=n_more
            ),
        }
    )
    deciding = replaced.deciding
    if deciding is None:
        return replaced
    return replaced.model_copy(update={"sentence": labelled_sentence(replaced, deciding, n_pairs=n_pairs)})


def _relabelled(
    estimate: LabelledDifference,
    shown: _Shown | None,
    look: LookPair,
    plan: SequencePlan,
    n_pairs: int,
    *,
    look_is_last: bool,
) -> LabelledDifference:
    """Return a rater's difference with what holds at every look."""
    if shown is None:
        without = {"low": None, "high": None, "reason": _UNEVEN}
        return estimate.model_copy(
            update={
                "difference": estimate.difference.model_copy(update=without),
                "p": None,
                "p_holm": None,
                "outcome": "not enough data",
                "n_more_chunks": None,
            }
        )
    low, high = shown.look.low[shown.pair], shown.look.high[shown.pair]
    value = shown.value if estimate.difference.value is None else estimate.difference.value
    measure = estimate.difference.model_copy(
        update={
            "value": min(max(value, float(low)), float(high)),
            "low": float(low),
            "high": float(high),
            "method": shown.method,
        }
    )
    if estimate.n_chunks < MIN_CLUSTERS:
        measure = estimate.difference
    is_deciding = estimate.rater == look.rater
    p_holm = look.p_holm if is_deciding else shown.p
    p_equivalent = look.p_equivalent if is_deciding else shown.p_equivalent
    outcome = outcome_of(measure, p_holm, margin=plan.margin, p_equivalent=p_equivalent)
    is_open = is_deciding and outcome == "not enough data" and look_is_last
    return estimate.model_copy(
        update={
            "difference": measure,
            "p": None if estimate.p is None else shown.p,
            "p_holm": p_holm if is_deciding else None,
            "p_equivalent": p_equivalent,
            "outcome": outcome,
            "n_more_chunks": more_chunks(measure, plan.margin, n_pairs) if is_open else None,
        }
    )


def stopping_of(
    plan: SequencePlan,
    looks: tuple[Look, ...],
    sessions: Sequence[Session],
    *,
    n_items: int,
    items_per_sample: int,
    n_candidates: int,
) -> Stopping:
    """Say how a run until decided ended, and estimate what that saved.

    Args:
        plan: Of the run.
        looks: Of the run.
        sessions: Of the run, for the speed of the servers and the time of their starts.
        n_items: Items of all candidates in the chunks that were asked for.
        items_per_sample: Items of a reply.
        n_candidates: Candidates.
    """
    n_chunks = looks[-1].n_chunks
    starts: dict[tuple[str, str], list[float]] = {}
    for session in sessions:
        if session.load_s:
            starts.setdefault((session.stage, session.model), []).append(session.load_s)
    reload_s = sum(sum(seconds) - max(seconds) for seconds in starts.values())
    worked_s = sum(session.seconds for session in sessions)
    ended_early_s = worked_s * (plan.n_chunks / n_chunks - 1) if looks[-1].is_decided else 0.0
    return Stopping(
        n_chunks=n_chunks,
        n_chunks_planned=plan.n_chunks,
        n_items=n_items,
        n_items_planned=plan.n_samples * items_per_sample * n_candidates,
        margin=plan.margin,
        is_decided=looks[-1].is_decided,
        looks=looks,
        timing=StoppingTiming(seconds_saved=ended_early_s - reload_s, reload_s=reload_s),
    )
