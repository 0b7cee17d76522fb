"""What a command uses of capabilities that are hidden from this client; it gets the answer of a server that does not have them.

Literals are the exception: those of LITERAL+, BINARY and UTF8=ACCEPT are read all the same, since a client sends them only if it can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fe_twisted.protocols.imap.commands import (
    SAVED,
    Append,
    Command,
    Create,
    Fetch,
    FetchItem,
    List,
    Notify,
    Replace,
    Search,
    Select,
    SequenceSet,
    Status,
    Store,
)
from fe_twisted.protocols.imap.multisearch import MultiSearch
from fe_twisted.protocols.imap.search import Date, DateOf, EmailId, Key, Modseq, Regex, Saved, ThreadId, Within
from fe_twisted.protocols.imap.sort import Sort, SortKey, Thread
from fe_twisted.servers.imap.capability import TABLE
from fe_twisted.servers.imap.program import any_key
from fe_twisted.servers.imap.reply import Reply, bad
from fe_twisted.servers.imap.session import Session

_COMMANDS = {command: row.name.upper() for row in TABLE for command in row.commands}
_FETCH_ITEMS = {
    "MODSEQ": "CONDSTORE",
    "EMAILID": "OBJECTID",
    "THREADID": "OBJECTID",
    "SAVEDATE": "SAVEDATE",
    "PREVIEW": "PREVIEW",
    "BINARY[]": "BINARY",
    "BINARY.SIZE[]": "BINARY",
}
_STATUS_ITEMS = {
    "SIZE": "STATUS=SIZE",
    "HIGHESTMODSEQ": "CONDSTORE",
    "MAILBOXID": "OBJECTID",
    "APPENDLIMIT": "APPENDLIMIT",
    "DELETED-STORAGE": "QUOTA=RES-STORAGE",
}
_RETURNS = {"SAVE": "SEARCHRES", "PARTIAL": "PARTIAL"}
_DISPLAY = frozenset((SortKey.DISPLAYFROM, SortKey.DISPLAYTO))


def refusal(session: Session, command: Command) -> Reply | None:
    """BAD for a command that uses something hidden; None for all others."""
    if not session.hidden:
        return None
    name = f"UID {command.name}" if command.uid else command.name
    if _COMMANDS.get(name) in session.hidden:
        return bad("unknown command")
    for capability in _used(command.arguments):
        if capability in session.hidden:
            return bad(f"{capability} is not available")
    return None


def _used(arguments: object) -> Iterator[str]:
    """The capabilities without which these arguments would not be understood."""
    messages: SequenceSet | None = getattr(arguments, "messages", None)
    if messages == SAVED:
        yield "SEARCHRES"
    match arguments:
        case Fetch():
            yield from _of_items(arguments.items)
            if arguments.changed_since is not None:
                yield "CONDSTORE"
            if arguments.vanished:
                yield "QRESYNC"
            if arguments.partial is not None:
                yield "PARTIAL"
        case Store(unchanged_since=int()):
            yield "CONDSTORE"
        case Select(condstore=True):
            yield "CONDSTORE"
        case Status():
            yield from _of_status(arguments.items)
        case List():
            yield from _of_list(arguments)
        case Create() if arguments.special_use:
            yield "CREATE-SPECIAL-USE"
        case Append():
            if len(arguments.messages) > 1:
                yield "MULTIAPPEND"
            if any(message.parts for message in arguments.messages):
                yield "CATENATE"
        case Replace() if arguments.message.parts:
            yield "CATENATE"
        case Notify():
            for group in arguments.groups:
                yield from _of_items(group.items)
        case Search() | Sort() | Thread() | MultiSearch():
            yield from _of_search(arguments)


def _of_items(items: tuple[FetchItem, ...]) -> Iterator[str]:
    yield from (_FETCH_ITEMS[item.name] for item in items if item.name in _FETCH_ITEMS)


def _of_status(items: tuple[str, ...]) -> Iterator[str]:
    yield from (_STATUS_ITEMS[item] for item in items if item in _STATUS_ITEMS)


def _of_list(arguments: List) -> Iterator[str]:
    if arguments.selection or arguments.returns or len(arguments.patterns) > 1:
        yield "LIST-EXTENDED"
    if arguments.status:
        yield "LIST-STATUS"
        yield from _of_status(arguments.status)
    if "SPECIAL-USE" in (*arguments.selection, *arguments.returns):
        yield "SPECIAL-USE"


_KEYS: tuple[tuple[str, Callable[[Key], bool]], ...] = (
    ("CONDSTORE", lambda key: isinstance(key, Modseq)),
    ("SEARCHRES", lambda key: isinstance(key, Saved)),
    ("WITHIN", lambda key: isinstance(key, Within)),
    ("OBJECTID", lambda key: isinstance(key, EmailId | ThreadId)),
    ("SAVEDATE", lambda key: isinstance(key, Date) and key.of is DateOf.SAVED),
    ("X-SEARCH-REGEX", lambda key: isinstance(key, Regex)),
)


def _of_search(arguments: Search | Sort | Thread | MultiSearch) -> Iterator[str]:
    yield from (name for name, test in _KEYS if any_key(arguments.program, test))
    if isinstance(arguments, Thread):
        yield f"THREAD={arguments.algorithm.value}"
        return
    if isinstance(arguments, Sort) and any(criterion.key in _DISPLAY for criterion in arguments.criteria):
        yield "SORT=DISPLAY"
    if arguments.returns is not None:
        yield "ESORT" if isinstance(arguments, Sort) else "ESEARCH"
        yield from (_RETURNS[option] for option in arguments.returns if option in _RETURNS)
