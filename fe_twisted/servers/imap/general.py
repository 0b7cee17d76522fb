"""CAPABILITY, NOOP, CHECK, LOGOUT, ID, ENABLE."""

from __future__ import annotations

from fe_twisted import __version__
from fe_twisted.base import log
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, Id
from fe_twisted.servers.imap.capability import capabilities
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.session import Session, State, arguments

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


async def enable(session: Session, command: Command) -> Reply:
    """RFC 5161 section 3.1: what is not known is passed over; nothing that we have needs enabling yet."""
    session.wire.write(responses.enabled(()))
    return Reply("ENABLE completed")
