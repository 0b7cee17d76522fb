"""Key slots: the right password opens, nothing else does."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.crypto import slots

KEY = bytes(range(32))
BOX = "0123456789abcdef01234567"
QUICK = "argon2id:t=1,m=64,p=1"


def opened(wrapped: slots.Wrapped, password: str, *, mailbox_id: str = BOX, kind: str = slots.PASSWORD) -> bytes | None:
    return slots.open_slot(wrapped.kdf, wrapped.salt, wrapped.wrapped, password, mailbox_id=mailbox_id, kind=kind)


def test_generated_passwords_have_the_form_and_the_entropy() -> None:
    made = {slots.generate_password() for _ in range(500)}
    assert len(made) == 500
    assert all(re.fullmatch(r"[A-Za-z0-9]{24}", password) and slots.is_generated(password) for password in made)
    assert not set("".join(made)) & set("0Oo1Il2Z5S8B")
    assert len(set(slots.ALPHABET)) ** slots.LENGTH > 2**128


def test_every_character_is_as_likely_as_any_other() -> None:
    """Each character has five octets that stand for it; the six octets left over are thrown away, not folded in."""
    counts = dict.fromkeys(slots.ALPHABET, 0)
    for octet in range(256):
        source = [bytes([octet]) * slots.LENGTH, b"\0" * slots.LENGTH]
        password = slots.generate_password(lambda _size, source=source: source.pop(0))
        assert password == password[0] * slots.LENGTH
        if len(source) == 1:
            counts[password[0]] += 1
        else:
            assert octet >= 250
    assert set(counts.values()) == {5}


def test_opens_with_its_password_only() -> None:
    password = slots.generate_password()
    wrapped = slots.make_slot(KEY, password, mailbox_id=BOX)
    assert wrapped.kdf == "hkdf-sha256"
    assert opened(wrapped, password) == KEY
    assert opened(wrapped, slots.generate_password()) is None
    assert opened(wrapped, password[:-1]) is None
    assert opened(wrapped, "") is None


def test_chosen_passwords_are_stretched() -> None:
    wrapped = slots.make_slot(KEY, "correct horse", mailbox_id=BOX)
    assert wrapped.kdf == "argon2id:t=3,m=65536,p=1"
    assert slots.is_slow(wrapped.kdf)
    assert opened(wrapped, "correct horse") == KEY
    assert opened(wrapped, "Correct horse") is None


def test_a_chosen_password_never_gets_the_quick_derivation() -> None:
    with pytest.raises(ValueError):
        slots.make_slot(KEY, "correct horse", mailbox_id=BOX, kdf=slots.HKDF_SHA256)


def test_a_password_typed_on_another_keyboard_is_the_same() -> None:
    wrapped = slots.make_slot(KEY, "Stra\u00dfe J\u00fcrgen", mailbox_id=BOX, kdf=QUICK)
    assert opened(wrapped, "Stra\u00dfe Ju\u0308rgen") == KEY


def test_two_slots_of_one_password_have_nothing_in_common() -> None:
    password = slots.generate_password()
    first, second = (slots.make_slot(KEY, password, mailbox_id=BOX) for _ in range(2))
    assert first.salt != second.salt
    assert first.wrapped[1:] != second.wrapped[1:]


def test_a_known_answer_does_not_change() -> None:
    """Slots that were made once must open for ever."""
    password = "3" * 24
    wrapped = slots.make_slot(KEY, password, mailbox_id=BOX, salt=bytes(32), nonce=bytes(12))
    assert wrapped.wrapped.hex() == (
        "010000000000000000000000006eee474ed52f401f9bd267639b4506e61d29238b779456d53551b241c0c8b3eebcd3aea775cc1a73b6aca56a776acfa2"
    )
    assert opened(wrapped, password) == KEY


@given(st.integers(0, 60), st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_any_changed_bit_closes_it(position: int, bit: int) -> None:
    password = "3" * 24
    wrapped = slots.make_slot(KEY, password, mailbox_id=BOX, salt=bytes(32), nonce=bytes(12))
    octets = bytearray(wrapped.wrapped)
    octets[position] ^= 1 << bit
    broken = slots.Wrapped(wrapped.kdf, wrapped.salt, bytes(octets))
    if position == 0:
        with pytest.raises(ValueError):
            opened(broken, password)
    else:
        assert opened(broken, password) is None


@pytest.mark.parametrize(
    "kdf",
    [
        "",
        "none",
        "argon2id",
        "argon2id:t=0,m=64,p=1",
        "argon2id:t=3,m=4,p=1",
        "argon2id:t=99,m=64,p=1",
        "argon2id:t=3,m=9999999,p=1",
        "argon2id:t=3,m=64,p=99",
        "argon2id:t=3,m=65536,p=1\n",
        "ARGON2ID:t=3,m=65536,p=1",
    ],
)
def test_a_derivation_nobody_here_would_ask_for_is_refused_before_any_work(kdf: str) -> None:
    with pytest.raises(ValueError):
        slots.open_slot(kdf, bytes(32), b"\x01" + bytes(60), "x", mailbox_id=BOX)


def test_keys_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError):
        slots.make_slot(b"short", "3" * 24, mailbox_id=BOX)
    with pytest.raises(ValueError):
        slots.open_slot(slots.HKDF_SHA256, bytes(32), b"\x01" + bytes(59), "x", mailbox_id=BOX)
