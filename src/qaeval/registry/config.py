"""The registry: models, judges, their servers, machines, prices, and the defaults of commands.

``qaeval.yaml`` is the default registry; a user's files override it entry by entry and field by field.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from qaeval.errors import UsageError, closest
from qaeval.files.kinds import hint as kind_hint
from qaeval.files.yaml import read_yaml, refuse, validated
from qaeval.records import Record
from qaeval.registry.family import relation
from qaeval.registry.model import Argument, JudgeMode, ModelSpec, SamplingOverrides, base_url
from qaeval.registry.numbers import number_problems
from qaeval.registry.plugins import MODELS, is_local, is_registered, registered_names
from qaeval.text.margins import Margin

__all__ = [
    "Config",
    "Defaults",
    "Hardware",
    "HostedPrice",
    "JudgeMode",
    "ModelSpec",
    "RegistryFile",
    "SamplingOverrides",
    "Serving",
    "base_url",
    "load_config",
]

_SECTIONS: Final = frozenset({"models", "judges"})
_SECRETS: Final = frozenset({"api_key", "apikey", "key", "token", "hf_token", "secret", "password"})
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")

_Host: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:-]+$")]


def _currency(code: str) -> str:
    if not re.fullmatch(r"[A-Z]{3}", code):
        raise ValueError(f"expected a currency code of three capital letters, like EUR, got {code!r}")
    return code


_Currency: TypeAlias = Annotated[str, AfterValidator(_currency)]


class Defaults(Record):
    """Default values of command options."""

    eval: str = "qa_pairs"
    judge: str | None = None
    """Judge if any candidate has a server."""
    embedded_judge: str | None = None
    """Judge if no candidate has a server."""
    seed: int = Field(default=0, ge=0)
    concurrency: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = "auto"
    """Requests in flight; ``auto``: as many as keep the servers busy."""
    outage_s: float = Field(default=120.0, ge=0)
    """Longest wait in seconds for a server that stopped answering."""
    cache: bool = True
    """Whether replies of earlier runs to the same requests are reused."""
    margin: Margin = 0.05
    """Smallest difference of usable rates that matters: ``5 points``, ``5pp``, ``5%`` or ``0.05``."""
    until_decided: bool = False
    """Whether a comparison stops as soon as the first place is decided."""
    hardware: str | None = None
    """Machine of models without ``hardware`` in their entry."""
    confirm_minutes: float = Field(default=480.0, gt=0)
    """Estimated minutes of a run above which the command line asks before it starts."""


class Hardware(Record):
    """A machine that serves models. There is no default price: a price needs its date and its source."""

    instance: str = ""
    """The provider's name of the machine type, ``g6.xlarge``."""
    gpu: str = ""
    gpu_watts: float | None = Field(default=None, gt=0)
    """Power limit of all GPUs together."""
    grid_g_per_kwh: float | None = Field(default=None, gt=0)
    """Grams of CO2 per kilowatt-hour at the machine's location."""
    grid_source: str = ""
    price_per_hour: float | None = Field(default=None, gt=0)
    currency: _Currency = "USD"
    terms: Literal["on demand", "spot", "reserved", "own", ""] = ""
    region: str = ""
    as_of: date | None = None
    """Date on which the price was looked up."""
    source: str = ""

    @model_validator(mode="after")
    def _check_sources(self) -> "Hardware":
        if self.price_per_hour is not None and not (self.as_of and self.source):
            raise ValueError("price_per_hour needs as_of (the date of the look-up) and source (the page)")
        if self.grid_g_per_kwh is not None and not self.grid_source:
            raise ValueError("grid_g_per_kwh needs grid_source (the source of the factor, and its year)")
        return self


class HostedPrice(Record):
    """Token prices of a hosted API, for comparison, and for the estimate of an entry of this name with ``kind: hosted``."""

    model: str = ""
    """The model at this price."""
    input_per_million: float = Field(ge=0)
    """Price of a million tokens of prompts."""
    output_per_million: float = Field(ge=0)
    """Price of a million tokens of replies."""
    currency: _Currency = "USD"
    region: str = ""
    as_of: date
    """Date on which the price was looked up."""
    source: str = Field(min_length=1)


class Serving(Record):
    """How qaeval starts a vLLM server for a model without a url."""

    command: tuple[Argument, ...] = Field(default=("vllm",), min_length=1)
    """Command that runs vLLM."""
    env: dict[str, Argument] = Field(default_factory=dict)
    """Additional environment variables of the server."""
    startup_s: float = Field(default=1800.0, gt=0)
    """Longest wait in seconds for a server to start; covers the download of weights and compilation."""
    gpu_gib: float = Field(default=21.96, gt=0)
    """Memory of the GPU as CUDA reports it; 21.96 is that of an L4."""


class RegistryFile(Record):
    """The content of one registry file, ``qaeval.yaml``."""

    models: dict[str, ModelSpec] = Field(default_factory=dict)
    judges: dict[str, ModelSpec] = Field(default_factory=dict)
    defaults: Defaults = Defaults()
    hardware: dict[str, Hardware] = Field(default_factory=dict)
    hosted_prices: dict[str, HostedPrice] = Field(default_factory=dict)
    serving: Serving = Serving()
    allow_external: tuple[_Host, ...] = ()
    """Hosts outside the user's network that may receive data."""
    vllm_args: tuple[Argument, ...] = ()
    """Arguments of ``vllm serve`` for all servers; an entry's arguments follow them, and the last one
    wins."""

    @model_validator(mode="after")
    def _check_numbers(self) -> "RegistryFile":
        refuse(number_problems(self.model_dump()))
        return self


class Config(RegistryFile):
    """The merged registry."""

    judging: tuple[JudgeMode | None, float | None, tuple[str, ...] | None] = Field(
        default=(None, None, None), exclude=True
    )
    """Mode and threshold of all judges, in place of those of their entries; never in a file."""

    @model_validator(mode="after")
    def _check_references(self) -> "Config":
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[str]:
        for section, specs in {"models": self.models, "judges": self.judges}.items():
            for name, spec in specs.items():
                yield from self._entry_problems(f"{section}.{name}", spec)
        for key, name in self._hardware_names():
            if name not in self.hardware:
                yield f"{key}: {self._unknown_hardware(name)}"
        names = {**self.models, **self.judges}
        for key in ("judge", "embedded_judge"):
            default = getattr(self.defaults, key)
            if default is not None and default not in names and not is_registered(MODELS, default):
                yield f"defaults.{key}: unknown model or judge {default!r}.{closest(default, names)}"

    def _entry_problems(self, key: str, spec: ModelSpec) -> Iterator[str]:
        """Find an entry without a server to reach or to start, and an adapter without a base model."""
        if spec.lora and spec.lora.base not in self.models:
            base = spec.lora.base
            yield f"{key}.lora.base: unknown model {base!r}.{closest(base, self.models)}"
        elif spec.lora and self.models[spec.lora.base].lora:
            yield f"{key}.lora.base: {spec.lora.base!r} is itself an adapter"
        if spec.kind == "server" and not (spec.hf_id or spec.url):
            yield f"{key}: a server needs hf_id (the model to serve) or url (a running server)"
        if spec.replicas and spec.url is None:
            yield f"{key}: replicas need url, the first server"
        if spec.consented:
            yield f"{key}: consented is no field of a file; --consent HOST is given for each run"
        if spec.kind == "hosted" and (spec.url is None or spec.hf_id or spec.replicas):
            yield f"{key}: a hosted model needs url, and has neither hf_id nor replicas"
        if spec.in_process and (spec.hf_id or spec.url):
            yield f"{key}: {_kind_label(spec)} runs inside qaeval; remove hf_id and url"

    def _unknown_hardware(self, name: str) -> str:
        known = ", ".join(sorted(self.hardware)) or "none"
        return f"unknown hardware {name!r}.{closest(name, self.hardware)} Known: {known}"

    def _hardware_names(self) -> Iterator[tuple[str, str]]:
        """Yield each reference to a machine: its key and the name of the machine."""
        for section, specs in {"models": self.models, "judges": self.judges}.items():
            for name, spec in specs.items():
                if spec.hardware is not None:
                    yield f"{section}.{name}.hardware", spec.hardware
        if self.defaults.hardware is not None:
            yield "defaults.hardware", self.defaults.hardware

    def find_hardware(self, name: str) -> Hardware:
        """Return a machine by name.

        Raises:
            UsageError: the name is unknown.
        """
        if name not in self.hardware:
            raise UsageError(self._unknown_hardware(name))
        return self.hardware[name]

    def machine(self, name: str, hardware: str | None = None) -> tuple[str, Hardware] | None:
        """Return the machine of a model: its entry's, else ``hardware``, else the default; None if unknown.

        Raises:
            UsageError: ``hardware`` is not in the registry.
        """
        if hardware is not None:
            self.find_hardware(hardware)
        spec = self.models.get(name) or self.judges.get(name)
        hardware_name = (spec.hardware if spec else None) or hardware or self.defaults.hardware
        return None if hardware_name is None else (hardware_name, self.hardware[hardware_name])

    def candidate(self, name: str) -> ModelSpec:
        """Return a candidate by name, from the registry or an installed package.

        Raises:
            UsageError: the name is unknown.
        """
        if name in self.models and not is_local(name):
            return self.models[name]
        if name in self.judges:
            raise UsageError(
                f"{name!r} is registered under judges only; add it under models to compare it."
                f"{closest(name, self.models)} Known models: {', '.join(sorted(self.models))}"
            )
        return self._plugin(name, "model", self.models)

    def judge(self, name: str) -> ModelSpec:
        """Return a judge by name; every model can judge, including those of installed packages.

        Raises:
            UsageError: the name is unknown.
        """
        entries = {**self.models, **self.judges}
        known = name in entries and not is_local(name)
        spec = entries[name] if known else self._plugin(name, "judge", entries)
        return spec.in_mode(*self.judging)

    def _plugin(self, name: str, noun: str, known: Mapping[str, ModelSpec]) -> ModelSpec:
        """Create the entry of a model that an installed package registers."""
        if _NAME.fullmatch(name) and is_registered(MODELS, name):
            return ModelSpec(name=name, kind="plugin")
        registered = sorted(set(registered_names(MODELS)) - {*self.models, *self.judges})
        plugins = f"; from installed packages: {', '.join(registered)}" if registered else ""
        kind = kind_hint(Path(name))
        hint = f"{kind}." if kind else closest(name, [*known, *registered])
        raise UsageError(f"unknown {noun} {name!r}.{hint} Known: {', '.join(sorted(known))}{plugins}")

    def default_judge(self, candidates: tuple[ModelSpec, ...]) -> ModelSpec:
        """Return the default judge: the first of ``defaults.judge`` and ``judges`` that is related to no candidate.

        Without such a judge it is ``defaults.judge``; without a candidate that has a server,
        ``defaults.embedded_judge``.

        Raises:
            UsageError: the registry has no default.
        """
        embedded = all(spec.in_process for spec in candidates)
        name = self.defaults.embedded_judge if embedded else self.defaults.judge
        if name is None:
            key = "embedded_judge" if embedded else "judge"
            raise UsageError(f"no judge: pass --judge, or set defaults.{key} in the registry")
        judge = self.judge(name)
        if embedded or not _is_related(judge, candidates):
            return judge
        return next((self.judge(spec.name) for spec in self.foreign_judges(candidates)), judge)

    def foreign_judges(self, candidates: tuple[ModelSpec, ...]) -> list[ModelSpec]:
        """List the entries of ``judges`` with a server that are related to no candidate, in the registry's order."""
        return [
            spec for spec in self.judges.values() if not (spec.in_process or _is_related(spec, candidates))
        ]

    def with_judge_mode(
        self, mode: JudgeMode | None, below: float | None, reasons_for: Sequence[str] | None = None
    ) -> "Config":
        """Return the registry with another mode of its judges.

        Args:
            mode: None: that of each entry.
            below: Threshold of a cascade, in (0, 1]; None: that of each entry.
            reasons_for: Letters for which a cascade always asks for reasons; None: those of each entry.

        Raises:
            UsageError: threshold or letters are of no use in the mode, or the threshold is out of range.
        """
        if reasons_for is not None and mode not in {None, "cascade"}:
            raise UsageError(f"--reasons-for names letters of --judge-mode cascade, not of {mode}")
        if below is not None and mode not in {None, "cascade"}:
            raise UsageError(f"--reasons-below is the threshold of --judge-mode cascade, not of {mode}")
        if below is not None and not 0 < below <= 1:
            raise UsageError(f"--reasons-below: expected a probability above 0 and up to 1, got {below:g}")
        letters = None if reasons_for is None else tuple(reasons_for)
        return self.model_copy(update={"judging": (mode, below, letters)})

    def with_endpoints(self, endpoints: Mapping[str, str]) -> "Config":
        """Return the registry with other URLs; a name in both models and judges changes in both.

        Several servers of a model are separated by commas.

        Raises:
            UsageError: a name is unknown or has no server, or a URL is invalid.
        """
        entries = {**self.models, **self.judges}
        urls = {}
        for name, url in endpoints.items():
            if name not in entries:
                raise UsageError(
                    f"endpoint for {name!r}: unknown model or judge.{closest(name, entries)} "
                    f"Known: {', '.join(sorted(entries))}"
                )
            if entries[name].in_process:
                kind = _kind_label(entries[name])
                raise UsageError(f"endpoint for {name!r}: {kind} runs inside qaeval, without a server")
            try:
                urls[name] = tuple(base_url(part) for part in url.split(","))
            except ValueError as error:
                raise UsageError(f"endpoint for {name!r}: {error}") from error
        for name, spec in entries.items():
            if spec.lora and spec.lora.base in urls:
                urls.setdefault(name, urls[spec.lora.base])
        return self.model_copy(
            update={
                "models": _with_urls(self.models, urls),
                "judges": _with_urls(self.judges, urls),
            }
        )


def _is_related(judge: ModelSpec, candidates: tuple[ModelSpec, ...]) -> bool:
    return any(relation(judge, candidate) for candidate in candidates)


def _kind_label(spec: ModelSpec) -> str:
    return "an embedded model" if spec.kind == "embedded" else "a plugin"


def _with_urls(specs: Mapping[str, ModelSpec], urls: Mapping[str, tuple[str, ...]]) -> dict[str, ModelSpec]:
    return {
        name: spec.model_copy(update={"url": urls[name][0], "replicas": urls[name][1:]})
        if name in urls
        else spec
        for name, spec in specs.items()
    }


def load_config(default: Path, *overrides: Path) -> Config:
    """Read the default registry and override it with other files, in their order.

    A file adds entries, and replaces the fields that it names of existing ones; lists are replaced, not
    joined.

    Raises:
        DataError: a file is invalid or holds a secret; the message names file and key.
    """
    paths = (default, *overrides)
    merged = reduce(_merge, (_read_layer(path) for path in paths))
    return validated(Config, _with_bases(_with_common_args(merged)), " + ".join(map(str, paths)))


def _read_layer(path: Path) -> dict[str, Any]:
    sections = read_yaml(path, allow_empty=True)
    data = {name: section for name, section in sections.items() if section is not None}  # all of it a comment
    problems = [
        f"{key}: secrets are not read from files; name an environment variable instead: `api_key_env: VLLM_API_KEY`"
        for key in _secret_keys(data)
    ]
    layer: dict[str, Any] = _without_secrets(data)
    for section in _SECTIONS & data.keys():
        if isinstance(layer[section], dict):
            problems += _name_problems(section, layer[section])
            layer[section] = {
                name: {**entry, "name": name} if isinstance(entry, dict) else entry
                for name, entry in layer[section].items()
            }
    validated(RegistryFile, layer, path, problems)
    return layer


def _name_problems(section: str, entries: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in entries.items():
        if not _NAME.fullmatch(name):
            yield f"{section}: expected a name of a-z, 0-9, '.', '_' and '-', got {name!r}"
        if isinstance(entry, dict) and entry.get("name", name) != name:
            yield f"{section}.{name}.name: the key is the name; remove `name`"


def _without_secrets(data: Any) -> Any:  # noqa: ANN401 - parsed YAML, not checked yet
    """Leave out keys that are refused already, so that they are not reported as unknown too."""
    if not isinstance(data, dict):
        return data
    return {
        key: _without_secrets(value)
        for key, value in data.items()
        if key.lower() not in _SECRETS or value is None
    }


def _secret_keys(data: object, prefix: str = "") -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            path = f"{prefix}.{key}" if prefix else key
            if key.lower() in _SECRETS and value is not None:
                yield path
            yield from _secret_keys(value, path)


def _merge(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        lower_value = lower.get(key)
        merged[key] = (
            _merge(lower_value, value) if isinstance(value, dict) and isinstance(lower_value, dict) else value
        )
    return merged


def _with_common_args(registry: dict[str, Any]) -> dict[str, Any]:
    common = registry.get("vllm_args", [])
    complete = dict(registry)
    for section in _SECTIONS & registry.keys():
        complete[section] = {name: _with_args(entry, common) for name, entry in registry[section].items()}
    return complete


def _with_bases(registry: dict[str, Any]) -> dict[str, Any]:
    """Fill in the fields of adapters from their base models; `Config` checks that the base exists."""
    models = registry.get("models", {})
    complete = dict(registry)
    for section in _SECTIONS & registry.keys():
        complete[section] = {name: _with_base(entry, models) for name, entry in registry[section].items()}
    return complete


def _with_base(entry: dict[str, Any], models: dict[str, Any]) -> dict[str, Any]:
    lora = entry.get("lora")
    base = models.get(str(lora.get("base"))) if isinstance(lora, dict) else None
    if not isinstance(base, dict):
        return entry
    inherited = {
        key: value for key, value in base.items() if key not in {"name", "served_name", "notes", "lora"}
    }
    return {**inherited, **entry}


def _with_args(entry: dict[str, Any], common: list[Any]) -> dict[str, Any]:
    if not entry.get("hf_id"):
        return entry  # qaeval does not start this server
    return {**entry, "vllm_args": [*common, *entry.get("vllm_args", [])]}
