"""Comparison of the same candidates across runs, for ``qaeval compare-runs``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qaeval.analysis.candidates import rate_by_cluster
from qaeval.comparison.analysis import RunData
from qaeval.comparison.correction import correct_differences
from qaeval.comparison.differences import compare_candidates
from qaeval.comparison.run_data import join_runs, read_run
from qaeval.errors import NotComparableError, UsageError
from qaeval.history.model import HistoryRate, RunComparison, RunPair
from qaeval.report.facts import judge_prompt_change
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
    for store in stores:
        store.require_run()
    runs = {store.name: read_run(store, label_paths=label_paths) for store in stores}
    if len(runs) < len(stores):
        raise UsageError("two run directories have the same name, which identifies a run; rename one of them")
    first_name, *names = runs
    first = {facts.name: facts.variant for facts in runs[first_name].candidates}
    matched = [
        (name, facts.variant, counterpart)
        for name in names
        for facts in runs[name].candidates
        if (counterpart := facts.variant.counterpart(first.values()))
    ]
    pairs = [
        (f"{counterpart.name}@{first_name}", f"{variant.name}@{name}")
        for name, variant, counterpart in matched
    ]
    joined = join_runs(runs)
    if not pairs:
        raise NotComparableError(
            f"no candidate of {first_name} ({', '.join(sorted(first))}) is in {' or '.join(names)}; "
            f"to compare different candidates, use `qaeval report {first_name} {' '.join(names)}`"
        )
    table = joined.table()
    table = table.assign(candidate=table["candidate"].map(_joined_names(runs)))
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
    settings = {store.name: store.settings() for store in stores}
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
        settings=tuple(
            " ".join(
                filter(None, (_settings(first_name, name, settings), _judge_prompt(first_name, name, runs)))
            )
            for name in names
        ),
        prompts=tuple(
            change
            for name, variant, counterpart in matched
            if (change := variant.change_from(counterpart, run=name, earlier=first_name))
        ),
        left_out=_left_out(runs, compared),
    )


def _judge_prompt(first_name: str, name: str, runs: Mapping[str, RunData]) -> str:
    judge, earlier = runs[name].judge, runs[first_name].judge
    return judge_prompt_change(judge.name, judge.prompt_sha, earlier.prompt_sha, run=name, earlier=first_name)


def _joined_names(runs: Mapping[str, RunData]) -> dict[str, str]:
    """Return the name with its run, ``mistral@night``, of each candidate as `join_runs` names it."""
    names: dict[str, str] = {}
    for run, data in runs.items():
        for facts in data.candidates:
            full = f"{facts.name}@{run}"
            names[full if facts.name in names else facts.name] = full
    return names


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
        return f"The settings of {name} equal those of {first_name}."
    return f"The settings of {name} differ from {first_name}: {changed}."
