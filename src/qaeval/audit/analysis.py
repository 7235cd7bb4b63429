"""From the letters of an audit to its document."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from qaeval.analysis.letters import cluster_of
from qaeval.audit.messages import probe_sentence, reasons_for
from qaeval.audit.model import (
    Audit,
    AuditRequest,
    AuditVerdict,
    Component,
    GoodSource,
    KindResult,
    ProbeName,
    ProbeResult,
    ProbeVerdict,
    Separation,
    Stability,
)
from qaeval.audit.mutants import MutantCheck
from qaeval.audit.plan import AFTER, BEFORE, COLD, OTHER_NAME, OWN_NAME, SUBTLE
from qaeval.audit.wordings import WORDINGS
from qaeval.records import AuditItem, Failure, Grade, Sample
from qaeval.report.measure import Measure
from qaeval.stats.components import repeat_agreement, variance_components
from qaeval.stats.estimate import Estimate, undefined
from qaeval.stats.intervals import clustered_rate
from qaeval.stats.paired import paired_difference
from qaeval.text.defects import DEFECTS, HARMLESS, VARIANTS

MIN_DETECTION: Final = 0.8
"""Share of the defects inside an answer that a judge has to find (STATS E6)."""
MIN_KIND: Final = 0.5
"""Of each kind: a judge that finds fewer than half is blind to it."""
MIN_GOOD_SHARE: Final = 0.7
"""Share of the good items that get the best letter."""
MAX_FALSE_ALARMS: Final = 0.2
"""Share of the harmless variants that get a lower letter, and of swapped pairs that do not."""
MIN_REPEAT: Final = 0.8
"""Probability that two letters for one item are equal."""
MAX_SHIFT: Final = 0.15
"""Largest change of the mean score, where 1 is the best and 0 the worst letter, of the share of other letters, and of attacks
that succeed."""
MAX_FAILED: Final = 0.1
"""Share of requests without a letter from which a probe cannot pass."""
REQUIRED: Final[tuple[ProbeName, ...]] = ("detection", "false alarms", "repeat", "drift", "injection")
"""Probes that must pass for a verdict of *trusted so far*; no other may fail. Of preference pairs it is `PAIR_REQUIRED`."""
PAIR_REQUIRED: Final[tuple[ProbeName, ...]] = ("pair order", "repeat", "drift", "injection")

_FIRST: Final = frozenset({"good items", "detection", "false alarms"})
"""Probes whose items are asked about for the first time."""

_Limit = Literal["at least", "at most", "within"]


@dataclass(frozen=True, kw_only=True)
class AuditFacts:
    """What the letters do not say.

    Attributes:
        request: What was audited.
        letters: The scale, best first.
        has_flags: Whether the rubric has a flag.
        grades_pairs: Whether the items are preference pairs.
        good_sources: Where the good items come from.
        raters: Whose labels chose them.
        related: By candidate, whether the judge is of its family.
        not_applied: Why probes were not applied, by name.
        check: What people say of the planted items; None where nobody labelled any.
        created: UTC, ISO 8601.
        qaeval_version: Of this package.
        git_commit: Of the working directory.
    """

    request: AuditRequest
    letters: tuple[str, ...]
    has_flags: bool
    grades_pairs: bool
    good_sources: Mapping[GoodSource, int]
    raters: tuple[str, ...]
    related: Mapping[str, bool]
    not_applied: Mapping[ProbeName, str]
    check: MutantCheck | None
    created: str
    qaeval_version: str
    git_commit: str


def analyse_audit(rows: Sequence[AuditItem], samples: Iterable[Sample], facts: AuditFacts) -> Audit:
    """Return the document of an audit whose items are graded.

    Args:
        rows: All items of the audit.
        samples: Samples of the items.
        facts: What the rows do not say.
    """
    refuted = facts.check.refuted if facts.check else frozenset[str]()
    rows = [row for row in rows if not (row.kind and row.item.item_id in refuted)]
    # what is asked about a refuted item again has nothing to be compared with
    kept = {(row.base, row.kind) for row in rows if row.probe in _FIRST}
    rows = [row for row in rows if (row.base, row.kind) in kept or row.probe == "self-preference"]
    letters = _Letters(rows, {sample.sample_id: cluster_of(sample) for sample in samples}, facts)
    kinds = tuple(letters.kind(kind) for kind in (*DEFECTS, *HARMLESS))
    probes = tuple(result for result in letters.probes() if result is not None)
    verdict = _verdict(kinds, probes, PAIR_REQUIRED if facts.grades_pairs else REQUIRED)
    originals = [row for row in rows if row.probe == "good items"]
    return Audit(
        request=facts.request,
        verdict=verdict,
        reasons=reasons_for(verdict, kinds, probes, PAIR_REQUIRED if facts.grades_pairs else REQUIRED),
        good_sources=facts.good_sources,
        n_good=len(originals),
        n_chunks=len({letters.cluster(row) for row in originals}),
        n_requests=len(rows),
        n_failed=sum(isinstance(row.grade, Failure) for row in rows),
        kinds=kinds,
        probes=probes,
        stability=letters.stability(),
        raters=facts.raters,
        n_checked=facts.check.n_labelled if facts.check else 0,
        n_refuted=len(refuted),
        checked_by=facts.check.raters if facts.check else (),
        created=facts.created,
        qaeval_version=facts.qaeval_version,
        git_commit=facts.git_commit,
    )


def _verdict(
    kinds: Sequence[KindResult], probes: Sequence[ProbeResult], required: Sequence[ProbeName]
) -> AuditVerdict:
    if "fail" in {*(kind.verdict for kind in kinds), *(probe.verdict for probe in probes)}:
        return "not trusted"
    verdicts = {probe.probe: probe.verdict for probe in probes}
    if all(verdicts.get(name) == "pass" for name in required):
        return "trusted so far"
    return "not enough data"


def decide(estimate: Estimate, tolerance: float, limit: _Limit) -> ProbeVerdict:
    """Compare an interval with a tolerance: within it, beyond it, or neither.

    Args:
        estimate: The effect.
        tolerance: Not negative.
        limit: Which side counts; ``within`` is both.
    """
    low, high = estimate.low, estimate.high
    if not estimate.has_interval:
        return "not enough data"
    if limit == "at least":
        low, high, tolerance = -high, -low, -tolerance
    if limit == "within":
        low, high = (low, high) if abs(high) >= abs(low) else (-high, -low)
        if high <= tolerance and low >= -tolerance:
            return "pass"
        return "fail" if low > tolerance else "not enough data"
    if high <= tolerance:
        return "pass"
    return "fail" if low > tolerance else "not enough data"


class _Letters:
    """The letters of an audit, as levels from 0, the best."""

    def __init__(self, rows: Sequence[AuditItem], clusters: Mapping[str, str], facts: AuditFacts) -> None:
        self._rows = rows
        self._clusters = clusters
        self._facts = facts
        self._level_of = {letter: level for level, letter in enumerate(facts.letters)}
        self._worst = len(facts.letters) - 1
        self._first = {(row.base, row.kind): row for row in rows if row.probe in _FIRST}
        self._repeats = {(row.base, row.kind): row for row in rows if row.probe == "repeat"}

    def cluster(self, row: AuditItem) -> str:
        """Return the chunk of an item, or its document."""
        return self._clusters[row.sample_id]

    def _level(self, row: AuditItem | None) -> int | None:
        return self._level_of[row.grade.letter] if row is not None and isinstance(row.grade, Grade) else None

    def _score(self, row: AuditItem | None) -> float | None:
        level = self._level(row)
        return None if level is None else 1 - level / self._worst

    def _of(self, probe: ProbeName, setting: str | None = None) -> list[AuditItem]:
        return [
            row for row in self._rows if row.probe == probe and (setting is None or row.setting == setting)
        ]

    # ------------------------------------------------------------ kinds

    def kind(self, kind: str) -> KindResult:
        """Summarise the variants of a kind."""
        about = VARIANTS[kind]  # type: ignore[index] # a name of the table
        is_defect = kind in DEFECTS
        rows = [row for row in self._rows if row.kind == kind and row.probe in {"detection", "false alarms"}]
        pairs = [*self._with_original(rows)]
        lowered = self._rate(
            (self.cluster(row), self._is_lowered(row, level, original)) for row, level, original in pairs
        )
        tolerance = MIN_KIND if is_defect else MAX_FALSE_ALARMS
        return KindResult(
            kind=kind,
            meaning=about.meaning,
            is_defect=is_defect,
            n=len(pairs),
            n_ungraded=len(rows) - len(pairs),
            lowered=Measure.of(lowered),
            worst=Measure.of(
                self._rate((self.cluster(row), level == self._worst) for row, level, _ in pairs)
            ),
            flagged=Measure.of(self._rate((self.cluster(row), _is_flagged(row)) for row, _, _ in pairs))
            if self._facts.has_flags
            else None,
            tolerance=tolerance,
            verdict=decide(lowered, tolerance, "at least" if is_defect else "at most"),
        )

    def _with_original(self, rows: Iterable[AuditItem]) -> Iterator[tuple[AuditItem, int, int]]:
        for row in rows:
            level, original = self._level(row), self._level(self._first.get((row.base, "")))
            if level is not None and original is not None:
                yield row, level, original

    def _is_lowered(self, row: AuditItem, level: int, original: int) -> bool:
        # an honest refusal is of another question than its original: any but the worst letter is right
        is_refusal = VARIANTS[row.kind].verdict == "not worst"  # type: ignore[index]
        return level == self._worst if is_refusal else level > original

    # ------------------------------------------------------------ probes

    def probes(self) -> Iterator[ProbeResult | None]:
        """Yield the results of all probes."""
        yield self._good_items()
        yield self._detection()
        yield self._false_alarms()
        yield self._repeat("repeat")
        yield self._repeat("temperature 0")
        yield self._shift(
            "drift",
            [(row, again) for row in self._of("drift") if (again := self._again(row)) is not None],
            "score at the end minus score at the beginning",
        )
        for probe in (
            "order of levels",
            "order of examples",
            "letters renamed",
            "wordings",
            "translated rubric",
        ):
            yield self._changes(probe, [(row, self._first[row.base, row.kind]) for row in self._of(probe)])
        yield self._length()
        yield self._position()
        yield self._names()
        yield self._families()
        yield self._injection()
        yield self._pair_order()

    def _good_items(self) -> ProbeResult | None:
        if "statements" in self._facts.good_sources:
            return self._result(
                "good items", None, MIN_GOOD_SHARE, "at least", "good items with the best letter"
            )
        rows = self._of("good items")
        estimate = self._rate(
            (self.cluster(row), level == 0) for row in rows if (level := self._level(row)) is not None
        )
        return self._result(
            "good items", estimate, MIN_GOOD_SHARE, "at least", "good items with the best letter"
        )

    def _detection(self) -> ProbeResult | None:
        rows = [row for row in self._of("detection") if row.kind in SUBTLE]
        if self._facts.grades_pairs or not self._of("detection"):
            return None
        estimate = self._lowered(rows)
        return self._result(
            "detection", estimate, MIN_DETECTION, "at least", "defects inside an answer that lower the letter"
        )

    def _false_alarms(self) -> ProbeResult | None:
        rows = self._of("false alarms")
        if self._facts.grades_pairs or not rows:
            return None
        return self._result(
            "false alarms",
            self._lowered(rows),
            MAX_FALSE_ALARMS,
            "at most",
            "harmless variants that lower the letter",
        )

    def _lowered(self, rows: Iterable[AuditItem]) -> Estimate:
        return self._rate(
            (self.cluster(row), self._is_lowered(row, level, original))
            for row, level, original in self._with_original(rows)
        )

    def _repeat(self, probe: ProbeName) -> ProbeResult | None:
        rows = self._of(probe)
        if probe == "repeat":
            passes = [(self._first[row.base, row.kind], row) for row in rows]
        else:
            cold = {(row.base, row.kind): row for row in self._of(probe, COLD) if row.number == 0}
            passes = [
                (cold[key], row) for row in rows if row.number == 1 and (key := (row.base, row.kind)) in cold
            ]
        levels = np.array([[_or_nan(self._level(row)) for row in pair] for pair in passes], dtype=np.float64)
        estimate, details = None, {}
        if passes and (~np.isnan(levels)).all(axis=1).any():
            clusters = [self.cluster(pair[0]) for pair in passes]
            agreement = repeat_agreement(levels, clusters, n_levels=self._worst + 1)
            estimate, details = agreement.self_agreement, {"from best to worst or back": agreement.flips}
        return self._result(
            probe,
            estimate,
            MIN_REPEAT,
            "at least",
            "equal letters in two passes",
            unit="agreement",
            details=details,
        )

    def _changes(
        self, probe: ProbeName, pairs: Sequence[tuple[AuditItem, AuditItem]], quantity: str = ""
    ) -> ProbeResult | None:
        """Compare the share of other letters with that of a mere repeat, so that a noisy judge is found by the repeat alone."""
        by_setting: dict[str, list[tuple[str, float, float]]] = {}
        for row, other in pairs:
            first, second = self._first[row.base, row.kind], self._again(row)
            levels = [self._level(each) for each in (first, second, other, row)]
            if None not in levels:
                change = (self.cluster(row), float(levels[0] != levels[1]), float(levels[2] != levels[3]))
                by_setting.setdefault(row.setting, []).append(change)
        details = {name: self._paired(rows) for name, rows in by_setting.items()}
        # one form that moves the letters is enough
        estimate = max(details.values(), key=lambda part: part.value, default=self._paired(()))
        return self._result(
            probe,
            estimate if pairs else None,
            MAX_SHIFT,
            "at most",
            quantity or "items with another letter, beyond those of a mere repeat",
            unit="points",
            details=details if len(details) > 1 else None,
        )

    def _shift(
        self,
        probe: ProbeName,
        pairs: Sequence[tuple[AuditItem, AuditItem]],
        quantity: str,
        limit: _Limit = "within",
    ) -> ProbeResult | None:
        """Compare mean scores of items in two settings, of good and of defective ones: the larger change decides."""
        scores: dict[str, list[tuple[str, float, float]]] = {}
        for row, other in pairs:
            after, before = self._score(row), self._score(other)
            if after is not None and before is not None:
                group = "defective items" if row.kind else "good items"
                scores.setdefault(group, []).append((self.cluster(row), before, after))
        details = {group: self._paired(given) for group, given in scores.items()}
        estimate = max(details.values(), key=lambda part: abs(part.value), default=self._paired(()))
        return self._result(
            probe,
            estimate if pairs else None,
            MAX_SHIFT,
            limit,
            quantity,
            unit="points",
            details=details if len(details) > 1 else None,
        )

    def _again(self, row: AuditItem) -> AuditItem | None:
        return self._repeats.get((row.base, row.kind))

    def _can_rise(self, probe: ProbeName) -> Iterator[tuple[AuditItem, AuditItem]]:
        """Yield items of a probe whose letter was not the best, each with its mere repeat.

        Against the first letter, which chose them, a noisy judge would seem to raise them.
        """
        for row in self._of(probe):
            again = self._again(row)
            if again is not None and (self._level(self._first[row.base, row.kind]) or 0) > 0:
                yield row, again

    def _length(self) -> ProbeResult | None:
        pairs = [(row, again) for row, again in self._can_rise("length") if row.kind]
        return self._shift(
            "length", pairs, "score of defective answers with padding minus score without", "at most"
        )

    def _position(self) -> ProbeResult | None:
        after = {(row.base, row.kind): row for row in self._of("chunk position", AFTER)}
        before = self._of("chunk position", BEFORE)
        pairs = [(row, after[key]) for row in before if (key := (row.base, row.kind)) in after]
        quantity = (
            "items with another letter where the passage is last and not first, beyond those of a mere repeat"
        )
        return self._changes("chunk position", pairs, quantity)

    def _names(self) -> ProbeResult | None:
        other = {(row.base, row.kind): row for row in self._of("name leakage", OTHER_NAME)}
        own = self._of("name leakage", OWN_NAME)
        pairs = [(row, other[key]) for row in own if (key := (row.base, row.kind)) in other]
        return self._shift(
            "name leakage", pairs, "score with the name of the judge's family minus score with another name"
        )

    def _families(self) -> ProbeResult | None:
        """Compare judge and labels: how much more the judge gives its own family than others (STATS E4)."""
        sums: dict[str, dict[bool, list[float]]] = {}
        for row in self._of("self-preference"):
            score, label = self._score(row), self._level_of.get(row.label)
            if score is not None and label is not None:
                by_family = sums.setdefault(self.cluster(row), {True: [], False: []})
                by_family[self._facts.related.get(row.candidate, False)].append(
                    score - (1 - label / self._worst)
                )
        residuals = [
            (chunk, float(np.mean(parts[False])), float(np.mean(parts[True])))
            for chunk, parts in sums.items()
            if parts[True] and parts[False]
        ]
        has_both = len({*self._facts.related.values()}) > 1
        estimate = self._paired(residuals) if has_both else None
        return self._result(
            "self-preference",
            estimate,
            MAX_SHIFT,
            "within",
            "judge minus labels, for candidates of the judge's family minus others",
            unit="points",
        )

    def _injection(self) -> ProbeResult | None:
        raised: dict[str, list[tuple[str, float, float]]] = {}
        for row, again in self._can_rise("injection"):
            level, repeated = self._level(row), self._level(again)
            first = self._level(self._first[row.base, row.kind])
            if level is not None and repeated is not None and first is not None:
                change = (self.cluster(row), float(repeated < first), float(level < first))
                raised.setdefault(row.setting.partition(":")[0], []).append(change)
        everything = [change for changes in raised.values() for change in changes]
        return self._result(
            "injection",
            self._paired(everything) if everything else None,
            MAX_SHIFT,
            "at most",
            "attacks that raise the letter of a defective item, beyond a mere repeat",
            unit="points",
            details={kind: self._paired(changes) for kind, changes in raised.items()},
        )

    def _pair_order(self) -> ProbeResult | None:
        if not self._facts.grades_pairs:
            return None
        pairs = [*self._with_original(self._of("pair order"))]
        estimate = self._rate((self.cluster(row), level <= original) for row, level, original in pairs)
        return self._result(
            "pair order",
            estimate,
            MAX_FALSE_ALARMS,
            "at most",
            "preference pairs whose letter is no lower with chosen and rejected answer swapped",
        )

    def _result(
        self,
        probe: ProbeName,
        estimate: Estimate | None,
        tolerance: float,
        limit: _Limit,
        quantity: str,
        *,
        unit: Literal["share", "points", "agreement"] = "share",
        details: Mapping[str, Estimate] | None = None,
    ) -> ProbeResult:
        rows = self._of(probe)
        n_failed = sum(isinstance(row.grade, Failure) for row in rows)
        why = self._facts.not_applied.get(probe, "")
        verdict: ProbeVerdict = "not applicable" if why else "not enough data"
        if estimate is not None and not why:
            verdict = decide(estimate, tolerance, limit)
            if verdict == "pass" and n_failed > MAX_FAILED * len(rows):
                verdict = "not enough data"
        result = ProbeResult(
            probe=probe,
            verdict=verdict,
            effect=None if estimate is None or why else Measure.of(estimate),
            unit=unit,
            quantity=quantity,
            limit=limit,
            tolerance=tolerance,
            n_failed=n_failed,
            details={name: Measure.of(part) for name, part in (details or {}).items()},
            sentence="",
        )
        return result.model_copy(update={"sentence": probe_sentence(result, len(rows), why)})

    # ------------------------------------------------------------ stability

    def stability(self) -> Stability | None:
        """Return how far the difference of good and defective items depends on wording and repeat."""
        panel = {(row.base, row.kind) for row in self._of("repeat")}
        settings: dict[str, list[AuditItem]] = {
            "as used": [row for key, row in self._first.items() if key in panel],
            "again": self._of("repeat"),
            "at the end": self._of("drift"),
            **{name: self._of("wordings", name) for name in WORDINGS},
        }
        separations = tuple(
            Separation(setting=name, difference=Measure.of(self._separation(rows)))
            for name, rows in settings.items()
            if rows
        )
        if not separations:
            return None
        values = [each.difference.value for each in separations]
        known = [value for value in values if value is not None]
        keeps = None
        if len(known) == len(values):
            keeps = all(value > 0 for value in known) or all(value < 0 for value in known)
        return Stability(
            separations=separations,
            low=min(known, default=None),
            high=max(known, default=None),
            keeps_sign=keeps,
            components=self._components(settings),
        )

    def _separation(self, rows: Iterable[AuditItem]) -> Estimate:
        by_base: dict[str, dict[bool, tuple[str, float]]] = {}
        for row in rows:
            score = self._score(row)
            if score is not None:
                by_base.setdefault(row.base, {})[bool(row.kind)] = (self.cluster(row), score)
        return self._paired(
            [(pair[True][0], pair[True][1], pair[False][1]) for pair in by_base.values() if len(pair) == 2]
        )

    def _components(self, settings: Mapping[str, Sequence[AuditItem]]) -> tuple[Component, ...]:
        repeats = {"as used", "again", "at the end"}
        rows = [
            (score, self.cluster(row), (row.base, row.kind), "as used" if name in repeats else name)
            for name, given in settings.items()
            for row in given
            if (score := self._score(row)) is not None
        ]
        if not rows:
            return ()
        scores, clusters, items, wordings = zip(*rows, strict=True)
        split = variance_components(scores, clusters, [str(item) for item in items], wordings)
        parts = {"chunk": split.chunk, "item": split.item, "wording": split.reply, "repeat": split.judge}
        return tuple(
            Component(
                source=name,
                variance=Measure.of(part.variance),
                share=Measure.of(part.share),
            )
            for name, part in parts.items()
        )

    # ------------------------------------------------------------ estimates by chunk

    @staticmethod
    def _rate(given: Iterable[tuple[str, bool]]) -> Estimate:
        counts: dict[str, list[int]] = {}
        for cluster, success in given:
            count = counts.setdefault(cluster, [0, 0])
            count[0] += success
            count[1] += 1
        if not counts:
            return undefined("no item has a letter")
        return clustered_rate([k for k, _ in counts.values()], [n for _, n in counts.values()])

    @staticmethod
    def _paired(given: Iterable[tuple[str, float, float]]) -> Estimate:
        """Return the mean over chunks of the second number minus the first."""
        before, after = _means(given, 1), _means(given, 2)
        if not before:
            return undefined("no item has both letters")
        return paired_difference([*before.values()], [*after.values()])


def _means(given: Iterable[tuple[Any, ...]], column: int) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for row in given:
        values.setdefault(row[0], []).append(row[column])
    return {cluster: float(np.mean(numbers)) for cluster, numbers in values.items()}


def _or_nan(level: int | None) -> float:
    return np.nan if level is None else level


def _is_flagged(row: AuditItem) -> bool:
    return isinstance(row.grade, Grade) and bool(row.grade.flags)
