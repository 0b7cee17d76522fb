"""When a secondary is told what has changed: before any answer, together with it, and at the latest in the reactor's next turn."""

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


class Down(End):
    """What the primary writes to, write by write."""

    def __init__(self, cable: Cable) -> None:
        super().__init__(cable, False)
        #: Each write, as the frames in it.
        self.writes: list[list[Any]] = []

    def write(self, *messages: bytes) -> None:
        self.writes.append([decode(message) for message in messages])
        super().write(*messages)


class World:
    """A session, and the conversation at its other end."""

    def __init__(self) -> None:
        self.guest = Guest()
        self.ears = Ears()
        self.turns: list[Callable[[], None]] = []
        cable = Cable()
        cable.held = True
        self.down = Down(cable)
        later = self.turns.append
        cable.session = self.session = Session(self.down, self.guest, Identity("box"), [SECRET], b"", address="memory", later=later)
        up = End(cable, True)
        cable.conversation = self.conversation = Conversation(up, Clock(), self.ears, Identity("worker"), SECRET, b"", peer="memory")
        cable.held = False
        cable.move()
        self.down.writes.clear()

    def turn(self) -> None:
        turns, self.turns[:] = list(self.turns), []
        for turn in turns:
            turn()

    def kinds(self) -> list[list[type]]:
        return [[type(frame) for frame in write] for write in self.down.writes]

    def frames(self) -> list[type]:
        return [kind for write in self.kinds() for kind in write]


@pytest.fixture
def world() -> World:
    return World()


def test_news_without_an_answer_is_told_in_the_next_turn_and_of_each_folder_the_newest(world: World) -> None:
    for modseq in (3, 4, 5):
        world.guest.notify(MAILBOX, 1, modseq, None)
        world.guest.notify(MAILBOX, 2, modseq, ("$x",) if modseq == 4 else None)
    assert world.ears.heard == []
    assert len(world.turns) == 1
    world.turn()
    assert world.ears.heard == [(MAILBOX, 1, 5, ("$x",)), (MAILBOX, 2, 5, None)]
    assert len(world.down.writes) == 1
    world.guest.notify(MAILBOX, 1, 6, None)
    world.turn()
    assert world.ears.heard[2:] == [(MAILBOX, 1, 6, None)]


def test_an_answer_comes_after_its_news_and_in_one_write_with_it(world: World) -> None:
    answered = world.conversation.ask("do", MAILBOX, (b"",), timeout=10)
    assert world.kinds() == [[Notify, Data]]
    assert world.ears.heard == [(MAILBOX, 1, 7, None)]
    assert answered.result == b"answer"
    world.turn()
    assert len(world.down.writes) == 1, "told twice"


def test_an_error_comes_after_its_news_too(world: World) -> None:
    answered = world.conversation.ask("fail", MAILBOX, (b"",), timeout=10)
    assert world.kinds() == [[Notify, Error]]
    answered.addErrback(lambda failure: failure.trap(errors.OverQuota))


def test_an_answer_to_another_question_does_not_wait_for_news_but_comes_after_it(world: World) -> None:
    world.guest.notify(MAILBOX, 5, 2, None)
    world.conversation.ask("do", MAILBOX, (b"",), timeout=10)
    assert world.kinds() == [[Notify, Notify, Data]]
    assert world.ears.heard == [(MAILBOX, 5, 2, None), (MAILBOX, 1, 7, None)]


def test_each_item_of_a_stream_comes_after_the_news_before_it(world: World) -> None:
    world.conversation.stream("stream", MAILBOX, (b"",))
    assert world.frames() == [Notify, Data, Notify, Data]
    assert world.ears.heard == [(MAILBOX, 1, 8, ("$new",)), (MAILBOX, 2, 9, None)]


def test_while_the_channel_is_full_news_waits_and_then_goes_first(world: World) -> None:
    world.session.paused()
    world.guest.notify(MAILBOX, 3, 1, None)
    answered = world.conversation.ask("do", MAILBOX, (b"",), timeout=10)
    world.turn()
    assert Data not in world.frames()
    world.session.resumed()
    assert world.ears.heard == [(MAILBOX, 3, 1, None), (MAILBOX, 1, 7, None)]
    assert answered.result == b"answer"


def test_of_a_mailbox_that_is_taken_back_there_is_no_news(world: World) -> None:
    world.guest.notify(MAILBOX, 1, 3, ("$x",))
    world.guest.evict(MAILBOX, False)
    world.turn()
    assert world.ears.heard == [(MAILBOX, "evicted")]
    assert world.kinds() == [[Evict]]


def test_after_the_end_nothing_is_told(world: World) -> None:
    world.guest.notify(MAILBOX, 1, 3, None)
    world.session.lost()
    world.turn()
    assert world.down.writes == []
    assert world.guest.left


@given(st.lists(st.sampled_from(["news", "other news", "ask", "pause", "resume", "turn"]), max_size=30))
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
            {"pause": world.session.paused, "resume": world.session.resumed, "turn": world.turn}[step]()
    world.session.resumed()
    world.turn()
    heard()
    assert known == newest
    assert len(answers) == steps.count("ask") and not failures
