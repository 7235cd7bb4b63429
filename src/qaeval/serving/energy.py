"""Energy of a stage: by its server's GPU counters, else by integrated power; and the GPUs' idle power."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Final, Self, TypeAlias

from qaeval.records import Energy, EnergyMethod, GpuEnergy
from qaeval.serving.gpus import GpuReading, Meter, NotMeteredError
from qaeval.serving.server import background_task

_EVERY_S: Final = 1.0
_IDLE_S: Final = 3.0
_N_IDLE_READINGS: Final = 6
_GAP_S: Final = 5.0
"""A longer time without a reading is noted in the record."""
_MIN_COVERAGE: Final = 0.95
"""Share of the stage that readings must cover to represent all of it."""
_MIN_UPDATES: Final = 5
"""Updates that a slow counter needs during a stage: each end is wrong by one update at most."""
_MIN_SPACING_S: Final = 0.4
"""Readings closer than this may see the same number although the counter runs."""

_Series: TypeAlias = Sequence[tuple[float, float]]
"""Seconds and values of one GPU."""

NOT_ALONE: Final = "another stage ran at the same time; set `idle_watts:`"
NOT_IDLE: Final = (
    "the server had other requests before the stage, or does not report its load; set `idle_watts:`"
)


@dataclass(frozen=True, slots=True)
class MeterReading:
    """Readings of all GPUs at one moment, by UUID; a GPU that did not answer is missing."""

    at_s: float
    gpus: Mapping[str, GpuReading]


@dataclass(frozen=True, slots=True)
class MeasuredEnergy:
    """Energy between the first and the last reading."""

    method: EnergyMethod
    seconds: float
    gpus: tuple[GpuEnergy, ...]
    notes: tuple[str, ...]

    @property
    def joules(self) -> float:
        """Sum over all GPUs."""
        return sum(gpu.joules for gpu in self.gpus)


def measure(readings: Sequence[MeterReading]) -> MeasuredEnergy:
    """Compute the energy between the first and the last reading.

    By the counters, where every GPU has one that is updated often enough; else by the power, integrated by
    the trapezoid rule.

    Raises:
        NotMeteredError: the readings do not cover their time, or an exporter updates its numbers too seldom
            for it.
    """
    seconds = readings[-1].at_s - readings[0].at_s if readings else 0.0
    names = {uuid: gpu.name for reading in readings for uuid, gpu in reading.gpus.items()}
    counters = {uuid: _series(readings, uuid, "joules") for uuid in names}
    powers = {uuid: _series(readings, uuid, "watts") for uuid in names}
    coarse = [uuid for uuid, series in counters.items() if _covers(series, seconds) and _is_coarse(series)]
    if coarse:
        # no fallback to power: an exporter updates both at the same time
        n_updates = min(_n_updates(counters[uuid]) for uuid in coarse)
        raise NotMeteredError(
            f"the counter of {', '.join(coarse)} was updated {n_updates} times in {seconds:.0f} s, too "
            f"seldom for a stage of this length; a DCGM exporter updates every 30 s unless its collect "
            f"interval is set"
        )
    if names and all(_covers(series, seconds) for series in counters.values()):
        gpus = tuple(GpuEnergy(gpu=uuid, name=names[uuid], joules=_counted(counters[uuid])) for uuid in names)
        return MeasuredEnergy("energy counter", seconds, gpus, _counter_notes(counters))
    if names and all(_covers(series, seconds) for series in powers.values()):
        gpus = tuple(
            GpuEnergy(gpu=uuid, name=names[uuid], joules=_integrated(powers[uuid])) for uuid in names
        )
        return MeasuredEnergy("integrated power", seconds, gpus, _power_notes(powers))
    raise NotMeteredError(f"the readings of the GPUs do not cover the {seconds:.0f} s of the stage")


def _series(readings: Sequence[MeterReading], uuid: str, quantity: str) -> _Series:
    gpus = ((reading.at_s, reading.gpus.get(uuid)) for reading in readings)
    values = ((at_s, None if gpu is None else getattr(gpu, quantity)) for at_s, gpu in gpus)
    return [(at_s, value) for at_s, value in values if value is not None]


def _covers(series: _Series, seconds: float) -> bool:
    return len(series) > 1 and series[-1][0] - series[0][0] >= _MIN_COVERAGE * seconds > 0


def _counted(series: _Series) -> float:
    """Add up the growth of a counter; a smaller value than before means that it was reset to 0."""
    return sum(later - before if later >= before else later for (_, before), (_, later) in pairwise(series))


def _integrated(series: _Series) -> float:
    return sum((before + later) / 2 * (end - start) for (start, before), (end, later) in pairwise(series))


def _n_updates(series: _Series) -> int:
    return sum(later != before for (_, before), (_, later) in pairwise(series))


def _has_stalls(series: _Series) -> bool:
    return any(
        later == before and end - start > _MIN_SPACING_S for (start, before), (end, later) in pairwise(series)
    )


def _is_coarse(series: _Series) -> bool:
    return _has_stalls(series) and _n_updates(series) < _MIN_UPDATES


def _counter_notes(counters: Mapping[str, _Series]) -> tuple[str, ...]:
    notes = []
    for uuid, series in counters.items():
        if any(later < before for (_, before), (_, later) in pairwise(series)):
            notes.append(f"the counter of {uuid} was reset: its energy since the reading before is missing")
        if _has_stalls(series):
            interval_s = (series[-1][0] - series[0][0]) / _n_updates(series)
            notes.append(
                f"the counter of {uuid} is updated about every {interval_s:.0f} s: each end of the stage is "
                f"uncertain by this time"
            )
    return tuple(notes)


def _power_notes(powers: Mapping[str, _Series]) -> tuple[str, ...]:
    notes = []
    for uuid, series in powers.items():
        gaps = [end - start for (start, _), (end, _) in pairwise(series) if end - start > _GAP_S]
        if gaps:
            notes.append(
                f"{uuid}: no reading for more than {_GAP_S:g} s: {len(gaps)} "
                f"gap{'s' if len(gaps) > 1 else ''}, {sum(gaps):.0f} s in all; the power in a gap is "
                f"interpolated linearly"
            )
    return tuple(notes)


class EnergyWatch:
    """Reads the GPUs of a stage's server while the stage runs; an async context manager, after `before`.

    Args:
        meter: Reads the GPUs.
        idle_watts: Power with the model loaded and no request, from the registry; None: measured by `before`.
        is_idle: Returns whether the server has no request.
        alone: Whether no other stage runs at the same time.
        idle_s: Duration of the measurement of `before`.
        every_s: Time between two readings.
        sleep: Waits; tests pass one that takes no time.
        clock: Seconds of a clock that `sleep` advances; None: the event loop's.
    """

    def __init__(
        self,
        meter: Meter,
        *,
        idle_watts: float | None,
        is_idle: Callable[[], Awaitable[bool]],
        alone: bool = True,
        idle_s: float = _IDLE_S,
        every_s: float = _EVERY_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._meter = meter
        self._idle_watts = idle_watts
        self._is_given = idle_watts is not None
        self._is_idle = is_idle
        self._alone = alone
        self._idle_s = idle_s
        self._every_s = every_s
        self._sleep = sleep
        self._clock = clock
        self._notes: list[str] = []
        self._reason = ""
        self._readings: list[MeterReading] = []
        self._open = AsyncExitStack()
        self._reading = AsyncExitStack()

    async def before(self) -> None:
        """Measure the idle power while the server has no request, unless the registry gives it."""
        if self._is_given:
            return
        try:
            self._idle_watts = await self._measure_idle()
        except NotMeteredError as error:
            self._notes.append(f"idle power is unknown: {error}")

    async def _measure_idle(self) -> float:
        if not self._alone:
            raise NotMeteredError(NOT_ALONE)
        if not await self._is_idle():
            raise NotMeteredError(NOT_IDLE)
        readings = []
        async with self._meter:
            for _ in range(_N_IDLE_READINGS):
                readings.append(await self._take_reading())
                await self._sleep(self._idle_s / _N_IDLE_READINGS)
            readings.append(await self._take_reading())
        idle = measure(readings)
        if not await self._is_idle():  # a request that came meanwhile is in the measurement
            raise NotMeteredError(NOT_IDLE)
        return idle.joules / idle.seconds

    async def __aenter__(self) -> Self:
        try:
            await self._open.enter_async_context(self._meter)
            await self._read()
            self._notes += await self._meter.notes()
            await self._reading.enter_async_context(background_task(self._keep_reading()))
        except NotMeteredError as error:
            self._reason = str(error)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._reading.aclose()
        try:
            if not self._reason:
                await self._read()
        except NotMeteredError as raised:
            self._reason = str(raised)
        finally:
            await self._open.aclose()

    def result(self) -> Energy:
        """Return the energy of the stage after its end, or why it is unknown."""
        source = self._meter.source
        if self._reason:
            return Energy(method=None, source=source, reason=self._reason)
        try:
            energy = measure(self._readings)
        except NotMeteredError as error:
            return Energy(method=None, source=source, reason=str(error))
        return Energy(
            method=energy.method,
            source=source,
            seconds=energy.seconds,
            gpus=energy.gpus,
            idle_watts=self._idle_watts,
            idle="" if self._idle_watts is None else "registry" if self._is_given else "measured",
            notes=(*energy.notes, *self._notes),
        )

    async def _keep_reading(self) -> None:
        while not self._reason:
            await self._sleep(self._every_s)
            try:
                await self._read()
            except NotMeteredError as error:
                self._reason = str(error)

    async def _read(self) -> None:
        self._readings.append(await self._take_reading())

    async def _take_reading(self) -> MeterReading:
        # a slow answer is dated to the middle between question and answer
        clock = self._clock or asyncio.get_running_loop().time
        start_s = clock()
        gpus = await self._meter.read()
        return MeterReading((start_s + clock()) / 2, gpus)
