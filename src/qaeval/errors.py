"""The exceptions that a user can do something about.

::

    QaevalError                 exit code
    ├── UsageError              64   the command cannot mean what was typed
    ├── DataError               65   a file is not what it has to be
    ├── EndpointError           69   a model cannot be reached
    ├── NotComparableError       4   two things that must agree do not
    ├── StoreError              74   the run directory cannot be read or written
    └── Interrupted            130   the user stopped the run; it can be resumed

Every message says where, what was expected, what came and what to do. Anything else that is raised is a
bug in qaeval and ends with exit code 70.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class QaevalError(Exception):
    """The user can mend this; the command line prints it without a traceback."""

    exit_code: ClassVar[int] = 70


class UsageError(QaevalError):
    """The command, or a name in it, cannot mean what was typed."""

    exit_code = 64


class DataError(QaevalError):
    """A file (chunks, rubric, registry, labels, run) is not what it has to be."""

    exit_code = 65


class EndpointError(QaevalError):
    """A model's endpoint cannot be reached, or may not be."""

    exit_code = 69


class NotComparableError(QaevalError):
    """Two runs, or a run and its new settings, differ in something that must agree."""

    exit_code = 4


class StoreError(QaevalError):
    """The run directory cannot be read, written or locked."""

    exit_code = 74


class Interrupted(QaevalError):  # noqa: N818 - nothing went wrong
    """The user stopped the run; what is finished is kept."""

    exit_code = 130


def closest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to a mistyped one, else ``""``."""
    match = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""
