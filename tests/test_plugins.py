"""Models of other packages, as candidate and as judge, and what can be wrong with them."""

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
    """A folder of installed packages, in front of all others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, package: str, source: str = MODEL, **models: str) -> str:
        """Install a package of one module, and register parts of it; return the module's name."""
        module = f"plugin_under_test_{next(_numbers)}"
        (self.folder / f"{module}.py").write_text(source)
        about = self.folder / f"{package}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {module}:{part}" for name, part in models.items()]
        (about / "entry_points.txt").write_text("\n".join([f"[{MODELS}]", *lines, ""]))
        return module


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return Site(folder)


def compare(folder: Path, *words: str) -> Typed:
    return qaeval("compare", "mymodel", "embedded-lead", "--n", "4", "--out", "run", *words, cwd=folder)


def part_of_run(folder: Path, name: str) -> Any:
    return json.loads((folder / "run" / name).read_text())


# ---------------------------------------------------------------------------------- a model that works


@pytest.mark.slow
def test_a_registered_model_is_compared_without_an_entry_of_the_registry(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", mymodel="Model")
    assert compare(tmp_path).returncode == 0
    settings, report = part_of_run(tmp_path, "settings.json"), part_of_run(tmp_path, "report.json")
    assert settings["candidates"]["mymodel"]["kind"] == "plugin"
    assert settings["grading"]["judge"]["name"] == "embedded-lexical"
    (mine,) = (one for one in report["candidates"] if one["facts"]["name"] == "mymodel")
    assert (mine["n_expected"], mine["failed"]["n"]) == (12, 0)
    floors = [sentence["text"] for sentence in report["headline"] if "floor" in sentence["text"]]
    assert floors
    assert not any("mymodel" in text for text in floors)


@pytest.mark.slow
def test_a_registered_model_grades(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", mymodel="Model")
    assert compare(tmp_path, "--judge", "mymodel", "--allow-same-family").returncode == 0
    grades = (tmp_path / "run" / "grades.jsonl").read_text().splitlines()
    assert {(row["judge"], row["letter"]) for row in map(json.loads, grades)} == {("mymodel", "A")}


@pytest.mark.slow
def test_an_entry_of_the_registry_says_its_licence_and_its_defaults(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", mymodel="Model", myjudge="Model")
    (tmp_path / "qaeval.yaml").write_text(
        "models: {mymodel: {kind: plugin, licence: MIT}}\ndefaults: {embedded_judge: myjudge}\n"
    )
    assert compare(tmp_path).returncode == 0
    settings = part_of_run(tmp_path, "settings.json")
    assert settings["candidates"]["mymodel"]["licence"] == "MIT"
    assert settings["grading"]["judge"]["name"] == "myjudge"


def test_doctor_loads_a_registered_model(site: Site, tmp_path: Path) -> None:
    module = site.install("mypackage", mymodel="Model")
    shown = qaeval("doctor", "mymodel", "embedded-lead", cwd=tmp_path)
    assert "mymodel: runs inside qaeval" in shown.stdout
    assert module in sys.modules


@pytest.mark.slow
def test_a_model_that_writes_without_a_known_licence_is_not_exported(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", mymodel="Model")
    assert compare(tmp_path, "--judge", "mymodel", "--allow-same-family").returncode == 0
    shown = qaeval("export", "run", "--to", "sft", cwd=tmp_path)
    assert shown.returncode == 64
    assert "mymodel" in shown.stderr


def test_entry_points_are_read_for_unknown_names_alone(tmp_path: Path) -> None:
    with patch("qaeval.registry.plugins.entry_points", side_effect=AssertionError("read")):
        config = find_config(None)
        assert config.candidate("mistral").kind == config.judge("selene").kind == "server"
        assert config.candidate("embedded-lead").kind == "embedded"
        assert qaeval("--help", cwd=tmp_path).returncode == qaeval("models", cwd=tmp_path).returncode == 0


# ----------------------------------------------------------------------------------- one that does not


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
def test_a_model_that_cannot_be_used_ends_the_run_with_its_name(
    part: str, message: str, site: Site, tmp_path: Path
) -> None:
    site.install("mypackage", f"from builtins import dict\n{MODEL}", mymodel=part)
    shown = compare(tmp_path)
    assert shown.returncode == EndpointError.exit_code, shown.stderr
    assert message in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_factory_that_returns_its_class_is_refused(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", f"{MODEL}\ndef make():\n    return Model\n", mymodel="make")
    shown = compare(tmp_path)
    assert shown.returncode == EndpointError.exit_code
    assert "chat model" in shown.stderr


def test_a_package_that_cannot_be_imported_is_named_before_anything_is_asked(
    site: Site, tmp_path: Path
) -> None:
    site.install("mypackage", "import no_such_module\n", mymodel="Model")
    shown = compare(tmp_path)
    assert shown.returncode == EndpointError.exit_code
    assert "mypackage 1.0" in shown.stderr
    assert "ModuleNotFoundError" in shown.stderr
    assert "'no_such_module'" in shown.stderr
    assert not (tmp_path / "run" / "generations.jsonl").exists()


def test_a_name_of_two_packages_is_refused(site: Site, tmp_path: Path) -> None:
    modules = [site.install(package, mymodel="Model") for package in ("first", "second")]
    shown = compare(tmp_path)
    assert shown.returncode == UsageError.exit_code
    assert f"first 1.0 ({modules[0]}:Model)" in shown.stderr
    assert f"second 1.0 ({modules[1]}:Model)" in shown.stderr


def test_the_name_of_an_embedded_model_cannot_be_taken(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", **{"mymodel": "Model", "embedded-lead": "Model"})
    shown = compare(tmp_path)
    assert shown.returncode == UsageError.exit_code
    assert "'embedded-lead' is registered more" in shown.stderr


def test_an_unknown_name_is_answered_with_the_names_that_there_are(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", mymodell="Model")
    shown = compare(tmp_path)
    assert shown.returncode == UsageError.exit_code
    assert "Did you mean 'mymodell'?" in shown.stderr
    assert "from installed packages: mymodell" in shown.stderr


def test_a_plugin_of_the_registry_that_nobody_registers_is_refused(site: Site, tmp_path: Path) -> None:
    site.install("mypackage", mymodell="Model")
    (tmp_path / "qaeval.yaml").write_text("models: {mymodel: {kind: plugin}}\n")
    shown = compare(tmp_path)
    assert shown.returncode == UsageError.exit_code
    assert "package registers 'mymodel'" in shown.stderr
    assert "Did you mean 'mymodell'?" in shown.stderr


def test_an_installation_without_any_entry_point_is_to_be_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UsageError, match=r"'embedded-lead': .*reinstall qaeval"):
        load_plugin(MODELS, "embedded-lead")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--endpoint", "embedded-lead=http://127.0.0.1:1/v1"), "an embedded model runs inside qaeval"),
        (("--endpoint", "theirs=http://127.0.0.1:1/v1"), "a plugin runs inside qaeval"),
    ],
)
def test_a_model_without_a_server_has_no_endpoint(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "qaeval.yaml").write_text("models: {theirs: {kind: plugin}}\n")
    shown = compare(tmp_path, *words)
    assert shown.returncode == UsageError.exit_code
    assert message in shown.stderr
