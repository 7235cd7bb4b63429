import json
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import TypeAlias

import pytest

from qaeval.errors import DataError
from qaeval.evals.definition import EvalDefinition, item_schema, load_eval
from qaeval.evals.rubric import load_rubric

Folder: TypeAlias = Callable[..., Path]

ROOT = Path(__file__).parents[1]

EVAL = "name: mine\ntitle: Mine\nrubric: qa_pair_abc\n"
PROMPT = "# system\n\nBe brief.\n\n# user\n\nAsk about $chunk ($title).\n"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    def folder(text: str = EVAL, prompt: str = PROMPT) -> Path:
        (tmp_path / "eval.yaml").write_text(text)
        (tmp_path / "prompt.md").write_text(prompt)
        return tmp_path

    return folder


def test_a_definition_fills_in_defaults_and_reads_the_prompt(folder: Folder) -> None:
    definition = load_eval(folder())
    assert (definition.items_per_sample, definition.item_kind) == (3, "qa_pair")
    assert definition.item_types == ("factual", "conceptual", "comparison")
    assert definition.prompt.system == "Be brief."
    assert definition.prompt.user == "Ask about $chunk ($title)."
    assert definition.sampling.model_dump() == {
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 1024,
        "seed": 0,
    }


def test_paths_are_no_part_of_the_identity(folder: Folder, tmp_path: Path) -> None:
    before = load_eval(folder())
    assert before.chunks_path == tmp_path / "chunks.jsonl"
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "eva.jsonl").touch()
    (tmp_path / "labels" / "ada.jsonl").touch()
    after = load_eval(tmp_path)
    assert [path.name for path in after.label_paths] == ["ada.jsonl", "eva.jsonl"]
    assert after.digest == before.digest
    assert str(tmp_path) not in after.model_dump_json()


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        (EVAL + "items_per_sample: 2\n", PROMPT),
        (EVAL + "sampling: {temperature: 0.7}\n", PROMPT),
        (EVAL, PROMPT.replace("brief", "thorough")),
        (EVAL, PROMPT.replace("Ask", "Write")),
    ],
)
def test_whatever_a_reply_depends_on_changes_the_digest(folder: Folder, text: str, prompt: str) -> None:
    before = load_eval(folder()).digest
    assert load_eval(folder(text, prompt)).digest != before


def test_windows_line_ends_do_not_change_the_digest(folder: Folder, tmp_path: Path) -> None:
    before = load_eval(folder()).digest
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_eval(tmp_path).digest == before


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (
            "# user\nAsk about $chnk.\n",
            "user: unknown placeholder $chnk; known: $chunk, $title, $language. Did you mean 'chunk'?",
        ),
        ("# system\n$question\n# user\n$chunk\n", "system: unknown placeholder $question"),
        ("# user\nAsk about something.\n", "user: missing $chunk"),
        ("# system\n$chunk\n# user\nAsk.\n", "user: missing $chunk"),
        ("# user\n$chunk costs $5.\n", "write $$"),
        ("Ask about $chunk.\n", "expected a section '# user'"),
        ("Hello\n# user\n$chunk\n", "expected a section '# user'"),
        ("# system\n$chunk\n", "expected a section '# user'"),
        ("# user\n$chunk\n# user\n$chunk\n", "duplicate section"),
    ],
)
def test_a_prompt_that_cannot_work_is_refused(folder: Folder, prompt: str, words: str) -> None:
    path = folder(prompt=prompt)
    with pytest.raises(DataError) as caught:
        load_eval(path)
    assert str(caught.value).startswith(f"{path / 'prompt.md'}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (EVAL + "item_type: [factual]\n", "unknown key 'item_type'. Did you mean 'item_types'?"),
        (EVAL + "items_per_sample: 0\n", "items_per_sample: expected greater than or equal to 1, got 0"),
        (EVAL + "item_types: [a, a]\n", "item_types: duplicate type in a, a"),
        (EVAL + "item_types: []\n", "item_types: expected"),
        (
            EVAL + "item_kind: anser\n",
            "got 'anser'. Did you mean 'answer'?",
        ),
        (
            EVAL + "item_kind: preference_pair\n",
            "items_per_sample: expected 1 for preference_pair, got 3",
        ),
        (
            EVAL + "item_kind: preference_pair\nitems_per_sample: 1\n",
            "samples: an eval of kind preference_pair",
        ),
        (EVAL + "form: {name: ticket, fields: {a: [b]}}\n", "form: only evals of kind answer"),
        (EVAL + "checks: new_numbers\n", "checks: expected a list, got 'new_numbers'"),
        (EVAL + "checks: [{words: 3}]\n", "checks: expected a name or"),
        (EVAL + "checks: [new_number]\n", "unknown check 'new_number'. Did you mean 'new_numbers'?"),
        (EVAL + "checks: [answer_length: {mosts: 3}]\n", "unknown option 'mosts'. Did you mean 'most'?"),
        (EVAL + "checks: [new_numbers: {types: [factul]}]\n", "unknown type 'factul'"),
        (EVAL + "checks: [language, language]\n", "duplicate check in language, language"),
        (EVAL + "prompt: [a]\n", "prompt: expected a file name, got ['a']"),
        (EVAL + "label_paths: [a]\n", "unknown key 'label_paths'"),
        (EVAL + "sampling: {max_token: 5}\n", "unknown key 'sampling.max_token'. Did you mean 'max_tokens'?"),
        ("name: mine\ntitle: Mine\n", "missing key 'rubric'"),
    ],
)
def test_an_eval_that_cannot_work_is_refused(folder: Folder, text: str, words: str) -> None:
    path = folder(text)
    with pytest.raises(DataError) as caught:
        load_eval(path)
    assert str(caught.value).startswith(f"{path / 'eval.yaml'}: ")
    assert words in str(caught.value)


def test_all_problems_of_eval_and_prompt_are_reported_at_once(folder: Folder) -> None:
    path = folder(
        text="name: Bad Name\nrubric: r\ntitle: t\nitems_per_sample: 0\nchecks: [3, nosuch]\n", prompt="x"
    )
    with pytest.raises(DataError) as caught:
        load_eval(path)
    lines = str(caught.value).split("\n")
    assert [line.split(":")[0].strip() for line in lines[1:4]] == ["checks", "name", "items_per_sample"]
    assert lines[4].startswith(f"{path / 'prompt.md'}: ")


def test_a_folder_without_eval_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"eval\.yaml: no such file"):
        load_eval(tmp_path)


def test_the_schema_asks_for_exactly_the_items_and_bounds_no_string(folder: Folder) -> None:
    schema = item_schema(load_eval(folder(EVAL + "items_per_sample: 2\nitem_types: [x, y]\n")))
    pairs = schema["properties"]["pairs"]
    assert (pairs["minItems"], pairs["maxItems"]) == (2, 2)
    assert pairs["items"]["properties"]["type"] == {"type": "string", "enum": ["x", "y"]}
    assert pairs["items"]["required"] == ["type", "question", "answer"]
    assert schema["additionalProperties"] is pairs["items"]["additionalProperties"] is False
    assert "Length" not in json.dumps(schema)


@pytest.fixture(scope="module")
def shipped() -> EvalDefinition:
    return load_eval(ROOT / "evals" / "qa_pairs")


def test_the_shipped_eval_names_a_rubric_that_exists(shipped: EvalDefinition) -> None:
    assert shipped.name == "qa_pairs"
    assert load_rubric(ROOT / "rubrics" / f"{shipped.rubric}.yaml").name == shipped.rubric


def test_the_shipped_prompt_names_every_type_and_every_key_of_a_reply(shipped: EvalDefinition) -> None:
    chunk = "The chunk {with} $braces."
    filled = Template(shipped.prompt.user).substitute(chunk=chunk, title="T", language="English")
    assert f"<source>\n{chunk}\n</source>" in filled
    keys = ("pairs", "type", "question", "answer")
    assert all(f'"{name}"' in filled for name in (*keys, *shipped.item_types))


def test_the_name_of_a_file_is_not_empty_and_may_be_one_character(folder: Folder) -> None:
    assert load_eval(folder(EVAL + "chunks: c\n")).chunks == "c"
    with pytest.raises(DataError, match="chunks"):
        load_eval(folder(EVAL + 'chunks: ""\n'))
