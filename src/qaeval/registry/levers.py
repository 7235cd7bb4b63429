"""Settings of vLLM that save GPU time: what each is, which option or field it needs, and what was measured.

A lever is used where the installed vLLM, or a running server, knows it; elsewhere the model is served and asked without it.
Cascade attention is none of them: vLLM 0.32 removed it, and ``--disable-cascade-attn`` has no effect.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, get_args

LeverName: TypeAlias = Literal["repetition-detection", "compact-json", "prompt-lookup", "fp8-kv"]

REPETITION_DETECTION: Final[Mapping[str, Any]] = MappingProxyType(
    {"repetition_detection": {"min_pattern_size": 32, "max_pattern_size": 64, "min_count": 3}}
)
"""Field of a request: a reply ends when its last 32 to 64 tokens repeat three times in a row. A shorter loop is one of these lengths
too. Three of 32 tokens are no list or table; vLLM compares 33 lengths at each token, which costs a microsecond or two each."""


@dataclass(frozen=True)
class Lever:
    """A setting of vLLM.

    Attributes:
        option: Option of ``vllm serve`` that it needs; empty for a field of requests.
        arguments: Arguments of ``vllm serve``.
        saves: What it saves, and what it changes.
        measured: Command and result of the measurement; empty where none was made.
    """

    option: str
    arguments: tuple[str, ...]
    saves: str
    measured: str = ""


LEVERS: Final[Mapping[LeverName, Lever]] = MappingProxyType(
    {
        "repetition-detection": Lever(
            option="",
            arguments=(),
            saves="ends a reply that repeats itself, as the failure `repetition`; default",
        ),
        "compact-json": Lever(
            option="--structured-outputs-config",
            arguments=(
                "--structured-outputs-config.backend=xgrammar",
                "--structured-outputs-config.disable_any_whitespace=true",
            ),
            saves="no white space between the fields of JSON replies",
        ),
        "prompt-lookup": Lever(
            option="--speculative-config",
            arguments=(
                '--speculative-config={"method":"ngram","num_speculative_tokens":4,"prompt_lookup_min":2,"prompt_lookup_max":4}',
            ),
            saves="several tokens a step where a candidate copies from its chunk; the text stays the same but for rounding",
        ),
        "fp8-kv": Lever(
            option="--kv-cache-dtype",
            arguments=("--kv-cache-dtype=fp8",),
            saves="half the memory of a token in the KV cache, so up to twice the sequences; it changes replies slightly",
        ),
    }
)


def lever_arguments(
    levers: Collection[LeverName], options: Collection[str]
) -> tuple[tuple[str, ...], tuple[LeverName, ...]]:
    """Return the arguments of levers that a vLLM knows, and the levers that it does not know.

    Args:
        levers: Those of an entry.
        options: Options of the installed ``vllm serve``; empty where they are not known: all levers are then used.
    """
    chosen = [name for name in get_args(LeverName) if name in levers and LEVERS[name].option]
    unknown = tuple(name for name in chosen if options and LEVERS[name].option not in options)
    return tuple(part for name in chosen if name not in unknown for part in LEVERS[name].arguments), unknown
