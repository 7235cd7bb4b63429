"""The section that weighs the candidates for hosting."""

from collections.abc import Sequence
from typing import Final

from qaeval.report import numbers
from qaeval.report.document import Choice, Report
from qaeval.report.tables import Section, Table

_HOW: Final = (
    "Scores from 0 to 1: quality, cost and speed as shares of the best candidate's, reliability as the share of items that came and "
    "got a letter, licence 1 for open source and 0 for restricted, maintenance 1 at the model's release and 0 three years after it, "
    "sovereignty 1 where nothing left. The weights are a proposal, not a "
    "finding: a difference in the mean says nothing that the differences above do not show."
)


def hosting(report: Report) -> Section:
    """Scores by criterion, the weights that they were taken with, and the means."""
    choices = report.timing.choice
    if not choices:
        return Section(
            anchor="hosting",
            title="Choosing one to host",
            paragraphs=("One candidate: there is nothing to choose.",),
        )
    names = [one.candidate for one in choices]
    weights = {one.name: one.weight for one in choices[0].criteria}
    rows = [
        (
            criterion,
            numbers.decimal(weight, 0),
            *(numbers.decimal(_score(report, name, criterion)) for name in names),
        )
        for criterion, weight in weights.items()
    ]
    rows.append(("weighted mean", "", *(numbers.decimal(one.mean) for one in choices)))
    facts = {one.facts.name: one.facts for one in report.candidates}
    licences = [
        f"{name}: {facts[name].licence or 'licence not known'} ({facts[name].openness or 'openness not known'})."
        for name in names
    ]
    return Section(
        anchor="hosting",
        title="Choosing one to host",
        paragraphs=(
            _HOW,
            *_left_out(choices),
            " ".join(licences),
            "`qaeval decide RUN` says how far each weight can move before another candidate comes first.",
        ),
        tables=(
            Table(
                caption="Weighed for hosting",
                header=("Criterion", "Weight", *names),
                rows=tuple(rows),
            ),
        ),
    )


def _left_out(choices: Sequence[Choice]) -> tuple[str, ...]:
    names = [one.name for one in choices[0].criteria if not one.counts]
    if not names:
        return ()
    return (f"Not known for every candidate and left out of the means: {numbers.listed(names)}.",)


def _score(report: Report, candidate: str, criterion: str) -> float | None:
    (choice,) = (one for one in report.timing.choice if one.candidate == candidate)
    return next(one.score for one in choice.criteria if one.name == criterion)
