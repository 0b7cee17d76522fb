"""What clients were told, and what must therefore be true in the end.

Each message carries a token.  One client moves, flags and expunges it, so that it knows in which order that was done; any other may add a
keyword of its own.  An operation that was answered has happened; one that was not answered has happened or not, and its message is left
alone from then on.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

#: What a message is where: a folder and the flags that its keeper gave it.  None: it is not there.
State = tuple[str, frozenset[str]] | None

#: The flags that keepers give.
KEPT = frozenset({r"\Flagged", r"\Answered", r"\Deleted"})


@dataclass
class Entry:
    """One message.

    :param mailbox: the owner's address.
    :param keeper: the number of the client that moves it.
    :param states: those that it may be in; one only, as long as every operation was answered.
    :param uids: by folder, as far as it is known.
    """

    token: str
    mailbox: str
    keeper: int
    states: set[State]
    uids: dict[str, int] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)
    history: list[str] = field(default_factory=list)
    busy: bool = False

    @property
    def state(self) -> State:
        """The one state that it is in; only if that is known."""
        (only,) = self.states
        return only


class Ledger:
    """All messages, and all that clients have seen of them.

    A method that finds a contradiction raises AssertionError in the thread of the client that was told it.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.entries: dict[str, Entry] = {}
        self.done: Counter[str] = Counter()
        self._tokens: dict[tuple[str, str, int], str] = {}
        self._given: dict[tuple[str, str, int], str] = {}
        self._validity: dict[tuple[str, str], int] = {}
        self._versions: dict[tuple[str, str, int, int], frozenset[str]] = {}
        self._highest: dict[tuple[str, str, str], int] = {}

    # -- messages -----------------------------------------------------------------------------------

    def begin(self, token: str, mailbox: str, keeper: int, state: State, how: str) -> Entry:
        """A message is being sent or appended: from now on it may be there."""
        with self.lock:
            entry = self.entries[token] = Entry(token, mailbox, keeper, {None, state}, history=[how], busy=True)
            return entry

    def arrived(self, entry: Entry, state: State) -> None:
        """It was acknowledged."""
        with self.lock:
            entry.states, entry.busy = {state}, False
            entry.history.append("acknowledged")
            self.done["arrived"] += 1

    @contextmanager
    def operation(self, entry: Entry, what: str, change: Callable[[State], State]) -> Iterator[Callable[[], None]]:
        """While something is asked for: until the function that this gives is called, it has happened or not."""
        with self.lock:
            before = set(entry.states)
            after = {change(state) for state in before}
            entry.states, entry.busy = before | after, True
            entry.history.append(what)

        def answered() -> None:
            with self.lock:
                entry.states, entry.busy = after, False
                entry.history.append("ok")
                self.done[what.split()[0]] += 1

        yield answered

    def mine(self, mailbox: str, keeper: int, folder: str) -> list[Entry]:
        """Messages of a client in a folder, of which is known exactly where they are."""
        with self.lock:
            return [
                entry
                for entry in self.entries.values()
                if entry.keeper == keeper
                and entry.mailbox == mailbox
                and not entry.busy
                and len(entry.states) == 1
                and entry.state is not None
                and entry.state[0] == folder
                and folder in entry.uids
            ]

    def word(self, mailbox: str, folder: str, uid: int, word: str) -> None:
        """Another client has added a keyword, and saw it in the answer."""
        with self.lock:
            token = self._tokens.get((mailbox, folder, uid))
            if token is not None:
                self.entries[token].words.add(word)
                self.done["keyword"] += 1

    # -- what must never contradict itself ------------------------------------------------------------

    def seen(self, mailbox: str, folder: str, uid: int, token: str) -> None:
        """A message was read there."""
        with self.lock:
            known = self._tokens.setdefault((mailbox, folder, uid), token)
            assert known == token, f"UID {uid} of {folder} was {known} and is {token}"
            assert token in self.entries, f"{token} was never sent"
            entry = self.entries[token]
            assert entry.mailbox == mailbox, f"{token} for {entry.mailbox} is in the mailbox of {mailbox}"
            entry.uids.setdefault(folder, uid)

    def given(self, mailbox: str, folder: str, uid: int, token: str) -> None:
        """APPENDUID or COPYUID: no UID is given twice."""
        with self.lock:
            before = self._given.setdefault((mailbox, folder, uid), token)
            assert before == token, f"UID {uid} of {folder} was given to {before} and to {token}"
            entry = self.entries[token]
            entry.uids[folder] = uid
            self.seen(mailbox, folder, uid, token)

    def token(self, mailbox: str, folder: str, uid: int) -> str | None:
        """Which message has a UID, if somebody has read it."""
        with self.lock:
            return self._tokens.get((mailbox, folder, uid))

    def valid(self, mailbox: str, folder: str, validity: int) -> None:
        """UIDVALIDITY stays."""
        with self.lock:
            assert self._validity.setdefault((mailbox, folder), validity) == validity, f"UIDVALIDITY of {folder}"

    def version(self, mailbox: str, folder: str, uid: int, modseq: int, flags: frozenset[str]) -> None:
        """One MODSEQ of a message means one set of flags, whoever asks where."""
        with self.lock:
            known = self._versions.setdefault((mailbox, folder, uid, modseq), flags)
            assert known == flags, f"UID {uid} of {folder} at MODSEQ {modseq}: {sorted(known)} and {sorted(flags)}"

    def highest(self, mailbox: str, folder: str, what: str) -> int:
        """The highest value that anybody has been told so far; to be looked at before a question is asked."""
        with self.lock:
            return self._highest.get((mailbox, folder, what), 0)

    def told(self, mailbox: str, folder: str, what: str, value: int, floor: int) -> None:
        """UIDNEXT or HIGHESTMODSEQ: never less than what anybody had been told before the question."""
        with self.lock:
            assert value >= floor, f"{what} of {folder} was {floor} and is {value}"
            self._highest[mailbox, folder, what] = max(value, self._highest.get((mailbox, folder, what), 0))

    # -- the end ------------------------------------------------------------------------------------

    def audit(self, mailbox: str, there: dict[str, dict[int, tuple[str, frozenset[str]]]]) -> list[str]:
        """Compare with a mailbox.

        :param there: by folder and UID, token and flags.
        :returns: what is wrong.
        """
        places: dict[str, list[tuple[str, int, frozenset[str]]]] = {}
        for folder, messages in there.items():
            for uid, (token, flags) in messages.items():
                places.setdefault(token, []).append((folder, uid, flags))
        wrong = [f"{token} was never sent" for token in places if token not in self.entries]
        for token, entry in self.entries.items():
            if entry.mailbox == mailbox:
                wrong += [f"{token}: {problem}; {entry.history}" for problem in _problems(entry, places.get(token, []))]
        return wrong


def _problems(entry: Entry, found: list[tuple[str, int, frozenset[str]]]) -> list[str]:
    """What is wrong with one message."""
    if len(found) > 1:
        return [f"doubled: {[(folder, uid) for folder, uid, _ in found]}"]
    is_state: State = None
    if found:
        folder, uid, flags = found[0]
        is_state = (folder, flags & KEPT)
        if len(entry.states) == 1 and entry.uids.get(folder, uid) != uid:
            return [f"is UID {uid} of {folder}, was {entry.uids[folder]}"]
        if entry.words - flags:
            return [f"keywords {sorted(entry.words - flags)} are lost"]
    if is_state in entry.states:
        return []
    may = [None if state is None else (state[0], sorted(state[1])) for state in entry.states]
    what = "lost" if is_state is None else "wrong"
    return [f"{what}: is {is_state and (is_state[0], sorted(is_state[1]))}, may be {may}"]
