"""Differences and rates corrected by labels: from the table of letters and the labels of a run to data.

The labels of each rater give separate estimates. The rater that decides a pair is the first in this order: labels of enough chunks for
an interval before fewer, people before models, more labelled chunks before fewer, then by name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from scipy import special

from qaeval.agreement.analysis import comparable_labels
from qaeval.agreement.label_rows import known_inclusion
from qaeval.analysis.letters import FAILED, GRADED, flag_column, row_weights
from qaeval.comparison.differences import labelled_sentence, more_chunks
from qaeval.comparison.model import (
    Difference,
    LabelledDifference,
    LabelledRate,
    RaterKind,
    outcome_of,
)
from qaeval.records import Label
from qaeval.report.facts import RubricFacts
from qaeval.report.measure import Measure
from qaeval.stats.correction import (
    CorrectedRate,
    corrected_difference,
    corrected_rate,
    differential_error,
    scaled_inclusion,
)
from qaeval.stats.estimate import MIN_CLUSTERS
from qaeval.stats.paired import agreeing_with_test, holm

_UNEVEN: Final = 0.01
"""P-value below which labels are not spread over the judge's letters as chance spreads them."""
_KINDS: Final[Mapping[RaterKind, int]] = {"human": 0, "mixed": 1, "model": 2}


@dataclass(frozen=True)
class _Rater:
    """The labels of one rater, joined to the table of letters."""

    name: str
    kind: RaterKind
    letters: pd.Series
    """Letter of the label, along the table; NaN where the rater gave none."""
    labels: Mapping[str, Label]
    inclusion: pd.Series | None
    """Probability with which each labelled item was drawn, along the table; None unless known of every labelled item."""
    is_by_chunk: bool
    """Whether `inclusion` is that of whole chunks."""

    @classmethod
    def of(cls, name: str, kind: RaterKind, labels: Sequence[Label], table: pd.DataFrame) -> "_Rater":
        by_item = {label.item_id: label for label in labels}
        letters = table["item_id"].map({item_id: label.letter for item_id, label in by_item.items()})
        inclusion, is_by_chunk = known_inclusion(
            [by_item[item_id] for item_id in set(table["item_id"][letters.notna()])]
        )
        return cls(
            name=name,
            kind=kind,
            letters=letters,
            labels=by_item,
            inclusion=table["item_id"].map(inclusion).astype(float) if inclusion else None,
            is_by_chunk=is_by_chunk,
        )


def correct_differences(
    differences: Sequence[Difference],
    table: pd.DataFrame,
    labels: Iterable[Label],
    *,
    rubric: RubricFacts,
    margin: float,
    judge_tuned: bool,
) -> tuple[Difference, ...]:
    """Add to each judged difference what the labels say of it.

    A chunk counts as labelled for a pair if the rater labelled every item of both candidates; an item that failed is known not
    to be usable. Chunks in which both candidates failed throughout are known as well.

    Args:
        differences: Of pairs of candidates, by the judge's letters.
        table: The table of letters.
        labels: Of all raters.
        rubric: Its scale.
        margin: Smallest difference of usable rates that matters, in (0, 1).
        judge_tuned: Whether labels that the judge was tuned on are left out.

    Raises:
        DataError: labels contradict each other or use letters that the rubric does not have.
    """
    raters = _raters(table, labels, rubric, judge_tuned=judge_tuned)
    if not raters:
        return tuple(differences)
    chunks = [ChunkRates.of(table, rater, rubric.best) for rater in raters]
    n_pairs = len(differences)
    pairs = []
    for pair in differences:
        estimates = (
            _difference(pair, rater, rater_chunks, margin)
            for rater, rater_chunks in zip(raters, chunks, strict=True)
        )
        labelled = sorted((estimate for estimate in estimates if estimate is not None), key=precedence)
        pairs.append(pair.model_copy(update={"labelled": tuple(labelled)}))
    # one family: each pair is tested once, by labels where they decide
    adjusted = holm([_p(pair) for pair in pairs]) if pairs else ()
    return tuple(
        _adjusted(pair, float(p_holm), n_pairs=n_pairs, margin=margin)
        for pair, p_holm in zip(pairs, adjusted, strict=True)
    )


def correct_rates(
    table: pd.DataFrame,
    labels: Iterable[Label],
    *,
    candidates: Sequence[str],
    rubric: RubricFacts,
    judge_tuned: bool,
) -> tuple[LabelledRate, ...]:
    """Correct the usable rate and the other rates of each candidate by the labels of each rater.

    A flag is corrected where the rater raised it at least once: a sheet without flags says nothing of them.

    Args:
        table: The table of letters.
        labels: Of all raters.
        candidates: Names, in the order of the report.
        rubric: Its scale and flags.
        judge_tuned: Whether labels that the judge was tuned on are left out.

    Raises:
        DataError: labels contradict each other or use letters that the rubric does not have.
    """
    rates = []
    for rater in _raters(table, labels, rubric, judge_tuned=judge_tuned):
        for name in candidates:
            rows = table["candidate"] == name
            if rater.letters[rows].notna().any():
                rates += _rates(name, table[rows], rater, rubric)
    return tuple(
        sorted(
            rates,
            key=lambda rate: (candidates.index(rate.candidate), rate.name != "usable", precedence(rate)),
        )
    )


def _raters(
    table: pd.DataFrame, labels: Iterable[Label], rubric: RubricFacts, *, judge_tuned: bool
) -> list[_Rater]:
    """Join the labels of each rater to the table; raters without a label of this run are left out."""
    raters = []
    for name, given in comparable_labels(labels, rubric, judge_tuned=judge_tuned).items():
        kinds = {label.rater_kind for label in given}
        rater = _Rater.of(name, kinds.pop() if len(kinds) == 1 else "mixed", given, table)
        if rater.letters.notna().any():
            raters.append(rater)
    return raters


@dataclass(frozen=True)
class ChunkRates:
    """Usable rates by chunk and candidate, by judge and by a rater; columns are candidates, rows chunks."""

    judged: pd.DataFrame
    labelled: pd.DataFrame
    """NaN where an item of the candidate in the chunk has no label."""
    n_items: pd.DataFrame
    """Items that did not fail."""
    n_labelled: pd.DataFrame
    sizes: pd.Series
    """Expected items of a candidate, by chunk."""
    weights: pd.Series | None
    """Mean weight of these items, by chunk; None where all samples weigh the same."""
    drawn: pd.DataFrame | None
    """Labelled items with their probabilities of being drawn; None where those are not known."""
    is_by_chunk: bool
    """Whether these are probabilities of whole chunks."""

    @classmethod
    def of(cls, table: pd.DataFrame, rater: _Rater, best: str) -> "ChunkRates":
        """Return the rates by the labels of one rater."""
        failed = table["status"] == FAILED
        known = rater.letters.notna() & ~failed

        def by_chunk(values: pd.Series, aggregate: Literal["count", "min", "sum"]) -> pd.DataFrame:
            rows = table[["cluster", "candidate"]].assign(value=values.astype(float))
            return rows.pivot_table("value", "cluster", "candidate", aggfunc=aggregate, sort=False)

        weight = row_weights(table)

        def rate(values: pd.Series) -> pd.DataFrame:
            return by_chunk(values * weight, "sum") / owed

        items, owed = by_chunk(known, "count"), by_chunk(weight, "sum")
        sizes = items.max(axis=1)
        drawn = None
        if rater.inclusion is not None:
            drawn = table[["cluster", "candidate", "item_id"]].assign(inclusion=rater.inclusion)[known]
        return cls(
            judged=rate(table["letter"] == best),
            labelled=rate(known & (rater.letters == best)).where(by_chunk(known | failed, "min") == 1),
            n_items=by_chunk(~failed, "sum"),
            n_labelled=by_chunk(known, "sum"),
            sizes=sizes,
            weights=owed.max(axis=1) / sizes if "weight" in table else None,
            drawn=drawn,
            is_by_chunk=rater.is_by_chunk,
        )

    @classmethod
    def by_rater(
        cls, table: pd.DataFrame, labels: Iterable[Label], rubric: RubricFacts, *, judge_tuned: bool
    ) -> "dict[str, ChunkRates]":
        """Return the rates by the labels of each rater; raters without a label of this run are left out.

        Args:
            table: The table of letters.
            labels: Of all raters.
            rubric: Its scale.
            judge_tuned: Whether labels that the judge was tuned on are left out.

        Raises:
            DataError: labels contradict each other or use letters that the rubric does not have.
        """
        raters = _raters(table, labels, rubric, judge_tuned=judge_tuned)
        return {rater.name: cls.of(table, rater, rubric.best) for rater in raters}

    def of_both(self, names: list[str]) -> "ChunkRates":
        """Return the chunks for which items of all named candidates were expected."""
        kept = self.judged[names].notna().all(axis=1)
        return ChunkRates(
            self.judged[kept],
            self.labelled[kept],
            self.n_items[kept],
            self.n_labelled[kept],
            self.sizes[kept],
            None if self.weights is None else self.weights[kept],
            self.drawn,
            self.is_by_chunk,
        )

    def probabilities(self, names: list[str]) -> np.ndarray | None:
        """Return the probability with which all items of the named candidates were drawn, by chunk; None if not known."""
        if self.drawn is None:
            return None
        items = self.drawn[self.drawn["candidate"].isin(names)].drop_duplicates("item_id")
        by_chunk = items.groupby("cluster", sort=False)["inclusion"]
        # items that were drawn one by one are together by chance
        together = by_chunk.max() if self.is_by_chunk else by_chunk.prod()
        return together.reindex(self.sizes.index).to_numpy(float)


def _difference(
    pair: Difference, rater: _Rater, chunks: ChunkRates, margin: float
) -> LabelledDifference | None:
    """Return the difference of a pair by the labels of a rater; None where no chunk is labelled for both."""
    columns = [pair.a, pair.b]
    # items that were imported need not be about the same chunks
    chunks = chunks.of_both(columns)
    # a chunk in which both failed throughout is known for certain, and is no draw of the rater's
    has_items = chunks.n_items[columns].sum(axis=1).to_numpy() > 0
    differences = (chunks.labelled[pair.b] - chunks.labelled[pair.a]).to_numpy(float)
    is_labelled = ~np.isnan(differences) & (chunks.n_labelled[columns].sum(axis=1).to_numpy() > 0)
    n = int(is_labelled.sum())
    if not n:
        return None
    share = n / int(has_items.sum())
    judged = (chunks.judged[pair.b] - chunks.judged[pair.a]).to_numpy(float)
    sizes = chunks.sizes.to_numpy(float)
    inclusion = None if share == 1 or has_items.all() else np.where(has_items, share, 1.0)
    drawn = chunks.probabilities(columns)
    if drawn is not None and share < 1:
        inclusion = scaled_inclusion(drawn, is_labelled, int(has_items.sum()))
    weights = None if chunks.weights is None else chunks.weights.to_numpy(float)
    corrected = corrected_difference(judged, differences, sizes=sizes, inclusion=inclusion, weights=weights)
    # with all chunks: where each of them is labelled, their probabilities do not matter
    error = differential_error(
        judged,
        np.where(is_labelled, differences, np.nan),
        sizes=sizes,
        inclusion=None if drawn is None else inclusion,
        weights=weights,
    )
    difference = Measure.of(agreeing_with_test(corrected.estimate, corrected.p_value))
    return LabelledDifference(
        rater=rater.name,
        rater_kind=rater.kind,
        n_chunks=n,
        basis=corrected.basis,
        difference=difference,
        labels=Measure.of(corrected.labels),
        p=_number(corrected.p_value),
        error=Measure.of(replace(error.estimate, n=n)),
        p_error=_number(error.p_value) if n >= MIN_CLUSTERS else None,
        tuning=_number(corrected.tuning),
        correlation=_number(corrected.correlation),
        sd=float(np.std(differences[is_labelled], ddof=1)) if n > 1 else None,
        width_ratio=_number(corrected.width_ratio),
        outcome=outcome_of(difference, _p_or_1(corrected.p_value), margin=margin),
    )


def _rates(name: str, rows: pd.DataFrame, rater: _Rater, rubric: RubricFacts) -> list[LabelledRate]:
    """Return the rates of a candidate by the labels of a rater."""
    failed = (rows["status"] == FAILED).to_numpy()
    code = {letter: index for index, letter in enumerate(rubric.letters)}
    judged = rows["letter"].map(code).to_numpy(float)
    labelled = np.where(failed, np.nan, rater.letters[rows.index].map(code).to_numpy(float))
    clusters, weights = rows["cluster"].to_numpy(object), row_weights(rows).to_numpy(float)
    n_items = int((~np.isnan(labelled)).sum())
    facts = {
        "candidate": name,
        "rater": rater.name,
        "rater_kind": rater.kind,
        "n_items": n_items,
        "n_chunks": len(set(clusters[~np.isnan(labelled)])),
    }
    rates = []
    inclusion = (
        inclusion_by_letter(judged, labelled, failed)
        if rater.inclusion is None
        else rater.inclusion[rows.index].fillna(1.0).to_numpy(float)
    )
    for worst in range(len(code) - 1):
        target = tuple(range(worst + 1))
        corrected = corrected_rate(
            judged,
            labelled,
            clusters,
            n_levels=len(code),
            target=target,
            failed=failed,
            inclusion=inclusion,
            weights=weights,
        )
        rates.append(
            _labelled_rate(
                corrected,
                name=" or ".join(rubric.letters[: worst + 1]) if worst else "usable",
                judged=float(np.average(np.isin(judged, target), weights=weights)),
                **facts,
            )
        )
    graded = (rows["status"] == GRADED).to_numpy()
    for flag in rubric.flag_names:
        raised = [
            flag in rater.labels[item].flags if item in rater.labels else None for item in rows["item_id"]
        ]
        if not any(flag in label.flags for label in rater.labels.values()):
            continue
        by_judge = rows[flag_column(flag)].to_numpy(bool)
        corrected = corrected_rate(
            np.where(graded, by_judge, np.nan)[~failed],
            np.array([np.nan if value is None else value for value in raised], dtype=float)[~failed],
            clusters[~failed],
            n_levels=2,
            target=(1,),
            inclusion=None if inclusion is None else inclusion[~failed],
            weights=weights[~failed],
        )
        judged_share = np.average(by_judge[graded], weights=weights[graded]) if graded.any() else None
        rates.append(
            _labelled_rate(
                corrected, name=flag, judged=None if judged_share is None else float(judged_share), **facts
            )
        )
    return rates


def inclusion_by_letter(judged: np.ndarray, labelled: np.ndarray, failed: np.ndarray) -> np.ndarray | None:
    """Estimate the probability with which each item was drawn to be labelled: the labelled share of its letter.

    A sheet that was drawn by the judge's letter has more labels of rare letters than chance would give it, and its labels alone
    would not represent the items.

    Args:
        judged: Judge's letter of each item, shape (n_items,); NaN where it gave none.
        labelled: Label of each item; NaN where it has none.
        failed: Items that the candidate failed to make.

    Returns:
        Probabilities along the items; None where the labels are spread over the letters as evenly as chance spreads them.
    """
    strata = np.where(np.isnan(judged), -1.0, judged)
    is_labelled = ~np.isnan(labelled)
    names, codes = np.unique(strata[~failed], return_inverse=True)
    sizes = np.bincount(codes)
    given = np.bincount(codes, weights=is_labelled[~failed], minlength=len(sizes))
    share = given.sum() / sizes.sum()
    if len(sizes) == 1 or share == 1:
        return None
    chi_squared = float(((given - share * sizes) ** 2 / (sizes * share * (1 - share))).sum())
    if special.chdtrc(len(sizes) - 1, chi_squared) >= _UNEVEN:
        return None
    shares = dict(zip(names.tolist(), (given / sizes).tolist(), strict=True))
    # items without a label are not read; a letter without any label has the share 0, which is no probability
    return np.array([shares.get(stratum) or 1.0 for stratum in strata.tolist()])


def _labelled_rate(corrected: CorrectedRate, **facts: Any) -> LabelledRate:  # noqa: ANN401 - fields of the model
    return LabelledRate(
        basis=corrected.basis,
        rate=Measure.of(corrected.estimate),
        labels=Measure.of(corrected.labels),
        **facts,
    )


def precedence(estimate: LabelledDifference | LabelledRate) -> tuple[bool, int, int, str]:
    """Return a sorting key that puts the rater first whose labels decide."""
    return (
        not estimate.is_enough,
        _KINDS[estimate.rater_kind],
        -estimate.n_chunks,
        estimate.rater,
    )


def _p(pair: Difference) -> float:
    deciding = pair.deciding
    return pair.p if deciding is None or deciding.p is None else deciding.p


def _adjusted(pair: Difference, p_holm: float, *, n_pairs: int, margin: float) -> Difference:
    """Decide the outcome by labels with the test adjusted for all pairs."""
    first = pair.deciding
    if first is None:
        return pair
    outcome = outcome_of(first.difference, p_holm, margin=margin)
    n_more = more_chunks(first.difference, margin, n_pairs) if outcome == "not enough data" else None
    decided = first.model_copy(update={"p_holm": p_holm, "outcome": outcome, "n_more_chunks": n_more})
    sentence = labelled_sentence(pair, decided, n_pairs=n_pairs)
    return pair.model_copy(update={"labelled": (decided, *pair.labelled[1:]), "sentence": sentence})


def _number(value: float) -> float | None:
    return None if isnan(value) else value


def _p_or_1(p: float) -> float:
    return 1.0 if isnan(p) else p
