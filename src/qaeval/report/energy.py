"""What the GPUs of a stage used, as data."""

from typing import Literal, TypeAlias

from qaeval.report.facts import Part

EnergyBasis: TypeAlias = Literal["energy counter", "integrated power", "power limit"]
"""How energy is known: counted by the GPU, its power added up, or at most what its power limit allows."""


class StageEnergy(Part):
    """Energy of one model's stage."""

    method: EnergyBasis | None
    """None where it is not known; then `reason` says why."""
    source: str = ""
    """What was read: NVML, a DCGM exporter; of a power limit the machine's name."""
    gpus: tuple[str, ...] = ()
    """What each of them is called; several may be of one name."""
    seconds: float = 0.0
    """Of measuring; of a power limit the stage's."""
    wh: float | None = None
    """Watt-hours, what the GPUs use when they idle included; of a power limit an upper bound."""
    idle_wh: float | None = None
    """What they would have used in that time without a request; None where that is not known."""
    idle: str = ""
    """Where the idle power is from: ``measured`` or ``registry``."""
    notes: tuple[str, ...] = ()
    reason: str = ""
    """Why it was not measured."""

    @property
    def is_measured(self) -> bool:
        """Whether it was measured."""
        return self.method in {"energy counter", "integrated power"}

    @property
    def work_wh(self) -> float | None:
        """What the work took: without idle, where that is known."""
        return None if self.wh is None else self.wh - (self.idle_wh or 0.0)
