"""Sealing: anybody with the public key can close, only the mailbox's owner can open.

HPKE (RFC 9180) in base mode with ML-KEM-768 + X25519, HKDF-SHA256 and AES-256-GCM.  What is recorded today stays closed as long as
*one* of the two key exchanges holds, so also against a quantum computer of tomorrow.

A sealed message is one version octet, the encapsulated key (1,120 octets), the ciphertext and a tag (16 octets).
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

#: Octets.
SEED = 64 + 32
PUBLIC = 1184 + 32
OVERHEAD = 1 + 1120 + 16

_VERSION = b"\x01"
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def _bound(info: bytes) -> bytes:
    """The context that both sides must name alike; the version is in it, so that one cannot be passed off as another."""
    return b"forwardemail seal" + _VERSION + info


@lru_cache(maxsize=1024)
def _public_key(public: bytes) -> hpke.MLKEM768X25519PublicKey:
    if len(public) != PUBLIC:
        raise ValueError(f"a public sealing key has {PUBLIC} octets, not {len(public)}")
    return hpke.MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public[:1184]), X25519PublicKey.from_public_bytes(public[1184:])
    )


def seal(public: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Close ``plaintext`` for the owner of ``public``.

    :param public: 1,216 octets: ML-KEM-768, then X25519.
    :param info: what it is for, for example the mailbox id; opening needs the same.
    :raises ValueError: not a public key.
    """
    return _VERSION + _SUITE.encrypt(plaintext, _public_key(public), _bound(info))


class SealingKey:
    """The private half.  Its seed is kept inside the encrypted mailbox file and nowhere else."""

    __slots__ = ("_key", "_mlkem", "_x25519")

    def __init__(self, mlkem: MLKEM768PrivateKey, x25519: X25519PrivateKey) -> None:
        self._mlkem = mlkem
        self._x25519 = x25519
        self._key = hpke.MLKEM768X25519PrivateKey(mlkem, x25519)

    @classmethod
    def generate(cls) -> SealingKey:
        """A new pair, from the operating system's randomness."""
        return cls(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> SealingKey:
        """The pair that :meth:`seed` described.

        :raises ValueError: not 96 octets.
        """
        if len(seed) != SEED:
            raise ValueError(f"a seed has {SEED} octets, not {len(seed)}")
        return cls(MLKEM768PrivateKey.from_seed_bytes(seed[:64]), X25519PrivateKey.from_private_bytes(seed[64:]))

    def seed(self) -> bytes:
        """96 octets: the ML-KEM seed (FIPS 203, d and z), then the X25519 scalar."""
        return self._mlkem.private_bytes_raw() + self._x25519.private_bytes_raw()

    def public(self) -> bytes:
        """1,216 octets, for :func:`seal`."""
        return self._mlkem.public_key().public_bytes_raw() + self._x25519.public_key().public_bytes_raw()

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """What was closed with :func:`seal`.

        :raises ValueError: another key's, another ``info``, another version, or changed in any bit.
        """
        if sealed[:1] != _VERSION or len(sealed) < OVERHEAD:
            raise ValueError("not a sealed message of a version known here")
        try:
            return _SUITE.decrypt(memoryview(sealed)[1:], self._key, _bound(info))
        except InvalidTag as error:
            raise ValueError("the sealed message does not open with this key") from error

    def __repr__(self) -> str:
        return "<SealingKey>"
