"""The page for items with different labels: both are shown without names, and a third person decides."""

from collections.abc import Sequence

from qaeval.errors import UsageError
from qaeval.labelling import Adjudication, Dispute, Question, SittingProgress
from qaeval.records import Label, record_id
from qaeval.web.label import LabelPage, Section
from qaeval.web.messages import Language, text


def adjudication_page(adjudication: Adjudication) -> LabelPage:
    """Return the page of an adjudication."""
    session = _Session(adjudication)
    return LabelPage(
        session,
        summarise=session.summarise,
        opinions=session.opinions,
        run=adjudication.run.resolve().name,
        rater=adjudication.rater,
    )


class _Session:
    """An adjudication with the methods of a sitting."""

    def __init__(self, adjudication: Adjudication) -> None:
        self._adjudication = adjudication

    def current(self) -> Question | None:
        return _question(self._adjudication.current())

    def record(self, assignment: str, letter: str, flags: Sequence[str], note: str, seconds: float) -> None:  # noqa: ARG002 - as `Sitting`
        self._adjudication.settle(assignment, letter, flags, note)

    def skip(self, assignment: str, reason: str, seconds: float) -> None:  # noqa: ARG002 - as `Sitting`
        raise UsageError("an item in dispute cannot be skipped: it stays open until it is settled")

    def undo(self) -> Question | None:
        return _question(self._adjudication.undo())

    def progress(self) -> SittingProgress:
        settled = self._adjudication.n_settled
        return SittingProgress(
            answered=settled,
            total=self._adjudication.n_total,
            labelled=settled,
            skipped=0,
            median_seconds=None,
            remaining_seconds=None,
            is_decided=False,
        )

    def opinions(self, assignment: str) -> list[str]:
        """Return what the raters said, in an order of its own for each item: a place shall not stand for a person."""
        dispute = next(
            each for each in self._adjudication.disputes() if each.question.assignment == assignment
        )
        labels = sorted(dispute.labels, key=lambda label: record_id("opinion", assignment, label.rater))
        return list(map(_opinion, labels))

    def summarise(self, language: Language) -> list[Section]:
        """Return the last page."""
        settled = text(
            "settled", language, settled=self._adjudication.n_settled, total=self._adjudication.n_total
        )
        return [(settled, [text("settled_counts", language), text("close_window", language)])]


def _question(dispute: Dispute | None) -> Question | None:
    return None if dispute is None else dispute.question


def _opinion(label: Label) -> str:
    flags = [f"⚑ {flag.replace('_', ' ')}" for flag in label.flags]
    return " · ".join(part for part in (label.letter, *flags, label.note) if part)
