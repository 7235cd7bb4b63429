"""The command line: parse, call one function, print, exit.

Exit codes: 0 success · 4 not comparable · 64 usage · 65 bad input data · 69 endpoint unavailable · 70 bug in qaeval ·
74 file cannot be read or written · 130 interrupted (the run can be resumed). Of a gate also: 1 regression,
2 inconclusive, 3 judge not trusted; of an audit 2 not enough data, 3 judge not trusted.
"""

import errno
import io
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import typer

from qaeval.cli.app import app
from qaeval.cli.terminal import say
from qaeval.errors import QaevalError, StoreError, UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_EXCERPT: Final = 80
_VERBOSITY: Final = {"-v", "-vv", "-V", "--verbose"}
"""Options that other tools have for their version or for more output."""
_EXPECTED: Final = {
    "greater_than_equal": "a number of at least {ge}",
    "less_than_equal": "a number of at most {le}",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
}
"""What a value must be, by pydantic's type of the problem."""
_NOT_WRITTEN: Final = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE}


def main() -> None:
    """Run the command line and exit with its exit code."""
    sys.stdout, sys.stderr = _stream(sys.stdout, reports=True), _stream(sys.stderr, reports=False)
    sys.exit(run(sys.argv[1:]))


class _Output(io.FileIO):
    """Stdout or stderr. What a reader that has gone does not take is lost; the command ends with its own exit code.

    Args:
        descriptor: Of the stream.
        reports: Whether another failure, such as a full disk, is an error. It is raised once: Python writes the rest
            again at its exit.
    """

    def __init__(self, descriptor: int, *, reports: bool) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._reports = reports

    def write(self, data: "ReadableBuffer") -> int:
        """Write bytes."""
        try:
            return super().write(data)
        except OSError as error:
            if self._reports and not isinstance(error, BrokenPipeError):
                self._reports = False
                raise
            return memoryview(data).nbytes


def _stream(stream: IO[str] | None, *, reports: bool) -> IO[str]:
    """Return a standard stream that takes any text; a closed one is replaced, since a file may get its descriptor."""
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    output = _Output(stream.fileno(), reports=reports)
    return io.TextIOWrapper(
        output if stream.write_through else io.BufferedWriter(output),  # of `python -u` nothing is held back
        stream.encoding,
        errors="replace",  # a terminal of another encoding loses a symbol, not the output
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


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
        _require_text(arguments)
        exit_code: int = app(arguments, prog_name="qaeval", standalone_mode=False) or 0
        sys.stdout.flush()
    except typer.TyperException as error:
        return _misused(error)
    except QaevalError as error:
        return _print_error(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _print_error("abandoned; finished rows are kept", 130)
    except SystemExit as error:  # typer ends with 1 where a pipe breaks, which of a gate means a regression
        return _unexpected(error.__context__ or error)
    except Exception as error:  # noqa: BLE001 - every other exception is a bug
        return _unexpected(error)
    return exit_code


def _require_text(arguments: list[str]) -> None:
    """Refuse names that are no text, before anything is written: files of a run record its arguments in UTF-8."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{argument!a}: an argument that is not UTF-8; rename the file") from error


def _misused(error: typer.TyperException) -> int:
    message = _problem_of_value(error) or (
        error.format_message() if hasattr(error, "format_message") else str(error)
    )
    if message.startswith("Usage: "):  # a group without a command: its help, and no error message
        say(message, error=True)
        return UsageError.exit_code
    if getattr(error, "option_name", "") in _VERBOSITY:
        message = f"{message}: --version prints the version; progress is on stderr, without levels"
    return _print_error(message, UsageError.exit_code, hint=_help_for(error))


def _unexpected(error: BaseException) -> int:
    if isinstance(error, PermissionError) and error.filename:
        return _print_error(
            f"{error.filename}: {error.strerror}; check its permissions and those of its folders",
            StoreError.exit_code,
        )
    if isinstance(error, OSError) and error.errno in _NOT_WRITTEN:
        return _print_error(f"the output could not be written: {error.strerror}", StoreError.exit_code)
    if isinstance(error, OSError) and error.errno in {errno.ENAMETOOLONG, errno.ELOOP}:
        return _print_error(
            f"{str(error.filename or '')[:_EXCERPT]}…: {error.strerror}; choose another name", 64
        )
    traceback.print_exception(error)
    return _print_error(
        "this is a bug in qaeval, not in your input; please report it with the lines above", 70
    )


def _help_for(error: typer.TyperException) -> str:
    """Return the command that prints the help of the command, or subcommand, that was misused."""
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else 'qaeval'} --help"


def _problem_of_value(error: typer.TyperException) -> str:
    """Say what a value of an option must be where pydantic refused it; empty where it did not."""
    cause, parameter = error.__cause__, getattr(error, "param", None)
    if not isinstance(cause, ValueError) or not hasattr(cause, "errors") or parameter is None:
        return ""
    problem = cause.errors()[0]
    context = {key: _whole(value) for key, value in problem.get("ctx", {}).items()}
    name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar
    if problem["type"] == "value_error":
        return f"{name}: {context['error']}"
    message = problem["msg"].removeprefix("Input should be ")
    expected = _EXPECTED.get(problem["type"], message).format(**context)
    return f"{name}: expected {expected}, got {str(problem['input'])[:_EXCERPT]!r}"


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _print_error(message: str, exit_code: int, *, hint: str = "") -> int:
    advice = f"\nSee `{hint}`." if hint else ""
    say(f"qaeval: {message}{advice}", error=True)
    return exit_code
