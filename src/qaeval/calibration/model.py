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


class ModeAgreement(Part):
    """A judge that gives the letter alone, and reasons where it is unsure: how often both letters agree."""

    below: float
    """Probability of the letter below which reasons are asked for."""
    control: float
    """Share of the items that are graded in both modes whatever the probability, drawn at random."""
    reasons_for: tuple[str, ...] = Field(default=(), exclude_if=is_unset)
    """Letters for which reasons are asked for whatever the probability."""
    n_items: int
    """Items with a letter."""
    n_with_reasons: int
    """Those whose letter is the one with reasons."""
    n_reconsidered: int
    """Those of which the judge was unsure, that had no letter without reasons, or one of `reasons_for`."""
    n_changed: int
    """Those of them that got another letter with reasons."""
    n_control: int
    """Items of the random share with both letters."""
    n_chunks: int
    agreement: Measure
    """Share of them with the same letter in both modes."""
    n_kept: int
    """Items of the random share whose letter alone would decide."""
    kept: Measure
    """Share of these with the same letter in both modes."""
    tokens_short: float | None = None
    """Mean completion tokens of a letter alone; None where the server counts none."""
    tokens_both: float | None = None
    """Mean completion tokens of an item that was graded in both modes."""

    @property
    def tokens_with_reasons(self) -> float | None:
        """Mean completion tokens of a letter with reasons, of the items that have one."""
        if self.tokens_short is None or self.tokens_both is None:
            return None
        return self.tokens_both - self.tokens_short

    @property
    def tokens(self) -> float | None:
        """Mean completion tokens of an item."""
        if self.tokens_short is None or self.tokens_both is None:
            return None
        share = self.n_with_reasons / self.n_items
        return (1 - share) * self.tokens_short + share * self.tokens_both


class JudgeShare(Part):
    """Work and agreement of a judge alone, or of the cascade."""

    judge: str
    n_items: int
    """Items that it graded, or was asked for."""
    n_tokens: int | None
    """Prompt and reply; None where no server counted them."""
    seconds: float | None
    """Wall time of its stages; None where none was recorded."""
    cost: float | None
    """None without a price of its machine."""
    is_extrapolated: bool = False
    """Whether work is scaled up from the items that it graded to all."""
    kappa: Measure | None
    """Cohen's kappa with the labels, all judges on the same items; None without labels."""


class Escalation(Part):
    """A second judge grades the items of which the first is unsure, or which are disputed."""

    judge: str
    second: str
    cascade: str
    """Name under which the run keeps the letters of both together."""
    threshold: float | None
    """Probability of its letter from which the first judge's letter is kept; None where no threshold is shown to keep the promise."""
    basis: Literal["labels", "given"]
    max_error: float
    """Largest share of wrong letters among those that are kept."""
    alpha: float
    """Probability with which that may fail."""
    n_labels: int
    """Labelled items with a probability."""
    n_labels_of_models: int = 0
    """Those that no person labelled."""
    n_kept: int
    """Labelled items from the threshold on."""
    n_wrong: int
    """Those whose letter is not that of the label."""
    upper: float | None
    """Upper bound of the share of wrong letters that are kept."""
    n_items: int
    n_unsure: int
    """Items below the threshold, or without a probability."""
    n_disputed: int
    """Other items to which the first judge, or another one, gave a second letter."""
    n_without_letter: int
    """Other items to which the first judge gave no letter."""
    n_labelled_too: int
    """Labelled items that the second judge graded besides, for the comparison alone."""
    currency: str = ""
    shares: tuple[JudgeShare, ...]
    """First judge, second judge, cascade."""

    @property
    def n_escalated(self) -> int:
        """Items whose letter is that of the second judge."""
        return self.n_unsure + self.n_disputed + self.n_without_letter
