"""What one SMTP client, and all of them together, may use up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MxLimits:
    """Limits of the MX server.

    :param message_size: octets; announced as SIZE (RFC 1870).
    :param recipients: of one transaction; RFC 5321 section 4.5.3.1.8 asks for at least 100.
    :param commands: of one session; BDAT chunks of at least 4,096 octets do not count, their octets do.
    :param errors: 5xx replies of one session.
    :param transactions: MAIL commands of one session.
    :param command_line: octets, CR LF included.
    :param text_line: octets of a line inside a message, CR LF included.
    :param session: seconds that a session may last; a delivery under way is finished first.
    :param idle: seconds without an octet from the client (RFC 5321 section 4.5.3.2.7 asks for 300).
    :param data_idle: seconds without an octet inside a message (section 4.5.3.2.5 lets clients wait 180).
    :param closing: seconds that a client gets to read the last reply before the connection is cut.
    :param in_flight: octets of message content that all sessions together hold in memory; a message being delivered takes this
        share of memory once more for each recipient it is just written for.
    :param greeting_delay: seconds before the greeting; a client that speaks first is counted an error.
    """

    message_size: int = 52_428_800
    recipients: int = 100
    commands: int = 1000
    errors: int = 20
    transactions: int = 100
    command_line: int = 4096
    text_line: int = 100_000
    session: float = 1800
    idle: float = 300
    data_idle: float = 180
    closing: float = 10
    in_flight: int = 512 << 20
    greeting_delay: float = 0


class Budget:
    """Octets that all sessions share."""

    def __init__(self, total: int) -> None:
        self._free = total

    @property
    def free(self) -> int:
        """What can still be taken."""
        return self._free

    def take(self, octets: int) -> bool:
        """Reserve, or answer False and reserve nothing."""
        if octets > self._free:
            return False
        self._free -= octets
        return True

    def give(self, octets: int) -> None:
        """Give back what was taken."""
        self._free += octets
