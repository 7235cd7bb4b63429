"""Agreement as data: a judge against raters, raters against each other, and the document of ``qaeval agreement``."""

from typing import Final, Literal, TypeAlias

from qaeval.records import ControlDefect
from qaeval.report.facts import Part
from qaeval.report.measure import Measure

FORMAT: Final = 1
"""Version of the layout of `AgreementReport`."""


class LetterAgreement(Part):
    """How well the judge finds one letter of the rater."""

    letter: str
    recall: Measure
    """Of the items to which the rater gave the letter, the share to which the judge gave it too."""
    precision: Measure
    """Of the items to which the judge gave the letter, the share to which the rater gave it too."""


class FlagAgreement(Part):
    """One flag, raised by rater and judge."""

    flag: str
    n_both: int
    n_rater_only: int
    n_judge_only: int
    n_neither: int
    recall: Measure
    precision: Measure


class LabelledCandidate(Part):
    """Best letters on the labelled items of one candidate: does the judge favour somebody?"""

    candidate: str
    n: int
    n_best_by_rater: int
    n_best_by_judge: int


class Coefficients(Part):
    """Agreement of two raters on items that both graded."""

    n: int
    n_chunks: int
    confusion: tuple[tuple[int, ...], ...]
    """Counts; the reference in rows, the other in columns, in the order of the scale."""
    observed: Measure
    """Share of items with the same letter."""
    observed_max: float
    """Largest agreement that the two raters' own rates of letters allow."""
    kappa: Measure
    kappa_linear: Measure
    kappa_quadratic: Measure
    kappa_max: float | None
    """Largest unweighted kappa that the two raters' own rates of letters allow."""
    scott_pi: Measure
    brennan_prediger: Measure
    """Chance agreement 1/K; with two letters PABAK."""
    gwet_ac1: Measure
    """Flatters a judge that gives everything the commonest letter; never to be shown without kappa."""
    gwet_ac2: Measure
    """AC1 with quadratic weights."""
    alpha: Measure
    """Krippendorff's alpha, nominal."""
    alpha_ordinal: Measure
    prevalence_index: float
    """Of best letter or not: share of items that both call best minus share that neither does, -1 to 1."""
    bias_index: float
    """Of best letter or not: the reference's rate of best letters minus the other's, -1 to 1."""


AgreementOutcome: TypeAlias = Literal[
    "no labels joined", "too few chunks", "chance", "majority", "beats both"
]
"""What the labels show of the judge; ``majority`` means that it is not shown to beat the commonest letter."""


class RaterAgreement(Part):
    """The judge against one rater."""

    rater: str
    rater_kind: Literal["human", "model", "mixed", "unknown"]
    n_labels: int
    n_tuning_excluded: int
    """Labels that the judge was tuned on."""
    n_ungraded: int
    """Labels of items of this run that have no letter."""
    n_other_rubric: int = 0
    """Labels that were given under another rubric."""
    n_not_in_run: int
    """Labels of items that this run does not hold."""
    standing: AgreementOutcome
    sentences: tuple[str, ...]
    """In plain words, the most important first."""
    coefficients: Coefficients | None
    """None when no label joined."""
    majority_letter: str = ""
    majority_baseline: float | None = None
    """Agreement of a judge that always gives the rater's commonest letter."""
    leniency: Measure | None = None
    """Share of items with a better letter than the rater's minus share with a worse one."""
    lower_recall: Measure | None = None
    """Of the items to which the rater gave another letter than the best, the share to which the judge gave another one too."""
    letters: tuple[LetterAgreement, ...] = ()
    flags: tuple[FlagAgreement, ...] = ()
    candidates: tuple[LabelledCandidate, ...] = ()


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
    """Two raters on the items that both labelled: the ceiling for any judge."""

    a: str
    b: str
    sentence: str
    coefficients: Coefficients


class MultiRaterAgreement(Part):
    """All raters together, letters may be missing."""

    raters: tuple[str, ...]
    n_items: int
    """Items with letters from at least two raters."""
    fleiss: Measure
    """Fleiss' kappa; its interval takes the items for independent."""
    alpha: Measure
    """Krippendorff's alpha, nominal, with an interval by chunk."""
    alpha_ordinal: Measure


class GroupAgreement(Part):
    """The judge against one rater in one group of items."""

    group: str
    agreement: RaterAgreement


class AgreementReport(Part):
    """What ``qaeval agreement`` found."""

    format: int = FORMAT
    source: str
    """Run directory or file."""
    judge: str
    """Empty where the raters are compared with each other alone."""
    letters: tuple[str, ...]
    """The scale, best first."""
    agreement: tuple[RaterAgreement, ...]
    raters: tuple[RaterPair, ...]
    several: MultiRaterAgreement | None
    """With three raters or more."""
    by: str = ""
    groups: tuple[GroupAgreement, ...] = ()
    n_without_cluster: int = 0
    """Items that were taken for independent because nothing says what they belong to."""
