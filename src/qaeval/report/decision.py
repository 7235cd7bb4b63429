"""A decision as data: the document of ``qaeval decide``. What is undefined is ``null`` with a reason, never 0."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from qaeval.report.document import Choice
from qaeval.report.facts import Part
from qaeval.report.measure import Measure

FORMAT: Final = 1
"""Version of the layout of `Decision`."""


class WeightRange(Part):
    """How far the weight of one criterion can move, all others as they are, before another candidate comes first."""

    criterion: str
    weight: float
    is_given: bool
    """Whether the user gave it; else it is qaeval's proposal."""
    low: float | None
    """Below this weight `below` comes first; None where no smaller weight changes the choice."""
    below: str
    high: float | None
    """Above this weight `above` comes first; None where no larger weight changes the choice."""
    above: str


Standing: TypeAlias = Literal["stands", "open", "not known"]
"""``open``: the interval of the difference in quality holds values at which the rival comes first."""


class Rival(Part):
    """The choice against one other candidate."""

    candidate: str
    lead: float
    """Weighted mean of the choice minus the rival's."""
    needed: float | None
    """The choice stands while its usable rate minus the rival's is above this share; None where quality decides nothing."""
    difference: Measure | None
    """Usable rate of the choice minus the rival's; None where there is none."""
    standing: Standing
    reason: str | None = None
    """Why it is not known whether the choice stands."""


class LeftOut(Part):
    """A criterion that is not known for every candidate, so that nobody is weighed by it."""

    criterion: str
    weight: float
    unknown: tuple[str, ...]
    """Candidates for which it is not known."""
    could_win: tuple[str, ...]
    """Who could come first instead if it were known, at the scores that suit them best and the choice least."""


class Decision(Part):
    """What ``qaeval decide`` found."""

    format: int = FORMAT
    source: str
    """The run, or the runs."""
    choice: str | None
    """Who comes first; None where several do."""
    tied: tuple[str, ...]
    """Those that come first together; empty where one does."""
    weights: Mapping[str, float]
    candidates: tuple[Choice, ...]
    """With the weights of the user, the highest mean first."""
    ranges: tuple[WeightRange, ...]
    """Of the criteria that count; empty without a choice."""
    rivals: tuple[Rival, ...]
    """Empty without a choice."""
    left_out: tuple[LeftOut, ...]
    quality: str
    """What the report says of quality, in a sentence."""
