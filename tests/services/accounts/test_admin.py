"""Administrative actions, with a real directory and real mailbox files."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from fe_twisted.base.errors import (
    AlreadyExists,
    BadAddress,
    Busy,
    DiskFull,
    Later,
    MailError,
    NotFound,
    NotReady,
    Refused,
    UnknownDomain,
    WrongPassword,
)
from fe_twisted.protocols.crypto.slots import is_generated
from fe_twisted.services.accounts.admin import Accounts, NewPassword
from fe_twisted.storage.directory.api import AliasState
from fe_twisted.storage.directory.sql import SqlDirectory, open_directory
from fe_twisted.storage.mailbox.files import MailboxFiles

HELLO = "hello@example.com"
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[SqlDirectory]:
    made = open_directory(tmp_path / "directory.sqlite", bytes(range(32)))
    yield made
    made.close()


@pytest.fixture
def files(tmp_path: Path) -> MailboxFiles:
    return MailboxFiles(tmp_path / "mailboxes")


@pytest.fixture
def accounts(directory: SqlDirectory, files: MailboxFiles) -> Accounts:
    made = Accounts(directory, files, now=lambda: NOW)
    made.add_domain("example.com")
    made.add_alias(HELLO)
    return made


def snapshot(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


# -- domains and aliases ------------------------------------------------------------------------------


def test_domains(accounts: Accounts, directory: SqlDirectory) -> None:
    accounts.add_domain("Bücher.example", account="a family")
    assert [domain.name for domain in accounts.domains()] == ["example.com", "xn--bcher-kva.example"]
    assert [account.name for account in directory.accounts()] == ["a family", "default"]
    with pytest.raises(AlreadyExists):
        accounts.add_domain("EXAMPLE.COM")
    with pytest.raises(Refused):
        accounts.remove_domain("example.com")
    accounts.remove_domain("bücher.example")
    with pytest.raises(NotFound):
        accounts.remove_domain("bücher.example")


def test_a_bad_domain_leaves_no_account_behind(accounts: Accounts, directory: SqlDirectory) -> None:
    with pytest.raises(BadAddress):
        accounts.add_domain("not a domain", account="new")
    assert [account.name for account in directory.accounts()] == ["default"]


def test_aliases(accounts: Accounts) -> None:
    accounts.add_alias("World@Example.com")
    assert [alias.address for alias in accounts.aliases()] == [HELLO, "world@example.com"]
    assert accounts.aliases("EXAMPLE.com") == accounts.aliases()
    assert accounts.show_alias("HELLO@example.com").address == HELLO
    with pytest.raises(AlreadyExists):
        accounts.add_alias(HELLO)
    with pytest.raises(UnknownDomain, match=r"other\.example is not a domain of this server"):
        accounts.add_alias("x@other.example")
    with pytest.raises(NotFound):
        accounts.aliases("other.example")
    for call in (accounts.show_alias, accounts.remove_alias, accounts.new_password):
        with pytest.raises(NotFound):
            call("nobody@example.com")
        with pytest.raises(BadAddress):
            call("nobody")


def test_states(accounts: Accounts) -> None:
    assert accounts.set_state(HELLO, "reject").state is AliasState.REJECT
    assert accounts.set_state(HELLO, "discard").state is AliasState.DISCARD
    assert accounts.set_state(HELLO, "defer").state is AliasState.DEFER
    assert accounts.set_state(HELLO, "enable").state is AliasState.ENABLED
    bad: Any = "explode"
    with pytest.raises(Refused):
        accounts.set_state(HELLO, bad)


# -- passwords ----------------------------------------------------------------------------------------


def test_the_first_password_makes_the_mailbox(accounts: Accounts, files: MailboxFiles, directory: SqlDirectory) -> None:
    with pytest.raises(NotReady):
        accounts.unlock(HELLO, "anything")
    made = accounts.new_password("Hello@example.com")
    assert made.address == HELLO
    assert is_generated(made.password)
    alias, key = accounts.unlock(HELLO, made.password)
    assert alias.mailbox_id is not None
    assert files.ids() == [alias.mailbox_id]
    assert files.check(alias.mailbox_id, key) == []
    assert len(alias.sealing_key or b"") == 1216
    slot = directory.key_slots(alias.id)[0]
    assert (slot.kind, slot.kdf, slot.created_at) == ("password", "hkdf-sha256", "2026-01-02T03:04:05+00:00")
    assert accounts.check() == []


def test_a_missing_file_may_be_at_a_primary_of_the_same_name(accounts: Accounts, files: MailboxFiles) -> None:
    """Found with a second box on whose settings nobody wrote a location: to restore a backup would be the wrong advice."""
    accounts.new_password(HELLO)
    [mailbox_id] = files.ids()
    files.delete(mailbox_id)
    [sentence] = accounts.check()
    assert mailbox_id in sentence and "is missing" in sentence and "whose setting location is local too" in sentence


def test_a_password_is_not_shown_by_accident(accounts: Accounts) -> None:
    made = accounts.new_password(HELLO)
    assert made.password not in repr(made)


def test_the_first_password_has_no_current_one(accounts: Accounts, files: MailboxFiles) -> None:
    with pytest.raises(Refused):
        accounts.new_password(HELLO, current_password="x")
    assert files.ids() == []


def test_neither_or_both_is_refused_with_an_explanation(accounts: Accounts) -> None:
    made = accounts.new_password(HELLO)
    with pytest.raises(Refused, match="current password to keep the mail"):
        accounts.new_password(HELLO)
    with pytest.raises(Refused):
        accounts.new_password(HELLO, current_password=made.password, discard_mailbox=True)
    accounts.unlock(HELLO, made.password)


def test_the_current_password_keeps_everything_and_touches_no_mailbox_file(accounts: Accounts, files: MailboxFiles) -> None:
    """So the time does not depend on the size: not a byte of the file is written, nor is it opened."""
    first = accounts.new_password(HELLO)
    alias, key = accounts.unlock(HELLO, first.password)
    assert alias.mailbox_id is not None
    files.path(alias.mailbox_id).chmod(0)
    times = files.path(alias.mailbox_id).stat()
    before = snapshot(files.directory)
    second = accounts.new_password(HELLO, current_password=first.password)
    assert snapshot(files.directory) == before
    after = files.path(alias.mailbox_id).stat()
    assert (after.st_mtime_ns, after.st_atime_ns) == (times.st_mtime_ns, after.st_atime_ns)
    assert accounts.unlock(HELLO, second.password) == (accounts.show_alias(HELLO), key)
    with pytest.raises(WrongPassword):
        accounts.unlock(HELLO, first.password)


def test_a_wrong_current_password_changes_nothing(accounts: Accounts, files: MailboxFiles, directory: SqlDirectory) -> None:
    made = accounts.new_password(HELLO)
    before, generation = snapshot(files.directory), directory.generation()
    with pytest.raises(WrongPassword):
        accounts.new_password(HELLO, current_password="wrong")
    assert (snapshot(files.directory), directory.generation()) == (before, generation)
    accounts.unlock(HELLO, made.password)


def test_discarding_starts_empty(accounts: Accounts, files: MailboxFiles) -> None:
    first = accounts.new_password(HELLO)
    old = accounts.show_alias(HELLO)
    assert old.mailbox_id is not None
    files.temporary_path(old.mailbox_id).write_bytes(b"waiting")
    second = accounts.new_password(HELLO, discard_mailbox=True)
    new, _ = accounts.unlock(HELLO, second.password)
    assert new.mailbox_id not in (None, old.mailbox_id)
    assert new.sealing_key != old.sealing_key
    assert files.ids() == [new.mailbox_id]
    assert not files.temporary_path(old.mailbox_id).exists()
    with pytest.raises(WrongPassword):
        accounts.unlock(HELLO, first.password)


def test_removing_an_alias_removes_its_files(accounts: Accounts, files: MailboxFiles) -> None:
    """Sealed mail too, wherever a crash or damage left it."""
    mailbox_id = accounts.new_password(HELLO) and accounts.show_alias(HELLO).mailbox_id
    for name in ("tmp.sqlite", "tmp.sqlite-wal", "tmp.saving-1", "tmp.saving-1-wal", "tmp.saving-2"):
        (files.directory / f"{mailbox_id}-{name}").write_bytes(b"x")
    accounts.remove_alias(HELLO)
    assert list(files.directory.iterdir()) == []
    assert files.ids() == []
    assert accounts.aliases() == []
    accounts.add_alias(HELLO)
    assert accounts.remove_alias(HELLO).mailbox_id is None


def test_nothing_on_the_disk_holds_key_or_password(accounts: Accounts, tmp_path: Path, directory: SqlDirectory) -> None:
    """Neither in a file, nor in any row of the opened directory."""
    made = accounts.new_password(HELLO)
    changed = accounts.new_password(HELLO, current_password=made.password)
    alias, key = accounts.unlock(HELLO, changed.password)
    secrets = [key, key.hex().encode(), made.password.encode(), changed.password.encode()]
    stored = b"".join(slot.salt + slot.wrapped + repr(slot).encode() for slot in directory.key_slots(alias.id)) + repr(alias).encode()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            stored += path.read_bytes()
    assert not [secret for secret in secrets if secret in stored]


def test_a_disk_that_is_full_leaves_the_old_mailbox(accounts: Accounts, directory: SqlDirectory, files: MailboxFiles) -> None:
    made = accounts.new_password(HELLO)

    class Full(MailboxFiles):
        def create(self, mailbox_id: str, key: bytes) -> bytes:
            raise DiskFull

    with pytest.raises(DiskFull):
        Accounts(directory, Full(files.directory)).new_password(HELLO, discard_mailbox=True)
    accounts.unlock(HELLO, made.password)
    assert accounts.check() == []


def test_whoever_comes_second_gets_no_password(accounts: Accounts, directory: SqlDirectory, files: MailboxFiles) -> None:
    """Two administrators make the first password at once: the one that was printed works, the other is told, and no file is left over."""
    printed: list[NewPassword] = []

    class Slow(MailboxFiles):
        def create(self, mailbox_id: str, key: bytes) -> bytes:
            public = super().create(mailbox_id, key)
            printed.append(accounts.new_password(HELLO))
            return public

    with pytest.raises(Busy):
        Accounts(directory, Slow(files.directory)).new_password(HELLO)
    alias, _ = accounts.unlock(HELLO, printed[0].password)
    assert files.ids() == [alias.mailbox_id]


def test_a_commit_whose_answer_was_lost_keeps_the_file(accounts: Accounts, directory: SqlDirectory, files: MailboxFiles) -> None:
    """The network broke after the commit: the directory names the new file, so it must stay."""

    class Broken:
        def __getattr__(self, name: str) -> Any:
            return getattr(directory, name)

        def set_mailbox(self, *arguments: Any, **options: Any) -> None:
            directory.set_mailbox(*arguments, **options)
            raise Later

    broken: Any = Broken()
    with pytest.raises(Later):
        Accounts(broken, files).new_password(HELLO)
    assert files.ids() == [accounts.show_alias(HELLO).mailbox_id]


# -- crashes ------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process is gone: nothing after it runs, except what ``finally`` and ``except BaseException`` would wrongly do."""


class Stepping:
    """Passes everything on to the real thing, and crashes before the n-th or after the n-th of the steps that change something."""

    CHANGES = frozenset({"create", "delete", "set_mailbox", "replace_slot", "remove_alias"})

    def __init__(self, real: object, step: Callable[[], None]) -> None:
        self._real, self._step = real, step

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)
        if name not in self.CHANGES:
            return method

        def call(*arguments: Any, **options: Any) -> Any:
            self._step()
            value = method(*arguments, **options)
            self._step()
            return value

        return call


def crashing(directory: SqlDirectory, files: MailboxFiles, at: int) -> Accounts:
    """Accounts that crash at the step of this number."""
    left = [at]

    def step() -> None:
        if left[0] == 0:
            raise Crash
        left[0] -= 1

    real_directory: Any = Stepping(directory, step)
    real_files: Any = Stepping(files, step)
    return Accounts(real_directory, real_files)


@pytest.mark.parametrize("at", range(4))
def test_a_crash_while_the_first_mailbox_is_made(accounts: Accounts, directory: SqlDirectory, files: MailboxFiles, at: int) -> None:
    with pytest.raises(Crash):
        crashing(directory, files, at).new_password(HELLO)
    named = accounts.show_alias(HELLO).mailbox_id
    assert named is None or named in files.ids()
    assert not [problem for problem in accounts.check() if "missing" in problem]
    # Whatever was reached, it can be repeated.
    made = accounts.new_password(HELLO, discard_mailbox=named is not None)
    accounts.unlock(HELLO, made.password)


@pytest.mark.parametrize("at", range(6))
def test_a_crash_while_a_mailbox_is_discarded(accounts: Accounts, directory: SqlDirectory, files: MailboxFiles, at: int) -> None:
    """Before the commit the old mailbox is whole and its password works; after it the new one is there; never neither."""
    first = accounts.new_password(HELLO)
    old, key = accounts.unlock(HELLO, first.password)
    assert old.mailbox_id is not None
    with pytest.raises(Crash):
        crashing(directory, files, at).new_password(HELLO, discard_mailbox=True)
    named = accounts.show_alias(HELLO).mailbox_id
    assert named in files.ids()
    if at < 3:
        assert accounts.unlock(HELLO, first.password)[1] == key
        assert files.check(old.mailbox_id, key) == []
    else:
        assert named != old.mailbox_id
    problems = accounts.check()
    assert all("belongs to no alias" in problem for problem in problems)
    assert len(problems) == len(files.ids()) - 1
    accounts.unlock(HELLO, accounts.new_password(HELLO, discard_mailbox=True).password)


@pytest.mark.parametrize("at", range(4))
def test_a_crash_while_an_alias_is_removed(accounts: Accounts, directory: SqlDirectory, files: MailboxFiles, at: int) -> None:
    made = accounts.new_password(HELLO)
    with pytest.raises(Crash):
        crashing(directory, files, at).remove_alias(HELLO)
    if at == 0:
        accounts.unlock(HELLO, made.password)
    else:
        assert accounts.aliases() == []
    assert not [problem for problem in accounts.check() if "missing" in problem]


@pytest.mark.parametrize("at", range(2))
def test_a_crash_while_a_password_is_changed(accounts: Accounts, directory: SqlDirectory, files: MailboxFiles, at: int) -> None:
    """The owner always holds a password that opens: the new one is shown before it comes into force."""
    made = accounts.new_password(HELLO)
    key = accounts.unlock(HELLO, made.password)[1]
    shown: list[NewPassword] = []
    with pytest.raises(Crash):
        crashing(directory, files, at).new_password(HELLO, current_password=made.password, show=shown.append)
    valid = made if at == 0 else shown[0]
    assert accounts.unlock(HELLO, valid.password)[1] == key


@pytest.mark.parametrize("discard", [False, True])
def test_a_password_that_cannot_be_shown_does_not_come_into_force(accounts: Accounts, files: MailboxFiles, discard: bool) -> None:
    made = accounts.new_password(HELLO)

    def broken_pipe(_made: NewPassword) -> None:
        raise BrokenPipeError

    current = None if discard else made.password
    with pytest.raises(BrokenPipeError):
        accounts.new_password(HELLO, current_password=current, discard_mailbox=discard, show=broken_pipe)
    alias, _ = accounts.unlock(HELLO, made.password)
    assert files.ids() == [alias.mailbox_id]


def test_a_missing_file_is_reported_with_its_address(accounts: Accounts, files: MailboxFiles) -> None:
    accounts.new_password(HELLO)
    named = accounts.show_alias(HELLO).mailbox_id
    assert named is not None
    files.path(named).unlink()
    assert [HELLO in problem and "missing" in problem for problem in accounts.check()] == [True]


def test_a_wrong_password_never_opens_the_file_itself(accounts: Accounts, files: MailboxFiles) -> None:
    """The raw key is the only thing that opens it: no password, no other alias's key."""
    accounts.add_alias("world@example.com")
    hello, world = accounts.new_password(HELLO), accounts.new_password("world@example.com")
    alias, _ = accounts.unlock(HELLO, hello.password)
    _, other = accounts.unlock("world@example.com", world.password)
    assert alias.mailbox_id is not None
    before = snapshot(files.directory)
    with pytest.raises(MailError):
        files.open(alias.mailbox_id, other)
    plain = apsw.Connection(str(files.path(alias.mailbox_id)), flags=apsw.SQLITE_OPEN_READONLY)
    with pytest.raises(apsw.Error):
        plain.execute("SELECT * FROM sqlite_master").fetchall()
    plain.close()
    assert snapshot(files.directory) == before


def test_a_slot_that_cannot_be_read_spoils_itself_only(accounts: Accounts, directory: SqlDirectory) -> None:
    made = accounts.new_password(HELLO)
    alias = accounts.show_alias(HELLO)
    good = directory.key_slots(alias.id)[0]
    assert alias.mailbox_id is not None
    slots = [dataclasses.replace(good, kdf="of the future"), good]
    directory.set_mailbox(alias.id, alias.mailbox_id, b"public", slots, replaces=alias.mailbox_id)
    accounts.new_password(HELLO, current_password=made.password)
    assert {slot.kdf for slot in directory.key_slots(alias.id)} == {"of the future", "hkdf-sha256"}


def test_a_mailbox_at_another_primary_is_made_and_deleted_there(accounts: Accounts, directory: SqlDirectory, files: MailboxFiles) -> None:
    made = accounts.new_password(HELLO)
    mailbox_id = accounts.show_alias(HELLO).mailbox_id or ""
    directory.set_location(mailbox_id, "two", replaces="local")
    assert ["a copy of its file is here" in problem for problem in accounts.check()] == [True]
    with pytest.raises(Refused, match="primary two"):
        accounts.remove_alias(HELLO)
    with pytest.raises(Refused, match="primary two"):
        accounts.new_password(HELLO, discard_mailbox=True)
    assert files.exists(mailbox_id)
    again = accounts.new_password(HELLO, current_password=made.password)
    assert accounts.unlock(HELLO, again.password)[1], "a password is a matter of the directory alone"
    there = Accounts(directory, files, location="two")
    assert there.check() == [] and there.add_alias("new@example.com").location == "two"
    there.remove_alias(HELLO)
    assert not files.exists(mailbox_id)


def test_a_primary_that_the_directory_knows_by_another_name(accounts: Accounts, directory: SqlDirectory, files: MailboxFiles) -> None:
    accounts.new_password(HELLO)
    renamed = Accounts(directory, files, location="one")
    assert accounts.strays(()) == {} and renamed.strays(()) == {"local": 1}
    assert renamed.strays(["local"]) == {}, "that is another primary, and the file may be left of a move"
    assert accounts.rename_location("local", "one") == len(accounts.aliases())
    assert renamed.strays(()) == {}
    assert accounts.strays(()) == {"one": 1}
    there = MailboxFiles(files.directory.with_name("elsewhere"))
    assert Accounts(directory, there, location="three").strays(()) == {}, "a new primary has no mailbox yet"
    assert Accounts(directory, there, location="one").strays(()) == {}, "or its disk was lost"


def test_a_primary_that_was_given_the_location_of_another_one(accounts: Accounts, directory: SqlDirectory, files: MailboxFiles) -> None:
    """That the directory knows the location is no sign that it is this one's: all files that are here are at another."""
    accounts.new_password(HELLO)
    there = Accounts(directory, MailboxFiles(files.directory.with_name("elsewhere")), location="two")
    there.add_alias("other@example.com")
    assert Accounts(directory, files, location="two").strays(()) == {"local": 1}
    there.new_password("other@example.com")
    assert Accounts(directory, files, location="two").strays(()) == {"local": 1}
    assert there.strays(()) == accounts.strays(()) == {}
    mailbox_id = accounts.show_alias(HELLO).mailbox_id
    assert mailbox_id is not None
    directory.set_location(mailbox_id, "two", replaces="local")
    assert Accounts(directory, files, location="two").strays(()) == {}


def test_a_box_without_mailboxes_makes_none(directory: SqlDirectory, files: MailboxFiles, accounts: Accounts) -> None:
    nowhere = Accounts(directory, files, location="")
    with pytest.raises(Refused, match="say which primary"):
        nowhere.add_alias("new@example.com")
    assert nowhere.add_alias("new@example.com", "two").location == "two"
    with pytest.raises(Refused, match="primary two"):
        nowhere.new_password("new@example.com")
    assert files.ids() == []
