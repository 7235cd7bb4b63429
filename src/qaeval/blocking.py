"""Two forms of one call: blocking, in scripts and notebook cells alike, and awaitable.

The engine runs its own event loop. A thread that already runs one, as every notebook cell does, cannot run a second:
there the call moves to a thread, and the cell waits for it. An interrupt then stops the run as Ctrl-C does on the command
line: requests in flight finish, every finished row is kept.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import wraps
from threading import Lock, Thread
from typing import Any, ParamSpec, Protocol, TypeVar

from qaeval.errors import Interrupted

_LOG = logging.getLogger("qaeval")

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Stoppable(Protocol):
    """Work that can be asked to stop from another thread."""

    def stop(self) -> None:
        """Ask; returns at once."""
        ...


class _Call:
    """One call on its own thread, and the work in it that can be stopped."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._work: Stoppable | None = None
        self._is_stopped = False

    def attach(self, work: Stoppable) -> None:
        """Name the work that a stop reaches; work that comes after the stop is stopped at once."""
        with self._lock:
            self._work = work
            is_stopped = self._is_stopped
        if is_stopped:
            work.stop()

    def stop(self) -> None:
        """Ask the work to stop; a second time changes nothing."""
        with self._lock:
            was_stopped, self._is_stopped = self._is_stopped, True
            work = self._work
        if work is not None and not was_stopped:
            work.stop()


_CALL: ContextVar[_Call | None] = ContextVar("qaeval_call", default=None)


def stoppable(work: Stoppable) -> None:
    """Let an interrupt of the calling cell, or a cancelled task, reach this work."""
    call = _CALL.get()
    if call is not None:
        call.attach(work)


def blocking(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Make a function work in a running event loop too, on a thread that the caller waits for."""

    @wraps(function)
    def wait(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        if not _in_event_loop():
            return function(*args, **kwargs)
        call = _Call()
        future = _start(call, lambda: function(*args, **kwargs))
        try:
            return future.result()
        except KeyboardInterrupt:
            _LOG.warning("stopping: requests in flight finish; interrupt again to abandon them")
            call.stop()
            return future.result()

    return wait


def awaitable(
    function: Callable[_Parameters, _Result],
) -> Callable[_Parameters, Coroutine[Any, Any, _Result]]:
    """Make the async form of a function: on a thread, so that neither requests nor statistics hold the event loop up."""

    @wraps(function)
    async def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        call = _Call()
        future = asyncio.wrap_future(_start(call, lambda: function(*args, **kwargs)))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            call.stop()
            with suppress(Interrupted):
                await future
            raise

    run.__name__ = f"a{function.__name__}"
    run.__qualname__ = run.__name__
    return run


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _start(call: _Call, work: Callable[[], _Result]) -> "Future[_Result]":
    """Run work on a thread, in a copy of the caller's context that knows the call."""
    future: Future[_Result] = Future()
    context = copy_context()
    context.run(_CALL.set, call)

    def run() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as error:  # noqa: BLE001 - it is raised where the caller waits
            future.set_exception(error)

    # a daemon: an interpreter that is asked to exit does not wait for a server's last reply
    Thread(target=run, name="qaeval", daemon=True).start()
    return future
