"""The links between processes: those that this one makes to primaries, and the unix socket on which it is reached."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from fe_twisted.base import log
from fe_twisted.base.clock import Clock
from fe_twisted.base.settings import Settings
from fe_twisted.clients.link.link import Link
from fe_twisted.clients.link.tls import tls_endpoint
from fe_twisted.clients.link.unix import address, unix_endpoint
from fe_twisted.clients.link.websocket import connector
from fe_twisted.protocols.cluster.handshake import Identity
from fe_twisted.servers.cluster.websocket import LinkServerFactory


class Links(Service):
    """To all primaries that this process needs.

    :param links: by location; an empty location is everywhere.
    """

    def __init__(self, links: Mapping[str, Link]) -> None:
        self._links = dict(links)

    def of(self, location: str) -> Link | None:
        """The link to the primary with the mailboxes of a location; None where none is known."""
        return self._links.get(location) or self._links.get("")

    def all(self) -> list[Link]:
        """Every link."""
        return list(self._links.values())

    def when_connected(self, greeter: Callable[[], None]) -> None:
        """Call ``greeter()`` whenever any of them has come up."""
        for link in self.all():
            link.when_connected(greeter)

    def settled(self, clock: Clock, seconds: float) -> Deferred[None]:
        """Fires when all are connected, but after so many seconds at the latest.

        Who answers clients before that would keep mail back and let them wait for no reason.
        """
        settled: Deferred[None] = Deferred()
        timer: Any = None

        def look() -> None:
            if not settled.called and all(link.connected for link in self.all()):
                timer.cancel()
                settled.callback(None)

        timer = clock.callLater(seconds, settled.callback, None)
        self.when_connected(look)
        look()
        return settled

    def startService(self) -> None:
        """Connect."""
        super().startService()
        for link in self.all():
            link.start()

    def stopService(self) -> None:
        """End the connections."""
        super().stopService()
        for link in self.all():
            link.stop()


def make_links(settings: Settings, reactor: Any, identity: Identity, secrets: Sequence[bytes], *, worker: bool) -> Links:
    """The links of one process.

    :param secrets: see :func:`fe_twisted.app.secrets.link_secrets`.
    :param worker: of a primary: its own mailboxes too are behind a link.
    :raises BadSettings: certificates to trust that cannot be used.
    :raises OSError: the data folder is not there.
    """
    links = {}
    if worker and settings.role == "primary":
        endpoint = unix_endpoint(reactor, settings.link_socket)
        links[settings.location] = Link(connector(endpoint, reactor, identity, secrets[-1]), reactor, name=settings.location)
    for location, url in settings.elsewhere().items():
        parts = urlsplit(url)
        endpoint = tls_endpoint(reactor, parts.hostname or "", parts.port or 0, authority=settings.link_authority_file)
        connect = connector(endpoint, reactor, identity, secrets[0], older=secrets[1:-1], url=url)
        links[location] = Link(connect, reactor, name=location or parts.netloc)
    return Links(links)


class LinkSocket(Service):
    """The unix socket: workers and the command line come in here.

    :param settings: whose ``link_socket`` it is; nobody else's, as the caller has claimed the data folder.
    """

    def __init__(self, settings: Settings, reactor: Any, factory: LinkServerFactory) -> None:
        self._path = settings.link_socket
        self._reactor = reactor
        self._factory = factory
        self._port: Any = None

    def startService(self) -> None:
        """Listen.

        :raises OSError, twisted.internet.error.CannotListenError: that cannot be.
        """
        super().startService()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # of a server that was killed
        self._port = self._reactor.listenUNIX(address(self._path), self._factory, mode=0o600)
        log.debug("link.listening")

    def stopService(self) -> Deferred[None]:
        """End the connections, and take the socket away."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await port.stopListening()
        await self._factory.shutdown()
