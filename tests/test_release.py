"""The release workflow: pinned actions, least rights, the same command as the dry run."""

import re
from pathlib import Path
from typing import Any

from qaeval.files.yaml import read_yaml

ROOT = Path(__file__).parents[1]
FILE = ROOT / ".github/workflows/release.yml"
JOBS: dict[str, Any] = read_yaml(FILE)["jobs"]


def test_every_action_is_pinned_by_commit_and_names_its_version() -> None:
    uses = re.findall(r"uses: (.+)", FILE.read_text())
    assert len(uses) == sum("uses" in step for job in JOBS.values() for step in job["steps"])
    for action in uses:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_a_job_has_the_rights_that_it_needs_alone() -> None:
    assert read_yaml(FILE)["permissions"] == {}
    assert {name: job["permissions"] for name, job in JOBS.items()} == {
        "build": {"contents": "read"},
        "attest": {"id-token": "write", "attestations": "write"},
        "publish": {"id-token": "write"},
        "release": {"contents": "write"},
    }
    assert not re.findall(r"secrets\.|password|token:", FILE.read_text().replace("id-token:", ""))


def test_what_is_published_is_what_the_dry_run_builds_and_only_of_a_tag() -> None:
    assert "make dist" in [step.get("run") for step in JOBS["build"]["steps"]]
    assert "if" not in JOBS["build"]
    assert {job["if"] for name, job in JOBS.items() if name != "build"} == {"github.ref_type == 'tag'"}
    assert [job.get("needs") for job in JOBS.values()] == [None, "build", "attest", "publish"]
    assert JOBS["publish"]["environment"] == "release"
    assert not any("run" in step for step in JOBS["publish"]["steps"])


def test_no_expression_is_part_of_a_script() -> None:
    scripts = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]
    assert scripts
    assert not [script for script in scripts if "${{" in script]
