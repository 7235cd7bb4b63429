"""What a gate says, as data: ``gate.json``. JUnit, summaries and comments are views of it."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from qaeval.report.facts import Part
from qaeval.report.measure import Measure

FORMAT: Final = 1
"""Version of the document's layout."""

Verdict: TypeAlias = Literal["pass", "regression", "inconclusive"]
"""Of a rule. ``regression`` is proven at the rule's error rate, ``pass`` too; everything else is ``inconclusive``."""

Outcome: TypeAlias = Literal["pass", "regression", "inconclusive", "untrusted", "not comparable"]
"""Of a gate; see `EXIT_CODES`."""

EXIT_CODES: Final[Mapping[Outcome, int]] = {
    "pass": 0,
    "regression": 1,
    "inconclusive": 2,
    "untrusted": 3,
    "not comparable": 4,
}


class RuleVerdict(Part):
    """What one rule says of one candidate."""

    id: str
    """Unique in the gate, stable between gates of the same policy: ``usable_rate``, ``usable_rate[manual]``."""
    quantity: str
    """What the rule is about, by its name in the policy."""
    candidate: str
    """In the run."""
    against: str
    """The candidate of the baseline; empty for a limit."""
    stratum: str | None = None
    """The part of the samples that the rule is about; None for all."""
    verdict: Verdict
    baseline: Measure | None = None
    """The quantity in the baseline; None for a limit."""
    current: Measure | None = None
    """The quantity in the run."""
    change: Measure | None = None
    """Run minus baseline with the interval that decides; None for a limit."""
    margin: float | None = None
    """Largest loss that is accepted, positive, in the quantity's unit; a relative one is that share of the baseline's value."""
    limit: float | None = None
    """Of a rule without a baseline: what the quantity may not pass."""
    unit: str = ""
    """Of the quantity: empty for a share, else ``s``, ``EUR`` and so on."""
    higher_is_better: bool = True
    alpha: float
    """One-sided error rate after the correction for the number of rules: what `p_worse` may be at most for a regression. A pass
    needs no correction; the interval that decides it has the level 1 - 2 alpha of the policy."""
    p_worse: float | None = None
    """P-value of the hypothesis that nothing got worse (that the limit is kept), one-sided, before the correction."""
    power_if_equal: float | None = None
    """How probable a pass was for a run that is as good as its baseline, by the width of the interval; None for a limit."""
    n_more_chunks: int | None = None
    """Of an inconclusive rule: about so many chunks more would decide; None where more would not."""
    sentence: str
    """What is said, in words: what moved, how sure, what to do."""


class ComparisonKey(Part):
    """What two runs must have in common to be compared; hashes, and names for the reader."""

    eval: str
    eval_digest: str
    rubric: str
    rubric_digest: str
    judge: str
    judge_digest: str
    samples_digest: str
    n_samples: int


class RunIdentity(Part):
    """The run, or its baseline, as the reader is told of it."""

    name: str
    """Of the run directory or the file."""
    created: str
    """UTC, ISO 8601; empty where it is not known."""
    identity: ComparisonKey
    qaeval_version: str = ""
    git_commit: str = ""


class Certificate(Part):
    """How the judge stands."""

    state: Literal["valid", "stale", "missing", "off"]
    detail: str = ""
    """What it rests on, or what is missing and how to get it."""


class GateReport(Part):
    """The verdict of a gate with all it rests on."""

    format: int = FORMAT
    outcome: Outcome
    exit_code: int
    """After the policy's word on what CI does with an inconclusive gate."""
    headline: str
    """One sentence."""
    policy: str
    """Name or file of the policy."""
    policy_digest: str
    run: RunIdentity
    baseline: RunIdentity | None = None
    """None where every rule is a limit."""
    rules: tuple[RuleVerdict, ...]
    certificate: Certificate
    multiplicity: str
    """How the error rate holds over all rules, in words."""
    notes: tuple[str, ...] = ()
    """Warnings: a baseline that is old, samples that only one side has, drift."""
    sequential: Mapping[str, float] | None = None
    """Of a sequential gate: ``chunks_looked_at`` of ``chunks``, ``items_graded`` of ``items``, ``share_saved`` of the grading; ``power``
    and ``power_at_once`` are how often a run as good as its baseline passes, so and where everything is graded first."""
