"""Evals, rubrics and labels by name or path."""

from pathlib import Path
from typing import Any

from qaeval.errors import UsageError, closest
from qaeval.evals.definition import EvalDefinition, load_eval
from qaeval.evals.rubric import Rubric, load_rubric


def data_root() -> Path:
    """Return the folder with the registry, evals and rubrics that come with qaeval."""
    installed = Path(__file__).parents[1] / "_data"
    return installed if installed.is_dir() else Path(__file__).parents[3]


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


def _names(folder: str, pattern: str, name: Any) -> list[str]:  # noqa: ANN401 - a function of a path
    return sorted({name(path) for root in (Path(), data_root()) for path in (root / folder).glob(pattern)})
