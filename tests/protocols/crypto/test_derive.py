"""Derived keys: fixed for ever, and none like another."""

from __future__ import annotations

import pytest

from fe_twisted.protocols.crypto import derive as keys

SERVER = bytes(range(32))


def test_known_answers_do_not_change() -> None:
    """A changed derivation would lock every existing data directory."""
    assert keys.directory_key(SERVER).hex() == "a16db30c9f74140484e72144ced2eecda33bae369afe38a5392ea6cbf2f05f75"
    assert keys.spool_key(SERVER, "0" * 24).hex() == "1f0a59d2f3408a2fb3be62f5734da948bad2f5a1b9a4b58c1999c9a3ab998a9c"


def test_each_label_and_each_mailbox_has_its_own() -> None:
    labels = [
        keys.DIRECTORY,
        keys.SPOOL,
        keys.SESSION,
        keys.COOKIE,
        keys.SRS,
        keys.CLUSTER,
        keys.SCRAM,
        keys.SHARED,
        keys.LIMITS,
        "spool:a",
        "spool:b",
    ]
    made = {keys.derive(SERVER, label) for label in labels}
    assert len(made) == len(labels)
    assert keys.derive(bytes(31) + b"\x01", keys.DIRECTORY) not in made


def test_length() -> None:
    assert len(keys.derive(SERVER, keys.COOKIE, 64)) == 64


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError):
        keys.derive(b"short", keys.DIRECTORY)
    with pytest.raises(ValueError):
        keys.derive(SERVER, "")
