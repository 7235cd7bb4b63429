"""All rows on disk, and their ids.

Ids are hashes of content. Two runs over the same chunk share its sample id, and the same question and answer
about the same chunk share one item id whichever candidate wrote them: a label is found again in later runs,
and no pair is graded twice.

The names of vLLM's metrics that qaeval reads are here too.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

FailureReason: TypeAlias = Literal[
    "wrong_item_count",
    "missing_field",
    "invalid_json",
    "truncated",
    "repetition",
    "empty",
    "context_overflow",
    "rejected",
    "endpoint",
    "unparseable",
    "interrupted",
    "placeholder",
    "no_source",
    "reported",
    "internal",
]
"""Why a task has no result; ``FAILURES`` has the meanings."""

FAILURES: Mapping[FailureReason, str] = {
    "wrong_item_count": "the reply holds more or fewer items than the eval asks for",
    "missing_field": "an item lacks a field, has an empty one or one that the schema does not know",
    "invalid_json": "the reply is not JSON",
    "truncated": "the reply ran into max_tokens",
    "repetition": "the reply repeated itself, and the server ended it",
    "empty": "the reply holds no text",
    "context_overflow": "the prompt does not fit the model's context; nothing was cut",
    "rejected": "the server refused the request (4xx)",
    "endpoint": "the server could not be reached or failed (connection, timeout, 429, 5xx); retried on resume",
    "unparseable": "the judge's reply holds no letter of the rubric's scale",
    "interrupted": "the server stopped the reply before its end; retried on resume",
    "placeholder": "the reply repeats the prompt's example or dots in place of a text, or is the same for three chunks or more",
    "no_source": "the imported item came without its chunk, and the rubric needs one",
    "reported": "the imported file reports an error, or holds nothing",
    "internal": "qaeval failed on the task, which is a bug: report it with the detail",
}


def failure_meaning(reason: str) -> str:
    """Return what a reason of `FAILURES` means; empty for a reason of a later version."""
    return next((meaning for name, meaning in FAILURES.items() if name == reason), "")


TRANSIENT_REASONS: frozenset[FailureReason] = frozenset({"endpoint", "interrupted"})
"""Failures that a resumed run asks again. All others are results of the model."""


def record_id(*parts: str) -> str:
    """Hash parts into an id of 16 hex digits; ``("ab", "c")`` and ``("a", "bc")`` differ."""
    # a JSON list, so that no two lists of parts give the same text; without an encoder, since a run hashes
    # millions
    text = f"[{', '.join(map(encode_basestring, parts))}]"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def record_number(*parts: str) -> int:
    """Return the id of parts, which may have any form, as a number below 2**64: held in place of texts, or a seed."""
    return int(record_id(*parts), 16)


def digest(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Hash a JSON value, whatever the order of its keys, into 64 hex digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _nothing(value: object) -> bool:
    """Whether a field is empty, so that the row omits it."""
    return not value


ControlText: TypeAlias = Literal["special token", "mark"]
"""Text that was broken in a prompt: a special token of a chat template, or a mark or tag of the judge's fence."""


def _certain(value: object) -> bool:
    """Whether a probability is 1, so that the row omits it."""
    return value == 1


def _absent(value: object) -> bool:
    """Whether a field has no value, so that the row omits it."""
    return value is None


REJECTED: Final = "rejected"
"""Name of the part of a preference pair that is the worse answer."""
FORM: Final = "form"
"""Name of the part of an answer that is its form, as JSON."""


def label_names(rubric: str, version: int, labels_from: Iterable[int | str]) -> frozenset[str]:
    """Return the names in label files, ``qa_pair_abc/3``, whose letters hold for a rubric.

    Args:
        rubric: Its name.
        version: Its version.
        labels_from: Earlier versions of it, and names of other rubrics with their version.
    """
    return frozenset(
        other if isinstance(other, str) else f"{rubric}/{other}" for other in (version, *labels_from)
    )


class Record(BaseModel):
    """A frozen row that rejects unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Chunk(Record):
    """A passage of a document."""

    chunk_id: str = Field(min_length=1)
    text: str
    """Empty only where an item was imported without its chunk."""
    stratum: str = "all"
    """The topic; samples are drawn from every stratum."""
    document: str = ""
    """The document of the passage; empty when unknown."""
    title: str = ""
    language: str = ""
    split: Literal["", "tuning", "held-out"] = Field(default="", exclude_if=_nothing)
    """Half of the eval's chunks, the `split` of labels of them."""
    inclusion: float = Field(default=1.0, gt=0, le=1, exclude_if=_certain)
    """Probability with which the chunk was drawn from those of its documents; 1 where all chunks weigh the same."""


class Sample(Record):
    """One input of an eval: a chunk, a chunk with a question, or a topic card. Its chunk is its cluster."""

    sample_id: str
    chunk: Chunk
    question: str = Field(default="", exclude_if=_nothing)
    """The question about the chunk; empty where the chunk alone is the sample."""
    given: Mapping[str, Any] = Field(default_factory=dict, exclude_if=_nothing)
    """Further fields of the eval's data: type, expected answer, the fields of a topic card."""
    inclusion: float = Field(default=1.0, gt=0, le=1, exclude_if=_certain)
    """Probability with which the sample was drawn, its chunk given; 1 where all samples weigh the same."""

    @classmethod
    def of(
        cls,
        chunk: Chunk,
        question: str = "",
        given: Mapping[str, Any] | None = None,
        *,
        inclusion: float = 1.0,
    ) -> "Sample":
        """Create a sample; its id depends on the chunk's id and text and on the question alone."""
        parts = ("sample", chunk.chunk_id, chunk.text, *((question,) if question else ()))
        sample_id = record_id(*parts)
        return cls(
            sample_id=sample_id, chunk=chunk, question=question, given=given or {}, inclusion=inclusion
        )

    def row(self) -> dict[str, Any]:
        """Return the sample as a row of a data file: a chunk, a question about one, or a topic card."""
        # of a question that of its chunk is in the chunk file
        inclusion = self.inclusion if self.question else self.inclusion * self.chunk.inclusion
        drawn = {} if inclusion == 1 else {"inclusion": inclusion}
        if self.question:
            return {"chunk_id": self.chunk.chunk_id, "question": self.question, **self.given, **drawn}
        if self.given:
            return {"card_id": self.chunk.chunk_id, **self.given, **drawn}
        return {**{name: value for name, value in self.chunk.model_dump().items() if value}, **drawn}

    @property
    def weight(self) -> float:
        """How many samples of the documents it stands for: one over the probability with which it was drawn."""
        return 1 / (self.inclusion * self.chunk.inclusion)

    @property
    def type(self) -> str:
        """The type in the eval's data; empty without one."""
        return str(self.given.get("type", ""))

    @property
    def stratum(self) -> str:
        """The stratum of the draw: the sample's own stratum or type, else its chunk's."""
        return str(self.given.get("stratum") or self.type or self.chunk.stratum)


class Item(Record):
    """The unit that is graded: a question/answer pair, an answer, or a preference pair."""

    item_id: str
    position: int = Field(ge=0)
    """Index in the candidate's reply, from 0."""
    type: str
    """Question type given by the candidate; of an answer or a preference pair, the type of its sample."""
    question: str
    """The question; of a preference pair, the prompt."""
    answer: str
    """The answer; of a preference pair, the chosen one."""
    parts: Mapping[str, str] = Field(default_factory=dict, exclude_if=_nothing)
    """Further parts by name: ``rejected`` of a preference pair, ``form`` (JSON) of an answer that has one."""
    findings: Mapping[str, str] = Field(default_factory=dict, exclude_if=_nothing)
    """Findings of the eval's checks, by check; they never replace the grade."""

    @classmethod
    def of(
        cls,
        sample_id: str,
        position: int,
        *,
        type: str,  # noqa: A002 - the field's name
        question: str,
        answer: str,
        parts: Mapping[str, str] | None = None,
    ) -> "Item":
        """Create an item; its id depends on the sample and the graded text, not on the candidate."""
        parts = parts or {}
        graded = (question, answer, *((parts[REJECTED],) if REJECTED in parts else ()))
        item_id = record_id("item", sample_id, *graded)
        return cls(
            item_id=item_id, position=position, type=type, question=question, answer=answer, parts=parts
        )


class LostItem(Record):
    """An item of an imported reply that does not exist, with the reason."""

    position: int = Field(ge=0)
    """Index in the reply, from 0; those of the reply's items are the others."""
    reason: FailureReason
    detail: str
    text: str = Field(default="", exclude_if=_nothing)
    """What there is instead, if anything."""


class Usage(Record):
    """Tokens as the server counted them."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    cached_tokens: int = Field(default=0, ge=0)
    """Prompt tokens from the server's prefix cache."""


class Generation(Record):
    """A candidate's reply to one sample."""

    kind: Literal["generation"] = "generation"
    task_id: str
    candidate: str
    sample_id: str
    reply_number: int = Field(default=0, ge=0, exclude_if=_nothing)
    """0 for the reply that the run counts; further ones show the candidate's noise alone."""
    items: tuple[Item, ...]
    lost: tuple[LostItem, ...] | None = Field(default=None, exclude_if=_absent)
    """Items of an imported reply that failed; with them it may have fewer than the eval asks for, and so may a reply
    about a chunk of few words (``fewer_allowed`` of the eval). None: a reply that has all."""
    remark: str = Field(default="", exclude_if=_nothing)
    """What was odd in the reply beside its text and is left out, such as a usage without counts."""
    text: str
    """The raw reply."""
    usage: Usage | None = None
    """None for models that count no tokens (embedded models)."""
    latency_s: float = Field(ge=0)
    """Wall time of the request, seconds; 0 where none was sent."""
    cached: bool = False
    """Whether the reply is from the cache of earlier runs."""
    escaped: Mapping[ControlText, int] = Field(default_factory=dict, exclude_if=_nothing)
    """Places of the prompt's texts that were broken, by kind; the stored texts have them as they were."""


class Cascade(Record):
    """When a judge in mode ``cascade`` is asked again, for reasons."""

    below: float = Field(default=0.9, gt=0, le=1)
    """Probability of the letter without reasons below which the judge is asked again; the letter with reasons counts."""
    control: float = Field(default=0.05, ge=0, le=1)
    """Share of the items that are asked again whatever the probability, drawn by their ids: it shows how often both letters
    agree."""
    reasons_for: tuple[str, ...] = Field(default=(), exclude_if=_nothing)
    """Letters without reasons for which the judge is always asked again."""

    def keeps(self, letter: str, probability: float | None) -> bool:
        """Whether a letter without reasons counts.

        Args:
            letter: Empty: the reply had none.
            probability: Of the letter; None: not known.
        """
        return bool(letter) and letter not in self.reasons_for and (probability or 0.0) >= self.below

    @property
    def summary(self) -> str:
        """The settings in one line."""
        letters = f", for {' and '.join(self.reasons_for)}" if self.reasons_for else ""
        return f"cascade: reasons below a probability of {self.below:g}{letters}, and for a random {100 * self.control:g} %"


class ShortGrade(Record):
    """The grade without reasons, of an item that a judge in mode ``cascade`` graded again with reasons."""

    letter: str
    """Empty where the reply had none."""
    probability: float | None = None
    """Of the letter; of a rubric with ``decide: facts``, of the answers to all facts. None where the server gave none."""
    is_control: bool = False
    """Whether the item is of the random share that is asked again whatever the probability."""


class Grade(Record):
    """The judge's letter for one item."""

    kind: Literal["grade"] = "grade"
    task_id: str
    judge: str
    rubric_sha: str
    item_id: str
    reply_number: int = Field(default=0, ge=0, exclude_if=_nothing)
    """Of the reply that holds the item."""
    letter_number: int = Field(default=0, ge=0, exclude_if=_nothing)
    """0 for the first letter of the item in this reply; further ones show the judge's noise alone."""
    letter: str
    flags: tuple[str, ...] = ()
    """Names of the rubric's flags that the judge raised, sorted."""
    flaw: str = Field(default="", exclude_if=_nothing)
    """Name of the rubric's flaw that weighs most in a letter below the best; empty where the judge names none."""
    facts: Mapping[str, str] = Field(default_factory=dict, exclude_if=_nothing)
    """The judge's answers by fact, from which letter, flags and flaw follow; empty where the judge gives the letter."""
    reason: str = ""
    remark: str = Field(default="", exclude_if=_nothing)
    """What was done with a reply that is not as asked: its reason was cut, log-probabilities in another form were left out."""
    probabilities: Mapping[str, float] | None = None
    """Distribution over the letters of the scale, where the server returned logprobs."""
    answers_probability: float | None = Field(default=None, exclude_if=_absent)
    """Probability of the answers to all facts, of a short reply of a cascade; that of the letter is no lower."""
    short: ShortGrade | None = Field(default=None, exclude_if=_absent)
    """The earlier grade without reasons; None where there was no other request. Usage and latency are those of both."""
    text: str
    """The raw reply."""
    usage: Usage | None = None
    latency_s: float = Field(ge=0)
    cached: bool = False
    """Whether the reply is from the cache of earlier runs."""
    escaped: Mapping[ControlText, int] = Field(default_factory=dict, exclude_if=_nothing)
    """Places of the prompt's texts that were broken, by kind; the stored texts have them as they were."""


class Failure(Record):
    """A task without a result: a row with a reason, never a default letter."""

    kind: Literal["failure"] = "failure"
    task_id: str
    stage: Literal["generate", "grade"]
    model: str
    """The candidate or judge that was asked."""
    sample_id: str
    item_id: str | None = None
    """The item without a grade; None for a failed generation."""
    reply_number: int = Field(default=0, ge=0, exclude_if=_nothing)
    """As in `Generation` and `Grade`."""
    letter_number: int = Field(default=0, ge=0, exclude_if=_nothing)
    """As in `Grade`."""
    reason: FailureReason
    detail: str
    text: str = ""
    """The raw reply, if any."""
    usage: Usage | None = None
    latency_s: float = Field(default=0.0, ge=0)
    escaped: Mapping[ControlText, int] = Field(default_factory=dict, exclude_if=_nothing)
    """As in `Generation` and `Grade`."""

    @property
    def is_transient(self) -> bool:
        """Whether a resumed run asks again."""
        return self.reason in TRANSIENT_REASONS


GenerateRow: TypeAlias = Annotated[Generation | Failure, Field(discriminator="kind")]
GradeRow: TypeAlias = Annotated[Grade | Failure, Field(discriminator="kind")]


ControlDefect: TypeAlias = Literal["placeholder", "foreign answer"]
"""What is wrong with a planted control: dots in place of the answer, or the answer to an item of another chunk."""


class Control(Record):
    """A planted control: a real item with a defect that no good judge gives the best letter, and its grade.

    Controls are in ``controls.jsonl`` alone. They count in no rate, cost or gate, and in no export.
    """

    task_id: str
    defect: ControlDefect
    sample_id: str
    item: Item
    """What the judge is shown."""
    grade: GradeRow | None = None
    """None: not graded yet."""

    @property
    def is_pending(self) -> bool:
        """Whether the judge is still to be asked."""
        return self.grade is None or (isinstance(self.grade, Failure) and self.grade.is_transient)


class AuditItem(Record):
    """An item that a judge is asked about in an audit, and its grade.

    Items of an audit are in ``audit.jsonl`` alone. They count in no rate, cost or gate, and in no export.
    """

    task_id: str
    probe: str
    """What is probed; `qaeval.audit.model.ProbeName`."""
    setting: str = Field(default="", exclude_if=_nothing)
    """How the judge is asked in this probe; empty: as in every run."""
    kind: str = Field(default="", exclude_if=_nothing)
    """The defect or harmless change of the item (`qaeval.text.defects`); empty: a good item as it is."""
    change: str = Field(default="", exclude_if=_nothing)
    """The change in words."""
    base: str
    """Id of the good item that it was made of."""
    sample_id: str
    item: Item
    """What the judge is shown."""
    source: str = Field(default="", exclude_if=_nothing)
    """Text that the judge is shown in place of the chunk; empty: the chunk."""
    number: int = Field(default=0, ge=0, exclude_if=_nothing)
    """Of the repeat."""
    candidate: str = Field(default="", exclude_if=_nothing)
    """Who wrote the item, where that is probed."""
    label: str = Field(default="", exclude_if=_nothing)
    """Letter of the labels, where the judge is compared with them."""
    grade: GradeRow | None = None
    """None: not graded yet."""

    @property
    def is_pending(self) -> bool:
        """Whether the judge is still to be asked."""
        return self.grade is None or (isinstance(self.grade, Failure) and self.grade.is_transient)


def author(row: Generation | Failure) -> str:
    """Return the name of the candidate that was asked."""
    return row.candidate if isinstance(row, Generation) else row.model


class Label(Record):
    """The letter of a rater other than the judge for an item, with the item's text."""

    item_id: str
    rater: str
    rater_kind: Literal["human", "model"]
    letter: str
    flags: tuple[str, ...] = ()
    facts: Mapping[str, str] = Field(default_factory=dict, exclude_if=_nothing)
    """The rater's answers by fact, where the rubric derives letters from facts and the rater gave some."""
    rubric: str = ""
    """Name and version of the rubric, ``qa_pair_abc/1``; empty: the rubric of the run."""
    split: Literal["tuning", "held-out"] = "held-out"
    """A judge that was tuned on this eval's labels is measured on the held-out ones alone. The split is by
    chunk."""
    note: str = ""
    chunk_id: str = ""
    question: str = ""
    answer: str = ""
    rejected: str = Field(default="", exclude_if=_nothing)
    """Of a preference pair."""
    assignment: str = Field(default="", exclude_if=_nothing)
    """Of a sitting: the question that it answers; the last row of a question counts."""
    repeat: bool = Field(default=False, exclude_if=_nothing)
    """A second label of the rater for the item: it shows how far the rater agrees with itself, and counts in nothing else."""
    settles: bool = Field(default=False, exclude_if=_nothing)
    """The letter of a third rater for an item to which two gave different ones: it replaces both where the judge is measured."""
    seconds: float | None = Field(default=None, ge=0, exclude_if=_absent)
    """Time that the rater took."""
    words: int | None = Field(default=None, ge=0, exclude_if=_absent)
    """Words that were new to the rater: question, answer, and the chunk unless the item before was about it too."""
    time: str = Field(default="", exclude_if=_nothing)
    """Time of the label, UTC, ISO 8601."""
    inclusion: float | None = Field(default=None, gt=0, le=1, exclude_if=_absent)
    """Probability with which the item was drawn to be labelled; None: not known."""
    chunk_inclusion: float | None = Field(default=None, gt=0, le=1, exclude_if=_absent)
    """Probability with which all items of the chunk were drawn together; None: not known, or items were drawn one by one."""

    def __hash__(self) -> int:
        """Hash what tells labels apart in practice; the facts are a mapping, which has no hash."""
        return hash((self.item_id, self.rater, self.letter, self.assignment, self.time))


LabelPlan: TypeAlias = Literal["plan", "chunks", "uncertain", "stratified", "random", "disagree"]
"""How items to label are chosen.

==============  ==================================================================================================
``plan``        of several candidates whole chunks, by the spread that labels have given the judge's letters; of one
                candidate ``stratified``
``chunks``      whole chunks with equal probabilities
``uncertain``   items of which the judge is unsure, half of the draw uniform
``stratified``  items by candidate and judge's letter, by Neyman's allocation with at least 5 labels of each
``random``      items with equal probabilities
``disagree``    items to which judges or raters gave different letters, half of the draw uniform
==============  ==================================================================================================
"""


class LabelDraw(Record):
    """Items drawn for a rater to label, with the probability of every item or chunk that could have been drawn."""

    kind: Literal["draw"] = "draw"
    draw_id: str
    rater: str = ""
    """Empty for an exported sheet: whoever fills it in."""
    by: LabelPlan
    until_decided: bool = Field(default=False, exclude_if=_nothing)
    n: int = Field(ge=1)
    """Items asked for."""
    seed: int
    rubric: str
    """Name and version."""
    rubric_sha: str = ""
    time: str = ""
    """Time of the draw, UTC, ISO 8601."""
    unit: Literal["chunk", "item"]
    """What was drawn: chunks with all their items, or items."""
    probability: float = Field(gt=0, le=1)
    """Of each unit that `probabilities` does not name."""
    probabilities: Mapping[str, float] = Field(default_factory=dict, exclude_if=_nothing)
    """By id of the chunk or item, in (0, 1]."""
    items: tuple[str, ...]
    """Ids in the order of the questions; an id that occurs again is a repeat."""

    def probability_of(self, unit_id: str) -> float:
        """Return the probability of a chunk or item."""
        return self.probabilities.get(unit_id, self.probability)


class SkippedItem(Record):
    """An item that a rater did not label."""

    kind: Literal["skip"] = "skip"
    assignment: str
    item_id: str
    rater: str
    reason: str = ""
    seconds: float | None = Field(default=None, ge=0, exclude_if=_absent)
    time: str = ""


class UndoneLabel(Record):
    """A label or skip taken back: the question is open again."""

    kind: Literal["undo"] = "undo"
    assignment: str
    rater: str
    time: str = ""


EnergyMethod: TypeAlias = Literal["energy counter", "integrated power"]
"""Measured by the GPU's own energy counter, or by integrating readings of its power."""


class GpuEnergy(Record):
    """Energy of one GPU during a stage."""

    gpu: str
    """Its UUID."""
    name: str = ""
    joules: float = Field(ge=0)
    """Idle consumption included."""


class Energy(Record):
    """Energy of a server's GPUs during a stage, or the reason why it is unknown."""

    method: EnergyMethod | None = None
    """None where the measurement failed; `reason` says why."""
    source: Literal["NVML", "DCGM exporter"]
    seconds: float = Field(default=0.0, ge=0)
    """From the first reading to the last."""
    gpus: tuple[GpuEnergy, ...] = ()
    idle_watts: float | None = Field(default=None, ge=0)
    """Power of all GPUs together with the model loaded and no request; None where unknown."""
    idle: Literal["measured", "registry", ""] = ""
    """Source of `idle_watts`: measured before the stage, or given in the registry."""
    notes: tuple[str, ...] = ()
    """Remarks: gaps, other processes, counters that were reset."""
    reason: str = ""


StageName: TypeAlias = Literal["generate", "grade", "generate repeats", "grade repeats"]
"""Repeats are stages of their own: times and costs of the run's replies and letters do not include them."""


class Session(Record):
    """The work of one process on one stage with one model; a resumed stage has several."""

    stage: StageName
    model: str
    started: str
    """UTC, ISO 8601."""
    seconds: float = Field(ge=0)
    """Wall time of the stage, without finding, starting and probing the server."""
    load_s: float = Field(default=0.0, ge=0)
    """Seconds that the start of the server took; 0 where it was up."""
    n_tasks: int = Field(ge=0)
    """Tasks finished in this session, failures included."""
    qaeval_version: str
    git_commit: str = ""
    """Commit of the working directory, with ``-dirty`` where files differ; empty outside a repository."""
    host: str = ""
    """The server's host; empty for embedded models."""
    external: bool = False
    """Whether the host is outside the user's own network: the chunks left it."""
    alongside: bool = False
    """Whether another stage ran at the same time: that of the judge, or of another candidate."""
    shard: str = Field(default="", exclude_if=_nothing)
    """Of a merged run, the shard, ``0/4``; sessions of other shards may have run at the same time."""
    stored: str = Field(default="", exclude_if=_nothing)
    """Of a merged run, the host of the store outside the user's own network: the chunks left it."""
    prompt_sha: str = Field(default="", exclude_if=_nothing)
    """Hash of the judge's prompt without its rubric; empty for a candidate, and in rows of qaeval 0.1."""
    endpoint: Mapping[str, Any] | None = None
    """Facts of the probe; None for embedded models."""
    energy: Energy | None = Field(default=None, exclude_if=_nothing)
    """None where no meter can read the server's GPUs."""


def hosts_outside(sessions: Iterable[Session]) -> set[str]:
    """Return the hosts outside the user's own network that received chunks."""
    sessions = tuple(sessions)
    servers = {session.host for session in sessions if session.external}
    return servers | {session.stored for session in sessions if session.stored}


class Reading(Record):
    """A server's metrics at one moment of a stage."""

    stage: StageName
    model: str
    session: str
    """Start of the session; counters are compared within one session alone."""
    at_s: float = Field(ge=0)
    """Seconds since the stage began."""
    values: Mapping[str, float]
    """By the server's own names; see `qaeval.serving.metrics`."""
    missing: tuple[str, ...] = ()
    """Names that the server does not have."""


class TimedRequest(Record):
    """One timed request of a sweep; a failed one has start and end alone."""

    concurrency: int = Field(ge=1)
    """Requests in flight at the same time."""
    repeat: int = Field(ge=1)
    sample_id: str
    warm_up: bool = False
    """Whether it only fills the server; its times are not counted."""
    start_s: float = Field(ge=0)
    """When it was sent, seconds since its repeat began."""
    end_s: float = Field(ge=0)
    """When its last byte was read, or it failed, on the same clock."""
    ttft_s: float | None = None
    """From sending to the first chunk of the reply, seconds."""
    e2e_s: float | None = None
    """From sending to the last chunk, seconds."""
    gaps_s: tuple[float, ...] = ()
    """Between two chunks, seconds."""
    usage: Usage | None = None
    finish_reason: str = ""
    n_items: int = Field(default=0, ge=0)
    """Items in the reply: pairs or answers of a candidate, a letter of a judge."""
    reason: FailureReason | None = None
    """Why there is no whole reply; None where there is a reply."""
    detail: str = ""

    @property
    def tpot_s(self) -> float | None:
        """Time per output token, ``(E2E - TTFT) / (n - 1)``; None for a reply of one token."""
        n = 0 if self.usage is None else self.usage.completion_tokens
        if n <= 1 or self.e2e_s is None or self.ttft_s is None:
            return None
        return (self.e2e_s - self.ttft_s) / (n - 1)


RUNNING: Final = "vllm:num_requests_running"
WAITING: Final = "vllm:num_requests_waiting"
KV_CACHE: Final = "vllm:kv_cache_usage_perc"
PREEMPTIONS: Final = "vllm:num_preemptions_total"
PROMPT_TOKENS: Final = "vllm:prompt_tokens_total"
GENERATED_TOKENS: Final = "vllm:generation_tokens_total"
PREFIX_QUERIES: Final = "vllm:prefix_cache_queries_total"
PREFIX_HITS: Final = "vllm:prefix_cache_hits_total"
SUCCESSES: Final = "vllm:request_success_total"
"""Read by reason: ``vllm:request_success_total stop``."""
TTFT: Final = "vllm:time_to_first_token_seconds"
ITL: Final = "vllm:inter_token_latency_seconds"
TPOT: Final = "vllm:request_time_per_output_token_seconds"
"""Of each finished request: decoding time / (output tokens - 1)."""
E2E: Final = "vllm:e2e_request_latency_seconds"
QUEUE: Final = "vllm:request_queue_time_seconds"

HISTOGRAMS: Final = (TTFT, TPOT, ITL, E2E, QUEUE)
"""Read as ``<name>_sum`` and ``<name>_count``, whose ratio of differences is the mean of a span, and, where
there are any, as ``<name>_bucket <le>``: the requests up to that bound."""
COUNTERS: Final = (
    PROMPT_TOKENS,
    GENERATED_TOKENS,
    PREFIX_QUERIES,
    PREFIX_HITS,
    PREEMPTIONS,
    SUCCESSES,
)
GAUGES: Final = (RUNNING, WAITING, KV_CACHE)
LOAD: Final = (RUNNING, WAITING, PREEMPTIONS)
"""What the number of requests in flight follows."""


def counter_growth(before: float, after: float) -> float:
    """Return by how much a counter of a server grew between two readings; one that fell was started again at 0, as in Prometheus."""
    return after - before if after >= before else after
