"""Agreement by labels of a draw that prefers items on which the judge errs: it is that of the run, not of the draw."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from qaeval.agreement.analysis import judge_agreement
from qaeval.agreement.model import RaterAgreement
from qaeval.export.draw import ItemToDraw, draw_items
from qaeval.records import Label
from qaeval.report.facts import Meaning, RubricFacts

SCALE = "ABC"
RUBRIC = RubricFacts(name="r", version=1, sha="x", scale=tuple(Meaning(name=letter) for letter in SCALE))
N_ITEMS = 600
N_DRAWS = 20


def agreement_of(table: pd.DataFrame, labels: list[Label]) -> RaterAgreement:
    (rater,) = judge_agreement(table, labels, judge="j", rubric=RUBRIC, judge_tuned=False)
    return rater


def with_errors(truth: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    wrong = rng.random(len(truth)) < share
    return np.where(wrong, (truth + rng.integers(1, 3, len(truth))) % 3, truth)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["uncertain", "disagree", "stratified"])
def test_agreement_by_a_draw_is_that_of_the_run(by: Any) -> None:
    differences, covered, unaware = [], 0, []
    for seed in range(N_DRAWS):
        rng = np.random.default_rng(seed)
        truth = rng.choice(3, N_ITEMS, p=[0.6, 0.25, 0.15])
        judged, second = with_errors(truth, 0.15, rng), with_errors(truth, 0.12, rng)
        sure = np.clip(rng.normal(np.where(judged == truth, 0.9, 0.7), 0.1), 0.3, 1)
        ids = [f"i{number:05d}" for number in range(N_ITEMS)]
        items = [
            ItemToDraw(
                item_id=item_id,
                chunk_id=f"c {item_id}",
                candidate="m",
                letter=SCALE[letter],
                probability=float(p),
            )
            for item_id, letter, p in zip(ids, judged, sure, strict=True)
        ]
        opinions = {item_id: {SCALE[a], SCALE[b]} for item_id, a, b in zip(ids, judged, second, strict=True)}
        drawn = draw_items(
            items,
            [],
            by=by,
            n=100,
            seed=seed,
            scale=SCALE,
            rater="anna",
            opinions=opinions,
        )
        letter_of = dict(zip(ids, truth, strict=True))

        def label(item_id: str, inclusion: float | None, of: dict[str, int] = letter_of) -> Label:
            return Label(
                item_id=item_id,
                rater="anna",
                rater_kind="human",
                letter=SCALE[of[item_id]],
                chunk_id=f"c {item_id}",
                inclusion=inclusion,
            )

        picked = [item.item_id for item in drawn.items]
        labels = [label(item_id, drawn.probabilities.get(item_id, drawn.probability)) for item_id in picked]
        table = pd.DataFrame(
            {
                "item_id": ids,
                "candidate": "m",
                "cluster": [f"c {item_id}" for item_id in ids],
                "status": "graded",
                "letter": [SCALE[letter] for letter in judged],
            }
        )
        whole = agreement_of(table, [label(item_id, None) for item_id in ids]).coefficients
        rater = agreement_of(table, labels).coefficients
        plain = agreement_of(table, [label(item_id, None) for item_id in picked]).coefficients
        assert whole is not None
        assert rater is not None
        assert plain is not None
        kappa, true = rater.kappa, whole.kappa.value
        assert kappa.value is not None
        assert kappa.low is not None
        assert kappa.high is not None
        assert true is not None
        assert plain.kappa.value is not None
        differences.append(kappa.value - true)
        unaware.append(plain.kappa.value - true)
        covered += kappa.low <= true <= kappa.high
    assert abs(np.mean(differences)) < 0.05
    assert covered >= 17  # fewer in one of a thousand repetitions, at 95 %
    if by != "stratified":  # alike, the labels would make a fair judge look poor
        assert np.mean(unaware) < -0.1
