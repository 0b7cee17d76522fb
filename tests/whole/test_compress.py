"""COMPRESS=DEFLATE (RFC 4978), which a setting switches on, with mbsync, which uses it unasked, and with IMAPClient over zlib."""

from __future__ import annotations

import imaplib
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from imapclient import IMAPClient

from tests.whole.daemon import Daemon, simple, trusting
from tests.whole.test_mbsync import Mirror

COUNT = 30


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """imaplib sends no command that it does not know."""
    monkeypatch.setitem(imaplib.Commands, "COMPRESS", ("AUTH", "SELECTED"))


@pytest.fixture
def compressing(fresh: Daemon) -> Iterator[Daemon]:
    fresh.overrides["imap_compress"] = "true"
    fresh.start()
    yield fresh


def test_mbsync(compressing: Daemon, needs: Callable[[str], str], tmp_path: Path) -> None:
    """Both ways, several times; the second time there is nothing to do."""
    owner = compressing.owner()
    program = needs("mbsync")
    mirror = Mirror(program, tmp_path, compressing, owner)
    for number in range(COUNT):
        compressing.send(owner.address, simple(f"number {number}", f"text {number}\r\n" * 100))
    mirror.sync()
    assert len(mirror.files("INBOX")) == COUNT
    mirror.add("INBOX", simple("from here", "a text of one's own\r\n" * 100), "S")
    mirror.sync()
    assert len(compressing.messages(owner)) == COUNT + 1
    before = mirror.snapshot()
    mirror.sync()
    assert mirror.snapshot() == before
    said = subprocess.run(
        [program, "--config", str(tmp_path / "mbsyncrc"), "--all", "--debug-net"], capture_output=True, text=True, timeout=120, check=False
    )
    assert said.returncode == 0 and "COMPRESS DEFLATE" in said.stdout + said.stderr, said.stdout[:2000]


class Deflated:
    """A socket with a compression layer, as far as imaplib uses one."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._in, self._out = zlib.decompressobj(wbits=-15), zlib.compressobj(wbits=-15)
        self._buffer = b""
        #: Octets on the wire and what they stood for.
        self.received = self.meant = 0

    def sendall(self, data: bytes) -> None:
        self._socket.sendall(self._out.compress(data) + self._out.flush(zlib.Z_SYNC_FLUSH))

    def _more(self) -> None:
        data = self._socket.recv(65_536)
        assert data, "the connection ended"
        plain = self._in.decompress(data)
        self.received += len(data)
        self.meant += len(plain)
        self._buffer += plain

    def read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def readline(self, limit: int = -1) -> bytes:
        while b"\n" not in self._buffer:
            self._more()
        return self.read(self._buffer.index(b"\n") + 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def test_imapclient(compressing: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = compressing.owner()
    sent = [simple(f"number {number}", f"text {number}\r\n" * 200) for number in range(COUNT)]
    client = IMAPClient("127.0.0.1", compressing.port("imaps"), ssl_context=trusting())
    client.login(owner.address, owner.password)
    assert b"COMPRESS=DEFLATE" in client.capabilities()
    inner: Any = client._imap
    assert inner._simple_command("COMPRESS", "DEFLATE")[0] == "OK"
    layer = Deflated(inner.sock)
    for name, value in (("sock", layer), ("read", layer.read), ("readline", layer.readline), ("send", layer.sendall)):
        monkeypatch.setattr(inner, name, value)
    assert b"COMPRESS=DEFLATE" not in inner.capability()[1][0].split()
    for message in sent:
        client.append("INBOX", message, [b"\\Seen"])
    client.select_folder("INBOX")
    found = client.fetch(client.search(), ["BODY.PEEK[]", "FLAGS"])
    assert [found[uid][b"BODY[]"] for uid in sorted(found)] == sent
    assert layer.received * 3 < layer.meant
    assert client.search(["SUBJECT", "number 7"]) == [8]
    client.logout()


def test_it_is_off_unless_it_is_switched_on(daemon: Daemon) -> None:
    owner = daemon.owner()
    client = daemon.imaps()
    client.login(owner.address, owner.password)
    assert "COMPRESS=DEFLATE" not in client.capabilities
    with pytest.raises(imaplib.IMAP4.error, match="BAD"):
        client._simple_command("COMPRESS", "DEFLATE")
    client.logout()
