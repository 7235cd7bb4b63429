"""The body of one comment on a pull request: found again by its marker and brought up to date, never repeated."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, urlsplit

from qaeval.errors import UsageError
from qaeval.gate.summary import TITLES, rule_row, rule_table, side
from qaeval.gate.verdict import GateReport, RuleVerdict
from qaeval.gate.words import has_moved, judge_line, safe
from qaeval.report.numbers import plural

MARKER: Final = "<!-- qaeval-gate -->"
"""The first line of the body; nobody sees it, and the comment is found by it."""

MOST: Final = 65_536
"""Characters that GitHub takes."""
_SHOWN: Final = 30_000
_FOLDED: Final = 20_000
"""Characters of what is shown and of what is folded; the rest of `MOST` is for what surrounds them."""


def to_comment(report: GateReport, link: str = "") -> str:
    """Write a gate as the body of a comment, below the length that GitHub takes.

    Rules that passed and whose quantity did not move, as far as can be told, are folded away.

    Args:
        report: The gate.
        link: Where the whole report can be read; ``http`` or ``https``.

    Raises:
        UsageError: the link is another kind of address.
    """
    shown = [rule for rule in report.rules if rule.verdict != "pass" or has_moved(rule)]
    quiet = [rule for rule in report.rules if rule not in shown]
    lines = [MARKER, f"### qaeval gate: {TITLES[report.outcome]}", "", f"**{safe(report.headline)}**", ""]
    lines += _shown(shown)
    lines += _folded(quiet)
    lines += [f"> {safe(note)}  " for note in report.notes[:10]]
    lines += ["", f"Judge: {safe(judge_line(report))}", "", _foot(report, link)]
    return "\n".join(lines) + "\n"


def _shown(rules: Sequence[RuleVerdict]) -> list[str]:
    if not rules:
        return []
    kept = _fitting([f"{rule_row(rule)}\n- {safe(rule.sentence)}" for rule in rules], _SHOWN)
    lines = [*rule_table(rules[:kept]), "", *(f"- {safe(rule.sentence)}" for rule in rules[:kept]), ""]
    return [*lines, *_left_out(len(rules) - kept)]


def _folded(rules: Sequence[RuleVerdict]) -> list[str]:
    if not rules:
        return []
    kept = _fitting([rule_row(rule) for rule in rules], _FOLDED)
    title = f"{plural(len(rules), 'rule')} passed without a change that could be told from 0"
    lines = ["<details>", f"<summary>{title}</summary>", "", *rule_table(rules[:kept]), ""]
    return [*lines, *_left_out(len(rules) - kept), "</details>", ""]


def _fitting(texts: Sequence[str], most: int) -> int:
    """Count how many texts from the first fit into ``most`` characters."""
    used = 0
    for place, text in enumerate(texts):
        used += len(text) + 1
        if used > most:
            return place
    return len(texts)


def _left_out(n: int) -> list[str]:
    return [f"{plural(n, 'more rule')} in the report.", ""] if n else []


def _foot(report: GateReport, link: str) -> str:
    against = f" against {side(report.baseline)}" if report.baseline else ""
    where = f"[Report]({_address(link)}) · " if link else ""
    return f"{where}{side(report.run)}{against} · policy {safe(report.policy)}"


def _address(link: str) -> str:
    if urlsplit(link).scheme not in {"http", "https"}:
        raise UsageError(f"link to the report: expected an address with http or https, got {link[:100]!r}")
    return quote(link, safe=":/?#[]@!$&'*+,;=%~")
