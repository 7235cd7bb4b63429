"""Scores of the candidates by criterion, and their weighted mean: which candidate to host."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from math import inf
from types import MappingProxyType
from typing import Final

from qaeval.analysis.model import CandidateSummary
from qaeval.cost.model import CandidateCost, Choice, WeightedCriterion

WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "quality": 5.0,
        "reliability": 2.0,
        "cost": 2.0,
        "speed": 1.0,
        "licence": 1.0,
        "maintenance": 1.0,
        "sovereignty": 3.0,
    }
)
"""Default weights: a proposal, which `qaeval decide --weight` and the page override."""

_OPENNESS: Final[Mapping[str, float]] = MappingProxyType(
    {"open source": 1.0, "embedded": 1.0, "open weight": 0.5, "restricted": 0.0}
)

_MIN_CANDIDATES: Final = 2

_YEARS: Final = 3.0
"""Age of a release, in years, from which a model counts as unmaintained."""


def weigh(
    candidates: Sequence[CandidateSummary],
    costs: Sequence[CandidateCost],
    unit: str,
    external: Collection[str],
    priced_at: str,
) -> tuple[Choice, ...]:
    """Score every candidate from 0 to 1 on each criterion, the highest weighted mean first.

    ===========  =============================================================================
    quality      usable rate / the highest usable rate
    reliability  share of expected items with a letter
    cost         lowest cost of 1,000 usable items / the candidate's cost; 0 without usable items
    speed        items per second / those of the fastest candidate
    licence      open source 1, open weight 0.5, restricted 0
    maintenance  1 at the model's release, falling to 0 over three years
    sovereignty  1 if no chunk left the user's network
    ===========  =============================================================================

    A criterion that is unknown for a candidate counts for none: means over different criteria cannot be compared. Embedded
    models are left out if two other candidates exist, because nobody hosts them.

    Args:
        candidates: Of one run; fewer than two give no choice.
        costs: Costs of the candidates with a server.
        unit: Common unit of the costs.
        external: Candidates that were sent chunks outside the user's network.
        priced_at: ISO 8601; the age of a model is counted up to this time.
    """
    hosted = [candidate for candidate in candidates if not candidate.facts.is_embedded]
    candidates = hosted if len(hosted) >= _MIN_CANDIDATES else candidates
    if len(candidates) < _MIN_CANDIDATES:
        return ()
    scores = _scores(candidates, costs, unit, external, priced_at)
    complete = {name for name in WEIGHTS if all(row[name] is not None for row in scores.values())}
    choices = []
    for candidate, row in scores.items():
        criteria = tuple(
            WeightedCriterion(name=name, weight=weight, score=row[name], counts=name in complete)
            for name, weight in WEIGHTS.items()
        )
        choices.append(Choice(candidate=candidate, criteria=criteria, mean=weighted_mean(criteria)))
    return tuple(sorted(choices, key=lambda choice: -choice.mean))


def weighted_mean(criteria: Sequence[WeightedCriterion]) -> float:
    """Return the weighted mean of the scores that count; 0 if all their weights are 0."""
    counted = [
        (criterion.weight, criterion.score)
        for criterion in criteria
        if criterion.counts and criterion.score is not None
    ]
    total = sum(weight for weight, _ in counted)
    return sum(weight * score for weight, score in counted) / total if total else 0.0


def _scores(
    candidates: Sequence[CandidateSummary],
    costs: Sequence[CandidateCost],
    unit: str,
    external: Collection[str],
    priced_at: str,
) -> dict[str, dict[str, float | None]]:
    """Score candidates by criterion; None if a score is unknown."""
    best = max((candidate.usable.value or 0.0) for candidate in candidates)
    fastest = max((candidate.timing.items_per_s or 0.0) for candidate in candidates)
    prices = {
        cost.candidate: measure.value or inf  # without a usable item no price buys one
        for cost in costs
        if (measure := cost.in_unit(unit)) is not None
    }
    cheapest = min(prices.values(), default=inf)
    scores: dict[str, dict[str, float | None]] = {}
    for candidate in candidates:
        facts, per_s = candidate.facts, candidate.timing.items_per_s
        scores[facts.name] = {
            "quality": (candidate.usable.value or 0.0) / best if best else None,
            "reliability": candidate.n_graded / candidate.n_expected,
            "cost": cheapest / prices[facts.name] if facts.name in prices and cheapest < inf else None,
            "speed": per_s / fastest if per_s and fastest else None,
            "licence": _OPENNESS.get(facts.openness),
            "maintenance": _maintenance(facts.released, priced_at),
            "sovereignty": 0.0 if facts.name in external else 1.0,
        }
    return scores


def _maintenance(released: str, priced_at: str) -> float | None:
    """Score the age of a model; None if its release is unknown."""
    if not released:
        return None
    end, (year, month) = datetime.fromisoformat(priced_at), map(int, released.split("-"))
    age = (end.year - year) + (end.month - month) / 12
    return min(1.0, max(0.0, 1 - age / _YEARS))
