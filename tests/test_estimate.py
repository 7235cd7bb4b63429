"""The estimate of a run from its first five samples: arithmetic, probes, and the confirmation of a long run."""

import io
import json
from pathlib import Path

import pytest

from command import Typed, qaeval
from qaeval.api import RunEstimate
from qaeval.cli.progress import confirm_on_stderr
from qaeval.errors import Interrupted, UsageError
from qaeval.records import Generation, Session, Usage
from qaeval.registry.model import Lora, ModelSpec
from qaeval.report.facts import MachineFacts
from qaeval.run.estimate import estimate, probed_candidates
from replay.server import LoopbackServer

N = 60


def make_session(stage: str, model: str, seconds: float, load_s: float = 0.0) -> Session:
    return Session.model_validate(
        {
            "stage": stage,
            "model": model,
            "started": "2026-11-29T10:00:00Z",
            "seconds": seconds,
            "load_s": load_s,
            "n_tasks": 5,
            "host": "127.0.0.1",
            "qaeval_version": "0",
        }
    )


def make_reply(prompt_tokens: int, completion_tokens: int) -> Generation:
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
    return Generation(
        task_id="0", candidate="a", sample_id="0", items=(), text="", latency_s=1.0, usage=usage
    )


def running_model(name: str) -> ModelSpec:
    return ModelSpec(name=name, url="http://127.0.0.1:1/v1")


def startable_model(name: str) -> ModelSpec:
    return ModelSpec(name=name, hf_id=f"org/{name}")


def test_complete_probe_is_scaled_to_the_samples() -> None:
    a, b, judge = running_model("a"), running_model("b"), running_model("j")
    run_estimate = estimate(
        [make_reply(100, 30)] * 10,
        [
            make_session("generate", "a", 10),
            make_session("generate", "b", 20),
            make_session("grade", "j", 30),
        ],
        wall_s=30.0,
        probed=[a, b],
        candidates=[a, b],
        judge=judge,
        is_judge_probed=True,
        n_samples=100,
        items_per_sample=3,
    )
    # 100 samples are 20 probes: 600 s; 2 x 100 replies, 2 x 100 x 3 letters
    assert (run_estimate.wall_s, run_estimate.n_requests) == (600.0, 800)
    assert run_estimate.machine_s == {"a": 200.0, "b": 400.0, "j": 600.0}
    assert (run_estimate.prompt_tokens, run_estimate.completion_tokens) == (20_000, 6_000)
    prices = {name: MachineFacts(name="l4", price_per_hour=3.6, currency="EUR") for name in "abj"}
    text = run_estimate.sentence(prices)  # 1,200 s of work at 0.001 EUR a second
    assert "800 requests" in text
    assert "at most 10 min 00 s" in text
    assert "EUR 1.20" in text
    assert "no price" in run_estimate.sentence({})
    assert (run_estimate.times(2).n_requests, run_estimate.times(2).wall_s) == (1600, 1200.0)


def test_a_hosted_api_has_no_machine_in_the_estimate() -> None:
    api = ModelSpec(name="a", kind="hosted", url="https://api.example/v1")

    def sentence(judge: ModelSpec) -> str:
        run_estimate = estimate(
            [make_reply(100, 30)] * 5,
            [make_session("generate", "a", 10), make_session("grade", "j", 20)],
            wall_s=30.0,
            probed=[api],
            candidates=[api],
            judge=judge,
            is_judge_probed=True,
            n_samples=100,
            items_per_sample=3,
        )
        machine = MachineFacts(name="l4", price_per_hour=3.6, currency="EUR")
        return run_estimate.sentence({"a": machine, "j": machine})

    # 400 s of the judge at 0.001 EUR a second
    assert "at most 10 min 00 s, EUR 0.40 (" in sentence(running_model("j"))
    hosted_judge = ModelSpec(name="j", kind="hosted", url="https://api.example/v1")
    assert "at most 10 min 00 s (" in sentence(hosted_judge)


def test_models_that_qaeval_starts_are_assumed_as_fast_as_the_first() -> None:
    a, b, judge = startable_model("a"), startable_model("b"), startable_model("j")
    run_estimate = estimate(
        [make_reply(100, 30)] * 5,
        [make_session("generate", "a", 10, load_s=60)],
        wall_s=10.0,
        probed=[a],
        candidates=[a, b],
        judge=judge,
        is_judge_probed=False,
        n_samples=100,
        items_per_sample=3,
    )
    # a and b 200 s each, grading 400 s, and two more starts of 60 s
    assert run_estimate.wall_s == 920.0
    assert run_estimate.machine_s == {"a": 200.0, "b": 200.0, "j": 400.0}
    assert (run_estimate.measured, run_estimate.assumed) == (("a",), ("b", "j"))
    assert run_estimate.prompt_tokens is None


def test_started_candidates_run_in_parallel_with_other_machines() -> None:
    remote = ModelSpec(name="a", url="http://10.0.0.5:8000/v1")
    started, judge = [startable_model("b"), startable_model("c")], startable_model("j")

    def wall_s(*candidates: ModelSpec) -> float:
        return estimate(
            [make_reply(100, 30)] * 5,
            [make_session("generate", "a", 10)],
            wall_s=10.0,
            probed=candidates[:1],
            candidates=candidates,
            judge=judge,
            is_judge_probed=False,
            n_samples=100,
            items_per_sample=3,
        ).wall_s

    # 200 s for each candidate, as much for its letters
    assert wall_s(remote) == 200 + 200
    assert wall_s(remote, started[0]) == 200 + 2 * 200
    assert wall_s(remote, *started) == 2 * 200 + 3 * 200
    # on this machine, possibly with the same GPU
    assert wall_s(running_model("a"), *started) == 3 * 200 + 3 * 200


def test_running_servers_are_probed_or_else_the_first_started_one() -> None:
    embedded = ModelSpec(name="embedded-lead", kind="embedded")
    adapter = startable_model("t").model_copy(update={"lora": Lora(base="a", path="/t")})
    assert probed_candidates([running_model("a"), running_model("b")], running_model("j")) == (
        [running_model("a"), running_model("b")],
        True,
    )
    assert probed_candidates([startable_model("a"), running_model("b")], running_model("j")) == (
        [running_model("b")],
        False,
    )
    assert probed_candidates([startable_model("a"), startable_model("b")], startable_model("j")) == (
        [startable_model("a")],
        False,
    )
    assert probed_candidates([embedded, startable_model("a")], startable_model("j")) == (
        [startable_model("a")],
        False,
    )
    assert probed_candidates([embedded], embedded) == ([], False)
    assert probed_candidates([startable_model("a"), adapter], None) == ([], False)


def run_compare(folder: Path, *options: str, confirm_minutes: float = 480) -> Typed:
    """Run `qaeval compare` with two models on 60 chunks."""
    chunks = [{"id": str(n), "text": f"Card {n} has {n + 2} GB of memory."} for n in range(N)]
    (folder / "chunks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chunks))
    with LoopbackServer(["a", "b", "j"]) as server:
        registry = {
            "models": {name: {"url": server.url, "family": name} for name in "ab"},
            "judges": {"j": {"url": server.url, "family": "j"}},
            "defaults": {"confirm_minutes": confirm_minutes},
        }
        (folder / "qaeval.yaml").write_text(json.dumps(registry))
        return qaeval(
            *("compare", "a", "b", "--judge", "j", "--chunks", "chunks.jsonl", "--out", "run", *options),
            cwd=folder,
        )


@pytest.mark.slow
def test_probe_is_not_part_of_the_run(tmp_path: Path) -> None:
    result = run_compare(tmp_path)
    assert result.returncode == 0, result.stderr
    assert "estimate: 480 requests" in result.stderr  # 2 x 60 replies, 2 x 60 x 3 letters
    rows = [json.loads(line) for line in (tmp_path / "run" / "sessions.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["model"]) for row in rows] == [
        ("generate", "a"),
        ("generate", "b"),
        ("grade", "j"),
    ]
    assert [row["n_tasks"] for row in rows[:2]] == [N, N]


@pytest.mark.slow
def test_long_run_without_a_terminal_needs_yes(tmp_path: Path) -> None:
    result = run_compare(tmp_path, confirm_minutes=1e-6)
    assert result.returncode == 64
    assert "--yes" in result.stderr
    assert "--resume" not in result.stderr
    assert not (tmp_path / "run").exists()
    confirmed = run_compare(tmp_path, "--yes", confirm_minutes=1e-6)
    assert confirmed.returncode == 0
    assert "estimate" not in confirmed.stderr


@pytest.mark.slow
def test_grading_estimate_counts_remaining_items(tmp_path: Path) -> None:
    chunks = [{"id": str(n), "text": f"Card {n} has {n + 2} GB of memory."} for n in range(N)]
    (tmp_path / "chunks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chunks))
    arguments = ("embedded-salient", "--chunks", "chunks.jsonl", "--out", "run")
    assert qaeval("generate", *arguments, cwd=tmp_path).returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "generations.jsonl").read_text().splitlines()]
    items = {item["item_id"] for row in rows for item in row.get("items", ())}
    with LoopbackServer(["j"]) as server:
        (tmp_path / "qaeval.yaml").write_text(json.dumps({"judges": {"j": {"url": server.url}}}))
        result = qaeval("grade", "run", "--judge", "j", "--no-controls", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert f"estimate: {len(items)} requests" in result.stderr
        second = qaeval("grade", "run", "--judge", "j", "--no-controls", cwd=tmp_path)
    assert "estimate" not in second.stderr
    assert len((tmp_path / "run" / "grades.jsonl").read_text().splitlines()) == len(items)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "is_confirmed"), [("y\n", True), ("\n", False), ("no\n", False)])
def test_terminal_is_asked_for_confirmation(
    answer: str, is_confirmed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    confirm = confirm_on_stderr(yes=False, stdin=Terminal(answer))
    assert confirm is not None
    confirm(RunEstimate("estimate: 5 requests", 479.0, 480.0))
    assert "[y/N]" not in capsys.readouterr().err
    if is_confirmed:
        confirm(RunEstimate("estimate: 5 requests", 481.0, 480.0))
    else:
        with pytest.raises(Interrupted):
            confirm(RunEstimate("estimate: 5 requests", 481.0, 480.0))
    assert "[y/N]" in capsys.readouterr().err


def test_without_a_terminal_the_error_names_minutes_and_option() -> None:
    confirm = confirm_on_stderr(yes=False, stdin=io.StringIO())
    assert confirm is not None
    with pytest.raises(UsageError, match=r"481 minutes.*--yes"):
        confirm(RunEstimate("", 481.0, 480.0))
    assert confirm_on_stderr(yes=True) is None
