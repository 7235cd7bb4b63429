"""The agreement coefficients of two raters."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isnan
from typing import Final

import numpy as np

from qaeval.agreement.model import NO_ORDER, Coefficients
from qaeval.report.measure import Measure
from qaeval.stats import coefficients as stats
from qaeval.stats import reliability
from qaeval.stats.bounds import agreement_bounds
from qaeval.stats.estimate import Estimate
from qaeval.stats.multirater import Metric, alpha_from_coincidences
from qaeval.stats.resampling import jackknife

_ONE_LETTER: Final = "both gave every item the same letter"

# the interval of kappa, so that coefficients differ by their definition only: a delete-one-cluster jackknife
_BY_JACKKNIFE: Final[dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "scott_pi": stats.scott_pi,
    "brennan_prediger": stats.brennan_prediger,
    "gwet_ac1": stats.gwet_ac,
    "gwet_ac2": partial(stats.gwet_ac, weights="quadratic"),
    "alpha": lambda tables: _alpha(tables, "nominal"),
    "alpha_ordinal": lambda tables: _alpha(tables, "ordinal"),
}


@dataclass(frozen=True)
class Paired:
    """Letters of two raters on the same items, as codes from 0, the best letter; `a` is the reference."""

    a: np.ndarray
    b: np.ndarray
    clusters: np.ndarray
    """Cluster of each item, usually its chunk."""
    n_levels: int
    inclusion: np.ndarray | None = None
    """Probability with which each item was drawn, where that differs; None: all alike."""
    is_ordered: bool = True
    """Whether better and worse have a meaning; otherwise the weighted and ordinal measures are undefined."""

    def tables(self) -> np.ndarray:
        """Return the counts of pairs of letters in each cluster, shape (G, K, K), by the inverse of the probabilities."""
        return reliability.cluster_tables(
            self.a, self.b, self.clusters, n_levels=self.n_levels, inclusion=self.inclusion
        )

    def coefficients(self) -> Coefficients:
        """Return all coefficients, with intervals clustered by chunk."""
        a, b, clusters, k = self.a, self.b, self.clusters, self.n_levels
        confusion = reliability.confusion_matrix(a, b, k)
        tables = self.tables()
        total = tables.sum(axis=0)
        bounds = agreement_bounds(total.sum(axis=1), total.sum(axis=0))
        best = _best_or_not(total)
        drawn = self.inclusion
        kappas = {
            weights: _measure(
                reliability.kappa_interval(a, b, clusters, n_levels=k, weights=weights, inclusion=drawn)
            )
            for weights in (None, "linear", "quadratic")
        }
        coefficients = Coefficients(
            n=len(a),
            n_chunks=len(set(clusters)),
            confusion=tuple(tuple(int(n) for n in row) for row in confusion),
            observed=Measure.of(reliability.agreement_rate(a, b, clusters, n_levels=k, inclusion=drawn)),
            observed_max=bounds.agreement_max,
            kappa=kappas[None],
            kappa_linear=kappas["linear"],
            kappa_quadratic=kappas["quadratic"],
            kappa_max=None if isnan(bounds.kappa_max) else bounds.kappa_max,
            prevalence_index=float(stats.prevalence_index(best)),
            bias_index=float(stats.bias_index(best)),
            **{
                name: _measure(jackknife(statistic, tables, n=len(a), scale="fisher"))
                for name, statistic in _BY_JACKKNIFE.items()
            },
        )
        return coefficients if self.is_ordered else _without_order(coefficients)


def _alpha(tables: np.ndarray, metric: Metric) -> np.ndarray:
    """Return Krippendorff's alpha of two raters from tables of their letters, shape (..., K, K)."""
    return alpha_from_coincidences(tables + tables.swapaxes(-1, -2), metric=metric)


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
