"""Checks of questions and answers by patterns and shared words."""

import re
from functools import lru_cache
from typing import Final

from qaeval.checks.check import CheckedItem
from qaeval.records import REJECTED
from qaeval.text.language import LANGUAGES, TOLD_APART, language_of, language_to_write
from qaeval.text.units import (
    content_stems,
    content_words,
    count_words,
    has_no_spaces,
    named_terms,
    number_values,
    numbers,
    stem,
    words,
)

_TEXT_NOUN: Final = (
    r"(?:text|passage|document|chunk|excerpt|context|source|above)\b"
    r"(?![-_/]|\s(?:of|window|windows|length|size|limit|manager|switch|code|files?|tree|repositor\w+"
    r"|database|fields?|columns?|box"
    r"|editor|object|store|root|server|branch|encoder|parallelism|variables?|processing|types?|ids?"
    r"|models?)\b)"
)
_STOCK: Final = re.compile(
    r"\b(?:according to|based on|as (?:stated|described|mentioned|shown|given) in|in|from) (?:the|this) "
    rf"(?:(?:provided|given|above|following) )?{_TEXT_NOUN}"
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
_ASKED_FOR: Final = re.compile(
    r"\b(?:(?P<amount>how (?:many|much|long|often)|wie (?:viele?|lange|oft|hoch))|(?P<reason>why|warum"
    r"|wieso|weshalb)"
    r"|(?P<way>how|wie)|(?P<time>when|wann)|(?P<place>where|wo)|(?P<who>who|wer)|(?P<thing>what|which|was"
    r"|welche\w?))\b",
    re.IGNORECASE,
)
"""What a question asks for; "what" and "which" are the same group."""
_CHOICE: Final = re.compile(r"\b(?:or|oder)\b", re.IGNORECASE)
_YES_OR_NO: Final = re.compile(r"^\W*(?:yes|no|ja|nein)\b", re.IGNORECASE)
_DENIAL: Final = re.compile(r"\b(?:not|cannot|no|never|nicht|kein\w{0,2}|nie)\b|n['’]t\b", re.IGNORECASE)
_LIST_NUMBER: Final = re.compile(r"^[ \t]*\d{1,2}[.)][ \t]+(?=\S)", re.MULTILINE)
"""The number of a list item."""
_COUNTED: Final = re.compile(
    r"\b(?:two|three|four|five|zwei|drei|vier|fünf)\s(?:\w{1,20}\s)?(?:ways?|reasons?|options?|parts?"
    r"|things?|kinds?|types?|modes?"
    r"|methods?|cases?|approaches|aspects?|points?|arten|gründe\w?|teile\w?|dinge\w?|möglichkeiten"
    r"|fälle\w?|formen|weisen)\b",
    re.IGNORECASE,
)
"""The answer's count of its own parts, like "two reasons": not a number from the chunk."""
_VERSIONED: Final = re.compile(r"(?<![\w.-])[A-Za-z]\w{0,30}(?:[.-]\w{1,30}){2,8}")
"""A name that contains digits: ``qwen2.5-7b``."""
_PARTS: Final = re.compile(r"[-_./:@'’]")
_SOURCES: Final = 512
"""Chunks whose words are cached: several items and candidates share a chunk."""
_MIN_WORDS_FOR_LANGUAGE: Final = 6


def repeated_question(checked: CheckedItem, *, alike: float = 0.8) -> str:
    """A question that repeats an earlier item of the same reply, exactly or nearly.

    Questions with another question word (why, how, when) or other numbers are not near duplicates.

    Args:
        alike: Share of content words in common (Jaccard) from which two questions are near duplicates.
    """
    question = checked.item.question
    stems = set(content_words(question))
    for earlier in checked.earlier:
        if words(question) == words(earlier.question):
            return f"the same question as item {earlier.position + 1}"
        earlier_stems = set(content_words(earlier.question))
        share = len(stems & earlier_stems) / len(stems | earlier_stems) if stems and earlier_stems else 0.0
        if share >= alike and _asked_for(question) == _asked_for(earlier.question):
            return f"nearly the question of item {earlier.position + 1}: {earlier.question[:80]!r}"
    return ""


def _asked_for(question: str) -> tuple[str | None, set[str]]:
    """Return what a question asks for and its numbers: questions that differ in either are not duplicates."""
    match = _ASKED_FOR.search(question)
    return match.lastgroup if match else None, set(numbers(question))


def foreign_question(checked: CheckedItem, *, least: float = 0.5) -> str:
    """A question with too few words of the chunk to be answered from it.

    A question in a script without spaces is skipped.

    Args:
        least: Minimum share of the question's content words that occur in the chunk or its title.
    """
    if has_no_spaces(checked.item.question):
        return ""
    question = _STOCK.sub(" ", checked.item.question)
    question_words = {stem(word): word for word in words(question) if content_words(word)}
    source_stems = _content_stems(checked.source)
    missing = [
        word
        for root, word in question_words.items()
        if root not in source_stems and not set(content_words(_PARTS.sub(" ", word))) <= source_stems
    ]
    if question_words and 1 - len(missing) / len(question_words) < least:
        return f"the chunk lacks most of its words: {', '.join(missing[:6])}"
    return ""


def echoed_answer(checked: CheckedItem, *, most: float = 0.9) -> str:
    """An answer that repeats the question.

    A yes or no, a denial, a new number or a choice among the options of the question is an answer. Scripts without
    spaces are skipped.

    Args:
        most: Maximum share of the answer's content words that occur in the question.
    """
    question, answer = checked.item.question, checked.item.answer
    answer_stems, question_stems = set(content_words(answer)), set(content_words(question))
    shared = len(answer_stems & question_stems)
    if has_no_spaces(question) or not answer_stems or shared / len(answer_stems) <= most:
        return ""
    is_choice = _CHOICE.search(question) and not answer_stems >= question_stems
    is_denial = _DENIAL.search(answer) and not _DENIAL.search(question)
    if is_choice or is_denial or _YES_OR_NO.search(answer) or set(numbers(answer)) - set(numbers(question)):
        return ""
    return f"the answer repeats the question: {answer[:80]!r}"


def stock_phrase(checked: CheckedItem) -> str:
    """A phrase that refers to a text the reader does not have, or an empty phrase.

    A phrase that occurs in the chunk is part of its subject.
    """
    source = checked.source.casefold()
    for name in ("question", "answer"):
        for match in _STOCK.finditer(getattr(checked.item, name)):
            if match.group().casefold() not in source:
                return f"{name}: {match.group()!r}"
    return ""


def answer_length(checked: CheckedItem, *, least: int = 3, most: int = 120) -> str:
    """An answer that is too short or too long.

    Args:
        least: Minimum number of words; a lone number or name is not fit to publish.
        most: Maximum number of words.
    """
    n = count_words(checked.item.answer)
    return f"{n} words, expected {least} to {most}" if not least <= n <= most else ""


def type_label(checked: CheckedItem) -> str:
    """A question that does not match its type label: no comparison, or no how or why.

    A question in a script without spaces is skipped.
    """
    label, question = checked.item.type, checked.item.question
    if has_no_spaces(question):
        return ""
    cue = _CUES.get(label)
    if cue is not None and not cue.search(question):
        return f"labelled {label}, but nothing in the question says so: {question[:80]!r}"
    if label == "factual" and _WHY.search(question):
        return f"labelled factual, but asks how or why: {question[:80]!r}"
    return ""


def new_numbers(checked: CheckedItem) -> str:
    """Numbers in the answer that are in neither the chunk nor the question.

    Numbers of the expected answer in the eval's data are allowed, since they may have to be computed.
    """
    text = _COUNTED.sub(" ", _VERSIONED.sub(" ", _LIST_NUMBER.sub("", checked.item.answer)))
    if not (stated := numbers(text)):
        return ""
    expected = str(checked.sample.given.get("expected", ""))
    asked = numbers(f"{checked.item.question}\n{expected}")
    known = _values(checked.source) | set(map(_value, asked))
    unknown = [number for number in dict.fromkeys(stated) if _value(number) not in known]
    return f"not in the chunk: {', '.join(unknown)}" if unknown else ""


@lru_cache(maxsize=_SOURCES)
def _content_stems(source: str) -> frozenset[str]:
    return content_stems(source) | content_stems(_PARTS.sub(" ", source))


@lru_cache(maxsize=_SOURCES)
def _values(source: str) -> frozenset[str]:
    return frozenset(map(_value, number_values(source)))


@lru_cache(maxsize=_SOURCES)
def _stems(text: str) -> frozenset[str]:
    return frozenset(stem(part) for word in set(words(text)) for part in (word, *_split(word)))


def _value(number: str) -> str:
    """Normalise a number: no percent sign, no trailing zeros, no dot between thousands."""
    digits = number.rstrip("%")
    if re.fullmatch(r"[1-9]\d{0,2}(?:\.\d{3})+", digits):
        return digits.replace(".", "")
    whole, dot, decimals = digits.partition(".")
    decimals = decimals if "." in decimals else decimals.rstrip("0")
    return f"{whole.lstrip('0') or '0'}{dot if decimals else ''}{decimals}"


def new_names(checked: CheckedItem) -> str:
    """Names and identifiers in the answer that are in neither the chunk nor the question.

    An answer in a script without spaces is skipped: where a name ends is not known there.
    """
    if has_no_spaces(checked.item.answer) or not (names := named_terms(checked.item.answer)):
        return ""
    known = _stems(checked.source) | _stems(checked.item.question)
    unknown = [
        name
        for name in names
        if not name[0].isdigit()
        and stem(name.casefold()) not in known
        and not all(stem(part.casefold()) in known for part in _distinctive_parts(name))
    ]
    return f"not in the chunk: {', '.join(unknown[:6])}" if unknown else ""


def _distinctive_parts(name: str) -> list[str]:
    """Return the parts with capitals or digits: ``H100`` of ``H100-based``; all parts if there are none."""
    parts = _split(name)
    marked = [part for part in parts if any(letter.isupper() or letter.isdigit() for letter in part)]
    return marked or list(parts)


@lru_cache(maxsize=1 << 14)
def _split(name: str) -> tuple[str, ...]:
    """Return the parts of a name, abbreviations without a plural s."""
    parts = [part for part in _PARTS.split(name) if part not in {"", "s"}]
    return tuple(part[:-1] if part.endswith("s") and part[:-1].isupper() else part for part in parts)


def language(checked: CheckedItem) -> str:
    """An answer in another language than its question or chunk; English and German are distinguished.

    Answers of fewer than six words, or with too few words of one language alone, are skipped.
    """
    answer = checked.item.answer
    if len(words(answer)) < _MIN_WORDS_FOR_LANGUAGE:
        return ""
    sample = checked.sample
    expected = language_to_write(question=sample.question, chunk=sample.chunk.language, text=checked.source)
    actual = language_of(answer)
    if not actual or expected not in TOLD_APART or actual == expected:
        return ""
    source = "question" if sample.question else "chunk"
    return f"{LANGUAGES[actual]}, the {source} is {LANGUAGES[expected]}"


def copied_prompt(checked: CheckedItem, *, least: int = 8) -> str:
    """Words of the prompt in place of words about the chunk: the item repeats its instructions or its example.

    Args:
        least: Consecutive words of the prompt, without those that are in the chunk, from which on it is a copy.
    """
    item, asked = checked.item, checked.sample.question
    prompt, source = _runs(checked.prompt, least), _runs(f"{checked.source}\n{asked}", least)
    texts = {
        "question": "" if asked else item.question,
        "answer": item.answer,
        REJECTED: item.parts.get(REJECTED, ""),
    }
    for name, text in texts.items():
        for run in _runs_in_order(text, least):
            if run in prompt and run not in source:
                return f"{name}: {' '.join(run)!r}"
    return ""


def _runs_in_order(text: str, n: int) -> list[tuple[str, ...]]:
    tokens = words(text)
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


@lru_cache(maxsize=_SOURCES)
def _runs(text: str, n: int) -> frozenset[tuple[str, ...]]:
    return frozenset(_runs_in_order(text, n))
