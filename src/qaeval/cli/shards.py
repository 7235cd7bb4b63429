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
    from qaeval.storage.location import Place
    from qaeval.storage.shards import Committed, Shard


def where(typed: str | None, out: str | None, registry: "Config") -> "tuple[Shard, Place]":
    """Read ``--shard`` and the ``--out`` that goes with it.

    Raises:
        UsageError: not i/N, no place, or a place that cannot be one.
        EndpointError: a store outside the user's own network that is not named in ``allow_external``.
    """
    from qaeval.storage.location import place_of
    from qaeval.storage.shards import Shard

    if typed is None:
        raise UsageError(
            f"--out {out}: a store takes shards; add --shard 0/1 for the whole run as one, then `qaeval merge {out} --out DIR`"
        )
    shard = Shard.parse(typed)
    if out is None:
        raise UsageError(
            "--shard needs --out: where all shards of the run are kept, a folder or s3://BUCKET/PREFIX"
        )
    return shard, place_of(out, allow_external=registry.allow_external)


def compare_shard(
    typed: str | None,
    out: str | None,
    models: list[str],
    *,
    judge: str | None,
    rubric: str | None,
    config: Path | None,
    endpoints: "Mapping[str, str]",
    concurrency: "int | Literal['auto'] | None",
    cache: bool,
    hardware: str | None,
    metrics_port: int | None,
    metrics_host: str | None,
    as_json: bool,
    **source: "Any",  # noqa: ANN401 - the arguments of `make_plan`
) -> None:
    """Generate and grade one shard, and commit it; a shard that is committed is left as it is."""
    from qaeval.api import make_runner
    from qaeval.cli.progress import progress_on_stderr
    from qaeval.registry.find import find_config, find_machines
    from qaeval.run.metrics_port import metrics_served
    from qaeval.run.plan import find_judging, make_plan
    from qaeval.storage.shards import Committed, begin, commit

    registry = find_config(config).with_endpoints(endpoints)
    shard, place = where(typed, out, registry)
    plan = make_plan(registry, models, **source)
    judging = find_judging(registry, plan.candidates, judge=judge, rubric=rubric or plan.definition.rubric)
    settings = {**plan.settings(), "grading": judging.settings()}
    machines = find_machines(registry, [settings], hardware)
    begun = begin(place, shard, settings, plan.samples)
    if isinstance(begun, Committed):
        _tell(begun, "was committed before, there is nothing to do", as_json=as_json)
        return
    progress = progress_on_stderr()
    with begun as store:
        own = shard.samples(plan.samples)
        with _repeatable():
            if own:
                serve = metrics_served(
                    metrics_port,
                    metrics_host,
                    run=Path(place.name),
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
                        sample_ids=own,
                    ) as runner,
                ):
                    runner.check(*plan.candidates, judging.judge)
                    runner.compare(plan.candidates, plan.definition, judging)
            stands = commit(place, shard, store.path)
    place.tidy(store.path)
    ours = stands.mark.attempt == store.path.name
    said = f"committed: {len(own):,} of {len(plan.samples):,} samples"
    lost = "was committed by another process first; the rows of this one are not used"
    _tell(stands, said if ours else lost, as_json=as_json)


def merge(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="PLACE...", help="Where the shards are kept: their --out, a folder or s3://BUCKET/PREFIX."
        ),
    ],
    out: Annotated[str, typer.Option("--out", help="Run directory to make, or s3://BUCKET/PREFIX.")],
    config: Registry = None,
) -> None:
    """Put the committed shards of a run together. The run directory is like that of a run made in one."""
    from qaeval.registry.find import find_config
    from qaeval.storage.location import is_store, place_of
    from qaeval.storage.merge import merge as put_together

    allowed = find_config(config).allow_external
    found = [place_of(place, allow_external=allowed) for place in places]
    target = place_of(out, allow_external=allowed)
    merged = put_together(found, target)
    rows = f"{merged.n_samples:,} samples, {merged.n_generations:,} generations, {merged.n_grades:,} grades"
    print(
        f"{target.name}: {merged.n_shards:,} shards, {rows}{'' if merged.is_new else '; the same run was there'}"
    )
    following = f"merge {shlex.quote(out)} --out DIR" if is_store(out) else f"report {shlex.quote(out)}"
    print(f"next: qaeval {following}")


@contextmanager
def _repeatable() -> Iterator[None]:
    """Tell how to go on when a shard ends before its end; what was typed wrong is not typed again."""
    try:
        yield
    except UsageError:
        raise
    except (QaevalError, KeyboardInterrupt):
        print(f"to go on, the same again: {shlex.join(['qaeval', *sys.argv[1:]])}", file=sys.stderr)
        raise


def _tell(stands: "Committed", what: str, *, as_json: bool) -> None:
    mark = stands.mark
    if as_json:
        print(json.dumps({"place": stands.place.name, **mark.model_dump(mode="json")}))
        return
    print(f"{stands.place.name}: shard {mark.shard} {what} ({mark.attempt}, {mark.committed})")
    print(f"when all {mark.of} are committed: qaeval merge {shlex.quote(stands.place.name)} --out DIR")
