"""Metrics of a running command for Prometheus: ``--metrics-port``.

The counts are plain numbers, which become metrics when they are read: a row costs a few additions. Nothing is
sent; a scraper fetches the metrics.
"""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import ThreadingHTTPServer
from socket import AF_INET6
from socketserver import TCPServer
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Self

from prometheus_client import CollectorRegistry, MetricsHandler
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from qaeval import __version__
from qaeval.chat.protocol import ChatModel, ChatRequest, Completion, special_pieces
from qaeval.errors import UsageError
from qaeval.records import FAILURES, Failure, Generation, Grade
from qaeval.report.facts import MachineFacts

_HOUR: Final = 3600.0
_READ_TIMEOUT_S: Final = 10.0
"""Longest wait for a scraper's next byte."""
_POLL_S: Final = 0.1
"""Longest time that the end of the run waits for the endpoint to close."""


@dataclass
class StageCounts:
    """Counts of one model in one stage."""

    stage: str
    model: str
    n_planned: int = 0
    n_finished: int = 0
    """Tasks of earlier sessions and failures included."""
    n_items: int = 0
    n_cached: int = 0
    n_prompt_tokens: int = 0
    n_completion_tokens: int = 0
    n_in_flight: int = 0
    node_s: float = 0.0
    """Seconds of the machine for this model: loading and work."""
    failures: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(FAILURES, 0)))
    letters: Counter[str] = field(default_factory=Counter)

    def row(self, row: Generation | Grade | Failure) -> None:
        """Count a finished task."""
        self.n_finished += 1
        if (
            row.usage is not None and row.latency_s
        ):  # the tokens of a cached reply were paid by an earlier run
            self.n_prompt_tokens += row.usage.prompt_tokens
            self.n_completion_tokens += row.usage.completion_tokens
        if isinstance(row, Failure):
            self.failures[row.reason] += 1
            return
        self.n_cached += row.cached
        if isinstance(row, Grade):
            self.n_items += 1
            self.letters[row.letter] += 1
        else:
            self.n_items += len(row.items)


class _CountedModel:
    """A model whose requests in flight are counted."""

    def __init__(self, model: ChatModel, counts: StageCounts) -> None:
        self._model, self._counts = model, counts

    async def complete(self, request: ChatRequest) -> Completion:
        """Ask once; raises what the model raises."""
        self._counts.n_in_flight += 1
        try:
            return await self._model.complete(request)
        finally:
            self._counts.n_in_flight -= 1

    async def special_pieces(self, pieces: Collection[str]) -> frozenset[str]:
        """Return the pieces that are special tokens of the model."""
        return await special_pieces(self._model, pieces)


class _Machine:
    """A machine's seconds, shared evenly by the models that work on it at the same time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._working: list[StageCounts] = []
        self._settled_at = clock()

    def settle(self) -> None:
        """Distribute the seconds since the last call over the models at work."""
        now = self._clock()
        for counts in self._working:
            counts.node_s += (now - self._settled_at) / len(self._working)
        self._settled_at = now

    def begin(self, counts: StageCounts, load_s: float) -> None:
        """Begin a model's work, after ``load_s`` seconds of loading."""
        self.settle()
        counts.node_s += load_s
        self._working.append(counts)

    def end(self, counts: StageCounts) -> None:
        """End a model's work."""
        self.settle()
        self._working.remove(counts)


class Exporter:
    """Serves the counts of one process at ``/metrics``; a context manager.

    Args:
        host: Address to listen on.
        port: 0 takes a free one.
        run: The run directory's name.
        eval_name: The eval's name.
        machines: Machine of each model, by the model's name; without a price there is no `qaeval_spend`.
        clock: Monotonic, in seconds.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        run: str,
        eval_name: str,
        machines: Mapping[str, MachineFacts],
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._host, self._port, self._clock = host, port, clock
        self._info = {"run": run, "eval": eval_name, "version": __version__}
        self._machines = machines
        self._counts: dict[tuple[str, str], StageCounts] = {}
        self._busy_machines: dict[tuple[str, str], _Machine] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            self._server = _server(self._host, self._port, registry)
        except (
            OSError,
            OverflowError,
            TypeError,
            UnicodeError,
        ) as error:  # the last three: invalid host or port
            raise UsageError(
                f"--metrics-port {self._port}: cannot listen on {self._host} "
                f"({getattr(error, 'strerror', None) or error}); choose another port, 0 for a free one, or "
                f"another --metrics-host"
            ) from None
        serve = partial(self._server.serve_forever, poll_interval=_POLL_S)
        self._thread = threading.Thread(target=serve, name="metrics", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """URL of the metrics."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._server.server_address[1]}/metrics"

    def counts(self, stage: str, model: str) -> StageCounts:
        """Return the counts of a model's stage, the same object at every call."""
        return self._counts.setdefault((stage, model), StageCounts(stage, model))

    @contextmanager
    def at_work(
        self, stage: str, name: str, model: ChatModel, *, machine: str | None, load_s: float
    ) -> Iterator[ChatModel]:
        """Count a model's requests in flight and, with a server, its machine's seconds while the block runs.

        Args:
            stage: Its name, ``generate`` for example.
            name: The model's name.
            model: The model.
            machine: Host of the machine that works for it; None for embedded models and hosted APIs.
            load_s: Seconds that the start of its server took.

        Yields:
            The model to ask instead.
        """
        counts = self.counts(stage, name)
        if machine is None:
            yield _CountedModel(model, counts)
            return
        facts = self._machines.get(name)
        with self._lock:
            key = (machine, facts.name if facts else "")
            seconds = self._busy_machines.setdefault(key, _Machine(self._clock))
            seconds.begin(counts, load_s)
        try:
            yield _CountedModel(model, counts)
        finally:
            with self._lock:
                seconds.end(counts)

    def collect(self) -> Iterable[Metric]:
        """Return the counts as metrics; called in a thread of the endpoint at each scrape."""
        with self._lock:
            for machine in self._busy_machines.values():
                machine.settle()
        all_counts = list(self._counts.values())
        yield InfoMetricFamily("qaeval_run", "The run and eval of this process.", self._info)
        yield from _by_model(all_counts)
        yield from _by_kind(all_counts)
        yield self._spend(all_counts)

    def _spend(self, all_counts: Iterable[StageCounts]) -> Metric:
        spend: dict[tuple[str, str], float] = {}
        for counts in all_counts:
            machine = self._machines.get(counts.model)
            if machine is not None and machine.price_per_hour is not None and counts.node_s:
                labels = (machine.currency, counts.model)
                spend[labels] = spend.get(labels, 0.0) + counts.node_s / _HOUR * machine.price_per_hour
        description = (
            "Node seconds so far times the registry's price, in its currency; missing without a price."
        )
        family = GaugeMetricFamily("qaeval_spend", description, labels=["currency", "model"])
        for labels, value in spend.items():
            family.add_metric(labels, value)
        return family


def _by_model(all_counts: Iterable[StageCounts]) -> Iterator[Metric]:
    """Yield the metrics whose labels are stage and model."""
    for kind, name, description, attribute in (
        (GaugeMetricFamily, "tasks_planned", "Tasks known so far.", "n_planned"),
        (
            GaugeMetricFamily,
            "tasks_finished",
            "Tasks finished, those of earlier sessions and failures included.",
            "n_finished",
        ),
        (CounterMetricFamily, "items", "Items written (generate) or graded (grade).", "n_items"),
        (
            CounterMetricFamily,
            "cached_replies",
            "Replies from the cache of earlier runs; no request was sent.",
            "n_cached",
        ),
        (
            GaugeMetricFamily,
            "requests_in_flight",
            "Requests without a reply yet, retries and waits included.",
            "n_in_flight",
        ),
        (CounterMetricFamily, "node_seconds", "Seconds of the machine: loading and work.", "node_s"),
    ):
        family = kind(f"qaeval_{name}", description, labels=["stage", "model"])
        for counts in all_counts:
            family.add_metric((counts.stage, counts.model), getattr(counts, attribute))
        yield family


def _by_kind(all_counts: Iterable[StageCounts]) -> Iterator[Metric]:
    """Yield tokens, failures and letters.

    All failure reasons are there from the beginning: Prometheus sees an increase only between two readings of
        a series.
    """
    tokens = CounterMetricFamily(
        "qaeval_tokens", "Tokens as counted by the servers.", labels=["stage", "model", "kind"]
    )
    failures = CounterMetricFamily(
        "qaeval_failures", "Tasks without a result.", labels=["stage", "model", "reason"]
    )
    letters = CounterMetricFamily("qaeval_grades", "Letters given by the judge.", labels=["model", "letter"])
    for counts in all_counts:
        labels = (counts.stage, counts.model)
        tokens.add_metric((*labels, "prompt"), counts.n_prompt_tokens)
        tokens.add_metric((*labels, "completion"), counts.n_completion_tokens)
        for reason, n in counts.failures.copy().items():  # a copy: the stage's thread adds to it
            failures.add_metric((*labels, reason), n)
        if counts.stage != "grade":  # repeats: a second series of the same labels would be an error
            continue
        for letter, n in sorted(counts.letters.copy().items()):
            letters.add_metric((counts.model, letter), n)
    yield from (tokens, failures, letters)


class _Handler(MetricsHandler):
    timeout = _READ_TIMEOUT_S


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind; the parent class would also look up the host's name in the DNS."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the parent's signature
        """Ignore a scraper that disconnects."""


class _Ipv6Server(_Server):
    address_family = AF_INET6


def _server(host: str, port: int, registry: CollectorRegistry) -> _Server:
    server = _Ipv6Server if ":" in host else _Server
    return server((host, port), _Handler.factory(registry))
