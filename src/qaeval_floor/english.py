"""English statements to questions: find subject and verb, then invert; where that is not safe, ask nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from qaeval_floor import lexicon
from qaeval_floor.lexicon import BE, CLAUSE_WORDS, DETERMINERS, MODALS, PREPOSITIONS, PRONOUNS

_MAX_SUBJECT_WORDS = 9
_MAX_HEAD_WORDS = 16
_PARENTHESES = re.compile(r"(?<!\s)\s+\([^()]*\)")  # (?<!\s): linear in white space
_OPENER = re.compile(
    r"^(?i:However|Even then|Therefore|In addition|For example|For instance|As a result|Thus|Moreover|Instead|Also|Then|Note that|"
    r"In short|Finally|By contrast|In contrast|Similarly|Likewise|Still|Hence|Consequently|Usually|Typically|"
    r"Generally|In practice|In general|In other words|Of course|And|But|So|Yet|On the other hand|First|Second|"
    r"Note|Important|Warning|Hint|Tip|Conversely|Nevertheless|That is why|Afterwards|Next),?:?\s+"
)
_ADJUNCT = re.compile(
    r"^((?:In|On|For|During|After|Before|By|At|With|Without|Within|From|Under|Since|Until)\s[^,]{2,60}),\s+"
)
_NUMERIC = re.compile(
    r"^(?:up to |at least |at most |about |around |only |exactly |roughly |nearly )?[\d][\d.,]*\s+"
)
_ADVERB = re.compile(r"^\w{3,}ly$")


@dataclass(frozen=True)
class Clause:
    """A statement taken apart, so that it can be inverted: ``{aux} {subject} {verb} {rest}?``."""

    subject: str
    aux: str
    verb: str
    """Empty for forms of *be*; otherwise the infinitive that follows the auxiliary in a question."""
    rest: str
    adjunct: str = ""
    """An opening phrase ("in the beta"), moved to the end of a question."""

    def ask(self, opening: str, rest: str = "") -> str:
        """The question that opens with ``opening`` and keeps ``rest`` of the statement."""
        parts = (opening, self.aux, self.subject, self.verb, rest, self.adjunct)
        return " ".join(part for part in parts if part)


def parse(sentence: str, lower: frozenset[str] | set[str]) -> Clause | None:
    """Take a statement apart.

    Args:
        sentence: One English sentence.
        lower: Lower-case words of the chunk, to tell a common noun at the start of a sentence from a name.

    Returns:
        The clause, or None where subject and verb are not plain.
    """
    body, adjunct = _opened(sentence)
    tokens = body.split()
    if len(tokens) < 2 or not _may_start_subject(tokens):
        return None
    for index in range(1, min(len(tokens), _MAX_SUBJECT_WORDS + 1)):
        token = tokens[index]
        word = token.strip("`*\"'").casefold()
        clause = _at(tokens, index, word)
        if clause is not None:
            subject = decapitalise(clause.subject, lower)
            bare = subject.casefold() in (PRONOUNS | DETERMINERS) - {"you"}
            if bare or subject.split()[-1].casefold() in {"one", "ones"}:  # it stands for a noun elsewhere
                return None
            if subject.split()[0] in {"this", "these", "those", "that"}:
                subject = "the " + subject.split(" ", 1)[1]
            return replace(clause, subject=subject, adjunct=adjunct, rest=_one_predicate(clause))
        if word in CLAUSE_WORDS or token[-1] in ",;:" or word in {"to", "not", "never"}:
            return None
    return None


def _one_predicate(clause: Clause) -> str:
    """The rest of a clause without a second predicate: ``on port 1 and sends metrics`` is ``on port 1``."""
    for match in re.finditer(r",? (?:and|or|but) (?:(?:then|also|therefore|thus) )?(\w+)", clause.rest):
        word = match.group(1)
        verb = lexicon.present_verb(word)
        agrees = (
            verb is not None
            and clause.aux == verb[1]
            and (verb[1] == "does" or word not in lexicon.NOUN_VERBS)
        )
        passive = (
            clause.aux in BE and word.endswith("ed") and not clause.rest[match.end() :].startswith(" by ")
        )
        if agrees or passive or word in BE | MODALS | {"has", "does", "do", "then"}:
            return clause.rest[: match.start()]
    return clause.rest


def capitalise(part: str) -> str:
    """A part of a sentence as a sentence of its own; a name such as ``vLLM`` stays as it is."""
    first = part.split(" ", 1)[0]
    return part if any(map(str.isupper, first)) else part[:1].upper() + part[1:]


def decapitalise(phrase: str, lower: frozenset[str] | set[str]) -> str:
    """Lower the first letter unless the first word looks like a name.

    Args:
        phrase: A phrase from the start of a sentence.
        lower: Lower-case words of the chunk.

    Returns:
        The phrase as it would stand inside a sentence.
    """
    first, _, rest = phrase.partition(" ")
    bare = first.strip(",;:")
    if not bare[:1].isupper() or not bare[1:].replace("-", "").replace("'", "").islower():
        common = bare == "A"
    else:
        name = bare.casefold() in lexicon.LOWERCASE_NAMES or (
            rest[:1].isupper() and bare.casefold() not in DETERMINERS
        )
        plural = bare.endswith("s") and not bare.endswith(("ss", "us", "is", "os"))
        noun = bare.endswith(
            ("ing", "tion", "ment", "ity", "ance", "ence", "ness", "ship", "people", "age", "sis")
        )
        function_word = bare.casefold() in lexicon.ENGLISH_STOP | lexicon.IMPERATIVES | lexicon.COMMON_WORDS
        compound = re.fullmatch(r"[A-Z][a-z]+(?:-[a-z]+)+", bare) is not None and rest[:1].islower()
        common = not name and (compound or bare.casefold() in lower or plural or noun or function_word)
    return phrase[0].lower() + phrase[1:] if common else phrase


def _opened(sentence: str) -> tuple[str, str]:
    """The sentence without its end mark, asides and connective, and its opening adjunct."""
    body = _PARENTHESES.sub("", sentence).rstrip(" .!?:;…")
    body = _OPENER.sub("", body)
    adjunct = _ADJUNCT.match(body)
    if adjunct is None:
        return body, ""
    phrase = adjunct.group(1)
    context = CLAUSE_WORDS | {"this", "these", "it", "they", "such", "is", "are", "contrast", "its", "their"}
    if any(word in context for word in phrase.casefold().split()):
        return "", ""
    return body[adjunct.end() :], phrase[0].lower() + phrase[1:]  # it opens with a preposition


def _may_start_subject(tokens: list[str]) -> bool:
    first = tokens[0].strip("`*,\"'").casefold()
    second = tokens[1].strip("`*,").casefold()
    if first in {"this", "these", "those"}:
        return second not in BE | MODALS | {"does", "do", "has", "have"} and (
            second in lexicon.NOUN_VERBS or lexicon.present_verb(second) is None
        )
    if first == "you":
        return True
    if first in lexicon.IMPERATIVES and not {second, *tokens[2:3]} & (BE | MODALS) and tokens[0][0].isupper():
        return False
    blocked = (
        PRONOUNS
        | CLAUSE_WORDS
        | PREPOSITIONS
        | lexicon.FREQUENCY
        | {
            "not",
            "no",
            "even",
            "just",
            "otherwise",
            "else",
            "below",
            "above",
            "to",
            "and",
            "or",
            "our",
            "its",
            "their",
        }
    )
    if (first.endswith("ly") and first not in lexicon.NO_ADVERBS) or (
        first.endswith("ed") and first not in {"need", "speed", "seed"}
    ):
        return False
    return first not in blocked and first[:1].isalnum()


def _at(tokens: list[str], index: int, word: str) -> Clause | None:
    """The clause whose finite verb is the token at ``index``, if it can be one."""
    subject = " ".join(tokens[:index])
    before = tokens[index - 1].casefold()
    rest = tokens[index + 1 :]
    open_phrase = before in DETERMINERS | PREPOSITIONS | {"and", "or"} and subject.casefold() != "you"
    if open_phrase or not rest or (word in BE and rest[0] == "to"):
        return None
    if word in BE:
        return Clause(subject, word, "", " ".join(rest))
    if word in MODALS:
        return _modal(subject, word, rest)
    if word in {"does", "do"} and rest[0] == "not" and len(rest) > 1:
        return Clause(subject, word, f"not {rest[1]}", " ".join(rest[2:]))
    if word in {"has", "have"}:
        return _have(subject, word, rest)
    return _lexical(subject, tokens, index, word)


def _modal(subject: str, word: str, rest: list[str]) -> Clause | None:
    if word == "cannot":
        word, rest = "can", ["not", *rest]
    lead = 1
    while lead < len(rest) and (
        rest[lead - 1] in {"not", "be"} | lexicon.FREQUENCY or rest[lead - 1].endswith("ly")
    ):
        lead += 1
    if any(token[-1] in ",;:" for token in rest[:lead]) or "never" in rest[:lead]:
        return None
    return Clause(subject, word, " ".join(rest[:lead]), " ".join(rest[lead:]))


def _have(subject: str, word: str, rest: list[str]) -> Clause | None:
    if rest[0] in DETERMINERS or rest[0][0].isdigit() or rest[0] in lexicon.NUMBER_WORDS:
        return Clause(subject, "does" if word == "has" else "do", "have", " ".join(rest))
    if rest[0] == "been" and len(rest) > 1:
        return Clause(subject, word, f"been {rest[1]}", " ".join(rest[2:]))
    if rest[0] == "to" and len(rest) > 1:
        return Clause(subject, "does" if word == "has" else "do", f"have to {rest[1]}", " ".join(rest[2:]))
    return None


def _lexical(subject: str, tokens: list[str], index: int, word: str) -> Clause | None:
    form = lexicon.present_verb(word)
    if form is None or not tokens[index][-1].isalnum():
        return None
    infinitive, aux = form
    head = tokens[index - 1]
    adverb = ""
    if (_ADVERB.match(head) or head in lexicon.FREQUENCY) and index > 1:
        adverb, subject, head = head, " ".join(tokens[: index - 1]), tokens[index - 2]
    many = " and " in f" {subject} " or (
        head.casefold().endswith("s") and not head.endswith(("ss", "us", "is"))
    )
    plural = many or subject.casefold() == "you" or head.casefold() in {"people", "data", "staff", "children"}
    if (aux == "do") != plural and not (aux == "does" and " and " not in subject):
        return None
    following = tokens[index + 1].strip("`*\"'").casefold()
    determined = (
        following in DETERMINERS
        or following in lexicon.NUMBER_WORDS
        or following[:1].isdigit()
        or tokens[index + 1][0] in '`"“'
    )
    adverbial = following in PREPOSITIONS or following in CLAUSE_WORDS or following.endswith("ly")
    timed = aux == "do" and following in PREPOSITIONS - {"of"}
    timed = timed or following in {
        "when",
        "if",
        "after",
        "before",
        "because",
        "once",
        "automatically",
        "immediately",
    }
    certain = determined or timed or (aux == "does" and adverbial and adverb)
    if infinitive in lexicon.NOUN_VERBS and not certain:
        return None
    if following in BE | MODALS | {"and", "or", "has", "have"} or _later_verb(tokens[index + 1 :]):
        return None
    verb = f"{adverb} {infinitive}".strip()
    return Clause(subject, aux, verb, " ".join(tokens[index + 1 :]))


def _later_verb(tokens: list[str]) -> bool:
    """Whether another finite verb follows in the same clause: then the word at hand was a noun."""
    for token in tokens:
        word = token.casefold().strip("`*\"'")
        if word in BE | MODALS:
            return True
        if (
            word in CLAUSE_WORDS | {"and", "or", "after", "before", "since", "once", "as"}
            or token[-1] in ",;:"
        ):
            return False
    return False


def short_enough(text: str) -> bool:
    """Whether a part of a statement can be repeated in a question without making it clumsy."""
    tokens = text.casefold().split()
    unclear = CLAUSE_WORDS - {"than"}
    return len(tokens) <= _MAX_HEAD_WORDS and not any(token.strip(",") in unclear for token in tokens)
