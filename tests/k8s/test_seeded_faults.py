"""Each rule finds the fault that it is there for."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from k8s.lint import RULES, lint
from k8s.render import Object, containers, pod_spec, render

Change = Callable[[list[Object]], None]
FAULTS: list[tuple[str, str, str, Change]] = []


def fault(expected: str, overlay: str = "l4-single") -> Callable[[Change], Change]:
    def add(change: Change) -> Change:
        FAULTS.append((change.__name__, expected, overlay, change))
        return change

    return add


def first(objects: list[Object], kind: str, name: str = "") -> Any:
    return next(entry for entry in objects if entry["kind"] == kind and name in entry["metadata"]["name"])


def pod(objects: list[Object], name: str = "") -> Any:
    return next(
        spec
        for entry in objects
        if (spec := pod_spec(entry)) is not None and name in entry["metadata"]["name"]
    )


def vllm(objects: list[Object]) -> Any:
    return next(
        c for entry in objects if (spec := pod_spec(entry)) for c in containers(spec) if c["name"] == "vllm"
    )


def every_container(objects: list[Object]) -> Iterator[Any]:
    return (c for entry in objects if (spec := pod_spec(entry)) for c in containers(spec))


def without(objects: list[Object], *chosen: Object) -> None:
    objects[:] = [entry for entry in objects if entry not in chosen]


@fault("gpu_request_is_limit")
def gpu_request_differs(objects: list[Object]) -> None:
    vllm(objects)["resources"]["requests"]["nvidia.com/gpu"] = "2"


@fault("gpu_request_is_limit")
def gpu_without_a_limit(objects: list[Object]) -> None:
    del vllm(objects)["resources"]["limits"]["nvidia.com/gpu"]


@fault("resources_are_stated")
def no_limits(objects: list[Object]) -> None:
    del pod(objects)["containers"][0]["resources"]["limits"]


@fault("quantities_are_quantities")
def ten_gibibytes_misspelt(objects: list[Object]) -> None:
    vllm(objects)["resources"]["requests"]["memory"] = "10GiB"


@fault("quantities_are_quantities")
def volume_size_misspelt(objects: list[Object]) -> None:
    first(objects, "PersistentVolumeClaim")["spec"]["resources"]["requests"]["storage"] = "40GB "


@fault("limits_are_not_below_requests")
def limit_below_request(objects: list[Object]) -> None:
    vllm(objects)["resources"]["limits"]["memory"] = "900Mi"


@fault("pods_fit_the_node")
def more_than_a_node_has(objects: list[Object]) -> None:
    vllm(objects)["resources"]["requests"]["cpu"] = "4"


@fault("mounts_are_declared")
def undeclared_volume(objects: list[Object]) -> None:
    vllm(objects)["volumeMounts"].append({"name": "weights", "mountPath": "/weights"})


@fault("mounts_do_not_collide")
def two_mounts_at_one_place(objects: list[Object]) -> None:
    vllm(objects)["volumeMounts"].append({"name": "cache", "mountPath": "/tmp"})  # noqa: S108


@fault("references_exist")
def missing_config_map(objects: list[Object]) -> None:
    without(objects, first(objects, "ConfigMap", "run"))


@fault("references_exist")
def misspelt_claim(objects: list[Object]) -> None:
    pod(objects)["volumes"][0]["persistentVolumeClaim"]["claimName"] = "model"


@fault("mounted_scripts_exist")
def missing_script(objects: list[Object]) -> None:
    del first(objects, "ConfigMap", "scripts")["data"]["stage.sh"]


@fault("not_root")
def root_user(objects: list[Object]) -> None:
    pod(objects)["securityContext"]["runAsUser"] = 0


@fault("not_root")
def a_user_that_the_image_does_not_know(objects: list[Object]) -> None:
    vllm(objects)["securityContext"]["runAsUser"] = 10001


@fault("confined")
def writable_root(objects: list[Object]) -> None:
    vllm(objects)["securityContext"]["readOnlyRootFilesystem"] = False


@fault("confined")
def added_capability(objects: list[Object]) -> None:
    vllm(objects)["securityContext"]["capabilities"] = {"drop": ["ALL"], "add": ["SYS_ADMIN"]}


@fault("confined")
def no_seccomp_profile(objects: list[Object]) -> None:
    del pod(objects)["securityContext"]["seccompProfile"]


@fault("nothing_of_the_host")
def host_path(objects: list[Object]) -> None:
    pod(objects)["volumes"].append({"name": "host", "hostPath": {"path": "/models"}})


@fault("nothing_of_the_host")
def host_network(objects: list[Object]) -> None:
    pod(objects)["hostNetwork"] = True


@fault("images_are_pinned")
def tag_latest(objects: list[Object]) -> None:
    vllm(objects)["image"] = "vllm/vllm-openai:latest"


@fault("images_are_pinned")
def no_tag(objects: list[Object]) -> None:
    vllm(objects)["image"] = "vllm/vllm-openai"


@fault("images_are_pinned")
def a_digest_that_is_too_short(objects: list[Object]) -> None:
    vllm(objects)["image"] = "vllm/vllm-openai@sha256:abc"


@fault("no_service_links")
def service_links_on(objects: list[Object]) -> None:
    pod(objects)["enableServiceLinks"] = True


@fault("no_service_links")
def service_links_not_mentioned(objects: list[Object]) -> None:
    del pod(objects)["enableServiceLinks"]


@fault("no_token_without_a_role")
def token_mounted(objects: list[Object]) -> None:
    pod(objects)["automountServiceAccountToken"] = True


@fault("roles_name_what_they_touch", "l4-pair")
def role_for_all_jobs(objects: list[Object]) -> None:
    del first(objects, "Role")["rules"][1]["resourceNames"]


@fault("no_secret_in_clear")
def token_in_clear(objects: list[Object]) -> None:
    vllm(objects)["env"].append({"name": "HF_TOKEN", "value": "x"})


@fault("no_secret_in_clear")
def key_in_a_config_map(objects: list[Object]) -> None:
    first(objects, "ConfigMap", "run")["data"]["VLLM_API_KEY"] = "x"


@fault("servers_have_probes")
def no_startup_probe(objects: list[Object]) -> None:
    del vllm(objects)["startupProbe"]


@fault("servers_have_probes")
def startup_probe_gives_up_early(objects: list[Object]) -> None:
    vllm(objects)["startupProbe"]["failureThreshold"] = 3


@fault("servers_have_probes", "l4-pair")
def no_readiness_probe(objects: list[Object]) -> None:
    del vllm(objects)["readinessProbe"]


@fault("ports_are_there")
def port_out_of_range(objects: list[Object]) -> None:
    vllm(objects)["ports"][0]["containerPort"] = 80000


@fault("ports_are_there")
def probe_of_a_port_that_is_not_there(objects: list[Object]) -> None:
    vllm(objects)["livenessProbe"]["httpGet"]["port"] = "api"


@fault("gpu_deployments_are_recreated", "l4-pair")
def rolling_update_on_one_gpu(objects: list[Object]) -> None:
    first(objects, "Deployment")["spec"]["strategy"] = {"type": "RollingUpdate"}


@fault("gpu_deployments_are_recreated", "l4-pair")
def server_always_on(objects: list[Object]) -> None:
    first(objects, "Deployment")["spec"]["replicas"] = 1


@fault("jobs_end")
def job_restarts_always(objects: list[Object]) -> None:
    pod(objects)["restartPolicy"] = "Always"


@fault("jobs_end")
def restart_policy_that_is_none(objects: list[Object]) -> None:
    pod(objects)["restartPolicy"] = "Sometimes"


@fault("jobs_end")
def no_deadline(objects: list[Object]) -> None:
    del first(objects, "Job")["spec"]["activeDeadlineSeconds"]


@fault("jobs_end")
def failure_policy_of_a_container_that_is_not_there(objects: list[Object]) -> None:
    first(objects, "Job")["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]["containerName"] = "main"


@fault("servers_beside_a_job_stop_with_it")
def server_as_a_plain_init_container(objects: list[Object]) -> None:
    del vllm(objects)["restartPolicy"]


@fault("servers_beside_a_job_stop_with_it")
def server_as_a_main_container(objects: list[Object]) -> None:
    spec = pod(objects)
    spec["containers"].append(spec["initContainers"].pop())


@fault("the_way_out_is_tested_first")
def server_starts_before_the_test(objects: list[Object]) -> None:
    spec = pod(objects)
    spec["initContainers"].append(spec["initContainers"].pop(0))


@fault("the_way_out_is_tested_first", "l4-pair")
def no_test_of_the_way_out(objects: list[Object]) -> None:
    del pod(objects, "run")["initContainers"][0]


@fault("models_are_checked_before_they_are_served")
def weights_not_checked(objects: list[Object]) -> None:
    del pod(objects)["initContainers"][1]


@fault("models_are_checked_before_they_are_served")
def weights_writable(objects: list[Object]) -> None:
    vllm(objects)["volumeMounts"][0]["readOnly"] = False


@fault("what_is_checked_is_what_is_served")
def another_model_checked(objects: list[Object]) -> None:
    pod(objects)["initContainers"][1]["env"][0]["value"] = "qwen2.5"


@fault("what_is_checked_is_what_is_served", "l4-pair")
def adapter_not_checked(objects: list[Object]) -> None:
    pod(objects, "server-generator")["initContainers"][1]["command"].remove("adapters/tuned")


@fault("servers_are_offline")
def hub_allowed(objects: list[Object]) -> None:
    next(e for e in vllm(objects)["env"] if e["name"] == "HF_HUB_OFFLINE")["value"] = "0"


@fault("servers_are_offline")
def usage_statistics_on(objects: list[Object]) -> None:
    vllm(objects)["env"] = [e for e in vllm(objects)["env"] if e["name"] != "VLLM_NO_USAGE_STATS"]


@fault("servers_are_offline")
def no_shared_memory(objects: list[Object]) -> None:
    vllm(objects)["volumeMounts"] = [m for m in vllm(objects)["volumeMounts"] if m["name"] != "shm"]


@fault("gpu_pods_are_not_moved")
def may_be_moved(objects: list[Object]) -> None:
    del first(objects, "Job", "stage")["spec"]["template"]["metadata"]["annotations"]


@fault("labels_are_labels")
def label_with_a_blank(objects: list[Object]) -> None:
    first(objects, "Job")["metadata"]["labels"]["qaeval.io/role"] = "a stage"


@fault("selectors_select", "l4-pair")
def selector_is_not_the_templates(objects: list[Object]) -> None:
    first(objects, "Deployment")["spec"]["selector"]["matchLabels"]["qaeval.io/role"] = "other"


@fault("selectors_select", "l4-pair")
def service_selects_nothing(objects: list[Object]) -> None:
    first(objects, "Service")["spec"]["selector"] = {"app": "vllm"}


@fault("selectors_select", "l4-pair")
def policy_selects_nothing(objects: list[Object]) -> None:
    first(objects, "NetworkPolicy", "run-to")["spec"]["podSelector"]["matchLabels"]["qaeval.io/role"] = "runs"


@fault("deployments_do_not_share_pods")
def two_budgets_for_one_pod(objects: list[Object]) -> None:
    second = copy.deepcopy(first(objects, "PodDisruptionBudget"))
    second["metadata"]["name"] = "second"
    objects.append(second)


@fault("gpu_pods_have_a_disruption_budget", "l4-pair")
def budget_that_does_nothing(objects: list[Object]) -> None:
    spec = first(objects, "PodDisruptionBudget")["spec"]
    del spec["minAvailable"]
    spec["maxUnavailable"] = 1


@fault("everything_is_denied_by_default")
def no_network_policy(objects: list[Object]) -> None:
    without(objects, *[entry for entry in objects if entry["kind"] == "NetworkPolicy"])


@fault("everything_is_denied_by_default")
def ingress_alone_denied(objects: list[Object]) -> None:
    first(objects, "NetworkPolicy", "default-deny")["spec"]["policyTypes"] = ["Ingress"]


@fault("policies_say_what_they_mean")
def policy_type_that_is_none(objects: list[Object]) -> None:
    first(objects, "NetworkPolicy")["spec"]["policyTypes"] = ["Ingress", "Outbound"]


@fault("policies_say_what_they_mean", "l4-pair")
def every_pod_taken_for_the_internet(objects: list[Object]) -> None:
    first(objects, "NetworkPolicy", "run-to")["spec"]["egress"][0]["to"] = [{"namespaceSelector": {}}]


@fault("policies_say_what_they_mean", "l4-pair")
def rule_without_peers(objects: list[Object]) -> None:
    first(objects, "NetworkPolicy", "servers-from")["spec"]["ingress"].append(
        {"ports": [{"protocol": "TCP", "port": 8000}]}
    )


@fault("nobody_else_goes_out", "l4-pair")
def egress_allowed(objects: list[Object]) -> None:
    rules = first(objects, "NetworkPolicy", "run-to")["spec"]["egress"]
    rules.append({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"protocol": "TCP", "port": 443}]})


@fault("nobody_else_goes_out", "stage-models")
def cloud_credentials_within_reach(objects: list[Object]) -> None:
    first(objects, "NetworkPolicy", "stage-models")["spec"]["egress"][0]["to"][0]["ipBlock"]["except"].pop()


@fault("the_namespace_is_restricted")
def privileged_namespace(objects: list[Object]) -> None:
    first(objects, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "privileged"


@fault("the_namespace_is_restricted")
def object_elsewhere(objects: list[Object]) -> None:
    first(objects, "Job")["metadata"]["namespace"] = "default"


@fault("not_root", "l4-pair+argo")
def workflow_as_root(objects: list[Object]) -> None:
    first(objects, "WorkflowTemplate")["spec"]["securityContext"]["runAsUser"] = 0


@fault("confined", "l4-pair+argo")
def workflow_may_write_to_its_root(objects: list[Object]) -> None:
    spec = first(objects, "WorkflowTemplate")["spec"]
    spec["podSpecPatch"] = spec["podSpecPatch"].replace(
        "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"
    )


@fault("roles_name_what_they_touch", "l4-pair+argo")
def workflow_may_touch_every_job(objects: list[Object]) -> None:
    del first(objects, "Role", "workflow")["rules"][0]["resourceNames"]


@fault("selectors_select", "l4-pair+argo")
def policy_of_a_workflow_that_is_not_there(objects: list[Object]) -> None:
    first(objects, "WorkflowTemplate")["spec"]["podMetadata"]["labels"]["qaeval.io/role"] = "steps"


@fault("selectors_select", "l4-single+monitoring")
def nobody_has_the_label_that_is_scraped(objects: list[Object]) -> None:
    for entry in objects:
        if entry["kind"] == "Job":
            entry["spec"]["template"]["metadata"]["labels"].pop("qaeval.io/metrics", None)


@fault("a_lost_node_costs_no_attempt")
def a_lost_node_counts(objects: list[Object]) -> None:
    del first(objects, "Job")["spec"]["podFailurePolicy"]["rules"][0]


@fault("a_lost_node_costs_no_attempt", "l4-pair")
def a_mistyped_word_is_tried_again(objects: list[Object]) -> None:
    del first(objects, "Job", "run")["spec"]["podFailurePolicy"]["rules"][1]


@fault("gpu_pods_have_a_disruption_budget", "l4-pair")
def a_broken_server_holds_up_a_drain(objects: list[Object]) -> None:
    del first(objects, "PodDisruptionBudget")["spec"]["unhealthyPodEvictionPolicy"]


@fault("servers_are_offline")
def no_name_for_the_user(objects: list[Object]) -> None:
    vllm(objects)["env"] = [e for e in vllm(objects)["env"] if e["name"] != "USER"]


_RENDERED = {overlay: render(*overlay.split("+")) for overlay in {entry[2] for entry in FAULTS}}


@pytest.mark.parametrize(
    ("expected", "overlay", "change"), [entry[1:] for entry in FAULTS], ids=[entry[0] for entry in FAULTS]
)
def test_a_seeded_fault_is_found(expected: str, overlay: str, change: Change) -> None:
    objects = copy.deepcopy(_RENDERED[overlay])
    change(objects)
    assert expected in {found.partition(":")[0] for found in lint(objects)}


def test_every_rule_has_a_fault() -> None:
    assert {expected for _, expected, _, _ in FAULTS} == set(RULES)
