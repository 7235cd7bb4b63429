"""Data of agreement between judge and raters and between raters, and the document of ``qaeval agreement``."""

from typing import Final, Literal, TypeAlias

from pydantic import Field

from qaeval.agreement.scale import ScaleOrder
from qaeval.calibration.model import SoftGrades
from qaeval.records import ControlDefect
from qaeval.report.facts import Part, is_unset
from qaeval.report.measure import Measure

FORMAT: Final = 1
"""Version of the layout of `AgreementReport`."""
NO_ORDER: Final = "the letters have no order"
"""Reason of a coefficient that has no value because it needs a scale."""


class LetterAgreement(Part):
    """How well the judge detects a letter of the rater."""

    letter: str
    recall: Measure
    """Of the items to which the rater gave the letter, the share to which the judge gave it too."""
    precision: Measure
    """Of the items to which the judge gave the letter, the share to which the rater gave it too."""


class FlagAgreement(Part):
    """Agreement on a flag."""

    flag: str
    n_both: int
    n_rater_only: int
    n_judge_only: int
    n_neither: int
    recall: Measure
    precision: Measure


class FactAgreement(Part):
    """Agreement on a fact of a rubric with ``decide: facts``, over the items whose label answers it."""

    fact: str
    answers: tuple[str, ...]
    """In the order of the rubric."""
    n: int
    confusion: tuple[tuple[int, ...], ...]
    """Counts by answer; the rater in rows, the judge in columns."""
    observed: Measure
    """Share of items with the same answer."""
    kappa: Measure
    """Cohen's kappa, unweighted."""


class LabelledCandidate(Part):
    """Best letters on the labelled items of a candidate; shows whether the judge favours a candidate."""

    candidate: str
    n: int
    n_best_by_rater: int
    n_best_by_judge: int


class Coefficients(Part):
    """Agreement of two raters on the items that both graded."""

    n: int
    n_chunks: int
    confusion: tuple[tuple[int, ...], ...]
    """Counts, best letter first; the reference in rows, the other rater in columns."""
    observed: Measure
    """Share of items with the same letter."""
    observed_max: float
    """Maximum agreement at the letter rates of the two raters, 0 to 1."""
    kappa: Measure
    kappa_linear: Measure
    kappa_quadratic: Measure
    kappa_max: float | None
    """Maximum unweighted kappa at the letter rates of the two raters; None if undefined."""
    scott_pi: Measure
    brennan_prediger: Measure
    """Chance agreement 1/K; with two letters PABAK."""
    gwet_ac1: Measure
    """High for a judge that always gives the most frequent letter; never shown without kappa."""
    gwet_ac2: Measure
    """AC1 with quadratic weights."""
    alpha: Measure
    """Krippendorff's alpha, nominal."""
    alpha_ordinal: Measure
    prevalence_index: float | None
    """For the best letter: share of items to which both gave it minus share to which neither did, -1 to 1."""
    bias_index: float | None
    """For the best letter: its rate by the reference minus its rate by the other rater, -1 to 1; None without an order."""


AgreementOutcome: TypeAlias = Literal[
    "no labels joined", "too few chunks", "chance", "majority", "beats both"
]
"""What the labels show; ``majority``: the judge is not shown to beat the most frequent letter."""


class RaterQuality(Part):
    """How a rater worked, of a sitting that recorded times and repeats."""

    n_timed: int
    """Labels with a time."""
    median_seconds: float | None
    """Time of a label; None without times."""
    seconds_first: float | None
    """Median time in the first third of the labels; None with fewer than 9 times."""
    seconds_last: float | None
    """Median time in the last third."""
    best_first: float | None
    """Share of the best letter in the first half of the labels; None with fewer than 20 labels."""
    best_last: float | None
    """Share of the best letter in the second half."""
    n_too_fast: int
    """Labels given faster than the text can be read, even at `agreement.rater_quality.SKIMMING` words a minute."""
    n_readable: int
    """Labels with a time and a count of words."""
    n_repeats: int
    """Items that the rater labelled twice."""
    n_repeats_same: int
    """Those with the same letter both times."""


class RaterAgreement(Part):
    """Agreement between the judge and a rater."""

    rater: str
    rater_kind: Literal["human", "model", "mixed", "unknown"]
    n_labels: int
    n_tuning_excluded: int
    """Labels used to tune the judge."""
    n_ungraded: int
    """Labels of ungraded items of this run."""
    n_other_rubric: int = 0
    """Labels of another rubric."""
    n_not_in_run: int
    """Labels of items outside this run."""
    standing: AgreementOutcome
    sentences: tuple[str, ...]
    """Description, the most important sentence first."""
    coefficients: Coefficients | None
    """None if no label joined."""
    is_weighted: bool = Field(default=False, exclude_if=is_unset)
    """Whether items were drawn with unequal probabilities: rates and coefficients weight each item by the inverse of its probability;
    counts are those of the labelled items."""
    majority_letter: str = ""
    majority_baseline: float | None = None
    """Agreement of a judge that always gives the rater's most frequent letter, 0 to 1."""
    lift: Measure | None = None
    """Agreement of the judge minus that of always giving this letter, paired by chunk."""
    leniency: Measure | None = None
    """Share of items with a better letter than the rater's minus share with a worse one, -1 to 1."""
    lower_recall: Measure | None = None
    """Of the items to which the rater gave another letter than the best, the share to which the judge gave another one too."""
    letters: tuple[LetterAgreement, ...] = ()
    flags: tuple[FlagAgreement, ...] = ()
    facts: tuple[FactAgreement, ...] = Field(default=(), exclude_if=is_unset)
    """Of the facts that labels of this rater answer; empty where none does."""
    candidates: tuple[LabelledCandidate, ...] = ()
    n_settled: int = Field(default=0, exclude_if=is_unset)
    """Labels in whose place the letter of a third rater counts, since two raters differed."""
    settled_by: tuple[str, ...] = Field(default=(), exclude_if=is_unset)
    """Those third raters."""
    quality: RaterQuality | None = Field(default=None, exclude_if=lambda value: value is None)
    """None where no label has a time and nothing was labelled twice."""


class ControlCount(Part):
    """Planted controls with one defect."""

    defect: ControlDefect
    n_graded: int
    n_best: int
    """Those to which the judge gave the best letter."""


class JudgeDiscrimination(Part):
    """Whether the judge tells bad items from good ones: by planted controls, by labels, or else by its letters alone."""

    outcome: Literal["tells apart", "tells nothing apart", "not shown"]
    basis: Literal["controls", "labels", "letters", ""] = ""
    """What the outcome rests on; empty where nothing shows it."""
    n_controls: int = 0
    """Planted controls of the run."""
    n_graded: int = 0
    n_best: int = 0
    """Graded controls with the best letter."""
    n_pending: int = 0
    """Controls that `qaeval grade` would still ask for."""
    defects: tuple[ControlCount, ...] = ()
    letter: str = ""
    """The letter that the judge gave most items."""
    n_letter: int = 0
    n_items: int = 0
    """Different items with a letter."""
    raters: tuple[str, ...] = ()
    """Raters whose labels show that the judge finds items below the best letter."""
    sentence: str = ""


class RaterPair(Part):
    """Agreement of two raters on the items that both labelled."""

    a: str
    b: str
    sentence: str
    coefficients: Coefficients


class KappaDifference(Part):
    """Kappa of a further judge with a rater minus that of the judge that decides, on the same items."""

    rater: str
    n: int
    """Items that the rater labelled and both judges graded."""
    kappa: Measure
    """Cohen's kappa of the judge that decides."""
    kappa_of_other: Measure
    difference: Measure
    """-2 to 2; above 0 the further judge agrees better. Cluster jackknife of the difference."""


class UsableByJudge(Part):
    """Items of a candidate with the best letter, by two judges."""

    candidate: str
    n: int
    """Expected items."""
    n_usable: int
    """By the judge that decides."""
    n_usable_by_other: int


class FurtherJudge(Part):
    """A judge that graded the items of a run besides the one that decides."""

    judge: str
    n_items: int
    n_graded: int
    agreement: tuple[RaterAgreement, ...]
    """Against each rater, as for the judge that decides."""
    coefficients: Coefficients | None
    """Against the judge that decides, the reference; None where no item has letters of both."""
    p_rates: float | None
    """Stuart-Maxwell test, clustered by chunk, that both use the letters at the same rates; None if undefined."""
    kappa_differences: tuple[KappaDifference, ...]
    candidates: tuple[UsableByJudge, ...]
    sentences: tuple[str, ...] = ()


class MultiRaterAgreement(Part):
    """Agreement of all raters together; letters may be missing."""

    raters: tuple[str, ...]
    n_items: int
    """Items with letters from at least two raters."""
    fleiss: Measure
    """Fleiss' kappa, with an interval by chunk."""
    alpha: Measure
    """Krippendorff's alpha, nominal, with an interval clustered by chunk."""
    alpha_ordinal: Measure


class PanelMember(Part):
    """A member of a panel."""

    judge: str
    n_graded: int
    n_ungraded: int
    """Items to which it gave no letter."""
    n_as_panel: int
    """Items to which it gave the letter of the panel."""
    accuracy: float | None
    """Share of items with the true letter, as Dawid-Skene estimates it without labels, 0 to 1; None without an estimate."""


class PanelCandidate(Part):
    """Items of a candidate with the best letter, by the panel and by Dawid-Skene."""

    candidate: str
    n: int
    """Expected items."""
    n_usable: int
    """By the panel."""
    share_dawid_skene: float | None
    """Mean probability of the best letter over the expected items, 0 to 1; 0 for an item that failed."""


class Panel(Part):
    """Votes of a panel of judges."""

    members: tuple[PanelMember, ...]
    n_items: int
    """Different items."""
    n_unanimous: int
    """Items to which all members gave the same letter."""
    n_ties: int
    """Items of which two or more letters have the most votes: the median letter decides, the worse of the middle two."""
    n_undecided: int
    """Items that a member failed to grade and of which no two letters are equal."""
    n_differ: int
    """Items of which Dawid-Skene's most probable letter is another one than the panel's."""
    prevalence: tuple[float, ...]
    """Share of each letter by Dawid-Skene, best first; empty where fewer than three members gave letters."""
    converged: bool
    """Whether Dawid-Skene did."""
    agreement: MultiRaterAgreement | None
    """Of the members; None if no item has two letters."""
    candidates: tuple[PanelCandidate, ...]
    sentences: tuple[str, ...] = ()


class GroupAgreement(Part):
    """Agreement between the judge and a rater in a group of items."""

    group: str
    agreement: RaterAgreement


class AgreementReport(Part):
    """The document of ``qaeval agreement``."""

    format: int = FORMAT
    source: str
    """Run directory or file."""
    judge: str
    """Empty if only the raters are compared with each other."""
    letters: tuple[str, ...]
    """The scale, best first."""
    agreement: tuple[RaterAgreement, ...]
    raters: tuple[RaterPair, ...]
    several: MultiRaterAgreement | None
    """None with fewer than three raters."""
    by: str = ""
    groups: tuple[GroupAgreement, ...] = ()
    n_without_cluster: int = 0
    """Items assumed to be independent, since no cluster is known."""
    soft: SoftGrades | None = Field(default=None, exclude_if=lambda soft: soft is None)
    """What the judge's probabilities of the letters show; None of a run without them, and of a file."""
    is_scale_assumed: bool = False
    """Whether the letters are numbers without a given scale, of which the largest is taken to be the best."""
    order: ScaleOrder = "given"
    """Where the order of the letters is from; without one the weighted and ordinal measures are undefined."""
    merged: dict[str, str] = Field(default_factory=dict)
    """Letter by other spelling of it: `a` is counted as `A`, `1.0` as `1`."""
    n_missing: int = 0
    """Cells without a letter: empty, N/A, nan or null."""
