"""The arguments of NOTIFY (RFC 5465 section 8)."""

from __future__ import annotations

from fe_twisted.protocols.imap import elements
from fe_twisted.protocols.imap.commands import EventGroup, FetchItem, Notify
from fe_twisted.protocols.imap.fetch import item
from fe_twisted.protocols.imap.grammar import Reader

#: Most groups, and most names in one.
MAX_GROUPS = 1_000

_SELECTED = frozenset(("SELECTED", "SELECTED-DELAYED"))
_NAMED = frozenset(("SUBTREE", "SUBTREE-ONE", "MAILBOXES"))
_OTHERS = frozenset(("INBOXES", "PERSONAL", "SUBSCRIBED"))
_MESSAGE_EVENTS = frozenset(("MESSAGENEW", "MESSAGEEXPUNGE", "FLAGCHANGE", "ANNOTATIONCHANGE"))


def notify(reader: Reader) -> Notify:
    """NOTIFY after its name."""
    reader.space()
    start = reader.at
    word = reader.word("SET or NONE")
    if word == "NONE":
        return Notify(())
    if word != "SET":
        reader.fail("expected SET or NONE", start)
    reader.space()
    status = False
    if not reader.sees(b"("):
        start = reader.at
        if reader.word("STATUS or '('") != "STATUS":
            reader.fail("expected STATUS or '('", start)
        status = True
        reader.space()
    groups = [_group(reader)]
    while reader.take(b" "):
        groups.append(_group(reader))
    if sum(group.which in _SELECTED for group in groups) > 1:
        reader.fail("expected one group at most for the selected mailbox", start)
    if len(groups) > MAX_GROUPS:
        reader.fail(f"more than {MAX_GROUPS} groups", start)
    return Notify(tuple(groups), status)


def _group(reader: Reader) -> EventGroup:
    reader.expect(b"(")
    start = reader.at
    which = reader.word("a mailbox filter")
    if which not in _SELECTED | _NAMED | _OTHERS:
        reader.fail("expected selected, selected-delayed, inboxes, personal, subscribed, subtree, subtree-one or mailboxes", start)
    reader.space()
    names: tuple[str, ...] = ()
    if which in _NAMED:
        names = reader.parenthesised(elements.mailbox) if reader.sees(b"(") else (elements.mailbox(reader),)
        reader.space()
    start = reader.at
    if reader.sees(b"("):
        events, items = _events(reader)
    elif reader.word("events or NONE") == "NONE":
        events, items = frozenset(), ()
    else:
        reader.fail("expected events in parentheses or NONE", start)
    reader.expect(b")")
    if items and which not in _SELECTED:
        reader.fail("data items are for the selected mailbox only", start)
    if which in _SELECTED and events.intersection(("MAILBOXNAME", "SUBSCRIPTIONCHANGE", "MAILBOXMETADATACHANGE", "SERVERMETADATACHANGE")):
        reader.fail("only events of messages can be asked for of the selected mailbox", start)
    if events & _MESSAGE_EVENTS and not events.issuperset(("MESSAGENEW", "MESSAGEEXPUNGE")):
        reader.fail("MessageNew and MessageExpunge go together, and FlagChange needs both", start)  # section 5
    return EventGroup(which, names, events, items)


def _events(reader: Reader) -> tuple[frozenset[str], tuple[FetchItem, ...]]:
    reader.expect(b"(")
    events: set[str] = set()
    items: tuple[FetchItem, ...] = ()
    while True:
        event = reader.word("an event")
        events.add(event)
        if event == "MESSAGENEW" and reader.take(b" ("):
            reader.at -= 1
            items = tuple(dict.fromkeys(reader.parenthesised(item)))
        if reader.take(b")"):
            return frozenset(events), items
        reader.space()
