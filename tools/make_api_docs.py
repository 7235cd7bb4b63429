"""Write docs/api.md from the docstrings of the public API. `make docs` runs it; a test compares the file."""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import qaeval
import qaeval.errors
import qaeval.testing

PAGE: Final = Path(__file__).parents[1] / "docs" / "api.md"
_SECTIONS: Final = ("Args", "Attributes", "Returns", "Raises")
_RST_ROLE: Final = re.compile(r"``([^`]+)``")
_ROW: Final = re.compile(r"``([^`]+)`` {2,}(\S.*)")
"""A row of the tables of columns in docstrings."""

_HEAD: Final = """# Python API

What the commands do, as functions, for scripts, notebooks and pipelines. [A notebook](examples/notebook.ipynb) shows them at work.

```python
import qaeval

run = qaeval.compare(["embedded-lead", "embedded-salient"], n=20)
run.letters.head()
```

- Every function has an async twin with the same arguments: `qaeval.acompare`, `agenerate`, `agrade`, `aimport_items`, `aload_run`,
  `aagreement`, `alabel_status`, `acertify`, `agate`. The blocking form works in a notebook cell too.
- Nothing is printed and nothing exits. Warnings go to the logger `qaeval`, which is silent by default; progress goes to a callback.
- What a user can correct is raised as a `QaevalError`; its message says where, what was expected, what came and what to do.
- Interrupting a cell, or cancelling the task of an async call, stops the run: requests in flight finish, and `resume=True` continues it.
- Until 1.0 a minor version may change the API; the changelog then says how to adapt. Files of runs and baselines stay readable.
- qaeval runs on POSIX systems (Linux, macOS). Windows is not supported, except through WSL.

This page is generated from docstrings by `make docs`.
"""


def page() -> str:
    """Render the whole page."""
    blocks = [_HEAD, "## Functions\n"]
    for name in (
        "compare",
        "generate",
        "grade",
        "import_items",
        "load_run",
        "agreement",
        "label_status",
        "certify",
        "gate",
    ):
        blocks += _function(f"qaeval.{name}", getattr(qaeval, name))
    blocks += ["## Run\n", *_class("qaeval.Run", qaeval.Run)]
    blocks += ["## ProgressEvent\n", *_fields(qaeval.ProgressEvent)]
    blocks += ["## Errors\n", _code(inspect.getdoc(qaeval.errors) or "")]
    blocks += ["## qaeval.testing\n", _prose(inspect.getdoc(qaeval.testing) or "")]
    for name in qaeval.testing.__all__:
        value = getattr(qaeval.testing, name)
        render = _class if inspect.isclass(value) else _function
        blocks += render(f"qaeval.testing.{name}", value)
    return "\n".join(blocks).rstrip() + "\n"


def _function(name: str, function: object) -> Iterator[str]:
    yield f"### `{name}`\n"
    yield _signature(name, function)
    yield _prose(inspect.getdoc(function) or "")


def _class(name: str, kind: type) -> Iterator[str]:
    yield _prose(inspect.getdoc(kind) or "") if name == "qaeval.Run" else f"### `{name}`\n"
    if name != "qaeval.Run":
        yield _signature(name, kind)
        yield _prose(inspect.getdoc(kind) or "")
        return
    for key, value in vars(kind).items():
        if key.startswith("_"):
            continue
        member = getattr(value, "func", None) or getattr(value, "fget", None)
        yield f"### `Run.{key}`\n"
        if member is None:
            yield _signature(f"run.{key}", value)
        yield _prose(inspect.getdoc(member or value) or "")


def _fields(kind: type) -> Iterator[str]:
    yield _prose(inspect.getdoc(kind) or "")
    names = ", ".join(f"`{name}`" for name in inspect.signature(kind).parameters)
    yield f"Fields: {names}.\n"


def _signature(name: str, function: object) -> str:
    parameters = [
        str(parameter.replace(annotation=parameter.empty))
        for parameter in inspect.signature(function).parameters.values()  # type: ignore[arg-type]
        if parameter.name != "self"
    ]
    stars = [
        index
        for index, parameter in enumerate(
            value
            for value in inspect.signature(function).parameters.values()  # type: ignore[arg-type]
            if value.name != "self"
        )
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    if stars:
        parameters.insert(stars[0], "*")
    text = f"{name}({', '.join(parameters)})"
    if len(text) > 100:
        text = f"{name}(\n    " + ",\n    ".join(parameters) + ",\n)"
    return f"```python\n{text}\n```\n"


def _code(text: str) -> str:
    return f"```text\n{text}\n```\n"


def _prose(text: str) -> str:
    """Turn a Google docstring into Markdown: sections become lists, tables and examples stay as they are."""
    lines: list[str] = []
    section = ""
    for line in text.splitlines():
        heading = line.removesuffix(":")
        if heading in _SECTIONS and line.endswith(":"):
            section = heading
            lines += ["", f"**{section}**", ""]
        elif section and re.match(r"    \S", line):
            name, colon, rest = line.strip().partition(":")
            is_item = colon and section != "Returns" and re.fullmatch(r"[\w, ]+", name)
            lines.append(f"- `{name}`:{rest}" if is_item else f"- {line.strip()}")
        elif section and line.startswith("        "):
            lines[-1] += " " + line.strip()
        else:
            section = "" if line and not line.startswith(" ") else section
            lines.append(line)
    return _blocks(lines)


def _blocks(lines: list[str]) -> str:
    """Fence literal blocks, and turn the rows of RST tables into lists."""
    out: list[str] = []
    in_literal = False
    for line in lines:
        if re.fullmatch(r"=+( +=+)+", line.strip()):
            continue
        if line.strip() == "::":
            out.append("```python")
            in_literal = True
        elif in_literal and line and not line.startswith(" "):
            out += ["```", "", line]
            in_literal = False
        elif in_literal:
            if line or out[-1] != "```python":  # RST has an empty line after the colons
                out.append(line[4:])
        elif row := _ROW.fullmatch(line):
            meaning = _RST_ROLE.sub(r"`\1`", row[2])
            out.append(f"- `{row[1]}`: {meaning}")
        else:
            out.append(_RST_ROLE.sub(r"`\1`", line))
    if in_literal:
        out.append("```")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip() + "\n"


def main() -> None:
    """Write the page, or with ``--check`` say whether it is up to date."""
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
