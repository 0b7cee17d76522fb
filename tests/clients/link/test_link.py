"""A link that stays connected: how fast it comes back, how long it is waited for, and how often a question is asked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from fe_twisted.base import errors, patience
from fe_twisted.clients.link.conversation import Conversation, LinkLost, Listener, error_of, name_of
from fe_twisted.clients.link.link import ATTEMPT, MOST, REPEATS, Link
from fe_twisted.protocols.cluster.connection import Answering, Called
from fe_twisted.protocols.cluster.handshake import Handshake, Identity

SECRET = b"s" * 32
BOX = "0123456789abcdef01234567"


class Primary:
    """The other end: hears questions, and answers them when told."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.attempts: list[float] = []
        self.refuse = False
        self.silent = False
        self.asked: list[Called] = []
        self.live: list[tuple[Conversation, Answering]] = []

    def connect(self, listener: Listener) -> Deferred[Conversation]:
        self.attempts.append(self.clock.seconds())
        ready: Deferred[Conversation] = Deferred()
        if self.silent:
            return ready
        if self.refuse:
            ready.errback(ConnectionRefusedError())
            return ready
        up: list[bytes] = []
        down: list[bytes] = []
        primary = self

        class Ends:
            def write(self, message: bytes) -> None:
                up.append(message)

            def close(self) -> None:
                pass

        answering = Answering(Handshake(Identity("box"), [SECRET], b"", calling=False), down.append)
        conversation = Conversation(Ends(), self.clock, listener, Identity("worker"), SECRET, b"", peer="memory")
        conversation.ready.addCallbacks(lambda _: ready.callback(conversation), ready.errback)

        def move() -> None:
            while up or down:
                if up:
                    primary.asked += [event for event in answering.receive(up.pop(0)) if isinstance(event, Called)]
                if down:
                    conversation.received(down.pop(0))

        self.move = move
        self.live.append((conversation, answering))
        move()
        return ready

    def answer(self, text: bytes) -> None:
        self.move()
        self.live[-1][1].answer(self.asked[-1].id, [text], last=True)
        while self.live[-1][1].pump(self.asked[-1].id):
            pass
        self.move()

    def hang_up(self) -> None:
        self.live[-1][0].lost()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def primary(clock: Clock) -> Primary:
    return Primary(clock)


def pass_(clock: Clock, seconds: float) -> None:
    for _ in range(round(seconds * 20)):
        clock.advance(0.05)


def ask(link: Link, **options: Any) -> list[Any]:
    results: list[Any] = []
    Deferred.fromCoroutine(link.ask("status", BOX, [b"question"], **options)).addBoth(
        lambda result: results.append(result.value if isinstance(result, Failure) else result)
    )
    return results


def link_to(primary: Primary, **options: Any) -> Link:
    link = Link(primary.connect, primary.clock, scatter=lambda: 0.5, **options)
    link.start()
    return link


def gaps(times: Sequence[float]) -> list[float]:
    return [round(later - sooner, 2) for sooner, later in pairwise(times)]


def test_attempts_come_ever_more_slowly_and_scattered(primary: Primary, clock: Clock) -> None:
    primary.refuse = True
    link = link_to(primary)
    pass_(clock, 60)
    assert gaps(primary.attempts)[:5] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6], abs=0.06)
    assert max(gaps(primary.attempts)) <= MOST + 0.1
    others = Primary(clock)
    others.refuse = True
    for scatter in (0.0, 0.999):
        Link(others.connect, clock, scatter=lambda scatter=scatter: scatter).start()  # type: ignore[misc]
    pass_(clock, 0.12)
    assert len(others.attempts) == 3, "one of the two waits half, the other one and a half times as long"
    link.stop()


def test_after_a_success_it_begins_anew(primary: Primary, clock: Clock) -> None:
    primary.refuse = True
    link = link_to(primary)
    pass_(clock, 20)
    primary.refuse = False
    pass_(clock, 11)
    assert link.connected
    primary.attempts.clear()
    primary.hang_up()
    assert not link.connected
    pass_(clock, 0.15)
    assert link.connected and len(primary.attempts) == 1
    link.stop()


def test_an_attempt_that_hangs_is_given_up(primary: Primary, clock: Clock) -> None:
    primary.silent = True
    link = link_to(primary)
    pass_(clock, ATTEMPT + 0.3)
    assert len(primary.attempts) == 2
    link.stop()
    assert not clock.getDelayedCalls()


def test_a_question_is_asked_again_with_the_same_key(primary: Primary, clock: Clock) -> None:
    link = link_to(primary)
    results = ask(link, key=b"k" * 16)
    primary.move()
    primary.hang_up()
    pass_(clock, 0.3)
    primary.answer(b"answer")
    assert results == [b"answer"]
    assert [(called.key, called.body) for called in primary.asked] == [(b"k" * 16, b"question")] * 2
    link.stop()
    assert not clock.getDelayedCalls()


def test_a_question_that_ends_every_connection_is_given_up(primary: Primary, clock: Clock) -> None:
    """One that crashes the primary must not crash it for ever."""
    link = link_to(primary)
    results = ask(link)
    for _ in range(20):
        primary.move()
        if results:
            break
        primary.hang_up()
        pass_(clock, 1)
    assert isinstance(results[0], errors.PrimaryAway)
    assert len(primary.asked) == 1 + REPEATS
    link.stop()


def test_an_answer_that_does_not_come_is_cancelled(primary: Primary, clock: Clock) -> None:
    link = link_to(primary, timeout=5.0)
    results = ask(link)
    primary.move()
    pass_(clock, 5.1)
    assert isinstance(results[0], errors.PrimaryAway)
    primary.move()
    assert not primary.live[-1][1]._calls
    primary.answer(b"too late")
    assert len(results) == 1
    link.stop()
    assert not clock.getDelayedCalls()


def test_without_a_connection_a_question_waits_as_long_as_its_patience(primary: Primary, clock: Clock) -> None:
    primary.refuse = True
    link = link_to(primary, patience=10.0)
    patient, hasty = ask(link), ask(link, patience=1.0)
    pass_(clock, 1.1)
    assert isinstance(hasty[0], errors.PrimaryAway) and not patient
    primary.refuse = False
    pass_(clock, 5)
    primary.answer(b"answer")
    assert patient == [b"answer"]
    link.stop()


def test_one_answer_waits_once_however_often_it_has_to_ask(primary: Primary, clock: Clock) -> None:
    """Found with a session that had news: a NOOP was answered after three times the patience."""
    primary.refuse = True
    link = link_to(primary, patience=10.0)
    given_up: list[float] = []

    async def command() -> bytes:
        patience.begin()
        while True:
            try:
                return await link.ask("status", BOX, [b"question"])
            except errors.PrimaryAway:
                given_up.append(clock.seconds())

    answer: list[Any] = []
    Deferred.fromCoroutine(command()).addBoth(answer.append)
    pass_(clock, 11.2)
    assert [round(each, 1) for each in given_up] == [10.0, 10.5, 11.0], "but never without a pause"
    primary.refuse = False
    pass_(clock, 10)
    primary.answer(b"answer")
    assert answer == [b"answer"]
    primary.refuse = True
    other = ask(link)
    primary.hang_up()
    pass_(clock, 9.5)
    assert not other, "another answer has all its time"
    link.stop()
    assert not clock.getDelayedCalls()


def test_after_a_connection_the_patience_begins_anew(primary: Primary, clock: Clock) -> None:
    """What goes on for long may lose its connection more than once."""
    primary.refuse = True
    link = link_to(primary, patience=10.0)
    answer: list[Any] = []

    async def command() -> bytes:
        patience.begin()
        with pytest.raises(errors.PrimaryAway):
            await link.ask("status", BOX, [b"question"])
        primary.refuse = False
        await link.conversation(30.0)
        primary.refuse = True
        primary.hang_up()
        return await link.ask("status", BOX, [b"question"])

    Deferred.fromCoroutine(command()).addBoth(answer.append)
    pass_(clock, 10 + 9.5)
    assert not answer
    pass_(clock, 10)
    assert isinstance(answer[0].value, errors.PrimaryAway)
    link.stop()


def test_stopping_ends_everything(primary: Primary, clock: Clock) -> None:
    primary.refuse = True
    link = link_to(primary)
    waiting = ask(link)
    link.stop()
    assert isinstance(waiting[0], errors.PrimaryAway)
    assert isinstance(ask(link)[0], errors.PrimaryAway), "nor is anything asked later"
    primary.refuse = False
    other = link_to(primary)
    asked = ask(other)
    other.stop()
    assert isinstance(asked[0], errors.PrimaryAway)
    assert not clock.getDelayedCalls()


def test_greeters_and_the_attached_hear_of_each_connection(primary: Primary, clock: Clock) -> None:
    heard: list[Any] = []

    class Attached:
        def connected(self, conversation: Conversation) -> None:
            heard.append("connected")

        def changed(self, folder: int, modseq: int, keywords: tuple[str, ...] | None) -> None:
            heard.append((folder, modseq, keywords))

        def evicted(self) -> None:
            heard.append("evicted")

        def moved(self) -> None:
            heard.append("moved")

    link = Link(primary.connect, clock, scatter=lambda: 0.5)
    stop = link.attach(BOX, Attached())
    link.when_connected(lambda: heard.append("greeted"))
    link.start()
    answering = primary.live[-1][1]
    answering.notify(BOX, 1, 2, None)
    answering.notify("f" * 24, 1, 2, None)
    answering.evict(BOX)
    answering.evict(BOX, True)
    primary.move()
    assert heard == ["connected", "greeted", (1, 2, None), "evicted", "moved"]
    stop()
    answering.notify(BOX, 1, 3, None)
    primary.move()
    assert len(heard) == 5
    link.stop()


def test_a_stream_ends_with_the_connection(primary: Primary, clock: Clock) -> None:
    link = link_to(primary)
    conversation = primary.live[-1][0]
    answer = conversation.stream("fetch", BOX, [b""])
    results: list[Any] = []
    Deferred.fromCoroutine(answer.__anext__()).addBoth(results.append)
    primary.hang_up()
    assert results[0].check(LinkLost)
    with pytest.raises(LinkLost):
        conversation.stream("fetch", BOX, [b""])
    link.stop()


def test_every_error_keeps_its_class_and_its_public_text() -> None:
    known = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.MailError)}
    for kind in known:
        error = error_of(name_of(kind("public", reason="private")), "public")
        assert type(error) is kind and error.public == "public" and "private" not in error.reason


def test_an_error_that_only_the_other_side_knows_becomes_its_nearest_relative() -> None:
    class Special(errors.OverQuota):
        pass

    assert name_of(Special()) == "OverQuota"
    assert type(error_of("FromTheFuture", "text")) is errors.Later, "to try again is never wrong"
