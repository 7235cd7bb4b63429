"""Checks of questions and answers by their words."""

import re
from functools import lru_cache
from typing import Final

from qaeval.checks.case import Case
from qaeval.text.lexicon import ENGLISH_MARKS, GERMAN_MARKS
from qaeval.text.units import content_words, named_terms, numbers, stem, words

_THING: Final = (
    r"(?:text|passage|document|chunk|excerpt|context|source|above)\b"
    r"(?![-_/]|\s(?:of|window|windows|length|size|limit|manager|switch|code|files?|tree|repositor\w+"
    r"|database|fields?|columns?|box"
    r"|editor|object|store|root|server|branch|encoder|parallelism|variables?|processing|types?|ids?"
    r"|models?)\b)"
)
_STOCK: Final = re.compile(
    r"\b(?:according to|based on|as (?:stated|described|mentioned|shown|given) in|in|from) (?:the|this) "
    rf"(?:(?:provided|given|above|following) )?{_THING}"
    r"|\b(?:the|this) (?:(?:provided|given|above) )?(?:text|passage|document|excerpt|chunk|context)"
    r" (?:says?|states?|mentions?|describes?|explains?|provides?|discusses)\b"
    r"|\b(?:text|passage|document|excerpt|chunk|context) (?:say|state|mention|describe|explain|discuss)\b"
    r"|\b(?:as an ai|as a language model|great question|i hope this helps|feel free to"
    r"|it is important to note|in conclusion)\b"
    r"|\b(?:laut|gemäß) (?:(?:dem|des|diesem|vorliegendem) )?(?:Text\w{0,2}|Dokument\w{0,2}"
    r"|Abschnitt\w{0,2}|Kontext\w?|Auszug\w?)\b"
    r"|\b(?:im|in diesem|in dem|aus dem|nach dem) (?:(?:gegebenen|vorliegenden|obigen) )?(?:Text"
    r"|Abschnitt|Dokument|Kontext|Auszug)"
    r"\b(?! (?:von|der|des|einer|eines)\b)"
    r"|\b(?:der Text|der Abschnitt|das Dokument|der Kontext|der Auszug) (?:sagt|nennt|beschreibt|erklärt"
    r"|erwähnt|besagt)\b"
    r"|\b(?:sagt|nennt|beschreibt|erklärt|erwähnt) (?:der Text|der Abschnitt|das Dokument|der Kontext"
    r"|der Auszug)\b"
    r"|\b(?:als KI|gute Frage|es ist wichtig zu beachten|ich hoffe,? das hilft)\b",
    re.IGNORECASE,
)
_CUES: Final = {
    "comparison": re.compile(
        r"\b(?:compar\w*|differ\w*|versus|vs|than|relat\w*|whereas|unlike|similar\w*|distinguish\w*"
        r"|between|both|instead|contrast\w*"
        r"|opposed|rather|prefer\w*|(?:dis)?advantages?|in common|or|more|less|fewer|better|worse"
        r"|stronger|weaker"
        r"|unterschied\w*|unterscheid\w*|vergleich\w*|verglichen|gegenüber|gegensatz|zusammen\w*|als|oder"
        r"|eher|anders|anstatt|statt"
        r"|vorteile?|nachteile?|gemeinsam\w*|mehr|weniger|besser|schlechter|beiden?)\b",
        re.IGNORECASE,
    ),
    "conceptual": re.compile(
        r"\b(?:why|how(?! (?:many|much|long|often|large|big|fast|high|old|far)\b)|what (?:happens|does"
        r"|makes|role|purpose|problem)"
        r"|what (?:is|are) [^?]{0,80} for|in what (?:way|sense)|explain|describe|purpose|reason\w*"
        r"|cause\w*|effect\w*|mean\w*|impact\w*"
        r"|consequence\w*|benefit\w*|advantage\w*|role|principle|idea|matters?|idee|prinzip"
        r"|warum|wieso|weshalb|wie(?! (?:viele?|lange|oft|hoch|groß|schnell|heiß\w+|alt)\b)|wozu|wofür"
        r"|wodurch|woran|inwiefern|worin"
        r"|was (?:geschieht|passiert|bewirkt|bedeutet|bringt)|zweck|grund|gründe|folgen?|auswirkung\w*"
        r"|wirkung|rolle|erklär\w*|nutzen)\b",
        re.IGNORECASE,
    ),
}
_WHY: Final = re.compile(
    r"^\s*(?:why|how (?:do|does|is|are|can)\b(?![^?]{0,80}\b(?:called|named|spelled|abbreviated|written)\b)"
    r"|warum|wieso|weshalb|wie (?:funktioniert|wirkt|entsteht|kommt es))\b",
    re.IGNORECASE,
)
_ASKS: Final = re.compile(
    r"\b(?:(?P<amount>how (?:many|much|long|often)|wie (?:viele?|lange|oft|hoch))|(?P<reason>why|warum"
    r"|wieso|weshalb)"
    r"|(?P<way>how|wie)|(?P<time>when|wann)|(?P<place>where|wo)|(?P<who>who|wer)|(?P<thing>what|which|was"
    r"|welche\w?))\b",
    re.IGNORECASE,
)
"""What a question asks for; "what" and "which" ask for the same."""
_CHOICE: Final = re.compile(r"\b(?:or|oder)\b", re.IGNORECASE)
_YES_OR_NO: Final = re.compile(r"^\W*(?:yes|no|ja|nein)\b", re.IGNORECASE)
_DENIES: Final = re.compile(r"\b(?:not|cannot|no|never|nicht|kein\w{0,2}|nie)\b|n['’]t\b", re.IGNORECASE)
_ORDER: Final = re.compile(r"^[ \t]*\d{1,2}[.)][ \t]+(?=\S)", re.MULTILINE)
"""The number of an item in a list."""
_COUNTED: Final = re.compile(
    r"\b(?:two|three|four|five|zwei|drei|vier|fünf)\s(?:\w{1,20}\s)?(?:ways?|reasons?|options?|parts?"
    r"|things?|kinds?|types?|modes?"
    r"|methods?|cases?|approaches|aspects?|points?|arten|gründe\w?|teile\w?|dinge\w?|möglichkeiten"
    r"|fälle\w?|formen|weisen)\b",
    re.IGNORECASE,
)
"""What the answer counts itself."""
_VERSIONED: Final = re.compile(r"(?<![\w.-])[A-Za-z]\w{0,30}(?:[.-]\w{1,30}){2,8}")
"""A name with figures in it: ``qwen2.5-7b``."""
_PARTS: Final = re.compile(r"[-_./:@'’]")
_SOURCES: Final = 512
"""Chunks whose words are kept: several items and candidates ask for the same."""
_LEAST_FOR_LANGUAGE: Final = 6
_TONGUES: Final = {"de": "German", "en": "English"}


def repeated_question(case: Case, *, alike: float = 0.8) -> str:
    """A question that an earlier item of the same reply asks, word for word or nearly.

    Questions that ask for something else (why, how, when) or name other figures are not near duplicates.

    Args:
        alike: Share of content words in common (Jaccard) from which two questions are near duplicates.
    """
    question = case.item.question
    own = set(content_words(question))
    for other in case.before:
        if words(question) == words(other.question):
            return f"the same question as item {other.position + 1}"
        theirs = set(content_words(other.question))
        share = len(own & theirs) / len(own | theirs) if own and theirs else 0.0
        if share >= alike and _asks(question) == _asks(other.question):
            return f"nearly the question of item {other.position + 1}: {other.question[:80]!r}"
    return ""


def _asks(question: str) -> tuple[str | None, set[str]]:
    """What a question asks for, and the figures in it: questions that differ there are not the same."""
    found = _ASKS.search(question)
    return found.lastgroup if found else None, set(numbers(question))


def foreign_question(case: Case, *, least: float = 0.5) -> str:
    """A question whose words the chunk hardly has, so that it cannot answer it.

    Args:
        least: Share of the question's content words that must stand in the chunk or its title.
    """
    asked = {stem(word): word for word in words(_STOCK.sub(" ", case.item.question)) if content_words(word)}
    there = _content(case.source)
    missing = [
        word
        for root, word in asked.items()
        if root not in there and not set(content_words(_PARTS.sub(" ", word))) <= there
    ]
    if asked and 1 - len(missing) / len(asked) < least:
        return f"the chunk lacks most of its words: {', '.join(missing[:6])}"
    return ""


def echoed_answer(case: Case, *, most: float = 0.9) -> str:
    """An answer that says hardly more than the question.

    A yes, a no, a denial, a number or a choice among the things that the question offers is more than that.

    Args:
        most: Share of the answer's content words that may stand in the question.
    """
    question, answer = case.item.question, case.item.answer
    given, asked = set(content_words(answer)), set(content_words(question))
    if not given or len(given & asked) / len(given) <= most:
        return ""
    chosen = _CHOICE.search(question) and not given >= asked
    denied = _DENIES.search(answer) and not _DENIES.search(question)
    if chosen or denied or _YES_OR_NO.search(answer) or set(numbers(answer)) - set(numbers(question)):
        return ""
    return f"the answer repeats the question: {answer[:80]!r}"


def stock_phrase(case: Case) -> str:
    """A phrase that leans on a text which the reader does not have, or that says nothing.

    A phrase that the chunk itself has belongs to its subject.
    """
    source = case.source.casefold()
    for name in ("question", "answer"):
        for found in _STOCK.finditer(getattr(case.item, name)):
            if found.group().casefold() not in source:
                return f"{name}: {found.group()!r}"
    return ""


def answer_length(case: Case, *, least: int = 3, most: int = 120) -> str:
    """An answer of too few or too many words.

    Args:
        least: Words, at least; a lone number or name is no answer that can be published.
        most: Words, at most.
    """
    n = len(case.item.answer.split())
    return f"{n} words, expected {least} to {most}" if not least <= n <= most else ""


def type_label(case: Case) -> str:
    """A question that does not look like what its type label says: no comparison, no how or why."""
    label, question = case.item.type, case.item.question
    cue = _CUES.get(label)
    if cue is not None and not cue.search(question):
        return f"labelled {label}, but nothing in the question says so: {question[:80]!r}"
    if label == "factual" and _WHY.search(question):
        return f"labelled factual, but asks how or why: {question[:80]!r}"
    return ""


def new_numbers(case: Case) -> str:
    """Numbers in the answer that neither the chunk nor the question has.

    A number that the eval's data expects of the answer may have to be computed.
    """
    expected = str(case.sample.given.get("expected", ""))
    known = _values(case.source) | {_value(number) for number in numbers(f"{case.item.question}\n{expected}")}
    text = _COUNTED.sub(" ", _VERSIONED.sub(" ", _ORDER.sub("", case.item.answer)))
    found = [number for number in dict.fromkeys(numbers(text)) if _value(number) not in known]
    return f"not in the chunk: {', '.join(found)}" if found else ""


@lru_cache(maxsize=_SOURCES)
def _content(source: str) -> frozenset[str]:
    return frozenset((*content_words(source), *content_words(_PARTS.sub(" ", source))))


@lru_cache(maxsize=_SOURCES)
def _values(source: str) -> frozenset[str]:
    return frozenset(map(_value, numbers(source)))


@lru_cache(maxsize=_SOURCES)
def _stems(text: str) -> frozenset[str]:
    return frozenset(stem(part) for word in words(text) for part in (word, *_split(word)))


def _value(number: str) -> str:
    """One spelling: no percent sign, no trailing zeros, no dot between thousands."""
    digits = number.rstrip("%")
    if re.fullmatch(r"[1-9]\d{0,2}(?:\.\d{3})+", digits):
        return digits.replace(".", "")
    whole, dot, rest = digits.partition(".")
    rest = rest if "." in rest else rest.rstrip("0")
    return f"{whole.lstrip('0') or '0'}{dot if rest else ''}{rest}"


def new_names(case: Case) -> str:
    """Names and identifiers in the answer that neither the chunk nor the question has."""
    known = _stems(case.source) | _stems(case.item.question)
    found = [
        name
        for name in named_terms(case.item.answer)
        if not name[0].isdigit()
        and stem(name.casefold()) not in known
        and not all(stem(part.casefold()) in known for part in _telling(name))
    ]
    return f"not in the chunk: {', '.join(found[:6])}" if found else ""


def _telling(name: str) -> list[str]:
    """The parts that make a name one: of ``H100-based``, the first."""
    parts = _split(name)
    marked = [part for part in parts if any(letter.isupper() or letter.isdigit() for letter in part)]
    return marked or parts


def _split(name: str) -> list[str]:
    """The parts of a name, those of an abbreviation without its plural s."""
    parts = [part for part in _PARTS.split(name) if part not in {"", "s"}]
    return [part[:-1] if part.endswith("s") and part[:-1].isupper() else part for part in parts]


def language(case: Case) -> str:
    """An answer in another language than its chunk, or than the question it was given; English and German are told apart.

    An answer of fewer than six words, or without a word that only one of the two has, says nothing about it.
    """
    answer = case.item.answer
    if len(words(answer)) < _LEAST_FOR_LANGUAGE:
        return ""
    wanted = case.sample.chunk.language[:2].casefold() or _tongue(case.source)
    if case.sample.question:
        wanted = _tongue(case.sample.question) or wanted
    came = _tongue(answer)
    if not came or wanted not in _TONGUES or came == wanted:
        return ""
    return f"{_TONGUES[came]}, the {'question' if case.sample.question else 'chunk'} is {_TONGUES[wanted]}"


def _tongue(text: str) -> str:
    german = english = 0
    for word in words(text[:20_000]):
        german += word in GERMAN_MARKS
        english += word in ENGLISH_MARKS
    return "" if german == english else "de" if german > english else "en"
