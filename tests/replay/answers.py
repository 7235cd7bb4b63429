"""What the loopback server says: any schema filled from the prompt's own sentences, in vLLM's envelope."""

import hashlib
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

_SENTENCE = re.compile(r"[^.!?\n<>{}]{25,300}[.!?]")
PIECE = re.compile(r"\w+|\s+|[^\w\s]")
"""What counts as a token."""


class Writer:
    """Fills a JSON schema from the sentences of a prompt, the same way every time."""

    def __init__(self, seed: str, prompt: str, *, one_less: bool = False) -> None:
        self._seed = seed
        self._one_less = one_less
        self._sentences = [sentence.strip() for sentence in _SENTENCE.findall(prompt)] or [
            prompt.strip()[:200] or "Nothing."
        ]
        self._shares: dict[str, float] = {}

    def sentence(self, index: int) -> str:
        return self._sentences[(self._number("start") + index) % len(self._sentences)]

    def value(self, schema: Mapping[str, Any], name: str = "", place: int = 0) -> Any:
        """Return a value that obeys the schema."""
        if "enum" in schema:
            return self._choice(schema["enum"], f"{name}{place}")
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if kind == "object":
            return {key: self.value(sub, key, place) for key, sub in schema.get("properties", {}).items()}
        if kind == "array":
            count = schema.get("minItems", 3 if name == "pairs" else 0) - self._one_less
            return [self.value(schema["items"], name, index) for index in range(count)]
        if kind == "string":
            return self._string(name, place)
        return self._number(name) % 10 == 0 if kind == "boolean" else schema.get("minimum", 0)

    def unbound(self, prompt: str) -> str:
        """Return what a model says that no schema holds: JSON like the prompt's example mostly, alone or among words."""
        example = re.search(r"\n(\{[^\n]*\})$", prompt.rstrip())
        luck = self._number("luck") % 10
        if example is None or luck == 0:
            return f"Hello. {self.sentence(0)}"
        allowed = {
            name: re.split(r", | or ", values)
            for name, values in re.findall(
                r"^- (\w+): ([\w-]+(?:, [\w-]+)* or [\w-]+)$", prompt, re.MULTILINE
            )
        }
        text = json.dumps(self._like(json.loads(example[1]), allowed), ensure_ascii=False)
        return f"Here it is:\n```json\n{text}\n```" if luck < 3 else text

    def _like(self, example: Any, allowed: Mapping[str, Sequence[str]], name: str = "") -> Any:
        if isinstance(example, dict):
            return {key: self._like(value, allowed, key) for key, value in example.items()}
        return self._choice(allowed[name], name) if name in allowed else self._string(name, 0)

    def logprobs(self, pieces: Sequence[str], top: int) -> list[dict[str, Any]]:
        """Return a certain token for every piece, except where a letter was chosen."""
        return [
            _token(piece, self._shares.get(piece, 1.0), self._shares, top)
            for piece in [*pieces, "<|im_end|>"]
        ]

    def _choice(self, options: Sequence[Any], name: str) -> Any:
        chosen = options[min(self._number(name) % 10 * len(options) // 14, len(options) - 1)]
        if all(isinstance(option, str) and re.fullmatch(r"[A-Z]", option) for option in options):
            rest = 0.2 / max(1, len(options) - 1)
            self._shares = {option: 0.8 if option == chosen else rest for option in options}
        return chosen

    def _string(self, name: str, index: int) -> str:
        sentence = self.sentence(index)
        if name != "question":
            return sentence
        subject = max(re.findall(r"\w+", sentence) or ["it"], key=len)
        return f"What does the text say about {subject} ({index + 1})?"

    def _number(self, name: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self._seed}\n{name}".encode()).digest()[:6])


def _token(piece: str, share: float, shares: Mapping[str, float], top: int) -> dict[str, Any]:
    alternatives = (
        {token: math.log(value) for token, value in shares.items() if token != piece}
        if piece in shares
        else {}
    )
    listed = {piece: math.log(share), **alternatives} | dict.fromkeys(
        ("<s>", "<pad>", "<unk>", "</s>", "\n", "\t"), -9999.0
    )
    entries = [{"token": text, "bytes": [*text.encode()], "logprob": value} for text, value in listed.items()]
    return {**entries[0], "top_logprobs": entries[: max(1, top)] if top else []}


def envelope(model: str, text: str, finish: str, logprobs: Any, usage: Any) -> dict[str, Any]:
    """Return a chat completion without its id, field for field as vLLM 0.32.0 writes it."""
    message = {"role": "assistant", "content": text}
    message |= dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
    content = None if logprobs is None else {"content": logprobs}
    choice = {"index": 0, "message": message, "logprobs": content, "finish_reason": finish}
    choice |= dict.fromkeys(("stop_reason", "token_ids", "routed_experts"))
    head = {"object": "chat.completion", "created": 1795208013, "model": model, "choices": [choice]}
    server = {"service_tier": None, "system_fingerprint": "vllm-0.32.0-loopback", "usage": usage}
    unused = (
        "prompt_logprobs",
        "prompt_token_ids",
        "prompt_text",
        "kv_transfer_params",
        "ec_transfer_params",
        "metrics",
    )
    return {**head, **server, **dict.fromkeys(unused)}


def usage_of(prompt: str, completion_tokens: int) -> dict[str, Any]:
    prompt_tokens = count_tokens([{"content": prompt}])
    details = {
        "cached_tokens": prompt_tokens // 32 * 16,
        "created_cache_tokens": 0,
        "multimodal_tokens": None,
    }
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": details,
        "completion_tokens_details": None,
    }


def token_ids(text: str, special: Sequence[str], ordinary: Sequence[str]) -> list[int]:
    """Tokenize into special tokens, words and characters; an ordinary piece is one token alone and between letters."""
    pieces = [re.escape(piece) for piece in ordinary]
    patterns = [
        *map(re.escape, special),
        *(rf"\A{piece}\Z|(?<=\w){piece}(?=\w)" for piece in pieces),
        PIECE.pattern,
    ]
    return [zlib.crc32(token.group().encode()) for token in re.finditer("|".join(patterns), text)]


def count_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    return sum(4 + len(turn["content"]) // 4 for turn in messages)
