"""Clients of one mailbox at different processes: each hears of what the others do, in the order in which it was done, and soon."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak.boxes import Service, closing, one, several
from tests.soak.clients import HUNG, Session, message
from tests.whole.daemon import Owner, until
from tests.whole.values import fetched

#: Seconds within which those who wait are told of new mail.
SOON = 0.1

DELIVERIES = 15

#: The keyword that the last change sets.
LAST = "AtLast"


@pytest.fixture(scope="module", params=["workers", "boxes"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A box with two workers; a primary with two secondaries."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    running = one(folder) if request.param == "workers" else several(folder, request.getfixturevalue("module_database"))
    with closing(running):
        yield running


@pytest.fixture
def owner(service: Service) -> Owner:
    return service.owner()


def everywhere(service: Service, owner: Owner) -> list[Session]:
    """A session at every process that answers clients."""
    if len(service.doors) > 1:
        return [Session(door, owner) for door in service.doors]
    found: dict[str, Session] = {}
    while len(found) < 2:
        session = Session(service.doors[0], owner)
        name = _process(service, owner)
        if name in found:
            session.close()
        else:
            found[name] = session
    return list(found.values())


def _process(service: Service, owner: Owner) -> str:
    """At which worker the owner has just logged in."""
    lines = until(lambda: [line for line in service.logs().splitlines() if "imap.login" in line], "a login is logged")
    found = re.search(r"process=(worker-\d)", lines[-1])
    assert found is not None
    return found[1]


def quietly(session: Session, command: str) -> list[bytes]:
    """A command and its untagged responses."""
    told: list[bytes] = []
    session.ask(command, told.append)
    return told


def idle(session: Session) -> bytes:
    """Begin to wait; the tag."""
    tag = session.begin("IDLE")
    while not session.response().startswith(b"+"):
        pass
    return tag


def append(session: Session, token: str, folder: str = "INBOX") -> None:
    content = message(token, 10)
    session.ask(b"APPEND %b {%d+}\r\n%b" % (folder.encode(), len(content), content), lambda _: None)


def test_changes_are_seen_in_their_order(service: Service, owner: Owner) -> None:
    """What the one does is what the other hears: as many messages, each flag with a higher MODSEQ, and what is gone goes."""
    sessions = everywhere(service, owner)
    for session in sessions:
        quietly(session, "ENABLE CONDSTORE")
        quietly(session, "SELECT INBOX")
    actor, *watchers = sessions
    tags = [idle(watcher) for watcher in watchers]
    for number in range(1, 11):
        append(actor, f"order-{number}")
        quietly(actor, rf"UID STORE {number} +FLAGS (\Flagged)")
    for number in range(1, 11, 2):
        quietly(actor, rf"UID STORE {number} +FLAGS.SILENT (\Deleted)")
        quietly(actor, f"UID EXPUNGE {number}")
    append(actor, "order-last")
    quietly(actor, f"UID STORE 11 +FLAGS ({LAST})")
    expected = [re.sub(rb" ?\\Recent", b"", line) for line in quietly(actor, "UID FETCH 1:* (FLAGS MODSEQ)")]
    for watcher, tag in zip(watchers, tags, strict=True):
        heard = _until_last(watcher)
        watcher.send(b"DONE\r\n")
        watcher.end(tag, heard.append)
        _in_order(heard)
        shown = quietly(watcher, "UID FETCH 1:* (FLAGS MODSEQ)")
        assert [re.sub(rb" ?\\Recent", b"", line) for line in shown] == expected
    for session in sessions:
        session.close()


def _until_last(watcher: Session) -> list[bytes]:
    """Everything up to the keyword that nobody had before: of messages that came and went between two tellings nothing is said."""
    heard = [watcher.response()]
    until = time.monotonic() + HUNG
    while not re.match(rb"\* FLAGS \(.*" + LAST.encode(), heard[-1]):
        assert time.monotonic() < until, heard
        heard.append(watcher.response())
    return heard


def _in_order(heard: list[bytes]) -> None:
    """MODSEQs of one message never go back; counts and numbers always fit to each other."""
    here, modseqs = 0, dict[int, int]()
    for response in heard:
        if found := re.match(rb"\* (\d+) EXISTS", response):
            assert int(found[1]) >= here
            here = int(found[1])
        elif found := re.match(rb"\* (\d+) EXPUNGE", response):
            assert 1 <= int(found[1]) <= here
            here -= 1
        elif items := fetched(response):
            assert 1 <= int(response.split()[1]) <= here
            assert items["MODSEQ"][0] >= modseqs.get(items["UID"], 0)
            modseqs[items["UID"]] = items["MODSEQ"][0]


def test_those_who_wait_hear_of_mail_at_once(service: Service, owner: Owner) -> None:
    """Wherever a message comes in, IDLE at every process tells of it within a tenth of a second of the 250."""
    sessions = everywhere(service, owner)
    for session in sessions:
        quietly(session, "SELECT INBOX")
        idle(session)
    late: list[float] = []
    for number in range(DELIVERIES):
        door = service.doors[number % len(service.doors)]
        with door.daemon.smtp() as smtp:
            smtp.sendmail("sender@example.net", owner.address, message(f"news-{number}", 10))
            accepted = time.monotonic()
        for session in sessions:
            while b"EXISTS" not in session.response():
                pass
            late.append(max(0.0, time.monotonic() - accepted))
        time.sleep(0.05)
    print(f"after the 250: median {statistics.median(late) * 1000:.1f} ms, worst {max(late) * 1000:.1f} ms, {len(late)} times")
    assert statistics.median(late) < SOON
    for session in sessions:
        session.close()


def test_a_message_is_told_of_only_once_wherever_it_is_moved_to(service: Service, owner: Owner) -> None:
    """A MOVE at one process is one arrival in the one folder and one departure from the other, everywhere."""
    sessions = everywhere(service, owner)
    actor, *watchers = sessions
    quietly(actor, "SELECT INBOX")
    for number in range(3):
        append(actor, f"moved-{number}")
    tags: list[tuple[Session, bytes, str]] = []
    extra: list[Session] = []
    for at, watcher in enumerate(watchers):
        quietly(watcher, "SELECT INBOX")
        tags.append((watcher, idle(watcher), "INBOX"))
        other = Session(service.doors[(at + 1) % len(service.doors)], owner)
        extra.append(other)
        quietly(other, "SELECT Archive")
        tags.append((other, idle(other), "Archive"))
    quietly(actor, "UID MOVE 2 Archive")
    for watcher, tag, folder in tags:
        expected = b"* 2 EXPUNGE" if folder == "INBOX" else b"* 1 EXISTS"
        heard = [watcher.response()]
        while heard[-1] != expected:
            heard.append(watcher.response())
        time.sleep(0.1)
        watcher.send(b"DONE\r\n")
        watcher.end(tag, heard.append)
        assert heard.count(expected) == 1
    for session in [*sessions, *extra]:
        session.close()
