"""Named rules for the objects of one overlay, beyond what a schema can express."""

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from k8s.policies import selects
from k8s.render import Object, containers, lifted, pod_labels, pod_spec

GPU = "nvidia.com/gpu"
UID = 2000
UID_BY_ACCOUNT = {"workflow": 8737}
"""UIDs of accounts that differ from UID: Argo's executor has its own image."""
UNNAMED_RESOURCES = ["workflowtaskresults"]
"""Results of steps: Argo's executor creates them under names unknown in advance."""
NODE_CAPACITY = {"cpu": Decimal("3.9"), "memory": Decimal("14.5") * 2**30}
"""Approximate capacity of a g6.xlarge (4 vCPU, 16 GiB) for pods."""
OFFLINE_ENV = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
WRITABLE_VARIABLES = (
    "HOME",
    "XDG_CACHE_HOME",
    "HF_HOME",
    "VLLM_CACHE_ROOT",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
)
EGRESS_ROLE = "stage-models"
NEEDED_MOUNTS = ("/cache", "/tmp", "/dev/shm")  # noqa: S108 - volumes of the pod
_UNITS = {"": 0, "Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}
_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_IMAGE = re.compile(r"[\w./-]+(:(?!latest\b)v?\d[\w.-]*(@sha256:[0-9a-f]{64})?|@sha256:[0-9a-f]{64})")
_SECRET = re.compile(r"TOKEN|PASSW|SECRET|API_?KEY|CREDENTIAL", re.IGNORECASE)
_PUBLIC = ("0.0.0.0/0", "::/0")

Rule = Callable[[list[Object]], Iterator[str]]
RULES: dict[str, Rule] = {}


def lint(objects: list[Object]) -> set[str]:
    """Return the problems found by all rules, as ``rule: problem``."""
    objects = lifted(objects)
    return {f"{name}: {problem}" for name, rule in RULES.items() for problem in rule(objects)}


def rule(check: Rule) -> Rule:
    """Register a rule under the name of its function."""
    RULES[check.__name__] = check
    return check


def quantity(text: object) -> Decimal | None:
    """Return a Kubernetes quantity as a number, or None if it is invalid."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m|Ki|Mi|Gi|Ti|)", str(text))
    if match is None:
        return None
    number, unit = match.groups()
    return Decimal(number) / 1000 if unit == "m" else Decimal(number) * 2 ** _UNITS[unit]


def workloads(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Yield name, object and pod spec of every workload."""
    for entry in objects:
        if pod := pod_spec(entry):
            yield f"{entry['kind']}/{entry['metadata']['name']}", entry, pod


def each_container(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Yield name, container and pod spec of every container."""
    for name, _, pod in workloads(objects):
        for container in containers(pod):
            yield f"{name}/{container['name']}", container, pod


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Return the objects of a kind."""
    return [entry for entry in objects if entry["kind"] == kind]


def env(container: Object) -> dict[str, Any]:
    """Return the environment variables with literal values of a container."""
    return {entry["name"]: entry["value"] for entry in container.get("env", ()) if "value" in entry}


def _wants_gpu(container: Object) -> bool:
    resources = container.get("resources", {})
    return any(GPU in resources.get(side, {}) for side in ("requests", "limits"))


def _names(objects: list[Object], kind: str) -> set[str]:
    return {entry["metadata"]["name"] for entry in of_kind(objects, kind)}


@rule
def gpu_request_is_limit(objects: list[Object]) -> Iterator[str]:
    for name, container, _ in each_container(objects):
        resources = container.get("resources", {})
        if resources.get("requests", {}).get(GPU) != resources.get("limits", {}).get(GPU):
            yield name


@rule
def resources_are_stated(objects: list[Object]) -> Iterator[str]:
    for name, container, _ in each_container(objects):
        resources = container.get("resources", {})
        for resource in ("cpu", "memory"):
            if not all(resource in resources.get(side, {}) for side in ("requests", "limits")):
                yield f"{name}: {resource}"


@rule
def quantities_are_quantities(objects: list[Object]) -> Iterator[str]:
    for name, container, _ in each_container(objects):
        for side in container.get("resources", {}).values():
            yield from (f"{name}: {text}" for text in side.values() if quantity(text) is None)
    for name, _, pod in workloads(objects):
        sizes = [
            volume["emptyDir"].get("sizeLimit") for volume in pod.get("volumes", ()) if "emptyDir" in volume
        ]
        yield from (f"{name}: emptyDir {size}" for size in sizes if quantity(size) is None)
    for claim in of_kind(objects, "PersistentVolumeClaim"):
        size = claim["spec"]["resources"]["requests"]["storage"]
        if quantity(size) is None:
            yield f"{claim['metadata']['name']}: {size}"


@rule
def limits_are_not_below_requests(objects: list[Object]) -> Iterator[str]:
    for name, container, _ in each_container(objects):
        resources = container.get("resources", {})
        for resource, request in resources.get("requests", {}).items():
            requested, limit = quantity(request), quantity(resources.get("limits", {}).get(resource))
            if requested is not None and limit is not None and limit < requested:
                yield f"{name}: {resource}"


@rule
def pods_fit_the_node(objects: list[Object]) -> Iterator[str]:
    for name, _, pod in workloads(objects):
        running = [
            *pod["containers"],
            *(
                container
                for container in pod.get("initContainers", ())
                if container.get("restartPolicy") == "Always"
            ),
        ]
        for resource, capacity in NODE_CAPACITY.items():
            requested = sum(
                quantity(container.get("resources", {}).get("requests", {}).get(resource, 0)) or 0
                for container in running
            )
            if requested > capacity:
                yield f"{name}: {resource}"


@rule
def mounts_are_declared(objects: list[Object]) -> Iterator[str]:
    for name, container, pod in each_container(objects):
        declared = {volume["name"] for volume in pod.get("volumes", ())}
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in declared:
                yield f"{name}: {mount['name']}"


@rule
def mounts_do_not_collide(objects: list[Object]) -> Iterator[str]:
    for name, container, _ in each_container(objects):
        paths = [mount["mountPath"] for mount in container.get("volumeMounts", ())]
        if len(set(paths)) < len(paths):
            yield name


@rule
def references_exist(objects: list[Object]) -> Iterator[str]:
    for name, _, pod in workloads(objects):
        references = {("ServiceAccount", pod.get("serviceAccountName", "default"))}
        for volume in pod.get("volumes", ()):
            if "configMap" in volume:
                references.add(("ConfigMap", volume["configMap"]["name"]))
            if "persistentVolumeClaim" in volume:
                references.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
        for container in containers(pod):
            references |= {
                ("ConfigMap", source["configMapRef"]["name"])
                for source in container.get("envFrom", ())
                if "configMapRef" in source
            }
        yield from (
            f"{name}: {kind} {target}" for kind, target in references if target not in _names(objects, kind)
        )


@rule
def mounted_scripts_exist(objects: list[Object]) -> Iterator[str]:
    maps = {entry["metadata"]["name"]: entry["data"] for entry in of_kind(objects, "ConfigMap")}
    for name, container, pod in each_container(objects):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        for mount in container.get("volumeMounts", ()):
            data = maps.get(volumes.get(mount["name"], {}).get("configMap", {}).get("name"))
            for argument in container.get("command", ()) if data is not None else ():
                folder, _, file = argument.rpartition("/")
                if folder == mount["mountPath"] and file not in data:
                    yield f"{name}: {argument}"


@rule
def not_root(objects: list[Object]) -> Iterator[str]:
    for name, container, pod in each_container(objects):
        security = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
        if (
            security.get("runAsNonRoot") is not True
            or security.get("runAsUser") != UID_BY_ACCOUNT.get(pod.get("serviceAccountName", ""), UID)
            or not security.get("runAsGroup")
        ):
            yield name


@rule
def confined(objects: list[Object]) -> Iterator[str]:
    for name, container, pod in each_container(objects):
        security = container.get("securityContext", {})
        is_confined = (
            security.get("readOnlyRootFilesystem") is True
            and security.get("allowPrivilegeEscalation") is False
            and security.get("privileged", False) is False
            and security.get("capabilities") == {"drop": ["ALL"]}
            and pod.get("securityContext", {}).get("seccompProfile", {}).get("type") == "RuntimeDefault"
        )
        if not is_confined:
            yield name


@rule
def nothing_of_the_host(objects: list[Object]) -> Iterator[str]:
    for name, container, pod in each_container(objects):
        if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")) or any(
            port.get("hostPort") for port in container.get("ports", ())
        ):
            yield name
        if any("hostPath" in volume for volume in pod.get("volumes", ())):
            yield f"{name}: hostPath"


@rule
def images_are_pinned(objects: list[Object]) -> Iterator[str]:
    for name, container, _ in each_container(objects):
        if not _IMAGE.fullmatch(container["image"]):
            yield f"{name}: {container['image']}"


@rule
def no_service_links(objects: list[Object]) -> Iterator[str]:
    yield from (name for name, _, pod in workloads(objects) if pod.get("enableServiceLinks") is not False)


@rule
def no_token_without_a_role(objects: list[Object]) -> Iterator[str]:
    bound = {s["name"] for binding in of_kind(objects, "RoleBinding") for s in binding["subjects"]}
    for name, _, pod in workloads(objects):
        if pod.get("automountServiceAccountToken") is not (pod.get("serviceAccountName") in bound):
            yield name
    for account in of_kind(objects, "ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount/{account['metadata']['name']}"


@rule
def roles_name_what_they_touch(objects: list[Object]) -> Iterator[str]:
    for role in (*of_kind(objects, "Role"), *of_kind(objects, "ClusterRole")):
        for role_rule in role["rules"]:
            is_named = bool(role_rule.get("resourceNames")) or role_rule["resources"] == UNNAMED_RESOURCES
            if not is_named or "*" in [
                *role_rule["verbs"],
                *role_rule["resources"],
                *role_rule["apiGroups"],
            ]:
                yield role["metadata"]["name"]
    yield from (
        f"{kind} is for the whole cluster"
        for kind in ("ClusterRole", "ClusterRoleBinding")
        if of_kind(objects, kind)
    )


@rule
def no_secret_in_clear(objects: list[Object]) -> Iterator[str]:
    for name, container, _ in each_container(objects):
        yield from (f"{name}: {key}" for key in env(container) if _SECRET.search(key))
    for entry in of_kind(objects, "ConfigMap"):
        # only keys are checked, not file contents: a script may name the variable that it reads
        yield from (f"{entry['metadata']['name']}: {key}" for key in entry["data"] if _SECRET.search(key))
    yield from (f"Secret/{entry['metadata']['name']}" for entry in of_kind(objects, "Secret"))


@rule
def servers_have_probes(objects: list[Object]) -> Iterator[str]:
    for name, container, _ in each_container(objects):
        if not _wants_gpu(container):
            continue
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if container.get(probe, {}).get("httpGet", {}).get("path") != "/health":
                yield f"{name}: {probe}"
        startup = container.get("startupProbe", {})
        if startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3) < 600:
            yield f"{name}: a cold start takes longer than the startup probe waits"


@rule
def ports_are_there(objects: list[Object]) -> Iterator[str]:
    for name, container, _ in each_container(objects):
        ports = container.get("ports", ())
        yield from (
            f"{name}: {port['containerPort']}" for port in ports if not 0 < port["containerPort"] < 65536
        )
        declared = {port.get("name") for port in ports} | {port["containerPort"] for port in ports}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe_port = container.get(probe, {}).get("httpGet", {}).get("port")
            if probe_port is not None and probe_port not in declared:
                yield f"{name}: {probe} {probe_port}"
    for service in of_kind(objects, "Service"):
        yield from (
            f"{service['metadata']['name']}: {port['port']}"
            for port in service["spec"]["ports"]
            if not 0 < port["port"] < 65536
        )
    for policy in of_kind(objects, "NetworkPolicy"):
        for part in (*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())):
            yield from (
                f"{policy['metadata']['name']}: {port['port']}"
                for port in part.get("ports", ())
                if not 0 < port["port"] < 65536
            )


@rule
def gpu_deployments_are_recreated(objects: list[Object]) -> Iterator[str]:
    for name, entry, pod in workloads(objects):
        if entry["kind"] == "Deployment" and any(map(_wants_gpu, containers(pod))):
            if entry["spec"].get("strategy", {}).get("type") != "Recreate":
                yield f"{name}: a rolling update waits for a second GPU"
            if entry["spec"].get("replicas") != 0:
                yield f"{name}: has a replica before a run needs it"


@rule
def jobs_end(objects: list[Object]) -> Iterator[str]:
    for name, entry, pod in workloads(objects):
        if entry["kind"] != "Job":
            continue
        spec = entry["spec"]
        if pod.get("restartPolicy") not in {"Never", "OnFailure"}:
            yield f"{name}: restartPolicy {pod.get('restartPolicy')}"
        if "podFailurePolicy" in spec and pod.get("restartPolicy") != "Never":
            yield f"{name}: podFailurePolicy needs restartPolicy Never"
        if not spec.get("activeDeadlineSeconds") or not spec.get("ttlSecondsAfterFinished"):
            yield f"{name}: no deadline, or never cleaned up"
        for policy_rule in spec.get("podFailurePolicy", {}).get("rules", ()):
            container_name = policy_rule.get("onExitCodes", {}).get("containerName")
            if container_name and container_name not in {container["name"] for container in containers(pod)}:
                yield f"{name}: podFailurePolicy names {container_name}"


@rule
def a_lost_node_costs_no_attempt(objects: list[Object]) -> Iterator[str]:
    for name, entry, _ in workloads(objects):
        is_client = pod_labels(entry).get("qaeval.io/role") in {"stage", "run"}
        if entry["kind"] != "Job" or not is_client:
            continue
        rules = entry["spec"].get("podFailurePolicy", {}).get("rules", ())
        if not any(
            policy_rule["action"] == "Ignore"
            and {"type": "DisruptionTarget", "status": "True"} in policy_rule.get("onPodConditions", ())
            for policy_rule in rules
        ):
            yield f"{name}: a node that is taken away counts as an attempt"
        fatal_codes = {
            code
            for policy_rule in rules
            if policy_rule["action"] == "FailJob"
            and policy_rule.get("onExitCodes", {}).get("containerName") == "qaeval"
            for code in policy_rule["onExitCodes"]["values"]
        }
        if not {4, 64, 65} <= fatal_codes:
            yield f"{name}: what would end the same way is tried again"


@rule
def servers_beside_a_job_stop_with_it(objects: list[Object]) -> Iterator[str]:
    for name, entry, pod in workloads(objects):
        for container in pod["containers"] if entry["kind"] == "Job" else ():
            if _wants_gpu(container):
                yield f"{name}: a server among the main containers keeps the Job running for ever"
        for container in pod.get("initContainers", ()):
            if _wants_gpu(container) and container.get("restartPolicy") != "Always":
                yield f"{name}: a server that is no sidecar keeps the stage from starting"


@rule
def the_way_out_is_tested_first(objects: list[Object]) -> Iterator[str]:
    for name, entry, pod in workloads(objects):
        labels = pod_labels(entry)
        if labels.get("qaeval.io/vllm") == "true" or labels.get("qaeval.io/role") == "run":
            first = next(iter(pod.get("initContainers", ())), {"name": ""})
            if first["name"] != "egress-selftest":
                yield f"{name}: {first['name']} starts before the test"


@rule
def models_are_checked_before_they_are_served(objects: list[Object]) -> Iterator[str]:
    for name, entry, pod in workloads(objects):
        order = [container["name"] for container in containers(pod)]
        if "vllm" in order and (
            "check-models" not in order or order.index("check-models") > order.index("vllm")
        ):
            yield name
        for container in containers(pod) if pod_labels(entry).get("qaeval.io/vllm") == "true" else ():
            for mount in container.get("volumeMounts", ()):
                if mount["mountPath"] == "/models" and mount.get("readOnly") is not True:
                    yield f"{name}/{container['name']}: the weights are writable"


@rule
def what_is_checked_is_what_is_served(objects: list[Object]) -> Iterator[str]:
    for name, _, pod in workloads(objects):
        by_name = {container["name"]: container for container in containers(pod)}
        if "vllm" in by_name and "check-models" in by_name:
            checked_models = {
                env(by_name["check-models"]).get("MODEL"),
                *by_name["check-models"]["command"][5:],
            }
            adapters = [
                argument.partition("=")[2]
                for argument in by_name["vllm"]["args"]
                if argument.startswith("--lora-modules=")
            ]
            served_models = {
                env(by_name["vllm"]).get("MODEL"),
                *(argument.partition("=")[2].removeprefix("/models/") for argument in adapters),
            }
            if not served_models <= checked_models or served_models & {None, "none"}:
                yield f"{name}: {served_models} is served, {checked_models} is checked"


@rule
def servers_are_offline(objects: list[Object]) -> Iterator[str]:
    for name, container, _ in each_container(objects):
        if not _wants_gpu(container):
            continue
        variables = env(container)
        yield from (f"{name}: {key}" for key, value in OFFLINE_ENV.items() if variables.get(key) != value)
        if "USER" not in variables:
            yield f"{name}: USER"
        mounts = tuple(mount["mountPath"] for mount in container["volumeMounts"])
        yield from (
            f"{name}: {key} is not writable"
            for key in WRITABLE_VARIABLES
            if not str(variables.get(key, "")).startswith("/cache")
        )
        yield from (f"{name}: {path} is not mounted" for path in NEEDED_MOUNTS if path not in mounts)


@rule
def gpu_pods_are_not_moved(objects: list[Object]) -> Iterator[str]:
    for name, entry, pod in workloads(objects):
        if any(map(_wants_gpu, containers(pod))):
            notes = entry["spec"]["template"]["metadata"].get("annotations", {})
            if notes.get("karpenter.sh/do-not-disrupt") != "true":
                yield name


@rule
def labels_are_labels(objects: list[Object]) -> Iterator[str]:
    for entry in objects:
        labels = [
            *entry["metadata"].get("labels", {}).items(),
            *(pod_labels(entry).items() if pod_spec(entry) else ()),
        ]
        yield from (
            f"{entry['metadata']['name']}: {key}" for key, value in labels if not _LABEL.fullmatch(str(value))
        )


@rule
def selectors_select(objects: list[Object]) -> Iterator[str]:
    label_sets = [pod_labels(entry) for _, entry, _ in workloads(objects)]
    for entry in of_kind(objects, "Deployment"):
        if not selects(entry["spec"]["selector"], pod_labels(entry)):
            yield f"Deployment/{entry['metadata']['name']}"
    for service in of_kind(objects, "Service"):
        if not any(selects({"matchLabels": service["spec"]["selector"]}, labels) for labels in label_sets):
            yield f"Service/{service['metadata']['name']}"
    for kind, key in (
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
        ("PodMonitor", "selector"),
    ):
        for entry in of_kind(objects, kind):
            if entry["spec"][key] and not any(selects(entry["spec"][key], labels) for labels in label_sets):
                yield f"{kind}/{entry['metadata']['name']}"


@rule
def deployments_do_not_share_pods(objects: list[Object]) -> Iterator[str]:
    for kind in ("Deployment", "PodDisruptionBudget", "Service"):
        for _, entry, _ in workloads(objects):
            matching = [
                candidate["metadata"]["name"]
                for candidate in of_kind(objects, kind)
                if selects(
                    {"matchLabels": candidate["spec"]["selector"]}
                    if kind == "Service"
                    else candidate["spec"]["selector"],
                    pod_labels(entry),
                )
            ]
            if len(matching) > 1:
                yield f"{entry['metadata']['name']}: {kind} {matching}"


@rule
def gpu_pods_have_a_disruption_budget(objects: list[Object]) -> Iterator[str]:
    for name, entry, pod in workloads(objects):
        if any(map(_wants_gpu, containers(pod))):
            budgets = [
                b
                for b in of_kind(objects, "PodDisruptionBudget")
                if selects(b["spec"]["selector"], pod_labels(entry))
            ]
            if not any(b["spec"].get("minAvailable") == 1 for b in budgets):
                yield name
            if any(b["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow" for b in budgets):
                yield f"{name}: a server that does not come up holds up every drain"


@rule
def everything_is_denied_by_default(objects: list[Object]) -> Iterator[str]:
    spaces = {entry["metadata"].get("namespace") for entry in objects if pod_spec(entry)}
    for space in spaces:
        if not any(
            policy["metadata"]["namespace"] == space
            and policy["spec"]["podSelector"] == {}
            and set(policy["spec"].get("policyTypes", ())) == {"Ingress", "Egress"}
            and not policy["spec"].get("ingress")
            and not policy["spec"].get("egress")
            for policy in of_kind(objects, "NetworkPolicy")
        ):
            yield f"namespace {space}"


@rule
def policies_say_what_they_mean(objects: list[Object]) -> Iterator[str]:
    for policy in of_kind(objects, "NetworkPolicy"):
        name, spec = policy["metadata"]["name"], policy["spec"]
        policy_types = set(spec.get("policyTypes", ()))
        if not policy_types or not policy_types <= {"Ingress", "Egress"}:
            yield f"{name}: policyTypes {sorted(policy_types)}"
        yield from (
            f"{name}: {key} is not in policyTypes"
            for key in ("ingress", "egress")
            if key in spec and key.capitalize() not in policy_types
        )
        for policy_rule in (*(spec.get("ingress") or ()), *(spec.get("egress") or ())):
            peers = policy_rule.get("to", policy_rule.get("from")) or ()
            if not peers or not policy_rule.get("ports"):
                yield f"{name}: a rule without peers or ports allows all"
            if any(peer.get("namespaceSelector") == {} for peer in peers):
                yield f"{name}: an empty namespaceSelector is every pod of the cluster, and never the internet"


@rule
def nobody_else_goes_out(objects: list[Object]) -> Iterator[str]:
    for policy in of_kind(objects, "NetworkPolicy"):
        role = policy["spec"]["podSelector"].get("matchLabels", {}).get("qaeval.io/role")
        blocks = [
            p["ipBlock"]
            for egress_rule in policy["spec"].get("egress") or ()
            for p in egress_rule.get("to", ())
            if "ipBlock" in p
        ]
        for block in blocks:
            if block["cidr"] in _PUBLIC and role != EGRESS_ROLE:
                yield policy["metadata"]["name"]
            if block["cidr"] in _PUBLIC and "169.254.0.0/16" not in block.get("except", ()):
                yield f"{policy['metadata']['name']}: the cloud's credentials can be asked for"


@rule
def the_namespace_is_restricted(objects: list[Object]) -> Iterator[str]:
    namespace_labels = {
        entry["metadata"]["name"]: entry["metadata"].get("labels", {})
        for entry in of_kind(objects, "Namespace")
    }
    for entry in objects:
        space = entry["metadata"].get("namespace")
        if space is None and entry["kind"] != "Namespace":
            yield f"{entry['kind']}/{entry['metadata']['name']}: no namespace"
        elif (
            space
            and namespace_labels.get(space, {}).get("pod-security.kubernetes.io/enforce") != "restricted"
        ):
            yield f"{entry['kind']}/{entry['metadata']['name']}: {space}"
