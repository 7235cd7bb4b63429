"""Anchors: a gate reports a drift of the judge, of the model or none, with one error rate over all gates."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import qaeval
from gate_runs import draw_letters, evidence
from qaeval.chat.protocol import ChatRequest
from qaeval.errors import UsageError
from qaeval.gate.anchors import Anchor, AnchorLook, attribute, draw_anchors, drift_of
from qaeval.gate.baseline import EvidenceReader
from qaeval.gate.decide import GateRequest, gate
from qaeval.gate.model import DriftReport
from qaeval.gate.policy import Policy
from qaeval.records import Chunk, Item, Sample
from qaeval.registry.find import find_config
from qaeval.report.measure import Measure
from qaeval.stats.drift import drift_evidence, look_alpha, mean_bounds
from qaeval.testing import ScriptedModel, grade_reply, make_run, pairs_reply, registered

POLICY = {
    "drift": "require",
    "certificate": "warn",
    "certificate_file": "c.json",
    "rules": [{"quantity": "usable_rate", "margin": 0.3}],
}


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# ------------------------------------------------------------------------------ the test


def test_levels_of_all_looks_sum_to_alpha() -> None:
    assert look_alpha(1, 0.05) == 0.025
    assert 0.0499 < sum(look_alpha(look, 0.05) for look in range(1, 2000)) < 0.05


def test_mean_capital_over_all_orders_is_one() -> None:
    """Exchangeable looks: the capital averaged over all choices of the last look is 1 for any letters."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 2, size=(4, 6)).astype(float)
    # each item draws its last look independently
    orders = np.stack(np.meshgrid(*[range(4)] * 6, indexing="ij"), axis=-1).reshape(-1, 6)
    looks = np.stack([np.where(orders == 3, scores[3], 0.0)] * 4, axis=1)
    for look in range(4):
        looks[:, look] = scores[look]
    swapped = looks.copy()
    for item in range(6):
        last = orders[:, item]
        swapped[np.arange(len(orders)), last, item] = scores[3, item]
        swapped[:, 3, item] = scores[last, item]
    result = drift_evidence(swapped)
    assert np.exp(result.log_up).mean() == pytest.approx(1)
    assert np.exp(result.log_down).mean() == pytest.approx(1)


def test_change_of_a_long_stable_item_is_stronger_evidence() -> None:
    steady = np.ones((2, 30))
    fallen = np.vstack([steady, np.r_[np.zeros(4), np.ones(26)]])
    longer = np.vstack([np.ones((8, 30)), fallen[-1:]])
    assert drift_evidence(longer).log_down > drift_evidence(fallen).log_down > 0
    assert drift_evidence(fallen).log_up < 0
    assert drift_evidence(np.ones((5, 30))).log_down == 0


def test_missing_score_is_ignored_for_its_item_only() -> None:
    scores = np.random.default_rng(3).integers(0, 2, size=(4, 6)).astype(float)
    scores_with_gap = np.where(np.arange(4)[:, np.newaxis] == 1, np.nan, scores)
    with_gap, without_look = drift_evidence(scores_with_gap), drift_evidence(scores[[0, 2, 3]])
    assert (with_gap.log_up, with_gap.log_down) == (without_look.log_up, without_look.log_down)


@pytest.mark.parametrize("scores", [np.ones(5), np.ones((1, 5)), np.full((2, 5), np.inf)])
def test_fewer_than_two_looks_are_an_error(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="looks"):
        drift_evidence(scores)


@pytest.mark.slow
def test_mean_bounds_cover_and_narrow() -> None:
    rng = np.random.default_rng(4)
    values = rng.choice([-1.0, 0.0, 1.0], p=[0.15, 0.8, 0.05], size=(1000, 150))
    low, high = mean_bounds(values, alpha=0.05)
    assert np.mean((low > -0.1) | (high < -0.1)) <= 0.13
    assert np.mean(high - low) < 0.35
    zero_low, zero_high = mean_bounds(np.zeros(150), alpha=0.0125)
    assert -0.04 < zero_low < 0 < zero_high < 0.04


def draw_anchor_scores(
    rng: np.random.Generator, n_sims: int, n_looks: int, *, noisy: float, moves_at: int = 10**9
) -> np.ndarray:
    """Draw scores of 150 anchors: a share with random letters; a judge that moved gives 10 points fewer best letters."""
    n = 150
    probabilities = np.where(rng.random((n_sims, 1, n)) < 0.6, 1.0, 0.0)
    probabilities = np.where(rng.random((n_sims, 1, n)) < noisy, rng.random((n_sims, 1, n)), probabilities)
    moved_probabilities = np.where(rng.random((n_sims, 1, n)) < 0.1 / 0.6, 0.0, probabilities)
    look_number = np.arange(n_looks)[np.newaxis, :, np.newaxis]
    return (
        rng.random((n_sims, n_looks, n))
        < np.where(look_number >= moves_at, moved_probabilities, probabilities)
    ).astype(float)


def is_drift_reported(scores: np.ndarray) -> np.ndarray:
    """Return for each judge whether drift is reported at any look after the two of the certificate."""
    looks = range(1, scores.shape[-2] - 1)
    moved = [
        drift_evidence(scores[:, : look_number + 2]).moved(look_alpha(look_number, 0.05))
        for look_number in looks
    ]
    return np.asarray(np.any(moved, axis=0))


@pytest.mark.slow
@pytest.mark.parametrize(("noisy", "missing"), [(0.0, 0.0), (0.05, 0.0), (0.2, 0.0), (0.5, 0.0), (0.2, 0.05)])
def test_false_alarm_rate_over_20_gates_is_at_most_5_percent(noisy: float, missing: float) -> None:
    rng = np.random.default_rng(1)
    scores = draw_anchor_scores(rng, 1000, 22, noisy=noisy)
    # the letters of the certificate are never missing
    scores[:, 2:][rng.random((1000, 20, 150)) < missing] = np.nan
    alarms = is_drift_reported(scores)
    sys.stdout.write(
        f"noise {noisy}, missing {missing}: {alarms.mean():.1%} of 1,000 judges called moved in 20 gates\n"
    )
    assert alarms.mean() <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("moves_at", "n_gates"), [(1, 1), (5, 5), (20, 20), (1, 5), (1, 20)])
@pytest.mark.parametrize("noisy", [0.0, 0.05])
def test_judge_drift_of_10_points_is_found_and_not_attributed_to_the_model(
    moves_at: int, n_gates: int, noisy: float
) -> None:
    """The judge moves at one gate and stays there; the model is unchanged, so all change is due to the judge."""
    rng = np.random.default_rng(2)
    n_sims, n_chunks = 300, 200
    scores = draw_anchor_scores(rng, n_sims, n_gates + 2, noisy=noisy, moves_at=moves_at + 1)
    is_drift_found = is_drift_reported(scores)
    # a run of 200 chunks of 3 items, judged before and after
    usable_before = rng.random((n_sims, n_chunks, 3)) < 0.6
    usable_after = usable_before & (rng.random(usable_before.shape) >= 0.1 / 0.6)
    change = usable_after.mean(axis=2) - usable_before.mean(axis=2)
    anchor_changes = scores[:, -1] - scores[:, :2].mean(axis=1)
    (drift_low, drift_high), (low, high) = (
        mean_bounds(values, alpha=0.0125) for values in (anchor_changes, change)
    )
    is_attributed_to_model = ~is_drift_found & ((high - drift_low < 0) | (low - drift_high > 0))
    sys.stdout.write(
        f"moved at gate {moves_at}, asked at gate {n_gates}, noise {noisy}: found {is_drift_found.mean():.1%}, "
        f"called a change of the model {is_attributed_to_model.mean():.1%}\n"
    )
    assert is_drift_found.mean() >= 0.9
    assert is_attributed_to_model.mean() <= 0.05


# ------------------------------------------------------------------------------ attribution


def make_drift_report(outcome: str, low: float, high: float) -> DriftReport:
    change = Measure(value=(low + high) / 2, low=low, high=high, method="betting", n=150, n_clusters=150)
    return DriftReport.model_validate(
        {"outcome": outcome, "change": change, "n_anchors": 150, "sentence": "."}
    )


def test_model_change_is_attributed_beyond_the_possible_judge_drift() -> None:
    baseline, run_evidence = (
        evidence({"alpha": draw_letters(150, 0.9)}),
        evidence({"alpha": draw_letters(150, 0.5, seed=1)}),
    )
    pairs = {"alpha": "alpha"}
    steady = attribute(make_drift_report("nothing", -0.03, 0.03), run_evidence, baseline, pairs)
    (change,) = steady.candidates
    assert steady.outcome == "model moved"
    assert change.net_high < 0
    assert change.change < -0.3
    assert (
        attribute(make_drift_report("nothing", -0.5, 0.1), run_evidence, baseline, pairs).outcome == "nothing"
    )
    assert (
        attribute(make_drift_report("judge moved", -0.5, -0.3), run_evidence, baseline, pairs).outcome
        == "judge moved"
    )
    assert (
        attribute(make_drift_report("nothing", -0.03, 0.03), baseline, baseline, pairs).outcome == "nothing"
    )
    unchecked = DriftReport(outcome="not checked", sentence=".")
    assert attribute(unchecked, run_evidence, baseline, pairs) == unchecked
    assert attribute(make_drift_report("nothing", -0.03, 0.03), run_evidence, None, pairs).candidates == ()


def make_anchor(chunk: int, letters: tuple[str, ...], number: int = 0) -> Anchor:
    sample = Sample.of(Chunk(chunk_id=f"c{chunk}", text="x"))
    item = Item.of(sample.sample_id, 0, type="", question=f"q{number}", answer="a")
    return Anchor(sample=sample, item=item, letters=letters)


def make_look(letters: str) -> AnchorLook:
    return AnchorLook(time="t", run="r", anchors_sha256="s", letters=letters)


def test_stricter_judge_is_found_ignoring_items_without_a_letter() -> None:
    anchors = [make_anchor(index, ("A", "A")) for index in range(40)]
    report = drift_of(anchors, [make_look("A" * 28 + "B" * 10 + "--")], best="A")
    assert (report.outcome, report.look, report.n_anchors, report.n_changed) == ("judge moved", 1, 38, 10)
    assert "stricter" in report.sentence
    assert report.change is not None
    assert report.change.value == pytest.approx(-10 / 38)
    assert drift_of(anchors, [make_look("A" * 40)], best="A").outcome == "nothing"


STEADY = [make_anchor(index, ("A", "A")) for index in range(150)]
STRICTER = make_look("B" * 15 + "A" * 135)


def test_judge_drift_persists_until_a_new_certificate() -> None:
    for number in range(1, 13):
        report = drift_of(STEADY, [STRICTER] * number, best="A")
        assert (report.outcome, report.look, report.n_changed) == ("judge moved", number, 15)
        assert "stricter at look 1" in report.sentence
        # compared with the letters of the certificate, not with those after the drift
        assert report.change is not None
        assert report.change.value == pytest.approx(-0.1)
    later = drift_of(STEADY, [make_look("A" * 150)] * 3 + [STRICTER] * 3, best="A")
    assert (later.outcome, "stricter at look 4" in later.sentence) == ("judge moved", True)
    returned = drift_of(STEADY, [STRICTER, make_look("A" * 150)], best="A")
    assert (returned.outcome, "stricter at look 1" in returned.sentence) == ("judge moved", True)
    assert returned.change is not None
    assert returned.change.value == 0


def test_old_judge_drift_is_not_attributed_to_the_model() -> None:
    """From look 1 on the judge gives B to 11 % of the former A items; the model is unchanged."""
    rng = np.random.default_rng(1)
    baseline_letters = draw_letters(400, 0.9)
    run_letters = [
        "".join("B" if letter == "A" and rng.random() < 0.11 else letter for letter in letters)
        for letters in baseline_letters
    ]
    moved = drift_of(STEADY, [make_look("B" * 17 + "A" * 133)] * 8, best="A")
    report = attribute(
        moved, evidence({"alpha": run_letters}), evidence({"alpha": baseline_letters}), {"alpha": "alpha"}
    )
    (change,) = report.candidates
    assert report.outcome == "judge moved"
    assert change.change == pytest.approx(-0.1, abs=0.02)
    assert change.net_low < 0 < change.net_high


def test_look_with_too_few_letters_is_skipped() -> None:
    for letters, n in (("-" * 150, 0), ("-" * 140 + "A" * 10, 10), ("A" * 134 + "-" * 16, 134)):
        with_skipped_look = drift_of(STEADY, [make_look("A" * 150), make_look(letters)], best="A")
        assert (with_skipped_look.outcome, with_skipped_look.n_anchors, with_skipped_look.change) == (
            "not checked",
            n,
            None,
        )
        assert f"{n} of 150 anchors" in with_skipped_look.sentence
        assert "90 %" in with_skipped_look.sentence
        with_complete_look = drift_of(STEADY, [make_look(letters), make_look("A" * 150)], best="A")
        assert (with_complete_look.outcome, with_complete_look.n_anchors, with_complete_look.look) == (
            "nothing",
            150,
            1,
        )
        assert drift_of(STEADY, [make_look(letters), STRICTER], best="A").outcome == "judge moved"


def test_anchor_without_a_letter_at_one_look_counts_at_other_looks() -> None:
    partial = make_look("-" * 15 + "A" * 135)
    report = drift_of(STEADY, [partial], best="A")
    assert (report.outcome, report.n_anchors) == ("nothing", 135)
    report = drift_of(STEADY, [partial, partial, STRICTER], best="A")
    assert (report.outcome, report.look, report.n_anchors, report.n_changed) == ("judge moved", 3, 150, 15)


def test_drawn_anchors_cover_all_chunks() -> None:
    stored = [make_anchor(chunk, ("A",), number) for chunk in range(10) for number in range(3)]
    items = {
        stored_anchor.item.item_id: (stored_anchor.sample, stored_anchor.item) for stored_anchor in stored
    }
    letters = dict.fromkeys([*items][:-1], "A")
    drawn = draw_anchors(items, letters, 12)
    assert len({sample.sample_id for sample, _ in drawn[:10]}) == 10
    assert len({item.item_id for _, item in drawn}) == 12
    assert draw_anchors(items, letters, 12) == drawn
    assert len(draw_anchors(items, letters, 100)) == 29


# ------------------------------------------------------------------------------ gates

TYPES = ("factual", "conceptual", "comparison")


def write_pairs(request: ChatRequest) -> str:
    text = request.inputs["chunk"]
    return pairs_reply(
        [(kind, f"{kind}: what of {text[:30]}?", text[: 100 + 7 * n]) for n, kind in enumerate(TYPES)]
    )


class Judge:
    """Gives C to one in five items; if strict, to three in five; if mute, no letter."""

    def __init__(self) -> None:
        self.strict = self.mute = False
        self.n_requests = 0

    def __call__(self, request: ChatRequest) -> str:
        self.n_requests += 1
        if self.mute:
            return "?"
        is_bad = sum(map(ord, request.inputs["question"])) % 5 < (3 if self.strict else 1)
        return grade_reply("C" if is_bad else "A")


@pytest.fixture
def judge() -> Judge:
    return Judge()


def labelled_run(tmp_path: Path) -> tuple[Path, Path]:
    """Make a run and labels that the judge agrees with."""
    run = qaeval.compare(
        "writes", judge="judge", eval_name="qa_pairs", n=30, out=tmp_path / "run", cache=False
    )
    rows = [
        {"item_id": item, "label": letter, "rater": "anna"}
        for item, letter in run.letters[["item_id", "letter"]].itertuples(index=False)
    ]
    labels = tmp_path / "anna.jsonl"
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run.path, labels


@pytest.mark.slow
def test_gate_grades_anchors_and_trusts_the_judge_until_it_drifts(tmp_path: Path, judge: Judge) -> None:
    with registered("writes", ScriptedModel(write_pairs)), registered("judge", ScriptedModel(judge)):
        run, labels = labelled_run(tmp_path)
        issued = qaeval.certify("judge", run=run, labels=labels, anchors=60, out="c.json")
        assert issued.anchors_sha256
        n_requests_before = judge.n_requests
        first = qaeval.gate(run, baseline=run, policy=POLICY)
        assert judge.n_requests == n_requests_before + 60
        assert (first.outcome, first.drift and first.drift.outcome) == ("pass", "nothing")
        assert first.drift is not None
        assert (first.drift.n_anchors, first.drift.n_changed, first.drift.look) == (60, 0, 1)
        judge.strict = True
        second = qaeval.gate(run, baseline=run, policy=POLICY)
        assert (second.outcome, second.exit_code, second.drift and second.drift.look) == ("untrusted", 3, 2)
        assert "stricter" in second.headline
        assert [rule.verdict for rule in second.rules] == ["inconclusive"]
        warned = qaeval.gate(run, baseline=run, policy={**POLICY, "drift": "warn"})
        assert warned.outcome == "pass"
        assert any("stricter" in note for note in warned.notes)
        assert qaeval.gate(run, baseline=run, policy={**POLICY, "drift": "off"}).drift is None


@pytest.mark.slow
def test_gate_with_a_silent_judge_does_not_affect_the_next_gate(tmp_path: Path, judge: Judge) -> None:
    with registered("writes", ScriptedModel(write_pairs)), registered("judge", ScriptedModel(judge)):
        run, labels = labelled_run(tmp_path)
        qaeval.certify("judge", run=run, labels=labels, anchors=60, out="c.json")
        judge.mute = True
        silent = qaeval.gate(run, baseline=run, policy=POLICY)
        assert (silent.exit_code, silent.drift and silent.drift.outcome) == (3, "not checked")
        assert "0 of 60 anchors" in silent.headline
        assert not Path("c.looks.jsonl").exists()
        judge.mute = False
        next_report = qaeval.gate(run, baseline=run, policy=POLICY)
        assert (next_report.outcome, next_report.drift and next_report.drift.look) == ("pass", 1)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["edited", "gone", "none", "looks", "rubric"])
def test_invalid_anchors_end_with_exit_code_3(tmp_path: Path, judge: Judge, damage: str) -> None:
    with registered("writes", ScriptedModel(write_pairs)), registered("judge", ScriptedModel(judge)):
        run, labels = labelled_run(tmp_path)
        issued = qaeval.certify(
            "judge", run=run, labels=labels, anchors=0 if damage == "none" else 20, out="c.json"
        )
        anchors = Path("c.anchors.jsonl")
        if damage == "edited":
            anchors.write_text(anchors.read_text().replace('"A"', '"C"', 1))
        elif damage == "gone":
            anchors.unlink()
        elif damage == "looks":
            Path("c.looks.jsonl").write_text('{"time":"t","run":"r","anchors_sha256":"x","letters":"A"}\n')
        elif damage == "rubric":
            certified = issued.certified.model_copy(update={"rubric_digest": "0" * 64})
            issued.model_copy(update={"certified": certified}).write(Path("c.json"))
        n_requests_before = judge.n_requests
        report = qaeval.gate(run, baseline=run, policy=POLICY)
        assert (report.exit_code, report.drift and report.drift.outcome) == (3, "not checked")
        assert judge.n_requests == n_requests_before


@pytest.mark.slow
@pytest.mark.parametrize("registry", ["without the judge", "with another one"])
def test_a_judge_that_the_registry_does_not_have_ends_3_or_is_noted(
    tmp_path: Path, judge: Judge, registry: str
) -> None:
    with registered("writes", ScriptedModel(write_pairs)), registered("judge", ScriptedModel(judge)):
        run, labels = labelled_run(tmp_path)
        qaeval.certify("judge", run=run, labels=labels, anchors=20, out="c.json")
    if registry == "with another one":
        Path("qaeval.yaml").write_text("judges:\n  judge: {url: 'http://127.0.0.1:9', family: j}\n")
    required = qaeval.gate(run, baseline=run, policy=POLICY)
    assert (required.exit_code, required.drift and required.drift.outcome) == (3, "not checked")
    assert "the anchors are not checked: " in required.headline
    warned = qaeval.gate(run, baseline=run, policy={**POLICY, "drift": "warn"})
    assert (warned.exit_code, "Anchors: the anchors are not checked" in warned.notes[0]) == (0, True)


@pytest.mark.slow
def test_gate_without_an_engine_cannot_grade_anchors(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"mistral": ["AAB"] * 12})
    request = GateRequest(run=run.path, baseline=str(run.path), policy=Policy.model_validate(POLICY))
    with registered("scripted-judge", ScriptedModel([])), pytest.raises(UsageError, match="engine"):
        gate(request, EvidenceReader(config=find_config(None)))
