"""How a session comes to a mailbox; :mod:`fe_twisted.app` hands an implementation in."""

from __future__ import annotations

from typing import Protocol

from fe_twisted.protocols.sasl.scram import Answer
from fe_twisted.storage.mailbox.api import Mailbox


class Scram(Protocol):
    """A login by SCRAM that has begun (RFC 5802)."""

    salt: bytes
    iterations: int

    async def finish(self, answer: Answer | None) -> tuple[str, Mailbox, bytes]:
        """As :meth:`Door.login`, and the server's last message.

        :param answer: None when what the client said cannot be an answer to what it was asked.
        :raises WrongPassword, Later:
        """


class Door(Protocol):
    """Checks passwords and opens mailboxes."""

    async def login(self, user: bytes, password: bytes, peer: str) -> tuple[str, Mailbox]:
        """The address that the user name stands for, and its open mailbox.

        Delays after failures are its business, and so is to have waiting mail moved in; the answer to LOGIN does not wait for that.

        :param peer: the client's IP address.
        :raises WrongPassword:
        :raises Later: the mailbox cannot be opened now.
        """

    async def scram(self, user: str, peer: str) -> Scram:
        """Begin a login without password; also for users who are not there.

        :raises TooManyConnections, Later:
        """

    def hidden(self, address: str) -> frozenset[str]:
        """The capabilities that the owner of this address, who has just logged in, wants hidden from clients."""

    def leave(self, mailbox: Mailbox) -> None:
        """Give back a mailbox that :meth:`login` returned; exactly once for each."""
