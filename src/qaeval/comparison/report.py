"""``report.json``: the results of a run as data. A gate reads it; markdown, page and terminal are views of it.

Two runs of the same deterministic models give the same document, apart from `run` and the objects named
`timing`. A number that does not exist is ``null`` with a reason, never NaN and never 0. Rates and differences
of rates are shares (0.05 is 5 %, or 5 points).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import Field

from qaeval.agreement.model import FurtherJudge, JudgeDiscrimination, Panel, RaterAgreement, RaterPair
from qaeval.analysis.model import (
    NOT_NAMED,
    CandidateSummary,
    EscapedText,
    FailureGroup,
    JudgeSummary,
    Sentence,
    StratumSummary,
)
from qaeval.calibration.model import Escalation, ModeAgreement, SoftGrades
from qaeval.comparison.model import Difference, LabelledRate, Noise, Rank, SampleWeights, Stopping, Verdict
from qaeval.cost.model import MeasuredRun, RunTiming
from qaeval.records import Reading, Session
from qaeval.report.facts import CheckFacts, EvalFacts, Part, RubricFacts, RunFacts, is_unset
from qaeval.report.measure import Measure

FORMAT: Final = 1
"""Version of the document's layout."""


class CheckRate(Part):
    """How often a check found something in one candidate's items."""

    candidate: str
    n_checked: int
    n_found: int
    share: Measure
    """Of the items that were checked."""
    is_frequent: bool = False
    """Whether it has findings in at least half of the items; the headline then names the check."""


class CheckExample(Part):
    """One finding of a check."""

    candidate: str
    chunk_id: str
    item_id: str
    finding: str
    question: str
    """The first 200 characters."""
    answer: str
    """The first 200 characters."""


class CheckGroup(Part):
    """What one check found."""

    check: CheckFacts
    rates: tuple[CheckRate, ...]
    """In the order of the candidates."""
    examples: tuple[CheckExample, ...]


class Selection(Part):
    """What one candidate's preference pairs are like."""

    candidate: str
    prompt_words: float | None
    """Mean; None where there is no pair."""
    chosen_words: float | None
    rejected_words: float | None
    n_without_findings: int
    """Pairs in which no check found anything."""
    n_personas: int
    """Personas with a valid pair."""
    n_personas_expected: int
    scenarios: Mapping[str, int]
    """Valid pairs by type of scenario."""
    scenarios_expected: Mapping[str, int]


class ReviewCounts(Part):
    """What there is to look at among the items; the filters of the page show the same."""

    n_chunks_different: int
    """Chunks about which the letters of the candidates differ, whatever their order."""
    n_unsure: int
    """Items to whose letter the judge gives a probability below 0.8."""
    n_mismatched: int
    """Items with a label of another letter than the judge's."""
    n_labelled: int = 0
    """Items with a letter and a label; 0 in reports of versions without the number."""
    n_lost: int
    """Expected items that failed or got no letter."""
    n_with_findings: int
    """Items in which a check found something."""


class Report(Part):
    """What a run showed."""

    format: int = FORMAT
    run: RunFacts
    verdict: Verdict = Verdict(kind="none")
    """Reports of qaeval 0.1 lack it; `report_file.load_report` then computes it from the rest of the report."""
    headline: tuple[Sentence, ...] = ()
    eval: EvalFacts
    rubric: RubricFacts
    judge: JudgeSummary
    candidates: tuple[CandidateSummary, ...] = Field(min_length=1)
    margin: float
    """Smallest difference of usable rates that matters, as a share; it decides what is enough data."""
    weights: SampleWeights | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of a run whose samples were drawn with different probabilities, by which rates and differences are weighted."""
    differences: tuple[Difference, ...]
    stopping: Stopping | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of a run until decided with more than one look; the intervals of `differences` then hold at every look."""
    ranking: tuple[Rank, ...] = ()
    """The strongest first; of three candidates or more."""
    labelled_rates: tuple[LabelledRate, ...] = ()
    """Rates by the labels of each rater, the judge's error taken off."""
    agreement: tuple[RaterAgreement, ...] = ()
    raters: tuple[RaterPair, ...] = ()
    controls: JudgeDiscrimination | None = None
    """None in reports of versions without planted controls."""
    judges: tuple[FurtherJudge, ...] = Field(default=(), exclude_if=is_unset)
    """Judges that graded the same items besides `judge`, which decides."""
    panel: Panel | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of a report by the letters of a panel."""
    escalation: Escalation | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of a run whose unsure items a second judge graded."""
    modes: ModeAgreement | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of a judge that gives the letter alone, and reasons where it is unsure."""
    soft: SoftGrades | None = Field(default=None, exclude_if=lambda value: value is None)
    """What the judge's probabilities of the letters show by labels; None without probabilities or labels."""
    strata: tuple[StratumSummary, ...] = ()
    types: tuple[StratumSummary, ...] = ()
    """By type: that a candidate gave its question, of the items that there are; of the sample where it has one, failures included."""
    failures: tuple[FailureGroup, ...] = ()
    escaped: tuple[EscapedText, ...] = Field(default=(), exclude_if=is_unset)
    """By model; of models in whose prompts something was broken."""
    checks: tuple[CheckGroup, ...] = ()
    """In the order of the eval's checks."""
    selection: tuple[Selection, ...] = ()
    """Of preference pairs."""
    noise: Noise | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of a run with repeats."""
    review: ReviewCounts | None = None
    """None in reports of versions that did not count it."""
    timing: RunTiming = RunTiming()
    data_left: tuple[str, ...] = ()
    """Hosts outside the user's network that were sent chunks; empty when nothing left."""

    def named_flaws(self) -> tuple[str, ...]:
        """Return the flaws of which some item has one, the most frequent first; empty where the judge named none."""
        totals = Counter[str]()
        for candidate in self.candidates:
            totals.update({flaw.name: flaw.n for flaw in candidate.flaws if flaw.n})
        return tuple(name for name, _ in totals.most_common() if name != NOT_NAMED)

    def usable_rates(self) -> dict[str, Measure]:
        """Return the usable rate of each candidate that costs and choice start from.

        By labels, if each candidate has labels in enough chunks for an interval; else by the judge's letters, for all of them.
        """
        by_labels: dict[str, Measure] = {}
        for labelled in self.labelled_rates:
            if labelled.name == "usable" and labelled.is_enough:
                by_labels.setdefault(labelled.candidate, labelled.rate)
        names = [candidate.facts.name for candidate in self.candidates]
        if set(by_labels) == set(names):
            return by_labels
        return {candidate.facts.name: candidate.usable for candidate in self.candidates}

    @property
    def has_labelled_rates(self) -> bool:
        """Whether `usable_rates` are by labels."""
        rates = self.usable_rates()
        return any(rates[candidate.facts.name] is not candidate.usable for candidate in self.candidates)

    def measured(
        self, sessions: Sequence[Session], readings: Sequence[Reading], *, priced_at: str
    ) -> MeasuredRun:
        """Return what the costs of the run are computed from.

        Args:
            sessions: Of the run.
            readings: Metrics of its servers.
            priced_at: ISO 8601; the age of a price is counted up to this time.
        """
        rates = self.usable_rates()
        return MeasuredRun(
            name=self.run.id,
            n_samples=self.eval.n_samples,
            candidates=tuple(
                candidate.model_copy(update={"usable": rates[candidate.facts.name]})
                for candidate in self.candidates
            ),
            judge=self.judge,
            sessions=sessions,
            readings=readings,
            priced_at=priced_at,
        )
