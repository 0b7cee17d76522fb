"""Delivery follows a mailbox from one primary to another."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fe_twisted.base import errors
from fe_twisted.base.addresses import Address
from fe_twisted.services.deliver.route import PAUSES, Route
from fe_twisted.storage.directory.api import Alias, AliasState
from tests.storage.mailbox.driving import run

WHEN = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
ALIAS = Alias(1, "hello@example.com", AliasState.ENABLED, "a" * 24, b"public", "one", "2026-01-01T00:00:00Z")


class Place:
    """Takes mail for one location."""

    def __init__(self, *locations: str) -> None:
        self.locations = locations
        self.taken: list[bytes] = []

    async def deliver(self, alias: Alias, content: bytes, delivery_id: bytes, received_at: datetime.datetime) -> None:
        if alias.location not in self.locations or directory[alias.address].location not in self.locations:
            raise errors.Moved
        self.taken.append(delivery_id)


directory: dict[str, Alias] = {}


async def recipient(address: Address) -> Alias:
    if str(address) not in directory:
        raise errors.UnknownRecipient
    return directory[str(address)]


@pytest.fixture(autouse=True)
def one_alias() -> None:
    directory.clear()
    directory[ALIAS.address] = ALIAS


def test_here_and_elsewhere() -> None:
    here, there = Place("one"), Place("two", "three")
    route = Route("one", here, there, recipient, Clock())
    run(route.deliver(ALIAS, b"", b"1", WHEN))
    directory[ALIAS.address] = two = dataclasses.replace(ALIAS, location="two")
    run(route.deliver(two, b"", b"2", WHEN))
    assert here.taken == [b"1"] and there.taken == [b"2"]


def test_on_a_box_without_mailboxes_everything_is_elsewhere() -> None:
    there = Place("one", "two")
    run(Route("one", None, there, recipient, Clock()).deliver(ALIAS, b"", b"1", WHEN))
    assert there.taken == [b"1"]


def test_without_any_link_every_mailbox_is_here() -> None:
    directory[ALIAS.address] = two = dataclasses.replace(ALIAS, location="two")
    here = Place("two")
    run(Route("one", here, None, recipient, Clock()).deliver(two, b"", b"1", WHEN))
    assert here.taken == [b"1"]
    with pytest.raises(errors.PrimaryAway):
        run(Route("one", None, None, recipient, Clock()).deliver(two, b"", b"1", WHEN))


@pytest.mark.parametrize("back", [False, True])
def test_what_was_moved_since_it_was_looked_up_is_looked_up_again(back: bool) -> None:
    here, there = Place("one"), Place("two")
    new = dataclasses.replace(ALIAS, location="two")
    old, new = (new, ALIAS) if back else (ALIAS, new)
    directory[ALIAS.address] = new
    run(Route("one", here, there, recipient, Clock()).deliver(old, b"", b"1", WHEN))
    assert (here if back else there).taken == [b"1"] and not (there if back else here).taken


def test_an_alias_that_was_removed_has_no_mail() -> None:
    here = Place("nowhere")
    del directory[ALIAS.address]

    class Gone(Place):
        async def deliver(self, *_: Any) -> None:
            raise errors.Moved

    with pytest.raises(errors.UnknownRecipient):
        run(Route("one", Gone("one"), here, recipient, Clock()).deliver(ALIAS, b"", b"1", WHEN))
    assert not here.taken


def test_a_move_without_an_end_is_told_the_sender() -> None:
    clock = Clock()
    here = Place("nowhere")
    results: list[Any] = []
    Deferred.fromCoroutine(Route("one", here, None, recipient, clock).deliver(ALIAS, b"", b"1", WHEN)).addErrback(results.append)
    for pause in PAUSES:
        clock.advance(pause)
    assert results[0].check(errors.Moved) and not clock.getDelayedCalls()
