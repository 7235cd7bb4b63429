"""The sections of a sweep's report: the knee first, then the numbers behind it and their definitions."""

from collections.abc import Iterable, Sequence
from typing import Final

from qaeval.report import numbers
from qaeval.report.measure import Measure
from qaeval.report.tables import Section, Table
from qaeval.sweep.model import Knee, LatencySummary, LoadLevel, Sweep

PREEMPTIONS_UNKNOWN: Final = "Preemptions are unknown: the server does not report them."

_TIMES: Final = (
    "TTFT = first chunk - start; E2E = last chunk - start; TPOT = (E2E - TTFT) / (n - 1) of each request, "
    "where n is its output tokens from usage; ITL = gaps between chunks, pooled over all requests. p50, "
    "p95 and p99 are over all successful requests of all repeats; failed requests are counted but not "
    "timed. These are the definitions of vLLM; other tools define some of them differently."
)
_THROUGHPUT: Final = (
    "Throughput = replies (output tokens, items) / seconds of the steady window, in which all requests "
    "are in flight: from the first start after warm-up to the first end after the last start. A reply "
    "that lies partly in the window counts by that part. Intervals: mean ± t × s / √r over r repeats."
)
_KNEE: Final = (
    "Knee = the fewest requests in flight with at least 95 % of the best throughput (output tokens per "
    "second), at most 1 % errors and no preemption."
)
_LITTLE_TOLERANCE: Final = 0.1
"""A larger relative deviation from Little's law is more than rounding."""
_MS_PER_S: Final = 1000


def write_sweep(sweep: Sweep) -> tuple[Section, ...]:
    """Return the sections of a sweep: knee, throughput, times, server metrics, cost."""
    return (
        Section(
            anchor="knee", title=sweep_title(sweep), paragraphs=(*verdict(sweep), *cautions(sweep), _KNEE)
        ),
        Section(
            anchor="throughput",
            title="Throughput",
            paragraphs=(_THROUGHPUT,),
            tables=(_throughput(sweep),),
        ),
        Section(anchor="times", title="Times", paragraphs=(_TIMES,), tables=_times(sweep.levels)),
        *_server(sweep.levels),
        *_cost(sweep),
    )


def sweep_title(sweep: Sweep) -> str:
    """Return the title: model, stage, source and levels."""
    activity = "writing" if sweep.stage == "generate" else "grading"
    levels = numbers.listed(_level_names(sweep.levels))
    return f"{sweep.model.name} {activity} {sweep.source}, {levels} in flight"


def sweep_subtitle(sweep: Sweep) -> str:
    """Return the subtitle: prompts, server, repeats and date."""
    server = f" by {sweep.model.server}" if sweep.model.server else ""
    repeats = max(len(level.repeats) for level in sweep.levels)
    prompts = f"{numbers.plural(sweep.n_prompts, 'prompt')}, at most {sweep.max_tokens:,} output tokens each"
    return (
        f"{prompts}; served{server} at {sweep.model.host}; {numbers.plural(repeats, 'repeat')}; "
        f"{numbers.moment(sweep.finished)}."
    )


def verdict(sweep: Sweep) -> tuple[str, ...]:
    """Return the knee with its performance and its uncertainty."""
    knee = sweep.knee
    if knee.concurrency is None:
        return (f"No knee: {knee.reason}.",)
    levels = {level.concurrency: level for level in sweep.levels}
    knee_level, best = levels[knee.concurrency], levels[knee.best or knee.concurrency]
    performance = (
        f"{numbers.plural(knee.concurrency, 'request')} in flight: {speed_of(knee_level.tokens_per_s)} "
        f"output tokens/s, {speed_of(knee_level.items_per_s)} {sweep.noun}s/s, TTFT p95 "
        f"{_seconds(knee_level.ttft.p95)}"
    )
    if not knee.is_found:
        return (
            f"Knee not found: {knee.reason}. {_next_levels(knee)}",
            f"Best: {performance}.",
            *_min_in_flight(knee),
        )
    share = "the best of all levels"
    if knee.concurrency != knee.best:
        percent = numbers.percent(knee.share_of_best)
        share = f"{percent} of the best ({speed_of(best.tokens_per_s)}, at {knee.best})"
    return (f"The knee is at {performance}; {share}.", *_certainty(knee), *_min_in_flight(knee))


def _next_levels(knee: Knee) -> str:
    last = knee.concurrency or 1
    return f"Continue with --concurrency {','.join(str(last * factor) for factor in (1, 2, 4))}."


def _certainty(knee: Knee) -> tuple[str, ...]:
    """Return which other levels may be the knee, given the variation of the repeats."""
    if not knee.possible:
        return ("The uncertainty of the knee is unknown: it needs at least three repeats.",)
    if len(knee.possible) == 1:
        return ("No other level is plausible, given the variation of the repeats.",)
    shares = [f"{possible.concurrency} ({numbers.percent(possible.share)})" for possible in knee.possible]
    message = (
        f"Given the variation of the repeats, several levels are plausible: {numbers.listed(shares, 'or')} "
        "of 10,000 draws of the mean throughputs. More --repeats narrow this down."
    )
    return (message,)


def _min_in_flight(knee: Knee) -> tuple[str, ...]:
    if knee.least is None or knee.least <= 1:
        return ()
    return (
        f"95 % of that needs at least {knee.least} in flight: n requests are at most n times as fast as one.",
    )


def cautions(sweep: Sweep) -> tuple[str, ...]:
    """Return the cautions, each with a leading exclamation mark."""
    messages = [
        f"Excluded from the knee: {level} in flight, {why}." for level, why in sweep.knee.excluded.items()
    ]
    messages += _faster_levels(sweep)
    if all(load_level.preemptions is None for load_level in sweep.levels):
        messages.append(PREEMPTIONS_UNKNOWN)
    if not sweep.is_salted:
        messages.append(
            "Not a vLLM server: repeated prompts may hit its prefix cache and be faster than in a run."
        )
    if without_items := [
        load_level
        for load_level in sweep.levels
        if not load_level.n_items and load_level.n_failed < load_level.n_requests
    ]:
        at = numbers.listed(_level_names(without_items))
        messages.append(f"No reply contained a {sweep.noun} at {at} in flight.")
    if n_cut := sum(load_level.n_cut for load_level in sweep.levels):
        share = n_cut / sum(load_level.n_requests for load_level in sweep.levels)
        messages.append(
            f"{numbers.percent(share)} of the replies ended at max_tokens ({sweep.max_tokens:,})."
        )
    messages += _little_violations(sweep.levels)
    if sweep.stale_days is not None:
        messages.append(f"The price is {sweep.stale_days:,} days old; look it up again.")
    if sweep.external:
        messages.append(f"The prompts left your network: they were sent to {sweep.model.host}.")
    if sweep.unfinished:
        first, n = sweep.unfinished[0], len(sweep.unfinished)
        messages.append(f"Not finished: {first}{f' and {n - 1} more' if n > 1 else ''}.")
    return tuple(f"! {text}" for text in messages)


def _faster_levels(sweep: Sweep) -> list[str]:
    """Return the excluded levels that were faster than the best qualifying one."""
    levels = {load_level.concurrency: load_level.tokens_per_s.value or 0.0 for load_level in sweep.levels}
    best = levels.get(sweep.knee.best or 0, 0.0)
    return [
        f"{level} in flight: {numbers.percent(levels[level] / best - 1)} faster than the best qualifying one."
        for level in sweep.knee.excluded
        if best and levels[level] > best
    ]


def _little_violations(levels: Iterable[LoadLevel]) -> list[str]:
    """Return a caution if throughput and times of a level contradict Little's law."""
    deviations = [
        f"{three_digits(level.little)} at {level.concurrency}"
        for level in levels
        if level.little is not None
        and not level.n_failed
        and abs(level.little / level.concurrency - 1) > _LITTLE_TOLERANCE
    ]
    if not deviations:
        return []
    message = (
        f"Little's law does not hold: requests/s × mean E2E is {numbers.listed(deviations)} in flight. "
        "Either this machine is too slow to generate the load, or the repeats are too short: increase "
        "--requests."
    )
    return [message]


def _throughput(sweep: Sweep) -> Table:
    knee = sweep.knee.concurrency if sweep.knee.is_found else None
    best = max((level.tokens_per_s.value or 0.0) for level in sweep.levels)
    rows = tuple(
        (
            f"{level.concurrency}{' ◂' if level.concurrency == knee else ''}",
            speed_of(level.requests_per_s),
            speed_of(level.tokens_per_s),
            "–" if not best else numbers.whole_percent((level.tokens_per_s.value or 0) / best),
            speed_of(level.items_per_s),
            f"{level.n_failed:,} of {level.n_requests:,}",
            three_digits(level.little),
        )
        for level in sweep.levels
    )
    header = (
        "In flight",
        "Requests/s",
        "Output tokens/s",
        "of best",
        f"{sweep.noun.capitalize()}s/s",
        "Failed",
        "Little",
    )
    notes = ["Little: requests/s × mean E2E, by Little's law the requests in flight."]
    if knee is not None:
        notes.insert(0, "◂ the knee.")
    reasons = {reason: n for level in sweep.levels for reason, n in level.failed_by_reason.items()}
    if reasons:
        notes.append(
            f"Failures: {', '.join(f'{reason}' for reason in reasons)}; requests.jsonl has the details."
        )
    return Table(caption="Per second; ± is the 95 % interval", header=header, rows=rows, notes=tuple(notes))


def _times(levels: Sequence[LoadLevel]) -> tuple[Table, ...]:
    latencies = [
        (str(level.concurrency), *_percentiles(level.ttft), *_percentiles(level.e2e)) for level in levels
    ]
    token_times = [
        (str(level.concurrency), *_percentiles(level.tpot, _MS_PER_S), *_percentiles(level.itl, _MS_PER_S))
        for level in levels
    ]
    return (
        Table(
            caption="Seconds to the first token, and to the end of the reply",
            header=("In flight", "TTFT p50", "p95", "p99", "E2E p50", "p95", "p99"),
            rows=tuple(latencies),
        ),
        Table(
            caption="Milliseconds per output token, and between chunks",
            header=("In flight", "TPOT p50", "p95", "p99", "ITL p50", "p95", "p99"),
            rows=tuple(token_times),
        ),
    )


def _server(levels: Sequence[LoadLevel]) -> tuple[Section, ...]:
    """Return the section of the server's metrics, without empty columns; none if there are no metrics."""
    measured = [(level, level.server) for level in levels if level.server is not None]
    if not measured:
        return ()
    spans = [span for _, span in measured]
    columns = {
        "KV cache": [
            "–" if span.kv_cache_max is None else numbers.percent(span.kv_cache_max) for span in spans
        ],
        "Preempted": ["–" if span.preemptions is None else f"{span.preemptions:,.0f}" for span in spans],
        "Hits": [
            "–" if span.prefix_hit_rate is None else numbers.percent(span.prefix_hit_rate) for span in spans
        ],
        "Queue s": [three_digits(span.queue_s) for span in spans],
        "TTFT s": [three_digits(span.ttft_s) for span in spans],
        "TPOT ms": [three_digits(span.tpot_s, _MS_PER_S) for span in spans],
        "ITL ms": [three_digits(span.inter_token_s, _MS_PER_S) for span in spans],
        "E2E s": [three_digits(span.e2e_s) for span in spans],
    }
    filled = {head: cells for head, cells in columns.items() if set(cells) != {"–"}}
    if not filled:  # its /metrics answers, and has none of them
        return ()
    rows = tuple(
        (str(level.concurrency), *cells)
        for (level, _), *cells in zip(measured, *filled.values(), strict=True)
    )
    table = Table(
        caption="Peak KV cache usage, prompt tokens from the prefix cache (hits), mean times",
        header=("In flight", *filled),
        rows=rows,
        notes=(
            "From /metrics before and after each repeat, warm-up included; KV cache: read once a second.",
        ),
    )
    return (Section(anchor="server", title="Server metrics", tables=(table,)),)


def _cost(sweep: Sweep) -> tuple[Section, ...]:
    machine = sweep.machine
    if machine is None or not sweep.costs:
        return ()
    rows = tuple(
        (
            str(cost.concurrency),
            three_digits(cost.work.per_s),
            f"{cost.work.seconds:,.0f} s",
            f"{machine.currency} {numbers.money(cost.work.price)}",
        )
        for cost in sweep.costs
    )
    first, last = sweep.costs[0], sweep.costs[-1]
    saving = (
        f"1,000 {sweep.noun}s cost {machine.currency} {numbers.money(last.work.price)} with "
        f"{last.concurrency} in flight, {numbers.percent(1 - last.work.price / first.work.price)} less "
        f"than with {first.concurrency} ({machine.currency} {numbers.money(first.work.price)})."
    )
    savings = (saving,) if last.work.price < first.work.price else ()
    formula = (
        f"Price = 1,000 / {sweep.noun}s per second / 3,600 × price per hour, excluding the server's start."
    )
    header = ("In flight", f"{sweep.noun.capitalize()}s/s", "Time of 1,000", "Price of 1,000")
    return (
        Section(
            anchor="cost",
            title="Cost",
            paragraphs=(*savings, formula, f"Price: {machine.priced} (source: {machine.source})."),
            tables=(Table(caption=f"Cost of 1,000 {sweep.noun}s", header=header, rows=rows),),
        ),
    )


def _level_names(levels: Iterable[LoadLevel]) -> list[str]:
    return [str(level.concurrency) for level in levels]


def speed_of(measure: Measure) -> str:
    """Format a speed with the half-width of its interval: ``41.2 ± 1.4``, ``1,075 ± 26``, ``13.8 ± <0.1``."""
    if measure.value is None:
        return "–"
    if measure.value == 0:
        return "0"
    if measure.high is None:
        return three_digits(measure.value)
    half_width = three_digits(measure.high - measure.value, 1, measure.value)
    if not half_width.strip("0."):
        half_width = f"<{half_width[:-1]}1"
    return f"{three_digits(measure.value)} ± {half_width}"


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{three_digits(value)} s"


def _percentiles(spread: LatencySummary, factor: float = 1) -> tuple[str, ...]:
    return tuple(three_digits(value, factor) for value in (spread.p50, spread.p95, spread.p99))


def three_digits(value: float | None, factor: float = 1, precision_of: float | None = None) -> str:
    """Format a number with three significant digits, without an exponent: ``0.021``, ``4.20``, ``1,234``.

    Args:
        value: None is shown as ``–``.
        factor: Conversion to the printed unit.
        precision_of: Number that determines the decimals; default: ``value``.
    """
    if value is None:
        return "–"
    size = abs(value if precision_of is None else precision_of) * factor
    digits = next(decimals for decimals, limit in ((0, 100), (1, 10), (2, 1), (3, 0)) if size >= limit)
    return f"{value * factor:,.{digits}f}"
