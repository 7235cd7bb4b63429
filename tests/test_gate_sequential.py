"""A gate that grades while it decides: it stops early, asks for no more, and says the same however often it was stopped."""

import importlib.util
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from gate_runs import evidence, pending
from qaeval.cli import run as cli
from qaeval.corpus.sampling import sample_set_digest
from qaeval.errors import DataError, Interrupted, NotComparableError
from qaeval.evals.find import data_root, find_eval
from qaeval.gate.baseline import EvidenceReader
from qaeval.gate.decide import GateRequest
from qaeval.gate.decide import gate as decide_gate
from qaeval.gate.evidence import UNGRADED, Evidence
from qaeval.gate.messages import sequential_line
from qaeval.gate.model import GateReport
from qaeval.gate.policy import Policy
from qaeval.gate.rules import GateInputs, RuleCase, cases_of, verdicts_of
from qaeval.gate.sequential import SequentialMonitor, grading_order, power_at_equality
from qaeval.records import Chunk, Failure, Generation, Grade, GradeRow, Item, Sample
from qaeval.registry.find import find_config
from qaeval.run import generate, grade
from qaeval.run.controls import N_CONTROLS
from qaeval.run.plan import Judging, find_judging
from qaeval.run.runner import Runner
from qaeval.storage.run_directory import GENERATIONS, GRADES, SAMPLES, SETTINGS, RunStore
from replay.answers import envelope, usage_of
from replay.server import LoopbackServer

CHUNKS, ITEMS = 90, 3
USABLE = {"quantity": "usable_rate", "margin": 0.05}


def policy(*rules: Mapping[str, Any]) -> Policy:
    return Policy.model_validate({"name": "gate.yaml", "rules": rules or (USABLE,)})


class Judge(LoopbackServer):
    """Gives an A to answers that say so, else a C."""

    def _reply(self, body: Mapping[str, Any]) -> web.Response:
        if not is_grading(body):
            return super()._reply(body)
        prompt = body["messages"][-1]["content"]
        letter = "A" if "usable answer" in prompt else "C"
        text = json.dumps({"reason": "So it is.", "letter": letter, "hallucination": False})
        return web.json_response(
            {"id": "1", **envelope(body["model"], text, "stop", None, usage_of(prompt, 9))}
        )

    @property
    def asked(self) -> int:
        """Items that it was asked to grade."""
        return sum(map(is_grading, self.requests))


def is_grading(body: Mapping[str, Any]) -> bool:
    """Whether a request is no probe of what the server can do."""
    return '"letter"' in json.dumps(body.get("response_format"))


@dataclass
class Watcher:
    """Counts rows, and does something after one of them."""

    after: int = -1
    act: Callable[[], None] = lambda: None
    rows: list[GradeRow] = field(default_factory=list)

    def stage(self, _name: str, _model: str, *, total: int, done: int) -> "Watcher":
        assert total >= done
        return self

    def row(self, row: GradeRow) -> None:
        self.rows.append(row)
        if len(self.rows) == self.after:
            self.act()

    def skip(self, _n: int) -> None: ...

    def end(self) -> None: ...

    def note(self, _text: str) -> None: ...


@dataclass(frozen=True)
class Bench:
    """A judge, a registry that knows it, and runs for it to grade."""

    server: Judge
    reader: EvidenceReader
    judging: Judging
    folder: Path

    def run(
        self, name: str, share: float, *, seed: int = 0, graded: bool = False, also: tuple[str, ...] = ()
    ) -> Path:
        """Write a run with this share of usable answers, graded by hand or waiting for the judge."""
        rng = np.random.default_rng(seed)
        samples = [
            Sample.of(Chunk(chunk_id=f"c{place:03}", text=f"Chunk {place} says what it says."))
            for place in range(CHUNKS)
        ]
        path = self.folder / name
        path.mkdir()
        writers = ("writer", *also)
        replies = [
            _reply(sample, name, who, rng.random(ITEMS) < share) for who in writers for sample in samples
        ]
        grades = [self.grade(item) for reply in replies for item in reply.items] if graded else []
        for file, rows in ((SAMPLES, samples), (GENERATIONS, replies), (GRADES, grades)):
            (path / file).write_text("".join(row.model_dump_json(exclude_none=True) + "\n" for row in rows))
        definition = find_eval("qa_pairs")
        settings = {
            "format": 1,
            "eval": {**definition.model_dump(mode="json"), "digest": definition.digest},
            "sample_set": {"n": CHUNKS, "seed": 0, "digest": sample_set_digest(samples)},
            "candidates": {who: {"kind": "server", "sampling": {}} for who in writers},
            "grading": self.judging.settings() if graded else None,
        }
        (path / SETTINGS).write_text(json.dumps(settings))
        return path

    def grade(self, item: Item) -> Grade:
        return Grade(
            task_id=grade.task_id("judge", item.item_id),
            judge="judge",
            rubric_sha=self.judging.rubric.sha,
            item_id=item.item_id,
            letter="A" if "usable answer" in item.answer else "C",
            text="",
            latency_s=0,
        )

    def gate(
        self,
        run: Path,
        baseline: Path,
        asked: Policy | None = None,
        *,
        seed: int = 0,
        watcher: Watcher | None = None,
        pairs: Mapping[str, str] | None = None,
    ) -> GateReport:
        request = GateRequest(
            run=run,
            baseline=str(baseline),
            policy=asked or policy(),
            candidates=pairs or {},
            sequential=True,
            judge="judge",
            seed=seed,
        )

        def make_runner(store: RunStore) -> Runner:
            return Runner(store, watcher or Watcher(), concurrency=64, outage_s=5)

        return decide_gate(request, self.reader, make_runner=make_runner)


def _reply(sample: Sample, run: str, who: str, usable: Any) -> Generation:
    items = tuple(
        Item.of(
            sample.sample_id,
            place,
            type="factual",
            question=f"What does it say, {place}?",
            answer=f"A {'usable' if good else 'poor'} answer of {who} in {run} about {sample.chunk.chunk_id}.",
        )
        for place, good in enumerate(usable)
    )
    return Generation(
        task_id=generate.task_id(who, sample.sample_id),
        candidate=who,
        sample_id=sample.sample_id,
        items=items,
        text="{}",
        latency_s=1.0,
    )


@contextmanager
def made_bench(folder: Path) -> Iterator[Bench]:
    with Judge(["judge"]) as server:
        registry = folder / "registry.yaml"
        registry.write_text(
            f"models: {{writer: {{url: '{server.url}', family: w}}, other: {{url: '{server.url}', family: w}}}}\n"
            f"judges: {{judge: {{url: '{server.url}', family: j}}}}\ndefaults: {{cache: false}}\n"
        )
        config = find_config(registry)
        judging = find_judging(config, (), judge="judge", rubric=find_eval("qa_pairs").rubric)
        yield Bench(server, EvidenceReader(config=config, labels=[_no_labels(folder)]), judging, folder)


def _no_labels(folder: Path) -> Path:
    path = folder / "labels.jsonl"
    path.write_text("")
    return path


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with made_bench(tmp_path) as made:
        yield made


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / GRADES).read_text().splitlines()]


def said(report: GateReport) -> dict[str, Any]:
    """Return what a report says, without when the run was begun and in how many steps."""
    return report.model_dump(mode="json", exclude={"sequential": True, "run": {"created"}})


@pytest.mark.slow
def test_a_worse_run_is_found_early_and_the_rest_is_not_asked(bench: Bench) -> None:
    baseline = bench.run("base", 0.9, graded=True)
    run = bench.run("worse", 0.45, seed=1)
    report = bench.gate(run, baseline)
    assert (report.outcome, report.exit_code) == ("regression", 1)
    found = report.sequential
    assert found is not None
    assert found["chunks"] == CHUNKS
    assert found["chunks_looked_at"] < CHUNKS / 2
    # each item once; beyond the chunks that decided, no more than one item in 16 was in flight or just asked
    assert bench.server.asked - N_CONTROLS == len(rows(run)) == found["items_graded"]
    assert found["items_graded"] <= ITEMS * found["chunks_looked_at"] + 2 * (CHUNKS * ITEMS / 16)
    assert bench.server.most_in_flight <= CHUNKS * ITEMS / 16
    assert found["share_saved"] == 1 - found["items_graded"] / (CHUNKS * ITEMS) > 0.5
    assert 0 <= found["power"] <= found["power_at_once"] <= 1
    (rule,) = report.rules
    assert rule.p_worse is not None
    assert rule.p_worse <= rule.alpha == 0.05
    assert rule.change is not None
    assert rule.change.high is not None
    assert rule.change.high < 0
    assert rule.change.n_clusters == found["chunks_looked_at"]


@pytest.mark.slow
def test_a_run_that_was_stopped_early_is_not_taken_for_a_complete_one(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("worse", 0.5, seed=1)
    bench.gate(run, baseline)
    with pytest.raises(DataError, match=r"grades: \d+ .*`qaeval grade RUN"):
        bench.reader.run(run)
    assert not (run / "manifest.json").exists()


@pytest.mark.slow
def test_an_equal_run_passes_before_the_end(bench: Bench) -> None:
    # the same letters everywhere: nothing differs, and a loss of 5 points is ruled out after some seventy chunks
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("same", 0.9)
    report = bench.gate(run, baseline)
    assert report.outcome == "pass"
    assert report.sequential is not None
    assert 60 < report.sequential["chunks_looked_at"] < 80


@pytest.mark.slow
def test_an_undecided_run_is_graded_to_its_end(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("bit-worse", 0.83, seed=5)
    report = bench.gate(run, baseline)
    assert report.outcome == "inconclusive"
    assert report.sequential is not None
    assert report.sequential["share_saved"] == 0
    assert bench.reader.run(run).candidates[0].graded.all()
    assert report.rules[0].n_more_chunks


@pytest.mark.slow
def test_a_killed_gate_goes_on_to_the_same_verdict(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("worse", 0.5, seed=1)
    killed = bench.folder / "killed" / "worse"
    shutil.copytree(run, killed)
    whole = bench.gate(run, baseline)
    # rows in the order in which the letters came, the last one torn
    lines = (run / GRADES).read_bytes().splitlines(keepends=True)
    (killed / GRADES).write_bytes(b"".join(lines[:20])[:-9])
    shutil.copy(run / SETTINGS, killed / SETTINGS)
    before = bench.server.asked
    assert said(bench.gate(killed, baseline)) == said(whole)
    assert bench.server.asked - before == len(rows(killed)) - 19 + N_CONTROLS


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_in_flight_and_the_same_call_goes_on(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("worse", 0.5, seed=1)
    stopped = bench.folder / "stopped" / "worse"
    shutil.copytree(run, stopped)
    interrupt = Watcher(after=15, act=lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted, match="same command"):
        bench.gate(stopped, baseline, watcher=interrupt)
    assert 15 <= len(rows(stopped)) < CHUNKS * ITEMS / 4
    again = Watcher()
    assert said(bench.gate(stopped, baseline, watcher=again)) == said(bench.gate(run, baseline))
    assert len(rows(stopped)) == len(interrupt.rows) + len(again.rows)


@pytest.mark.slow
def test_letters_that_are_there_decide_without_a_question(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("worse", 0.5, seed=1, graded=True)
    report = bench.gate(run, baseline)
    assert report.outcome == "regression"
    assert bench.server.asked == 0
    assert report.sequential is not None
    assert report.sequential["share_saved"] == 0


@pytest.mark.slow
def test_only_the_candidates_that_are_gated_are_graded(bench: Bench) -> None:
    baseline = bench.run("base", 0.9, graded=True)
    run = bench.run("worse", 0.45, seed=1, also=("other",))
    report = bench.gate(run, baseline, pairs={"writer": "writer"})
    assert report.outcome == "regression"
    assert report.sequential is not None
    assert report.sequential["items"] == CHUNKS * ITEMS
    items = {
        item["item_id"]
        for line in (run / GENERATIONS).read_text().splitlines()
        if (row := json.loads(line))["candidate"] == "writer"
        for item in row["items"]
    }
    assert {row["item_id"] for row in rows(run)} < items


@pytest.mark.slow
def test_the_order_is_not_chosen_by_its_result(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("worse", 0.5, seed=1)
    bench.gate(run, baseline, seed=3)
    with pytest.raises(NotComparableError, match="seed 3, not 4"):
        bench.gate(run, baseline, seed=4)


def test_the_order_is_a_shuffle_fixed_by_samples_and_seed() -> None:
    one = evidence({"alpha": ["AAA"] * 60})
    order = grading_order(one, 0)
    assert sorted(order) == sorted(set(one.chunks.tolist())) != list(order)
    assert order == grading_order(evidence({"alpha": ["CCC"] * 60}), 0)
    assert order != grading_order(one, 1)
    other = evidence({"alpha": ["AAA"] * 60}, identity={"samples_digest": "f" * 64})
    assert order != grading_order(other, 0)


def test_what_needs_all_letters_is_refused_before_a_question(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("new", 0.9, seed=1)
    wanted = policy(USABLE, {"quantity": "judge_kappa", "at_least": 0.4})
    with pytest.raises(DataError, match=r"rules\[2\]: judge_kappa"):
        bench.gate(run, baseline, wanted)
    assert bench.server.asked == 0


def test_another_eval_is_not_comparable_before_a_question(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("new", 0.9, seed=1)
    settings = json.loads((run / SETTINGS).read_text())
    settings["eval"] |= {"title": "Another eval", "digest": "0" * 64}
    (run / SETTINGS).write_text(json.dumps(settings))
    assert bench.gate(run, baseline).outcome == "not comparable"
    assert bench.server.asked == 0


@pytest.mark.slow
def test_rules_that_no_letter_changes_are_decided_on_all_samples(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("same", 0.9)
    report = bench.gate(run, baseline, policy(USABLE, {"quantity": "valid_rate", "margin": 0.05}))
    usable, valid = report.rules
    assert [usable.verdict, valid.verdict] == ["pass", "pass"]
    assert usable.change is not None
    assert valid.change is not None
    assert usable.change.n_clusters < valid.change.n_clusters == CHUNKS


@pytest.mark.slow
def test_a_limit_needs_no_pairs_and_stops_early_too(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("new", 0.9, seed=1)
    kept = bench.gate(run, baseline, policy({"quantity": "usable_rate", "at_least": 0.7}))
    assert (kept.outcome, kept.rules[0].current is not None) == ("pass", True)
    assert kept.sequential is not None
    assert kept.sequential["share_saved"] > 0.3
    assert kept.rules[0].current is not None
    assert kept.rules[0].current.low is not None
    assert kept.rules[0].current.low > 0.7
    missed = bench.run("worse", 0.5, seed=2)
    assert (
        bench.gate(missed, baseline, policy({"quantity": "usable_rate", "at_least": 0.7})).outcome
        == "regression"
    )


@pytest.mark.slow
def test_the_command_says_what_was_saved_and_what_to_do_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gate.yaml").write_text("rules:\n  - {quantity: usable_rate, margin: 0.05}\n")
    for name in ("old", "new"):
        assert cli(["generate", "embedded-lead", "embedded-salient", "--n", "40", "--out", name]) == 0
    assert cli(["grade", "old"]) == 0
    gate = ["gate", "new", "--baseline", "old", "--candidate", "embedded-lead=embedded-salient"]
    capsys.readouterr()
    assert cli([*gate, "--sequential"]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("Regression in usable_rate")
    assert "Sequential: " in printed
    assert "Ville's inequality" in " ".join(printed.split())
    assert cli(gate) == 65
    assert "`qaeval grade RUN" in capsys.readouterr().err
    assert cli([*gate, "--sequential", "--seed", "1"]) == 4
    assert cli(["grade", "new"]) == 0
    assert cli(gate) == 1


def test_what_is_saved_and_given_up_is_printed() -> None:
    summary = {"chunks_looked_at": 84, "chunks": 200, "items_graded": 270, "items": 600, "share_saved": 0.55}
    saved = sequential_line(summary)
    assert all(datum in saved for datum in ("84 of 200", "270 of 600", "55.0 %"))
    with_power = sequential_line({**summary, "power": 0.55, "power_at_once": 0.656})
    assert with_power.startswith(saved)
    assert all(datum in with_power.removeprefix(saved) for datum in ("200", "55 %", "66 %"))


# ---------------------------------------------------------------- letters in, verdicts out


def graded(run: Evidence) -> dict[str, GradeRow]:
    """Return the judge's rows that a run's letters and flags stand for."""
    rows: dict[str, GradeRow] = {}
    for candidate in run.candidates:
        for index in zip(*np.nonzero(candidate.delivered), strict=True):
            item_id, code = str(candidate.item_ids[index]), int(candidate.letters[index])
            if code == UNGRADED:
                rows[item_id] = Failure(
                    task_id="0",
                    stage="grade",
                    model="j",
                    sample_id="s",
                    item_id=item_id,
                    reason="unparseable",
                    detail="",
                )
                continue
            rows[item_id] = Grade(
                task_id="0",
                judge="j",
                rubric_sha="r",
                item_id=item_id,
                letter=run.scale[code],
                flags=tuple(name for name, mask in candidate.flags.items() if mask[index]),
                text="",
                latency_s=0,
            )
    return rows


def cases(asked: Policy, run: Evidence, baseline: Evidence) -> list[RuleCase]:
    inputs = GateInputs(policy=asked, run=run, baseline=baseline, candidates={}, today="2026-11-21")
    return cases_of(inputs)


def follow(asked: Policy, run: Evidence, baseline: Evidence) -> tuple[SequentialMonitor, int]:
    """Look at a run's chunks in their order; return when it was decided."""
    monitor = SequentialMonitor(cases(asked, run, baseline), pending(run), baseline, alpha=0.05)
    letters = graded(run)
    for chunk in dict.fromkeys(run.chunks.tolist()):
        monitor.update(chunk, letters)
        if monitor.is_decided({}):
            break
    return monitor, monitor.n_seen


def test_a_rise_of_flags_is_a_regression_and_a_fall_a_pass() -> None:
    asked = policy({"quantity": "hallucination_rate", "margin": 0.03})
    clean, flagged = ({"alpha": [word] * 150} for word in ("AAA", "AC!C!"))
    for before, now, verdict in ((clean, flagged, "regression"), (flagged, clean, "pass")):
        monitor, n = follow(asked, evidence(now), evidence(before, name="base"))
        (rule,) = verdicts_of(monitor.cases(), 0.05)
        assert rule.verdict == verdict
        assert n < 20


def test_only_a_strata_s_own_chunks_count_for_it() -> None:
    run, baseline = (
        evidence({"alpha": ["AAA", "CCC"] * 60}),
        evidence({"alpha": ["AAA", "AAA"] * 60}, name="base"),
    )
    strata = np.where(np.arange(120) % 2 == 0, "even", "odd")
    run, baseline = (replace(side, strata=strata) for side in (run, baseline))
    asked = policy({**USABLE, "stratum": "even"}, {**USABLE, "stratum": "odd"})
    monitor, _ = follow(asked, run, baseline)
    even, odd = verdicts_of(monitor.cases(), 0.05)
    assert odd.verdict == "regression"
    assert even.change is not None
    assert even.change.value == 0


def test_chunks_weigh_as_their_items_do() -> None:
    # two samples of one chunk: it has six items, all others three
    run, baseline = (
        evidence({"alpha": letters}, name=name)
        for letters, name in ((["AAA", "CCC", *["AAA"] * 28], "run"), (["AAA"] * 30, "base"))
    )
    chunks = np.array(["big", "big", *run.chunks[2:]])
    run, baseline = replace(run, chunks=chunks), replace(baseline, chunks=chunks)
    monitor = SequentialMonitor(cases(policy(), run, baseline), pending(run), baseline, alpha=0.05)
    for chunk in run.chunk_names:
        monitor.update(chunk, graded(run))
    (rule,) = verdicts_of(monitor.cases(), 0.05)
    assert rule.change is not None
    assert rule.change.value == pytest.approx(-3 / 90)


def test_a_followed_rate_of_flags_is_none_where_most_items_failed() -> None:
    run, clean = (
        evidence({"alpha": [*["AAA", "x", "x"] * 80]}),
        evidence({"alpha": ["AAA"] * 240}, name="base"),
    )
    monitor, n = follow(policy({"quantity": "hallucination_rate", "margin": 0.1}), run, clean)
    (rule,) = verdicts_of(monitor.cases(), 0.05)
    assert (rule.verdict, n) == ("inconclusive", 240)
    assert "33.3 %" in rule.sentence


def test_a_followed_loss_does_not_hide_behind_letters_that_the_baseline_lacks() -> None:
    baseline = evidence({"alpha": ["AA-", "A--"] * 100}, name="base")
    monitor, n = follow(policy(), evidence({"alpha": ["AAB", "ABB"] * 100}), baseline)
    (rule,) = verdicts_of(monitor.cases(), 0.05)
    assert (rule.verdict, n) == ("inconclusive", 200)
    assert "50.0 %" in rule.sentence
    assert " 0.0 %" in rule.sentence


def test_a_judge_that_fails_on_the_run_is_no_followed_loss() -> None:
    run, baseline = evidence({"alpha": ["AA-"] * 200}), evidence({"alpha": ["AAA"] * 200}, name="base")
    monitor, n = follow(policy(), run, baseline)
    assert ([rule.verdict for rule in verdicts_of(monitor.cases(), 0.05)], n) == (["inconclusive"], 200)
    monitor, n = follow(policy({"quantity": "success_rate", "margin": 0.03}), run, baseline)
    assert [rule.verdict for rule in verdicts_of(monitor.cases(), 0.05)] == ["regression"]


def test_a_candidate_has_letters_from_the_first_chunk_in_which_it_has_one() -> None:
    run = evidence({"alpha": ["AAA", "AAA"], "beta": ["x", "B-B"]})
    monitor = SequentialMonitor(cases(policy(), run, run), pending(run), run, alpha=0.05)
    seen = [monitor.graded_candidates.copy()]
    for chunk in run.chunks.tolist():
        monitor.update(chunk, graded(run))
        seen.append(monitor.graded_candidates.copy())
    assert seen == [set(), {"alpha"}, {"alpha", "beta"}]


def test_a_missing_letter_is_an_error_and_not_a_failure() -> None:
    run, baseline = evidence({"alpha": ["AAA"] * 20}), evidence({"alpha": ["AAA"] * 20}, name="base")
    monitor = SequentialMonitor(cases(policy(), run, baseline), pending(run), baseline, alpha=0.05)
    with pytest.raises(DataError, match="grades: 3 items"):
        monitor.update(run.chunk_names[0], {})
    assert monitor.n_seen == 0


def test_looking_costs_power_and_never_brings_any() -> None:
    values = np.random.default_rng(0).choice([-1 / 3, 0, 0, 1 / 3], 60)
    found = power_at_equality(values, n_chunks=200, margin=0.05, alpha=0.05)
    assert 0.6 < found.sequential < found.fixed <= 1


# ---------------------------------------------------------------- the simulation of docs/gate-validity.md

_SPEC = importlib.util.spec_from_file_location("gate_bench", data_root() / "benchmarks" / "gate.py")
assert _SPEC is not None
assert _SPEC.loader is not None
gate_bench = importlib.util.module_from_spec(_SPEC)
sys.modules["gate_bench"] = gate_bench
_SPEC.loader.exec_module(gate_bench)


@pytest.mark.slow
def test_the_simulation_gives_the_gates_own_verdicts() -> None:
    # 20 gates, some worse: letters of drawn counts through the gate's code, at once and chunk by chunk
    setting = gate_bench.Setting("", 60, 0.8)
    drawn = [
        gate_bench.draw(setting, change, 5, np.random.default_rng(number))
        for number, change in enumerate((0.0, -0.15, -0.3, 0.15))
    ]
    for one in drawn:
        ((before, now, _, _),) = one
        once, looked = gate_bench.at_once(one), gate_bench.one_by_one(one)
        for gate in range(5):
            run, baseline = (
                evidence({"alpha": ["A" * hits + "B" * (3 - hits) for hits in side[0][gate]]}, name=name)
                for side, name in ((now, "run"), (before, "base"))
            )
            (rule,) = verdicts_of(cases(policy(), run, baseline), 0.05)
            monitor, n = follow(policy(), run, baseline)
            (early,) = verdicts_of(monitor.cases(), 0.05)
            assert (rule.verdict == "pass", rule.verdict == "regression") == (
                once.passes[gate],
                once.regressions[gate],
            )
            assert (early.verdict == "pass", early.verdict == "regression") == (
                looked.passes[gate],
                looked.regressions[gate],
            )
            assert n == round(60 * (1 - looked.saved[gate]))


def test_the_normal_mixture_of_the_benchmark_has_the_constant_of_confseq() -> None:
    assert gate_bench.mixture_rho(100, alpha=0.05) == pytest.approx(12.60056, abs=5e-6)


@pytest.mark.slow
@pytest.mark.parametrize("rules", [1, pytest.param(3, marks=pytest.mark.nightly)])
def test_error_rates_hold_under_stopping_and_losses_are_found(rules: int) -> None:
    setting, reps = gate_bench.Setting("", 200, 0.8, rules=rules), 2000
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / reps)
    looked = gate_bench.simulate(setting, gate_bench.one_by_one, reps=reps, seed=11)
    once = gate_bench.simulate(setting, gate_bench.at_once, reps=reps, seed=11)
    for found in (looked, once):
        assert max(found.false_regression, found.false_pass) < most
    assert once.finds > 0.9
    assert looked.finds > (0.95 if rules == 1 else 0.85)
    assert looked.saved_worse[0] > (0.5 if rules == 1 else 0.35)
    assert once.passes - looked.passes < 0.2
