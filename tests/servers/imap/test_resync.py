"""A client that was away knows after SELECT (QRESYNC …) exactly what is there, whatever others did and wherever it was cut off.

The client keeps what RFC 7162 section 6 tells it to keep: the flags by UID, and the highest mod-sequence of the responses up to the last
tagged one, unless a HIGHESTMODSEQ says otherwise.  It never asks for everything again.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.imap.ranges import from_sorted, render
from tests.servers.imap.house import Client, House
from tests.servers.imap.test_view import SYSTEM, names, rows

_FETCH = re.compile(r"\* (\d+) (UID)?FETCH \((.*)\)")


def numbers(text: str) -> set[int]:
    """``1:3,7`` as a set."""
    found: set[int] = set()
    for item in text.split(","):
        low, _, high = item.partition(":")
        found.update(range(int(low), int(high or low) + 1))
    return found


class Traveller:
    """A disconnected client of RFC 7162.

    :param uid_only: it also enables UIDONLY (RFC 9586), and no message number may reach it.
    """

    def __init__(self, house: House, *, uid_only: bool = False) -> None:
        self.house = house
        self.uid_only = uid_only
        self.flags: dict[int, set[str]] = {}
        self.uidvalidity = 0
        self.modseq = 0
        #: All messages up to this UID are known.
        self.upto = 0
        #: By message number, while connected.
        self.listed: list[int | None] = []
        self.client = self.arrive()

    def arrive(self) -> Client:
        """Connect, and select with what is known."""
        self.client = self.house.login()
        self.client.ask("ENABLE QRESYNC" + (" UIDONLY" if self.uid_only else ""))
        uids = render(from_sorted(sorted(self.flags))).decode()
        known = f" (QRESYNC ({self.uidvalidity} {self.modseq} {uids}))" if uids else ""
        self.listed = []
        self.ask(f"SELECT INBOX{known}")
        self.fetch_new()
        return self.client

    def fetch_new(self) -> None:
        """Messages that came since it last asked for new ones; the others need not be asked for."""
        self.ask(f"UID FETCH {self.upto + 1}:4294967295 (UID FLAGS MODSEQ)")
        self.upto = max(self.flags, default=self.upto)

    def leave(self) -> None:
        self.client.drop()

    def ask(self, command: str) -> list[str]:
        lines = self.client.ask(command)
        highest, said = 0, 0
        for line in lines:
            if match := re.search(r"\[HIGHESTMODSEQ (\d+)\]", line):
                said = int(match[1])
            if match := re.search(r"\[UIDVALIDITY (\d+)\]", line):
                self.uidvalidity = int(match[1])
            if match := _FETCH.fullmatch(line):
                assert bool(match[2]) == self.uid_only, line
                highest = max(highest, self.fetched(int(match[1]), match[3]))
            elif match := re.fullmatch(r"\* VANISHED (\(EARLIER\) )?([0-9:,]+)", line):
                self.vanished(numbers(match[2]), earlier=bool(match[1]))
            elif match := re.fullmatch(r"\* (\d+) EXISTS", line):
                assert int(match[1]) >= len(self.listed)
                self.listed += [None] * (int(match[1]) - len(self.listed))
            assert not re.fullmatch(r"\* \d+ EXPUNGE", line), line
        self.modseq = said or max(self.modseq, highest)
        return lines

    def fetched(self, number: int, items: str) -> int:
        """Take a FETCH response in; its mod-sequence."""
        uid = number if self.uid_only else 0
        if match := re.search(r"UID (\d+)", items):
            uid = int(match[1])
        if not self.uid_only:
            assert uid, "after ENABLE QRESYNC what is told names the UID"
            self.listed[number - 1] = uid
        if match := re.search(r"FLAGS \(([^)]*)\)", items):
            self.flags[uid] = set(match[1].split()) - {"\\Recent"}
        match = re.search(r"MODSEQ \((\d+)\)", items)
        return int(match[1]) if match else 0

    def vanished(self, uids: set[int], *, earlier: bool) -> None:
        for uid in uids:
            self.flags.pop(uid, None)
            assert not (earlier and uid in self.listed)
        if not earlier and self.uid_only:  # it only counts
            del self.listed[: len(uids)]
        elif not earlier:
            unknown = len(uids.difference(number for number in self.listed if number))
            self.listed = [uid for uid in self.listed if uid not in uids]
            for _ in range(unknown):  # announced by EXISTS, gone before anybody asked for their UID
                self.listed.remove(None)


COMMANDS = [
    "FETCH 1:* (UID FLAGS MODSEQ)",
    "NOOP",
    "UID SEARCH ALL",
    "STORE 1 +FLAGS.SILENT (\\Answered)",
    "SEARCH UNSEEN",
    "FETCH 1 (UID)",
]
UID_COMMANDS = [
    "UID FETCH 1:* (UID FLAGS MODSEQ)",
    "NOOP",
    "UID SEARCH ALL",
    "UID STORE 1:3 +FLAGS.SILENT (\\Answered)",
    "UID SEARCH UNSEEN",
    "CHECK",
]

work = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 3)),
        st.tuples(st.just("flag"), st.integers(1, 14), st.sampled_from([*SYSTEM, "$Work"]), st.sampled_from("+-")),
        st.tuples(st.just("flag"), st.integers(1, 14), st.just("\\Deleted"), st.just("+")),
        st.tuples(st.just("expunge")),
        st.tuples(st.just("move"), st.integers(1, 14)),
        st.tuples(st.just("copy"), st.integers(1, 14)),
        st.tuples(st.just("ask"), st.integers(0, 5)),
        st.tuples(st.just("travel")),
        st.tuples(st.just("own expunge")),
    ),
    max_size=25,
)


def change(house: House, other: Client, traveller: Traveller, kind: str, *words: Any) -> None:
    if kind == "append":
        house.fill("INBOX", words[0])
    elif kind == "flag":
        other.ask(f"UID STORE {words[0]} {words[2]}FLAGS.SILENT ({words[1]})")
    elif kind == "expunge":
        other.ask("EXPUNGE")
    elif kind == "move":
        other.ask(f"UID MOVE {words[0]} Trash")
    elif kind == "copy":
        other.ask(f"UID COPY {words[0]} INBOX")
    elif kind == "ask":
        command = (UID_COMMANDS if traveller.uid_only else COMMANDS)[words[0]]
        answer = traveller.ask(command)[-1]
        if "SILENT" in command and answer.startswith("t OK"):
            own_flag(traveller, command)
    elif kind == "travel":
        traveller.leave()
        traveller.arrive()
    else:
        traveller.ask("EXPUNGE")


def own_flag(traveller: Traveller, command: str) -> None:
    """A client knows what it stored itself, where it was told that it was stored."""
    uids = {1, 2, 3} if traveller.uid_only else set(traveller.listed[:1])
    for uid in uids:
        if uid in traveller.flags:
            traveller.flags[uid].add("\\Answered")


@pytest.mark.parametrize("uid_only", [False, True], ids=["numbers", "uidonly"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(steps=work)
def test_a_traveller_knows_what_is_there(uid_only: bool, steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder))
        house.fill("INBOX", 5)
        other = house.login("INBOX")
        traveller = Traveller(house, uid_only=uid_only)
        for step in steps:
            change(house, other, traveller, *step)
        traveller.leave()
        for uid in (2, 4):  # something happens while it is away
            other.ask(f"UID STORE {uid} +FLAGS.SILENT (\\Deleted)")
        other.ask("EXPUNGE")
        house.fill("INBOX", 1)
        traveller.arrive()
        assert traveller.flags == {uid: names(house, mask) for uid, mask in rows(house)}
        house.close()


def test_a_client_cut_off_while_expunges_wait_hears_of_them_later(house: House) -> None:
    """It has seen a mod-sequence above that of an EXPUNGE that it was not told of (RFC 7162 section 3.2)."""
    house.fill("INBOX", 4)
    other = house.login("INBOX")
    traveller = Traveller(house)
    other.ask("STORE 2 +FLAGS.SILENT (\\Deleted)")
    other.ask("EXPUNGE")
    other.ask("STORE 1 +FLAGS.SILENT (\\Flagged)")
    traveller.ask("FETCH 1 (UID FLAGS MODSEQ)")
    assert 2 in traveller.flags
    traveller.leave()
    traveller.arrive()
    assert set(traveller.flags) == {1, 3, 4}
    assert traveller.flags[1] == {"\\Flagged"}


def test_known_uids_limit_what_is_told(house: House) -> None:
    house.fill("INBOX", 6)
    other = house.login("INBOX")
    client = house.login()
    client.ask("ENABLE QRESYNC")
    (uidvalidity,) = re.findall(r"UIDVALIDITY (\d+)", " ".join(client.ask("SELECT INBOX")))
    other.ask("STORE 1,4 +FLAGS.SILENT (\\Deleted)")
    other.ask("EXPUNGE")
    other.ask("UID STORE 2,5,6 +FLAGS.SILENT (\\Flagged)")

    def told(parameters: str) -> list[str]:
        client.ask("UNSELECT")
        lines = client.ask(f"SELECT INBOX (QRESYNC ({uidvalidity} {parameters}))")
        return [line for line in lines if "VANISHED" in line or "FETCH" in line]

    flagged = "FLAGS (\\Flagged) MODSEQ (5)"
    fetched = [f"* {number} FETCH (UID {uid} {flagged})" for number, uid in ((1, 2), (3, 5), (4, 6))]
    everything = ["* VANISHED (EARLIER) 1,4", *fetched]
    assert told("2") == everything
    assert told("2 1:6") == everything
    assert told("2 1:6 (1:2 1:2)") == everything
    assert told("2 (1:2 1:2)") == everything
    assert told("2 1:2") == ["* VANISHED (EARLIER) 1", everything[1]]
    assert told("2 4:5") == ["* VANISHED (EARLIER) 4", f"* 3 FETCH (UID 5 {flagged})"]
    assert told("4") == everything[1:]
    assert told("5") == []


def test_a_modseq_that_never_was_gets_everything(house: House) -> None:
    """The mailbox came back from a backup that is older than what the client has seen."""
    house.fill("INBOX", 3)
    house.login("INBOX").ask("UID MOVE 2 Trash")
    client = house.login()
    client.ask("ENABLE QRESYNC")
    (uidvalidity,) = re.findall(r"UIDVALIDITY (\d+)", " ".join(client.ask("SELECT INBOX")))
    lines = client.ask(f"SELECT INBOX (QRESYNC ({uidvalidity} 999999))")
    assert "* VANISHED (EARLIER) 2" in lines
    assert [line.split(" MODSEQ")[0] for line in lines if "FETCH" in line] == ["* 1 FETCH (UID 1 FLAGS ()", "* 2 FETCH (UID 3 FLAGS ()"]
