"""What a client believes of a folder from untagged responses alone is what the folder is, whatever others do to it."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fe_twisted.storage.mailbox.api import Changes
from fe_twisted.storage.mailbox.local import LocalMailbox
from tests.servers.imap.house import Client, House, mail
from tests.storage.mailbox.driving import collect, run

SYSTEM = ["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft"]


class Believer:
    """A client that keeps what RFC 3501 tells it to keep: a list of messages, each with its UID (once asked) and flags."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.flags: list[set[str] | None] = []
        self.uids: list[int | None] = []
        self.numbered = False
        for line in client.ask("SELECT INBOX"):
            self.hear(line)

    def ask(self, command: str, *, renumbers: bool = True) -> list[str]:
        self.numbered = not renumbers
        lines = self.client.ask(command)
        for line in lines[:-1]:
            self.hear(line)
        self.numbered = False
        return lines

    def hear(self, line: str) -> None:
        if match := re.fullmatch(r"\* (\d+) EXISTS", line):
            count = int(match[1])
            assert count >= len(self.flags), "EXISTS went down"
            self.flags += [None] * (count - len(self.flags))
            self.uids += [None] * (count - len(self.uids))
        elif match := re.fullmatch(r"\* (\d+) EXPUNGE", line):
            assert not self.numbered, "EXPUNGE during a command with message numbers"
            number = int(match[1])
            assert 1 <= number <= len(self.flags)
            del self.flags[number - 1], self.uids[number - 1]
        elif match := re.match(r"\* (\d+) FETCH \((.*)", line):
            at = int(match[1]) - 1
            if flags := re.search(r"FLAGS \(([^)]*)\)", match[2]):
                self.flags[at] = set(flags[1].split()) - {"\\Recent"}
            if uid := re.search(r"UID (\d+)", match[2]):
                assert self.uids[at] in (None, int(uid[1])), "a number changed its message"
                self.uids[at] = int(uid[1])


LOOKS = ["FETCH 1:* FLAGS", "SEARCH ALL", "STORE 1 +FLAGS.SILENT (\\Answered)", "FETCH 1 BODY[]<0.1>"]
UID_LOOKS = ["UID FETCH 1:* FLAGS", "UID SEARCH ALL", "UID STORE 2 -FLAGS (\\Seen)", "NOOP"]

operations = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 3)),
        st.tuples(st.just("flag"), st.integers(1, 12), st.sampled_from([*SYSTEM, "$Work"]), st.sampled_from("+-")),
        st.tuples(st.just("expunge")),
        st.tuples(st.just("move"), st.integers(1, 12)),
        st.tuples(st.just("look"), st.sampled_from(LOOKS)),
        st.tuples(st.just("uid look"), st.sampled_from(UID_LOOKS)),
        st.tuples(st.just("delete and copy"), st.integers(1, 12)),
    ),
    max_size=25,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(operations)
def test_beliefs_are_true_after_noop(work: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder))
        house.fill("INBOX", 4)
        other = house.login("INBOX")
        believer = Believer(house.login())
        believer.ask("FETCH 1:* (UID FLAGS)", renumbers=False)
        for step in work:
            change(house, other, believer, *step)
        believer.ask("NOOP")
        believer.ask("UID FETCH 1:* UID")
        truth = {uid: names(house, mask) for uid, mask in rows(house)}
        assert believer.uids == list(truth)
        for uid, flags in zip(believer.uids, believer.flags, strict=True):
            if flags is not None and uid is not None:
                assert flags == truth[uid]
        house.close()


def change(house: House, other: Client, believer: Believer, kind: str, *words: Any) -> None:
    if kind == "append":
        house.fill("INBOX", words[0])
    elif kind == "flag":
        other.ask(f"UID STORE {words[0]} {words[2]}FLAGS.SILENT ({words[1]})")
    elif kind == "expunge":
        other.ask("EXPUNGE")
    elif kind == "move":
        other.ask(f"UID MOVE {words[0]} Trash")
    elif kind == "look":
        before = list(believer.uids)
        lines = believer.ask(words[0], renumbers=False)
        assert believer.uids[: len(before)] == before
        if "SILENT" in words[0] and lines[-1].startswith("t OK STORE") and believer.flags[0] is not None:
            believer.flags[0].add("\\Answered")
    elif kind == "uid look":
        believer.ask(words[0])
    else:
        other.ask(f"UID STORE {words[0]} +FLAGS (\\Deleted)")
        other.ask(f"UID COPY {words[0]} INBOX")


def rows(house: House) -> list[tuple[int, int]]:
    inbox = run(house.mailbox.folders())[0]
    return run(collect(house.mailbox.fetch(inbox.id, ((1, 0xFFFFFFFF),), ("uid", "flags"))))  # type: ignore[return-value]


def names(house: House, mask: int) -> set[str]:
    return {name for bit, name in enumerate([*SYSTEM, *house.mailbox.keywords()]) if mask >> bit & 1}


def test_a_store_of_both_sessions_on_one_message_is_told_to_the_first(house: House) -> None:
    """A's own change is not repeated, B's later one is."""
    house.fill("INBOX", 1)
    a, b = house.login("INBOX"), house.login("INBOX")
    assert a.ask("STORE 1 +FLAGS.SILENT (\\Seen)") == ["t OK STORE completed"]
    assert a.ask("NOOP") == ["t OK NOOP completed"]
    b.ask("STORE 1 +FLAGS.SILENT (\\Flagged)")
    assert a.ask("NOOP") == ["* 1 FETCH (FLAGS (\\Seen \\Flagged \\Recent))", "t OK NOOP completed"]


def test_silent_does_not_hide_a_change_that_came_just_before(house: House) -> None:
    """B's change is committed between A's last look and A's own STORE of the same message."""
    house.fill("INBOX", 1)
    a, b = house.login("INBOX"), house.login("INBOX")
    a.take()
    house.threads.held = True
    b.send(b"b STORE 1 +FLAGS.SILENT (\\Flagged)\r\n")
    a.send(b"a STORE 1 +FLAGS.SILENT (\\Seen)\r\n")
    house.threads.work()
    assert a.lines() == ["* 1 FETCH (FLAGS (\\Seen \\Flagged \\Recent))", "a OK STORE completed"]


def test_silent_that_changes_nothing_hides_nothing(house: House) -> None:
    r"""B sets two flags just before; A then sets one of them, which is there already, and must still hear of the other."""
    house.fill("INBOX", 1)
    a, b = house.login("INBOX"), house.login("INBOX")
    a.take()
    house.threads.held = True
    b.send(b"b STORE 1 FLAGS.SILENT (\\Flagged \\Seen)\r\n")
    a.send(b"a STORE 1 +FLAGS.SILENT (\\Flagged)\r\n")
    house.threads.work()
    assert a.lines() == ["* 1 FETCH (FLAGS (\\Seen \\Flagged \\Recent))", "a OK STORE completed"]


def test_what_a_session_changed_alone_is_not_read_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of its own STORE told it everything; what another one changes next is told as ever."""
    house.fill("INBOX", 2)
    a, b = house.login("INBOX"), house.login("INBOX")
    asked: list[int] = []
    changed = type(house.mailbox).changed

    async def changes(mailbox: LocalMailbox, folder_id: int, since: int, uidnext: int) -> Changes:
        asked.append(since)
        return await changed(mailbox, folder_id, since, uidnext)

    monkeypatch.setattr(type(house.mailbox), "changed", changes)
    assert a.ask("STORE 1:2 +FLAGS.SILENT (\\Seen)") == ["t OK STORE completed"]
    assert a.ask("UID STORE 2 -FLAGS (\\Seen)") == ["* 2 FETCH (UID 2 FLAGS (\\Recent))", "t OK STORE completed"]
    assert a.ask("NOOP") == ["t OK NOOP completed"]
    assert not asked
    assert b.ask("STORE 1 +FLAGS.SILENT (\\Flagged)")[-1] == "t OK STORE completed"
    assert asked, "the other session was told of none of it"
    assert a.ask("NOOP") == ["* 1 FETCH (FLAGS (\\Seen \\Flagged \\Recent))", "t OK NOOP completed"]


def test_recent_belongs_to_one_session_only(house: House) -> None:
    a, b = house.login("INBOX"), house.login("INBOX")
    house.fill("INBOX", 2)
    counts = [int(line.split()[1]) for client in (a, b) for line in client.ask("NOOP") if line.endswith("RECENT")]
    assert sorted(counts) == [0, 2]
    found = [client.ask("SEARCH RECENT")[0] for client in (a, b)]
    assert sorted(found) == ["* SEARCH", "* SEARCH 1 2"]


def test_examine_claims_nothing(house: House) -> None:
    house.fill("INBOX", 2)
    looker = house.login()
    assert "* 2 RECENT" in looker.ask("EXAMINE INBOX")
    assert "* 2 RECENT" in house.login().ask("SELECT INBOX")
    house.fill("INBOX", 1)
    assert "* 3 RECENT" in looker.ask("NOOP")
    assert "* 1 RECENT" in house.login().ask("SELECT INBOX")


def test_a_hundred_thousand_unknown_uids_cost_nothing(house: House) -> None:
    house.fill("INBOX", 3)
    client = house.login("INBOX")
    wanted = ",".join(str(uid) for uid in range(2, 20_000, 2))
    assert client.ask(f"UID FETCH {wanted} UID") == ["* 2 FETCH (UID 2)", "t OK FETCH completed"]


@pytest.mark.parametrize("delivered", [1, 10])
def test_idle_hears_within_a_tenth_of_a_second_and_in_one_go(house: House, delivered: int) -> None:
    client = house.login("INBOX")
    client.send(b"i IDLE\r\n")
    house.clock.advance(0.1)
    client.take()
    for number in range(delivered):
        house.waiting = [mail(number)]
        run(house.mailbox.poll())
    house.clock.advance(0.1)
    assert client.lines() == [f"* {delivered} EXISTS", f"* {delivered} RECENT"]


def test_idle_tells_the_first_change_at_once_and_the_next_ones_together(house: House) -> None:
    client = house.login("INBOX")
    client.send(b"i IDLE\r\n")
    house.clock.advance(1)
    client.take()
    house.fill("INBOX", 1)
    house.clock.advance(0)
    assert client.lines() == ["* 1 EXISTS", "* 1 RECENT"]
    for _ in range(3):
        house.fill("INBOX", 1)
        house.clock.advance(0.001)
        assert client.lines() == []
    house.clock.advance(house.factory.limits.push_delay)
    assert client.lines() == ["* 4 EXISTS", "* 4 RECENT"]


def slow_to_tell(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a change is told of when a thread has worked, as by a mailbox that another process has open."""
    changes = house.mailbox.changes

    async def slow(*arguments: Any, **named: Any) -> Changes:
        await house.threads.run(lambda: None)
        return await changes(*arguments, **named)

    monkeypatch.setattr(house.mailbox, "changes", slow)


def test_done_waits_for_what_is_being_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """DONE comes while the news is under way."""
    slow_to_tell(house, monkeypatch)
    client = house.login("INBOX")
    client.send(b"i IDLE\r\n")
    house.clock.advance(1)
    client.take()
    house.fill("INBOX", 1)
    house.threads.held = True
    house.clock.advance(0)
    client.send(b"DONE\r\n")
    assert client.take() == b""
    house.threads.work()
    assert client.lines() == ["* 1 EXISTS", "* 1 RECENT", "i OK IDLE completed"]


def test_a_client_that_leaves_while_it_is_being_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_to_tell(house, monkeypatch)
    client = house.login("INBOX")
    client.send(b"i IDLE\r\n")
    house.clock.advance(1)
    house.fill("INBOX", 1)
    house.threads.held = True
    house.clock.advance(0)
    client.drop()
    assert house.doorman.inside == 1
    house.threads.work()
    assert house.doorman.inside == 0


def test_idle_ends_when_its_folder_is_deleted(house: House) -> None:
    client = house.login()
    client.ask("CREATE Gone")
    client.ask("SELECT Gone")
    client.send(b"i IDLE\r\n")
    client.take()
    run(house.mailbox.delete("Gone"))
    house.clock.advance(0.1)
    assert client.lines() == ["* BYE the selected mailbox was deleted"]
    assert client.closing


def test_a_rename_leaves_the_sessions_where_they_are(house: House) -> None:
    client = house.login()
    client.ask("CREATE Work")
    client.ask("SELECT Work")
    run(house.mailbox.rename("Work", "Play"))
    house.fill("Play", 1)
    assert client.ask("NOOP") == ["* 1 EXISTS", "* 1 RECENT", "t OK NOOP completed"]
