"""Every option of a command reaches the function of the Python API that does the work, under its name and in its type."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from qaeval import api
from qaeval.cli import run
from qaeval.cli.app import app
from qaeval.errors import UsageError
from qaeval.storage.shards import Shard

EXAMPLE = Path(__file__).parents[1] / "results" / "example"
SHARED = "--endpoint m=http://127.0.0.1:8001/v1,http://127.0.0.1:8002/v1 --config r.yaml --concurrency 7 --no-cache"
SHARED_ARGUMENTS = {
    "endpoints": {"m": "http://127.0.0.1:8001/v1,http://127.0.0.1:8002/v1"},
    "config": Path("r.yaml"),
    "concurrency": 7,
    "cache": False,
}
SAMPLES = (
    "--prompts p.md,q.md --eval e --chunks c.jsonl --samples s.jsonl --field text=body --field title=head "
    "--duplicate-ids number --n 5 --seed 3 --allocation equal"
)
SAMPLES_ARGUMENTS = {
    "prompts": ["p.md", "q.md"],
    "eval_name": "e",
    "chunks": Path("c.jsonl"),
    "samples": Path("s.jsonl"),
    "fields": {"text": "body", "title": "head"},
    "duplicate_ids": "number",
    "n": 5,
    "seed": 3,
    "allocation": "equal",
}
JUDGE = "--judge j --judge-mode cascade --reasons-below 0.8 --reasons-for B,C --rubric r --allow-same-family --no-controls"
JUDGE_ARGUMENTS = {
    "judge": "j",
    "judge_mode": "cascade",
    "reasons_below": 0.8,
    "reasons_for": ["B", "C"],
    "rubric": "r",
    "allow_same_family": True,
    "controls": False,
}
METRICS = "--metrics-port 0 --metrics-host 127.0.0.2"
METRICS_ARGUMENTS = {"metrics_port": 0, "metrics_host": "127.0.0.2"}
SECOND = "--panel a,b,c --escalate z --escalate-error 0.2 --escalate-below 0.7 --labels l.csv --labels m.csv"
SECOND_ARGUMENTS = {
    "panel": ["a", "b", "c"],
    "escalate": "z",
    "escalate_error": 0.2,
    "escalate_below": 0.7,
    "labels": [Path("l.csv"), Path("m.csv")],
}


@dataclass(frozen=True)
class Typed:
    """A command, the function it calls, and what that function gets; functions and the command itself are not listed."""

    words: str
    function: str
    positional: tuple[Any, ...]
    arguments: Mapping[str, Any]


COMMANDS = [
    Typed(
        f"compare m o {SAMPLES} {JUDGE} {SECOND} {METRICS} {SHARED} --out d --resume --repeat 2 --repeat-judge 3 --margin 4% "
        "--until-decided --hardware l4 --backend ray --ray-address h:1 --ray-store s --ray-block 9 --yes --consent h",
        "compare",
        (["m", "o"],),
        {
            **SAMPLES_ARGUMENTS,
            **JUDGE_ARGUMENTS,
            **SECOND_ARGUMENTS,
            **METRICS_ARGUMENTS,
            **SHARED_ARGUMENTS,
            "out": Path("d"),
            "resume": True,
            "repeat": 2,
            "repeat_judge": 3,
            "margin": 0.04,
            "until_decided": True,
            "hardware": "l4",
            "backend": "ray",
            "ray_address": "h:1",
            "ray_store": "s",
            "ray_block": 9,
        },
    ),
    Typed(
        f"compare m o {SAMPLES} {JUDGE} {METRICS} {SHARED} --out d --shard 2/4 --hardware l4",
        "compare_shard",
        (["m", "o"],),
        {
            **SAMPLES_ARGUMENTS,
            **JUDGE_ARGUMENTS,
            **METRICS_ARGUMENTS,
            **SHARED_ARGUMENTS,
            "out": "d",
            "shard": Shard(2, 4),
            "hardware": "l4",
        },
    ),
    Typed(
        f"generate m o {SAMPLES} {METRICS} {SHARED} --out d --resume --repeat 2 --yes --consent h",
        "generate",
        (["m", "o"],),
        {
            **SAMPLES_ARGUMENTS,
            **METRICS_ARGUMENTS,
            **SHARED_ARGUMENTS,
            "out": Path("d"),
            "resume": True,
            "repeat": 2,
        },
    ),
    Typed(
        f"grade {EXAMPLE} {JUDGE} {SECOND} {METRICS} {SHARED} --repeat 3 --yes --consent h",
        "grade",
        (EXAMPLE,),
        {
            **JUDGE_ARGUMENTS,
            **SECOND_ARGUMENTS,
            **METRICS_ARGUMENTS,
            **SHARED_ARGUMENTS,
            "repeat": 3,
        },
    ),
    Typed(
        f"report {EXAMPLE} --labels l.csv --margin 4% --decide-by j --panel a,b,c --hardware l4 --config r.yaml",
        "load_run",
        ([EXAMPLE],),
        {
            "labels": [Path("l.csv")],
            "margin": 0.04,
            "decide_by": "j",
            "panel": ["a", "b", "c"],
            "hardware": "l4",
            "config": Path("r.yaml"),
        },
    ),
    Typed(
        f"gate {EXAMPLE} --baseline b.json --policy p.yaml --candidate new=old --unpaired --regrade --sequential --judge j "
        f"--rubric r --allow-same-family --seed 3 --labels l.csv --hardware l4 {SHARED}",
        "gate",
        (EXAMPLE,),
        {
            **SHARED_ARGUMENTS,
            "baseline": "b.json",
            "policy": Path("p.yaml"),
            "candidates": {"new": "old"},
            "unpaired": True,
            "regrade": True,
            "sequential": True,
            "judge": "j",
            "rubric": "r",
            "allow_same_family": True,
            "seed": 3,
            "labels": [Path("l.csv")],
            "hardware": "l4",
        },
    ),
    Typed(
        f"certify j --eval e --labels l.csv --run {EXAMPLE} --policy p.yaml --raters any --audit a --anchors 150 --rubric r "
        f"--chunks c.jsonl --work w --out o.json {SHARED} --consent h",
        "certify",
        ("j",),
        {
            **SHARED_ARGUMENTS,
            "eval_name": "e",
            "labels": [Path("l.csv")],
            "run": EXAMPLE,
            "policy": Path("p.yaml"),
            "raters": "any",
            "audit": Path("a"),
            "anchors": 150,
            "rubric": "r",
            "chunks": Path("c.jsonl"),
            "work": Path("w"),
            "out": Path("o.json"),
        },
    ),
    Typed(
        "agreement letters.csv --columns a,b --judge a --cluster doc --scale A,B,C --by length",
        "agreement",
        (Path("letters.csv"), None),
        {"columns": ("a", "b"), "judge": "a", "cluster": "doc", "scale": ("A", "B", "C"), "by": "length"},
    ),
    Typed(
        f"agreement {EXAMPLE} --labels l.csv --by stratum",
        "agreement",
        (EXAMPLE, [Path("l.csv")]),
        {"columns": (), "judge": "", "cluster": "", "scale": (), "by": "stratum"},
    ),
    Typed(
        f"import i.jsonl k.jsonl --out d --chunks c.jsonl --candidate m --candidate-field model --eval e --rubric r --field answer=a "
        f"--grade-field letter=l --label-field ann=a --common --join {EXAMPLE} --config r.yaml",
        "import_items",
        ([Path("i.jsonl"), Path("k.jsonl")],),
        {
            "out": Path("d"),
            "chunks": Path("c.jsonl"),
            "candidate": ["m"],
            "candidate_field": "model",
            "eval_name": "e",
            "rubric": "r",
            "fields": {"answer": "a"},
            "grade_field": {"letter": "l"},
            "label_fields": {"ann": "a"},
            "common": True,
            "join": EXAMPLE,
            "config": Path("r.yaml"),
        },
    ),
    Typed(
        f"labels status {EXAMPLE} --margin 4%",
        "label_status",
        (EXAMPLE,),
        {"margin": 0.04},
    ),
]


@pytest.mark.parametrize("typed", COMMANDS, ids=[typed.words[:20] for typed in COMMANDS])
def test_every_option_reaches_the_api(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def record(*positional: Any, **arguments: Any) -> None:
        calls.append((positional, arguments))
        raise UsageError("recorded")

    monkeypatch.chdir(tmp_path)
    for name in ("i.jsonl", "k.jsonl", "letters.csv"):
        Path(name).write_text("{}\n")
    monkeypatch.setattr(api, typed.function, record)
    words = shlex.split(typed.words)
    monkeypatch.setattr(sys, "argv", ["qaeval", *words])
    assert run(words) == 64
    ((positional, arguments),) = calls
    command = arguments.pop("command", None)
    assert command in {None, shlex.join(["qaeval", *words])}
    # with --yes nobody is asked; progress and consent are objects of the terminal
    others = {
        name: value for name, value in arguments.items() if name not in {"progress", "confirm", "consent"}
    }
    assert (positional, others) == (typed.positional, typed.arguments)
    assert arguments.get("confirm") is None
    assert callable(arguments.get("consent")) == ("--consent" in words)


def test_no_option_of_these_commands_is_missing_above() -> None:
    given: dict[str, set[str]] = {}
    for typed in COMMANDS:
        words = typed.words.split()
        name = "labels status" if words[0] == "labels" else words[0]
        given.setdefault(name, set()).update(words)
    missing = {}
    for name, words in given.items():
        command: Any = get_command(app)
        for part in name.split():
            command = command.commands[part]
        missing[name] = {
            parameter.opts[0]
            for parameter in command.params
            if parameter.param_type_name == "option"
            and not words & {*parameter.opts, *parameter.secondary_opts}
        }
    assert missing == {
        "compare": {"--json"},
        "generate": set(),
        "grade": set(),
        "report": {"--format", "--json"},
        "gate": {"--junit", "--summary", "--comment", "--link", "--json"},
        "certify": {"--json"},
        "agreement": {"--table", "--agreement", "--kappa", "--items", "--json"},
        "import": set(),
        "labels status": {"--json"},
    }
