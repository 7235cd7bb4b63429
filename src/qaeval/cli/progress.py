"""Progress on stderr: a live bar on a terminal, plain lines elsewhere."""

import time
from typing import Final, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from qaeval.records import Failure, GenerateRow, GradeRow

_PLAIN_EVERY_S: Final = 5.0


class BarProgress:
    """A live bar: stage, done/total, failures, tasks/s, time left."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
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
        self._task: TaskID | None = None
        self._failed = 0
        self._done = 0
        self._started = 0.0

    def stage(self, name: str, *, total: int, done: int) -> None:
        """Begin a bar of its own for the stage."""
        self._failed = self._done = 0
        self._started = time.perf_counter()
        self._task = self._bar.add_task(name, total=total, completed=done, failed="", rate="")
        self._bar.start()

    def row(self, row: GenerateRow | GradeRow) -> None:
        """Move the bar by one task."""
        self._done += 1
        self._failed += isinstance(row, Failure)
        if self._task is not None:
            rate = self._done / max(time.perf_counter() - self._started, 1e-9)
            failed = f"[red]{self._failed} failed[/red]" if self._failed else ""
            self._bar.update(self._task, advance=1, failed=failed, rate=f"{rate:,.1f}/s")

    def end(self) -> None:
        """Leave the finished bar standing."""
        self._bar.stop()

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._bar.console.print(text, highlight=False, markup=False)


class PlainProgress:
    """Lines for logs and pipes: one at the start, one every few seconds, one at the end of a stage."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._name = ""
        self._total = self._before = self._done = self._failed = 0
        self._started = self._said = 0.0

    def stage(self, name: str, *, total: int, done: int) -> None:
        """Begin a stage."""
        self._name, self._total, self._before = name, total, done
        self._done = self._failed = 0
        self._started = self._said = time.perf_counter()

    def row(self, row: GenerateRow | GradeRow) -> None:
        """Count a finished task; say so when the last line is some seconds old."""
        self._done += 1
        self._failed += isinstance(row, Failure)
        now = time.perf_counter()
        if now - self._said >= _PLAIN_EVERY_S:
            self._said = now
            self._say(now)

    def end(self) -> None:
        """Say how the stage went."""
        self._say(time.perf_counter())

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._stream, flush=True)

    def _say(self, now: float) -> None:
        done = self._before + self._done
        rate = self._done / max(now - self._started, 1e-9)
        left = f", {(self._total - done) / rate:.0f} s left" if rate > 0 and done < self._total else ""
        failed = f", {self._failed} failed" if self._failed else ""
        print(
            f"{self._name}: {done}/{self._total}{failed}, {rate:,.1f}/s{left}", file=self._stream, flush=True
        )


def progress_for(console: Console) -> BarProgress | PlainProgress:
    """Choose the bar on a terminal, plain lines elsewhere."""
    return BarProgress(console) if console.is_terminal else PlainProgress(console.file)  # type: ignore[arg-type]
