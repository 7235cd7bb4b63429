"""Models of other packages, as candidate and as judge, and their possible defects."""

import json
import sys
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from command import Typed, qaeval
from qaeval.errors import EndpointError, UsageError
from qaeval.registry.find import find_config
from qaeval.registry.plugins import MODELS, load_plugin

MODEL = """
import json
from qaeval.chat.protocol import Completion

class Model:
    async def complete(self, request):
        if "letter" in request.schema["properties"]:
            value = {"reason": "fine", "letter": "A", "hallucination": False}
        else:
            kinds = ("factual", "conceptual", "comparison")
            pairs = [{"type": kind, "question": f"What is {kind}?", "answer": request.inputs["chunk"][:40]} for kind in kinds]
            value = {"pairs": pairs}
        return Completion(json.dumps(value), "stop", usage=None, latency_s=0.0)

class Broken:
    async def complete(self, request):
        return {}["no such key"]

class Mute:
    async def complete(self, request):
        return "a string"

class Sync:
    def complete(self, request):
        return None

def fail():
    raise RuntimeError("no weights here")

number = 3
"""
_numbers = count()


class Site:
    """A folder of installed packages at the front of the import path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, package: str, source: str = MODEL, **models: str) -> str:
        """Install a package of one module, and register parts of it; return the module's name."""
        module = f"plugin_under_test_{next(_numbers)}"
        (self.folder / f"{module}.py").write_text(source)
        dist_info = self.folder / f"{package}-1.0.dist-info"
        dist_info.mkdir()
        (dist_info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {module}:{part}" for name, part in models.items()]
        (dist_info / "entry_points.txt").write_text("\n".join([f"[{MODELS}]", *lines, ""]))
        return module


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return Site(folder)


def compare(folder: Path, *arguments: str) -> Typed:
    return qaeval("compare", "mymodel", "embedded-lead", "--n", "4", "--out", "run", *arguments, cwd=folder)


def read_run_file(folder: Path, name: str) -> Any:
    return json.loads((folder / "run" / name).read_text())


# ---------------------------------------------------------------------------------- working models


@pytest.mark.slow
def test_a_registered_model_needs_no_registry_entry(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", mymodel="Model")
    assert compare(tmp_path).returncode == 0
    settings, report = read_run_file(tmp_path, "settings.json"), read_run_file(tmp_path, "report.json")
    assert settings["candidates"]["mymodel"]["kind"] == "plugin"
    assert settings["grading"]["judge"]["name"] == "embedded-lexical"
    (candidate,) = (row for row in report["candidates"] if row["facts"]["name"] == "mymodel")
    assert (candidate["n_expected"], candidate["failed"]["n"]) == (12, 0)
    floors = [sentence["text"] for sentence in report["headline"] if "floor" in sentence["text"]]
    assert floors
    assert not any("mymodel" in text for text in floors)


@pytest.mark.slow
def test_a_registered_model_can_be_the_judge(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", mymodel="Model")
    assert compare(tmp_path, "--judge", "mymodel", "--allow-same-family").returncode == 0
    grades = (tmp_path / "run" / "grades.jsonl").read_text().splitlines()
    assert {(row["judge"], row["letter"]) for row in map(json.loads, grades)} == {("mymodel", "A")}


@pytest.mark.slow
def test_a_registry_entry_sets_licence_and_default_judge(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", mymodel="Model", myjudge="Model")
    (tmp_path / "qaeval.yaml").write_text(
        "models: {mymodel: {kind: plugin, licence: MIT}}\ndefaults: {embedded_judge: myjudge}\n"
    )
    assert compare(tmp_path).returncode == 0
    settings = read_run_file(tmp_path, "settings.json")
    assert settings["candidates"]["mymodel"]["licence"] == "MIT"
    assert settings["grading"]["judge"]["name"] == "myjudge"


def test_doctor_loads_a_registered_model(site: Site, tmp_path: Path) -> None:
    module = site.install("mypackage", mymodel="Model")
    result = qaeval("doctor", "mymodel", "embedded-lead", cwd=tmp_path)
    assert "mymodel: runs inside qaeval" in result.stdout
    assert module in sys.modules


@pytest.mark.slow
def test_output_of_a_model_without_a_licence_is_not_exported(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", mymodel="Model")
    assert compare(tmp_path, "--judge", "mymodel", "--allow-same-family").returncode == 0
    result = qaeval("export", "run", "--to", "sft", cwd=tmp_path)
    assert result.returncode == 64
    assert "mymodel" in result.stderr


def test_entry_points_are_read_only_for_unknown_names(tmp_path: Path) -> None:
    with patch("qaeval.registry.plugins.entry_points", side_effect=AssertionError("read")):
        config = find_config(None)
        assert config.candidate("mistral").kind == config.judge("selene").kind == "server"
        assert config.candidate("embedded-lead").kind == "embedded"
        assert qaeval("--help", cwd=tmp_path).returncode == qaeval("models", cwd=tmp_path).returncode == 0


# ----------------------------------------------------------------------------------- defective models


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("nothing", "importing 'plugin_under_test_"),
        ("number", "is 3; expected a function without arguments"),
        ("fail", "mymodel: its factory failed: RuntimeError: no weights here ("),
        ("Model.complete", "mymodel: its factory failed: TypeError"),
        ("dict", "mymodel: its factory returned {}"),
        ("Sync", "mymodel: `complete` of Sync is not an `async def`"),
        ("Broken", "mymodel: the model failed: KeyError: 'no such key' ("),
        ("Mute", "mymodel: expected a Completion as its reply, got 'a string'"),
    ],
)
def test_an_unusable_model_ends_the_run_with_its_name(
    part: str, message: str, site: Site, tmp_path: Path
) -> None:
    site.install("mypackage", f"from builtins import dict\n{MODEL}", mymodel=part)
    result = compare(tmp_path)
    assert result.returncode == EndpointError.exit_code, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_factory_that_returns_a_class_is_refused(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", f"{MODEL}\ndef make():\n    return Model\n", mymodel="make")
    result = compare(tmp_path)
    assert result.returncode == EndpointError.exit_code
    assert "chat model" in result.stderr


def test_a_package_that_cannot_be_imported_is_named_before_any_request(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", "import no_such_module\n", mymodel="Model")
    result = compare(tmp_path)
    assert result.returncode == EndpointError.exit_code
    assert "mypackage 1.0" in result.stderr
    assert "ModuleNotFoundError" in result.stderr
    assert "'no_such_module'" in result.stderr
    assert not (tmp_path / "run" / "generations.jsonl").exists()


def test_a_name_registered_by_two_packages_is_refused(site: Site, tmp_path: Path) -> None:
    modules = [site.install(package, mymodel="Model") for package in ("first", "second")]
    result = compare(tmp_path)
    assert result.returncode == UsageError.exit_code
    assert f"first 1.0 ({modules[0]}:Model)" in result.stderr
    assert f"second 1.0 ({modules[1]}:Model)" in result.stderr


def test_the_name_of_an_embedded_model_cannot_be_taken(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", **{"mymodel": "Model", "embedded-lead": "Model"})
    result = compare(tmp_path)
    assert result.returncode == UsageError.exit_code
    assert "'embedded-lead' is registered more" in result.stderr


def test_an_unknown_name_is_refused_with_the_known_names(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", mymodell="Model")
    result = compare(tmp_path)
    assert result.returncode == UsageError.exit_code
    assert "Did you mean 'mymodell'?" in result.stderr
    assert "from installed packages: mymodell" in result.stderr


def test_a_registry_plugin_that_no_package_registers_is_refused(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", mymodell="Model")
    (tmp_path / "qaeval.yaml").write_text("models: {mymodel: {kind: plugin}}\n")
    result = compare(tmp_path)
    assert result.returncode == UsageError.exit_code
    assert "package registers 'mymodel'" in result.stderr
    assert "Did you mean 'mymodell'?" in result.stderr


def test_missing_entry_points_advise_a_reinstallation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UsageError, match=r"'embedded-lead': .*reinstall qaeval"):
        load_plugin(MODELS, "embedded-lead")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--endpoint", "embedded-lead=http://127.0.0.1:1/v1"), "an embedded model runs inside qaeval"),
        (("--endpoint", "theirs=http://127.0.0.1:1/v1"), "a plugin runs inside qaeval"),
    ],
)
def test_a_model_without_a_server_has_no_endpoint(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "qaeval.yaml").write_text("models: {theirs: {kind: plugin}}\n")
    result = compare(tmp_path, *arguments)
    assert result.returncode == UsageError.exit_code
    assert message in result.stderr
