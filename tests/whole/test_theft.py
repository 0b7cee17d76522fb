"""What a thief of the disk finds: nothing that was written, to whom, or when it was read."""

from __future__ import annotations

import base64
import re

from fe_twisted.app import keymark
from fe_twisted.protocols.crypto.derive import spool_key
from fe_twisted.storage.sqlite.connect import connect
from fe_twisted.storage.vault.secret import load_server_key
from tests.whole.daemon import Daemon, as_sent, select, simple

SECRETS = (
    "quicksilver-subject",
    "the-body-nobody-may-read",
    "attachment-text-for-nobody",
    "secret-sender",
    "Confidential-Folder",
    "secret-keyword",
    "draft-by-append",
)


def _message() -> bytes:
    attachment = base64.encodebytes(b"attachment-text-for-nobody " * 100).replace(b"\n", b"\r\n")
    return (
        b"From: <secret-sender@example.net>\r\nTo: <hello@example.com>\r\nSubject: quicksilver-subject\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nthe-body-nobody-may-read\r\n"
        b"--b\r\nContent-Type: text/plain; name=x.txt\r\nContent-Transfer-Encoding: base64\r\n\r\n" + attachment + b"--b--\r\n"
    )


def _look(daemon: Daemon, words: tuple[str, ...]) -> None:
    """No file holds any of the words, in any plain encoding, in its content or its name."""
    for path in daemon.files():
        content = path.read_bytes()
        if path == daemon.config:
            continue
        assert not content.startswith(b"SQLite format 3"), path
        for word in words:
            for form in (word.encode(), word.lower().encode(), word.encode("utf-16-le"), base64.b64encode(word.encode() * 3)[4:-4]):
                assert form not in content, f"{word!r} as {form!r} in {path.name}"
                assert word.lower() not in str(path.relative_to(daemon.data)).lower()


def test_nothing_to_read(fresh: Daemon) -> None:
    """While mail waits, while it is being read, after the session, after the end: all files of the data folder."""
    owner = fresh.owner("hello")
    words = (*SECRETS, "hello@example.com", "example.com", owner.password)
    fresh.start()
    fresh.send(owner.address, _message(), sender="secret-sender@example.net")
    _look(fresh, words)
    client = fresh.login(owner)
    client.create("Confidential-Folder")
    client.append("Confidential-Folder", r"(\Seen)", '"01-Jan-2024 00:00:00 +0000"', simple("x", "draft-by-append\r\n"))
    client.store("1", "+FLAGS", "(secret-keyword)")
    assert client.search(None, "TEXT", "quicksilver")[1] == [b"1"]
    assert client.search(None, "BODY", "attachment-text")[1][0] in (b"1", b"")
    assert select(client, "Confidential-Folder") == 1
    _look(fresh, words)
    client.logout()
    _look(fresh, words)
    fresh.stop()
    _look(fresh, words)
    fresh.start()
    (stored,) = fresh.messages(owner)
    assert as_sent(stored) == _message()


def test_file_names_tell_nothing(fresh: Daemon) -> None:
    """Mailbox files are ObjectIDs, different for each alias and not derived from it; one file more is the mark of the server key."""
    one, two = fresh.owner("hello"), fresh.owner("world")
    fresh.start()
    fresh.send([one.address, two.address], simple())
    names = {path.name for path in (fresh.data / "mailboxes").iterdir()} - {keymark.NAME}
    stems = {re.split(r"[-.]", name)[0] for name in names}
    assert len(stems) == 2 and all(re.fullmatch(r"[0-9a-f]{24}", stem) for stem in stems), names


def test_waiting_mail_does_not_open_with_the_servers_keys(fresh: Daemon) -> None:
    """The operator's view: with every key that is on the disk the temporary mailbox opens, and its rows stay sealed."""
    owner = fresh.owner("hello")
    fresh.start()
    fresh.send(owner.address, _message())
    fresh.stop()
    (waiting,) = [path for path in fresh.waiting_files() if path.suffix == ".sqlite"]
    server_key = load_server_key(fresh.data / "secrets" / "server.key")
    connection = connect(str(waiting), key=spool_key(server_key, waiting.name[:24]), cipher="chacha20", readonly=True)
    rows = [bytes(sealed) for (sealed,) in connection.execute("SELECT sealed FROM message")]
    connection.close()
    assert len(rows) == 1 and len(rows[0]) > len(_message()), "the outside opens with the server key"
    for word in (*SECRETS, "hello@example.com"):
        assert word.encode() not in rows[0]
    fresh.start()
    assert len(fresh.messages(owner)) == 1
