"""A mailbox under random operations against a model of plain dictionaries; every answer and every change report must agree."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.task import Clock

from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.storage.mailbox.api import FIRST_KEYWORD_BIT, SYSTEM_FLAGS, NewMessage, Selected
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.rows import runs
from tests.storage.mailbox.driving import ID, KEY, at_once, collect, nothing_waits, run

FOLDERS = ("INBOX", "Archive", "Trash")
CONTENTS = tuple(b"Subject: %d\r\n\r\nbody %d\r\n" % (number, number) for number in range(4))
folders = st.sampled_from(FOLDERS)
flags = st.frozensets(st.sampled_from(("\\Seen", "\\Deleted", "\\Flagged", "$Junk", "Work")), max_size=3)
uid_sets = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3)), max_size=3).map(
    lambda pairs: runs(sorted({uid for first, length in pairs for uid in range(first, first + length + 1)}))
)


@dataclass
class Watching:
    """What a session knows: the state at SELECT and every change that it was told of since."""

    folder: str
    selected: Selected
    uids: set[int] = field(default_factory=set)
    flags: dict[int, frozenset[str]] = field(default_factory=dict)
    modseq: int = 0
    uidnext: int = 0


class MailboxModel(RuleBasedStateMachine):
    """UID → (content, flags) for each folder."""

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_790_000_000)
        self.folder = tempfile.TemporaryDirectory()
        self.files = MailboxFiles(Path(self.folder.name))
        self.files.create(ID, KEY)
        self.mailbox = self.opened()
        self.model: dict[str, dict[int, tuple[bytes, frozenset[str]]]] = {name: {} for name in FOLDERS}
        self.uidnext = dict.fromkeys(FOLDERS, 1)
        self.sessions = [self.session(name) for name in FOLDERS]

    def opened(self) -> LocalMailbox:
        return run(open_mailbox(self.files, ID, KEY, at_once, self.clock, nothing_waits))

    def session(self, name: str) -> Watching:
        selected = run(self.mailbox.select(name, claim_recent=False))
        return Watching(name, selected, modseq=selected.status.highestmodseq, uidnext=selected.status.uidnext)

    def folder_id(self, name: str) -> int:
        return self.sessions[FOLDERS.index(name)].selected.folder_id

    def addressed(self, name: str, uids: Ranges) -> list[int]:
        return [uid for uid in sorted(self.model[name]) if any(first <= uid <= last for first, last in uids)]

    def arrive(self, name: str, messages: list[tuple[bytes, frozenset[str]]]) -> list[int]:
        uids = list(range(self.uidnext[name], self.uidnext[name] + len(messages)))
        self.model[name].update(zip(uids, messages, strict=True))
        self.uidnext[name] += len(messages)
        return uids

    def names(self, mask: int) -> frozenset[str]:
        keywords = enumerate(self.mailbox.keywords(), FIRST_KEYWORD_BIT)
        known = SYSTEM_FLAGS | {name: 1 << bit for bit, name in keywords}
        return frozenset(name for name, bit in known.items() if mask & bit)

    @rule(name=folders, picks=st.lists(st.tuples(st.sampled_from(CONTENTS), flags), min_size=1, max_size=3))
    def append(self, name: str, picks: list[tuple[bytes, frozenset[str]]]) -> None:
        appended = run(self.mailbox.append(name, [NewMessage(content, names) for content, names in picks]))
        assert list(appended.uids) == self.arrive(name, picks)

    @rule(name=folders, uids=uid_sets, action=st.sampled_from(("add", "remove", "replace")), names=flags)
    def store(self, name: str, uids: Ranges, action: str, names: frozenset[str]) -> None:
        stored = run(self.mailbox.store(self.folder_id(name), uids, action, names))  # type: ignore[arg-type]
        for uid in self.addressed(name, uids):
            content, old = self.model[name][uid]
            new = {"add": old | names, "remove": old - names, "replace": names}[action]
            self.model[name][uid] = (content, new)
        told = {uid: self.names(mask) for uid, mask, _ in stored.changed}
        assert told == {uid: self.model[name][uid][1] for uid in self.addressed(name, uids)}

    @rule(source=folders, destination=folders, uids=uid_sets)
    def copy(self, source: str, destination: str, uids: Ranges) -> None:
        copied = run(self.mailbox.copy(self.folder_id(source), uids, destination))
        assert list(copied.source) == self.addressed(source, uids)
        assert list(copied.target) == self.arrive(destination, [self.model[source][uid] for uid in copied.source])

    @rule(source=folders, destination=folders, uids=uid_sets)
    def move(self, source: str, destination: str, uids: Ranges) -> None:
        moved = run(self.mailbox.move(self.folder_id(source), uids, destination))
        assert list(moved.source) == self.addressed(source, uids)
        taken = [self.model[source].pop(uid) for uid in moved.source]
        assert list(moved.target) == self.arrive(destination, taken)

    @rule(name=folders, uids=st.none() | uid_sets)
    def expunge(self, name: str, uids: Ranges | None) -> None:
        gone = run(self.mailbox.expunge(self.folder_id(name), uids))
        every = uids if uids is not None else ((1, 2**32 - 1),)
        doomed = [uid for uid in self.addressed(name, every) if "\\Deleted" in self.model[name][uid][1]]
        assert gone.uids == runs(doomed)
        for uid in doomed:
            del self.model[name][uid]

    @rule(name=folders)
    def look(self, name: str) -> None:
        """A session that is told of the changes knows the folder exactly."""
        watching = self.sessions[FOLDERS.index(name)]
        changes = run(self.mailbox.changes(watching.selected.folder_id, watching.modseq, watching.uidnext, claim_recent=False))
        watching.uids -= {uid for first, last in changes.vanished for uid in range(first, last + 1)}
        for uid, mask, modseq in (*changes.changed, *changes.added):
            assert watching.modseq < modseq <= changes.modseq
            watching.uids.add(uid)
            watching.flags[uid] = self.names(mask)
        watching.modseq, watching.uidnext = changes.modseq, changes.uidnext
        assert watching.uids == set(self.model[name])
        assert all(watching.flags[uid] == names for uid, (_, names) in self.model[name].items())

    @rule()
    def reopen(self) -> None:
        run(self.mailbox.close())
        self.mailbox = self.opened()

    @invariant()
    def counters_and_contents_agree(self) -> None:
        if not hasattr(self, "mailbox"):
            return
        for name in FOLDERS:
            status = run(self.mailbox.status(name))
            model = self.model[name]
            assert status.messages == len(model)
            assert status.uidnext == self.uidnext[name]
            assert status.unseen == sum("\\Seen" not in names for _, names in model.values())
            assert status.deleted == sum("\\Deleted" in names for _, names in model.values())
            assert status.size == sum(len(content) for content, _ in model.values())
            rows = run(collect(self.mailbox.fetch(self.folder_id(name), ((1, 2**32 - 1),), ["uid", "content", "flags"])))
            assert {uid: (content, self.names(mask)) for uid, content, mask in rows} == model

    def teardown(self) -> None:
        if not hasattr(self, "mailbox"):
            return
        assert run(self.mailbox.check_consistency()) == []
        run(self.mailbox.close())
        self.folder.cleanup()


TestMailboxModel = MailboxModel.TestCase
TestMailboxModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
