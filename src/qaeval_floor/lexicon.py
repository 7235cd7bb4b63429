"""Word lists and phrases of the rules, from the package's ``data`` folder.

They are read when the first rule is imported: only a run that uses an embedded model imports one.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import yaml

from qaeval.text import lexicon


def _read(name: str) -> Mapping[str, Any]:
    content: Mapping[str, Any] = yaml.safe_load(
        files("qaeval_floor").joinpath("data", name).read_text(encoding="utf-8")
    )
    return content


_ENGLISH: Final = _read("english.yaml")
_GERMAN: Final = _read("german.yaml")
_PHRASES: Final = _read("phrases.yaml")


def _english(key: str) -> frozenset[str]:
    return frozenset(_ENGLISH[key].split())


def _german(key: str) -> frozenset[str]:
    return frozenset(_GERMAN[key].split())


ENGLISH_STOP: Final = lexicon.ENGLISH_STOP
NUMBER_WORDS: Final[Mapping[str, str]] = lexicon.NUMBER_WORDS
BE: Final = _english("be")
MODALS: Final = _english("modals")
DETERMINERS: Final = _english("determiners")
PREPOSITIONS: Final = _english("prepositions")
CLAUSE_WORDS: Final = _english("clause_words")
PRONOUNS: Final = _english("pronouns")
FREQUENCY: Final = _english("frequency")
VERBS: Final = _english("verbs")
NOUN_VERBS: Final = _english("noun_verbs")
INTRANSITIVE: Final = _english("intransitive")
IMPERATIVES: Final = VERBS | _english("imperatives")
EFFECTS: Final = _english("effects")
GOVERNED_PREPOSITION: Final[Mapping[str, str]] = _ENGLISH["governed_preposition"]
STRANDED: Final = _english("stranded")
COMMON_WORDS: Final = _english("common_words")
LOWERCASE_NAMES: Final = _english("lowercase_names")
NO_ADVERBS: Final = _english("no_adverbs")
UNFINISHED: Final = _english("unfinished")
PHRASE_ENDS: Final = ENGLISH_STOP | _english("phrase_ends")
UNIT_NOUNS: Final = _english("unit_nouns")

GERMAN_STOP: Final = lexicon.GERMAN_STOP
GERMAN_ARTICLES: Final = _german("articles")
GERMAN_MODALS: Final = _german("modals")
GERMAN_SINGULAR: Final = _german("singular")
GERMAN_FINITE: Final = _german("finite")
GERMAN_TRANSITIVE: Final = _german("transitive")
GERMAN_SEPARABLE: Final = _german("separable")
GERMAN_ADVERBS: Final = _german("adverbs")

NEGATIONS: Final = _english("negations") | _german("negations")

ENGLISH_PHRASES: Final[Mapping[str, str]] = _PHRASES["english"]
GERMAN_PHRASES: Final[Mapping[str, str]] = _PHRASES["german"]

_VOWEL_Y: Final = re.compile(r"[^aeiou]ies$")


def present_verb(word: str) -> tuple[str, str] | None:
    """The infinitive of a known present-tense verb and its auxiliary, ``does`` or ``do``."""
    if word in VERBS:
        return word, "do"
    candidates = [word[:-1]] if word.endswith("s") else []
    if word.endswith("es"):
        candidates.append(word[:-2])
    if _VOWEL_Y.search(word):
        candidates.append(word[:-3] + "y")
    for candidate in candidates:
        if candidate in VERBS:
            return candidate, "does"
    return None
