"""Progress on stderr: live bars on a terminal, plain lines elsewhere.

`--metrics-port`: what the progress is told is counted for a Prometheus as well.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars

from qaeval.errors import UsageError
from qaeval.records import Failure, GenerateRow, GradeRow, TimedRequest
from qaeval.report.facts import MachineFacts
from qaeval.run.watch import Progress, StageProgress
from qaeval.serving.exporter import Exporter, Tally

_PLAIN_EVERY_S: Final = 5.0


class BarProgress:
    """A live bar for each stage: done/total, failures, tasks/s, time left."""

    def __init__(self, console: Console) -> None:
        self._running = 0
        self._bars = ProgressBars(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]}"),
            TextColumn("{task.fields[rate]:>9}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )

    def stage(self, name: str, model: str, *, total: int, done: int) -> "Bar":
        """Begin a bar of its own for the stage."""
        self._running += 1
        self._bars.start()
        return Bar(self, self._bars, f"{name} {model}", total=total, done=done)

    @property
    def is_drawing(self) -> bool:
        """Whether a stage is under way."""
        return self._running > 0

    def ended(self) -> None:
        """Stop drawing when the last bar has ended; finished bars are left standing."""
        self._running -= 1
        if not self._running:
            self._bars.stop()

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(text, highlight=False, markup=False)


class Bar:
    """The bar of one stage."""

    def __init__(self, owner: BarProgress, bars: ProgressBars, name: str, *, total: int, done: int) -> None:
        self._owner, self._bars = owner, bars
        self._total = total
        self._done = self._failed = 0
        self._ended = False
        self._started = time.perf_counter()
        self._task = bars.add_task(name, total=total, completed=done, failed="", rate="")

    def row(self, row: GenerateRow | GradeRow | TimedRequest) -> None:
        """Move the bar by one task."""
        self._done += 1
        self._failed += _is_failed(row)
        rate = self._done / max(time.perf_counter() - self._started, 1e-9)
        failed = f"[red]{self._failed} failed[/red]" if self._failed else ""
        self._bars.update(self._task, advance=1, failed=failed, rate=f"{rate:,.1f}/s")

    def more(self, n: int) -> None:
        """Make the bar longer."""
        self._total += n
        self._bars.update(self._task, total=self._total)

    def end(self) -> None:
        """Leave the finished bar standing."""
        if not self._ended:
            self._ended = True
            self._bars.stop_task(self._task)
            self._owner.ended()


class PlainProgress:
    """Lines for logs and pipes: one every few seconds, one at the end of a stage."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def stage(self, name: str, model: str, *, total: int, done: int) -> "Lines":
        """Begin a stage."""
        return Lines(self._stream, f"{name} {model}", total=total, done=done)

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._stream, flush=True)


class Lines:
    """The lines of one stage."""

    def __init__(self, stream: TextIO, name: str, *, total: int, done: int) -> None:
        self._stream, self._name = stream, name
        self._total, self._before = total, done
        self._done = self._failed = 0
        self._ended = False
        self._started = self._said = time.perf_counter()

    def row(self, row: GenerateRow | GradeRow | TimedRequest) -> None:
        """Count a finished task; say so when the last line is some seconds old."""
        self._done += 1
        self._failed += _is_failed(row)
        now = time.perf_counter()
        if now - self._said >= _PLAIN_EVERY_S:
            self._said = now
            self._say(now)

    def more(self, n: int) -> None:
        """Expect more."""
        self._total += n

    def end(self) -> None:
        """Say how the stage went."""
        if not self._ended:
            self._ended = True
            self._say(time.perf_counter())

    def _say(self, now: float) -> None:
        done = self._before + self._done
        rate = self._done / max(now - self._started, 1e-9)
        left = f", {(self._total - done) / rate:.0f} s left" if rate > 0 and done < self._total else ""
        failed = f", {self._failed} failed" if self._failed else ""
        print(
            f"{self._name}: {done}/{self._total}{failed}, {rate:,.1f}/s{left}", file=self._stream, flush=True
        )


def _is_failed(row: GenerateRow | GradeRow | TimedRequest) -> bool:
    return row.reason is not None if isinstance(row, TimedRequest) else isinstance(row, Failure)


def progress_for(console: Console) -> BarProgress | PlainProgress:
    """Choose bars on a terminal, plain lines elsewhere."""
    return BarProgress(console) if console.is_terminal else PlainProgress(console.file)  # type: ignore[arg-type]


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
