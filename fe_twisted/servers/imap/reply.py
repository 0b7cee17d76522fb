"""The tagged answer to a command, and which error becomes which answer (RFC 3501 section 7.1, RFC 5530)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fe_twisted.base.errors import MailError, Ours
from fe_twisted.protocols.imap import responses


@dataclass(frozen=True, slots=True)
class Reply:
    """A tagged answer.

    :param text: for people.
    :param code: the response code inside the brackets, or an empty string.
    :param condition: ``OK``, ``NO`` or ``BAD``.
    :param then: what to do once the answer is written: start TLS, close.
    :param highest: messages were expunged, so a client that enabled QRESYNC is told the HIGHESTMODSEQ (RFC 7162 section 3.2.7).
    """

    text: str
    code: str = ""
    condition: str = "OK"
    then: Callable[[], None] | None = None
    highest: bool = False

    def line(self, tag: str) -> bytes:
        """The octets for the wire."""
        return responses.tagged(tag, self.condition, self.text, self.code)


class Ended(Exception):
    """The session is over: say ``* BYE`` with this text and close."""


class Disconnected(Exception):
    """The client went away while a command was waiting for it."""


def no(text: str, code: str = "") -> Reply:
    """Understood, not done."""
    return Reply(text, code, "NO")


def bad(text: str, code: str = "") -> Reply:
    """Not a command that is possible here."""
    return Reply(text, code, "BAD")


def for_error(error: MailError, connection: str) -> Reply:
    """The answer for an error; trouble of ours carries the connection id, so that the operator finds the log line.

    :param connection: the connection id.
    """
    condition, code = error.imap
    text = f"{error.public} [conn {connection}]" if isinstance(error, Ours) else error.public
    return Reply(text, code, condition)
