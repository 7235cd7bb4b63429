"""The example run in results/example equals a new run of the current code."""

import json
from pathlib import Path
from typing import Any

import pytest

from qaeval.cli import run

EXAMPLE = Path(__file__).parents[1] / "results" / "example"
TIME_KEYS = {"timing", "latency_s", "seconds", "started", "finished"}


@pytest.fixture(scope="module")
def new_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "example"
    arguments = ["--n", "12", "--seed", "7", "--out", str(path)]
    assert run(["compare", "embedded-lead", "embedded-salient", *arguments]) == 0
    return path


def without_times(value: Any) -> Any:
    """Remove the keys that may differ between two equal runs."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIME_KEYS}
    return [without_times(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", ["settings.json", "samples.jsonl", "generations.jsonl", "grades.jsonl"])
@pytest.mark.slow
def test_a_new_run_has_the_rows_of_the_example(new_run: Path, name: str) -> None:
    def read_rows(folder: Path) -> list[str]:
        lines = (
            (folder / name).read_text().splitlines() if name.endswith("l") else [(folder / name).read_text()]
        )
        return sorted(json.dumps(without_times(json.loads(line)), sort_keys=True) for line in lines)

    assert read_rows(new_run) == read_rows(EXAMPLE)


def test_a_new_run_has_the_report_of_the_example(new_run: Path) -> None:
    reports = [
        without_times(json.loads((folder / "report.json").read_text())) for folder in (new_run, EXAMPLE)
    ]
    for report in reports:
        del report["run"]
    assert reports[0] == reports[1]


def test_the_example_is_small_and_complete() -> None:
    size = sum(path.stat().st_size for path in EXAMPLE.iterdir())
    assert size < 1_000_000
    assert (EXAMPLE / "manifest.json").is_file()
