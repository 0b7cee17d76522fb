"""When a secondary is told what has changed: at once, and before any answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from fe_twisted.base import errors
from fe_twisted.clients.link.conversation import Conversation
from fe_twisted.protocols.cluster.frames import Data, Error, Evict, Notify, decode
from fe_twisted.protocols.cluster.handshake import Identity
from fe_twisted.servers.cluster.session import Session
from tests.storage.mailbox.linked import SECRET, Cable, End

MAILBOX = "ab" * 12


class Guest:
    """A host and its guest in one: calls answer what the test says, and tell what it says before."""

    def __init__(self) -> None:
        self.notify: Callable[[str, int, int, tuple[str, ...] | None], None] = lambda *_: None
        self.evict: Callable[[str, bool], None] = lambda *_: None
        self.left = False

    def welcome(self, peer: str, notify: Any, evict: Any, unwrap: Any) -> Guest:
        self.notify, self.evict = notify, evict
        return self

    async def call(self, method: str, mailbox: str, key: bytes, body: bytes) -> Any:
        if method == "stream":
            return self._items()
        self.notify(mailbox, 1, 7, None)
        if method == "fail":
            raise errors.OverQuota
        return (b"answer",)

    async def _items(self) -> AsyncGenerator[Sequence[bytes], None]:
        yield (b"one",)
        self.notify(MAILBOX, 1, 8, ("$new",))
        yield (b"two",)
        self.notify(MAILBOX, 2, 9, None)

    def leave(self) -> None:
        self.left = True


class Ears:
    """Who hears the news."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def changed(self, *news: Any) -> None:
        self.heard.append(news)

    def evicted(self, mailbox: str) -> None:
        self.heard.append((mailbox, "evicted"))

    def moved(self, mailbox: str) -> None:
        self.heard.append((mailbox, "moved"))


class World:
    """A session, and the conversation at its other end."""

    def __init__(self) -> None:
        self.guest = Guest()
        self.ears = Ears()
        cable = Cable()
        cable.held = True
        cable.session = self.session = Session(End(cable, False), self.guest, Identity("box"), [SECRET], b"", address="memory")
        up = End(cable, True)
        cable.conversation = self.conversation = Conversation(up, Clock(), self.ears, Identity("worker"), SECRET, b"", peer="memory")
        cable.held = False
        cable.move()
        self._begun = len(cable.log)
        self._cable = cable

    def frames(self) -> list[type]:
        """What the primary has said since."""
        return [type(decode(message)) for up, message in self._cable.log[self._begun :] if not up]


@pytest.fixture
def world() -> World:
    return World()


def test_news_is_told_at_once(world: World) -> None:
    """Before anybody else is answered: who has his 250 finds the message wherever he looks next."""
    for modseq in (3, 4):
        world.guest.notify(MAILBOX, 1, modseq, ("$x",) if modseq == 4 else None)
        assert world.ears.heard[-1][:3] == (MAILBOX, 1, modseq)
    assert world.ears.heard[-1] == (MAILBOX, 1, 4, ("$x",))


def test_an_answer_comes_after_its_news(world: World) -> None:
    answered = world.conversation.ask("do", MAILBOX, (b"",), timeout=10)
    assert world.frames() == [Notify, Data]
    assert world.ears.heard == [(MAILBOX, 1, 7, None)]
    assert answered.result == b"answer"


def test_an_error_comes_after_its_news_too(world: World) -> None:
    answered = world.conversation.ask("fail", MAILBOX, (b"",), timeout=10)
    assert world.frames() == [Notify, Error]
    answered.addErrback(lambda failure: failure.trap(errors.OverQuota))


def test_each_item_of_a_stream_comes_after_the_news_before_it(world: World) -> None:
    world.conversation.stream("stream", MAILBOX, (b"",))
    assert world.frames() == [Notify, Data, Notify, Data]
    assert world.ears.heard == [(MAILBOX, 1, 8, ("$new",)), (MAILBOX, 2, 9, None)]


def test_while_the_channel_is_full_news_waits_and_then_goes_first(world: World) -> None:
    world.session.paused()
    world.guest.notify(MAILBOX, 3, 1, None)
    answered = world.conversation.ask("do", MAILBOX, (b"",), timeout=10)
    assert Data not in world.frames()
    world.session.resumed()
    assert world.ears.heard == [(MAILBOX, 3, 1, None), (MAILBOX, 1, 7, None)]
    assert answered.result == b"answer"


def test_while_the_channel_is_full_of_each_folder_the_newest_is_kept(world: World) -> None:
    world.session.paused()
    for modseq in (3, 4, 5):
        world.guest.notify(MAILBOX, 1, modseq, None)
        world.guest.notify(MAILBOX, 2, modseq, ("$x",) if modseq == 4 else None)
    assert world.ears.heard == []
    world.session.resumed()
    assert world.ears.heard == [(MAILBOX, 1, 5, ("$x",)), (MAILBOX, 2, 5, None)]


def test_of_a_mailbox_that_is_taken_back_there_is_no_news(world: World) -> None:
    world.session.paused()
    world.guest.notify(MAILBOX, 1, 3, ("$x",))
    world.guest.evict(MAILBOX, False)
    world.session.resumed()
    assert world.ears.heard == [(MAILBOX, "evicted")]
    assert world.frames() == [Evict]


def test_after_the_end_nothing_is_told(world: World) -> None:
    world.session.paused()
    world.guest.notify(MAILBOX, 1, 3, None)
    world.session.lost()
    world.session.resumed()
    assert world.frames() == []
    assert world.guest.left


@given(st.lists(st.sampled_from(["news", "other news", "ask", "pause", "resume"]), max_size=30))
@settings(max_examples=60, deadline=None)
def test_whenever_the_channel_is_full_news_comes_before_the_answer_it_belongs_to_and_none_is_lost(steps: list[str]) -> None:
    world = World()
    newest = {1: 0, 2: 0}
    known = dict(newest)

    def changed(folder: int) -> None:
        newest[folder] += 1
        world.guest.notify(MAILBOX, folder, newest[folder], None)

    async def call(*_: object) -> Any:
        changed(1)
        return (b"%d" % newest[1],)

    def heard() -> None:
        for _, folder, modseq, _words in world.ears.heard:
            assert modseq > known[folder], "older, or twice"
            known[folder] = modseq
        world.ears.heard.clear()

    def answered(answer: bytes) -> None:
        heard()
        assert known[1] >= int(answer)
        answers.append(answer)

    world.guest.call = call  # type: ignore[method-assign]
    answers: list[bytes] = []
    failures: list[object] = []
    for step in steps:
        if step == "ask":
            world.conversation.ask("do", MAILBOX, (b"",), timeout=10).addCallback(answered).addErrback(failures.append)
        elif step in ("news", "other news"):
            changed(1 if step == "news" else 2)
        else:
            (world.session.paused if step == "pause" else world.session.resumed)()
    world.session.resumed()
    heard()
    assert known == newest
    assert len(answers) == steps.count("ask") and not failures
