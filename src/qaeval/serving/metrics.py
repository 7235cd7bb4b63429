"""vLLM's ``/metrics``, read while a stage runs."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from prometheus_client.parser import text_string_to_metric_families

from qaeval.records import COUNTERS, GAUGES, HISTOGRAMS, KV_CACHE, SUCCESSES
from qaeval.serving.client import Server
from qaeval.serving.server import background_task

_OK: Final = 200


def read_metrics(text: str) -> tuple[dict[str, float], tuple[str, ...]]:
    """Read the numbers that qaeval records.

    Args:
        text: Content of ``/metrics``, in Prometheus' format.

    Returns:
        The numbers by name, summed over engines (of the cache's use the maximum), and the names that the server does not
        have; a missing number is never 0.

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


class Scraper:
    """Reads a server's metrics when a stage begins, every few seconds, and when it ends.

    Args:
        server: The server.
        emit: Called with the seconds since the beginning, the numbers and the missing names; after a failed reading there
            are no numbers, and all names are missing.
        every_s: Time between two readings.
    """

    def __init__(
        self,
        server: Server,
        emit: Callable[[float, Mapping[str, float], tuple[str, ...]], None],
        *,
        every_s: float = 5.0,
    ) -> None:
        self._server = server
        self._emit = emit
        self._every_s = every_s
        self._reading = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._start_s = asyncio.get_running_loop().time()
        await self._server.__aenter__()
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
            await self._server.__aexit__(kind, error, traceback)

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self._read()

    async def _read(self) -> None:
        answer = await self._server.ask("/metrics", root=True)
        at = asyncio.get_running_loop().time() - self._start_s
        try:
            text = answer.content.decode() if answer.status == _OK else ""
            values, missing = read_metrics(text)
        except ValueError:
            values, missing = read_metrics("")
        self._emit(at, values, missing)
