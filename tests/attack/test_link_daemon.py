"""The link of a running daemon: who may not come in is told why, and so is the operator; who came in can reach nothing that is not his."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from OpenSSL import SSL

from fe_twisted.app.secrets import own_link_secret
from fe_twisted.app.store import opened
from fe_twisted.base.load import load
from fe_twisted.protocols.cluster.frames import MAX_GREETING, MAX_MESSAGE, Refuse, Request, encode
from fe_twisted.protocols.cluster.handshake import Agreed, Identity
from fe_twisted.storage.mailbox.remote import METHODS
from fe_twisted.storage.vault.token import read_tokens
from tests.soak.boxes import LINK, Service, closing, start
from tests.whole.daemon import Daemon, Owner, simple, until
from tests.whole.peer import CLOSE, Peer

#: From where boxes may come, and from where not.
WELCOME, STRANGER = "127.0.0.2", "127.0.0.1"

Come = Callable[[], Peer]


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A primary with a link port for one address."""
    daemon = Daemon(tmp_path_factory.mktemp("link") / "var")
    daemon.init()
    with daemon.config.open("a") as file:
        file.write(f'link_port = {LINK}\nlink_networks = ["{WELCOME}/32"]\n')
    daemon.cli("link", "token")
    with closing(Service([daemon])):
        start(daemon)
        yield daemon


@pytest.fixture(params=["socket", "port"])
def come(request: pytest.FixtureRequest, primary: Daemon) -> Iterator[Come]:
    """Makes connections by one of the two ways in."""
    made: list[Peer] = []

    def connect() -> Peer:
        place = primary.data / "link.sock" if request.param == "socket" else LINK + primary.offset
        made.append(Peer(place, source=WELCOME))
        return made[-1]

    yield connect
    for peer in made:
        peer.close()


@pytest.fixture
def secret(primary: Daemon) -> bytes:
    """The link secret, for both ways in."""
    return read_tokens(primary.data / "secrets" / "link.key")[0]


class Log:
    """What the daemon's log says from now on."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._start = len(daemon.log())

    def refusal(self, reason: str) -> str:
        """The line of a refusal, once it is there."""

        def found() -> str | None:
            lines = self._daemon.log()[self._start :].splitlines()
            return next((line for line in lines if "cluster.refused" in line and f"reason={reason}" in line), None)

        return str(until(found, f"a refusal for {reason} is logged\n{self._daemon.log()[self._start :]}", 20))


@pytest.fixture
def log(primary: Daemon) -> Log:
    return Log(primary)


# -- who does not come in -----------------------------------------------------------------------------


def test_a_wrong_secret(come: Come, log: Log) -> None:
    peer = come()
    refusal = peer.prove(b"x" * 32)
    assert isinstance(refusal, Refuse) and refusal.reason == "wrong-secret"
    assert peer.ended()
    assert "another link secret" in log.refusal("wrong-secret")


def test_a_wrong_version(come: Come, log: Log, secret: bytes) -> None:
    peer = come()
    refusal = peer.prove(secret, Identity("from-the-future", 98, 99))
    assert isinstance(refusal, Refuse) and refusal.reason == "wrong-version"
    assert "98 to 99" in refusal.text and "update the older one" in refusal.text
    assert peer.ended()
    assert "98 to 99" in log.refusal("wrong-version")


@pytest.mark.parametrize("garbage", [b"", b"\xff" * 100, b"\x84\x04", b"\xd8\x25\x50" + bytes(16), b"SELECT * FROM aliases"])
def test_garbage_in_a_frame(come: Come, log: Log, garbage: bytes) -> None:
    peer = come()
    assert peer.upgrade().startswith(b"HTTP/1.1 101")
    peer.message(garbage)
    assert b"bad-frame" in peer.next()
    assert peer.ended()
    log.refusal("bad-frame")


@pytest.mark.parametrize("garbage", [b"\0" * 8 + b"\r\n\r\n", b"HELO there\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_no_websocket(come: Come, log: Log, garbage: bytes) -> None:
    peer = come()
    peer.send(garbage)
    assert peer.ended()
    log.refusal("no-websocket")


def test_another_subprotocol(come: Come, log: Log) -> None:
    peer = come()
    assert peer.upgrade(b"chat").startswith(b"HTTP/1.1 400")
    assert peer.ended()
    log.refusal("wrong-subprotocol")


def test_a_frame_that_is_too_large_from_somebody_unknown(come: Come, log: Log) -> None:
    peer = come()
    peer.upgrade()
    peer.message(bytes(MAX_GREETING + 1))
    assert peer.ended()
    log.refusal("too-large")


def test_a_frame_that_is_too_large_from_a_peer(come: Come, log: Log, secret: bytes) -> None:
    peer = come()
    assert isinstance(peer.prove(secret), Agreed)
    peer.message(bytes(MAX_MESSAGE + 1))
    assert peer.ended()
    log.refusal("too-large")


def test_the_announcement_of_a_frame_that_is_too_large_is_enough(come: Come, log: Log, secret: bytes) -> None:
    """Nothing is kept for what somebody says that he is about to send."""
    peer = come()
    assert isinstance(peer.prove(secret), Agreed)
    peer.send(b"\x82\xff" + (1 << 40).to_bytes(8, "big") + bytes(4))
    assert peer.ended()
    log.refusal("too-large")


def test_a_question_before_the_proof(come: Come, log: Log) -> None:
    peer = come()
    peer.upgrade()
    peer.message(encode(Request(1, "open", "", b"", 0, 0, b"")))
    assert b"unexpected-frame" in peer.next()
    log.refusal("unexpected-frame")


def test_who_says_nothing(come: Come, log: Log) -> None:
    """Neither before the WebSocket nor after it may anybody be silent for long."""
    silent, upgraded = come(), come()
    upgraded.upgrade()
    began = time.monotonic()
    assert silent.ended() and upgraded.ended()
    assert time.monotonic() - began < 20
    assert "no proof within" in log.refusal("too-slow")
    log.refusal("no-websocket")


def test_an_address_that_is_not_on_the_list(primary: Daemon, log: Log, secret: bytes) -> None:
    with pytest.raises((ConnectionError, SSL.SysCallError, SSL.Error, EOFError)):
        Peer(LINK + primary.offset, source=STRANGER).prove(secret)
    assert STRANGER in log.refusal("wrong-address")


def test_the_secret_of_this_box_is_for_its_own_socket_only(primary: Daemon, log: Log) -> None:
    """Workers prove themselves with a key that is derived from the server key; no other box can come in with it."""
    settings = load(primary.config, {})
    with opened(settings) as store:
        own = own_link_secret(store.server_key)
    peer = Peer(primary.data / "link.sock")
    assert isinstance(peer.prove(own), Agreed)
    peer.close()
    peer = Peer(LINK + primary.offset, source=WELCOME)
    refusal = peer.prove(own)
    assert isinstance(refusal, Refuse) and refusal.reason == "wrong-secret"
    peer.close()
    log.refusal("wrong-secret")


# -- who has come in ----------------------------------------------------------------------------------


def _files(daemon: Daemon) -> set[Path]:
    return {path for path in daemon.files() if not path.name.endswith(("-wal", "-shm"))}


@pytest.fixture
def victim(primary: Daemon) -> tuple[Owner, str]:
    """Somebody with a mailbox, and its id."""
    owner = primary.owner()
    primary.send(owner.address, simple("secret"))
    return owner, primary.json("alias", "show", owner.address)["mailbox"]


def test_a_peer_reaches_no_mailbox_without_its_key(come: Come, log: Log, primary: Daemon, secret: bytes, victim: tuple[Owner, str]) -> None:
    """Also while the owner has it open, at the primary itself."""
    owner, mailbox_id = victim
    client = primary.login(owner)
    before = _files(primary)
    peer = come()
    agreed = peer.prove(secret)
    assert isinstance(agreed, Agreed)
    questions = [(method, mailbox_id, b"\x81\x65INBOX") for method in METHODS]
    assert set(peer.refused(questions)) == {"Refused"}
    assert "mailbox is not open on this link" in log.refusal("mailbox-not-open")
    wrapped = agreed.keys.wrap(mailbox_id, bytes(32))
    assert peer.refused([("open", mailbox_id, bytes(60)), ("open", mailbox_id, b"")]) == ["Refused", "Refused"]
    log.refusal("wrong-key")
    assert peer.refused([("open", mailbox_id, wrapped)])[0] in ("WrongKey", "DamagedFile")
    assert peer.refused([("open", "f" * 24, agreed.keys.wrap("f" * 24, bytes(32)))]) == ["Refused"]
    log.refusal("not-here")
    assert client.select("INBOX")[1] == [b"1"], "the owner notices nothing"
    client.logout()
    assert _files(primary) == before


@pytest.mark.parametrize("method", ["sql", "execute", "query", "read_file", "backup", "keywords", "idempotent", "sealing_key", "close"])
def test_a_peer_can_ask_for_what_is_in_the_table_only(come: Come, log: Log, secret: bytes, method: str) -> None:
    peer = come()
    assert isinstance(peer.prove(secret), Agreed)
    assert peer.refused([(method, "", b"SELECT * FROM aliases")]) == ["Refused"]
    log.refusal("unknown-method")


@pytest.mark.parametrize("mailbox", ["../secrets/server.key", "/etc/passwd", "..", "a" * 24 + ".sqlite", "' OR 1=1 --"])
def test_a_peer_names_no_file(come: Come, log: Log, primary: Daemon, secret: bytes, mailbox: str) -> None:
    before = _files(primary)
    peer = come()
    assert isinstance(peer.prove(secret), Agreed)
    peer.message(encode(Request(1, "open", mailbox, b"", 0, 0, b"")))
    assert b"bad-frame" in peer.next()
    assert peer.ended()
    log.refusal("bad-frame")
    assert _files(primary) == before


def test_arguments_that_are_none(come: Come, log: Log, primary: Daemon, secret: bytes, victim: tuple[Owner, str]) -> None:
    """Of the questions that need no open mailbox."""
    before = _files(primary)
    peer = come()
    assert isinstance(peer.prove(secret), Agreed)
    for method in ("deliver", "handover"):
        assert peer.refused([(method, victim[1], body) for body in (b"", b"\xff", b"\x80", b"\xa0")]) == ["Refused"] * 4
    log.refusal("bad-arguments")
    assert _files(primary) == before


def test_a_peer_that_closes_in_the_middle_leaves_nothing_behind(come: Come, primary: Daemon, secret: bytes) -> None:
    for _ in range(20):
        peer = come()
        assert isinstance(peer.prove(secret), Agreed)
        peer.message(encode(Request(1, "deliver", "", b"", 1, 100_000, b"")))
        peer.message(b"", CLOSE)
        peer.close()
    until(lambda: _joined(primary) == 0, f"all have left: {_joined(primary)}")


def _joined(daemon: Daemon) -> int:
    log = daemon.log()
    return len(re.findall("cluster.joined", log)) - len(re.findall("cluster.left", log))
