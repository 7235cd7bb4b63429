"""Every command that takes a URL or an s3:// address, traced: it connects to what it was given, on this machine, and to nothing else.

The process has a library preloaded that records each lookup and each connection, in C, below Python and every client. Servers are
given by address; by a name that leads outside from one lookup more than the guard makes; by a name that leads outside from the second
lookup, where the guard makes several (one before a run and one before each stage); by a name outside. The environment names a proxy.
"""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from typer.main import get_command

from qaeval.cli.app import app
from replay.server import LoopbackServer
from sharding import KEYS, s3_server
from tracking_server import tracking_server

MODELS: Final = ("mistral-v0.3", "qwen2.5", "selene")
PROXY: Final = "http://proxy.example:3128"
PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
SMALL: Final = ("--n", "2", "--yes", "--no-cache")

pytestmark = [pytest.mark.timeout(1200), pytest.mark.filterwarnings("default")]


@dataclass(frozen=True)
class Trace:
    """What a process did.

    Attributes:
        code: Exit code.
        lookups: Names that it looked up, in order; addresses are no names.
        destinations: Address and port of each connection or datagram.
        errors: What it wrote to stderr.
    """

    code: int
    lookups: list[str]
    destinations: list[tuple[str, int]]
    errors: str

    @property
    def outside(self) -> list[tuple[str, int]]:
        return [(address, port) for address, port in self.destinations if not address.startswith("127.")]


def host(name: str) -> str:
    """Return the first part of a server's name."""
    return name.replace(".", "-")


class Servers:
    """Servers on this machine, each under a URL of a kind: ``127.0.0.1``, ``*.internal`` or ``*.example``."""

    def __init__(self, models: LoopbackServer, store: str, tracking: str) -> None:
        self._urls = {**dict.fromkeys((*MODELS, "replica"), models.url), "store": store, "tracking": tracking}

    def url(self, name: str, kind: str) -> str:
        """Return the URL of a server, under a name of its own."""
        return self._urls[name].replace(
            "127.0.0.1", "127.0.0.1" if kind == "address" else f"{host(name)}.{kind}"
        )

    def ports(self, *names: str) -> set[int]:
        return {urlsplit(self._urls[name]).port or 0 for name in names}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("resolver") / "libhostileresolver.so"
    source = Path(__file__).with_name("hostile_resolver.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True
    )
    return library


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        models = stack.enter_context(LoopbackServer(MODELS))
        store, tracking = stack.enter_context(s3_server()), stack.enter_context(tracking_server())
        yield Servers(models, store, tracking.url)


@pytest.fixture(scope="module")
def prepared(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with documents, a run, generations alone, the same graded by `selene`; in the store the run and its shards."""
    folder = tmp_path_factory.mktemp("prepared")
    environment = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": servers.url("store", "address")}
    embedded = ("embedded-lead", "embedded-salient", *SMALL)
    for words in (
        ("compare", *embedded, "--out", "results/run"),
        ("generate", *embedded, "--out", "generated"),
        ("compare", *embedded, "--out", "s3://results/shards", "--shard", "0/1"),
        ("grade", "graded", "--judge", "selene", *SMALL[2:], *endpoints(servers, "address", "selene")),
    ):
        if words[0] == "grade":
            shutil.copytree(folder / "generated", folder / "graded")
        done = [sys.executable, "-m", "qaeval", *words]
        subprocess.run(done, check=True, cwd=folder, env=environment, capture_output=True)
    upload(folder / RUN, servers.url("store", "address"))
    (folder / "docs").mkdir()
    (folder / "docs" / "a.md").write_text(
        "# Valves\n\n![plan](http://images.example/plan.png)\n\n" + "Valve 7 opens at 9 bar. " * 40
    )
    (folder / "docs" / "b.html").write_text(
        '<html><base href="http://base.example/"><link rel="stylesheet" href="style.css"><body><h1>Valves</h1>'
        f"<script src='http://scripts.example/a.js'></script><p>{'Valve 8 opens at 8 bar. ' * 40}</p></body></html>"
    )
    return folder


def upload(run: Path, store: str) -> None:
    """Copy a run to ``s3://results/run``."""
    import boto3  # noqa: PLC0415 - slow to import

    client = boto3.client(
        "s3",
        endpoint_url=store,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    for path in run.rglob("*"):
        if path.is_file():
            client.put_object(Bucket="results", Key=f"run/{path.relative_to(run)}", Body=path.read_bytes())
    client.close()


def endpoints(servers: Servers, kind: str, *names: str) -> tuple[str, ...]:
    return tuple(word for name in names for word in ("--endpoint", f"{name}={servers.url(name, kind)}"))


@dataclass(frozen=True)
class Command:
    """A command that takes a URL.

    Attributes:
        words: Its words for a kind of URL.
        asks: Servers that it must reach, and how often it looks each of them up, every time through the guard.
        codes: Exit codes where the servers may be asked.
        refused: Exit code where they are outside.
    """

    words: Callable[[Servers, str], tuple[str, ...]]
    asks: dict[str, int]
    codes: tuple[int, ...] = (0,)
    refused: int = 69


RUN: Final = "results/run"
COMMANDS: Final = {
    "compare": Command(
        lambda servers, kind: (
            "compare",
            *MODELS[:2],
            "--judge",
            "selene",
            *SMALL,
            "--out",
            "new",
            *endpoints(servers, kind, *MODELS),
        ),
        {MODELS[0]: 2, MODELS[1]: 2, "selene": 3},
    ),
    "compare, two replicas": Command(
        lambda servers, kind: (
            *("compare", MODELS[0], "--judge", "selene", *SMALL, "--out", "new"),
            *("--endpoint", f"{MODELS[0]}={servers.url(MODELS[0], kind)},{servers.url('replica', kind)}"),
            *endpoints(servers, kind, "selene"),
        ),
        {MODELS[0]: 2, "replica": 2, "selene": 3},
    ),
    "generate": Command(
        lambda servers, kind: (
            "generate",
            MODELS[0],
            *SMALL,
            "--out",
            "new",
            *endpoints(servers, kind, MODELS[0]),
        ),
        {MODELS[0]: 2},
    ),
    "grade": Command(
        lambda servers, kind: (
            *("grade", "generated", "--judge", "selene", "--yes", "--no-cache"),
            *endpoints(servers, kind, "selene"),
        ),
        {"selene": 2},
    ),
    "gate --sequential": Command(
        lambda servers, kind: (
            *("gate", "generated", "--baseline", "graded", "--sequential", "--judge", "selene", "--no-cache"),
            *endpoints(servers, kind, "selene"),
            *("--link", "http://report.example/run", "--comment", "comment.md"),
        ),
        {"selene": 2},
        codes=(0, 1, 2, 3),
    ),
    "audit": Command(
        lambda servers, kind: (
            "audit",
            "selene",
            "--n",
            "10",
            "--out",
            "new",
            *endpoints(servers, kind, "selene"),
        ),
        {"selene": 2},
        codes=(0, 2, 3),
    ),
    "certify": Command(
        lambda servers, kind: (
            *(
                "certify",
                "selene",
                "--eval",
                "rag_qa",
                "--raters",
                "any",
                "--work",
                "new",
                "--out",
                "certificate.json",
            ),
            *endpoints(servers, kind, "selene"),
        ),
        {"selene": 1},
        codes=(0, 2, 3),
    ),
    "label --model": Command(
        lambda servers, kind: (
            *("label", RUN, "--model", MODELS[0], "--n", "3", "--by", "random"),
            *endpoints(servers, kind, MODELS[0]),
        ),
        {MODELS[0]: 1},
    ),
    "sweep": Command(
        lambda servers, kind: (
            *("sweep", MODELS[0], "--n", "2", "--concurrency", "1", "--requests", "2", "--repeats", "1"),
            *("--out", "new", *endpoints(servers, kind, MODELS[0])),
        ),
        {MODELS[0]: 1},
    ),
    "doctor": Command(
        lambda *_: ("doctor", *MODELS[:2], "--judge", "selene", "--n", "2"), dict.fromkeys(MODELS, 2)
    ),
    "models": Command(lambda *_: ("models",), {}, refused=0),
    "init": Command(
        lambda servers, kind: (
            *("init", "project", "--documents", "docs", "--yes"),
            *endpoints(servers, kind, MODELS[0], "selene"),
        ),
        {MODELS[0]: 1, "selene": 1},
    ),
    "history --push": Command(
        lambda servers, kind: ("history", "results", "--mlflow", servers.url("tracking", kind), "--push"),
        {"tracking": 1},
    ),
    "history --mlflow": Command(
        lambda servers, kind: ("history", "--mlflow", servers.url("tracking", kind), "--out", "history.html"),
        {"tracking": 1},
    ),
    "compare --shard to s3://": Command(
        lambda _, kind: (
            *("compare", "embedded-lead", *SMALL, "--out", f"s3://results/{kind}/new", "--shard", "0/1"),
        ),
        {"store": 1},
    ),
    "merge from s3://": Command(lambda *_: ("merge", "s3://results/shards", "--out", "merged"), {"store": 1}),
    "merge to s3://": Command(
        lambda _, kind: ("merge", "s3://results/shards", "--out", f"s3://results/{kind}/merged"),
        {"store": 2},
    ),
    "gate --baseline s3://": Command(
        lambda *_: ("gate", RUN, "--baseline", "s3://results/run"), {"store": 1}, codes=(0, 2, 3)
    ),
    "baseline set s3://": Command(
        lambda *_: ("baseline", "set", "s3://results/run", "--out", "baseline.json"), {"store": 1}
    ),
    "chunk of documents with links": Command(
        lambda *_: ("chunk", "docs", "--out", "chunks.jsonl"), {}, refused=0
    ),
}


@pytest.fixture
def traced(
    library: Path, prepared: Path, servers: Servers, tmp_path: Path
) -> Callable[[Command, str], Trace]:
    """Run a command in a copy of the prepared folder, whose registry has the URLs of a kind too."""

    def trace(command: Command, kind: str) -> Trace:
        folder = shutil.copytree(prepared, tmp_path / "folder")
        lookups = command.asks if kind == "internal" else {}
        kind = "internal" if kind == "turning" else kind
        entries = {
            name: f"{{url: '{servers.url(name, kind)}', gpu_metrics: '{servers.url(name, kind)[:-3]}/metrics'}}"
            for name in MODELS
        }
        registry = [f"models: {{{', '.join(f'{name}: {entries[name]}' for name in MODELS[:2])}}}"]
        registry += [f"judges: {{selene: {entries['selene']}}}"]
        words = command.words(servers, kind)
        if words[0] in {"doctor", "models"}:
            (folder / "qaeval.yaml").write_text("\n".join(registry) + "\n")
        log = tmp_path / "trace"
        log.touch()
        done = subprocess.run(
            [sys.executable, "-m", "qaeval", *words],
            check=False,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=600,
            env={
                **os.environ,
                **KEYS,
                "AWS_ENDPOINT_URL": servers.url("store", kind),
                "QAEVAL_SHARDS": str(tmp_path / "shards"),
                "LD_PRELOAD": str(library),
                "TRACE": str(log),
                "INSIDE": "".join(f"{host(name)}.internal={count} " for name, count in lookups.items()),
                # nothing may go to a proxy that the environment names
                **dict.fromkeys(PROXIES, PROXY),
            },
        )
        lines = [line.split() for line in log.read_text().splitlines()]
        return Trace(
            done.returncode,
            [name for what, name, *_ in lines if what == "lookup" and not name[0].isdigit()],
            [(rest[0], int(rest[1])) for what, *rest in lines if what != "lookup"],
            done.stderr + done.stdout,
        )

    return trace


def commands_with_urls() -> set[str]:
    """Return the commands whose help has a URL or an ``s3://`` address."""

    def walk(command: Any, *words: str) -> Iterator[str]:
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, *words, name)
        texts = [f"{option.metavar} {getattr(option, 'help', '')}" for option in command.params]
        if any("URL" in text or "s3://" in text for text in texts):
            yield " ".join(words)

    return {*walk(get_command(app))}


def test_every_command_that_takes_a_url_is_traced(servers: Servers) -> None:
    traced = {" ".join(command.words(servers, "address")[:2]) for command in COMMANDS.values()}
    assert {
        name
        for name in commands_with_urls()
        if not any(f"{words} ".startswith(f"{name} ") for words in traced)
    } == set()


@pytest.mark.parametrize("kind", ["address", "internal"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_connects_to_its_servers_alone(
    name: str,
    kind: str,
    traced: Callable[[Command, str], Trace],
    servers: Servers,
    figures: Callable[..., None],
) -> None:
    command = COMMANDS[name]
    trace = traced(command, kind)
    assert trace.outside == [], trace.errors
    assert trace.code in command.codes, trace.errors
    assert {port for _, port in trace.destinations} == servers.ports(*command.asks)
    guarded = {f"{host(server)}.internal": count for server, count in command.asks.items()}
    assert Counter(trace.lookups) == ({} if kind == "address" else guarded), trace.errors
    figures(f"`{name}`", kind, len(trace.destinations), len(trace.lookups), 0, table="connections")


@pytest.mark.parametrize(
    "name", [name for name, command in COMMANDS.items() if max(command.asks.values(), default=0) > 1]
)
def test_a_server_whose_name_leads_outside_during_the_command_is_not_followed(
    name: str, traced: Callable[[Command, str], Trace], figures: Callable[..., None]
) -> None:
    command = COMMANDS[name]
    trace = traced(command, "turning")
    assert trace.outside == [], trace.errors
    assert trace.code in {*command.codes, command.refused}, trace.errors
    assert max(Counter(trace.lookups).values()) > 1, "the name has to lead outside"
    figures(f"`{name}`", "turning", len(trace.destinations), len(trace.lookups), 0, table="connections")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_with_a_host_outside_connects_nowhere(
    name: str, traced: Callable[[Command, str], Trace], figures: Callable[..., None]
) -> None:
    command = COMMANDS[name]
    trace = traced(command, "example")
    assert trace.destinations == [], trace.errors
    assert trace.code == command.refused, trace.errors
    assert {*trace.lookups} <= {f"{host(server)}.example" for server in command.asks}
    figures(f"`{name}`", "outside", 0, len(trace.lookups), 0, table="connections")
