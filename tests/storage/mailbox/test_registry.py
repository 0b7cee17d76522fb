"""Open mailboxes: shared, counted, kept for a grace, and closed once."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from fe_twisted.base import errors
from fe_twisted.storage.mailbox.registry import OpenMailboxes
from fe_twisted.storage.sqlite.connect import WrongKey
from tests.storage.mailbox.driving import ID, KEY, run

OTHER = "f" * 24


class Box:
    """A mailbox that can be closed; closing takes as long as told."""

    def __init__(self, mailbox_id: str) -> None:
        self.id = mailbox_id
        self.closed = 0
        self.hold: Deferred[None] | None = None

    async def close(self) -> None:
        self.closed += 1
        if self.hold is not None:
            await self.hold


class Opener:
    """Opens boxes; while ``hold`` is set, an opening waits for it."""

    def __init__(self) -> None:
        self.opened: list[Box] = []
        self.hold: Deferred[None] | None = None
        self.error: Exception | None = None

    async def __call__(self, mailbox_id: str, key: bytes) -> Box:
        if self.hold is not None:
            await self.hold
        if self.error is not None:
            raise self.error
        self.opened.append(Box(mailbox_id))
        return self.opened[-1]


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(opener: Opener, clock: Clock) -> OpenMailboxes[Box]:
    return OpenMailboxes(opener, clock, grace=30.0)


def started(coroutine: Any) -> list[Any]:
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallbacks(results.append, lambda failure: results.append(failure.value))
    return results


def test_sessions_share_one_object(registry: OpenMailboxes[Box], opener: Opener) -> None:
    assert registry.get(ID) is None
    one, two = run(registry.open(ID, KEY)), run(registry.open(ID, KEY))
    assert one is two is registry.get(ID)
    assert len(opener.opened) == len(registry) == 1
    assert run(registry.open(OTHER, bytes(32))) is not one
    assert len(registry) == 2


def test_sessions_that_come_together_wait_for_one_opening(registry: OpenMailboxes[Box], opener: Opener) -> None:
    opener.hold = Deferred()
    waiting = [started(registry.open(ID, KEY)) for _ in range(5)]
    assert not any(waiting) and registry.get(ID) is None
    opener.hold.callback(None)
    assert len(opener.opened) == 1
    assert waiting == [[opener.opened[0]]] * 5


def test_closed_after_the_last_release_and_the_grace(registry: OpenMailboxes[Box], clock: Clock) -> None:
    box = run(registry.open(ID, KEY))
    run(registry.open(ID, KEY))
    registry.release(box)
    clock.advance(1000)
    assert not box.closed
    registry.release(box)
    clock.advance(29)
    assert registry.get(ID) is box, "mail that comes in the grace goes straight in"
    clock.advance(1)
    assert box.closed == 1 and registry.get(ID) is None
    registry.release(box)
    assert not clock.getDelayedCalls() and len(registry) == 0


def test_who_comes_back_in_the_grace_finds_it_open(registry: OpenMailboxes[Box], clock: Clock, opener: Opener) -> None:
    box = run(registry.open(ID, KEY))
    for _ in range(5):
        registry.release(box)
        clock.advance(20)
        assert run(registry.open(ID, KEY)) is box
    clock.advance(1000)
    assert not box.closed and len(opener.opened) == 1


def test_another_key_is_refused_and_disturbs_nobody(registry: OpenMailboxes[Box], clock: Clock) -> None:
    box = run(registry.open(ID, KEY))
    with pytest.raises(WrongKey):
        run(registry.open(ID, bytes(32)))
    assert registry.get(ID) is box and not box.closed
    registry.release(box)
    with pytest.raises(WrongKey):
        run(registry.open(ID, bytes(32)))
    clock.advance(30)
    assert box.closed == 1, "a refused opening does not prolong the grace"


def test_the_key_is_overwritten(registry: OpenMailboxes[Box], clock: Clock) -> None:
    box = run(registry.open(ID, KEY))
    held = registry._entries[ID].key
    assert held is not None and not held.forgotten
    registry.release(box)
    clock.advance(30)
    assert held.forgotten


def test_failed_opening_leaves_nothing(registry: OpenMailboxes[Box], opener: Opener) -> None:
    opener.error = errors.DamagedFile()
    for _ in range(2):
        with pytest.raises(errors.DamagedFile):
            run(registry.open(ID, KEY))
    assert registry.get(ID) is None and len(registry) == 0
    opener.error = None
    assert run(registry.open(ID, KEY)) is registry.get(ID)


def test_opening_waits_for_the_closing(registry: OpenMailboxes[Box], opener: Opener, clock: Clock) -> None:
    """Two connections of one mailbox, one of them going away, must not meet."""
    box = run(registry.open(ID, KEY))
    box.hold = Deferred()
    registry.release(box)
    clock.advance(30)
    assert registry.get(ID) is None
    again = started(registry.open(ID, KEY))
    assert not again and len(opener.opened) == 1
    box.hold.callback(None)
    assert again == [opener.opened[1]]


def test_eviction_tells_the_sessions_and_closes(registry: OpenMailboxes[Box], opener: Opener, clock: Clock) -> None:
    box = run(registry.open(ID, KEY))
    told: list[str] = []
    registry.watch_eviction(box, lambda: told.append(f"one, closed {box.closed}"))
    registry.watch_eviction(box, lambda: told.append("bug") or 1 / 0)
    stop = registry.watch_eviction(box, lambda: told.append("never"))
    registry.watch_eviction(box, lambda: told.append("last"))
    stop()
    stop()
    assert run(registry.evict(ID)) is True
    assert told == ["one, closed 0", "bug", "last"]
    assert box.closed == 1 and registry.get(ID) is None
    assert run(registry.evict(ID)) is False
    new = run(registry.open(ID, KEY))
    registry.release(box)
    clock.advance(100)
    assert registry.get(ID) is new and not new.closed, "a late release of the old one does not count for the new one"


def test_a_frozen_mailbox_is_closed_and_whoever_comes_waits(registry: OpenMailboxes[Box], opener: Opener) -> None:
    box = run(registry.open(ID, KEY))
    told: list[str] = []
    registry.watch_eviction(box, lambda: told.append("evicted"))
    registry.watch_eviction(box, lambda: told.append("never"), lambda: told.append("moved"))
    registry.when_frozen(lambda mailbox_id: told.append(mailbox_id))

    async def freeze(until: Deferred[None], mailbox_id: str = ID) -> None:
        async with registry.frozen(mailbox_id):
            await until

    thaw: Deferred[None] = Deferred()
    freezing = started(freeze(thaw))
    assert told == [ID, "evicted", "moved"] and box.closed == 1 and registry.get(ID) is None
    again, other = started(registry.open(ID, KEY)), started(registry.open(OTHER, KEY))
    assert not again and len(other) == 1, "nobody else waits"
    thaw.callback(None)
    assert freezing == [None] and again == [registry.get(ID)] and again[0] is not box
    run(freeze(succeed(None), "a" * 24))
    assert len(told) == 3, "of a mailbox that is not open nobody is told"


def test_eviction_while_opening(registry: OpenMailboxes[Box], opener: Opener) -> None:
    opener.hold = Deferred()
    opening, evicting = started(registry.open(ID, KEY)), started(registry.evict(ID))
    opener.hold.callback(None)
    assert evicting == [True]
    assert opening[0].closed == 1 and registry.get(ID) is None


def test_close_all(registry: OpenMailboxes[Box], opener: Opener, clock: Clock) -> None:
    one, two = run(registry.open(ID, KEY)), run(registry.open(OTHER, KEY))
    registry.release(two)
    told: list[int] = []
    registry.watch_eviction(one, lambda: told.append(1))
    run(registry.close_all())
    assert one.closed == two.closed == 1 and told == [1]
    assert not clock.getDelayedCalls() and len(registry) == 0
    with pytest.raises(errors.Later):
        run(registry.open(ID, KEY))


def test_a_mailbox_that_does_not_close_is_forgotten_all_the_same(registry: OpenMailboxes[Box], clock: Clock) -> None:
    box = run(registry.open(ID, KEY))
    box.hold = Deferred()
    box.hold.errback(errors.StorageFailed())
    registry.release(box)
    clock.advance(30)
    assert run(registry.open(ID, KEY)) is not box
