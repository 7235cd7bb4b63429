"""Which candidate to host, by everything that a run knows of it and by how much each of that counts."""

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
"""How much each criterion counts where nobody says otherwise; the page lets its reader change them."""

_OPENNESS: Final[Mapping[str, float]] = MappingProxyType(
    {"open source": 1.0, "embedded": 1.0, "open weight": 0.5, "restricted": 0.0}
)


_SEVERAL: Final = 2
"""One is no choice."""

_YEARS: Final = 3.0
"""A model released this long ago counts as no longer looked after."""


def weigh(
    candidates: Sequence[CandidateSummary],
    costs: Sequence[CandidateCost],
    unit: str,
    external: Collection[str],
    finished: str,
) -> tuple[Choice, ...]:
    """Score every candidate from 0 to 1 on each criterion, the highest weighted mean first.

    quality: usable rate, as a share of the best candidate's · reliability: share of expected items that came and got a
    letter · cost: of the cheapest for 1,000 usable items, as a share of the candidate's, 0 where none is usable · speed: items per second, as a
    share of the fastest · licence: open source 1, open weight 0.5, restricted 0 · maintenance: 1 at the model's release,
    falling to 0 over three years · sovereignty: 1 where nothing left the user's network. A criterion that is not known
    for every candidate is left out of all means, and said: means over different criteria could not be compared. Embedded
    models, which nobody hosts, are left out where two others are there.

    Args:
        candidates: Of one run; fewer than two leave nothing to choose.
        costs: Of those that have one.
        unit: What costs can be compared in.
        external: Candidates that were sent chunks outside the user's network.
        finished: End of the run, ISO 8601.
    """
    hosted = [candidate for candidate in candidates if not candidate.facts.is_embedded]
    candidates = hosted if len(hosted) >= _SEVERAL else candidates
    if len(candidates) < _SEVERAL:
        return ()
    best = max((candidate.usable.value or 0.0) for candidate in candidates)
    fastest = max((candidate.timing.items_per_s or 0.0) for candidate in candidates)
    prices = {
        cost.candidate: value.value or inf  # no usable item at any price
        for cost in costs
        if (value := cost.in_unit(unit)) is not None
    }
    cheapest = min(prices.values(), default=inf)
    scores = {
        candidate.facts.name: {
            "quality": (candidate.usable.value or 0.0) / best if best else None,
            "reliability": candidate.n_graded / candidate.n_expected,
            "cost": cheapest / prices[candidate.facts.name]
            if candidate.facts.name in prices and cheapest < inf
            else None,
            "speed": candidate.timing.items_per_s / fastest
            if candidate.timing.items_per_s and fastest
            else None,
            "licence": _OPENNESS.get(candidate.facts.openness),
            "maintenance": _maintenance(candidate.facts.released, finished),
            "sovereignty": 0.0 if candidate.facts.name in external else 1.0,
        }
        for candidate in candidates
    }
    counting = {
        name
        for name in WEIGHTS
        if all(candidate_scores[name] is not None for candidate_scores in scores.values())
    }
    choices = []
    for candidate, candidate_scores in scores.items():
        criteria = tuple(
            WeightedCriterion(name=name, weight=weight, score=candidate_scores[name], counts=name in counting)
            for name, weight in WEIGHTS.items()
        )
        choices.append(Choice(candidate=candidate, criteria=criteria, mean=_mean(criteria)))
    return tuple(sorted(choices, key=lambda choice: -choice.mean))


def _maintenance(released: str, finished: str) -> float | None:
    """Score the age of a model; None where its release is not known."""
    if not released:
        return None
    end, (year, month) = datetime.fromisoformat(finished), map(int, released.split("-"))
    age = (end.year - year) + (end.month - month) / 12
    return min(1.0, max(0.0, 1 - age / _YEARS))


def _mean(criteria: Sequence[WeightedCriterion]) -> float:
    weighted = [
        (criterion.weight, criterion.score)
        for criterion in criteria
        if criterion.counts and criterion.score is not None
    ]
    total = sum(weight for weight, _ in weighted)
    return sum(weight * score for weight, score in weighted) / total if total else 0.0
