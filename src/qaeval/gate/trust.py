"""May the judge decide a gate? What labels show of it, and the verdict by the requirements of a policy."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import atanh, ceil, inf, log
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import ndtri

from qaeval.agreement.model import LetterAgreement
from qaeval.agreement.reference import RaterKind
from qaeval.audit.model import Audit
from qaeval.gate.model import TrustVerdict
from qaeval.gate.policy import TrustPolicy
from qaeval.report.facts import Part, is_unset
from qaeval.report.measure import Measure
from qaeval.report.numbers import coefficient, difference, listed, plural, rate, size, two_digits_up
from qaeval.stats import reliability
from qaeval.stats.coefficients import gwet_ac
from qaeval.stats.correction import differential_error
from qaeval.stats.estimate import MIN_CLUSTERS
from qaeval.stats.resampling import jackknife

_POWER: Final = 0.8
"""Probability with which the number of further labels decides, as in the plans of a comparison."""
_MAX_MORE: Final = 1_000_000
"""A larger number of labels is none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledLetters:
    """Items with a label and the judge's letter: arrays of shape (n_items,)."""

    scale: tuple[str, ...]
    """Letters, best first."""
    reference: NDArray[np.intp]
    """Labels, as positions on the scale."""
    judged: NDArray[np.intp]
    """The judge's letters."""
    clusters: NDArray[np.intp]
    """Code of the item's chunk: items of one chunk are dependent."""
    kinds: NDArray[np.str_]
    """``human`` or ``model``: who gave the label."""
    candidates: Mapping[str, NDArray[np.bool_]]
    """Items of each candidate; empty where the candidates are not known."""
    inclusion: NDArray[np.float64] | None = None
    """Probability with which each item was drawn to be labelled, relative to the others with a label of its kind, in (0, 1]; NaN where
    that is not known; None where it is of none, or all were drawn alike."""

    def select(self, kept: NDArray[np.bool_]) -> "LabelledLetters":
        """Return some of the items."""
        return LabelledLetters(
            scale=self.scale,
            reference=self.reference[kept],
            judged=self.judged[kept],
            clusters=self.clusters[kept],
            kinds=self.kinds[kept],
            candidates={name: mask[kept] for name, mask in self.candidates.items()},
            inclusion=None if self.inclusion is None else self.inclusion[kept],
        )

    def admitted(self, trust: TrustPolicy) -> "LabelledLetters":
        """Return the items whose labels count by a policy."""
        return self if trust.raters == "any" else self.select(self.kinds == "human")

    @property
    def drawn(self) -> NDArray[np.float64] | None:
        """`inclusion` where it can weight the items: it is known of all, and all labels are of one kind."""
        if self.inclusion is None or np.isnan(self.inclusion).any() or len(set(self.kinds.tolist())) > 1:
            return None
        return self.inclusion


class DifferentialError(Part):
    """How much the judge favours candidate b over a: its difference of the usable rates minus that of the labels."""

    a: str
    b: str
    error: Measure


class JudgeNumbers(Part):
    """What labels show of a judge; intervals of 95 %, clustered by chunk."""

    n_labels: int
    """Labelled items that the judge graded."""
    n_chunks: int
    n_by_kind: Mapping[RaterKind, int]
    """Labelled items by the kind of the rater."""
    is_weighted: bool = Field(default=False, exclude_if=is_unset)
    """Whether items count by the inverse of the probability with which they were drawn; `confusion` counts them as they are."""
    confusion: tuple[tuple[int, ...], ...]
    """Counts, best letter first; the labels in rows, the judge in columns."""
    observed: Measure
    """Share of items with the same letter."""
    kappa: Measure
    gwet_ac1: Measure
    """High for a judge that always gives the most frequent letter."""
    lower_recall: Measure
    """Of the items that are labelled below the best letter, the share to which the judge gave another one than the best too."""
    letters: tuple[LetterAgreement, ...]
    """Recall and precision of each letter."""
    differential_errors: tuple[DifferentialError, ...] = ()
    """Of each pair of candidates; empty where the labelled items are not known by candidate."""


def numbers_of(letters: LabelledLetters) -> JudgeNumbers | None:
    """Return what labels show of a judge; None without a label."""
    a, b, clusters, k = letters.reference, letters.judged, letters.clusters, len(letters.scale)
    if not len(a):
        return None
    drawn = letters.drawn
    accuracy = reliability.letter_accuracy(a, b, clusters, n_levels=k, inclusion=drawn)
    lower = reliability.letter_accuracy(
        (a > 0).astype(int), (b > 0).astype(int), clusters, n_levels=2, inclusion=drawn
    )[1]
    tables = reliability.cluster_tables(a, b, clusters, n_levels=k, inclusion=drawn)
    kinds: tuple[RaterKind, ...] = ("human", "model")
    return JudgeNumbers(
        n_labels=len(a),
        n_chunks=len(set(clusters.tolist())),
        n_by_kind={kind: n for kind in kinds if (n := int((letters.kinds == kind).sum()))},
        is_weighted=drawn is not None,
        confusion=tuple(tuple(int(n) for n in row) for row in reliability.confusion_matrix(a, b, k)),
        observed=Measure.of(reliability.agreement_rate(a, b, clusters, n_levels=k, inclusion=drawn)),
        kappa=Measure.of(reliability.kappa_interval(a, b, clusters, n_levels=k, inclusion=drawn)),
        gwet_ac1=Measure.of(jackknife(gwet_ac, tables, n=len(a), scale="fisher")),
        lower_recall=Measure.of(lower.recall),
        letters=tuple(
            LetterAgreement(
                letter=letters.scale[letter.letter],
                recall=Measure.of(letter.recall),
                precision=Measure.of(letter.precision),
            )
            for letter in accuracy
        ),
        differential_errors=tuple(
            error
            for a_name, b_name in combinations(letters.candidates, 2)
            if (error := _differential_error(letters, a_name, b_name)) is not None
        ),
    )


def _differential_error(letters: LabelledLetters, a: str, b: str) -> DifferentialError | None:
    """Return the differential error over the chunks with labelled items of both candidates; None without one."""
    drawn = letters.drawn
    weights = np.ones(len(letters.judged)) if drawn is None else 1 / drawn
    masks = (letters.candidates[a], letters.candidates[b])
    rates = []
    for codes in (letters.judged, letters.reference):
        best = (codes == 0).astype(float)
        rates.append(
            [
                {
                    cluster: np.average(best[items], weights=weights[items])
                    for cluster in np.unique(letters.clusters[mask]).tolist()
                    for items in [mask & (letters.clusters == cluster)]
                }
                for mask in masks
            ]
        )
    (judged_a, judged_b), (labelled_a, labelled_b) = rates
    chunks = sorted(judged_a.keys() & judged_b.keys())
    if not chunks:
        return None
    judged = np.array([judged_b[chunk] - judged_a[chunk] for chunk in chunks])
    labelled = np.array([labelled_b[chunk] - labelled_a[chunk] for chunk in chunks])
    of_both = masks[0] | masks[1]
    by_chunk = [weights[of_both & (letters.clusters == chunk)].mean() for chunk in chunks]
    error = differential_error(judged, labelled, weights=None if drawn is None else by_chunk).estimate
    return DifferentialError(a=a, b=b, error=Measure.of(error))


# -------------------------------------------------------------------- verdict

_State: TypeAlias = Literal["met", "undecided", "refuted"]


@dataclass(frozen=True)
class _Requirement:
    """A requirement with its state.

    Attributes:
        state: By the interval.
        n_needed: Labels that decide an undecided one, infinite where none do.
        is_ahead: Whether the estimate meets it.
        sentence: The requirement in words.
    """

    state: _State
    n_needed: float
    is_ahead: bool
    sentence: str


def decide_trust(
    numbers: JudgeNumbers | None, trust: TrustPolicy, audit: Audit | None = None
) -> TrustVerdict:
    """Decide whether a judge meets the requirements of a policy.

    A requirement is met where the interval lies on its good side, refuted where it lies on the other, else undecided. One that is
    refuted decides: the judge is not trusted. All must be met, with enough labels, for a judge to be trusted.

    Args:
        numbers: What labels show; None without a label that counts.
        trust: The requirements.
        audit: Of the same judge and rubric; None where there is none.
    """
    if numbers is None:
        whose = "people" if trust.raters == "people" else "people or models"
        sentence = f"no label by {whose}; {plural(trust.labels, 'label')} are required"
        return TrustVerdict(outcome="not enough labels", n_more=trust.labels, requirements=(sentence,))
    requirements = (*_requirements(numbers, trust), *_passes(audit, trust))
    states = {requirement.state for requirement in requirements}
    order: dict[_State, int] = {"refuted": 0, "undecided": 1, "met": 2}
    sentences = tuple(
        requirement.sentence
        for requirement in sorted(requirements, key=lambda requirement: order[requirement.state])
    )
    if "refuted" in states:
        return TrustVerdict(outcome="not trusted", requirements=sentences)
    if states == {"met"}:
        return TrustVerdict(outcome="trusted", requirements=sentences)
    undecided = [requirement for requirement in requirements if requirement.state == "undecided"]
    behind = [requirement.n_needed for requirement in undecided if not requirement.is_ahead]
    needed = min(behind) if behind else max(requirement.n_needed for requirement in undecided)
    n_more = ceil(needed) - numbers.n_labels if needed < _MAX_MORE else None
    return TrustVerdict(
        outcome="not enough labels",
        n_more=None if n_more is None else max(1, n_more),
        would_refute=bool(behind) and n_more is not None,
        requirements=sentences,
    )


def _requirements(numbers: JudgeNumbers, trust: TrustPolicy) -> Iterator[_Requirement]:
    n = numbers.n_labels
    yield _Requirement(
        "met" if n >= trust.labels else "undecided",
        trust.labels,
        is_ahead=True,
        sentence=f"{plural(n, 'label')}; at least {trust.labels:,} are required",
    )
    yield _above(
        numbers.kappa,
        trust.kappa,
        numbers,
        scale=atanh,
        sentence=f"kappa {coefficient(numbers.kappa)}; above {trust.kappa:.2f} is required",
    )
    yield _above(
        numbers.lower_recall,
        trust.lower_recall,
        numbers,
        scale=lambda share: log(share / (1 - share)),
        sentence=f"below the best letter: {rate(numbers.lower_recall)} of the items that the labels put there; above "
        f"{100 * trust.lower_recall:.0f} % is required",
    )
    for pair in numbers.differential_errors:
        yield _within(pair, trust.differential_error, numbers)


def _passes(audit: Audit | None, trust: TrustPolicy) -> Iterator[_Requirement]:
    """Require that the audit passes; labels do not decide that."""
    if trust.audit == "off" or (audit is None and trust.audit == "if given"):
        return
    if audit is None:
        yield _Requirement(
            "undecided", inf, is_ahead=True, sentence="no audit (`qaeval audit`); one that passes is required"
        )
    elif failed := audit.failed():
        yield _Requirement("refuted", 0, is_ahead=False, sentence=f"the audit fails: {listed(failed)}")
    elif audit.verdict == "trusted so far":
        yield _Requirement("met", 0, is_ahead=True, sentence=f"the audit of {audit.created[:10]} passes")
    elif trust.audit == "require":
        sentence = f"the audit of {audit.created[:10]} has not enough data; one that passes is required"
        yield _Requirement("undecided", inf, is_ahead=True, sentence=sentence)


def _above(
    measure: Measure,
    limit: float,
    numbers: JudgeNumbers,
    *,
    scale: Callable[[float], float],
    sentence: str,
) -> _Requirement:
    """Compare a measure with a lower limit; further labels narrow its interval as on the scale where it is symmetric."""
    value, low, high = measure.value, measure.low, measure.high
    if value is None or low is None or high is None:
        reason = f" ({measure.reason.replace('cluster', 'chunk')})" if measure.reason else ""
        is_ahead = value is None or value > limit
        return _Requirement(
            "undecided", _for_interval(measure, numbers), is_ahead=is_ahead, sentence=sentence + reason
        )
    is_ahead = value > limit
    if low > limit:
        return _Requirement("met", 0, is_ahead=True, sentence=sentence)
    if high < limit:
        return _Requirement("refuted", 0, is_ahead=False, sentence=sentence)
    end = low if is_ahead else high
    centre, reach, at = (_on_scale(number, scale) for number in (value, end, limit))
    return _Requirement(
        "undecided",
        _needed(numbers.n_labels, abs(centre - reach), abs(centre - at)),
        is_ahead=is_ahead,
        sentence=sentence,
    )


def _within(pair: DifferentialError, limit: float, numbers: JudgeNumbers) -> _Requirement:
    measure = pair.error
    sentence = f"favours {pair.b} over {pair.a} by {difference(measure)}; less than {size(limit)} either way is required"
    value, low, high = measure.value, measure.low, measure.high
    if value is None or low is None or high is None:
        is_ahead = value is None or abs(value) < limit
        return _Requirement(
            "undecided", _for_interval(measure, numbers), is_ahead=is_ahead, sentence=sentence
        )
    is_ahead = abs(value) < limit
    if -limit < low and high < limit:
        return _Requirement("met", 0, is_ahead=True, sentence=sentence)
    if low >= limit or high <= -limit:
        return _Requirement("refuted", 0, is_ahead=False, sentence=sentence)
    width = max(value - low, high - value)
    n_needed = _needed(numbers.n_labels, width, abs(limit - abs(value)))
    return _Requirement("undecided", n_needed, is_ahead=is_ahead, sentence=sentence)


def _on_scale(value: float, scale: Callable[[float], float]) -> float:
    """Return a value on a scale; at the ends of its range that is infinite."""
    try:
        return scale(value)
    except (ValueError, ZeroDivisionError):
        return inf if value > 0 else -inf


def _needed(n: int, half_width: float, distance: float) -> float:
    """Return how many labels put the end of an interval of 95 % beyond a limit with a probability of `_POWER`."""
    if not distance or not np.isfinite(half_width) or not np.isfinite(distance):
        return inf if not distance else n + 1.0
    z = float(ndtri(0.975))
    return n * ((z + float(ndtri(_POWER))) / z * half_width / distance) ** 2


def _for_interval(measure: Measure, numbers: JudgeNumbers) -> float:
    """Return how many labels have the chunks that the interval of a measure needs; infinite where its chunks do not tell."""
    if not 0 < measure.n_clusters < MIN_CLUSTERS:
        return inf
    return max(numbers.n_labels + 1.0, numbers.n_labels * MIN_CLUSTERS / measure.n_clusters)


def outcome_of(verdict: TrustVerdict) -> str:
    """Return an outcome in words: ``not enough labels; about 120 more labels would decide``."""
    if verdict.outcome != "not enough labels" or verdict.n_more is None:
        return verdict.outcome
    more = plural(two_digits_up(verdict.n_more), "more label")
    if verdict.would_refute:
        return f"{verdict.outcome}; at these estimates, about {more} would show that the judge is not to be trusted"
    return f"{verdict.outcome}; about {more} would decide"
