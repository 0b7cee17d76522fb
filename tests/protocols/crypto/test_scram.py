"""The wrapping of a mailbox key for SCRAM: what opens it, and what does not."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac

import pytest

from fe_twisted.protocols.crypto import scram, slots

KEY = bytes(range(32))
BOX = "0123456789abcdef01234567"
PASSWORD = "34679ACDEFGHJKLMNPQRTUVW"


def made(password: str = PASSWORD, mailbox_id: str = BOX) -> tuple[slots.Wrapped, bytes]:
    plain = slots.make_slot(KEY, password, mailbox_id=mailbox_id)
    return plain, scram.extend(plain.wrapped, KEY, password, mailbox_id=mailbox_id)


def client_key(password: str, salt: bytes) -> bytes:
    """As a client computes it (RFC 5802 section 3)."""
    return hmac.digest(hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 4096), b"Client Key", "sha256")


def test_both_ways_open_the_same_slot() -> None:
    plain, both = made()
    assert slots.open_slot(plain.kdf, plain.salt, both, PASSWORD, mailbox_id=BOX) == KEY
    assert slots.open_slot(plain.kdf, plain.salt, both, slots.generate_password(), mailbox_id=BOX) is None
    found = scram.verifier(both)
    assert found is not None
    assert scram.open_with(found, client_key(PASSWORD, found.salt), mailbox_id=BOX) == KEY
    assert scram.open_with(found, client_key(slots.generate_password(), found.salt), mailbox_id=BOX) is None


def test_what_is_kept_opens_nothing() -> None:
    """Nothing in the directory does what ClientKey does: no stored field, and no hash of one."""
    plain, both = made()
    found = scram.verifier(both)
    assert found is not None
    kept = [found.stored_key, found.server_key, found.salt * 2, found.sealed[:32], plain.salt, both[:32]]
    for secret in kept + [hashlib.sha256(one).digest() for one in kept]:
        assert scram.open_with(found, secret, mailbox_id=BOX) is None
    assert client_key(PASSWORD, found.salt) not in (found.stored_key, found.server_key)
    assert PASSWORD.encode() not in both


def test_bound_to_its_mailbox_kind_and_keys() -> None:
    found = scram.verifier(made()[1])
    assert found is not None
    key = client_key(PASSWORD, found.salt)
    assert scram.open_with(found, key, mailbox_id="f" * 24) is None
    assert scram.open_with(found, key, mailbox_id=BOX, kind="recovery") is None
    for name in ("stored_key", "server_key", "salt", "nonce", "sealed"):
        value = getattr(found, name)
        changed = dataclasses.replace(found, **{name: bytes([value[0] ^ 1]) + value[1:]})
        assert scram.open_with(changed, key, mailbox_id=BOX) is None


def test_chosen_passwords_get_none() -> None:
    wrapped = slots.make_slot(KEY, "correct horse", mailbox_id=BOX, kdf="argon2id:t=1,m=64,p=1").wrapped
    with pytest.raises(ValueError):
        scram.extend(wrapped, KEY, "correct horse", mailbox_id=BOX)
    assert scram.verifier(wrapped) is None


def test_slots_of_other_forms_have_no_verifier() -> None:
    plain, both = made()
    assert scram.verifier(plain.wrapped) is None
    assert scram.verifier(both[:-1]) is None
    assert scram.verifier(both + b"x") is None
    assert scram.verifier(b"") is None
    with pytest.raises(ValueError):
        slots.with_scram(both, b"again")
    with pytest.raises(ValueError):
        slots.open_slot(plain.kdf, plain.salt, both[:40], PASSWORD, mailbox_id=BOX)


def test_salts() -> None:
    assert scram.salt_of(BOX) == scram.salt_of(BOX) != scram.salt_of("f" * 24)
    assert scram.decoy_salt(KEY, "a@b") == scram.decoy_salt(KEY, "a@b") != scram.decoy_salt(KEY, "c@b")
    assert len(scram.salt_of(BOX)) == len(scram.decoy_salt(KEY, "a@b")) == scram.SALT
