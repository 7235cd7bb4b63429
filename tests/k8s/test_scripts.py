"""The scripts that run in the pods, against servers on loopback and folders of the test."""

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
POWER = K8S / "overlays" / "l4-pair" / "power.py"


def python(script: Path, *words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script, *words],
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@contextmanager
def serving(answer: Any) -> Iterator[str]:
    """A server whose replies `answer(method, path, body)` gives as (status, bytes)."""

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
def recording(seen: list[str | None]) -> Iterator[str]:
    """A server elsewhere that notes what login it is shown."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
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


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---------------------------------------------------------------- the way out


def selftest(targets: str, name: str = "") -> subprocess.CompletedProcess[str]:
    return python(
        SCRIPTS / "egress_selftest.py",
        EGRESS_TARGETS=targets,
        EGRESS_NAME=name,
        EGRESS_PAUSE="0.01",
        EGRESS_DEADLINE="0.2",
    )


def test_the_selftest_passes_where_nothing_opens() -> None:
    assert selftest(f"127.0.0.1:{closed_port()} 127.0.0.1:{closed_port()}", "name.invalid").returncode == 0


def test_the_selftest_fails_where_one_way_is_open() -> None:
    with serving(lambda *_: (200, b"")) as url:
        run = selftest(f"127.0.0.1:{closed_port()} {url.removeprefix('http://')}")
    assert run.returncode == 1
    assert "can be reached from this pod" in run.stderr


def test_the_selftest_fails_where_a_name_can_be_looked_up() -> None:
    assert selftest(f"127.0.0.1:{closed_port()}", "localhost").returncode == 1


def test_waiting_ends_when_all_servers_are_healthy() -> None:
    with serving(lambda *_: (200, b"")) as url:
        assert python(SCRIPTS / "wait_for_servers.py", "5", f"{url}/health").returncode == 0
    run = python(SCRIPTS / "wait_for_servers.py", "0", f"{url}/health")
    assert (run.returncode, "no answer" in run.stderr) == (69, True)


def test_an_answer_that_is_no_http_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as peer:
                peer.recv(4096)
                peer.sendall(b"starting\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        run = python(
            SCRIPTS / "wait_for_servers.py", "0", f"http://127.0.0.1:{server.getsockname()[1]}/health"
        )
        thread.join()
    assert (run.returncode, "Traceback" in run.stderr) == (69, False), run.stderr


# ---------------------------------------------------------------- models


def models(*words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return python(SCRIPTS / "models.py", *words, **env)


def listing(tmp_path: Path, **entries: Any) -> Path:
    path = tmp_path / "models.json"
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "m"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "sub" / "config.json").write_bytes(b"{}")
    return folder


def test_a_folders_digest_is_that_of_its_sorted_sums(weights: Path) -> None:
    lines = sorted(
        f"{hashlib.sha256((weights / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("model.safetensors", "sub/config.json")
    )
    wanted = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert models("digest", weights.parent, "m").stdout == f"m sha256:{wanted}\n"


def digest(weights: Path) -> str:
    return models("digest", weights.parent, "m").stdout.split()[1]


def test_a_folder_with_its_digest_is_served(weights: Path, tmp_path: Path) -> None:
    assert (
        models("check", listing(tmp_path, m={"digest": digest(weights)}), weights.parent, "m").returncode == 0
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
def test_a_folder_that_differs_in_anything_is_refused(change: Any, weights: Path, tmp_path: Path) -> None:
    listed = listing(tmp_path, m={"digest": digest(weights)})
    change(weights)
    assert models("check", listed, weights.parent, "m").returncode == 65


def test_a_folder_without_a_digest_in_the_list_is_refused_and_told(weights: Path, tmp_path: Path) -> None:
    run = models("check", listing(tmp_path, m={"digest": None}), weights.parent, "m")
    assert (run.returncode, digest(weights) in run.stderr) == (65, True)
    assert models("check", listing(tmp_path), weights.parent, "m").returncode == 65


COMMIT = "0123456789" * 4


def hub(files: dict[str, bytes], *, sha: str = COMMIT, sent: dict[str, bytes] | None = None) -> Any:
    """The two questions that a download asks, and the files; `sent` is what comes instead of what is listed."""

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
        return 200, {**files, **(sent or {})}[name]

    return answer


FILES = {"model.safetensors": b"weights", "sub/config.json": b"{}", "pickle.bin": b"code", "README.md": b"#"}


def fetch(
    tmp_path: Path, answer: Any, revision: str | None = COMMIT, digest: str | None = None
) -> subprocess.CompletedProcess[str]:
    listed = listing(tmp_path, m={"repository": "o/m", "revision": revision, "digest": digest})
    with serving(answer) as url:
        return models("fetch", listed, tmp_path / "models", HUB=url)


def test_a_download_without_a_digest_is_kept_and_told_and_refused(tmp_path: Path, weights: Path) -> None:
    wanted = digest(weights)
    shutil.rmtree(weights)
    first = fetch(tmp_path, hub(FILES))
    assert (first.returncode, wanted in first.stderr) == (65, True)
    second = fetch(tmp_path, hub(FILES), digest=wanted)
    assert second.returncode == 0, second.stderr
    assert sorted(path.name for path in weights.rglob("*") if path.is_file()) == [
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:12]])
def test_a_revision_that_can_move_is_refused(tmp_path: Path, revision: str | None) -> None:
    run = fetch(tmp_path, hub(FILES), revision)
    assert (run.returncode, "commit of 40 digits" in run.stderr) == (65, True)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (hub(FILES, sha="f" * 40), "the hub answers with"),
        (hub(FILES, sent={"model.safetensors": b"other"}), "the hub says"),
        (hub(FILES, sent={"sub/config.json": b"[]"}), "the hub says"),
        (hub({"../x.safetensors": b"w"}), "leads out of the folder"),
        (hub({"pickle.bin": b"code"}), "no weights as safetensors"),
    ],
)
def test_a_download_that_is_not_what_the_hub_lists_is_refused(tmp_path: Path, answer: Any, said: str) -> None:
    run = fetch(tmp_path, answer)
    assert (run.returncode, said in run.stderr) == (65, True)


def test_a_redirect_does_not_carry_the_login_to_another_host(tmp_path: Path) -> None:
    seen: list[str | None] = []
    (tmp_path / "token").write_text("secret\n")
    with recording(seen) as elsewhere:
        answer = hub(FILES)

        def redirected(method: str, path: str, body: bytes) -> tuple[int, bytes]:
            return (
                (302, elsewhere.encode())
                if path.endswith("model.safetensors")
                else answer(method, path, body)
            )

        listed = listing(tmp_path, m={"repository": "o/m", "revision": COMMIT, "digest": None})
        with serving(redirected) as url:
            models("fetch", listed, tmp_path / "models", HUB=url, HUB_LOGIN=str(tmp_path / "token"))
    assert seen == [None]


# ---------------------------------------------------------------- the servers' power


class Cluster:
    """The part of the API server that `power.py` asks; the Job ends when it was looked at often enough."""

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
        over = [{"type": self.condition, "status": "True"}] if self.looks < 0 else []
        return (self.status if over else 200), json.dumps({"status": {"conditions": over}}).encode()


def power(cluster: Cluster, tmp_path: Path, *, stop: bool = False) -> int:
    (tmp_path / "token").write_text("t\n")
    with serving(cluster.answer) as url:
        env = {
            "DEPLOYMENTS": "a b",
            "JOB": "run",
            "NAMESPACE": "qaeval",
            "API_SERVER": url,
            "ACCOUNT": str(tmp_path),
            "PAUSE": "0.02",
        }
        process = subprocess.Popen(
            [sys.executable, POWER],
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
def test_the_servers_run_as_long_as_the_run(tmp_path: Path, condition: str, status: int) -> None:
    cluster = Cluster(3, condition, status)
    assert power(cluster, tmp_path) == 0
    assert cluster.replicas == [("a", 1), ("b", 1), ("a", 0), ("b", 0)]


def test_a_reply_that_is_no_json_stops_no_server(tmp_path: Path) -> None:
    cluster = Cluster(3)
    asked = cluster.answer

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        status, content = asked(method, path, body)
        return status, b"<html>" if method == "GET" and cluster.looks == 1 else content

    cluster.answer = answer  # type: ignore[method-assign]
    assert power(cluster, tmp_path) == 0
    assert cluster.looks < 0  # the run was over before they stopped


def test_the_servers_stop_when_their_keeper_is_told_to(tmp_path: Path) -> None:
    cluster = Cluster(10**6)
    assert power(cluster, tmp_path, stop=True) == 0
    assert cluster.replicas == [("a", 1), ("b", 1), ("a", 0), ("b", 0)]


def test_a_run_that_is_over_starts_no_server(tmp_path: Path) -> None:
    cluster = Cluster(0)
    assert power(cluster, tmp_path) == 0
    assert cluster.replicas == [("a", 0), ("b", 0)]


# ---------------------------------------------------------------- stages


def stage(tmp_path: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
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
        **more,
    }
    return subprocess.run(
        ["sh", SCRIPTS / "stage.sh", *words],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


def test_stages_in_turns_end_in_one_report_and_can_be_repeated(tmp_path: Path) -> None:
    for words in (
        ["generate", "embedded-lead"],
        ["generate", "embedded-salient"],
        ["generate", "embedded-lead"],
    ):
        run = stage(tmp_path, *words)
        assert run.returncode == 0, run.stderr
    run = stage(tmp_path, "grade", "embedded-lexical")
    assert run.returncode == 0, run.stderr
    assert "embedded-lead" in run.stdout
    assert "embedded-salient" in run.stdout
    assert sorted(path.name for path in (tmp_path / "first").glob("report.*")) == [
        "report.html",
        "report.json",
        "report.md",
    ]


def test_shards_end_in_one_report_and_can_be_repeated(tmp_path: Path) -> None:
    def shard(index: str) -> subprocess.CompletedProcess[str]:
        of = {"JOB_COMPLETION_INDEX": index, "SHARDS": "2", "JUDGE": "embedded-lexical"}
        return stage(tmp_path, "shard", "embedded-lead", "embedded-salient", **of)

    assert shard("0").returncode == 0
    early = stage(tmp_path, "merge")
    assert (early.returncode, "not committed: 1/2" in early.stderr) == (65, True), early.stderr
    for index in ("1", "0"):
        run = shard(index)
        assert run.returncode == 0, run.stderr
    for _ in ("once", "and again"):
        run = stage(tmp_path, "merge")
        assert run.returncode == 0, run.stderr
    assert "embedded-salient" in run.stdout
    assert (tmp_path / "first" / "report.html").is_file()
    assert len((tmp_path / "first" / "merged" / "generations.jsonl").read_text().splitlines()) == 4


def test_a_stage_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    assert stage(tmp_path, "grades").returncode == 64


def test_the_commands_of_a_stage_are_qaevals() -> None:
    from typer.main import get_command  # noqa: PLC0415

    from qaeval.cli.app import app  # noqa: PLC0415 - slow to import

    known: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    text = re.sub(r"(?m)^#.*$", "", (SCRIPTS / "stage.sh").read_text())
    commands = set(re.findall(r"qaeval (\w+) ", text))
    options = {option for command in known.values() for param in command.params for option in param.opts}
    assert commands <= set(known)
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


ONCE = '[ "$(grep -c "get job.batch/stage-1-a" "$LOG")" = 1 ] && exit 1; '


@pytest.mark.parametrize(
    ("first", "code", "released", "said"),
    [
        ("printf 'stage-1-a\\nSuspended\\nComplete\\n'", 0, ["stage-1-a", "stage-2-b"], ""),
        ("printf 'stage-1-a\\nSuspended\\nFailed\\n'", 1, ["stage-1-a"], "stage-1-a failed"),
        (f"{ONCE} printf 'stage-1-a\\nComplete\\n'", 0, ["stage-1-a", "stage-2-b"], ""),
        ("exit 1", 69, ["stage-1-a"], "kubectl failed 6 times in a row"),
        ("exit 0", 66, ["stage-1-a"], "deleted"),
    ],
    ids=["complete", "failed", "one failure of kubectl", "failures of kubectl", "deleted"],
)
def test_a_stage_is_released_when_the_one_before_is_complete(
    tmp_path: Path, first: str, code: int, released: list[str], said: str
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
    assert said in run.stderr


def test_stages_that_kubectl_cannot_list_are_not_said_to_be_none(tmp_path: Path) -> None:
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
