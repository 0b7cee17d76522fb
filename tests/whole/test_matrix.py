"""More clients that nobody here wrote: OfflineIMAP, NeoMutt, getmail, fetchmail, ImapFlow.

Each reads, and where it can it flags, copies, moves, deletes and searches; each that mirrors does so twice, and the second time changes
nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select as waiting
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.whole.daemon import Daemon, Owner, as_sent, environment, select, simple
from tests.whole.test_mbsync import Mirror

Needs = Callable[[str], str]
IMAPFLOW = Path(__file__).parent / "imapflow"


def _run(*arguments: str, status: int = 0, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(
        arguments, env=environment(env), stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False, cwd=cwd
    )  # fmt: skip
    text = done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace")
    assert done.returncode == status, f"{arguments[0]}: exit {done.returncode}\n{text[-3000:]}"
    return text


def _fill(daemon: Daemon, owner: Owner, count: int = 5) -> list[bytes]:
    sent = [simple(f"number {number}", f"text {number}\r\n") for number in range(count)]
    for content in sent:
        daemon.send(owner.address, content)
    return sent


def _flags(daemon: Daemon, owner: Owner, folder: str = "INBOX") -> dict[str, set[str]]:
    """Subject → flags."""
    client = daemon.login(owner, folder)
    found = {}
    answer = client.fetch("1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1] if select(client, folder) else []
    for item in answer:
        if isinstance(item, tuple):
            flags = re.search(rb"FLAGS \(([^)]*)\)", item[0])
            assert flags is not None, item
            found[item[1].decode().removeprefix("Subject: ").strip()] = set(flags[1].decode().split()) - {r"\Recent"}
    client.logout()
    return found


# -- OfflineIMAP -------------------------------------------------------------------------------------


class Offline(Mirror):
    """The same tree as mbsync's, kept by OfflineIMAP."""

    def __init__(self, program: str, folder: Path, daemon: Daemon, owner: Owner) -> None:
        self._program, self._config = program, folder / "offlineimaprc"
        self.tree = folder / "mail"
        self._config.write_text(
            f"[general]\naccounts = a\nmetadata = {folder}/state\nsocktimeout = 60\nfsync = no\n"
            f"[Account a]\nlocalrepository = local\nremoterepository = server\n"
            f"[Repository local]\ntype = Maildir\nlocalfolders = {self.tree}\nsep = /\n"
            f"[Repository server]\ntype = IMAP\nremotehost = localhost\nremoteport = {daemon.port('imaps')}\nssl = yes\n"
            f"sslcacertfile = {daemon.data}/tls/certificate.pem\nremoteuser = {owner.address}\nremotepass = {owner.password}\n"
            "maxconnections = 2\n"
        )

    def sync(self) -> str:
        """Run it once; its output must hold no error."""
        text = _run(self._program, "-c", str(self._config), "-o", "-u", "basic")
        assert "ERROR" not in text and "Traceback" not in text, text
        return text

    def file(self, subject: str, folder: str = "INBOX") -> Path:
        """The file of the message with this subject."""
        (found,) = (path for content, path in self.files(folder).items() if f"Subject: {subject}\n".encode() in content)
        return found


def test_offlineimap(daemon: Daemon, owner: Owner, needs: Needs, tmp_path: Path) -> None:
    """Both ways: messages, flags, deletions, a new folder; after each a second run without changes."""
    sent = _fill(daemon, owner)
    mirror = Offline(needs("offlineimap"), tmp_path, daemon, owner)
    mirror.sync()
    stored = [content.replace(b"\r\n", b"\n") for content in daemon.messages(owner)]
    assert sorted(mirror.files("INBOX")) == sorted(stored)
    assert {"INBOX", "Drafts", "Sent", "Archive", "Junk", "Trash"} <= {path.name for path in mirror.tree.iterdir()}
    _unchanged(daemon, owner, mirror)

    flagged = mirror.file("number 1")
    flagged.rename(flagged.parent.parent / "cur" / (flagged.name.partition(":2,")[0] + ":2,FS"))
    mirror.file("number 2").unlink()
    mirror.add("Archive", simple("written here"), "S")
    client = daemon.login(owner)
    client.store("4", "+FLAGS", r"(\Answered)")
    client.store("5", "+FLAGS", r"(\Deleted)")
    client.expunge()
    client.create("Work")
    client.append("Work", r"(\Draft)", "", simple("in a new folder"))
    client.logout()
    mirror.sync()
    assert _flags(daemon, owner) == {
        "number 0": set(), "number 1": {r"\Flagged", r"\Seen"}, "number 3": {r"\Answered"},
    }  # fmt: skip
    assert _flags(daemon, owner, "Archive") == {"written here": {r"\Seen"}}
    assert len(mirror.files("INBOX")) == 3 and mirror.file("number 3").name.endswith(":2,R")
    assert mirror.file("in a new folder", "Work").name.endswith(":2,D")
    assert as_sent(daemon.messages(owner)[0]) == sent[0]
    _unchanged(daemon, owner, mirror)


def _unchanged(daemon: Daemon, owner: Owner, mirror: Offline) -> None:
    tree = {name: content for name, (_, content) in mirror.snapshot().items()}
    state = {folder: _flags(daemon, owner, folder) for folder in ("INBOX", "Archive", "Sent")}
    mirror.sync()
    assert {name: content for name, (_, content) in mirror.snapshot().items()} == tree
    assert {folder: _flags(daemon, owner, folder) for folder in state} == state


# -- NeoMutt -----------------------------------------------------------------------------------------


def _mutt(program: str, folder: Path, daemon: Daemon, owner: Owner, keys: str) -> None:
    """NeoMutt on a terminal with these keys typed.  It must end by itself."""
    user = owner.address.replace("@", "%40")
    url = f"imaps://{user}@127.0.0.1:{daemon.port('imaps')}/"
    (folder / "rc").write_text(
        f'set imap_user="{owner.address}"\nset imap_pass="{owner.password}"\nset folder="{url}"\nset spoolfile="{url}INBOX"\n'
        f'set certificate_file="{daemon.data}/tls/certificate.pem"\n'
        f'set ssl_ca_certificates_file="{daemon.data}/tls/certificate.pem"\n'
        "set ssl_verify_host=no\nset quit=yes\nset delete=yes\nset move=no\nset confirmappend=no\nset confirmcreate=no\nset wait_key=no\n"
        "set mark_old=no\nset resolve=no\nset auto_tag=no\nset sleep_time=0\nset copy=no\nset mail_check=0\nset imap_idle=no\n"
        "set header_cache=''\nset charset=utf-8\n"
    )
    process, terminal = pty.fork()
    if not process:
        os.environ |= {"TERM": "xterm", "HOME": str(folder), "LINES": "40", "COLUMNS": "120", "LC_ALL": "C.UTF-8"}
        os.execv(program, [program, "-n", "-F", str(folder / "rc"), "-f", url + "INBOX", "-e", f"push '{keys}'"])
    shown = bytearray()
    deadline = time.monotonic() + 60
    with contextlib.suppress(OSError):  # a terminal whose program has ended cannot be read
        while time.monotonic() < deadline:
            if waiting.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 65536)
    if time.monotonic() >= deadline:
        os.kill(process, 9)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    os.close(terminal)
    assert status == 0, (status, shown.decode("utf-8", "replace")[-2000:])


def test_neomutt(daemon: Daemon, owner: Owner, needs: Needs, tmp_path: Path) -> None:
    """Read, flag, copy, move, delete, search on the server; then a session that changes nothing."""
    program = needs("neomutt")
    _fill(daemon, owner)
    read = tmp_path / "read"
    keys = f"<first-entry><display-message><exit><pipe-message>cat > {read}<enter><next-entry><flag-message><sync-mailbox><quit>"
    _mutt(program, tmp_path, daemon, owner, keys)
    assert "Subject: number 0\n" in read.read_text() and "text 0\n" in read.read_text()
    flags = _flags(daemon, owner)
    assert flags["number 0"] == {r"\Seen"} and flags["number 1"] == {r"\Flagged"} and flags["number 2"] == set()

    keys = (
        "3<enter><copy-message>=Archive<enter>"
        "4<enter><save-message>=Sent<enter>"  # marks it as deleted here
        "5<enter><delete-message><sync-mailbox><quit>"
    )
    _mutt(program, tmp_path, daemon, owner, keys)
    assert set(_flags(daemon, owner)) == {"number 0", "number 1", "number 2"}
    assert set(_flags(daemon, owner, "Archive")) == {"number 2"} and set(_flags(daemon, owner, "Sent")) == {"number 3"}

    before = _flags(daemon, owner)
    keys = f'<limit>=b "text 2"<enter><tag-pattern>~A<enter><tag-prefix><pipe-message>cat > {read}<enter><quit>'
    _mutt(program, tmp_path, daemon, owner, keys)
    assert re.findall("^Subject: .*", read.read_text(), re.MULTILINE) == ["Subject: number 2"]
    assert _flags(daemon, owner) == before
    _mutt(program, tmp_path, daemon, owner, "<tag-pattern>~s number<enter><tag-prefix><clear-flag>!<sync-mailbox><quit>")
    assert _flags(daemon, owner) == {name: value - {r"\Flagged"} for name, value in before.items()}


# -- getmail -----------------------------------------------------------------------------------------


def test_getmail(daemon: Daemon, owner: Owner, needs: Needs, tmp_path: Path) -> None:
    """New mail once; then nothing; then with deletion, which moves it to Trash."""
    program = needs("getmail")
    sent = _fill(daemon, owner)
    (tmp_path / "mail").mkdir()

    def get(options: str = "", retriever: str = "") -> str:
        (tmp_path / "getmailrc").write_text(
            f"[retriever]\ntype = SimpleIMAPSSLRetriever\nserver = 127.0.0.1\nport = {daemon.port('imaps')}\n"
            f"username = {owner.address}\n"
            f'password = {owner.password}\nmailboxes = ("INBOX",)\nca_certs = {daemon.data}/tls/certificate.pem\n{retriever}\n'
            # Its own Maildir writer refuses to work for root.
            f'[destination]\ntype = MDA_external\npath = /bin/sh\narguments = ("-c", "cat > $(mktemp {tmp_path}/mail/XXXXXX)")\n'
            f"allow_root_commands = true\n"
            f"[options]\nread_all = false\ndelivered_to = false\nreceived = false\nverbose = 2\n{options}\n"
        )
        return _run(program, "--getmaildir", str(tmp_path), env={"HOME": str(tmp_path)})

    def mail() -> list[bytes]:
        found = [path.read_bytes().replace(b"\r\n", b"\n") for path in (tmp_path / "mail").iterdir()]
        return sorted(content.replace(b"X-getmail-retrieved-from-mailbox: INBOX\n", b"") for content in found)

    stored = sorted(content.replace(b"\r\n", b"\n") for content in daemon.messages(owner))
    get()
    assert mail() == stored and len(stored) == len(sent)
    assert "0 messages" in get()
    assert mail() == stored
    daemon.send(owner.address, simple("one more"))
    get("delete = true", "move_on_delete = Trash")
    assert len(mail()) == len(sent) + 1
    assert set(_flags(daemon, owner, "Trash")) == {*(f"number {number}" for number in range(5)), "one more"}
    assert _flags(daemon, owner) == {}


# -- fetchmail ---------------------------------------------------------------------------------------


def test_fetchmail(daemon: Daemon, owner: Owner, needs: Needs, tmp_path: Path) -> None:
    """New mail is kept and marked; a second run finds nothing new; then another folder is emptied."""
    program = needs("fetchmail")
    _fill(daemon, owner)
    target = tmp_path / "fetched"
    config = tmp_path / "fetchmailrc"

    def fetch(rule: str, status: int = 0) -> str:
        config.write_text(
            f"poll localhost service {daemon.port('imaps')} protocol IMAP auth password\n"
            f'  user "{owner.address}" password "{owner.password}" ssl sslcertck sslcertfile "{daemon.data}/tls/certificate.pem"\n'
            f'  {rule} mda "cat >> {target}"\n'
        )
        config.chmod(0o600)
        home = {"HOME": str(tmp_path), "FETCHMAILHOME": str(tmp_path)}
        options = ("--nodetach", "--nosyslog", "-v", "-f", str(config), "--idfile", str(tmp_path / "ids"))
        return _run(program, *options, env=home, status=status)

    fetch("keep")
    text = target.read_text()
    assert [f"Subject: number {number}\n" in text and f"text {number}\n" in text for number in range(5)] == [True] * 5
    assert all(flags == {r"\Seen"} for flags in _flags(daemon, owner).values())
    fetch("keep", status=1)  # no new mail
    assert target.read_text() == text
    daemon.send(owner.address, simple("one more"))
    fetch("keep")
    assert target.read_text().count("Subject: ") == 6
    client = daemon.login(owner)
    client.copy("1:2", "Archive")
    client.logout()
    fetch("folder Archive fetchall nokeep")
    assert target.read_text().count("Subject: ") == 8
    assert _flags(daemon, owner, "Archive") == {} and len(_flags(daemon, owner)) == 6


# -- ImapFlow ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imapflow(needs: Needs, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the little program in ``imapflow/``, with the locked packages installed."""
    node, npm = needs("node"), needs("npm")
    folder = tmp_path_factory.mktemp("imapflow")
    for path in IMAPFLOW.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    _run(npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
    return [node, str(folder / "client.js")]


def test_imapflow(daemon: Daemon, owner: Owner, imapflow: list[str]) -> None:
    _fill(daemon, owner)
    login = {"IMAP_PORT": str(daemon.port("imaps")), "IMAP_USER": owner.address, "IMAP_PASSWORD": owner.password}
    seen = json.loads(_run(*imapflow, env=login))
    assert seen["first"] == seen["again"]
    inbox = seen["first"]["INBOX"]["messages"]
    assert [one["subject"] for one in inbox] == [f"number {number}" for number in range(5)]
    assert [as_sent(one["source"].encode("latin-1")) for one in inbox] == [simple(f"number {n}", f"text {n}\r\n") for n in range(5)]
    assert all(one["size"] == len(one["source"]) and one["type"] == "text/plain" for one in inbox)
    assert seen["first"]["Sent"]["specialUse"] == "\\Sent" and seen["first"]["Trash"]["specialUse"] == "\\Trash"
    assert seen["appended"]["uid"] == 6
    assert seen["found"] == {"subject": [3], "body": [6], "either": [1, 6], "unseen": [1, 2, 3, 4, 5, 6]}
    assert seen["copied"] == [[1, 1], [2, 2]] and seen["moved"] == [[2, 1]] and seen["deleted"] is True
    assert seen["downloaded"] > 80
    assert seen["status"]["messages"] == 4 and seen["status"]["unseen"] == 3 and seen["status"]["uidNext"] == 7
    assert seen["heard"] == {"count": 5, "prevCount": 4}
    last = {path: {one["subject"]: one["flags"] for one in folder["messages"]} for path, folder in seen["last"].items()}
    assert last["INBOX"] == {
        "number 0": ["$Label", "\\Seen"], "number 3": [], "number 4": [], "by imapflow": [], "while idling": [],
    }  # fmt: skip
    assert set(last["Archive"]) == {"number 0", "number 1"} and set(last["Projekte/März"]) == {"number 1"}
