"""The part of Kustomize that the manifests use, so that a test needs no other program.

Where `kubectl` is installed, a test holds this against the real one. What is not known here is refused, never ignored.
"""

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).parents[2] / "k8s"
Object = dict[str, Any]

_KNOWN = {
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
    found = _built(K8S / "overlays" / overlay)
    for component in components:
        found = _component(K8S / "components" / component, found)
    return found


def documents(path: Path) -> list[Object]:
    """Return the objects in a file."""
    return copy.deepcopy(_parsed(path))


@cache
def _parsed(path: Path) -> list[Object]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def _read(folder: Path) -> Object:
    (read,) = documents(folder / "kustomization.yaml")
    assert set(read) <= _KNOWN, f"{folder}: {set(read) - _KNOWN} is not known here"
    return read


def _built(folder: Path) -> list[Object]:
    return _transformed(folder, _read(folder), [])


def _component(folder: Path, objects: list[Object]) -> list[Object]:
    read = _read(folder)
    assert read["kind"] == "Component"
    return _transformed(folder, read, objects)


def _transformed(folder: Path, read: Object, objects: list[Object]) -> list[Object]:
    objects = [*objects]
    for name in read.get("resources", ()):
        path = folder / name
        objects += _built(path) if path.is_dir() else documents(path)
    for name in read.get("components", ()):
        objects = _component(folder / name, objects)
    objects += [
        _config_map(folder, entry, read["generatorOptions"]) for entry in read.get("configMapGenerator", ())
    ]
    for patch in read.get("patches", ()):
        objects = _patched(objects, patch)
    for entry in objects:
        entry["metadata"]["name"] += read.get("nameSuffix", "")
    for labels in read.get("labels", ()):
        assert labels["includeSelectors"] is True
        for entry in objects:
            _label(entry, labels["pairs"])
    for image in read.get("images", ()):
        for entry in objects:
            _rename_image(entry, image)
    identities = [identity(entry) for entry in objects]
    assert len(set(identities)) == len(identities), f"{folder}: an object is there twice"
    return objects


def identity(entry: Object) -> tuple[str, str, str]:
    """Return what tells an object from all others."""
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


def _patched(objects: list[Object], patch: Object) -> list[Object]:
    assert set(patch) <= {"target", "patch"}
    content = _yaml(patch["patch"])
    if isinstance(content, dict):
        assert content["$patch"] == "delete", (
            "patches are JSON patches or deletions: a merge changes the order of containers"
        )
        kept = [entry for entry in objects if identity(entry) != identity(content)]
        assert len(kept) == len(objects) - 1, f"{identity(content)}: nothing to delete"
        return kept
    target = patch["target"]
    assert set(target) <= {"kind", "name"}
    chosen = [
        entry
        for entry in objects
        if entry["kind"] == target["kind"]
        and re.fullmatch(target.get("name", ".*"), entry["metadata"]["name"])
    ]
    for entry in chosen:
        for operation in content:
            _apply(entry, operation)
    return objects


@cache
def _yaml(text: str) -> Any:
    return yaml.safe_load(text)


def _apply(entry: Object, operation: Object) -> None:
    *path, last = [
        part.replace("~1", "/").replace("~0", "~") for part in operation["path"].removeprefix("/").split("/")
    ]
    place: Any = entry
    for part in path:
        place = place[int(part)] if isinstance(place, list) else place[part]
    key: Any = int(last) if isinstance(place, list) and last != "-" else last
    match operation["op"]:
        case "test":
            assert place[key] == operation["value"], f"{operation['path']} is {place[key]}"
        case "add" if key == "-":
            place.append(copy.deepcopy(operation["value"]))
        case "add" if isinstance(place, dict):
            place[key] = copy.deepcopy(operation["value"])
        case "replace":
            assert place[key] is not None
            place[key] = copy.deepcopy(operation["value"])
        case other:
            raise AssertionError(f"{other} is not known here")


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
        case other:
            raise AssertionError(f"labels of a {other} are not known here")


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
    """Return the objects with those of the same pods in the place of workflows and Ray clusters, which tools do not know."""
    return [plain for entry in objects for plain in _LIFTS.get(entry["kind"], _unchanged)(entry)]


def _unchanged(entry: Object) -> list[Object]:
    return [entry]


def _lifted_ray(job: Object) -> list[Object]:
    """Make a Deployment of each group of a RayJob: KubeRay replaces a pod that is lost, as it does."""
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


def _lifted_workflow(workflow: Object) -> list[Object]:
    """Make the Job whose pod is that of a workflow's steps, as Argo's executor builds it; its image is the controller's choice."""
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
    made = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**workflow["metadata"], "name": f"{workflow['metadata']['name']}-step"},
        "spec": {
            "activeDeadlineSeconds": spec["activeDeadlineSeconds"],
            "ttlSecondsAfterFinished": spec["ttlStrategy"]["secondsAfterCompletion"],
            "template": {"metadata": copy.deepcopy(spec["podMetadata"]), "spec": copy.deepcopy(pod)},
        },
    }
    return [made]


_LIFTS = {"WorkflowTemplate": _lifted_workflow, "RayJob": _lifted_ray}


def pod_labels(entry: Object) -> dict[str, str]:
    """Return the labels of the pods that an object makes."""
    return dict(entry["spec"]["template"]["metadata"]["labels"])


def containers(pod: Object) -> list[Object]:
    """Return all containers of a pod, in the order in which they start."""
    return [*pod.get("initContainers", ()), *pod["containers"]]
