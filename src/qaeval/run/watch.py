"""What a stage reports to and listens to: progress, a request to stop, rows that are written."""

import asyncio
import signal
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol, runtime_checkable

from qaeval.errors import DataError, EndpointError
from qaeval.records import AuditItem, Control, Failure, GenerateRow, GradeRow, Record

_MAX_UNANSWERED: Final = 64
"""Tasks in a row without an answer after which a stage ends: its server reports itself healthy and answers
nothing."""
_MAX_ALIKE: Final = 64
"""First tasks of a stage that may all fail for one reason: after these the cause is not the items."""


class Stop:
    """A request to stop: no new task begins, those in flight finish.

    Args:
        on_request: Called once, at the first request, in the thread that makes it.
    """

    def __init__(self, on_request: Callable[[], None] = lambda: None) -> None:
        self._is_set = False
        self._lock = threading.Lock()
        self._on_request = on_request

    def is_set(self) -> bool:
        """Return True once a stop was requested."""
        return self._is_set

    def request(self) -> None:
        """Request a stop, from any thread; a second request changes nothing."""
        with self._lock:
            is_first, self._is_set = not self._is_set, True
        if is_first:
            self._on_request()

    def request_or_abandon(self) -> None:
        """Request a stop; at the second request raise KeyboardInterrupt, which drops what is in flight."""
        if self._is_set:
            raise KeyboardInterrupt
        self.request()


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """Have Ctrl-C, SIGTERM and a closed terminal request a stop while the block runs, a second one abandon it.

    Outside the main thread this does nothing: Python runs signal handlers in the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {
        signum: handler
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if (handler := signal.getsignal(signum)) is not signal.SIG_IGN or signum != signal.SIGHUP  # nohup
    }
    for signum in before:
        loop.add_signal_handler(signum, stop.request_or_abandon)
    try:
        yield
    finally:
        for signum, handler in before.items():
            loop.remove_signal_handler(signum)
            # asyncio would leave Python's own handler, where a notebook or a server had installed another one
            signal.signal(signum, handler)


class StageProgress(Protocol):
    """Watches one stage."""

    def row(self, row: GenerateRow | GradeRow) -> None:
        """Count a finished task, after its row was written."""
        ...

    def skip(self, n: int) -> None:
        """Count ``n`` tasks of the total as finished without a row: they turned out not to exist."""
        ...

    def end(self) -> None:
        """End the stage; a second call changes nothing."""
        ...


@runtime_checkable
class Progress(Protocol):
    """Watches the stages of a run. Several stages may run at the same time."""

    def stage(self, name: str, model: str, *, total: int, done: int) -> StageProgress:
        """Begin a model's stage with ``total`` tasks, of which earlier sessions finished ``done``."""
        ...

    def note(self, text: str) -> None:
        """Show a message about something else than a row: a server that starts, or died."""
        ...


class Unwatched:
    """Progress of a stage that nobody follows."""

    def row(self, row: object) -> None:
        """Show nothing."""

    def skip(self, n: int) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


class RowRecorder:
    """Writes rows as they come, reports them, and notices a server that answers nothing any more.

    Args:
        append: Writes a row.
        progress: Of the stage.
        on_row: Called with task and row at the end; while it waits less is asked.
        is_start: Whether the stage has no row yet: it ends if all of its first tasks fail for one reason.

    Attributes:
        n_rows: Rows written.
    """

    def __init__(
        self,
        append: Callable[[Record], None],
        progress: StageProgress,
        on_row: Callable[[Any, Any], Awaitable[None]],
        *,
        is_start: bool,
    ) -> None:
        self._append = append
        self._progress = progress
        self._on_row = on_row
        self._n_unanswered = 0
        self._reasons: Counter[str] | None = Counter() if is_start else None
        """Of the first tasks, all of them failures so far; None once that is settled."""
        self.n_rows = 0

    async def __call__(self, task: Any, row: Any) -> None:  # noqa: ANN401 - a task and a row of either stage
        """Write a row, then report it: whatever is reported survives a kill.

        Raises:
            EndpointError: the last 64 tasks got no answer.
            DataError: the first 64 tasks of the stage failed for the same reason.
        """
        self._append(row)
        # what is planted has its grade inside
        outcome: Any = row.grade if isinstance(row, AuditItem | Control) else row
        self._progress.row(outcome)
        self.n_rows += 1
        await self._on_row(task, row)
        is_unanswered = isinstance(outcome, Failure) and outcome.reason == "endpoint"
        self._n_unanswered = self._n_unanswered + 1 if is_unanswered else 0
        if self._n_unanswered >= _MAX_UNANSWERED:
            raise EndpointError(
                f"{outcome.model}: the server stopped answering ({self._n_unanswered} in a row: {outcome.detail}); "
                f"finished rows are kept"
            )
        if self._reasons is not None:
            self._check_start(outcome)

    def _check_start(self, outcome: Any) -> None:  # noqa: ANN401 - a row of either stage
        assert self._reasons is not None  # noqa: S101 - checked by the caller
        if not isinstance(outcome, Failure):
            self._reasons = None
            return
        self._reasons[outcome.reason] += 1
        if self._reasons.total() < _MAX_ALIKE:
            return
        if len(self._reasons) == 1:
            raise DataError(
                f"{outcome.model}: the first {_MAX_ALIKE} tasks failed alike ({outcome.reason}: {outcome.detail}); finished rows are "
                "kept. Fix what the reason names, or continue with --resume if such failures are the result"
            )
        self._reasons = None
