"""Worker processes: started, started again when they die, replaced one by one, and stopped.

Each has a number, and sockets of its own that listen on the same ports (:func:`fe_twisted.app.ports.bind_all`).  This process keeps the
sockets open without accepting: connections that come while a worker is being replaced wait in its queue for the next one.  A worker reads
what it is to do from its standard input (:mod:`fe_twisted.app.worker`), which stays open as long as this process lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from socket import socket
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import fe_twisted
from fe_twisted.base import log

#: Seconds that a worker may take until it accepts connections.
READY = 60.0

#: Seconds before a worker that died is started again, at first and at most; doubled each time that it dies soon.
FIRST, MOST = 0.2, 30.0

#: Seconds after which a worker that lives is thought to be well.
WELL = 60.0

#: Seconds that a worker may take to stop, beyond those that it gives its sessions.
STOP = 10.0

#: Tells a worker that another one has taken its place: it ends its sessions one by one, and then itself.
LEAVE = signal.SIGUSR2

#: The descriptor on which a worker says that it is ready, and the first of its sockets.
SAY, SOCKETS = 3, 4

#: Sockets that listen already, by door: ``mx``, ``imap``, ``imaps``.
Sockets = Mapping[str, Sequence[socket]]


class Workers(Service):
    """All workers of this process.

    :param sockets: for each worker, its own.
    :param orders: what every worker is told, see :mod:`fe_twisted.app.worker`.
    :param patience: seconds that a worker gives its sessions to end.
    """

    def __init__(self, reactor: Any, sockets: Sequence[Sockets], orders: Mapping[str, Any], patience: float) -> None:
        self._reactor = reactor
        self._orders = dict(orders)
        self._patience = patience
        self._seats = [_Seat(self, number, each) for number, each in enumerate(sockets, start=1)]
        self._replacing = self._once_more = False

    def startService(self) -> None:
        """Start them."""
        super().startService()
        for seat in self._seats:
            seat.start()

    def stopService(self) -> Deferred[None]:
        """Stop them; fires when they are gone."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def reload(self) -> None:
        """Have every worker read its certificate again, and open its log file again."""
        for seat in self._seats:
            seat.signal(signal.SIGHUP)

    def replace(self) -> None:
        """Replace them one by one: the next one accepts before the one before stops to, and ends its sessions.

        Asked while it goes on, it is done once more afterwards: some of the new ones may have read the settings before they were changed.
        """
        if self._replacing:
            self._once_more = True
        elif self.running:
            self._replacing = True
            Deferred.fromCoroutine(self._replace()).addErrback(_bug).addBoth(self._replaced)

    def processes(self) -> list[int]:
        """The process ids of those that run, those that are ending included."""
        return [process.pid for seat in self._seats for process in seat.processes if process.pid]

    # -- inside -----------------------------------------------------------------------------------

    async def _replace(self) -> None:
        for seat in self._seats:
            if not self.running:
                return
            if not await seat.replace() and self.running:
                log.warning("worker.kept", worker=seat.number, reason="the new one did not start; the log says why")
                return

    def _replaced(self, _: Any) -> None:
        again, self._replacing, self._once_more = self._once_more, False, False
        if again:
            self.replace()

    async def _stop(self) -> None:
        await DeferredList([Deferred.fromCoroutine(seat.stop()) for seat in self._seats], consumeErrors=True)
        for seat in self._seats:
            seat.close()

    def _spawn(self, protocol: _Process, number: int, sockets: Sockets) -> None:
        descriptors: dict[int, Any] = {0: "w", 1: 1, 2: 2, SAY: "r"}
        places: dict[str, list[int]] = {}
        for door, each in sockets.items():
            for one in each:
                places.setdefault(door, []).append(SOCKETS + sum(map(len, places.values())))
                descriptors[places[door][-1]] = one.fileno()
        environment = dict(os.environ)
        # However this process found the program, the worker finds the same.
        package = str(Path(fe_twisted.__file__).parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH", "")]))
        command = [sys.executable, "-m", "fe_twisted.app.worker"]
        # What is blocked here stays blocked there, from its first instruction on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            self._reactor.spawnProcess(protocol, sys.executable, command, env=environment, childFDs=descriptors)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        orders = {**self._orders, "number": number, "sockets": places}
        transport: Any = protocol.transport
        transport.writeToChild(0, json.dumps(orders).encode() + b"\n")


def _bug(failure: Failure) -> None:
    log.failure("worker.replace", cast(BaseException, failure.value))


class _Seat:
    """One worker's place, taken by one process after the other; for a while by two, while one replaces the other."""

    def __init__(self, workers: Workers, number: int, sockets: Sockets) -> None:
        self.number = number
        self.processes: list[_Process] = []
        self._workers = workers
        self._sockets = sockets
        self._failures = 0
        self._timer: Any = None

    def start(self) -> _Process:
        """Start a process, which is the worker from now on."""
        process = _Process(self._workers._reactor, self.number, self._ended)
        self.processes.append(process)
        self._workers._spawn(process, self.number, self._sockets)
        return process

    def signal(self, number: int) -> None:
        """Send a signal to every process."""
        for process in self.processes:
            process.signal(number)

    async def replace(self) -> bool:
        """Start another one, and end those before it; whether that worked."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        before = list(self.processes)
        process = self.start()
        if not await process.ready:
            process.signal(signal.SIGKILL)
            return False
        for each in before:
            each.leaving = True
            each.signal(LEAVE)
        return True

    async def stop(self) -> None:
        """End all processes: politely, then not."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        reactor = self._workers._reactor
        for process in list(self.processes):
            process.leaving = True
            process.signal(signal.SIGTERM)
        for process in list(self.processes):
            timer = reactor.callLater(self._workers._patience + STOP, process.signal, signal.SIGKILL)
            await process.over()
            if timer.active():
                timer.cancel()

    def close(self) -> None:
        """Let go of the sockets."""
        for each in self._sockets.values():
            for one in each:
                one.close()

    def _ended(self, process: _Process, reason: str) -> None:
        self.processes.remove(process)
        if process.leaving:
            log.event("worker.stopped", worker=self.number, pid=process.pid)
            return
        self._failures = 0 if process.age() > WELL else self._failures + 1
        if not self._workers.running or any(not each.leaving for each in self.processes):
            log.warning("worker.died", worker=self.number, pid=process.pid, reason=reason)
            return
        delay = min(MOST, FIRST * 2.0 ** min(self._failures, 20)) if self._failures else 0.0
        log.warning("worker.died", worker=self.number, pid=process.pid, reason=reason, again_in_seconds=round(delay, 1))
        self._timer = self._workers._reactor.callLater(delay, self._again)

    def _again(self) -> None:
        self._timer = None
        self.start()


class _Process(ProcessProtocol):
    """One worker process."""

    def __init__(self, reactor: Any, number: int, ended: Callable[[_Process, str], None]) -> None:
        self.number = number
        self.pid = 0
        #: It was told to stop.
        self.leaving = False
        #: Fires with whether it accepts connections.
        self.ready: Deferred[bool] = Deferred()
        self._reactor = reactor
        self._ended = ended
        self._began = reactor.seconds()
        self._late = reactor.callLater(READY, self._too_late)
        self._over: list[Deferred[None]] = []
        self._gone = False

    def age(self) -> float:
        """Seconds since it was started."""
        return float(self._reactor.seconds() - self._began)

    def signal(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        transport: Any = self.transport
        if transport is not None and not self._gone:
            with contextlib.suppress(ProcessExitedAlready):
                transport.signalProcess(number)

    def over(self) -> Deferred[None]:
        """Fires when it has ended."""
        waiting: Deferred[None] = Deferred()
        if self._gone:
            waiting.callback(None)
        else:
            self._over.append(waiting)
        return waiting

    # -- what Twisted calls -----------------------------------------------------------------------

    def connectionMade(self) -> None:
        """It runs."""
        transport: Any = self.transport
        self.pid = transport.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """It says that it is ready."""
        if childFD == SAY and not self.ready.called:
            self._late.cancel()
            log.event("worker.ready", worker=self.number, pid=self.pid, seconds=round(self.age(), 1))
            self.ready.callback(True)

    def processEnded(self, reason: Any) -> None:
        """It has ended."""
        self._gone = True
        if self._late.active():
            self._late.cancel()
        if not self.ready.called:
            self.ready.callback(False)
        waiting, self._over = self._over, []
        self._ended(self, "" if reason.check(ProcessDone) else str(reason.value))
        for each in waiting:
            each.callback(None)

    def _too_late(self) -> None:
        log.warning("worker.late", worker=self.number, pid=self.pid, seconds=READY)
        self.signal(signal.SIGKILL)
