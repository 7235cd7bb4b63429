"""Findings of the checks by candidate, repeated questions, and the sections of the report about them."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from qaeval.analysis.candidates import rate_by_cluster
from qaeval.analysis.letters import FAILED
from qaeval.comparison.report import CheckExample, CheckGroup, CheckRate, Report, Selection
from qaeval.cost.model import CandidateCost
from qaeval.records import Sample
from qaeval.report import numbers
from qaeval.report.facts import CheckFacts
from qaeval.report.numbers import in_words
from qaeval.report.tables import Notes, Section, Table
from qaeval.text.near import NearIndex
from qaeval.text.units import content_words, count_words

N_EXAMPLES: Final = 3
"""Of each check and candidate."""
N_CHARACTERS: Final = 200
_FREQUENT: Final = 0.5
"""Share of a candidate's items with a finding from which the headline names the check."""

_ALIKE: Final = 8
"""Two questions with so many tenths of their content words in common (Jaccard) are nearly the same."""
_MOST_QUESTIONS: Final = 100_000
_MOST_COMPARED: Final = 2_000_000
"""Pairs of questions of one candidate that are compared; questions made from one template share all their rare words."""


def gather_findings(
    table: pd.DataFrame, checks: Sequence[CheckFacts], candidates: Sequence[str]
) -> tuple[CheckGroup, ...]:
    """Count the findings of each check among the items that it applies to, in the order of the eval."""
    items = table[table["status"] != FAILED]
    flagged = items[items["findings"].notna()]
    groups = []
    for check in checks:
        hit = pd.Series(data=False, index=items.index)
        hit[flagged.index[[check.name in findings for findings in flagged["findings"]]]] = True
        applicable = (
            items["type"].isin(check.types) if check.types else pd.Series(data=True, index=items.index)
        )
        rates, examples = [], []
        for name in candidates:
            rows = items[applicable & (items["candidate"] == name)]
            hits = hit[rows.index]
            rates.append(
                CheckRate(
                    candidate=name,
                    n_checked=len(rows),
                    n_found=int(hits.sum()),
                    share=rate_by_cluster(rows, hits),
                    is_frequent=len(rows) > 0 and int(hits.sum()) >= _FREQUENT * len(rows),
                )
            )
            examples += [_example(row, check.name) for row in rows[hits].head(N_EXAMPLES).to_dict("records")]
        groups.append(CheckGroup(check=check, rates=tuple(rates), examples=tuple(examples)))
    return tuple(groups)


def _example(row: Mapping[Any, Any], check: str) -> CheckExample:
    return CheckExample(
        candidate=row["candidate"],
        chunk_id=row["cluster"],
        item_id=row["item_id"],
        finding=row["findings"][check][:N_CHARACTERS],
        question=row["question"][:N_CHARACTERS],
        answer=row["answer"][:N_CHARACTERS],
    )


def near_duplicates(questions: Collection[str]) -> int | None:
    """Count the questions that have nearly the words of an earlier one, of the whole set.

    Returns:
        The count; None where there are too many questions to compare.
    """
    if len(questions) > _MOST_QUESTIONS:
        return None
    sets = Counter(frozenset(content_words(question)) for question in questions)
    distinct = list(sets)
    index = NearIndex(distinct, _ALIKE)
    n = n_compared = 0
    for number, (words, times) in enumerate(sets.items()):
        near = index.candidates(number)
        n_compared += len(near)
        if n_compared > _MOST_COMPARED:
            return None
        n += times - 1 + any(index.is_near(words, distinct[neighbour]) for neighbour in near)
        index.add(number)
    return n


def summarise_pairs(
    table: pd.DataFrame, samples: Iterable[Sample], candidates: Sequence[str]
) -> tuple[Selection, ...]:
    """Say of each candidate what its preference pairs are like, and which personas and scenarios they cover."""
    cards = {sample.sample_id: sample.given for sample in samples}
    personas = {str(card.get("persona", "")) for card in cards.values()}
    selections = []
    for name in candidates:
        rows = table[(table["candidate"] == name) & (table["status"] != FAILED)]
        covered = Counter(str(cards[sample_id].get("persona", "")) for sample_id in rows["sample_id"])
        scenarios = Counter(rows["type"])
        selections.append(
            Selection(
                candidate=name,
                prompt_words=_mean_words(rows["question"]),
                chosen_words=_mean_words(rows["answer"]),
                rejected_words=_mean_words(rows["rejected"]),
                n_without_findings=int(rows["findings"].isna().sum()),
                n_personas=len(covered),
                n_personas_expected=len(personas),
                scenarios=dict(sorted(scenarios.items(), key=lambda entry: -entry[1])),
                scenarios_expected=dict(
                    Counter(str(card.get("type", "")) for card in cards.values()).most_common()
                ),
            )
        )
    return tuple(selections)


def _mean_words(texts: "pd.Series[str]") -> float | None:
    return float(sum(map(count_words, texts)) / len(texts)) if len(texts) else None


_HOW: Final = (
    "Checks are rules: each looks for one defect in the words of an item and can be wrong. Their findings stand beside "
    "the grade and change no letter and no rate."
)
_SELECTION: Final = (
    "Speed is that of the whole stage, all requests together. Shares of scenarios are of the valid pairs; the first "
    "column names the share among the cards that were drawn."
)


def checks(report: Report) -> Section | None:
    """Findings of the checks by candidate, with examples."""
    if not report.checks:
        return None
    return Section(
        anchor="checks",
        title="Checks without a model",
        paragraphs=(_HOW,),
        tables=check_tables(report.checks, [candidate.facts.name for candidate in report.candidates]),
    )


def check_tables(groups: Sequence[CheckGroup], names: Sequence[str]) -> tuple[Table, ...]:
    """Return tables of findings by check and candidate, and of examples."""
    if not groups:
        return ()
    notes = Notes()
    rows = tuple(
        (
            _named(group),
            *(
                f"{rate.n_found:,} of {rate.n_checked:,} · {notes.rate(rate.share, f'{in_words(group.check.name)} of {rate.candidate}')}"
                for rate in group.rates
            ),
        )
        for group in groups
    )
    examples = tuple(
        (
            example.candidate,
            in_words(group.check.name),
            example.chunk_id,
            example.finding,
            example.question,
            example.answer,
        )
        for group in groups
        for example in group.examples
    )
    counts = Table(
        caption="Items with a finding, by check",
        header=("Check", *names),
        rows=rows,
        notes=(*(f"{in_words(group.check.name)}: {group.check.meaning}" for group in groups), *notes.lines()),
    )
    shown = Table(
        caption="Examples, texts cut after 200 characters",
        header=("Candidate", "Check", "Chunk", "Finding", "Question", "Answer"),
        rows=examples,
        kind="text",
    )
    return (counts, shown) if examples else (counts,)


def _named(group: CheckGroup) -> str:
    name = in_words(group.check.name)
    return f"{name} ({', '.join(group.check.types)})" if group.check.types else name


def selection(report: Report) -> Section | None:
    """Properties of each candidate's preference pairs, for the selection of a model."""
    if not report.selection:
        return None
    names = [pairs.candidate for pairs in report.selection]
    costs = {cost.candidate: cost for cost in report.timing.costs}
    speeds = {
        candidate.facts.name: candidate.tokens.completion / candidate.timing.wall_s
        for candidate in report.candidates
        if candidate.tokens.completion and candidate.timing.wall_s
    }
    valid = {candidate.facts.name: candidate.n_valid for candidate in report.candidates}
    unit = report.timing.cost_unit
    lines: list[tuple[str, ...]] = [
        (
            "Words of the prompt, mean",
            *(numbers.decimal(pairs.prompt_words, 1) for pairs in report.selection),
        ),
        (
            "Words of the chosen answer",
            *(numbers.decimal(pairs.chosen_words, 1) for pairs in report.selection),
        ),
        (
            "Words of the rejected answer",
            *(numbers.decimal(pairs.rejected_words, 1) for pairs in report.selection),
        ),
        ("Completion tokens per second", *(_measured(speeds.get(name), 1) for name in names)),
        (
            f"Cost of 1,000 pairs{f', {unit}' if unit else ''}",
            *(_measured(_cost(costs, name, unit), 2) for name in names),
        ),
        (
            "Pairs without a finding",
            *(_share(pairs.n_without_findings, valid[pairs.candidate]) for pairs in report.selection),
        ),
        *(
            (
                f"passes {in_words(group.check.name)}",
                *(_share(rate.n_checked - rate.n_found, rate.n_checked) for rate in group.rates),
            )
            for group in report.checks
        ),
        (
            "Personas with a pair",
            *(_share(pairs.n_personas, pairs.n_personas_expected) for pairs in report.selection),
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
            *(_share(pairs.scenarios.get(name, 0), _total(pairs)) for pairs in report.selection),
        )
        for name, n in drawn.items()
    ]


def _total(pairs: Selection) -> int:
    return sum(pairs.scenarios.values())


def _share(n: int, total: int) -> str:
    return f"{n:,} of {total:,} · {numbers.percent(n / total)}" if total else numbers.UNDEFINED


def _measured(value: float | None, digits: int) -> str:
    return "not measured" if value is None else numbers.decimal(value, digits)


def _cost(costs: Mapping[str, CandidateCost], name: str, unit: str) -> float | None:
    cost = costs.get(name)
    if cost is None or not unit:
        return None
    return cost.seconds_per_1000 if unit == "seconds" else cost.price_per_1000
