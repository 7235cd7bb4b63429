"""The GitHub Action and the GitLab job: their scripts in a plain shell, and the files that call them."""

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
"""What a runner has."""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A path with what a runner has, and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found, f"{name} is needed by the scripts"
        (folder / name).symlink_to(found)
    (folder / "python3").symlink_to(sys.executable)
    return folder


def sh(script: str, tools: Path | str, **env: str | Path) -> "subprocess.CompletedProcess[str]":
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
    """The comments of a pull request, behind a stand-in of GitHub's API."""

    def __init__(self, tools: Path, tmp_path: Path) -> None:
        self.tools, self.out, self.state = tools, tmp_path / "out", tmp_path / "comments.json"
        self.out.mkdir()
        self.env: dict[str, str] = {}

    def write(self, report: Any, **env: str) -> str:
        if report is not None:
            (self.out / "comment.md").write_text(to_comment(report))
        facts = {"QAEVAL_PULL": "7", "GITHUB_TOKEN": "secret", "GITHUB_REPOSITORY": "acme/models"}
        done = sh("comment.sh", self.tools, QAEVAL_OUT=self.out, **{**facts, **self.env, **env})
        assert done.returncode == 0, done.stderr
        assert "secret" not in done.stdout + done.stderr
        return done.stdout.strip()

    def all(self) -> list[dict[str, Any]]:
        return json.loads(self.state.read_text())

    def put(self, comments: list[dict[str, Any]]) -> None:
        self.state.write_text(json.dumps(comments))


@pytest.fixture
def comments(tools: Path, tmp_path: Path) -> Iterator[Comments]:
    made = Comments(tools, tmp_path)
    made.put([])

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            assert self.headers["Authorization"] == "Bearer secret"
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = made.all()
            status, reply = answer(found, self.command, self.path, json.loads(text) if text else None)
            made.put(found)
            content = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = _reply  # noqa: N815 - named by the library

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.env = {"GITHUB_API_URL": f"http://127.0.0.1:{server.server_address[1]}"}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_the_comment_is_written_once_and_then_brought_up_to_date(comments: Comments) -> None:
    others = [
        {"id": n, "user": {"login": "anna"}, "body": f"{MARKER} quoted by a person"} for n in range(1, 121)
    ]
    comments.put(others)
    assert comments.write(REGRESSION) == "comment: written"
    assert comments.write(PASS).startswith("comment: brought")
    found = comments.all()
    assert found[:120] == others
    assert [one["body"] for one in found[120:]] == [to_comment(PASS)]


def test_a_gate_without_a_verdict_does_not_leave_the_old_one_standing(comments: Comments) -> None:
    comments.write(PASS)
    (comments.out / "comment.md").unlink()
    assert comments.write(None, QAEVAL_LINK="https://ci.example/1").startswith("comment: brought")
    (found,) = comments.all()
    assert found["body"].startswith(MARKER)
    assert "no verdict" in found["body"]
    assert "https://ci.example/1" in found["body"]


def test_comments_without_text_or_author_are_passed_over(comments: Comments) -> None:
    comments.put(
        [{"id": 1, "user": None, "body": MARKER}, {"id": 2, "user": {"login": "anna"}, "body": None}]
    )
    assert comments.write(PASS) == "comment: written"


def test_an_answer_that_is_no_list_of_comments_fails_no_job(comments: Comments) -> None:

    (comments.tools / "curl").unlink()
    curl = comments.tools / "curl"
    curl.write_text(f'#!{BASH}\necho \'{{"message": "moved"}}\'\n')
    curl.chmod(0o755)
    assert "comments cannot be read" in comments.write(PASS)


def test_a_token_that_may_not_write_fails_no_job(comments: Comments) -> None:
    assert "pull-requests: write" in comments.write(PASS, QAEVAL_PULL="9")
    assert comments.all() == []


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"GITHUB_TOKEN": ""}, "no token, as for pull requests from forks"),
        ({"QAEVAL_PULL": ""}, "belongs to no pull request"),
        ({"QAEVAL_PULL": "7; touch /tmp/x"}, "expected the number of a pull request"),
    ],
)
def test_without_a_token_or_a_pull_request_there_is_no_comment_and_it_says_so(
    tools: Path, tmp_path: Path, env: dict[str, str], said: str
) -> None:
    made = Comments(tools, tmp_path)
    assert said in made.write(PASS, **env)


# ------------------------------------------------------------------ run and gate

STAND_IN = """#!{bash}
# a stand-in of qaeval: writes down how it was called, and ends as it is told to
printf '%s\\n' "$@" '--' >> "{log}"
exit {code}
"""


def stand_in(tools: Path, tmp_path: Path, code: int = 0) -> Path:
    log = tmp_path / "called"
    path = tools / "qaeval"
    path.write_text(STAND_IN.format(bash=BASH, log=log, code=code))
    path.chmod(0o755)
    return log


def test_what_is_typed_becomes_options_and_is_never_run(tools: Path, tmp_path: Path) -> None:
    log, trap = stand_in(tools, tmp_path), tmp_path / "trap"
    done = sh(
        "evaluate.sh",
        tools,
        QAEVAL_MODELS=f"mistral *\n$(touch {trap})",
        QAEVAL_ENDPOINTS="mistral=http://10.0.0.5:8000\n judge=http://10.0.0.6:8000 ",
        QAEVAL_RUN=tmp_path / "run",
        QAEVAL_N="60",
        QAEVAL_JUDGE="compass judger",
    )
    assert done.returncode == 0, done.stderr
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
        f"{trap})",
        "--",
    ]
    assert not trap.exists()


def test_one_model_alone_is_generated_graded_and_reported(tools: Path, tmp_path: Path) -> None:
    log = stand_in(tools, tmp_path)
    assert sh("evaluate.sh", tools, QAEVAL_MODELS="mistral", QAEVAL_RUN="r").returncode == 0
    assert log.read_text().split("--\n")[0::1] == [
        "generate\n--yes\n--out=r\n", "mistral\n", "grade\n", "r\n", "report\n", "r\n", ""
    ]  # fmt: skip


def test_a_sequential_gate_is_given_what_it_grades_with(tools: Path, tmp_path: Path) -> None:
    log = stand_in(tools, tmp_path)
    env = {"QAEVAL_SEQUENTIAL": "true", "QAEVAL_JUDGE": "j", "QAEVAL_ENDPOINTS": "a=http://a\nj=http://j"}
    assert sh("evaluate.sh", tools, QAEVAL_MODELS="a b", QAEVAL_RUN="r", **env).returncode == 0
    served = ["--endpoint=a=http://a", "--endpoint=j=http://j"]
    assert log.read_text().splitlines() == ["generate", *served, "--yes", "--out=r", "--", "a", "b", "--"]
    log.unlink()
    assert sh("gate.sh", tools, QAEVAL_RUN="r", QAEVAL_OUT=tmp_path / "out", **env).returncode == 0
    assert log.read_text().splitlines()[4:] == ["--sequential", "--judge=j", *served, "--", "r", "--"]


def test_no_model_is_an_error_that_says_what_to_do(tools: Path, tmp_path: Path) -> None:
    stand_in(tools, tmp_path)
    done = sh("evaluate.sh", tools, QAEVAL_MODELS=" \n", QAEVAL_RUN="r")
    assert (done.returncode, "set models" in done.stderr) == (64, True)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 65])
def test_the_exit_code_of_the_gate_passes_through(tools: Path, tmp_path: Path, code: int) -> None:
    stand_in(tools, tmp_path, code)
    summary, output = tmp_path / "summary", tmp_path / "output"
    summary.write_text("before\n")
    done = sh(
        "gate.sh",
        tools,
        QAEVAL_RUN="r",
        QAEVAL_OUT=tmp_path / "out",
        GITHUB_STEP_SUMMARY=summary,
        GITHUB_OUTPUT=output,
    )
    assert done.returncode == code
    assert output.read_text() == f"exit-code={code}\n"
    assert summary.read_text().startswith("before\n## qaeval gate")


@pytest.mark.parametrize("script", ["evaluate.sh", "gate.sh"])
def test_github_obeys_nothing_that_is_printed_meanwhile(script: str, tools: Path, tmp_path: Path) -> None:
    stand_in(tools, tmp_path, code=2)
    (tools / "qaeval").write_text(f"#!{BASH}\necho ::add-mask::out; echo ::error::err >&2; exit 2\n")
    env = {
        "GITHUB_ACTIONS": "true",
        "QAEVAL_RUN": "r",
        "QAEVAL_OUT": tmp_path / "out",
        "QAEVAL_MODELS": "a b",
    }
    done = sh(script, tools, **env)
    first, *said, last = done.stdout.splitlines()
    token = first.removeprefix("::stop-commands::")
    assert re.fullmatch(r"\w{24}", token)
    assert (done.returncode, said, last) == (2, ["::add-mask::out", "::error::err"], f"::{token}::")
    assert sh(script, tools, **env).stdout.splitlines()[0] != first


def test_an_installation_that_is_there_already_is_used(tools: Path, tmp_path: Path) -> None:
    assert "not on the runner" in sh("install.sh", tools, QAEVAL_INSTALL="none").stderr
    stand_in(tools, tmp_path)
    assert sh("install.sh", tools, QAEVAL_INSTALL="none").returncode == 0


def test_it_is_installed_into_an_environment_of_its_own(tools: Path, tmp_path: Path) -> None:
    log, python = tmp_path / "called", tools / "python9"
    made = f'#!{BASH}\nmkdir -p "$3/bin"; printf \'#!{BASH}\\necho "$@" >> {log}\\n\' > "$3/bin/python"; chmod +x "$3/bin/python"\n'
    python.write_text(made)
    python.chmod(0o755)
    (tools / "chmod").symlink_to(shutil.which("chmod") or "")
    path = tmp_path / "path"
    env = {"RUNNER_TEMP": tmp_path, "GITHUB_PATH": path, "QAEVAL_PYTHON": "python9"}
    done = sh("install.sh", tools, QAEVAL_INSTALL="./my wheel.whl", **env)
    assert done.returncode == 0, done.stderr
    assert log.read_text().endswith(" -- ./my wheel.whl\n")
    assert path.read_text() == f"{tmp_path}/qaeval/bin\n"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_whole_job_on_the_embedded_models(tools: Path, tmp_path: Path) -> None:
    (tools / "qaeval").symlink_to(Path(sys.executable).with_name("qaeval"))
    path = f"{tools}:{os.environ['PATH']}"
    run, out = tmp_path / "run", tmp_path / "out"
    models = {"QAEVAL_MODELS": "embedded-lead embedded-salient", "QAEVAL_N": "12", "QAEVAL_SEED": "7"}
    done = sh("evaluate.sh", path, QAEVAL_RUN=run, **models)
    assert done.returncode == 0, done.stderr
    asked = {"QAEVAL_RUN": run, "QAEVAL_BASELINE": ROOT / "results" / "example", "QAEVAL_OUT": out}
    done = sh("gate.sh", path, GITHUB_STEP_SUMMARY=tmp_path / "summary", **asked)
    # twelve chunks cannot rule out a loss of 5 points
    assert done.returncode == 2, done.stderr
    assert {one.name for one in out.iterdir()} == {
        "junit.xml", "summary.md", "comment.md", "gate.json", "report.html"
    }  # fmt: skip
    assert (tmp_path / "summary").read_text() == (out / "summary.md").read_text()
    first = {one.name: one.read_text() for one in out.iterdir()}
    assert sh("gate.sh", path, **asked).returncode == 2
    assert {one.name: one.read_text() for one in out.iterdir()} == first
    assert sh("gate.sh", path, **{**asked, "QAEVAL_RUN": tmp_path / "nowhere"}).returncode == 65


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_pull_request_that_changes_a_prompt_is_gated_and_the_comment_names_it(
    tools: Path, tmp_path: Path
) -> None:
    (tools / "qaeval").symlink_to(Path(sys.executable).with_name("qaeval"))
    path = f"{tools}:{os.environ['PATH']}"
    folder, baseline, policy = tmp_path / "ours", tmp_path / "baseline.json", tmp_path / "gate.yaml"
    # another name: the labels of the shipped eval refute the embedded judge, and the gate would say so
    shutil.copytree(ROOT / "evals" / "qa_pairs", folder, ignore=shutil.ignore_patterns("labels"))
    definition = folder / "eval.yaml"
    definition.write_text(definition.read_text().replace("name: qa_pairs", "name: ours", 1))
    policy.write_text("rules: [{quantity: usable_rate, margin: 0.05}]\n")
    models = {"QAEVAL_MODELS": "embedded-lead embedded-salient", "QAEVAL_EVAL": folder}
    assert sh("evaluate.sh", path, QAEVAL_RUN=tmp_path / "release", **models).returncode == 0
    words = ["baseline", "set", tmp_path / "release", "--out", baseline]
    subprocess.run([tools / "qaeval", *words], check=True, capture_output=True, timeout=300)
    prompt = folder / "prompt.md"
    prompt.write_text(prompt.read_text() + "\nBe brief.\n")
    assert sh("evaluate.sh", path, QAEVAL_RUN=tmp_path / "run", **models).returncode == 0
    out = tmp_path / "out"
    asked = {"QAEVAL_RUN": tmp_path / "run", "QAEVAL_BASELINE": baseline, "QAEVAL_POLICY": policy}
    done = sh("gate.sh", path, QAEVAL_OUT=out, **asked)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((out / "gate.json").read_text())
    assert [change["candidate"] for change in report["prompts"]] == ["embedded-lead", "embedded-salient"]
    for view in ("summary.md", "comment.md", "junit.xml"):
        assert report["prompts"][0]["prompt"].rpartition("(")[2] in (out / view).read_text()


# ------------------------------------------------------------------ the files that call the scripts

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())


def test_the_action_has_what_github_asks_of_a_composite_action() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert ACTION["name"]
    assert ACTION["description"]
    assert ACTION["inputs"]
    assert ACTION["runs"]["steps"]
    for one in ACTION["inputs"].values():
        assert set(one) <= {"description", "default", "required"}
        assert isinstance(one["default"], str)
    for step in ACTION["runs"]["steps"]:
        assert ("run" in step) != ("uses" in step)
        assert "run" not in step or step["shell"] == "bash"


def test_no_step_has_an_expression_in_its_script() -> None:
    scripts = [step["run"] for step in ACTION["runs"]["steps"] if "run" in step]
    assert scripts
    assert not any("${{" in script for script in scripts)


def test_every_input_is_used_and_every_script_is_there() -> None:
    text = (ROOT / "action.yml").read_text()
    used = set(re.findall(r"inputs\.([a-z-]+)", text))
    assert used == set(ACTION["inputs"])
    scripts = set(re.findall(r"ci/([a-z]+\.sh)", text))
    assert scripts == {path.name for path in (ROOT / "ci").glob("*.sh")}


def test_what_scripts_read_is_what_the_action_gives() -> None:
    steps = [
        (step, name)
        for step in ACTION["runs"]["steps"]
        for name in re.findall(r"ci/([a-z]+\.sh)", step.get("run", ""))
    ]
    assert steps
    for step, name in steps:
        read = set(re.findall(r"\$\{?(QAEVAL_[A-Z]+)", (ROOT / "ci" / name).read_text()))
        assert read <= set(step["env"]), name


@pytest.mark.parametrize("path", [ROOT / "action.yml", *sorted((ROOT / "docs" / "examples").glob("*.yml"))])
def test_actions_of_others_are_pinned_by_commit_with_their_version(path: Path) -> None:
    for line in path.read_text().splitlines():
        if found := re.search(r"uses: (actions/\S+)(.*)", line):
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", found[1]), line
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", found[2]), line


@pytest.mark.parametrize("path", sorted((ROOT / "ci").glob("*.sh")))
def test_scripts_stop_at_the_first_error(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert os.access(path, os.X_OK)
    assert subprocess.run([BASH, "-n", str(path)], check=False).returncode == 0


def gitlab() -> tuple[dict[str, Any], dict[str, Any]]:
    spec, jobs = yaml.safe_load_all((ROOT / "ci" / "gitlab.yml").read_text())
    return spec["spec"]["inputs"], jobs["qaeval-gate"]


def test_the_gitlab_job_takes_its_inputs_as_variables() -> None:
    inputs, job = gitlab()
    (script,) = job["script"]
    assert "[[" not in script.replace("[[:space:]]", "").replace("'[:space:]'", "")
    used = re.findall(r"\$\[\[ inputs\.(\w+) \]\]", (ROOT / "ci" / "gitlab.yml").read_text())
    assert sorted(used) == sorted(inputs)
    assert set(re.findall(r"\$\{?(QAEVAL_[A-Z]+)", script)) <= set(job["variables"])
    assert job["artifacts"]["reports"]["junit"] == "qaeval-gate/junit.xml"


@pytest.mark.parametrize(("models", "code"), [("mistral qwen", 3), ("mistral", 0)])
def test_the_gitlab_job_ends_as_the_gate_does(tools: Path, tmp_path: Path, models: str, code: int) -> None:
    log = stand_in(tools, tmp_path)
    (tools / "qaeval").write_text(f'{(tools / "qaeval").read_text()}'.replace(
        "exit 0", f'if [ "$1" = gate ]; then exit {code}; fi'
    ))  # fmt: skip
    _, job = gitlab()
    inputs = dict.fromkeys(job["variables"], "")
    typed = {"QAEVAL_MODELS": models, "QAEVAL_ENDPOINTS": "judge=http://10.0.0.6", "QAEVAL_INSTALL": "none"}
    done = subprocess.run(
        [BASH, "-c", job["script"][0]],
        cwd=tmp_path,
        env={**inputs, **typed, "PATH": str(tools), "CI_JOB_ID": "5", "QAEVAL_POLICY": "gate.yaml"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    commands = log.read_text().split("\n")
    first = "compare" if " " in models else "generate"
    assert commands[:5] == [first, "--endpoint=judge=http://10.0.0.6", "--yes", "--out=results/ci-5", "--"]
    assert (
        commands[-7:]
        == [
            "gate",
            "--policy=gate.yaml",
            "--junit=qaeval-gate/junit.xml",
            "--summary=qaeval-gate/summary.md",
            "--",
            "results/ci-5",
            "--",
            "",
        ][-7:]
    )


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "examples").glob("*.y*ml")))
def test_the_examples_name_inputs_that_there_are(path: Path) -> None:
    example = yaml.safe_load(path.read_text())
    if path.name == "gate.yaml":
        assert len(read_policy(path).rules) == 3
    elif path.name.startswith("gitlab"):
        assert set(example["include"][0]["inputs"]) <= set(gitlab()[0])
    else:
        steps = example["jobs"]["gate"]["steps"]
        (used,) = [step["with"] for step in steps if step.get("uses", "").startswith("YOUR-ORG")]
        assert set(used) <= set(ACTION["inputs"])
        assert all(isinstance(value, str) for value in used.values())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_rerun_asks_the_servers_nothing_and_comes_to_the_same_verdict(tools: Path, tmp_path: Path) -> None:
    (tools / "qaeval").symlink_to(Path(sys.executable).with_name("qaeval"))
    path = f"{tools}:{os.environ['PATH']}"
    with LoopbackServer(["mistral-v0.3", "qwen2.5", "selene"]) as server:
        asked, verdicts = [], []
        env = {
            "QAEVAL_MODELS": "mistral-v0.3 qwen2.5",
            "QAEVAL_JUDGE": "selene",
            "QAEVAL_ENDPOINTS": " ".join(f"{name}={server.url}" for name in server.models),
            "QAEVAL_N": "8",
            "QAEVAL_CACHE": str(tmp_path / "cache"),
        }
        for name in ("first", "second"):
            run = tmp_path / name / "run"
            done = sh("evaluate.sh", path, **env, QAEVAL_RUN=run)
            assert done.returncode == 0, done.stderr
            # the probe says hello; a question of the eval may be answered at length
            asked.append(sum("response_format" in one and one["max_tokens"] > 64 for one in server.requests))
            base = {"QAEVAL_BASELINE": tmp_path / "first" / "run", "QAEVAL_OUT": tmp_path / name}
            verdicts.append(sh("gate.sh", path, QAEVAL_RUN=run, **base).returncode)
    assert asked[0] == asked[1] > 16
    assert verdicts == [2, 2]
