"""Anchors: stored items that the judge grades again at each gate, to tell a judge that moved from a model that moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from qaeval.environment import now
from qaeval.errors import DataError
from qaeval.files.whole import write_file
from qaeval.gate.certify import write_items
from qaeval.gate.evidence import Evidence
from qaeval.gate.model import DriftReport, NetChange
from qaeval.gate.regrade import MakeRunner, judging_by
from qaeval.records import Generation, Grade, Item, Record, Sample, record_id
from qaeval.registry.config import Config
from qaeval.report.measure import Measure
from qaeval.report.numbers import difference, listed, percent, plural
from qaeval.run.consent import Consent, judging_with_consent
from qaeval.run.plan import Judging
from qaeval.stats.drift import drift_evidence, look_alpha, mean_bounds
from qaeval.storage.run_directory import RunStore

_ALPHA: Final = 0.05
"""Error rate of *judge moved* over all looks, and of *model moved* at each gate."""
_UNGRADED: Final = "-"
_MIN_GRADED: Final = 0.9
"""Share of the anchors that need a letter for a look to count."""


class Anchor(Record):
    """An item that the judge grades again, with its letters when it was stored."""

    sample: Sample
    item: Item
    letters: tuple[str, ...]
    """Of the certificate, and of a second look at once: it shows the judge's own noise."""


class AnchorLook(Record):
    """The letters of all anchors at one gate."""

    time: str
    """UTC, ISO 8601."""
    run: str
    anchors_sha256: str
    letters: str
    """A letter for each anchor, in their order; ``-`` without one."""


@dataclass(frozen=True)
class AnchorFiles:
    """Where the anchors of a certificate are: beside it."""

    certificate: Path

    @property
    def anchors(self) -> Path:
        """File of the anchors."""
        return self.certificate.with_suffix(".anchors.jsonl")

    @property
    def looks(self) -> Path:
        """File of the letters at each gate."""
        return self.certificate.with_suffix(".looks.jsonl")


def draw_anchors(
    items: Mapping[str, tuple[Sample, Item]], letters: Mapping[str, str], n: int
) -> list[tuple[Sample, Item]]:
    """Draw anchors from graded items: one of each chunk, then a second one of each, in the order of a hash.

    Args:
        items: Sample and item by item id.
        letters: Letter of each item that the judge graded.
        n: Anchors, at most.
    """
    by_chunk: dict[str, int] = {}
    ranked = []
    for item_id in sorted(letters.keys() & items.keys(), key=lambda item_id: record_id("anchor", item_id)):
        chunk = items[item_id][0].chunk.chunk_id
        by_chunk[chunk] = by_chunk.get(chunk, 0) + 1
        ranked.append((by_chunk[chunk], item_id))
    # the sort is stable: within a round the order is that of the hash
    return [items[item_id] for _, item_id in sorted(ranked, key=lambda pair: pair[0])[:n]]


def regraded_letters(
    items: Sequence[tuple[Sample, Item]],
    judging: Judging,
    definition: Mapping[str, Any],
    make_runner: MakeRunner,
) -> dict[str, str]:
    """Have the judge grade items in a temporary run; return its letters by item id.

    Args:
        items: Sample and item.
        judging: Judge and rubric.
        definition: Settings of the eval, with its digest.
        make_runner: Makes the engine, which must not take replies from a cache.

    Raises:
        EndpointError: The judge's server cannot be used.
        Interrupted: The user stopped.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, "anchors")
        write_items(path, items, definition)
        with RunStore.open(path, writable=True) as store:
            with make_runner(store) as runner:
                runner.check(judging.judge)
                runner.grade(judging)
            return {row.item_id: row.letter for row in store.grades() if isinstance(row, Grade)}


def store_anchors(
    files: AnchorFiles,
    run: Path,
    judge: str,
    n: int,
    config: Config,
    make_runner: MakeRunner,
    *,
    consent: Consent = (),
) -> str:
    """Draw anchors from the items of a run, have the judge grade them once more, and write them beside the certificate.

    Looks at earlier anchors are forgotten.

    Args:
        files: Of the certificate.
        run: Run directory that the judge graded.
        judge: Its name.
        n: Anchors, at most.
        config: The registry.
        make_runner: As for `regraded_letters`.
        consent: Hosts of hosted judges that may be sent the anchors.

    Returns:
        The hash of the file.

    Raises:
        UsageError: The judge is hosted, and there is no consent.
        NotComparableError: The registry's judge is not the one that graded the run.
        DataError: The judge gave no anchor a letter.
        EndpointError, Interrupted: As for `regraded_letters`.
        StoreError: The anchors cannot be written.
    """
    with RunStore.open(run) as store:
        settings = store.settings()
        judging = judging_by(store, config, judge)
        rows = store.grades_of(judge) if judge in store.further_judges() else store.grades()
        letters = {row.item_id: row.letter for row in rows if isinstance(row, Grade)}
        samples = {sample.sample_id: sample for sample in store.samples()}
        items = {
            item.item_id: (samples[row.sample_id], item)
            for row in store.generations()
            if isinstance(row, Generation)
            for item in row.items
        }
    drawn = draw_anchors(items, letters, n)
    judging = judging_with_consent(
        judging, consent, lambda: [len(sample.chunk.text) for sample, _ in drawn], prices=config.hosted_prices
    )
    again = regraded_letters(drawn, judging, settings["eval"], make_runner)
    if not again:
        raise DataError(
            f"{run}: {judge} gave none of {plural(len(drawn), 'anchor')} a letter; ask again when its server answers"
        )
    anchors = [
        Anchor(sample=sample, item=item, letters=(letters[item.item_id], again[item.item_id]))
        for sample, item in drawn
        if item.item_id in again
    ]
    content = "".join(anchor.model_dump_json(exclude_none=True) + "\n" for anchor in anchors).encode()
    write_file(files.anchors, content)
    files.looks.unlink(missing_ok=True)
    return sha256(content).hexdigest()


def read_anchors(files: AnchorFiles, expected: str) -> tuple[list[Anchor], list[AnchorLook]]:
    """Read anchors and the looks at them.

    Args:
        files: Of the certificate.
        expected: Hash of the anchors in the certificate; empty where it has none.

    Raises:
        DataError: A file is missing or not readable, or the anchors are not those of the certificate.
    """
    if not expected:
        raise DataError(f"{files.certificate}: no anchors; `qaeval certify --anchors N` stores anchors")
    try:
        content = files.anchors.read_bytes()
    except OSError as error:
        raise DataError(
            f"{files.anchors}: {error.strerror}; `qaeval certify --anchors N` stores anchors"
        ) from error
    if sha256(content).hexdigest() != expected:
        raise DataError(f"{files.anchors}: changed after the certificate was issued; certify the judge anew")
    anchors = [Anchor.model_validate_json(line) for line in content.splitlines()]
    looks = []
    if files.looks.is_file():
        for number, line in enumerate(files.looks.read_bytes().splitlines(), start=1):
            try:
                look = AnchorLook.model_validate_json(line)
            except ValidationError as error:
                raise DataError(
                    f"{files.looks}:{number}: not the letters of a look: {str(error).splitlines()[0]}"
                ) from error
            if look.anchors_sha256 != expected or len(look.letters) != len(anchors):
                raise DataError(
                    f"{files.looks}:{number}: letters of other anchors; delete the file to begin anew"
                )
            looks.append(look)
    return anchors, looks


def look_at(
    files: AnchorFiles,
    expected: str,
    *,
    run: str,
    judging: Judging,
    definition: Mapping[str, Any],
    make_runner: MakeRunner,
) -> DriftReport:
    """Have the judge of a run grade the anchors, append the letters, and say whether the judge moved.

    Letters of fewer than 90 % of the anchors are not appended: they would count as a look and show little.

    Args:
        files: Of the certificate.
        expected: Hash of the anchors in the certificate.
        run: Name of the run.
        judging: Judge and rubric of the run.
        definition: Settings of the run's eval.
        make_runner: As for `regraded_letters`.

    Raises:
        DataError: As for `read_anchors`.
        EndpointError, Interrupted: As for `regraded_letters`.
    """
    anchors, looks = read_anchors(files, expected)
    given = regraded_letters(
        [(anchor.sample, anchor.item) for anchor in anchors], judging, definition, make_runner
    )
    letters = "".join(given.get(anchor.item.item_id, _UNGRADED) for anchor in anchors)
    looks.append(AnchorLook(time=now(), run=run, anchors_sha256=expected, letters=letters))
    if _has_letters(looks[-1]):
        write_file(files.looks, "".join(look.model_dump_json() + "\n" for look in looks))
    return drift_of(anchors, looks, best=judging.rubric.letters[0])


def drift_of(anchors: Sequence[Anchor], looks: Sequence[AnchorLook], *, best: str) -> DriftReport:
    """Say whether the judge moved at the last look or at one before: it stays moved until it is certified anew.

    Looks with too few letters do not count; the last one with too few is not judged.

    Args:
        anchors: With their first letters.
        looks: At least one.
        best: The best letter.
    """
    n, n_graded = len(anchors), len(anchors) - looks[-1].letters.count(_UNGRADED)
    if not _has_letters(looks[-1]):
        return DriftReport(
            outcome="not checked",
            n_anchors=n_graded,
            sentence=f"the anchors are not checked: the judge gave {n_graded:,} of {plural(n, 'anchor')} a letter, and "
            f"{100 * _MIN_GRADED:.0f} % are needed",
        )
    stored = ["".join(letters) for letters in zip(*(anchor.letters for anchor in anchors), strict=True)]
    looks = [look for look in looks if _has_letters(look)]
    rows = np.array([list(row) for row in (*stored, *(look.letters for look in looks))])
    scores = np.where(rows == _UNGRADED, np.nan, rows == best)
    number, since, direction = len(looks), 0, ""
    for look in range(1, number + 1):
        evidence = drift_evidence(scores[: len(stored) + look])
        if evidence.moved(look_alpha(look, _ALPHA)):
            since, direction = look, "milder" if evidence.log_up > evidence.log_down else "stricter"
            break
    kept = rows[-1] != _UNGRADED
    chunks = [anchor.sample.chunk.chunk_id for anchor, is_kept in zip(anchors, kept, strict=True) if is_kept]
    # against the certificate alone: other looks may have moved already
    by_item = scores[-1, kept] - scores[: len(stored), kept].mean(axis=0)
    # of the four bounds of a net change each errs at a quarter
    low, high = mean_bounds(_by_cluster(by_item, chunks), alpha=_ALPHA / 4)
    change = Measure(
        value=float(by_item.mean()),
        low=min(float(low), float(by_item.mean())),
        high=max(float(high), float(by_item.mean())),
        level=1 - _ALPHA / 2,
        method="betting",
        n=n_graded,
        n_clusters=len(set(chunks)),
    )
    n_changed = int((rows[-1] != rows[0])[kept].sum())
    verdict = (
        f"the judge became {direction} at look {since:,}" if since else "the judge is not shown to have moved"
    )
    return DriftReport(
        outcome="judge moved" if since else "nothing",
        look=number,
        n_anchors=n_graded,
        n_changed=n_changed,
        change=change,
        sentence=(
            f"{verdict}: at look {number:,} it gave {n_changed:,} of {plural(n_graded, 'anchor')} another letter than at its certificate "
            f"({percent(n_changed / n_graded)}), and {best} changed by {difference(change)}{'; certify it anew' if since else ''}"
        ),
    )


def _has_letters(look: AnchorLook) -> bool:
    return len(look.letters) - look.letters.count(_UNGRADED) >= _MIN_GRADED * len(look.letters)


def _by_cluster(values: NDArray[np.float64], clusters: Sequence[str]) -> NDArray[np.float64]:
    codes = np.unique(np.array(clusters), return_inverse=True)[1]
    return np.asarray(np.bincount(codes, weights=values) / np.bincount(codes))


def attribute(
    drift: DriftReport, run: Evidence, baseline: Evidence | None, pairs: Mapping[str, str]
) -> DriftReport:
    """Say of each candidate whether it moved, the judge's own movement taken off.

    A judge that is not shown to have moved may have moved within the bounds of the anchors: a candidate moved only if its change is beyond
    them.

    Args:
        drift: What the anchors show.
        run: Evidence of the run.
        baseline: Evidence of the baseline; None: nothing to compare.
        pairs: Candidates of the run with their names in the baseline.
    """
    if drift.change is None or baseline is None or not run.has_samples_of(baseline):
        return drift
    changes = []
    for name, against in pairs.items():
        values = _chunk_changes(run, baseline, name, against)
        if values is None:
            continue
        low, high = mean_bounds(values, alpha=_ALPHA / 4)
        net_low = float(low) - (drift.change.high or 0.0)
        net_high = float(high) - (drift.change.low or 0.0)
        changes.append(
            NetChange(
                candidate=name,
                against=against,
                change=float(values.mean()),
                net_low=max(-1.0, net_low),
                net_high=min(1.0, net_high),
            )
        )
    moved = [change.candidate for change in changes if change.net_low > 0 or change.net_high < 0]
    if drift.outcome == "nothing" and moved:
        sentence = f"{listed(moved)} moved by more than the judge can have; {drift.sentence}"
        return drift.model_copy(
            update={"outcome": "model moved", "candidates": tuple(changes), "sentence": sentence}
        )
    return drift.model_copy(update={"candidates": tuple(changes)})


def _chunk_changes(run: Evidence, baseline: Evidence, name: str, against: str) -> NDArray[np.float64] | None:
    """Return the change of the usable rate of each chunk; None without the candidates or with other chunks."""
    rates = []
    for evidence, candidate_name in ((run, name), (baseline, against)):
        candidate = evidence.candidate(candidate_name)
        if candidate is None:
            return None
        n = np.bincount(evidence.chunk_codes, weights=candidate.requested.sum(axis=1))
        rates.append(
            np.bincount(evidence.chunk_codes, weights=candidate.usable.sum(axis=1)) / np.maximum(n, 1)
        )
    if run.chunk_names != baseline.chunk_names:
        return None
    return np.asarray(rates[0] - rates[1])
