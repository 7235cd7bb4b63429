"""Look up evals, rubrics and labels by name or path."""

from pathlib import Path
from typing import Any

from qaeval.errors import UsageError, closest
from qaeval.evals.definition import EvalDefinition, load_eval
from qaeval.evals.rubric import Rubric, load_rubric
from qaeval.files.rows import explained


def data_root() -> Path:
    """Return the folder of the shipped registry, evals and rubrics."""
    installed = Path(__file__).parents[1] / "_data"
    return installed if installed.is_dir() else Path(__file__).parents[3]


def find_eval(name: str) -> EvalDefinition:
    """Read an eval by name or folder: ``./evals/NAME`` first, then the evals that qaeval ships."""
    if name.endswith("eval.yaml") and Path(name).is_file():
        return load_eval(Path(name).parent)
    for folder in (Path(name), Path("evals", name), data_root() / "evals" / name):
        with explained(folder / "eval.yaml", "reading"):
            is_eval = (folder / "eval.yaml").is_file()
        if is_eval:
            return load_eval(folder)
    if Path(name).is_dir():
        raise UsageError(f"{name}: no eval.yaml in this folder; `qaeval new-eval` creates a working eval")
    names = _names("evals", "*/eval.yaml", lambda path: path.parent.name)
    raise UsageError(
        f"unknown eval {name!r}.{closest(name, names)} Known: {', '.join(names)}; "
        f"or pass the path of its folder"
    )


def find_labels(name: str) -> list[Path]:
    """List the label files of an eval; empty if the eval no longer exists."""
    try:
        return list(find_eval(name).label_paths)
    except UsageError:
        return []


def find_rubric(name: str) -> Rubric:
    """Read a rubric by name or path; see `rubric_file`."""
    return load_rubric(rubric_file(name))


def rubric_file(name: str) -> Path:
    """Find a rubric file by name or path: ``./rubrics/NAME.yaml`` first, then the rubrics that qaeval ships.

    Raises:
        UsageError: no rubric has the name; the message lists the known names.
    """
    for candidate in (Path(name), Path("rubrics", f"{name}.yaml"), data_root() / "rubrics" / f"{name}.yaml"):
        with explained(candidate, "reading"):
            if candidate.is_file():
                return candidate
    names = _names("rubrics", "*.yaml", lambda path: path.stem)
    raise UsageError(
        f"unknown rubric {name!r}.{closest(name, names)} Known: {', '.join(names)}; "
        f"or pass the path of its file"
    )


def conflicts_with_shipped(rubric: Rubric) -> bool:
    """Whether a shipped rubric has the same name and version but another content."""
    shipped = data_root() / "rubrics" / f"{rubric.name}.yaml"
    if not shipped.is_file():
        return False
    shipped_rubric = load_rubric(shipped)
    return (shipped_rubric.name, shipped_rubric.version) == (
        rubric.name,
        rubric.version,
    ) and shipped_rubric.sha != rubric.sha


def _names(folder: str, pattern: str, name: Any) -> list[str]:  # noqa: ANN401 - a function of a path
    return sorted({name(path) for root in (Path(), data_root()) for path in (root / folder).glob(pattern)})
