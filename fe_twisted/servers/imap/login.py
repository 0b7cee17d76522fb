"""STARTTLS, LOGIN, AUTHENTICATE (RFC 3501 section 6.2, RFC 4616, RFC 4959)."""

from __future__ import annotations

from fe_twisted.base import log
from fe_twisted.base.errors import PrivacyRequired, TooManyConnections, WrongPassword
from fe_twisted.protocols.imap.commands import Authenticate, Command, Login
from fe_twisted.protocols.sasl.plain import decode_line, parse_plain
from fe_twisted.servers.imap.capability import can_start_tls, capability_code, may_login
from fe_twisted.servers.imap.reply import Reply, bad, for_error, no
from fe_twisted.servers.imap.session import Session, arguments

#: Of a user name in the log.
_MOST_LOGGED = 320


async def starttls(session: Session, command: Command) -> Reply:
    """RFC 3501 section 6.2.1."""
    if not can_start_tls(session):
        return bad("TLS is on already" if session.wire.secure else "TLS is not available")
    return Reply("begin TLS negotiation now", then=session.wire.start_tls)


async def login(session: Session, command: Command) -> Reply:
    """RFC 3501 section 6.2.3."""
    given = arguments(command, Login)
    if not may_login(session):
        raise PrivacyRequired
    return await _enter(session, given.user, given.password)


async def authenticate(session: Session, command: Command) -> Reply:
    """AUTHENTICATE PLAIN, with or without initial response; ``*`` cancels (RFC 3501 section 6.2.2)."""
    given = arguments(command, Authenticate)
    if given.mechanism.upper() != "PLAIN":
        return no("authentication mechanism not supported", "CANNOT")
    if not may_login(session):  # before the challenge, so that a careful client never sends the password
        raise PrivacyRequired
    answer = given.initial if given.initial is not None else await session.wire.line(b"")
    plain = parse_plain(decode_line(answer))
    if plain.authzid and plain.authzid != plain.authcid:
        return no("nobody may act for another user here", "AUTHORIZATIONFAILED")
    return await _enter(session, plain.authcid, plain.password)


async def _enter(session: Session, user: bytes, password: bytes) -> Reply:
    wire = session.wire
    try:
        alias, mailbox = await session.door.login(user, password, wire.peer)
    except (WrongPassword, TooManyConnections) as error:  # the second one: too many failures from there before
        session.failures += 1
        name = user[:_MOST_LOGGED].decode("utf-8", "replace")
        log.event("imap.login_failed", conn=wire.id, peer=wire.peer, address=name, reason=error.reason or type(error).__name__)
        reply = for_error(error, wire.id)
        if session.failures < session.limits.login_failures:
            return reply
        return Reply(reply.text, reply.code, reply.condition, then=lambda: wire.bye("too many failed logins"))
    session.enter(alias, mailbox)
    return Reply("logged in", capability_code(session))
