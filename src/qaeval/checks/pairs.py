"""Checks of a preference pair: lengths, steps, features, forbidden content, and the facts."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson
from pydantic import ValidationError

from qaeval.checks.case import Case
from qaeval.checks.claims import Facts, claims
from qaeval.checks.scenarios import impossible
from qaeval.records import REJECTED
from qaeval.text.units import content_words

_STEP: Final = re.compile(
    r"(?:^[ \t>#*-]{0,8}|(?<=[.:;!?)])[ \t]{1,4}\*{0,2})(?:"
    r"(\d{1,2})(?:[.):]\*{0,2}|\*\*[.):])\s{1,4}\S"  # 1. do it; **1.** do it
    r"|(?:step|schritt)\s{1,4}(\d{1,2})\b\W{0,6}\s{0,4}\S)",  # Step 1: do it; **Step 1** - do it
    re.IGNORECASE | re.MULTILINE,
)
"""A step at the beginning of a line or of a sentence."""
_NAMED: Final = re.compile(r"(?<!`)`([^`\n]{2,60})`(?!`)|(?<![\w`-])(--[a-zA-Z][\w-]{1,60})")
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
_CANNOT: Final = re.compile(
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
    case: Case,
    *,
    prompt: tuple[int, int] = (80, 120),
    chosen: tuple[int, int] = (250, 300),
    rejected: tuple[int, int] = (140, 160),
    ratio: tuple[float, float] = (1.5, 2.2),
) -> str:
    """A part that is shorter or longer than its band.

    Args:
        prompt: Least and most words.
        chosen: The same of the better answer.
        rejected: The same of the worse one.
        ratio: Least and most of chosen to rejected.
    """
    parts = _parts(case)
    counts = {name: len(text.split()) for name, text in parts.items()}
    found = [
        f"{name} has {counts[name]} words, expected {band[0]} to {band[1]}"
        for name, band in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected))
        if not band[0] <= counts[name] <= band[1]
    ]
    times = counts["chosen"] / counts["rejected"] if counts["rejected"] else 0.0
    if not ratio[0] <= times <= ratio[1]:
        found.append(
            f"chosen is {times:.2f} times as long as rejected, expected {ratio[0]:g} to {ratio[1]:g}"
        )
    return "; ".join(found)


def steps(case: Case, *, least: int = 3) -> str:
    """A chosen answer without numbered steps, or with numbers that skip.

    Args:
        least: Steps at least.
    """
    numbers = [int(plain or named) for plain, named in _STEP.findall(case.item.answer)]
    if len(numbers) < least:
        return f"{len(numbers)} numbered steps, expected {least} at least"
    return "" if numbers == list(range(1, len(numbers) + 1)) else f"steps are numbered {numbers}"


def features(case: Case, *, least: int = 3) -> str:
    """A feature that is named and not on the card's list, or too few that are.

    A feature is what stands in backticks or begins with two dashes.

    Args:
        least: Features of the list that the chosen answer must name.
    """
    known = [_name(feature) for feature in case.sample.given.get("features", ())]
    card = "\n".join([*known, case.source])
    for part, text in _parts(case).items():
        for found in _NAMED.finditer(text):
            feature = (found[1] or found[2]).strip()
            if not _stands(feature, card) and not any(_stands(one, feature) for one in known):
                return f"{part} names {feature!r}, which is not on the card"
    used = sum(_stands(feature, case.item.answer) for feature in known)
    return f"chosen names {used} of the card's features, expected {least} at least" if used < least else ""


def _name(feature: Any) -> str:  # noqa: ANN401 - what the card holds
    return str(feature.get("name", "") if isinstance(feature, Mapping) else feature)


def _stands(name: str, text: str) -> bool:
    """Whether a name stands in a text by itself: ``--port`` does not stand in ``--port-range``."""
    plural = "s?" if name[-1:].isalpha() else ""
    return bool(name) and bool(
        re.search(rf"(?<![\w-]){re.escape(name)}{plural}(?![\w-])", text, re.IGNORECASE)
    )


def forbidden(case: Case) -> str:
    """Money, durations or hardware figures where the card forbids them."""
    for kind in case.sample.given.get("forbidden", ()):
        if kind not in _FORBIDDEN:
            return f"the card forbids {kind!r}, which is none of {', '.join(_FORBIDDEN)}"
        for name, text in _parts(case).items():
            if found := _FORBIDDEN[kind].search(text):
                return f"{kind} in {name}: {found.group().strip()!r}"
    return ""


def reality(case: Case, *, facts: Mapping[str, Any]) -> str:
    """A claim that the facts contradict by more than a factor of two, or a grant of what cannot be.

    The prompt is left alone: the user who speaks there may be mistaken. So are the means that an answer
    repeats from a scenario that cannot be.

    Args:
        facts: The content of the facts file.
    """
    known = _facts(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS))
    try:
        arithmetic = impossible(case.sample.given.get("scenario_facts", {}), known)
    except ValidationError as error:
        first = error.errors()[0]
        return f"the card's scenario cannot be read: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    false = [
        f"{name} {claim}"
        for name, text in _parts(case).items()
        if name != "prompt"
        for claim in claims(text, known)
        if not claim.holds and not (arithmetic and claim.enough)
    ]
    if arithmetic and not _CANNOT.search(case.item.answer):
        false.insert(0, f"chosen does not say that this cannot be done: {arithmetic}")
    return "; ".join(false[:3])


def too_alike(case: Case, *, most: float = 0.9) -> str:
    """A rejected answer that differs from the chosen one by next to nothing.

    Args:
        most: Share of content words in common (Jaccard).
    """
    one, other = (set(content_words(text)) for text in (case.item.answer, case.item.parts.get(REJECTED, "")))
    share = len(one & other) / len(one | other) if one | other else 1.0
    return f"chosen and rejected share {share:.0%} of their words" if share > most else ""


def _parts(case: Case) -> dict[str, str]:
    item = case.item
    return {"prompt": item.question, "chosen": item.answer, "rejected": item.parts.get(REJECTED, "")}


@lru_cache(maxsize=8)
def _facts(content: bytes) -> Facts:
    return Facts.model_validate_json(content)
