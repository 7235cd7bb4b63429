"""The agreement coefficients of two raters."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isnan
from typing import Final

import numpy as np

from qaeval.agreement.model import Coefficients
from qaeval.report.measure import Measure
from qaeval.stats import coefficients as stats
from qaeval.stats import reliability
from qaeval.stats.bounds import agreement_bounds
from qaeval.stats.estimate import Estimate
from qaeval.stats.multirater import krippendorff_interval
from qaeval.stats.resampling import jackknife

_ONE_LETTER: Final = "both gave every item the same letter"
NO_ORDER: Final = "the letters have no order"

# the interval of kappa, so that coefficients differ by their definition only: a delete-one-cluster jackknife
_BY_JACKKNIFE: Final[dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "scott_pi": stats.scott_pi,
    "brennan_prediger": stats.brennan_prediger,
    "gwet_ac1": stats.gwet_ac,
    "gwet_ac2": partial(stats.gwet_ac, weights="quadratic"),
}


@dataclass(frozen=True)
class Paired:
    """Letters of two raters on the same items, as codes from 0, the best letter; `a` is the reference."""

    a: np.ndarray
    b: np.ndarray
    clusters: np.ndarray
    """Cluster of each item, usually its chunk."""
    n_levels: int
    is_ordered: bool = True
    """Whether better and worse have a meaning; otherwise the weighted and ordinal measures are undefined."""

    def coefficients(self) -> Coefficients:
        """Return all coefficients, with intervals clustered by chunk."""
        a, b, clusters, k = self.a, self.b, self.clusters, self.n_levels
        confusion = reliability.confusion_matrix(a, b, k)
        tables = reliability.cluster_tables(a, b, clusters, n_levels=k)
        bounds = agreement_bounds(confusion.sum(axis=1), confusion.sum(axis=0))
        best = _best_or_not(confusion)
        ratings = np.column_stack([a, b])
        kappas = {
            weights: _measure(reliability.kappa_interval(a, b, clusters, n_levels=k, weights=weights))
            for weights in (None, "linear", "quadratic")
        }
        coefficients = Coefficients(
            n=len(a),
            n_chunks=len(set(clusters)),
            confusion=tuple(tuple(int(n) for n in row) for row in confusion),
            observed=Measure.of(reliability.agreement_rate(a, b, clusters, n_levels=k)),
            observed_max=bounds.agreement_max,
            kappa=kappas[None],
            kappa_linear=kappas["linear"],
            kappa_quadratic=kappas["quadratic"],
            kappa_max=None if isnan(bounds.kappa_max) else bounds.kappa_max,
            alpha=_measure(krippendorff_interval(ratings, clusters, n_levels=k, metric="nominal")),
            alpha_ordinal=_measure(krippendorff_interval(ratings, clusters, n_levels=k, metric="ordinal")),
            prevalence_index=float(stats.prevalence_index(best)),
            bias_index=float(stats.bias_index(best)),
            **{
                name: _measure(jackknife(statistic, tables, n=len(a), scale="fisher"))
                for name, statistic in _BY_JACKKNIFE.items()
            },
        )
        return coefficients if self.is_ordered else _without_order(coefficients)


def _without_order(coefficients: Coefficients) -> Coefficients:
    """Return the coefficients without those that need an order of the letters."""
    ordinal = ("kappa_linear", "kappa_quadratic", "alpha_ordinal", "gwet_ac2")
    return coefficients.model_copy(
        update={
            **{name: getattr(coefficients, name).without_value(NO_ORDER) for name in ordinal},
            "prevalence_index": None,
            "bias_index": None,
        }
    )


def _measure(estimate: Estimate) -> Measure:
    """Convert a coefficient; it is undefined if only one letter occurs."""
    measure = Measure.of(estimate)
    return measure if estimate.is_defined else measure.model_copy(update={"reason": _ONE_LETTER})


def _best_or_not(confusion: np.ndarray) -> np.ndarray:
    """Collapse a confusion matrix to 2x2: the best letter and all others."""
    edges = [0, 1]
    return np.add.reduceat(np.add.reduceat(confusion, edges, axis=0), edges, axis=1)
