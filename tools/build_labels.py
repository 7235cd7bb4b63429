"""Draw the items of the shipped labels, write blind reading sheets, and turn the readings into label files.

    .venv/bin/python tools/build_labels.py draw            # evals/qa_pairs/items/drawn.jsonl
    .venv/bin/python tools/build_labels.py sheets FOLDER   # first-1..3.jsonl and second-1..2.jsonl, for blind readers
    .venv/bin/python tools/build_labels.py take FOLDER     # evals/qa_pairs/labels/, from their readings
    .venv/bin/python tools/build_labels.py measure         # agreement of the readings, and of the floor judge

A draw takes what comes first in the order of a hash: it is the same on every machine, and a part can be drawn
before the next one is written. The probability of an item is that of its chunk times that of the item among
those of its kind.
"""

import argparse
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeVar

import numpy as np

from qaeval.corpus.loading import load_chunks
from qaeval.evals.rubric import load_rubric
from qaeval.records import Chunk, Item, Label, Record, Sample
from qaeval.stats.estimate import Estimate
from qaeval.stats.reliability import confusion_matrix, kappa_interval
from qaeval.text.defects import DefectKind, HarmlessKind, Pair, variant
from qaeval.text.units import content_words
from qaeval_floor.candidates import lead, salient
from qaeval_floor.lexical import judge

ROOT: Final = Path(__file__).parents[1]
EVAL: Final = ROOT / "evals" / "qa_pairs"
ITEMS: Final = EVAL / "items"
LABELS: Final = EVAL / "labels"
RUBRIC: Final = load_rubric(ROOT / "rubrics" / "qa_pair_abc.yaml")
RUBRIC_NAME: Final = f"{RUBRIC.name}/{RUBRIC.version}"

FIRST, SECOND, SETTLED = "claude-1", "claude-2", "claude-3"
"""Raters: two blind readings, and the letters that settle where they differ."""

PARTS: Final[Mapping[str, int]] = {
    "self-hosting tiny": 45,
    "flask pytest starlette gunicorn sqlalchemy": 40,
    "fictional": 35,
    "german": 20,
    "hostile": 10,
}
"""Chunks to draw, by strata of the corpus: 150 of 260."""

QUOTAS: Final[Mapping[DefectKind | HarmlessKind, int]] = {
    "number": 20,
    "date": 2,
    "unit": 12,
    "name": 14,
    "negation": 16,
    "contradiction": 12,
    "omission": 26,
    "qualifier": 4,
    "implication": 8,
    "invented fact": 10,
    "unsupported addition": 6,
    "other question": 12,
    "vague question": 4,
    "honest refusal": 4,
}
"""Planted items by kind, 150 in all. Where fewer pairs can have the fault, other kinds take their places."""
LETTERS_BY_CONSTRUCTION: Final[Mapping[str, str]] = {
    **dict.fromkeys(("number", "date", "unit", "name", "negation", "contradiction"), "C"),
    **dict.fromkeys(("invented fact", "unsupported addition", "other question", "vague question"), "C"),
    "honest refusal": "B",
}
"""Letters that follow from the rubric's rules. Omissions, qualifiers and implications are a B or a C: they are read."""
N_PLANTED, N_SOUND, N_FLOOR = 150, 100, 50
N_ANSWERS, N_OWN = 90, 60
"""Items of the small model: answers to the questions of sound pairs, and pairs of its own."""
OVERLAPS: Final = (0.15, 0.45)
"""Limits of three strata of the small model's items, of the same size: its good items are rare."""
N_SHEETS: Final = {"first": 3, "second": 2}
SHARE_SECOND: Final = 3
"""One of this many items of each kind is read a second time."""

RowT = TypeVar("RowT")
ItemKind: TypeAlias = Literal["model", "planted", "sound", "floor"]


class WrittenPair(Record):
    """A pair that a person or a model wrote about a chunk: a row of `items/sound.jsonl` or `items/smollm2.jsonl`."""

    chunk_id: str
    type: str
    question: str
    answer: str
    candidate: str = ""
    """The model and how it was asked; empty: written to be sound."""


class DrawnItem(Record):
    """An item to label: a row of `items/drawn.jsonl`."""

    item_id: str
    kind: ItemKind
    origin: str
    """The candidate, or what was planted; empty: written to be sound."""
    change: str = ""
    """What was planted, for a reader."""
    chunk_id: str
    question: str
    answer: str
    inclusion: float
    """Probability of the draw, that of the chunk included."""


def order(text: str) -> str:
    """Return the place of a text in every draw."""
    return hashlib.sha256(f"labels|{text}".encode()).hexdigest()


def first(rows: Iterable[RowT], n: int, text: Callable[[RowT], str]) -> list[RowT]:
    """Draw n rows."""
    return sorted(rows, key=lambda row: order(text(row)))[:n]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    print(f"{path}: {len(lines)} rows")


# ---------------------------------------------------------------- draw


def drawn_chunks(chunks: Sequence[Chunk]) -> dict[str, float]:
    """Draw chunks; return their probabilities."""
    probabilities = {}
    for strata, n in PARTS.items():
        ids = [chunk.chunk_id for chunk in chunks if chunk.stratum in strata.split()]
        probabilities.update(dict.fromkeys(first(ids, n, str), n / len(ids)))
    return probabilities


def draw(chunks: Mapping[str, Chunk]) -> list[DrawnItem]:
    """Draw the items of all kinds."""
    chosen = drawn_chunks(list(chunks.values()))
    sound, model = (
        [WrittenPair(**row) for row in read_rows(ITEMS / name)] for name in ("sound.jsonl", "smollm2.jsonl")
    )
    if strangers := {pair.chunk_id for pair in (*sound, *model)} - set(chosen):
        raise SystemExit(f"pairs of chunks that are not drawn: {', '.join(sorted(strangers)[:5])}")
    drawn: dict[str, DrawnItem] = {}

    def add(kind: ItemKind, pair: WrittenPair, share: float, origin: str = "", change: str = "") -> None:
        chunk = chunks[pair.chunk_id]
        item = Item.of(
            Sample.of(chunk).sample_id, 0, type=pair.type, question=pair.question, answer=pair.answer
        )
        drawn.setdefault(
            item.item_id,
            DrawnItem(
                item_id=item.item_id,
                kind=kind,
                origin=origin,
                change=change,
                chunk_id=pair.chunk_id,
                question=pair.question,
                answer=pair.answer,
                inclusion=round(chosen[pair.chunk_id] * share, 6),
            ),
        )

    for kind, pair, share in written_or_floor(sound, chosen, chunks):
        add(kind, pair, share, pair.candidate)
    for pair, share in drawn_of_model(model, sound, chunks):
        add("model", pair, share, pair.candidate)
    for pair, share, kind, change in planted(sound, chunks):
        add("planted", pair, share, kind, change)
    if len(drawn) < N_SOUND + N_FLOOR + N_ANSWERS + N_OWN + N_PLANTED:
        raise SystemExit(
            f"only {len(drawn)} different items: an item was drawn as two kinds, or pairs are missing"
        )
    return sorted(drawn.values(), key=lambda item: item.item_id)


def text_of(pair: WrittenPair) -> str:
    """Return what tells a pair from others."""
    return f"{pair.chunk_id}\n{pair.question}\n{pair.answer}"


def written_or_floor(
    sound: Sequence[WrittenPair], chosen: Mapping[str, float], chunks: Mapping[str, Chunk]
) -> Iterator[tuple[ItemKind, WrittenPair, float]]:
    """Draw one item of each chunk, so that all of them have labels: a sound pair or one of the floor's; each with its share."""
    written: dict[str, list[WrittenPair]] = defaultdict(list)
    for pair in sound:
        written[pair.chunk_id].append(pair)
    with_sound = first(written, N_SOUND, lambda name: f"sound|{name}")
    for name in chosen:
        kind: ItemKind = "sound" if name in with_sound else "floor"
        of_floor = {text_of(pair): pair for pair in floor_pairs(chunks[name])}
        pairs = written[name] if kind == "sound" else list(of_floor.values())
        share = N_SOUND / len(written) if kind == "sound" else 1 - N_SOUND / len(written) * (name in written)
        yield kind, first(pairs, 1, text_of)[0], share / len(pairs)


def floor_pairs(chunk: Chunk) -> Iterator[WrittenPair]:
    """Yield the pairs of the embedded candidates."""
    for name, write in (("embedded-lead", lead), ("embedded-salient", salient)):
        for pair in write(chunk.text):
            yield WrittenPair(
                chunk_id=chunk.chunk_id,
                type=pair.type,
                question=pair.question,
                answer=pair.answer,
                candidate=name,
            )


def drawn_of_model(
    pairs: Sequence[WrittenPair], sound: Sequence[WrittenPair], chunks: Mapping[str, Chunk]
) -> Iterator[tuple[WrittenPair, float]]:
    """Draw items of the small model, the same number with a low, a middle and a high overlap; each with its share.

    The overlap is that of an answer with the answer of the sound pair that it answers, and that of a pair with its chunk.
    """
    answers = {(pair.chunk_id, pair.question): pair.answer for pair in sound}
    strata: dict[tuple[bool, int], list[WrittenPair]] = defaultdict(list)
    for pair in {text_of(pair): pair for pair in pairs}.values():
        reference = answers.get((pair.chunk_id, pair.question))
        if reference is None:
            overlap = share_of(f"{pair.question} {pair.answer}", chunks[pair.chunk_id].text)
        else:
            overlap = share_of(reference, pair.answer)
        strata[reference is not None, sum(overlap > limit for limit in OVERLAPS)].append(pair)
    for is_answer, total in ((True, N_ANSWERS), (False, N_OWN)):
        sizes = [len(strata[is_answer, level]) for level in range(3)]
        for level, n in enumerate(allocated(total, sizes)):
            for pair in first(strata[is_answer, level], n, text_of):
                yield pair, n / sizes[level]


def share_of(text: str, held: str) -> float:
    """Share of a text's content words that another text has."""
    words = set(content_words(text))
    return len(words & set(content_words(held))) / max(1, len(words))


def allocated(total: int, sizes: Sequence[int]) -> list[int]:
    """Divide a total equally among strata, none more than it has."""
    parts = [0] * len(sizes)
    while sum(parts) < min(total, sum(sizes)):
        smallest = min((n, index) for index, n in enumerate(parts) if n < sizes[index])[1]
        parts[smallest] += 1
    return parts


def planted(
    sound: Sequence[WrittenPair], chunks: Mapping[str, Chunk]
) -> Iterator[tuple[WrittenPair, float, str, str]]:
    """Draw faults that are planted into sound pairs: the changed pair, its share, what was planted, and the change."""
    pairs = {
        text_of(row): Pair(source=chunks[row.chunk_id].text, question=row.question, answer=row.answer)
        for row in sound
    }
    sources = {text_of(row): row for row in sound}
    options: dict[str, list[tuple[WrittenPair, str, str]]] = defaultdict(list)
    for key, pair in pairs.items():
        # an answer to another text in a language of its own would give itself away
        others = [
            pairs[other]
            for other in sorted(sources, key=order)
            if other != key and language(sources[other], chunks) == language(sources[key], chunks)
        ]
        for kind in QUOTAS:
            changed = variant(kind, pair, seed=0, others=others)
            if changed is not None:
                row = sources[key].model_copy(update={"question": changed.question, "answer": changed.answer})
                options[kind].append((row, changed.change, key))
    sizes = [len(options[kind]) for kind in QUOTAS]
    quotas = [min(n, size) for n, size in zip(QUOTAS.values(), sizes, strict=True)]
    while sum(quotas) < min(N_PLANTED, sum(sizes)):
        fullest = max(
            range(len(sizes)), key=lambda index: (sizes[index] > quotas[index], -quotas[index], -index)
        )
        quotas[fullest] += 1
    for kind, n in zip(QUOTAS, quotas, strict=True):
        for row, change, _ in first(options[kind], n, lambda option: f"{kind}\n{option[2]}"):  # noqa: B023
            yield row, n / len(options[kind]), kind, change


def language(pair: WrittenPair, chunks: Mapping[str, Chunk]) -> str:
    """Language of a pair's chunk."""
    return chunks[pair.chunk_id].language


# ---------------------------------------------------------------- sheets


def key_of(item: DrawnItem, reading: str) -> str:
    """Return a name of the item in a sheet that says nothing about it."""
    return order(f"{reading}|{item.item_id}")[:10]


def read_twice(items: Sequence[DrawnItem]) -> list[DrawnItem]:
    """Draw the items of the second reading: the same share of each kind."""
    chosen = []
    for kind in ("model", "planted", "sound", "floor"):
        of_kind = [item for item in items if item.kind == kind]
        chosen += first(of_kind, round(len(of_kind) / SHARE_SECOND), lambda item: f"again|{item.item_id}")
    return chosen


def sheets(items: Sequence[DrawnItem], reading: str) -> list[list[DrawnItem]]:
    """Divide items into sheets of one size, with all kinds in each, and the variants of a pair apart where possible."""
    of_reading = items if reading == "first" else read_twice(items)
    parts: list[list[DrawnItem]] = [[] for _ in range(N_SHEETS[reading])]
    for item in sorted(of_reading, key=lambda item: (item.kind, order(f"{reading}|{item.item_id}"))):
        parts.sort(key=lambda part: (len(part) // 3, akin(item, part), len(part)))
        parts[0].append(item)
    parts.sort(key=lambda part: key_of(part[0], reading))
    return [sorted(part, key=lambda item: key_of(item, reading)) for part in parts]


def akin(item: DrawnItem, others: Sequence[DrawnItem]) -> int:
    """Number of items with the same question or answer."""
    return sum(item.question == other.question or item.answer == other.answer for other in others)


def write_sheets(items: Sequence[DrawnItem], chunks: Mapping[str, Chunk], folder: Path) -> None:
    """Write what readers see: no kind, no origin, no letter."""
    for reading in N_SHEETS:
        for number, sheet in enumerate(sheets(items, reading), 1):
            rows = [
                {
                    "key": key_of(item, reading),
                    "title": chunks[item.chunk_id].title,
                    "chunk": chunks[item.chunk_id].text,
                    "question": item.question,
                    "answer": item.answer,
                }
                for item in sheet
            ]
            write_rows(folder / f"{reading}-{number}.jsonl", rows)


# ---------------------------------------------------------------- readings


def take(items: Sequence[DrawnItem], chunks: Mapping[str, Chunk], folder: Path) -> None:
    """Write the label files from readings: `first-*.jsonl`, `second-*.jsonl` and `settled.jsonl`, by item or key.

    `dropped.jsonl` names items that are left out, each with a reason.
    """
    dropped = {row["item_id"] for row in read_optional(folder / "dropped.jsonl")}
    by_key = {key_of(item, reading): item for item in items for reading in N_SHEETS}
    by_key |= {item.item_id: item for item in items}
    for rater, pattern in ((FIRST, "first-*.jsonl"), (SECOND, "second-*.jsonl"), (SETTLED, "settled.jsonl")):
        rows = [row for path in sorted(folder.glob(pattern)) for row in read_rows(path)]
        labels = [
            label_of(by_key[row["key"]], row, rater, chunks)
            for row in rows
            if by_key[row["key"]].item_id not in dropped
        ]
        written = [label.model_dump(mode="json") for label in sorted(labels, key=lambda row: row.item_id)]
        if len({row["item_id"] for row in written}) < len(written):
            raise SystemExit(f"{pattern}: an item was read twice")
        write_rows(LABELS / f"{rater}.jsonl", written)


def read_optional(path: Path) -> list[dict[str, Any]]:
    """Read a JSONL file that need not be there."""
    return read_rows(path) if path.exists() else []


def label_of(item: DrawnItem, row: Mapping[str, Any], rater: str, chunks: Mapping[str, Chunk]) -> Label:
    """Return a label from a row of a reading; the note begins with the rule that decided."""
    rule = row.get("rule")
    decided = f"rule {rule}" if rule else "no rule applies"
    flags = tuple(sorted(row.get("flags") or ()))
    if row["letter"] not in RUBRIC.letters or set(flags) - {flag.name for flag in RUBRIC.flags}:
        raise SystemExit(f"{row['key']}: letter {row['letter']!r}, flags {flags}: not of the rubric")
    return Label(
        item_id=item.item_id,
        rater=rater,
        rater_kind="model",
        letter=row["letter"],
        flags=flags,
        rubric=RUBRIC_NAME,
        split=chunks[item.chunk_id].split or "held-out",
        note=f"{decided}: {row.get('note', '')}".strip(": "),
        chunk_id=item.chunk_id,
        question=item.question,
        answer=item.answer,
        settles=rater == SETTLED,
        inclusion=item.inclusion,
    )


# ---------------------------------------------------------------- measure


def read_labels(rater: str) -> dict[str, Label]:
    """Read a rater's labels, by item."""
    rows = read_optional(LABELS / f"{rater}.jsonl")
    return {row["item_id"]: Label.model_validate(row) for row in rows}


def references() -> dict[str, Label]:
    """Return the labels that count: the settled one where there is one, else that of the first reading."""
    return {**read_labels(FIRST), **read_labels(SETTLED)}


def measure(items: Sequence[DrawnItem], chunks: Mapping[str, Chunk]) -> None:
    """Print the agreement of the two readings, of the first with what was planted, and of the floor judge."""
    kinds = {item.item_id: item for item in items}
    one, two, final = read_labels(FIRST), read_labels(SECOND), references()
    shared = sorted(set(one) & set(two))
    print(
        f"two blind readings: {described([one[name] for name in shared], [two[name].letter for name in shared])}"
    )
    for kind in ("model", "planted", "sound", "floor"):
        names = [name for name in shared if kinds[name].kind == kind]
        print(f"  {kind}: {described([one[name] for name in names], [two[name].letter for name in names])}")
    pairs = Counter((rule_of(one[name]), rule_of(two[name])) for name in shared)
    print(
        f"the same rule: {sum(n for (a, b), n in pairs.items() if a == b)} of {len(shared)}; else (first, second):"
    )
    for (a, b), n in sorted(pairs.items(), key=lambda entry: (-entry[1], entry[0])):
        if a != b:
            print(f"  {a} | {b} | {n}")
    expected = {
        name: LETTERS_BY_CONSTRUCTION[item.origin]
        for name, item in kinds.items()
        if item.origin in LETTERS_BY_CONSTRUCTION and name in one
    }
    equal = sum(one[name].letter == letter for name, letter in expected.items())
    print(f"planted with a known letter: {len(expected)}, of which the first reading gives it to {equal}")
    print("letters by kind (after settling):")
    for kind in ("model", "planted", "sound", "floor"):
        print(
            f"  {kind}: {dict(sorted(Counter(final[name].letter for name in final if kinds[name].kind == kind).items()))}"
        )
    for half in ("tuning", "held-out"):
        labels = [label for label in final.values() if label.split == half]
        judged = [judge(chunks[label.chunk_id].text, label.question, label.answer).letter for label in labels]
        print(f"floor judge, {half}: {described(labels, judged)}")


def rule_of(label: Label) -> str:
    """Return the rule in a label's note."""
    return label.note.partition(":")[0]


def described(labels: Sequence[Label], letters: Sequence[str]) -> str:
    """Describe the agreement of labels with letters."""
    if not labels:
        return "none"
    code = RUBRIC.letters.index
    given, judged = [code(label.letter) for label in labels], [code(letter) for letter in letters]
    clusters = [label.chunk_id for label in labels]
    kappa: Estimate = kappa_interval(given, judged, clusters, n_levels=3)
    linear: Estimate = kappa_interval(given, judged, clusters, n_levels=3, weights="linear")
    table = confusion_matrix(given, judged, 3)
    return (
        f"{len(labels)} items of {len(set(clusters))} chunks, alike {np.trace(table) / table.sum():.3f}, "
        f"kappa {kappa.value:.2f} [{kappa.low:.2f}, {kappa.high:.2f}], linear {linear.value:.2f} "
        f"[{linear.low:.2f}, {linear.high:.2f}], A B C in rows {table.tolist()}"
    )


def main() -> None:
    """Run a step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("draw", "sheets", "take", "measure"))
    parser.add_argument("folder", type=Path, nargs="?", help="folder of sheets or readings")
    options = parser.parse_args()
    chunks = {chunk.chunk_id: chunk for chunk in load_chunks(EVAL / "chunks.jsonl")}
    if options.step == "draw":
        # a change of the rules that plant faults changes the draw, but not what has been read
        if (ITEMS / "drawn.jsonl").exists():
            raise SystemExit(f"{ITEMS / 'drawn.jsonl'} has labels; remove it to draw anew")
        write_rows(ITEMS / "drawn.jsonl", [item.model_dump(exclude_defaults=True) for item in draw(chunks)])
        return
    items = [DrawnItem(**row) for row in read_rows(ITEMS / "drawn.jsonl")]
    if options.step == "measure":
        measure(items, chunks)
    elif options.folder is None:
        parser.error(f"{options.step} needs a folder")
    else:
        {"sheets": write_sheets, "take": take}[options.step](items, chunks, options.folder)


if __name__ == "__main__":
    main()
