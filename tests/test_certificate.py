"""Judge certificates: issued from labels, recomputed by a gate, and refused if the numbers do not follow from the letters."""

import json
import shutil
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
from qaeval.cli import run as run_command
from qaeval.corpus.samples import load_samples
from qaeval.errors import DataError, UsageError
from qaeval.evals.find import find_eval, find_rubric
from qaeval.gate.certificate import (
    CertifiedRater,
    JudgeCertificate,
    admitted_labels,
    check,
    read_certificate,
)
from qaeval.gate.policy import Policy, TrustPolicy, default_policy
from qaeval.gate.trust import JudgeNumbers, decide_trust, numbers_of, outcome_of
from qaeval.history.read import read_runs
from qaeval.records import Item, Label, digest
from qaeval.report.measure import Measure
from qaeval.stats import kappa_interval
from qaeval.storage.runs import find_run, list_runs
from qaeval.testing import ScriptedModel, grade_reply, make_run, registered
from report_builders import RUBRIC

KEY = evidence({"alpha": ["AAA"] * 12}).source.identity
LIMIT = "rules:\n  - {quantity: usable_rate, at_least: 0.1}\n"


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(certificate_file: JudgeCertificate, path: Path = Path("c.json")) -> Path:
    certificate_file.write(path)
    return path


def certificate_state(
    path: Path = Path("c.json"), today: str = TODAY, **policy_options: Any
) -> tuple[str, str]:
    result = check(requiring(path, **policy_options), KEY, today)
    return result.state, result.detail


# ------------------------------------------------------------------------------ certificates at the gate


def test_a_matching_certificate_is_valid_until_it_expires() -> None:
    certificate_file = certificate(KEY)
    path = save(certificate_file)
    assert certificate_state(path)[0] == "valid"
    assert all(text in certificate_state(path)[1] for text in ("0.84", "anna", "120 labels", "2026-01-01"))
    assert certificate_state(path, "2026-06-30")[0] == "valid"
    outcome, detail = certificate_state(path, "2026-07-01")
    assert (outcome, "181 days old" in detail) == ("stale", True)
    save(certificate(KEY, created="2027-01-01T00:00:00+00:00"))
    assert (certificate_state()[0], "2027-01-01" in certificate_state()[1]) == ("stale", True)


def test_a_judge_that_contradicts_the_labels_is_not_trusted() -> None:
    reference, _ = good_letters()
    judged = reference.translate(str.maketrans("ABC", "CAB"))
    certificate_file = certificate(KEY, labelled(reference, judged))
    assert certificate_file.numbers.kappa.value == pytest.approx(cohen_kappa_score([*reference], [*judged]))
    assert (certificate_file.numbers.kappa.value or 0) < -0.4
    save(certificate_file)
    assert certificate_state()[0] == "not trusted"


def test_three_labels_are_not_enough_even_with_perfect_agreement() -> None:
    save(certificate(KEY, labelled("ABC", "ABC")))
    result = check(requiring("c.json"), KEY, TODAY)
    assert (result.state, result.verdict and result.verdict.n_more) == ("not enough labels", 47)


def test_an_edited_number_is_refused_even_with_a_new_hash() -> None:
    path = save(certificate(KEY))
    data = orjson.loads(path.read_bytes())
    data["numbers"]["kappa"]["low"] = 0.9
    path.write_bytes(orjson.dumps(data))
    assert (certificate_state()[0], "hash" in certificate_state()[1]) == ("missing", True)
    JudgeCertificate.model_validate_json(orjson.dumps(data)).write(path)
    assert (certificate_state()[0], "do not follow" in certificate_state()[1]) == ("missing", True)


def test_the_verdict_in_the_file_is_ignored() -> None:
    bad_certificate = certificate(KEY, labelled("ABCA" * 30, "A" * 120))
    assert bad_certificate.verdict.outcome == "not trusted"
    save(bad_certificate.model_copy(update={"verdict": certificate(KEY).verdict}))
    assert certificate_state()[0] == "not trusted"


def test_the_requirements_of_the_gate_apply() -> None:
    save(certificate(KEY))
    assert certificate_state(trust={"kappa": 0.95})[0] == "not trusted"
    assert certificate_state(trust={"kappa": 0.85})[0] == "not enough labels"
    assert certificate_state(trust={"labels": 121})[0] == "not enough labels"
    assert certificate_state(trust={"kappa": 0.7, "labels": 120})[0] == "valid"


@pytest.mark.parametrize(
    ("field", "message"),
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
def test_a_changed_identity_makes_a_certificate_stale(field: str, message: str) -> None:
    save(certificate(KEY.model_copy(update={field: "0" * 64})))
    assert (certificate_state()[0], message in certificate_state()[1]) == ("stale", True)


@pytest.mark.parametrize("field", ["eval_digest", "task_digest", "samples_digest", "n_samples"])
def test_changes_the_judge_does_not_see_keep_a_certificate_valid(field: str) -> None:
    save(certificate(KEY.model_copy(update={field: 7 if field == "n_samples" else "0" * 64})))
    assert certificate_state()[0] == "valid"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{}", "format None"),
        ("[]", "format None"),
        ("{", "not a certificate"),
        (json.dumps({"format": 1, "kappa": {"value": 0.9}, "n_labels": 3}), "qaeval certify"),
    ],
)
def test_an_invalid_certificate_file_is_refused_with_advice(content: str | None, message: str) -> None:
    if content is not None:
        Path("c.json").write_text(content)
    assert (certificate_state()[0], message in certificate_state()[1]) == ("missing", True)


def test_a_certificate_in_the_first_format_is_found_and_refused() -> None:
    Path("certificates").mkdir()
    Path("certificates", f"{KEY.eval}.json").write_text(json.dumps({"format": 1}))
    assert "format 1" in check(requiring(), KEY, TODAY).detail
    save(
        certificate(KEY), Path("certificates", f"{KEY.eval}-{KEY.judge}-{KEY.rubric.replace('/', '-')}.json")
    )
    assert check(requiring(), KEY, TODAY).state == "valid"


@pytest.mark.parametrize(
    "line", ["x", "a 0 A Z human", "a b A A human", "a 0 A A robot", "a 0 A A human 9 9"]
)
def test_malformed_item_lines_are_refused(line: str) -> None:
    file = certificate(KEY)
    save(file.model_copy(update={"items": (line, *file.items[1:])}))
    assert certificate_state()[0] == "missing"


def test_a_duplicate_item_is_refused() -> None:
    file = certificate(KEY)
    first, second = (file.items[index].split(" ", 1) for index in (0, 1))
    save(file.model_copy(update={"items": (*file.items[:1], f"{first[0]} {second[1]}", *file.items[2:])}))
    assert (certificate_state()[0], "twice" in certificate_state()[1]) == ("missing", True)


def test_default_requirements_do_not_change_the_digest_of_a_policy() -> None:
    policy = default_policy(("hallucination",))
    assert "trust" not in policy.model_dump()
    assert policy.digest == digest({**policy.model_dump(mode="json")})
    strict = Policy.model_validate({**policy.model_dump(), "trust": {"kappa": 0.6}})
    assert strict.digest != policy.digest


# ------------------------------------------------------------------------------ label files


def make_label(item: str, letter: str, rater: str = "anna", kind: str = "human", **fields: Any) -> Label:
    return Label.model_validate(
        {"item_id": item, "rater": rater, "rater_kind": kind, "letter": letter, **fields}
    )


def write_labels(path: Path, labels: list[Label]) -> None:
    path.write_text("".join(row.model_dump_json() + "\n" for row in labels))


def test_changed_labels_make_a_certificate_stale_but_new_labels_do_not() -> None:
    reference, judged = good_letters()
    ids = [f"{index:016x}" for index in range(120)]
    labels = [make_label(item, letter) for item, letter in zip(ids, reference, strict=True)]
    file = certificate(KEY, labelled(reference, judged))
    save(file)
    result = check(requiring("c.json"), KEY, TODAY)
    assert (result.state, "anna.jsonl is not here" in result.detail) == ("valid", True)
    write_labels(Path("anna.jsonl"), [*labels, make_label("f" * 16, "B")])
    assert certificate_state() == ("valid", certificate_state()[1])
    assert "not here" not in certificate_state()[1]
    write_labels(Path("anna.jsonl"), [make_label(ids[0], "B"), *labels[1:]])
    assert (certificate_state()[0], "1 item has another label" in certificate_state()[1]) == ("stale", True)
    write_labels(Path("anna.jsonl"), labels[1:])
    assert certificate_state()[0] == "stale"
    Path("anna.jsonl").write_text("{")
    assert certificate_state()[0] == "stale"


def save_certificate_with_two_label_files(**overrides: Any) -> tuple[list[str], dict[str, str]]:
    """Save a certificate from labels of anna and bob in separate files; return the items and their letters.

    Anna labelled the first 60 items and bob the others; ``shared`` items of bob are also labelled by anna.
    """
    reference, judged = good_letters()
    ids = [f"{index:016x}" for index in range(120)]
    n_anna = 60 + overrides.pop("shared", 0)
    raters = (
        CertifiedRater(rater="anna", kind="human", n=n_anna),
        CertifiedRater(rater="bob", kind="human", n=60),
    )
    facts = {"raters": raters, "label_files": ("anna.jsonl", "bob.jsonl"), **overrides}
    save(certificate(KEY, labelled(reference, judged), **facts))
    return ids, dict(zip(ids, reference, strict=True))


def test_present_label_files_are_compared_even_if_others_are_missing() -> None:
    ids, letters = save_certificate_with_two_label_files()
    write_labels(Path("anna.jsonl"), [make_label(item, letters[item]) for item in ids[:60]])
    verdict, detail = certificate_state()
    assert verdict == "valid"
    assert "bob.jsonl is not here" in detail
    assert "60 of 120 labelled items" in detail
    write_labels(Path("anna.jsonl"), [make_label(item, "B") for item in ids[:60]])
    verdict, detail = certificate_state()
    assert (verdict, "45 items have another label than in anna.jsonl" in detail) == ("stale", True)


def test_missing_labels_explain_at_most_as_many_differences_as_items_with_two_labels() -> None:
    ids, letters = save_certificate_with_two_label_files(shared=10)
    changed_letter = {"A": "B", "B": "A", "C": "A"}

    def change(n_changed: int) -> None:
        changed = {item: changed_letter[letters[item]] for item in ids[:n_changed]}
        write_labels(
            Path("anna.jsonl"), [make_label(item, {**letters, **changed}[item]) for item in ids[:70]]
        )

    change(10)
    verdict, detail = certificate_state()
    assert (verdict, "10 have another label" in detail) == ("valid", True)
    change(11)
    assert certificate_state()[0] == "stale"


def test_a_dispute_settled_in_a_missing_file_is_not_a_contradiction() -> None:
    """Anna and bob differ on an item, and carol's settling letter is in a missing file."""
    ids, letters = save_certificate_with_two_label_files(
        shared=1, label_files=("anna.jsonl", "bob.jsonl", "carol.jsonl")
    )
    disputed = next(index for index in range(60, 120) if letters[ids[index]] == "A")
    write_labels(Path("anna.jsonl"), [make_label(item, letters[item]) for item in (*ids[:60], ids[disputed])])
    rows = [make_label(item, "B" if item == ids[disputed] else letters[item], "bob") for item in ids[60:]]
    write_labels(Path("bob.jsonl"), rows)
    verdict, detail = certificate_state()
    assert (verdict, "carol.jsonl is not here" in detail) == ("valid", True)


def test_the_detail_of_a_valid_certificate_describes_the_deciding_labels() -> None:
    """The judge agrees with the model on everything, and less with anna; anna's 120 labels decide."""
    reference, judged = good_letters()
    all_labels = labelled(reference + "ABC" * 60, judged + "ABC" * 60)
    all_labels = replace(all_labels, kinds=np.array(["human"] * 120 + ["model"] * 180))
    raters = (
        CertifiedRater(rater="anna", kind="human", n=120),
        CertifiedRater(rater="gpt", kind="model", n=180),
    )
    save(certificate(KEY, all_labels, raters=raters, trust=TrustPolicy(raters="any")))
    verdict, human_detail = certificate_state()
    assert verdict == "valid"
    assert "kappa 0.84" in human_detail
    assert "with anna on 120 labels" in human_detail
    assert "180 labels of models do not count" in human_detail
    _, all_detail = certificate_state(trust={"raters": "any"})
    assert "kappa 0.94" in all_detail
    assert "with anna and gpt on 300 labels" in all_detail


@pytest.mark.parametrize(("raters", "whose"), [("people", "people"), ("any", "people or models")])
def test_a_judge_without_labels_needs_those_that_the_policy_admits(raters: Any, whose: str) -> None:
    verdict = decide_trust(None, TrustPolicy(raters=raters, labels=50))
    assert (verdict.outcome, verdict.n_more) == ("not enough labels", 50)
    assert verdict.requirements == (f"no label by {whose}; 50 labels are required",)


def test_model_labels_count_only_if_the_policy_allows_them() -> None:
    save(certificate(KEY, labelled(*good_letters(), kind="model"), trust=TrustPolicy(raters="any")))
    result = check(requiring("c.json"), KEY, TODAY)
    assert (result.state, result.verdict and result.verdict.n_more) == ("not enough labels", 50)
    outcome, detail = certificate_state(trust={"raters": "any"})
    assert (outcome, "120 of 120 labels are of models" in detail) == ("valid", True)


def test_human_labels_take_precedence_and_a_tie_takes_the_worse_letter() -> None:
    labels = [
        make_label("a", "B"),
        make_label("a", "A", "gpt", "model"),
        make_label("a", "A", "phi", "model"),
        make_label("b", "A"),
        make_label("b", "C", "bert"),
        make_label("c", "A", "gpt", "model"),
        make_label("d", "A"),
        make_label("d", "A", "bert"),
        make_label("d", "C", "carol"),
        make_label("e", "A", rubric="another/1"),
        make_label("f", "A", split="tuning"),
    ]

    def letters(raters: Any) -> dict[str, str]:
        admitted = admitted_labels(labels, RUBRIC, TrustPolicy(raters=raters), judge_tuned=True)
        return {item: ref.letter for item, ref in reference_letters(admitted, RUBRIC.letters).items()}

    assert letters("people") == {"a": "B", "b": "C", "d": "A"}
    assert letters("any") == {"a": "B", "b": "C", "c": "A", "d": "A"}


def test_labels_are_weighted_by_the_probability_with_which_their_items_were_drawn() -> None:
    """A judge that misses 80 % of the faults, by a draw that takes all items that it faults and a tenth of the others."""
    found, missed, good = ("C" * 40, "C" * 16, "A" * 44)
    letters = labelled(found + missed + good, "C" * 40 + "A" * 60, per_chunk=1)
    drawn = replace(letters, inclusion=np.array([1.0] * 40 + [0.1] * 60))
    alike, weighted = numbers_of(letters), numbers_of(drawn)
    assert alike is not None
    assert weighted is not None
    assert alike.lower_recall.value == pytest.approx(40 / 56)
    assert weighted.lower_recall.value == pytest.approx(40 / (40 + 160))
    assert (alike.is_weighted, weighted.is_weighted) == (False, True)
    # 40 faults found, 160 missed, 440 good items
    assert weighted.observed.value == pytest.approx(480 / 640)
    assert decide_trust(weighted, TrustPolicy()).outcome == "not trusted"
    assert weighted.confusion == alike.confusion
    mixed = replace(drawn, kinds=np.array(["human"] * 80 + ["model"] * 20))
    assert numbers_of(mixed).lower_recall == alike.lower_recall  # type: ignore[union-attr]
    unknown = replace(drawn, inclusion=np.r_[np.nan, drawn.inclusion[1:]])  # type: ignore[index]
    assert numbers_of(unknown).lower_recall == alike.lower_recall  # type: ignore[union-attr]


def test_the_differential_error_weights_chunks_by_their_probability() -> None:
    letters = labelled("A" * 80, "CA" * 20 + "A" * 40, per_chunk=2)
    first = np.arange(80) % 2 == 0
    by_candidate = replace(letters, candidates={"a": first, "b": ~first})
    weighted = replace(by_candidate, inclusion=np.repeat([0.8, 0.2], 40))
    for data, expected in ((by_candidate, 0.5), (weighted, 0.2)):
        (pair,) = numbers_of(data).differential_errors  # type: ignore[union-attr]
        assert pair.error.value == pytest.approx(expected)


def test_an_item_of_several_raters_has_the_sum_of_its_weights() -> None:
    """One item drawn by both of two raters, whose two labels each stand for the same items."""
    labels = {
        "anna": [make_label("a", "A", inclusion=0.5), make_label("b", "A", inclusion=0.25)],
        "bert": [
            make_label("a", "A", "bert", inclusion=0.5),
            make_label("c", "A", "bert", inclusion=0.5),
            make_label("d", "A", "bert", inclusion=0.5),
            make_label("e", "A", "bert", inclusion=0.5),
        ],
    }
    reference = reference_letters(labels, RUBRIC.letters)
    weights = {item: 1 / (letter.inclusion or 0) for item, letter in reference.items()}
    # of anna's two labels each weighs 2 / p, of bert's four 4 / p
    expected = {"a": 4 + 8, "b": 8, "c": 8, "d": 8, "e": 8}
    assert weights == pytest.approx({item: weight / 8 for item, weight in expected.items()})
    alike = {"anna": [make_label("a", "A", inclusion=0.5), make_label("b", "A", inclusion=0.5)]}
    assert {letter.inclusion for letter in reference_letters(alike, RUBRIC.letters).values()} == {None}
    one_unknown = {**labels, "carl": [make_label("f", "A", "carl")]}
    assert {letter.inclusion for letter in reference_letters(one_unknown, RUBRIC.letters).values()} == {None}


@pytest.mark.parametrize("inclusion", [(0.5,), (0.0,) * 120, (1.5,) * 120])
def test_probabilities_that_do_not_fit_the_items_are_refused(inclusion: tuple[float, ...]) -> None:
    save(certificate(KEY, inclusion=inclusion))
    state, detail = certificate_state()
    assert state == "missing"
    assert "inclusion: expected a probability" in detail


# ------------------------------------------------------------------------------ issued from a run


LETTERS = ["AAB", "ABC", "BCA", "CAA", "ABB", "CCA"] * 8


@pytest.fixture(scope="module")
def graded_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run of two candidates whose judge agrees with anna, except that it gives A for the second candidate's B."""
    better = [letters.replace("B", "A") for letters in LETTERS]
    labels = {"anna": {"mistral": LETTERS, "qwen": LETTERS}}
    path = tmp_path_factory.mktemp("graded") / "run"
    run = make_run(path, {"mistral": LETTERS, "qwen": better}, labels=labels)
    run.write_report()
    return path


def run_gate(graded_run: Path, *, code: int, policy: str = LIMIT) -> None:
    Path("gate.yaml").write_text(f"certificate: require\n{policy}")
    assert run_command(["gate", str(graded_run)]) == code


@pytest.mark.slow
def test_a_certificate_issued_from_a_run_is_accepted_by_its_gate(graded_run: Path) -> None:
    run_gate(graded_run, code=3)
    labels = graded_run / "labels" / "anna.jsonl"
    issued = qaeval.certify("scripted-judge", run=graded_run, labels=labels)
    (rater,) = qaeval.agreement(graded_run, labels).agreement
    assert rater.coefficients is not None
    assert issued.numbers.kappa == rater.coefficients.kappa
    assert issued.numbers.gwet_ac1 == rater.coefficients.gwet_ac1
    assert issued.numbers.lower_recall.value == (rater.lower_recall and rater.lower_recall.value)
    assert issued.numbers.n_labels == 288
    # the judge gives A for every B of qwen, which adds the share of B to that of A
    share = sum(letters.count("B") for letters in LETTERS) / (3 * len(LETTERS))
    (error,) = issued.numbers.differential_errors
    assert (error.a, error.b) == ("mistral", "qwen")
    assert error.error.value == pytest.approx(share)
    assert issued.verdict.outcome == "not trusted"
    run_gate(graded_run, code=3)
    lenient = f"trust: {{differential_error: 0.9}}\n{LIMIT}"
    run_gate(graded_run, code=0, policy=lenient)
    (path,) = Path("certificates").iterdir()
    path.write_text(path.read_text().replace('"n_labels": 288', '"n_labels": 289'))
    run_gate(graded_run, code=3, policy=lenient)


@pytest.mark.slow
def test_a_judge_with_negative_kappa_or_three_labels_passes_no_gate(graded_run: Path) -> None:
    labels = graded_run / "labels" / "anna.jsonl"
    first_lines = labels.read_text().splitlines(keepends=True)[:3]
    Path("three.jsonl").write_text("".join(first_lines))
    assert (
        run_command(["certify", "scripted-judge", "--run", str(graded_run), "--labels", "three.jsonl"]) == 2
    )
    run_gate(graded_run, code=3)
    wrong_letter = {"A": "C", "B": "A", "C": "B"}
    rows = [json.loads(line) for line in labels.read_text().splitlines()]
    Path("bad.jsonl").write_text(
        "".join(json.dumps({**row, "label": wrong_letter[row["label"]]}) + "\n" for row in rows)
    )
    assert run_command(["certify", "scripted-judge", "--run", str(graded_run), "--labels", "bad.jsonl"]) == 3
    run_gate(graded_run, code=3)


def test_certificate_and_agreement_weigh_labels_alike(graded_run: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (graded_run / "labels" / "anna.jsonl").read_text().splitlines()]
    probabilities = {"A": 0.2, "B": 0.5, "C": 1.0}
    labels = tmp_path / "drawn.jsonl"
    labels.write_text(
        "".join(json.dumps({**row, "inclusion": probabilities[row["label"]]}) + "\n" for row in rows)
    )
    issued = qaeval.certify("scripted-judge", run=graded_run, labels=labels)
    (rater,) = qaeval.agreement(graded_run, labels).agreement
    assert rater.coefficients is not None
    assert rater.lower_recall is not None
    assert issued.numbers.is_weighted
    for ours, theirs in (
        (issued.numbers.kappa, rater.coefficients.kappa),
        (issued.numbers.gwet_ac1, rater.coefficients.gwet_ac1),
        (issued.numbers.lower_recall, rater.lower_recall),
    ):
        assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.value, theirs.low, theirs.high))
    (path,) = Path("certificates").iterdir()
    assert read_certificate(path).inclusion == issued.inclusion


def test_only_model_labels_are_refused_unless_admitted(graded_run: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (graded_run / "labels" / "anna.jsonl").read_text().splitlines()]
    proxies = tmp_path / "proxies.jsonl"
    proxies.write_text(
        "".join(json.dumps({**row, "rater": "gpt", "rater_kind": "model"}) + "\n" for row in rows)
    )
    with pytest.raises(DataError, match="gpt"):
        qaeval.certify("scripted-judge", run=graded_run, labels=proxies)
    issued = qaeval.certify("scripted-judge", run=graded_run, labels=proxies, raters="any")
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
    graded_run: Path, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        qaeval.certify(run=graded_run, labels=graded_run / "labels" / "anna.jsonl", **arguments)


# ------------------------------------------------------------------------------ issued from labels alone


def grade_by_length(request: ChatRequest) -> str:
    return grade_reply("A" if len(request.inputs["answer"]) % 2 else "B")


def labels_of_sentences(n: int = 60) -> list[Label]:
    """Label the first sentences of the shipped chunks as answers, C where they are short."""
    rows = []
    for sample in load_samples(find_eval("qa_pairs"))[:n]:
        answer = sample.chunk.text.split(".")[0]
        item = Item.of(sample.sample_id, 0, type="", question="What?", answer=answer)
        letter = "A" if len(answer) > 80 else "C"
        rows.append(
            make_label(item.item_id, letter, chunk_id=sample.chunk.chunk_id, question="What?", answer=answer)
        )
    return rows


def test_the_judge_grades_the_labelled_items_of_an_eval(tmp_path: Path) -> None:
    labels = labels_of_sentences()
    write_labels(tmp_path / "anna.jsonl", labels)
    with registered("odd", ScriptedModel(grade_by_length)):
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


def test_the_items_of_a_certificate_are_no_run(
    tmp_path: Path, graded_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(graded_run, "results/run")
    write_labels(tmp_path / "anna.jsonl", labels_of_sentences())
    with registered("odd", ScriptedModel(grade_by_length)):
        qaeval.certify("odd", eval_name="qa_pairs", labels=tmp_path / "anna.jsonl", cache=False)
    (folder,) = Path("results").glob("certify-*")
    assert (find_run("latest"), [*list_runs(Path("results"))]) == (Path("results/run"), ["run"])
    reasons = {folder.name: folder.reason for folder in read_runs(Path("results"))[1]}
    assert reasons == {folder.name: "the labelled items of a certificate, no run of candidates"}
    for words in (
        ["baseline", "set", str(folder)],
        ["gate", str(folder), "--baseline", "results/run"],
        ["gate", "results/run", "--baseline", str(folder)],
        ["gate", str(folder), "--sequential", "--baseline", "results/run"],
        ["compare-runs", "results/run", str(folder)],
        ["decide", str(folder)],
    ):
        capsys.readouterr()
        assert run_command(words) == 65, words
        message = capsys.readouterr().err
        assert (
            f"{folder}: the labelled items of a certificate, no run of candidates; name the directory"
            in message
        )


def test_labels_of_another_eval_or_without_text_are_refused_with_advice(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.jsonl"
    texts = {"question": "Why?", "answer": "Because.", "chunk_id": "nowhere"}
    write_labels(foreign, [make_label("0" * 16, "A", **texts)])
    bare = tmp_path / "bare.jsonl"
    write_labels(bare, [make_label("0" * 16, "A")])
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    for path, message in ((foreign, "no chunk"), (bare, "no text"), (empty, "no labels")):
        with pytest.raises(DataError, match=message):
            qaeval.certify("embedded-lexical", eval_name="qa_pairs", labels=path)
    with pytest.raises(DataError, match=r"^qa_pairs: no labels"):
        qaeval.certify("embedded-lexical", eval_name="qa_pairs", labels=[])
    assert not list(tmp_path.glob("results/*"))


@pytest.mark.slow
@pytest.mark.parametrize("eval_name", ["qa_pairs", "rag_qa"])
def test_a_certificate_can_be_issued_for_the_floor_judge(
    eval_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    definition = find_eval(eval_name)
    rubric = find_rubric(definition.rubric)
    names = {f"{rubric.name}/{version}" for version in (rubric.version, *rubric.labels_from)}
    usable_labels = [
        row for path in definition.label_paths for row in read_labels(path) if row.rubric in names
    ]
    code = run_command(["certify", "embedded-lexical", "--eval", eval_name, "--raters", "any", "--json"])
    if not usable_labels:
        assert code == 65
        return
    issued = JudgeCertificate.model_validate_json(capsys.readouterr().out)
    assert code == {"trusted": 0, "not enough labels": 2, "not trusted": 3}[issued.verdict.outcome]
    reference, judged = ([SCALE.index(line.split(" ")[column]) for line in issued.items] for column in (2, 3))
    weights = [1 / (drawn or 1) for drawn in issued.inclusion] or None
    expected = cohen_kappa_score(reference, judged, sample_weight=weights)
    assert issued.numbers.kappa.value == pytest.approx(expected)
    assert issued.judge_tuned
    assert issued.numbers.n_by_kind.get("human", 0) + issued.numbers.n_by_kind.get("model", 0) > 0


# ------------------------------------------------------------------------------ audit


def make_audit(verdict: str, probe: str, **request: str) -> Audit:
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


def test_a_failed_audit_refutes_a_judge_and_a_required_audit_must_pass() -> None:
    save(certificate(KEY, audit=make_audit("not trusted", "fail")))
    assert (certificate_state()[0], "length" in certificate_state()[1]) == ("not trusted", True)
    assert certificate_state(trust={"audit": "off"})[0] == "valid"
    save(certificate(KEY, audit=make_audit("trusted so far", "pass")))
    assert certificate_state(trust={"audit": "require"})[0] == "valid"
    save(certificate(KEY, audit=make_audit("not enough data", "not enough data")))
    assert certificate_state()[0] == "valid"
    assert certificate_state(trust={"audit": "require"})[0] == "not enough labels"
    save(certificate(KEY))
    result = check(requiring("c.json", trust={"audit": "require"}), KEY, TODAY)
    assert (result.state, result.verdict and result.verdict.n_more) == ("not enough labels", None)


def test_an_audit_of_another_judge_is_refused(graded_run: Path, tmp_path: Path) -> None:
    save(certificate(KEY, audit=make_audit("trusted so far", "pass", judge_digest="0" * 64)))
    assert (certificate_state()[0], "another judge" in certificate_state()[1]) == ("missing", True)
    (tmp_path / "audit.json").write_text(make_audit("trusted so far", "pass").model_dump_json())
    with pytest.raises(UsageError, match="qaeval audit scripted-judge"):
        qaeval.certify(
            "scripted-judge", run=graded_run, labels=graded_run / "labels" / "anna.jsonl", audit=tmp_path
        )


# ------------------------------------------------------------------------------ verdict


def make_numbers(value: float, low: float, high: float, **overrides: Any) -> JudgeNumbers:
    good_numbers = numbers_of(labelled(*good_letters()))
    assert good_numbers is not None
    kappa = Measure(value=value, low=low, high=high, method="", n=120, n_clusters=40)
    return good_numbers.model_copy(update={"kappa": kappa, **overrides})


def test_the_verdict_follows_from_the_interval_bounds() -> None:
    trust = TrustPolicy()
    assert decide_trust(make_numbers(0.5, 0.41, 0.6), trust).outcome == "trusted"
    assert decide_trust(make_numbers(0.3, 0.2, 0.39), trust).outcome == "not trusted"
    near, far = (
        decide_trust(make_numbers(kappa, kappa - 0.15, kappa + 0.15), trust) for kappa in (0.42, 0.5)
    )
    assert near.outcome == far.outcome == "not enough labels"
    assert near.n_more is not None
    assert far.n_more is not None
    assert near.n_more > 10 * far.n_more
    assert decide_trust(make_numbers(0.4, 0.3, 0.5), trust).n_more is None


def test_the_outcome_tells_whether_more_labels_would_refute_the_judge() -> None:
    trust = TrustPolicy(labels=130)
    behind, ahead = (
        decide_trust(make_numbers(kappa, kappa - 0.1, kappa + 0.1), trust) for kappa in (0.32, 0.48)
    )
    assert behind.outcome == ahead.outcome == "not enough labels"
    assert (behind.would_refute, ahead.would_refute) == (True, False)
    # fewer than the required 130 labels are fine, since they decide against the judge
    assert behind.n_more is not None
    assert outcome_of(behind).endswith("more labels would show that the judge is not to be trusted")
    assert outcome_of(ahead).endswith("more labels would decide")


def test_a_recall_from_few_chunks_needs_more_chunks() -> None:
    """Of 84 items in 84 chunks, 4 are below the best letter: an interval of their share needs 10 such chunks."""
    few_chunks = Measure(
        value=1.0, low=None, high=None, reason="4 clusters: no interval", method="", n=4, n_clusters=4
    )
    verdict = decide_trust(
        make_numbers(0.7, 0.6, 0.8, lower_recall=few_chunks, n_labels=84, n_chunks=84), TrustPolicy()
    )
    assert verdict.n_more == 84 * 10 // 4 - 84
    assert "(4 chunks: no interval)" in verdict.requirements[0]
    no_chunks = few_chunks.model_copy(update={"value": 0.0, "n": 0, "n_clusters": 0})
    unknown = decide_trust(make_numbers(0.7, 0.6, 0.8, lower_recall=no_chunks), TrustPolicy())
    assert outcome_of(unknown) == "not enough labels"


def test_a_clearer_judge_never_needs_more_labels() -> None:
    rng = np.random.default_rng(5)
    needed = [
        decide_trust(make_numbers(kappa, kappa - 0.1, kappa + 0.1), TrustPolicy()).n_more or 0
        for kappa in sorted(rng.uniform(0.41, 0.49, 6))
    ]
    assert needed[0] > needed[-1]
    assert all(a >= b for a, b in pairwise(needed))


def draw_letters(rng: np.random.Generator, n_chunks: int, *, accuracy: float) -> Any:
    """Draw labels and a judge that gives the right letter with a probability that varies by chunk."""
    letters = labelled("A" * 3 * n_chunks, "A" * 3 * n_chunks)
    reference = rng.choice(3, size=3 * n_chunks, p=[0.6, 0.2, 0.2])
    skill = np.repeat(rng.beta(8 * accuracy, 8 * (1 - accuracy), n_chunks), 3)
    is_right = rng.random(3 * n_chunks) < skill
    judged = np.where(is_right, reference, (reference + rng.integers(1, 3, 3 * n_chunks)) % 3)
    return replace(letters, reference=reference, judged=judged)


def is_decided(letters: Any, limit: float) -> bool:
    interval = kappa_interval(letters.reference, letters.judged, letters.clusters, n_levels=3)
    return interval.low > limit or interval.high < limit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accuracy", "limit", "n_pilot"),
    [(0.8, 0.55, 40), pytest.param(0.7, 0.57, 80, marks=pytest.mark.nightly)],
)
def test_the_forecast_of_labels_needed_is_within_25_percent(
    accuracy: float, limit: float, n_pilot: int
) -> None:
    """Compare the median forecast of pilot samples with the number of labels at which 80 % of fresh samples decide."""
    rng = np.random.default_rng(22)
    trust = TrustPolicy(kappa=limit, lower_recall=0.0, labels=1)
    forecasts = []
    for _ in range(200):
        pilot = draw_letters(rng, n_pilot, accuracy=accuracy)
        pilot_numbers = numbers_of(pilot)
        assert pilot_numbers is not None
        verdict = decide_trust(pilot_numbers, trust)
        n_more = verdict.n_more or 10**9 if verdict.outcome == "not enough labels" else 0
        forecasts.append(3 * n_pilot + n_more)
    sizes = np.unique(np.geomspace(40, 1500, 24).astype(int))
    power = [
        np.mean([is_decided(draw_letters(rng, n, accuracy=accuracy), limit) for _ in range(150)])
        for n in sizes
    ]
    needed = 3 * float(np.exp(np.interp(0.8, np.maximum.accumulate(power), np.log(sizes))))
    sys.stdout.write(f"forecast {median(forecasts):.0f}, needed {needed:.0f}\n")
    assert 0.75 * needed <= median(forecasts) <= 1.25 * needed
