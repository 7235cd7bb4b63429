"""The three shipped evals, and custom evals, as a user runs them."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qaeval.chat.reply import ReplyError
from qaeval.cli import run
from qaeval.comparison.differences import _linearised
from qaeval.comparison.findings import near_duplicates
from qaeval.corpus.samples import load_samples
from qaeval.corpus.sampling import draw
from qaeval.errors import DataError, UsageError
from qaeval.evals.definition import EvalDefinition, item_schema, load_eval
from qaeval.evals.find import data_root, find_eval, find_rubric
from qaeval.records import FORM, REJECTED, Chunk, Sample
from qaeval.run.items import read_items
from replay.server import LoopbackServer

EVALS = ("qa_pairs", "rag_qa", "dpo_pairs")
PAIRS_RUN = Path(__file__).parent / "data" / "dpo_pairs_templates"
"""A run of `dpo_pairs` by candidates and a judge that no longer exist, with labels of its items."""
CHUNK = Chunk(chunk_id="c", text="The server listens on port 8000. A probe asks for /health.", language="en")


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def work_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---------------------------------------------------------------------------- each eval runs


@pytest.mark.parametrize("name", ["qa_pairs", "rag_qa"])
@pytest.mark.slow
def test_compare_runs_each_eval_that_the_embedded_judge_grades(name: str, work_dir: Path) -> None:
    assert (
        run(["compare", "embedded-lead", "embedded-salient", "--eval", name, "--n", "12", "--out", "run"])
        == 0
    )
    report = json.loads((work_dir / "run" / "report.json").read_text())
    assert report["eval"]["name"] == name
    assert [candidate["n_expected"] for candidate in report["candidates"]] == [
        36 if name == "qa_pairs" else 12
    ] * 2
    assert all(candidate["failed"]["n"] == 0 for candidate in report["candidates"])
    checks = [spec.name for spec in find_eval(name).checks]
    assert [group["check"]["name"] for group in report["checks"]] == checks
    assert report["checks"]
    assert not report["selection"]


@pytest.mark.slow
def test_preference_pairs_need_a_judge_model(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["embedded-lead", "embedded-salient", "--eval", "dpo_pairs", "--n", "12", "--out", "run"]
    assert run(["compare", *arguments]) == 64
    assert "does not grade" in capsys.readouterr().err
    assert not (work_dir / "run").exists()
    assert run(["generate", *arguments]) == 0
    assert run(["grade", "run"]) == 64
    assert "--judge" in capsys.readouterr().err
    assert {row["kind"] for row in read_rows(work_dir / "run" / "generations.jsonl")} == {"generation"}


@pytest.mark.slow
def test_preference_pairs_of_the_embedded_models_are_graded_by_a_judge_model(work_dir: Path) -> None:
    with LoopbackServer(models=("judge",)) as server:
        (work_dir / "qaeval.yaml").write_text(
            f"judges: {{mine: {{url: '{server.url}', served_name: judge}}}}\n"
        )
        arguments = [
            "embedded-lead",
            "embedded-salient",
            "--eval",
            "dpo_pairs",
            "--judge",
            "mine",
            "--n",
            "12",
        ]
        assert run(["compare", *arguments, "--out", "run"]) == 0
    report = json.loads((work_dir / "run" / "report.json").read_text())
    assert [candidate["n_expected"] for candidate in report["candidates"]] == [12] * 2
    assert all(candidate["failed"]["n"] == 0 for candidate in report["candidates"])
    checks = [spec.name for spec in find_eval("dpo_pairs").checks]
    assert [group["check"]["name"] for group in report["checks"]] == checks
    assert {entry["candidate"] for entry in report["selection"]} == {
        "embedded-lead",
        "embedded-salient",
    }


@pytest.mark.parametrize("name", EVALS)
@pytest.mark.slow
def test_each_eval_runs_through_the_loopback_server(name: str, work_dir: Path) -> None:
    with LoopbackServer(models=("mistral", "qwen", "judge")) as server:
        (work_dir / "qaeval.yaml").write_text("judges: {selene: {served_name: judge}}\n")
        endpoints = [f"--endpoint={model}={server.url}" for model in ("mistral", "qwen", "selene")]
        arguments = [
            "compare",
            "mistral",
            "qwen",
            "--judge",
            "selene",
            "--eval",
            name,
            "--n",
            "20",
            "--out",
            "run",
        ]
        assert run([*arguments, *endpoints]) == 0
        requests = [
            body
            for body in server.requests
            if body["model"] != "judge" and body["max_tokens"] == find_eval(name).sampling.max_tokens
        ]
    definition = find_eval(name)
    assert len(requests) == 40
    assert all(("response_format" in body) == definition.enforce_schema for body in requests)
    generations = read_rows(work_dir / "run" / "generations.jsonl")
    if definition.enforce_schema:
        assert {row["kind"] for row in generations} == {"generation"}
    else:
        # no schema constrains the model: some replies are prose, and some JSON is embedded in prose
        assert Counter(row.get("reason", "") for row in generations).keys() == {"", "invalid_json"}
        findings = [
            item["findings"]
            for row in generations
            if row["kind"] == "generation"
            for item in row["items"]
            if "findings" in item
        ]
        assert any("bare_json" in names for names in findings)
        assert not any("form" in names for names in findings)
    letters = {row["letter"] for row in read_rows(work_dir / "run" / "grades.jsonl")}
    assert letters <= {"A", "B", "C"}
    assert letters


@pytest.mark.parametrize("name", EVALS)
def test_each_eval_has_labels_for_its_items(name: str) -> None:
    definition = find_eval(name)
    rubric = find_rubric(definition.rubric)
    chunks = {sample.chunk.chunk_id for sample in load_samples(definition)}
    paths = definition.label_paths or sorted((PAIRS_RUN / "labels").glob("*.jsonl"))
    assert (not definition.label_paths) == (name == "dpo_pairs")
    assert paths
    for path in paths:
        labels = read_rows(path)
        assert len({label["item_id"] for label in labels}) == len(labels)
        assert len(labels) >= 30 or all(label["settles"] for label in labels)
        versions = {f"{rubric.name}/{version}" for version in range(1, rubric.version + 1)}
        assert {label["rubric"] for label in labels} <= versions
        assert {label["letter"] for label in labels} <= set(rubric.letters)
        assert {label["chunk_id"] for label in labels} <= chunks
        assert all(label["note"] for label in labels)


@pytest.mark.slow
def test_a_run_without_usable_items_selects_no_candidate(work_dir: Path) -> None:
    shutil.copytree(PAIRS_RUN, work_dir / "run")
    assert run(["report", "run"]) == 0
    report = json.loads((work_dir / "run" / "report.json").read_text())
    assert [candidate["usable"]["value"] for candidate in report["candidates"]] == [0, 0]
    assert report["verdict"]["kind"] == "none"


@pytest.mark.parametrize(("rater", "n"), [("claude", 54), ("claude-2", 34)])
def test_stored_preference_labels_match_the_items_of_their_run(rater: str, n: int) -> None:
    items = {
        item["item_id"]: (item["question"], item["answer"], item["parts"][REJECTED])
        for row in read_rows(PAIRS_RUN / "generations.jsonl")
        for item in row["items"]
    }
    labels = read_rows(PAIRS_RUN / "labels" / f"{rater}.jsonl")
    assert len(labels) == n
    for label in labels:
        assert (label["question"], label["answer"], label["rejected"]) == items[label["item_id"]]


@pytest.mark.slow
def test_rule_based_judge_is_no_better_than_the_majority_letter_on_pairs(
    work_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(PAIRS_RUN, work_dir / "run")
    assert run(["agreement", "run", "--labels", "run/labels/claude.jsonl", "--json"]) == 0
    (agreement,) = json.loads(capsys.readouterr().out)["agreement"]
    confusion = agreement["coefficients"]["confusion"]
    assert (sum(row[index] for index, row in enumerate(confusion)), sum(map(sum, confusion))) == (17, 27)
    assert (agreement["standing"], agreement["majority_letter"]) == ("majority", "C")


def test_a_rag_qa_draw_keeps_the_shares_of_its_types() -> None:
    drawn = Counter(sample.type for sample in draw(load_samples(find_eval("rag_qa")), n=83, seed=1))
    assert drawn == {"answerable": 45, "unanswerable": 38}


def test_dpo_pairs_cards_have_the_documented_shares() -> None:
    samples = load_samples(find_eval("dpo_pairs"))
    assert Counter(sample.type for sample in samples) == {
        "howto": 16,
        "troubleshooting": 12,
        "planning": 8,
        "impossible": 12,
    }
    assert Counter(sample.type for sample in draw(samples, n=24, seed=3)) == {
        "howto": 8,
        "troubleshooting": 6,
        "planning": 4,
        "impossible": 6,
    }


# ---------------------------------------------------------------------------- replies of each kind

RAG = find_eval("rag_qa")
DPO = find_eval("dpo_pairs")
ASKED = Sample.of(CHUNK, "Which port?", {"type": "answerable"})
TICKET = {"priority": "low", "category": "fact", "department": "platform"}


@pytest.mark.parametrize(
    ("reply", "answer", "findings"),
    [
        (json.dumps({"answer": "Port 8000.", "ticket": TICKET}), "Port 8000.", {}),
        (json.dumps({"answer": "Port 8000."}), "Port 8000.", {"form": "no form"}),
        (
            json.dumps({"answer": "Port 8000.", "ticket": {**TICKET, "priority": "urgent"}}),
            "Port 8000.",
            {"form": "priority: 'urgent' is none of low, normal, high"},
        ),
        (
            json.dumps({"answer": "Port 8000.", "ticket": "low"}),
            "Port 8000.",
            {"form": 'expected an object, got "low"'},
        ),
        (
            "Sure!\n```json\n" + json.dumps({"answer": "Port 9000.", "ticket": TICKET}) + "\n```",
            "Port 9000.",
            {
                "new_numbers": "not in the chunk: 9000",
                "bare_json": "the reply is not bare JSON; it begins with 'Sure!\\n```json\\n{\"answ'",
            },
        ),
        (
            json.dumps({"answer": "The passage does not say that.", "ticket": TICKET}),
            "The passage does not say that.",
            {"wrong_refusal": "declines: 'The passage does not say that.'"},
        ),
    ],
)
def test_a_malformed_answer_is_a_finding_not_a_failure(
    reply: str, answer: str, findings: dict[str, str]
) -> None:
    (item,) = read_items(reply, ASKED, RAG, lenient=False)
    assert (item.question, item.answer, item.type) == ("Which port?", answer, "answerable")
    assert item.findings == findings


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Port 8000.", "invalid_json"),
        ('{"answer": ""}', "missing_field"),
        ('{"answer": "a", "sources": []}', "missing_field"),
        ('["a"]', "missing_field"),
        ("", "empty"),
    ],
)
def test_a_reply_without_an_answer_is_a_failure(reply: str, reason: str) -> None:
    with pytest.raises(ReplyError) as caught:
        read_items(reply, ASKED, RAG, lenient=False)
    assert caught.value.reason == reason


def test_the_rejected_answer_is_part_of_a_pairs_id() -> None:
    card = load_samples(DPO)[0]
    pair = {"prompt": "p", "chosen": "c", "rejected": "r"}
    (item,) = read_items(json.dumps(pair), card, DPO, lenient=False)
    (other,) = read_items(json.dumps({**pair, "rejected": "s"}), card, DPO, lenient=False)
    assert (item.question, item.answer, item.parts) == ("p", "c", {REJECTED: "r"})
    assert item.item_id != other.item_id


def test_the_form_is_not_part_of_an_answers_id() -> None:
    with_form = read_items(json.dumps({"answer": "a b c", "ticket": TICKET}), ASKED, RAG, lenient=False)[0]
    without = read_items(json.dumps({"answer": "a b c"}), ASKED, RAG, lenient=False)[0]
    assert with_form.item_id == without.item_id
    assert json.loads(with_form.parts[FORM]) == TICKET


@pytest.mark.parametrize("definition", [RAG, DPO], ids=["rag_qa", "dpo_pairs"])
def test_the_parser_accepts_values_of_the_schema(definition: EvalDefinition) -> None:
    schema = item_schema(definition)
    value = dict.fromkeys(schema["required"], "text")
    if "ticket" in value:
        value["ticket"] = {
            name: field["enum"][0] for name, field in schema["properties"]["ticket"]["properties"].items()
        }
    sample = load_samples(definition)[0]
    assert len(read_items(json.dumps(value), sample, definition, lenient=False)) == 1


# ---------------------------------------------------------------------------- samples


@pytest.mark.slow
def test_questions_about_one_chunk_are_one_cluster(work_dir: Path) -> None:
    chunks = work_dir / "chunks.jsonl"
    chunks.write_text(
        "".join(
            json.dumps({"id": f"c{i}", "text": f"The port of server {i} is 80{i:02}."}) + "\n"
            for i in range(6)
        )
    )
    questions = work_dir / "questions.jsonl"
    questions.write_text(
        "".join(
            json.dumps(
                {
                    "chunk_id": f"c{i}",
                    "question": f"Which {asked_about} has server {i}?",
                    "type": question_type,
                }
            )
            + "\n"
            for i in range(6)
            for asked_about, question_type in (("port", "answerable"), ("owner", "unanswerable"))
        )
    )
    arguments = ["compare", "embedded-lead", "embedded-salient", "--eval", "rag_qa", "--out", "run"]
    assert run([*arguments, "--chunks", str(chunks), "--samples", str(questions)]) == 0
    report = json.loads((work_dir / "run" / "report.json").read_text())
    assert report["eval"]["n_samples"] == 12
    assert report["candidates"][0]["usable"]["n_clusters"] == 6
    assert [(group["stratum"], group["rates"][0]["n_expected"]) for group in report["types"]] == [
        ("answerable", 6),
        ("unanswerable", 6),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chunk_id": "serving-1", "question": "Which?", "type": "answerable"}, "unknown chunk 'serving-1'"),
        (
            {"chunk_id": "serving-02-openai-compatible-api", "type": "answerable"},
            "expected 'chunk_id' and 'question'",
        ),
        (
            {"chunk_id": "serving-02-openai-compatible-api", "question": "Which?", "type": "maybe"},
            "type: expected one of answerable, unanswerable, got 'maybe'",
        ),
    ],
)
def test_an_invalid_question_is_refused_with_its_line(
    row: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError) as caught:
        load_samples(RAG, samples=path)
    assert str(caught.value).startswith(f"{path}:1: ")
    assert message in str(caught.value)


def nested(depth: int) -> list[Any]:
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"card_id": "a", "type": "howto", "situation": "s"}, "expected text in 'persona'"),
        ({"type": "howto", "persona": "p", "situation": "s"}, "expected text in 'card_id'"),
        ({"card_id": "a", "type": "how", "persona": "p", "situation": "s"}, "type: expected one of howto"),
        (
            {"card_id": "a", "type": "howto", "persona": "p", "situation": "s", "features": ["x"]},
            "features: expected",
        ),
        (
            {"card_id": "a", "type": "howto", "persona": "p", "situation": "s", "forbidden": ["prices"]},
            "forbidden: expected a list of money, durations, hardware",
        ),
        (
            {"card_id": "a", "type": "howto", "persona": "p", "situation": "s", "more": nested(250)},
            "not valid in a row of JSON: recursion limit exceeded",
        ),
    ],
)
def test_an_invalid_card_is_refused_with_its_line(card: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "cards.jsonl"
    path.write_text(json.dumps(card) + "\n")
    with pytest.raises(DataError, match=r"cards\.jsonl:1: ") as caught:
        load_samples(DPO, samples=path)
    assert message in str(caught.value)


def test_files_that_an_eval_does_not_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--samples: .*qa_pairs.* --chunks"):
        load_samples(find_eval("qa_pairs"), samples=tmp_path)
    with pytest.raises(UsageError, match=r"--chunks: .*dpo_pairs.* --samples"):
        load_samples(DPO, chunks=tmp_path)
    with pytest.raises(UsageError, match=r"--chunks .*rag_qa.* --samples"):
        load_samples(RAG, chunks=tmp_path)


def test_custom_field_names_of_a_chunk_file_are_mapped(
    work_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = work_dir / "foreign.jsonl"
    text = "Der Server hört auf Port 8000."
    path.write_text(json.dumps({"nr": 7, "id": "no", "inhalt": text, "amt": "IT"}) + "\n")
    names = ["--field", "chunk_id=nr", "--field", "text=inhalt", "--field", "stratum=amt"]
    assert run(["sample", "--chunks", str(path), *names]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["chunk_id"], row["text"], row["stratum"]) == ("7", text, "IT")
    assert run(["sample", "--chunks", str(path), "--field", "txt=inhalt"]) == 64
    assert "Did you mean 'text'?" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", EVALS)
def test_the_sample_command_draws_the_samples_of_a_run(
    name: str, work_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sample", "--eval", name, "--n", "10", "--seed", "5", "--out", "drawn.jsonl"]) == 0
    message = capsys.readouterr().err
    drawn = draw(load_samples(find_eval(name)), n=10, seed=5)
    option = {"qa_pairs": "chunks"}.get(name, "samples")
    written = load_samples(find_eval(name), **{option: work_dir / "drawn.jsonl"})
    assert {sample.sample_id for sample in written} == {sample.sample_id for sample in drawn}
    assert "10 of" in message
    assert run(["sample", "--eval", name, "--out", "drawn.jsonl"]) == 64


# ---------------------------------------------------------------------------- custom evals


@pytest.mark.parametrize("kind", ["qa_pair", "answer", "preference_pair"])
@pytest.mark.slow
def test_a_new_eval_runs_without_changes(
    kind: str, work_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["new-eval", "mine", "--kind", kind]) == 0
    verb = "generate" if kind == "preference_pair" else "compare"
    command = f"qaeval {verb} embedded-lead embedded-salient --eval evals/mine"
    assert f"next: {command}\n" in capsys.readouterr().out
    assert f"Try it: `{command}`" in (work_dir / "evals" / "mine" / "README.md").read_text()
    definition = load_eval(work_dir / "evals" / "mine")
    assert (definition.name, definition.item_kind) == ("mine", kind)
    assert definition.samples_path is None or definition.samples_path.parent == work_dir / "evals" / "mine"
    assert "mine" in (work_dir / "evals" / "mine" / "task.py").read_text()
    assert run([*command.split()[1:], "--out", "run"]) == 0
    assert json.loads((work_dir / "run" / "settings.json").read_text())["sample_set"]["n"] == 6
    assert {row["kind"] for row in read_rows(work_dir / "run" / "generations.jsonl")} == {"generation"}
    if verb == "compare":
        assert json.loads((work_dir / "run" / "report.json").read_text())["eval"]["n_samples"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Mine"], "eval name 'Mine'"),
        (["mine", "--kind", "qa_pairs"], "unknown kind 'qa_pairs'. Did you mean 'qa_pair'?"),
        (["taken"], "evals/taken exists"),
    ],
)
def test_invalid_new_eval_arguments_are_refused(
    arguments: list[str], message: str, work_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work_dir / "evals" / "taken").mkdir(parents=True)
    assert run(["new-eval", *arguments]) == 64
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------------------- analysis of what was written


@pytest.mark.slow
@pytest.mark.usefixtures("work_dir")
def test_generation_can_be_analysed_before_grading(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "embedded-lead", "embedded-salient", "--n", "8", "--out", "run"]) == 0
    capsys.readouterr()
    assert run(["analyse", "generation", "run", "--json"]) == 0
    analysis = json.loads(capsys.readouterr().out)
    assert [candidate["n_valid"] for candidate in analysis["candidates"]] == [24, 24]
    assert analysis["candidates"][0]["question_types"] == {"factual": 8, "conceptual": 8, "comparison": 8}
    assert run(["analyse", "generation", "run"]) == 0
    printed = capsys.readouterr().out
    assert "over 60" in printed
    assert "foreign question" in printed
    assert "Nothing failed." in printed
    assert "\n    Finding: " in printed  # texts in narrow columns cannot be read


@pytest.mark.slow
def test_check_rates_count_findings_among_the_items_checked(work_dir: Path) -> None:
    assert run(["compare", "embedded-lead", "embedded-salient", "--eval", "rag_qa", "--out", "run"]) == 0
    report = json.loads((work_dir / "run" / "report.json").read_text())
    samples = {row["sample_id"]: row for row in read_rows(work_dir / "run" / "samples.jsonl")}
    generations = read_rows(work_dir / "run" / "generations.jsonl")
    lead, salient = (candidate["usable"]["value"] for candidate in report["candidates"])
    assert report["differences"][0]["difference"]["value"] == pytest.approx(
        salient - lead
    )  # chunks differ in size
    assert run(["plan", "run"]) == 0
    assert report["checks"]
    for group in report["checks"]:
        assert len(group["rates"]) == 2
        for rate in group["rates"]:
            generations_of_candidate = [row for row in generations if row["candidate"] == rate["candidate"]]
            checked_items = [
                row["items"][0]
                for row in generations_of_candidate
                if not group["check"]["types"]
                or samples[row["sample_id"]]["given"]["type"] in group["check"]["types"]
            ]
            n_found = sum(group["check"]["name"] in item.get("findings", {}) for item in checked_items)
            assert (rate["n_checked"], rate["n_found"]) == (len(checked_items), n_found)
            assert rate["share"]["value"] == pytest.approx(n_found / len(checked_items))
    assert {example["candidate"] for group in report["checks"] for example in group["examples"]}


# ---------------------------------------------------------------------------- cases found in review


@pytest.mark.usefixtures("work_dir")
@pytest.mark.parametrize("n", ["1", "2", "5"])
@pytest.mark.slow
def test_a_check_rate_without_items_gives_its_reason(n: str) -> None:
    assert (
        run(["compare", "embedded-lead", "embedded-salient", "--eval", "rag_qa", "--n", n, "--out", "run"])
        == 0
    )
    report = json.loads(Path("run/report.json").read_text())
    empty = [rate for group in report["checks"] for rate in group["rates"] if not rate["n_checked"]]
    assert bool(empty) == (n != "5")
    assert all(rate["share"]["reason"] == "there is no item" for rate in empty)


@pytest.mark.usefixtures("work_dir")
@pytest.mark.slow
def test_runs_whose_sample_types_differ_are_not_comparable(capsys: pytest.CaptureFixture[str]) -> None:
    samples = read_rows(data_root() / "evals" / "rag_qa" / "samples.jsonl")[:30]
    opposite = {"answerable": "unanswerable", "unanswerable": "answerable"}
    for name, variant in (
        ("one", samples),
        ("two", [{**row, "type": opposite[row["type"]]} for row in samples]),
    ):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in variant))
        arguments = [
            "compare",
            "embedded-lead",
            "embedded-salient",
            "--eval",
            "rag_qa",
            "--samples",
            f"{name}.jsonl",
        ]
        assert run([*arguments, "--out", name]) == 0
    capsys.readouterr()
    assert run(["report", "one", "two"]) == 4
    assert "they differ in samples" in capsys.readouterr().err


@pytest.mark.slow
def test_near_duplicate_detection_scales_to_many_similar_questions() -> None:
    distinct = [f"What does setting w{number} mean for the model server?" for number in range(20_000)]
    assert near_duplicates(distinct) is None
    repeated = ["What does it mean for the server?"] * 20_000
    assert near_duplicates(repeated) == 19_999


def test_linearised_differences_weight_chunks_by_their_items() -> None:
    # a wins 3 chunks of 40 items, b wins 27 chunks of one item
    a = np.array([1.0] * 3 + [0.0] * 27)
    b = 1 - a
    weights = np.array([40.0] * 3 + [1.0] * 27)
    values = _linearised(b - a, weights / weights.mean())
    assert values.mean() == pytest.approx((27 - 120) / 147)
    equal_weights = np.ones(30)
    assert _linearised(b - a, equal_weights) == pytest.approx(b - a)
