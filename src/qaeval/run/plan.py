"""From arguments to the plan of a run: files read, names resolved, defaults filled in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from qaeval.corpus.loading import DuplicateIds
from qaeval.corpus.samples import load_samples
from qaeval.corpus.sampling import Allocation, draw, sample_set_digest
from qaeval.errors import UsageError
from qaeval.evals.definition import EvalDefinition, load_prompts
from qaeval.evals.find import find_eval, find_rubric
from qaeval.evals.rubric import Rubric
from qaeval.files.spool import SpooledRows
from qaeval.records import Sample, digest
from qaeval.registry.config import Config, ModelSpec
from qaeval.registry.family import relation
from qaeval.registry.model import PromptedModel, prompted, recorded_model

_FORMAT: Final = 1
"""Version of the run directory's layout; a run of another version cannot be resumed."""


@dataclass(frozen=True)
class Plan:
    """The eval, samples and candidates of a run."""

    definition: EvalDefinition
    samples: SpooledRows[Sample]
    candidates: tuple[ModelSpec, ...]
    seed: int

    @cached_property
    def digest(self) -> str:
        """Hash of the sample set."""
        return sample_set_digest(self.samples)

    def settings(self) -> dict[str, Any]:
        """Return what must be equal when the run is resumed, as JSON. The address of a model may change."""
        return {
            "format": _FORMAT,
            "eval": {**self.definition.model_dump(mode="json"), "digest": self.definition.digest},
            "sample_set": {
                "n": len(self.samples),
                "seed": self.seed,
                "digest": self.digest,
            },
            "candidates": {spec.name: described(spec) for spec in self.candidates},
            "grading": None,
        }


@dataclass(frozen=True)
class Judging:
    """The judge and its rubric.

    Attributes:
        judge: The model that grades.
        rubric: How it grades.
        same_family: Whether the judge is related to a candidate, and the user allowed that.
        note: Why the judge is not the registry's default; empty where it is, or was named.

    Raises:
        UsageError: the rubric is for preference pairs or asks for facts, and the judge cannot answer it.
    """

    judge: ModelSpec
    rubric: Rubric
    same_family: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        if self.rubric.grades_pairs and not self.judge.grades_pairs:
            raise UsageError(
                f"{self.judge.name!r} does not grade preference pairs, the items of rubric "
                f"{self.rubric.name!r}, and qaeval has no built-in judge that does: name a judge model with "
                f"--judge NAME (`qaeval generate` needs no judge)"
            )
        if self.rubric.decide == "facts" and self.judge.kind == "embedded":
            raise UsageError(
                f"{self.judge.name!r} gives letters by rules of its own, and rubric {self.rubric.name!r} asks for facts: "
                f"name a judge model with --judge NAME, or another rubric with --rubric"
            )

    def settings(self) -> dict[str, Any]:
        """Return what must be equal when grading is resumed, as JSON."""
        rubric = {**self.rubric.model_dump(mode="json"), "sha": self.rubric.sha}
        # only where it was needed, so that runs from before the option can be resumed
        allowed = {"allow_same_family": True} if self.same_family else {}
        return {"judge": {"name": self.judge.name, **described(self.judge)}, "rubric": rubric, **allowed}


def control_settings(*, controls: bool) -> dict[str, Any]:
    """Return what a run's settings say of planted controls: nothing where it has them, as runs did before there were any."""
    return {} if controls else {"controls": False}


def described(spec: ModelSpec) -> dict[str, Any]:
    """Return what identifies a model in a report, and all settings that its replies depend on."""
    facts = spec.model_dump(
        mode="json",
        include={"licence", "openness", "released", "family", "parameters", "quantisation", "tuned_on"},
    )
    prompt = {"prompt": spec.prompt.model_dump(mode="json")} if isinstance(spec, PromptedModel) else {}
    return {**spec.identity(), **facts, **prompt}


_DESCRIPTIONS: Final = frozenset(
    {"licence", "openness", "released", "family", "parameters", "quantisation", "tuned_on"}
)
"""Settings that describe a judge and do not change its letters."""


def judge_digest(judge: Mapping[str, Any]) -> str:
    """Return the hash of a judge's settings: equal where its letters are those of the same judge.

    What does not change its letters, and what is not set, is left out: a later version may know more settings.

    Args:
        judge: ``grading.judge`` in the settings of a run.
    """
    return digest(
        {
            key: value
            for key, value in judge.items()
            if key not in _DESCRIPTIONS and value not in (None, "", [], {})
        }
    )


def find_judging(
    config: Config,
    candidates: tuple[ModelSpec, ...],
    *,
    judge: str | None,
    rubric: str,
    allow_same_family: bool = False,
    recorded: Mapping[str, Any] | None = None,
) -> Judging:
    """Resolve judge and rubric.

    Args:
        config: The registry.
        candidates: Models whose items are graded.
        judge: Name of the judge; default: that of `recorded`, else the registry's for these candidates.
        rubric: Name or file of the rubric.
        allow_same_family: Whether the judge may be related to a candidate.
        recorded: Judge and rubric in the settings of a run whose grading has begun. Its judge was accepted then.

    Raises:
        UsageError: judge or rubric is unknown, the judge is related to a candidate, or the letters were imported.
    """
    if recorded and judge in {None, recorded["judge"]["name"]}:
        if recorded["judge"]["kind"] == "imported":
            raise UsageError(
                f"the letters of this run were imported as those of {recorded['judge']['name']}, which cannot be asked; name "
                "another judge with --judge"
            )
        spec = config.judge(recorded["judge"]["name"])
        return Judging(spec, find_rubric(rubric), same_family=bool(recorded.get("allow_same_family")))
    spec = config.judge(judge) if judge else config.default_judge(candidates)
    same_family = is_related(config, spec, candidates, allowed=allow_same_family)
    default = config.defaults.judge
    note = ""
    if judge is None and not spec.in_process and spec.name != default:
        note = f"judge: {spec.name}; {default}, the default, is related to a candidate"
    return Judging(spec, find_rubric(rubric), same_family=same_family, note=note)


def is_related(config: Config, judge: ModelSpec, candidates: tuple[ModelSpec, ...], *, allowed: bool) -> bool:
    """Whether a judge is of the family of a candidate, or the same model or server.

    Args:
        config: The registry, for the judges that are not.
        judge: The judge.
        candidates: Models whose items it grades.
        allowed: Whether that is allowed.

    Raises:
        UsageError: it is, and that is not allowed; the message names other judges.
    """
    relations = {candidate.name: text for candidate in candidates if (text := relation(judge, candidate))}
    if relations and not allowed:
        related = "; ".join(f"{name}: {text}" for name, text in relations.items())
        others = ", ".join(spec.name for spec in config.foreign_judges(candidates))
        raise UsageError(
            f"the judge {judge.name} is related to a candidate ({related}), and judges prefer the words of their own "
            f"family. Take another judge (--judge, {f'for example {others}' if others else 'of another family'}), or "
            f"allow it with --allow-same-family; the report then says so. `family:` in qaeval.yaml states or corrects a family"
        )
    return bool(relations)


def judging_of_run(
    config: Config,
    settings: Mapping[str, Any],
    *,
    judge: str | None,
    rubric: str | None,
    allow_same_family: bool = False,
) -> Judging:
    """Resolve judge and rubric of a run: the arguments, else those that graded it before, else the defaults.

    Raises:
        UsageError: as `find_judging`.
    """
    return find_judging(
        config,
        recorded_candidates(config, settings),
        judge=judge,
        rubric=rubric or rubric_of(settings),
        allow_same_family=allow_same_family,
        recorded=settings.get("grading"),
    )


def recorded_candidates(config: Config, settings: Mapping[str, Any]) -> tuple[ModelSpec, ...]:
    """Return the candidates of a run: their entries in the registry, else what the settings of the run say of them."""
    return tuple(_recorded(config, name, about) for name, about in settings["candidates"].items())


def _recorded(config: Config, name: str, about: Mapping[str, Any]) -> ModelSpec:
    recorded = recorded_model(name, about)
    try:
        entry = config.candidate(recorded.entry)
    except UsageError:
        return recorded
    return prompted(entry, recorded.prompt) if isinstance(recorded, PromptedModel) else entry


def rubric_of(settings: Mapping[str, Any]) -> str:
    """Return name or path of the rubric by which a run is graded where none is named."""
    imported = settings.get("imported") or {}
    return str(imported.get("rubric") or settings["eval"]["rubric"])


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
    duplicate_ids: DuplicateIds = "refuse",
    allocation: Allocation = "proportional",
    prompts: Sequence[str] = (),
) -> Plan:
    """Resolve the candidates and draw the sample set that all of them share.

    With `prompts` each model is a candidate with each of them; without, with the eval's.

    Raises:
        UsageError: a name is unknown or given twice, or ``n`` samples cannot be drawn.
        DataError: a file is not valid.
    """
    duplicates = sorted({name for name in names if list(names).count(name) > 1})
    if duplicates:
        raise UsageError(f"{duplicates[0]!r} is named twice; name each candidate once")
    models = tuple(config.candidate(name) for name in names)
    definition = find_eval(eval_name or config.defaults.eval)
    own_prompts = load_prompts(definition, prompts)
    candidates = tuple(prompted(spec, prompt) for spec in models for prompt in own_prompts) or models
    seed = config.defaults.seed if seed is None else seed
    available = load_samples(
        definition, chunks=chunks, samples=samples, fields=fields, duplicate_ids=duplicate_ids
    )
    sample_set = draw(available, n=n, seed=seed, allocation=allocation)
    return Plan(definition, sample_set, candidates, seed)
