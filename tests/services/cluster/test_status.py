"""How it goes: what is told comes back, and what is not well holds nobody up."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fe_twisted.base.errors import PrimaryAway, Refused
from fe_twisted.protocols.cluster.values import encode
from fe_twisted.services.cluster.desk import Only
from fe_twisted.services.cluster.host import Host
from fe_twisted.services.cluster.status import ASK, EVERY, LONGEST, PING, REPORT, Connected, Report, Reporter, State, StatusDesk, state_of
from fe_twisted.services.cluster.twins import Troubles
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes
from tests.storage.mailbox.driving import run
from tests.storage.mailbox.linked import Network, NoMail

NOW = 1_790_000_000
PRIMARY = Report("one.example.org", "primary", "0.1.0", "local", 10, NOW - 100, mailboxes=3, waiting=2, waiting_octets=8192)


def worker(number: int, **more: Any) -> Report:
    return Report(f"one.example.org/worker-{number}", "worker", "0.1.0", "local", 10 + number, NOW, **more)


def hosting(clock: Clock, folder: Path, *desks: Any) -> Host:
    async def opener(mailbox_id: str, key: bytes) -> LocalMailbox:
        raise AssertionError("nothing is opened here")

    return Host(OpenMailboxes(opener, clock), NoMail(), NoMail(), NoMail(), MailboxFiles(folder).exists, desks)


class World:
    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.desk = StatusDesk(self.own, self.clock)
        self.network = Network(hosting(self.clock, folder, self.desk), self.clock)

    async def own(self) -> Report:
        return PRIMARY

    def reporter(self, report: Report) -> Reporter:
        async def own() -> Report:
            return report

        made = Reporter(self.network.link(), own, self.clock)
        made.start()
        return made

    def state(self) -> State:
        return state_of(run(self.network.link().ask(ASK, "", [])))


def two_primaries(world: World, *, answers: str, location: str, expected: str) -> tuple[World, Troubles]:
    """One that is linked to another; what the other and it have to say of it.

    :param answers, location: of the one that is called, and of the one that calls.
    :param expected: what the link should lead to.
    """
    troubles = Troubles()
    world.desk._location = answers
    report = Report("two.example.org", "primary", "0.1.0", location, 20, NOW)

    async def own() -> Report:
        return report

    Reporter(world.network.link(), own, world.clock, location=expected, troubles=troubles).start()
    world.clock.advance(0)
    return world, troubles


def test_two_primaries_of_one_location_both_say_so(world: World) -> None:
    world, troubles = two_primaries(world, answers="local", location="local", expected="three")
    cable = world.network.cable  # asking makes another
    remedy = "; give one of them another location"
    assert world.state().problems == (
        f"two.example.org (memory) is a primary of the location local, and so is this one, one.example.org{remedy}",
    )
    assert troubles.all() == (f"the link to primary leads to a primary of the location local, and so is this one, two.example.org{remedy}",)
    world.network.down = True
    cable.break_()
    world.network.down = False
    assert world.state().problems == (), "it is gone, perhaps to be started with another location"


def test_a_link_to_the_wrong_primary_is_told(world: World) -> None:
    world, troubles = two_primaries(world, answers="local", location="two", expected="three")
    assert world.state().problems == ()
    assert troubles.all() == ("the link to primary leads to a primary of the location local; correct primaries",)
    world.desk._location = "three"
    world.clock.advance(EVERY)
    assert troubles.all() == ()


@pytest.mark.parametrize(("answers", "location"), [("local", "two"), ("", "two"), ("local", "")])
def test_primaries_with_locations_of_their_own_say_nothing(world: World, answers: str, location: str) -> None:
    """Nor does one that is called by a process without a location, or that answers pings as the version before it."""
    world, troubles = two_primaries(world, answers=answers, location=location, expected="local")
    assert world.state().problems == troubles.all() == ()


def test_a_worker_has_the_location_of_its_primary(world: World) -> None:
    world.desk._location = "local"
    world.reporter(worker(1))
    assert len(world.state().peers) == 1
    assert world.state().problems == ()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "mailboxes")
    yield made


def test_peers_are_shown_with_what_they_told_last(world: World) -> None:
    world.reporter(worker(2, imap=5, mx=1, links=(Connected("local", True, 300),)))
    world.reporter(dataclasses.replace(worker(1), name="two.example.org", role="secondary"))
    world.clock.advance(3)
    state = world.state()
    assert state.own == PRIMARY and state.now == NOW + 3
    assert [(peer.report.name, peer.report.imap, peer.address, peer.since, peer.told) for peer in state.peers] == [
        ("one.example.org/worker-2", 5, "memory", NOW, NOW),
        ("two.example.org", 0, "memory", NOW, NOW),
    ]
    assert state.peers[0].report.links == (Connected("local", True, 300),)


def test_who_only_asks_is_no_peer(world: World) -> None:
    world.state()
    assert world.state().peers == ()


def test_the_round_trip_is_measured(world: World) -> None:
    def slow(up: bool, message: bytes) -> bool:
        world.clock.rightNow += 0.004 if up else 0
        return False

    reporter = world.reporter(worker(1))
    world.network.fault = slow
    world.clock.advance(EVERY)
    world.network.fault = lambda up, message: False
    assert reporter.round_trip is not None and 3_900 <= reporter.round_trip <= 4_100
    assert world.state().peers[0].report.round_trip == reporter.round_trip
    assert reporter.seen() == Connected("primary", True, reporter.round_trip)


def test_it_is_told_again_and_again_until_the_end(world: World) -> None:
    reporter = world.reporter(worker(1))
    for _ in range(3):
        world.clock.advance(EVERY)
    assert world.state().peers[0].told == NOW + 3 * EVERY
    reporter.stop()
    world.clock.advance(3 * EVERY)
    assert world.state().peers[0].told == NOW + 3 * EVERY


def test_one_that_is_gone_is_shown_no_more_and_one_that_comes_back_is(world: World) -> None:
    world.reporter(worker(1))
    cable = world.network.cable
    world.network.down = True
    cable.break_()
    world.network.down = False
    assert world.state().peers == ()
    world.clock.advance(1)
    assert [peer.since for peer in world.state().peers] == [NOW + 1]


def test_a_silent_one_holds_nobody_up(world: World) -> None:
    world.reporter(worker(1))
    world.network.cable.held = True  # its process was stopped
    world.clock.advance(EVERY * 3)
    state = world.state()
    assert state.now - state.peers[0].told == EVERY * 3


def test_texts_of_peers_are_bounded(world: World) -> None:
    link = Connected("x" * 100_000, True)
    world.reporter(dataclasses.replace(worker(1), name="x" * 100_000, links=(link,) * 1000))
    report = world.state().peers[0].report
    assert len(report.name) == len(report.links[0].name) == LONGEST and len(report.links) == 64


def test_garbage_is_refused_by_name(world: World) -> None:
    with pytest.raises(Refused, match="arguments not understood"):
        run(world.network.link().ask(REPORT, "", [b"rubbish"]))


def test_other_boxes_cannot_ask(tmp_path: Path) -> None:
    """They tell, and are told nothing of others."""
    world = World(tmp_path / "mailboxes")
    world.network.host = hosting(world.clock, tmp_path / "mailboxes", Only(world.desk, PING, REPORT))
    world.reporter(worker(1))
    with pytest.raises(Refused, match="no such method"):
        world.state()
    assert len(world.desk._peers) == 1
    world.network.cables[0].break_()
    assert len(world.desk._peers) == 0


def test_an_older_primary_that_does_not_know_the_question(tmp_path: Path) -> None:
    world = World(tmp_path / "mailboxes")
    world.network.host = hosting(world.clock, tmp_path / "mailboxes")
    reporter = world.reporter(worker(1))
    world.clock.advance(EVERY * 2)
    assert reporter.round_trip is None and reporter.seen().connected


def test_nobody_there() -> None:
    clock = Clock()
    network = Network(None, clock)  # type: ignore[arg-type]
    network.down = True
    outcome: list[Any] = []
    Deferred.fromCoroutine(network.link().ask(PING, "", encode_nothing(), patience=0.0)).addBoth(outcome.append)
    clock.advance(0)
    assert outcome[0].check(PrimaryAway)


def encode_nothing() -> Any:
    from fe_twisted.services.cluster.status import _NOTHING

    return encode(_NOTHING, None)
