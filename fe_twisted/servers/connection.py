"""What every line-based server shares: who is connected, from where, and how many at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fe_twisted.base.errors import TooManyConnections
from fe_twisted.base.networks import is_loopback, network_of

__all__ = ["ConnectionLimit", "is_loopback", "network_of"]


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
