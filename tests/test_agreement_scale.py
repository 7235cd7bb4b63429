"""Letters of foreign tables: their order, spellings and missing cells; and claims as papers print them."""

import re
from pathlib import Path

import pytest

from qaeval.agreement.model import AgreementReport
from qaeval.agreement.published import check_claim
from qaeval.agreement.scale import read_scale
from qaeval.agreement.sections import write_agreement
from qaeval.api import agreement
from qaeval.errors import UsageError

CASES = Path(__file__).parent / "data" / "cases"
CLAIM = re.compile(
    r"(?P<table>\S+) --agreement (?P<agreement>\S+) --kappa (?P<kappa>\S+)\s*\|\s*(?P<outcome>\w+)"
)


def measure(name: str, **options: tuple[str, ...]) -> AgreementReport:
    return agreement(CASES / name, columns=("human", "judge"), **options)


def test_pass_is_better_than_fail_whatever_the_alphabet_says() -> None:
    report = measure("letters_pass_fail.csv")
    assert (report.letters, report.order) == (("pass", "fail"), "words")
    (rater,) = report.agreement
    assert rater.coefficients is not None
    assert rater.coefficients.confusion == ((29, 3), (1, 7))
    assert rater.lower_recall is not None
    assert rater.lower_recall.value == 7 / 8


def test_signed_numbers_have_the_order_of_numbers() -> None:
    report = measure("letters_plus_minus.csv")
    assert (report.letters, report.order, report.is_scale_assumed) == (("+1", "0", "-1"), "numbers", True)


def test_one_letter_in_two_cases_is_one_letter() -> None:
    report = measure("letters_mixed_case.csv")
    assert (report.letters, report.merged) == (("A", "B", "C"), {"a": "A", "b": "B"})
    (rater,) = report.agreement
    assert rater.coefficients is not None
    assert rater.coefficients.n == 40


def test_cells_without_a_letter_are_missing_and_counted() -> None:
    report = measure("letters_with_na.csv")
    assert (report.letters, report.n_missing) == (("A", "B", "C"), 35)
    (rater,) = report.agreement
    assert (rater.n_labels, rater.n_ungraded) == (22, 2)


def test_words_without_a_known_order_get_nominal_measures_only(tmp_path: Path) -> None:
    table = tmp_path / "tone.csv"
    rows = ["warm,warm", "cold,cold", "dry,dry", "warm,cold", "dry,warm", "cold,cold"] * 4
    table.write_text("\n".join(["human,judge", *rows]))
    report = agreement(table, columns=("human", "judge"))
    assert (set(report.letters), report.order) == ({"warm", "cold", "dry"}, "none")
    (rater,) = report.agreement
    coefficients = rater.coefficients
    assert coefficients is not None
    assert coefficients.kappa.value is not None
    undefined = (
        coefficients.kappa_linear,
        coefficients.kappa_quadratic,
        coefficients.alpha_ordinal,
        coefficients.gwet_ac2,
    )
    assert [measure.value for measure in undefined] == [None] * 4
    assert (coefficients.prevalence_index, coefficients.bias_index, rater.leniency, rater.lower_recall) == (
        None,
    ) * 4
    page = str(write_agreement(report))
    assert "--scale" in page
    assert not {"weighted", "ordinal", "Leniency"} & set(page.replace(",", " ").split())

    ordered = agreement(table, columns=("human", "judge"), scale=("warm", "dry", "cold"))
    assert ordered.order == "given"
    assert ordered.agreement[0].leniency is not None


@pytest.mark.parametrize(
    ("cells", "letters", "order"),
    [
        (["0.5", "1", "0", "1.0"], ("1", "0.5", "0"), "numbers"),
        (["0,5", "2"], ("2", "0,5"), "numbers"),
        (["Yes", "no", "YES"], ("YES", "no"), "words"),
        (["True", "False"], ("True", "False"), "words"),
        (["good", "bad"], ("good", "bad"), "words"),
        (["fail"], ("pass", "fail"), "words"),
        (["A", "C", "nan"], ("A", "C"), "letters"),
        (["D", "A"], ("A", "D"), "none"),
        (["low", "high"], ("high", "low"), "none"),
        (["pass", "skip"], ("pass", "skip"), "none"),
    ],
)
def test_an_order_is_that_of_numbers_letters_or_known_words(
    cells: list[str], letters: tuple[str, ...], order: str
) -> None:
    scale = read_scale(cells)
    assert (scale.letters, scale.order) == (letters, order)


def test_a_given_scale_may_hold_what_is_otherwise_missing_or_the_same_letter() -> None:
    scale = read_scale(["NA", "a", "A", "N/A"], ("A", "a", "NA"))
    assert scale.letters == ("A", "a", "NA")
    assert scale.spellings == {"A": "A", "a": "a", "NA": "NA", "N/A": ""}


def claims() -> list[tuple[str, ...]]:
    lines = (CASES / "claims.txt").read_text().splitlines()
    return [match.groups() for line in lines if (match := CLAIM.match(line))]


@pytest.mark.parametrize(("table", "printed", "kappa", "outcome"), claims())
def test_published_claims_are_read_as_papers_print_them(
    table: str, printed: str, kappa: str, outcome: str
) -> None:
    check = check_claim(table, agreement=printed, kappa=kappa)
    is_undefined = outcome == "kappa"
    assert check.is_possible == (outcome != "impossible")
    assert any("undefined" in warning for warning in check.warnings) == is_undefined


def test_the_claims_are_all_there() -> None:
    assert len(claims()) == 7


def test_a_whole_table_gives_the_exact_values() -> None:
    # Po 26/39, Pe (30·17 + 9·22)/39² = .4655: kappa .3764
    check = check_claim("17,13/0,9", agreement="66.7", kappa="0.38")
    assert (check.n, check.is_possible, check.n_tables) == (39, True, None)
    assert check.bounds.kappa_min == check.bounds.kappa_max == pytest.approx(0.3764, abs=5e-5)
    assert not check_claim("17,13/0,9", kappa="0.40").is_possible
    assert not check_claim("17,13/0,9", agreement="70").is_possible


def test_a_weighted_kappa_of_a_whole_table_is_a_warning() -> None:
    table = "20,5,0/5,20,5/0,5,20"
    check = check_claim(table, kappa="0.71")
    assert check.linear.kappa_max == pytest.approx(0.71, abs=0.005)
    assert (check.is_possible, len(check.warnings)) == (True, 1)


def test_shares_with_the_number_of_items_are_the_counts_they_round_from() -> None:
    by_share = check_claim("64.9,29.2,5.8:97.7,1.8,.6", items=171, agreement="65.0", kappa="0.30")
    assert by_share == check_claim("111,50,10:167,3,1", agreement="65.0", kappa="0.30")
    assert check_claim("0,65;0,29;0,06:0,90;0,10;0,00", items=100).n == 100


@pytest.mark.parametrize(
    ("table", "options"),
    [
        ("65,29,6:98,2,0", {"items": 1000}),  # several whole numbers
        ("111,50,10:167,3,1", {"items": 170}),
        ("17,13/0,9,1", {}),
        ("17,13/0", {}),
        ("17;13", {}),
        ("10,10:10,10", {"kappa": "80 %"}),
        ("10,10:10,10", {"agreement": "about 80"}),
        ("10,10:10,10", {"agreement": "."}),
    ],
)
def test_what_cannot_be_read_is_refused(table: str, options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        check_claim(table, **options)  # type: ignore[arg-type]


PUBLISHED = re.compile(r"^qaeval agreement --table (\S+)(?: --agreement (\S+))? --kappa (\S+)$", re.MULTILINE)


def test_the_published_cases_of_the_documentation_come_out_as_it_says() -> None:
    page = (Path(__file__).parents[1] / "docs" / "claims.md").read_text()
    checks = {
        table: check_claim(table, agreement=printed or None, kappa=kappa)
        for table, printed, kappa in PUBLISHED.findall(page)
    }
    assert [table for table, check in checks.items() if not check.is_possible] == ["111,50,10:167,3,1"]
    assert {table: round(check.bounds.kappa_max, 3) for table, check in checks.items()} == {
        "111,50,10:167,3,1": 0.092,
        "40,9/6,45": 0.7,
        "80,10/5,5": 0.318,
        "1467,782/1309,16232": 0.524,
        "21,12,0,0/4,17,1,0/3,9,15,2/0,0,0,1": 0.473,
        "106,10,4/22,28,10/2,12,6": 0.429,
    }
    (weighted,) = checks["21,12,0,0/4,17,1,0/3,9,15,2/0,0,0,1"].warnings
    assert "linear weights" in weighted


def test_shares_that_no_counts_give_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match="no whole numbers"):
        check_claim("30,30,20,10:30,30,20,10", items=2_000_000)
