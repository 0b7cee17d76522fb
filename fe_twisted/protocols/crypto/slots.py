"""Key slots: a password wraps the mailbox key, and opening the slot is the password check.

A slot is the mailbox key under AES-256-GCM, with a key that is derived from the password: HKDF-SHA256 for passwords that were
generated here (more than 128 random bits need no stretching, and a login stays cheap), Argon2id (RFC 9106) for those that
a person chose.  The associated data binds the derivation, the kind of the slot and the mailbox, so that no slot can be moved to
another mailbox, or be declared weaker than it was made.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

#: Letters and digits that are told apart in any typeface: without 0 O o, 1 I l, 2 Z, 5 S, 8 B.
#: No separators, so that a double click takes all of a password.
ALPHABET = "34679ACDEFGHJKLMNPQRTUVWXYabcdefghijkmnpqrstuvwxyz"
#: 24 of 50 characters are 135 bits.
LENGTH = 24

HKDF_SHA256 = "hkdf-sha256"
ARGON2ID = "argon2id:t=3,m=65536,p=1"

PASSWORD = "password"

_VERSION = b"\x01"
#: As version 1, and after it what SCRAM needs (:mod:`fe_twisted.protocols.crypto.scram`).
_WITH_SCRAM = b"\x02"
_SALT = 32
_NONCE = 12
_KEY = 32
_PLAIN = 1 + _NONCE + _KEY + 16
_ARGON2ID = re.compile(r"argon2id:t=([1-9][0-9]{0,2}),m=([1-9][0-9]{0,6}),p=([1-9][0-9]?)")
#: Ceilings for what a slot may ask of the processor and the memory (KiB), in case the directory was tampered with.
_MAX_TIME, _MAX_MEMORY, _MAX_LANES = 16, 1 << 20, 16

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Wrapped:
    """What the directory keeps of a slot.

    :param kdf: ``hkdf-sha256``, or ``argon2id:t=…,m=…,p=…`` (passes, KiB, lanes).
    :param salt: 32 octets.
    :param wrapped: a version octet, a nonce of 12 octets, the key of 32 octets encrypted, a tag of 16 octets.
    """

    kdf: str
    salt: bytes
    wrapped: bytes


def generate_password(random: Random = os.urandom) -> str:
    """A new password of 24 characters, 135 bits, every one as likely as any other."""
    chosen = ""
    # 250 is the largest multiple of 50 in an octet: above it the first characters would come a little more often.
    while len(chosen) < LENGTH:
        chosen += "".join(ALPHABET[octet % len(ALPHABET)] for octet in random(LENGTH) if octet < 250)
    return chosen[:LENGTH]


def is_generated(password: str) -> bool:
    """True for the form of :func:`generate_password`."""
    return len(password) == LENGTH and all(char in ALPHABET for char in password)


def is_slow(kdf: str) -> bool:
    """True when opening such a slot takes tens of milliseconds, so that it belongs into a thread."""
    return kdf.startswith("argon2id")


def make_slot(
    mailbox_key: bytes,
    password: str,
    *,
    mailbox_id: str,
    kind: str = PASSWORD,
    kdf: str | None = None,
    salt: bytes | None = None,
    nonce: bytes | None = None,
) -> Wrapped:
    """Wrap a mailbox key by a password.

    :param mailbox_key: 32 octets.
    :param kind: the kind of the :class:`KeySlot`, bound to it.
    :param kdf: left out, it is HKDF for passwords of the generated form and Argon2id for all others.
    :param salt, nonce: 32 and 12 octets, for tests; random when left out.
    :raises ValueError: a key of another size, an unknown derivation, or HKDF for a password that a person chose.
    """
    if len(mailbox_key) != _KEY:
        raise ValueError("a mailbox key has 32 octets")
    kdf = kdf or (HKDF_SHA256 if is_generated(password) else ARGON2ID)
    if kdf == HKDF_SHA256 and not is_generated(password):
        raise ValueError("HKDF is for generated passwords only")
    salt = os.urandom(_SALT) if salt is None else salt
    nonce = os.urandom(_NONCE) if nonce is None else nonce
    sealed = AESGCM(_stretch(kdf, salt, password)).encrypt(nonce, mailbox_key, _bound(kdf, kind, mailbox_id))
    return Wrapped(kdf, salt, _VERSION + nonce + sealed)


def open_slot(kdf: str, salt: bytes, wrapped: bytes, password: str, *, mailbox_id: str, kind: str = PASSWORD) -> bytes | None:
    """The mailbox key, or None when the password is wrong or anything about the slot was changed.

    :raises ValueError: the slot has a form that this program does not know.
    """
    plain = _VERSION + wrapped[1:_PLAIN] if wrapped[:1] == _WITH_SCRAM else wrapped
    if plain[:1] != _VERSION or len(plain) != _PLAIN:
        raise ValueError("not a key slot of a version known here")
    nonce, sealed = plain[1 : 1 + _NONCE], plain[1 + _NONCE :]
    try:
        return AESGCM(_stretch(kdf, salt, password)).decrypt(nonce, sealed, _bound(kdf, kind, mailbox_id))
    except InvalidTag:
        return None


def with_scram(wrapped: bytes, record: bytes) -> bytes:
    """A slot of version 1 with what SCRAM needs behind it.

    :raises ValueError: not a slot of version 1.
    """
    if wrapped[:1] != _VERSION or len(wrapped) != _PLAIN:
        raise ValueError("not a key slot of version 1")
    return _WITH_SCRAM + wrapped[1:] + record


def scram_part(wrapped: bytes) -> bytes:
    """What :func:`with_scram` put behind a slot, or nothing."""
    return wrapped[_PLAIN:] if wrapped[:1] == _WITH_SCRAM else b""


def _bound(kdf: str, kind: str, mailbox_id: str) -> bytes:
    """The associated data.  The parts hold no NUL, so no two triples give the same octets."""
    return b"\0".join((b"forwardemail slot" + _VERSION, kdf.encode(), kind.encode(), mailbox_id.encode()))


def _stretch(kdf: str, salt: bytes, password: str) -> bytes:
    """The wrapping key.  The password is taken in NFC, so that every keyboard gives the same octets (RFC 8265 section 4.2.2)."""
    secret = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    if kdf == HKDF_SHA256:
        return HKDF(algorithm=SHA256(), length=_KEY, salt=salt, info=b"forwardemail slot").derive(secret)
    match = _ARGON2ID.fullmatch(kdf)
    if not match:
        raise ValueError("unknown key derivation")
    time, memory, lanes = map(int, match.groups())
    if time > _MAX_TIME or not 8 * lanes <= memory <= _MAX_MEMORY or lanes > _MAX_LANES or len(salt) < 8:
        raise ValueError("key derivation parameters out of range")
    return hash_secret_raw(secret, salt, time_cost=time, memory_cost=memory, parallelism=lanes, hash_len=_KEY, type=Type.ID)
