"""Energy of a stage: what its server's GPUs counted, or their power added up, and what they use when they idle."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Final, Self, TypeAlias

from qaeval.records import Energy, EnergyMethod, GpuEnergy
from qaeval.serving.gpus import Gpu, Meter, NotMeteredError
from qaeval.serving.server import meanwhile

_EVERY_S: Final = 1.0
_IDLE_S: Final = 3.0
_IDLE_LOOKS: Final = 6
_GAP_S: Final = 5.0
"""A longer time without a reading is told."""
_LEAST_SHARE: Final = 0.95
"""Readings that cover less of the stage say nothing of all of it."""
_LEAST_MOVES: Final = 5
"""A counter that is renewed only now and then must have moved so often: either end is wrong by one move at most."""
_SOON_S: Final = 0.4
"""Readings closer than this may find the same number although the counter runs."""

_Series: TypeAlias = Sequence[tuple[float, float]]
"""Seconds and values of one GPU."""

NOT_ALONE: Final = "the other stage ran at the same time; give `idle_watts:`"
NOT_IDLE: Final = (
    "the server had requests of others before the stage, or does not say whether it had; give `idle_watts:`"
)


@dataclass(frozen=True, slots=True)
class Look:
    """What the GPUs said at one moment; one that did not answer is missing."""

    at_s: float
    gpus: Mapping[str, Gpu]


@dataclass(frozen=True, slots=True)
class Measured:
    """Energy between the first and the last look."""

    method: EnergyMethod
    seconds: float
    gpus: tuple[GpuEnergy, ...]
    notes: tuple[str, ...]

    @property
    def joules(self) -> float:
        """Of all GPUs."""
        return sum(one.joules for one in self.gpus)


def measure(looks: Sequence[Look]) -> Measured:
    """Add up the energy between the first and the last look: of the counters, else of the power in between.

    The power is integrated by the trapezoid rule. Counters are taken where every GPU has one that is renewed often enough.

    Raises:
        NotMeteredError: the looks do not cover their time, or an exporter renews its numbers too seldom for it.
    """
    seconds = looks[-1].at_s - looks[0].at_s if looks else 0.0
    names = {uuid: gpu.name for look in looks for uuid, gpu in look.gpus.items()}
    counters = {uuid: _series(looks, uuid, "joules") for uuid in names}
    powers = {uuid: _series(looks, uuid, "watts") for uuid in names}
    coarse = [uuid for uuid, series in counters.items() if _covers(series, seconds) and _is_coarse(series)]
    if coarse:
        # its power is renewed no more often
        moves = min(_moves(counters[uuid]) for uuid in coarse)
        raise NotMeteredError(
            f"the counter of {', '.join(coarse)} was renewed {moves} times in {seconds:.0f} s, too seldom for so short a stage; a DCGM "
            "exporter renews every 30 s unless its collect interval is set"
        )
    if names and all(_covers(series, seconds) for series in counters.values()):
        found = tuple(
            GpuEnergy(gpu=uuid, name=names[uuid], joules=_counted(counters[uuid])) for uuid in names
        )
        return Measured("energy counter", seconds, found, _counter_notes(counters))
    if names and all(_covers(series, seconds) for series in powers.values()):
        found = tuple(
            GpuEnergy(gpu=uuid, name=names[uuid], joules=_integrated(powers[uuid])) for uuid in names
        )
        return Measured("integrated power", seconds, found, _power_notes(powers))
    raise NotMeteredError(f"the GPUs were not read over the whole of {seconds:.0f} s")


def _series(looks: Sequence[Look], uuid: str, what: str) -> _Series:
    said = ((look.at_s, look.gpus.get(uuid)) for look in looks)
    found = ((at_s, None if gpu is None else getattr(gpu, what)) for at_s, gpu in said)
    return [(at_s, value) for at_s, value in found if value is not None]


def _covers(series: _Series, seconds: float) -> bool:
    return len(series) > 1 and series[-1][0] - series[0][0] >= _LEAST_SHARE * seconds > 0


def _counted(series: _Series) -> float:
    """Add up what a counter grew by; one that is smaller than before has started anew."""
    return sum(later - before if later >= before else later for (_, before), (_, later) in pairwise(series))


def _integrated(series: _Series) -> float:
    return sum((before + later) / 2 * (end - start) for (start, before), (end, later) in pairwise(series))


def _moves(series: _Series) -> int:
    return sum(later != before for (_, before), (_, later) in pairwise(series))


def _stood_still(series: _Series) -> bool:
    return any(
        later == before and end - start > _SOON_S for (start, before), (end, later) in pairwise(series)
    )


def _is_coarse(series: _Series) -> bool:
    return _stood_still(series) and _moves(series) < _LEAST_MOVES


def _counter_notes(counters: Mapping[str, _Series]) -> tuple[str, ...]:
    notes = []
    for uuid, series in counters.items():
        if any(later < before for (_, before), (_, later) in pairwise(series)):
            notes.append(f"the counter of {uuid} started anew: what it had not told before is missing")
        if _stood_still(series):
            every = (series[-1][0] - series[0][0]) / _moves(series)
            notes.append(
                f"the counter of {uuid} is renewed about every {every:.0f} s: so much of either end may be missing or too much"
            )
    return tuple(notes)


def _power_notes(powers: Mapping[str, _Series]) -> tuple[str, ...]:
    notes = []
    for uuid, series in powers.items():
        gaps = [end - start for (start, _), (end, _) in pairwise(series) if end - start > _GAP_S]
        if gaps:
            notes.append(
                f"{uuid}: no reading for more than {_GAP_S:g} s: {len(gaps)} gap{'s' if len(gaps) > 1 else ''}, {sum(gaps):.0f} s in all; "
                "the power in between is taken to change evenly"
            )
    return tuple(notes)


class EnergyWatch:
    """Reads the GPUs of a stage's server while the stage runs; an async context manager, after `before`.

    Args:
        meter: Reads them.
        idle_watts: What the user says that they use with the model loaded and no request; None: measured by `before`.
        is_idle: Whether the server has no request at this moment.
        alone: Whether no other stage runs at the same time.
        idle_s: How long `before` measures.
        every_s: Time between two readings.
        sleep: Waits; tests give one that takes no time.
        clock: Seconds of a clock that `sleep` moves; None: the event loop's.
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
        self._is_told = idle_watts is not None
        self._is_idle = is_idle
        self._alone = alone
        self._idle_s = idle_s
        self._every_s = every_s
        self._sleep = sleep
        self._clock = clock
        self._notes: list[str] = []
        self._reason = ""
        self._looks: list[Look] = []
        self._open = AsyncExitStack()
        self._reading = AsyncExitStack()

    async def before(self) -> None:
        """Measure what the GPUs use when the server is up and has nothing to do, unless the user says."""
        if self._is_told:
            return
        try:
            self._idle_watts = await self._measure_idle()
        except NotMeteredError as error:
            self._notes.append(f"idle power is not known: {error}")

    async def _measure_idle(self) -> float:
        if not self._alone:
            raise NotMeteredError(NOT_ALONE)
        if not await self._is_idle():
            raise NotMeteredError(NOT_IDLE)
        looks = []
        async with self._meter:
            for _ in range(_IDLE_LOOKS):
                looks.append(await self._look())
                await self._sleep(self._idle_s / _IDLE_LOOKS)
            looks.append(await self._look())
        found = measure(looks)
        if not await self._is_idle():
            raise NotMeteredError(NOT_IDLE)
        return found.joules / found.seconds

    async def __aenter__(self) -> Self:
        try:
            await self._open.enter_async_context(self._meter)
            await self._read()
            self._notes += await self._meter.notes()
            await self._reading.enter_async_context(meanwhile(self._keep_reading()))
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

    def found(self) -> Energy:
        """Return what the stage used, once it has ended, or why that is not known."""
        source = self._meter.source
        if self._reason:
            return Energy(method=None, source=source, reason=self._reason)
        try:
            used = measure(self._looks)
        except NotMeteredError as error:
            return Energy(method=None, source=source, reason=str(error))
        return Energy(
            method=used.method,
            source=source,
            seconds=used.seconds,
            gpus=used.gpus,
            idle_watts=self._idle_watts,
            idle="" if self._idle_watts is None else "registry" if self._is_told else "measured",
            notes=(*used.notes, *self._notes),
        )

    async def _keep_reading(self) -> None:
        while not self._reason:
            await self._sleep(self._every_s)
            try:
                await self._read()
            except NotMeteredError as error:
                self._reason = str(error)

    async def _read(self) -> None:
        self._looks.append(await self._look())

    async def _look(self) -> Look:
        # the middle of an answer that takes long is when its numbers are from
        clock = self._clock or asyncio.get_running_loop().time
        asked = clock()
        gpus = await self._meter.read()
        return Look((asked + clock()) / 2, gpus)
