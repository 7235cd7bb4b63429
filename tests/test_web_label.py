"""The label page without a browser: its responses, and what a request may change."""

import json
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from qaeval.errors import StoreError
from qaeval.evals.rubric import load_rubric, prompt_text
from qaeval.labelling import Question, SittingProgress
from qaeval.web.label import LabelPage
from qaeval.web.messages import LANGUAGES, TEXTS, preferred_language, text
from web_client import Answer, Client, serving

RUBRIC = load_rubric(Path("rubrics/qa_pair_abc.yaml"))


def make_question(assignment: str, **values: Any) -> Question:
    defaults: dict[str, Any] = {
        "title": "Valves",
        "parts": ("The valve opens at 3 bar. ", "It shuts after 9 s."),
        "support": (0,),
        "question": "When does it open?",
        "answer": "The valve opens at 3 bar.",
        "rejected": "",
        "rubric": prompt_text(RUBRIC),
        "scale": RUBRIC.scale,
        "flags": RUBRIC.flags,
    }
    return Question(assignment=assignment, number=1, **(defaults | values))


@dataclass
class Session:
    """A labelling session of three items in memory."""

    items: list[Question] = field(
        default_factory=lambda: [make_question("x1"), make_question("x2"), make_question("x3")]
    )
    log: list[tuple[object, ...]] = field(default_factory=list)
    broken: bool = False

    def current(self) -> Question | None:
        return self.items[len(self.log)] if len(self.log) < len(self.items) else None

    def record(self, *label: object) -> None:
        if self.broken:
            raise StoreError("labels.jsonl: no space left")
        self.log.append(label)

    skip = record

    def undo(self) -> Question | None:
        if not self.log:
            return None
        self.log.pop()
        return self.current()

    def progress(self) -> SittingProgress:
        pace = 6.4 if self.log else None
        n_left = len(self.items) - len(self.log)
        return SittingProgress(
            answered=len(self.log),
            total=len(self.items),
            labelled=len(self.log),
            skipped=0,
            median_seconds=pace,
            remaining_seconds=pace and pace * n_left,
            is_decided=False,
        )

    def summary(self, language: str) -> list[tuple[str, list[str]]]:
        return [("The end", [language])]


@pytest.fixture(scope="module")
def client_and_session() -> Iterator[tuple[Client, Session]]:
    session = Session()
    page = LabelPage(session, summarise=session.summary, run="run <1>", rater="anna")
    with serving(page.routes()) as (client, _):
        yield client, session


@pytest.fixture
def session(client_and_session: tuple[Client, Session]) -> Session:
    client_and_session[1].__init__()  # type: ignore[misc] # a new sitting on the same server for each test
    return client_and_session[1]


@pytest.fixture
def client(client_and_session: tuple[Client, Session], session: Session) -> Client:  # noqa: ARG001 - resets the sitting
    return Client(client_and_session[0].server).enter()


def post(client: Client, path: str, **values: object) -> Answer:
    return client.send("POST", path, json.dumps(values).encode())


def send_label(client: Client, assignment: str, letter: str = "A", **values: object) -> dict[str, Any]:
    response = post(client, "/record", assignment=assignment, letter=letter, seconds=2.5, **values)
    state: dict[str, Any] = json.loads(response.text)
    return state


def test_item_has_only_what_the_judge_sees(client: Client) -> None:
    item = json.loads(client.send("GET", "/state").text)["item"]
    assert item == {
        "assignment": "x1",
        "title": "Valves",
        "source": ["The valve opens at 3 bar. ", "It shuts after 9 s."],
        "support": [0],
        "question": "When does it open?",
        "answer": "The valve opens at 3 bar.",
        "rejected": "",
        "opinions": [],
        "rubric": prompt_text(RUBRIC),
        "scale": [
            {"letter": level.letter, "name": level.name, "meaning": level.meaning} for level in RUBRIC.scale
        ],
        "flags": [{"name": flag.name, "meaning": flag.meaning} for flag in RUBRIC.flags],
    }


def test_page_itself_has_no_item(client: Client) -> None:
    page = client.send("GET", "/").text
    assert "run &lt;1&gt;" in page
    assert "valve" not in page


def test_label_is_stored_and_the_next_item_is_shown(client: Client, session: Session) -> None:
    state = send_label(client, "x1", "C", flags=["hallucination"], note="bar, not Pa")
    assert session.log == [("x1", "C", ("hallucination",), "bar, not Pa", 2.5)]
    assert state["item"]["assignment"] == "x2"
    assert state["progress"] == {"share": 1 / 3, "text": "1 of 3 · 6 s per item · about 1 min left"}


def test_request_for_another_item_changes_nothing(client: Client, session: Session) -> None:
    send_label(client, "x1")
    log_before = list(session.log)
    assert send_label(client, "x1", "C")["message"] == text("elsewhere", "en")
    post(client, "/skip", assignment="x1", reason="broken", seconds=1)
    post(client, "/undo", assignment="x1")
    post(client, "/undo", assignment=None)
    assert session.log == log_before


def test_undo_returns_to_the_item(client: Client, session: Session) -> None:
    send_label(client, "x1")
    post(client, "/skip", assignment="x2", reason="broken", note="half a sentence", seconds=1)
    assert session.log[1] == ("x2", f"{text('skip_broken', 'en')}: half a sentence", 1.0)
    for assignment, expected in (("x3", "x2"), ("x2", "x1"), ("x1", "x1")):
        state = json.loads(post(client, "/undo", assignment=assignment).text)
        assert state["item"]["assignment"] == expected
    assert state["message"] == text("nothing_to_undo", "en")


def test_the_end_shows_the_summary_and_can_be_undone(client: Client, session: Session) -> None:
    for item in session.items:
        state = send_label(client, item.assignment)
    assert state["item"] is None
    summary = json.loads(client.send("GET", "/summary").text)
    assert summary == {"sections": [{"title": "The end", "lines": ["en"]}]}
    assert json.loads(post(client, "/undo", assignment=None).text)["item"]["assignment"] == "x3"


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("/record", {"letter": 1}),
        ("/record", {"flags": "hallucination"}),
        ("/record", {"seconds": -1}),
        ("/record", {"seconds": "NaN"}),
        ("/record", {"note": "x" * 10_001}),
        ("/record", {"rater": "another"}),
        ("/record", {"assignment": None}),
        ("/skip", {"reason": "bored"}),
    ],
)
def test_invalid_request_is_refused(
    client: Client, session: Session, path: str, values: dict[str, object]
) -> None:
    valid = {"/record": {"letter": "A", "seconds": 1.0}, "/skip": {"reason": "broken", "seconds": 1.0}}[path]
    assert post(client, path, **({"assignment": "x1"} | valid)).status == 200
    session.log.clear()
    response = post(client, path, **({"assignment": "x1"} | valid | values))
    assert response.status in {400, 409}
    assert session.log == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"assignment": "\\ud800", "letter": "A", "seconds": 1}']
)
def test_invalid_body_is_refused(client: Client, session: Session, body: bytes) -> None:
    assert client.send("POST", "/record", body).status == 400
    assert session.log == []


def test_a_label_that_cannot_be_stored_keeps_the_item(client: Client, session: Session) -> None:
    session.broken = True
    response = post(client, "/record", assignment="x1", letter="A", seconds=1)
    assert (response.status, json.loads(response.text)) == (409, {"error": "labels.jsonl: no space left"})
    session.broken = False
    assert send_label(client, "x1")["item"]["assignment"] == "x2"


def test_untrusted_text_has_visible_control_characters(client: Client, session: Session) -> None:
    session.items[0] = make_question(
        "x1", answer="a\0b\u202ec\r\nd\te\x1b[31m\ud800", parts=["<script>\u200f"]
    )
    item = json.loads(client.send("GET", "/state").text)["item"]
    assert item["answer"] == "a␀b[U+202E]c\nd\te␛[31m[U+D800]"
    assert item["source"] == ["<script>[U+200F]"]


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-AT,en;q=0.7", "de"),
        ("fr, de;q=0.4, en;q=0.5", "en"),
        ("fr", "en"),
        ("*;q=1, de;q=x", "en"),
    ],
)
def test_language_of_the_browser_is_used(client: Client, header: str, language: str) -> None:
    assert preferred_language(header) == language
    assert f'<html lang="{language}">' in client.send("GET", "/", accept_language=header).text


def test_selected_language_is_remembered(client: Client) -> None:
    response = client.send("GET", "/?lang=de")
    assert f"<title>{text('title', 'de')}" in response.text
    client.cookie += "; " + response.headers["set-cookie"].partition(";")[0]
    assert '<html lang="de">' in client.send("GET", "/").text
    assert json.loads(client.send("GET", "/state").text)["progress"]["text"] == "0 von 3"
    assert '<html lang="en">' in client.send("GET", "/?lang=xx", cookie=client.cookie.partition(";")[0]).text


def test_every_text_has_the_same_fields_in_every_language() -> None:
    def fields(template: str) -> set[str | None]:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name}

    for texts in TEXTS.values():
        assert len(texts) == len(LANGUAGES)
        assert all(texts)
        assert len({frozenset(fields(template)) for template in texts}) == 1
