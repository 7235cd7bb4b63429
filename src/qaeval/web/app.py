"""The application of a local page: routes behind the guard, templates, and files of the package."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import ChoiceLoader, Environment, PackageLoader
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from qaeval.report.page import SCRIPT, STYLE, TICKS, page_environment
from qaeval.web.security import Access, Guard

_MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MAX_BODY: Final = 64 * 1024
"""Bytes of the largest form: a letter and a long note."""


def local_app(routes: Sequence[BaseRoute], access: Access) -> ASGIApp:
    """Return the application with the given routes, ``/static/…`` and nothing else."""
    # around Starlette and not one of its middlewares, so that the answer to a crash has the headers too
    return Guard(Starlette(routes=[*routes, Route("/static/{name}", _static, methods=["GET"])]), access)


@cache
def templates() -> Environment:
    """Return the templates of the local pages, with those and the filters of the reports."""
    environment = page_environment()
    environment.loader = ChoiceLoader([PackageLoader("qaeval.web"), PackageLoader("qaeval.report")])
    return environment


def page(template: str, status_code: int = 200, **values: Any) -> HTMLResponse:  # noqa: ANN401 - as jinja2
    """Return a page: a template of `qaeval.web`, rendered with all values escaped."""
    return HTMLResponse(templates().get_template(template).render(values), status_code)


async def body_of(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        HTTPException: 413, the body has more than 64 kB.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY:
            raise HTTPException(413, f"more than {_MAX_BODY // 1024} kB")
    return body


def _static(request: Request) -> Response:
    return _file(request.path_params["name"])


@cache
def _file(name: str) -> Response:
    """Return a file of the package; ``report.css`` and ``page.js`` are those of the reports."""
    if name == "report.css":
        style = templates().get_template(STYLE).render(widths=range(TICKS + 1))
        return Response(style, media_type="text/css")
    if name == SCRIPT:
        return Response(templates().get_template(SCRIPT).render(), media_type="text/javascript")
    folder = files("qaeval.web") / "static"
    file = next((file for file in folder.iterdir() if file.name == name), None)
    suffix = name[name.rfind(".") :]
    if file is None or suffix not in _MEDIA_TYPES:
        return PlainTextResponse("qaeval: no such file\n", status_code=404)
    return Response(file.read_bytes(), media_type=_MEDIA_TYPES[suffix])
