"""How many clients of each network are connected, over all processes and boxes together.

Each process lets a client in by its own count, at once, and tells of it within :data:`GATHER` seconds, many changes in one message.  Who
counts for all (:class:`Census` at the primary, or Redis) answers how many are too many; the newest of those are sent away.  So no greeting
waits for another process, and a network never has more than its limit for longer than a moment.  Who cannot be told is told everything
when he is back; meanwhile each process's own count decides.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fe_twisted.base import log
from fe_twisted.base.clock import Clock
from fe_twisted.base.errors import MailError

#: Seconds in which changes are gathered.
GATHER = 0.02

#: Networks of one process that are counted; of further ones each process counts its own only.
MOST = 200_000

#: Seconds after which everything is told anew: Redis forgets a process that does not.
RENEW = 60.0

#: Seconds after which somebody who could not be told is tried again.
AGAIN = 5.0


class Census:
    """The counts of all processes that are connected to this one, and its own."""

    def __init__(self) -> None:
        #: By door and network: the processes that have connections from there, and how many.
        self._counts: dict[tuple[str, str], dict[object, int]] = {}
        self._of: dict[object, set[tuple[str, str]]] = {}

    def report(self, who: object, door: str, limit: int, counts: Mapping[str, int], *, whole: bool) -> dict[str, int]:
        """Take down a process's counts.

        :param limit: connections from one network to this kind of door.
        :param counts: by network; of the others nothing has changed.
        :param whole: there are no others.
        :returns: by network, how many are too many; they are not counted.
        """
        if whole:
            for place in [place for place in self._of.get(who, ()) if place[0] == door and place[1] not in counts]:
                self._set(who, place, 0)
        excess = {}
        for network, count in counts.items():
            place = (door, network)
            if len(self._of.get(who, ())) >= MOST and place not in self._of[who]:
                continue
            others = sum(number for peer, number in self._counts.get(place, {}).items() if peer is not who)
            over = max(0, min(count, others + count - limit))
            if over:
                excess[network] = over
            self._set(who, place, count - over)
        return excess

    def left(self, who: object) -> None:
        """A process is gone with its connections."""
        for place in list(self._of.get(who, ())):
            self._set(who, place, 0)

    def count(self, door: str, network: str) -> int:
        """Connections from a network, over all processes."""
        return sum(self._counts.get((door, network), {}).values())

    def _set(self, who: object, place: tuple[str, str], count: int) -> None:
        if count > 0:
            self._counts.setdefault(place, {})[who] = count
            self._of.setdefault(who, set()).add(place)
            return
        held = self._counts.get(place, {})
        held.pop(who, None)
        if not held:
            self._counts.pop(place, None)
        places = self._of.get(who, set())
        places.discard(place)
        if not places:
            self._of.pop(who, None)


class Counted(Protocol):
    """What is told of: :class:`fe_twisted.servers.connection.ConnectionLimit`."""

    def networks(self) -> list[str]:
        """Where connections are from."""

    def live(self, network: str) -> int:
        """Connections from a network."""

    def expel(self, network: str, number: int) -> None:
        """Send the newest away; they count no more."""


#: ``tell(counts, whole)`` gives an awaitable for how many are too many, by network; raises MailError.
Tell = Callable[[Mapping[str, int], bool], Awaitable[Mapping[str, int]]]


class Teller:
    """Tells of one door's connections.

    :param door: its name, for the log.
    """

    def __init__(self, door: str, tell: Tell, clock: Clock) -> None:
        self._door = door
        self._tell = tell
        self._clock = clock
        self._counted: Counted | None = None
        self._changed: set[str] = set()
        self._whole = True
        self._busy = False
        self._timer: Any = None
        self._renewal: Any = None
        self._failures = 0
        self._running = False

    def start(self, counted: Counted) -> None:
        """Begin."""
        self._counted = counted
        self._running = True
        self.renew()

    def stop(self) -> None:
        """Tell no more."""
        self._running = False
        for timer in (self._timer, self._renewal):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = self._renewal = None

    def changed(self, network: str) -> None:
        """A connection from there has come, or gone."""
        self._changed.add(network)
        self._soon(GATHER)

    def renew(self) -> None:
        """Tell everything anew: who counts may have forgotten it."""
        self._whole = True
        if self._running:
            if self._renewal is not None and self._renewal.active():
                self._renewal.cancel()
            self._renewal = self._clock.callLater(RENEW, self.renew)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._soon(GATHER)

    def _soon(self, seconds: float) -> None:
        if self._timer is None and not self._busy and self._running:
            self._timer = self._clock.callLater(seconds, self._go)

    def _go(self) -> None:
        self._timer = None
        self._busy = True
        Deferred.fromCoroutine(self._send()).addBoth(self._done)

    async def _send(self) -> None:
        assert self._counted is not None
        whole, self._whole = self._whole, False
        changed, self._changed = self._changed, set()
        if whole:
            changed.update(self._counted.networks())
        counts = {network: self._counted.live(network) for network in changed}
        try:
            excess = await self._tell(counts, whole)
        except BaseException:
            self._whole = True
            raise
        for network, number in excess.items():
            log.event("connections.too_many", door=self._door, network=network, number=number)
            self._counted.expel(network, number)

    def _done(self, result: object) -> None:
        self._busy = False
        if isinstance(result, Failure):
            error = result.value
            if isinstance(error, MailError):
                self._failures += 1
                # Once, and not for a moment's absence, as there is at every start.
                if self._failures == 2:
                    log.warning("connections.counts_alone", door=self._door, reason=error.reason or error.public)
            else:
                log.failure("connections.bug", error or RuntimeError("unknown"))
            self._soon(AGAIN)
            return
        if self._failures > 1:
            log.event("connections.counts_shared", door=self._door)
        self._failures = 0
        if self._changed or self._whole:
            self._soon(GATHER)


def naming(key: bytes) -> Callable[..., str]:
    """Makes names of counts that tell nothing of what they count.

    :param key: 32 octets, the same on all boxes.
    """

    def name(kind: str, *values: str) -> str:
        return f"forwardemail:{kind}:" + hmac.digest(key, "\0".join((kind, *values)).encode(), "sha256")[:16].hex()

    return name


#: Networks in one run of the script: Redis does nothing else meanwhile.
CHUNK = 500


class CensusOverRedis:
    """The same as :class:`Census`, on a Redis server that all boxes reach.

    :param run: see :meth:`fe_twisted.clients.redis.Redis.run`.
    :param name: see :func:`naming`.
    :param process: what this process calls itself there; another one after each start.
    :param limit: connections from one network to this kind of door.
    """

    def __init__(self, run: Callable[..., Awaitable[list[Any]]], name: Callable[..., str], process: str, door: str, limit: int) -> None:
        self._run = run
        self._name = name
        self._process = process
        self._door = door
        self._limit = limit

    async def tell(self, counts: Mapping[str, int], whole: bool) -> Mapping[str, int]:
        """See :data:`Tell`.  A network that is not told of any more is forgotten after a while.

        :raises fe_twisted.clients.redis.RedisAway:
        """
        excess: dict[str, int] = {}
        networks = list(counts)
        for start in range(0, len(networks), CHUNK):
            chunk = networks[start : start + CHUNK]
            keys = [self._name("connections", self._door, network) for network in chunk]
            life = int(RENEW * 2.5 * 1000)
            found = await self._run(_SCRIPT, keys, [self._process, self._limit, life, *(counts[network] for network in chunk)])
            excess |= {network: int(over) for network, over in zip(chunk, found, strict=True) if int(over)}
        return excess


#: A hash for each network: how many connections each process has, and until when (milliseconds) that is believed.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local me, limit, life = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local found = {}
for place, key in ipairs(KEYS) do
  local count, others = tonumber(ARGV[3 + place]), 0
  local held = redis.call('HGETALL', key)
  for at = 1, #held, 2 do
    local number, ends = string.match(held[at + 1], '^(%d+):(%d+)$')
    if tonumber(ends) <= now then
      redis.call('HDEL', key, held[at])
    elseif held[at] ~= me then
      others = others + tonumber(number)
    end
  end
  local over = math.max(0, math.min(count, others + count - limit))
  if count > over then
    redis.call('HSET', key, me, string.format('%d:%.0f', count - over, now + life))
    redis.call('PEXPIRE', key, life)
  else
    redis.call('HDEL', key, me)
  end
  found[place] = over
end
return found
"""
