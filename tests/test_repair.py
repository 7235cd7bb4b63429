"""`qaeval repair`: a damaged run is completed by the same command, and nothing else of it changes."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from command import qaeval

COMPARE = ("compare", "embedded-lead", "embedded-salient", "--n", 12, "--seed", 7, "--out", "run")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    assert qaeval(*COMPARE, cwd=folder).returncode == 0
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def damage(path: Path, line: int, text: bytes) -> str:
    lines = path.read_bytes().splitlines(keepends=True)
    former, lines[line - 1] = lines[line - 1].decode(), text + b"\n"
    path.write_bytes(b"".join(lines))
    return former


def letters(run: Path) -> set[tuple[object, object]]:
    return {(row["item_id"], row["letter"]) for row in rows(run / "grades.jsonl")}


@pytest.mark.slow
def test_a_damaged_reply_and_its_letters_are_moved_aside_and_the_same_command_completes_the_run(
    run: Path,
) -> None:
    before = letters(run)
    reply = json.loads(damage(run / "generations.jsonl", 3, b'{"kind": "generation", \xff'))
    items = {item["item_id"] for item in reply["items"]}
    broken = qaeval("report", "run", cwd=run.parent)
    assert broken.returncode == 65
    assert "qaeval repair run" in broken.stderr
    done = qaeval("repair", "run", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    rejected = rows(run / "rejected.jsonl")
    assert next((row["file"], row["line"]) for row in rejected) == ("generations.jsonl", 3)
    assert {
        json.loads(str(row["text"]))["item_id"] for row in rejected if row["file"] == "grades.jsonl"
    } == items
    assert not (run / "manifest.json").exists()
    resumed = qaeval(*COMPARE, "--resume", cwd=run.parent)
    assert resumed.returncode == 0, resumed.stderr
    assert letters(run) == before
    assert qaeval("repair", "run", cwd=run.parent).stdout.endswith("nothing is changed\n")


def next_command(run: Path) -> list[str]:
    """Return the words of the last line that a repair prints, after `next:`."""
    done = qaeval("repair", "run", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout.splitlines()[-1].removeprefix("next: "))


@pytest.mark.parametrize("is_reported", [True, False])
@pytest.mark.slow
def test_a_repair_prints_the_command_that_completes_the_run(run: Path, *, is_reported: bool) -> None:
    before = letters(run)
    damage(run / "generations.jsonl", 3, b"\xff")
    if not is_reported:
        for name in ("manifest.json", "report.json"):
            (run / name).unlink()
    words = next_command(run)
    assert words == ["qaeval", *map(str, COMPARE), "--resume"]
    assert qaeval(*words[1:], cwd=run.parent).returncode == 0
    assert letters(run) == before


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ("qaeval compare a --resume\n", ["qaeval", "compare", "a", "--out", "run", "--resume"]),
        (
            "qaeval generate a --out=run",
            ["qaeval", "generate", "a", "--out", "run", "--resume", "&&", "qaeval", "grade", "run"],
        ),
        # the run is a copy of the one that the words name
        (
            "qaeval compare a\nqaeval compare a --resume\nqaeval grade run\n",
            ["qaeval", "compare", "a", "--out", "run", "--resume"],
        ),
        ("qaeval compare a --out other b", ["qaeval", "compare", "a", "b", "--out", "run", "--resume"]),
        ("rm -rf /", None),
        ("qaeval init x", None),
        ("qaeval compare 'a", None),
        ("", None),
    ],
)
def test_a_repair_prints_no_command_but_that_of_a_run(kept: str, words: list[str] | None, run: Path) -> None:
    damage(run / "generations.jsonl", 3, b"\xff")
    (run / "command.txt").write_text(kept)
    assert next_command(run) == (words or shlex.split("the command of the run with --out run --resume"))


@pytest.mark.slow
@pytest.mark.parametrize("text", [b"\0\0\0\0", b"[]", b'{"kind": "grade"}', b"\xff\xfe", b'{"task_id": 3}'])
def test_a_damaged_letter_is_asked_again(run: Path, text: bytes) -> None:
    before = letters(run)
    damage(run / "grades.jsonl", 5, text)
    done = json.loads(qaeval("repair", "run", "--json", cwd=run.parent).stdout)
    assert [(row["file"], row["line"]) for row in done["rejected"]] == [("grades.jsonl", 5)]
    assert qaeval("grade", "run", cwd=run.parent).returncode == 0
    assert letters(run) == before


@pytest.mark.slow
def test_an_id_that_is_none_is_named_by_an_export_and_moved_aside_by_a_repair(run: Path) -> None:
    before = letters(run)
    reply = rows(run / "generations.jsonl")[2]
    old_id = str(reply["items"][0]["item_id"])  # type: ignore[index]
    for name in ("generations.jsonl", "grades.jsonl"):
        text = (run / name).read_text()
        assert old_id in text
        (run / name).write_text(text.replace(old_id, "by hand"))
    (run / "manifest.json").unlink(missing_ok=True)
    for to in ("csv", "sft", "labels"):
        exported = qaeval("export", "run", "--to", to, "--out", f"out-{to}", cwd=run.parent)
        assert exported.returncode == 65
        assert "expected an id of hex digits" in exported.stderr
        assert "`qaeval repair run`" in exported.stderr
    command = next_command(run)
    rejected = rows(run / "rejected.jsonl")
    assert [row["file"] for row in rejected] == ["generations.jsonl", *["grades.jsonl"] * 3]
    assert qaeval(*command[1:], cwd=run.parent).returncode == 0
    assert letters(run) == before


@pytest.mark.slow
def test_a_missing_reply_is_asked_again_with_its_letters(run: Path) -> None:
    before = letters(run)
    lines = (run / "generations.jsonl").read_bytes().splitlines(keepends=True)
    (run / "generations.jsonl").write_bytes(b"".join([*lines[:2], *lines[3:]]))
    done = qaeval("repair", "run", cwd=run.parent)
    assert "to ask again: 0 replies and the replies that letters were given to, 3 letters" in done.stdout
    command = shlex.split(done.stdout.splitlines()[-1].removeprefix("next: "))
    assert qaeval(*command[1:], cwd=run.parent).returncode == 0
    assert letters(run) == before


def test_missing_samples_are_an_error_and_nothing_changes(run: Path) -> None:
    (run / "samples.jsonl").write_bytes(b"")
    before = (run / "grades.jsonl").read_bytes()
    done = qaeval("repair", "run", cwd=run.parent)
    assert done.returncode == 65
    assert "samples.jsonl: expected 12 samples, got 0. Samples cannot be repaired: restore" in done.stderr
    assert (run / "grades.jsonl").read_bytes() == before


def test_a_run_without_damage_is_not_changed(run: Path) -> None:
    before = {
        path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != ".lock"
    }
    assert qaeval("repair", "run", cwd=run.parent).returncode == 0
    assert {
        path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != ".lock"
    } == before


@pytest.mark.parametrize(("file", "code"), [("samples.jsonl", 65), ("settings.json", 65)])
def test_what_cannot_be_asked_for_again_is_an_error_and_nothing_changes(
    run: Path, file: str, code: int
) -> None:
    damage(run / file, 1, b"\xff")
    before = (run / "grades.jsonl").read_bytes()
    done = qaeval("repair", "run", cwd=run.parent)
    assert done.returncode == code
    assert file in done.stderr
    assert (run / "grades.jsonl").read_bytes() == before
    assert not (run / "rejected.jsonl").exists()
    assert (run / "manifest.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ((), "eval"),
        (("eval", "name"), "eval.name"),
        (("eval", "items_per_sample"), "eval.items_per_sample"),
        (("sample_set", "n"), "sample_set.n"),
        (("candidates",), "candidates"),
        (("grading", "judge", "kind"), "grading.judge.kind"),
        (("grading", "rubric", "scale"), "grading.rubric.scale"),
    ],
)
def test_settings_without_a_key_are_refused_by_every_command_with_file_and_key(
    key: tuple[str, ...], shown: str, run: Path
) -> None:
    settings = json.loads((run / "settings.json").read_text())
    if key:
        inner = settings
        for name in key[:-1]:
            inner = inner[name]
        del inner[key[-1]]
    (run / "settings.json").write_text(json.dumps(settings if key else {}))
    (run / "manifest.json").unlink()
    commands = (
        "report",
        "repair",
        "cost",
        "agreement",
        "grade",
        "decide",
        "compare-runs run",
        "baseline set",
        "gate",
    )
    for command in commands:
        done = qaeval(*command.split(), "run", cwd=run.parent)
        assert (
            done.returncode,
            f"run/settings.json: damaged, or of another version of qaeval: {shown}: " in done.stderr,
        ) == (
            65,
            True,
        ), (command, done.stderr)


def test_a_repair_that_was_interrupted_lists_each_row_once(run: Path) -> None:
    damage(run / "grades.jsonl", 5, b"[]")
    (run / "rejected.jsonl").write_text(
        json.dumps({"file": "grades.jsonl", "line": 5, "reason": "", "text": "of an earlier repair"}) + "\n"
    )
    damaged = (run / "grades.jsonl").read_bytes()
    assert qaeval("repair", "run", cwd=run.parent).returncode == 0
    first = (run / "rejected.jsonl").read_bytes()
    (run / "grades.jsonl").write_bytes(damaged)
    assert qaeval("repair", "run", cwd=run.parent).returncode == 0
    assert (run / "rejected.jsonl").read_bytes() == first
    assert len(first.splitlines()) == 2
