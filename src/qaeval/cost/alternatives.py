"""Hosting options: machines always on, scaled to zero, or a hosted API; and the runs per day at which two cost the same.

Everything is arithmetic over counts and prices of the registry: nothing is sent to a hosted API.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Final

from qaeval.analysis.model import CandidateSummary, Tokens
from qaeval.cost.candidates import days_stale
from qaeval.cost.model import BreakEven, HostedCost, HostingOption, MeasuredRun, Work
from qaeval.report.facts import HostedFacts

_DAY_S: Final = 86_400.0
_HOUR: Final = 3600.0
_MILLION: Final = 1e6
_ROUNDING: Final = 1e-9
"""Relative: a break-even exactly at the capacity of a day must not depend on the last bit of a float."""


def steady_work(n: int, *, per_s: float, price_per_hour: float) -> Work:
    """Compute the cost of items at a steady speed: seconds = n / per_s, price = seconds / 3,600 x price per hour.

    Args:
        n: Items, at least 1.
        per_s: Items per second, above 0.
        price_per_hour: Of one machine, in any currency.

    Raises:
        ValueError: A number is not positive.
    """
    if n < 1 or per_s <= 0 or price_per_hour <= 0:
        raise ValueError(f"items, speed and price must be above 0, got {n}, {per_s:g} and {price_per_hour:g}")
    hours = n / per_s / _HOUR
    price = hours * price_per_hour
    return Work(
        n=n, per_s=per_s, seconds=n / per_s, hours=hours, price=price, price_per_1000=1000 * price / n
    )


def always_on(*, price_per_hour: float, run_s: float, currency: str) -> HostingOption:
    """Return the cost of machines that never stop: 24 x price per hour, for as many runs as fit into a day.

    Args:
        price_per_hour: Of all machines of a run.
        run_s: Seconds of one run with running servers.
        currency: Of the price.
    """
    return HostingOption(
        name="always on",
        currency=currency,
        per_day=24 * price_per_hour,
        per_run=0.0,
        most_runs=_DAY_S / run_s,
    )


def scale_to_zero(*, price_per_run: float, run_s: float, currency: str) -> HostingOption:
    """Return the cost of machines that exist only during a run.

    Args:
        price_per_run: Of all node seconds of one run: start, idle, work, and the idle timeout.
        run_s: Seconds from the start of one run until the next can start on newly started machines.
        currency: Of the price.
    """
    return HostingOption(
        name="scale to zero", currency=currency, per_day=0.0, per_run=price_per_run, most_runs=_DAY_S / run_s
    )


def hosted_option(name: str, *, price_per_run: float, currency: str) -> HostingOption:
    """Return the cost of a hosted API: the tokens of each run at its prices."""
    return HostingOption(name=name, currency=currency, per_day=0.0, per_run=price_per_run)


def unknown_option(name: str, reason: str) -> HostingOption:
    """Return an option without a cost, and the reason."""
    return HostingOption(name=name, per_day=None, per_run=None, reason=reason)


def break_evens(options: Sequence[HostingOption]) -> tuple[BreakEven, ...]:
    """Compare every pair of options."""
    return tuple(break_even(a, b) for a, b in combinations(options, 2))


def break_even(a: HostingOption, b: HostingOption) -> BreakEven:
    """Compute the runs per day at which two options cost the same, and the cheaper option on either side.

    ``(b.per_day - a.per_day) / (a.per_run - b.per_run)``, exact. There is no number if a cost is unknown, the currencies differ,
    one option is cheaper at any number of runs, or a day does not fit that many runs.
    """
    for option in (a, b):
        if option.per_day is None or option.per_run is None:
            return _no_break_even(a, b, None, option.reason or f"the cost of {option.name} is unknown")
    if a.currency != b.currency:
        return _no_break_even(a, b, None, f"prices in {a.currency} and {b.currency} cannot be compared")
    per_day, per_run = (a.per_day or 0.0) - (b.per_day or 0.0), (a.per_run or 0.0) - (b.per_run or 0.0)
    if per_day == per_run == 0:
        return _no_break_even(a, b, None, "both cost the same at any number of runs")
    if per_day * per_run >= 0:
        cheaper = b if per_day > 0 or per_run > 0 else a
        return _no_break_even(a, b, cheaper.name, f"{cheaper.name} is never more expensive")
    below, above = (a, b) if per_day < 0 else (b, a)
    runs = -per_day / per_run
    if reason := _over_capacity(below, above, runs):
        return _no_break_even(a, b, below.name, reason)
    return BreakEven(a=a.name, b=b.name, runs_per_day=runs, below=below.name, above=above.name)


def _over_capacity(below: HostingOption, above: HostingOption, runs: float) -> str | None:
    """Say why a day does not fit the runs of a break-even; None if it does."""
    if above.most_runs is not None and runs >= above.most_runs * (1 - _ROUNDING):
        return f"{above.name} is cheaper from {runs:,.1f} runs per day, but a day fits only {above.most_runs:,.1f}"
    if below.most_runs is not None and runs > below.most_runs * (1 + _ROUNDING):
        return f"{below.name} is cheaper for all {below.most_runs:,.1f} runs that fit into a day"
    return None


def _no_break_even(a: HostingOption, b: HostingOption, cheaper: str | None, reason: str) -> BreakEven:
    return BreakEven(a=a.name, b=b.name, runs_per_day=None, below=cheaper, above=cheaper, reason=reason)


def token_price(prices: HostedFacts, tokens: Tokens) -> float | None:
    """Return (prompt x input price + completion x output price) / 1,000,000; None if the tokens were not counted."""
    if tokens.prompt is None or tokens.completion is None:
        return None
    total = tokens.prompt * prices.input_per_million + tokens.completion * prices.output_per_million
    return total / _MILLION


def hosted_costs(run: MeasuredRun, hosted_prices: Sequence[HostedFacts]) -> tuple[HostedCost, ...]:
    """Price the tokens of every stage that a server worked on, at each hosted API.

    The tokens are those counted by the run's own servers, failed replies included. Another model splits the same text into
    another number of tokens and writes replies of another length. Prompts are priced in full: discounts for cached prompts are
    unknown.
    """
    return tuple(_price(prices, run.priced_at, *stage) for prices in hosted_prices for stage in _stages(run))


def price_per_run(costs: Iterable[HostedCost]) -> float | None:
    """Add up the stages of a run at one hosted API; None if a stage has no price."""
    prices = [cost.price for cost in costs]
    priced = [price for price in prices if price is not None]
    return sum(priced) if prices and len(priced) == len(prices) else None


def _stages(run: MeasuredRun) -> Iterator[tuple[str, str, Tokens, int, CandidateSummary | None]]:
    """Yield stage, model, tokens, number of expected replies, and the candidate."""
    for candidate in run.candidates:
        if not candidate.facts.is_embedded:
            yield "generate", candidate.facts.name, candidate.tokens, run.n_samples, candidate
    judge = run.judge
    if not judge.facts.is_embedded:
        yield "grade", judge.facts.name, judge.tokens, judge.n_asked, None


def _price(
    prices: HostedFacts,
    priced_at: str,
    stage: str,
    model: str,
    tokens: Tokens,
    n_replies: int,
    candidate: CandidateSummary | None,
) -> HostedCost:
    price = token_price(prices, tokens)
    n_usable = 0.0 if candidate is None else (candidate.usable.value or 0.0) * candidate.n_expected
    reason = None
    if price is None:
        reason = "the server counted no tokens"
    elif tokens.n_replies < n_replies:
        reason = f"lower bound: tokens were counted for {tokens.n_replies:,} of {n_replies:,} replies"
    elif candidate is not None and not n_usable:
        reason = "no item is usable"
    return HostedCost(
        stage=stage,
        model=model,
        prices=prices,
        prompt_tokens=tokens.prompt,
        completion_tokens=tokens.completion,
        price=price,
        price_per_1000_usable=1000 * price / n_usable if price is not None and n_usable else None,
        reason=reason,
        stale_days=days_stale(prices.as_of, priced_at),
    )
