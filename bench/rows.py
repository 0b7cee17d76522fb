"""The commands that are measured on a mailbox, and what their answers are compared by."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench import answers, wire
from bench.corpus import COMMON, RARE

_FIELDS = "FROM TO SUBJECT DATE MESSAGE-ID"
SINGLE, CLIENTS = 1000, 20


@dataclass
class Account:
    """A mailbox in a server under test.

    :param connect: a new connection, logged in.
    :param pid: of the server.
    :param client: one that has INBOX selected.
    :param crowd: more of them.
    """

    name: str
    connect: Callable[[], wire.Imap]
    pid: int
    client: wire.Imap
    crowd: list[wire.Imap]
    count: int

    def command(self, text: str) -> list[bytes]:
        """One command in the one connection."""
        return self.client.command(text)


@dataclass(frozen=True)
class Measure:
    """A row of the table.

    :param work: what is timed; its answer in pieces.
    :param says: what of the answer must be the same from every server.
    :param before, after: what is done before and after, and is not timed.
    """

    name: str
    work: Callable[[Account], list[bytes]]
    says: Callable[[bytes], object]
    before: Callable[[Account], object] | None = None
    after: Callable[[Account], object] | None = None


def _command(name: str, text: str, says: Callable[[bytes], object]) -> Measure:
    return Measure(name, lambda account: account.command(text), says)


def _uids(account: Account) -> list[int]:
    chosen = random.Random(5)
    return [chosen.randint(1, account.count) for _ in range(SINGLE)]


def _singles(account: Account) -> list[bytes]:
    found: list[bytes] = []
    for uid in _uids(account):
        found += account.command(f"UID FETCH {uid} BODY.PEEK[]")
    return found


def crowd(account: Account) -> list[bytes]:
    """The same number of single FETCHes by all clients at once."""
    uids = _uids(account)

    def commands(first: int) -> Iterator[str]:
        return (f"UID FETCH {uid} BODY.PEEK[]" for uid in uids[first::CLIENTS])

    return wire.in_parallel(account.crowd, [commands(first) for first in range(CLIENTS)])


def _store_back(account: Account) -> None:
    account.command("STORE 1:* -FLAGS.SILENT (\\Draft)")


def _fresh_folders(account: Account) -> None:
    for name in ("copies", "moved"):
        with contextlib.suppress(wire.Refused):
            account.command(f"DELETE {name}")
        account.command(f"CREATE {name}")


def _move_source(account: Account) -> None:
    account.command("SELECT copies")


def _mark(account: Account) -> None:
    account.command("SELECT moved")
    account.command("STORE 1:* +FLAGS.SILENT (\\Deleted)")


def _back(account: Account) -> None:
    account.command("SELECT INBOX")


OVERVIEW = "FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)"

#: In this order: the first envelope after loading comes before the first header.
MEASURES = (
    _command("SELECT", "SELECT INBOX", answers.exists),
    _command("FETCH flags", "FETCH 1:* (FLAGS)", answers.flags),
    _command("FETCH envelope set", OVERVIEW, answers.overview),
    _command("FETCH five fields", f"FETCH 1:* (BODY.PEEK[HEADER.FIELDS ({_FIELDS})])", answers.header_fields),
    Measure("1,000 single FETCH", _singles, answers.literals),
    Measure("… from 20 clients", crowd, lambda answer: len(answer) // 1000 > 0 and answers.literals(answer)[0]),  # type: ignore[index]
    _command("FETCH all bodies", "FETCH 1:* BODY.PEEK[]", answers.literals),
    Measure("STORE 1:* +FLAGS", lambda account: account.command("STORE 1:* +FLAGS (\\Draft)"), answers.changed, after=_store_back),
    _command("SEARCH UNSEEN", "SEARCH UNSEEN", answers.numbers),
    _command("SEARCH SUBJECT", "SEARCH SUBJECT tudi", answers.numbers),
    _command("SEARCH BODY rare", f"SEARCH BODY {RARE}", answers.numbers),
    _command("SEARCH TEXT common", f"SEARCH TEXT {COMMON}", answers.numbers),
    _command("UID SEARCH SINCE", "UID SEARCH SINCE 1-Jul-2025", answers.numbers),
    _command("SORT DATE", "SORT (DATE) UTF-8 ALL", answers.order),
    _command("SORT SUBJECT", "SORT (SUBJECT) UTF-8 ALL", answers.order),
    _command("THREAD REFERENCES", "THREAD REFERENCES UTF-8 ALL", answers.threads),
    Measure("COPY 1,000", lambda account: account.command("UID COPY 1:1000 copies"), answers.copied, before=_fresh_folders),
    Measure("MOVE 1,000", lambda account: account.command("UID MOVE 1:1000 moved"), answers.copied, before=_move_source),
    Measure("EXPUNGE 1,000", lambda account: account.command("EXPUNGE"), answers.expunged, before=_mark, after=_back),
)
#: These follow one another in every round.
CHAIN = ("COPY 1,000", "MOVE 1,000", "EXPUNGE 1,000")
