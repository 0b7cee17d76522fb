"""What every line-based server shares: who is connected, from where, how many at once, and how short answers get out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.tcp import Connection

from fe_twisted.base.errors import TooManyConnections
from fe_twisted.base.networks import is_loopback, network_of

__all__ = ["ConnectionLimit", "Outlet", "is_loopback", "network_of"]


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


class Outlet:
    """Writes to a connection, at once where that is possible.

    Twisted keeps what is written until the next turn of the reactor, and asks epoll to be told when the socket takes it and then not to
    be told any more: for an answer of one short line that costs more than the sending.  So a plain TCP socket is offered the octets
    directly, as long as it has taken all of everything before; from the first time that it has not, and always with TLS, they go
    Twisted's way.  Whoever writes to the transport by other ways must not mix the two.
    """

    __slots__ = ("_behind", "_transport")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        #: Whether Twisted may still have octets to send that must go first.
        self._behind = False

    def write(self, data: bytes) -> None:
        """Send ``data`` after everything that was written before."""
        transport = self._transport
        # isinstance and not hasattr: the TLS wrapper lends out the methods of the socket under it.
        if self._behind or not isinstance(transport, Connection) or transport.TLS or not transport.connected or transport.disconnecting:
            transport.write(data)
            return
        sent = transport.writeSomeData(data)
        if sent == len(data):
            return
        self._behind = True
        # A connection that is lost: Twisted finds that out once more, and does what has to be done then.
        transport.write(data[sent:] if isinstance(sent, int) else data)  # type: ignore[no-untyped-call]

    def caught_up(self) -> None:
        """Twisted has sent all that it held: to be called from ``resumeProducing`` only, which it calls when its buffer is empty."""
        self._behind = False
