"""Rules that are decided while the judge still grades, at error rates that hold however often one looks.

Chunk after chunk counts, in an order that was fixed beforehand. Rules about shares of letters and flags are followed with bets
(`qaeval.stats.sequential`); rules that no letter changes are decided once, on all samples. What needs all letters at once (the
judge's kappa, cost of a usable item) cannot be followed.

A run of which some items have no letter yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import isnan, nan
from typing import Final

import numpy as np

from qaeval.comparison.analysis import RunData
from qaeval.errors import DataError, NotComparableError
from qaeval.gate.claims import (
    Claim,
    Counts,
    Floats,
    PairedRates,
    count,
    is_mostly_tied,
    lost_unseen,
    without_letters,
)
from qaeval.gate.evidence import FAILED_MARK, UNGRADED_MARK, Candidate, Evidence
from qaeval.gate.policy import Policy, Rule
from qaeval.gate.rules import LEAST_SHARE, Case, gap_of
from qaeval.records import Failure, Generation, Grade, GradeRow
from qaeval.run.grade import task_id
from qaeval.stats.estimate import Estimate, undefined
from qaeval.stats.margins import non_inferiority
from qaeval.stats.paired import holm
from qaeval.stats.sequential import BettingTest, ConfidenceSequence

FOLLOWED: Final = frozenset({"usable_rate", "success_rate", "hallucination_rate", "flag_rate"})
"""Quantities that each chunk's letters add to."""
_WHOLE: Final = frozenset({"judge_kappa", "seconds_per_1000_usable", "cost_per_1000_usable"})
"""Quantities that are known only when all letters are."""
_METHOD: Final = "bets on chunks in random order, holds at every look"
_RESAMPLES: Final = 400
_SEED: Final = 20_240_229


def require_followable(policy: Policy) -> None:
    """Refuse, before the first item is graded, a policy that cannot be decided early.

    Raises:
        DataError: a rule is about something that needs all letters.
    """
    for place, rule in enumerate(policy.rules, start=1):
        if rule.quantity in _WHOLE:
            raise DataError(
                f"policy {policy.name}: rules[{place}]: {rule.quantity} is known only when everything is graded; leave the rule out, or "
                "gate without --sequential"
            )


def require_same_samples(run: Evidence, baseline: Evidence | None) -> None:
    """Refuse a baseline on other samples: what is followed is each chunk's difference.

    Raises:
        NotComparableError: the sample sets differ.
    """
    if baseline is not None and (run.side.identity.samples_digest != baseline.side.identity.samples_digest):
        raise NotComparableError(
            f"{baseline.side.name} has other samples than {run.side.name}: a sequential gate compares chunk by chunk. Grade "
            "all of the run and gate without --sequential, or set a baseline on these samples"
        )


def grading_order(evidence: Evidence, seed: int) -> tuple[str, ...]:
    """Return the chunks in the order in which they are graded: by a hash of sample set, seed and chunk, so that nobody can choose it."""
    digest = evidence.side.identity.samples_digest

    def place(chunk: str) -> bytes:
        return sha256(f"{digest} {seed} {chunk}".encode()).digest()

    return tuple(sorted(set(evidence.chunks), key=place))


class Following:
    """All rules of a gate, followed chunk after chunk.

    Args:
        cases: What is asked, with the claims of the rules that no letter changes.
        run: The run, with letters or without.
        baseline: What it is compared with; None where every rule is a limit.
        alpha: Error rate of the policy.
    """

    def __init__(
        self, cases: Sequence[Case], run: Evidence, baseline: Evidence | None, *, alpha: float
    ) -> None:
        self._run, self._alpha = run, alpha
        self._places: dict[str, list[int]] = {}
        for place, chunk in enumerate(run.chunks):
            self._places.setdefault(chunk, []).append(place)
        self._cases = list(cases)
        self.n_chunks, self.n_seen = len(self._places), 0
        self._followed = {
            place: _Followed(case, run, baseline, alpha=alpha, n_rules=len(cases))
            for place, case in enumerate(cases)
            if _is_followed(case, run, baseline)
        }

    @property
    def n_followed(self) -> int:
        """Rules that are decided chunk by chunk."""
        return len(self._followed)

    def update(self, chunk: str, grades: Mapping[str, GradeRow]) -> None:
        """Take the next chunk's letters into account.

        Args:
            chunk: In the order that was fixed beforehand.
            grades: The judge's rows by item, of this chunk's items at least.
        """
        part = graded_part(self._run, self._places[chunk], grades)
        self.n_seen += 1
        for one in self._followed.values():
            one.update(chunk, part)

    def know(self, cases: Sequence[Case]) -> None:
        """Take over the claims of the rules that are not followed, known once any item is graded."""
        self._cases = [
            mine if place in self._followed else theirs
            for place, (mine, theirs) in enumerate(zip(self._cases, cases, strict=True))
        ]

    def cases(self) -> list[Case]:
        """Return all cases with what the data say by now."""
        return [
            self._followed[place].case() if place in self._followed else case
            for place, case in enumerate(self._cases)
        ]

    def is_decided(self, passed: Mapping[str, bool]) -> bool:
        """Whether the gate's outcome is certain: all rules pass, or one is proven to be worse.

        Args:
            passed: By id, of the rules that are not followed.
        """
        passes = [
            self._followed[place].passes if place in self._followed else passed.get(case.id, False)
            for place, case in enumerate(self._cases)
        ]
        if all(passes):
            return True
        p_values = [
            self._followed[place].p_worse if place in self._followed else case.p_worse
            for place, case in enumerate(self._cases)
        ]
        known = [place for place, p in enumerate(p_values) if not isnan(p)]
        if not known:
            return False
        adjusted = holm([p_values[place] for place in known])
        return any(
            p <= self._alpha and not passes[place] for place, p in zip(known, adjusted.tolist(), strict=True)
        )

    def power(self) -> "Power | None":
        """Compare what equal candidates would pass with; of the followed margin where looking costs most. None without one."""
        found = [one.power() for one in self._followed.values()]
        known = [one for one in found if one is not None]
        return max(known, key=lambda one: one.fixed - one.sequential, default=None)


@dataclass(frozen=True, kw_only=True)
class Power:
    """How often a run that is as good as its baseline passes a rule, with all chunks of the run."""

    fixed: float
    """Where everything is graded and looked at once."""
    sequential: float
    """Where one looks after each chunk."""


def power_at_equality(values: Floats, *, n_chunks: int, margin: float, alpha: float) -> Power:
    """Estimate both powers by drawing chunks from those that were seen, moved so that their mean is 0.

    Args:
        values: Differences of the chunks, in [-1, 1], shape (n,).
        n_chunks: Chunks of a whole run.
        margin: Largest accepted loss.
        alpha: Error rate, one-sided.
    """
    rng = np.random.default_rng(_SEED)
    drawn = np.clip(rng.choice(values - values.mean(), (_RESAMPLES, n_chunks)), -1.0, 1.0)
    test = BettingTest(np.full(_RESAMPLES, -margin), alpha=alpha, n_values=n_chunks)
    for column in drawn.T:
        test.update(column)
    nothing = np.zeros(n_chunks)
    fixed = [non_inferiority(nothing, row, margin=margin, alpha=alpha).is_shown for row in drawn]
    n_differing = np.count_nonzero(values) / len(values) * n_chunks
    if is_mostly_tied(n_differing, n_chunks) and lost_unseen(n_chunks, alpha=alpha) >= margin:
        fixed = [False]
    return Power(fixed=float(np.mean(fixed)), sequential=float(test.is_above.mean()))


def _is_followed(case: Case, run: Evidence, baseline: Evidence | None) -> bool:
    if case.rule.quantity not in FOLLOWED or run.candidate(case.candidate) is None:
        return False
    if case.rule.limit is not None:
        return True
    return baseline is not None and baseline.candidate(case.against) is not None


class _Followed:
    """One rule of one candidate and stratum.

    What is followed is the mean over chunks of the chunk's difference (of its rate, for a limit), weighted by the items that
    were asked for: the difference of the rates over all items. A chunk without an item that counts is left out.
    """

    def __init__(
        self, case: Case, run: Evidence, baseline: Evidence | None, *, alpha: float, n_rules: int
    ) -> None:
        self._case, self._alpha = case, alpha
        self._asked = _asked(run, case.stratum)
        mean = float(np.mean(list(self._asked.values()))) if self._asked else 1.0
        self._weights = {chunk: asked / mean for chunk, asked in self._asked.items()}
        max_weight = max(self._weights.values(), default=1.0)
        self._baseline, self._before = None, Became(case.candidate, run.side.name)
        self._now = Became(case.candidate, run.side.name)
        if case.rule.limit is None and baseline is not None:
            candidate = baseline.candidate(case.against)
            assert candidate is not None  # noqa: S101 - see `_is_followed`
            self._baseline = _by_chunk(count(baseline, candidate, case.rule, case.stratum))
            self._before = Became(case.against, baseline.side.name)
            self._before.note(baseline, case.stratum)
        self._sign = 1.0 if case.rule.about.higher_is_better else -1.0
        self._kept, self._worse_than = _bounds_of(case.rule, self._sign)
        self._span = (-1.0, 1.0) if case.rule.limit is None else (0.0, 1.0)
        low, high = self._span
        n_values = max(1, len(self._asked))
        self._bounds = ConfidenceSequence(
            alpha_low=alpha,
            alpha_high=alpha,
            n_values=n_values,
            low=low,
            high=high,
            max_weight=max_weight,
            thresholds=(self._kept,),
        )
        least, most = sorted((-self._sign * low, -self._sign * high))
        self._worse = BettingTest(
            -self._sign * self._worse_than,
            alpha=alpha / n_rules,
            n_values=n_values,
            low=least,
            high=most,
            max_weight=max_weight,
        )
        self._seen: list[tuple[str, tuple[float, float], tuple[float, float]]] = []
        self._values: list[float] = []

    def update(self, chunk: str, part: Evidence) -> None:
        """Take a chunk of the run into account."""
        if chunk not in self._asked:
            return
        candidate = part.candidate(self._case.candidate)
        assert candidate is not None  # noqa: S101 - see `_is_followed`
        own = _by_chunk(count(part, candidate, self._case.rule, self._case.stratum))[chunk]
        self._now.note(part, self._case.stratum)
        self._now.update(chunk)
        self._before.update(chunk)
        before = (0.0, 1.0) if self._baseline is None else self._baseline.get(chunk, (0.0, 0.0))
        if not (own[1] and before[1]):
            return
        value = own[0] / own[1] - before[0] / before[1]
        weight = self._weights[chunk]
        self._seen.append((chunk, own, before))
        self._values.append(value)
        self._bounds.update(value, weight)
        self._worse.update(-self._sign * value, weight)

    @property
    def passes(self) -> bool:
        """Whether the margin, or the limit, is shown to be kept."""
        if self._gap:
            return False
        low = self._bounds.low - max(0.0, self._unseen)
        return low > self._kept if self._sign > 0 else self._bounds.high < self._kept

    @property
    def p_worse(self) -> float:
        """Of the hypothesis that nothing got worse, at all looks; 1 where items without a letter could explain the loss."""
        if not self._values or self._gap:
            return nan
        explained = self._unseen < 0 and self._bounds.high - self._unseen >= 0
        return 1.0 if explained else float(self._worse.p_value)

    @property
    def _unseen(self) -> float:
        """Share of items without a letter in the baseline minus that in the run, of a rule about usable items."""
        if self._baseline is None or self._case.rule.quantity != "usable_rate":
            return 0.0
        return self._before.without_letter - self._now.without_letter

    @property
    def _gap(self) -> str:
        """Say why a rate of graded items says nothing about a candidate; empty where it does."""
        if not self._case.rule.counts_among:
            return ""
        sides = (self._now,) if self._baseline is None else (self._now, self._before)
        poor = (one for one in sides if one.graded < LEAST_SHARE)
        return next((gap_of(self._case.rule, one.graded, one.candidate, one.side) for one in poor), "")

    def case(self) -> Case:
        """Return the case with what the chunks seen so far say."""
        if not self._values:
            return replace(self._case, claim=Claim.none("no chunk with an item that counts was graded"))
        if self._gap:
            return replace(self._case, claim=Claim.none(self._gap), p_worse=nan)
        names = tuple(chunk for chunk, _, _ in self._seen)
        own, before = (
            Counts(names, *np.array([one[place] for one in self._seen], dtype=float).T) for place in (1, 2)
        )
        if self._baseline is None:
            claim = Claim(deciding=self._estimate, current=self._estimate)
        else:
            claim = Claim(
                deciding=self._estimate,
                larger=PairedRates.of(before, own, higher_is_better=self._sign > 0).larger,
                current=own.rate,
                baseline=before.rate,
            )
        if self._unseen:
            claim = without_letters(claim, before=self._before.without_letter, now=self._now.without_letter)
        return replace(self._case, claim=claim, p_worse=self.p_worse)

    def _estimate(self, level: float) -> Estimate:
        """Return the mean with its bounds, which have the policy's level alone."""
        n, n_clusters = int(sum(own[1] for _, own, _ in self._seen)), len(self._seen)
        if not np.isclose(level, 1 - 2 * self._alpha):
            reason = "bounds that hold at every look have one level"
            return undefined(
                reason, value=self._bounds.mean, method=_METHOD, n=n, n_clusters=n_clusters, level=level
            )
        return Estimate(
            value=self._bounds.mean,
            low=self._bounds.low,
            high=self._bounds.high,
            level=level,
            method=_METHOD,
            n=n,
            n_clusters=n_clusters,
        )

    def power(self) -> Power | None:
        margin = self._case.margin
        if margin is None or not self._values:
            return None
        return power_at_equality(
            np.array(self._values), n_chunks=len(self._asked), margin=margin, alpha=self._alpha
        )


def _bounds_of(rule: Rule, sign: float) -> tuple[float, float]:
    """Return what must be exceeded (in the good direction) for a pass, and not reached for a regression."""
    if rule.limit is not None:
        return rule.limit, rule.limit
    return -sign * (rule.loss or 0.0), 0.0


def _asked(run: Evidence, stratum: str | None) -> dict[str, int]:
    """Count the items that were asked for in each chunk."""
    asked: dict[str, int] = {}
    for chunk, its in zip(run.chunks, run.strata, strict=True):
        if stratum in {None, its}:
            asked[chunk] = asked.get(chunk, 0) + run.items_per_sample
    return asked


def _by_chunk(counts: Counts) -> dict[str, tuple[float, float]]:
    return {
        chunk: (float(hits), float(total))
        for chunk, hits, total in zip(counts.chunks, counts.hits, counts.totals, strict=True)
    }


def with_pending(data: RunData) -> list[GradeRow]:
    """Return the judge's rows, and for every item without one a row that says so."""
    rows: list[GradeRow] = list(data.rows.grades)
    known = {row.item_id for row in rows}
    for reply in data.rows.generations:
        for item in reply.items if isinstance(reply, Generation) else ():
            if item.item_id not in known:
                known.add(item.item_id)
                rows.append(
                    Failure(
                        task_id=task_id(data.judge.name, item.item_id),
                        stage="grade",
                        model=data.judge.name,
                        sample_id=reply.sample_id,
                        item_id=item.item_id,
                        reason="interrupted",
                        detail="not graded yet",
                    )
                )
    return rows


def graded_part(run: Evidence, places: Sequence[int], grades: Mapping[str, GradeRow]) -> Evidence:
    """Return some of the run's samples, with these letters.

    Raises:
        DataError: an item has no row.
    """
    return run.model_copy(
        update={
            "samples": "",
            "chunks": tuple(run.chunks[place] for place in places),
            "strata": tuple(run.strata[place] for place in places),
            "candidates": tuple(_graded(one, places, grades) for one in run.candidates),
        }
    )


def _graded(candidate: Candidate, places: Sequence[int], grades: Mapping[str, GradeRow]) -> Candidate:
    words = candidate.items.split(" ")
    items = [words[place].split(",") for place in places]
    flat = [item for word in items for item in word]
    if missing := [item for item in flat if item != UNGRADED_MARK and item not in grades]:
        raise DataError(
            f"grades: {len(missing)} of a chunk that was to be graded are missing, first {missing[0]!r}"
        )
    return candidate.model_copy(
        update={
            "letters": " ".join("".join(_mark(item, grades) for item in word) for word in items),
            "items": " ".join(",".join(word) for word in items),
            "flags": {
                name: tuple(place for place, item in enumerate(flat) if _has_flag(item, name, grades))
                for name in candidate.flags
            },
        }
    )


def _mark(item: str, grades: Mapping[str, GradeRow]) -> str:
    if item == UNGRADED_MARK:
        return FAILED_MARK
    row = grades[item]
    return row.letter if isinstance(row, Grade) else UNGRADED_MARK


def _has_flag(item: str, name: str, grades: Mapping[str, GradeRow]) -> bool:
    row = grades.get(item)
    return isinstance(row, Grade) and name in row.flags


class Became:
    """What became of a candidate's items in the chunks that were seen."""

    def __init__(self, candidate: str, side: str) -> None:
        self.candidate, self.side = candidate, side
        self._known: dict[str, Floats] = {}
        self._seen: Floats = np.zeros(3)

    def note(self, evidence: Evidence, stratum: str | None) -> None:
        """Read how many items of each chunk were delivered, graded and asked for."""
        own = evidence.candidate(self.candidate)
        assert own is not None  # noqa: S101 - the caller asked for a candidate that there is
        delivered, graded = (
            count(evidence, own, Rule(quantity=name, margin=0.5), stratum)
            for name in ("valid_rate", "success_rate")
        )
        rows = np.column_stack([delivered.hits, graded.hits, delivered.totals])
        self._known.update(zip(delivered.chunks, rows, strict=True))

    def update(self, chunk: str) -> None:
        """Count a chunk."""
        self._seen = self._seen + self._known.get(chunk, 0.0)

    @property
    def without_letter(self) -> float:
        """Share of the items that were delivered and that the judge gave no letter."""
        delivered, graded, asked = self._seen
        return float((delivered - graded) / asked) if asked else 0.0

    @property
    def graded(self) -> float:
        """Share of the items that have a letter; 1 before any chunk was seen."""
        return float(self._seen[1] / self._seen[2]) if self._seen[2] else 1.0
