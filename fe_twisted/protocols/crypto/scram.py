"""The second wrapping of a mailbox key, for clients that log in without sending their password (RFC 5802, RFC 7677).

SCRAM's ClientKey is ``HMAC(PBKDF2(password), "Client Key")``.  The server keeps its hash, StoredKey, and sees ClientKey itself only in a
login that succeeds; so ClientKey can do what the password does in :mod:`slots`: wrap the mailbox key.  Who has the directory has
StoredKey, from which ClientKey cannot be computed.  Who has StoredKey *and* reads along one login computes ClientKey, as the server does.

Only generated passwords get one: PBKDF2 with few rounds is enough for 135 random bits, and for nothing that a person thought of.

The salt is made from the mailbox id, so that all credentials of a mailbox share it: SCRAM sends the salt before it can know which of them
the client has.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fe_twisted.protocols.crypto import slots

#: RFC 7677 section 4: at least 4,096.
ITERATIONS = 4_096
SALT = 16

_NONCE = 12
_SEALED = 32 + 16
_FORMAT = struct.Struct(f">I{SALT}s32s32s{_NONCE}s{_SEALED}s")


@dataclass(frozen=True, slots=True)
class Verifier:
    """What is kept for SCRAM of one credential.

    :param stored_key, server_key: RFC 5802 section 3.
    :param nonce, sealed: the mailbox key under a key from ClientKey.
    """

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes
    nonce: bytes
    sealed: bytes


def salt_of(mailbox_id: str) -> bytes:
    """The salt of all credentials of a mailbox; not secret, different for each mailbox."""
    return hashlib.sha256(b"forwardemail scram salt\0" + mailbox_id.encode()).digest()[:SALT]


def decoy_salt(secret: bytes, user: str) -> bytes:
    """What a user who is not there is told: the same every time, and in nothing different from a real one.

    :param secret: 32 octets that nobody outside knows.
    """
    return hmac.digest(secret, user.encode("utf-8", "surrogatepass"), "sha256")[:SALT]


def extend(
    wrapped: bytes, mailbox_key: bytes, password: str, *, mailbox_id: str, kind: str = slots.PASSWORD, nonce: bytes | None = None
) -> bytes:
    """A key slot that opens by password and by SCRAM, from one of :func:`~fe_twisted.protocols.crypto.slots.make_slot`.

    :raises ValueError: the password was not generated.
    """
    if not slots.is_generated(password):
        raise ValueError("SCRAM is for generated passwords only")
    salt = salt_of(mailbox_id)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    nonce = os.urandom(_NONCE) if nonce is None else nonce
    sealed = AESGCM(_wrapping_key(client_key, salt)).encrypt(nonce, mailbox_key, _bound(stored_key, server_key, kind, mailbox_id))
    return slots.with_scram(wrapped, _FORMAT.pack(ITERATIONS, salt, stored_key, server_key, nonce, sealed))


def verifier(wrapped: bytes) -> Verifier | None:
    """What a key slot holds for SCRAM, None when it holds nothing."""
    record = slots.scram_part(wrapped)
    return Verifier(*_FORMAT.unpack(record)) if len(record) == _FORMAT.size else None


def open_with(found: Verifier, client_key: bytes, *, mailbox_id: str, kind: str = slots.PASSWORD) -> bytes | None:
    """The mailbox key, or None when this is not the ClientKey or anything was changed."""
    try:
        bound = _bound(found.stored_key, found.server_key, kind, mailbox_id)
        return AESGCM(_wrapping_key(client_key, found.salt)).decrypt(found.nonce, found.sealed, bound)
    except InvalidTag:
        return None


def _bound(stored_key: bytes, server_key: bytes, kind: str, mailbox_id: str) -> bytes:
    return b"\0".join((b"forwardemail scram", kind.encode(), mailbox_id.encode(), stored_key + server_key))


def _wrapping_key(client_key: bytes, salt: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"forwardemail scram").derive(client_key)
