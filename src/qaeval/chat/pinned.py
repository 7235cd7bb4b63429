"""Names that were looked up once stay at those addresses: what was checked is what is connected to."""

import socket
from collections.abc import Callable, Collection, Sequence
from ipaddress import ip_address
from typing import Any, TypeAlias

from aiohttp.abc import AbstractResolver, ResolveResult


class Pinned(AbstractResolver):
    """Answers every lookup with the addresses that were checked.

    Args:
        addresses: IPv4 or IPv6, at least one.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(ip_address(address) for address in addresses)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of the family that is asked for, as aiohttp wants them."""
        versions = {4: socket.AF_INET, 6: socket.AF_INET6}
        found = [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=versions[address.version],
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
            if family in {socket.AF_UNSPEC, versions[address.version]}
        ]
        if not found:
            raise OSError(f"{host} has no address of family {family!r}")
        return found

    async def close(self) -> None:
        """Hold nothing."""


_Info: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
"""What `socket.getaddrinfo` says of one address."""


def sockets_to(addresses: Collection[str], port: int) -> Callable[[_Info], socket.socket]:
    """Return what makes the sockets of a client that follows redirects: to no other address and port.

    Args:
        addresses: IPv4 or IPv6.
        port: Of all of them.
    """
    known = {ip_address(address) for address in addresses}

    def make(info: _Info) -> socket.socket:
        family, kind, protocol, _, (host, its_port, *_) = info
        if ip_address(host) not in known or its_port != port:
            raise ConnectionRefusedError(f"redirected to {host} port {its_port}, which was not named")
        return socket.socket(family, kind, protocol)

    return make
