"""The command line while the server runs: passwords, switching off, removing, checking, exporting."""

from __future__ import annotations

import concurrent.futures
import imaplib
import json
import stat
from pathlib import Path

import apsw
import pytest

from tests.whole.daemon import Daemon, Owner, as_sent, simple, until
from tests.whole.wire import Imap, Smtp


def _refused(daemon: Daemon, owner: Owner, match: str = "AUTHENTICATIONFAILED") -> None:
    """Logging in does not work."""
    client = daemon.imaps()
    with pytest.raises(imaplib.IMAP4.error, match=match):
        client.login(owner.address, owner.password)
    client.logout()


# -- passwords ---------------------------------------------------------------------------------------


def test_new_password_keeps_the_mail(daemon: Daemon, owner: Owner) -> None:
    """With the current password: mail read before and mail that waits is kept, the old password stops working at once."""
    daemon.send(owner.address, simple("read before"))
    assert len(daemon.messages(owner)) == 1
    daemon.send(owner.address, simple("waits"))
    new = daemon.password(owner.address, "--current-password-stdin", stdin=owner.password + "\n")
    assert new.password != owner.password
    _refused(daemon, owner)
    assert [as_sent(stored) for stored in daemon.messages(new)] == [simple("read before"), simple("waits")]


def test_new_password_with_a_session_open(daemon: Daemon, owner: Owner) -> None:
    """A session that is open goes on and mail keeps coming to it; the next login needs the new password."""
    with Imap(daemon, owner, "INBOX") as imap:
        new = daemon.password(owner.address, "--current-password-stdin", stdin=owner.password + "\n")
        daemon.send(owner.address, simple("after the change"))
        answer = imap.ask(b"NOOP")
        assert answer[-1].split()[1] == b"OK" or answer[0].startswith(b"* BYE")
        _refused(daemon, owner)
    assert [as_sent(stored) for stored in daemon.messages(new)] == [simple("after the change")]


def test_wrong_current_password_changes_nothing(daemon: Daemon, owner: Owner) -> None:
    daemon.send(owner.address, simple("kept"))
    text = daemon.cli("alias", "password", owner.address, "--current-password-stdin", stdin="wrong\n", status=1)
    assert "password" in text
    assert len(daemon.messages(owner)) == 1


def test_one_of_two_options_is_required(daemon: Daemon, owner: Owner) -> None:
    text = daemon.cli("alias", "password", owner.address, status=1)
    assert "--current-password-stdin" in text and "--discard-mailbox" in text
    daemon.cli("alias", "password", owner.address, "--discard-mailbox", "--current-password-stdin", stdin="x\n", status=2)
    assert daemon.messages(owner) == []


def test_discard_mailbox(daemon: Daemon, owner: Owner) -> None:
    """Lost password: everything of the old mailbox goes, waiting mail too, and the new one takes mail at once."""
    daemon.send(owner.address, simple("read before"))
    assert len(daemon.messages(owner)) == 1
    daemon.send(owner.address, simple("waits"))
    old = daemon.json("alias", "show", owner.address)["mailbox"]
    assert any(old in path.name for path in daemon.files())
    new = daemon.password(owner.address, "--discard-mailbox")
    _refused(daemon, owner)
    daemon.send(owner.address, simple("first of the new"))
    assert [as_sent(stored) for stored in daemon.messages(new)] == [simple("first of the new")]
    until(lambda: not any(old in path.name for path in daemon.files()), "the old mailbox's files are gone")


def test_discard_mailbox_with_a_session_open(daemon: Daemon, owner: Owner) -> None:
    """The session on the old mailbox must not take mail for the new one into the void."""
    with Imap(daemon, owner, "INBOX") as imap:
        new = daemon.password(owner.address, "--discard-mailbox")
        daemon.send(owner.address, simple("first of the new"))
        assert [as_sent(stored) for stored in daemon.messages(new)] == [simple("first of the new")]
        imap.command(b"NOOP")
        imap.response()
    _refused(daemon, owner)
    assert len(daemon.messages(new)) == 1


# -- switching off and removing ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "code", "enhanced"),
    [(None, b"550", b"5.2.1"), ("reject", b"550", b"5.2.1"), ("defer", b"421", b"4.2.1"), ("discard", b"250", b"")],
)
def test_disable_and_enable(daemon: Daemon, owner: Owner, action: str | None, code: bytes, enhanced: bytes) -> None:
    daemon.send(owner.address, simple("before"))
    daemon.cli("alias", "disable", owner.address, *(("--action", action) if action else ()))
    assert daemon.json("alias", "show", owner.address)["state"] == (action or "reject")
    with Smtp(daemon) as smtp:
        smtp.hello()
        smtp.ask(b"MAIL FROM:<a@example.net>")
        reply = smtp.ask(b"RCPT TO:<" + owner.address.encode() + b">")
        assert reply.startswith(code) and enhanced in reply, reply
        if code == b"250":
            assert smtp.data(simple("thrown away")).startswith(b"250")
    _refused(daemon, owner)
    daemon.cli("alias", "enable", owner.address)
    daemon.send(owner.address, simple("after"))
    assert [as_sent(stored) for stored in daemon.messages(owner)] == [simple("before"), simple("after")]


def test_remove_alias(daemon: Daemon, owner: Owner) -> None:
    """Its files go, mail is refused, nobody logs in; a new alias of the same name starts empty with another password."""
    daemon.send(owner.address, simple("goes"))
    assert len(daemon.messages(owner)) == 1
    daemon.send(owner.address, simple("goes too"))
    mailbox = daemon.json("alias", "show", owner.address)["mailbox"]
    daemon.cli("alias", "remove", owner.address, "--yes")
    with Smtp(daemon) as smtp:
        smtp.hello()
        smtp.ask(b"MAIL FROM:<a@example.net>")
        assert smtp.ask(b"RCPT TO:<" + owner.address.encode() + b">").startswith(b"550 5.1.1")
    _refused(daemon, owner)
    until(lambda: not any(mailbox in path.name for path in daemon.files()), "the mailbox's files are gone")
    again = daemon.owner(owner.address.partition("@")[0])
    _refused(daemon, owner)
    assert daemon.messages(again) == []


def test_remove_alias_with_a_session_open(daemon: Daemon, owner: Owner) -> None:
    """The session ends or fails clearly; the daemon lives on and the files are gone."""
    with Imap(daemon, owner, "INBOX") as imap:
        mailbox = daemon.json("alias", "show", owner.address)["mailbox"]
        daemon.cli("alias", "remove", owner.address, "--yes")
        imap.command(b"NOOP")
        imap.response()
    _refused(daemon, owner)
    until(lambda: not any(mailbox in path.name for path in daemon.files()), "the mailbox's files are gone", 90)


def test_new_alias_is_known_at_once(daemon: Daemon) -> None:
    """Also one that the server has just refused: no stale negative answer."""
    with Smtp(daemon) as smtp:
        smtp.hello()
        smtp.ask(b"MAIL FROM:<a@example.net>")
        assert smtp.ask(b"RCPT TO:<brand-new@example.com>").startswith(b"550")
        owner = daemon.owner("brand-new")
        assert smtp.ask(b"RCPT TO:<brand-new@example.com>").startswith(b"250")
        assert smtp.data(simple("welcome")).startswith(b"250")
    assert len(daemon.messages(owner)) == 1


def test_domains(daemon: Daemon) -> None:
    daemon.cli("domain", "add", "Second.Example.ORG")
    assert "second.example.org" in daemon.cli("domain", "list")
    owner = daemon.owner("x", "second.example.org")
    daemon.send(owner.address, simple())
    assert "aliases" in daemon.cli("domain", "remove", "second.example.org", status=1)
    daemon.cli("alias", "remove", owner.address, "--yes")
    daemon.cli("domain", "remove", "second.example.org")
    with Smtp(daemon) as smtp:
        smtp.hello()
        smtp.ask(b"MAIL FROM:<a@example.net>")
        assert smtp.ask(b"RCPT TO:<x@second.example.org>").startswith(b"550 5.7.1")


def test_lists_as_json(daemon: Daemon, owner: Owner) -> None:
    aliases = daemon.json("alias", "list", "example.com")["aliases"]
    (mine,) = [alias for alias in aliases if alias["address"] == owner.address]
    assert mine["state"] == "enabled" and len(mine["mailbox"]) == 24
    assert {"domain": "example.com", "aliases": len(aliases)} in daemon.json("domain", "list")["domains"]
    error = daemon.json("alias", "show", "nobody@example.com", status=1)
    assert error


# -- check and export --------------------------------------------------------------------------------


def test_mailbox_check_while_connected(daemon: Daemon, owner: Owner) -> None:
    with Imap(daemon, owner, "INBOX") as imap:
        for number in range(5):
            daemon.send(owner.address, simple(f"number {number}"))
        answer = daemon.json("mailbox", "check", owner.address, "--password-stdin", stdin=owner.password + "\n")
        assert answer["ok"] is True and answer["problems"] == []
        assert b"* 5 EXISTS" in imap.ask(b"NOOP")
    daemon.cli("mailbox", "check", owner.address, "--password-stdin", stdin="wrong\n", status=1)
    daemon.cli("mailbox", "check", owner.address, stdin="", status=2)


def _open_export(path: Path, password: str) -> apsw.Connection:
    """As any SQLite3MC tool does it: the cipher's name and a passphrase."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    quoted = password.replace("'", "''")
    list(connection.execute("PRAGMA cipher='chacha20'"))
    list(connection.execute(f"PRAGMA key='{quoted}'"))
    return connection


def test_export_while_connected(daemon: Daemon, owner: Owner, tmp_path: Path) -> None:
    """A copy that opens with the password in passphrase mode, and with nothing else, while mail goes on coming."""
    target = tmp_path / "copy.sqlite"
    with Imap(daemon, owner, "INBOX") as imap:
        for number in range(3):
            daemon.send(owner.address, simple(f"exported {number}", "phrase-in-export\r\n"))
        assert b"* 3 EXISTS" in imap.ask(b"NOOP")
        answer = daemon.json("mailbox", "export", owner.address, "--password-stdin", "--output", str(target), stdin=owner.password + "\n")
        assert answer["address"] == owner.address
        daemon.send(owner.address, simple("after the export"))
        assert b"* 4 EXISTS" in imap.ask(b"NOOP")
    assert stat.S_IMODE(target.stat().st_mode) & 0o077 == 0
    assert b"SQLite format 3" not in target.read_bytes()[:100] and b"phrase-in-export" not in target.read_bytes()
    connection = _open_export(target, owner.password)
    assert list(connection.execute("PRAGMA integrity_check")) == [("ok",)]
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert tables
    connection.close()
    for wrong in ("wrong", "", owner.password + " "):
        other = _open_export(target, wrong)
        with pytest.raises(apsw.NotADBError):
            list(other.execute("SELECT * FROM sqlite_schema"))
        other.close()


def test_export_never_writes_over_a_file(daemon: Daemon, owner: Owner, tmp_path: Path) -> None:
    target = tmp_path / "there"
    target.write_text("precious")
    daemon.cli("mailbox", "export", owner.address, "--password-stdin", "--output", str(target), stdin=owner.password + "\n", status=1)
    assert target.read_text() == "precious"


def test_verbs_work_while_the_server_does_not(fresh: Daemon, tmp_path: Path) -> None:
    owner = fresh.owner("hello")
    fresh.start()
    fresh.send(owner.address, simple("one"))
    assert len(fresh.messages(owner)) == 1
    fresh.stop()
    assert fresh.json("mailbox", "check", owner.address, "--password-stdin", stdin=owner.password + "\n")["ok"] is True
    fresh.cli("mailbox", "export", owner.address, "--password-stdin", "--output", str(tmp_path / "copy"), stdin=owner.password + "\n")
    new = fresh.password(owner.address, "--current-password-stdin", stdin=owner.password + "\n")
    fresh.cli("alias", "disable", owner.address)
    fresh.cli("alias", "enable", owner.address)
    fresh.cli("check")
    fresh.start()
    assert [as_sent(stored) for stored in fresh.messages(new)] == [simple("one")]


def test_two_changes_at_once(daemon: Daemon) -> None:
    """Many commands side by side on one directory: each is done completely or refused with a reason."""
    names = [f"many{number}@example.com" for number in range(6)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda name: daemon.run("alias", "add", name, "--json", "--config", str(daemon.config)), names))
    assert [run.returncode for run in done] == [0] * 6, [run.stdout + run.stderr for run in done]
    assert all(json.loads(run.stdout)["address"] in names for run in done)
    listed = {alias["address"] for alias in daemon.json("alias", "list")["aliases"]}
    assert set(names) <= listed
