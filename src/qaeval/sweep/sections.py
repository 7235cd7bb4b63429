"""What ``qaeval sweep`` says: the knee first, then the numbers behind it and how each was counted."""

from collections.abc import Iterable, Sequence
from typing import Final

from qaeval.report import numbers
from qaeval.report.measure import Measure
from qaeval.report.tables import Section, Table
from qaeval.sweep.model import Knee, Level, Spread, Sweep

NOT_TOLD: Final = "Preemptions are not known: the server does not tell them."

_TIMES: Final = (
    "TTFT = first chunk - start; E2E = last chunk - start; TPOT = (E2E - TTFT) / (n - 1) of each request, n its output tokens "
    "from usage; ITL = the gaps between chunks, those of all requests pooled. p50, p95 and p99 are over all requests of all repeats that "
    "brought a reply; what failed is counted and is in no time. These are vLLM's definitions; the same three letters mean something else in other tools."
)
_THROUGHPUT: Final = (
    "Throughput = replies (output tokens, items) / seconds of the steady window: from the first request that counts to the first end after "
    "the last start, all requests in flight. A reply of which a part came in it counts in part. Intervals: mean ± t × s / √r over r repeats."
)
_KNEE: Final = (
    "Knee = the smallest number in flight with at least 95 % of the best throughput (output tokens per second), at most 1 % errors and no "
    "preemption."
)
_LITTLE: Final = 0.1
"""So far from the requests in flight Little's law is no rounding."""
_MS: Final = 1000


def write_sweep(sweep: Sweep) -> tuple[Section, ...]:
    """Turn a sweep into sections: the knee, throughput, times, the server's own numbers, cost."""
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
    """Name the sweep."""
    what = "writing" if sweep.stage == "generate" else "grading"
    return f"{sweep.model.name} {what} {sweep.source}, {numbers.listed(_named(sweep.levels))} in flight"


def sweep_subtitle(sweep: Sweep) -> str:
    """Say what was asked, of what, and when."""
    server = f" by {sweep.model.server}" if sweep.model.server else ""
    repeats = max(len(one.repeats) for one in sweep.levels)
    return (
        f"{numbers.plural(sweep.n_prompts, 'prompt')}, at most {sweep.max_tokens:,} tokens of reply each; served{server} at "
        f"{sweep.model.host}; {numbers.plural(repeats, 'repeat')}; {numbers.moment(sweep.finished)}."
    )


def verdict(sweep: Sweep) -> tuple[str, ...]:
    """Say where the knee is, how sure that is, and what it brings."""
    knee = sweep.knee
    if knee.concurrency is None:
        return (f"No knee: {knee.reason}.",)
    levels = {one.concurrency: one for one in sweep.levels}
    at, best = levels[knee.concurrency], levels[knee.best or knee.concurrency]
    brings = (
        f"{numbers.plural(knee.concurrency, 'request')} in flight: {speed_of(at.tokens_per_s)} output tokens/s, "
        f"{speed_of(at.items_per_s)} {sweep.noun}s/s, TTFT p95 {_seconds(at.ttft.p95)}"
    )
    if not knee.is_found:
        return (f"The knee is not found: {knee.reason}. {_on(knee)}", f"Best: {brings}.", *_least(knee))
    share = (
        "the best of all levels"
        if knee.concurrency == knee.best
        else f"{numbers.percent(knee.share_of_best)} of the best ({speed_of(best.tokens_per_s)}, at {knee.best})"
    )
    return (f"The knee is at {brings}; {share}.", *_sure(knee), *_least(knee))


def _on(knee: Knee) -> str:
    last = knee.concurrency or 1
    return f"Go on with --concurrency {','.join(str(last * factor) for factor in (1, 2, 4))}."


def _sure(knee: Knee) -> tuple[str, ...]:
    """Say which levels the repeats leave open."""
    if not knee.possible:
        return ("How sure that is cannot be said with fewer than three repeats.",)
    if len(knee.possible) == 1:
        return ("The repeats leave no other level open.",)
    shares = [f"{one.concurrency} ({numbers.percent(one.share)})" for one in knee.possible]
    text = (
        f"The repeats leave several levels open: {numbers.listed(shares, 'or')} of 10,000 draws of the mean throughputs from their "
        "intervals. More --repeats narrow it."
    )
    return (text,)


def _least(knee: Knee) -> tuple[str, ...]:
    if knee.least is None or knee.least < 2:  # noqa: PLR2004 - one in flight is always enough then
        return ()
    return (
        f"With fewer than {knee.least} in flight 95 % of that cannot be reached: n at once are at most n times as fast as one alone.",
    )


def cautions(sweep: Sweep) -> tuple[str, ...]:
    """Say what to beware of, each marked with an exclamation mark."""
    found = [f"Left out of the knee: {level} in flight, {why}." for level, why in sweep.knee.excluded.items()]
    found += _better(sweep)
    if all(one.preemptions is None for one in sweep.levels):
        found.append(NOT_TOLD)
    if not sweep.is_salted:
        found.append(
            "Not a vLLM server: a prompt that was asked before may come from its prefix cache, and is then faster than in a run."
        )
    if none := [one for one in sweep.levels if not one.n_items and one.n_failed < one.n_requests]:
        found.append(f"No reply held a {sweep.noun} at {numbers.listed(_named(none))} in flight.")
    if cut := sum(one.n_cut for one in sweep.levels):
        share = cut / sum(one.n_requests for one in sweep.levels)
        found.append(f"{numbers.percent(share)} of the replies ended at max_tokens ({sweep.max_tokens:,}).")
    found += _little(sweep.levels)
    if sweep.stale_days is not None:
        found.append(f"The price is {sweep.stale_days:,} days old: look it up again.")
    if sweep.external:
        found.append(f"The prompts left your own network: they went to {sweep.model.host}.")
    if sweep.unfinished:
        first, n = sweep.unfinished[0], len(sweep.unfinished)
        found.append(f"Not finished: {first}{f' and {n - 1} more' if n > 1 else ''}.")
    return tuple(f"! {text}" for text in found)


def _better(sweep: Sweep) -> list[str]:
    """Say where a level that does not qualify was faster."""
    levels = {one.concurrency: one.tokens_per_s.value or 0.0 for one in sweep.levels}
    best = levels.get(sweep.knee.best or 0, 0.0)
    return [
        f"{level} in flight were {numbers.percent(levels[level] / best - 1)} faster than the best that qualifies."
        for level in sweep.knee.excluded
        if best and levels[level] > best
    ]


def _little(levels: Iterable[Level]) -> list[str]:
    """Say where throughput and times do not belong together."""
    off = [
        f"{three_digits(one.little)} at {one.concurrency}"
        for one in levels
        if one.little is not None and not one.n_failed and abs(one.little / one.concurrency - 1) > _LITTLE
    ]
    if not off:
        return []
    text = (
        f"Little's law does not hold: requests/s × mean E2E is {numbers.listed(off)} in flight. This machine was too slow for the load, or "
        "the repeats are too short: more --requests."
    )
    return [text]


def _throughput(sweep: Sweep) -> Table:
    best = max((one.tokens_per_s.value or 0.0) for one in sweep.levels)
    rows = tuple(
        (
            f"{one.concurrency}{' ◂' if sweep.knee.is_found and one.concurrency == sweep.knee.concurrency else ''}",
            speed_of(one.requests_per_s),
            speed_of(one.tokens_per_s),
            "–" if not best else f"{100 * (one.tokens_per_s.value or 0) / best:.0f} %",
            speed_of(one.items_per_s),
            f"{one.n_failed:,} of {one.n_requests:,}",
            three_digits(one.little),
        )
        for one in sweep.levels
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
    if sweep.knee.is_found:
        notes.insert(0, "◂ the knee.")
    reasons = {reason: n for one in sweep.levels for reason, n in one.failed_by_reason.items()}
    if reasons:
        notes.append(
            f"Failures: {', '.join(f'{reason}' for reason in reasons)}; each stands in requests.jsonl with its detail."
        )
    return Table(caption="Per second; ± is the 95 % interval", header=header, rows=rows, notes=tuple(notes))


def _times(levels: Sequence[Level]) -> tuple[Table, ...]:
    slow = [(str(one.concurrency), *_three(one.ttft), *_three(one.e2e)) for one in levels]
    fast = [(str(one.concurrency), *_three(one.tpot, _MS), *_three(one.itl, _MS)) for one in levels]
    return (
        Table(
            caption="Seconds until the first token, and of the whole reply",
            header=("In flight", "TTFT p50", "p95", "p99", "E2E p50", "p95", "p99"),
            rows=tuple(slow),
        ),
        Table(
            caption="Milliseconds per output token, and between chunks",
            header=("In flight", "TPOT p50", "p95", "p99", "ITL p50", "p95", "p99"),
            rows=tuple(fast),
        ),
    )


def _server(levels: Sequence[Level]) -> tuple[Section, ...]:
    """Return what the server says of itself; nothing where it says nothing, no column that it does not know."""
    known = [(one, one.server) for one in levels if one.server is not None]
    if not known:
        return ()
    spans = [span for _, span in known]
    columns = {
        "KV cache": ["–" if one.kv_cache_max is None else numbers.percent(one.kv_cache_max) for one in spans],
        "Preempted": ["–" if one.preemptions is None else f"{one.preemptions:,.0f}" for one in spans],
        "Hits": [
            "–" if one.prefix_hit_rate is None else numbers.percent(one.prefix_hit_rate) for one in spans
        ],
        "Queue s": [three_digits(one.queue_s) for one in spans],
        "TTFT s": [three_digits(one.ttft_s) for one in spans],
        "TPOT ms": [three_digits(one.tpot_s, _MS) for one in spans],
        "ITL ms": [three_digits(one.inter_token_s, _MS) for one in spans],
        "E2E s": [three_digits(one.e2e_s) for one in spans],
    }
    told = {head: cells for head, cells in columns.items() if set(cells) != {"–"}}
    rows = tuple(
        (str(level.concurrency), *cells) for (level, _), *cells in zip(known, *told.values(), strict=True)
    )
    table = Table(
        caption="KV cache at most, prompt tokens from the prefix cache (hits), mean times",
        header=("In flight", *told),
        rows=rows,
        notes=(
            "From /metrics before and after each repeat, the requests that fill the server included; the KV cache is read once a second.",
        ),
    )
    return (Section(anchor="server", title="What the server says of itself", tables=(table,)),)


def _cost(sweep: Sweep) -> tuple[Section, ...]:
    machine = sweep.machine
    if machine is None or not sweep.costs:
        return ()
    rows = tuple(
        (
            str(one.concurrency),
            three_digits(one.work.per_s),
            f"{one.work.seconds:,.0f} s",
            f"{machine.currency} {numbers.money(one.work.price)}",
        )
        for one in sweep.costs
    )
    first, last = sweep.costs[0], sweep.costs[-1]
    said = (
        f"1,000 {sweep.noun}s cost {machine.currency} {numbers.money(last.work.price)} with {last.concurrency} in flight, "
        f"{numbers.percent(1 - last.work.price / first.work.price)} less than with {first.concurrency} "
        f"({machine.currency} {numbers.money(first.work.price)})."
    )
    less = (said,) if last.work.price < first.work.price else ()
    how = f"Price = 1,000 / {sweep.noun}s per second / 3,600 × price per hour, while the server is busy; its start is not in it."
    header = ("In flight", f"{sweep.noun.capitalize()}s/s", "Time of 1,000", "Price of 1,000")
    return (
        Section(
            anchor="cost",
            title="Cost",
            paragraphs=(*less, how, f"Price: {machine.priced} (source: {machine.source})."),
            tables=(Table(caption=f"What 1,000 {sweep.noun}s cost", header=header, rows=rows),),
        ),
    )


def _named(levels: Iterable[Level]) -> list[str]:
    return [str(one.concurrency) for one in levels]


def speed_of(measure: Measure) -> str:
    """Print a speed with the reach of its interval: ``41.2 ± 1.4``, ``1,075 ± 26``, ``13.8 ± <0.1``."""
    if measure.value is None:
        return "–"
    if measure.value == 0:
        return "0"
    if measure.high is None:
        return three_digits(measure.value)
    reach = three_digits(measure.high - measure.value, 1, measure.value)
    if not reach.strip("0."):
        reach = f"<{reach[:-1]}1"
    return f"{three_digits(measure.value)} ± {reach}"


def _seconds(value: float | None) -> str:
    return "not known" if value is None else f"{three_digits(value)} s"


def _three(spread: Spread, factor: float = 1) -> tuple[str, ...]:
    return tuple(three_digits(value, factor) for value in (spread.p50, spread.p95, spread.p99))


def three_digits(value: float | None, factor: float = 1, like: float | None = None) -> str:
    """Print three digits that count, never in powers of ten: ``0.021``, ``4.20``, ``1,234``.

    Args:
        value: None reads ``–``.
        factor: To the unit that is printed.
        like: The number whose digits behind the point this one gets.
    """
    if value is None:
        return "–"
    size = abs(value if like is None else like) * factor
    digits = next(places for places, above in ((0, 100), (1, 10), (2, 1), (3, 0)) if size >= above)
    return f"{value * factor:,.{digits}f}"
