"""Soft grades: probabilities of the letters, alone and against labels, in agreement, report and page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qaeval
from qaeval.api import Run
from qaeval.calibration.analysis import expected_grades
from qaeval.calibration.sections import reliability_diagram
from qaeval.chat.protocol import Alternatives
from qaeval.cli import run as command
from qaeval.comparison.report_file import load_report
from qaeval.report.chart import DARK
from qaeval.run.grade import letter_probabilities
from qaeval.stats.calibration import area_under_curve, brier_score, cross_fitted, fit_isotonic
from qaeval.testing import make_run

WORDS = ["AAB", "ABC", "BCA", "CAA", "ABB", "CCA"] * 8


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def with_probabilities(run: Run, seed: int = 1) -> Run:
    """Let the judge say A to everything, with a probability of A that is higher where the label is A."""
    rng = np.random.default_rng(seed)
    labels = {row["item_id"]: row["label"] for row in rows_of(run.path / "labels" / "anna.jsonl")}
    rows = []
    for row in rows_of(run.path / "grades.jsonl"):
        best = float(np.clip(rng.normal(0.8 if labels.get(row["item_id"]) == "A" else 0.6, 0.1), 0.42, 0.95))
        rest = 1 - best
        rows.append({**row, "letter": "A", "probabilities": {"A": best, "B": 0.6 * rest, "C": 0.4 * rest}})
    (run.path / "grades.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return qaeval.load_run(run.path, labels=run.path / "labels" / "anna.jsonl")


@pytest.fixture(scope="module")
def soft(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("soft") / "run"
    return with_probabilities(make_run(path, {"mistral": WORDS}, labels={"anna": {"mistral": WORDS}}))


def test_a_probability_tells_what_a_letter_that_is_always_the_same_hides(soft: Run) -> None:
    report = soft.agreement()
    assert report.soft is not None
    (check,) = report.soft.checks
    assert (check.rater, check.rater_kind, check.n, check.n_chunks) == ("anna", "human", 144, 48)
    assert check.auc_letter.value == 0.5
    assert check.auc.low is not None
    assert check.auc.low > 0.8
    assert check.kappa_letter.value == 0
    assert (check.kappa_threshold.low or 0) > 0.5
    assert check.threshold == pytest.approx(0.7, abs=0.05)
    assert check.brier_isotonic is not None
    assert check.brier_isotonic < check.brier < check.brier_letter
    assert check.ece > 2 * check.ece_expected
    assert check.ece_p < 0.01
    assert sum(bin_.n for bin_ in check.bins) == 144


def test_expected_grades_are_spaced_evenly_from_worst_to_best(soft: Run) -> None:
    assert expected_grades(np.array([[1.0, 0, 0], [0, 1, 0], [0.2, 0.5, 0.3]])).tolist() == [1.0, 0.5, 0.45]
    grades = soft.agreement().soft
    assert grades is not None
    (candidate,) = grades.candidates
    assert (grades.n, grades.n_items, candidate.share_best.value) == (144, 144, 1.0)
    assert candidate.probability.value is not None
    # of what is not A, 60 % is B, which counts one half
    expected = candidate.probability.value + 0.3 * (1 - candidate.probability.value)
    assert candidate.expected.value == pytest.approx(expected)
    assert grades.lowest < candidate.probability.value < grades.highest


@pytest.mark.slow
def test_probabilities_that_follow_no_label_tell_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"mistral": WORDS}, labels={"anna": {"mistral": WORDS}})
    rng = np.random.default_rng(2)
    rows = []
    for row in rows_of(run.path / "grades.jsonl"):
        p = float(rng.uniform(0.4, 0.9))
        rows.append({**row, "probabilities": {"A": p, "B": 1 - p, "C": 0.0}})
    (run.path / "grades.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = qaeval.load_run(run.path, labels=run.path / "labels" / "anna.jsonl").agreement()
    assert report.soft is not None
    (check,) = report.soft.checks
    assert check.auc.low is not None
    assert check.auc.high is not None
    assert check.auc.low < 0.5 < check.auc.high


@pytest.mark.slow
def test_a_perfect_order_has_a_lower_bound(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"mistral": WORDS}, labels={"anna": {"mistral": WORDS}})
    labels = {row["item_id"]: row["label"] for row in rows_of(run.path / "labels" / "anna.jsonl")}
    rows = []
    for row in rows_of(run.path / "grades.jsonl"):
        p = 0.9 if labels[row["item_id"]] == "A" else 0.6
        rows.append({**row, "letter": "A", "probabilities": {"A": p, "B": 1 - p, "C": 0.0}})
    (run.path / "grades.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = qaeval.load_run(run.path, labels=run.path / "labels" / "anna.jsonl").agreement()
    assert report.soft is not None
    (check,) = report.soft.checks
    # 48 chunks, so 24 pairs of them
    assert (check.auc.value, check.auc.low) == (1.0, pytest.approx(0.025 ** (1 / 24)))
    assert [bin_.share.value for bin_ in check.bins] == [0.0, 1.0]


def test_a_run_without_probabilities_says_nothing_of_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"mistral": WORDS}, labels={"anna": {"mistral": WORDS}})
    report = run.agreement()
    assert report.soft is None
    assert "soft" not in json.loads(report.model_dump_json())
    assert run.report.soft is None


@pytest.mark.slow
def test_the_report_has_section_and_diagram_where_there_are_labels(
    soft: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    path = soft.write_report()
    report = load_report(path)
    assert report.soft == soft.agreement().soft
    page = (path / "report.html").read_text()
    assert 'id="soft-grades"' in page
    assert "Reliability of the probability of A" in page
    markdown = (path / "report.md").read_text()
    assert "charts/reliability.svg" in markdown
    assert (path / "charts" / "reliability.svg").read_text().startswith("<?xml")
    assert command(["agreement", str(path), "--labels", str(path / "labels" / "anna.jsonl")]) == 0
    assert "area under the curve" in capsys.readouterr().out
    unlabelled = qaeval.load_run(path, labels=[])
    assert unlabelled.report.soft is None


def test_a_chart_is_the_same_each_time(soft: Run) -> None:
    grades: Any = soft.agreement().soft
    chart = reliability_diagram(grades, "A")
    assert chart is not None
    assert chart.svg() == chart.svg()
    assert chart.svg(DARK) != chart.svg()
    assert reliability_diagram(grades.model_copy(update={"checks": ()}), "A") is None


def _distributions(logits: np.ndarray[Any, Any], n_listed: int) -> np.ndarray[Any, Any]:
    """Return what is read of a token's alternatives: A, B, C, each with and without a quotation mark, and other words."""
    tokens = [*"ABC", 'A"', 'B"', 'C"', *(f"word {number}" for number in range(30))]
    rows = []
    for row in logits:
        logprobs = row - np.log(np.exp(row).sum())
        listed = np.argsort(-logprobs)[:n_listed]
        top = {tokens[index]: float(logprobs[index]) for index in listed}
        rows.append(
            list((letter_probabilities(Alternatives(tokens[listed[0]], 0, top), "ABC") or {}).values())
        )
    return np.array(rows)


def test_five_alternatives_give_the_calibrated_results_of_twenty() -> None:
    rng = np.random.default_rng(7)
    n = 600
    letters = rng.normal(0, 2, (n, 3))
    quoted = letters + rng.normal(-2, 0.5, (n, 3))
    words = rng.normal(-6, 1, (n, 30))
    logits = np.hstack([letters + 2, quoted + 2, words])
    five, twenty = _distributions(logits, 5), _distributions(logits, 20)
    assert np.abs(five - twenty).max() < 0.05
    assert np.abs(five - twenty).mean() < 0.005
    outcomes = (rng.random(n) < twenty[:, 0] ** 1.3).astype(float)
    chunks = np.arange(n) // 3
    for measure in (brier_score, area_under_curve):
        assert measure(five[:, 0], outcomes) == pytest.approx(measure(twenty[:, 0], outcomes), abs=0.001)
    by_five, by_twenty = (cross_fitted(fit_isotonic, p[:, 0], outcomes, chunks) for p in (five, twenty))
    assert brier_score(by_five, outcomes) == pytest.approx(brier_score(by_twenty, outcomes), abs=0.002)
    assert np.abs(np.asarray(by_five) - np.asarray(by_twenty)).mean() < 0.01
