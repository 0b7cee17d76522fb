"""Damaged files: a clear error for the one owner, everybody else lives on, nothing that came is lost."""

from __future__ import annotations

import imaplib
import shutil
import smtplib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.whole.daemon import Daemon, Owner, as_sent, simple


def _zeros(file: Path, other: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def _short(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def _header_only(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[:60])


def _empty(file: Path, other: Path) -> None:
    file.write_bytes(b"")


def _somebody_elses(file: Path, other: Path) -> None:
    shutil.copyfile(other, file)


def _plain_database(file: Path, other: Path) -> None:
    file.write_bytes(b"SQLite format 3\0" + bytes(4080))


def _one_bit(file: Path, other: Path) -> None:
    """The header page of every mailbox file must authenticate."""
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)


DAMAGES = (_zeros, _short, _header_only, _empty, _somebody_elses, _plain_database, _one_bit)


def _file(daemon: Daemon, owner: Owner) -> Path:
    return daemon.data / "mailboxes" / (daemon.json("alias", "show", owner.address)["mailbox"] + ".sqlite")


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_damaged_mailbox(fresh: Daemon, damage: Callable[[Path, Path], None]) -> None:
    """Login says so; mail is still accepted and comes in after the file was restored; another owner notices nothing."""
    fresh.overrides["session_grace_seconds"] = "0"
    owner, other = fresh.owner("hello"), fresh.owner("world")
    fresh.start()
    for each in (owner, other):
        fresh.send(each.address, simple("before"))
        assert len(fresh.messages(each)) == 1
    fresh.stop()
    file, backup = _file(fresh, owner), fresh.data.with_name("backup")
    shutil.copyfile(file, backup)
    damage(file, _file(fresh, other))
    damaged = file.read_bytes() if file.exists() else None

    fresh.expected.append(r"damage|CORRUPT|WrongKey|MissingFile|mailbox")
    fresh.start()
    for _ in range(2):
        client = fresh.imaps()
        with pytest.raises(imaplib.IMAP4.error, match=r"CORRUPTION|SERVERBUG|UNAVAILABLE"):
            client.login(owner.address, owner.password)
        client.logout()
    fresh.send([owner.address, other.address], simple("after"))
    assert [as_sent(stored) for stored in fresh.messages(other)] == [simple("before"), simple("after")]
    fresh.cli("mailbox", "check", owner.address, "--password-stdin", stdin=owner.password + "\n", status=1)
    fresh.stop()
    assert (file.read_bytes() if file.exists() else None) == damaged, "a damaged file is left as it is"

    shutil.copyfile(backup, file)
    fresh.start()
    assert [as_sent(stored) for stored in fresh.messages(owner)] == [simple("before"), simple("after")]
    fresh.cli("mailbox", "check", owner.address, "--password-stdin", stdin=owner.password + "\n")


def test_a_mailbox_file_that_is_gone(fresh: Daemon) -> None:
    """Nobody knows whether it will be back: the sender keeps the mail and tries again, and another owner notices nothing."""
    owner, other = fresh.owner("hello"), fresh.owner("world")
    fresh.start()
    fresh.send(owner.address, simple("before"))
    assert len(fresh.messages(owner)) == 1
    fresh.stop()
    file, backup = _file(fresh, owner), fresh.data.with_name("backup")
    shutil.copyfile(file, backup)
    file.unlink()

    fresh.expected.append(r"MissingFile|mailbox")
    fresh.start()
    with pytest.raises(smtplib.SMTPDataError) as refused:
        fresh.send(owner.address, simple("after"))
    assert refused.value.smtp_code == 451
    with pytest.raises(imaplib.IMAP4.error, match=r"CORRUPTION|SERVERBUG|UNAVAILABLE"):
        fresh.imaps().login(owner.address, owner.password)
    fresh.send(other.address, simple("after"))
    assert [as_sent(stored) for stored in fresh.messages(other)] == [simple("after")]
    fresh.stop()
    assert not file.exists()

    shutil.copyfile(backup, file)
    fresh.start()
    fresh.send(owner.address, simple("after"))
    assert [as_sent(stored) for stored in fresh.messages(owner)] == [simple("before"), simple("after")]


@pytest.mark.parametrize("damage", [_zeros, _short, _empty, _plain_database, _one_bit], ids=lambda damage: damage.__name__.strip("_"))
def test_damaged_temporary_mailbox(fresh: Daemon, damage: Callable[[Path, Path], None]) -> None:
    """New mail is accepted all the same, what was readable is kept, and the damaged file is moved aside, not deleted."""
    owner = fresh.owner("hello")
    fresh.start()
    fresh.send(owner.address, simple("lost to the disk"))
    fresh.stop()
    (file,) = [path for path in fresh.waiting_files() if path.suffix == ".sqlite"]
    damage(file, file)
    damaged = file.read_bytes()
    fresh.expected.append("spool|damage")
    fresh.start()
    fresh.send(owner.address, simple("after"))
    assert [as_sent(stored) for stored in fresh.messages(owner)] == [simple("after")]
    if damaged:
        kept = [path for path in fresh.files() if "damaged" in path.name]
        assert damaged in [path.read_bytes() for path in kept]


@pytest.mark.parametrize("damage", [_zeros, _short, _plain_database], ids=lambda damage: damage.__name__.strip("_"))
def test_damaged_directory(fresh: Daemon, damage: Callable[[Path, Path], None]) -> None:
    """The daemon does not start, says which file, and leaves it alone; with the file restored all is as before."""
    owner = fresh.owner("hello")
    fresh.start()
    fresh.send(owner.address, simple("before"))
    fresh.stop()
    file = fresh.data / "directory.sqlite"
    backup = {path: path.read_bytes() for path in fresh.files() if path.name.startswith("directory")}
    damage(file, file)
    damaged = file.read_bytes()
    text = fresh.cli("alias", "list", status=1)
    assert "Traceback" not in text
    fresh.start(wait=False)
    assert fresh.process is not None
    assert fresh.process.wait(30) != 0
    fresh.process = None
    assert "directory" in fresh.log() and "Traceback" not in fresh.log()
    assert file.read_bytes() == damaged
    for path, content in backup.items():
        path.write_bytes(content)
    fresh.start()
    assert [as_sent(stored) for stored in fresh.messages(owner)] == [simple("before")]


def test_another_server_key(fresh: Daemon) -> None:
    """The wrong server key opens nothing and destroys nothing."""
    owner = fresh.owner("hello")
    fresh.start()
    fresh.send(owner.address, simple("before"))
    fresh.stop()
    key = fresh.data / "secrets" / "server.key"
    right = key.read_bytes()
    key.write_bytes(right[::-1])
    fresh.start(wait=False)
    assert fresh.process is not None
    assert fresh.process.wait(30) != 0
    fresh.process = None
    assert "Traceback" not in fresh.log()
    key.write_bytes(right)
    fresh.start()
    assert [as_sent(stored) for stored in fresh.messages(owner)] == [simple("before")]
