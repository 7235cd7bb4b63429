"""Sentences of an audit."""

from collections.abc import Iterator, Sequence
from typing import Final

from qaeval.audit.model import AuditVerdict, KindResult, ProbeName, ProbeResult
from qaeval.report.measure import Measure
from qaeval.report.numbers import difference, listed, percent, plural, points, rate

_LIMITS: Final = {"at least": "at least", "at most": "at most", "within": "within ±"}


def effect(result: ProbeResult) -> str:
    """Print an effect with its interval."""
    if result.effect is None:
        return "-"
    return difference(result.effect) if result.unit == "points" else rate(result.effect)


def detail(result: ProbeResult, measure: Measure) -> str:
    """Print a part of an effect."""
    return difference(measure) if result.unit == "points" else rate(measure)


def tolerance(result: ProbeResult) -> str:
    """Print what is allowed: ``at least 80.0 %``, ``at most 15.0 points``, ``within ±15.0 points``."""
    amount = (
        f"{points(result.tolerance).lstrip('+')} points"
        if result.unit == "points"
        else percent(result.tolerance)
    )
    space = "" if result.limit == "within" else " "
    return f"{_LIMITS[result.limit]}{space}{amount}"


def probe_sentence(result: ProbeResult, n_requests: int, why: str) -> str:
    """Say what a probe found.

    Args:
        result: The result.
        n_requests: Requests of the probe.
        why: Why it was not applied; empty where it was.
    """
    if why:
        return f"Not applied: {why}."
    text = f"{result.quantity[:1].upper()}{result.quantity[1:]}: "
    if result.effect is None:
        can_only_rise = result.probe in {"length", "injection"}
        nothing = (
            "no defective item has a letter that could rise" if can_only_rise else "nothing was measured"
        )
        return f"{text}{nothing}."
    text += f"{effect(result)}; {tolerance(result)} passes."
    if result.effect.value is None or result.effect.low is None:
        text += f" {_sentence(result.effect.reason or 'there is no interval')}"
    elif result.verdict == "not enough data":
        text += " The interval holds the tolerance: more good items would decide."
    if result.n_failed:
        text += f" {result.n_failed:,} of {plural(n_requests, 'request')} gave no letter."
    return text


def _sentence(reason: str) -> str:
    text = reason.replace("cluster", "chunk")
    return f"{text[:1].upper()}{text[1:]}."


def reasons_for(
    verdict: AuditVerdict,
    kinds: Sequence[KindResult],
    probes: Sequence[ProbeResult],
    required: Sequence[ProbeName],
) -> tuple[str, ...]:
    """Say why a judge has its verdict, one sentence each."""
    return tuple(_reasons(verdict, kinds, probes, required))


def _reasons(
    verdict: AuditVerdict,
    kinds: Sequence[KindResult],
    probes: Sequence[ProbeResult],
    required: Sequence[ProbeName],
) -> Iterator[str]:
    if verdict == "not trusted":
        yield from (f"{probe.probe}: {probe.sentence}" for probe in probes if probe.verdict == "fail")
        blind = [kind for kind in kinds if kind.is_defect and kind.verdict == "fail"]
        if blind:
            counts = [f"{kind.kind} {rate(kind.lowered)}" for kind in blind]
            yield f"Fewer than half of these defects lower the letter: {listed(counts)}."
        alarms = [kind for kind in kinds if not kind.is_defect and kind.verdict == "fail"]
        if alarms:
            counts = [f"{kind.kind} {rate(kind.lowered)}" for kind in alarms]
            yield f"Harmless changes that lower the letter: {listed(counts)}."
    elif verdict == "not enough data":
        yield from (
            f"{probe.probe}: {probe.sentence}"
            for probe in probes
            if probe.probe in required and probe.verdict != "pass"
        )
        missing = [name for name in required if name not in {probe.probe for probe in probes}]
        if missing:
            yield f"Not measured: {listed(missing)}."
    else:
        yield f"{listed([name.capitalize() if not at else name for at, name in enumerate(required)])} pass, and no probe fails."
