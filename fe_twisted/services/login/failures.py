"""Failed logins as this process counts them, and as all processes and boxes count them together.

Each process counts its own.  What others counted is asked of somebody who hears of everybody's (:class:`Elsewhere`): the primary, over the
link, or Redis.  Of both counts the higher one decides.  When nobody can be asked, a login does not wait for that: this process's own
counts decide, and nobody is asked again for a moment.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

from twisted.internet.defer import Deferred

from fe_twisted.base import log
from fe_twisted.base.clock import Clock
from fe_twisted.base.errors import MailError
from fe_twisted.services.login.throttle import Counts, LoginLimits, Throttle

#: What can be done with the counts of a network and a user name: look at them, count a failure, or tell of the right password.
What = Literal["look", "add", "succeeded"]

#: Seconds for which nobody is asked after somebody could not be.
PAUSE = 5.0


class Elsewhere(Protocol):
    """Who hears of everybody's failures."""

    async def counts(self, what: What, network: str, account: str) -> Counts:
        """What is remembered, after ``what`` was done.

        :raises fe_twisted.base.errors.MailError: he cannot be asked; known within a second.
        """


class Failures:
    """Failed logins, and what comes of them.

    :param clock: tells the time.
    :param elsewhere: who hears of everybody's; None when there is nobody else.
    """

    def __init__(self, limits: LoginLimits, clock: Clock, elsewhere: Elsewhere | None = None) -> None:
        self.limits = limits
        #: This process's own.
        self.throttle = Throttle(limits)
        self._clock = clock
        self._elsewhere = elsewhere
        self._alone_until = 0.0
        self._alone = False

    async def check(self, network: str, account: str) -> None:
        """:raises TooManyConnections: the password is not even to be looked at."""
        own = self.throttle.look(network, account, self._clock.seconds())
        if own.network < self.limits.per_network:
            own = own.at_least(await self._ask("look", network, account))
        self.limits.judge(network, own)

    async def failed(self, network: str, account: str) -> float:
        """Count a failure; returns the seconds after which it may be answered."""
        own = self.throttle.add(network, account, self._clock.seconds())
        return self.limits.delay(own.at_least(await self._ask("add", network, account)))

    def succeeded(self, network: str, account: str) -> None:
        """The right password came; nobody waits until the others know."""
        self.throttle.succeeded(network, account)
        Deferred.fromCoroutine(self._ask("succeeded", network, account))

    async def _ask(self, what: What, network: str, account: str) -> Counts:
        """The others' counts, or none when they cannot be asked now."""
        if self._elsewhere is None or self._clock.seconds() < self._alone_until:
            return Counts()
        try:
            counts = await self._elsewhere.counts(what, network, account)
        except MailError as error:
            self._alone_until = self._clock.seconds() + PAUSE
            if not self._alone:
                log.warning("login.counts_alone", reason=error.reason or error.public)
            self._alone = True
            return Counts()
        if self._alone:
            log.event("login.counts_shared")
        self._alone = False
        return counts


class OverRedis:
    """Counts on a Redis server that all boxes reach.

    Networks and user names go there only as hashes under a key; times are the server's, so that clocks of boxes may differ.

    :param run: see :meth:`fe_twisted.clients.redis.Redis.run`.
    :param name: makes the name of a count, see :func:`fe_twisted.services.cluster.census.naming`.
    :param unique: 16 hexadecimal digits, others each time.
    """

    def __init__(
        self, run: Callable[..., Awaitable[list[Any]]], name: Callable[..., str], limits: LoginLimits, unique: Callable[[], str]
    ) -> None:
        self._run = run
        self._name = name
        self._limits = limits
        self._unique = unique

    async def counts(self, what: What, network: str, account: str) -> Counts:
        """See :class:`Elsewhere`."""
        keys = [self._name("network", network), self._name("account", account), self._name("proven", network, account)]
        limits = self._limits
        window = int(limits.window * 1_000_000)
        found = await self._run(_SCRIPT, keys, [what, window, limits.per_network, limits.per_account, self._unique(), PROVEN])
        return Counts(int(found[0]), int(found[1]), bool(found[2]))


#: Seconds that a network stays known for an account on Redis.
PROVEN = 90 * 86400

#: Sorted sets of failures by their time in microseconds, the newest ones only.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local what, window = ARGV[1], tonumber(ARGV[2])
if what == 'succeeded' then
  redis.call('DEL', KEYS[2])
  redis.call('SET', KEYS[3], 1, 'EX', ARGV[6])
end
local found = {}
for place = 1, 2 do
  local key, most = KEYS[place], tonumber(ARGV[2 + place])
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
  if what == 'add' then
    redis.call('ZADD', key, now, ARGV[5])
    redis.call('ZREMRANGEBYRANK', key, 0, -most - 1)
    redis.call('PEXPIRE', key, math.ceil(window / 1000))
  end
  found[place] = redis.call('ZCARD', key)
end
found[3] = redis.call('EXISTS', KEYS[3])
return found
"""
