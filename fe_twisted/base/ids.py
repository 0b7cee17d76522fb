"""Identifiers that tell nothing: random, and long enough never to meet."""

from __future__ import annotations

import os


def object_id() -> str:
    """A new 24-hex ObjectID: 96 random bits.

    Unlike MongoDB's it holds no time and no counter, because it names mailbox files, and a file name should tell nobody anything.
    """
    return os.urandom(12).hex()


def connection_id() -> str:
    """A short id for one client connection, in every log line about it and in replies that report trouble."""
    return os.urandom(5).hex()


def delivery_id() -> bytes:
    """16 random bytes that make one delivery to one recipient repeatable without a duplicate."""
    return os.urandom(16)
