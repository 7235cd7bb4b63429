"""Checks of an answer that may rest on the given context alone, and of the form that it carries."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from qaeval.checks.case import Case
from qaeval.records import FORM

_END: Final = re.compile(r"(?<=[.!?])\s+|\n+")
_LONGEST: Final = 1_000
"""Characters of a sentence that are looked at."""
_MOST: Final = 40
"""Sentences of an answer that are looked at."""
_VERBS: Final = (
    r"(?:say|said|state|mention|specif[iy]|provid|giv|gave|contain|includ|tell|told|answer|cover|describ"
    r"|nam|list|defin|explain"
    r"|address|discuss|indicat|reveal|offer|detail|quantif|document|disclos|clarif|touch|go into|show"
    r"|report|speak)\w*"
)
_CONTEXT: Final = (
    r"\b(?:(?:the|this|that|your) (?:(?:provided|given|supplied|above|available|source) )?|provided |given )"
    r"(?:text|context(?! (?:window|length|size|manager|limit))|passage|chunk|excerpt|snippet|document"
    r"|documentation|section"
    r"|source(?! (?:code|file|tree|database))|article|paragraph|table|information|material)s?\b"
)
_KONTEXT: Final = (
    r"\b(?:(?:de[rmns]|die|das|diese[rmns]?|im|vom|zum) (?:\w+ )?)"
    r"(?:Text\w{0,2}|Kontext\w?|Abschnitt\w?|Auszug\w?|Dokument\w?|Quelle|Passage|Chunk\w?|Tabelle"
    r"|Textstelle|Textauszug)\b"
)
_NONE: Final = (
    r"(?:\bnot|n['’]t|\bno|\bnothing|\bnever|\bnone|\bneither|\bnowhere|\bwithout|\blacks?|\bomits?"
    r"|\bfails? to|\bonly)\b"
)
_KEIN: Final = r"\b(?:nicht|nichts|kein\w{0,2}|nie|nirgends|nur|lediglich|weder|ohne)\b"
_TELLING: Final = (
    r"(?:state|mention|specifie|indicate|disclose|describe|discusse|addresse|explaine|reveale|quantifie)d"
    r"|said|clear"
)
_REFUSES: Final = re.compile(
    rf"{_CONTEXT}[^.!?]{{0,160}}?(?:{_NONE}[^.!?]{{0,40}}?\b{_VERBS}|\b{_VERBS}[^.!?]{{0,60}}?{_NONE}"
    rf"|\b(?:is|are) silent\b)"
    rf"|^\W*(?:it|this)\b[^.!?]{{0,20}}{_NONE} (?:\w+ly )?{_VERBS}"
    rf"|\b(?:is|are|was|were|been|be|it['’]s)(?: not|n['’]t) (?:\w+ly |further )?(?:{_TELLING})\b"
    rf"|{_NONE}[^.!?]{{0,60}}?\b(?:in|from|by|within|to|with|on) {_CONTEXT}"
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
_LEHNT_AB: Final = re.compile(
    rf"{_KONTEXT}[^.!?]{{0,160}}?(?:{_KEIN}|\bschweigt\b)[^.!?]{{0,120}}?"
    r"\b(?:genannt|erwähn\w*|angegeben|enthalten|beantwort\w*|hervor|Angaben?|Information\w*|Auskunft"
    r"|Aussagen?|beschr[ie]\w*"
    r"|entnehmen|erläutert|erklärt|behandelt|definiert|aufgeführt|gesagt|dazu|darüber|ob|wie|warum"
    r"|welche\w*|wann|wer|wo)\b"
    rf"|{_KONTEXT}[^.!?]{{0,60}}?\b(?:sagt|nennt|enthält|erwähnt|beschreibt|beantwortet|gibt|erklärt"
    rf"|behandelt|definiert|liefert"
    rf"|macht|verrät|spezifiziert|steht)\b[^.!?]{{0,80}}?{_KEIN}"
    rf"|\b(?:sagt|nennt|enthält|erwähnt|beschreibt|beantwortet|gibt|erklärt|macht|steht"
    rf"|geht)\b[^.!?]{{0,40}}?{_KONTEXT}[^.!?]{{0,60}}?{_KEIN}"
    r"|\bnicht (?:\w+ )?(?:genannt|erwähnt|angegeben|beschrieben|spezifiziert|erläutert|hervor)\b"
    r"|\bnicht (?:\w+ )?(?:zu )?(?:entnehmen|beantworte\w*|ableiten|ersichtlich|bekannt)\b"
    r"|\bkeine (?:\w+ )?(?:Angaben?|Informationen?|Auskunft|Aussagen?|Antwort|Hinweise?)\b",
    re.IGNORECASE,
)
_CONDITION: Final = re.compile(
    r"\b(?:if|when|unless|whenever|where|wenn|falls|sofern|solange)\b|^\W*(?:ist|sind|wird|werden)\b",
    re.IGNORECASE,
)
"""Before a match: "if no port is specified" says what holds then, not that the text is silent."""
_PREAMBLE: Final = re.compile(
    rf"^\W*(?:I(?:['’]m| am) sorry|sorry|I apologi[sz]e|unfortunately|leider|tut mir leid|entschuldigung)"
    rf"|{_CONTEXT}|{_KONTEXT}",
    re.IGNORECASE,
)
"""A sentence after which the refusal may follow."""
_OBJECTS: Final = re.compile(
    r"\b(?:actually|in fact|contrary|premise|assumption|assumes|rather than|instead|incorrect\w*|wrong\w*"
    r"|false|mistaken|untrue)\b"
    r"|\b(?:tatsächlich|vielmehr|im Gegenteil|stimmt nicht|trifft nicht zu|falsch\w*|Annahme"
    r"|irrtümlich\w*|sondern|stattdessen)\b",
    re.IGNORECASE,
)
"""Takes a false premise back."""
_DENIES: Final = re.compile(
    r"\b(?:not|cannot|no|never|none|neither)\b|n['’]t\b|\b(?:nein|nicht|kein\w{0,2}|nie|niemals)\b",
    re.IGNORECASE,
)
_FALSE_PREMISE: Final = "false_premise"


def refuses(answer: str) -> bool:
    """Whether an answer says that the context does not answer, rather than that it leaves out some detail.

    The first sentence says so; or the second, after an apology or a sentence about the context.
    """
    first, *rest = _sentences(answer)[:2] or [""]
    return _declines(first) or (bool(rest) and _PREAMBLE.search(first) is not None and _declines(rest[0]))


def _declines(sentence: str) -> bool:
    return any(
        not _CONDITION.search(sentence[: found.start()] or found.group()[:1])
        for pattern in (_REFUSES, _LEHNT_AB)
        if (found := pattern.search(sentence))
    )


def _sentences(answer: str) -> list[str]:
    return [part[:_LONGEST] for part in _END.split(answer.strip(), maxsplit=_MOST) if part]


def wrong_refusal(case: Case) -> str:
    """An answer that declines although the chunk answers.

    The eval names its answerable types in ``types``.
    """
    return f"declines: {case.item.answer[:80]!r}" if refuses(case.item.answer) else ""


def missing_refusal(case: Case) -> str:
    """An answer to a question that the chunk does not answer.

    The eval names its unanswerable types in ``types``.

    A refusal may stand anywhere in the answer. To a question of the stratum ``false_premise``, an answer that
    takes the premise back is none either: it objects somewhere, or denies something in its first sentence.
    """
    parts = _sentences(case.item.answer)
    if any(map(_declines, parts)):
        return ""
    if (
        case.sample.stratum == _FALSE_PREMISE
        and parts
        and (_DENIES.search(parts[0]) or any(map(_OBJECTS.search, parts)))
    ):
        return ""
    return f"answers: {case.item.answer[:80]!r}"


def form(case: Case, *, fields: Mapping[str, Sequence[str]]) -> str:
    """A form that is missing, or a field of it that is missing or has another value than those allowed.

    Args:
        fields: Allowed values by field.
    """
    text = case.item.parts.get(FORM, "")
    try:
        filled: Any = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return f"expected an object, got {text[:40]}"
    if not isinstance(filled, dict):
        return "no form" if filled is None else f"expected an object, got {text[:40]}"
    for name, allowed in fields.items():
        if name not in filled:
            return f"no {name!r}"
        if filled[name] not in allowed:
            return f"{name}: {filled[name]!r:.40} is none of {', '.join(allowed)}"
    if unknown := sorted(set(filled) - set(fields)):
        return f"unknown field {unknown[0]!r}"
    return ""


def bare_json(case: Case) -> str:
    """Words or a code fence around the JSON that was to stand alone, or JSON that had to be mended."""
    try:
        json.loads(case.reply)
    except (ValueError, RecursionError):
        start = case.reply.strip()[:20]
        return f"the reply is not JSON alone; it begins with {start!r}"
    return ""
