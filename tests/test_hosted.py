"""Hosted models: consent before anything is sent, requests in the form that the API takes, labels of a model."""

import json
from pathlib import Path

import pytest

from command import qaeval
from qaeval import api
from qaeval.agreement.label_files import read_labels
from qaeval.errors import DataError, EndpointError, UsageError
from qaeval.run.consent import Disclosure
from qaeval.text.visible import visible
from replay.hosted import KEY, HostedApi

HOST = "127.0.0.1"


def registry(folder: Path, hosted: HostedApi, *, more: str = "") -> Path:
    path = folder / "hosted.yaml"
    entry = f"{{kind: hosted, url: '{hosted.url}', served_name: opus-5, api_key_env: HOSTED_KEY{more}}}"
    price = "{input_per_million: 5, output_per_million: 25, as_of: 2026-11-01, source: 'a price list', currency: USD}"
    path.write_text(f"judges:\n  claude: {entry}\nhosted_prices:\n  claude: {price}\n")
    return path


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTED_KEY", KEY)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    api.compare(["embedded-lead", "embedded-salient"], n=12, seed=7, controls=False, out=folder)
    return folder


def test_nothing_is_sent_without_consent(tmp_path: Path) -> None:
    with HostedApi() as hosted:
        config = registry(tmp_path, hosted)
        asked: list[Disclosure] = []

        def refuse(disclosure: Disclosure) -> bool:
            asked.append(disclosure)
            return False

        for consent in ((), ["api.example.org"], refuse):
            with pytest.raises(UsageError, match="--consent"):
                api.compare(
                    ["embedded-lead"], judge="claude", n=4, config=config, consent=consent, out=tmp_path / "r"
                )
        assert hosted.requests == []
        (disclosure,) = asked
        assert (disclosure.host, disclosure.model, disclosure.n_requests) == (HOST, "claude", 12)
        assert disclosure.n_reply_tokens == 12 * 512
        # 12 rubrics and chunks at 5, 6,144 tokens of replies at 25 a million
        assert "USD" in disclosure.cost
        assert not (tmp_path / "r").exists()


def test_a_script_without_consent_ends_with_the_code_of_usage(tmp_path: Path) -> None:
    with HostedApi() as hosted:
        config = registry(tmp_path, hosted)
        words = ("compare", "embedded-lead", "--judge", "claude", "--n", "2", "--config", str(config))
        refused = qaeval(*words, "--out", str(tmp_path / "r"), cwd=tmp_path)
        assert refused.returncode == 64, refused
        assert HOST in refused.stderr
        assert hosted.requests == []


@pytest.mark.slow
def test_a_hosted_judge_grades_in_the_form_that_the_api_takes(tmp_path: Path) -> None:
    with HostedApi(busy=2, overloaded=1, refuses=10) as hosted:
        config = registry(tmp_path, hosted)
        run = api.compare(
            ["embedded-lead"],
            judge="claude",
            n=4,
            config=config,
            consent=[HOST],
            controls=False,
            out=tmp_path / "r",
        )
        sent = [body for body in hosted.requests if len(body["messages"][-1]["content"]) > 100]
        assert sent
        assert all("top_p" not in body and body["temperature"] == 0 for body in sent)
        assert set(hosted.keys) == {f"Bearer {KEY}"}
        assert hosted.most_in_flight <= 8
        letters = run.letters
        assert set(letters["status"]) == {"graded", "ungraded"}
        assert (letters["status"] == "ungraded").sum() == 1
        stored = "".join(path.read_text(errors="replace") for path in (tmp_path / "r").rglob("*.json*"))
        assert "I can't help" in stored
        assert KEY not in stored


def test_a_field_can_be_omitted_and_a_wrong_key_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HostedApi(fields=()) as hosted:
        config = registry(tmp_path, hosted, more=", sampling: {top_p: omit, seed: omit}")
        api.compare(["embedded-lead"], judge="claude", n=1, config=config, consent=[HOST], out=tmp_path / "a")
        assert not any({"top_p", "seed"} & body.keys() for body in hosted.requests)
        monkeypatch.setenv("HOSTED_KEY", "sk-wrong-key-0000")
        with pytest.raises(EndpointError) as refused:
            api.compare(
                ["embedded-lead"], judge="claude", n=1, config=config, consent=[HOST], out=tmp_path / "b"
            )
        assert "401" in str(refused.value)
        assert "sk-wrong" not in str(refused.value)


@pytest.mark.slow
def test_labels_by_a_model_are_those_of_a_proxy(tmp_path: Path, run: Path) -> None:
    with HostedApi(refuses=7) as hosted:
        config = registry(tmp_path, hosted)
        with pytest.raises(UsageError, match="--consent"):
            api.label_by_model(run, "claude", n=20, by="random", config=config)
        assert hosted.requests == []
        labels = api.label_by_model(run, "claude", n=20, by="random", config=config, consent=[HOST])
    rows = read_labels(run / "labels" / "claude.jsonl")
    n_refused = labels.failures["rejected"]
    assert labels.n_labelled + n_refused >= 20
    assert n_refused >= 2
    assert {(row.rater, row.rater_kind) for row in rows} == {("claude", "model")}
    assert all(row.inclusion is not None and row.note == "The text says so." for row in rows)
    report = api.agreement(run)
    (rater,) = (rater for rater in report.agreement if rater.rater == "claude")
    assert rater.rater_kind == "model"
    assert rater.coefficients is not None


@pytest.mark.slow
def test_the_command_labels_and_the_report_shows_a_model(tmp_path: Path, run: Path) -> None:
    with HostedApi() as hosted:
        config = registry(tmp_path, hosted)
        words = (
            "label",
            str(run),
            "--model",
            "claude",
            "--n",
            "20",
            "--by",
            "random",
            "--config",
            str(config),
        )
        without = qaeval(*words, cwd=tmp_path)
        assert without.returncode == 64, without
        assert hosted.requests == []
        done = qaeval(*words, "--consent", HOST, cwd=tmp_path)
        assert done.returncode == 0, done
        assert "a model" in done.stdout
    api.load_run(run).write_report()
    report = json.loads((run / "report.json").read_text())
    assert ("claude", "model") in {(rater["rater"], rater["rater_kind"]) for rater in report["agreement"]}
    assert visible(done.stdout) == done.stdout


def test_the_judge_of_the_run_and_a_name_that_is_none_do_not_label(tmp_path: Path, run: Path) -> None:
    with HostedApi() as hosted:
        config = registry(tmp_path, hosted)
        with pytest.raises(UsageError, match="judge of the run"):
            api.label_by_model(run, "embedded-lexical", config=config)
        with pytest.raises(UsageError, match="nobody"):
            api.label_by_model(run, "nobody", config=config)


@pytest.mark.parametrize(
    "entry", ["{kind: hosted}", "{kind: hosted, url: 'http://h/v1', hf_id: a/b}", "{consented: true}"]
)
def test_an_entry_that_cannot_be_hosted_is_refused(tmp_path: Path, entry: str) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(f"judges:\n  claude: {entry}\n")
    with pytest.raises(DataError, match="claude"):
        api.compare(["embedded-lead"], judge="claude", n=1, config=config, out=tmp_path / "r")
