"""The sovereignty guard: requests go to the user's own network, or to hosts in ``allow_external``."""

import socket
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, TypeAlias

from yarl import URL

from qaeval.errors import EndpointError

Resolver: TypeAlias = Callable[[str], Iterable[str]]
"""From a host's name to its addresses."""

_INTERNAL: Final = tuple(
    ip_network(block)
    for block in (
        "127.0.0.0/8",  # loopback
        "::1/128",
        "10.0.0.0/8",  # private (RFC 1918)
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # carrier-grade NAT: overlay networks, clusters (RFC 6598)
        "fc00::/7",  # unique local (RFC 4193)
    )
)
_LINK_LOCAL: Final = (ip_network("169.254.0.0/16"), ip_network("fe80::/10"))
_METADATA: Final = frozenset(
    ip_address(address)
    for address in (
        "169.254.169.254",  # most clouds
        "169.254.170.2",  # credentials of tasks on AWS
        "fd00:ec2::254",  # AWS over IPv6
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle
    )
)
"""Addresses where a cloud serves credentials to the machine itself."""


@dataclass(frozen=True, slots=True)
class EndpointLocation:
    """Where an endpoint is.

    Attributes:
        host: as the client connects to it, lower case.
        addresses: what it resolved to, sorted.
        external: whether one of them is outside the user's network.
    """

    host: str
    addresses: tuple[str, ...]
    external: bool


def check_host(
    url: str, *, allow_external: Collection[str], resolver: Resolver | None = None
) -> EndpointLocation:
    """Check that a URL leads to the user's own network, or to a host in ``allow_external``.

    The URL is read by the parser that the client uses, so that guard and client see the same host.

    Args:
        url: base URL of a server.
        allow_external: hosts outside the network that may be sent data, without scheme or port.
        resolver: looks names up; default: the system's.

    Raises:
        EndpointError: not an HTTP URL, credentials in it, a name that does not resolve, an address outside, or one
            where no model can be: link-local, or a cloud's metadata service.
    """
    host = _host(url)
    addresses = tuple(sorted(set((resolver or resolve)(host))))
    if not addresses:
        raise EndpointError(f"{host!r}: expected a name with an address, it has none; check the URL")
    for address in addresses:
        _require_usable(host, address)
    outside = [address for address in addresses if not is_internal(address)]
    if outside and host.rstrip(".") not in {_host_of_entry(entry) for entry in allow_external}:
        raise EndpointError(_refusal(host, outside[0], mixed=len(outside) < len(addresses)))
    return EndpointLocation(host, addresses, external=bool(outside))


def is_internal(address: str) -> bool:
    """Return whether an address is loopback, private, CGNAT or IPv6 unique local."""
    parsed = _parsed(address)
    return any(parsed.version == block.version and parsed in block for block in _INTERNAL)


def _parsed(address: str) -> IPv4Address | IPv6Address:
    parsed = ip_address(address)
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed


def _require_usable(host: str, address: str) -> None:
    """Refuse addresses that serve no model: a request there could hand a document to, or read a key from, the cloud."""
    parsed = _parsed(address)
    if parsed in _METADATA:
        raise EndpointError(f"{host!r} is {address}, a cloud's metadata service; no model is served there")
    if any(parsed.version == block.version and parsed in block for block in _LINK_LOCAL):
        raise EndpointError(
            f"{host!r} is {address}, a link-local address; give the server's address in your network"
        )


def resolve(host: str) -> list[str]:
    """Look a name up as the system does.

    Raises:
        EndpointError: the name is unknown.
    """
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise EndpointError(
            f"{host!r}: expected a host that resolves to an address, got: {error}; check the URL"
        ) from error
    return [str(entry[4][0]) for entry in entries]


def _host(url: str) -> str:
    try:
        parsed = URL(url)
    except ValueError:
        raise EndpointError(f"expected a URL such as http://127.0.0.1:8000/v1, got {_excerpt(url)}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.raw_host:
        raise EndpointError(f"expected a URL such as http://127.0.0.1:8000/v1, got {_excerpt(url)}")
    if parsed.user is not None or parsed.password is not None:
        origin = f"{parsed.scheme}://***@{parsed.host_port_subcomponent}"
        raise EndpointError(
            f"{origin}: a URL cannot have a user or password; name an environment variable in `api_key_env` "
            f"instead"
        )
    if parsed.query_string or parsed.fragment:
        raise EndpointError(
            f"{parsed.origin()}{parsed.path}: expected a base URL that ends with its path, got a query or "
            f"fragment"
        )
    return parsed.raw_host.lower()


def _host_of_entry(entry: str) -> str:
    """Return the host of an entry of ``allow_external``, which may have a scheme or a port."""
    try:
        host = URL(entry if "://" in entry else f"http://{entry}").raw_host
    except ValueError:  # a bare IPv6 address
        host = None
    return (host or entry).lower().rstrip(".")


def _excerpt(url: str) -> str:
    """Quote a URL without the parts that may hold a password or a key."""
    scheme, _, rest = url.partition("://")
    hidden = f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in url else url
    return repr(hidden.partition("?")[0][:100])


def _refusal(host: str, address: str, *, mixed: bool) -> str:
    parsed: IPv4Address | IPv6Address = ip_address(address)
    if parsed.is_unspecified:
        return f"{host!r} is an address for listening only; use 127.0.0.1 instead"
    also = " (and to addresses inside it)" if mixed else ""
    return (
        f"{host!r} resolves to {address}, outside your own network{also}: prompts and documents would leave "
        f"it. To allow that, add to qaeval.yaml: allow_external: [{host}]"
    )
