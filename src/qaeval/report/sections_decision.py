"""What ``qaeval decide`` says: who comes first, what that hangs on, then the numbers behind it."""

from typing import Final

from qaeval.report import numbers
from qaeval.report.decision import Decision, LeftOut, Rival, WeightRange
from qaeval.report.tables import Section, Table

_RANGES: Final = (
    "Each row moves one weight and leaves the others as they are; at its ends two candidates are tied. Computed, not searched: the "
    "lead over a rival is linear in every weight."
)
_ONCE: Final = (
    "Cost and speed were measured once and have no interval. Cost is of usable items and would move with their rate; here it is held. "
    "Licence, maintenance and sovereignty are what the registry and the run say."
)
_ALL: Final = 1.0
"""No two rates are further apart."""


def write_decision(found: Decision) -> tuple[Section, ...]:
    """Turn a decision into one section."""
    first = (
        f"{found.choice} comes first."
        if found.choice
        else f"No choice: {numbers.listed(found.tied)} are tied with these weights. Give one that tells them apart, `--weight quality=5`."
    )
    return (
        Section(
            anchor="decision",
            title=first,
            paragraphs=(
                *(_rival(one, found.choice or "") for one in found.rivals),
                *_closest(found),
                *(_left_out(one) for one in found.left_out),
                *((f"Of quality alone the report says: {found.quality}",) if found.quality else ()),
                _ONCE,
            ),
            tables=(_scores(found), *_ranges(found)),
        ),
    )


def _rival(one: Rival, choice: str) -> str:
    lead = f"It leads {one.candidate} by {numbers.decimal(one.lead)}"
    if one.needed is None:
        return f"{lead}; {one.reason}."
    if one.needed <= -_ALL:
        return f"{lead}, and would whatever the quality of both."
    apart = numbers.size(one.needed)
    condition = f"{lead}, and does as long as its usable rate is " + (
        f"more than {apart} above {one.candidate}'s"
        if one.needed > 0
        else f"less than {apart} below {one.candidate}'s"
        if one.needed < 0
        else f"above {one.candidate}'s"
    )
    if one.difference is None or one.standing == "not known":
        return (
            f"{condition}. Whether it is, is not known: {(one.reason or '').replace('clusters', 'chunks')}."
        )
    said = f"{condition}. The run says {numbers.difference(one.difference)}"
    if one.standing == "stands":
        return f"{said}: the choice stands against what is uncertain in quality."
    return f"{said}: {one.candidate} may come first. {choice} does by what was measured; more chunks would tell (`qaeval plan`)."


def _closest(found: Decision) -> tuple[str, ...]:
    """Name the weight whose smallest relative change turns the choice."""
    turns = [
        (abs(end - one.weight) / one.weight, end, to, one) for one in found.ranges for end, to in _ends(one)
    ]
    if not turns:
        return (f"No single weight changes the choice: {found.choice} stays first.",) if found.choice else ()
    share, end, to, one = min(turns, key=lambda turn: turn[0])
    side, sign = ("below", numbers.MINUS) if end < one.weight else ("above", "+")
    how_far = f"{sign}{numbers.percent(share)}" if share <= 1 else f"{_weight(end / one.weight)} times"
    text = (
        f"It hangs most on the weight of {one.criterion}: {side} {_weight(end)} instead of {_weight(one.weight)} "
        f"({how_far}) {to} comes first."
    )
    return (text,)


def _ends(one: WeightRange) -> list[tuple[float, str]]:
    ends = ((one.low, one.below), (one.high, one.above))
    return [(end, to) for end, to in ends if end is not None and one.weight]


def _left_out(one: LeftOut) -> str:
    text = f"{one.criterion} (weight {_weight(one.weight)}) is not known for {numbers.listed(one.unknown)} and is left out for everybody"
    if not one.could_win:
        return f"{text}; alone it could not change the choice."
    return f"{text}; were it known, {numbers.listed(one.could_win, 'or')} could come first."


def _scores(found: Decision) -> Table:
    criteria = found.candidates[0].criteria
    rows = [
        (
            one.name,
            _weight(one.weight) if one.counts else "left out",
            *(
                "not known"
                if choice.criteria[place].score is None
                else numbers.decimal(choice.criteria[place].score)
                for choice in found.candidates
            ),
        )
        for place, one in enumerate(criteria)
    ]
    rows.append(("weighted mean", "", *(numbers.decimal(one.mean) for one in found.candidates)))
    header = ("Criterion", "Weight", *(one.candidate for one in found.candidates))
    return Table(caption="Scores from 0 to 1", header=header, rows=tuple(rows))


def _ranges(found: Decision) -> tuple[Table, ...]:
    if not found.ranges:
        return ()
    rows = tuple(
        (
            one.criterion,
            _weight(one.weight),
            "yours" if one.is_given else "proposed",
            "0" if one.low is None else _weight(one.low),
            one.below or "–",
            "any" if one.high is None else _weight(one.high),
            one.above or "–",
        )
        for one in found.ranges
    )
    header = ("Criterion", "Weight", "Whose", "First from", "below that", "First up to", "above that")
    caption = f"How far each weight can move before {found.choice} is not first"
    return (Table(caption=caption, header=header, rows=rows, notes=(_RANGES,), words=frozenset({2, 4, 6})),)


def _weight(value: float) -> str:
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"  # noqa: PLR2004 - three digits, or all that stand before the point
