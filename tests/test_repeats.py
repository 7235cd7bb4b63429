"""Repeats of replies and letters: what is asked, what is stored, what counts, what the report makes of them."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from pytest import approx  # noqa: PT013

import qaeval
from command import qaeval as typed
from qaeval.chat.protocol import ChatError, ChatRequest
from qaeval.comparison.model import CandidateNoise
from qaeval.comparison.noise_section import noise as noise_section
from qaeval.comparison.run_data import _JUDGE_TEMPERATURE
from qaeval.errors import DataError, UsageError
from qaeval.run import grade
from qaeval.testing import ScriptedModel, grade_reply, pairs_reply, registered
from replay.server import LoopbackServer

TYPES = ("factual", "conceptual", "comparison")
MAIN = ("settings.json", "samples.jsonl", "generations.jsonl", "grades.jsonl")


def uniform(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return int(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8], 16) / 2**32


def candidate(p_good: float, p_failed: float) -> Callable[[ChatRequest], str]:
    """Each pair is good with a fixed probability, anew for each seed; some of the further replies are no JSON."""

    def reply(request: ChatRequest) -> str:
        chunk, seed = request.inputs["chunk"], request.sampling.seed
        if seed and uniform("fails", chunk, seed) < p_failed:
            return "Sure!"
        return pairs_reply(
            [
                (kind, f"{kind} {chunk[:9]}?", "Good." if uniform(chunk, kind, seed) < p_good else "Bad.")
                for kind in TYPES
            ]
        )

    return reply


def judge(error: float) -> Callable[[ChatRequest], str]:
    """Takes good for bad and bad for good with a fixed probability, anew for each seed."""

    def reply(request: ChatRequest) -> str:
        inputs = request.inputs
        is_wrong = (
            uniform(inputs["question"], inputs["answer"], inputs["chunk"], request.sampling.seed) < error
        )
        return grade_reply("A" if (inputs["answer"] == "Good.") ^ is_wrong else "C")

    return reply


@contextmanager
def models(
    *, p_good: float = 0.8, p_failed: float = 1 / 8, error: float = 0.1
) -> Iterator[dict[str, ScriptedModel]]:
    scripted = {"writer": ScriptedModel(candidate(p_good, p_failed)), "grader": ScriptedModel(judge(error))}
    with ExitStack() as stack:
        for name, model in scripted.items():
            stack.enter_context(registered(name, model))
        yield scripted


def chunks(folder: Path, n: int) -> Path:
    path = folder / f"chunks-{n}.jsonl"
    rows = [
        {"chunk_id": f"c{i:03}", "text": f"Chunk {i:03}. Valve {i} opens at {i + 2} bar."} for i in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def compare(folder: Path, name: str, n: int = 12, **options: Any) -> qaeval.Run:
    return qaeval.compare(
        "writer", eval_name="qa_pairs", chunks=chunks(folder, n), judge="grader", out=folder / name, **options
    )


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    path = run / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def numbers_of(run: Path) -> tuple[Counter[int], Counter[tuple[int, int]]]:
    """How many replies have each number, and how many letters each pair of numbers."""
    replies = Counter(row.get("reply_number", 0) for row in rows(run, "generation_repeats.jsonl"))
    letters = Counter(
        (row.get("reply_number", 0), row.get("letter_number", 0)) for row in rows(run, "grade_repeats.jsonl")
    )
    return replies, letters


@pytest.mark.slow
def test_repeats_are_rows_of_their_own_and_the_run_is_byte_for_byte_the_same(tmp_path: Path) -> None:
    with models():
        compare(tmp_path, "plain")
        compare(tmp_path, "repeated", repeat=3, repeat_judge=4)
    plain, repeated = tmp_path / "plain", tmp_path / "repeated"
    for name in MAIN:
        assert sorted((repeated / name).read_bytes().splitlines()) == sorted(
            (plain / name).read_bytes().splitlines()
        )
    assert not (plain / "generation_repeats.jsonl").exists()
    assert not (plain / "grade_repeats.jsonl").exists()
    replies, letters = numbers_of(repeated)
    assert replies == {1: 12, 2: 12}
    written = Counter(
        row["reply_number"]
        for row in rows(repeated, "generation_repeats.jsonl")
        for _ in row.get("items", ())
    )
    assert letters == {(0, 1): 36, (0, 2): 36, (0, 3): 36, (1, 0): written[1], (2, 0): written[2]}
    ids = [row["task_id"] for name in ("grades.jsonl", "grade_repeats.jsonl") for row in rows(repeated, name)]
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_no_rate_interval_export_or_baseline_counts_a_repeat(tmp_path: Path) -> None:
    with models():
        plain = compare(tmp_path, "plain")
        repeated = compare(tmp_path, "repeated", repeat=2, repeat_judge=2)
    assert repeated.report.noise is not None
    assert "noise" not in plain.report.model_dump()
    ignored = {"run", "timing", "noise"}
    first, second = (json.loads(run.report.model_dump_json(exclude=ignored)) for run in (plain, repeated))
    for report in (first, second):
        for part in (*report["candidates"], report["judge"]):
            del part["timing"]
    assert second == first
    outputs = []
    for name in ("plain", "repeated"):
        assert typed("baseline", "set", name, "--out", f"{name}.json", cwd=tmp_path).returncode == 0
        assert typed("export", name, "--to", "labels", "--out", f"{name}-sheet", cwd=tmp_path).returncode == 0
        sheet = sorted(path.read_text() for path in (tmp_path / f"{name}-sheet").rglob("*.jsonl"))
        evidence = json.loads((tmp_path / f"{name}.json").read_text())["evidence"]
        evidence["side"] |= {"name": "", "created": ""}
        for part in evidence["candidates"]:
            del part["spent"]["work_s"]  # what a clock measured
        outputs.append([evidence, sheet])
    assert outputs[0] == outputs[1]


@pytest.mark.slow
def test_seeds_differ_and_the_cache_of_replies_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text("judges: {qwen-14b: {sampling: {temperature: 0.7}}}")

    def run(name: str, server: LoopbackServer) -> None:
        endpoints = [
            word for model in ("mistral-v0.3", "qwen-14b") for word in ("--endpoint", f"{model}={server.url}")
        ]
        with patch.dict(os.environ, {"QAEVAL_CACHE": str(tmp_path / "cache")}):
            done = typed(
                *(
                    "compare",
                    "mistral-v0.3",
                    "--judge",
                    "qwen-14b",
                    "--n",
                    "4",
                    "--out",
                    name,
                    "--repeat",
                    "2",
                ),
                *("--repeat-judge", "2", "--config", "ours.yaml", *endpoints),
                cwd=tmp_path,
            )
        assert done.returncode == 0, done.stderr

    with LoopbackServer(["mistral-v0.3", "qwen-14b"]) as server:
        run("first", server)
        before = len(server.requests)
        run("second", server)
        asked = [
            body for body in server.requests[before:] if body.get("max_tokens", 0) > 64 and "seed" in body
        ]
    again = rows(tmp_path / "second", "generation_repeats.jsonl") + rows(
        tmp_path / "second", "grade_repeats.jsonl"
    )
    replies = [row for row in rows(tmp_path / "second", "generations.jsonl") if row["kind"] == "generation"]
    assert replies
    assert all(row["cached"] for row in replies)
    assert len(again) > 4
    assert not any(row.get("cached") for row in again)
    noise = json.loads((tmp_path / "second" / "report.json").read_text())["noise"]
    assert noise["at_temperature_0"] == ["mistral-v0.3"]
    seeds = Counter(body["seed"] for body in asked)
    assert sum(seeds.values()) == len(again)
    assert (
        len(seeds) == 2 if not any(row.get("reply_number") and row["kind"] == "grade" for row in again) else 3
    )


@pytest.mark.slow
def test_a_stage_that_was_stopped_goes_on_and_a_larger_number_adds(tmp_path: Path) -> None:
    with models() as scripted:
        run = compare(tmp_path, "run")
        answer, n_asked = judge(0.1), 0

        def breaks_down(request: ChatRequest) -> str | ChatError:
            nonlocal n_asked
            n_asked += 1
            return ChatError("endpoint", "gone") if n_asked % 2 else answer(request)

        scripted["grader"]._replies = breaks_down
        qaeval.grade(run, judge="grader", repeat=2)
        failed = [row for row in rows(run.path, "grade_repeats.jsonl") if row["kind"] == "failure"]
        assert [row["letter_number"] for row in failed] == [1] * 18
        scripted["grader"]._replies = answer
        before = len(scripted["grader"].requests)
        qaeval.grade(run, judge="grader", repeat=2)
        assert len(scripted["grader"].requests) - before == 18
        qaeval.grade(run, judge="grader", repeat=2)
        qaeval.grade(run, judge="grader", repeat=3)
        assert len(scripted["grader"].requests) - before == 18 + 36
        compare(tmp_path, "run", resume=True, repeat=2)
    replies, letters = numbers_of(run.path)
    assert replies == {1: 12}
    assert letters[0, 1] == 36 + 18
    assert letters[0, 2] == 36
    assert len(rows(run.path, "grades.jsonl")) == 36


@pytest.mark.slow
def test_a_line_that_a_kill_cut_off_is_asked_again(tmp_path: Path) -> None:
    with models() as scripted:
        run = compare(tmp_path, "run", repeat=2, repeat_judge=2)
        for name in ("generation_repeats.jsonl", "grade_repeats.jsonl"):
            path = run.path / name
            path.write_bytes(path.read_bytes()[:-20])
        before = {name: len(model.requests) for name, model in scripted.items()}
        compare(tmp_path, "run", resume=True, repeat=2, repeat_judge=2)
    assert {name: len(model.requests) - before[name] for name, model in scripted.items()} == {
        "writer": 1,
        "grader": 1,
    }


@pytest.mark.slow
def test_items_of_further_replies_without_letters_are_graded_by_the_next_grade(tmp_path: Path) -> None:
    with models():
        qaeval.generate(
            "writer", eval_name="qa_pairs", chunks=chunks(tmp_path, 12), out=tmp_path / "run", repeat=2
        )
        run = qaeval.grade(tmp_path / "run", judge="grader")
        noise = run.report.noise
        assert noise is not None
        (of_writer,) = noise.candidates
        assert (of_writer.n_missing, of_writer.n_replies, noise.judge) == (0, 2, None)
        (run.path / "grade_repeats.jsonl").unlink()
        (of_writer,) = qaeval.load_run(run.path).report.noise.candidates  # type: ignore[union-attr]
    assert of_writer.n_missing > 18


@pytest.mark.parametrize("repeat", [-1, 0, 1, 101])
@pytest.mark.parametrize("command", ["generate", "compare", "grade"])
def test_a_number_without_a_repeat_is_a_usage_error(command: str, repeat: int, tmp_path: Path) -> None:
    with models() as scripted:
        target = [str(tmp_path / "run")] if command == "grade" else ["writer", "--out", str(tmp_path / "run")]
        done = typed(command, *target, "--repeat", str(repeat), cwd=tmp_path)
        assert done.returncode == UsageError.exit_code
        assert f"got {repeat}" in done.stderr
        assert "--repeat" in done.stderr
        assert scripted["writer"].requests == []
    assert not (tmp_path / "run").exists()


def test_shards_take_no_repeats(tmp_path: Path) -> None:
    for option in ("--repeat", "--repeat-judge"):
        done = typed(
            "compare", "embedded-lead", "--shard", "0/2", "--out", "place", option, "3", cwd=tmp_path
        )
        assert done.returncode == UsageError.exit_code
        assert "merge" in done.stderr
    assert not (tmp_path / "place").exists()


@pytest.mark.slow
def test_letters_of_another_judge_are_refused(tmp_path: Path) -> None:
    with models():
        run = compare(tmp_path, "run")
        with registered("other", ScriptedModel(judge(0.1))):
            with pytest.raises(UsageError, match="grader"):
                qaeval.grade(run, judge="other", repeat=2)
            assert not (run.path / "grade_repeats.jsonl").exists()
            qaeval.grade(run, judge="grader", repeat=2)
            qaeval.grade(run, judge="other")
        compare(tmp_path, "run", resume=True, repeat=2)
    assert qaeval.load_run(run.path, decide_by="grader").report.noise is not None
    assert qaeval.load_run(run.path, decide_by="other").report.noise is None
    path = run.path / "grade_repeats.jsonl"
    path.write_text(path.read_text().replace('"judge":"grader"', '"judge":"other"', 1))
    with pytest.raises(DataError, match="another judge"):
        _ = qaeval.load_run(run.path).report


@pytest.mark.slow
def test_temperature_0_is_said_before_and_after(tmp_path: Path) -> None:
    with models():
        compare(tmp_path, "run")
        done = typed("grade", "run", "--judge", "grader", "--repeat", "2", cwd=tmp_path)
        assert done.returncode == 0
        assert "at temperature 0" in done.stderr
        report = qaeval.load_run(tmp_path / "run").report
    assert report.noise is not None
    assert report.noise.at_temperature_0 == ("grader",)
    assert grade.SAMPLING.temperature == _JUDGE_TEMPERATURE


def components(noise: CandidateNoise) -> dict[str, Any]:
    return {part.source: part.variance for part in noise.components}


@pytest.mark.slow
def test_a_judge_and_a_candidate_that_are_noisy_at_known_rates_have_the_known_components(
    tmp_path: Path,
) -> None:
    p_good, error = 0.7, 0.1
    with models(p_good=p_good, p_failed=0, error=error):
        report = compare(tmp_path, "run", n=150, repeat=3, repeat_judge=3).report
    assert report.noise is not None
    assert report.noise.judge is not None
    (of_writer,), of_grader = report.noise.candidates, report.noise.judge
    variances = components(of_writer)
    assert variances["judge"].low <= error * (1 - error) <= variances["judge"].high
    assert variances["reply"].low <= (1 - 2 * error) ** 2 * p_good * (1 - p_good) <= variances["reply"].high
    assert (variances["chunk"].low, variances["item"].low) == (0.0, 0.0)
    assert of_grader.self_agreement.low <= 1 - 2 * error * (1 - error) <= of_grader.self_agreement.high
    assert of_grader.flips.value == approx(1 - of_grader.self_agreement.value)
    assert of_writer.without_judge_noise is not None
    usable = (1 - error) * p_good + error * (1 - p_good)
    assert of_writer.without_judge_noise == approx(
        (1 - error * (1 - error) / (usable * (1 - usable))) ** 0.5, abs=0.1
    )


@pytest.mark.slow
def test_a_judge_that_is_always_sure_has_no_noise_and_the_report_says_how_far_that_goes(
    tmp_path: Path,
) -> None:
    with models(error=0.0):
        report = compare(tmp_path, "run", n=24, repeat_judge=2).report
    assert report.noise is not None
    assert report.noise.judge is not None
    variances = components(report.noise.candidates[0])
    assert variances["judge"].value == 0.0
    assert 0 < variances["judge"].high < 0.1
    assert variances["reply"].value is None
    assert report.noise.judge.self_agreement.value == 1.0
    assert report.noise.judge.alpha.value == 1.0
    section = noise_section(report)
    assert section is not None
    assert "two replies" in section.tables[0].rows[0][3]


@pytest.mark.slow
def test_a_judge_that_gives_no_letter_at_all_leaves_a_report(tmp_path: Path) -> None:
    with models() as scripted:
        scripted["grader"]._replies = lambda _request: "no letter"
        with pytest.raises(DataError, match="grader gave no item a letter"):
            compare(tmp_path, "run", repeat_judge=2)
    report = qaeval.load_run(tmp_path / "run").report
    assert report.noise is not None
    assert (report.noise.candidates, report.noise.judge) == ((), None)
    assert noise_section(report) is not None


@pytest.mark.slow
def test_a_further_reply_that_is_the_same_for_three_chunks_is_a_failed_one(tmp_path: Path) -> None:
    def parrot(request: ChatRequest) -> str:
        answer = "Good." if request.sampling.seed else f"Good. {request.inputs['chunk'][:9]}"
        return pairs_reply([(kind, f"{kind}?", answer) for kind in TYPES])

    with models() as scripted:
        scripted["writer"]._replies = parrot
        scripted["grader"]._replies = lambda _request: grade_reply("A")
        report = compare(tmp_path, "run", repeat=2, repeat_judge=2).report
    assert report.noise is not None
    # every first reply is usable and no second one
    assert components(report.noise.candidates[0])["reply"].value == approx(0.5)


@pytest.mark.slow
def test_several_runs_side_by_side_have_no_noise(tmp_path: Path) -> None:
    with models():
        runs = [compare(tmp_path, name, repeat_judge=2) for name in ("one", "two")]
    assert qaeval.load_run([run.path for run in runs]).report.noise is None
