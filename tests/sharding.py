"""What tests of shards have in common: runs in shards, their rows in one order, a store on loopback."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

ROWS = ("settings.json", "samples.jsonl", "generations.jsonl", "grades.jsonl")
KEYS = {"AWS_ACCESS_KEY_ID": "key-of-a-test", "AWS_SECRET_ACCESS_KEY": "secret-of-a-test"}


def _timeless(line: bytes) -> bytes:
    return re.sub(rb'"latency_s":[0-9.e-]+', b'"latency_s":0', line)


def rows_of(run: Path) -> dict[str, list[bytes]]:
    """The lines of a run's files, byte by byte but for what a clock measured."""
    return {name: [*map(_timeless, (run / name).read_bytes().splitlines())] for name in ROWS}


def in_order(rows: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
    """The lines of a run that was made in one, the last of each task, as a merge orders them."""
    settings = json.loads(b"\n".join(rows["settings.json"]))
    samples = [json.loads(line)["sample_id"] for line in rows["samples.jsonl"]]
    by_task = {json.loads(line)["task_id"]: line for line in rows["generations.jsonl"]}
    grid = {}
    for line in by_task.values():
        row = json.loads(line)
        grid[row["sample_id"], row.get("candidate") or row["model"]] = line
    generations = [grid[sample, name] for sample in samples for name in settings["candidates"]]
    items = dict.fromkeys(
        item["item_id"] for line in generations for item in json.loads(line).get("items", [])
    )
    grades = {json.loads(line)["item_id"]: line for line in rows["grades.jsonl"]}
    assert len(grades) == len(items)
    return {**rows, "generations.jsonl": generations, "grades.jsonl": [grades[item] for item in items]}


@contextmanager
def s3_server(bucket: str = "results") -> Iterator[str]:
    """An S3 server on loopback with one bucket; gives its URL."""
    import boto3  # noqa: PLC0415 - slow to import
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=bucket)
        client.close()
        yield url
    finally:
        server.stop()


@dataclass
class Answer:
    """What a store says to one request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def error(cls, status: int, code: str, message: str = "no", details: str = "") -> "Answer":
        """An error as S3 words it."""
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{details}</Error>"
        return cls(status, {"Content-Type": "application/xml"}, body.encode())


@dataclass(frozen=True)
class Asked:
    """A request to a store, before it goes on."""

    method: str
    path: str
    headers: dict[str, str]
    """May be changed."""


@contextmanager
def in_front_of(url: str, meddle: Callable[[Asked], Answer | None]) -> Iterator[str]:
    """A server before a store that may answer in its place; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.headers.get("Expect"):
                self.close_connection = True
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers: dict[str, str] = {
                name: value for name, value in self.headers.items() if name != "Expect"
            }
            answer = meddle(Asked(self.command, self.path, headers)) or self._asked(body, headers)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in {
                    "content-length",
                    "connection",
                    "date",
                    "server",
                    "transfer-encoding",
                }:
                    self.send_header(name, value)
            length = answer.headers.get("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_PUT = do_HEAD = do_POST = do_DELETE = do_GET  # noqa: N815 - the names are the library's

        def _asked(self, body: bytes, headers: dict[str, str]) -> Answer:
            store = HTTPConnection(urlsplit(url).netloc)
            store.request(self.command, self.path, body, headers)
            reply = store.getresponse()
            answer = Answer(reply.status, dict(reply.getheaders()), reply.read())
            store.close()
            return answer

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
