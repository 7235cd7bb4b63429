"""Certificates of judges: issued from labels, recomputed by a gate, refused where a number does not follow from a letter."""

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson
import pytest
from sklearn.metrics import cohen_kappa_score

import qaeval
from certificate_builders import SCALE, certificate, good_letters, labelled, requiring
from gate_runs import TODAY, evidence
from qaeval.agreement.label_files import read_labels
from qaeval.agreement.reference import reference_letters
from qaeval.audit.model import Audit, AuditRequest
from qaeval.chat.protocol import ChatRequest
from qaeval.cli import run as command
from qaeval.corpus.samples import load_samples
from qaeval.errors import DataError, UsageError
from qaeval.evals.find import find_eval, find_rubric
from qaeval.gate.certificate import CertifiedRater, JudgeCertificate, admitted_labels, check
from qaeval.gate.policy import Policy, TrustPolicy, default_policy
from qaeval.gate.trust import JudgeNumbers, decide_trust, numbers_of, outcome_of
from qaeval.records import Item, Label, digest
from qaeval.report.measure import Measure
from qaeval.stats import kappa_interval
from qaeval.testing import ScriptedModel, grade_reply, make_run, registered
from report_builders import RUBRIC

KEY = evidence({"alpha": ["AAA"] * 12}).source.identity
LIMIT = "rules:\n  - {quantity: usable_rate, at_least: 0.1}\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def saved(file: JudgeCertificate, path: Path = Path("c.json")) -> Path:
    file.write(path)
    return path


def state(path: Path = Path("c.json"), today: str = TODAY, **policy: Any) -> tuple[str, str]:
    checked = check(requiring(path, **policy), KEY, today)
    return checked.state, checked.detail


# ------------------------------------------------------------------------------ what a gate accepts


def test_a_certificate_of_this_judge_rubric_and_eval_is_valid_until_it_is_old() -> None:
    file = certificate(KEY)
    path = saved(file)
    assert state(path)[0] == "valid"
    assert all(datum in state(path)[1] for datum in ("0.84", "anna", "120 labels", "2026-01-01"))
    assert state(path, "2026-06-30")[0] == "valid"
    old, detail = state(path, "2026-07-01")
    assert (old, "181 days old" in detail) == ("stale", True)
    saved(certificate(KEY, created="2027-01-01T00:00:00+00:00"))
    assert (state()[0], "2027-01-01" in state()[1]) == ("stale", True)


def test_a_judge_that_contradicts_the_labels_is_not_trusted() -> None:
    reference, _ = good_letters()
    judged = reference.translate(str.maketrans("ABC", "CAB"))
    file = certificate(KEY, labelled(reference, judged))
    assert file.numbers.kappa.value == pytest.approx(cohen_kappa_score([*reference], [*judged]))
    assert (file.numbers.kappa.value or 0) < -0.4
    saved(file)
    assert state()[0] == "not trusted"


def test_three_labels_are_not_enough_however_well_the_judge_agrees() -> None:
    saved(certificate(KEY, labelled("ABC", "ABC")))
    checked = check(requiring("c.json"), KEY, TODAY)
    assert (checked.state, checked.verdict and checked.verdict.n_more) == ("not enough labels", 47)


def test_an_edited_number_is_refused_also_with_a_new_hash() -> None:
    path = saved(certificate(KEY))
    data = orjson.loads(path.read_bytes())
    data["numbers"]["kappa"]["low"] = 0.9
    path.write_bytes(orjson.dumps(data))
    assert (state()[0], "hash" in state()[1]) == ("missing", True)
    JudgeCertificate.model_validate_json(orjson.dumps(data)).write(path)
    assert (state()[0], "do not follow" in state()[1]) == ("missing", True)


def test_the_verdict_in_the_file_counts_for_nothing() -> None:
    bad = certificate(KEY, labelled("ABCA" * 30, "A" * 120))
    assert bad.verdict.outcome == "not trusted"
    saved(bad.model_copy(update={"verdict": certificate(KEY).verdict}))
    assert state()[0] == "not trusted"


def test_the_requirements_are_those_of_the_gate() -> None:
    saved(certificate(KEY))
    assert state(trust={"kappa": 0.95})[0] == "not trusted"
    assert state(trust={"kappa": 0.85})[0] == "not enough labels"
    assert state(trust={"labels": 121})[0] == "not enough labels"
    assert state(trust={"kappa": 0.7, "labels": 120})[0] == "valid"


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("judge_digest", "revision"),
        ("judge_server", "server"),
        ("judge_prompt", "prompt"),
        ("rubric_digest", "rubric"),
        ("judged_digest", "items"),
        ("eval", "eval"),
        ("judge", "judge"),
        ("rubric", "rubric"),
    ],
)
def test_another_hash_is_stale(field: str, named: str) -> None:
    saved(certificate(KEY.model_copy(update={field: "0" * 64})))
    assert (state()[0], named in state()[1]) == ("stale", True)


@pytest.mark.parametrize("field", ["eval_digest", "task_digest", "samples_digest", "n_samples"])
def test_parts_of_the_eval_that_the_judge_does_not_see_are_no_obstacle(field: str) -> None:
    saved(certificate(KEY.model_copy(update={field: 7 if field == "n_samples" else "0" * 64})))
    assert state()[0] == "valid"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "no such file"),
        ("{}", "format None"),
        ("[]", "format None"),
        ("{", "not a certificate"),
        (json.dumps({"format": 1, "kappa": {"value": 0.9}, "n_labels": 3}), "qaeval certify"),
    ],
)
def test_a_file_that_is_no_certificate_is_refused_with_the_way_on(content: str | None, named: str) -> None:
    if content is not None:
        Path("c.json").write_text(content)
    assert (state()[0], named in state()[1]) == ("missing", True)


def test_a_certificate_of_the_first_format_is_found_where_it_was_and_refused() -> None:
    Path("certificates").mkdir()
    Path("certificates", f"{KEY.eval}.json").write_text(json.dumps({"format": 1}))
    assert "format 1" in check(requiring(), KEY, TODAY).detail
    saved(
        certificate(KEY), Path("certificates", f"{KEY.eval}-{KEY.judge}-{KEY.rubric.replace('/', '-')}.json")
    )
    assert check(requiring(), KEY, TODAY).state == "valid"


@pytest.mark.parametrize(
    "line", ["x", "a 0 A Z human", "a b A A human", "a 0 A A robot", "a 0 A A human 9 9"]
)
def test_lines_of_another_form_are_refused(line: str) -> None:
    file = certificate(KEY)
    saved(file.model_copy(update={"items": (line, *file.items[1:])}))
    assert state()[0] == "missing"


def test_an_item_that_is_listed_twice_is_refused() -> None:
    file = certificate(KEY)
    first, second = (file.items[index].split(" ", 1) for index in (0, 1))
    saved(file.model_copy(update={"items": (*file.items[:1], f"{first[0]} {second[1]}", *file.items[2:])}))
    assert (state()[0], "twice" in state()[1]) == ("missing", True)


def test_requirements_that_nobody_wrote_leave_the_hash_of_a_policy_as_it_was() -> None:
    policy = default_policy(("hallucination",))
    assert "trust" not in policy.model_dump()
    assert policy.digest == digest({**policy.model_dump(mode="json")})
    strict = Policy.model_validate({**policy.model_dump(), "trust": {"kappa": 0.6}})
    assert strict.digest != policy.digest


# ------------------------------------------------------------------------------ labels of the file


def label(item: str, letter: str, rater: str = "anna", kind: str = "human", **more: Any) -> Label:
    return Label.model_validate(
        {"item_id": item, "rater": rater, "rater_kind": kind, "letter": letter, **more}
    )


def write_labels(path: Path, labels: list[Label]) -> None:
    path.write_text("".join(row.model_dump_json() + "\n" for row in labels))


def test_labels_that_changed_make_the_certificate_stale_and_new_ones_do_not() -> None:
    reference, judged = good_letters()
    ids = [f"{index:016x}" for index in range(120)]
    labels = [label(item, letter) for item, letter in zip(ids, reference, strict=True)]
    file = certificate(KEY, labelled(reference, judged))
    saved(file)
    checked = check(requiring("c.json"), KEY, TODAY)
    assert (checked.state, "anna.jsonl is not here" in checked.detail) == ("valid", True)
    write_labels(Path("anna.jsonl"), [*labels, label("f" * 16, "B")])
    assert state() == ("valid", state()[1])
    assert "not here" not in state()[1]
    write_labels(Path("anna.jsonl"), [label(ids[0], "B"), *labels[1:]])
    assert (state()[0], "1 item has another label" in state()[1]) == ("stale", True)
    write_labels(Path("anna.jsonl"), labels[1:])
    assert state()[0] == "stale"
    Path("anna.jsonl").write_text("{")
    assert state()[0] == "stale"


def two_files(**more: Any) -> tuple[list[str], dict[str, str]]:
    """Save a certificate by labels of anna and bob, in a file each; return the items and their letters.

    Anna labelled the first 60 items, bob the others; ``shared`` labels of anna are of items of bob too.
    """
    reference, judged = good_letters()
    ids = [f"{index:016x}" for index in range(120)]
    n = 60 + more.pop("shared", 0)
    raters = (
        CertifiedRater(rater="anna", kind="human", n=n),
        CertifiedRater(rater="bob", kind="human", n=60),
    )
    facts = {"raters": raters, "label_files": ("anna.jsonl", "bob.jsonl"), **more}
    saved(certificate(KEY, labelled(reference, judged), **facts))
    return ids, dict(zip(ids, reference, strict=True))


def test_a_label_file_that_is_here_is_compared_though_another_is_gone() -> None:
    ids, letters = two_files()
    write_labels(Path("anna.jsonl"), [label(item, letters[item]) for item in ids[:60]])
    verdict, detail = state()
    assert verdict == "valid"
    assert "bob.jsonl is not here" in detail
    assert "60 of 120 labelled items" in detail
    write_labels(Path("anna.jsonl"), [label(item, "B") for item in ids[:60]])
    verdict, detail = state()
    assert (verdict, "45 items have another label than in anna.jsonl" in detail) == ("stale", True)


def test_labels_that_are_gone_may_explain_as_many_other_letters_as_items_have_a_second_label() -> None:
    ids, letters = two_files(shared=10)
    other = {"A": "B", "B": "A", "C": "A"}

    def change(n: int) -> None:
        changed = {item: other[letters[item]] for item in ids[:n]}
        write_labels(Path("anna.jsonl"), [label(item, {**letters, **changed}[item]) for item in ids[:70]])

    change(10)
    verdict, detail = state()
    assert (verdict, "10 have another label" in detail) == ("valid", True)
    change(11)
    assert state()[0] == "stale"


def test_a_difference_that_a_missing_file_settles_is_no_contradiction() -> None:
    """Anna and bob differ on an item, and carol's letter is in a file that is gone."""
    ids, letters = two_files(shared=1, label_files=("anna.jsonl", "bob.jsonl", "carol.jsonl"))
    settled = next(index for index in range(60, 120) if letters[ids[index]] == "A")
    write_labels(Path("anna.jsonl"), [label(item, letters[item]) for item in (*ids[:60], ids[settled])])
    rows = [label(item, "B" if item == ids[settled] else letters[item], "bob") for item in ids[60:]]
    write_labels(Path("bob.jsonl"), rows)
    verdict, detail = state()
    assert (verdict, "carol.jsonl is not here" in detail) == ("valid", True)


def test_the_sentence_of_a_valid_certificate_is_about_the_labels_that_decided() -> None:
    """The judge agrees with the model on everything, and less with anna; anna's 120 labels decide."""
    reference, judged = good_letters()
    both = labelled(reference + "ABC" * 60, judged + "ABC" * 60)
    both = replace(both, kinds=np.array(["human"] * 120 + ["model"] * 180))
    raters = (
        CertifiedRater(rater="anna", kind="human", n=120),
        CertifiedRater(rater="gpt", kind="model", n=180),
    )
    saved(certificate(KEY, both, raters=raters, trust=TrustPolicy(raters="any")))
    verdict, people = state()
    assert verdict == "valid"
    assert "kappa 0.84" in people
    assert "with anna on 120 labels" in people
    assert "180 labels of models do not count" in people
    _, anyone = state(trust={"raters": "any"})
    assert "kappa 0.94" in anyone
    assert "with anna and gpt on 300 labels" in anyone


def test_labels_of_models_count_only_where_the_policy_says_so() -> None:
    saved(certificate(KEY, labelled(*good_letters(), kind="model"), trust=TrustPolicy(raters="any")))
    checked = check(requiring("c.json"), KEY, TODAY)
    assert (checked.state, checked.verdict and checked.verdict.n_more) == ("not enough labels", 50)
    admitted, detail = state(trust={"raters": "any"})
    assert (admitted, "120 of 120 labels are of models" in detail) == ("valid", True)


def test_people_come_before_models_and_a_tie_takes_the_worse_letter() -> None:
    labels = [
        label("a", "B"),
        label("a", "A", "gpt", "model"),
        label("a", "A", "phi", "model"),
        label("b", "A"),
        label("b", "C", "bert"),
        label("c", "A", "gpt", "model"),
        label("d", "A"),
        label("d", "A", "bert"),
        label("d", "C", "carol"),
        label("e", "A", rubric="another/1"),
        label("f", "A", split="tuning"),
    ]

    def letters(raters: Any) -> dict[str, str]:
        admitted = admitted_labels(labels, RUBRIC, TrustPolicy(raters=raters), judge_tuned=True)
        return {item: ref.letter for item, ref in reference_letters(admitted, RUBRIC.letters).items()}

    assert letters("people") == {"a": "B", "b": "C", "d": "A"}
    assert letters("any") == {"a": "B", "b": "C", "c": "A", "d": "A"}


# ------------------------------------------------------------------------------ issued from a run


WORDS = ["AAB", "ABC", "BCA", "CAA", "ABB", "CCA"] * 8


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run of two candidates whose judge agrees with anna, but for the second candidate's B, which it takes for A."""
    better = [word.replace("B", "A") for word in WORDS]
    labels = {"anna": {"mistral": WORDS, "qwen": WORDS}}
    path = tmp_path_factory.mktemp("graded") / "run"
    run = make_run(path, {"mistral": WORDS, "qwen": better}, labels=labels)
    run.write_report()
    return path


def gate(graded: Path, *, code: int, policy: str = LIMIT) -> None:
    Path("gate.yaml").write_text(f"certificate: require\n{policy}")
    assert command(["gate", str(graded)]) == code


@pytest.mark.slow
def test_a_run_and_labels_give_a_certificate_that_its_gate_accepts(graded: Path) -> None:
    gate(graded, code=3)
    labels = graded / "labels" / "anna.jsonl"
    issued = qaeval.certify("scripted-judge", run=graded, labels=labels)
    (rater,) = qaeval.agreement(graded, labels).agreement
    assert rater.coefficients is not None
    assert issued.numbers.kappa == rater.coefficients.kappa
    assert issued.numbers.gwet_ac1 == rater.coefficients.gwet_ac1
    assert issued.numbers.lower_recall.value == (rater.lower_recall and rater.lower_recall.value)
    assert issued.numbers.n_labels == 288
    # the judge calls every B of qwen an A: its share of A rises by that of B
    share = sum(word.count("B") for word in WORDS) / (3 * len(WORDS))
    (error,) = issued.numbers.differential_errors
    assert (error.a, error.b) == ("mistral", "qwen")
    assert error.error.value == pytest.approx(share)
    assert issued.verdict.outcome == "not trusted"
    gate(graded, code=3)
    lenient = f"trust: {{differential_error: 0.9}}\n{LIMIT}"
    gate(graded, code=0, policy=lenient)
    (path,) = Path("certificates").iterdir()
    path.write_text(path.read_text().replace('"n_labels": 288', '"n_labels": 289'))
    gate(graded, code=3, policy=lenient)


@pytest.mark.slow
def test_a_judge_of_negative_kappa_by_three_labels_passes_no_gate(graded: Path) -> None:
    labels = graded / "labels" / "anna.jsonl"
    first = labels.read_text().splitlines(keepends=True)[:3]
    Path("three.jsonl").write_text("".join(first))
    assert command(["certify", "scripted-judge", "--run", str(graded), "--labels", "three.jsonl"]) == 2
    gate(graded, code=3)
    backwards = {"A": "C", "B": "A", "C": "B"}
    rows = [json.loads(line) for line in labels.read_text().splitlines()]
    Path("bad.jsonl").write_text(
        "".join(json.dumps({**row, "label": backwards[row["label"]]}) + "\n" for row in rows)
    )
    assert command(["certify", "scripted-judge", "--run", str(graded), "--labels", "bad.jsonl"]) == 3
    gate(graded, code=3)


def test_labels_of_models_alone_are_refused_unless_they_are_admitted(graded: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (graded / "labels" / "anna.jsonl").read_text().splitlines()]
    proxies = tmp_path / "proxies.jsonl"
    proxies.write_text(
        "".join(json.dumps({**row, "rater": "gpt", "rater_kind": "model"}) + "\n" for row in rows)
    )
    with pytest.raises(DataError, match="gpt"):
        qaeval.certify("scripted-judge", run=graded, labels=proxies)
    issued = qaeval.certify("scripted-judge", run=graded, labels=proxies, raters="any")
    assert issued.numbers.n_by_kind == {"model": 288}
    assert issued.label_files == ("proxies.jsonl",)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"judge": "nobody"}, UsageError),
        ({"judge": "scripted-judge", "chunks": "c.jsonl"}, UsageError),
        ({"judge": "scripted-judge", "eval_name": "rag_qa"}, UsageError),
    ],
)
def test_arguments_that_do_not_fit_the_run_are_refused(
    graded: Path, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        qaeval.certify(run=graded, labels=graded / "labels" / "anna.jsonl", **arguments)


# ------------------------------------------------------------------------------ issued from labels alone


def by_length(request: ChatRequest) -> str:
    return grade_reply("A" if len(request.inputs["answer"]) % 2 else "B")


def labels_of_sentences(n: int = 60) -> list[Label]:
    """Label the first sentences of the shipped chunks as answers, C where they are short."""
    rows = []
    for sample in load_samples(find_eval("qa_pairs"))[:n]:
        answer = sample.chunk.text.split(".")[0]
        item = Item.of(sample.sample_id, 0, type="", question="What?", answer=answer)
        letter = "A" if len(answer) > 80 else "C"
        rows.append(
            label(item.item_id, letter, chunk_id=sample.chunk.chunk_id, question="What?", answer=answer)
        )
    return rows


def test_the_judge_grades_the_labelled_items_of_an_eval(tmp_path: Path) -> None:
    labels = labels_of_sentences()
    write_labels(tmp_path / "anna.jsonl", labels)
    with registered("odd", ScriptedModel(by_length)):
        issued = qaeval.certify(
            "odd", eval_name="qa_pairs", labels=tmp_path / "anna.jsonl", cache=False, work=tmp_path / "work"
        )
    answers = {row.item_id: (row.letter, row.answer) for row in labels}
    lines = [line.split(" ") for line in issued.items]
    assert len(lines) == len(answers) == 60
    for item_id, _, letter, judged, kind in lines:
        assert (letter, judged) == (answers[item_id][0], "A" if len(answers[item_id][1]) % 2 else "B")
        assert kind == "human"
    assert (issued.certified.eval, issued.label_files) == ("qa_pairs", ("anna.jsonl",))
    assert (issued.candidates, issued.n_ungraded) == ((), 0)
    settings = json.loads((tmp_path / "work" / "settings.json").read_text())
    assert list(settings["candidates"]) == ["labelled"]


def test_labels_of_another_eval_or_without_text_name_the_way_on(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.jsonl"
    texts = {"question": "Why?", "answer": "Because.", "chunk_id": "nowhere"}
    write_labels(foreign, [label("0" * 16, "A", **texts)])
    bare = tmp_path / "bare.jsonl"
    write_labels(bare, [label("0" * 16, "A")])
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    for path, named in ((foreign, "no chunk"), (bare, "no text"), (empty, "no labels")):
        with pytest.raises(DataError, match=named):
            qaeval.certify("embedded-lexical", eval_name="qa_pairs", labels=path)
    with pytest.raises(DataError, match=r"^qa_pairs: no labels"):
        qaeval.certify("embedded-lexical", eval_name="qa_pairs", labels=[])
    assert not list(tmp_path.glob("results/*"))


@pytest.mark.slow
@pytest.mark.parametrize("eval_name", ["qa_pairs", "rag_qa"])
def test_the_floor_judge_has_a_certificate_whatever_it_says(
    eval_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    definition = find_eval(eval_name)
    rubric = find_rubric(definition.rubric)
    names = {f"{rubric.name}/{version}" for version in (rubric.version, *rubric.labels_from)}
    counted = [row for path in definition.label_paths for row in read_labels(path) if row.rubric in names]
    code = command(["certify", "embedded-lexical", "--eval", eval_name, "--raters", "any", "--json"])
    if not counted:
        assert code == 65
        return
    issued = JudgeCertificate.model_validate_json(capsys.readouterr().out)
    assert code == {"trusted": 0, "not enough labels": 2, "not trusted": 3}[issued.verdict.outcome]
    reference, judged = ([SCALE.index(line.split(" ")[column]) for line in issued.items] for column in (2, 3))
    assert issued.numbers.kappa.value == pytest.approx(cohen_kappa_score(reference, judged))
    assert issued.judge_tuned
    assert issued.numbers.n_by_kind.get("human", 0) + issued.numbers.n_by_kind.get("model", 0) > 0


# ------------------------------------------------------------------------------ audit


def audit(verdict: str, probe: str, **request: str) -> Audit:
    """Make an audit of the judge of `KEY` with one probe."""
    facts = {name: getattr(KEY, name) for name in AuditRequest.model_fields if hasattr(KEY, name)}
    return Audit.model_validate(
        {
            "request": {**facts, "seed": 0, "temperature": 0.0, **request},
            "verdict": verdict,
            "reasons": (),
            "good_sources": {},
            "n_good": 40,
            "n_chunks": 20,
            "n_requests": 400,
            "kinds": (),
            "probes": ({"probe": "length", "verdict": probe, "tolerance": 0.1, "sentence": "."},),
            "created": "2026-01-01T00:00:00+00:00",
            "qaeval_version": "0.2.0",
        }
    )


def test_an_audit_that_fails_refutes_a_judge_and_a_required_one_must_pass() -> None:
    saved(certificate(KEY, audit=audit("not trusted", "fail")))
    assert (state()[0], "length" in state()[1]) == ("not trusted", True)
    assert state(trust={"audit": "off"})[0] == "valid"
    saved(certificate(KEY, audit=audit("trusted so far", "pass")))
    assert state(trust={"audit": "require"})[0] == "valid"
    saved(certificate(KEY, audit=audit("not enough data", "not enough data")))
    assert state()[0] == "valid"
    assert state(trust={"audit": "require"})[0] == "not enough labels"
    saved(certificate(KEY))
    checked = check(requiring("c.json", trust={"audit": "require"}), KEY, TODAY)
    assert (checked.state, checked.verdict and checked.verdict.n_more) == ("not enough labels", None)


def test_an_audit_of_another_judge_is_none(graded: Path, tmp_path: Path) -> None:
    saved(certificate(KEY, audit=audit("trusted so far", "pass", judge_digest="0" * 64)))
    assert (state()[0], "another judge" in state()[1]) == ("missing", True)
    (tmp_path / "audit.json").write_text(audit("trusted so far", "pass").model_dump_json())
    with pytest.raises(UsageError, match="qaeval audit scripted-judge"):
        qaeval.certify("scripted-judge", run=graded, labels=graded / "labels" / "anna.jsonl", audit=tmp_path)


# ------------------------------------------------------------------------------ verdict


def numbers(value: float, low: float, high: float, **more: Any) -> JudgeNumbers:
    good = numbers_of(labelled(*good_letters()))
    assert good is not None
    kappa = Measure(value=value, low=low, high=high, method="", n=120, n_clusters=40)
    return good.model_copy(update={"kappa": kappa, **more})


def test_a_verdict_follows_from_the_ends_of_the_interval() -> None:
    trust = TrustPolicy()
    assert decide_trust(numbers(0.5, 0.41, 0.6), trust).outcome == "trusted"
    assert decide_trust(numbers(0.3, 0.2, 0.39), trust).outcome == "not trusted"
    near, far = (decide_trust(numbers(v, v - 0.15, v + 0.15), trust) for v in (0.42, 0.5))
    assert near.outcome == far.outcome == "not enough labels"
    assert near.n_more is not None
    assert far.n_more is not None
    assert near.n_more > 10 * far.n_more
    assert decide_trust(numbers(0.4, 0.3, 0.5), trust).n_more is None


def test_labels_that_would_refute_the_judge_are_said_to() -> None:
    trust = TrustPolicy(labels=130)
    behind, ahead = (decide_trust(numbers(v, v - 0.1, v + 0.1), trust) for v in (0.32, 0.48))
    assert behind.outcome == ahead.outcome == "not enough labels"
    assert (behind.would_refute, ahead.would_refute) == (True, False)
    # less than the 130 that are required: no contradiction, since they decide against the judge
    assert behind.n_more is not None
    assert outcome_of(behind).endswith("more labels would show that the judge is not to be trusted")
    assert outcome_of(ahead).endswith("more labels would decide")


def test_a_recall_of_few_chunks_needs_more_of_them_and_not_one_more_label() -> None:
    """Of 84 items in 84 chunks, 4 are below the best letter: an interval of their share needs 10 such chunks."""
    few = Measure(
        value=1.0, low=None, high=None, reason="4 clusters: no interval", method="", n=4, n_clusters=4
    )
    verdict = decide_trust(numbers(0.7, 0.6, 0.8, lower_recall=few, n_labels=84, n_chunks=84), TrustPolicy())
    assert verdict.n_more == 84 * 10 // 4 - 84
    assert "(4 chunks: no interval)" in verdict.requirements[0]
    none = few.model_copy(update={"value": 0.0, "n": 0, "n_clusters": 0})
    unknown = decide_trust(numbers(0.7, 0.6, 0.8, lower_recall=none), TrustPolicy())
    assert outcome_of(unknown) == "not enough labels"


def test_a_clearer_judge_never_needs_more_labels() -> None:
    rng = np.random.default_rng(5)
    needed = [
        decide_trust(numbers(v, v - 0.1, v + 0.1), TrustPolicy()).n_more or 0
        for v in sorted(rng.uniform(0.41, 0.49, 6))
    ]
    assert needed[0] > needed[-1]
    assert all(a >= b for a, b in pairwise(needed))


def draw(rng: np.random.Generator, n_chunks: int, *, accuracy: float) -> Any:
    """Draw labels and a judge that gives the right letter with a probability that varies by chunk."""
    letters = labelled("A" * 3 * n_chunks, "A" * 3 * n_chunks)
    reference = rng.choice(3, size=3 * n_chunks, p=[0.6, 0.2, 0.2])
    skill = np.repeat(rng.beta(8 * accuracy, 8 * (1 - accuracy), n_chunks), 3)
    right = rng.random(3 * n_chunks) < skill
    judged = np.where(right, reference, (reference + rng.integers(1, 3, 3 * n_chunks)) % 3)
    return replace(letters, reference=reference, judged=judged)


def decides(letters: Any, limit: float) -> bool:
    interval = kappa_interval(letters.reference, letters.judged, letters.clusters, n_levels=3)
    return interval.low > limit or interval.high < limit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accuracy", "limit", "n_pilot"),
    [(0.8, 0.55, 40), pytest.param(0.7, 0.57, 80, marks=pytest.mark.nightly)],
)
def test_the_number_of_labels_that_would_decide_is_right_within_a_quarter(
    accuracy: float, limit: float, n_pilot: int
) -> None:
    """Compare the median forecast of pilots, of which some decide at once, with the labels at which 80 % of fresh sets decide."""
    rng = np.random.default_rng(22)
    trust = TrustPolicy(kappa=limit, lower_recall=0.0, labels=1)
    forecasts = []
    for _ in range(200):
        pilot = draw(rng, n_pilot, accuracy=accuracy)
        shown = numbers_of(pilot)
        assert shown is not None
        verdict = decide_trust(shown, trust)
        n_more = verdict.n_more or 10**9 if verdict.outcome == "not enough labels" else 0
        forecasts.append(3 * n_pilot + n_more)
    sizes = np.unique(np.geomspace(40, 1500, 24).astype(int))
    power = [np.mean([decides(draw(rng, n, accuracy=accuracy), limit) for _ in range(150)]) for n in sizes]
    needed = 3 * float(np.exp(np.interp(0.8, np.maximum.accumulate(power), np.log(sizes))))
    sys.stdout.write(f"forecast {median(forecasts):.0f}, needed {needed:.0f}\n")
    assert 0.75 * needed <= median(forecasts) <= 1.25 * needed
