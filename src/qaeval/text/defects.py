"""Variants of a good question/answer pair whose letter is known by construction: planted defects, and harmless changes.

Each rule is a pure function of the pair and a seed. It returns None where it cannot be sure that the result has the
defect: no number to change, or a number that the text holds elsewhere. Rules know English and German.

The catalogue of defects follows FBI (Doddapaneni et al. 2024, *Finding Blind Spots in Evaluator LLMs with Interpretable
Checklists*, arXiv 2406.13439): a judge that misses a planted defect misses it in the candidates' items too.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args

from qaeval.text.lexicon import ENGLISH_STOP, GERMAN_STOP, NUMBER_WORDS, word_set
from qaeval.text.units import content_words, is_german, named_terms, number_values, sentences, words

DefectKind: TypeAlias = Literal[
    "number",
    "date",
    "unit",
    "name",
    "negation",
    "contradiction",
    "qualifier",
    "omission",
    "implication",
    "unsupported addition",
    "invented fact",
    "other question",
    "foreign answer",
    "unanswerable",
    "vague question",
    "copied question",
    "placeholder",
]
"""What is wrong with a planted item; `VARIANTS` has the meanings."""
HarmlessKind: TypeAlias = Literal["paraphrase", "reordering", "formatting", "honest refusal"]
"""What was changed without harm; `VARIANTS` has the meanings."""
VariantKind: TypeAlias = DefectKind | HarmlessKind

Verdict: TypeAlias = Literal["best", "not worst", "not best", "worst"]
"""Letters that a right judge gives: the best, any but the worst, any but the best, the worst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A question and an answer about a text.

    Attributes:
        source: the text.
        question: the question.
        answer: the answer.
        declines: whether the answer says that the text does not answer (`qaeval.checks.answers.refuses`).
    """

    source: str
    question: str
    answer: str
    declines: bool = False


@dataclass(frozen=True, slots=True)
class Variant:
    """A changed pair.

    Attributes:
        kind: what was changed.
        question: the question, changed or not.
        answer: the answer, changed or not.
        change: the change for a reader: ``30 → 45``.
        verdict: the letters that a right judge gives.
        flaw: class of the flaw in the words of the shipped rubrics; empty for a harmless variant.
        invents: whether the pair states as fact something that the text does not support.
    """

    kind: VariantKind
    question: str
    answer: str
    change: str
    verdict: Verdict
    flaw: str = ""
    invents: bool = False


Rule: TypeAlias = Callable[[Pair, Sequence[Pair], random.Random], "_Change | None"]
"""Changes a pair, given other pairs to take texts from; None where it cannot be sure of the result."""


@dataclass(frozen=True, slots=True)
class _Change:
    question: str
    answer: str
    text: str
    verdict: Verdict | None = None
    """None: that of the kind."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of variant: the rule, the verdict and the flaw."""

    meaning: str
    rule: Rule
    verdict: Verdict
    flaw: str = ""
    invents: bool = False
    of_refusals: bool = False
    """Whether an answer that says that the text does not answer can be changed in this way."""


def variant(kind: VariantKind, pair: Pair, *, seed: int, others: Sequence[Pair] = ()) -> Variant | None:
    """Change a good pair; the same arguments give the same result.

    Args:
        kind: What to change.
        pair: A pair whose letter is the best one.
        seed: Chooses among several possible changes.
        others: Good pairs about the same text or about others, for defects that take their texts.

    Returns:
        The variant, or None where the kind does not apply or its letter would not be sure.
    """
    about = VARIANTS[kind]
    if not pair.question.strip() or not pair.answer.strip() or (pair.declines and not about.of_refusals):
        return None
    rng = random.Random(f"{seed}\x00{kind}\x00{pair.question}\x00{pair.answer}")  # noqa: S311 - a seeded draw
    change = about.rule(pair, others, rng)
    if change is None or (change.question, change.answer) == (pair.question, pair.answer):
        return None
    verdict = change.verdict or about.verdict
    return Variant(kind, change.question, change.answer, change.text, verdict, about.flaw, about.invents)


def variants(
    pair: Pair, *, seed: int, others: Sequence[Pair] = (), kinds: Sequence[VariantKind] | None = None
) -> Iterator[Variant]:
    """Yield the variants of a pair, one of each kind that applies; see `variant`.

    Args:
        pair: A pair whose letter is the best one.
        seed: Chooses among several possible changes.
        others: Pairs about the same text or others.
        kinds: Kinds to apply, in this order; None: all.
    """
    for kind in VARIANTS if kinds is None else kinds:
        changed = variant(kind, pair, seed=seed, others=others)
        if changed is not None:
            yield changed


# ---------------------------------------------------------------- parts of a text

_APPROXIMATE: Final = re.compile(
    r"\b(?:at (?:least|most)|up to|more than|less than|fewer than|over|under|above|below|within|no(?:t)? (?:later|more|less)"
    r" than|minimum|maximum|between|from|to|and|or|than|mindestens|höchstens|bis(?: zu)?|mehr als|weniger als|über|unter|"
    r"zwischen|von|und|oder|maximal|minimal|[<>≤≥]|§|No\.|Nr\.|Abs\.|Chapter|Section|Step|Figure|Table|Kapitel|Abschnitt"
    r"|Schritt|Abbildung|Tabelle)\W{0,2}$|^\W*$",
    re.IGNORECASE,
)
"""Before a number: another number may be true as well, or is one end of a range, or the number is that of a section."""
_NUMBER: Final = re.compile(
    r"(?<![\w.,:/+*=−-])(?<!\w-)(\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?|\d+,\d{1,2})(?![\w/:]|[.,]\d|-\w)"
)
_FORMULA: Final = re.compile(r"\d\s*[=×*/+−]|[=×*/+−]\s*\d")
_MULTIPLES: Final = (2, 3, 0.5, 1.5, 4, 5)
_ORDINALS: Final = re.compile(r"^[ \t]*+(?:\d+[.)]|[-*•])\s", re.MULTILINE)
_YEAR: Final = re.compile(
    r"(?P<before>\b(?:in|since|until|of|from|by|im Jahr|Jahr|seit|bis|vom|January|February|March|April|May|June|July|August"
    r"|September|October|November|December|Januar|Februar|März|Mai|Juni|Juli|Oktober|Dezember)\s|\d{1,2}\.\d{1,2}\.)"
    r"(?P<year>(?:19|20)\d\d)(?![\d%]|\s?(?:tokens?|requests?|[KMGT]i?B|ms|s|W|EUR|€|steps|items)\b|[.,]\d)"
)
_ISO_DATE: Final = re.compile(r"\b(?:19|20)\d\d-(?P<month>\d\d)-\d\d\b")
_MONTH_NAMES: Final = (
    ("January", "February", "March", "April", "June", "July", "August", "September", "October", "November", "December"),
    ("Januar", "Februar", "März", "April", "Juni", "Juli", "August", "September", "Oktober", "November", "Dezember"),
)  # fmt: skip
"""Without May and Mai, which are a verb and half a name."""
_MONTH: Final = re.compile(
    rf"\.?\s(?:{'|'.join(month for months in _MONTH_NAMES for month in months)}|May|Mai)\b"
)

_UNITS: Final[Mapping[str, tuple[str, ...]]] = {
    **{unit: tuple(other for other in ("KB", "MB", "GB", "TB") if other != unit) for unit in ("KB", "MB", "GB", "TB")},
    **{unit: tuple(other for other in ("KiB", "MiB", "GiB", "TiB") if other != unit) for unit in ("KiB", "MiB", "GiB", "TiB")},
    "bits": ("bytes",), "bytes": ("bits", "kilobytes"), "bit": ("byte",), "byte": ("bit",),
    "ms": ("s", "µs"), "milliseconds": ("seconds", "minutes"), "seconds": ("minutes", "hours"), "minutes": ("hours", "seconds"),
    "hours": ("days", "minutes"), "days": ("weeks", "hours"), "weeks": ("months", "days"), "months": ("years", "weeks"),
    "years": ("months", "weeks"), "second": ("minute",), "minute": ("hour",), "hour": ("day",), "day": ("week",),
    "Millisekunden": ("Sekunden",), "Sekunden": ("Minuten", "Stunden"), "Minuten": ("Stunden", "Sekunden"),
    "Stunden": ("Tage", "Minuten"), "Tage": ("Wochen", "Stunden"), "Tagen": ("Wochen", "Stunden"), "Wochen": ("Tage", "Monate"),
    "Monate": ("Jahre", "Wochen"), "Monaten": ("Jahren", "Wochen"), "Jahre": ("Monate", "Wochen"), "Jahren": ("Monaten", "Wochen"),
    "mm": ("cm", "m"), "cm": ("mm", "m"), "km": ("m", "cm"), "metres": ("kilometres", "centimetres"), "Meter": ("Kilometer",),
    "mg": ("g",), "kg": ("g", "t"), "W": ("kW",), "kW": ("W", "MW"), "MW": ("kW",), "Wh": ("kWh",), "kWh": ("Wh", "MWh"),
    "watts": ("kilowatts",), "Watt": ("Kilowatt",), "Hz": ("kHz",), "kHz": ("MHz",), "MHz": ("GHz", "kHz"), "GHz": ("MHz",),
    "°C": ("°F",), "bar": ("mbar",), "V": ("kV", "mV"), "dollars": ("cents", "euros"), "euros": ("cents", "dollars"),
    "EUR": ("USD",), "USD": ("EUR",), "Euro": ("Cent", "Dollar"), "cents": ("dollars",), "million": ("billion", "thousand"),
    "billion": ("million",), "Millionen": ("Milliarden",), "Milliarden": ("Millionen",),
}  # fmt: skip
"""Units that no text uses for the same quantity, by unit."""
_QUANTITY: Final = re.compile(
    rf"(?<![\w.,])(\d[\d.,]*)(\s|\u00a0|-)?({'|'.join(sorted(map(re.escape, _UNITS), key=len, reverse=True))})(?![\w/²³])"
)

_NAMES: Final = ("Norvane", "Kelmar", "Tessaro", "Ulvik", "Brenholt", "Quenby", "Marlock", "Dravik")
"""Invented names: no documentation has them."""
_TOKEN: Final = re.compile(r"[^\W_]+(?:[-_.'’/:@][^\W_]+|_+[^\W_]+)*")


def _replaced(text: str, start: int, end: int, new: str) -> str:
    return text[:start] + new + text[end:]


def _article_fits(text: str, start: int, new: str) -> bool:
    """Whether an article before a replaced word still fits: a vowel for ``an``, none for ``a``."""
    before = text[:start].rstrip("`\"'“„").rstrip().rsplit(" ", 1)[-1].casefold()
    return before not in {"a", "an"} or (before == "an") == (new[:1].casefold() in "aeiou")


def _first_sentence_end(text: str) -> int:
    """Return the length of the first sentence, in characters."""
    first = next(iter(sentences(text)), text)
    end = text.find(first[-20:])
    return len(text) if end < 0 else end + len(first[-20:])


def _verdict_at(pair: Pair, position: int) -> Verdict:
    """Return ``worst`` for a defect in the first sentence, the main point; ``not best`` after it."""
    return "worst" if position < _first_sentence_end(pair.answer) else "not best"


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def _squeezed(text: str) -> str:
    """Return a text with single spaces, without marks of Markdown."""
    return " ".join(re.sub(r"[*`_]", "", text).split())


# ---------------------------------------------------------------- defects inside a statement


def _number(pair: Pair, _others: Sequence[Pair], rng: random.Random) -> _Change | None:
    """Replace a number that the text gives by one that it does not hold."""
    answer, held = pair.answer, number_values(pair.source) | number_values(pair.answer)
    asked = number_values(pair.question)
    if _FORMULA.search(answer):
        return None  # a changed result beside its calculation may be read as a slip of the pen
    dates = [match.span() for pattern in (_YEAR, _ISO_DATE) for match in pattern.finditer(answer)]
    places = [
        match
        for match in _NUMBER.finditer(answer)
        if (value := next(iter(number_values(match[1])), "")) in number_values(pair.source)
        and value not in asked
        and value.rstrip("%") not in {"0", "1"}
        and not re.fullmatch(r"(?:19|20)\d\d", match[1])  # a year, which another rule changes
        and not _APPROXIMATE.search(answer[: match.start()])
        and not any(start <= match.start() < end for start, end in dates)
        and not _MONTH.match(answer[match.end() :])
        and not re.match(r"\s?(?:to|and|or|bis|und|oder|–|-)\s?\d", answer[match.end() :])
        and not re.fullmatch(
            r"\d+[.)]?", answer[answer.rfind("\n", 0, match.start()) + 1 : match.end()].strip()
        )
    ]
    if not places:
        return None
    place = rng.choice(places)
    factors = list(_MULTIPLES)
    rng.shuffle(factors)
    for factor in factors:
        new = _scaled(place[1], factor)
        if new and not number_values(new) & held:
            return _Change(
                pair.question,
                _replaced(answer, place.start(1), place.end(1), new),
                f"{place[1]} → {new}",
                _verdict_at(pair, place.start()),
            )
    return None


def _scaled(number: str, factor: float) -> str:
    """Multiply a written number in its own form; empty where the form does not hold the product."""
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+", number):
        value = int(number.replace(",", "")) * factor
        return f"{int(value):,}" if value == int(value) else ""
    if number.isdigit():
        value = int(number) * factor
        return str(int(value)) if value == int(value) and not number.startswith("0") else ""
    separator = "," if "," in number else "."
    digits = len(number.rpartition(separator)[2])
    new = f"{float(number.replace(',', '.')) * factor:.{digits}f}"
    return new.replace(".", separator) if float(new) else ""


def _date(pair: Pair, _others: Sequence[Pair], rng: random.Random) -> _Change | None:
    """Replace a year, a month or an ISO date that the text gives by one that it does not hold."""
    answer, places = pair.answer, []
    for match in _YEAR.finditer(answer):
        places += [
            (match.start("year"), match["year"], str(int(match["year"]) + step)) for step in (-3, -2, 2, 3)
        ]
    for match in _ISO_DATE.finditer(answer):
        month = int(match["month"])
        new = f"{match[0][:5]}{(month + 4) % 12 + 1:02d}{match[0][7:]}"
        places.append((match.start(), match[0], new))
    for names in _MONTH_NAMES[is_german(pair.source) :][:1]:
        for match in re.finditer(rf"\b(?:{'|'.join(names)})\b", answer):
            index = names.index(match[0])
            places += [(match.start(), match[0], names[(index + step) % len(names)]) for step in (3, 5, 7)]
    usable = [
        (start, old, new)
        for start, old, new in places
        if _has_word(pair.source, old)
        and not _has_word(pair.source, new)
        and not _has_word(pair.question, old)
    ]
    if not usable:
        return None
    start, old, new = rng.choice(usable)
    return _Change(
        pair.question,
        _replaced(answer, start, start + len(old), new),
        f"{old} → {new}",
        _verdict_at(pair, start),
    )


def _unit(pair: Pair, _others: Sequence[Pair], rng: random.Random) -> _Change | None:
    """Replace the unit of a quantity that the text gives."""
    source, usable = _squeezed(pair.source), []
    for match in _QUANTITY.finditer(pair.answer):
        number, gap, unit = match[1], match[2] or "", match[3]
        quantities = {f"{number}{space}{unit}" for space in ("", " ", "-", "\u00a0")}
        if not any(_has_word(source, quantity) for quantity in quantities) or _has_word(pair.question, unit):
            continue
        usable += [
            (match, f"{number}{gap}{new}")
            for new in _UNITS[unit]
            if not any(_has_word(source, f"{number}{space}{new}") for space in ("", " ", "-"))
        ]
    if not usable:
        return None
    match, new = rng.choice(usable)
    answer = _replaced(pair.answer, match.start(), match.end(), new)
    return _Change(pair.question, answer, f"{match[0]} → {new}", _verdict_at(pair, match.start()))


def _name(pair: Pair, _others: Sequence[Pair], rng: random.Random) -> _Change | None:
    """Replace a name or an identifier that the text has by one that it does not have."""
    answer, german = pair.answer, is_german(pair.source)
    terms = [
        term
        for term in named_terms(answer)
        if _has_word(pair.source, term)
        and not _has_word(pair.question, term)
        and answer.count(term) == 1
        and len(term) > 2
        and not re.search(r"[²³]", term)
        and not _COMMON.fullmatch(term)
        and term not in _UNITS
        and not ("-" in term and (german or answer.startswith(term)))
        # every noun of German has a capital: an answer may be too short to tell its language
        and (not german or not term[1:].islower())
    ]
    if not terms:
        return None
    term = rng.choice(terms)
    start = answer.index(term)
    new = rng.choice([name for name in _NAMES if _article_fits(answer, start, name)] or list(_NAMES))
    if "_" in term or "-" in term or term.islower():
        new = new.casefold()
    if _has_word(pair.source, new) or not _article_fits(answer, start, new):
        return None
    # letters of a compound name around it would stay: `Llama-3.1` is one token, `vLLM's` is not
    around = answer[max(0, start - 1) : start] + answer[start + len(term) : start + len(term) + 1]
    if any(character.isalnum() or character in "-_/" for character in around.replace("--", "")):
        return None
    return _Change(
        pair.question,
        _replaced(answer, start, start + len(term), new),
        f"{term} → {new}",
        _verdict_at(pair, start),
    )


_COMMON: Final = re.compile(r"[A-Z]{1,4}(?:s|['’]s)?|.*['’]s")
"""Abbreviations, most of which are no names: GPU, HTTP, API, IV; a genitive loses its ending."""

_REMOVED_NEGATIONS: Final = (
    (re.compile(r"\bcannot\b"), "can"),
    (re.compile(r"\bcan['’]t\b"), "can"),
    (
        re.compile(
            r"\b(do|does|did|is|are|was|were|can|will|must|has|have|should|may) not\b(?! (?:only|yet|until))"
        ),
        r"\1",
    ),
    (re.compile(r"\b(do|does|did|is|are|was|were|has|have|should)n['’]t\b"), r"\1"),
    (re.compile(r"\bnever\b"), "always"),
    (re.compile(r"\bno longer\b"), "still"),
    (re.compile(r"\bnicht mehr\b"), "weiterhin"),
    (
        re.compile(
            r"\b(ist|sind|war|wird|werden|kann|können|muss|müssen|darf|dürfen|soll|hat|haben) nicht\b(?! nur)"
        ),
        r"\1",
    ),
    (re.compile(r"\bkein(e[mr]?)?\b(?= \w*[^ens\W]\b)"), r"ein\1"),
    (re.compile(r"\bniemals\b|\bnie\b"), "immer"),
)
_NEGATED: Final = re.compile(
    r"\b(?:not|no|never|none|cannot|nothing|neither|nor|without|only|hardly|nicht|kein\w{0,2}|nie|niemals|ohne|nur|weder)\b|n['’]t\b",
    re.IGNORECASE,
)
_ADDED_NEGATIONS: Final = (
    (
        re.compile(r"\b(is|are|was|were|must|should|will|may)\b(?! (?:not|no|that|why|because|how))"),
        r"\1 not",
    ),
    (re.compile(r"\bcan\b(?! (?:not|be that))"), "cannot"),
    (
        re.compile(
            r"\b(ist|sind|war|wird|werden|kann|können|muss|müssen|darf|soll)\b(?= (?:in|im|am|auf|an|mit|für|von|durch|bei|nach|aus"
            r"|als|zu|zur|zum|der|die|das|dem|den|so|länger|größer|schneller)\b)"
        ),
        r"\1 nicht",
    ),
)


def _negation(pair: Pair, _others: Sequence[Pair], _rng: random.Random) -> _Change | None:
    """Remove the one negation of the first sentence, or add one to its main clause."""
    first, answer = pair.answer[: _first_sentence_end(pair.answer)], pair.answer
    negations = _NEGATED.findall(_YES_NO.sub("", first))
    if len(negations) > 1:
        return None
    if negations:
        for pattern, positive in _REMOVED_NEGATIONS:
            match = pattern.search(first)
            if match:
                new = match.expand(positive)
                return _Change(
                    pair.question, _yes_no(_replaced(answer, *match.span(), new), pair), f"{match[0]} → {new}"
                )
        return None
    clause = re.split(r"[,;:(]", first, maxsplit=1)[0]
    clause = clause if len(words(clause)) > 2 else first
    places = [(pattern.search(clause), new) for pattern, new in _ADDED_NEGATIONS]
    matches = [
        (match, new) for match, new in places if match and not _SUBORDINATE.search(clause[: match.start()])
    ]
    if not matches or first.rstrip().endswith("?"):
        return None
    match, added = min(matches, key=lambda found: found[0].start())
    new = match.expand(added)
    return _Change(pair.question, _yes_no(_replaced(answer, *match.span(), new), pair), f"{match[0]} → {new}")


_SUBORDINATE: Final = re.compile(
    r"\b(?:if|when|whether|that|which|who|whose|while|because|since|unless|until|where|as|than|there|what|how|wenn|dass|ob|weil"
    r"|falls|während|wo|es)\b",
    re.IGNORECASE,
)


_YES_NO: Final = re.compile(r"(Yes|No|Ja|Nein)\b")


def _yes_no(answer: str, pair: Pair) -> str:
    """Turn the Yes of an answer with it, so that a negated answer does not contradict itself alone."""
    swapped = {"Yes": "No", "No": "Yes", "Ja": "Nein", "Nein": "Ja"}
    first = _YES_NO.match(pair.answer)
    return swapped[first[1]] + answer[first.end() :] if first else answer


_OPPOSITES: Final[Mapping[str, str]] = {
    word: other
    for one, another in (
        ("increases", "decreases"), ("increase", "decrease"), ("raises", "lowers"), ("raise", "lower"), ("higher", "lower"),
        ("larger", "smaller"), ("bigger", "smaller"), ("faster", "slower"), ("longer", "shorter"), ("more", "less"),
        ("before", "after"), ("above", "below"), ("always", "never"), ("maximum", "minimum"), ("enables", "disables"),
        ("enabled", "disabled"), ("accepts", "refuses"), ("accepted", "refused"), ("permits", "forbids"), ("allows", "forbids"),
        ("starts", "stops"), ("first", "last"), ("reduces", "increases"), ("shortens", "lengthens"), ("removes", "adds"),
        ("internal", "external"), ("public", "private"), ("optional", "mandatory"), ("largest", "smallest"), ("highest", "lowest"),
        ("größer", "kleiner"), ("schneller", "langsamer"), ("höher", "niedriger"), ("länger", "kürzer"), ("mehr", "weniger"),
        ("immer", "nie"), ("erhöht", "senkt"), ("steigt", "sinkt"), ("erlaubt", "verbietet"), ("höchstens", "mindestens"),
        ("früher", "später"), ("oberhalb", "unterhalb"), ("maximal", "mindestens"), ("innerhalb", "außerhalb"),
    )
    for word, other in ((one, another), (another, one))
}  # fmt: skip


def _contradiction(pair: Pair, _others: Sequence[Pair], rng: random.Random) -> _Change | None:
    """Turn a direction round: more to less, before to after."""
    usable = [
        match
        for match in _TOKEN.finditer(pair.answer)
        if (other := _OPPOSITES.get(match[0])) is not None
        and _has_word(pair.source, match[0])
        and not _has_word(pair.answer, other)
        and len(re.findall(rf"\b{match[0]}\b", pair.answer)) == 1
        and not _NEGATED.search(pair.answer[max(0, match.start() - 20) : match.start()])
        and not re.match(r"\s(?:and more|or less|than one\b|no\b|nothing\b|kein)", pair.answer[match.end() :])
    ]
    if not usable:
        return None
    match = rng.choice(usable)
    new = _OPPOSITES[match[0]]
    answer = _replaced(pair.answer, *match.span(), new)
    return _Change(pair.question, answer, f"{match[0]} → {new}", _verdict_at(pair, match.start()))


_CONDITIONAL: Final = re.compile(
    r"\b(?:if|when|unless|without|default|wenn|falls|ohne|standardmäßig)\b", re.IGNORECASE
)
_QUALIFIERS: Final = (
    (
        re.compile(
            r"(?<!how )\b(?:usually|typically|normally|by default|in most cases|sometimes|often) ",
            re.IGNORECASE,
        ),
        "",
    ),
    (re.compile(r",? (?:usually|typically|normally|by default|in most cases)(?=[.,;])", re.IGNORECASE), ""),
    (re.compile(r"\b(?:at most|up to|at least|no more than) (?=\d)", re.IGNORECASE), "exactly "),
    (re.compile(r"\b(?:most|many) (?=[a-z]+s\b)", re.IGNORECASE), "all "),
    (re.compile(r",? (?:unless|except when|provided that|as long as) [^.;,]{8,120}(?=[.;]|$)"), ""),
    (re.compile(r" (?:if|when) [^.;,]{8,120}(?=[.;]|$)"), ""),
    (re.compile(r"\b(?:höchstens|mindestens|bis zu|maximal) (?=\d)", re.IGNORECASE), "genau "),
    (
        re.compile(
            r"\b(?:in der Regel|meistens|meist|standardmäßig|normalerweise|üblicherweise|oft) ", re.IGNORECASE
        ),
        "",
    ),
    (re.compile(r", (?:wenn|sofern|falls|es sei denn,|außer wenn) [^.;,]{8,120}(?=[.;]|$)"), ""),
    (re.compile(r"\bdie meisten ", re.IGNORECASE), "alle "),
)


def _qualifier(pair: Pair, _others: Sequence[Pair], rng: random.Random) -> _Change | None:
    """Drop a limit or a condition that the text has: usually, at most, unless."""
    if _CONDITIONAL.search(pair.question):
        return None  # the question may give the condition itself
    source = set(words(pair.source))
    usable = []
    for pattern, new in _QUALIFIERS:
        for match in pattern.finditer(pair.answer):
            if re.search(r"\b(?:only|just|even|except|nur|auch|außer)\W*$", pair.answer[: match.start()]):
                continue  # a word that has nothing to refer to would be left
            dropped = words(match[0])
            rest = _replaced(pair.answer, *match.span(), new)
            if (
                set(dropped) <= source
                and _has_word(pair.source, match[0].strip(" ,"))
                and not (set(content_words(match[0])) & set(content_words(pair.question)))
                and not any(_has_word(pair.question, word) for word in dropped[:1])
                and len(content_words(rest)) >= 3
            ):
                usable.append((match, new, rest))
    if not usable:
        return None
    match, new, rest = rng.choice(usable)
    rest = rest if match.start() else rest[:1].upper() + rest[1:]
    text = f"{match[0].strip()} → {new.strip()}" if new else f"without {match[0].strip(' ,')!r}"
    return _Change(pair.question, rest, text)


_LIST: Final = re.compile(
    r"(?P<first>[^,;:.()\n]{2,60}), (?P<middle>(?:[^,;:.()\n]{2,40}, )*)(?P<before>[^,;:.()\n]{2,40}?),? (?P<and>and|und) "
    r"(?P<last>[^,;:.()\n]{2,50})(?=[.;)]|$)"
)
_ASKS_LIST: Final = re.compile(r"^\W*(?:which|what|who|welche|was|wer|name|list|nenne)\b", re.IGNORECASE)


def _omission(pair: Pair, _others: Sequence[Pair], _rng: random.Random) -> _Change | None:
    """Drop a member of a list that was asked for, or the sentence that answers a part of the question."""
    return _shorter_list(pair) or _half(pair) or _without_main_point(pair)


def _shorter_list(pair: Pair) -> _Change | None:
    match = _LIST.search(pair.answer)
    if match is None or not _ASKS_LIST.search(pair.question):
        return None
    dropped, before = match["last"], match["before"]
    listed = f"{before} {match['and']} {dropped}"
    own = set(content_words(dropped)) - set(content_words(pair.answer[: match.start("last")]))
    if _squeezed(listed) not in _squeezed(pair.source).replace(f", {match['and']} ", f" {match['and']} "):
        return None  # the text does not give the list in these words
    if not own or own & set(content_words(pair.question)) or not (_is_member(dropped) and _is_member(before)):
        return None
    members = f"{match['first']}, {match['middle']}".rstrip(", ")
    answer = _replaced(pair.answer, *match.span(), f"{members} {match['and']} {before}")
    return _Change(pair.question, answer, f"without {dropped.strip()!r}")


def _is_member(text: str) -> bool:
    """Whether a text can be a member of a list: a few words, without a preposition or a verb."""
    own = words(text)
    return 0 < len(own) <= 3 and not set(own) & _NO_MEMBER


_NO_MEMBER: Final = (ENGLISH_STOP | GERMAN_STOP) - word_set(
    "the a an der die das den dem des ein eine einen einem einer"
)


_VERBS: Final = word_set(
    "is are was were has have had can cannot must do does did will may should needs need takes take costs cost means mean uses use gives "
    "give helps help goes go comes come makes make stores requires require contains returns starts ist sind war waren hat haben kann "
    "können muss müssen wird werden soll sollen darf dürfen gilt gelten kostet braucht nehmen erhält beträgt dauert"
)


def _has_verb(text: str) -> bool:
    return bool(set(words(text)) & _VERBS)


_TWO_PARTS: Final = re.compile(
    r"(?:,| )(?:and|und) (?:why|how|which|what|when|where|by how|in which|warum|wie|welche\w?|was|wann|wo|um wie)\b[^?]*\?\s*$",
    re.IGNORECASE,
)
_SECOND_PART: Final = re.compile(r"(?::|;|, (?:because|since|while|whereas|so|and|weil|da|während|und))\s")


def _half(pair: Pair) -> _Change | None:
    """Answer the first of two questions alone."""
    if not _TWO_PARTS.search(pair.question) or (match := _SECOND_PART.search(pair.answer)) is None:
        return None
    kept, dropped = pair.answer[: match.start()], pair.answer[match.end() :]
    own = set(content_words(dropped)) - set(content_words(kept))
    if len(own) < 3 or not (len(content_words(kept)) >= 2 or re.fullmatch(r"(?:Yes|No|Ja|Nein)", kept)):
        return None
    return _Change(pair.question, f"{kept}.", f"without {dropped[:60]!r}")


def _without_main_point(pair: Pair) -> _Change | None:
    parts = sentences(pair.answer)
    if len(parts) < 2 or _ORDINALS.search(pair.answer) or not all(part in pair.answer for part in parts):
        return None
    asked = set(content_words(pair.question))
    held = [set(content_words(part)) for part in parts]
    scores = []
    for index, own in enumerate(held):
        others = set().union(*(other for place, other in enumerate(held) if place != index))
        scores.append((len((own & asked) - others), len(own - others - asked), index))
    best = max(scores)
    runner_up = max(score[0] for score in scores if score[2] != best[2])
    if best[0] < 2 or runner_up >= best[0] or best[1] < 3:
        return None
    kept = [part for index, part in enumerate(parts) if index != best[2]]
    return _Change(pair.question, " ".join(kept), f"without {parts[best[2]][:60]!r}")


# ---------------------------------------------------------------- added statements

_IMPLICATIONS: Final = {
    "en": (
        "This shows that the approach also suits much larger organisations.",
        "It follows that beginners rarely run into trouble here.",
        "For that reason most teams prefer it to every alternative.",
    ),
    "de": (
        "Das zeigt, dass sich das Vorgehen auch für weit größere Organisationen eignet.",
        "Daraus folgt, dass Anfänger hier selten Schwierigkeiten bekommen.",
        "Aus diesem Grund ziehen es die meisten Teams jeder Alternative vor.",
    ),
}
_ADDITIONS: Final = {
    "en": (
        "It was introduced after repeated complaints from customers.",
        "A graphical assistant guides new users through every step.",
        "The vendor charges an extra fee for it outside Europe.",
        "An independent laboratory has confirmed this behaviour.",
    ),
    "de": (
        "Eingeführt wurde das nach wiederholten Beschwerden von Kunden.",
        "Ein grafischer Assistent führt neue Benutzer durch jeden Schritt.",
        "Außerhalb Europas verlangt der Hersteller dafür einen Aufpreis.",
        "Ein unabhängiges Labor hat dieses Verhalten bestätigt.",
    ),
}
_FACTS: Final = {
    "en": (
        "A survey by {name} in {year} measured this in {percent} per cent of all installations.",
        "{name} patented the method in {year} and licenses it to {count} companies.",
        "The rule goes back to {name}, who set the value at a congress in {year}.",
    ),
    "de": (
        "Eine Erhebung von {name} aus dem Jahr {year} maß das in {percent} Prozent aller Installationen.",
        "{name} ließ das Verfahren {year} patentieren und lizenziert es an {count} Firmen.",
        "Die Regel geht auf {name} zurück, der den Wert {year} auf einem Kongress festlegte.",
    ),
}


def _language(pair: Pair) -> str:
    return "de" if is_german(f"{pair.question} {pair.answer}") else "en"


def _appended(templates: Mapping[str, Sequence[str]], *, minimum: int = 4) -> Rule:
    def rule(pair: Pair, _others: Sequence[Pair], rng: random.Random) -> _Change | None:
        held = {*content_words(pair.source), *content_words(pair.question)}
        year, percent, count = rng.randint(1994, 2012), rng.randint(31, 89), rng.randint(14, 97)
        added = [
            text.format(name=rng.choice(_NAMES), year=year, percent=percent, count=count)
            for text in templates[_language(pair)]
        ]
        unsupported = [text for text in added if len(set(content_words(text)) - held) >= minimum]
        if not unsupported or _ORDINALS.search(pair.answer) or pair.answer.rstrip()[-1] not in ".!)”\"'":
            return None
        sentence = rng.choice(unsupported)
        return _Change(pair.question, f"{pair.answer.rstrip()} {sentence}", f"added {sentence!r}")

    return rule


# ---------------------------------------------------------------- answers and questions of other pairs

_MIN_WORDS: Final = 3
"""A shorter answer can be right for two questions: a number, a yes."""
_MAX_SHARED: Final = 0.5
"""Largest share of an answer's words that another text may hold, if it is certainly not supported by it."""


def _is_foreign(answer: str, held: set[str]) -> bool:
    """Whether an answer is certainly not supported by a text: a few words may be, and so may a refusal, which is not tested here.

    Args:
        answer: The answer.
        held: `content_words` of the text.
    """
    own = set(content_words(answer))
    return len(own) >= _MIN_WORDS and len(own & held) <= _MAX_SHARED * len(own)


def _foreign_answer(pair: Pair, others: Sequence[Pair], _rng: random.Random) -> _Change | None:
    """Give the answer to a pair about another text."""
    held = {*content_words(pair.source), *content_words(pair.answer)}
    for other in others:
        if other.source != pair.source and not other.declines and _is_foreign(other.answer, held):
            return _Change(pair.question, other.answer, "the answer to a question about another text")
    return None


def _other_question(pair: Pair, others: Sequence[Pair], rng: random.Random) -> _Change | None:
    """Give the answer to another question about the same text."""
    own, asked = set(content_words(pair.answer)), set(content_words(pair.question))
    usable = [
        other
        for other in others
        if other.source == pair.source
        and not other.declines
        and len(set(content_words(other.answer))) >= _MIN_WORDS
        and _overlap(set(content_words(other.answer)), own) <= 0.3
        and _overlap(set(content_words(other.question)), asked) <= 0.4
        and len(asked & set(content_words(other.answer))) <= len(asked) / 2
    ]
    if not usable:
        return None
    return _Change(pair.question, rng.choice(usable).answer, "the answer to another question about the text")


def _overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(1, min(len(one), len(other)))


def _unanswerable(pair: Pair, others: Sequence[Pair], _rng: random.Random) -> _Change | None:
    """Ask something that the text does not answer, and answer it with confidence."""
    held = set(content_words(pair.source))
    for other in others:
        if (
            other.source != pair.source
            and not other.declines
            and _is_foreign(other.question, held)
            and _is_foreign(other.answer, held)
        ):
            return _Change(other.question, other.answer, "question and answer are about another text")
    return None


_REFUSALS: Final = {
    "en": ("The text does not say.", "The text gives no information about this."),
    "de": ("Dazu sagt der Text nichts.", "Der Text macht dazu keine Angabe."),
}


def _honest_refusal(pair: Pair, others: Sequence[Pair], rng: random.Random) -> _Change | None:
    """Ask something that the text does not answer, and say so."""
    change = _unanswerable(pair, others, rng)
    if change is None:
        return None
    language = "de" if is_german(change.question) else "en"
    return _Change(
        change.question, rng.choice(_REFUSALS[language]), "a question that the text does not answer"
    )


_VAGUE: Final = {
    "en": ("What about that?", "How is it there?", "And what else is there to know?"),
    "de": ("Was ist damit?", "Wie ist es dort?", "Und was muss man sonst noch wissen?"),
}


def _vague_question(pair: Pair, _others: Sequence[Pair], rng: random.Random) -> _Change:
    """Ask without a subject."""
    question = rng.choice(_VAGUE[_language(pair)])
    return _Change(question, pair.answer, f"the question is {question!r}")


def _copied_question(pair: Pair, _others: Sequence[Pair], _rng: random.Random) -> _Change | None:
    """Repeat the question in place of an answer."""
    question = pair.question.strip()
    return (
        _Change(pair.question, question, "the answer repeats the question")
        if question.endswith("?")
        else None
    )


_DOTS: Final = "…"


def _placeholder(pair: Pair, _others: Sequence[Pair], _rng: random.Random) -> _Change:
    """Give dots in place of the answer."""
    return _Change(pair.question, _DOTS, "dots in place of the answer")


# ---------------------------------------------------------------- harmless variants

_SYNONYMS: Final = (
    ("for example", "for instance"), ("in order to", "to"), ("does not", "doesn't"), ("do not", "don't"), ("is not", "isn't"),
    ("are not", "aren't"), ("cannot", "can't"), ("because(?! of\\b)", "since"), (r"(?<=\d )per cent", "%"), ("approximately", "about"),
    ("roughly", "about"), ("however", "though"), ("therefore", "thus"), ("such as", "like"), ("additional", "further"),
    ("however, ", "yet "), ("immediately", "at once"), (r"e\.g\.", "for example"), ("zum Beispiel", "beispielsweise"),
    ("jedoch", "allerdings"), ("außerdem", "zudem"), ("ungefähr", "etwa"), ("sofort", "umgehend"), ("nur", "lediglich"),
    (r"(?<=\d )Prozent", "%"), ("deshalb", "daher"), ("bevor", "ehe"),
)  # fmt: skip
"""Patterns and phrases that mean the same in documentation."""
_LOOK: Final = re.compile(r"\(\?[^()]*\)")
"""What a pattern of `_SYNONYMS` looks for around a phrase."""
_CONDITION: Final = re.compile(
    r"(?P<main>[^,;:()\n]{12,160}?),? (?P<word>if|when|unless) (?P<clause>[^,;:()\n]{8,160}?)\."
)


def _paraphrase(pair: Pair, _others: Sequence[Pair], _rng: random.Random) -> _Change | None:
    """Say the same in other words: synonymous phrases, digits for words, a condition moved to the front."""
    answer, changes = pair.answer, []
    match = _CONDITION.fullmatch(answer.strip())
    if match and not (
        _SUBORDINATE.search(match["main"]) or re.search(r"\b(?:and|or|only|not)\b", match["main"])
    ):
        main = _lowered(match["main"], pair)
        if main is not None:
            answer = f"{match['word'].capitalize()} {match['clause']}, {main}."
            changes.append(f"{match['word']!r} in front")
    for old, new in _SYNONYMS:
        changed = re.sub(rf"(?<!\w){old}(?!\w)", new, answer)
        if changed != answer and "`" not in answer:
            answer = changed
            changes.append(f"{_LOOK.sub('', old)} → {new}")
    for word, digits in NUMBER_WORDS.items():
        changed = re.sub(rf"(?<![\w-]){word}(?= (?!bis\b|as\b|is\b|was\b|to\b)[a-z]+s\b)", digits, answer)
        if changed != answer:
            answer = changed
            changes.append(f"{word} → {digits}")
    return _Change(pair.question, answer, ", ".join(changes)) if changes else None


def _lowered(text: str, pair: Pair) -> str | None:
    """Return a clause as the second one of a sentence; None where its first word may be a name."""
    first = text.split(" ", 1)[0]
    small = first[:1].lower() + first[1:]
    if first in named_terms(f"x {text}") and first == small:
        return text
    # `_has_word` ignores capitals
    is_written_small = re.search(rf"(?<!\w){re.escape(small)}(?!\w)", pair.source) is not None
    return small + text[len(first) :] if first.casefold() in _LOWERABLE or is_written_small else None


_LOWERABLE: Final = word_set(
    "the a an it this that these those they each every all both its there to some most no der die das ein eine"
)
_LEANING: Final = re.compile(
    r"\b(?:it|its|they|their|them|this|that|these|those|he|she|his|her|then|so|thus|therefore|however|but|also|otherwise|instead|hence"
    r"|here|there|such|both|afterwards|finally|still|instance|example|contrast|ones?|others?|either|latter|only|es|sie|er|ihr\w*|sein\w*"
    r"|dies\w*|das|dann|daher|deshalb|jedoch|aber|auch|sonst|dort|hier|danach|zuletzt|dadurch|damit|dabei|dazu|dagegen|andere\w*)\b",
    re.IGNORECASE,
)
"""Words of a sentence that may refer to the one before it."""
_ORDERED: Final = re.compile(
    r"\b(?:first|then|next|finally|order|sequence|steps?|before|after|respectively|zuerst|dann|danach|schließlich|Reihenfolge"
    r"|Schritte?|jeweils)\b",
    re.IGNORECASE,
)


_INDEPENDENT: Final = re.compile(r"(?P<a>[^;:()\n]{12,200}); (?P<b>[^;:()\n]{12,200})\.")
_CONTRAST: Final = re.compile(
    r"(?P<a>[^,;:()\n]{12,120}), (?P<word>while|whereas|während) (?P<b>[^,;:()\n]{12,120})\."
)
_MEMBERS: Final = re.compile(
    r"(?:(?<=: )|(?<=\bare )|(?<=\bis )|(?<=\bwith )|(?<=\bof )|(?<=\bin )|(?<=\bby )|(?<=\bfor )|(?<=\bsind )|(?<=\bmit )|(?<=\bvon )"
    r"|^)(?P<a>[\w`/-]+), (?P<b>[\w`/-]+)(?=(?:, [\w`/-]+)*,? (?:and|or|und|oder) [\w`/])"
)


def _reordering(pair: Pair, _others: Sequence[Pair], _rng: random.Random) -> _Change | None:
    """Exchange sentences, clauses or members of a list that do not lean on each other."""
    answer = pair.answer.strip()
    if _ORDERED.search(f"{pair.question} {answer}") or _ORDINALS.search(answer):
        return None
    parts = sentences(answer)
    if len(parts) == 2 and " ".join(parts) == answer and _can_change_places(*parts):
        return _Change(pair.question, f"{parts[1]} {parts[0]}", "the sentences in the other order")
    match = _INDEPENDENT.fullmatch(answer) or _CONTRAST.fullmatch(answer)
    if match and _can_change_places(match["a"], match["b"]):
        joint = f", {match['word']}" if "word" in match.groupdict() else ";"
        first, second = match["b"][:1].upper() + match["b"][1:], _lowered(match["a"], pair)
        if second is not None:
            return _Change(pair.question, f"{first}{joint} {second}.", "the clauses in the other order")
    match = _MEMBERS.search(answer)
    if match is None or {match["a"].casefold(), match["b"].casefold()} & _FUNCTION_WORDS:
        return None
    new = f"{match['b']}, {match['a']}"
    return _Change(pair.question, _replaced(answer, *match.span(), new), f"{match[0]} → {new}")


_FUNCTION_WORDS: Final = ENGLISH_STOP | GERMAN_STOP | word_set("yes no ja nein whether ob")


def _can_change_places(first: str, second: str) -> bool:
    """Whether two sentences, or clauses, stand by themselves."""
    return (
        first[0].isalpha()
        and second[0].isalpha()
        and _has_verb(first)
        and _has_verb(second)
        and not _LEANING.search(second)
    )


def _formatting(pair: Pair, _others: Sequence[Pair], rng: random.Random) -> _Change | None:
    """Change the form alone: a list item for each sentence, a bold start, a paragraph for each sentence."""
    parts = sentences(pair.answer)
    if " ".join(parts) != pair.answer.strip() or "\n" in pair.answer:
        return None  # it has a form of its own
    if len(parts) > 1:
        separator, mark = rng.choice((("\n", "- "), ("\n\n", "")))
        return _Change(
            pair.question, separator.join(mark + part for part in parts), "each sentence on a line"
        )
    if any(character in pair.answer for character in "*_`"):
        return _Change(pair.question, f"> {pair.answer.strip()}", "as a quotation")
    return _Change(pair.question, f"**{pair.answer.strip()}**", "in bold type")


VARIANTS: Final[Mapping[VariantKind, _Kind]] = MappingProxyType(
    {
        "number": _Kind("a number that the text does not give", _number, "worst", "wrong", invents=True),
        "date": _Kind("a date that the text does not give", _date, "worst", "wrong", invents=True),
        "unit": _Kind("a quantity with another unit", _unit, "worst", "wrong", invents=True),
        "name": _Kind("a name that the text does not have", _name, "worst", "wrong", invents=True),
        "negation": _Kind("a negation too many or too few", _negation, "worst", "wrong"),
        "contradiction": _Kind("the opposite direction", _contradiction, "worst", "wrong"),
        "qualifier": _Kind("a limit or condition is missing", _qualifier, "not best", "omission"),
        "omission": _Kind("a part that was asked for is missing", _omission, "not best", "omission"),
        "implication": _Kind("a conclusion that the text does not draw", _appended(_IMPLICATIONS), "not best", "unsupported"),
        "unsupported addition": _Kind(
            "a statement that the text does not make", _appended(_ADDITIONS), "worst", "unsupported", invents=True
        ),
        "invented fact": _Kind(
            "an invented fact with a name and a figure", _appended(_FACTS), "worst", "unsupported", invents=True
        ),
        "other question": _Kind("the answer to another question about the text", _other_question, "worst", "off-question"),
        "foreign answer": _Kind(
            "the answer to a question about another text", _foreign_answer, "worst", "off-question", invents=True,
            of_refusals=True,
        ),
        "unanswerable": _Kind(
            "a question that the text does not answer, answered", _unanswerable, "worst", "off-question", invents=True,
            of_refusals=True,
        ),
        "vague question": _Kind("a question without a subject", _vague_question, "not best", "wording"),
        "copied question": _Kind("the question again in place of an answer", _copied_question, "worst", "off-question"),
        "placeholder": _Kind("dots in place of the answer", _placeholder, "worst", "format", of_refusals=True),
        "paraphrase": _Kind("the same in other words", _paraphrase, "best"),
        "reordering": _Kind("the same in another order", _reordering, "best"),
        "formatting": _Kind("the same in another form", _formatting, "best"),
        "honest refusal": _Kind(
            "a question that the text does not answer, and an answer that says so", _honest_refusal, "not worst", of_refusals=True
        ),
    }
)  # fmt: skip
"""Meaning, rule and verdict of each kind. An honest refusal is an A or a B, by the rubric."""

DEFECTS: Final[tuple[DefectKind, ...]] = get_args(DefectKind)
HARMLESS: Final[tuple[HarmlessKind, ...]] = get_args(HarmlessKind)
