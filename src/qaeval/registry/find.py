"""Look up the registry's files, machines, prices, endpoints and keys."""

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

from qaeval.environment import environment, now
from qaeval.errors import DataError, UsageError
from qaeval.evals.find import data_root
from qaeval.registry.config import Config, load_config
from qaeval.registry.model import ModelSpec, recorded_model
from qaeval.report.facts import HostedFacts, MachineFacts

_REGISTRY: Final = "qaeval.yaml"


def find_config(path: Path | None) -> Config:
    """Read the shipped registry, overridden by ``./qaeval.yaml`` and then by the file at ``path``."""
    default = data_root() / _REGISTRY
    local = Path(_REGISTRY)
    layers = [local] if local.is_file() and local.resolve() != default.resolve() else []
    return load_config(default, *layers, *([path] if path else []))


def find_machines(
    config: Config, runs: Iterable[Mapping[str, Any]], hardware: str | None
) -> dict[str, MachineFacts]:
    """Return the machine of each model of some runs; models without a machine are left out.

    Args:
        config: The registry.
        runs: Settings of the runs.
        hardware: Machine of models without one in their entry; default: that of the registry.

    Raises:
        UsageError: ``hardware`` is not in the registry.
        DataError: a price is dated in the future.
    """
    entries = {
        name: entry
        for run in runs
        for name, entry in (
            *((name, recorded_model(name, about).entry) for name, about in run["candidates"].items()),
            *((judge, judge) for judge in _judges(run)),
        )
    }
    machines = {name: config.machine(entry, hardware) for name, entry in entries.items()}
    for entry in machines.values():
        if entry is not None:
            _require_past(f"hardware.{entry[0]}", entry[1].as_of)
    return {
        name: MachineFacts(name=entry[0], **entry[1].model_dump(mode="json"))
        for name, entry in machines.items()
        if entry is not None
    }


def find_machine(config: Config, name: str) -> MachineFacts:
    """Return a machine of the registry.

    Raises:
        UsageError: the name is unknown.
        DataError: its price is dated in the future.
    """
    machine = config.find_hardware(name)
    _require_past(f"hardware.{name}", machine.as_of)
    return MachineFacts(name=name, **machine.model_dump(mode="json"))


def find_hosted(config: Config) -> tuple[HostedFacts, ...]:
    """List the registry's prices of hosted APIs, by name."""
    for name, price in config.hosted_prices.items():
        _require_past(f"hosted_prices.{name}", price.as_of)
    return tuple(
        HostedFacts(name=name, **price.model_dump(mode="json"))
        for name, price in sorted(config.hosted_prices.items())
    )


def _require_past(entry: str, as_of: date | None) -> None:
    """Refuse a price of a future date; tomorrow is allowed, since it has begun in some time zone."""
    tomorrow = date.fromisoformat(now()[:10]) + timedelta(days=1)
    if as_of is not None and as_of > tomorrow:
        raise DataError(f"{entry}: as_of {as_of} is in the future; expected the date of the price's look-up")


def _judges(settings: Mapping[str, Any]) -> list[str]:
    return [settings["grading"]["judge"]["name"]] if settings["grading"] else []


def api_key(spec: ModelSpec) -> str | None:
    """Read a model's API key from the environment variable of its entry; None without an entry.

    Raises:
        UsageError: the variable is not set.
    """
    if spec.api_key_env is None:
        return None
    key = environment().get(spec.api_key_env)
    if not key:
        raise UsageError(f"{spec.name}: api_key_env names ${spec.api_key_env}, which is not set")
    return key
