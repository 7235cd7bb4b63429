"""Licence terms on training other models with a model's outputs.

Not legal advice. Each entry names the clause to read; licences change, and a licence in a registry may be
wrong. Unknown licences are refused until the user accepts their terms.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from qaeval.errors import UsageError, closest
from qaeval.report.facts import EMBEDDED

Verdict: TypeAlias = Literal["free", "conditions", "refused"]
"""``conditions``: training is allowed under conditions."""


@dataclass(frozen=True)
class Terms:
    """The terms of a licence on outputs."""

    name: str
    verdict: Verdict
    pattern: str
    """Pattern of the licence's name, lower-case, with spaces for hyphens and underscores. For free licences
    it must match the whole name."""
    summary: str
    source: str
    """The clause and the URL of the licence."""


@dataclass(frozen=True)
class SourceModel:
    """A model whose outputs or letters are in the data."""

    name: str
    kind: str
    licence: str
    hf_id: str = ""
    revision: str = ""

    @classmethod
    def of(cls, name: str, settings: Mapping[str, Any]) -> "SourceModel":
        """Read a model from a run's settings."""
        return cls(
            name,
            settings.get("kind") or "",
            settings.get("licence") or "",
            settings.get("hf_id") or "",
            settings.get("revision") or "",
        )

    @classmethod
    def of_rater(cls, name: str) -> "SourceModel":
        """Return the model behind a label's rater, of which only the name is known."""
        licence = next(
            (terms for prefix, terms in _RATER_LICENCES.items() if name.casefold().startswith(prefix)), ""
        )
        return cls(name, _RATER_KIND, licence)


_RATER_KIND: Final = "rater"
"""Kind of a model that is only known as a rater."""

_RATER_LICENCES: Final = {"claude": "Anthropic's terms", "gemini": "Gemini API terms"}
"""Terms of models that only their maker serves, by prefix of the model's name."""

LICENCE_TERMS: Final = (
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
        "requires attribution if the model itself is shared; whether this covers its outputs is unclear",
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
        'the name of a distributed model that was trained on outputs must begin with "Llama"',
        "section 1.b.i, llama.com/llama3_1/license",
    ),
    Terms(
        "Gemma Terms of Use",
        "conditions",
        r"\bgemma\b",
        "outputs are free, but a model trained on them to perform like Gemma is a Model Derivative under "
        "these terms, including their prohibited uses",
        "sections 1.1(e), 3.1 and 3.3, ai.google.dev/gemma/terms",
    ),
    Terms(
        "NVIDIA Open Model License",
        "conditions",
        r"\bnvidia open model\b",
        "claims no rights in outputs; who passes on a model derived from the weights passes on the licence",
        "sections 2 and 3 of the NVIDIA Open Model License Agreement, nvidia.com; read the version of the model",
    ),
    Terms(
        "Mistral Research License",
        "refused",
        r"\bmistral(?: ai)? (?:research|non production)\b|\bmrl\b|\bmnpl\b",
        "outputs are for research only, without any link to a business",
        "sections 3.2, 4.2 and 9 of MRL-0.1, mistral.ai/licenses/MRL-0.1.md",
    ),
    Terms(
        "Qwen Research License",
        "refused",
        r"\bqwen research\b|\bqianwen research\b",
        "not for commercial use; a distributed model that was trained on outputs must say "
        '"Built with Qwen" or "Improved using Qwen"',
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
        'a distributed model that was trained on outputs must say "Built with Qwen" or "Improved using Qwen"',
        "section 5.b, the LICENSE file of Qwen/Qwen2.5-72B-Instruct on Hugging Face",
    ),
    Terms(
        "a licence without commercial use",
        "refused",
        r"\bnc\b|\bnon ?commercial\b|\bresearch only\b",
        "forbids commercial use; whether this covers outputs depends on the licence",
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
"""All entries that match a licence's name apply; the strictest decides. Read an entry's source before
relying on it."""

_OPTION: Final = "--accept-licence"


def terms_of(licence: str) -> tuple[Terms, ...]:
    """Return all entries that match the name of a licence; empty if it is unknown.

    A free licence must match the whole name: "Apache-2.0, for research" is not Apache-2.0.
    """
    text = " ".join(re.sub(r"[-_\s]+", " ", licence.casefold()).split())
    return tuple(
        row
        for row in LICENCE_TERMS
        if (re.fullmatch(row.pattern, text) if row.verdict == "free" else re.search(row.pattern, text))
    )


def check_licences(models: Sequence[SourceModel], accepted_names: Iterable[str]) -> tuple[str, ...]:
    """Refuse models whose licence forbids training on their outputs, unless the user accepted its terms.

    Args:
        models: Models that wrote rows or gave letters; letters are outputs, too, since they select the rows.
        accepted_names: Models or licences whose terms the user accepted.

    Returns:
        The conditions of the licences, one sentence each, for the data card.

    Raises:
        UsageError: a licence forbids training or is unknown, or a name matches no model of the data.
    """
    accepted = _accepted_models(models, accepted_names)
    notes = []
    for model in dict.fromkeys(models):
        if model.kind == EMBEDDED:
            continue
        terms = terms_of(model.licence)
        refusing = [row for row in terms if row.verdict == "refused"]
        if model.name in accepted:
            notes.append(_acceptance_note(model, refusing or list(terms)))
            continue
        if refusing or not terms:
            raise UsageError(_refusal_message(model, refusing))
        notes += [
            f"{model.name} ({model.licence}): {row.summary}. Read the licence: {row.source}."
            for row in terms
            if row.verdict == "conditions"
        ]
    return tuple(notes)


def _accepted_models(models: Sequence[SourceModel], accepted_names: Iterable[str]) -> set[str]:
    accepted: set[str] = set()
    known_names = [word for model in models for word in (model.name, model.licence) if word]
    for name in accepted_names:
        matches = {
            model.name
            for model in models
            if name.casefold() in {model.name.casefold(), model.licence.casefold()}
        }
        if not matches or not name:
            available = "; ".join(f"{model.name} ({model.licence or 'no licence'})" for model in models)
            raise UsageError(
                f"{_OPTION} {name!r}: unknown model or licence.{closest(name, known_names)} The data has "
                f"{available}"
            )
        accepted |= matches
    return accepted


def _refusal_message(model: SourceModel, refusing: Sequence[Terms]) -> str:
    alternative = (
        "exclude its labels: omit --model-labels"
        if model.kind == _RATER_KIND
        else "exclude its items: name the other candidates with --candidate"
    )
    advice = f"read the licence, and if it permits your use, add `{_OPTION} {model.name}`; or {alternative}"
    if refusing:
        terms = refusing[0]
        return f"{model.name}: licence {model.licence!r}: {terms.summary} ({terms.source}); {advice}"
    if not model.licence:
        return f"{model.name}: no licence, so nothing permits training on its outputs; {advice}"
    return f"{model.name}: unknown licence {model.licence!r}; {advice}"


def _acceptance_note(model: SourceModel, rows: Sequence[Terms]) -> str:
    summary = "; ".join(f"{row.summary} ({row.source})" for row in rows) or "unknown terms"
    licence = model.licence or "no licence"
    return f"{model.name} ({licence}): terms accepted by the author of this export: {summary}."
