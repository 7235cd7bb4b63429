"""A model of the registry: its identity, its server, and what its replies depend on."""

import dataclasses
import re
from collections.abc import Collection, Mapping
from datetime import date
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator
from pydantic.json_schema import SkipJsonSchema

from qaeval.evals.definition import NamedPrompt
from qaeval.records import Cascade, Record
from qaeval.registry.levers import REPETITION_DETECTION, LeverName, lever_arguments

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SamplingT = TypeVar("SamplingT", bound="DataclassInstance")

CAPACITY_ARGS: Final = frozenset({"--gpu-memory-utilization", "--max-num-seqs", "--max-num-batched-tokens"})
"""vLLM arguments that change capacity but not replies; a run can be resumed with other values."""

_PARALLEL: Final = (
    ("--tensor-parallel-size", "-tp"),
    ("--pipeline-parallel-size", "-pp"),
    ("--data-parallel-size", "-dp"),
)
_API_PATH: Final = re.compile(r"/v\d")


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Argument: TypeAlias = Annotated[
    str, BeforeValidator(_as_text), WithJsonSchema({"type": ["string", "number"]})
]
"""A command-line argument; YAML numbers are converted."""


class SamplingOverrides(Record):
    """Sampling parameters that override those of the eval or of the judge; None: no override.

    ``omit`` leaves a field out of every request, for a server that refuses it; its own default applies then.
    """

    temperature: Annotated[float, Field(ge=0, le=2)] | Literal["omit"] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | Literal["omit"] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    seed: int | Literal["omit"] | None = None

    @property
    def omitted(self) -> tuple[str, ...]:
        """Names of the fields that are left out of requests."""
        return tuple(name for name, value in self.model_dump().items() if value == "omit")


class Lora(Record):
    """A LoRA adapter, served together with its base model under another name."""

    base: str
    """Entry of the base model; its fields are the defaults of this entry."""
    path: str = Field(min_length=1, pattern=r"^[^=\s]+$")
    """Folder of the adapter on the server's machine."""
    rank: int = Field(default=16, ge=1, le=512)
    """Maximum rank to serve: at least the rank of the adapter."""


class GpuMetrics(Record):
    """A DCGM exporter with the GPUs of a server; labels are needed only if it also exports other GPUs."""

    url: str
    """URL of the metrics, ``http://host:9400/metrics``."""
    labels: dict[str, Argument] = Field(default_factory=dict)
    """Labels of these GPUs' metrics: ``gpu``, ``UUID``, ``Hostname``, ``pod`` …"""

    @field_validator("url")
    @classmethod
    def _usable_url(cls, url: str) -> str:
        if not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#@\s]*)?", url):
            raise ValueError(
                "expected a URL like http://10.0.0.5:9400/metrics, without user, query or fragment"
            )
        return url


class Attention(Record):
    """Layers whose cache grows with the text; layers with a state of fixed size do not count."""

    layers: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)

    @property
    def kib_per_token(self) -> float:
        """KV cache of one token in 16 bits: keys and values of all layers and heads."""
        return 2 * self.layers * self.kv_heads * self.head_dim * 2 / 1024


JudgeMode: TypeAlias = Literal["reason_first", "letter", "cascade"]
"""``reason_first``: reasons, then the letter. ``letter``: the letter alone. ``cascade``: the letter alone, then reasons for items
of which the judge is unsure."""


class ModelSpec(Record):
    """An entry of the registry. A file that overrides another one may leave out any field."""

    name: str
    """The entry's key."""
    kind: Literal["server", "embedded", "plugin", "hosted"] = "server"
    """``embedded``: a model that ships with qaeval. ``plugin``: a model of an installed package
    (`registry/plugins.py`). ``hosted``: a model behind somebody else's API, at ``url``; every run asks for consent."""
    consented: SkipJsonSchema[bool] = Field(default=False, exclude=True)
    """Whether somebody agreed that this run sends to the hosted API; never in a file."""
    hf_id: str | None = Field(default=None, pattern=r"^[^\s-]\S*$")
    """Argument of ``vllm serve``: a Hugging Face id or a folder."""
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """Commit of the model's repository; None: the head of its main branch."""
    pin: Argument | None = Field(default=None, exclude_if=lambda pin: pin is None)
    """Your name for the weights of a server: a commit, the digest of an image, a training step. Replies of earlier runs are reused
    while it stays the same, so change it whenever the weights change."""
    architecture: str = Field(default="", pattern=r"^[A-Za-z0-9_]*$")
    """Architecture that the model's ``config.json`` names."""
    licence: str = ""
    openness: Literal["open source", "open weight", "restricted", "embedded"] | None = None
    """``open source``: an OSI licence. ``open weight``: weights with conditions. ``restricted``: no
    commercial use."""
    released: str = Field(default="", pattern=r"^(\d{4}-(0[1-9]|1[0-2]))?$")
    """Release month of this version, ``"2024-09"``."""
    hardware: str | None = None
    """Machine of the registry; default: ``defaults.hardware``."""
    family: str = ""
    """Model family, of a merge or a distilled model several; default: by the names of the model
    (`registry/family.py`). A judge prefers replies of the same family."""
    url: str | None = None
    """Base URL of a running server, ``http://host:port/v1``."""
    replicas: tuple[str, ...] = ()
    """Base URLs of further servers of the model; each request goes to the server with the fewest in
    flight."""
    served_name: str | None = None
    """Model name in requests; default: the name of the entry."""
    reply_names: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)
    """Further names under which the server may say that it answered, for instance behind a gateway. A reply by a model of another
    name is refused."""
    api_key_env: str | None = None
    """Environment variable with the API key; keys are not read from files."""
    structured: Literal["json_schema", "off"] = "json_schema"
    system_role: Literal["keep", "merge"] = "keep"
    """``merge`` puts the system message at the start of the first user turn."""
    thinking: bool | None = None
    """``enable_thinking`` of the chat template; None: not sent."""
    judge_mode: JudgeMode = "reason_first"
    """What a judge is asked for."""
    cascade: Cascade = Cascade()
    """Of a judge with ``judge_mode: cascade``."""
    grades_pairs: bool = True
    """Whether it can grade preference pairs, as a judge."""
    lora: Lora | None = None
    """Set if this is an adapter of another entry."""
    weights_gib: float | None = Field(default=None, gt=0)
    """Memory of the weights, for the memory plan of one GPU."""
    kv_kib_per_token: float | None = Field(default=None, gt=0)
    """KV cache of one token, for the memory plan of one GPU."""
    attention: Attention | None = None
    """What the size of a token in the KV cache follows from."""
    gpu_metrics: GpuMetrics | None = None
    """Energy metrics of the GPUs of a server on another machine."""
    gpus: tuple[Argument, ...] = ()
    """GPUs of a server on this machine, by index in ``nvidia-smi`` or by UUID; their energy is read."""
    idle_watts: float | None = Field(default=None, ge=0)
    """Power of the GPUs with the model loaded and no request; None: measured before each stage."""
    vllm_args: tuple[Argument, ...] = ()
    """Arguments of ``vllm serve``, preceded by those of all servers."""
    levers: tuple[LeverName, ...] = ("repetition-detection",)
    """Settings of vLLM that save GPU time, used where the installed version knows them (docs/performance.md)."""
    sampling: SamplingOverrides = SamplingOverrides()
    tuned_on: tuple[str, ...] = ()
    """Evals whose labels with ``split: tuning`` the judge was tuned on; it is evaluated on the other
    labels."""
    parameters: str = ""
    quantisation: str = ""
    source: str = ""
    """Where the facts of the entry were looked up."""
    as_of: date | None = None
    """Date of the look-up."""
    unconfirmed: tuple[str, ...] = ()
    """Fields whose value could not be looked up in the model's repository."""
    notes: str = ""

    @property
    def entry(self) -> str:
        """Key of the entry in the registry."""
        return self.name

    @property
    def served(self) -> str:
        """Model name in requests."""
        return self.served_name or self.name

    @property
    def in_process(self) -> bool:
        """Whether the model runs inside qaeval's process, without a server."""
        return self.kind in {"embedded", "plugin"}

    @property
    def is_hosted(self) -> bool:
        """Whether qaeval starts the server: the entry has ``hf_id`` and no ``url``."""
        return self.kind == "server" and self.url is None and self.hf_id is not None

    @property
    def hosting(self) -> "ModelSpec":
        """The model to start the server with: the base of an adapter, else this model."""
        if self.lora is None:
            return self.model_copy(update={"name": self.entry})
        return self.model_copy(update={"name": self.lora.base, "served_name": None, "lora": None})

    @property
    def utilisation(self) -> float | None:
        """Share of GPU memory that the server may use; None if ``vllm_args`` does not set it."""
        value = _last_value(self.vllm_args, "--gpu-memory-utilization")
        try:
            return float(value) if value else None
        except ValueError:
            return None

    @property
    def context(self) -> int | None:
        """Context length of the server in tokens; None if ``vllm_args`` does not set it."""
        value = _last_value(self.vllm_args, "--max-model-len")
        return int(value) if value and value.isdecimal() else None

    @property
    def n_gpus(self) -> int:
        """Number of GPUs of the server: tensor x pipeline x data parallel."""
        return self._degree(_PARALLEL)

    @property
    def n_shards(self) -> int:
        """Number of GPUs that share the weights: tensor x pipeline parallel."""
        return self._degree(_PARALLEL[:2])

    def _degree(self, options: tuple[tuple[str, ...], ...]) -> int:
        degrees = (
            next((value for name in names if (value := _last_value(self.vllm_args, name))), "1")
            for names in options
        )
        return prod(int(degree) if degree.isdecimal() else 1 for degree in degrees)

    def in_mode(
        self, mode: JudgeMode | None, below: float | None, reasons_for: tuple[str, ...] | None = None
    ) -> "ModelSpec":
        """Return the judge in another mode; one that reads no prompt has none and stays as it is.

        Args:
            mode: None: its own.
            below: Threshold of a cascade; None: its own.
            reasons_for: Letters for which a cascade always asks for reasons; None: its own.
        """
        if self.kind == "embedded":
            return self
        given = {"below": below, "reasons_for": reasons_for}
        cascade = self.cascade.model_copy(
            update={name: value for name, value in given.items() if value is not None}
        )
        return self.model_copy(update={"judge_mode": mode or self.judge_mode, "cascade": cascade})

    def serve_arguments(self, options: Collection[str] = ()) -> tuple[str, ...]:
        """Return the arguments of ``vllm serve``: model, revision, served name, levers and ``vllm_args``, which win over levers.

        Args:
            options: Options of the installed version; empty: not known, and every lever is used.
        """
        revision = ("--revision", self.revision) if self.revision else ()
        levers, _ = lever_arguments(self.levers, options)
        return (self.hf_id or "", *revision, "--served-model-name", self.served, *levers, *self.vllm_args)

    def sampled(self, base: SamplingT) -> SamplingT:
        """Return sampling parameters with the overrides of this model."""
        own = self.sampling.model_dump(exclude_none=True, exclude=set(self.sampling.omitted))
        return dataclasses.replace(base, **own)

    def request_extras(self, *, knows_repetition: bool = False) -> dict[str, Any]:
        """Return request fields beyond the OpenAI API: whether the chat template enables thinking, and levers.

        Args:
            knows_repetition: Whether the server ends replies that repeat themselves.
        """
        thinking = (
            {} if self.thinking is None else {"chat_template_kwargs": {"enable_thinking": self.thinking}}
        )
        is_detected = knows_repetition and "repetition-detection" in self.levers
        return {**thinking, **(REPETITION_DETECTION if is_detected else {})}

    def identity(self) -> dict[str, Any]:
        """Return everything that replies depend on, as JSON, without URLs and capacity arguments."""
        fields = {
            "kind",
            "hf_id",
            "revision",
            "structured",
            "system_role",
            "thinking",
            "judge_mode",
            "sampling",
            "lora",
        }
        if self.judge_mode == "cascade":
            fields.add("cascade")
        if set(self.levers) != {"repetition-detection"}:
            fields.add("levers")  # those of earlier runs, which recorded none, are the default
        return {
            **self.model_dump(mode="json", include=fields),
            "served_name": None if self.hf_id else self.served,
            "vllm_args": _without(self.vllm_args, CAPACITY_ARGS),
        }

    @field_validator("gpu_metrics", mode="before")
    @classmethod
    def _url_alone(cls, value: object) -> object:
        return {"url": value} if isinstance(value, str) else value

    @field_validator("url")
    @classmethod
    def _usable_url(cls, url: str | None) -> str | None:
        return None if url is None else base_url(url)

    @field_validator("replicas")
    @classmethod
    def _usable_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(base_url, urls))

    @field_validator("api_key_env", mode="before")
    @classmethod
    def _is_variable(cls, name: object) -> object:
        # the message does not repeat the value: it may be the key itself
        if name is not None and not (isinstance(name, str) and re.fullmatch(r"[A-Z][A-Z0-9_]*", name)):
            raise ValueError("expected an environment variable in capitals, like VLLM_API_KEY")
        return name

    @field_validator("vllm_args")
    @classmethod
    def _no_secret(cls, args: tuple[str, ...]) -> tuple[str, ...]:
        if any(arg.partition("=")[0] == "--api-key" for arg in args):
            raise ValueError(
                "keys are not read from files; set the environment variable VLLM_API_KEY for vLLM"
            )
        return args


class PromptedModel(ModelSpec):
    """A candidate with a prompt of its own, ``mistral@better``: an entry of the registry and a prompt."""

    prompt: NamedPrompt

    @property
    def entry(self) -> str:
        """Key of the entry in the registry."""
        return self.name.removesuffix(f"@{self.prompt.name}")


def prompted(spec: ModelSpec, prompt: NamedPrompt) -> PromptedModel:
    """Return the candidate that is a model with a prompt; its server is that of the model."""
    name = f"{spec.name}@{prompt.name}"
    return PromptedModel(**{**dict(spec), "name": name, "served_name": spec.served, "prompt": prompt})


_RECORDED: Final = ("hf_id", "served_name", "family")


def recorded_model(name: str, about: Mapping[str, Any]) -> ModelSpec:
    """Return what the settings of a run say of a model: its kind, weights and names.

    Runs of other versions and imported ones are read too: nothing is validated, an unknown kind is that of a server,
    and other fields have their defaults.
    """
    known = {key: about[key] for key in _RECORDED if about.get(key)}
    if about.get("kind") in {"embedded", "plugin"}:
        known["kind"] = about["kind"]
    if "prompt" in about:
        prompt = NamedPrompt.model_construct(**about["prompt"])
        return PromptedModel.model_construct(name=name, prompt=prompt, **known)
    return ModelSpec.model_construct(name=name, **known)


def _last_value(args: tuple[str, ...], name: str) -> str | None:
    value = None
    for index, arg in enumerate(args):
        head, equals, tail = arg.partition("=")
        if head == name:
            value = tail if equals else next(iter(args[index + 1 :]), None)
    return value


def _without(args: tuple[str, ...], names: frozenset[str]) -> list[str]:
    remaining, skip = [], False
    for arg in args:
        head, equals, _ = arg.partition("=")
        if head in names:
            skip = not equals
        elif skip and not arg.startswith("--"):
            skip = False
        else:
            remaining.append(arg)
            skip = False
    return remaining


def base_url(url: str) -> str:
    """Return the base URL of an OpenAI-compatible server.

    ``http://host:8000`` becomes ``http://host:8000/v1``.

    Raises:
        ValueError: it is not such a URL; the message does not repeat passwords.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from error
    if parts.username is not None or parts.password is not None:
        raise ValueError("user names and passwords are not allowed in a URL; use api_key_env")
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ValueError(f"expected a URL like http://127.0.0.1:8000/v1, got {url!r}")
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    if parts.query or parts.fragment or (path and not _API_PATH.search(path)):
        raise ValueError(f"expected the server's base URL ending in /v1, got {url!r}")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"
