"""Gates of every outcome, by hand, for the tests of what is written about them."""

from typing import Any

from qaeval.gate.model import (
    EXIT_CODES,
    Certificate,
    ComparisonKey,
    GateReport,
    Outcome,
    RuleVerdict,
    RunIdentity,
)
from qaeval.report.measure import Measure

IDENTITY = ComparisonKey(
    eval="qa_pairs",
    eval_digest="e" * 64,
    rubric="qa_pair_abc/1",
    rubric_digest="r" * 64,
    judge="judge-7b",
    judge_digest="j" * 64,
    samples_digest="s" * 64,
    n_samples=200,
)
HOSTILE = "a|b `x` @acme/owners <img src=x onerror=alert(1)> [click](http://evil.example) www.evil.example https://evil.example #12"


def measure(value: float | None, low: float | None = None, high: float | None = None, **more: Any) -> Measure:
    return Measure(
        **{
            "value": value,
            "low": low,
            "high": high,
            "level": 0.9,
            "method": "paired",
            "n": 600,
            "n_clusters": 200,
            **more,
        }
    )


def rule(name: str = "usable_rate", verdict: str = "pass", **more: Any) -> RuleVerdict:
    """Make a rule about a share with 70 % in the baseline; its change is -1, -12 or -3 points."""
    change = {"pass": (-0.01, -0.03, 0.01), "regression": (-0.12, -0.16, -0.08)}.get(
        verdict, (-0.03, -0.08, 0.02)
    )
    facts = {
        "id": name,
        "quantity": name,
        "candidate": "alpha",
        "against": "alpha",
        "verdict": verdict,
        "baseline": measure(0.7, 0.65, 0.75),
        "current": measure(0.7 + change[0], 0.6, 0.8),
        "change": measure(*change),
        "margin": 0.05,
        "alpha": 0.05,
        "n_more_chunks": 120 if verdict == "inconclusive" else None,
        "sentence": f"{name} of alpha: {verdict}.",
    }
    return RuleVerdict(**{**facts, **more})


def gate(outcome: Outcome, *rules: RuleVerdict, **more: Any) -> GateReport:
    facts = {
        "outcome": outcome,
        "exit_code": EXIT_CODES[outcome],
        "headline": f"The gate is {outcome}.",
        "policy": "gate.yaml",
        "policy_digest": "p" * 64,
        "run": RunIdentity(
            name="today", created="2026-11-21T10:00:00+00:00", identity=IDENTITY, git_commit="c" * 40
        ),
        "baseline": RunIdentity(name="main", created="2026-11-01T10:00:00+00:00", identity=IDENTITY),
        "rules": rules,
        "certificate": Certificate(state="off"),
        "multiplicity": "one rule, 5 % one-sided",
    }
    return GateReport(**{**facts, **more})


LATENCY = rule(
    "ttft_p95",
    unit="s",
    against="",
    baseline=None,
    change=None,
    margin=None,
    current=measure(0.412, 0.38, 0.45),
    limit=0.8,
    higher_is_better=False,
)
PASS = gate("pass", rule(), LATENCY)
REGRESSION = gate("regression", rule(verdict="regression"), rule("success_rate"))
INCONCLUSIVE = gate("inconclusive", rule(verdict="inconclusive"), rule("success_rate"))
TOLERATED = gate("inconclusive", rule(verdict="inconclusive"), rule("success_rate"), exit_code=0)
UNTRUSTED = gate(
    "untrusted", rule(), certificate=Certificate(state="missing", detail="run `qaeval certify` once")
)
NOT_COMPARABLE = gate("not comparable", notes=("rubric: qa_pair_abc/1 and qa_pair_abc/2",))
EVERY = {
    "pass": PASS,
    "regression": REGRESSION,
    "inconclusive": INCONCLUSIVE,
    "tolerated": TOLERATED,
    "untrusted": UNTRUSTED,
    "not comparable": NOT_COMPARABLE,
}
