"""A queue that a process left behind is handed over by another, whatever state its files are in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from fe_twisted.app.claim import claim
from fe_twisted.app.queues import LOOK, Queues
from fe_twisted.storage.spool.queue import Queue
from tests.storage.mailbox.driving import at_once, run

ID = "0123456789abcdef01234567"


class Handing:
    """Only notes which queues are handed over."""

    def __init__(self, queue: Queue) -> None:
        self.queue, self.started = queue, False

    def start(self) -> None:
        self.started = True

    async def stop(self) -> None:
        self.started = False

    def hand_over(self) -> None:
        pass


@pytest.mark.parametrize("name", [f"{ID}.sqlite", f"{ID}.saving-1"])
def test_what_was_left_behind_is_adopted(tmp_path: Path, name: str) -> None:
    """Also when all that is there is a damaged file that a crash left before it was read."""
    clock: Any = Clock()
    made: list[Handing] = []

    def deliver(queue: Queue) -> Any:
        made.append(Handing(queue))
        return made[-1]

    queues = Queues(tmp_path, lambda folder: Queue(folder, bytes(32), at_once, clock), deliver, clock)
    for number in (2, 3, 4):
        (tmp_path / str(number)).mkdir()
    (tmp_path / "2" / name).touch()
    (tmp_path / "3" / f"{ID}.damaged-1").touch()
    (tmp_path / "4" / name).touch()
    running = claim(tmp_path / "4")
    queues.startService()
    assert [each.queue.ids() for each in made if each.started] == [[], [ID]], "its own, and the one that nobody has"
    assert queues.waiting() == 1
    (tmp_path / "2" / name).unlink()
    os.close(running)
    clock.advance(LOOK)
    assert [each.started for each in made] == [True, False, True], "an empty one is let go of"
    run(wait(queues.stopService()))


async def wait(deferred: Any) -> None:
    """For a coroutine runner."""
    await deferred
