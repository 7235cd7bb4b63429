"""The mock server in C as a context manager, and runs that wait to be graded by it."""

import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qaeval.corpus.sampling import sample_set_digest
from qaeval.evals.definition import load_eval
from qaeval.evals.find import data_root
from qaeval.records import Chunk, Generation, Item, Sample
from qaeval.run.generate import task_id

HERE = Path(__file__).parent
REPLY = (
    '{"reason": "The answer says what the source says about the valve, gives the threshold and the order of the steps, and adds '
    "nothing that the source does not say. One qualifier of the source is missing, but a reader would still act correctly. The "
    'question can be answered from the source alone, and the wording is clear.", "hallucination": false, "letter": "@", "flaw": "none"}'
)
"""What the mock's judge says; as long as a real judge's reason."""
LETTER_REPLY = '{"hallucination": false, "letter": "@", "flaw": "none"}'
"""What it says where the letter alone is asked for."""


def build_mock() -> Path:
    """Compile the mock where it is older than its source, and return its path."""
    source, built = HERE / "mockvllm.c", HERE / "build" / "mockvllm"
    if not built.exists() or built.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if not compiler:
            raise SystemExit("the mock server needs a C compiler (Debian: apt-get install gcc libc6-dev)")
        built.parent.mkdir(exist_ok=True)
        ours = built.with_suffix(f".{os.getpid()}")  # several workers may compile at once
        subprocess.run([compiler, "-O2", "-o", ours, source, "-lm"], check=True)
        ours.replace(built)
    return built


class Mock:
    """A mock server on a port of its own; a context manager.

    Args:
        port: 0 takes a free one.
        options: Of mockvllm, without the dashes; ``_`` stands for ``-``.
    """

    def __init__(self, port: int = 0, **options: Any) -> None:
        self._asked_port = port
        self._options = [
            word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))
        ]

    def __enter__(self) -> Self:
        command = [
            build_mock(),
            "--port",
            str(self._asked_port),
            "--model",
            "bench",
            "--reply",
            REPLY,
            *self._options,
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()

    @property
    def url(self) -> str:
        """Base URL, with ``/v1``."""
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> dict[str, Any]:
        """Return what the server counted."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats", timeout=5) as reply:
            counted: dict[str, Any] = json.load(reply)
        return counted


def ideal_s(n: int, **options: Any) -> float:
    """Seconds that the slots alone impose on so many requests."""
    arguments = [
        word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    done = subprocess.run(
        [build_mock(), *arguments, "--simulate", str(n)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


# ---------------------------------------------------------------------------- work

_WORDS = [
    "pressure",
    "valve",
    "gauge",
    "operator",
    "retry",
    "section",
    "threshold",
    "sequence",
    "reading",
    "log",
    "second",
    "minute",
    "manual",
    "requires",
    "records",
    "waits",
    "opens",
    "closes",
    "primary",
    "backup",
    "circuit",
    "sensor",
    "alarm",
    "reset",
    "cycle",
    "coolant",
    "pump",
    "inlet",
    "outlet",
    "supervisor",
    "shift",
    "inspection",
]


def sentence(number: int, n_words: int) -> str:
    picked = (_WORDS[(number * 31 + index * index * 7 + index) % len(_WORDS)] for index in range(n_words))
    return f"{' '.join(picked).capitalize()} {number}."


def sample_of(number: int) -> Sample:
    text = " ".join(sentence(number * 8 + index, 18) for index in range(8))
    return Sample.of(Chunk(chunk_id=f"c{number:07}", text=text, stratum=f"s{number % 5}"))


def reply_to(sample: Sample, number: int) -> Generation:
    items = tuple(
        Item.of(
            sample.sample_id,
            index,
            type="factual",
            question=sentence(number * 3 + index, 14)[:-1] + "?",
            answer=sentence(number * 5 + index, 30),
        )
        for index in range(3)
    )
    return Generation(
        task_id=task_id("writer", sample.sample_id),
        candidate="writer",
        sample_id=sample.sample_id,
        items=items,
        text="{}",
        latency_s=1.0,
    )


def prepare_run(folder: Path, n_items: int) -> Path:
    """Write a run that waits to be graded: so many items, three of a chunk."""
    n = -(-n_items // 3)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    digests: list[Sample] = []
    with (folder / "samples.jsonl").open("w") as samples, (folder / "generations.jsonl").open("w") as replies:
        for number in range(n):
            sample = sample_of(number)
            samples.write(sample.model_dump_json() + "\n")
            replies.write(reply_to(sample, number).model_dump_json(exclude_none=True) + "\n")
            digests.append(Sample(sample_id=sample.sample_id, chunk=Chunk(chunk_id="c", text="t")))
    definition = load_eval(data_root() / "evals" / "qa_pairs")
    settings = {
        "format": 1,
        "eval": {**definition.model_dump(mode="json"), "digest": definition.digest},
        "sample_set": {"n": n, "seed": 0, "digest": sample_set_digest(digests)},
        "candidates": {"writer": {"kind": "server", "hf_id": "bench/writer", "sampling": {}}},
        "grading": None,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


def registry(folder: Path) -> Path:
    """Write a registry with a writer that is never asked and the mock as judge."""
    return _registry(folder, "structured: off", "cache: false, outage_s: 60")


def user_registry(folder: Path, mode: str) -> Path:
    """Write a registry as users have it: a pinned judge, its schema enforced, replies in the cache."""
    return _registry(folder, f"hf_id: bench/judge, revision: {'ab' * 20}, judge_mode: {mode}", "outage_s: 60")


def _registry(folder: Path, judge: str, defaults: str) -> Path:
    path = folder / "bench.yaml"
    path.write_text(
        "models: {writer: {url: 'http://127.0.0.1:9/v1'}}\n"
        f"judges: {{bench: {{url: 'http://127.0.0.1:9/v1', served_name: bench, {judge}}}}}\n"
        f"defaults: {{{defaults}}}\n"
    )
    return path
