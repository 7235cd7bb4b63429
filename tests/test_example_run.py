"""The finished run in results/example is what today's code makes, and every document of it says so."""

import json
from pathlib import Path
from typing import Any

import pytest

from qaeval.cli import run

EXAMPLE = Path(__file__).parents[1] / "results" / "example"
WHEN = {"timing", "latency_s", "seconds", "started", "finished"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "example"
    words = ["--n", "12", "--seed", "7", "--out", str(path)]
    assert run(["compare", "embedded-lead", "embedded-salient", *words]) == 0
    return path


def timeless(value: Any) -> Any:
    """Leave out what may differ between two equal runs."""
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key not in WHEN}
    return [timeless(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", ["settings.json", "samples.jsonl", "generations.jsonl", "grades.jsonl"])
@pytest.mark.slow
def test_the_rows_are_the_same(made: Path, name: str) -> None:
    def rows(folder: Path) -> list[str]:
        lines = (
            (folder / name).read_text().splitlines() if name.endswith("l") else [(folder / name).read_text()]
        )
        return sorted(json.dumps(timeless(json.loads(line)), sort_keys=True) for line in lines)

    assert rows(made) == rows(EXAMPLE)


def test_the_report_is_the_same(made: Path) -> None:
    reports = [timeless(json.loads((folder / "report.json").read_text())) for folder in (made, EXAMPLE)]
    for report in reports:
        del report["run"]
    assert reports[0] == reports[1]


def test_it_is_small_and_complete() -> None:
    size = sum(path.stat().st_size for path in EXAMPLE.iterdir())
    assert size < 1_000_000
    assert (EXAMPLE / "manifest.json").is_file()
