"""An audit from its arguments to its document: plan, ask, analyse, write."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qaeval import __version__
from qaeval.agreement.analysis import comparable_labels
from qaeval.agreement.label_files import read_labels
from qaeval.agreement.reference import reference_letters
from qaeval.audit.analysis import AuditFacts, analyse_audit
from qaeval.audit.good import GoodItems, find_good
from qaeval.audit.model import Audit, AuditRequest, ProbeName
from qaeval.audit.mutants import checked_mutants
from qaeval.audit.page import render_audit_html, render_audit_markdown
from qaeval.audit.plan import COLD, PROBE_OF, AuditScope, LabelledItem, plan_audit
from qaeval.audit.stage import AuditStage
from qaeval.audit.wordings import TRANSLATED, is_changed
from qaeval.comparison.run_data import labels_of_run, rubric_facts
from qaeval.corpus.samples import load_samples
from qaeval.corpus.sampling import sample_set_digest
from qaeval.environment import git_commit, now
from qaeval.errors import DataError, QaevalError, UsageError
from qaeval.evals.definition import EvalDefinition
from qaeval.evals.find import find_eval, rubric_file
from qaeval.evals.rubric import Rubric, load_rubric
from qaeval.files.whole import write_file
from qaeval.records import AuditItem, Sample, digest
from qaeval.registry.config import Config
from qaeval.registry.family import lines
from qaeval.run import grade
from qaeval.run.grade import Instructions
from qaeval.run.plan import Judging, find_judging, judge_digest, recorded_candidates
from qaeval.run.runner import Runner
from qaeval.run.watch import Progress
from qaeval.storage.run_directory import AUDIT, RunStore, model_json

DEFAULT_N: Final = 40
"""Good items: from about 40 chunks an effect of none is shown to be within 10 points."""
REPORT: Final = "audit.json"
_PER_CANDIDATE: Final = 60
_TRANSLATION: Final = re.compile(r"[-_.][a-z]{2}$")
_FORMAT: Final = 1


@dataclass(frozen=True, kw_only=True)
class AuditPlan:
    """What an audit asks, of what.

    Attributes:
        judging: Judge and rubric.
        definition: The eval.
        goods: The good items.
        samples: Samples of all items.
        rows: The items in their order.
        settings: What must be equal when the audit is resumed, as JSON.
        translated: The rubric in another language.
    """

    judging: Judging
    definition: EvalDefinition
    goods: GoodItems
    samples: tuple[Sample, ...]
    rows: tuple[AuditItem, ...]
    settings: Mapping[str, Any]
    translated: Rubric | None


def make_audit_plan(
    config: Config,
    judge: str,
    *,
    eval_name: str | None = None,
    rubric: str | None = None,
    labels: Sequence[Path] = (),
    run: Path | None = None,
    n: int = DEFAULT_N,
    seed: int | None = None,
) -> AuditPlan:
    """Resolve the arguments of an audit and draw its items.

    Args:
        config: The registry.
        judge: Name of the judge.
        eval_name: Name or folder of the eval; default: the registry's.
        rubric: Name or file of the rubric; default: the eval's.
        labels: Label files; default: those of the eval.
        run: A run of the eval, whose labelled items show whether the judge prefers its own family.
        n: Good items, at most.
        seed: Of the draw; default: the registry's.

    Raises:
        UsageError: a name is unknown.
        DataError: a file is not valid, labels are of another eval, or there are fewer than 10 good items.
    """
    definition = find_eval(eval_name or config.defaults.eval)
    judging = find_judging(config, (), judge=judge, rubric=rubric or definition.rubric)
    seed = config.defaults.seed if seed is None else seed
    known = load_samples(definition)
    goods = find_good(definition, judging.rubric, known, labels=labels, seed=seed)
    labelled, families = _labelled_items(config, judging, definition, run, labels)
    translated = _translated(rubric or definition.rubric, judging.rubric)
    used_prompt = Instructions.for_judge(judging.rubric, judging.judge)
    forms = {setting for setting in PROBE_OF if is_changed(setting, used_prompt)}
    if translated is not None:
        forms.add(TRANSLATED)
    if used_prompt.sampling.temperature > 0:
        forms.add(COLD)
    scope = AuditScope(
        judge=judging.judge,
        rubric=judging.rubric,
        settings=frozenset() if judging.judge.kind == "embedded" else frozenset(forms),
        item_kind=definition.item_kind,
        seed=seed,
    )
    rows = plan_audit(scope, goods.items, labelled, n=n)
    asked = {row.base for row in rows if row.probe == "good items"}
    used = {
        sample.sample_id: sample
        for sample in (
            *(good.sample for good in goods.items if good.item.item_id in asked),
            *(each.sample for each in labelled),
        )
    }
    samples = tuple(used.values())
    settings = {
        "format": _FORMAT,
        "eval": {**definition.model_dump(mode="json"), "digest": definition.digest},
        "sample_set": {"n": len(samples), "seed": seed, "digest": sample_set_digest(samples)},
        "candidates": {},
        "grading": judging.settings(),
        "audit": {
            "seed": seed,
            "n": n,
            "temperature": used_prompt.sampling.temperature,
            "good_sources": dict(Counter(goods.source_of[item_id] for item_id in sorted(asked))),
            "raters": list(goods.raters),
            "families": families,
            "translated": translated.sha if translated else "",
            "forms": sorted(scope.settings),
            "plan": digest([row.task_id for row in rows]),
        },
    }
    return AuditPlan(
        judging=judging,
        definition=definition,
        goods=goods,
        samples=samples,
        rows=rows,
        settings=settings,
        translated=translated,
    )


def _translated(name: str, rubric: Rubric) -> Rubric | None:
    """Return the rubric in another language: the file beside it whose name has a language more, ``qa_pair_abc-de.yaml``."""
    path = rubric_file(name)
    for other in sorted(path.parent.glob(f"{path.stem}*.yaml")):
        suffix = other.stem.removeprefix(path.stem)
        if _TRANSLATION.fullmatch(suffix):
            translated = load_rubric(other)
            if translated.letters != rubric.letters:
                raise DataError(
                    f"{other}: a translation of {rubric.name} has its letters {'/'.join(rubric.letters)}, this one has "
                    f"{'/'.join(translated.letters)}; rename the file if it is another rubric"
                )
            return translated
    return None


def _labelled_items(
    config: Config, judging: Judging, definition: EvalDefinition, run: Path | None, labels: Sequence[Path]
) -> tuple[list[LabelledItem], dict[str, bool]]:
    """Return the labelled items of a run, up to 60 of each candidate, and which candidates are of the judge's family."""
    if run is None:
        return [], {}
    with RunStore.open(run) as store:
        settings = store.settings()
        if settings["eval"]["name"] != definition.name:
            raise UsageError(
                f"{run}: a run of the eval {settings['eval']['name']}, not of {definition.name}; name its eval with --eval"
            )
        given = [label for path in labels or labels_of_run(run, settings) for label in read_labels(path)]
        rubric = rubric_facts(judging.settings()["rubric"])
        is_tuned = definition.name in judging.judge.tuned_on
        letters = reference_letters(
            comparable_labels(given, rubric, judge_tuned=is_tuned), judging.rubric.letters
        )
        own = {*lines(judging.judge)}
        related = {spec.name: bool(own & {*lines(spec)}) for spec in recorded_candidates(config, settings)}
        samples = {sample.sample_id: sample for sample in store.samples()}
        counts: dict[str, int] = {}
        items = []
        with store.replies() as replies:
            labelled = (
                (sample, row.candidate, item)
                for sample in samples.values()
                for row in replies.of(sample.sample_id)
                for item in row.items
                if item.item_id in letters
            )
            for sample, candidate, item in labelled:
                counts[candidate] = counts.get(candidate, 0) + 1
                if counts[candidate] <= _PER_CANDIDATE:
                    items.append(LabelledItem(sample, item, candidate, letters[item.item_id].letter))
    return items, related


def run_audit(
    plan: AuditPlan,
    path: Path,
    progress: Progress,
    *,
    config: Config,
    resume: bool = False,
    concurrency: int | None = None,
    command: str = "",
) -> Audit:
    """Ask the judge and write the documents of the audit: ``audit.json``, ``audit.md``, ``audit.html``.

    Args:
        plan: What to ask.
        path: Directory of the audit: a new one, or one to resume.
        progress: Notified of every row.
        config: The registry.
        resume: Whether to continue the audit in `path`.
        concurrency: Requests in flight; None: as many as keep the server busy.
        command: Kept in the directory; empty: none.

    Raises:
        UsageError: the directory holds a run, or none to resume.
        NotComparableError: the audit to resume was made with other settings.
        Interrupted: the user asked to stop; finished rows are kept.
        EndpointError: the judge cannot be used; finished rows are kept.
        StoreError: the directory cannot be written.
    """
    with RunStore.create(path, plan.settings, plan.samples, resume=resume) as store:
        if command:
            store.keep_command(command)
        runner = Runner(
            store,
            progress,
            concurrency=concurrency,
            serving=config.serving,
            allow_external=config.allow_external,
        )
        with runner:
            try:
                runner.check(plan.judging.judge)
            except QaevalError:
                store.discard_unstarted()
                raise
            if not store.audit_items():
                # at once: an audit that was killed half-way through would ask less
                lines = (row.model_dump_json(exclude_none=True) + "\n" for row in plan.rows)
                store.write_text(AUDIT, "".join(lines))
            runner.work(AuditStage(plan.judging, store, plan.translated))
        audit = audit_of(store, created=now())
        write_audit(audit, path)
    return audit


def audit_of(store: RunStore, *, created: str) -> Audit:
    """Analyse the rows of an audit.

    Args:
        store: The open directory.
        created: UTC, ISO 8601.
    """
    settings = store.settings()
    about, judge = settings["audit"], settings["grading"]["judge"]
    rubric = settings["grading"]["rubric"]
    embedded = judge["kind"] == "embedded"
    request = AuditRequest(
        eval=settings["eval"]["name"],
        eval_digest=settings["eval"]["digest"],
        judge=judge["name"],
        judge_digest=judge_digest(judge),
        judge_prompt="" if embedded else grade.prompt_digest(),
        rubric=f"{rubric['name']}/{rubric['version']}",
        rubric_digest=rubric["sha"],
        seed=about["seed"],
        temperature=about["temperature"],
    )
    letters = tuple(level["letter"] for level in rubric["scale"])
    grades_pairs = any(example.get("rejected") for example in rubric["examples"])
    facts = AuditFacts(
        request=request,
        letters=letters,
        has_flags=bool(rubric["flags"]),
        grades_pairs=grades_pairs,
        good_sources=about["good_sources"],
        raters=tuple(about["raters"]),
        related=about["families"],
        not_applied=_not_applied(about, embedded=embedded),
        check=checked_mutants(store),
        created=created,
        qaeval_version=__version__,
        git_commit=git_commit(),
    )
    return analyse_audit(store.audit_items(), store.samples(), facts)


def _not_applied(about: Mapping[str, Any], *, embedded: bool) -> dict[ProbeName, str]:
    """Return why probes are not applied, by name."""
    forms = {*about["forms"]}
    reasons: dict[ProbeName, str] = {
        probe: "the judge reads no prompt" if embedded else "the prompt has nothing that it would change"
        for setting, probe in PROBE_OF.items()
        if setting not in forms
    }
    if "translated rubric" in reasons and not embedded:
        reasons["translated rubric"] = "there is no translation beside the rubric"
    if COLD not in forms:
        reasons["temperature 0"] = (
            "the judge reads no prompt"
            if embedded
            else "the judge grades at temperature 0, so that `repeat` measures this"
        )
    families = about["families"].values()
    if not families:
        reasons["self-preference"] = "it needs a run with labels (--run RUN)"
    elif len({*families}) < 2:
        reasons["self-preference"] = "no candidate of the run, or every one, is of the judge's family"
    if "statements" in about["good_sources"]:
        reasons["good items"] = "quoted statements need not deserve the best letter"
    return reasons


def write_audit(audit: Audit, path: Path) -> None:
    """Write the documents of an audit.

    Raises:
        StoreError: a file cannot be written.
    """
    write_file(path / REPORT, model_json(audit))
    write_file(path / "audit.md", render_audit_markdown(audit))
    write_file(path / "audit.html", render_audit_html(audit))


def show_again(path: Path) -> Audit:
    """Analyse a finished audit again, with what people have said of its planted items since, and write its documents.

    Args:
        path: Its directory.

    Raises:
        DataError: there is no finished audit.
        StoreError: the documents cannot be written.
    """
    created = load_audit(path).created
    with RunStore.open(path, is_audit=True) as store:
        audit = audit_of(store, created=created)
    write_audit(audit, path)
    return audit


def load_audit(path: Path) -> Audit:
    """Read the document of an audit.

    Args:
        path: Directory of the audit, or its ``audit.json``.

    Raises:
        DataError: there is none, or it is not valid.
    """
    file = path / REPORT if path.is_dir() else path
    try:
        return Audit.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: no audit here; `qaeval audit JUDGE --out DIR` writes one") from error
    except ValueError as error:
        raise DataError(f"{file}: not the document of an audit: {str(error).splitlines()[0]}") from error
