"""Items of any size under any credit come out as they went in, and nobody holds more than was allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fe_twisted.protocols.cluster.frames import PIECE, Data, Flags, decode
from fe_twisted.protocols.cluster.handshake import Reason, Refusal
from fe_twisted.protocols.cluster.streams import Piece, Receiving, Sending


def data_of(piece: Piece) -> Data:
    frame = decode(piece.frame)
    assert isinstance(frame, Data) and frame.flags == piece.flags
    return frame


def carry(items: list[list[bytes]], window: int, patience: int) -> list[bytes]:
    """Send items through; the consumer takes one after every ``patience`` pieces, and whenever nothing moves."""
    sending, receiving = Sending(1, window), Receiving(window)
    taken: list[bytes] = []
    idle = 0

    def take() -> None:
        data, credit = receiving.take()
        taken.append(data)
        sending.allow(credit)

    for number, item in enumerate(items):
        sending.push(item, Flags.ITEM | Flags.STREAM if number == len(items) - 1 else Flags.ITEM)
        while not sending.done:
            piece = sending.next()
            if piece is None:
                assert receiving.waiting, "no credit, and nothing to take: it would never go on"
                take()
                continue
            sending.allow(receiving.feed(data_of(piece)))
            idle += 1
            if receiving.waiting and idle % patience == 0:
                take()
    while receiving.waiting:
        take()
    assert receiving.ended
    return taken


items = st.lists(st.lists(st.binary(max_size=60), max_size=4), min_size=1, max_size=8)


@given(items, st.integers(1, 100), st.integers(1, 5))
def test_every_item_comes_out_as_it_went_in(sent: list[list[bytes]], window: int, patience: int) -> None:
    assert carry(sent, window, patience) == [b"".join(item) for item in sent]


def test_an_item_larger_than_the_window_and_the_piece_arrives() -> None:
    large = bytes(range(256)) * (3 * PIECE // 256) + b"end"
    assert carry([[large], [b"x"]], 1000, 1) == [large, b"x"]


def test_a_consumer_that_takes_nothing_stops_the_sender() -> None:
    sending, receiving = Sending(1, 100), Receiving(100)
    held = 0
    for _ in range(50):
        sending.push([bytes(30)], Flags.ITEM)
        while (piece := sending.next()) is not None:
            held += len(data_of(piece).data)
            sending.allow(receiving.feed(data_of(piece)))
        if not sending.done:
            break
    assert held == 100 and not sending.done


def test_more_than_was_allowed_is_refused() -> None:
    receiving = Receiving(100)
    receiving.feed(Data(1, Flags.ITEM, bytes(60)))
    with pytest.raises(Refusal) as caught:
        receiving.feed(Data(1, Flags.ITEM, bytes(60)))
    assert caught.value.reason == Reason.CREDIT_EXCEEDED


def test_an_endless_item_is_refused() -> None:
    receiving = Receiving(100, most=1000)
    with pytest.raises(Refusal) as caught:
        for _ in range(100):
            receiving.feed(Data(1, 0, bytes(50)))
    assert caught.value.reason == Reason.TOO_LARGE


def test_nothing_comes_after_the_end() -> None:
    receiving = Receiving(100)
    receiving.feed(Data(1, Flags.STREAM, b""))
    with pytest.raises(Refusal):
        receiving.feed(Data(1, Flags.ITEM, b"more"))
    with pytest.raises(Refusal):
        Receiving(100).feed(Data(1, Flags.STREAM, b"half an item"))
