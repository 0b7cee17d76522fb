"""THREAD: which message answers which (RFC 5256 section 3).

Message ids were hashed and base subjects made when the messages were stored; what is left is work on numbers.  Nothing recurses, so
no thread is too deep.  The last answer is kept: as long as the same messages match, nothing about it can have changed.
"""

from __future__ import annotations

import datetime
from array import array
from itertools import groupby
from operator import itemgetter
from typing import Any

import apsw

from fe_twisted.protocols.imap.search import Key, Ranges
from fe_twisted.protocols.imap.sort import Algorithm, Outline, Threads, threads
from fe_twisted.protocols.mime.order import unpack
from fe_twisted.storage.mailbox.rows import entry_id, runs, spans
from fe_twisted.storage.mailbox.schema import UID_MASK
from fe_twisted.storage.mailbox.search import search
from fe_twisted.storage.mailbox.sort import covers, state_of

#: One message: its UID, the time of its Date field (INTERNALDATE without one), base subject, whether that is a reply's, Message-ID and
#: references.
_Row = tuple[int, int, str, int, int, bytes]

_COLUMNS = f"e.id & {UID_MASK}, coalesce(o.sent, CAST(strftime('%s', e.received_at) AS INTEGER)), o.subject, o.reply, o.identity, o.refs"
#: Looking for loops, a forest's links are followed upwards so many times in all.  Only References made for the purpose need more; links
#: that cannot be looked at any more are not made.
MAX_STEPS = 2_000_000
#: More runs of UIDs than this are read in one sweep over the folder.
_MAX_SPANS = 100


class Threading:
    """Threads that were asked for last.  May be used in several threads, each with a connection of its own."""

    def __init__(self) -> None:
        self._kept: tuple[int, Algorithm, array[int], Threads] | None = None
        #: Of which folder, by which algorithm and at which modseq it was the answer for all messages, and these as ranges.
        self._whole: tuple[tuple[int, Algorithm, int], Ranges] = ((0, Algorithm.REFERENCES, 0), ())

    def thread(self, connection: apsw.Connection, folder_id: int, program: Key, algorithm: Algorithm, now: datetime.datetime) -> Threads:
        """See :meth:`fe_twisted.storage.mailbox.api.Mailbox.thread`."""
        _, modseq, messages = state_of(connection, folder_id)
        state = (folder_id, algorithm, modseq)
        kept = self._kept
        if kept is not None and self._whole[0] == state and covers(program, self._whole[1]):
            return kept[3]
        found = array("L", search(connection, folder_id, program, now))
        if kept is None or kept[:2] != (folder_id, algorithm) or kept[2] != found:
            rows = _rows(connection, folder_id, found.tolist())
            made = threads(by_references(rows) if algorithm is Algorithm.REFERENCES else by_subject(rows))
            self._kept = kept = folder_id, algorithm, found, made
        self._whole = (state, runs(found)) if len(found) == messages else ((0, algorithm, 0), ())
        return kept[3]


def _rows(connection: apsw.Connection, folder_id: int, uids: list[int]) -> list[_Row]:
    sql = f"SELECT {_COLUMNS} FROM entries e JOIN orders o ON o.message_id = e.message_id WHERE e.id BETWEEN ? AND ? ORDER BY e.id"
    ranges = runs(uids)
    if len(ranges) <= _MAX_SPANS:
        found: list[Any] = []
        for span in spans(folder_id, ranges):
            found.extend(connection.execute(sql, span))
        return found
    wanted = set(uids)
    everything = connection.execute(sql, (entry_id(folder_id, 1), entry_id(folder_id, UID_MASK)))
    return [row for row in everything if row[0] in wanted]


def by_subject(rows: list[_Row]) -> Outline:
    """ORDEREDSUBJECT: messages of one base subject are replies to the oldest of them.

    :param rows: in the order of their UIDs.
    """
    ordered = sorted(rows, key=itemgetter(2, 1, 0))
    groups = [list(group) for _, group in groupby(ordered, key=itemgetter(2))]
    groups.sort(key=lambda group: (group[0][1], group[0][0]))
    outline: list[tuple[int, int]] = []
    for group in groups:
        outline.append((group[0][0], 0))
        outline.extend((row[0], 1) for row in group[1:])
    return outline


def by_references(rows: list[_Row]) -> Outline:
    """REFERENCES: the tree that the message ids make, and trees of one base subject joined.

    :param rows: in the order of their UIDs.
    """
    forest = _Forest(rows)
    forest.link()
    forest.gather()
    forest.join_subjects()
    return forest.flatten()


class _Forest:
    """Containers, as section 3 calls them, by number: ``0 … len(rows) - 1`` hold a message, those above stand for one that is not there.

    Container ``parent[c]`` is -1 at the top.
    """

    def __init__(self, rows: list[_Row]) -> None:
        self.rows = rows
        self.parent = [-1] * len(rows)
        self.children: dict[int, list[int]] = {}
        self.roots: list[int] = []
        self._moments = [(row[1], row[0]) for row in rows]
        self._steps = MAX_STEPS
        #: Base subject of a thread, and whether it is a reply's.
        self.subject: dict[int, tuple[str, bool]] = {}

    # -- step 1 -----------------------------------------------------------------------------------

    def link(self) -> None:
        """Parents from References; links that would make a loop, or replace another's, are not made."""
        parent = self.parent
        known: dict[int, int] = {}
        for number, row in enumerate(self.rows):
            if row[4]:
                known.setdefault(row[4], number)  # the id of an earlier message: this one counts as having none of its own
        has_children = bytearray(len(parent))
        for number, row in enumerate(self.rows):
            references = row[5]
            last = -1
            if references:
                for identity in unpack(references):
                    container = known.get(identity, -1)
                    if container < 0:
                        container = known[identity] = len(parent)
                        parent.append(-1)
                        has_children.append(0)
                    if last >= 0 and parent[container] < 0 and not self._within(last, container, has_children):
                        parent[container] = last
                        has_children[last] = 1
                    last = container
            # The message's own References are better than what others said of it.
            before = parent[number]
            if before == last:
                continue
            parent[number] = -1
            if last >= 0 and not self._within(last, number, has_children):
                parent[number] = last
                has_children[last] = 1

    def _within(self, container: int, above: int, has_children: bytearray) -> bool:
        """Whether a container is another one or below it, or that would take too long to find out."""
        if container == above:
            return True
        if not has_children[above]:
            return False
        parent = self.parent
        while container >= 0:
            if container == above or self._steps <= 0:
                return True
            self._steps -= 1
            container = parent[container]
        return False

    # -- steps 2 to 4 -----------------------------------------------------------------------------

    def gather(self) -> None:
        """The top containers in order, without dummies that are good for nothing."""
        count = len(self.rows)
        parent = self.parent
        # Step 3: a message whose parents are not there belongs to the nearest one that is, or else to the topmost dummy, which
        # is kept only when it has several children.
        tops: dict[int, list[int]] = {}
        nearest: dict[int, int] = {}  # of a dummy: the message above it, or the topmost dummy
        for number in range(count):
            above = parent[number]
            if above >= count:
                passed = []
                while above >= count and above not in nearest:
                    passed.append(above)
                    above = parent[above]
                above = nearest.get(above, above)
                if above < 0:
                    above = passed[-1]
                nearest.update(dict.fromkeys(passed, above))
            if 0 <= above < count:
                self.children.setdefault(above, []).append(number)
            else:
                tops.setdefault(above if above >= 0 else -1 - number, []).append(number)
        for top, members in tops.items():
            if len(members) == 1:
                self.roots.append(members[0])
            else:
                self.children[top] = members
                self.roots.append(top)
        self._sort(self.roots)

    def _sort(self, siblings: list[int]) -> None:
        """By date, then by UID; a dummy counts as its first child."""
        siblings.sort(key=self._moment)

    def _moment(self, container: int) -> tuple[int, int]:
        if container >= len(self.rows):
            return min([self._moments[child] for child in self.children[container]])
        return self._moments[container]

    # -- step 5 -----------------------------------------------------------------------------------

    def join_subjects(self) -> None:
        """Threads of the same base subject become one."""
        table: dict[str, int] = {}
        for root in self.roots:
            subject, reply = self._subject(root)
            if not subject:
                continue
            held = table.get(subject)
            # a dummy is preferred, and a message that is no reply to one that is
            if held is None or (root >= len(self.rows) > held) or (held < len(self.rows) and self._subject(held)[1] and not reply):
                table[subject] = root
        kept: list[int] = []
        merged: dict[int, int] = {}
        for root in self.roots:
            subject, reply = self._subject(root)
            held = table.get(subject, root)
            if held == root:
                kept.append(root)
            else:
                self._merge(root, reply, held, table, subject, merged)
        self.roots = [merged.get(root, root) for root in kept]

    def _subject(self, root: int) -> tuple[str, bool]:
        """Base subject of a thread: that of its first message, for a dummy that of its first child."""
        found = self.subject.get(root)
        if found is None:
            number = root if root < len(self.rows) else min(self.children[root], key=self._moments.__getitem__)
            found = self.subject[root] = self.rows[number][2], bool(self.rows[number][3])
        return found

    def _merge(self, root: int, reply: bool, held: int, table: dict[str, int], subject: str, merged: dict[int, int]) -> None:
        """Join ``root`` with the thread that the table has for its subject."""
        held = merged.get(held, held)
        count = len(self.rows)
        if held >= count:
            # two dummies become one; a message becomes the dummy's child
            self.children[held].extend(self.children[root] if root >= count else [root])
        elif reply and not self._subject(held)[1]:
            self.children.setdefault(held, []).append(root)
        else:
            dummy = len(self.parent)
            self.parent.append(-1)
            self.children[dummy] = [held, root]
            self.subject[dummy] = self._subject(held)
            merged[table[subject]] = dummy

    # -- step 6 -----------------------------------------------------------------------------------

    def flatten(self) -> Outline:
        """All in order, top to bottom."""
        count = len(self.rows)
        children = self.children
        for siblings in children.values():
            if len(siblings) > 1:
                siblings.sort(key=self._moments.__getitem__)
        self._sort(self.roots)
        found: list[tuple[int, int]] = []
        stack = [(root, 0) for root in reversed(self.roots)]
        while stack:
            container, depth = stack.pop()
            found.append((self.rows[container][0] if container < count else 0, depth))
            below = children.get(container)
            if below:
                stack.extend([(child, depth + 1) for child in reversed(below)])
        return found
