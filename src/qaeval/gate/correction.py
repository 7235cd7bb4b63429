"""A usable rate corrected by labels: of the run alone, or of run and baseline."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from qaeval.comparison.correction import inclusion_by_letter
from qaeval.gate.estimates import IntervalAt, RuleEstimate, independent_difference
from qaeval.gate.evidence import BEST, CandidateEvidence, Evidence, Floats, Mask, RaterLabels
from qaeval.gate.performance import Side
from qaeval.stats.correction import corrected_difference, corrected_rate, scaled_inclusion
from qaeval.stats.estimate import MIN_CLUSTERS, Estimate
from qaeval.stats.paired import agreeing_with_test

_KINDS: Final = ("human", "mixed", "model")


def labelled_estimate(sides: Sequence[Side], stratum: str | None) -> RuleEstimate | None:
    """Estimate a usable rate, or its change, from labels and the judge's letters.

    The rater decides that comes first by this order: people before models, labels of more chunks before fewer, the name. On the
    same samples the change is paired by chunk (`corrected_difference`), over the chunks in which the rater labelled every item on
    both sides; on other samples it is the difference of two corrected rates.

    Args:
        sides: The run with a candidate; with a margin, also the baseline with its candidate.
        stratum: Only samples of this stratum; None: all.

    Returns:
        None where no rater's labels cover 10 chunks on every side.
    """
    estimates = []
    for labels in sides[0][0].labels:
        raters = [_rater(evidence, labels.rater) for evidence, _ in sides]
        if any(rater is None or not rater.letters for rater in raters):
            continue
        data = [
            _Labelled(evidence, candidate, rater, stratum)
            for (evidence, candidate), rater in zip(sides, raters, strict=True)
            if rater is not None
        ]
        estimate = _estimate(data)
        if estimate.deciding is not None and (estimate.n_labelled_chunks or 0) >= MIN_CLUSTERS:
            order = (_KINDS.index(labels.kind), -(estimate.n_labelled_chunks or 0), labels.rater)
            estimates.append((order, estimate))
    return min(estimates, key=lambda pair: pair[0])[1] if estimates else None


def _rater(evidence: Evidence, name: str) -> RaterLabels | None:
    return next((labels for labels in evidence.labels if labels.rater == name), None)


class _Labelled:
    """The judge's letters and a rater's labels of one candidate's items; arrays of shape (n_samples, items_per_sample)."""

    def __init__(
        self, evidence: Evidence, candidate: CandidateEvidence, labels: RaterLabels, stratum: str | None
    ) -> None:
        self.evidence = evidence
        self.rater = labels.rater
        self.letters = candidate.letters
        self.item_ids = candidate.item_ids
        self.failed: Mask = candidate.requested & ~candidate.delivered
        given = [labels.letters.get(item, np.nan) for item in candidate.item_ids.ravel().tolist()]
        self.labels: Floats = np.array(given, dtype=np.float64).reshape(candidate.letters.shape)
        self.labels[self.failed] = np.nan
        self.inclusion: Floats | None = None
        if labels.inclusion:
            drawn = [labels.inclusion.get(item, 1.0) for item in candidate.item_ids.ravel().tolist()]
            self.inclusion = np.array(drawn, dtype=np.float64).reshape(candidate.letters.shape)
        self.is_by_chunk = labels.is_by_chunk
        inside = np.ones(len(evidence.strata), dtype=bool) if stratum is None else evidence.strata == stratum
        self.counted: Mask = inside[:, np.newaxis] & candidate.requested

    @property
    def n_chunks(self) -> int:
        """Number of chunks with a label."""
        has_label = (~np.isnan(self.labels) & self.counted).any(axis=1)
        return len(np.unique(self.evidence.chunk_codes[has_label]))

    @property
    def rate(self) -> IntervalAt:
        """The corrected rate; at least one item must be labelled."""
        rows = self.counted
        judged = np.where(self.letters >= BEST, self.letters, np.nan)[rows]
        inclusion = (
            inclusion_by_letter(judged, self.labels[rows], self.failed[rows])
            if self.inclusion is None
            else self.inclusion[rows]
        )
        clusters = np.broadcast_to(self.evidence.chunk_codes[:, np.newaxis], self.letters.shape)
        of_samples = self.evidence.weights
        weights = (
            None
            if of_samples is None
            else np.broadcast_to(of_samples[:, np.newaxis], self.letters.shape)[rows]
        )

        def interval(level: float) -> Estimate:
            return corrected_rate(
                judged,
                self.labels[rows],
                clusters[rows],
                n_levels=len(self.evidence.scale),
                failed=self.failed[rows],
                inclusion=inclusion,
                weights=weights,
                level=level,
            ).estimate

        return interval

    def by_chunk(self, values: Floats | Mask) -> Floats:
        """Sum values of the items that count over each chunk, by weight."""
        evidence = self.evidence
        sums = np.where(self.counted, values, 0.0).sum(axis=1)
        if evidence.weights is not None:
            sums = sums * evidence.weights
        counts = np.bincount(evidence.chunk_codes, weights=sums, minlength=len(evidence.chunk_names))
        return counts.astype(np.float64)

    @property
    def chunk_inclusion(self) -> Floats | None:
        """Probability with which all items of each chunk were drawn, shape (n_chunks,); None where it is not known."""
        if self.inclusion is None:
            return None
        by_chunk = np.ones(len(self.evidence.chunk_names))
        codes = np.broadcast_to(self.evidence.chunk_codes[:, np.newaxis], self.letters.shape)
        is_labelled = ~np.isnan(self.labels) & self.counted
        # items that were drawn one by one are together by chance
        together = np.minimum if self.is_by_chunk else np.multiply
        together.at(by_chunk, codes[is_labelled], self.inclusion[is_labelled])
        return by_chunk


def _estimate(data: Sequence[_Labelled]) -> RuleEstimate:
    n_chunks = min(labelled.n_chunks for labelled in data)
    if not n_chunks:
        return RuleEstimate(labelled_by=data[0].rater, n_labelled_chunks=0)
    run = data[0]
    if len(data) == 1:
        return RuleEstimate(
            deciding=run.rate, current=run.rate, labelled_by=run.rater, n_labelled_chunks=n_chunks
        )
    baseline = data[1]
    deciding: IntervalAt | None = independent_difference(baseline.rate, run.rate)
    n = n_chunks
    if run.evidence.has_samples_of(baseline.evidence):
        deciding, n = _paired(baseline, run)
    return RuleEstimate(
        deciding=deciding,
        baseline=baseline.rate,
        current=run.rate,
        labelled_by=run.rater,
        n_labelled_chunks=n,
    )


def _same_items(baseline: _Labelled, run: _Labelled) -> Mask:
    """Return which chunks have the same items on both sides, shape (n_chunks,)."""
    order, order_of_baseline = (np.argsort(side.evidence.sample_ids) for side in (run, baseline))
    rows = (run.item_ids[order] != baseline.item_ids[order_of_baseline]).any(axis=1)
    same = np.ones(len(run.evidence.chunk_names), dtype=bool)
    same[run.evidence.chunk_codes[order][rows]] = False
    return same


def _paired(baseline: _Labelled, run: _Labelled) -> tuple[IntervalAt | None, int]:
    """Pair the two sides by chunk; also the number of chunks that are labelled on both."""
    sizes = [side.by_chunk(side.counted) for side in (baseline, run)]
    kept = (sizes[0] > 0) & (sizes[1] > 0)
    judged, labelled, known, given, items = [], [], [], [], []
    for side, size in zip((baseline, run), sizes, strict=True):
        judged.append(side.by_chunk(side.letters == BEST)[kept] / size[kept])
        labelled.append(side.by_chunk(side.labels == BEST)[kept] / size[kept])
        known.append(side.by_chunk(~np.isnan(side.labels) | side.failed)[kept] == size[kept])
        given.append(side.by_chunk(~np.isnan(side.labels))[kept])
        items.append(side.by_chunk(~side.failed)[kept])
    is_known, has_items = known[0] & known[1], items[0] + items[1] > 0
    n = int((is_known & (given[0] + given[1] > 0)).sum())
    if not n:
        return None, 0
    difference = np.where(is_known, labelled[1] - labelled[0], np.nan)
    share = n / int(has_items.sum())
    inclusion = None if share == 1 or has_items.all() else np.where(has_items, share, 1.0)
    drawn = [side.chunk_inclusion for side in (baseline, run)]
    if drawn[0] is not None and drawn[1] is not None and share < 1:
        # the items of a chunk were drawn for each side by itself, but for chunks whose items are the same on both
        both = np.where(_same_items(baseline, run), drawn[1], drawn[0] * drawn[1])[kept]
        is_labelled = is_known & (given[0] + given[1] > 0)
        inclusion = scaled_inclusion(both, is_labelled, int(has_items.sum()))

    n_items, weights = (sizes[0] + sizes[1])[kept] / 2, None
    if run.evidence.weights is not None:
        # the sizes count items by weight; what decides is their product with the weight, which stays
        weights, n_items = n_items, np.ones(len(n_items))

    def interval(level: float) -> Estimate:
        corrected = corrected_difference(
            judged[1] - judged[0],
            difference,
            sizes=n_items,
            inclusion=inclusion,
            weights=weights,
            level=level,
        )
        return agreeing_with_test(corrected.estimate, corrected.p_value)

    return interval, n
