"""Checks of answers from a given context: refusals, the form beside the answer, bare JSON."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from qaeval.checks.check import CheckedItem
from qaeval.records import FORM

_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+|\n+")
_MAX_SENTENCE_CHARS: Final = 1_000
"""Longest part of a sentence that is searched, in characters."""
_MAX_SENTENCES: Final = 40
"""Number of sentences of an answer that are searched."""
_STATE_VERBS: Final = (
    r"(?:say|said|state|mention|specif[iy]|provid|giv|gave|contain|includ|tell|told|answer|cover|describ"
    r"|nam|list|defin|explain"
    r"|address|discuss|indicat|reveal|offer|detail|quantif|document|disclos|clarif|touch|go into|show"
    r"|report|speak)\w*"
)
_CONTEXT_EN: Final = (
    r"\b(?:(?:the|this|that|your) (?:(?:provided|given|supplied|above|available|source) )?|provided |given )"
    r"(?:text|context(?! (?:window|length|size|manager|limit))|passage|chunk|excerpt|snippet|document"
    r"|documentation|section"
    r"|source(?! (?:code|file|tree|database))|article|paragraph|table|information|material)s?\b"
)
_CONTEXT_DE: Final = (
    r"\b(?:(?:de[rmns]|die|das|diese[rmns]?|im|vom|zum) (?:\w+ )?)"
    r"(?:Text\w{0,2}|Kontext\w?|Abschnitt\w?|Auszug\w?|Dokument\w?|Quelle|Passage|Chunk\w?|Tabelle"
    r"|Textstelle|Textauszug)\b"
)
_NEGATION_EN: Final = (
    r"(?:\bnot|n['’]t|\bno|\bnothing|\bnever|\bnone|\bneither|\bnowhere|\bwithout|\blacks?|\bomits?"
    r"|\bfails? to|\bonly)\b"
)
_NEGATION_DE: Final = r"\b(?:nicht|nichts|kein\w{0,2}|nie|nirgends|nur|lediglich|weder|ohne)\b"
_STATED: Final = (
    r"(?:state|mention|specifie|indicate|disclose|describe|discusse|addresse|explaine|reveale|quantifie)d"
    r"|said|clear"
)
_REFUSAL_EN: Final = re.compile(
    rf"{_CONTEXT_EN}[^.!?]{{0,160}}?(?:{_NEGATION_EN}[^.!?]{{0,40}}?\b{_STATE_VERBS}"
    rf"|\b{_STATE_VERBS}[^.!?]{{0,60}}?{_NEGATION_EN}|\b(?:is|are) silent\b)"
    rf"|^\W*(?:it|this)\b[^.!?]{{0,20}}{_NEGATION_EN} (?:\w+ly )?{_STATE_VERBS}"
    rf"|\b(?:is|are|was|were|been|be|it['’]s)(?: not|n['’]t) (?:\w+ly |further )?(?:{_STATED})\b"
    r"|\b(?:is|are|was|were)(?: not|n['’]t) given\W*$"
    rf"|{_NEGATION_EN}[^.!?]{{0,60}}?\b(?:in|from|by|within|to|with|on) {_CONTEXT_EN}"
    r"|\bno (?:\w+ )?(?:information|mention|indication|details?|answer|statement|reference|figures?"
    r"|data)\b[^.!?]{0,40}"
    r"\b(?:given|provided|available|stated|mentioned|found|included|about|on|of|regarding|how|why|what"
    r"|which|who)\b"
    r"|\bI(?: am|['’]m)? (?:cannot|can['’]t|can not|could not|couldn['’]t|do not|don['’]t|unable|not able)\b"
    r"(?: to)? (?:\w+ly )?(?:answer|know|find|determine|tell|say|provide|see|give)\b"
    r"|\b(?:cannot|can['’]t|can not|could not|couldn['’]t) (?:be )?(?:\w+ly )?"
    r"(?:answer|infer|deduce|conclude|derive|(?:determined?|say|said|tell|known?)\b(?=\W*$"
    r"|[^.!?]{0,30}\b(?:from|based|with)\b))"
    r"|\b(?:impossible|not possible|unable|no way) to (?:\w+ly )?(?:answer|determine|infer|say|tell|know)\b"
    r"|\b(?:not enough|insufficient|no sufficient|too little) (?:information|context|details?|data)\b"
    r"|\b(?:unanswerable|not answerable|(?:outside|beyond) the scope of (?:the|this))\b"
    r"|^\W*(?:unknown|n/a|not (?:\w+ly )?(?:stated|specified|mentioned|given|provided|available|answered))\b",
    re.IGNORECASE,
)
_REFUSAL_DE: Final = re.compile(
    rf"{_CONTEXT_DE}[^.!?]{{0,160}}?(?:{_NEGATION_DE}|\bschweigt\b)[^.!?]{{0,120}}?"
    r"\b(?:genannt|erwähn\w*|angegeben|enthalten|beantwort\w*|hervor|Angaben?|Information\w*|Auskunft"
    r"|Aussagen?|beschr[ie]\w*"
    r"|entnehmen|erläutert|erklärt|behandelt|definiert|aufgeführt|gesagt|dazu|darüber|ob|wie|warum"
    r"|welche\w*|wann|wer|wo)\b"
    rf"|{_CONTEXT_DE}[^.!?]{{0,60}}?\b(?:sagt|nennt|enthält|erwähnt|beschreibt|beantwortet|gibt|erklärt"
    rf"|behandelt|definiert|liefert"
    rf"|macht|verrät|spezifiziert|steht)\b[^.!?]{{0,80}}?{_NEGATION_DE}"
    rf"|\b(?:sagt|nennt|enthält|erwähnt|beschreibt|beantwortet|gibt|erklärt|macht|steht"
    rf"|geht)\b[^.!?]{{0,40}}?{_CONTEXT_DE}[^.!?]{{0,60}}?{_NEGATION_DE}"
    rf"|\b(?:steht|stehen|finde[tn])\b[^.!?]{{0,40}}?{_NEGATION_DE}[^.!?]{{0,30}}?{_CONTEXT_DE}"
    r"|\bnicht (?:\w+ )?(?:genannt|erwähnt|angegeben|beschrieben|spezifiziert|erläutert|hervor)\b"
    r"|\bnicht (?:\w+ )?(?:zu )?(?:entnehmen|beantworte\w*|ableiten|ersichtlich|bekannt)\b"
    r"|\bkeine (?:\w+ )?(?:Angaben?|Informationen?|Auskunft|Aussagen?|Antwort|Hinweise?)\b",
    re.IGNORECASE,
)
_CONDITION: Final = re.compile(
    r"\b(?:if|when|unless|whenever|where|wenn|falls|sofern|solange)\b|^\W*(?:ist|sind|wird|werden)\b",
    re.IGNORECASE,
)
"""Before a match: "if no port is specified" states a default; it does not say that the text has no answer."""
_PREAMBLE: Final = re.compile(
    rf"^\W*(?:I(?:['’]m| am) sorry|sorry|I apologi[sz]e|unfortunately|leider|tut mir leid|entschuldigung)"
    rf"|{_CONTEXT_EN}|{_CONTEXT_DE}",
    re.IGNORECASE,
)
"""An apology or a sentence about the context: the refusal may follow in the next sentence."""
_OBJECTION: Final = re.compile(
    r"\b(?:premise|assumption|presumption|Annahme|Prämisse|Voraussetzung)\b[^.!?]{0,40}"
    r"(?:\b(?:wrong|false|incorrect|mistaken|untrue|not|falsch|nicht)\b|n['’]t\b)"
    r"|\b(?:wrong|false|incorrect|mistaken|untrue|falsche[nr]?|irrige[nr]?)\b[^.!?]{0,12}"
    r"\b(?:premise|assumption|presumption|Annahme|Prämisse|Voraussetzung)\b"
    r"|\bquestion (?:\w+ly )?(?:assumes|presupposes)\b"
    r"|\b(?:this|that) is (?:not (?:true|correct|right|the case)|false|wrong|incorrect|untrue)\b"
    r"|\b(?:contrary to|on the contrary|other way (?:a)?round|stimmt nicht|trifft nicht zu|im Gegenteil)\b"
    r"|\b(?:umgekehrt|andersherum)\b",
    re.IGNORECASE,
)
"""Objects to the premise itself; a "not" about something else does not."""
_DENIAL: Final = re.compile(
    r"^\W*(?:(?:not at all|never|nothing|nowhere|none)\b|(?:no|nein)\s*[:;,.]"
    r"|(?:it|they|that|you) (?:(?:does|do|did|is|are|was|were|could)(?: not|n['’]t)|cannot|can['’]t)\s*[:;,.])",
    re.IGNORECASE,
)
"""Denies as a clause of its own, at the beginning of an answer: "It doesn't: …"."""
_FALSE_PREMISE: Final = "false_premise"
_ACCEPTS: Final = "accepts"
"""Field of a sample: regular expressions of accepted corrections."""
_MAX_ANSWER_CHARS: Final = 4_000
"""Longest part of an answer that is compared with accepted corrections, in characters."""


def refuses(answer: str) -> bool:
    """Whether an answer says that the context has no answer, as opposed to a missing detail.

    The refusal is the first sentence, or the second one after an apology or a sentence about the context.
    """
    first, *others = _sentences(answer)[:2] or [""]
    return _is_refusal(first) or (
        bool(others) and _PREAMBLE.search(first) is not None and _is_refusal(others[0])
    )


def _is_refusal(sentence: str) -> bool:
    return any(
        not _CONDITION.search(sentence[: match.start()] or match.group()[:1])
        for pattern in (_REFUSAL_EN, _REFUSAL_DE)
        if (match := pattern.search(sentence))
    )


def _sentences(answer: str) -> list[str]:
    return [
        part[:_MAX_SENTENCE_CHARS]
        for part in _SENTENCE_END.split(answer.strip(), maxsplit=_MAX_SENTENCES)
        if part
    ]


def wrong_refusal(checked: CheckedItem) -> str:
    """A refusal although the chunk has the answer.

    The eval names its answerable types in ``types``.
    """
    return f"declines: {checked.item.answer[:80]!r}" if refuses(checked.item.answer) else ""


def missing_refusal(checked: CheckedItem) -> str:
    """An answer to a question that the chunk does not answer.

    The eval names its unanswerable types in ``types``.

    A refusal in any sentence counts, and so does a correction: one that the sample lists under ``accepts``
    (regular expressions, see `accepted_corrections`), or for a question of the stratum ``false_premise`` a
    statement that the premise is wrong.
    """
    answer = checked.item.answer
    parts = _sentences(answer)
    corrections = accepted_corrections(checked.sample.given)
    if (
        any(map(_is_refusal, parts))
        or any(pattern.search(_comparable(answer)) for pattern in corrections)
        or (checked.sample.stratum == _FALSE_PREMISE and _objects(parts))
    ):
        return ""
    return f"answers: {answer[:80]!r}"


def _objects(parts: Sequence[str]) -> bool:
    return any(map(_OBJECTION.search, parts)) or _DENIAL.search(parts[0] if parts else "") is not None


def accepted_corrections(given: Mapping[str, Any]) -> list[re.Pattern[str]]:
    """Return the compiled ``accepts`` of a sample: each describes a right correction of its question.

    They are searched in the answer, in lower or upper case, ``.`` matches line ends, and ``'`` a typographic
    apostrophe as well.

    Raises:
        ValueError: it is not a list of regular expressions.
    """
    patterns = given.get(_ACCEPTS, [])
    if not isinstance(patterns, list) or not all(isinstance(text, str) and text for text in patterns):
        raise ValueError(f"{_ACCEPTS}: expected a list of regular expressions, got {patterns!r:.60}")
    try:
        return [re.compile(text, re.IGNORECASE | re.DOTALL) for text in patterns]
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{_ACCEPTS}: not a regular expression: {error}") from error


def _comparable(answer: str) -> str:
    return answer[:_MAX_ANSWER_CHARS].replace("’", "'")


def form(checked: CheckedItem, *, fields: Mapping[str, Sequence[str]]) -> str:
    """A missing form, or a field of it that is missing, unknown or has a value that is not allowed.

    Args:
        fields: Allowed values by field.
    """
    text = checked.item.parts.get(FORM, "")
    try:
        values: Any = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return f"expected an object, got {text[:40]}"
    if not isinstance(values, dict):
        return "no form" if values is None else f"expected an object, got {text[:40]}"
    for name, allowed in fields.items():
        if name not in values:
            return f"no {name!r}"
        if values[name] not in allowed:
            return f"{name}: {values[name]!r:.40} is none of {', '.join(allowed)}"
    if unknown := sorted(set(values) - set(fields)):
        return f"unknown field {unknown[0]!r}"
    return ""


def bare_json(checked: CheckedItem) -> str:
    """A reply that is not bare JSON: text or a code fence around it, or malformed JSON."""
    try:
        json.loads(checked.reply)
    except (ValueError, RecursionError):
        start = checked.reply.strip()[:20]
        return f"the reply is not bare JSON; it begins with {start!r}"
    return ""
