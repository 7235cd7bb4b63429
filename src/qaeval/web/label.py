"""The label page: one item at a time, blind, by keyboard; every label is on disk before the next item shows.

The page asks for its state and posts what the rater does; each answer is the new state. Every request names the item on
the screen, so that a second window, a double click or a request that is sent again changes nothing.
"""

import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

import orjson
from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qaeval.errors import QaevalError
from qaeval.labelling import Question, SittingProgress
from qaeval.records import Record
from qaeval.text.visible import visible
from qaeval.web.app import body_of, page
from qaeval.web.messages import (
    LANGUAGES,
    SKIP_REASONS,
    Language,
    number,
    preferred_language,
    text,
)

_MAX_NOTE: Final = 10_000
"""Characters of the longest note."""
_LANGUAGE_COOKIE: Final = "qaeval-language"
_SCRIPT_TEXTS: Final = (
    *("new_source", "same_source", "no_source", "offline", "refused", "not_stored"),
    *("question", "prompt", "answer", "chosen", "counting"),
)
"""Texts that the script shows."""

Form = TypeVar("Form", bound=Record)


class LabelSession(Protocol):
    """What the page needs of a `Sitting`; every change is on disk when the method returns."""

    def current(self) -> Question | None:
        """Return the first question without an answer; None at the end."""

    def record(self, assignment: str, letter: str, flags: Sequence[str], note: str, seconds: float) -> None:
        """Store a label."""

    def skip(self, assignment: str, reason: str, seconds: float) -> None:
        """Store that an item is not labelled."""

    def undo(self) -> Question | None:
        """Take the last answer back; None if there is none."""

    def progress(self) -> SittingProgress:
        """Return how far the sitting is."""


Section: TypeAlias = tuple[str, Sequence[str]]
"""Title and lines of a part of the last page."""


class _Answer(Record):
    """What a rater did with the item on the screen."""

    assignment: str
    note: str = Field(default="", max_length=_MAX_NOTE)
    seconds: float = Field(ge=0, allow_inf_nan=False)
    """Time that the item was on a visible screen."""


class _Letter(_Answer):
    letter: str
    flags: tuple[str, ...] = ()


class _Skip(_Answer):
    reason: Literal["undecidable", "language", "expertise", "broken"]


class _Undo(Record):
    assignment: str | None
    """None at the end, where no item is on the screen."""


class LabelPage:
    """The page of a sitting.

    Args:
        session: the sitting; its methods are called one at a time.
        summarise: writes the last page in a language.
        opinions: labels that differ about the item of an assignment, without names; such items cannot be skipped.
        run: name of the run.
        rater: name of the rater.
    """

    def __init__(
        self,
        session: LabelSession,
        *,
        summarise: Callable[[Language], Sequence[Section]],
        opinions: Callable[[str], Sequence[str]] | None = None,
        run: str,
        rater: str,
    ) -> None:
        self._session, self._summarise, self._opinions = session, summarise, opinions
        self._run, self._rater = run, rater
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """Return the routes of the page."""
        return [
            Route("/", self._page, methods=["GET"]),
            Route("/state", self._state, methods=["GET"]),
            Route("/summary", self._summary, methods=["GET"]),
            Route("/record", self._write(_Letter, self._record), methods=["POST"]),
            Route("/skip", self._write(_Skip, self._skip), methods=["POST"]),
            Route("/undo", self._write(_Undo, self._undo), methods=["POST"]),
        ]

    def is_finished(self) -> bool:
        """Return whether every item has an answer."""
        with self._lock:
            return self._session.current() is None

    def _page(self, request: Request) -> Response:
        chosen = request.query_params.get("lang")
        language = chosen if chosen in LANGUAGES else _language(request)
        response = page(
            "label.html.j2",
            t=partial(text, language=language),
            texts=orjson.dumps({name: text(name, language) for name in _SCRIPT_TEXTS}).decode(),
            language=language,
            languages=LANGUAGES,
            run=self._run,
            rater=self._rater,
            reasons=SKIP_REASONS,
            max_note=_MAX_NOTE,
            title=text("title" if self._opinions is None else "settle_title", language),
            can_skip=self._opinions is None,
        )
        if chosen in LANGUAGES:
            response.set_cookie(_LANGUAGE_COOKIE, language, path="/", httponly=True, samesite="strict")
        return response

    def _state(self, request: Request) -> Response:
        return self._locked(self._shown, _language(request))

    def _summary(self, request: Request) -> Response:
        def respond(language: Language) -> dict[str, Any]:
            sections = self._summarise(language)
            return {
                "sections": [
                    {"title": title, "lines": [visible(line) for line in lines]} for title, lines in sections
                ]
            }

        return self._locked(respond, _language(request))

    def _write(
        self, form: type[Form], write: Callable[[Form, Language], str]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that reads a form, writes what it says, and answers with the new state."""

        async def endpoint(request: Request) -> Response:
            try:
                answer = form.model_validate_json(await body_of(request))
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                return _error(400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")

            def respond(language: Language) -> dict[str, Any]:
                return self._shown(language, write(answer, language))

            return await run_in_threadpool(self._locked, respond, _language(request))

        return endpoint

    def _locked(self, respond: Callable[[Language], dict[str, Any]], language: Language) -> Response:
        try:
            with self._lock:
                return _json(respond(language))
        except QaevalError as error:
            return _error(409, str(error))

    def _shown(self, language: Language, message: str = "") -> dict[str, Any]:
        question = self._session.current()
        return {
            "item": None if question is None else self._item(question),
            "progress": _progress(self._session.progress(), language),
            "message": message,
        }

    def _item(self, question: Question) -> dict[str, Any]:
        opinions = self._opinions(question.assignment) if self._opinions else ()
        return {
            "assignment": question.assignment,
            "title": visible(question.title),
            "source": [visible(part) for part in question.parts],
            "support": question.support,
            "question": visible(question.question),
            "answer": visible(question.answer),
            "rejected": visible(question.rejected),
            "opinions": [visible(opinion) for opinion in opinions],
            "rubric": question.rubric,
            "scale": [level.model_dump() for level in question.scale],
            "flags": [flag.model_dump() for flag in question.flags],
        }

    def _is_shown(self, assignment: str | None) -> bool:
        """Return whether a window shows the item that is to be labelled now."""
        question = self._session.current()
        return assignment == (question.assignment if question else None)

    def _record(self, answer: _Letter, language: Language) -> str:
        if not self._is_shown(answer.assignment):
            return text("elsewhere", language)
        self._session.record(answer.assignment, answer.letter, answer.flags, answer.note, answer.seconds)
        return text("stored", language, letter=answer.letter)

    def _skip(self, answer: _Skip, language: Language) -> str:
        if not self._is_shown(answer.assignment):
            return text("elsewhere", language)
        reason = text(f"skip_{answer.reason}", "en")
        self._session.skip(
            answer.assignment, f"{reason}: {answer.note}" if answer.note else reason, answer.seconds
        )
        return text("skipped", language)

    def _undo(self, answer: _Undo, language: Language) -> str:
        if not self._is_shown(answer.assignment):
            return text("elsewhere", language)
        return text("undone" if self._session.undo() else "nothing_to_undo", language)


def _language(request: Request) -> Language:
    chosen = request.cookies.get(_LANGUAGE_COOKIE)
    if chosen in LANGUAGES:
        return chosen
    return preferred_language(request.headers.get("accept-language", ""))


def _progress(progress: SittingProgress, language: Language) -> dict[str, Any]:
    parts = [text("progress", language, done=progress.answered, total=progress.total)]
    if progress.median_seconds is not None and progress.remaining_seconds:
        parts += [
            text("pace", language, seconds=number(progress.median_seconds, language)),
            text("remaining", language, minutes=number(max(1, progress.remaining_seconds / 60), language)),
        ]
    share = progress.answered / progress.total if progress.total else 1.0
    return {"share": share, "text": " · ".join(parts)}


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def _error(status: int, reason: str) -> Response:
    return _json({"error": visible(reason)}, status)
