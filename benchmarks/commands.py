"""What commands that users run cost in CPU, against the last good figures in benchmarks/last_good.json.

    .venv/bin/python benchmarks/commands.py             prints the table, under 3 minutes
    .venv/bin/python benchmarks/commands.py --hold      ends with exit code 1 when a bar is missed
    .venv/bin/python benchmarks/commands.py --keep      writes the medians of this machine as the last good ones

A figure is the CPU time of a command in units of a calibration loop that runs before and after it on the same machine, so that
machines compare. The bar is 1.25 of the last good median; a figure above it is measured again (bars.py).
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bars import SLIDE, Bars, keep, last_good
from harness import take

_LOOP: Final = 2_000_000
_ROWS: Final = 100_000
_PAGES: Final = 8
_SECTIONS: Final = 60
_QAEVAL: Final = (sys.executable, "-m", "qaeval")
_COMPILED: Final = {"PYTHONDONTWRITEBYTECODE": ""}


def calibration_s() -> float:
    """Return the CPU seconds of a loop of the interpreter alone."""
    began, total = time.process_time(), 0
    for number in range(_LOOP):
        total += number * number
    return time.process_time() - began


def write_letters(path: Path) -> Path:
    """Write a table of two raters; every seventh letter differs."""
    with path.open("w") as file:
        file.write("item,chunk,anna,judge\n")
        for number in range(_ROWS):
            letter = "ABC"[number * 7 % 11 % 3]
            other = "ABC"[number % 3] if number % 7 == 0 else letter
            file.write(f"i{number},c{number // 3},{letter},{other}\n")
    return path


def write_pages(folder: Path) -> Path:
    """Write pages of a handbook with navigation, headings, lists, tables and code: a third of a megabyte."""
    folder.mkdir()
    links = "".join(f'<li class="toctree"><a href="{n}.html">Chapter {n}</a></li>' for n in range(60))
    for page in range(_PAGES):
        sections = "".join(
            f'<section id="s{n}"><h2>Valve {page}.{n}<a class="headerlink" href="#s{n}">¶</a></h2>'
            f"<p>The valve {n} of pump {page} opens at <b>{n + 2} bar</b> and is checked <em>weekly</em>, see "
            f'<a href="x.html">the plan</a>.</p><ul><li>Close the <code>inlet_{n}</code>.</li><li>Wait.</li></ul>'
            f"<table><tr><th>part</th><th>torque</th></tr><tr><td>bolt {n}</td><td>{n} Nm</td></tr></table>"
            f"<pre><code>open({n})\nclose({n})</code></pre></section>"
            for n in range(_SECTIONS)
        )
        text = f"<html><head><title>Pump {page}</title></head><body><nav><ul>{links}</ul></nav><main>{sections}</main></body></html>"
        (folder / f"pump{page}.html").write_text(text)
    return folder


def commands(folder: Path) -> dict[str, list[str | Path]]:
    """Return the commands by name; ``OUT`` is a path that does not exist."""
    run = folder / "run"
    names = ("embedded-lead", "embedded-salient")
    prepared = take([*_QAEVAL, "compare", *names, "--n", "12", "--out", run], env=_COMPILED)
    assert prepared.code == 0, prepared.text
    return {
        "--help": ["--help"],
        "compare, 4 chunks": ["compare", *names, "--n", "4", "--out", "OUT"],
        "chunk, HTML": ["chunk", write_pages(folder / "pages"), "--out", "OUT"],
        "agreement, CSV": ["agreement", write_letters(folder / "letters.csv"), "--cluster", "chunk"],
        "export, csv": ["export", run, "--to", "csv", "--out", "OUT"],
    }


def measure(folder: Path, bars: Bars) -> dict[str, float]:
    """Measure every command, print its figure beside the last good one, and return the medians."""
    good = last_good()
    medians = {}
    print("\n| command | CPU, calibration loops | of the last good median |\n|---|---|---|")
    for name, words in commands(folder).items():
        figures: list[float] = []
        last = good.get(name)

        def once(words: Sequence[str | Path] = words, figures: list[float] = figures) -> float:
            out = folder / f"out{time.perf_counter_ns()}"
            before = calibration_s()
            taken = take([*_QAEVAL, *(out if word == "OUT" else word for word in words)], env=_COMPILED)
            assert taken.code == 0, taken.text
            figures.append(taken.cpu_s / ((before + calibration_s()) / 2))
            return figures[-1]

        if last is None:
            share = "none yet"
            for _ in range(3):
                once()
        else:
            share = bars.measure(
                f"{name}, of the last good CPU", lambda last=last, once=once: once() / last, SLIDE
            )
        medians[name] = statistics.median(figures)
        print(f"| `{name}` | {medians[name]:.1f} | {share} |", flush=True)
    return medians


def main() -> None:
    """Print the table, and say which bars were missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hold", action="store_true", help="end with exit code 1 when a bar is missed")
    parser.add_argument("--keep", action="store_true", help="write the medians to benchmarks/last_good.json")
    arguments = parser.parse_args()
    bars = Bars()
    with tempfile.TemporaryDirectory() as folder:
        medians = measure(Path(folder), bars)
    if arguments.keep:
        keep(medians)
    for missed in bars.missed:
        print(f"MISSED {missed}")
    sys.exit(arguments.hold and bool(bars.missed))


if __name__ == "__main__":
    main()
