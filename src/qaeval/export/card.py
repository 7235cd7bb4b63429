"""The data card: README.md with front matter for `datasets`, and the provenance of the data."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import yaml

from qaeval import __version__
from qaeval.evals.definition import recorded_prompt
from qaeval.export.licences import SourceModel
from qaeval.records import digest

ExportFormat: TypeAlias = Literal["sft", "dpo", "parquet", "csv", "labels"]
Counts: TypeAlias = Mapping[str, Mapping[str, int]]
"""Number of rows by split and by value of a column."""

CARD_NAME: Final = "README.md"

_MARK: Final = re.compile(r"<!-- qaeval export 1 ([0-9a-f]{64}) -->\n\Z")
_FILE: Final = re.compile(r"^- `([^`/]+)`: [\d,]+ rows, sha256 `([0-9a-f]{64})`$", re.MULTILINE)

_TITLES: Final[Mapping[ExportFormat, str]] = {
    "sft": "Supervised fine-tuning",
    "dpo": "Preference pairs",
    "parquet": "Items of a run",
    "csv": "Items of a run",
    "labels": "Items to be labelled",
}

_USES: Final[Mapping[ExportFormat, str]] = {
    "sft": (
        "Each row of `messages` is a conversation. Train on the assistant's turn only: in TRL, "
        "`SFTConfig(assistant_only_loss=True)`, which needs a chat template that marks that turn."
    ),
    "dpo": (
        "Each row has a `prompt`, a `chosen` and a `rejected` reply, the format of TRL's `DPOTrainer`. If "
        "the eval asks for several question/answer pairs at once, the prompt is that of the candidates, "
        "and each reply is a single pair as JSON."
    ),
    "parquet": (
        "One row per item, and one per reply without items; `failure` has the reason. `letter` is the "
        "judge's; `labels` has the letters of other raters."
    ),
    "csv": (
        "One row per item, and one per reply without items; `failure` has the reason. `letter` is the "
        "judge's; `labels` has the letters of other raters. An apostrophe precedes text that a "
        "spreadsheet would run as a formula."
    ),
    "labels": (
        "Fill in `label` with a letter of the rubric; leave it empty if you cannot decide. An `x` in the "
        "column of a flag raises it. The rows hide the candidate and the judge's grade of an item. Their "
        "order is random. `draw.json` has the probability of each item, which estimates weigh with; it "
        "would give the grades away, so do not read it before the sheet is filled in."
    ),
}

_PRIVACY: Final = (
    "These files contain text of the chunks: in answers and, depending on the format, in prompts and "
    "contexts. Personal or confidential data of the documents are therefore in these files, and a model "
    "trained on them can reproduce these data. Nothing was removed or anonymised."
)


@dataclass(frozen=True)
class ExportFile:
    """A file of the export."""

    name: str
    rows: int
    sha256: str
    split: str = ""
    """Name of the split for `datasets`; empty: the file is not loaded."""


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """The content of a card."""

    to: ExportFormat
    run: str
    """Name of the run directory."""
    settings: Mapping[str, Any]
    files: tuple[ExportFile, ...]
    counts: Mapping[str, Counts]
    """Row counts by the name of the counted column."""
    dropped: tuple[str, ...]
    letters: str
    """Source of the letters."""
    verdict: str
    """Verdict of the run's report, as a sentence; empty: the run has no report."""
    notes: tuple[str, ...] = ()


def render_card(facts: CardFacts) -> str:
    """Render the card, with a mark by which a later export recognises it."""
    parts = [
        f"---\n{yaml.safe_dump(_front(facts), sort_keys=False, allow_unicode=True, width=1000)}---\n",
        f"# {_TITLES[facts.to]}: {facts.settings['eval']['title']}\n",
        f"Exported from the run `{facts.run}` by qaeval {__version__}. {_USES[facts.to]}\n",
        "## Files\n",
        "".join(f"- `{file.name}`: {file.rows:,} rows, sha256 `{file.sha256}`\n" for file in facts.files),
        *(f"## Rows by split and {column}\n\n{_table(counts)}" for column, counts in facts.counts.items()),
        *([f"## Excluded rows\n\n{_list(facts.dropped)}"] if facts.dropped else []),
        f"## Source of the letters\n\n{facts.letters}\n",
        f"## Verdict on the candidates\n\n{facts.verdict or 'The run has no report.'}\n",
        f"## Provenance\n\n{_provenance(facts.settings)}",
        f"## Licences and terms\n\n{_licences(facts)}",
        f"## Personal and confidential data\n\n{_PRIVACY}\n",
    ]
    text = "\n".join(parts) + "\n"
    return f"{text}<!-- qaeval export 1 {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def listed_files(text: str) -> dict[str, str] | None:
    """Return the files of a card with their hashes; None if the text is not a card, or was changed."""
    mark = _MARK.search(text)
    if not mark or hashlib.sha256(text[: mark.start()].encode()).hexdigest() != mark[1]:
        return None
    return dict(_FILE.findall(text))


def _front(facts: CardFacts) -> dict[str, Any]:
    data_files = [{"split": file.split, "path": file.name} for file in facts.files if file.split]
    return {
        "pretty_name": f"{_TITLES[facts.to]}: {facts.settings['eval']['title']}",
        # the licence of the documents and the permitted uses of outputs are unknown; the card explains it
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
    definition, sample_set, grading = settings["eval"], settings["sample_set"], settings["grading"]
    rubric, judge = grading["rubric"], SourceModel.of(grading["judge"]["name"], grading["judge"])
    facts = [
        f"eval `{definition['name']}`, sha256 `{definition['digest']}`",
        *(f"prompt{whose}, sha256 `{digest(prompt)}`" for whose, prompt in _prompts(settings).items()),
        f"sample set of {sample_set['n']:,}, sha256 `{sample_set['digest']}`",
        f"rubric `{rubric['name']}/{rubric['version']}`, sha256 `{rubric['sha']}`",
        f"judge {_model(judge)}; settings sha256 `{digest(grading['judge'])}`",
        *(
            f"candidate {_model(SourceModel.of(name, settings_of_model))}"
            for name, settings_of_model in settings["candidates"].items()
        ),
    ]
    return _list(facts)


def _prompts(settings: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """Return the prompts of a run by the words that say whose they are; the eval's has none."""
    by_candidate = {name: recorded_prompt(settings, name) for name in settings["candidates"]}
    if not any("prompt" in about for about in settings["candidates"].values()):
        return {"": settings["eval"]["prompt"]}
    return {f" of `{name}`": prompt for name, prompt in by_candidate.items()}


def _model(model: SourceModel) -> str:
    weights = f"{model.hf_id} at revision {model.revision or 'not pinned'}" if model.hf_id else model.kind
    return f"`{model.name}`: {weights}, licence {model.licence or 'unknown'}"


def _licences(facts: CardFacts) -> str:
    documents = "The documents keep their licence, which the run does not record."
    conditions = _list(facts.notes) if facts.notes else ""
    return f"{documents} The following is not legal advice.\n\n{conditions}".rstrip() + "\n"


def _list(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
