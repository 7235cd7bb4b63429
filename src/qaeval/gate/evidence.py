"""What a gate decides from: letters, flags and failures of each item, times and cost of each candidate, labels. No texts.

A run and a baseline file give the same document, so that the same inputs give the same verdict whichever form they have.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from pydantic import model_validator

from qaeval.agreement.analysis import by_rater, fits
from qaeval.analysis.letters import FAILED, GRADED, flag_column
from qaeval.analysis.replies import ReplyTally
from qaeval.analysis.server_metrics import histogram
from qaeval.comparison.analysis import RunData
from qaeval.errors import DataError
from qaeval.gate.model import Identity, Side
from qaeval.records import TTFT, Generation, Reading, author, digest
from qaeval.report.facts import MachineFacts, Part

UNGRADED_MARK: Final = "-"
FAILED_MARK: Final = "x"

_DIGITS: Final = 4
"""Of a latency; more would be noise, and a baseline file is small."""

_ABOUT: Final = frozenset(
    {"licence", "openness", "released", "family", "parameters", "quantisation", "tuned_on"}
)
"""What settings say about a judge that its letters do not depend on."""


class Spent(Part):
    """What a candidate's replies took; None where it is not known."""

    has_server: bool
    """Whether it is served: the times of models inside qaeval are those of this process."""
    work_s: float | None = None
    """Wall seconds of the stage."""
    fresh: float = 1.0
    """Share of the replies that were asked for; the others were known from earlier runs, and no time is theirs."""
    price: float | None = None
    """Of the work, without the start of the server, in `currency`."""
    currency: str = ""
    priced: str = ""
    """The price with its day and machine."""
    latency_s: tuple[float | None, ...] = ()
    """Of the reply to each sample; None where none was asked for."""
    ttft: Mapping[str, float] = {}
    """Requests with a first token in at most so many seconds, by the server's own histogram."""


class Candidate(Part):
    """What a candidate delivered, item by item, in the order of the samples."""

    name: str
    model: str = ""
    """Repository and revision, for the reader."""
    letters: str
    """A word for each sample: the letter of each item, ``-`` without one, ``x`` where there is no item."""
    items: str
    """Ids of the items with commas between, a word for each sample; ``-`` where there is none."""
    flags: Mapping[str, tuple[int, ...]]
    """By flag: places of the items that have it, counted through all samples from 0."""
    found: Mapping[str, tuple[int, ...]] = {}
    """By check: places of the items in which it found something."""
    not_looked: Mapping[str, tuple[int, ...]] = {}
    """By check: places of delivered items that it did not look at, because of their type."""
    spent: Spent


class Labelled(Part):
    """Items that a rater labelled, with the judge's letters."""

    rater: str
    kind: str
    """``human``, ``model`` or ``mixed``."""
    reference: str
    """The rater's letters."""
    judged: str
    """The judge's letters on the same items."""
    clusters: tuple[int, ...]
    """What makes items dependent: equal numbers are one chunk."""


class Evidence(Part):
    """All that the rules of a gate look at."""

    side: Side
    scale: tuple[str, ...]
    """Letters, best first."""
    flags: tuple[str, ...]
    checks: tuple[str, ...] = ()
    items_per_sample: int
    samples: str
    """Ids, separated by spaces."""
    chunks: tuple[str, ...]
    """Of each sample: what makes items dependent."""
    strata: tuple[str, ...]
    """Of each sample."""
    candidates: tuple[Candidate, ...]
    labels: tuple[Labelled, ...] = ()
    labels_digest: str = ""
    """Hash of the labels that the judge was compared with; empty without any."""

    @model_validator(mode="after")
    def _of_one_length(self) -> "Evidence":
        n = len(self.samples.split())
        if not n == len(self.chunks) == len(self.strata):
            raise ValueError(
                f"expected a chunk and a stratum for each of {n} samples, got {len(self.chunks)} and {len(self.strata)}"
            )
        for one in self.candidates:
            words, ids = one.letters.split(), one.items.split()
            if len(words) != n or len(ids) != n or {len(word) for word in words} - {self.items_per_sample}:
                raise ValueError(
                    f"{one.name}: expected a word of {self.items_per_sample} letters and as many ids for each of {n} samples"
                )
        return self

    @property
    def digest(self) -> str:
        """Hash of the content, 64 hex digits."""
        return digest(self.model_dump(mode="json"))

    @property
    def letters_digest(self) -> str:
        """Hash of what was asked and of every letter, flag and finding; times, prices and labels do not count."""
        counted = {"letters", "items", "flags", "found", "not_looked"}
        rows = {one.name: one.model_dump(mode="json", include=counted) for one in self.candidates}
        return digest([self.side.identity.model_dump(mode="json"), self.samples, rows])

    def has_samples_of(self, other: "Evidence") -> bool:
        """Whether both are about the same samples, so that they can be paired."""
        return self.side.identity.samples_digest == other.side.identity.samples_digest

    def candidate(self, name: str) -> Candidate | None:
        """Find a candidate by its name."""
        return next((one for one in self.candidates if one.name == name), None)


def evidence_of(data: RunData, side: Side, *, machines: Mapping[str, MachineFacts]) -> Evidence:
    """Take from a graded run what a gate needs.

    Args:
        data: The run.
        side: Who it is.
        machines: What each model runs on, by its name; without them there is no cost.

    Raises:
        DataError: rows are missing, doubled or foreign, or there is no candidate.
    """
    names = [facts.name for facts in data.candidates]
    if not names:
        raise DataError(f"{side.name}: the run has no candidate, so there is nothing to gate")
    tally = ReplyTally()
    table = data.table(tally)
    latencies = _latencies(data)
    samples = table[table["candidate"] == names[0]].drop_duplicates("sample_id")
    order = {sample_id: place for place, sample_id in enumerate(samples["sample_id"])}
    labels = _labelled(data, table)
    return Evidence(
        side=side,
        scale=data.rubric.letters,
        flags=data.rubric.flag_names,
        checks=tuple(check.name for check in data.eval_facts.checks),
        items_per_sample=data.eval_facts.items_per_sample,
        samples=" ".join(order),
        chunks=tuple(samples["cluster"]),
        strata=tuple(samples["stratum"]),
        candidates=tuple(
            Candidate(
                name=facts.name,
                model=f"{facts.hf_id} {facts.revision[:12]}".strip(),
                **_items(table[table["candidate"] == facts.name], data),
                spent=_spent(
                    data, facts.name, tally, machines, [latencies.get((facts.name, one)) for one in order]
                ),
            )
            for facts in data.candidates
        ),
        labels=labels,
        labels_digest=_labels_digest(data) if labels else "",
    )


def identity_of(data: RunData, settings: Mapping[str, Any]) -> Identity:
    """Say what a run must have in common with another one to be compared."""
    judge = settings["grading"]["judge"]
    return Identity(
        eval=data.eval_facts.name,
        eval_digest=data.eval_facts.sha,
        rubric=data.rubric.label_name,
        rubric_digest=data.rubric.sha,
        judge=data.judge.name,
        judge_digest=digest(_replies_depend_on(judge)),
        samples_digest=data.eval_facts.sample_set_digest,
        n_samples=data.eval_facts.n_samples,
    )


def _replies_depend_on(judge: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what a judge's letters do not depend on, and what is not set: a later version may know more settings."""
    return {
        key: value for key, value in judge.items() if key not in _ABOUT and value not in (None, "", [], {})
    }


def _items(own: pd.DataFrame, data: RunData) -> dict[str, object]:
    """Write a candidate's rows, which come sample by sample, as words and places."""
    size = data.eval_facts.items_per_sample
    marks = (
        own["letter"].mask(own["status"] != GRADED, UNGRADED_MARK).mask(own["status"] == FAILED, FAILED_MARK)
    )
    delivered = (own["status"] != FAILED).to_numpy()
    types, findings = own["type"].to_numpy(), own["findings"].to_numpy()
    found = {
        check.name: _places(isinstance(one, Mapping) and check.name in one for one in findings)
        for check in data.eval_facts.checks
    }
    not_looked = {
        check.name: _places(
            has and kind not in check.types for has, kind in zip(delivered, types, strict=True)
        )
        for check in data.eval_facts.checks
        if check.types
    }
    return {
        "letters": " ".join(_words(list(marks), size, "")),
        "items": " ".join(_words([one or UNGRADED_MARK for one in own["item_id"]], size, ",")),
        "flags": {name: _places(own[flag_column(name)]) for name in data.rubric.flag_names},
        "found": found,
        "not_looked": not_looked,
    }


def _words(marks: Sequence[str], size: int, between: str) -> list[str]:
    return [between.join(marks[start : start + size]) for start in range(0, len(marks), size)]


def _places(hits: Iterable[object]) -> tuple[int, ...]:
    return tuple(place for place, hit in enumerate(hits) if hit)


def _latencies(data: RunData) -> dict[tuple[str, str], float]:
    """Read how long each reply took that was asked for in this run, the failed ones too."""
    return {
        (author(row), row.sample_id): float(f"{row.latency_s:.{_DIGITS}g}")
        for row in data.rows.generations
        if row.latency_s > 0 and not (isinstance(row, Generation) and row.cached)
    }


def _spent(
    data: RunData,
    name: str,
    tally: ReplyTally,
    machines: Mapping[str, MachineFacts],
    latency_s: Sequence[float | None],
) -> Spent:
    (facts,) = (one for one in data.candidates if one.name == name)
    if facts.is_embedded:
        return Spent(has_server=False)
    sessions = [one for one in data.rows.sessions if (one.stage, one.model) == ("generate", name)]
    timing = tally.of("generate", name).timing(sessions, n_items=0)
    machine = machines.get(name)
    hourly = None if machine is None else machine.price_per_hour
    return Spent(
        has_server=True,
        work_s=timing.wall_s,
        fresh=timing.fresh,
        price=None if hourly is None or timing.wall_s is None else timing.wall_s / 3600 * hourly,
        currency="" if hourly is None or machine is None else machine.currency,
        priced="" if hourly is None or machine is None else machine.priced,
        latency_s=tuple(latency_s) if any(one is not None for one in latency_s) else (),
        ttft=_ttft(data.rows.readings, name),
    )


def _ttft(readings: Iterable[Reading], name: str) -> dict[str, float]:
    found = histogram(readings, "generate", name, TTFT)
    return {f"{bound:g}": count for bound, count in found.items()}


def _labelled(data: RunData, table: pd.DataFrame) -> tuple[Labelled, ...]:
    """Join labels and letters; those that a tuned judge has seen, or that belong to another rubric, are left out."""
    graded = table[table["status"] == GRADED].drop_duplicates("item_id").set_index("item_id")
    codes = {cluster: place for place, cluster in enumerate(dict.fromkeys(table["cluster"]))}
    made = []
    for rater, labels in by_rater(data.rows.labels, data.rubric).items():
        own = sorted(
            (one.item_id, one.letter)
            for one in labels
            if one.item_id in graded.index
            and fits(one, data.rubric)
            and not (data.judge_tuned and one.split == "tuning")
        )
        if not own:
            continue
        rows = graded.loc[[item_id for item_id, _ in own]]
        kinds = {one.rater_kind for one in labels}
        made.append(
            Labelled(
                rater=rater,
                kind=kinds.pop() if len(kinds) == 1 else "mixed",
                reference="".join(letter for _, letter in own),
                judged="".join(rows["letter"]),
                clusters=tuple(np.array([codes[one] for one in rows["cluster"]]).tolist()),
            )
        )
    return tuple(made)


def _labels_digest(data: RunData) -> str:
    return digest(sorted((one.rater, one.item_id, one.letter, *one.flags) for one in data.rows.labels))
