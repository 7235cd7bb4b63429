"""How often is the verdict of an audit right? Plants judges with known weaknesses, and counts.

Run ``python benchmarks/audit.py --reps 100``. The items are those of an audit of `rag_qa`, the letters are drawn: a judge
finds each defect with a fixed probability, lowers a harmless item with another, gives another letter than before with a
third, and gives in to an injection with a fourth. The items of a chunk share a part of their luck. Nothing is asked and
nothing is written.
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from qaeval.audit.analysis import AuditFacts, analyse_audit
from qaeval.audit.model import Audit, AuditRequest
from qaeval.audit.run import AuditPlan, make_audit_plan
from qaeval.records import AuditItem, Grade
from qaeval.registry.find import find_config
from qaeval.text.defects import DEFECTS


@dataclass(frozen=True)
class Planted:
    """A judge with known weaknesses, all of them probabilities."""

    name: str
    detects: float = 0.95
    false_alarm: float = 0.03
    other_letter: float = 0.02
    """Of an item that is asked about again."""
    obeys: float = 0.0
    blind_to: str = ""
    """A kind of defect of which it finds a tenth."""
    drift: float = 0.0
    """Share of defective items that get the best letter at the end."""


GOOD = Planted("good")
JUDGES = (
    GOOD,
    replace(GOOD, name="good, detects 90 %", detects=0.9),
    replace(GOOD, name="at the limit, detects 80 %", detects=0.8),
    replace(GOOD, name="weak, detects 60 %", detects=0.6),
    replace(GOOD, name="noisy, 10 % other letters", other_letter=0.1),
    replace(GOOD, name="very noisy, 40 % other letters", other_letter=0.4),
    replace(GOOD, name="obeys a third of the attacks", obeys=1 / 3),
    replace(GOOD, name="blind to numbers", blind_to="number"),
    replace(GOOD, name="drifts on 40 % of the defects", drift=0.4),
    replace(GOOD, name="harsh, 40 % false alarms", false_alarm=0.4),
)


def graded(plan: AuditPlan, judge: Planted, rng: random.Random) -> Iterator[AuditItem]:
    """Yield the items of an audit with letters drawn."""
    luck: dict[str, float] = {}
    first: dict[tuple[str, str], str] = {}
    for row in plan.rows:
        key = (row.base, row.kind)
        if key not in first:
            # half of an item's luck is its chunk's
            shared = luck.setdefault(row.sample_id, rng.random())
            draw = shared if rng.random() < 0.5 else rng.random()
            detects = 0.1 if row.kind == judge.blind_to else judge.detects
            low = draw < (detects if row.kind in DEFECTS else judge.false_alarm)
            first[key] = letter = "C" if low else "A"
        else:
            letter = first[key]
            changes = rng.random() < judge.other_letter
            if row.kind in DEFECTS and row.probe == "injection":
                changes |= letter == "C" and rng.random() < judge.obeys
            if row.kind in DEFECTS and row.probe == "drift":
                changes |= letter == "C" and rng.random() < judge.drift
            letter = letter if not changes else "A" if letter == "C" else "C"
        grade = Grade(
            task_id=row.task_id, judge=judge.name, rubric_sha="", item_id=row.item.item_id, letter=letter, text="", latency_s=0
        )  # fmt: skip
        yield row.model_copy(update={"grade": grade})


def audited(plan: AuditPlan, judge: Planted, rng: random.Random) -> Audit:
    """Analyse an audit with letters drawn."""
    request = AuditRequest(
        eval="rag_qa", eval_digest="", judge=judge.name, judge_digest="", rubric="", rubric_digest="", seed=0, temperature=0
    )  # fmt: skip
    facts = AuditFacts(
        request=request,
        letters=("A", "B", "C"),
        has_flags=False,
        grades_pairs=False,
        good_sources={},
        raters=(),
        related={},
        not_applied={"self-preference": "no run", "temperature 0": "0", "translated rubric": "none"},
        check=None,
        created="",
        qaeval_version="",
        git_commit="",
    )
    return analyse_audit([*graded(plan, judge, rng)], plan.samples, facts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the shares of the verdicts, and what fails most."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reps", type=int, default=100, help="audits of each judge")
    parser.add_argument("--n", type=int, default=40, help="good items")
    options = parser.parse_args(arguments)
    plan = make_audit_plan(find_config(None), "selene", eval_name="rag_qa", n=options.n)
    started = time.perf_counter()
    print(f"{len(plan.rows):,} requests, {options.reps} audits of each judge")
    print(f"{'judge':34}{'trusted so far':>16}{'not trusted':>13}{'not enough':>12}  fails most")
    for judge in JUDGES:
        rng = random.Random(f"audit {judge.name}")  # noqa: S311 - a simulation
        verdicts: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for _ in range(options.reps):
            audit = audited(plan, judge, rng)
            verdicts[audit.verdict] += 1
            failed.update(audit.failed())
        shares = [
            f"{100 * verdicts[name] / options.reps:.0f} %"
            for name in ("trusted so far", "not trusted", "not enough data")
        ]
        most = ", ".join(f"{name} {100 * n / options.reps:.0f} %" for name, n in failed.most_common(3))
        print(f"{judge.name:34}{shares[0]:>16}{shares[1]:>13}{shares[2]:>12}  {most or '-'}")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
