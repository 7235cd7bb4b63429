"""Cost of items, checked against values worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from command import Typed, qaeval
from qaeval.analysis.replies import ReplyTotals
from qaeval.analysis.server_metrics import server_span
from qaeval.cli import run
from qaeval.cli.cost import _number
from qaeval.comparison.html import render_html
from qaeval.comparison.markdown import render_markdown
from qaeval.comparison.report import Report
from qaeval.comparison.sections import write_sections
from qaeval.comparison.speed import speed
from qaeval.cost.alternatives import steady_work
from qaeval.cost.machines import node_costs, run_seconds
from qaeval.cost.model import CandidateCost, CostReport
from qaeval.cost.run_cost import CostAssumptions, cost_run
from qaeval.cost.sections import write_cost_report
from qaeval.errors import UsageError
from qaeval.records import Reading, Session
from qaeval.report.facts import HostedFacts, MachineFacts
from replay.server import LoopbackServer
from report_builders import JUDGE, RUN, Case, candidate, case

approx = pytest.approx

HALF_USABLE = ["AB"] * 12  # 12 of 24 usable
ALL_USABLE = ["AA"] * 12
OUR_MACHINE = MachineFacts(
    name="ours",
    gpu_watts=72.0,
    price_per_hour=1.2,
    currency="EUR",
    terms="on demand",
    as_of="2026-01-01",
    source="an offer",
)


def two_candidates(*, alpha: float = 60.0, beta: float = 60.0) -> Case:
    """Two candidates, each with its seconds of work; half of alpha's items are usable, all of beta's."""
    inputs = case({"alpha": HALF_USABLE, "beta": ALL_USABLE}, items_per_sample=2)
    seconds = {"alpha": alpha, "beta": beta}
    sessions = [
        row.model_copy(update={"seconds": seconds.get(row.model, row.seconds)})
        for row in inputs.rows.sessions
    ]
    return inputs.with_rows(sessions=tuple(sessions))


def costs_by_candidate(report: Report) -> dict[str, CandidateCost]:
    return {cost.candidate: cost for cost in report.timing.costs}


def headline_text(report: Report) -> str:
    return " ".join(finding.text for finding in report.timing.headline)


@pytest.mark.slow
def test_cost_of_usable_items_is_worked_by_hand() -> None:
    # 60 s for 24 items, 12 of them usable: 1,000 items take 2,500 s, 1,000 usable ones 5,000 s = EUR 1.67 = 100 Wh at 72 W
    report = two_candidates().report(machines={"alpha": OUR_MACHINE, "beta": OUR_MACHINE})
    alpha = costs_by_candidate(report)["alpha"]
    assert alpha.seconds_per_1000 == approx(2500)
    assert alpha.seconds_per_1000_usable.value == approx(5000)
    assert alpha.price_per_1000 == approx(2500 / 3600 * 1.2)
    assert alpha.price_per_1000_usable is not None
    assert alpha.price_per_1000_usable.value == approx(5000 / 3600 * 1.2)
    assert alpha.wh_per_1000_usable is not None
    assert alpha.wh_per_1000_usable.value == approx(100)
    usable = report.candidates[0].usable
    assert alpha.seconds_per_1000_usable.low == approx(2500 / (usable.high or 0))
    assert alpha.seconds_per_1000_usable.high == approx(2500 / (usable.low or 0))


@pytest.mark.slow
def test_co2_is_the_energy_bound_times_the_grid_factor_and_cites_its_source() -> None:
    # 100 Wh at 350 g per kWh
    grid = OUR_MACHINE.model_copy(update={"grid_g_per_kwh": 350.0, "grid_source": "the operator, 2025"})
    report = two_candidates().report(machines={"alpha": grid, "beta": grid})
    alpha = costs_by_candidate(report)["alpha"]
    assert alpha.co2_g_per_1000_usable is not None
    assert alpha.co2_g_per_1000_usable.value == approx(35)
    section = speed(report)
    assert {"350", "ours"} <= set(section.paragraphs[-1].split())
    assert grid.grid_source in section.paragraphs[-1]
    (table,) = [table for table in section.tables if table.caption.startswith("Energy of gen")]
    (column,) = [index for index, name in enumerate(table.header) if name.startswith("CO₂")]
    assert table.rows[0][column].startswith("35.00 g")
    assert (
        costs_by_candidate(two_candidates().report(machines={"alpha": OUR_MACHINE}))[
            "alpha"
        ].co2_g_per_1000_usable
        is None
    )


def test_server_start_is_paid_and_listed_separately() -> None:
    inputs = two_candidates()
    sessions = [row.model_copy(update={"load_s": 120.0}) for row in inputs.rows.sessions]
    alpha = costs_by_candidate(
        inputs.with_rows(sessions=tuple(sessions)).report(machines={"alpha": OUR_MACHINE})
    )["alpha"]
    assert (alpha.stage.work_s, alpha.stage.load_s) == (60.0, 120.0)
    assert alpha.stage.price == approx(180 / 3600 * 1.2)
    assert alpha.seconds_per_1000 == approx(2500)  # more items do not start a server again


def test_failed_items_are_paid_for_and_are_not_usable() -> None:
    inputs = case({"alpha": ["AA"] * 12 + ["x"] * 12, "beta": ["AA"] * 24}, items_per_sample=2)
    costs = costs_by_candidate(inputs.report())
    assert costs["alpha"].seconds_per_1000_usable.value == approx(
        2 * (costs["beta"].seconds_per_1000_usable.value or 0)
    )


@pytest.mark.slow
def test_headline_names_the_cheaper_candidate_and_the_price_used() -> None:
    text = headline_text(
        two_candidates(alpha=30.0).report(machines={"alpha": OUR_MACHINE, "beta": OUR_MACHINE})
    )
    # alpha 2,500 s and beta 2,500 s for 1,000 usable ones: half the time for half the quality
    assert "alpha costs 0.0 %" in text
    assert OUR_MACHINE.priced in text
    text = headline_text(
        two_candidates(alpha=60.0).report(machines={"alpha": OUR_MACHINE, "beta": OUR_MACHINE})
    )
    assert "beta costs 50.0 %" in text


def test_without_a_price_the_headline_reports_machine_time() -> None:
    text = headline_text(two_candidates().report())
    assert "1 h 23 min" in text  # 5,000 s
    assert "machine time" in text
    assert "EUR" not in text


def test_prices_in_two_currencies_are_not_compared() -> None:
    dollars = OUR_MACHINE.model_copy(update={"currency": "USD", "name": "theirs"})
    report = two_candidates().report(machines={"alpha": OUR_MACHINE, "beta": dollars})
    assert headline_text(report) == ""
    assert report.timing.cost_unit == ""
    assert not any(cost.is_on_front for cost in report.timing.costs)


@pytest.mark.slow
@pytest.mark.parametrize(("as_of", "days"), [("2025-10-07", None), ("2025-10-06", 91)])
def test_an_old_price_is_flagged(as_of: str, days: int | None) -> None:
    inputs = replace(two_candidates(), run=RUN.model_copy(update={"finished": "2026-01-05T10:20:00+00:00"}))
    machine = OUR_MACHINE.model_copy(update={"as_of": as_of})
    report = inputs.report(machines={"alpha": machine, "beta": machine, JUDGE.name: machine})
    assert costs_by_candidate(report)["alpha"].stage.stale_days == days
    cautions = [finding.text for finding in report.timing.headline if finding.kind == "caution"]
    assert len(cautions) == (days is not None)


def test_a_price_dated_in_the_future_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = tmp_path / "qaeval.yaml"
    price = "currency: EUR, as_of: 2999-01-01, source: made up"
    for entry, text in (
        ("hardware.ours", f"hardware: {{ours: {{price_per_hour: 1.2, {price}}}}}"),
        (
            "hosted_prices.api",
            f"hosted_prices: {{api: {{input_per_million: 1, output_per_million: 1, {price}}}}}",
        ),
    ):
        registry.write_text(text)
        arguments = [
            "cost",
            str(Path(__file__).parents[1] / "results" / "example"),
            "--config",
            str(registry),
        ]
        assert run([*arguments, "--hardware", "ours"] if entry == "hardware.ours" else arguments) == 65
        assert f"{entry}: as_of 2999-01-01" in capsys.readouterr().err


@pytest.mark.slow
def test_the_pareto_front_excludes_dominated_candidates() -> None:
    inputs = case({"alpha": HALF_USABLE, "beta": ALL_USABLE, "gamma": HALF_USABLE}, items_per_sample=2)
    seconds = {"alpha": 10.0, "beta": 60.0, "gamma": 70.0}
    sessions = [
        row.model_copy(update={"seconds": seconds.get(row.model, 1.0)}) for row in inputs.rows.sessions
    ]
    costs = costs_by_candidate(inputs.with_rows(sessions=tuple(sessions)).report())
    # for 1,000 usable: alpha 833 s, beta 2,500 s and better, gamma 5,833 s
    assert {name: cost.is_on_front for name, cost in costs.items()} == {
        "alpha": True,
        "beta": True,
        "gamma": False,
    }


def test_no_usable_items_means_no_cost_per_usable_item() -> None:
    inputs = case({"alpha": ["CC"] * 12, "beta": ALL_USABLE}, items_per_sample=2)
    alpha = costs_by_candidate(inputs.report())["alpha"]
    assert alpha.seconds_per_1000_usable.value is None
    assert alpha.seconds_per_1000_usable.reason == "no item is usable"
    assert not alpha.is_on_front


@pytest.mark.slow
def test_an_embedded_model_has_no_machine() -> None:
    inputs = case(
        {"alpha": ALL_USABLE, "beta": ALL_USABLE}, items_per_sample=2, beta=candidate("beta", kind="embedded")
    )
    assert list(costs_by_candidate(inputs.report())) == ["alpha"]


@pytest.mark.slow
def test_cost_and_age_are_scored_in_the_choice() -> None:
    old = candidate("alpha", released="2024-07")
    inputs = replace(two_candidates(), candidates=(old, candidate("beta")))
    criteria = {
        choice.candidate: {criterion.name: criterion.score for criterion in choice.criteria}
        for choice in inputs.report().timing.choice
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


def test_percentiles_come_from_the_histogram_increase() -> None:
    # counts before the first reading are ignored; increase: 10 below 0.1, 20 to 0.2, 10 to 0.4
    before, after = reading("1", b1=5, b2=5, b3=5, inf=5), reading("1", b1=15, b2=35, b3=45, inf=45)
    span = server_span([before, after], "generate", "alpha")
    assert span is not None
    assert span.ttft_p50_s == approx(0.15)  # the 20th of 40: half-way through the second bucket
    assert span.ttft_p95_s == approx(0.2 + 0.2 * 8 / 10)  # the 38th: the 8th of the third's 10
    assert span.inter_token_p50_s is None


def test_a_percentile_above_the_last_bound_is_unknown() -> None:
    before, after = reading("1", b1=0, b2=0, b3=0, inf=0), reading("1", b1=1, b2=1, b3=1, inf=10)
    span = server_span([before, after], "generate", "alpha")
    assert span is not None
    assert span.ttft_p50_s is None


def test_server_percentiles_are_capped_at_the_client_percentile() -> None:
    before, after = reading("1", b1=0, b2=0, b3=0, inf=0), reading("1", b1=1, b2=1, b3=10, inf=10)
    span = server_span([before, after], "generate", "alpha")
    replies = ReplyTotals()
    replies.latencies.extend([0.21] * 9 + [0.25])
    timing = replies.timing([], n_items=10, server=span)
    assert timing.server is not None
    assert timing.latency_p95_s == approx(0.232)
    assert (timing.server.ttft_p50_s, timing.server.ttft_p95_s) == (approx(0.21), approx(0.232))


# --------------------------------------------------------------------------------------- how machines spent their time

FINISHED = "2026-01-05T10:20:00+00:00"
TOKENS = {"vllm:prompt_tokens_total": 900.0, "vllm:generation_tokens_total": 90.0}
QUIET = {"vllm:num_requests_running": 0.0, "vllm:num_requests_waiting": 0.0, **TOKENS}
BUSY = {"vllm:num_requests_running": 3.0, "vllm:num_requests_waiting": 0.0, **TOKENS}


def session(model: str, minute: int, seconds: float, *, host: str = "node-1", **fields: Any) -> Session:
    stage = "grade" if model == JUDGE.name else "generate"
    started = f"2026-01-05T10:{minute:02}:00+00:00"
    return Session(
        stage=stage,
        model=model,
        started=started,
        seconds=seconds,
        n_tasks=1,
        qaeval_version="0",
        host=host,
        **fields,
    )


def nodes_by_host(*sessions: Session, readings: tuple[Reading, ...] = ()) -> Any:
    machines = dict.fromkeys([row.model for row in sessions], OUR_MACHINE)
    return {node.host: node for node in node_costs(sessions, readings, machines, FINISHED)}


def test_load_and_work_of_models_sharing_a_machine_in_turn() -> None:
    # starts at 9:58, works to 10:03; starts from 10:03 to 10:05, works to 10:06
    (node,) = nodes_by_host(
        session("alpha", 0, 180, load_s=120.0), session("beta", 5, 60, load_s=120.0)
    ).values()
    assert (node.load_s, node.idle_s, node.work_s) == (approx(240), approx(0), approx(240))
    assert node.models == ("alpha", "beta")
    assert node.price == approx(480 / 3600 * 1.2)


def test_a_machine_idles_while_another_works() -> None:
    # node-1 works 0 to 2 and 5 to 6, node-2 from 2 to 5
    nodes = nodes_by_host(
        session("alpha", 0, 120), session("beta", 2, 180, host="node-2"), session(JUDGE.name, 5, 60)
    )
    assert (nodes["node-1"].work_s, nodes["node-1"].idle_s) == (approx(180), approx(180))
    assert (nodes["node-2"].work_s, nodes["node-2"].idle_s) == (approx(180), approx(0))
    assert nodes["node-1"].price == approx(360 / 3600 * 1.2)


def test_an_interruption_counts_as_neither_work_nor_idle() -> None:
    (node,) = nodes_by_host(session("alpha", 0, 60), session("alpha", 19, 60)).values()
    assert (node.work_s, node.idle_s) == (approx(120), approx(0))


def test_concurrent_stages_on_one_machine_count_once() -> None:
    sessions = (session("alpha", 0, 120, alongside=True), session(JUDGE.name, 1, 120, alongside=True))
    (node,) = nodes_by_host(*sessions).values()
    assert node.work_s == approx(180)
    assert run_seconds(sessions) == approx(180)


def test_short_stages_started_in_the_same_second_are_sequential() -> None:
    sessions = (session("alpha", 0, 0.4), session("beta", 0, 0.3))
    assert run_seconds(sessions) == approx(0.7)


def test_a_server_without_requests_is_idle() -> None:
    judge = session(JUDGE.name, 0, 60)
    samples = ((0.0, BUSY), (10.0, QUIET), (30.0, QUIET), (40.0, BUSY))
    readings = tuple(
        Reading(stage="grade", model=JUDGE.name, session=judge.started, at_s=at_s, values=values)
        for at_s, values in samples
    )
    (node,) = nodes_by_host(judge, readings=readings).values()
    assert (node.idle_s, node.work_s) == (approx(20), approx(40))
    (shared_node,) = nodes_by_host(judge, session("alpha", 0, 60), readings=readings).values()
    assert shared_node.idle_s == approx(0)  # the other model worked on that machine meanwhile


@pytest.mark.parametrize("extra_counts", [{**TOKENS, "vllm:generation_tokens_total": 95.0}, {}])
def test_requests_between_two_readings_count_as_work(extra_counts: dict[str, float]) -> None:
    judge = session(JUDGE.name, 0, 60)
    idle_counts = {key: value for key, value in QUIET.items() if key not in TOKENS}
    before = (
        QUIET if extra_counts else idle_counts
    )  # without token counts, no reading can show that a server was idle
    readings = tuple(
        Reading(stage="grade", model=JUDGE.name, session=judge.started, at_s=at_s, values=values)
        for at_s, values in ((0.0, before), (60.0, {**idle_counts, **extra_counts}))
    )
    (node,) = nodes_by_host(judge, readings=readings).values()
    assert (node.idle_s, node.work_s) == (approx(0), approx(60))


@pytest.mark.slow
def test_the_report_shows_node_seconds_and_embedded_models_have_none() -> None:
    inputs = two_candidates()
    hosted = tuple(row.model_copy(update={"host": "node-1"}) for row in inputs.rows.sessions)
    assert [node.host for node in inputs.with_rows(sessions=hosted).report().timing.nodes] == ["node-1"]
    assert inputs.report().timing.nodes == ()


# --------------------------------------------------------------------------- hosted prices, break-even, waiting

API = HostedFacts(
    name="api",
    input_per_million=1.0,
    output_per_million=10.0,
    currency="EUR",
    as_of="2026-01-01",
    source="made up",
)


def cost_report(
    *, machines: bool = True, offers: tuple[HostedFacts, ...] = (API,), **assumptions: Any
) -> CostReport:
    """Alpha and beta work 60 s each, the judge 90 s, one after the other on one machine."""
    inputs = two_candidates()
    starts = {"alpha": 0, "beta": 1, JUDGE.name: 2}
    sessions = tuple(
        session(row.model, starts[row.model], row.seconds, load_s=assumptions.get("load_s", 0.0))
        for row in inputs.rows.sessions
    )
    assumptions.pop("load_s", None)
    report = inputs.with_rows(sessions=sessions).report(
        machines=dict.fromkeys(starts, OUR_MACHINE) if machines else {}
    )
    measured_run = report.measured(sessions, (), priced_at=RUN.finished)
    return cost_run(measured_run, report.timing, offers, CostAssumptions(**assumptions))


@pytest.mark.slow
def test_hosted_token_cost_is_worked_by_hand() -> None:
    # 12 replies of 400 prompt and 90 completion tokens: 4,800 x 1 + 1,080 x 10 a million; alpha has 12 usable items
    alpha = next(hosted for hosted in cost_report().hosted if hosted.model == "alpha")
    assert (alpha.prompt_tokens, alpha.completion_tokens) == (4800, 1080)
    assert alpha.price == approx((4800 + 10800) / 1e6)
    assert alpha.price_per_1000_usable == approx(1.3)
    # the judge graded 48 items of 700 and 30 tokens
    judge = next(hosted for hosted in cost_report().hosted if hosted.stage == "grade")
    assert judge.price == approx((48 * 700 + 48 * 300) / 1e6)
    assert judge.price_per_1000_usable is None


@pytest.mark.slow
def test_hosting_options_are_worked_by_hand() -> None:
    always_on, scale_to_zero, hosted = cost_report(start_s=90.0, idle_timeout_s=60.0).ways
    assert always_on.per_day == approx(24 * 1.2)
    assert always_on.most_runs == approx(86400 / 210)
    assert scale_to_zero.per_run == approx((210 + 150) / 3600 * 1.2)
    assert hosted.per_run == approx(2 * 0.0156 + 0.048)
    break_even = cost_report(start_s=90.0, idle_timeout_s=60.0).break_evens[0]
    assert break_even.runs_per_day == approx(86400 / 360)


def test_an_always_on_machine_may_have_its_own_price() -> None:
    reserved = OUR_MACHINE.model_copy(update={"price_per_hour": 0.5})
    assert cost_report(always_on_machine=reserved).ways[0].per_day == approx(12)


@pytest.mark.slow
def test_an_unmeasured_start_time_is_not_assumed() -> None:
    scale_to_zero = cost_report().ways[1]
    assert scale_to_zero.per_run is None
    assert "--start SECONDS" in (scale_to_zero.reason or "")
    assert cost_report(start_s=0.0).ways[1].per_run == approx(210 / 3600 * 1.2)


@pytest.mark.slow
def test_without_a_price_the_report_has_no_money_and_says_how_to_set_one() -> None:
    report = cost_report(machines=False)
    assert (report.price, report.currency) == (None, "")
    assert "hardware:" in (report.reason or "")
    assert [option.per_day for option in report.ways] == [None, None, 0.0]
    assert all(break_even.runs_per_day is None for break_even in report.break_evens)


def test_cached_replies_give_no_break_even() -> None:
    inputs = two_candidates()
    cached = tuple(row.model_copy(update={"cached": True}) for row in inputs.rows.generations)
    sessions = tuple(row.model_copy(update={"host": "node-1"}) for row in inputs.rows.sessions)
    report = inputs.with_rows(generations=cached, sessions=sessions).report(
        machines=dict.fromkeys(["alpha", "beta", JUDGE.name], OUR_MACHINE)
    )
    measured_run = report.measured(sessions, (), priced_at=RUN.finished)
    assert "--no-cache" in (cost_run(measured_run, report.timing, (), CostAssumptions()).ways[0].reason or "")


def test_a_hosted_api_is_no_machine_and_its_time_no_machine_time() -> None:
    inputs = two_candidates()
    starts = {"alpha": 0, "beta": 1, JUDGE.name: 2}
    hosts = {"beta": "api.example"}
    sessions = tuple(
        session(row.model, starts[row.model], row.seconds, host=hosts.get(row.model, "node-1"))
        for row in inputs.rows.sessions
    )
    models = {"alpha": candidate("alpha"), "beta": candidate("beta", kind="hosted", host="api.example")}
    report = (
        replace(inputs, candidates=tuple(models.values()))
        .with_rows(sessions=sessions)
        .report(machines={"alpha": OUR_MACHINE, JUDGE.name: OUR_MACHINE})
    )
    assert list(costs_by_candidate(report)) == ["alpha"]
    assert report.timing.cost_unit == "EUR"
    cost = cost_run(
        report.measured(sessions, (), priced_at=RUN.finished),
        report.timing,
        (API,),
        CostAssumptions(start_s=9),
    )
    (node,) = cost.nodes
    assert (node.host, node.idle_s, cost.price) == ("node-1", approx(60), approx(210 / 3600 * 1.2))
    assert any("beta" in caution and "hosted API" in caution for caution in cost.cautions)
    always_on, scale_to_zero, _ = cost.ways
    assert (always_on.per_day, scale_to_zero.per_run) == (None, None)
    assert "beta" in (always_on.reason or "")
    assert [(row.model, row.price is not None) for row in cost.hosted] == [
        *(("alpha", True), ("beta", True), (JUDGE.name, True))
    ]


@pytest.mark.slow
def test_waiting_is_priced_only_at_the_users_hourly_rate() -> None:
    assert cost_report().waiting is None
    waiting = cost_report(hourly_rate=60.0).waiting
    assert waiting is not None
    assert (waiting.price, waiting.currency) == (approx(3.5), "EUR")  # 210 s
    with pytest.raises(UsageError, match="--currency"):
        cost_report(hourly_rate=60.0, machines=False)


def demo_report(*offers: HostedFacts, machines: bool = True) -> Report:
    inputs = two_candidates()
    starts = {"alpha": 0, "beta": 1, JUDGE.name: 2}
    sessions = tuple(session(row.model, starts[row.model], row.seconds) for row in inputs.rows.sessions)
    machine_of = dict.fromkeys(starts, OUR_MACHINE) if machines else {}
    return inputs.with_rows(sessions=sessions).report(machines=machine_of, hosted_prices=offers)


@pytest.mark.slow
def test_report_and_cost_command_compare_hosting_alike() -> None:
    hosting, expected = demo_report(API).timing.hosting, cost_report()
    assert hosting is not None
    assert (hosting.costs, hosting.ways, hosting.break_evens) == (
        expected.hosted,
        expected.ways,
        expected.break_evens,
    )
    text = render_markdown(demo_report(API))
    # always on for EUR 28.80 a day, the same tokens for 0.0792 a run: 363.6 runs
    assert " 363.6 " in text
    assert "--start SECONDS" in text
    assert API.priced in text


@pytest.mark.slow
def test_report_omits_hosting_without_offers_or_servers() -> None:
    assert "hosting" not in demo_report().timing.model_dump()
    assert "elsewhere" not in {section.anchor for section in write_sections(demo_report())}
    embedded = case({"alpha": HALF_USABLE}, items_per_sample=2, alpha=candidate("alpha", kind="embedded"))
    judge = JUDGE.model_copy(update={"kind": "embedded"})
    assert replace(embedded, judge=judge).report(hosted_prices=(API,)).timing.hosting is None


@pytest.mark.slow
def test_a_hosted_offer_is_priced_without_a_machine_price() -> None:
    text = render_markdown(demo_report(API, machines=False))
    assert "machine at node-1" in text
    assert "EUR 0.079" in text


def test_an_old_offer_is_flagged_in_the_report() -> None:
    old = API.model_copy(update={"as_of": "2025-10-06"})
    assert "91 days old" in render_markdown(demo_report(old))


@pytest.mark.slow
def test_node_seconds_and_price_appear_in_every_report_format() -> None:
    report = demo_report()
    assert report.model_dump()["timing"]["nodes"][0]["price"] == approx(210 / 3600 * 1.2)
    for text in (render_markdown(report), render_html(report, ())):
        assert "Node seconds" in text
        assert "EUR 0.070" in text
        assert "1,000 usable" in text


@pytest.mark.slow
def test_an_old_hosted_price_is_flagged() -> None:
    report = cost_report(offers=(API.model_copy(update={"as_of": "2025-10-06"}),))
    (caution,) = report.cautions
    assert "91 days old" in caution


def test_cost_sections_name_price_and_source() -> None:
    sections = write_cost_report(cost_report(start_s=90.0, hourly_rate=60.0))
    text = " ".join(text for section in sections for text in section.paragraphs)
    assert OUR_MACHINE.priced in text
    assert f"{API.priced} (source: {API.source})" in text
    assert "EUR 60.00 per hour" in text


@pytest.mark.slow
def test_the_command_prices_a_run_over_servers(tmp_path: Path) -> None:
    config = tmp_path / "prices.yaml"
    config.write_text(
        "hardware: {ours: {price_per_hour: 1.2, currency: EUR, as_of: 2026-01-01, source: made up}}\n"
        "hosted_prices: {api: {input_per_million: 1, output_per_million: 10, currency: EUR, as_of: 2026-01-01, source: made up}}\n"
    )
    names = ("mistral", "qwen", "selene")

    def run_with_prices(*arguments: str) -> Typed:
        return qaeval(*arguments, "--config", config, "--hardware", "ours", cwd=tmp_path)

    with LoopbackServer(names) as server:
        endpoints = [argument for name in names for argument in ("--endpoint", f"{name}={server.url}")]
        compared = run_with_prices(
            "compare", "mistral", "qwen", "--n", "12", "--out", "run", "--no-cache", *endpoints
        )
    assert compared.returncode == 0, compared.stderr
    result = run_with_prices("cost", "run", "--start", "60", "--hourly-rate", "80", "--json")
    assert result.returncode == 0, result.stderr
    report = CostReport.model_validate(json.loads(result.stdout))
    assert report.price == approx(sum(node.seconds for node in report.nodes) / 3600 * 1.2)
    assert [option.name for option in report.ways if option.per_run is not None] == [
        "always on",
        "scale to zero",
        "api",
    ]
    printed = run_with_prices("cost", "run")
    assert "--start SECONDS" in printed.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "a run directory"),
        (("--items", "5", "--per-second", "1", "--price", "1"), "--currency USD"),
        (("--items", "5", "--per-second", "0", "--price", "1", "--currency", "USD"), "above 0"),
        (("--items", "5", "--per-second", "1", "--hardware", "l4"), "no price in the registry"),
        (("--items", "5", "--per-second", "1", "--hardware", "l5"), "Did you mean 'l4'"),
        (("--items", "5", "--per-second", "1", "--price", "1", "--currency", "eur"), "three capital letters"),
        (("run", "--items", "5"), "the run has its own"),
        (("run", "--always-on", "l4"), "no price in the registry"),
    ],
)
def test_invalid_cost_arguments_are_refused(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = qaeval("cost", *arguments, cwd=tmp_path)
    assert (result.returncode, message in result.stderr) == (64, True), result.stderr


def test_a_steady_speed_is_priced_without_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "cost",
        "--items",
        "7200",
        "--per-second",
        "2",
        "--per-second",
        "1",
        "--price",
        "3.6",
        "--currency",
        "EUR",
    ]
    assert run([*arguments, "--json"]) == 0
    slow, fast = json.loads(capsys.readouterr().out)
    # 7,200 items at 1 a second take 2 h, at 3.60 each
    assert (slow["per_s"], slow["seconds"], slow["hours"], slow["price"]) == (1.0, 7200.0, 2.0, approx(7.2))
    assert (fast["per_s"], fast["price"], fast["price_per_1000"]) == (2.0, approx(3.6), approx(0.5))
    assert run(arguments) == 0
    printed = capsys.readouterr().out
    assert [line.split()[-3:] for line in printed.splitlines() if "items" not in line and " h " in line] == [
        ["7.20", "EUR", "1.00"],
        ["3.60", "EUR", "0.50"],
    ]
    assert "EUR 3.60 per hour" in printed


@pytest.mark.parametrize("weight", ["-1", "nan", "inf", "much"])
def test_a_weight_is_a_number_of_0_or_more(weight: str) -> None:
    with pytest.raises(UsageError, match=f"quality=5, got '{weight}'"):
        _number("quality", weight)
    assert (_number("quality", "0"), _number("quality", "2.5")) == (0.0, 2.5)


# ----------------------------------------------------------------------------------------------- the example of docs/cost.md

EXAMPLE = Path(__file__).parents[1] / "docs" / "cost.md"


def test_worked_example_matches_its_command() -> None:
    text = EXAMPLE.read_text()
    (command,) = [line for line in text.splitlines() if line.startswith("qaeval cost --items")]
    result = qaeval(*command.split()[1:], "--json", cwd=EXAMPLE.parents[1])
    assert result.returncode == 0, result.stderr
    slow, fast = json.loads(result.stdout)
    one_by_one, concurrent = (
        steady_work(1932, per_s=per_s, price_per_hour=1.01).model_dump() for per_s in (0.23, 2.11)
    )
    assert (slow, fast) == (one_by_one, concurrent)
    assert one_by_one["seconds"] == approx(8400)
    assert one_by_one["price"] == approx(8400 / 3600 * 1.01)
    rows = {
        name: [cell.strip() for cell in line.split("|")[2:-1]]
        for line in text.splitlines()
        if line.startswith("| ")
        for name in [line.split("|")[1].strip()]
    }
    assert rows["seconds"] == [f"{work['seconds']:,.1f}" for work in (slow, fast)]
    assert rows["node hours"] == [f"{work['hours']:.4f}" for work in (slow, fast)]
    assert rows["dollars"] == [f"{work['price']:.4f}" for work in (slow, fast)]
    assert rows["dollars for 1,000 chunks"] == [f"{work['price_per_1000']:.4f}" for work in (slow, fast)]
    assert rows["Wh at most, at 72 W"] == [f"{work['hours'] * 72:.1f}" for work in (slow, fast)]
    assert rows["runs that fit into a day"] == [f"{86400 / work['seconds']:.1f}" for work in (slow, fast)]
    assert f"{100 * (1 - fast['price'] / slow['price']):.1f} % less" in text
    assert f"{(slow['seconds'] - fast['seconds']) / 3600:.2f} hours sooner" in text
