"""The engine against the ideal, against the least that does the same work, and against others: ratios of one run, side by side.

    .venv/bin/python benchmarks/run.py --quick     under 3 minutes: ratios against the reference loop, and the ideal at 64 slots
    .venv/bin/python benchmarks/run.py --full      slots, peers in environments of their own, a million items: about an hour

Both print the tables of docs/performance.md and the bars that were missed; with --hold a missed bar ends them with exit code 1.
A figure above its bar is measured again, and missed when every round lies above it (bars.py). Even so a busy machine fails
a good change now and then: CI prints, `make ci-nightly` holds. The start of a command, seconds and no ratio, has bars with
--full and --only start alone.
"""

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from bars import SLIDE, Bars, keep, last_good
from harness import HERE, QAEVAL, Taken, grade, prepare_requests, take

from mock.server import LETTER_REPLY, REPLY, Mock, ideal_s, prepare_run, user_registry
from qaeval.evals.rubric import GradeMode

IN_FLIGHT = 256

REASON = (
    "The answer says what the source says about the valve, and adds nothing that the source does not say. "
    * 3
)
PEERS = {
    "inspect": (("inspect-ai==0.3.285", "openai"), f"{REASON}\n\nGRADE: @", 20.0),
    "deepeval": (("deepeval==4.3.1", "openai"), json.dumps({"reason": REASON, "score": 6}), 8.0),
    "ragas": (
        ("ragas==0.4.3", "langchain-community<0.4", "langchain-openai<1", "langchain-core<1"),
        json.dumps({"feedback": REASON, "score": 3}),
        8.0,
    ),
    "pydantic": (
        ("pydantic-evals==2.62.0", "pydantic-ai-slim[openai]"),
        json.dumps({"reason": REASON, "pass": True, "score": 1.0}),
        8.0,
    ),
    "promptfoo": (
        ("promptfoo@0.123", "node@22"),
        json.dumps({"reason": REASON, "pass": True, "score": 1.0}),
        8.0,
    ),
}
"""What is installed, what the mock's judge answers in the words that the harness reads, and the bar: so many times our CPU."""


def reference(requests: Path, mock: Mock, folder: Path, in_flight: int = IN_FLIGHT) -> Taken:
    """Run the reference loop."""
    taken = take(
        [
            sys.executable,
            HERE / "reference.py",
            requests,
            folder / "reference.jsonl",
            mock.url,
            str(in_flight),
        ]
    )
    assert taken.code == 0, taken.text
    return taken


def ours(
    folder: Path, n: int, mock: Mock, concurrency: int | str, mode: GradeMode = "reason_first"
) -> tuple[Taken, float]:
    """Grade a prepared run with an empty cache; return what the command took, and the seconds of its stage."""
    run = prepare_run(folder / "run", n)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    taken = grade(run, mock, concurrency, folder, mode=mode)
    assert taken.code == 0, taken.text
    session = json.loads((run / "sessions.jsonl").read_text().splitlines()[-1])
    return taken, session["seconds"]


def against_reference(folder: Path, n: int, bars: Bars) -> dict[str, float]:
    """CPU per item on a server that answers at once, as users grade; start-up is taken off both by a run of few items.

    The loop asks for neither schema nor log-probabilities, and reads the same text.
    """
    few = 300
    good, medians = last_good(), {}
    print("\n| instant server | CPU ms per item | of the loop | kB per reply |\n|---|---|---|---|")
    modes: tuple[tuple[GradeMode, str, float], ...] = (
        ("letter", LETTER_REPLY, 2.0),
        ("reason_first", REPLY, 3.0),
    )
    for mode, reply, bar in modes:
        requests = prepare_requests(folder / "many.jsonl", n, mode)
        start = prepare_requests(folder / "few.jsonl", few, mode)
        cpu = []

        def once(
            mode: GradeMode = mode, reply: str = reply, requests: Path = requests, start: Path = start
        ) -> float:
            with Mock(reply=reply) as mock:
                theirs = reference(requests, mock, folder).cpu_s - reference(start, mock, folder).cpu_s
            with Mock(reply=reply) as mock:
                own = ours(folder, n, mock, IN_FLIGHT, mode)[0].cpu_s
                own -= ours(folder, few, mock, IN_FLIGHT, mode)[0].cpu_s
                stats = mock.stats()
            scale = 1000 / (n - few)
            cpu.append((scale * own, scale * theirs, stats["bytes"] / stats["ok"] / 1000))  # noqa: B023
            return own / theirs

        name = f"grade, {mode}, of the reference loop"
        most = min(bar, SLIDE * good.get(name, math.inf))  # a slow slide is seen before the bar is reached
        ratio = bars.measure(f"CPU an item of mode {mode}, of the reference loop's", once, most)
        medians[name] = statistics.median(own / theirs for own, theirs, _ in cpu)
        own_ms, their_ms, kilobytes = map(statistics.median, zip(*cpu, strict=True))
        print(f"| `judge_mode: {mode}`: loop | {their_ms:.3f} | 1 | {len(reply) / 1000 + 0.5:.1f} |")
        print(
            f"| `judge_mode: {mode}`: qaeval grade | {own_ms:.3f} | {ratio} | {kilobytes:.1f} |", flush=True
        )
    return medians


def against_ideal(folder: Path, n: int, slots: Sequence[int], bars: Bars) -> None:
    """Wall seconds of the stage against what the slots alone impose; twice the slots, and found without being told.

    A machine that is busy with other things only adds to them: one round within the bar is enough, of three at most.
    """
    print(
        f"\n| {n:,} items, 1.5 s a request | ideal, s | fixed: stage | of ideal | auto: stage | of fixed | auto: command |"
    )
    print("|---|---|---|---|---|---|---|")
    for count in slots:
        print(_at_slots(folder, n, count, bars), flush=True)


def _at_slots(folder: Path, n: int, count: int, bars: Bars) -> str:
    options = {"slots": count, "latency_ms": 1500}
    ideal = ideal_s(n, **options)
    fixed, auto, whole = [], [], []

    def once_fixed() -> float:
        with Mock(**options) as mock:
            fixed.append(ours(folder, n, mock, 2 * count)[1])
        return fixed[-1] / ideal

    def once_auto() -> float:
        with Mock(**options) as mock:
            taken, seconds = ours(folder, n, mock, "auto")
        auto.append(seconds)
        whole.append(taken.wall_s)
        return seconds / statistics.median(fixed)

    share = bars.measure(f"{count} slots, of the ideal", once_fixed, 1.05, least=1, rounds=3)
    found = bars.measure(f"{count} slots, auto of fixed", once_auto, 1.10, least=1, rounds=3)
    fixed_s, auto_s, whole_s = map(statistics.median, (fixed, auto, whole))
    return (
        f"| {count} slots | {ideal:.1f} | {fixed_s:.1f} | {share} | {auto_s:.1f} | {found} | {whole_s:.1f} |"
    )


def against_peers(folder: Path, n: int, rounds: int, bars: Bars) -> None:
    """CPU and memory of other harnesses on the same items, each beside ours."""
    requests = prepare_requests(folder / "peers.jsonl", n)
    print(f"\n| {n:,} items, instant server | wall, s | CPU, s | memory, MiB | stored, MB | CPU of ours |")
    print("|---|---|---|---|---|---|")
    with Mock() as mock:
        own = [ours(folder, n, mock, IN_FLIGHT)[0] for _ in range(rounds)]
    mine = statistics.median(one.cpu_s for one in own)
    print(_row("qaeval grade", own, _size(folder / "run"), "1"), flush=True)
    with Mock() as mock:
        least = [reference(requests, mock, folder) for _ in range(rounds)]
    theirs = statistics.median(one.cpu_s for one in least)
    print(
        _row("reference loop", least, (folder / "reference.jsonl").stat().st_size, f"{theirs / mine:.2f}"),
        flush=True,
    )
    for name, (packages, reply, bar) in PEERS.items():
        command, env = _installed(name, packages)
        taken = []
        for _ in range(rounds):
            with Mock(reply=reply) as mock:
                out = folder / name
                taken.append(
                    take(
                        [
                            *command,
                            HERE / "peers" / f"{name}_judge.py",
                            requests,
                            out,
                            mock.url,
                            str(IN_FLIGHT),
                        ],
                        env=env,
                    )
                )
        if any(one.code for one in taken):
            print(f"| {name} | did not end well: {taken[0].text[-300:]!r} | | | | |", flush=True)
            bars.missed.append(f"{name} did not run")
            continue
        ratio = statistics.median(one.cpu_s for one in taken) / mine
        if ratio < bar:
            bars.missed.append(f"{name}: {ratio:.1f} times our CPU, the bar is {bar:g}")
        print(
            _row(
                name, taken, _size(folder / name), f"{ratio:.1f} ({'≥' if ratio >= bar else 'NOT ≥'} {bar:g})"
            ),
            flush=True,
        )


def _row(name: str, taken: Sequence[Taken], stored: int, ratio: str) -> str:
    def median(of: Callable[[Taken], float]) -> float:
        return statistics.median(map(of, taken))

    return (
        f"| {name} | {median(lambda one: one.wall_s):.1f} | {median(lambda one: one.cpu_s):.1f} | "
        f"{median(lambda one: one.rss_mib):.0f} | {stored / len(taken) / 1e6 if name in PEERS else stored / 1e6:.1f} | {ratio} |"
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _installed(name: str, packages: Sequence[str]) -> tuple[list[str | Path], dict[str, str]]:
    """Install a peer into an environment of its own, once, beside the benchmarks."""
    place = HERE / ".peers" / name
    if name == "promptfoo":
        if not (place / "node_modules").exists():
            place.mkdir(parents=True, exist_ok=True)
            subprocess.run(["npm", "init", "-y"], cwd=place, check=True, capture_output=True)
            subprocess.run(["npm", "install", *packages], cwd=place, check=True, capture_output=True)
        return [sys.executable], {"PROMPTFOO": str(place)}
    if not (place / "ready").exists():
        venv.create(place, with_pip=True, clear=True)
        subprocess.run([place / "bin" / "pip", "install", "-q", *packages], check=True, capture_output=True)
        (place / "ready").touch()
    return [place / "bin" / "python"], {}


def at_scale(folder: Path, bars: Bars) -> None:
    """Memory, resuming and reporting at a million items against fifty thousand."""
    few, many = 50_000, 1_000_000
    print(
        "\n| items | grade: wall, s | memory, MiB | report: wall, s | memory, MiB | nothing left to grade: wall, s |"
    )
    print("|---|---|---|---|---|---|")
    memory = {}
    for n in (few, many):
        with Mock() as mock:
            graded, _ = ours(folder, n, mock, IN_FLIGHT)
            again = grade(folder / "run", mock, IN_FLIGHT, folder)
        reported = take([QAEVAL, "report", folder / "run", "--config", user_registry(folder, "reason_first")])
        assert (again.code, reported.code) == (0, 0), again.text + reported.text
        memory[n] = graded.rss_mib
        print(
            f"| {n:,} | {graded.wall_s:.0f} | {graded.rss_mib:.0f} | {reported.wall_s:.0f} | {reported.rss_mib:.0f} | {again.wall_s:.1f} |",
            flush=True,
        )
    print(
        f"\nMemory at the larger: {bars.check('memory at a million, of that at 50,000', memory[many] / memory[few], 1.3)} of the smaller."
    )
    bars.check("report over a million, s", reported.wall_s, 120)
    bars.check("report over a million, MiB", reported.rss_mib, 3e9 / 2**20)
    bars.check("start of a resumed million, s", again.wall_s, 15)


def starts(folder: Path, bars: Bars) -> None:
    """What a user waits for before anything happens, the first time left out: it compiles the modules, as pip does when it installs."""
    compiled = {"PYTHONDONTWRITEBYTECODE": ""}
    help_s = statistics.median(take([QAEVAL, "--help"], env=compiled).cpu_s for _ in range(5))
    small = []
    for number in range(4):
        command = [
            QAEVAL,
            "compare",
            "embedded-lead",
            "embedded-salient",
            "--n",
            "4",
            "--out",
            folder / f"small{number}",
        ]
        small.append(take(command, env=compiled).wall_s)
    print("\n| start | |\n|---|---|")
    print(f"| `qaeval --help`, CPU s | {bars.check('--help, CPU s', help_s, 0.3)} |")
    print(
        f"| 4 chunks on the embedded models, wall s | {bars.check('small run, wall s', statistics.median(small[1:]), 3.0)} |"
    )


def main() -> None:
    """Print the tables, and say which bars were missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--quick", action="store_true")
    how.add_argument("--full", action="store_true")
    how.add_argument("--only", choices=["reference", "ideal", "peers", "scale", "start"])
    parser.add_argument("--rounds", type=int, default=3, help="of the peers; their medians are printed")
    parser.add_argument("--hold", action="store_true", help="end with exit code 1 when a bar is missed")
    parser.add_argument(
        "--keep", action="store_true", help="write the ratios to the loop to benchmarks/last_good.json"
    )
    arguments = parser.parse_args()
    bars = Bars()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        wanted = arguments.only or ("full" if arguments.full else "quick")
        if wanted in {"quick", "full", "start"}:
            starts(folder, Bars() if wanted == "quick" else bars)  # seconds of a strange machine are no bar
        if wanted in {"quick", "full", "reference"}:
            medians = against_reference(folder, 6_000 if arguments.quick else 20_000, bars)
            if arguments.keep:
                keep(medians)
        if wanted in {"quick", "full", "ideal"}:
            against_ideal(
                folder, 600 if arguments.quick else 2_000, [64] if arguments.quick else [16, 64, 256], bars
            )
        if wanted in {"full", "peers"}:
            against_peers(folder, 2_000, arguments.rounds, bars)
        if wanted in {"full", "scale"}:
            at_scale(folder, bars)
    for missed in bars.missed:
        print(f"MISSED {missed}")
    sys.exit(arguments.hold and bool(bars.missed))


if __name__ == "__main__":
    main()
