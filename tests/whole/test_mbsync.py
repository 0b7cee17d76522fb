"""mbsync: a full two-way sync of a Maildir, which finds every UID, flag and EXPUNGE that is not exact."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.whole.daemon import Daemon, Owner, as_sent, contents, select, simple

FOLDERS = ("INBOX", "Archive", "Sent")


class Mirror:
    """A Maildir tree and the mbsync configuration that mirrors a mailbox into it."""

    def __init__(self, program: str, folder: Path, daemon: Daemon, owner: Owner) -> None:
        self._program = program
        self.tree = folder / "mail"
        self.tree.mkdir()
        (folder / "state").mkdir()
        self._config = folder / "mbsyncrc"
        self._config.write_text(
            f"IMAPAccount a\nHost 127.0.0.1\nPort {daemon.port('imaps')}\nUser {owner.address}\nPass {owner.password}\nSSLType IMAPS\n"
            f"CertificateFile {daemon.data}/tls/certificate.pem\nSystemCertificates no\nPipelineDepth 50\n\n"
            f"IMAPStore server\nAccount a\n\nMaildirStore local\nPath {self.tree}/\nInbox {self.tree}/INBOX\nSubFolders Verbatim\n\n"
            f"Channel c\nFar :server:\nNear :local:\nPatterns *\nCreate Both\nRemove Both\n"
            f"Expunge Both\nSync All\nSyncState {folder}/state/\n"
        )

    def sync(self) -> str:
        """Run it; its output must hold no warning."""
        done = subprocess.run(
            [self._program, "--config", str(self._config), "--all", "--verbose"], capture_output=True, text=True, timeout=120, check=False
        )
        text = done.stdout + done.stderr
        assert done.returncode == 0, text
        lines = [line for line in text.splitlines() if "arning" in line or "rror" in line]
        assert not lines, text
        return text

    def snapshot(self) -> dict[str, tuple[float, bytes]]:
        """Every message file with its name, time of change and content."""
        return {
            str(path.relative_to(self.tree)): (path.stat().st_mtime, path.read_bytes())
            for path in sorted(self.tree.rglob("*"))
            if path.is_file() and path.parent.name in ("cur", "new")
        }

    def files(self, folder: str) -> dict[bytes, Path]:
        """Messages of a folder by content without the TUID that mbsync adds."""
        found = {}
        for part in ("cur", "new"):
            for path in (self.tree / folder / part).iterdir():
                lines = path.read_bytes().split(b"\n")
                found[b"\n".join(line for line in lines if not line.startswith(b"X-TUID:"))] = path
        return found

    def add(self, folder: str, content: bytes, flags: str = "") -> None:
        """A message written by a local mail program."""
        name = f"{abs(hash(content))}.local"
        where = self.tree / folder / ("cur" if flags else "new")
        (where / (f"{name}:2,{flags}" if flags else name)).write_bytes(content.replace(b"\r\n", b"\n"))


@pytest.fixture
def mirror(daemon: Daemon, owner: Owner, needs: Callable[[str], str], tmp_path: Path) -> Mirror:
    """A Maildir of its own for the owner."""
    return Mirror(needs("mbsync"), tmp_path, daemon, owner)


def _state(daemon: Daemon, owner: Owner) -> dict[str, list[tuple[bytes, ...]]]:
    """Everything on the server that a client can see: UIDs, flags, sizes, per folder with UIDVALIDITY and UIDNEXT."""
    client = daemon.imaps()
    client.login(owner.address, owner.password)
    state = {}
    for folder in FOLDERS:
        status = client.status(folder, "(MESSAGES UIDNEXT UIDVALIDITY UNSEEN)")[1][0]
        select(client, folder)
        rows = client.uid("FETCH", "1:*", "(FLAGS RFC822.SIZE)")[1]
        state[folder] = [(status,), *((row,) for row in rows if isinstance(row, bytes))]
    client.logout()
    return state


def test_two_way_sync_twice(daemon: Daemon, owner: Owner, mirror: Mirror) -> None:
    """Server → local, local → server, flags and deletions both ways; after each a second run that changes nothing anywhere."""
    for number in range(30):
        daemon.send(owner.address, simple(f"from the server {number}", f"text {number}\r\n" * (number + 1)))
    mirror.sync()
    assert len(mirror.files("INBOX")) == 30
    stored = {content.replace(b"\r\n", b"\n") for content in daemon.messages(owner)}
    assert set(mirror.files("INBOX")) == stored, "byte for byte but for the line ends"
    assert {path.name for path in mirror.tree.iterdir()} == {"INBOX", "Drafts", "Sent", "Archive", "Junk", "Trash"}
    _unchanged(daemon, owner, mirror)

    for number in range(10):
        mirror.add("Archive", simple(f"from here {number}"), "S" if number % 2 else "")
    mirror.sync()
    uploaded = daemon.messages(owner, "Archive")
    assert len(uploaded) == 10
    client = daemon.login(owner, "Archive")
    assert len(client.search(None, "SEEN")[1][0].split()) == 5
    client.logout()
    _unchanged(daemon, owner, mirror)

    # Flags: both sides change different messages, and both change one.
    by_content = mirror.files("INBOX")
    for content, path in by_content.items():
        if b"from the server 3\n" in content:
            path.rename(path.parent.parent / "cur" / (path.name.partition(":")[0] + ":2,FS"))
    client = daemon.login(owner)
    client.store("10", "+FLAGS", r"(\Answered \Seen)")
    client.logout()
    mirror.sync()
    client = daemon.login(owner)
    flagged = client.search(None, "FLAGGED")[1][0].split()
    assert len(flagged) == 1 and b"from the server 3\r\n" in contents(client, flagged[0].decode())[0]
    client.logout()
    answered = [path for path in mirror.files("INBOX").values() if path.name.endswith(":2,RS")]
    assert len(answered) == 1
    _unchanged(daemon, owner, mirror)

    # Deletions: a local one, one on the server, a whole new folder on each side.
    for content, path in mirror.files("INBOX").items():
        if b"from the server 5\n" in content:
            path.unlink()
    client = daemon.login(owner)
    client.store("20", "+FLAGS", r"\Deleted")
    client.expunge()
    client.create("Work")
    client.append("Work", r"(\Draft)", "", simple("in a new folder"))
    client.logout()
    mirror.sync()
    assert len(mirror.files("INBOX")) == 28
    subjects = [as_sent(content) for content in daemon.messages(owner)]
    assert len(subjects) == 28 and not any(b"from the server 5\r\n" in content for content in subjects)
    assert list(mirror.files("Work")) == [simple("in a new folder").replace(b"\r\n", b"\n")]
    _unchanged(daemon, owner, mirror)


def _unchanged(daemon: Daemon, owner: Owner, mirror: Mirror) -> None:
    """Another run changes nothing on either side."""
    tree, state = mirror.snapshot(), _state(daemon, owner)
    mirror.sync()
    assert mirror.snapshot() == tree
    assert _state(daemon, owner) == state


def test_sync_while_mail_arrives(daemon: Daemon, owner: Owner, mirror: Mirror) -> None:
    """Deliveries between and during runs: each message is mirrored exactly once."""
    stop = threading.Event()
    sent: list[bytes] = []

    def deliver() -> None:
        while not stop.is_set() and len(sent) < 300:
            message = simple(f"during {len(sent)}")
            daemon.send(owner.address, message)
            sent.append(message)

    thread = threading.Thread(target=deliver)
    thread.start()
    try:
        for _ in range(4):
            mirror.sync()
    finally:
        stop.set()
        thread.join()
    mirror.sync()
    mirrored = sorted(as_sent(content.replace(b"\n", b"\r\n")) for content in mirror.files("INBOX"))
    assert mirrored == sorted(sent)
    _unchanged(daemon, owner, mirror)
