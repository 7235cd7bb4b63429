"""Which files a server was started with, as far as this machine can see them."""

import hashlib
import os
from pathlib import Path
from typing import Final

_READ: Final = frozenset({".json", ".model", ".txt", ".jinja"})
"""Settings, tokenizer, index of the weights: read. Of the others, the weights, name and size count."""
_MOST_READ: Final = 64 * 2**20


def files_digest(folder: Path) -> str:
    """Hash a model's folder: names and sizes of all its files, and what the small ones say.

    Weights themselves are not read: 15 GB would take minutes before every stage. Files that were swapped for others of the same
    names and sizes are not noticed.

    Raises:
        OSError: the folder cannot be read.
    """
    lines = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        size = path.stat().st_size
        is_read = path.suffix in _READ and size <= _MOST_READ
        content = hashlib.sha256(path.read_bytes()).hexdigest() if is_read else "-"
        lines.append(f"{path.name}\t{size}\t{content}\n")
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()
