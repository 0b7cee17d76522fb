"""Every decision about an incoming message has a name; the log shows it as ``reason``."""

from __future__ import annotations

import enum

from fe_twisted.base import errors


class Reason(enum.StrEnum):
    """Why a recipient or a message was taken or not."""

    STORED = "stored"
    DISCARDED = "discarded"
    UNKNOWN_RECIPIENT = "unknown-recipient"
    UNKNOWN_DOMAIN = "unknown-domain"
    ALIAS_REJECTS = "alias-rejects"
    ALIAS_DEFERS = "alias-defers"
    NO_MAILBOX = "no-mailbox"
    LOOP = "loop"
    BARE_NEWLINE = "bare-newline"
    TOO_LARGE = "too-large"
    MAILBOX_FULL = "mailbox-full"
    DISK_FULL = "disk-full"
    BUSY = "busy"
    PARTLY_STORED = "partly-stored"
    SYNTAX = "syntax"
    #: Any other error of the other side, of the moment, or of ours.
    REFUSED = "refused"
    LATER = "later"
    FAILED = "failed"


#: The first class that an error is an instance of gives its reason.
_REASONS: tuple[tuple[type[BaseException], Reason], ...] = (
    (errors.UnknownRecipient, Reason.UNKNOWN_RECIPIENT),
    (errors.UnknownDomain, Reason.UNKNOWN_DOMAIN),
    (errors.RecipientDisabled, Reason.ALIAS_REJECTS),
    (errors.RecipientDeferred, Reason.ALIAS_DEFERS),
    (errors.NotReady, Reason.NO_MAILBOX),
    (errors.MailLoop, Reason.LOOP),
    (errors.BareNewline, Reason.BARE_NEWLINE),
    (errors.MessageTooLarge, Reason.TOO_LARGE),
    (errors.OverQuota, Reason.MAILBOX_FULL),
    (errors.DiskFull, Reason.DISK_FULL),
    (errors.Busy, Reason.BUSY),
    (errors.BadSyntax, Reason.SYNTAX),
    (errors.BadAddress, Reason.SYNTAX),
    (errors.Theirs, Reason.REFUSED),
    (errors.Later, Reason.LATER),
    (BaseException, Reason.FAILED),
)


def reason_of(error: BaseException) -> Reason:
    """The name of the decision that an error stands for; an error class may bring its own as ``named``."""
    named = getattr(error, "named", None)
    if isinstance(named, Reason):
        return named
    return next(reason for kind, reason in _REASONS if isinstance(error, kind))
