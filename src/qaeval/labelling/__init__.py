"""Labels by people: a sitting with its questions and answers, and what the labels are worth."""

from qaeval.labelling.rater_file import RaterFile, require_rater_name
from qaeval.labelling.sitting import PLANS, Progress, Question, Sitting

__all__ = ["PLANS", "Progress", "Question", "RaterFile", "Sitting", "require_rater_name"]
