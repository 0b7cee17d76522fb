"""A network between two processes that can be cut, held up and healed: a TCP proxy on loopback."""

from __future__ import annotations

import contextlib
import queue
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

#: Octets that are carried at once.
_PIECE = 262_144

#: RST in the place of FIN (SO_LINGER with no time).
_RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Half:
    """One direction of a connection."""

    source: socket.socket
    target: socket.socket
    held: bytearray = field(default_factory=bytearray)
    ended: bool = False


class Proxy:
    """Carries connections to a port, as long as it is told to.

    :param port: on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._halves: list[_Half] = []
        self._open = True
        self._moving = True
        self._running = True
        self._orders: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]] = queue.SimpleQueue()
        self._poke, self._poked = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{port}", daemon=True)
        self._thread.start()

    # -- what the network does ----------------------------------------------------------------------

    def cut(self) -> None:
        """Reset all connections, and refuse new ones until :meth:`heal`."""

        def do() -> None:
            self._open = False
            self._listener.close()
            self._drop(reset=True)

        self._order(do)

    def reset(self) -> None:
        """Reset all connections; new ones are carried."""
        self._order(lambda: self._drop(reset=True))

    def hold(self) -> None:
        """Carry nothing more, without telling anybody, as a cable that was pulled: what is sent waits here until :meth:`heal`."""

        def do() -> None:
            self._moving = False

        self._order(do)

    def heal(self) -> None:
        """Carry again, connections that were held and new ones."""

        def do() -> None:
            self._moving = True
            if not self._open:
                self._listener = socket.create_server(("127.0.0.1", self.port))
                self._open = True

        self._order(do)

    def close(self) -> None:
        """End everything."""

        def do() -> None:
            self._running = False
            self._listener.close()
            self._drop(reset=False)

        self._order(do)
        self._thread.join(10)
        self._poke.close()
        self._poked.close()

    # -- inside, all in one thread ------------------------------------------------------------------

    def _order(self, do: Callable[[], None]) -> None:
        """Have it done, and return when it is."""
        done = threading.Event()
        self._orders.put((do, done))
        self._poke.send(b".")
        assert done.wait(10), "the proxy does not answer"

    def _drop(self, *, reset: bool) -> None:
        for half in self._halves:
            if reset:
                with contextlib.suppress(OSError):
                    half.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            half.source.close()
        self._halves.clear()

    def _run(self) -> None:
        while self._running:
            with selectors.DefaultSelector() as selector:
                selector.register(self._poked, selectors.EVENT_READ)
                if self._moving:
                    self._register(selector)
                ready = [key.fileobj for key, _ in selector.select()]
            if self._poked in ready:
                self._poked.recv(4096)
            for each in ready:
                if each is self._listener:
                    self._accept()
                elif each is not self._poked:
                    self._carry(each)
            while not self._orders.empty():
                do, done = self._orders.get()
                do()
                done.set()

    def _register(self, selector: selectors.BaseSelector) -> None:
        if self._open:
            selector.register(self._listener, selectors.EVENT_READ)
        interest: dict[socket.socket, int] = {}
        for half in self._halves:
            if not half.ended and len(half.held) < _PIECE:
                interest[half.source] = interest.get(half.source, 0) | selectors.EVENT_READ
            if half.held:
                interest[half.target] = interest.get(half.target, 0) | selectors.EVENT_WRITE
        for each, events in interest.items():
            selector.register(each, events)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            near, _ = self._listener.accept()
            try:
                far = socket.create_connection(("127.0.0.1", self._to), 5)
            except OSError:
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                near.close()
                return
            for each in (near, far):
                each.setblocking(False)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._halves += [_Half(near, far), _Half(far, near)]

    def _carry(self, ready: object) -> None:
        for half in list(self._halves):
            if half.source is ready or half.target is ready:
                self._move(half)

    def _move(self, half: _Half) -> None:
        try:
            if not half.ended and len(half.held) < _PIECE:
                with contextlib.suppress(BlockingIOError):
                    data = half.source.recv(_PIECE)
                    half.held += data
                    half.ended = not data
            if half.held:
                with contextlib.suppress(BlockingIOError):
                    del half.held[: half.target.send(half.held)]
        except OSError:
            half.ended = True
            half.held.clear()
        if half.ended and not half.held:
            self._end(half)

    def _end(self, half: _Half) -> None:
        """One direction has ended: both do, which is all that a WebSocket needs."""
        gone = [each for each in self._halves if each.source in (half.source, half.target)]
        for each in gone:
            self._halves.remove(each)
        for each in gone:
            each.ended = True
            each.source.close()
