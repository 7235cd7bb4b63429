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
    from qaeval.storage.location import Place
    from qaeval.storage.run_directory import RunStore
    from qaeval.storage.shards import Committed, Shard

    _Start = Callable[[RunStore, frozenset[str]], AbstractContextManager[Runner]]
    """Makes what asks the models about the samples with these ids."""


def where(typed: str | None, out: str | None, registry: "Config") -> "tuple[Shard, Place] | None":
    """Read ``--shard`` and the ``--out`` that goes with it; None for a run that is made in one.

    Raises:
        UsageError: not i/N, no place, or a place that cannot be one.
        EndpointError: a store outside the user's own network that is not named in ``allow_external``.
    """
    from qaeval.storage.location import is_store, place_of
    from qaeval.storage.shards import Shard

    if typed is None:
        if out is not None and is_store(out):
            raise UsageError(
                f"--out {out}: a store takes shards; add --shard 0/1 for the whole run as one, then `qaeval merge {out} --out DIR`"
            )
        return None
    shard = Shard.parse(typed)
    if out is None:
        raise UsageError(
            "--shard needs --out: where all shards of the run are kept, a folder or s3://BUCKET/PREFIX"
        )
    return shard, place_of(out, allow_external=registry.allow_external)


def compare_shard(
    shard: "Shard", place: "Place", plan: "Plan", judging: "Judging", start: "_Start", *, as_json: bool
) -> None:
    """Generate and grade one shard, and commit it; a shard that is committed is left as it is."""
    from qaeval.storage.shards import Committed, begin, commit

    settings = {**plan.settings(), "grading": judging.settings()}
    begun = begin(place, shard, settings, plan.samples)
    if isinstance(begun, Committed):
        _tell(begun, "was committed before, there is nothing to do", as_json=as_json)
        return
    with begun as store:
        own = shard.samples(plan.samples)
        with _repeatable():
            if own:
                with start(store, own) as runner:
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
