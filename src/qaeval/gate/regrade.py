"""Grading the stored replies of a baseline with the judge of a run, so that runs with different judges can be compared."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from qaeval.errors import NotComparableError, UsageError
from qaeval.evals.rubric import Rubric
from qaeval.files.rows import file_sha256
from qaeval.files.whole import whole_folder
from qaeval.records import digest
from qaeval.registry.config import Config
from qaeval.run.plan import Judging, described, is_related, recorded_candidates
from qaeval.run.runner import Runner
from qaeval.storage.run_directory import GENERATIONS, METRICS, SAMPLES, SESSIONS, RunStore
from qaeval.storage.runs import REGRADED

MakeRunner: TypeAlias = Callable[[RunStore], Runner]
"""Makes the engine that grades an open run."""


def regrade(
    baseline: Path,
    run: Path,
    config: Config,
    make_runner: MakeRunner,
    *,
    allow_same_family: bool = False,
) -> Path:
    """Grade a baseline's replies with judge and rubric of a run, in a copy beside it; a stopped one continues.

    Args:
        baseline: Run directory with the stored replies; it is not changed.
        run: Run directory whose judge and rubric are taken.
        config: The registry, which knows the judge's server.
        make_runner: Makes the engine of a run directory.
        allow_same_family: Whether the judge may be of the family of a candidate of the baseline.

    Returns:
        The copy, ``<baseline>.regraded-<hash of its replies, judge and rubric>``.

    Raises:
        UsageError: The baseline is no run directory, the run is not graded, or its judge is of the family of a candidate of
            the baseline.
        NotComparableError: The registry's judge is not the one that graded the run.
    """
    if not (baseline / GENERATIONS).is_file():
        raise UsageError(
            f"--regrade needs the baseline's replies: {baseline} is no run directory. Give the run that the baseline was set from"
        )
    with RunStore.open(run) as store:
        judging = judging_by(store, config)
    with RunStore.open(baseline) as store:
        candidates = recorded_candidates(config, store.settings())
    allowed = allow_same_family or judging.same_family
    judging = replace(judging, same_family=is_related(config, judging.judge, candidates, allowed=allowed))
    replies = file_sha256(baseline / GENERATIONS)
    copy = baseline.with_name(f"{baseline.name}{REGRADED}{digest([replies, judging.settings()])[:8]}")
    if not copy.is_dir():
        _copy(baseline, copy)
    with RunStore.open(copy, writable=True) as store, make_runner(store) as runner:
        runner.check(judging.judge)
        runner.grade(judging)
    return copy


def judging_by(store: RunStore, config: Config, name: str = "") -> Judging:
    """Return a judge of a run from the registry, and its rubric from the run's own settings.

    Args:
        store: The run.
        config: The registry.
        name: A judge that graded the run; default: the first.

    Raises:
        UsageError: The run is not graded.
        NotComparableError: The registry's judge is not the one that graded the run.
    """
    grading: dict[str, Any] = store.further_judges().get(name) or store.settings().get("grading") or {}
    if not grading:
        raise UsageError(f"{store.path}: not graded yet; `qaeval grade {store.path}` comes first")
    judge = config.judge(grading["judge"]["name"])
    recorded = {key: value for key, value in grading["judge"].items() if key != "name"}
    if described(judge) != recorded:
        different = sorted(key for key in recorded if described(judge).get(key) != recorded[key])
        raise NotComparableError(
            f"the registry's judge {judge.name} is not the one that graded {store.path}: it differs in {', '.join(different)}; "
            f"grade the run again, or restore the registry"
        )
    rubric = {key: value for key, value in grading["rubric"].items() if key != "sha"}
    return Judging(judge, Rubric.model_validate(rubric), same_family=bool(grading.get("allow_same_family")))


def _copy(baseline: Path, copy: Path) -> None:
    """Copy everything but the letters, whole or not at all."""
    with whole_folder(copy) as partial, RunStore.open(baseline) as store:
        for name in (SAMPLES, GENERATIONS, METRICS):
            if (baseline / name).is_file():
                shutil.copyfile(baseline / name, partial / name)
        target = RunStore(partial)
        target.write_settings({**store.settings(), "grading": None})
        sessions = [session for session in store.sessions() if session.stage == "generate"]
        target.write_text(SESSIONS, "".join(session.model_dump_json() + "\n" for session in sessions))
