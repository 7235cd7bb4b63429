"""Count what the engine does for a sample and for an item: `count_calls.py FOLDER` writes calls.json.

A count is of calls made by the code of qaeval, to Python and to C, in the thread that asks a scripted server. The
difference between a longer and a shorter run leaves the start out. A process of its own begins with empty caches, so the
same code gives the same count.
"""

import json
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import qaeval
from qaeval.cli import run
from replay.server import LoopbackServer

SOURCE = str(Path(qaeval.__file__).parent)
SHORT, LONG = 20, 60


def n_calls(words: list[str]) -> int:
    """Run a command and return how often code of qaeval called something."""
    count = 0

    def on_event(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        if event in {"call", "c_call"} and frame.f_code.co_filename.startswith(SOURCE):
            count += 1

    sys.setprofile(on_event)
    try:
        code = run(words)
    finally:
        sys.setprofile(None)
    assert code == 0
    return count


def calls_of(n: int, server: LoopbackServer, out: Path) -> tuple[int, int, int]:
    """Return the calls of both stages over n samples, and how many items were graded."""
    options = ["--concurrency", "8", "--no-cache"]
    writer, judge = (f"--endpoint={name}={server.url}" for name in server.models)
    generating = n_calls(["generate", "mistral", writer, "--yes", "--n", str(n), "--out", str(out), *options])
    # the draw of planted controls costs the same in a run of any size, and two calls more for an item
    grading = n_calls(["grade", str(out), judge, "--yes", "--no-controls", *options])
    n_items = (out / "grades.jsonl").read_text().count('"kind":"grade"')
    return generating, grading, n_items


def main(folder: Path) -> None:
    """Write the calls for a sample that is generated and for an item that is graded."""
    os.chdir(folder)
    with LoopbackServer(["mistral", "compass-judger"]) as server:
        calls_of(SHORT, server, folder / "first")  # loads modules and compiles patterns
        short = calls_of(SHORT, server, folder / "short")
        long = calls_of(LONG, server, folder / "long")
    per_sample = (long[0] - short[0]) / (LONG - SHORT)
    per_item = (long[1] - short[1]) / (long[2] - short[2])
    (folder / "calls.json").write_text(json.dumps({"generate": per_sample, "grade": per_item}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
