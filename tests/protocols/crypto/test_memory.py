"""A key in memory: there while it is used, gone after."""

from __future__ import annotations

import pytest

from fe_twisted.protocols.crypto.memory import KeyInMemory


def test_it_is_there_only_inside_the_block() -> None:
    key = bytes(range(1, 33))
    held = KeyInMemory(key)
    with held.use() as clear:
        assert clear == key
    assert clear == bytes(32)
    with held.use() as again:
        assert again == key


def test_it_is_overwritten_also_when_the_block_fails() -> None:
    held = KeyInMemory(b"k" * 32)
    with pytest.raises(RuntimeError), held.use() as clear:
        raise RuntimeError
    assert clear == bytes(32)


def test_a_bytearray_given_is_overwritten() -> None:
    given = bytearray(b"k" * 32)
    held = KeyInMemory(given)
    assert given == bytes(32)
    with held.use() as clear:
        assert clear == b"k" * 32


def test_forgotten_is_forgotten() -> None:
    held = KeyInMemory(b"k" * 32)
    held.forget()
    held.forget()
    assert held.forgotten
    with pytest.raises(ValueError), held.use():
        pass


def test_it_does_not_lie_in_the_clear() -> None:
    held = KeyInMemory(b"k" * 32)
    assert b"kkkk" not in bytes(held._wrapped)
    assert "kkkk" not in repr(held)
