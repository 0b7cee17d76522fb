"""A damaged mailbox file: what can be read is exported and checked, and what cannot is named."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path
from typing import Any

import apsw
import pytest
from twisted.internet.task import Clock

from fe_twisted.base.errors import DamagedFile
from fe_twisted.storage.mailbox import words
from fe_twisted.storage.mailbox.api import NewMessage
from fe_twisted.storage.mailbox.check import problems
from fe_twisted.storage.mailbox.content import load_content
from fe_twisted.storage.mailbox.files import PAGE_SIZE, MailboxFiles
from fe_twisted.storage.mailbox.local import open_mailbox
from fe_twisted.storage.mailbox.rows import uid_of
from fe_twisted.storage.mailbox.salvage import Place, sentence
from fe_twisted.storage.sqlite.connect import connect
from tests.storage.mailbox.driving import ID, KEY, at_once, nothing_waits, run
from tests.storage.mailbox.samples import add, mail, with_attachment

COUNT = 60
PASSWORD = "correct horse"

Before = dict[Place, tuple[Any, ...]]


def content(number: int) -> bytes:
    """So long that each table has several pages."""
    body = b" ".join(b"w%dx%d" % (number, word) for word in range(200)) + b"\r\n"
    return b"X-Number: %s\r\n" % (b"%d." % number * 60) + mail(number, body)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Before]:
    """The file of a mailbox with some folders, and what an export of it has."""
    folder = tmp_path_factory.mktemp("whole")
    files = MailboxFiles(folder / "mailboxes")
    files.create(ID, KEY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "MESSAGES", COUNT)
        mailbox = run(open_mailbox(files, ID, KEY, at_once, Clock(), nothing_waits))
        when = datetime.datetime(2020, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
        flags = frozenset({"\\Seen", "Blue"})
        run(mailbox.append("INBOX", [NewMessage(content(number), flags, when) for number in range(1, COUNT + 1)]))
        add(mailbox, with_attachment(1), with_attachment(2), content(7), folder="Archive")
        run(mailbox.close())
    with contextlib.closing(files.open(ID, KEY)) as connection:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    assert files.export(ID, KEY, folder / "copy.sqlite", PASSWORD) is None
    with contextlib.closing(opened(folder / "copy.sqlite")) as connection:
        return files.path(ID).read_bytes(), read(connection)


@pytest.fixture
def before(whole: tuple[bytes, Before]) -> Before:
    """What an export has before anything is damaged."""
    assert len(whole[1]) == COUNT + 3
    return whole[1]


@pytest.fixture
def files(tmp_path: Path, whole: tuple[bytes, Before]) -> MailboxFiles:
    """A copy of the mailbox that may be damaged."""
    files = MailboxFiles(tmp_path / "mailboxes")
    files.path(ID).write_bytes(whole[0])
    return files


def pages(files: MailboxFiles, table: str) -> list[int]:
    """The root first."""
    with contextlib.closing(files.open(ID, KEY)) as connection:
        rows: list[Any] = connection.execute("SELECT pageno FROM dbstat WHERE name = ? ORDER BY path", (table,)).fetchall()
    return [page for (page,) in rows]


def damage(files: MailboxFiles, *damaged: int) -> None:
    with open(files.path(ID), "r+b") as file:
        for page in damaged:
            file.seek((page - 1) * PAGE_SIZE + 200)
            file.write(b"damaged")


def leaf(files: MailboxFiles, table: str) -> int:
    """One in the middle."""
    all_pages = pages(files, table)
    return all_pages[len(all_pages) // 2]


def opened(output: Path) -> apsw.Connection:
    connection = apsw.Connection(str(output))
    connection.pragma("cipher", "chacha20")
    connection.pragma("key", PASSWORD)
    return connection


def read(connection: apsw.Connection) -> dict[Place, tuple[Any, ...]]:
    """Every message of a copy: octets, flags, dates and EMAILID."""
    rows: list[Any] = connection.execute(
        "SELECT e.id, f.name, e.message_id, e.flags, e.internaldate, m.object_id FROM entries e JOIN messages m ON m.id = e.message_id"
        " JOIN folders f ON f.id = e.id >> 32"
    ).fetchall()
    return {Place(name, uid_of(entry)): (load_content(connection, message), *rest) for entry, name, message, *rest in rows}


INDEX = ("terms_data", "terms_idx", "terms_docsize", "terms_config", "grams_data", "grams_config", "vocabulary", "vocabulary_common")
MADE_ANEW = ("summaries", "fields", "texts", "orders", "previews", "kin", "messages_size", "entries_day", "entries_message")


@pytest.mark.parametrize("table", [*INDEX, *MADE_ANEW])
@pytest.mark.parametrize("pick", [slice(1), slice(None)], ids=["root", "all"])
def test_damage_that_costs_no_mail(files: MailboxFiles, tmp_path: Path, before: Before, table: str, pick: slice) -> None:
    damage(files, *pages(files, table)[pick])
    output = tmp_path / "copy.sqlite"
    rescued = files.export(ID, KEY, output, PASSWORD)
    assert rescued is not None and rescued.whole and rescued.messages == COUNT + 3
    assert table in rescued.damaged
    assert oct(output.stat().st_mode & 0o777) == "0o600" and [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with contextlib.closing(opened(output)) as connection:
        assert read(connection) == before
        with connection:
            assert problems(connection) == []
    report = files.examine(ID, KEY)
    assert table in report.damaged and report.lost == []
    assert f"the mail is whole: each of {COUNT + 3} messages was put together and is as it came in" in report.notes
    assert any(table in problem for problem in report.problems)
    assert any("search index is damaged" in problem for problem in report.problems) == (table in INDEX)
    assert bool(report.hit) == (table in MADE_ANEW[:5]), "what lists and SEARCH need of messages"


@pytest.mark.parametrize("table", ["headers", "bodies", "attachments"])
def test_damage_to_contents_costs_these_messages(files: MailboxFiles, tmp_path: Path, before: Before, table: str) -> None:
    damage(files, pages(files, table)[-1])
    output = tmp_path / "copy.sqlite"
    rescued = files.export(ID, KEY, output, PASSWORD)
    assert rescued is not None and not rescued.whole
    assert 0 < len(rescued.lost) < COUNT and rescued.messages == len(before) - len(rescued.lost)
    with contextlib.closing(opened(output)) as connection:
        assert read(connection) == {place: row for place, row in before.items() if place not in rescued.lost}
        with connection:
            assert problems(connection) == []
    report = files.examine(ID, KEY)
    assert report.lost == list(rescued.lost)
    assert f"messages that cannot be read: {sentence(rescued.lost)}" in report.problems


@pytest.mark.parametrize("index", [False, True])
def test_where_attachments_were_cut_out(files: MailboxFiles, tmp_path: Path, before: Before, index: bool) -> None:
    """An index says it, too; and without that messages that have none are known by their digest."""
    damage(files, *pages(files, "cuts"), *(pages(files, "cuts_attachment") if index else ()))
    output = tmp_path / "copy.sqlite"
    rescued = files.export(ID, KEY, output, PASSWORD)
    assert rescued is not None
    assert rescued.lost == ((Place("Archive", 1), Place("Archive", 2)) if index else ())
    with contextlib.closing(opened(output)) as connection:
        assert read(connection) == {place: row for place, row in before.items() if place not in rescued.lost}


def test_what_messages_lie_where_is_known_by_an_index(files: MailboxFiles, tmp_path: Path, before: Before) -> None:
    """Without the row of a message in its folder, its flags and date are lost, and not the message."""
    damage(files, *pages(files, "entries"))
    output = tmp_path / "copy.sqlite"
    rescued = files.export(ID, KEY, output, PASSWORD)
    assert rescued is not None and not rescued.whole and rescued.lost == ()
    assert set(rescued.bare) == set(before)
    with contextlib.closing(opened(output)) as connection:
        found = read(connection)
        with connection:
            assert problems(connection) == []
    assert {place: row[0] for place, row in found.items()} == {place: row[0] for place, row in before.items()}


def test_messages_without_a_folder_are_not_lost(files: MailboxFiles, tmp_path: Path, before: Before) -> None:
    damage(files, leaf(files, "entries"), *pages(files, "entries_message"))
    output = tmp_path / "copy.sqlite"
    rescued = files.export(ID, KEY, output, PASSWORD)
    assert rescued is not None and rescued.strays and rescued.lost == ()
    assert {place.folder for place in rescued.strays} == {"Rescued"}
    assert sum(rescued.uncounted.values()) >= len(rescued.strays)
    with contextlib.closing(opened(output)) as connection:
        found = read(connection)
        with connection:
            assert problems(connection) == []
    assert {row[0] for row in found.values()} == {row[0] for row in before.values()}


FOLDERS = ("folders", "sqlite_autoindex_folders_1", "entries_message")


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("more", [(), ("sqlite_sequence",), ("entries",), ("entries", "sqlite_sequence"), ("annotations", "orphans")])
def test_messages_in_folders_of_which_nothing_can_be_read(
    files: MailboxFiles, tmp_path: Path, before: Before, more: tuple[str, ...], header: bool
) -> None:
    """They are found by the keys of the messages, or without; and those that cannot be read are counted."""
    damage(files, *(page for table in (*FOLDERS, *more) for page in pages(files, table)), *([leaf(files, "headers")] if header else ()))
    output = tmp_path / "copy.sqlite"
    rescued = files.export(ID, KEY, output, PASSWORD)
    assert rescued is not None and not rescued.whole
    with contextlib.closing(opened(output)) as connection:
        found = read(connection)
        with connection:
            assert problems(connection) == []
    all_of_it = {row[0] for row in before.values()}
    lost = all_of_it - {row[0] for row in found.values()}
    assert bool(lost) == header
    assert bool(rescued.strays) == ("entries" in more)
    assert bool(rescued.lost) == (header and not rescued.strays)
    unplaced = f"{len(lost)} messages that cannot be read and whose folder nobody knows"
    assert (unplaced in rescued.missing) == bool(header and rescued.strays)
    report = files.examine(ID, KEY)
    assert any("the mail is whole" in note for note in report.notes) == (not header and not rescued.strays)
    if rescued.strays:
        assert f"of {len(all_of_it)} messages nothing says in which folder they are" in report.problems
        assert f"of {len(all_of_it)} messages {len(all_of_it) - len(lost)} are whole; mailbox export writes them" in report.notes


@pytest.fixture
def many(tmp_path: Path) -> MailboxFiles:
    """So many folders that they take several pages; some have names as if they were made up."""
    files = MailboxFiles(tmp_path / "many")
    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, Clock(), nothing_waits))
    for number in range(1, 121):
        name = f"Folder {number}" if number % 2 else f"{'Folder' * 20} {number}"
        run(mailbox.create(name))
        run(mailbox.set_metadata(name, [("/private/comment", b"%d" % number)]))
        if number % 3:
            add(mailbox, mail(number), folder=name)
    run(mailbox.close())
    with contextlib.closing(files.open(ID, KEY)) as connection:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    return files


@pytest.mark.parametrize("number", [0, 1, -1])
def test_folders_that_are_made_up_have_names_of_their_own(many: MailboxFiles, tmp_path: Path, number: int) -> None:
    """And annotations of those that are lost are told as lost."""
    assert len(pages(many, "folders")) >= 3
    damage(many, pages(many, "folders")[number], *pages(many, "sqlite_autoindex_folders_1"))
    output = tmp_path / "copy.sqlite"
    rescued = many.export(ID, KEY, output, PASSWORD)
    assert rescued is not None and rescued.messages == 80
    assert rescued.lost == rescued.strays == () and "the annotations" in rescued.missing
    assert "folders of which nothing can be read, if there were any" in rescued.missing
    with contextlib.closing(opened(output)) as connection, connection:
        assert problems(connection) == []
        assert 0 < int(connection.execute("SELECT count(*) FROM annotations").get) < 120


def test_without_the_settings_of_the_mailbox(files: MailboxFiles, tmp_path: Path, before: Before) -> None:
    """The key says whose it is."""
    damage(files, *pages(files, "meta"))
    output = tmp_path / "copy.sqlite"
    rescued = files.export(ID, KEY, output, PASSWORD)
    assert rescued is not None and rescued.missing == ("the settings of the mailbox",) and rescued.damaged == ("meta",)
    with contextlib.closing(opened(output)) as connection:
        assert read(connection) == before
    report = files.examine(ID, KEY)
    assert "folders and settings of the mailbox are damaged (meta)" in report.problems and report.lost == []


def test_the_file_of_another_mailbox_is_refused(files: MailboxFiles, tmp_path: Path) -> None:
    with contextlib.closing(files.open(ID, KEY)) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = 'mailbox_id'", ("f" * 24,))
    with pytest.raises(DamagedFile) as exported:
        files.export(ID, KEY, tmp_path / "copy.sqlite", PASSWORD)
    with pytest.raises(DamagedFile) as examined:
        files.examine(ID, KEY)
    assert exported.value.reason == examined.value.reason == f"file {ID} holds mailbox {'f' * 24}"
    assert [path.name for path in tmp_path.iterdir()] == ["mailboxes"]


def test_a_file_that_damage_keeps_from_being_brought_up_to_date(files: MailboxFiles, tmp_path: Path, before: Before) -> None:
    """Is exported as it is; to check it, it would have to be."""
    damaged = leaf(files, "summaries")
    with contextlib.closing(connect(files.path(ID), key=KEY)) as connection:
        connection.execute("DROP TABLE gaps")
        connection.execute("PRAGMA user_version = 3")
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    damage(files, 2, damaged)
    with pytest.raises(DamagedFile):
        files.examine(ID, KEY)
    output = tmp_path / "copy.sqlite"
    rescued = files.export(ID, KEY, output, PASSWORD)
    assert rescued is not None and rescued.whole
    with contextlib.closing(opened(output)) as connection:
        assert read(connection) == before


@pytest.mark.parametrize("table", ["folders", "keywords", "subscriptions", "annotations", "messages", "sqlite_sequence", "expunged"])
def test_damage_elsewhere(files: MailboxFiles, tmp_path: Path, before: Before, table: str) -> None:
    damage(files, *pages(files, table))
    output = tmp_path / "copy.sqlite"
    rescued = files.export(ID, KEY, output, PASSWORD)
    assert rescued is not None and rescued.messages == COUNT + 3 and table in rescued.damaged
    with contextlib.closing(opened(output)) as connection:
        found = read(connection)
        with connection:
            assert problems(connection) == []
    assert {place: row[0] for place, row in found.items()} == {place: row[0] for place, row in before.items()}
    assert rescued.whole == (table in ("messages", "sqlite_sequence", "expunged"))


def test_the_check_goes_on(files: MailboxFiles) -> None:
    """What has nothing to do with the damage is told all the same."""
    with contextlib.closing(files.open(ID, KEY)) as connection:
        connection.execute("UPDATE folders SET unseen = unseen + 5 WHERE name = 'Archive'")
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    damage(files, pages(files, "terms_data")[0])
    report = files.examine(ID, KEY)
    assert any("counters say" in problem for problem in report.problems)
    assert any("made anew" in note for note in report.notes)
    assert "folders, flags and lists are whole, too" in report.notes


def test_an_index_that_was_made_anew_is_no_problem(files: MailboxFiles, tmp_path: Path, clock: Clock) -> None:
    """What is left of the old one has to be read by nobody."""
    damage(files, pages(files, "vocabulary")[-1])
    with contextlib.closing(files.open(ID, KEY)) as connection, connection:
        words.renew(connection)
    run(run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits)).close())
    report = files.examine(ID, KEY)
    assert report.problems == [] and any("nothing has to be done" in note for note in report.notes)


def test_a_check_that_cannot_be_made_is_a_problem(files: MailboxFiles) -> None:
    """Also when all tables can be read: the free pages and the map of pages belong to none."""
    with contextlib.closing(files.open(ID, KEY)) as connection:
        assert connection.pragma("auto_vacuum") == 2, "so page 2 is the map"
    damage(files, 2)
    report = files.examine(ID, KEY)
    assert report.problems and report.lost == []


def test_places_as_one_reads_them() -> None:
    assert sentence([Place("INBOX", 4), Place("INBOX", 3), Place("INBOX", 9), Place("Sent", 1)]) == "INBOX UID 3:4,9; Sent UID 1"
