"""Refuse to replace a folder that holds a user's work."""

from pathlib import Path
from typing import Final

from qaeval.errors import UsageError
from qaeval.export.card import CARD_NAME, listed_files
from qaeval.files.rows import explained, file_sha256

_SHOWN_NAMES: Final = 3


def require_free(out: Path) -> None:
    """Refuse a folder with anything but an unchanged earlier export.

    Raises:
        UsageError: the path is a file, or the folder has other or changed files.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out}: expected a folder, this is a file; choose another --out")
    with explained(out, "reading"):
        names = sorted(entry.name for entry in out.iterdir())
        if not names:
            return
        card = out / CARD_NAME
        listed = listed_files(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
        if listed is None:
            shown = ", ".join([*names[:_SHOWN_NAMES], *(["…"] if len(names) > _SHOWN_NAMES else [])])
            raise UsageError(
                f"{out}: expected an empty folder or an earlier export with its {CARD_NAME}, found {shown}; "
                "choose another --out"
            )
        for name in names:
            if name != CARD_NAME and not _is_unchanged(out / name, listed.get(name)):
                raise UsageError(
                    f"{out}: {name} is not part of the earlier export, or was changed (labels filled in?), "
                    "and would be lost; choose another --out, or move it"
                )


def _is_unchanged(path: Path, sha256: str | None) -> bool:
    return path.is_file() and file_sha256(path) == sha256
