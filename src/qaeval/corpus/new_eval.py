"""A new eval of one's own: a folder that works at once, made from the shipped eval of its kind."""

import json
import re
from collections.abc import Mapping
from keyword import iskeyword
from pathlib import Path
from typing import Any, Final

from qaeval.corpus.samples import load_samples
from qaeval.corpus.sampling import draw
from qaeval.errors import StoreError, UsageError, closest
from qaeval.evals.find import find_eval
from qaeval.records import Sample

SOURCES: Final[Mapping[str, str]] = {
    "qa_pair": "qa_pairs",
    "answer": "rag_qa",
    "preference_pair": "dpo_pairs",
}
"""The shipped eval that a kind's skeleton is made from."""

_N: Final = 6
"""Samples that a skeleton starts with; they are there to be replaced."""
_SEED: Final = 0
_UNGRADED: Final = frozenset({"preference_pair"})
"""Kinds that no embedded judge grades."""
_COPIED: Final = ("prompt.md", "facts.yaml")


def new_eval(name: str, *, kind: str = "qa_pair", folder: Path = Path("evals")) -> Path:
    """Write the folder of a new eval.

    Args:
        name: Of the eval and its folder: small letters, digits and ``_``.
        kind: What its items are.
        folder: Where evals stand.

    Returns:
        The new folder.

    Raises:
        UsageError: the name or kind is none, or the folder is there already.
        StoreError: it cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or iskeyword(name):
        raise UsageError(
            f"an eval's name has small letters, digits and _ alone, begins with a letter and is no word of Python: its task for Inspect "
            f"is a function of that name; got {name!r}"
        )
    if kind not in SOURCES:
        raise UsageError(f"no kind {kind!r}.{closest(kind, SOURCES)} Kinds: {', '.join(SOURCES)}")
    path = folder / name
    if path.exists():
        raise UsageError(f"{path} is there already; choose another name, or take it away first")
    source = find_eval(SOURCES[kind])
    samples = draw(load_samples(source), n=_N, seed=_SEED)
    files = {
        "eval.yaml": _definition(
            (source.directory / "eval.yaml").read_text(encoding="utf-8"), name, source.name
        ),
        "README.md": _readme(path, kind, source.rubric),
        "task.py": (source.directory / "task.py").read_text(encoding="utf-8").replace(source.name, name),
        **{
            one: (source.directory / one).read_text(encoding="utf-8")
            for one in _COPIED
            if (source.directory / one).is_file()
        },
        **_data(samples, kind),
    }
    try:
        (path / "labels").mkdir(parents=True)
        for file, text in files.items():
            (path / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from error
    return path


def first_command(path: Path, kind: str) -> str:
    """Return the command by which a new eval of a kind is tried without a server."""
    return f"qaeval {'generate' if kind in _UNGRADED else 'compare'} embedded-lead embedded-salient --eval {path}"


def _definition(text: str, name: str, source: str) -> str:
    """Rename a definition; its comments say what each key is for."""
    text = re.sub(rf"^name: {source}$", f'name: "{name}"', text, flags=re.MULTILINE)
    text = re.sub(r"^title: .*$", f'title: "{name}"', text, flags=re.MULTILINE)
    text = re.sub(r"^chunks: \S+", "chunks: chunks.jsonl", text, flags=re.MULTILINE)
    return f"# Made by `qaeval new-eval` from {source}; all of it is yours to change.\n{text}"


def _data(samples: tuple[Sample, ...], kind: str) -> dict[str, str]:
    """Write the first samples as the files that the definition names."""
    rows = _lines([sample.row() for sample in samples])
    if kind == "preference_pair":
        return {"cards.jsonl": rows}
    chunks = {sample.chunk.chunk_id: Sample.of(sample.chunk) for sample in samples}
    files = {"chunks.jsonl": _lines([sample.row() for sample in chunks.values()])}
    return {**files, "samples.jsonl": rows} if kind == "answer" else files


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _readme(path: Path, kind: str, rubric: str) -> str:
    what = {
        "qa_pair": "`chunks.jsonl`: your passages, one JSON object per line (`qaeval chunk` makes them of documents)",
        "answer": "`chunks.jsonl` and `samples.jsonl`: your passages, and questions that they answer or do not",
        "preference_pair": "`cards.jsonl` and `facts.yaml`: your topic cards, and the facts that claims are compared with",
    }[kind]
    return f"""# {path.name}

Try it: `{first_command(path, kind)}`

What to change, in this order:

1. {what}.
2. `prompt.md`: what candidates are asked; `eval.yaml`: how many items, of which types, the checks, the sampling. The two must agree: a
   prompt that asks for three pairs and `items_per_sample: 5` make every reply a failure. (The embedded models always write three.)
3. The rubric: copy `rubrics/{rubric}.yaml`, give it a name of its own, and name it in `eval.yaml`; `qaeval rubric check NAME` reads it.
4. `labels/<rater>.jsonl`: letters by people. `qaeval export RUN --to labels` writes the items to label; `qaeval agreement RUN` says
   how far the judge can be trusted.
5. `task.py` runs the same eval in Inspect AI.
"""
