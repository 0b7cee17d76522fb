"""Logging in by SCRAM: the key that it opens, and what others are told."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from fe_twisted.base.errors import TooManyConnections, WrongPassword
from fe_twisted.protocols.sasl.scram import Answer, Exchange, client_first
from fe_twisted.services.accounts.admin import Accounts
from fe_twisted.services.login.authenticate import Login, ScramAttempt
from fe_twisted.services.login.throttle import LoginLimits
from fe_twisted.storage.directory.lookup import Lookups
from fe_twisted.storage.directory.sql import SqlDirectory, open_directory
from tests.services.login.test_authenticate import HELLO, PEER, NoFiles, finish


class World:
    def __init__(self, path: Path) -> None:
        self.directory: SqlDirectory = open_directory(path / "directory.sqlite", bytes(32))
        self.accounts = Accounts(self.directory, NoFiles())
        self.accounts.add_domain("example.com")
        self.accounts.add_alias(HELLO)
        self.password = self.accounts.new_password(HELLO).password
        self.clock = Clock()
        self.login = Login(Lookups(self.directory), self.clock, LoginLimits(per_network=3, first_delay=1), decoy_secret=bytes(32))

    def begin(self, user: str = HELLO) -> ScramAttempt:
        return finish(self.clock, self.login.scram(user, peer=PEER))

    def answer(self, attempt: ScramAttempt, password: str) -> Answer | None:
        first = client_first(b"n,,n=x,r=abc")
        exchange = Exchange(first, "def", attempt.salt, attempt.iterations)
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), attempt.salt, attempt.iterations)
        key = hmac.digest(salted, b"Client Key", "sha256")
        message = b"n=x,r=abc," + exchange.challenge() + b",c=biws,r=abcdef"
        signature = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True)))
        return exchange.answer(b"c=biws,r=abcdef,p=" + proof, b"")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_same_key_as_by_password(world: World) -> None:
    by_password = finish(world.clock, world.login.authenticate(HELLO, world.password, peer=PEER))
    attempt = world.begin()
    opened, signature = finish(world.clock, attempt.finish(world.answer(attempt, world.password)))
    assert opened.mailbox_key == by_password.mailbox_key
    assert signature.startswith(b"v=")


def test_wrong_passwords_cost_time_and_then_everything(world: World) -> None:
    for number in range(3):
        attempt = world.begin()
        began = world.clock.seconds()
        with pytest.raises(WrongPassword):
            finish(world.clock, attempt.finish(world.answer(attempt, "wrong")))
        assert world.clock.seconds() - began >= 2.0**number - 0.2
    with pytest.raises(TooManyConnections):
        world.begin()


def test_many_begun_at_once_are_not_many_guesses(world: World) -> None:
    """Attempts begun before the first failure are counted like those after it."""
    attempts = [world.begin() for _ in range(6)]
    refused = []
    for attempt in attempts:
        with pytest.raises((WrongPassword, TooManyConnections)) as caught:
            finish(world.clock, attempt.finish(world.answer(attempt, "wrong")))
        refused.append(caught.type)
    assert refused == [WrongPassword] * 3 + [TooManyConnections] * 3


def test_who_is_not_there_is_told_a_salt_that_stays(world: World) -> None:
    there, first, again, other = (world.begin(user) for user in (HELLO, "no@example.com", "NO@example.com", "not an address"))
    assert first.salt == again.salt
    assert len({there.salt, first.salt, other.salt}) == 3
    assert {len(attempt.salt) for attempt in (there, first, other)} == {16}
    assert {attempt.iterations for attempt in (there, first, other)} == {4096}
    restarted = Login(Lookups(world.directory), world.clock, LoginLimits(), decoy_secret=bytes(32))
    assert finish(world.clock, restarted.scram("no@example.com", peer=PEER)).salt == first.salt
    with pytest.raises(WrongPassword):
        finish(world.clock, first.finish(world.answer(first, world.password)))


def test_switched_off_looks_the_same_and_opens_nothing(world: World) -> None:
    before = world.begin().salt
    world.accounts.set_state(HELLO, "reject")
    attempt = world.begin()
    assert attempt.salt == before
    with pytest.raises(WrongPassword):
        finish(world.clock, attempt.finish(world.answer(attempt, world.password)))


def test_a_new_password_ends_the_old_one(world: World) -> None:
    old = world.password
    world.password = world.accounts.new_password(HELLO, current_password=old).password
    attempt = world.begin()
    with pytest.raises(WrongPassword):
        finish(world.clock, attempt.finish(world.answer(attempt, old)))
    attempt = world.begin()
    assert finish(world.clock, attempt.finish(world.answer(attempt, world.password)))


def test_no_answer_is_a_failure(world: World) -> None:
    with pytest.raises(WrongPassword):
        finish(world.clock, world.begin().finish(None))
