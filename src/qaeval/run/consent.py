"""Consent to a hosted API: nothing is sent to it before somebody has read what would be, and agreed."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from qaeval.chat.protocol import Sampling
from qaeval.errors import UsageError
from qaeval.evals.rubric import prompt_text, shown_mode
from qaeval.records import Generation, Sample
from qaeval.registry.config import HostedPrice
from qaeval.registry.model import ModelSpec
from qaeval.report.numbers import plural
from qaeval.run.controls import N_CONTROLS
from qaeval.run.generate import definition_for
from qaeval.run.grade import SAMPLING
from qaeval.run.plan import Judging, Plan
from qaeval.storage.run_directory import GENERATION_REPEATS, RunStore

_CHARS_PER_TOKEN: Final = 4
_PAIR_CHARS: Final = 400
"""Characters of a question with its answer, for the estimate."""


@dataclass(frozen=True, slots=True)
class Disclosure:
    """What would be sent to a hosted API.

    Attributes:
        host: Host of the API.
        model: Name of the model in the registry.
        sends: What is sent, in words.
        n_requests: Requests, retries aside.
        n_prompt_tokens: Estimate of what they have in all.
        n_reply_tokens: What all replies have at most.
        cost: Estimate in money at most, and its source; empty where the registry has no price.
    """

    host: str
    model: str
    sends: str
    n_requests: int
    n_prompt_tokens: int
    n_reply_tokens: int
    cost: str = ""

    @property
    def text(self) -> str:
        """The disclosure in one sentence."""
        cost = f", {self.cost}" if self.cost else "; the registry has no price of it (hosted_prices:)"
        return (
            f"{self.model} is hosted: {self.sends} would be sent to {self.host} in {plural(self.n_requests, 'request')}, about "
            f"{self.n_prompt_tokens:,} tokens of prompts and up to {self.n_reply_tokens:,} tokens of replies{cost}"
        )


Consent: TypeAlias = Callable[[Disclosure], bool] | Collection[str]
"""Hosts that may be sent what a run needs, or a function that is asked."""


def host_of(spec: ModelSpec) -> str:
    """Return the host of a hosted model."""
    return urlsplit(spec.url or "").hostname or ""


def consented(spec: ModelSpec, disclosure: Disclosure, consent: Consent) -> ModelSpec:
    """Return the model with the consent that requests to it need.

    Raises:
        UsageError: There is none.
    """
    agreed = consent(disclosure) if callable(consent) else disclosure.host in consent
    if not agreed:
        raise UsageError(f"{disclosure.text}. Nothing was sent; `--consent {disclosure.host}` agrees to it")
    return spec.model_copy(update={"consented": True})


def generation_disclosure(
    spec: ModelSpec,
    samples: Iterable[Sample],
    *,
    prompt: str,
    sampling: Sampling,
    prices: Mapping[str, HostedPrice],
    n_replies: int = 1,
) -> Disclosure:
    """Say what a candidate would be sent: every sample with the prompt of the eval."""
    lengths = [len(sample.chunk.title) + len(sample.chunk.text) + len(sample.question) for sample in samples]
    n = len(lengths) * n_replies
    chars = n_replies * sum(lengths) + n * len(prompt)
    return _disclosure(
        spec, f"the text and title of {plural(len(lengths), 'sample')}", n, chars, sampling, prices
    )


def grading_disclosure(
    spec: ModelSpec,
    chunks: Sequence[int],
    *,
    rubric: str,
    sampling: Sampling,
    prices: Mapping[str, HostedPrice],
    sends: str = "",
) -> Disclosure:
    """Say what a judge would be sent: of each item its chunk, and the rubric.

    Args:
        spec: The judge.
        chunks: Characters of the chunk of each item; one number for each request.
        rubric: The rubric as the judge reads it.
        sampling: Of its replies.
        prices: Prices of hosted APIs by name.
        sends: What is sent, in words; default: the items with their chunks.
    """
    words = sends or f"up to {plural(len(chunks), 'item')} with their chunks"
    per_item = 2 if spec.judge_mode == "cascade" else 1
    chars = per_item * (sum(chunks) + len(chunks) * (len(rubric) + _PAIR_CHARS))
    return _disclosure(spec, words, per_item * len(chunks), chars, sampling, prices)


def _disclosure(
    spec: ModelSpec,
    sends: str,
    n_requests: int,
    n_chars: int,
    sampling: Sampling,
    prices: Mapping[str, HostedPrice],
) -> Disclosure:
    disclosure = Disclosure(
        host=host_of(spec),
        model=spec.name,
        sends=sends,
        n_requests=n_requests,
        n_prompt_tokens=round(n_chars / _CHARS_PER_TOKEN),
        n_reply_tokens=n_requests * spec.sampled(sampling).max_tokens,
    )
    price = prices.get(spec.entry)
    if price is None:
        return disclosure
    most = (
        disclosure.n_prompt_tokens * price.input_per_million
        + disclosure.n_reply_tokens * price.output_per_million
    ) / 1e6
    return replace(
        disclosure,
        cost=f"at most about {most:.2f} {price.currency} (prices of {price.as_of}: {price.source})",
    )


def plan_with_consent(
    plan: Plan, consent: Consent, *, prices: Mapping[str, HostedPrice], n_replies: int = 1
) -> Plan:
    """Return the plan with consent to its hosted candidates.

    Raises:
        UsageError: There is none.
    """
    definition = plan.definition

    def agreed(spec: ModelSpec) -> ModelSpec:
        if spec.kind != "hosted":
            return spec
        prompt = definition_for(spec, definition).prompt
        disclosure = generation_disclosure(
            spec,
            plan.samples,
            prompt=f"{prompt.system}{prompt.user}",
            sampling=Sampling(**definition.sampling.model_dump()),
            prices=prices,
            n_replies=n_replies,
        )
        return consented(spec, disclosure, consent)

    return replace(plan, candidates=tuple(map(agreed, plan.candidates)))


def judging_with_consent(
    judging: Judging,
    consent: Consent,
    chunks: Callable[[], Sequence[int]],
    *,
    prices: Mapping[str, HostedPrice],
) -> Judging:
    """Return a judging with consent to its judge, if that is hosted.

    Args:
        judging: Judge and rubric.
        consent: Hosts, or a function that is asked.
        chunks: Returns the characters of the chunk of each item; called for a hosted judge alone.
        prices: Prices of hosted APIs by name.

    Raises:
        UsageError: There is none.
    """
    spec = judging.judge
    if spec.kind != "hosted":
        return judging
    rubric = prompt_text(judging.rubric, mode=shown_mode(spec.judge_mode))
    disclosure = grading_disclosure(spec, chunks(), rubric=rubric, sampling=SAMPLING, prices=prices)
    return replace(judging, judge=consented(spec, disclosure, consent))


def expected_chunks(
    plan: Plan, *, n_replies: int = 1, n_letters: int = 1, controls: bool = False
) -> list[int]:
    """Return the characters of the chunk of each item that a judge of a run is to grade, as often as it is asked.

    Args:
        plan: The candidates' work.
        n_replies: Replies of each candidate to each sample; the judge grades the items of all of them.
        n_letters: Letters for each item of the first replies.
        controls: Add the planted controls.
    """
    n = plan.definition.items_per_sample * len(plan.candidates) * (n_replies + n_letters - 1)
    lengths = [len(sample.chunk.text) for sample in plan.samples]
    return [
        *(length for length in lengths for _ in range(n)),
        *_chunks_of_controls(lengths, controls=controls),
    ]


def chunks_of_items(store: RunStore, *, n_letters: int = 1, controls: bool = False) -> list[int]:
    """Return the characters of the chunk of each item of a run, as often as a judge is asked; arguments as in `expected_chunks`."""
    lengths = {sample.sample_id: len(sample.chunk.text) for sample in store.samples()}
    chunks = [
        lengths[row.sample_id]
        for row in store.generations()
        if isinstance(row, Generation)
        for _ in range(len(row.items) * n_letters)
    ]
    with store.replies(GENERATION_REPEATS) as repeats:
        for sample_id, length in lengths.items():
            chunks += [length for row in repeats.of(sample_id) for _ in row.items]
    return [*chunks, *_chunks_of_controls(lengths.values(), controls=controls)]


def _chunks_of_controls(lengths: Iterable[int], *, controls: bool) -> list[int]:
    """Return the longest chunk for each control: what is agreed to is the most that is sent."""
    return [max(lengths, default=0)] * N_CONTROLS if controls else []
