"""Write docs/cli.md from the commands' own help. `make docs` runs it; a test compares the file."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from typer.main import get_command

from qaeval.cli.app import PANELS, app
from qaeval.cli.examples import EXAMPLES

PAGE: Final = Path(__file__).parents[1] / "docs" / "cli.md"

_HEAD: Final = """# Command line

```text
qaeval compare embedded-lead embedded-salient --n 12
```

Every command prints its result on stdout, and progress, warnings and errors on stderr. `--json` prints the typed document of the
result in place of the tables. `qaeval COMMAND --help` prints the section of a command,
`qaeval --install-completion` installs completion for your shell, and `qaeval --version` prints the version.

| exit code | meaning |
|---|---|
| 0 | success; of `qaeval gate`: passed |
| 1 | `qaeval gate`: regression |
| 2 | `qaeval gate`: inconclusive |
| 3 | `qaeval gate`: the judge is not trusted |
| 4 | runs are not comparable: another eval, other samples, another rubric or judge |
| 64 | usage error |
| 65 | invalid input data |
| 69 | endpoint unavailable |
| 70 | bug in qaeval |
| 74 | a file or run directory cannot be read or written |
| 130 | interrupted; `--resume` continues the run |

This page is generated from the commands by `make docs`.
"""


def page() -> str:
    """Render the whole page."""
    commands = get_command(app).commands  # type: ignore[attr-defined] # the app is a group
    blocks = [_HEAD, *_index(commands)]
    for name in (name for names in PANELS.values() for name in names):
        command = commands[name]
        blocks += _command(name, command, "##")
        for child, subcommand in getattr(command, "commands", {}).items():
            blocks += _command(f"{name} {child}", subcommand, "###")
    return "\n".join(blocks).rstrip() + "\n"


def _index(commands: dict[str, Any]) -> Iterator[str]:
    yield "| | command | |\n|---|---|---|"
    for panel, names in PANELS.items():
        for name in names:
            first = re.split(r"(?<=\.)\s", commands[name].help)[0]
            yield f"| {panel if name == names[0] else ''} | [`{name}`](#qaeval-{name}) | {_cell(first)} |"
    yield ""


def _command(name: str, command: Any, heading: str) -> Iterator[str]:  # noqa: ANN401 - typer exports no type of a command
    yield f"{heading} qaeval {name}\n"
    yield f"{command.help}\n"
    if hasattr(command, "commands"):
        return
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    required = [f"{option.opts[0]} {option.metavar}" for option in options if option.required]
    words = [
        f"qaeval {name}",
        *(word for argument in arguments for word in argument.get_usage_pieces(None)),
        *required,
    ]
    yield f"```text\n{' '.join(words)}{' [OPTIONS]' if len(options) > len(required) else ''}\n```\n"
    if arguments:
        yield "| argument | meaning |\n|---|---|"
        yield from (f"| `{_escaped(argument.metavar)}` | {_cell(argument.help)} |" for argument in arguments)
        yield ""
    if options:
        yield "| option | meaning | default |\n|---|---|---|"
        yield from (_row(option) for option in options)
        yield ""
    yield "Examples:\n\n```text\n{}\n```\n".format("\n".join(EXAMPLES[name]))


def _row(option: Any) -> str:  # noqa: ANN401
    names = "/".join((*option.opts, *option.secondary_opts))
    shown = names if option.is_flag else f"{names} {option.metavar}"
    text, default = _split_default(option)
    return f"| `{_escaped(shown)}` | {_cell(text)}{_range(option)} | {_cell(default)} |"


def _split_default(option: Any) -> tuple[str, str]:  # noqa: ANN401
    """Return an option's help without its default, and the default."""
    if option.required:
        return option.help, "required"
    stated = re.search(r"; default: ([^;]*?)(?=\.$|\. [A-Z]|;)", option.help)
    if stated:
        return option.help[: stated.start()] + option.help[stated.end() :], stated[1]
    if option.is_flag or option.default in {None, ""}:
        return option.help, ""
    return option.help, f"{option.default}"


def _range(option: Any) -> str:  # noqa: ANN401
    if option.min is not None and option.max is not None:
        return f" Range: {option.min} to {option.max}."
    return "" if option.min is None else f" Minimum: {option.min}."


def _cell(text: str) -> str:
    """Escape text for a cell of a Markdown table, except between backticks."""
    parts = _escaped(" ".join(text.split())).split("`")
    return "`".join(part if index % 2 else part.replace("<", "&lt;") for index, part in enumerate(parts))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
