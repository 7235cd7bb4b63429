"""Sections of what the eval's checks found, and of what preference pairs are like."""

from collections.abc import Mapping, Sequence
from typing import Final

from qaeval.report import numbers
from qaeval.report.cost import CandidateCost
from qaeval.report.document import CheckGroup, Report, Selection
from qaeval.report.tables import Notes, Section, Table

_HOW: Final = (
    "Rules, not judgements: each looks for one thing in the words of an item and can be wrong. What they find stands beside "
    "the grade and changes no letter and no rate."
)
_SELECTION: Final = (
    "Speed is that of the whole stage, all requests together. Shares of scenarios are of the valid pairs; the first "
    "column names the share among the cards that were drawn."
)


def checks(report: Report) -> Section | None:
    """What the checks found in each candidate's items, with examples."""
    if not report.checks:
        return None
    return Section(
        anchor="checks",
        title="Checks without a model",
        paragraphs=(_HOW,),
        tables=check_tables(report.checks, [one.facts.name for one in report.candidates]),
    )


def check_tables(groups: Sequence[CheckGroup], names: Sequence[str]) -> tuple[Table, ...]:
    """Count what each check found in each candidate's items, and show examples."""
    if not groups:
        return ()
    notes = Notes()
    rows = tuple(
        (
            _named(group),
            *(
                f"{rate.n_found:,} of {rate.n_checked:,} · {notes.rate(rate.share, f'{group.check.name} of {rate.candidate}')}"
                for rate in group.rates
            ),
        )
        for group in groups
    )
    examples = tuple(
        (
            example.candidate,
            group.check.name,
            example.chunk_id,
            example.finding,
            example.question,
            example.answer,
        )
        for group in groups
        for example in group.examples
    )
    counts = Table(
        caption="Items in which a check found something",
        header=("Check", *names),
        rows=rows,
        notes=(*(f"{group.check.name}: {group.check.meaning}" for group in groups), *notes.lines()),
    )
    shown = Table(
        caption="Examples, texts cut after 200 characters",
        header=("Candidate", "Check", "Chunk", "Finding", "Question", "Answer"),
        rows=examples,
        kind="text",
    )
    return (counts, shown) if examples else (counts,)


def _named(group: CheckGroup) -> str:
    return f"{group.check.name} ({', '.join(group.check.types)})" if group.check.types else group.check.name


def selection(report: Report) -> Section | None:
    """What each candidate's preference pairs are like: the table that a model is selected by."""
    if not report.selection:
        return None
    names = [one.candidate for one in report.selection]
    costs = {one.candidate: one for one in report.timing.costs}
    speeds = {
        one.facts.name: one.tokens.completion / one.timing.wall_s
        for one in report.candidates
        if one.tokens.completion and one.timing.wall_s
    }
    valid = {one.facts.name: one.n_valid for one in report.candidates}
    unit = report.timing.cost_unit
    lines: list[tuple[str, ...]] = [
        ("Words of the prompt, mean", *(numbers.decimal(one.prompt_words, 1) for one in report.selection)),
        ("Words of the chosen answer", *(numbers.decimal(one.chosen_words, 1) for one in report.selection)),
        (
            "Words of the rejected answer",
            *(numbers.decimal(one.rejected_words, 1) for one in report.selection),
        ),
        ("Completion tokens per second", *(_measured(speeds.get(name), 1) for name in names)),
        (
            f"Cost of 1,000 pairs{f', {unit}' if unit else ''}",
            *(_measured(_cost(costs, name, unit), 2) for name in names),
        ),
        (
            "Pairs in which no check found anything",
            *(_share(one.n_without_findings, valid[one.candidate]) for one in report.selection),
        ),
        *(
            (
                f"passes {group.check.name}",
                *(_share(rate.n_checked - rate.n_found, rate.n_checked) for rate in group.rates),
            )
            for group in report.checks
        ),
        (
            "Personas with a pair",
            *(_share(one.n_personas, one.n_personas_expected) for one in report.selection),
        ),
        *_scenarios(report),
    ]
    header = ("", *names)
    return Section(
        anchor="selection",
        title="Preference pairs",
        paragraphs=(_SELECTION,),
        tables=(
            Table(caption="Selecting a model to write preference pairs", header=header, rows=tuple(lines)),
        ),
    )


def _scenarios(report: Report) -> list[tuple[str, ...]]:
    drawn: Mapping[str, int] = report.selection[0].scenarios_expected
    total = sum(drawn.values())
    return [
        (
            f"{name} ({numbers.percent(n / total)} of cards)",
            *(_share(one.scenarios.get(name, 0), _total(one)) for one in report.selection),
        )
        for name, n in drawn.items()
    ]


def _total(one: Selection) -> int:
    return sum(one.scenarios.values())


def _share(n: int, total: int) -> str:
    return f"{n:,} of {total:,} · {numbers.percent(n / total)}" if total else numbers.UNDEFINED


def _measured(value: float | None, digits: int) -> str:
    return "not measured" if value is None else numbers.decimal(value, digits)


def _cost(costs: Mapping[str, CandidateCost], name: str, unit: str) -> float | None:
    found = costs.get(name)
    if found is None or not unit:
        return None
    return found.seconds_per_1000 if unit == "seconds" else found.price_per_1000
