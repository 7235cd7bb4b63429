"""The same candidates in several runs: what ``qaeval compare-runs`` computes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qaeval.analysis.candidates import rate_by_cluster
from qaeval.comparison.analysis import RunData
from qaeval.comparison.differences import compare_candidates
from qaeval.comparison.run_data import join_runs, read_run
from qaeval.errors import NotComparableError, UsageError
from qaeval.history.model import HistoryRate, RunComparison, RunPair
from qaeval.storage.run_directory import RunStore, differences


def compare_runs(stores: Sequence[RunStore], *, margin: float) -> RunComparison:
    """Compare the candidates that runs have in common, each later run with the first one, paired by chunk.

    Args:
        stores: At least two finished runs.
        margin: Smallest difference that matters, in (0, 1).

    Raises:
        NotComparableError: eval, samples, rubric or judge differ, or no candidate is in the first run and another one.
        UsageError: two of the directories have the same name.
        DataError: a run is not finished.
    """
    runs = {store.path.name: read_run(store, label_paths=()) for store in stores}
    if len(runs) < len(stores):
        raise UsageError("two of the run directories have the same name; rename one, it tells runs apart")
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
            f"different candidates are put side by side by `qaeval report {first_name} {' '.join(names)}`"
        )
    table = joined.table()
    table = table.assign(candidate=table["candidate"].map(lambda name: _at(name, first, first_name)))
    best = joined.rubric.best
    compared = list(dict.fromkeys(name for pair in pairs for name in pair))
    results = compare_candidates(
        table[table["candidate"].isin(compared)], candidates=compared, best=best, margin=margin, pairs=pairs
    )
    rates = {
        name: rate_by_cluster(rows, rows["letter"] == best)
        for name, rows in table.groupby("candidate", sort=False)
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
    """Say of which run a candidate is, also of the first one."""
    return f"{name}@{first_name}" if name in first else name


def _left_out(runs: Mapping[str, RunData], compared: Sequence[str]) -> tuple[str, ...]:
    names = (f"{facts.name}@{name}" for name, run in runs.items() for facts in run.candidates)
    return tuple(name for name in names if name not in compared)


def _settings(first_name: str, name: str, settings: Mapping[str, Mapping[str, Any]]) -> str:
    # files and counts of an import are no settings
    changed = differences(
        *(
            {key: value for key, value in settings[run].items() if key != "imported"}
            for run in (first_name, name)
        )
    )
    if not changed:
        return f"{name} has the settings of {first_name}."
    return f"{name} has other settings than {first_name}: {changed}."
