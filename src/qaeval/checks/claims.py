"""The reality check: claims about memory, price, speed and data size, compared with a facts file.

Patterns extract the claims of a text. The expected figure follows from the facts by the arithmetic that a
finding shows; a claim within a factor of two of it, or of a range of prices, is accepted. A sentence makes no
claim if it does not name the subject of its figure, if it is a denial ("80 GB is not enough"), if it names two
subjects, or if the subject has a size of zero ("a 0B model").
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from qaeval.files.yaml import read_yaml, validated
from qaeval.records import Record
from qaeval.text.units import sentences

Method: TypeAlias = Literal["inference_16bit", "inference_4bit", "full", "lora", "qlora"]

FACTOR: Final = 2.0
"""A claim within this factor of the expected figure is accepted."""
MAX_SENTENCE_CHARS: Final = 1_000
"""Longest part of a sentence that is searched; prose has no longer sentences."""

_AMOUNT: Final = r"(?<![\d,.])(\d[\d,]{0,20}(?:\.\d{1,9})?)"
_QLORA: Final = re.compile(
    r"\bqlora\b|\b(?:4-bit|quanti[sz]ed) (?:lora|fine-?tun\w*|adapters?)", re.IGNORECASE
)
_LORA: Final = re.compile(r"\b(?:lora|adapters?)\b|\bLoRA-", re.IGNORECASE)
_FULL: Final = re.compile(
    r"\bfull(?:y|-parameter)?\b.{0,20}\b(?:fine-?tun|train)\w*|\bpre-?train\w*|\btrain(?:s|ing"
    r"|ed)?\b.{0,20}\bfrom scratch"
    r"|\bvollständig\w*\b.{0,20}\b(?:train|fein|fine-?tun)\w*|\bvon Grund auf\b",
    re.IGNORECASE,
)
_4BIT: Final = re.compile(
    r"\b(?:4[- ]bit|int4|nf4|awq|gptq|q4_\w{1,9}|quanti[sz]ed|quantisiert\w*)\b", re.IGNORECASE
)
_16BIT: Final = re.compile(
    r"\b(?:serv(?:e|es|ing)|host(?:s|ing)?|inference|load(?:s|ing)?|run(?:s|ning)?|fp16|bf16|16-bit|weights"
    r"|Inferenz|betreiben|läuft|laden|Gewichte)\b",
    re.IGNORECASE,
)
_OTHER_WIDTH: Final = re.compile(
    r"\b(?:[235-8][- ]bit|int8|fp8|fp4|q[235-8]_\w{1,9}|fp32|32-bit)\b", re.IGNORECASE
)
"""Bit widths of weights without an entry in the facts."""
_SIZE: Final = re.compile(
    r"(?<![\w.,$€])(\d{1,4}(?:\.\d{1,3})?)[\s-]?(?:[Bb]|billion|Milliarden)\b(?![/\w]|-[Aa]\d)"
    r"(?!\s(?:tokens?|documents|words|requests|dollars|euros?|USD|EUR|Token|Wörter)\b)"
)
_SPARSE: Final = re.compile(r"\b(?:MoE|mixture|active|sparse)\b|\d[Bb]-A\d", re.IGNORECASE)
_COUNT_WORDS: Final = {
    "two": 2,
    "three": 3,
    "four": 4,
    "eight": 8,
    "zwei": 2,
    "drei": 3,
    "vier": 4,
    "acht": 8,
}
_MEMORY: Final = re.compile(
    rf"(?:\b(\d{{1,2}}|{'|'.join(_COUNT_WORDS)})"
    r"(?:\s?[x×]\s?|\s(?:(?:cards?|GPUs?|Karten) (?:with|of|mit) )?))?"
    rf"{_AMOUNT}[\s-]?(?:Gi?B|gigabytes?)\b"
    r"(?!\s(?:of\s)?(?:\w{1,20}\s){0,2}(?:disk|storage|downloads?|text|data|RAM|documents|Festplatte"
    r"|Texte?n?|Daten)\b)",
    re.IGNORECASE,
)
_SAYS_MEMORY: Final = re.compile(
    r"\bVRAM\b|memory\b|\b(?:cards?|GPUs?|(?:Grafik|GPU-|Video)?Speicher\w?|(?:Grafik)?karten?)\b",
    re.IGNORECASE,
)
_MEMORY_WINDOW: Final = 40
"""Characters around a figure in which GPU memory must be named."""
_REQUIRES: Final = re.compile(
    r"\b(?:needs?|requires?|takes?|uses?|occup(?:y|ies)|consumes?|wants?|brauch(?:t|en)|benötig(?:t|en)"
    r"|beleg(?:t|en))\b",
    re.IGNORECASE,
)
"""A requirement; without it a figure is the memory of a card, and more than enough is not wrong."""
_SHARED: Final = re.compile(
    r"\b(?:per|each|every|je|pro) (?:GPU|card|device|rank|Karte)\b|\b(?:each|jeweils|FSDP|ZeRO|DeepSpeed"
    r"|shard\w*|offload\w*)\b",
    re.IGNORECASE,
)
"""The model is sharded or partly offloaded."""
_DENIAL: Final = re.compile(
    r"\b(?:not|cannot|no|never|neither|nor|insufficient|exceeds?|short of|too (?:small|little|large|big)"
    r"|nicht|kein\w{0,2}"
    r"|zu (?:klein|wenig|groß)|übersteigt)\b|n['’]t\b",
    re.IGNORECASE,
)
_HAS: Final = re.compile(
    r"\b(?:has|have|having|offers?|provides?|comes with|ships with|hat|haben|bietet)(?: only| just"
    r"| nur)?\s*$",
    re.IGNORECASE,
)
"""Before a figure: the memory of a card, not a requirement."""
_PER_HOUR: Final = (
    r"\s?(?:/\s?|per |an |a |each |pro |je |die )(?:GPU[- ]?|card[- ]|node[- ])?(?:h|hr|hour|Stunde)\b"
)
_PRICE: Final = re.compile(
    rf"(?:(?:US)?\$|\bUSD)\s?{_AMOUNT}{_PER_HOUR}|{_AMOUNT}\s?(?:USD|US dollars|dollars?|\$){_PER_HOUR}",
    re.IGNORECASE,
)
_OTHER_PRICE: Final = re.compile(
    r"\b(?:spot|reserved|committed|marketplace|nodes?|instances?|cluster|altogether|total|insgesamt)\b"
    r"|\b(?:[2-9]|\d\d|two|three|four|eight|zwei|vier|acht)\s?[x×]?\s?(?:[A-Z]+\d+\w*|GPUs|cards)\b",
    re.IGNORECASE,
)
_SPEED: Final = re.compile(
    rf"{_AMOUNT}\s?tokens?\s?(?:/\s?|per |a |pro |je )(?:s|sec|second|Sekunde)\b", re.IGNORECASE
)
_SHARED_THROUGHPUT: Final = re.compile(
    r"\b(?:many|concurrent\w*|batch\w*|at once|parallel\w*|aggregate\w*|total|altogether|across"
    r"|throughput|users|prefill|prompt"
    r"|speculative|draft|gleichzeitig\w*|insgesamt|Durchsatz)\b|\b(?:[2-9]|\d\d|two|three|four|eight|zwei"
    r"|vier|acht)\s?[x×]?\s?[A-Z]+\d+",
    re.IGNORECASE,
)
_TOKENS: Final = re.compile(
    rf"{_AMOUNT}\s?(million|billion|trillion|Millionen|Milliarden|Billionen"
    rf"|[MBT])?\s?tokens?\b(?!\s?(?:per|a|/|pro|je)\b|/)",
    re.IGNORECASE,
)
_TEXT: Final = re.compile(
    rf"{_AMOUNT}\s?(MB|GB|TB)\b\s(?:of\s)?(?:(?!image|video|audio|binary|compressed"
    rf"|gzipped)\w{{1,20}}\s){{0,2}}?"
    r"(?:text|data|documents|Texte?n?|Daten|Dokumenten?)\b",
    re.IGNORECASE,
)
_UNITS: Final = {
    "": 1.0,
    **dict.fromkeys(("million", "millionen", "m", "mb"), 1e6),
    **dict.fromkeys(("billion", "milliarden", "b", "gb"), 1e9),
    **dict.fromkeys(("trillion", "billionen", "t", "tb"), 1e12),
}
_SUFFIX: Final = re.compile(r"(?:[- ]|(?<!\d))\d+\s?GB$", re.IGNORECASE)


_Usd: TypeAlias = Annotated[float, Field(gt=0)]


class GpuFacts(Record):
    """Memory, speed and hourly price of a GPU."""

    memory_gb: float = Field(gt=0)
    bandwidth_gb_s: float = Field(gt=0)
    tflops_bf16: float = Field(gt=0)
    """Dense, without sparsity."""
    usd_per_hour: _Usd | tuple[_Usd, _Usd] | None = None
    """A price, or the lowest and the highest."""
    published_since: str = ""
    """Date since which the prices have been published, at the latest; ISO 8601, a month or a day."""
    as_of: str = ""
    """Date at which the prices were last seen, ISO 8601."""
    source: str = ""
    """Who publishes the prices, and where they were seen."""

    @model_validator(mode="after")
    def _lowest_first(self) -> Self:
        if self.prices and self.prices[0] > self.prices[1]:
            raise ValueError(f"usd_per_hour: expected [lowest, highest], got {list(self.prices)}")
        return self

    @property
    def prices(self) -> tuple[float, float] | None:
        """Lowest and highest price in USD per hour; None without a price."""
        if self.usd_per_hour is None or isinstance(self.usd_per_hour, tuple):
            return self.usd_per_hour
        return self.usd_per_hour, self.usd_per_hour

    def price_label(self) -> str:
        """Return the prices with their dates: ``1.19 to 3.67 USD, published since 2026-03, seen on 2026-11-09``."""
        amount = " to ".join(f"{price:g}" for price in dict.fromkeys(self.prices or ()))
        since = f", published since {self.published_since}" if self.published_since else ""
        return f"{amount} USD{since}, seen on {self.as_of or 'an unknown day'}"


class Facts(Record):
    """The facts that claims are compared with."""

    gb_per_billion: dict[Method, Annotated[float, Field(gt=0)]]
    """Least GPU memory in GB per billion parameters, by method."""
    gpus: dict[str, GpuFacts]
    bytes_per_token: float = Field(default=4.0, gt=0)
    """Bytes of English text per token."""
    utilisation: float = Field(default=0.4, gt=0, le=1)
    """Share of the peak rate that training reaches."""
    sources: dict[str, str] = Field(default_factory=dict)

    @cached_property
    def _patterns(self) -> Mapping[str, re.Pattern[str]]:
        """A pattern per GPU: its name with or without its memory size, but not with another memory size."""
        suffixes = {
            name: rf"(?:[- ]?{gpu.memory_gb:g}\s?GB\b)?(?![- ]?\d+\s?GB)" for name, gpu in self.gpus.items()
        }
        return {name: re.compile(rf"\b{_base(name)}s?\b{suffix}") for name, suffix in suffixes.items()}

    def gpus_in(self, sentence: str) -> list[str]:
        """Return the GPUs that a name in a sentence can mean: ``A100`` those of 40 and of 80 GB; none for two names."""
        names = [name for name, pattern in self._patterns.items() if pattern.search(sentence)]
        return names if len(set(map(_base, names))) == 1 else []

    def gpu_in(self, sentence: str) -> str:
        """Return the name of the GPU in a sentence; empty if it names none, or can mean more than one."""
        names = self.gpus_in(sentence)
        return names[0] if len(names) == 1 else ""

    def without_gpus(self, sentence: str) -> str:
        """Replace the names of GPUs, so that the memory size in a name is not read as a figure."""
        for pattern in self._patterns.values():
            sentence = pattern.sub("GPU", sentence)
        return sentence


def _base(name: str) -> str:
    """Return the pattern of a GPU's name without its memory: ``RTX 4090`` is also written ``RTX4090``."""
    return re.escape(_SUFFIX.sub("", name)).replace(r"\ ", "[ -]?")


def load_facts(path: Path) -> Facts:
    """Read a facts file.

    Raises:
        DataError: the file is missing or invalid.
    """
    return validated(Facts, read_yaml(path), path)


@dataclass(frozen=True)
class Claim:
    """A figure that a sentence claims, and the figure that follows from the facts."""

    claimed: float
    expected: float
    label: str
    """The claim with its unit."""
    arithmetic: str
    """Derivation of the expected figure."""
    highest: float | None = None
    """Where the facts give a range, its upper end; ``expected`` is then the lower one."""
    is_available: bool = False
    """Whether the figure is available memory, not a requirement; more than expected is then accepted."""

    @property
    def holds(self) -> bool:
        """Whether the figures are within a factor of two."""
        is_enough = self.expected / FACTOR <= self.claimed
        return is_enough and (self.is_available or self.claimed <= (self.highest or self.expected) * FACTOR)

    def __str__(self) -> str:
        return f"claims {self.label}; {self.arithmetic}"


def claims(text: str, facts: Facts) -> Iterator[Claim]:
    """Extract the claims of a text that can be compared with the facts."""
    for sentence in sentences(text):
        excerpt = sentence[:MAX_SENTENCE_CHARS]
        if not _DENIAL.search(excerpt):
            yield from _memory(excerpt, facts)
            yield from _price(excerpt, facts)
            yield from _speed(excerpt, facts)
            yield from _data(excerpt, facts)


def _memory(sentence: str, facts: Facts) -> Iterator[Claim]:
    # of several figures the closest counts: the others may have another subject
    size, method = _billions(sentence), _method(sentence)
    if size is None or method is None or method not in facts.gb_per_billion or _SHARED.search(sentence):
        return
    text = facts.without_gpus(sentence)
    figures = [
        _number(match[2]) * (_COUNT_WORDS.get(match[1].casefold()) or int(match[1]) if match[1] else 1)
        for match in _MEMORY.finditer(text)
        if _SAYS_MEMORY.search(text[max(0, match.start() - _MEMORY_WINDOW) : match.end() + _MEMORY_WINDOW])
        and not _HAS.search(text[: match.start()])
    ]
    gb_per_billion = facts.gb_per_billion[method]
    if figures:
        claimed = _closest(figures, gb_per_billion * size)
        arithmetic = f"{size:g} billion parameters × {gb_per_billion:g} GB = {gb_per_billion * size:,.4g} GB"
        label = f"{claimed:,g} GB for {size:g}B by {method_label(method)}"
        yield Claim(
            claimed, gb_per_billion * size, label, arithmetic, is_available=not _REQUIRES.search(sentence)
        )


def _price(sentence: str, facts: Facts) -> Iterator[Claim]:
    # a name without its memory can mean several GPUs: the lowest and the highest price of all of them hold
    match, names = _PRICE.search(sentence), facts.gpus_in(sentence)
    if match is None or _OTHER_PRICE.search(sentence):
        return
    gpus = {name: gpu for name in names if (gpu := facts.gpus[name]).prices}
    prices = [price for gpu in gpus.values() for price in gpu.prices or ()]
    if prices and len(gpus) == len(names):
        yield Claim(
            _number(match[1] or match[2]),
            min(prices),
            f"{match.group().strip()} for {' or '.join(gpus)}",
            "; ".join(f"{name}: {gpu.price_label()}" for name, gpu in gpus.items()),
            highest=max(prices),
        )


def _speed(sentence: str, facts: Facts) -> Iterator[Claim]:
    # a single request reads all weights for every token; concurrent requests share that read
    match, name, size = _SPEED.search(sentence), facts.gpu_in(sentence), _billions(sentence)
    if match is None or not name or size is None:
        return
    if any(pattern.search(sentence) for pattern in (_SHARED_THROUGHPUT, _SPARSE, _OTHER_WIDTH)):
        return
    weights = size * (0.5 if _4BIT.search(sentence) else 2.0)
    bandwidth = facts.gpus[name].bandwidth_gb_s
    limit = bandwidth / weights
    arithmetic = (
        f"{bandwidth:g} GB/s ÷ {weights:g} GB of weights = {limit:,.4g} tokens/s at most for one request"
    )
    yield Claim(_number(match[1]), limit, f"{match.group()} on {name}", arithmetic)


def _data(sentence: str, facts: Facts) -> Iterator[Claim]:
    text, token_counts = _TEXT.search(sentence), list(_TOKENS.finditer(sentence))
    n_bytes = _number(text[1]) * _UNITS[text[2].casefold()] if text else 0.0
    if text is None or not n_bytes or not token_counts:
        return
    expected = n_bytes / facts.bytes_per_token
    claimed = _closest(
        (_number(match[1]) * _UNITS[(match[2] or "").casefold()] for match in token_counts), expected
    )
    arithmetic = f"{text.group()} ÷ {facts.bytes_per_token:g} bytes = {expected:,.0f} tokens"
    yield Claim(claimed, expected, f"{claimed:,.0f} tokens", arithmetic)


def _method(sentence: str) -> Method | None:
    """Return the method that a sentence is about; None if it names none, or two methods of training."""
    remaining, n_qlora = _QLORA.subn(" ", sentence)
    methods: list[Method] = ["qlora"] if n_qlora else []
    methods += ["lora"] if _LORA.search(remaining) else []
    methods += ["full"] if _FULL.search(remaining) else []
    if methods or _OTHER_WIDTH.search(sentence):
        return methods[0] if len(methods) == 1 else None
    if _4BIT.search(sentence):
        return "inference_4bit"
    return "inference_16bit" if _16BIT.search(sentence) else None


def method_label(method: Method) -> str:
    """Return the usual name of a method."""
    return {"full": "full training with Adam in mixed precision", "lora": "LoRA", "qlora": "QLoRA"}.get(
        method, method.replace("_", " at ")
    )


def _billions(sentence: str) -> float | None:
    """Return the size of the model that a sentence names; None if it names several, or a size of zero."""
    sizes = {float(size) for size in _SIZE.findall(sentence)}
    return (sizes.pop() or None) if len(sizes) == 1 else None


def _closest(figures: Iterable[float], expected: float) -> float:
    def factor(figure: float) -> float:
        return max(figure / expected, expected / figure) if figure else float("inf")

    return min(figures, key=factor)


def _number(digits: str) -> float:
    """Read ``1,250.5``; a single comma that does not separate thousands is a decimal comma."""
    if re.fullmatch(r"\d+,\d{1,2}", digits):
        return float(digits.replace(",", "."))
    return float(digits.replace(",", ""))
