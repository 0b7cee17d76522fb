"""The primary's end on Autobahn, over a unix socket or TLS."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny
from twisted.internet.defer import Deferred, succeed

from fe_twisted.base import log
from fe_twisted.base.clock import Clock
from fe_twisted.clients.link.tls import binding_of
from fe_twisted.clients.link.websocket import OPTIONS, SUBPROTOCOL, Lean
from fe_twisted.protocols.cluster.frames import MAX_GREETING
from fe_twisted.protocols.cluster.handshake import Identity
from fe_twisted.servers.cluster.host import Host
from fe_twisted.servers.cluster.session import Session

#: Seconds in which a secondary must have proved itself.
PROVE = 10.0

#: Seconds that the other side may take to hang up too, which TLS waits for.
GOODBYE = 2.0


class LinkServer(Lean, WebSocketServerProtocol):  # type: ignore[misc]  # Autobahn's own two bases do not agree
    """One connection.  What Autobahn calls has Autobahn's names."""

    session: Session | None = None
    refused = False
    _spoke = False
    #: It was refused during the WebSocket handshake, and that was logged.
    denied = False
    _deadline: Any = None
    _goodbye: Any = None

    def connectionMade(self) -> None:
        """Somebody is there: from an address that may, or as a user who may?"""
        refusal = self.factory.may_connect(self.transport)
        if refusal:
            log.warning("cluster.refused", peer=_address(self.transport), reason=refusal, text="", by="us")
            self.refused = True
            self.transport.abortConnection()
            return
        self.factory.live.add(self)
        # Until the secondary has proved itself it is heard in small messages only.
        self.maxFramePayloadSize = self.maxMessagePayloadSize = MAX_GREETING
        self.requireMaskedClientFrames = peer_uid(self.transport) is None
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Octets; those of somebody refused are not read."""
        self._spoke = True
        if not self.refused:
            super().dataReceived(data)

    def connectionLost(self, reason: Any = None) -> None:
        """Gone."""
        self.factory.gone(self)
        if self._goodbye is not None and self._goodbye.active():
            self._goodbye.cancel()
        if not self.refused:
            super().connectionLost(reason)

    def dropConnection(self, abort: bool = False) -> None:
        """Hang up; if the other side does not, the connection is cut."""
        super().dropConnection(abort)
        if not abort and self._goodbye is None and self in self.factory.live:
            self._goodbye = self.factory.clock.callLater(GOODBYE, self.transport.abortConnection)

    def onConnect(self, request: Any) -> str:
        """The WebSocket handshake.

        :raises ConnectionDeny: it is for something else.
        """
        if SUBPROTOCOL not in request.protocols:
            self.denied = True
            log.warning("cluster.refused", peer=_address(self.transport), reason="wrong-subprotocol", text="", by="us")
            raise ConnectionDeny(ConnectionDeny.BAD_REQUEST, f"this is for {SUBPROTOCOL}")
        return SUBPROTOCOL

    def onOpen(self) -> None:
        """The WebSocket is there; now the peers prove themselves."""
        self.widen()
        self.registerProducer(self, True)
        self._deadline = self.factory.clock.callLater(PROVE, self._slow)
        self.session = self.factory.begin(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """A frame."""
        if self.session is not None:
            self.session.received(payload)
            if self._deadline is not None and self.session.ready:
                self._stop_deadline()
                self.maxFramePayloadSize = self.maxMessagePayloadSize = OPTIONS["maxMessagePayloadSize"]

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """The connection is gone, or never came to be."""
        self._stop_deadline()
        if self.wasMaxMessagePayloadSizeExceeded or self.wasMaxFramePayloadSizeExceeded:
            log.warning("cluster.refused", peer=_address(self.transport), reason="too-large", text=str(reason or ""), by="us")
        if self.session is not None:
            self.session.lost()
        elif not self.denied and (self._spoke or self.wasOpenHandshakeTimeout):
            # Who comes and goes without a word has only looked whether somebody is here (`forwardemail reload` does).
            log.warning("cluster.refused", peer=_address(self.transport), reason="no-websocket", text=str(reason or ""), by="us")

    def _slow(self) -> None:
        self._deadline = None
        log.warning("cluster.refused", peer=_address(self.transport), reason="too-slow", text=f"no proof within {PROVE} seconds", by="us")
        self.dropConnection(abort=True)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            deadline, self._deadline = self._deadline, None
            deadline.cancel()

    # -- Channel ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Hang up, after what was written."""
        self.dropConnection()

    # -- IPushProducer: the transport's buffer is full, or empty again --------------------------------

    def pauseProducing(self) -> None:
        """Full."""
        if self.session is not None:
            self.session.paused()

    def resumeProducing(self) -> None:
        """Empty again."""
        if self.session is not None:
            self.session.resumed()

    def stopProducing(self) -> None:
        """Gone; :meth:`onClose` follows."""


class LinkServerFactory(WebSocketServerFactory):
    """Accepts secondaries.

    For TLS, wrap it in :class:`twisted.protocols.tls.TLSMemoryBIOFactory` with :class:`fe_twisted.servers.tls.ServerTLS` (minimum 1.3).

    :param clock: the reactor.
    :param secrets: link secrets: several while one is being replaced.
    :param networks: from where secondaries may come over TCP.
    :param most: connections at once.
    """

    noisy = False

    def __init__(
        self,
        host: Host,
        clock: Clock,
        identity: Identity,
        secrets: Sequence[bytes],
        *,
        networks: Sequence[IPv4Network | IPv6Network] = (),
        most: int = 256,
    ) -> None:
        super().__init__(protocols=[SUBPROTOCOL], server=None, reactor=clock)
        self.protocol = LinkServer
        self.setProtocolOptions(**OPTIONS, webStatus=False)
        self.clock = clock
        self._host = host
        self._identity = identity
        self._secrets = tuple(secrets)
        self._networks = tuple(networks)
        self._most = most
        #: Connections, those that have not proved themselves included.
        self.live: set[LinkServer] = set()
        self._ending: list[Deferred[None]] = []

    def begin(self, channel: LinkServer) -> Session:
        """For the protocol: a session."""
        binding = binding_of(channel.transport)
        return Session(channel, self._host, self._identity, self._secrets, binding, address=_address(channel.transport))

    def may_connect(self, transport: Any) -> str:
        """Why somebody may not connect, or an empty text."""
        if len(self.live) >= self._most:
            return "too-many-connections"
        uid = peer_uid(transport)
        if uid is not None:
            return "" if uid in (0, os.getuid()) else "wrong-user"
        host = getattr(transport.getPeer(), "host", "")
        try:
            address: Any = ip_address(str(host).partition("%")[0])
        except ValueError:
            return "wrong-address"
        address = getattr(address, "ipv4_mapped", None) or address
        return "" if any(address in network for network in self._networks) else "wrong-address"

    def gone(self, channel: LinkServer) -> None:
        """For the protocol: a connection has ended."""
        self.live.discard(channel)
        if not self.live:
            ending, self._ending = self._ending, []
            for each in ending:
                each.callback(None)

    def shutdown(self) -> Deferred[None]:
        """Hang up on all; fires when they are gone."""
        if not self.live:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._ending.append(waiting)
        for channel in list(self.live):
            channel.dropConnection()
        return waiting


def peer_uid(transport: Any) -> int | None:
    """The user at the other end of a unix socket (SO_PEERCRED, as the kernel knows it), or None for another kind of socket."""
    handle = getattr(transport, "socket", None)
    if handle is None or handle.family != socket.AF_UNIX:
        return None
    credentials = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)


def _address(transport: Any) -> str:
    peer = transport.getPeer()
    return str(getattr(peer, "host", "") or "unix")
