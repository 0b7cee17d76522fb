"""STARTTLS, LOGIN, AUTHENTICATE (RFC 3501 section 6.2, RFC 4616, RFC 4959, RFC 5802)."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Awaitable, Callable

from fe_twisted.base import log
from fe_twisted.base.errors import BadSyntax, PrivacyRequired, TooManyConnections, WrongPassword
from fe_twisted.protocols.imap.commands import Authenticate, Command, Login
from fe_twisted.protocols.sasl import scram
from fe_twisted.protocols.sasl.plain import Cancelled, decode_line, parse_plain
from fe_twisted.servers.imap.capability import can_start_tls, capability_code, closed, may_login
from fe_twisted.servers.imap.reply import Reply, bad, for_error, no
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.storage.mailbox.api import Mailbox

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
    """AUTHENTICATE, with or without initial response; ``*`` cancels (RFC 3501 section 6.2.2)."""
    given = arguments(command, Authenticate)
    mechanism = _MECHANISMS.get(given.mechanism.upper())
    if mechanism is None or (mechanism is _scram_plus and not session.wire.channel_binding()):
        return no("authentication mechanism not supported", "CANNOT")
    if not may_login(session):  # before the challenge, so that a careful client never sends the password
        raise PrivacyRequired
    return await mechanism(session, given)


async def _initial(session: Session, given: Authenticate, prompt: bytes = b"") -> bytes:
    """The client's first octets.

    :param prompt: what it is asked with, in base64.
    """
    return decode_line(given.initial if given.initial is not None else await session.wire.line(prompt))


async def _plain(session: Session, given: Authenticate) -> Reply:
    """RFC 4616."""
    plain = parse_plain(await _initial(session, given))
    if plain.authzid and plain.authzid != plain.authcid:
        return no("nobody may act for another user here", "AUTHORIZATIONFAILED")
    return await _enter(session, plain.authcid, plain.password)


async def _login(session: Session, given: Authenticate) -> Reply:
    """LOGIN, which no RFC describes and old clients want: user name and password, each asked for."""
    user = await _initial(session, given, base64.b64encode(b"Username:"))
    password = decode_line(await session.wire.line(base64.b64encode(b"Password:")))
    return await _enter(session, user, password)


async def _scram(session: Session, given: Authenticate, *, binding: bytes = b"") -> Reply:
    """RFC 5802; the password never comes here.

    :param binding: of the channel, with -PLUS.
    """
    first = scram.client_first(await _initial(session, given))
    if (first.flag == "p") != bool(binding) or first.binding not in ("", scram.TLS_EXPORTER):
        raise BadSyntax("SCRAM: channel binding does not fit the mechanism")
    if first.flag == "y" and session.binding_told:
        # RFC 5802 section 6: somebody took -PLUS out of the list that this client saw
        return no("channel binding was offered", "AUTHENTICATIONFAILED")
    if first.authzid and first.authzid != first.name:
        return no("nobody may act for another user here", "AUTHORIZATIONFAILED")

    async def prove() -> tuple[str, Mailbox]:
        attempt = await session.door.scram(first.name, session.wire.peer)
        exchange = scram.Exchange(first, secrets.token_urlsafe(18), attempt.salt, attempt.iterations)
        said = decode_line(await session.wire.line(base64.b64encode(exchange.challenge())))
        alias, mailbox, signature = await attempt.finish(exchange.answer(said, binding))
        try:
            if await session.wire.line(base64.b64encode(signature)) not in (b"", b"="):
                raise Cancelled  # the client does not believe that this is the server
        except BaseException:
            session.door.leave(mailbox)
            raise
        return alias, mailbox

    return await _let_in(session, first.name.encode(), prove())


async def _scram_plus(session: Session, given: Authenticate) -> Reply:
    return await _scram(session, given, binding=session.wire.channel_binding())


_MECHANISMS: dict[str, Callable[[Session, Authenticate], Awaitable[Reply]]] = {
    "PLAIN": _plain,
    "LOGIN": _login,
    scram.SHA256: _scram,
    scram.SHA256_PLUS: _scram_plus,
}


async def _enter(session: Session, user: bytes, password: bytes) -> Reply:
    return await _let_in(session, user, session.door.login(user, password, session.wire.peer))


async def _let_in(session: Session, user: bytes, asking: Awaitable[tuple[str, Mailbox]]) -> Reply:
    wire = session.wire
    try:
        alias, mailbox = await asking
    except (WrongPassword, TooManyConnections) as error:  # the second one: too many failures from there before
        session.failures += 1
        name = user[:_MOST_LOGGED].decode("utf-8", "replace")
        log.event("imap.login_failed", conn=wire.id, peer=wire.peer, address=name, reason=error.reason or type(error).__name__)
        reply = for_error(error, wire.id)
        if session.failures < session.limits.login_failures:
            return reply
        return Reply(reply.text, reply.code, reply.condition, then=lambda: wire.bye("too many failed logins"))
    session.enter(alias, mailbox)
    session.hidden = closed(session.door.hidden(alias))
    return Reply("logged in", capability_code(session))
