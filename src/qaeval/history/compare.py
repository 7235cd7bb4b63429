"""Comparison of the same candidates across runs, for ``qaeval compare-runs``."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qaeval.analysis.candidates import rate_by_cluster
from qaeval.comparison.analysis import RunData
from qaeval.comparison.correction import correct_differences
from qaeval.comparison.differences import compare_candidates
from qaeval.comparison.run_data import join_runs, read_run
from qaeval.errors import NotComparableError, UsageError
from qaeval.history.model import HistoryRate, RunComparison, RunPair
from qaeval.storage.run_directory import RunStore, differences


def compare_runs(
    stores: Sequence[RunStore], *, margin: float, label_paths: Sequence[Path] = ()
) -> RunComparison:
    """Compare the candidates of each later run with those of the first run, paired by chunk.

    Where a rater labelled all items of a candidate, in both runs, in 10 chunks or more, the difference corrected by those labels
    decides, as in a report.

    Args:
        stores: At least two finished runs.
        margin: Smallest difference that matters, in (0, 1).
        label_paths: Files of labels.

    Raises:
        NotComparableError: eval, samples, rubric or judge differ, or no later run shares a candidate with the first.
        UsageError: two of the directories have the same name.
        DataError: a run is not finished, or a label file is not readable.
    """
    runs = {store.path.name: read_run(store, label_paths=label_paths) for store in stores}
    if len(runs) < len(stores):
        raise UsageError("two run directories have the same name, which identifies a run; rename one of them")
    first_name, *names = runs
    first = {facts.name for facts in runs[first_name].candidates}
    pairs = [
        (f"{facts.name}@{first_name}", f"{facts.name}@{name}")
        for name in names
        for facts in runs[name].candidates
        if facts.name in first
    ]
    joined = join_runs(runs)
    if not pairs:
        raise NotComparableError(
            f"no candidate of {first_name} ({', '.join(sorted(first))}) is in {' or '.join(names)}; "
            f"to compare different candidates, use `qaeval report {first_name} {' '.join(names)}`"
        )
    table = joined.table()
    table = table.assign(candidate=table["candidate"].map(lambda name: _at(name, first, first_name)))
    best = joined.rubric.best
    compared = list(dict.fromkeys(name for pair in pairs for name in pair))
    rows = table[table["candidate"].isin(compared)]
    results = correct_differences(
        compare_candidates(rows, candidates=compared, best=best, margin=margin, pairs=pairs),
        rows,
        joined.rows.labels,
        rubric=joined.rubric,
        margin=margin,
        judge_tuned=joined.judge_tuned,
    )
    rates = {
        name: rate_by_cluster(group, group["letter"] == best)
        for name, group in table.groupby("candidate", sort=False)
    }
    settings = {store.path.name: store.settings() for store in stores}
    return RunComparison(
        runs=tuple(runs),
        pairs=tuple(
            RunPair(
                candidate=a.rpartition("@")[0],
                first=HistoryRate(candidate=a, usable=rates[a]),
                other=HistoryRate(candidate=b, usable=rates[b]),
                difference=pair,
            )
            for (a, b), pair in zip(pairs, results, strict=True)
        ),
        settings=tuple(_settings(first_name, name, settings) for name in names),
        left_out=_left_out(runs, compared),
    )


def _at(name: str, first: Iterable[str], first_name: str) -> str:
    """Add the name of the first run to a candidate; `join_runs` adds it to candidates of the other runs only."""
    return f"{name}@{first_name}" if name in first else name


def _left_out(runs: Mapping[str, RunData], compared: Sequence[str]) -> tuple[str, ...]:
    names = (f"{facts.name}@{name}" for name, run in runs.items() for facts in run.candidates)
    return tuple(name for name in names if name not in compared)


def _settings(first_name: str, name: str, settings: Mapping[str, Mapping[str, Any]]) -> str:
    changed = differences(settings[first_name], settings[name])
    if not changed:
        return f"The settings of {name} equal those of {first_name}."
    return f"The settings of {name} differ from {first_name}: {changed}."
