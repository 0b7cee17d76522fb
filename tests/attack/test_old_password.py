"""Attack: somebody kept an old copy of the directory and learns a password that was changed since.

A password wraps the mailbox key and is not the key, so a change of password costs milliseconds and does not re-encrypt the mail.  The
price: an old slot with its old password still gives the key.  Discarding the mailbox makes a new one.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from fe_twisted.base.errors import WrongPassword
from fe_twisted.protocols.crypto.slots import open_slot
from fe_twisted.services.accounts.admin import Accounts
from fe_twisted.storage.directory.sql import SqlDirectory, open_directory
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.sqlite.connect import WrongKey, connect

HELLO = "hello@example.com"


@pytest.fixture
def house(tmp_path: Path) -> tuple[Accounts, SqlDirectory, MailboxFiles]:
    directory = open_directory(tmp_path / "directory.sqlite", bytes(range(32)))
    files = MailboxFiles(tmp_path / "mailboxes")
    accounts = Accounts(directory, files)
    accounts.add_domain("example.com")
    accounts.add_alias(HELLO)
    return accounts, directory, files


def test_an_old_copy_of_the_directory_with_the_old_password_still_opens(house: tuple[Accounts, SqlDirectory, MailboxFiles]) -> None:
    """Said in docs/security.md, so that nobody takes a new password for a new key."""
    accounts, directory, files = house
    old = accounts.new_password(HELLO).password
    alias, key = accounts.unlock(HELLO, old)
    (kept,) = directory.key_slots(alias.id)
    accounts.new_password(HELLO, current_password=old)
    with pytest.raises(WrongPassword):
        accounts.unlock(HELLO, old)
    mailbox_id = alias.mailbox_id or ""
    found = open_slot(kept.kdf, kept.salt, kept.wrapped, old, mailbox_id=mailbox_id, kind=kept.kind)
    assert found == key
    files.open(mailbox_id, found, readonly=True).close()
    directory.close()


def test_a_mailbox_that_was_discarded_has_a_new_key(house: tuple[Accounts, SqlDirectory, MailboxFiles]) -> None:
    accounts, directory, files = house
    old = accounts.new_password(HELLO).password
    before, key = accounts.unlock(HELLO, old)
    (kept,) = directory.key_slots(before.id)
    accounts.new_password(HELLO, discard_mailbox=True)
    after = accounts.show_alias(HELLO)
    assert after.mailbox_id is not None and after.mailbox_id != before.mailbox_id
    assert not files.exists(before.mailbox_id or "")
    with pytest.raises(WrongKey):
        connect(files.path(after.mailbox_id), key=key, readonly=True)
    assert open_slot(kept.kdf, kept.salt, kept.wrapped, old, mailbox_id=after.mailbox_id, kind=kept.kind) is None
    directory.close()


def test_only_the_owner_can_change_it_and_keep_the_mail(house: tuple[Accounts, SqlDirectory, MailboxFiles]) -> None:
    """Whoever runs the server can lock an owner out, but not let anybody else in."""
    accounts, directory, files = house
    password = accounts.new_password(HELLO).password
    alias, key = accounts.unlock(HELLO, password)
    for guess in ("", "guess", password[::-1]):
        with pytest.raises(WrongPassword):
            accounts.new_password(HELLO, current_password=guess)
    assert accounts.unlock(HELLO, password) == (alias, key)
    with closing(files.open(alias.mailbox_id or "", key, readonly=True)):
        pass
    directory.close()
