"""Model families: the lines of a model, the default judge, and judges that are refused."""

import json
from pathlib import Path

import pytest

import qaeval
from command import qaeval as run_command
from qaeval.errors import UsageError
from qaeval.registry.config import ModelSpec
from qaeval.registry.family import lines, relation
from qaeval.registry.find import find_config
from qaeval.registry.model import Lora
from qaeval.run.plan import find_judging
from qaeval.storage.run_directory import RunStore
from qaeval.testing import ScriptedModel, grade_reply, pairs_reply, registered
from replay.server import LoopbackServer

EMBEDDED = ("embedded-lead", "embedded-salient")


def spec(name: str = "ours", **fields: object) -> ModelSpec:
    return ModelSpec.model_validate({"name": name, "url": "http://127.0.0.1:1/v1", **fields})


@pytest.mark.parametrize(
    ("hf_id", "expected"),
    [
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", ("qwen",)),
        ("Qwen/Qwen3-8B", ("qwen",)),
        ("Qwen/QwQ-32B", ("qwen",)),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", ("mistral",)),
        ("mistralai/Ministral-8B-Instruct-2410", ("mistral",)),
        ("solidrust/Mistral-7B-Instruct-v0.3-AWQ", ("mistral",)),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", ("llama",)),
        ("codellama/CodeLlama-7b-hf", ("llama",)),
        ("lmsys/vicuna-7b-v1.5", ("llama",)),
        ("AtlaAI/Selene-1-Mini-Llama-3.1-8B", ("llama",)),
        ("nvidia/Llama-3.1-Nemotron-70B-Instruct-HF", ("llama", "nemotron")),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", ("deepseek", "qwen")),
        ("opencompass/CompassJudger-2-7B-Instruct", ("qwen",)),
        ("openai/gpt-oss-20b", ("gpt",)),
        ("google/gemma-3-12b-it", ("gemini",)),
        ("microsoft/phi-4", ("phi",)),
        ("zai-org/GLM-4-9B-0414", ("glm",)),
        ("EleutherAI/gpt-j-6b", ()),
        ("cognitivecomputations/dolphin-2.9", ()),
        ("acme/yielding-llamas-v1", ()),
    ],
)
def test_lines_are_read_from_the_model_name(hf_id: str, expected: tuple[str, ...]) -> None:
    assert lines(spec(hf_id=hf_id)) == expected


def test_precedence_of_family_repository_served_name_and_entry_name() -> None:
    assert lines(spec("qwen", hf_id="acme/m", served_name="llama", family="mistral")) == ("mistral",)
    assert lines(spec("qwen", hf_id="acme/gemma-x", served_name="llama")) == ("gemini",)
    assert lines(spec("qwen", hf_id="acme/m", served_name="llama")) == ("llama",)
    assert lines(spec("qwen-ours")) == ("qwen",)
    assert lines(spec("ours")) == ()
    assert lines(spec("tuned", lora=Lora(base="qwen", path="/a"))) == ("qwen",)


def test_custom_family_is_a_line_without_its_version() -> None:
    assert lines(spec(family="Acme-2.5")) == lines(spec(family="acme3")) == ("acme",)
    assert lines(spec(family="deepseek, qwen")) == ("deepseek", "qwen")
    assert lines(spec(family="7")) == ("7",)


def test_lines_of_the_shipped_registry() -> None:
    config = find_config(None)
    lines_by_name = {name: lines(entry) for name, entry in {**config.models, **config.judges}.items()}
    assert lines_by_name == {
        **dict.fromkeys(
            ("mistral", "mistral-v0.3", "ministral", "ministral-3-3b", "ministral-3-14b"), ("mistral",)
        ),
        **dict.fromkeys(("qwen", "qwen-4b", "qwen3-8b", "qwen2.5", "compass-judger", "qwen-14b"), ("qwen",)),
        **dict.fromkeys(("llama", "selene"), ("llama",)),
        **dict.fromkeys(("gemma", "gemma-12b"), ("gemini",)),
        **{name: (name,) for name in ("glm", "granite", "nemotron", "olmo", "phi", "smollm")},
        "gpt-oss": ("gpt",),
        **dict.fromkeys((*EMBEDDED, "embedded-lexical"), ()),
    }


def test_shared_weights_family_or_server_relate_a_judge_to_a_candidate() -> None:
    judge = spec("judge", hf_id="acme/m")
    assert relation(judge, spec("other", hf_id="acme/m")) == "the same weights, acme/m"
    assert relation(spec("a"), spec("a")) == "the same model"
    assert relation(spec("a", family="qwen2.5"), spec("b", family="qwen3")) == "family qwen"
    distilled = spec("b", hf_id="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B")
    assert relation(spec("a", family="qwen"), distilled) == "family qwen"
    assert relation(spec("a", family="deepseek-v3"), distilled) == "family deepseek"
    assert relation(spec("a"), spec("b")).startswith("the same server")
    replicas = ("http://127.0.0.1:1/v1",)
    assert relation(spec("a"), spec("b", url="http://127.0.0.1:2/v1", replicas=replicas))


def test_router_unknown_family_and_embedded_models_are_unrelated() -> None:
    # one address, but two known lines
    assert not relation(spec("a", family="qwen"), spec("b", family="llama"))
    assert not relation(spec("a"), spec("b", url="http://127.0.0.1:2/v1"))
    embedded = ModelSpec(name="embedded-lead", kind="embedded")
    assert not relation(embedded, embedded)
    assert not relation(spec("a"), embedded)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("candidates", "judge"),
    [
        (("mistral",), "compass-judger"),
        (("mistral", "qwen"), "selene"),
        (("mistral", "qwen", "llama"), "gpt-oss"),
        (("mistral", "embedded-lead"), "compass-judger"),
        (EMBEDDED, "embedded-lexical"),
    ],
)
def test_default_judge_is_the_first_of_another_family(candidates: tuple[str, ...], judge: str) -> None:
    config = find_config(None)
    judging = find_judging(config, tuple(map(config.candidate, candidates)), judge=None, rubric="qa_pair_abc")
    assert judging.judge.name == judge
    assert "allow_same_family" not in judging.settings()
    assert bool(judging.note) == (judge in {"selene", "gpt-oss"})


def test_configured_default_judge_has_precedence(tmp_path: Path) -> None:
    config_path = tmp_path / "ours.yaml"
    config_path.write_text("judges: {ours: {url: 'http://127.0.0.1:9/v1'}}\ndefaults: {judge: ours}\n")
    config = find_config(config_path)
    assert config.default_judge((config.candidate("qwen"),)).name == "ours"
    config_path.write_text(
        "judges: {ours: {url: 'http://127.0.0.1:9/v1', family: qwen3}}\ndefaults: {judge: ours}\n"
    )
    config = find_config(config_path)
    assert config.default_judge((config.candidate("qwen"),)).name == "selene"


def test_judge_of_a_candidates_family_is_refused_with_alternatives() -> None:
    config = find_config(None)
    candidates = (config.candidate("mistral"), config.candidate("qwen"))
    with pytest.raises(UsageError, match=r"qwen: family qwen.*selene, gpt-oss.*--allow-same-family"):
        find_judging(config, candidates, judge="qwen-14b", rubric="qa_pair_abc")
    allowed = find_judging(config, candidates, judge="qwen-14b", rubric="qa_pair_abc", allow_same_family=True)
    assert allowed.settings()["allow_same_family"] is True
    unrelated = find_judging(config, candidates, judge="selene", rubric="qa_pair_abc", allow_same_family=True)
    assert "allow_same_family" not in unrelated.settings()


def test_existing_run_keeps_its_judge() -> None:
    config = find_config(None)
    candidates = (config.candidate("qwen"),)
    recorded = find_judging(config, (), judge="compass-judger", rubric="qa_pair_abc").settings()
    default_judge = find_judging(config, candidates, judge=None, rubric="qa_pair_abc", recorded=recorded)
    explicit_judge = find_judging(
        config, candidates, judge="compass-judger", rubric="qa_pair_abc", recorded=recorded
    )
    assert default_judge.settings() == explicit_judge.settings() == recorded
    with pytest.raises(UsageError, match="family qwen"):
        find_judging(config, candidates, judge="qwen-14b", rubric="qa_pair_abc", recorded=recorded)


def _headline(run: qaeval.Run) -> str:
    return " ".join(sentence.text for sentence in run.report.headline)


@pytest.mark.slow
def test_same_model_as_judge_is_refused_unless_allowed(tmp_path: Path) -> None:
    pairs = [(kind, f"{kind}?", "So.") for kind in ("factual", "conceptual", "comparison")]
    model = ScriptedModel(
        lambda request: grade_reply("A") if "rubric" in request.inputs else pairs_reply(pairs)
    )
    out = tmp_path / "run"
    with registered("mine", model):
        run = qaeval.generate("mine", eval_name="qa_pairs", n=2, out=out)
        with pytest.raises(UsageError, match="the same model"):
            qaeval.grade(run, judge="mine")
        assert RunStore(out).settings()["grading"] is None
        run = qaeval.grade(run, judge="mine", allow_same_family=True)
        assert "--allow-same-family" in _headline(run)
        regraded = qaeval.grade(out)  # the judge of the run, without the option
    assert "--allow-same-family" in _headline(regraded)


@pytest.mark.slow
def test_compare_selects_an_unrelated_judge_and_resumes_with_it(tmp_path: Path) -> None:
    names = ("mistral", "qwen", "selene")
    with LoopbackServer(names) as server:
        endpoints = [argument for name in names for argument in ("--endpoint", f"{name}={server.url}")]
        command = ["compare", "mistral", "qwen", "--n", "2", *endpoints]
        refused = run_command(*command, "--judge", "qwen", "--out", "run", cwd=tmp_path)
        assert refused.returncode == 64
        assert not (tmp_path / "run").exists()
        result = run_command(*command, "--out", "run", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "selene" in result.stderr
        resumed = run_command(*command, "--out", "run", "--resume", cwd=tmp_path)
        assert resumed.returncode == 0, resumed.stderr
        allowed = run_command(
            *command, "--judge", "qwen", "--allow-same-family", "--out", "own", cwd=tmp_path
        )
        assert allowed.returncode == 0, allowed.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["judge"]["facts"]["name"] == "selene"
    assert report["candidates"][1]["facts"]["family"] == ["qwen"]
    texts = [sentence["text"] for sentence in report["headline"]]
    assert not any("family" in text for text in texts)
    same_family_report = json.loads((tmp_path / "own" / "report.json").read_text())
    assert any("--allow-same-family" in sentence["text"] for sentence in same_family_report["headline"])


@pytest.mark.slow
def test_unknown_family_is_allowed_and_noted(tmp_path: Path) -> None:
    with LoopbackServer(["ours"]) as writer, LoopbackServer(["selene"]) as judge:
        (tmp_path / "qaeval.yaml").write_text(f"models: {{ours: {{url: '{writer.url}'}}}}\n")
        command = ["compare", "ours", "--n", "2", "--judge", "selene", f"--endpoint=selene={judge.url}"]
        assert run_command(*command, "--out", "run", cwd=tmp_path).returncode == 0
        (tmp_path / "qaeval.yaml").write_text(f"models: {{ours: {{url: '{writer.url}', family: llama-3}}}}\n")
        refused = run_command(*command, "--out", "other", cwd=tmp_path)
    assert refused.returncode == 64
    assert "ours: family llama" in refused.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    notes = [sentence["text"] for sentence in report["headline"] if sentence["kind"] == "note"]
    assert any("ours" in text and "family" in text for text in notes)
    assert "family" not in report["candidates"][0]["facts"]
