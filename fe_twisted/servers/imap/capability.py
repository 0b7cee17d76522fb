"""What the server can do, one row a capability: only what works right now is named (RFC 3501 section 6.1.1).

An owner whose client stumbles over a capability can have it hidden (``forwardemail alias set ADDRESS --hide-capability NAME``).  A hidden
capability is not named after login, and what belongs to it is refused: its commands as unknown, the rest by
:mod:`fe_twisted.servers.imap.hidden`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from fe_twisted.servers.imap.session import Session, State


def may_login(session: Session) -> bool:
    """A password may be sent now: under TLS, or from this machine where the settings allow it."""
    return session.wire.secure or session.plaintext


def can_start_tls(session: Session) -> bool:
    """STARTTLS would work now."""
    return session.tls and not session.wire.secure


class Row(NamedTuple):
    """One capability.

    :param states: when it is named.
    :param commands: commands that exist only with it, ``UID EXPUNGE`` with its UID.
    :param needs: capabilities without which it is none; hidden with them.
    :param test: whether it works for this session; None for always.
    :param value: what follows the name and ``=``.
    """

    name: str
    states: int
    commands: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    test: Callable[[Session], bool] | None = None
    value: Callable[[Session], str] | None = None


_BEFORE = State.GREETED
_AFTER = State.AUTHENTICATED | State.SELECTED
_BOTH = _BEFORE | _AFTER

TABLE: tuple[Row, ...] = (
    Row("IMAP4rev1", _BOTH),
    Row("IMAP4rev2", _BOTH),
    Row("LITERAL-", _BEFORE),
    Row("LITERAL+", _AFTER),
    Row("SASL-IR", _BEFORE),
    Row("ID", _BOTH, ("ID",)),
    Row("ENABLE", _BOTH, ("ENABLE",)),
    Row("IDLE", _BOTH, ("IDLE",)),
    Row("STARTTLS", _BEFORE, test=can_start_tls),
    Row("AUTH=PLAIN", _BEFORE, test=may_login),
    Row("AUTH=LOGIN", _BEFORE, test=may_login),
    Row("AUTH=SCRAM-SHA-256", _BEFORE, test=may_login),
    Row("AUTH=SCRAM-SHA-256-PLUS", _BEFORE, test=lambda session: may_login(session) and bool(session.wire.channel_binding())),
    Row("LOGINDISABLED", _BEFORE, test=lambda session: not may_login(session)),
    Row("NAMESPACE", _AFTER, ("NAMESPACE",)),
    Row("UNSELECT", _AFTER, ("UNSELECT",)),
    Row("UIDPLUS", _AFTER, ("UID EXPUNGE",)),
    Row("MOVE", _AFTER, ("MOVE", "UID MOVE")),
    Row("CHILDREN", _AFTER),
    Row("SPECIAL-USE", _AFTER),
    Row("CREATE-SPECIAL-USE", _AFTER, needs=("SPECIAL-USE",)),
    Row("LIST-EXTENDED", _AFTER),
    Row("LIST-STATUS", _AFTER, needs=("LIST-EXTENDED",)),
    # in step with other sessions
    Row("CONDSTORE", _AFTER),
    Row("QRESYNC", _AFTER, needs=("CONDSTORE", "ENABLE")),
    Row("UIDONLY", _AFTER, needs=("ENABLE",)),
    Row("UTF8=ACCEPT", _AFTER, needs=("ENABLE",)),
    Row("UNAUTHENTICATE", _AFTER, ("UNAUTHENTICATE",)),
    Row("STATUS=SIZE", _AFTER),
    Row("INPROGRESS", _AFTER),
    Row("NOTIFY", _AFTER, ("NOTIFY",)),
    Row("OBJECTID", _AFTER),
    Row("SAVEDATE", _AFTER),
    # searching
    Row("ESEARCH", _AFTER),
    Row("SEARCHRES", _AFTER, needs=("ESEARCH",)),
    Row("PARTIAL", _AFTER, needs=("ESEARCH",)),
    Row("WITHIN", _AFTER),
    Row("PREVIEW", _AFTER),
    Row("X-SEARCH-REGEX", _AFTER),
    Row("MULTISEARCH", _AFTER, ("ESEARCH",), needs=("ESEARCH",)),
    Row("SORT", _AFTER, ("SORT", "UID SORT")),
    Row("SORT=DISPLAY", _AFTER, needs=("SORT",)),
    Row("ESORT", _AFTER, needs=("SORT",)),
    Row("THREAD=ORDEREDSUBJECT", _AFTER),
    Row("THREAD=REFERENCES", _AFTER),
    Row("COMPRESS=DEFLATE", _AFTER, ("COMPRESS",), test=lambda session: session.limits.compress and not session.compressed),
    # writing
    Row("METADATA", _AFTER, ("GETMETADATA", "SETMETADATA")),
    Row("QUOTA", _AFTER, ("GETQUOTA", "GETQUOTAROOT")),
    Row("QUOTA=RES-STORAGE", _AFTER, needs=("QUOTA",)),
    Row("QUOTA=RES-MESSAGE", _AFTER, needs=("QUOTA",)),
    Row("MULTIAPPEND", _AFTER),
    Row("BINARY", _AFTER),
    Row("CATENATE", _AFTER),
    Row("REPLACE", _AFTER, ("REPLACE", "UID REPLACE")),
    Row("APPENDLIMIT", _AFTER, value=lambda session: str(session.limits.message_size)),
)

#: What may be hidden: everything after login but the protocol itself.
HIDEABLE = tuple(row.name for row in TABLE if row.states & _AFTER and row.name != "IMAP4rev1")


@lru_cache(maxsize=64)
def closed(names: frozenset[str]) -> frozenset[str]:
    """These names in upper case, with all that need one of them."""
    hidden = {name.upper() for name in names}
    while more := {row.name.upper() for row in TABLE if hidden.intersection(need.upper() for need in row.needs)} - hidden:
        hidden |= more
    return frozenset(hidden)


def capabilities(session: Session) -> tuple[str, ...]:
    """The names for CAPABILITY."""
    names = tuple(_named(row, session) for row in TABLE if _works(row, session))
    session.binding_told = session.binding_told or "AUTH=SCRAM-SHA-256-PLUS" in names
    return names


def _works(row: Row, session: Session) -> bool:
    if not row.states & session.state or (session.hidden and row.name.upper() in session.hidden):
        return False
    return row.test is None or row.test(session)


def _named(row: Row, session: Session) -> str:
    return row.name if row.value is None else f"{row.name}={row.value(session)}"


def capability_code(session: Session) -> str:
    """The same as a response code, which saves the client a round trip."""
    return "CAPABILITY " + " ".join(capabilities(session))
