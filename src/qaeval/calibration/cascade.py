"""Agreement of a judge's two modes, the letter alone and the letter with reasons, from the items of a cascade that have both."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qaeval.analysis.replies import BothGrades, ReplyTotals
from qaeval.calibration.model import ModeAgreement
from qaeval.records import Cascade
from qaeval.report.measure import Measure
from qaeval.stats.estimate import Estimate, undefined
from qaeval.stats.intervals import clustered_rate


def mode_agreement(
    cascade: Mapping[str, Any] | None, replies: ReplyTotals, clusters: Mapping[str, str]
) -> ModeAgreement | None:
    """Compare the modes of a judge on the random share of the items that it graded in both; None without a cascade.

    The share is drawn whatever the probability of the letter, so that no selection enters the estimate.

    Args:
        cascade: Its settings, `qaeval.registry.model.Cascade` as JSON; None where the judge has one mode.
        replies: Totals of its replies.
        clusters: Chunk of each item.
    """
    if cascade is None:
        return None
    rule = Cascade.model_validate(cascade)
    both = [pair for pair in replies.in_both_modes if pair.item_id in clusters]
    control = [pair for pair in both if pair.is_control and pair.letter]
    kept = [pair for pair in control if rule.keeps(pair.letter, pair.probability)]
    reconsidered = [pair for pair in both if not rule.keeps(pair.letter, pair.probability)]
    n_graded = replies.n - replies.n_failed
    n_short = n_graded - len(replies.in_both_modes)
    tokens = [pair.completion_tokens for pair in both if pair.completion_tokens is not None]
    short = replies.completion_graded - sum(tokens)
    is_counted = len(tokens) == len(both) > 0 and n_short > 0 and short > 0
    return ModeAgreement(
        below=rule.below,
        control=rule.control,
        reasons_for=rule.reasons_for,
        n_items=n_graded,
        n_with_reasons=len(both),
        n_reconsidered=len(reconsidered),
        n_changed=sum(pair.letter != pair.letter_with_reasons for pair in reconsidered),
        n_control=len(control),
        n_chunks=len({clusters[pair.item_id] for pair in control}),
        agreement=Measure.of(_agreement(control, clusters)),
        n_kept=len(kept),
        kept=Measure.of(_agreement(kept, clusters)),
        tokens_short=short / n_short if is_counted else None,
        tokens_both=sum(tokens) / len(tokens) if is_counted else None,
    )


def _agreement(pairs: Sequence[BothGrades], clusters: Mapping[str, str]) -> Estimate:
    if not pairs:
        return undefined("no item of the random share has both letters", n=0)
    codes = np.unique([clusters[pair.item_id] for pair in pairs], return_inverse=True)[1]
    agrees = np.array([pair.letter == pair.letter_with_reasons for pair in pairs], dtype=float)
    return clustered_rate(np.bincount(codes, weights=agrees), np.bincount(codes))
