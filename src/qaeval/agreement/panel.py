"""A panel of judges: the letter of most members for each item, and Dawid and Skene's model beside it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from qaeval.agreement.analysis import compare_all_raters
from qaeval.agreement.model import Panel, PanelCandidate, PanelMember
from qaeval.errors import UsageError
from qaeval.records import Failure, Grade, GradeRow
from qaeval.report import numbers
from qaeval.report.facts import RubricFacts
from qaeval.stats.multirater import DawidSkene, dawid_skene

DAWID_SKENE: Final = "Dawid-Skene"
"""Name of the most probable letters of the model among the further judges."""
_MIN_MEMBERS: Final = 3
_SHARED_ERRORS: Final = (
    "Dawid-Skene takes the errors of the members as independent. LLM judges share errors, so its "
    "probabilities are too close to 0 and 1: it is a further judge, to be checked against labels, and never a label."
)


def panel_name(members: Iterable[str]) -> str:
    """Return the name of a panel as a judge."""
    return "+".join(members)


def checked_panel(members: Iterable[str]) -> tuple[str, ...]:
    """Return the members of a panel.

    Raises:
        UsageError: there are fewer than three, an even number, or one is named twice.
    """
    names = tuple(members)
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise UsageError(f"panel: {twice[0]} is named twice; name three or more different judges")
    if len(names) < _MIN_MEMBERS:
        raise UsageError(
            f"panel: expected three or more judges, got {len(names)} ({', '.join(names) or 'none'})"
        )
    if len(names) % 2 == 0:
        raise UsageError(
            f"panel: expected an odd number of judges, got {len(names)} ({', '.join(names)}): half against half "
            f"decides nothing. Add a judge or leave one out"
        )
    return names


def panel_letter(codes: Sequence[int], *, n_members: int) -> tuple[int | None, bool]:
    """Decide the letter of an item.

    Args:
        codes: Letters of the members that graded it, 0 for the best.
        n_members: Members of the panel.

    Returns:
        The most frequent letter and whether it is a tie. Of a tie the median of all letters, the worse of the
        middle two. None where a member gave no letter and no two letters are equal.
    """
    counts = Counter(codes)
    most = max(counts.values(), default=0)
    if len(codes) < n_members and most < 2:
        return None, False
    modes = [code for code, n in counts.items() if n == most]
    return (modes[0], False) if len(modes) == 1 else (sorted(codes)[len(codes) // 2], True)


def panel_grades(grades: Mapping[str, Iterable[GradeRow]], rubric: RubricFacts) -> tuple[GradeRow, ...]:
    """Return the rows of a panel like those of a judge: a grade for each item that it decides, else a failure.

    Args:
        grades: Rows of each member. An item without a row of a member counts as one that it failed to grade.
        rubric: The rubric of all members.
    """
    rows: dict[str, dict[str, GradeRow]] = {}
    for member, own in grades.items():
        for row in own:
            # raw replies would be most of the memory, and no panel shows them
            slim = row.model_copy(update={"text": "", "usage": None})
            rows.setdefault(row.item_id or "", {})[member] = slim
    return tuple(_combined(by_member, tuple(grades), rubric) for by_member in rows.values())


def _combined(rows: Mapping[str, GradeRow], members: tuple[str, ...], rubric: RubricFacts) -> GradeRow:
    grades = {member: row for member, row in rows.items() if isinstance(row, Grade)}
    code, is_tie = panel_letter(
        [rubric.letters.index(row.letter) for row in grades.values()], n_members=len(members)
    )
    letters = {member: grades[member].letter if member in grades else "no letter" for member in members}
    given = ", ".join(f"{member} {letter}" for member, letter in letters.items())
    name, first = panel_name(members), next(iter(rows.values()))
    if code is None:
        failures = [row for row in rows.values() if isinstance(row, Failure)]
        return Failure(
            task_id=first.task_id,
            stage="grade",
            model=name,
            sample_id=failures[0].sample_id if failures else "",
            item_id=first.item_id,
            reason=failures[0].reason if failures else "interrupted",
            detail=f"no letter of two members: {given}",
        )
    letter = rubric.letters[code]
    reason = next((row.reason for row in grades.values() if row.letter == letter), "")
    flaws = Counter(row.flaw for row in grades.values() if row.letter == letter and row.flaw)
    n_flags = Counter(flag for row in grades.values() for flag in row.flags)
    return Grade(
        task_id=first.task_id,
        judge=name,
        rubric_sha=next(iter(grades.values())).rubric_sha,
        item_id=first.item_id or "",
        letter=letter,
        flags=tuple(sorted(flag for flag, n in n_flags.items() if 2 * n > len(grades))),
        flaw=next((flaw for flaw, _ in flaws.most_common(1)), ""),
        reason=f"{given}{' (tie)' if is_tie else ''}. {reason}".rstrip(),
        text="",
        latency_s=0.0,
    )


def summarise_panel(
    table: pd.DataFrame,
    grades: Mapping[str, Iterable[GradeRow]],
    majority: Iterable[GradeRow],
    rubric: RubricFacts,
) -> tuple[Panel, tuple[GradeRow, ...]]:
    """Summarise the votes of a panel, and fit Dawid and Skene's model to them.

    Args:
        table: Table of letters of the panel.
        grades: Rows of each member.
        majority: Rows of the panel.
        rubric: The rubric of all members.

    Returns:
        The summary, and the rows of the model's most probable letters, with the flags of the panel, of the items
        that the panel decides.
    """
    members = tuple(grades)
    items = table[table["item_id"] != ""].drop_duplicates("item_id").set_index("item_id")
    codes = {letter: code for code, letter in enumerate(rubric.letters)}
    given = {
        member: {row.item_id: codes[row.letter] for row in own if isinstance(row, Grade)}
        for member, own in grades.items()
    }
    ratings = np.column_stack(
        [items.index.map(letters).to_numpy(dtype=np.float64) for letters in given.values()]
    )
    votes = [
        panel_letter([int(code) for code in row[~np.isnan(row)]], n_members=len(members)) for row in ratings
    ]
    n_graded = np.count_nonzero(~np.isnan(ratings), axis=0)
    model = dawid_skene(ratings, n_levels=len(codes)) if np.count_nonzero(n_graded) >= _MIN_MEMBERS else None
    best = _most_probable(model, items.index, rubric)
    letters = items["letter"]
    panel = Panel(
        members=tuple(
            PanelMember(
                judge=member,
                n_graded=int(n_graded[index]),
                n_ungraded=len(items) - int(n_graded[index]),
                n_as_panel=sum(
                    code is not None and ratings[item, index] == code for item, (code, _) in enumerate(votes)
                ),
                accuracy=None if model is None or not n_graded[index] else float(model.accuracy[index]),
            )
            for index, member in enumerate(members)
        ),
        n_items=len(items),
        n_unanimous=int((ratings == ratings[:, :1]).all(axis=1).sum()),
        n_ties=sum(is_tie for _, is_tie in votes),
        n_undecided=sum(code is None for code, _ in votes),
        n_differ=sum(letters[item] not in {"", letter} for item, letter in best.items()),
        prevalence=() if model is None else tuple(map(float, model.prevalence)),
        converged=model is not None and model.converged,
        agreement=compare_all_raters(members, ratings, items["cluster"].to_numpy(object), len(codes)),
        candidates=tuple(_by_candidate(table, items.index, model, rubric)),
    )
    rows = tuple(
        row.model_copy(update={"judge": DAWID_SKENE, "letter": best[row.item_id], "reason": ""})
        for row in majority
        if isinstance(row, Grade) and row.item_id in best
    )
    return panel.model_copy(update={"sentences": tuple(_sentences(panel))}), rows


def _most_probable(model: DawidSkene | None, items: "pd.Index[str]", rubric: RubricFacts) -> dict[str, str]:
    """Return the most probable letter of each item that has any."""
    if model is None:
        return {}
    known = ~np.isnan(model.posterior[:, 0])
    codes = model.posterior[known].argmax(axis=1)
    return {item: rubric.letters[code] for item, code in zip(items[known], codes, strict=True)}


def _by_candidate(
    table: pd.DataFrame, items: "pd.Index[str]", model: DawidSkene | None, rubric: RubricFacts
) -> Iterator[PanelCandidate]:
    best = {} if model is None else dict(zip(items, np.nan_to_num(model.posterior[:, 0]), strict=True))
    for candidate, rows in table.groupby("candidate", sort=False):
        yield PanelCandidate(
            candidate=str(candidate),
            n=len(rows),
            n_usable=int((rows["letter"] == rubric.best).sum()),
            share_dawid_skene=float(rows["item_id"].map(best).fillna(0.0).mean()) if best else None,
        )


def _sentences(panel: Panel) -> Iterator[str]:
    names = numbers.listed([member.judge for member in panel.members])
    yield (
        f"The letter of an item is that of most members of the panel ({names}): {panel.n_unanimous:,} of "
        f"{numbers.plural(panel.n_items, 'item')} have the same letter of all."
    )
    if panel.n_ties:
        yield (
            f"{numbers.plural(panel.n_ties, 'item is a tie', 'items are ties')}: two or more letters have the most "
            f"votes, and the median letter decides, the worse of the middle two."
        )
    if missing := [member for member in panel.members if member.n_ungraded]:
        counts = numbers.listed([f"{member.judge} {member.n_ungraded:,}" for member in missing])
        yield (
            f"Items without a letter by member: {counts}. The others decide such an item where two of their "
            f"letters are equal; {panel.n_undecided:,} stay ungraded."
        )
    if panel.prevalence:
        differ = numbers.plural(panel.n_differ, "item")
        yield f"Dawid-Skene's most probable letter differs from the panel's for {differ}."
        if not panel.converged:
            yield "Dawid-Skene did not converge; its figures are those of the last iteration."
        yield _SHARED_ERRORS
    else:
        yield "Dawid-Skene needs letters of three members."
