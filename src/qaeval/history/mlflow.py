"""Store runs on an MLflow tracking server in the user's own network, and read them back.

Each qaeval run is an MLflow run. Its usable rates are metrics, which MLflow can plot. The tag ``qaeval.run`` and one tag
``qaeval.rate.<n>`` per candidate hold the complete `HistoryRun`, so that reading loses nothing.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from qaeval.chat.guard import check_host
from qaeval.chat.resolver import pinned_lookups
from qaeval.environment import quiet_mlflow
from qaeval.errors import EndpointError, UsageError, install_command
from qaeval.history.model import HistoryRate, HistoryRun, Unread
from qaeval.records import record_id

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

_KEY: Final = "qaeval.key"
_RUN: Final = "qaeval.run"
_RATE: Final = "qaeval.rate."
_PAGE: Final = 1000
"""Runs per request; servers may return fewer."""


def fetch(url: str, experiment: str) -> tuple[tuple[HistoryRun, ...], tuple[Unread, ...]]:
    """Read the runs of an experiment; runs of other programs are listed as unread.

    Args:
        url: URL of the tracking server, in the user's own network.
        experiment: Name of the experiment.

    Raises:
        EndpointError: the server is outside the user's network, does not answer, or has no such experiment.
        UsageError: MLflow is not installed.
    """
    with _connected(url) as client:
        existing = client.get_experiment_by_name(experiment)
        if existing is None:
            raise EndpointError(f"{url}: no experiment {experiment!r}; name another one with --experiment")
        return _read_all(_runs(client, existing.experiment_id))


def push(url: str, experiment: str, runs: Sequence[HistoryRun]) -> tuple[str, ...]:
    """Write the runs that the server does not have; creates the experiment if it is missing.

    Returns:
        Names of the written runs.

    Raises:
        EndpointError: the server is outside the user's network, or does not answer.
        UsageError: MLflow is not installed.
    """
    with _connected(url) as client:
        existing = client.get_experiment_by_name(experiment)
        experiment_id = existing.experiment_id if existing else client.create_experiment(experiment)
        known_keys = {run.data.tags.get(_KEY) for run in _runs(client, experiment_id)}
        new = [run for run in runs if _key(run) not in known_keys]
        for run in new:
            _write(client, experiment_id, run)
    return tuple(run.name for run in new)


@contextmanager
def _connected(url: str) -> "Iterator[MlflowClient]":
    """Yield a client that connects to the addresses that the guard checked, and to no others."""
    location = check_host(url, allow_external=(url,))
    if location.external:
        raise EndpointError(
            f"{url}: expected a tracking server in your own network, {location.host!r} is outside; results are sent nowhere else"
        )
    quiet_mlflow(location.host)
    try:
        from mlflow.tracking import MlflowClient  # noqa: PLC0415 - an extra that takes seconds to import
    except ImportError as error:
        raise UsageError(f"a tracking server needs MLflow's client: {install_command('mlflow')}") from error
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        with pinned_lookups(location.addresses):
            yield MlflowClient(tracking_uri=url)
    except (MlflowException, OSError) as error:
        raise EndpointError(
            f"{url}: expected an MLflow tracking server, got: {_cause(str(error))}"
        ) from error


def _cause(text: str) -> str:
    """Return the system error in a message of MLflow's client, else the start of the message."""
    cause = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text)
    return cause[1] if cause else " ".join(text.split())[:200]


def _runs(client: "MlflowClient", experiment_id: str) -> Iterator["Run"]:
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _read_all(stored: Iterable["Run"]) -> tuple[tuple[HistoryRun, ...], tuple[Unread, ...]]:
    runs, unread = [], []
    for run in stored:
        try:
            runs.append(_read(run))
        except (KeyError, ValidationError):
            name = str(run.info.run_name or run.info.run_id)
            unread.append(Unread(name=name, reason="not written by this version of qaeval"))
    return tuple(runs), tuple(unread)


def _read(run: "Run") -> HistoryRun:
    tags = run.data.tags
    bare = HistoryRun.model_validate_json(tags[_RUN])
    n = sum(name.startswith(_RATE) for name in tags)
    rates = tuple(HistoryRate.model_validate_json(tags[f"{_RATE}{index}"]) for index in range(n))
    return bare.model_copy(update={"rates": rates})


def _write(client: "MlflowClient", experiment_id: str, run: HistoryRun) -> None:
    from mlflow.entities import Param  # noqa: PLC0415

    rates = {f"{_RATE}{index}": rate.model_dump_json() for index, rate in enumerate(run.rates)}
    bare = run.model_copy(update={"rates": ()}).model_dump_json()
    started = int(datetime.fromisoformat(run.started).timestamp() * 1000)
    created = client.create_run(
        experiment_id, start_time=started, run_name=run.name, tags={_KEY: _key(run), _RUN: bare, **rates}
    )
    facts = {"eval": run.eval, "judge": run.judge, "rubric": run.rubric, "samples": str(run.n_samples)}
    client.log_batch(
        created.info.run_id,
        metrics=list(_metrics(run, started)),
        params=[Param(name, value) for name, value in facts.items()],
    )
    client.set_terminated(created.info.run_id, "FINISHED")


def _metrics(run: HistoryRun, started: int) -> Iterator["Metric"]:
    from mlflow.entities import Metric  # noqa: PLC0415

    for rate in run.rates:
        name = re.sub(r"[^\w.\- ]", "_", rate.candidate)
        for end in ("value", "low", "high"):
            number = getattr(rate.usable, end)
            if number is not None:
                yield Metric(f"usable_rate/{name}/{end}", number, started, 0)


def _key(run: HistoryRun) -> str:
    return record_id("history", run.name, run.started)
