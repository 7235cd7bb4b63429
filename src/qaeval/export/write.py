"""From a graded run to a folder of training data, of a table, or of a sheet for people who label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from qaeval.errors import UsageError, closest
from qaeval.export.card import NAME, CardFacts, To, render_card
from qaeval.export.content import Content, Training, dpo_content, sft_content, sheet_content, table_content
from qaeval.export.folder import require_free, write_folder
from qaeval.export.select import Filters, Grading, check, require_finished
from qaeval.export.split import By, require_shares
from qaeval.export.training import PER_SAMPLE
from qaeval.records import Label
from qaeval.storage.run_directory import RunStore


@dataclass(frozen=True)
class Written:
    """What was written."""

    paths: tuple[Path, ...]
    """The files, the card last."""
    counts: Mapping[str, int]
    """Rows by split; of tables and sheets by file, without ``.jsonl``."""
    dropped: Mapping[str, int]
    """What was left out, by reason; reasons that took nothing among them."""
    notes: tuple[str, ...]
    """What the reader has to know, a sentence each."""


def write_export(
    store: RunStore,
    to: To,
    out: Path,
    *,
    filters: Filters | None = None,
    labels: Sequence[Label] = (),
    split: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    accept: tuple[str, ...] = (),
    by: By = "chunk",
    with_context: bool | None = None,
    per_sample: int = PER_SAMPLE,
    n: int | None = None,
    precomputed: bool = False,
) -> Written:
    """Write an export into a folder, whole or not at all; the same run and arguments give the same bytes.

    Args:
        store: A run that is graded and finished.
        to: ``sft`` and ``dpo`` are filtered, rid of duplicates and split; ``csv`` and ``parquet`` have every item and every
            failure; ``labels`` is a sheet to fill in. Of the filters, these three know candidates alone.
        out: The folder: new, empty, or a former export as it was written.
        filters: Which items become training data; the best letter without a flag where left out.
        labels: Labels of the run's items.
        split: Shares of train, validation and test.
        seed: Of the split, and of the draw of ``labels``.
        accept: Models or licences whose terms the user has read; see `licences.refuse_unfit`.
        by: What stays on one side of the split.
        with_context: ``sft``: put the chunk before the question; None: where the eval asks for answers from it.
        per_sample: ``dpo``: most pairs of one sample.
        n: ``labels``: how many items; None takes all.
        precomputed: ``labels``: write the letters as Inspect takes scores, in place of the sheet.

    Raises:
        UsageError: an argument cannot mean what it says, a licence is unfit, or the folder holds something else.
        DataError: the run is not graded or not finished, or nothing is left; the message names the filter that left nothing.
        StoreError: the folder cannot be written.
    """
    _require_sense(to, split, per_sample)
    require_free(out)
    require_finished(store)
    grading = Grading.of(store)
    filters = filters or Filters(letters=grading.scale[:1])
    check(filters, grading)
    asked = Training(labels=labels, filters=filters, accept=accept, shares=split, seed=seed, by=by)
    if to == "sft":
        content = sft_content(store, asked, with_context=with_context)
    elif to == "dpo":
        content = dpo_content(store, asked, per_sample=per_sample)
    elif to == "labels":
        content = sheet_content(store, labels, filters, n=n, seed=seed, precomputed=precomputed)
    else:
        content = table_content(store, labels, filters, to)
    return _put(store, to, out, grading, content)


def _require_sense(to: str, split: Sequence[float], per_sample: int) -> None:
    if to not in get_args(To):
        raise UsageError(
            f"--to {to!r}: expected one of {', '.join(get_args(To))}.{closest(to, get_args(To))}"
        )
    if per_sample < 1:
        raise UsageError(f"per_sample {per_sample}: expected 1 or more pairs of a sample")
    require_shares(split)


def _put(store: RunStore, to: To, out: Path, grading: Grading, content: Content) -> Written:
    card = render_card(
        CardFacts(
            to=to,
            run=store.path.resolve().name,
            settings=grading.settings,
            files=content.files,
            counts=content.tables,
            dropped=tuple(f"{name}: {count:,}" for name, count in content.dropped.items()),
            letters=content.letters,
            notes=content.notes,
        )
    )
    files = {**{file.name: file.data for file in content.files}, NAME: card.encode()}
    paths = write_folder(out, files)
    return Written(paths, content.counts, content.dropped, content.notes)
