"""What stages and items cost, as data."""

from qaeval.report.energy import StageEnergy
from qaeval.report.facts import MachineFacts, Part
from qaeval.report.measure import Measure


class StageCost(Part):
    """What one model's stage cost: machine seconds, and money where its machine has a price."""

    model: str
    machine: MachineFacts | None
    """None where the registry names no machine."""
    work_s: float
    """Wall seconds of the stage."""
    load_s: float
    """Seconds of starting servers of qaeval's own."""
    price: float | None
    """Of work and load, in the machine's currency; None without a price."""
    stale_days: int | None = None
    """Age of the price at the end of the run where that is more than it should be."""
    energy: StageEnergy | None = None
    """What its GPUs used, measured or at most; None where nothing is known."""


class CandidateCost(Part):
    """What a candidate's items cost to make; grading is not part of it."""

    candidate: str
    stage: StageCost
    seconds_per_1000: float | None
    """Machine seconds of work for 1,000 valid items."""
    seconds_per_1000_usable: Measure
    """For 1,000 usable items; the interval is that of the usable rate, with the time as it was."""
    price_per_1000: float | None
    price_per_1000_usable: Measure | None
    """None without a price."""
    wh_per_1000_usable: Measure | None = None
    """Watt-hours as `stage.energy` has them, without idle where that is known; of a power limit an upper bound."""
    co2_g_per_1000_usable: Measure | None = None
    """Grams of CO2: that energy times the grid factor of the machine; None without either."""
    is_on_front: bool = False
    """Whether no other candidate is both cheaper and better."""

    def in_unit(self, unit: str) -> Measure | None:
        """Return the cost of 1,000 usable items in a currency or in ``seconds``; None where it has none."""
        if unit == "seconds":
            return self.seconds_per_1000_usable
        return self.price_per_1000_usable if unit else None
