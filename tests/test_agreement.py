"""`qaeval agreement` and `qaeval plan`: for runs, files and published claims, and with invalid input."""

import json
import re
import shutil
from pathlib import Path

import pytest
from pytest import approx  # noqa: PT013

from qaeval.agreement.messages import verdict_line
from qaeval.agreement.sections import write_agreement
from qaeval.api import agreement
from qaeval.cli import run
from qaeval.errors import DataError, UsageError

CASE = "111,50,10:167,3,1"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def letters_csv(*columns: str) -> str:
    header = ",".join(f"r{number}" for number in range(len(columns)))
    return "\n".join([header, *(",".join(row) for row in zip(*columns, strict=True))]) + "\n"


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


# ------------------------------------------------------------------------------ a published claim


def test_impossible_published_claim_is_detected(capsys: pytest.CaptureFixture[str]) -> None:
    # 111/171 = 64.9 % and 112/171 = 65.5 %: no count gives 65.0 %
    claim = ("agreement", "--table", CASE, "--agreement", "65.0", "--kappa", "0.30")
    check = json.loads(run_command(capsys, *claim, "--json")[1])
    assert (check["n"], check["is_possible"], len(check["contradictions"])) == (171, False, 3)
    assert check["bounds"]["kappa_max"] == approx(0.0918, abs=5e-5)
    assert (check["kappa_low"], check["kappa_high"]) == (approx(0.028, abs=5e-4), approx(0.031, abs=5e-4))
    assert check["baseline"] == approx(111 / 171)
    code, out, _ = run_command(capsys, *claim)
    assert (code, out.splitlines()[0]) == (0, "The claim is impossible.")


def test_consistent_claim_is_possible(capsys: pytest.CaptureFixture[str]) -> None:
    # 20 + 20 of 50 agree, each rater 25:25: kappa (.8 - .5)/.5 = .6
    code, out, _ = run_command(
        capsys, "agreement", "--table", "25,25:25,25", "--agreement", "80", "--kappa", "0.6"
    )
    assert (code, out.splitlines()[0]) == (0, "The claim is possible.")


def test_printed_precision_of_a_claim_matters(capsys: pytest.CaptureFixture[str]) -> None:
    # 111/171 = 64.91 %: 65 is right, 65.0 is not
    rounded = run_command(capsys, "agreement", "--table", CASE, "--agreement", "65")[1]
    exact = run_command(capsys, "agreement", "--table", CASE, "--agreement", "65.0")[1]
    assert "No whole number" not in rounded
    assert "No whole number" in exact


def test_table_without_a_claim_gives_possible_values(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_command(capsys, "agreement", "--table", CASE)
    assert code == 0
    assert "claim" not in out
    assert "possible kappa" in out


def test_json_of_a_claim_check_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run_command(capsys, "agreement", "--table", CASE, "--json")
    report = json.loads(out)
    assert report["kappa_low"] is None
    assert report["bounds"]["kappa_max"] == approx(0.0918, abs=5e-5)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--table", "1,2"), "letter counts of both raters"),
        (("--table", "1,2:3,4"), "different numbers of items"),
        (("--table", "1,2:1,2", "--kappa", "high"), "as it was printed"),
        (("--kappa", "0.3", "x.csv"), "require --table"),
        (("--table", "1,2:1,2", "x.csv"), "omit the run or file"),
        ((), "needs a run directory, a file"),
    ],
)
def test_invalid_arguments_are_explained(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    code, _, err = run_command(capsys, "agreement", *arguments)
    assert code == 64
    assert expected in err


# ------------------------------------------------------------------------------ a file


def test_two_columns_are_a_reference_and_a_judge(tmp_path: Path) -> None:
    report = agreement(write(tmp_path / "x.csv", letters_csv("AABBCC" * 4, "AAABBC" * 4)))
    (result,) = report.agreement
    assert (report.judge, result.rater, result.rater_kind) == ("r1", "r0", "unknown")
    assert result.coefficients is not None
    assert result.coefficients.confusion == ((8, 0, 0), (4, 4, 0), (0, 4, 4))
    assert result.coefficients.kappa.value == approx((16 / 24 - 1 / 3) / (2 / 3))
    # r0 is the rater's name
    assert re.findall(r"\d+", result.sentences[0]) == ["16", "0", "4", "8", "0", "0"]
    assert report.n_without_cluster == 24


def test_coefficients_match_hand_calculation(tmp_path: Path) -> None:
    # p_o = 2/3, r = (1/3, 1/3, 1/3), c = (1/2, 1/3, 1/6): q = (5/12, 1/3, 1/4)
    report = agreement(write(tmp_path / "x.csv", letters_csv("AABBCC" * 4, "AAABBC" * 4)))
    coefficients = report.agreement[0].coefficients
    assert coefficients is not None
    pi_e = (25 + 16 + 9) / 144
    assert coefficients.scott_pi.value == approx((2 / 3 - pi_e) / (1 - pi_e))
    assert coefficients.brennan_prediger.value == approx((2 / 3 - 1 / 3) / (2 / 3))
    ac_e = (1 - pi_e) / 2
    assert coefficients.gwet_ac1.value == approx((2 / 3 - ac_e) / (1 - ac_e))
    # alpha nominal: 1 - D_o/D_e with n = 48 letters, 16 disagreeing letters
    counts = (20, 16, 12)
    d_e = (48**2 - sum(n * n for n in counts)) / (48 * 47)
    assert coefficients.alpha.value == approx(1 - (16 / 48) / d_e)
    assert coefficients.observed_max == approx(1 / 3 + 1 / 3 + 1 / 6)
    # best or not: both A 8, reference only 0, judge only 4, neither 12
    assert coefficients.prevalence_index == approx((8 - 12) / 24)
    assert coefficients.bias_index == approx(-4 / 24)
    assert coefficients.kappa_linear.value != coefficients.kappa_quadratic.value


def test_several_raters_are_compared_in_pairs_and_together(tmp_path: Path) -> None:
    text = letters_csv("AABBCC" * 4, "AAABBC" * 4, "ABBBCC" * 4)
    report = agreement(write(tmp_path / "x.csv", text))
    assert report.agreement == ()
    assert [(pair.a, pair.b) for pair in report.raters] == [("r0", "r1"), ("r0", "r2"), ("r1", "r2")]
    assert report.several is not None
    assert (report.several.raters, report.several.n_items) == (("r0", "r1", "r2"), 24)
    # an item of three: 1/3 of the pairs agree where two letters are alike; 3 of 6 items disagree so
    observed = (3 + 3 / 3) / 6
    shares = [(2 + 3 + 1) / 18, (2 + 2 + 3) / 18, (2 + 1 + 2) / 18]
    expected = sum(share**2 for share in shares)
    assert report.several.fleiss.value == approx((observed - expected) / (1 - expected))


def test_judge_is_compared_with_every_rater(tmp_path: Path) -> None:
    text = letters_csv("AABBCC" * 4, "AAABBC" * 4, "AAAAAA" * 4)
    report = agreement(write(tmp_path / "x.csv", text), judge="r2")
    assert [result.rater for result in report.agreement] == ["r0", "r1"]
    assert [(pair.a, pair.b) for pair in report.raters] == [("r0", "r1")]
    assert any("does not discriminate" in text for text in report.agreement[0].sentences)


def test_missing_letters_are_counted_and_excluded(tmp_path: Path) -> None:
    text = "anna,judge\nA,A\nB,\n,C\nC,C\n"
    (result,) = agreement(write(tmp_path / "x.csv", text)).agreement
    assert result.coefficients is not None
    assert (result.n_labels, result.coefficients.n, result.n_ungraded) == (3, 2, 1)
    assert any(text.startswith("Excluded labels: 1 ") for text in result.sentences)


def test_clusters_make_the_interval_wider(tmp_path: Path) -> None:
    rows = [
        ("AABBCC"[i % 6], "AAABBC"[i % 6] if i // 6 % 2 else "AABBCC"[i % 6], f"d{i // 6}")
        for i in range(144)
    ]
    text = "anna,judge,doc\n" + "\n".join(",".join(row) for row in rows) + "\n"
    path = write(tmp_path / "x.csv", text)
    unclustered, by_doc = agreement(path), agreement(path, cluster="doc")
    widths = []
    for report in (unclustered, by_doc):
        coefficients = report.agreement[0].coefficients
        assert coefficients is not None
        widths.append((coefficients.kappa.high or 0) - (coefficients.kappa.low or 0))
    assert widths[1] > 1.15 * widths[0]
    assert (unclustered.n_without_cluster, by_doc.n_without_cluster) == (144, 0)


def test_groups_have_separate_coefficients(tmp_path: Path) -> None:
    text = "anna,judge,kind\nA,A,x\nA,B,x\nB,B,y\nC,C,y\n"
    report = agreement(write(tmp_path / "x.csv", text), by="kind")
    shares = {
        group.group: group.agreement.coefficients.observed.value
        for group in report.groups
        if group.agreement.coefficients
    }
    assert shares == {"x": 0.5, "y": 1.0}


def test_numeric_letters_assume_the_highest_is_best(tmp_path: Path) -> None:
    text = "anna,judge\n5,4\n1,1\n10,10\n"
    path, columns = write(tmp_path / "x.csv", text), ("anna", "judge")
    assumed = agreement(path, columns=columns)
    explicit = agreement(path, columns=columns, scale=("1", "4", "5", "10"))
    assert (assumed.letters, assumed.is_scale_assumed) == (("10", "5", "4", "1"), True)
    assert (explicit.letters, explicit.is_scale_assumed) == (("1", "4", "5", "10"), False)
    assert "--scale=1,4,5,10" in str(write_agreement(assumed))
    assert "--scale" not in str(write_agreement(explicit))


def test_json_lines_are_read_like_a_table(tmp_path: Path) -> None:
    # a string may hold line breaks of Unicode
    lines = '{"anna": "A", "judge": "A", "n": "a\u2028b\x85c"}\n{"anna": "B", "judge": null}\n{"anna": "C", "judge": "A"}\n'
    (result,) = agreement(write(tmp_path / "x.jsonl", lines)).agreement
    assert result.coefficients is not None
    assert result.coefficients.n == 2


@pytest.mark.parametrize(
    ("judge", "standing"),
    [
        ("A" * 40 + "B" * 20, "beats both"),  # always right
        ("A" * 60, "chance"),  # always the most frequent letter
        ("A" * 34 + "B" * 18 + "A" * 8, "majority"),  # 46 of 60 right, a constant answer 40
    ],
)
def test_verdict_line_summarises_the_standing(tmp_path: Path, judge: str, standing: str) -> None:
    path = write(tmp_path / "letters.csv", letters_csv("A" * 40 + "B" * 20, judge))
    report = agreement(path)
    assert report.agreement[0].standing == standing
    line = verdict_line(report)
    assert ("is not shown" in line) is (standing != "beats both")
    assert ("always answering A" in line) is (standing != "chance")
    assert f"{100 * report.agreement[0].coefficients.observed.value:.1f} %" in line  # type: ignore[union-attr]


def test_the_verdict_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "letters.csv", letters_csv("A" * 40 + "B" * 20, "A" * 60))
    out = run_command(capsys, "agreement", str(path))[1]
    assert out.splitlines()[0] == verdict_line(agreement(path))


def test_single_letter_has_no_kappa_with_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "x.csv", letters_csv("AAAA", "AAAA"))
    coefficients = agreement(path).agreement[0].coefficients
    assert coefficients is not None
    assert coefficients.kappa.value is None
    assert coefficients.kappa.reason
    code, out, _ = run_command(capsys, "agreement", str(path))
    assert code == 0
    assert f"undefined: {coefficients.kappa.reason}" in out
    assert " nan" not in out.lower()


def test_a_single_cluster_has_no_interval(tmp_path: Path) -> None:
    text = "anna,judge,doc\n" + "A,A,d\nB,B,d\nC,A,d\n" * 5
    (result,) = agreement(write(tmp_path / "x.csv", text), cluster="doc").agreement
    assert result.coefficients is not None
    assert (result.standing, result.coefficients.n_chunks) == ("too few chunks", 1)
    assert not result.coefficients.kappa.has_interval
    assert "fewer than 10" in (result.coefficients.kappa.reason or "")


def test_raters_who_agree_less_than_the_judge_are_reported(tmp_path: Path) -> None:
    text = letters_csv("ABC" * 10, "BCA" * 9 + "BBA", "ABC" * 10)
    report = agreement(write(tmp_path / "x.csv", text), judge="r2")
    (pair,) = report.raters
    by_rater = {result.rater: result.coefficients for result in report.agreement}
    assert by_rater["r0"] is not None
    assert (by_rater["r0"].kappa.value or 0) > (pair.coefficients.kappa.value or 0)
    assert "than the judge does" in pair.sentence
    assert pair.sentence.count("r0") == 2  # named again as the rater with whom the judge agrees more
    assert pair.sentence.endswith("the rubric or the labels are too ambiguous to rate a judge.")


def test_that_raters_agree_less_than_the_judge_may_be_chance(tmp_path: Path) -> None:
    """Two of 30 letters more: kappa 0.7 of the raters, with an interval that holds the judge's 0.8."""
    first = "ABC" * 10
    text = letters_csv(first, "BBCACCABA" + first[9:], "BBCACC" + first[6:])
    report = agreement(write(tmp_path / "x.csv", text), judge="r2")
    (pair,) = report.raters
    assert pair.sentence.endswith("than the judge does with r0 and with r1; that may be chance.")


@pytest.mark.parametrize(
    ("name", "text", "options", "expected"),
    [
        ("x.csv", "anna\nA\nB\n", {}, "needs two columns of letters, found anna"),
        ("x.csv", "anna,judge\n", {}, "at least one row"),
        ("x.csv", "anna,anna\nA,B\n", {}, "two columns have the same name"),
        ("x.csv", "anna,judge\nA,A\nB\n", {}, "x.csv:3: expected 2 cells"),
        ("x.csv", 'anna,judge\n"A"x,A\n', {}, "x.csv:2: not a CSV row"),
        ("x.csv", "anna,judge\nA,\0\n", {}, "NUL"),
        ("x.csv", "anna,judge\nA,D\n", {"columns": ("anna", "judge"), "scale": ("A", "B")}, "'D' (row 1)"),
        ("x.csv", "anna,judge\nA,\n,B\n", {}, "no row has letters in two of the columns"),
        ("x.csv", "anna,judge\nA,A\n", {"columns": ("anna", "judge")}, "name the scale"),
        ("x.csv", "anna,judge\nA,A\n", {"cluster": "dok"}, "no column 'dok'"),
        ("x.jsonl", "[1]\n", {}, "x.jsonl:1: expected an object"),
        ("x.jsonl", "{\n", {}, "x.jsonl:1: not JSON"),
        ("x.jsonl", "\n", {}, "holds no row"),
    ],
)
def test_a_bad_file_is_explained(
    tmp_path: Path, name: str, text: str, options: dict[str, object], expected: str
) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises((DataError, UsageError)) as caught:
        agreement(path, **options)  # type: ignore[arg-type]
    assert expected in str(caught.value)


# ------------------------------------------------------------------------------ a run, and a plan from it


@pytest.fixture(scope="module")
def finished_run(embedded_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(embedded_run, tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.slow
def test_a_run_is_compared_with_its_labels(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    code, out, _ = run_command(capsys, "agreement", str(finished_run), "--by", "candidate")
    assert code == 0
    lines = out.splitlines()
    assert lines[2] == "embedded-lexical against claude-1"
    assert lines[3].strip().startswith("Of the ")
    assert "Excluded labels" in out
    assert "By candidate" in out
    assert "embedded-salient" in out


@pytest.mark.slow
def test_json_of_a_run_matches_its_report_file(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    actual = json.loads(run_command(capsys, "agreement", str(finished_run), "--json", "--by", "type")[1])
    report = json.loads((finished_run / "report.json").read_text())
    assert actual["agreement"][0] == report["agreement"][0]
    assert {group["group"] for group in actual["groups"]} == {"conceptual", "comparison"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(("--by", "colour"), "expected candidate"), (("--cluster", "doc"), "--cluster applies to a file")],
)
def test_file_options_are_refused_for_a_run(
    finished_run: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    code, _, err = run_command(capsys, "agreement", str(finished_run), *arguments)
    assert code == 64
    assert expected in err


@pytest.mark.slow
def test_a_plan_from_a_run(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ("plan", str(finished_run), "--difference", "0.1")
    code, out, _ = run_command(capsys, *plan, "--power", "0.9", "--chunks", "20")
    assert code == 0
    assert all(number in out for number in ("10.0 points", "90 %", "20 chunks"))
    planned = json.loads(run_command(capsys, *plan, "--json")[1])
    assert [pair["n_chunks"] for pair in planned["pairs"]] == [24]
    assert 0 < planned["pairs"][0]["power"] < 1
    fewer = json.loads(run_command(capsys, *plan, "--chunks", "20", "--json")[1])
    assert fewer["pairs"][0]["n_chunks"] == 20
    assert fewer["pairs"][0]["power"] < planned["pairs"][0]["power"]


@pytest.mark.slow
def test_plan_reports_a_pilot_with_distant_candidates(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run_command(capsys, "plan", str(finished_run), "--difference", "0.02")
    assert "2.0 points are left" in out
    _, out, _ = run_command(capsys, "plan", "--rate", "0.5", "--chunks", "20", "--difference", "0.2")
    assert "points are left" not in out


@pytest.mark.slow
def test_plan_without_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    independent = json.loads(
        run_command(capsys, "plan", "--rate", "0.8", "--icc", "0", "--chunks", "50", "--json")[1]
    )
    clustered = json.loads(
        run_command(capsys, "plan", "--rate", "0.8", "--icc", "0.5", "--chunks", "50", "--json")[1]
    )
    # two candidates of one chunk share its rate: what clusters cancels, so more clustering needs fewer chunks
    assert clustered["pairs"][0]["needed"] < independent["pairs"][0]["needed"]
    # independent items: 2 x .8 x .2 / 3 per chunk, (1.96 + .8416)^2 x .1067 / .0025, and the loss makes it a little more
    assert independent["pairs"][0]["needed"] == approx(345, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--difference", "0.9", "--rate", "0.5", "--chunks", "20"), "a difference must be"),
        (("--power", "2"), "--power"),
    ],
)
def test_an_impossible_plan_is_explained(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    code, _, err = run_command(capsys, "plan", *arguments)
    assert code == 64
    assert expected in err
