"""What a gate decides from: letters, flags and failures of each item, times and cost of each candidate, labels. No texts.

A run (`evidence_of`) and a baseline file (`qaeval.gate.baseline`) give the same evidence, so the same inputs give the same verdict in
either form.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qaeval.agreement.analysis import comparable_labels
from qaeval.agreement.label_rows import known_inclusion
from qaeval.agreement.model import JudgeDiscrimination, RaterAgreement
from qaeval.analysis.letters import GRADED, flag_column
from qaeval.analysis.replies import ReplyTally
from qaeval.analysis.server_metrics import histogram
from qaeval.comparison.analysis import RunData, check_judge
from qaeval.comparison.model import Reason
from qaeval.comparison.verdict import judge_doubts
from qaeval.errors import DataError
from qaeval.gate.model import ComparisonKey, RunIdentity
from qaeval.records import TTFT, Generation, Grade, GradeRow, author, digest
from qaeval.report.facts import MachineFacts, Variant
from qaeval.run.grade import judge_sees
from qaeval.run.plan import judge_digest
from qaeval.stats.paired import effective_number

Codes: TypeAlias = NDArray[np.int8]
Mask: TypeAlias = NDArray[np.bool_]
Strings: TypeAlias = NDArray[np.str_]
Integers: TypeAlias = NDArray[np.intp]
Floats: TypeAlias = NDArray[np.float64]

BEST: Final = 0
"""Code of the best letter; the letters behind it on the scale have the codes 1, 2, …"""
UNGRADED: Final = -1
"""Code of a delivered item to which the judge gave no letter."""
FAILED: Final = -2
"""Code of an item that was not delivered."""
PENDING: Final = -3
"""Code of a delivered item that waits for the judge: only in a run whose grading goes on."""

ABSENT: Final = -4
"""Code where there is neither an item nor a failure: imported replies may have fewer than the eval asks for."""

_LATENCY_DIGITS: Final = 4
"""Significant digits of a latency: more is noise, and each digit of each reply is a byte of the baseline file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ResourceUse:
    """Time, price and latency of a candidate's replies; None and NaN where they are not known."""

    has_server: bool
    """Whether the candidate is served: the times of models inside qaeval are those of this process."""
    work_s: float | None = None
    """Wall seconds of the stage."""
    fresh: float = 1.0
    """Share of the replies that were requested in this run; the others come from earlier runs and took no time."""
    price: float | None = None
    """Price of the work in `currency`, without the start of the server."""
    currency: str = ""
    price_basis: str = ""
    """Hourly price with its machine and day."""
    latency_s: Floats
    """Seconds of the reply to each sample, shape (n_samples,); NaN where none was requested or timed."""
    ttft: Mapping[float, float] = field(default_factory=dict)
    """Requests with a first token in at most so many seconds, cumulated, by the server's own histogram."""

    @property
    def is_timed(self) -> Mask:
        """Samples whose reply was timed, shape (n_samples,)."""
        return ~np.isnan(self.latency_s)


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidateEvidence:
    """A candidate's items: arrays of shape (n_samples, items_per_sample), samples in the order of the run."""

    name: str
    model: str = ""
    """Repository and revision, for the reader."""
    prompt: str = ""
    """Name of the candidate's own prompt; empty for the eval's."""
    prompt_digest: str = ""
    """Hash of the candidate's prompt; empty in baselines from before prompts were part of a candidate."""
    letters: Codes
    """Position on the scale from `BEST`; `UNGRADED`, `FAILED`, `PENDING` or `ABSENT` where there is no letter."""
    item_ids: Strings
    """Empty where no item was delivered."""
    flags: Mapping[str, Mask]
    """Items with a flag of the rubric, by flag."""
    findings: Mapping[str, Mask] = field(default_factory=dict)
    """Items in which a check found something, by check."""
    unchecked: Mapping[str, Mask] = field(default_factory=dict)
    """Delivered items that a check skips because of their type, by check."""
    resources: ResourceUse

    @property
    def variant(self) -> Variant:
        """The candidate as a model with a prompt."""
        return Variant(self.name, self.prompt, self.prompt_digest)

    @property
    def delivered(self) -> Mask:
        """Items that were delivered in the required form."""
        return np.asarray((self.letters != FAILED) & self.requested)

    @property
    def requested(self) -> Mask:
        """Items that count: all of them, but of imported replies with fewer."""
        return np.asarray(self.letters != ABSENT)

    @property
    def graded(self) -> Mask:
        """Items with a letter."""
        return np.asarray(self.letters >= BEST)

    @property
    def usable(self) -> Mask:
        """Items with the best letter."""
        return np.asarray(self.letters == BEST)

    @property
    def n_pending(self) -> int:
        """Number of items that wait for the judge."""
        return int((self.letters == PENDING).sum())

    def select(self, samples: Integers) -> "CandidateEvidence":
        """Return the items of some samples, by their positions."""
        return replace(
            self,
            letters=self.letters[samples],
            item_ids=self.item_ids[samples],
            flags=_rows(self.flags, samples),
            findings=_rows(self.findings, samples),
            unchecked=_rows(self.unchecked, samples),
            resources=replace(self.resources, latency_s=self.resources.latency_s[samples]),
        )

    def with_grades(self, grades: Mapping[str, GradeRow], scale: Sequence[str]) -> "CandidateEvidence":
        """Return the same items with the letters and flags of these rows; items without a row stay as they are.

        Args:
            grades: The judge's rows by item id.
            scale: Letters of the rubric, best first.
        """
        letters = self.letters.copy()
        flags = {name: mask.copy() for name, mask in self.flags.items()}
        for index in zip(*np.nonzero(self.delivered), strict=True):
            row = grades.get(self.item_ids[index])
            if row is not None:
                letters[index] = scale.index(row.letter) if isinstance(row, Grade) else UNGRADED
                for name, mask in flags.items():
                    mask[index] = isinstance(row, Grade) and name in row.flags
        return replace(self, letters=letters, flags=flags)


@dataclass(frozen=True, kw_only=True, eq=False)
class RaterLabels:
    """Items that a rater labelled, with the judge's letters: arrays of shape (n_labels,)."""

    rater: str
    kind: str
    """``human``, ``model`` or ``mixed``."""
    reference: Integers
    """The rater's letters as positions on the scale."""
    judged: Integers
    """The judge's letters on the same items."""
    clusters: Integers
    """Code of the item's chunk: items of one chunk are dependent."""
    letters: Mapping[str, int] = field(default_factory=dict)
    """The rater's letters by item id, of all items of the run, graded or not; empty in baselines of earlier versions."""
    inclusion: Mapping[str, float] = field(default_factory=dict)
    """Probability with which each item of `letters` was drawn; empty where it is not known of every one."""
    is_by_chunk: bool = False
    """Whether `inclusion` is that of whole chunks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Everything that the rules of a gate look at, of one run.

    Raises:
        ValueError: Arrays of different lengths.
    """

    source: RunIdentity
    scale: tuple[str, ...]
    """Letters, best first."""
    flags: tuple[str, ...]
    checks: tuple[str, ...] = ()
    items_per_sample: int
    sample_ids: Strings
    """Shape (n_samples,), in the order of the run."""
    chunks: Strings
    """Chunk of each sample: items of one chunk are dependent."""
    strata: Strings
    """Stratum of each sample."""
    weights: Floats | None = None
    """Weight of each sample, mean 1: over the probability with which it was drawn; None where all weigh the same."""
    candidates: tuple[CandidateEvidence, ...]
    labels: tuple[RaterLabels, ...] = ()
    labels_digest: str = ""
    """Hash of the labels that the judge was compared with; empty without any."""
    discrimination: JudgeDiscrimination | None = None
    """Whether the judge tells anything apart, by the controls and labels of a run; None in a baseline file."""
    agreement: tuple[RaterAgreement, ...] = ()
    """The judge against each rater; empty in a baseline file."""
    doubts: tuple[Reason, ...] = ()
    """Why the judge's letters decide nothing, as in the verdict of a report; empty in a baseline file."""

    def __post_init__(self) -> None:
        n = len(self.sample_ids)
        if not n == len(self.chunks) == len(self.strata):
            raise ValueError(
                f"expected a chunk and a stratum for each of {n} samples, got {len(self.chunks)} and {len(self.strata)}"
            )
        if self.weights is not None and (self.weights.shape != (n,) or not (self.weights > 0).all()):
            raise ValueError(f"expected a weight above 0 for each of {n} samples")
        for candidate in self.candidates:
            masks = (*candidate.flags.values(), *candidate.findings.values(), *candidate.unchecked.values())
            shapes = {array.shape for array in (candidate.letters, candidate.item_ids, *masks)}
            if shapes != {(n, self.items_per_sample)} or len(candidate.resources.latency_s) != n:
                raise ValueError(
                    f"{candidate.name}: expected {self.items_per_sample} items of {n} samples, got {shapes}"
                )

    @cached_property
    def chunk_names(self) -> tuple[str, ...]:
        """Different chunks, sorted: the order of every count by chunk."""
        return tuple(np.unique(self.chunks).tolist())

    @cached_property
    def chunk_codes(self) -> Integers:
        """Position in `chunk_names` of each sample's chunk."""
        return np.unique(self.chunks, return_inverse=True)[1]

    def weighted(self, mask: Mask) -> Floats:
        """Sum items of each sample by weight: a mask of shape (n_samples, items_per_sample) to shape (n_samples,)."""
        counts: Floats = mask.sum(axis=1, dtype=np.float64)
        return counts if self.weights is None else np.asarray(counts * self.weights)

    @property
    def n_effective_chunks(self) -> int:
        """Chunks of equal weight that would tell as much, rounded down; all of them where all weigh the same."""
        if self.weights is None:
            return len(self.chunk_names)
        return int(effective_number(np.bincount(self.chunk_codes, weights=self.weights)))

    @property
    def items_per_chunk(self) -> int:
        """Items that a candidate owes for a chunk: the mean, rounded, at least 1."""
        n_items = sum(int(candidate.requested.sum()) for candidate in self.candidates)
        return max(1, round(n_items / len(self.candidates) / len(self.chunk_names)))

    @property
    def is_graded(self) -> bool:
        """Whether no item waits for the judge."""
        return not any(candidate.n_pending for candidate in self.candidates)

    def has_samples_of(self, other: "Evidence") -> bool:
        """Whether both are about the same samples, so that they can be paired."""
        return self.source.identity.samples_digest == other.source.identity.samples_digest

    def candidate(self, name: str) -> CandidateEvidence | None:
        """Return a candidate by its name; None where there is none."""
        return next((candidate for candidate in self.candidates if candidate.name == name), None)


def _rows(masks: Mapping[str, Mask], samples: Integers) -> dict[str, Mask]:
    return {name: mask[samples] for name, mask in masks.items()}


def evidence_of(
    data: RunData, source: RunIdentity, *, machines: Mapping[str, MachineFacts], pending: Collection[str] = ()
) -> Evidence:
    """Collect from a run what a gate needs.

    Args:
        data: The run, with a row of the judge for each item.
        source: Name and identity of the run.
        machines: Machine of each model by the model's name; a model without one has no cost.
        pending: Ids of the items that wait for the judge; their rows do not count.

    Raises:
        DataError: Rows are missing, doubled or foreign, or there is no candidate.
    """
    if not data.candidates:
        raise DataError(f"{source.name}: the run has no candidate, so there is nothing to gate")
    tally = ReplyTally()
    table = data.table(tally)
    latencies = _latencies(data)
    size = data.eval_facts.items_per_sample
    samples = table.drop_duplicates("sample_id")
    labels = _labels(data, table)
    agreement, discrimination = check_judge(data, table)
    return Evidence(
        source=source,
        scale=data.rubric.letters,
        flags=data.rubric.flag_names,
        checks=tuple(check.name for check in data.eval_facts.checks),
        items_per_sample=size,
        sample_ids=_strings(samples["sample_id"]),
        chunks=_strings(samples["cluster"]),
        strata=_strings(samples["stratum"]),
        weights=samples["weight"].to_numpy(float) if "weight" in samples else None,
        candidates=tuple(
            CandidateEvidence(
                name=facts.name,
                model=f"{facts.hf_id} {facts.revision[:12]}".strip(),
                prompt=facts.prompt,
                prompt_digest=facts.prompt_sha,
                **_items(
                    table[table["candidate"] == facts.name], samples["sample_id"].tolist(), data, pending
                ),
                resources=_resources(
                    data,
                    facts.name,
                    tally,
                    machines.get(facts.name),
                    np.array(
                        [latencies.get((facts.name, sample), np.nan) for sample in samples["sample_id"]]
                    ),
                ),
            )
            for facts in data.candidates
        ),
        labels=labels,
        labels_digest=_labels_digest(data) if labels else "",
        discrimination=discrimination,
        agreement=agreement,
        doubts=judge_doubts(agreement, discrimination),
    )


def identity_of(data: RunData, settings: Mapping[str, Any]) -> ComparisonKey:
    """Return what a run must have in common with another one to be compared."""
    judge = settings["grading"]["judge"]
    return ComparisonKey(
        eval=data.eval_facts.name,
        eval_digest=data.eval_facts.sha,
        task_digest=data.eval_facts.task_sha,
        rubric=data.rubric.label_name,
        rubric_digest=data.rubric.sha,
        judge=data.judge.name,
        judge_digest=judge_digest(judge),
        judge_prompt=data.judge.prompt_sha,
        judge_server=data.judge.server,
        judged_digest=digest(
            [
                data.eval_facts.name,
                data.eval_facts.item_kind,
                list(judge_sees(settings)),
            ]
        ),
        samples_digest=data.eval_facts.sample_set_digest,
        n_samples=data.eval_facts.n_samples,
    )


def _items(
    rows: pd.DataFrame, sample_ids: Sequence[str], data: RunData, pending: Collection[str]
) -> dict[str, Any]:
    """Arrange a candidate's rows of the table of letters as arrays."""
    row_of = {sample_id: row for row, sample_id in enumerate(sample_ids)}
    shape = (len(sample_ids), data.eval_facts.items_per_sample)
    place = [row_of[sample_id] for sample_id in rows["sample_id"]], rows["position"].to_numpy()

    def arranged(column: Iterable[Any], dtype: Any) -> NDArray[Any]:  # noqa: ANN401 - any dtype
        values = np.array(list(column), dtype=dtype)
        array = np.zeros(shape, dtype=values.dtype)
        array[place] = values
        return array

    item_ids = arranged(rows["item_id"], np.str_)
    codes = {letter: code for code, letter in enumerate(data.rubric.letters)}
    letters = arranged((codes.get(letter, UNGRADED) for letter in rows["letter"]), np.int8)
    letters[item_ids == ""] = FAILED
    letters[~arranged(np.ones(len(rows)), np.bool_)] = ABSENT
    if pending:
        letters[np.isin(item_ids, list(pending))] = PENDING
    return {
        "letters": letters,
        "item_ids": item_ids,
        "flags": {name: arranged(rows[flag_column(name)], np.bool_) for name in data.rubric.flag_names},
        "findings": {
            check.name: arranged(
                (isinstance(by_check, Mapping) and check.name in by_check for by_check in rows["findings"]),
                np.bool_,
            )
            for check in data.eval_facts.checks
        },
        "unchecked": {
            check.name: (letters >= PENDING)
            & (letters != FAILED)
            & arranged((item_type not in check.types for item_type in rows["type"]), np.bool_)
            for check in data.eval_facts.checks
            if check.types
        },
    }


def _strings(column: Iterable[str]) -> Strings:
    return np.array(list(column), dtype=np.str_)


def _latencies(data: RunData) -> dict[tuple[str, str], float]:
    """Return the seconds of each reply that was requested in this run, failed ones included."""
    return {
        (author(row), row.sample_id): float(f"{row.latency_s:.{_LATENCY_DIGITS}g}")
        for row in data.rows.generations
        if row.latency_s > 0 and not (isinstance(row, Generation) and row.cached)
    }


def _resources(
    data: RunData, name: str, tally: ReplyTally, machine: MachineFacts | None, latency_s: Floats
) -> ResourceUse:
    facts = next(facts for facts in data.candidates if facts.name == name)
    if facts.is_embedded:
        return ResourceUse(has_server=False, latency_s=np.full(len(latency_s), np.nan))
    sessions = [
        session for session in data.rows.sessions if (session.stage, session.model) == ("generate", name)
    ]
    timing = tally.of("generate", name).timing(sessions, n_items=0)
    use = ResourceUse(
        has_server=True,
        work_s=timing.wall_s,
        fresh=timing.fresh,
        latency_s=latency_s,
        ttft=histogram(data.rows.readings, "generate", name, TTFT),
    )
    if machine is None or machine.price_per_hour is None:
        return use
    return replace(
        use,
        price=None if timing.wall_s is None else timing.wall_s / 3600 * machine.price_per_hour,
        currency=machine.currency,
        price_basis=machine.priced,
    )


def _labels(data: RunData, table: pd.DataFrame) -> tuple[RaterLabels, ...]:
    """Join labels and letters, without labels of another rubric and those that the judge was tuned on."""
    graded = table[table["status"] == GRADED].drop_duplicates("item_id").set_index("item_id")
    letter_codes = {letter: code for code, letter in enumerate(data.rubric.letters)}
    cluster_codes = {cluster: code for code, cluster in enumerate(dict.fromkeys(table["cluster"]))}
    joined = []
    items = set(table["item_id"])
    for rater, labels in comparable_labels(
        data.rows.labels, data.rubric, judge_tuned=data.judge_tuned
    ).items():
        of_run = sorted((label.item_id, label.letter) for label in labels if label.item_id in items)
        inclusion, is_by_chunk = known_inclusion([label for label in labels if label.item_id in items])
        usable = [(item_id, letter) for item_id, letter in of_run if item_id in graded.index]
        if not usable:
            continue
        rows = graded.loc[[item_id for item_id, _ in usable]]
        kinds = {label.rater_kind for label in labels}
        joined.append(
            RaterLabels(
                rater=rater,
                kind=kinds.pop() if len(kinds) == 1 else "mixed",
                reference=np.array([letter_codes[letter] for _, letter in usable], dtype=np.intp),
                judged=np.array([letter_codes[letter] for letter in rows["letter"]], dtype=np.intp),
                clusters=np.array([cluster_codes[cluster] for cluster in rows["cluster"]], dtype=np.intp),
                letters={item_id: letter_codes[letter] for item_id, letter in of_run},
                inclusion=inclusion,
                is_by_chunk=is_by_chunk,
            )
        )
    return tuple(joined)


def _labels_digest(data: RunData) -> str:
    return digest(
        sorted((label.rater, label.item_id, label.letter, *label.flags) for label in data.rows.labels)
    )
