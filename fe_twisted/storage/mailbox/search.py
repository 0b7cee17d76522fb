"""SEARCH as one SQL statement: real AND, OR and NOT, exact answers (RFC 3501 section 6.4.4).

Texts are compared after folding (:func:`fe_twisted.storage.mailbox.folded.folded`), as substrings, which is what IMAP means.
The full-text index answers what lies within a word; of anything else it names candidates, and ``instr`` decides.  Every condition is
two-valued (never NULL), so that NOT is right.
"""

from __future__ import annotations

import datetime
import json
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw

from fe_twisted.base.errors import LimitReached
from fe_twisted.protocols.imap.regex import matches
from fe_twisted.protocols.imap.search import (
    All,
    And,
    Body,
    Compare,
    Date,
    DateOf,
    EmailId,
    Flag,
    Header,
    Key,
    Modseq,
    Not,
    Or,
    Ranges,
    Regex,
    Size,
    Text,
    ThreadId,
    Uids,
    Within,
)
from fe_twisted.storage.mailbox.flags import load_keywords, mask_of
from fe_twisted.storage.mailbox.folded import folded
from fe_twisted.storage.mailbox.rows import entry_id, iso
from fe_twisted.storage.mailbox.schema import FOLDER_SHIFT, UID_MASK
from fe_twisted.storage.mailbox.words import BODY, BOTH, HEADER, INDEXED, holding, is_word
from fe_twisted.storage.sqlite.connect import in_snapshot

#: Up to this many ranges stand in the statement itself; more go through a function with a binary search.
MAX_INLINE_RANGES = 20

#: Up to this many messages are looked up one by one; for more of them all messages of the folder are gone through.
MAX_LOOKED_UP = 1000

#: Where dates leave at most this share of a folder's messages over, these are looked up one by one; else all are gone through.
FEW_BY_DAY = 1 / 8

#: Up to so many messages that are not in the full-text index are compared beforehand; more of them one by one, as far as it comes to that.
FEW_UNINDEXED = 128

#: Seconds that the regular expressions of one search may take.
MAX_SECONDS = 10.0

_COLUMN_OF_FIELD = {"subject": "subject", "from": "sender", "to": "recipient", "cc": "cc", "bcc": "bcc"}


class TooLong(LimitReached):
    """A search took longer than it may."""

    default = "the search took too long; narrow it down"


@dataclass(slots=True)
class _Statement:
    """What is being put together: parameters in order, and which tables the conditions need.

    :ivar only_days: the index of days has all that is asked for.
    """

    connection: apsw.Connection
    keywords: tuple[str, ...]
    now: datetime.datetime
    folder_id: int
    only_days: bool
    parameters: list[object] = field(default_factory=list)
    tables: set[str] = field(default_factory=set)
    ranges: list[Ranges] = field(default_factory=list)
    sets: list[set[Any]] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)

    def bind(self, value: object) -> str:
        self.parameters.append(value)
        return f"?{len(self.parameters)}"


_JOINS = {
    "m": " JOIN messages m ON m.id = e.message_id",
    "f": " JOIN fields f ON f.message_id = e.message_id",
    "t": " JOIN texts t ON t.message_id = e.message_id",
}


def needs_text(program: Key) -> bool:
    """Whether the program looks into texts, so that it should not run in the reactor."""
    if isinstance(program, And):
        return any(needs_text(key) for key in program.keys)
    if isinstance(program, Or):
        return needs_text(program.left) or needs_text(program.right)
    if isinstance(program, Not):
        return needs_text(program.key)
    return isinstance(program, Header | Body | Text | Regex)


def search(connection: apsw.Connection, folder_id: int, program: Key, now: datetime.datetime) -> list[int]:
    """The UIDs that match, ascending.

    :param program: without keys that only a session can resolve (Sequence, UidSequence, Recent, Saved).
    :param now: aware; what OLDER and YOUNGER count from.
    :raises ValueError: the program holds such a key: a bug of the caller.
    """
    # The full-text index is asked before the messages, and has to be as old as they are.
    return in_snapshot(connection, lambda: _search(connection, folder_id, program, now))


def _search(connection: apsw.Connection, folder_id: int, program: Key, now: datetime.datetime) -> list[int]:
    statement = _Statement(connection, load_keywords(connection), now, folder_id, _only_days(program))
    low, high = statement.bind(entry_id(folder_id, 1)), statement.bind(entry_id(folder_id, UID_MASK))
    condition = _condition(program, statement)
    if statement.ranges:
        connection.create_scalar_function("in_ranges", _in_ranges(statement.ranges), 2, deterministic=True)
    for number, messages in enumerate(statement.sets, 1):
        connection.create_scalar_function(f"in_set_{number}", messages.__contains__, 1, deterministic=True)  # type: ignore[arg-type] # it wants *args
    if "field_contains(" in condition:
        connection.create_scalar_function("field_contains", _field_contains, 3, deterministic=True)
    if statement.patterns:
        connection.create_scalar_function("matches", _matching(statement.patterns), 2)
    joins = "".join(_JOINS[table] for table in sorted(statement.tables))
    # What is nearly in order is put in order sooner here than by SQLite.
    order = "" if statement.only_days else " ORDER BY e.id"
    sql = f"SELECT e.id & {UID_MASK} FROM entries e{joins} WHERE e.id BETWEEN {low} AND {high} AND {condition}{order}"
    found = [uid for (uid,) in connection.execute(sql, statement.parameters)]
    if statement.only_days:
        found.sort()
    for number in range(1, len(statement.sets) + 1):
        connection.create_scalar_function(f"in_set_{number}", None)  # else the connection would keep the set
    return found


def _condition(key: Key, statement: _Statement) -> str:
    build = _BUILDERS.get(type(key))
    if build is None:
        raise ValueError(f"only a session can resolve {type(key).__name__}")
    return build(key, statement)


def _all(key: All, statement: _Statement) -> str:
    return "1"


def _and(key: And, statement: _Statement) -> str:
    return "(" + " AND ".join([_condition(part, statement) for part in key.keys] or ["1"]) + ")"


def _or(key: Or, statement: _Statement) -> str:
    return f"({_condition(key.left, statement)} OR {_condition(key.right, statement)})"


def _not(key: Not, statement: _Statement) -> str:
    if isinstance(key.key, Flag):
        return _flagged(key.key, statement, "=")
    return f"(NOT {_condition(key.key, statement)})"


def _uids(key: Uids, statement: _Statement) -> str:
    uid = f"(e.id & {UID_MASK})"
    if not key.ranges:
        return "0"
    if len(key.ranges) > MAX_INLINE_RANGES:
        statement.ranges.append(key.ranges)
        return f"in_ranges({len(statement.ranges) - 1}, {uid})"
    tests = [f"{uid} BETWEEN {statement.bind(first)} AND {statement.bind(last)}" for first, last in key.ranges]
    return "(" + " OR ".join(tests) + ")"


def _in_ranges(tables: Sequence[Ranges]) -> Callable[..., bool]:
    firsts = [[first for first, _ in ranges] for ranges in tables]

    def contains(*values: Any) -> bool:
        table, uid = values
        position = bisect_right(firsts[table], uid) - 1
        return position >= 0 and uid <= tables[table][position][1]

    return contains


def _flag(key: Flag, statement: _Statement) -> str:
    return _flagged(key, statement, "!=")


def _flagged(key: Flag, statement: _Statement, compare: str) -> str:
    """The mask stands in the statement: only so does SQLite see that an index of the unseen or of the deleted messages answers it."""
    return f"(e.flags & {mask_of((key.name,), statement.keywords)} {compare} 0)"


def _header(key: Header, statement: _Statement) -> str:
    name, value = key.name.lower(), folded(key.value)
    column = _COLUMN_OF_FIELD.get(name)
    if column and value:
        statement.tables.add("f")
        return f"({_candidates(value, (HEADER,), statement)}instr(f.{column}, {statement.bind(value)}) > 0)"
    statement.tables.add("t")
    exists = f"instr(t.header, {statement.bind(chr(10) + name + ':')}) > 0"
    if not value:
        return f"({exists})"
    needle = statement.bind(value)
    return (
        f"({_candidates(value, (HEADER,), statement)}{exists} AND instr(t.header, {needle}) > 0"
        f" AND field_contains(t.header, {statement.bind(name)}, {needle}))"
    )


def _field_contains(*values: Any) -> bool:
    header, name, value = values
    prefix = name + ":"
    return any(line.startswith(prefix) and value in line[len(prefix) :] for line in header.split("\n"))


def _body(key: Body, statement: _Statement) -> str:
    return _contains(folded(key.value), (BODY,), statement)


def _text(key: Text, statement: _Statement) -> str:
    return _contains(folded(key.value), BOTH, statement)


_TEXT_OF_PART = {HEADER: "t.header", BODY: "t.body"}


def _contains(value: str, parts: tuple[int, ...], statement: _Statement) -> str:
    """The condition that the value is in one of the parts of the message."""
    if not value:
        return "1"
    found = holding(statement.connection, value, parts) if is_word(value) else None
    if found is None:
        statement.tables.add("t")
        return f"({_candidates(value, parts, statement)}{_compared(parts, statement.bind(value))})"
    if _few_unindexed(statement.connection):
        sql = f"SELECT message_id FROM texts t WHERE message_id > {INDEXED} AND {_compared(parts, '?1')}"
        found.update(message for (message,) in statement.connection.execute(sql, (value,)))
        return _among(found, statement)
    # One by one, and only those that all else that was asked for leaves over.
    compared = f"EXISTS (SELECT 1 FROM texts t WHERE t.message_id = e.message_id AND {_compared(parts, statement.bind(value))})"
    return f"({_among(found, statement)} OR (e.message_id > {INDEXED} AND {compared}))"


def _few_unindexed(connection: apsw.Connection) -> bool:
    """Whether so few messages are not in the index that those with a word are best found beforehand, whatever else is asked for."""
    sql = f"SELECT count(*) FROM (SELECT 1 FROM previews WHERE message_id > {INDEXED} LIMIT {FEW_UNINDEXED + 1})"
    return int(connection.execute(sql).get) <= FEW_UNINDEXED


def _compared(parts: tuple[int, ...], needle: str) -> str:
    return "(" + " OR ".join([f"instr({_TEXT_OF_PART[part]}, {needle}) > 0" for part in parts]) + ")"


def _candidates(value: str, parts: tuple[int, ...], statement: _Statement) -> str:
    """A condition that holds for every message with the value in one of the parts; empty where the index does not know."""
    found = holding(statement.connection, value, parts)
    if found is None:
        return ""
    if not _few_unindexed(statement.connection):
        return f"({_among(found, statement)} OR e.message_id > {INDEXED}) AND "
    found.update(message for (message,) in statement.connection.execute(f"SELECT message_id FROM previews WHERE message_id > {INDEXED}"))
    return _among(found, statement) + " AND "


def _among(messages: set[int], statement: _Statement) -> str:
    if len(messages) > MAX_LOOKED_UP:
        statement.sets.append(messages)
        return f"in_set_{len(statement.sets)}(e.message_id)"
    return f"e.message_id IN (SELECT value FROM json_each({statement.bind(json.dumps(sorted(messages)))}))"


def _date(key: Date, statement: _Statement) -> str:
    compare = key.compare.value
    if key.of is DateOf.INTERNAL:
        # For messages of the folder the first of the two is always true: it makes SQLite use the index of days.
        by_day = f"e.id >> {FOLDER_SHIFT} = {statement.bind(statement.folder_id)} AND " if _goes_by_day(key, statement) else ""
        return f"({by_day}e.day {compare} {statement.bind(key.day.toordinal())})"
    if key.of is DateOf.SAVED:
        return f"(substr(e.saved_at, 1, 10) {compare} {statement.bind(key.day.isoformat())})"
    statement.tables.add("m")
    return f"(m.sent_day IS NOT NULL AND m.sent_day {compare} {statement.bind(key.day.toordinal())})"


def _only_days(program: Key) -> bool:
    """Whether it asks for nothing but UIDs and days of INTERNALDATE."""
    match program:
        case And(keys):
            return all(map(_only_days, keys))
        case Or(left, right):
            return _only_days(left) and _only_days(right)
        case Not(key):
            return _only_days(key)
        case Date(of):
            return of is DateOf.INTERNAL
        case _:
            return isinstance(program, All | Uids)


def _goes_by_day(key: Date, statement: _Statement) -> bool:
    """Whether the index of days is to be used, because it has all that is asked for, or because the days leave few messages over."""
    if statement.only_days:
        return True
    messages = statement.connection.execute("SELECT messages FROM folders WHERE id = ?", (statement.folder_id,)).get or 0
    few = int(messages * FEW_BY_DAY)
    sql = f"SELECT 1 FROM entries WHERE id >> {FOLDER_SHIFT} = ? AND day {key.compare.value} ? LIMIT 1 OFFSET ?"
    return statement.connection.execute(sql, (statement.folder_id, key.day.toordinal(), few)).get is None


def _size(key: Size, statement: _Statement) -> str:
    statement.tables.add("m")
    compare = ">" if key.compare is Compare.LARGER else key.compare.value
    return f"(m.size {compare} {statement.bind(key.octets)})"


def _modseq(key: Modseq, statement: _Statement) -> str:
    return f"(e.modseq >= {statement.bind(key.value)})"


def _email_id(key: EmailId, statement: _Statement) -> str:
    statement.tables.add("m")
    return f"(m.object_id = {statement.bind(key.value)})"


def _thread_id(key: ThreadId, statement: _Statement) -> str:
    return f"(e.message_id IN (SELECT id FROM messages WHERE thread = {statement.bind(key.number)}))" if key.number else "0"


def _within(key: Within, statement: _Statement) -> str:
    edge = iso(statement.now - datetime.timedelta(seconds=min(key.seconds, 50_000 * 86_400)))
    return f"(e.received_at {'>=' if key.younger else '<='} {statement.bind(edge)})"


def _regex(key: Regex, statement: _Statement) -> str:
    statement.patterns.append(key.pattern)
    call = f"matches({len(statement.patterns) - 1}, "
    column = _COLUMN_OF_FIELD.get(key.name)
    if column:
        statement.tables.add("f")
        return f"{call}f.{column})"
    statement.tables.add("t")
    return f"{call}t.body)" if key.name == "body" else f"({call}t.header) OR {call}t.body))"


def _matching(patterns: Sequence[str]) -> Callable[..., bool]:
    """The SQL function; it gives up when all the matching of one search has taken too long.

    :raises TooLong: in the thread that searches.
    """
    spent = 0.0

    def match(*values: Any) -> bool:
        nonlocal spent
        number, text = values
        began = time.monotonic()
        found = matches(patterns[number], text)
        spent += time.monotonic() - began
        if spent > MAX_SECONDS:
            raise TooLong
        return found

    return match


_BUILDERS: dict[type, Callable[..., str]] = {
    All: _all,
    And: _and,
    Or: _or,
    Not: _not,
    Uids: _uids,
    Flag: _flag,
    Header: _header,
    Body: _body,
    Text: _text,
    Date: _date,
    Size: _size,
    Modseq: _modseq,
    Within: _within,
    EmailId: _email_id,
    ThreadId: _thread_id,
    Regex: _regex,
}
