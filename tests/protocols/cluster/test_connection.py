"""Both ends of a link against each other, and each against garbage."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.cluster import connection
from fe_twisted.protocols.cluster.connection import Answering, Called, Calling, Cancelled, Connection, Event, Failed, Item, Refusal, Room
from fe_twisted.protocols.cluster.frames import PIECE, Cancel, Credit, Data, Error, Evict, Hello, Notify, Proof, Refuse, Request, encode
from fe_twisted.protocols.cluster.handshake import Handshake, Identity, Reason

SECRET = b"s" * 32
BOX = "0123456789abcdef01234567"


class Pair:
    """Two ends; messages lie in queues until :meth:`run` moves them."""

    def __init__(self, **options: Any) -> None:
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.heard: list[Event] = []
        self.told: list[Event] = []
        self.calling = Calling(Handshake(Identity("worker"), [SECRET], b"", calling=True), self.up.append)
        self.answering = Answering(Handshake(Identity("box"), [SECRET], b"", calling=False), self.down.append, **options)
        self.run()
        assert self.calling.agreed and self.answering.agreed
        self.heard.clear()
        self.told.clear()

    def run(self) -> None:
        while self.up or self.down:
            if self.up:
                for event in self.answering.receive(self.up.popleft()):
                    self.heard.append(event)
            if self.down:
                for event in self.calling.receive(self.down.popleft()):
                    self.told.append(event)
                    if isinstance(event, Room):
                        while self.calling.pump(event.id):
                            pass

    def answer(self, call: int, items: list[bytes]) -> None:
        for number, item in enumerate(items):
            self.answering.answer(call, [item], last=number == len(items) - 1)
            while (sent := self.answering.pump(call)) is not None:
                if not sent:
                    self.run()

    def take(self, call: int) -> list[bytes]:
        taken = []
        ended = False
        while not ended:
            data, ended = self.calling.take(call)
            if data is not None:
                taken.append(data)
            self.run()
        return taken


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 3])
def test_a_call_and_its_answer_of_any_size(size: int) -> None:
    pair = Pair()
    body = bytes(size)
    call = pair.calling.request("append", BOX, bytes(16), [body[:10], body[10:]])
    pair.run()
    assert pair.heard == [Called(call, "append", BOX, bytes(16), body)]
    pair.answer(call, [body])
    pair.run()
    assert pair.take(call) == [body]
    assert len(pair.calling) == 0 and not pair.answering._calls and not pair.answering._uploading


def test_calls_overtake_each_other() -> None:
    pair = Pair()
    first, second = (pair.calling.request("status", BOX, b"", [b"x"]) for _ in range(2))
    pair.run()
    pair.answer(second, [b"two"])
    pair.answering.fail(first, "NoSuchFolder", "not there")
    pair.run()
    assert pair.told == [Item(second), Failed(first, "NoSuchFolder", "not there")]
    assert pair.take(second) == [b"two"]


def test_a_cancelled_call_is_over_on_both_sides() -> None:
    pair = Pair()
    call = pair.calling.request("fetch", BOX, b"", [b""], window=10)
    pair.run()
    pair.answering.answer(call, [bytes(100)], last=False)
    assert pair.answering.pump(call) is True and pair.answering.pump(call) is False
    pair.calling.cancel(call)
    pair.run()
    assert pair.heard[-1] == Cancelled(call)
    assert pair.answering.pump(call) is None and not pair.answering._calls
    pair.answering.answer(call, [b"late"], last=True)
    pair.answering.fail(call, "Later", "late")
    pair.run()
    assert pair.told == [], "what was under way when the call was cancelled is passed over"


def test_a_cancelled_upload_makes_room_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "UPLOADS", 2 * PIECE)
    pair = Pair()
    calls = [pair.calling.request("append", BOX, b"", [bytes(2 * PIECE)]) for _ in range(3)]
    while pair.up:
        pair.answering.receive(pair.up.popleft())
    assert len(pair.down) == 1, "only the first is let in"
    pair.calling.cancel(calls[0])
    pair.calling.cancel(calls[1])
    pair.run()
    assert [event for event in pair.heard if isinstance(event, Called)] == [Called(calls[2], "append", BOX, b"", bytes(2 * PIECE))]
    assert not pair.answering._uploading


def test_notifications_and_evictions_are_told() -> None:
    pair = Pair()
    pair.answering.notify(BOX, 7, 8, ("Work",))
    pair.answering.evict(BOX)
    pair.answering.evict(BOX, True)
    pair.run()
    assert pair.told == [Notify(BOX, 7, 8, ("Work",)), Evict(BOX), Evict(BOX, True)]


def test_a_version_that_knows_neither_is_told_why() -> None:
    said: list[bytes] = []
    answering = Answering(Handshake(Identity("box"), [SECRET], b"", calling=False), said.append)
    hello = Hello(5, 6, "secondary", "worker", (), bytes(32))
    with pytest.raises(Refusal) as caught:
        answering.receive(encode(hello))
    answering.refuse(caught.value)
    calling = Calling(Handshake(Identity("worker", 5, 6), [SECRET], b"", calling=True), [].append)
    with pytest.raises(Refusal) as told:
        calling.receive(said[0])
    assert told.value.told and told.value.reason == Reason.WRONG_VERSION
    assert answering.receive(b"anything") == [] and calling.receive(b"anything") == []


SERVED = [
    (encode(Proof(bytes(32))), Reason.UNEXPECTED),
    (encode(Notify(BOX, 1, 1, None)), Reason.UNEXPECTED),
    (encode(Evict(BOX)), Reason.UNEXPECTED),
    (encode(Error(1, "Later", "x")), Reason.UNEXPECTED),
    (encode(Data(99, 0, b"x")), Reason.UNEXPECTED),
    (encode(Credit(99, 1)), Reason.UNEXPECTED),
    (encode(Cancel(99)), Reason.UNEXPECTED),
    (encode(Request(1, "status", BOX, b"", 0, 0, b"")), Reason.REPLAYED),
    (encode(Data(1, 0, b"x")), Reason.UNEXPECTED),
    (encode(Data(2, 0, b"x")), Reason.CREDIT_EXCEEDED),
    (b"garbage", Reason.BAD_FRAME),
    (bytes(connection.MAX_MESSAGE + 1), Reason.TOO_LARGE),
]


@pytest.mark.parametrize(("message", "reason"), SERVED)
def test_the_primary_refuses_by_name(message: bytes, reason: Reason) -> None:
    pair = Pair()
    pair.calling.request("status", BOX, b"", [b"x"])
    pair.run()
    pair.answering._uploading = 2**40  # so that the next upload has to wait, without credit
    pair.calling.request("append", BOX, b"", [bytes(2 * PIECE)])
    pair.run()
    with pytest.raises(Refusal) as caught:
        pair.answering.receive(message)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (encode(Request(1, "status", BOX, b"", 0, 0, b"")), Reason.UNEXPECTED),
        (encode(Cancel(1)), Reason.UNEXPECTED),
        (encode(Data(99, 0, b"x")), Reason.UNEXPECTED),
        (encode(Error(99, "Later", "x")), Reason.UNEXPECTED),
        (encode(Data(1, 0, bytes(11))), Reason.CREDIT_EXCEEDED),
        (b"\xff", Reason.BAD_FRAME),
    ],
)
def test_the_secondary_refuses_by_name(message: bytes, reason: Reason) -> None:
    pair = Pair()
    pair.calling.request("status", BOX, b"", [b"x"], window=10)
    with pytest.raises(Refusal) as caught:
        pair.calling.receive(message)
    assert caught.value.reason == reason


def test_too_many_calls_are_refused() -> None:
    pair = Pair(calls=10)
    with pytest.raises(Refusal) as caught:
        for _ in range(11):
            pair.calling.request("status", BOX, b"", [b"x"])
            pair.run()
    assert caught.value.reason == Reason.TOO_MANY_CALLS


def test_before_the_proof_nothing_is_answered_and_messages_are_small() -> None:
    said: list[bytes] = []
    for message, reason in (
        (encode(Request(1, "status", BOX, b"", 0, 0, b"")), Reason.UNEXPECTED),
        (encode(Proof(bytes(32))), Reason.UNEXPECTED),
        (bytes(5000), Reason.TOO_LARGE),
    ):
        answering = Answering(Handshake(Identity("box"), [SECRET], b"", calling=False), said.append)
        with pytest.raises(Refusal) as caught:
            answering.receive(message)
        assert caught.value.reason == reason
    assert said == []


messages = st.one_of(
    st.binary(max_size=60),
    st.builds(lambda number, size: encode(Data(number, 0, bytes(size))), st.integers(1, 4), st.integers(0, 50)),
    st.builds(lambda number, flags: encode(Data(number, flags, b"x")), st.integers(1, 4), st.integers(0, 3)),
    st.builds(
        lambda number, size: encode(Request(number, "append", BOX, b"", 10, size, b"" if size > 5 else bytes(size))),
        st.integers(1, 9),
        st.integers(0, 9),
    ),
    st.builds(lambda number: encode(Credit(number, 5)), st.integers(1, 4)),
    st.builds(lambda number: encode(Cancel(number)), st.integers(1, 4)),
    st.builds(lambda number: encode(Error(number, "Later", "")), st.integers(1, 4)),
    st.just(encode(Notify(BOX, 1, 2, None))),
    st.just(encode(Refuse("bad-frame", "no"))),
    st.just(encode(Hello(1, 1, "primary", "box", (), bytes(32)))),
)


@given(st.lists(messages, max_size=20), st.booleans())
@settings(max_examples=200, deadline=None)
def test_no_messages_raise_anything_but_a_refusal(sent: list[bytes], up: bool) -> None:
    pair = Pair()
    end: Connection = pair.answering if up else pair.calling
    if not up:
        for _ in range(3):
            pair.calling.request("fetch", BOX, b"", [b""], window=40)
    try:
        for message in sent:
            for event in end.receive(message):
                if isinstance(event, Item) and event.id in pair.calling._calls:
                    pair.calling.take(event.id)
    except Refusal as refusal:
        end.refuse(refusal)
        assert end.receive(b"more") == []
