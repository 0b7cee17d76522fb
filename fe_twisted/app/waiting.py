"""How many messages wait on this box, counted by looking into each file; for the command line, beside a server that runs or not."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fe_twisted.base.settings import Settings
from fe_twisted.storage.spool.peek import Peeked, peek

#: The file itself, or one that was set aside and is still to be read.
_MAILBOX = re.compile(r"\A([0-9a-f]{24})-tmp\.(?:sqlite|saving-[0-9]+)\Z")
_QUEUED = re.compile(r"\A([0-9a-f]{24})\.(?:sqlite|saving-[0-9]+)\Z")


@dataclass(frozen=True, slots=True)
class Found:
    """One file with waiting mail.

    :param peeked: None when it could not be looked into just now.
    """

    path: Path
    mailbox_id: str
    peeked: Peeked | None


@dataclass(frozen=True, slots=True)
class Sum:
    """All of them together.

    :param messages: those that move in at the next login of their owner, or are handed over when there is a link again.
    :param refused: those that were set aside.
    :param since: seconds since the epoch from which on the oldest file has held mail; None when nothing is known.
    :param unknown: files that could not be looked into just now, and are not counted.
    """

    messages: int
    refused: int
    since: int | None
    unknown: int


def look(settings: Settings, server_key: bytes) -> Iterator[Found]:
    """Every file with waiting mail on this box: temporary mailboxes, and what is queued for primaries.

    :param server_key: 32 octets, of this box.
    """
    yield from _folder(settings.mailbox_folder, _MAILBOX, server_key, settings.cipher)
    for folder in _entries(settings.queue_folder):
        yield from _folder(settings.queue_folder / folder, _QUEUED, server_key, settings.cipher)


def total(found: Iterator[Found]) -> Sum:
    """Count."""
    messages = refused = unknown = 0
    since: list[int] = []
    for each in found:
        if each.peeked is None:
            unknown += 1
            continue
        messages += each.peeked.waiting
        refused += each.peeked.refused
        if each.peeked.since is not None and (each.peeked.waiting or each.peeked.refused):
            since.append(each.peeked.since)
    return Sum(messages, refused, min(since, default=None), unknown)


def _folder(folder: Path, name: re.Pattern[str], server_key: bytes, cipher: str) -> Iterator[Found]:
    for entry in _entries(folder):
        match = name.match(entry)
        if match is not None:
            path = folder / entry
            peeked = peek(path, match[1], server_key, cipher=cipher)
            if peeked is not None or path.exists():
                yield Found(path, match[1], peeked)


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
