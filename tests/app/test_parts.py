"""How a process that answers clients leaves, when another one has taken its place."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from fe_twisted.app.parts import GOODBYE, Listeners


class Port:
    """A port that says when it stops to listen."""

    def __init__(self, happened: list[str]) -> None:
        self._happened = happened
        self.closed = succeed(None)

    def stopListening(self) -> Deferred[None]:
        self._happened.append("closed")
        return self.closed


class Leaving:
    """Listeners with one port, and as many sessions as one says."""

    def __init__(self, left: list[int]) -> None:
        self.happened: list[str] = []
        self.left = left
        self.clock = Clock()
        self.ended: Deferred[None] = Deferred()
        self.listeners = Listeners(self.clock, {}, {}, [self._shutdown], 10.0, dismiss=[self._dismiss, lambda: 0])
        self.listeners.startService()
        self.port = Port(self.happened)
        self.listeners._ports.append(self.port)

    def _dismiss(self) -> int:
        self.happened.append("dismissed")
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]

    def _shutdown(self) -> Deferred[None]:
        self.happened.append("shutdown")
        return self.ended


def test_nothing_is_accepted_before_anybody_is_sent_away() -> None:
    """A connection that comes from then on waits at the socket for the next process; it never meets this one."""
    world = Leaving([2, 1, 0])
    over: list[Any] = []
    world.listeners.leave().addCallback(over.append)
    assert world.happened == ["closed", "dismissed"]
    world.clock.pump([0.1])
    assert not over
    world.clock.pump([0.1])
    assert over == [None]
    assert world.happened == ["closed", "dismissed", "dismissed", "dismissed"]


def test_leaving_is_over_when_the_time_is_and_the_stop_then_takes_no_longer_than_a_goodbye() -> None:
    world = Leaving([1])
    over: list[Any] = []
    world.listeners.leave().addCallback(over.append)
    world.clock.pump([0.1] * 95)
    assert not over
    world.clock.pump([0.1] * 10)
    assert over == [None]
    assert "shutdown" not in world.happened
    stopped: list[Any] = []
    world.listeners.stopService().addCallback(stopped.append)
    assert world.happened[-1] == "shutdown"
    assert not stopped
    world.clock.advance(GOODBYE)
    assert stopped == [None]


def test_a_stop_while_it_leaves_is_a_stop() -> None:
    """With the whole time for sessions to end."""
    world = Leaving([1])
    over: list[Any] = []
    world.listeners.leave().addCallback(over.append)
    stopped: list[Any] = []
    world.listeners.stopService().addCallback(stopped.append)
    assert world.happened[-1] == "shutdown"
    world.clock.advance(0.1)
    assert over == [None]
    world.clock.pump([1] * 8)
    assert not stopped
    world.ended.callback(None)
    assert stopped == [None]


def test_who_is_told_to_leave_when_it_stops_already_has_the_whole_time() -> None:
    """A port needs a turn of the reactor to close, as the real ones do; a reload that comes then takes nothing from the sessions."""
    world = Leaving([1])
    world.port.closed = Deferred()
    stopped: list[Any] = []
    world.listeners.stopService().addCallback(stopped.append)
    world.listeners.leave()
    world.port.closed.callback(None)
    assert world.happened == ["closed", "shutdown"]
    world.clock.pump([1] * 8)
    assert not stopped
    world.ended.callback(None)
    assert stopped == [None]
