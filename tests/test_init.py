"""`qaeval init`: a project that runs without changes, created completely or not at all."""

import errno
import io
import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from command import qaeval
from qaeval.cli.init import _Questions
from qaeval.errors import Interrupted, QaevalError, UsageError
from qaeval.evals.definition import load_eval
from qaeval.evals.find import data_root
from qaeval.gate.policy import default_margins, read_policy
from qaeval.projects.create import create_project
from qaeval.projects.models import FLOOR
from qaeval.registry.config import Config, load_config
from replay.server import LoopbackServer

SHIPPED = load_config(data_root() / "qaeval.yaml")
QWEN = SHIPPED.models["qwen"].hf_id or ""
TOPICS = ("backup", "network", "storage", "login", "billing", "search")


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "handbook"
    folder.mkdir()
    for number, topic in enumerate(TOPICS, start=3):
        text = "\n\n".join(
            f"## {topic.title()} {part}\n\nThe {topic} service waits {number * part} seconds before it retries. "
            f"After {number + part} failures the operator gets a message, because the {topic} queue may be full."
            for part in (1, 2, 3)
        )
        (folder / f"{topic}.md").write_text(f"# {topic.title()}\n\n{text}\n")
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer([QWEN, "mistral", "selene"], adapters={"tuned": "mistral"}) as running:
        yield running


def load_project_config(project: Path) -> Config:
    return load_config(data_root() / "qaeval.yaml", project / "qaeval.yaml")


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_commands_that_init_prints_run_the_project(documents: Path, tmp_path: Path) -> None:
    result = qaeval(
        "init", "acme-docs", "--documents", documents, "--size", "60", "--language", "en", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    project = tmp_path / "acme-docs"
    definition = load_eval(project / "evals/acme_docs")
    chunks = [json.loads(line) for line in definition.chunks_path.read_text().splitlines()]
    assert len(chunks) == 18
    assert {chunk["language"] for chunk in chunks} == {"en"}
    assert {chunk["stratum"] for chunk in chunks} == {*TOPICS}
    assert load_project_config(project).defaults.eval == "acme_docs"
    margins = {rule.quantity: rule.margin for rule in read_policy(project / "gate.yaml").rules}
    assert (margins["usable_rate"], margins["success_rate"]) == default_margins(18, 3)
    commands = [line.split() for line in result.stdout.partition("next:\n")[2].splitlines()]
    assert commands[0] == ["cd", "acme-docs"]
    assert commands[2] == ["qaeval", "view", "results/first"]
    for command in (commands[1], commands[3]):
        printed = qaeval(*command[1:], cwd=project)
        assert printed.returncode == 0, (command, printed.stderr)


@pytest.mark.slow
def test_chunks_keep_their_ids_and_get_a_default_language(tmp_path: Path) -> None:
    rows = [
        {"uid": "a", "body": "Ein Satz über Sicherungen."},
        {"uid": "b", "body": "One sentence.", "lang": "en"},
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = qaeval(
        "init", "p", "--chunks", "mine.jsonl", "--language", "de", "--name", "pairs", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    chunks = [json.loads(line) for line in (tmp_path / "p/evals/pairs/chunks.jsonl").read_text().splitlines()]
    assert [(chunk["chunk_id"], chunk["language"]) for chunk in chunks] == [("a", "de"), ("b", "en")]


@pytest.mark.slow
def test_models_of_a_server_become_candidates_and_its_unrelated_model_the_judge(
    documents: Path, tmp_path: Path, server: LoopbackServer
) -> None:
    result = qaeval("init", "p", "--documents", documents, "--endpoint", server.url, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "qaeval compare qwen mistral tuned --out" in result.stdout
    config = load_project_config(tmp_path / "p")
    assert config.defaults.judge == "selene"
    assert config.judges["selene"].url == server.url
    qwen, tuned = config.models["qwen"], config.models["tuned"]
    assert (qwen.url, qwen.served, qwen.hf_id) == (server.url, QWEN, QWEN)
    assert (tuned.url, tuned.served, tuned.family) == (server.url, "tuned", "mistral")


@pytest.mark.slow
def test_candidate_judge_price_and_ci_options_are_written(
    documents: Path, tmp_path: Path, server: LoopbackServer
) -> None:
    result = qaeval(
        *(
            "init",
            "p",
            "--documents",
            documents,
            "--endpoint",
            f"ours={server.url}",
            "--candidate",
            "mistral",
        ),
        *(
            "--judge",
            "gpt-oss",
            "--price",
            "1.23 EUR",
            "--price-source",
            'the "offer": 1 November',
            "--ci",
            "gitlab",
        ),
        cwd=tmp_path,
    )
    assert result.returncode == 64
    assert "no model 'ours'" in result.stderr
    result = qaeval(
        *(
            "init",
            "p",
            "--documents",
            documents,
            "--endpoint",
            f"mistral={server.url}",
            "--candidate",
            "mistral",
        ),
        *(
            "--judge",
            "gpt-oss",
            "--price",
            "1.23 EUR",
            "--price-source",
            'the "offer": 1 November',
            "--ci",
            "gitlab",
        ),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    config = load_project_config(tmp_path / "p")
    _, machine = config.machine("mistral") or ("", None)
    assert machine is not None
    assert (machine.price_per_hour, machine.currency, machine.source) == (
        1.23,
        "EUR",
        'the "offer": 1 November',
    )
    assert config.defaults.judge == "gpt-oss"
    (job,) = yaml.safe_load((tmp_path / "p/.gitlab-ci.yml").read_text()).values()
    assert any("qaeval compare mistral --all-chunks --yes --out" in line for line in job["script"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        ([], 64, "--documents"),
        (["--documents", "nowhere"], 65, "nowhere"),
        (["--documents", "empty"], 64, "empty"),
        (["--documents", "broken"], 65, "broken/page.pdf"),
        (["--chunks", "bad.jsonl"], 65, "bad.jsonl:2"),
        (["--documents", "handbook", "--chunks", "bad.jsonl"], 64, "--chunks"),
        (["--documents", "handbook", "--field", "text=body"], 64, "--chunks"),
        (["--documents", "handbook", "--name", "two words"], 64, "two words"),
        (["--documents", "handbook", "--candidate", "mistrall"], 64, "'mistral'"),
        (["--documents", "handbook", "--candidate", "selene"], 64, "judges only"),
        (["--documents", "handbook", "--candidate", "qwen", "--judge", "compass-judger"], 64, "family qwen"),
        (["--documents", "handbook", "--candidate", "qwen", "--candidate", "qwen"], 64, "twice"),
        (["--documents", "handbook", "--endpoint", "http://127.0.0.1:9/v1"], 69, "127.0.0.1:9"),
        (["--documents", "handbook", "--endpoint", "ftp://x"], 64, "ftp://x"),
        (["--documents", "handbook", "--endpoint", "http://8.8.8.8/v1"], 69, "outside"),
        (["--documents", "handbook", "--api-key-env", "NO_SUCH_KEY", "--endpoint", "http://127.0.0.1:9/v1"], 64, "NO_SUCH_KEY"),
        (["--documents", "handbook", "--api-key-env", "my key", "--endpoint", "http://127.0.0.1:9/v1"], 64, "--api-key-env"),
        (["--documents", "handbook", "--endpoint", "embedded-lead=http://127.0.0.1:9/v1"], 69, "127.0.0.1:9"),
        (["--documents", "handbook", "--price", "cheap"], 64, "cheap"),
        (["--documents", "handbook", "--price", f"{'9' * 400} EUR"], 64, "18 digits at most"),
        (["--documents", "handbook", "--price", "1.23 EUR"], 64, "--price-source"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("documents")
def test_an_invalid_option_writes_nothing(
    arguments: list[str], exit_code: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/page.pdf").write_bytes(b"no pdf")
    (tmp_path / "bad.jsonl").write_text('{"id": "a", "text": "b"}\n{"id": 1.5}\n')
    before = read_files(tmp_path)
    result = qaeval("init", "p", *arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (exit_code, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert read_files(tmp_path) == before
    assert not (tmp_path / "p").exists()


@pytest.mark.slow
def test_existing_files_are_kept_and_conflicts_are_named(documents: Path, tmp_path: Path) -> None:
    project = tmp_path / "p"
    (project / "evals/p").mkdir(parents=True)
    (project / "notes.md").write_text("mine")
    (project / "gate.yaml").write_text("mine")
    (project / "evals/p/labels.csv").write_text("mine")
    before = read_files(project)
    result = qaeval("init", "p", "--documents", documents, cwd=tmp_path)
    assert result.returncode == 64
    assert "gate.yaml, evals/p/labels.csv" in result.stderr
    assert read_files(project) == before

    (project / "gate.yaml").unlink()
    (project / ".gitignore").write_text("mine")
    result = qaeval("init", "p", "--documents", documents, "--name", "other", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    after = read_files(project)
    assert {name: after[name] for name in ("notes.md", ".gitignore", "evals/p/labels.csv")} == dict.fromkeys(
        ("notes.md", ".gitignore", "evals/p/labels.csv"), b"mine"
    )
    assert qaeval("init", "p", "--documents", documents, "--name", "other", cwd=tmp_path).returncode == 0
    assert read_files(project) == after


class FailingFileOperation:
    """Fails the n-th file operation of this process in a folder, by Python's audit events."""

    def __init__(self) -> None:
        self.folder, self.remaining = "", -1
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.remaining < 0 or event not in {"open", "os.rename", "os.mkdir"}:
            return
        if str(arguments[0]).startswith(self.folder):
            self.remaining -= 1
            if self.remaining < 0:
                raise OSError(errno.EIO, "Input/output error", str(arguments[0]))


FAILURE = FailingFileOperation()
FILES = {
    "qaeval.yaml": "defaults: {}\n",
    "gate.yaml": "rules:\n  - {quantity: usable_rate, margin: 0.05}\n",
    "a/b/c.txt": "text",
}


@pytest.mark.slow
@pytest.mark.parametrize("exists", [True, False])
def test_a_failed_file_operation_leaves_no_partial_project(exists: bool, tmp_path: Path) -> None:
    project = tmp_path / "new"
    (tmp_path / "old.txt").write_text("mine")
    if exists:
        project.mkdir()
    FAILURE.folder = str(tmp_path)
    untouched = {"old.txt": b"mine"}
    complete = {**untouched, **{f"new/{name}": text.encode() for name, text in FILES.items()}}
    outcomes = []
    for operation in range(100):
        FAILURE.remaining = operation
        try:
            create_project(project, FILES)
            is_done = FAILURE.remaining >= 0
        except QaevalError:
            is_done = False
        finally:
            FAILURE.remaining = -1
        outcomes.append(read_files(tmp_path))
        assert outcomes[-1] in (untouched, complete)
        if outcomes[-1] == untouched:
            assert (project.exists(), [*project.glob("*")]) == (exists, [])
        elif not is_done:
            shutil.rmtree(project)
            if exists:
                project.mkdir()
        if is_done:
            break
    assert outcomes[-1] == complete
    assert outcomes.count(untouched) > 5


@pytest.mark.slow
def test_rerunning_init_completes_a_half_moved_project(documents: Path, tmp_path: Path) -> None:
    arguments = ["init", str(tmp_path / "p"), "--documents", str(documents)]
    program = (
        "import os, sys; from qaeval.cli import run\n"
        "moved = []\n"
        "def hook(event, arguments):\n"
        "    if event == 'os.rename' and '.partial' in str(arguments[0]):\n"
        "        moved.append(1)\n"
        "        if len(moved) == 4: os._exit(9)\n"
        "sys.addaudithook(hook); sys.exit(run(sys.argv[1:]))"
    )
    (tmp_path / "p").mkdir()
    assert subprocess.run([sys.executable, "-c", program, *arguments], check=False).returncode == 9
    assert len([path for path in read_files(tmp_path / "p") if ".partial" not in path]) == 3
    assert qaeval(*arguments, cwd=tmp_path).returncode == 0
    assert qaeval("init", "whole", "--documents", documents, "--name", "p", cwd=tmp_path).returncode == 0
    assert read_files(tmp_path / "p") == read_files(tmp_path / "whole")


class Typist:
    """Answers the questions of `qaeval init` in order, and returns the answers left over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
        self.input = io.StringIO("".join(f"{answer}\n" for answer in answers))
        monkeypatch.setattr("sys.stdin", self.input)
        self.questions = _Questions(is_terminal=True)

    @property
    def unread_input(self) -> str:
        return self.input.read()


def test_a_price_and_its_source_are_asked_for_until_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    typist = Typist(monkeypatch, "cheap", "0 EUR", "1.23 EUR", " ", " the offer of 1 November ")
    price = typist.questions.price(None, None)
    assert price is not None
    assert (price.per_hour, price.currency, price.source) == (1.23, "EUR", "the offer of 1 November")
    assert typist.unread_input == ""
    assert Typist(monkeypatch, "").questions.price(None, None) is None
    option_price = Typist(monkeypatch).questions.price("2 USD", "a bill")
    assert option_price is not None
    assert (option_price.per_hour, option_price.currency, option_price.source) == (2.0, "USD", "a bill")


def test_without_a_terminal_price_and_source_are_required_together() -> None:
    questions = _Questions(is_terminal=False)
    assert questions.price(None, None) is None
    for price, source, message in (("1 EUR", None, "--price-source"), (None, "a bill", "without --price")):
        with pytest.raises(UsageError, match=message):
            questions.price(price, source)
    with pytest.raises(UsageError, match="--documents"):
        questions.chunks([], None, 300, None, False, {}, "refuse")


@pytest.mark.parametrize(
    ("answers", "service"), [(("travis", " GitHub "), "github"), (("gitlab",), "gitlab"), (("none",), None)]
)
def test_the_ci_file_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[str, ...], service: str | None
) -> None:
    typist = Typist(monkeypatch, *answers)
    assert typist.questions.ci(None) == service
    assert typist.unread_input == ""
    assert typist.questions.ci("gitlab") == "gitlab"
    assert _Questions(is_terminal=False).ci(None) is None


def test_models_are_asked_for_by_server_candidates_and_judge(
    monkeypatch: pytest.MonkeyPatch, server: LoopbackServer
) -> None:
    typist = Typist(
        monkeypatch, "http://127.0.0.1:1/v1", server.url, "", "mistral, nobody", "mistral,tuned", "selene"
    )
    models = typist.questions.models(SHIPPED, [], None, [], None, False)
    assert [spec.name for spec in models.candidates] == ["mistral", "tuned"]
    assert (models.judge.name, models.judge.url) == ("selene", server.url)
    assert typist.unread_input == ""


def test_without_a_server_the_embedded_models_are_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    typist = Typist(monkeypatch, "", "", "")
    models = typist.questions.models(SHIPPED, [], None, [], None, False)
    assert [spec.name for spec in models.candidates] == list(FLOOR)
    assert models.judge.in_process
    assert typist.unread_input == ""


def test_documents_are_asked_for_until_readable_then_their_language(
    monkeypatch: pytest.MonkeyPatch, documents: Path, tmp_path: Path
) -> None:
    typist = Typist(monkeypatch, str(tmp_path / "nowhere"), str(documents), "de")
    chunks = typist.questions.chunks([], None, 300, None, False, {}, "refuse")
    assert {row["language"] for row in chunks.rows} == {"de"}
    file = tmp_path / "chunks.jsonl"
    file.write_text(json.dumps({"chunk_id": "c1", "text": "The valve opens at 3 bar."}) + "\n")
    (row,) = Typist(monkeypatch, str(file)).questions.chunks([], None, 300, "en", False, {}, "refuse").rows
    assert (row["chunk_id"], row["language"]) == ("c1", "en")


def test_end_of_input_interrupts_and_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted, match="nothing was written"):
        Typist(monkeypatch).questions.ci(None)


@pytest.mark.slow
def test_on_a_terminal_questions_repeat_after_an_invalid_answer(documents: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "qaeval", "init", "p"],
        cwd=tmp_path,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "COLUMNS": "200"},
    )
    os.close(slave)
    answers = [
        "nowhere",
        str(documents),
        "de",
        "",
        "qwen,nonsense",
        "qwen,mistral",
        "qwen-14b",
        "selene",
        "12",
        "1.23 EUR",
        "an offer",
        "github",
    ]
    output, deadline = "", time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if select.select([master], [], [], 0.3)[0]:
            try:
                output += os.read(master, 4096).decode()
            except OSError:
                break
        elif answers and output.rstrip().endswith((":", "]:")):
            os.write(master, f"{answers.pop(0)}\n".encode())
    process.wait(10)
    assert (process.returncode, answers) == (0, []), output
    assert "nowhere" in output
    assert "'nonsense'" in output
    assert "family qwen" in output
    config = load_project_config(tmp_path / "p")
    assert (config.defaults.judge, config.hardware["ours"].source) == ("selene", "an offer")
    assert (
        json.loads((tmp_path / "p/evals/p/chunks.jsonl").read_text().partition("\n")[0])["language"] == "de"
    )
    workflow = yaml.safe_load((tmp_path / "p/.github/workflows/qaeval.yml").read_text())
    assert (
        "compare qwen mistral --all-chunks --yes --out results/ci"
        in workflow["jobs"]["gate"]["steps"][1]["run"]
    )


@pytest.mark.slow
def test_the_ci_script_gates_against_the_committed_baseline(documents: Path, tmp_path: Path) -> None:
    assert qaeval("init", "p", "--documents", documents, "--ci", "github", cwd=tmp_path).returncode == 0
    project = tmp_path / "p"
    assert (
        qaeval(
            "compare", "embedded-lead", "embedded-salient", "--out", "results/first", cwd=project
        ).returncode
        == 0
    )
    assert qaeval("baseline", "set", "results/first", cwd=project).returncode == 0
    (step,) = [
        step
        for step in yaml.safe_load((project / ".github/workflows/qaeval.yml").read_text())["jobs"]["gate"][
            "steps"
        ]
        if "run" in step
    ]
    # use this environment instead of installing one
    script = "\n".join(
        line for line in step["run"].splitlines() if "-m venv" not in line and "pip install" not in line
    )
    (project / ".qaeval-venv/bin").mkdir(parents=True)
    (project / ".qaeval-venv/bin/qaeval").write_text(f'#!/bin/sh\nexec {sys.executable} -m qaeval "$@"\n')
    (project / ".qaeval-venv/bin/qaeval").chmod(0o755)
    summary = project / "summary.md"
    result = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=project,
        env={**os.environ, "GITHUB_STEP_SUMMARY": str(summary)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in {0, 2}, result.stdout + result.stderr
    assert "qaeval gate" in summary.read_text()


@pytest.mark.slow
def test_an_entry_states_only_what_the_shipped_registry_lacks(
    documents: Path, tmp_path: Path, server: LoopbackServer
) -> None:
    choices = ("--candidate", "selene", "--candidate", "qwen", "--judge", "gpt-oss")
    result = qaeval("init", "p", "--documents", documents, "--endpoint", server.url, *choices, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    models = yaml.safe_load((tmp_path / "p/qaeval.yaml").read_text())["models"]
    assert models["qwen"] == {"url": server.url, "served_name": QWEN}
    shipped = SHIPPED.judges["selene"]
    assert (models["selene"]["hf_id"], models["selene"]["family"]) == (shipped.hf_id, shipped.family)
    assert load_project_config(tmp_path / "p").models["selene"].url == server.url


@pytest.mark.slow
def test_a_model_on_two_servers_gets_a_replica(
    documents: Path, tmp_path: Path, server: LoopbackServer
) -> None:
    with LoopbackServer(["mistral"], api_key="k3y") as second:
        result = qaeval(
            *("init", "p", "--documents", documents, "--candidate", "mistral"),
            *("--endpoint", f"mistral={server.url}", "--endpoint", second.url),
            cwd=tmp_path,
        )
        assert result.returncode == 69  # the second server wants a key
        assert "api_key_env" in result.stderr
    with LoopbackServer(["mistral"]) as second:
        result = qaeval(
            *("init", "p", "--documents", documents, "--candidate", "mistral"),
            *("--endpoint", f"mistral={server.url}", "--endpoint", second.url),
            cwd=tmp_path,
        )
        assert result.returncode == 0, result.stderr
        mistral = load_project_config(tmp_path / "p").models["mistral"]
        assert (mistral.url, mistral.replicas) == (server.url, (second.url,))


@pytest.mark.slow
def test_a_model_is_identified_by_its_weights_not_by_its_served_name(documents: Path, tmp_path: Path) -> None:
    roots = {"mistral": "acme/Qwen3-tuned", "best": QWEN, "other": "acme/other-7b"}
    with LoopbackServer([*roots], roots=roots) as server:
        result = qaeval("init", "p", "--documents", documents, "--endpoint", server.url, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "qaeval compare qwen3-tuned qwen other --out" in result.stdout
        models = load_project_config(tmp_path / "p").models
        assert (models["qwen"].served, models["qwen3-tuned"].served) == ("best", "mistral")
        assert models["qwen3-tuned"].hf_id == "acme/Qwen3-tuned"
    with LoopbackServer(["m"], roots={"m": "acme/Qwen3-tuned"}) as server:
        result = qaeval(
            "init", "q", "--documents", documents, "--endpoint", f"mistral={server.url}", cwd=tmp_path
        )
        assert result.returncode == 64
        assert "acme/Qwen3-tuned" in result.stderr
