"""Live connections: limits in all and per address, and whom to send away when other processes have some too."""

from __future__ import annotations

from functools import partial

import pytest

from fe_twisted.base.errors import TooManyConnections
from fe_twisted.servers.connection import ConnectionLimit


class Told:
    def __init__(self) -> None:
        self.networks: list[str] = []

    def changed(self, network: str) -> None:
        self.networks.append(network)


def nothing() -> None:
    pass


def test_per_address_and_in_all() -> None:
    limit = ConnectionLimit(total=3, per_address=2)
    limit.acquire("192.0.2.1", nothing)
    limit.acquire("192.0.2.1", nothing)
    with pytest.raises(TooManyConnections):
        limit.acquire("192.0.2.1", nothing)
    limit.acquire("192.0.2.2", nothing)
    with pytest.raises(TooManyConnections):
        limit.acquire("192.0.2.3", nothing)
    limit.release("192.0.2.1", nothing)
    limit.acquire("192.0.2.3", nothing)
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        limit.release(address, nothing)
    assert not limit._live and limit._number == 0


def test_neighbours_in_a_network_count_together() -> None:
    limit = ConnectionLimit(total=10, per_address=1)
    limit.acquire("2001:db8::1", nothing)
    with pytest.raises(TooManyConnections):
        limit.acquire("2001:db8::2", nothing)
    limit.acquire("2001:db8:0:1::1", nothing)


def test_the_newest_is_sent_away_and_counts_no_more() -> None:
    told = Told()
    limit = ConnectionLimit(total=10, per_address=5, teller=told)
    gone: list[int] = []
    leaves = [partial(gone.append, number) for number in range(3)]
    for leave in leaves:
        limit.acquire("192.0.2.1", leave)
    assert limit.live("192.0.2.1") == 3 and limit.networks() == ["192.0.2.1"]
    limit.expel("192.0.2.1", 2)
    assert gone == [2, 1]
    assert limit.live("192.0.2.1") == 1
    # It is still connected, until it has gone; for this process's own limit it counts until then.
    assert limit._live["192.0.2.1"] == 3
    told.networks.clear()
    limit.release("192.0.2.1", leaves[2])
    assert told.networks == []
    limit.release("192.0.2.1", leaves[0])
    assert told.networks == ["192.0.2.1"]
    assert limit.networks() == [] and limit.live("192.0.2.1") == 0
    limit.expel("192.0.2.1", 5)
    limit.expel("192.0.2.9", 1)
    limit.release("192.0.2.1", leaves[1])
    assert not limit._live and gone == [2, 1]
