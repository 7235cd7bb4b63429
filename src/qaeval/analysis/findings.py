"""What the eval's checks found: counted by candidate, with a few of them shown; and questions that come again and again."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from qaeval.analysis.candidates import rate_by_cluster
from qaeval.analysis.letters import FAILED
from qaeval.records import Sample
from qaeval.report.document import CheckExample, CheckGroup, CheckRate, Selection
from qaeval.report.facts import CheckFacts
from qaeval.text.near import NearIndex
from qaeval.text.units import content_words

N_EXAMPLES: Final = 3
"""Of each check and candidate."""
N_CHARACTERS: Final = 200

_ALIKE: Final = 8
"""Two questions with so many tenths of their content words in common (Jaccard) are nearly the same."""
_MOST_QUESTIONS: Final = 100_000
_MOST_COMPARED: Final = 2_000_000
"""Pairs of questions of one candidate that are compared; questions made from one template share all their rare words."""


def gather_findings(
    table: pd.DataFrame, checks: Sequence[CheckFacts], candidates: Sequence[str]
) -> tuple[CheckGroup, ...]:
    """Count each check's findings among the items that it looked at, in the eval's order of checks."""
    items = table[table["status"] != FAILED]
    found = items[items["findings"].notna()]
    groups = []
    for check in checks:
        hit = pd.Series(data=False, index=items.index)
        hit[found.index[[check.name in own for own in found["findings"]]]] = True
        looked = items["type"].isin(check.types) if check.types else pd.Series(data=True, index=items.index)
        rates, examples = [], []
        for name in candidates:
            own = items[looked & (items["candidate"] == name)]
            mine = hit[own.index]
            rates.append(
                CheckRate(
                    candidate=name,
                    n_checked=len(own),
                    n_found=int(mine.sum()),
                    share=rate_by_cluster(own, mine),
                )
            )
            examples += [_example(row, check.name) for row in own[mine].head(N_EXAMPLES).to_dict("records")]
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
    index = NearIndex(sets, _ALIKE)
    n = n_compared = 0
    for own, times in sets.items():
        near = index.candidates(own)
        n_compared += len(near)
        if n_compared > _MOST_COMPARED:
            return None
        n += times - 1 + any(index.is_near(own, other) for other in near)
        index.add(own)
    return n


def select(
    table: pd.DataFrame, samples: Iterable[Sample], candidates: Sequence[str]
) -> tuple[Selection, ...]:
    """Say of each candidate what its preference pairs are like, and which personas and scenarios they cover."""
    cards = {sample.sample_id: sample.given for sample in samples}
    personas = {str(given.get("persona", "")) for given in cards.values()}
    made = []
    for name in candidates:
        own = table[(table["candidate"] == name) & (table["status"] != FAILED)]
        covered = Counter(str(cards[sample_id].get("persona", "")) for sample_id in own["sample_id"])
        scenarios = Counter(own["type"])
        made.append(
            Selection(
                candidate=name,
                prompt_words=_mean_words(own["question"]),
                chosen_words=_mean_words(own["answer"]),
                rejected_words=_mean_words(own["rejected"]),
                n_without_findings=int(own["findings"].isna().sum()),
                n_personas=len(covered),
                n_personas_expected=len(personas),
                scenarios=dict(sorted(scenarios.items(), key=lambda entry: -entry[1])),
                scenarios_expected=dict(
                    Counter(str(given.get("type", "")) for given in cards.values()).most_common()
                ),
            )
        )
    return tuple(made)


def _mean_words(texts: "pd.Series[str]") -> float | None:
    return float(sum(len(text.split()) for text in texts) / len(texts)) if len(texts) else None
