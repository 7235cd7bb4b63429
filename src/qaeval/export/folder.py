"""A folder that is there whole or not at all, and that never takes somebody's work away."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from qaeval.errors import UsageError
from qaeval.export.card import NAME, listed_files
from qaeval.files.rows import explained


def require_free(out: Path) -> None:
    """Refuse a folder that holds anything but a former export as it was written.

    Raises:
        UsageError: it is a file, or something in it is not of a former export or was changed since.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out}: expected a folder, this is a file; choose another --out")
    with explained(out, "reading"):
        there = sorted(entry.name for entry in out.iterdir())
        if not there:
            return
        card = out / NAME
        listed = listed_files(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
        if listed is None:
            raise UsageError(
                f"{out}: expected an empty folder or a former export, found {', '.join(there[:3])}"
                f"{', …' if len(there) > 3 else ''} and no {NAME} as an export writes it; choose another --out"  # noqa: PLR2004
            )
        for name in there:
            if name != NAME and not _as_written(out / name, listed.get(name)):
                raise UsageError(
                    f"{out}: {name} is not of the former export, or was changed since (labels filled in?); it would be "
                    "lost: choose another --out, or move it away"
                )


def write_folder(out: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Write files into a folder of their own, beside its place, and put it there when it is whole.

    Raises:
        UsageError: as in `require_free`.
        StoreError: it cannot be written.
    """
    require_free(out)
    place = out.resolve()
    partial, former = (place.with_name(f".{place.name}.{kind}") for kind in ("partial", "former"))
    with explained(out, "writing"):
        for left in (partial, former):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, data in files.items():
            with (partial / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if place.exists():
            place.rename(former)
        partial.rename(place)
        shutil.rmtree(former, ignore_errors=True)
    return tuple(out / name for name in files)


def _as_written(path: Path, sha256: str | None) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
