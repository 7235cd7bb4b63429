"""Analysis of a run: from its rows to its report."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from qaeval.agreement.analysis import comparable_labels, fits, judge_agreement, rater_agreement
from qaeval.agreement.discrimination import judge_discrimination, letter_counts
from qaeval.agreement.judges import compare_judges
from qaeval.agreement.model import JudgeDiscrimination, RaterAgreement
from qaeval.agreement.panel import DAWID_SKENE, summarise_panel
from qaeval.analysis.candidates import summarise_candidate, summarise_strata, summarise_types
from qaeval.analysis.failures import gather_failures
from qaeval.analysis.letters import GRADED, WAY_ON, letter_table, relative_weights
from qaeval.analysis.model import JudgeSummary
from qaeval.analysis.replies import ReplyTally, ReplyTotals, worked_s
from qaeval.analysis.server_metrics import server_span
from qaeval.calibration.analysis import soft_grades
from qaeval.calibration.cascade import mode_agreement
from qaeval.calibration.model import Escalation
from qaeval.comparison.correction import correct_differences, correct_rates
from qaeval.comparison.differences import by_doubted_judge, compare_candidates, rank_candidates
from qaeval.comparison.findings import gather_findings, near_duplicates, summarise_pairs
from qaeval.comparison.headline import write_headline
from qaeval.comparison.items import ChunkItems, count_review, gather_items
from qaeval.comparison.model import Difference, Look, SampleWeights, Stopping
from qaeval.comparison.noise import measure_noise
from qaeval.comparison.report import Report
from qaeval.comparison.until_decided import SequencePlan, at_every_look, stopping_of
from qaeval.comparison.verdict import decide_verdict
from qaeval.cost.run_cost import run_timing
from qaeval.errors import DataError
from qaeval.records import (
    Control,
    GenerateRow,
    GradeRow,
    Label,
    Reading,
    Sample,
    Session,
    failure_meaning,
    hosts_outside,
)
from qaeval.report.facts import EvalFacts, HostedFacts, MachineFacts, ModelFacts, RubricFacts, RunFacts
from qaeval.report.numbers import plural
from qaeval.stats.paired import effective_number


class Samples(Protocol):
    """Samples that can be counted, and gone through more than once."""

    def __iter__(self) -> Iterator[Sample]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class RunRows:
    """Everything that a run directory and the label files hold; the order of rows does not matter."""

    samples: Samples
    """The frozen sample set, in its order."""
    generations: Iterable[GenerateRow]
    """The last row of every generation task; gone through once by each analysis."""
    grades: Iterable[GradeRow]
    """The last row of every grading task; gone through once by each analysis."""
    further_grades: Mapping[str, Iterable[GradeRow]] = field(default_factory=dict)
    """Rows of the judges that graded besides the one that decides, by judge."""
    sessions: Sequence[Session] = field(default=())
    controls: Sequence[Control] = field(default=())
    """Planted controls; they count in no rate."""
    readings: Sequence[Reading] = field(default=())
    """What the servers said of themselves, in the order of time."""
    generation_repeats: Iterable[GenerateRow] = ()
    """Further replies to the same samples; no rate counts them."""
    grade_repeats: Iterable[GradeRow] = ()
    """Further letters for the same items, and those for the items of further replies."""
    temperatures: Mapping[str, float] = field(default_factory=dict)
    """Sampling temperature of each candidate and of the judge, by name."""
    labels: Sequence[Label] = field(default=())
    """The labels of all files; told apart by their rater."""
    label_repeats: Sequence[Label] = field(default=())
    """Second labels of the same raters; they count in nothing but the agreement of a rater with itself."""


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Rows and facts of a graded run."""

    rows: RunRows
    eval_facts: EvalFacts
    rubric: RubricFacts
    judge: ModelFacts
    candidates: tuple[ModelFacts, ...]
    """In the order of the report."""
    judge_tuned: bool = False
    """Whether the judge was tuned on labels of this eval; the labels it was tuned on are then left out."""

    further_tuned: frozenset[str] = frozenset()
    """Further judges that were tuned on labels of this eval."""

    panel: tuple[str, ...] = ()
    """Members of the panel whose letters decide; empty where a judge decides."""

    until_decided: SequencePlan | None = None
    """Of a run until decided."""

    cascade: Mapping[str, Any] | None = None
    """Settings of the judge's cascade, as JSON; None where it has one mode, and of a panel."""

    escalation: Escalation | None = None
    """Of a run whose unsure items a second judge graded."""

    run: str = "RUN"
    """Its directory, as a shell reads it; of several runs side by side a placeholder."""

    way_on: str = WAY_ON
    """What completes the run if rows are missing."""

    @property
    def tuned(self) -> frozenset[str]:
        """Judges that were tuned on labels of this eval."""
        deciding = {self.judge.name, *((DAWID_SKENE,) if self.panel else ())}
        return self.further_tuned | (deciding if self.judge_tuned else set())

    def table(self, tally: ReplyTally | None = None) -> pd.DataFrame:
        """Join the rows into the table of letters.

        Args:
            tally: Counts tokens and times of the rows on the way; None: nothing is counted.

        Raises:
            DataError: rows are missing, doubled or foreign; the message names the first three.
        """
        n_samples = self.eval_facts.n_samples
        if len(self.rows.samples) != n_samples:
            raise DataError(f"samples: expected {n_samples}, the run holds {len(self.rows.samples)}")
        counted = tally or ReplyTally()
        return letter_table(
            self.rows.samples,
            counted.generations(self.rows.generations),
            counted.grades(self.rows.grades),
            candidates=[facts.name for facts in self.candidates],
            items_per_sample=self.eval_facts.items_per_sample,
            judge=self.judge.name,
            rubric=self.rubric,
            run=self.run,
            way_on=self.way_on,
        )


@dataclass(frozen=True)
class Analysis:
    """A report, and the table of letters behind it."""

    report: Report
    table: pd.DataFrame
    rows: RunRows
    has_charts: bool = True
    """Whether charts stand beside the documents; of runs side by side nothing is written."""

    def items(self, *, max_items: int | None = None, marked: bool = False) -> tuple[ChunkItems, ...]:
        """Gather the items for reading.

        Args:
            max_items: Items of the chunks that are shown; of more, those come first in which something failed, the judge and a
                label differ, the candidates differ, or the judge is unsure. None: all.
            marked: Whether to find the parts of the chunks in which the answers stand.
        """
        rubric = self.report.rubric
        labels = [label for label in self.rows.labels if fits(label, rubric)]
        return gather_items(
            self.table,
            self.rows.samples,
            labels,
            candidates=[candidate.facts.name for candidate in self.report.candidates],
            flags=rubric.flag_names,
            max_items=max_items,
            marked=marked,
        )


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What a report needs besides the run."""

    label_paths: Sequence[Path] = ()
    """Files of labels, one or more raters each."""
    margin: float = 0.05
    """Smallest difference of usable rates that matters, in (0, 1)."""
    machines: Mapping[str, MachineFacts] = field(default_factory=dict)
    """What each model runs on, by its name; a model without an entry has no cost."""
    hosted_prices: Sequence[HostedFacts] = ()
    """Prices of hosted APIs, for a comparison with the cost of the run."""
    decide_by: str = ""
    """The judge that decides, of a run that several judges graded; default: the first."""
    panel: Sequence[str] = ()
    """Judges of whose letters the most frequent one decides, in place of `decide_by`."""
    command: str = ""
    """The command line or call that makes the report: shown where the run keeps none that wrote its rows."""


def analyse(data: RunData, run: RunFacts, options: ReportOptions) -> Analysis:
    """Analyse a finished run, or several that were joined.

    Args:
        data: Rows and facts of the run; `eval_facts.n_samples` must be the number of samples.
        run: Everything in which two equal runs may differ; its seconds are taken from the sessions.
        options: Margin, machines and prices.

    Raises:
        DataError: rows are missing, doubled or foreign; the message names the first three.
    """
    rows, rubric, judge = data.rows, data.rubric, data.judge
    names = [facts.name for facts in data.candidates]
    tally = ReplyTally()
    table = data.table(tally)
    summaries = tuple(
        summarise_candidate(
            facts,
            table[table["candidate"] == facts.name],
            tally.of("generate", facts.name),
            rows.sessions,
            readings=rows.readings,
            rubric=rubric,
            item_types=data.eval_facts.item_types,
            near=_near(table, facts.name) if data.eval_facts.item_kind == "qa_pair" else None,
        )
        for facts in data.candidates
    )
    agreement, controls = check_judge(data, table)
    differences = correct_differences(
        compare_candidates(
            table,
            candidates=names,
            best=rubric.best,
            margin=options.margin,
            is_judge_blind=controls.outcome == "tells nothing apart",
        ),
        table,
        rows.labels,
        rubric=rubric,
        margin=options.margin,
        judge_tuned=data.judge_tuned,
    )
    weights = sample_weights(rows.samples)
    differences, stopping = _until_decided(
        data,
        table,
        differences,
        margin=options.margin,
        is_judge_blind=controls.outcome == "tells nothing apart",
    )
    judge_summary = _judge(judge, rows, tally.of("grade", judge.name), tuned=data.judge_tuned)
    labelled_rates = correct_rates(
        table, rows.labels, candidates=names, rubric=rubric, judge_tuned=data.judge_tuned
    )
    n_chunks = table["cluster"].nunique()
    panel, further = None, dict(rows.further_grades)
    if data.panel:
        votes = {name: rows.further_grades[name] for name in data.panel}
        panel, probable = summarise_panel(table, votes, rows.grades, rubric)
        further |= {DAWID_SKENE: probable} if probable else {}
    verdict = decide_verdict(summaries, differences, agreement, controls, margin=options.margin)
    if not verdict.trusts_judge:
        is_refuted = verdict.reason("judge_refuted") is not None
        differences = by_doubted_judge(differences, is_refuted=is_refuted)
    labels = comparable_labels(rows.labels, rubric, judge_tuned=data.judge_tuned)
    soft = soft_grades(table, labels, letters=rubric.letters)
    checks = gather_findings(table, data.eval_facts.checks, names)
    report = Report(
        run=_run(
            run,
            rows.sessions,
            n_shared=sum(tally.of("generate", name).n_items for name in names) - judge_summary.n_asked,
        ),
        verdict=verdict,
        headline=write_headline(
            verdict,
            summaries,
            differences,
            judge_summary,
            agreement,
            controls,
            checks,
            labelled_rates,
            rubric=rubric,
            n_chunks=n_chunks,
            weights=weights,
            stopping=stopping,
        ),
        eval=data.eval_facts,
        rubric=rubric,
        judge=judge_summary,
        candidates=summaries,
        margin=options.margin,
        weights=weights,
        differences=differences,
        stopping=stopping,
        ranking=rank_candidates(table, candidates=names, best=rubric.best),
        labelled_rates=labelled_rates,
        agreement=agreement,
        raters=rater_agreement(table, rows.labels, rubric, agreement),
        judges=compare_judges(table, further, rows.labels, judge=judge.name, rubric=rubric, tuned=data.tuned),
        panel=panel,
        escalation=data.escalation,
        modes=mode_agreement(
            data.cascade,
            tally.of("grade", judge.name),
            dict(zip(table["item_id"], table["cluster"], strict=True)),
        ),
        soft=soft if soft is not None and soft.checks else None,
        strata=summarise_strata(table, candidates=names, best=rubric.best),
        types=summarise_types(table, candidates=names, best=rubric.best),
        failures=gather_failures(table, names),
        escaped=tuple(
            text
            for text in (
                *(tally.of("generate", name).escaped_text("generate", name) for name in names),
                tally.of("grade", judge.name).escaped_text("grade", judge.name),
            )
            if text is not None
        ),
        checks=checks,
        controls=controls,
        noise=measure_noise(
            table,
            rows.samples,
            rows.generation_repeats,
            rows.grade_repeats,
            candidates=names,
            judge=judge.name,
            rubric=rubric,
            temperatures=rows.temperatures,
        ),
        review=count_review(table, [label for label in rows.labels if fits(label, rubric)]),
        selection=summarise_pairs(table, rows.samples, names)
        if data.eval_facts.item_kind == "preference_pair"
        else (),
        data_left=tuple(sorted(hosts_outside(rows.sessions))),
    )
    measured = report.measured(rows.sessions, rows.readings, priced_at=run.finished)
    timing = run_timing(measured, options.machines, options.hosted_prices)
    return Analysis(report.model_copy(update={"timing": timing}), table, rows)


def sample_weights(samples: Iterable[Sample]) -> SampleWeights | None:
    """Summarise the weights of a run's samples; None where all weigh the same."""
    weights = [sample.weight for sample in samples]
    if relative_weights(weights) is None:
        return None
    return SampleWeights(
        n_samples=len(weights),
        n_effective=effective_number(weights),
        smallest=1 / max(weights),
        largest=1 / min(weights),
    )


def look_at(data: RunData, *, margin: float) -> Look:
    """Look at a run until decided: whether the letters so far decide the first place.

    Args:
        data: The run, graded as far as it was asked for.
        margin: Smallest difference of usable rates that matters, in (0, 1).

    Raises:
        DataError: rows are missing, doubled or foreign.
    """
    plan = data.until_decided
    assert plan is not None  # noqa: S101 - only such a run is looked at
    table, rubric = data.table(), data.rubric
    names = [facts.name for facts in data.candidates]
    differences = compare_candidates(table, candidates=names, best=rubric.best, margin=margin)
    corrected = correct_differences(
        differences, table, data.rows.labels, rubric=rubric, margin=margin, judge_tuned=data.judge_tuned
    )
    return _at_every_look(data, table, corrected, plan)[1][-1]


def _until_decided(
    data: RunData,
    table: pd.DataFrame,
    differences: tuple[Difference, ...],
    *,
    margin: float,
    is_judge_blind: bool,
) -> tuple[tuple[Difference, ...], Stopping | None]:
    """Return the differences of a run until decided as they hold at every look, and how it ended; of others as they are."""
    plan = data.until_decided
    if plan is None or not plan.is_sequential or not differences:
        return differences, None

    asked = plan.model_copy(update={"margin": margin})
    replaced, looks = _at_every_look(data, table, differences, asked, is_judge_blind=is_judge_blind)
    if margin != plan.margin:
        _, looks = _at_every_look(
            data, table, differences, plan
        )  # the run stopped by the margin that it began with
    stopping = stopping_of(
        plan,
        looks,
        data.rows.sessions,
        n_items=len(table),
        items_per_sample=data.eval_facts.items_per_sample,
        n_candidates=len(data.candidates),
    )
    return replaced, stopping


def _at_every_look(
    data: RunData,
    table: pd.DataFrame,
    differences: tuple[Difference, ...],
    plan: SequencePlan,
    *,
    is_judge_blind: bool = False,
) -> tuple[tuple[Difference, ...], tuple[Look, ...]]:
    return at_every_look(
        differences,
        table,
        data.rows.labels,
        plan=plan,
        candidates=[facts.name for facts in data.candidates],
        rubric=data.rubric,
        judge_tuned=data.judge_tuned,
        is_judge_blind=is_judge_blind,
    )


def check_judge(data: RunData, table: pd.DataFrame) -> tuple[tuple[RaterAgreement, ...], JudgeDiscrimination]:
    """Compare the judge of a run with each rater, and say whether it tells anything apart.

    Args:
        data: The run.
        table: Its table of letters.
    """
    name, rubric = data.judge.name, data.rubric
    agreement = judge_agreement(
        table,
        data.rows.labels,
        judge=name,
        rubric=rubric,
        judge_tuned=data.judge_tuned,
        repeats=data.rows.label_repeats,
    )
    controls = judge_discrimination(
        data.rows.controls, letter_counts(table), agreement, judge=name, best=rubric.best
    )
    return agreement, controls


def require_graded(table: pd.DataFrame, path: Path) -> None:
    """Refuse a run without a letter.

    Args:
        table: Its table of letters.
        path: The run directory, for the error.

    Raises:
        DataError: No item was graded; the message has the most frequent reason.
    """
    if (table["status"] == GRADED).any():
        return
    failures = table["failure"].value_counts()
    why = [
        f"{n:,} of {plural(int(failures.sum()), 'item')} failed as {reason}: {failure_meaning(str(reason))}"
        for reason, n in failures.head(1).items()
    ]
    raise DataError(
        f"{path}: no item was graded, so there is nothing to decide by ({'; '.join(why) or 'nothing was asked'}); "
        f"`qaeval report {path}` shows every failure"
    )


def _near(table: pd.DataFrame, candidate: str) -> int | None:
    return near_duplicates(
        table.loc[(table["candidate"] == candidate) & (table["item_id"] != ""), "question"]
    )


def _judge(facts: ModelFacts, rows: RunRows, replies: ReplyTotals, *, tuned: bool) -> JudgeSummary:
    sessions = [
        session for session in rows.sessions if (session.stage, session.model) == ("grade", facts.name)
    ]
    return JudgeSummary(
        facts=facts,
        tuned=tuned,
        n_asked=replies.n,
        n_graded=replies.n - replies.n_failed,
        tokens=replies.tokens,
        timing=replies.timing(
            sessions,
            n_items=replies.n,
            server=server_span(rows.readings, "grade", facts.name),
            alongside=any(session.alongside for session in sessions),
        ),
    )


def _run(run: RunFacts, sessions: Sequence[Session], *, n_shared: int) -> RunFacts:
    stages: dict[str, list[Session]] = {}
    for session in sessions:
        stages.setdefault(f"{session.stage} {session.model}", []).append(session)
    seconds = {name: worked_s(stage_sessions) for name, stage_sessions in stages.items()}
    return run.model_copy(
        update={"seconds": {**run.seconds, **seconds}, "n_sessions": len(sessions), "n_shared": n_shared}
    )
