"""Progress on stderr: bars on a terminal, plain lines elsewhere."""

import time
from typing import Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars

from qaeval.records import Failure, GenerateRow, GradeRow, TimedRequest

_PLAIN_EVERY_S: Final = 5.0
"""Seconds between lines: at most 720 lines per hour in a log."""


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
        """Start a stage, with a bar."""
        self._running += 1
        self._bars.start()
        return Bar(self, self._bars, f"{name} {model}", total=total, done=done)

    @property
    def is_drawing(self) -> bool:
        """Whether a stage is running, so that the terminal is being redrawn."""
        return self._running > 0

    def ended(self) -> None:
        """Stop drawing after the last stage; finished bars stay on the screen."""
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
        """Advance the bar by one task."""
        self._done += 1
        self._failed += _is_failed(row)
        rate = self._done / max(time.perf_counter() - self._started, 1e-9)
        failed = f"[red]{self._failed} failed[/red]" if self._failed else ""
        self._bars.update(self._task, advance=1, failed=failed, rate=f"{rate:,.1f}/s")

    def more(self, n: int) -> None:
        """Add tasks to the bar."""
        self._total += n
        self._bars.update(self._task, total=self._total)

    def end(self) -> None:
        """End the bar; it stays on the screen."""
        if not self._ended:
            self._ended = True
            self._bars.stop_task(self._task)
            self._owner.ended()


class PlainProgress:
    """Lines for logs and pipes: one every five seconds, and one at the end of a stage."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def stage(self, name: str, model: str, *, total: int, done: int) -> "Lines":
        """Start a stage."""
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
        self._started = self._printed_at = time.perf_counter()

    def row(self, row: GenerateRow | GradeRow | TimedRequest) -> None:
        """Count a finished task; print a line at most every five seconds."""
        self._done += 1
        self._failed += _is_failed(row)
        now = time.perf_counter()
        if now - self._printed_at >= _PLAIN_EVERY_S:
            self._printed_at = now
            self._print(now)

    def more(self, n: int) -> None:
        """Add tasks to the total."""
        self._total += n

    def end(self) -> None:
        """Print the last line."""
        if not self._ended:
            self._ended = True
            self._print(time.perf_counter())

    def _print(self, now: float) -> None:
        done = self._before + self._done
        rate = self._done / max(now - self._started, 1e-9)
        remaining = f", {(self._total - done) / rate:.0f} s left" if rate > 0 and done < self._total else ""
        failed = f", {self._failed} failed" if self._failed else ""
        print(
            f"{self._name}: {done}/{self._total}{failed}, {rate:,.1f}/s{remaining}",
            file=self._stream,
            flush=True,
        )


def _is_failed(row: GenerateRow | GradeRow | TimedRequest) -> bool:
    return row.reason is not None if isinstance(row, TimedRequest) else isinstance(row, Failure)


def progress_for(console: Console) -> BarProgress | PlainProgress:
    """Return bars on a terminal, plain lines elsewhere."""
    return BarProgress(console) if console.is_terminal else PlainProgress(console.file)  # type: ignore[arg-type]


def progress_on_stderr() -> BarProgress | PlainProgress:
    """Return progress on stderr: bars on a terminal, plain lines elsewhere."""
    return progress_for(Console(stderr=True))
