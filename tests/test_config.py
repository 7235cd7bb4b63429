from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from qaeval.errors import DataError, UsageError
from qaeval.registry.config import Config, load_config

Load: TypeAlias = Callable[..., Config]

SHIPPED = Path(__file__).parents[1] / "qaeval.yaml"

BASE = """
vllm_args: [--seed=0, --max-num-seqs=64]
models:
  mistral: {hf_id: org/mistral, licence: Apache-2.0, vllm_args: [--max-model-len, 16384]}
  lead: {kind: embedded, openness: embedded}
judges:
  compass: {hf_id: org/compass, sampling: {max_tokens: 2048}}
  lexical: {kind: embedded}
defaults: {judge: compass, embedded_judge: lexical}
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(*texts: str) -> Config:
        paths = []
        for number, text in enumerate(texts):
            paths.append(tmp_path / f"{number}.yaml")
            paths[-1].write_text(text)
        return load_config(*paths)

    return load


def test_an_override_changes_single_fields_and_adds_entries(load: Load) -> None:
    config = load(BASE, "models:\n  mistral: {url: 'http://gpu:8000'}\n  ours: {url: 'http://gpu:8001/v1'}\n")
    assert config.models["mistral"].url == "http://gpu:8000/v1"
    assert config.models["mistral"].licence == "Apache-2.0"
    assert list(config.models) == ["mistral", "lead", "ours"]
    assert config.defaults.judge == "compass"


def test_the_last_override_wins_and_lists_are_replaced(load: Load) -> None:
    config = load(
        BASE, "models: {mistral: {vllm_args: [--a=1], licence: X}}", "models: {mistral: {licence: Y}}"
    )
    assert config.models["mistral"].licence == "Y"
    assert config.models["mistral"].vllm_args == ("--seed=0", "--max-num-seqs=64", "--a=1")


def test_common_arguments_precede_those_of_an_entry(load: Load) -> None:
    config = load(BASE)
    assert config.models["mistral"].serve_arguments() == (
        "org/mistral",
        "--served-model-name",
        "mistral",
        "--seed=0",
        "--max-num-seqs=64",
        "--max-model-len",
        "16384",
    )
    assert config.models["mistral"].context == 16384
    assert config.models["lead"].vllm_args == ()


def test_any_model_can_judge_and_judges_take_precedence(load: Load) -> None:
    config = load(BASE, "judges: {mistral: {hf_id: org/mistral-judge}}")
    assert config.judge("mistral").hf_id == "org/mistral-judge"
    assert config.candidate("mistral").hf_id == "org/mistral"
    assert config.judge("lead").kind == "embedded"


def test_the_default_judge_depends_on_whether_a_server_takes_part(load: Load) -> None:
    config = load(BASE)
    lead, mistral = config.candidate("lead"), config.candidate("mistral")
    assert config.default_judge((lead,)).name == "lexical"
    assert config.default_judge((lead, mistral)).name == "compass"


def test_a_registry_without_a_default_judge_names_the_missing_key(load: Load) -> None:
    config = load("models: {lead: {kind: embedded}}")
    with pytest.raises(UsageError, match=r"defaults\.embedded_judge in"):
        config.default_judge((config.candidate("lead"),))
    config = load("models: {mistral: {hf_id: a/b}}")
    with pytest.raises(UsageError, match=r"defaults\.judge in"):
        config.default_judge((config.candidate("mistral"),))


@pytest.mark.parametrize(
    ("look_up", "message"),
    [
        (
            lambda c: c.candidate("mistrl"),
            "unknown model 'mistrl'. Did you mean 'mistral'? Known: lead, mistral",
        ),
        (lambda c: c.candidate("compass"), "registered under judges only"),
        (
            lambda c: c.judge("lexcal"),
            "unknown judge 'lexcal'. Did you mean 'lexical'? Known: compass, lead, lexical",
        ),
        (lambda c: c.with_endpoints({"mistrl": "http://x"}), "Did you mean 'mistral'?"),
        (lambda c: c.with_endpoints({"lead": "http://x"}), "an embedded model runs inside qaeval"),
        (lambda c: c.with_endpoints({"mistral": "gpu:8000"}), "endpoint for 'mistral': expected a URL like"),
    ],
)
def test_an_unknown_name_gets_a_suggestion(
    load: Load, look_up: Callable[[Config], object], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        look_up(load(BASE))
    assert message in str(error.value)


def test_endpoints_change_the_url_of_models_and_judges(load: Load) -> None:
    before = load(BASE, "judges: {mistral: {hf_id: org/mistral}}")
    after = before.with_endpoints({"mistral": "http://127.0.0.1:8000"})
    assert after.candidate("mistral").url == after.judge("mistral").url == "http://127.0.0.1:8000/v1"
    assert after.judge("compass").url is None
    assert before.candidate("mistral").url is None


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/", "http://h:8000/v1"),
        ("https://h/v1/", "https://h/v1"),
        ("http://h/v1/chat/completions", "http://h/v1"),
        ("http://[::1]:8000/openai/v1", "http://[::1]:8000/openai/v1"),
    ],
)
def test_a_url_is_normalised_to_its_base(load: Load, url: str, base: str) -> None:
    assert load(f"models: {{m: {{url: '{url}'}}}}").candidate("m").url == base


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8000", "expected a URL like http://127.0.0.1:8000/v1, got '127.0.0.1:8000'"),
        ("ftp://h/v1", "expected a URL like"),
        ("http:///v1", "expected a URL like"),
        ("http://h:99999/v1", "not a URL"),
        ("http://h/models", "ending in /v1, got 'http://h/models'"),
        ("http://h/v1?x=1", "ending in /v1"),
    ],
)
def test_an_invalid_base_url_is_refused(load: Load, url: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        load(f"models: {{m: {{url: '{url}'}}}}")
    assert "models.m.url: " in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("api_key: sk-very-secret", "models.m.api_key: secrets are not"),
        ("API_KEY: sk-very-secret", "models.m.API_KEY: secrets are not"),
        ("api_key_env: sk-very-secret", "models.m.api_key_env: expected an environment variable"),
        ("url: 'http://me:sk-very-secret@h/v1'", "models.m.url: user names and passwords"),
        ("vllm_args: [--api-key, sk-very-secret]", "models.m.vllm_args: keys are not"),
        ("vllm_args: [--api-key=sk-very-secret]", "VLLM_API_KEY"),
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(load: Load, entry: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        load(f"models: {{m: {{hf_id: a/b, {entry}}}}}")
    assert message in str(error.value)
    assert "very-secret" not in str(error.value)


@pytest.mark.parametrize("text", ["", "# models:\n", "models:\n  # m: {hf_id: a/b}\n", "defaults:\n"])
def test_sections_of_comments_alone_are_empty(text: str, load: Load) -> None:
    assert load(BASE, text) == load(BASE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {}", "unknown key 'model'. Did you mean 'models'?"),
        ("models: {m: {hf_idd: a/b}}", "unknown key 'models.m.hf_idd'. Did you mean 'hf_id'?"),
        (
            "models: {m: {licence: x}}",
            "models.m: a server needs hf_id",
        ),
        ("models: {m: {kind: embedded, url: 'http://h'}}", "models.m: an embedded model runs inside qaeval"),
        ("models: {m: }", "models.m: expected a mapping (key: value), got None"),
        ("models: {Big One: {hf_id: a/b}}", "got 'Big One'"),
        ("models: {m: {name: n, hf_id: a/b}}", "models.m.name: the key is the name"),
        ("models: {m: {hf_id: a/b, revision: main}}", "models.m.revision: expected"),
        ("models: {m: {hf_id: --help}}", "models.m.hf_id: expected"),
        (
            "models: {m: {hf_id: a/b, kind: sever}}",
            "models.m.kind: expected one of 'server', 'embedded', 'plugin' or 'hosted', got 'sever'. Did you",
        ),
        ("defaults: {judge: m}", "defaults.judge: unknown model or judge 'm'"),
        ("allow_external: ['https://api.example.com']", "allow_external[1]: expected"),
        ("defaults: {seed: 9223372036854775808}", "defaults.seed: expected a number of at most 922"),
        ("defaults: {outage_s: 1.0e999}", "defaults.outage_s: expected a number of at most"),
        (
            "hardware: {x: {price_per_hour: inf, as_of: '2026-01-01', source: x}}",
            "hardware.x.price_per_hour: expected a number of at most 9223372036854775807, got inf",
        ),
        (
            "hardware: {x: {price_per_hour: 1.0e300, as_of: '2026-01-01', source: x}}",
            "hardware.x.price_per_hour: expected a number of at most",
        ),
        (
            "hosted_prices: {x: {input_per_million: 1, output_per_million: nan, as_of: '2026-01-01', source: x}}",
            "hosted_prices.x.output_per_million: expected",
        ),
        ("models: {m: {hf_id: a/b, weights_gib: 1.0e999}}", "models.m.weights_gib: expected"),
        (
            "models: {m: {hf_id: a/b, sampling: {seed: -9223372036854775808}}}",
            "models.m.sampling.seed: expected",
        ),
    ],
)
def test_an_invalid_registry_is_refused(load: Load, text: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        load(text)
    assert message in str(error.value)


def test_the_file_with_the_mistake_is_named(load: Load, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load(BASE, "models: {mistral: {ulr: x}}")
    assert str(error.value).startswith(f"{tmp_path / '1.yaml'}: unknown key 'models.mistral.ulr'.")


def test_structured_off_needs_no_quotes(load: Load) -> None:
    config = load("models: {m: {hf_id: a/b, structured: off}}")
    assert config.candidate("m").structured == "off"


def test_identity_leaves_out_endpoint_and_capacity(load: Load) -> None:
    spec = load(BASE).candidate("mistral")
    remote_spec = load(
        BASE,
        "vllm_args: [--seed=0, --max-num-seqs, 16]\n"
        "models: {mistral: {url: 'http://h', notes: n, api_key_env: KEY}}",
    ).candidate("mistral")
    assert spec.identity() == remote_spec.identity()
    assert spec.identity()["vllm_args"] == ["--seed=0", "--max-model-len", "16384"]
    resampled_spec = load(BASE, "models: {mistral: {sampling: {temperature: 0.5}}}").candidate("mistral")
    assert resampled_spec.identity() != spec.identity()


def test_sampling_overrides_replace_the_defaults_of_the_stage(load: Load) -> None:
    @dataclass(frozen=True)
    class Sampling:
        temperature: float = 0.0
        max_tokens: int = 1024

    assert load(BASE).judge("compass").sampled(Sampling(temperature=0.7)) == Sampling(0.7, 2048)


def test_the_shipped_registry_loads_and_pins_revisions() -> None:
    config = load_config(SHIPPED)
    assert config.allow_external == ()
    assert config.candidate("ministral").openness == "restricted"
    servers = [spec for spec in (*config.models.values(), *config.judges.values()) if spec.kind == "server"]
    assert [spec.name for spec in servers if spec.revision is None] == [
        spec.name for spec in servers if "revision" in spec.unconfirmed
    ]
    assert all(spec.context and spec.licence and spec.openness and spec.family for spec in servers)
    assert all(spec.url is None for spec in servers)


# ------------------------------------------------------------------------------ machines

PRICED = "{price_per_hour: 1.2, currency: EUR, as_of: 2026-11-01, source: an offer}"


def test_the_machine_is_that_of_the_model_then_the_option_then_the_default(load: Load) -> None:
    text = "hardware: {own: {gpu: A}, named: {gpu: B}, usual: {gpu: C}}\nmodels: {mistral: {hardware: own}}\n"
    config = load(BASE, text, "defaults: {hardware: usual}")

    def machine(name: str, hardware: str | None = None) -> str:
        match = config.machine(name, hardware)
        assert match
        return match[0]

    assert (machine("mistral", "named"), machine("compass", "named"), machine("compass")) == (
        "own",
        "named",
        "usual",
    )
    assert load(BASE).machine("mistral") is None


@pytest.mark.parametrize("missing", ["as_of", "source"])
def test_a_price_needs_a_date_and_a_source(load: Load, missing: str) -> None:
    machine = {"price_per_hour": "1.2", "as_of": "2026-11-01", "source": "an offer"}
    del machine[missing]
    text = ", ".join(f"{key}: {value}" for key, value in machine.items())
    with pytest.raises(DataError, match=r"hardware\.ours.*as_of.*source"):
        load(BASE, f"hardware: {{ours: {{{text}}}}}")


@pytest.mark.parametrize("currency", ["eur", "€", "EURO"])
def test_a_currency_is_a_three_letter_code(load: Load, currency: str) -> None:
    with pytest.raises(DataError, match=r"hardware\.ours\.currency: .*like EUR, got"):
        load(BASE, f"hardware: {{ours: {PRICED.replace('EUR', currency)}}}")


def test_a_grid_factor_needs_a_source(load: Load) -> None:
    with pytest.raises(DataError, match=r"hardware\.ours.*needs grid_source"):
        load(BASE, "hardware: {ours: {grid_g_per_kwh: 350}}")


@pytest.mark.parametrize("missing", ["input_per_million", "output_per_million", "as_of", "source"])
def test_a_hosted_price_needs_all_fields(load: Load, missing: str) -> None:
    price = {"input_per_million": "1", "output_per_million": "2", "as_of": "2026-11-01", "source": "a list"}
    complete = ", ".join(f"{key}: {value}" for key, value in price.items())
    assert load(BASE, f"hosted_prices: {{api: {{{complete}}}}}").hosted_prices["api"].currency == "USD"
    del price[missing]
    incomplete = ", ".join(f"{key}: {value}" for key, value in price.items())
    with pytest.raises(DataError, match=rf"hosted_prices\.api\.{missing}"):
        load(BASE, f"hosted_prices: {{api: {{{incomplete}}}}}")


def test_an_unknown_machine_gets_a_suggestion(load: Load) -> None:
    with pytest.raises(DataError, match=r"models\.mistral\.hardware.*'our'.*ours"):
        load(BASE, f"hardware: {{ours: {PRICED}}}\nmodels: {{mistral: {{hardware: our}}}}")
    with pytest.raises(UsageError, match=r"'outs'.*ours"):
        load(BASE, f"hardware: {{ours: {PRICED}}}").machine("mistral", "outs")


def test_the_shipped_registry_has_no_prices() -> None:
    config = load_config(SHIPPED)
    assert all(machine.price_per_hour is None for machine in config.hardware.values())
    assert config.hosted_prices == {}


def test_all_problems_of_a_registry_are_reported_at_once(load: Load) -> None:
    text = """
models:
  mistral: {hf: org/mistral, thinking: maybe, api_key: x}
  Ours: {}
  lead: {kind: embedded, name: follow}
defaults: {concurrency: often}
"""
    with pytest.raises(DataError) as error:
        load(BASE, text)
    problems = str(error.value).split("\n")[1:]
    assert [problem.split()[0] for problem in problems] == [
        "models.mistral.api_key:",
        "models:",
        "models.lead.name:",
        "unknown",
        "models.mistral.thinking:",
        "defaults.concurrency:",
    ]
    assert problems[-1].endswith("expected a whole number or 'auto', got 'often'")


def test_all_references_to_unknown_entries_are_reported_at_once(load: Load) -> None:
    with pytest.raises(DataError) as error:
        load(BASE, "models: {a: {hardware: l5}, b: {}}\ndefaults: {judge: compas, hardware: l6}")
    problems = [line.split(":")[0].strip() for line in str(error.value).split("\n")[1:]]
    assert problems == ["models.a", "models.b", "models.a.hardware", "defaults.hardware", "defaults.judge"]
