"""Sentences of a gate, word for word: one golden file for each view, renewed by ``QAEVAL_GOLDEN=write``."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gate_builders import EVERY
from gate_runs import TODAY, controls, draw_letters, evidence, with_server
from qaeval.cli.gate_tables import print_gate
from qaeval.comparison.model import Reason, Verdict
from qaeval.gate.decide import decide
from qaeval.gate.evidence import Evidence, RaterLabels
from qaeval.gate.model import GateReport
from qaeval.gate.policy import Policy, default_policy
from qaeval.gate.rules import GateInputs
from qaeval.gate.views import to_comment, to_junit, to_markdown

GOLDEN = Path(__file__).parent / "golden"
USABLE = {"quantity": "usable_rate", "margin": 0.05}
VERDICT = Verdict(
    kind="use",
    candidate="alpha",
    leader="alpha",
    condition="if_judge_right",
    reasons=(Reason(code="better", candidates=("beta",)), Reason(code="not_labelled", candidates=("beta",))),
)
DEFAULT = "the default policy, with the verdict of the run"
HALLUCINATION = {"quantity": "hallucination_rate", "margin": 0.03}


def gate(
    run: Evidence,
    baseline: Evidence | None,
    *rules: Mapping[str, Any],
    candidates: Mapping[str, str] | None = None,
    **policy: Any,
) -> GateReport:
    asked = Policy.model_validate({"name": "gate.yaml", "rules": rules, **policy})
    return decide(
        GateInputs(policy=asked, run=run, baseline=baseline, candidates=candidates or {}, today=TODAY)
    )


@cache
def gates() -> dict[str, GateReport]:
    """Return a gate for every kind of sentence, by title."""
    return dict(_gates())


def _gates() -> Iterator[tuple[str, GateReport]]:
    good, same = (
        evidence({"alpha": draw_letters(120, 0.8, seed=1)}),
        evidence({"alpha": draw_letters(120, 0.8, seed=1)}, name="main"),
    )
    bad = evidence({"alpha": draw_letters(120, 0.5, flagged_share=0.2, seed=2)})
    few = evidence({"alpha": draw_letters(40, 0.8, seed=5)})
    yield (
        "passes, one of them with a proven loss",
        gate(
            evidence({"alpha": ["AAA"] * 388 + ["AAB"] * 12}),
            evidence({"alpha": ["AAA"] * 400}, name="main"),
            USABLE,
            HALLUCINATION,
        ),
    )
    yield "regressions", gate(bad, same, USABLE, HALLUCINATION, {**USABLE, "margin": 0.2, "by": "stratum"})
    yield (
        "too little data",
        gate(few, evidence({"alpha": draw_letters(40, 0.8, seed=6)}, name="main"), USABLE, HALLUCINATION),
    )
    yield (
        "too little data that the policy accepts",
        gate(
            few, evidence({"alpha": draw_letters(40, 0.8, seed=6)}, name="main"), USABLE, inconclusive="warn"
        ),
    )
    yield (
        "fewer than ten chunks",
        gate(evidence({"alpha": ["AAA"] * 9}), evidence({"alpha": ["AAB"] * 9}, name="main"), USABLE),
    )
    for limit in (0.5, 0.799, 0.84, 0.95):
        yield f"limit of {limit}", gate(good, None, {"quantity": "usable_rate", "at_least": limit})
    yield (
        "letters that the baseline lacks",
        gate(good, evidence({"alpha": ["AA-", "A--"] * 60}, name="main"), USABLE, HALLUCINATION),
    )
    yield (
        "items that mostly failed, and another candidate",
        gate(
            evidence({"alpha": ["AAA"] * 20 + ["x"] * 80, "beta": ["AAA"] * 100}),
            evidence({"alpha": ["AAA"] * 100, "gamma": ["AAA"] * 100}, name="main"),
            HALLUCINATION,
            inconclusive="warn",
        ),
    )
    yield (
        "times and cost",
        gate(
            timed(good, 1.5),
            timed(same, 1.0),
            *(
                {"quantity": name, "margin": "20%"}
                for name in ("p50_latency", "p95_latency", "p95_ttft", "items_per_s", "cost_per_1000_usable")
            ),
            {"quantity": "p95_latency", "at_most": 5},
        ),
    )
    yield (
        "no times, no labels",
        gate(
            good,
            same,
            {"quantity": "p95_latency", "margin": "20%"},
            {"quantity": "judge_kappa", "at_least": 0.6},
        ),
    )
    yield (
        "kappa",
        gate(
            labelled(good),
            labelled(same),
            {"quantity": "judge_kappa", "margin": 0.15},
            {"quantity": "judge_kappa", "at_least": 0.9},
        ),
    )
    yield (
        "not comparable",
        gate(
            good,
            evidence(
                {"alpha": draw_letters(120, 0.8)},
                name="main",
                identity={"rubric": "qa/2", "rubric_digest": "0" * 64, "samples_digest": "1" * 64},
            ),
            USABLE,
        ),
    )
    yield (
        "judge not trusted",
        gate(good, same, USABLE, certificate="require", certificate_file="certificates/none.json"),
    )
    blind = evidence({"alpha": draw_letters(120, 0.8, seed=1)}, controls=controls("AAAACA"))
    yield "a judge that tells nothing apart", gate(blind, same, USABLE)
    yield "one letter", gate(evidence({"alpha": ["AAA"] * 120}, controls=()), same, USABLE)
    inputs = GateInputs(
        policy=default_policy(good.flags, 120, 3), run=good, baseline=same, candidates={}, today=TODAY
    )
    yield DEFAULT, decide(replace(inputs, comparison=VERDICT))
    yield (
        "an old baseline on other samples, and a judge whose letters vary",
        gate(
            evidence({"alpha": ["AAB"] * 60, "beta": ["AAB"] * 60}),
            evidence(
                {"alpha": ["AAB"] * 50 + ["ABB"] * 10}, name="main", identity={"samples_digest": "1" * 64}
            ),
            USABLE,
            candidates={"alpha": "alpha"},
            samples="may differ",
            stale_after_days=3,
            certificate="warn",
            certificate_file="certificates/none.json",
        ),
    )
    yield (
        "sequential",
        gate(good, same, USABLE).model_copy(
            update={
                "sequential": {
                    "chunks_looked_at": 84,
                    "chunks": 200,
                    "items_graded": 270,
                    "items": 600,
                    "share_saved": 0.55,
                    "power": 0.55,
                    "power_at_once": 0.656,
                }
            }
        ),
    )


def timed(run: Evidence, factor: float) -> Evidence:
    """Return the run with latencies, first tokens and a price; all of them grow with the factor."""
    seconds = np.random.default_rng(0).lognormal(0, 0.3, len(run.sample_ids))
    counts = {0.1 * factor: 500.0, 0.2 * factor: 900.0, 0.4 * factor: 1000.0, inf: 1000.0}
    return with_server(
        run,
        latency_s=seconds * factor,
        ttft=counts,
        work_s=360.0 * factor,
        price=0.1 * factor,
        currency="EUR",
        price_basis=f"EUR {factor:.2f} per hour, l4, as of 2026-01-01",
    )


def labelled(run: Evidence) -> Evidence:
    """Return the run with 300 labels by one rater, nine in ten as the judge's letters."""
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 3, 300)
    judged = np.where(rng.random(300) < 0.9, reference, 1)
    labels = RaterLabels(
        rater="anna", kind="human", reference=reference, judged=judged, clusters=np.arange(300)
    )
    return replace(run, labels=(labels,))


def golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("QAEVAL_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_summaries_are_the_golden_file() -> None:
    golden("gate.md", "\n".join(f"# {title}\n\n{to_markdown(report)}" for title, report in gates().items()))


@pytest.mark.slow
def test_the_terminal_output_is_the_golden_file(capsys: pytest.CaptureFixture[str]) -> None:
    for title in ("regressions", "times and cost", "sequential", DEFAULT):
        print_gate(gates()[title])
    golden("gate.txt", capsys.readouterr().out)


def test_the_comment_is_the_golden_file() -> None:
    shown = [to_comment(gates()[title], "https://ci.example/runs/1") for title in ("regressions", DEFAULT)]
    golden("gate_comment.md", "".join(shown))


def test_the_junit_document_is_the_golden_file() -> None:
    golden("gate_junit.xml", to_junit(EVERY["regression"].model_copy(update={"verdict": VERDICT})))
