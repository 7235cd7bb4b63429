"""A gate, from its request to its report.

A `GateRequest` names a run; `gate` finds policy and baseline (`find_policy`, `find_baseline`), reads the evidence of both into
`GateInputs`, checks that they are comparable, decides every rule (`qaeval.gate.rules`) and writes the `GateReport` into the run
directory. A sequential gate grades the run on the way (`qaeval.gate.early_stop`).
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson

from qaeval.comparison.model import weighted_sentence
from qaeval.comparison.report import Report
from qaeval.comparison.report_file import load_report
from qaeval.environment import now
from qaeval.errors import DataError, InUseError, NotComparableError, ReadOnlyError, UsageError
from qaeval.gate import messages
from qaeval.gate.anchors import AnchorFiles, attribute, look_at
from qaeval.gate.baseline import FOLDER, EvidenceReader, letters_digest
from qaeval.gate.certificate import (
    HOURS_PER_DAY,
    RefusedCertificateError,
    age_hours,
    certificate_of,
    check,
    read_certificate,
    require_certified,
)
from qaeval.gate.early_stop import SequentialGrading
from qaeval.gate.evidence import Evidence
from qaeval.gate.model import (
    EXIT_CODES,
    Certificate,
    ComparisonKey,
    DriftReport,
    GateReport,
    Outcome,
    RuleVerdict,
)
from qaeval.gate.policy import (
    BY_LETTERS,
    Policy,
    chunks_for_smallest_margins,
    default_margins,
    default_policy,
    read_policy,
)
from qaeval.gate.regrade import MakeRunner, judging_by, regrade
from qaeval.gate.rules import GateInputs, RuleCase, cases_of, verdicts_of
from qaeval.gate.sequential import require_same_samples, require_sequential
from qaeval.report.facts import judge_prompt_change
from qaeval.report.numbers import age, listed, percent, plural, size
from qaeval.run.plan import Judging, judging_of_run
from qaeval.stats.paired import effective_number
from qaeval.storage.run_directory import MANIFEST, RunStore, model_json

_LOG: Final = logging.getLogger("qaeval")
GATE: Final = "gate.json"
"""File of the run directory that holds the report."""
POLICY: Final = Path("gate.yaml")
"""Policy of the working directory, used where none is named."""


@dataclass(frozen=True, kw_only=True)
class GateRequest:
    """What a user asks a gate."""

    run: Path
    baseline: str | None = None
    """Run directory, file or pointer; default: that of the policy, else ``baselines/<eval>.json`` where a rule has a margin."""
    policy: Policy | Path | None = None
    """Rules, or their file; default: ``gate.yaml`` of the working directory, else the default policy."""
    candidates: Mapping[str, str] = field(default_factory=dict)
    """Candidates to gate, each with its name in the baseline; default: all, each against its namesake."""
    unpaired: bool = False
    """Whether other samples than the baseline's are compared, without pairs."""
    regrade: bool = False
    """Whether the run's judge first grades the baseline's stored replies, in a copy."""
    sequential: bool = False
    """Whether the run is graded in random order until the answer is certain."""
    judge: str | None = None
    """Of a sequential gate: judge in the registry; default: that of the run, else the registry's."""
    rubric: str | None = None
    """Of a sequential gate: name or file of the rubric; default: the eval's."""
    seed: int | None = None
    """Of a sequential gate: seed of the order of the chunks; default: 0."""
    allow_same_family: bool = False
    """Of a gate that grades: whether the judge may be of a candidate's family."""
    save: bool = True
    """Whether to write ``gate.json`` into the run directory."""


def gate(
    request: GateRequest,
    reader: EvidenceReader,
    *,
    make_runner: MakeRunner | None = None,
    make_fresh_runner: MakeRunner | None = None,
) -> GateReport:
    """Decide whether a run may replace its baseline.

    Args:
        request: Run, baseline, policy and options.
        reader: Reads runs and baselines.
        make_runner: Makes the engine for requests that grade: `regrade` and `sequential`.
        make_fresh_runner: Makes an engine that takes no reply from a cache, for a policy with `drift`.

    Returns:
        The report, which is also in ``gate.json`` of the run directory.

    Raises:
        UsageError: Options exclude each other, no baseline is named or found, or a candidate does not exist.
        DataError: A file is not valid, or a sequential gate has a rule that needs all letters.
        NotComparableError: The registry's judge is not the run's and would have to grade the baseline; or, of a sequential gate, another
            judge graded the run, the baseline has other samples, or the order was another one.
        Interrupted: The user stopped a gate that grades; the same request continues.
        EndpointError: A server cannot be used by a gate that grades.
        StoreError: The run directory cannot be written.
    """
    _require_consistent(request, make_runner)
    if request.sequential and make_runner is not None:
        report = _gate_sequentially(request, reader, make_runner, make_fresh_runner)
    else:
        run = reader.run(request.run)
        inputs = inputs_of(request, reader, run, make_runner if request.regrade else None)
        if inputs.policy.drift != "off":
            with RunStore.open(request.run) as store:
                definition = store.settings()["eval"]
                drift = _look_at_anchors(
                    inputs, lambda: judging_by(store, reader.config), definition, make_fresh_runner
                )
            inputs = replace(inputs, drift=drift)
        comparison = comparison_by(run.source.identity.judge, request.run)
        report = decide(replace(inputs, comparison=comparison.verdict if comparison else None))
    if request.save:
        try:
            with RunStore.open(request.run, writable=True) as store:
                store.write_text(GATE, model_json(report))
        except (ReadOnlyError, InUseError) as error:
            _LOG.warning("The verdict is not saved: %s", error)
    return report


def comparison_by(judge: str, run: Path) -> Report | None:
    """Read the report of a run; None where the run has none, or another judge decides it (``--decide-by``, ``--panel``).

    Args:
        judge: The judge whose letters the gate reads.
        run: The run directory.

    Raises:
        DataError: The report is not readable.
    """
    report = load_report(run) if (run / MANIFEST).is_file() else None
    return report if report and report.judge.facts.name == judge else None


def _require_consistent(request: GateRequest, make_runner: MakeRunner | None) -> None:
    if request.sequential and request.regrade:
        raise UsageError("sequential grades the run, regrade the baseline: gate in two steps")
    only_sequential = (request.judge, request.rubric, request.seed)
    if not request.sequential and any(option is not None for option in only_sequential):
        raise UsageError("judge, rubric and seed belong to a sequential gate; a finished run has its own")
    if request.allow_same_family and not (request.sequential or request.regrade):
        raise UsageError("allow-same-family belongs to a gate that grades: sequential or regrade")
    if (request.sequential or request.regrade) and make_runner is None:
        raise UsageError("a gate that grades needs an engine: make_runner")


# -------------------------------------------------------------------- request → policy, baseline → inputs


def inputs_of(
    request: GateRequest, reader: EvidenceReader, run: Evidence, make_runner: MakeRunner | None = None
) -> GateInputs:
    """Find policy and baseline of a run and read them.

    Args:
        request: As for `gate`.
        reader: Reads the baseline.
        run: Evidence of the run.
        make_runner: Has the run's judge grade the baseline's stored replies first; None: they keep their letters.

    Raises:
        As for `gate`.
    """
    policy = find_policy(request.policy, run)
    if request.unpaired:
        policy = policy.model_copy(update={"samples": "may differ"})
    address = find_baseline(request, policy, run)
    if make_runner is not None:
        if address is None:
            raise UsageError("--regrade needs a baseline: the run directory whose replies to grade")
        copy = regrade(
            Path(address),
            request.run,
            reader.config,
            make_runner,
            allow_same_family=request.allow_same_family,
        )
        address = str(copy)
    baseline = None if address is None else reader.baseline(address)
    return GateInputs(policy=policy, run=run, baseline=baseline, candidates=request.candidates, today=now())


def find_policy(source: Policy | Path | None, run: Evidence) -> Policy:
    """Return the policy of a gate; errors as in `qaeval.gate.policy.read_policy`.

    Args:
        source: The policy or its file; None: ``gate.yaml`` of the working directory, else the default policy.
        run: Its flags, chunks and items are those of the default policy.
    """
    if source is None:
        source = (
            POLICY
            if POLICY.is_file()
            else default_policy(run.flags, run.n_effective_chunks, run.items_per_chunk)
        )
    return read_policy(source) if isinstance(source, Path) else source


def find_baseline(request: GateRequest, policy: Policy, run: Evidence) -> str | None:
    """Return path or address of the baseline; None where nothing needs one and none is named.

    Raises:
        UsageError: A rule needs a baseline and there is none.
    """
    if address := request.baseline or policy.baseline:
        return address
    has_margin = any(rule.limit is None for rule in policy.rules)
    if not (has_margin or request.regrade):
        return None
    default = FOLDER / f"{run.source.identity.eval}.json"
    if default.is_file():
        return str(default)
    if has_margin:
        raise UsageError(
            f"no baseline: name a run directory or a file with --baseline (or baseline: in the policy); {default} does not "
            f"exist. `qaeval baseline set RUN` writes it"
        )
    return None


def gate_of_equal_run(policy: Policy, baseline: Evidence, today: str) -> GateReport:
    """Decide the gate of a run that equals its baseline: what does not pass here can hardly ever pass.

    Args:
        policy: The rules.
        baseline: A graded run.
        today: ISO 8601.

    Raises:
        DataError: As for `decide`.
    """
    return decide(GateInputs(policy=policy, run=baseline, baseline=baseline, candidates={}, today=today))


# -------------------------------------------------------------------- anchors


def _look_at_anchors(
    inputs: GateInputs,
    find_judge: Callable[[], Judging],
    definition: Mapping[str, Any],
    make_fresh_runner: MakeRunner | None,
) -> DriftReport:
    """Have the judge of a run grade the anchors of its certificate; without the judge, or a certificate of it, nothing is checked."""
    if make_fresh_runner is None:
        raise UsageError("a gate whose policy has drift needs an engine: make_fresh_runner")
    identity = inputs.run.source.identity
    path = certificate_of(inputs.policy, identity)
    try:
        judging = find_judge()
    except (UsageError, NotComparableError) as error:  # not in the registry, or another one there
        return DriftReport(outcome="not checked", sentence=f"the anchors are not checked: {error}")
    try:
        file = read_certificate(path)
        # another server or prompt may have moved the judge: the anchors tell
        require_certified(file, identity, hashes=("rubric_digest", "judged_digest"))
        return look_at(
            AnchorFiles(path),
            file.anchors_sha256,
            run=inputs.run.source.name,
            judging=judging,
            definition=definition,
            make_runner=make_fresh_runner,
        )
    except RefusedCertificateError as refused:
        return DriftReport(outcome="not checked", sentence=f"the anchors are not checked: {path}{refused}")
    except DataError as error:
        return DriftReport(outcome="not checked", sentence=f"the anchors are not checked: {error}")


# -------------------------------------------------------------------- sequential


_SEQUENTIAL_ERRORS: Final = "Both error rates hold whenever the grading stops (betting, Ville's inequality)."


def _gate_sequentially(
    request: GateRequest,
    reader: EvidenceReader,
    make_runner: MakeRunner,
    make_fresh_runner: MakeRunner | None,
) -> GateReport:
    """Grade a run until its gate is decided; its `sequential` says what that saved and what it costs in power."""
    with RunStore.open(request.run, writable=True) as store:
        store.require_run()
        judging = judging_of_run(
            reader.config,
            store.settings(),
            judge=request.judge,
            rubric=request.rubric,
            allow_same_family=request.allow_same_family,
        )
        graded_before = store.settings().get("grading")
        store.require_settings({**store.settings(), "grading": graded_before and judging.settings()})
        grading = orjson.loads(orjson.dumps(judging.settings()))  # as it will be read from the run directory

        def read() -> Evidence:
            return reader.of_store(store, name=store.name, grading=grading)

        inputs = inputs_of(request, reader, read())
        if inputs.policy.drift != "off":
            definition = store.settings()["eval"]
            drift = _look_at_anchors(inputs, lambda: judging, definition, make_fresh_runner)
            inputs = replace(inputs, drift=drift)
        # letters that are not all there say nothing against the judge; certificate, anchors and comparability do not change with them
        first = decide(replace(inputs, run=replace(inputs.run, doubts=())))
        if first.outcome in {"not comparable", "untrusted"}:
            return first
        require_sequential(inputs.policy)
        require_same_samples(inputs.run, inputs.baseline)
        sequence = SequentialGrading(store, inputs, seed=request.seed or 0)
        with make_runner(store) as runner:
            sequence.grade(runner, judging)
        run = read()
    report = decide(replace(inputs, run=run), sequence.cases())
    multiplicity = f"{report.multiplicity} {_SEQUENTIAL_ERRORS}"
    return report.model_copy(update={"sequential": sequence.summary(), "multiplicity": multiplicity})


# -------------------------------------------------------------------- inputs → comparable? → rules → report


def decide(inputs: GateInputs, cases: Sequence[RuleCase] | None = None) -> GateReport:
    """Decide a gate; the same arguments give the same report.

    Args:
        inputs: Policy, run and baseline.
        cases: Rules with their estimates, of a sequential gate; None: estimated from all letters.

    Raises:
        UsageError: A candidate does not exist.
        DataError: A rule names a flag, check, stratum or candidate that does not exist.
    """
    policy, run, baseline = inputs.policy, inputs.run, inputs.baseline
    certificate = check(policy, run.source.identity, inputs.today)
    drift = None if inputs.drift is None else attribute(inputs.drift, run, baseline, inputs.pairs)
    inputs = replace(inputs, drift=drift)
    if baseline is not None and (differences := list(_differences(run, baseline, policy))):
        detail = f"{run.source.name} and {baseline.source.name} differ in {'; '.join(differences)}."
        return _report(inputs, "not comparable", (), certificate, detail=detail)
    rules = verdicts_of(cases_of(inputs) if cases is None else cases, policy.alpha)
    outcome, detail = _outcome(rules), ""
    if policy.certificate == "require" and certificate.state != "valid":
        outcome, detail = "untrusted", f"{certificate.detail}."
    elif policy.drift == "require" and drift and drift.outcome in {"judge moved", "not checked"}:
        outcome, detail = "untrusted", f"{drift.sentence}."
        rules = tuple(_undecided(rule) if _rests_on_letters(rule) else rule for rule in rules)
    elif detail := _doubt(run, rules, certificate):
        outcome = "untrusted"
        rules = tuple(_undecided(rule) if _rests_on_letters(rule) else rule for rule in rules)
    notes = (
        *(() if drift is None or drift.outcome == "nothing" else (f"Anchors: {drift.sentence}.",)),
        *_uncounted_failures(inputs, is_graded=cases is None),
        *_weighted(inputs.run),
        *_notes(inputs, certificate),
    )
    return _report(inputs, outcome, rules, certificate, detail=detail, notes=notes)


def _doubt(run: Evidence, rules: Sequence[RuleVerdict], certificate: Certificate) -> str:
    """Return why the judge's letters may decide none of the rules; empty where they may, or need not.

    Labels that show what the judge finds overrule the controls (`Evidence.discrimination`), and so does a valid certificate.
    """
    doubts = [
        reason
        for reason in run.doubts
        if not (reason.code == "judge_tells_nothing_apart" and certificate.state == "valid")
    ]
    others = [rule.verdict for rule in rules if not _rests_on_letters(rule)]
    if not doubts or len(others) == len(rules) or "regression" in others:
        return ""
    return messages.judge_doubt(doubts, run.discrimination)


def _caution(run: Evidence, rules: Sequence[RuleVerdict], certificate: Certificate) -> str:
    """Return what a pass is worth; empty where labels or a certificate validate the judge, or no rule rests on its letters."""
    is_validated = (
        certificate.state == "valid"
        or any(rater.standing == "beats both" for rater in run.agreement)
        or (run.discrimination is not None and bool(run.discrimination.raters))
    )
    return (
        "" if is_validated or not any(map(_rests_on_letters, rules)) else messages.unvalidated(run.agreement)
    )


def _rests_on_letters(rule: RuleVerdict) -> bool:
    return rule.quantity in BY_LETTERS and not rule.labelled_by


def _undecided(rule: RuleVerdict) -> RuleVerdict:
    """Return a rule without the verdict that the judge's letters gave it."""
    if not messages.has_interval(rule):
        return rule
    sentence = messages.by_doubted_letters(rule.sentence)
    return rule.model_copy(update={"verdict": "inconclusive", "n_more_chunks": None, "sentence": sentence})


_OLD_BASELINE: Final = (
    "the baseline does not say whether more than the prompt changed: set it again from its run"
)
_REGRADE: Final = "--regrade has the run's judge grade the baseline's stored replies"


def _differences(run: Evidence, baseline: Evidence, policy: Policy) -> Iterator[str]:
    """Name what must be the same in two runs and is not, each with what to do."""
    current, earlier = run.source.identity, baseline.source.identity
    if current.eval != earlier.eval:  # everything else differs too
        yield f"the eval ({current.eval}, in the baseline {earlier.eval}): name a baseline of {current.eval} with --baseline"
        return
    has_same_task = bool(current.task_digest) and current.task_digest == earlier.task_digest
    renew = "set a new baseline" if earlier.task_digest else _OLD_BASELINE
    for aspect, advice in (("eval", renew), ("rubric", _REGRADE), ("judge", _REGRADE)):
        if aspect == "eval" and has_same_task:  # the prompt belongs to the candidates
            continue
        (name, sha), (old_name, old_sha) = _aspect(current, aspect), _aspect(earlier, aspect)
        if (name, sha) != (old_name, old_sha):
            yield f"the {aspect} ({name} {sha[:8]}, in the baseline {old_name} {old_sha[:8]}): {advice}"
    if current.samples_digest != earlier.samples_digest and policy.samples == "same":
        yield (
            f"the samples ({current.n_samples:,}, {current.samples_digest[:8]}, in the baseline {earlier.n_samples:,}, "
            f"{earlier.samples_digest[:8]}): draw the same with --n and --seed, and compare with --all-chunks where runs stop "
            f"early (until_decided), or compare without pairs with --unpaired"
        )


def _aspect(key: ComparisonKey, aspect: str) -> tuple[str, str]:
    return getattr(key, aspect), getattr(key, f"{aspect}_digest")


def _outcome(rules: Sequence[RuleVerdict]) -> Outcome:
    verdicts = {rule.verdict for rule in rules}
    if "regression" in verdicts:
        return "regression"
    return "inconclusive" if "inconclusive" in verdicts or not rules else "pass"


def _report(
    inputs: GateInputs,
    outcome: Outcome,
    rules: tuple[RuleVerdict, ...],
    certificate: Certificate,
    *,
    detail: str = "",
    notes: Sequence[str] = (),
) -> GateReport:
    policy = inputs.policy
    headline, exit_code = messages.headline(outcome, rules, detail=detail), EXIT_CODES[outcome]
    if outcome == "inconclusive" and policy.inconclusive == "warn":
        if all(messages.has_interval(rule) for rule in rules):
            exit_code = EXIT_CODES["pass"]
            headline += " The policy accepts this with a warning."
        else:
            headline += " The policy accepts too little data, but no rule that cannot be evaluated."
    n_evaluated = sum(rule.p_worse is not None for rule in rules)
    caution = "" if exit_code else _caution(inputs.run, rules, certificate)
    return GateReport(
        outcome=outcome,
        exit_code=exit_code,
        headline=headline,
        caution=caution,
        policy=policy.name,
        policy_digest=policy.digest,
        run=inputs.run.source,
        baseline=None if inputs.baseline is None else inputs.baseline.source,
        rules=rules,
        certificate=certificate,
        drift=inputs.drift,
        verdict=inputs.comparison,
        controls=inputs.run.discrimination,
        multiplicity=messages.multiplicity(len(rules), n_evaluated, policy.alpha),
        prompts=tuple(inputs.prompt_changes) if outcome != "not comparable" else (),
        notes=tuple(notes),
    )


# -------------------------------------------------------------------- notes


def _weighted(run: Evidence) -> Iterator[str]:
    """Yield that samples weigh differently."""
    if run.weights is not None:
        yield weighted_sentence(len(run.weights), effective_number(run.weights))


def _notes(inputs: GateInputs, certificate: Certificate) -> Iterator[str]:
    """Yield warnings about certificate, candidates, baseline and drift."""
    run, baseline, pairs = inputs.run, inputs.baseline, inputs.pairs
    if certificate.state not in {"valid", "off"}:
        yield f"The judge has no valid certificate: {certificate.detail}."
    yield from _default_margins(inputs)
    if skipped := [candidate.name for candidate in run.candidates if candidate.name not in pairs]:
        yield f"Not gated, because --candidate names others: {listed(skipped)}."
    if baseline is None:
        return
    yield from _prompt_changes(inputs, baseline)
    if _is_same_run(run, baseline):
        yield "Run and baseline are the same run, so nothing can have changed. Name the run to replace with --baseline."
    hours, limit = age_hours(baseline.source.created, inputs.today), inputs.policy.stale_after_days
    if hours is None:
        yield "The baseline has no date."
    elif hours > HOURS_PER_DAY * limit:
        yield f"The baseline is {age(hours)} old; a baseline should be renewed from a released run after {limit} days."
    if unused := [
        candidate.name for candidate in baseline.candidates if candidate.name not in pairs.values()
    ]:
        yield f"The baseline also has {listed(unused)}, which this gate does not compare."
    if run.source.qaeval_version != baseline.source.qaeval_version:
        yield f"The run was made with qaeval {run.source.qaeval_version}, the baseline with {baseline.source.qaeval_version}."
    if not run.has_samples_of(baseline):
        yield "The samples differ, so the rates are compared as independent ones, with less power than paired ones."
    yield from _drift(run, baseline)


def _prompt_changes(inputs: GateInputs, baseline: Evidence) -> Iterator[str]:
    """Yield the changed prompts of candidates, and that of the judge."""
    yield from (change.sentence for change in inputs.prompt_changes)
    source, earlier = inputs.run.source, baseline.source
    prompts = source.identity.judge_prompt, earlier.identity.judge_prompt
    if change := judge_prompt_change(source.identity.judge, *prompts, run=source.name, earlier=earlier.name):
        yield change


def _default_margins(inputs: GateInputs) -> Iterator[str]:
    """Yield the margins of the default policy where they follow the number of chunks."""
    run = inputs.run
    n_chunks, n_items = run.n_effective_chunks, run.items_per_chunk
    needed = chunks_for_smallest_margins(n_items)
    default = default_policy(run.flags, n_chunks, n_items)
    if n_chunks < needed and (inputs.policy.name, inputs.policy.rules) == (default.name, default.rules):
        usable, other = default_margins(n_chunks, n_items)
        yield (
            f"The default margins depend on the number of chunks: {size(usable)} of usable items and {size(other)} of the other rates for "
            f"{plural(n_chunks, 'chunk')} of {plural(n_items, 'item')}, 5 and 3 points from about {needed:,} on. Set yours in gate.yaml."
        )


def _is_same_run(run: Evidence, baseline: Evidence) -> bool:
    return (
        bool(run.source.created)
        and run.source.created == baseline.source.created
        and run.is_graded
        and letters_digest(run) == letters_digest(baseline)
    )


def _uncounted_failures(inputs: GateInputs, *, is_graded: bool) -> Iterator[str]:
    """Yield where items were lost and no rule counts them.

    Args:
        inputs: Policy, run and baseline.
        is_graded: Whether the run is graded to its end, so that items without a letter are lost too.
    """
    if any(rule.quantity in {"usable_rate", "success_rate"} for rule in inputs.policy.rules):
        return
    state = "delivered and graded" if is_graded else "delivered"
    for name, old_name in inputs.pairs.items():
        share = _complete_share(inputs.run, name, is_graded=is_graded)
        before = (
            None
            if inputs.baseline is None
            else _complete_share(inputs.baseline, old_name, is_graded=is_graded)
        )
        if share is not None and share < (1.0 if before is None else before):
            against = "" if before is None else f", {percent(before)} in the baseline"
            yield f"{percent(share)} of the items of {name} were {state}{against}, and no rule counts the others: success_rate would."


def _complete_share(evidence: Evidence, name: str, *, is_graded: bool) -> float | None:
    """Return the share of a candidate's items that were delivered, and graded; None without the candidate."""
    candidate = evidence.candidate(name)
    if candidate is None:
        return None
    complete = candidate.graded if is_graded else candidate.delivered
    return int(complete.sum()) / int(candidate.requested.sum())


def _drift(run: Evidence, baseline: Evidence) -> Iterator[str]:
    """Yield how often the judge gave one and the same item another letter than in the baseline."""
    before, current = _letters(baseline), _letters(run)
    shared = before.keys() & current.keys()
    changed = sum(before[item] != current[item] for item in shared)
    if changed:
        yield (
            f"The judge gave another letter to {changed:,} of the {plural(len(shared), 'item')} that are identical in both runs "
            f"({percent(changed / len(shared))}): its letters vary by that much."
        )


def _letters(evidence: Evidence) -> dict[str, int]:
    """Return the letter of each graded item by its id."""
    letters: dict[str, int] = {}
    for candidate in evidence.candidates:
        graded = candidate.graded
        letters |= zip(candidate.item_ids[graded].tolist(), candidate.letters[graded].tolist(), strict=True)
    return letters
