"""Whether what a topic card asks for can be done with the means that it names."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field

from qaeval.checks.claims import Facts, Method, said
from qaeval.records import Record

_WORK: Final[Mapping[Method, float]] = {"full": 6.0, "lora": 4.0, "qlora": 4.0}
_READING: Final = 2.0
"""Operations for each parameter and token, by method; reading alone takes fewer."""


class Scenario(Record):
    """What a topic card says about the work that it asks for; what it leaves out is not compared."""

    billions: float | None = Field(default=None, gt=0)
    """Parameters."""
    method: Method = "full"
    text_gb: float | None = Field(default=None, gt=0)
    """Text to train on, once."""
    days: float | None = Field(default=None, gt=0)
    usd: float | None = Field(default=None, gt=0)
    gpu: str = ""
    n_gpus: int = Field(default=1, ge=1)


def impossible(scenario: Mapping[str, Any], facts: Facts) -> str:
    """Say by arithmetic why a scenario cannot be; an empty string where nothing speaks against it.

    Training takes 6 floating-point operations for each parameter and token (Kaplan et al. 2020, section 2.1);
    with adapters two thirds of it, as the base model's weights have no gradients; reading takes a third.

    Args:
        scenario: The fields of a `Scenario`.
        facts: What the arithmetic rests on.

    Raises:
        ValidationError: the scenario is none.
    """
    case = Scenario.model_validate(scenario)
    name = facts.gpu_in(case.gpu)
    each = facts.gb_per_billion.get(case.method)
    if case.billions is None or not name or each is None:
        return ""
    gpu, size, n = facts.gpus[name], case.billions, case.n_gpus
    found = []
    if each * size > gpu.memory_gb * n:
        need = f"{size:g}B × {each:g} GB ({said(case.method)}) = {each * size:,.0f} GB"
        found.append(f"memory: {need}, {n} × {name} have {gpu.memory_gb * n:,.0f} GB")
    if case.text_gb is None:
        return "; ".join(found)
    tokens = case.text_gb * 1e9 / facts.bytes_per_token
    work = _WORK.get(case.method, _READING)
    hours = work * size * 1e9 * tokens / (gpu.tflops_bf16 * 1e12 * facts.utilisation) / 3600
    if case.days and hours > case.days * 24 * n:
        rate = f"{facts.utilisation:.0%} of {gpu.tflops_bf16:g} TFLOP/s"
        sum_ = (
            f"{work:g} × {size:g}e9 parameters × {tokens:,.3g} tokens ÷ ({rate}) = {hours:,.0f} {name} hours"
        )
        found.append(f"time: {sum_}, {case.days:g} days of {n} have {case.days * 24 * n:,.0f}")
    if case.usd and gpu.usd_per_hour and hours * gpu.usd_per_hour > case.usd:
        usd = hours * gpu.usd_per_hour
        cost = f"{hours:,.0f} hours × {gpu.usd_per_hour:g} USD ({gpu.as_of}) = {usd:,.0f} USD"
        found.append(f"cost: {cost}, the budget is {case.usd:,.0f}")
    return "; ".join(found)
