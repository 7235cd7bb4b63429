"""Labels by people and models: sittings, adjudication by a third person, status and files of labels."""

from qaeval.agreement.label_files import require_rater_name
from qaeval.labelling.adjudication import Adjudication, Dispute, open_disputes
from qaeval.labelling.by_model import ModelLabels, label_items
from qaeval.labelling.model import LabelStatus, MoreLabels, RaterWork, SittingSummary, StoppingDecision
from qaeval.labelling.question import Question
from qaeval.labelling.sitting import PLANS, Sitting, SittingProgress
from qaeval.labelling.status import label_status, summarise

__all__ = [
    "PLANS",
    "Adjudication",
    "Dispute",
    "LabelStatus",
    "ModelLabels",
    "MoreLabels",
    "Question",
    "RaterWork",
    "Sitting",
    "SittingProgress",
    "SittingSummary",
    "StoppingDecision",
    "label_items",
    "label_status",
    "open_disputes",
    "require_rater_name",
    "summarise",
]
