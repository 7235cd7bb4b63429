"""Time and memory of `qaeval import` on 100,000 items in each format: python benchmarks/import_items.py [N]."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

SECONDS, MEGABYTES = 60.0, 500.0
PER_CHUNK = 3
CHUNKS = Path(__file__).parents[1] / "evals" / "qa_pairs" / "chunks.jsonl"

CHILD = """
import resource, sys, time
began = time.perf_counter()
from qaeval.cli import run
code = run(["import", *sys.argv[1:]])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{code} {time.perf_counter() - began:.1f} {time.process_time():.1f} {peak:.0f}", file=sys.stderr)
"""


def items(n: int) -> Iterator[dict[str, str]]:
    """Return numbered pairs about the texts of the eval qa_pairs, of which one in fifty failed."""
    texts = [json.loads(line)["text"] for line in CHUNKS.read_text().splitlines()]
    for number in range(n):
        chunk = number // PER_CHUNK
        text = f"Number {chunk}. {texts[chunk % len(texts)]}"
        row = {"chunk_id": f"chunk-{chunk:06d}", "chunk": text, "anna": "ABC"[number % 3]}
        if number % 50 == 0:
            yield {**row, "anna": "", "error": "timeout", "question": "", "answer": "", "type": ""}
        else:
            sentences = text.split(". ")
            answer = sentences[number % len(sentences)]
            question = f"What does number {number} say about {' '.join(answer.split()[1:4])}?"
            yield {**row, "error": "", "question": question, "answer": answer, "type": "factual"}


def write(folder: Path, n: int) -> list[Path]:
    """Write the items in each format, in parts: a child's peak of memory is at least what its parent held at the fork."""
    paths = [folder / f"items.{suffix}" for suffix in ("jsonl", "json", "parquet")]
    schema = pa.schema([(name, pa.string()) for name in next(items(1))])
    with (
        paths[0].open("w") as lines,
        paths[1].open("w") as array,
        parquet.ParquetWriter(paths[2], schema) as table,
    ):
        for number, rows in enumerate(batched(items(n), 1000)):
            texts = [json.dumps(row) for row in rows]
            lines.write("\n".join(texts) + "\n")
            array.write(("[" if number == 0 else ",") + ",".join(texts))
            table.write_table(pa.Table.from_pylist(rows, schema=schema))
        array.write("]")
    return paths


def batched(rows: Iterable[dict[str, str]], n: int) -> Iterator[list[dict[str, str]]]:
    """Yield lists of at most n rows."""
    iterator = iter(rows)
    while part := list(islice(iterator, n)):
        yield part


def main() -> int:
    """Import each file in a separate process, and print seconds and peak memory."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    within = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in write(folder, n):
            done = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    CHILD,
                    str(path),
                    "--out",
                    str(folder / path.suffix[1:]),
                    "--label-field",
                    "anna=anna",
                ],
                capture_output=True,
                text=True,
                check=True,
            )
            code, seconds, cpu, peak = done.stderr.split()[-4:]
            assert code == "0", done.stderr
            within &= float(cpu) <= SECONDS and float(peak) <= MEGABYTES
            size = path.stat().st_size / 2**20
            print(
                f"{path.suffix[1:]:8} {n:,} items, {size:.0f} MiB: {seconds} s ({cpu} s of one core), peak {peak} MiB"
            )
            print(f"         {done.stdout.splitlines()[1]}", flush=True)
    # the import works on one core: on a machine that does nothing else the clock shows the same
    print(f"bars: {SECONDS:.0f} s of one core and {MEGABYTES:.0f} MiB: {'kept' if within else 'MISSED'}")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
