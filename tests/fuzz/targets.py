"""Fuzz targets: each may reject arbitrary bytes only with its own documented errors."""

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from qaeval.agreement.label_files import read_labels
from qaeval.chat.protocol import ChatError
from qaeval.chat.reply import ReplyError, extract_json
from qaeval.chat.wire import TransientError, is_overflow, read_completion, retry_after_s, server_message
from qaeval.checks.claims import load_facts
from qaeval.corpus.chunking import chunk_documents, words_counter
from qaeval.corpus.loading import load_chunks
from qaeval.corpus.reading import read_document
from qaeval.corpus.samples import load_cards, load_questions
from qaeval.errors import QaevalError
from qaeval.evals.definition import EvalDefinition, load_eval
from qaeval.evals.find import data_root
from qaeval.evals.rubric import Rubric, load_rubric
from qaeval.files.rows import Finished, LastRows, ReplyIndex
from qaeval.gate.baseline import parse_baseline
from qaeval.gate.policy import read_policy
from qaeval.importing.entries import EntryReader
from qaeval.importing.reading import read_source
from qaeval.records import Chunk, GenerateRow, Sample, digest
from qaeval.registry.config import load_config
from qaeval.run import grade
from qaeval.run.items import read_items
from qaeval.serving.gpus import NotMeteredError, read_exporter
from qaeval.serving.metrics import read_metrics

ROOT: Final = data_root()
SAMPLE: Final = Sample.of(Chunk(chunk_id="c", text="The server listens on port 8000."))
_FOLDER: Final = Path(tempfile.mkdtemp(prefix="qaeval-fuzz-"))


@cache
def _rubric() -> Rubric:
    return load_rubric(ROOT / "rubrics" / "qa_pair_abc.yaml")


@cache
def _eval(name: str) -> EvalDefinition:
    return load_eval(ROOT / "evals" / name)


def _file(data: bytes, name: str) -> Path:
    path = _FOLDER / name
    path.write_bytes(data)
    return path


def reply(data: bytes) -> None:
    """Parse the text of a model's reply: JSON, items, a letter."""
    text = data.decode(errors="surrogateescape")
    for lenient in (False, True):
        for parse in (
            extract_json,
            lambda text, lenient: read_items(text, SAMPLE, _eval("qa_pairs"), lenient=lenient),
            lambda text, lenient: read_items(text, SAMPLE, _eval("rag_qa"), lenient=lenient),
            lambda text, lenient: read_items(text, SAMPLE, _eval("dpo_pairs"), lenient=lenient),
            lambda text, lenient: grade.parse_reply(
                text, _rubric(), lenient=lenient, shown=(text[:80], text)
            ),
        ):
            try:
                parse(text, lenient=lenient)
            except ReplyError as error:
                assert error.reason
                assert error.detail


def completion(data: bytes) -> None:
    """Parse the body of a server's response."""
    expected = (
        TransientError,
        ChatError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    )  # by `HttpChat`
    with suppress(*expected):
        read_completion(data, latency_s=0.0, max_tokens=8, pattern=grade._LETTER)
    server_message(data, secret="secret")  # noqa: S106 - made up
    is_overflow(data)
    retry_after_s(
        {"Retry-After": data[:40].decode(errors="replace"), "Date": data[40:80].decode(errors="replace")}
    )


def rows(data: bytes) -> None:
    """Read files of rows damaged by a crash, an editor or another program."""
    path = _file(data, "rows.jsonl")
    for read_file in (
        lambda: len(Finished.read(path)),
        lambda: ReplyIndex(path).__exit__(None, None, None),
        lambda: list(LastRows(path, generate_row)),
        lambda: read_labels(path),
        lambda: load_chunks(path),
        lambda: read_labels(_file(data, "labels.csv")),
    ):
        try:
            read_file()
        except QaevalError as error:
            assert str(path.parent) in str(error)


def generate_row(line: bytes) -> object:
    """Read one row of the generate stage."""
    from pydantic import TypeAdapter  # noqa: PLC0415 - one use

    return TypeAdapter(GenerateRow).validate_json(line)


def files(data: bytes) -> None:
    """Load rubrics, registries and evals."""
    path = _file(data, "file.yaml")
    folder = _FOLDER / "eval"
    folder.mkdir(exist_ok=True)
    (folder / "eval.yaml").write_bytes(data)
    for load in (
        lambda: load_rubric(path),
        lambda: load_config(_file(b"models: {qwen: {url: 'http://127.0.0.1:8000/v1'}}\n", "base.yaml"), path),
        lambda: load_eval(folder),
    ):
        try:
            load()
        except QaevalError as error:
            assert str(_FOLDER) in str(error)


def documents(data: bytes) -> None:
    """Read documents of every format and split them into chunks: ids are unique and no chunk is blank."""
    for suffix in (".md", ".html", ".txt", ".pdf"):
        path = _file(data, f"document{suffix}")
        try:
            chunks = list(chunk_documents([read_document(path)], size=20, overlap=5, count=words_counter()))
        except QaevalError as error:
            assert str(path) in str(error)
        else:
            assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)
            assert all(chunk.text.strip() for chunk in chunks)


def samples(data: bytes) -> None:
    """Load questions, topic cards and the facts that claims are compared with."""
    path = _file(data, "samples.jsonl")
    chunk = Chunk(chunk_id="c", text="The server listens on port 8000.")
    for load in (
        lambda: [sample.model_dump_json() for sample in load_questions(path, (chunk,), _eval("rag_qa"))],
        lambda: [sample.model_dump_json() for sample in load_cards(path, _eval("dpo_pairs"))],
        lambda: load_facts(path),
    ):
        try:
            load()
        except QaevalError as error:
            assert str(path) in str(error)


def imports(data: bytes) -> None:
    """Import files of external items: items, raw replies, errors and letters."""
    reader = EntryReader(
        "qa_pair",
        eval_name="qa_pairs",
        rubric=_rubric(),
        fields={},
        letter_columns=("letter",),
    )
    for suffix in (".jsonl", ".json", ".csv"):
        path = _file(data, f"items{suffix}")
        try:
            for row in read_source(path):
                assert list(reader.columns_of(row)) or not row[1]
                reader.read(row)
        except QaevalError as error:
            assert path.name in str(error)


def gates(data: bytes) -> None:
    """Read policies and baselines; the hash of a baseline is recomputed so that parsing goes past the hash check."""
    path = _file(data, "gate.yaml")
    for read_file in (lambda: read_policy(path), lambda: parse_baseline(_with_fixed_hash(data), path)):
        try:
            read_file()
        except QaevalError as error:
            assert str(path) in str(error)


def _with_fixed_hash(data: bytes) -> bytes:
    try:
        document = json.loads(data)
        return json.dumps({**document, "sha256": digest(document["evidence"])}).encode()
    except (ValueError, TypeError, LookupError, RecursionError):
        return data


def metrics(data: bytes) -> None:
    """Parse the ``/metrics`` of a server and of a GPU exporter."""
    text = data.decode(errors="replace")
    with suppress(ValueError):  # by `Scraper`
        read_metrics(text)
    with suppress(ValueError, NotMeteredError):  # by the exporter's meter
        read_exporter(text, {})


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "reply": reply,
    "completion": completion,
    "rows": rows,
    "files": files,
    "documents": documents,
    "samples": samples,
    "imports": imports,
    "gates": gates,
    "metrics": metrics,
}
