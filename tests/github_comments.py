"""Responses of GitHub's comments API, for the test doubles; imports nothing slow."""

import re
from typing import Any

BOT = "github-actions[bot]"


def answer(comments: list[dict[str, Any]], method: str, path: str, body: Any) -> tuple[int, Any]:
    """Answer like GitHub's comments API; pull request 9 is not writable."""
    if method == "GET":
        page = int(re.findall(r"[?&]page=(\d+)", path)[0])
        return 200, comments[100 * (page - 1) : 100 * page]
    if "/issues/9/" in path:
        return 403, {"message": "Resource not accessible by integration"}
    if method == "POST":
        comments.append({"id": len(comments) + 1, "user": {"login": BOT}, **body})
        return 201, comments[-1]
    (comment,) = [comment for comment in comments if path.endswith(f"/issues/comments/{comment['id']}")]
    comment.update(body)
    return 200, comment
