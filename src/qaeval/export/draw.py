"""Items to label, drawn so that the probability of each is known: the estimates corrected by labels weigh with it."""

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Final, Generic, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from qaeval.comparison.verdict import SHOWN_FROM
from qaeval.errors import UsageError
from qaeval.records import Label, LabelPlan, record_number
from qaeval.stats.labelling import draw_chunks, inclusion_probabilities, neyman_allocation, smoothed_spread

OVERLAP: Final = 0.2
"""Share of a rater's items that another rater labels too, so that raters can be compared."""
_ITEMS: Final = 60
"""Default number of items, where items are drawn."""
_DIGITS: Final = 9
_TINY: Final = 1e-12
_Floats: TypeAlias = NDArray[np.float64]


class Drawable(Protocol):
    """What a draw reads of an item: no text."""

    @property
    def item_id(self) -> str: ...  # noqa: D102
    @property
    def chunk_id(self) -> str: ...  # noqa: D102
    @property
    def candidate(self) -> str: ...  # noqa: D102
    @property
    def letter(self) -> str: ...  # noqa: D102
    @property
    def probability(self) -> float | None: ...  # noqa: D102


_Item = TypeVar("_Item", bound=Drawable)


@dataclass(frozen=True, slots=True)
class ItemToDraw:
    """An item of a large run without its texts."""

    item_id: str
    chunk_id: str
    candidate: str
    letter: str
    probability: float | None

    @classmethod
    def of(cls, item: Drawable) -> "ItemToDraw":
        """Leave out all else."""
        return cls(
            item.item_id,
            sys.intern(item.chunk_id),
            sys.intern(item.candidate),
            sys.intern(item.letter),
            item.probability,
        )


@dataclass(frozen=True, kw_only=True)
class DrawnItems(Generic[_Item]):
    """A draw: the items, and the probability of each unit that could have been drawn."""

    unit: Literal["chunk", "item"]
    items: tuple[_Item, ...]
    """Distinct items, sorted by id."""
    probability: float
    """Of each unit that `probabilities` does not name."""
    probabilities: Mapping[str, float]


def draw_items(
    items: Sequence[_Item],
    labels: Sequence[Label],
    *,
    by: LabelPlan,
    n: int | None,
    seed: int,
    scale: Sequence[str],
    rater: str = "",
    drawn_by_others: Collection[str] = (),
    opinions: Mapping[str, Collection[str]] | None = None,
) -> DrawnItems[_Item]:
    """Draw items to label next.

    A fifth of the draw are items that others drew or labelled. Where none are known, a fifth of it is the same for all raters with the
    same `seed`, also on machines that do not see each other.

    Args:
        items: Items of the candidates, with the judge's letters.
        labels: Labels by people under the rubric of the run.
        by: How items are chosen.
        n: Items to draw, at least 1; of whole chunks, about so many, and one chunk at least. Default: chunks up to `SHOWN_FROM` in
            all, 60 items where items are drawn.
        seed: Seed of the draw.
        scale: Letters, best first.
        rater: Who labels: what the rater has labelled is not drawn again. Empty: nothing that anybody labelled is.
        drawn_by_others: Ids of items that other raters drew or labelled.
        opinions: Letters of judges and raters by item; only ``disagree`` reads them.

    Raises:
        UsageError: everything is labelled, or the run has nothing of what `by` goes by.
    """
    pool = _Pool(items, labels, scale, rater=rater, by=by)
    n_units = min(len(pool.open), pool.default_units if n is None else ceil(n / pool.mean_size))
    p = pool.probabilities(n_units, opinions or {})
    others = set(drawn_by_others)
    held = np.array([bool(others & pool.members[unit].keys()) for unit in pool.open], dtype=bool)
    blocks = pool.blocks
    own_rng = _rng(seed, rater or "sheet")
    if held.any() and not held.all():
        n_held = min(int(held.sum()), ceil(OVERLAP * n_units), n_units - 1)
        n_held = max(n_held, n_units - int((~held).sum()))
        p = p.copy()
        p[held] = _scaled(p[held], n_held)
        p[~held] = _scaled(p[~held], n_units - n_held)
        blocks = 2 * blocks + held
    if rater and not held.any():
        shared = p * ceil(OVERLAP * n_units) / n_units
        drawn = draw_chunks(shared, _rng(seed, "all raters"), blocks=blocks)
        # what is left of each unit's probability after the shared part
        rest = np.where(drawn, 0.0, (p - shared) / np.maximum(1 - shared, _TINY))
        drawn |= draw_chunks(np.minimum(rest, 1.0), own_rng, blocks=blocks)
    else:
        drawn = draw_chunks(p, own_rng, blocks=blocks)
    probabilities = {unit: float(value) for unit, value in zip(pool.open, p, strict=True)}
    probabilities |= pool.probabilities_of_labelled(p)
    default = Counter(round(value, _DIGITS) for value in probabilities.values() if value > 0).most_common(1)
    probability = default[0][0]
    chosen = [unit for unit, is_drawn in zip(pool.open, drawn, strict=True) if is_drawn]
    return DrawnItems(
        unit=pool.unit,
        items=tuple(item for unit in chosen for _, item in sorted(pool.members[unit].items())),
        probability=probability,
        probabilities={
            unit: round(value, _DIGITS)
            for unit, value in probabilities.items()
            if round(value, _DIGITS) != probability
        },
    )


class _Pool(Generic[_Item]):
    """The units that can be drawn, chunks or items, with what the draw goes by."""

    def __init__(
        self,
        items: Sequence[_Item],
        labels: Sequence[Label],
        scale: Sequence[str],
        *,
        rater: str,
        by: LabelPlan,
    ) -> None:
        several = len({item.candidate for item in items}) > 1
        self._by: LabelPlan = by if by != "plan" or several else "stratified"
        self.unit: Literal["chunk", "item"] = "chunk" if self._by in {"plan", "chunks"} else "item"
        distinct = {item.item_id: item for item in sorted(items, key=lambda item: item.candidate)}
        existing = {label.item_id: label for label in labels if not rater or label.rater == rater}
        by_unit: dict[str, dict[str, _Item]] = {}
        for item_id, item in sorted(distinct.items()):
            by_unit.setdefault(self._unit_of(item), {})[item_id] = item
        self.members = {
            unit: {item_id: item for item_id, item in members.items() if item_id not in existing}
            for unit, members in sorted(by_unit.items())
        }
        """Items of each unit that are not labelled yet."""
        self.open = [unit for unit, members in self.members.items() if members]
        if not self.open:
            who = f"{rater} has labelled every item" if rater else "every item has a label by a person"
            raise UsageError(f"{who}: there is nothing to label next")
        self._all_members = by_unit
        # a unit that the rater labelled without a known probability stands for itself alone
        self._certain = {
            unit
            for unit, members in by_unit.items()
            if not self.members[unit] and any(existing[item_id].inclusion is None for item_id in members)
        }
        self._spread_of = _letter_spreads(distinct.values(), labels, scale)
        self._strata = {
            unit: (next(iter(members.values())).candidate, next(iter(members.values())).letter)
            for unit, members in by_unit.items()
        }
        self._spreads: dict[str, float] = {}

    def _unit_of(self, item: _Item) -> str:
        return item.chunk_id if self.unit == "chunk" else item.item_id

    @property
    def mean_size(self) -> float:
        """Open items of an open unit."""
        return sum(len(self.members[unit]) for unit in self.open) / len(self.open)

    @property
    def default_units(self) -> int:
        """Units to draw where no number is given."""
        if self.unit == "item":
            return _ITEMS
        # at least one chunk more than are labelled throughout
        return max(1, SHOWN_FROM - (len(self.members) - len(self.open)))

    @property
    def blocks(self) -> NDArray[np.int64]:
        """Parts of the open units that are drawn for themselves: strata, else all together."""
        if self._by != "stratified":
            return np.zeros(len(self.open), dtype=np.int64)
        codes = {stratum: code for code, stratum in enumerate(sorted(set(self._strata.values())))}
        return np.array([codes[self._strata[unit]] for unit in self.open], dtype=np.int64)

    def probabilities(self, n: int, opinions: Mapping[str, Collection[str]]) -> _Floats:
        """Return the probability of each open unit when `n` are drawn."""
        if self._by == "stratified":
            return self._stratified(n)
        if self._by in {"chunks", "random"}:
            return np.full(len(self.open), n / len(self.open))
        if self._by == "plan":
            self._spreads = {
                unit: sqrt(
                    sum(self._spread_of[item.candidate, item.letter] ** 2 for item in members.values())
                )
                for unit, members in self._all_members.items()
            }
        else:
            measure = _unsure if self._by == "uncertain" else _disputed
            self._spreads = measure(
                {unit: members[unit] for unit, members in self._all_members.items()}, opinions
            )
        return np.asarray(inclusion_probabilities([self._spreads[unit] for unit in self.open], n))

    def _stratified(self, n: int) -> _Floats:
        strata = sorted(set(self._strata.values()))
        all_units, open_units = (
            Counter(self._strata.values()),
            Counter(self._strata[unit] for unit in self.open),
        )
        counts = neyman_allocation(
            [all_units[stratum] for stratum in strata],
            [self._spread_of[stratum] for stratum in strata],
            n,
            labelled=[all_units[stratum] - open_units[stratum] for stratum in strata],
        )
        share = {
            stratum: count / open_units[stratum] if open_units[stratum] else 1.0
            for stratum, count in zip(strata, counts.tolist(), strict=True)
        }
        return np.array([share[self._strata[unit]] for unit in self.open])

    def probabilities_of_labelled(self, p: _Floats) -> dict[str, float]:
        """Return the probability that each labelled unit would have had, so that two draws can be taken together."""
        labelled = [unit for unit in self._all_members if not self.members[unit]]
        out = dict.fromkeys(labelled, float(p.mean()))
        if self._by == "stratified":
            by_stratum = {self._strata[unit]: float(value) for unit, value in zip(self.open, p, strict=True)}
            out = {unit: by_stratum.get(self._strata[unit], 1.0) for unit in labelled}
        elif self._spreads:
            spreads = np.array([self._spreads[unit] for unit in self.open])
            order = np.argsort(spreads, kind="stable")
            out = {unit: float(np.interp(self._spreads[unit], spreads[order], p[order])) for unit in labelled}
        return out | dict.fromkeys(self._certain, 1.0)


def _letter_spreads(
    items: Iterable[Drawable], labels: Iterable[Label], scale: Sequence[str]
) -> dict[tuple[str, str], float]:
    """Return the standard deviation of a label by candidate and judge's letter."""
    strata = {item.item_id: (item.candidate, item.letter) for item in items}
    hits: Counter[tuple[str, str]] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    for label in labels:
        if (stratum := strata.get(label.item_id)) is not None:
            counts[stratum] += 1
            hits[stratum] += label.letter == scale[0]
    names = sorted(set(strata.values()))
    spreads = smoothed_spread([hits[name] for name in names], [counts[name] for name in names])
    return dict(zip(names, spreads.tolist(), strict=True))


def _unsure(items: Mapping[str, Drawable], _: Mapping[str, Collection[str]]) -> dict[str, float]:
    known = [item.probability for item in items.values() if item.probability is not None]
    if not known:
        raise UsageError(
            "the judge's letters have no probabilities (its server gives none, or its rubric derives letters from facts), so that "
            "no item is known to be uncertain; draw by plan, stratified or random"
        )
    return {
        unit: 1.0
        if not item.letter
        else 1 - (float(np.mean(known)) if item.probability is None else item.probability)
        for unit, item in items.items()
    }


def _disputed(items: Mapping[str, Drawable], opinions: Mapping[str, Collection[str]]) -> dict[str, float]:
    if not any(len(opinions.get(unit, ())) > 1 for unit in items):
        raise UsageError(
            "no item has two different letters of judges and raters; grade the run with a further judge, label some items, or draw "
            "by plan, stratified or random"
        )
    return {unit: float(len(opinions.get(unit, ())) > 1) for unit in items}


def _scaled(p: _Floats, n: int) -> _Floats:
    """Return probabilities in proportion to `p` that add up to `n`, none above 1."""
    return np.asarray(inclusion_probabilities(p, n, uniform=1e-9)) if n else np.zeros(len(p))


def _rng(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng(record_number("draw", str(seed), name))
