"""Which pods may reach which targets in each overlay, as a cluster that enforces network policies decides."""

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


def own_pod(role: str, *, vllm: bool = False) -> Pod:
    return Pod("qaeval", {"qaeval.io/role": role, **({"qaeval.io/vllm": "true"} if vllm else {})})


STAGE = own_pod("stage", vllm=True)
GENERATOR, JUDGE = own_pod("generator", vllm=True), own_pod("judge", vllm=True)
RUN, MERGE, POWER, FILES, STAGING, WORKFLOW = (
    own_pod("run"),
    own_pod("merge"),
    own_pod("power"),
    own_pod("files"),
    own_pod("stage-models"),
    own_pod("workflow"),
)


@cache
def network_policies(*variant: str) -> list[Object]:
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
def test_no_pod_reaches_the_internet_or_the_cloud_credentials(variant: tuple[str, ...], pod: Pod) -> None:
    for port in (80, 443, 53, 8443):
        assert not allowed(network_policies(*variant), pod, INTERNET, port)
        assert not allowed(network_policies(*variant), pod, METADATA, port)
    assert not allowed(network_policies(*variant), pod, Address("2606:4700:4700::1111"), 443)
    assert not allowed(network_policies(*variant), pod, INTERNET, 53, "UDP")


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
def test_a_stage_has_no_network_access(source: Pod | Address, target: Pod | Address, port: int) -> None:
    assert not allowed(network_policies("l4-single"), source, target, port)
    assert not allowed(network_policies("l4-single"), source, target, port, "UDP")


@pytest.mark.parametrize(
    ("source", "target", "port", "protocol", "is_allowed"),
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
def test_in_l4_pair_only_the_run_reaches_the_servers(
    source: Pod, target: Pod | Address, port: int, protocol: str, is_allowed: bool
) -> None:
    assert allowed(network_policies("l4-pair"), source, target, port, protocol) is is_allowed


def test_with_keda_no_pod_reaches_the_api_server() -> None:
    assert not allowed(network_policies("l4-pair", "keda"), POWER, API_SERVER, 443)


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_only_prometheus_reads_metrics(overlay: str) -> None:
    server = STAGE if overlay == "l4-single" else JUDGE
    rules = network_policies(overlay, "monitoring")
    assert allowed(rules, PROMETHEUS, server, 8000)
    assert not allowed(rules, GRAFANA, server, 8000)
    assert not allowed(rules, Pod("default", PROMETHEUS.labels), server, 8000)
    assert not allowed(rules, server, PROMETHEUS, 9090)


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_only_prometheus_reads_the_metrics_of_a_run(overlay: str) -> None:
    role = STAGE if overlay == "l4-single" else RUN
    pod = Pod(role.namespace, {**role.labels, "qaeval.io/metrics": "true"})
    rules = network_policies(overlay, "monitoring")
    assert allowed(rules, PROMETHEUS, pod, 9464)
    assert not allowed(network_policies(overlay), PROMETHEUS, pod, 9464)
    assert not allowed(rules, PROMETHEUS, pod, 22)
    assert not allowed(rules, PROMETHEUS, MERGE, 9464)
    for source in (GRAFANA, NEIGHBOUR, STRANGER, Pod("default", PROMETHEUS.labels), Address("10.0.0.9")):
        assert not allowed(rules, source, pod, 9464)


@pytest.mark.parametrize("overlay", ["l4-single", "l4-pair"])
def test_only_workflow_pods_reach_the_api_server(overlay: str) -> None:
    rules = network_policies(overlay, "argo")
    assert allowed(rules, WORKFLOW, API_SERVER, 443)
    for port, target in ((22, API_SERVER), (8000, JUDGE), (8000, STAGE), (53, DNS)):
        assert not allowed(rules, WORKFLOW, target, port)
    assert not allowed(rules, STRANGER, WORKFLOW, 443)
    for pod in (STAGE, RUN, MERGE, GENERATOR, JUDGE, NEIGHBOUR):
        assert not allowed(rules, pod, API_SERVER, 443)


@pytest.mark.parametrize(
    ("target", "port", "protocol", "is_allowed"),
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
def test_staging_reaches_the_internet_only_on_port_443(
    target: Pod | Address, port: int, protocol: str, is_allowed: bool
) -> None:
    assert allowed(network_policies("stage-models"), STAGING, target, port, protocol) is is_allowed


def test_only_staging_reaches_the_internet() -> None:
    for pod in (STAGE, RUN, FILES, NEIGHBOUR, JUDGE):
        assert not allowed(network_policies("stage-models"), pod, INTERNET, 443)


# ---------------------------------------------------------------- the evaluator itself


def make_policy(spec: Object) -> Object:
    return {"metadata": {"name": "x", "namespace": "qaeval"}, "spec": spec}


def test_a_pod_selected_by_no_policy_is_open() -> None:
    assert allowed(
        [make_policy({"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Egress"]})],
        RUN,
        INTERNET,
        443,
    )


def test_an_empty_namespace_selector_matches_every_pod_and_no_address() -> None:
    rules = [
        make_policy(
            {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": {}}]}]}
        )
    ]
    assert allowed(rules, RUN, OTHER_443, 443)
    assert not allowed(rules, RUN, INTERNET, 443)


def test_a_policy_without_types_applies_to_ingress() -> None:
    rules = [make_policy({"podSelector": {}})]
    assert allowed(rules, RUN, INTERNET, 443)
    assert not allowed(rules, STRANGER, RUN, 443)


def test_a_rule_without_peers_allows_all_sources() -> None:
    rules = [
        make_policy({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 8000}]}]})
    ]
    assert allowed(rules, STRANGER, RUN, 8000)
    assert not allowed(rules, STRANGER, RUN, 8001)


def test_selectors_of_one_peer_are_combined_with_and() -> None:
    peer = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
        "podSelector": {"matchLabels": {"a": "b"}},
    }
    rules = [make_policy({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [peer]}]})]
    assert allowed(rules, Pod("default", {"a": "b"}), RUN, 1)
    assert not allowed(rules, Pod("default"), RUN, 1)
    assert not allowed(rules, Pod("qaeval", {"a": "b"}), RUN, 1)


def test_match_expressions_and_port_ranges_are_supported() -> None:
    selector = {
        "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["b"]},
            {"key": "c", "operator": "DoesNotExist"},
        ]
    }
    rules = [
        make_policy(
            {
                "podSelector": {},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": selector}], "ports": [{"port": 10, "endPort": 20}]}],
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
    ("source", "target", "port", "is_allowed"),
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
def test_ray_nodes_reach_each_other_the_servers_and_the_store(
    source: Pod, target: Pod | Address, port: int, is_allowed: bool
) -> None:
    assert allowed(network_policies("l4-pair", "monitoring", "ray"), source, target, port) is is_allowed
