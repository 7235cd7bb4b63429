"""Progress on stderr: bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBars

from qaeval.cli.terminal import say
from qaeval.errors import Interrupted, UsageError
from qaeval.records import Failure, GenerateRow, GradeRow, TimedRequest
from qaeval.report.numbers import seconds

if TYPE_CHECKING:
    from qaeval.api import RunEstimate
    from qaeval.run.consent import Disclosure

_PLAIN_EVERY_S: Final = 5.0
"""Seconds between lines: at most 720 lines per hour in a log."""


_ROUNDS: Final = 3
"""Rounds of requests before the remaining time is estimated; the first ones include the warm-up of the server."""
_MIN_ROWS: Final = 5


class Pace:
    """Speed of a stage, and the time that is left.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started = clock()
        self._n = 0
        self._first_s = 0.0

    def row(self) -> None:
        """Count a finished task."""
        self._n += 1
        if self._n == 1:
            self._first_s = self._elapsed()

    def _elapsed(self) -> float:
        return max(self._clock() - self._started, 1e-9)

    @property
    def rate(self) -> str:
        """Tasks per second, or per minute where less than one is finished in a second; empty before the first."""
        per_s = self._n / self._elapsed()
        if not self._n:
            return ""
        return f"{per_s:,.1f}/s" if per_s >= 1 else f"{60 * per_s:,.1f}/min"

    def left(self, n: int) -> str:
        """Estimate the time of ``n`` more tasks; empty in the first three rounds, each as long as the first reply took."""
        elapsed = self._elapsed()
        if n <= 0 or self._n < _MIN_ROWS or elapsed < _ROUNDS * self._first_s:
            return ""
        return f"{seconds(max(1.0, n * elapsed / self._n)).replace('.0 s', ' s')} left"


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
            TextColumn("{task.fields[left]}"),
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
        self._left = total - done
        self._failed = self._skipped = 0
        self._ended = False
        self._pace = Pace()
        self._task = bars.add_task(name, total=total, completed=done, failed="", rate="", left="")

    def row(self, row: GenerateRow | GradeRow | TimedRequest) -> None:
        """Advance the bar by one task."""
        self._pace.row()
        self._left -= 1
        self._failed += _is_failed(row)
        self._bars.update(
            self._task,
            advance=1,
            failed=self._without(),
            rate=self._pace.rate,
            left=self._pace.left(self._left),
        )

    def _without(self) -> str:
        failed = [f"[red]{self._failed} failed[/red]"] if self._failed else []
        return ", ".join([*failed, *_skipped(self._skipped)])

    def skip(self, n: int) -> None:
        """Advance the bar by tasks that do not exist."""
        self._left -= n
        self._skipped += n
        self._bars.update(self._task, advance=n, failed=self._without())

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
        say(text, stream=self._stream, flush=True)


class Lines:
    """The lines of one stage."""

    def __init__(self, stream: TextIO, name: str, *, total: int, done: int) -> None:
        self._stream, self._name = stream, name
        self._total, self._done = total, done
        self._failed = self._skipped = 0
        self._ended = False
        self._pace = Pace()
        self._printed_at = time.perf_counter()

    def row(self, row: GenerateRow | GradeRow | TimedRequest) -> None:
        """Count a finished task; print a line at most every five seconds."""
        self._pace.row()
        self._done += 1
        self._failed += _is_failed(row)
        now = time.perf_counter()
        if now - self._printed_at >= _PLAIN_EVERY_S:
            self._printed_at = now
            self._print()

    def skip(self, n: int) -> None:
        """Count tasks that do not exist."""
        self._done += n
        self._skipped += n

    def end(self) -> None:
        """Print the last line."""
        if not self._ended:
            self._ended = True
            self._print()

    def _print(self) -> None:
        parts = [
            f"{self._name}: {self._done}/{self._total}",
            *([f"{self._failed} failed"] if self._failed else []),
            *_skipped(self._skipped),
            self._pace.rate,
            self._pace.left(self._total - self._done),
        ]
        say(", ".join(filter(None, parts)), stream=self._stream, flush=True)


def _skipped(n: int) -> list[str]:
    return [f"{n} not needed"] if n else []


def _is_failed(row: GenerateRow | GradeRow | TimedRequest) -> bool:
    return row.reason is not None if isinstance(row, TimedRequest) else isinstance(row, Failure)


def progress_for(console: Console) -> BarProgress | PlainProgress:
    """Return bars on a terminal, plain lines elsewhere."""
    return BarProgress(console) if console.is_terminal else PlainProgress(console.file)  # type: ignore[arg-type]


def progress_on_stderr() -> BarProgress | PlainProgress:
    """Return progress on stderr: bars on a terminal, plain lines elsewhere."""
    return progress_for(Console(stderr=True))


def confirm_on_stderr(*, yes: bool, stdin: TextIO | None = None) -> "Callable[[RunEstimate], None] | None":
    """Return what prints an estimate on stderr and asks before a long run; None if nothing is to be estimated.

    Args:
        yes: Whether a run starts at once, without estimate and question.
        stdin: Where the answer is read; a question needs a terminal. Default: the process's.
    """
    answers = sys.stdin if stdin is None else stdin

    def confirm(estimate: "RunEstimate") -> None:
        say(estimate.text, error=True)
        if estimate.minutes <= estimate.limit_minutes:
            return
        minutes = f"{estimate.minutes:,.0f} minutes" if estimate.minutes >= 1 else "a minute"
        text = (
            f"up to {minutes}, more than {estimate.limit_minutes:g} (defaults.confirm_minutes in qaeval.yaml)"
        )
        if not answers.isatty():
            raise UsageError(f"the run takes {text}; start it with --yes")
        say(f"The run takes {text}. Start it? [y/N] ", error=True, end="", flush=True)
        if answers.readline().strip().lower() not in {"y", "yes"}:
            raise Interrupted("not started")

    return None if yes else confirm


def consent_on_stderr(
    hosts: Sequence[str] | None, stdin: TextIO | None = None
) -> "Callable[[Disclosure], bool]":
    """Return what prints a disclosure on stderr and asks whether somebody agrees.

    Args:
        hosts: Hosts to which somebody agreed by an option; these are not asked about.
        stdin: Where the answer is read; without a terminal there is none. Default: the process's.
    """
    answers = sys.stdin if stdin is None else stdin

    def agree(disclosure: "Disclosure") -> bool:
        if disclosure.host in (hosts or ()):
            say(f"{disclosure.text}: agreed by --consent", error=True)
            return True
        if not answers.isatty():
            return False
        say(f"{disclosure.text}. Send it? [y/N] ", error=True, end="", flush=True)
        return answers.readline().strip().lower() in {"y", "yes"}

    return agree
