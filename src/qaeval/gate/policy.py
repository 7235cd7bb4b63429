"""``gate.yaml``: the rules that a run must keep, against its baseline or a limit, and what CI does with an inconclusive one."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field, field_validator, model_validator
from scipy import special

from qaeval.errors import DataError, closest
from qaeval.files.yaml import read_yaml, refuse, validated
from qaeval.records import Record, digest
from qaeval.stats.estimate import MIN_CLUSTERS
from qaeval.text.margins import parse_margin

Scale: TypeAlias = Literal["share", "ratio", "kappa"]
"""Unit of a margin: points of a share, percent of the baseline's value, or a difference of kappas."""


@dataclass(frozen=True)
class Quantity:
    """A quantity that a rule can be about."""

    meaning: str
    higher_is_better: bool = True
    scale: Scale = "share"
    needs: str = ""
    """Key that a rule about it must have: ``flag``, ``check``."""
    phrase: str = ""
    """Name in a sentence, where it differs from that in the policy."""
    unit: str = ""
    """Empty for a share. Of a price, until its currency is known, what it buys."""


QUANTITIES: Final[Mapping[str, Quantity]] = {
    "usable_rate": Quantity("items with the best letter, of all requested ones"),
    "success_rate": Quantity("delivered and graded items, of all requested ones"),
    "valid_rate": Quantity("items delivered in the required form, of all requested ones"),
    "hallucination_rate": Quantity("items with the flag hallucination, of the graded ones", higher_is_better=False),
    "flag_rate": Quantity("items with a flag of the rubric, of the graded ones", higher_is_better=False, needs="flag"),
    "check_rate": Quantity("items in which a check found something, of those it checked", higher_is_better=False, needs="check"),
    "judge_kappa": Quantity("Cohen's kappa of the judge and a rater's labels", phrase="kappa of the judge", scale="kappa", unit="kappa"),
    "p50_latency": Quantity("seconds within which half of the replies came", phrase="median latency", higher_is_better=False, scale="ratio", unit="s"),
    "p95_latency": Quantity("seconds within which 95 % of the replies came", phrase="p95 latency", higher_is_better=False, scale="ratio", unit="s"),
    "p50_ttft": Quantity("seconds to the first token, half of the requests", phrase="median time to the first token", higher_is_better=False, scale="ratio", unit="s"),
    "p95_ttft": Quantity("seconds to the first token, 95 % of the requests", phrase="p95 time to the first token", higher_is_better=False, scale="ratio", unit="s"),
    "items_per_s": Quantity("delivered items per wall second", phrase="items per second", scale="ratio", unit="/s"),
    "seconds_per_1000_usable": Quantity("machine seconds for 1,000 usable items", phrase="machine time of 1,000 usable items", higher_is_better=False, scale="ratio", unit="s"),
    "cost_per_1000_usable": Quantity("price of 1,000 usable items, without grading", phrase="cost of 1,000 usable items", higher_is_better=False, scale="ratio", unit="per 1,000"),
}  # fmt: skip
"""Every quantity that a rule can name."""

DEFAULT: Final = "default"
"""Name of the policy that holds where no other is given."""
HALLUCINATION: Final = "hallucination"
BY_LETTERS: Final = frozenset(
    {"usable_rate", "hallucination_rate", "flag_rate", "seconds_per_1000_usable", "cost_per_1000_usable"}
)
"""Quantities that rest on the judge's letters and flags."""

BY_USABLE: Final = frozenset({"usable_rate", "seconds_per_1000_usable", "cost_per_1000_usable"})
"""Quantities that count usable items: an item without a letter is not known to be one."""

_ALPHA: Final = 0.05
_PERCENT: Final = re.compile(r"(\d+(?:\.\d+)?) ?%")
_MARGINS: Final[Mapping[str, str]] = {
    "ratio": "a percentage of the baseline's value, like 20%",
    "kappa": "a difference of kappas between 0 and 1, like 0.1",
}


def _is_default(corrected: object) -> bool:
    """Leave the key out of the hash of policies that were written before it existed."""
    return corrected is False


def _as_written(value: object) -> object:
    """Leave the value as `Rule._read_shares` read it: for the JSON Schema a limit may have a unit."""
    return value


_Limit: TypeAlias = Annotated[
    float | None, BeforeValidator(_as_written, json_schema_input_type=float | str | None)
]


class Rule(Record):
    """One condition of a gate: a margin against the baseline, or a limit."""

    quantity: str
    flag: str = ""
    """Flag of a `flag_rate`."""
    check: str = ""
    """Check of a `check_rate`."""
    rater: str = ""
    """Rater of a `judge_kappa`; default: the only one."""
    margin: float | str | None = None
    """Largest accepted loss, declared before the data are seen: of a share ``5 points``, ``5pp``, ``5%`` or ``0.05``, of a time or cost
    ``20%`` of the baseline's value."""
    at_least: _Limit = None
    """Limit of a quantity that is better the higher it is: proven to be above it passes, proven to be below is a regression."""
    at_most: _Limit = None
    """Limit of a quantity that is better the lower it is."""
    by: Literal["stratum"] | None = None
    """``stratum``: the rule holds in each stratum of the samples by itself."""
    stratum: str = ""
    """Stratum that the rule is about; empty: all samples."""
    candidates: tuple[str, ...] = ()
    """Candidates that the rule is about; empty: all that are gated."""
    corrected: bool | Literal["auto"] = Field(default=False, exclude_if=_is_default)
    """Whether a `usable_rate` is corrected by labels. ``true``: it is, and cannot be evaluated with labels of fewer than 10 chunks;
    of a margin, in the run and in the baseline. ``auto``: it is where there are as many, else the judge's letters decide."""

    @property
    def definition(self) -> Quantity:
        """Definition of the quantity."""
        return QUANTITIES[self.quantity]

    @property
    def flag_name(self) -> str:
        """Flag that the rule is about; empty for a rule about something else."""
        return HALLUCINATION if self.quantity == "hallucination_rate" else self.flag

    @property
    def base_quantity(self) -> str:
        """Quantity that defines the items that count: `success_rate`, `valid_rate`, or empty where all requested ones do."""
        return "valid_rate" if self.check else "success_rate" if self.flag_name else ""

    @property
    def limit(self) -> float | None:
        """Limit of the quantity; None for a margin."""
        return self.at_least if self.at_least is not None else self.at_most

    @property
    def loss(self) -> float | None:
        """The margin as a number: a share of the baseline's value where the quantity is a ratio; None for a limit."""
        if isinstance(self.margin, str):
            return float(self.margin.rstrip("% ")) / 100
        return self.margin

    @property
    def id(self) -> str:
        """Name the rule among those of its policy, without stratum and candidate."""
        part = self.flag or self.check or self.rater
        kind = "" if self.margin is not None else ".at_least" if self.at_least is not None else ".at_most"
        return f"{self.quantity}{f'.{part}' if part else ''}{kind}"

    @field_validator("quantity")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in QUANTITIES:
            raise ValueError(
                f"no quantity {name!r}.{closest(name, QUANTITIES)} Known: {', '.join(QUANTITIES)}"
            )
        return name

    @model_validator(mode="before")
    @classmethod
    def _read_shares(cls, data: Any) -> Any:  # noqa: ANN401 - parsed YAML
        """Read margins and limits of shares that have a unit; `_fits` refuses what is not readable."""
        if not isinstance(data, Mapping) or not isinstance(data.get("quantity"), str):
            return data
        quantity = QUANTITIES.get(data["quantity"])
        if quantity is None or quantity.scale != "share":
            return data
        read = dict(data)
        for key in {"margin", "at_least", "at_most"} & data.keys():
            with suppress(ValueError):
                read[key] = parse_margin(data[key])
        return read

    @model_validator(mode="after")
    def _fits(self) -> "Rule":
        refuse(problem for problem in (_wrong_key(self), _wrong_number(self), _wrong_part(self)) if problem)
        return self


def _wrong_key(rule: Rule) -> str:
    """Return which key is missing or has no meaning here; empty where all fit."""
    for key in ("flag", "check"):
        if rule.definition.needs == key and not getattr(rule, key):
            return f"{rule.quantity} needs {key}: name one"
        if rule.definition.needs != key and getattr(rule, key):
            return f"{key} has no meaning for {rule.quantity}"
    if rule.corrected and rule.quantity != "usable_rate":
        return f"corrected has no meaning for {rule.quantity}: labels correct usable_rate"
    if rule.rater and rule.quantity != "judge_kappa":
        return f"rater has no meaning for {rule.quantity}"
    return ""


def _wrong_number(rule: Rule) -> str:
    given = [key for key in ("margin", "at_least", "at_most") if getattr(rule, key) is not None]
    wanted = "at_least" if rule.definition.higher_is_better else "at_most"
    if len(given) != 1:
        return f"a rule has a margin (against the baseline) or a limit ({wanted}), got {' and '.join(given) or 'neither'}"
    if given[0] not in {"margin", wanted}:
        direction = "higher" if rule.definition.higher_is_better else "lower"
        return f"{rule.quantity} is better the {direction} it is: its limit is {wanted}"
    if rule.limit is not None:
        above, below = 0.0, float("inf") if rule.definition.scale == "ratio" else 1.0
        if above < rule.limit < below:
            return ""
        expected = (
            "a number above 0"
            if rule.definition.scale == "ratio"
            else "a number between 0 and 1 (0.8 is 80 %)"
        )
        return f"{given[0]}: expected {expected}, got {rule.limit:g}"
    return _wrong_margin(rule)


def _wrong_margin(rule: Rule) -> str:
    margin, scale = rule.margin, rule.definition.scale
    if scale == "share":
        try:
            parse_margin(margin)
        except ValueError as error:
            return f"margin of {rule.quantity}: {error}"
        return ""
    if isinstance(margin, str) and _PERCENT.fullmatch(margin) and scale == "ratio" and rule.loss:
        if rule.definition.higher_is_better and rule.loss >= 1:
            return f"margin of {rule.quantity}: expected less than 100%, because no more than all of it can be lost; got {margin!r}"
        return ""
    if isinstance(margin, float) and 0 < margin < 1 and scale == "kappa":
        return ""
    return f"margin of {rule.quantity}: expected {_MARGINS[scale]}, above 0; got {margin!r}"


def _wrong_part(rule: Rule) -> str:
    if rule.by and rule.stratum:
        return "by makes a rule for each stratum, and stratum names one: remove one of the two keys"
    if rule.definition.scale != "share" and (rule.by or rule.stratum):
        return f"{rule.quantity} describes the whole run: it has no strata"
    return ""


class TrustPolicy(Record):
    """Requirements that a judge's certificate has to meet; each is decided by the ends of a 95 % interval."""

    raters: Literal["people", "any"] = "people"
    """Whose labels count: people's, or also those of models, where no person labelled the item."""
    labels: int = Field(default=50, ge=1)
    """Smallest number of labelled items."""
    kappa: float = Field(default=0.4, ge=-1, lt=1)
    """Cohen's kappa of judge and labels must be above."""
    lower_recall: float = Field(default=0.5, ge=0, lt=1)
    """Of the items that are labelled below the best letter, the share that the judge gives another letter than the best must be above."""
    differential_error: float = Field(default=0.2, gt=0, le=2)
    """By how much the judge may favour a candidate: the usable rates of two candidates differ by the judge and by the labels; these
    differences must be nearer to each other. Where the labelled items are known by candidate."""
    audit: Literal["if given", "require", "off"] = "if given"
    """Whether an audit must pass: one that the certificate holds must not fail, or there must be one that passes."""


_DEFAULT_TRUST: Final = TrustPolicy()


def _is_default_trust(trust: object) -> bool:
    """Leave the requirements out of the hash of policies that were written before there were any."""
    return trust == _DEFAULT_TRUST


class Policy(Record):
    """Rules of a gate, and what they need."""

    name: str = ""
    baseline: str = ""
    """Run directory or file of the baseline, from the working directory; default where a rule has a margin: ``baselines/<eval>.json``."""
    alpha: float = Field(default=_ALPHA, gt=0, lt=0.5)
    """Error rate of a wrong pass of a rule, and of any wrong regression among all rules; one-sided."""
    inconclusive: Literal["fail", "warn"] = "fail"
    """Exit code where there is too little data: 2, or 0 with a warning."""
    samples: Literal["same", "may differ"] = "same"
    """Whether runs on other samples than the baseline's are compared, without pairs."""
    stale_after_days: int = Field(default=90, ge=1)
    """Older baselines get a warning."""
    certificate: Literal["require", "warn", "off"] = "off"
    """Whether the judge needs a certificate of its agreement with labels."""
    certificate_file: str = ""
    """Default: ``certificates/<eval>-<judge>-<rubric>.json``."""
    certificate_days: int = Field(default=180, ge=1)
    """Older certificates are stale."""
    trust: TrustPolicy = Field(default=_DEFAULT_TRUST, exclude_if=_is_default_trust)
    """Requirements that the certificate has to meet."""
    drift: Literal["require", "warn", "off"] = Field(default="off", exclude_if=lambda drift: drift == "off")
    """Whether the judge grades the anchors of its certificate again at each gate; ``require``: a judge that moved is not trusted."""
    rules: tuple[Rule, ...] = Field(json_schema_extra={"minItems": 1})

    @property
    def digest(self) -> str:
        """Hash of the content, 64 hex digits."""
        return digest(self.model_dump(mode="json"))

    @model_validator(mode="after")
    def _each_once(self) -> "Policy":
        refuse(self._repeated())
        return self

    def _repeated(self) -> Iterator[str]:
        if not self.rules:
            yield "rules: expected at least one rule, since a gate without rules would always pass"
        seen: dict[tuple[object, ...], int] = {}
        for number, rule in enumerate(self.rules, start=1):
            key = (rule.id, rule.by, rule.stratum, rule.candidates)
            if key in seen:
                yield f"rules[{number}]: repeats rules[{seen[key]}] ({rule.id})"
            seen.setdefault(key, number)


_USABLE_SPREAD: Final = (0.03, 0.26)
"""Variance of the difference of a chunk's usable rates in two equal runs: the first number, plus the second over the items of the
chunk. Of usable rates near 80 % in chunks whose difficulty differs (docs/gate-validity.md)."""
_OTHER_SPREAD: Final = (0.005, 0.1)
"""The same of flags and failures, of which 5 % of the items have one."""
_EQUAL_POWER: Final = 0.9
"""Probability that an equal run passes a rule with the margin of `shown_margin`."""
_FLOORS: Final = (0.05, 0.03)
"""Smallest margins of the default policy: of usable items and of the other rates."""
_MAX_CHUNKS: Final = 10_000


def lost_unseen(n_chunks: int, *, alpha: float) -> float:
    """Return the share of lost chunks of which so many chunks show none with the probability alpha; about 3 / n for 0.05."""
    return float(1 - alpha ** (1 / n_chunks))


def shown_margin(n_chunks: int, items_per_chunk: int, spread: tuple[float, float]) -> float:
    r"""Return the smallest margin, in whole points, that a run equal to its baseline passes with a probability of 90 %.

    It is the half width of the interval that decides a pass, two chunks of the largest difference added as where most chunks tie
    (`qaeval.gate.estimates.PairedRates`), plus room for an estimate below 0, each at the spread s of a chunk's difference:
    :math:`t_{.95,n+1} \sqrt{(s^2 + 2/(n+1))/(n+2)} + t_{.9,n-1}\, s/\sqrt n`.

    Args:
        n_chunks: Chunks of the run; fewer than 10 count as 10, the fewest with an interval.
        items_per_chunk: Items of a chunk, at least 1.
        spread: Variance of a chunk's difference: a number, plus a second one over the items of the chunk.
    """
    n = max(n_chunks, MIN_CLUSTERS)
    variance = spread[0] + spread[1] / items_per_chunk
    half_width = float(special.stdtrit(n + 1, 1 - _ALPHA)) * sqrt((variance + 2 / (n + 1)) / (n + 2))
    room = float(special.stdtrit(n - 1, _EQUAL_POWER)) * sqrt(variance / n)
    return ceil(100 * max(half_width + room, lost_unseen(n, alpha=_ALPHA))) / 100


def default_margins(n_chunks: int, items_per_chunk: int) -> tuple[float, float]:
    """Return the default policy's margins, of usable items and of other rates: what so many chunks show, at least 5 and 3 points.

    Args:
        n_chunks: Chunks of the run.
        items_per_chunk: Items of a chunk, at least 1.
    """
    usable, other = (
        max(floor, shown_margin(n_chunks, items_per_chunk, spread))
        for floor, spread in zip(_FLOORS, (_USABLE_SPREAD, _OTHER_SPREAD), strict=True)
    )
    return usable, other


def chunks_for_smallest_margins(items_per_chunk: int) -> int:
    """Return how many chunks the smallest margins of the default policy take.

    Args:
        items_per_chunk: Items of a chunk, at least 1.
    """
    numbers = range(MIN_CLUSTERS, _MAX_CHUNKS)
    return next((n for n in numbers if default_margins(n, items_per_chunk) == _FLOORS), _MAX_CHUNKS)


def default_policy(flags: tuple[str, ...], n_chunks: int = _MAX_CHUNKS, items_per_chunk: int = 3) -> Policy:
    """Return the default policy: a margin for usable items, for each flag of the rubric, and for delivered and graded items.

    Args:
        flags: Flags of the rubric.
        n_chunks: Chunks of the runs to compare, which set the margins (`default_margins`); default: as many as margins of 5 and 3
            points take.
        items_per_chunk: Items of a chunk, at least 1.
    """
    usable, other = default_margins(n_chunks, items_per_chunk)
    flag_rules = [
        {"quantity": "hallucination_rate"}
        if name == HALLUCINATION
        else {"quantity": "flag_rate", "flag": name}
        for name in flags
    ]
    rules: list[dict[str, Any]] = [
        {"quantity": "usable_rate", "margin": usable},
        *({**rule, "margin": other} for rule in flag_rules),
        {"quantity": "success_rate", "margin": other},
    ]
    return Policy.model_validate({"name": DEFAULT, "rules": rules})


def read_policy(path: Path) -> Policy:
    """Read a policy.

    Raises:
        DataError: The file cannot be read, or a rule is not valid; the message names the rule, what is expected and what it has.
    """
    data = read_yaml(path)
    if not data.get("rules"):
        raise DataError(
            f"{path}: no rules: a gate without rules would always pass; add at least one under rules:"
        )
    policy = validated(Policy, data, path)
    return policy if policy.name else policy.model_copy(update={"name": path.name})
