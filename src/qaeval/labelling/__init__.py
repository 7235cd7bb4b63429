"""Labels by people: sittings, differences settled by a third person, and what the labels are worth."""

from qaeval.labelling.adjudication import Adjudication, Dispute, open_disputes
from qaeval.labelling.model import LabelStatus, MoreLabels, RaterWork, SittingSummary, StoppingDecision
from qaeval.labelling.question import Question
from qaeval.labelling.rater_file import require_rater_name
from qaeval.labelling.sitting import PLANS, Sitting, SittingProgress
from qaeval.labelling.status import label_status, summarise

__all__ = [
    "PLANS",
    "Adjudication",
    "Dispute",
    "LabelStatus",
    "MoreLabels",
    "Question",
    "RaterWork",
    "Sitting",
    "SittingProgress",
    "SittingSummary",
    "StoppingDecision",
    "label_status",
    "open_disputes",
    "require_rater_name",
    "summarise",
]
