"""IMAP data as octets (skeleton of the interface)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fe_twisted.protocols.imap.commands import FetchItem


def quoted(text: str | bytes) -> bytes:
    """A quoted string."""
    raise NotImplementedError


def string(octets: bytes) -> bytes:
    """A quoted string where possible, else a literal."""
    raise NotImplementedError


def astring(octets: bytes) -> bytes:
    """An atom where possible, else as :func:`string`."""
    raise NotImplementedError


def mailbox_name(name: str, *, utf8: bool = False) -> bytes:
    """A mailbox name: modified UTF-7, or UTF-8 when that is enabled."""
    raise NotImplementedError


def flag_list(flags: Iterable[str]) -> bytes:
    r"""``(\Seen $Forwarded)``."""
    raise NotImplementedError


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """How to answer one FETCH: ask the mailbox for ``columns`` (in this order), give the rows to :meth:`render`."""

    columns: tuple[str, ...]
    sets_seen: bool

    def render(self, rows: Sequence[tuple[Any, ...]], numbers: Sequence[int | None], flags: Callable[[int, int], bytes]) -> list[bytes]:
        r"""The untagged FETCH responses of a batch.

        ``numbers[i]`` is the message sequence number of ``rows[i]``; None passes the row over.  ``flags(mask, uid)`` returns ``(\Seen)``.
        """
        raise NotImplementedError


def compile_items(items: tuple[FetchItem, ...], *, uid: bool = False, flags: bool = False, modseq: bool = False) -> FetchPlan:
    """The plan for these items; ``uid``, ``flags``, ``modseq`` add that item when the client did not ask for it."""
    raise NotImplementedError
