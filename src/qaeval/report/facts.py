"""What a report is told about the run: the things that no row holds."""

from collections.abc import Mapping
from typing import TypeAlias

from pydantic import ConfigDict, Field

from qaeval.records import Record

Plain: TypeAlias = str | int | float | bool | None
"""A value that a table can print."""

EMBEDDED = "embedded"
"""The kind of a model that is code of qaeval's own: no server, no weights."""


class Part(Record):
    """A frozen part of a report; unknown fields, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RunFacts(Part):
    """Everything in which two equal runs may differ."""

    id: str
    """Name of the run directory."""
    started: str
    """UTC, ISO 8601."""
    finished: str
    """UTC, ISO 8601."""
    seconds: Mapping[str, float] = Field(default_factory=dict)
    """Wall seconds by stage and model, ``"generate mistral-7b"``; filled from the sessions."""
    n_sessions: int = 0
    """Processes that worked on the run; more than one per stage when it was resumed."""
    qaeval_version: str
    git_commit: str = ""
    """Empty outside a repository; ``-dirty`` where files differed."""
    python: str = ""
    platform: str = ""
    command: str = ""
    """The command line as it was typed."""
    warnings: tuple[str, ...] = ()
    """What was healed when the run was opened, one sentence each."""


class MachineFacts(Part):
    """What a model runs on, and what that costs; nothing of it is assumed, all of it is from the registry."""

    name: str
    """The registry's name of it."""
    instance: str = ""
    """What its provider calls it."""
    gpu: str = ""
    gpu_watts: float | None = None
    """Power limit of all its GPUs together."""
    grid_g_per_kwh: float | None = None
    """Grams of CO2 for a kilowatt-hour where it stands."""
    grid_source: str = ""
    price_per_hour: float | None = None
    currency: str = ""
    terms: str = ""
    """On demand, spot, reserved, own."""
    region: str = ""
    as_of: str | None = None
    """Day on which the price was looked up, ISO 8601."""
    source: str = ""

    @property
    def priced(self) -> str:
        """The price with everything that it hangs on: ``USD 1.01 per hour, g6.xlarge on demand, us-east-1, as of …``."""
        details = ", ".join(word for word in (self.terms, self.region) if word)
        name = f"{self.name} ({self.instance})" if self.instance not in {"", self.name} else self.name
        return f"{self.currency} {self.price_per_hour:,.2f} per hour, {name}{f' {details}' if details else ''}, as of {self.as_of}"


class HostedFacts(Part):
    """What somebody else's API takes for tokens; from the registry, with its day and source."""

    name: str
    """The registry's name of it."""
    model: str = ""
    input_per_million: float
    """Price of a million tokens of prompts, in `currency`."""
    output_per_million: float
    """Price of a million tokens of replies, in `currency`."""
    currency: str
    region: str = ""
    as_of: str
    """Day on which the price was looked up, ISO 8601."""
    source: str

    @property
    def priced(self) -> str:
        """The price with everything that it hangs on: ``api: USD 0.20 / 0.60 per million tokens in / out, as of …``."""
        details = ", ".join(word for word in (self.model, self.region) if word)
        return (
            f"{self.name}{f' ({details})' if details else ''}: {self.currency} {self.input_per_million:,.2f} / "
            f"{self.output_per_million:,.2f} per million tokens in / out, as of {self.as_of}"
        )


class CheckFacts(Part):
    """A check that the eval names."""

    name: str
    meaning: str = ""
    types: tuple[str, ...] = ()
    """Items of these types alone; empty: all."""


class EvalFacts(Part):
    """What was asked, of what."""

    name: str
    sha: str
    """Hash of the whole definition."""
    prompt_sha: str = ""
    sample_set_digest: str
    n_samples: int = Field(ge=1)
    items_per_sample: int = Field(ge=1)
    seed: int | None = None
    """Seed of the draw; None when all chunks of the eval were used."""
    item_kind: str = "qa_pair"
    item_types: tuple[str, ...] = ()
    checks: tuple[CheckFacts, ...] = ()
    title: str = ""
    source: str = ""
    """Where the documents come from and under which licence."""

    @property
    def n_expected(self) -> int:
        """Items that each candidate owes."""
        return self.n_samples * self.items_per_sample


class Meaning(Part):
    """A letter or a flag, and what it says."""

    name: str
    meaning: str = ""


class RubricFacts(Part):
    """How items are graded."""

    name: str
    version: int = 1
    sha: str
    scale: tuple[Meaning, ...] = Field(min_length=2)
    """The letters, best first; the first one means usable."""
    flags: tuple[Meaning, ...] = ()

    @property
    def label_name(self) -> str:
        """How labels name this rubric: ``qa_pair_abc/1``."""
        return f"{self.name}/{self.version}"

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the scale, best first."""
        return tuple(letter.name for letter in self.scale)

    @property
    def flag_names(self) -> tuple[str, ...]:
        """The flags, in the rubric's order."""
        return tuple(flag.name for flag in self.flags)

    @property
    def best(self) -> str:
        """The letter that means usable."""
        return self.scale[0].name


class ModelFacts(Part):
    """What is known of a candidate or a judge."""

    name: str
    kind: str
    """``"http"`` (a server on the user's network), ``"hosted"``, ``"embedded"``, ``"plugin"`` (runs inside qaeval), or
    ``"imported"`` (items or letters made elsewhere)."""
    hf_id: str = ""
    revision: str = ""
    licence: str = ""
    openness: str = ""
    """Open weights, open source, closed; as the registry says."""
    released: str = ""
    """Month of the release, ``"2024-09"``."""
    description: str = ""
    """What an embedded model does, in a few words."""
    host: str = ""
    """Where it was served; empty for embedded models."""
    server: str = ""
    """Server and version, ``"vllm 0.26.0"``."""
    max_model_len: int | None = None
    sampling: Mapping[str, Plain] = Field(default_factory=dict)
    """Temperature, top_p, seed, max_tokens as they were sent."""
    more: Mapping[str, Plain] = Field(default_factory=dict)
    """Anything else that belongs in the list of facts: quantisation, judge mode, structured output."""

    @property
    def is_embedded(self) -> bool:
        """Whether it is a baseline of qaeval's own and no language model."""
        return self.kind == EMBEDDED
