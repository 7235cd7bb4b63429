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


def find_object(objects: list[Object], kind: str, name: str) -> Object:
    (match,) = [entry for entry in of_kind(objects, kind) if entry["metadata"]["name"] == name]
    return match


def find_container(objects: list[Object], kind: str, name: str, container_name: str) -> Object:
    pod = pod_spec(find_object(objects, kind, name))
    assert pod is not None
    (match,) = [entry for entry in containers(pod) if entry["name"] == container_name]
    return match


def vllm_containers(overlay: str, *components: str) -> list[Object]:
    pods = [pod_spec(entry) for entry in render(overlay, *components)]
    return [entry for pod in pods if pod for entry in containers(pod) if entry["name"] == "vllm"]


# ---------------------------------------------------------------- rendering and validation


@pytest.mark.parametrize("variant", VARIANTS, ids="+".join)
def test_every_overlay_passes_the_linter(variant: tuple[str, ...]) -> None:
    assert lint(render(*variant)) == set()


@pytest.mark.parametrize("variant", VARIANTS, ids="+".join)
def test_kubectl_renders_the_same_objects(variant: tuple[str, ...], tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    overlay, *components = variant
    folder = tmp_path / "k8s" / "overlays" / overlay
    if components:
        folder = tmp_path / "k8s" / "tried"
        folder.mkdir()
        kustomization = {
            "resources": [f"../overlays/{overlay}"],
            "components": [f"../components/{name}" for name in components],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    command = [program("kubectl"), "kustomize", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    kubectl_objects = {identity(entry): entry for entry in yaml.safe_load_all(run.stdout)}
    rendered_objects = {identity(entry): entry for entry in render(*variant)}
    assert sorted(rendered_objects) == sorted(kubectl_objects)
    for name, entry in rendered_objects.items():
        assert entry == kubectl_objects[name], name


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("variant", VARIANTS, ids="+".join)
def test_every_object_matches_its_schema(variant: tuple[str, ...], version: str) -> None:
    objects = render(*variant)
    for entry in [*objects, *(entry for entry in lifted(objects) if entry not in objects)]:
        validate(entry, version)


def validate(entry: Object, version: str) -> None:
    """Validate one object; a kind unknown to both Kubernetes and tests/k8s/crds.py is an error."""
    schema = SCHEMAS.get((entry["apiVersion"], entry["kind"]))
    if schema is not None:
        jsonschema.validate(entry, schema)
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
def test_the_schemas_reject_invalid_objects(change: Any, kind: str) -> None:
    objects = [
        entry
        for entry in render("l4-pair", "monitoring", "keda", "argo")
        if entry["kind"] == kind and entry["metadata"]["name"] != "merge"
    ]
    entry = copy.deepcopy(objects[0])
    assert validation_error_name(entry) is None
    change(entry)
    assert validation_error_name(entry) in {"ValidationError", "SchemaNotFoundError"}


def validation_error_name(entry: Object) -> str | None:
    try:
        validate(entry, OLDEST)
    except Exception as error:  # noqa: BLE001 - two packages with their own exceptions
        return type(error).__name__
    return None


# ---------------------------------------------------------------- the manifests match qaeval


def load_registry(overlay: str) -> Any:
    return load_config(ROOT / "qaeval.yaml", K8S / "overlays" / overlay / "qaeval.yaml")


def serving_arguments(spec: ModelSpec) -> set[str]:
    return set(spec.vllm_args)


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_server_arguments_match_the_registry(overlay: str) -> None:
    registry = load_registry(overlay)
    assert vllm_containers(overlay)
    for server in vllm_containers(overlay):
        name = env(server)["MODEL"]
        spec = {**registry.models, **registry.judges}[name]
        arguments = {
            argument.replace("$(CONTEXT)", str(env(server)["CONTEXT"])) for argument in server["args"]
        }
        fixed_arguments = {
            "/models/$(MODEL)",
            "--served-model-name=$(MODEL)",
            "--host=0.0.0.0",
            "--port=8000",
        }
        adapter_arguments = {argument for argument in arguments if "lora" in argument}
        assert arguments - fixed_arguments - adapter_arguments == serving_arguments(spec), name


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_every_server_option_exists_in_vllm(overlay: str) -> None:
    started_servers = vllm_containers(overlay, *(["lora"] if overlay == "l4-single" else []))
    assert started_servers
    for server in started_servers:
        assert len(server["args"]) > 1
        for argument in server["args"][1:]:
            option = argument.partition("=")[0].partition(".")[0]
            assert re.search(rf"^  .*{re.escape(option)}\b", SERVE_OPTIONS, re.MULTILINE), option


def test_model_revisions_match_the_registry() -> None:
    models = json.loads((K8S / "base" / "models.json").read_text())
    registry = load_registry("l4-single")
    downloaded = {name: entry for name, entry in models.items() if "repository" in entry}
    assert downloaded
    for name, entry in downloaded.items():
        spec = {**registry.models, **registry.judges}[name]
        assert (entry["repository"], entry["revision"]) == (spec.hf_id, spec.revision)


def test_the_judge_is_not_of_a_candidate_family() -> None:
    registry = load_registry("l4-single")
    assert registry.judges["selene"].family not in {
        registry.models[name].family for name in ("mistral-v0.3", "qwen2.5")
    }


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_every_served_model_is_staged(overlay: str) -> None:
    staged = {
        model
        for name in ("candidates", "judge")
        for model in find_container(render("stage-models"), "Job", "stage-models", name)["command"][5:]
    }
    assert {env(server)["MODEL"] for server in vllm_containers(overlay)} <= staged


def test_the_number_of_shards_equals_the_number_of_pods() -> None:
    objects = render("l4-pair")
    spec = find_object(objects, "Job", "run")["spec"]
    assert spec["completions"] == int(find_object(objects, "ConfigMap", "run")["data"]["SHARDS"])


def test_each_shard_has_its_own_retries_and_the_first_failed_shard_ends_the_run() -> None:
    spec = find_object(render("l4-pair"), "Job", "run")["spec"]
    assert (spec["completionMode"], spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (
        "Indexed",
        3,
        0,
    )


def test_the_adapter_is_served_under_its_registry_name_from_the_checked_folder() -> None:
    server = find_container(render("l4-pair"), "Deployment", "server-generator", "vllm")
    adapter = load_registry("l4-pair").models["tuned"].lora
    assert f"--lora-modules=tuned={adapter.path}" in server["args"]
    assert f"--max-lora-rank={adapter.rank}" in server["args"]
    check_command = find_container(render("l4-pair"), "Deployment", "server-generator", "check-models")[
        "command"
    ]
    assert adapter.path.removeprefix("/models/") in check_command


def test_server_addresses_are_services_of_the_overlay() -> None:
    services = {entry["metadata"]["name"]: entry for entry in of_kind(render("l4-pair"), "Service")}
    registry = load_registry("l4-pair")
    for spec in (registry.models["mistral-v0.3"], registry.models["tuned"], registry.judges["selene"]):
        host, port = re.fullmatch(r"http://([\w-]+):(\d+)/v1", spec.url).groups()
        assert services[host]["spec"]["ports"][0]["port"] == int(port)


def test_images_without_a_digest_give_a_reason() -> None:
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


def test_the_image_has_neither_root_nor_build_tools() -> None:
    stages = re.split(r"^FROM ", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE)[1:]
    assert len(stages) == 2
    last = stages[-1]
    assert re.search(r"^USER 2000:2000$", last, re.MULTILINE)
    assert "pip uninstall" in last
    assert not re.search(r"apt-get install|gcc|pip install|build-essential", last)
    assert "--require-hashes -r requirements/run.lock" in stages[0]


def test_the_build_context_is_an_allowlist() -> None:
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


def test_every_file_named_in_the_documents_exists() -> None:
    for document in (K8S / "README.md", ROOT / "docs" / "kubernetes.md"):
        names = re.findall(r"(?<![\w/])(k8s/[\w./-]+|tests/k8s/[\w.-]+)", document.read_text())
        assert names, document.name
        for name in names:
            assert (ROOT / name.rstrip(".")).exists(), f"{document.name}: {name}"


def test_the_document_lists_every_rule_once() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    assert [name for name in RULES if text.count(f"| `{name}` |") != 1] == []


def test_no_file_contains_a_local_path() -> None:
    files = [path for path in K8S.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert not re.search(r"/(work|home/(?!vllm)|Users)/", path.read_text()), path


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_uncommenting_a_component_adds_it(overlay: str) -> None:
    text = (K8S / "overlays" / overlay / "kustomization.yaml").read_text()
    optional_components = re.findall(r"^#(  - \.\./\.\./components/(\S+))$", text, flags=re.MULTILINE)
    assert {"monitoring", "argo"} <= {name for _, name in optional_components}
    active_components = yaml.safe_load(text).get("components", [])
    for line, name in optional_components:
        uncommented = text.replace("#components:", "components:").replace(f"#{line}", line)
        assert {*active_components, f"../../components/{name}"} == set(
            yaml.safe_load(uncommented)["components"]
        )


def test_every_manifest_is_referenced() -> None:
    referenced: set[Path] = set()
    for path in K8S.rglob("kustomization.yaml"):
        referenced.add(path)
        kustomization = yaml.safe_load(path.read_text())
        for name in kustomization.get("resources", ()):
            referenced.add((path.parent / name).resolve())
        for entry in kustomization.get("configMapGenerator", ()):
            referenced |= {
                (path.parent / name).resolve() for name in (*entry.get("files", ()), *entry.get("envs", ()))
            }
    standalone_files = {K8S / "README.md", K8S / "run-stages.sh"}
    files = {path for path in K8S.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert files - referenced - standalone_files == set()


# ---------------------------------------------------------------- the workflow


def workflow_steps(objects: list[Object], name: str) -> list[list[tuple[str, str]]]:
    """Return the template and Job of each step; steps that start together share a list."""
    templates = {
        entry["name"]: entry
        for entry in find_object(objects, "WorkflowTemplate", "qaeval")["spec"]["templates"]
    }
    return [
        [(step["template"], step["arguments"]["parameters"][0]["value"]) for step in parallel_steps]
        for parallel_steps in templates[name]["steps"]
    ]


def test_the_workflow_releases_the_stages_in_order() -> None:
    objects = render("l4-single", "argo")
    jobs = sorted(entry["metadata"]["name"] for entry in of_kind(objects, "Job"))
    assert workflow_steps(objects, "stages") == [[("job", name)] for name in jobs]
    assert all(entry["spec"]["suspend"] is True for entry in of_kind(objects, "Job"))


def test_the_workflow_runs_the_shards_next_to_their_servers_and_then_merges() -> None:
    objects = render("l4-pair", "argo")
    assert workflow_steps(objects, "shards") == [
        [("release", "power"), ("all-shards", "run")],
        [("job", "merge")],
    ]
    assert all(entry["spec"]["suspend"] is True for entry in of_kind(objects, "Job"))
    templates = {
        entry["name"]: entry
        for entry in find_object(objects, "WorkflowTemplate", "qaeval")["spec"]["templates"]
    }
    completions = find_object(objects, "Job", "run")["spec"]["completions"]
    assert templates["all-shards"]["resource"]["successCondition"] == f"status.succeeded > {completions - 1}"


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_the_workflow_may_change_only_the_jobs_it_releases(overlay: str) -> None:
    objects = render(overlay, "argo")
    allowed = find_object(objects, "Role", "workflow")["rules"][0]["resourceNames"]
    all_steps = [*workflow_steps(objects, "stages"), *workflow_steps(objects, "shards")]
    assert sorted(allowed) == sorted(job for parallel_steps in all_steps for _, job in parallel_steps)


def test_a_workflow_step_changes_only_whether_its_job_is_suspended() -> None:
    templates = find_object(render("l4-pair", "argo"), "WorkflowTemplate", "qaeval")["spec"]["templates"]
    resources = [entry["resource"] for entry in templates if "resource" in entry]
    assert resources
    for resource in resources:
        manifest = yaml.safe_load(resource["manifest"])
        assert manifest["metadata"] == {"name": "{{inputs.parameters.job}}", "namespace": "qaeval"}
        assert manifest["spec"] == {"suspend": False}


# ---------------------------------------------------------------- Ray


def test_a_ray_cluster_runs_the_tested_version_without_telemetry_and_with_headless_services() -> None:
    objects = render("l4-pair", "monitoring", "ray")
    cluster = find_object(objects, "RayJob", "run")["spec"]["rayClusterSpec"]
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
