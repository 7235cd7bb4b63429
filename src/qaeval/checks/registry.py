"""All checks by name; a new one is a function of a `Case` put into the table."""

from collections.abc import Mapping
from typing import Final

from qaeval.checks import answers, pairs, wording
from qaeval.checks.case import Check

CHECKS: Final[Mapping[str, Check]] = {
    check.__name__: check
    for check in (
        wording.repeated_question,
        wording.foreign_question,
        wording.echoed_answer,
        wording.stock_phrase,
        wording.answer_length,
        wording.type_label,
        wording.new_numbers,
        wording.new_names,
        wording.language,
        answers.wrong_refusal,
        answers.missing_refusal,
        answers.form,
        answers.bare_json,
        pairs.words,
        pairs.steps,
        pairs.features,
        pairs.forbidden,
        pairs.reality,
        pairs.too_alike,
    )
}

KINDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("wrong_refusal", "missing_refusal", "form"), "answer"),
    **dict.fromkeys(("words", "steps", "features", "forbidden", "reality", "too_alike"), "preference_pair"),
    **dict.fromkeys(("repeated_question", "foreign_question", "echoed_answer", "type_label"), "qa_pair"),
}
"""Kind of item that a check looks at; those that stand not here look at all."""


def meaning(name: str) -> str:
    """Return what a check finds: the first line of its docstring."""
    check = CHECKS.get(name)
    return (check.__doc__ or "").strip().partition("\n")[0] if check else ""
