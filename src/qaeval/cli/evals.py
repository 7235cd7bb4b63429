"""Commands that make evals, and that look at what candidates wrote."""

from pathlib import Path
from typing import Annotated

import typer

from qaeval.cli.options import AsJson, RunDirectory

analyse_app = typer.Typer(help="Look at one side of a run.", no_args_is_help=True, rich_markup_mode=None)


def new_eval(
    name: Annotated[str, typer.Argument(help="Name of the eval and of its folder.")],
    kind: Annotated[
        str, typer.Option("--kind", help="What its items are: qa_pair, answer or preference_pair.")
    ] = "qa_pair",
    folder: Annotated[Path, typer.Option("--folder", help="Where evals stand.")] = Path("evals"),
) -> None:
    """Make the folder of an eval of your own. It works at once, and comments say what to change."""
    from qaeval.corpus.new_eval import first_command
    from qaeval.corpus.new_eval import new_eval as make

    path = make(name, kind=kind, folder=folder)
    print(f"{path}\nnext: {first_command(path, kind)}")


@analyse_app.command("generation")
def generation(run: RunDirectory, as_json: AsJson = False) -> None:
    """Say how a run's candidates write, whatever a judge says. Failures and checks with examples, types, lengths of answers."""
    from qaeval.cli.tables import print_sections
    from qaeval.comparison.generation import analyse_generation, write_generation
    from qaeval.comparison.run_data import eval_facts_of
    from qaeval.storage.run_directory import RunStore

    with RunStore.open(run) as store:
        settings = store.settings()
        found = analyse_generation(
            store.samples(),
            store.generations(),
            eval_facts=eval_facts_of(settings),
            candidates=list(settings["candidates"]),
        )
    if as_json:
        print(found.model_dump_json())
    else:
        print_sections(write_generation(found))
