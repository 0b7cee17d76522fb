"""Every error that a user, a mail client or another mail server can be told of.

Three families (a subclass belongs to exactly one):

* :class:`Theirs`: what the other side sent is wrong, and the same again will be refused again;
* :class:`Later`: nothing is wrong with it, try again;
* :class:`Ours`: a bug or a broken disk; the private reason goes to the log, never to the wire.

Each class says in one place how it looks on every door: the SMTP reply code with its enhanced status
(RFC 5321 section 4.2, RFC 3463), the IMAP condition with its response code (RFC 9051 section 7.1, RFC 5530)
and the HTTP status.  ``str(error)`` is the public text: no path, no secret, no message content.  ``reason`` is
private and only for the log.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple


class SmtpStatus(NamedTuple):
    """A reply code (RFC 5321) and its enhanced status code (RFC 3463)."""

    code: int
    enhanced: str


class ImapStatus(NamedTuple):
    """``NO`` or ``BAD`` and the response code inside the brackets, or an empty string for none."""

    condition: str
    code: str


class MailError(Exception):
    """The root of all errors with a public face.

    :param public: one sentence for the other side; the class's own ``default`` when left out.
    :param reason: what happened, for the log only.
    """

    default: ClassVar[str] = "internal error"
    smtp: ClassVar[SmtpStatus] = SmtpStatus(451, "4.3.0")
    imap: ClassVar[ImapStatus] = ImapStatus("NO", "SERVERBUG")
    http: ClassVar[int] = 500

    def __init__(self, public: str | None = None, *, reason: str = "") -> None:
        super().__init__(public or self.default)
        self.reason = reason

    @property
    def public(self) -> str:
        """The text that may be shown to the other side."""
        return str(self)


class Theirs(MailError):
    """The other side's fault; a repetition will fail the same way."""

    default = "request refused"
    smtp = SmtpStatus(554, "5.5.0")
    imap = ImapStatus("NO", "")
    http = 400


class Later(MailError):
    """Nobody's fault that lasts; a repetition may succeed."""

    default = "temporarily unavailable, try again later"
    smtp = SmtpStatus(451, "4.3.2")
    imap = ImapStatus("NO", "UNAVAILABLE")
    http = 503


class Ours(MailError):
    """A bug or a damaged disk.  The sender keeps the message (SMTP 4xx) and nothing is lost."""


# -- theirs ---------------------------------------------------------------------------------------


class BadSyntax(Theirs):
    """Bytes that the standard's grammar does not allow."""

    default = "syntax error"
    smtp = SmtpStatus(501, "5.5.2")
    imap = ImapStatus("BAD", "")


class UidRequired(BadSyntax):
    """A message sequence number, where the client has enabled UIDONLY (RFC 9586 section 3)."""

    default = "message numbers cannot be used, UIDONLY is enabled"
    imap = ImapStatus("BAD", "UIDREQUIRED")


class BadAddress(Theirs):
    """A mail address that RFC 5321 section 4.1.2 or RFC 6531 does not allow."""

    default = "bad address syntax"
    smtp = SmtpStatus(553, "5.1.3")


class UnknownRecipient(Theirs):
    """The domain is ours, the alias is not there."""

    default = "no such recipient here"
    smtp = SmtpStatus(550, "5.1.1")
    http = 404


class UnknownDomain(Theirs):
    """Not one of our domains: this is no open relay."""

    default = "relay access denied"
    smtp = SmtpStatus(550, "5.7.1")
    http = 404


class RecipientDisabled(Theirs):
    """The alias was switched off by its owner with the 'reject' action."""

    default = "mailbox disabled"
    smtp = SmtpStatus(550, "5.2.1")


class RecipientDeferred(Later):
    """The alias was switched off with the 'defer' action: the sender is asked to keep trying."""

    default = "mailbox temporarily disabled"
    smtp = SmtpStatus(421, "4.2.1")


class AlreadyExists(Theirs):
    """A domain, alias or folder of this name is there already."""

    default = "already exists"
    imap = ImapStatus("NO", "ALREADYEXISTS")
    http = 409


class NotFound(Theirs):
    """The named thing is not there."""

    default = "no such thing"
    imap = ImapStatus("NO", "NONEXISTENT")
    http = 404


class NoSuchFolder(NotFound):
    """The folder is not there (SELECT, STATUS, DELETE, …)."""

    default = "no such mailbox"


class NoSuchMessage(NotFound):
    """The message is not there any more: somebody else removed it (RFC 5530)."""

    default = "no such message, it was expunged"
    imap = ImapStatus("NO", "EXPUNGEISSUED")


class TryCreate(NotFound):
    """The target of APPEND, COPY or MOVE is not there (RFC 9051 section 6.3.12)."""

    default = "no such mailbox, create it first"
    imap = ImapStatus("NO", "TRYCREATE")


class Refused(Theirs):
    """Understood and never allowed, for example deleting INBOX."""

    default = "operation not allowed"
    imap = ImapStatus("NO", "CANNOT")
    http = 403


class HasChildren(Refused):
    """A name that only exists as the parent of others cannot be deleted (RFC 9051 section 7.1)."""

    default = "mailbox has children and cannot be deleted"
    imap = ImapStatus("NO", "HASCHILDREN")


class SpecialUseRefused(Theirs):
    """A special use that a mailbox cannot have (RFC 6154 section 3)."""

    default = "no mailbox can have this special use"
    imap = ImapStatus("NO", "USEATTR")


class WrongPassword(Theirs):
    """No key slot opens with this password.  Deliberately says nothing about the user name."""

    default = "wrong user name or password"
    smtp = SmtpStatus(535, "5.7.8")
    imap = ImapStatus("NO", "AUTHENTICATIONFAILED")
    http = 401


class PrivacyRequired(Theirs):
    """A password was offered over a connection without TLS."""

    default = "TLS is required before a password may be sent"
    smtp = SmtpStatus(538, "5.7.11")
    imap = ImapStatus("NO", "PRIVACYREQUIRED")
    http = 403


class MessageTooLarge(Theirs):
    """Above the configured message size."""

    default = "message too large"
    smtp = SmtpStatus(552, "5.3.4")
    imap = ImapStatus("NO", "TOOBIG")
    http = 413


class LimitReached(Theirs):
    """A fixed limit that is not about time: too many keywords, folders, …"""

    default = "limit reached"
    smtp = SmtpStatus(452, "4.5.3")
    imap = ImapStatus("NO", "LIMIT")
    http = 429


class BareNewline(Theirs):
    """A CR or LF on its own inside SMTP data (RFC 5321 section 2.3.8): the root of SMTP smuggling."""

    default = "message contains a bare CR or LF; lines must end in CR LF"
    smtp = SmtpStatus(550, "5.6.0")


class MailLoop(Theirs):
    """Too many Received fields (RFC 5321 section 6.3)."""

    default = "too many hops, this message is looping"
    smtp = SmtpStatus(554, "5.4.6")


class UnknownCharset(Theirs):
    """SEARCH CHARSET that we cannot convert (RFC 9051 section 6.4.4)."""

    default = "character set not supported"
    imap = ImapStatus("NO", "BADCHARSET (UTF-8 US-ASCII)")


class BadSettings(Theirs):
    """The settings file, an environment override or a secret file cannot be used."""

    default = "settings not usable"


# -- later ----------------------------------------------------------------------------------------


class DiskFull(Later):
    """The disk (or the quota of the file system) is full; nothing was stored."""

    default = "insufficient system storage"
    smtp = SmtpStatus(452, "4.3.1")
    http = 507


class OverQuota(Later):
    """The account, domain or alias is full."""

    default = "mailbox is full"
    smtp = SmtpStatus(452, "4.2.2")
    imap = ImapStatus("NO", "OVERQUOTA")
    http = 507


class Busy(Later):
    """A lock could not be had in time."""

    default = "mailbox is busy, try again"
    imap = ImapStatus("NO", "INUSE")


class PrimaryAway(Later):
    """The primary that has the mailbox cannot be reached, or does not answer; nothing is known to have been done."""

    default = "mailbox server cannot be reached, try again later"
    smtp = SmtpStatus(421, "4.3.2")
    imap = ImapStatus("NO", "UNAVAILABLE")


class Moved(Later):
    """The mailbox is not (or no longer) at the primary that was asked: look up where it is, and ask there."""

    default = "mailbox is being moved, try again"


class NotReady(Later):
    """The alias has no mailbox yet: nobody has made a password for it."""

    default = "mailbox not ready yet"
    smtp = SmtpStatus(450, "4.2.1")


class TooManyConnections(Later):
    """The address, or the whole server, has its fill of connections or of failed logins."""

    default = "too many connections, try again later"
    smtp = SmtpStatus(421, "4.7.0")
    imap = ImapStatus("NO", "LIMIT")
    http = 429


# -- ours -----------------------------------------------------------------------------------------


class StorageFailed(Ours):
    """The disk or the database refused for a reason of its own."""

    default = "storage failure, nothing was stored"
    imap = ImapStatus("NO", "SERVERBUG")


class DamagedFile(Ours):
    """A database file that is not what it should be: truncated, zeros, or another mailbox's."""

    default = "mailbox file is damaged"
    imap = ImapStatus("NO", "CORRUPTION")


class NewerFile(Ours):
    """A database file written by a newer version of the program."""

    default = "mailbox file was written by a newer version of this program"
    imap = ImapStatus("NO", "UNAVAILABLE")
