"""Attack: somebody who can write the directory tries to make one alias's credential open another's mailbox."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fe_twisted.base.errors import WrongPassword
from fe_twisted.services.accounts.admin import Accounts
from fe_twisted.storage.directory.sql import open_directory
from fe_twisted.storage.mailbox.files import MailboxFiles


def test_a_moved_slot_opens_nothing(tmp_path: Path) -> None:
    """The slot is bound to its mailbox: my slot under your alias gives no key, and your mailbox under my alias gives none either."""
    directory = open_directory(tmp_path / "directory.sqlite", bytes(32))
    accounts = Accounts(directory, MailboxFiles(tmp_path / "mailboxes"))
    accounts.add_domain("example.com")
    mine, yours = accounts.add_alias("mine@example.com"), accounts.add_alias("yours@example.com")
    password = accounts.new_password("mine@example.com").password
    accounts.new_password("yours@example.com")
    my_slots, target = directory.key_slots(mine.id), accounts.show_alias("yours@example.com")
    assert target.mailbox_id is not None
    directory.set_mailbox(yours.id, target.mailbox_id, b"public", my_slots, replaces=target.mailbox_id)
    with pytest.raises(WrongPassword):
        accounts.unlock("yours@example.com", password)
    directory.remove_alias("yours@example.com")
    directory.set_mailbox(mine.id, target.mailbox_id, b"public", my_slots, replaces=accounts.show_alias("mine@example.com").mailbox_id)
    with pytest.raises(WrongPassword):
        accounts.unlock("mine@example.com", password)
    directory.close()


@pytest.mark.parametrize("change", [{"kind": "recovery"}, {"kdf": "argon2id:t=1,m=64,p=1"}, {"salt": bytes(32)}])
def test_a_slot_that_was_declared_something_else_opens_nothing(tmp_path: Path, change: dict[str, str | bytes]) -> None:
    directory = open_directory(tmp_path / "directory.sqlite", bytes(32))
    accounts = Accounts(directory, MailboxFiles(tmp_path / "mailboxes"))
    accounts.add_domain("example.com")
    alias = accounts.add_alias("mine@example.com")
    password = accounts.new_password("mine@example.com").password
    slot = directory.key_slots(alias.id)[0]
    directory.replace_slot(alias.id, slot.id, dataclasses.replace(slot, **change))  # type: ignore[arg-type]
    with pytest.raises(WrongPassword):
        accounts.unlock("mine@example.com", password)
    directory.close()
