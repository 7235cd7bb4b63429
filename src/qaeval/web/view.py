"""The pages of `qaeval view`: runs of a folder with their verdicts, reports, progress, history, and labelling."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Receive, Scope, Send

from qaeval import __version__
from qaeval.api import load_run, report_page
from qaeval.comparison.html import PageLinks, render_html
from qaeval.comparison.overview import Overview, build_overview
from qaeval.comparison.report_file import load_report
from qaeval.environment import now
from qaeval.errors import DataError, QaevalError
from qaeval.history.model import history_of
from qaeval.history.read import read_runs
from qaeval.history.sections import render_history
from qaeval.labelling import Sitting
from qaeval.report import numbers
from qaeval.storage.run_directory import MANIFEST, RunStore, is_written
from qaeval.storage.runs import RowCounts, last_change, list_runs, next_command
from qaeval.text.visible import visible
from qaeval.web.app import body_of, page
from qaeval.web.label import LabelPage
from qaeval.web.summary import summary_sections

_MAX_REPORTS: Final = 8
"""Rendered reports in the cache."""
_MAX_SCREENS: Final = 1000
"""First screens in the cache of the list."""
_N_LABELS: Final = 100
"""Items of a sitting."""


@dataclass(frozen=True)
class _RunLine:
    """A run in the list."""

    name: str
    url: str
    label_url: str
    when: str
    context: str
    verdict: str
    state: str
    """State of the verdict; ``running``, ``stopped`` or ``unread`` of a run without one."""


class RunPages:
    """The pages over a folder of runs.

    Args:
        folder: the folder.
        first: name of the run that is shown at the start; empty: the list.
    """

    def __init__(self, folder: Path, first: str = "") -> None:
        self._folder, self._first = folder, first
        self._counts = RowCounts()
        self._sittings: dict[tuple[str, str], _OpenSitting] = {}
        self._open = ExitStack()
        self._lock = threading.Lock()
        self._page_of = lru_cache(_MAX_REPORTS)(_report_page)

    def routes(self) -> list[BaseRoute]:
        """Return the routes of the pages."""
        return [
            Route("/", self._shown(self._list), methods=["GET"]),
            Route("/runs/{name}", self._shown(self._run), methods=["GET"]),
            Route("/runs/{name}/state", self._shown(self._state), methods=["GET"]),
            Route("/compare", self._shown(self._compare), methods=["GET"]),
            Route("/history", self._shown(self._history), methods=["GET"]),
            Route("/label/{name}", self._shown(self._ask_rater), methods=["GET"]),
            Route("/label/{name}", self._start_labelling, methods=["POST"]),
            Route("/label/{name}/{rater}/{rest:path}", _LabelPages(self._sittings)),
        ]

    def close(self) -> None:
        """Close the sittings."""
        self._open.close()

    def _shown(self, respond: Callable[[Request], Response]) -> Callable[[Request], Any]:
        """Return an endpoint that answers an error with a page that says what to do."""

        async def endpoint(request: Request) -> Response:
            try:
                return await run_in_threadpool(respond, request)
            except (QaevalError, OSError) as error:
                return _error(_reason(error))

        return endpoint

    def _path(self, name: str) -> Path:
        """Return the directory of a run; only names of the list are accepted, so that no path leads out of the folder."""
        path = list_runs(self._folder).get(name)
        if path is None:
            raise DataError(f"{name}: no run of this name in {self._folder}")
        return path

    # ------------------------------------------------------------------ pages

    def _list(self, _: Request) -> Response:
        if self._first:
            first, self._first = self._first, ""
            return RedirectResponse(_url(first), 303)
        lines = [self._line(name, path) for name, path in list_runs(self._folder).items()]
        return page("view_runs.html.j2", lines=lines, folder=visible(str(self._folder)))

    def _line(self, name: str, path: Path) -> _RunLine:
        changed = last_change(path)
        when = f"{datetime.fromtimestamp(changed).astimezone():%Y-%m-%d %H:%M}" if changed else ""
        base = partial(_RunLine, name=visible(name), url=_url(name), label_url=_label_url(name), when=when)
        try:
            if not (path / MANIFEST).is_file():
                state = _activity(path)
                return base(context="", verdict=state, state=state.partition(",")[0])
            screen = _screen(path, changed)
        except (QaevalError, OSError) as error:
            return base(context="", verdict=visible(_reason(error)), state="unread")
        return base(context=visible(screen.context), verdict=visible(screen.verdict), state=screen.state)

    def _run(self, request: Request) -> Response:
        name = request.path_params["name"]
        path = self._path(name)
        if not (path / MANIFEST).is_file():
            command = visible(next_command(path))
            return page(
                "view_run.html.j2", name=visible(name), progress=self._progress(path), command=command
            )
        return HTMLResponse(self._page_of(path, name, _stamp(path)))

    def _state(self, request: Request) -> Response:
        path = self._path(request.path_params["name"])
        return JSONResponse({"finished": (path / MANIFEST).is_file(), **self._progress(path)})

    def _progress(self, path: Path) -> dict[str, Any]:
        with RunStore.open(path) as store:
            settings = store.settings()
        with self._lock:
            stages = self._counts.progress(path, settings)
        return {
            "activity": _activity(path),
            "stages": [
                {
                    "stage": progress.stage,
                    "done": progress.done,
                    "total": progress.total,
                    "share": min(1.0, progress.done / progress.total) if progress.total else 0.0,
                }
                for progress in stages
            ],
        }

    def _compare(self, request: Request) -> Response:
        names = list(dict.fromkeys(request.query_params.getlist("run")))
        if len(names) < 2:
            return _error("Pick two runs or more in the list, then compare them.", 400)
        run = load_run([self._path(name) for name in names])
        return HTMLResponse(report_page(run, PageLinks(home="/", label="")))

    def _history(self, _: Request) -> Response:
        links = {name: _url(name) for name in list_runs(self._folder)}
        history = history_of(*read_runs(self._folder))
        return HTMLResponse(render_history(history, version=__version__, links=links))

    # ------------------------------------------------------------------ labelling

    def _ask_rater(self, request: Request) -> Response:
        name = request.path_params["name"]
        self._path(name)
        return page("view_label.html.j2", name=visible(name), url=_label_url(name))

    async def _start_labelling(self, request: Request) -> Response:
        name = request.path_params["name"]
        form = parse_qs((await body_of(request)).decode(errors="replace"))
        rater = form.get("rater", [""])[0].strip()
        try:
            await run_in_threadpool(self._sit, name, rater)
        except QaevalError as error:
            return _error(str(error), 400)
        return RedirectResponse(f"{_label_url(name)}/{quote(rater, safe='')}/", 303)

    def _sit(self, name: str, rater: str) -> None:
        path = self._path(name)
        with self._lock:
            known = self._sittings.get((name, rater))
            if known is not None:
                if not known.page.is_finished():
                    return
                known.sitting.close()  # the next one asks for what is left
                del self._sittings[name, rater]
            sitting = self._open.enter_context(Sitting.open(path, rater, n=_N_LABELS))
            label_page = LabelPage(
                sitting,
                summarise=lambda language: summary_sections(sitting.summary(), language),
                run=path.resolve().name,
                rater=sitting.rater,
            )
            self._sittings[name, rater] = _OpenSitting(sitting, label_page, Router(label_page.routes()))


@dataclass(frozen=True)
class _OpenSitting:
    """A sitting of this server."""

    sitting: Sitting
    page: LabelPage
    pages: Router


class _LabelPages:
    """The label pages of the open sittings, each below its own address."""

    def __init__(self, sittings: dict[tuple[str, str], _OpenSitting]) -> None:
        self._sittings = sittings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        parameters = scope["path_params"]
        sitting = self._sittings.get((parameters["name"], parameters["rater"]))
        if sitting is None:
            await RedirectResponse(_label_url(parameters["name"]), 303)(scope, receive, send)
            return
        await sitting.pages({**scope, "path": f"/{parameters['rest']}", "root_path": ""}, receive, send)


@lru_cache(_MAX_SCREENS)
def _screen(path: Path, _stamp_of_files: float) -> Overview:
    return build_overview(load_report(path))


def _report_page(path: Path, name: str, _stamp_of_files: float) -> str:
    """Render the report of a finished run; of rows that this version cannot read, from ``report.json`` without items."""
    links = PageLinks(home="/", label=_label_url(name))
    try:
        return report_page(load_run([path]), links)
    except (QaevalError, KeyError):
        return render_html(load_report(path), links=links)


def _stamp(path: Path) -> float:
    """Return when the run or its labels changed last."""
    labels = path / "labels"
    times = [file.stat().st_mtime for file in labels.glob("*.jsonl")] if labels.is_dir() else []
    return max([last_change(path), *times])


def _activity(path: Path) -> str:
    """Say whether a process writes a run without a report."""
    if is_written(path):
        return "running"
    quiet = max(0.0, datetime.fromisoformat(now()).timestamp() - last_change(path))
    return f"stopped, last written {numbers.seconds(max(1, round(quiet)))} ago"


def _reason(error: QaevalError | OSError) -> str:
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)


def _url(name: str) -> str:
    return f"/runs/{quote(name, safe='')}"


def _label_url(name: str) -> str:
    return f"/label/{quote(name, safe='')}"


def _error(reason: str, status: int = 404) -> Response:
    return page("view_error.html.j2", status, reason=visible(reason))
