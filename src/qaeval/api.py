"""The Python API: what the commands do, for scripts, notebooks and pipelines.

::

    import qaeval

    run = qaeval.compare(["mistral", "qwen"], n=100)
    run.report.headline[0].text
    run.letters.groupby("candidate")["letter"].value_counts()
    run.agreement(labels="labels/anna.csv")
    qaeval.gate(run, baseline="baselines/qa_pairs.json").outcome

Every function has an async twin (`acompare`, `agenerate`, ...). The blocking form works in a notebook cell too, on a thread of its
own. Nothing is printed and nothing exits: warnings go to the logger ``qaeval``, progress to a callback, and what the user can
correct is raised as a `qaeval.errors.QaevalError`.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import pandas as pd

from qaeval import labelling
from qaeval.agreement.analysis import comparable_labels, fits, report_of_run
from qaeval.agreement.label_files import read_labels, read_rater_rows
from qaeval.agreement.model import AgreementReport
from qaeval.agreement.panel import checked_panel
from qaeval.agreement.reference import reference_letters
from qaeval.agreement.sources import agreement_of_table, read_table
from qaeval.analysis.letters import fact_column, flag_column, relative_weights
from qaeval.audit.run import load_audit
from qaeval.blocking import awaitable, blocking, stoppable
from qaeval.comparison.analysis import Analysis, ReportOptions, look_at
from qaeval.comparison.html import PageLinks
from qaeval.comparison.model import Look
from qaeval.comparison.overview import build_overview
from qaeval.comparison.report import Report
from qaeval.comparison.run_data import (
    GROUPS,
    decider,
    labels_of_run,
    labels_of_runs,
    read_run,
    require_labels,
    rubric_facts,
)
from qaeval.comparison.write_report import Format, read_report, render, render_page, write_report
from qaeval.corpus.loading import DuplicateIds
from qaeval.corpus.samples import load_samples
from qaeval.corpus.sampling import Allocation
from qaeval.distributed.blocks import BLOCK_SIZE, MAX_BLOCK_SIZE
from qaeval.distributed.driver import RayOptions, compare_on_ray, remove_blocks, stage_limits
from qaeval.distributed.inputs import chunk_file
from qaeval.environment import cache_folder, new_run_name
from qaeval.errors import DataError, EndpointError, QaevalError, ResumeNote, UsageError
from qaeval.evals.find import find_eval
from qaeval.evals.rubric import Rubric, prompt_text, shown_mode
from qaeval.files.yaml import validated
from qaeval.gate.anchors import AnchorFiles, store_anchors
from qaeval.gate.baseline import EvidenceReader
from qaeval.gate.certificate import JudgeCertificate, certificate_path
from qaeval.gate.certify import find_labelled, issue, require_admitted, write_items
from qaeval.gate.decide import POLICY, GateRequest
from qaeval.gate.decide import gate as decide_gate
from qaeval.gate.model import GateReport
from qaeval.gate.policy import Policy, TrustPolicy, read_policy
from qaeval.importing.request import make_request
from qaeval.importing.run import import_run
from qaeval.labelling import LabelStatus
from qaeval.records import TRANSIENT_REASONS, Failure, FailureReason, GenerateRow, GradeRow, LabelPlan
from qaeval.registry.config import Config, JudgeMode
from qaeval.registry.find import find_config, find_hosted, find_machines
from qaeval.registry.numbers import checked_seed
from qaeval.report.facts import MachineFacts
from qaeval.report.numbers import plural, rate
from qaeval.run.batches import Batches, require_same_ending, take_turns
from qaeval.run.consent import (
    Consent,
    chunks_of_items,
    consented,
    expected_chunks,
    grading_disclosure,
    judging_with_consent,
    plan_with_consent,
)
from qaeval.run.escalate import EscalationRequest
from qaeval.run.escalate import escalate as escalate_items
from qaeval.run.estimate import WorkEstimate
from qaeval.run.grade import SAMPLING
from qaeval.run.metrics_port import Metered, metrics_served
from qaeval.run.plan import (
    Judging,
    Plan,
    control_settings,
    find_judging,
    is_related,
    judging_of_run,
    make_plan,
    recorded_candidates,
)
from qaeval.run.repeats import checked_repeats
from qaeval.run.runner import Runner
from qaeval.run.session import HOSTED_CONCURRENCY
from qaeval.run.watch import Progress
from qaeval.serving.exporter import Exporter
from qaeval.storage.location import find_location
from qaeval.storage.run_directory import GENERATIONS, SETTINGS, RunStore
from qaeval.storage.runs import RESULTS, find_unfinished, list_runs
from qaeval.storage.shards import CommittedShard, Shard, begin, commit
from qaeval.text.margins import parse_margin

__all__ = [
    "AgreementReport",
    "GateReport",
    "JudgeCertificate",
    "LabelStatus",
    "ProgressEvent",
    "Report",
    "Run",
    "aagreement",
    "acertify",
    "acompare",
    "agate",
    "agenerate",
    "agrade",
    "agreement",
    "aimport_items",
    "alabel_status",
    "aload_run",
    "certify",
    "compare",
    "gate",
    "generate",
    "grade",
    "import_items",
    "label_by_model",
    "label_status",
    "load_run",
]

PathArgument: TypeAlias = str | PathLike[str]
Paths: TypeAlias = PathArgument | Iterable[PathArgument]
Backend: TypeAlias = Literal["local", "ray"]
"""Who sends the requests of a run: this process, or actors on a Ray cluster."""
Concurrency: TypeAlias = int | Literal["auto"]

_LOG: Final = logging.getLogger("qaeval")
_KEYS: Final = ("candidate", "sample_id", "chunk_id", "stratum", "type", "position", "item_id")
_TEXTS: Final = ("question", "answer", "rejected", "reason", "findings")


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """One finished task of a stage; its row is on disk."""

    stage: str
    """``generate``, ``grade``, or one of these with `` repeats``."""
    model: str
    done: int
    """Tasks of the stage that are finished, those of earlier sessions included."""
    total: int
    """Tasks of the stage, known at its beginning. An item that is never written counts as graded."""
    failed: int
    """Failed tasks of this session."""


ProgressCallback: TypeAlias = Callable[[ProgressEvent], None]
Confirm: TypeAlias = Callable[["RunEstimate"], None]


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """What a run takes at most, from a probe of five samples."""

    text: str
    """Requests, tokens, time and money in one sentence."""
    minutes: float
    """Wall time of the whole run."""
    limit_minutes: float
    """Minutes above which the command line asks: ``defaults.confirm_minutes`` of the registry."""


class Run:
    """A run directory, or several side by side, and what they show. Statistics are computed at the first access.

    Attributes:
        paths: The run directories.
    """

    def __init__(
        self, paths: Sequence[Path], options: ReportOptions, analysis: Analysis | None = None
    ) -> None:
        self.paths = tuple(paths)
        self._options = options
        if analysis is not None:
            self.__dict__["_analysis"] = analysis

    def __repr__(self) -> str:
        return f"Run({', '.join(map(repr, map(str, self.paths)))})"

    @property
    def path(self) -> Path:
        """The run directory; of several side by side the first."""
        return self.paths[0]

    @cached_property
    def _analysis(self) -> Analysis:
        with ExitStack() as stack:
            stores = [stack.enter_context(RunStore.open(path)) for path in self.paths]
            return read_report(stores, self._options)

    @property
    def report(self) -> Report:
        """The report as a typed document: headline, candidates, differences, agreement, failures, cost.

        Raises:
            DataError: The run is not graded to its end, or a label file is not readable.
            NotComparableError: Several runs differ in more than their candidates.
        """
        return self._analysis.report

    @cached_property
    def letters(self) -> pd.DataFrame:
        """One row per expected item of each candidate, failures included.

        ===================  ======================================================================================
        ``candidate``        name of the candidate
        ``sample_id``        id of the sample
        ``chunk_id``         the chunk: items of one chunk are dependent, intervals are clustered by it
        ``stratum``          of the sample
        ``type``             of the item; empty where there is none
        ``position``         place in the reply, from 0
        ``item_id``          id of the item, by its content; empty where generation failed
        ``weight``           of the sample, mean 1; only in a run of samples that were drawn with different probabilities
        ``status``           ``graded``, ``ungraded`` (the judge gave no letter) or ``failed`` (there is no item)
        ``letter``           the judge's letter; empty unless graded
        ``probability``      the judge's probability of its letter, in [0, 1]; NaN where the server gives none
        ``failure``          reason of a failure, empty when graded
        ``flaw``             the flaw of the rubric that the judge names; empty for the best letter
        ``flag <name>``      bool, one column per flag of the rubric
        ``fact <name>``      the judge's answer, one column per fact of a rubric that has some
        ``label <rater>``    one column per rater with labels: the letter, empty where the rater gave none
        ===================  ======================================================================================

        Raises:
            DataError: As for `report`.
        """
        analysis = self._analysis
        rubric = analysis.report.rubric
        added = [flag_column(name) for name in rubric.flag_names]
        added += [fact_column(fact.name) for fact in rubric.facts]
        table = analysis.table.rename(columns={"cluster": "chunk_id", "sure": "probability"})
        weight = ["weight"] if "weight" in table else []
        letters = table[
            [*_KEYS, *weight, "status", "letter", "probability", "failure", "flaw", *added]
        ].copy()
        by_rater: dict[str, dict[str, str]] = {}
        for label in analysis.rows.labels:
            if fits(label, rubric):
                by_rater.setdefault(label.rater, {})[label.item_id] = label.letter
        for rater, given in sorted(by_rater.items()):
            letters[f"label {rater}"] = letters["item_id"].map(given).fillna("")
        return letters.reset_index(drop=True)

    @cached_property
    def items(self) -> pd.DataFrame:
        """The texts behind `letters`, row for row: its keys, ``status`` and ``letter``, and these.

        ==============  ==========================================================================================
        ``question``    empty where generation failed; so is ``answer``
        ``answer``      of a preference pair the chosen answer
        ``rejected``    of a preference pair the rejected answer, else empty
        ``reason``      the judge's reason; of a failure what went wrong
        ``findings``    what the eval's checks found: a dict from check to text, empty where nothing
        ==============  ==========================================================================================

        Raises:
            DataError: As for `report`.
        """
        table = self._analysis.table.rename(columns={"cluster": "chunk_id", "why": "reason"})
        items = table[[*_KEYS, "status", "letter", *_TEXTS]].copy()
        items["reason"] = items["reason"].where(items["status"] == "graded", table["detail"])
        items["findings"] = items["findings"].map(lambda value: value if isinstance(value, dict) else {})
        return items.reset_index(drop=True)

    def agreement(self, labels: Paths | None = None, *, by: str = "") -> AgreementReport:
        """Compare the judge with labels, and the raters with each other.

        Args:
            labels: Label files; default: those the run was loaded with.
            by: Also by ``"candidate"``, ``"stratum"`` or ``"type"``.

        Raises:
            UsageError: `by` is none of these.
            DataError: There are no labels, or one of them is not readable, doubled or off the scale.
        """
        if by and by not in GROUPS:
            raise UsageError(f"by: expected {', '.join(GROUPS)}, got {by!r}")
        analysis = self._analysis
        report = analysis.report
        rows, repeats = analysis.rows.labels, analysis.rows.label_repeats
        if labels is not None:
            files = [read_rater_rows(path) for path in _paths(labels)]
            rows = tuple(label for file in files for label in file.labels)
            repeats = tuple(label for file in files for label in file.repeats)
        return report_of_run(
            analysis.table,
            rows,
            repeats=repeats,
            source=", ".join(map(str, self.paths)),
            judge=report.judge.facts.name,
            rubric=report.rubric,
            judge_tuned=report.judge.tuned,
            by=by,
        )

    def render(self, format_: Format) -> str:
        """Render the report: ``"html"`` (one self-contained page), ``"md"``, ``"json"``, or ``"csv"`` with a row per item.

        Raises:
            UsageError: The format is none of these.
            DataError: As for `report`.
        """
        if format_ not in {"html", "md", "json", "csv"}:
            raise UsageError(f"format: expected html, md, json or csv, got {format_!r}")
        return render(self._analysis, format_)

    def to_html(self) -> str:
        """Render the whole report as one self-contained HTML page that loads nothing.

        Raises:
            DataError: As for `report`.
        """
        return self.render("html")

    def write_report(self) -> Path:
        """Write report.json, report.md, report.html and the manifest into the run directory; return its path.

        Raises:
            UsageError: There are several runs side by side.
            DataError: As for `report`.
            StoreError: The directory cannot be written, or another process writes it.
        """
        if len(self.paths) > 1:
            raise UsageError(
                "several runs side by side have no directory to write a report into; use render()"
            )
        with RunStore.open(self.path, writable=True) as store:
            self.__dict__["_analysis"] = write_report(store, self._options)
        for name in ("letters", "items"):
            self.__dict__.pop(name, None)
        return self.path

    def _repr_html_(self) -> str:
        """Show the verdict and the candidates in a notebook; of a run without letters its path."""
        try:
            screen = build_overview(self.report)
        except QaevalError as error:
            return f"<p>{escape(repr(self))}: {escape(str(error))}</p>"
        rows = "".join(
            f"<tr><td>{escape(candidate.name)}</td><td>{escape(rate(candidate.rate))}</td>"
            f"<td>{escape(' · '.join(f'{fact.value} {fact.unit}' for fact in candidate.facts))}</td></tr>"
            for candidate in screen.candidates
        )
        badges = "".join(f"<li>{escape(f'{badge.title}: {badge.text}')}</li>" for badge in screen.badges)
        return (
            f"<p><strong>{escape(screen.verdict)}</strong> {escape(f'{screen.number} {screen.gap}'.strip())}</p>"
            f"<table><thead><tr><th>candidate</th><th>usable</th><th></th></tr></thead><tbody>{rows}</tbody></table>"
            f"<ul>{badges}</ul>"
        )


@blocking
def compare(
    models: str | Sequence[str],
    *,
    prompts: Paths | None = None,
    eval_name: PathArgument | None = None,
    chunks: PathArgument | None = None,
    samples: PathArgument | None = None,
    fields: Mapping[str, str] | None = None,
    duplicate_ids: DuplicateIds = "refuse",
    judge: str | None = None,
    judge_mode: JudgeMode | None = None,
    reasons_below: float | None = None,
    reasons_for: Sequence[str] | None = None,
    panel: Sequence[str] | None = None,
    escalate: str | None = None,
    escalate_error: float = 0.1,
    escalate_below: float | None = None,
    rubric: PathArgument | None = None,
    allow_same_family: bool = False,
    n: int | None = None,
    seed: int | None = None,
    allocation: Allocation = "proportional",
    out: PathArgument | None = None,
    resume: bool = False,
    endpoints: Mapping[str, str] | None = None,
    config: PathArgument | None = None,
    concurrency: Concurrency | None = None,
    cache: bool = True,
    controls: bool = True,
    repeat: int | None = None,
    repeat_judge: int | None = None,
    labels: Paths | None = None,
    margin: float | str | None = None,
    until_decided: bool | None = None,
    hardware: str | None = None,
    metrics_port: int | None = None,
    metrics_host: str | None = None,
    backend: Backend = "local",
    ray_address: str | None = None,
    ray_store: PathArgument | None = None,
    ray_block: int = BLOCK_SIZE,
    progress: ProgressCallback | Progress | None = None,
    confirm: Confirm | None = None,
    consent: Consent = (),
    command: str | None = None,
) -> Run:
    """Generate, grade and report: all models on the same samples. One model alone is evaluated without a comparison.

    Args:
        models: Names of models in the registry (``qaeval models`` lists them).
        prompts: Prompt files, by path or by name in the eval's folder: each model is a candidate with each of them,
            ``mistral@better``; default: the eval's prompt.
        eval_name: Name or folder of the eval; default: that of the registry.
        chunks: File of your own chunks, in place of the eval's: JSONL or Parquet, on this disk or ``s3://BUCKET/KEY``.
        samples: JSONL file of your own questions or topic cards, for evals that start from these.
        fields: Names of the chunk file's fields, for example ``{"text": "body"}``; common names are recognised.
        duplicate_ids: What becomes of two chunks with one id: ``"refuse"``, or ``"number"`` the later ones.
        judge: Judge in the registry; default: the registry's first one that is of no candidate's family.
        judge_mode: What judges are asked for: ``"reason_first"``, ``"letter"`` (the letter alone), or ``"cascade"`` (the letter alone,
            then reasons for items of which the judge is unsure); default: that of the judge's entry.
        reasons_below: With a cascade: probability of the letter below which reasons are asked for, in (0, 1]; default: that of the
            entry, 0.9.
        reasons_for: With a cascade: letters for which reasons are always asked for; default: those of the entry, none.
        panel: Judges that grade, in place of `judge`: an odd number, at least 3. The first is the judge of the run, the others
            grade after it, and the report is by the letter of most members.
        escalate: Second judge, which grades the items of which the first is unsure or which are disputed; the letters of both together
            are those of the judge ``first+second``. By labels the threshold keeps the promise of `escalate_error`.
        escalate_error: Largest share of wrong letters of the first judge among those that are kept, in (0, 1).
        escalate_below: Probability of the letter below which an item goes on, in place of a threshold by labels.
        rubric: Name or file of the rubric; default: the eval's.
        allow_same_family: Whether the judge may be of a candidate's family; the report says so.
        n: Number of samples to draw, at least 1; default: all.
        seed: Seed of the draw, at least 0.
        allocation: How many of the samples each stratum gets: ``"proportional"`` to its size, the same with ``"at-least-one"``, or an
            ``"equal"`` number. With the last two, all estimates weigh a sample by the probability with which it was drawn.
        out: Run directory; default: ``results/<time>``.
        resume: Continue the run in `out`, or else the last unfinished one of ``results`` with the same settings: finished tasks are
            not asked again.
        endpoints: URL of a model's server by name.
        config: Registry file on top of the default one and ``./qaeval.yaml``.
        concurrency: Requests in flight, 1 to 4,096, or ``"auto"``; default: the registry's.
        cache: Whether replies of earlier runs are used for identical requests to pinned weights.
        controls: Whether the judge grades up to 10 planted controls too, which show whether it tells anything apart.
        repeat: Replies of each candidate to each sample, that of the run included, 2 to 100, to measure the candidate's noise;
            the others serve nothing else.
        repeat_judge: Letters of the judge for each item, the first included, 2 to 100, to measure the judge's noise.
        labels: Label files; default: the eval's.
        margin: Smallest difference of usable rates that matters: a share in (0, 1), or a text like ``5 points``.
        until_decided: Whether to ask for chunks in random order, batch by batch, until the first place is decided, at error
            rates of 5 % that hold at every look; ``Report.stopping`` then has the looks. False: all chunks. Default: the registry's.
            A single candidate is always asked about all chunks.
        hardware: Machine of the registry for models whose entry names none; for the cost.
        metrics_port: Serve Prometheus metrics of the run at this port while it works; 0 takes a free one.
        metrics_host: Address of `metrics_port`; default: 127.0.0.1.
        backend: ``"local"``: this process asks. ``"ray"``: actors on the nodes of a Ray cluster do, and this process collects
            the rows; every model needs a server that is up.
        ray_address: Address of the cluster, ``HOST:PORT``; default: Ray on this machine, for this run.
        ray_store: Location that all nodes see, for the samples and rows of blocks: a folder or ``s3://BUCKET/PREFIX``; default:
            a folder in `out`.
        ray_block: Samples of a block, 1 to 500: what is asked again where the process that works on it dies.
        progress: Called after each finished task, on the thread that works.
        confirm: Called with an estimate of a new run of 50 samples or more, from a probe of five; what it raises ends the run
            before it starts. None: nothing is estimated.
        consent: Hosts of hosted models (``kind: hosted``) that may be sent what the run needs, or a function that is called with a
            `Disclosure` of it and returns whether somebody agrees.
        command: Kept in the run, which its report shows as the command, as the one that wrote rows; default: this call.

    Returns:
        The run, reported: report.json, report.md and report.html are in its directory.

    Raises:
        UsageError: A name is unknown, a model has no server, the judge is of a candidate's family, or `out` holds a run
            and `resume` is False.
        DataError: A file is not valid, or no item was graded; the run is reported all the same (`QaevalError.reported`).
        EndpointError: A server cannot be used, or stopped answering.
        NotComparableError: The run in `out` was made with other settings.
        StoreError: `out` cannot be written, or another process writes it.
        Interrupted: The run was stopped; finished rows are kept.
    """
    names = _names(models)
    n_replies, n_letters = checked_repeats(repeat, "repeat"), checked_repeats(repeat_judge, "repeat_judge")
    registry = _registry(config, endpoints).with_judge_mode(judge_mode, reasons_below, reasons_for)
    plan = _plan(
        registry,
        names,
        eval_name=eval_name,
        chunks=chunks,
        samples=samples,
        fields=fields,
        duplicate_ids=duplicate_ids,
        n=n,
        seed=seed,
        allocation=allocation,
        prompts=prompts,
    )
    members, shown = _panel(panel, judge, "judge"), _progress(progress)
    find = partial(
        find_judging,
        registry,
        plan.candidates,
        rubric=_text(rubric) or plan.definition.rubric,
        allow_same_family=allow_same_family,
    )
    batches_of = partial(
        _batches,
        until_decided=until_decided,
        margin=_margin(margin, registry),
        registry=registry,
        is_on_ray=backend == "ray",
        is_panel=bool(members),
    )
    path = _directory(
        out,
        resume=resume,
        difference=partial(
            _difference_of_comparison,
            plan,
            find,
            batches_of,
            judge=(members or (judge,))[0],
            controls=controls,
        ),
        progress=shown,
    )
    recorded = RunStore(path).settings() if resume and (path / SETTINGS).is_file() else None
    judging, *others = (
        find(judge=name, recorded=recorded and recorded["grading"]) for name in members or (judge,)
    )
    second = _second_judge(
        registry,
        {**plan.settings(), "grading": None},
        escalate,
        rubric=judging.rubric,
        allow_same_family=allow_same_family,
        panel=members,
    )
    plan = plan_with_consent(plan, consent, prices=registry.hosted_prices, n_replies=n_replies)

    agreed = partial(judging_with_consent, consent=consent, prices=registry.hosted_prices)
    chunks_of = partial(expected_chunks, plan)
    # controls and repeats are of the first judge alone
    judging, others = (
        agreed(
            judging,
            chunks=partial(chunks_of, n_replies=n_replies, n_letters=n_letters, controls=controls),
        ),
        [agreed(other, chunks=chunks_of) for other in others],
    )
    second = None if second is None else agreed(second, chunks=chunks_of)
    label_paths = plan.definition.label_paths if labels is None else _paths(labels)
    require_labels(label_paths)
    settings = {**plan.settings(), "grading": judging.settings(), **control_settings(controls=controls)}
    batches = batches_of(plan, judging, recorded, path)
    options_on_ray = (
        _ray_options(registry, plan, judging, concurrency, ray_address, ray_store, ray_block)
        if backend == "ray"
        else None
    )
    machines = find_machines(registry, [settings], hardware)
    options = ReportOptions(
        label_paths=label_paths,
        margin=_margin(margin, registry),
        machines=machines,
        hosted_prices=find_hosted(registry),
        panel=members,
    )
    _note(judging, shown)
    _note_one_batch(batches, shown, until_decided=until_decided)
    serve = metrics_served(
        metrics_port, metrics_host, run=path, settings=settings, machines=machines, note=shown.note
    )
    with (
        serve as exporter,
        RunStore.create(
            path,
            settings if batches is None else batches.settings(settings),
            plan.samples if batches is None else batches.samples(),
            resume=resume,
        ) as store,
        _resumable("compare", store, is_new=not resume),
    ):
        store.keep_command(command or f"qaeval.compare({names!r})")
        runner = make_runner(store, registry, concurrency, cache=cache, progress=shown, exporter=exporter)
        with runner:
            runner.check(*plan.candidates, judging.judge, *(other.judge for other in others))
            if confirm is not None and not resume and exporter is None:
                whole = runner.estimate(plan.candidates, plan.definition, judging)
                times = n_replies * n_letters * (1 + len(others)) * (1 if batches is None else batches.ratio)
                _confirm(whole, confirm, machines, registry, times=times)
            if options_on_ray is not None:
                # the engine below finds these rows, and does what is left: controls, repeats, what failed for a passing reason
                compare_on_ray(store, plan, judging, options_on_ray, shown)
            work = partial(
                runner.compare,
                plan.candidates,
                plan.definition,
                judging,
                repeat=n_replies,
                repeat_judge=n_letters,
                controls=controls,
            )
            _work(store, work, batches, label_paths, shown)
            if options_on_ray is not None:
                remove_blocks(store)
            if others and not _has_items(store):
                others, options = [], replace(options, panel=())
            if failed := _grade_by_each(store, others, runner.grade):
                raise _members_failed(path, members, failed)
            if second is not None and _has_items(store):
                _escalate(
                    store, runner, registry, (judging, second), label_paths, escalate_error, escalate_below
                )
        analysis = write_report(store, options)
        _require_graded(store, analysis.report)
    return Run((path,), options, analysis)


def _note_one_batch(batches: Batches | None, progress: Progress, *, until_decided: bool | None) -> None:
    """Say that a run which was asked to stop early cannot."""
    if until_decided and batches is not None and not batches.sequence.is_sequential:
        progress.note(
            f"{plural(batches.sequence.n_chunks, 'chunk')} are one batch: the run cannot stop before the last of them"
        )


def _difference_of_comparison(
    plan: Plan,
    find: Callable[..., Judging],
    batches_of: Callable[..., Batches | None],
    path: Path,
    *,
    judge: str | None,
    controls: bool,
) -> str:
    """Name what keeps the run in a directory from being continued as a comparison; empty where nothing does."""
    store = RunStore(path)
    recorded = store.settings()
    judging = find(judge=judge, recorded=recorded["grading"])
    settings = {**plan.settings(), "grading": judging.settings(), **control_settings(controls=controls)}
    batches = batches_of(plan, judging, recorded, path)
    return store.difference_from(settings if batches is None else batches.settings(settings))


def _batches(
    plan: Plan,
    judging: Judging,
    recorded: Mapping[str, Any] | None,
    path: Path,
    *,
    until_decided: bool | None,
    margin: float,
    registry: Config,
    is_on_ray: bool,
    is_panel: bool,
) -> Batches | None:
    """Return the batches of a run until decided; None of one with a fixed sample.

    Raises:
        UsageError: a run on Ray, with a panel, or of samples with different weights is to stop early.
        NotComparableError: the run began otherwise.
    """
    is_weighted = relative_weights([sample.weight for sample in plan.samples]) is not None
    if until_decided and (is_on_ray or is_weighted or is_panel):
        # the bounds at every look are those of chunks that weigh the same, and of one judge's letters
        cause = (
            "a run on Ray"
            if is_on_ray
            else "a run with a panel"
            if is_panel
            else "a run whose samples were drawn with different probabilities"
        )
        raise UsageError(
            f"{cause} has a fixed sample: omit --until-decided (until_decided=True), or ask for all chunks (--all-chunks)"
        )
    if len(plan.candidates) < 2 or is_on_ray or is_weighted or is_panel:
        return None
    if until_decided is None:
        until_decided = registry.defaults.until_decided if recorded is None else "until_decided" in recorded
    require_same_ending(recorded, until_decided=until_decided, path=path)
    if not until_decided:
        return None
    in_turns = take_turns((*plan.candidates, judging.judge))
    return Batches(plan, margin=margin, recorded=recorded, in_turns=in_turns)


def _work(
    store: RunStore,
    work: Callable[[], None],
    batches: Batches | None,
    label_paths: Sequence[Path],
    progress: Progress,
) -> None:
    """Ask for and grade what is pending in a run: all of it, or batch by batch until it is decided."""
    if batches is None:
        work()
        return
    margin = batches.sequence.margin

    def look() -> Look:
        return look_at(read_run(store, label_paths=label_paths), margin=margin)

    batches.run(store, work, look, progress.note)


@blocking
def generate(
    models: str | Sequence[str],
    *,
    prompts: Paths | None = None,
    eval_name: PathArgument | None = None,
    chunks: PathArgument | None = None,
    samples: PathArgument | None = None,
    fields: Mapping[str, str] | None = None,
    duplicate_ids: DuplicateIds = "refuse",
    n: int | None = None,
    seed: int | None = None,
    allocation: Allocation = "proportional",
    out: PathArgument | None = None,
    resume: bool = False,
    endpoints: Mapping[str, str] | None = None,
    config: PathArgument | None = None,
    concurrency: Concurrency | None = None,
    cache: bool = True,
    repeat: int | None = None,
    metrics_port: int | None = None,
    metrics_host: str | None = None,
    progress: ProgressCallback | Progress | None = None,
    confirm: Confirm | None = None,
    consent: Consent = (),
    command: str | None = None,
) -> Run:
    """Run the first stage alone: the models write their items. `grade` continues with the run.

    Args:
        models: Names of models in the registry.
        prompts: Prompt files.
        eval_name: As for `compare`; so are all other arguments.
        chunks: File of your own chunks, JSON Lines or Parquet, on this disk or at ``s3://BUCKET/KEY``.
        samples: JSONL file of your own questions or topic cards.
        fields: Names of the chunk file's fields.
        duplicate_ids: What becomes of two chunks with one id.
        n: Number of samples to draw.
        seed: Seed of the draw.
        allocation: How many of the samples each stratum gets.
        out: Run directory.
        resume: As for `compare`.
        endpoints: URL of a model's server by name.
        config: Registry file.
        concurrency: Requests in flight, or ``"auto"``.
        cache: Whether replies of earlier runs are used.
        repeat: Replies of each candidate to each sample, that of the run included, 2 to 100.
        metrics_port: Port of Prometheus metrics.
        metrics_host: Address of `metrics_port`.
        progress: Called after each finished task.
        confirm: Called with an estimate.
        consent: As for `compare`.
        command: As for `compare`.

    Returns:
        The run, without letters: its `path` is of use, its `report` raises `DataError`.

    Raises:
        QaevalError: As for `compare`.
    """
    names = _names(models)
    n_replies = checked_repeats(repeat, "repeat")
    registry = _registry(config, endpoints)
    plan = _plan(
        registry,
        names,
        eval_name=eval_name,
        chunks=chunks,
        samples=samples,
        fields=fields,
        duplicate_ids=duplicate_ids,
        n=n,
        seed=seed,
        allocation=allocation,
        prompts=prompts,
    )
    plan = plan_with_consent(plan, consent, prices=registry.hosted_prices, n_replies=n_replies)
    settings, shown = plan.settings(), _progress(progress)

    def difference(path: Path) -> str:
        return RunStore(path).difference_from(settings)

    path = _directory(out, resume=resume, difference=difference, progress=shown)
    machines = find_machines(registry, [settings], None)
    serve = metrics_served(
        metrics_port, metrics_host, run=path, settings=settings, machines=machines, note=shown.note
    )
    with (
        serve as exporter,
        RunStore.create(path, settings, plan.samples, resume=resume) as store,
        _resumable("generate", store, is_new=not resume),
        make_runner(store, registry, concurrency, cache=cache, progress=shown, exporter=exporter) as runner,
    ):
        store.keep_command(command or f"qaeval.generate({names!r})")
        runner.check(*plan.candidates)
        if confirm is not None and not resume and exporter is None:
            whole = runner.estimate(plan.candidates, plan.definition, None)
            _confirm(whole, confirm, machines, registry, times=n_replies)
        runner.generate(plan.candidates, plan.definition, repeat=n_replies)
    return load_run(path, config=config)


@blocking
def grade(
    run: Run | PathArgument,
    *,
    judge: str | None = None,
    judge_mode: JudgeMode | None = None,
    reasons_below: float | None = None,
    reasons_for: Sequence[str] | None = None,
    panel: Sequence[str] | None = None,
    escalate: str | None = None,
    escalate_error: float = 0.1,
    escalate_below: float | None = None,
    labels: Paths | None = None,
    rubric: PathArgument | None = None,
    allow_same_family: bool = False,
    endpoints: Mapping[str, str] | None = None,
    config: PathArgument | None = None,
    concurrency: Concurrency | None = None,
    cache: bool = True,
    controls: bool = True,
    repeat: int | None = None,
    metrics_port: int | None = None,
    metrics_host: str | None = None,
    progress: ProgressCallback | Progress | None = None,
    confirm: Confirm | None = None,
    consent: Consent = (),
    command: str | None = None,
) -> Run:
    """Run the second stage alone: the judge grades every item that has no letter of it yet, those of repeated replies too.

    A judge that is not the run's grades the same items for itself: its letters are kept beside those of the run, and the
    report compares the judges.

    Args:
        run: A run, or its directory.
        judge: Judge in the registry; default: that of the run, else the registry's first one that is of no
            candidate's family.
        judge_mode: What judges are asked for: ``"reason_first"``, ``"letter"`` (the letter alone), or ``"cascade"`` (the letter alone,
            then reasons for items of which the judge is unsure); default: that of the judge's entry.
        reasons_below: With a cascade: probability of the letter below which reasons are asked for, in (0, 1]; default: that of the
            entry, 0.9.
        reasons_for: With a cascade: letters for which reasons are always asked for; default: those of the entry, none.
        panel: Judges that grade one after the other, in place of `judge`: an odd number, at least 3. The first is that of a run
            that no judge graded before. A member that fails does not stop the others.
        escalate: Second judge, which grades the items of which the first is unsure or which are disputed; the letters of both together
            are those of the judge ``first+second``. By labels the threshold keeps the promise of `escalate_error`.
        escalate_error: Largest share of wrong letters of the first judge among those that are kept, in (0, 1).
        escalate_below: Probability of the letter below which an item goes on, in place of a threshold by labels.
        labels: With `escalate`: label files; default: those of the eval and of the run.
        rubric: Name or file of the rubric; default: the eval's.
        allow_same_family: Whether the judge may be of a candidate's family; the report says so.
        endpoints: URL of a model's server by name.
        config: Registry file.
        concurrency: Requests in flight, or ``"auto"``.
        cache: Whether replies of earlier runs are used.
        controls: Whether the judge grades planted controls too, unless the run was begun without them.
        repeat: Letters for each item, the first included, 2 to 100, to measure the judge's noise; the others serve nothing else.
        metrics_port: Port of Prometheus metrics.
        metrics_host: Address of `metrics_port`.
        progress: Called after each finished task.
        confirm: Called with an estimate of the letters of one judge.
        consent: As for `compare`.
        command: As for `compare`.

    Returns:
        The run with its letters, by the panel where one is named. `Run.write_report` writes its report.

    Raises:
        QaevalError: As for `compare`.
    """
    (path,) = _run_paths(run)
    n_letters = checked_repeats(repeat, "repeat")
    registry = _registry(config, endpoints).with_judge_mode(judge_mode, reasons_below, reasons_for)
    members = _panel(panel, judge, "judge")
    with RunStore.open(path, writable=True) as store:
        settings, further = store.settings(), store.further_judges()
        judgings = [
            judging_of_run(
                registry,
                {**settings, "grading": further[name]} if name in further else settings,
                judge=name,
                rubric=_text(rubric),
                allow_same_family=allow_same_family,
            )
            for name in members or (judge,)
        ]
        second = _second_judge(
            registry,
            settings,
            escalate,
            rubric=judgings[0].rubric,
            allow_same_family=allow_same_family,
            panel=members,
        )

        first = (settings.get("grading") or judgings[0].settings())["judge"]["name"]

        agreed = partial(judging_with_consent, consent=consent, prices=registry.hosted_prices)
        chunks_of = partial(chunks_of_items, store)
        # controls and repeats are of the judge in the settings alone
        most = partial(chunks_of, n_letters=n_letters, controls=controls)
        judgings = [agreed(each, chunks=most if each.judge.name == first else chunks_of) for each in judgings]
        second = None if second is None else agreed(second, chunks=chunks_of)
        if n_letters > 1 and first not in {judging.judge.name for judging in judgings}:
            raise UsageError(
                f"repeat: noise is measured of the run's judge, {first}, not of {judgings[0].judge.name}"
            )
        gradings = [{**settings, "grading": judging.settings()} for judging in judgings]
        machines = find_machines(registry, gradings, None)
        shown = _progress(progress)
        _note(judgings[0], shown)
        serve = metrics_served(
            metrics_port, metrics_host, run=path, settings=settings, machines=machines, note=shown.note
        )
        with (
            serve as exporter,
            make_runner(
                store, registry, concurrency, cache=cache, progress=shown, exporter=exporter
            ) as runner,
        ):
            if settings.get("grading") is None and not controls:
                store.write_settings({**settings, **control_settings(controls=False)})

            def grade_by(judging: Judging) -> None:
                store.keep_command(command or f"qaeval.grade({str(path)!r})")
                is_first = judging.judge.name == first
                # controls and repeats are of the judge in the settings alone
                runner.grade(judging, controls=controls and is_first and settings.get("controls", True))
                if is_first:
                    runner.grade_repeats(judging, repeat=n_letters)

            if not members:
                if confirm is not None and exporter is None:
                    whole = runner.estimate_grades(judgings[0])
                    _confirm(whole, confirm, machines, registry, times=n_letters)
                grade_by(judgings[0])
                _require_letters(store, judgings[0].judge.name)
                if second is not None:
                    paths = labels_of_run(path, settings) if labels is None else _paths(labels)
                    pair = judgings[0], second
                    _escalate(store, runner, registry, pair, paths, escalate_error, escalate_below)
            elif failed := _grade_by_each(store, judgings, grade_by):
                raise _members_failed(path, members, failed)
    return load_run(path, config=config, panel=members or None)


def _second_judge(
    registry: Config,
    settings: Mapping[str, Any],
    name: str | None,
    *,
    rubric: Rubric,
    allow_same_family: bool,
    panel: Sequence[str],
) -> Judging | None:
    """Return the judge that unsure items go to; None where none is named."""
    if name is None:
        return None
    if panel:
        raise UsageError("panel and escalate exclude each other: a panel grades every item with all members")
    candidates = recorded_candidates(registry, settings)
    spec = registry.judge(name)
    same_family = is_related(registry, spec, candidates, allowed=allow_same_family)
    return Judging(spec, rubric, same_family=same_family)


def _escalate(
    store: RunStore,
    runner: Runner,
    registry: Config,
    judgings: tuple[Judging, Judging],
    label_paths: Sequence[Path],
    max_error: float,
    below: float | None,
) -> None:
    """Have the second judge grade the items of which the first is unsure."""
    first, second = judgings
    settings = store.settings()
    facts = rubric_facts(first.settings()["rubric"])
    is_tuned = any(settings["eval"]["name"] in judging.judge.tuned_on for judging in judgings)
    labels = [label for path in label_paths for label in read_labels(path)]
    gradings = [{**settings, "grading": judging.settings()} for judging in judgings]
    machines: dict[str, MachineFacts] = {}
    for grading in gradings:
        machines |= find_machines(registry, [grading], None)
    reference = reference_letters(comparable_labels(labels, facts, judge_tuned=is_tuned), facts.letters)
    request = EscalationRequest(
        max_error=max_error,
        below=below,
        reference=reference,
        machines=machines,
    )
    escalate_items(store, runner, first, second, request)


def _panel(panel: Sequence[str] | None, other: str | None, option: str) -> tuple[str, ...]:
    """Return the members of a panel; empty where none is named."""
    if panel is None:
        return ()
    if other:
        raise UsageError(
            f"panel and {option} exclude each other: a panel decides by the letters of all members"
        )
    return checked_panel([panel] if isinstance(panel, str) else panel)


def _grade_by_each(
    store: RunStore, judgings: Iterable[Judging], grade_by: Callable[[Judging], None]
) -> dict[str, DataError | EndpointError]:
    """Have each member of a panel grade, also after one that failed; return the errors by member."""
    failed: dict[str, DataError | EndpointError] = {}
    for judging in judgings:
        try:
            grade_by(judging)
            _require_letters(store, judging.judge.name)
        except (DataError, EndpointError) as error:
            failed[judging.judge.name] = error
    return failed


def _require_letters(store: RunStore, judge: str) -> None:
    """Refuse a judge that has failed to grade every item.

    Raises:
        EndpointError: the judge gave no letter, and asking again may help; its failures are kept.
        DataError: the judge gave no letter.
    """
    failure = store.failure_without_letters(judge)
    if failure is not None:
        kind = EndpointError if failure.is_transient else DataError
        raise kind(
            f"{store.path}: {judge} gave no item a letter ({failure.reason}: {failure.detail}); every failure is kept"
        )


def _has_items(store: RunStore) -> bool:
    with store.replies() as replies:
        return bool(replies.n_items)


def _require_graded(store: RunStore, report: Report) -> None:
    """Refuse a reported run without any letter that counts.

    Raises:
        EndpointError: Most failures are of servers, and asking again may help.
        DataError: No item was graded.
    """
    reason = report.verdict.reason("nothing_graded")
    if reason is None:
        return
    totals: Counter[FailureReason] = Counter()
    for group in report.failures:
        totals[group.reason] += group.n_items
    details = {group.reason: group.examples[0].detail for group in reversed(report.failures)}
    why = "; ".join(f"{n:,} × {name}: {details[name]}" for name, n in totals.most_common(3))
    has_items = any(candidate.n_valid for candidate in report.candidates)
    text = (
        f"{report.judge.facts.name} gave no item a letter ({why}); every failure is kept"
        if has_items
        else f"no generation succeeded, so nothing was graded ({why}); see {store.path / GENERATIONS}"
    )
    kind = EndpointError if reason.failure in TRANSIENT_REASONS else DataError
    error = kind(f"{store.path}: {text}")
    error.reported = store.path
    raise error


def _members_failed(
    path: Path, members: Sequence[str], failed: Mapping[str, DataError | EndpointError]
) -> DataError | EndpointError:
    """Return the error of a panel of which members failed, of the kind of the first one."""
    errors = "; ".join(dict.fromkeys(map(str, failed.values())))
    return type(next(iter(failed.values())))(
        f"{path}: {len(failed)} of {len(members)} members of the panel failed: {', '.join(failed)} ({errors}). All letters are kept; "
        f"the same command asks for those that are missing"
    )


@blocking
def import_items(
    items: pd.DataFrame | Paths,
    *,
    out: PathArgument | None = None,
    chunks: PathArgument | None = None,
    candidate: str | Sequence[str] | None = None,
    candidate_field: str | None = None,
    eval_name: PathArgument | None = None,
    rubric: PathArgument | None = None,
    fields: Mapping[str, str] | None = None,
    grade_field: Mapping[str, str] | None = None,
    label_fields: Mapping[str, str] | None = None,
    common: bool = False,
    join: Run | PathArgument | None = None,
    config: PathArgument | None = None,
    command: str | None = None,
) -> Run:
    """Make a run of pairs, answers or preference pairs that were made elsewhere. `grade` continues with the run.

    Rows hold an item, a list of items, a raw reply or an error, with their chunk as text or by id; docs/import.md has
    all columns. Every row counts: an error, a reply that cannot be read and an item without its chunk are failures.

    Args:
        items: Table of items, or files: JSON Lines, a JSON array, CSV, Parquet, a `datasets` folder, or the results of Inspect, promptfoo,
            DeepEval, Ragas, lm-eval or EvalScope, whose scores become labels of models.
        out: Run directory, new or empty; default: ``results/<time>``.
        chunks: JSONL file of the chunks that rows refer to by ``chunk_id``; default: the eval's.
        candidate: Name of the candidate, or one for each file; default: the column ``candidate`` or ``model``, else the
            name of the file.
        candidate_field: Column of the candidate.
        eval_name: Name or folder of the eval, which says what an item is and how it is graded; default: the registry's, and `rag_qa` for
            results of other harnesses.
        rubric: Name or file of the rubric; default: the eval's.
        fields: Column by field name, for example ``{"question": "q"}``; common names are recognised.
        grade_field: Column of letters by judge: grades of the run; the first judge decides.
        label_fields: Column of letters by rater: labels, which `Run.report` and `agreement` use.
        common: Whether to keep the samples that all candidates have, where they differ.
        join: Run whose candidates the imported ones join, on the same samples; `out` holds all of them.
        config: Registry file.
        command: As for `compare`.

    Returns:
        The run; its `report` raises `DataError` until it is graded.

    Raises:
        UsageError: A name is unknown, or `out` holds files.
        DataError: A file or row is not valid; the message has file and line, and nothing is written.
        NotComparableError: The candidates answer different samples, and `common` is False.
        StoreError: `out` cannot be written.
    """
    path = _path(out) or Path("results", new_run_name())
    registry = find_config(_path(config))
    with ExitStack() as stack:
        base = None if join is None else stack.enter_context(RunStore.open(*_run_paths(join)))
        request = make_request(
            registry,
            [items] if isinstance(items, pd.DataFrame) else _paths(items),
            eval_name=_text(eval_name),
            rubric=_text(rubric),
            chunks=_path(chunks),
            candidates=() if candidate is None else (candidate,) if isinstance(candidate, str) else candidate,
            candidate_field=candidate_field,
            fields=fields or {},
            grade_field=grade_field or {},
            label_fields=label_fields or {},
            common=common,
            join=base,
        )
        import_run(request, path, command or f"qaeval.import_items(..., out={str(path)!r})")
    return load_run(path, config=config)


@blocking
def report_page(run: Run, links: PageLinks) -> str:
    """Render the report of a run for a local server; not part of the public interface.

    Raises:
        DataError: As for `Run.report`.
    """
    return render_page(run._analysis, links)  # noqa: SLF001 - of this module


def load_run(
    run: Run | Paths,
    *,
    labels: Paths | None = None,
    margin: float | str | None = None,
    decide_by: str | None = None,
    panel: Sequence[str] | None = None,
    hardware: str | None = None,
    config: PathArgument | None = None,
    command: str | None = None,
) -> Run:
    """Open a run directory, or several side by side; nothing is written.

    Args:
        run: Run directory; several of the same eval, samples, rubric and judge are compared with each other.
        labels: Label files; default: the eval's.
        margin: Smallest difference of usable rates that matters: a share in (0, 1), or a text like ``5 points``.
        decide_by: Judge whose letters the report is made of, of a run that several judges graded; default: the first.
        panel: Judges whose most frequent letter the report is made of, in place of `decide_by`: an odd number, at least 3.
        hardware: Machine of the registry for models whose entry names none; for the cost.
        config: Registry file.
        command: Command in the report of a run that keeps none of those that wrote its rows; default: this call.

    Raises:
        UsageError: No directory is given, a name is unknown, the panel is even or too small, or a judge of these did not
            grade the run.
        DataError: There is no run at a path.
        StoreError: Another process writes the run.
    """
    paths = _run_paths(run)
    if not paths:
        raise UsageError("load_run needs a run directory")
    members = _panel(panel, decide_by, "decide_by")
    registry = find_config(_path(config))
    settings = []
    for path in paths:
        with RunStore.open(path) as store:
            own = store.settings()
            for member in members:
                decider(store, own, member)
            if decide_by:
                name = decider(store, own, decide_by)
                own = {**own, "grading": store.further_judges().get(name) or own["grading"]}
            settings.append(own)
    options = ReportOptions(
        decide_by=decide_by or "",
        panel=members,
        label_paths=labels_of_runs(paths, settings) if labels is None else _paths(labels),
        margin=_margin(margin, registry),
        machines=find_machines(registry, settings, hardware),
        hosted_prices=find_hosted(registry),
        command=command or f"qaeval.load_run({[str(path) for path in paths]!r})",
    )
    return Run(paths, options)


@blocking
def agreement(
    source: Run | PathArgument | pd.DataFrame,
    labels: Paths | None = None,
    *,
    by: str = "",
    columns: Sequence[str] = (),
    judge: str = "",
    cluster: str = "",
    scale: Sequence[str] = (),
) -> AgreementReport:
    """Measure how far a judge agrees with people: of a run, or of any table with a column of letters per rater.

    Args:
        source: A run or its directory; or a table: a DataFrame, or a CSV, TSV or JSONL file.
        labels: Of a run: label files; default: the eval's.
        by: Of a run ``"candidate"``, ``"stratum"`` or ``"type"``; of a table a column of groups.
        columns: Of a table: columns of letters, the reference first; default: all that hold letters of the scale alone.
        judge: Of a run that several judges graded: the one to measure; default: the first. Of a table: the judge's column;
            default: the second of two.
        cluster: Of a table: the column that says which chunk or document a row belongs to.
        scale: Of a table: letters, best first; default: A, B, C, or the letters of `columns`.

    Raises:
        UsageError: An argument does not fit the source, or names no column.
        DataError: The source cannot be read, is not graded, or holds a letter off the scale.
    """
    if isinstance(source, Run) or (not isinstance(source, pd.DataFrame) and Path(source).is_dir()):
        of_tables = {"columns": columns, "cluster": cluster, "scale": scale}
        if wrong := [name for name, value in of_tables.items() if value]:
            raise UsageError(f"{wrong[0]} belongs to a table; a run has its own")
        run = (
            source
            if isinstance(source, Run) and not judge
            else load_run(source, labels=labels, decide_by=judge)
        )
        return run.agreement(labels, by=by)
    if labels is not None:
        raise UsageError("labels belong to a run; a table has its raters in columns")
    table = read_table(Path(source)) if not isinstance(source, pd.DataFrame) else source
    return agreement_of_table(
        table,
        source="the table" if isinstance(source, pd.DataFrame) else str(source),
        columns=columns,
        judge=judge,
        cluster=cluster,
        scale=scale,
        by=by,
    )


@blocking
def gate(
    run: Run | PathArgument,
    *,
    baseline: Run | PathArgument | None = None,
    policy: PathArgument | Mapping[str, object] | None = None,
    candidates: Mapping[str, str] | None = None,
    unpaired: bool = False,
    regrade: bool = False,
    sequential: bool = False,
    judge: str | None = None,
    rubric: PathArgument | None = None,
    allow_same_family: bool = False,
    seed: int | None = None,
    labels: Paths | None = None,
    hardware: str | None = None,
    endpoints: Mapping[str, str] | None = None,
    config: PathArgument | None = None,
    concurrency: Concurrency | None = None,
    cache: bool = True,
    progress: ProgressCallback | Progress | None = None,
    save: bool = True,
) -> GateReport:
    """Decide whether a run may replace its baseline.

    Args:
        run: A run, or its directory.
        baseline: Run, run directory, baseline file or ``s3://`` address; default: that of the policy, else
            ``baselines/<eval>.json``.
        policy: File of the rules, or the rules as a mapping; default: ``gate.yaml`` where it exists, else one rule per rate.
        candidates: Candidates to gate, each with its name in the baseline; default: all, each against its namesake.
        unpaired: Compare although the samples differ, without pairs; sees less.
        regrade: Have the run's judge grade the baseline's stored replies, in a copy beside it.
        sequential: Grade the run in random order and stop as soon as the answer is certain.
        judge: With `sequential`: judge in the registry.
        rubric: With `sequential`: name or file of the rubric.
        allow_same_family: Where something is graded: whether the judge may be of a candidate's family.
        seed: With `sequential`: seed of the order of the chunks, at least 0.
        labels: Label files; default: the eval's.
        hardware: Machine of the registry for models whose entry names none.
        endpoints: URL of a model's server by name.
        config: Registry file.
        concurrency: Requests in flight, or ``"auto"``.
        cache: Whether replies of earlier runs are used.
        progress: Called after each task, where something is graded.
        save: Whether to write gate.json into the run directory.

    Returns:
        The report: `outcome` is ``pass``, ``regression``, ``inconclusive``, ``untrusted`` or ``not comparable``; no outcome raises.

    Raises:
        UsageError: No baseline is named or found, or arguments exclude each other.
        DataError: A file is not valid.
        EndpointError: A server cannot be used, where something is graded.
    """
    (path,) = _run_paths(run)
    request = GateRequest(
        run=path,
        baseline=str(baseline.path) if isinstance(baseline, Run) else _text(baseline),
        policy=validated(Policy, dict(policy), "policy") if isinstance(policy, Mapping) else _path(policy),
        candidates=candidates or {},
        unpaired=unpaired,
        regrade=regrade,
        sequential=sequential,
        judge=judge,
        rubric=_text(rubric),
        allow_same_family=allow_same_family,
        seed=checked_seed(seed),
        save=save,
    )
    reader = EvidenceReader(
        config=_registry(config, endpoints),
        labels=() if labels is None else _paths(labels),
        hardware=hardware,
    )
    shown = _progress(progress)

    def runner_of(store: RunStore) -> Runner:
        return make_runner(store, reader.config, concurrency, cache=cache, progress=shown)

    def fresh_runner_of(store: RunStore) -> Runner:
        return make_runner(store, reader.config, concurrency, cache=False, progress=shown)

    return decide_gate(request, reader, make_runner=runner_of, make_fresh_runner=fresh_runner_of)


@blocking
def certify(
    judge: str,
    *,
    labels: Paths | None = None,
    eval_name: PathArgument | None = None,
    run: Run | PathArgument | None = None,
    policy: PathArgument | Mapping[str, object] | None = None,
    raters: Literal["people", "any"] | None = None,
    audit: PathArgument | None = None,
    anchors: int = 0,
    rubric: PathArgument | None = None,
    chunks: PathArgument | None = None,
    work: PathArgument | None = None,
    out: PathArgument | None = None,
    endpoints: Mapping[str, str] | None = None,
    config: PathArgument | None = None,
    concurrency: Concurrency | None = None,
    cache: bool = True,
    consent: Consent = (),
    progress: ProgressCallback | Progress | None = None,
) -> JudgeCertificate:
    """Issue the certificate of a judge: how far it agrees with labels, and whether a gate may trust it.

    The judge grades the labelled items anew, or has graded a run of them. A gate with ``certificate: require`` reads the file.

    Args:
        judge: Judge in the registry; with `run` a judge that graded it.
        labels: Label files; default: the eval's, and with `run` those of the run.
        eval_name: Name or folder of the eval; default: the registry's, or that of the run.
        run: A graded run whose letters are taken instead of new ones. Its candidates are known, so that the certificate says whether the
            judge favours one.
        policy: File of the policy with the requirements, or the policy as a mapping; default: ``gate.yaml`` where it exists, else the
            default requirements.
        raters: ``any`` also admits the labels of models; default: as the policy says.
        audit: Directory or ``audit.json`` of an audit of the judge, which the certificate then holds.
        anchors: Items that a gate with ``drift`` has the judge grade again, to see whether it moved; they are stored with texts beside the
            certificate, and graded a second time at once. 150 find a change of 10 points.
        rubric: Name or file of the rubric; default: the eval's.
        chunks: Chunk file of the labelled items; default: the eval's.
        work: Run directory of the labelled items and their letters, new or empty; default: ``results/certify-<time>``.
        out: File to write; default: ``certificates/<eval>-<judge>-<rubric>.json``.
        endpoints: URL of a model's server by name.
        config: Registry file.
        concurrency: Requests in flight, or ``"auto"``.
        cache: Whether replies of earlier runs are used.
        consent: As for `compare`.
        progress: Called after each finished task.

    Returns:
        The certificate, which is also in `out`.

    Raises:
        UsageError: A name is unknown, or arguments exclude each other.
        DataError: A file is not valid, or no label counts.
        EndpointError: The judge's server cannot be used.
        StoreError: `out` or `work` cannot be written.
    """
    trust = _trust(policy, raters)
    audited = None if audit is None else load_audit(Path(audit))
    if run is None:
        registry = _registry(config, endpoints)
        definition = find_eval(_text(eval_name) or registry.defaults.eval)
        judging = find_judging(registry, (), judge=judge, rubric=_text(rubric) or definition.rubric)
        paths = tuple(definition.label_paths) if labels is None else _paths(labels)
        samples = load_samples(definition, chunks=_path(chunks))
        admitted = require_admitted(
            [label for path in paths for label in read_labels(path)],
            paths,
            rubric_facts(judging.settings()["rubric"]),
            trust,
            eval_name=definition.name,
            judge_tuned=definition.name in judging.judge.tuned_on,
        )
        items = find_labelled(admitted, definition, samples)
        path = _path(work) or Path("results", f"certify-{new_run_name()}")
        write_items(path, items.values(), {**definition.model_dump(mode="json"), "digest": definition.digest})
        with _noted(f"the letters so far are in {path}"):
            grade(
                path,
                judge=judge,
                rubric=rubric,
                endpoints=endpoints,
                config=config,
                concurrency=concurrency,
                cache=cache,
                controls=False,
                consent=consent,
                progress=progress,
            )
    else:
        of_items = {"rubric": rubric, "chunks": chunks, "work": work}
        if wrong := [name for name, value in of_items.items() if value is not None]:
            raise UsageError(f"{wrong[0]} belongs to items that the judge grades anew; a run has its own")
        (path,) = _run_paths(run)
        with RunStore.open(path) as store:
            settings = store.settings()
        if eval_name is not None and find_eval(str(eval_name)).name != settings["eval"]["name"]:
            raise UsageError(f"{path} is a run of {settings['eval']['name']}, not of {eval_name}")
        paths = tuple(labels_of_run(path, settings)) if labels is None else _paths(labels)
    certificate = issue(path, judge, paths, trust, audited)
    names = certificate.certified
    path_out = _path(out) or certificate_path(names.eval, names.judge, names.rubric)
    if anchors:
        registry = _registry(config, endpoints)
        shown = _progress(progress)

        def runner_of(store: RunStore) -> Runner:
            return make_runner(store, registry, concurrency, cache=False, progress=shown)

        files = AnchorFiles(path_out)
        sha256 = store_anchors(files, path, judge, anchors, registry, runner_of, consent=consent)
        certificate = certificate.model_copy(update={"anchors_sha256": sha256})
    certificate.write(path_out)
    return certificate


def _trust(
    policy: PathArgument | Mapping[str, object] | None, raters: Literal["people", "any"] | None
) -> TrustPolicy:
    """Return the requirements of a policy; default: those of ``gate.yaml`` where it exists."""
    if isinstance(policy, Mapping):
        trust = validated(Policy, dict(policy), "policy").trust
    elif policy is not None or POLICY.is_file():
        trust = read_policy(_path(policy) or POLICY).trust
    else:
        trust = TrustPolicy()
    return trust if raters is None else trust.model_copy(update={"raters": raters})


@blocking
def label_status(
    run: PathArgument, *, margin: float | None = None, config: PathArgument | None = None
) -> LabelStatus:
    """Say what the labels of a run are worth: raters, agreement between them, and what more labels would buy.

    Args:
        run: Directory of a graded and finished run.
        margin: Smallest difference of usable rates that matters, in (0, 1).
        config: Registry file.

    Raises:
        DataError: There is no graded and finished run, or its labels contradict each other.
    """
    return labelling.label_status(Path(run), margin=_margin(margin, find_config(_path(config))))


def label_by_model(
    run: PathArgument,
    model: str,
    *,
    n: int = 100,
    by: LabelPlan = "plan",
    seed: int = 0,
    rater: str | None = None,
    endpoints: Mapping[str, str] | None = None,
    config: PathArgument | None = None,
    concurrency: int | None = None,
    consent: Consent = (),
    on_answer: Callable[[int, int], None] = lambda _done, _total: None,
) -> labelling.ModelLabels:
    """Have a model label items of a run, for example a hosted one; its labels are those of a model, never pooled with people's.

    The same call continues an interrupted sitting.

    Args:
        run: Directory of a graded and finished run.
        model: Name in the registry, not the judge of the run.
        n: Items to draw.
        by: How items are drawn, as for a person's sitting.
        seed: Seed of the draw.
        rater: Name of the rater, and of the label file; default: the model's.
        endpoints: URL of a model's server by name.
        config: Registry file.
        concurrency: Requests in flight; default: 8.
        consent: Hosts that may be sent the items, or a function that is asked; a hosted model needs one.
        on_answer: Called with the number of answered questions and of all.

    Raises:
        UsageError: The model is unknown, is the judge of the run, or needs consent.
        DataError: There is no graded and finished run, or no reply had a letter.
        EndpointError: The server cannot be used.
        StoreError: The labels cannot be written.
    """
    registry = _registry(config, endpoints)
    spec = registry.judges.get(model) or registry.candidate(model)
    with RunStore.open(Path(run)) as store:
        settings = store.settings()
    judge = (settings.get("grading") or {}).get("judge", {}).get("name")
    if judge == spec.name:
        raise UsageError(
            f"{model} is the judge of the run: labels by it would agree with it. Name another model"
        )
    with labelling.Sitting.open(
        Path(run), rater or spec.name, n=n, by=by, seed=checked_seed(seed), rater_kind="model"
    ) as sitting:
        if spec.kind == "hosted":
            lengths = [len(item.sample.chunk.text) for _, item in sitting.open_items()]
            disclosure = grading_disclosure(
                spec,
                lengths,
                rubric=prompt_text(sitting.rubric, mode=shown_mode(spec.judge_mode)),
                sampling=SAMPLING,
                prices=registry.hosted_prices,
                sends=f"{plural(len(lengths), 'item')} with their chunks",
            )
            spec = consented(spec, disclosure, consent)
        return labelling.label_items(
            sitting,
            spec,
            allow_external=frozenset(registry.allow_external),
            concurrency=concurrency or HOSTED_CONCURRENCY,
            on_answer=on_answer,
        )


acompare = awaitable(compare)
agenerate = awaitable(generate)
agrade = awaitable(grade)
aimport_items = awaitable(import_items)
aload_run = awaitable(load_run)
aagreement = awaitable(agreement)
acertify = awaitable(certify)
agate = awaitable(gate)
alabel_status = awaitable(label_status)


@dataclass(frozen=True, slots=True)
class ShardResult:
    """The shard of a run that is committed after `compare_shard`."""

    committed: CommittedShard
    outcome: Literal["committed", "committed before", "committed by another process"]
    n_samples: int
    """Samples of the shard; 0 if it was committed before."""
    n_samples_of_run: int


def compare_shard(
    models: Sequence[str],
    *,
    shard: Shard,
    out: str,
    prompts: Paths | None = None,
    eval_name: PathArgument | None = None,
    chunks: PathArgument | None = None,
    samples: PathArgument | None = None,
    fields: Mapping[str, str] | None = None,
    duplicate_ids: DuplicateIds = "refuse",
    n: int | None = None,
    seed: int | None = None,
    allocation: Allocation = "proportional",
    judge: str | None = None,
    judge_mode: JudgeMode | None = None,
    reasons_below: float | None = None,
    reasons_for: Sequence[str] | None = None,
    rubric: PathArgument | None = None,
    allow_same_family: bool = False,
    endpoints: Mapping[str, str] | None = None,
    config: PathArgument | None = None,
    concurrency: Concurrency | None = None,
    cache: bool = True,
    controls: bool = True,
    hardware: str | None = None,
    metrics_port: int | None = None,
    metrics_host: str | None = None,
    progress: ProgressCallback | Progress | None = None,
) -> ShardResult:
    """Generate and grade a shard of a run, and commit it; a committed shard stays unchanged.

    `shard` is the number of the shard and the number of shards, `out` the location of all shards, a folder or
    ``s3://BUCKET/PREFIX``. All other arguments are those of `compare`.

    Raises:
        QaevalError: As for `compare`. An error with a note is of a shard that was begun: the same call continues it.
    """
    registry = _registry(config, endpoints).with_judge_mode(judge_mode, reasons_below, reasons_for)
    location = find_location(out, allow_external=registry.allow_external)
    plan = _plan(
        registry,
        models,
        eval_name=eval_name,
        chunks=chunks,
        samples=samples,
        fields=fields,
        duplicate_ids=duplicate_ids,
        n=n,
        seed=seed,
        allocation=allocation,
        prompts=prompts,
    )
    judging = find_judging(
        registry,
        plan.candidates,
        judge=judge,
        rubric=_text(rubric) or plan.definition.rubric,
        allow_same_family=allow_same_family,
    )
    settings = {**plan.settings(), "grading": judging.settings(), **control_settings(controls=controls)}
    machines = find_machines(registry, [settings], hardware)
    n_samples_of_run = len(plan.samples)
    begun = begin(location, shard, settings, plan.samples)
    if isinstance(begun, CommittedShard):
        return ShardResult(begun, "committed before", 0, n_samples_of_run)
    shown = _progress(progress)
    _note(judging, shown)
    with begun as store, _noted("finished rows are kept; the same call continues the shard"):
        sample_ids = shard.samples(plan.samples)
        if sample_ids:
            serve = metrics_served(
                metrics_port,
                metrics_host,
                run=Path(location.name),
                settings=settings,
                machines=machines,
                note=shown.note,
            )
            with (
                serve as exporter,
                make_runner(
                    store,
                    registry,
                    concurrency,
                    cache=cache,
                    progress=shown,
                    exporter=exporter,
                    sample_ids=sample_ids,
                ) as runner,
            ):
                runner.check(*plan.candidates, judging.judge)
                # the controls of the first shard are those of the run
                has_controls = controls and shard.index == 0
                runner.compare(plan.candidates, plan.definition, judging, controls=has_controls)
        committed = commit(location, shard, store.path)
    location.tidy(store.path)
    is_own = committed.record.attempt == store.path.name
    outcome: Literal["committed", "committed by another process"] = (
        "committed" if is_own else "committed by another process"
    )
    return ShardResult(committed, outcome, len(sample_ids), n_samples_of_run)


def _ray_options(
    registry: Config,
    plan: Plan,
    judging: Judging,
    concurrency: Concurrency | None,
    address: str | None,
    store: PathArgument | None,
    block_size: int,
) -> RayOptions:
    if not 1 <= block_size <= MAX_BLOCK_SIZE:
        raise UsageError(f"ray_block: expected 1 to {MAX_BLOCK_SIZE} samples, got {block_size:,}")
    in_flight = registry.defaults.concurrency if concurrency is None else concurrency
    limit = None if in_flight == "auto" else in_flight
    stage_limits(plan.candidates, judging.judge, limit)  # refused before the run directory exists
    return RayOptions(
        address=address,
        store=_text(store),
        concurrency=limit,
        block_size=block_size,
        outage_s=registry.defaults.outage_s,
        allow_external=tuple(registry.allow_external),
    )


def _plan(
    registry: Config,
    names: Sequence[str],
    *,
    eval_name: PathArgument | None,
    chunks: PathArgument | None,
    samples: PathArgument | None,
    fields: Mapping[str, str] | None,
    duplicate_ids: DuplicateIds,
    n: int | None,
    seed: int | None,
    allocation: Allocation,
    prompts: Paths | None,
) -> Plan:
    """Plan a run; chunks may be JSON Lines or Parquet, on this disk or in a store."""
    with chunk_file(_path(chunks), allow_external=registry.allow_external) as chunk_path:
        return make_plan(
            registry,
            names,
            eval_name=_text(eval_name),
            chunks=chunk_path,
            samples=_path(samples),
            fields=fields or {},
            duplicate_ids=duplicate_ids,
            n=n,
            seed=checked_seed(seed),
            allocation=allocation,
            prompts=_prompts(prompts),
        )


def _directory(
    out: PathArgument | None, *, resume: bool, difference: Callable[[Path], str], progress: Progress
) -> Path:
    """Return the directory of a run: where none is given a new one, or the last unfinished one with the same settings.

    Args:
        out: The directory that is given.
        resume: Whether a run is continued.
        difference: Names what keeps a run from being continued by this call.
        progress: Is told which run is continued.

    Raises:
        UsageError: There is no such run.
    """
    if out is not None or not resume:
        return _path(out) or Path("results", new_run_name())
    path = find_unfinished(list(list_runs(RESULTS).values()), difference)
    progress.note(f"continuing {path}")
    return path


def make_runner(
    store: RunStore,
    registry: Config,
    concurrency: Concurrency | None,
    *,
    cache: bool,
    progress: Progress,
    exporter: Exporter | None = None,
    sample_ids: frozenset[str] | None = None,
) -> Runner:
    """Make the engine of a run as arguments and registry say.

    Args:
        store: The open run.
        registry: Servers, hosts that may be asked, and defaults.
        concurrency: Requests in flight; None: the registry's.
        cache: Whether replies of earlier runs are used, where the registry allows it.
        progress: Follows stages and rows.
        exporter: Takes the counts for a Prometheus; None: no metrics.
        sample_ids: Samples to work on; None: all.
    """
    for warning in store.warnings:
        _LOG.warning("%s", warning)
    in_flight = registry.defaults.concurrency if concurrency is None else concurrency
    if in_flight != "auto" and not 1 <= in_flight <= MAX_CONCURRENCY:
        raise UsageError(
            f"concurrency: expected auto or a number from 1 to {MAX_CONCURRENCY:,}, got {in_flight!r}"
        )
    runner = Runner(
        store,
        progress if exporter is None else Metered(progress, exporter),
        concurrency=None if in_flight == "auto" else in_flight,
        outage_s=registry.defaults.outage_s,
        cache=cache_folder() if registry.defaults.cache and cache else None,
        serving=registry.serving,
        allow_external=registry.allow_external,
        exporter=exporter,
        sample_ids=sample_ids,
        on_stop=lambda: _LOG.warning("stopping: requests in flight finish; interrupt again to abandon them"),
    )
    stoppable(runner)
    return runner


MAX_CONCURRENCY: Final = 4096
"""A server that takes more at once was not seen; each request in flight costs memory here too."""


class _Events:
    """Turns what the engine reports into events for a callback; without one, notes go to the log."""

    def __init__(self, callback: ProgressCallback | None) -> None:
        self._callback = callback

    def stage(self, name: str, model: str, *, total: int, done: int) -> "_StageEvents":
        """Begin a stage."""
        return _StageEvents(self._callback, name, model, total=total, done=done)

    def note(self, text: str) -> None:
        """Log what happens between stages."""
        _LOG.info("%s", text)


class _StageEvents:
    """Events of one stage."""

    def __init__(
        self, callback: ProgressCallback | None, stage: str, model: str, *, total: int, done: int
    ) -> None:
        self._callback = callback
        self._event = ProgressEvent(stage, model, done, total, 0)

    def row(self, row: GenerateRow | GradeRow) -> None:
        """Count a finished task and report it."""
        event = self._event
        failed = event.failed + isinstance(row, Failure)
        self._event = replace(event, done=event.done + 1, failed=failed)
        if self._callback is not None:
            self._callback(self._event)

    def skip(self, n: int) -> None:
        """Count tasks that do not exist; the event of the next row says so."""
        self._event = replace(self._event, done=self._event.done + n)

    def end(self) -> None:
        """Do nothing: the last row was the end."""


def _progress(progress: ProgressCallback | Progress | None) -> Progress:
    if isinstance(progress, Progress):
        return progress
    return _Events(progress)


def _registry(config: PathArgument | None, endpoints: Mapping[str, str] | None) -> Config:
    registry = find_config(_path(config))
    return registry.with_endpoints(endpoints) if endpoints else registry


def _confirm(
    whole: WorkEstimate | None,
    confirm: Confirm,
    machines: Mapping[str, MachineFacts],
    registry: Config,
    *,
    times: float,
) -> None:
    if whole is not None:
        repeated = whole.times(times)
        limit = registry.defaults.confirm_minutes
        confirm(RunEstimate(repeated.sentence(machines), repeated.wall_s / 60, limit))


def _note(judging: Judging, progress: Progress) -> None:
    if judging.note:
        progress.note(judging.note)


@contextmanager
def _resumable(function: str, store: RunStore, *, is_new: bool) -> Iterator[None]:
    """Add to an error how the run is continued; a new run without a row is removed instead, so that the same call starts it again."""
    try:
        yield
    except (QaevalError, KeyboardInterrupt) as error:
        if not (is_new and store.discard_unstarted()):
            text = f"finished rows are kept; to continue: qaeval.{function}(..., out={str(store.path)!r}, resume=True)"
            error.add_note(ResumeNote(text, store.path))
        raise


@contextmanager
def _noted(text: str) -> Iterator[None]:
    """Add a note to an error of work that was begun."""
    try:
        yield
    except (QaevalError, KeyboardInterrupt) as error:
        error.add_note(text)
        raise


def _names(models: str | Sequence[str]) -> list[str]:
    names = [models] if isinstance(models, str) else list(models)
    if not names:
        raise UsageError("no model is named; `qaeval models` lists the registry's")
    return names


def _margin(margin: float | str | None, registry: Config) -> float:
    if margin is None:
        return registry.defaults.margin
    try:
        return parse_margin(margin)
    except ValueError as error:
        raise UsageError(f"margin: {error}") from error


def _path(path: PathArgument | None) -> Path | None:
    return None if path is None else Path(path)


def _text(path: PathArgument | None) -> str | None:
    return None if path is None else str(path)


def _paths(paths: Paths) -> tuple[Path, ...]:
    if isinstance(paths, str | PathLike):
        return (Path(paths),)
    return tuple(Path(path) for path in paths)


def _prompts(prompts: Paths | None) -> list[str]:
    return [] if prompts is None else list(map(str, _paths(prompts)))


def _run_paths(run: Run | Paths) -> tuple[Path, ...]:
    return run.paths if isinstance(run, Run) else _paths(run)
