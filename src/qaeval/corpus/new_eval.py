"""Create a new eval: a working folder, copied from the shipped eval of its kind."""

import json
import re
from collections.abc import Mapping, Sequence
from keyword import iskeyword
from pathlib import Path
from typing import Any, Final

from qaeval.corpus.samples import load_samples
from qaeval.corpus.sampling import draw
from qaeval.errors import UsageError, closest
from qaeval.evals.definition import EvalDefinition, load_eval
from qaeval.evals.find import data_root
from qaeval.files.whole import whole_folder
from qaeval.records import Sample

SOURCES: Final[Mapping[str, str]] = {
    "qa_pair": "qa_pairs",
    "answer": "rag_qa",
    "preference_pair": "dpo_pairs",
}
"""The shipped eval that is the template of each kind."""

_N_SAMPLES: Final = 6
"""Number of example samples in a new eval."""
_SEED: Final = 0
_UNGRADED: Final = frozenset({"preference_pair"})
"""Kinds that no embedded judge grades."""
_COPIED: Final = ("prompt.md", "prompt-full.md", "facts.yaml")


def new_eval(name: str, *, kind: str = "qa_pair", folder: Path = Path("evals")) -> Path:
    """Create the folder of a new eval.

    Args:
        name: Name of the eval and of its folder: lower-case letters, digits and ``_``.
        kind: Item kind.
        folder: Parent folder.

    Returns:
        The new folder.

    Raises:
        UsageError: the name or kind is invalid, or the folder exists.
        StoreError: the folder cannot be written.
    """
    require_eval_name(name)
    if kind not in SOURCES:
        raise UsageError(f"unknown kind {kind!r}.{closest(kind, SOURCES)} Known: {', '.join(SOURCES)}")
    path = folder / name
    if path.exists():
        raise UsageError(f"{path} exists; choose another name, or remove it first")
    samples = draw(load_samples(template(kind)), n=_N_SAMPLES, seed=_SEED)
    files = eval_files(path, kind=kind, data=_data(samples, kind), command="qaeval new-eval")
    with whole_folder(path) as written:
        (written / "labels").mkdir()
        for file, text in files.items():
            (written / file).write_text(text, encoding="utf-8")
    return path


def require_eval_name(name: str) -> None:
    """Check the name of a new eval: its task for Inspect is a Python function of the same name.

    Raises:
        UsageError: it is no such name.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or iskeyword(name):
        raise UsageError(
            f"eval name {name!r}: expected a Python identifier of lower-case letters, digits and _"
        )


def eval_files(path: Path, *, kind: str, data: Mapping[str, str], command: str) -> dict[str, str]:
    """Return the text of each file of a new eval.

    Args:
        path: Folder of the eval; its last part is the eval's name.
        kind: Item kind; the shipped eval of this kind is the template.
        data: Text of the data files, by name.
        command: The command that creates it, for a comment.
    """
    source = template(kind)
    copied = {
        filename: (source.directory / filename).read_text(encoding="utf-8")
        for filename in ("eval.yaml", "task.py", *_COPIED)
        if (source.directory / filename).is_file()
    }
    return {
        **copied,
        "eval.yaml": _definition(copied["eval.yaml"], path.name, source.name, command),
        "task.py": copied["task.py"].replace(source.name, path.name),
        "README.md": _readme(path, kind, source.rubric),
        **data,
    }


def template(kind: str) -> EvalDefinition:
    """Return the shipped eval that is the template of a kind."""
    return load_eval(data_root() / "evals" / SOURCES[kind])


def first_command(path: Path, kind: str) -> str:
    """Return the command by which a new eval of a kind is tried without a server."""
    return f"qaeval {'generate' if kind in _UNGRADED else 'compare'} embedded-lead embedded-salient --eval {path}"


def _definition(text: str, name: str, source: str, command: str) -> str:
    """Rename a definition and keep its comments, which explain the keys."""
    text = re.sub(rf"^name: {source}$", f'name: "{name}"', text, flags=re.MULTILINE)
    text = re.sub(r"^title: .*$", f'title: "{name}"', text, flags=re.MULTILINE)
    text = re.sub(r"^chunks: \S+", "chunks: chunks.jsonl", text, flags=re.MULTILINE)
    editor_line, _, rest = text.partition("\n")
    return f"{editor_line}\n# Created by `{command}` from {source}; change anything.\n{rest}"


def _data(samples: Sequence[Sample], kind: str) -> dict[str, str]:
    """Return the example samples as the data files of the definition."""
    rows = _lines([sample.row() for sample in samples])
    if kind == "preference_pair":
        return {"cards.jsonl": rows}
    chunks = {sample.chunk.chunk_id: Sample.of(sample.chunk) for sample in samples}
    files = {"chunks.jsonl": _lines([sample.row() for sample in chunks.values()])}
    return {**files, "samples.jsonl": rows} if kind == "answer" else files


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _readme(path: Path, kind: str, rubric: str) -> str:
    data = {
        "qa_pair": "`chunks.jsonl`: your chunks, one JSON object per line (`qaeval chunk` cuts documents)",
        "answer": "`chunks.jsonl` and `samples.jsonl`: your chunks, answerable and unanswerable questions",
        "preference_pair": "`cards.jsonl` and `facts.yaml`: your topic cards, facts for the reality check",
    }[kind]
    return f"""# {path.name}

Try it: `{first_command(path, kind)}`

What to change, in this order:

1. {data}.
2. `prompt.md`: the prompt; `eval.yaml`: number and types of items, checks, sampling. The two must agree: with
   a prompt for three pairs and `items_per_sample: 5` every reply is a failure. (The embedded models always
   write three.)
3. The rubric: `qaeval rubric show {rubric} > rubrics/NAME.yaml`, change it and its name, and set it in `eval.yaml`;
   `qaeval rubric check NAME` validates it.
4. `labels/<rater>.jsonl`: letters of human raters. `qaeval export RUN --to labels` writes the items to
   label; `qaeval agreement RUN` compares the judge with the labels.
5. `task.py` runs the same eval in Inspect AI.
"""
