"""Clients connect to the addresses that the guard checked, and to no others."""

import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, TypeAlias

from aiohttp.abc import AbstractResolver, ResolveResult


class PinnedResolver(AbstractResolver):
    """Answers every lookup with the addresses that were checked.

    Without it a second lookup could lead to an address that the guard never saw (DNS rebinding).

    Args:
        addresses: IPv4 or IPv6, at least one.

    Raises:
        ValueError: There is no address, or one is none.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        if not addresses:
            raise ValueError("expected the addresses that the guard checked, got none")
        self._addresses = tuple(ip_address(address) for address in addresses)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of the requested family, in aiohttp's form.

        Raises:
            OSError: there is none of this family.
        """
        versions = {4: socket.AF_INET, 6: socket.AF_INET6}
        results = [
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
        if not results:
            raise OSError(f"{host} has no address of family {family!r}")
        return results

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""


_AddressInfo: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
"""One entry of what `socket.getaddrinfo` returns."""


def sockets_to(addresses: Collection[str], port: int) -> Callable[[_AddressInfo], socket.socket]:
    """Return a socket factory for clients that follow redirects: to these addresses and this port alone.

    Args:
        addresses: IPv4 or IPv6.
        port: Port of all of them.
    """
    allowed = {ip_address(address) for address in addresses}

    def create(info: _AddressInfo) -> socket.socket:
        family, kind, protocol, _, (host, target_port, *_) = info
        if ip_address(host) not in allowed or target_port != port:
            raise ConnectionRefusedError(f"redirected to {host} port {target_port}, which is not allowed")
        return socket.socket(family, kind, protocol)

    return create


@contextmanager
def pinned_lookups(addresses: Collection[str]) -> Iterator[None]:
    """Answer every lookup of this process with these addresses, for a client that has no resolver of its own.

    No other code of the process may look names up meanwhile. A redirect to another address is refused too, because
    clients look literal addresses up as well.

    Args:
        addresses: IPv4 or IPv6.
    """
    allowed = {ip_address(address) for address in addresses}
    look_up = socket.getaddrinfo

    def answer(host: str | bytes | None, *arguments: Any, **options: Any) -> list[Any]:  # noqa: ANN401 - as in socket
        text = host.decode() if isinstance(host, bytes) else str(host)
        try:
            is_allowed = ip_address(text) in allowed
        except ValueError:
            results = (look_up(str(address), *arguments, **options) for address in sorted(allowed, key=str))
            return [entry for entries in results for entry in entries]
        if not is_allowed:
            raise ConnectionRefusedError(f"redirected to {text}, which is not allowed")
        return look_up(host, *arguments, **options)

    socket.getaddrinfo = answer
    try:
        yield
    finally:
        socket.getaddrinfo = look_up
