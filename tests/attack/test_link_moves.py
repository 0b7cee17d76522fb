"""A secondary that has the link secret, and tries what primaries do when a mailbox moves between them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fe_twisted.base import errors
from fe_twisted.protocols.cluster.values import decode, encode
from fe_twisted.services.cluster import arrive
from fe_twisted.services.cluster.host import Host
from fe_twisted.services.cluster.move import MOVE, MOVING, Move
from tests.services.cluster.primaries import World
from tests.services.cluster.test_move import fill, move
from tests.storage.mailbox.driving import ID, KEY

OTHER = "f" * 24


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.stop()


def ask(world: World, method: str, body: Any, peer: str = "secondary", primary: str = "two") -> bytes:
    answer: bytes = world.drive(world.links[peer, primary].ask(method, "", body))
    return answer


def begin(world: World, mailbox_id: str = ID, octets: int = 10, peer: str = "secondary", primary: str = "two") -> bytes:
    body = encode(arrive.BEGIN, arrive.Begin(mailbox_id, octets))
    token: bytes = decode(arrive.OCTETS, ask(world, "arrive", body, peer, primary))
    return token


def block(world: World, token: bytes, octets: bytes, peer: str = "secondary") -> None:
    whole = arrive.Block(ID, token, 0, 0, octets, hashlib.sha256(octets).digest())
    ask(world, "arrive_block", encode(arrive.BLOCK, whole), peer)


def end(world: World, token: bytes, octets: bytes, peer: str = "secondary") -> None:
    digest = hashlib.sha256(b"%d 0 " % len(octets) + hashlib.sha256(octets).digest()).digest()
    ask(world, "arrive_end", encode(arrive.END, arrive.End(ID, token, len(octets), 0, digest)), peer)


@pytest.mark.parametrize(
    "mailbox", ["../" + ID[3:], "/etc/passwd", ID + ".sqlite", ID.upper(), ID[:-1], ID + "\0", "", "..", ID[:-1] + "\n"]
)
def test_ids_like_paths_are_refused(world: World, mailbox: str) -> None:
    before = world.two.names
    with pytest.raises(errors.Refused):
        begin(world, mailbox)
    for method, body in (
        ("arrive_block", encode(arrive.BLOCK, arrive.Block(mailbox, b"", 0, 0, b"x", b""))),
        ("arrive_end", encode(arrive.END, arrive.End(mailbox, b"", 0, 0, b""))),
        ("arrive_stop", encode(arrive.NAMED, arrive.Named(mailbox, b""))),
        ("holds", encode(arrive.NAMED, arrive.Named(mailbox, b""))),
        ("arrive", [b"garbage"]),
    ):
        with pytest.raises(errors.Refused):
            ask(world, method, body)
    assert world.two.names == before


def test_a_mailbox_that_is_there_or_that_nobody_has_is_not_brought(world: World) -> None:
    contents = fill(world)
    for mailbox_id in (ID, OTHER):
        with pytest.raises(errors.Refused):
            begin(world, mailbox_id, primary="one")
    with pytest.raises(errors.Refused):
        begin(world, OTHER)
    assert world.one.messages() == contents and world.two.names == []


def test_what_it_brings_is_no_mailbox_until_the_directory_says_so(world: World) -> None:
    """A forged file gets the name, is never opened, and the true one takes its place."""
    contents = fill(world)
    token, forged = begin(world), os.urandom(50_000)
    block(world, token, forged)
    end(world, token, forged)
    assert world.two.files.path(ID).read_bytes() == forged
    with pytest.raises(errors.Moved):
        world.drive(world.two.mailboxes.open(ID, KEY))
    assert not decode(arrive.BOOL, ask(world, "holds", encode(arrive.NAMED, arrive.Named(ID, b""))))
    for cable in world.two.network.cables:
        cable.break_()
    world.pass_(20)
    assert move(world).tidy and world.two.messages() == contents


def test_it_does_not_interfere_with_a_move_that_is_going_on(world: World) -> None:
    contents = fill(world)
    token = begin(world, peer="one")
    with pytest.raises(errors.Busy):
        begin(world)
    for bad in (token, bytes(16), b""):
        with pytest.raises(errors.Refused):
            block(world, bad, b"x")
        with pytest.raises(errors.Refused):
            end(world, bad, b"x")
        with pytest.raises(errors.Refused):
            ask(world, "arrive_stop", encode(arrive.NAMED, arrive.Named(ID, bad)))
    ask(world, "arrive_stop", encode(arrive.NAMED, arrive.Named(ID, token)), "one")
    assert move(world).tidy and world.two.messages() == contents


def test_what_it_leaves_half_done_goes_with_it_or_after_a_while(world: World) -> None:
    token = begin(world)
    block(world, token, b"x" * 1000)
    assert len(world.two.names) == 2
    world.links["secondary", "two"]._conversation.close()  # type: ignore[union-attr]
    assert world.two.names == []
    world.pass_(1)
    begin(world)
    world.clock.advance(arrive.SILENCE - 1)
    assert len(world.two.names) == 2
    world.clock.advance(2)
    assert world.two.names == []
    with pytest.raises(errors.Refused):
        block(world, token, b"x")


def test_it_fills_the_disk_only_so_far(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.DiskFull):
        begin(world, octets=2**62)
    monkeypatch.setattr(arrive, "MOST", 0)
    with pytest.raises(errors.Busy):
        begin(world)
    assert world.two.names == []


def test_moving_is_for_the_command_line(world: World) -> None:
    """The host that answers other boxes has no desk for it."""
    fill(world)
    one = world.one
    one.network.host = Host(
        one.mailboxes, one.host.deliver, world.directory, one.spool, one.files.exists, [one.arrivals], home=one.home, gate=one.gate
    )
    world.connect()
    with pytest.raises(errors.Refused):
        ask(world, MOVING, encode(MOVE, Move(ID, "two")), primary="one")
    assert world.two.names == []
