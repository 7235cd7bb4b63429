"""`qaeval new-eval` and `qaeval analyse`: new evals, and generations without grades."""

from pathlib import Path
from typing import Annotated

import typer

from qaeval.cli.options import AsJson, RunDirectory
from qaeval.cli.terminal import say, say_json

analyse_app = typer.Typer(
    help="Analyse the generations of a run.", no_args_is_help=True, rich_markup_mode=None
)


def new_eval(
    name: Annotated[str, typer.Argument(help="Name of the eval and its folder.")],
    kind: Annotated[
        str, typer.Option("--kind", help="Kind of its items: qa_pair, answer or preference_pair.")
    ] = "qa_pair",
    folder: Annotated[Path, typer.Option("--folder", help="Folder of the evals.")] = Path("evals"),
) -> None:
    """Create the folder of a new eval.

    The eval runs as created; comments in its files explain what to change.
    """
    from qaeval.corpus.new_eval import first_command
    from qaeval.corpus.new_eval import new_eval as create_eval

    path = create_eval(name, kind=kind, folder=folder)
    say(f"{path}\nnext: {first_command(path, kind)}")


@analyse_app.command("generation")
def generation(run: RunDirectory, as_json: AsJson = False) -> None:
    """Analyse generations without grades.

    Shows failures and check findings with examples, item types and answer lengths.
    """
    from qaeval.cli.tables import print_sections
    from qaeval.comparison.generation import analyse_generation, write_generation
    from qaeval.comparison.run_data import eval_facts_of
    from qaeval.storage.run_directory import RunStore

    with RunStore.open(run) as store:
        settings = store.settings()
        report = analyse_generation(
            store.samples(),
            store.generations(),
            eval_facts=eval_facts_of(settings),
            candidates=list(settings["candidates"]),
        )
    if as_json:
        say_json(report.model_dump_json())
    else:
        print_sections(write_generation(report))
