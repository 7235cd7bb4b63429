"""The certificate of a judge: a file that says on which labels a judge with a rubric agreed how well with people."""

from datetime import date, datetime
from pathlib import Path
from typing import Final, Literal

import orjson
from pydantic import ValidationError

from qaeval.gate.model import Certificate, ComparisonKey
from qaeval.gate.policy import Policy
from qaeval.records import digest
from qaeval.report.facts import Part
from qaeval.report.measure import Measure
from qaeval.report.numbers import coefficient

FOLDER: Final = Path("certificates")
_ABSENT: Final = "no such file; certificate_file: in the policy says where it is, docs/gate.md what it holds"


class CertificateFile(Part):
    """What the file holds; `sha256` is the hash of all the rest, so that a number cannot be changed by hand unseen."""

    format: Literal[1] = 1
    eval: str
    eval_digest: str
    judge: str
    judge_digest: str
    rubric: str
    rubric_digest: str
    kappa: Measure
    """Of the judge and the rater, with its interval."""
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
    """Say how the judge of a run stands by the policy's certificate; anything that is wrong with the file is not valid.

    Args:
        policy: Where the certificate is, and how old it may be.
        identity: Of the run.
        today: ISO 8601.
    """
    if policy.certificate == "off":
        return Certificate(state="off")
    path = Path(policy.certificate_file or FOLDER / f"{identity.eval}.json")
    try:
        found = CertificateFile.model_validate(orjson.loads(path.read_bytes()))
    except OSError as error:
        why = _ABSENT if isinstance(error, FileNotFoundError) else error.strerror or "cannot be read"
        return Certificate(state="missing", detail=f"{path}: {why}")
    except (ValueError, ValidationError) as error:
        first = str(error).splitlines()[0]
        return Certificate(state="missing", detail=f"{path}: not a certificate: {first}")
    if found.sha256 != found.content_sha:
        return Certificate(
            state="missing",
            detail=f"{path}: its content does not match its hash; it was changed after it was made",
        )
    if why := _stale(found, identity, today, policy.certificate_days):
        return Certificate(state="stale", detail=f"{path} {why}")
    rests = f"kappa {coefficient(found.kappa)} with {found.rater} on {found.n_labels:,} labels, {found.created[:10]}"
    return Certificate(state="valid", detail=rests)


def _stale(found: CertificateFile, identity: ComparisonKey, today: str, most_days: int) -> str:
    """Say why a certificate does not hold for a run; empty where it does."""
    pairs = (
        ("eval", found.eval_digest, identity.eval_digest),
        ("judge", found.judge_digest, identity.judge_digest),
        ("rubric", found.rubric_digest, identity.rubric_digest),
    )
    if other := [name for name, its, of_run in pairs if its != of_run]:
        return f"was made for another {' and '.join(other)} than the run's"
    days = age_days(found.created, today)
    if days is None:
        return "has no date that can be read"
    if days < -1:  # a day for clocks and time zones
        return f"is dated {found.created[:10]}, which is still to come"
    return f"is {days:,} days old; {most_days} are allowed" if days > most_days else ""


def age_days(created: str, today: str) -> int | None:
    """Return how many days lie between two dates in ISO 8601; None where one of them is none."""
    try:
        return (_day(today) - _day(created)).days
    except ValueError:
        return None


def _day(text: str) -> date:
    return datetime.fromisoformat(text).date()
