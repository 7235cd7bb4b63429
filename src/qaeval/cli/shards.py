"""`qaeval compare --shard` and `qaeval merge`: a run in shards."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qaeval.cli.options import Registry
from qaeval.errors import QaevalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal

    from qaeval.registry.config import Config
    from qaeval.storage.location import Location
    from qaeval.storage.shards import CommittedShard, Shard


def where(argument: str | None, out: str | None, registry: "Config") -> "tuple[Shard, Location]":
    """Read ``--shard`` and its ``--out``.

    Raises:
        UsageError: the shard is not i/N, or ``--out`` is missing or not a location.
        EndpointError: the store is outside the user's own network and not in ``allow_external``.
    """
    from qaeval.storage.location import find_location
    from qaeval.storage.shards import Shard

    if argument is None:
        raise UsageError(
            f"--out {out}: a store takes shards; add --shard 0/1 for the whole run, then `qaeval merge "
            f"{out} --out DIR`"
        )
    shard = Shard.parse(argument)
    if out is None:
        raise UsageError(
            "--shard needs --out: the location of all shards of the run, a folder or s3://BUCKET/PREFIX"
        )
    return shard, find_location(out, allow_external=registry.allow_external)


def compare_shard(
    argument: str | None,
    out: str | None,
    models: list[str],
    *,
    judge: str | None,
    rubric: str | None,
    allow_same_family: bool,
    config: Path | None,
    endpoints: "Mapping[str, str]",
    concurrency: "int | Literal['auto'] | None",
    cache: bool,
    controls: bool,
    hardware: str | None,
    metrics_port: int | None,
    metrics_host: str | None,
    as_json: bool,
    **source: "Any",  # noqa: ANN401 - the arguments of `make_plan`
) -> None:
    """Generate and grade one shard, and commit it; a committed shard stays as it is."""
    from qaeval.api import make_runner
    from qaeval.cli.progress import progress_on_stderr
    from qaeval.registry.find import find_config, find_machines
    from qaeval.run.metrics_port import metrics_served
    from qaeval.run.plan import control_settings, find_judging, make_plan
    from qaeval.storage.shards import CommittedShard, begin, commit

    registry = find_config(config).with_endpoints(endpoints)
    shard, location = where(argument, out, registry)
    plan = make_plan(registry, models, **source)
    judging = find_judging(
        registry,
        plan.candidates,
        judge=judge,
        rubric=rubric or plan.definition.rubric,
        allow_same_family=allow_same_family,
    )
    settings = {**plan.settings(), "grading": judging.settings(), **control_settings(controls=controls)}
    machines = find_machines(registry, [settings], hardware)
    begun = begin(location, shard, settings, plan.samples)
    if isinstance(begun, CommittedShard):
        _print_shard(begun, "was committed before; there is nothing to do", as_json=as_json)
        return
    progress = progress_on_stderr()
    with begun as store:
        sample_ids = shard.samples(plan.samples)
        with _print_resume():
            if sample_ids:
                serve = metrics_served(
                    metrics_port,
                    metrics_host,
                    run=Path(location.name),
                    settings=settings,
                    machines=machines,
                    note=progress.note,
                )
                with (
                    serve as exporter,
                    make_runner(
                        store,
                        registry,
                        concurrency,
                        cache=cache,
                        progress=progress,
                        exporter=exporter,
                        sample_ids=sample_ids,
                    ) as runner,
                ):
                    runner.check(*plan.candidates, judging.judge)
                    # the controls of the first shard are those of the run
                    runner.compare(
                        plan.candidates,
                        plan.definition,
                        judging,
                        controls=controls and shard.index == 0,
                    )
            committed = commit(location, shard, store.path)
    location.tidy(store.path)
    if committed.record.attempt == store.path.name:
        outcome = f"committed: {len(sample_ids):,} of {len(plan.samples):,} samples"
    else:
        outcome = "was committed by another process first; the rows of this process are not used"
    _print_shard(committed, outcome, as_json=as_json)


def merge(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="PLACE...",
            help="Location of the shards, as given to `qaeval compare --out`: a folder or s3://BUCKET/PREFIX.",
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="Run directory to create, or s3://BUCKET/PREFIX.")
    ],
    config: Registry = None,
) -> None:
    """Merge the committed shards of a run.

    The result is the same as the run directory of an unsharded run.
    """
    from qaeval.registry.find import find_config
    from qaeval.storage.location import find_location, is_store
    from qaeval.storage.merge import merge_shards

    allow_external = find_config(config).allow_external
    locations = [find_location(place, allow_external=allow_external) for place in places]
    target = find_location(out, allow_external=allow_external)
    result = merge_shards(locations, target)
    rows = f"{result.n_samples:,} samples, {result.n_generations:,} generations, {result.n_grades:,} grades"
    unchanged = "" if result.is_new else "; the same run was there, nothing was written"
    print(f"{target.name}: {result.n_shards:,} shards, {rows}{unchanged}")
    following = f"merge {shlex.quote(out)} --out DIR" if is_store(out) else f"report {shlex.quote(out)}"
    print(f"next: qaeval {following}")


@contextmanager
def _print_resume() -> Iterator[None]:
    """Print the command that resumes the shard when it ends early; a usage error would only come again."""
    try:
        yield
    except UsageError:
        raise
    except (QaevalError, KeyboardInterrupt):
        print(f"to continue: {shlex.join(['qaeval', *sys.argv[1:]])}", file=sys.stderr)
        raise


def _print_shard(committed: "CommittedShard", outcome: str, *, as_json: bool) -> None:
    record, location = committed.record, committed.location
    if as_json:
        print(json.dumps({"place": location.name, **record.model_dump(mode="json")}))
        return
    print(f"{location.name}: shard {record.shard} {outcome} ({record.attempt}, {record.committed})")
    print(f"when all {record.of} are committed: qaeval merge {shlex.quote(location.name)} --out DIR")
