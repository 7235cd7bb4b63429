"""The last page of a sitting: what its labels show."""

from collections.abc import Sequence

from qaeval.labelling import Sitting
from qaeval.web.label import Section
from qaeval.web.messages import Language, text


def summarise(sitting: Sitting, language: Language) -> Sequence[Section]:
    """Return the sections of the last page."""
    progress = sitting.progress()
    return [(text("finished", language, labelled=progress.labelled, skipped=progress.skipped), [])]
