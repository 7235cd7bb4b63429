"""From what was typed to the verdict of a gate, written into the run directory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qaeval.errors import UsageError
from qaeval.gate.baseline import FOLDER
from qaeval.gate.decide import GATE, Asked, decide
from qaeval.gate.evidence import Evidence
from qaeval.gate.policy import Policy, default_policy, read_policy
from qaeval.gate.regrade import regrade
from qaeval.gate.sources import Sources
from qaeval.gate.verdict import GateReport
from qaeval.run import Runner
from qaeval.store import RunStore, model_json
from qaeval.surroundings import now

POLICY: Final = Path("gate.yaml")
"""The policy that is taken when none is named and it is there."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A gate as it was typed."""

    run: Path
    baseline: str | None = None
    """Run directory, file or pointer; what the policy says, else ``baselines/<eval>.json``, when left out."""
    policy: Path | None = None
    """``gate.yaml`` of the working directory where it is there, else the default one, when left out."""
    candidates: Mapping[str, str] = field(default_factory=dict)
    unpaired: bool = False
    """Whether other samples than the baseline's are compared, without pairs."""


def gate(order: Order, sources: Sources, regrader: Callable[[RunStore], Runner] | None = None) -> GateReport:
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
    order: Order,
    sources: Sources,
    run: Evidence,
    regrader: Callable[[RunStore], Runner] | None = None,
) -> Asked:
    """Find policy and baseline of a run; arguments and errors as in `gate`."""
    policy = find_policy(order, run.flags)
    where = find_baseline(order, policy, run)
    if regrader is not None:
        if where is None:
            raise UsageError("--regrade needs a baseline: the run directory whose replies are graded again")
        where = str(regrade(Path(where), order.run, sources.config, regrader))
    baseline = None if where is None else sources.baseline(where)
    return Asked(policy=policy, run=run, baseline=baseline, candidates=order.candidates, today=now())


def write_gate(report: GateReport, run: Path) -> None:
    """Write ``gate.json`` into the run directory."""
    with RunStore.open(run) as store:
        store.write_text(GATE, model_json(report))


def find_policy(order: Order, flags: tuple[str, ...]) -> Policy:
    """Read the policy of a gate; errors as in `qaeval.gate.policy.read_policy`."""
    path = order.policy or (POLICY if POLICY.is_file() else None)
    policy = default_policy(flags) if path is None else read_policy(path)
    return policy.model_copy(update={"samples": "may differ"}) if order.unpaired else policy


def find_baseline(order: Order, policy: Policy, run: Evidence) -> str | None:
    """Say where the baseline is; None where every rule is a limit and nobody named one.

    Raises:
        UsageError: a rule needs one and there is none.
    """
    usual = FOLDER / f"{run.side.identity.eval}.json"
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
