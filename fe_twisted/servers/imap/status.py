"""STATUS (RFC 3501 section 6.3.10; DELETED and SIZE: RFC 9051 section 6.3.11, RFC 8438; HIGHESTMODSEQ: RFC 7162; MAILBOXID: RFC 8474)."""

from __future__ import annotations

from fe_twisted.base.errors import BadSyntax
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, Status
from fe_twisted.servers.imap.names import canonical
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.servers.imap.update import enable_condstore
from fe_twisted.storage.mailbox.api import FolderStatus


def values(counters: FolderStatus, items: tuple[str, ...], append_limit: int, deleted_octets: int = 0) -> list[tuple[str, int | str]]:
    """Name and value of each item, in the order asked.

    :param append_limit: the largest message that APPEND takes, in octets: the same for all mailboxes (RFC 7889).
    :param deleted_octets: of the messages that EXPUNGE would remove.
    :raises BadSyntax: an item that we do not know.
    """
    known: dict[str, int | str] = {
        "MESSAGES": counters.messages,
        "RECENT": counters.recent,
        "UIDNEXT": counters.uidnext,
        "UIDVALIDITY": counters.uidvalidity,
        "UNSEEN": counters.unseen,
        "DELETED": counters.deleted,
        "DELETED-STORAGE": deleted_octets,
        "SIZE": counters.size,
        "HIGHESTMODSEQ": counters.highestmodseq,
        "MAILBOXID": counters.object_id,
        "APPENDLIMIT": append_limit,
    }
    unknown = [item for item in items if item not in known]
    if unknown:
        raise BadSyntax(f"unknown STATUS item {unknown[0]}")
    return [(item, known[item]) for item in items]


def check_items(session: Session, items: tuple[str, ...]) -> None:
    """Before STATUS, also as part of LIST: which items may be asked for, and what they switch on.

    :raises BadSyntax:
    """
    if "RECENT" in items and session.rev2:
        raise BadSyntax("RECENT is not in IMAP4rev2")  # RFC 9051 appendix E
    if "HIGHESTMODSEQ" in items:
        enable_condstore(session)


async def status(session: Session, command: Command) -> Reply:
    """Counters of a mailbox, waiting mail included."""
    wanted = arguments(command, Status)
    check_items(session, wanted.items)
    await session.poll()
    await write_status(session, canonical(wanted.mailbox), wanted.items)
    return Reply("STATUS completed")


async def write_status(session: Session, name: str, items: tuple[str, ...]) -> None:
    """The STATUS response, of STATUS and of LIST.

    :raises NoSuchFolder:
    """
    counters = await session.mailbox.status(name)
    doomed = await session.mailbox.deleted_octets(counters.name) if "DELETED-STORAGE" in items else 0
    answer = values(counters, items, session.limits.message_size, doomed)
    session.wire.write(responses.status(counters.name, answer, utf8=session.utf8))
