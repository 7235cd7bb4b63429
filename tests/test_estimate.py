"""The estimate of a run from its first five samples: its arithmetic, what is asked, and the question before a long run."""

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


def session(stage: str, model: str, seconds: float, load_s: float = 0.0) -> Session:
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


def reply(prompt_tokens: int, completion_tokens: int) -> Generation:
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
    return Generation(
        task_id="0", candidate="a", sample_id="0", items=(), text="", latency_s=1.0, usage=usage
    )


def up(name: str) -> ModelSpec:
    return ModelSpec(name=name, url="http://127.0.0.1:1/v1")


def hosted(name: str) -> ModelSpec:
    return ModelSpec(name=name, hf_id=f"org/{name}")


def test_a_whole_probe_is_scaled_to_the_samples() -> None:
    a, b, judge = up("a"), up("b"), up("j")
    found = estimate(
        [reply(100, 30)] * 10,
        [session("generate", "a", 10), session("generate", "b", 20), session("grade", "j", 30)],
        wall_s=30.0,
        probed=[a, b],
        candidates=[a, b],
        judge=judge,
        is_judge_probed=True,
        n_samples=100,
        items_per_sample=3,
    )
    # 100 samples are 20 probes: 600 s; 2 x 100 replies, 2 x 100 x 3 letters
    assert (found.wall_s, found.n_requests) == (600.0, 800)
    assert found.machine_s == {"a": 200.0, "b": 400.0, "j": 600.0}
    assert (found.prompt_tokens, found.completion_tokens) == (20_000, 6_000)
    prices = {name: MachineFacts(name="l4", price_per_hour=3.6, currency="EUR") for name in "abj"}
    text = found.sentence(prices)  # 1,200 s of work at 0.001 EUR a second
    assert "800 requests" in text
    assert "at most 10 min 00 s" in text
    assert "EUR 1.20" in text
    assert "no price" in found.sentence({})
    assert (found.times(2).n_requests, found.times(2).wall_s) == (1600, 1200.0)


def test_what_qaeval_starts_itself_is_assumed_to_be_as_fast_as_the_first() -> None:
    a, b, judge = hosted("a"), hosted("b"), hosted("j")
    found = estimate(
        [reply(100, 30)] * 5,
        [session("generate", "a", 10, load_s=60)],
        wall_s=10.0,
        probed=[a],
        candidates=[a, b],
        judge=judge,
        is_judge_probed=False,
        n_samples=100,
        items_per_sample=3,
    )
    # a and b 200 s each, the letters 400 s, and two more starts of 60 s
    assert found.wall_s == 920.0
    assert found.machine_s == {"a": 200.0, "b": 200.0, "j": 400.0}
    assert (found.measured, found.assumed) == (("a",), ("b", "j"))
    assert found.prompt_tokens is None


def test_candidates_that_qaeval_starts_work_while_those_on_other_machines_do() -> None:
    elsewhere = ModelSpec(name="a", url="http://10.0.0.5:8000/v1")
    started, judge = [hosted("b"), hosted("c")], hosted("j")

    def wall_s(*candidates: ModelSpec) -> float:
        return estimate(
            [reply(100, 30)] * 5,
            [session("generate", "a", 10)],
            wall_s=10.0,
            probed=candidates[:1],
            candidates=candidates,
            judge=judge,
            is_judge_probed=False,
            n_samples=100,
            items_per_sample=3,
        ).wall_s

    # 200 s for each candidate, as much for its letters
    assert wall_s(elsewhere) == 200 + 200
    assert wall_s(elsewhere, started[0]) == 200 + 2 * 200
    assert wall_s(elsewhere, *started) == 2 * 200 + 3 * 200
    assert wall_s(up("a"), *started) == 3 * 200 + 3 * 200  # on this machine, where it may have the same GPU


def test_every_server_that_is_up_is_probed_else_the_one_that_is_started_first() -> None:
    embedded = ModelSpec(name="embedded-lead", kind="embedded")
    adapter = hosted("t").model_copy(update={"lora": Lora(base="a", path="/t")})
    assert probed_candidates([up("a"), up("b")], up("j")) == ([up("a"), up("b")], True)
    assert probed_candidates([hosted("a"), up("b")], up("j")) == ([up("b")], False)
    assert probed_candidates([hosted("a"), hosted("b")], hosted("j")) == ([hosted("a")], False)
    assert probed_candidates([embedded, hosted("a")], hosted("j")) == ([hosted("a")], False)
    assert probed_candidates([embedded], embedded) == ([], False)
    assert probed_candidates([hosted("a"), adapter], None) == ([], False)


def compare(folder: Path, *words: str, limit: float = 480) -> Typed:
    """Compare two models on 60 chunks."""
    chunks = [{"id": str(n), "text": f"Card {n} has {n + 2} GB of memory."} for n in range(N)]
    (folder / "chunks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chunks))
    with LoopbackServer(["a", "b", "j"]) as server:
        registry = {
            "models": {name: {"url": server.url, "family": name} for name in "ab"},
            "judges": {"j": {"url": server.url, "family": "j"}},
            "defaults": {"confirm_minutes": limit},
        }
        (folder / "qaeval.yaml").write_text(json.dumps(registry))
        return qaeval(
            *("compare", "a", "b", "--judge", "j", "--chunks", "chunks.jsonl", "--out", "run", *words),
            cwd=folder,
        )


@pytest.mark.slow
def test_the_probe_is_no_part_of_the_run(tmp_path: Path) -> None:
    done = compare(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "estimate: 480 requests" in done.stderr  # 2 x 60 replies, 2 x 60 x 3 letters
    rows = [json.loads(line) for line in (tmp_path / "run" / "sessions.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["model"]) for row in rows] == [
        ("generate", "a"),
        ("generate", "b"),
        ("grade", "j"),
    ]
    assert [row["n_tasks"] for row in rows[:2]] == [N, N]


@pytest.mark.slow
def test_a_long_run_needs_yes_where_nobody_can_answer(tmp_path: Path) -> None:
    done = compare(tmp_path, limit=1e-6)
    assert done.returncode == 64
    assert "--yes" in done.stderr
    assert "--resume" not in done.stderr
    assert not (tmp_path / "run").exists()
    at_once = compare(tmp_path, "--yes", limit=1e-6)
    assert at_once.returncode == 0
    assert "estimate" not in at_once.stderr


@pytest.mark.slow
def test_the_grading_of_a_run_is_estimated_by_what_is_left(tmp_path: Path) -> None:
    chunks = [{"id": str(n), "text": f"Card {n} has {n + 2} GB of memory."} for n in range(N)]
    (tmp_path / "chunks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chunks))
    words = ("embedded-salient", "--chunks", "chunks.jsonl", "--out", "run")
    assert qaeval("generate", *words, cwd=tmp_path).returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "generations.jsonl").read_text().splitlines()]
    items = {item["item_id"] for row in rows for item in row.get("items", ())}
    with LoopbackServer(["j"]) as server:
        (tmp_path / "qaeval.yaml").write_text(json.dumps({"judges": {"j": {"url": server.url}}}))
        done = qaeval("grade", "run", "--judge", "j", "--no-controls", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"estimate: {len(items)} requests" in done.stderr
        again = qaeval("grade", "run", "--judge", "j", "--no-controls", cwd=tmp_path)
    assert "estimate" not in again.stderr
    assert len((tmp_path / "run" / "grades.jsonl").read_text().splitlines()) == len(items)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "starts"), [("y\n", True), ("\n", False), ("no\n", False)])
def test_a_terminal_is_asked(answer: str, starts: bool, capsys: pytest.CaptureFixture[str]) -> None:
    confirm = confirm_on_stderr(yes=False, stdin=Terminal(answer))
    assert confirm is not None
    confirm(RunEstimate("estimate: 5 requests", 479.0, 480.0))
    assert "[y/N]" not in capsys.readouterr().err
    if starts:
        confirm(RunEstimate("estimate: 5 requests", 481.0, 480.0))
    else:
        with pytest.raises(Interrupted):
            confirm(RunEstimate("estimate: 5 requests", 481.0, 480.0))
    assert "[y/N]" in capsys.readouterr().err


def test_without_a_terminal_the_number_and_the_option_are_named() -> None:
    confirm = confirm_on_stderr(yes=False, stdin=io.StringIO())
    assert confirm is not None
    with pytest.raises(UsageError, match=r"481 minutes.*--yes"):
        confirm(RunEstimate("", 481.0, 480.0))
    assert confirm_on_stderr(yes=True) is None
