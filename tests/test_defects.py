"""Planted defects and harmless variants: what each rule changes, and where it makes no change."""

import json
from collections import Counter
from pathlib import Path

import pytest

from qaeval.text.defects import DEFECTS, HARMLESS, VARIANTS, Pair, VariantKind, variant, variants
from qaeval.text.units import number_values

ROOT = Path(__file__).parents[1]

PUMP = (
    "The pump P7 starts at 3 bar and stops after 40 minutes, unless the valve is open. It was introduced in March 2019. The "
    "controller writes its log to /var/log/pump.log. The tank usually holds at most 200 litres, and the alarm is not silent. "
    "Pressure is higher before the filter than behind it. Operators check seals, hoses and valves. The option MAX_BAR sets the limit. Fällig 3. März 2019, Halter eines Hundes, keine Raten."
)
PUMP_GERMAN = (
    "Die Pumpe P7 startet bei 3 bar und stoppt nach 40 Minuten, wenn das Ventil geschlossen ist. Sie wurde im März 2019 eingeführt. "
    "Der Behälter fasst höchstens 200 Liter, und der Alarm ist nicht stumm. Der Druck ist vor dem Filter höher als dahinter. Die "
    "Wartung ist in 14 Tagen fällig."
)
KITE = "A kite flies because the wind presses against its tilted sail. The string transfers the force to the hand that holds it."
KITE_GERMAN = "Ein Drachen fliegt, weil der Wind gegen das geneigte Segel drückt. Die Schnur überträgt die Kraft auf die Hand."


def make_pair(question: str, answer: str, source: str = PUMP, *, declines: bool = False) -> Pair:
    return Pair(source=source, question=question, answer=answer, declines=declines)


OTHER = make_pair(
    "Why does a kite fly in strong wind?",
    "A kite flies because the wind presses against its tilted sail.",
    source=KITE,
)
OTHER_GERMAN = make_pair(
    "Warum fliegt ein Drachen?", "Weil der Wind gegen das geneigte Segel drückt.", source=KITE_GERMAN
)
SEALS = make_pair("What do operators check?", "Operators check seals, hoses and valves.")


def changed_answer(kind: VariantKind, question: str, answer: str, source: str = PUMP) -> str | None:
    """Return the changed answer, or None where the rule makes no change."""
    result = variant(kind, make_pair(question, answer, source), seed=1, others=(SEALS, OTHER, OTHER_GERMAN))
    return result and result.answer


@pytest.mark.parametrize(
    ("kind", "question", "answer", "expected"),
    [
        ("date", "When was it introduced?", "It was introduced in March 2019.", {"2016", "2017", "2021", "2022", "June", "August", "October"}),
        ("unit", "When does it stop?", "It stops after 40 minutes.", {"40 hours", "40 seconds"}),
        ("negation", "What of the alarm?", "The alarm is not silent.", {"The alarm is silent."}),
        ("negation", "Where is it higher?", "Pressure is higher before the filter.", {"Pressure is not higher"}),
        ("negation", "Is the alarm silent?", "No, the alarm is not silent.", {"Yes, the alarm is silent."}),
        ("contradiction", "Where is it higher?", "It is higher before the filter.", {"lower before", "higher after"}),
        ("qualifier", "How much does the tank hold?", "It usually holds 200 litres.", {"It holds 200 litres."}),
        ("qualifier", "How much does the tank hold?", "The tank holds at most 200 litres.", {"holds exactly 200 litres."}),
        ("qualifier", "What does the pump do?", "It stops after 40 minutes, unless the valve is open.", {"It stops after 40 minutes."}),
        ("omission", "What do operators check?", "Operators check seals, hoses and valves.", {"Operators check seals and hoses."}),
        ("omission", "Is the alarm silent, and why?", "No, because the alarm is not silent near the filter.", {"No."}),
        ("name", "What sets the limit?", "The option MAX_BAR sets it.", {"The option norvane", "The option kelmar", "The option tessaro", "The option ulvik", "The option brenholt", "The option quenby", "The option marlock", "The option dravik"}),
        ("copied question", "Where is it higher?", "Before the filter.", {"Where is it higher?"}),
        ("placeholder", "Where is it higher?", "Before the filter.", {"…"}),
        ("foreign answer", "Where is it higher?", "Before the filter.", {OTHER.answer}),
        ("other question", "Where is it higher?", "Before the filter.", {SEALS.answer}),
        ("formatting", "Where is it higher?", "Before the filter.", {"**Before the filter.**"}),
        ("paraphrase", "What of the alarm?", "The alarm is not silent.", {"The alarm isn't silent."}),
        ("reordering", "What do they check?", "The tank is full; operators are away.", {"Operators are away; the tank is full."}),
    ],
)  # fmt: skip
def test_changes_of_english_pairs(kind: VariantKind, question: str, answer: str, expected: set[str]) -> None:
    result = str(changed_answer(kind, question, answer))

    assert any(excerpt in result for excerpt in expected), result
    assert result != answer


@pytest.mark.parametrize(
    ("kind", "question", "answer", "expected"),
    [
        ("date", "Wann wurde sie eingeführt?", "Sie wurde im März 2019 eingeführt.", {"201", "202", "Juli", "September", "November"}),
        ("unit", "Wann stoppt sie?", "Die Pumpe stoppt nach 40 Minuten.", {"40 Stunden", "40 Sekunden"}),
        ("negation", "Was gilt für den Alarm?", "Der Alarm ist nicht stumm.", {"Der Alarm ist stumm."}),
        ("negation", "Wann ist die Wartung fällig?", "Die Wartung ist in 14 Tagen fällig.", {"ist nicht in 14 Tagen"}),
        ("contradiction", "Wo ist er höher?", "Der Druck ist vor dem Filter höher als dahinter.", {"niedriger als dahinter"}),
        ("qualifier", "Was fasst der Behälter?", "Der Behälter fasst höchstens 200 Liter.", {"fasst genau 200 Liter."}),
        ("qualifier", "Was tut sie?", "Sie stoppt nach 40 Minuten, wenn das Ventil geschlossen ist.", {"Sie stoppt nach 40 Minuten."}),
        ("implication", "Was fasst der Behälter?", "Der Behälter fasst höchstens 200 Liter.", {"Das ", "Daraus", "Aus diesem"}),
        ("vague question", "Was fasst der Behälter?", "Der Behälter fasst höchstens 200 Liter.", {"Der Behälter"}),
    ],
)  # fmt: skip
def test_changes_of_german_pairs(kind: VariantKind, question: str, answer: str, expected: set[str]) -> None:
    result = variant(kind, make_pair(question, answer, PUMP_GERMAN), seed=1)

    assert result is not None
    assert any(excerpt in result.answer for excerpt in expected), result.answer
    assert (result.question, result.answer) != (question, answer)


@pytest.mark.parametrize(
    ("kind", "question", "answer"),
    [
        ("number", "Where is it higher?", "Before the filter."),  # no number
        ("number", "When does it stop?", "After 55 minutes."),  # not in the text
        ("number", "How much does the tank hold?", "At most 200 litres."),  # a lower bound is true as well
        ("number", "What does 40 mean?", "It stops after 40 minutes."),  # given in the question
        ("number", "How many in all?", "3 + 40 = 43 of them."),  # the calculation would show the error
        ("date", "When does it stop?", "After 40 minutes."),
        ("unit", "After how many minutes does it stop?", "After 40 minutes."),  # given in the question
        ("unit", "How much?", "200 litres."),
        ("name", "Where does P7 start?", "P7 starts at 3 bar."),
        ("negation", "Is it silent?", "The alarm is not silent and never off."),  # two negations
        ("negation", "Where?", "Before the filter."),  # no verb
        ("contradiction", "What?", "Operators check seals."),
        ("qualifier", "What if the valve is closed?", "It stops after 40 minutes, unless the valve is open."),
        ("omission", "What do operators do?", "Operators check seals."),
        ("reordering", "In which order?", "Operators check seals; the controller writes a log."),
        ("reordering", "What?", "The tank is full; it is silent."),  # `it` refers to the tank
        ("paraphrase", "Where?", "Before the filter."),
        ("copied question", "Name the parts.", "Seals."),
        ("number", "What holds?", "§ 3 holds for the pump."),  # the number of a section
        ("number", "What holds?", "(3) The pump is full."),
        ("number", "Was gilt?", "Fällig ist sie am 3. März."),  # a day of a month
        ("number", "Since when?", "It exists since the end of 2019."),  # a year
        ("name", "Wer haftet?", "Der Halter eines Hundes."),  # every noun of German has a capital
        ("negation", "Was gilt?", "Zu zahlen sind keine Raten."),  # `eine Raten` would be an obvious error
        ("qualifier", "What?", "It stops only if the valve is open."),  # `only` would refer to nothing
        ("omission", "What do they do?", "At 3 bar, the tank fills and operators check seals."),  # not a list
        (
            "reordering",
            "Was ist weg?",
            "Seals, hoses in the pump and valves.",
        ),  # `in the pump` is of the hoses
    ],
)
def test_no_change_where_the_expected_letter_is_uncertain(
    kind: VariantKind, question: str, answer: str
) -> None:
    assert changed_answer(kind, question, answer) is None


def test_replacement_number_does_not_occur_in_the_text() -> None:
    numbers = set()
    for seed in range(20):
        result = variant("number", make_pair("When does it stop?", "It stops after 40 minutes."), seed=seed)
        assert result is not None
        numbers |= number_values(result.answer)

    assert len(numbers) > 1  # the seed determines the number
    assert not numbers & number_values(PUMP)


def test_refusal_gets_only_defects_of_refusals() -> None:
    refusal = make_pair("Who built it?", "The text does not say.", declines=True)

    kinds = {
        variant_of_refusal.kind for variant_of_refusal in variants(refusal, seed=0, others=(SEALS, OTHER))
    }

    assert kinds == {"foreign answer", "unanswerable", "placeholder", "honest refusal"}


def test_answer_supported_by_the_source_is_not_foreign() -> None:
    same_topic = make_pair(
        "Why does a kite fly in strong wind?", OTHER.answer, source=f"{KITE} Kites are old."
    )

    assert variant("foreign answer", same_topic, seed=0, others=(OTHER,)) is None


def shipped_pairs() -> list[Pair]:
    folder = ROOT / "evals"
    lines = (folder / "qa_pairs" / "chunks.jsonl").read_text(encoding="utf-8").splitlines()
    chunks = {row["chunk_id"]: row["text"] for row in map(json.loads, lines)}
    samples = (folder / "rag_qa" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, samples) if row["type"] == "answerable"]
    return [make_pair(row["question"], row["expected"], chunks[row["chunk_id"]]) for row in rows]


def test_all_kinds_apply_to_shipped_pairs_deterministically() -> None:
    pairs = shipped_pairs()

    first = [result for shipped in pairs for result in variants(shipped, seed=3, others=pairs)]
    second = [result for shipped in pairs for result in variants(shipped, seed=3, others=pairs)]

    assert first == second
    counts = Counter(result.kind for result in first)
    assert {*DEFECTS, *HARMLESS} - {"date"} <= counts.keys()  # the corpus has nearly no dates
    assert all(VARIANTS[result.kind].flaw == result.flaw for result in first)
    assert all((result.verdict in {"worst", "not best"}) is (result.kind in DEFECTS) for result in first)
