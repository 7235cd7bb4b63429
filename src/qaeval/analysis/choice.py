"""Which candidate to host, by everything that a run knows of it and by how much each of that counts."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from qaeval.report.document import CandidateSummary, Choice, Criterion

WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(
    {"quality": 5.0, "reliability": 2.0, "speed": 1.0, "licence": 1.0, "sovereignty": 3.0}
)
"""How much each criterion counts where nobody says otherwise; the page lets its reader change them."""

_OPENNESS: Final[Mapping[str, float]] = MappingProxyType(
    {"open source": 1.0, "embedded": 1.0, "open weight": 0.5, "restricted": 0.0}
)


def weigh(candidates: Sequence[CandidateSummary], external: Collection[str]) -> tuple[Choice, ...]:
    """Score every candidate from 0 to 1 on each criterion, the highest weighted mean first.

    quality: usable rate, as a share of the best candidate's · reliability: share of expected items that came and got a
    letter · speed: items per second, as a share of the fastest · licence: open source 1, open weight 0.5, restricted
    0 · sovereignty: 1 where nothing left the user's network. A criterion that is not known for a candidate is left out
    of its mean, and said.

    Args:
        candidates: Of one run; fewer than two leave nothing to choose.
        external: Candidates that were sent chunks outside the user's network.
    """
    if len(candidates) < 2:  # noqa: PLR2004 - one is no choice
        return ()
    best = max((one.usable.value or 0.0) for one in candidates)
    fastest = max((one.timing.items_per_s or 0.0) for one in candidates)
    choices = []
    for one in candidates:
        scores = {
            "quality": (one.usable.value or 0.0) / best if best else None,
            "reliability": one.n_graded / one.n_expected,
            "speed": one.timing.items_per_s / fastest if one.timing.items_per_s and fastest else None,
            "licence": _OPENNESS.get(one.facts.openness),
            "sovereignty": 0.0 if one.facts.name in external else 1.0,
        }
        criteria = tuple(
            Criterion(name=name, weight=weight, score=scores[name]) for name, weight in WEIGHTS.items()
        )
        choices.append(Choice(candidate=one.facts.name, criteria=criteria, mean=_mean(criteria)))
    return tuple(sorted(choices, key=lambda choice: -choice.mean))


def _mean(criteria: Sequence[Criterion]) -> float:
    known = [(one.weight, one.score) for one in criteria if one.score is not None]
    total = sum(weight for weight, _ in known)
    return sum(weight * score for weight, score in known) / total if total else 0.0
