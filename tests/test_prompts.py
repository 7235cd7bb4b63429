"""Prompts as part of a candidate: compared on the same samples and gated when they change."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import qaeval
from command import qaeval as run_qaeval
from qaeval.errors import DataError, NotComparableError, UsageError
from qaeval.evals.definition import recorded_prompt
from qaeval.evals.find import data_root, find_eval
from qaeval.files.rows import read_rows
from qaeval.gate.baseline import evidence_digest, letters_digest, parse_baseline
from qaeval.gate.views import to_comment, to_junit, to_markdown
from qaeval.records import digest
from qaeval.testing import ScriptedModel, grade_reply, pairs_reply, registered
from replay.server import LoopbackServer

TYPES = ("factual", "conceptual", "comparison")
BETTER = "Ask what an engineer asks."
N = 40


def _pairs(request: Any) -> str:
    """Return a good reply to the better prompt, and to 9 of 10 chunks with any prompt."""
    is_good = BETTER in request.messages[-1].content or len(request.inputs["chunk"]) % 10
    stem = request.inputs["chunk"][:30]
    return pairs_reply([(kind, f"{kind}: {stem}?", "right" if is_good else "wrong") for kind in TYPES])


@pytest.fixture
def writer() -> Iterator[ScriptedModel]:
    """The candidate ``mistral``, and a judge that knows the right answer."""
    model = ScriptedModel(_pairs)
    judge = ScriptedModel(lambda request: grade_reply("A" if request.inputs["answer"] == "right" else "C"))
    with registered("mistral", model), registered("judge", judge):
        yield model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory with a local eval that has a second prompt."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data_root() / "evals" / "qa_pairs", tmp_path / "evals" / "qa_pairs")
    (tmp_path / "evals" / "qa_pairs" / "better.md").write_text(_better_prompt())
    (tmp_path / "none.jsonl").write_text("")
    return tmp_path


def _original_prompt() -> str:
    return (data_root() / "evals" / "qa_pairs" / "prompt.md").read_text()


def _better_prompt() -> str:
    return _original_prompt().replace("# user\n", f"# user\n\n{BETTER}\n", 1)


def compare(out: str, **options: Any) -> qaeval.Run:
    return qaeval.compare("mistral", judge="judge", n=N, out=out, labels=[], **options)


def settings_of(run: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(Path(run, "settings.json").read_text())
    return value


# ------------------------------------------------------------------------------------------ compare


@pytest.mark.slow
def test_repeats_use_the_prompt_of_the_candidate(folder: Path, writer: ScriptedModel) -> None:
    compare("run", prompts=["prompt", "better.md"], repeat=2)
    repeat_requests = [request for request in writer.requests if request.sampling.seed]
    repeats = list(read_rows(folder / "run" / "generation_repeats.jsonl", json.loads))
    assert len(repeat_requests) == len(repeats) == 2 * N
    assert sum(BETTER in request.messages[-1].content for request in repeat_requests) == N


@pytest.mark.slow
def test_each_prompt_is_a_candidate_on_the_same_samples(folder: Path, writer: ScriptedModel) -> None:
    run = compare("run", prompts=["prompt", "better.md"])
    assert [candidate.facts.name for candidate in run.report.candidates] == [
        "mistral@prompt",
        "mistral@better",
    ]
    rows = list(read_rows(folder / "run" / "generations.jsonl", json.loads))
    by_candidate = {
        name: {row["sample_id"] for row in rows if row["candidate"] == name}
        for name in ("mistral@prompt", "mistral@better")
    }
    assert by_candidate["mistral@prompt"] == by_candidate["mistral@better"]
    assert len({row["task_id"] for row in rows}) == 2 * N
    uses_better_prompt = [BETTER in request.messages[-1].content for request in writer.requests]
    assert sorted(uses_better_prompt) == [False] * N + [True] * N
    (pair,) = run.report.differences
    assert (pair.outcome, pair.b) == ("b is better", "mistral@better")
    assert {name: entry["prompt"]["name"] for name, entry in settings_of("run")["candidates"].items()} == {
        "mistral@prompt": "prompt",
        "mistral@better": "better",
    }
    facts = [candidate.facts for candidate in run.report.candidates]
    assert [candidate.prompt for candidate in facts] == ["prompt", "better"]
    assert facts[0].prompt_sha == digest(find_eval("qa_pairs").prompt.model_dump())
    assert all(candidate.prompt_sha[:8] in run.render("md") for candidate in facts)


@pytest.mark.usefixtures("writer")
@pytest.mark.slow
def test_a_run_without_prompts_stores_no_prompt_per_candidate(folder: Path) -> None:
    compare("run")
    assert "prompt" not in settings_of("run")["candidates"]["mistral"]
    assert (
        run_qaeval(
            "compare",
            "mistral",
            "--prompts",
            "better",
            "--judge",
            "judge",
            "--n",
            N,
            "--out",
            "one",
            cwd=folder,
        ).returncode
        == 0
    )
    assert list(settings_of("one")["candidates"]) == ["mistral@better"]
    assert settings_of("one")["eval"] == settings_of("run")["eval"]


@pytest.mark.parametrize(
    ("prompts", "error", "message"),
    [
        (["prompt", "nowhere.md"], UsageError, r"no prompt 'nowhere.md'.*There: better.md, .*prompt.md"),
        (["bettr"], UsageError, "Did you mean 'better.md'"),
        (["empty.md"], DataError, r"empty\.md"),
        (["chunkless.md"], DataError, r"chunkless\.md: user: missing \$chunk"),
        (["prompt.md", "other/Prompt.md"], UsageError, "other/Prompt.md have the same name"),
        (["prompt.md", "prompt.md"], UsageError, "have the same name"),
        (["my prompt.md"], UsageError, "becomes part of the candidate's"),
        (["binary.md"], DataError, r"binary\.md"),
    ],
)
def test_bad_prompts_are_refused_before_anything_is_written(
    folder: Path, writer: ScriptedModel, prompts: list[str], error: type[Exception], message: str
) -> None:
    (folder / "empty.md").write_text("")
    (folder / "chunkless.md").write_text("# user\n\nWrite three pairs.\n")
    (folder / "my prompt.md").write_text(_original_prompt())
    (folder / "binary.md").write_bytes(b"# user\n\xff\xfe$chunk")
    (folder / "other").mkdir()
    (folder / "other" / "Prompt.md").write_text(_original_prompt())
    with pytest.raises(error, match=message):
        compare("run", prompts=prompts)
    assert not (folder / "run").exists()
    assert not writer.requests


def test_an_empty_name_on_the_command_line_is_refused(folder: Path) -> None:
    process = run_qaeval("compare", "mistral", "--prompts", "prompt.md,,better.md", cwd=folder)
    assert process.returncode == 64
    assert "--prompts" in process.stderr


@pytest.mark.slow
def test_a_run_can_only_be_resumed_with_the_same_prompts(folder: Path, writer: ScriptedModel) -> None:
    compare("run", prompts=["prompt", "better"])
    n_requests = len(writer.requests)
    compare("run", prompts=["prompt", "better"], resume=True)
    assert len(writer.requests) == n_requests
    (folder / "evals" / "qa_pairs" / "better.md").write_text(_better_prompt() + "\nBe brief.\n")
    with pytest.raises(NotComparableError, match=r"candidates\.mistral@better\.prompt\.user"):
        compare("run", prompts=["prompt", "better"], resume=True)


@pytest.fixture
def served_run_folder(folder: Path) -> Path:
    """The working directory with a run of a served model with two prompts."""
    (folder / "qaeval.yaml").write_text(
        "hardware: {ours: {price_per_hour: 1.2, currency: EUR, as_of: 2026-01-01, source: made up}}\n"
        "models: {mistral: {hardware: ours}}\n"
    )
    with LoopbackServer(["mistral", "compass-judger"]) as server:
        options = [f"--endpoint={name}={server.url}" for name in ("mistral", "compass-judger")]
        options += ["--prompts", "prompt,better", "--n", "2", "--no-cache", "--out", "run"]
        process = run_qaeval("compare", "mistral", *options, cwd=folder)
        assert process.returncode == 0, process.stderr
        assert {body["model"] for body in server.requests} == {"mistral", "compass-judger"}
    return folder


@pytest.mark.slow
def test_candidates_with_prompts_use_the_machine_of_their_model(served_run_folder: Path) -> None:
    cost = json.loads(run_qaeval("cost", "run", "--json", cwd=served_run_folder).stdout)
    assert {candidate["candidate"] for candidate in cost["candidates"]} == {
        "mistral@prompt",
        "mistral@better",
    }
    assert "EUR" in json.dumps(cost["candidates"])


# ------------------------------------------------------------------------------------------ gate


@pytest.fixture
def gate_against_release(folder: Path, writer: ScriptedModel) -> Callable[..., qaeval.GateReport]:  # noqa: ARG001
    """A function that gates a new run against the release, which used the original prompt."""
    compare("release")

    def gate(out: str, **options: Any) -> qaeval.GateReport:
        policy = {"rules": [{"quantity": "usable_rate", "margin": 0.1}]}
        return qaeval.gate(compare(out, **options), baseline="release", policy=policy, labels="none.jsonl")

    return gate


@pytest.mark.slow
def test_a_changed_prompt_of_the_eval_is_gated_and_named(
    folder: Path, gate_against_release: Callable[..., qaeval.GateReport]
) -> None:
    (folder / "evals" / "qa_pairs" / "prompt.md").write_text(_better_prompt())
    report = gate_against_release("change")
    assert (report.outcome, report.exit_code) == ("pass", 0)
    (change,) = report.prompts
    assert (change.candidate, change.against) == ("mistral", "mistral")
    before, after = (
        digest(prompt)
        for prompt in (settings_of("release")["eval"]["prompt"], settings_of("change")["eval"]["prompt"])
    )
    assert before[:8] in change.prompt_before
    assert after[:8] in change.prompt
    document = json.loads(Path("change", "gate.json").read_text())
    assert document["prompts"][0]["sentence"] == change.sentence
    assert change.sentence in report.notes
    for view in (to_markdown(report), to_comment(report), to_junit(report)):
        assert before[:8] in view
        assert after[:8] in view


@pytest.mark.usefixtures("writer")
@pytest.mark.slow
def test_a_worse_prompt_is_a_regression(folder: Path) -> None:
    (folder / "evals" / "qa_pairs" / "prompt.md").write_text(_better_prompt())
    compare("better")
    (folder / "evals" / "qa_pairs" / "prompt.md").write_text(_original_prompt())
    compare("release")
    policy = {"rules": [{"quantity": "usable_rate", "margin": 0.01}]}
    report = qaeval.gate("release", baseline="better", policy=policy, labels="none.jsonl")
    assert (report.outcome, report.exit_code) == ("regression", 1)
    assert len(report.prompts) == 1


@pytest.mark.slow
def test_a_candidate_with_a_prompt_is_gated_against_its_model(
    gate_against_release: Callable[..., qaeval.GateReport],
) -> None:
    report = gate_against_release("two", prompts=["prompt", "better"])
    assert {rule.candidate: rule.against for rule in report.rules} == {
        "mistral@prompt": "mistral",
        "mistral@better": "mistral",
    }
    assert [change.candidate for change in report.prompts] == [
        "mistral@better"
    ]  # the other prompt has the same text


@pytest.mark.slow
def test_a_changed_task_is_not_comparable(
    folder: Path, gate_against_release: Callable[..., qaeval.GateReport]
) -> None:
    path = folder / "evals" / "qa_pairs" / "eval.yaml"
    text = path.read_text()
    assert "temperature: 0.0" in text
    path.write_text(text.replace("temperature: 0.0", "temperature: 0.7"))
    report = gate_against_release("other")
    assert (report.outcome, report.exit_code) == ("not comparable", 4)
    assert not report.prompts


@pytest.mark.slow
def test_a_baseline_file_stores_its_prompts_and_old_files_are_read(
    folder: Path, gate_against_release: Callable[..., qaeval.GateReport]
) -> None:
    assert run_qaeval("baseline", "set", "release", cwd=folder).returncode == 0
    file = folder / "baselines" / "qa_pairs.json"
    document = json.loads(file.read_text())
    (folder / "evals" / "qa_pairs" / "prompt.md").write_text(_better_prompt())
    compare("change")
    policy = {"rules": [{"quantity": "usable_rate", "margin": 0.1}]}
    report = qaeval.gate("change", policy=policy, labels="none.jsonl")
    assert (report.outcome, len(report.prompts)) == ("pass", 1)

    new = parse_baseline(file.read_text(), file)
    evidence = document["evidence"]
    del evidence["side"]["identity"]["task_digest"]
    for candidate in evidence["candidates"]:
        del candidate["prompt_digest"]
    file.write_text(json.dumps({**document, "sha256": digest(evidence)}))
    old = parse_baseline(file.read_text(), file)
    assert letters_digest(old) == letters_digest(new)  # existing pointers stay valid
    assert evidence_digest(old) == digest(evidence)

    report = qaeval.gate("release", policy=policy, labels="none.jsonl")
    assert (report.outcome, report.prompts) == ("pass", ())
    report = qaeval.gate("change", policy=policy, labels="none.jsonl")
    assert report.exit_code == 4
    assert "set it again" in report.headline
    (folder / "evals" / "qa_pairs" / "prompt.md").write_text(_original_prompt())
    report = gate_against_release("own", prompts="better")
    assert report.prompts[0].against == "mistral"


# ------------------------------------------------------------------------------------------ side by side


@pytest.mark.usefixtures("writer")
@pytest.mark.slow
def test_compare_runs_and_report_accept_runs_with_different_prompts(folder: Path) -> None:
    compare("old")
    compare("named", prompts="better")
    (folder / "evals" / "qa_pairs" / "prompt.md").write_text(_better_prompt())
    compare("new")
    document = json.loads(run_qaeval("compare-runs", "old", "new", "named", "--json", cwd=folder).stdout)
    assert [(pair["first"]["candidate"], pair["other"]["candidate"]) for pair in document["pairs"]] == [
        ("mistral@old", "mistral@new"),
        ("mistral@old", "mistral@better@named"),
    ]
    assert [change["candidate"] for change in document["prompts"]] == ["mistral", "mistral@better"]
    text = run_qaeval("compare-runs", "old", "new", "named", cwd=folder).stdout
    assert document["prompts"][0]["prompt_before"] in " ".join(text.split())
    report = qaeval.load_run(["old", "new"], labels=[]).report
    assert [candidate.facts.name for candidate in report.candidates] == ["mistral", "mistral@new"]
    assert len({candidate.facts.prompt_sha for candidate in report.candidates}) == 2


@pytest.mark.usefixtures("writer")
@pytest.mark.slow
def test_a_history_continues_across_a_prompt_change(folder: Path) -> None:
    for number, prompt in enumerate((_original_prompt(), _better_prompt())):
        (folder / "evals" / "qa_pairs" / "prompt.md").write_text(prompt)
        compare(f"results/{number}")
    document = json.loads(run_qaeval("history", "results", "--json", cwd=folder).stdout)
    (stretch,) = document["evals"][0]["stretches"]
    assert [run["name"] for run in stretch["runs"]] == ["0", "1"]
    assert "another prompt of mistral" in run_qaeval("history", "results", cwd=folder).stdout


# ------------------------------------------------------------------------------------------ export


@pytest.mark.slow
def test_the_card_of_training_data_names_the_prompts(served_run_folder: Path) -> None:
    process = run_qaeval(
        "export",
        "run",
        "--to",
        "sft",
        "--out",
        "data",
        "--letter",
        "B",
        "--letter",
        "A",
        cwd=served_run_folder,
    )
    assert process.returncode == 0, process.stderr
    card = (served_run_folder / "data" / "README.md").read_text()
    for name in ("mistral@prompt", "mistral@better"):
        assert f"prompt of `{name}`, sha256 `{digest(recorded_prompt(settings_of('run'), name))}`" in card


@pytest.mark.usefixtures("writer")
@pytest.mark.slow
def test_inspect_logs_carry_the_prompt_of_their_candidate_and_survive_a_round_trip(folder: Path) -> None:
    log = pytest.importorskip("inspect_ai.log")
    compare("run", prompts=["prompt", "better"])
    process = run_qaeval("export", "run", "--to", "inspect", "--out", "logs", cwd=folder)
    assert process.returncode == 0, process.stderr
    paths = sorted((folder / "logs").glob("*.eval"))
    assert [path.name for path in paths] == ["qa_pairs-mistral-better.eval", "qa_pairs-mistral-prompt.eval"]
    first = log.read_eval_log(str(paths[0])).samples[0]
    assert any(BETTER in turn.text for turn in first.input)
    assert run_qaeval("import", *paths, "--out", "back", cwd=folder).returncode == 0
    assert settings_of("back")["candidates"] == settings_of("run")["candidates"]
