"""The three evals, and evals of one's own, as a user runs them."""

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
"""A run of `dpo_pairs` by candidates and a judge that are gone, with labels of its items."""
CHUNK = Chunk(chunk_id="c", text="The server listens on port 8000. A probe asks for /health.", language="en")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---------------------------------------------------------------------------- each eval runs


@pytest.mark.parametrize("name", ["qa_pairs", "rag_qa"])
@pytest.mark.slow
def test_each_eval_that_they_grade_runs_by_one_command_on_the_embedded_models(name: str, here: Path) -> None:
    assert (
        run(["compare", "embedded-lead", "embedded-salient", "--eval", name, "--n", "12", "--out", "run"])
        == 0
    )
    report = json.loads((here / "run" / "report.json").read_text())
    assert report["eval"]["name"] == name
    assert [one["n_expected"] for one in report["candidates"]] == [36 if name == "qa_pairs" else 12] * 2
    assert all(one["failed"]["n"] == 0 for one in report["candidates"])
    checks = [spec.name for spec in find_eval(name).checks]
    assert [group["check"]["name"] for group in report["checks"]] == checks
    assert report["checks"]
    assert not report["selection"]


@pytest.mark.slow
def test_preference_pairs_need_a_judge_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["embedded-lead", "embedded-salient", "--eval", "dpo_pairs", "--n", "12", "--out", "run"]
    assert run(["compare", *words]) == 64
    assert "does not grade" in capsys.readouterr().err
    assert not (here / "run").exists()
    assert run(["generate", *words]) == 0
    assert run(["grade", "run"]) == 64
    assert "--judge" in capsys.readouterr().err
    assert {row["kind"] for row in rows(here / "run" / "generations.jsonl")} == {"generation"}


@pytest.mark.slow
def test_preference_pairs_of_the_embedded_models_are_graded_by_a_judge_model(here: Path) -> None:
    with LoopbackServer(models=("judge",)) as server:
        (here / "qaeval.yaml").write_text(f"judges: {{mine: {{url: '{server.url}', served_name: judge}}}}\n")
        words = ["embedded-lead", "embedded-salient", "--eval", "dpo_pairs", "--judge", "mine", "--n", "12"]
        assert run(["compare", *words, "--out", "run"]) == 0
    report = json.loads((here / "run" / "report.json").read_text())
    assert [one["n_expected"] for one in report["candidates"]] == [12] * 2
    assert all(one["failed"]["n"] == 0 for one in report["candidates"])
    checks = [spec.name for spec in find_eval("dpo_pairs").checks]
    assert [group["check"]["name"] for group in report["checks"]] == checks
    assert {one["candidate"] for one in report["selection"]} == {"embedded-lead", "embedded-salient"}


@pytest.mark.parametrize("name", EVALS)
@pytest.mark.slow
def test_each_eval_runs_through_the_loopback_server(name: str, here: Path) -> None:
    with LoopbackServer(models=("mistral", "qwen", "judge")) as server:
        (here / "qaeval.yaml").write_text("judges: {selene: {served_name: judge}}\n")
        endpoints = [f"--endpoint={model}={server.url}" for model in ("mistral", "qwen", "selene")]
        words = [
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
        assert run([*words, *endpoints]) == 0
        asked = [
            body
            for body in server.requests
            if body["model"] != "judge" and body["max_tokens"] == find_eval(name).sampling.max_tokens
        ]
    definition = find_eval(name)
    assert len(asked) == 40
    assert all(("response_format" in body) == definition.enforce_schema for body in asked)
    generations = rows(here / "run" / "generations.jsonl")
    if definition.enforce_schema:
        assert {row["kind"] for row in generations} == {"generation"}
    else:
        # no schema holds the model: some replies are prose, and some JSON stands among words
        assert Counter(row.get("reason", "") for row in generations).keys() == {"", "invalid_json"}
        found = [
            item["findings"]
            for row in generations
            if row["kind"] == "generation"
            for item in row["items"]
            if "findings" in item
        ]
        assert any("bare_json" in one for one in found)
        assert not any("form" in one for one in found)
    letters = {row["letter"] for row in rows(here / "run" / "grades.jsonl")}
    assert letters <= {"A", "B", "C"}
    assert letters


@pytest.mark.parametrize("name", EVALS)
def test_each_eval_has_labels_that_belong_to_its_items(name: str) -> None:
    definition = find_eval(name)
    rubric = find_rubric(definition.rubric)
    chunks = {sample.chunk.chunk_id for sample in load_samples(definition)}
    paths = definition.label_paths or sorted((PAIRS_RUN / "labels").glob("*.jsonl"))
    assert (not definition.label_paths) == (name == "dpo_pairs")
    assert paths
    for path in paths:
        labels = rows(path)
        assert len({label["item_id"] for label in labels}) == len(labels)
        assert len(labels) >= 30 or all(label["settles"] for label in labels)
        versions = {f"{rubric.name}/{version}" for version in range(1, rubric.version + 1)}
        assert {label["rubric"] for label in labels} <= versions
        assert {label["letter"] for label in labels} <= set(rubric.letters)
        assert {label["chunk_id"] for label in labels} <= chunks
        assert all(label["note"] for label in labels)


@pytest.mark.slow
def test_a_run_without_anything_usable_takes_nobody(here: Path) -> None:
    shutil.copytree(PAIRS_RUN, here / "run")
    assert run(["report", "run"]) == 0
    report = json.loads((here / "run" / "report.json").read_text())
    assert [one["usable"]["value"] for one in report["candidates"]] == [0, 0]
    assert report["verdict"]["kind"] == "none"


@pytest.mark.parametrize(("rater", "n"), [("claude", 54), ("claude-2", 34)])
def test_labels_of_pairs_that_nobody_writes_any_more_are_of_the_run_that_they_are_kept_with(
    rater: str, n: int
) -> None:
    items = {
        item["item_id"]: (item["question"], item["answer"], item["parts"][REJECTED])
        for row in rows(PAIRS_RUN / "generations.jsonl")
        for item in row["items"]
    }
    labels = rows(PAIRS_RUN / "labels" / f"{rater}.jsonl")
    assert len(labels) == n
    for label in labels:
        assert (label["question"], label["answer"], label["rejected"]) == items[label["item_id"]]


@pytest.mark.slow
def test_rules_did_not_grade_pairs_better_than_the_same_letter_for_all(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(PAIRS_RUN, here / "run")
    assert run(["agreement", "run", "--labels", "run/labels/claude.jsonl", "--json"]) == 0
    (claude,) = json.loads(capsys.readouterr().out)["agreement"]
    confusion = claude["coefficients"]["confusion"]
    assert (sum(row[n] for n, row in enumerate(confusion)), sum(map(sum, confusion))) == (17, 27)
    assert (claude["standing"], claude["majority_letter"]) == ("majority", "C")


def test_a_draw_of_rag_qa_has_the_shares_of_its_types() -> None:
    drawn = Counter(sample.type for sample in draw(load_samples(find_eval("rag_qa")), n=83, seed=1))
    assert drawn == {"answerable": 45, "unanswerable": 38}


def test_dpo_pairs_has_cards_in_the_promised_shares() -> None:
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
    ("reply", "answer", "found"),
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
def test_an_answer_is_read_and_its_format_is_a_finding_not_a_failure(
    reply: str, answer: str, found: dict[str, str]
) -> None:
    (item,) = read_items(reply, ASKED, RAG, lenient=False)
    assert (item.question, item.answer, item.type) == ("Which port?", answer, "answerable")
    assert item.findings == found


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
def test_what_is_no_answer_is_a_failure(reply: str, reason: str) -> None:
    with pytest.raises(ReplyError) as caught:
        read_items(reply, ASKED, RAG, lenient=False)
    assert caught.value.reason == reason


def test_a_preference_pair_is_told_apart_by_its_rejected_answer_too() -> None:
    card = load_samples(DPO)[0]
    pair = {"prompt": "p", "chosen": "c", "rejected": "r"}
    (item,) = read_items(json.dumps(pair), card, DPO, lenient=False)
    (other,) = read_items(json.dumps({**pair, "rejected": "s"}), card, DPO, lenient=False)
    assert (item.question, item.answer, item.parts) == ("p", "c", {REJECTED: "r"})
    assert item.item_id != other.item_id


def test_a_form_does_not_tell_answers_apart() -> None:
    with_form = read_items(json.dumps({"answer": "a b c", "ticket": TICKET}), ASKED, RAG, lenient=False)[0]
    without = read_items(json.dumps({"answer": "a b c"}), ASKED, RAG, lenient=False)[0]
    assert with_form.item_id == without.item_id
    assert json.loads(with_form.parts[FORM]) == TICKET


@pytest.mark.parametrize("definition", [RAG, DPO], ids=["rag_qa", "dpo_pairs"])
def test_the_schema_is_what_the_parser_takes(definition: EvalDefinition) -> None:
    schema = item_schema(definition)
    value = dict.fromkeys(schema["required"], "text")
    if "ticket" in value:
        value["ticket"] = {
            name: own["enum"][0] for name, own in schema["properties"]["ticket"]["properties"].items()
        }
    sample = load_samples(definition)[0]
    assert len(read_items(json.dumps(value), sample, definition, lenient=False)) == 1


# ---------------------------------------------------------------------------- samples


@pytest.mark.slow
def test_questions_about_one_chunk_are_one_cluster(here: Path) -> None:
    chunks = here / "chunks.jsonl"
    chunks.write_text(
        "".join(
            json.dumps({"id": f"c{i}", "text": f"The port of server {i} is 80{i:02}."}) + "\n"
            for i in range(6)
        )
    )
    questions = here / "questions.jsonl"
    questions.write_text(
        "".join(
            json.dumps({"chunk_id": f"c{i}", "question": f"Which {word} has server {i}?", "type": kind})
            + "\n"
            for i in range(6)
            for word, kind in (("port", "answerable"), ("owner", "unanswerable"))
        )
    )
    words = ["compare", "embedded-lead", "embedded-salient", "--eval", "rag_qa", "--out", "run"]
    assert run([*words, "--chunks", str(chunks), "--samples", str(questions)]) == 0
    report = json.loads((here / "run" / "report.json").read_text())
    assert report["eval"]["n_samples"] == 12
    assert report["candidates"][0]["usable"]["n_clusters"] == 6
    assert [(one["stratum"], one["rates"][0]["n_expected"]) for one in report["types"]] == [
        ("answerable", 6),
        ("unanswerable", 6),
    ]


@pytest.mark.parametrize(
    ("row", "words"),
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
def test_a_question_that_cannot_be_asked_is_refused_with_its_line(
    row: dict[str, str], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError) as caught:
        load_samples(RAG, samples=path)
    assert str(caught.value).startswith(f"{path}:1: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("card", "words"),
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
    ],
)
def test_a_card_that_lacks_something_is_refused_with_its_line(
    card: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "cards.jsonl"
    path.write_text(json.dumps(card) + "\n")
    with pytest.raises(DataError, match=r"cards\.jsonl:1: ") as caught:
        load_samples(DPO, samples=path)
    assert words in str(caught.value)


def test_files_that_an_eval_does_not_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--samples: .*qa_pairs.* --chunks"):
        load_samples(find_eval("qa_pairs"), samples=tmp_path)
    with pytest.raises(UsageError, match=r"--chunks: .*dpo_pairs.* --samples"):
        load_samples(DPO, chunks=tmp_path)
    with pytest.raises(UsageError, match=r"--chunks .*rag_qa.* --samples"):
        load_samples(RAG, chunks=tmp_path)


def test_a_chunk_files_own_names_are_mapped(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = here / "foreign.jsonl"
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
def test_what_sample_draws_is_what_a_run_draws(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sample", "--eval", name, "--n", "10", "--seed", "5", "--out", "drawn.jsonl"]) == 0
    told = capsys.readouterr().err
    drawn = draw(load_samples(find_eval(name)), n=10, seed=5)
    option = {"qa_pairs": "chunks"}.get(name, "samples")
    again = load_samples(find_eval(name), **{option: here / "drawn.jsonl"})
    assert {one.sample_id for one in again} == {one.sample_id for one in drawn}
    assert "10 of" in told
    assert run(["sample", "--eval", name, "--out", "drawn.jsonl"]) == 64


# ---------------------------------------------------------------------------- evals of one's own


@pytest.mark.parametrize("kind", ["qa_pair", "answer", "preference_pair"])
@pytest.mark.slow
def test_a_new_eval_works_at_once(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["new-eval", "mine", "--kind", kind]) == 0
    verb = "generate" if kind == "preference_pair" else "compare"
    command = f"qaeval {verb} embedded-lead embedded-salient --eval evals/mine"
    assert f"next: {command}\n" in capsys.readouterr().out
    assert f"Try it: `{command}`" in (here / "evals" / "mine" / "README.md").read_text()
    made = load_eval(here / "evals" / "mine")
    assert (made.name, made.item_kind) == ("mine", kind)
    assert made.samples_path is None or made.samples_path.parent == here / "evals" / "mine"
    assert "mine" in (here / "evals" / "mine" / "task.py").read_text()
    assert run([*command.split()[1:], "--out", "run"]) == 0
    assert json.loads((here / "run" / "settings.json").read_text())["sample_set"]["n"] == 6
    assert {row["kind"] for row in rows(here / "run" / "generations.jsonl")} == {"generation"}
    if verb == "compare":
        assert json.loads((here / "run" / "report.json").read_text())["eval"]["n_samples"] == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Mine"], "eval name 'Mine'"),
        (["mine", "--kind", "qa_pairs"], "unknown kind 'qa_pairs'. Did you mean 'qa_pair'?"),
        (["taken"], "evals/taken exists"),
    ],
)
def test_a_new_eval_that_cannot_be_made_is_refused(
    arguments: list[str], words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "evals" / "taken").mkdir(parents=True)
    assert run(["new-eval", *arguments]) == 64
    assert words in capsys.readouterr().err


# ---------------------------------------------------------------------------- what was written


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_generation_is_analysed_before_anything_is_graded(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "embedded-lead", "embedded-salient", "--n", "8", "--out", "run"]) == 0
    capsys.readouterr()
    assert run(["analyse", "generation", "run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["n_valid"] for one in found["candidates"]] == [24, 24]
    assert found["candidates"][0]["question_types"] == {"factual": 8, "conceptual": 8, "comparison": 8}
    assert run(["analyse", "generation", "run"]) == 0
    told = capsys.readouterr().out
    assert "over 60" in told
    assert "foreign question" in told
    assert "Nothing failed." in told
    assert "\n    Finding: " in told  # texts in narrow columns cannot be read


@pytest.mark.slow
def test_the_report_counts_what_checks_found_among_the_items_that_they_look_at(here: Path) -> None:
    assert run(["compare", "embedded-lead", "embedded-salient", "--eval", "rag_qa", "--out", "run"]) == 0
    report = json.loads((here / "run" / "report.json").read_text())
    samples = {row["sample_id"]: row for row in rows(here / "run" / "samples.jsonl")}
    generations = rows(here / "run" / "generations.jsonl")
    lead, salient = (one["usable"]["value"] for one in report["candidates"])
    assert report["differences"][0]["difference"]["value"] == pytest.approx(
        salient - lead
    )  # chunks differ in size
    assert run(["plan", "run"]) == 0
    assert report["checks"]
    for group in report["checks"]:
        assert len(group["rates"]) == 2
        for rate in group["rates"]:
            own = [row for row in generations if row["candidate"] == rate["candidate"]]
            looked = [
                row["items"][0]
                for row in own
                if not group["check"]["types"]
                or samples[row["sample_id"]]["given"]["type"] in group["check"]["types"]
            ]
            hits = sum(group["check"]["name"] in item.get("findings", {}) for item in looked)
            assert (rate["n_checked"], rate["n_found"]) == (len(looked), hits)
            assert rate["share"]["value"] == pytest.approx(hits / len(looked))
    assert {example["candidate"] for group in report["checks"] for example in group["examples"]}


# ---------------------------------------------------------------------------- what a reviewer tried


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("n", ["1", "2", "5"])
@pytest.mark.slow
def test_a_check_with_nothing_to_look_at_says_so(n: str) -> None:
    assert (
        run(["compare", "embedded-lead", "embedded-salient", "--eval", "rag_qa", "--n", n, "--out", "run"])
        == 0
    )
    report = json.loads(Path("run/report.json").read_text())
    empty = [rate for group in report["checks"] for rate in group["rates"] if not rate["n_checked"]]
    assert bool(empty) == (n != "5")
    assert all(rate["share"]["reason"] == "there is no item" for rate in empty)


@pytest.mark.usefixtures("here")
@pytest.mark.slow
def test_sets_whose_types_differ_are_other_sets(capsys: pytest.CaptureFixture[str]) -> None:
    rows_ = rows(data_root() / "evals" / "rag_qa" / "samples.jsonl")[:30]
    other = {"answerable": "unanswerable", "unanswerable": "answerable"}
    for name, made in (("one", rows_), ("two", [{**row, "type": other[row["type"]]} for row in rows_])):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
        words = [
            "compare",
            "embedded-lead",
            "embedded-salient",
            "--eval",
            "rag_qa",
            "--samples",
            f"{name}.jsonl",
        ]
        assert run([*words, "--out", name]) == 0
    capsys.readouterr()
    assert run(["report", "one", "two"]) == 4
    assert "they differ in samples" in capsys.readouterr().err


@pytest.mark.slow
def test_many_questions_from_one_template_take_no_time() -> None:
    made = [f"What does setting w{number} mean for the model server?" for number in range(20_000)]
    assert near_duplicates(made) is None
    repeated = ["What does it mean for the server?"] * 20_000
    assert near_duplicates(repeated) == 19_999


def test_a_candidate_that_leads_by_rate_and_loses_in_most_chunks_is_not_taken() -> None:
    # 3 chunks of 40 items that a gets right, 27 of one item that b gets right
    a = np.array([1.0] * 3 + [0.0] * 27)
    b = 1 - a
    weights = np.array([40.0] * 3 + [1.0] * 27)
    values = _linearised(b - a, weights / weights.mean())
    assert values.mean() == pytest.approx((27 - 120) / 147)
    same = np.ones(30)
    assert _linearised(b - a, same) == pytest.approx(b - a)
