import copy
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from k8s.crds import SCHEMAS
from k8s.lint import RULES, env, lint, of_kind
from k8s.programs import program
from k8s.render import K8S, Object, containers, identity, lifted, overlays, pod_spec, render
from qaeval.registry.config import load_config
from qaeval.registry.model import ModelSpec

ROOT = K8S.parent
OLDEST, NEWEST = "1.29", "1.37"
"""Native sidecars are on by default since 1.29."""
VARIANTS: list[tuple[str, ...]] = [
    *((name,) for name in overlays()),
    ("l4-single", "monitoring"),
    ("l4-single", "lora"),
    ("l4-single", "kueue"),
    ("l4-single", "lora", "monitoring", "kueue"),
    ("l4-single", "argo", "monitoring"),
    ("l4-pair", "monitoring"),
    ("l4-pair", "argo"),
    ("l4-pair", "keda"),
    ("l4-pair", "keda", "monitoring"),
    ("l4-pair", "monitoring", "ray"),
]
SERVE_OPTIONS = (ROOT / "tests" / "replay" / "vllm-0.32.0" / "serve-options.txt").read_text()


def by_name(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [entry for entry in of_kind(objects, kind) if entry["metadata"]["name"] == name]
    return found


def container(objects: list[Object], kind: str, name: str, which: str) -> Object:
    pod = pod_spec(by_name(objects, kind, name))
    assert pod is not None
    (found,) = [entry for entry in containers(pod) if entry["name"] == which]
    return found


def servers(overlay: str, *components: str) -> list[Object]:
    pods = [pod_spec(entry) for entry in render(overlay, *components)]
    return [entry for pod in pods if pod for entry in containers(pod) if entry["name"] == "vllm"]


# ---------------------------------------------------------------- rendered and valid


@pytest.mark.parametrize("variant", VARIANTS, ids="+".join)
def test_every_overlay_breaks_no_rule(variant: tuple[str, ...]) -> None:
    assert lint(render(*variant)) == set()


@pytest.mark.parametrize("variant", VARIANTS, ids="+".join)
def test_kubectl_renders_the_same(variant: tuple[str, ...], tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    overlay, *components = variant
    folder = tmp_path / "k8s" / "overlays" / overlay
    if components:
        folder = tmp_path / "k8s" / "tried"
        folder.mkdir()
        said = {
            "resources": [f"../overlays/{overlay}"],
            "components": [f"../components/{name}" for name in components],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(said))
    command = [program("kubectl"), "kustomize", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    theirs = {identity(entry): entry for entry in yaml.safe_load_all(run.stdout)}
    ours = {identity(entry): entry for entry in render(*variant)}
    assert sorted(ours) == sorted(theirs)
    for name, entry in ours.items():
        assert entry == theirs[name], name


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("variant", VARIANTS, ids="+".join)
def test_every_object_fits_the_schema(variant: tuple[str, ...], version: str) -> None:
    objects = render(*variant)
    for entry in [*objects, *(entry for entry in lifted(objects) if entry not in objects)]:
        validate(entry, version)


def validate(entry: Object, version: str) -> None:
    """Check one object; a kind that neither Kubernetes nor tests/k8s/crds.py knows is an error."""
    own = SCHEMAS.get((entry["apiVersion"], entry["kind"]))
    if own is not None:
        jsonschema.validate(entry, own)
        return
    try:
        import kubernetes_validate  # noqa: PLC0415 - 110 MB of schemas
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip("kubernetes-validate is not there: `make test-k8s` installs it")
    kubernetes_validate.validate(entry, version, strict=True)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda entry: entry["spec"].update(replicaz=1), "Deployment"),
        (lambda entry: entry["spec"].pop("selector"), "Deployment"),
        (lambda entry: entry.update(apiVersion="policy/v1beta1"), "PodDisruptionBudget"),
        (
            lambda entry: entry["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0].pop("status"),
            "Job",
        ),
        (lambda entry: entry["spec"].update(podMetricsEndpoint=[]), "PodMonitor"),
        (lambda entry: entry["spec"]["groups"][0]["rules"][0].update(alrt="x"), "PrometheusRule"),
        (lambda entry: entry["spec"]["triggers"][0].update(type="prometheus"), "ScaledObject"),
        (lambda entry: entry["spec"]["templates"][0].update(dag={}), "WorkflowTemplate"),
        (lambda entry: entry["spec"]["templates"][2]["resource"].update(action="create"), "WorkflowTemplate"),
    ],
)
def test_the_schemas_find_what_does_not_belong(change: Any, kind: str) -> None:
    objects = [
        entry
        for entry in render("l4-pair", "monitoring", "keda", "argo")
        if entry["kind"] == kind and entry["metadata"]["name"] != "merge"
    ]
    entry = copy.deepcopy(objects[0])
    assert refusal(entry) is None
    change(entry)
    assert refusal(entry) in {"ValidationError", "SchemaNotFoundError"}


def refusal(entry: Object) -> str | None:
    try:
        validate(entry, OLDEST)
    except Exception as error:  # noqa: BLE001 - two packages, each with an exception of its own
        return type(error).__name__
    return None


# ---------------------------------------------------------------- what the manifests say is what qaeval says


def registry(overlay: str) -> Any:
    return load_config(ROOT / "qaeval.yaml", K8S / "overlays" / overlay / "qaeval.yaml")


def serving_arguments(spec: ModelSpec) -> set[str]:
    return set(spec.vllm_args)


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_servers_are_started_as_the_registry_says(overlay: str) -> None:
    known = registry(overlay)
    assert servers(overlay)
    for server in servers(overlay):
        name = env(server)["MODEL"]
        spec = {**known.models, **known.judges}[name]
        said = {word.replace("$(CONTEXT)", str(env(server)["CONTEXT"])) for word in server["args"]}
        own = {"/models/$(MODEL)", "--served-model-name=$(MODEL)", "--host=0.0.0.0", "--port=8000"}
        adapter = {word for word in said if "lora" in word}
        assert said - own - adapter == serving_arguments(spec), name


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_every_option_is_one_of_vllm(overlay: str) -> None:
    started = servers(overlay, *(["lora"] if overlay == "l4-single" else []))
    assert started
    for server in started:
        assert len(server["args"]) > 1
        for word in server["args"][1:]:
            option = word.partition("=")[0].partition(".")[0]
            assert re.search(rf"^  .*{re.escape(option)}\b", SERVE_OPTIONS, re.MULTILINE), option


def test_the_list_of_models_has_the_revisions_of_the_registry() -> None:
    listed = json.loads((K8S / "base" / "models.json").read_text())
    known = registry("l4-single")
    downloaded = {name: entry for name, entry in listed.items() if "repository" in entry}
    assert downloaded
    for name, entry in downloaded.items():
        spec = {**known.models, **known.judges}[name]
        assert (entry["repository"], entry["revision"]) == (spec.hf_id, spec.revision)


def test_the_judge_is_of_no_candidates_family() -> None:
    known = registry("l4-single")
    assert known.judges["selene"].family not in {
        known.models[name].family for name in ("mistral-v0.3", "qwen2.5")
    }


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_everything_that_is_served_was_staged(overlay: str) -> None:
    staged = {
        word
        for name in ("candidates", "judge")
        for word in container(render("stage-models"), "Job", "stage-models", name)["command"][5:]
    }
    assert {env(server)["MODEL"] for server in servers(overlay)} <= staged


def test_the_shares_are_as_many_as_the_pods() -> None:
    objects = render("l4-pair")
    spec = by_name(objects, "Job", "run")["spec"]
    assert spec["completions"] == int(by_name(objects, "ConfigMap", "run")["data"]["SHARDS"])


def test_a_shard_has_attempts_of_its_own_and_the_first_that_is_lost_ends_the_run() -> None:
    spec = by_name(render("l4-pair"), "Job", "run")["spec"]
    assert (spec["completionMode"], spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (
        "Indexed",
        3,
        0,
    )


def test_the_adapter_is_served_under_the_registrys_name_from_the_checked_folder() -> None:
    server = container(render("l4-pair"), "Deployment", "server-generator", "vllm")
    adapter = registry("l4-pair").models["tuned"].lora
    assert f"--lora-modules=tuned={adapter.path}" in server["args"]
    assert f"--max-lora-rank={adapter.rank}" in server["args"]
    checked = container(render("l4-pair"), "Deployment", "server-generator", "check-models")["command"]
    assert adapter.path.removeprefix("/models/") in checked


def test_the_servers_addresses_are_services_of_the_overlay() -> None:
    names = {entry["metadata"]["name"]: entry for entry in of_kind(render("l4-pair"), "Service")}
    known = registry("l4-pair")
    for spec in (known.models["mistral-v0.3"], known.models["tuned"], known.judges["selene"]):
        host, port = re.fullmatch(r"http://([\w-]+):(\d+)/v1", spec.url).groups()
        assert names[host]["spec"]["ports"][0]["port"] == int(port)


def test_images_without_a_digest_say_why() -> None:
    images = [
        (path.name, line.strip())
        for path in K8S.rglob("*.yaml")
        for line in path.read_text().splitlines()
        if re.match(r"\s+(- )?image: ", line)
    ]
    assert images
    for file, line in images:
        assert "@sha256:" in line or " # " in line, f"{file}: {line}"


# ---------------------------------------------------------------- the image


def test_the_image_has_no_root_and_no_build_tools() -> None:
    stages = re.split(r"^FROM ", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE)[1:]
    assert len(stages) == 2
    last = stages[-1]
    assert re.search(r"^USER 2000:2000$", last, re.MULTILINE)
    assert "pip uninstall" in last
    assert not re.search(r"apt-get install|gcc|pip install|build-essential", last)
    assert "--require-hashes -r requirements/run.lock" in stages[0]


def test_the_build_context_leaves_out_results_and_history() -> None:
    lines = (ROOT / ".containerignore").read_text().splitlines()
    ignored = [line for line in lines if not line.startswith("#")]
    assert ignored[0] == "*"
    needed = {
        "!src",
        "!evals",
        "!rubrics",
        "!qaeval.yaml",
        "!pyproject.toml",
        "!README.md",
        "!LICENSE",
        "!requirements/run.lock",
    }
    assert needed <= set(ignored)


# ---------------------------------------------------------------- the documents


def test_every_file_that_the_documents_name_is_there() -> None:
    for document in (K8S / "README.md", ROOT / "docs" / "kubernetes.md"):
        names = re.findall(r"(?<![\w/])(k8s/[\w./-]+|tests/k8s/[\w.-]+)", document.read_text())
        assert names, document.name
        for name in names:
            assert (ROOT / name.rstrip(".")).exists(), f"{document.name}: {name}"


def test_every_rule_is_named_once_in_the_document() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    assert [name for name in RULES if text.count(f"| `{name}` |") != 1] == []


def test_no_file_names_a_machine_of_ours() -> None:
    files = [path for path in K8S.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert not re.search(r"/(work|home/(?!vllm)|Users)/", path.read_text()), path


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_a_component_is_there_when_its_hash_is_taken_off(overlay: str) -> None:
    text = (K8S / "overlays" / overlay / "kustomization.yaml").read_text()
    offered = re.findall(r"^#(  - \.\./\.\./components/(\S+))$", text, flags=re.MULTILINE)
    assert {"monitoring", "argo"} <= {name for _, name in offered}
    before = yaml.safe_load(text).get("components", [])
    for line, name in offered:
        taken = text.replace("#components:", "components:").replace(f"#{line}", line)
        assert {*before, f"../../components/{name}"} == set(yaml.safe_load(taken)["components"])


def test_every_manifest_is_part_of_something() -> None:
    named: set[Path] = set()
    for path in K8S.rglob("kustomization.yaml"):
        named.add(path)
        read = yaml.safe_load(path.read_text())
        for name in read.get("resources", ()):
            named.add((path.parent / name).resolve())
        for entry in read.get("configMapGenerator", ()):
            named |= {
                (path.parent / name).resolve() for name in (*entry.get("files", ()), *entry.get("envs", ()))
            }
    own = {K8S / "README.md", K8S / "run-stages.sh"}
    files = {path for path in K8S.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert files - named - own == set()


# ---------------------------------------------------------------- the workflow


def steps(objects: list[Object], name: str) -> list[list[tuple[str, str]]]:
    """Return template and Job of each step, those that begin together in one list."""
    templates = {
        entry["name"]: entry for entry in by_name(objects, "WorkflowTemplate", "qaeval")["spec"]["templates"]
    }
    return [
        [(one["template"], one["arguments"]["parameters"][0]["value"]) for one in together]
        for together in templates[name]["steps"]
    ]


def test_the_workflow_releases_the_stages_in_their_order() -> None:
    objects = render("l4-single", "argo")
    jobs = sorted(entry["metadata"]["name"] for entry in of_kind(objects, "Job"))
    assert steps(objects, "stages") == [[("job", name)] for name in jobs]
    assert all(entry["spec"]["suspend"] is True for entry in of_kind(objects, "Job"))


def test_the_workflow_runs_the_shards_beside_their_servers_and_then_merges() -> None:
    objects = render("l4-pair", "argo")
    assert steps(objects, "shards") == [[("release", "power"), ("all-shards", "run")], [("job", "merge")]]
    assert all(entry["spec"]["suspend"] is True for entry in of_kind(objects, "Job"))
    templates = {
        entry["name"]: entry for entry in by_name(objects, "WorkflowTemplate", "qaeval")["spec"]["templates"]
    }
    completions = by_name(objects, "Job", "run")["spec"]["completions"]
    assert templates["all-shards"]["resource"]["successCondition"] == f"status.succeeded > {completions - 1}"


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_the_workflow_may_touch_the_jobs_that_it_releases_and_no_others(overlay: str) -> None:
    objects = render(overlay, "argo")
    allowed = by_name(objects, "Role", "workflow")["rules"][0]["resourceNames"]
    both = [*steps(objects, "stages"), *steps(objects, "shards")]
    assert sorted(allowed) == sorted(job for together in both for _, job in together)


def test_a_step_of_the_workflow_changes_nothing_but_whether_its_job_is_suspended() -> None:
    templates = by_name(render("l4-pair", "argo"), "WorkflowTemplate", "qaeval")["spec"]["templates"]
    resources = [entry["resource"] for entry in templates if "resource" in entry]
    assert resources
    for resource in resources:
        manifest = yaml.safe_load(resource["manifest"])
        assert manifest["metadata"] == {"name": "{{inputs.parameters.job}}", "namespace": "qaeval"}
        assert manifest["spec"] == {"suspend": False}


# ---------------------------------------------------------------- Ray


def test_a_cluster_on_ray_runs_the_version_that_is_tested_without_a_token_and_beside_headless_services() -> (
    None
):
    objects = render("l4-pair", "monitoring", "ray")
    cluster = by_name(objects, "RayJob", "run")["spec"]["rayClusterSpec"]
    pinned = re.search(r"^ray==(\S+)", (ROOT / "requirements" / "ray.txt").read_text(), flags=re.MULTILINE)
    assert pinned is not None
    assert cluster["rayVersion"] == pinned[1]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (ray,) = group["template"]["spec"]["containers"]
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in ray["env"]
        ports = [int(value) for name, value in group["rayStartParams"].items() if name.endswith("port")]
        assert all(6379 <= port <= 6499 for port in ports), "those that the policies name"
    services = {entry["metadata"]["name"]: entry["spec"] for entry in of_kind(objects, "Service")}
    assert {services[f"server-{role}"]["clusterIP"] for role in ("generator", "judge")} == {"None"}
    assert not of_kind(objects, "Job")
    assert not of_kind(objects, "Role")
