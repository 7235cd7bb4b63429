"""`qaeval schema`: JSON Schemas of the YAML files that people write."""

from pathlib import Path
from typing import Annotated

import typer

from qaeval.errors import StoreError


def schema(
    name: Annotated[
        str | None, typer.Argument(help="Schema to print; default: a list of the schemas.", metavar="[NAME]")
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
    from qaeval.projects.schemas import SCHEMAS, schema_text

    if out is not None:
        texts = {key: schema_text(key) for key in ([name] if name else SCHEMAS)}
        try:
            out.mkdir(parents=True, exist_ok=True)
            for key, text in texts.items():
                (out / f"{key}.json").write_text(text, encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{out}: cannot be written: {error.strerror or error}") from error
        print(f"{out}: {', '.join(f'{key}.json' for key in texts)}")
    elif name is None:
        print("\n".join(f"{key:8}{source.files}" for key, source in SCHEMAS.items()))
    else:
        print(schema_text(name), end="")
