"""What every line-based server shares: who is connected, from where, how many at once, and how short answers get out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.internet.tcp import Connection

from fe_twisted.base.errors import TooManyConnections
from fe_twisted.base.networks import is_loopback, network_of

__all__ = ["QUIET", "ConnectionLimit", "Outlet", "is_loopback", "network_of"]

#: Seconds of silence after which a client is not in the middle of something, when the process that serves it is being replaced.
QUIET = 2.0


class Teller(Protocol):
    """Who tells other processes of connections: :class:`fe_twisted.services.cluster.census.Teller`."""

    def changed(self, network: str) -> None:
        """One from there has come, or gone."""


@dataclass(slots=True)
class ConnectionLimit:
    """Counts live connections, in all and per client address.

    :param total: most connections at once.
    :param per_address: most connections at once from one IPv4 address or one IPv6 /64 network.
    :param teller: tells other processes, where there are any.
    """

    total: int
    per_address: int
    teller: Teller | None = None
    _live: Counter[str] = field(default_factory=Counter)
    _number: int = 0
    #: Those that can be sent away, the newest last; kept only for other processes.
    _guests: dict[str, dict[Callable[[], None], None]] = field(default_factory=dict)

    def acquire(self, address: str, leave: Callable[[], None]) -> None:
        """Count one more.

        :param leave: ends the connection, when other processes turn out to have so many from there that it is one too many.
        :raises TooManyConnections: and counts nothing.
        """
        key = network_of(address)
        if self._number >= self.total or self._live[key] >= self.per_address:
            raise TooManyConnections(reason=f"{self._live[key]} live from {key}, {self._number} in all")
        self._live[key] += 1
        self._number += 1
        if self.teller is not None:
            self._guests.setdefault(key, {})[leave] = None
            self.teller.changed(key)

    def release(self, address: str, leave: Callable[[], None]) -> None:
        """Count one less; every :meth:`acquire` that returned is followed by exactly one."""
        key = network_of(address)
        self._live[key] -= 1
        self._number -= 1
        if not self._live[key]:
            del self._live[key]
        if self.teller is not None and self._forget(key, leave):
            self.teller.changed(key)

    def networks(self) -> list[str]:
        """Where connections are from; only with a teller."""
        return list(self._guests)

    def live(self, network: str) -> int:
        """Connections from a network, without those that were sent away and have not gone yet; only with a teller."""
        return len(self._guests.get(network, ()))

    def expel(self, network: str, number: int) -> None:
        """Send the newest connections from a network away; only with a teller."""
        newest = list(reversed(self._guests.get(network, {})))[:number]
        for leave in newest:
            self._forget(network, leave)
            leave()

    def _forget(self, network: str, leave: Callable[[], None]) -> bool:
        """Whether it was still counted."""
        guests = self._guests.get(network, {})
        if leave not in guests:
            return False
        del guests[leave]
        if not guests:
            del self._guests[network]
        return True


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
