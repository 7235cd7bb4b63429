"""Exceptions that a user can do something about.

::

    QaevalError                 exit code
    ├── UsageError              64   arguments are invalid or contradict each other
    ├── DataError               65   a file is invalid or missing
    ├── EndpointError           69   a model cannot be reached
    ├── NotComparableError       4   two runs, or a run and its new settings, differ where they must agree
    ├── StoreError              74   the run directory cannot be read or written
    └── Interrupted            130   the user stopped the run; it can be resumed

Every message says where, what was expected, what was found and what to do. Any other exception is a
bug, and ends with exit code 70.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar, Final, Self

DISTRIBUTION: Final = "qaeval-harness"
"""Name of the package to install. Command and import are ``qaeval``; on the index, that name is another project's."""


class QaevalError(Exception):
    """An error that the user can fix; the command line prints it without a traceback."""

    exit_code: ClassVar[int] = 70
    reported: Path | None = None
    """Run directory that is complete and reported all the same: the run's failures are its result."""


class ResumeNote(str):
    """Note of an error of a run that was begun: how it continues."""

    __slots__ = ("path",)

    path: Path
    """The run directory."""

    def __new__(cls, text: str, path: Path) -> Self:
        """Make the note."""
        note = super().__new__(cls, text)
        note.path = path
        return note


class UsageError(QaevalError):
    """Arguments are invalid or contradict each other, or a name is unknown."""

    exit_code = 64


class DataError(QaevalError):
    """A file (chunks, rubric, registry, labels, run) is invalid or missing."""

    exit_code = 65


class EndpointError(QaevalError):
    """A model's endpoint cannot be reached, or is not allowed."""

    exit_code = 69


class NotComparableError(QaevalError):
    """Two runs, or a run and its new settings, differ where they must agree."""

    exit_code = 4


class StoreError(QaevalError):
    """The run directory cannot be read, written or locked."""

    exit_code = 74


class ReadOnlyError(StoreError):
    """A directory that this process may not write."""


class InUseError(StoreError):
    """Another process, or another part of this one, writes the run directory."""


class Interrupted(QaevalError):  # noqa: N818 - not an error: the user asked for it
    """The user stopped the run; finished rows are kept."""

    exit_code = 130


def closest(name: str, candidates: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the candidate closest to a mistyped name, else ``""``."""
    match = get_close_matches(name, list(candidates), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""


def install_command(extra: str) -> str:
    """Return the shell command that adds an extra to this installation, from where it was installed (PEP 610)."""
    import json  # noqa: PLC0415 - every command loads this module, few print the command
    from importlib.metadata import PackageNotFoundError, distribution  # noqa: PLC0415 - the same
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415 - the same

    try:
        record = distribution(DISTRIBUTION).read_text("direct_url.json")
    except PackageNotFoundError:
        record = None
    requirement = f"{DISTRIBUTION}[{extra}]"
    if record is None:  # from an index
        return f"pip install '{requirement}'"
    origin = json.loads(record)
    if origin.get("dir_info", {}).get("editable"):
        return f"pip install -e '{unquote(urlsplit(origin['url']).path)}[{extra}]'"
    return f"pip install '{requirement} @ {origin['url']}'"
