"""The language of a text: English and German are known by their words, others by their code alone."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from qaeval.text.lexicon import ENGLISH_EVIDENCE, GERMAN_EVIDENCE
from qaeval.text.units import count_words, words

LANGUAGES: Final[Mapping[str, str]] = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fi": "Finnish",
    "fr": "French",
    "ga": "Irish",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "km": "Khmer",
    "ko": "Korean",
    "lo": "Lao",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "nb": "Norwegian",
    "nl": "Dutch",
    "nn": "Norwegian",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "sr": "Serbian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
"""English names by ISO 639-1 code."""
_THREE_LETTERS: Final[Mapping[str, str]] = {
    "ces": "cs", "dan": "da", "deu": "de", "dut": "nl", "eng": "en", "fra": "fr", "fre": "fr", "ger": "de", "ita": "it",
    "jpn": "ja", "kor": "ko", "nld": "nl", "pol": "pl", "por": "pt", "rus": "ru", "spa": "es", "swe": "sv", "tha": "th",
    "tur": "tr", "ukr": "uk", "zho": "zh",
}  # fmt: skip
"""Codes of ISO 639-2, which Unstructured writes."""
TOLD_APART: Final = frozenset({"de", "en"})
"""The languages that `language_of` knows."""

_MAX_CHARS: Final = 20_000
_SOURCES: Final = 256
_CODE: Final = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_SHORT: Final = 20
"""Words below which a text is as short as a question: two words of one language are evidence if none is of the other."""
_LEAST, _LEAST_SHORT = 3, 2
_SHARE: Final = 0.025
"""Least share of a text's words that are evidence: a text with English names and quotations is not English."""
_CLEARLY_MORE: Final = 3


@lru_cache(maxsize=_SOURCES)
def language_of(text: str) -> str:
    """Return ``de`` or ``en`` by the words that no other language has; empty where too few say so, as in all other languages."""
    prose = _CODE.sub(" ", text[:_MAX_CHARS])
    tokens, n_words = words(prose), count_words(prose)
    german = sum(token in GERMAN_EVIDENCE for token in tokens)
    english = sum(token in ENGLISH_EVIDENCE for token in tokens)
    least = _LEAST_SHORT if n_words < _SHORT and not min(german, english) else _LEAST
    if max(german, english) < max(least, _SHARE * n_words, _CLEARLY_MORE * min(german, english)):
        return ""
    return "de" if german > english else "en"


def language_code(code: str) -> str:
    """Return the ISO 639-1 code of a language by its code with or without a country (``de-DE``, ``pt_BR``, ``deu``); empty if not known."""
    first = code.replace("_", "-").partition("-")[0].strip().casefold()
    first = _THREE_LETTERS.get(first, first)
    return first if first in LANGUAGES else ""


def language_name(code: str) -> str:
    """Return the English name of a language by its code (``de``, ``de-AT``); a code that is not known is empty."""
    return LANGUAGES.get(language_code(code), "")


def language_to_write(*, question: str, chunk: str, text: str) -> str:
    """Return the code of the language in which a question is answered, or pairs about a chunk are written; empty if not known.

    That of the question, or else the stated one of the chunk; without a question, the chunk's. A stated language that
    `language_of` does not know counts before any guess.

    Args:
        question: The question about the chunk; empty without one.
        chunk: The stated language of the chunk; empty if none is stated.
        text: The chunk, title included.
    """
    stated = language_code(chunk)
    if stated and stated not in TOLD_APART:
        return stated
    return language_of(question) or stated if question else stated or language_of(text)
