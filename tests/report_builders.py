"""Small runs for the tests of analysis and report: chunks and letters in, the arguments of `build_report` out.

A candidate's letters are one word per chunk: a letter of the scale, ``-`` for an item without a letter, ``x``
(for the whole word) for a failed generation; ``!`` behind a letter raises the flag.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from qaeval.comparison.analysis import Analysis, ReportOptions, RunData, RunRows, analyse
from qaeval.comparison.report import Report
from qaeval.records import Chunk, Failure, Generation, Grade, Item, Label, Sample, Session, Usage
from qaeval.report.facts import EvalFacts, Meaning, ModelFacts, RubricFacts, RunFacts

RUBRIC = RubricFacts(
    name="qa_quality",
    sha="r" * 64,
    scale=(
        Meaning(name="A", meaning="usable as it is"),
        Meaning(name="B", meaning="needs an edit"),
        Meaning(name="C", meaning="not usable"),
    ),
    flags=(Meaning(name="hallucination", meaning="says what the chunk does not"),),
    flaws=(
        Meaning(name="omission", meaning="leaves a part of the answer out"),
        Meaning(name="wrong", meaning="contradicts the chunk"),
    ),
)
RUN = RunFacts(
    id="demo",
    started="2026-01-05T10:00:00+00:00",
    finished="2026-01-05T10:20:00+00:00",
    qaeval_version="0.1.0",
    git_commit="abc123",
    python="3.11.7",
    command="qaeval compare alpha beta",
)
JUDGE = ModelFacts(
    name="judge-7b", kind="http", hf_id="example/judge-7b", licence="apache-2.0", server="vllm 0.26.0"
)


def candidate(name: str, **more: Any) -> ModelFacts:
    return ModelFacts(
        name=name, **{"kind": "http", "hf_id": f"example/{name}", "licence": "apache-2.0", **more}
    )


@dataclass(frozen=True)
class Case:
    """The arguments of `build_report`, easily replaced one by one."""

    rows: RunRows
    candidates: tuple[ModelFacts, ...]
    items_per_sample: int = 3
    run: RunFacts = RUN
    rubric: RubricFacts = RUBRIC
    judge: ModelFacts = JUDGE
    more: Mapping[str, Any] = field(default_factory=dict)

    def with_rows(self, **rows: Any) -> "Case":
        return replace(self, rows=replace(self.rows, **rows))

    def eval_facts(self) -> EvalFacts:
        return EvalFacts(
            name="qa_pairs",
            sha="e" * 64,
            prompt_sha="p" * 64,
            sample_set_digest="d" * 64,
            n_samples=len(self.rows.samples),
            items_per_sample=self.items_per_sample,
            seed=7,
            item_types=("fact", "why"),
        )

    def data(self, *, judge_tuned: bool = False) -> RunData:
        return RunData(
            rows=self.rows,
            eval_facts=self.eval_facts(),
            rubric=self.rubric,
            judge=self.judge,
            candidates=self.candidates,
            judge_tuned=judge_tuned,
        )

    def analysis(self, *, judge_tuned: bool = False, **options: Any) -> Analysis:
        return analyse(
            self.data(judge_tuned=judge_tuned), self.run, ReportOptions(**{**self.more, **options})
        )

    def report(self, **options: Any) -> Report:
        return self.analysis(**options).report

    def items(self, max_items: int | None = 20_000) -> Any:
        return self.analysis().items(max_items=max_items, marked=True)


def case(letters: Mapping[str, Sequence[str]], *, items_per_sample: int = 3, **facts: ModelFacts) -> Case:
    """Make a run from the letters of each candidate, one word per chunk."""
    n_chunks = {len(words) for words in letters.values()}
    (n,) = n_chunks
    samples = tuple(_sample(number) for number in range(n))
    generations, grades = [], []
    for name, words in letters.items():
        for sample, word in zip(samples, words, strict=True):
            if word == "x":
                generations.append(_failed(name, sample))
                continue
            marks = re.findall(r"([A-Z-])(!?)", word)
            made = _generation(name, sample, len(marks))
            generations.append(made)
            grades += [_grade(item, *mark) for item, mark in zip(made.items, marks, strict=True)]
    rows = RunRows(
        samples=samples, generations=tuple(generations), grades=tuple(grades), sessions=_sessions(letters, n)
    )
    named = tuple(facts.get(name.replace("-", "_"), candidate(name)) for name in letters)
    return Case(rows, named, items_per_sample)


@cache
def rich_case() -> Case:
    letters = {
        "alpha": ["AAA", "AAB", "x", "AA-", "ABC!"] * 5,
        "beta": ["AAB", "ABB", "BBC", "ACC!", "AAA"] * 5,
        "embedded-lead": ["ABC", "BBB", "C!BC", "ABB", "BBA"] * 5,
    }
    lead = candidate(
        "embedded-lead", kind="embedded", hf_id="", licence="", description="takes the first sentences"
    )
    made = case(letters, embedded_lead=lead)
    items = items_of(made, "alpha")[:30] + items_of(made, "beta")[:30]
    anna = [label_of(item, "ABAC"[index % 4]) for index, item in enumerate(items)]
    bert = [
        label_of(item, "AB"[index % 2], rater="claude", rater_kind="model")
        for index, item in enumerate(items[:36])
    ]
    made = made.with_rows(labels=(*anna, *bert))
    return replace(made, run=RUN.model_copy(update={"warnings": ("grades.jsonl: dropped a torn line",)}))


def label_of(grade_or_item: Any, letter: str, **more: Any) -> Label:
    return Label(
        item_id=grade_or_item.item_id, letter=letter, **{"rater": "anna", "rater_kind": "human", **more}
    )


def items_of(made: Case, name: str) -> list[Item]:
    """List the items that a candidate wrote, in the order of the samples."""
    return [
        item
        for row in made.rows.generations
        if isinstance(row, Generation) and row.candidate == name
        for item in row.items
    ]


def _sample(number: int) -> Sample:
    text = (
        f"Section {number}. The valve opens at {number + 2} bar and closes again within {number + 5} seconds."
    )
    stratum = "pumps" if number % 2 else "valves"
    return Sample.of(
        Chunk(chunk_id=f"doc-{number:03}", text=text, stratum=stratum, title=f"Section {number}")
    )


def _generation(name: str, sample: Sample, n_items: int) -> Generation:
    chunk = sample.chunk.chunk_id
    items = tuple(
        Item.of(
            sample.sample_id,
            place,
            type=("fact", "why")[place % 2],
            question=f"{name} asks {place} about {chunk}?",
            answer=f"It opens at the stated pressure, says {name} in answer {place}.",
        )
        for place in range(n_items)
    )
    return Generation(
        task_id=f"generate {name} {sample.sample_id}",
        candidate=name,
        sample_id=sample.sample_id,
        items=items,
        text="[raw]",
        usage=Usage(prompt_tokens=400, completion_tokens=90, cached_tokens=300),
        latency_s=1.5,
    )


def _failed(name: str, sample: Sample) -> Failure:
    return Failure(
        task_id=f"generate {name} {sample.sample_id}",
        stage="generate",
        model=name,
        sample_id=sample.sample_id,
        reason="invalid_json",
        detail="expected an object, got 'Sure! Here'",
        text="Sure! Here | are\nthe pairs: " + "many words " * 60,
        usage=Usage(prompt_tokens=400, completion_tokens=120),
        latency_s=2.0,
    )


def _grade(item: Item, letter: str, flag: str) -> Grade | Failure:
    if letter == "-":
        return Failure(
            task_id=f"grade {item.item_id}",
            stage="grade",
            model=JUDGE.name,
            sample_id="",
            item_id=item.item_id,
            reason="unparseable",
            detail="letter 'E' is not on the scale A/B/C",
            text='{"letter": "E"}',
            latency_s=0.5,
        )
    return Grade(
        task_id=f"grade {item.item_id}",
        judge=JUDGE.name,
        rubric_sha=RUBRIC.sha,
        item_id=item.item_id,
        letter=letter,
        flags=("hallucination",) if flag else (),
        flaw={"B": "omission", "C": "wrong"}.get(letter, ""),
        reason=f"Reads like {'an' if letter == 'A' else 'a'} {letter}.",
        text="{}",
        usage=Usage(prompt_tokens=700, completion_tokens=30),
        latency_s=0.5,
    )


def _sessions(names: Mapping[str, Any], n: int) -> tuple[Session, ...]:
    common: dict[str, Any] = {"started": "2026-01-05T10:00:00+00:00", "qaeval_version": "0.1.0"}
    made = [Session(stage="generate", model=name, seconds=60.0, n_tasks=n, **common) for name in names]
    return (*made, Session(stage="grade", model=JUDGE.name, seconds=90.0, n_tasks=n, **common))
