"""`qaeval models`, `doctor` and `rubric`: the registry, its endpoints, and rubrics."""

from typing import Annotated

import typer

from qaeval.cli.options import (
    AllowSameFamily,
    AsJson,
    ChunksFile,
    DuplicateIdsOption,
    Endpoints,
    EvalName,
    Fields,
    JudgeName,
    Number,
    Registry,
    RubricName,
    SamplesFile,
    Seed,
    complete_candidate,
    endpoint_urls,
    mapping,
)
from qaeval.cli.terminal import say, say_file
from qaeval.errors import EndpointError


def models(config: Registry = None, as_json: AsJson = False) -> None:
    """List the models and judges of the registry."""
    from qaeval.cli.tables import print_models
    from qaeval.registry.find import find_config

    print_models(find_config(config), as_json=as_json)


def doctor(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Candidates of the planned run; default: the embedded candidates.",
            autocompletion=complete_candidate,
        ),
    ] = None,
    eval_name: EvalName = None,
    chunks: ChunksFile = None,
    samples: SamplesFile = None,
    field: Fields = None,
    duplicate_ids: DuplicateIdsOption = "refuse",
    judge: JudgeName = None,
    rubric: RubricName = None,
    allow_same_family: AllowSameFamily = False,
    n: Number = None,
    seed: Seed = None,
    endpoint: Endpoints = None,
    config: Registry = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Also estimate the memory of each model on one GPU.")
    ] = False,
) -> None:
    """Check the installation, the endpoints and the plan of a run.

    Ends with the next command to run, and with exit code 69 if a server refuses.
    """
    from qaeval.cli.doctor import (
        check_endpoints,
        next_command,
        print_machine,
        print_memory,
        print_plan,
        print_serving,
    )
    from qaeval.registry.find import find_config
    from qaeval.run.plan import find_judging, make_plan

    print_machine()
    registry = find_config(config).with_endpoints(endpoint_urls(endpoint))
    print_serving(registry.serving)
    names = models or ["embedded-lead", "embedded-salient"]
    planned = make_plan(
        registry,
        names,
        eval_name=eval_name,
        chunks=chunks,
        samples=samples,
        fields=mapping(field, "--field"),
        duplicate_ids=duplicate_ids,
        n=n,
        seed=seed,
    )
    judging = find_judging(
        registry,
        planned.candidates,
        judge=judge,
        rubric=rubric or planned.definition.rubric,
        allow_same_family=allow_same_family,
    )
    print_plan(planned, judging)
    if plan:
        print_memory([*planned.candidates, judging.judge], registry.serving.gpu_gib)
    answers = check_endpoints([*planned.candidates, judging.judge], registry)
    # in the next command: every option that shaped this plan
    options = {
        "eval": eval_name,
        "chunks": chunks,
        "samples": samples,
        "duplicate-ids": None if duplicate_ids == "refuse" else duplicate_ids,
        "judge": judge,
        "rubric": rubric,
        "n": n,
        "seed": seed,
        "config": config,
    }
    arguments = [
        word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))
    ]
    arguments += ["--allow-same-family"] if allow_same_family else []
    arguments += [word for value in endpoint or [] for word in ("--endpoint", value)]
    arguments += [word for value in field or [] for word in ("--field", value)]
    say(f"\nnext: {next_command(planned, judging, answers, arguments)}")
    if any(not answer.usable and answer.is_asked for answer in answers.values()):
        raise typer.Exit(EndpointError.exit_code)


def rubric_check(rubric: Annotated[str, typer.Argument(help="Rubric name or file.")]) -> None:
    """Validate a rubric and print its scale and hash."""
    from qaeval.evals.find import conflicts_with_shipped, find_rubric

    checked = find_rubric(rubric)
    say(f"{checked.name} version {checked.version}: valid")
    say("\n".join(f"  {level.letter}  {level.name}: {level.meaning}" for level in checked.scale))
    say(
        f"  flags: {', '.join(flag.name for flag in checked.flags) or 'none'}; {len(checked.examples)} worked examples"
    )
    if checked.flaws:
        say(f"  flaws: {', '.join(flaw.name for flaw in checked.flaws)}")
    if checked.decide == "facts":
        say(
            f"  decides by facts: {', '.join(fact.name for fact in checked.facts)}; its letters have no probabilities"
        )
    say(f"  sha {checked.sha}")
    if conflicts_with_shipped(checked):
        say(
            f"note: qaeval ships another rubric with the name {checked.name} version {checked.version}: rename yours, since "
            "labels name their rubric by name and version",
            error=True,
        )


def rubric_show(rubric: Annotated[str, typer.Argument(help="Rubric name or file.")]) -> None:
    """Print the file of a rubric, for example as the start of a new one."""
    from qaeval.evals.find import rubric_file
    from qaeval.text.visible import visible

    say_file(visible(rubric_file(rubric).read_text(encoding="utf-8")))
