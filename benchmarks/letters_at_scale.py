"""Compare candidates by the letters of ten million items in Parquet: seconds and memory.

    python benchmarks/letters_at_scale.py [--rows 10000000]

The rows are generated: three items of each chunk for two candidates, in files of half a million rows, with the columns
of `qaeval export --to parquet` and texts of the usual length. Files are written to a temporary folder; the process that
counts is another one than the one that writes, so that its peak memory is its own.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qaeval.report.numbers import difference, p_value, rate

_FILE = 500_000
_LETTERS = ("A", "B", "C")


def write(folder: Path, n_rows: int) -> None:
    """Write generated items."""
    rng = np.random.default_rng(1)

    def text(prefix: str, numbers: pa.Array) -> pa.Array:
        return pc.binary_join_element_wise(prefix, numbers.cast(pa.string()), "")

    for start in range(0, n_rows, _FILE):
        number = np.arange(start, min(start + _FILE, n_rows))
        letter = rng.choice(len(_LETTERS) + 1, len(number), p=[0.6, 0.25, 0.13, 0.02])
        table = {
            "candidate": pa.array(np.array(["mistral", "qwen"], dtype=object)[number // 3 % 2]),
            "chunk_id": text("manual-2026/section-", pa.array(number // 6)),
            "item_id": text("item-", pa.array(number)),
            "position": number % 3,
            "letter": pa.array(np.array([*_LETTERS, None], dtype=object)[letter]),
            "question": text("At which pressure does the valve open, and what is logged? ", pa.array(number)),
            "answer": text(
                "It opens at the pressure of its section; the operator logs it. ", pa.array(number)
            ),
        }
        pq.write_table(pa.table(table), folder / f"{start:09}.parquet")


def count(folder: Path) -> None:
    """Count them, and print what it took."""
    from qaeval.comparison.items_at_scale import count_items  # noqa: PLC0415 - part of what is measured

    started = time.perf_counter()
    counts = count_items([folder], _LETTERS, items_per_sample=3, margin=0.05)
    seconds, cpu = time.perf_counter() - started, time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    for candidate in counts.candidates:
        print(
            f"{candidate.candidate}: {candidate.n_items:,} items of {candidate.n_chunks:,} chunks, usable {rate(candidate.usable)}"
        )
    for pair in counts.differences:
        print(f"{pair.b} - {pair.a}: {difference(pair.difference)}, {p_value(pair.p)}")
    n_rows = sum(candidate.n_items for candidate in counts.candidates)
    print(f"{n_rows:,} rows: {seconds:.1f} s ({cpu:.1f} s CPU), peak {peak:.2f} GiB")


def main() -> None:
    """Write, then count in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--count", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.count:
        count(arguments.count)
        return
    with TemporaryDirectory() as folder:
        write(Path(folder), arguments.rows)
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1024**3
        print(f"{arguments.rows:,} rows, {size:.2f} GiB of Parquet")
        subprocess.run([sys.executable, __file__, "--count", folder], check=True)


if __name__ == "__main__":
    main()
