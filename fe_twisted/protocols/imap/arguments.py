"""Every command we know: its name, and the function that reads what follows the name.

The table is the whole of the language: a command that is not in it is unknown, whatever any base class might have.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

from fe_twisted.protocols.imap import elements
from fe_twisted.protocols.imap.append import append, replace
from fe_twisted.protocols.imap.commands import (
    SAVED,
    Authenticate,
    Compress,
    Copy,
    Create,
    Enable,
    Expunge,
    Id,
    List,
    Login,
    Mailbox,
    Rename,
    Resync,
    Select,
    SequenceSet,
    Status,
    Store,
)
from fe_twisted.protocols.imap.fetch import fetch, uid_fetch
from fe_twisted.protocols.imap.grammar import MAX_NUMBER64, Reader
from fe_twisted.protocols.imap.metadata import get_metadata, get_quota, set_metadata
from fe_twisted.protocols.imap.multisearch import multisearch
from fe_twisted.protocols.imap.notify import notify
from fe_twisted.protocols.imap.searchkeys import search
from fe_twisted.protocols.imap.sort import sort, thread

#: RFC 2971 section 3.3: at most 30 pairs, names of 30 octets, values of 1,024.
_ID_PAIRS, _ID_NAME, _ID_VALUE = 30, 30, 1_024
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*+={0,2}")
_STATUS_ITEMS = frozenset(
    (
        "MESSAGES",
        "RECENT",
        "UIDNEXT",
        "UIDVALIDITY",
        "UNSEEN",
        "DELETED",
        "SIZE",
        "HIGHESTMODSEQ",
        "MAILBOXID",
        "APPENDLIMIT",
        "DELETED-STORAGE",
    )
)
_SELECTION = frozenset(("SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE"))
_LIST_RETURNS = frozenset(("SUBSCRIBED", "CHILDREN", "SPECIAL-USE", "STATUS"))
_ACTIONS: dict[str, Literal["add", "remove", "replace"]] = {"+": "add", "-": "remove", "": "replace"}
_STORE_ITEM = re.compile(rb"([+-]?)FLAGS(\.SILENT)?", re.IGNORECASE)


# -- before and at login --------------------------------------------------------------------------


def _login(reader: Reader) -> Login:
    reader.space()
    user = reader.astring("a user name")
    reader.space()
    return Login(user, reader.astring("a password"))


def _authenticate(reader: Reader) -> Authenticate:
    reader.space()
    mechanism = reader.word("a mechanism")
    # the response is only looked at for its alphabet here; protocols.sasl decodes it strictly
    initial = reader.match(_BASE64, "an initial response")[0] if reader.take(b" ") else None
    if initial == b"":
        reader.fail("expected an initial response, '=' for an empty one")
    return Authenticate(mechanism, initial)


def _enable(reader: Reader) -> Enable:
    names: list[str] = []
    while not reader.ended():
        reader.space()
        names.append(reader.word("a capability"))
    if not names:
        reader.fail("expected a capability")
    return Enable(tuple(names))


def _compress(reader: Reader) -> Compress:
    reader.space()
    return Compress(reader.word("a mechanism"))


def _id(reader: Reader) -> Id:
    reader.space()
    if not reader.sees(b"("):
        if reader.nstring() is not None:
            reader.fail("expected NIL or '('")
        return Id(())
    fields = reader.parenthesised(_id_pair, empty=True)
    if len(fields) > _ID_PAIRS:
        reader.fail(f"more than {_ID_PAIRS} fields")
    return Id(fields)


def _id_pair(reader: Reader) -> tuple[str, str | None]:
    start = reader.at
    name = reader.string()
    reader.space()
    value = reader.nstring()
    if len(name) > _ID_NAME or len(value or b"") > _ID_VALUE:
        reader.fail("field name or value too long", start)
    return name.decode("utf-8", "replace"), None if value is None else value.decode("utf-8", "replace")


# -- mailboxes ------------------------------------------------------------------------------------


def _mailbox(reader: Reader) -> Mailbox:
    reader.space()
    return Mailbox(elements.mailbox(reader))


def _select(reader: Reader) -> Select:
    reader.space()
    name = elements.mailbox(reader)
    if not reader.take(b" "):
        return Select(name)
    start = reader.at
    parameters = reader.parenthesised(_select_parameter)
    resyncs = [parameter for parameter in parameters if parameter is not None]
    if len(resyncs) > 1 or len(parameters) - len(resyncs) > 1:
        reader.fail("a parameter is repeated", start)
    return Select(name, len(parameters) > len(resyncs), resyncs[0] if resyncs else None)


def _select_parameter(reader: Reader) -> Resync | None:
    """``CONDSTORE``, which is None here, or ``QRESYNC (67890007 20050715194045000 41:211 (1:3 4:6))`` (RFC 7162 section 7)."""
    start = reader.at
    name = reader.word("a parameter")
    if name == "CONDSTORE":
        return None
    if name != "QRESYNC":
        reader.fail("expected the parameters CONDSTORE or QRESYNC", start)
    reader.space()
    reader.expect(b"(")
    uidvalidity = reader.number(minimum=1)
    reader.space()
    modseq = reader.number(MAX_NUMBER64, 1)
    known, match = None, None
    if reader.take(b" "):
        if not reader.sees(b"("):
            known = _numbers(reader)
        if (known is None or reader.take(b" ")) and reader.sees(b"("):
            match = _match_data(reader)
    reader.expect(b")")
    return Resync(uidvalidity, modseq, known, match)


def _match_data(reader: Reader) -> tuple[SequenceSet, SequenceSet]:
    """Message numbers and their UIDs: as many of these as of those, both ascending (RFC 7162 section 3.2.5.2)."""
    start = reader.at
    reader.expect(b"(")
    numbers = _numbers(reader)
    reader.space()
    uids = _numbers(reader)
    reader.expect(b")")
    for items in (numbers, uids):
        flat = [number for pair in items for number in ((pair[0],) if pair[0] == pair[1] else pair)]
        if any((left or 0) >= (right or 0) for left, right in pairwise(flat)):
            reader.fail("message numbers and UIDs must ascend", start)
    if _count(numbers) != _count(uids):
        reader.fail("expected as many UIDs as message numbers", start)
    return numbers, uids


def _numbers(reader: Reader) -> SequenceSet:
    """A sequence set without ``*`` and ``$``."""
    start = reader.at
    items = elements.sequence_set(reader)
    if items == SAVED or any(first is None or second is None for first, second in items):
        reader.fail("'*' and '$' cannot stand here", start)
    return items


def _count(items: SequenceSet) -> int:
    return sum((second or 0) - (first or 0) + 1 for first, second in items)


def _create(reader: Reader) -> Create:
    reader.space()
    name = elements.mailbox(reader)
    if not reader.take(b" "):
        return Create(name)
    reader.expect(b"(")
    if reader.word("USE") != "USE":
        reader.fail("expected USE")
    reader.space()
    uses = reader.parenthesised(_special_use, empty=True)
    reader.expect(b")")
    return Create(name, uses)


def _special_use(reader: Reader) -> str:
    r"""``\Sent`` in its canonical spelling; which uses there are is the server's business (RFC 6154 section 3)."""
    reader.expect(b"\\")
    return "\\" + reader.atom("a special use").capitalize()


def _rename(reader: Reader) -> Rename:
    reader.space()
    old = elements.mailbox(reader)
    reader.space()
    return Rename(old, elements.mailbox(reader))


def _list(reader: Reader) -> List:
    """LIST, with what RFC 5258, RFC 5819 and RFC 6154 added."""
    reader.space()
    selection: tuple[str, ...] = ()
    if reader.sees(b"("):
        start = reader.at
        selection = reader.parenthesised(_selection_option, empty=True)
        if "RECURSIVEMATCH" in selection and not {"SUBSCRIBED", "SPECIAL-USE"}.intersection(selection):
            reader.fail("RECURSIVEMATCH needs SUBSCRIBED or SPECIAL-USE", start)  # RFC 5258 section 3.1
        reader.space()
    reference = elements.mailbox(reader)
    reader.space()
    patterns = reader.parenthesised(_pattern) if reader.sees(b"(") else (_pattern(reader),)
    if not reader.take(b" "):
        return List(reference, patterns, selection)
    if reader.word("RETURN") != "RETURN":
        reader.fail("expected RETURN")
    reader.space()
    options = reader.parenthesised(_list_return, empty=True)
    names = tuple(dict.fromkeys(name for name, _ in options))
    status = tuple(dict.fromkeys(item for _, items in options for item in items))
    return List(reference, patterns, selection, names, status)


def _lsub(reader: Reader) -> List:
    reader.space()
    reference = elements.mailbox(reader)
    reader.space()
    return List(reference, (_pattern(reader),))


def _pattern(reader: Reader) -> str:
    start = reader.at
    return elements.mailbox_text(reader, reader.list_pattern(), start)


def _selection_option(reader: Reader) -> str:
    start = reader.at
    option = reader.word("a selection option")
    if option not in _SELECTION:
        reader.fail("unknown selection option", start)
    return option


def _list_return(reader: Reader) -> tuple[str, tuple[str, ...]]:
    start = reader.at
    option = reader.word("a return option")
    if option not in _LIST_RETURNS:
        reader.fail("unknown return option", start)
    if option != "STATUS":
        return option, ()
    reader.space()
    return option, reader.parenthesised(_status_item)


def _status(reader: Reader) -> Status:
    reader.space()
    name = elements.mailbox(reader)
    reader.space()
    return Status(name, tuple(dict.fromkeys(reader.parenthesised(_status_item))))


def _status_item(reader: Reader) -> str:
    start = reader.at
    item = reader.word("a status item")
    if item not in _STATUS_ITEMS:
        reader.fail(f"unknown status item {item[:32]}", start)
    return item


# -- messages -------------------------------------------------------------------------------------


def _store(reader: Reader) -> Store:
    reader.space()
    messages = elements.sequence_set(reader)
    reader.space()
    unchanged_since = None
    if reader.take(b"("):
        if reader.word("UNCHANGEDSINCE") != "UNCHANGEDSINCE":
            reader.fail("expected UNCHANGEDSINCE")
        reader.space()
        unchanged_since = reader.number(MAX_NUMBER64)
        reader.expect(b")")
        reader.space()
    found = reader.match(_STORE_ITEM, "FLAGS, +FLAGS or -FLAGS, each also with .SILENT")
    reader.space()
    if reader.sees(b"("):
        flags = elements.flag_list(reader)
    else:
        bare = [elements.flag(reader)]
        while reader.take(b" "):
            bare.append(elements.flag(reader))
        flags = frozenset(bare)
    return Store(messages, _ACTIONS[found[1].decode("ascii")], flags, bool(found[2]), unchanged_since)


def _copy(reader: Reader) -> Copy:
    reader.space()
    messages = elements.sequence_set(reader)
    reader.space()
    return Copy(messages, elements.mailbox(reader))


def _uid_expunge(reader: Reader) -> Expunge:
    reader.space()
    return Expunge(elements.sequence_set(reader))


ReadArguments = Callable[[Reader], object]

#: Commands, and how to read their arguments; None for a command that takes none.
COMMANDS: dict[str, ReadArguments | None] = {
    **dict.fromkeys(
        ("CAPABILITY", "NOOP", "LOGOUT", "STARTTLS", "CHECK", "CLOSE", "UNSELECT", "EXPUNGE", "IDLE", "NAMESPACE", "UNAUTHENTICATE"),
    ),
    **dict.fromkeys(("SELECT", "EXAMINE"), _select),
    **dict.fromkeys(("DELETE", "SUBSCRIBE", "UNSUBSCRIBE"), _mailbox),
    **dict.fromkeys(("COPY", "MOVE"), _copy),
    "LOGIN": _login,
    "AUTHENTICATE": _authenticate,
    "ENABLE": _enable,
    "COMPRESS": _compress,
    "ID": _id,
    "CREATE": _create,
    "RENAME": _rename,
    "LIST": _list,
    "LSUB": _lsub,
    "STATUS": _status,
    "APPEND": append,
    "FETCH": fetch,
    "STORE": _store,
    "NOTIFY": notify,
    "SEARCH": search,
    "GETQUOTA": get_quota,
    "GETQUOTAROOT": _mailbox,
    "GETMETADATA": get_metadata,
    "SETMETADATA": set_metadata,
    "ESEARCH": multisearch,
    "SORT": sort,
    "THREAD": thread,
    "REPLACE": replace,
}

#: The same for commands prefixed with UID.
UID_COMMANDS: dict[str, ReadArguments | None] = {
    "FETCH": uid_fetch,
    "STORE": _store,
    "SEARCH": search,
    "SORT": sort,
    "THREAD": thread,
    "REPLACE": replace,
    "COPY": _copy,
    "MOVE": _copy,
    "EXPUNGE": _uid_expunge,
}
