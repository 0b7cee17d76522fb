"""How a session comes to a mailbox; :mod:`fe_twisted.app` hands an implementation in."""

from __future__ import annotations

from typing import Protocol

from fe_twisted.storage.mailbox.api import Mailbox


class Door(Protocol):
    """Checks passwords and opens mailboxes."""

    async def login(self, user: bytes, password: bytes, peer: str) -> tuple[str, Mailbox]:
        """The address that the user name stands for, and its open mailbox.

        Delays after failures are its business, and so is to have waiting mail moved in; the answer to LOGIN does not wait for that.

        :param peer: the client's IP address.
        :raises WrongPassword:
        :raises Later: the mailbox cannot be opened now.
        """

    def leave(self, mailbox: Mailbox) -> None:
        """Give back a mailbox that :meth:`login` returned; exactly once for each."""
