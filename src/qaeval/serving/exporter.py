"""What a run says of itself to a Prometheus while it works: ``--metrics-port``.

The counts are plain numbers that are added to on the way of a row and turned into metrics only when somebody asks, so that nobody
pays for what nobody reads. Nothing is sent anywhere: who wants the numbers fetches them.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from qaeval.chat.protocol import ChatModel, ChatRequest, Completion
from qaeval.errors import UsageError
from qaeval.records import FAILURES, Failure, Generation, Grade
from qaeval.report.facts import MachineFacts

_HOUR: Final = 3600.0
_PATIENCE_S: Final = 10.0
"""Longest wait for a scraper's next byte."""
_POLL_S: Final = 0.1
"""At the run's end nobody waits longer than this for the endpoint to close."""


@dataclass
class Tally:
    """What one model has done in one stage."""

    stage: str
    model: str
    n_planned: int = 0
    n_finished: int = 0
    """Of the planned ones; those of earlier sessions and failures included."""
    n_items: int = 0
    n_cached: int = 0
    n_prompt_tokens: int = 0
    n_completion_tokens: int = 0
    n_in_flight: int = 0
    node_s: float = 0.0
    """Seconds of the machine that were this model's: loading and work."""
    failures: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(FAILURES, 0)))
    letters: Counter[str] = field(default_factory=Counter)

    def row(self, row: Generation | Grade | Failure) -> None:
        """Count a finished task."""
        self.n_finished += 1
        if row.usage is not None and row.latency_s:  # a known reply's tokens were paid by an earlier run
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


class _Counted:
    """A model whose requests in flight are counted."""

    def __init__(self, model: ChatModel, tally: Tally) -> None:
        self._model, self._tally = model, tally

    async def complete(self, request: ChatRequest) -> Completion:
        """Ask once; raises what the model raises."""
        self._tally.n_in_flight += 1
        try:
            return await self._model.complete(request)
        finally:
            self._tally.n_in_flight -= 1


class _Node:
    """A machine's seconds, shared evenly by the models that are at work on it at the same time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at_work: list[Tally] = []
        self._settled = clock()

    def settle(self) -> None:
        """Give the seconds since the last time to who was at work."""
        now = self._clock()
        for tally in self._at_work:
            tally.node_s += (now - self._settled) / len(self._at_work)
        self._settled = now

    def begin(self, tally: Tally, load_s: float) -> None:
        """Let a model work on the machine, which has loaded it for so long."""
        self.settle()
        tally.node_s += load_s
        self._at_work.append(tally)

    def end(self, tally: Tally) -> None:
        """Let a model be done."""
        self.settle()
        self._at_work.remove(tally)


class Exporter:
    """Serves the numbers of one process at ``/metrics``; a context manager.

    Args:
        host: Address to listen at.
        port: 0 takes a free one.
        run: The run directory's name.
        eval_name: What is run.
        machines: What each model runs on, by its name; without a price nothing is said about money.
        clock: Seconds since any moment.
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
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._nodes: dict[tuple[str, str], _Node] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            self._server = _server(self._host, self._port, registry)
        except (OSError, OverflowError, TypeError, UnicodeError) as error:  # the last three: no host, no port
            raise UsageError(
                f"--metrics-port {self._port}: {self._host} cannot be listened at ({getattr(error, 'strerror', None) or error}); "
                "choose another port, 0 for a free one, or another --metrics-host"
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
        """Where the numbers are."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._server.server_address[1]}/metrics"

    def tally(self, stage: str, model: str) -> Tally:
        """Return the counts of a model's stage, always the same ones."""
        return self._tallies.setdefault((stage, model), Tally(stage, model))

    @contextmanager
    def at_work(
        self, stage: str, model: str, asked: ChatModel, *, host: str | None, load_s: float
    ) -> Iterator[ChatModel]:
        """Count requests in flight and, of a model with a server, the machine's seconds while the block runs.

        Args:
            stage: Which one.
            model: Its name.
            asked: The model.
            host: Of its server; None for embedded models.
            load_s: What its server took to start.

        Yields:
            The model to ask instead.
        """
        tally = self.tally(stage, model)
        if host is None:
            yield _Counted(asked, tally)
            return
        machine = self._machines.get(model)
        with self._lock:
            node = self._nodes.setdefault((host, machine.name if machine else ""), _Node(self._clock))
            node.begin(tally, load_s)
        try:
            yield _Counted(asked, tally)
        finally:
            with self._lock:
                node.end(tally)

    def collect(self) -> Iterable[Metric]:
        """Make metrics of the counts; called in a thread of the endpoint for each reading."""
        with self._lock:
            for node in self._nodes.values():
                node.settle()
        tallies = list(self._tallies.values())
        yield InfoMetricFamily("qaeval_run", "What this process works on.", self._info)
        yield from _by_model(tallies)
        yield from _by_kind(tallies)
        yield self._spend(tallies)

    def _spend(self, tallies: Iterable[Tally]) -> Metric:
        spend: dict[tuple[str, str], float] = {}
        for tally in tallies:
            machine = self._machines.get(tally.model)
            if machine is not None and machine.price_per_hour is not None and tally.node_s:
                labels = (machine.currency, tally.model)
                spend[labels] = spend.get(labels, 0.0) + tally.node_s / _HOUR * machine.price_per_hour
        said = "Node seconds so far times the registry's price, in the currency; where no price is known, nothing."
        family = GaugeMetricFamily("qaeval_spend", said, labels=["currency", "model"])
        for labels, value in spend.items():
            family.add_metric(labels, value)
        return family


def _by_model(tallies: Iterable[Tally]) -> Iterator[Metric]:
    """Yield what has no label but stage and model."""
    for kind, name, said, of in (
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
            "Replies known from earlier runs; nothing was asked.",
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
        family = kind(f"qaeval_{name}", said, labels=["stage", "model"])
        for tally in tallies:
            family.add_metric((tally.stage, tally.model), getattr(tally, of))
        yield family


def _by_kind(tallies: Iterable[Tally]) -> Iterator[Metric]:
    """Yield tokens, failures and letters; all reasons from the beginning, so that the first failure is an increase."""
    tokens = CounterMetricFamily(
        "qaeval_tokens", "Tokens as the servers counted them.", labels=["stage", "model", "kind"]
    )
    failures = CounterMetricFamily(
        "qaeval_failures", "Tasks without a result.", labels=["stage", "model", "reason"]
    )
    letters = CounterMetricFamily("qaeval_grades", "Letters that the judge gave.", labels=["model", "letter"])
    for tally in tallies:
        of = (tally.stage, tally.model)
        tokens.add_metric((*of, "prompt"), tally.n_prompt_tokens)
        tokens.add_metric((*of, "completion"), tally.n_completion_tokens)
        for reason, n in tally.failures.copy().items():
            failures.add_metric((*of, reason), n)
        for letter, n in sorted(tally.letters.copy().items()):
            letters.add_metric((tally.model, letter), n)
    yield from (tokens, failures, letters)


class _Handler(MetricsHandler):
    timeout = _PATIENCE_S


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind; the parent would look its own name up in the DNS as well."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the parent's
        """Say nothing of a scraper that hung up."""


class _ServerOf6(_Server):
    address_family = AF_INET6


def _server(host: str, port: int, registry: CollectorRegistry) -> _Server:
    server = _ServerOf6 if ":" in host else _Server
    return server((host, port), _Handler.factory(registry))
