"""Where evidence comes from: run directories, baseline files, and pointers to runs that are kept elsewhere.

A baseline file holds evidence packed as text, small enough for git: a word of letters for each sample, ids between commas, positions
of the items with a flag. Only this module knows that form; everything else works on the arrays of `qaeval.gate.evidence`.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import Field

from qaeval import __version__
from qaeval.comparison.analysis import RunData, require_graded
from qaeval.comparison.run_data import labels_of_run, read_run
from qaeval.errors import DataError
from qaeval.files.rows import explained
from qaeval.files.whole import write_file
from qaeval.files.yaml import read_text, validated
from qaeval.gate.evidence import (
    ABSENT,
    FAILED,
    UNGRADED,
    CandidateEvidence,
    Codes,
    Evidence,
    Integers,
    Mask,
    RaterLabels,
    ResourceUse,
    Strings,
    evidence_of,
    identity_of,
)
from qaeval.gate.model import RunIdentity
from qaeval.records import Failure, Generation, digest
from qaeval.registry.config import Config
from qaeval.registry.find import find_machines
from qaeval.report.facts import Part, is_unset
from qaeval.run.grade import task_id
from qaeval.storage.location import Location, find_location, is_store
from qaeval.storage.run_directory import (
    CONTROLS,
    GENERATIONS,
    GRADES,
    MANIFEST,
    METRICS,
    SAMPLES,
    SESSIONS,
    SETTINGS,
    RunStore,
)

FOLDER: Final = Path("baselines")
"""Default folder of baselines."""

_UNGRADED_MARK: Final = "-"
_FAILED_MARK: Final = "x"
_ABSENT_MARK: Final = "."
"""Letters of a scale are capitals, so neither mark is one."""
_MULTILINE: Final = ("evidence", "side", "identity", "candidates", "spent", "labels")
"""Parts with a line for each key, so that a diff in git shows which column changed."""


class _PackedResources(Part):
    """`ResourceUse` in a baseline file."""

    has_server: bool
    work_s: float | None = None
    fresh: float = 1.0
    price: float | None = None
    currency: str = ""
    priced: str = ""
    latency_s: tuple[float | None, ...] = ()
    ttft: Mapping[str, float] = {}


class _PackedCandidate(Part):
    """`CandidateEvidence` in a baseline file."""

    name: str
    model: str = ""
    prompt: str = Field(default="", exclude_if=is_unset)
    prompt_digest: str = Field(default="", exclude_if=is_unset)
    letters: str
    """A word for each sample: the letter of each item, ``-`` without one, ``x`` where the item failed, ``.`` where none is counted."""
    items: str
    """Ids of the items with commas between, a word for each sample; ``-`` where there is none."""
    flags: Mapping[str, tuple[int, ...]]
    """By flag: positions of the items that have it, counted through all samples from 0; `found` and `not_looked` by check."""
    found: Mapping[str, tuple[int, ...]] = {}
    not_looked: Mapping[str, tuple[int, ...]] = {}
    spent: _PackedResources


class _PackedLabels(Part):
    """`RaterLabels` in a baseline file, letters as one word each."""

    rater: str
    kind: str
    reference: str
    judged: str
    clusters: tuple[int, ...]
    letters: str = Field(default="", exclude_if=is_unset)
    """A word for each labelled item, ``ID:LETTER``; in baselines of earlier versions there is none."""
    inclusion: tuple[float, ...] = Field(default=(), exclude_if=is_unset)
    """Probability with which each item of `letters` was drawn; empty where it is not known."""
    is_by_chunk: bool = Field(default=False, exclude_if=is_unset)
    """Whether `inclusion` is that of whole chunks."""


class _PackedEvidence(Part):
    """`Evidence` in a baseline file."""

    side: RunIdentity
    scale: tuple[str, ...]
    flags: tuple[str, ...]
    checks: tuple[str, ...] = ()
    items_per_sample: int
    samples: str
    """Ids, separated by spaces."""
    chunks: tuple[str, ...]
    strata: tuple[str, ...]
    weights: tuple[float, ...] = Field(default=(), exclude_if=is_unset)
    """Weight of each sample; empty where all weigh the same."""
    candidates: tuple[_PackedCandidate, ...]
    labels: tuple[_PackedLabels, ...] = ()
    labels_digest: str = ""


class _BaselineFile(Part):
    """A baseline by its letters and ids; `sha256` is the hash of the evidence."""

    format: Literal[1] = 1
    kind: Literal["baseline"] = "baseline"
    sha256: str
    evidence: _PackedEvidence


class Pointer(Part):
    """A baseline that is a run kept elsewhere; `sha256` is the hash of the letters that it must hold."""

    format: Literal[1] = 1
    kind: Literal["pointer"] = "pointer"
    run: str
    """Run directory, from the working directory, or ``s3://BUCKET/PREFIX``."""
    sha256: str


@dataclass(frozen=True)
class ListedBaseline:
    """A baseline of a folder, or why it cannot be read."""

    path: Path
    content: Evidence | Pointer | None
    problem: str = ""


def write_baseline(evidence: Evidence, path: Path) -> int:
    """Write a baseline, whole or not at all; return its size in bytes.

    Raises:
        StoreError: The file cannot be written.
    """
    document = _BaselineFile(sha256=evidence_digest(evidence), evidence=_packed(evidence))
    return _write(path, document.model_dump(mode="json"))


def write_pointer(run: str, evidence: Evidence, path: Path) -> int:
    """Write a pointer to a run; return its size in bytes; errors as in `write_baseline`."""
    return _write(path, Pointer(run=run, sha256=letters_digest(evidence)).model_dump(mode="json"))


def read_baseline(path: Path) -> Evidence | Pointer:
    """Read a baseline or a pointer.

    Raises:
        DataError: The file is neither, or was changed after it was written.
    """
    return parse_baseline(read_text(path), path)


def parse_baseline(text: str | bytes, source: Path | str) -> Evidence | Pointer:
    """Read a baseline or a pointer from its text; errors as in `read_baseline`."""
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DataError(f"{source}: not a baseline: not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("kind") not in {"baseline", "pointer"}:
        raise DataError(f"{source}: not a baseline; `qaeval baseline set RUN` writes one")
    if data["kind"] == "pointer":
        return validated(Pointer, data, source)
    document = validated(_BaselineFile, data, source)
    if digest(data["evidence"]) != document.sha256:
        raise DataError(
            f"{source}: its content does not match its hash; it was changed after it was written, so set it again from its run"
        )
    try:
        return _unpacked(document.evidence)
    except ValueError as error:
        raise DataError(f"{source}: {error}") from error


def list_baselines(folder: Path) -> list[ListedBaseline]:
    """Read all baselines of a folder, by name; one that cannot be read is listed with its problem."""
    listed = []
    for path in sorted(folder.glob("*.json")):
        try:
            listed.append(ListedBaseline(path, read_baseline(path)))
        except DataError as error:
            listed.append(ListedBaseline(path, None, str(error)))
    return listed


def evidence_json(evidence: Evidence) -> str:
    """Return evidence as JSON, packed as in a baseline file."""
    return _packed(evidence).model_dump_json()


def evidence_digest(evidence: Evidence) -> str:
    """Return the hash of all content, 64 hex digits."""
    return digest(_packed(evidence).model_dump(mode="json"))


def letters_digest(evidence: Evidence) -> str:
    """Return the hash of the identity and of every letter, flag and finding; times, prices and labels do not count."""
    packed = _packed(evidence)
    counted = {"letters", "items", "flags", "found", "not_looked"}
    rows = {
        candidate.name: candidate.model_dump(mode="json", include=counted) for candidate in packed.candidates
    }
    # what earlier versions did not record is not in the hashes of their pointers
    later = {"task_digest", "judge_prompt", "judge_server", "judged_digest"}
    identity = packed.side.identity.model_dump(mode="json", exclude=later)
    return digest([identity, packed.samples, rows])


# -------------------------------------------------------------------- arrays to text


def _packed(evidence: Evidence) -> _PackedEvidence:
    if not evidence.is_graded:
        raise ValueError(f"{evidence.source.name}: a run whose grading goes on has no file")
    return _PackedEvidence(
        side=evidence.source,
        scale=evidence.scale,
        flags=evidence.flags,
        checks=evidence.checks,
        items_per_sample=evidence.items_per_sample,
        samples=" ".join(evidence.sample_ids),
        chunks=tuple(evidence.chunks.tolist()),
        strata=tuple(evidence.strata.tolist()),
        weights=() if evidence.weights is None else tuple(evidence.weights.tolist()),
        candidates=tuple(_packed_candidate(candidate, evidence.scale) for candidate in evidence.candidates),
        labels=tuple(
            _PackedLabels(
                rater=labels.rater,
                kind=labels.kind,
                reference="".join(evidence.scale[code] for code in labels.reference),
                judged="".join(evidence.scale[code] for code in labels.judged),
                clusters=tuple(labels.clusters.tolist()),
                letters=" ".join(
                    f"{item_id}:{evidence.scale[code]}" for item_id, code in labels.letters.items()
                ),
                inclusion=tuple(labels.inclusion[item_id] for item_id in labels.letters)
                if labels.inclusion
                else (),
                is_by_chunk=labels.is_by_chunk,
            )
            for labels in evidence.labels
        ),
        labels_digest=evidence.labels_digest,
    )


def _packed_candidate(candidate: CandidateEvidence, scale: Sequence[str]) -> _PackedCandidate:
    marks = {**dict(enumerate(scale)), UNGRADED: _UNGRADED_MARK, FAILED: _FAILED_MARK, ABSENT: _ABSENT_MARK}
    use = candidate.resources
    return _PackedCandidate(
        name=candidate.name,
        model=candidate.model,
        prompt=candidate.prompt,
        prompt_digest=candidate.prompt_digest,
        letters=" ".join("".join(marks[code] for code in row) for row in candidate.letters.tolist()),
        items=" ".join(
            ",".join(item_id or _UNGRADED_MARK for item_id in row) for row in candidate.item_ids.tolist()
        ),
        flags=_positions(candidate.flags),
        found=_positions(candidate.findings),
        not_looked=_positions(candidate.unchecked),
        spent=_PackedResources(
            has_server=use.has_server,
            work_s=use.work_s,
            fresh=use.fresh,
            price=use.price,
            currency=use.currency,
            priced=use.price_basis,
            latency_s=tuple(None if np.isnan(seconds) else seconds for seconds in use.latency_s.tolist())
            if use.is_timed.any()
            else (),
            ttft={f"{bound:g}": count for bound, count in use.ttft.items()},
        ),
    )


def _positions(masks: Mapping[str, Mask]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(np.flatnonzero(mask).tolist()) for name, mask in masks.items()}


# -------------------------------------------------------------------- text to arrays


def _unpacked(packed: _PackedEvidence) -> Evidence:
    """Return the arrays of packed evidence.

    Raises:
        ValueError: Columns do not fit together, or a letter is off the scale.
    """
    sample_ids, size = packed.samples.split(), packed.items_per_sample
    return Evidence(
        source=packed.side,
        scale=packed.scale,
        flags=packed.flags,
        checks=packed.checks,
        items_per_sample=size,
        sample_ids=np.array(sample_ids, dtype=np.str_),
        chunks=np.array(packed.chunks, dtype=np.str_),
        strata=np.array(packed.strata, dtype=np.str_),
        weights=np.array(packed.weights) if packed.weights else None,
        candidates=tuple(
            _unpacked_candidate(candidate, packed.scale, (len(sample_ids), size))
            for candidate in packed.candidates
        ),
        labels=tuple(
            RaterLabels(
                rater=labels.rater,
                kind=labels.kind,
                reference=_scale_codes(labels.reference, packed.scale),
                judged=_scale_codes(labels.judged, packed.scale),
                clusters=np.array(labels.clusters, dtype=np.intp),
                letters=(letters := _letters_by_item(labels.letters, packed.scale)),
                inclusion=dict(zip(letters, labels.inclusion, strict=True)) if labels.inclusion else {},
                is_by_chunk=labels.is_by_chunk,
            )
            for labels in packed.labels
        ),
        labels_digest=packed.labels_digest,
    )


def _unpacked_candidate(
    packed: _PackedCandidate, scale: Sequence[str], shape: tuple[int, int]
) -> CandidateEvidence:
    n_samples, size = shape
    words, ids = packed.letters.split(), [word.split(",") for word in packed.items.split()]
    if not len(words) == len(ids) == n_samples or {len(row) for row in (*words, *ids)} - {size}:
        raise ValueError(
            f"{packed.name}: expected a word of {size} letters and as many ids for each of {n_samples} samples"
        )
    item_ids: Strings = np.array(ids, dtype=np.str_).reshape(shape)
    item_ids[item_ids == _UNGRADED_MARK] = ""
    use = packed.spent
    seconds = use.latency_s or [None] * n_samples
    return CandidateEvidence(
        name=packed.name,
        model=packed.model,
        prompt=packed.prompt,
        prompt_digest=packed.prompt_digest,
        letters=_letter_codes("".join(words), scale).reshape(shape),
        item_ids=item_ids,
        flags=_masks(packed.flags, shape),
        findings=_masks(packed.found, shape),
        unchecked=_masks(packed.not_looked, shape),
        resources=ResourceUse(
            has_server=use.has_server,
            work_s=use.work_s,
            fresh=use.fresh,
            price=use.price,
            currency=use.currency,
            price_basis=use.priced,
            latency_s=np.array(seconds, dtype=np.float64),  # None becomes NaN
            ttft={float(bound): count for bound, count in use.ttft.items()},
        ),
    )


def _letter_codes(marks: str, scale: Sequence[str]) -> Codes:
    codes = {
        **{letter: code for code, letter in enumerate(scale)},
        _UNGRADED_MARK: UNGRADED,
        _FAILED_MARK: FAILED,
        _ABSENT_MARK: ABSENT,
    }
    if foreign := sorted(set(marks) - codes.keys()):
        raise ValueError(f"letters off the scale {'/'.join(scale)}: {', '.join(map(repr, foreign))}")
    return np.array([codes[mark] for mark in marks], dtype=np.int8)


def _letters_by_item(words: str, scale: Sequence[str]) -> dict[str, int]:
    pairs = (word.rpartition(":") for word in words.split())
    return {item_id: scale.index(letter) for item_id, _, letter in pairs}


def _scale_codes(letters: str, scale: Sequence[str]) -> Integers:
    return np.array([scale.index(letter) for letter in letters], dtype=np.intp)


def _masks(positions: Mapping[str, Sequence[int]], shape: tuple[int, int]) -> dict[str, Mask]:
    masks = {}
    for name, hits in positions.items():
        mask: NDArray[np.bool_] = np.zeros(shape, dtype=np.bool_)
        if hits and not 0 <= min(hits) <= max(hits) < mask.size:
            raise ValueError(f"{name}: expected positions below {mask.size:,}, got {max(hits):,}")
        mask.flat[list(hits)] = True
        masks[name] = mask
    return masks


# -------------------------------------------------------------------- files


def _write(path: Path, document: Mapping[str, Any]) -> int:
    content = (_json_text(document) + "\n").encode()
    write_file(path, content)
    return len(content)


def _json_text(value: Any, name: str = "evidence", depth: int = 0) -> str:  # noqa: ANN401 - JSON
    """Write JSON with a line for each column: no line for each letter, and not all on one line."""
    inner, outer = " " * (depth + 1), " " * depth
    if isinstance(value, Mapping) and name in _MULTILINE:
        lines = [
            f"{inner}{json.dumps(key)}: {_json_text(part, key, depth + 1)}" for key, part in value.items()
        ]
        return "{\n" + ",\n".join(lines) + f"\n{outer}}}"
    if isinstance(value, list) and name in _MULTILINE and value:
        lines = [f"{inner}{_json_text(part, name, depth + 1)}" for part in value]
        return "[\n" + ",\n".join(lines) + f"\n{outer}]"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


_NEEDED: Final = (SETTINGS, SAMPLES, GENERATIONS, GRADES, SESSIONS)


@dataclass(frozen=True, kw_only=True)
class EvidenceReader:
    """Reads evidence from runs and baselines."""

    config: Config
    """The registry: prices of machines, hosts that data may come from."""
    labels: Sequence[Path] = ()
    """Label files; default: the eval's."""
    hardware: str | None = None
    """Machine of models whose entry names none."""

    def run(self, path: Path) -> Evidence:
        """Read a graded run.

        Raises:
            DataError: There is no run of candidates, it is not graded to its end, it changed after its report was written, or no item of it was
                graded.
        """
        with RunStore.open(path) as store:
            store.require_run()
            store.require_unchanged()
            return self.of_store(store, name=path.name)

    def of_store(self, store: RunStore, *, name: str, grading: Mapping[str, Any] | None = None) -> Evidence:
        """Read an open run; errors as in `run`.

        Args:
            store: The run.
            name: Name of the run in reports.
            grading: Judge and rubric of a run whose grading goes on: items without a row are `PENDING`.
        """
        settings = store.settings()
        labels = tuple(self.labels) or labels_of_run(store.path, settings)
        data = read_run(store, label_paths=labels, grading=grading)
        placeholders: list[Failure] = []
        if grading is not None:
            settings = {**settings, "grading": grading}
            placeholders = _placeholders(data)
            data = replace(data, rows=replace(data.rows, grades=[*data.rows.grades, *placeholders]))
        first = min(store.sessions(), key=lambda session: session.started, default=None)
        source = RunIdentity(
            name=name,
            created="" if first is None else first.started,
            identity=identity_of(data, settings),
            qaeval_version=__version__ if first is None else first.qaeval_version,
            git_commit="" if first is None else first.git_commit,
        )
        evidence = evidence_of(
            data,
            source,
            machines=find_machines(self.config, [settings], self.hardware),
            pending={row.item_id for row in placeholders if row.item_id is not None},
        )
        if grading is None and not any(candidate.graded.any() for candidate in evidence.candidates):
            require_graded(data.table(), store.path)
        return evidence

    def baseline(self, address: str) -> Evidence:
        """Read a baseline: a run directory, a file, a pointer, or either of them in a store.

        Raises:
            DataError: The path is none of these, the file was changed, or a pointer's run changed.
        """
        if is_store(address):
            content = (
                self._read_stored_file(address)
                if address.endswith(".json")
                else self._read_stored_run(address)
            )
        elif Path(address).is_dir():
            content = self.run(Path(address))
        else:
            content = read_baseline(Path(address))
        return self._follow(content, address) if isinstance(content, Pointer) else content

    def _follow(self, pointer: Pointer, address: str) -> Evidence:
        evidence = (
            self._read_stored_run(pointer.run) if is_store(pointer.run) else self.run(Path(pointer.run))
        )
        if letters_digest(evidence) != pointer.sha256:
            raise DataError(
                f"{address}: the run {pointer.run} is not what it was when the pointer was written: its letters changed. Set the "
                f"baseline again if that is intended"
            )
        return evidence

    def _location(self, address: str) -> Location:
        return find_location(address, allow_external=self.config.allow_external)

    def _read_stored_file(self, address: str) -> Evidence | Pointer:
        folder, _, name = address.rpartition("/")
        return parse_baseline(b"".join(self._location(folder).blocks(name)), address)

    def _read_stored_run(self, address: str) -> Evidence:
        """Read a run in a store from a temporary copy."""
        location = self._location(address)
        files = set(location.names(""))
        if SETTINGS not in files:
            raise DataError(f"{address}: no run here (no {SETTINGS})")
        with tempfile.TemporaryDirectory() as folder:
            needed = (*_NEEDED, *({CONTROLS, METRICS, MANIFEST} & files))
            for name in needed:
                copy = Path(folder, name)
                with explained(copy, "writing"), copy.open("wb") as file:
                    file.writelines(location.blocks(name))
            with RunStore.open(Path(folder)) as store:
                store.require_unchanged(source=address, files=needed)
                return self.of_store(store, name=address.rstrip("/").rpartition("/")[2])


def _placeholders(data: RunData) -> list[Failure]:
    """Return a row for every item without one: the join of a run's rows demands a row for each item."""
    known = {row.item_id for row in data.rows.grades}
    pending = {
        item.item_id: reply.sample_id
        for reply in data.rows.generations
        if isinstance(reply, Generation)
        for item in reply.items
        if item.item_id not in known
    }
    return [
        Failure(
            task_id=task_id(data.judge.name, item_id),
            stage="grade",
            model=data.judge.name,
            sample_id=sample_id,
            item_id=item_id,
            reason="interrupted",
            detail="not graded yet",
        )
        for item_id, sample_id in pending.items()
    ]
