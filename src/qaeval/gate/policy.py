"""``gate.yaml``: what a run must keep, against its baseline or a limit, and what CI does with a doubt."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from qaeval.errors import DataError, closest
from qaeval.files.yaml import read_yaml, validated
from qaeval.records import Record, digest

Scale: TypeAlias = Literal["share", "ratio", "kappa"]
"""How a margin is meant: in points of a share, in percent of the baseline's value, or as a difference of kappas."""


@dataclass(frozen=True)
class Quantity:
    """Something that a rule can be about."""

    meaning: str
    higher_is_better: bool = True
    scale: Scale = "share"
    needs: str = ""
    """The key of a rule that says of what: ``flag``, ``check``."""
    words: str = ""
    """Its name in a sentence, where it is not that of the policy."""
    unit: str = ""
    """Empty for a share. Of a price, until its currency is known, what it is for."""


QUANTITIES: Final[Mapping[str, Quantity]] = {
    "usable_rate": Quantity("items with the best letter, of all that were asked for"),
    "success_rate": Quantity("items that were delivered and graded, of all that were asked for"),
    "valid_rate": Quantity("items that were delivered in the form asked for, of all that were asked for"),
    "hallucination_rate": Quantity("items with the flag hallucination, of the graded ones", higher_is_better=False),
    "flag_rate": Quantity("items with a flag of the rubric, of the graded ones", higher_is_better=False, needs="flag"),
    "check_rate": Quantity("items in which a check found something, of those it looked at", higher_is_better=False, needs="check"),
    "judge_kappa": Quantity("Cohen's kappa of the judge and a rater's labels", words="kappa of the judge", scale="kappa", unit="kappa"),
    "p50_latency": Quantity("seconds until half of the replies were there", words="median latency", higher_is_better=False, scale="ratio", unit="s"),
    "p95_latency": Quantity("seconds until 95 % of the replies were there", words="p95 latency", higher_is_better=False, scale="ratio", unit="s"),
    "p50_ttft": Quantity("seconds to the first token, half of the requests", words="median time to the first token", higher_is_better=False, scale="ratio", unit="s"),
    "p95_ttft": Quantity("seconds to the first token, 95 % of the requests", words="p95 time to the first token", higher_is_better=False, scale="ratio", unit="s"),
    "items_per_s": Quantity("delivered items per wall second", words="items per second", scale="ratio", unit="/s"),
    "seconds_per_1000_usable": Quantity("machine seconds for 1,000 usable items", words="machine time of 1,000 usable items", higher_is_better=False, scale="ratio", unit="s"),
    "cost_per_1000_usable": Quantity("price of 1,000 usable items, without grading", words="cost of 1,000 usable items", higher_is_better=False, scale="ratio", unit="per 1,000"),
}  # fmt: skip
"""Every quantity that a rule can name."""

HALLUCINATION: Final = "hallucination"

_PERCENT: Final = re.compile(r"(\d+(?:\.\d+)?) ?%")
_WORDS: Final[Mapping[Scale, str]] = {
    "share": "a share between 0 and 1 (0.05 is 5 points)",
    "ratio": "a percentage of the baseline's value, like 20%",
    "kappa": "a difference of kappas between 0 and 1, like 0.1",
}


class Rule(Record):
    """One thing that must hold: a margin against the baseline, or a limit."""

    quantity: str
    flag: str = ""
    """Of `flag_rate`: which one."""
    check: str = ""
    """Of `check_rate`: which one."""
    rater: str = ""
    """Of `judge_kappa`: whose labels; may be left out where there is one rater."""
    margin: float | str | None = None
    """Largest loss that is accepted, declared before the data are seen."""
    at_least: float | None = None
    """The quantity may not be proven to be below, and passes when it is proven to be above."""
    at_most: float | None = None
    by: Literal["stratum"] | None = None
    """A rule for each stratum of the samples."""
    stratum: str = ""
    """Only the samples of this one."""
    candidates: tuple[str, ...] = ()
    """Only these; empty: all that the gate is about."""

    @property
    def about(self) -> Quantity:
        """What the quantity is."""
        return QUANTITIES[self.quantity]

    @property
    def of_flag(self) -> str:
        """The flag that the rule is about; empty where it is about none."""
        return HALLUCINATION if self.quantity == "hallucination_rate" else self.flag

    @property
    def counts_among(self) -> str:
        """The share of the items among which it counts, where that is not all of them: `success_rate`, `valid_rate`, or empty."""
        return "valid_rate" if self.check else "success_rate" if self.of_flag else ""

    @property
    def limit(self) -> float | None:
        """What the quantity may not pass; None for a margin."""
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
        of = self.flag or self.check or self.rater
        kind = "" if self.margin is not None else ".at_least" if self.at_least is not None else ".at_most"
        return f"{self.quantity}{f'.{of}' if of else ''}{kind}"

    @field_validator("quantity")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in QUANTITIES:
            raise ValueError(
                f"no quantity {name!r}.{closest(name, QUANTITIES)} Known: {', '.join(QUANTITIES)}"
            )
        return name

    @model_validator(mode="after")
    def _fits(self) -> "Rule":
        for problem in (_wrong_key(self), _wrong_number(self), _wrong_part(self)):
            if problem:
                raise ValueError(problem)
        return self


def _wrong_key(rule: Rule) -> str:
    """Say which key is missing or has no meaning here; empty where all fit."""
    for key in ("flag", "check"):
        if rule.about.needs == key and not getattr(rule, key):
            return f"{rule.quantity} needs {key}: which one?"
        if rule.about.needs != key and getattr(rule, key):
            return f"{key} has no meaning for {rule.quantity}"
    if rule.rater and rule.quantity != "judge_kappa":
        return f"rater has no meaning for {rule.quantity}"
    return ""


def _wrong_number(rule: Rule) -> str:
    given = [key for key in ("margin", "at_least", "at_most") if getattr(rule, key) is not None]
    wanted = "at_least" if rule.about.higher_is_better else "at_most"
    if len(given) != 1:
        return f"a rule has a margin (against the baseline) or a limit ({wanted}), got {' and '.join(given) or 'neither'}"
    if given[0] not in {"margin", wanted}:
        direction = "higher" if rule.about.higher_is_better else "lower"
        return f"{rule.quantity} is better the {direction} it is: its limit is {wanted}"
    if rule.limit is not None:
        above, below = 0.0, float("inf") if rule.about.scale == "ratio" else 1.0
        if above < rule.limit < below:
            return ""
        expected = (
            "a number above 0" if rule.about.scale == "ratio" else "a number between 0 and 1 (0.8 is 80 %)"
        )
        return f"{given[0]}: expected {expected}, got {rule.limit:g}"
    return _wrong_margin(rule)


def _wrong_margin(rule: Rule) -> str:
    text, scale = rule.margin, rule.about.scale
    if isinstance(text, str) and _PERCENT.fullmatch(text) and scale == "ratio" and rule.loss:
        if rule.about.higher_is_better and rule.loss >= 1:
            return f"margin of {rule.quantity}: expected less than 100%, for more than all of it cannot be lost; got {text!r}"
        return ""
    if isinstance(text, float) and 0 < text < 1 and scale != "ratio":
        return ""
    return f"margin of {rule.quantity}: expected {_WORDS[scale]}, above 0; got {text!r}"


def _wrong_part(rule: Rule) -> str:
    if rule.by and rule.stratum:
        return "by makes a rule for each stratum, and stratum names one: leave one of them out"
    if rule.about.scale != "share" and (rule.by or rule.stratum):
        return f"{rule.quantity} is of the whole run: it has no strata"
    return ""


class Policy(Record):
    """What a gate asks."""

    name: str = ""
    baseline: str = ""
    """Run directory or file of the baseline, from the working directory; ``baselines/<eval>.json`` when left out."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Of a wrong pass, and of any wrong regression among all rules; one-sided."""
    inconclusive: Literal["fail", "warn"] = "fail"
    """What CI does where there is too little data: exit code 2, or 0 with a warning."""
    samples: Literal["same", "may differ"] = "same"
    """Whether a run on other samples than the baseline's is compared, without pairs."""
    stale_after_days: int = Field(default=90, ge=1)
    """Older baselines get a warning."""
    certificate: Literal["require", "warn", "off"] = "off"
    """Whether the judge must have shown on labels that it can be trusted."""
    certificate_file: str = ""
    """``certificates/<eval>.json`` when left out."""
    certificate_days: int = Field(default=180, ge=1)
    """Older certificates are stale."""
    rules: tuple[Rule, ...] = Field(min_length=1)

    @property
    def digest(self) -> str:
        """Hash of all that it says, 64 hex digits."""
        return digest(self.model_dump(mode="json"))

    @model_validator(mode="after")
    def _each_once(self) -> "Policy":
        seen: dict[tuple[object, ...], int] = {}
        for place, rule in enumerate(self.rules, start=1):
            key = (rule.id, rule.by, rule.stratum, rule.candidates)
            if key in seen:
                raise ValueError(f"rules[{place}]: asks what rules[{seen[key]}] asks already ({rule.id})")
            seen[key] = place
        return self


def default_policy(flags: tuple[str, ...]) -> Policy:
    """Return what is asked where nobody says: 5 points of usable items, 3 of each flag of the rubric, 3 of delivered and graded items."""
    of_flags = [
        {"quantity": "hallucination_rate"}
        if name == HALLUCINATION
        else {"quantity": "flag_rate", "flag": name}
        for name in flags
    ]
    rules: list[dict[str, Any]] = [
        {"quantity": "usable_rate", "margin": 0.05},
        *({**one, "margin": 0.03} for one in of_flags),
        {"quantity": "success_rate", "margin": 0.03},
    ]
    return Policy.model_validate({"name": "default", "rules": rules})


def read_policy(path: Path) -> Policy:
    """Read a policy.

    Raises:
        DataError: the file cannot be read, or asks for what there is not; the message names place, expected and got.
    """
    data = read_yaml(path)
    if not data.get("rules"):
        raise DataError(
            f"{path}: no rules: a gate that asks nothing would always be green; add at least one under rules:"
        )
    policy = validated(Policy, data, path)
    return policy if policy.name else policy.model_copy(update={"name": path.name})
