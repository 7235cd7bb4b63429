"""The one way to print: untrusted text cannot command the terminal."""

import io
import json
import re
import sys
from typing import IO, Any, Final

from qaeval.text.visible import UNSEEN, visible

_NOT_ASCII: Final = re.compile(r"[^\x20-\x7e\n\t]")


def say(
    text: object = "",
    *,
    error: bool = False,
    end: str = "\n",
    flush: bool = False,
    stream: IO[str] | None = None,
) -> None:
    """Print text on stdout, with control characters made visible.

    Args:
        text: Any text, or a path.
        error: Print on stderr.
        end: What follows the text.
        flush: Write at once.
        stream: Print there instead.
    """
    target = stream or (sys.stderr if error else sys.stdout)
    print(visible(str(text)), file=target, end=end, flush=flush)


def say_json(value: Any) -> None:  # noqa: ANN401 - a JSON value
    """Print a JSON value, or JSON as text, on a line of stdout.

    What a terminal would execute, or its encoding does not have, is written as an escape of JSON.
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    is_unicode = (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
    print((UNSEEN if is_unicode else _NOT_ASCII).sub(_escape, text))  # noqa: T201 - the one place


def say_file(text: str) -> None:
    """Print the content of a file on stdout: in UTF-8, whatever the encoding of the terminal."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    sys.stdout.write(text)


def _escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]
