"""A primary and a secondary in one process: what one writes the other receives, at once, in whole messages and in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fe_twisted.base.addresses import Address
from fe_twisted.base.errors import UnknownRecipient
from fe_twisted.clients.link.conversation import Conversation, LinkLost, Listener
from fe_twisted.clients.link.link import Link
from fe_twisted.protocols.cluster.handshake import Identity
from fe_twisted.servers.cluster.session import Session
from fe_twisted.services.cluster.host import Host
from fe_twisted.storage.directory.api import Alias
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes

SECRET = b"s" * 32


class Cable:
    """Two ends that messages go between.  It can be cut, and a message can be lost with the cut."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Callable[[bytes], None], bytes]] = deque()
        self._moving = False
        self.cut = False
        self.held = False
        #: What went through, as ``(to the primary, message)``.
        self.log: list[tuple[bool, bytes]] = []
        #: Called with each message before it is delivered; True cuts the cable in its place.
        self.fault: Callable[[bool, bytes], bool] = lambda up, message: False
        self.session: Any = None
        self.conversation: Any = None

    def send(self, up: bool, message: bytes) -> None:
        if self.cut:
            return
        self.log.append((up, message))
        self._queue.append((lambda message: self.deliver(up, message), message))
        self.move()

    def deliver(self, up: bool, message: bytes) -> None:
        if self.fault(up, message):
            self.break_()
        elif up:
            self.session.received(message)
        else:
            self.conversation.received(message)

    def move(self) -> None:
        """Deliver what is under way, one after the other, however it comes to be written."""
        if self._moving or self.held:
            return
        self._moving = True
        try:
            while self._queue and not self.cut and not self.held:
                receive, message = self._queue.popleft()
                receive(message)
        finally:
            self._moving = False

    def break_(self) -> None:
        """Both ends notice."""
        if not self.cut:
            self.cut = True
            self.session.lost()
            self.conversation.lost()


class End:
    """What one side writes to."""

    def __init__(self, cable: Cable, up: bool) -> None:
        self._cable = cable
        self._up = up
        self.closed = False

    def write(self, message: bytes) -> None:
        self._cable.send(self._up, message)

    def close(self) -> None:
        self.closed = True
        self._cable.move()
        self._cable.break_()


class Network:
    """Makes connections to one host, unless it is down."""

    def __init__(self, host: Host, clock: Clock) -> None:
        self.host = host
        self.clock = clock
        self.down = False
        self.secret = SECRET
        self.identity = Identity("worker")
        self.primary = Identity("box")
        self.cables: list[Cable] = []
        self.fault: Callable[[bool, bytes], bool] = lambda up, message: False

    def connect(self, listener: Listener) -> Deferred[Conversation]:
        ready: Deferred[Conversation] = Deferred()
        if self.down:
            ready.errback(LinkLost("down"))
            return ready
        cable = Cable()
        cable.fault = lambda up, message: self.fault(up, message)
        cable.held = True
        cable.session = Session(End(cable, False), self.host, self.primary, [SECRET], b"", address="memory")
        cable.conversation = Conversation(End(cable, True), self.clock, listener, self.identity, self.secret, b"", peer="memory")
        self.cables.append(cable)
        cable.conversation.ready.addCallbacks(lambda _: ready.callback(cable.conversation), ready.errback)
        cable.held = False
        cable.move()
        return ready

    @property
    def cable(self) -> Cable:
        """The newest connection."""
        return self.cables[-1]

    def link(self, **options: Any) -> Link:
        """A link that is connected."""
        link = Link(self.connect, self.clock, scatter=lambda: 0.5, **options)
        link.start()
        return link


class NoMail:
    """A host that takes no mail."""

    async def deliver(self, *_: Any) -> None:
        raise AssertionError("no mail is delivered here")

    async def add_sealed(self, *_: Any) -> None:
        raise AssertionError("no mail is handed over here")

    async def recipient(self, address: Address) -> Alias:
        raise UnknownRecipient


def hosting(mailboxes: OpenMailboxes[LocalMailbox], files: MailboxFiles) -> Host:
    """A host of these mailboxes."""
    return Host(mailboxes, NoMail(), NoMail(), NoMail(), files.exists)
