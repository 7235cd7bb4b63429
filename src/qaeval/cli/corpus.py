"""`qaeval chunk` and `qaeval sample`: documents to chunks, chunks to the sample set."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from qaeval.cli.options import ChunksFile, EvalName, Fields, Number, Registry, SamplesFile, Seed, mapping
from qaeval.errors import DataError, UsageError

_SHOWN: Final = 20
"""Unreadable documents listed in a message."""


def chunk(
    documents: Annotated[
        list[Path],
        typer.Argument(metavar="DOCS...", help="Files or folders of Markdown, HTML, PDF or plain text."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Chunk file to write.")] = Path("chunks.jsonl"),
    size: Annotated[int, typer.Option("--size", min=1, help="Maximum tokens per chunk.")] = 400,
    overlap: Annotated[
        int, typer.Option("--overlap", min=0, help="Maximum tokens repeated in the next chunk.")
    ] = 0,
    min_tokens: Annotated[
        int | None,
        typer.Option(
            "--least",
            min=0,
            help="Minimum tokens before a heading starts a new chunk; default: a quarter of --size.",
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer",
            help="Candidate's tokenizer.json, or its folder; default: four tokens per three words.",
        ),
    ] = None,
    language: Annotated[str, typer.Option("--language", help="Language of the documents: en, de, …")] = "",
    skip_unreadable: Annotated[
        bool,
        typer.Option("--skip-unreadable", help="Skip and list documents that cannot be read."),
    ] = False,
) -> None:
    """Cut documents into chunks.

    Chunks consist of whole blocks with their headings, without boilerplate. Sentences, table rows and lines
    of code are never cut.
    """
    from qaeval.corpus.chunking import chunk_documents, tokenizer_counter, words_counter
    from qaeval.corpus.reading import find_documents, read_documents
    from qaeval.files.whole import write_file
    from qaeval.report.numbers import plural

    _require_new(out)
    ignored: Counter[str] = Counter()
    files = find_documents(documents, ignored)
    if not files:
        names = ", ".join(map(str, documents))
        raise UsageError(f"no Markdown, HTML, PDF or plain text in {names}; ignored: {_ignored(ignored)}")
    read, problems = read_documents(files)
    if problems:
        _report_unreadable(problems, len(files), is_skipped=skip_unreadable)
    count = tokenizer_counter(tokenizer) if tokenizer else words_counter()
    chunks = list(chunk_documents(read, size=size, overlap=overlap, min_tokens=min_tokens, count=count))
    if not chunks:
        raise UsageError(
            f"{', '.join(map(str, documents))}: no chunks, the documents are empty or boilerplate"
        )
    first = {chunk.text: chunk.chunk_id for chunk in reversed(chunks)}
    extra = {"language": language} if language else {}
    rows = [{**chunk.row(), **extra} for chunk in chunks if first[chunk.text] == chunk.chunk_id]
    write_file(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    tokens = sorted(int(row["n_tokens"]) for row in rows)
    median = tokens[len(tokens) // 2]
    print(f"{out}: {plural(len(rows), 'chunk')} of {plural(len(read), 'document')}, median {median:,} tokens")
    if large := sum(n > size for n in tokens):
        print(f"{large:,} larger than {size} tokens: sentences, table rows and code lines are never cut")
    if len(chunks) > len(rows):
        print(f"{plural(len(chunks) - len(rows), 'duplicate')} of earlier chunks left out")
    if ignored:
        print(f"ignored files: {_ignored(ignored)}", file=sys.stderr)
    print(f"next: qaeval compare MODEL MODEL --chunks {out}")


def _report_unreadable(problems: Sequence[str], n_found: int, *, is_skipped: bool) -> None:
    """List the unreadable documents; raise an error unless they are skipped."""
    shown = "\n  ".join(problems[:_SHOWN]) + (
        f"\n  and {len(problems) - _SHOWN:,} more" if len(problems) > _SHOWN else ""
    )
    message = f"{len(problems):,} of {n_found:,} documents cannot be read:\n  {shown}"
    if not is_skipped or len(problems) == n_found:
        raise DataError(
            message if is_skipped else f"{message}\nfix them, or skip them with --skip-unreadable"
        )
    print(f"skipped: {message}", file=sys.stderr)


def _require_new(out: Path) -> None:
    if out.exists():
        raise UsageError(f"{out} exists; choose another --out, or remove it first")


def _ignored(ignored: Counter[str]) -> str:
    return (
        ", ".join(f"{n:,} {suffix or 'without suffix'}" for suffix, n in ignored.most_common(8)) or "nothing"
    )


def sample(
    eval_name: EvalName = None,
    chunks: ChunksFile = None,
    samples: SamplesFile = None,
    field: Fields = None,
    n: Number = None,
    seed: Seed = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File for the drawn samples; default: stdout.")
    ] = None,
    config: Registry = None,
) -> None:
    """Draw the sample set of a run.

    The draw is stratified and depends only on data and seed.
    """
    from qaeval.corpus.samples import load_samples
    from qaeval.corpus.sampling import draw, sample_set_digest
    from qaeval.evals.find import find_eval
    from qaeval.files.whole import write_file
    from qaeval.registry.find import find_config

    defaults = find_config(config).defaults
    definition = find_eval(eval_name or defaults.eval)
    available = load_samples(definition, chunks=chunks, samples=samples, fields=mapping(field, "--field"))
    drawn = draw(available, n=n, seed=defaults.seed if seed is None else seed)
    lines = "".join(json.dumps(drawn_sample.row(), ensure_ascii=False) + "\n" for drawn_sample in drawn)
    if out is None:
        sys.stdout.write(lines)
    else:
        _require_new(out)
        write_file(out, lines)
    totals = Counter(available_sample.stratum for available_sample in available)
    counts = Counter(drawn_sample.stratum for drawn_sample in drawn)
    for stratum, total in sorted(totals.items()):
        print(f"{stratum}: {counts[stratum]:,} of {total:,}", file=sys.stderr)
    digest = sample_set_digest(drawn)
    print(f"{len(drawn):,} of {len(available):,} samples, digest {digest}", file=sys.stderr)
