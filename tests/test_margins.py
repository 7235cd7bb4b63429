"""Margins as people write them, wherever one is read."""

import json
from pathlib import Path

import pytest

import qaeval
from qaeval.cli import run as command
from qaeval.errors import DataError, UsageError
from qaeval.registry.find import find_config
from qaeval.testing import make_run
from qaeval.text.margins import parse_margin


@pytest.mark.parametrize(
    ("written", "share"),
    [
        ("5 points", 0.05),
        ("1 point", 0.01),
        ("5pp", 0.05),
        ("5 pp", 0.05),
        ("5%", 0.05),
        (" 2.5 % ", 0.025),
        ("0.05", 0.05),
        (".5%", 0.005),
        (0.05, 0.05),
        (1e-5, 1e-5),
        ("99.9%", 0.999),
    ],
)
def test_a_margin_is_a_share_in_points_percent_or_as_a_number(written: object, share: float) -> None:
    assert parse_margin(written) == pytest.approx(share)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "5",
        5,
        0,
        "0",
        1,
        "100%",
        "-5%",
        "5 percent",
        "5,5%",
        "nan",
        float("nan"),
        float("inf"),
        True,
        None,
        [],
    ],
)
def test_what_is_no_margin_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"5 points, 5pp, 5% or 0\.05"):
        parse_margin(written)


def test_a_number_above_1_is_asked_back() -> None:
    with pytest.raises(ValueError, match=r"Did you mean 5 points\?"):
        parse_margin("5")


@pytest.mark.slow
def test_options_api_and_registry_read_the_same_margins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = make_run(tmp_path / "run", {"alpha": ["AAB"] * 12, "beta": ["ABB"] * 12}).path

    def printed(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert command([*arguments, "--json"]) == code
        shown = capsys.readouterr()
        return shown.err if code else shown.out

    assert json.loads(printed("report", str(path), "--margin", "8 points"))["margin"] == pytest.approx(0.08)
    assert json.loads(printed("plan", str(path), "--difference", "20pp"))["difference"] == pytest.approx(0.2)
    assert json.loads(printed("plan", "--difference", "0.2"))["difference"] == pytest.approx(0.2)
    assert json.loads(printed("plan"))["difference"] == pytest.approx(0.05)
    assert json.loads(printed("decide", str(path), "--margin", "3%"))["verdict"]["kind"]
    assert "Did you mean 8 points?" in printed("report", str(path), "--margin", "8", code=64)
    assert qaeval.load_run(path, margin="8 points").report.margin == pytest.approx(0.08)
    with pytest.raises(UsageError, match="8 points"):
        qaeval.load_run(path, margin=8)
    Path("qaeval.yaml").write_text("defaults: {margin: 8 points}\n")
    assert find_config(None).defaults.margin == pytest.approx(0.08)
    Path("qaeval.yaml").write_text("defaults: {margin: 8}\n")
    with pytest.raises(DataError, match=r"defaults\.margin: .*8 points"):
        find_config(None)
