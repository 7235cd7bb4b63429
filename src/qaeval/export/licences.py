"""What licences say about training other models on a model's outputs.

Not legal advice. Each row names the clause to be read; licences change, and a name in a registry may be wrong. What is
not in the table is refused until a person has read the licence and says so.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from qaeval.errors import UsageError, closest
from qaeval.report.facts import EMBEDDED

Verdict: TypeAlias = Literal["free", "conditions", "refused"]
"""``conditions``: training is allowed, and something is asked for in return."""


@dataclass(frozen=True)
class Terms:
    """What one licence says about outputs."""

    name: str
    verdict: Verdict
    pattern: str
    """Of the licence's name, lower-case, with single spaces for hyphens and underscores; of a free one the whole name."""
    says: str
    source: str
    """The clause, and where the licence stands."""


@dataclass(frozen=True)
class Model:
    """A model whose outputs, or whose letters, are in the data."""

    name: str
    kind: str
    licence: str
    hf_id: str = ""
    revision: str = ""

    @classmethod
    def of(cls, name: str, about: Mapping[str, Any]) -> "Model":
        """Read a model from a run's settings."""
        return cls(
            name,
            about.get("kind") or "",
            about.get("licence") or "",
            about.get("hf_id") or "",
            about.get("revision") or "",
        )

    @classmethod
    def of_rater(cls, name: str) -> "Model":
        """Make a model of the rater of a label, of whom nothing but the name is known."""
        licence = next((says for word, says in _RATERS.items() if name.casefold().startswith(word)), "")
        return cls(name, _RATER, licence)


_RATER: Final = "rater"
"""Kind of a model that gave labels."""

_RATERS: Final = {"claude": "Anthropic's terms", "gemini": "Gemini API terms"}
"""Terms of models that nobody but their maker serves, by what their names begin with."""

TABLE: Final = (
    Terms(
        "Apache-2.0",
        "free",
        r"apache(?: licen[cs]e)?,?(?: version)?[ -]?2(?:\.0)?",
        "says nothing about outputs",
        "sections 2 and 4, apache.org/licenses/LICENSE-2.0",
    ),
    Terms("MIT", "free", r"mit(?: licen[cs]e)?", "says nothing about outputs", "opensource.org/license/mit"),
    Terms(
        "BSD",
        "free",
        r"bsd(?: [234] clause)?(?: licen[cs]e)?",
        "says nothing about outputs",
        "opensource.org/license/bsd-3-clause",
    ),
    Terms(
        "CC0",
        "free",
        r"cc0(?: 1\.0)?",
        "waives the rights",
        "section 2, creativecommons.org/publicdomain/zero/1.0/legalcode",
    ),
    Terms(
        "CC-BY-4.0",
        "conditions",
        r"^cc by(?: 4\.0)?$",
        "asks to name the author when the model itself is shared; whether that reaches its outputs is open",
        "section 3(a), creativecommons.org/licenses/by/4.0/legalcode",
    ),
    Terms(
        "Llama 2 Community License",
        "refused",
        r"\bllama ?2(?!\.?\d)",
        "outputs may not be used to improve any other large language model than Llama 2",
        "section 1.b.v, llama.com/llama2/license",
    ),
    Terms(
        "Llama 3 Community License (version 3.0)",
        "refused",
        r"\bllama ?3(?:\.0)?(?!\.?\d)",
        "outputs may not be used to improve any other large language model than Llama 3",
        "section 1.b.v, llama.com/llama3/license",
    ),
    Terms(
        "Llama Community License from 3.1 on",
        "conditions",
        r"\bllama ?(?:3\.[123]|4)(?!\.?\d)",
        'a model that was trained on outputs and is passed on has a name that begins with "Llama"',
        "section 1.b.i, llama.com/llama3_1/license",
    ),
    Terms(
        "Gemma Terms of Use",
        "conditions",
        r"\bgemma\b",
        "outputs are free, but a model that is trained on them to perform like Gemma is a Model Derivative, and these terms "
        "with their prohibited uses go with it",
        "sections 1.1(e), 3.1 and 3.3, ai.google.dev/gemma/terms",
    ),
    Terms(
        "Mistral Research License",
        "refused",
        r"\bmistral(?: ai)? (?:research|non production)\b|\bmrl\b|\bmnpl\b",
        "outputs are for research alone, without any link to a business",
        "sections 3.2, 4.2 and 9 of MRL-0.1, mistral.ai/licenses/MRL-0.1.md",
    ),
    Terms(
        "Qwen Research License",
        "refused",
        r"\bqwen research\b|\bqianwen research\b",
        'not for commercial use; a model that was trained on outputs and is passed on says "Built with Qwen" or '
        '"Improved using Qwen"',
        "sections 2 and 4.b, the LICENSE file of Qwen/Qwen2.5-3B-Instruct on Hugging Face",
    ),
    Terms(
        "Tongyi Qianwen License",
        "refused",
        r"\btongyi\b|\bqianwen\b",
        "outputs may not be used to improve any other large language model than Tongyi Qianwen",
        "section 5.b, the LICENSE file of Qwen/Qwen-7B-Chat on Hugging Face; versions differ",
    ),
    Terms(
        "Qwen License",
        "conditions",
        r"\bqwen\b(?! research)",
        'a model that was trained on outputs and is passed on says "Built with Qwen" or "Improved using Qwen"',
        "section 5.b, the LICENSE file of Qwen/Qwen2.5-72B-Instruct on Hugging Face",
    ),
    Terms(
        "a licence without commercial use",
        "refused",
        r"\bnc\b|\bnon ?commercial\b|\bresearch only\b",
        "forbids commercial use; whether that reaches outputs differs from licence to licence",
        "section 1(k) and 2(a) of CC-BY-NC-4.0, creativecommons.org/licenses/by-nc/4.0/legalcode",
    ),
    Terms(
        "OpenAI's terms",
        "refused",
        r"\bopenai\b",
        "outputs may not be used to develop models that compete with OpenAI",
        '"What you cannot do", openai.com/policies/row-terms-of-use',
    ),
    Terms(
        "Anthropic's terms",
        "refused",
        r"\banthropic\b|\bclaude\b",
        "the services may not be used to build a competing product or to train competing models",
        "section D.4 of the Commercial Terms, anthropic.com/legal/commercial-terms",
    ),
    Terms(
        "Gemini API terms",
        "refused",
        r"\bgemini\b",
        "the services may not be used to develop models that compete with them",
        "use restrictions, ai.google.dev/gemini-api/terms",
    ),
)
"""Every row that fits a name counts, and the strictest decides. Read a row's source before you rely on it."""

_OPTION: Final = "--accept-licence"


def terms_of(licence: str) -> tuple[Terms, ...]:
    """Find every row that a licence's name fits; none where it is unknown.

    A free licence has to be the whole name: "Apache-2.0, for research" is not Apache-2.0.
    """
    text = " ".join(re.sub(r"[-_\s]+", " ", licence.casefold()).split())
    return tuple(
        row
        for row in TABLE
        if (re.fullmatch(row.pattern, text) if row.verdict == "free" else re.search(row.pattern, text))
    )


def refuse_unfit(models: Sequence[Model], named: Iterable[str]) -> tuple[str, ...]:
    """Refuse models whose licence forbids training others on what they write, unless they were named.

    Args:
        models: Who wrote the rows, and who gave the letters: which rows are in the data is what they wrote.
        named: Models or licences that the user has read the terms of.

    Returns:
        What the licences ask for, a sentence each, for the data card.

    Raises:
        UsageError: a licence forbids it or is unknown, or a name is of no model here.
    """
    accepted = _accepted(models, named)
    notes = []
    for model in dict.fromkeys(models):
        if model.kind == EMBEDDED:
            continue
        found = terms_of(model.licence)
        against = [row for row in found if row.verdict == "refused"]
        if model.name in accepted:
            notes.append(_taken(model, against or list(found)))
            continue
        if against or not found:
            raise UsageError(_refusal(model, against))
        notes += [
            f"{model.name} ({model.licence}): {row.says}. Read the licence: {row.source}."
            for row in found
            if row.verdict == "conditions"
        ]
    return tuple(notes)


def _accepted(models: Sequence[Model], named: Iterable[str]) -> set[str]:
    accepted: set[str] = set()
    known = [word for model in models for word in (model.name, model.licence) if word]
    for name in named:
        fits = {
            model.name
            for model in models
            if name.casefold() in {model.name.casefold(), model.licence.casefold()}
        }
        if not fits or not name:
            shown = "; ".join(f"{model.name} ({model.licence or 'no licence'})" for model in models)
            raise UsageError(
                f"{_OPTION} {name!r}: no such model or licence in this data.{closest(name, known)} It has {shown}"
            )
        accepted |= fits
    return accepted


def _refusal(model: Model, against: Sequence[Terms]) -> str:
    others = (
        "its letters out: do without --model-labels"
        if model.kind == _RATER
        else "the model's items out: name the others with --candidate"
    )
    way_on = f"read the licence, and if it allows what you want to train, add `{_OPTION} {model.name}`; or leave {others}"
    if against:
        row = against[0]
        return f"{model.name}: its licence is {model.licence!r}: {row.says} ({row.source}); {way_on}"
    if not model.licence:
        return f"{model.name}: no licence is named for it, so nothing says that its outputs may train a model; {way_on}"
    return f"{model.name}: its licence is {model.licence!r}, of which nothing is known here; {way_on}"


def _taken(model: Model, rows: Sequence[Terms]) -> str:
    what = "; ".join(f"{row.says} ({row.source})" for row in rows) or "nothing is known of it here"
    return f"{model.name} ({model.licence or 'no licence named'}): taken on the word of whoever made this export. {what}."
