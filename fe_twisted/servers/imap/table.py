"""Which command is allowed in which state, who carries it out, and what its errors look like."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple, TypeVar

from fe_twisted.base import log, patience
from fe_twisted.base.errors import MailError, Ours, UidRequired
from fe_twisted.protocols.imap.commands import Command
from fe_twisted.servers.imap import (
    append,
    copy,
    expunge,
    fetch,
    folders,
    general,
    idle,
    list,
    login,
    metadata,
    multisearch,
    notify,
    search,
    select,
    sort,
    status,
    store,
)
from fe_twisted.servers.imap.hidden import refusal
from fe_twisted.servers.imap.program import names_numbers
from fe_twisted.servers.imap.reply import Disconnected, Ended, Reply, bad, for_error, no
from fe_twisted.servers.imap.session import Session, State
from fe_twisted.servers.imap.update import is_behind, synchronise, tell_held

Outcome = TypeVar("Outcome")


class Entry(NamedTuple):
    """One command.

    :param states: those in which it is allowed, as one number.
    :param expunges: EXPUNGE may be sent in its answer; with UID in front it always may (RFC 3501 section 7.4.1).
    """

    states: int
    run: Callable[[Session, Command], Awaitable[Reply]]
    expunges: bool = True


ANY = State.GREETED | State.AUTHENTICATED | State.SELECTED
INSIDE = State.AUTHENTICATED | State.SELECTED

TABLE: dict[str, Entry] = {
    "CAPABILITY": Entry(ANY, general.capability),
    "NOOP": Entry(ANY, general.noop),
    "LOGOUT": Entry(ANY, general.logout),
    "ID": Entry(ANY, general.identify),
    "STARTTLS": Entry(State.GREETED, login.starttls),
    "LOGIN": Entry(State.GREETED, login.login),
    "AUTHENTICATE": Entry(State.GREETED, login.authenticate),
    "NOTIFY": Entry(INSIDE, notify.notify),
    "ENABLE": Entry(INSIDE, general.enable),
    "UNAUTHENTICATE": Entry(INSIDE, general.unauthenticate),
    "COMPRESS": Entry(INSIDE, general.compress),
    "NAMESPACE": Entry(INSIDE, folders.namespace),
    "SELECT": Entry(INSIDE, select.select),
    "EXAMINE": Entry(INSIDE, select.select),
    "CREATE": Entry(INSIDE, folders.create),
    "DELETE": Entry(INSIDE, folders.delete),
    "RENAME": Entry(INSIDE, folders.rename),
    "SUBSCRIBE": Entry(INSIDE, folders.subscribe),
    "UNSUBSCRIBE": Entry(INSIDE, folders.subscribe),
    "LIST": Entry(INSIDE, list.list_folders),
    "LSUB": Entry(INSIDE, list.list_subscribed),
    "STATUS": Entry(INSIDE, status.status),
    "GETQUOTA": Entry(INSIDE, metadata.get_quota),
    "GETQUOTAROOT": Entry(INSIDE, metadata.get_quota_root),
    "GETMETADATA": Entry(INSIDE, metadata.get_metadata),
    "SETMETADATA": Entry(INSIDE, metadata.set_metadata),
    "APPEND": Entry(INSIDE, append.append),
    "REPLACE": Entry(State.SELECTED, append.replace),
    "IDLE": Entry(INSIDE, idle.idle),
    "CHECK": Entry(State.SELECTED, general.noop),
    "CLOSE": Entry(State.SELECTED, select.close),
    "UNSELECT": Entry(State.SELECTED, select.close),
    "EXPUNGE": Entry(State.SELECTED, expunge.expunge),
    "SEARCH": Entry(State.SELECTED, search.search, expunges=False),
    "ESEARCH": Entry(INSIDE, multisearch.multisearch, expunges=False),
    "SORT": Entry(State.SELECTED, sort.sort, expunges=False),
    "THREAD": Entry(State.SELECTED, sort.thread, expunges=False),
    "FETCH": Entry(State.SELECTED, fetch.fetch, expunges=False),
    "STORE": Entry(State.SELECTED, store.store, expunges=False),
    "COPY": Entry(State.SELECTED, copy.copy),
    "MOVE": Entry(State.SELECTED, copy.move),
}


#: Commands that take or return message sequence numbers without UID in front (RFC 9586 section 3).
NUMBERED = frozenset(("FETCH", "STORE", "SEARCH", "COPY", "MOVE", "SORT", "THREAD", "REPLACE"))


async def execute(session: Session, command: Command) -> Reply:
    """Carry out one command, and tell the client what others did meanwhile.

    :raises Disconnected, Ended: and nothing else.
    """
    entry = TABLE.get(command.name)
    if entry is None:
        return bad("unknown command")
    if not session.state & entry.states:
        return bad(_not_now(session, entry))
    refused = refusal(session, command)
    if refused is not None:
        return refused
    if session.uid_only and not command.uid and command.name in NUMBERED:
        return for_error(UidRequired(), session.wire.id)
    # Sequence numbers in the command are those that the client knew when it wrote them, so nothing may be renumbered yet.
    unnumbered = command.uid and not names_numbers(command)
    patience.begin()
    if command.name == "LOGOUT":  # nothing is worth waiting for any more
        return await _attempt(session, command, entry.run(session, command))
    if is_behind(session, expunges=unnumbered):
        await _attempt(session, command, synchronise(session, expunges=unnumbered, uid=command.uid))
    reply = await _attempt(session, command, entry.run(session, command))
    expunges = entry.expunges or unnumbered
    if is_behind(session, expunges=expunges, owed=isinstance(reply, Reply) and reply.highest):
        await _attempt(session, command, synchronise(session, expunges=expunges, uid=command.uid))
    view = session.view
    if view is not None and session.condstore:
        tell_held(session)
        if session.qresync and isinstance(reply, Reply) and reply.highest:
            return replace(reply, code=f"HIGHESTMODSEQ {view.told}")
    return reply


def at_once(session: Session, command: Command) -> Reply | None:
    """The answer to a command that need not wait for anything; None, with nothing done or written, for all others: :func:`execute`.

    It must give the very same answer; it is there because a coroutine and what carries it cost as much as to fetch a message.
    """
    if command.name != "FETCH" or session.notifier is not None or session.hidden:
        return None
    try:
        return fetch.fetch_one(session, command)
    except Exception:  # whatever it is, execute() comes upon it, too, and answers it
        return None


async def _attempt(session: Session, command: Command, work: Awaitable[Outcome]) -> Outcome | Reply:
    """The outcome of the work; every error becomes an answer, and errors of ours go to the log once."""
    connection = session.wire.id
    try:
        return await work
    except (Disconnected, Ended):
        raise
    except MailError as error:
        if isinstance(error, Ours):
            log.failure("imap.failed", error, conn=connection, command=command.name, reason=error.reason)
        elif error.reason:
            log.event("imap.refused_command", conn=connection, command=command.name, reason=error.reason)
        return for_error(error, connection)
    except Exception as error:  # a bug must cost its own command only, not the session
        log.failure("imap.failed", error, conn=connection, command=command.name)
        return no(f"internal error [conn {connection}]", "SERVERBUG")


def _not_now(session: Session, entry: Entry) -> str:
    if session.state is State.GREETED:
        return "log in first"
    if entry.states is State.GREETED:
        return "already logged in"
    return "select a mailbox first"
