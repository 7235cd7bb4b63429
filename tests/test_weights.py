"""Which weights answered: what a server says that it serves, and the hash of its folder where that is on this machine."""

import os
from pathlib import Path

import pytest

from qaeval.comparison.run_data import FILES, _served
from qaeval.run.endpoint import _with_files
from qaeval.serving.probe import EndpointFacts, files_digest
from report_builders import case


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mistral"
    made.mkdir()
    (made / "config.json").write_text('{"num_hidden_layers": 32}')
    (made / "model.safetensors").write_bytes(b"0123456789")
    return made


def test_a_folder_is_told_by_names_sizes_and_what_its_settings_say(folder: Path) -> None:
    before = files_digest(folder)
    assert files_digest(folder) == before
    (folder / "config.json").write_text('{"num_hidden_layers": 33}')
    settings = files_digest(folder)
    (folder / "model.safetensors").write_bytes(b"01234567890")
    size = files_digest(folder)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert len({before, settings, size, files_digest(folder)}) == 4


def test_weights_are_not_read(folder: Path) -> None:
    before = files_digest(folder)
    (folder / "model.safetensors").write_bytes(b"9876543210")
    assert files_digest(folder) == before


def found(root: str | None, *addresses: str) -> str | None:
    facts = EndpointFacts(base_url="http://127.0.0.1:8000/v1", model="mistral", root=root)
    return _with_files(facts, addresses or ("127.0.0.1",)).files_sha256


def test_a_folder_is_hashed_where_the_server_is_on_this_machine(folder: Path) -> None:
    assert found(str(folder)) == files_digest(folder)
    assert found(str(folder), "10.0.0.5") is None
    assert found("solidrust/Mistral-7B-Instruct-v0.3-AWQ") is None
    assert found(None) is None


def test_what_a_server_calls_its_folder_ends_nothing(folder: Path) -> None:
    for root in ("/" + "x" * 5000, "/a\0b", f"{folder}/{'x' * 300}"):
        assert found(root) is None
    (folder / os.fsdecode(b"\xff.json")).write_text("{}")
    assert len(files_digest(folder)) == 64


def test_the_report_says_what_the_servers_said(folder: Path) -> None:
    made = case({"alpha": ["AAA"]})
    endpoint = {"version": "0.26.0", "root": str(folder), "max_model_len": 8192, "files_sha256": "f" * 64}
    first, *rest = made.rows.sessions
    again = first.model_copy(update={"endpoint": {**endpoint, "version": "0.27.0", "max_model_len": 4096}})
    sessions = (first.model_copy(update={"endpoint": endpoint}), again, *rest)
    facts = _served(made.candidates[0], "generate", sessions)
    assert (facts.server, facts.max_model_len) == ("vllm 0.26.0 and 0.27.0", 4096)
    assert dict(facts.more) == {"served from": str(folder), FILES: "f" * 64}
    assert _served(made.candidates[0], "grade", sessions) == made.candidates[0]
