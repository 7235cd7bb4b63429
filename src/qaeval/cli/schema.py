"""`qaeval schema`: JSON Schemas of the YAML files that people write."""

from pathlib import Path
from typing import Annotated

import typer

from qaeval.cli.terminal import say, say_file


def schema(
    name: Annotated[
        str | None, typer.Argument(help="Schema to print; default: a list of the schemas.", metavar="NAME")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Write the schema, or all of them, into this folder instead."
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of a YAML file, for editors.

    A file names its schema in a comment: # yaml-language-server: $schema=schemas/gate.json
    """
    from qaeval.files.whole import write_file
    from qaeval.projects.schemas import SCHEMAS, schema_text

    if out is not None:
        texts = {key: schema_text(key) for key in ([name] if name else SCHEMAS)}
        for key, text in texts.items():
            write_file(out / f"{key}.json", text)
        say(f"{out}: {', '.join(f'{key}.json' for key in texts)}")
    elif name is None:
        say("\n".join(f"{key:8}{source.files}" for key, source in SCHEMAS.items()))
    else:
        say_file(schema_text(name))
