"""Why a plan does not fit its cards, by arithmetic on what the topic card says, and what would fit instead."""

import re
from dataclasses import dataclass
from math import isfinite
from typing import Final

from qaeval_floor.topic_card import Card

_GB: Final = {"full": 16.0, "lora": 2.3, "qlora": 0.85}
"""GPU memory for each billion parameters, the smallest that works."""
_METHODS: Final = {"full": "training of all weights", "lora": "sixteen-bit LoRA", "qlora": "QLoRA"}
_MEMORY: Final = {"L4": 24.0}
_USABLE: Final = 0.8
"""Share of a card that a way out may fill, so that activations find room."""


@dataclass(frozen=True, slots=True)
class Reckoning:
    """What an answer to an impossible wish says before its steps."""

    verdict: tuple[str, ...]
    way_out: tuple[str, ...]


_BARE: Final = Reckoning(
    ("As it is described, this cannot be done with the means that you have, and no setting changes that.",),
    (),
)


def reckoned(card: Card) -> Reckoning:
    """Reckon the memory of an impossible plan; without figures on the card there is a verdict alone."""
    facts = card.facts or {}
    size, method, name = facts.get("billions"), str(facts.get("method", "full")), str(facts.get("gpu", ""))
    n, each = facts.get("n_gpus", 1), _card_memory(name)
    if not isinstance(size, int | float) or not isfinite(size) or not isinstance(n, int) or method not in _GB:
        return _BARE
    need = _GB[method] * size
    if need <= each * n or each * n <= 0 or "hardware" in card.forbidden:
        return _BARE
    kind = name.partition("-")[0]
    have = f"the {kind} has {each:g} GB" if n == 1 else f"your {n} × {kind} have {each * n:g} GB together"
    verdict = (
        "As it is described, this cannot be done, and the arithmetic shows why.",
        f"{_capital(_METHODS[method])} takes about {_GB[method]:g} GB for each billion parameters.",
        f"That makes {size:g} × {_GB[method]:g} = {need:,.0f} GB, while {have}.",
    )
    return Reckoning(verdict, _way_out(card, float(size), each))


def _way_out(card: Card, size: float, each: float) -> tuple[str, ...]:
    """Say by the same arithmetic what one card holds, of the methods that the card names."""
    named = card.named.casefold()
    offered = [method for method in ("lora", "qlora") if re.search(rf"(?:^|\n){method}\b", named)]
    for method in offered:
        need = _GB[method] * size
        if need <= _USABLE * each:
            takes = f"{_capital(_METHODS[method])} needs about {_GB[method]:g} GB for each billion parameters"
            return (
                f"{takes}, here {size:g} × {_GB[method]:g} = {need:.0f} GB, which one card holds.",
                "Measure the speed before you promise a date.",
            )
    if "qlora" not in offered:
        return ()
    each_billion, most = _GB["qlora"], int(_USABLE * each / _GB["qlora"])
    comes = f"At about {each_billion:g} GB for each billion parameters even QLoRA comes to {each_billion * size:.0f} GB here"
    return (
        f"{comes}, so take a smaller model: up to {most} billion parameters leave some room on the card.",
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _card_memory(name: str) -> float:
    found = re.search(r"(\d+)\s?GB\b", name)
    return float(found.group(1)) if found else _MEMORY.get(name, 0.0)
