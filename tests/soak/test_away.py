"""A primary that is away, frozen, or dead; and secondaries that are: who waits, who does not, and what is on the disk meanwhile."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fe_twisted.app.store import opened as opened_store
from fe_twisted.base.load import load
from tests.soak.boxes import Service, closing, one, several, start
from tests.soak.clients import Session, Unavailable, message
from tests.soak.engine import opened
from tests.whole.daemon import Daemon, Owner, until

#: Seconds that a client is made to wait at most while there is no primary: the link's patience and what a loaded machine adds.
PATIENCE = 60.0

#: A word that is in no file unless a message is in the clear.
WORD = "Wintergreen-Chandelier"


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory, module_database: str) -> Iterator[Service]:
    """A primary and two secondaries."""
    with closing(several(tmp_path_factory.mktemp("away"), module_database)) as service:
        yield service


@pytest.fixture
def owner(boxes: Service) -> Owner:
    return boxes.owner()


def do(session: Session, command: str) -> list[bytes]:
    """A command and its untagged responses."""
    told: list[bytes] = []
    session.ask(command, told.append)
    return told


def append(session: Session, token: str) -> bytes:
    content = message(token, 10)
    return session.ask(b"APPEND INBOX {%d+}\r\n%b" % (len(content), content), lambda _: None)


def deliver(daemon: Daemon, owner: Owner, token: str) -> float:
    """By SMTP; the seconds from the connection to the 250."""
    began = time.monotonic()
    with smtplib.SMTP("127.0.0.1", daemon.port("mx"), local_hostname="client.example.net", timeout=PATIENCE) as smtp:
        assert smtp.sendmail("sender@example.net", owner.address, message(token, 10)) == {}
        return time.monotonic() - began


def tokens(service: Service, owner: Owner, door: int = 0) -> list[str]:
    """What is in INBOX."""
    session = Session(service.doors[door], owner)
    do(session, "SELECT INBOX")
    told = do(session, "UID FETCH 1:* (BODY.PEEK[HEADER.FIELDS (X-Token)])")
    session.close()
    return re.findall(r"X-Token: (\S+)", b"\n".join(told).decode())


def plaintext(folder: Path, word: str) -> list[str]:
    """The files below a folder in which a word can be read."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


# -- the primary is away ------------------------------------------------------------------------------


def test_a_command_waits_for_a_primary_that_is_frozen(boxes: Service, owner: Owner) -> None:
    """Five seconds of nothing, and everything goes on as if nothing had been."""
    secondary = Session(boxes.doors[1], owner)
    do(secondary, "SELECT INBOX")
    append(secondary, "frozen-0")
    assert boxes.primary.process is not None
    began = time.monotonic()
    thread = threading.Thread(target=boxes.freeze, args=(boxes.primary.process.pid, 5.0))
    thread.start()
    time.sleep(0.2)
    assert append(secondary, "frozen-1").startswith(b"OK")
    assert time.monotonic() - began > 4.5
    thread.join()
    do(secondary, r"UID STORE 2 +FLAGS (\Flagged)")
    assert tokens(boxes, owner) == ["frozen-0", "frozen-1"]
    secondary.close()


def test_a_command_waits_for_a_link_that_is_cut_and_is_done_once(boxes: Service, owner: Owner) -> None:
    """Reset again and again in the middle of APPENDs: each is answered, none is done twice."""
    secondary = Session(boxes.doors[1], owner)
    do(secondary, "SELECT INBOX")
    proxy = boxes.proxies["secondary-1"]
    stop = threading.Event()

    def disturb() -> None:
        while not stop.wait(0.35):
            proxy.reset()

    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    try:
        for number in range(40):
            assert append(secondary, f"cut-{number}").startswith(b"OK")
    finally:
        stop.set()
        disturbing.join()
    assert tokens(boxes, owner) == [f"cut-{number}" for number in range(40)]
    secondary.close()


def test_without_a_primary_clients_are_told_and_mail_is_kept_sealed(boxes: Service, owner: Owner) -> None:
    """``NO [UNAVAILABLE]`` after the patience, and the session goes on; a secondary takes mail, and nobody can read what waits there."""
    secondary = Session(boxes.doors[1], owner)
    do(secondary, "SELECT INBOX")
    append(secondary, "away-before")
    # The session has news that it has not told, which every command would have to ask for first: that must not be waited for, too.
    deliver(boxes.primary, owner, "away-news")
    box = boxes.doors[1].daemon
    boxes.primary.kill()
    boxes.doors[0].lives += 1
    try:
        assert deliver(box, owner, f"{WORD}-1") < 10, "nothing waits for a primary that is not there"
        assert list(box.data.glob("queue/*/*.sqlite")), "what was acknowledged is on the disk of this box"
        began = time.monotonic()
        with pytest.raises(Unavailable):
            append(secondary, "away-refused")
        assert time.monotonic() - began < PATIENCE
        assert do(secondary, "CAPABILITY"), "the session goes on"
        deliver(box, owner, f"{WORD}-2")
        assert plaintext(box.data, WORD) == []
        assert plaintext(box.data, owner.address) == [], "not even for whom it is"
    finally:
        start(boxes.primary)
    assert append(secondary, "away-after").startswith(b"OK"), "in the same session"
    until(lambda: not boxes.waiting(), "what waited was handed over", 90)
    assert sorted(tokens(boxes, owner)) == [f"{WORD}-1", f"{WORD}-2", "away-after", "away-before", "away-news"]
    secondary.close()


def test_a_queue_survives_the_death_of_its_box(boxes: Service, owner: Owner) -> None:
    """No primary, a 250, kill -9, and a start: it is handed over all the same."""
    box = boxes.doors[2].daemon
    boxes.proxies["secondary-2"].cut()
    deliver(box, owner, "killed-with-it")
    assert list(box.data.glob("queue/*/*.sqlite")), "it waits here"
    boxes.kill(box, 0.0)
    assert plaintext(box.data, "killed-with-it") == []
    boxes.proxies["secondary-2"].heal()
    until(lambda: not list(box.data.glob("queue/*/*.sqlite")), "it was handed over", 90)
    assert tokens(boxes, owner) == ["killed-with-it"]


def test_a_queue_is_not_touched_under_another_server_key(boxes: Service, owner: Owner) -> None:
    """A secondary that lost its server key does not take its queue for damaged: it says so, and goes on once the key is back."""
    door = boxes.doors[2]
    box, secret = door.daemon, door.daemon.data / "secrets" / "server.key"
    boxes.proxies["secondary-2"].cut()
    deliver(box, owner, "under-the-old-key")
    box.kill()
    door.lives += 1
    own = secret.read_bytes()
    files = {path: path.read_bytes() for path in box.data.glob("queue/*/*.sqlite*")}
    assert files
    try:
        secret.write_bytes(os.urandom(32))
        box.start(wait=False)
        assert box.process is not None
        assert box.process.wait(PATIENCE) != 0
        box.process = None
        assert "under another server key" in box.log()[-2000:]
        assert "under another server key" in box.run("check", "--config", str(box.config)).stdout
        assert {path: path.read_bytes() for path in box.data.glob("queue/*/*.sqlite*")} == files
    finally:
        secret.write_bytes(own)
        boxes.proxies["secondary-2"].heal()
        start(box)
    until(lambda: not list(box.data.glob("queue/*/*.sqlite")), "it was handed over", 90)
    assert tokens(boxes, owner) == ["under-the-old-key"]


# -- a secondary is away ------------------------------------------------------------------------------


def test_what_a_dead_secondary_had_open_lapses(boxes: Service, owner: Owner) -> None:
    """Its sessions were the only ones: mail is sealed from then on, at once, and found by the next login."""
    box = boxes.doors[1].daemon
    secondary = Session(boxes.doors[1], owner)
    do(secondary, "SELECT INBOX")
    assert deliver(boxes.primary, owner, "lapse-1") < 10
    assert not boxes.waiting(), "the mailbox is open"
    assert box.process is not None
    box.kill()
    boxes.doors[1].lives += 1
    try:
        until(lambda: not opened(boxes), "the primary closes what nobody has open any more")
        assert deliver(boxes.primary, owner, "lapse-2") < 10, "nothing waits for a secondary that is not there"
        assert boxes.waiting(), "it is sealed"
    finally:
        start(box)
    assert tokens(boxes, owner, 1) == ["lapse-1", "lapse-2"]


def test_nothing_waits_for_a_secondary_that_is_frozen(boxes: Service, owner: Owner) -> None:
    """Mail and other clients of the same mailbox go on, and who was frozen catches up."""
    box = boxes.doors[1].daemon
    secondary, other = Session(boxes.doors[1], owner), Session(boxes.doors[2], owner)
    do(secondary, "SELECT INBOX")
    do(other, "SELECT INBOX")
    assert box.process is not None
    os.kill(box.process.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        for number in range(10):
            deliver(boxes.primary, owner, f"thawed-{number}")
            append(other, f"thawed-too-{number}")
        assert time.monotonic() - began < 15
    finally:
        os.kill(box.process.pid, signal.SIGCONT)
    told = do(secondary, "NOOP")
    while b"* 20 EXISTS" not in told:
        time.sleep(0.05)
        told += do(secondary, "NOOP")
    secondary.close()
    other.close()


# -- keys ---------------------------------------------------------------------------------------------


def keys_in(service: Service, key: bytes) -> dict[int, int]:
    """How often a mailbox key lies in the memory of each process, as octets or as the text that SQLite takes."""
    found = {}
    for pid in service.pids():
        memory = _memory(pid)
        found[pid] = sum(memory.count(form) for form in (key, key.hex().encode(), key.hex().upper().encode()))
    return found


def _memory(pid: int) -> bytes:
    """All that a process could have written to."""
    pieces = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            place, rights, *rest = line.split()
            if "w" not in rights or (len(rest) > 3 and rest[3].startswith(("[v", "/dev"))):
                continue
            start, end = (int(part, 16) for part in place.split("-"))
            try:
                memory.seek(start)
                pieces.append(memory.read(end - start))
            except (OSError, OverflowError):
                continue
    return b"\0".join(pieces)


def test_no_process_keeps_a_key_when_the_last_session_has_ended(tmp_path: Path) -> None:
    """Looked for in all memory of the primary and of its workers.

    Python does not overwrite what it frees, so somebody else comes and goes, until that memory has been used again.
    """
    with closing(one(tmp_path)) as service:
        owner, other = service.owner(), service.owner()
        with opened_store(load(service.primary.config, {})) as store:
            _, key = store.accounts.unlock(owner.address, owner.password)
        assert not any(keys_in(service, key).values()), "before anybody came"
        _visit(service, owner, 6, lambda: keys_in(service, key)[service.primary.process.pid])  # type: ignore[union-attr]

        def forgotten() -> bool:
            found = keys_in(service, key)
            if any(found.values()):
                _visit(service, other, 6, lambda: True)
            return not any(found.values())

        until(forgotten, "no process has the key", 60)


def _visit(service: Service, owner: Owner, sessions: int, meanwhile: Callable[[], object]) -> None:
    """So many sessions at once, which work and leave; ``meanwhile()`` must be true while they are there."""
    there = [Session(service.doors[0], owner) for _ in range(sessions)]
    for number, session in enumerate(there):
        do(session, "SELECT INBOX")
        append(session, f"visit-{number}")
    assert meanwhile()
    for session in there:
        session.close()
    until(lambda: not opened(service), "the mailbox is closed")
