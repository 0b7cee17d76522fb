"""The door over real files: who gets in, and who is shown out again when the directory changes."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from fe_twisted.app.door import DirectoryDoor
from fe_twisted.app.rooms import Rooms
from fe_twisted.app.setup import create
from fe_twisted.app.store import Store, open_store
from fe_twisted.base.errors import Moved, WrongPassword
from fe_twisted.services.accounts.admin import NewPassword
from fe_twisted.services.login.authenticate import Login
from fe_twisted.storage.directory.lookup import Lookups
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes

T = TypeVar("T")


def result(coroutine: Coroutine[Deferred[Any], Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    outcome: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(outcome.append)
    assert outcome, "it waits"
    if hasattr(outcome[0], "raiseException"):
        outcome[0].raiseException()
    found: T = outcome[0]
    return found


async def _wait(answer: Deferred[T]) -> T:
    return await answer


class House:
    """A store, a door and the list of those who were shown out."""

    def __init__(self, data: Path) -> None:
        now = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)
        made = create(data, hostname="localhost", development=True, port_offset=None, example=True, now=now)
        self.clock = Clock()
        self.passwords: tuple[NewPassword, ...] = made.passwords
        self.store: Store = open_store(made.settings)
        self.expelled: list[str] = []
        self.polls = 0
        self.mailboxes = OpenMailboxes(self._open, self.clock, grace=60)
        lookups = Lookups(self.store.directory)
        self.door = DirectoryDoor(Login(lookups, self.clock), lookups, Rooms("local", self.mailboxes, None), self.expelled.append)

    async def _open(self, mailbox_id: str, key: bytes) -> LocalMailbox:
        run: Callable[..., Deferred[Any]] = maybeDeferred
        return await open_mailbox(self.store.files, mailbox_id, key, run, self.clock, self._poll)

    async def _poll(self, mailbox: LocalMailbox) -> int:
        self.polls += 1
        return 0

    def enter(self, which: int = 0) -> tuple[str, Any]:
        each = self.passwords[which]
        return result(self.door.login(each.address.encode(), each.password.encode(), "127.0.0.1"))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "data")
    yield made
    result(made.mailboxes.close_all())
    made.store.directory.close()


def test_the_right_password_opens_and_fetches_waiting_mail(house: House) -> None:
    address, mailbox = house.enter()
    assert address == "hello@example.com"
    assert mailbox.id == house.store.accounts.show_alias(address).mailbox_id
    assert house.polls == 1


def test_sessions_share_one_mailbox_which_closes_after_its_grace(house: House) -> None:
    (_, first), (_, second) = house.enter(), house.enter()
    assert first is second
    house.door.leave(first)
    house.clock.advance(61)
    assert len(house.mailboxes) == 1
    house.door.leave(second)
    house.clock.advance(61)
    assert len(house.mailboxes) == 0


@pytest.mark.parametrize("change", ["disable", "remove", "discard"])
def test_a_change_shows_out_those_of_that_alias_only(house: House, change: str) -> None:
    (_, mailbox), (_, other) = house.enter(0), house.enter(1)
    accounts = house.store.accounts
    if change == "disable":
        accounts.set_state("hello@example.com", "reject")
    elif change == "remove":
        accounts.remove_alias("hello@example.com")
    else:
        accounts.new_password("hello@example.com", discard_mailbox=True)
    result(house.door.look())
    assert house.expelled == [mailbox.id]
    assert house.mailboxes.get(mailbox.id) is None
    assert house.mailboxes.get(other.id) is other
    old = house.passwords[0]
    answer = Deferred.fromCoroutine(house.door.login(old.address.encode(), old.password.encode(), "127.0.0.1"))
    house.clock.advance(10)  # a failure is answered late
    with pytest.raises(WrongPassword):
        result(_wait(answer))


def test_nothing_that_matters_changed_shows_nobody_out(house: House) -> None:
    house.enter()
    accounts = house.store.accounts
    accounts.new_password("hello@example.com", current_password=house.passwords[0].password)
    accounts.add_alias("new@example.com")
    result(house.door.look())
    assert house.expelled == []
    assert len(house.mailboxes) == 1


def test_a_mailbox_that_closed_by_itself_is_forgotten(house: House) -> None:
    _, mailbox = house.enter()
    house.door.leave(mailbox)
    house.clock.advance(61)
    house.store.accounts.remove_alias("hello@example.com")
    result(house.door.look())
    assert house.expelled == []


def test_a_mailbox_that_was_moved_since_it_was_looked_up_is_looked_up_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = house.door._mailboxes.open

    async def open_(mailbox_id: str, location: str, key: bytes) -> Any:
        asked.append(location)
        if location == "local":
            house.store.directory.set_location(mailbox_id, "two", replaces="local")
            raise Moved
        return await real(mailbox_id, location, key)

    monkeypatch.setattr(house.door._mailboxes, "open", open_)
    assert house.enter()[0] == house.passwords[0].address
    assert asked == ["local", "two"]

    async def never(mailbox_id: str, location: str, key: bytes) -> Any:
        asked.append(location)
        raise Moved

    monkeypatch.setattr(house.door._mailboxes, "open", never)
    with pytest.raises(Moved):
        house.enter()
    assert len(asked) == 5
