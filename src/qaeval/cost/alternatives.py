"""Always on, scaled to zero, or somebody else's: what a day of runs costs, and where two ways cost the same.

What the tokens of a run would have cost elsewhere. It is a sum over counts: nothing is sent anywhere.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Final

from qaeval.analysis.model import CandidateSummary, Tokens
from qaeval.cost.candidates import days_stale
from qaeval.cost.model import BreakEven, HostedCost, HostingOption, MeasuredRun, Work
from qaeval.report.facts import HostedFacts

DAY_S: Final = 86_400.0
_HOUR: Final = 3600.0
_EXACT: Final = 1e-9
"""Relative: closer numbers are one."""


def steady_work(n: int, *, per_s: float, price_per_hour: float) -> Work:
    """Say what items cost at a steady speed: seconds = n / per_s, price = seconds / 3,600 x price per hour.

    Args:
        n: Items, at least 1.
        per_s: Items per second, above 0.
        price_per_hour: Of one machine, in any currency.

    Raises:
        ValueError: a number is not positive.
    """
    if n < 1 or per_s <= 0 or price_per_hour <= 0:
        raise ValueError(f"items, speed and price must be above 0, got {n}, {per_s:g} and {price_per_hour:g}")
    hours = n / per_s / _HOUR
    price = hours * price_per_hour
    return Work(
        n=n, per_s=per_s, seconds=n / per_s, hours=hours, price=price, price_per_1000=1000 * price / n
    )


def always_on(*, price_per_hour: float, run_s: float, currency: str) -> HostingOption:
    """Cost of machines that never stop: 24 x price per hour, for as many runs as fit one after the other.

    Args:
        price_per_hour: Of all the machines that a run needs.
        run_s: Seconds that one run takes once the servers are up.
        currency: Of the price.
    """
    return HostingOption(
        name="always on", currency=currency, per_day=24 * price_per_hour, per_run=0.0, most_runs=DAY_S / run_s
    )


def scale_to_zero(*, price_per_run: float, run_s: float, currency: str) -> HostingOption:
    """Cost of machines that are there for a run alone.

    Args:
        price_per_run: Of all node seconds of one run: start, idle, work, and the time until the machine is given back.
        run_s: Seconds from one run's start until the next can start, on machines that are started anew.
        currency: Of the price.
    """
    return HostingOption(
        name="scale to zero",
        currency=currency,
        per_day=0.0,
        per_run=price_per_run,
        most_runs=DAY_S / run_s,
    )


def hosted_option(name: str, *, price_per_run: float, currency: str) -> HostingOption:
    """Cost of somebody else's API: the tokens of each run at its prices."""
    return HostingOption(name=name, currency=currency, per_day=0.0, per_run=price_per_run)


def unknown_option(name: str, reason: str) -> HostingOption:
    """Return a way whose cost is not known, and why."""
    return HostingOption(name=name, per_day=None, per_run=None, reason=reason)


def break_even(a: HostingOption, b: HostingOption) -> BreakEven:
    """Find the runs per day at which two ways cost the same, and who is cheaper on either side.

    ``(b.per_day - a.per_day) / (a.per_run - b.per_run)``, exact. No number is given where a cost is not known, the currencies
    differ, one is cheaper however many runs there are, or the two would meet at more runs than one of them has room for.
    """
    for option in (a, b):
        if option.per_day is None or option.per_run is None:
            return _no_break_even(a, b, None, option.reason or f"the cost of {option.name} is not known")
    if a.currency != b.currency:
        return _no_break_even(a, b, None, f"{a.currency} and {b.currency} are not compared")
    fixed, run = (a.per_day or 0.0) - (b.per_day or 0.0), (a.per_run or 0.0) - (b.per_run or 0.0)
    if fixed == run == 0:
        return _no_break_even(a, b, None, "they cost the same at any number of runs")
    if fixed * run >= 0:
        cheaper = b if fixed > 0 or run > 0 else a
        return _no_break_even(a, b, cheaper.name, f"{cheaper.name} is never dearer")
    below, above = (a, b) if fixed < 0 else (b, a)
    runs = -fixed / run
    full = _capacity_reason(below, above, runs)
    if full:
        return _no_break_even(a, b, below.name, full)
    return BreakEven(a=a.name, b=b.name, runs_per_day=runs, below=below.name, above=above.name)


def _capacity_reason(below: HostingOption, above: HostingOption, runs: float) -> str | None:
    """Say why two ways cannot meet at a number of runs; None where both have room for it."""
    if above.most_runs is not None and runs >= above.most_runs * (1 - _EXACT):
        return f"{above.name} would be cheaper from {runs:,.1f} runs a day on and has room for {above.most_runs:,.1f}"
    if below.most_runs is not None and runs > below.most_runs * (1 + _EXACT):
        return (
            f"{below.name} is cheaper for all the {below.most_runs:,.1f} runs that it has room for in a day"
        )
    return None


def break_evens(options: Sequence[HostingOption]) -> tuple[BreakEven, ...]:
    """Compare every two ways."""
    return tuple(break_even(a, b) for a, b in combinations(options, 2))


def _no_break_even(a: HostingOption, b: HostingOption, cheaper: str | None, reason: str) -> BreakEven:
    return BreakEven(a=a.name, b=b.name, runs_per_day=None, below=cheaper, above=cheaper, reason=reason)


_MILLION: Final = 1e6


def token_price(prices: HostedFacts, tokens: Tokens) -> float | None:
    """Price of tokens: (prompt x price in + completion x price out) / 1,000,000; None where they were not counted."""
    if tokens.prompt is None or tokens.completion is None:
        return None
    return (
        tokens.prompt * prices.input_per_million + tokens.completion * prices.output_per_million
    ) / _MILLION


def hosted_costs(run: MeasuredRun, hosted_prices: Sequence[HostedFacts]) -> tuple[HostedCost, ...]:
    """Price the tokens of every stage that a server worked on, at each offer.

    The tokens are those that the own servers counted, of failed replies too; another model cuts the same text into another
    number of tokens and writes replies of another length. Prompts are priced in full: what an offer takes less for cached ones
    is not known.
    """
    return tuple(_price(prices, run.priced_at, *stage) for prices in hosted_prices for stage in _stages(run))


def price_per_run(costs: Iterable[HostedCost]) -> float | None:
    """Price of all stages of a run at one offer; None where one has no price."""
    prices = [cost.price for cost in costs]
    counted = [price for price in prices if price is not None]
    return sum(counted) if prices and len(counted) == len(prices) else None


def _stages(run: MeasuredRun) -> Iterator[tuple[str, str, Tokens, int, CandidateSummary | None]]:
    """Yield stage, model, its tokens, how many replies it owed, and the candidate."""
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
    n_asked: int,
    candidate: CandidateSummary | None,
) -> HostedCost:
    price = token_price(prices, tokens)
    n_usable = 0.0 if candidate is None else (candidate.usable.value or 0.0) * candidate.n_expected
    reason = None
    if price is None:
        reason = "the server counted no tokens"
    elif tokens.n_replies < n_asked:
        reason = f"at least: tokens were counted for {tokens.n_replies:,} of {n_asked:,} replies"
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
