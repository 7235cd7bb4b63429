"""Data of soft grades: the judge's probabilities of the letters, alone and against labels."""

from typing import Literal

from pydantic import Field

from qaeval.report.facts import Part, is_unset
from qaeval.report.measure import Measure


class CandidateSoftGrade(Part):
    """Soft grades of a candidate's items."""

    candidate: str
    n: int
    """Items with probabilities."""
    share_best: Measure
    """Share with the best letter, of these items."""
    probability: Measure
    """Mean probability of the best letter."""
    expected: Measure
    """Mean expected grade: 1 is the best letter, 0 the worst, the others are spaced evenly."""


class ReliabilityBin(Part):
    """Items of about the same probability of the best letter."""

    n: int
    probability: float
    """Mean probability."""
    share: Measure
    """Share that is labelled with the best letter."""


class ProbabilityCheck(Part):
    """The judge's probabilities of the best letter against the labels of a rater."""

    rater: str
    rater_kind: Literal["human", "model", "mixed", "unknown"]
    n: int
    """Labelled items with probabilities."""
    n_chunks: int
    auc: Measure
    """Probability that an item labelled with the best letter has a higher probability of it than another item, 0 to 1."""
    auc_letter: Measure
    """The same of the letter alone: higher for the best letter."""
    brier_letter: float
    """Mean squared distance of the letter, as 0 or 1, from the label."""
    brier: float
    """Of the probability as it is."""
    brier_isotonic: float | None
    """Of the probability after isotonic calibration that saw no label of the item's chunk; None where that is not possible."""
    ece: float
    """Expected calibration error in bins of equal mass."""
    ece_expected: float
    """What a calibrated judge would have on average by chance."""
    ece_p: float
    """P-value of the hypothesis that the probabilities are calibrated."""
    rps: float
    """Mean ranked probability score of the whole distribution."""
    bins: tuple[ReliabilityBin, ...]
    """The reliability diagram, by rising probability."""
    threshold: float | None
    """Probability from which an item is taken for the best letter, by all labels; None where all labels are alike."""
    kappa_letter: Measure
    """Cohen's kappa of the best letter or not, by the letter."""
    kappa_threshold: Measure
    """The same by a threshold that saw no label of the item's chunk."""


class SoftGrades(Part):
    """Soft grades of a run."""

    n_items: int
    """Different items with a letter."""
    n: int
    """Those with probabilities."""
    lowest: float
    """Lowest probability of the best letter."""
    median: float
    highest: float
    candidates: tuple[CandidateSoftGrade, ...] = Field(default=(), exclude_if=is_unset)
    checks: tuple[ProbabilityCheck, ...] = Field(default=(), exclude_if=is_unset)
    """By each rater with labels."""
