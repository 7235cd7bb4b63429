"""The GitHub Action and the GitLab job: their shell scripts, and the files that call them."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from gate_builders import PASS, REGRESSION
from github_comments import answer
from qaeval.gate.policy import read_policy
from qaeval.gate.views import MARKER, to_comment
from replay.server import LoopbackServer

ROOT = Path(__file__).parents[1]
BASH = shutil.which("bash") or "bash"
TOOLS = (
    "bash", "cat", "cp", "curl", "cut", "mkdir", "mktemp", "rm", "sed", "seq", "tail", "tr"
)  # fmt: skip
"""Programs of a CI runner."""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH folder that has only the programs of a CI runner."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        program = shutil.which(name)
        assert program, f"{name} is needed by the scripts"
        (folder / name).symlink_to(program)
    (folder / "python3").symlink_to(sys.executable)
    return folder


def run_script(script: str, tools: Path | str, **env: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [BASH, str(ROOT / "ci" / script)],
        env={
            "PATH": str(tools),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "QAEVAL_CACHE": "off",
            **{name: str(value) for name, value in env.items()},
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


# ------------------------------------------------------------------ the comment


class Comments:
    """The comments of a pull request, behind a fake of GitHub's API."""

    def __init__(self, tools: Path, tmp_path: Path) -> None:
        self.tools, self.out, self.state = tools, tmp_path / "out", tmp_path / "comments.json"
        self.out.mkdir()
        self.env: dict[str, str] = {}

    def write(self, report: Any, **env: str) -> str:
        if report is not None:
            (self.out / "comment.md").write_text(to_comment(report))
        defaults = {"QAEVAL_PULL": "7", "GITHUB_TOKEN": "secret", "GITHUB_REPOSITORY": "acme/models"}
        result = run_script("comment.sh", self.tools, QAEVAL_OUT=self.out, **{**defaults, **self.env, **env})
        assert result.returncode == 0, result.stderr
        assert "secret" not in result.stdout + result.stderr
        return result.stdout.strip()

    def all(self) -> list[dict[str, Any]]:
        return json.loads(self.state.read_text())

    def put(self, comments: list[dict[str, Any]]) -> None:
        self.state.write_text(json.dumps(comments))


@pytest.fixture
def comments(tools: Path, tmp_path: Path) -> Iterator[Comments]:
    pull_request = Comments(tools, tmp_path)
    pull_request.put([])

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            assert self.headers["Authorization"] == "Bearer secret"
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            stored = pull_request.all()
            status, reply = answer(stored, self.command, self.path, json.loads(text) if text else None)
            pull_request.put(stored)
            content = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = _reply  # noqa: N815 - named by the library

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pull_request.env = {"GITHUB_API_URL": f"http://127.0.0.1:{server.server_address[1]}"}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield pull_request
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_comment_is_written_once_and_then_updated(comments: Comments) -> None:
    others = [
        {"id": n, "user": {"login": "anna"}, "body": f"{MARKER} quoted by a person"} for n in range(1, 121)
    ]
    comments.put(others)
    assert comments.write(REGRESSION) == "comment: written"
    assert comments.write(PASS).startswith("comment: brought")
    stored = comments.all()
    assert stored[:120] == others
    assert [comment["body"] for comment in stored[120:]] == [to_comment(PASS)]


def test_gate_without_a_verdict_replaces_the_old_comment(comments: Comments) -> None:
    comments.write(PASS)
    (comments.out / "comment.md").unlink()
    assert comments.write(None, QAEVAL_LINK="https://ci.example/1").startswith("comment: brought")
    (comment,) = comments.all()
    assert comment["body"].startswith(MARKER)
    assert "no verdict" in comment["body"]
    assert "https://ci.example/1" in comment["body"]


def test_comments_without_text_or_author_are_ignored(comments: Comments) -> None:
    comments.put(
        [{"id": 1, "user": None, "body": MARKER}, {"id": 2, "user": {"login": "anna"}, "body": None}]
    )
    assert comments.write(PASS) == "comment: written"


def test_unexpected_comments_response_does_not_fail_the_job(comments: Comments) -> None:

    (comments.tools / "curl").unlink()
    curl = comments.tools / "curl"
    curl.write_text(f'#!{BASH}\necho \'{{"message": "moved"}}\'\n')
    curl.chmod(0o755)
    assert "comments cannot be read" in comments.write(PASS)


def test_read_only_token_does_not_fail_the_job(comments: Comments) -> None:
    assert "pull-requests: write" in comments.write(PASS, QAEVAL_PULL="9")
    assert comments.all() == []


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"GITHUB_TOKEN": ""}, "no token, as for pull requests from forks"),
        ({"QAEVAL_PULL": ""}, "belongs to no pull request"),
        ({"QAEVAL_PULL": "7; touch /tmp/x"}, "expected the number of a pull request"),
    ],
)
def test_no_comment_without_a_token_or_a_pull_request(
    tools: Path, tmp_path: Path, env: dict[str, str], message: str
) -> None:
    pull_request = Comments(tools, tmp_path)
    assert message in pull_request.write(PASS, **env)


# ------------------------------------------------------------------ run and gate

FAKE_QAEVAL = """#!{bash}
# a stand-in of qaeval: writes down how it was called, and ends as it is told to
printf '%s\\n' "$@" '--' >> "{log}"
exit {code}
"""


def install_fake_qaeval(tools: Path, tmp_path: Path, code: int = 0) -> Path:
    log = tmp_path / "called"
    path = tools / "qaeval"
    path.write_text(FAKE_QAEVAL.format(bash=BASH, log=log, code=code))
    path.chmod(0o755)
    return log


def test_inputs_become_options_and_are_never_executed(tools: Path, tmp_path: Path) -> None:
    log, injected = install_fake_qaeval(tools, tmp_path), tmp_path / "trap"
    result = run_script(
        "evaluate.sh",
        tools,
        QAEVAL_MODELS=f"mistral *\n$(touch {injected})",
        QAEVAL_ENDPOINTS="mistral=http://10.0.0.5:8000\n judge=http://10.0.0.6:8000 ",
        QAEVAL_RUN=tmp_path / "run",
        QAEVAL_N="60",
        QAEVAL_JUDGE="compass judger",
    )
    assert result.returncode == 0, result.stderr
    assert log.read_text().splitlines() == [
        "compare",
        "--endpoint=mistral=http://10.0.0.5:8000",
        "--endpoint=judge=http://10.0.0.6:8000",
        "--yes",
        f"--out={tmp_path / 'run'}",
        "--n=60",
        "--judge=compass judger",
        "--",
        "mistral",
        "*",
        "$(touch",
        f"{injected})",
        "--",
    ]
    assert not injected.exists()


def test_single_model_is_generated_graded_and_reported(tools: Path, tmp_path: Path) -> None:
    log = install_fake_qaeval(tools, tmp_path)
    assert run_script("evaluate.sh", tools, QAEVAL_MODELS="mistral", QAEVAL_RUN="r").returncode == 0
    assert log.read_text().split("--\n")[0::1] == [
        "generate\n--yes\n--out=r\n", "mistral\n", "grade\n", "r\n", "report\n", "r\n", ""
    ]  # fmt: skip


def test_sequential_gate_receives_judge_and_endpoints(tools: Path, tmp_path: Path) -> None:
    log = install_fake_qaeval(tools, tmp_path)
    env = {"QAEVAL_SEQUENTIAL": "true", "QAEVAL_JUDGE": "j", "QAEVAL_ENDPOINTS": "a=http://a\nj=http://j"}
    assert run_script("evaluate.sh", tools, QAEVAL_MODELS="a b", QAEVAL_RUN="r", **env).returncode == 0
    endpoints = ["--endpoint=a=http://a", "--endpoint=j=http://j"]
    assert log.read_text().splitlines() == ["generate", *endpoints, "--yes", "--out=r", "--", "a", "b", "--"]
    log.unlink()
    assert run_script("gate.sh", tools, QAEVAL_RUN="r", QAEVAL_OUT=tmp_path / "out", **env).returncode == 0
    assert log.read_text().splitlines()[4:] == ["--sequential", "--judge=j", *endpoints, "--", "r", "--"]


def test_missing_models_are_an_error(tools: Path, tmp_path: Path) -> None:
    install_fake_qaeval(tools, tmp_path)
    result = run_script("evaluate.sh", tools, QAEVAL_MODELS=" \n", QAEVAL_RUN="r")
    assert (result.returncode, "set models" in result.stderr) == (64, True)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 65])
def test_exit_code_of_the_gate_is_returned(tools: Path, tmp_path: Path, code: int) -> None:
    install_fake_qaeval(tools, tmp_path, code)
    summary, output = tmp_path / "summary", tmp_path / "output"
    summary.write_text("before\n")
    result = run_script(
        "gate.sh",
        tools,
        QAEVAL_RUN="r",
        QAEVAL_OUT=tmp_path / "out",
        GITHUB_STEP_SUMMARY=summary,
        GITHUB_OUTPUT=output,
    )
    assert result.returncode == code
    assert output.read_text() == f"exit-code={code}\n"
    assert summary.read_text().startswith("before\n## qaeval gate")


@pytest.mark.parametrize("script", ["evaluate.sh", "gate.sh"])
def test_workflow_commands_are_disabled_while_qaeval_runs(script: str, tools: Path, tmp_path: Path) -> None:
    install_fake_qaeval(tools, tmp_path, code=2)
    (tools / "qaeval").write_text(f"#!{BASH}\necho ::add-mask::out; echo ::error::err >&2; exit 2\n")
    env = {
        "GITHUB_ACTIONS": "true",
        "QAEVAL_RUN": "r",
        "QAEVAL_OUT": tmp_path / "out",
        "QAEVAL_MODELS": "a b",
    }
    result = run_script(script, tools, **env)
    first, *printed, last = result.stdout.splitlines()
    token = first.removeprefix("::stop-commands::")
    assert re.fullmatch(r"\w{24}", token)
    assert (result.returncode, printed, last) == (2, ["::add-mask::out", "::error::err"], f"::{token}::")
    assert run_script(script, tools, **env).stdout.splitlines()[0] != first


def test_existing_installation_is_used(tools: Path, tmp_path: Path) -> None:
    assert "not on the runner" in run_script("install.sh", tools, QAEVAL_INSTALL="none").stderr
    install_fake_qaeval(tools, tmp_path)
    assert run_script("install.sh", tools, QAEVAL_INSTALL="none").returncode == 0


def test_install_creates_a_separate_environment(tools: Path, tmp_path: Path) -> None:
    log, python = tmp_path / "called", tools / "python9"
    fake_python = f'#!{BASH}\nmkdir -p "$3/bin"; printf \'#!{BASH}\\necho "$@" >> {log}\\n\' > "$3/bin/python"; chmod +x "$3/bin/python"\n'
    python.write_text(fake_python)
    python.chmod(0o755)
    (tools / "chmod").symlink_to(shutil.which("chmod") or "")
    path = tmp_path / "path"
    env = {"RUNNER_TEMP": tmp_path, "GITHUB_PATH": path, "QAEVAL_PYTHON": "python9"}
    result = run_script("install.sh", tools, QAEVAL_INSTALL="./my wheel.whl", **env)
    assert result.returncode == 0, result.stderr
    assert log.read_text().endswith(" -- ./my wheel.whl\n")
    assert path.read_text() == f"{tmp_path}/qaeval/bin\n"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_complete_job_with_embedded_models(tools: Path, tmp_path: Path) -> None:
    (tools / "qaeval").symlink_to(Path(sys.executable).with_name("qaeval"))
    path = f"{tools}:{os.environ['PATH']}"
    run, out = tmp_path / "run", tmp_path / "out"
    models = {"QAEVAL_MODELS": "embedded-lead embedded-salient", "QAEVAL_N": "12", "QAEVAL_SEED": "7"}
    result = run_script("evaluate.sh", path, QAEVAL_RUN=run, **models)
    assert result.returncode == 0, result.stderr
    gate_env = {"QAEVAL_RUN": run, "QAEVAL_BASELINE": ROOT / "results" / "example", "QAEVAL_OUT": out}
    result = run_script("gate.sh", path, GITHUB_STEP_SUMMARY=tmp_path / "summary", **gate_env)
    # twelve chunks cannot rule out a loss of 5 points
    assert result.returncode == 2, result.stderr
    assert {file.name for file in out.iterdir()} == {
        "junit.xml", "summary.md", "comment.md", "gate.json", "report.html"
    }  # fmt: skip
    assert (tmp_path / "summary").read_text() == (out / "summary.md").read_text()
    first = {file.name: file.read_text() for file in out.iterdir()}
    assert run_script("gate.sh", path, **gate_env).returncode == 2
    assert {file.name: file.read_text() for file in out.iterdir()} == first
    assert run_script("gate.sh", path, **{**gate_env, "QAEVAL_RUN": tmp_path / "nowhere"}).returncode == 65


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_changed_prompt_is_gated_and_named_in_the_comment(tools: Path, tmp_path: Path) -> None:
    (tools / "qaeval").symlink_to(Path(sys.executable).with_name("qaeval"))
    path = f"{tools}:{os.environ['PATH']}"
    folder, baseline, policy = tmp_path / "ours", tmp_path / "baseline.json", tmp_path / "gate.yaml"
    # renamed, because the labels of the shipped eval refute the embedded judge and would change the verdict
    shutil.copytree(ROOT / "evals" / "qa_pairs", folder, ignore=shutil.ignore_patterns("labels"))
    definition = folder / "eval.yaml"
    definition.write_text(definition.read_text().replace("name: qa_pairs", "name: ours", 1))
    policy.write_text("rules: [{quantity: usable_rate, margin: 0.05}]\n")
    models = {"QAEVAL_MODELS": "embedded-lead embedded-salient", "QAEVAL_EVAL": folder}
    assert run_script("evaluate.sh", path, QAEVAL_RUN=tmp_path / "release", **models).returncode == 0
    arguments = ["baseline", "set", tmp_path / "release", "--out", baseline]
    subprocess.run([tools / "qaeval", *arguments], check=True, capture_output=True, timeout=300)
    prompt = folder / "prompt.md"
    prompt.write_text(prompt.read_text() + "\nBe brief.\n")
    assert run_script("evaluate.sh", path, QAEVAL_RUN=tmp_path / "run", **models).returncode == 0
    out = tmp_path / "out"
    gate_env = {"QAEVAL_RUN": tmp_path / "run", "QAEVAL_BASELINE": baseline, "QAEVAL_POLICY": policy}
    result = run_script("gate.sh", path, QAEVAL_OUT=out, **gate_env)
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads((out / "gate.json").read_text())
    assert [change["candidate"] for change in report["prompts"]] == ["embedded-lead", "embedded-salient"]
    for view in ("summary.md", "comment.md", "junit.xml"):
        assert report["prompts"][0]["prompt"].rpartition("(")[2] in (out / view).read_text()


# ------------------------------------------------------------------ the files that call the scripts

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())


def test_action_is_a_valid_composite_action() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert ACTION["name"]
    assert ACTION["description"]
    assert ACTION["inputs"]
    assert ACTION["runs"]["steps"]
    for action_input in ACTION["inputs"].values():
        assert set(action_input) <= {"description", "default", "required"}
        assert isinstance(action_input["default"], str)
    for step in ACTION["runs"]["steps"]:
        assert ("run" in step) != ("uses" in step)
        assert "run" not in step or step["shell"] == "bash"


def test_no_step_has_an_expression_in_its_script() -> None:
    scripts = [step["run"] for step in ACTION["runs"]["steps"] if "run" in step]
    assert scripts
    assert not any("${{" in script for script in scripts)


def test_every_input_is_used_and_every_script_exists() -> None:
    text = (ROOT / "action.yml").read_text()
    used = set(re.findall(r"inputs\.([a-z-]+)", text))
    assert used == set(ACTION["inputs"])
    scripts = set(re.findall(r"ci/([a-z]+\.sh)", text))
    assert scripts == {path.name for path in (ROOT / "ci").glob("*.sh")}


def test_action_provides_the_variables_of_its_scripts() -> None:
    steps = [
        (step, name)
        for step in ACTION["runs"]["steps"]
        for name in re.findall(r"ci/([a-z]+\.sh)", step.get("run", ""))
    ]
    assert steps
    for step, name in steps:
        variables = set(re.findall(r"\$\{?(QAEVAL_[A-Z]+)", (ROOT / "ci" / name).read_text()))
        assert variables <= set(step["env"]), name


@pytest.mark.parametrize("path", [ROOT / "action.yml", *sorted((ROOT / "docs" / "examples").glob("*.yml"))])
def test_third_party_actions_are_pinned_by_commit_with_version(path: Path) -> None:
    for line in path.read_text().splitlines():
        if (match := re.search(r"uses: ([^.\s]\S*)(.*)", line)) and not match[1].startswith("YOUR"):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", match[1]), line
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", match[2]), line


@pytest.mark.parametrize("path", sorted((ROOT / "ci").glob("*.sh")))
def test_scripts_stop_at_the_first_error(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert os.access(path, os.X_OK)
    assert subprocess.run([BASH, "-n", str(path)], check=False).returncode == 0


def read_gitlab_job() -> tuple[dict[str, Any], dict[str, Any]]:
    spec, jobs = yaml.safe_load_all((ROOT / "ci" / "gitlab.yml").read_text())
    return spec["spec"]["inputs"], jobs["qaeval-gate"]


def test_the_gitlab_job_takes_its_inputs_as_variables() -> None:
    inputs, job = read_gitlab_job()
    (script,) = job["script"]
    assert "[[" not in script.replace("[[:space:]]", "").replace("'[:space:]'", "")
    used = re.findall(r"\$\[\[ inputs\.(\w+) \]\]", (ROOT / "ci" / "gitlab.yml").read_text())
    assert sorted(used) == sorted(inputs)
    assert set(re.findall(r"\$\{?(QAEVAL_[A-Z]+)", script)) <= set(job["variables"])
    assert job["artifacts"]["reports"]["junit"] == "qaeval-gate/junit.xml"


@pytest.mark.parametrize(("models", "code"), [("mistral qwen", 3), ("mistral", 0)])
def test_gitlab_job_returns_the_exit_code_of_the_gate(
    tools: Path, tmp_path: Path, models: str, code: int
) -> None:
    log = install_fake_qaeval(tools, tmp_path)
    (tools / "qaeval").write_text(f'{(tools / "qaeval").read_text()}'.replace(
        "exit 0", f'if [ "$1" = gate ]; then exit {code}; fi'
    ))  # fmt: skip
    _, job = read_gitlab_job()
    inputs = dict.fromkeys(job["variables"], "")
    variables = {
        "QAEVAL_MODELS": models,
        "QAEVAL_ENDPOINTS": "judge=http://10.0.0.6",
        "QAEVAL_INSTALL": "none",
    }
    result = subprocess.run(
        [BASH, "-c", job["script"][0]],
        cwd=tmp_path,
        env={**inputs, **variables, "PATH": str(tools), "CI_JOB_ID": "5", "QAEVAL_POLICY": "gate.yaml"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == code, result.stderr
    commands = log.read_text().split("\n")
    first = "compare" if " " in models else "generate"
    assert commands[:5] == [first, "--endpoint=judge=http://10.0.0.6", "--yes", "--out=results/ci-5", "--"]
    assert commands[commands.index("gate") :] == [
        "gate",
        "--policy=gate.yaml",
        "--junit=qaeval-gate/junit.xml",
        "--summary=qaeval-gate/summary.md",
        "--",
        "results/ci-5",
        "--",
        "",
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "examples").glob("*.y*ml")))
def test_examples_use_existing_inputs(path: Path) -> None:
    example = yaml.safe_load(path.read_text())
    if path.name == "gate.yaml":
        assert len(read_policy(path).rules) == 3
    elif path.name.startswith("gitlab"):
        assert set(example["include"][0]["inputs"]) <= set(read_gitlab_job()[0])
    else:
        steps = example["jobs"]["gate"]["steps"]
        (used,) = [step["with"] for step in steps if step.get("uses", "").startswith("YOUR-ORG")]
        assert set(used) <= set(ACTION["inputs"])
        assert all(isinstance(value, str) for value in used.values())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_rerun_makes_no_requests_and_has_the_same_verdict(tools: Path, tmp_path: Path) -> None:
    (tools / "qaeval").symlink_to(Path(sys.executable).with_name("qaeval"))
    path = f"{tools}:{os.environ['PATH']}"
    with LoopbackServer(["mistral-v0.3", "qwen2.5", "selene"]) as server:
        request_counts, verdicts = [], []
        env = {
            "QAEVAL_MODELS": "mistral-v0.3 qwen2.5",
            "QAEVAL_JUDGE": "selene",
            "QAEVAL_ENDPOINTS": " ".join(f"{name}={server.url}" for name in server.models),
            "QAEVAL_N": "8",
            "QAEVAL_CACHE": str(tmp_path / "cache"),
        }
        for name in ("first", "second"):
            run = tmp_path / name / "run"
            result = run_script("evaluate.sh", path, **env, QAEVAL_RUN=run)
            assert result.returncode == 0, result.stderr
            # exclude the requests of the probe, which are short
            request_counts.append(
                sum(
                    "response_format" in request and request["max_tokens"] > 64 for request in server.requests
                )
            )
            base = {"QAEVAL_BASELINE": tmp_path / "first" / "run", "QAEVAL_OUT": tmp_path / name}
            verdicts.append(run_script("gate.sh", path, QAEVAL_RUN=run, **base).returncode)
    assert request_counts[0] == request_counts[1] > 16
    assert verdicts == [2, 2]
