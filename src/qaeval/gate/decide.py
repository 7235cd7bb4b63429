"""From a policy, a run and its baseline to the verdict.

From what was typed to the verdict of a gate, written into the run directory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qaeval.environment import now
from qaeval.errors import UsageError, closest
from qaeval.gate import messages as sentences
from qaeval.gate.baseline import FOLDER, EvidenceReader, letters_digest
from qaeval.gate.certificate import age_days, check
from qaeval.gate.evidence import Evidence
from qaeval.gate.model import EXIT_CODES, Certificate, ComparisonKey, GateReport, Outcome, RuleVerdict
from qaeval.gate.policy import Policy, default_policy, read_policy
from qaeval.gate.regrade import regrade
from qaeval.gate.rules import RuleCase, cases_of, verdicts_of
from qaeval.report.numbers import listed, percent, plural
from qaeval.run.runner import Runner
from qaeval.storage.run_directory import RunStore, model_json

GATE: Final = "gate.json"
"""The file of the run directory that holds the verdict."""


@dataclass(frozen=True, kw_only=True)
class GateInputs:
    """What a gate is asked."""

    policy: Policy
    run: Evidence
    baseline: Evidence | None
    """None where every rule is a limit."""
    candidates: Mapping[str, str]
    """Candidates of the run by name, each with its counterpart in the baseline; empty: all, each with its namesake."""
    today: str
    """ISO 8601; what ages are counted to."""


def decide(asked: GateInputs, cases: Sequence[RuleCase] | None = None) -> GateReport:
    """Give the verdict of a gate; the same arguments give the same verdict.

    Args:
        asked: Policy, run and baseline.
        cases: What the data say, where that is known already; asked of all the letters when left out.

    Raises:
        UsageError: a candidate is named that there is not.
        DataError: a rule names a flag, check, stratum or candidate that there is not.
    """
    policy, run, baseline = asked.policy, asked.run, asked.baseline
    certificate = check(policy, run.source.identity, asked.today)
    differences = (
        [] if baseline is None else list(_differences(run.source.identity, baseline.source.identity, policy))
    )
    if differences:
        detail = f"{run.source.name} and {baseline.source.name if baseline else ''} differ in {'; '.join(differences)}."
        return _report(asked, "not comparable", (), certificate, detail=detail)
    pairs = pairs_of(run, baseline, asked.candidates)
    rules = verdicts_of(cases_of(policy, run, baseline, pairs) if cases is None else cases, policy.alpha)
    outcome = _outcome(rules)
    notes = (*_unasked(asked, pairs, is_graded=cases is None), *_notes(asked, pairs, certificate))
    if policy.certificate == "require" and certificate.state != "valid":
        outcome = "untrusted"
    return _report(asked, outcome, rules, certificate, detail=f"{certificate.detail}.", notes=notes)


def _outcome(rules: Sequence[RuleVerdict]) -> Outcome:
    verdicts = {rule.verdict for rule in rules}
    if "regression" in verdicts:
        return "regression"
    return "inconclusive" if "inconclusive" in verdicts or not rules else "pass"


def _report(
    asked: GateInputs,
    outcome: Outcome,
    rules: tuple[RuleVerdict, ...],
    certificate: Certificate,
    *,
    detail: str = "",
    notes: Sequence[str] = (),
) -> GateReport:
    headline, exit_code = sentences.headline(outcome, rules, detail=detail), EXIT_CODES[outcome]
    if outcome == "inconclusive" and asked.policy.inconclusive == "warn":
        if all(sentences.has_interval(rule) for rule in rules):
            exit_code = EXIT_CODES["pass"]
            headline += " The policy lets that pass with this warning."
        else:
            headline += " The policy lets too little data pass, but not what cannot be evaluated at all."
    return GateReport(
        outcome=outcome,
        exit_code=exit_code,
        headline=headline,
        policy=asked.policy.name,
        policy_digest=asked.policy.digest,
        run=asked.run.source,
        baseline=None if asked.baseline is None else asked.baseline.source,
        rules=rules,
        certificate=certificate,
        multiplicity=sentences.multiplicity(
            len(rules), sum(rule.p_worse is not None for rule in rules), asked.policy.alpha
        ),
        notes=tuple(notes),
    )


def _differences(run: ComparisonKey, baseline: ComparisonKey, policy: Policy) -> Iterator[str]:
    """Name what two runs differ in that must agree, each with what to do."""
    if run.eval != baseline.eval:  # then everything else differs too
        yield f"the eval ({run.eval}, in the baseline {baseline.eval}): name a baseline of {run.eval} with --baseline"
        return
    aspects = (
        ("the eval", run.eval, run.eval_digest, baseline.eval, baseline.eval_digest, "set a new baseline"),
        ("the rubric", run.rubric, run.rubric_digest, baseline.rubric, baseline.rubric_digest, _REGRADE),
        ("the judge", run.judge, run.judge_digest, baseline.judge, baseline.judge_digest, _REGRADE),
    )
    for what, name, its, other, others, way_on in aspects:
        if (name, its) != (other, others):
            yield f"{what} ({name} {its[:8]}, in the baseline {other} {others[:8]}): {way_on}"
    if run.samples_digest != baseline.samples_digest and policy.samples == "same":
        yield (
            f"the samples ({run.n_samples:,}, {run.samples_digest[:8]}, in the baseline {baseline.n_samples:,}, "
            f"{baseline.samples_digest[:8]}): draw the same with --n and --seed, or compare without pairs with --unpaired"
        )


_REGRADE: Final = "--regrade has the run's judge grade the baseline's stored replies"


def pairs_of(run: Evidence, baseline: Evidence | None, named: Mapping[str, str]) -> dict[str, str]:
    """Say which candidates are gated, each with its name in the baseline; empty where the baseline has none.

    Raises:
        UsageError: a candidate is named that there is not.
    """
    own = [one.name for one in run.candidates]
    others = own if baseline is None else [one.name for one in baseline.candidates]
    for new, old in named.items():
        for name, known, where in ((new, own, "the run"), (old, others, "the baseline")):
            if name not in known:
                raise UsageError(
                    f"--candidate {new}={old}: {where} has no candidate {name!r}.{closest(name, known)} It has {', '.join(known)}"
                )
    if named:
        return dict(named)
    return {name: name if name in others else "" for name in own}


def _notes(asked: GateInputs, pairs: Mapping[str, str], certificate: Certificate) -> Iterator[str]:
    policy, run, baseline = asked.policy, asked.run, asked.baseline
    if certificate.state in {"stale", "missing"}:
        yield f"The judge has no valid certificate: {certificate.detail}."
    if left := [one.name for one in run.candidates if one.name not in pairs]:
        yield f"Not gated, because --candidate names others: {listed(left)}."
    if baseline is None:
        return
    if _is_same(run, baseline):
        yield "The baseline is this very run: nothing can have changed. Name the run that is to be replaced with --baseline."
    days = age_days(baseline.source.created, asked.today)
    if days is None:
        yield "The baseline has no date."
    elif days > policy.stale_after_days:
        yield f"The baseline is {days:,} days old; after {policy.stale_after_days} it should be set again from a released run."
    if gone := [one.name for one in baseline.candidates if one.name not in pairs.values()]:
        yield f"The baseline also has {listed(gone)}, which this gate does not compare."
    if run.source.qaeval_version != baseline.source.qaeval_version:
        yield f"The run was made with qaeval {run.source.qaeval_version}, the baseline with {baseline.source.qaeval_version}."
    if run.source.identity.samples_digest != baseline.source.identity.samples_digest:
        yield "The samples differ, so the difference is that of two independent rates: it sees less than a paired one."
    yield from _drift(run, baseline)


def _is_same(run: Evidence, baseline: Evidence) -> bool:
    return (
        bool(run.source.created)
        and run.source.created == baseline.source.created
        and run.is_graded
        and letters_digest(run) == letters_digest(baseline)
    )


def _unasked(asked: GateInputs, pairs: Mapping[str, str], *, is_graded: bool) -> Iterator[str]:
    """Say where items were not delivered or, of a run that is graded to its end, not graded, and no rule counts them."""
    if any(rule.quantity in {"usable_rate", "success_rate"} for rule in asked.policy.rules):
        return
    for name, before in pairs.items():
        share = _share(asked.run, name, is_graded=is_graded)
        other = None if asked.baseline is None else _share(asked.baseline, before, is_graded=is_graded)
        if share is not None and share < (1.0 if other is None else other):
            became = "delivered and graded" if is_graded else "delivered"
            against = "" if other is None else f", {percent(other)} in the baseline"
            yield f"{percent(share)} of the items of {name} were {became}{against}, and no rule counts the others: success_rate would."


def _share(evidence: Evidence, name: str, *, is_graded: bool) -> float | None:
    """Return the share of a candidate's items that were delivered, and graded."""
    candidate = evidence.candidate(name)
    if candidate is None:
        return None
    counted = candidate.graded if is_graded else candidate.delivered
    return 1 - int((~counted).sum()) / counted.size


def _drift(run: Evidence, baseline: Evidence) -> Iterator[str]:
    """Say where the judge gave one and the same item another letter than in the baseline."""
    before, now = _letters(baseline), _letters(run)
    shared = before.keys() & now.keys()
    changed = sum(before[item] != now[item] for item in shared)
    if changed:
        yield (
            f"The judge gave another letter to {changed:,} of the {plural(len(shared), 'item')} that both share word for word "
            f"({percent(changed / len(shared))}): so far its own letters move."
        )


def _letters(evidence: Evidence) -> dict[str, int]:
    """Return the letter of each graded item by its id."""
    return {
        item_id: letter
        for candidate in evidence.candidates
        for item_id, letter in zip(
            candidate.item_ids[candidate.graded].tolist(),
            candidate.letters[candidate.graded].tolist(),
            strict=True,
        )
    }


POLICY: Final = Path("gate.yaml")
"""The policy that is taken when none is named and it is there."""


@dataclass(frozen=True, kw_only=True)
class GateRequest:
    """A gate as it was typed."""

    run: Path
    baseline: str | None = None
    """Run directory, file or pointer; what the policy says, else ``baselines/<eval>.json``, when left out."""
    policy: "Path | Policy | None" = None
    """``gate.yaml`` of the working directory where it is there, else the default one, when left out."""
    candidates: Mapping[str, str] = field(default_factory=dict)
    unpaired: bool = False
    """Whether other samples than the baseline's are compared, without pairs."""


def gate(
    order: GateRequest, sources: EvidenceReader, regrader: Callable[[RunStore], Runner] | None = None
) -> GateReport:
    """Gate a run, and write ``gate.json`` into its directory.

    Args:
        order: What was typed.
        sources: What runs and baselines are read with.
        regrader: Makes what has the run's judge grade the baseline's stored replies; None: they keep their letters.

    Raises:
        UsageError: no baseline is named or found, or a candidate is named that there is not.
        DataError: a file is not what it has to be.
        NotComparableError: the registry's judge is not the run's, which would have to grade the baseline.
    """
    report = decide(asked_of(order, sources, sources.run(order.run), regrader))
    write_gate(report, order.run)
    return report


def asked_of(
    order: GateRequest,
    sources: EvidenceReader,
    run: Evidence,
    regrader: Callable[[RunStore], Runner] | None = None,
) -> GateInputs:
    """Find policy and baseline of a run; arguments and errors as in `gate`."""
    policy = find_policy(order, run.flags)
    where = find_baseline(order, policy, run)
    if regrader is not None:
        if where is None:
            raise UsageError("--regrade needs a baseline: the run directory whose replies are graded again")
        where = str(regrade(Path(where), order.run, sources.config, regrader))
    baseline = None if where is None else sources.baseline(where)
    return GateInputs(policy=policy, run=run, baseline=baseline, candidates=order.candidates, today=now())


def write_gate(report: GateReport, run: Path) -> None:
    """Write ``gate.json`` into the run directory."""
    with RunStore.open(run) as store:
        store.write_text(GATE, model_json(report))


def find_policy(order: GateRequest, flags: tuple[str, ...]) -> Policy:
    """Read the policy of a gate; errors as in `qaeval.gate.policy.read_policy`."""
    if isinstance(order.policy, Policy):
        policy = order.policy
    else:
        path = order.policy or (POLICY if POLICY.is_file() else None)
        policy = default_policy(flags) if path is None else read_policy(path)
    return policy.model_copy(update={"samples": "may differ"}) if order.unpaired else policy


def find_baseline(order: GateRequest, policy: Policy, run: Evidence) -> str | None:
    """Say where the baseline is; None where every rule is a limit and nobody named one.

    Raises:
        UsageError: a rule needs one and there is none.
    """
    usual = FOLDER / f"{run.source.identity.eval}.json"
    if where := order.baseline or policy.baseline:
        return where
    if usual.is_file():
        return str(usual)
    if any(rule.limit is None for rule in policy.rules):
        raise UsageError(
            f"what is the baseline? Name a run directory or a file with --baseline (or baseline: in the policy); {usual} is looked "
            f"for and not there. `qaeval baseline set RUN` writes it"
        )
    return None
