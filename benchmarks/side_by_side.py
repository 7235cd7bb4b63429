"""Two candidates with a server each against one: seconds from the first request to the last letter.

    .venv/bin/python benchmarks/side_by_side.py     about 3 minutes; with --hold a missed bar ends it with exit code 1

Three mock servers of 16 slots: two candidates that take 1.5 s for a reply with three items, and a judge that takes 0.2 s for a
letter. A round has three runs over the same samples: one candidate, both with servers of their own, both on one server.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bars import Bars
from harness import sample_of

from mock.server import Mock
from qaeval.evals.find import find_eval
from qaeval.files.spool import SpooledRows
from qaeval.records import Sample
from qaeval.registry.find import find_config
from qaeval.run.plan import Plan, find_judging
from qaeval.run.runner import Runner
from qaeval.run.watch import Unwatched
from qaeval.storage.run_directory import RunStore
from qaeval.testing import pairs_reply

SLOTS = 16
REPLY_MS, LETTER_MS = 1500, 200


class Silent(Unwatched):
    """A progress that shows nothing."""

    def stage(self, _name: str, _model: str, *, total: int, done: int) -> Unwatched:  # noqa: ARG002 - of the protocol
        """Begin a stage."""
        return self

    def note(self, text: str) -> None:
        """Show nothing."""


def candidate(name: str, **options: object) -> Mock:
    """Return a server whose candidate writes pairs of its own."""
    kinds = ("factual", "conceptual", "comparison")
    pairs = [(kind, f"What does {name} ask about the valve, {kind}?", "It opens at 3 bar.") for kind in kinds]
    return Mock(slots=SLOTS, latency_ms=REPLY_MS, reply=pairs_reply(pairs), **options)


def seconds(folder: Path, servers: Mapping[str, Mock], judge: Mock, n: int) -> float:
    """Compare candidates on new samples and return the seconds of all stages."""
    entry = {"served_name": "bench", "structured": "off"}
    registry = {
        "models": {name: {**entry, "url": server.url, "family": name} for name, server in servers.items()},
        "judges": {"bench": {**entry, "url": judge.url, "family": "bench"}},
    }
    path = folder / "servers.yaml"
    path.write_text(json.dumps(registry))
    config, definition = find_config(path), find_eval("qa_pairs")
    samples = SpooledRows(Sample, map(sample_of, range(n)))
    plan = Plan(definition, samples, tuple(config.candidate(name) for name in servers), 0)
    judging = find_judging(config, plan.candidates, judge="bench", rubric=definition.rubric)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        settings = {**plan.settings(), "grading": judging.settings()}
        with (
            RunStore.create(Path(out, "run"), settings, plan.samples, resume=False) as store,
            Runner(store, Silent()) as runner,
        ):
            began = time.perf_counter()
            runner.compare(plan.candidates, definition, judging)
            took = time.perf_counter() - began
            replies, letters = list(store.generations()), list(store.grades())
    assert all(row.kind != "failure" for row in (*replies, *letters))
    # items of one server are alike, whichever candidate it is: they are graded once
    n_writers = len({server.url for server in servers.values()})
    assert (len(replies), len(letters)) == (len(servers) * n, 3 * n_writers * n)
    return took


def main() -> None:
    """Measure rounds until the bar is settled, and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=160)
    parser.add_argument("--hold", action="store_true", help="end with exit code 1 when the bar is missed")
    arguments = parser.parse_args()
    taken: list[tuple[float, float, float]] = []
    bars = Bars()

    with tempfile.TemporaryDirectory() as place:

        def once() -> float:
            with candidate("a") as a, candidate("b") as b, Mock(slots=SLOTS, latency_ms=LETTER_MS) as judge:
                one, both, turns = (
                    seconds(Path(place), servers, judge, arguments.samples)
                    for servers in ({"a": a}, {"a": a, "b": b}, {"a": a, "b": a})
                )
            taken.append((one, both, turns))
            return both / one

        ratio = bars.measure("two candidates side by side, of one", once, 1.1)
    one_s, both_s, turns_s = map(statistics.median, zip(*taken, strict=True))
    print(
        f"\n| {arguments.samples} samples, {SLOTS} slots a server | seconds | of one candidate |\n|---|---|---|\n"
        f"| one candidate | {one_s:.1f} | 1 |\n"
        f"| two, a server each | {both_s:.1f} | {ratio} |\n"
        f"| two on one server | {turns_s:.1f} | {turns_s / one_s:.2f} |"
    )
    for missed in bars.missed:
        print(f"MISSED {missed}")
    sys.exit(arguments.hold and bool(bars.missed))


if __name__ == "__main__":
    main()
