"""`qaeval compare --shard` and `qaeval merge`: a run in shards."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from qaeval.cli.options import Registry
from qaeval.errors import QaevalError, UsageError

if TYPE_CHECKING:
    from qaeval.registry.config import Config
    from qaeval.run.plan import Judging, Plan
    from qaeval.run.runner import Runner
    from qaeval.storage.location import Location
    from qaeval.storage.run_directory import RunStore
    from qaeval.storage.shards import CommittedShard, Shard

    _Start = Callable[[RunStore, frozenset[str]], AbstractContextManager[Runner]]
    """Opens the runner for the samples with these ids."""


def where(argument: str | None, out: str | None, registry: "Config") -> "tuple[Shard, Location] | None":
    """Read ``--shard`` and its ``--out``; None for a run without shards.

    Raises:
        UsageError: the shard is not i/N, or ``--out`` is missing or not a location.
        EndpointError: the store is outside the user's own network and not in ``allow_external``.
    """
    from qaeval.storage.location import find_location, is_store
    from qaeval.storage.shards import Shard

    if argument is None:
        if out is not None and is_store(out):
            raise UsageError(
                f"--out {out}: a store takes shards; add --shard 0/1 for the whole run, then `qaeval merge "
                f"{out} --out DIR`"
            )
        return None
    shard = Shard.parse(argument)
    if out is None:
        raise UsageError(
            "--shard needs --out: the location of all shards of the run, a folder or s3://BUCKET/PREFIX"
        )
    return shard, find_location(out, allow_external=registry.allow_external)


def compare_shard(
    shard: "Shard", location: "Location", plan: "Plan", judging: "Judging", start: "_Start", *, as_json: bool
) -> None:
    """Generate and grade one shard, and commit it; a committed shard stays as it is."""
    from qaeval.storage.shards import CommittedShard, begin, commit

    settings = {**plan.settings(), "grading": judging.settings()}
    begun = begin(location, shard, settings, plan.samples)
    if isinstance(begun, CommittedShard):
        _print_shard(begun, "was committed before; there is nothing to do", as_json=as_json)
        return
    with begun as store:
        sample_ids = shard.samples(plan.samples)
        with _print_resume():
            if sample_ids:
                with start(store, sample_ids) as runner:
                    runner.check(*plan.candidates, judging.judge)
                    runner.compare(plan.candidates, plan.definition, judging)
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
            metavar="PLACE...", help="Location of the shards: their --out, a folder or s3://BUCKET/PREFIX."
        ),
    ],
    out: Annotated[str, typer.Option("--out", help="Run directory to create, or s3://BUCKET/PREFIX.")],
    config: Registry = None,
) -> None:
    """Merge the committed shards of a run.

    The result is a run directory like that of a run without shards.
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
        print(f"to resume: {shlex.join(['qaeval', *sys.argv[1:]])}", file=sys.stderr)
        raise


def _print_shard(committed: "CommittedShard", outcome: str, *, as_json: bool) -> None:
    record, location = committed.record, committed.location
    if as_json:
        print(json.dumps({"place": location.name, **record.model_dump(mode="json")}))
        return
    print(f"{location.name}: shard {record.shard} {outcome} ({record.attempt}, {record.committed})")
    print(f"when all {record.of} are committed: qaeval merge {shlex.quote(location.name)} --out DIR")
