"""The commands. Their imports are local, so that `qaeval --help` stays fast."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer
import typer.core

from qaeval import __version__
from qaeval.cli import (
    agreement,
    audit,
    certify,
    compare,
    corpus,
    cost,
    evals,
    export,
    gate,
    history,
    init,
    label,
    labels,
    models,
    repair,
    schema,
    shards,
    sweep,
    view,
)
from qaeval.cli.examples import EXAMPLES
from qaeval.cli.terminal import say
from qaeval.errors import closest

PANELS: Final[Mapping[str, tuple[str, ...]]] = {
    "Run": ("compare", "generate", "grade", "report", "view", "merge", "repair"),
    "Judge": ("audit", "label", "labels", "agreement", "certify", "rubric", "analyse"),
    "Decide": ("gate", "baseline", "decide", "cost", "plan", "sweep", "history", "compare-runs"),
    "Data": ("chunk", "sample", "import", "export", "count", "new-eval"),
    "Setup": ("init", "models", "doctor", "schema"),
}
"""Commands by the question they answer, in order of use."""

ORDER: Final = tuple(name for names in PANELS.values() for name in names)

_EXPECTED: Final[Mapping[str, tuple[str, ...]]] = {
    "run": ("compare",),
    "eval": ("compare",),
    "evaluate": ("compare",),
    "benchmark": ("compare",),
    "judge": ("grade", "agreement"),
    "score": ("grade",),
    "annotate": ("label", "export"),
    "list": ("models", "history"),
    "results": ("report", "history"),
    "show": ("view", "report"),
    "open": ("view", "report"),
    "split": ("chunk",),
    "check": ("doctor",),
    "version": ("--version",),
    "help": ("--help",),
}
"""Commands of other tools, and the commands of qaeval with that purpose."""


_VALUES: Final[Mapping[str, str]] = {"str": "TEXT", "int": "N", "float": "NUMBER", "Path": "PATH"}
"""Placeholder of a value by its type, where an option names none."""


def _name_values(command: Any) -> None:  # noqa: ANN401 - typer exports no types
    """Name the values of a command and its subcommands for its help: typer writes ``<list[str]>`` and ``{RUN...}...``."""
    for subcommand in getattr(command, "commands", {}).values():
        _name_values(subcommand)
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = parameter.metavar or parameter.name.upper()
            parameter.metavar = f"{name}..." if parameter.nargs != 1 else name
            usage = parameter.metavar if parameter.required else f"[{parameter.metavar}]"
            parameter.get_usage_pieces = lambda _ctx, usage=usage: [usage]
            parameter.display_type_rich = lambda ctx: ""  # noqa: ARG005 - the name of typer's argument
        elif parameter.metavar is None and not parameter.is_flag:
            kind = parameter.type_descriptor
            words = re.findall(r"\w+", str(kind.annotation))
            named = next((_VALUES[word] for word in words if word in _VALUES), "TEXT")
            parameter.metavar = "|".join(map(str, kind.choices)) if kind.is_choice and kind.choices else named


class Commands(typer.core.TyperGroup):
    """The commands in panels, in order of use; typer would list groups last."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - typer's
        super().__init__(**options)
        for command in self.commands.values():
            _name_values(command)

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002  (passed by typer)
        """Return the names of all commands; ValueError for a command that is in no panel."""
        return sorted(self.commands, key=ORDER.index)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 - typer exports no types
        """Write a section for each panel, with aligned columns."""
        width = max(map(len, self.commands))
        for panel, names in PANELS.items():
            with formatter.section(panel):
                formatter.write_dl(
                    [
                        (
                            name.ljust(width),
                            self.commands[name].get_short_help_str(formatter.width - width - 6),
                        )
                        for name in names
                        if name in self.commands
                    ]
                )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401
        """Find the command; the error of an unknown one names what was probably meant."""
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            expected = [word for word in _EXPECTED.get(name, ()) if word in self.commands or word[0] == "-"]
            meant = " or ".join(map(repr, expected))
            hint = f" Did you mean {meant}?" if meant else closest(name, self.commands)
            ctx.fail(f"no command {name!r}.{hint}")
        return super().resolve_command(ctx, args)


def _print_version(value: bool) -> None:
    if value:
        say(f"qaeval {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    help="Which open model should we host, and can we trust the judge that says so?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
rubric_app = typer.Typer(help="Check and print rubrics.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(rubric_app, name="rubric")


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Options of qaeval itself."""


app.command()(init.init)
app.command()(compare.compare)
app.command()(compare.generate)
app.command()(compare.grade)
app.command()(compare.report)
app.command()(view.view)
app.command()(shards.merge)
app.command()(repair.repair)
app.command()(history.history)
app.command()(history.compare_runs)
app.command()(gate.gate)
app.add_typer(gate.baseline_app, name="baseline")
app.command()(label.label)
app.command()(agreement.agreement)
app.command()(certify.certify)
app.add_typer(labels.labels_app, name="labels")
app.command()(agreement.plan)
app.command()(cost.decide)
app.command()(cost.cost)
app.command()(sweep.sweep)
app.command()(audit.audit)
app.command()(corpus.chunk)
app.command()(corpus.sample)
app.command()(export.export)
app.command("import")(export.import_)
app.command()(export.count)
app.command("new-eval")(evals.new_eval)
app.add_typer(evals.analyse_app, name="analyse")
app.command()(models.models)
app.command()(models.doctor)
app.command()(schema.schema)
rubric_app.command("check")(models.rubric_check)
rubric_app.command("show")(models.rubric_show)


def _add_examples(commands: typer.Typer, prefix: str = "") -> None:
    for command in commands.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")  # type: ignore[union-attr] # set by the decorator
        if lines := EXAMPLES.get(f"{prefix}{name}"):
            # \b keeps the lines of a paragraph apart
            command.epilog = "\n  ".join(("\b\nExamples:", *lines))
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            _add_examples(group.typer_instance, f"{group.name} ")


_add_examples(app)
