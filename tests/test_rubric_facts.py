"""Rubrics with ``decide: facts``: the judge answers facts, rules derive letter, flaw and flags."""

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest

import qaeval
from qaeval.chat.reply import ReplyError
from qaeval.cli import run as command
from qaeval.errors import UsageError
from qaeval.evals.find import find_rubric
from qaeval.evals.rubric import Rubric, grade_schema, prompt_text, rater_text
from qaeval.registry.find import find_config
from qaeval.run.grade import SAMPLING, Instructions, parse_reply
from qaeval.run.plan import Judging
from qaeval.testing import ScriptedModel, facts_reply, pairs_reply, registered

SHIPPED: Final = find_rubric("qa_pair_facts")
SOUND: Final = {
    "whole": "yes",
    "question_clear": "yes",
    "answerable": "yes",
    "correct": "yes",
    "supported": "yes",
    "refuses": "no",
    "complete": "all",
    "well_worded": "yes",
}


def small(**changes: Any) -> dict[str, Any]:
    """Return a rubric of two facts, of which one has three answers."""

    def example(letter: str, supported: str, complete: str, **verdict: Any) -> dict[str, Any]:
        facts = {"supported": supported, "complete": complete}
        texts = {"chunk": "c", "question": "q", "answer": "a", "reason": "r"}
        return {**texts, "letter": letter, "facts": facts, **verdict}

    return {
        "name": "small",
        "version": 1,
        "title": "Small",
        "task": "Answer.",
        "decide": "facts",
        "scale": [{"letter": letter, "name": letter, "meaning": "m"} for letter in "ABC"],
        "flags": [{"name": "invented", "meaning": "m"}],
        "facts": [
            {"name": "supported", "ask": "Is it?"},
            {"name": "complete", "ask": "Is all there?", "answers": ["all", "most", "no"]},
        ],
        "rules": [
            {"when": {"complete": "no"}, "letter": "C"},
            {"when": {"supported": "no"}, "letter": "C", "flags": ["invented"]},
            {"when": {"supported": "yes", "complete": ["most", "no"]}, "letter": "B"},
        ],
        "examples": [
            example("A", "yes", "all"),
            example("B", "yes", "most"),
            example("C", "no", "no", flags=["invented"]),
        ],
        **changes,
    }


# ------------------------------------------------------------------------------ derivation


@pytest.mark.parametrize(
    ("supported", "complete", "verdict"),
    [
        ("yes", "all", ("A", "", ())),
        ("yes", "most", ("B", "", ())),
        ("yes", "no", ("C", "", ())),
        ("no", "all", ("C", "", ("invented",))),
        ("no", "most", ("C", "", ("invented",))),
        (
            "no",
            "no",
            ("C", "", ("invented",)),
        ),  # an earlier rule gives the letter, the flag is raised all the same
    ],
)
def test_the_first_rule_gives_the_letter_and_every_rule_that_applies_its_flags(
    supported: str, complete: str, verdict: tuple[str, str, tuple[str, ...]]
) -> None:
    rubric = Rubric.model_validate(small())
    assert tuple(rubric.verdict({"supported": supported, "complete": complete})) == verdict


@pytest.mark.parametrize(
    ("changes", "letter", "flaw", "flags"),
    [
        ({}, "A", "", ()),
        ({"complete": "most"}, "B", "omission", ()),
        ({"supported": "implied"}, "B", "unsupported", ()),
        ({"question_clear": "partly"}, "B", "question", ()),
        ({"answerable": "no", "refuses": "yes"}, "B", "question", ()),
        ({"answerable": "no", "refuses": "no"}, "C", "off-question", ()),
        ({"answerable": "yes", "refuses": "yes"}, "C", "omission", ()),
        ({"answerable": "uncompared", "complete": "no"}, "C", "question", ()),
        ({"correct": "figure"}, "C", "wrong", ("hallucination",)),
        ({"correct": "no"}, "C", "wrong", ()),
        ({"question_clear": "no", "supported": "no"}, "C", "question", ("hallucination",)),
        ({"question_clear": "partly", "complete": "no"}, "C", "omission", ()),
        ({"whole": "no", "well_worded": "no"}, "C", "format", ()),
        ({"well_worded": "no"}, "B", "wording", ()),
    ],
)
def test_the_shipped_facts_give_the_letters_of_the_rules_of_qa_pair_abc(
    changes: Mapping[str, str], letter: str, flaw: str, flags: tuple[str, ...]
) -> None:
    assert tuple(SHIPPED.verdict({**SOUND, **changes})) == (letter, flaw, flags)


def test_the_shipped_rubric_of_facts_has_the_scale_flags_flaws_and_examples_of_the_one_of_letters() -> None:
    letters = find_rubric("qa_pair_abc")
    assert SHIPPED.labels_from == (f"{letters.name}/{letters.version}",)
    assert (SHIPPED.letters, SHIPPED.flaw_names) == (letters.letters, letters.flaw_names)
    for own, other in zip(SHIPPED.examples, letters.examples, strict=True):
        assert own.model_dump(exclude={"facts"}) == other.model_dump(exclude={"facts"})


def test_a_flag_always_means_the_worst_letter() -> None:
    for answers in product(*(fact.answers for fact in SHIPPED.facts)):
        letter, _, flags = SHIPPED.verdict(dict(zip(SOUND, answers, strict=True)))
        assert not flags or letter == "C"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"facts": []}, "facts: expected at least one"),
        ({"decide": "letter"}, "facts: expected none"),
        ({"rules": []}, "rules: expected"),
        ({"rules": [{"when": "it is wrong", "letter": "C"}]}, "rules[1].when: expected answers by fact"),
        ({"rules": [{"when": {}, "letter": "C"}]}, "rules[1].when: expected at least one fact"),
        ({"rules": [{"when": {"suported": "no"}, "letter": "C"}]}, "Did you mean 'supported'?"),
        ({"rules": [{"when": {"supported": "maybe"}, "letter": "C"}]}, "expected one of ['yes', 'no']"),
        (
            {"rules": [{"when": {"supported": "no"}, "letter": "D"}]},
            "rules[1].letter: 'D' is not on the scale",
        ),
        (
            {
                "rules": [
                    {"when": {"supported": "no"}, "letter": "C"},
                    {"when": {"supported": "no", "complete": "no"}, "letter": "C"},
                ]
            },
            "rules[2]: never decides",
        ),
        ({"facts": [{"name": "letter", "ask": "?"}]}, "facts: 'letter' is a field"),
        ({"facts": [{"name": "x", "ask": "?", "answers": ["a", "a"]}]}, "facts: x: duplicate answer"),
        ({"labels_from": ["qa_pair_abc"]}, "labels_from"),
        ({"scale": []}, "scale: expected at least 2"),
    ],
)
def test_facts_that_cannot_work_are_refused(changes: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are compared below
        Rubric.model_validate(small(**changes))
    assert words in str(caught.value)


def test_the_letter_of_a_worked_example_has_to_follow_from_its_facts() -> None:
    content = small()
    content["examples"][1]["letter"] = "A"
    with pytest.raises(ValueError, match=r"examples\[2\]: expected \('B'"):
        Rubric.model_validate(content)
    del content["examples"][1]["facts"]["complete"]
    with pytest.raises(ValueError, match=r"examples\[2\]\.facts: expected an answer to each"):
        Rubric.model_validate(content)


# ------------------------------------------------------------------------------ prompt and reply


def test_the_judge_is_asked_for_facts_and_not_told_which_letter_follows() -> None:
    schema = grade_schema(SHIPPED, mode="reason_first")
    assert list(schema["properties"]) == schema["required"] == ["reason", *SOUND]
    assert schema["properties"]["complete"]["enum"] == ["all", "most", "no"]
    prompt = prompt_text(SHIPPED)
    assert "Scale" not in prompt
    assert '"letter"' not in prompt
    assert all(fact.ask in prompt for fact in SHIPPED.facts)
    assert "complete: most → B, flaw omission" in rater_text(SHIPPED)
    instructions = Instructions.of(SHIPPED, SAMPLING, "letter")
    assert "reason" not in instructions.schema["properties"]


def test_a_reply_of_facts_is_read_exactly_and_nothing_is_guessed() -> None:
    reply = parse_reply(facts_reply({**SOUND, "correct": "figure"}), SHIPPED, lenient=False)
    assert (reply.letter, reply.flaw, reply.flags) == ("C", "wrong", ("hallucination",))
    assert reply.facts == {**SOUND, "correct": "figure"}
    for facts in ({**SOUND, "correct": "perhaps"}, {**SOUND, "correct": None}, {"letter": "A"}):
        with pytest.raises(ReplyError) as caught:
            parse_reply(facts_reply(facts), SHIPPED, lenient=True)  # type: ignore[arg-type]
        assert caught.value.reason == "unparseable"
    lenient = {**SOUND, "whole": True, "refuses": False, "complete": " All. "}
    assert parse_reply(json.dumps(lenient), SHIPPED, lenient=True).facts == SOUND
    with pytest.raises(ReplyError):
        parse_reply(json.dumps(lenient), SHIPPED, lenient=False)


def test_facts_that_the_item_contains_are_a_quotation() -> None:
    verdict = facts_reply(SOUND)
    with pytest.raises(ReplyError, match="quotation"):
        parse_reply(f"Here: {verdict}", SHIPPED, lenient=True, shown=(f"The answer is {verdict}",))


def test_the_embedded_judge_is_refused_since_it_gives_letters() -> None:
    judge = find_config(None).judge("embedded-lexical")
    with pytest.raises(UsageError, match="qa_pair_facts"):
        Judging(judge, SHIPPED)


# ------------------------------------------------------------------------------ a run and its agreement


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> qaeval.Run:
    folder = tmp_path_factory.mktemp("facts")
    chunks = folder / "chunks.jsonl"
    chunks.write_text(
        "".join(
            json.dumps({"chunk_id": f"c{n}", "text": f"Valve {n} opens at {n + 2} bar and closes at once."})
            + "\n"
            for n in range(12)
        )
    )

    def write(request: Any) -> str:
        n = request.inputs["chunk"].split()[1]
        types = ("factual", "conceptual", "comparison")
        return pairs_reply(
            [(kind, f"{kind}: when does valve {n} open?", f"At {int(n) + 2} bar.") for kind in types]
        )

    def judge(request: Any) -> str:
        kind = request.inputs["question"].partition(":")[0]
        changes = {"factual": {}, "conceptual": {"complete": "most"}, "comparison": {"supported": "no"}}[kind]
        return facts_reply({**SOUND, **changes})

    with registered("writer", ScriptedModel(write)), registered("judge", ScriptedModel(judge)):
        return qaeval.compare(
            "writer", judge="judge", rubric="qa_pair_facts", chunks=chunks, out=folder / "run", cache=False
        )


def labels_of(run: qaeval.Run, folder: Path, **row: Any) -> Path:
    """Label every item as the judge did, but for the facts of the first chunk's items and what is given."""
    rows = []
    for line in (Path(run.path) / "grades.jsonl").read_text().splitlines():
        grade = json.loads(line)
        facts = {**grade["facts"], "complete": "all"}
        base = {
            "item_id": grade["item_id"],
            "rater": "anna",
            "rater_kind": "human",
            "letter": grade["letter"],
        }
        rows.append({**base, "flags": grade["flags"], "rubric": "qa_pair_abc/3", "facts": facts, **row})
    path = folder / "anna.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_run_stores_the_facts_and_every_view_shows_letter_flaw_and_flags(graded: qaeval.Run) -> None:
    rows = [json.loads(line) for line in (Path(graded.path) / "grades.jsonl").read_text().splitlines()]
    assert {(row["letter"], row.get("flaw", ""), tuple(row["flags"])) for row in rows} == {
        ("A", "", ()),
        ("B", "omission", ()),
        ("C", "unsupported", ("hallucination",)),
    }
    assert all(row["facts"].keys() == SOUND.keys() and "probabilities" not in row for row in rows)
    table = graded.letters
    assert set(table["fact supported"]) == {"yes", "no"}
    assert graded.items["reason"].str.contains("supported: no").sum() == 12
    (candidate,) = graded.report.candidates
    assert candidate.usable.value == pytest.approx(1 / 3)


@pytest.mark.slow
def test_each_fact_has_an_agreement_of_its_own_where_labels_carry_facts(
    graded: qaeval.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = labels_of(graded, tmp_path)
    report = qaeval.agreement(graded.path, [path])
    (rater,) = report.agreement
    assert (rater.n_other_rubric, rater.coefficients and rater.coefficients.observed.value) == (0, 1.0)
    facts = {fact.fact: fact for fact in rater.facts}
    assert [*facts] == [*SOUND]
    complete = facts["complete"]
    assert complete.n == 36
    assert complete.confusion == ((24, 12, 0), (0, 0, 0), (0, 0, 0))
    assert complete.observed.value == pytest.approx(24 / 36)
    assert complete.kappa.value == pytest.approx(0.0)
    assert facts["supported"].kappa.value == pytest.approx(1.0)
    assert command(["agreement", str(graded.path), "--labels", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "Agreement on facts" in printed
    assert "all → most (12)" in printed


@pytest.mark.slow
def test_labels_without_facts_have_none_and_answers_that_do_not_exist_are_refused(
    graded: qaeval.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (rater,) = qaeval.agreement(graded.path, [labels_of(graded, tmp_path, facts={})]).agreement
    assert rater.facts == ()
    path = labels_of(graded, tmp_path, facts={"complete": "mostly"})
    assert command(["agreement", str(graded.path), "--labels", str(path)]) == 65
    assert "mostly" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sheet_has_a_column_for_each_fact_and_its_answers_are_read(
    graded: qaeval.Run, tmp_path: Path
) -> None:
    assert (
        command(["export", str(graded.path), "--to", "labels", "--n", "6", "--out", str(tmp_path / "sheet")])
        == 0
    )
    (sheet,) = (tmp_path / "sheet").glob("*.csv")
    header = sheet.read_text().partition("\n")[0]
    assert "fact supported" in header
    items = sorted(set(graded.letters["item_id"]))[:6]
    filled = tmp_path / "ben.csv"
    filled.write_text(
        "item_id,label,fact supported\n"
        + "".join(f"{item},A,{'yes' if n else ''}\n" for n, item in enumerate(items))
    )
    (rater,) = qaeval.agreement(graded.path, [filled]).agreement
    assert [(fact.fact, fact.n) for fact in rater.facts] == [("supported", 5)]
