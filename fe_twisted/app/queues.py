"""Where mail waits that could not be given to its primary: a folder for each process, so that each has its own for itself.

A process takes the first folder that nobody has.  What others left behind, because they were killed, or because there are fewer of them
than before, is handed over by whoever finds the folder free.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred

from fe_twisted.app.claim import claim
from fe_twisted.app.parts import logged
from fe_twisted.base import log
from fe_twisted.base.errors import BadSettings
from fe_twisted.services.deliver.remote import RemoteDeliver
from fe_twisted.storage.spool.queue import Queue, queued

#: Seconds between two looks for folders that were left behind.
LOOK = 30.0

#: Folders at most; more than there can be processes, the ones that replace others included.
MOST = 256


@dataclass(slots=True)
class _Adopted:
    """A folder that another process left."""

    claimed: int
    queue: Queue
    deliver: RemoteDeliver


class Queues(MultiService):
    """The queue of this process, and those that nobody has.

    :param folder: made when it is not there.
    :param open_queue: makes a queue of a folder.
    :param deliver: makes what hands a queue over.
    :raises BadSettings: all folders are taken.
    :raises OSError: the folder cannot be used.
    """

    def __init__(self, folder: Path, open_queue: Callable[[Path], Queue], deliver: Callable[[Queue], RemoteDeliver], reactor: Any) -> None:
        super().__init__()
        self._folder = folder
        self._open_queue = open_queue
        self._deliver = deliver
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._name, self._claimed = self._take()
        self._own = open_queue(folder / self._name)
        self._adopted: dict[str, _Adopted] = {}
        #: Delivers, and queues here what it cannot deliver.
        self.deliver = deliver(self._own)
        look = TimerService(LOOK, self._look)
        look.clock = reactor
        look.setServiceParent(self)

    def waiting(self) -> int:
        """Mailboxes that something waits for here."""
        return sum(len(queue.ids()) for queue in [self._own, *(each.queue for each in self._adopted.values())])

    def hand_over(self) -> None:
        """There is a link again."""
        for deliver in [self.deliver, *(each.deliver for each in self._adopted.values())]:
            deliver.hand_over()

    def startService(self) -> None:
        """Hand over what waits."""
        super().startService()
        self.deliver.start()

    def stopService(self) -> Deferred[None]:
        """Close all; what waits stays."""
        timers: Any = maybeDeferred(super().stopService)
        return Deferred.fromCoroutine(self._stop(timers))

    async def _stop(self, timers: Deferred[Any]) -> None:
        await timers
        await self.deliver.stop()
        os.close(self._claimed)
        for name in list(self._adopted):
            await self._give_back(name)

    def _take(self) -> tuple[str, int]:
        for number in range(1, MOST + 1):
            path = self._folder / str(number)
            path.mkdir(mode=0o700, exist_ok=True)
            try:
                return path.name, claim(path)
            except BadSettings:
                continue
        raise BadSettings(f"all queues in {self._folder} are in use")

    def _look(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._find()).addErrback(logged, "queue.look")

    async def _find(self) -> None:
        """Let go of what is empty, and take what is left behind."""
        for name, adopted in list(self._adopted.items()):
            if not adopted.queue.ids():
                await self._give_back(name)
        for entry in sorted(os.scandir(self._folder), key=lambda entry: entry.name):
            if entry.name == self._name or entry.name in self._adopted or not entry.name.isdecimal():
                continue
            path = Path(entry.path)
            if not queued(path):
                continue
            try:
                claimed = claim(path)
            except BadSettings:
                continue  # its process lives
            queue = self._open_queue(path)
            self._adopted[entry.name] = _Adopted(claimed, queue, self._deliver(queue))
            log.event("queue.adopted", queue=entry.name, mailboxes=len(queue.ids()))
            self._adopted[entry.name].deliver.start()

    async def _give_back(self, name: str) -> None:
        adopted = self._adopted.pop(name)
        await adopted.deliver.stop()
        os.close(adopted.claimed)
