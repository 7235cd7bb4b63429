"""What the machines of a run did with their time, as data."""

from qaeval.report.facts import MachineFacts, Part


class NodeCost(Part):
    """One machine: a host that models were served on, and the registry's price of it."""

    host: str
    models: tuple[str, ...]
    """In the order in which they came."""
    machine: MachineFacts | None
    """None where the registry names no machine for these models."""
    load_s: float
    """Seconds in which servers of qaeval's own started."""
    idle_s: float
    """Seconds in which it waited: other machines worked on the run, or its server had no request. At least: a server without
    metrics is taken to have worked all through its stage."""
    work_s: float
    """Seconds of the rest of its stages."""
    price: float | None
    """Of all three, in the machine's currency; None without a price."""
    stale_days: int | None = None
    """Age of the price in days where that is more than it should be."""

    @property
    def seconds(self) -> float:
        """Load, idle and work together."""
        return self.load_s + self.idle_s + self.work_s
