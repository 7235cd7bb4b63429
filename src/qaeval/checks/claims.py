"""The reality check: claims of memory, price, speed and data size, against a facts file.

What a text claims is extracted by pattern; what would be true follows from the facts by the arithmetic that
a finding shows. A claim is accepted within a factor of two of it. A sentence that does not say what its figure
belongs to makes no claim and is left alone, and so is one that denies ("80 GB is not enough") or that speaks
of two things at once.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pydantic import Field

from qaeval.files.yaml import read_yaml, validated
from qaeval.records import Record
from qaeval.text.units import sentences

Method: TypeAlias = Literal["inference_16bit", "inference_4bit", "full", "lora", "qlora"]

FACTOR: Final = 2.0
"""A claim within this factor of what the facts say is accepted."""
LONGEST: Final = 1_000
"""Characters of a sentence that are looked at; prose has no longer ones."""

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
"""Widths of weights that the facts say nothing about."""
_SIZE: Final = re.compile(
    r"(?<![\w.,$€])(\d{1,4}(?:\.\d{1,3})?)[\s-]?(?:[Bb]|billion|Milliarden)\b(?![/\w]|-[Aa]\d)"
    r"(?!\s(?:tokens?|documents|words|requests|dollars|euros?|USD|EUR|Token|Wörter)\b)"
)
_SPARSE: Final = re.compile(r"\b(?:MoE|mixture|active|sparse)\b|\d[Bb]-A\d", re.IGNORECASE)
_TIMES: Final = {"two": 2, "three": 3, "four": 4, "eight": 8, "zwei": 2, "drei": 3, "vier": 4, "acht": 8}
_MEMORY: Final = re.compile(
    rf"(?:\b(\d{{1,2}}|{'|'.join(_TIMES)})(?:\s?[x×]\s?|\s(?:(?:cards?|GPUs?|Karten) (?:with|of|mit) )?))?"
    rf"{_AMOUNT}[\s-]?(?:Gi?B|gigabytes?)\b"
    r"(?!\s(?:of\s)?(?:\w{1,20}\s){0,2}(?:disk|storage|downloads?|text|data|RAM|documents|Festplatte"
    r"|Texte?n?|Daten)\b)",
    re.IGNORECASE,
)
_SAYS_MEMORY: Final = re.compile(
    r"\bVRAM\b|memory\b|\b(?:cards?|GPUs?|(?:Grafik|GPU-|Video)?Speicher\w?|(?:Grafik)?karten?)\b",
    re.IGNORECASE,
)
_NEAR: Final = 40
"""Characters around a figure in which it must be said that it is of GPU memory."""
_NEEDS: Final = re.compile(
    r"\b(?:needs?|requires?|takes?|uses?|occup(?:y|ies)|consumes?|wants?|brauch(?:t|en)|benötig(?:t|en)"
    r"|beleg(?:t|en))\b",
    re.IGNORECASE,
)
"""Says what is needed; without it a figure is what there is, and more than needed is no fault."""
_SHARED: Final = re.compile(
    r"\b(?:per|each|every|je|pro) (?:GPU|card|device|rank|Karte)\b|\b(?:each|jeweils|FSDP|ZeRO|DeepSpeed"
    r"|shard\w*|offload\w*)\b",
    re.IGNORECASE,
)
"""The model is divided, or stands in part elsewhere."""
_DENIES: Final = re.compile(
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
"""Before a figure: what a card has, not what something needs."""
_HOUR: Final = (
    r"\s?(?:/\s?|per |an |a |each |pro |je |die )(?:GPU[- ]?|card[- ]|node[- ])?(?:h|hr|hour|Stunde)\b"
)
_PRICE: Final = re.compile(
    rf"(?:(?:US)?\$|\bUSD)\s?{_AMOUNT}{_HOUR}|{_AMOUNT}\s?(?:USD|US dollars|dollars?|\$){_HOUR}",
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
_MANY: Final = re.compile(
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
_SUFFIX: Final = re.compile(r"[- ]?\d+\s?GB$", re.IGNORECASE)


class Gpu(Record):
    """What a GPU has, and what an hour of it costs."""

    memory_gb: float = Field(gt=0)
    bandwidth_gb_s: float = Field(gt=0)
    tflops_bf16: float = Field(gt=0)
    """Dense, without sparsity."""
    usd_per_hour: float | None = Field(default=None, gt=0)
    as_of: str = ""
    """Day of the price, ISO 8601."""
    source: str = ""


class Facts(Record):
    """What claims are compared with."""

    gb_per_billion: dict[Method, float]
    """GPU memory in GB for each billion parameters, by method; the smallest that works."""
    gpus: dict[str, Gpu]
    bytes_per_token: float = Field(default=4.0, gt=0)
    """Of English text."""
    utilisation: float = Field(default=0.4, gt=0, le=1)
    """Share of the peak rate that training reaches."""
    sources: dict[str, str] = Field(default_factory=dict)

    @cached_property
    def _patterns(self) -> Mapping[str, re.Pattern[str]]:
        """Finds each GPU by its name, with or without its memory, and never with another one's."""
        own = {
            name: rf"(?:[- ]?{gpu.memory_gb:g}\s?GB\b)?(?![- ]?\d+\s?GB)" for name, gpu in self.gpus.items()
        }
        return {
            name: re.compile(rf"\b{re.escape(_SUFFIX.sub('', name))}s?\b{rest}") for name, rest in own.items()
        }

    def gpu_in(self, sentence: str) -> str:
        """Name of the GPU that a sentence speaks of; empty where it names none, or more than one."""
        found = [name for name, pattern in self._patterns.items() if pattern.search(sentence)]
        return found[0] if len(found) == 1 else ""

    def without_gpus(self, sentence: str) -> str:
        """Leave out the GPUs' names, so that the memory in them is no figure of its own."""
        for pattern in self._patterns.values():
            sentence = pattern.sub("GPU", sentence)
        return sentence


def load_facts(path: Path) -> Facts:
    """Read a facts file.

    Raises:
        DataError: it is missing or not one.
    """
    return validated(Facts, read_yaml(path), path)


@dataclass(frozen=True)
class Claim:
    """A figure that a sentence claims, and what the facts say instead."""

    claimed: float
    true: float
    what: str
    """What was claimed, with its unit."""
    arithmetic: str
    """How the true figure comes about."""
    enough: bool = False
    """Whether the figure is what there is rather than what is needed; more of it is no fault."""

    @property
    def holds(self) -> bool:
        """Whether the figures are within a factor of two."""
        return self.true / FACTOR <= self.claimed and (self.enough or self.claimed <= self.true * FACTOR)

    def __str__(self) -> str:
        return f"claims {self.what}; {self.arithmetic}"


def claims(text: str, facts: Facts) -> Iterator[Claim]:
    """Extract the claims of a text that the facts can say something about."""
    for sentence in sentences(text):
        part = sentence[:LONGEST]
        if not _DENIES.search(part):
            yield from _memory(part, facts)
            yield from _price(part, facts)
            yield from _speed(part, facts)
            yield from _data(part, facts)


def _memory(sentence: str, facts: Facts) -> Iterator[Claim]:
    """Of several figures in one sentence the closest counts: the others may belong to something else."""
    size, method = _billions(sentence), _method(sentence)
    if size is None or method is None or method not in facts.gb_per_billion or _SHARED.search(sentence):
        return
    bare = facts.without_gpus(sentence)
    figures = [
        _number(found[2]) * (_TIMES.get(found[1].casefold()) or int(found[1]) if found[1] else 1)
        for found in _MEMORY.finditer(bare)
        if _SAYS_MEMORY.search(bare[max(0, found.start() - _NEAR) : found.end() + _NEAR])
        and not _HAS.search(bare[: found.start()])
    ]
    each = facts.gb_per_billion[method]
    if figures:
        claimed = _closest(figures, each * size)
        arithmetic = f"{size:g} billion parameters × {each:g} GB = {each * size:,.4g} GB"
        what = f"{claimed:,g} GB for {size:g}B by {said(method)}"
        yield Claim(claimed, each * size, what, arithmetic, enough=not _NEEDS.search(sentence))


def _price(sentence: str, facts: Facts) -> Iterator[Claim]:
    found, name = _PRICE.search(sentence), facts.gpu_in(sentence)
    if found is None or not name or _OTHER_PRICE.search(sentence):
        return
    gpu = facts.gpus[name]
    if gpu.usd_per_hour is not None:
        arithmetic = f"{gpu.usd_per_hour:g} USD on {gpu.as_of} ({gpu.source})"
        yield Claim(
            _number(found[1] or found[2]), gpu.usd_per_hour, f"{found.group().strip()} for {name}", arithmetic
        )


def _speed(sentence: str, facts: Facts) -> Iterator[Claim]:
    """One request alone reads all weights for every token; many at once are another matter."""
    found, name, size = _SPEED.search(sentence), facts.gpu_in(sentence), _billions(sentence)
    if found is None or not name or size is None:
        return
    if any(pattern.search(sentence) for pattern in (_MANY, _SPARSE, _OTHER_WIDTH)):
        return
    weights = size * (0.5 if _4BIT.search(sentence) else 2.0)
    bandwidth = facts.gpus[name].bandwidth_gb_s
    most = bandwidth / weights
    arithmetic = (
        f"{bandwidth:g} GB/s ÷ {weights:g} GB of weights = {most:,.4g} tokens/s at most for one request"
    )
    yield Claim(_number(found[1]), most, f"{found.group()} on {name}", arithmetic)


def _data(sentence: str, facts: Facts) -> Iterator[Claim]:
    text, found = _TEXT.search(sentence), list(_TOKENS.finditer(sentence))
    if text is None or not found:
        return
    true = _number(text[1]) * _UNITS[text[2].casefold()] / facts.bytes_per_token
    claimed = _closest((_number(one[1]) * _UNITS[(one[2] or "").casefold()] for one in found), true)
    arithmetic = f"{text.group()} ÷ {facts.bytes_per_token:g} bytes = {true:,.0f} tokens"
    yield Claim(claimed, true, f"{claimed:,.0f} tokens", arithmetic)


def _method(sentence: str) -> Method | None:
    """What a sentence is about; None where it does not say, or names two ways of training."""
    rest, n_qlora = _QLORA.subn(" ", sentence)
    ways: list[Method] = ["qlora"] if n_qlora else []
    ways += ["lora"] if _LORA.search(rest) else []
    ways += ["full"] if _FULL.search(rest) else []
    if ways or _OTHER_WIDTH.search(sentence):
        return ways[0] if len(ways) == 1 else None
    if _4BIT.search(sentence):
        return "inference_4bit"
    return "inference_16bit" if _16BIT.search(sentence) else None


def said(method: Method) -> str:
    """What people call a method."""
    return {"full": "full training", "lora": "LoRA", "qlora": "QLoRA"}.get(
        method, method.replace("_", " at ")
    )


def _billions(sentence: str) -> float | None:
    found = {float(size) for size in _SIZE.findall(sentence)}
    return found.pop() if len(found) == 1 else None


def _closest(figures: Iterable[float], true: float) -> float:
    return min(figures, key=lambda figure: max(figure / true, true / figure) if figure else float("inf"))


def _number(digits: str) -> float:
    """Read ``1,250.5``; a single comma that divides no thousands is a decimal comma."""
    if re.fullmatch(r"\d+,\d{1,2}", digits):
        return float(digits.replace(",", "."))
    return float(digits.replace(",", ""))
