"""The contract of the directory, the same for the encrypted file and for PostgreSQL."""

from __future__ import annotations

import dataclasses
import datetime
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from fe_twisted.base.addresses import parse_address
from fe_twisted.base.errors import AlreadyExists, BadAddress, BadSettings, Busy, MailError, NotFound, Refused, UnknownDomain
from fe_twisted.storage.directory.api import Alias, AliasState, Directory, KeySlot
from fe_twisted.storage.directory.sql import SqlDirectory, open_directory

Open = Callable[[], SqlDirectory]


def slot(label: str = "", wrapped: bytes = b"\x00\xff wrapped") -> KeySlot:
    return KeySlot(0, "password", label, "hkdf-sha256", b"\x00salt", wrapped, "2026-01-02T03:04:05+00:00")


def test_it_is_a_directory(directory: SqlDirectory) -> None:
    """Checked by mypy: the class has all that the interface names."""
    interface: Directory = directory
    assert interface.generation() > 0


def test_accounts(directory: SqlDirectory) -> None:
    family = directory.add_account("a family")
    assert [account.name for account in directory.accounts()] == ["a family", "default"]
    assert family in directory.accounts()
    with pytest.raises(AlreadyExists):
        directory.add_account("a family")


def test_domains_have_one_spelling(directory: SqlDirectory) -> None:
    account = directory.accounts()[0]
    made = directory.add_domain("BÜCHER.example", account.id)
    assert made.name == "xn--bcher-kva.example"
    for name in ("bücher.example", "xn--bcher-kva.EXAMPLE", "Bücher.Example"):
        assert directory.domain(name) == made
        with pytest.raises(AlreadyExists):
            directory.add_domain(name, account.id)
    assert directory.domain("other.example") is None
    assert [domain.name for domain in directory.domains()] == ["example.com", "xn--bcher-kva.example"]


def test_domains_that_cannot_be(directory: SqlDirectory) -> None:
    account = directory.accounts()[0]
    for name in ("", "a b", "[192.0.2.1]", "x@example.com"):
        with pytest.raises(BadAddress):
            directory.add_domain(name, account.id)
    with pytest.raises(NotFound):
        directory.add_domain("other.example", account.id + 100)
    assert len(directory.domains()) == 1


def test_a_domain_with_aliases_stays(directory: SqlDirectory) -> None:
    directory.add_alias("hello@example.com")
    with pytest.raises(Refused):
        directory.remove_domain("example.com")
    directory.remove_alias("hello@example.com")
    directory.remove_domain("EXAMPLE.com")
    assert directory.domains() == []
    with pytest.raises(NotFound):
        directory.remove_domain("example.com")


def test_a_fresh_alias(directory: SqlDirectory) -> None:
    made = directory.add_alias("Hello@Example.COM")
    assert made == Alias(made.id, "hello@example.com", AliasState.ENABLED, None, None, "local", made.created_at)
    assert datetime.datetime.fromisoformat(made.created_at).utcoffset() == datetime.timedelta(0)
    assert directory.alias("HELLO@example.com") == made
    assert directory.key_slots(made.id) == []


def test_aliases_that_cannot_be(directory: SqlDirectory) -> None:
    directory.add_alias("hello@example.com")
    with pytest.raises(AlreadyExists):
        directory.add_alias("HELLO@example.com")
    with pytest.raises(UnknownDomain):
        directory.add_alias("hello@other.example")
    with pytest.raises(BadAddress):
        directory.add_alias("hello")
    assert directory.alias("nobody@example.com") is None
    assert directory.alias("hello@other.example") is None


@pytest.mark.parametrize(
    "address",
    ['"a b"@example.com', "jürgen@example.com", "o'neil@example.com", "100%_x@example.com", '"\\"; --"@example.com'],
)
def test_odd_local_parts_come_back_as_they_were(directory: SqlDirectory, address: str) -> None:
    made = directory.add_alias(address)
    assert made.address == address
    assert directory.alias(address) == made
    assert directory.aliases() == [made]
    assert directory.remove_alias(address) == made


def test_like_patterns_are_not_patterns(directory: SqlDirectory) -> None:
    directory.add_alias("axb@example.com")
    assert directory.alias("a_b@example.com") is None
    assert directory.alias("%@example.com") is None


def test_aliases_are_listed_by_address(directory: SqlDirectory) -> None:
    directory.add_domain("b.example", directory.accounts()[0].id)
    for address in ("b@example.com", "a@example.com", "z@b.example", "Ü@example.com"):
        directory.add_alias(address)
    assert [alias.address for alias in directory.aliases()] == ["a@example.com", "b@example.com", "z@b.example", "ü@example.com"]
    assert [alias.address for alias in directory.aliases("B.example")] == ["z@b.example"]
    assert directory.aliases("missing.example") == []


def test_states(directory: SqlDirectory) -> None:
    directory.add_alias("hello@example.com")
    for state in AliasState:
        directory.set_alias_state("hello@example.com", state)
        found = directory.alias("hello@example.com")
        assert found is not None
        assert found.state is state
    with pytest.raises(NotFound):
        directory.set_alias_state("nobody@example.com", AliasState.REJECT)


def test_a_mailbox_and_its_slots(directory: SqlDirectory) -> None:
    alias = directory.add_alias("hello@example.com")
    directory.set_mailbox(alias.id, "a" * 24, b"\x00public\xff", [slot("one"), slot("two")])
    found = directory.alias("hello@example.com")
    assert found is not None
    assert (found.mailbox_id, found.sealing_key) == ("a" * 24, b"\x00public\xff")
    one, two = directory.key_slots(alias.id)
    assert (one.label, two.label) == ("one", "two")
    assert one == KeySlot(one.id, "password", "one", "hkdf-sha256", b"\x00salt", b"\x00\xff wrapped", "2026-01-02T03:04:05+00:00")
    directory.set_mailbox(alias.id, "b" * 24, b"other", [slot("three")], replaces="a" * 24)
    assert [each.label for each in directory.key_slots(alias.id)] == ["three"]


def test_of_two_who_make_a_mailbox_one_is_told(directory: SqlDirectory) -> None:
    alias = directory.add_alias("hello@example.com")
    directory.set_mailbox(alias.id, "a" * 24, b"public", [slot("winner")])
    for replaces in (None, "c" * 24):
        with pytest.raises(Busy):
            directory.set_mailbox(alias.id, "b" * 24, b"public", [slot("loser")], replaces=replaces)
    assert [each.label for each in directory.key_slots(alias.id)] == ["winner"]
    with pytest.raises(NotFound):
        directory.set_mailbox(alias.id + 1, "d" * 24, b"public", [])


def test_two_aliases_never_share_a_mailbox(directory: SqlDirectory) -> None:
    first, second = directory.add_alias("a@example.com"), directory.add_alias("b@example.com")
    directory.set_mailbox(first.id, "a" * 24, b"public", [slot()])
    with pytest.raises(MailError):
        directory.set_mailbox(second.id, "a" * 24, b"public", [slot()])
    assert directory.key_slots(second.id) == []


def test_replacing_a_slot_happens_once(directory: SqlDirectory) -> None:
    alias = directory.add_alias("hello@example.com")
    directory.set_mailbox(alias.id, "a" * 24, b"public", [slot("old"), slot("kept")])
    old = directory.key_slots(alias.id)[0]
    directory.replace_slot(alias.id, old.id, slot("new"))
    with pytest.raises(NotFound):
        directory.replace_slot(alias.id, old.id, slot("late"))
    assert sorted(each.label for each in directory.key_slots(alias.id)) == ["kept", "new"]


def test_a_slot_of_another_alias_is_not_replaced(directory: SqlDirectory) -> None:
    first, second = directory.add_alias("a@example.com"), directory.add_alias("b@example.com")
    directory.set_mailbox(first.id, "a" * 24, b"public", [slot("first")])
    directory.set_mailbox(second.id, "b" * 24, b"public", [slot("second")])
    theirs = directory.key_slots(second.id)[0]
    with pytest.raises(NotFound):
        directory.replace_slot(first.id, theirs.id, slot("stolen"))
    assert [each.label for each in directory.key_slots(first.id)] == ["first"]
    assert [each.label for each in directory.key_slots(second.id)] == ["second"]


def test_removing_an_alias_takes_its_slots_and_nobody_inherits_its_number(directory: SqlDirectory) -> None:
    alias = directory.add_alias("hello@example.com")
    directory.set_mailbox(alias.id, "a" * 24, b"public", [slot()])
    removed = directory.remove_alias("hello@example.com")
    assert (removed.id, removed.mailbox_id) == (alias.id, "a" * 24)
    assert directory.key_slots(alias.id) == []
    assert directory.add_alias("hello@example.com").id != alias.id
    with pytest.raises(NotFound):
        directory.remove_alias("nobody@example.com")


def test_every_change_is_seen_in_the_generation_and_a_refusal_is_not(directory: SqlDirectory) -> None:
    account = directory.accounts()[0]
    seen = [directory.generation()]
    alias = directory.add_alias("hello@example.com")
    seen.append(directory.generation())
    directory.set_mailbox(alias.id, "a" * 24, b"public", [slot()])
    seen.append(directory.generation())
    directory.replace_slot(alias.id, directory.key_slots(alias.id)[0].id, slot())
    seen.append(directory.generation())
    directory.set_alias_state("hello@example.com", AliasState.DEFER)
    seen.append(directory.generation())
    directory.remove_alias("hello@example.com")
    seen.append(directory.generation())
    directory.add_domain("other.example", account.id)
    seen.append(directory.generation())
    directory.remove_domain("other.example")
    seen.append(directory.generation())
    assert seen == sorted(set(seen))
    with pytest.raises(NotFound):
        directory.remove_domain("other.example")
    assert directory.generation() == seen[-1]


def test_what_was_written_is_there_after_opening_again(directory: SqlDirectory, opened: Open) -> None:
    alias = directory.add_alias("hello@example.com")
    directory.set_mailbox(alias.id, "a" * 24, b"public", [slot()])
    expected, slots = directory.alias("hello@example.com"), directory.key_slots(alias.id)
    directory.close()
    again = opened()
    assert again.alias("hello@example.com") == expected
    assert again.key_slots(alias.id) == slots


def test_two_that_are_open_see_each_other(directory: SqlDirectory, opened: Open) -> None:
    other = opened()
    before = other.generation()
    directory.add_alias("hello@example.com")
    assert other.alias("hello@example.com") is not None
    assert other.generation() > before
    other.remove_alias("hello@example.com")
    assert directory.alias("hello@example.com") is None


_WRITER = """
import sys
from fe_twisted.storage.directory.sql import open_directory
where, name = sys.argv[1:]
directory = open_directory(where, bytes(range(32)))
for number in range(40):
    directory.add_alias(f"{name}{number}@example.com")
    assert directory.alias(f"{name}{number}@example.com") is not None
directory.close()
"""


def test_processes_that_write_at_the_same_time_lose_nothing(directory: SqlDirectory, where: str) -> None:
    before = directory.generation()
    others = [subprocess.Popen([sys.executable, "-c", _WRITER, where, name], stderr=subprocess.PIPE) for name in ("a", "b")]
    for number in range(40):
        directory.add_alias(f"c{number}@example.com")
    for other in others:
        _, complaint = other.communicate(timeout=60)
        assert other.returncode == 0, complaint.decode()
    assert len(directory.aliases()) == 120
    assert directory.generation() == before + 120


def test_threads_that_write_at_the_same_time_lose_nothing(directory: SqlDirectory) -> None:
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(15):
                directory.add_alias(f"{name}{number}@example.com")
                assert directory.recipient(parse_address(f"{name}{number}@example.com"))[1] is not None
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(directory.aliases()) == 60


def test_two_that_make_the_directory_at_the_same_time(opened: Open) -> None:
    made: list[object] = []

    def make() -> None:
        try:
            made.append(opened().generation())
        except BaseException as error:
            made.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert made == [0, 0, 0, 0]


def test_a_key_of_another_size_is_refused(where: str) -> None:
    with pytest.raises(BadSettings):
        open_directory(where, b"short")


def test_hidden_capabilities_are_kept_with_the_alias(directory: SqlDirectory) -> None:
    """They come back wherever an alias does, and every change is noticed."""
    assert directory.add_alias("hello@example.com").hidden == ()
    before = directory.generation()
    directory.set_hidden("hello@example.com", ["qresync", "IDLE", "QRESYNC"])
    found = directory.alias("hello@example.com")
    assert found is not None and found.hidden == ("IDLE", "QRESYNC")
    assert directory.aliases()[0].hidden == ("IDLE", "QRESYNC")
    assert directory.generation() > before
    directory.set_hidden("hello@example.com", [])
    assert directory.aliases()[0].hidden == ()
    with pytest.raises(NotFound):
        directory.set_hidden("nobody@example.com", ["IDLE"])


def test_the_shared_secret_is_that_of_the_first_who_asked(opened: Callable[[], SqlDirectory]) -> None:
    """Also when both ask before either has an answer, as two boxes do that start together."""
    one, other = opened(), opened()
    generation = one.generation()
    assert one.shared_secret(b"1" * 32) == b"1" * 32
    assert other.shared_secret(b"2" * 32) == one.shared_secret(b"3" * 32) == b"1" * 32
    assert one.generation() == generation


def test_two_who_make_the_shared_secret_at_once_agree(opened: Callable[[], SqlDirectory]) -> None:
    boxes = [opened() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda box, offer: box.shared_secret(offer), boxes, [bytes([number]) * 32 for number in range(4)]))
    assert len(found) == 1


def test_a_mailbox_changes_its_location_if_it_is_where_it_was(directory: SqlDirectory) -> None:
    alias = directory.add_alias("hello@example.com", "one")
    assert alias.location == "one" and directory.add_alias("other@example.com").location == "local"
    directory.set_mailbox(alias.id, "a" * 24, b"public", [])
    assert directory.elsewhere("one") == {} and directory.elsewhere("local") == {"a" * 24: "one"}, "those without a mailbox are nowhere"
    directory.set_location("a" * 24, "two", replaces="one")
    directory.set_location("a" * 24, "two", replaces="one")
    assert directory.elsewhere("one") == {"a" * 24: "two"}
    generation = directory.generation()
    with pytest.raises(Refused):
        directory.set_location("a" * 24, "three", replaces="one")
    with pytest.raises(NotFound):
        directory.set_location("b" * 24, "two", replaces="one")
    found = directory.owner("a" * 24)
    assert found is not None and found.location == "two" and directory.generation() == generation


def test_a_location_gets_another_name(directory: SqlDirectory) -> None:
    alias = directory.add_alias("hello@example.com", "local")
    directory.add_alias("empty@example.com", "local")
    directory.add_alias("other@example.com", "two")
    directory.set_mailbox(alias.id, "a" * 24, b"public", [])
    assert directory.locations() == {"local": 2, "two": 1}
    generation = directory.generation()
    with pytest.raises(AlreadyExists, match="1 aliases are at two"):
        directory.rename_location("local", "two")
    with pytest.raises(NotFound, match="local, two"):
        directory.rename_location("three", "four")
    assert directory.locations() == {"local": 2, "two": 1} and directory.generation() == generation
    assert directory.rename_location("local", "one") == 2
    assert directory.locations() == {"one": 2, "two": 1} and directory.generation() > generation
    assert directory.elsewhere("one") == {}


def test_an_alias_without_a_mailbox_is_placed(directory: SqlDirectory) -> None:
    alias = directory.add_alias("hello@example.com")
    assert directory.place_alias("Hello@Example.com", "two").location == "two"
    assert directory.alias("hello@example.com") == dataclasses.replace(alias, location="two")
    directory.set_mailbox(alias.id, "a" * 24, b"public", [])
    with pytest.raises(Busy):
        directory.place_alias("hello@example.com", "three")
    with pytest.raises(NotFound):
        directory.place_alias("nobody@example.com", "three")
    assert directory.elsewhere("local") == {"a" * 24: "two"}
