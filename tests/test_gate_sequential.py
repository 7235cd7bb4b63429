"""The sequential gate: it grades until it is decided, stops early, and resumes to the same verdict."""

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

from gate_runs import evidence, without_letters
from qaeval.cli import run as cli
from qaeval.corpus.sampling import sample_set_digest
from qaeval.errors import DataError, Interrupted, NotComparableError
from qaeval.evals.find import data_root, find_eval
from qaeval.gate.baseline import EvidenceReader
from qaeval.gate.decide import GateRequest
from qaeval.gate.decide import gate as decide_gate
from qaeval.gate.early_stop import ORDER
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


def make_policy(*rules: Mapping[str, Any]) -> Policy:
    return Policy.model_validate({"name": "gate.yaml", "rules": rules or (USABLE,)})


class Judge(LoopbackServer):
    """Gives an A to answers that call themselves usable, else a C."""

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
    def n_grading_requests(self) -> int:
        """Number of grading requests received."""
        return sum(map(is_grading, self.requests))


def is_grading(body: Mapping[str, Any]) -> bool:
    """Return whether a request grades an item, and is not a probe of the server."""
    return '"letter"' in json.dumps(body.get("response_format"))


@dataclass
class Watcher:
    """Progress that collects rows, and calls `act` after row number `after`."""

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
    """A judge server, its registry, and a folder of runs to grade."""

    server: Judge
    reader: EvidenceReader
    judging: Judging
    folder: Path

    def run(
        self,
        name: str,
        share: float,
        *,
        seed: int = 0,
        graded: bool = False,
        other_candidates: tuple[str, ...] = (),
    ) -> Path:
        """Write a run with this share of usable answers, graded or not yet graded."""
        rng = np.random.default_rng(seed)
        samples = [
            Sample.of(Chunk(chunk_id=f"c{index:03}", text=f"Chunk {index} says what it says."))
            for index in range(CHUNKS)
        ]
        path = self.folder / name
        path.mkdir()
        writers = ("writer", *other_candidates)
        replies = [
            _reply(sample, name, candidate, rng.random(ITEMS) < share)
            for candidate in writers
            for sample in samples
        ]
        grades = [self.grade(item) for reply in replies for item in reply.items] if graded else []
        for file, rows in ((SAMPLES, samples), (GENERATIONS, replies), (GRADES, grades)):
            (path / file).write_text("".join(row.model_dump_json(exclude_none=True) + "\n" for row in rows))
        definition = find_eval("qa_pairs")
        settings = {
            "format": 1,
            "eval": {**definition.model_dump(mode="json"), "digest": definition.digest},
            "sample_set": {"n": CHUNKS, "seed": 0, "digest": sample_set_digest(samples)},
            "candidates": {candidate: {"kind": "server", "sampling": {}} for candidate in writers},
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
        gate_policy: Policy | None = None,
        *,
        seed: int = 0,
        watcher: Watcher | None = None,
        pairs: Mapping[str, str] | None = None,
    ) -> GateReport:
        request = GateRequest(
            run=run,
            baseline=str(baseline),
            policy=gate_policy or make_policy(),
            candidates=pairs or {},
            sequential=True,
            judge="judge",
            seed=seed,
        )

        def make_runner(store: RunStore) -> Runner:
            return Runner(store, watcher or Watcher(), concurrency=64, outage_s=5)

        return decide_gate(request, self.reader, make_runner=make_runner)


def _reply(sample: Sample, run: str, candidate: str, usable: Any) -> Generation:
    items = tuple(
        Item.of(
            sample.sample_id,
            position,
            type="factual",
            question=f"What does it say, {position}?",
            answer=f"A {'usable' if is_usable else 'poor'} answer of {candidate} in {run} about {sample.chunk.chunk_id}.",
        )
        for position, is_usable in enumerate(usable)
    )
    return Generation(
        task_id=generate.task_id(candidate, sample.sample_id),
        candidate=candidate,
        sample_id=sample.sample_id,
        items=items,
        text="{}",
        latency_s=1.0,
    )


@contextmanager
def open_bench(folder: Path) -> Iterator[Bench]:
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
    with open_bench(tmp_path) as opened:
        yield opened


def read_grade_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / GRADES).read_text().splitlines()]


def comparable_content(report: GateReport) -> dict[str, Any]:
    """Return a report without the start time of the run and the number of steps."""
    return report.model_dump(mode="json", exclude={"sequential": True, "run": {"created"}})


@pytest.mark.slow
def test_regression_stops_grading_early(bench: Bench) -> None:
    baseline = bench.run("base", 0.9, graded=True)
    run = bench.run("worse", 0.45, seed=1)
    report = bench.gate(run, baseline)
    assert (report.outcome, report.exit_code) == ("regression", 1)
    summary = report.sequential
    assert summary is not None
    assert summary["chunks"] == CHUNKS
    assert summary["chunks_looked_at"] < CHUNKS / 2
    # each item once; beyond the deciding chunks, at most one item in 16 was in flight or just requested
    assert (
        bench.server.n_grading_requests - N_CONTROLS == len(read_grade_rows(run)) == summary["items_graded"]
    )
    assert summary["items_graded"] <= ITEMS * summary["chunks_looked_at"] + 2 * (CHUNKS * ITEMS / 16)
    assert bench.server.most_in_flight <= CHUNKS * ITEMS / 16
    assert summary["share_saved"] == 1 - summary["items_graded"] / (CHUNKS * ITEMS) > 0.5
    assert 0 <= summary["power"] <= summary["power_at_once"] <= 1
    (rule,) = report.rules
    assert rule.p_worse is not None
    assert rule.p_worse <= rule.alpha == 0.05
    assert rule.change is not None
    assert rule.change.high is not None
    assert rule.change.high < 0
    assert rule.change.n_clusters == summary["chunks_looked_at"]


@pytest.mark.slow
def test_run_that_stopped_early_is_not_complete(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("worse", 0.5, seed=1)
    bench.gate(run, baseline)
    with pytest.raises(DataError, match=r"grades: \d+ .*`qaeval grade "):
        bench.reader.run(run)
    assert not (run / "manifest.json").exists()


@pytest.mark.slow
def test_equal_run_passes_early(bench: Bench) -> None:
    # identical letters: a loss of 5 points is ruled out after about seventy chunks
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("same", 0.9)
    report = bench.gate(run, baseline)
    assert report.outcome == "pass"
    assert report.sequential is not None
    assert 60 < report.sequential["chunks_looked_at"] < 80


@pytest.mark.slow
def test_undecided_run_is_graded_completely(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("bit-worse", 0.83, seed=5)
    report = bench.gate(run, baseline)
    assert report.outcome == "inconclusive"
    assert report.sequential is not None
    assert report.sequential["share_saved"] == 0
    assert bench.reader.run(run).candidates[0].graded.all()
    assert report.rules[0].n_more_chunks


@pytest.mark.slow
def test_killed_gate_resumes_to_the_same_verdict(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("worse", 0.5, seed=1)
    killed = bench.folder / "killed" / "worse"
    shutil.copytree(run, killed)
    uninterrupted = bench.gate(run, baseline)
    # rows in the order of arrival, the last one truncated
    lines = (run / GRADES).read_bytes().splitlines(keepends=True)
    (killed / GRADES).write_bytes(b"".join(lines[:20])[:-9])
    shutil.copy(run / SETTINGS, killed / SETTINGS)
    n_before = bench.server.n_grading_requests
    assert comparable_content(bench.gate(killed, baseline)) == comparable_content(uninterrupted)
    assert bench.server.n_grading_requests - n_before == len(read_grade_rows(killed)) - 19 + N_CONTROLS


@pytest.mark.slow
def test_interrupted_gate_keeps_replies_in_flight_and_resumes(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("worse", 0.5, seed=1)
    stopped = bench.folder / "stopped" / "worse"
    shutil.copytree(run, stopped)
    interrupt = Watcher(after=15, act=lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted, match="same command"):
        bench.gate(stopped, baseline, watcher=interrupt)
    assert 15 <= len(read_grade_rows(stopped)) < CHUNKS * ITEMS / 4
    resumed = Watcher()
    assert comparable_content(bench.gate(stopped, baseline, watcher=resumed)) == comparable_content(
        bench.gate(run, baseline)
    )
    assert len(read_grade_rows(stopped)) == len(interrupt.rows) + len(resumed.rows)


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [60, CHUNKS * ITEMS])
def test_letters_that_are_not_all_there_do_not_doubt_the_judge(bench: Bench, n_rows: int) -> None:
    # one letter to every item, and no planted control is graded before the end
    baseline, run = bench.run("base", 1.0, graded=True), bench.run("same", 1.0)
    stopped = bench.folder / "stopped" / "same"
    shutil.copytree(run, stopped)
    whole = bench.gate(run, baseline)
    assert whole.outcome == "pass"
    for name in (SETTINGS, ORDER):
        shutil.copy(run / name, stopped / name)
    lines = (run / GRADES).read_bytes().splitlines(keepends=True)
    (stopped / GRADES).write_bytes(b"".join(lines[:n_rows]))
    assert comparable_content(bench.gate(stopped, baseline)) == comparable_content(whole)


@pytest.mark.slow
def test_existing_letters_decide_without_requests(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("worse", 0.5, seed=1, graded=True)
    report = bench.gate(run, baseline)
    assert report.outcome == "regression"
    assert bench.server.n_grading_requests == 0
    assert report.sequential is not None
    assert report.sequential["share_saved"] == 0


@pytest.mark.slow
def test_only_gated_candidates_are_graded(bench: Bench) -> None:
    baseline = bench.run("base", 0.9, graded=True)
    run = bench.run("worse", 0.45, seed=1, other_candidates=("other",))
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
    assert {row["item_id"] for row in read_grade_rows(run)} < items


@pytest.mark.slow
def test_grading_order_cannot_be_changed_after_the_start(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("worse", 0.5, seed=1)
    bench.gate(run, baseline, seed=3)
    with pytest.raises(NotComparableError, match="seed 3, not 4"):
        bench.gate(run, baseline, seed=4)


def test_grading_order_is_a_shuffle_fixed_by_samples_and_seed() -> None:
    run_evidence = evidence({"alpha": ["AAA"] * 60})
    order = grading_order(run_evidence, 0)
    assert sorted(order) == sorted(set(run_evidence.chunks.tolist())) != list(order)
    assert order == grading_order(evidence({"alpha": ["CCC"] * 60}), 0)
    assert order != grading_order(run_evidence, 1)
    other_samples = evidence({"alpha": ["AAA"] * 60}, identity={"samples_digest": "f" * 64})
    assert order != grading_order(other_samples, 0)


def test_rule_that_needs_all_letters_is_refused_without_requests(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("new", 0.9, seed=1)
    kappa_policy = make_policy(USABLE, {"quantity": "judge_kappa", "at_least": 0.4})
    with pytest.raises(DataError, match=r"rules\[2\]: judge_kappa"):
        bench.gate(run, baseline, kappa_policy)
    assert bench.server.n_grading_requests == 0


def test_different_eval_is_not_comparable_without_requests(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("new", 0.9, seed=1)
    settings = json.loads((run / SETTINGS).read_text())
    settings["eval"] |= {"title": "Another eval", "digest": "0" * 64}
    (run / SETTINGS).write_text(json.dumps(settings))
    assert bench.gate(run, baseline).outcome == "not comparable"
    assert bench.server.n_grading_requests == 0


@pytest.mark.slow
def test_rules_independent_of_letters_use_all_samples(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("same", 0.9)
    report = bench.gate(run, baseline, make_policy(USABLE, {"quantity": "valid_rate", "margin": 0.05}))
    usable, valid = report.rules
    assert [usable.verdict, valid.verdict] == ["pass", "pass"]
    assert usable.change is not None
    assert valid.change is not None
    assert usable.change.n_clusters < valid.change.n_clusters == CHUNKS


@pytest.mark.slow
def test_absolute_limit_stops_early(bench: Bench) -> None:
    baseline, run = bench.run("base", 0.9, graded=True), bench.run("new", 0.9, seed=1)
    report = bench.gate(run, baseline, make_policy({"quantity": "usable_rate", "at_least": 0.7}))
    assert (report.outcome, report.rules[0].current is not None) == ("pass", True)
    assert report.sequential is not None
    assert report.sequential["share_saved"] > 0.3
    assert report.rules[0].current is not None
    assert report.rules[0].current.low is not None
    assert report.rules[0].current.low > 0.7
    worse_run = bench.run("worse", 0.5, seed=2)
    assert (
        bench.gate(worse_run, baseline, make_policy({"quantity": "usable_rate", "at_least": 0.7})).outcome
        == "regression"
    )


@pytest.mark.slow
def test_command_reports_savings_and_how_to_grade_the_rest(
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
    assert "`qaeval grade new" in capsys.readouterr().err
    assert cli([*gate, "--sequential", "--seed", "1"]) == 4
    assert cli(["grade", "new"]) == 0
    assert cli(gate) == 1


def test_sequential_line_shows_savings_and_power() -> None:
    summary = {"chunks_looked_at": 84, "chunks": 200, "items_graded": 270, "items": 600, "share_saved": 0.55}
    saved = sequential_line(summary)
    assert all(figure in saved for figure in ("84 of 200", "270 of 600", "55.0 %"))
    with_power = sequential_line({**summary, "power": 0.55, "power_at_once": 0.656})
    assert with_power.startswith(saved)
    assert all(figure in with_power.removeprefix(saved) for figure in ("200", "55 %", "66 %"))


# ---------------------------------------------------------------- letters in, verdicts out


def grade_rows(run: Evidence) -> dict[str, GradeRow]:
    """Return the judge's rows for the letters and flags of a run."""
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


def make_cases(gate_policy: Policy, run: Evidence, baseline: Evidence) -> list[RuleCase]:
    inputs = GateInputs(policy=gate_policy, run=run, baseline=baseline, candidates={}, today="2026-11-21")
    return cases_of(inputs)


def run_monitor(gate_policy: Policy, run: Evidence, baseline: Evidence) -> tuple[SequentialMonitor, int]:
    """Update a monitor with the chunks of a run until decided; return it and the number of chunks seen."""
    monitor = SequentialMonitor(
        make_cases(gate_policy, run, baseline), without_letters(run), baseline, alpha=0.05
    )
    letters = grade_rows(run)
    for chunk in dict.fromkeys(run.chunks.tolist()):
        monitor.update(chunk, letters)
        if monitor.is_decided({}):
            break
    return monitor, monitor.n_seen


def test_more_flags_are_a_regression_and_fewer_a_pass() -> None:
    gate_policy = make_policy({"quantity": "hallucination_rate", "margin": 0.03})
    clean, flagged = ({"alpha": [letters] * 150} for letters in ("AAA", "AC!C!"))
    for baseline_letters, run_letters, verdict in ((clean, flagged, "regression"), (flagged, clean, "pass")):
        monitor, n = run_monitor(gate_policy, evidence(run_letters), evidence(baseline_letters, name="base"))
        (rule,) = verdicts_of(monitor.cases(), 0.05)
        assert rule.verdict == verdict
        assert n < 20


def test_stratum_rule_uses_only_chunks_of_its_stratum() -> None:
    run, baseline = (
        evidence({"alpha": ["AAA", "CCC"] * 60}),
        evidence({"alpha": ["AAA", "AAA"] * 60}, name="base"),
    )
    strata = np.where(np.arange(120) % 2 == 0, "even", "odd")
    run, baseline = (replace(side_evidence, strata=strata) for side_evidence in (run, baseline))
    gate_policy = make_policy({**USABLE, "stratum": "even"}, {**USABLE, "stratum": "odd"})
    monitor, _ = run_monitor(gate_policy, run, baseline)
    even, odd = verdicts_of(monitor.cases(), 0.05)
    assert odd.verdict == "regression"
    assert even.change is not None
    assert even.change.value == 0


def test_chunks_are_weighted_by_their_number_of_items() -> None:
    # two samples of one chunk: it has six items, all others three
    run, baseline = (
        evidence({"alpha": letters}, name=name)
        for letters, name in ((["AAA", "CCC", *["AAA"] * 28], "run"), (["AAA"] * 30, "base"))
    )
    chunks = np.array(["big", "big", *run.chunks[2:]])
    run, baseline = replace(run, chunks=chunks), replace(baseline, chunks=chunks)
    monitor = SequentialMonitor(
        make_cases(make_policy(), run, baseline), without_letters(run), baseline, alpha=0.05
    )
    for chunk in run.chunk_names:
        monitor.update(chunk, grade_rows(run))
    (rule,) = verdicts_of(monitor.cases(), 0.05)
    assert rule.change is not None
    assert rule.change.value == pytest.approx(-3 / 90)


def test_sequential_flag_rate_is_inconclusive_where_most_items_failed() -> None:
    run, clean = (
        evidence({"alpha": [*["AAA", "x", "x"] * 80]}),
        evidence({"alpha": ["AAA"] * 240}, name="base"),
    )
    monitor, n = run_monitor(make_policy({"quantity": "hallucination_rate", "margin": 0.1}), run, clean)
    (rule,) = verdicts_of(monitor.cases(), 0.05)
    assert (rule.verdict, n) == ("inconclusive", 240)
    assert "33.3 %" in rule.sentence


def test_ungraded_baseline_items_do_not_hide_a_sequential_loss() -> None:
    baseline = evidence({"alpha": ["AA-", "A--"] * 100}, name="base")
    monitor, n = run_monitor(make_policy(), evidence({"alpha": ["AAB", "ABB"] * 100}), baseline)
    (rule,) = verdicts_of(monitor.cases(), 0.05)
    assert (rule.verdict, n) == ("inconclusive", 200)
    assert "50.0 %" in rule.sentence
    assert " 0.0 %" in rule.sentence


def test_judge_failures_on_the_run_are_no_sequential_loss() -> None:
    run, baseline = evidence({"alpha": ["AA-"] * 200}), evidence({"alpha": ["AAA"] * 200}, name="base")
    monitor, n = run_monitor(make_policy(), run, baseline)
    assert ([rule.verdict for rule in verdicts_of(monitor.cases(), 0.05)], n) == (["inconclusive"], 200)
    monitor, n = run_monitor(make_policy({"quantity": "success_rate", "margin": 0.03}), run, baseline)
    assert [rule.verdict for rule in verdicts_of(monitor.cases(), 0.05)] == ["regression"]


def test_two_runs_that_the_judge_mostly_left_without_a_letter_are_not_followed_to_a_pass() -> None:
    run, baseline = evidence({"alpha": ["-A-"] * 100}), evidence({"alpha": ["A--"] * 100}, name="base")
    monitor, n = run_monitor(make_policy({"quantity": "usable_rate", "margin": 0.1}), run, baseline)
    (rule,) = verdicts_of(monitor.cases(), 0.05)
    assert (rule.verdict, n) == ("inconclusive", 100)
    assert "only 33.3 % of the delivered items" in rule.sentence


def test_a_judge_that_fails_on_the_run_violates_no_followed_limit() -> None:
    gate_policy = make_policy({"quantity": "usable_rate", "at_least": 0.8})
    for letters, verdict in (("AA-", "inconclusive"), ("AB-", "regression"), ("AAA", "pass")):
        run = evidence({"alpha": [letters] * 200})
        monitor, n = run_monitor(gate_policy, run, run)
        (rule,) = verdicts_of(monitor.cases(), 0.05)
        assert rule.verdict == verdict
        assert (n == 200) == (verdict == "inconclusive")


def test_a_candidate_that_failed_on_every_item_is_followed_to_a_regression() -> None:
    baseline = evidence({"alpha": ["AAA"] * 60}, name="base")
    for quantity, most in (("usable_rate", 20), ("valid_rate", 1)):
        gate_policy = make_policy({"quantity": quantity, "margin": 0.1})
        monitor, n = run_monitor(gate_policy, evidence({"alpha": ["x"] * 60}), baseline)
        assert [rule.verdict for rule in verdicts_of(monitor.cases(), 0.05)] == ["regression"]
        assert n <= most


def test_missing_grade_row_is_an_error() -> None:
    run, baseline = evidence({"alpha": ["AAA"] * 20}), evidence({"alpha": ["AAA"] * 20}, name="base")
    monitor = SequentialMonitor(
        make_cases(make_policy(), run, baseline), without_letters(run), baseline, alpha=0.05
    )
    with pytest.raises(DataError, match="grades: 3 items"):
        monitor.update(run.chunk_names[0], {})
    assert monitor.n_seen == 0


def test_sequential_power_is_below_fixed_power() -> None:
    values = np.random.default_rng(0).choice([-1 / 3, 0, 0, 1 / 3], 60)
    power = power_at_equality(values, n_chunks=200, margin=0.05, alpha=0.05)
    assert 0.6 < power.sequential < power.fixed <= 1


# ---------------------------------------------------------------- the simulation of docs/gate-validity.md

_SPEC = importlib.util.spec_from_file_location("gate_bench", data_root() / "benchmarks" / "gate.py")
assert _SPEC is not None
assert _SPEC.loader is not None
gate_bench = importlib.util.module_from_spec(_SPEC)
sys.modules["gate_bench"] = gate_bench
_SPEC.loader.exec_module(gate_bench)


@pytest.mark.slow
def test_simulation_matches_the_verdicts_of_the_gate() -> None:
    # 20 gates, some worse: simulated counts against the code of the gate, fixed and sequential
    setting = gate_bench.Setting("", 60, 0.8)
    drawn = [
        gate_bench.draw(setting, change, 5, np.random.default_rng(number))
        for number, change in enumerate((0.0, -0.15, -0.3, 0.15))
    ]
    for counts in drawn:
        ((baseline_counts, run_counts, _, _),) = counts
        fixed, sequential = gate_bench.at_once(counts), gate_bench.one_by_one(counts)
        for gate in range(5):
            run, baseline = (
                evidence({"alpha": ["A" * hits + "B" * (3 - hits) for hits in side[0][gate]]}, name=name)
                for side, name in ((run_counts, "run"), (baseline_counts, "base"))
            )
            (rule,) = verdicts_of(make_cases(make_policy(), run, baseline), 0.05)
            monitor, n = run_monitor(make_policy(), run, baseline)
            (early,) = verdicts_of(monitor.cases(), 0.05)
            assert (rule.verdict == "pass", rule.verdict == "regression") == (
                fixed.passes[gate],
                fixed.regressions[gate],
            )
            assert (early.verdict == "pass", early.verdict == "regression") == (
                sequential.passes[gate],
                sequential.regressions[gate],
            )
            assert n == round(60 * (1 - sequential.saved[gate]))


def test_mixture_constant_of_the_benchmark_matches_confseq() -> None:
    assert gate_bench.mixture_rho(100, alpha=0.05) == pytest.approx(12.60056, abs=5e-6)


@pytest.mark.slow
@pytest.mark.parametrize("rules", [1, pytest.param(3, marks=pytest.mark.nightly)])
def test_simulated_error_rates_and_power_of_sequential_gates(rules: int) -> None:
    setting, reps = gate_bench.Setting("", 200, 0.8, rules=rules), 2000
    max_error_rate = 0.05 + 3 * np.sqrt(0.05 * 0.95 / reps)
    sequential = gate_bench.simulate(setting, gate_bench.one_by_one, reps=reps, seed=11)
    fixed = gate_bench.simulate(setting, gate_bench.at_once, reps=reps, seed=11)
    for rates in (sequential, fixed):
        assert max(rates.false_regression, rates.false_pass) < max_error_rate
    assert fixed.finds > 0.9
    assert sequential.finds > (0.95 if rules == 1 else 0.85)
    assert sequential.saved_worse[0] > (0.5 if rules == 1 else 0.35)
    assert fixed.passes - sequential.passes < 0.2
