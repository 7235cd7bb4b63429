"""Failures by candidate, stage and reason, with examples."""

from collections.abc import Sequence
from typing import Final, Literal

import pandas as pd

from qaeval.analysis.letters import FAILED, UNGRADED
from qaeval.analysis.model import FailureExample, FailureGroup
from qaeval.records import FAILURES

N_EXAMPLES: Final = 5
"""Examples per group."""
N_CHARACTERS: Final = 300
"""Characters of a raw reply in an example: enough to recognise its form, short enough for a table."""

_STAGES: Final[dict[Literal["generate", "grade"], str]] = {"generate": FAILED, "grade": UNGRADED}


def gather_failures(table: pd.DataFrame, candidates: Sequence[str]) -> tuple[FailureGroup, ...]:
    """Group the rows without a letter by candidate, stage and reason, in the order of the sample set."""
    groups = []
    for candidate in candidates:
        candidate_rows = table[table["candidate"] == candidate]
        for stage, status in _STAGES.items():
            failed = candidate_rows[candidate_rows["status"] == status]
            reasons = set(failed["failure"])
            for reason, meaning in FAILURES.items():
                if reason in reasons:
                    rows = failed[failed["failure"] == reason]
                    group = FailureGroup(
                        candidate=candidate,
                        stage=stage,
                        reason=reason,
                        meaning=meaning,
                        n_items=len(rows),
                        examples=_examples(rows),
                    )
                    groups.append(group)
    return tuple(groups)


def _examples(rows: pd.DataFrame) -> tuple[FailureExample, ...]:
    shown = rows.drop_duplicates(["sample_id", "item_id"]).head(N_EXAMPLES)
    return tuple(
        FailureExample(
            sample_id=row["sample_id"],
            chunk_id=row["cluster"],
            item_id=row["item_id"] or None,
            detail=row["detail"],
            text=row["text"][:N_CHARACTERS],
        )
        for row in shown.to_dict("records")
    )
