"""What every view of a gate is written with: its numbers as text, and untrusted text made harmless."""

import re
from collections.abc import Mapping
from typing import Final

from qaeval.gate.verdict import GateReport, RuleVerdict
from qaeval.report import numbers
from qaeval.report.measure import Measure
from qaeval.report.render_markdown import escape

_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]+")
"""Control characters, halves of pairs, what XML forbids, and what turns the direction of a line."""
_LIVE: Final = re.compile(r"(@|#(?=\w)|!(?=\d)|\bGH-(?=\d)|\bwww(?=\.)|:(?=//))")
"""What GitHub and GitLab turn into a mention, a reference or a link without any markup."""
_BREAK: Final = "&#8203;"
"""A space without width: looks like nothing and ends a mention."""
_TINY: Final = 0.001
"""Below it three digits would be written with an exponent."""
_LONGEST: Final = 600
"""Characters of one text; a longer one is cut."""


def plain(text: str) -> str:
    """Put any text on one line without control characters, cut where it is endless."""
    line = " ".join(_UNPRINTABLE.sub(" ", text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def safe(text: str) -> str:
    """Make any text safe in a comment or a job summary: no markup, no HTML, no link, and nobody is mentioned."""
    return _LIVE.sub(rf"\1{_BREAK}", escape(plain(text)))


def name(rule: RuleVerdict) -> str:
    """Name a rule without its candidate, which stands beside it."""
    return rule.id.removesuffix(f"@{rule.candidate}")


def level(measure: Measure | None, unit: str) -> str:
    """Print a quantity with its interval: ``63.3 % [52.1, 73.2]``, ``0.412 s [0.38, 0.45]``; a dash where there is none."""
    if measure is None:
        return "–"
    return numbers.rate(measure) if unit == "" else _in_unit(measure, unit, sign=False)


def change(measure: Measure | None, unit: str) -> str:
    """Print a change with its interval: ``−2.5 points [−6.1, +1.2]``, ``+0.12 s [−0.01, +0.25]``."""
    if measure is None:
        return "–"
    return numbers.difference(measure) if unit == "" else _in_unit(measure, unit, sign=True)


def allowed(rule: RuleVerdict) -> str:
    """Print what a rule allows: ``loss of 5.0 points``, ``at most 0.8 s``."""
    if rule.margin is not None:
        size = numbers.size(rule.margin) if rule.unit == "" else _amount(rule.margin, rule.unit)
        return f"{'loss' if rule.higher_is_better else 'rise'} of {size}"
    if rule.limit is None:
        return "–"
    bound = numbers.percent(rule.limit) if rule.unit == "" else _amount(rule.limit, rule.unit)
    return f"{'at least' if rule.higher_is_better else 'at most'} {bound}"


def has_moved(rule: RuleVerdict) -> bool:
    """Whether the interval of a rule's change leaves out 0."""
    change = rule.change
    if change is None or change.low is None or change.high is None:
        return False
    return change.low > 0 or change.high < 0


def judge_line(report: GateReport) -> str:
    """Say who graded, and how that judge stands."""
    identity, certificate = report.run.identity, report.certificate
    standing = {
        "valid": "its certificate is valid",
        "stale": "its certificate is stale",
        "missing": "it has no certificate",
        "off": "the policy asks for no certificate",
    }[certificate.state]
    detail = f" ({certificate.detail})" if certificate.detail else ""
    return f"{identity.judge} with rubric {identity.rubric}: {standing}{detail}"


def sequential_line(found: Mapping[str, float]) -> str:
    """Say what a sequential gate saved and what that cost."""
    text = (
        f"{found['chunks_looked_at']:,.0f} of {found['chunks']:,.0f} chunks decided, {found['items_graded']:,.0f} of "
        f"{found['items']:,.0f} items are graded: {numbers.percent(found['share_saved'])} of the grading was saved."
    )
    if "power" not in found:
        return text
    return (
        f"{text} With all {found['chunks']:,.0f} chunks a run as good as its baseline passes in about "
        f"{100 * found['power']:.0f} % of such gates, and in {100 * found['power_at_once']:.0f} % where everything is graded first "
        f"(of the margin that loses most by it)."
    )


def _in_unit(measure: Measure, unit: str, *, sign: bool) -> str:
    if measure.value is None:
        return numbers.UNDEFINED
    text = _amount(measure.value, unit, sign=sign)
    if measure.low is None or measure.high is None:
        return text
    ends = (_amount(end, "", sign=sign) for end in (measure.low, measure.high))
    return f"{text} [{', '.join(ends)}]"


def _amount(value: float, unit: str, *, sign: bool = False) -> str:
    mark = numbers.MINUS if value < 0 else "+" if sign and value > 0 else ""
    plain_digits = abs(value) >= 1 or 0 < abs(value) < _TINY
    size = numbers.money(abs(value)) if plain_digits else f"{abs(value):.3g}"
    return f"{mark}{size} {unit}".rstrip()
