"""A worker process: answers clients on sockets that it was given, for a primary.

Started by :mod:`fe_twisted.app.workers` as ``python -m fe_twisted.app.worker``.  Its orders are one line of JSON on the standard input:

==========  ====================================================================================
config      the settings file; read again by each process, so that a new worker has new settings
number      1, 2, …
sockets     the descriptors of listening sockets, by door
log         ``-`` for the standard output, the path of a file, or ``syslog``
log_key     hexadecimal: the key of hashed addresses, so that one address is one word in one log
==========  ====================================================================================

SIGTERM ends it; SIGUSR2 tells it that another one has taken its place, and ends it when its clients are done with what they are in the
middle of (:meth:`fe_twisted.app.parts.Parts.leave`).

The standard input stays open while the primary lives; when it ends, so does the worker.  It is started with SIGINT and SIGHUP blocked:
a Ctrl-C at the terminal goes to the whole group, but is for the primary, which then says what happens; a SIGHUP is heard once the worker
has its log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.logger import globalLogBeginner

from fe_twisted import __version__
from fe_twisted.app.daemon import settle
from fe_twisted.app.logging import LineObserver
from fe_twisted.app.parts import Parts, logged
from fe_twisted.app.steady import steady
from fe_twisted.app.wiring import build
from fe_twisted.app.workers import LEAVE, SAY
from fe_twisted.base import log
from fe_twisted.base.errors import MailError
from fe_twisted.base.load import load


def main() -> None:
    """Run until told to stop; ends the process."""
    orders = json.loads(sys.stdin.buffer.readline() or b"null")
    if not isinstance(orders, dict):
        print("forwardemail: this is started by twistd forwardemail, with orders on its standard input", file=sys.stderr)
        sys.exit(2)
    sys.exit(_run(orders))


def _run(orders: dict[str, Any]) -> int:
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    steady(reactor)
    name = f"worker-{orders['number']}"
    observer: Any = None
    try:
        settings = load(orders["config"], os.environ)
        observer = _observer(orders, settings, name)
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
        sockets = {door: [socket.socket(fileno=each) for each in numbers] for door, numbers in orders["sockets"].items()}
        parts = build(settings, reactor, [sockets], worker=orders["number"])
    except (MailError, OSError) as error:
        if observer is None:
            print(f"forwardemail {name}: {error}", file=sys.stderr)
        else:
            reason = f"{error.public} ({error.reason})" if isinstance(error, MailError) and error.reason else str(error)
            log.warning("server.not_started", reason=reason)
        return 1
    reactor.addSystemEventTrigger("before", "shutdown", parts.stopService)
    reactor.callWhenRunning(_started, reactor, parts, settings, observer)
    reactor.run()
    return 0


def _started(reactor: Any, parts: Any, settings: Any, observer: Any) -> None:
    """The reactor runs, and a SIGTERM is heard."""

    def reload() -> None:
        if isinstance(observer, LineObserver):
            observer.reopen()
        parts.reload()

    signal.signal(LEAVE, lambda *_: reactor.callFromThread(_leave, reactor, parts))
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reload))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # one that came meanwhile is heard now
    log.follow(settings.log_level == "debug")
    if isinstance(observer, LineObserver):
        observer.gather(lambda write: reactor.callLater(0, write))
    parts.startService()
    reactor.callLater(0, settle)
    _Primary(reactor, parts)
    log.event("worker.started", version=__version__)
    parts.doors.listening.addCallback(_say)


def _leave(reactor: Any, parts: Parts) -> None:
    """Another worker has taken this one's place."""

    def stop(_: None) -> None:
        with contextlib.suppress(ReactorNotRunning):  # it was told to stop meanwhile
            reactor.stop()

    log.event("worker.leaving")
    parts.leave().addErrback(logged, "worker.leave").addCallback(stop)


def _say(_: None) -> None:
    """Say that connections are accepted."""
    with contextlib.suppress(BrokenPipeError):  # the primary has ended meanwhile; that is noticed by the standard input
        os.write(SAY, b"ready\n")


class _Primary:
    """Whether the process that started this one still lives."""

    def __init__(self, reactor: Any, parts: Parts) -> None:
        self._reactor = reactor
        self._parts = parts
        self._over = False
        os.set_blocking(0, False)
        reactor.addReader(self)

    def fileno(self) -> int:
        """For the reactor."""
        return 0

    def logPrefix(self) -> str:
        """For the reactor."""
        return "primary"

    def doRead(self) -> None:
        """Nothing is written to it any more, so this is the end, unless that is told otherwise."""
        try:
            if os.read(0, 1024):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._reactor.removeReader(self)
        self.connectionLost(None)

    def connectionLost(self, reason: Any) -> None:
        """The end; of a pipe, epoll tells it in this way (EPOLLHUP)."""
        if self._reactor.running and not self._over:
            self._over = True
            log.warning("worker.orphaned", reason="the primary process has ended")
            self._parts.give_up()
            self._reactor.stop()


def _observer(orders: dict[str, Any], settings: Any, name: str) -> Any:
    """Where the log goes.

    :raises OSError: the file cannot be written.
    """
    where = orders["log"]
    if where == "syslog":
        from twisted.logger import LegacyLogObserverWrapper
        from twisted.python.syslog import SyslogObserver

        legacy: Any = SyslogObserver("forwardemail")  # type: ignore[no-untyped-call]
        return LegacyLogObserverWrapper(legacy.emit)
    file: Any = sys.stdout if where == "-" else Path(where)
    if where == "-":
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    key = bytes.fromhex(orders["log_key"])
    return LineObserver(file, settings.log_format, settings.log_addresses, settings.log_level, process=name, key=key)


if __name__ == "__main__":
    main()
