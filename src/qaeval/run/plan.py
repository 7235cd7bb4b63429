"""From what was typed to what a run is: files found and read, names resolved, defaults filled in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from qaeval.corpus.samples import load_samples
from qaeval.corpus.sampling import draw, sample_set_digest
from qaeval.errors import UsageError
from qaeval.evals.definition import EvalDefinition
from qaeval.evals.find import find_eval, find_rubric
from qaeval.evals.rubric import Rubric
from qaeval.records import Sample
from qaeval.registry.config import Config, ModelSpec

_FORMAT: Final = 1
"""Layout of the run directory; the settings check refuses another one."""


@dataclass(frozen=True)
class Plan:
    """What a run asks of whom."""

    definition: EvalDefinition
    samples: tuple[Sample, ...]
    candidates: tuple[ModelSpec, ...]
    seed: int

    def settings(self) -> dict[str, Any]:
        """What must be the same when the run is resumed, as JSON. Where a model is served may change."""
        return {
            "format": _FORMAT,
            "eval": {**self.definition.model_dump(mode="json"), "digest": self.definition.digest},
            "sample_set": {
                "n": len(self.samples),
                "seed": self.seed,
                "digest": sample_set_digest(self.samples),
            },
            "candidates": {spec.name: described(spec) for spec in self.candidates},
            "grading": None,
        }


@dataclass(frozen=True)
class Judging:
    """Who grades, and by which rubric.

    Raises:
        UsageError: the rubric is for preference pairs, and the judge cannot grade them.
    """

    judge: ModelSpec
    rubric: Rubric

    def __post_init__(self) -> None:
        if self.rubric.grades_pairs and not self.judge.grades_pairs:
            raise UsageError(
                f"{self.judge.name!r} does not grade preference pairs, which rubric {self.rubric.name!r} is for, and qaeval has no judge "
                f"of its own that does: name a judge model with --judge NAME (`qaeval generate` needs no judge)"
            )

    def settings(self) -> dict[str, Any]:
        """What must be the same when grading is resumed, as JSON."""
        rubric = {**self.rubric.model_dump(mode="json"), "sha": self.rubric.sha}
        return {"judge": {"name": self.judge.name, **described(self.judge)}, "rubric": rubric}


def described(spec: ModelSpec) -> dict[str, Any]:
    """Return what a report says about a model and its replies depend on."""
    about = spec.model_dump(
        mode="json",
        include={"licence", "openness", "released", "family", "parameters", "quantisation", "tuned_on"},
    )
    return {**spec.identity(), **about}


def find_judging(
    config: Config, candidates: tuple[ModelSpec, ...], *, judge: str | None, rubric: str
) -> Judging:
    """Resolve who grades these candidates, the registry's default where nobody is named, and by what."""
    return Judging(config.judge(judge) if judge else config.default_judge(candidates), find_rubric(rubric))


def make_plan(
    config: Config,
    names: Sequence[str],
    *,
    eval_name: str | None,
    chunks: Path | None,
    n: int | None,
    seed: int | None,
    samples: Path | None = None,
    fields: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """Resolve the candidates and draw the one sample set that all of them get.

    Raises:
        UsageError: a name is unknown or given twice, or ``n`` is more than there is.
        DataError: a file is not what it has to be.
    """
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise UsageError(f"{twice[0]!r} is named twice; each candidate is compared once")
    candidates = tuple(config.candidate(name) for name in names)
    definition = find_eval(eval_name or config.defaults.eval)
    seed = config.defaults.seed if seed is None else seed
    drawn = draw(load_samples(definition, chunks=chunks, samples=samples, fields=fields), n=n, seed=seed)
    return Plan(definition, drawn, candidates, seed)
