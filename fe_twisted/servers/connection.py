"""What every line-based server shares: who is connected, from where, and how many at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address

from fe_twisted.base.errors import TooManyConnections


@dataclass(slots=True)
class ConnectionLimit:
    """Counts live connections, in all and per client address.

    :param total: most connections at once.
    :param per_address: most connections at once from one IPv4 address or one IPv6 /64 network.
    """

    total: int
    per_address: int
    _live: Counter[str] = field(default_factory=Counter)

    def acquire(self, address: str) -> None:
        """Count one more.

        :raises TooManyConnections: and counts nothing.
        """
        key = network_of(address)
        if self._live.total() >= self.total or self._live[key] >= self.per_address:
            raise TooManyConnections(reason=f"{self._live[key]} live from {key}, {self._live.total()} in all")
        self._live[key] += 1

    def release(self, address: str) -> None:
        """Count one less; every :meth:`acquire` that returned is followed by exactly one."""
        key = network_of(address)
        self._live[key] -= 1
        if not self._live[key]:
            del self._live[key]


def network_of(address: str) -> str:
    """The unit that limits count by: an IPv4 address, or the /64 that an IPv6 customer usually has as a whole."""
    ip = ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    if mapped:
        return str(mapped)
    if ip.version == 4:
        return str(ip)
    return str(ip_address(int(ip) >> 64 << 64)) + "/64"


def is_loopback(address: str) -> bool:
    """True for 127.0.0.0/8 and ::1, where a password in the clear reaches nobody else."""
    ip = ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)
