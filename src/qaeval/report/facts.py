"""Facts about a run that are not in its rows: models, machines, eval, rubric."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import ConfigDict, Field

from qaeval.records import Record, label_names

Plain: TypeAlias = str | int | float | bool | None
"""A value of a table cell."""

SAME_FAMILY = "judge of a candidate's family"
"""Key in `ModelFacts.more` of a judge that was allowed to grade its own family or model."""

JUDGE_MODE = "judge mode"
"""Key in `ModelFacts.more` of a judge that does not give reasons for every letter."""

EMBEDDED = "embedded"
"""Kind of models that are code in qaeval, without server and weights."""

HOSTED_API = "hosted"
"""Kind of models behind a hosted API."""


def is_unset(value: object) -> bool:
    """Whether a field is empty, so that the document omits it: documents of before stay as they are."""
    return not value


class Part(Record):
    """A frozen part of a document; unknown fields, NaN and infinity are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RunFacts(Part):
    """Everything that may differ between two equal runs."""

    id: str
    """Name of the run directory."""
    started: str
    """UTC, ISO 8601."""
    finished: str
    """End of the last session, UTC, ISO 8601."""
    seconds: Mapping[str, float] = Field(default_factory=dict)
    """Wall seconds by stage and model, ``"generate mistral-7b"``, from the sessions."""
    n_sessions: int = 0
    """Sessions of the run; more than one per stage if it was resumed."""
    n_shared: int = Field(default=0, exclude_if=is_unset)
    """Items that have the text of another item of their sample: they share its letter, and the judge is not asked again."""
    qaeval_version: str
    git_commit: str = ""
    """Empty outside a repository; ends in ``-dirty`` if files differed."""
    python: str = ""
    platform: str = ""
    command: str = ""
    """The command lines that wrote the rows, with semicolons between."""
    warnings: tuple[str, ...] = ()
    """Repairs made when the run was opened, and prompts of the judge in which runs side by side differ; one sentence each."""


class MachineFacts(Part):
    """A machine and its price, from the registry; nothing is assumed."""

    name: str
    """Name in the registry."""
    instance: str = ""
    """The provider's name of the machine type."""
    gpu: str = ""
    gpu_watts: float | None = None
    """Power limit of all GPUs together, in watts."""
    grid_g_per_kwh: float | None = None
    """Grams of CO2 per kilowatt-hour at its location."""
    grid_source: str = ""
    price_per_hour: float | None = None
    currency: str = ""
    terms: str = ""
    """``on demand``, ``spot``, ``reserved`` or ``own``."""
    region: str = ""
    as_of: str | None = None
    """Day on which the price was looked up, ISO 8601."""
    source: str = ""

    @property
    def priced(self) -> str:
        """The price with its conditions: ``USD 1.01 per hour, g6.xlarge on demand, us-east-1, as of …``."""
        details = ", ".join(word for word in (self.terms, self.region) if word)
        name = f"{self.name} ({self.instance})" if self.instance not in {"", self.name} else self.name
        return f"{self.currency} {self.price_per_hour:,.2f} per hour, {name}{f' {details}' if details else ''}, as of {self.as_of}"


class HostedFacts(Part):
    """Token prices of a hosted API, from the registry, with date and source."""

    name: str
    """Name in the registry."""
    model: str = ""
    input_per_million: float
    """Price of a million prompt tokens, in `currency`."""
    output_per_million: float
    """Price of a million output tokens, in `currency`."""
    currency: str
    region: str = ""
    as_of: str
    """Day on which the price was looked up, ISO 8601."""
    source: str

    @property
    def priced(self) -> str:
        """The prices with their conditions: ``api: USD 0.20 / 0.60 per million tokens in / out, as of …``."""
        details = ", ".join(word for word in (self.model, self.region) if word)
        return (
            f"{self.name}{f' ({details})' if details else ''}: {self.currency} {self.input_per_million:,.2f} / "
            f"{self.output_per_million:,.2f} per million tokens in / out, as of {self.as_of}"
        )


class CheckFacts(Part):
    """A check of the eval."""

    name: str
    meaning: str = ""
    types: tuple[str, ...] = ()
    """Item types that are checked; empty: all."""


class EvalFacts(Part):
    """The eval and its sample set."""

    name: str
    sha: str
    """Hash of the whole definition."""
    task_sha: str = Field(default="", exclude_if=is_unset)
    """Hash of the definition without its prompt: what two runs must share to be compared."""
    prompt_sha: str = ""
    """Hash of the eval's prompt; empty where every candidate has a prompt of its own."""
    sample_set_digest: str
    n_samples: int = Field(ge=1)
    items_per_sample: int = Field(ge=1)
    seed: int | None = None
    """Seed of the draw; None if all chunks were used."""
    item_kind: str = "qa_pair"
    item_types: tuple[str, ...] = ()
    checks: tuple[CheckFacts, ...] = ()
    title: str = ""
    source: str = ""
    """Origin and licence of the documents."""

    @property
    def n_expected(self) -> int:
        """Number of items that each candidate must write."""
        return self.n_samples * self.items_per_sample


class Meaning(Part):
    """A letter or flag, and its meaning."""

    name: str
    meaning: str = ""


class FactMeaning(Meaning):
    """A fact that the judge answers, and its possible answers."""

    answers: tuple[str, ...]


class RubricFacts(Part):
    """The rubric."""

    name: str
    version: int = 1
    sha: str
    scale: tuple[Meaning, ...] = Field(min_length=2)
    """Letters, best first; the first one means usable."""
    flags: tuple[Meaning, ...] = ()
    flaws: tuple[Meaning, ...] = Field(default=(), exclude_if=is_unset)
    """Classes of reasons why an item does not get the best letter; empty where the judge is not asked for one."""
    labels_from: tuple[int | str, ...] = Field(default=(), exclude_if=is_unset)
    """Earlier versions, and other rubrics with their version, whose labels hold: their letters mean the same."""
    facts: tuple[FactMeaning, ...] = Field(default=(), exclude_if=is_unset)
    """Facts that the judge answers and the letter is derived from; empty where the judge gives the letter."""

    @property
    def label_name(self) -> str:
        """Name of the rubric in label files: ``qa_pair_abc/1``."""
        return f"{self.name}/{self.version}"

    @property
    def label_names(self) -> frozenset[str]:
        """Names in label files whose labels hold, those of earlier versions included."""
        return label_names(self.name, self.version, self.labels_from)

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the scale, best first."""
        return tuple(letter.name for letter in self.scale)

    @property
    def flag_names(self) -> tuple[str, ...]:
        """Names of the flags, in the order of the rubric."""
        return tuple(flag.name for flag in self.flags)

    @property
    def best(self) -> str:
        """The letter that means usable."""
        return self.scale[0].name


class ModelFacts(Part):
    """Facts about a candidate or judge."""

    name: str
    kind: str
    """``"http"`` (a server on the user's network), ``"hosted"``, ``"embedded"``, ``"plugin"`` (runs inside qaeval), or
    ``"imported"`` (items or letters made elsewhere)."""
    hf_id: str = ""
    revision: str = ""
    licence: str = ""
    family: tuple[str, ...] = Field(default=(), exclude_if=is_unset)
    """Lines of vendors that the model is of (`qaeval.registry.family`); empty where they are not known."""
    openness: str = ""
    """Openness of the licence, as in the registry."""
    released: str = ""
    """Month of the release, ``"2024-09"``."""
    description: str = ""
    """Short description of an embedded model."""
    host: str = ""
    """Host of the server; empty for embedded models."""
    server: str = ""
    """Server and version, ``"vllm 0.26.0"``."""
    max_model_len: int | None = None
    sampling: Mapping[str, Plain] = Field(default_factory=dict)
    """Sampling parameters of the requests."""
    prompt: str = Field(default="", exclude_if=is_unset)
    """Name of the candidate's own prompt; empty for the eval's."""
    prompt_sha: str = Field(default="", exclude_if=is_unset)
    """Hash of the candidate's prompt; empty where it is not known, and of judges."""
    more: Mapping[str, Plain] = Field(default_factory=dict)
    """Other facts: quantisation, judge mode, structured output."""

    @property
    def variant(self) -> "Variant":
        """The candidate as a model with a prompt."""
        return Variant(self.name, self.prompt, self.prompt_sha)

    @property
    def is_embedded(self) -> bool:
        """Whether the model is a floor of qaeval, not a language model."""
        return self.kind == EMBEDDED

    @property
    def is_hosted_api(self) -> bool:
        """Whether a hosted API answers for the model: it is paid by the token, and no machine of the user works for it."""
        return self.kind == HOSTED_API


class PromptChange(Part):
    """A candidate whose counterpart in an earlier run had another prompt."""

    candidate: str
    against: str
    """Name of the counterpart."""
    prompt: str
    """Prompt of the candidate: its name, and the first digits of its hash."""
    prompt_before: str
    """Prompt of the counterpart."""
    sentence: str


def judge_prompt_change(judge: str, sha: str, sha_before: str, *, run: str, earlier: str) -> str:
    """Name the prompts of a judge that two runs were graded with; empty where they are the same.

    Args:
        judge: Name of the judge of both runs.
        sha: Hash of its prompt without the rubric in `run`; empty where it is not recorded, as before qaeval 0.2.
        sha_before: The same of the earlier run.
        run: Name of the run.
        earlier: Name of the earlier run.
    """
    if sha == sha_before:
        return ""
    now, before = (
        f"prompt {text[:8]}" if text else "a prompt that is not recorded" for text in (sha, sha_before)
    )
    return (
        f"The prompt of the judge {judge} changed: {earlier} was graded with {before}, {run} with {now}. Letters of items whose "
        f"texts hold special tokens or marks may differ for that reason alone."
    )


@dataclass(frozen=True, slots=True)
class Variant:
    """A candidate as a model with a prompt.

    Attributes:
        name: Name of the candidate, ``mistral@better``.
        prompt: Name of its own prompt; empty for the eval's.
        sha: Hash of its prompt; empty where it is not known.
    """

    name: str
    prompt: str = ""
    sha: str = ""

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.name.removesuffix(f"@{self.prompt}")

    @property
    def label(self) -> str:
        """The prompt for reading: its name and the first digits of its hash."""
        if not (self.prompt or self.sha):
            return "a prompt that is not recorded"
        return f"{self.prompt or 'the prompt of the eval'}{f' ({self.sha[:8]})' if self.sha else ''}"

    def counterpart(self, others: Iterable["Variant"]) -> "Variant | None":
        """Return the namesake among the candidates of another run, else the only one that is the same model."""
        others = tuple(others)
        if namesakes := [other for other in others if other.name == self.name]:
            return namesakes[0]
        same_model = [other for other in others if other.model == self.model]
        return same_model[0] if len(same_model) == 1 else None

    def change_from(self, before: "Variant", *, run: str, earlier: str) -> PromptChange | None:
        """Return in what the prompt differs from that of the counterpart; None where it does not, or that is not known.

        Args:
            before: The counterpart.
            run: Name of the candidate's run, for the sentence.
            earlier: Name of the counterpart's run.
        """
        if self.sha == before.sha if self.sha and before.sha else self.prompt == before.prompt:
            return None
        return PromptChange(
            candidate=self.name,
            against=before.name,
            prompt=self.label,
            prompt_before=before.label,
            sentence=(
                f"The prompt changed: {before.name} in {earlier} has {before.label}, {self.name} in {run} has {self.label}."
            ),
        )
