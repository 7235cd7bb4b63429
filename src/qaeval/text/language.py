"""The language of a text: English and German are told apart, others are known by their code alone."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from qaeval.text.lexicon import ENGLISH_MARKS, GERMAN_MARKS
from qaeval.text.units import words

LANGUAGES: Final[Mapping[str, str]] = {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "hu": "Hungarian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "zh": "Chinese",
}
"""English names by ISO 639-1 code."""

_MAX_CHARS: Final = 20_000
_SOURCES: Final = 256


@lru_cache(maxsize=_SOURCES)
def language_of(text: str) -> str:
    """Return ``de`` or ``en`` by the words that only one of the two has; empty where neither has more."""
    german = english = 0
    for word in words(text[:_MAX_CHARS]):
        german += word in GERMAN_MARKS
        english += word in ENGLISH_MARKS
    return "" if german == english else "de" if german > english else "en"


def language_name(code: str) -> str:
    """Return the English name of a language by its code (``de``, ``de-AT``); a code that is not known is empty."""
    return LANGUAGES.get(code.replace("_", "-").partition("-")[0].casefold(), "")
