"""What the tokens of a run would have cost elsewhere. It is a sum over counts: nothing is sent anywhere."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from qaeval.analysis.cost import days_stale
from qaeval.report.document import CandidateSummary, Report, Tokens
from qaeval.report.facts import HostedFacts
from qaeval.report.ways import HostedCost

_MILLION: Final = 1e6


def token_price(prices: HostedFacts, tokens: Tokens) -> float | None:
    """Price of tokens: (prompt x price in + completion x price out) / 1,000,000; None where they were not counted."""
    if tokens.prompt is None or tokens.completion is None:
        return None
    return (
        tokens.prompt * prices.input_per_million + tokens.completion * prices.output_per_million
    ) / _MILLION


def hosted_costs(report: Report, offers: Sequence[HostedFacts]) -> tuple[HostedCost, ...]:
    """Price the tokens of every stage that a server worked on, at each offer.

    The tokens are those that the own servers counted, of failed replies too; another model cuts the same text into another
    number of tokens and writes replies of another length. Prompts are priced in full: what an offer takes less for cached ones
    is not known.
    """
    finished = report.run.finished
    return tuple(_price(prices, finished, *stage) for prices in offers for stage in _stages(report))


def per_run(costs: Iterable[HostedCost]) -> float | None:
    """Price of all stages of a run at one offer; None where one has no price."""
    prices = [one.price for one in costs]
    known = [price for price in prices if price is not None]
    return sum(known) if prices and len(known) == len(prices) else None


def _stages(report: Report) -> Iterator[tuple[str, str, Tokens, int, CandidateSummary | None]]:
    """Yield stage, model, its tokens, how many replies it owed, and the candidate."""
    for one in report.candidates:
        if not one.facts.is_embedded:
            yield "generate", one.facts.name, one.tokens, report.eval.n_samples, one
    judge = report.judge
    if not judge.facts.is_embedded:
        yield "grade", judge.facts.name, judge.tokens, judge.n_asked, None


def _price(
    prices: HostedFacts,
    finished: str,
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
        stale_days=days_stale(prices.as_of, finished),
    )
