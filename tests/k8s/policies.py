"""NetworkPolicies evaluated as the API defines them.

A connection is allowed when the source's egress rules and the target's ingress rules allow it. A pod that no policy of a direction
selects is open in that direction; policies only ever add permissions.
"""

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """The properties of a pod that policies select by."""

    namespace: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Address:
    """An address outside the cluster."""

    ip: str


def allowed(
    policies: list[Object], source: Pod | Address, target: Pod | Address, port: int, protocol: str = "TCP"
) -> bool:
    """Return whether a connection can be opened."""
    is_egress_allowed = _passes(policies, "Egress", source, target, port, protocol)
    return is_egress_allowed and _passes(policies, "Ingress", target, source, port, protocol)


def _passes(
    policies: list[Object],
    direction: str,
    endpoint: Pod | Address,
    remote: Pod | Address,
    port: int,
    protocol: str,
) -> bool:
    if isinstance(endpoint, Address):
        return True
    selecting = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == endpoint.namespace
        and direction in _policy_types(policy["spec"])
        and selects(policy["spec"]["podSelector"], endpoint.labels)
    ]
    if not selecting:
        return True
    rules = [
        (policy["metadata"]["namespace"], rule)
        for policy in selecting
        for rule in policy["spec"].get(direction.lower()) or ()
    ]
    peers = "to" if direction == "Egress" else "from"
    return any(
        _matches_port(rule, port, protocol)
        and (not rule.get(peers) or any(_matches(peer, remote, namespace) for peer in rule[peers]))
        for namespace, rule in rules
    )


def _policy_types(spec: Object) -> list[str]:
    types = spec.get("policyTypes")
    return list(types) if types else ["Ingress", *(["Egress"] if "egress" in spec else [])]


def _matches_port(rule: Object, port: int, protocol: str) -> bool:
    return not rule.get("ports") or any(
        entry.get("protocol", "TCP") == protocol
        and ("port" not in entry or entry["port"] <= port <= entry.get("endPort", entry["port"]))
        for entry in rule["ports"]
    )


def _matches(peer: Object, remote: Pod | Address, namespace: str) -> bool:
    if block := peer.get("ipBlock"):
        if isinstance(remote, Pod):
            return False  # IP blocks apply only outside the cluster
        is_in_block = ip_address(remote.ip) in ip_network(block["cidr"])
        return is_in_block and not any(
            ip_address(remote.ip) in ip_network(part) for part in block.get("except", ())
        )
    if isinstance(remote, Address):
        return False  # selectors, even empty ones, match only pods
    if "namespaceSelector" in peer:
        is_namespace_selected = selects(
            peer["namespaceSelector"], {"kubernetes.io/metadata.name": remote.namespace}
        )
    else:
        is_namespace_selected = remote.namespace == namespace
    return is_namespace_selected and selects(peer.get("podSelector", {}), remote.labels)


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Return whether a label selector matches."""
    equal = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return equal and all(_matches_expression(entry, labels) for entry in selector.get("matchExpressions", ()))


def _matches_expression(entry: Object, labels: dict[str, str]) -> bool:
    value = labels.get(entry["key"])
    match entry["operator"]:
        case "In":
            return value in entry["values"]
        case "NotIn":
            return value not in entry["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case operator:
            raise ValueError(operator)
