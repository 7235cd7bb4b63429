"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from qaeval.errors import UsageError

_MOST_IN_FLIGHT = 4096

Names: TypeAlias = Annotated[
    list[str], typer.Argument(metavar="MODEL...", help="Names from the registry; see `qaeval models`.")
]
EvalName: TypeAlias = Annotated[str | None, typer.Option("--eval", help="Name or folder of the eval.")]
ChunksFile: TypeAlias = Annotated[
    Path | None, typer.Option("--chunks", help="JSONL file of your own chunks instead of the eval's.")
]
SamplesFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--samples", help="JSONL file of your own questions or topic cards, for evals that start from these."
    ),
]
Fields: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        metavar="FIELD=NAME",
        help="What the chunk file calls a field (chunk_id, text, stratum, document, title, language); repeat for several. "
        "Common names are understood without it.",
    ),
]
Number: TypeAlias = Annotated[
    int | None, typer.Option("--n", min=1, help="How many samples to draw; all when left out.")
]
Seed: TypeAlias = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of the draw.")]


def _on_disk(path: Path | None) -> Path | None:
    """Refuse an address of a store, of which a path would make a folder called ``s3:``."""
    if path is not None and path.parts[:1] == ("s3:",):
        raise UsageError(
            f"--out {str(path).replace('s3:/', 's3://', 1)}: expected a directory; a store takes what `qaeval compare --shard` makes"
        )
    return path


Out: TypeAlias = Annotated[
    Path | None,
    typer.Option("--out", help="Run directory; results/<time> when left out.", callback=_on_disk),
]
OutOrStore: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Run directory; results/<time> when left out. With --shard where all shards are kept, a folder or s3://BUCKET/PREFIX.",
    ),
]
ShardOf: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="i/N",
        help="Only the i-th of N parts of the samples, i from 0; `qaeval merge` puts them together.",
    ),
]
Resume: TypeAlias = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
JudgeName: TypeAlias = Annotated[
    str | None, typer.Option("--judge", help="Name of the judge in the registry.")
]
RubricName: TypeAlias = Annotated[
    str | None, typer.Option("--rubric", help="Name or file of the rubric; the eval's own when left out.")
]
Registry: TypeAlias = Annotated[
    Path | None, typer.Option("--config", help="Registry file to lay over the default one.")
]
Endpoints: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--endpoint",
        metavar="NAME=URL",
        help="Where a model is served, several servers of it with commas between; repeat for several models.",
    ),
]
Concurrency: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--concurrency",
        metavar="N|auto",
        help="Requests in flight; auto, the default, finds as many as keep the servers busy.",
    ),
]
NoCache: TypeAlias = Annotated[
    bool, typer.Option("--no-cache", help="Ask every question, also those that an earlier run asked.")
]
NoControls: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--no-controls",
        help="Grade no planted controls: up to 10 items with a defect, which show whether the judge tells anything apart.",
    ),
]
MetricsPort: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        metavar="PORT",
        min=0,
        max=65535,
        help="Serve what the run does at this port, for a Prometheus, while it works; 0 takes a free one.",
    ),
]
MetricsHost: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--metrics-host",
        metavar="ADDRESS",
        help="Where --metrics-port is served: this machine alone (127.0.0.1) when left out; 0.0.0.0 in a pod.",
    ),
]
Labels: TypeAlias = Annotated[
    list[Path] | None, typer.Option("--labels", help="Label file; the eval's own when left out.")
]
Margin: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--margin", min=0.001, max=0.999, help="Smallest difference that matters; 0.05 is 5 points."
    ),
]
Machine: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--hardware",
        help="Machine of the registry that the models run on whose entry names none; for the cost.",
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for machines on stdout.")]
RunDirectory: TypeAlias = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")]


def mapping(pairs: list[str] | None, option: str) -> dict[str, str]:
    """Read ``NAME=VALUE`` arguments.

    Raises:
        UsageError: an argument has another form.
    """
    found = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{option} {pair!r}: expected NAME=VALUE")
        found[name] = value
    return found


def endpoint_urls(endpoints: list[str] | None) -> dict[str, str]:
    """Read ``--endpoint NAME=URL`` arguments.

    Raises:
        UsageError: an argument has another form.
    """
    urls = {}
    for argument in endpoints or []:
        name, equals, url = argument.partition("=")
        if not (name and equals and url):
            raise UsageError(
                f"--endpoint {argument!r}: expected NAME=URL, like qwen=http://127.0.0.1:8000/v1"
            )
        urls[name] = url
    return urls


def in_flight(typed: str | None) -> "int | Literal['auto'] | None":
    """Read ``--concurrency``: a number or ``auto``; None where it was not given."""
    if typed is None or typed == "auto":
        return typed  # type: ignore[return-value] # mypy does not narrow a string to a literal
    if not typed.isdecimal() or not 1 <= int(typed) <= _MOST_IN_FLIGHT:
        raise UsageError(
            f"--concurrency: expected auto or a number from 1 to {_MOST_IN_FLIGHT:,}, got {typed!r}"
        )
    return int(typed)
