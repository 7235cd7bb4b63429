"""The certificate of a judge: a file that records on which labels a judge with a rubric agreed how well with people."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import orjson
from pydantic import ValidationError

from qaeval.gate.model import Certificate, ComparisonKey
from qaeval.gate.policy import Policy
from qaeval.records import digest
from qaeval.report.facts import Part
from qaeval.report.measure import Measure
from qaeval.report.numbers import age, coefficient

FOLDER: Final = Path("certificates")
_ABSENT: Final = "no such file; certificate_file: in the policy says where it is, docs/gate.md what it holds"
HOURS_PER_DAY: Final = 24
_CLOCK_DAYS: Final = 1
"""A certificate may be dated this far ahead: clocks and time zones differ."""


class CertificateFile(Part):
    """Content of the file; `sha256` is the hash of all the rest, so that no number can be changed by hand unnoticed."""

    format: Literal[1] = 1
    eval: str
    eval_digest: str
    judge: str
    judge_digest: str
    rubric: str
    rubric_digest: str
    kappa: Measure
    """Agreement of the judge and the rater, with its interval."""
    rater: str
    n_labels: int
    labels_digest: str
    created: str
    """UTC, ISO 8601."""
    qaeval_version: str = ""
    sha256: str = ""

    @property
    def content_sha(self) -> str:
        """Hash of everything but the hash."""
        return digest(self.model_dump(mode="json", exclude={"sha256"}))


def check(policy: Policy, identity: ComparisonKey, today: str) -> Certificate:
    """Return whether the judge of a run has a valid certificate; a file that is wrong in any way is not valid.

    Args:
        policy: Where the certificate is, and how old it may be.
        identity: Eval, judge and rubric of the run.
        today: ISO 8601.
    """
    if policy.certificate == "off":
        return Certificate(state="off")
    path = Path(policy.certificate_file or FOLDER / f"{identity.eval}.json")
    try:
        file = CertificateFile.model_validate(orjson.loads(path.read_bytes()))
    except OSError as error:
        problem = _ABSENT if isinstance(error, FileNotFoundError) else error.strerror or "cannot be read"
        return Certificate(state="missing", detail=f"{path}: {problem}")
    except (ValueError, ValidationError) as error:
        problem = str(error).splitlines()[0]
        return Certificate(state="missing", detail=f"{path}: not a certificate: {problem}")
    if file.sha256 != file.content_sha:
        return Certificate(
            state="missing",
            detail=f"{path}: its content does not match its hash; it was changed after it was written",
        )
    if problem := _stale(file, identity, today, policy.certificate_days):
        return Certificate(state="stale", detail=f"{path} {problem}")
    basis = (
        f"kappa {coefficient(file.kappa)} with {file.rater} on {file.n_labels:,} labels, {file.created[:10]}"
    )
    return Certificate(state="valid", detail=basis)


def _stale(file: CertificateFile, identity: ComparisonKey, today: str, max_days: int) -> str:
    """Return why a certificate does not hold for a run; empty where it does."""
    digests = (
        ("eval", file.eval_digest, identity.eval_digest),
        ("judge", file.judge_digest, identity.judge_digest),
        ("rubric", file.rubric_digest, identity.rubric_digest),
    )
    if changed := [name for name, certified, current in digests if certified != current]:
        return f"certifies another {' and '.join(changed)} than the run's"
    hours = age_hours(file.created, today)
    if hours is None:
        return "has no readable date"
    if hours < -HOURS_PER_DAY * _CLOCK_DAYS:
        return f"is dated {file.created[:10]}, which is in the future"
    return f"is {age(hours)} old; {max_days} days are allowed" if hours > HOURS_PER_DAY * max_days else ""


def age_hours(created: str, today: str) -> float | None:
    """Return the hours between two times in ISO 8601, UTC where they name no zone; None where one of them is no time."""
    try:
        return (_moment(today) - _moment(created)).total_seconds() / 3600
    except ValueError:
        return None


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
