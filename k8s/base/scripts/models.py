r"""Model folders on a volume: download a fixed revision, and check every byte before a server reads it.

    python models.py fetch  LIST ROOT [FOLDER...]   download what LIST names and ROOT does not have; then check
    python models.py check  LIST ROOT FOLDER...     check folders against the digests in LIST
    python models.py digest ROOT FOLDER...          print a folder's digest, to be written into LIST

LIST is JSON: {"<folder>": {"repository": …, "revision": <commit>, "digest": "sha256:…"}}. A folder's digest is the SHA-256 of
its sorted lines "<sha256>  <path>\n", which is what `sha256sum` prints. An entry without a repository is one that
somebody copied onto the volume (a LoRA adapter). An entry whose digest is null is never served: `fetch` downloads it, holds it
against what the hub says of that revision, prints the digest and fails, so that a person writes it down once.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

HUB = os.environ.get("HUB", "https://huggingface.co")
LOGIN = Path(os.environ.get("HUB_LOGIN", "/hub/token"))
BLOCK = 1 << 20
COMMIT = re.compile(r"[0-9a-f]{40}")
SKIPPED = (
    ".bin",
    ".pt",
    ".pth",
    ".gguf",
    ".h5",
    ".msgpack",
    ".onnx",
    ".md",
    ".png",
    ".jpg",
    ".gitattributes",
)
"""Not needed, or pickles: a pickle runs code when it is read, so weights are taken as safetensors alone."""


class Refused(Exception):  # noqa: N818 - what the user reads
    """A folder that must not be served."""


def sha256(path: Path) -> str:
    """Return the digest of one file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def git_id(path: Path) -> str:
    """Return the id that git gives a file: how the hub names small files."""
    found = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    found.update(path.read_bytes())
    return found.hexdigest()


def folder_digest(folder: Path) -> str:
    """Return one digest for all files of a folder. A link is refused: it may lead out of the folder."""
    if not folder.is_dir():
        raise Refused(f"{folder}: not there")
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    if links := [path for path in paths if path.is_symlink()]:
        raise Refused(f"{links[0]}: a link; only plain files can be checked")
    if not paths:
        raise Refused(f"{folder}: empty")
    lines = sorted(f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths)
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def check(listed: dict[str, Any], root: Path, names: list[str]) -> None:
    """Refuse a folder whose digest is not the one in the list."""
    for name in names:
        if name not in listed:
            raise Refused(f"{name}: not in the list of models")
        wanted, found = listed[name].get("digest"), folder_digest(root / name)
        if wanted is None:
            raise Refused(
                f'{name}: no digest is written down. If you trust what is there, write "digest": "{found}"'
            )
        if found != wanted:
            raise Refused(f"{name}: its digest is {found}, and the list says {wanted}")
        print(f"{name}: {found}")


class _OneHost(HTTPRedirectHandler):
    """The token is for the hub, not for the store of files that it sends a download to."""

    def redirect_request(self, req: Request, *rest: Any) -> Request | None:  # noqa: ANN401 - the library's
        """Follow; leave the token behind where the host changes."""
        following = super().redirect_request(req, *rest)
        if following and urlsplit(following.full_url).netloc != urlsplit(req.full_url).netloc:
            following.remove_header("Authorization")
        return following


def ask(url: str) -> Any:  # noqa: ANN401 - an open reply
    """GET with the token, if there is one."""
    token = LOGIN.read_text().strip() if LOGIN.is_file() else ""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(url, headers=headers)  # noqa: S310 - HUB is https unless the user says otherwise
    return build_opener(_OneHost).open(request, timeout=60)


def fetch(entry: dict[str, Any], name: str, folder: Path) -> None:
    """Download one revision; hold each file against the hub's own listing of it."""
    repository, revision = entry["repository"], entry.get("revision") or ""
    if not COMMIT.fullmatch(revision):
        raise Refused(
            f"{name}: `revision` has to be a commit of 40 digits, got {revision or 'null'}; a branch moves"
        )
    with ask(f"{HUB}/api/models/{repository}/revision/{revision}") as reply:
        said = json.load(reply)["sha"]
    if said != revision:
        raise Refused(f"{name}: asked for revision {revision}, the hub answers with {said}")
    with ask(f"{HUB}/api/models/{repository}/tree/{revision}?recursive=true") as reply:
        files = [
            file for file in json.load(reply) if file["type"] == "file" and not file["path"].endswith(SKIPPED)
        ]
    if not any(file["path"].endswith(".safetensors") for file in files):
        raise Refused(f"{name}: the revision has no weights as safetensors")
    for file in files:
        path = Path(file["path"])
        if path.is_absolute() or ".." in path.parts:
            raise Refused(f"{name}: the hub lists {file['path']!r}, which leads out of the folder")
        target = folder / path
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(target.name + ".part")
            with (
                ask(f"{HUB}/{repository}/resolve/{revision}/{quote(file['path'])}") as reply,
                part.open("wb") as out,
            ):
                shutil.copyfileobj(reply, out, BLOCK)
            part.rename(target)
            print(f"{name}: {file['path']}", flush=True)
        large = file.get("lfs")
        wanted, found = (large["oid"], sha256(target)) if large else (file["oid"], git_id(target))
        if wanted != found:
            target.unlink()
            raise Refused(f"{name}: {file['path']} is {found}, the hub says {wanted}; removed, try again")


def fetch_all(listed: dict[str, Any], root: Path, names: list[str]) -> None:
    """Fetch every folder, so that one round tells all digests; then refuse, if one was refused."""
    refusals = []
    for name in names or [name for name, entry in listed.items() if entry.get("repository")]:
        try:
            fetch(listed[name], name, root / name)
            check(listed, root, [name])
        except Refused as refused:
            refusals.append(str(refused))
    if refusals:
        raise Refused("\n".join(refusals))


def main(words: list[str]) -> int:
    """Return 0, or 65 when a folder is refused."""
    try:
        match words:
            case ["fetch", listing, root, *names]:
                fetch_all(json.loads(Path(listing).read_text()), Path(root), names)
            case ["check", listing, root, *names] if names:
                check(json.loads(Path(listing).read_text()), Path(root), names)
            case ["digest", root, *names] if names:
                for name in names:
                    print(name, folder_digest(Path(root) / name))
            case _:
                print(__doc__, file=sys.stderr)
                return 64
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 65
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
