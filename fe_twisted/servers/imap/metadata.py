"""GETMETADATA and SETMETADATA (RFC 5464), GETQUOTA and GETQUOTAROOT (RFC 9208)."""

from __future__ import annotations

from fe_twisted.protocols.imap.commands import Command, Mailbox
from fe_twisted.protocols.imap.metadata import GetMetadata, QuotaRoot, SetMetadata, metadata, quota, quota_root
from fe_twisted.servers.imap.folders import only_use
from fe_twisted.servers.imap.names import canonical
from fe_twisted.servers.imap.reply import Reply, no
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.storage.mailbox.api import SPECIAL_USE

#: Entries of the server that only its operator could set (RFC 5464 section 6.2.1).
_READ_ONLY = frozenset({"/shared/admin"})
#: The one quota root: everything in the mailbox counts towards it.
ROOT = ""


async def get_metadata(session: Session, command: Command) -> Reply:
    """The values of the entries, NIL for those that are not there; long ones may be left out."""
    wanted = arguments(command, GetMetadata)
    name = canonical(wanted.mailbox)
    found = await session.mailbox.get_metadata(name, wanted.entries, wanted.depth)
    limit = wanted.max_size
    shown = [(entry, value) for entry, value in found if limit is None or value is None or len(value) <= limit]
    if shown:
        session.wire.write(metadata(name, shown, utf8=session.utf8))
        await session.wire.drained()
    longest = max((len(value) for _, value in found if value is not None), default=0)
    if limit is not None and longest > limit:
        return Reply("GETMETADATA completed", f"METADATA LONGENTRIES {longest}")
    return Reply("GETMETADATA completed")


async def set_metadata(session: Session, command: Command) -> Reply:
    """All of the entries or none."""
    wanted = arguments(command, SetMetadata)
    name = canonical(wanted.mailbox)
    if not name and any(entry in _READ_ONLY for entry, _ in wanted.values):
        return no("only the operator of the server may change this entry", "NOPERM")
    values = wanted.values
    if name:
        values = tuple((entry, _use(value) if entry == SPECIAL_USE else value) for entry, value in values)
    await session.mailbox.set_metadata(name, values)
    return Reply("SETMETADATA completed")


def _use(value: bytes | None) -> bytes | None:
    r"""``\Sent`` in its canonical spelling, from a list of special uses separated by spaces (RFC 6154 section 4).

    :raises SpecialUseRefused:
    """
    words = (value or b"").decode("ascii", "replace").split()
    return only_use([word[:1] + word[1:].capitalize() for word in words]).encode("ascii") or None


async def get_quota(session: Session, command: Command) -> Reply:
    """Usage and limit of a quota root."""
    if arguments(command, QuotaRoot).root != ROOT:
        return no("no such quota root", "NONEXISTENT")
    await _tell(session)
    return Reply("GETQUOTA completed")


async def get_quota_root(session: Session, command: Command) -> Reply:
    """The quota root of a mailbox, and its usage and limit; the mailbox need not exist (RFC 9208 section 4.1.2)."""
    name = canonical(arguments(command, Mailbox).mailbox)
    session.wire.write(quota_root(name, ROOT, utf8=session.utf8))
    await _tell(session)
    return Reply("GETQUOTAROOT completed")


async def _tell(session: Session) -> None:
    used = await session.mailbox.quota()
    # RFC 9208 section 5.1: STORAGE counts units of 1,024 octets
    resources = [
        ("STORAGE", -(-used.octets // 1024), used.octets_limit // 1024),
        ("MESSAGE", used.messages, used.messages_limit),
    ]
    session.wire.write(quota(ROOT, [resource for resource in resources if f"QUOTA=RES-{resource[0]}" not in session.hidden]))
