"""The command line: parse, call one function, print, exit.

Exit codes: 0 success · 4 not comparable · 64 usage · 65 bad input data · 69 endpoint unavailable · 70 bug in qaeval ·
74 file cannot be read or written · 130 interrupted (the run can be resumed). Of a gate also: 1 regression,
2 inconclusive, 3 judge not trusted; of an audit 2 not enough data, 3 judge not trusted.
"""

import errno
import io
import logging
import sys
import traceback
from typing import Final

import typer

from qaeval.cli.app import ORDER, app
from qaeval.cli.terminal import say
from qaeval.errors import QaevalError, StoreError, UsageError

_EXCERPT: Final = 80
_VERBOSITY: Final = {"-v", "-vv", "-V", "--verbose"}
"""Options that other tools have for their version or for more output."""


def main() -> None:
    """Run the command line and exit with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # a terminal of another encoding loses a symbol, not the output
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code; errors are printed on stderr, without a traceback."""
    log, handler = logging.getLogger("qaeval"), _Stderr(logging.WARNING)
    log.addHandler(handler)
    try:
        return _run(arguments)
    finally:
        log.removeHandler(handler)


class _Stderr(logging.Handler):
    """Log handler that prints the warnings of the API on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a warning."""
        say(f"qaeval: {record.getMessage()}", error=True)


def _run(arguments: list[str]) -> int:
    try:
        return app(arguments, prog_name="qaeval", standalone_mode=False) or 0
    except typer.TyperException as error:
        return _misused(error, arguments)
    except QaevalError as error:
        return _print_error(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _print_error("abandoned; finished rows are kept", 130)
    except BrokenPipeError:
        return 0
    except Exception as error:  # noqa: BLE001 - every other exception is a bug
        return _unexpected(error)


def _misused(error: typer.TyperException, arguments: list[str]) -> int:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if message.startswith("Usage: "):  # a group without a command: its help, and no error message
        say(message, error=True)
        return UsageError.exit_code
    if getattr(error, "option_name", "") in _VERBOSITY:
        message = f"{message}: --version prints the version; progress is on stderr, without levels"
    return _print_error(message, UsageError.exit_code, hint=_help_for(arguments))


def _unexpected(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
        return _print_error(f"the output could not be written: {error.strerror}", StoreError.exit_code)
    if isinstance(error, OSError) and error.errno in {errno.ENAMETOOLONG, errno.ELOOP}:
        return _print_error(
            f"{str(error.filename or '')[:_EXCERPT]}…: {error.strerror}; choose another name", 64
        )
    traceback.print_exc()
    return _print_error(
        "this is a bug in qaeval, not in your input; please report it with the lines above", 70
    )


def _help_for(arguments: list[str]) -> str:
    command = next((word for word in arguments if not word.startswith("-")), "")
    return f"qaeval {command} --help" if command in ORDER else "qaeval --help"


def _print_error(message: str, exit_code: int, *, hint: str = "") -> int:
    advice = f"\nSee `{hint}`." if hint else ""
    say(f"qaeval: {message}{advice}", error=True)
    return exit_code
