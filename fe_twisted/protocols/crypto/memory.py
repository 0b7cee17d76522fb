"""A mailbox key while its owner is connected.

Between uses the key lies encrypted under a key that is made at the start of the process and never written anywhere, so that a
swapped page or a partial memory dump of the one is worthless without the other.  It is no defence against somebody who can
read all of the process's memory, and does not claim to be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12
_process_key = AESGCM(os.urandom(32))


class KeyInMemory:
    """One secret, wrapped.

    :param key: what to hold; a ``bytearray`` is overwritten with zeros once it is wrapped.
    """

    __slots__ = ("_size", "_wrapped")

    def __init__(self, key: bytes | bytearray) -> None:
        nonce = os.urandom(_NONCE)
        self._size = len(key)
        self._wrapped = bytearray(nonce + _process_key.encrypt(nonce, key, None))
        if isinstance(key, bytearray):
            key[:] = bytes(len(key))

    @contextmanager
    def use(self) -> Iterator[bytearray]:
        """The key in the clear for the length of a ``with`` block, then overwritten.

        :raises ValueError: it was forgotten.
        """
        if not self._wrapped:
            raise ValueError("the key was forgotten")
        clear = bytearray(self._size)
        try:
            _process_key.decrypt_into(bytes(self._wrapped[:_NONCE]), bytes(self._wrapped[_NONCE:]), None, clear)
            yield clear
        finally:
            clear[:] = bytes(self._size)

    def forget(self) -> None:
        """Overwrite it; to be called once or more."""
        self._wrapped[:] = bytes(len(self._wrapped))
        self._wrapped = bytearray()

    @property
    def forgotten(self) -> bool:
        """True after :meth:`forget`."""
        return not self._wrapped

    def __repr__(self) -> str:
        return f"<KeyInMemory{' forgotten' if self.forgotten else ''}>"
