"""What every view of a gate is written with: its numbers as text, and untrusted text made harmless.

What a gate says in words: of each rule, of all of them together, and of why two runs cannot be compared.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from qaeval.gate.estimates import RuleEstimate
from qaeval.gate.model import GateReport, Outcome, RuleVerdict
from qaeval.gate.policy import Rule
from qaeval.report import numbers
from qaeval.report.markdown import escape
from qaeval.report.measure import Measure
from qaeval.report.numbers import p_value, plural, two_digits_up
from qaeval.stats.estimate import MIN_CLUSTERS

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


_OUT_OF_REACH: Final = 50
"""So many times the chunks at hand nobody grades to decide a gate."""


def of_rule(
    verdict: RuleVerdict, rule: Rule, estimate: RuleEstimate, *, alpha: float, p_adjusted: float, n: int
) -> str:
    """Say what a rule found.

    Args:
        verdict: All but the sentence.
        rule: What was asked.
        estimate: What the data said.
        alpha: One-sided error rate of a pass.
        p_adjusted: P-value of a loss after the correction.
        n: Rules that the correction is for.
    """
    name = _name(verdict, rule)
    deciding = verdict.current if rule.limit is not None else verdict.change
    if deciding is None or not deciding.has_interval:
        why = estimate.reason or (deciding.reason if deciding else "") or "it has no interval"
        if deciding is not None and deciding.n_clusters < MIN_CLUSTERS:
            why = f"it rests on {plural(deciding.n_clusters, 'chunk')}, and fewer than {MIN_CLUSTERS} show nothing"
        text = f"{name} cannot be evaluated: {why}."
        if verdict.n_more_chunks:
            text += f" At least {plural(verdict.n_more_chunks, 'more chunk')} would be needed."
        return text
    if rule.limit is not None:
        text = _of_limit(name, verdict, alpha)
    else:
        text = _of_margin(name, verdict, rule, alpha, p_adjusted, n)
    doubts = (deciding.reason, estimate.caveat)
    return " ".join([text, *(f"{_capital(doubt)}." for doubt in doubts if doubt)])


def _of_margin(name: str, verdict: RuleVerdict, rule: Rule, alpha: float, p_adjusted: float, n: int) -> str:
    loss = allowed(verdict)
    if isinstance(rule.margin, str):
        loss += f" ({rule.margin})"
    moved = f"{change(verdict.change, verdict.unit)} ({100 * (1 - 2 * alpha):g} % interval)"
    worse = "lower" if verdict.higher_is_better else "higher"
    corrected = f" after correction for {n} rules" if n > 1 else ""
    if verdict.verdict == "pass":
        text = f"{name}: {moved}; a {loss} or more is ruled out at the {100 * (1 - alpha):g} % level."
        if p_adjusted <= alpha:
            text += f" It is {worse} than the baseline nevertheless ({p_value(p_adjusted)}{corrected})."
        return text
    if verdict.verdict == "regression":
        return f"{name} is {worse} than the baseline: {moved}, {p_value(p_adjusted)}{corrected}."
    proven = f"that it is {worse} at all is not proven"
    if verdict.p_worse is not None and verdict.p_worse <= alpha:
        proven += corrected
    elif verdict.p_worse is not None and has_moved(verdict):
        proven += f" ({p_value(verdict.p_worse)})"
    return f"{name} is not decided: {moved}; a {loss} is not ruled out, and {proven}.{_more(verdict)}"


def _of_limit(name: str, verdict: RuleVerdict, alpha: float) -> str:
    seen = f"{level(verdict.current, verdict.unit)} ({100 * (1 - 2 * alpha):g} % interval)"
    if verdict.verdict == "pass":
        return f"{name} is {seen}: {allowed(verdict)} is shown at the {100 * (1 - alpha):g} % level."
    if verdict.verdict == "regression":
        return f"{name} is {seen}: {allowed(verdict)} is not kept."
    return f"{name} is not decided: {seen} neither shows nor rules out {allowed(verdict)}.{_more(verdict)}"


def _more(verdict: RuleVerdict) -> str:
    n = verdict.n_more_chunks
    if n is None:
        return " More chunks would not decide while the number stays where it is."
    deciding = verdict.change if verdict.limit is None else verdict.current
    if deciding is not None and n > _OUT_OF_REACH * deciding.n_clusters:
        place = "margin" if verdict.limit is None else "limit"
        return f" It lies all but at the {place}: no sample within reach would decide (about {plural(two_digits_up(n), 'more chunk')})."
    return f" About {plural(two_digits_up(n), 'more chunk')} would decide with a probability of 80 % if it stays as it is."


def _name(verdict: RuleVerdict, rule: Rule) -> str:
    of = rule.flag or rule.check
    known = rule.about.words or rule.quantity.replace("_", " ")
    quantity = f"{of} ({known})" if of else known
    rater = f" with {rule.rater}" if rule.rater else ""
    inside = f" in {verdict.stratum}" if verdict.stratum else ""
    return f"{verdict.candidate}: {quantity}{rater}{inside}"


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def headline(outcome: Outcome, rules: Sequence[RuleVerdict], *, detail: str = "") -> str:
    """Say in one sentence how the gate ends."""
    if outcome == "not comparable":
        return f"Not comparable: {detail}"
    if outcome == "untrusted":
        return f"The judge is not trusted: {detail}"
    named = {
        verdict: [one.id for one in rules if one.verdict == verdict]
        for verdict in ("regression", "inconclusive")
    }
    if outcome == "regression":
        open_ = len(named["inconclusive"])
        more = f"; {plural(open_, 'rule is', 'rules are')} not decided" if open_ else ""
        return f"Regression in {_some(named['regression'])}, of {plural(len(rules), 'rule')}{more}."
    if outcome == "inconclusive":
        open_rules = [one for one in rules if one.verdict == "inconclusive"]
        wanted = [one.n_more_chunks for one in open_rules]
        more = ""
        if all(one is not None for one in wanted):
            most = two_digits_up(max(one for one in wanted if one is not None))
            more = f" About {plural(most, 'more chunk')} would decide."
            if not all(has_interval(one) for one in open_rules):
                more = f" At least {plural(most, 'more chunk')} would be needed."
        n_open, n = len(named["inconclusive"]), plural(len(rules), "rule")
        return f"Inconclusive: {_some(named['inconclusive'])} {'is' if n_open == 1 else 'are'} not decided, of {n}.{more}"
    return f"Passed: {'the one rule holds' if len(rules) == 1 else f'all {len(rules)} rules hold'}."


def has_interval(rule: RuleVerdict) -> bool:
    """Whether a rule could be evaluated: there is an interval of what decides it."""
    deciding = rule.change if rule.limit is None else rule.current
    return deciding is not None and deciding.has_interval


def _some(ids: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(ids[:most])
    return f"{shown} and {len(ids) - most} more" if len(ids) > most else shown


def multiplicity(n_rules: int, n_evaluated: int, alpha: float) -> str:
    """Say how the error rate holds over all rules, and over those that could be evaluated."""
    if not n_evaluated:
        return "No rule could be evaluated."
    rate = f"{100 * alpha:g} %"
    if n_rules == 1:
        return f"One rule, one-sided error rate {rate} for a pass and for a regression."
    evaluated = "" if n_evaluated == n_rules else " that could be evaluated"
    return (
        f"All {n_rules} rules must pass, so each keeps its own error rate of {rate} for a wrong pass, and the whole gate passes "
        f"wrongly no more often (intersection-union). A regression is corrected for the {n_evaluated} rules{evaluated} (Holm): "
        f"where nothing got worse, any of them says so in at most {rate} of all gates."
    )
