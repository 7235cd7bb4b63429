"""The report of a gate: ``gate.json``. JUnit, summaries and comments are views of it."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from pydantic import Field

from qaeval.agreement.model import JudgeDiscrimination
from qaeval.comparison.model import Verdict as ComparisonVerdict
from qaeval.report.facts import Part, PromptChange, is_unset
from qaeval.report.measure import Measure

FORMAT: Final = 1
"""Version of the document's layout."""

Verdict: TypeAlias = Literal["pass", "regression", "inconclusive"]
"""Verdict of a rule: ``pass`` and ``regression`` are proven at the rule's error rate, everything else is ``inconclusive``."""

Outcome: TypeAlias = Literal["pass", "regression", "inconclusive", "untrusted", "not comparable"]
"""Outcome of a gate."""

EXIT_CODES: Final[Mapping[Outcome, int]] = {
    "pass": 0,
    "regression": 1,
    "inconclusive": 2,
    "untrusted": 3,
    "not comparable": 4,
}


class RuleVerdict(Part):
    """Verdict of one rule on one candidate."""

    id: str
    """Unique in the gate, stable between gates of the same policy: ``usable_rate``, ``usable_rate[manual]``."""
    quantity: str
    """Name of the quantity in the policy."""
    candidate: str
    """Candidate of the run."""
    against: str
    """Candidate of the baseline; empty for a limit."""
    stratum: str | None = None
    """Stratum of the samples that the rule is about; None: all."""
    verdict: Verdict
    baseline: Measure | None = None
    """The quantity in the baseline; None for a limit."""
    current: Measure | None = None
    """The quantity in the run."""
    change: Measure | None = None
    """Run minus baseline with the interval that decides; None for a limit."""
    margin: float | None = None
    """Largest accepted loss, positive, in the quantity's unit; a relative margin is that share of the baseline's value."""
    limit: float | None = None
    """Limit of the quantity; None for a margin."""
    unit: str = ""
    """Unit of the quantity: empty for a share, else ``s``, ``EUR`` and so on."""
    higher_is_better: bool = True
    alpha: float
    """One-sided error rate after the correction for the number of rules: the largest `p_worse` of a regression. A pass
    needs no correction; the interval that decides it has the level 1 - 2 alpha of the policy."""
    p_worse: float | None = None
    """One-sided p-value of the hypothesis that nothing got worse (that the limit is kept), before the correction."""
    power_if_equal: float | None = None
    """Probability of a pass for a run that is as good as its baseline, by the width of the interval; None for a limit."""
    n_more_chunks: int | None = None
    """About how many more chunks would decide an inconclusive rule; None where more would not."""
    labelled_by: str = ""
    """Rater whose labels correct the quantity; empty where the judge's letters decide."""
    n_labelled_chunks: int | None = None
    """Chunks with labels of this rater, in run and baseline; None where the judge's letters decide."""
    sentence: str
    """The verdict in words: what changed, how certain that is, what to do."""


class ComparisonKey(Part):
    """Eval, rubric, judge and samples, which two runs must share to be compared; hashes, and names for the reader.

    Of the eval everything but its prompt must be the same.
    """

    eval: str
    eval_digest: str
    task_digest: str = Field(default="", exclude_if=is_unset)
    """Hash of the eval without its prompt, which belongs to the candidates; empty in baselines from before that."""
    rubric: str
    rubric_digest: str
    judge: str
    judge_digest: str
    judge_prompt: str = Field(default="", exclude_if=is_unset)
    """Hash of the judge's prompt without the rubric; empty where it is not recorded. Another one is named and is no obstacle."""
    judge_server: str = Field(default="", exclude_if=is_unset)
    """Server of the judge with its version; empty for an embedded judge, and where it is not recorded."""
    judged_digest: str = Field(default="", exclude_if=is_unset)
    """Hash of the parts of the eval that the judge's letters depend on: its name, what an item is, and what the judge sees besides."""
    samples_digest: str
    n_samples: int


class RunIdentity(Part):
    """Name, date and comparison key of a run, or of its baseline."""

    name: str
    """Name of the run directory or the file."""
    created: str
    """UTC, ISO 8601; empty where unknown."""
    identity: ComparisonKey
    qaeval_version: str = ""
    git_commit: str = ""


TrustOutcome: TypeAlias = Literal["trusted", "not trusted", "not enough labels"]
"""Whether a judge met the requirements of a policy."""


class TrustVerdict(Part):
    """What the labels of a certificate show by the requirements of a policy."""

    outcome: TrustOutcome
    n_more: int | None = None
    """Labels more that would decide, with a probability of 80 % if the numbers stay as they are; None where it is decided, or no number
    of labels would."""
    would_refute: bool = Field(default=False, exclude_if=lambda would: not would)
    """Whether these labels would refute the judge: an estimate misses its requirement."""
    requirements: tuple[str, ...]
    """A sentence for each requirement, those that are not met first."""


class Certificate(Part):
    """State of the judge's certificate."""

    state: Literal["valid", "not trusted", "not enough labels", "stale", "missing", "off"]
    """``valid``: the judge is trusted by the requirements of the policy. ``stale``: it is of another judge, or too old."""
    detail: str = ""
    """Labels that it rests on, or what is missing and how to get it."""
    verdict: TrustVerdict | None = Field(default=None, exclude_if=lambda verdict: verdict is None)
    """None without a readable certificate of the run's judge."""


class NetChange(Part):
    """Change of a candidate's usable rate, with the judge's own movement taken off."""

    candidate: str
    against: str
    """Candidate of the baseline."""
    change: float
    """Of the rate by the judge's letters, mean over the chunks."""
    net_low: float
    """Lower bound of what is left of the change by the anchors' bounds of the judge's movement."""
    net_high: float


class DriftReport(Part):
    """What the anchors of a certificate show: whether the judge moved, or a model."""

    outcome: Literal["judge moved", "model moved", "nothing", "not checked"]
    look: int = 0
    """Number of the look, from 1; the error rate of *judge moved* holds over all looks together. 0 where it is not checked."""
    n_anchors: int = 0
    """Anchors with a letter at this look."""
    n_changed: int = 0
    """Those with another letter than in the certificate."""
    change: Measure | None = None
    """Share of the best letter at this look minus that at the certificate; with bounds by betting."""
    candidates: tuple[NetChange, ...] = Field(default=(), exclude_if=is_unset)
    sentence: str


class GateReport(Part):
    """Outcome of a gate, with the rules, runs and policy behind it."""

    format: int = FORMAT
    outcome: Outcome
    exit_code: int
    """Exit code of `outcome`, or 0 where the policy lets an inconclusive gate pass."""
    headline: str
    """One sentence."""
    caution: str = Field(default="", exclude_if=is_unset)
    """What a pass is worth where the letters decide it and no labels validate the judge; else empty."""
    policy: str
    """Name or file of the policy."""
    policy_digest: str
    run: RunIdentity
    baseline: RunIdentity | None = None
    """None where every rule is a limit."""
    rules: tuple[RuleVerdict, ...]
    certificate: Certificate
    drift: DriftReport | None = Field(default=None, exclude_if=lambda drift: drift is None)
    """None where the policy does not ask for it."""
    verdict: ComparisonVerdict | None = None
    """Verdict of the comparison in the run's ``report.json``; None where the run has no report, or one by another judge's letters."""
    controls: JudgeDiscrimination | None = None
    """Whether the run's judge tells anything apart: by planted controls, labels, or its letters alone."""
    multiplicity: str
    """How the error rates hold over all rules, in words."""
    prompts: tuple[PromptChange, ...] = Field(default=(), exclude_if=is_unset)
    """Candidates whose prompt differs from that of their counterpart in the baseline."""
    notes: tuple[str, ...] = ()
    """Warnings: an old baseline, candidates that are not compared, other letters for the same items."""
    sequential: Mapping[str, float] | None = None
    """Of a sequential gate: ``chunks_looked_at`` of ``chunks``, ``items_graded`` of ``items``, ``share_saved`` of the grading; ``power``
    is the share of such gates in which a run as good as its baseline passes, ``power_at_once`` the share where everything is graded
    first."""
