"""Workers that are replaced, by the signals that they get."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from twisted.internet.error import ProcessDone
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from fe_twisted.app.workers import LEAVE, SAY, Workers


class Process:
    """In the place of a worker process."""

    def __init__(self, protocol: Any, pid: int) -> None:
        self.pid = pid
        self.signals: list[int] = []
        self._protocol = protocol
        protocol.makeConnection(self)

    def signalProcess(self, number: int) -> None:
        self.signals.append(number)

    def writeToChild(self, descriptor: int, octets: bytes) -> None:
        assert octets.endswith(b"\n")

    def ready(self) -> None:
        self._protocol.childDataReceived(SAY, b"ready\n")

    def end(self) -> None:
        self._protocol.processEnded(Failure(ProcessDone(0)))


class World(Clock):
    """A reactor, and two workers that it has started."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.workers = Workers(self, [{}, {}], {}, 10.0)
        self.workers.startService()
        for process in self.processes:
            process.ready()

    def spawnProcess(self, protocol: Any, *arguments: Any, **named: Any) -> None:
        self.processes.append(Process(protocol, 100 + len(self.processes)))

    def told(self) -> list[list[int]]:
        return [process.signals for process in self.processes]


@pytest.fixture
def world() -> World:
    return World()


def test_one_after_the_other(world: World) -> None:
    world.workers.replace()
    assert world.told() == [[], [], []]
    world.processes[2].ready()
    assert world.told() == [[LEAVE], [], [], []]
    world.processes[3].ready()
    assert world.told() == [[LEAVE], [LEAVE], [], []]


def test_asked_again_in_the_middle_it_is_done_once_more(world: World) -> None:
    """The first of the new ones has the settings of before the second request; who made it waits until it is gone."""
    world.workers.replace()
    world.processes[2].ready()
    world.workers.replace()
    world.workers.replace()
    world.processes[3].ready()
    assert world.told()[:4] == [[LEAVE], [LEAVE], [], []]
    assert len(world.processes) == 5
    world.processes[4].ready()
    world.processes[5].ready()
    assert LEAVE in world.processes[2].signals and LEAVE in world.processes[3].signals
    assert len(world.processes) == 6, "and not a third time"
    for old in world.processes[:4]:
        old.end()
    assert world.workers.processes() == [104, 105]


def test_while_one_only_begins_it_is_replaced_too(world: World) -> None:
    world.workers.replace()
    begun = world.processes[2]
    begun.end()
    assert len(world.processes) == 3, "the one before is still there, and no other is tried"
    world.workers.replace()
    world.processes[3].ready()
    assert world.told() == [[LEAVE], [], [], [], []]


def test_a_stop_in_the_middle_is_a_stop(world: World) -> None:
    """Nobody is told that a worker did not start."""
    world.workers.replace()
    world.workers.replace()
    stopped: list[Any] = []
    with capturedLogs() as said:
        world.workers.stopService().addCallback(stopped.append)
        for process in world.processes[::-1]:
            process.end()
    assert stopped == [None]
    assert world.told() == [[signal.SIGTERM]] * 3
    assert not world.getDelayedCalls()
    assert {each["event"] for each in said if "event" in each} == {"worker.stopped"}
