"""Checks of a preference pair: lengths, steps, features, forbidden content and claims."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson
from pydantic import ValidationError

from qaeval.checks.check import CheckedItem
from qaeval.checks.claims import Facts, claims
from qaeval.checks.scenarios import impossible
from qaeval.records import REJECTED
from qaeval.text.units import content_words, count_words

_STEP: Final = re.compile(
    r"(?:^[ \t>#*-]{0,8}|(?<=[.:;!?)])[ \t]{1,4}\*{0,2})(?:"
    r"(\d{1,2})(?:[.):]\*{0,2}|\*\*[.):])\s{1,4}\S"  # 1. do it; **1.** do it
    r"|(?:step|schritt)\s{1,4}(\d{1,2})\b\W{0,6}\s{0,4}\S)",  # Step 1: do it; **Step 1** - do it
    re.IGNORECASE | re.MULTILINE,
)
"""A numbered step at the start of a line or of a sentence."""
_CODE_NAME: Final = re.compile(r"(?<!`)`([^`\n]{2,60})`(?!`)|(?<![\w`-])(--[a-zA-Z][\w-]{1,60})")
_FIGURE: Final = r"(?<![\w.,-])\d[\d.,]{0,20}"
_COUNT: Final = (
    rf"(?:{_FIGURE}|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|thirty"
    rf"|forty|sixty|ninety"
    r"|several|a few|a couple of|couple of|half an?|ein(?:en?|er)?|zwei|drei|vier|fünf|sechs|sieben|acht"
    r"|neun|zehn|zwölf|zwanzig"
    r"|dreißig|einigen?|mehreren?|wenigen?|halben?))"
)
_FORBIDDEN: Final[Mapping[str, re.Pattern[str]]] = {
    "money": re.compile(
        rf"[$€£]\s?\d|{_FIGURE}(?:\s?[$€£]|(?:[km]|\s?(?:million|thousand))?[\s-]?(?:dollars?|euros?|USD"
        rf"|EUR|cents?)\b)"
        rf"|{_COUNT}[\s-](?:dollars?|euros?|cents?)\b|\b(?:USD|EUR)\s?\d",
        re.IGNORECASE,
    ),
    "durations": re.compile(
        rf"{_COUNT}[\s-]?(?:(?:milli)?seconds?|minutes?|hours?|days?|weeks?|months?|years?"
        r"|(?:Milli)?Sekunden?|Minuten?|Stunden?|Tage?n?|Wochen?|Monate?n?|Jahre?n?)\b"
        rf"|{_FIGURE}\s?(?:ms|s|secs?|min|h|hrs?|Std)\b|\b(?:within|in|about|takes|for) an? (?:minute"
        rf"|hour|day|week|month|year)\b"
        r"|\bovernight\b|\büber Nacht\b",
        re.IGNORECASE,
    ),
    "hardware": re.compile(
        rf"{_FIGURE}[\s-]?(?i:[GMT]i?B|gigabytes?|terabytes?|TFLOPS?|GHz|Gbps|Gbit|vCPUs?|CPUs?|cores?"
        rf"|GPUs?|Kerne?n?)\b"
        r"|\b(?:A100|[BH][12]00|GH200|L40?S?|T4|V100|A10G?|A6000|MI[23]\d\dX?)s?\b|\bRTX\s?(?:A?\d{4})\b"
        r"|\b[345]0[6-9]0(?:\s?Ti)?s?\b"
    ),
}
_DENIES_FEASIBILITY: Final = re.compile(
    r"\b(?:cannot|can['’]t|can not|could not|couldn['’]t|impossible|not (?:be )?(?:possible|feasible"
    r"|realistic|enough|achievable|viable|sufficient)"
    r"|infeasible|unfeasible|unrealistic|unachievable|out of reach|(?:will not|won['’]t|would not"
    r"|does not|doesn['’]t|do not|don['’]t)"
    r" (?:fit|work|be enough|be possible|add up|suffice|come close)|too (?:little|small|large|short|few"
    r"|low|big)"
    r"|falls? (?:far |well )?short|insufficient|exceeds?|far (?:more|beyond))\b"
    r"|\b(?:unmöglich|nicht (?:möglich|machbar|realistisch|ausreichend|genug|umsetzbar|zu schaffen)"
    r"|unrealistisch|geht nicht"
    r"|reich(?:t|en) (?:\w+ ){0,3}nicht|passt (?:\w+ ){0,3}nicht|zu (?:klein|wenig|kurz|groß|knapp)"
    r"|übersteigt|überschreitet)\b",
    re.IGNORECASE,
)


def words(
    checked: CheckedItem,
    *,
    prompt: tuple[int, int] = (80, 120),
    chosen: tuple[int, int] = (250, 300),
    rejected: tuple[int, int] = (140, 160),
    ratio: tuple[float, float] = (1.5, 2.2),
) -> str:
    """A part that is too short or too long.

    Args:
        prompt: Minimum and maximum number of words of the prompt.
        chosen: The same for the better answer.
        rejected: The same for the worse answer.
        ratio: Minimum and maximum of the length of chosen relative to rejected.
    """
    parts = _parts(checked)
    counts = {name: count_words(text) for name, text in parts.items()}
    problems = [
        f"{name} has {counts[name]} words, expected {band[0]} to {band[1]}"
        for name, band in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected))
        if not band[0] <= counts[name] <= band[1]
    ]
    actual = counts["chosen"] / counts["rejected"] if counts["rejected"] else 0.0
    if not ratio[0] <= actual <= ratio[1]:
        problems.append(
            f"chosen is {actual:.2f} times as long as rejected, expected {ratio[0]:g} to {ratio[1]:g}"
        )
    return "; ".join(problems)


def steps(checked: CheckedItem, *, least: int = 3) -> str:
    """A chosen answer with too few numbered steps, or with gaps in their numbers.

    Args:
        least: Minimum number of steps.
    """
    numbers = [int(plain or named) for plain, named in _STEP.findall(checked.item.answer)]
    if len(numbers) < least:
        return f"{len(numbers)} numbered steps, expected at least {least}"
    return "" if numbers == list(range(1, len(numbers) + 1)) else f"steps are numbered {numbers}"


def features(checked: CheckedItem, *, least: int = 3) -> str:
    """A named feature that is not on the card, or too few features of the card.

    A feature is a name in backticks or with two leading dashes.

    Args:
        least: Minimum number of the card's features in the chosen answer.
    """
    known = [_name(feature) for feature in checked.sample.given.get("features", ())]
    card = "\n".join([*known, checked.source])
    for part, text in _parts(checked).items():
        for match in _CODE_NAME.finditer(text):
            feature = (match[1] or match[2]).strip()
            if not _occurs(feature, card) and not any(_occurs(name, feature) for name in known):
                return f"{part} names {feature!r}, which is not on the card"
    n_named = sum(_occurs(feature, checked.item.answer) for feature in known)
    if n_named < least:
        return f"chosen names {n_named} of the card's features, expected at least {least}"
    return ""


def _name(feature: Any) -> str:  # noqa: ANN401 - JSON of the card
    return str(feature.get("name", "") if isinstance(feature, Mapping) else feature)


def _occurs(name: str, text: str) -> bool:
    """Whether a name occurs in a text as a whole: ``--port`` does not occur in ``--port-range``."""
    plural = "s?" if name[-1:].isalpha() else ""
    return bool(name) and bool(
        re.search(rf"(?<![\w-]){re.escape(name)}{plural}(?![\w-])", text, re.IGNORECASE)
    )


def forbidden(checked: CheckedItem) -> str:
    """Money, durations or hardware figures where the card forbids them."""
    for kind in checked.sample.given.get("forbidden", ()):
        if kind not in _FORBIDDEN:
            return f"the card forbids {kind!r}; expected one of {', '.join(_FORBIDDEN)}"
        for name, text in _parts(checked).items():
            if match := _FORBIDDEN[kind].search(text):
                return f"{kind} in {name}: {match.group().strip()!r}"
    return ""


def reality(checked: CheckedItem, *, facts: Mapping[str, Any]) -> str:
    """A claim that the facts contradict by more than a factor of two, or a plan for an impossible scenario.

    Claims of the prompt are not checked, since its user may be mistaken; nor are the resources that an answer
    repeats from an impossible scenario.

    Args:
        facts: The content of the facts file.
    """
    known_facts = _facts(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS))
    try:
        arithmetic = impossible(checked.sample.given.get("scenario_facts", {}), known_facts)
    except ValidationError as error:
        details = error.errors()[0]
        return f"the card's scenario is invalid: {'.'.join(map(str, details['loc']))}: {details['msg']}"
    problems = [
        f"{name} {claim}"
        for name, text in _parts(checked).items()
        if name != "prompt"
        for claim in claims(text, known_facts)
        if not claim.holds and not (arithmetic and claim.is_available)
    ]
    if arithmetic and not _DENIES_FEASIBILITY.search(checked.item.answer):
        problems.insert(0, f"chosen does not say that this cannot be done: {arithmetic}")
    return "; ".join(problems[:3])


def too_alike(checked: CheckedItem, *, most: float = 0.9) -> str:
    """A rejected answer that hardly differs from the chosen one.

    Args:
        most: Maximum share of content words in common (Jaccard).
    """
    chosen = set(content_words(checked.item.answer))
    rejected = set(content_words(checked.item.parts.get(REJECTED, "")))
    share = len(chosen & rejected) / len(chosen | rejected) if chosen | rejected else 1.0
    return f"chosen and rejected share {share:.0%} of their words" if share > most else ""


def _parts(checked: CheckedItem) -> dict[str, str]:
    item = checked.item
    return {"prompt": item.question, "chosen": item.answer, "rejected": item.parts.get(REJECTED, "")}


@lru_cache(maxsize=8)
def _facts(content: bytes) -> Facts:
    return Facts.model_validate_json(content)
