"""Logging in: what opens, what does not, and that nobody outside can tell why."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from fe_twisted.base.errors import Later, TooManyConnections, WrongPassword
from fe_twisted.protocols.crypto import slots
from fe_twisted.services.accounts.admin import Accounts
from fe_twisted.services.login.authenticate import Login, Opened
from fe_twisted.services.login.throttle import LoginLimits
from fe_twisted.storage.directory.api import AliasState, KeySlot
from fe_twisted.storage.directory.lookup import Lookups
from fe_twisted.storage.directory.sql import SqlDirectory, open_directory

T = TypeVar("T")
HELLO = "hello@example.com"
PEER = "192.0.2.1"
QUICK_ARGON2ID = "argon2id:t=1,m=64,p=1"


class NoFiles:
    """Mailbox files that are not needed here."""

    def create(self, mailbox_id: str, key: bytes, /) -> bytes:
        return b"public"

    def delete(self, mailbox_id: str, /) -> None:
        pass

    def ids(self) -> list[str]:
        return []


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[SqlDirectory]:
    made = open_directory(tmp_path / "directory.sqlite", bytes(range(32)))
    yield made
    made.close()


@pytest.fixture
def accounts(directory: SqlDirectory) -> Accounts:
    made = Accounts(directory, NoFiles())
    made.add_domain("example.com")
    made.add_alias(HELLO)
    return made


@pytest.fixture
def password(accounts: Accounts) -> str:
    return accounts.new_password(HELLO).password


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def login(directory: SqlDirectory, clock: Clock) -> Login:
    return Login(Lookups(directory), clock, LoginLimits(per_network=5, first_delay=1, longest_delay=4))


def start(coroutine: Coroutine[Any, Any, T]) -> list[T | Failure]:
    """Where the outcome of a coroutine will be."""
    outcome: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(outcome.append)
    return outcome


def finish(clock: Clock, coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns or raises, however long it waits."""
    outcome = start(coroutine)
    for _ in range(100):
        if outcome:
            break
        clock.advance(0.1)
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    assert not isinstance(outcome[0], Failure)
    return outcome[0]


def chosen(directory: SqlDirectory, accounts: Accounts, generated: str, password: str) -> bytes:
    """Add a slot with a password that a person chose; returns the mailbox key."""
    alias, key = accounts.unlock(HELLO, generated)
    assert alias.mailbox_id is not None
    made = slots.make_slot(key, password, mailbox_id=alias.mailbox_id, kdf=QUICK_ARGON2ID)
    extra = KeySlot(0, "password", "", made.kdf, made.salt, made.wrapped, "now")
    sealing_key = alias.sealing_key
    assert sealing_key is not None
    directory.set_mailbox(alias.id, alias.mailbox_id, sealing_key, [extra, *directory.key_slots(alias.id)], replaces=alias.mailbox_id)
    return key


@pytest.mark.parametrize("user", [HELLO, "HELLO@Example.COM", HELLO.encode(), '"hello"@example.com'])
def test_the_right_password_opens_at_once(login: Login, accounts: Accounts, password: str, user: str | bytes) -> None:
    outcome = start(login.authenticate(user, password, peer=PEER))
    assert outcome == [Opened(*accounts.unlock(HELLO, password))]
    assert start(login.authenticate(user, password.encode(), peer=PEER)) == outcome


def test_the_key_is_not_shown_by_accident(login: Login, password: str) -> None:
    opened = start(login.authenticate(HELLO, password, peer=PEER))[0]
    assert isinstance(opened, Opened)
    assert repr(opened.mailbox_key) not in repr(opened)


@pytest.mark.parametrize(
    "user",
    ["hello", "@example.com", "hello+tag@example.com", "nobody@example.com", "hello@other.example", "", b"\xff", "x" * 5000, HELLO + "\0"],
)
def test_who_is_nobody_gets_in_with_no_password(login: Login, clock: Clock, password: str, user: str | bytes) -> None:
    with pytest.raises(WrongPassword):
        finish(clock, login.authenticate(user, password, peer=PEER))


@pytest.mark.parametrize("wrong", ["", "x", b"\xff\xfe", "x" * 100_000, "\0", "\ud800"])
def test_a_wrong_password_is_wrong(login: Login, clock: Clock, password: str, wrong: str | bytes) -> None:
    for attempt in (wrong, password + "x", password[:-1], password.swapcase()):
        with pytest.raises(WrongPassword):
            finish(clock, login.authenticate(HELLO, attempt, peer=PEER))


@pytest.mark.parametrize("state", [AliasState.DISCARD, AliasState.DEFER, AliasState.REJECT])
def test_an_alias_that_is_switched_off_does_not_open(
    login: Login, clock: Clock, directory: SqlDirectory, password: str, state: AliasState
) -> None:
    directory.set_alias_state(HELLO, state)
    with pytest.raises(WrongPassword):
        finish(clock, login.authenticate(HELLO, password, peer=PEER))
    directory.set_alias_state(HELLO, AliasState.ENABLED)
    finish(clock, login.authenticate(HELLO, password, peer=PEER))


def test_an_alias_without_mailbox_does_not_open(login: Login, clock: Clock, accounts: Accounts) -> None:
    for attempt in ("", "x"):
        with pytest.raises(WrongPassword):
            finish(clock, login.authenticate(HELLO, attempt, peer=PEER))


def test_a_new_password_counts_at_once(login: Login, clock: Clock, accounts: Accounts, password: str) -> None:
    changed = accounts.new_password(HELLO, current_password=password).password
    with pytest.raises(WrongPassword):
        finish(clock, login.authenticate(HELLO, password, peer=PEER))
    finish(clock, login.authenticate(HELLO, changed, peer=PEER))


def test_guessing_gets_slower_and_then_stops_and_later_goes_on(login: Login, clock: Clock, password: str) -> None:
    waits = []
    for _ in range(5):
        before = clock.seconds()
        with pytest.raises(WrongPassword):
            finish(clock, login.authenticate(HELLO, "x", peer=PEER))
        waits.append(round(clock.seconds() - before))
    assert waits == [1, 2, 4, 4, 4]
    with pytest.raises(TooManyConnections):
        finish(clock, login.authenticate(HELLO, password, peer=PEER))
    finish(clock, login.authenticate(HELLO, password, peer="192.0.2.2"))
    clock.advance(1000)
    finish(clock, login.authenticate(HELLO, password, peer=PEER))


def test_one_ipv6_customer_is_one_network(login: Login, clock: Clock, password: str) -> None:
    for number in range(5):
        with pytest.raises(WrongPassword):
            finish(clock, login.authenticate(f"a{number}@example.com", "x", peer=f"2001:db8::{number:x}:1"))
    with pytest.raises(TooManyConnections):
        finish(clock, login.authenticate(HELLO, password, peer="2001:db8::ffff"))


def test_attempts_at_the_same_time_are_all_counted(login: Login, clock: Clock) -> None:
    outcomes = [start(login.authenticate(HELLO, "x", peer=PEER)) for _ in range(8)]
    clock.advance(10)
    errors = [outcome[0].type for outcome in outcomes if isinstance(outcome[0], Failure)]
    assert errors == [WrongPassword] * 5 + [TooManyConnections] * 3


def test_a_directory_that_does_not_answer_is_no_failure_of_the_client(directory: SqlDirectory, clock: Clock, password: str) -> None:
    class Down(Lookups):
        async def login(self, address: object) -> Any:
            raise Later

    login = Login(Down(directory), clock, LoginLimits(per_network=1))
    for _ in range(3):
        with pytest.raises(Later) as caught:
            finish(clock, login.authenticate(HELLO, password, peer=PEER))
        assert not isinstance(caught.value, TooManyConnections)


def test_slow_slots_are_opened_in_a_thread_and_quick_ones_are_not(
    directory: SqlDirectory, clock: Clock, accounts: Accounts, password: str
) -> None:
    key = chosen(directory, accounts, password, "correct horse")
    waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def run(function: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        waiting.append((Deferred(), lambda: function(*arguments)))
        return waiting[-1][0]

    login = Login(Lookups(directory), clock, None, run)
    opened = start(login.authenticate(HELLO, password, peer=PEER))[0]
    assert isinstance(opened, Opened)
    assert opened.mailbox_key == key
    assert waiting == []
    outcome = start(login.authenticate(HELLO, "correct horse", peer=PEER))
    assert outcome == []
    done, work = waiting.pop()
    done.callback(work())
    assert isinstance(outcome[0], Opened)
    assert outcome[0].mailbox_key == key


def test_a_slot_that_cannot_be_read_spoils_itself_only(
    directory: SqlDirectory, login: Login, clock: Clock, accounts: Accounts, password: str
) -> None:
    alias = accounts.show_alias(HELLO)
    good = directory.key_slots(alias.id)[0]
    assert alias.mailbox_id is not None
    bad = [dataclasses.replace(good, kdf="of the future"), dataclasses.replace(good, wrapped=b"\x09")]
    directory.set_mailbox(alias.id, alias.mailbox_id, b"public", [*bad, good], replaces=alias.mailbox_id)
    finish(clock, login.authenticate(HELLO, password, peer=PEER))
