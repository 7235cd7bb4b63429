"""The scripts that run in the pods, against loopback servers and temporary folders."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from k8s.render import K8S

SCRIPTS = K8S / "base" / "scripts"
POWER_SCRIPT = K8S / "overlays" / "l4-pair" / "power.py"


def run_script(script: Path, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script, *arguments],
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@contextmanager
def serve(answer: Any) -> Iterator[str]:
    """Run a server that replies with `answer(method, path, body)`, a (status, bytes) pair."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = answer(self.command, unquote(self.path), body)
            self.send_response(status)
            if status == 302:
                self.send_header("Location", content.decode())
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_PATCH = do_GET  # noqa: N815 - the name is the library's

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def record_logins(logins: list[str | None]) -> Iterator[str]:
    """Run a server on another host name that records the login of each request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            logins.append(self.headers.get("Authorization"))
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def find_closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---------------------------------------------------------------- egress


def run_selftest(targets: str, name: str = "") -> subprocess.CompletedProcess[str]:
    return run_script(
        SCRIPTS / "egress_selftest.py",
        EGRESS_TARGETS=targets,
        EGRESS_NAME=name,
        EGRESS_PAUSE="0.01",
        EGRESS_DEADLINE="0.2",
    )


def test_the_selftest_passes_when_no_target_is_reachable() -> None:
    assert (
        run_selftest(
            f"127.0.0.1:{find_closed_port()} 127.0.0.1:{find_closed_port()}", "name.invalid"
        ).returncode
        == 0
    )


def test_the_selftest_fails_when_one_target_is_reachable() -> None:
    with serve(lambda *_: (200, b"")) as url:
        run = run_selftest(f"127.0.0.1:{find_closed_port()} {url.removeprefix('http://')}")
    assert run.returncode == 1
    assert "can be reached from this pod" in run.stderr


def test_the_selftest_fails_when_a_name_resolves() -> None:
    assert run_selftest(f"127.0.0.1:{find_closed_port()}", "localhost").returncode == 1


def test_wait_for_servers_ends_when_all_servers_are_healthy() -> None:
    with serve(lambda *_: (200, b"")) as url:
        assert run_script(SCRIPTS / "wait_for_servers.py", "5", f"{url}/health").returncode == 0
    run = run_script(SCRIPTS / "wait_for_servers.py", "0", f"{url}/health")
    assert (run.returncode, "no answer" in run.stderr) == (69, True)


def test_a_reply_that_is_not_http_counts_as_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as peer:
                peer.recv(4096)
                peer.sendall(b"starting\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        run = run_script(
            SCRIPTS / "wait_for_servers.py", "0", f"http://127.0.0.1:{server.getsockname()[1]}/health"
        )
        thread.join()
    assert (run.returncode, "Traceback" in run.stderr) == (69, False), run.stderr


# ---------------------------------------------------------------- models


def run_models_script(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return run_script(SCRIPTS / "models.py", *arguments, **env)


def write_model_list(tmp_path: Path, **entries: Any) -> Path:
    path = tmp_path / "models.json"
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture
def weights_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "m"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "sub" / "config.json").write_bytes(b"{}")
    return folder


def test_a_folder_digest_is_the_hash_of_its_sorted_checksums(weights_folder: Path) -> None:
    lines = sorted(
        f"{hashlib.sha256((weights_folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("model.safetensors", "sub/config.json")
    )
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert run_models_script("digest", weights_folder.parent, "m").stdout == f"m sha256:{expected}\n"


def folder_digest(weights_folder: Path) -> str:
    return run_models_script("digest", weights_folder.parent, "m").stdout.split()[1]


def test_a_folder_that_matches_its_digest_passes_the_check(weights_folder: Path, tmp_path: Path) -> None:
    assert (
        run_models_script(
            "check",
            write_model_list(tmp_path, m={"digest": folder_digest(weights_folder)}),
            weights_folder.parent,
            "m",
        ).returncode
        == 0
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"Weights"),
        lambda folder: (folder / "sub" / "config.json").rename(folder / "config.json"),
        lambda folder: (folder / "more.py").write_bytes(b""),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "link").symlink_to("/etc/passwd"),
        shutil.rmtree,
    ],
    ids=["changed", "moved", "added", "removed", "linked", "gone"],
)
def test_any_difference_in_a_folder_is_refused(change: Any, weights_folder: Path, tmp_path: Path) -> None:
    model_list = write_model_list(tmp_path, m={"digest": folder_digest(weights_folder)})
    change(weights_folder)
    assert run_models_script("check", model_list, weights_folder.parent, "m").returncode == 65


def test_a_folder_without_a_listed_digest_is_refused_and_its_digest_printed(
    weights_folder: Path, tmp_path: Path
) -> None:
    run = run_models_script(
        "check", write_model_list(tmp_path, m={"digest": None}), weights_folder.parent, "m"
    )
    assert (run.returncode, folder_digest(weights_folder) in run.stderr) == (65, True)
    assert run_models_script("check", write_model_list(tmp_path), weights_folder.parent, "m").returncode == 65


COMMIT = "0123456789" * 4


def make_hub(
    files: dict[str, bytes], *, sha: str = COMMIT, served_instead: dict[str, bytes] | None = None
) -> Any:
    """Answer the two listing requests of a download and serve the files; `served_instead` replaces listed content."""

    def entry(name: str, content: bytes) -> dict[str, Any]:
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        large = {"lfs": {"oid": hashlib.sha256(content).hexdigest()}} if name.endswith(".safetensors") else {}
        return {"type": "file", "path": name, "oid": git, **large}

    def answer(_: str, path: str, __: bytes) -> tuple[int, bytes]:
        if path == f"/api/models/o/m/revision/{COMMIT}":
            return 200, json.dumps({"sha": sha}).encode()
        if path.startswith(f"/api/models/o/m/tree/{COMMIT}"):
            return 200, json.dumps([entry(*file) for file in files.items()]).encode()
        name = path.removeprefix(f"/o/m/resolve/{COMMIT}/")
        return 200, {**files, **(served_instead or {})}[name]

    return answer


FILES = {"model.safetensors": b"weights", "sub/config.json": b"{}", "pickle.bin": b"code", "README.md": b"#"}


def run_fetch(
    tmp_path: Path, answer: Any, revision: str | None = COMMIT, digest: str | None = None
) -> subprocess.CompletedProcess[str]:
    model_list = write_model_list(tmp_path, m={"repository": "o/m", "revision": revision, "digest": digest})
    with serve(answer) as url:
        return run_models_script("fetch", model_list, tmp_path / "models", HUB=url)


def test_a_download_without_a_listed_digest_is_kept_but_refused_and_its_digest_printed(
    tmp_path: Path, weights_folder: Path
) -> None:
    expected_digest = folder_digest(weights_folder)
    shutil.rmtree(weights_folder)
    first = run_fetch(tmp_path, make_hub(FILES))
    assert (first.returncode, expected_digest in first.stderr) == (65, True)
    second = run_fetch(tmp_path, make_hub(FILES), digest=expected_digest)
    assert second.returncode == 0, second.stderr
    assert sorted(path.name for path in weights_folder.rglob("*") if path.is_file()) == [
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:12]])
def test_a_mutable_revision_is_refused(tmp_path: Path, revision: str | None) -> None:
    run = run_fetch(tmp_path, make_hub(FILES), revision)
    assert (run.returncode, "commit of 40 digits" in run.stderr) == (65, True)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (make_hub(FILES, sha="f" * 40), "the hub answers with"),
        (make_hub(FILES, served_instead={"model.safetensors": b"other"}), "the hub says"),
        (make_hub(FILES, served_instead={"sub/config.json": b"[]"}), "the hub says"),
        (make_hub({"../x.safetensors": b"w"}), "leads out of the folder"),
        (make_hub({"pickle.bin": b"code"}), "no weights as safetensors"),
    ],
)
def test_a_download_that_differs_from_the_hub_listing_is_refused(
    tmp_path: Path, answer: Any, message: str
) -> None:
    run = run_fetch(tmp_path, answer)
    assert (run.returncode, message in run.stderr) == (65, True)


def test_a_redirect_does_not_send_the_login_to_another_host(tmp_path: Path) -> None:
    logins: list[str | None] = []
    (tmp_path / "token").write_text("secret\n")
    with record_logins(logins) as other_url:
        answer = make_hub(FILES)

        def answer_with_redirect(method: str, path: str, body: bytes) -> tuple[int, bytes]:
            return (
                (302, other_url.encode())
                if path.endswith("model.safetensors")
                else answer(method, path, body)
            )

        model_list = write_model_list(tmp_path, m={"repository": "o/m", "revision": COMMIT, "digest": None})
        with serve(answer_with_redirect) as url:
            run_models_script(
                "fetch", model_list, tmp_path / "models", HUB=url, HUB_LOGIN=str(tmp_path / "token")
            )
    assert logins == [None]


# ---------------------------------------------------------------- starting and stopping the servers


class FakeCluster:
    """Fake of the API server that `power.py` uses; the Job ends after a number of reads."""

    def __init__(self, looks: int, condition: str = "Complete", status: int = 200) -> None:
        self.replicas: list[tuple[str, int]] = []
        self.looks, self.condition, self.status = looks, condition, status
        self.failures = 2

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if method == "PATCH":
            if self.failures:
                self.failures = 0
                return 500, b"{}"
            self.replicas.append((path.split("/")[-2], json.loads(body)["spec"]["replicas"]))
            return 200, b"{}"
        self.looks -= 1
        conditions = [{"type": self.condition, "status": "True"}] if self.looks < 0 else []
        return (self.status if conditions else 200), json.dumps(
            {"status": {"conditions": conditions}}
        ).encode()


def run_power(cluster: FakeCluster, tmp_path: Path, *, stop: bool = False) -> int:
    (tmp_path / "token").write_text("t\n")
    with serve(cluster.answer) as url:
        env = {
            "DEPLOYMENTS": "a b",
            "JOB": "run",
            "NAMESPACE": "qaeval",
            "API_SERVER": url,
            "ACCOUNT": str(tmp_path),
            "PAUSE": "0.02",
        }
        process = subprocess.Popen(
            [sys.executable, POWER_SCRIPT],
            env={"PATH": os.environ["PATH"], **env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if stop:
            deadline = time.monotonic() + 20
            while len(cluster.replicas) < 2 and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
        return process.wait(timeout=30)


@pytest.mark.parametrize(("condition", "status"), [("Complete", 200), ("Failed", 200), ("Gone", 404)])
def test_the_servers_run_until_the_job_ends(tmp_path: Path, condition: str, status: int) -> None:
    cluster = FakeCluster(3, condition, status)
    assert run_power(cluster, tmp_path) == 0
    assert cluster.replicas == [("a", 1), ("b", 1), ("a", 0), ("b", 0)]


def test_a_reply_that_is_not_json_does_not_stop_the_servers(tmp_path: Path) -> None:
    cluster = FakeCluster(3)
    original_answer = cluster.answer

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        status, content = original_answer(method, path, body)
        return status, b"<html>" if method == "GET" and cluster.looks == 1 else content

    cluster.answer = answer  # type: ignore[method-assign]
    assert run_power(cluster, tmp_path) == 0
    assert cluster.looks < 0  # the Job had ended before the servers stopped


def test_the_servers_stop_on_sigterm(tmp_path: Path) -> None:
    cluster = FakeCluster(10**6)
    assert run_power(cluster, tmp_path, stop=True) == 0
    assert cluster.replicas == [("a", 1), ("b", 1), ("a", 0), ("b", 0)]


def test_a_finished_run_starts_no_server(tmp_path: Path) -> None:
    cluster = FakeCluster(0)
    assert run_power(cluster, tmp_path) == 0
    assert cluster.replicas == [("a", 0), ("b", 0)]


# ---------------------------------------------------------------- stages


def run_stage(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "qaeval.yaml"
    config.write_text("defaults: {margin: 0.05}\n")
    folder = Path(sys.executable).parent
    env = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "RESULTS": str(tmp_path),
        "CONFIG": str(config),
        "RUN": "first",
        "EVAL": "qa_pairs",
        "N": "2",
        "QAEVAL_CACHE": "off",
        **variables,
    }
    return subprocess.run(
        ["sh", SCRIPTS / "stage.sh", *arguments],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


def test_stages_produce_one_report_and_can_be_repeated(tmp_path: Path) -> None:
    for arguments in (
        ["generate", "embedded-lead"],
        ["generate", "embedded-salient"],
        ["generate", "embedded-lead"],
    ):
        run = run_stage(tmp_path, *arguments)
        assert run.returncode == 0, run.stderr
    run = run_stage(tmp_path, "grade", "embedded-lexical")
    assert run.returncode == 0, run.stderr
    assert "embedded-lead" in run.stdout
    assert "embedded-salient" in run.stdout
    assert sorted(path.name for path in (tmp_path / "first").glob("report.*")) == [
        "report.html",
        "report.json",
        "report.md",
    ]


def test_shards_produce_one_report_and_can_be_repeated(tmp_path: Path) -> None:
    def shard(index: str) -> subprocess.CompletedProcess[str]:
        variables = {"JOB_COMPLETION_INDEX": index, "SHARDS": "2", "JUDGE": "embedded-lexical"}
        return run_stage(tmp_path, "shard", "embedded-lead", "embedded-salient", **variables)

    assert shard("0").returncode == 0
    early = run_stage(tmp_path, "merge")
    assert (early.returncode, "not committed: 1/2" in early.stderr) == (65, True), early.stderr
    for index in ("1", "0"):
        run = shard(index)
        assert run.returncode == 0, run.stderr
    for _ in ("once", "and again"):
        run = run_stage(tmp_path, "merge")
        assert run.returncode == 0, run.stderr
    assert "embedded-salient" in run.stdout
    assert (tmp_path / "first" / "report.html").is_file()
    assert len((tmp_path / "first" / "merged" / "generations.jsonl").read_text().splitlines()) == 4


def test_a_stage_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    assert run_stage(tmp_path, "grades").returncode == 64


def test_the_commands_and_options_of_the_stage_script_exist() -> None:
    from typer.main import get_command  # noqa: PLC0415

    from qaeval.cli.app import app  # noqa: PLC0415 - slow to import

    known_commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    text = re.sub(r"(?m)^#.*$", "", (SCRIPTS / "stage.sh").read_text())
    commands = set(re.findall(r"qaeval (\w+) ", text))
    options = {
        option
        for command in known_commands.values()
        for parameter in command.params
        for option in parameter.opts
    }
    assert commands <= set(known_commands)
    assert set(re.findall(r"(?<=\s)--[a-z-]+", text)) <= options


# ---------------------------------------------------------------- releasing stages

KUBECTL = """#!/bin/sh
echo "$*" >>"$LOG"
case "$*" in
*"get jobs"*) printf 'job.batch/stage-2-b\\njob.batch/stage-1-a\\n' ;;
*patch*) ;;
*stage-1-a*) eval "$FIRST" ;;
*) printf 'stage-2-b\\nComplete\\n' ;;
esac
"""


FAIL_ONCE = '[ "$(grep -c "get job.batch/stage-1-a" "$LOG")" = 1 ] && exit 1; '


@pytest.mark.parametrize(
    ("first", "code", "released", "message"),
    [
        ("printf 'stage-1-a\\nSuspended\\nComplete\\n'", 0, ["stage-1-a", "stage-2-b"], ""),
        ("printf 'stage-1-a\\nSuspended\\nFailed\\n'", 1, ["stage-1-a"], "stage-1-a failed"),
        (f"{FAIL_ONCE} printf 'stage-1-a\\nComplete\\n'", 0, ["stage-1-a", "stage-2-b"], ""),
        ("exit 1", 69, ["stage-1-a"], "kubectl failed 6 times in a row"),
        ("exit 0", 66, ["stage-1-a"], "deleted"),
    ],
    ids=["complete", "failed", "one failure of kubectl", "failures of kubectl", "deleted"],
)
def test_a_stage_is_released_when_the_previous_one_is_complete(
    tmp_path: Path, first: str, code: int, released: list[str], message: str
) -> None:
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    log = tmp_path / "log"
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log), "FIRST": first, "PAUSE": "0"}
    run = subprocess.run(
        ["sh", K8S / "run-stages.sh"], env=env, capture_output=True, text=True, timeout=20, check=False
    )
    assert run.returncode == code, run.stderr
    assert re.findall(r"patch job.batch/(\S+)", log.read_text()) == released
    assert message in run.stderr


def test_a_failed_listing_is_not_reported_as_no_stages(tmp_path: Path) -> None:
    (tmp_path / "kubectl").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "kubectl").chmod(0o755)
    run = subprocess.run(
        ["sh", K8S / "run-stages.sh"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (run.returncode, run.stderr) == (1, "")
