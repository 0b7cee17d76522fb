"""Clients that do what people's programs do, note what they were told, and come back when they are thrown out.

A client believes what the server tells it of the selected folder and nothing else.  What does not fit to that is a failure, and so is the
end of a session for which there was no need: only who sat at a process that was killed may be thrown out.
"""

from __future__ import annotations

import random
import re
import smtplib
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.soak.boxes import Door
from tests.soak.ledger import Entry, Ledger, State
from tests.whole.daemon import Owner
from tests.whole.values import fetched
from tests.whole.wire import Wire

FOLDERS = ("INBOX", "Archive", "Work")

#: Seconds after which a command that was not answered has failed: longer than everything that the service is allowed to wait.
HUNG = 240.0

#: Messages of a folder that are enough.
MANY = 150


class Lost(Exception):
    """The connection ended."""


class Away(Exception):
    """Nobody is at the door."""


class Unavailable(Exception):
    """``NO [UNAVAILABLE]``: the patience of the service is at its end; nobody knows whether it was done."""


class Session(Wire):
    """One IMAP connection, in plain text from loopback.

    :raises Lost: it cannot be had.
    """

    def __init__(self, door: Door, owner: Owner) -> None:
        self._tag = 0
        try:
            super().__init__(door.imap, timeout=HUNG)
        except ConnectionRefusedError as error:
            raise Away from error
        if not self.response().startswith(b"* OK"):
            raise Lost("no greeting")
        try:
            self.ask(f"LOGIN {owner.address} {owner.password}", lambda _: None)
        except BaseException:
            self.close()
            raise

    def response(self) -> bytes:
        """One response with its literals.

        :raises Lost:
        """
        try:
            whole = self.line()
            while found := re.search(rb"\{(\d+)\}\Z", whole):
                whole += b"\r\n" + self.octets(int(found[1])) + self.line()
        except TimeoutError as error:
            raise AssertionError(f"no answer within {HUNG:g} s") from error
        except (OSError, EOFError) as error:
            raise Lost(str(error)) from error
        if not whole or whole.startswith(b"* BYE"):
            raise Lost(whole.decode())
        return whole

    def begin(self, command: str | bytes) -> bytes:
        """Send a command; its tag.

        :raises Lost:
        """
        self._tag += 1
        tag = b"s%d" % self._tag
        try:
            self.send(tag + b" " + (command.encode() if isinstance(command, str) else command) + b"\r\n")
        except OSError as error:
            raise Lost(str(error)) from error
        return tag

    def end(self, tag: bytes, take: Callable[[bytes], object]) -> bytes:
        """Untagged responses to ``take``, up to the tagged one.

        :raises Lost, Unavailable:
        """
        while not (response := self.response()).startswith(tag + b" "):
            take(response)
        answer = response[len(tag) + 1 :]
        if answer.startswith(b"NO [UNAVAILABLE]"):
            raise Unavailable(answer.decode())
        assert answer.startswith(b"OK"), answer
        return answer

    def ask(self, command: str | bytes, take: Callable[[bytes], object]) -> bytes:
        """One command; its tagged answer.

        :raises Lost, Unavailable:
        """
        return self.end(self.begin(command), take)


class View:
    """What a client knows of the selected folder."""

    def __init__(self, ledger: Ledger, mailbox: str, folder: str) -> None:
        self._ledger = ledger
        self._mailbox = mailbox
        self.folder = folder
        self.validity = 0
        #: The UID of each message by its number, None as long as it is not known.
        self.slots: list[int | None] = []
        self.flags: dict[int, frozenset[str]] = {}
        self.modseqs: dict[int, int] = {}
        self.gone: set[int] = set()
        #: HIGHESTMODSEQ as SELECT told it: everything up to there is known.
        self.synchronised = 0

    @property
    def uids(self) -> list[int]:
        """Those that are known."""
        return [uid for uid in self.slots if uid is not None]

    @property
    def unknown(self) -> int:
        """The lowest UID of a message whose UID is not known, as far as that can be told; 0 when all are."""
        if None not in self.slots:
            return 0
        at = self.slots.index(None)
        return (self.slots[at - 1] or 0) + 1 if at else 1

    def take(self, response: bytes) -> dict[str, Any] | None:
        """One untagged response; the items of a FETCH."""
        if counted := re.match(rb"\* (\d+) (EXISTS|EXPUNGE)\Z", response):
            self._counted(int(counted[1]), counted[2])
        elif found := re.match(rb"\* VANISHED (\(EARLIER\) )?([0-9:,]+)\Z", response):
            if not found[1]:
                self._vanished(found[2])
        elif found := re.match(rb"\* OK \[UIDVALIDITY (\d+)\]", response):
            self.validity = int(found[1])
            self._ledger.valid(self._mailbox, self.folder, self.validity)
        elif (items := fetched(response)) is not None:
            self._fetched(int(response.split(b" ", 2)[1]), items)
            return items
        return None

    def _counted(self, number: int, what: bytes) -> None:
        if what == b"EXISTS":
            assert number >= len(self.slots), f"EXISTS {number} after {len(self.slots)}"
            self.slots += [None] * (number - len(self.slots))
        else:
            assert 1 <= number <= len(self.slots), f"EXPUNGE {number} of {len(self.slots)}"
            uid = self.slots.pop(number - 1)
            if uid is not None:
                self._forget(uid)

    def _vanished(self, uids: bytes) -> None:
        for uid in numbers(uids):
            assert uid not in self.gone, f"UID {uid} vanished twice"
            if uid in self.flags:
                self.slots.remove(uid)
            else:
                # One of those between the nearest that are known; which one makes no difference.
                first = max((at + 1 for at, one in enumerate(self.slots) if one is not None and one < uid), default=0)
                assert first < len(self.slots) and self.slots[first] is None, f"UID {uid} vanished and was never there"
                del self.slots[first]
            self._forget(uid)

    def _forget(self, uid: int) -> None:
        self.flags.pop(uid, None)
        self.gone.add(uid)

    def _fetched(self, number: int, items: dict[str, Any]) -> None:
        assert 1 <= number <= len(self.slots), f"FETCH {number} of {len(self.slots)}"
        known = self.slots[number - 1]
        uid = items.get("UID", known)
        if uid is None:
            return
        assert uid not in self.gone, f"UID {uid} is back"
        assert known in (None, uid), f"message {number} was UID {known} and is {uid}"
        if known is None:
            below = max((one for one in self.slots[: number - 1] if one is not None), default=0)
            above = min((one for one in self.slots[number:] if one is not None), default=1 << 32)
            assert below < uid < above, f"UID {uid} between {below} and {above}"
            self.slots[number - 1] = uid
            self.flags[uid] = frozenset()
        self._version(uid, items)

    def _version(self, uid: int, items: dict[str, Any]) -> None:
        modseq = items.get("MODSEQ")
        if modseq:
            before = self.modseqs.get(uid, 0)
            assert modseq[0] >= before, f"MODSEQ of UID {uid} of {self.folder} was {before} and is {modseq[0]}"
            self.modseqs[uid] = modseq[0]
        if isinstance(items.get("FLAGS"), list):
            flags = frozenset(str(flag) for flag in items["FLAGS"]) - {r"\Recent"}
            self.flags[uid] = flags
            if modseq:
                self._ledger.version(self._mailbox, self.folder, uid, modseq[0], flags)


class Client(threading.Thread):
    """One person's program.

    :param number: its own, which also is in the tokens of its messages.
    :param errors: where a failure goes, which ends all clients.
    """

    def __init__(
        self, number: int, owner: Owner, doors: list[Door], ledger: Ledger, seed: int, over: threading.Event, errors: list[str]
    ) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.number = number
        self.owner = owner
        self.chance = random.Random(seed * 1000 + number)
        self._doors = doors
        self._ledger = ledger
        self._over = over
        self._errors = errors
        self._session: Session | None = None
        #: Where it goes in, and how often whoever holds its session had been killed by then.
        self._door = (doors[0], 0)
        self._selected = False
        self._view = View(ledger, owner.address, "INBOX")
        self._made = 0
        #: Half of them know of QRESYNC.
        self._resync = bool(number % 2)
        self.history: list[bytes] = []

    # -- staying there ------------------------------------------------------------------------------

    def run(self) -> None:
        """Until it is over; ends all when something is wrong."""
        try:
            while not self._over.is_set():
                try:
                    self._live()
                except Unavailable:
                    self._ledger.done["unavailable"] += 1
                    if not self._selected:
                        self._leave()
                except (Away, Lost) as error:
                    door, life = self._door
                    needless = isinstance(error, Lost) and door.safe(life)
                    assert not needless, f"thrown out of {door.name} for nothing: {error}"
                    self._ledger.done["thrown out" if self._session else "not let in"] += 1
                    self._leave()
                    self._over.wait(self.chance.uniform(0.05, 0.3))
        except Exception as error:
            told = "\n".join(repr(line) for line in self.history[-25:])
            self._errors.append(f"{self.name} {type(error).__name__} {error}\n{told}")
            self._over.set()
        finally:
            if self._session is not None:
                self._session.close()

    def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _live(self) -> None:
        if self._session is None:
            self._enter()
        while not self._over.is_set():
            self._step()
            self._over.wait(self.chance.uniform(0.0, 0.1))

    def _enter(self) -> None:
        door = self.chance.choice(self._doors)
        self._door = (door, door.lives)
        self._selected = False
        self._session = Session(door, self.owner)
        self._ask("ENABLE QRESYNC" if self._resync else "ENABLE CONDSTORE")
        self._select(self._view.folder)

    # -- one command --------------------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """The connection."""
        assert self._session is not None
        return self._session

    def _take(self, response: bytes) -> None:
        self.history = [*self.history[-60:], response[:300]]
        items = self._view.take(response)
        if items:
            self._read(items)

    def _read(self, items: dict[str, Any]) -> None:
        for name, value in items.items():
            if name.startswith("BODY[HEADER") and isinstance(value, bytes) and "UID" in items:
                token = value.decode().partition(":")[2].strip()
                self._ledger.seen(self.owner.address, self._view.folder, items["UID"], token)

    def _ask(self, command: str | bytes) -> bytes:
        text = command.encode() if isinstance(command, str) else command
        self.history = [*self.history[-60:], b"> " + text[:300]]
        answer = self.session.ask(command, self._take)
        self.history = [*self.history[-60:], answer[:300]]
        return answer

    def _select(self, folder: str) -> None:
        """SELECT.  Who knows QRESYNC and has been there before asks for what is new, and must then know the same as who asks for all."""
        before, self._selected = self._view, False
        view = View(self._ledger, self.owner.address, folder)
        floor = {what: self._ledger.highest(self.owner.address, folder, what) for what in ("UIDNEXT", "HIGHESTMODSEQ")}
        known = self._resync and before.folder == folder and before.synchronised and before.uids
        more = f" (QRESYNC ({before.validity} {before.synchronised} {ranges(before.uids)}))" if known else ""
        told: list[bytes] = []
        command = f"SELECT {folder}{more}"
        self.history = [*self.history[-60:], b"> " + command.encode()[:300]]
        self.session.ask(command, told.append)
        self.history += [line[:300] for line in told]
        # RFC 9051 section 7.1: what came before CLOSED was about the folder before.
        told = told[next((at for at, line in enumerate(told) if line.startswith(b"* OK [CLOSED]")), -1) + 1 :]
        self._view = view
        for line in told:
            if found := re.match(rb"\* OK \[(UIDNEXT|HIGHESTMODSEQ) (\d+)\]", line):
                what = found[1].decode()
                self._ledger.told(self.owner.address, folder, what, int(found[2]), floor[what])
                if what == "HIGHESTMODSEQ":
                    view.synchronised = int(found[2])
            view.take(line)
        self._ask("UID FETCH 1:* (FLAGS MODSEQ)")
        self._selected = True
        if known:
            self._compare(_resynchronised(before, told), view)

    def _compare(self, expected: dict[int, frozenset[str]], view: View) -> None:
        """What QRESYNC told with what is there; others go on changing things meanwhile, which then have a higher MODSEQ."""
        missing = expected.keys() - view.flags.keys() - view.gone
        # What has just been expunged cannot be fetched any more, and it may not have been told of yet.
        assert len(missing) <= view.slots.count(None), f"QRESYNC did not tell that UIDs {sorted(missing)} of {view.folder} had gone"
        for uid in expected.keys() & view.flags.keys():
            same = expected[uid] == view.flags[uid] or view.modseqs.get(uid, 0) > view.synchronised
            assert same, f"QRESYNC said of UID {uid} of {view.folder} {sorted(expected[uid])}, and it has {sorted(view.flags[uid])}"

    # -- what people do -----------------------------------------------------------------------------

    def _step(self) -> None:
        doings: list[Callable[[], None]] = [self._append, self._append, self._status, self._idle, self._noop, self._elsewhere]
        if self._view.uids:
            doings += [self._fetch, self._fetch, self._keyword, self._keyword]
        mine = self._ledger.mine(self.owner.address, self.number, self._view.folder)
        mine = [entry for entry in mine if entry.uids[self._view.folder] in self._view.flags]
        if mine:
            entry = self.chance.choice(mine)
            doings += [lambda: self._flag(entry)] * 3 + [lambda: self._move(entry)] * 3 + [lambda: self._expunge(entry)] * 2
        self.chance.choice(doings)()

    def _append(self) -> None:
        if len(self._view.uids) > MANY:
            return
        self._made += 1
        folder = self.chance.choice(FOLDERS)
        token = f"c{self.number}-{self._made}"
        state: State = (folder, frozenset())
        entry = self._ledger.begin(token, self.owner.address, self.number, state, f"append to {folder} by {self.number}")
        content = message(token, self.chance.choice((10, 500, 30_000)))
        answer = self._ask(b"APPEND %b {%d+}\r\n%b" % (folder.encode(), len(content), content))
        found = re.search(rb"APPENDUID (\d+) (\d+)", answer)
        assert found is not None, answer
        self._ledger.arrived(entry, state)
        self._ledger.valid(self.owner.address, folder, int(found[1]))
        self._ledger.given(self.owner.address, folder, int(found[2]), token)

    def _flag(self, entry: Entry) -> None:
        flag = self.chance.choice((r"\Flagged", r"\Answered"))
        sign = self.chance.choice("+-")

        def change(state: State) -> State:
            return state and (state[0], state[1] | {flag} if sign == "+" else state[1] - {flag})

        uid = entry.uids[self._view.folder]
        with self._ledger.operation(entry, f"flag {sign}{flag}", change) as answered:
            self._ask(f"UID STORE {uid} {sign}FLAGS ({flag})")
            answered()
        assert uid in self._view.flags, f"UID {uid} is gone, and nobody took it away"
        self._hear(lambda: (flag in self._view.flags[uid]) == (sign == "+"), f"the flags of UID {uid} are not told")

    def _move(self, entry: Entry) -> None:
        source = self._view.folder
        target = self.chance.choice([folder for folder in FOLDERS if folder != source])
        uid = entry.uids[source]
        copied: list[tuple[int, int]] = []
        with self._ledger.operation(entry, f"move {source} {target}", lambda state: state and (target, state[1])) as answered:

            def take(response: bytes) -> None:
                self._take(response)
                if found := re.match(rb"\* OK \[COPYUID (\d+) (\d+) (\d+)\]", response):
                    copied.append((int(found[1]), int(found[3])))

            self.history.append(b"> UID MOVE %d %b" % (uid, target.encode()))
            self.session.ask(f"UID MOVE {uid} {target}", take)
            assert len(copied) == 1, f"UID {uid} was not moved, and nobody took it away"
            self._ledger.valid(self.owner.address, target, copied[0][0])
            self._ledger.given(self.owner.address, target, copied[0][1], entry.token)
            answered()
        self._hear(lambda: uid not in self._view.flags, f"UID {uid} was moved and is still there")

    def _expunge(self, entry: Entry) -> None:
        uid = entry.uids[self._view.folder]
        with self._ledger.operation(entry, r"delete", lambda state: state and (state[0], state[1] | {r"\Deleted"})) as answered:
            self._ask(rf"UID STORE {uid} +FLAGS.SILENT (\Deleted)")
            if uid in self._view.flags:
                self._view.flags[uid] |= {r"\Deleted"}
            answered()
        with self._ledger.operation(entry, "expunge", lambda _: None) as answered:
            self._ask(f"UID EXPUNGE {uid}")
            answered()
        self._hear(lambda: uid not in self._view.flags, f"UID {uid} was expunged and is still there")

    def _keyword(self) -> None:
        """On anybody's message."""
        uid = self.chance.choice(self._view.uids)
        word = f"$c{self.number}"
        self._ask(f"UID STORE {uid} +FLAGS ({word})")
        if word in self._view.flags.get(uid, frozenset()):
            self._ledger.word(self.owner.address, self._view.folder, uid, word)

    def _fetch(self) -> None:
        """Flags of all; or tokens of those that nobody has read."""
        unread = [uid for uid in self._view.uids if self._ledger.token(self.owner.address, self._view.folder, uid) is None]
        if unread:
            some = ",".join(map(str, unread[:20]))
            self._ask(f"UID FETCH {some} (FLAGS MODSEQ BODY.PEEK[HEADER.FIELDS (X-Token)])")
        else:
            self._ask("UID FETCH 1:* (FLAGS MODSEQ)")
        self._ledger.done["fetch"] += 1

    def _hear(self, condition: Callable[[], bool], otherwise: str) -> None:
        """What was answered is told at once, or, when the primary goes away after the answer, as soon as there is one again."""
        deadline = time.monotonic() + HUNG
        while not condition():
            assert time.monotonic() < deadline, otherwise
            self._ask("NOOP")
            self._ledger.done["told late"] += 1

    def _noop(self) -> None:
        self._ask("NOOP")
        self._catch_up()

    def _catch_up(self) -> None:
        """Learn the UIDs of what is new."""
        if self._view.unknown:
            self._ask(f"UID FETCH {self._view.unknown}:* (FLAGS MODSEQ)")

    def _idle(self) -> None:
        tag = self.session.begin("IDLE")
        self.history.append(b"> IDLE")
        while not (response := self.session.response()).startswith(b"+"):
            self._take(response)
        try:
            if not self.session.silent(self.chance.choice((0.05, 0.5))):
                self._take(self.session.response())
            self.session.send(b"DONE\r\n")
        except OSError as error:
            raise Lost(str(error)) from error
        self.session.end(tag, self._take)
        self._catch_up()
        self._ledger.done["idle"] += 1

    def _status(self) -> None:
        folder = self.chance.choice(FOLDERS)
        floor = {what: self._ledger.highest(self.owner.address, folder, what) for what in ("UIDNEXT", "HIGHESTMODSEQ")}
        told: list[bytes] = []

        def take(response: bytes) -> None:
            if response.startswith(b"* STATUS"):
                told.append(response)
            self._take(response)

        self.history.append(b"> STATUS " + folder.encode())
        self.session.ask(f"STATUS {folder} (UIDNEXT HIGHESTMODSEQ)", take)
        for what, value in re.findall(rb"(UIDNEXT|HIGHESTMODSEQ) (\d+)", told[0]):
            self._ledger.told(self.owner.address, folder, what.decode(), int(value), floor[what.decode()])

    def _elsewhere(self) -> None:
        self._select(self.chance.choice(FOLDERS))


class Sender(threading.Thread):
    """Another mail server."""

    def __init__(
        self,
        number: int,
        owners: list[tuple[Owner, list[int]]],
        doors: list[Door],
        ledger: Ledger,
        seed: int,
        over: threading.Event,
        errors: list[str],
    ) -> None:
        super().__init__(name=f"sender-{number}", daemon=True)
        self.number = number
        self.chance = random.Random(seed * 1000 + 500 + number)
        self._owners = owners
        self._doors = doors
        self._ledger = ledger
        self._over = over
        self._errors = errors
        self._sent = 0

    def run(self) -> None:
        """Until it is over."""
        try:
            while not self._over.is_set():
                self._visit()
                self._over.wait(self.chance.uniform(0.0, 0.5))
        except Exception as error:
            self._errors.append(f"{self.name}: {type(error).__name__} {error}")
            self._over.set()

    def _visit(self) -> None:
        door = self.chance.choice(self._doors)
        life = door.lives
        try:
            with smtplib.SMTP("127.0.0.1", door.mx, local_hostname="client.example.net", timeout=HUNG) as smtp:
                for _ in range(self.chance.choice((1, 3, 10))):
                    self._send(smtp, door)
                    if self._over.is_set():
                        return
        except (smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused) as error:
            # The service ends, or cannot do it now; nothing was promised.
            refused = isinstance(error, smtplib.SMTPRecipientsRefused)
            code = next(iter(error.recipients.values()))[0] if refused else error.smtp_code
            assert code // 100 == 4, repr(error)
            self._ledger.done["deferred"] += 1
        except (OSError, smtplib.SMTPServerDisconnected) as error:
            assert not isinstance(error, TimeoutError), f"no reply within {HUNG:g} s"
            assert isinstance(error, ConnectionRefusedError) or not door.safe(life), f"{door.name} hung up for nothing: {error!r}"
            self._ledger.done["hung up on"] += 1

    def _send(self, smtp: smtplib.SMTP, door: Door) -> None:
        self._sent += 1
        owner, keepers = self.chance.choice(self._owners)
        keeper = self.chance.choice(keepers)
        token = f"m{self.number}-{self._sent}"
        state: State = ("INBOX", frozenset())
        entry = self._ledger.begin(token, owner.address, keeper, state, f"mail by {self.number} through {door.name}")
        smtp.sendmail("sender@example.net", owner.address, message(token, self.chance.choice((10, 2000, 50_000))))
        self._ledger.arrived(entry, state)


def _resynchronised(before: View, told: list[bytes]) -> dict[int, frozenset[str]]:
    """What a client knows of its messages that keeps what it knew and follows what QRESYNC tells (RFC 7162 section 3.2.5)."""
    flags = dict(before.flags)
    for line in told:
        if found := re.match(rb"\* VANISHED \(EARLIER\) ([0-9:,]+)\Z", line):
            for uid in numbers(found[1]):
                flags.pop(uid, None)
        elif (items := fetched(line)) is not None and items["UID"] in flags:
            flags[items["UID"]] = frozenset(str(flag) for flag in items["FLAGS"]) - {r"\Recent"}
    return flags


def message(token: str, size: int) -> bytes:
    """A message that is unlike all others."""
    line = f"{token} {'text ' * 10}\r\n"
    head = f"X-Token: {token}\r\nFrom: <sender@example.net>\r\nTo: <somebody@example.com>\r\nSubject: {token}\r\n\r\n"
    return (head + line * (size // len(line) + 1)).encode()


def numbers(text: bytes) -> list[int]:
    """The UIDs of a set."""
    found: list[int] = []
    for span in text.split(b","):
        first, _, last = span.partition(b":")
        found += range(int(first), int(last or first) + 1)
    return found


def ranges(uids: list[int]) -> str:
    """A set of UIDs, as short as it can be."""
    spans: list[list[int]] = []
    for uid in uids:
        if spans and uid == spans[-1][1] + 1:
            spans[-1][1] = uid
        else:
            spans.append([uid, uid])
    return ",".join(str(first) if first == last else f"{first}:{last}" for first, last in spans)


def contents(door: Door, owner: Owner) -> dict[str, dict[int, tuple[str, frozenset[str]]]]:
    """Everything in a mailbox as one door shows it: by folder and UID, token and flags."""
    session = Session(door, owner)
    whole: dict[str, dict[int, tuple[str, frozenset[str]]]] = {}
    for folder in FOLDERS:
        messages = whole[folder] = {}

        def take(response: bytes, messages: dict[int, tuple[str, frozenset[str]]] = messages) -> None:
            items = fetched(response)
            if items:
                token = items["BODY[HEADER.FIELDS (X-TOKEN)]"].decode().partition(":")[2].strip()
                assert items["UID"] not in messages, f"UID {items['UID']} is there twice"
                messages[items["UID"]] = (token, frozenset(map(str, items["FLAGS"])) - {r"\Recent"})

        session.ask(f"EXAMINE {folder}", lambda _: None)
        session.ask("UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (X-TOKEN)])", take)
        session.ask("NOOP", take)
    session.ask("UNSELECT", lambda _: None)
    session.close()
    return whole
