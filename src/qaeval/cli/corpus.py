"""`qaeval chunk` and `qaeval sample`: documents to chunks, chunks to the sample set."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from qaeval.cli.options import (
    AllocationOption,
    ChunksFile,
    DuplicateIdsOption,
    EvalName,
    Fields,
    Number,
    Registry,
    SamplesFile,
    Seed,
    mapping,
)
from qaeval.cli.terminal import say, say_json
from qaeval.errors import UsageError


def chunk(
    documents: Annotated[
        list[Path],
        typer.Argument(metavar="DOCS", help="Files or folders of Markdown, HTML, PDF or plain text."),
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
    language: Annotated[
        str,
        typer.Option(
            "--language",
            help="Language of the documents: en, de, …; default: the language that each document states.",
        ),
    ] = "",
    skip_unreadable: Annotated[
        bool,
        typer.Option("--skip-unreadable", help="Skip and list documents that cannot be read."),
    ] = False,
) -> None:
    """Cut documents into chunks.

    Chunks consist of whole blocks with their headings, without boilerplate. Sentences, table rows and lines
    of code are not cut, unless they are far larger than --size.
    """
    from qaeval.corpus.chunking import tokenizer_counter
    from qaeval.corpus.documents import cut_documents
    from qaeval.files.whole import write_file
    from qaeval.report.numbers import plural

    _require_new(out)
    cut = cut_documents(
        documents,
        size=size,
        overlap=overlap,
        min_tokens=min_tokens,
        count=tokenizer_counter(tokenizer) if tokenizer else None,
        language=language,
        skip_unreadable=skip_unreadable,
        processes=os.cpu_count() or 1,
    )
    if cut.unreadable:
        say(f"skipped: {cut.unreadable}", error=True)
    write_file(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in cut.rows))
    median = sorted(cut.n_tokens)[len(cut.n_tokens) // 2]
    say(
        f"{out}: {plural(len(cut.rows), 'chunk')} of {plural(cut.n_documents, 'document')}, median {median:,} tokens"
    )
    if large := sum(n > size for n in cut.n_tokens):
        say(f"{large:,} larger than {size} tokens: sentences, table rows and code lines are not cut")
    if cut.without_chunk:
        say(cut.without_chunk, error=True)
    if cut.n_duplicates:
        say(f"{plural(cut.n_duplicates, 'duplicate')} of earlier chunks left out")
    if cut.ignored:
        say(f"ignored files: {cut.ignored}", error=True)
    say(f"next: qaeval compare MODEL MODEL --chunks {out}")


def _require_new(out: Path) -> None:
    if out.exists():
        raise UsageError(f"{out} exists; choose another --out, or remove it first")


def sample(
    eval_name: EvalName = None,
    chunks: ChunksFile = None,
    samples: SamplesFile = None,
    field: Fields = None,
    duplicate_ids: DuplicateIdsOption = "refuse",
    n: Number = None,
    seed: Seed = None,
    allocation: AllocationOption = "proportional",
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
    from qaeval.files.whole import whole_file
    from qaeval.registry.find import find_config

    defaults = find_config(config).defaults
    definition = find_eval(eval_name or defaults.eval)
    available = load_samples(
        definition,
        chunks=chunks,
        samples=samples,
        fields=mapping(field, "--field"),
        duplicate_ids=duplicate_ids,
    )
    drawn = draw(available, n=n, seed=defaults.seed if seed is None else seed, allocation=allocation)
    if out is None:
        for drawn_sample in drawn:
            say_json(drawn_sample.row())
    else:
        _require_new(out)
        with whole_file(out) as file:
            file.writelines(f"{json.dumps(each.row(), ensure_ascii=False)}\n".encode() for each in drawn)
    totals = Counter(available_sample.stratum for available_sample in available)
    counts = Counter(drawn_sample.stratum for drawn_sample in drawn)
    for stratum, total in sorted(totals.items()):
        say(f"{stratum}: {counts[stratum]:,} of {total:,}", error=True)
    weights = {drawn_sample.weight for drawn_sample in drawn}
    if len(weights) > 1:
        say(
            f"drawn with a probability of {1 / max(weights):.2g} to {1 / min(weights):.2g} (inclusion): reports and gates weigh by it",
            error=True,
        )
    digest = sample_set_digest(drawn)
    say(f"{len(drawn):,} of {len(available):,} samples, digest {digest}", error=True)
