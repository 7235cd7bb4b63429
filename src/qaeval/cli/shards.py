"""`qaeval compare --shard` and `qaeval merge`: a run in shards."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qaeval.cli.options import Registry, command_line
from qaeval.cli.terminal import say, say_json
from qaeval.errors import QaevalError, UsageError

if TYPE_CHECKING:
    from qaeval.api import ShardResult
    from qaeval.storage.shards import Shard


def shard_of(argument: str | None, out: str | None) -> "tuple[Shard, str]":
    """Parse ``--shard`` and its ``--out``.

    Raises:
        UsageError: the shard is not i/N, or one of the two options is missing.
    """
    from qaeval.storage.shards import Shard

    if argument is None:
        raise UsageError(
            f"--out {out}: a store holds shards; add --shard 0/1 for the whole run, then `qaeval merge "
            f"{out} --out DIR`"
        )
    shard = Shard.parse(argument)
    if out is None:
        raise UsageError(
            "--shard requires --out: the location of all shards of the run, a folder or s3://BUCKET/PREFIX"
        )
    return shard, out


@contextmanager
def resumable_shard() -> Iterator[None]:
    """Print the command that resumes a shard that was begun; a usage error would only come again."""
    try:
        yield
    except UsageError:
        raise
    except (QaevalError, KeyboardInterrupt) as error:
        if getattr(error, "__notes__", None):
            say(f"to continue: {shlex.join(['qaeval', *sys.argv[1:]])}", error=True)
        raise


def print_shard(result: "ShardResult", *, as_json: bool) -> None:
    """Print the committed shard and the next command."""
    record, location = result.committed.record, result.committed.location
    if as_json:
        say_json({"place": location.name, **record.model_dump(mode="json")})
        return
    outcome = {
        "committed": f"committed: {result.n_samples:,} of {result.n_samples_of_run:,} samples",
        "committed before": "was committed before; nothing to do",
        "committed by another process": "was committed by another process first; the rows of this process are not used",
    }[result.outcome]
    say(f"{location.name}: shard {record.shard} {outcome} ({record.attempt}, {record.committed})")
    say(f"when all {record.of} are committed: qaeval merge {shlex.quote(location.name)} --out DIR")


def merge(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="PLACE",
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
    from qaeval.storage.run_directory import RunStore

    allow_external = find_config(config).allow_external
    locations = [find_location(place, allow_external=allow_external) for place in places]
    target = find_location(out, allow_external=allow_external)
    result = merge_shards(locations, target)
    rows = f"{result.n_samples:,} samples, {result.n_generations:,} generations, {result.n_grades:,} grades"
    if result.is_new and not is_store(out):
        with RunStore.open(Path(out), writable=True) as store:
            store.keep_command(command_line())
    unchanged = "" if result.is_new else "; the same run is there already, nothing was written"
    say(f"{target.name}: {result.n_shards:,} shards, {rows}{unchanged}")
    following = f"merge {shlex.quote(out)} --out DIR" if is_store(out) else f"report {shlex.quote(out)}"
    say(f"next: qaeval {following}")
