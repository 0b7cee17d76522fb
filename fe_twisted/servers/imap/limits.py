"""How much one IMAP client may ask for."""

from __future__ import annotations

from dataclasses import dataclass

from fe_twisted.protocols.imap.parse import Limits


@dataclass(frozen=True, slots=True)
class ImapLimits:
    """Sizes in octets, times in seconds.

    :param line: longest command without its literals, after login (RFC 7162 section 4 asks for at least 8192).
    :param literal: longest literal that is not a message: a mailbox name, a search text.
    :param message_size: longest message that APPEND takes (APPENDLIMIT, RFC 7889); all messages of one APPEND may be twice that.
    :param login_timeout: how long a client may stay without logging in, whatever it sends.
    :param idle_timeout: autologout without a command (RFC 3501 section 5.4: at least 30 minutes).
    :param keepalive: how often IDLE says something, so that no NAT forgets the connection.
    :param progress: how often a client is told that its command is still worked on (RFC 9585).
    :param stall: how long output may wait for a client that does not read.
    :param linger: how long a connection may take to close.
    :param push_delay: least time between two tellings in IDLE; what happens meanwhile is told together.
    :param login_failures: wrong passwords on one connection before BYE.
    :param bad_commands: BAD answers on one connection before BYE.
    :param input_buffer: how much input may wait behind a running command before the server stops reading.
    :param output_block: how much output is written at once.
    :param commands_per_turn: pipelined commands before other connections get their turn.
    :param compress: offer COMPRESS=DEFLATE (RFC 4978): less to send, for 300 KiB of memory a connection and some processor time.
    """

    line: int = 65_536
    literal: int = 65_536
    message_size: int = 50 * 1024 * 1024
    login_timeout: float = 60.0
    idle_timeout: float = 1800.0
    keepalive: float = 120.0
    progress: float = 10.0
    stall: float = 300.0
    linger: float = 15.0
    push_delay: float = 0.01
    login_failures: int = 5
    bad_commands: int = 50
    input_buffer: int = 65_536
    output_block: int = 32_768
    commands_per_turn: int = 200
    compress: bool = False

    def parser(self) -> Limits:
        """Those that the parser keeps."""
        return Limits(line=self.line, literal=self.literal, append=self.message_size, appends=2 * self.message_size)
