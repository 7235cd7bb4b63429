"""The data card: README.md with the front matter that `datasets` reads, and what a person has to know."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import yaml

from qaeval import __version__
from qaeval.export.licences import Model
from qaeval.records import digest

To: TypeAlias = Literal["sft", "dpo", "parquet", "csv", "labels"]
Counts: TypeAlias = Mapping[str, Mapping[str, int]]
"""Rows by split and by what stands in a column."""

NAME: Final = "README.md"

_MARK: Final = re.compile(r"<!-- qaeval export 1 ([0-9a-f]{64}) -->\n\Z")
_FILE: Final = re.compile(r"^- `([^`/]+)`: [\d,]+ rows, sha256 `([0-9a-f]{64})`$", re.MULTILINE)

_TITLES: Final[Mapping[To, str]] = {
    "sft": "Supervised fine-tuning",
    "dpo": "Preference pairs",
    "parquet": "Items of a run",
    "csv": "Items of a run",
    "labels": "Items to be labelled",
}

_USES: Final[Mapping[To, str]] = {
    "sft": (
        "Each row of `messages` is a conversation. The loss belongs on the assistant's turn alone: in TRL, "
        "`SFTConfig(assistant_only_loss=True)`, which needs a chat template that marks that turn."
    ),
    "dpo": (
        "Each row has a `prompt`, a `chosen` and a `rejected` reply, as TRL's `DPOTrainer` takes them. Where the eval asks "
        "for several question/answer pairs at once, the prompt is what the candidates were asked, and each reply is one "
        "pair of theirs as JSON."
    ),
    "parquet": (
        "One row for each item, and one for each reply that gave none; `failure` says why. Letters are the judge's; `labels` "
        "has those of other raters."
    ),
    "csv": (
        "One row for each item, and one for each reply that gave none; `failure` says why. Letters are the judge's; `labels` "
        "has those of other raters. An apostrophe stands before text that a spreadsheet would run as a formula."
    ),
    "labels": (
        "Fill in `label` with a letter of the rubric; leave it empty where you cannot tell. The rows hide who wrote an item "
        "and what the judge said of it. Their order is drawn by lot."
    ),
}

_PRIVACY: Final = (
    "Text of the chunks stands in these files, in answers and, where the format has them, in prompts and contexts. Whatever "
    "is personal or confidential in the documents is so here, and a model that is trained on it can repeat it. Nothing was "
    "removed or made anonymous."
)


@dataclass(frozen=True)
class File:
    """A file of the export."""

    name: str
    data: bytes
    rows: int
    split: str = ""
    """As `datasets` is to name it; empty: not to be loaded."""

    @property
    def sha256(self) -> str:
        """Hash of the bytes."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """Everything that the card says."""

    to: To
    run: str
    """Name of the run directory."""
    settings: Mapping[str, Any]
    files: tuple[File, ...]
    counts: Mapping[str, Counts]
    """Tables of rows, by what the columns are."""
    dropped: tuple[str, ...]
    letters: str
    """How letters came about."""
    notes: tuple[str, ...] = ()


def render_card(facts: CardFacts) -> str:
    """Write the card, with a mark by which a later export knows its own."""
    parts = [
        f"---\n{yaml.safe_dump(_front(facts), sort_keys=False, allow_unicode=True, width=1000)}---\n",
        f"# {_TITLES[facts.to]}: {facts.settings['eval']['title']}\n",
        f"Made from the run `{facts.run}` by qaeval {__version__}. {_USES[facts.to]}\n",
        "## Files\n",
        "".join(f"- `{file.name}`: {file.rows:,} rows, sha256 `{file.sha256}`\n" for file in facts.files),
        *(f"## Rows by split and {what}\n\n{_table(counts)}" for what, counts in facts.counts.items()),
        *([f"## What was left out\n\n{_list(facts.dropped)}"] if facts.dropped else []),
        f"## How the letters came about\n\n{facts.letters}\n",
        f"## Where it is from\n\n{_provenance(facts.settings)}",
        f"## Licences and terms\n\n{_licences(facts)}",
        f"## Personal and confidential data\n\n{_PRIVACY}\n",
    ]
    text = "\n".join(parts) + "\n"
    return f"{text}<!-- qaeval export 1 {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def listed_files(text: str) -> dict[str, str] | None:
    """Return the files that a card lists with their hashes; None where the text is no card, or was changed since."""
    mark = _MARK.search(text)
    if not mark or hashlib.sha256(text[: mark.start()].encode()).hexdigest() != mark[1]:
        return None
    return dict(_FILE.findall(text))


def _front(facts: CardFacts) -> dict[str, Any]:
    data_files = [{"split": file.split, "path": file.name} for file in facts.files if file.split]
    return {
        "pretty_name": f"{_TITLES[facts.to]}: {facts.settings['eval']['title']}",
        # neither the documents' licence nor what outputs may be used for is known here; the card says what is
        "license": "other",
        "license_name": "see-licences-and-terms",
        "tags": ["synthetic", "qaeval"],
        **({"configs": [{"config_name": "default", "data_files": data_files}]} if data_files else {}),
    }


def _table(counts: Counts) -> str:
    columns = list(dict.fromkeys(name for row in counts.values() for name in row))
    head = f"| split | {' | '.join(map(_cell, columns))} | all |\n|---|{'---:|' * (len(columns) + 1)}\n"
    return head + "".join(
        f"| {split} | {' | '.join(f'{row.get(name, 0):,}' for name in columns)} | {sum(row.values()):,} |\n"
        for split, row in counts.items()
    )


def _provenance(settings: Mapping[str, Any]) -> str:
    definition, drawn, grading = settings["eval"], settings["sample_set"], settings["grading"]
    rubric, judge = grading["rubric"], Model.of(grading["judge"]["name"], grading["judge"])
    facts = [
        f"eval `{definition['name']}`, sha256 `{definition['digest']}`; prompt `{digest(definition['prompt'])}`",
        f"sample set of {drawn['n']:,}, sha256 `{drawn['digest']}`",
        f"rubric `{rubric['name']}/{rubric['version']}`, sha256 `{rubric['sha']}`",
        f"judge {_model(judge)}; settings sha256 `{digest(grading['judge'])}`",
        *(f"candidate {_model(Model.of(name, about))}" for name, about in settings["candidates"].items()),
    ]
    return _list(facts)


def _model(model: Model) -> str:
    weights = f"{model.hf_id} at revision {model.revision or 'not pinned'}" if model.hf_id else model.kind
    return f"`{model.name}`: {weights}, licence {model.licence or 'not named'}"


def _licences(facts: CardFacts) -> str:
    documents = "The documents keep the licence that they have; the run does not know it."
    conditions = _list(facts.notes) if facts.notes else ""
    return f"{documents} What follows is no legal advice.\n\n{conditions}".rstrip() + "\n"


def _list(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
