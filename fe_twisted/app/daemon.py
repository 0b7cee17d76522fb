"""The top service under ``twistd``: what must happen in which phase of the process.

========================  =============================================================================
when                      what
========================  =============================================================================
``setServiceParent``      the application is handed our log observer, before twistd starts its own
``privilegedStartService``  sockets are bound, perhaps as root, after the fork
``startService``          privileges are gone: everything else is made (see :mod:`fe_twisted.app.wiring`)
``stopService``           sessions end, files close; twistd waits for it
========================  =============================================================================

Nothing that a fork would break, no thread and no open database, exists before ``startService``.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from types import TracebackType
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import ILogObserver

from fe_twisted import __version__
from fe_twisted.app.logging import LineObserver
from fe_twisted.app.parts import Parts
from fe_twisted.app.ports import bind_all
from fe_twisted.app.wiring import build
from fe_twisted.base import log
from fe_twisted.base.errors import MailError
from fe_twisted.base.settings import Settings


class NotStarted(Exception):
    """The daemon's child process cannot start, and has said why; twistd tells the parent, which waits for it, that something was raised."""


class Daemon(Service):
    """The whole service.

    :param observer: where the log goes; None leaves it to twistd.
    :param foreground: False when twistd forks into the background.
    """

    def __init__(self, settings: Settings, reactor: Any, observer: LineObserver | None, *, foreground: bool = True) -> None:
        self._settings = settings
        self._reactor = reactor
        self._observer = observer
        self._foreground = foreground
        self._sockets: list[dict[str, list[socket.socket]]] = []
        self._link: list[socket.socket] = []
        self._parts: Parts | None = None
        self._on_terminal = False
        self._terminal: int | None = None

    def setServiceParent(self, parent: Any) -> None:
        """Also hand the application its log observer: twistd asks for it right after this."""
        super().setServiceParent(parent)
        if not self._foreground and sys.__stderr__ is not None:
            # The fork takes the terminal away, and twistd's parent would show the first 64 characters of why there was no start.
            self._terminal = os.dup(sys.__stderr__.fileno())
        if self._observer is not None:
            parent.setComponent(ILogObserver, self._observer)

    def privilegedStartService(self) -> None:
        """Bind the ports.

        :raises SystemExit, NotStarted: one cannot be had.
        """
        super().privilegedStartService()
        processes = self._settings.processes()
        # One set of sockets for each process that answers clients.
        self._sockets = [{} for _ in range(processes or 1)]
        for door, port in self._settings.ports().items():
            bound = [self._bind(door, each, port, 1 if door == "link" else processes or 1) for each in self._settings.interfaces]
            if not any(bound):
                self._refuse(f"no address to listen on for {door}: this machine has no IPv6; add an IPv4 address to interfaces")
            if door == "link":
                self._link = [each for sockets in bound for each in sockets]
            else:
                for number, sockets in enumerate(self._sockets):
                    sockets[door] = [each[number] for each in bound if each]

    def startService(self) -> None:
        """Make and start everything.

        :raises SystemExit, NotStarted: something cannot be used.
        """
        super().startService()
        # Before anybody can find this process by its socket: until it is heard, SIGUSR2 would end it.
        self._on_terminal = os.isatty(1)
        signal.signal(signal.SIGHUP, self._hangup)
        signal.signal(signal.SIGUSR2, lambda *_: self._reactor.callFromThread(self._replace))
        try:
            orders = self._orders() if self._settings.processes() else None
            self._parts = build(self._settings, self._reactor, self._sockets, link=self._link, orders=orders)
        except MailError as error:
            self._refuse(f"{error.public} ({error.reason})" if error.reason else error.public)
        except OSError as error:
            self._refuse(str(error))
        self._parts.startService()
        self._let_go()
        log.follow(self._settings.log_level == "debug")
        if self._observer is not None:
            self._observer.gather(lambda write: self._reactor.callLater(0, write))
        # Only once the reactor runs and a SIGTERM is heard: it takes a moment, and the ports are open already.
        self._reactor.callLater(0, settle)
        log.event("server.started", version=__version__, hostname=self._settings.hostname, settings=self._settings.file)

    def stopService(self) -> Deferred[None]:
        """Stop everything; fires when all files are closed."""
        super().stopService()
        parts, self._parts = self._parts, None
        if parts is None:
            return succeed(None)
        log.event("server.stopping")
        if self._observer is not None:
            self._observer.gather(None)  # there may be no further turn
        return parts.stopService().addCallback(lambda _: log.event("server.stopped"))

    def _bind(self, door: str, interface: str, port: int, count: int) -> list[socket.socket]:
        try:
            return bind_all(interface, port, count)
        except OSError as error:
            self._refuse(f"port {port} ({door}) on {interface} cannot be had: {error.strerror}; {_remedy(error, door)}")

    def _refuse(self, text: str) -> NoReturn:
        """Say why there is no start, in the log and on the terminal, and end with status 1."""
        log.warning("server.not_started", reason=text)
        if not self._foreground:
            if self._terminal is not None:
                with contextlib.suppress(OSError):  # the terminal may be gone
                    os.write(self._terminal, f"forwardemail: {text}\n".encode(errors="backslashreplace"))
                self._let_go()
            # The parent waits for a word from twistd in this process, and SystemExit would not give it one.  Nothing catches what is
            # raised here; the interpreter would print where it was, into the log, which has the reason already.
            sys.excepthook = _unless_told
            raise NotStarted("see above")
        # twistd has put the log in the place of sys.stderr by now.
        if sys.__stderr__ is not None:
            print(f"forwardemail: {text}", file=sys.__stderr__)
        raise SystemExit(1)

    def _let_go(self) -> None:
        """Of the terminal that this was started at; whoever waits for its end need not wait for the daemon."""
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            os.close(terminal)

    def _hangup(self, *_: object) -> None:
        """SIGHUP: the operator's «read the certificate again», or the kernel's «your terminal is gone»."""
        if self._on_terminal and not os.isatty(1):
            self._reactor.callFromThread(self._reactor.stop)
        else:
            self._reactor.callFromThread(self._reload)

    def _orders(self) -> dict[str, Any]:
        """See :mod:`fe_twisted.app.worker`."""
        observer = self._observer
        log_key = observer.key.hex() if observer is not None else ""
        where = "syslog" if observer is None else str(observer.path or "-")
        return {"config": str(self._settings.file), "log": where, "log_key": log_key}

    def _replace(self) -> None:
        """SIGUSR2, from ``forwardemail reload``."""
        self._reload()
        if self._parts is not None:
            self._parts.replace()

    def _reload(self) -> None:
        if self._observer is not None:
            self._observer.reopen()
        if self._parts is not None:
            self._parts.reload()


def _unless_told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an exception that ends the process, but not the one that says what was said already."""
    if not isinstance(error, NotStarted):
        sys.__excepthook__(kind, error, trace)


def settle() -> None:
    """Keep the garbage collector from looking at what stays for ever, and from looking after every few hundred objects.

    A FETCH of 10,000 messages makes so many short-lived tuples that collections took a large part of its time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _remedy(error: OSError, door: str) -> str:
    if isinstance(error, PermissionError):
        return "ports below 1024 need root or CAP_NET_BIND_SERVICE"
    return f"is the server running already? Otherwise change {door}_port or port_offset"
