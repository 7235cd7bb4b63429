"""What `qaeval export` takes in memory and CPU as a run grows.

    .venv/bin/python benchmarks/export.py [--items 6000 72000]

A run of two candidates with three items a reply is generated: texts of random words, as long as those of real runs.
"""

import argparse
import random
import sys
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from harness import take

from qaeval.records import Chunk, Generation, Grade, Item, Sample, record_id
from qaeval.storage.run_directory import GENERATIONS, GRADES, RunStore

_FORMATS: Final = (("csv",), ("parquet",), ("sft",), ("dpo",), ("labels", "--n", "60", "--next"))
_CANDIDATES: Final = ("alpha", "beta")
_PER_CHUNK: Final = 6
_RUBRIC: Final[dict[str, Any]] = {
    "name": "abc",
    "version": 1,
    "sha": "f" * 64,
    "scale": [{"letter": letter, "name": f"level {letter}"} for letter in "ABC"],
    "flags": [],
}


def write_run(folder: Path, n_items: int) -> Path:
    """Write a graded run."""
    rng = random.Random(7)  # noqa: S311 - no secret
    syllables = [first + second for first in "bdfgklmnprstvw" for second in "aeiou"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(20_000)]
    weights = list(accumulate(1 / (rank + 10) for rank in range(len(words))))

    def text(n_words: int) -> str:
        return " ".join(rng.choices(words, cum_weights=weights, k=n_words)).capitalize()

    def model(name: str) -> dict[str, Any]:
        return {"kind": "embedded", "hf_id": f"org/{name}", "revision": None, "licence": ""}

    samples = [
        Sample.of(Chunk(chunk_id=f"manual/section-{n}", text=text(160), document=f"manual-{n // 40}.html"))
        for n in range(n_items // _PER_CHUNK)
    ]
    about = {"name": "e", "title": "An eval", "digest": "e" * 64, "item_kind": "qa_pair", "item_types": []}
    settings = {
        "eval": {**about, "items_per_sample": 3, "rubric": "abc", "prompt": {"user": "$chunk"}},
        "sample_set": {"n": len(samples), "seed": 0, "digest": "d" * 64},
        "candidates": {name: model(name) for name in _CANDIDATES},
        "grading": {"judge": {"name": "judge", **model("judge")}, "rubric": _RUBRIC},
    }
    with (
        RunStore.create(folder, settings, samples, resume=False) as store,
        store.writer(GENERATIONS) as replies,
        store.writer(GRADES) as grades,
    ):
        for sample in samples:
            for name in _CANDIDATES:
                items = [
                    Item.of(
                        sample.sample_id,
                        position,
                        type="factual",
                        question=f"What {text(12)}?",
                        answer=f"{text(30)}.",
                    )
                    for position in range(3)
                ]
                replies.append(
                    Generation(
                        task_id=record_id("generate", name, sample.sample_id),
                        candidate=name,
                        sample_id=sample.sample_id,
                        items=tuple(items),
                        text="x" * 900,
                        latency_s=1,
                    )
                )
                for item in items:
                    grades.append(
                        Grade(
                            task_id=record_id("grade", item.item_id),
                            judge="judge",
                            rubric_sha=_RUBRIC["sha"],
                            item_id=item.item_id,
                            letter=rng.choice("AAABC"),
                            reason=text(50),
                            text="x" * 400,
                            latency_s=1,
                        )
                    )
    return folder


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[6_000, 72_000])
    sizes = parser.parse_args().items
    with tempfile.TemporaryDirectory() as folder:
        runs = {n: write_run(Path(folder, f"run{n}"), n) for n in sizes}
        print("| `--to` | items | memory, MiB | CPU, s |\n|---|---|---|---|")
        for to in _FORMATS:
            for n, run in runs.items():
                out = Path(folder, f"{to[0]}-{n}")
                taken = take([sys.executable, "-m", "qaeval", "export", run, "--to", *to, "--out", out])
                assert taken.code == 0, taken.text
                print(f"| `{' '.join(to)}` | {n:,} | {taken.rss_mib:.0f} | {taken.cpu_s:.1f} |", flush=True)


if __name__ == "__main__":
    main()
