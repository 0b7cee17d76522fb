"""One question from the command line, and then the connection ends: to the server of this box on its unix socket, or to another primary."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from fe_twisted import __version__
from fe_twisted.app.secrets import own_link_secret
from fe_twisted.base.errors import MailError, NotFound, PrimaryAway, Refused
from fe_twisted.base.settings import Settings
from fe_twisted.clients.link.conversation import Conversation, LinkLost
from fe_twisted.clients.link.tls import tls_endpoint
from fe_twisted.clients.link.unix import unix_endpoint
from fe_twisted.clients.link.websocket import connector
from fe_twisted.clients.redis import Redis, RedisAway
from fe_twisted.protocols.cluster.handshake import Identity, Reason, Refusal
from fe_twisted.protocols.cluster.streams import Buffer
from fe_twisted.protocols.cluster.values import BadValue
from fe_twisted.services.cluster.status import PING, place_of
from fe_twisted.storage.vault.secret import load_server_key

#: Seconds until the server must have said who it is.
GREETING = 10.0

#: Seconds until Redis must have answered.
REDIS = 3.0

_IDENTITY = Identity(f"command-line/{__version__}")


class _Deaf:
    """Nothing that is told unasked is for the command line."""

    def changed(self, mailbox: str, folder: int, modseq: int, keywords: tuple[str, ...] | None) -> None:
        """See :class:`fe_twisted.clients.link.conversation.Listener`."""

    def evicted(self, mailbox: str) -> None:
        """See :class:`fe_twisted.clients.link.conversation.Listener`."""

    def moved(self, mailbox: str) -> None:
        """See :class:`fe_twisted.clients.link.conversation.Listener`."""


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """Another question, asked again and again while an answer is awaited.

    :param every: seconds.
    :param heard: is given each answer; what it raises ends the asking, as everything else does that goes wrong with this.
    """

    method: str
    body: Sequence[Buffer]
    every: float
    heard: Callable[[bytes], None]


def ask(settings: Settings, method: str, body: Sequence[Buffer], *, timeout: float, meanwhile: Meanwhile | None = None) -> bytes:
    """Ask, and wait for the answer.

    :param timeout: seconds that the answer may take.
    :param meanwhile: what else to ask until it is there.
    :raises NotFound: no server runs on this data folder.
    :raises BadSettings: the server key cannot be read.
    :raises MailError: what the server answered, or that it did not.
    """
    secret = own_link_secret(load_server_key(settings.server_key_file, credentials=os.environ.get("CREDENTIALS_DIRECTORY")))

    async def converse(reactor: Any) -> bytes:
        attempt = connector(unix_endpoint(reactor, settings.link_socket), reactor, _IDENTITY, secret)(_Deaf())
        attempt.addTimeout(GREETING, reactor)
        conversation: Conversation = await attempt
        watching = Deferred.fromCoroutine(_watch(conversation, meanwhile, reactor)) if meanwhile is not None else None
        try:
            return await conversation.ask(method, "", body, timeout=timeout)
        finally:
            if watching is not None:
                watching.cancel()
            conversation.close()

    result = _run(converse)
    if isinstance(result, bytes):
        return result
    error = result.value if isinstance(result, Failure) else result
    raise _explained(settings, error) from (error if isinstance(error, Exception) else None)


def meet(settings: Settings, url: str, secrets: Sequence[bytes]) -> tuple[str, str]:
    """Connect to another primary as a link does, and hang up: what it calls itself, and its location if it says so.

    :param secrets: link secrets, the newest first.
    :raises PrimaryAway: it does not answer; the text says how far it came.
    :raises Refused: one of the two does not take the other for who it should be.
    :raises BadSettings: the certificates to trust cannot be used.
    """
    parts = urlsplit(url)
    result: Any = None
    for secret in secrets:

        async def converse(reactor: Any, secret: bytes = secret) -> tuple[str, str]:
            endpoint = tls_endpoint(reactor, parts.hostname or "", parts.port or 0, authority=settings.link_authority_file)
            attempt = connector(endpoint, reactor, _IDENTITY, secret, url=url)(_Deaf())
            attempt.addTimeout(GREETING, reactor)
            conversation: Conversation = await attempt
            location = ""
            with contextlib.suppress(LinkLost, MailError, BadValue):  # one of another version; the link itself is made
                location = place_of(await conversation.ask(PING, "", [], timeout=GREETING))
            conversation.close()
            return conversation.agreed.peer.name, location

        result = _run(converse)
        if isinstance(result, tuple):
            return result
        if not isinstance(result.value, Refusal) or result.value.reason != Reason.WRONG_SECRET:
            break
    error = result.value
    if isinstance(error, MailError):
        raise error
    if isinstance(error, Refusal):
        remedy = "; with forwardemail link join this box takes over the token of that one" if error.reason == Reason.WRONG_SECRET else ""
        raise Refused(f"{error.reason}: {error}{remedy}") from error
    raise PrimaryAway("it does not answer", reason=result.getErrorMessage()) from error


def greet(url: str) -> bool:
    """Whether Redis answers, and does what it is asked.

    :param url: the setting ``redis_url``.
    """

    async def converse(reactor: Any) -> bytes:
        redis = Redis(url, reactor)
        redis.startService()
        try:
            while True:
                try:
                    await redis.run("return {1}", [], [])
                    return b""
                except RedisAway:
                    await deferLater(reactor, 0.02)
        finally:
            await redis.stopService()

    return isinstance(_run(lambda reactor: _in_time(converse(reactor), reactor)), bytes)


async def _in_time(coroutine: Coroutine[Any, Any, bytes], reactor: Any) -> bytes:
    return await Deferred.fromCoroutine(coroutine).addTimeout(REDIS, reactor)


def _run(converse: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    """Whatever comes of a conversation, errors included."""
    # Its own reactor, which ends with the question: the command line has no other, and one cannot be started twice.
    make: Any = EPollReactor
    reactor: Any = make()
    outcome: list[Any] = []

    def done(result: Any) -> None:
        outcome.append(result)
        reactor.callLater(0, reactor.stop)

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(converse(reactor)).addBoth(done))
    reactor.run(installSignalHandlers=False)
    if not outcome:
        raise PrimaryAway(reason="interrupted")
    return outcome[0]


async def _watch(conversation: Conversation, meanwhile: Meanwhile, reactor: Any) -> None:
    """Ask until it is cancelled.  A server that does not know the question is asked once."""
    try:
        while True:
            await deferLater(reactor, meanwhile.every)
            meanwhile.heard(await conversation.ask(meanwhile.method, "", meanwhile.body, timeout=GREETING))
    except (CancelledError, LinkLost, MailError, BadValue):
        return


def _explained(settings: Settings, error: object) -> MailError:
    """The error as somebody at a terminal should read it."""
    if isinstance(error, MailError):
        # That it was the server who said so goes without saying here.
        return type(error)(error.public) if error.reason == f"the primary answered {type(error).__name__}" else error
    if isinstance(error, Refusal):
        return PrimaryAway("the server refused the command line", reason=f"{error.reason}: {error}")
    if isinstance(error, OSError) or type(error).__module__ == "twisted.internet.error":
        return NotFound(f"the server is not running: {settings.link_socket} does not answer", reason=str(error))
    return PrimaryAway("the server does not answer", reason=f"{type(error).__name__}: {error}")
