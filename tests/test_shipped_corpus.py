"""The shipped chunks: their sources, split and draws, and how the build tool cuts documents."""

import importlib.util
import json
import re
import sys
import tarfile
from collections import Counter, defaultdict
from itertools import combinations
from math import ceil, floor
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import pytest

from qaeval import api
from qaeval.comparison.planning import plan_assumed
from qaeval.comparison.run_data import read_labels
from qaeval.corpus.loading import load_chunks
from qaeval.corpus.sampling import draw
from qaeval.files.spool import SpooledRows
from qaeval.labelling import Sitting
from qaeval.labelling.transfer import import_labels
from qaeval.records import Sample
from qaeval.storage.run_directory import RunStore

ROOT = Path(__file__).parents[1]
EVAL = ROOT / "evals" / "qa_pairs"
BY_HAND = "written for this project"


def read_rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EVAL / name).read_text(encoding="utf-8").splitlines()]


ROWS = read_rows("chunks.jsonl")
MORE = read_rows("chunks-more.jsonl")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_corpus", ROOT / "tools" / "build_corpus.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_chunk_has_source_and_licence_in_the_notices(tool: ModuleType) -> None:
    notices = (EVAL / "NOTICES").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^(\w+)==(\S+) --hash=sha256:[0-9a-f]{64}$", tool.PINS.read_text(), re.MULTILINE))
    licences = {package.name: package.licence for package in tool.PACKAGES}
    assert pins.keys() == licences.keys()
    for row in (*ROWS, *MORE):
        if row["source"] == BY_HAND:
            assert row["licence"] == "Apache-2.0", row["chunk_id"]
        else:
            package, version, path = row["source"].replace(",", "").split(" ")
            assert (version, row["licence"]) == (pins[package], licences[package]), row["chunk_id"]
            assert path.endswith(row["document"].removeprefix(f"{package}/"))
            assert f"{package} {version} · {row['licence']}" in notices
    for text in (
        "Copyright 2010 Pallets",
        "Holger Krekel",
        "Encode OSS",
        "Benoît Chesneau",
        "SQLAlchemy authors",
    ):
        assert text in notices


def test_corpus_has_the_documented_strata_and_lengths(tool: ModuleType) -> None:
    sizes = Counter(row["stratum"] for row in ROWS)
    packages = {package.name: tool.PER_PACKAGE for package in tool.PACKAGES}
    assert sizes == {
        "self-hosting": 67,
        "tiny": 3,
        "fictional": 70,
        "german": 35,
        "hostile": 15,
        **packages,
    }
    assert (len(ROWS), len(ROWS) + len(MORE)) == (260, 500)
    assert len({row["chunk_id"] for row in (*ROWS, *MORE)}) == 500
    lengths = {name: [] for name in sizes}
    for row in ROWS:
        lengths[row["stratum"]].append(len(row["text"].split()))
    assert max(lengths["tiny"]) < 20
    assert (
        median(n for name, words in lengths.items() if name not in {"self-hosting", "tiny"} for n in words)
        >= 200
    )
    for row in (*(row for row in ROWS if row["stratum"] in packages), *MORE):
        assert tool.SHORTEST <= len(row["text"].split()) <= tool.LONGEST
    assert tool.statistics(ROWS, MORE) in (EVAL / "README.md").read_text(encoding="utf-8")


def test_documents_and_related_chunks_are_in_one_split() -> None:
    assert Counter(row["split"] for row in ROWS) == {"tuning": 130, "held-out": 130}
    splits_by_document = defaultdict(set)
    for row in (*ROWS, *MORE):
        splits_by_document[row["document"]].add(row["split"])
    assert {len(split) for split in splits_by_document.values()} == {1}
    by_stratum = Counter((row["stratum"], row["split"]) for row in ROWS)
    for stratum, split in by_stratum:
        other_split = "tuning" if split == "held-out" else "held-out"
        assert abs(by_stratum[stratum, split] - by_stratum[stratum, other_split]) <= 1
    by_id = {row["chunk_id"]: row for row in ROWS}
    related = [(row, key) for row in ROWS for key in ("near_duplicate_of", "contradicts") if key in row]
    assert Counter(key for _, key in related) == {"near_duplicate_of": 4, "contradicts": 4}
    for row, key in related:
        assert by_id[row[key]][key] == row["chunk_id"]
        assert by_id[row[key]]["split"] == row["split"]


@pytest.mark.slow
def test_near_duplicates_are_marked() -> None:
    words_by_id = {row["chunk_id"]: frozenset(row["text"].split()) for row in (*ROWS, *MORE)}
    marked = {
        frozenset((row["chunk_id"], row["near_duplicate_of"])) for row in ROWS if "near_duplicate_of" in row
    }
    near_duplicates = {
        frozenset((first, second))
        for first, second in combinations(words_by_id, 2)
        if 0.8 < len(words_by_id[first]) / len(words_by_id[second]) < 1 / 0.8
        and len(words_by_id[first] & words_by_id[second])
        > 0.8 * len(words_by_id[first] | words_by_id[second])
    }
    assert near_duplicates == marked


@pytest.mark.parametrize("n", [20, 50, 100])
def test_draw_covers_large_strata_and_both_languages(n: int) -> None:
    samples = SpooledRows(Sample, map(Sample.of, load_chunks(EVAL / "chunks.jsonl")))
    for seed in range(5):
        drawn = draw(samples, n=n, seed=seed)
        sizes = Counter(sample.stratum for sample in drawn)
        for stratum, size in Counter(row["stratum"] for row in ROWS).items():
            assert floor(n * size / len(ROWS)) <= sizes[stratum] <= ceil(n * size / len(ROWS))
        assert len(sizes) >= 9
        assert {"de", "en"} <= {sample.chunk.language for sample in drawn}


@pytest.mark.slow
def test_readme_states_the_detectable_difference() -> None:
    _, _, first_paragraph, *_ = (EVAL / "README.md").read_text(encoding="utf-8").splitlines()
    plans = [
        plan_assumed(rate=rate, icc=0.2, items_per_chunk=3, n_chunks=n, difference=0.05, power=0.8)
        for rate in (0.8, 0.5)
        for n in (len(ROWS), len(ROWS) + len(MORE))
    ]
    for (pair,) in (plan.pairs for plan in plans):
        assert f"{pair.n_chunks} chunks" in first_paragraph
        assert f" {100 * pair.detectable:.1f} points" in first_paragraph


@pytest.mark.slow
def test_labels_have_the_split_of_their_chunk(tmp_path: Path) -> None:
    chunks = [
        {"id": split or "open", "text": f"The pump starts at 5 bar. It stops at {n} bar.", "split": split}
        for n, split in enumerate(("tuning", "held-out", ""))
    ]
    path = tmp_path / "chunks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in chunks))
    api.compare(["embedded-lead"], chunks=path, out=tmp_path / "run", labels=[])
    # the embedded judge is tuned, so a sitting excludes the tuning half; an imported file may include it
    with Sitting.open(tmp_path / "run", rater="anna", seed=0) as sitting:
        while (question := sitting.current()) is not None:
            sitting.record(question.assignment, "B")
    sitting_labels = read_labels(tmp_path / "run" / "labels" / "anna.jsonl")
    assert Counter((label.chunk_id, label.split) for label in sitting_labels) == {
        ("held-out", "held-out"): 3,
        ("open", "held-out"): 3,
    }
    with RunStore.open(tmp_path / "run") as store:
        items = [item.item_id for row in store.generations() for item in row.items]
    (tmp_path / "bert.csv").write_text("item_id,label\n" + "".join(f"{item},B\n" for item in items))
    import_labels(tmp_path / "run", [tmp_path / "bert.csv"])
    path = tmp_path / "run" / "labels" / "bert.jsonl"
    assert Counter(label.split for label in read_labels(path)) == {"tuning": 3, "held-out": 6}
    (agreement,) = api.agreement(tmp_path / "run", labels=path).agreement
    assert (agreement.n_labels, agreement.n_tuning_excluded) == (9, 3)


def test_unknown_split_values_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "chunks.jsonl"
    path.write_text('{"id": "a", "text": "x", "split": "train"}\n{"id": "b", "text": "x", "split": ["a"]}\n')
    assert [chunk.split for chunk in load_chunks(path)] == ["", ""]


# ---------------------------------------------------------------- the tool

RST = """\
=====
Pumps
=====

Starts a pump.

Valves
------

A valve. ::

    not a heading
    =============

Low pressure
~~~~~~~~~~~~
text
"""


def test_headings_of_restructured_text(tool: ModuleType) -> None:
    headings = tool.headings(RST, markdown=False)
    assert [(level, title) for _, level, title in headings] == [
        (1, "Pumps"),
        (2, "Valves"),
        (3, "Low pressure"),
    ]
    assert [RST[offset:].partition("\n")[0] for offset, _, _ in headings] == [
        "=====",
        "Valves",
        "Low pressure",
    ]


def test_headings_of_markdown_exclude_comments_in_code(tool: ModuleType) -> None:
    text = "# Pumps\n\n```sh\n# start\n```\n\n## `stop` ##\n"
    assert [(level, title) for _, level, title in tool.headings(text, markdown=True)] == [
        (1, "Pumps"),
        (2, "`stop`"),
    ]


def test_cutting_by_words_keeps_text_and_heading_path(tool: ModuleType) -> None:
    text = "# Pumps\n" + "word " * 400 + "\n## Valves\n" + "other " * 400
    parts = tool.sections("a.md", text, at_headings=False)
    assert [part.n_words for part in parts] == [300, 300, 204]
    assert [part.title for part in parts] == ["Pumps", "Pumps", "Pumps > Valves"]
    assert all(part.text in text for part in parts)
    at_headings = tool.sections("a.md", text, at_headings=True)
    assert [(part.title, part.n_words) for part in at_headings] == [("Pumps", 402), ("Pumps > Valves", 402)]


def test_documentation_with_a_different_licence_is_refused(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "p-1.0" / "docs").mkdir(parents=True)
    (tmp_path / "p-1.0" / "docs" / "guide.md").write_text("# Pumps\n" + "word " * 200)
    package = tool.Package("p", "MIT", "docs", ("LICENSE",), 1 - tool.PER_PACKAGE)
    archive = tmp_path / "p-1.0.tar.gz"

    def build_rows() -> list[dict[str, Any]]:
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(tmp_path / "p-1.0", "p-1.0")
        rows: list[dict[str, Any]] = tool.package_rows(package, archive)
        return rows

    (row,) = build_rows()
    assert (row["source"], row["licence"], row["title"]) == ("p 1.0, docs/guide.md", "MIT", "Pumps")
    (tmp_path / "p-1.0" / "docs" / "index.rst").write_text(
        "All documentation is licensed under `Creative\nCommons 3.0`_"
    )
    with pytest.raises(SystemExit, match=r"index\.rst"):
        build_rows()


def test_related_chunks_get_the_same_split(tool: ModuleType) -> None:
    rows = [
        {"chunk_id": str(n), "document": f"{n}.md", "stratum": "ab"[n % 2], "text": str(n)} for n in range(40)
    ]
    rows[1]["near_duplicate_of"] = "2"
    rows[7]["contradicts"] = "1"
    tool.split_by_document(rows, {"3.md": "tuning", "4.md": "tuning"})
    assert len({rows[n]["split"] for n in (1, 2, 7)}) == 1
    assert rows[3]["split"] == rows[4]["split"] == "tuning"
    assert Counter(row["split"] for row in rows) == {"tuning": 20, "held-out": 20}
    second_rows = [dict(row) for row in rows]
    tool.split_by_document(second_rows, {row["document"]: row["split"] for row in rows})
    assert second_rows == rows
