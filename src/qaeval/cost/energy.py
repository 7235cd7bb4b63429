"""Energy of the stages of a run, from the measurements of its sessions; parallel sessions on one GPU count once."""

from collections.abc import Iterator, Sequence
from typing import Final

from qaeval.analysis.replies import Span, TimedSession, cut, length, time_sessions, union
from qaeval.cost.model import StageEnergy
from qaeval.records import Energy, Session
from qaeval.report.facts import MachineFacts

_WH: Final = 3600.0
_ROUNDING: Final = 1.02
"""Tolerance of a counter over a power limit; a larger excess means a wrong registry entry or foreign GPUs."""


def stage_energies(sessions: Sequence[Session]) -> dict[tuple[str, str], StageEnergy]:
    """Return the energy of each stage's GPUs, by stage and model, without stages that nothing could measure.

    A stage is measured if all of its sessions are. The energy of parallel sessions on one GPU counts once; another stage on the
    same GPU at the same time is included, with a note.
    """
    timed_sessions = time_sessions(sessions)
    stages: dict[tuple[str, str], list[TimedSession]] = {}
    for timed in timed_sessions:
        stages.setdefault((timed.session.stage, timed.session.model), []).append(timed)
    return {
        key: _stage(in_stage, [timed for timed in timed_sessions if timed not in in_stage])
        for key, in_stage in stages.items()
        if any(timed.session.energy is not None for timed in in_stage)
    }


def run_wh(sessions: Sequence[Session]) -> float | None:
    """Return the energy of all GPUs while the stages worked, in Wh; None if a server was not measured."""
    timed_sessions = [timed for timed in time_sessions(sessions) if timed.session.host]
    energies = [timed.session.energy for timed in timed_sessions]
    if not energies or any(energy is None or energy.method is None for energy in energies):
        return None
    return _used(timed_sessions)[0] / _WH


def energy_bound(machine: MachineFacts | None, seconds: float, reason: str = "") -> StageEnergy | None:
    """Return the upper bound of a stage's energy: power limit x seconds; None if nothing is known.

    Args:
        machine: From the registry.
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


def flag_implausible(energy: StageEnergy, machine: MachineFacts | None) -> StageEnergy:
    """Note measured energy above the machine's power limit."""
    if machine is None or machine.gpu_watts is None or energy.wh is None:
        return energy
    limit_wh = machine.gpu_watts * energy.seconds / _WH
    if energy.wh <= limit_wh * _ROUNDING:
        return energy
    text = (
        f"more than the {limit_wh:,.1f} Wh that {machine.gpu_watts:g} W, the limit of {machine.name} in the registry, allow in "
        f"{energy.seconds:,.0f} s: the entry belongs to another machine, or GPUs of other servers are counted"
    )
    return energy.model_copy(update={"notes": (*energy.notes, text)})


def _stage(in_stage: Sequence[TimedSession], outside: Sequence[TimedSession]) -> StageEnergy:
    energies = [timed.session.energy for timed in in_stage]
    measured = [energy for energy in energies if energy is not None and energy.method is not None]
    if len(measured) < len(energies):
        return StageEnergy(method=None, reason=_missing_reason(energies, len(measured)))
    joules, idle = _used(in_stage)
    parallel = sorted(
        {f"{timed.session.stage} {timed.session.model}" for timed in _parallel(in_stage, outside)}
    )
    shared = (
        (
            f"{' and '.join(parallel)} worked on the same GPU at the same time: each stage includes the energy of both",
        )
        if parallel
        else ()
    )
    return StageEnergy(
        method="integrated power"
        if any(energy.method == "integrated power" for energy in measured)
        else "energy counter",
        source=" and ".join(sorted({energy.source for energy in measured})),
        gpus=tuple({gpu.gpu: gpu.name or gpu.gpu for energy in measured for gpu in energy.gpus}.values()),
        seconds=length(union(timed.work for timed in in_stage)),
        wh=joules / _WH,
        idle_wh=None if idle is None else idle / _WH,
        idle=" and ".join(sorted({energy.idle for energy in measured if energy.idle})),
        notes=(*dict.fromkeys(note for energy in measured for note in energy.notes), *shared),
    )


def _missing_reason(energies: Sequence[Energy | None], n_measured: int) -> str:
    reasons = dict.fromkeys(energy.reason for energy in energies if energy is not None and energy.reason)
    if n_measured:
        part = f"measured in only {n_measured} of {len(energies)} sessions"
        return "; ".join((part, *reasons))
    return "; ".join(reasons)


def _used(timed_sessions: Sequence[TimedSession]) -> tuple[float, float | None]:
    """Return joules, and idle joules if they are known.

    Of overlapping sessions on one GPU the longest counts in full; the others count outside it.
    """
    joules, idle, is_idle_known = 0.0, 0.0, True
    for gpu in frozenset[str]().union(*map(_gpus, timed_sessions)):
        covered: list[Span] = []
        on_gpu = [timed for timed in timed_sessions if gpu in _gpus(timed)]
        for timed in sorted(on_gpu, key=lambda timed: -timed.session.seconds):
            energy, share = timed.session.energy, _uncovered(timed.work, covered)
            covered.append(timed.work)
            if energy is None or not share:
                continue
            joules += share * next(used.joules for used in energy.gpus if used.gpu == gpu)
            is_idle_known = is_idle_known and energy.idle_watts is not None
            idle += share * energy.seconds * (energy.idle_watts or 0.0) / len(energy.gpus)
    return joules, idle if is_idle_known else None


def _uncovered(span: Span, covered: Sequence[Span]) -> float:
    """Return the share of a span that lies outside other spans."""
    seconds = span[1] - span[0]
    return 1 - length(cut(union(covered), *span)) / seconds if seconds > 0 else 0.0


def _parallel(in_stage: Sequence[TimedSession], outside: Sequence[TimedSession]) -> Iterator[TimedSession]:
    for other in outside:
        if any(_gpus(other) & _gpus(timed) and cut([other.work], *timed.work) for timed in in_stage):
            yield other


def _gpus(timed: TimedSession) -> frozenset[str]:
    energy = timed.session.energy
    return frozenset() if energy is None else frozenset(used.gpu for used in energy.gpus)
