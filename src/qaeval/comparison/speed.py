"""Section on times, tokens and cost."""

from collections.abc import Iterable
from typing import Final

from qaeval.analysis.model import ServerSpan, Timing, Tokens
from qaeval.comparison.report import Report
from qaeval.cost.sections import cost_method, energy_table, item_costs, node_table, stage_costs
from qaeval.report import numbers
from qaeval.report.tables import Section, Table

_ALONGSIDE = "Generation and grading ran side by side on servers of their own; the judge's wall time holds its waiting for items."

_MEANINGS: Final = {
    "TTFT": "TTFT is until the first token, the queue included",
    "TPOT": "TPOT is the time of decoding / (output tokens \u2212 1) of each request",
    "ITL": "ITL is every gap between two tokens, those of all requests pooled",
    "E2E": "E2E is the whole request",
}
"""The same letters mean something else in other tools."""


def speed(report: Report) -> Section:
    """Times and tokens."""
    judge = report.judge
    rows = [
        _speed(f"generate {candidate.facts.name}", candidate.timing, candidate.tokens)
        for candidate in report.candidates
    ]
    rows.append(_speed(f"grade {judge.facts.name}", judge.timing, judge.tokens))
    header = (
        "Stage",
        "Wall time",
        "Items",
        "Latency p50",
        "Latency p95",
        "Prompt tokens",
        "from cache",
        "Completion tokens",
        "per second",
    )
    spans = [(f"generate {candidate.facts.name}", candidate.timing.server) for candidate in report.candidates]
    spans.append((f"grade {judge.facts.name}", judge.timing.server))
    return Section(
        anchor="speed",
        title="Performance and cost",
        paragraphs=(
            *((_ALONGSIDE,) if judge.timing.alongside else ()),
            *_known(report),
            *cost_method(report.timing),
        ),
        tables=(
            Table(caption="Time and tokens by stage", header=header, rows=tuple(rows)),
            *_servers(spans),
            *item_costs(report.timing.costs),
            *stage_costs(report.timing),
            *node_table(report.timing.nodes),
            *energy_table(report.timing),
        ),
    )


def _known(report: Report) -> tuple[str, ...]:
    """Name the models with replies from the cache."""
    judge = report.judge
    timings = [(candidate.facts.name, candidate.timing) for candidate in report.candidates] + [
        (judge.facts.name, judge.timing)
    ]
    cached = [f"{name} {numbers.percent(1 - timing.fresh)}" for name, timing in timings if timing.fresh < 1]
    if not cached:
        return ()
    return (f"Replies from the cache: {', '.join(cached)}. Speed and cost cover the others.",)


def _servers(spans: Iterable[tuple[str, ServerSpan | None]]) -> tuple[Table, ...]:
    """Return what the servers say of themselves; nothing where none was read, no column that none of them has."""
    server_spans = [(name, span) for name, span in spans if span is not None]
    if not server_spans:
        return ()
    columns = {
        "Requests per second": [numbers.per_second(span.requests_per_s) for _, span in server_spans],
        "Output tokens per second": [numbers.per_second(span.tokens_per_s) for _, span in server_spans],
        "First token (TTFT), mean / p50 / p95": [
            _times(span.ttft_s, span.ttft_p50_s, span.ttft_p95_s) for _, span in server_spans
        ],
        "Per output token (TPOT), mean / p50 / p95": [
            _times(span.tpot_s, span.tpot_p50_s, span.tpot_p95_s) for _, span in server_spans
        ],
        "Between tokens (ITL), mean / p50 / p95": [
            _times(span.inter_token_s, span.inter_token_p50_s, span.inter_token_p95_s)
            for _, span in server_spans
        ],
        "Whole request (E2E), mean / p50 / p95": [
            _times(span.e2e_s, span.e2e_p50_s, span.e2e_p95_s) for _, span in server_spans
        ],
        "In the queue, mean": [_times(span.queue_s) for _, span in server_spans],
        "Running, at most": [_whole(span.running_max) for _, span in server_spans],
        "Waiting, at most": [_whole(span.waiting_max) for _, span in server_spans],
        "KV cache, at most": [_share(span.kv_cache_max) for _, span in server_spans],
        "Preemptions": [_whole(span.preemptions) for _, span in server_spans],
        "Prompt from cache": [_share(span.prefix_hit_rate) for _, span in server_spans],
    }
    measured = {head: cells for head, cells in columns.items() if set(cells) != {numbers.NOT_MEASURED}}
    rows = tuple((name, *cells) for (name, _), *cells in zip(server_spans, *measured.values(), strict=True))
    stages: dict[tuple[str, ...], list[str]] = {}
    for name, span in server_spans:
        if span.missing:
            stages.setdefault(span.missing, []).append(name)
    notes = _meanings(measured) + tuple(
        f"{'Every server' if len(names) == len(server_spans) else ', '.join(names)}: not there are {', '.join(missing)}."
        for missing, names in stages.items()
    )
    caption = "Metrics of the servers by stage"
    return (Table(caption=caption, header=("Stage", *measured), rows=rows, notes=notes),)


def _meanings(columns: Iterable[str]) -> tuple[str, ...]:
    """Say what the times are of which a column is there."""
    shown = " ".join(columns)
    named = [meaning for name, meaning in _MEANINGS.items() if f"({name})" in shown]
    return (
        (f"{'; '.join(named)}. All are the server's own times, without the way there and back.",)
        if named
        else ()
    )


def _times(*values: float | None) -> str:
    if not any(value is not None for value in values):
        return numbers.NOT_MEASURED
    return " / ".join("?" if value is None else numbers.seconds(value) for value in values)


def _share(value: float | None) -> str:
    return numbers.NOT_MEASURED if value is None else numbers.percent(value)


def _whole(value: float | None) -> str:
    return numbers.NOT_MEASURED if value is None else f"{value:,.0f}"


def _speed(name: str, timing: Timing, tokens: Tokens) -> tuple[str, ...]:
    return (
        name,
        numbers.seconds(timing.wall_s),
        numbers.per_second(timing.items_per_s),
        numbers.seconds(timing.latency_p50_s),
        numbers.seconds(timing.latency_p95_s),
        numbers.count(tokens.prompt),
        numbers.count(timing.cached_prompt_tokens),
        numbers.count(tokens.completion),
        numbers.NOT_MEASURED
        if tokens.completion is None or not timing.wall_s
        else numbers.count(round(tokens.completion / timing.wall_s)),
    )
