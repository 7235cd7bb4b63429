"""Sentences of a gate: of each rule and of the whole, with numbers as text and untrusted text made harmless."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from qaeval.agreement.model import JudgeDiscrimination, RaterAgreement
from qaeval.comparison.headline import doubt_clause
from qaeval.comparison.model import Reason
from qaeval.gate.estimates import RuleEstimate
from qaeval.gate.model import GateReport, Outcome, RuleVerdict, Verdict
from qaeval.gate.policy import Rule
from qaeval.report import numbers
from qaeval.report.markdown import escape
from qaeval.report.measure import Measure
from qaeval.report.numbers import p_value, plural, two_digits_up
from qaeval.stats.estimate import MIN_CLUSTERS
from qaeval.text.visible import visible

_MENTION: Final = re.compile(r"(@|#(?=\w)|!(?=\d)|\bGH-(?=\d)|\bwww(?=\.)|:(?=//))")
"""Text that GitHub and GitLab turn into a mention, a reference or a link without any markup."""
_BREAK: Final = "&#8203;"
"""Zero-width space: invisible, and ends a mention."""
_TINY: Final = 0.001
"""Below it ``.3g`` writes an exponent."""
_MAX_LENGTH: Final = 600
"""Characters of one text, enough for any sentence of a rule; names in a run or policy may be endless, and a table must stay readable."""


def plain(text: str) -> str:
    """Put any text on one line without control characters or what XML forbids, cut at `_MAX_LENGTH`."""
    line = " ".join(visible(text).split())
    return line if len(line) <= _MAX_LENGTH else f"{line[: _MAX_LENGTH - 1]}…"


def safe(text: str) -> str:
    """Make any text safe in a comment or a job summary: no markup, no HTML, no link and no mention."""
    return unmentioned(escape(plain(text)))


def unmentioned(markdown: str) -> str:
    """Break what GitHub and GitLab would turn into a mention, a reference or a link."""
    return _MENTION.sub(rf"\1{_BREAK}", markdown)


def name(rule: RuleVerdict) -> str:
    """Return the name of a rule without its candidate, which has a column of its own."""
    return rule.id.removesuffix(f"@{rule.candidate}")


def level(measure: Measure | None, unit: str) -> str:
    """Format a quantity with its interval: ``63.3 % [52.1, 73.2]``, ``0.412 s [0.38, 0.45]``; a dash for None."""
    if measure is None:
        return "–"
    return numbers.rate(measure) if unit == "" else _in_unit(measure, unit, sign=False)


def change(measure: Measure | None, unit: str) -> str:
    """Format a change with its interval: ``−2.5 points [−6.1, +1.2]``, ``+0.12 s [−0.01, +0.25]``."""
    if measure is None:
        return "–"
    return numbers.difference(measure) if unit == "" else _in_unit(measure, unit, sign=True)


def allowed(rule: RuleVerdict) -> str:
    """Format what a rule allows: ``loss of 5.0 points``, ``at most 0.8 s``."""
    if rule.margin is not None:
        return f"{_worsening(rule)} of {_margin(rule)}"
    if rule.limit is None:
        return "–"
    bound = numbers.percent(rule.limit) if rule.unit == "" else _amount(rule.limit, rule.unit)
    return f"{'at least' if rule.higher_is_better else 'at most'} {bound}"


def _worsening(rule: RuleVerdict) -> str:
    return "loss" if rule.higher_is_better else "rise"


def _margin(rule: RuleVerdict) -> str:
    margin = rule.margin or 0.0
    return numbers.size(margin) if rule.unit == "" else _amount(margin, rule.unit)


def has_moved(rule: RuleVerdict) -> bool:
    """Whether the interval of a rule's change excludes 0."""
    change = rule.change
    if change is None or change.low is None or change.high is None:
        return False
    return change.low > 0 or change.high < 0


def judge_line(report: GateReport) -> str:
    """Return judge and rubric, with the state of the certificate."""
    identity, certificate = report.run.identity, report.certificate
    state = {
        "valid": "its certificate is valid",
        "not trusted": "it is not trusted by its certificate",
        "not enough labels": "its certificate has not enough labels",
        "stale": "its certificate is stale",
        "missing": "it has no certificate",
        "off": "the policy asks for no certificate",
    }[certificate.state]
    detail = f" ({certificate.detail})" if certificate.detail else ""
    drift = f"; {report.drift.sentence}" if report.drift is not None else ""
    return f"{identity.judge} with rubric {identity.rubric}: {state}{detail}{drift}"


def judge_doubt(doubts: Sequence[Reason], discrimination: JudgeDiscrimination | None) -> str:
    """Return why the judge's letters decide nothing, and what would.

    Args:
        doubts: Reasons of the verdict of a report, at least one.
        discrimination: What controls and labels show.
    """
    clause = doubt_clause(doubts, discrimination).replace("the judge tells", "it tells", 1)
    if discrimination is not None and discrimination.basis == "letters" and len(doubts) == 1:
        advice = "`qaeval grade RUN` grades planted controls, unless the run was begun without them; they or labels show more"
    else:
        advice = "More chunks would not change that; another judge would, or labels (corrected: auto)"
    return f"{clause}. {advice}."


def unvalidated(agreement: Sequence[RaterAgreement]) -> str:
    """Return what a pass is worth whose judge no labels validate.

    Args:
        agreement: The judge against each rater; none of them shows that it beats both chance and the most frequent letter.
    """
    chunks = [(rater.coefficients.n_chunks, rater) for rater in agreement if rater.coefficients is not None]
    n, rater = max(chunks, key=lambda pair: pair[0], default=(0, None))
    if rater is None:
        why = f"no labels; labels of {MIN_CLUSTERS} chunks are needed"
    elif rater.standing == "too few chunks":
        why = f"{plural(n, 'labelled chunk')}; {MIN_CLUSTERS} are needed"
    else:
        than = "chance" if rater.standing == "chance" else f"always answering {rater.majority_letter}"
        why = f"{rater.rater}'s labels of {n:,} chunks do not show that it is better than {than}"
    return f"Caution: the judge is not validated ({why}). This pass is only as good as its letters."


def by_doubted_letters(sentence: str) -> str:
    """Return the sentence of a rule that the letters of a judge decided which may decide nothing."""
    return f"{sentence} By the letters of this judge, that shows nothing."


def sequential_line(summary: Mapping[str, float]) -> str:
    """Return what a sequential gate saved and what that cost; see `GateReport.sequential`."""
    text = (
        f"{summary['chunks_looked_at']:,.0f} of {summary['chunks']:,.0f} chunks count, {summary['items_graded']:,.0f} of "
        f"{summary['items']:,.0f} items are graded: {numbers.percent(summary['share_saved'])} of the grading is saved."
    )
    if "power" not in summary:
        return text
    return (
        f"{text} With all {summary['chunks']:,.0f} chunks a run as good as its baseline passes in about "
        f"{numbers.whole_percent(summary['power'])} of such gates, and in {numbers.whole_percent(summary['power_at_once'])} where everything "
        f"is graded first "
        f"(for the margin that loses most power)."
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
    is_plain = abs(value) >= 1 or 0 < abs(value) < _TINY
    size = numbers.money(abs(value)) if is_plain else f"{abs(value):.3g}"
    return f"{mark}{size} {unit}".rstrip()


_NOT_EVALUATED: Final = " cannot be evaluated: "
_OUT_OF_REACH: Final = 50
"""Factor on the chunks at hand beyond which a larger sample is no advice."""


def of_rule(
    verdict: RuleVerdict, rule: Rule, estimate: RuleEstimate, *, alpha: float, p_adjusted: float, n: int
) -> str:
    """Return the sentence of a rule.

    Args:
        verdict: The verdict, without its sentence.
        rule: Rule of the policy.
        estimate: Estimate that decided it.
        alpha: One-sided error rate of a pass.
        p_adjusted: P-value of a loss after the correction.
        n: Number of rules in the correction.
    """
    subject = _subject(verdict, rule)
    deciding = verdict.current if rule.limit is not None else verdict.change
    if deciding is None or not deciding.has_interval:
        reason = estimate.reason or (deciding.reason if deciding else "") or "it has no interval"
        if deciding is not None and deciding.n_clusters < MIN_CLUSTERS:
            n_chunks = deciding.n_clusters
            reason = f"{plural(n_chunks, 'chunk')} {'is' if n_chunks == 1 else 'are'} too few, at least {MIN_CLUSTERS} are needed"
        text = f"{subject}{_NOT_EVALUATED}{reason}."
        if verdict.n_more_chunks:
            text += f" At least {plural(verdict.n_more_chunks, 'more chunk')} would be needed."
        return text
    if rule.limit is not None:
        text = _of_limit(subject, verdict, alpha)
    else:
        text = _of_margin(subject, verdict, rule, alpha, p_adjusted, n)
    labels = (
        f"corrected by {estimate.labelled_by}'s labels of {plural(estimate.n_labelled_chunks or 0, 'chunk')}"
        if estimate.labelled_by
        else ""
    )
    caveats = (labels, deciding.reason, estimate.caveat)
    return " ".join([text, *(f"{_capital(caveat)}." for caveat in caveats if caveat)])


def _of_margin(
    subject: str, verdict: RuleVerdict, rule: Rule, alpha: float, p_adjusted: float, n: int
) -> str:
    loss = f"{_worsening(verdict)} above the allowed {_margin(verdict)}"
    share = rule.margin if isinstance(rule.margin, str) else ""
    moved = f"{change(verdict.change, verdict.unit)} ({100 * (1 - 2 * alpha):g} % interval)"
    worse = "lower" if verdict.higher_is_better else "higher"
    corrected = f" after correction for {n} rules" if n > 1 else ""
    if verdict.verdict == "pass":
        sure = "; ".join(filter(None, (share, f"{100 * (1 - alpha):g} % level")))
        text = f"{subject}: {moved}: no {loss} ({sure})."
        if p_adjusted <= alpha:
            text += f" It is still {worse} than the baseline ({p_value(p_adjusted)}{corrected})."
        return text
    if verdict.verdict == "regression":
        return f"{subject} is {worse} than the baseline: {moved}, {p_value(p_adjusted)}{corrected}."
    unproven = f"a {'drop' if verdict.higher_is_better else 'rise'} is not proven"
    if verdict.p_worse is not None and verdict.p_worse <= alpha:
        unproven += corrected
    elif verdict.p_worse is not None and has_moved(verdict):
        unproven += f" ({p_value(verdict.p_worse)})"
    relative = f" ({share})" if share else ""
    return f"{subject} is undecided: {moved}; a {loss}{relative} is not ruled out, and {unproven}.{_more_chunks(verdict)}"


def _of_limit(subject: str, verdict: RuleVerdict, alpha: float) -> str:
    measured = f"{level(verdict.current, verdict.unit)} ({100 * (1 - 2 * alpha):g} % interval)"
    if verdict.verdict == "pass":
        return f"{subject} is {measured}: {allowed(verdict)} is shown at the {100 * (1 - alpha):g} % level."
    if verdict.verdict == "regression":
        return f"{subject} is {measured}: {allowed(verdict)} is violated."
    return f"{subject} is undecided: {measured} neither shows nor excludes {allowed(verdict)}.{_more_chunks(verdict)}"


def _more_chunks(verdict: RuleVerdict) -> str:
    n = verdict.n_more_chunks
    if n is None:
        return " More chunks would not decide at this value."
    if _is_out_of_reach(verdict):
        bound = "margin" if verdict.limit is None else "limit"
        return f" The value is too close to the {bound}: no sample of a realistic size would decide (about {plural(two_digits_up(n), 'more chunk')})."
    return f" About {plural(two_digits_up(n), 'more chunk')} would decide with a power of 80 % at this value."


def _is_out_of_reach(verdict: RuleVerdict) -> bool:
    """Whether a rule takes so many more chunks that their number is no advice."""
    deciding = verdict.change if verdict.limit is None else verdict.current
    n = verdict.n_more_chunks
    return deciding is not None and n is not None and n > _OUT_OF_REACH * max(1, deciding.n_clusters)


def _subject(verdict: RuleVerdict, rule: Rule) -> str:
    """Return what a sentence is about: ``alpha: usable rate in manual``."""
    part = rule.flag or rule.check
    phrase = rule.definition.phrase or rule.quantity.replace("_", " ")
    quantity = f"{part} ({phrase})" if part else phrase
    rater = f" with {rule.rater}" if rule.rater else ""
    inside = f" in {verdict.stratum}" if verdict.stratum else ""
    return f"{verdict.candidate}: {quantity}{rater}{inside}"


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def headline(outcome: Outcome, rules: Sequence[RuleVerdict], *, detail: str = "") -> str:
    """Return the outcome of a gate in one sentence.

    Args:
        outcome: Outcome of the gate.
        rules: Verdicts behind it.
        detail: Why the runs are not comparable, or the judge is not trusted.
    """
    if outcome == "not comparable":
        return f"Not comparable: {detail}"
    if outcome == "untrusted":
        return f"The judge is not trusted: {detail}"
    n = plural(len(rules), "rule")
    undecided = [rule for rule in rules if rule.verdict == "inconclusive"]
    if outcome == "regression":
        worse = [rule.id for rule in rules if rule.verdict == "regression"]
        more = f"; {plural(len(undecided), 'rule is', 'rules are')} undecided" if undecided else ""
        return f"Regression in {_listed(worse)}, of {n}{more}."
    if outcome == "inconclusive":
        ids = _listed([rule.id for rule in undecided])
        verb = "is" if len(undecided) == 1 else "are"
        return f"Inconclusive: {ids} {verb} undecided, of {n}.{_more_for_all(undecided)}"
    return f"Passed: {'the rule holds' if len(rules) == 1 else f'all {len(rules)} rules hold'}."


def sentences_of_rules(rules: Sequence[RuleVerdict]) -> list[tuple[Verdict, str]]:
    """Return the sentence of each rule with its verdict; rules that cannot be evaluated for one reason share a sentence."""
    reasons = Counter(
        rule.sentence.partition(_NOT_EVALUATED)[2] for rule in rules if _NOT_EVALUATED in rule.sentence
    )
    sentences: dict[str, Verdict] = {}
    for rule in rules:
        reason = rule.sentence.partition(_NOT_EVALUATED)[2]
        shared = reasons[reason] > 1
        text = f"{reasons[reason]} rules{_NOT_EVALUATED}{reason}" if shared else rule.sentence
        sentences.setdefault(text, rule.verdict)
    return [(verdict, text) for text, verdict in sentences.items()]


def _more_for_all(undecided: Sequence[RuleVerdict]) -> str:
    """Return how many more chunks would decide all of these rules; empty where one of them needs something else."""
    needed = [rule.n_more_chunks for rule in undecided]
    known = [n for n in needed if n is not None]
    if not known or len(known) < len(needed):
        return ""
    if any(map(_is_out_of_reach, undecided)):
        return (
            f" No sample of a realistic size would decide {'it' if len(undecided) == 1 else 'all of them'}."
        )
    more = plural(two_digits_up(max(known)), "more chunk")
    if all(has_interval(rule) for rule in undecided):
        return f" About {more} would decide."
    return f" At least {more} would be needed."


def has_interval(rule: RuleVerdict) -> bool:
    """Whether a rule could be evaluated: what decides it has an interval."""
    deciding = rule.change if rule.limit is None else rule.current
    return deciding is not None and deciding.has_interval


def _listed(ids: Sequence[str], limit: int = 4) -> str:
    shown = ", ".join(ids[:limit])
    return f"{shown} and {len(ids) - limit} more" if len(ids) > limit else shown


def multiplicity(n_rules: int, n_evaluated: int, alpha: float) -> str:
    """Return how the error rates hold over all rules, and over those that could be evaluated."""
    if not n_evaluated:
        return "No rule could be evaluated."
    rate = f"{100 * alpha:g} %"
    if n_rules == 1:
        return f"One rule, one-sided error rate {rate} for a pass and for a regression."
    evaluated = "" if n_evaluated == n_rules else " that could be evaluated"
    return (
        f"All {n_rules} rules must pass, so each keeps its own error rate of {rate} for a wrong pass, and the gate passes "
        f"wrongly no more often (intersection-union). A regression is corrected for the {n_evaluated} rules{evaluated} (Holm): "
        f"where nothing got worse, at most {rate} of all gates report one."
    )
