"""`--metrics-port`: what the progress is told is counted for a Prometheus as well."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qaeval.errors import UsageError
from qaeval.records import GenerateRow, GradeRow
from qaeval.report.facts import MachineFacts
from qaeval.serving.exporter import Exporter, Tally
from qaeval.stages.progress import Progress, StageProgress

LOOPBACK = "127.0.0.1"


@contextmanager
def exporting(
    port: int | None,
    host: str | None,
    *,
    run: Path,
    settings: Mapping[str, Any],
    machines: Mapping[str, MachineFacts],
) -> Iterator[Exporter | None]:
    """Serve the numbers of a run while the block runs; None where nobody asked for it.

    Args:
        port: 0 takes a free one; None: nobody asked.
        host: Address to listen at; this machine alone when None.
        run: The run directory.
        settings: Of the run.
        machines: What each model runs on, by its name.

    Raises:
        UsageError: the port is taken, or a host is given without a port.
    """
    if port is None:
        if host is not None:
            raise UsageError("--metrics-host says where --metrics-port is served: give --metrics-port too")
        yield None
        return
    name = settings["eval"]["name"]
    with Exporter(host or LOOPBACK, port, run=run.name, eval_name=name, machines=machines) as exporter:
        print(f"metrics: {exporter.url}", file=sys.stderr)
        yield exporter


@dataclass(frozen=True)
class Metered:
    """A progress whose stages are counted."""

    progress: Progress
    exporter: Exporter

    def stage(self, name: str, model: str, *, total: int, done: int) -> "MeteredStage":
        """Begin a stage; one that goes on, with a server that was started again, keeps its counts."""
        tally = self.exporter.tally(name, model)
        tally.n_planned, tally.n_finished = total, done
        return MeteredStage(self.progress.stage(name, model, total=total, done=done), tally)

    def note(self, text: str) -> None:
        """Pass it on."""
        self.progress.note(text)


@dataclass(frozen=True)
class MeteredStage:
    """A stage's progress, counted."""

    progress: StageProgress
    tally: Tally

    def row(self, row: GenerateRow | GradeRow) -> None:
        """Count a finished task."""
        self.tally.row(row)
        self.progress.row(row)

    def more(self, n: int) -> None:
        """Expect more."""
        self.tally.n_planned += n
        self.progress.more(n)

    def end(self) -> None:
        """Leave the counts as they are: they are read until the process ends."""
        self.progress.end()
