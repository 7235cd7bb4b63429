"""Anchors: a judge that moved, a model that moved, or nothing; at every gate, with one error rate over all of them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import qaeval
from gate_runs import evidence, words
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
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# ------------------------------------------------------------------------------ the test


def test_the_levels_of_all_looks_together_are_alpha() -> None:
    assert look_alpha(1, 0.05) == 0.025
    assert 0.0499 < sum(look_alpha(look, 0.05) for look in range(1, 2000)) < 0.05


def test_a_bettor_gains_on_the_average_of_all_orders_exactly_nothing() -> None:
    """Exchangeable looks: the mean capital over which look came last is 1, whatever the letters were."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 2, size=(4, 6)).astype(float)
    # every item draws its last look on its own
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


def test_an_item_that_never_changed_says_most_when_it_does() -> None:
    steady = np.ones((2, 30))
    fallen = np.vstack([steady, np.r_[np.zeros(4), np.ones(26)]])
    longer = np.vstack([np.ones((8, 30)), fallen[-1:]])
    assert drift_evidence(longer).log_down > drift_evidence(fallen).log_down > 0
    assert drift_evidence(fallen).log_up < 0
    assert drift_evidence(np.ones((5, 30))).log_down == 0


def test_a_look_without_a_score_of_an_item_is_left_out_of_that_item_alone() -> None:
    scores = np.random.default_rng(3).integers(0, 2, size=(4, 6)).astype(float)
    gap = np.where(np.arange(4)[:, np.newaxis] == 1, np.nan, scores)
    whole, without = drift_evidence(gap), drift_evidence(scores[[0, 2, 3]])
    assert (whole.log_up, whole.log_down) == (without.log_up, without.log_down)


@pytest.mark.parametrize("scores", [np.ones(5), np.ones((1, 5)), np.full((2, 5), np.inf)])
def test_fewer_than_two_looks_are_an_error(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="looks"):
        drift_evidence(scores)


@pytest.mark.slow
def test_bounds_hold_their_mean_and_narrow() -> None:
    rng = np.random.default_rng(4)
    values = rng.choice([-1.0, 0.0, 1.0], p=[0.15, 0.8, 0.05], size=(1000, 150))
    low, high = mean_bounds(values, alpha=0.05)
    assert np.mean((low > -0.1) | (high < -0.1)) <= 0.13
    assert np.mean(high - low) < 0.35
    zero_low, zero_high = mean_bounds(np.zeros(150), alpha=0.0125)
    assert -0.04 < zero_low < 0 < zero_high < 0.04


def anchors_of(
    rng: np.random.Generator, n_sims: int, n_looks: int, *, noisy: float, moves_at: int = 10**9
) -> np.ndarray:
    """Draw scores of 150 anchors: a share with a letter by chance each time; a judge that moves takes 10 points of the best letters."""
    n = 150
    p = np.where(rng.random((n_sims, 1, n)) < 0.6, 1.0, 0.0)
    p = np.where(rng.random((n_sims, 1, n)) < noisy, rng.random((n_sims, 1, n)), p)
    moved = np.where(rng.random((n_sims, 1, n)) < 0.1 / 0.6, 0.0, p)
    look = np.arange(n_looks)[np.newaxis, :, np.newaxis]
    return (rng.random((n_sims, n_looks, n)) < np.where(look >= moves_at, moved, p)).astype(float)


def called_moved(scores: np.ndarray) -> np.ndarray:
    """Return of each judge whether it is called moved at any look after the two of the certificate."""
    looks = range(1, scores.shape[-2] - 1)
    moved = [drift_evidence(scores[:, : k + 2]).moved(look_alpha(k, 0.05)) for k in looks]
    return np.asarray(np.any(moved, axis=0))


@pytest.mark.slow
@pytest.mark.parametrize(("noisy", "missing"), [(0.0, 0.0), (0.05, 0.0), (0.2, 0.0), (0.5, 0.0), (0.2, 0.05)])
def test_an_unchanged_judge_is_called_moved_in_at_most_5_percent_of_20_gates_together(
    noisy: float, missing: float
) -> None:
    rng = np.random.default_rng(1)
    scores = anchors_of(rng, 1000, 22, noisy=noisy)
    # the letters of the certificate are never missing
    scores[:, 2:][rng.random((1000, 20, 150)) < missing] = np.nan
    alarms = called_moved(scores)
    sys.stdout.write(
        f"noise {noisy}, missing {missing}: {alarms.mean():.1%} of 1,000 judges called moved in 20 gates\n"
    )
    assert alarms.mean() <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("moves_at", "n_gates"), [(1, 1), (5, 5), (20, 20), (1, 5), (1, 20)])
@pytest.mark.parametrize("noisy", [0.0, 0.05])
def test_a_judge_that_moves_10_points_is_found_and_not_called_a_regression_of_the_model(
    moves_at: int, n_gates: int, noisy: float
) -> None:
    """The judge moves at a gate and stays so; the model is as before: all of its change is the judge's."""
    rng = np.random.default_rng(2)
    n_sims, n_chunks = 300, 200
    scores = anchors_of(rng, n_sims, n_gates + 2, noisy=noisy, moves_at=moves_at + 1)
    moved = called_moved(scores)
    # a run of 200 chunks of 3 items, judged before and after
    before = rng.random((n_sims, n_chunks, 3)) < 0.6
    after = before & (rng.random(before.shape) >= 0.1 / 0.6)
    change = after.mean(axis=2) - before.mean(axis=2)
    drift = scores[:, -1] - scores[:, :2].mean(axis=1)
    (drift_low, drift_high), (low, high) = (mean_bounds(x, alpha=0.0125) for x in (drift, change))
    blamed = ~moved & ((high - drift_low < 0) | (low - drift_high > 0))
    sys.stdout.write(
        f"moved at gate {moves_at}, asked at gate {n_gates}, noise {noisy}: found {moved.mean():.1%}, "
        f"called a change of the model {blamed.mean():.1%}\n"
    )
    assert moved.mean() >= 0.9
    assert blamed.mean() <= 0.05


# ------------------------------------------------------------------------------ attribution


def drift(outcome: str, low: float, high: float) -> DriftReport:
    change = Measure(value=(low + high) / 2, low=low, high=high, method="betting", n=150, n_clusters=150)
    return DriftReport.model_validate(
        {"outcome": outcome, "change": change, "n_anchors": 150, "sentence": "."}
    )


def test_a_model_moved_only_by_what_the_judge_cannot_have() -> None:
    before, after = evidence({"alpha": words(150, 0.9)}), evidence({"alpha": words(150, 0.5, seed=1)})
    pairs = {"alpha": "alpha"}
    steady = attribute(drift("nothing", -0.03, 0.03), after, before, pairs)
    (change,) = steady.candidates
    assert steady.outcome == "model moved"
    assert change.net_high < 0
    assert change.change < -0.3
    assert attribute(drift("nothing", -0.5, 0.1), after, before, pairs).outcome == "nothing"
    assert attribute(drift("judge moved", -0.5, -0.3), after, before, pairs).outcome == "judge moved"
    assert attribute(drift("nothing", -0.03, 0.03), before, before, pairs).outcome == "nothing"
    unchecked = DriftReport(outcome="not checked", sentence=".")
    assert attribute(unchecked, after, before, pairs) == unchecked
    assert attribute(drift("nothing", -0.03, 0.03), after, None, pairs).candidates == ()


def anchor(chunk: int, letters: tuple[str, ...], number: int = 0) -> Anchor:
    sample = Sample.of(Chunk(chunk_id=f"c{chunk}", text="x"))
    item = Item.of(sample.sample_id, 0, type="", question=f"q{number}", answer="a")
    return Anchor(sample=sample, item=item, letters=letters)


def look(letters: str) -> AnchorLook:
    return AnchorLook(time="t", run="r", anchors_sha256="s", letters=letters)


def test_a_stricter_judge_is_found_and_items_without_a_letter_do_not_count() -> None:
    anchors = [anchor(index, ("A", "A")) for index in range(40)]
    report = drift_of(anchors, [look("A" * 28 + "B" * 10 + "--")], best="A")
    assert (report.outcome, report.look, report.n_anchors, report.n_changed) == ("judge moved", 1, 38, 10)
    assert "stricter" in report.sentence
    assert report.change is not None
    assert report.change.value == pytest.approx(-10 / 38)
    assert drift_of(anchors, [look("A" * 40)], best="A").outcome == "nothing"


STEADY = [anchor(index, ("A", "A")) for index in range(150)]
STRICTER = look("B" * 15 + "A" * 135)


def test_a_judge_that_moved_stays_moved_until_it_is_certified_anew() -> None:
    for number in range(1, 13):
        report = drift_of(STEADY, [STRICTER] * number, best="A")
        assert (report.outcome, report.look, report.n_changed) == ("judge moved", number, 15)
        assert "stricter at look 1" in report.sentence
        # against the letters of the certificate, not those of a judge that had moved already
        assert report.change is not None
        assert report.change.value == pytest.approx(-0.1)
    later = drift_of(STEADY, [look("A" * 150)] * 3 + [STRICTER] * 3, best="A")
    assert (later.outcome, "stricter at look 4" in later.sentence) == ("judge moved", True)
    back = drift_of(STEADY, [STRICTER, look("A" * 150)], best="A")
    assert (back.outcome, "stricter at look 1" in back.sentence) == ("judge moved", True)
    assert back.change is not None
    assert back.change.value == 0


def test_a_judge_that_moved_long_ago_is_not_called_a_change_of_the_model() -> None:
    """From look 1 on the judge gives B to 11 % of what it gave A; the model writes as before."""
    rng = np.random.default_rng(1)
    before = words(400, 0.9)
    after = [
        "".join("B" if letter == "A" and rng.random() < 0.11 else letter for letter in word)
        for word in before
    ]
    moved = drift_of(STEADY, [look("B" * 17 + "A" * 133)] * 8, best="A")
    report = attribute(moved, evidence({"alpha": after}), evidence({"alpha": before}), {"alpha": "alpha"})
    (change,) = report.candidates
    assert report.outcome == "judge moved"
    assert change.change == pytest.approx(-0.1, abs=0.02)
    assert change.net_low < 0 < change.net_high


def test_a_look_with_too_few_letters_is_not_judged_and_later_looks_are() -> None:
    for few, n in (("-" * 150, 0), ("-" * 140 + "A" * 10, 10), ("A" * 134 + "-" * 16, 134)):
        bad = drift_of(STEADY, [look("A" * 150), look(few)], best="A")
        assert (bad.outcome, bad.n_anchors, bad.change) == ("not checked", n, None)
        assert f"{n} of 150 anchors" in bad.sentence
        assert "90 %" in bad.sentence
        good = drift_of(STEADY, [look(few), look("A" * 150)], best="A")
        assert (good.outcome, good.n_anchors, good.look) == ("nothing", 150, 1)
        assert drift_of(STEADY, [look(few), STRICTER], best="A").outcome == "judge moved"


def test_an_anchor_without_a_letter_at_one_look_counts_at_the_others() -> None:
    partial = look("-" * 15 + "A" * 135)
    report = drift_of(STEADY, [partial], best="A")
    assert (report.outcome, report.n_anchors) == ("nothing", 135)
    report = drift_of(STEADY, [partial, partial, STRICTER], best="A")
    assert (report.outcome, report.look, report.n_anchors, report.n_changed) == ("judge moved", 3, 150, 15)


def test_anchors_are_of_as_many_chunks_as_there_are() -> None:
    stored = [anchor(chunk, ("A",), number) for chunk in range(10) for number in range(3)]
    items = {row.item.item_id: (row.sample, row.item) for row in stored}
    letters = dict.fromkeys([*items][:-1], "A")
    drawn = draw_anchors(items, letters, 12)
    assert len({sample.sample_id for sample, _ in drawn[:10]}) == 10
    assert len({item.item_id for _, item in drawn}) == 12
    assert draw_anchors(items, letters, 12) == drawn
    assert len(draw_anchors(items, letters, 100)) == 29


# ------------------------------------------------------------------------------ gates

TYPES = ("factual", "conceptual", "comparison")


def writes(request: ChatRequest) -> str:
    text = request.inputs["chunk"]
    return pairs_reply(
        [(kind, f"{kind}: what of {text[:30]}?", text[: 100 + 7 * n]) for n, kind in enumerate(TYPES)]
    )


class Judge:
    """Gives C to one in five items; once it is strict, to three in five; once it is mute, no letter."""

    def __init__(self) -> None:
        self.strict = self.mute = False
        self.n_asked = 0

    def __call__(self, request: ChatRequest) -> str:
        self.n_asked += 1
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
def test_a_gate_grades_the_anchors_and_trusts_a_judge_until_it_moves(tmp_path: Path, judge: Judge) -> None:
    with registered("writes", ScriptedModel(writes)), registered("judge", ScriptedModel(judge)):
        run, labels = labelled_run(tmp_path)
        issued = qaeval.certify("judge", run=run, labels=labels, anchors=60, out="c.json")
        assert issued.anchors_sha256
        asked = judge.n_asked
        first = qaeval.gate(run, baseline=run, policy=POLICY)
        assert judge.n_asked == asked + 60
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
def test_a_judge_without_letters_fails_one_gate_and_not_the_next(tmp_path: Path, judge: Judge) -> None:
    with registered("writes", ScriptedModel(writes)), registered("judge", ScriptedModel(judge)):
        run, labels = labelled_run(tmp_path)
        qaeval.certify("judge", run=run, labels=labels, anchors=60, out="c.json")
        judge.mute = True
        silent = qaeval.gate(run, baseline=run, policy=POLICY)
        assert (silent.exit_code, silent.drift and silent.drift.outcome) == (3, "not checked")
        assert "0 of 60 anchors" in silent.headline
        assert not Path("c.looks.jsonl").exists()
        judge.mute = False
        again = qaeval.gate(run, baseline=run, policy=POLICY)
        assert (again.outcome, again.drift and again.drift.look) == ("pass", 1)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["edited", "gone", "none", "looks", "rubric"])
def test_anchors_that_cannot_be_checked_end_3(tmp_path: Path, judge: Judge, damage: str) -> None:
    with registered("writes", ScriptedModel(writes)), registered("judge", ScriptedModel(judge)):
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
        asked = judge.n_asked
        report = qaeval.gate(run, baseline=run, policy=POLICY)
        assert (report.exit_code, report.drift and report.drift.outcome) == (3, "not checked")
        assert judge.n_asked == asked


@pytest.mark.slow
def test_a_gate_without_an_engine_cannot_look_at_anchors(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"mistral": ["AAB"] * 12})
    request = GateRequest(run=run.path, baseline=str(run.path), policy=Policy.model_validate(POLICY))
    with registered("scripted-judge", ScriptedModel([])), pytest.raises(UsageError, match="engine"):
        gate(request, EvidenceReader(config=find_config(None)))
