"""The commands. What a command needs is imported when it runs: `qaeval --help` stays fast."""

import typer
import typer.core

from qaeval.cli import agreement as judging
from qaeval.cli import compare as running
from qaeval.cli import corpus as documents
from qaeval.cli import cost as deciding
from qaeval.cli import evals, history
from qaeval.cli import export as data
from qaeval.cli import gate as gating
from qaeval.cli import models as looking
from qaeval.cli import shards as sharding
from qaeval.cli import sweep as sweeping

ORDER = (
    *("compare", "generate", "grade", "report", "merge", "history", "compare-runs"),
    *("gate", "baseline", "agreement", "plan", "rubric", "decide", "cost", "sweep"),
    *("analyse", "export", "import", "chunk", "sample", "new-eval", "models", "doctor"),
)


class Commands(typer.core.TyperGroup):
    """The commands in the order in which they are needed; typer would list groups last."""

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002  (typer gives it)
        """Name every command once; one without a place in ``ORDER`` is a ValueError."""
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

app.command()(running.compare)
app.command()(running.generate)
app.command()(running.grade)
app.command()(running.report)
app.command()(sharding.merge)
app.command()(history.history)
app.command()(history.compare_runs)
app.command()(gating.gate)
app.add_typer(gating.baseline_app, name="baseline")
app.command()(judging.agreement)
app.command()(judging.plan)
app.command()(deciding.decide)
app.command()(deciding.cost)
app.command()(sweeping.sweep)
app.command()(documents.chunk)
app.command()(documents.sample)
app.command()(data.export)
app.command("import")(data.import_)
app.command("new-eval")(evals.new_eval)
app.add_typer(evals.analyse_app, name="analyse")
app.command()(looking.models)
app.command()(looking.doctor)
rubric_app.command("check")(looking.rubric_check)
rubric_app.command("show")(looking.rubric_show)
