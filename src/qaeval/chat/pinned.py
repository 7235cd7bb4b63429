"""Names that were looked up once stay at those addresses: what was checked is what is connected to."""

import socket
from collections.abc import Sequence
from ipaddress import ip_address

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
