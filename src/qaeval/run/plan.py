"""From arguments to the plan of a run: files read, names resolved, defaults filled in."""

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
"""Version of the run directory's layout; a run of another version cannot be resumed."""


@dataclass(frozen=True)
class Plan:
    """The eval, samples and candidates of a run."""

    definition: EvalDefinition
    samples: tuple[Sample, ...]
    candidates: tuple[ModelSpec, ...]
    seed: int

    def settings(self) -> dict[str, Any]:
        """Return what must be equal when the run is resumed, as JSON. The address of a model may change."""
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
    """The judge and its rubric.

    Raises:
        UsageError: the rubric is for preference pairs, and the judge cannot grade them.
    """

    judge: ModelSpec
    rubric: Rubric

    def __post_init__(self) -> None:
        if self.rubric.grades_pairs and not self.judge.grades_pairs:
            raise UsageError(
                f"{self.judge.name!r} does not grade preference pairs, the items of rubric "
                f"{self.rubric.name!r}, and qaeval has no built-in judge that does: name a judge model with "
                f"--judge NAME (`qaeval generate` needs no judge)"
            )

    def settings(self) -> dict[str, Any]:
        """Return what must be equal when grading is resumed, as JSON."""
        rubric = {**self.rubric.model_dump(mode="json"), "sha": self.rubric.sha}
        return {"judge": {"name": self.judge.name, **described(self.judge)}, "rubric": rubric}


def control_settings(*, controls: bool) -> dict[str, Any]:
    """Return what a run's settings say of planted controls: nothing where it has them, as runs did before there were any."""
    return {} if controls else {"controls": False}


def described(spec: ModelSpec) -> dict[str, Any]:
    """Return what identifies a model in a report, and all settings that its replies depend on."""
    facts = spec.model_dump(
        mode="json",
        include={"licence", "openness", "released", "family", "parameters", "quantisation", "tuned_on"},
    )
    return {**spec.identity(), **facts}


def find_judging(
    config: Config, candidates: tuple[ModelSpec, ...], *, judge: str | None, rubric: str
) -> Judging:
    """Resolve judge and rubric; without a name the judge is the registry's default for these candidates."""
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
    """Resolve the candidates and draw the sample set that all of them share.

    Raises:
        UsageError: a name is unknown or given twice, or ``n`` exceeds the number of samples.
        DataError: a file is not valid.
    """
    duplicates = sorted({name for name in names if list(names).count(name) > 1})
    if duplicates:
        raise UsageError(f"{duplicates[0]!r} is named twice; name each candidate once")
    candidates = tuple(config.candidate(name) for name in names)
    definition = find_eval(eval_name or config.defaults.eval)
    seed = config.defaults.seed if seed is None else seed
    sample_set = draw(load_samples(definition, chunks=chunks, samples=samples, fields=fields), n=n, seed=seed)
    return Plan(definition, sample_set, candidates, seed)
