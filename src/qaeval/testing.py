"""Models and runs for your own tests: no server, no GPU, no network.

::

    from qaeval.testing import ScriptedModel, make_run, pairs_reply, registered


    def test_my_report(tmp_path):
        run = make_run(tmp_path / "run", {"mistral": ["AAB", "ABB"], "qwen": ["AAA", "x"]})
        assert run.report.candidates[1].failed.n == 3


    def test_my_prompt(tmp_path):
        model = ScriptedModel(lambda request: pairs_reply([("factual", "Why?", "Because.")] * 3))
        with registered("mine", model):
            qaeval.generate("mine", n=2, out=tmp_path / "run")
        assert len(model.requests) == 2
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Final

from qaeval import api
from qaeval.agreement.label_files import require_rater_name
from qaeval.chat.protocol import ChatError, ChatRequest, Completion
from qaeval.errors import DataError, UsageError
from qaeval.records import Usage
from qaeval.registry.plugins import locally_registered

__all__ = ["ScriptedModel", "facts_reply", "grade_reply", "make_run", "pairs_reply", "registered"]

_TYPES: Final = ("factual", "conceptual", "comparison")
"""Types of the items of the eval ``qa_pairs``, in their order."""
_WORD: Final = re.compile(r"(?:[A-C]!?|-){3}|x")
_WORST: Final = "C"
_USAGE: Final = Usage(prompt_tokens=400, completion_tokens=90)
_LATENCY_S: Final = 0.25


class ScriptedModel:
    """A model whose replies are given: a function of the request, or one text after the other.

    Args:
        replies: Called with each request and returns the reply's text; or the texts, in the order of the requests. A `ChatError`,
            raised or in the sequence, is a request without a reply.
        latency_s: What each reply says it took, in seconds.

    Attributes:
        requests: Every request, in the order of arrival.
    """

    def __init__(
        self,
        replies: Callable[[ChatRequest], str] | Sequence[str | ChatError],
        *,
        latency_s: float = _LATENCY_S,
    ) -> None:
        self._replies = replies
        self._latency_s = latency_s
        self.requests: list[ChatRequest] = []

    async def complete(self, request: ChatRequest) -> Completion:
        """Give the next reply.

        Raises:
            ChatError: The script says so, or has no reply left.
        """
        number = len(self.requests)
        self.requests.append(request)
        if callable(self._replies):
            reply: str | ChatError = self._replies(request)
        elif number < len(self._replies):
            reply = self._replies[number]
        else:
            reply = ChatError(
                "endpoint", f"the script has {len(self._replies)} replies, this is request {number + 1}"
            )
        if isinstance(reply, ChatError):
            raise reply
        return Completion(reply, "stop", _USAGE, self._latency_s)


@contextmanager
def registered(name: str, model: object) -> Iterator[None]:
    """Register a model under a name while the block runs, as candidate and as judge; it comes before an entry of the registry.

    Args:
        name: Name of the model, as in ``qaeval.compare([name, ...])``.
        model: Any object with ``async def complete(request)``, for example a `ScriptedModel`.
    """
    with locally_registered(name, lambda: model):
        yield


def pairs_reply(pairs: Sequence[tuple[str, str, str]]) -> str:
    """Write the reply of a candidate of ``qa_pairs``: type, question and answer of each pair."""
    keys = ("type", "question", "answer")
    return json.dumps({"pairs": [dict(zip(keys, pair, strict=True)) for pair in pairs]})


def grade_reply(
    letter: str,
    reason: str = "scripted",
    *,
    flags: Mapping[str, bool] = MappingProxyType({"hallucination": False}),
    flaw: str = "",
) -> str:
    """Write the reply of a judge: reason, every flag of the rubric (default: that of ``qa_pair_abc``), letter, flaw if any."""
    return json.dumps({"reason": reason, **flags, "letter": letter, **({"flaw": flaw} if flaw else {})})


def facts_reply(facts: Mapping[str, str], reason: str = "scripted") -> str:
    """Write the reply of a judge to a rubric with ``decide: facts``: reason, and the answer to each fact."""
    return json.dumps({"reason": reason, **facts})


def make_run(
    path: str | PathLike[str],
    letters: Mapping[str, Sequence[str]],
    *,
    labels: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    judge: str = "scripted-judge",
) -> api.Run:
    """Make a graded run of the eval ``qa_pairs`` whose letters are given, by the engine itself.

    Args:
        path: Run directory to make.
        letters: By candidate one word per chunk: three letters of A, B, C; ``!`` after a letter raises the flag *hallucination*,
            ``-`` is an item that the judge gave no letter, ``x`` (for the whole word) a failed generation.
        labels: By rater and candidate, words like those of `letters`; ``-`` is an item without a label. They are written to
            ``<path>/labels/<rater>.jsonl`` and loaded with the run.
        judge: Name of the judge.

    Returns:
        The run, graded; `Run.write_report` writes its report.

    Raises:
        DataError: Candidates have different numbers of chunks, a word is none of these, or labels are of another candidate or number of
            chunks.
        UsageError: `path` exists and is not an empty folder, or the name of a rater cannot be that of a file.
    """
    n_chunks = _checked(letters)
    for rater, given in (labels or {}).items():
        _check_labels(require_rater_name(rater), given, letters, n_chunks)
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path}: exists and is not an empty folder; choose another path")
    path.mkdir(parents=True, exist_ok=True)
    chunks = path / "chunks.jsonl"
    chunks.write_text(
        "".join(json.dumps(_chunk(index)) + "\n" for index in range(n_chunks)), encoding="utf-8"
    )
    with ExitStack() as stack:
        for name, words in letters.items():
            stack.enter_context(registered(name, ScriptedModel(_candidate(name, words))))
        stack.enter_context(registered(judge, ScriptedModel(_judge(letters))))
        run = api.generate(list(letters), eval_name="qa_pairs", chunks=chunks, out=path, cache=False)
        run = api.grade(run, judge=judge, rubric="qa_pair_abc", cache=False)
    files = _write_labels(run, labels or {})
    return api.load_run(path, labels=files)


def _checked(letters: Mapping[str, Sequence[str]]) -> int:
    lengths = {len(words) for words in letters.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise DataError(
            f"letters: expected the same number of chunks, at least 1, for each candidate, got {sorted(lengths)}"
        )
    for name, words in letters.items():
        _check_words(f"letters of {name}", words)
    return lengths.pop()


def _check_labels(
    rater: str, labels: Mapping[str, Sequence[str]], letters: Mapping[str, Sequence[str]], n_chunks: int
) -> None:
    for name, words in labels.items():
        where = f"labels of {rater} for {name}"
        if name not in letters:
            raise DataError(f"{where}: expected one of the candidates {', '.join(letters)}")
        if len(words) != n_chunks:
            raise DataError(f"{where}: expected {n_chunks} words, one for each chunk, got {len(words)}")
        _check_words(where, words)


def _check_words(where: str, words: Sequence[str]) -> None:
    for word in words:
        if not _WORD.fullmatch(word):
            raise DataError(
                f"{where}: expected three of A, B, C or - (a ! raises the flag), or x; got {word!r}"
            )


def _chunk(index: int) -> dict[str, str]:
    return {
        "chunk_id": f"chunk-{index:03}",
        "text": f"Chunk {index}. Valve {index} opens at {index + 2} bar. It closes again within {index + 5} seconds.",
        "stratum": "odd" if index % 2 else "even",
    }


def _candidate(name: str, words: Sequence[str]) -> Callable[[ChatRequest], str]:
    def reply(request: ChatRequest) -> str:
        index = _index(request)
        if words[index] == "x":
            return "Sure! Here are the pairs:"
        return pairs_reply([(kind, _question(name, index, kind), _answer(index)) for kind in _TYPES])

    return reply


def _question(name: str, index: int, kind: str) -> str:
    return f"{name}, {kind}: when does valve {index} open?"


def _answer(index: int) -> str:
    return f"At {index + 2} bar."


def _judge(letters: Mapping[str, Sequence[str]]) -> Callable[[ChatRequest], str]:
    marks = {
        (_question(name, index, kind), _answer(index)): mark
        for name, words in letters.items()
        for index, word in enumerate(words)
        for kind, mark in zip(_TYPES, _marks(word), strict=False)
    }

    def reply(request: ChatRequest) -> str:
        # a planted control has a question of the script with another answer
        mark = marks.get((request.inputs["question"], request.inputs["answer"]), _WORST)
        if mark == "-":
            return "no letter"
        return grade_reply(mark[0], flags={"hallucination": mark.endswith("!")})

    return reply


def _marks(word: str) -> list[str]:
    return re.findall(r"[A-C-]!?", word)


def _index(request: ChatRequest) -> int:
    match = re.match(r"Chunk (\d+)\.", request.inputs["chunk"])
    if match is None:
        raise DataError(f"expected a chunk of make_run, got {request.inputs['chunk'][:40]!r}")
    return int(match.group(1))


def _write_labels(run: api.Run, labels: Mapping[str, Mapping[str, Sequence[str]]]) -> list[Path]:
    files: list[Path] = []
    if not labels:
        return files
    table = run.letters
    for rater, by_candidate in labels.items():
        rows = []
        for name, words in by_candidate.items():
            own = table[(table["candidate"] == name) & (table["item_id"] != "")]
            for chunk, position, item in zip(own["chunk_id"], own["position"], own["item_id"], strict=True):
                marks = _marks(words[int(chunk.removeprefix("chunk-"))])
                if marks and marks[position][0] != "-":
                    rows.append({"item_id": item, "label": marks[position][0], "rater": rater})
        file = run.path / "labels" / f"{rater}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        files.append(file)
    return files
