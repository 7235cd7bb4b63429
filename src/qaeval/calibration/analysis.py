"""Soft grades of a run: from the table of letters and the labels to data."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import numpy as np
import pandas as pd
from scipy.special import expit, logit, stdtrit

from qaeval.analysis.letters import GRADED, probability_column
from qaeval.calibration.model import CandidateSoftGrade, ProbabilityCheck, ReliabilityBin, SoftGrades
from qaeval.records import Label
from qaeval.report.measure import Measure
from qaeval.stats._arrays import Floats
from qaeval.stats.calibration import (
    area_under_curve,
    best_threshold,
    brier_score,
    cross_fitted,
    expected_calibration_error,
    fit_isotonic,
    fit_threshold,
    ranked_probability_score,
)
from qaeval.stats.estimate import Estimate, too_few, undefined, warning
from qaeval.stats.intervals import clustered_mean, clustered_rate
from qaeval.stats.reliability import kappa_interval

_LEVEL: Final = 0.95


def soft_grades(
    table: pd.DataFrame, labels: Mapping[str, Sequence[Label]], *, letters: Sequence[str]
) -> SoftGrades | None:
    """Summarise the judge's probabilities, and compare them with labels; None without probabilities.

    Args:
        table: The table of letters.
        labels: By rater, under the rubric of the run, without those that the judge was tuned on.
        letters: The scale, best first.
    """
    graded = table[table["status"] == GRADED]
    columns = [probability_column(letter) for letter in letters]
    if any(column not in graded for column in columns):
        return None
    soft = graded[graded[columns[0]].notna()]
    if soft.empty:
        return None
    items = soft.drop_duplicates("item_id")
    best = items[columns[0]]
    return SoftGrades(
        n_items=graded["item_id"].nunique(),
        n=len(items),
        lowest=float(best.min()),
        median=float(best.median()),
        highest=float(best.max()),
        candidates=tuple(
            _of_candidate(str(name), rows, columns, letters[0])
            for name, rows in soft.groupby("candidate", sort=False)
        ),
        checks=tuple(_checks(items.set_index("item_id"), labels, columns, letters)),
    )


def expected_grades(distributions: Floats) -> Floats:
    """Return the expected grade of distributions over the letters, shape (n, K): 1 for the best letter, 0 for the worst."""
    return np.asarray(distributions @ np.linspace(1.0, 0.0, distributions.shape[1]))


def _of_candidate(name: str, rows: pd.DataFrame, columns: Sequence[str], best: str) -> CandidateSoftGrade:
    clusters = rows["cluster"].to_numpy(object)
    distributions = rows[list(columns)].to_numpy(float)
    is_best = (rows["letter"] == best).to_numpy(float)
    return CandidateSoftGrade(
        candidate=name,
        n=len(rows),
        share_best=Measure.of(_rate(is_best, clusters)),
        probability=Measure.of(clustered_mean(distributions[:, 0], clusters)),
        expected=Measure.of(clustered_mean(expected_grades(distributions), clusters)),
    )


def _rate(outcomes: np.ndarray, clusters: np.ndarray) -> Estimate:
    codes = np.unique(clusters, return_inverse=True)[1]
    return clustered_rate(np.bincount(codes, weights=outcomes), np.bincount(codes))


def _checks(
    items: pd.DataFrame, labels: Mapping[str, Sequence[Label]], columns: Sequence[str], letters: Sequence[str]
) -> Iterator[ProbabilityCheck]:
    code = {letter: index for index, letter in enumerate(letters)}
    for rater, given in labels.items():
        own = {label.item_id: label for label in given if label.item_id in items.index}
        rows = items.loc[list(own)]
        if len(set(rows["cluster"])) < 2:
            continue
        kinds = {label.rater_kind for label in own.values()}
        yield _check(
            rater,
            kinds.pop() if len(kinds) == 1 else "mixed",
            distributions=rows[list(columns)].to_numpy(float),
            judged=rows["letter"].map(code).to_numpy(int),
            reference=np.array([code[label.letter] for label in own.values()]),
            clusters=rows["cluster"].to_numpy(object),
        )


def _check(
    rater: str,
    kind: Literal["human", "model", "mixed"],
    *,
    distributions: Floats,
    judged: np.ndarray,
    reference: np.ndarray,
    clusters: np.ndarray,
) -> ProbabilityCheck:
    p, y, letter = distributions[:, 0], (reference == 0).astype(int), (judged == 0).astype(int)
    error = expected_calibration_error(p, y, clusters)
    isotonic = cross_fitted(fit_isotonic, p, y, clusters)
    by_threshold = cross_fitted(fit_threshold, p, y, clusters)
    is_fitted = not np.isnan(isotonic).any()
    return ProbabilityCheck(
        rater=rater,
        rater_kind=kind,
        n=len(y),
        n_chunks=len(set(clusters.tolist())),
        auc=Measure.of(_auc(p, y, clusters)),
        auc_letter=Measure.of(_auc(letter.astype(float), y, clusters)),
        brier_letter=brier_score(letter, y),
        brier=brier_score(p, y),
        brier_isotonic=brier_score(isotonic, y) if is_fitted else None,
        ece=error.value,
        ece_expected=error.expected,
        ece_p=error.p_value,
        rps=ranked_probability_score(distributions, reference),
        bins=tuple(
            ReliabilityBin(
                n=int(error.bins.n[index]),
                probability=float(error.bins.probability[index]),
                share=Measure.of(_rate(y[members].astype(float), clusters[members])),
            )
            for index in range(len(error.bins.n))
            for members in [error.bins.codes == index]
        ),
        threshold=best_threshold(p, y.astype(float)) if len(set(y.tolist())) == 2 else None,
        kappa_letter=Measure.of(kappa_interval(1 - y, 1 - letter, clusters, n_levels=2)),
        kappa_threshold=Measure.of(
            kappa_interval(1 - y, 1 - by_threshold.astype(int), clusters, n_levels=2)
            if is_fitted
            else undefined("the labels are too few or all alike", n=len(y))
        ),
    )


def _auc(scores: Floats, outcomes: np.ndarray, clusters: np.ndarray) -> Estimate:
    """Return the area under the curve with a delete-one-cluster jackknife interval on the logit scale."""
    value = area_under_curve(scores, outcomes)
    codes = np.unique(clusters, return_inverse=True)[1]
    n, n_clusters = len(scores), int(codes.max()) + 1
    if np.isnan(value):
        return undefined("all labels are alike", n=n, n_clusters=n_clusters)
    left_out = np.array(
        [area_under_curve(scores[codes != code], outcomes[codes != code]) for code in range(n_clusters)]
    )
    se = float(np.sqrt((n_clusters - 1) / n_clusters * ((left_out - left_out.mean()) ** 2).sum()))
    reason = too_few(n_clusters)
    if reason is None and value == 1:
        # pairs of different clusters are independent, and all of them are in order
        n_pairs = min(*(len(set(codes[outcomes == kind].tolist())) for kind in (0, 1)), n_clusters // 2)
        low = float(((1 - _LEVEL) / 2) ** (1 / n_pairs))
        method = "Clopper-Pearson over pairs of clusters"
        return Estimate(value=1.0, low=low, high=1.0, method=method, n=n, n_clusters=n_clusters)
    if reason is None and (not 0 < value < 1 or not se > 0):
        reason = "without some chunk it is undefined, or no chunk changes it"
    if reason is not None:
        return undefined(reason, value=value, n=n, n_clusters=n_clusters)
    reach = float(stdtrit(n_clusters - 1, 0.5 + _LEVEL / 2)) * se / (value * (1 - value))
    return Estimate(
        value=value,
        low=float(expit(logit(value) - reach)),
        high=float(expit(logit(value) + reach)),
        method="cluster jackknife, logit, t",
        n=n,
        n_clusters=n_clusters,
        reason=warning(n_clusters),
    )
