"""Energy of the stages of a run, from what its sessions measured; side by side on one GPU counts once."""

from collections.abc import Iterator, Sequence
from typing import Final

from qaeval.analysis.replies import Span, Stay, cut, length, on_the_clock, union
from qaeval.cost.model import StageEnergy
from qaeval.records import Energy, Session
from qaeval.report.facts import MachineFacts

_WH: Final = 3600.0
_ROUNDING: Final = 1.02
"""A counter may be above a power limit by so much; more is a mistake somewhere."""


def stage_energies(sessions: Sequence[Session]) -> dict[tuple[str, str], StageEnergy]:
    """Say what the GPUs of each stage used, by stage and model; those that nothing could read are left out.

    A stage is measured where all of its sessions are. Where several of them ran at the same time on one GPU, its energy counts
    once; another stage on the same GPU at the same time is in it and is said.
    """
    stays = on_the_clock(sessions)
    stages: dict[tuple[str, str], list[Stay]] = {}
    for one in stays:
        stages.setdefault((one.session.stage, one.session.model), []).append(one)
    return {
        key: _stage(own, [one for one in stays if one not in own])
        for key, own in stages.items()
        if any(one.session.energy is not None for one in own)
    }


def run_wh(sessions: Sequence[Session]) -> float | None:
    """Return what all GPUs of a run used while its stages worked, in Wh; None where a server was not measured."""
    stays = [one for one in on_the_clock(sessions) if one.session.host]
    energies = [one.session.energy for one in stays]
    if not energies or any(one is None or one.method is None for one in energies):
        return None
    return _used(stays)[0] / _WH


def energy_bound(machine: MachineFacts | None, seconds: float, reason: str = "") -> StageEnergy | None:
    """Return the most that a machine's GPUs can have used: power limit x seconds; None where nothing is known.

    Args:
        machine: Of the registry.
        seconds: Of the stage.
        reason: Why nothing was measured.
    """
    if machine is None or machine.gpu_watts is None:
        return StageEnergy(method=None, reason=reason) if reason else None
    return StageEnergy(
        method="power limit",
        source=machine.name,
        seconds=seconds,
        wh=machine.gpu_watts * seconds / _WH,
        reason=reason,
    )


def checked(found: StageEnergy, machine: MachineFacts | None) -> StageEnergy:
    """Note where more was measured than the machine's power limit allows."""
    if machine is None or machine.gpu_watts is None or found.wh is None:
        return found
    most = machine.gpu_watts * found.seconds / _WH
    if found.wh <= most * _ROUNDING:
        return found
    text = (
        f"more than {machine.gpu_watts:g} W, the limit of {machine.name} in the registry, allow in {found.seconds:,.0f} s ({most:,.1f} Wh): "
        "the entry is that of another machine, or GPUs are counted that are not this server's"
    )
    return found.model_copy(update={"notes": (*found.notes, text)})


def _stage(own: Sequence[Stay], others: Sequence[Stay]) -> StageEnergy:
    found = [one.session.energy for one in own]
    measured = [one for one in found if one is not None and one.method is not None]
    if len(measured) < len(found):
        return StageEnergy(method=None, reason=_why_not(found, len(measured)))
    joules, idle = _used(own)
    beside = sorted({f"{other.session.stage} {other.session.model}" for other in _beside(own, others)})
    shared = (
        (f"{' and '.join(beside)} worked on the same GPU at the same time: what both used is in both",)
        if beside
        else ()
    )
    return StageEnergy(
        method="integrated power"
        if any(one.method == "integrated power" for one in measured)
        else "energy counter",
        source=" and ".join(sorted({one.source for one in measured})),
        gpus=tuple({gpu.gpu: gpu.name or gpu.gpu for one in measured for gpu in one.gpus}.values()),
        seconds=length(union(one.work for one in own)),
        wh=joules / _WH,
        idle_wh=None if idle is None else idle / _WH,
        idle=" and ".join(sorted({one.idle for one in measured if one.idle})),
        notes=(*dict.fromkeys(note for one in measured for note in one.notes), *shared),
    )


def _why_not(found: Sequence[Energy | None], n_measured: int) -> str:
    reasons = dict.fromkeys(one.reason for one in found if one is not None and one.reason)
    if n_measured:
        part = f"measured in {n_measured} of {len(found)} sessions alone"
        return "; ".join((part, *reasons))
    return "; ".join(reasons)


def _used(stays: Sequence[Stay]) -> tuple[float, float | None]:
    """Return joules, and those of idling; of sessions that overlap on one GPU the longest counts whole, the others outside it."""
    joules, idle, is_idle_known = 0.0, 0.0, True
    for gpu in frozenset[str]().union(*map(_gpus, stays)):
        taken: list[Span] = []
        own = [one for one in stays if gpu in _gpus(one)]
        for one in sorted(own, key=lambda stay: -stay.session.seconds):
            energy, share = one.session.energy, _free(one.work, taken)
            taken.append(one.work)
            if energy is None or not share:
                continue
            joules += share * next(used.joules for used in energy.gpus if used.gpu == gpu)
            is_idle_known = is_idle_known and energy.idle_watts is not None
            idle += share * energy.seconds * (energy.idle_watts or 0.0) / len(energy.gpus)
    return joules, idle if is_idle_known else None


def _free(span: Span, taken: Sequence[Span]) -> float:
    """Return the share of a span that lies outside others."""
    seconds = span[1] - span[0]
    return 1 - length(cut(union(taken), *span)) / seconds if seconds > 0 else 0.0


def _beside(own: Sequence[Stay], others: Sequence[Stay]) -> Iterator[Stay]:
    for other in others:
        if any(_gpus(other) & _gpus(one) and cut([other.work], *one.work) for one in own):
            yield other


def _gpus(stay: Stay) -> frozenset[str]:
    energy = stay.session.energy
    return frozenset() if energy is None else frozenset(used.gpu for used in energy.gpus)
