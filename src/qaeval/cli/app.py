"""The commands. Their imports are local, so that `qaeval --help` stays fast."""

import typer
import typer.core

from qaeval.cli import (
    agreement,
    compare,
    corpus,
    cost,
    evals,
    export,
    gate,
    history,
    label,
    models,
    shards,
    sweep,
)

ORDER = (
    *("compare", "generate", "grade", "report", "merge", "history", "compare-runs"),
    *("gate", "baseline", "label", "agreement", "plan", "rubric", "decide", "cost", "sweep"),
    *("analyse", "export", "import", "chunk", "sample", "new-eval", "models", "doctor"),
)


class Commands(typer.core.TyperGroup):
    """The commands in order of use; typer would list groups last."""

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002  (passed by typer)
        """Return the names of all commands; ValueError for a command that is not in ``ORDER``."""
        return sorted(self.commands, key=ORDER.index)


app = typer.Typer(
    cls=Commands,
    help="Which open model should we host, and can we trust the judge that says so?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
rubric_app = typer.Typer(help="Check and print rubrics.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(rubric_app, name="rubric")

app.command()(compare.compare)
app.command()(compare.generate)
app.command()(compare.grade)
app.command()(compare.report)
app.command()(shards.merge)
app.command()(history.history)
app.command()(history.compare_runs)
app.command()(gate.gate)
app.add_typer(gate.baseline_app, name="baseline")
app.command()(label.label)
app.command()(agreement.agreement)
app.command()(agreement.plan)
app.command()(cost.decide)
app.command()(cost.cost)
app.command()(sweep.sweep)
app.command()(corpus.chunk)
app.command()(corpus.sample)
app.command()(export.export)
app.command("import")(export.import_)
app.command("new-eval")(evals.new_eval)
app.add_typer(evals.analyse_app, name="analyse")
app.command()(models.models)
app.command()(models.doctor)
rubric_app.command("check")(models.rubric_check)
rubric_app.command("show")(models.rubric_show)
