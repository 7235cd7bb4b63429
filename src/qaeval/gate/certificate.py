"""The certificate of a judge: a file with a rater's and the judge's letter of each labelled item, and what they show.

A gate believes nothing in the file that it can compute: numbers follow from the letters, the verdict from the numbers and the policy of
the gate, and the labels are compared with the label files where those exist.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isclose
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import orjson
from pydantic import Field, ValidationError

from qaeval.agreement.analysis import comparable_labels
from qaeval.agreement.label_files import read_labels
from qaeval.agreement.reference import Reference, reference_letters
from qaeval.audit.model import Audit
from qaeval.errors import DataError
from qaeval.files.whole import write_file
from qaeval.gate.model import Certificate, ComparisonKey, TrustVerdict
from qaeval.gate.policy import Policy, TrustPolicy
from qaeval.gate.trust import JudgeNumbers, LabelledLetters, decide_trust, numbers_of, outcome_of
from qaeval.records import Label, digest
from qaeval.report.facts import Part, RubricFacts, is_unset
from qaeval.report.numbers import age, coefficient, listed, plural

FORMAT: Final = 2
FOLDER: Final = Path("certificates")
HOURS_PER_DAY: Final = 24
_CLOCK_DAYS: Final = 1
"""A certificate may be dated this far ahead: clocks and time zones differ."""
_TOLERANCE: Final = 1e-9
"""Difference of two numbers that were computed from the same letters on different machines."""
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")
_ASPECTS: Final = {
    "judge_digest": "judge (model, revision or sampling)",
    "judge_server": "server of the judge",
    "judge_prompt": "prompt of the judge",
    "rubric_digest": "rubric",
    "judged_digest": "kind of items",
}
"""Hashes of a run that a certificate must share, and what they are of."""


class CertifiedJudge(Part):
    """Judge, rubric and eval: names for the reader, and the hashes that a run must share; as in `ComparisonKey`."""

    eval: str
    judged_digest: str
    rubric: str
    rubric_digest: str
    judge: str
    judge_digest: str
    judge_prompt: str = Field(default="", exclude_if=is_unset)
    judge_server: str = Field(default="", exclude_if=is_unset)

    @classmethod
    def of(cls, key: ComparisonKey) -> "CertifiedJudge":
        """Return what a run says of its judge."""
        return cls(**{name: getattr(key, name) for name in cls.model_fields})


class CertifiedRater(Part):
    """A rater whose labels count."""

    rater: str
    kind: Literal["human", "model", "mixed"]
    n: int
    """Labels of items that the judge graded."""


class JudgeCertificate(Part):
    """Content of the file; `sha256` is the hash of all the rest."""

    format: Literal[2] = FORMAT
    certified: CertifiedJudge
    created: str
    """UTC, ISO 8601."""
    qaeval_version: str
    verdict: TrustVerdict
    """By `trust`; a gate decides by its own policy."""
    trust: TrustPolicy
    """Requirements by which the certificate was issued."""
    numbers: JudgeNumbers
    audit: Audit | None = Field(default=None, exclude_if=lambda audit: audit is None)
    """Of the same judge and rubric; None where none was given."""
    anchors_sha256: str = Field(default="", exclude_if=is_unset)
    """Hash of the file of anchors beside the certificate; empty without anchors."""
    raters: tuple[CertifiedRater, ...]
    label_files: tuple[str, ...] = Field(min_length=1)
    """Files of the labels, from the working directory."""
    n_ungraded: int = 0
    """Labelled items to which the judge gave no letter."""
    judge_tuned: bool = False
    """Whether the judge was tuned on labels of the eval; those labels do not count."""
    rubric: RubricFacts
    """Rubric of judge and labels."""
    candidates: tuple[str, ...] = ()
    """Candidates of the labelled items; empty where they are not known."""
    items: tuple[str, ...]
    """A line for each labelled item: id, number of its chunk, letter of the label, letter of the judge, ``human`` or ``model``, and the
    positions of its candidates."""
    inclusion: tuple[float | None, ...] = Field(default=(), exclude_if=is_unset)
    """Of each item, the probability with which it was drawn, see `LabelledLetters.inclusion`; None where that is not known. Empty where
    it is of none, or all were drawn alike."""
    sha256: str = ""

    @property
    def content_sha(self) -> str:
        """Hash of everything but the hash."""
        return digest(self.model_dump(mode="json", exclude={"sha256"}))

    @property
    def letters(self) -> "CertifiedItems":
        """The items as arrays.

        Raises:
            ValueError: A line is not readable.
        """
        return CertifiedItems.parse(self.items, self.rubric.letters, self.candidates, self.inclusion)

    def write(self, path: Path) -> None:
        """Write the file with its hash, whole or not at all.

        Raises:
            StoreError: It cannot be written.
        """
        signed = self.model_copy(update={"sha256": self.content_sha})
        write_file(path, orjson.dumps(signed.model_dump(mode="json"), option=orjson.OPT_INDENT_2) + b"\n")


@dataclass(frozen=True, kw_only=True, eq=False)
class CertifiedItems:
    """The labelled items of a certificate."""

    item_ids: tuple[str, ...]
    letters: LabelledLetters

    @classmethod
    def parse(
        cls,
        lines: Sequence[str],
        scale: Sequence[str],
        candidates: Sequence[str],
        inclusion: Sequence[float | None] = (),
    ) -> "CertifiedItems":
        """Read the lines of a certificate.

        Raises:
            ValueError: A line has another form, a letter is off the scale, or a probability is out of range.
        """
        columns = [line.split(" ") for line in lines]
        if any(len(row) not in {5, 6} or row[4] not in {"human", "model"} for row in columns):
            raise ValueError("expected lines of item, chunk, label, letter, kind of rater and candidates")
        drawn = np.array(inclusion, dtype=np.float64)
        if len(drawn) not in {0, len(lines)} or ((drawn <= 0) | (drawn > 1)).any():
            raise ValueError("inclusion: expected a probability in (0, 1] for each item, or none")
        by = [{int(code) for code in row[5].split(",")} if len(row) == 6 else set() for row in columns]
        letters = LabelledLetters(
            scale=tuple(scale),
            reference=np.array([scale.index(row[2]) for row in columns], dtype=np.intp),
            judged=np.array([scale.index(row[3]) for row in columns], dtype=np.intp),
            clusters=np.array([int(row[1]) for row in columns], dtype=np.intp),
            kinds=np.array([row[4] for row in columns], dtype=np.str_),
            candidates={
                name: np.array([index in codes for codes in by], dtype=np.bool_)
                for index, name in enumerate(candidates)
            },
            inclusion=drawn if len(drawn) else None,
        )
        return cls(item_ids=tuple(row[0] for row in columns), letters=letters)

    def lines(self) -> tuple[str, ...]:
        """Return the items as lines of a certificate."""
        letters, names = self.letters, list(self.letters.candidates)
        written = []
        for index, item_id in enumerate(self.item_ids):
            by = ",".join(str(code) for code, name in enumerate(names) if letters.candidates[name][index])
            cells = (
                item_id,
                str(letters.clusters[index]),
                letters.scale[letters.reference[index]],
                letters.scale[letters.judged[index]],
                str(letters.kinds[index]),
                *((by,) if by else ()),
            )
            written.append(" ".join(cells))
        return tuple(written)


def admitted_labels(
    labels: Sequence[Label], rubric: RubricFacts, trust: TrustPolicy, *, judge_tuned: bool
) -> dict[str, list[Label]]:
    """Return the labels that count, by rater; letters that settle a difference have replaced both.

    Args:
        labels: Of all raters, as read.
        rubric: Rubric of the judge; labels under another one do not count.
        trust: Whether the labels of models count.
        judge_tuned: Whether to leave out the labels that the judge was tuned on.

    Raises:
        DataError: Labels contradict each other or are off the scale.
    """
    return comparable_labels(
        [label for label in labels if trust.raters == "any" or label.rater_kind == "human"],
        rubric,
        judge_tuned=judge_tuned,
    )


def certificate_path(eval_name: str, judge: str, rubric: str) -> Path:
    """Return the default path of a certificate: ``certificates/<eval>-<judge>-<rubric>.json``."""
    parts = (_NOT_IN_NAMES.sub("-", part).strip("-.") for part in (eval_name, judge, rubric))
    return FOLDER / f"{'-'.join(parts)}.json"


# -------------------------------------------------------------------- a gate reads a certificate


class RefusedCertificateError(Exception):
    """A file that is no certificate, or not of this judge; the message follows the path."""

    def __init__(self, state: Literal["missing", "stale"], problem: str) -> None:
        super().__init__(problem)
        self.state: Literal["missing", "stale"] = state


def check(policy: Policy, identity: ComparisonKey, today: str) -> Certificate:
    """Return whether the judge of a run is trusted by its certificate; a file that is wrong in any way is none.

    Args:
        policy: Where the certificate is, how old it may be, and what it must show.
        identity: Eval, judge and rubric of the run.
        today: ISO 8601.
    """
    if policy.certificate == "off":
        return Certificate(state="off")
    path = certificate_of(policy, identity)
    try:
        file = read_certificate(path)
        require_certified(file, identity)
        _require_recent(file, today, policy.certificate_days)
        remark = _compare_with_labels(file)
    except RefusedCertificateError as refused:
        return Certificate(state=refused.state, detail=f"{path}{refused}")
    letters = file.letters.letters
    numbers = numbers_of(letters.admitted(policy.trust))
    verdict = decide_trust(numbers, policy.trust, file.audit)
    kinds = file.numbers.n_by_kind
    proxies = kinds.get("model", 0)
    if policy.trust.raters == "people" and proxies:
        remark = f"; {plural(proxies, 'label')} of models do not count{remark}"
    elif proxies:
        remark = f"; {proxies:,} of {plural(file.numbers.n_labels, 'label')} are of models, as the policy allows{remark}"
    if verdict.outcome != "trusted" or numbers is None:
        return Certificate(
            state=verdict.outcome,
            detail=f"{path}: {outcome_of(verdict)}: {verdict.requirements[0]}{remark}",
            verdict=verdict,
        )
    admits_all = policy.trust.raters == "any"
    raters = listed([rater.rater for rater in file.raters if admits_all or rater.kind != "model"])
    basis = f"kappa {coefficient(numbers.kappa)} with {raters} on {plural(numbers.n_labels, 'label')}"
    return Certificate(state="valid", detail=f"{basis}, {file.created[:10]}{remark}", verdict=verdict)


def certificate_of(policy: Policy, identity: ComparisonKey) -> Path:
    """Return where the certificate of a run's judge is: that of the policy, else the default, else that of earlier versions."""
    default = certificate_path(identity.eval, identity.judge, identity.rubric)
    earlier = FOLDER / f"{identity.eval}.json"
    return Path(
        policy.certificate_file or (earlier if earlier.is_file() and not default.is_file() else default)
    )


def read_certificate(path: Path) -> JudgeCertificate:
    """Read a certificate whose numbers follow from its letters.

    Raises:
        RefusedCertificateError: There is none, it was changed, or it is of another format.
    """
    certify = "`qaeval certify JUDGE --eval EVAL --labels FILE` issues one"
    try:
        data = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise RefusedCertificateError("missing", f": no such file; {certify}") from None
    except (OSError, ValueError) as error:
        raise RefusedCertificateError("missing", f": not a certificate: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        version = data.get("format") if isinstance(data, dict) else None
        known = " with numbers alone, which nothing proves" if version == 1 else ""
        raise RefusedCertificateError(
            "missing", f": format {version!r}{known}; expected format {FORMAT}: {certify}"
        )
    try:
        file = JudgeCertificate.model_validate_json(orjson.dumps(data))
        items = file.letters
    except (ValueError, IndexError) as error:
        problem = _first_problem(error)
        raise RefusedCertificateError("missing", f": not a certificate: {problem}") from error
    if file.sha256 != file.content_sha:
        raise RefusedCertificateError(
            "missing", ": its content does not match its hash; it was changed after it was written"
        )
    if len(set(items.item_ids)) < len(items.item_ids):
        raise RefusedCertificateError(
            "missing", ": an item is listed twice; it was changed after it was written"
        )
    if file.audit is not None and differs_from_audit(file.certified, file.audit):
        raise RefusedCertificateError(
            "missing", ": its audit is of another judge; it was changed after it was written"
        )
    numbers = numbers_of(items.letters)
    if numbers is None or not _alike(numbers.model_dump(mode="json"), file.numbers.model_dump(mode="json")):
        raise RefusedCertificateError(
            "missing", ": its numbers do not follow from its letters; it was changed after it was written"
        )
    return file


def differs_from_audit(certified: CertifiedJudge, audit: Audit) -> list[str]:
    """Name in what an audit differs from a certified judge."""
    request = audit.request
    names = ("eval", "judge", "rubric", "judge_digest", "judge_prompt", "rubric_digest")
    return [
        f"the {_ASPECTS.get(name, name)}"
        for name in names
        if getattr(certified, name) != getattr(request, name)
    ]


def _first_problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error).splitlines()[0]
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def _alike(a: Any, b: Any) -> bool:  # noqa: ANN401 - JSON values
    """Whether two JSON values are equal, up to the last digits of numbers."""
    if isinstance(a, float) and isinstance(b, int | float):
        return isclose(a, b, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_alike, a, b))
    return bool(a == b)


def require_certified(
    file: JudgeCertificate, identity: ComparisonKey, hashes: Collection[str] = tuple(_ASPECTS)
) -> None:
    """Refuse a certificate of another judge, rubric or eval.

    Args:
        file: The certificate.
        identity: Of the run.
        hashes: Fields of both that must be equal, besides the names.

    Raises:
        RefusedCertificateError: It is not of the run's judge.
    """
    certified = file.certified
    for name in ("eval", "judge", "rubric"):
        of_file, of_run = getattr(certified, name), getattr(identity, name)
        if of_file != of_run:
            raise RefusedCertificateError("stale", f" is of the {name} {of_file}, the run has {of_run}")
    if changed := [_ASPECTS[name] for name in hashes if getattr(certified, name) != getattr(identity, name)]:
        raise RefusedCertificateError(
            "stale", f": another {listed(changed)} than the run's; certify the judge anew"
        )


def _require_recent(file: JudgeCertificate, today: str, max_days: int) -> None:
    """Refuse a certificate that is too old.

    Raises:
        RefusedCertificateError: It is, or its date is not readable or in the future.
    """
    hours = age_hours(file.created, today)
    if hours is None:
        raise RefusedCertificateError("stale", " has no readable date")
    if hours < -HOURS_PER_DAY * _CLOCK_DAYS:
        raise RefusedCertificateError("stale", f" is dated {file.created[:10]}, which is in the future")
    if hours > HOURS_PER_DAY * max_days:
        raise RefusedCertificateError("stale", f" is {age(hours)} old; {plural(max_days, 'day')} are allowed")


def _compare_with_labels(file: JudgeCertificate) -> str:
    """Derive the letters of the raters anew from the label files, as far as they exist; return a remark about the others.

    Raises:
        RefusedCertificateError: An item has another label than in the certificate that no absent file can explain, or a label file is not
            readable.
    """
    paths = [Path(name) for name in file.label_files]
    present = [path for path in paths if path.is_file()]
    absent = ", ".join(str(path) for path in paths if path not in present)
    if not present:
        return f"; the labels are as the certificate has them, since {absent} is not here"
    try:
        labels = [label for path in present for label in read_labels(path)]
        admitted = admitted_labels(labels, file.rubric, file.trust, judge_tuned=file.judge_tuned)
    except DataError as error:
        raise RefusedCertificateError("stale", f": its labels cannot be read: {error}") from error
    items, scale = file.letters, file.rubric.letters
    reference = reference_letters(admitted, scale)
    certified = {
        item_id: Reference(scale[code], kind)
        for item_id, code, kind in zip(
            items.item_ids, items.letters.reference.tolist(), items.letters.kinds.tolist(), strict=True
        )
    }
    compared = certified.keys() & reference.keys() if absent else certified.keys()
    changed = {item_id for item_id in compared if reference.get(item_id) != certified[item_id]}
    disputed, n_elsewhere = _open_items(file, certified.keys(), admitted) if absent else (set(), 0)
    here = ", ".join(map(str, present))
    if len(changed - disputed) > n_elsewhere:
        raise RefusedCertificateError(
            "stale",
            f": {plural(len(changed), 'item has', 'items have')} another label than in {here}; certify the judge anew",
        )
    if not absent:
        return ""
    but = f" ({len(changed):,} have another label, which {absent} may explain)" if changed else ""
    return (
        f"; {absent} is not here: {len(compared):,} of {plural(len(certified), 'labelled item')} are compared with {here}{but}, the others "
        f"are as the certificate has them"
    )


def _open_items(
    file: JudgeCertificate, items: Collection[str], here: Mapping[str, Sequence[Label]]
) -> tuple[set[str], int]:
    """Return which items an absent label file may give another letter.

    Args:
        file: The certificate.
        items: Ids of its items.
        here: Labels of the files that are not absent, by rater.

    Returns:
        The items to which people gave different letters, which a file may settle; and how many others at most: as many labels as the
        certificate has beyond the first of each item, less those that are here.
    """
    own = [label for rater in file.raters for label in here.get(rater.rater, ()) if label.item_id in items]
    letters: dict[str, set[str]] = {}
    for label in own:
        if label.rater_kind == "human":
            letters.setdefault(label.item_id, set()).add(label.letter)
    n_second = sum(rater.n for rater in file.raters) - len(items)
    n_second_here = len(own) - len({label.item_id for label in own})
    disputed = {item_id for item_id, given in letters.items() if len(given) > 1}
    return disputed, max(0, n_second - n_second_here)


def age_hours(created: str, today: str) -> float | None:
    """Return the hours between two times in ISO 8601, UTC where they name no zone; None where one of them is no time."""
    try:
        return (_moment(today) - _moment(created)).total_seconds() / 3600
    except ValueError:
        return None


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
