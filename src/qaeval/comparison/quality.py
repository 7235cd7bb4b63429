"""Sections about the candidates: quality, differences, reliability, strata, failures."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from qaeval.analysis.model import NOT_NAMED, CandidateSummary, Count, FailureGroup, StratumSummary
from qaeval.comparison.headline import stopping_sentence
from qaeval.comparison.report import Report
from qaeval.comparison.verdict import ordered
from qaeval.records import FailureReason
from qaeval.report import numbers
from qaeval.report.numbers import in_words
from qaeval.report.tables import Notes, Section, Table

REPEATED: Final = ("Repeated questions", "nearly repeated")
"""Columns of `repeated`; only where candidates write their questions."""


def _expected(report: Report) -> str:
    """Name the items that rates are of; those of an import may differ by candidate, and be fewer than the eval asks for."""
    n = {candidate.n_expected for candidate in report.candidates}
    if len(n) > 1:
        return "items that each candidate was asked for"
    return f"{numbers.plural(n.pop(), 'item')} that each candidate was asked for"


def quality(report: Report) -> Section:
    """Usable rates, letters and properties of the items."""
    best, level = report.rubric.best, _level(report)
    paragraphs = (
        (
            f"Usable means graded {best}, of the {_expected(report)}: an item that failed or got no letter is not usable. Brackets hold {level} intervals; the chunk is the unit "
            f"that was sampled."
        ),
    )
    return Section(
        anchor="quality",
        title="Quality",
        paragraphs=paragraphs,
        tables=(
            _at_a_glance(report),
            _rates(report),
            *_labelled_rates(report),
            _letters(report),
            *_flaws(report),
            *_types(report),
            _answers(report),
        ),
    )


def _level(report: Report) -> str:
    return numbers.level(report.candidates[0].usable)


def _at_a_glance(report: Report) -> Table:
    """Put quality, time and cost of all candidates into one table, the best first."""
    notes, usable, unit = Notes(), report.usable_rates(), report.timing.cost_unit
    order = ordered(report.candidates, report.differences)
    leader = order[0].facts.name
    costs = {cost.candidate: cost.in_unit(unit) for cost in report.timing.costs}
    rows = tuple(
        (
            candidate.facts.name,
            notes.rate(usable[candidate.facts.name], f"usable of {candidate.facts.name}"),
            _behind(report, leader, candidate.facts.name),
            numbers.seconds(candidate.timing.wall_s),
            numbers.per_second(candidate.timing.items_per_s),
            "–"
            if (cost := costs.get(candidate.facts.name)) is None
            else numbers.cost(cost.model_copy(update={"low": None, "high": None}), unit),
            numbers.percent(candidate.n_valid / candidate.n_expected),
            numbers.decimal(candidate.answer_words.mean, 0),
            *(numbers.percent(flag.share.value) for flag in candidate.flags),
        )
        for candidate in order
    )
    header = (
        "Candidate",
        "Usable, corrected by labels" if report.has_labelled_rates else "Usable",
        f"Against {leader}",
        "Time",
        "Items",
        "Cost of 1,000 usable",
        "Valid replies",
        "Words",
        *(in_words(name) for name in report.rubric.flag_names),
    )
    return Table(caption="Quality, time and cost", header=header, rows=rows, notes=notes.lines())


def _behind(report: Report, leader: str, name: str) -> str:
    """Print the difference from the leader that decides; say so where the rates beside it are by labels, and it is not."""
    pair = next((pair for pair in report.differences if {pair.a, pair.b} == {leader, name}), None)
    if pair is None:
        return "–"
    source = ", by the judge" if report.has_labelled_rates and pair.deciding is None else ""
    return numbers.difference(pair.effective if pair.b == name else pair.effective.scaled(-1)) + source


def _rates(report: Report) -> Table:
    notes, best = Notes(), report.rubric.best
    header = [
        f"Usable ({best} of expected)",
        f"{best} of graded",
        *(f"{in_words(flag.name)} of graded" for flag in report.rubric.flags),
    ]
    rows = [
        (
            candidate.facts.name,
            notes.rate(candidate.usable, f"usable of {candidate.facts.name}"),
            notes.rate(candidate.usable_of_graded, f"{best} of graded of {candidate.facts.name}"),
            *(notes.rate(flag.share, f"{flag.name} of {candidate.facts.name}") for flag in candidate.flags),
        )
        for candidate in report.candidates
    ]
    bounds = tuple(
        f"{candidate.facts.name}: if every item without a letter were {best}, its usable rate would be "
        f"{numbers.percent(candidate.usable_if_ungraded_were)}."
        for candidate in report.candidates
        if candidate.ungraded.n
    )
    return Table(
        caption="Usable items and flags",
        header=("Candidate", *header),
        rows=tuple(rows),
        notes=(*notes.lines(), *bounds),
    )


_BASES: Final[Mapping[str, str]] = {
    "all labelled": "all labelled",
    "corrected": "labels and judge",
    "labels alone": "labels alone",
}
"""What an estimate rests on, for the reader."""
_LABELLED_RATES: Final = (
    "An estimate of the rate that labels of all items would give: among the items with the same letter of the judge, the labelled ones "
    "stand for the others. Failed items are not usable. The rate of a flag is that of the items that did not fail."
)
_LABELLED_DIFFERENCES: Final = (
    "A chunk counts where the rater labelled every item of both candidates. The first rater of a pair decides, if 10 chunks or more are "
    "labelled; its test is adjusted for all pairs (Holm). Judge − labels is the differential error: above 0, the judge favours the "
    "first-named candidate of the difference."
)


def _labelled_rates(report: Report) -> tuple[Table, ...]:
    if not report.labelled_rates:
        return ()
    notes = Notes()
    rows = tuple(
        (
            labelled.candidate,
            labelled.name,
            labelled.rater,
            numbers.count(labelled.n_items),
            numbers.count(labelled.n_chunks),
            notes.rate(labelled.rate, f"{labelled.name} of {labelled.candidate} by {labelled.rater}"),
            numbers.percent(labelled.judged),
            _BASES[labelled.basis],
        )
        for labelled in report.labelled_rates
    )
    header = ("Candidate", "Rate", "Labels by", "Items", "Chunks", "Corrected", "By the judge", "From")
    return (
        Table(
            caption="Rates corrected by labels",
            header=header,
            rows=rows,
            notes=(
                _LABELLED_RATES,
                *notes.lines(),
            ),
            words=frozenset({1, 2, 7}),
        ),
    )


def _letters(report: Report) -> Table:
    notes = Notes()
    rows = [
        (
            candidate.facts.name,
            *(
                _count(cell, notes, candidate)
                for cell in (*candidate.letters, candidate.ungraded, candidate.failed)
            ),
        )
        for candidate in report.candidates
    ]
    header = ("Candidate", *report.rubric.letters, "no letter", "failed")
    return Table(
        caption="Letters of all expected items", header=header, rows=tuple(rows), notes=notes.lines()
    )


def _flaws(report: Report) -> tuple[Table, ...]:
    """List why items have a letter below the best."""
    names = report.named_flaws()
    if not names:
        return ()
    notes = Notes()
    names += (NOT_NAMED,) if any(_flaw(candidate, NOT_NAMED).n for candidate in report.candidates) else ()
    meanings = {flaw.name: flaw.meaning for flaw in report.rubric.flaws}
    return (
        Table(
            caption=f"Why items are not {report.rubric.best}: the flaw that weighs most, of graded items",
            header=("Flaw", *(candidate.facts.name for candidate in report.candidates), "Meaning"),
            rows=tuple(
                (
                    name,
                    *(_count(_flaw(candidate, name), notes, candidate) for candidate in report.candidates),
                    meanings.get(name, "The judge names no flaw."),
                )
                for name in names
            ),
            notes=notes.lines(),
            words=frozenset({len(report.candidates) + 1}),
        ),
    )


def _flaw(candidate: CandidateSummary, name: str) -> Count:
    return next(flaw for flaw in candidate.flaws if flaw.name == name)


def _count(cell: Count, notes: Notes, candidate: CandidateSummary) -> str:
    return f"{numbers.count(cell.n)} · {notes.rate(cell.share, f'{cell.name} of {candidate.facts.name}')}"


class _Asks(Protocol):
    """Whoever wrote questions."""

    @property
    def n_duplicate_questions(self) -> int: ...

    @property
    def n_near_questions(self) -> int | None: ...


def repeated(candidate: _Asks) -> tuple[str, str]:
    """Count repeated questions, word for word and nearly."""
    near = candidate.n_near_questions
    return numbers.count(candidate.n_duplicate_questions), "too many" if near is None else numbers.count(near)


def _answers(report: Report) -> Table:
    writes_questions = report.eval.item_kind == "qa_pair"
    rows = []
    for candidate in report.candidates:
        words = candidate.answer_words
        rows.append(
            (
                candidate.facts.name,
                numbers.decimal(words.mean, 1),
                numbers.decimal(words.median, 0),
                numbers.decimal(words.p95, 0),
                numbers.percent(words.share_over_60),
                *(repeated(candidate) if writes_questions else ()),
                mix(candidate.question_types, candidate.n_valid),
            )
        )
    header = (
        "Candidate",
        "Words, mean",
        "median",
        "95th percentile",
        "over 60 words",
        *(REPEATED if writes_questions else ()),
        "Question types" if writes_questions else "Types",
    )
    return Table(
        caption="Answers and questions", header=header, rows=tuple(rows), words=frozenset({len(header) - 1})
    )


def mix(types: Mapping[str, int], total: int) -> str:
    """Say which share of the items has which type."""
    return ", ".join(f"{name} {numbers.percent(n / total)}" for name, n in types.items() if total) or "none"


def differences(report: Report) -> Section:
    """Differences between the candidates."""
    if not report.differences:
        return Section(
            anchor="differences",
            title="Differences",
            paragraphs=("The run has one candidate.",),
        )
    notes = Notes()
    is_family = len(report.differences) > 1
    is_sequential = any(pair.at_every_look for pair in report.differences)
    rows = tuple(
        (
            f"{pair.b} {numbers.MINUS} {pair.a}",
            notes.difference(pair.difference, f"{pair.b} {numbers.MINUS} {pair.a}"),
            numbers.p_value(pair.p),
            *((numbers.p_value(pair.p_holm),) if is_family else ()),
            numbers.UNDEFINED if pair.p_equivalent is None else numbers.p_value(pair.p_equivalent),
            f"{pair.n_chunks_b_better} / {pair.n_chunks_equal} / {pair.n_chunks_a_better}",
        )
        for pair in report.differences
    )
    header = (
        "Pair",
        "Difference in usable rate",
        "Test at every look" if is_sequential else "Sign-flip test",
        *(("Holm",) if is_family else ()),
        f"Within ±{numbers.size(report.margin, unit='')} points{'' if is_sequential else ' (TOST)'}",
        "Chunks better / equal / worse",
    )
    table = Table(
        caption="By the judge's letters, paired by chunk", header=header, rows=rows, notes=notes.lines()
    )
    return Section(
        anchor="differences",
        title="Differences",
        paragraphs=tuple(pair.sentence for pair in report.differences),
        tables=(*_labelled_differences(report), table, *_crossed(report), *_ranking(report)),
    )


def stopping(report: Report) -> Section | None:
    """When a run until decided ended, what that saved, and what each look showed."""
    ended = report.stopping
    if ended is None:
        return None
    timing = ended.timing
    saved = (
        f"Machine time saved, estimated from the speed of the chunks that were asked for: {numbers.seconds(timing.seconds_saved)}"
        if timing.seconds_saved > 0
        else "No machine time was saved"
    )
    reloads = (
        f", after {numbers.seconds(timing.reload_s)} for further starts of servers" if timing.reload_s else ""
    )
    rows = tuple(
        (
            numbers.count(look.n_chunks),
            f"{pair.b} {numbers.MINUS} {pair.a}",
            numbers.difference(pair.difference),
            numbers.p_value(pair.p_holm),
            numbers.p_value(pair.p_equivalent),
            pair.outcome.replace("a is", f"{pair.a} is").replace("b is", f"{pair.b} is"),
            pair.rater or report.judge.facts.name,
        )
        for look in ended.looks
        for pair in look.pairs
    )
    table = Table(
        caption="Looks",
        header=(
            "Chunks",
            "Pair",
            "Difference in usable rate",
            "Test of 0",
            f"Within ±{numbers.size(ended.margin, unit='')} points",
            "Outcome",
            "Letters by",
        ),
        rows=rows,
        notes=(
            "Intervals and p-values hold at all looks together (bets on chunks in random order).",
            "P-values are corrected for the number of pairs (Holm).",
        ),
        words=frozenset({1, 5, 6}),
    )
    return Section(
        anchor="stopping",
        title="Until decided",
        paragraphs=(stopping_sentence(ended), f"{saved}{reloads}."),
        tables=(table,),
    )


def _labelled_differences(report: Report) -> tuple[Table, ...]:
    """List what the labels of each rater say of each pair, the rater that decides first."""
    notes = Notes()
    rows = tuple(
        (
            f"{pair.b} {numbers.MINUS} {pair.a}",
            labelled.rater,
            f"{labelled.n_chunks} of {pair.difference.n_clusters}",
            notes.difference(labelled.difference, f"{pair.b} {numbers.MINUS} {pair.a} by {labelled.rater}"),
            numbers.UNDEFINED if labelled.p is None else numbers.p_value(labelled.p),
            "–" if labelled.p_holm is None else numbers.p_value(labelled.p_holm),
            notes.difference(labelled.error, f"differential error by {labelled.rater}"),
            numbers.UNDEFINED if labelled.p_error is None else numbers.p_value(labelled.p_error),
            _BASES[labelled.basis],
        )
        for pair in report.differences
        for labelled in pair.labelled
    )
    if not rows:
        return ()
    header = (
        "Pair",
        "Labels by",
        "Chunks",
        "Corrected difference",
        "Test",
        "Holm",
        "Judge − labels",
        "Sign-flip test",
        "From",
    )
    return (
        Table(
            caption="Corrected by labels, paired by chunk",
            header=header,
            rows=rows,
            notes=(
                _LABELLED_DIFFERENCES,
                *notes.lines(),
            ),
            words=frozenset({1, 8}),
        ),
    )


def _crossed(report: Report) -> tuple[Table, ...]:
    """Cross-tabulate the chunks by the usable items of the best candidate and of each other candidate."""
    best = max(report.candidates, key=lambda candidate: candidate.usable.value or 0.0).facts.name
    return tuple(
        Table(
            caption=f"Chunks by usable items: {pair.a} in rows, {pair.b} in columns",
            header=("Usable items", *(f"{pair.b}: {n}" for n in range(len(pair.chunks)))),
            rows=tuple((f"{pair.a}: {n}", *map(numbers.count, row)) for n, row in enumerate(pair.chunks)),
            kind="crossed",
        )
        for pair in report.differences
        if pair.chunks and best in {pair.a, pair.b}
    )


def _ranking(report: Report) -> tuple[Table, ...]:
    if not report.ranking:
        return ()
    notes = Notes()
    rows = tuple(
        (
            rank.candidate,
            numbers.UNDEFINED if rank.rank is None else str(rank.rank),
            "–" if rank.rank_low is None else f"{rank.rank_low} to {rank.rank_high}",
            notes.coefficient(rank.strength, rank.candidate),
        )
        for rank in report.ranking
    )
    header = ("Candidate", "Place", f"{numbers.level(report.ranking[0].strength)} interval", "Strength (log)")
    caption = "Order of all candidates (Bradley-Terry over chunks; a tie is half a win)"
    return (Table(caption=caption, header=header, rows=rows, notes=notes.lines()),)


def reliability(report: Report) -> Section:
    """Shares of delivered and graded items."""
    rows = tuple(
        (
            candidate.facts.name,
            numbers.count(candidate.n_expected),
            numbers.count(candidate.n_valid),
            f"{numbers.count(candidate.failed.n)} · {numbers.percent(candidate.failed.share.value)}",
            _reasons(candidate.failed_by_reason),
            f"{numbers.count(candidate.ungraded.n)} · {numbers.percent(candidate.ungraded.share.value)}",
            _reasons(candidate.ungraded_by_reason),
        )
        for candidate in report.candidates
    )
    header = ("Candidate", "Expected", "Valid", "Failed", "because of", "No letter", "because of")
    return Section(
        anchor="reliability",
        title="Reliability of generation",
        paragraphs=("If a reply violates the schema, all of its items fail; nothing is repaired.",),
        tables=(
            Table(caption="Expected and valid items", header=header, rows=rows, words=frozenset({4, 6})),
            *_escaped(report),
        ),
    )


_ESCAPED: Final = (
    "A space keeps such text from acting as a special token or as the end of the judged text; stored texts have none. Text about "
    "language models holds special tokens; a mark is in a text only if it is written against the judge."
)


def _escaped(report: Report) -> tuple[Table, ...]:
    if not report.escaped:
        return ()
    rows = tuple(
        (
            text.model,
            "writing" if text.stage == "generate" else "grading",
            numbers.count(text.n_requests),
            numbers.count(text.n_special_tokens),
            numbers.count(text.n_marks),
        )
        for text in report.escaped
    )
    return (
        Table(
            caption="Control text that was broken in prompts",
            header=("Model", "Stage", "Requests", "Special tokens", "Marks of the fence"),
            rows=rows,
            notes=(_ESCAPED,),
            words=frozenset({1}),
        ),
    )


def _reasons(counts: Mapping[FailureReason, int]) -> str:
    return ", ".join(f"{in_words(reason)} {n:,}" for reason, n in counts.items()) or "–"


def strata(report: Report) -> Section:
    """Usable rates by stratum."""
    table = _usable_by(report, report.strata, "Stratum", "Usable items by stratum")
    return Section(anchor="strata", title="Strata", tables=(table,))


def _types(report: Report) -> tuple[Table, ...]:
    if not report.types:
        return ()
    caption = "Usable items by the type that the candidate gave its question, of the items that there are"
    if report.eval.item_kind != "qa_pair":
        caption = "Usable items by type of sample, failed ones included"
    return (_usable_by(report, report.types, "Type", caption),)


def _usable_by(report: Report, groups: Iterable[StratumSummary], group_name: str, caption: str) -> Table:
    notes, names = Notes(), [candidate.facts.name for candidate in report.candidates]
    rows = []
    for group in groups:
        cells = {
            cell.candidate: (
                f"{cell.n_usable:,} of {cell.n_expected:,} · {notes.rate(cell.usable, group.stratum)}"
            )
            for cell in group.rates
        }
        rows.append(
            (
                group.stratum or "none",
                numbers.count(group.n_chunks),
                *(cells.get(name, "–") for name in names),
            )
        )
    return Table(
        caption=caption, header=(group_name, "Chunks", *names), rows=tuple(rows), notes=notes.lines()
    )


def failures(report: Report) -> Section:
    """Failures by kind, with examples."""
    if not report.failures:
        return Section(anchor="failures", title="Failures", paragraphs=("Nothing failed.",))
    tables = (*failure_tables(report.failures), *_failures_by_stratum(report))
    return Section(anchor="failures", title="Failures", tables=tables)


def _failures_by_stratum(report: Report) -> tuple[Table, ...]:
    """Count the lost items of each stratum; nothing with one stratum, or in reports that did not count them."""
    names = [candidate.facts.name for candidate in report.candidates]
    rows = [
        (group.stratum or "none", *(_lost(group, name) for name in names))
        for group in report.strata
        if any(rate.n_failed is not None for rate in group.rates)
    ]
    if len(rows) < 2:
        return ()
    return (
        Table(
            caption="Failed items and items without a letter, by stratum",
            header=("Stratum", *names),
            rows=tuple(rows),
        ),
    )


def _lost(group: StratumSummary, name: str) -> str:
    rate = next((rate for rate in group.rates if rate.candidate == name), None)
    if rate is None or rate.n_failed is None:
        return "–"
    return f"{rate.n_failed:,} of {rate.n_expected:,} · {numbers.percent(rate.n_failed / rate.n_expected)}"


def failure_tables(groups: Sequence[FailureGroup]) -> tuple[Table, ...]:
    """Count failures by kind, and show examples."""
    if not groups:
        return ()
    kinds = tuple(
        (group.candidate, group.stage, in_words(group.reason), f"{group.n_items:,}", group.meaning)
        for group in groups
    )
    examples = tuple(
        (
            group.candidate,
            in_words(group.reason),
            example.chunk_id,
            example.detail,
            example.text or "(no text)",
        )
        for group in groups
        for example in group.examples
    )
    return (
        Table(
            caption="Items lost, by kind",
            header=("Candidate", "Stage", "Reason", "Items", "Meaning"),
            rows=kinds,
            kind="text",
        ),
        Table(
            caption="Examples, raw replies cut after 300 characters",
            header=("Candidate", "Reason", "Chunk", "Detail", "Raw reply"),
            rows=examples,
            kind="text",
        ),
    )
