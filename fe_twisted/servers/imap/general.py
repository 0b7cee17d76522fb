"""CAPABILITY, NOOP, CHECK, LOGOUT, ID, ENABLE."""

from __future__ import annotations

from collections.abc import Callable

from fe_twisted import __version__
from fe_twisted.base import log
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, Compress, Enable, Id
from fe_twisted.servers.imap.capability import capabilities, capability_code
from fe_twisted.servers.imap.reply import Ended, Reply, bad, no
from fe_twisted.servers.imap.session import Session, State, arguments
from fe_twisted.servers.imap.update import enable_condstore

#: What is logged of a client's ID: enough to know whose bug it is, nothing about the person.
_LOGGED = ("name", "version", "os")
_LOGGED_LENGTH = 40


async def capability(session: Session, command: Command) -> Reply:
    """RFC 3501 section 6.1.1."""
    session.wire.write(responses.capability(capabilities(session)))
    return Reply("CAPABILITY completed")


async def noop(session: Session, command: Command) -> Reply:
    """NOOP and CHECK: waiting mail comes in, and the end of every command tells what is new (RFC 3501 sections 6.1.2, 6.4.1)."""
    if session.state is not State.GREETED:
        await session.poll()
    return Reply(f"{command.name} completed")


async def logout(session: Session, command: Command) -> Reply:
    """RFC 3501 section 6.1.3."""
    session.wire.write(responses.untagged("BYE", "logging out"))
    return Reply("LOGOUT completed", then=session.wire.close)


async def compress(session: Session, command: Command) -> Reply:
    """RFC 4978; everything after the tagged OK is compressed."""
    wanted = arguments(command, Compress)
    if not session.limits.compress:
        return bad("compression is switched off here")
    if wanted.mechanism != "DEFLATE":
        return no("unknown compression mechanism", "CANNOT")
    if session.compressed:
        return no("compression is active already", "COMPRESSIONACTIVE")
    session.compressed = True
    return Reply("compression begins", then=session.wire.compress)


async def identify(session: Session, command: Command) -> Reply:
    """RFC 2971; the version is told to those who are logged in only."""
    told = {name.lower(): value for name, value in arguments(command, Id).fields if value}
    fields = {name: told[name][:_LOGGED_LENGTH] for name in _LOGGED if name in told}
    if fields:
        log.event("imap.client", conn=session.wire.id, **{f"client_{name}": value for name, value in fields.items()})
    ours: list[tuple[str, str | None]] = [("name", "forwardemail")]
    if session.state is not State.GREETED:
        ours.append(("version", __version__))
    session.wire.write(responses.identity(ours))
    return Reply("ID completed")


#: What ENABLE can switch on; the second group cannot change while a mailbox is selected (RFC 5161 section 3.1, RFC 6855 section 3).
_ENABLED_ANY_TIME = ("CONDSTORE", "QRESYNC")
_ENABLED_FIRST = ("IMAP4rev2", "UTF8=ACCEPT", "UIDONLY")


async def enable(session: Session, command: Command) -> Reply:
    """RFC 5161 section 3.1: what is not known, hidden or on already is passed over."""
    asked = {name.upper() for name in arguments(command, Enable).capabilities} - session.hidden
    wanted = [name for name in (*_ENABLED_ANY_TIME, *_ENABLED_FIRST) if name.upper() in asked]
    late = [name for name in wanted if name in _ENABLED_FIRST and session.view is not None]
    if late:
        return bad(f"{late[0]} can be enabled only while no mailbox is selected")
    session.wire.write(responses.enabled([name for name in wanted if not _is_enabled(session, name)]))
    for name in wanted:
        _ENABLE[name](session)
    return Reply("ENABLE completed")


def _is_enabled(session: Session, name: str) -> bool:
    return bool(getattr(session, _ATTRIBUTE[name]))


_ATTRIBUTE = {"CONDSTORE": "condstore", "QRESYNC": "qresync", "IMAP4rev2": "rev2", "UTF8=ACCEPT": "utf8_accept", "UIDONLY": "uid_only"}


def _qresync(session: Session) -> None:
    enable_condstore(session)
    session.qresync = True


def _rev2(session: Session) -> None:
    session.rev2 = True
    session.speak_utf8()


def _utf8_accept(session: Session) -> None:
    session.utf8_accept = True
    session.speak_utf8()


def _uid_only(session: Session) -> None:
    session.uid_only = True


_ENABLE: dict[str, Callable[[Session], None]] = {
    "CONDSTORE": enable_condstore,
    "QRESYNC": _qresync,
    "IMAP4rev2": _rev2,
    "UTF8=ACCEPT": _utf8_accept,
    "UIDONLY": _uid_only,
}


async def unauthenticate(session: Session, command: Command) -> Reply:
    """The connection is as it was before login, but for TLS (RFC 8437).

    A compression layer would have to end in both directions at an octet that only the client knows, so such a connection is closed,
    which section 3 allows.

    :raises Ended: compression is on.
    """
    if session.compressed:
        raise Ended("a compressed connection cannot be used again, connect anew")
    session.leave()
    return Reply("nobody is logged in now", capability_code(session))
