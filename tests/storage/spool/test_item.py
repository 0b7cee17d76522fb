"""The seal of a waiting message: opened only by its mailbox's key, for its mailbox, under its own id."""

from __future__ import annotations

import datetime

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.crypto.seal import SealingKey, seal
from fe_twisted.storage.spool.item import Unreadable, Waiting, unseal

KEY = SealingKey.generate()
MAILBOX = "0123456789abcdef01234567"
ID = bytes(range(16))
WHEN = datetime.datetime(2026, 2, 3, 4, 5, 6, 789, datetime.timezone(datetime.timedelta(hours=-7)))


@settings(max_examples=50)
@given(content=st.binary(), folder=st.text(), flags=st.frozensets(st.text(max_size=5), max_size=4), zone=st.integers(-1000, 1000))
def test_comes_back_as_it_was(content: bytes, folder: str, flags: frozenset[str], zone: int) -> None:
    when = WHEN.replace(tzinfo=datetime.timezone(datetime.timedelta(minutes=zone)))
    item = Waiting(ID, when, content, folder, flags)
    back = unseal(item.seal(KEY.public(), MAILBOX), KEY, MAILBOX, ID)
    assert back == item
    assert back.received_at.utcoffset() == when.utcoffset(), "the zone is kept"


def test_opens_for_nobody_else() -> None:
    sealed = Waiting(ID, WHEN, b"secret").seal(KEY.public(), MAILBOX)
    for key, mailbox, delivery in (
        (SealingKey.generate(), MAILBOX, ID),
        (KEY, MAILBOX[::-1], ID),
        (KEY, MAILBOX, bytes(16)),
    ):
        with pytest.raises(Unreadable):
            unseal(sealed, key, mailbox, delivery)
    for position in (0, 1, 1121, len(sealed) - 1):
        altered = bytearray(sealed)
        altered[position] ^= 1
        with pytest.raises(Unreadable):
            unseal(bytes(altered), KEY, MAILBOX, ID)
    with pytest.raises(Unreadable):
        unseal(b"", KEY, MAILBOX, ID)


@pytest.mark.parametrize(
    "inside",
    [
        b"",
        b"\xff\xff",
        cbor2.dumps([1, 2]),
        cbor2.dumps({"v": 2}),
        cbor2.dumps({"v": 1, "delivery_id": bytes(16), "received_at": WHEN.isoformat(), "folder": "INBOX", "flags": [], "content": b""}),
        cbor2.dumps({"v": 1, "delivery_id": ID, "received_at": "2026-02-03T04:05:06", "folder": "INBOX", "flags": [], "content": b""}),
        cbor2.dumps({"v": 1, "delivery_id": ID, "received_at": 5, "folder": "INBOX", "flags": [], "content": b""}),
        cbor2.dumps({"v": 1, "delivery_id": ID, "received_at": WHEN.isoformat(), "folder": "INBOX", "flags": None, "content": b""}),
    ],
)
def test_what_is_not_an_item_is_unreadable(inside: bytes) -> None:
    """Whoever has the public key can seal anything: it must be an error for this row, not a crash of the merge."""
    sealed = seal(KEY.public(), inside, b"spool " + MAILBOX.encode() + b" " + ID)
    with pytest.raises(Unreadable):
        unseal(sealed, KEY, MAILBOX, ID)
