"""`qaeval init`: a project from answers or options."""

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from qaeval.cli.options import AllowSameFamily, DuplicateIdsOption, Fields, mapping
from qaeval.cli.terminal import say
from qaeval.errors import Interrupted, QaevalError, UsageError
from qaeval.text.visible import visible

if TYPE_CHECKING:
    from qaeval.corpus.loading import DuplicateIds
    from qaeval.projects.create import ProjectChunks
    from qaeval.projects.files import Ci, Price
    from qaeval.projects.models import ProjectModels
    from qaeval.registry.config import Config, ModelSpec

AnswerT = TypeVar("AnswerT")

_RUN = "results/first"
_PRICE = re.compile(r"(\d{1,18}(?:\.\d+)?) ?([A-Z]{3})")


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the project.")] = Path(),
    documents: Annotated[
        list[Path] | None,
        typer.Option(
            "--documents",
            metavar="PATH",
            help="File or folder of Markdown, HTML, PDF or plain text; repeatable.",
        ),
    ] = None,
    chunks: Annotated[
        Path | None, typer.Option("--chunks", help="JSONL file of chunks, in place of documents.")
    ] = None,
    field: Fields = None,
    duplicate_ids: DuplicateIdsOption = "refuse",
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the eval; default: the name of the folder.")
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            "--language",
            help="Language of the documents: en, de, …; default: the language that each document states.",
        ),
    ] = None,
    size: Annotated[int, typer.Option("--size", min=1, help="Maximum tokens per chunk.")] = 400,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Skip and list documents that cannot be read.")
    ] = False,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            "--endpoint",
            metavar="[NAME=]URL",
            help="Running server; its models become candidates, or the one model with the name; repeatable.",
        ),
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            "--api-key-env", metavar="VARIABLE", help="Environment variable with the servers' API key."
        ),
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option(
            "--candidate",
            metavar="NAME",
            help="Candidate, by its name in the registry or on the server; repeatable; default: the models of the servers, "
            "else the embedded candidates.",
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge", metavar="NAME", help="Judge; default: the first model of no candidate's family."
        ),
    ] = None,
    allow_same_family: AllowSameFamily = False,
    price: Annotated[
        str | None,
        typer.Option(
            "--price", metavar='"1.23 EUR"', help="Price per hour of the machine that serves the models."
        ),
    ] = None,
    price_source: Annotated[
        str | None,
        typer.Option("--price-source", metavar="TEXT", help="Source of the price, looked up today."),
    ] = None,
    ci: Annotated[
        Literal["github", "gitlab"] | None,
        typer.Option("--ci", help="Write a CI file that gates changes: github or gitlab."),
    ] = None,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes",
            help="Ask nothing: every setting without an option takes its default, as without a terminal.",
        ),
    ] = False,
) -> None:
    """Create a project from documents: registry, eval, gate.

    On a terminal it asks for what the options do not say. Files that are in the folder stay as they are.
    """
    from qaeval.evals.find import data_root
    from qaeval.projects.create import create_project, project_files
    from qaeval.registry.config import load_config

    ask = _Questions(is_terminal=not yes and sys.stdin.isatty() and sys.stdout.isatty())
    if documents and chunks:
        raise UsageError("--documents and --chunks: give one of them")
    if field and not chunks:
        raise UsageError("--field names keys of a chunk file: pass --chunks FILE")
    eval_name = name or _eval_name(folder)
    config = load_config(data_root() / "qaeval.yaml")
    settings = (size, language, skip_unreadable, mapping(field, "--field"), duplicate_ids)
    read = ask.chunks(documents or [], chunks, *settings)
    models = ask.models(config, endpoint or [], api_key_env, candidate or [], judge, allow_same_family)
    cost = ask.price(price, price_source)
    service: Ci | None = ask.ci(ci)
    files = project_files(read, models, name=eval_name, price=cost, ci=service)
    existing = create_project(folder, files)
    _print_project(folder, eval_name, read, models)
    if existing:
        say(f"kept as it is: {', '.join(existing)}")
    _print_next(folder, models)


def _eval_name(folder: Path) -> str:
    """Return the name of an eval by that of the folder."""
    name = re.sub(r"[^a-z0-9]+", "_", folder.absolute().name.lower()).strip("_")
    return name if re.match(r"[a-z]", name) else f"eval_{name}".rstrip("_")


def _print_project(folder: Path, name: str, chunks: "ProjectChunks", models: "ProjectModels") -> None:
    from qaeval.report.numbers import plural
    from qaeval.stats.estimate import MIN_CLUSTERS

    for note in chunks.notes:
        say(note, error=True)
    say(f"{folder}: evals/{name} with {plural(len(chunks.rows), 'chunk')}, qaeval.yaml, gate.yaml")
    say(f"candidates: {', '.join(map(_described, models.candidates))}; judge: {_described(models.judge)}")
    if all(spec.in_process for spec in models.candidates):
        say("embedded candidates are not language models: they show how a comparison works")
    if len(chunks.rows) < MIN_CLUSTERS:
        say(f"{plural(len(chunks.rows), 'chunk')}: an interval and a verdict need at least {MIN_CLUSTERS}")


def _described(spec: "ModelSpec") -> str:
    if spec.in_process:
        return spec.name
    return visible(f"{spec.name} ({spec.url or 'qaeval starts it'})")


def _print_next(folder: Path, models: "ProjectModels") -> None:
    names = [spec.name for spec in models.candidates]
    options = ["--allow-same-family"] if models.allow_same_family else []
    commands = [
        ["qaeval", "compare", *names, *options, "--out", _RUN],
        ["qaeval", "view", _RUN],
        ["qaeval", "baseline", "set", _RUN],
    ]
    go = [] if folder.absolute() == Path.cwd() else [["cd", str(folder)]]
    say("next:")
    for command in [*go, *commands]:
        say(f"  {shlex.join(command)}")


class _Questions:
    """The settings of a project: options, and on a terminal answers in place of those that are absent."""

    def __init__(self, *, is_terminal: bool) -> None:
        self._is_terminal = is_terminal

    def chunks(
        self,
        documents: list[Path],
        chunks: Path | None,
        size: int,
        language: str | None,
        skip_unreadable: bool,
        fields: dict[str, str],
        duplicate_ids: "DuplicateIds",
    ) -> "ProjectChunks":
        """Read the chunks, or cut the documents."""
        from qaeval.projects.create import chunks_of_documents, chunks_of_file

        def read(documents: list[Path], chunks: Path | None, language: str) -> "ProjectChunks":
            if chunks is not None:
                return chunks_of_file(chunks, fields=fields, duplicate_ids=duplicate_ids, language=language)
            return chunks_of_documents(
                documents, size=size, language=language, skip_unreadable=skip_unreadable
            )

        if documents or chunks:
            return read(documents, chunks, language or "")
        if not self._is_terminal:
            raise UsageError(
                "no documents: pass --documents PATH (Markdown, HTML, PDF, text), or --chunks FILE.jsonl"
            )

        def read_path(path: Path, language: str) -> "ProjectChunks":
            return read([], path, language) if path.suffix == ".jsonl" else read([path], None, language)

        def readable(answer: str) -> Path:
            path = Path(answer).expanduser()
            read_path(path, "")  # an error asks again
            return path

        path = self._ask("Documents (a folder or file), or chunks (a .jsonl file)", readable)
        if language is None:
            question = "Language of the documents (en, de, …; empty: the language that each states)"
            language = self._ask(question, str.strip, default="")
        return read_path(path, language)

    def models(
        self,
        config: "Config",
        endpoints: list[str],
        api_key_env: str | None,
        names: list[str],
        judge: str | None,
        allow_same_family: bool,
    ) -> "ProjectModels":
        """Find candidates and judge."""
        from qaeval.projects.models import FLOOR, choose_models, find_servers

        urls = [*endpoints]
        servers = find_servers(config, urls, api_key_env=api_key_env)

        def choose(names: list[str], judge: str | None) -> "ProjectModels":
            return choose_models(
                config, servers, candidates=names, judge=judge, allow_same_family=allow_same_family
            )

        def add_server(url: str) -> str:
            if url:
                servers.update(find_servers(config, [*urls, url], api_key_env=api_key_env))
                urls.append(url)
            return url

        if not self._is_terminal:
            return choose(names, judge)
        if not endpoints and not names:
            while self._ask("URL of a running server (empty: none, or no more)", add_server, default=""):
                pass
        if not names:
            served = [name for name in servers if name not in config.judges and name != judge]
            names = self._ask(
                "Candidates (names of the registry or the server, with commas)",
                lambda text: [spec.name for spec in choose(_listed(text), judge).candidates],
                default=",".join(served or FLOOR),
            )
        if judge is None:
            default = choose(names, None).judge.name
            judge = self._ask("Judge", lambda text: choose(names, text.strip()).judge.name, default=default)
        return choose(names, judge)

    def price(self, price: str | None, source: str | None) -> "Price | None":
        """Read the price."""
        if price is None and self._is_terminal:
            price = self._ask(
                "Price per hour of the machine, like 1.23 EUR (empty: none)",
                lambda text: text and _checked_price(text),
                default="",
            )
        if not price:
            if source:
                raise UsageError("--price-source without --price")
            return None
        _checked_price(price)
        if not source and self._is_terminal:
            source = self._ask("Source of the price", _not_empty)
        if not source:
            raise UsageError(f"--price {price!r}: pass its source too, --price-source TEXT")
        return _price(price, source)

    def ci(self, service: "Ci | None") -> "Ci | None":
        """Choose the CI file."""
        if service or not self._is_terminal:
            return service
        return self._ask("CI file: github, gitlab or none", _service, default="none")

    def _ask(self, question: str, read: Callable[[str], AnswerT], default: str | None = None) -> AnswerT:
        """Ask until an answer can be used; the reason why one cannot is printed."""
        while True:
            try:
                return read(typer.prompt(question, default=default, show_default=bool(default)))
            except QaevalError as error:
                say(str(error), error=True)
            except (typer.Abort, KeyboardInterrupt) as error:
                raise Interrupted("abandoned; nothing was written") from error


def _listed(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _not_empty(text: str) -> str:
    if not text.strip():
        raise UsageError('a price needs its source, like "the offer of 1 November"')
    return text.strip()


def _service(text: str) -> "Ci | None":
    answer = text.strip().lower()
    if answer not in {"github", "gitlab", "none"}:
        raise UsageError(f"expected github, gitlab or none, got {text!r}")
    return None if answer == "none" else answer  # type: ignore[return-value] # mypy does not narrow a string to a literal


def _checked_price(text: str) -> str:
    match = _PRICE.fullmatch(text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(
            f'--price {text[:40]!r}: expected an amount above 0, of 18 digits at most, and a currency, like "1.23 EUR"'
        )
    return text


def _price(text: str, source: str) -> "Price":
    from datetime import date

    from qaeval.environment import now
    from qaeval.projects.files import Price

    match = _PRICE.fullmatch(text.strip())
    assert match is not None  # noqa: S101 - for mypy: checked before
    return Price(float(match[1]), match[2], source, date.fromisoformat(now()[:10]))
