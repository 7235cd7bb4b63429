"""Who may reach whom, in each overlay. The third column is the answer that a cluster which enforces policies gives."""

from functools import cache

import pytest

from k8s.lint import of_kind
from k8s.policies import Address, Pod, allowed
from k8s.render import Object, render

INTERNET = Address("1.1.1.1")
METADATA = Address("169.254.169.254")
API_SERVER = Address("10.0.3.7")
DNS = Pod("kube-system", {"k8s-app": "kube-dns"})
STRANGER = Pod("default", {"app": "shell"})
NEIGHBOUR = Pod("qaeval", {"app": "shell"})
PROMETHEUS = Pod("monitoring", {"app.kubernetes.io/name": "prometheus"})
GRAFANA = Pod("monitoring", {"app.kubernetes.io/name": "grafana"})
OTHER_443 = Pod("payments", {"app": "api"})


def ours(role: str, *, vllm: bool = False) -> Pod:
    return Pod("qaeval", {"qaeval.io/role": role, **({"qaeval.io/vllm": "true"} if vllm else {})})


STAGE = ours("stage", vllm=True)
GENERATOR, JUDGE = ours("generator", vllm=True), ours("judge", vllm=True)
RUN, MERGE, POWER, FILES, STAGING, WORKFLOW = (
    ours("run"),
    ours("merge"),
    ours("power"),
    ours("files"),
    ours("stage-models"),
    ours("workflow"),
)


@cache
def policies(*variant: str) -> list[Object]:
    return of_kind(render(*variant), "NetworkPolicy")


@pytest.mark.parametrize("pod", [STAGE, GENERATOR, JUDGE, RUN, MERGE, POWER, FILES, WORKFLOW, NEIGHBOUR])
@pytest.mark.parametrize(
    "variant",
    [
        ("l4-single",),
        ("l4-single", "monitoring"),
        ("l4-single", "argo"),
        ("l4-pair",),
        ("l4-pair", "monitoring"),
        ("l4-pair", "argo"),
        ("files",),
    ],
)
def test_nobody_reaches_the_internet_or_the_clouds_credentials(variant: tuple[str, ...], pod: Pod) -> None:
    for port in (80, 443, 53, 8443):
        assert not allowed(policies(*variant), pod, INTERNET, port)
        assert not allowed(policies(*variant), pod, METADATA, port)
    assert not allowed(policies(*variant), pod, Address("2606:4700:4700::1111"), 443)
    assert not allowed(policies(*variant), pod, INTERNET, 53, "UDP")


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        (STAGE, DNS, 53),
        (STAGE, STAGE, 8000),
        (STAGE, OTHER_443, 443),
        (STAGE, API_SERVER, 443),
        (STRANGER, STAGE, 8000),
        (NEIGHBOUR, STAGE, 8000),
        (PROMETHEUS, STAGE, 8000),
        (Address("10.0.0.9"), STAGE, 8000),
    ],
)
def test_a_stage_has_no_network_at_all(source: Pod | Address, target: Pod | Address, port: int) -> None:
    assert not allowed(policies("l4-single"), source, target, port)
    assert not allowed(policies("l4-single"), source, target, port, "UDP")


@pytest.mark.parametrize(
    ("source", "target", "port", "protocol", "answer"),
    [
        (RUN, GENERATOR, 8000, "TCP", True),
        (RUN, JUDGE, 8000, "TCP", True),
        (RUN, DNS, 53, "UDP", True),
        (RUN, DNS, 53, "TCP", True),
        (RUN, GENERATOR, 22, "TCP", False),
        (RUN, API_SERVER, 443, "TCP", False),
        (RUN, RUN, 8000, "TCP", False),
        (RUN, OTHER_443, 443, "TCP", False),
        (RUN, Pod("default", {"qaeval.io/vllm": "true"}), 8000, "TCP", False),
        (RUN, Pod("default", {"k8s-app": "kube-dns"}), 53, "UDP", False),
        (JUDGE, GENERATOR, 8000, "TCP", False),
        (GENERATOR, DNS, 53, "UDP", False),
        (GENERATOR, API_SERVER, 443, "TCP", False),
        (JUDGE, RUN, 8000, "TCP", False),
        (STRANGER, JUDGE, 8000, "TCP", False),
        (Pod("default", {"qaeval.io/role": "run"}), JUDGE, 8000, "TCP", False),
        (NEIGHBOUR, JUDGE, 8000, "TCP", False),
        (POWER, API_SERVER, 443, "TCP", True),
        (POWER, API_SERVER, 6443, "TCP", True),
        (POWER, API_SERVER, 22, "TCP", False),
        (POWER, DNS, 53, "UDP", False),
        (POWER, JUDGE, 8000, "TCP", False),
        (MERGE, JUDGE, 8000, "TCP", False),
        (MERGE, DNS, 53, "UDP", False),
    ],
)
def test_in_the_pair_the_run_reaches_the_servers_and_nobody_else_does(
    source: Pod, target: Pod | Address, port: int, protocol: str, answer: bool
) -> None:
    assert allowed(policies("l4-pair"), source, target, port, protocol) is answer


def test_with_keda_nobody_reaches_the_api_server() -> None:
    assert not allowed(policies("l4-pair", "keda"), POWER, API_SERVER, 443)


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_only_prometheus_reads_metrics(overlay: str) -> None:
    server = STAGE if overlay == "l4-single" else JUDGE
    rules = policies(overlay, "monitoring")
    assert allowed(rules, PROMETHEUS, server, 8000)
    assert not allowed(rules, GRAFANA, server, 8000)
    assert not allowed(rules, Pod("default", PROMETHEUS.labels), server, 8000)
    assert not allowed(rules, server, PROMETHEUS, 9090)


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_only_prometheus_reads_what_a_run_says_of_itself(overlay: str) -> None:
    role = STAGE if overlay == "l4-single" else RUN
    pod = Pod(role.namespace, {**role.labels, "qaeval.io/metrics": "true"})
    rules = policies(overlay, "monitoring")
    assert allowed(rules, PROMETHEUS, pod, 9464)
    assert not allowed(policies(overlay), PROMETHEUS, pod, 9464)
    assert not allowed(rules, PROMETHEUS, pod, 22)
    assert not allowed(rules, PROMETHEUS, MERGE, 9464)
    for other in (GRAFANA, NEIGHBOUR, STRANGER, Pod("default", PROMETHEUS.labels), Address("10.0.0.9")):
        assert not allowed(rules, other, pod, 9464)


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_of_a_workflow_only_its_own_pods_reach_the_api_server(overlay: str) -> None:
    rules = policies(overlay, "argo")
    assert allowed(rules, WORKFLOW, API_SERVER, 443)
    for port, target in ((22, API_SERVER), (8000, JUDGE), (8000, STAGE), (53, DNS)):
        assert not allowed(rules, WORKFLOW, target, port)
    assert not allowed(rules, STRANGER, WORKFLOW, 443)
    for pod in (STAGE, RUN, MERGE, GENERATOR, JUDGE, NEIGHBOUR):
        assert not allowed(rules, pod, API_SERVER, 443)


@pytest.mark.parametrize(
    ("target", "port", "protocol", "answer"),
    [
        (INTERNET, 443, "TCP", True),
        (INTERNET, 80, "TCP", False),
        (INTERNET, 443, "UDP", False),
        (DNS, 53, "UDP", True),
        (METADATA, 443, "TCP", False),
        (API_SERVER, 443, "TCP", False),
        (Address("192.168.1.4"), 443, "TCP", False),
        (Address("100.64.0.9"), 443, "TCP", False),
        (OTHER_443, 443, "TCP", False),
    ],
)
def test_staging_reaches_the_internet_on_443_alone(
    target: Pod | Address, port: int, protocol: str, answer: bool
) -> None:
    assert allowed(policies("stage-models"), STAGING, target, port, protocol) is answer


def test_the_permission_to_go_out_is_for_staging_alone() -> None:
    for pod in (STAGE, RUN, FILES, NEIGHBOUR, JUDGE):
        assert not allowed(policies("stage-models"), pod, INTERNET, 443)


# ---------------------------------------------------------------- the evaluator itself


def policy(spec: Object) -> Object:
    return {"metadata": {"name": "x", "namespace": "qaeval"}, "spec": spec}


def test_a_pod_that_no_policy_selects_is_open() -> None:
    assert allowed(
        [policy({"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Egress"]})], RUN, INTERNET, 443
    )


def test_an_empty_namespace_selector_is_every_pod_and_no_address() -> None:
    rules = [
        policy(
            {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": {}}]}]}
        )
    ]
    assert allowed(rules, RUN, OTHER_443, 443)
    assert not allowed(rules, RUN, INTERNET, 443)


def test_a_policy_without_types_is_for_ingress() -> None:
    rules = [policy({"podSelector": {}})]
    assert allowed(rules, RUN, INTERNET, 443)
    assert not allowed(rules, STRANGER, RUN, 443)


def test_a_rule_without_peers_allows_everybody() -> None:
    rules = [
        policy({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 8000}]}]})
    ]
    assert allowed(rules, STRANGER, RUN, 8000)
    assert not allowed(rules, STRANGER, RUN, 8001)


def test_peers_of_one_entry_are_and_entries_are_or() -> None:
    both = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
        "podSelector": {"matchLabels": {"a": "b"}},
    }
    rules = [policy({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [both]}]})]
    assert allowed(rules, Pod("default", {"a": "b"}), RUN, 1)
    assert not allowed(rules, Pod("default"), RUN, 1)
    assert not allowed(rules, Pod("qaeval", {"a": "b"}), RUN, 1)


def test_expressions_and_ranges_of_ports_are_read() -> None:
    chosen = {
        "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["b"]},
            {"key": "c", "operator": "DoesNotExist"},
        ]
    }
    rules = [
        policy(
            {
                "podSelector": {},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": chosen}], "ports": [{"port": 10, "endPort": 20}]}],
            }
        )
    ]
    assert allowed(rules, Pod("qaeval", {"a": "b"}), RUN, 15)
    assert not allowed(rules, Pod("qaeval", {"a": "b"}), RUN, 21)
    assert not allowed(rules, Pod("qaeval", {"a": "b", "c": ""}), RUN, 15)


HEAD = Pod("qaeval", {"qaeval.io/role": "run", "qaeval.io/ray": "head", "qaeval.io/metrics": "true"})
WORKER = Pod("qaeval", {"qaeval.io/role": "run", "qaeval.io/ray": "worker"})
OPERATOR = Pod("kuberay-operator", {"app.kubernetes.io/name": "kuberay-operator"})
STORE = Pod("object-store", {"app.kubernetes.io/name": "minio"})


@pytest.mark.parametrize(
    ("source", "target", "port", "answer"),
    [
        (WORKER, HEAD, 6379, True),
        (HEAD, WORKER, 6450, True),
        (WORKER, WORKER, 6381, True),
        (WORKER, HEAD, 8265, False),
        (OPERATOR, HEAD, 8265, True),
        (OPERATOR, WORKER, 8265, False),
        (OPERATOR, HEAD, 6379, False),
        (WORKER, GENERATOR, 8000, True),
        (HEAD, JUDGE, 8000, True),
        (WORKER, STORE, 9000, True),
        (HEAD, Pod("default", {"app.kubernetes.io/name": "minio"}), 9000, False),
        (JUDGE, STORE, 9000, False),
        (JUDGE, WORKER, 6400, False),
        (STRANGER, HEAD, 6379, False),
        (STRANGER, HEAD, 8265, False),
        (NEIGHBOUR, HEAD, 8265, False),
        (PROMETHEUS, HEAD, 9464, True),
        (WORKER, INTERNET, 443, False),
        (HEAD, METADATA, 80, False),
        (HEAD, API_SERVER, 443, False),
    ],
)
def test_on_ray_the_nodes_reach_each_other_the_servers_and_the_store(
    source: Pod, target: Pod | Address, port: int, answer: bool
) -> None:
    assert allowed(policies("l4-pair", "monitoring", "ray"), source, target, port) is answer
