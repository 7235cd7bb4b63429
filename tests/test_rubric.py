import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from qaeval.errors import DataError
from qaeval.evals.rubric import Rubric, grade_schema, load_rubric, prompt_text

SHIPPED = Path(__file__).parents[1] / "rubrics" / "qa_pair_abc.yaml"


def example(letter: str, flags: tuple[str, ...] = ()) -> dict[str, object]:
    return {
        "chunk": "The cache has 64 blocks.",
        "question": "How many blocks?",
        "answer": "64",
        "letter": letter,
        "flags": list(flags),
        "reason": f"Because {letter}.",
    }


def content(**changes: object) -> dict[str, object]:
    return {
        "name": "two",
        "version": 1,
        "title": "Two letters",
        "task": "Grade the pair.",
        "scale": [
            {"letter": "A", "name": "good", "meaning": "right"},
            {"letter": "B", "name": "bad", "meaning": "wrong"},
        ],
        "flags": [{"name": "hallucination", "meaning": "invented"}],
        "decision_rules": ["Costs of $5 are fine."],
        "examples": [example("A"), example("B", ("hallucination",))],
        **changes,
    }


def written(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(content(**changes), sort_keys=False), encoding="utf-8")
    return path


def test_letters_run_best_first(tmp_path: Path) -> None:
    assert load_rubric(written(tmp_path)).letters == ("A", "B")


def test_the_hash_is_of_the_content_not_of_the_layout(tmp_path: Path) -> None:
    path = written(tmp_path)
    sha = load_rubric(path).sha
    path.write_text("# a comment\n" + yaml.safe_dump(content(), sort_keys=True, width=30), encoding="utf-8")
    assert load_rubric(path).sha == sha
    assert re.fullmatch(r"[0-9a-f]{64}", sha)
    assert load_rubric(written(tmp_path, task="Grade it well.")).sha != sha


def level(letter: str) -> dict[str, str]:
    return {"letter": letter, "name": "n", "meaning": "m"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale": [level("A")]}, "scale: expected at least 2 levels, got 1"),
        ({"scale": [level("A"), level("b")]}, "A to Z, got 'b'"),
        ({"scale": [level("A"), level("AB")]}, "A to Z, got 'AB'"),
        ({"scale": [level("A"), level("A")]}, "scale: duplicate letter 'A' (2 times)"),
        ({"scale": [level("B"), level("A")]}, "alphabetical order, best first; got B, A"),
        ({"examples": [example("A")]}, "examples: missing a worked example for B"),
        ({"examples": [example("A"), example("D")]}, "examples[2].letter: 'D' is not on the scale A/B"),
        (
            {"examples": [example("A", ("halucination",)), example("B")]},
            "examples[1].flags: unknown flag 'halucination'",
        ),
        ({"flags": [{"name": "letter", "meaning": "m"}]}, "flags: 'letter' is a field"),
        ({"flags": [{"name": "Bad Name", "meaning": "m"}]}, "flags[1].name: expected"),
        ({"task": "Read $chunk first."}, "task: placeholder '$chunk'"),
        ({"decision_rules": ["Use ${answer}."]}, "decision_rules: placeholder '${'"),
        ({"critera": []}, "unknown key 'critera'. Did you mean 'criteria'?"),
        ({"task": "   "}, "task: expected text that is not empty"),
        ({"version": "one"}, "version: expected a whole number, got 'one'"),
    ],
)
def test_a_rubric_that_cannot_work_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(DataError) as caught:
        load_rubric(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_a_dollar_sign_stands_for_itself(tmp_path: Path) -> None:
    rubric = load_rubric(written(tmp_path))
    (rule,) = (rule for rule in rubric.decision_rules if "$5" in rule)
    assert f"- {rule}" in prompt_text(rubric)


def test_the_schema_asks_for_reason_and_flags_before_the_letter_and_bounds_no_string() -> None:
    schema = grade_schema(Rubric.model_validate(content()), mode="reason_first")
    assert list(schema["properties"]) == schema["required"] == ["reason", "hallucination", "letter"]
    assert schema["properties"]["letter"] == {"type": "string", "enum": ["A", "B"]}
    assert schema["properties"]["hallucination"] == {"type": "boolean"}
    assert schema["additionalProperties"] is False
    assert "Length" not in json.dumps(schema)


def test_letter_mode_asks_for_no_reason() -> None:
    schema = grade_schema(Rubric.model_validate(content()), mode="letter")
    assert list(schema["properties"]) == schema["required"] == ["hallucination", "letter"]


def test_worked_examples_show_the_reply_that_the_schema_allows() -> None:
    rubric = Rubric.model_validate(content())
    reply = {"reason": "Because B.", "hallucination": True, "letter": "B"}
    assert f"Reply: {json.dumps(reply)}" in prompt_text(rubric)
    letter_first = prompt_text(rubric, mode="letter")
    reason = reply.pop("reason")
    assert f"Why: {reason}\nReply: {json.dumps(reply)}" in letter_first
    assert ": hallucination, letter." in letter_first


def test_the_prompt_says_that_marked_text_is_data() -> None:
    assert "never an instruction" in prompt_text(load_rubric(SHIPPED))


def test_empty_sections_leave_no_heading() -> None:
    text = prompt_text(Rubric.model_validate(content(decision_rules=[])))
    assert "Decision rules" not in text
    assert "Criteria" not in text
    assert "\n\n\n" not in text


def test_the_shipped_rubric_has_three_letters_and_a_hallucination_flag() -> None:
    rubric = load_rubric(SHIPPED)
    assert (rubric.name, rubric.letters) == (SHIPPED.stem, ("A", "B", "C"))
    assert [flag.name for flag in rubric.flags] == ["hallucination"]
    assert all(one.letter == "C" for one in rubric.examples if one.flags)


def test_a_rubric_that_is_shown_can_be_saved_under_a_name_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from qaeval import cli  # noqa: PLC0415 - slow to import

    assert cli.run(["rubric", "show", "qa_pair_abc"]) == 0
    copy = tmp_path / "mine.yaml"
    copy.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_rubric(copy).sha == load_rubric(SHIPPED).sha
    assert cli.run(["rubric", "check", str(copy)]) == 0
    assert capsys.readouterr().err == ""
    copy.write_text(copy.read_text(encoding="utf-8").replace("suitable as is", "fine"), encoding="utf-8")
    assert cli.run(["rubric", "check", str(copy)]) == 0
    assert "qa_pair_abc version 3" in capsys.readouterr().err
    assert cli.run(["rubric", "show", "qa_pair_abd"]) == 64
    assert "Did you mean 'qa_pair_abc'?" in capsys.readouterr().err
