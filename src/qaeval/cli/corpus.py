"""Commands that come before a run: documents to chunks, chunks to the sample set."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from qaeval.cli.options import ChunksFile, EvalName, Fields, Number, Registry, SamplesFile, Seed, mapping
from qaeval.errors import DataError, StoreError, UsageError

_SHOWN: Final = 20
"""Unreadable documents that are named."""


def chunk(
    documents: Annotated[
        list[Path],
        typer.Argument(metavar="DOCS...", help="Files or folders of Markdown, HTML, PDF or plain text."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("chunks.jsonl"),
    size: Annotated[int, typer.Option("--size", min=1, help="Tokens of a chunk, at most.")] = 400,
    overlap: Annotated[
        int, typer.Option("--overlap", min=0, help="Tokens of a chunk's end that the next one repeats.")
    ] = 0,
    min_tokens: Annotated[
        int | None,
        typer.Option(
            "--least", min=0, help="Tokens from which a heading begins a new chunk; a quarter of the size."
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer",
            help="tokenizer.json of the candidate, or a folder that holds one; else four tokens are three words.",
        ),
    ] = None,
    language: Annotated[
        str, typer.Option("--language", help="Language of the documents, like en or de.")
    ] = "",
    skip_unreadable: Annotated[
        bool,
        typer.Option("--skip-unreadable", help="Leave out documents that cannot be read, and name them."),
    ] = False,
) -> None:
    """Cut documents into chunks. Whole blocks, headings kept as context, boilerplate dropped; no table row or code line is cut."""
    from qaeval.corpus.chunking import chunk_documents, tokenizer_counter, words_counter
    from qaeval.corpus.reading import find_documents, read_documents
    from qaeval.report.numbers import plural

    _require_new(out)
    ignored: Counter[str] = Counter()
    files = find_documents(documents, ignored)
    if not files:
        raise UsageError(
            f"no Markdown, HTML, PDF or plain text in {', '.join(map(str, documents))}; ignored: {_ignored(ignored)}"
        )
    read, problems = read_documents(files)
    if problems:
        _tell_unreadable(problems, len(files), left_out=skip_unreadable)
    count = tokenizer_counter(tokenizer) if tokenizer else words_counter()
    chunks = list(chunk_documents(read, size=size, overlap=overlap, min_tokens=min_tokens, count=count))
    if not chunks:
        raise UsageError(f"{', '.join(map(str, documents))}: nothing but boilerplate; no chunk was made")
    first = {chunk.text: chunk.chunk_id for chunk in reversed(chunks)}
    more = {"language": language} if language else {}
    rows = [{**chunk.row(), **more} for chunk in chunks if first[chunk.text] == chunk.chunk_id]
    _write(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    tokens = sorted(int(row["n_tokens"]) for row in rows)
    print(
        f"{out}: {plural(len(rows), 'chunk')} of {plural(len(read), 'document')}, {tokens[len(tokens) // 2]:,} tokens in the middle"
    )
    if large := sum(n > size for n in tokens):
        print(f"{large:,} are larger than {size}: a single sentence, table row or line of code is never cut")
    if len(chunks) > len(rows):
        print(f"{len(chunks) - len(rows):,} repeat an earlier chunk word for word and were left out")
    if ignored:
        print(f"ignored, no documents: {_ignored(ignored)}", file=sys.stderr)
    print(f"next: qaeval compare MODEL MODEL --chunks {out}")


def _tell_unreadable(problems: Sequence[str], n_found: int, *, left_out: bool) -> None:
    """Name the documents that cannot be read; end here unless the user leaves them out."""
    shown = "\n  ".join(problems[:_SHOWN]) + (
        f"\n  and {len(problems) - _SHOWN:,} more" if len(problems) > _SHOWN else ""
    )
    said = f"{len(problems):,} of {n_found:,} documents cannot be read:\n  {shown}"
    if not left_out or len(problems) == n_found:
        raise DataError(said if left_out else f"{said}\nmend them, or leave them out with --skip-unreadable")
    print(f"left out: {said}", file=sys.stderr)


def _require_new(out: Path) -> None:
    if out.exists():
        raise UsageError(f"{out} is there already; choose another --out, or take it away first")


def _write(out: Path, text: str) -> None:
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"{out}: cannot be written: {error.strerror or error}; choose another --out"
        ) from error


def _ignored(ignored: Counter[str]) -> str:
    return (
        ", ".join(f"{n:,} {suffix or 'without a suffix'}" for suffix, n in ignored.most_common(8))
        or "nothing"
    )


def sample(
    eval_name: EvalName = None,
    chunks: ChunksFile = None,
    samples: SamplesFile = None,
    field: Fields = None,
    n: Number = None,
    seed: Seed = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File for the rows of what was drawn; stdout when left out.")
    ] = None,
    config: Registry = None,
) -> None:
    """Draw the sample set that a run would use. Stratified, by seed; the same words give the same set."""
    from qaeval.corpus.samples import load_samples
    from qaeval.corpus.sampling import draw, sample_set_digest
    from qaeval.evals.find import find_eval
    from qaeval.registry.find import find_config

    defaults = find_config(config).defaults
    definition = find_eval(eval_name or defaults.eval)
    everything = load_samples(definition, chunks=chunks, samples=samples, fields=mapping(field, "--field"))
    drawn = draw(everything, n=n, seed=defaults.seed if seed is None else seed)
    lines = "".join(json.dumps(one.row(), ensure_ascii=False) + "\n" for one in drawn)
    if out is None:
        sys.stdout.write(lines)
    else:
        _require_new(out)
        _write(out, lines)
    of, kept = Counter(one.stratum for one in everything), Counter(one.stratum for one in drawn)
    for stratum, total in sorted(of.items()):
        print(f"{stratum}: {kept[stratum]:,} of {total:,}", file=sys.stderr)
    print(
        f"{len(drawn):,} of {len(everything):,} samples, digest {sample_set_digest(drawn)}", file=sys.stderr
    )
