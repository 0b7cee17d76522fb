"""A directory is copied whole or not at all, from each kind to each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, update

from fe_twisted.base.addresses import parse_address
from fe_twisted.base.errors import Refused, StorageFailed
from fe_twisted.storage.directory import copy as module
from fe_twisted.storage.directory.api import AliasState, KeySlot
from fe_twisted.storage.directory.copy import copy_directory
from fe_twisted.storage.directory.schema import aliases
from fe_twisted.storage.directory.sql import SqlDirectory, open_directory

KEY = bytes(range(32))


@pytest.fixture
def source(tmp_path: Path) -> Iterator[SqlDirectory]:
    made = open_directory(tmp_path / "source.sqlite", KEY)
    account = made.add_account("défaut")
    gone = made.add_domain("gone.example", account.id)
    made.remove_domain(gone.name)
    for domain in ("example.com", "bücher.example"):
        made.add_domain(domain, account.id)
        for number in range(3):
            alias = made.add_alias(f"a{number}@{domain}")
            if number:
                slots = [KeySlot(0, "password", f"ü{each}", "hkdf-sha256", b"\0salt", bytes(range(256)), "2026") for each in range(2)]
                made.set_mailbox(alias.id, f"{alias.id:024x}", b"\xff\0public", slots)
    made.set_alias_state("a1@example.com", AliasState.DEFER)
    made.set_hidden("a2@example.com", ["IDLE", "SORT"])
    made.shared_secret(b"\0\xff" * 16)
    yield made
    made.close()


@pytest.fixture
def target(where: str) -> Iterator[SqlDirectory]:
    made = open_directory(where, KEY)
    yield made
    made.close()


def test_everything_arrives(source: SqlDirectory, target: SqlDirectory) -> None:
    copied = copy_directory(source, target)
    assert copied.rows == {"accounts": 1, "domains": 2, "aliases": 6, "key_slots": 8}
    for directory in (source, target):
        with directory.writing() as connection:
            assert module.digest(connection) == copied
    assert target.aliases() == source.aliases() and target.domains() == source.domains()
    for alias in source.aliases():
        assert target.login(parse_address(alias.address)) == source.login(parse_address(alias.address))
    assert target.shared_secret(bytes(32)) == b"\0\xff" * 16
    assert target.generation() == source.generation()


def test_it_goes_on_from_there(source: SqlDirectory, target: SqlDirectory) -> None:
    """New rows get ids that nobody had."""
    copy_directory(source, target)
    ids = {alias.id for alias in target.aliases()}
    target.add_domain("new.example", target.add_account("other").id)
    made = target.add_alias("new@new.example")
    assert made.id > max(ids)
    target.set_mailbox(made.id, "f" * 24, b"public", [KeySlot(0, "password", "", "hkdf-sha256", b"s", b"w", "")])
    assert len(target.key_slots(made.id)) == 1


def test_an_empty_directory(tmp_path: Path, target: SqlDirectory) -> None:
    source = open_directory(tmp_path / "empty.sqlite", KEY)
    assert set(copy_directory(source, target).rows.values()) == {0}
    target.add_domain("example.com", target.add_account("default").id)
    source.close()


def test_one_with_something_in_it_is_left_alone(source: SqlDirectory, target: SqlDirectory) -> None:
    target.add_account("somebody")
    with pytest.raises(Refused, match="already"):
        copy_directory(source, target)
    assert target.domains() == []


def test_what_changes_on_the_way_is_noticed(source: SqlDirectory, target: SqlDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a trigger, a lossy encoding or a bug would change it."""

    original = module._count_on

    def spoil(connection: Connection) -> None:
        original(connection)
        connection.execute(update(aliases).values(hidden="LIES"))

    monkeypatch.setattr(module, "_count_on", spoil)
    with pytest.raises(StorageFailed, match="not what was copied"):
        copy_directory(source, target)
    assert target.aliases() == [] and target.accounts() == []
    assert len(source.aliases()) == 6
