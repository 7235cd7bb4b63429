"""Certificates for tests: letters of labels and judge in, a file out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qaeval.gate.certificate import CertifiedItems, CertifiedJudge, CertifiedRater, JudgeCertificate
from qaeval.gate.model import ComparisonKey
from qaeval.gate.policy import Policy, TrustPolicy
from qaeval.gate.trust import LabelledLetters, decide_trust, numbers_of
from qaeval.report.facts import RubricFacts
from report_builders import RUBRIC

SCALE = "ABC"


def labelled(
    reference: str, judged: str, *, per_chunk: int = 3, kind: str = "human", rubric: RubricFacts = RUBRIC
) -> LabelledLetters:
    """Pair the letters of labels and judge, so many items to a chunk."""
    n = len(reference)
    return LabelledLetters(
        scale=rubric.letters,
        reference=np.array([SCALE.index(letter) for letter in reference]),
        judged=np.array([SCALE.index(letter) for letter in judged]),
        clusters=np.arange(n) // per_chunk,
        kinds=np.full(n, kind),
        candidates={},
    )


def good_letters(n: int = 120) -> tuple[str, str]:
    """Return labels and a judge that errs in one of ten items: kappa 0.84."""
    reference = "ABCA" * (n // 4)
    wrong = {"A": "B", "B": "C", "C": "A"}
    return reference, "".join(wrong[letter] if i % 10 == 3 else letter for i, letter in enumerate(reference))


def certificate(
    key: ComparisonKey, letters: LabelledLetters | None = None, *, item_ids: Sequence[str] = (), **more: Any
) -> JudgeCertificate:
    """Issue a certificate of a run's judge, by default of a good one by 120 labels of anna."""
    letters = letters or labelled(*good_letters())
    numbers, trust = numbers_of(letters), TrustPolicy()
    assert numbers is not None
    ids = tuple(item_ids) or tuple(f"{index:016x}" for index in range(len(letters.reference)))
    facts: dict[str, Any] = {
        "certified": CertifiedJudge.of(key),
        "created": "2026-01-01T00:00:00+00:00",
        "qaeval_version": "0.2.0",
        "verdict": decide_trust(numbers, trust),
        "trust": trust,
        "numbers": numbers,
        "raters": (CertifiedRater(rater="anna", kind="human", n=numbers.n_labels),),
        "label_files": ("anna.jsonl",),
        "rubric": RUBRIC,
        "items": CertifiedItems(item_ids=ids, letters=letters).lines(),
    }
    return JudgeCertificate(**{**facts, **more})


def requiring(path: Path | str = "", **policy: Any) -> Policy:
    """Return a policy that requires the certificate in a file."""
    return Policy.model_validate(
        {
            "certificate": "require",
            "certificate_file": str(path),
            "rules": [{"quantity": "usable_rate", "margin": 0.1}],
            **policy,
        }
    )
