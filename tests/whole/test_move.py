"""Two primaries with one directory: a mailbox moves between them while a client reads, writes and idles, and mail comes in at both."""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fe_twisted.app.cli import progress
from tests.storage.directory.conftest import postgresql, postgresql_url  # noqa: F401  # fixtures
from tests.whole.daemon import Daemon, Owner, simple, until

#: The port of the link, before the offset.
LINK = 4190


def prepare(daemon: Daemon, location: str, directory: str) -> None:
    """One box: a settings file as the guide has it."""
    daemon.init()
    with daemon.config.open("a") as file:
        file.write(f'location = "{location}"\nlink_port = {LINK}\nlink_authority = "tls/others.pem"\n')
        file.write(f'directory_url = "{directory}"\nsession_grace_seconds = 2\n')


def introduce(daemon: Daemon, others: dict[str, Daemon]) -> None:
    """Tell one box of the others."""
    urls = [f'"{location}=wss://localhost:{other.offset + LINK}"' for location, other in others.items()]
    with daemon.config.open("a") as file:
        file.write(f"primaries = [{', '.join(urls)}]\n")
    trusted = b"".join((other.data / "tls" / "certificate.pem").read_bytes() for other in others.values())
    (daemon.data / "tls" / "others.pem").write_bytes(trusted)


@pytest.fixture
def boxes(tmp_path: Path, postgresql_url: str) -> Iterator[tuple[Daemon, Daemon]]:  # noqa: F811  # the fixture
    """Two primaries, running, with the domain ``example.com``."""
    one, two = Daemon(tmp_path / "one"), Daemon(tmp_path / "two")
    url = postgresql_url.replace("+psycopg", "")
    prepare(one, "one", url)
    prepare(two, "two", url)
    introduce(one, {"two": two})
    introduce(two, {"one": one})
    token = one.json("link", "token")["token"]
    two.cli("link", "join", stdin=token + "\n")
    one.cli("domain", "add", "example.com")
    for each in (one, two):
        each.start()
    for each in (one, two):
        until(lambda each=each: "link.connected" in each.log(), "the boxes are linked")  # type: ignore[misc]
    yield one, two
    for each in (one, two):
        if each.process is not None:
            each.close()


def bodies(daemon: Daemon, owner: Owner) -> list[bytes]:
    """The marks of all messages, as a client of one box sees them."""
    return sorted(re.search(rb"mark-\w+", each)[0] for each in daemon.messages(owner))  # type: ignore[index]


def mark(name: str) -> bytes:
    return simple(f"mark-{name}")


def folder(daemon: Daemon) -> set[str]:
    return {path.name for path in (daemon.data / "mailboxes").iterdir()}


def test_a_mailbox_moves_while_it_is_used(boxes: tuple[Daemon, Daemon]) -> None:
    one, two = boxes
    owner = one.owner("hello")
    file = one.json("alias", "show", owner.address)["mailbox"] + ".sqlite"
    for number in range(5):
        one.send(owner.address, mark(f"before{number}"))
        two.send(owner.address, mark(f"there{number}"))
    expected = sorted([f"mark-before{number}".encode() for number in range(5)] + [f"mark-there{number}".encode() for number in range(5)])
    until(lambda: bodies(one, owner) == expected, "both boxes deliver into the mailbox")

    # One client of each box: the one's process loses the file, the other's process gets it. Both are told to come again.
    clients = [one.login(owner), two.login(owner)]
    stop = threading.Event()
    sent: list[str] = []

    def deliver() -> None:
        while not stop.is_set():
            name = f"during{len(sent)}"
            (one if len(sent) % 2 else two).send(owner.address, mark(name))
            sent.append(name)

    delivering = threading.Thread(target=deliver)
    delivering.start()
    try:
        assert one.run("alias", "move", owner.address, "two", "--config", str(one.config)).returncode == 0
    finally:
        stop.set()
        delivering.join()
    expected = sorted([*expected, *(f"mark-{name}".encode() for name in sent)])
    until(lambda: file in folder(two) and not {each for each in folder(one) if each.startswith(file[:24])}, "the old copy is gone")
    until(lambda: bodies(two, owner) == expected, "every message is there once")
    until(lambda: bodies(one, owner) == expected, "at both boxes")
    assert one.json("alias", "show", owner.address)["location"] == "two"
    assert two.json("mailbox", "check", owner.address, "--password-stdin", stdin=owner.password + "\n")["problems"] == []
    for client in clients:
        with pytest.raises(client.abort, match=r"log in again|EOF"):
            for _ in range(3):
                client.noop()

    assert "at one" in two.cli("alias", "move", owner.address, "one")
    one.send(owner.address, mark("after"))
    until(lambda: bodies(one, owner) == sorted([*expected, b"mark-after"]), "nothing was lost on the way back")
    assert "at one already" in two.cli("alias", "move", owner.address, "one", status=1)
    one.stop()
    two.stop()


def test_how_far_it_is_is_said_beside_the_answer(boxes: tuple[Daemon, Daemon], monkeypatch: pytest.MonkeyPatch) -> None:
    """On the standard error; with ``--json`` there is one object, and nothing beside it."""
    one, two = boxes
    owner = one.owner()
    for number in range(4):
        one.send(owner.address, simple(f"large {number}", body=base64.encodebytes(os.urandom(3_000_000)).replace(b"\n", b"\r\n").decode()))
    assert len(one.messages(owner)) == 4
    monkeypatch.setattr(progress, "EVERY", 0.005)
    monkeypatch.setattr(progress, "LINE", 0.0)
    done = one._verb("alias", "move", owner.address, "two", stdin=None)
    assert done.returncode == 0
    assert re.search(r"^copying: [0-9,]+ of [0-9,]+ octets \(\d+ %\)", done.stderr, re.MULTILINE), done.stderr
    assert "at two" in done.stdout and "copying" not in done.stdout
    until(lambda: "move.done" in one.log(), "nothing is left")
    back = two._verb("alias", "move", owner.address, "one", "--json", stdin=None)
    assert json.loads(back.stdout)["location"] == "one" and back.stderr == ""


def test_a_session_at_a_worker_follows(tmp_path: Path, postgresql_url: str) -> None:  # noqa: F811  # the fixture
    """A worker of the first box reads over links, so its client's session lives through the move."""
    one, two = Daemon(tmp_path / "one", overrides={"workers": "1"}), Daemon(tmp_path / "two")
    url = postgresql_url.replace("+psycopg", "")
    for each, name in ((one, "one"), (two, "two")):
        prepare(each, name, url)
    introduce(one, {"two": two})
    introduce(two, {"one": one})
    two.cli("link", "join", stdin=one.json("link", "token")["token"] + "\n")
    one.cli("domain", "add", "example.com")
    one.start()
    two.start()
    until(lambda: one.log().count("link.connected") >= 3 and "link.connected" in two.log(), "everybody is linked")
    owner = one.owner("hello")
    one.send(owner.address, mark("first"))
    client = one.login(owner)
    assert client.search(None, "ALL")[1] == [b"1"]
    assert "at two" in one.cli("alias", "move", owner.address, "two")
    one.send(owner.address, mark("second"))
    until(lambda: client.noop() and client.search(None, "ALL")[1] == [b"1 2"], "the same session sees what came at the new place")
    assert client.store("1:2", "+FLAGS", r"(\Flagged)")[0] == "OK"
    assert client.append("INBOX", "", None, mark("third"))[0] == "OK"  # type: ignore[arg-type]
    assert "at one" in two.cli("alias", "move", owner.address, "one")
    assert client.noop()[0] == "OK"
    assert client.search(None, "FLAGGED")[1] == [b"1 2"]
    client.logout()
    assert len(one.messages(owner)) == 3
    one.stop()
    two.stop()


def test_check_calls_the_other_primary(boxes: tuple[Daemon, Daemon]) -> None:
    """As a link does it, so it says what would keep a link from being made."""
    one, two = boxes

    def found(status: int) -> tuple[str, str]:
        [each] = [each for each in one.json("check", status=status)["checks"] if each["check"] == "link to two"]
        return each["status"], each["detail"]

    assert found(0)[0] == "ok" and found(0)[1].endswith("localhost/primary/" + one.json("version")["version"])
    trusted = (one.data / "tls" / "others.pem").read_bytes()
    (one.data / "tls" / "others.pem").write_bytes((one.data / "tls" / "certificate.pem").read_bytes())
    assert found(1)[0] == "problem" and "wrong-certificate" in found(1)[1]
    (one.data / "tls" / "others.pem").write_bytes(trusted)
    token = (one.data / "secrets" / "link.key").read_bytes()
    one.cli("link", "token", "--new")
    assert found(0)[0] == "ok", "an older token that both have is tried, too"
    one.cli("link", "token", "--forget-old")
    assert found(1)[0] == "problem" and "wrong-secret" in found(1)[1] and "link join" in found(1)[1]
    (one.data / "secrets" / "link.key").write_bytes(token)
    two.stop()
    assert found(0)[0] == "away" and "does not answer" in found(0)[1]


def test_a_target_that_is_down_changes_nothing(boxes: tuple[Daemon, Daemon]) -> None:
    one, two = boxes
    owner = one.owner("hello")
    one.send(owner.address, mark("kept"))
    two.stop()
    assert "two cannot be reached" in one.cli("alias", "move", owner.address, "two", status=1)
    assert bodies(one, owner) == [b"mark-kept"]
    two.start()
    move = ("alias", "move", owner.address, "two", "--config", str(one.config))
    until(lambda: "at two" in one.run(*move).stdout, "it goes once the other box is there")
    assert bodies(two, owner) == [b"mark-kept"]


def test_kill_the_source_or_the_target_and_repeat(boxes: tuple[Daemon, Daemon]) -> None:
    """kill -9 while it is being copied, at each side in turn."""
    one, two = boxes
    owner = one.owner("hello")
    expected = []
    for number in range(3):
        file = base64.encodebytes(os.urandom(1_500_000)).decode().replace("\n", "\r\n")
        kind = "MIME-Version: 1.0\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n"
        one.send(owner.address, simple(f"mark-{number}", file, more=kind))
        expected.append(f"mark-{number}".encode())
    until(lambda: bodies(one, owner) == expected, "all has come in")
    for victim, point in ((one, "move.sent"), (two, "arrive.synced"), (one, "move.decided")):
        victim.stop()
        victim.start({"FORWARDEMAIL_CRASH_AT": point})
        until(lambda: linked(one) and linked(two), "the boxes are linked again")
        done = one.run("alias", "move", owner.address, "two", "--config", str(one.config))
        assert done.returncode == 1 and victim.process is not None
        victim.process.wait(30)
        victim.process = None
        victim.start()
        until(lambda: linked(one) and linked(two), "the boxes are linked again")
        place = one.json("alias", "show", owner.address)["location"]
        assert place == ("two" if point == "move.decided" else "one")
        one.send(owner.address, mark(point.replace(".", "")))
        expected.append(f"mark-{point.replace('.', '')}".encode())
        until(lambda: bodies(one, owner) == sorted(expected) and bodies(two, owner) == sorted(expected), "everything is there once")
    file = one.json("alias", "show", owner.address)["mailbox"]
    until(lambda: not {each for each in folder(one) if each.startswith(file)}, "the old copy was removed by the start alone")
    assert not {each for each in folder(two) if ".incoming" in each}


def linked(daemon: Daemon) -> bool:
    """Whether the newest that it says of its link is that it is there."""
    found = re.findall(r"link\.(connected|lost|waiting)", daemon.log())
    return bool(found) and found[-1] == "connected"
