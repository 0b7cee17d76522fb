"""Twenty clients, three folders, random commands: what each is told must always make sense, and in the end all know the same.

A client knows of a folder what the server told it and nothing else: how many messages there are, which UID each has as soon as it has
asked, and flags.  Any response that does not fit to that ends the test.  ``STRESS_SECONDS`` says how long; the seed is printed.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.whole.conftest import IN_CI
from tests.whole.daemon import Daemon, Owner
from tests.whole.values import fetched, parse
from tests.whole.wire import Imap

SECONDS = float(os.environ.get("STRESS_SECONDS", "20" if IN_CI else "8"))
CLIENTS = 20
FOLDERS = ("INBOX", "Archive", "Work")
FLAGS = (r"\Seen", r"\Answered", r"\Flagged", r"\Draft", r"\Deleted", "$Label", "Other")
#: Messages of a folder that are enough.
MANY = 80

#: RFC 9051 section 7.5.1: an EXPUNGE must not be sent during these, or numbers in commands would mean other messages.
_BY_NUMBER = re.compile(rb"(FETCH|STORE|SEARCH) ")


@dataclass
class Facts:
    """What all clients together have found out; one that contradicts another has found a bug."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    marks: dict[tuple[str, int], str] = field(default_factory=dict)
    made: set[tuple[str, int]] = field(default_factory=set)
    validity: dict[str, int] = field(default_factory=dict)

    def seen(self, folder: str, uid: int, mark: str) -> None:
        """A message was read: a UID means one message for ever."""
        with self.lock:
            assert self.marks.setdefault((folder, uid), mark) == mark, f"UID {uid} of {folder} was another message"

    def new(self, folder: str, uid: int) -> None:
        """APPENDUID or COPYUID: no UID is given twice."""
        with self.lock:
            assert (folder, uid) not in self.made, f"UID {uid} of {folder} was given twice"
            self.made.add((folder, uid))

    def valid(self, folder: str, number: int) -> None:
        """UIDVALIDITY stays."""
        with self.lock:
            assert self.validity.setdefault(folder, number) == number, f"UIDVALIDITY of {folder}"


@dataclass
class Known:
    """A message as one client knows it."""

    uid: int | None = None
    flags: frozenset[str] | None = None


class Client:
    """One connection and its knowledge of the selected folder."""

    def __init__(self, daemon: Daemon, owner: Owner, facts: Facts, seed: int) -> None:
        self.chance = random.Random(seed)
        self.facts = facts
        self.wire = Imap(daemon, owner, door="imap")
        self.folder = ""
        self.messages: list[Known] = []
        self.gone: set[int] = set()
        self.found: list[int] = []
        self.history: list[bytes] = []
        self.done = 0
        self.number = 0
        self.select(self.chance.choice(FOLDERS))

    # -- what is told -------------------------------------------------------------------------------

    def take(self, response: bytes, command: bytes) -> None:
        """One untagged response."""
        self.history = [*self.history[-40:], response[:200]]
        counted = re.match(rb"\* (\d+) (EXISTS|EXPUNGE|RECENT)\Z", response)
        if counted is not None:
            self._counted(int(counted[1]), counted[2], command)
        elif (items := fetched(response)) is not None:
            self._fetched(int(response.split(b" ", 2)[1]), items)
        elif response.startswith(b"* SEARCH"):
            self.found = parse(response[8:])
        elif found := re.match(rb"\* OK \[COPYUID (\d+) ([0-9:,]+) ([0-9:,]+)\]", response):
            self.copied = found[3]

    def _counted(self, number: int, what: bytes, command: bytes) -> None:
        if what == b"EXISTS":
            assert number >= len(self.messages), f"EXISTS {number} after {len(self.messages)}"
            self.messages += [Known() for _ in range(number - len(self.messages))]
        elif what == b"EXPUNGE":
            assert not _BY_NUMBER.match(command), "EXPUNGE while numbers are in use"
            assert 1 <= number <= len(self.messages), f"EXPUNGE {number} of {len(self.messages)}"
            uid = self.messages.pop(number - 1).uid
            if uid is not None:
                self.gone.add(uid)

    def _fetched(self, number: int, items: dict[str, object]) -> None:
        assert 1 <= number <= len(self.messages), f"FETCH {number} of {len(self.messages)}"
        known = self.messages[number - 1]
        uid = items.get("UID")
        if isinstance(uid, int):
            assert known.uid in (None, uid), f"message {number} was UID {known.uid}, is {uid}"
            assert uid not in self.gone, f"UID {uid} is back"
            known.uid = uid
            below = [one.uid for one in self.messages[: number - 1] if one.uid is not None]
            above = [one.uid for one in self.messages[number:] if one.uid is not None]
            assert max(below, default=0) < uid < min(above, default=1 << 32), f"UID {uid} is not between its neighbours"
        flags = items.get("FLAGS")
        if isinstance(flags, list):
            known.flags = frozenset(str(flag) for flag in flags if str(flag) != r"\Recent")
        for name, value in items.items():
            if name.startswith("BODY[HEADER") and known.uid is not None and isinstance(value, bytes):
                self.facts.seen(self.folder, known.uid, value.decode().strip())

    def ask(self, text: str, *, may_fail: bool = False) -> bytes:
        """One command; its tagged answer, which must be OK unless other clients may have made it impossible."""
        command = text.encode()
        self.history = [*self.history[-40:], b"> " + command]
        self.copied = b""
        tag = self.wire.command(command)
        while not (response := self.wire.response()).startswith(tag + b" "):
            assert response.startswith(b"* "), response
            self.take(response, command)
        self.history = [*self.history[-40:], response[:200]]
        answer = response[len(tag) + 1 :]
        assert answer.startswith(b"OK") or (may_fail and answer.startswith(b"NO")), (text, answer)
        self.done += 1
        return answer

    # -- commands -----------------------------------------------------------------------------------

    def select(self, folder: str) -> None:
        """Everything about the folder anew."""
        command = b"SELECT " + folder.encode()
        tag = self.wire.command(command)
        told: list[bytes] = []
        while not (response := self.wire.response()).startswith(tag + b" "):
            if response.startswith(b"* OK [CLOSED]"):  # RFC 9051 section 7.1: what came before was about the old folder
                for line in told:
                    self.take(line, command)
                told.clear()
            else:
                told.append(response)
        assert response.startswith(tag + b" OK"), response
        self.folder, self.messages, self.gone = folder, [], set()
        for line in told:
            if found := re.search(rb"\[UIDVALIDITY (\d+)\]", line):
                self.facts.valid(folder, int(found[1]))
            self.take(line, command)
        self.ask("UID FETCH 1:* (FLAGS)")

    def _number(self) -> str:
        most = len(self.messages)
        first = self.chance.randint(1, most)
        return self.chance.choice((str(first), f"{first}:{self.chance.randint(1, most)}", f"{first},{self.chance.randint(1, most)}", "1:*"))

    def _uid(self) -> str:
        known = [one.uid for one in self.messages if one.uid is not None] or [1]
        some = sorted(self.chance.sample(known, min(len(known), self.chance.choice((1, 1, 2, 5)))))
        return ",".join(map(str, some))

    def _append(self) -> None:
        if len(self.messages) > MANY:
            return
        self.number += 1
        content = f"X-Mark: {id(self)}-{self.number}\r\nSubject: x\r\n\r\ntext\r\n".encode()
        folder = self.chance.choice(FOLDERS)
        flags = " ".join(self.chance.sample(FLAGS, 2))
        command = b"APPEND %b (%b) {%d+}\r\n%b" % (folder.encode(), flags.encode(), len(content), content)
        answer = self.ask(command.decode())
        found = re.search(rb"APPENDUID (\d+) (\d+)", answer)
        assert found is not None, answer
        self.facts.valid(folder, int(found[1]))
        self.facts.new(folder, int(found[2]))

    def _store(self) -> None:
        sign, silent = self.chance.choice(("+", "-", "")), self.chance.choice(("", ".SILENT"))
        flags = frozenset(self.chance.sample(FLAGS, self.chance.choice((1, 1, 2))))
        if silent:
            self._store_silently(sign, flags)
            return
        by_number = self.chance.random() < 0.5
        where = self._number() if by_number else self._uid()
        self.ask(f"{'' if by_number else 'UID '}STORE {where} {sign}FLAGS ({' '.join(flags)})", may_fail=True)

    def _store_silently(self, sign: str, flags: frozenset[str]) -> None:
        """The server does not tell the new flags, so the client changes what it knows when it hears OK (RFC 9051 section 6.4.6)."""
        number = self.chance.randint(1, len(self.messages))
        known = self.messages[number - 1]
        answer = self.ask(f"STORE {number} {sign}FLAGS.SILENT ({' '.join(flags)})", may_fail=True)
        if answer.startswith(b"OK") and known.flags is not None:
            known.flags = {"+": known.flags | flags, "-": known.flags - flags, "": flags}[sign]

    def _fetch(self) -> None:
        asked = ("(UID FLAGS)", "(UID BODY.PEEK[HEADER.FIELDS (X-Mark)])", "(UID FLAGS ENVELOPE RFC822.SIZE)", "FAST", "(UID BODY[TEXT])")
        items = self.chance.choice(asked)
        if self.chance.random() < 0.5:
            self.ask(f"FETCH {self._number()} {items}", may_fail=True)
        else:
            self.ask(f"UID FETCH {self.chance.choice((self._uid(), '1:*'))} {items.replace('UID ', '')}", may_fail=True)

    def _search(self) -> None:
        keys = self.chance.choice(("ALL", "SEEN", "UNSEEN DELETED", "NOT 1", "OR FLAGGED KEYWORD $Label", 'HEADER X-Mark "1"', "1:*"))
        self.ask(f"SEARCH {keys}")
        assert all(1 <= number <= len(self.messages) for number in self.found), (self.found, len(self.messages))
        gone = set(self.gone)
        self.ask(f"UID SEARCH {keys}")
        assert self.found == sorted(set(self.found))
        assert not gone.intersection(self.found), "a UID that was gone is found"

    def _copy(self) -> None:
        verb, by_number = self.chance.choice(("COPY", "MOVE")), self.chance.random() < 0.5
        target = self.chance.choice(FOLDERS)
        if verb == "COPY" and len(self.messages) > MANY:
            return
        answer = self.ask(f"{'' if by_number else 'UID '}{verb} {self._number() if by_number else self._uid()} {target}", may_fail=True)
        found = re.search(rb"COPYUID (\d+) ([0-9:,]+) ([0-9:,]+)\]", answer)
        self._new(target, found[3] if found else self.copied)

    def _new(self, folder: str, uids: bytes) -> None:
        for span in filter(None, uids.split(b",")):
            first, _, last = span.partition(b":")
            for uid in range(int(first), int(last or first) + 1):
                self.facts.new(folder, uid)

    def _expunge(self) -> None:
        if self.chance.random() < 0.5:
            self.ask("EXPUNGE")
        else:
            self.ask(f"UID EXPUNGE {self._uid()}")

    def _idle(self) -> None:
        tag = self.wire.command(b"IDLE")
        while not (response := self.wire.response()).startswith(b"+"):
            self.take(response, b"IDLE")
        if not self.wire.silent(self.chance.choice((0.01, 0.1))):
            self.take(self.wire.response(), b"IDLE")
        for response in self.wire.done(tag):
            if response.startswith(b"*"):
                self.take(response, b"IDLE")
        self.done += 1

    def _status(self) -> None:
        self.ask(f"STATUS {self.chance.choice(FOLDERS)} (MESSAGES UIDNEXT UNSEEN UIDVALIDITY)")

    def _leave(self) -> None:
        if self.chance.random() < 0.3:
            self.ask("CLOSE")
        self.select(self.chance.choice(FOLDERS))

    def step(self) -> None:
        """One random command."""
        without: tuple[Callable[[], object], ...] = (self._append, self._append, self._status, self._idle, lambda: self.ask("NOOP"))
        within = (self._store, self._store, self._store, self._fetch, self._fetch, self._search, self._copy, self._expunge)
        doings = without + within if self.messages else without
        if self.chance.random() < 0.03:
            self._leave()
        else:
            self.chance.choice(doings)()

    def settle(self) -> dict[int, frozenset[str]]:
        """After NOOP: what was learnt bit by bit must be what the server says when it is asked for all."""
        self.ask("NOOP")
        learnt = {one.uid: one.flags for one in self.messages}
        before = len(self.messages)
        self.ask("UID FETCH 1:* (FLAGS)")
        assert len(self.messages) == before, "a message came or went although nobody does anything"
        now = {one.uid: one.flags for one in self.messages}
        for uid, flags in learnt.items():
            assert uid is None or flags is None or now[uid] == flags, f"UID {uid} of {self.folder}: {flags} was known, {now[uid]} is"
        self.ask("UID SEARCH ALL")
        assert self.found == list(now)
        return {uid: flags for uid, flags in now.items() if uid is not None and flags is not None}


def test_twenty_clients_on_three_folders(daemon: Daemon, owner: Owner) -> None:
    """No response contradicts another; at the end all clients of a folder and a new one see the same, and the mailbox is consistent."""
    seed = int(os.environ.get("STRESS_SEED", "1"))
    print(f"STRESS_SEED={seed}")
    first = Imap(daemon, owner)
    assert b"OK" in first.ask(b"CREATE Work")[-1]
    facts = Facts()
    clients = [Client(daemon, owner, facts, seed + number) for number in range(CLIENTS)]
    failures: list[str] = []
    end = time.monotonic() + SECONDS

    def work(client: Client) -> None:
        try:
            while time.monotonic() < end and not failures:
                client.step()
        except Exception as error:
            failures.append(f"{error!r} in {client.folder}\n" + "\n".join(map(repr, client.history[-25:])))

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert sum(client.done for client in clients) > CLIENTS * SECONDS, "hardly anything was done"

    seen: dict[str, dict[int, frozenset[str]]] = {}
    for client in clients:
        state = client.settle()
        assert seen.setdefault(client.folder, state) == state, client.folder
    for folder, state in seen.items():
        fresh = Client(daemon, owner, facts, seed)
        fresh.select(folder)
        assert fresh.settle() == state, folder
        fresh.ask("FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (X-Mark)])" if state else "NOOP")
        fresh.wire.close()
    for client in clients:
        client.wire.close()
    first.close()
    answer = daemon.json("mailbox", "check", owner.address, "--password-stdin", stdin=owner.password + "\n")
    assert answer["problems"] == []
