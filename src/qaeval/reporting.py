"""From finished runs to reports: one run with its files written, or several side by side."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from qaeval import __version__
from qaeval.errors import UsageError
from qaeval.joining import join_runs
from qaeval.publish import Written, analyse, publish
from qaeval.records import Session
from qaeval.report.facts import HostedFacts, MachineFacts, RunFacts
from qaeval.rundata import RunData
from qaeval.store import RunStore
from qaeval.surroundings import git_commit, now


def write_report(
    store: RunStore,
    *,
    label_paths: Sequence[Path],
    margin: float,
    machines: Mapping[str, MachineFacts],
    command: str,
    offers: Sequence[HostedFacts] = (),
) -> Written:
    """Analyse a run, write its reports, and mark it complete with the manifest.

    Args:
        store: The run.
        label_paths: Files of labels, one or more raters each.
        margin: Smallest difference of usable rates that matters.
        machines: What each model runs on, by its name.
        command: What the user typed.
        offers: What other people's APIs take for tokens.

    Raises:
        DataError: the run is not finished, or a label file is not readable.
    """
    facts = _facts(store.path.name, store.sessions(), command=command, warnings=store.warnings)
    return publish(store, facts, label_paths=label_paths, margin=margin, machines=machines, offers=offers)


def read_report(
    stores: Sequence[RunStore],
    *,
    label_paths: Sequence[Path],
    margin: float,
    machines: Mapping[str, MachineFacts],
    command: str,
    offers: Sequence[HostedFacts] = (),
) -> Written:
    """Analyse a finished run, or several side by side; write nothing.

    Raises:
        NotComparableError: several runs differ in more than their candidates.
        DataError: a run is not finished, or a label file is not readable.
    """
    if len(stores) > 1:
        return join_reports(
            stores, label_paths=label_paths, margin=margin, machines=machines, command=command, offers=offers
        )
    (store,) = stores
    facts = _facts(store.path.name, store.sessions(), command=command, warnings=store.warnings)
    return analyse(
        RunData.read(store, label_paths=label_paths), facts, margin=margin, machines=machines, offers=offers
    )


def join_reports(
    stores: Sequence[RunStore],
    *,
    label_paths: Sequence[Path],
    margin: float,
    machines: Mapping[str, MachineFacts],
    command: str,
    offers: Sequence[HostedFacts] = (),
) -> Written:
    """Analyse several runs of the same eval, samples, rubric and judge side by side; write nothing.

    Raises:
        NotComparableError: they differ in more than their candidates.
        DataError: a run is not finished, or a label file is not readable.
    """
    runs = {store.path.name: RunData.read(store, label_paths=label_paths) for store in stores}
    if len(runs) < len(stores):
        raise UsageError(
            "two of the run directories have the same name; rename one, it tells candidates apart"
        )
    data = join_runs(runs)
    warnings = [text for store in stores for text in store.warnings]
    facts = _facts(" and ".join(runs), data.rows.sessions, command=command, warnings=warnings)
    known = {one.name: one.name.partition("@")[0] for one in (*data.candidates, data.judge)}
    named = {name: machines[model] for name, model in known.items() if model in machines}
    return replace(analyse(data, facts, margin=margin, machines=named, offers=offers), has_charts=False)


def _facts(name: str, sessions: Sequence[Session], *, command: str, warnings: Sequence[str]) -> RunFacts:
    return RunFacts(
        id=name,
        started=min((session.started for session in sessions), default=now()),
        finished=now(),
        qaeval_version=__version__,
        git_commit=git_commit(),
        python=platform.python_version(),
        platform=platform.platform(),
        command=command,
        warnings=tuple(warnings),
    )
