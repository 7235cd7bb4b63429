"""The label page in real sittings, without a browser, and input that `qaeval label` refuses."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from command import qaeval
from qaeval.agreement.model import RaterQuality
from qaeval.comparison.model import Reason, ReasonCode, Verdict
from qaeval.comparison.verdict import SHOWN_FROM
from qaeval.labelling import Adjudication, Sitting
from qaeval.labelling.model import MoreLabels, SittingSummary, StoppingDecision
from qaeval.stats.estimate import MIN_CLUSTERS
from qaeval.testing import make_run
from qaeval.web.adjudicate import adjudication_page
from qaeval.web.label import LabelPage, Section
from qaeval.web.messages import LANGUAGES, Language, localised, text
from qaeval.web.summary import _more, _quality, _stopping, summary_sections
from web_client import Client, serving

N_CHUNKS = 12


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", {"alpha": ["AAB"] * N_CHUNKS, "beta": ["ABC"] * N_CHUNKS})
    return tmp_path / "run"


@contextmanager
def sitting_page(run: Path, rater: str = "anna", **options: Any) -> Iterator[tuple[Client, Sitting]]:
    with Sitting.open(run, rater, **options) as sitting:

        def summarise(language: Language) -> Sequence[Section]:
            return summary_sections(sitting.summary(), language)

        page = LabelPage(sitting, summarise=summarise, run="run", rater=rater)
        with serving(page.routes()) as (client, _):
            yield client.enter(), sitting


def post(client: Client, path: str, **values: object) -> tuple[int, dict[str, Any]]:
    response = client.send("POST", path, json.dumps(values).encode())
    return response.status, json.loads(response.text)


def fetch_state(client: Client) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(client.send("GET", "/state").text)
    return value


def label_all(client: Client, letter: str = "A", seconds: float = 20.0) -> list[str]:
    """Label until the end; return the assignments."""
    assignments = []
    item = fetch_state(client)["item"]
    while item:
        assignments.append(item["assignment"])
        item_letter = "B" if "beta" in item["question"] else letter
        status, response = post(
            client, "/record", assignment=item["assignment"], letter=item_letter, seconds=seconds
        )
        assert status == 200
        item = response["item"]
    return assignments


def summary_text(client: Client, language: str = "en") -> str:
    response = client.send("GET", "/summary", accept_language=language)
    sections = json.loads(response.text)["sections"]
    return "\n".join(line for section in sections for line in (section["title"], *section["lines"]))


@pytest.mark.slow
def test_the_final_summary_has_kappa_difference_verdict_and_quality(run: Path) -> None:
    with sitting_page(run, n=72) as (client, sitting):
        assert len(label_all(client)) == 72 + 5
        english, german = summary_text(client), summary_text(client, "de")
        summary = sitting.summary()
    kappa = summary.agreement.coefficients.kappa  # type: ignore[union-attr]
    assert f"{kappa.value:.2f}" in english
    assert f"{kappa.value:.2f}".replace(".", ",") in german
    assert "beta minus alpha" in english
    assert f"{N_CHUNKS} chunks" in english
    assert "5 of 5" in english
    assert "5 von 5" in german
    assert not re.search(r"\{|\d\.\d", german)


@pytest.mark.slow
def test_a_sitting_ends_once_the_verdict_is_decided(tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"alpha": ["AAA"] * 60, "beta": ["CCC"] * 60})
    with sitting_page(tmp_path / "run", n=360, until_decided=True) as (client, sitting):
        item, n_labels = fetch_state(client)["item"], 0
        while item:
            letter = "C" if "beta" in item["question"] else "A"
            item = post(client, "/record", assignment=item["assignment"], letter=letter, seconds=9)[1]["item"]
            n_labels += 1
        assert n_labels < 300
        assert sitting.progress().is_decided
        assert "alpha is best" in summary_text(client)
        assert "alpha ist am besten" in summary_text(client, "de")
        # taking the last label back opens the sitting again
        assert post(client, "/undo", assignment=None)[1]["item"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_an_empty_sitting_has_a_summary(run: Path, language: Language) -> None:
    with sitting_page(run, n=6) as (client, _):
        assert summary_text(client, language)


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_each_reason_for_no_verdict_has_its_own_text(run: Path, language: Language) -> None:
    codes: tuple[ReasonCode, ...] = (
        "one_candidate",
        "nothing_graded",
        "nothing_usable",
        "judge_refuted",
        "judge_tells_nothing_apart",
        "embedded_only",
    )
    with Sitting.open(run, "anna", n=6) as sitting:
        summary = sitting.summary()
    summaries = {
        str(summary_sections(summary.model_copy(update={"verdict": verdict}), language))
        for verdict in (Verdict(kind="none", reasons=(Reason(code=code),)) for code in codes)
    }
    assert len(summaries) == len(codes)


def make_summary(**overrides: Any) -> SittingSummary:
    """A minimal summary of a sitting, with overrides."""
    defaults: dict[str, Any] = {
        "rater": "anna",
        "n_labels": 3,
        "n_skipped": 1,
        "agreement": None,
        "differences": (),
        "rates": (),
        "verdict": Verdict(kind="undecided"),
        "is_decided": False,
        "more": (),
        "sentences": (),
    }
    return SittingSummary(**{**defaults, **overrides})


def summary_lines(language: Language = "en", **facts: Any) -> dict[str, list[str]]:
    return {title: list(lines) for title, lines in summary_sections(make_summary(**facts), language)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_summary_has_counts_verdict_and_judge_and_no_empty_section(language: Language) -> None:
    say = partial(text, language=language)
    assert summary_lines(language) == {
        say("finished"): [say("counts", labels=3, skipped=1), say("close_window")],
        say("verdict"): [
            say("undecided"),
            say("shown_from", least=MIN_CLUSTERS, shown=SHOWN_FROM, n=0),
        ],
        say("judge"): [say("no_labels"), say("intervals")],
    }


@pytest.mark.parametrize(
    ("width", "width_then", "n_lines"), [(0.3, 0.2, 1), (None, 0.2, 0), (0.3, None, 0), (None, None, 0)]
)
def test_more_labels_are_suggested_if_both_widths_are_known(
    width: float | None, width_then: float | None, n_lines: int
) -> None:
    more = MoreLabels(
        a="alpha",
        b="beta",
        rater="anna",
        n_more=50,
        n_chunks=20,
        n_chunks_then=30,
        width=width,
        width_then=width_then,
    )
    title = text("differences", "en")
    lines = summary_lines(more=(more,)).get(title, [])
    assert len(lines) == n_lines
    assert all(
        {"50", "alpha", "beta", "30.0", "20.0"} <= set(re.findall(r"[\w.]*\w", line)) for line in lines
    )


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (
            Verdict(kind="use", candidate="alpha", condition="shown"),
            text("decided", "en", verdict=text("use", "en", names="alpha")) + ".",
        ),
        (
            Verdict(kind="use", candidate="alpha", condition="if_judge_right"),
            text("conditional", "en", verdict=text("use", "en", names="alpha")) + ".",
        ),
        (
            Verdict(kind="equal", candidates=("alpha", "beta"), condition="shown"),
            text("decided", "en", verdict=text("equal", "en", names="alpha, beta")) + ".",
        ),
        (Verdict(kind="none", reasons=(Reason(code="of_a_later_version"),)), text("no_verdict", "en")),
    ],
)
def test_the_verdict_of_a_summary_names_candidates_and_condition(verdict: Verdict, sentence: str) -> None:
    lines = summary_lines(verdict=verdict)[text("verdict", "en")]
    assert lines[0] == sentence
    assert (len(lines) == 1) == (verdict.kind == "none")


def test_the_decision_to_stop_is_part_of_the_verdict() -> None:
    decision = StoppingDecision(
        outcome="best", leaders=("alpha",), estimand="pool", n_labelled=7, n_chunks=12, sentence=""
    )
    lines = summary_lines(decision=decision)[text("verdict", "en")]
    assert len(lines) == 3


def test_a_label_file_edited_during_a_sitting_is_handled(run: Path) -> None:
    with sitting_page(run, n=12) as (client, sitting):
        file = run / "labels" / "anna.jsonl"
        first = fetch_state(client)["item"]["assignment"]
        post(client, "/record", assignment=first, letter="A", seconds=1)
        second = fetch_state(client)["item"]["assignment"]
        content = file.read_bytes()
        file.write_bytes(content + b"not a row\n")
        status, response = post(client, "/record", assignment=second, letter="B", seconds=1)
        assert status == 409
        assert "anna.jsonl" in response["error"]
        file.write_bytes(content.replace(b'"letter":"A"', b'"letter":"C"'))  # a person repairs it
        status, response = post(client, "/record", assignment=second, letter="B", seconds=1)
        assert (status, response["progress"]["text"].split()[0]) == (200, "2")
        file.unlink()
        assert fetch_state(client)["item"]["assignment"] == response["item"]["assignment"]
        assert file.exists()
    assert sitting.progress().answered == 2


def test_a_clock_running_backwards_does_not_change_the_order(run: Path) -> None:
    times = iter(f"20{year}-01-01T00:00:00+00:00" for year in range(40, 10, -1))
    with sitting_page(run, n=12, clock=lambda: next(times)) as (client, _):
        assignments = label_all(client)
    rows = [json.loads(line) for line in (run / "labels" / "anna.jsonl").read_text().splitlines()]
    assert [row["assignment"] for row in rows if "letter" in row] == assignments


def test_a_third_person_settles_differences_blindly(run: Path) -> None:
    for rater, letter in (("anna", "A"), ("bertil", "C")):
        with sitting_page(run, rater, n=12) as (client, _):
            label_all(client, letter)
    with Adjudication.open(run, "carol") as adjudication:
        total = adjudication.n_total
        assert total > 0
        with serving(adjudication_page(adjudication).routes()) as (client, _):
            client.enter()
            page_state = client.send("GET", "/state").text
            assert not re.search("anna|bertil", page_state)
            item = json.loads(page_state)["item"]
            assert sorted(item["opinions"]) == ["A", "C"]
            assert post(client, "/skip", assignment=item["assignment"], reason="broken", seconds=1)[0] == 409
            values = {"letter": "B", "flags": ["hallucination"], "note": "half right", "seconds": 3}
            while item:
                item = post(client, "/record", assignment=item["assignment"], **values)[1]["item"]
            assert str(total) in summary_text(client)
            assert post(client, "/undo", assignment=None)[1]["item"] is not None
        assert adjudication.n_settled == total - 1


# ---------------------------------------------------------------------------- the command


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (("--rater", "a/b"), 64, "a/b"),
        (("--rater", "../anna"), 64, "anna"),
        (("--rater", ""), 64, "rater"),
        (("--rater", "anna", "--by", "mood"), 64, "mood"),
        (("--rater", "anna", "--estimand", "past"), 64, "past"),
        (("--rater", "anna", "--allow-host", "example.org:80"), 64, "--allow-host"),
        (("--rater", "anna", "--port", "{taken}"), 64, "--port"),
    ],
)
def test_invalid_label_arguments_are_refused(
    run: Path, tmp_path: Path, arguments: tuple[str, ...], exit_code: int, message: str
) -> None:
    with socket.socket() as occupied_socket:
        occupied_socket.bind(("127.0.0.1", 0))
        occupied_socket.listen()
        resolved = [
            argument.replace("{taken}", str(occupied_socket.getsockname()[1])) for argument in arguments
        ]
        result = qaeval("label", run, "--no-browser", *resolved, cwd=tmp_path)
    assert result.returncode == exit_code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unfinished_run_is_refused(run: Path, tmp_path: Path) -> None:
    grades = run / "grades.jsonl"
    grades.write_text("".join(grades.read_text().splitlines(keepends=True)[:-1]))
    result = qaeval("label", run, "--rater", "anna", "--no-browser", cwd=tmp_path)
    assert (result.returncode, "Traceback" in result.stderr) == (65, False)
    assert not (run / "labels").exists()


def test_a_rater_with_an_open_sitting_is_refused(run: Path, tmp_path: Path) -> None:
    with Sitting.open(run, "anna"):
        result = qaeval("label", run, "--rater", "anna", "--no-browser", cwd=tmp_path)
    assert (result.returncode, "anna" in result.stderr) == (74, True)


@pytest.mark.slow
def test_without_a_browser_the_url_is_printed_and_ctrl_c_ends_the_command(run: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "qaeval",
        "label",
        run,
        "--rater",
        "anna",
        "--allow-host",
        "localhost:8000",
    ]
    environment = {**os.environ, "PATH": "", "BROWSER": "", "DISPLAY": ""}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout
    first_lines = [process.stdout.readline() for _ in range(3)]
    assert first_lines[0].startswith("77 questions for --n 100: 5 shown twice")
    assert re.match(r"open http://127\.0\.0\.1:\d+/\?token=", first_lines[1])
    assert re.match(r"open http://localhost:8000/\?token=", first_lines[2])
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (0, "")
    assert "labels/anna.jsonl" in stdout


QUALITY = RaterQuality(
    n_timed=30,
    median_seconds=12.34,
    seconds_first=20.0,
    seconds_last=9.5,
    best_first=0.6,
    best_last=0.75,
    n_too_fast=2,
    n_readable=28,
    n_repeats=5,
    n_repeats_same=4,
)


def quality_lines(**overrides: object) -> list[str]:
    return list(_quality(QUALITY.model_copy(update=overrides), "en"))


def test_the_summary_describes_the_raters_quality() -> None:
    median, drift, drift_best, repeats, too_fast = quality_lines()
    figures = [re.findall(r"[\d.]+\d|\d", line) for line in (median, drift, drift_best, repeats, too_fast)]
    assert figures == [["12.3"], ["20.0", "9.5"], ["60", "75"], ["4", "5"], ["2", "28"]]
    assert next(_quality(QUALITY, "de")) == text("median", "de", seconds="12,3")


@pytest.mark.parametrize(
    "absent",
    [
        {"median_seconds": None},
        {"seconds_first": None},
        {"seconds_last": None},
        {"best_first": None},
        {"best_last": None},
        {"n_repeats": 0},
        {"n_readable": 0},
    ],
)
def test_unknown_quality_figures_are_omitted(absent: dict[str, object]) -> None:
    (n_unchanged,) = [len(set(quality_lines()) & set(quality_lines(**absent)))]
    assert (n_unchanged, len(quality_lines(**absent))) == (4, 4)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_summary_says_what_more_labels_bring_and_when_to_stop(language: Language) -> None:
    more = MoreLabels(
        a="alpha",
        b="beta",
        rater="anna",
        n_more=50,
        n_chunks=12,
        n_chunks_then=24,
        width=0.313,
        width_then=0.226,
    )
    assert _more(more, language) == text(
        "more",
        language,
        a="alpha",
        b="beta",
        n=50,
        now=localised("31.3", language),
        then=localised("22.6", language),
    )
    decision = StoppingDecision(
        outcome="best", leaders=("alpha",), estimand="pool", n_labelled=14, n_chunks=40, sentence=""
    )
    say = partial(text, language=language)
    assert _stopping(None, say) == []
    (line,) = _stopping(decision, say)
    assert re.findall(r"\d+", line) == ["14", "40"]
    assert "alpha" in line
    assert say("estimand_pool") in line
