"""Create a project: whole or not at all, in a folder whose other files stay as they are."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from qaeval.corpus.documents import cut_documents
from qaeval.corpus.loading import DuplicateIds, load_chunks
from qaeval.corpus.new_eval import eval_files, require_eval_name, template
from qaeval.corpus.samples import load_samples
from qaeval.errors import QaevalError, UsageError
from qaeval.evals.definition import load_eval
from qaeval.evals.find import data_root
from qaeval.evals.rubric import load_rubric
from qaeval.files.rows import explained
from qaeval.files.whole import whole_folder, write_file
from qaeval.gate.policy import read_policy
from qaeval.projects.files import CI_FILES, GITIGNORE, Ci, Price, ci_file, gate_file, registry_file
from qaeval.projects.models import ProjectModels
from qaeval.projects.schemas import FOLDER, SCHEMAS, schema_text
from qaeval.records import Sample
from qaeval.registry.config import load_config

_KIND: Final = "qa_pair"


@dataclass(frozen=True)
class ProjectChunks:
    """The chunks of a project's eval."""

    rows: tuple[dict[str, object], ...]
    """Rows of ``chunks.jsonl``."""
    notes: tuple[str, ...] = ()
    """What was left out, in sentences."""


def chunks_of_documents(
    documents: Sequence[Path], *, size: int, language: str = "", skip_unreadable: bool = False
) -> ProjectChunks:
    """Cut documents into the chunks of a project; see `cut_documents`."""
    cut = cut_documents(documents, size=size, language=language, skip_unreadable=skip_unreadable)
    notes = (
        f"skipped: {cut.unreadable}" if cut.unreadable else "",
        cut.without_chunk,
        f"duplicate chunks left out: {cut.n_duplicates:,}" if cut.n_duplicates else "",
        f"ignored files: {cut.ignored}" if cut.ignored else "",
    )
    return ProjectChunks(cut.rows, tuple(filter(None, notes)))


def chunks_of_file(
    path: Path,
    *,
    fields: Mapping[str, str] = MappingProxyType({}),
    duplicate_ids: DuplicateIds = "refuse",
    language: str = "",
) -> ProjectChunks:
    """Read the chunks of a project from a chunk file; a language is that of chunks that state none."""
    chunks = load_chunks(path, fields, duplicate_ids=duplicate_ids)
    with_language = [
        chunk if chunk.language else chunk.model_copy(update={"language": language}) for chunk in chunks
    ]
    return ProjectChunks(tuple(Sample.of(chunk).row() for chunk in with_language))


def project_files(
    chunks: ProjectChunks,
    models: ProjectModels,
    *,
    name: str,
    price: Price | None = None,
    ci: Ci | None = None,
) -> dict[str, str]:
    """Return the text of each file of a project, by path.

    Args:
        chunks: Chunks of the eval.
        models: Candidates and judge.
        name: Name of the eval.
        price: Price of the machine; None: costs are machine time.
        ci: Service to write a CI file for.

    Raises:
        UsageError: the name is not that of an eval.
    """
    require_eval_name(name)
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chunks.rows)
    folder = Path("evals", name)
    files = eval_files(folder, kind=_KIND, data={"chunks.jsonl": rows}, command="qaeval init")
    definition = template(_KIND)
    rubric = load_rubric(data_root() / "rubrics" / f"{definition.rubric}.yaml")
    flags = tuple(flag.name for flag in rubric.flags)
    return {
        "qaeval.yaml": registry_file(models, eval_name=name, price=price),
        **{(folder / file).as_posix(): text for file, text in files.items()},
        "gate.yaml": gate_file(flags, n_chunks=len(chunks.rows), items_per_chunk=definition.items_per_sample),
        ".gitignore": GITIGNORE,
        **{f"{FOLDER}/{schema}.json": schema_text(schema) for schema in SCHEMAS},
        **({CI_FILES[ci]: ci_file(ci, models)} if ci else {}),
    }


def create_project(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Write the files of a project into a folder: all of them, or none.

    Files that are there with the same content count as written, so that the same command completes what a crash left.

    Args:
        folder: The folder; other files in it stay as they are.
        files: Text by path.

    Returns:
        Files of the folder that were kept in place of those of the project: ``.gitignore``.

    Raises:
        UsageError: a file is there with another content; the message names all of them.
        DataError: qaeval could not use the project as written.
        StoreError: the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder for the project, this is a file")
    existing = [name for name in files if name == ".gitignore" and (folder / name).is_file()]
    wanted = {name: text for name, text in files.items() if name not in existing}
    if clashes := _clashes(folder, wanted):
        raise UsageError(
            f"{folder} has files with the names of the project's: {', '.join(clashes)}. Nothing was written; choose another "
            "folder or --name, or move them away"
        )
    _check(folder, wanted)
    if folder.exists():
        _add(folder, wanted)
    else:
        with whole_folder(folder) as project:
            _lay(project, wanted)
    return existing


def _clashes(folder: Path, files: Mapping[str, str]) -> list[str]:
    """List the files in the way: other content, something other than a file, or strangers in the eval's folder."""
    clashes = []
    for name, text in files.items():
        path = folder / name
        blocked = next(
            (parent for parent in path.relative_to(folder).parents if (folder / parent).is_file()), None
        )
        if blocked is not None:
            clashes.append(str(blocked))
        elif os.path.lexists(path) and not (path.is_file() and path.read_bytes() == text.encode()):
            clashes.append(name)
    evals = {Path(name).parent for name in files if Path(name).name == "eval.yaml"}
    clashes += [
        str(path.relative_to(folder))
        for parent in sorted(evals)
        for path in sorted((folder / parent).glob("*"))
        if path.relative_to(folder).as_posix() not in files and not path.name.startswith(".")
    ]
    return list(dict.fromkeys(clashes))


def _lay(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files into a temporary folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())


def _check(folder: Path, files: Mapping[str, str]) -> None:
    """Read the files as the commands will, from a temporary folder; the messages name the folder of the project.

    Raises:
        DataError: one of them cannot be used.
    """
    with explained(folder, "writing"), tempfile.TemporaryDirectory(prefix="qaeval-init-") as temporary:
        project = Path(temporary)
        _lay(project, files)
        try:
            load_config(data_root() / "qaeval.yaml", project / "qaeval.yaml")
            read_policy(project / "gate.yaml")
            for definition in project.glob("evals/*/eval.yaml"):
                load_samples(load_eval(definition.parent))
        except QaevalError as error:
            raise type(error)(str(error).replace(str(project), str(folder))) from error


def _add(folder: Path, files: Mapping[str, str]) -> None:
    """Add the files to an existing folder; after a failure none of them is there."""
    added: list[Path] = []
    created: list[Path] = []
    try:
        for name, text in files.items():
            path = folder / name
            if path.exists():
                continue
            with explained(path, "writing"):
                for parent in reversed(path.relative_to(folder).parents[:-1]):
                    if not (folder / parent).is_dir():
                        (folder / parent).mkdir()
                        created.append(folder / parent)
            added.append(path)
            write_file(path, text)
    except BaseException:
        for path in reversed(added):
            path.unlink(missing_ok=True)
        for path in reversed(created):
            path.rmdir()
        raise
