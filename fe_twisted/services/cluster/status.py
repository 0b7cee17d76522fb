"""How it goes: what each process says of itself, gathered by the processes that others are linked to.

A process tells those above it every :data:`EVERY` seconds how it goes, together with the time that a ping to them took.  Whoever is asked
answers with what was told last; so nobody waits for a process that is not well, and one that is gone is not in the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fe_twisted.base import log
from fe_twisted.base.clock import Clock
from fe_twisted.base.errors import MailError
from fe_twisted.clients.link.link import Link
from fe_twisted.protocols.cluster.streams import Buffer
from fe_twisted.protocols.cluster.values import Codec, decode, encode
from fe_twisted.services.cluster.desk import Serve
from fe_twisted.services.cluster.twins import Troubles

#: Seconds between two reports, and that an answer may take.
EVERY, TIMEOUT = 5.0, 5.0

_REMEDY = "; give one of them another location"

#: Characters of a text in a report at most.
LONGEST = 300


@dataclass(frozen=True, slots=True)
class Connected:
    """A link of a process to a primary, as that process sees it.

    :param name: what it calls the link.
    :param round_trip: microseconds that the last ping took; None when there is no connection, or no ping yet.
    """

    name: str
    connected: bool
    round_trip: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a process says of itself.

    :param role: ``primary``, ``secondary`` or ``worker``.
    :param started: seconds since the epoch.
    :param imap, mx: sessions.
    :param mailboxes: open in this process.
    :param waiting: mailboxes whose owners are away and for which mail waits here, sealed: at a primary in temporary mailboxes, elsewhere in
        the queue for a primary.
    :param waiting_octets: of these files.
    :param round_trip: microseconds that a ping to whom it is told took; None when none has come back yet.
    """

    name: str
    role: str
    version: str
    location: str
    pid: int
    started: int
    imap: int = 0
    mx: int = 0
    mailboxes: int = 0
    waiting: int = 0
    waiting_octets: int = 0
    round_trip: int | None = None
    links: tuple[Connected, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that is linked to the one that answers.

    :param address: where it comes from, ``unix`` for this box.
    :param since: seconds since the epoch when it connected.
    :param told: seconds since the epoch when it last told.
    """

    address: str
    since: int
    told: int
    report: Report


@dataclass(frozen=True, slots=True)
class State:
    """The answer.

    :param problems: sentences, see :mod:`fe_twisted.services.cluster.twins`.
    """

    own: Report
    now: int
    peers: tuple[Peer, ...]
    problems: tuple[str, ...] = ()


_CODEC = Codec([Connected, Report, Peer, State])
_REPORT = _CODEC.shape(Report)
_NOTHING = _CODEC.shape(None)
#: The answer to :data:`PING`: the location of a primary. Version 0.1 asks for nothing and answers nothing.
_PLACE = _CODEC.shape(str | None)
STATE = _CODEC.shape(State)

#: The names of the methods; one of a mailbox is called ``status``.
PING, REPORT, ASK = "ping", "report", "state"


class Own(Protocol):
    """Gives this process's own report; it may have to look at the disk."""

    async def __call__(self) -> Report:
        """Now."""


class StatusDesk:
    """Who is told, and asked.

    :param own: says how this process goes.
    :param location: of the primary that this process is; empty for another process.
    """

    def __init__(self, own: Own, clock: Clock, *, location: str = "", troubles: Troubles | None = None) -> None:
        self._own = own
        self._clock = clock
        self._location = location
        self._troubles = troubles or Troubles()
        self._peers: dict[object, Peer] = {}

    def methods(self) -> Mapping[str, Serve]:
        """See :class:`~fe_twisted.services.cluster.desk.Desk`."""
        return {PING: self._ping, REPORT: self._report, ASK: self._state}

    def left(self, guest: object) -> None:
        """See :class:`~fe_twisted.services.cluster.desk.Desk`."""
        self._peers.pop(guest, None)
        self._troubles.set(guest, "")

    async def _ping(self, guest: object, name: str, body: bytes) -> Sequence[Buffer]:
        return encode(_PLACE, self._location[:LONGEST] or None)

    async def _report(self, guest: object, name: str, body: bytes) -> Sequence[Buffer]:
        report = _short(decode(_REPORT, body))
        now = int(self._clock.seconds())
        known = self._peers.get(guest)
        # A peer is called «name (address)»; the name is in the report too.
        address = name.rpartition("(")[2].rstrip(")")
        self._peers[guest] = Peer(address, known.since if known else now, now, report)
        twin = report.role == "primary" and report.location == self._location != ""
        text = ""
        if twin:
            own = (await self._own()).name
            text = f"{report.name} ({address}) is a primary of the location {self._location}, and so is this one, {own}{_REMEDY}"
        if guest in self._peers:
            self._troubles.set(guest, text)
        return encode(_NOTHING, None)

    async def _state(self, guest: object, name: str, body: bytes) -> Sequence[Buffer]:
        own = await self._own()
        peers = sorted(self._peers.values(), key=lambda peer: (peer.report.role != "worker", peer.report.name, peer.report.pid))
        return encode(STATE, State(own, int(self._clock.seconds()), tuple(peers), self._troubles.all()))


def place_of(octets: bytes) -> str:
    """The answer to :data:`PING`: a location; empty when the other side is no primary, or does not say.

    :raises fe_twisted.protocols.cluster.values.BadValue: it is none.
    """
    return (decode(_PLACE, octets) or "")[:LONGEST]


def state_of(octets: bytes) -> State:
    """The answer to :data:`ASK`.

    :raises fe_twisted.protocols.cluster.values.BadValue: it is none.
    """
    state: State = decode(STATE, octets)
    return state


class Reporter:
    """Tells one process above this one how it goes, from :meth:`start` to :meth:`stop`.

    :param every: seconds between two reports.
    :param location: what the process above should be; empty is not looked at.
    """

    def __init__(
        self, link: Link, own: Own, clock: Clock, *, every: float = EVERY, location: str = "", troubles: Troubles | None = None
    ) -> None:
        self._link = link
        self._own = own
        self._clock = clock
        self._every = every
        self._location = location
        self._troubles = troubles or Troubles()
        self._timer: Any = None
        self._busy = self._running = False
        #: Microseconds, see :class:`Report`.
        self.round_trip: int | None = None
        link.when_connected(self._connected)

    def start(self) -> None:
        """Begin."""
        self._running = True
        self._go()

    def stop(self) -> None:
        """Tell no more."""
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def seen(self) -> Connected:
        """The link as this end sees it."""
        connected = self._link.connected
        return Connected(self._link.name, connected, self.round_trip if connected else None)

    def _connected(self) -> None:
        """At once, so that whoever asks just after a start sees everybody."""
        self.round_trip = None
        self._go()

    def _go(self) -> None:
        if not self._running or self._busy:
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.callLater(self._every, self._go)
        if self._link.connected:
            self._busy = True
            Deferred.fromCoroutine(self._tell()).addBoth(self._done)

    async def _tell(self) -> None:
        began = self._clock.seconds()
        found = place_of(await self._ask(PING, encode(_NOTHING, None)))
        self.round_trip = max(0, round((self._clock.seconds() - began) * 1_000_000))
        report = replace(await self._own(), round_trip=self.round_trip)
        if self._location:
            self._compare(found, report)
        await self._ask(REPORT, encode(_REPORT, report))

    def _compare(self, found: str, own: Report) -> None:
        """Whether the process at the other end is the primary that it should be."""
        text = ""
        if found not in ("", self._location):
            same = f", and so is this one, {own.name}{_REMEDY}" if found == own.location else "; correct primaries"
            text = f"the link to {self._link.name} leads to a primary of the location {found}{same}"
        self._troubles.set(self, text)

    async def _ask(self, method: str, body: Sequence[Buffer]) -> bytes:
        return await self._link.ask(method, "", body, timeout=TIMEOUT, patience=0.0)

    def _done(self, result: object) -> None:
        """What could not be told now is told the next time; an older primary may not know the question."""
        self._busy = False
        if isinstance(result, Failure) and not isinstance(result.value, MailError):
            log.failure("link.report", result.value or RuntimeError("unknown"))


def _short(report: Report) -> Report:
    """A report whose texts are no longer than they need to be."""
    texts: dict[str, Any] = {field: getattr(report, field)[:LONGEST] for field in ("name", "role", "version", "location")}
    links = tuple(replace(each, name=each.name[:LONGEST]) for each in report.links[:64])
    return replace(report, links=links, **texts)
