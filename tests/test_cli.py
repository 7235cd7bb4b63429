"""The command line as a user types it, end to end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from command import qaeval
from qaeval.cli import run
from qaeval.cli.tables import print_table
from replay.server import LoopbackServer

QAEVAL = Path(sys.executable).with_name("qaeval")
EMBEDDED = ("embedded-lead", "embedded-salient")


def chunk_file(path: Path, n: int = 12) -> Path:
    text = "A valve {0} opens at {1} bar, because the pump needs pressure. A gauge {0} shows the value, whereas a log {0} keeps it."
    rows = [{"chunk_id": f"c{i}", "content": text.format(i, i + 2), "service": f"s{i % 3}"} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_rows(path: Path) -> dict[str, dict[str, object]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["task_id"] for row in rows}) == len(rows), "a row stands twice"
    return {row["task_id"]: {key: value for key, value in row.items() if key != "latency_s"} for row in rows}


def without_times(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if key not in {"run", "timing"}}
    return [without_times(part) for part in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_repeated_run_gives_an_equal_report_apart_from_times(tmp_path: Path) -> None:
    arguments = ["compare", *EMBEDDED, "--n", "20", "--seed", "7", "--out"]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}  # sets have another iteration order in that process
    subprocess.run(
        [QAEVAL, *arguments, "one"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=True,
        timeout=300,
    )
    assert qaeval(*arguments, "two", cwd=tmp_path).returncode == 0
    first, second = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "two"))
    assert without_times(first) == without_times(second)


@pytest.mark.slow
def test_killed_run_resumes_to_the_rows_of_an_undisturbed_run(tmp_path: Path) -> None:
    chunks = chunk_file(tmp_path / "chunks.jsonl", 60)
    with LoopbackServer(models=("mistral", "qwen", "judge"), latency_s=0.05) as server:
        url = f"{server.url}"
        command = [
            "compare",
            "mistral",
            "qwen",
            "--judge",
            "selene",
            "--chunks",
            chunks,
            "--concurrency",
            "4",
        ]
        command += [f"--endpoint=mistral={url}", f"--endpoint=qwen={url}", f"--endpoint=selene={url}"]
        config = tmp_path / "qaeval.yaml"
        config.write_text("judges: {selene: {served_name: judge}}\n")
        with subprocess.Popen(
            [QAEVAL, *map(str, command), "--out", "killed"],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            wait_for_rows(tmp_path / "killed" / "generations.jsonl", 15)
            os.kill(process.pid, signal.SIGKILL)
        n_rows_before = len((tmp_path / "killed" / "generations.jsonl").read_text().splitlines())
        resumed = qaeval(*command, "--out", "killed", "--resume", cwd=tmp_path)
        undisturbed = qaeval(*command, "--out", "whole", cwd=tmp_path)
    assert (resumed.returncode, undisturbed.returncode) == (0, 0), resumed.stderr + undisturbed.stderr
    assert n_rows_before < 120  # killed before the end
    for name in ("generations.jsonl", "grades.jsonl"):
        assert read_rows(tmp_path / "killed" / name) == read_rows(tmp_path / "whole" / name)


def wait_for_rows(path: Path, n: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if path.is_file() and path.read_bytes().count(b"\n") >= n:
            return
        time.sleep(0.01)
    pytest.fail(f"{path} never held {n} rows")


def write_interrupted_run(path: Path, *words: str, cwd: Path) -> None:
    """Make a run of a command, as if it was killed before its report and its last letter."""
    assert qaeval(*words, "--no-cache", "--out", path, cwd=cwd).returncode == 0
    for name in ("manifest.json", "report.json", "report.md", "report.html"):
        (cwd / path / name).unlink(missing_ok=True)
    rows = (cwd / path / "generations.jsonl").read_text().splitlines(keepends=True)
    (cwd / path / "generations.jsonl").write_text("".join(rows[:-1]))


def test_resume_without_a_folder_continues_the_last_unfinished_run_of_the_same_settings(
    tmp_path: Path,
) -> None:
    words = ("generate", "embedded-lead", "--n", "3")
    write_interrupted_run(Path("results/other"), "generate", "embedded-lead", "--n", "2", cwd=tmp_path)
    write_interrupted_run(Path("results/mine"), *words, cwd=tmp_path)
    write_interrupted_run(Path("results/later"), "generate", "embedded-salient", "--n", "3", cwd=tmp_path)
    done = qaeval(*words, "--resume", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, "continuing results/mine")
    assert "next: qaeval grade results/mine" in done.stdout
    assert len(read_rows(tmp_path / "results" / "mine" / "generations.jsonl")) == 3
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"later", "mine", "other"}


def test_a_comparison_continues_with_the_judge_and_the_ending_that_it_began_with(tmp_path: Path) -> None:
    words = ("compare", *EMBEDDED, "--n", "3")
    write_interrupted_run(Path("results/mine"), *words, cwd=tmp_path)
    unfinished = qaeval("decide", "results/mine", cwd=tmp_path).stderr
    whole = f"qaeval {' '.join(words)} --no-cache --out results/mine --resume"
    assert f"`{whole}` completes it" in unfinished
    assert f"finish with `{whole}`" in qaeval("report", "results/mine", cwd=tmp_path).stderr
    done = qaeval(*words, "--resume", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, "continuing results/mine")
    assert (tmp_path / "results" / "mine" / "manifest.json").is_file()
    again = qaeval(*words, "--resume", cwd=tmp_path)
    assert again.returncode == 64  # it is finished


def test_resume_with_nothing_to_continue_makes_no_folder_and_says_what_to_type(tmp_path: Path) -> None:
    words = ("generate", "embedded-lead", "--n", "3", "--resume")
    refused = qaeval(*words, cwd=tmp_path)
    assert (refused.returncode, [*tmp_path.iterdir()]) == (64, [])
    assert "`--out results/RUN --resume`" in refused.stderr
    assert qaeval(*words, "--out", "new", cwd=tmp_path).returncode == 64
    assert [*tmp_path.iterdir()] == []
    write_interrupted_run(Path("results/other"), "generate", "embedded-lead", "--n", "2", cwd=tmp_path)
    refused = qaeval(*words, cwd=tmp_path)
    assert refused.returncode == 64
    assert "results/other differs (--n was 2, now 3)" in refused.stderr
    assert "`--out results/other --resume`" in refused.stderr
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["other"]


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interruption_keeps_finished_rows_and_prints_the_resume_command(
    tmp_path: Path, signum: signal.Signals
) -> None:
    chunks = chunk_file(tmp_path / "chunks.jsonl", 60)
    (tmp_path / "qaeval.yaml").write_text("models: {a: {hf_id: org/a}, b: {hf_id: org/b}}\n")
    with LoopbackServer(models=("a", "b"), latency_s=0.05) as server:
        command = [QAEVAL, "generate", "a", "b", "--chunks", chunks, "--out", "run", "--concurrency", "4"]
        command += [f"--endpoint=a={server.url}", f"--endpoint=b={server.url}"]
        with subprocess.Popen(
            list(map(str, command)), cwd=tmp_path, stderr=subprocess.PIPE, text=True
        ) as process:
            wait_for_rows(tmp_path / "run" / "generations.jsonl", 10)
            process.send_signal(signum)
            _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "qaeval generate a b" in stderr
    assert "--resume" in stderr
    assert len(read_rows(tmp_path / "run" / "generations.jsonl")) >= 10


def test_run_that_cannot_start_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "qaeval.yaml").write_text("models: {a: {hf_id: org/a}, b: {hf_id: org/b}}\n")
    with LoopbackServer(models=("a", "b")) as server:
        endpoints = [f"--endpoint=a={server.url}", f"--endpoint=b={server.url}"]
    result = qaeval("generate", "a", "b", *endpoints, "--out", "runs/run", cwd=tmp_path)
    assert result.returncode == 69
    assert result.stderr.startswith(f"probing a at {server.url}\n")
    assert "--resume" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["qaeval.yaml"]


@pytest.mark.slow
def test_existing_folder_is_kept_when_a_run_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert qaeval("compare", "mistral", "qwen", "--out", "run", cwd=tmp_path).returncode == 64
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.slow
def test_an_unknown_model_is_refused_with_the_closest_name(tmp_path: Path) -> None:
    command = [QAEVAL, "compare", "mistrall", "qwen"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 64
    assert "mistrall" in result.stderr
    assert "'mistral'" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["compare", *EMBEDDED, "--chunks", "none.jsonl"], 65, "none.jsonl"),
        (["compare", *EMBEDDED, "--n", "100000"], 64, "100,000"),
        (["compare", *EMBEDDED, "--n", "2", "--seed", "99999999999999999999"], 64, "--seed"),
        (["compare", *EMBEDDED, "--nosuch"], 64, "--nosuch"),
        (["compare", "mistral", "qwen"], 64, "--endpoint mistral="),
        (["report", "."], 65, "no run here"),
        (["rubric", "check", "nosuch"], 64, "qa_pair_abc"),
    ],
)
def test_invalid_input_gives_one_error_message(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    result = qaeval(*arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "chunks.jsonl"),
        (b'{"chunk_id": "a", "text": "x"\n', "chunks.jsonl:1"),
        (b'{"chunk_id": "a", "text": "x y"}\n{"chunk_id": "a", "text": "z"}\n', "'a'"),
        (b'{"chunk_id": "a", "text": " "}\n', "chunks.jsonl:1"),
        (b'{"chunk_id": "a", "text": "x\\u0000y"}\n', "NUL"),
        (b'{"chunk_id": "a", "text": "caf\xe9"}\n', "UTF-8"),
        ('{"chunk_id": "a", "text": "x"}\n'.encode("utf-16"), "UTF-8"),
        (b'{"chunk_id": "a", "prose": "x"}\n', "chunks.jsonl:1"),
    ],
)
def test_invalid_chunk_file_is_refused_with_its_location(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "chunks.jsonl").write_bytes(content)
    result = qaeval("compare", *EMBEDDED, "--chunks", "chunks.jsonl", "--out", "run", cwd=tmp_path)
    assert result.returncode == 65, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_chunk_of_200_000_words_is_refused_as_a_whole_document(tmp_path: Path) -> None:
    row = {"chunk_id": "long", "text": "The valve opens at 3 bar because the pump needs pressure. " * 20_000}
    (tmp_path / "chunks.jsonl").write_text(json.dumps(row))
    result = qaeval("compare", *EMBEDDED, "--chunks", "chunks.jsonl", "--out", "run", cwd=tmp_path)
    assert result.returncode == 65
    assert "chunks.jsonl:1: " in result.stderr
    assert "220,000 words" in result.stderr


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("qaeval.yaml", "modells: {}\n", "'models'"),
        ("qaeval.yaml", "models: {mistral: {hf_idd: x}}\n", "'hf_id'"),
        ("rubrics/qa_pair_abc.yaml", "nam: x\n", "'name'"),
    ],
)
def test_a_typo_in_a_file_names_the_closest_key(
    file: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content)
    result = qaeval("compare", *EMBEDDED, cwd=tmp_path)
    assert result.returncode == 65, result.stderr
    assert f"{file}" in result.stderr
    assert message in result.stderr


def test_models_and_rubric_commands_print_their_entries(tmp_path: Path) -> None:
    assert "Qwen/Qwen2.5-7B-Instruct-AWQ" in qaeval("models", "--json", cwd=tmp_path).stdout
    assert "qa_pair_abc version 3: valid" in qaeval("rubric", "check", "qa_pair_abc", cwd=tmp_path).stdout


@pytest.mark.slow
def test_doctor_describes_the_run_and_the_next_command(tmp_path: Path) -> None:
    built_in = qaeval("doctor", "--n", 20, cwd=tmp_path)
    assert "20 chunks from 9 strata" in built_in.stdout
    assert "120 requests to grade" in built_in.stdout
    command = built_in.stdout.splitlines()[-1].removeprefix("next: ").split()
    assert command == ["qaeval", "compare", "embedded-lead", "embedded-salient", "--n", "20"]
    allow_same_family = "--allow-same-family"
    unserved = qaeval(
        "doctor", "mistral", "qwen2.5", "--judge", "qwen2.5", allow_same_family, cwd=tmp_path
    ).stdout
    assert "vllm serve Qwen/Qwen2.5-7B-Instruct-AWQ --revision" in unserved
    command = unserved.splitlines()[-1].split()
    assert command[:4] == ["qaeval", "compare", "mistral", "qwen2.5"]
    assert {"--allow-same-family", "mistral=http://127.0.0.1:8001/v1"} <= set(command)
    with LoopbackServer(models=("mistral", "other")) as server:
        urls = [f"--endpoint={name}={server.url}" for name in ("mistral", "qwen")]
        served = qaeval(
            "doctor", "mistral", "qwen", "--judge", "mistral", allow_same_family, *urls, cwd=tmp_path
        ).stdout
    assert f"mistral: {server.url}: serves mistral, other" in served
    assert "it does not serve 'qwen'" in served
    unreachable = qaeval(
        "doctor", "mistral", "qwen", "--judge", "mistral", allow_same_family, *urls, cwd=tmp_path
    ).stdout
    assert "no connection (connection refused)" in unreachable
    assert "start mistral, qwen" in unreachable


@pytest.mark.slow
def test_doctor_exits_with_69_when_a_server_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "qaeval.yaml").write_text("models: {a: {hf_id: org/a}}\n")
    with LoopbackServer(models=("a",)) as server:
        arguments = ("doctor", "a", "--judge", "embedded-lexical", f"--endpoint=a={server.url}")
        assert qaeval(*arguments, cwd=tmp_path).returncode == 0
    refused = qaeval(*arguments, cwd=tmp_path)
    assert refused.returncode == 69
    assert "next: start a, then: qaeval compare a" in refused.stdout


@pytest.mark.slow
def test_doctor_shows_the_version_of_the_serving_command(tmp_path: Path) -> None:
    command = tmp_path / "bin" / "ours"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\necho "INFO loading"\necho 0.99.1\n')
    command.chmod(0o755)
    (tmp_path / "qaeval.yaml").write_text(f"serving: {{command: [{command}]}}\n")
    assert f"{command}): 0.99.1" in qaeval("doctor", cwd=tmp_path).stdout
    package = tmp_path / "lib" / "python3.12" / "site-packages" / "vllm-0.88.0.dist-info"
    package.mkdir(parents=True)  # read without running the command
    assert f"{command}): 0.88.0" in qaeval("doctor", cwd=tmp_path).stdout


def test_models_shows_where_each_model_runs(tmp_path: Path) -> None:
    (tmp_path / "qaeval.yaml").write_text("models: {a: {hf_id: org/a}, b: {url: 'http://gpu:8000'}}\n")
    lines = {line.split()[0]: line for line in qaeval("models", cwd=tmp_path).stdout.splitlines() if line}
    assert " at " not in lines["a"]
    assert " at http://gpu:8000/v1" in lines["b"]
    assert "runs inside" in lines["embedded-lead"]


@pytest.mark.slow
def test_separate_stages_give_the_same_report_as_compare(tmp_path: Path) -> None:
    chunks = chunk_file(tmp_path / "chunks.jsonl")
    assert qaeval("generate", *EMBEDDED, "--chunks", chunks, "--out", "run", cwd=tmp_path).returncode == 0
    assert qaeval("grade", "run", cwd=tmp_path).returncode == 0
    separate = qaeval("report", "run", "--json", cwd=tmp_path)
    compared = qaeval("compare", *EMBEDDED, "--chunks", chunks, "--out", "both", "--json", cwd=tmp_path)
    first, second = (without_times(json.loads(result.stdout)) for result in (separate, compared))
    assert {**first, "path": ""} == {**second, "path": ""}  # type: ignore[dict-item]


def test_the_report_names_the_commands_that_wrote_the_rows_whichever_printed_it(tmp_path: Path) -> None:
    made = "qaeval generate embedded-lead --n 2 --no-cache --out run"
    graded = "qaeval grade run --no-cache --yes"
    for command in (made, graded, graded, "qaeval report run", "qaeval report run"):
        assert qaeval(*command.split()[1:], cwd=tmp_path).returncode == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["run"]["command"] == f"{made}; {graded}"
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    for format_ in ("csv", "json", "md", "html"):
        shown = qaeval("report", "run", "--format", format_, "--margin", "9%", cwd=tmp_path)
        assert shown.returncode == 0
        assert "--margin" not in shown.stdout
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == before


@pytest.mark.slow
def test_chunk_file_of_real_documentation_is_accepted(tmp_path: Path) -> None:
    from scipy import special, stats  # noqa: PLC0415 - only this test reads their documentation

    docstrings = {
        f"{module.__name__}.{name}": getattr(module, name).__doc__ or ""
        for module in (stats, special)
        for name in module.__all__
    }
    rows = [
        {"chunk_id": name, "content": text, "service": name.rpartition(".")[0], "url": "ignored"}
        for name, text in docstrings.items()
        if text.strip()
    ][:150]
    assert len(rows) >= 100
    chunks = tmp_path / "foreign.jsonl"
    chunks.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = qaeval("compare", *EMBEDDED, "--chunks", chunks, "--out", "run", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["eval"]["n_samples"] == len(rows)
    assert (tmp_path / "run" / "manifest.json").is_file()


@pytest.mark.parametrize("value", ["0", "5000", "many", "-1", "4.5"])
def test_invalid_concurrency_is_refused(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", "embedded-lead", "embedded-salient", "--n", "2", "--out", str(tmp_path / "run")]
    assert run([*arguments, f"--concurrency={value}"]) == 64
    assert "from 1 to 4,096" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "report LONG",
        "compare embedded-lead embedded-salient --n 2 --out LONG",
        "compare embedded-lead --chunks LONG",
        "compare embedded-lead --eval LONG",
        "chunk LONG",
        "agreement LONG.csv",
        "rubric check LONG",
        "gate LONG",
        "models --config LONG.yaml",
    ],
)
def test_too_long_name_is_an_error_without_traceback(arguments: str, tmp_path: Path) -> None:
    result = qaeval(*arguments.replace("LONG", "n" * 300).split(), cwd=tmp_path)
    assert result.returncode in {64, 65, 74}, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "models: &a\n  x: *a\n",
        "models: &a [*a]\n",
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
            for old, new in zip("abcdefg", "bcdefgh", strict=True)
        ),
        f"models: &a [{', '.join(['*a'] * 2000)}]\n",  # 2,000 more values for each counted one
    ],
    ids=["a mapping in itself", "a list in itself", "a million laughs", "a list often in itself"],
)
@pytest.mark.timeout(60)
def test_recursive_or_exploding_yaml_aliases_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "qaeval.yaml").write_text(text)
    result = qaeval("models", cwd=tmp_path)
    assert result.returncode == 65
    assert "alias" in result.stderr


def test_default_output_is_a_new_folder_in_results(tmp_path: Path) -> None:
    arguments = ("generate", "embedded-lead", "--n", "2", "--no-cache")
    assert qaeval(*arguments, cwd=tmp_path).returncode == 0
    (folder,) = (tmp_path / "results").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}", folder.name)
    assert len((folder / "generations.jsonl").read_text().splitlines()) == 2


def run_in_bash(arguments: str, cwd: Path, unbuffered: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"{QAEVAL} {arguments}"],
        cwd=cwd,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2> >(exec 0<&-)"])
def test_exit_code_does_not_depend_on_a_writable_stderr(
    redirection: str, unbuffered: str, tmp_path: Path
) -> None:
    # 1 would be a regression, 0 a pass
    assert run_in_bash(f"gate nope {redirection}", tmp_path, unbuffered).returncode == 65


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["models", "schema gate"])
@pytest.mark.parametrize(("redirection", "code"), [(">/dev/full", 74), (">&-", 0), ("> >(exec 0<&-)", 0)])
def test_full_disk_at_stdout_is_an_error_and_a_closed_reader_is_not(
    command: str, redirection: str, code: int, unbuffered: str, tmp_path: Path
) -> None:
    result = run_in_bash(f"{command} {redirection}", tmp_path, unbuffered)
    assert (result.returncode, "No space left" in result.stderr) == (code, code == 74), result.stderr


def test_broken_pipe_other_than_stdout_is_an_io_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def raise_broken_pipe(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("qaeval.cli.models.say_file", raise_broken_pipe)
    assert qaeval("rubric", "show", "qa_pair_abc", cwd=tmp_path).returncode == 74


@pytest.mark.parametrize(
    "arguments", ["compare embedded-lead --out b1 --yes --chunks", "import --out b1", "report", "chunk"]
)
def test_argument_that_is_not_utf_8_is_refused_before_writing(arguments: str, tmp_path: Path) -> None:
    name = os.fsdecode(b"bad\xff.jsonl")
    chunk_file(tmp_path / name)
    result = qaeval(*arguments.split(), name, cwd=tmp_path)
    assert result.returncode == 64
    assert "bad\\udcff.jsonl': an argument that is not UTF-8" in result.stderr
    assert len(list(tmp_path.iterdir())) == 1


def test_a_table_breaks_no_word_where_the_words_fit_beside_each_other() -> None:
    written = StringIO()
    header = ("flag", "embedded-lexical only", "recall", "\u4e2d\u6587")
    row = ("hallucination", "0", "undefined: never raised", "1")
    print_table(Console(file=written, width=52), header, [row])
    words = [line.split() for line in written.getvalue().splitlines()]
    assert words == [
        ["embedded-lexical"],
        ["flag", "only", "recall", "\u4e2d\u6587"],
        ["hallucination", "0", "undefined:", "1"],
        ["never", "raised"],
    ]
