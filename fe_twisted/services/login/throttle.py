"""How often somebody may guess: failures in a sliding window, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from fe_twisted.base.errors import TooManyConnections


@dataclass(frozen=True, slots=True)
class Counts:
    """What is remembered of those who log in to one account from one network.

    :param network: failures from there that still count.
    :param account: failures on this user name that still count.
    :param proven: whether the right password came from there before.
    """

    network: int = 0
    account: int = 0
    proven: bool = False

    def at_least(self, other: Counts) -> Counts:
        """The worse of two counts of the same: each failure is in at least one of them."""
        return Counts(max(self.network, other.network), max(self.account, other.account), self.proven or other.proven)


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """How many failures are borne, and what each costs.

    :param window: seconds that a failure counts.
    :param per_network: failures from one network (see :func:`fe_twisted.base.networks.network_of`) after which it is turned away.
    :param per_account: failures on one user name, from all networks that never logged in to it, after which those are turned away.
    :param first_delay: seconds until the answer to the first failure; doubled with each further one.
    :param longest_delay: seconds, however many failures there were.
    :param entries: networks, user names and proven pairs remembered at once; the longest unused are forgotten first.
    """

    window: float = 900.0
    per_network: int = 30
    per_account: int = 60
    first_delay: float = 0.5
    longest_delay: float = 8.0
    entries: int = 20_000

    def judge(self, network: str, counts: Counts) -> None:
        """:raises TooManyConnections: the password is not even to be looked at."""
        if counts.network >= self.per_network:
            raise TooManyConnections("too many failed logins, try again later", reason=f"network {network}")
        if not counts.proven and counts.account >= self.per_account:
            raise TooManyConnections("too many failed logins, try again later", reason="user name")

    def delay(self, counts: Counts) -> float:
        """Seconds after which a failure may be answered, itself being counted already."""
        count = counts.network if counts.proven else max(counts.network, counts.account)
        # The exponent is bounded, because 2.0**1100 overflows.
        return min(self.first_delay * 2.0 ** max(0, min(count - 1, 30)), self.longest_delay)


class Throttle:
    """Failures by network and by user name.  Times are seconds of any clock that only goes forward.

    Locking a name must not become a way to lock its owner out: networks from which the right password came before are judged by
    their own failures only.
    """

    def __init__(self, limits: LoginLimits) -> None:
        self._limits = limits
        self._networks: OrderedDict[str, deque[float]] = OrderedDict()
        self._accounts: OrderedDict[str, deque[float]] = OrderedDict()
        self._proven: OrderedDict[tuple[str, str], None] = OrderedDict()

    def look(self, network: str, account: str, now: float) -> Counts:
        """What is remembered."""
        proven = (network, account) in self._proven
        return Counts(self._count(self._networks, network, now), self._count(self._accounts, account, now), proven)

    def add(self, network: str, account: str, now: float) -> Counts:
        """Count a failure; what is remembered with it."""
        self._add(self._networks, network, now, self._limits.per_network)
        self._add(self._accounts, account, now, self._limits.per_account)
        return self.look(network, account, now)

    def check(self, network: str, account: str, now: float) -> None:
        """:raises TooManyConnections: the password is not even to be looked at."""
        self._limits.judge(network, self.look(network, account, now))

    def failed(self, network: str, account: str, now: float) -> float:
        """Count a failure; returns the seconds after which it may be answered."""
        return self._limits.delay(self.add(network, account, now))

    def succeeded(self, network: str, account: str) -> None:
        """The right password came: the user name starts afresh, and this network is known for it.

        The network's own failures stay: else one account of one's own would buy any number of guesses at others.
        """
        self._accounts.pop(account, None)
        self._proven[network, account] = None
        self._proven.move_to_end((network, account))
        if len(self._proven) > self._limits.entries:
            self._proven.popitem(last=False)

    def _count(self, table: OrderedDict[str, deque[float]], key: str, now: float) -> int:
        times = table.get(key)
        if times is None:
            return 0
        while times and times[0] <= now - self._limits.window:
            times.popleft()
        if not times:
            del table[key]
        return len(times)

    def _add(self, table: OrderedDict[str, deque[float]], key: str, now: float, most: int) -> None:
        times = table.get(key)
        if times is None:
            times = table[key] = deque(maxlen=most)
            if len(table) > self._limits.entries:
                table.popitem(last=False)
        times.append(now)
        table.move_to_end(key)
