"""Entries of the registry: files in their order, machines, prices, endpoints and keys."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

from qaeval.environment import environment, now
from qaeval.errors import DataError, UsageError, closest
from qaeval.evals.find import data_root
from qaeval.registry.config import Config, load_config
from qaeval.registry.model import ModelSpec
from qaeval.report.facts import HostedFacts, MachineFacts

_REGISTRY: Final = "qaeval.yaml"


def find_config(path: Path | None) -> Config:
    """Read the default registry, the working directory's over it, and the named one on top."""
    default = data_root() / _REGISTRY
    local = Path(_REGISTRY)
    layers = [local] if local.is_file() and local.resolve() != default.resolve() else []
    return load_config(default, *layers, *([path] if path else []))


def find_machines(
    config: Config, runs: Iterable[Mapping[str, Any]], hardware: str | None
) -> dict[str, MachineFacts]:
    """Say what each model of some runs' settings runs on, as far as the registry knows.

    Args:
        config: The registry.
        runs: Settings of runs.
        hardware: The machine of models whose entry names none; the registry's default where left out.

    Raises:
        UsageError: no machine has that name.
    """
    names = {name for run in runs for name in (*run["candidates"], *_judges(run))}
    machines = {name: config.machine(name, hardware) for name in names}
    for entry in machines.values():
        if entry is not None:
            _require_past(f"hardware.{entry[0]}", entry[1].as_of)
    return {
        name: MachineFacts(name=entry[0], **entry[1].model_dump(mode="json"))
        for name, entry in machines.items()
        if entry is not None
    }


def find_machine(config: Config, name: str) -> MachineFacts:
    """Find one machine of the registry.

    Raises:
        UsageError: none has that name.
    """
    if name not in config.hardware:
        raise UsageError(
            f"no hardware is called {name!r}.{closest(name, config.hardware)} Known: {', '.join(sorted(config.hardware)) or 'none'}"
        )
    _require_past(f"hardware.{name}", config.hardware[name].as_of)
    return MachineFacts(name=name, **config.hardware[name].model_dump(mode="json"))


def find_hosted(config: Config) -> tuple[HostedFacts, ...]:
    """List the prices of other people's APIs that the registry holds, by name."""
    for name, price in config.hosted_prices.items():
        _require_past(f"hosted_prices.{name}", price.as_of)
    return tuple(
        HostedFacts(name=name, **price.model_dump(mode="json"))
        for name, price in sorted(config.hosted_prices.items())
    )


def _require_past(entry: str, as_of: date | None) -> None:
    """Refuse a price of a day that has begun nowhere on earth."""
    tomorrow = date.fromisoformat(now()[:10]) + timedelta(days=1)
    if as_of is not None and as_of > tomorrow:
        raise DataError(
            f"{entry}: as_of {as_of} is in the future; it is the day on which the price was looked up"
        )


def _judges(settings: Mapping[str, Any]) -> list[str]:
    return [settings["grading"]["judge"]["name"]] if settings["grading"] else []


def with_endpoints(config: Config, endpoints: Sequence[str]) -> Config:
    """Lay ``NAME=URL`` arguments over the registry.

    Raises:
        UsageError: an argument has another form, or the name is unknown.
    """
    urls: Mapping[str, str] = {}
    for argument in endpoints:
        name, equals, url = argument.partition("=")
        if not (name and equals and url):
            raise UsageError(
                f"--endpoint {argument!r}: expected NAME=URL, like qwen=http://127.0.0.1:8000/v1"
            )
        urls = {**urls, name: url}
    return config.with_endpoints(urls)


def api_key(spec: ModelSpec) -> str | None:
    """Read the model's key from the environment variable that the registry names.

    Raises:
        UsageError: the variable is not set.
    """
    if spec.api_key_env is None:
        return None
    key = environment().get(spec.api_key_env)
    if not key:
        raise UsageError(
            f"{spec.name}: the registry takes its key from ${spec.api_key_env}, which is not set"
        )
    return key
