"""Sealing: closed with the public key, opened with the private one, and never otherwise."""

from __future__ import annotations

import pytest

from fe_twisted.protocols.crypto.seal import OVERHEAD, PUBLIC, SEED, SealingKey, seal

ME = SealingKey.generate()
OTHER = SealingKey.generate()


@pytest.mark.parametrize("size", [0, 1, 10_000, 1_000_000])
def test_round_trip(size: int) -> None:
    text = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    sealed = seal(ME.public(), text, b"box")
    assert len(sealed) == size + OVERHEAD
    assert ME.open(sealed, b"box") == text


def test_sizes() -> None:
    assert (len(ME.seed()), len(ME.public())) == (SEED, PUBLIC) == (96, 1216)


def test_a_key_comes_back_from_its_seed() -> None:
    again = SealingKey.from_seed(ME.seed())
    assert again.public() == ME.public()
    assert again.open(seal(ME.public(), b"hello", b""), b"") == b"hello"


def test_a_message_sealed_twice_looks_different() -> None:
    assert seal(ME.public(), b"hello", b"")[1:] != seal(ME.public(), b"hello", b"")[1:]
    assert b"hello" not in seal(ME.public(), b"hello", b"")


def test_another_key_or_another_purpose_does_not_open() -> None:
    sealed = seal(ME.public(), b"hello", b"box")
    for key, info in ((OTHER, b"box"), (ME, b"another box"), (ME, b"")):
        with pytest.raises(ValueError):
            key.open(sealed, info)


def test_half_of_the_private_key_is_not_enough() -> None:
    """Either key exchange holds the message by itself: one broken algorithm does not open it."""
    sealed = seal(ME.public(), b"hello", b"")
    for seed in (ME.seed()[:64] + OTHER.seed()[64:], OTHER.seed()[:64] + ME.seed()[64:]):
        with pytest.raises(ValueError):
            SealingKey.from_seed(seed).open(sealed, b"")


def test_any_changed_octet_is_noticed() -> None:
    sealed = seal(ME.public(), b"hello", b"")
    for position in [0, 1, 600, 1090, 1120, 1121, 1125, len(sealed) - 1]:
        broken = bytearray(sealed)
        broken[position] ^= 1
        with pytest.raises(ValueError):
            ME.open(bytes(broken), b"")


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x01" + bytes(1135), b"\x01" + bytes(1136), b"\x02" + bytes(2000)])
def test_rubbish_is_refused(sealed: bytes) -> None:
    with pytest.raises(ValueError):
        ME.open(sealed, b"")


def test_bad_keys_are_refused() -> None:
    with pytest.raises(ValueError):
        seal(b"", b"x", b"")
    with pytest.raises(ValueError):
        seal(ME.public() + b"x", b"x", b"")
    with pytest.raises(ValueError):
        seal(b"\xff" * PUBLIC, b"x", b"")
    with pytest.raises(ValueError):
        SealingKey.from_seed(bytes(95))


def test_it_does_not_show_itself() -> None:
    assert repr(ME) == "<SealingKey>"
