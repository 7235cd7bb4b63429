"""First screen of a report: what to do, what that rests on, and where to look next.

The same data are drawn by the page, the terminal and Markdown; see `comparison.html`, `comparison.terminal` and
`comparison.markdown`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final, Literal, TypeAlias

from qaeval.agreement.messages import counts_against, shortfall
from qaeval.agreement.model import RaterAgreement
from qaeval.analysis.model import CandidateSummary, Count
from qaeval.comparison.headline import verdict_basis, verdict_sentence
from qaeval.comparison.model import ALPHA, Difference, LabelledDifference
from qaeval.comparison.report import CheckRate, Report
from qaeval.comparison.verdict import SHOWN_FROM, ordered, refuting
from qaeval.report import numbers
from qaeval.report.measure import Measure
from qaeval.report.numbers import in_words, listed, plural
from qaeval.stats.estimate import MIN_CLUSTERS

State: TypeAlias = Literal["good", "open", "bad"]
"""``good`` only for what was shown."""

_NOTABLE_LOSS: Final = 0.02
"""Share of failed or ungraded items that needs a look."""
_NOTABLE_CHECK: Final = 0.05
"""Share of items with a finding of one check that needs a look."""
_MAX_RIVALS: Final = 3
"""Differences on the first screen; the section of differences has all."""
_MAX_FLAWS: Final = 4
"""Flaws on the first screen; the table of the section on quality has all."""
_MORE_LABELS: Final = 20
"""Labelled chunks of which the last way on says what they would buy."""
_NOUNS: Final = {"qa_pair": "pairs", "answer": "answers", "preference_pair": "pairs"}


@dataclass(frozen=True)
class Badge:
    """What holds for the judge, for the data, or needs a look."""

    kind: Literal["judge", "data", "look"]
    state: State
    title: str
    text: str
    anchor: str
    """Section with the details."""


@dataclass(frozen=True)
class Fact:
    """A number about a candidate."""

    value: str
    unit: str


@dataclass(frozen=True)
class CandidateLine:
    """One candidate: its letters by the judge, its usable rate, and facts."""

    summary: CandidateSummary
    model: str
    """Model and licence."""
    rate: Measure
    """Usable rate; corrected by labels where every candidate has enough of them."""
    facts: tuple[Fact, ...]

    @property
    def name(self) -> str:
        """Name of the candidate."""
        return self.summary.facts.name

    @property
    def counts(self) -> tuple[tuple[str, int], ...]:
        """Letters, best first, then ``no letter`` and ``failed``, each with its number of expected items."""
        return (
            *((letter.name, letter.n) for letter in self.summary.letters),
            ("no letter", self.summary.ungraded.n),
            ("failed", self.summary.failed.n),
        )


@dataclass(frozen=True)
class DifferenceLine:
    """Usable rate of the leader minus that of a rival."""

    pair: str
    source: str
    """``corrected``, ``judge alone`` or ``judge``."""
    measure: Measure
    is_deciding: bool
    """Whether it is the first line of its pair."""


@dataclass(frozen=True)
class FlawLine:
    """A flaw that the judge names, and how many items of each candidate have it."""

    name: str
    counts: tuple[Count, ...]
    """In the order of the candidates on the screen; shares are of the graded items."""


@dataclass(frozen=True)
class WayOn:
    """Something to look at or to do next."""

    n: int | None
    """Number of things to look at; None for an action."""
    text: str
    target: str
    """Fragment of the page: a filter of the items, or a section."""


@dataclass(frozen=True)
class Overview:
    """The first screen."""

    context: str
    verdict: str
    state: State
    number: str
    """The number that decides, with its interval and source."""
    gap: str
    """How far the judge alone is from it; empty without labels."""
    badges: tuple[Badge, ...]
    candidates: tuple[CandidateLine, ...]
    """The best first."""
    rate_source: str
    differences: tuple[DifferenceLine, ...]
    best: str
    """The letter of a usable item."""
    flaws: tuple[FlawLine, ...]
    """Why items have a letter below the best, the most frequent reason first; empty where the judge names none."""
    ways: tuple[WayOn, ...]
    is_rehearsal: bool
    """Whether no language model took part: the run shows how a comparison works."""


def build_overview(report: Report) -> Overview:
    """Build the first screen of a report; the same report gives the same screen."""
    rates = report.usable_rates()
    order = ordered(report.candidates, report.differences)
    if not report.verdict.trusts_judge:  # then no candidate leads, and the rates shown are the judge's
        order.sort(key=lambda candidate: -(rates[candidate.facts.name].value or 0.0))
    source = "by the judge's letters"
    if report.has_labelled_rates:
        source = "corrected by labels"
    elif not report.verdict.trusts_judge:
        source = "by a judge that is not trusted"
    names = [candidate.facts.name for candidate in order if candidate.facts.name != report.verdict.leader]
    pairs = [pair for name in names if (pair := _pair(report, name)) is not None]
    is_rehearsal = all(candidate.facts.is_embedded for candidate in order)
    number, gap = (_rehearsal(report), "") if is_rehearsal else _number(report, pairs)
    return Overview(
        context=_context(report),
        verdict=verdict_sentence(report.verdict),
        state=_state(report),
        number=number,
        gap=gap,
        badges=(_judge(report), _data(report), _look(report)),
        candidates=tuple(
            CandidateLine(
                summary=candidate,
                model=_model(candidate),
                rate=rates[candidate.facts.name],
                facts=tuple(_facts(report, candidate, rates[candidate.facts.name])),
            )
            for candidate in order
        ),
        rate_source=source,
        differences=tuple(
            line
            for pair in pairs[:_MAX_RIVALS]
            for line in _lines(pair, report.verdict.leader or "", trusts_judge=report.verdict.trusts_judge)
        ),
        best=report.rubric.best,
        flaws=tuple(
            FlawLine(
                in_words(name),
                tuple(flaw for candidate in order for flaw in candidate.flaws if flaw.name == name),
            )
            for name in report.named_flaws()[:_MAX_FLAWS]
        ),
        ways=tuple(_ways(report, pairs)),
        is_rehearsal=is_rehearsal,
    )


def _context(report: Report) -> str:
    facts = report.eval
    unit = "chunk" if facts.item_kind == "qa_pair" else "sample"
    names = [candidate.facts.name for candidate in report.candidates]
    return " · ".join(
        (
            listed(names),
            facts.title or facts.name,
            plural(facts.n_samples, unit),
            f"graded by {report.judge.facts.name}",
            numbers.moment(report.run.started)[:10],
        )
    )


def _state(report: Report) -> State:
    verdict = report.verdict
    if verdict.kind in {"use", "equal"}:
        return "good" if verdict.condition == "shown" else "open"
    return "open" if verdict.trusts_judge else "bad"


# ------------------------------------------------------------------------------ the number that decides


def _pair(report: Report, rival: str) -> Difference | None:
    names = {report.verdict.leader, rival}
    return next((pair for pair in report.differences if {pair.a, pair.b} == names), None)


def _led_by(leader: str, pair: Difference, measure: Measure) -> Measure:
    """Turn a difference so that the leader comes first."""
    return measure if pair.b == leader else measure.scaled(-1)


def _number(report: Report, pairs: Sequence[Difference]) -> tuple[str, str]:
    """Say the number that decides, and how far the judge alone is from it."""
    verdict, leader = report.verdict, report.verdict.leader or ""
    if verdict.kind == "none":
        return _why_none(report), ""
    nearest = min(pairs, key=lambda pair: abs(pair.effective.value or 0.0))
    rival = nearest.a if nearest.b == leader else nearest.b
    lead = _led_by(leader, nearest, nearest.effective)
    over = f" over {rival}" if len(report.candidates) > 2 else ""
    number = f"{numbers.points(lead.value)} points in usable rate{over}"
    if lead.low is not None and lead.high is not None:
        number += f" ({numbers.level(lead)}: {numbers.points(lead.low)} to {numbers.points(lead.high)})"
        if verdict.kind == "equal":
            number += f", so a difference above {numbers.size(max(-lead.low, lead.high))} is ruled out"
    first = nearest.deciding
    if first is None:
        return f"{number}, by the judge alone. {verdict_basis(verdict)}".rstrip(), ""
    method = "by" if first.basis == "all labelled" else "corrected with"
    chunks = plural(first.n_chunks, "chunk")
    return f"{number}, {method} {first.rater}'s labels of {chunks}.", _gap(leader, rival, nearest, first)


def _gap(leader: str, rival: str, pair: Difference, first: LabelledDifference) -> str:
    judged = _led_by(leader, pair, pair.difference)
    gap = (judged.value or 0.0) - (_led_by(leader, pair, first.difference).value or 0.0)
    says = f"The judge alone says {numbers.points(judged.value)}"
    if round(100 * gap, 1) == 0:
        return f"{says}, the same."
    favoured = leader if gap > 0 else rival
    chance = "" if first.p_error is not None and first.p_error <= ALPHA else "; that may be chance"
    return f"{says}: it is {numbers.size(gap)} kinder to {favoured}{chance}."


def _why_none(report: Report) -> str:
    verdict = report.verdict
    if verdict.reason("judge_refuted"):
        rater = refuting(report.agreement)[0]
        return counts_against(rater) or f"By {rater.rater}'s labels, {shortfall(rater, 'the judge')}."
    if verdict.reason("judge_tells_nothing_apart") and report.controls is not None:
        return report.controls.sentence
    if verdict.reason("one_candidate"):
        candidate = report.candidates[0]
        rate = report.usable_rates()[candidate.facts.name]
        return f"{numbers.rate(rate)} of its items are usable; a second candidate gives a comparison."
    if basis := verdict_basis(verdict):
        return basis
    return (
        "The section of failures shows the replies." if report.failures else "Every letter is below the best."
    )


def _rehearsal(report: Report) -> str:
    names = [candidate.facts.name for candidate in report.candidates]
    copies, judge = ("copies" if len(names) == 1 else "copy"), report.judge.facts
    grading = f"{judge.name} compares words" if judge.is_embedded else f"{judge.name} grades them"
    return (
        f"This is a rehearsal: {listed(names)} {copies} sentences of each chunk, and {grading}. The numbers show how a comparison "
        f"reads, not what a model can do. `qaeval compare MODEL MODEL` compares models."
    )


# ------------------------------------------------------------------------------ badges


def _judge(report: Report) -> Badge:
    judge = report.judge.facts
    joined = [rater for rater in report.agreement if rater.coefficients is not None]
    controls = report.controls
    defects = (
        f"{controls.n_graded - controls.n_best} of {plural(controls.n_graded, 'planted control')} noticed"
        if controls is not None and controls.n_graded
        else ""
    )
    shown = [rater for rater in joined if rater.standing == "beats both"]
    by_people = [rater for rater in shown if rater.rater_kind == "human"]
    decided = by_people or shown or joined

    def badge(state: State, title: str, *texts: str) -> Badge:
        return Badge("judge", state, title, "; ".join(text for text in texts if text), "agreement")

    kappas = f"{judge.name}, {_kappas(decided)}" if decided else judge.name
    if not report.verdict.trusts_judge:
        refuted = refuting(report.agreement)
        return badge(
            "bad", "Judge not trusted", f"{judge.name}, {_kappas(refuted)}" if refuted else kappas, defects
        )
    if judge.is_embedded:
        return badge(
            "open",
            "Judge is not a language model",
            f"{judge.name}: a rough check of wording",
            _kappas(decided),
        )
    if not joined:
        return badge("open", "Judge unchecked", f"no label says how reliable {judge.name} is", defects)
    if by_people:
        return badge("good", "Judge trusted", kappas, defects)
    if shown:
        by_models = all(rater.rater_kind == "model" for rater in shown)
        title = "Judge checked by a model only" if by_models else "Judge not checked by people alone"
        return badge("open", title, kappas, defects)
    few = all(rater.standing == "too few chunks" for rater in joined)
    title = "Judge unchecked" if few else "Judge not shown reliable"
    return badge("open", title, f"{kappas}{', too few for κ' if few else ''}", defects)


def _kappas(raters: Sequence[RaterAgreement]) -> str:
    """Name kappa with each rater: ``κ 0.71 [0.62, 0.79] with anna (60 labels)``; of few chunks the labels alone."""
    texts = [
        f"{plural(rater.coefficients.n, 'label')} by {rater.rater}"
        if rater.standing == "too few chunks"
        else f"κ {numbers.coefficient(rater.coefficients.kappa)} with {rater.rater} ({plural(rater.coefficients.n, 'label')})"
        for rater in raters
        if rater.coefficients is not None
    ]
    return listed(texts[:2])


def _data(report: Report) -> Badge:
    if report.data_left:
        return Badge(
            "data", "bad", "Data left your network", f"sent to {listed(report.data_left)}", "provenance"
        )
    models = [*(candidate.facts for candidate in report.candidates), report.judge.facts]
    imported = [facts.name for facts in models if facts.kind == "imported"]
    if imported:
        text = f"this run sent nothing, but {listed(imported)} came from elsewhere"
        return Badge("data", "open", "Origin of items not known", text, "provenance")
    hosts = sorted({facts.host for facts in models if facts.host})
    text = f"{plural(len(hosts), 'host')}: {listed(hosts)}" if hosts else "no host outside was contacted"
    return Badge("data", "good", "Nothing left your machines", text, "provenance")


def _look(report: Report) -> Badge:
    """Return what most needs a look, the most serious first."""
    looks = list(_looks(report))
    if not looks:
        return Badge("look", "good", "Nothing stands out", "no loss, no frequent finding", "quality")
    more = f"; {len(looks) - 1} more below" if len(looks) > 1 else ""
    return Badge("look", "open", looks[0].title, looks[0].text + more, looks[0].anchor)


def _looks(report: Report) -> Iterator[Badge]:
    n_chunks = report.candidates[0].usable.n_clusters
    if n_chunks < MIN_CLUSTERS:
        yield Badge(
            "look", "open", "Too few chunks", f"{n_chunks}; an interval needs {MIN_CLUSTERS}", "quality"
        )
    yield from _frequent(report, at_least=0.5)
    for candidate in report.candidates:
        lost = candidate.failed.n + candidate.ungraded.n
        if lost > _NOTABLE_LOSS * candidate.n_expected:
            counts = {**candidate.failed_by_reason, **candidate.ungraded_by_reason}
            kinds = ", ".join(f"{in_words(reason)} {n:,}" for reason, n in counts.items())
            text = f"{candidate.facts.name}: {lost:,} of {plural(candidate.n_expected, 'item')} ({kinds})"
            yield Badge("look", "open", "Items were lost", text, "failures")
    flagged = [candidate for candidate in report.candidates if candidate.n_best_flagged]
    if flagged:
        flags = listed([f"{candidate.n_best_flagged} of {candidate.facts.name}" for candidate in flagged])
        text = f"{report.rubric.best} and a flag at once: {flags}"
        yield Badge("look", "open", "Letters contradict flags", text, "quality")
    judge = report.judge.facts
    related = [
        candidate.facts.name for candidate in report.candidates if {*candidate.facts.family} & {*judge.family}
    ]
    if related:
        text = f"{judge.name} may favour {listed(related)}"
        yield Badge("look", "open", "Judge of a candidate's family", text, "provenance")
    yield from _frequent(report, at_least=_NOTABLE_CHECK, below=0.5)


def _frequent(report: Report, *, at_least: float, below: float = 2.0) -> Iterator[Badge]:
    """Yield the checks by their highest rate, the highest first."""
    groups = [(max(group.rates, key=_finding_rate), group) for group in report.checks if group.rates]
    frequent = [entry for entry in groups if at_least <= _finding_rate(entry[0]) < below]
    for worst, group in sorted(frequent, key=lambda entry: -_finding_rate(entry[0])):
        others = [
            f"{rate.candidate} {numbers.whole_percent(rate.share.value)}"
            for rate in group.rates
            if rate is not worst
        ]
        text = f"{in_words(group.check.name)}: {worst.candidate} {numbers.whole_percent(worst.share.value)}"
        yield Badge("look", "open", "A check found something", ", ".join([text, *others[:2]]), "checks")


def _finding_rate(rate: CheckRate) -> float:
    return rate.n_found / rate.n_checked if rate.n_checked else 0.0


# ------------------------------------------------------------------------------ candidates and differences


def _model(candidate: CandidateSummary) -> str:
    facts = candidate.facts
    model = facts.hf_id or facts.description or facts.kind
    return " · ".join(part for part in (model.rpartition("/")[2], facts.licence) if part)


def _facts(report: Report, candidate: CandidateSummary, rate: Measure) -> Iterator[Fact]:
    """Yield the judge's rate where labels correct it, speed, cost, flags, failures and length, those that are known."""
    if rate is not candidate.usable:
        yield Fact(numbers.whole_percent(candidate.usable.value), "usable by the judge")
    name, noun = candidate.facts.name, _NOUNS.get(report.eval.item_kind, "items")
    if candidate.timing.items_per_s is not None:
        yield Fact(f"{candidate.timing.items_per_s:,.1f}", f"{noun}/s")
    unit = report.timing.cost_unit
    costs = {cost.candidate: cost.in_unit(unit) for cost in report.timing.costs}
    if (cost := costs.get(name)) is not None and cost.value is not None:
        value = numbers.cost(cost.model_copy(update={"low": None, "high": None}), unit)
        yield Fact(value, "per 1,000 usable")
    for flag in candidate.flags:
        yield Fact(numbers.percent(flag.share.value), in_words(flag.name))
    yield Fact(numbers.count(candidate.failed.n), "failed")
    if candidate.ungraded.n:
        yield Fact(numbers.count(candidate.ungraded.n), "without letter")
    if candidate.answer_words.mean is not None:
        yield Fact(f"{candidate.answer_words.mean:.0f}", "words per answer")


def _lines(pair: Difference, leader: str, *, trusts_judge: bool) -> Iterator[DifferenceLine]:
    rival = pair.a if pair.b == leader else pair.b
    name = f"{leader} {numbers.MINUS} {rival}"
    if (first := pair.deciding) is not None:
        yield DifferenceLine(name, "corrected", _led_by(leader, pair, first.difference), is_deciding=True)
    source = "judge" if first is None else "judge alone"
    if not trusts_judge:
        source += ", not trusted"
    yield DifferenceLine(name, source, _led_by(leader, pair, pair.difference), is_deciding=first is None)


# ------------------------------------------------------------------------------ ways on


def _ways(report: Report, pairs: Sequence[Difference]) -> Iterator[WayOn]:
    if (review := report.review) is not None:
        judge = report.judge.facts.name
        labelled = f", of {review.n_labelled:,} labelled" if review.n_labelled else ""
        counts = (
            (review.n_chunks_different, "chunk", "where they differ", "different"),
            (review.n_unsure, "item", f"{judge} is unsure of", "unsure"),
            (review.n_mismatched, "item", f"where judge and label differ{labelled}", "mismatch"),
            (review.n_lost, "item", "failed or without letter", "failed"),
            (review.n_with_findings, "item", "with a check's finding", "found"),
        )
        for n, noun, text, name in counts:
            if n:
                yield WayOn(n, f"{noun}{'' if n == 1 else 's'} {text}", f"items?show={name}")
    if all(candidate.facts.is_embedded for candidate in report.candidates):
        return
    if text := _what_labels_buy(report, pairs):
        yield WayOn(None, text, "agreement")


def _what_labels_buy(report: Report, pairs: Sequence[Difference]) -> str:
    """Say what more labels would show; empty where nothing is known."""
    n_chunks = report.candidates[0].usable.n_clusters
    nearest = min(pairs, key=lambda pair: abs(pair.effective.value or 0.0), default=None)
    if nearest is None or not any(candidate.n_graded for candidate in report.candidates):
        return ""
    first = nearest.deciding
    if first is None:
        return f"Label {plural(min(SHOWN_FROM, n_chunks), 'chunk')} to correct for the judge's error"
    low, high, left = first.difference.low, first.difference.high, n_chunks - first.n_chunks
    if low is None or high is None or left <= 0:
        return ""
    if (
        report.verdict.condition == "if_judge_right"
        and (few := SHOWN_FROM - first.n_chunks) > 0
        and few <= left
    ):
        return f"Label {plural(few, 'more chunk', 'more chunks')}: the verdict loses its condition"
    more = min(_MORE_LABELS, left)
    half = (high - low) / 2 * sqrt(first.n_chunks / (first.n_chunks + more))
    return f"Label {plural(more, 'more chunk', 'more chunks')}: the interval shrinks to about ±{numbers.size(half, unit='')}"
