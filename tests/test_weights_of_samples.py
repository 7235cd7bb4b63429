"""Runs with samples of unequal inclusion probability: rates and verdicts are weighted to the whole corpus."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gate_runs import TODAY, evidence
from qaeval.cli import run
from qaeval.corpus.samples import load_samples
from qaeval.corpus.sampling import draw
from qaeval.evals.find import find_eval
from qaeval.gate.baseline import evidence_digest, evidence_json, read_baseline, write_baseline
from qaeval.gate.decide import decide
from qaeval.gate.evidence import Evidence
from qaeval.gate.model import GateReport
from qaeval.gate.policy import Policy
from qaeval.gate.rules import GateInputs, cases_of
from qaeval.gate.sequential import SequentialMonitor, grading_order
from report_builders import Case, case, items_of, label_of

approx = pytest.approx
HEAVY = 0.2


def weighted(example: Case, inclusion: float = HEAVY) -> Case:
    """Change the inclusion of every second sample, the stratum ``pumps``: 0.2 means a weight of five."""
    samples = tuple(
        sample.model_copy(update={"inclusion": inclusion if sample.stratum == "pumps" else 1.0})
        for sample in example.rows.samples
    )
    return example.with_rows(samples=samples)


def two_strata(n: int = 40) -> Case:
    """Make a run in which alpha is good at valves and bad at pumps, and beta the other way round."""
    return case({"alpha": ["AAB", "BBC"] * (n // 2), "beta": ["ABB", "AAA"] * (n // 2)})


@pytest.mark.slow
def test_rates_and_differences_are_weighted_by_inclusion() -> None:
    example = two_strata()
    unweighted, report = example.report(), weighted(example).report()
    # valves weigh 1, pumps 5: (2/3 + 5 * 0) / 6 and (1/3 + 5 * 1) / 6
    alpha, beta = (candidate.usable for candidate in report.candidates)
    assert (alpha.value, beta.value) == approx((1 / 9, 8 / 9))
    assert alpha.n == 120
    assert [candidate.usable.value for candidate in unweighted.candidates] == approx([1 / 3, 2 / 3])
    (pair,) = report.differences
    assert pair.difference.value == approx(7 / 9)
    assert pair.chunks == unweighted.differences[0].chunks, "a table of counts is of the sample"
    assert [rate.usable.value for group in report.strata for rate in group.rates] == approx(
        [0, 1, 2 / 3, 1 / 3]
    )
    assert report.candidates[0].letters[0].n == unweighted.candidates[0].letters[0].n


@pytest.mark.slow
def test_only_weighted_reports_state_the_effective_sample_size() -> None:
    example = two_strata()
    report = weighted(example).report()
    assert report.weights is not None
    # the square of the sum of 20 weights of 1 and 20 of 5, over the sum of their squares
    assert report.weights.n_effective == approx(120**2 / 520)
    assert (report.weights.smallest, report.weights.largest) == (HEAVY, 1.0)
    assert any(sentence.text.startswith("Weighted by inclusion") for sentence in report.headline)
    assert "weights" not in example.report().model_dump()


@pytest.mark.slow
def test_equal_inclusion_probabilities_change_nothing() -> None:
    example = two_strata()
    equally_weighted = example.with_rows(
        samples=tuple(sample.model_copy(update={"inclusion": 0.1}) for sample in example.rows.samples)
    )
    assert equally_weighted.report() == example.report()


@pytest.mark.slow
def test_ranking_is_weighted() -> None:
    # gamma wins at valves, alpha at pumps, and beta is last everywhere but in a few chunks
    letters = {
        "alpha": ["BBB", "AAA"] * 18 + ["BBB", "BBB"] * 2,
        "beta": ["BBB", "BBB"] * 18 + ["AAA", "AAA"] * 2,
        "gamma": ["AAA", "BBB"] * 18 + ["BBB", "BBB"] * 2,
    }
    ranking = weighted(case(letters)).report().ranking
    assert ranking[0].candidate == "alpha"
    assert weighted(case(letters), inclusion=1.0).report().ranking != ranking


def test_labelled_rates_are_weighted() -> None:
    example = two_strata(80)
    labels = [label_of(item, "A") for name in ("alpha", "beta") for item in items_of(example, name)[: 3 * 40]]
    report = weighted(example.with_rows(labels=labels)).report()
    usable = [rate for rate in report.labelled_rates if rate.name == "usable"]
    assert [rate.labels.value for rate in usable] == [1.0, 1.0]
    assert [rate.judged for rate in usable] == approx([1 / 9, 8 / 9])
    (labelled,) = report.differences[0].labelled
    assert labelled.labels.value == 0.0
    assert labelled.error.value == approx(7 / 9)


# --------------------------------------------------------------------------------- gate

GOOD = {"alpha": ["AAA", "AAA"] * 30}
WORSE_AT_PUMPS = {"alpha": ["AAA", "AAB", "AAA", "ABB"] * 15}


def evidence_of_run(letters: Mapping[str, Sequence[str]], **options: Any) -> Evidence:
    return evidence(letters, samples=weighted(case(letters)).rows.samples, **options)


def gate(run_: Evidence, baseline: Evidence | None, **rule: Any) -> GateReport:
    policy = Policy.model_validate({"rules": [{"quantity": "usable_rate", **rule}]})
    inputs = GateInputs(policy=policy, run=run_, baseline=baseline, candidates={}, today=TODAY)
    return decide(inputs)


def test_absolute_limit_applies_to_the_weighted_rate() -> None:
    letters = {"alpha": ["AAA", "BBB"] * 30}
    (unweighted,), (rule,) = (
        gate(run_, None, at_least=0.3).rules for run_ in (evidence(letters), evidence_of_run(letters))
    )
    assert (unweighted.current.value, unweighted.verdict) == (0.5, "pass")
    assert (rule.current.value, rule.verdict) == (approx(1 / 6), "regression")
    assert rule.current.n == 180
    # effective number of chunks: the square of the sum of 30 weights of 1 and 30 of 5, over the sum of their squares
    assert (evidence(letters).n_effective_chunks, evidence_of_run(letters).n_effective_chunks) == (60, 41)


def test_loss_in_heavily_weighted_samples_is_found() -> None:
    run_, baseline = evidence_of_run(WORSE_AT_PUMPS), evidence_of_run(GOOD)
    report = gate(run_, baseline, margin=0.05)
    (rule,) = report.rules
    # pumps lost half of their items, and stand for 5 of 6 chunks
    assert rule.change is not None
    assert rule.change.value == approx(-5 / 12)
    assert rule.change.n == 180
    assert rule.verdict == "regression"
    assert any(note.startswith("Weighted by inclusion") for note in report.notes)
    (unweighted,) = gate(evidence(WORSE_AT_PUMPS), evidence(GOOD), margin=0.05).rules
    assert unweighted.change is not None
    assert unweighted.change.value == approx(-1 / 4)


def test_gate_does_not_pass_when_few_heavy_chunks_tie() -> None:
    # each of the 12 drawn pumps weighs 50 valves, and all tie: a loss in a twentieth of the pumps may be undetected
    letters = {"alpha": ["AAA"] * 24}
    samples = weighted(case(letters), 0.02).rows.samples
    run_, baseline = (evidence(letters, samples=samples) for _ in range(2))
    (rule,) = gate(run_, baseline, margin=0.05).rules
    assert rule.verdict == "inconclusive"
    assert rule.change is not None
    assert rule.change.low is not None
    # with probability 5 %, none of 12 drawn chunks shows a share of 1 - 0.05 ** (1 / 12)
    assert rule.change.low <= -(1 - 0.05 ** (1 / 12))


def test_baseline_file_keeps_weights(tmp_path: Path) -> None:
    run_evidence = evidence_of_run(WORSE_AT_PUMPS)
    write_baseline(run_evidence, tmp_path / "b.json")
    baseline = read_baseline(tmp_path / "b.json")
    assert isinstance(baseline, Evidence)
    assert evidence_digest(baseline) == evidence_digest(run_evidence)
    assert baseline.weights is not None
    assert baseline.weights.tolist() == approx([1 / 3, 5 / 3] * 30)
    assert "weights" not in json.loads(evidence_json(evidence(GOOD)))


def test_sequential_gate_uses_the_same_weights() -> None:
    run_, baseline = evidence_of_run(WORSE_AT_PUMPS), evidence_of_run(GOOD)
    policy = Policy.model_validate({"rules": [{"quantity": "usable_rate", "margin": 0.05}]})
    inputs = GateInputs(policy=policy, run=run_, baseline=baseline, candidates={}, today=TODAY)
    monitor = SequentialMonitor(cases_of(inputs), run_, baseline, alpha=0.05)
    for chunk in grading_order(run_, 0):
        monitor.update(chunk, {})
    (case_,) = monitor.cases()
    assert case_.estimate.current is not None
    assert case_.estimate.current(0.9).value == approx(7 / 12)
    assert case_.estimate.current(0.9).n == 180
    assert case_.p_worse < 0.05


# --------------------------------------------------------------------------------- from the command line


@pytest.fixture
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("eval_name", ["qa_pairs", "rag_qa", "dpo_pairs"])
def test_a_drawn_file_keeps_ids_and_weights(working_directory: Path, eval_name: str) -> None:
    command = ["sample", "--eval", eval_name, "--n", "20", "--seed", "3", "--allocation", "equal"]
    assert run([*command, "--out", "drawn.jsonl"]) == 0
    definition = find_eval(eval_name)
    drawn = draw(load_samples(definition), n=20, seed=3, allocation="equal")
    option = "chunks" if eval_name == "qa_pairs" else "samples"
    loaded = load_samples(definition, **{option: working_directory / "drawn.jsonl"})
    assert {sample.sample_id: sample.weight for sample in loaded} == approx(
        {sample.sample_id: sample.weight for sample in drawn}
    )
    assert len({sample.weight for sample in loaded}) > 1


def test_invalid_inclusion_probability_is_refused(
    working_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (working_directory / "chunks.jsonl").write_text(
        '{"chunk_id": "a", "text": "The pump starts.", "inclusion": 20}\n'
    )
    assert run(["sample", "--chunks", "chunks.jsonl"]) == 65
    assert (
        "chunks.jsonl:1: 'inclusion': expected a probability above 0, at most 1, got 20"
        in capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_weights_from_the_draw_to_the_gate(
    working_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sample", "--n", "40", "--allocation", "equal", "--out", "drawn.jsonl"]) == 0
    command = ["compare", "embedded-lead", "embedded-salient", "--chunks", "drawn.jsonl", "--yes"]
    assert run([*command, "--out", "first"]) == 0
    direct = ["compare", "embedded-lead", "embedded-salient", "--n", "40", "--allocation", "equal", "--yes"]
    assert run([*direct, "--out", "direct"]) == 0
    first, second = (
        json.loads((working_directory / name / "report.json").read_text()) for name in ("first", "direct")
    )
    assert first["weights"] == second["weights"]
    assert [candidate["usable"] for candidate in first["candidates"]] == [
        candidate["usable"] for candidate in second["candidates"]
    ]
    by_stratum = {group["stratum"]: group["rates"][1]["usable"]["value"] for group in first["strata"]}
    sizes = Counter(sample.stratum for sample in load_samples(find_eval("qa_pairs")))
    expected = sum(sizes[name] * rate for name, rate in by_stratum.items()) / sizes.total()
    assert first["candidates"][1]["usable"]["value"] == approx(expected)
    assert "Weighted by inclusion probability" in (working_directory / "first" / "report.md").read_text()
    assert run(["baseline", "set", "first", "--out", "b.json"]) == 0
    capsys.readouterr()
    run(["gate", "direct", "--baseline", "b.json", "--json"])
    report = json.loads(capsys.readouterr().out)
    rates = {
        rule["candidate"]: rule["current"]["value"]
        for rule in report["rules"]
        if rule["quantity"] == "usable_rate"
    }
    assert rates["embedded-salient"] == approx(expected)
    assert any("Weighted by inclusion" in note for note in report["notes"])
    assert run(["export", "direct", "--to", "csv", "--out", "items"]) == 0
    with next((working_directory / "items").glob("*.csv")).open(newline="") as file:
        inclusion = {row["sample_id"]: float(row["inclusion"]) for row in csv.DictReader(file)}
    drawn = [
        json.loads(line) for line in (working_directory / "direct" / "samples.jsonl").read_text().splitlines()
    ]
    assert inclusion == approx({sample["sample_id"]: sample.get("inclusion", 1.0) for sample in drawn})
