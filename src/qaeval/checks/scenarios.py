"""Whether the work of a topic card is possible with the resources that the card names."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field

from qaeval.checks.claims import Facts, Method, method_label
from qaeval.records import Record

_OPERATIONS: Final[Mapping[Method, float]] = {"full": 6.0, "lora": 4.0, "qlora": 4.0}
_INFERENCE_OPERATIONS: Final = 2.0
"""Floating-point operations per parameter and token, by method; inference takes fewer than training."""


class Scenario(Record):
    """The work and the resources of a topic card; what the card leaves out is not compared."""

    billions: float | None = Field(default=None, gt=0)
    """Parameters of the model, in billions."""
    method: Method = "full"
    text_gb: float | None = Field(default=None, gt=0)
    """Training text of one epoch."""
    days: float | None = Field(default=None, gt=0)
    usd: float | None = Field(default=None, gt=0)
    gpu: str = ""
    n_gpus: int = Field(default=1, ge=1)


def impossible(scenario: Mapping[str, Any], facts: Facts) -> str:
    """Return the arithmetic that makes a scenario impossible; an empty string if it may be possible.

    Training takes 6 floating-point operations per parameter and token (Kaplan et al. 2020, section 2.1);
    with adapters two thirds of that, since the base model's weights have no gradients; inference one third.
    A budget is compared with the lowest price: what the cheapest offer costs more than cannot be paid.

    Args:
        scenario: The fields of a `Scenario`.
        facts: The facts behind the arithmetic.

    Raises:
        ValidationError: the fields are not those of a `Scenario`.
    """
    plan = Scenario.model_validate(scenario)
    name = facts.gpu_in(plan.gpu)
    gb_per_billion = facts.gb_per_billion.get(plan.method)
    if plan.billions is None or not name or gb_per_billion is None:
        return ""
    gpu, size, n = facts.gpus[name], plan.billions, plan.n_gpus
    problems = []
    if gb_per_billion * size > gpu.memory_gb * n:
        label, required = method_label(plan.method), gb_per_billion * size
        arithmetic = f"{size:g}B × {gb_per_billion:g} GB ({label}) = {required:,.0f} GB"
        problems.append(f"memory: {arithmetic}, {n} × {name} have {gpu.memory_gb * n:,.0f} GB")
    if plan.text_gb is None:
        return "; ".join(problems)
    tokens = plan.text_gb * 1e9 / facts.bytes_per_token
    work = _OPERATIONS.get(plan.method, _INFERENCE_OPERATIONS)
    hours = work * size * 1e9 * tokens / (gpu.tflops_bf16 * 1e12 * facts.utilisation) / 3600
    if plan.days and hours > plan.days * 24 * n:
        rate = f"{facts.utilisation:.0%} of {gpu.tflops_bf16:g} TFLOP/s"
        arithmetic = (
            f"{work:g} × {size:g}e9 parameters × {tokens:,.3g} tokens ÷ ({rate}) = {hours:,.0f} {name} hours"
        )
        problems.append(f"time: {arithmetic}, {plan.days:g} days of {n} have {plan.days * 24 * n:,.0f}")
    if plan.usd and gpu.prices and hours * gpu.prices[0] > plan.usd:
        usd = hours * gpu.prices[0]
        cost = f"{hours:,.0f} hours × {gpu.prices[0]:g} USD at least ({gpu.as_of}) = {usd:,.0f} USD"
        problems.append(f"cost: {cost}, the budget is {plan.usd:,.0f}")
    return "; ".join(problems)
