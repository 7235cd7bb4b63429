"""Rows of a command in a temporary file."""

import gc
import json
import os
import resource
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qaeval.corpus.samples import load_samples
from qaeval.corpus.sampling import draw, sample_set_digest
from qaeval.evals.find import find_eval
from qaeval.files.spool import SpooledRows
from qaeval.records import Chunk, Sample

LARGE = "x" * 9000
"""Text of a chunk of which some hundred are more than is in memory."""


def sample(number: int, text: str = "Ventil öffnet\u2028bei 3 bar.") -> Sample:
    return Sample.of(Chunk(chunk_id=f"c{number}", text=text), given={"number": 0.1 + number})


def spooled(n: int, text: str = "") -> SpooledRows[Sample]:
    return SpooledRows(Sample, (sample(number, f"{number} {text}") for number in range(n)))


def test_rows_come_back_as_they_were_byte_by_byte() -> None:
    rows = [sample(number) for number in range(3)]
    spool = SpooledRows(Sample, rows)
    assert (list(spool), len(spool), spool[1], spool[-1]) == (rows, 3, rows[1], rows[2])
    assert [row.model_dump_json() for row in spool] == [row.model_dump_json() for row in rows]
    with pytest.raises(IndexError):
        spool[3]


def test_slices_and_taken_rows_are_sequences_of_the_same_file() -> None:
    spool = spooled(6)
    taken = spool.take([4, 0, 5])
    assert [row.chunk.chunk_id for row in taken] == ["c4", "c0", "c5"]
    assert [row.chunk.chunk_id for row in taken[1:]] == ["c0", "c5"]
    del spool
    gc.collect()
    assert taken[0].chunk.chunk_id == "c4", "the file stays for the last sequence"


@pytest.mark.parametrize("text", ["", LARGE], ids=["in memory", "on disk"])
def test_a_row_can_be_appended_after_others_were_read(text: str) -> None:
    spool = spooled(600, text)
    assert spool[3].chunk.chunk_id == "c3"
    spool.append(sample(600))
    assert [row.chunk.chunk_id for row in spool] == [f"c{number}" for number in range(601)]


@pytest.mark.parametrize("text", ["", LARGE], ids=["in memory", "on disk"])
def test_threads_read_the_rows_of_their_index(text: str) -> None:
    spool = spooled(600, text)

    def read(step: int) -> list[bool]:
        return [spool[index].chunk.chunk_id == f"c{index}" for index in range(0, 600, step)]

    with ThreadPoolExecutor(8) as threads:
        assert all(map(all, threads.map(read, [1, 7, 3, 11, 1, 5, 2, 13])))


def write_chunks(path: Path, n: int) -> Path:
    with path.open("w") as file:
        for number in range(n):
            row = {"id": f"c{number}", "text": f"{number} {2500 * 'x'}", "topic": f"s{number % 5}"}
            file.write(json.dumps(row) + "\n")
    return path


@pytest.mark.slow
def test_a_corpus_is_read_drawn_from_and_identified_without_being_in_memory(tmp_path: Path) -> None:
    definition, n = find_eval("qa_pairs"), 5000
    few, many = write_chunks(tmp_path / "few.jsonl", 10), write_chunks(tmp_path / "many.jsonl", n)

    def identified(path: Path) -> SpooledRows[Sample]:
        samples = draw(load_samples(definition, chunks=path), n=None, seed=0)
        sample_set_digest(samples)
        return samples

    identified(few)  # what is loaded once is no memory of samples
    tracemalloc.start()
    drawn = identified(many)
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(drawn) == n
    # pydantic keeps up to 16,384 short strings, whatever the number of samples
    assert (held - 1.5e6) / n < 20
    # the file is in memory up to 4 MB, and copied once as it goes to disk; ids and strata are held until the draw
    assert (most - 10e6) / n < 400


def test_a_full_temporary_folder_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    script = (
        "from qaeval.errors import StoreError\n"
        "from qaeval.files.spool import SpooledRows\n"
        "from qaeval.records import Chunk, Sample\n"
        "rows = SpooledRows(Sample)\n"
        "try:\n"
        "    for number in range(1000):\n"
        f"        rows.append(Sample.of(Chunk(chunk_id=str(number), text={LARGE!r})))\n"
        "except StoreError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(
        "the temporary folder (TMPDIR): writing failed: File too large; raise the file size"
    )
