"""From what was typed to what a run is: files found and read, names resolved, defaults filled in."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from qaeval.config import Config, ModelSpec, load_config
from qaeval.corpus.samples import load_samples
from qaeval.corpus.sampling import draw, sample_set_digest
from qaeval.errors import DataError, UsageError, closest
from qaeval.evaldef import EvalDefinition, load_eval
from qaeval.records import Sample
from qaeval.report.facts import HostedFacts, MachineFacts
from qaeval.rubric import Rubric, load_rubric
from qaeval.surroundings import now

_FORMAT: Final = 1
"""Layout of the run directory; the settings check refuses another one."""

_REGISTRY: Final = "qaeval.yaml"


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


def data_root() -> Path:
    """Return the folder with the registry, evals and rubrics that come with qaeval."""
    installed = Path(__file__).with_name("_data")
    return installed if installed.is_dir() else Path(__file__).parents[2]


def find_config(path: Path | None) -> Config:
    """Read the default registry, the working directory's over it, and the named one on top."""
    default = data_root() / _REGISTRY
    local = Path(_REGISTRY)
    layers = [local] if local.is_file() and local.resolve() != default.resolve() else []
    return load_config(default, *layers, *([path] if path else []))


def find_eval(name: str) -> EvalDefinition:
    """Read an eval by its folder's path or name: ``./evals/NAME`` first, then those that come with qaeval."""
    if name.endswith("eval.yaml") and Path(name).is_file():
        return load_eval(Path(name).parent)
    for place in (Path(name), Path("evals", name), data_root() / "evals" / name):
        if (place / "eval.yaml").is_file():
            return load_eval(place)
    if Path(name).is_dir():
        raise UsageError(f"{name}: a folder without eval.yaml; `qaeval new-eval` makes one that works")
    known = _names("evals", "*/eval.yaml", lambda path: path.parent.name)
    raise UsageError(
        f"no eval {name!r}.{closest(name, known)} Known: {', '.join(known)}; or give the path of its folder"
    )


def find_labels(name: str) -> list[Path]:
    """List the label files of an eval; none where the eval is not there any more."""
    try:
        return list(find_eval(name).label_paths)
    except UsageError:
        return []


def find_rubric(name: str) -> Rubric:
    """Read a rubric by its file's path or name; see `rubric_file`."""
    return load_rubric(rubric_file(name))


def rubric_file(name: str) -> Path:
    """Find a rubric by its file's path or name: ``./rubrics/NAME.yaml`` first, then those that come with qaeval.

    Raises:
        UsageError: there is none; the message lists the names that there are.
    """
    for place in (Path(name), Path("rubrics", f"{name}.yaml"), data_root() / "rubrics" / f"{name}.yaml"):
        if place.is_file():
            return place
    known = _names("rubrics", "*.yaml", lambda path: path.stem)
    raise UsageError(
        f"no rubric {name!r}.{closest(name, known)} Known: {', '.join(known)}; or give the path of its file"
    )


def is_taken(rubric: Rubric) -> bool:
    """Whether a rubric that comes with qaeval has the same name and version, and says something else."""
    shipped = data_root() / "rubrics" / f"{rubric.name}.yaml"
    if not shipped.is_file():
        return False
    other = load_rubric(shipped)
    return (other.name, other.version) == (rubric.name, rubric.version) and other.sha != rubric.sha


def find_judging(
    config: Config, candidates: tuple[ModelSpec, ...], *, judge: str | None, rubric: str
) -> Judging:
    """Resolve who grades these candidates, the registry's default where nobody is named, and by what."""
    return Judging(config.judge(judge) if judge else config.default_judge(candidates), find_rubric(rubric))


def find_machines(
    config: Config, runs: Iterable[Mapping[str, Any]], hardware: str | None
) -> dict[str, MachineFacts]:
    """Say what each model of some runs' settings runs on, as far as the registry knows.

    Args:
        config: The registry.
        runs: Settings of runs.
        hardware: The machine of models whose entry names none; the registry's default where left out.

    Raises:
        UsageError: no machine has that name.
    """
    names = {name for run in runs for name in (*run["candidates"], *_judges(run))}
    found = {name: config.machine(name, hardware) for name in names}
    for machine in found.values():
        if machine is not None:
            _require_past(f"hardware.{machine[0]}", machine[1].as_of)
    return {
        name: MachineFacts(name=machine[0], **machine[1].model_dump(mode="json"))
        for name, machine in found.items()
        if machine is not None
    }


def find_machine(config: Config, name: str) -> MachineFacts:
    """Find one machine of the registry.

    Raises:
        UsageError: none has that name.
    """
    if name not in config.hardware:
        raise UsageError(
            f"no hardware is called {name!r}.{closest(name, config.hardware)} Known: {', '.join(sorted(config.hardware)) or 'none'}"
        )
    _require_past(f"hardware.{name}", config.hardware[name].as_of)
    return MachineFacts(name=name, **config.hardware[name].model_dump(mode="json"))


def find_hosted(config: Config) -> tuple[HostedFacts, ...]:
    """List the prices of other people's APIs that the registry holds, by name."""
    for name, price in config.hosted_prices.items():
        _require_past(f"hosted_prices.{name}", price.as_of)
    return tuple(
        HostedFacts(name=name, **price.model_dump(mode="json"))
        for name, price in sorted(config.hosted_prices.items())
    )


def _require_past(entry: str, as_of: date | None) -> None:
    """Refuse a price of a day that has begun nowhere on earth."""
    tomorrow = date.fromisoformat(now()[:10]) + timedelta(days=1)
    if as_of is not None and as_of > tomorrow:
        raise DataError(
            f"{entry}: as_of {as_of} is in the future; it is the day on which the price was looked up"
        )


def _judges(settings: Mapping[str, Any]) -> list[str]:
    return [settings["grading"]["judge"]["name"]] if settings["grading"] else []


def _names(folder: str, pattern: str, name: Any) -> list[str]:  # noqa: ANN401 - a function of a path
    return sorted({name(path) for root in (Path(), data_root()) for path in (root / folder).glob(pattern)})


def with_endpoints(config: Config, endpoints: Sequence[str]) -> Config:
    """Lay ``NAME=URL`` arguments over the registry.

    Raises:
        UsageError: an argument has another form, or the name is unknown.
    """
    urls: Mapping[str, str] = {}
    for argument in endpoints:
        name, equals, url = argument.partition("=")
        if not (name and equals and url):
            raise UsageError(
                f"--endpoint {argument!r}: expected NAME=URL, like qwen=http://127.0.0.1:8000/v1"
            )
        urls = {**urls, name: url}
    return config.with_endpoints(urls)


def make_plan(
    config: Config,
    names: Sequence[str],
    *,
    eval_name: str,
    chunks: Path | None,
    n: int | None,
    seed: int,
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
    definition = find_eval(eval_name)
    drawn = draw(load_samples(definition, chunks=chunks, samples=samples, fields=fields), n=n, seed=seed)
    return Plan(definition, drawn, candidates, seed)
