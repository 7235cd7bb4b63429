"""The part of Kustomize that the manifests use, so that tests need no other program.

Where `kubectl` is installed, a test compares this with the real one. Unknown fields are refused, never ignored.
"""

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).parents[2] / "k8s"
Object = dict[str, Any]

_KNOWN_FIELDS = {
    "apiVersion",
    "kind",
    "resources",
    "components",
    "nameSuffix",
    "labels",
    "patches",
    "configMapGenerator",
    "generatorOptions",
    "images",
}


def overlays() -> list[str]:
    """Return the names of all overlays."""
    return sorted(path.parent.name for path in (K8S / "overlays").glob("*/kustomization.yaml"))


def render(overlay: str, *components: str) -> list[Object]:
    """Return the objects of an overlay, with further components."""
    objects = _build(K8S / "overlays" / overlay)
    for component in components:
        objects = _component(K8S / "components" / component, objects)
    return objects


def documents(path: Path) -> list[Object]:
    """Return the objects in a file."""
    return copy.deepcopy(_parse(path))


@cache
def _parse(path: Path) -> list[Object]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def _read_kustomization(folder: Path) -> Object:
    (kustomization,) = documents(folder / "kustomization.yaml")
    assert set(kustomization) <= _KNOWN_FIELDS, (
        f"{folder}: {set(kustomization) - _KNOWN_FIELDS} is not known here"
    )
    return kustomization


def _build(folder: Path) -> list[Object]:
    return _transform(folder, _read_kustomization(folder), [])


def _component(folder: Path, objects: list[Object]) -> list[Object]:
    kustomization = _read_kustomization(folder)
    assert kustomization["kind"] == "Component"
    return _transform(folder, kustomization, objects)


def _transform(folder: Path, kustomization: Object, objects: list[Object]) -> list[Object]:
    objects = [*objects]
    for name in kustomization.get("resources", ()):
        path = folder / name
        objects += _build(path) if path.is_dir() else documents(path)
    for name in kustomization.get("components", ()):
        objects = _component(folder / name, objects)
    objects += [
        _config_map(folder, entry, kustomization["generatorOptions"])
        for entry in kustomization.get("configMapGenerator", ())
    ]
    for patch in kustomization.get("patches", ()):
        objects = _apply_patch(objects, patch)
    for entry in objects:
        entry["metadata"]["name"] += kustomization.get("nameSuffix", "")
    for labels in kustomization.get("labels", ()):
        assert labels["includeSelectors"] is True
        for entry in objects:
            _label(entry, labels["pairs"])
    for image in kustomization.get("images", ()):
        for entry in objects:
            _rename_image(entry, image)
    identities = [identity(entry) for entry in objects]
    assert len(set(identities)) == len(identities), f"{folder}: an object is there twice"
    return objects


def identity(entry: Object) -> tuple[str, str, str]:
    """Return the identity of an object: kind, namespace and name."""
    return entry["kind"], entry["metadata"].get("namespace", ""), entry["metadata"]["name"]


def _config_map(folder: Path, entry: Object, options: Object) -> Object:
    assert options["disableNameSuffixHash"] is True
    assert set(entry) <= {"name", "namespace", "files", "envs"}
    data = {Path(name).name: (folder / name).read_text() for name in entry.get("files", ())}
    for name in entry.get("envs", ()):
        lines = (folder / name).read_text().splitlines()
        data |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": entry["name"],
            "namespace": entry["namespace"],
            "labels": dict(options["labels"]),
        },
        "data": data,
    }


def _apply_patch(objects: list[Object], patch: Object) -> list[Object]:
    assert set(patch) <= {"target", "patch"}
    content = _yaml(patch["patch"])
    if isinstance(content, dict):
        assert content["$patch"] == "delete", (
            "patches are JSON patches or deletions: a merge changes the order of containers"
        )
        remaining = [entry for entry in objects if identity(entry) != identity(content)]
        assert len(remaining) == len(objects) - 1, f"{identity(content)}: nothing to delete"
        return remaining
    target = patch["target"]
    assert set(target) <= {"kind", "name"}
    targets = [
        entry
        for entry in objects
        if entry["kind"] == target["kind"]
        and re.fullmatch(target.get("name", ".*"), entry["metadata"]["name"])
    ]
    for entry in targets:
        for operation in content:
            _apply(entry, operation)
    return objects


@cache
def _yaml(text: str) -> Any:
    return yaml.safe_load(text)


def _apply(entry: Object, operation: Object) -> None:
    *path, last_part = [
        part.replace("~1", "/").replace("~0", "~") for part in operation["path"].removeprefix("/").split("/")
    ]
    parent: Any = entry
    for part in path:
        parent = parent[int(part)] if isinstance(parent, list) else parent[part]
    key: Any = int(last_part) if isinstance(parent, list) and last_part != "-" else last_part
    match operation["op"]:
        case "test":
            assert parent[key] == operation["value"], f"{operation['path']} is {parent[key]}"
        case "add" if key == "-":
            parent.append(copy.deepcopy(operation["value"]))
        case "add" if isinstance(parent, dict):
            parent[key] = copy.deepcopy(operation["value"])
        case "replace":
            assert parent[key] is not None
            parent[key] = copy.deepcopy(operation["value"])
        case unknown:
            raise AssertionError(f"{unknown} is not known here")


def _label(entry: Object, pairs: dict[str, str]) -> None:
    entry["metadata"].setdefault("labels", {}).update(pairs)
    match entry["kind"]:
        case "Deployment":
            entry["spec"]["selector"]["matchLabels"].update(pairs)
            entry["spec"]["template"]["metadata"]["labels"].update(pairs)
        case "Service":
            entry["spec"]["selector"].update(pairs)
        case "PodDisruptionBudget":
            entry["spec"]["selector"]["matchLabels"].update(pairs)
        case unknown:
            raise AssertionError(f"labels of a {unknown} are not known here")


def _rename_image(entry: Object, image: Object) -> None:
    pod = pod_spec(entry)
    for container in containers(pod) if pod else ():
        name, _, tag = container["image"].partition(":")
        if name == image["name"]:
            version = f"@{image['digest']}" if "digest" in image else f":{image.get('newTag', tag)}"
            container["image"] = image.get("newName", name) + version


def pod_spec(entry: Object) -> Object | None:
    """Return the pod that an object makes."""
    template = entry.get("spec", {}).get("template") if entry["kind"] in {"Job", "Deployment"} else None
    return template["spec"] if template else None


def lifted(objects: list[Object]) -> list[Object]:
    """Return the objects, with workflows and Ray clusters (unknown to tools) replaced by objects with the same pods."""
    return [result for entry in objects for result in _LIFTS.get(entry["kind"], _unchanged)(entry)]


def _unchanged(entry: Object) -> list[Object]:
    return [entry]


def _lift_ray(job: Object) -> list[Object]:
    """Make a Deployment of each group of a RayJob: like a Deployment, KubeRay replaces lost pods."""
    cluster = job["spec"]["rayClusterSpec"]
    groups = {"head": cluster["headGroupSpec"]} | {
        group["groupName"]: group for group in cluster["workerGroupSpecs"]
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**copy.deepcopy(job["metadata"]), "name": f"{job['metadata']['name']}-{name}"},
            "spec": {
                "replicas": group.get("replicas", 1),
                "selector": {"matchLabels": dict(group["template"]["metadata"]["labels"])},
                "template": copy.deepcopy(group["template"]),
            },
        }
        for name, group in groups.items()
    ]


def _lift_workflow(workflow: Object) -> list[Object]:
    """Make a Job with the pod of a workflow's steps, as Argo's executor builds it; the controller chooses its image."""
    spec, patch = workflow["spec"], _yaml(workflow["spec"]["podSpecPatch"])
    (main,) = patch["containers"]
    pod = {
        **{
            key: spec[key]
            for key in ("serviceAccountName", "automountServiceAccountToken", "securityContext")
        },
        **{key: value for key, value in patch.items() if key != "containers"},
        "restartPolicy": "Never",
        "containers": [{"image": "quay.io/argoproj/argoexec:v3", **copy.deepcopy(main)}],
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**workflow["metadata"], "name": f"{workflow['metadata']['name']}-step"},
        "spec": {
            "activeDeadlineSeconds": spec["activeDeadlineSeconds"],
            "ttlSecondsAfterFinished": spec["ttlStrategy"]["secondsAfterCompletion"],
            "template": {"metadata": copy.deepcopy(spec["podMetadata"]), "spec": copy.deepcopy(pod)},
        },
    }
    return [job]


_LIFTS = {"WorkflowTemplate": _lift_workflow, "RayJob": _lift_ray}


def pod_labels(entry: Object) -> dict[str, str]:
    """Return the labels of the pods that an object makes."""
    return dict(entry["spec"]["template"]["metadata"]["labels"])


def containers(pod: Object) -> list[Object]:
    """Return all containers of a pod, in the order in which they start."""
    return [*pod.get("initContainers", ()), *pod["containers"]]
