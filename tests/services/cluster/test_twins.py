"""Mailboxes that should be here and are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from fe_twisted.services.cluster.twins import Missing, Troubles
from tests.storage.mailbox.driving import run

ONE, TWO, THREE = "1" * 24, "2" * 24, "3" * 24


class Many(dict[str, str]):
    """So many that to go through them takes long."""

    def items(self) -> Any:
        assert Many.in_thread
        return super().items()


class Places:
    """A directory that is a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}
        self.changes = self.asked = 0
        #: Called after each answer.
        self.then: Callable[[], object] = lambda: None

    async def elsewhere(self, location: str) -> dict[str, str]:
        self.asked += 1
        found = {mailbox_id: place for mailbox_id, place in self.rows.items() if place != location}
        self.then()
        return Many(found)

    async def generation(self) -> int:
        return self.changes


class World:
    def __init__(self) -> None:
        self.places = Places()
        self.files: set[str] = set()
        self.troubles = Troubles()
        self._missing = Missing("local", self.places, self._ids, self._run, self.troubles)

    def _ids(self) -> list[str]:
        assert Many.in_thread
        return list(self.files)

    async def _run(self, function: Callable[..., Any], *arguments: object) -> Any:
        Many.in_thread = True
        try:
            return function(*arguments)
        finally:
            Many.in_thread = False

    def look(self) -> tuple[str, ...]:
        run(self._missing.look())
        return self.troubles.all()


@pytest.fixture
def events() -> Iterator[list[tuple[str, str]]]:
    """What is logged of it."""
    seen: list[tuple[str, str]] = []

    def observer(event: Any) -> None:
        if str(event.get("event")).startswith("location."):
            seen.append((event["event"], event["fields"]["reason"]))

    globalLogPublisher.addObserver(observer)
    yield seen
    globalLogPublisher.removeObserver(observer)


def test_mailboxes_without_a_file_are_told_once_and_when_they_are_there_again(events: list[tuple[str, str]]) -> None:
    world = World()
    world.places.rows = {ONE: "local", TWO: "local", THREE: "elsewhere"}
    world.files = {ONE}
    (text,) = world.look()
    assert text.startswith(f"1 mailbox of the location local has no file here, {TWO} for one: another primary has the same location")
    assert world.look() == (text,)
    assert events == [("location.wrong", text)]
    world.files.clear()
    assert world.look()[0].startswith("2 mailboxes of the location local have no file here")
    world.files = {ONE, TWO}
    assert world.look() == ()
    assert [name for name, _ in events] == ["location.wrong", "location.wrong", "location.over"]


def test_nothing_is_looked_at_while_all_is_well_and_nothing_changes() -> None:
    world = World()
    world.places.rows, world.files = {ONE: "local"}, {ONE, THREE}
    for _ in range(3):
        assert world.look() == ()
    assert world.places.asked == 1
    world.places.rows[TWO] = "local"
    world.places.changes += 1
    assert len(world.look()) == 1


def test_one_that_is_removed_meanwhile_is_not_missing() -> None:
    """Its row goes first, then its file."""
    world = World()
    world.places.rows, world.files = {ONE: "local"}, {ONE}

    def remove() -> None:
        world.places.rows.clear()
        world.files.clear()

    world.places.then = remove
    assert world.look() == ()
