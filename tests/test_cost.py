"""What items cost: by hand."""

from dataclasses import replace

import pytest

from qaeval.analysis.servers import server_span
from qaeval.records import Reading
from qaeval.report.document import CandidateCost, Report
from qaeval.report.facts import MachineFacts
from report_builders import JUDGE, RUN, Case, candidate, case

approx = pytest.approx

HALF = ["AB"] * 12  # 12 of 24 usable
ALL = ["AA"] * 12
OURS = MachineFacts(
    name="ours",
    gpu_watts=72.0,
    price_per_hour=1.2,
    currency="EUR",
    terms="on demand",
    as_of="2026-01-01",
    source="an offer",
)


def two(*, alpha: float = 60.0, beta: float = 60.0) -> Case:
    """Two candidates, their seconds of work as given; alpha is usable half the time, beta always."""
    made = case({"alpha": HALF, "beta": ALL}, items_per_sample=2)
    seconds = {"alpha": alpha, "beta": beta}
    sessions = [
        one.model_copy(update={"seconds": seconds.get(one.model, one.seconds)}) for one in made.rows.sessions
    ]
    return made.with_rows(sessions=tuple(sessions))


def costs(report: Report) -> dict[str, CandidateCost]:
    return {one.candidate: one for one in report.timing.costs}


def sentences(report: Report) -> str:
    return " ".join(one.text for one in report.timing.headline)


def test_cost_is_worked_by_hand() -> None:
    # 60 s for 24 items, 12 of them usable: 1,000 items take 2,500 s, 1,000 usable ones 5,000 s = EUR 1.67 = 100 Wh at 72 W
    made = two().report(machines={"alpha": OURS, "beta": OURS})
    alpha = costs(made)["alpha"]
    assert alpha.seconds_per_1000 == approx(2500)
    assert alpha.seconds_per_1000_usable.value == approx(5000)
    assert alpha.price_per_1000 == approx(2500 / 3600 * 1.2)
    assert alpha.price_per_1000_usable is not None
    assert alpha.price_per_1000_usable.value == approx(5000 / 3600 * 1.2)
    assert alpha.wh_per_1000_usable is not None
    assert alpha.wh_per_1000_usable.value == approx(100)
    usable = made.candidates[0].usable
    assert alpha.seconds_per_1000_usable.low == approx(2500 / (usable.high or 0))
    assert alpha.seconds_per_1000_usable.high == approx(2500 / (usable.low or 0))


def test_the_start_of_a_server_is_paid_and_told_apart() -> None:
    made = two()
    sessions = [one.model_copy(update={"load_s": 120.0}) for one in made.rows.sessions]
    alpha = costs(made.with_rows(sessions=tuple(sessions)).report(machines={"alpha": OURS}))["alpha"]
    assert (alpha.stage.work_s, alpha.stage.load_s) == (60.0, 120.0)
    assert alpha.stage.price == approx(180 / 3600 * 1.2)
    assert alpha.seconds_per_1000 == approx(2500)  # more items do not start a server again


def test_failed_items_are_paid_for_and_are_not_usable() -> None:
    made = case({"alpha": ["AA"] * 12 + ["x"] * 12, "beta": ["AA"] * 24}, items_per_sample=2)
    found = costs(made.report())
    assert found["alpha"].seconds_per_1000_usable.value == approx(
        2 * (found["beta"].seconds_per_1000_usable.value or 0)
    )


def test_the_headline_says_who_is_cheaper_and_by_which_price() -> None:
    text = sentences(two(alpha=30.0).report(machines={"alpha": OURS, "beta": OURS}))
    # alpha 2,500 s and beta 2,500 s for 1,000 usable ones: half the time for half the quality
    assert "alpha costs 0.0 % less than beta" in text
    assert "EUR 1.20 per hour, ours on demand, as of 2026-01-01" in text
    text = sentences(two(alpha=60.0).report(machines={"alpha": OURS, "beta": OURS}))
    assert "beta costs 50.0 % less than alpha" in text


def test_without_a_price_cost_is_machine_time_and_says_so() -> None:
    text = sentences(two().report())
    assert "1 h 23 min" in text  # 5,000 s
    assert "machine time" in text
    assert "EUR" not in text


def test_prices_in_two_currencies_are_not_compared() -> None:
    dollars = OURS.model_copy(update={"currency": "USD", "name": "theirs"})
    made = two().report(machines={"alpha": OURS, "beta": dollars})
    assert sentences(made) == ""
    assert made.timing.cost_unit == ""
    assert not any(one.is_on_front for one in made.timing.costs)


@pytest.mark.parametrize(("as_of", "days"), [("2025-10-07", None), ("2025-10-06", 91)])
def test_an_old_price_is_flagged(as_of: str, days: int | None) -> None:
    made = replace(two(), run=RUN.model_copy(update={"finished": "2026-01-05T10:20:00+00:00"}))
    machine = OURS.model_copy(update={"as_of": as_of})
    report = made.report(machines={"alpha": machine, "beta": machine, JUDGE.name: machine})
    assert costs(report)["alpha"].stage.stale_days == days
    cautions = [one.text for one in report.timing.headline if one.kind == "caution"]
    assert len(cautions) == (days is not None)


def test_the_front_leaves_out_what_another_beats_in_both() -> None:
    made = case({"alpha": HALF, "beta": ALL, "gamma": HALF}, items_per_sample=2)
    seconds = {"alpha": 10.0, "beta": 60.0, "gamma": 70.0}
    sessions = [one.model_copy(update={"seconds": seconds.get(one.model, 1.0)}) for one in made.rows.sessions]
    found = costs(made.with_rows(sessions=tuple(sessions)).report())
    # for 1,000 usable: alpha 833 s, beta 2,500 s and better, gamma 5,833 s
    assert {name: one.is_on_front for name, one in found.items()} == {
        "alpha": True,
        "beta": True,
        "gamma": False,
    }


def test_nothing_usable_has_no_cost_of_usable_items() -> None:
    made = case({"alpha": ["CC"] * 12, "beta": ALL}, items_per_sample=2)
    alpha = costs(made.report())["alpha"]
    assert alpha.seconds_per_1000_usable.value is None
    assert alpha.seconds_per_1000_usable.reason == "no item is usable"
    assert not alpha.is_on_front


def test_an_embedded_model_has_no_machine() -> None:
    made = case({"alpha": ALL, "beta": ALL}, items_per_sample=2, beta=candidate("beta", kind="embedded"))
    assert list(costs(made.report())) == ["alpha"]


def test_cost_and_age_count_in_the_choice() -> None:
    old = candidate("alpha", released="2024-07")
    made = replace(two(), candidates=(old, candidate("beta")))
    criteria = {
        choice.candidate: {one.name: one.score for one in choice.criteria}
        for choice in made.report().timing.choice
    }
    assert criteria["alpha"]["cost"] == approx(0.5)
    assert criteria["beta"]["cost"] == 1.0
    assert criteria["alpha"]["maintenance"] == approx(0.5)  # one and a half of three years
    assert criteria["beta"]["maintenance"] is None


# ------------------------------------------------------------------------------ percentiles of a server's histogram

TTFT = "vllm:time_to_first_token_seconds"


def reading(session: str, **buckets: float) -> Reading:
    bounds = {"b1": "0.1", "b2": "0.2", "b3": "0.4", "inf": "+Inf"}
    values = {f"{TTFT}_bucket {bounds[name]}": value for name, value in buckets.items()}
    values |= {f"{TTFT}_sum": 0.0, f"{TTFT}_count": buckets["inf"]}
    return Reading(stage="generate", model="alpha", session=session, at_s=0.0, values=values)


def test_percentiles_are_read_off_the_growth_of_a_histogram() -> None:
    # what the server had before does not count; grown by 10 below 0.1, 20 to 0.2, 10 to 0.4
    before, after = reading("1", b1=5, b2=5, b3=5, inf=5), reading("1", b1=15, b2=35, b3=45, inf=45)
    span = server_span([before, after], "generate", "alpha")
    assert span is not None
    assert span.ttft_p50_s == approx(0.15)  # the 20th of 40: half-way through the second bucket
    assert span.ttft_p95_s == approx(0.2 + 0.2 * 8 / 10)  # the 38th: the 8th of the third's 10
    assert span.inter_token_p50_s is None


def test_a_percentile_above_the_last_bound_is_not_known() -> None:
    before, after = reading("1", b1=0, b2=0, b3=0, inf=0), reading("1", b1=1, b2=1, b3=1, inf=10)
    span = server_span([before, after], "generate", "alpha")
    assert span is not None
    assert span.ttft_p50_s is None
