"""What the server can do, by state: only what works right now is named (RFC 3501 section 6.1.1)."""

from __future__ import annotations

from fe_twisted.servers.imap.session import Session, State

ALWAYS = ("IMAP4rev1", "SASL-IR", "ID", "ENABLE", "IDLE")
AFTER_LOGIN = ("IMAP4rev1", "LITERAL+", "ID", "ENABLE", "IDLE", "NAMESPACE", "UNSELECT", "UIDPLUS", "MOVE", "CHILDREN", "SPECIAL-USE")

#: Searching and writing, after login: each name where its commands are complete.
SEARCHING = ("WITHIN", "PREVIEW")
WRITING = ("MULTIAPPEND", "BINARY")


def may_login(session: Session) -> bool:
    """A password may be sent now: under TLS, or from this machine where the settings allow it."""
    return session.wire.secure or session.plaintext


def can_start_tls(session: Session) -> bool:
    """STARTTLS would work now."""
    return session.tls and not session.wire.secure


def capabilities(session: Session) -> tuple[str, ...]:
    """The names for CAPABILITY."""
    if session.state is not State.GREETED:
        return AFTER_LOGIN + SEARCHING + WRITING + (f"APPENDLIMIT={session.limits.message_size}",)
    extra: tuple[str, ...] = ("STARTTLS",) if can_start_tls(session) else ()
    return ALWAYS + extra + (("AUTH=PLAIN",) if may_login(session) else ("LOGINDISABLED",))


def capability_code(session: Session) -> str:
    """The same as a response code, which saves the client a round trip."""
    return "CAPABILITY " + " ".join(capabilities(session))
