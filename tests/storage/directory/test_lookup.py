"""What servers ask: recipients with plus-addressing and postmaster, logins, and a database that goes away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from sqlalchemy import event, text
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from fe_twisted.base.addresses import POSTMASTER, parse_address
from fe_twisted.base.errors import UnknownDomain, UnknownRecipient
from fe_twisted.storage.directory import statements
from fe_twisted.storage.directory.api import AliasState, KeySlot
from fe_twisted.storage.directory.lookup import Lookups
from fe_twisted.storage.directory.sql import SqlDirectory, open_directory

T = TypeVar("T")


def result(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine that does not wait returns or raises."""
    outcome: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(outcome.append)
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    found: T = outcome[0]
    return found


def at_once(function: Callable[..., T], *arguments: object) -> Awaitable[T]:
    """Stands for a thread."""
    return succeed(function(*arguments))


@pytest.fixture
def lookups(directory: SqlDirectory) -> Lookups:
    return Lookups(directory, at_once)


def give_mailbox(directory: SqlDirectory, address: str) -> None:
    alias = directory.alias(address)
    assert alias is not None
    slot = KeySlot(0, "password", "", "hkdf-sha256", b"s", b"w", "now")
    directory.set_mailbox(alias.id, f"{alias.id:024x}", b"public", [slot, slot])


def recipient(lookups: Lookups, address: str) -> str:
    return result(lookups.recipient(parse_address(address))).address


def test_recipients(directory: SqlDirectory, lookups: Lookups) -> None:
    directory.add_alias("hello@example.com")
    for address in ("hello@example.com", "HELLO@EXAMPLE.com", "hello+tag@example.com", "Hello+A+B@example.com", '"hello"@example.com'):
        assert recipient(lookups, address) == "hello@example.com"
    for address in ("nobody@example.com", "hell@example.com", "+hello@example.com", '"hello "@example.com'):
        with pytest.raises(UnknownRecipient):
            recipient(lookups, address)
    for address in ("hello@other.example", "hello@[192.0.2.1]", "hello@sub.example.com"):
        with pytest.raises(UnknownDomain):
            recipient(lookups, address)


def test_a_remembered_answer_is_forgotten_at_any_change(tmp_path: Path) -> None:
    """Whoever makes the change: this object, or another process on the same file."""
    mine = open_directory(tmp_path / "directory.sqlite", bytes(32))
    theirs = open_directory(tmp_path / "directory.sqlite", bytes(32))
    mine.add_domain("example.com", mine.add_account("main").id)
    mine.add_alias("hello@example.com")
    lookups = Lookups(mine)
    asked: list[str] = []
    event.listen(mine._engine, "before_cursor_execute", lambda c, cursor, statement, *rest: asked.append(statement))
    for change in (mine, theirs):
        for state in (AliasState.REJECT, AliasState.ENABLED):
            change.set_alias_state("hello@example.com", state)
            asked.clear()
            assert [result(lookups.recipient(parse_address("hello@example.com"))).state for _ in range(3)] == [state] * 3
            assert len(asked) == 1
            for _ in range(3):
                found = result(lookups.login(parse_address("hello@example.com")))
                assert found is not None and found[0].state is state
            assert len(asked) == 2
    give_mailbox(theirs, "hello@example.com")
    assert (result(lookups.login(parse_address("hello@example.com"))) or (None, []))[1]
    theirs.remove_alias("hello@example.com")
    with pytest.raises(UnknownRecipient):
        recipient(lookups, "hello@example.com")
    assert result(lookups.login(parse_address("hello@example.com"))) is None
    mine.close()
    theirs.close()


def test_made_up_names_are_not_remembered(tmp_path: Path) -> None:
    directory = open_directory(tmp_path / "directory.sqlite", bytes(32))
    lookups = Lookups(directory)
    for number in range(10):
        assert result(lookups.login(parse_address(f"nobody{number}@example.com"))) is None
    assert not lookups._logins
    directory.close()


def test_an_alias_with_a_plus_comes_before_plus_addressing(directory: SqlDirectory, lookups: Lookups) -> None:
    directory.add_alias("hello@example.com")
    directory.add_alias("hello+lists@example.com")
    assert recipient(lookups, "hello+lists@example.com") == "hello+lists@example.com"
    assert recipient(lookups, "hello+other@example.com") == "hello@example.com"


def test_the_state_is_the_callers_business(directory: SqlDirectory, lookups: Lookups) -> None:
    directory.add_alias("hello@example.com")
    directory.set_alias_state("hello@example.com", AliasState.REJECT)
    assert result(lookups.recipient(parse_address("hello@example.com"))).state is AliasState.REJECT


def test_postmaster_is_always_somebody(directory: SqlDirectory, lookups: Lookups) -> None:
    """RFC 5321 section 4.5.1: the alias of that name, or else the oldest enabled alias that has a mailbox."""
    for address in ("postmaster@example.com", "PostMaster@Example.com"):
        with pytest.raises(UnknownRecipient):
            recipient(lookups, address)
    for name in ("first", "second", "third", "fourth"):
        directory.add_alias(f"{name}@example.com")
    with pytest.raises(UnknownRecipient):
        recipient(lookups, "postmaster@example.com")
    for name in ("fourth", "third", "second"):
        give_mailbox(directory, f"{name}@example.com")
    directory.set_alias_state("second@example.com", AliasState.DISCARD)
    for address in ("postmaster@example.com", "PostMaster@Example.com", "postmaster+x@example.com"):
        assert recipient(lookups, address) == "third@example.com"
    with pytest.raises(UnknownDomain):
        recipient(lookups, "postmaster@other.example")
    directory.add_alias("postmaster@example.com")
    assert recipient(lookups, "Postmaster@example.com") == "postmaster@example.com"


def test_postmaster_without_a_domain(directory: SqlDirectory, lookups: Lookups) -> None:
    with pytest.raises(UnknownRecipient):
        result(lookups.recipient(POSTMASTER))
    directory.add_domain("a-later.example", directory.accounts()[0].id)
    directory.add_alias("x@a-later.example")
    give_mailbox(directory, "x@a-later.example")
    assert result(lookups.recipient(POSTMASTER)).address == "x@a-later.example"
    directory.add_alias("y@example.com")
    give_mailbox(directory, "y@example.com")
    assert result(lookups.recipient(POSTMASTER)).address == "y@example.com"
    directory.add_alias("postmaster@a-later.example")
    assert result(lookups.recipient(POSTMASTER)).address == "postmaster@a-later.example"


def test_logins(directory: SqlDirectory, lookups: Lookups) -> None:
    directory.add_alias("hello@example.com")
    assert result(lookups.login(parse_address("hello@example.com"))) == (directory.alias("hello@example.com"), [])
    give_mailbox(directory, "hello@example.com")
    alias, slots = result(lookups.login(parse_address("HELLO@example.com"))) or (None, [])
    assert alias == directory.alias("hello@example.com")
    assert alias is not None
    assert slots == directory.key_slots(alias.id)
    assert len(slots) == 2
    for address in ("hello+tag@example.com", "nobody@example.com", "hello@other.example"):
        assert result(lookups.login(parse_address(address))) is None


def test_generation(directory: SqlDirectory, lookups: Lookups) -> None:
    assert result(lookups.generation()) == directory.generation()


def test_a_look_up_is_one_statement(directory: SqlDirectory, lookups: Lookups) -> None:
    directory.add_alias("hello@example.com")
    seen: list[str] = []
    event.listen(directory._engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    recipient(lookups, "hello+tag@example.com")
    result(lookups.login(parse_address("hello@example.com")))
    assert len(seen) == 2


def test_a_look_up_uses_the_index(tmp_path: Path) -> None:
    """At any number of aliases it reads a handful of pages.  (PostgreSQL's planner reads an almost empty table whole, rightly.)"""
    directory = open_directory(tmp_path / "directory.sqlite", bytes(range(32)))
    values = {"domain": "example.com", "local": "a", "base": "b"}
    for statement in (
        statements.RECIPIENT,
        statements.LOGIN,
        statements.BY_ADDRESS,
        *statements.POSTMASTERS[True],
        *statements.POSTMASTERS[False],
    ):
        compiled = statement.compile(directory._engine, compile_kwargs={"render_postcompile": True})
        parameters = tuple(values.get(name, 1) for name in compiled.positiontup or ())
        with directory._engine.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", parameters).fetchall()
        assert not [
            row
            for row in plan
            if row[3] == "SCAN aliases" or "SCAN domains" in row[3] or ("ORDER BY" in row[3] and statement is not statements.LOGIN)
        ], plan
    directory.close()


def test_a_directory_across_a_network_is_not_asked_in_the_reactor(directory: SqlDirectory) -> None:
    ran: list[object] = []

    def run(function: Callable[..., T], *arguments: object) -> Awaitable[T]:
        ran.append(function)
        return at_once(function, *arguments)

    result(Lookups(directory, run).generation())
    assert len(ran) == (0 if directory.embedded else 1)
    if directory.embedded:
        assert result(Lookups(directory).generation()) > 0
    else:
        with pytest.raises(ValueError):
            Lookups(directory)


def test_connections_that_died_in_the_pool_are_replaced(postgresql: str, postgresql_url: str) -> None:
    """PostgreSQL was restarted: the next look-up works."""
    directory = open_directory(postgresql_url, bytes(range(32)))
    with directory._engine.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
    with psycopg.connect(host=postgresql, user="forwardemail", dbname="postgres", autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    assert directory.generation() == 0
    directory.close()


def test_whose_a_mailbox_is(directory: SqlDirectory, lookups: Lookups) -> None:
    made = directory.add_alias("hello@example.com")
    directory.add_alias("other@example.com")
    give_mailbox(directory, "hello@example.com")
    mailbox_id = f"{made.id:024x}"
    assert result(lookups.owner(mailbox_id)) == directory.alias("hello@example.com")
    assert result(lookups.location_of(mailbox_id)) == made.location
    directory.remove_alias("hello@example.com")
    assert result(lookups.owner(mailbox_id)) is None
    assert result(lookups.location_of(mailbox_id)) is None
