"""Limits of several boxes, counted on a real Redis server that may be away, frozen or started anew."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from fe_twisted.base.errors import TooManyConnections
from fe_twisted.clients.redis import Redis, RedisAway
from fe_twisted.services.cluster.census import CensusOverRedis, naming
from fe_twisted.services.login.failures import Failures, OverRedis
from fe_twisted.services.login.throttle import LoginLimits
from tests.redisserver import RedisServer

NAME = naming(bytes(range(32)))
LIMITS = LoginLimits(window=2, per_network=4, per_account=6, first_delay=1, longest_delay=8)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path).start()
    yield made
    made.stop()


def within(reactor: Any, conversation: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine on a reactor of its own."""
    outcome: list[Any] = []

    async def run() -> Any:
        return await conversation()

    def done(result: Any) -> None:
        outcome.append(result)
        reactor.callLater(0, reactor.stop)

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(run()).addTimeout(30, reactor).addBoth(done))
    reactor.run(installSignalHandlers=False)
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]


def boxes(url: str, number: int, conversation: Callable[[Any, Sequence[Redis]], Awaitable[Any]]) -> Any:
    """Run a conversation of several boxes that are connected to one server."""
    make: Any = EPollReactor
    reactor = make()

    async def run() -> Any:
        clients = [Redis(url, reactor) for _ in range(number)]
        for client in clients:
            client.startService()
        await connected(reactor, clients)
        try:
            return await conversation(reactor, clients)
        finally:
            for client in clients:
                await client.stopService()

    return within(reactor, run)


async def connected(reactor: Any, clients: Sequence[Redis]) -> None:
    for client in clients:
        while True:
            try:
                await client.run("return {1}", [], [])
                break
            except RedisAway:
                await deferLater(reactor, 0.02)


def failures(reactor: Any, client: Redis) -> Failures:
    return Failures(LIMITS, reactor, OverRedis(client.run, NAME, LIMITS, lambda: secrets.token_hex(8)))


def test_guesses_over_two_boxes_count_together(server: RedisServer) -> None:
    async def talk(reactor: Any, clients: Sequence[Redis]) -> None:
        both = [failures(reactor, client) for client in clients]
        assert [await both[number % 2].failed("n", f"a{number}") for number in range(4)] == [1, 2, 4, 8]
        for each in both:
            with pytest.raises(TooManyConnections):
                await each.check("n", "x")
            await each.check("m", "x")
        await deferLater(reactor, LIMITS.window + 0.1)
        for each in both:
            await each.check("n", "x")

    boxes(server.url, 2, talk)


def test_a_name_its_owner_and_the_right_password(server: RedisServer) -> None:
    async def talk(reactor: Any, clients: Sequence[Redis]) -> None:
        one, two = (failures(reactor, client) for client in clients)
        two.succeeded("home", "a")
        await deferLater(reactor, 0.1)
        for number in range(6):
            await one.failed(f"n{number}", "a")
        with pytest.raises(TooManyConnections):
            await two.check("elsewhere", "a")
        await one.check("home", "a")
        one.succeeded("home", "a")
        await deferLater(reactor, 0.1)
        await two.check("elsewhere", "a")

    boxes(server.url, 2, talk)


def test_nothing_on_it_tells_who_it_is_and_all_of_it_ends(server: RedisServer) -> None:
    async def talk(reactor: Any, clients: Sequence[Redis]) -> Any:
        await failures(reactor, clients[0]).failed("192.0.2.1", "victim@example.com")
        failures(reactor, clients[0]).succeeded("192.0.2.1", "owner@example.com")
        census = CensusOverRedis(clients[0].run, NAME, "box-one", "imap", 5)
        await census.tell({"192.0.2.1": 2}, True)
        await deferLater(reactor, 0.1)
        return await clients[0].run(
            """local found = {}
            for _, key in ipairs(redis.call('KEYS', '*')) do
              found[#found + 1] = key
              found[#found + 1] = redis.call('PTTL', key)
            end
            return found""",
            [],
            [],
        )

    found = boxes(server.url, 1, talk)
    names, times = found[::2], found[1::2]
    assert len(names) == 4
    assert not any(word in name for name in names for word in ("192", "victim", "owner", "example"))
    assert all(int(each) > 0 for each in times), "everything is forgotten some day"


def test_connections_over_two_boxes_count_together(server: RedisServer) -> None:
    async def talk(reactor: Any, clients: Sequence[Redis]) -> None:
        one, two = (CensusOverRedis(client.run, NAME, f"box-{number}", "imap", 5) for number, client in enumerate(clients))
        other = CensusOverRedis(clients[1].run, NAME, "box-1", "mx", 5)
        assert await one.tell({"n": 3, "m": 1}, True) == {}
        assert await two.tell({"n": 4}, True) == {"n": 2}
        assert await other.tell({"n": 5}, True) == {}
        assert await two.tell({"n": 2}, False) == {}
        assert await one.tell({"n": 0}, False) == {}
        assert await two.tell({"n": 6}, False) == {"n": 1}
        assert await two.tell({f"n{number}": 1 for number in range(1200)}, True) == {}

    boxes(server.url, 2, talk)


def test_a_box_that_died_is_forgotten(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fe_twisted.services.cluster.census.RENEW", 0.2)

    async def talk(reactor: Any, clients: Sequence[Redis]) -> None:
        dead = CensusOverRedis(clients[0].run, NAME, "dead", "imap", 5)
        alive = CensusOverRedis(clients[0].run, NAME, "alive", "imap", 5)
        await dead.tell({"n": 5}, True)
        assert await alive.tell({"n": 1}, True) == {"n": 1}
        await deferLater(reactor, 0.3)
        # The set as a whole lives on with the one who still tells; the count of the dead one does not.
        assert await alive.tell({"n": 1}, True) == {"n": 1}
        await deferLater(reactor, 0.3)
        assert await alive.tell({"n": 5}, True) == {}

    boxes(server.url, 1, talk)


def test_away_frozen_and_back(server: RedisServer) -> None:
    """Without it each box goes by its own counts, nobody waits longer than a second, and it is used again when it is back."""

    async def talk(reactor: Any, clients: Sequence[Redis]) -> None:
        one, asked = failures(reactor, clients[0]), []
        run = clients[0].run

        async def counted(*arguments: Any) -> Any:
            asked.append(arguments)
            return await run(*arguments)

        one._elsewhere._run = counted  # type: ignore[union-attr]
        server.freeze(True)
        began = time.monotonic()
        assert await one.failed("n", "a") == 1
        assert time.monotonic() - began < 5
        assert await one.failed("n", "a") == 2
        assert len(asked) == 1, "it is not asked again at once"
        server.freeze(False)
        server.stop()
        with pytest.raises(RedisAway):
            await clients[0].run("return {1}", [], [])
        server.start()
        await connected(reactor, clients)
        assert await clients[0].run("return {7}", [], []) == [7]

    boxes(server.url, 1, talk)


def test_the_password_is_used_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, password="pass/word").start()
    try:
        assert boxes(server.url.replace("pass/word", "pass%2Fword"), 1, _one) == [1]
        make: Any = EPollReactor
        reactor = make()
        client = Redis(server.url.replace("pass/word", "wrong"), reactor)
        told: list[str] = []
        client.refused = told.append  # type: ignore[method-assign]

        async def wrong() -> None:
            client.startService()
            while not told:
                await deferLater(reactor, 0.05)
            with pytest.raises(RedisAway):
                await client.run("return {1}", [], [])
            await client.stopService()

        within(reactor, wrong)
        assert "wrong" not in told[0].replace("WRONGPASS", "")
    finally:
        server.stop()


async def _one(reactor: Any, clients: Sequence[Redis]) -> Any:
    return await clients[0].run("return {1}", [], [])
