"""Runs until decided: batches in random order, the decision at each look, and its report."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import qaeval
from qaeval import api
from qaeval.chat.protocol import ChatRequest
from qaeval.comparison.headline import stopping_sentence
from qaeval.errors import Interrupted, NotComparableError, UsageError
from qaeval.records import Session
from qaeval.run import batches
from qaeval.run.batches import next_batch
from qaeval.testing import ScriptedModel, grade_reply, pairs_reply, registered

N_CHUNKS = 120
TYPES = ("factual", "conceptual", "comparison")
Letters = Mapping[str, Sequence[str]]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 20 chunks, so that a run of few chunks has several looks."""
    monkeypatch.setattr(batches, "FIRST", 20)


@pytest.fixture
def chunks(tmp_path: Path) -> Path:
    path = tmp_path / "chunks.jsonl"
    rows = [
        {
            "chunk_id": f"c{index}",
            "text": f"Chunk {index}. Valve {index} opens at {index + 2} bar. It closes again soon.",
        }
        for index in range(N_CHUNKS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_letters(rate: float, seed: int) -> list[str]:
    """Return three letters per chunk: A with probability `rate`, otherwise C."""
    rng = np.random.default_rng(seed)
    return ["".join(np.where(rng.random(3) < rate, "A", "C")) for _ in range(N_CHUNKS)]


def parse_index(text: str) -> int:
    match = re.search(r"(\d+)", text)
    assert match
    return int(match.group(1))


@pytest.fixture
def register_models() -> Iterator[Callable[[Letters], dict[str, ScriptedModel]]]:
    """Registers a candidate for each entry, and a judge that returns the given letters."""
    with ExitStack() as stack:

        def register(letters: Letters) -> dict[str, ScriptedModel]:
            def candidate(name: str) -> Callable[[ChatRequest], str]:
                return lambda request: pairs_reply(
                    [
                        (
                            kind,
                            f"{name} {parse_index(request.inputs['chunk'])} {kind}: when does it open?",
                            "At 2 bar.",
                        )
                        for kind in TYPES
                    ]
                )

            def judge(request: ChatRequest) -> str:
                name, index, kind = re.split(r"[ :]", request.inputs["question"])[:3]
                letter = letters[name][int(index)][TYPES.index(kind)] if name in letters else "C"
                return grade_reply(letter) if letter != "-" else "I cannot say."

            models = {name: ScriptedModel(candidate(name)) for name in letters} | {
                "the-judge": ScriptedModel(judge)
            }
            for name, model in models.items():
                stack.enter_context(registered(name, model))
            return models

        yield register


def compare(names: Sequence[str], chunks: Path, out: Path, **options: Any) -> api.Run:
    options = {"until_decided": True, "controls": False, **options}
    return api.compare(
        names,
        eval_name="qa_pairs",
        rubric="qa_pair_abc",
        chunks=chunks,
        judge="the-judge",
        out=out,
        cache=False,
        **options,
    )


def requested_chunks(model: ScriptedModel) -> list[int]:
    return [parse_index(request.inputs["chunk"]) for request in model.requests]


@pytest.mark.slow
def test_a_clear_gap_stops_the_run_early(chunks: Path, tmp_path: Path, register_models: Any) -> None:
    models = register_models({"good": make_letters(0.97, 1), "poor": make_letters(0.3, 2)})
    run = compare(["good", "poor"], chunks, tmp_path / "run")
    report = run.report
    stopping = report.stopping
    assert stopping is not None
    assert stopping.is_decided
    assert stopping.n_chunks == stopping.looks[-1].n_chunks == 20
    assert report.eval.n_samples == len(models["good"].requests) == 20
    assert (stopping.n_chunks_planned, stopping.n_items, stopping.n_items_planned) == (120, 120, 720)
    assert report.verdict.leader == "good"
    (pair,) = report.differences
    assert pair.at_every_look
    assert pair.outcome == "a is better"
    assert pair.p_holm == stopping.looks[-1].pairs[0].p_holm <= 0.05
    assert pair.difference.high is not None
    assert pair.difference.high < 0
    # not the first chunks of the file
    assert sorted(set(requested_chunks(models["good"]))) != list(range(20))
    assert set(requested_chunks(models["good"])) == set(requested_chunks(models["poor"]))
    assert any("Stopped early after 20 of 120 chunks" in sentence.text for sentence in report.headline)
    for format_ in ("md", "html"):
        assert "Stopped early after 20 of 120 chunks" in run.render(format_)
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["stopping"]["n_chunks"] == 20
    assert api.load_run(run.path).report.stopping == stopping


@pytest.mark.slow
def test_items_without_a_letter_do_not_stop_a_run(chunks: Path, tmp_path: Path, register_models: Any) -> None:
    letters = make_letters(0.7, 1)
    register_models(
        {
            "one": letters,
            "two": [f"{letters_of_chunk[0]}-{letters_of_chunk[2]}" for letters_of_chunk in letters],
        }
    )
    report = compare(["one", "two"], chunks, tmp_path / "run").report
    assert report.differences[0].outcome == "a is better"
    assert report.stopping is not None
    assert not any(look.is_decided for look in report.stopping.looks)
    assert report.stopping.n_chunks == N_CHUNKS
    assert report.verdict.kind == "undecided"
    assert report.verdict.reason("ungraded") is not None


@pytest.mark.slow
def test_equivalent_candidates_stop_the_run(chunks: Path, tmp_path: Path, register_models: Any) -> None:
    letters = make_letters(0.8, 1)
    register_models({"one": letters, "two": letters})
    stopping = compare(["one", "two"], chunks, tmp_path / "run", margin=0.2).report.stopping
    assert stopping is not None
    assert stopping.is_decided
    assert stopping.n_chunks < N_CHUNKS
    assert stopping.looks[-1].pairs[0].outcome == "no difference shown"
    assert [look.is_decided for look in stopping.looks[:-1]] == [False] * (len(stopping.looks) - 1)


@pytest.mark.slow
def test_an_undecided_run_uses_all_chunks_and_has_a_wider_interval(
    chunks: Path, tmp_path: Path, register_models: Any
) -> None:
    register_models({"one": make_letters(0.8, 1), "two": make_letters(0.82, 2)})
    until_decided = compare(["one", "two"], chunks, tmp_path / "until").report
    fixed = compare(["one", "two"], chunks, tmp_path / "fixed", until_decided=False).report
    assert until_decided.stopping is not None
    assert not until_decided.stopping.is_decided
    assert until_decided.stopping.n_chunks == until_decided.eval.n_samples == N_CHUNKS
    assert fixed.stopping is None
    assert not fixed.differences[0].at_every_look
    (until_pair,), (fixed_pair,) = until_decided.differences, fixed.differences
    assert until_pair.difference.value == pytest.approx(fixed_pair.difference.value)
    assert until_pair.difference.low is not None
    assert fixed_pair.difference.low is not None
    assert until_pair.difference.low < fixed_pair.difference.low
    assert until_decided.verdict.kind == "undecided"


@pytest.mark.slow
def test_three_candidates_stop_when_the_first_place_is_decided(
    chunks: Path, tmp_path: Path, register_models: Any
) -> None:
    register_models(
        {"best": make_letters(0.97, 1), "left": make_letters(0.4, 2), "right": make_letters(0.42, 3)}
    )
    report = compare(["left", "best", "right"], chunks, tmp_path / "run").report
    assert report.stopping is not None
    last = report.stopping.looks[-1]
    assert (last.leader, last.is_decided) == ("best", True)
    outcomes = {(pair.a, pair.b): pair.outcome for pair in last.pairs}
    assert outcomes["left", "right"] == "not enough data"
    assert report.verdict.leader == "best"


class Killed(BaseException):
    """Ends a process without giving it time to clean up."""


@pytest.mark.slow
def test_a_killed_run_resumes_in_the_same_order_with_the_same_decision(
    chunks: Path, tmp_path: Path, register_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = {"one": make_letters(0.95, 1), "two": make_letters(0.7, 2)}
    models = register_models(letters)
    uninterrupted = compare(["one", "two"], chunks, tmp_path / "whole").report
    assert uninterrupted.stopping is not None
    assert len(uninterrupted.stopping.looks) > 1
    order = requested_chunks(models["one"])
    write_settings, calls = batches.RunStore.write_settings, []

    def write_or_kill(store: Any, settings: Any) -> None:
        calls.append(settings)
        if len([call for call in calls if len(call["until_decided"]["looks"]) == 2]) == 1:
            raise Killed  # the samples of the second batch are written, its settings are not
        write_settings(store, settings)

    with monkeypatch.context() as patch:
        patch.setattr(batches.RunStore, "write_settings", write_or_kill)
        with pytest.raises(Killed):
            compare(["one", "two"], chunks, tmp_path / "killed")
    models["one"].requests.clear()
    resumed = compare(["one", "two"], chunks, tmp_path / "killed", resume=True).report
    assert sorted(requested_chunks(models["one"])) == sorted(order[20:])
    assert resumed.stopping == uninterrupted.stopping.model_copy(
        update={"timing": resumed.stopping and resumed.stopping.timing}
    )
    assert resumed.differences == uninterrupted.differences
    repeated = compare(["one", "two"], chunks, tmp_path / "killed", resume=True).report
    assert repeated.stopping == resumed.stopping


@pytest.mark.slow
def test_an_interrupted_batch_is_finished_before_the_next_look(
    chunks: Path, tmp_path: Path, register_models: Any
) -> None:
    register_models({"one": make_letters(0.95, 1), "two": make_letters(0.7, 2)})
    uninterrupted = compare(["one", "two"], chunks, tmp_path / "whole").report

    def stop(event: api.ProgressEvent) -> None:
        if event.stage == "generate" and event.model == "two" and event.done == 30:
            raise Interrupted("stopped by the test")

    with pytest.raises(Interrupted):
        compare(["one", "two"], chunks, tmp_path / "run", progress=stop)
    resumed = compare(["one", "two"], chunks, tmp_path / "run", resume=True).report
    assert resumed.differences == uninterrupted.differences


@pytest.mark.slow
def test_the_stopping_rule_cannot_change_on_resume(
    chunks: Path, tmp_path: Path, register_models: Any
) -> None:
    register_models({"good": make_letters(0.97, 1), "poor": make_letters(0.3, 2)})
    compare(["good", "poor"], chunks, tmp_path / "until")
    compare(["good", "poor"], chunks, tmp_path / "fixed", until_decided=False, n=12)
    with pytest.raises(NotComparableError, match="resume it with --until-decided"):
        compare(["good", "poor"], chunks, tmp_path / "until", until_decided=False, resume=True)
    with pytest.raises(NotComparableError, match="resume it with --all-chunks"):
        compare(["good", "poor"], chunks, tmp_path / "fixed", n=12, resume=True)
    with pytest.raises(NotComparableError, match="margin"):
        compare(["good", "poor"], chunks, tmp_path / "until", margin=0.2, resume=True)
    # a run without either option resumes with its own stopping rule
    assert (
        compare(["good", "poor"], chunks, tmp_path / "until", until_decided=None, resume=True).report.stopping
        is not None
    )


@pytest.mark.slow
def test_single_candidates_and_small_samples_have_a_fixed_size(
    chunks: Path, tmp_path: Path, register_models: Any
) -> None:
    register_models({"good": make_letters(0.97, 1), "poor": make_letters(0.3, 2)})
    single = compare(["good"], chunks, tmp_path / "alone", n=12).report
    assert (single.stopping, single.eval.n_samples) == (None, 12)
    small = compare(["good", "poor"], chunks, tmp_path / "few", n=29).report
    assert (small.stopping, small.eval.n_samples) == (None, 29)
    assert not small.differences[0].at_every_look


@pytest.mark.slow
def test_sufficient_labels_decide(chunks: Path, tmp_path: Path, register_models: Any) -> None:
    # the judge sees no difference; people do, in every other chunk
    letters = make_letters(0.9, 1)
    register_models({"good": letters, "poor": letters})
    probe = compare(["good", "poor"], chunks, tmp_path / "probe", until_decided=False)
    table = probe.letters.merge(probe.items[["item_id", "question"]], on="item_id")
    rows = [
        {"item_id": row.item_id, "label": "A" if row.candidate == "good" else "C", "rater": "anna"}
        for row in table.itertuples()
        if parse_index(str(row.chunk_id)) % 2 == 0
    ]
    labels = tmp_path / "anna.jsonl"
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = compare(["good", "poor"], chunks, tmp_path / "run", labels=labels).report
    assert report.stopping is not None
    assert report.stopping.is_decided
    assert report.stopping.n_chunks < N_CHUNKS
    last = report.stopping.looks[-1].pairs[0]
    assert (last.rater, last.outcome) == ("anna", "a is better")
    (pair,) = report.differences
    assert pair.deciding is not None
    assert pair.deciding.outcome == "a is better"
    assert pair.difference.value == 0
    assert report.verdict.leader == "good"


def write_uneven_labels(run: api.Run, path: Path, letter_of: Mapping[str, str]) -> Path:
    """Write labels of every other chunk, with two inclusion probabilities."""
    table = run.letters.merge(run.items[["item_id"]], on="item_id")
    rows = [
        {
            "item_id": row.item_id,
            "label": letter_of[str(row.candidate)],
            "rater": "anna",
            "inclusion": 0.3 if parse_index(str(row.chunk_id)) % 4 else 0.5,
        }
        for row in table.itertuples()
        if parse_index(str(row.chunk_id)) % 2 == 0
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_labels_with_unequal_probabilities_decide_only_at_the_last_chunk(
    chunks: Path, tmp_path: Path, register_models: Any
) -> None:
    register_models({"good": make_letters(0.97, 1), "poor": make_letters(0.3, 2)})
    probe = compare(["good", "poor"], chunks, tmp_path / "probe", until_decided=False)
    labels = write_uneven_labels(probe, tmp_path / "anna.jsonl", {"good": "A", "poor": "C"})
    report = compare(["good", "poor"], chunks, tmp_path / "run").report
    assert report.stopping is not None
    assert report.stopping.is_decided
    labelled = api.load_run(tmp_path / "run", labels=labels).report
    assert labelled.stopping is not None
    assert labelled.stopping.is_decided
    (pair,) = labelled.differences
    assert pair.deciding is None
    assert pair.labelled[0].difference.low is None
    assert "different probabilities" in (pair.labelled[0].difference.reason or "")

    letters = make_letters(0.8, 3)
    rotated = [*letters[60:], *letters[:60]]
    register_models({"first": letters, "second": rotated})
    probe = compare(["first", "second"], chunks, tmp_path / "probe2", until_decided=False)
    labels = write_uneven_labels(probe, tmp_path / "anna2.jsonl", {"first": "A", "second": "C"})
    report = compare(["first", "second"], chunks, tmp_path / "whole", labels=labels).report
    assert report.stopping is not None
    assert report.stopping.n_chunks == N_CHUNKS
    last = report.stopping.looks[-1].pairs[0]
    assert (last.rater, last.outcome) == ("anna", "a is better")
    (pair,) = report.differences
    assert pair.deciding is not None
    assert pair.deciding.outcome == "a is better"
    fixed = api.load_run(tmp_path / "probe2", labels=labels).report.differences[0].labelled[0].difference
    assert pair.deciding.difference.low == pytest.approx(fixed.low)
    assert pair.deciding.difference.method == fixed.method


@pytest.mark.slow
def test_labels_added_later_can_undo_an_early_decision(
    chunks: Path, tmp_path: Path, register_models: Any
) -> None:
    register_models({"good": make_letters(0.97, 1), "poor": make_letters(0.3, 2)})
    run = compare(["good", "poor"], chunks, tmp_path / "run")
    assert run.report.stopping is not None
    assert "settle the first place" in stopping_sentence(run.report.stopping)
    rows = [
        {"item_id": row.item_id, "label": "A" if number % 2 else "C", "rater": "anna"}
        for number, row in enumerate(run.letters.itertuples())
    ]
    labels = tmp_path / "anna.jsonl"
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stopping = api.load_run(tmp_path / "run", labels=labels).report.stopping
    assert stopping is not None
    assert not stopping.is_decided
    sentence = stopping_sentence(stopping)
    assert "undecided" in sentence
    assert "saved" not in sentence
    assert stopping.timing.seconds_saved <= 0


def test_a_panel_is_refused(chunks: Path, tmp_path: Path, register_models: Any) -> None:
    register_models({"good": make_letters(0.97, 1), "poor": make_letters(0.3, 2)})
    with pytest.raises(UsageError, match="a panel has a fixed sample"):
        api.compare(
            ["good", "poor"],
            eval_name="qa_pairs",
            chunks=chunks,
            panel=["the-judge", "embedded-lexical", "selene"],
            out=tmp_path / "run",
            until_decided=True,
        )


def test_shards_are_refused(tmp_path: Path) -> None:
    result = qaeval(
        "compare", "a,b", "--until-decided", "--shard", "0/2", "--out", tmp_path / "run", cwd=tmp_path
    )
    assert result.returncode == 64
    assert "omit --shard" in result.stderr


@pytest.mark.parametrize(
    ("n_done", "load_s", "seconds", "expected"),
    [
        (50, 0.0, 100.0, 50),
        (800, 0.0, 1600.0, 100),  # an eighth
        (250, 180.0, 450.0, 230),  # sqrt(2 * 250 * 180 / 1.8) = 224
        (250, 9000.0, 450.0, 500),  # no more than twice the chunks so far
        (1880, 0.0, 100.0, 52),  # the rest
    ],
)
def test_batch_sizes_follow_the_measured_start_time(
    n_done: int, load_s: float, seconds: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "FIRST", 50)
    started = "2026-01-01T00:00:00+00:00"
    sessions = [
        Session(
            stage="generate",
            model="one",
            started=started,
            seconds=seconds,
            load_s=load_s,
            n_tasks=1,
            qaeval_version="0",
        )
    ]
    assert next_batch(n_done, 1932, sessions, 1) == expected
