"""Data of the labels of a run: work of each rater, differences between raters, effect of more labels."""

from typing import Final

from pydantic import Field

from qaeval.agreement.model import MultiRaterAgreement, RaterAgreement, RaterPair
from qaeval.comparison.model import Difference, LabelledRate, RaterKind, Verdict
from qaeval.report.facts import Part, is_unset

FORMAT: Final = 1
"""Version of the layout of `LabelStatus` and `SittingSummary`."""


class RaterWork(Part):
    """The labels of one rater."""

    rater: str
    rater_kind: RaterKind
    n_labels: int
    """Labels under the rubric of the run."""
    n_chunks: int
    """Chunks with a label."""
    n_skipped: int
    n_open: int
    """Questions of a sitting that are not answered yet."""


class MoreLabels(Part):
    """Effect of more labels on a pair of candidates: the width of the interval of `b` minus `a`."""

    a: str
    b: str
    rater: str
    n_more: int
    """Number of additional labels."""
    n_chunks: int
    """Chunks labelled for both candidates."""
    n_chunks_then: int
    """Chunks labelled for both candidates, with the additional labels."""
    width: float | None
    """Width for the corrected difference now, as a share; None with fewer than 10 labelled chunks."""
    width_then: float | None
    """Expected width with the additional labels; None where these are too few for an interval, or all labels so far are alike."""


class StoppingDecision(Part):
    """Whether more labels can change which candidate is best."""

    outcome: str
    """``best``, ``equal`` or ``undecided``."""
    leaders: tuple[str, ...]
    """The candidate that is best, or those that are equal."""
    estimand: str
    """``pool`` or ``future``: the chunks of this run, or documents to come."""
    n_labelled: int
    """Labelled chunks."""
    n_chunks: int
    """Chunks of the run."""
    sentence: str

    @property
    def is_decided(self) -> bool:
        """Whether labelling may stop."""
        return self.outcome != "undecided"


class SittingSummary(Part):
    """The summary at the end of a sitting."""

    format: int = FORMAT
    rater: str
    n_labels: int
    """Labels of the rater under the rubric of the run."""
    n_skipped: int
    agreement: RaterAgreement | None
    """Judge against this rater, with kappa and its interval, and how the rater worked; None without labels."""
    differences: tuple[Difference, ...]
    """Differences of all pairs of candidates, corrected by labels where these suffice."""
    rates: tuple[LabelledRate, ...]
    """Usable rate of each candidate by this rater's labels, the judge's error taken off."""
    verdict: Verdict
    """Verdict of the run's report, with the labels of all raters."""
    is_decided: bool
    """Whether the verdict is shown by labels, without a condition."""
    more: tuple[MoreLabels, ...]
    decision: StoppingDecision | None = None
    """Decision of a sitting that ends when the verdict is decided."""
    sentences: tuple[str, ...]


class LabelStatus(Part):
    """The document of ``qaeval labels status``."""

    format: int = FORMAT
    source: str
    """Run directory."""
    judge: str
    letters: tuple[str, ...]
    """The scale, best first."""
    raters: tuple[RaterWork, ...]
    agreement: tuple[RaterAgreement, ...]
    """The judge against each rater, with how the rater worked."""
    pairs: tuple[RaterPair, ...]
    """Raters against each other."""
    several: MultiRaterAgreement | None = Field(default=None, exclude_if=is_unset)
    """None with fewer than three raters."""
    n_disputed: int
    """Items to which people gave different letters, and that nobody settled."""
    n_settled: int
    more: tuple[MoreLabels, ...]
    verdict: Verdict
    sentences: tuple[str, ...]
