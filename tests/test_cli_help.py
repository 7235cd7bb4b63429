"""Help, examples, completion, and the hints for commands that do not exist."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from qaeval import __version__
from qaeval.cli import run
from qaeval.cli.app import PANELS, app
from qaeval.cli.examples import EXAMPLES


def commands(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, with its words."""
    for name, command in (group or get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def test_every_command_is_in_one_panel() -> None:
    in_panels = [name for names in PANELS.values() for name in names]
    assert sorted(in_panels) == sorted(get_command(app).commands)  # type: ignore[attr-defined]


def test_every_command_has_two_examples_with_options_that_it_has() -> None:
    assert set(EXAMPLES) == {name for name, _ in commands()}
    for name, command in commands():
        first, second = EXAMPLES[name]
        known = {option for parameter in command.params for option in parameter.opts}
        for example in (first, second):
            assert f"{example} ".startswith(f"qaeval {name} ")
            assert {word for word in example.split() if word.startswith("--")} <= known, example


@pytest.mark.slow
def test_help_fits_80_columns_and_ends_with_the_examples(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["--help"]) == 0
    overview = capsys.readouterr().out
    assert [line[:-1] for line in overview.splitlines() if line.endswith(":") and line[0] != " "] == [
        "Options",
        *PANELS,
    ]
    for name, _ in commands():
        assert run([*name.split(), "--help"]) == 0
        lines = capsys.readouterr().out.rstrip().splitlines()
        assert max(map(len, lines)) <= 80, name
        assert tuple(line.strip() for line in lines[-2:]) == EXAMPLES[name]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("run", "compare"),
        ("judge", "grade"),
        ("comprae", "compare"),
        ("version", "--version"),
        ("-v", "--version"),
    ],
)
def test_a_command_that_does_not_exist_names_the_one_that_was_meant(
    word: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([word]) == 64
    assert meant in capsys.readouterr().err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"qaeval {__version__}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("qaeval ag", ["agreement"]),
        ("qaeval compare mistral-", ["mistral-v0.3"]),
        ("qaeval compare mistral --judge gpt", ["gpt-oss"]),
    ],
)
def test_the_shell_completes_commands_models_and_judges(typed: str, completed: list[str]) -> None:
    position = str(len(typed.split()) - 1)
    shell = {"_QAEVAL_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": position}
    result = subprocess.run(
        [sys.executable, "-m", "qaeval"],
        env={**os.environ, **shell},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.split() == completed


@pytest.mark.parametrize("arguments", [[], ["labels"], ["baseline"]])
def test_a_group_without_a_command_prints_its_help_alone(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 64
    error = capsys.readouterr().err
    assert error.startswith("Usage: qaeval")
    assert "See `" not in error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("compare embedded-lead --n 0", "--n: expected a number of at least 1, got '0'"),
        ("compare embedded-lead --n 1.5", "--n: expected a whole number, got '1.5'"),
        ("compare embedded-lead --seed x", "--seed: expected a whole number, got 'x'"),
        (
            "compare embedded-lead --escalate-below 2",
            "--escalate-below: expected a number of at most 1, got '2'",
        ),
        ("compare embedded-lead --escalate-below x", "--escalate-below: expected a number, got 'x'"),
        (
            "compare embedded-lead --metrics-port 65536",
            "--metrics-port: expected a number of at most 65535, got '65536'",
        ),
        ("audit embedded-lexical --n 9", "--n: expected a number of at least 10, got '9'"),
        ("compare embedded-lead --allocation foo", "--allocation: 'foo' is not one of 'proportional'"),
    ],
)
def test_a_value_that_an_option_does_not_take_is_named_with_what_it_takes(
    words: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words.split()) == 64
    assert capsys.readouterr().err.startswith(f"qaeval: {says}")


def test_no_number_of_an_option_is_refused_in_the_words_of_pydantic(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, command in commands():
        needed = ["a" for each in command.params if each.param_type_name == "argument" and each.required]
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.metavar in {
                "N",
                "NUMBER",
                "P",
                "PORT",
                "R",
            }:
                option = parameter.opts[0]
                assert run([*name.split(), *needed, option, "x"]) == 64
                said = capsys.readouterr().err
                assert "Input should" not in said, (name, said)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("baseline set", "qaeval baseline set"),
        ("baseline show --foo", "qaeval baseline show"),
        ("labels export", "qaeval labels export"),
        ("baseline foo", "qaeval baseline"),
        ("gate --foo", "qaeval gate"),
        ("foo", "qaeval"),
    ],
)
def test_a_usage_error_leads_to_the_help_of_its_own_command(
    words: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words.split()) == 64
    assert capsys.readouterr().err.endswith(f"\nSee `{command} --help`.\n")
