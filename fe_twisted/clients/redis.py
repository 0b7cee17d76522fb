"""One connection to a Redis server, for counts that several boxes share; nobody ever waits long for it.

The commands and replies are txredisapi's.  Its connection handlers are not used: they let a command wait as long as there is no
connection, and stop for good when the server refuses the password once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from twisted.application.internet import ClientService, backoffPolicy
from twisted.application.service import Service
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory

from fe_twisted.base import log
from fe_twisted.base.errors import Later

#: Seconds that an answer may take.
TIMEOUT = 1.0

#: Seconds between attempts to connect, at first and at most.
FIRST, MOST = 0.2, 10.0


class RedisAway(Later):
    """There is no connection, or no answer in time, or the server refused; nothing is known to have been done."""


class Redis(Service):
    """A connection that is made again whenever it is lost.

    :param url: ``redis://[[user:]password@]host[:port][/number]``, or ``rediss://`` for TLS.
    :param reactor: connects, and tells the time.
    """

    def __init__(self, url: str, reactor: Any) -> None:
        parts = urlsplit(url)
        self._options = {
            "username": unquote(parts.username) if parts.username else None,
            "password": unquote(parts.password) if parts.password else None,
            "dbid": int(parts.path.strip("/") or 0),
            "replyTimeout": TIMEOUT,
        }
        #: Without user and password.
        self.name = f"{parts.hostname}:{parts.port or 6379}"
        endpoint: Any = HostnameEndpoint(reactor, parts.hostname or "", parts.port or 6379)
        if parts.scheme == "rediss":
            endpoint = wrapClientTLS(ssl.optionsForClientTLS(parts.hostname or ""), endpoint)
        self._clock = reactor
        factory: Any = _Factory(self)
        self._service: Any = ClientService(endpoint, factory, retryPolicy=backoffPolicy(FIRST, MOST), clock=reactor)
        self._ready: Any = None

    def startService(self) -> None:
        """Connect, and stay so."""
        super().startService()
        self._service.startService()

    def stopService(self) -> Deferred[None]:
        """End the connection."""
        super().stopService()
        stopped: Deferred[None] = self._service.stopService()
        return stopped

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[str | int]) -> list[Any]:
        """Run a Lua script on the server, all of it at once as seen by others.

        :returns: what the script returned: a list, with integers and texts in it.
        :raises RedisAway: at once without a connection, otherwise after a second at most.
        """
        protocol = self._ready
        if protocol is None:
            raise RedisAway(reason=f"no connection to Redis at {self.name}")
        try:
            result = await protocol.eval(script, list(keys), list(arguments))
        except Exception as error:  # txredisapi's errors have no common family with those of Twisted that it lets through
            raise RedisAway(reason=f"Redis at {self.name}: {type(error).__name__}: {error}") from error
        return list(result)

    # -- from the connection ------------------------------------------------------------------------

    def protocol(self) -> Any:
        """A protocol for a new connection."""
        # Not imported before the reactor is chosen, because it names the reactor.
        from txredisapi import RedisProtocol

        made = RedisProtocol(**self._options)
        made.callLater = self._clock.callLater
        made.whenConnected().addCallback(self._connected)
        made.whenDisconnected().addCallback(self._lost)
        return made

    def refused(self, text: str) -> None:
        """The server does not want us; it is asked again later, as its settings may change."""
        log.warning("redis.refused", redis=self.name, reason=text)

    def _connected(self, protocol: Any) -> None:
        self._ready = protocol
        log.event("redis.connected", redis=self.name)

    def _lost(self, protocol: Any) -> None:
        if self._ready is protocol:
            self._ready = None
            if self.running:
                log.warning("redis.lost", redis=self.name)


class _Factory(Factory):
    """What txredisapi's protocol expects of its factory."""

    noisy = False
    isLazy = False

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def buildProtocol(self, addr: Any) -> Any:
        """For Twisted."""
        made = self._redis.protocol()
        made.factory = self
        return made

    def stopTrying(self) -> None:
        """It may not; the service tries again."""

    def connectionError(self, why: str) -> None:
        """The password or the number of the database was refused."""
        self._redis.refused(str(why))
