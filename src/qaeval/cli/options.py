"""Options of several commands."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from qaeval.errors import QaevalError, UsageError
from qaeval.registry.numbers import MAX_NUMBER

_MAX_IN_FLIGHT = 4096


def complete_candidate(incomplete: str) -> list[str]:
    """Complete the name of a candidate in a shell."""
    return _known_names(incomplete, "models")


def complete_judge(incomplete: str) -> list[str]:
    """Complete the name of a judge in a shell: every model can judge."""
    return _known_names(incomplete, "judges", "models")


def _known_names(incomplete: str, *sections: str) -> list[str]:
    from qaeval.registry.find import find_config

    try:
        config = find_config(None)
    except QaevalError:
        return []  # the command itself says what is wrong with the registry
    names = (name for section in sections for name in getattr(config, section))
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


Names: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL",
        help="Candidate names from the registry; `qaeval models` lists them.",
        autocompletion=complete_candidate,
    ),
]
EvalName: TypeAlias = Annotated[
    str | None,
    typer.Option("--eval", help="Eval name or folder; default: the eval of the registry (qa_pairs)."),
]
Prompts: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--prompts",
        metavar="FILE,...",
        help="Prompt files, by path or by name in the eval folder; each model is a candidate with each prompt, "
        "for example mistral@better; default: the prompt of the eval.",
    ),
]
ChunksFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--chunks",
        help="JSONL file of chunks; default: the chunks of the eval.",
    ),
]
ChunksFileOrStore: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--chunks",
        help="File of chunks, JSONL or Parquet, on this disk or at s3://BUCKET/KEY; default: the chunks of the eval.",
    ),
]
SamplesFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--samples",
        help="JSONL file of questions or topic cards, for evals that take these as input; default: those of the eval.",
    ),
]
Fields: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        metavar="FIELD=NAME",
        help="Name of a field in the chunk file, for example text=content or chunk_id=metadata.key; repeatable. Fields: "
        "chunk_id, text, stratum, document, title, language. Common names, and those of LangChain, LlamaIndex, Haystack, "
        "Unstructured and BEIR, need no mapping.",
    ),
]
DuplicateIdsOption: TypeAlias = Annotated[
    Literal["refuse", "number"],
    typer.Option(
        "--duplicate-ids", help="Two chunks with one id: refuse the file, or number the later ones (faq-2)."
    ),
]
ConsentTo: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--consent",
        metavar="HOST",
        help="Agree that what a hosted model needs is sent to its host; repeatable. Without it, a terminal asks.",
    ),
]
Number: TypeAlias = Annotated[
    int | None, typer.Option("--n", min=1, help="Number of samples to draw; default: all.")
]
AllocationOption: TypeAlias = Annotated[
    Literal["proportional", "at-least-one", "equal"],
    typer.Option(
        "--allocation",
        help="Samples of each stratum with --n: in proportion to its size, the same with at least one, or an equal number. The "
        "last two store the probability with which each sample was drawn, and reports and gates weigh by it.",
    ),
]
Seed: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        max=MAX_NUMBER,
        help="Random seed of the draw; default: the seed of the registry (0).",
    ),
]


def margin_option(value: str | float) -> float:
    """Parse a margin: ``5 points``, ``5pp``, ``5%`` or ``0.05``."""
    from qaeval.text.margins import parse_margin

    try:
        return parse_margin(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _on_disk(path: Path | None) -> Path | None:
    """Refuse the address of a store: as a path it would create a folder ``s3:``."""
    if path is not None and path.parts[:1] == ("s3:",):
        raise UsageError(
            f"--out {str(path).replace('s3:/', 's3://', 1)}: expected a directory; only `qaeval compare --shard` writes to a store"
        )
    return path


Out: TypeAlias = Annotated[
    Path | None,
    typer.Option("--out", help="Run directory; default: results/<time>.", callback=_on_disk),
]
OutOrStore: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Run directory; default: results/<time>. With --shard, the location of all shards: a folder or s3://BUCKET/PREFIX.",
    ),
]
ShardOf: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="i/N",
        help="Process shard i of N only (0-based); `qaeval merge` combines the shards.",
    ),
]
Resume: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue the run in --out; default: the last unfinished run of results/ with the same settings.",
    ),
]
JudgeName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--judge",
        help="Judge used for grading, by its registry name; default: the judge of the run or, for a new run, the first of the registry "
        "whose family is not a candidate's.",
        autocompletion=complete_judge,
    ),
]
JudgeModeName: TypeAlias = Annotated[
    Literal["reason_first", "letter", "cascade"] | None,
    typer.Option(
        "--judge-mode",
        metavar="MODE",
        help="What judges are asked for: reason_first (reasons, then the letter), letter (the letter alone) or cascade (the letter "
        "alone, then reasons for items of which the judge is unsure); default: that of the registry.",
    ),
]
ReasonsBelow: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--reasons-below",
        metavar="P",
        min=0.0,
        max=1.0,
        help="With --judge-mode cascade: probability of the letter below which reasons are asked for; default: that of the "
        "registry, 0.9.",
    ),
]
ReasonsFor: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--reasons-for",
        metavar="LETTER,...",
        help="With --judge-mode cascade: letters for which reasons are always asked for, like C; default: those of the registry, none.",
    ),
]
PanelNames: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--panel",
        metavar="JUDGE,...",
        help="Panel of judges, an odd number from 3: each grades the items, one after the other, and the letter of most "
        "members decides; the first is the judge of the run.",
    ),
]
Escalate: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--escalate",
        metavar="JUDGE",
        help="Second judge, which grades the items of which the first is unsure or which are disputed; the letters of both "
        "together are those of the judge FIRST+SECOND.",
        autocompletion=complete_judge,
    ),
]
EscalateError: TypeAlias = Annotated[
    float,
    typer.Option(
        "--escalate-error",
        metavar="SHARE",
        min=0.001,
        max=0.999,
        help="With --escalate: largest share of wrong letters of the first judge among those that are kept, shown by labels.",
    ),
]
EscalateBelow: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--escalate-below",
        metavar="P",
        min=0.0,
        max=1.0,
        help="With --escalate: probability of the letter below which an item goes on; default: by labels.",
    ),
]
DecidingPanel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--panel",
        metavar="JUDGE,...",
        help="Panel of judges that graded the run, an odd number from 3: the letter of most members decides.",
    ),
]
AllowSameFamily: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--allow-same-family",
        help="Allow a judge of a candidate's family, or the same model or server; the report says so.",
    ),
]
RubricName: TypeAlias = Annotated[
    str | None, typer.Option("--rubric", help="Rubric name or file; default: the rubric of the eval.")
]
Registry: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", help="Registry file, merged over ./qaeval.yaml and the shipped registry."),
]
Endpoints: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--endpoint",
        metavar="NAME=URL",
        help="Server URL of a model, or comma-separated URLs of its replicas; repeatable.",
    ),
]
Concurrency: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--concurrency",
        metavar="N|auto",
        help="Maximum number of requests in flight; auto adapts it to the load of the servers; default: auto.",
    ),
]
BackendName: TypeAlias = Annotated[
    Literal["local", "ray"],
    typer.Option(
        "--backend",
        help="Process that sends the requests: this one, or actors on a Ray cluster. Ray needs servers that are up, and the extra ray.",
    ),
]
RayAddress: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="Address of the Ray cluster, or auto; default: Ray on this machine, for this run.",
    ),
]
RayBlock: TypeAlias = Annotated[
    int,
    typer.Option(
        "--ray-block",
        min=1,
        max=500,
        help="Samples of a block: what is asked again where the process that works on it dies.",
    ),
]
RayStore: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ray-store",
        metavar="LOCATION",
        help="Location that all Ray nodes see, for the blocks of the run: a folder or s3://BUCKET/PREFIX; default: a folder in --out.",
    ),
]
NoCache: TypeAlias = Annotated[
    bool, typer.Option("--no-cache", help="Send every request instead of reusing replies of earlier runs.")
]
NoControls: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--no-controls",
        help="Skip the planted controls: up to 10 items with a defect, which show whether the judge discriminates.",
    ),
]


UntilDecided: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--until-decided/--all-chunks",
        help="Ask for chunks in random order, batch by batch, and stop as soon as the first place is decided, at error rates of 5 % "
        "that hold at every look; or ask for all chunks. Default: until_decided of the registry (a project of `qaeval init` has it).",
        show_default=False,
    ),
]


def _repeats(parameter: typer.CallbackParam, value: int | None) -> int | None:
    """Check a number of repeats before anything is read; the bounds are those of the API."""
    from qaeval.run.repeats import checked_repeats

    checked_repeats(value, parameter.opts[0])
    return value


_AT_ZERO = (
    "A model at temperature 0, the default of the evals and of judges, shows the noise of its server alone."
)
RepeatCandidate: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--repeat",
        metavar="R",
        callback=_repeats,
        help="Replies to each sample, 2 to 100, the run's own included: how much of the spread is the candidate's noise? "
        f"The others count in no rate, interval or gate. {_AT_ZERO}",
    ),
]
_LETTERS = (
    "Letters for each item, 2 to 100, the first included: how much of the spread is the judge's noise? "
    f"The others count in no rate, interval or gate. {_AT_ZERO}"
)
RepeatGrade: TypeAlias = Annotated[
    int | None, typer.Option("--repeat", metavar="R", callback=_repeats, help=_LETTERS)
]
RepeatJudge: TypeAlias = Annotated[
    int | None, typer.Option("--repeat-judge", metavar="R", callback=_repeats, help=_LETTERS)
]
MetricsPort: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        metavar="PORT",
        min=0,
        max=65535,
        help="Port that serves Prometheus metrics during the run; 0 selects a free port.",
    ),
]
MetricsHost: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--metrics-host",
        metavar="ADDRESS",
        help="Address that serves the metrics, for example 0.0.0.0 in a pod; default: 127.0.0.1.",
    ),
]
Labels: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option("--labels", help="Label file; repeatable; default: the labels of the eval."),
]
Margin: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--margin",
        metavar="MARGIN",
        parser=margin_option,
        help="Smallest difference of usable rates that matters: 5 points, 5%, 5pp or 0.05; default: the margin of the registry "
        "(5 points).",
    ),
]
Machine: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--hardware",
        help="Registry machine of models whose entry names none, for the cost; default: the machine of the registry.",
    ),
]
Yes: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--yes",
        help="Start at once, without an estimate and without a question before a long run.",
    ),
]
Port: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--port", metavar="PORT", min=0, max=65535, help="Port of the local page; default: a free port."
    ),
]
NoBrowser: TypeAlias = Annotated[
    bool, typer.Option("--no-browser", help="Print the address of the page without opening a browser.")
]
AllowHosts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="localhost:PORT",
        help="Further address of the page, for an ssh tunnel from another port; repeatable.",
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def find_run_argument(argument: str) -> Path:
    """Return the run directory of an argument; ``latest`` is the last run of ``results``."""
    from qaeval.storage.runs import find_run

    return find_run(argument)


def find_run_or_address(argument: str) -> str:
    """Return an argument that is a run directory, a file or an address of a store; ``latest`` as in `find_run_argument`."""
    return str(find_run_argument(argument)) if argument == "latest" else argument


RunDirectory: TypeAlias = Annotated[
    Path,
    typer.Argument(metavar="RUN", parser=find_run_argument, help="Run directory, or `latest`: the last run."),
]
RunDirectories: TypeAlias = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN",
        parser=find_run_argument,
        help="Run directories, or `latest`; several are compared side by side.",
    ),
]


def prompt_names(prompts: str | None) -> list[str]:
    """Read ``--prompts``: names with commas between."""
    if prompts is None:
        return []
    names = [name.strip() for name in prompts.split(",")]
    if not all(names):
        raise UsageError(
            f"--prompts {prompts!r}: expected files with commas between, like prompt.md,better.md"
        )
    return names


def comma_separated(value: str | None, option: str) -> list[str] | None:
    """Split the value of an option at its commas.

    Raises:
        UsageError: a name is empty.
    """
    if value is None:
        return None
    listed = [name.strip() for name in value.split(",")]
    if not all(listed):
        raise UsageError(f"{option} {value!r}: expected names with commas between, like a,b,c")
    return listed


def mapping(pairs: list[str] | None, option: str) -> dict[str, str]:
    """Parse ``NAME=VALUE`` arguments.

    Raises:
        UsageError: an argument has another form.
    """
    values = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{option} {pair!r}: expected NAME=VALUE")
        values[name] = value
    return values


def endpoint_urls(endpoints: list[str] | None) -> dict[str, str]:
    """Parse ``--endpoint NAME=URL`` arguments.

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


def in_flight(argument: str | None) -> "int | Literal['auto'] | None":
    """Parse ``--concurrency``: a number, ``auto``, or None if the option is absent."""
    if argument is None or argument == "auto":
        return argument  # type: ignore[return-value] # mypy does not narrow a string to a literal
    if not argument.isdecimal() or not 1 <= int(argument) <= _MAX_IN_FLIGHT:
        raise UsageError(
            f"--concurrency: expected auto or a number from 1 to {_MAX_IN_FLIGHT:,}, got {argument!r}"
        )
    return int(argument)


def command_line() -> str:
    """Return the command of this process as it is typed."""
    return shlex.join(["qaeval", *sys.argv[1:]])
