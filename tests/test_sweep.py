"""A sweep of one server under increasing load: request timing, level summaries and the knee, with hand-computed values."""

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import orjson
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mock.server import Mock
from qaeval.analysis.model import ServerSpan
from qaeval.analysis.server_metrics import server_span
from qaeval.chat.protocol import ChatError, ChatRequest, Message, Sampling
from qaeval.chat.streaming import StreamingChat, _Stream
from qaeval.cli import run
from qaeval.cli.tables import print_sections
from qaeval.comparison.speed import speed
from qaeval.cost.alternatives import steady_work
from qaeval.errors import EndpointError
from qaeval.records import (
    E2E,
    GENERATED_TOKENS,
    ITL,
    QUEUE,
    SUCCESSES,
    TPOT,
    TTFT,
    Reading,
    TimedRequest,
    Usage,
)
from qaeval.registry.model import ModelSpec
from qaeval.report.facts import MachineFacts, ModelFacts
from qaeval.report.measure import Measure
from qaeval.run.endpoint import Endpoint
from qaeval.serving.load import read_gauge
from qaeval.serving.probe import EndpointFacts
from qaeval.sweep.knee import (
    find_knee,
    level_costs,
    mean_over_repeats,
    min_in_flight,
    summarise_levels,
    summarise_repeat,
)
from qaeval.sweep.loops import streaming
from qaeval.sweep.model import LatencySummary, LoadLevel, RepeatSummary, Sweep
from qaeval.sweep.page import render_sweep_html, render_sweep_markdown, sweep_charts
from qaeval.sweep.sections import cautions, speed_of, three_digits, verdict, write_sweep
from replay.faults import error as faulty
from replay.server import LoopbackServer
from report_builders import case

approx = pytest.approx
QAEVAL = str(Path(sys.executable).with_name("qaeval"))
SECRET = "sk-never-show-this"  # noqa: S105 - made up
CHAT_REQUEST = ChatRequest(
    (Message("user", "The server waits five seconds before it closes a connection."),),
    sampling=Sampling(max_tokens=64),
)


def timed(start: float, end: float, *, tokens: int = 10, **overrides: Any) -> TimedRequest:
    fields: dict[str, Any] = {
        "concurrency": 2,
        "repeat": 1,
        "sample_id": "s",
        "start_s": start,
        "end_s": end,
        "ttft_s": (end - start) / 2,
        "e2e_s": end - start,
        "gaps_s": (),
        "usage": Usage(prompt_tokens=5, completion_tokens=tokens),
        "finish_reason": "stop",
        "n_items": 3,
    }
    return TimedRequest(**{**fields, **overrides})


def failed(start: float, end: float, **overrides: Any) -> TimedRequest:
    empty = {"ttft_s": None, "e2e_s": None, "usage": None, "n_items": 0, "finish_reason": ""}
    return timed(start, end, **empty, reason="endpoint", detail="HTTP 500", **overrides)


# ----------------------------------------------------------------------------- requests and levels


def test_time_per_output_token_leaves_out_the_first() -> None:
    # 1 s in total, 0.4 s until the first of 4 tokens: 0.6 / 3
    assert timed(0, 1, ttft_s=0.4, tokens=4).tpot_s == approx(0.2)
    assert timed(0, 1, tokens=1).tpot_s is None
    assert failed(0, 1).tpot_s is None


def test_a_level_does_not_count_warm_up_requests() -> None:
    rows = [
        timed(0, 1, warm_up=True, finish_reason="length"),
        timed(1, 2, finish_reason="length"),
        timed(1, 2),
    ]
    rows += [timed(2, 4, gaps_s=(0.25, 0.75)), failed(2, 3)]
    (level,) = summarise_levels(rows)
    assert (level.concurrency, level.n_requests, level.n_failed, level.n_cut) == (2, 4, 1, 1)
    assert (level.n_items, level.failed_by_reason) == (9, {"endpoint": 1})
    assert (level.e2e.mean, level.itl.mean) == (approx(4 / 3), approx(0.5))
    assert level.ttft.mean == approx((0.5 + 0.5 + 1) / 3)
    assert level.little == approx((level.requests_per_s.value or 0) * 4 / 3)


def test_levels_are_sorted_by_concurrency() -> None:
    rows = [
        timed(start, start + 1, concurrency=concurrency, repeat=repeat)
        for concurrency in (8, 1)
        for repeat in (2, 1)
        for start in (1, 0)
    ]
    levels = summarise_levels(rows)
    assert [(level.concurrency, len(level.repeats)) for level in levels] == [(1, 2), (8, 2)]


def test_throughput_is_measured_over_the_steady_window() -> None:
    # two in flight, 1 s each: two warm up the server, four count, from 1 s to 3 s; 4 replies of 10
    # tokens and 3 items in 2 s
    rows = [timed(0, 1, warm_up=True), timed(0, 1, warm_up=True)]
    rows += [timed(1, 2), timed(1, 2), timed(2, 3), timed(2, 3)]
    summary = summarise_repeat(rows)
    assert (summary.n_requests, summary.window_s) == (4, approx(2))
    assert (summary.requests_per_s, summary.tokens_per_s, summary.items_per_s) == (
        approx(2),
        approx(20),
        approx(6),
    )
    assert summary.e2e_mean_s == approx(1)


def test_a_reply_partly_inside_the_window_counts_in_proportion() -> None:
    # the last starts at 3 s, the first end after that is at 4 s; its tokens come from 3.5 s to 5 s: 1 + 1 +
    # 1 + 1/3 replies in 4 s
    rows = [timed(0, 2), timed(1, 3), timed(2, 4), timed(3, 5, ttft_s=0.5)]
    assert summarise_repeat(rows).requests_per_s == approx((3 + 1 / 3) / 4)
    # from 1 s to 5 s with one warm-up request: its tokens arrive from 1 s to 2 s; those of the last after 5 s
    rows_with_warm_up = [timed(0, 2, warm_up=True), timed(1, 3), timed(2, 4), timed(3, 5), timed(4, 6)]
    assert summarise_repeat(rows_with_warm_up).requests_per_s == approx(4 / 4)


def test_the_drain_at_the_end_does_not_count() -> None:
    # one straggler of 100 s at the end: the window ends with the first of the last two
    summary = summarise_repeat([timed(0, 1), timed(0, 1), timed(1, 101), timed(1, 2)])
    assert summary.window_s == approx(2)
    assert summary.requests_per_s == approx(3 / 2)


@pytest.mark.parametrize("in_flight", [1, 3, 8, 11, 32, 64])
@pytest.mark.parametrize("n_requests", [40, 320])
def test_throughput_of_a_server_with_8_slots_does_not_depend_on_the_queue(
    in_flight: int, n_requests: int
) -> None:
    # first come, first served: 0.04 s to the first token and 0.075 s for the others; the rest wait in the
    # queue
    slot_free_at, worker_free_at, rows = [0.0] * 8, [0.0] * in_flight, []
    for index in range(in_flight + n_requests):
        worker = worker_free_at.index(min(worker_free_at))
        slot = slot_free_at.index(min(slot_free_at))
        start, service_start = worker_free_at[worker], max(worker_free_at[worker], slot_free_at[slot])
        end = service_start + 0.115 + 1e-7 * index  # no two end at exactly the same moment
        fields = {
            "concurrency": in_flight,
            "warm_up": index < in_flight,
            "ttft_s": service_start + 0.04 - start,
        }
        rows.append(timed(start, end, **fields))
        worker_free_at[worker] = slot_free_at[slot] = end
    assert summarise_repeat(rows).requests_per_s == approx(min(8, in_flight) / 0.115, rel=0.02)


@pytest.mark.parametrize(
    ("value", "high", "shown"),
    [
        (41.2, 42.6, "41.2 ± 1.4"),
        (1075, 1101, "1,075 ± 26"),
        (13.8, 13.81, "13.8 ± <0.1"),
        (111, 111.2, "111 ± <1"),
    ],
)
def test_an_interval_narrower_than_the_shown_digits_is_not_shown_as_zero(
    value: float, high: float, shown: str
) -> None:
    measure = Measure(value=value, low=2 * value - high, high=high, method="t", n=3, n_clusters=3)
    assert speed_of(measure) == shown


def test_failed_requests_are_counted_but_excluded_from_times_and_throughput() -> None:
    (level,) = summarise_levels(
        [timed(0, 1), timed(0, 1), failed(1, 60), timed(1, 2), timed(2, 3), timed(2, 3)]
    )
    assert (level.n_requests, level.n_failed, level.failed_by_reason) == (6, 1, {"endpoint": 1})
    assert level.e2e.n == 5
    assert level.e2e.p99 == approx(1)
    assert level.failed_share == approx(1 / 6)


def test_gaps_are_pooled_and_time_per_token_is_one_value_per_request() -> None:
    # a short reply with one gap of 1 s, a long one with nine of 0.1 s: 10 pooled gaps; per request 1.0 and
    # 0.1
    short = timed(0, 2, tokens=2, ttft_s=1.0, gaps_s=(1.0,))
    long = timed(0, 1.9, tokens=10, ttft_s=1.0, e2e_s=1.9, gaps_s=(0.1,) * 9)
    (level,) = summarise_levels([short, long])
    assert (level.itl.n, level.itl.mean, level.itl.p50) == (10, approx(0.19), approx(0.1))
    assert (level.tpot.n, level.tpot.mean) == (2, approx(0.55))


def test_littles_law_recovers_the_requests_in_flight() -> None:
    rows = [timed(index // 2, index // 2 + 1, warm_up=index < 2) for index in range(12)]
    (level,) = summarise_levels(rows)
    assert level.little == approx(2)


def test_rows_are_grouped_by_level_and_repeat() -> None:
    rows = [
        timed(0, 1, concurrency=concurrency, repeat=repeat)
        for repeat in (1, 2)
        for concurrency in (8, 1)
        for _ in range(concurrency)
    ]
    levels = summarise_levels(rows)
    assert [(level.concurrency, len(level.repeats), level.n_requests) for level in levels] == [
        (1, 2, 2),
        (8, 2, 16),
    ]


def test_the_interval_over_repeats_uses_students_t() -> None:
    # 10, 12, 14: mean 12, s = 2, t(0.975; 2) = 4.3027: 12 ± 4.3027 × 2 / √3
    estimate = mean_over_repeats([10, 12, 14])
    assert (estimate.value, estimate.low, estimate.high) == (
        approx(12),
        approx(7.0317, abs=1e-4),
        approx(16.9683, abs=1e-4),
    )
    low, high = scipy.stats.t.interval(0.95, 4, loc=3.4, scale=scipy.stats.sem([1, 2, 3, 5, 6]))
    second_estimate = mean_over_repeats([1, 2, 3, 5, 6])
    assert (second_estimate.low, second_estimate.high) == (approx(low), approx(high))


def test_two_repeats_give_a_reason_instead_of_an_interval() -> None:
    estimate = mean_over_repeats([10, 12])
    assert (estimate.value, estimate.low, estimate.high) == (11, None, None)
    assert "2 repeats" in (estimate.reason or "")


# ---------------------------------------------------------------------------------------- the knee

NO_TIMES = LatencySummary(n=0, mean=None, p50=None, p95=None, p99=None)


def make_level(
    concurrency: int,
    *tokens_per_s: float,
    n_failed: int = 0,
    n_requests: int = 100,
    preemptions: float | None = 0,
) -> LoadLevel:
    """Make a level from the output tokens per second of its repeats; each item has 10 tokens."""
    values = tokens_per_s if len(tokens_per_s) > 1 else tokens_per_s * 3
    server_metrics = None if preemptions is None else ServerSpan(
        n_readings=2, ttft_s=None, inter_token_s=None, queue_s=None, running_max=None, waiting_max=None,
        kv_cache_max=0.5, preemptions=preemptions, prefix_hit_rate=None,
    )  # fmt: skip
    repeats = tuple(
        RepeatSummary(
            concurrency=concurrency, repeat=repeat, n_requests=n_requests, n_failed=0, window_s=1, requests_per_s=value / 30,
            tokens_per_s=value, items_per_s=value / 10, e2e_mean_s=1,
        )
        for repeat, value in enumerate(values, start=1)
    )  # fmt: skip
    return LoadLevel(
        concurrency=concurrency,
        repeats=repeats,
        n_requests=n_requests,
        n_failed=n_failed,
        failed_by_reason={"endpoint": n_failed} if n_failed else {},
        n_cut=0,
        n_items=10,
        requests_per_s=mean_over_repeats([value / 30 for value in values]),
        tokens_per_s=mean_over_repeats(values),
        items_per_s=mean_over_repeats([value / 10 for value in values]),
        ttft=LatencySummary(n=3, mean=0.1, p50=0.1, p95=0.2, p99=0.3),
        tpot=NO_TIMES,
        itl=NO_TIMES,
        e2e=NO_TIMES,
        little=float(concurrency),
        server=server_metrics,
    )


RISING = (make_level(1, 100), make_level(2, 190), make_level(4, 360), make_level(8, 390), make_level(16, 400))


def test_the_knee_matches_a_hand_computation() -> None:
    # 95 % of 400 is 380: 4 in flight reach 360, 8 reach 390
    knee = find_knee(RISING)
    assert (knee.concurrency, knee.is_found, knee.best) == (8, True, 16)
    assert knee.share_of_best == approx(390 / 400)
    assert knee.least == 4  # 380 / 100, rounded up


def test_exactly_95_percent_is_enough() -> None:
    assert (
        find_knee(
            [make_level(1, 100), make_level(4, 380), make_level(8, 400), make_level(16, 400)]
        ).concurrency
        == 4
    )
    assert (
        find_knee(
            [make_level(1, 100), make_level(4, 379.9), make_level(8, 400), make_level(16, 400)]
        ).concurrency
        == 8
    )


def test_the_smallest_of_equally_fast_levels_is_the_knee() -> None:
    knee = find_knee([make_level(1, 100), make_level(2, 400), make_level(4, 400), make_level(8, 400)])
    assert (knee.concurrency, knee.best) == (2, 2)


def test_when_throughput_falls_again_the_knee_is_before_the_peak() -> None:
    knee = find_knee([make_level(1, 100), make_level(2, 196), make_level(4, 200), make_level(8, 120)])
    assert (knee.concurrency, knee.best, knee.is_found) == (2, 4, True)


def test_a_level_with_more_than_one_percent_errors_is_excluded() -> None:
    levels = [
        make_level(1, 100),
        make_level(2, 200, n_failed=1),
        make_level(4, 200, n_failed=2),
        make_level(8, 200),
    ]
    knee = find_knee(levels)
    assert (knee.concurrency, knee.excluded) == (2, {4: "2.0 % errors"})
    knee = find_knee(
        [make_level(1, 100), make_level(2, 200, n_failed=2), make_level(4, 200), make_level(8, 200)]
    )
    assert knee.concurrency == 4


def test_a_level_with_preemptions_is_neither_the_knee_nor_its_reference() -> None:
    # 8 would be the best, with 500, and no other level reaches 95 % of it; of those that qualify 4 is the best
    levels = [make_level(1, 100), make_level(2, 180), make_level(4, 300), make_level(8, 500, preemptions=3)]
    knee = find_knee(levels)
    assert (knee.concurrency, knee.is_found, knee.excluded) == (4, True, {8: "3 preemptions"})
    text = " ".join(cautions(make_sweep(levels)))
    assert "3 preemptions" in text
    assert "66.7 % faster" in text


def test_a_knee_at_the_last_level_is_not_found_and_higher_levels_are_suggested() -> None:
    levels = [make_level(1, 100), make_level(2, 200), make_level(4, 390)]
    knee = find_knee(levels)
    assert (knee.concurrency, knee.is_found) == (4, False)
    headline = verdict(make_sweep(levels))[0]
    assert headline.startswith("Knee not found: ")
    assert "rises at 4" in headline
    assert "--concurrency 4,8,16" in headline


def test_a_single_level_has_no_knee() -> None:
    knee = find_knee([make_level(8, 100)])
    assert (knee.concurrency, knee.is_found, knee.least) == (8, False, None)
    assert "one level" in (knee.reason or "")


def test_there_is_no_knee_when_no_level_qualifies() -> None:
    levels = [make_level(1, 100, n_failed=50), make_level(2, 100, preemptions=1)]
    knee = find_knee(levels)
    assert (knee.concurrency, knee.best, knee.is_found) == (None, None, False)
    assert verdict(make_sweep(levels))[0].startswith("No knee: ")


def test_consistent_repeats_leave_one_possible_knee_and_noisy_repeats_several() -> None:
    assert [possible.concurrency for possible in find_knee(RISING).possible] == [8]
    noisy_levels = [
        make_level(1, 100, 101, 99),
        make_level(2, 180, 200, 195),
        make_level(4, 192, 198, 206),
        make_level(8, 190, 205, 199),
    ]
    knee = find_knee(noisy_levels)
    assert {2, 4} <= {possible.concurrency for possible in knee.possible}
    assert sum(possible.share for possible in knee.possible) <= 1 + 1e-9
    assert re.search(r"several levels.* 2 \(\d", " ".join(verdict(make_sweep(noisy_levels))))


def test_the_probability_of_another_knee_uses_students_t() -> None:
    # 1 in flight is the knee if 2 reach less than 100 / 0.95, one standard error (sd / √3 = 2) below their
    # mean. There Student's t with 2 degrees of freedom has F(-1) = 1/2 - 1 / (2 √3) = 0.2113, the normal
    # distribution 0.1587
    mean, sd = 100 / 0.95 + 2, 2 * sqrt(3)
    first, second = find_knee([make_level(1, 100), make_level(2, mean - sd, mean, mean + sd)]).possible
    assert first.share == approx(0.2113, abs=0.015)
    assert first.share + second.share == approx(1)


def test_fewer_than_three_repeats_give_no_possible_knees() -> None:
    levels = [make_level(1, 100, 100), make_level(2, 200, 200), make_level(4, 200, 200)]
    assert find_knee(levels).possible == ()
    assert "at least three repeats" in " ".join(verdict(make_sweep(levels)))


def test_unknown_preemptions_cause_a_caution() -> None:
    levels = [make_level(1, 100, preemptions=None), make_level(2, 100, preemptions=None)]
    assert find_knee(levels).concurrency == 1
    assert "Preemptions are unknown" in " ".join(cautions(make_sweep(levels)))


@pytest.mark.slow
@given(st.lists(st.floats(1, 1000), min_size=1, max_size=8), st.floats(0.01, 100))
def test_the_knee_is_the_first_with_95_percent_in_any_unit(speeds: list[float], unit: float) -> None:
    levels = [make_level(2**exponent, speed) for exponent, speed in enumerate(speeds)]
    knee = find_knee(levels).concurrency
    is_enough = [speed >= 0.95 * max(speeds) * (1 - 1e-9) for speed in speeds]
    assert knee == 2 ** is_enough.index(True)
    scaled_levels = [make_level(2**exponent, unit * speed) for exponent, speed in enumerate(speeds)]
    assert find_knee(scaled_levels).concurrency == knee


def test_the_minimum_in_flight_is_the_speedup_rounded_up() -> None:
    assert min_in_flight(100, 400) == 4  # 380 / 100
    assert min_in_flight(95, 400) == 4  # 380 / 95, exactly
    assert min_in_flight(100, 100) == 1


def test_costs_at_the_knee_and_at_one_in_flight() -> None:
    # USD 1.01 per hour; 10 items/s at 1, 39 at 8: 1,000 items in 100 s and in 25.6 s
    single, at_knee = level_costs(RISING, find_knee(RISING), 1.01)
    assert (single.concurrency, single.work.price) == (1, approx(100 / 3600 * 1.01))
    assert (at_knee.concurrency, at_knee.work.price) == (8, approx(1000 / 39 / 3600 * 1.01))


# ------------------------------------------------------------------------------------ the report of a sweep

HOSTILE = "<script>alert(1)</script> | *x* [y](http://z)"


def make_sweep(levels: Sequence[LoadLevel], **overrides: Any) -> Sweep:
    fields: dict[str, Any] = {
        "id": "s",
        "started": "2026-01-05T10:00:00+00:00",
        "finished": "2026-01-05T10:20:00+00:00",
        "qaeval_version": "0",
        "model": ModelFacts(name="qwen", kind="server", host="127.0.0.1", server="vllm 0.32.0"),
        "stage": "generate",
        "source": "qa_pairs",
        "noun": "pair",
        "n_prompts": 78,
        "max_tokens": 1024,
        "is_salted": True,
        "levels": tuple(levels),
        "knee": find_knee(levels),
    }
    return Sweep(**{**fields, **overrides})


def test_a_server_whose_metrics_are_empty_has_no_table_of_metrics() -> None:
    unknown = {"kv_cache_max": None, "preemptions": None}
    levels = [
        level.model_copy(update={"server": level.server and level.server.model_copy(update=unknown)})
        for level in RISING
    ]
    assert "server" in {section.anchor for section in write_sweep(make_sweep(RISING))}
    assert "server" not in {section.anchor for section in write_sweep(make_sweep(levels))}


def test_a_sweep_survives_a_json_round_trip() -> None:
    sweep = make_sweep(RISING)
    assert Sweep.model_validate_json(sweep.model_dump_json()) == sweep


def test_external_text_is_escaped_in_page_and_markdown() -> None:
    hostile = make_sweep(RISING, source=HOSTILE, command=f"qaeval sweep {HOSTILE}", noun="pair")
    page, markdown = render_sweep_html(hostile), render_sweep_markdown(hostile)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<script" not in markdown.replace("\\<", "")
    assert "default-src &#39;none&#39;; style-src &#39;sha256-" in page


def test_the_page_begins_with_the_knee_and_the_axis_has_the_measured_levels() -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - 0.4 s that few tests need

    from qaeval.report.chart import LIGHT  # noqa: PLC0415

    sweep = make_sweep(RISING)
    knee, *others = write_sweep(sweep)[0].paragraphs
    items = re.findall("<li[^>]*>(.*?)</li>", render_sweep_html(sweep))
    texts = [html.unescape(re.sub("<[^>]*>", "", item)).replace("\N{NO-BREAK SPACE}", " ") for item in items]
    assert texts[: 1 + len(others)] == [knee, *others]
    assert render_sweep_markdown(sweep).count(f"**{knee}**") == 1
    for chart in sweep_charts(sweep):
        axes = Figure().subplots()
        chart.draw(axes, LIGHT)
        assert [label.get_text() for label in axes.get_xticklabels()] == [
            str(level.concurrency) for level in sweep.levels
        ]


@pytest.mark.slow
def test_page_and_charts_are_the_same_for_the_same_sweep() -> None:
    sweep = make_sweep(RISING)
    assert render_sweep_html(sweep) == render_sweep_html(sweep)
    throughput, first_token = sweep_charts(sweep)
    assert "knee: 8" in throughput.svg()
    assert "knee: 8" in first_token.svg()
    assert "at 8 requests" in throughput.alt
    assert "knee:" not in sweep_charts(make_sweep(RISING[:3]))[0].svg()


def test_cautions_name_every_problem_of_a_sweep() -> None:
    odd_level = make_level(4, 100).model_copy(update={"little": 3.0, "n_items": 0, "n_cut": 50})
    text = " ".join(
        cautions(
            make_sweep(
                [make_level(1, 100), odd_level],
                unfinished=("4 in flight, repeat 3",),
                external=True,
                stale_days=120,
            )
        )
    )
    for phrase in (
        *("Little's law", "3.00 at 4", "pair at 4 in flight", "25.0 % of the replies", "max_tokens"),
        *("Not finished: 4 in flight", "left your network", "120 days old"),
    ):
        assert phrase in text


def test_all_tables_fit_a_terminal_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    server_metrics = ServerSpan(
        n_readings=9, ttft_s=1.2, inter_token_s=0.031, queue_s=12.3, running_max=64, waiting_max=3, kv_cache_max=1.0,
        preemptions=12_345, prefix_hit_rate=1.0, tpot_s=0.031, e2e_s=123.4,
    )  # fmt: skip
    times = LatencySummary(n=9, mean=1.0, p50=12.34, p95=123.4, p99=1234.5)
    fields = {"server": server_metrics, "ttft": times, "e2e": times, "itl": times, "tpot": times}
    levels = [
        make_level(concurrency, 11_075, 12_311, 9_999).model_copy(update=fields) for concurrency in (1, 64)
    ]
    print_sections(write_sweep(make_sweep(levels)))
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("  ")]
    assert max(map(len, lines)) <= 80
    headers = [line.split() for line in lines if line.startswith("In flight")]
    assert headers[-1] == [
        "In",
        "flight",
        "KV",
        "cache",
        "Preempted",
        "Hits",
        "Queue",
        "s",
        "TTFT",
        "s",
        "TPOT",
        "ms",
        "ITL",
        "ms",
        "E2E",
        "s",
    ]
    assert [header[2] for header in headers] == ["Requests/s", "TTFT", "TPOT", "KV"]


def test_the_cost_is_shown_with_its_price_and_source() -> None:
    machine = MachineFacts(
        name="l4", price_per_hour=1.01, currency="USD", as_of="2026-01-01", source="a list"
    )
    sweep = make_sweep(RISING, machine=machine, costs=level_costs(RISING, find_knee(RISING), 1.01))
    markdown = render_sweep_markdown(sweep)
    (saving,) = (line for line in markdown.splitlines() if line.startswith("1,000 pairs cost"))
    assert re.findall(r"\d[\d.,]*\d|\d", saving) == ["1,000", "0.0072", "8", "74.4", "1", "0.028"]
    assert "2026-01-01 (source: a list)" in markdown


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0213, "0.021"), (0.9996, "1.000"), (4.2, "4.20"), (41.23, "41.2"), (1234.5, "1,234"), (0.0, "0.000")],
)
def test_three_digits_never_use_powers_of_ten(value: float, text: str) -> None:
    assert three_digits(value) == text


# ---------------------------------------------------------------------------- one streamed request


def events(
    *texts: str, finish: str | None = "stop", completion_tokens: int | None = 7, separator: bytes = b"\n\n"
) -> bytes:
    def chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        return orjson.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})

    payloads = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts)]
    payloads.append(chunk({}, finish))
    if completion_tokens is not None:
        payloads.append(
            orjson.dumps(
                {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": completion_tokens}}
            )
        )
    return b"".join(b"data: " + payload + separator for payload in [*payloads, b"[DONE]"])


@given(st.integers(1, 40))
def test_a_stream_may_be_split_anywhere(size: int) -> None:
    for body in (events("Ä", "ö\n\n"), b": ping\n\n" + events("Ä", "ö\n\n", separator=b"\r\n\r\n")):
        stream = _Stream()
        for start in range(0, len(body), size):
            stream.take(body[start : start + size])
        reply = stream.reply(0.0, "url", None)
        assert (reply.text, reply.usage.completion_tokens, len(reply.gaps_s)) == ("Äö\n\n", 7, 3)


def test_a_stream_of_content_in_parts_is_read_like_a_whole_reply() -> None:
    parts = [
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
        {"content": [{"type": "text", "text": "whole "}]},
        {"content": "reply"},
    ]
    chunks: list[dict[str, Any]] = [{"choices": [{"delta": delta}]} for delta in parts]
    chunks[-1]["choices"][0]["finish_reason"] = "stop"
    # reasoning that is counted in the total alone
    chunks.append({"choices": [], "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 12}})
    stream = _Stream()
    for chunk in chunks:
        stream.take(b"data: " + orjson.dumps(chunk) + b"\n\n")
    reply = stream.reply(0.0, "url", None)
    assert (reply.text, len(reply.gaps_s)) == ("whole reply", 2)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 9)


def test_tokens_are_counted_by_the_server_not_by_chunks() -> None:
    stream = _Stream()
    stream.take(events("three tokens here", completion_tokens=3))
    assert stream.reply(0.0, "url", None).usage.completion_tokens == 3


@pytest.mark.parametrize(
    ("body", "reason", "message"),
    [
        (events("a", completion_tokens=None), "endpoint", "include_usage"),
        (events("a", finish=None), "interrupted", "stopped before its end"),
        (events("a", finish="abort"), "interrupted", "finish_reason 'abort'"),
        (events("a", finish="error"), "interrupted", "finish_reason 'error'"),
        (
            events("a") + b'data: {"error": {"message": "out of \\"sk-never-show-this\\""}}\n\n',
            "endpoint",
            "***",
        ),
        (b"", "endpoint", "expected a stream"),
        (b'{"choices": [{"message": {"content": "whole"}}]}', "endpoint", "expected a stream"),
    ],
)
def test_an_incomplete_stream_is_a_failure(body: bytes, reason: str, message: str) -> None:
    stream = _Stream()
    stream.take(body)
    with pytest.raises(ChatError, match=re.escape(message)) as error:
        stream.reply(0.0, "url", SECRET)
    assert error.value.reason == reason
    assert SECRET not in error.value.detail


async def test_a_streamed_request_is_timed() -> None:
    with LoopbackServer(latency_s=0.05, gap_s=0.01) as server:
        async with StreamingChat(
            base_url=server.url, addresses=("127.0.0.1",), model="tiny-gen", api_key=SECRET
        ) as model:
            reply = await model.ask(CHAT_REQUEST, {"cache_salt": "one"})
    assert reply.text.strip()
    assert reply.ttft_s >= 0.05
    assert reply.e2e_s == approx(reply.ttft_s + sum(reply.gaps_s))
    n_gaps = (
        reply.usage.completion_tokens - 1
    )  # the loopback server also counts the end token; chunks are the role and one per piece
    assert len(reply.gaps_s) == n_gaps
    assert reply.e2e_s >= 0.05 + 0.01 * (n_gaps - 1)
    (body,) = server.requests
    assert (body["stream"], body["stream_options"], body["cache_salt"]) == (
        True,
        {"include_usage": True},
        "one",
    )
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, {"error": {"message": f"down, {SECRET}"}}, "endpoint"),
        (429, {}, "endpoint"),
        (400, {"error": {"message": "no such thing"}}, "rejected"),
        (400, {"message": "This model's maximum context length is 8192 tokens."}, "context_overflow"),
        (302, {}, "rejected"),
        (200, b"data: {not json}\n\n", "endpoint"),
        (200, b"data: [1]\n\n", "endpoint"),
        (200, b'data: {"choices": [{"delta": {"content": [1]}}]}\n\n', "endpoint"),
        (200, b'data: {"choices": [{"delta": {}, "finish_reason": {}}]}\n\n', "endpoint"),
        (200, b'data: {"choices": [{"delta": {}, "finish_reason": ["stop"]}]}\n\n', "endpoint"),
        (200, b"data: " + b"x" * (2**24 + 1), "endpoint"),
    ],
)
async def test_a_response_that_is_not_a_stream_fails_without_a_retry(
    status: int, body: Any, reason: str
) -> None:
    with LoopbackServer() as server:
        server.answer(status, body, {"Location": "http://127.0.0.1:9/v1"})
        async with StreamingChat(
            base_url=server.url, addresses=("127.0.0.1",), model="tiny-gen", api_key=SECRET
        ) as model:
            with pytest.raises(ChatError) as error:
                await model.ask(CHAT_REQUEST)
    assert error.value.reason == reason
    assert len(server.requests) == 1
    assert SECRET not in f"{error.value.detail!r} {error.value.__context__!r}"


async def test_an_unreachable_server_raises_an_endpoint_error() -> None:
    async with StreamingChat(
        base_url="http://127.0.0.1:9/v1", addresses=("127.0.0.1",), model="tiny-gen"
    ) as model:
        with pytest.raises(EndpointError, match="/health"):
            await model.ask(CHAT_REQUEST)


@pytest.mark.parametrize(
    ("entry", "facts", "expected"),
    [
        ({}, {"version": "0.32.0"}, {"n_messages": 2, "top_logprobs": 20, "items": ["a"]}),
        ({"structured": "off"}, {}, {"n_messages": 2, "top_logprobs": 20, "items": None}),
        ({"system_role": "merge"}, {}, {"n_messages": 1, "top_logprobs": 20, "items": "left out"}),
        ({}, {"system_role": False}, {"n_messages": 1, "top_logprobs": 20, "items": "left out"}),
        ({}, {"system_role": True}, {"n_messages": 2, "top_logprobs": 20, "items": "left out"}),
        ({}, {"max_logprobs": 3}, {"n_messages": 2, "top_logprobs": 3, "items": "left out"}),
        ({}, None, {"n_messages": 2, "top_logprobs": 20, "items": "left out"}),
    ],
)
async def test_requests_follow_the_capabilities_of_the_server(
    entry: dict[str, Any], facts: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    request = ChatRequest(
        (Message("system", "Be exact."), Message("user", "One?")),
        {"type": "array", "prefixItems": ["a"]},
        sampling=Sampling(max_tokens=64),
        top_logprobs=20,
    )
    with LoopbackServer(["served"]) as server:
        spec = ModelSpec(name="entry", url=server.url, served_name="served", **entry)
        endpoint_facts = (
            None if facts is None else EndpointFacts(base_url=server.url, model="served", **facts)
        )
        async with streaming(Endpoint(spec, endpoint_facts, addresses=("127.0.0.1",))) as model:
            await model.ask(request)
    (body,) = server.requests
    response_format = body.get("response_format")
    schema = response_format and response_format["json_schema"]["schema"]
    assert body["model"] == "served"
    assert {
        "n_messages": len(body["messages"]),
        "top_logprobs": body["top_logprobs"],
        "items": schema and schema.get("prefixItems", "left out"),
    } == expected


async def test_requests_carry_the_key_renamed_fields_and_extra_fields(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SWEEP_KEY", SECRET)
    with LoopbackServer(["entry"]) as server:
        spec = ModelSpec(name="entry", url=server.url, api_key_env="SWEEP_KEY", thinking=False)
        facts = EndpointFacts(
            base_url=server.url, model="entry", fields={"max_tokens": "max_completion_tokens"}
        )
        async with streaming(Endpoint(spec, facts, addresses=("127.0.0.1",))) as model:
            await model.ask(CHAT_REQUEST)
    (body,) = server.requests
    assert (body["max_completion_tokens"], "max_tokens" in body) == (64, False)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"


# ------------------------------------------------------------------------------------- the command

NAMES = ("mistral", "compass-judger")


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(NAMES) as running:
        yield running


def run_sweep(server: LoopbackServer, *options: object, model: str = "mistral", out: Path) -> int:
    load_options = ("--concurrency", "2,1", "--requests", 4, "--repeats", 2)
    argv = ["sweep", model, "--endpoint", f"{model}={server.url}", *load_options, *options, "--out", out]
    return run([str(argument) for argument in argv])


def read_rows(folder: Path) -> list[TimedRequest]:
    lines = (folder / "requests.jsonl").read_text().splitlines()
    return [TimedRequest.model_validate_json(line) for line in lines]


@pytest.mark.slow
def test_a_sweep_writes_rows_summary_page_and_charts(
    server: LoopbackServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_sweep(server, "--n", 3, out=tmp_path / "s") == 0
    stdout = capsys.readouterr().out
    assert "mistral writing qa_pairs" in stdout
    tables = [
        line for line in stdout.splitlines() if not line.startswith("  ") and not line.startswith("page")
    ]
    assert max(map(len, tables)) <= 80
    rows = read_rows(tmp_path / "s")
    # all levels run once before the next repeat; each repeat starts with one warm-up request per slot
    order = list(dict.fromkeys((row.concurrency, row.repeat) for row in rows))
    assert order == [(1, 1), (2, 1), (1, 2), (2, 2)]
    assert [sum(row.warm_up for row in rows if row.concurrency == concurrency) for concurrency in (1, 2)] == [
        2,
        4,
    ]
    assert [
        sum(not row.warm_up for row in rows if row.concurrency == concurrency) for concurrency in (1, 2)
    ] == [8, 8]
    sweep = Sweep.model_validate_json((tmp_path / "s" / "sweep.json").read_text())
    assert [(level.concurrency, level.n_requests, level.n_failed) for level in sweep.levels] == [
        (1, 8, 0),
        (2, 8, 0),
    ]
    assert sweep.levels[0].n_items == 24  # three pairs per reply
    for name in (
        "sweep.html",
        "sweep.md",
        "metrics.jsonl",
        "charts/throughput.svg",
        "charts/first-token.svg",
    ):
        assert (tmp_path / "s" / name).stat().st_size


@pytest.mark.slow
def test_a_sweep_sends_the_prompts_of_the_generate_stage(server: LoopbackServer, tmp_path: Path) -> None:
    assert run_sweep(server, "--n", 3, "--repeats", 1, out=tmp_path / "s") == 0
    streamed = [body for body in server.requests if body.get("stream")]
    server.requests.clear()
    argv = [
        "generate",
        "mistral",
        "--endpoint",
        f"mistral={server.url}",
        "--n",
        "3",
        "--out",
        str(tmp_path / "g"),
    ]
    assert run(argv) == 0
    generated = [body for body in server.requests if "quokka" not in json.dumps(body)]
    stream_fields = {"stream", "stream_options", "cache_salt"}

    def comparable(body: dict[str, Any]) -> str:
        return json.dumps(
            {key: value for key, value in body.items() if key not in stream_fields}, sort_keys=True
        )

    assert {comparable(body) for body in streamed} == {
        comparable(body) for body in generated if body["max_tokens"] > 100
    }


@pytest.mark.slow
def test_repeated_prompts_are_salted_but_prompts_of_one_round_share_a_salt(
    server: LoopbackServer, tmp_path: Path
) -> None:
    # 3 prompts, 4 requests and one warm-up request per slot: the fourth repeats the first prompt with
    # another salt
    assert run_sweep(server, "--n", 3, "--concurrency", 1, out=tmp_path / "s") == 0
    salted_prompts = [
        (body["cache_salt"], json.dumps(body["messages"])) for body in server.requests if body.get("stream")
    ]
    assert len(set(salted_prompts)) == len(salted_prompts) == 10
    salts = [salt for salt, _ in salted_prompts]
    assert len(set(salts)) == 4  # two repeats, two rounds each
    assert max(map(salts.count, salts)) == 3


@pytest.mark.slow
def test_a_judge_is_measured_on_the_items_of_a_run(
    server: LoopbackServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", "embedded-lead", "--n", "2", "--out", str(tmp_path / "g")]) == 0
    capsys.readouterr()
    options = ("--run", tmp_path / "g", "--json")
    assert run_sweep(server, *options, model="compass-judger", out=tmp_path / "s") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["stage"], document["noun"], document["n_prompts"]) == ("grade", "letter", 6)
    assert document["levels"][0]["n_items"] == 8  # one letter per reply


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("sweep", "embedded-lead"), 64, "a sweep measures a server"),
        (("sweep", "compass-judger"), 64, "--run"),
        (("sweep", "mistral", "--rubric", "x"), 64, "--rubric"),
        (("sweep", "mistral", "--run", "r", "--n", "3"), 64, "--n and --run"),
        (("sweep", "mistral", "--concurrency", "1,x"), 64, "expected numbers from 1 to 4,096"),
        (("sweep", "mistral", "--concurrency", "0"), 64, "expected numbers from 1 to 4,096"),
        (
            ("sweep", "mistral", "--endpoint", "mistral=http://127.0.0.1:9/v1,http://127.0.0.1:8/v1"),
            64,
            "several servers",
        ),
        (("sweep", "mistral", "--endpoint", "mistral=http://8.8.8.8/v1"), 69, "allow_external"),
        (("sweep", "mistral", "--endpoint", "mistral=http://127.0.0.1:9/v1"), 69, "127.0.0.1:9"),
    ],
)
def test_refused_sweeps_explain_the_reason(
    argv: tuple[str, ...], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*argv, "--out", str(tmp_path / "s")]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_hosted_api_is_not_swept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = tmp_path / "hosted.yaml"
    registry.write_text("models: {far: {kind: hosted, url: 'http://127.0.0.1:9/v1', served_name: x}}\n")
    assert run(["sweep", "far", "--config", str(registry), "--out", str(tmp_path / "s")]) == 64
    stderr = capsys.readouterr().err
    assert "far is a hosted API" in stderr
    assert "--consent" not in stderr  # which a sweep does not have


def test_an_existing_directory_is_not_overwritten(
    server: LoopbackServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_sweep(server, out=tmp_path) == 64
    assert "choose another --out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_crashed_server_ends_the_sweep_and_finished_levels_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LoopbackServer(NAMES) as server:
        assert run_sweep(server, "--repeats", 1, out=tmp_path / "whole") == 0
        n_probes = len(server.requests) - 11
    # 5 requests at one in flight are finished; of the 6 at two, the server answers two
    with LoopbackServer(NAMES, die_after=n_probes + 7, latency_s=0.1) as server:
        assert run_sweep(server, "--repeats", 1, out=tmp_path / "s") == 69
    output = capsys.readouterr()
    assert "/health" in output.err
    assert "Not finished: 2 in" in output.out
    sweep = Sweep.model_validate_json((tmp_path / "s" / "sweep.json").read_text())
    assert [level.concurrency for level in sweep.levels] == [1]
    assert {row.concurrency for row in read_rows(tmp_path / "s")} == {1, 2}


def test_a_server_that_returns_only_errors_is_not_measured(
    server: LoopbackServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(request: Any) -> Any:
        body = await request.json()
        return faulty(429, "too many") if body.get("stream") else None

    server._fault = refuse  # type: ignore[method-assign]
    assert run_sweep(server, out=tmp_path / "s") == 69
    stderr = capsys.readouterr().err
    assert "first 5" in stderr
    assert "429" in stderr
    assert all(row.reason == "endpoint" for row in read_rows(tmp_path / "s"))


@pytest.mark.slow
def test_ctrl_c_keeps_the_rows_and_reports_the_finished_levels(tmp_path: Path) -> None:
    with LoopbackServer(NAMES, latency_s=0.2) as server:
        command = [
            QAEVAL,
            "sweep",
            "mistral",
            "--endpoint",
            f"mistral={server.url}",
            "--concurrency",
            "1,2",
            "--requests",
            "6",
        ]
        process = subprocess.Popen(
            [*command, "--out", str(tmp_path / "s")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "80"},
        )
        rows_path = tmp_path / "s" / "requests.jsonl"
        wait_until(lambda: rows_path.exists() and '"concurrency":2' in rows_path.read_text())
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert "stopping" in stderr
    assert "and 4 more" in stdout
    sweep = Sweep.model_validate_json((tmp_path / "s" / "sweep.json").read_text())
    assert [level.concurrency for level in sweep.levels] == [1]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "code", "levels"), [("ok", 0, [1, 2]), ("crashes-after-12", 69, [1])])
def test_a_managed_server_is_started_measured_and_stopped(
    kind: str,
    code: int,
    levels: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # the probe sends 5 requests and the level of one in flight 5 more: the server dies in the next level
    monkeypatch.chdir(tmp_path)
    fake_command = [sys.executable, str(Path(__file__).with_name("fake_vllm.py"))]
    registry = {
        "serving": {"command": fake_command, "env": {}},
        "models": {"mine": {"hf_id": f"fake/{kind}"}},
    }
    Path("mine.yaml").write_text(json.dumps(registry))
    argv = [
        "sweep",
        "mine",
        "--config",
        "mine.yaml",
        "--concurrency",
        "1,2",
        "--requests",
        "4",
        "--repeats",
        "1",
    ]
    assert run([*argv, "--out", "s"]) == code
    sweep = Sweep.model_validate_json(Path("s", "sweep.json").read_text())
    assert [level.concurrency for level in sweep.levels] == levels
    assert list(Path("s", "logs").iterdir())
    assert ("mine: the server died. The end of s/logs/mine.log:" in capsys.readouterr().err) == bool(code)


def test_a_gauge_is_the_maximum_over_engines() -> None:
    text = b'# TYPE vllm:kv gauge\nvllm:kv{engine="0"} 0.25\nvllm:kv{engine="1"} 0.5\nvllm:kv_other 0.9\n'
    assert read_gauge(text, "vllm:kv") == 0.5
    assert read_gauge(text, "vllm:nothing") is None
    assert read_gauge(b"vllm:kv many\n", "vllm:kv") is None


# ------------------------------------------------------------------------- a mock server with known times and knee

TIMES = {"tokens": 16, "ttft_ms": 60, "gap_ms": 10}
COMPILER = shutil.which("cc") or shutil.which("gcc")
needs_a_compiler = pytest.mark.skipif(not COMPILER, reason="the mock server needs a C compiler")


@needs_a_compiler
@pytest.mark.nightly
def test_known_latencies_and_slots_of_a_mock_server_are_measured(tmp_path: Path) -> None:
    # a reply takes 60 + 15 × 10 ms = 0.21 s; 4 run at once, the others wait: 4 / 0.21 = 19.05 replies,
    # 304.8 tokens per second
    registry = tmp_path / "mock.yaml"
    registry.write_text("models: {bench: {url: 'http://127.0.0.1:9/v1', structured: off}}\n")
    with Mock(slots=4, **TIMES) as mock:
        argv = ["sweep", "bench", "--config", str(registry), "--endpoint", f"bench={mock.url}"]
        argv += ["--concurrency", "1,2,4,8", "--requests", "16", "--out", str(tmp_path / "s")]
        assert run(argv) == 0
    sweep = Sweep.model_validate_json((tmp_path / "s" / "sweep.json").read_text())
    one, two, four, eight = sweep.levels
    for level, in_flight in ((one, 1), (two, 2), (four, 4)):
        assert level.ttft.p50 == approx(0.060, rel=0.05)
        assert level.tpot.p50 == approx(0.010, rel=0.05)
        assert level.itl.p50 == approx(0.010, rel=0.05)
        assert level.e2e.p50 == approx(0.210, rel=0.05)
        assert level.requests_per_s.value == approx(in_flight / 0.21, rel=0.05)
        assert level.tokens_per_s.value == approx(in_flight * 16 / 0.21, rel=0.05)
        assert level.little == approx(in_flight, rel=0.05)
    assert eight.requests_per_s.value == approx(4 / 0.21, rel=0.05)
    assert eight.ttft.p50 == approx(0.060 + 0.210, rel=0.05)  # waits for one complete reply first
    assert (sweep.knee.concurrency, sweep.knee.is_found, sweep.knee.least) == (4, True, 4)


@needs_a_compiler
@pytest.mark.slow
def test_the_knee_stays_below_the_level_that_preempts(tmp_path: Path) -> None:
    registry = tmp_path / "mock.yaml"
    registry.write_text("models: {bench: {url: 'http://127.0.0.1:9/v1', structured: off}}\n")
    with Mock(preempt_above=2, **TIMES) as mock:
        argv = ["sweep", "bench", "--config", str(registry), "--endpoint", f"bench={mock.url}"]
        argv += ["--concurrency", "1,2,4", "--requests", "8", "--repeats", "1", "--out", str(tmp_path / "s")]
        assert run(argv) == 0
    sweep = Sweep.model_validate_json((tmp_path / "s" / "sweep.json").read_text())
    assert (sweep.knee.concurrency, sweep.knee.is_found) == (2, True)
    assert "preemption" in sweep.knee.excluded[4]


# --------------------------------------------------------------------- the example of docs/cost.md


def test_the_numbers_of_the_worked_example_in_the_docs_are_computed() -> None:
    document = (Path(__file__).parents[1] / "docs" / "cost.md").read_text()
    single_rate, rate_at_30 = 0.23, 2.11
    levels = [make_level(1, single_rate * 10), make_level(30, rate_at_30 * 10)]
    knee = find_knee(levels)
    assert (knee.concurrency, knee.is_found, knee.best) == (30, False, 30)
    min_level = min_in_flight(single_rate, rate_at_30)
    work_at_knee = steady_work(1932, per_s=0.95 * rate_at_30, price_per_hour=1.01)
    for phrase in (
        f"0.95 × 2.11 = {0.95 * rate_at_30:.4f} chunks per second",
        f"{0.95 * rate_at_30:.4f} / 0.23 = {0.95 * rate_at_30 / single_rate:.2f}, so {min_level} in flight at least",
        f"from {1 / single_rate:.1f} s to {30 / rate_at_30:.1f} s",
        f"{rate_at_30 / single_rate:.1f} times the throughput",
        f"{30 / rate_at_30 * single_rate:.1f} times as long",
        f"USD {work_at_knee.price:.4f}, USD {work_at_knee.price_per_1000:.4f} for 1,000 chunks",
        f"{100 * (1 - work_at_knee.price / steady_work(1932, per_s=single_rate, price_per_hour=1.01).price):.1f} % less than one at a time",
    ):
        assert phrase in document, phrase


# ---------------------------------------------------------------------- the server metrics of a normal run


def reading(at_s: float, session: str = "1", **values: float) -> Reading:
    """Make a reading of server metrics: ``ttft_sum`` is the sum of a histogram; ``stop`` and ``length`` are finished requests."""
    names = {"ttft": TTFT, "tpot": TPOT, "itl": ITL, "e2e": E2E, "queue": QUEUE}
    metric_names = {"stop": f"{SUCCESSES} stop", "length": f"{SUCCESSES} length", "tokens": GENERATED_TOKENS}
    metric_names |= {
        f"{abbreviation}_{part}": f"{name}_{part}"
        for abbreviation, name in names.items()
        for part in ("sum", "count")
    }
    metric_names |= {
        "e2e_1": f"{E2E}_bucket 1.0",
        "e2e_2": f"{E2E}_bucket 2.0",
        "e2e_inf": f"{E2E}_bucket +Inf",
    }
    return Reading(
        stage="generate",
        model="alpha",
        session=session,
        at_s=at_s,
        values={metric_names[name]: value for name, value in values.items()},
    )


def test_server_metrics_of_a_run_give_the_same_quantities_without_extra_load() -> None:
    # two sessions of 10 s and 30 s: 12 + 28 requests in 40 s, 4,000 tokens; time per token 1.2 s over 40
    # requests; half of them below 1 s
    first_session = [
        reading(0, stop=5, length=1, tokens=100, tpot_sum=0, tpot_count=0, e2e_1=0, e2e_2=0, e2e_inf=0),
        reading(
            10, stop=15, length=3, tokens=1100, tpot_sum=0.4, tpot_count=12, e2e_1=6, e2e_2=12, e2e_inf=12
        ),
    ]
    second_session = [
        reading(0, "2", stop=0, length=0, tokens=0, tpot_sum=0, tpot_count=0, e2e_1=0, e2e_2=0, e2e_inf=0),
        reading(
            30,
            "2",
            stop=28,
            length=0,
            tokens=3000,
            tpot_sum=0.8,
            tpot_count=28,
            e2e_1=14,
            e2e_2=28,
            e2e_inf=28,
        ),
    ]
    span = server_span([*first_session, *second_session], "generate", "alpha")
    assert span is not None
    assert (span.requests_per_s, span.tokens_per_s) == (approx(1.0), approx(100.0))
    assert span.tpot_s == approx(1.2 / 40)
    assert (span.e2e_p50_s, span.e2e_p95_s) == (approx(1.0), approx(1.9))  # the 38th: 18 of the 20 above 1 s


def test_counters_of_a_server_that_was_started_again_go_on_from_zero() -> None:
    readings = [
        reading(0, tokens=5000, e2e_sum=90, e2e_count=45),
        reading(5, tokens=5600, e2e_sum=96, e2e_count=48),
        reading(10, tokens=100, e2e_sum=2, e2e_count=1),
        reading(15, tokens=400, e2e_sum=8, e2e_count=4),
    ]
    span = server_span(readings, "generate", "alpha")
    assert span is not None
    assert span.tokens_per_s == approx((600 + 400) / 15)
    assert span.e2e_s == approx((6 + 8) / (3 + 4))


def test_quantities_the_server_does_not_count_are_none_not_zero() -> None:
    span = server_span([reading(0, tokens=0), reading(10, tokens=50)], "generate", "alpha")
    assert span is not None
    assert (span.tokens_per_s, span.requests_per_s, span.tpot_s, span.e2e_s) == (
        approx(5.0),
        None,
        None,
        None,
    )
    single = server_span([reading(0, tokens=50, stop=1)], "generate", "alpha")
    assert single is not None
    assert (single.tokens_per_s, single.requests_per_s) == (None, None)


def test_the_report_distinguishes_the_three_token_times() -> None:
    report_case = case({"alpha": ["AA"] * 12}, items_per_sample=2)
    readings = (
        reading(
            0, tpot_sum=0, tpot_count=0, itl_sum=0, itl_count=0, e2e_sum=0, e2e_count=0, stop=0, tokens=0
        ),
        reading(
            10,
            tpot_sum=0.3,
            tpot_count=10,
            itl_sum=2,
            itl_count=100,
            e2e_sum=20,
            e2e_count=10,
            stop=10,
            tokens=110,
        ),
    )
    (table,) = [
        candidate_table
        for candidate_table in speed(report_case.with_rows(readings=readings).report()).tables
        if any("TPOT" in column for column in candidate_table.header)
    ]
    cells = dict(zip(table.header, table.rows[0], strict=True))
    means = {
        kind: cell.split(" / ")[0]
        for column, cell in cells.items()
        for kind in re.findall(r"\((\w+)\)", column)
    }
    assert means == {"TPOT": "0.030 s", "ITL": "0.020 s", "E2E": "2.0 s"}
    assert (cells["Requests per second"], cells["Output tokens per second"]) == ("1.0 /s", "11.0 /s")
    assert "TPOT is" in table.notes[0]
    assert "TTFT" not in table.notes[0]  # there is no TTFT column


@pytest.mark.parametrize(
    "fields",
    [
        {"repeat": 0},
        {"concurrency": 0},
        {"start_s": -0.1},
        {"end_s": -0.1},
        {"n_items": -1},
    ],
)
def test_a_request_with_an_impossible_number_is_refused(fields: dict[str, Any]) -> None:
    assert timed(0, 1, repeat=1, concurrency=1, start_s=0, ttft_s=0, n_items=0).repeat == 1
    with pytest.raises(ValidationError, match=next(iter(fields))):
        timed(0, 1, **fields)
