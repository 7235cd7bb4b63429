"""Statistics of agreement, rates and comparisons: arrays in, a number or a frozen dataclass out.

Nothing here reads a file, draws from a hidden random state or knows what a rubric is. Every interval and test
treats the cluster (the chunk or document that items share) as the unit that was sampled. A value that does
not exist is NaN with a reason in its `Estimate`, never 0.

The names in ``__all__`` are public, documented in ``docs/statistics.md`` and imported at their first use, so
that ``import qaeval.stats`` loads neither numpy nor scipy.

==============  ==========================================================================
`estimate`      `Estimate`: value, interval, method, counts and the reason for a NaN
`intervals`     intervals of rates, means and ratios, plain and clustered
`resampling`    jackknife and bootstrap over clusters
`reliability`   agreement of two raters, by items and clusters
`coefficients`  kappa and its relatives from tables of counts
`multirater`    Krippendorff's alpha, Fleiss' kappa and relatives for many raters, Dawid-Skene
`components`    how much spread is due to chunks, items, replies and the judge's own noise
`bounds`        what a coefficient can reach given the marginals
`published`     can the numbers printed in a paper or a blog be true?
`correction`    rates and differences from labels of some chunks and the judge's letters
`labelling`     which items to label next, how many labelled chunks decide, and what more labels would buy
`transfer`      the same from labels of another population
`homogeneity`   do two raters use the letters at the same rates?
`paired`        paired difference, exact sign-flip test, Holm's correction
`margins`       non-inferiority and equivalence
`ranking`       Bradley-Terry
`power`         sample size and power in closed form
`planning`      the same by simulating the test that will be used
`sequential`    tests and bounds of a mean that hold at every look, by betting
`stopping`      when do more labels no longer change which candidate is best?
==============  ==========================================================================
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qaeval.stats.bounds import AgreementBounds, agreement_bounds
    from qaeval.stats.coefficients import (
        balanced_accuracy,
        bias_index,
        brennan_prediger,
        expected_agreement,
        gwet_ac,
        kappa,
        prevalence_index,
        scott_pi,
        specific_agreement,
        weighted_agreement,
    )
    from qaeval.stats.components import (
        RepeatAgreement,
        VarianceComponent,
        VarianceComponents,
        repeat_agreement,
        variance_components,
    )
    from qaeval.stats.correction import (
        CorrectedDifference,
        CorrectedRate,
        DifferentialError,
        corrected_difference,
        corrected_rate,
        differential_error,
    )
    from qaeval.stats.estimate import Estimate
    from qaeval.stats.homogeneity import TestResult, clustered_homogeneity, cochran_q, stuart_maxwell
    from qaeval.stats.intervals import (
        clopper_pearson,
        clustered_mean,
        clustered_rate,
        clustered_ratio,
        wilson,
    )
    from qaeval.stats.labelling import (
        ExpectedWidth,
        draw_chunks,
        expected_width,
        inclusion_probabilities,
        labelled_chunks_needed,
        neyman_allocation,
        smoothed_spread,
    )
    from qaeval.stats.margins import Equivalence, NonInferiority, equivalence, non_inferiority
    from qaeval.stats.multirater import (
        AlternativeAnnotator,
        DawidSkene,
        MultiRaterCoefficient,
        alternative_annotator_test,
        dawid_skene,
        fleiss_interval,
        krippendorff_alpha,
        krippendorff_interval,
        multirater_coefficient,
        rating_counts,
    )
    from qaeval.stats.paired import (
        benjamini_yekutieli,
        clustered_signed_rank,
        effective_number,
        holm,
        paired_difference,
        sign_flip_test,
        weighted_difference,
    )
    from qaeval.stats.planning import Pilot, Plan, plan, simulated_power
    from qaeval.stats.power import chunks_needed, design_effect, detectable_difference, icc1, reached_power
    from qaeval.stats.published import PublishedCheck, check_published, grim
    from qaeval.stats.ranking import Ranked, bradley_terry, bradley_terry_bootstrap
    from qaeval.stats.reliability import (
        LetterAccuracy,
        agreement_rate,
        cluster_tables,
        cohen_kappa,
        confusion_matrix,
        kappa_difference,
        kappa_interval,
        leniency,
        letter_accuracy,
        lift_over_majority,
        majority_baseline,
    )
    from qaeval.stats.resampling import cluster_bootstrap, cluster_bootstrap_all, jackknife
    from qaeval.stats.sequential import (
        BettingTest,
        ConfidenceSequence,
        SequentialLook,
        corrected_looks,
        sequential_looks,
    )
    from qaeval.stats.stopping import LabelDecision, PairDecision, decide_by_labels
    from qaeval.stats.transfer import TransferredRate, TransferredShares, letter_shares, rogan_gladen

__all__ = [
    "AgreementBounds",
    "AlternativeAnnotator",
    "BettingTest",
    "ConfidenceSequence",
    "CorrectedDifference",
    "CorrectedRate",
    "DawidSkene",
    "DifferentialError",
    "Equivalence",
    "Estimate",
    "ExpectedWidth",
    "LabelDecision",
    "LetterAccuracy",
    "MultiRaterCoefficient",
    "NonInferiority",
    "PairDecision",
    "Pilot",
    "Plan",
    "PublishedCheck",
    "Ranked",
    "RepeatAgreement",
    "SequentialLook",
    "TestResult",
    "TransferredRate",
    "TransferredShares",
    "VarianceComponent",
    "VarianceComponents",
    "agreement_bounds",
    "agreement_rate",
    "alternative_annotator_test",
    "balanced_accuracy",
    "benjamini_yekutieli",
    "bias_index",
    "bradley_terry",
    "bradley_terry_bootstrap",
    "brennan_prediger",
    "check_published",
    "chunks_needed",
    "clopper_pearson",
    "cluster_bootstrap",
    "cluster_bootstrap_all",
    "cluster_tables",
    "clustered_homogeneity",
    "clustered_mean",
    "clustered_rate",
    "clustered_ratio",
    "clustered_signed_rank",
    "cochran_q",
    "cohen_kappa",
    "confusion_matrix",
    "corrected_difference",
    "corrected_looks",
    "corrected_rate",
    "dawid_skene",
    "decide_by_labels",
    "design_effect",
    "detectable_difference",
    "differential_error",
    "draw_chunks",
    "effective_number",
    "equivalence",
    "expected_agreement",
    "expected_width",
    "fleiss_interval",
    "grim",
    "gwet_ac",
    "holm",
    "icc1",
    "inclusion_probabilities",
    "jackknife",
    "kappa",
    "kappa_difference",
    "kappa_interval",
    "krippendorff_alpha",
    "krippendorff_interval",
    "labelled_chunks_needed",
    "leniency",
    "letter_accuracy",
    "letter_shares",
    "lift_over_majority",
    "majority_baseline",
    "multirater_coefficient",
    "neyman_allocation",
    "non_inferiority",
    "paired_difference",
    "plan",
    "prevalence_index",
    "rating_counts",
    "reached_power",
    "repeat_agreement",
    "rogan_gladen",
    "scott_pi",
    "sequential_looks",
    "sign_flip_test",
    "simulated_power",
    "smoothed_spread",
    "specific_agreement",
    "stuart_maxwell",
    "variance_components",
    "weighted_agreement",
    "weighted_difference",
    "wilson",
]

_MODULES = {
    "bounds": ("AgreementBounds", "agreement_bounds"),
    "coefficients": (
        "balanced_accuracy",
        "bias_index",
        "brennan_prediger",
        "expected_agreement",
        "gwet_ac",
        "kappa",
        "prevalence_index",
        "scott_pi",
        "specific_agreement",
        "weighted_agreement",
    ),
    "components": (
        "RepeatAgreement",
        "VarianceComponent",
        "VarianceComponents",
        "repeat_agreement",
        "variance_components",
    ),
    "correction": (
        "CorrectedDifference",
        "CorrectedRate",
        "DifferentialError",
        "corrected_difference",
        "corrected_rate",
        "differential_error",
    ),
    "estimate": ("Estimate",),
    "homogeneity": ("TestResult", "clustered_homogeneity", "cochran_q", "stuart_maxwell"),
    "intervals": ("clopper_pearson", "clustered_mean", "clustered_rate", "clustered_ratio", "wilson"),
    "labelling": (
        "ExpectedWidth",
        "draw_chunks",
        "expected_width",
        "inclusion_probabilities",
        "labelled_chunks_needed",
        "neyman_allocation",
        "smoothed_spread",
    ),
    "margins": ("Equivalence", "NonInferiority", "equivalence", "non_inferiority"),
    "multirater": (
        "AlternativeAnnotator",
        "DawidSkene",
        "MultiRaterCoefficient",
        "alternative_annotator_test",
        "dawid_skene",
        "fleiss_interval",
        "krippendorff_alpha",
        "krippendorff_interval",
        "multirater_coefficient",
        "rating_counts",
    ),
    "paired": (
        "benjamini_yekutieli",
        "clustered_signed_rank",
        "effective_number",
        "holm",
        "paired_difference",
        "sign_flip_test",
        "weighted_difference",
    ),
    "planning": ("Pilot", "Plan", "plan", "simulated_power"),
    "power": ("chunks_needed", "design_effect", "detectable_difference", "icc1", "reached_power"),
    "published": ("PublishedCheck", "check_published", "grim"),
    "ranking": ("Ranked", "bradley_terry", "bradley_terry_bootstrap"),
    "reliability": (
        "LetterAccuracy",
        "agreement_rate",
        "cluster_tables",
        "cohen_kappa",
        "confusion_matrix",
        "kappa_difference",
        "kappa_interval",
        "leniency",
        "letter_accuracy",
        "lift_over_majority",
        "majority_baseline",
    ),
    "resampling": ("cluster_bootstrap", "cluster_bootstrap_all", "jackknife"),
    "sequential": (
        "BettingTest",
        "ConfidenceSequence",
        "SequentialLook",
        "corrected_looks",
        "sequential_looks",
    ),
    "stopping": ("LabelDecision", "PairDecision", "decide_by_labels"),
    "transfer": ("TransferredRate", "TransferredShares", "letter_shares", "rogan_gladen"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # type checkers read the imports above, and report names that do not exist

    def __getattr__(name: str) -> object:
        """Import a public name from its module at its first use."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
