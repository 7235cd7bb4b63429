"""Create a new eval: a working folder, copied from the shipped eval of its kind."""

import json
import re
from collections.abc import Mapping
from keyword import iskeyword
from pathlib import Path
from typing import Any, Final

from qaeval.corpus.samples import load_samples
from qaeval.corpus.sampling import draw
from qaeval.errors import UsageError, closest
from qaeval.evals.find import find_eval
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
_COPIED: Final = ("prompt.md", "facts.yaml")


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
    # the eval's task for Inspect is a Python function of the same name
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or iskeyword(name):
        raise UsageError(
            f"eval name {name!r}: expected a Python identifier of lower-case letters, digits and _"
        )
    if kind not in SOURCES:
        raise UsageError(f"unknown kind {kind!r}.{closest(kind, SOURCES)} Known: {', '.join(SOURCES)}")
    path = folder / name
    if path.exists():
        raise UsageError(f"{path} exists; choose another name, or remove it first")
    source = find_eval(SOURCES[kind])
    samples = draw(load_samples(source), n=_N_SAMPLES, seed=_SEED)
    files = {
        "eval.yaml": _definition(
            (source.directory / "eval.yaml").read_text(encoding="utf-8"), name, source.name
        ),
        "README.md": _readme(path, kind, source.rubric),
        "task.py": (source.directory / "task.py").read_text(encoding="utf-8").replace(source.name, name),
        **{
            filename: (source.directory / filename).read_text(encoding="utf-8")
            for filename in _COPIED
            if (source.directory / filename).is_file()
        },
        **_data(samples, kind),
    }
    with whole_folder(path) as written:
        (written / "labels").mkdir()
        for file, text in files.items():
            (written / file).write_text(text, encoding="utf-8")
    return path


def first_command(path: Path, kind: str) -> str:
    """Return the command by which a new eval of a kind is tried without a server."""
    return f"qaeval {'generate' if kind in _UNGRADED else 'compare'} embedded-lead embedded-salient --eval {path}"


def _definition(text: str, name: str, source: str) -> str:
    """Rename a definition and keep its comments, which explain the keys."""
    text = re.sub(rf"^name: {source}$", f'name: "{name}"', text, flags=re.MULTILINE)
    text = re.sub(r"^title: .*$", f'title: "{name}"', text, flags=re.MULTILINE)
    text = re.sub(r"^chunks: \S+", "chunks: chunks.jsonl", text, flags=re.MULTILINE)
    return f"# Created by `qaeval new-eval` from {source}; change anything.\n{text}"


def _data(samples: tuple[Sample, ...], kind: str) -> dict[str, str]:
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
3. The rubric: copy `rubrics/{rubric}.yaml` under a new name and set it in `eval.yaml`;
   `qaeval rubric check NAME` validates it.
4. `labels/<rater>.jsonl`: letters of human raters. `qaeval export RUN --to labels` writes the items to
   label; `qaeval agreement RUN` compares the judge with the labels.
5. `task.py` runs the same eval in Inspect AI.
"""
