"""vLLM's ``/metrics``, read while a stage runs."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from prometheus_client.parser import text_string_to_metric_families

from qaeval.records import COUNTERS, GAUGES, HISTOGRAMS, KV_CACHE, SUCCESSES, counter_growth
from qaeval.serving.client import Server
from qaeval.serving.server import background_task

_OK: Final = 200


def read_metrics(text: str) -> tuple[dict[str, float], tuple[str, ...]]:
    """Read the numbers that qaeval records.

    Args:
        text: Content of ``/metrics``, in Prometheus' format.

    Returns:
        The numbers by name, summed over engines (of the cache's use the maximum), and the names that the
        server does not have; a missing number is never 0.

    Raises:
        ValueError: the text is not in that format.
    """
    names = {*COUNTERS, *GAUGES, *(f"{name}_{part}" for name in HISTOGRAMS for part in ("sum", "count"))}
    buckets = {f"{name}_bucket" for name in HISTOGRAMS}
    values: dict[str, float] = {}
    present = set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name not in names | buckets:
                continue
            present.add(sample.name)
            label = "finished_reason" if sample.name == SUCCESSES else "le" if sample.name in buckets else ""
            key = f"{sample.name} {sample.labels.get(label, '')}".strip()
            before = values.get(key, 0.0)
            is_share = sample.name == KV_CACHE  # shares of several engines do not add up
            values[key] = max(before, sample.value) if is_share else before + sample.value
    return values, tuple(sorted(names - present))


class _Total:
    """The numbers of several servers as those of one, from reading to reading."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, str], float] = {}
        self._counted: dict[str, float] = {}

    def add(self, servers: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Add up the readings of all servers at one moment; counters grow by what each server counted, so that no total falls."""
        total: dict[str, float] = {}
        for index, values in enumerate(servers):
            for name, value in values.items():
                if name in GAUGES:
                    before = total.get(name, 0.0)
                    total[name] = max(before, value) if name == KV_CACHE else before + value
                    continue
                last = self._last.get((index, name), 0.0)
                self._last[index, name] = value
                total[name] = self._counted[name] = self._counted.get(name, 0.0) + counter_growth(last, value)
        return total


class Scraper:
    """Reads the metrics of a model's servers when a stage begins, every few seconds, and when it ends.

    Args:
        servers: All servers of the model; their numbers are added up like those of a server's engines.
        emit: Called with the seconds since the beginning, the numbers and the names that a server does not have. After a
            reading that one of the servers did not answer there are no numbers, and all names are missing.
        every_s: Time between two readings.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        emit: Callable[[float, Mapping[str, float], tuple[str, ...]], None],
        *,
        every_s: float = 5.0,
    ) -> None:
        self._servers = servers
        self._total = _Total()
        self._open = AsyncExitStack()
        self._emit = emit
        self._every_s = every_s
        self._reading = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._start_s = asyncio.get_running_loop().time()
        for server in self._servers:
            await self._open.enter_async_context(server)
        await self._read()
        await self._reading.enter_async_context(background_task(self._keep_reading()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._reading.aclose()
        try:
            if kind is None:
                await self._read()
        finally:
            await self._open.aclose()

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self._read()

    async def _read(self) -> None:
        answers = await asyncio.gather(*(server.ask("/metrics", root=True) for server in self._servers))
        at = asyncio.get_running_loop().time() - self._start_s
        try:
            readings = [read_metrics(answer.content.decode()) for answer in answers if answer.status == _OK]
        except ValueError:
            readings = []
        if len(readings) < len(answers):
            self._emit(at, *read_metrics(""))
            return
        missing = {name for _, names in readings for name in names}
        total = self._total.add([values for values, _ in readings])
        values = {name: value for name, value in total.items() if name.partition(" ")[0] not in missing}
        self._emit(at, values, tuple(sorted(missing)))
