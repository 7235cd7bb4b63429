"""All checks by name. To add one, write a function of a `CheckedItem` and add it to the table."""

from collections.abc import Mapping
from typing import Final

from qaeval.checks import answers, pairs, patterns
from qaeval.checks.check import Check

CHECKS: Final[Mapping[str, Check]] = {
    check.__name__: check
    for check in (
        patterns.repeated_question,
        patterns.foreign_question,
        patterns.echoed_answer,
        patterns.stock_phrase,
        patterns.answer_length,
        patterns.type_label,
        patterns.new_numbers,
        patterns.new_names,
        patterns.language,
        patterns.copied_prompt,
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
"""The item kind that a check applies to; checks that are not listed apply to every kind."""


def meaning(name: str) -> str:
    """Return the first line of a check's docstring: the finding that it reports. Reports show it."""
    check = CHECKS.get(name)
    return (check.__doc__ or "").strip().partition("\n")[0] if check else ""
