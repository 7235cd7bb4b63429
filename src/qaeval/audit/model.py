"""The document of an audit: ``audit.json``. Terminal, page and Markdown are views of it."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from pydantic import Field

from qaeval.report.facts import Part, is_unset
from qaeval.report.measure import Measure

FORMAT: Final = 1
"""Version of the document's layout."""

ProbeVerdict: TypeAlias = Literal["pass", "fail", "not enough data", "not applicable"]
"""``pass``: the interval is within the tolerance; ``fail``: it is beyond it; ``not enough data``: it holds the tolerance, or there
is no interval; ``not applicable``: the judge or the eval has nothing that the probe could change."""

AuditVerdict: TypeAlias = Literal["trusted so far", "not trusted", "not enough data"]
"""``not trusted``: some probe fails; ``not enough data``: none fails, and what is required is not shown."""

EXIT_CODES: Final[Mapping[AuditVerdict, int]] = {"trusted so far": 0, "not enough data": 2, "not trusted": 3}
"""Those of a gate: 0 pass, 2 inconclusive, 3 untrusted judge."""

GoodSource: TypeAlias = Literal["labels", "expected answers", "statements"]
"""Where good items come from: labelled with the best letter, the expected answers of the eval's samples, or statements that are
quoted from its chunks."""

ProbeName: TypeAlias = Literal[
    "good items",
    "detection",
    "false alarms",
    "repeat",
    "temperature 0",
    "drift",
    "order of levels",
    "order of examples",
    "letters renamed",
    "wordings",
    "translated rubric",
    "length",
    "chunk position",
    "name leakage",
    "self-preference",
    "injection",
    "pair order",
]
"""A question to the judge; docs/audit.md has what each does."""


class KindResult(Part):
    """What the judge made of one kind of planted items."""

    kind: str
    """A defect or a harmless change; `qaeval.text.defects.VARIANTS` has the meanings."""
    meaning: str
    is_defect: bool
    n: int
    """Variants that the judge graded, each beside its original."""
    n_ungraded: int = 0
    """Variants without a letter, or whose original has none."""
    lowered: Measure
    """Share with a lower letter than the original: of a defect the detection, of a harmless change the false alarms."""
    worst: Measure
    """Share with the worst letter."""
    flagged: Measure | None = None
    """Share with a flag of the rubric; None where it has none."""
    tolerance: float
    """Smallest detection, or largest share of false alarms, that passes."""
    verdict: ProbeVerdict


class ProbeResult(Part):
    """Result of one probe."""

    probe: ProbeName
    verdict: ProbeVerdict
    effect: Measure | None = None
    """None where the probe was not applied."""
    unit: Literal["share", "points", "agreement"] = "share"
    """``share``: a rate in [0, 1]; ``points``: a difference of rates or scores in [-1, 1]; ``agreement``: a rate of equal letters."""
    quantity: str = ""
    """What the effect is, in words."""
    limit: Literal["at least", "at most", "within"] = "at most"
    """How effect and tolerance are compared; ``within``: both signs count."""
    tolerance: float
    n_failed: int = 0
    """Requests without a letter."""
    details: Mapping[str, Measure] = Field(default_factory=dict)
    """Parts of the effect, by name: each wording, kind of attack, family."""
    sentence: str
    """The result in words."""


class Component(Part):
    """A source of the spread of the letters, with its share of the variance."""

    source: Literal["chunk", "item", "wording", "repeat"]
    variance: Measure
    share: Measure


class Separation(Part):
    """Mean score of good items minus that of the same items with a defect, under one wording of the rubric or in one repeat."""

    setting: str
    difference: Measure


class Stability(Part):
    """Whether the judge's verdict, that defective items are worse, holds under other wordings and repeats."""

    separations: tuple[Separation, ...]
    low: float | None
    """Smallest of the differences."""
    high: float | None
    """Largest of the differences."""
    keeps_sign: bool | None
    """Whether all have one sign; None where one is undefined."""
    components: tuple[Component, ...] = ()
    """Variance components of the scores; empty where nothing was repeated."""


class AuditRequest(Part):
    """What was audited, with hashes that a certificate can compare."""

    eval: str
    eval_digest: str
    judge: str
    judge_digest: str
    """As in a gate's comparison key."""
    judge_prompt: str = Field(default="", exclude_if=is_unset)
    """Hash of the judge's prompt without the rubric; empty for a judge that reads none."""
    rubric: str
    rubric_digest: str
    seed: int
    temperature: float
    """Of the judge in the run's settings."""


class Audit(Part):
    """The document of an audit."""

    format: Literal[1] = 1
    request: AuditRequest
    verdict: AuditVerdict
    reasons: tuple[str, ...]
    """Why, one sentence each: the probes that fail, or those that lack data."""
    good_sources: Mapping[GoodSource, int]
    """Good items of each source."""
    n_good: int
    n_chunks: int
    """Chunks of the good items."""
    n_requests: int
    n_failed: int = 0
    """Requests without a letter."""
    kinds: tuple[KindResult, ...]
    probes: tuple[ProbeResult, ...]
    stability: Stability | None = None
    """None where too few letters were given."""
    raters: tuple[str, ...] = ()
    """Raters whose labels chose the good items; empty without labels."""
    n_checked: int = Field(default=0, exclude_if=is_unset)
    """Planted items that people labelled."""
    n_refuted: int = Field(default=0, exclude_if=is_unset)
    """Of these, defects that got the best letter and harmless changes that did not; they count in nothing."""
    checked_by: tuple[str, ...] = Field(default=(), exclude_if=is_unset)
    """Raters of the planted items."""
    created: str
    """UTC, ISO 8601."""
    qaeval_version: str
    git_commit: str = Field(default="", exclude_if=is_unset)

    @property
    def exit_code(self) -> int:
        """Exit code of the command."""
        return EXIT_CODES[self.verdict]

    def failed(self) -> tuple[str, ...]:
        """Return the names of the kinds and probes that fail."""
        kinds = (kind.kind for kind in self.kinds if kind.verdict == "fail")
        return (*kinds, *(probe.probe for probe in self.probes if probe.verdict == "fail"))
