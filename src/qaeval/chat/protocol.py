"""What a stage needs from a model, and nothing more."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol, TypeAlias, runtime_checkable

from qaeval.records import ControlText, FailureReason, Usage

Role: TypeAlias = Literal["system", "user", "assistant"]
FinishReason: TypeAlias = Literal["stop", "length", "repetition", "abort"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters; all of them are sent, so that no default of the server applies."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 1024
    seed: int | None = 0


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One call of a model.

    Attributes:
        messages: the turns, as they are sent.
        schema: JSON schema of the reply, or None for free text.
        sampling: temperature, top_p, max_tokens, seed.
        inputs: the parts of the messages (``chunk``, ``question``, ``answer``, …), as they are stored: special tokens
            in them are not broken. Models that run inside qaeval may read these; servers never see them.
        escaped: places of the messages that were broken because a model could take them for control, by kind.
        top_logprobs: how many alternatives to ask for at each token; 0 asks for none.
        alternatives_at: finds the token whose alternatives are kept: the first group of the last match in the
            reply.
        probability_of: finds the parts of the reply whose joint probability is asked for: the first group of each match.
    """

    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None
    sampling: Sampling = field(default_factory=Sampling)
    inputs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    escaped: Mapping[ControlText, int] = field(default_factory=lambda: MappingProxyType({}))
    top_logprobs: int = 0
    alternatives_at: re.Pattern[str] | None = None
    probability_of: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True)
class Alternatives:
    """The tokens that a model considered at one position of its reply.

    Attributes:
        token: the token that was generated there.
        at: index of the position inside the token.
        top: natural logarithm of the probability of each token, the generated one included; tokens of the
            same text are added up.
    """

    token: str
    at: int
    top: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's reply.

    Attributes:
        text: the content, without thinking.
        finish_reason: ``stop``, ``length`` (max_tokens reached), ``repetition`` (the server ended a reply that repeated itself) or
            ``abort`` (the server gave up).
        usage: tokens, or None when the model counts none.
        latency_s: wall time of the last attempt, from sending to the last byte, in seconds.
        alternatives: None when none were asked for or given, or the reply has no match.
        cached: whether it is the reply of an earlier run; its latency is then 0.
        n_thinking: characters of thinking that the server gave apart from the text.
        remark: what was odd in the reply beside its text, and is left out; empty for most.
        model: the name of the model that the server says answered; empty where it says none.
        probability: of the parts that the request names, 0 to 1; None when none are named, found or counted.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage | None
    latency_s: float
    alternatives: Alternatives | None = None
    cached: bool = False
    n_thinking: int = 0
    remark: str = ""
    model: str = ""
    probability: float | None = None

    @property
    def repeated(self) -> str:
        """How long a reply was that the server ended because it repeated itself."""
        spent = "" if self.usage is None else f" after {self.usage.completion_tokens:,} tokens"
        return f"the reply repeated itself, and the server ended it{spent} (repetition_detection)"

    @property
    def lost_to_thinking(self) -> str:
        """Where the reply is thinking alone, what to do about it, as the end of a sentence; empty otherwise."""
        if self.text.strip() or not self.n_thinking:
            return ""
        place = f"all {self.n_thinking:,} characters of the reply are thinking, which the server gives apart from the text"
        if self.finish_reason == "length":
            return (
                f"; {place}: set `thinking: false` for the model, or a larger `sampling: {{max_tokens: …}}`"
            )
        return f"; {place} (reasoning_content): set `thinking: false` for the model, or serve it without a reasoning parser"


class ChatError(Exception):
    """A request that has no reply; the stage turns it into a failure row.

    Attributes:
        reason: ``context_overflow``, ``truncated``, ``rejected``, ``interrupted`` or ``endpoint``.
        detail: where, what was expected, what was received.
    """

    def __init__(self, reason: FailureReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@runtime_checkable
class ChatModel(Protocol):
    """A model that can be asked."""

    async def complete(self, request: ChatRequest) -> Completion:
        """Ask once, retries included.

        Raises:
            ChatError: when there is no reply.
        """
        ...


_MAX_PIECES: Final = 256
"""Pieces of a prompt that a server is asked about; further ones count as special, whatever was asked before."""


async def special_pieces(model: object, pieces: Collection[str]) -> frozenset[str]:
    """Return the pieces of a prompt's texts that the model's tokenizer turns into one special id.

    A model that can tell has a method ``special_pieces``; of others, only the special tokens of known chat templates are
    broken (`qaeval.text.control`).
    """
    ask = getattr(model, "special_pieces", None)
    if ask is None or not pieces:
        return frozenset()
    ordered = sorted(pieces)
    special: frozenset[str] = await ask(ordered[:_MAX_PIECES])
    return special.union(ordered[_MAX_PIECES:]) if len(ordered) > _MAX_PIECES else special
