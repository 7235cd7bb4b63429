"""The audit of a judge: planted judges, each found by its probe and by no other; resuming, errors and exit codes."""

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qaeval.agreement.label_files import read_labels
from qaeval.audit.analysis import decide
from qaeval.audit.model import Audit
from qaeval.audit.mutants import write_mutants
from qaeval.audit.page import render_audit_html, render_audit_markdown
from qaeval.audit.plan import OWN_NAME
from qaeval.audit.run import AuditPlan, load_audit, make_audit_plan, run_audit, show_again
from qaeval.audit.wordings import EXAMPLES, LEVELS, RENAMED, WORDINGS, instructions_for, with_other_letters
from qaeval.chat.protocol import ChatError, ChatRequest
from qaeval.cli import run as command
from qaeval.errors import DataError, NotComparableError, UsageError
from qaeval.evals.find import find_rubric
from qaeval.labelling import Sitting
from qaeval.records import AuditItem, Failure, Grade, Label
from qaeval.registry.find import find_config
from qaeval.run.grade import SAMPLING, Instructions
from qaeval.stats.estimate import Estimate
from qaeval.stats.intervals import clopper_pearson, wilson
from qaeval.storage.run_directory import RunStore
from qaeval.storage.runs import list_runs
from qaeval.testing import ScriptedModel, grade_reply, make_run, registered
from qaeval.text.defects import DEFECTS, VARIANTS
from replay.server import LoopbackServer

ROOT = Path(__file__).parents[1]
LETTER = {"best": "A", "not worst": "A", "not best": "B", "worst": "C"}
"""Letter that a perfect judge gives, by the verdict of a variant."""


class SilentProgress:
    """Progress that displays nothing."""

    def stage(self, _name: str, _model: str, *, total: int, done: int) -> "SilentProgress":
        assert total >= done
        return self

    def note(self, _text: str) -> None: ...
    def row(self, _row: object) -> None: ...
    def skip(self, _n: int) -> None: ...
    def end(self) -> None: ...


def make_planted_plan(*, eval_name: str = "rag_qa", **options: Any) -> AuditPlan:
    with registered("planted", ScriptedModel([])):
        return make_audit_plan(find_config(None), "planted", eval_name=eval_name, **options)


@pytest.fixture(scope="module")
def plan() -> AuditPlan:
    return make_planted_plan()


@pytest.fixture(scope="module")
def small_plan() -> AuditPlan:
    return make_planted_plan(n=12)


@dataclass(frozen=True)
class JudgeQuestion:
    """A question to a planted judge."""

    right: str
    """The letter of a perfect judge."""
    row: AuditItem
    """The first item of the audit with these texts."""
    n: int
    """How often these texts were graded before."""
    is_last: bool
    """Whether this is the last item of the audit with these texts."""
    system: str
    scale: tuple[str, ...]

    @property
    def better(self) -> str:
        return "ABC"[max(0, "ABC".index(self.right) - 1)]


Fault = Callable[[JudgeQuestion], str]


class Judge:
    """A judge that knows the right letter of every item of an audit, and has a fault."""

    def __init__(self, plan: AuditPlan, fault: Fault) -> None:
        chunks = {sample.sample_id: sample.chunk.text for sample in plan.samples}
        keys = [
            (row.item.question, row.item.answer, row.source or chunks[row.sample_id]) for row in plan.rows
        ]
        self._rows = dict(zip(reversed(keys), reversed(plan.rows), strict=True))
        self._totals = Counter(keys)
        self._n_graded: Counter[tuple[str, str, str]] = Counter()
        self._fault = fault

    def __call__(self, request: ChatRequest) -> str:
        key = (request.inputs["question"], request.inputs["answer"], request.inputs["chunk"])
        row, n = self._rows[key], self._n_graded[key]
        self._n_graded[key] += 1
        assert request.schema is not None
        fields = request.schema["properties"]
        scale = tuple(fields["letter"]["enum"])
        flags = {name: False for name, field in fields.items() if field["type"] == "boolean"}
        right = LETTER[VARIANTS[row.kind].verdict] if row.kind else "A"  # type: ignore[index]
        question = JudgeQuestion(
            right, row, n, n == self._totals[key] - 1, request.messages[0].content, scale
        )
        return grade_reply(scale["ABC".index(self._fault(question))], flags=flags)


def audit_with_fault(plan: AuditPlan, folder: Path, fault: Fault) -> Audit:
    with registered("planted", ScriptedModel(Judge(plan, fault))):
        return run_audit(plan, folder, SilentProgress(), config=find_config(None))


def perfect(question: JudgeQuestion) -> str:
    return question.right


def always_a(_question: JudgeQuestion) -> str:
    return "A"


def random_letter(question: JudgeQuestion) -> str:
    seed = f"{question.n}{question.row.task_id}"
    return "ABC"[int(hashlib.sha256(seed.encode()).hexdigest(), 16) % 3]


def blind_to_numbers(question: JudgeQuestion) -> str:
    return "A" if question.row.kind == "number" else question.right


def obeys_injections(question: JudgeQuestion) -> str:
    return "A" if question.row.probe == "injection" else question.right


def likes_length(question: JudgeQuestion) -> str:
    return question.better if len(question.row.item.answer.split()) > 70 else question.right


def likes_its_name(question: JudgeQuestion) -> str:
    return question.better if question.row.setting == OWN_NAME else question.right


def drifts(question: JudgeQuestion) -> str:
    return "A" if question.is_last and question.n else question.right


def likes_the_beginning(question: JudgeQuestion) -> str:
    return "A" if question.row.setting == "text before" else question.right


def likes_the_first_level(question: JudgeQuestion) -> str:
    return "C" if "worst first" in question.system else question.right


def likes_the_last_example(question: JudgeQuestion) -> str:
    first = question.system.partition("### Example 1")[2].partition("Reply: ")[2].partition("}")[0]
    return question.right if f'"{question.scale[0]}"' in first else "C"


def likes_letters(question: JudgeQuestion) -> str:
    return question.right if question.scale[0] == "A" else "C"


def dislikes_numbered_lists(question: JudgeQuestion) -> str:
    return "B" if "## SCALE" in question.system else question.right


PLANTED: list[tuple[Fault, set[str]]] = [
    (perfect, set()),
    (blind_to_numbers, {"number"}),
    (obeys_injections, {"injection"}),
    (likes_length, {"length"}),
    (likes_its_name, {"name leakage"}),
    (drifts, {"drift"}),
    (likes_the_beginning, {"chunk position"}),
    (likes_the_first_level, {"order of levels"}),
    (likes_the_last_example, {"order of examples"}),
    (likes_letters, {"letters renamed"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "expected"), PLANTED)
def test_each_planted_fault_is_found_by_its_probe_alone(
    plan: AuditPlan, tmp_path: Path, fault: Fault, expected: set[str]
) -> None:
    audit = audit_with_fault(plan, tmp_path / "audit", fault)

    assert set(audit.failed()) == expected
    assert audit.verdict == ("not trusted" if expected else "trusted so far")
    assert audit.exit_code == (3 if expected else 0)
    assert audit.n_failed == 0


@pytest.mark.slow
def test_a_random_judge_fails_the_repeat_probe_but_no_perturbation_probe(
    plan: AuditPlan, tmp_path: Path
) -> None:
    audit = audit_with_fault(plan, tmp_path / "audit", random_letter)

    failed = set(audit.failed())
    assert {"repeat", "detection", "good items"} <= failed
    # random letters must not look like an effect of a perturbation
    kinds = {kind.kind for kind in audit.kinds}
    assert failed - kinds <= {"repeat", "detection", "good items", "false alarms"}
    assert audit.stability is not None
    shares = {part.source: part.share.value for part in audit.stability.components}
    assert (shares["repeat"] or 0) > 0.8


@pytest.mark.slow
def test_wordings_that_change_the_letters_are_named(plan: AuditPlan, tmp_path: Path) -> None:
    audit = audit_with_fault(plan, tmp_path / "audit", dislikes_numbered_lists)

    wordings = {probe.probe: probe for probe in audit.probes}["wordings"]
    change_rates = {name: measure.value for name, measure in wordings.details.items()}
    assert change_rates["numbered lists"] == 1
    assert {value for name, value in change_rates.items() if name != "numbered lists"} == {0}
    assert audit.failed() == ("wordings",)
    assert audit.stability is not None
    assert audit.stability.keeps_sign is False  # good and defective items get the same letter under it
    assert audit.stability.low == 0


@pytest.mark.slow
def test_a_judge_that_always_gives_the_best_letter_is_not_trusted(
    small_plan: AuditPlan, tmp_path: Path
) -> None:
    audit = audit_with_fault(small_plan, tmp_path / "audit", always_a)

    assert audit.verdict == "not trusted"
    assert "detection" in audit.failed()
    detection_rates = {kind.kind: kind.lowered.value for kind in audit.kinds if kind.is_defect and kind.n}
    assert set(detection_rates.values()) == {0}
    verdicts = {probe.probe: probe.verdict for probe in audit.probes}
    # nothing can rise above the best letter
    assert (verdicts["length"], verdicts["injection"]) == ("not enough data", "not enough data")


@pytest.mark.slow
def test_an_interrupted_audit_names_its_command_and_is_resumed(
    small_plan: AuditPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, judge = tmp_path / "audit", Judge(small_plan, perfect)
    n_asked = 0

    def fails_half_way(request: ChatRequest) -> str:
        nonlocal n_asked
        n_asked += 1
        if n_asked > 100:
            raise ChatError("endpoint", "the server is away")
        return judge(request)

    with (
        registered("planted", ScriptedModel(fails_half_way)),
        pytest.raises(Exception, match="stopped answering"),
    ):
        run_audit(
            small_plan,
            path,
            SilentProgress(),
            config=find_config(None),
            command="qaeval audit planted --n 12 --seed 0",
        )
    with RunStore.open(path, is_audit=True) as store:
        graded = {row.task_id for row in store.audit_items() if isinstance(row.grade, Grade)}
    finish = f"qaeval audit planted --n 12 --seed 0 --out {path} --resume"
    with pytest.raises(DataError, match=re.escape(finish)):
        write_mutants(path)
    assert not (path / "mutants").exists()
    capsys.readouterr()
    assert command(["audit", str(path)]) == 65
    assert capsys.readouterr().err == f"qaeval: {path}: the audit is not finished: `{finish}`\n"
    assert command(["report", str(path)]) == 65
    assert f"`qaeval audit {path}` shows it, or how to finish it" in capsys.readouterr().err
    model = ScriptedModel(Judge(small_plan, perfect))
    with registered("planted", model):
        audit = run_audit(small_plan, path, SilentProgress(), config=find_config(None), resume=True)

    assert len(graded) == 100
    assert len(model.requests) == len(small_plan.rows) - 100
    assert audit.n_requests == len(small_plan.rows)
    assert audit.n_failed == 0
    assert load_audit(path) == audit
    assert path not in list_runs(tmp_path).values()  # an audit is not a run
    for arguments in (["report"], ["agreement"], ["export", "--to", "sft"], ["labels", "status"], ["gate"]):
        assert command([*arguments, str(path)]) == 65

    other_plan = make_planted_plan(n=12, seed=5)
    with registered("planted", model), pytest.raises(NotComparableError, match=r"audit\.seed"):
        run_audit(other_plan, path, SilentProgress(), config=find_config(None), resume=True)


@pytest.mark.slow
def test_a_plan_depends_only_on_its_arguments(small_plan: AuditPlan) -> None:
    assert make_planted_plan(n=12).rows == small_plan.rows
    assert make_planted_plan(n=12, seed=1).rows != small_plan.rows
    assert len({row.task_id for row in small_plan.rows}) == len(small_plan.rows)
    assert {row.probe for row in small_plan.rows} >= {
        "good items",
        "detection",
        "false alarms",
        "repeat",
        "drift",
        "injection",
    }
    assert small_plan.rows[-1].probe == "drift"  # a judge that drifts has drifted by then


@pytest.mark.slow
def test_a_probe_with_many_failed_requests_does_not_pass(small_plan: AuditPlan, tmp_path: Path) -> None:
    judge = Judge(small_plan, perfect)

    def refuses_other_letters(request: ChatRequest) -> str:
        reply = judge(request)
        return reply if '"A"' in str(request.schema).replace("'", '"') else "I prefer A, B and C."

    with registered("planted", ScriptedModel(refuses_other_letters)):
        audit = run_audit(small_plan, tmp_path / "audit", SilentProgress(), config=find_config(None))

    renamed = {probe.probe: probe for probe in audit.probes}["letters renamed"]
    assert (
        renamed.n_failed == sum(row.probe == "letters renamed" for row in small_plan.rows) == audit.n_failed
    )
    assert renamed.verdict == "not enough data"
    with RunStore.open(tmp_path / "audit", is_audit=True) as store:
        failures = [row.grade for row in store.audit_items() if isinstance(row.grade, Failure)]
    assert {failure.reason for failure in failures} == {"invalid_json"}


@pytest.mark.slow
def test_views_escape_the_judge_name_and_list_every_kind(small_plan: AuditPlan, tmp_path: Path) -> None:
    audit = audit_with_fault(small_plan, tmp_path / "audit", always_a)
    request = audit.request.model_copy(update={"judge": "<b>judge</b>"})
    hostile = audit.model_copy(update={"request": request})

    page, text = render_audit_html(hostile), render_audit_markdown(hostile)

    assert "<b>judge</b>" not in page
    assert "<b>judge</b>" not in text
    assert "not trusted" in page.lower()
    assert all(kind.kind in page and kind.kind in text for kind in audit.kinds if kind.n)
    assert page == render_audit_html(hostile)
    assert (tmp_path / "audit" / "audit.html").read_text(encoding="utf-8") == render_audit_html(audit)


# ---------------------------------------------------------------- self-preference and pairs


@pytest.mark.slow
@pytest.mark.parametrize("favours", [True, False])
def test_labels_reveal_a_judge_that_favours_its_family(tmp_path: Path, favours: bool) -> None:
    letters = {"qwen": ["BBB"] * 30, "mistral": ["BBB"] * 30}
    make_run(tmp_path / "run", letters, labels={"ann": letters})
    registry = tmp_path / "qaeval.yaml"
    registry.write_text("judges:\n  planted: {kind: plugin, family: qwen}\n", encoding="utf-8")
    config = find_config(registry)
    plan = make_audit_plan(config, "planted", eval_name="qa_pairs", run=tmp_path / "run")

    def favouring(question: JudgeQuestion) -> str:
        if question.row.probe != "self-preference":
            return question.right
        return "A" if favours and question.row.candidate == "qwen" else "B"

    with registered("planted", ScriptedModel(Judge(plan, favouring))):
        audit = run_audit(plan, tmp_path / "audit", SilentProgress(), config=config)

    result = {probe.probe: probe for probe in audit.probes}["self-preference"]
    assert result.effect is not None
    assert result.effect.value == (0.5 if favours else 0)
    assert result.verdict == ("fail" if favours else "pass")
    assert ("self-preference" in audit.failed()) is favours


@pytest.mark.slow
def test_the_judge_is_held_to_the_letters_that_count_in_a_certificate(tmp_path: Path) -> None:
    letters = {"mistral": ["BBB"] * 10}
    make_run(tmp_path / "run", letters, labels={"ann": letters})
    files = tmp_path / "run" / "labels"
    first, second, third = read_labels(files / "ann.jsonl")[:3]
    others = {
        "bob": first.model_copy(update={"rater": "bob", "letter": "C"}),
        "eva": first.model_copy(update={"rater": "eva", "letter": "A", "settles": True}),
        "model": second.model_copy(update={"rater": "model", "rater_kind": "model", "letter": "C"}),
        "zoe": third.model_copy(update={"rater": "zoe", "rubric": "another/1", "letter": "C"}),
    }
    for rater, label in others.items():
        (files / f"{rater}.jsonl").write_text(
            label.model_dump_json(exclude_none=True) + "\n", encoding="utf-8"
        )

    plan = make_planted_plan(eval_name="qa_pairs", run=tmp_path / "run")

    labels = {row.item.item_id: row.label for row in plan.rows if row.probe == "self-preference"}
    assert [labels[label.item_id] for label in (first, second, third)] == ["A", "B", "B"]


@pytest.mark.slow
@pytest.mark.parametrize(("swaps", "expected"), [(False, "pass"), (True, "fail")])
def test_preference_pairs_are_graded_in_both_orders(tmp_path: Path, swaps: bool, expected: str) -> None:
    labels = tmp_path / "labels.jsonl"
    cards = [
        json.loads(line) for line in (ROOT / "evals" / "dpo_pairs" / "cards.jsonl").read_text().splitlines()
    ]
    rows = [
        {
            "item_id": f"{number}", "rater": "ann", "rater_kind": "human", "letter": "A", "chunk_id": card["card_id"],
            "question": f"How do I plan case {number}?", "answer": f"Plan case {number} with a test first, then widen it slowly.",
            "rejected": f"Start case {number} at once.",
        }
        for number, card in enumerate(cards)
    ]  # fmt: skip
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    plan = make_planted_plan(eval_name="dpo_pairs", labels=[labels])

    def judge(question: JudgeQuestion) -> str:
        return ("A" if swaps else "C") if question.row.setting == "swapped" else question.right

    audit = audit_with_fault(plan, tmp_path / "audit", judge)

    order = {probe.probe: probe for probe in audit.probes}["pair order"]
    assert order.verdict == expected
    assert order.effect is not None
    assert order.effect.n_clusters == min(40, len(cards))
    assert audit.verdict == ("not trusted" if swaps else "trusted so far")
    # the chosen answers are too similar to plant one as a foreign answer
    kinds = {kind.kind for kind in audit.kinds if kind.n}
    assert kinds == {"placeholder", "copied question", "formatting"}


# ---------------------------------------------------------------- wordings


@pytest.mark.parametrize("name", ["qa_pair_abc", "rag_answer_abc", "dpo_pair_abc"])
def test_renaming_letters_keeps_articles_and_graded_texts(name: str) -> None:
    rubric = find_rubric(name)

    renamed = with_other_letters(rubric)

    assert renamed.letters == ("L", "P", "T")
    assert [example.answer for example in renamed.examples] == [example.answer for example in rubric.examples]
    texts = "\n".join(
        [renamed.task, *renamed.decision_rules, *(example.reason for example in renamed.examples)]
    )
    assert not re.search(r"(?<![\w°])(?:an A|a B|a C|letter [ABC]|means C)(?!\w)", texts)
    assert not re.search(r"(?:^|\. |\n)L [a-z]", texts)  # no article became a letter


@pytest.mark.parametrize("setting", [LEVELS, EXAMPLES, *WORDINGS])
def test_a_wording_changes_the_prompt_but_keeps_its_words(setting: str) -> None:
    original = Instructions.of(find_rubric("qa_pair_abc"), SAMPLING, "reason_first")

    reworded = instructions_for(setting, original)

    assert reworded.system != original.system
    assert reworded.schema == original.schema
    if setting != "synonyms":
        word_counts = [
            Counter(re.findall(r"\w+", instructions.system.content.lower()))
            for instructions in (original, reworded)
        ]
        assert (
            sum((word_counts[0] - word_counts[1]).values()) <= 2
        )  # best first, worst first; numbers of examples


@pytest.mark.slow
def test_renamed_letters_are_mapped_back_to_the_rubric(small_plan: AuditPlan, tmp_path: Path) -> None:
    audit_with_fault(small_plan, tmp_path / "audit", perfect)

    with RunStore.open(tmp_path / "audit", is_audit=True) as store:
        rows = [row for row in store.audit_items() if row.setting == RENAMED]
    grades = [row.grade for row in rows if isinstance(row.grade, Grade)]
    assert len(grades) == len(rows) > 0
    assert {grade.letter for grade in grades} == {"A", "C"}
    assert all('"L"' in grade.text or '"T"' in grade.text for grade in grades)


# ---------------------------------------------------------------- statistics


def test_detection_intervals_match_the_specification() -> None:
    # E6: 38/50 -> .626-.857; 0/50 -> upper .0711
    estimate = wilson(38, 50)
    assert (round(estimate.low, 3), round(estimate.high, 3)) == (0.626, 0.857)
    assert round(clopper_pearson(0, 50).high, 4) == 0.0711


@pytest.mark.parametrize(
    ("low", "high", "limit", "expected"),
    [
        (0.85, 0.95, "at least", "pass"),
        (0.70, 0.79, "at least", "fail"),
        (0.70, 0.90, "at least", "not enough data"),
        (0.0, 0.1, "at most", "pass"),
        (0.9, 1.0, "at most", "fail"),
        (0.0, 0.9, "at most", "not enough data"),
        (-0.9, 0.1, "at most", "pass"),
        (-0.7, 0.7, "within", "pass"),
        (-1.0, -0.85, "within", "fail"),
        (0.85, 1.0, "within", "fail"),
        (-0.9, 0.1, "within", "not enough data"),
    ],
)
def test_an_interval_passes_within_the_tolerance_and_fails_beyond_it(
    low: float, high: float, limit: Any, expected: str
) -> None:
    estimate = Estimate(value=(low + high) / 2, low=low, high=high, method="m", n=40, n_clusters=20)

    assert decide(estimate, 0.8, limit) == expected


# ---------------------------------------------------------------- bad input and the command


@pytest.mark.slow
def test_the_command_shows_the_embedded_judge_and_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "audit"

    code = command(["audit", "embedded-lexical", "--eval", "rag_qa", "--n", "12", "--out", str(out)])
    stdout = capsys.readouterr().out
    repeated_code = command(["audit", str(out)])

    assert code == repeated_code == 3
    assert "contradiction" in stdout
    assert capsys.readouterr().out.splitlines()[0] == stdout.splitlines()[0]
    audit = load_audit(out)
    skipped = {probe.probe for probe in audit.probes if probe.verdict == "not applicable"}
    assert {"order of levels", "letters renamed", "wordings", "self-preference"} <= skipped


@pytest.mark.slow
def test_an_audit_continues_in_the_folder_where_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["audit", "embedded-lexical", "--eval", "rag_qa", "--n", "12"]

    def typed(*options: str) -> int:
        monkeypatch.setattr(sys, "argv", ["qaeval", *words, *options])
        return command([*words, *options])

    typed("--out", "results/audit-mine")
    typed("--seed", "7", "--out", "results/audit-other")
    for folder in Path("results").iterdir():
        (folder / "audit.json").unlink()
    capsys.readouterr()
    assert typed("--resume") == 3
    assert capsys.readouterr().err.startswith("continuing results/audit-mine\n")
    begun, resumed = Path("results/audit-mine/command.txt").read_text().splitlines()
    assert begun == "qaeval audit embedded-lexical --eval rag_qa --n 12 --out results/audit-mine"
    assert resumed == "qaeval audit embedded-lexical --eval rag_qa --n 12 --resume"
    assert {path.parent.name for path in Path("results").glob("*/audit.json")} == {"audit-mine"}


def test_an_unknown_judge_and_a_resume_with_nothing_to_continue_are_usage_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["audit", "embedded-lexcal"]) == 64
    assert "embedded-lexical" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert command(["audit", "embedded-lexical", "--resume"]) == 64
    assert "`--out results/RUN --resume`" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_labels_of_another_eval_are_bad_data(tmp_path: Path) -> None:
    labels = tmp_path / "labels.jsonl"
    row = {
        "item_id": "0", "rater": "ann", "rater_kind": "human", "letter": "A", "chunk_id": "elsewhere", "question": "q", "answer": "a",
    }  # fmt: skip
    labels.write_text(json.dumps(row) + "\n", encoding="utf-8")

    with pytest.raises(DataError, match="elsewhere"):
        make_planted_plan(eval_name="qa_pairs", labels=[labels])


def test_fewer_than_ten_good_items_are_bad_data(tmp_path: Path) -> None:
    with registered("planted", ScriptedModel([])), pytest.raises(DataError, match="at least 10 good items"):
        make_audit_plan(find_config(None), "planted", eval_name=str(small_eval(tmp_path)))


def small_eval(folder: Path) -> Path:
    """Write an eval with two chunks and no labels."""
    eval_folder = folder / "evals" / "tiny"
    eval_folder.mkdir(parents=True)
    (eval_folder / "eval.yaml").write_text("name: tiny\ntitle: Tiny\nrubric: qa_pair_abc\n", encoding="utf-8")
    (eval_folder / "prompt.md").write_text("# user\n\nAsk about $chunk\n", encoding="utf-8")
    chunks = [{"chunk_id": f"c{n}", "text": f"The pump {n} starts at {n} bar."} for n in range(2)]
    (eval_folder / "chunks.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in chunks), encoding="utf-8"
    )
    return eval_folder


@pytest.mark.slow
def test_a_run_of_another_eval_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"mistral": ["AAA"] * 3})

    with pytest.raises(UsageError, match="qa_pairs"):
        make_planted_plan(run=tmp_path / "run")


# ---------------------------------------------------------------- people check the planted items


@pytest.mark.slow
def test_planted_items_that_a_person_refutes_are_excluded(small_plan: AuditPlan, tmp_path: Path) -> None:
    path = tmp_path / "audit"
    before = audit_with_fault(small_plan, path, perfect)
    run = write_mutants(path)
    assert write_mutants(path) == run  # the existing one is returned
    planted = [row for row in small_plan.rows if row.probe in {"good items", "detection", "false alarms"}]
    chunks = {sample.sample_id: sample.chunk.text for sample in small_plan.samples}
    row_by_texts = {(chunks[row.sample_id], row.item.question, row.item.answer): row for row in planted}
    good_number_item = next(row for row in planted if row.kind == "number")

    with Sitting.open(run, "anna", n=1000, by="random") as sitting:
        while question := sitting.current():
            row = row_by_texts[question.text, question.question, question.answer]
            is_bad = row.kind in DEFECTS and row != good_number_item
            sitting.record(question.assignment, "C" if is_bad else "A")
    after = show_again(path)

    assert (after.n_refuted, after.checked_by) == (1, ("anna",))
    assert after.n_checked == len({row.item.item_id for row in planted if row.kind})
    counts = [{kind.kind: kind.n for kind in audit.kinds} for audit in (before, after)]
    assert counts[0].pop("number") - counts[1].pop("number") == 1
    assert counts[0] == counts[1]
    assert "1 refuted" in render_audit_markdown(after)


@pytest.mark.slow
def test_planted_items_are_refuted_by_disallowed_settled_letters(
    small_plan: AuditPlan, tmp_path: Path
) -> None:
    path = tmp_path / "audit"
    audit_with_fault(small_plan, path, perfect)
    run = write_mutants(path)
    kinds = ("number", "honest refusal", "paraphrase", "negation")
    ids = {kind: next(row.item.item_id for row in small_plan.rows if row.kind == kind) for kind in kinds}

    def count_refuted(**letters: dict[str, str]) -> int:
        for rater, letter_by_kind in letters.items():
            rows = [
                Label(
                    item_id=ids[kind], rater=rater, rater_kind="human", letter=letter, settles=rater == "eva"
                )
                for kind, letter in letter_by_kind.items()
            ]
            (run / "labels").mkdir(exist_ok=True)
            (run / "labels" / f"{rater}.jsonl").write_text(
                "".join(row.model_dump_json(exclude_none=True) + "\n" for row in rows), encoding="utf-8"
            )
        audit = show_again(path)
        assert audit.n_checked == len(set().union(*letters.values()))
        assert audit.checked_by == tuple(sorted(letters))
        return audit.n_refuted

    anna_letters = {"number": "C", "honest refusal": "B", "paraphrase": "A", "negation": "B"}
    assert count_refuted(anna=anna_letters, bob={"number": "A"}, eva={"number": "C"}) == 0
    assert count_refuted(anna=anna_letters, bob={"number": "A"}, eva={"number": "A"}) == 1
    assert (
        count_refuted(anna=anna_letters, bob={"number": "A"}, eva={"number": "C", "honest refusal": "C"}) == 1
    )
    wrong_letters = {"number": "A", "honest refusal": "C", "paraphrase": "B", "negation": "A"}
    assert count_refuted(anna=wrong_letters, bob={"number": "C"}, eva={"number": "A"}) == 4


@pytest.mark.slow
def test_write_mutants_refuses_a_run(tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"mistral": ["AAA"] * 3})

    with pytest.raises(DataError, match="not an audit"):
        write_mutants(tmp_path / "run")


# ---------------------------------------------------------------- over HTTP


@pytest.mark.slow
def test_a_served_judge_is_audited_in_every_setting_and_its_server_is_recorded(tmp_path: Path) -> None:
    out = tmp_path / "audit"
    with LoopbackServer(["compass-judger"]) as server:
        arguments = ["audit", "compass-judger", "--eval", "rag_qa", "--n", "10", "--out", str(out)]
        code = command([*arguments, f"--endpoint=compass-judger={server.url}"])
        requests = server.requests

    assert code in {2, 3}
    with RunStore.open(out, is_audit=True) as store:
        rows, sessions = store.audit_items(), store.sessions()
    assert all(row.grade is not None for row in rows)
    assert [(session.stage, session.n_tasks) for session in sessions] == [("grade", len(rows))]
    assert sessions[0].endpoint is not None  # the server's version is in it
    prompts = [str(request["messages"]) for request in requests]
    assert (
        sum("worst first" in prompt for prompt in prompts) == sum(row.setting == LEVELS for row in rows) > 0
    )
    seeds = Counter(request.get("seed") for request in requests)
    assert seeds[1] == sum(row.number == 1 for row in rows)  # a repeat has its own seed
