"""Counts that processes share through the primary: failed logins and connections, asked and told over the link."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fe_twisted.base.clock import Clock
from fe_twisted.base.errors import PrimaryAway
from fe_twisted.clients.link.link import Link
from fe_twisted.protocols.cluster.streams import Buffer
from fe_twisted.protocols.cluster.values import Codec, decode, encode
from fe_twisted.services.cluster.census import Census
from fe_twisted.services.cluster.desk import Serve
from fe_twisted.services.login.failures import What
from fe_twisted.services.login.throttle import Counts, Throttle

#: Seconds that the answer to a question about a login may take, and to one about connections, which nobody waits for.
QUICK, PATIENT = 1.0, 5.0

#: Characters of a network's or user name's text at most; longer ones are cut, and count together.
LONGEST = 1100


@dataclass(frozen=True, slots=True)
class Guess:
    """See :meth:`fe_twisted.services.login.failures.Elsewhere.counts`."""

    what: What
    network: str
    account: str


@dataclass(frozen=True, slots=True)
class Connections:
    """See :meth:`fe_twisted.services.cluster.census.Census.report`; ``numbers`` belong to ``networks``, in their order."""

    door: str
    limit: int
    whole: bool
    networks: tuple[str, ...]
    numbers: tuple[int, ...]


_CODEC = Codec([Guess, Counts, Connections])
_GUESS = _CODEC.shape(Guess)
_COUNTS = _CODEC.shape(Counts)
_CONNECTIONS = _CODEC.shape(Connections)
_EXCESS = _CODEC.shape(tuple[int, ...])


class CountsDesk:
    """The primary's end.

    :param throttle: where failures are counted; the primary's own logins count there too.
    :param census: where connections are.
    """

    def __init__(self, throttle: Throttle, census: Census, clock: Clock) -> None:
        self._throttle = throttle
        self._census = census
        self._clock = clock

    def methods(self) -> Mapping[str, Serve]:
        """See :class:`~fe_twisted.services.cluster.desk.Desk`."""
        return {"failures": self._failures, "connections": self._connections}

    def left(self, guest: object) -> None:
        """See :class:`~fe_twisted.services.cluster.desk.Desk`.  Failures stay: who guesses is not better off when a worker ends."""
        self._census.left(guest)

    async def _failures(self, guest: object, name: str, body: bytes) -> Sequence[Buffer]:
        guess: Guess = decode(_GUESS, body)
        network, account, now = guess.network[:LONGEST], guess.account[:LONGEST], self._clock.seconds()
        if guess.what == "add":
            counts = self._throttle.add(network, account, now)
        else:
            if guess.what == "succeeded":
                self._throttle.succeeded(network, account)
            counts = self._throttle.look(network, account, now)
        return encode(_COUNTS, counts)

    async def _connections(self, guest: object, name: str, body: bytes) -> Sequence[Buffer]:
        told: Connections = decode(_CONNECTIONS, body)
        counts = {network[:LONGEST]: number for network, number in zip(told.networks, told.numbers, strict=False)}
        excess = self._census.report(guest, told.door, told.limit, counts, whole=told.whole)
        return encode(_EXCESS, tuple(excess.get(network, 0) for network in told.networks))


class LinkOf(Protocol):
    """Finds the link to the primary that counts for this process."""

    def __call__(self) -> Link | None:
        """None when there is none."""


class OverLink:
    """Failed logins, counted by the primary; see :class:`fe_twisted.services.login.failures.Elsewhere`."""

    def __init__(self, link_of: LinkOf) -> None:
        self._link_of = link_of

    async def counts(self, what: What, network: str, account: str) -> Counts:
        """See there.

        :raises PrimaryAway: not connected, or no answer within a second.
        :raises fe_twisted.base.errors.MailError: what the primary answered.
        """
        body = encode(_GUESS, Guess(what, network, account))
        counts: Counts = decode(_COUNTS, await _ask(self._link_of(), "failures", body, QUICK))
        return counts


def tell_over_link(link_of: LinkOf, door: str, limit: int) -> Callable[[Mapping[str, int], bool], object]:
    """See :data:`fe_twisted.services.cluster.census.Tell`: the primary counts."""

    async def tell(counts: Mapping[str, int], whole: bool) -> Mapping[str, int]:
        body = encode(_CONNECTIONS, Connections(door, limit, whole, tuple(counts), tuple(counts.values())))
        excess = decode(_EXCESS, await _ask(link_of(), "connections", body, PATIENT))
        return {network: over for network, over in zip(counts, excess, strict=False) if over}

    return tell


async def _ask(link: Link | None, method: str, body: Sequence[Buffer], timeout: float) -> bytes:
    if link is None:
        raise PrimaryAway(reason="no link to a primary")
    return await link.ask(method, "", body, timeout=timeout, patience=0.0)
