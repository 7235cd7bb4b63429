"""Who may reach whom: NetworkPolicies evaluated as the API defines them.

A connection is allowed when the source's egress rules and the target's ingress rules allow it. A pod that no policy of a direction
selects is open in that direction; policies only ever add permissions.
"""

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod, by what a policy can see of it."""

    namespace: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Address:
    """Something that is no pod of this cluster."""

    ip: str


def allowed(
    policies: list[Object], source: Pod | Address, target: Pod | Address, port: int, protocol: str = "TCP"
) -> bool:
    """Return whether a connection can be opened."""
    out = _passes(policies, "Egress", source, target, port, protocol)
    return out and _passes(policies, "Ingress", target, source, port, protocol)


def _passes(
    policies: list[Object], direction: str, own: Pod | Address, other: Pod | Address, port: int, protocol: str
) -> bool:
    if isinstance(own, Address):
        return True
    selecting = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == own.namespace
        and direction in _types(policy["spec"])
        and selects(policy["spec"]["podSelector"], own.labels)
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
        _ports(rule, port, protocol)
        and (not rule.get(peers) or any(_is(peer, other, namespace) for peer in rule[peers]))
        for namespace, rule in rules
    )


def _types(spec: Object) -> list[str]:
    given = spec.get("policyTypes")
    return list(given) if given else ["Ingress", *(["Egress"] if "egress" in spec else [])]


def _ports(rule: Object, port: int, protocol: str) -> bool:
    return not rule.get("ports") or any(
        entry.get("protocol", "TCP") == protocol
        and ("port" not in entry or entry["port"] <= port <= entry.get("endPort", entry["port"]))
        for entry in rule["ports"]
    )


def _is(peer: Object, other: Pod | Address, namespace: str) -> bool:
    if block := peer.get("ipBlock"):
        if isinstance(other, Pod):
            return False  # a block is for what is no pod
        inside = ip_address(other.ip) in ip_network(block["cidr"])
        return inside and not any(
            ip_address(other.ip) in ip_network(part) for part in block.get("except", ())
        )
    if isinstance(other, Address):
        return False  # a selector matches pods alone, also an empty one
    if "namespaceSelector" in peer:
        home = selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace})
    else:
        home = other.namespace == namespace
    return home and selects(peer.get("podSelector", {}), other.labels)


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Return whether a label selector matches."""
    equal = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return equal and all(_expression(entry, labels) for entry in selector.get("matchExpressions", ()))


def _expression(entry: Object, labels: dict[str, str]) -> bool:
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
        case other:
            raise ValueError(other)
