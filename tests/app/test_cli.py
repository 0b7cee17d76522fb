"""Every verb as a person and as a program uses it: text or one JSON object, exit status 0, 1 or 2."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import apsw
import click
import pytest
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from fe_twisted import __version__
from fe_twisted.app.claim import claim
from fe_twisted.app.cli import cli, run
from fe_twisted.app.cli.status import _missing
from fe_twisted.app.store import opened
from fe_twisted.app.waiting import Sum, look, total
from fe_twisted.base.load import load
from fe_twisted.base.settings import SETTINGS, describe
from fe_twisted.servers.imap.capability import HIDEABLE
from fe_twisted.services.cluster.status import Peer, Report, State
from fe_twisted.storage.mailbox.api import NewMessage
from fe_twisted.storage.mailbox.files import PAGE_SIZE
from fe_twisted.storage.mailbox.messages import append_messages
from fe_twisted.storage.spool.item import Waiting
from fe_twisted.storage.spool.queue import Queue
from fe_twisted.storage.spool.spool import Spool
from tests.redisserver import RedisServer

ROOT = Path(__file__).parent.parent.parent
WHEN = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)


def at_once(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Have it done; nothing in it waits."""
    done: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallback(done.append)
    assert done


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class Shell:
    """Runs verbs with a settings file and keeps what they print."""

    def __init__(self, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.data, self.capsys, self.monkeypatch = data, capsys, monkeypatch
        self.config = data / "forwardemail.toml"

    def __call__(self, *arguments: str, status: int = 0, stdin: str = "") -> str:
        """Run one verb and return its standard output, or its standard error when it is refused."""
        self.monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        self.monkeypatch.setenv("FORWARDEMAIL_CONFIG", str(self.config))
        found = run(arguments)
        captured = self.capsys.readouterr()
        assert found == status, captured
        return captured.err if status and "--json" not in arguments else captured.out

    def json(self, *arguments: str, status: int = 0, stdin: str = "") -> dict[str, Any]:
        """The same as one JSON object, which is all there is on the standard output."""
        loaded = json.loads(self(*arguments, "--json", status=status, stdin=stdin))
        assert isinstance(loaded, dict)
        return loaded


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    made = Shell(tmp_path / "data", capsys, monkeypatch)
    made("init", "--data", str(made.data), "--development")
    return made


@pytest.fixture
def alias(shell: Shell) -> str:
    """The password of me@example.org."""
    shell("domain", "add", "example.org")
    shell("alias", "add", "me@example.org")
    return str(shell.json("alias", "password", "me@example.org")["password"])


def verbs(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from verbs(each, (*path, name))
    else:
        yield path, command


def test_the_verbs_are_those_that_are_promised() -> None:
    assert {" ".join(path) for path, _ in verbs()} == {
        "init", "check", "config describe", "directory copy", "directory rename-location", "version",
        "domain add", "domain list", "domain remove",
        "alias add", "alias list", "alias show", "alias remove", "alias password", "alias set", "alias move",
        "alias disable", "alias enable", "mailbox check", "mailbox stats", "mailbox export", "link token", "link join", "reload", "status",
    }  # fmt: skip


@pytest.mark.parametrize(("path", "command"), list(verbs()), ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_every_verb_has_help_and_takes_config_and_json(path: tuple[str, ...], command: click.Command, shell: Shell) -> None:
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option))
    text = shell(*path, "--help")
    assert "--config FILE" in text and "--json" in text


def test_from_nothing_to_a_mailbox(shell: Shell) -> None:
    assert "There is no domain yet" in shell("domain", "list")
    assert shell.json("domain", "add", "Example.ORG") == {"domain": "example.org"}
    assert shell.json("domain", "list") == {"domains": [{"domain": "example.org", "aliases": 0}]}
    made = shell.json("alias", "add", "Me@example.org")
    assert (made["address"], made["state"], made["mailbox"]) == ("me@example.org", "enabled", None)
    assert "no password yet" in shell("alias", "list")
    assert "no password yet" in shell("check")
    password = shell.json("alias", "password", "me@example.org")
    assert set(password) == {"address", "password"} and len(password["password"]) == 24
    listed = shell.json("alias", "list", "example.org")["aliases"]
    assert [each["address"] for each in listed] == ["me@example.org"]
    shown = shell.json("alias", "show", "me@example.org")
    assert [each["kind"] for each in shown["credentials"]] == ["password"]
    assert password["password"] not in shell("alias", "show", "me@example.org")


def test_refusals_have_a_reason_and_status_1(shell: Shell) -> None:
    for arguments, code in [
        (("alias", "add", "me@nowhere.example"), "unknown_domain"),
        (("alias", "add", "not an address"), "bad_address"),
        (("alias", "show", "me@nowhere.example"), "not_found"),
        (("domain", "remove", "nowhere.example"), "not_found"),
        (("alias", "list", "nowhere.example"), "not_found"),
    ]:
        found = shell.json(*arguments, status=1)
        assert found["code"] == code and found["error"]
        assert shell(*arguments, status=1).startswith("forwardemail: ")


def test_a_domain_with_aliases_stays(shell: Shell, alias: str) -> None:
    assert shell.json("domain", "remove", "example.org", status=1)["code"] == "refused"
    shell("alias", "remove", "me@example.org")
    shell("domain", "remove", "example.org")
    assert shell.json("domain", "list") == {"domains": []}


def test_wrong_usage_is_status_2(shell: Shell) -> None:
    for arguments in [("nonsense",), ("alias",), ("alias", "add"), ("alias", "disable", "a@b", "--action", "explode"), ("init",)]:
        shell(*arguments, status=2)
        assert shell.json(*arguments, status=2)["code"] == "usage"


def test_no_settings_named_is_wrong_usage(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORWARDEMAIL_CONFIG", raising=False)
    assert run(["alias", "list"]) == 2
    assert "FORWARDEMAIL_CONFIG" in shell.capsys.readouterr().err


def test_config_before_and_after_the_verb(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORWARDEMAIL_CONFIG", raising=False)
    file = str(shell.config)
    for arguments in (["--config", file, "domain", "list"], ["domain", "--config", file, "list"], ["domain", "list", "--config", file]):
        assert run(arguments) == 0
    # The last word counts.
    assert run(["--config", "/nonexistent", "domain", "list", "--config", file]) == 0
    assert run(["--json", "domain", "list", "--config", file]) == 0
    assert json.loads(shell.capsys.readouterr().out.splitlines()[-1]) == {"domains": []}


def test_bad_settings_are_told_with_their_lines(shell: Shell) -> None:
    with shell.config.open("a") as file:
        file.write("colour = 1\n")
    found = shell.json("alias", "list", status=1)
    assert found["code"] == "bad_settings" and "colour: no such setting" in found["error"]


def test_a_password_that_could_not_be_printed_does_not_come_into_force(shell: Shell, alias: str) -> None:
    """Else nobody would have a password that opens the mail."""
    program = [sys.executable, "-c", "from fe_twisted.app.cli import main; main()"]
    command = [*program, "alias", "password", "me@example.org", "--current-password-stdin", "--config", str(shell.config)]
    with open("/dev/full", "w") as full:
        changed = subprocess.run(command, input=alias, text=True, stdout=full, cwd=ROOT, check=False)
    assert changed.returncode != 0
    shell("alias", "password", "me@example.org", "--current-password-stdin", stdin=alias)


def test_a_second_password_needs_a_decision(shell: Shell, alias: str) -> None:
    refused = shell.json("alias", "password", "me@example.org", status=1)
    assert refused["code"] == "refused"
    assert "--current-password-stdin" in refused["error"] and "--discard-mailbox" in refused["error"]
    shell("alias", "password", "me@example.org", "--current-password-stdin", "--discard-mailbox", status=2)
    before = shell.json("alias", "show", "me@example.org")["mailbox"]

    wrong = shell.json("alias", "password", "me@example.org", "--current-password-stdin", status=1, stdin="wrong\n")
    assert wrong["code"] == "wrong_password"
    shell("alias", "password", "me@example.org", "--current-password-stdin", status=2, stdin="")

    kept = shell.json("alias", "password", "me@example.org", "--current-password-stdin", stdin=alias + "\n")["password"]
    assert kept != alias
    assert shell.json("alias", "show", "me@example.org")["mailbox"] == before

    fresh = shell.json("alias", "password", "me@example.org", "--discard-mailbox")["password"]
    assert fresh not in (alias, kept)
    assert shell.json("alias", "show", "me@example.org")["mailbox"] != before


def test_disable_and_enable(shell: Shell, alias: str) -> None:
    assert shell.json("alias", "disable", "me@example.org")["state"] == "reject"
    for action in ("discard", "defer", "reject"):
        assert shell.json("alias", "disable", "me@example.org", "--action", action)["state"] == action
    assert shell.json("alias", "enable", "me@example.org")["state"] == "enabled"
    with shell.config.open("a") as file:
        file.write('disabled_action = "defer"\n')
    assert shell.json("alias", "disable", "me@example.org")["state"] == "defer"


def test_a_capability_is_hidden_and_shown_again(shell: Shell, alias: str) -> None:
    """Names in any case; what hides twice is hidden once."""
    assert shell.json("alias", "show", "me@example.org")["hidden_capabilities"] == []
    shell("alias", "set", "me@example.org", "--hide-capability", "qresync", "--hide-capability", "CONDSTORE")
    hidden = shell.json("alias", "set", "me@example.org", "--hide-capability", "IDLE")["hidden_capabilities"]
    assert hidden == ["CONDSTORE", "IDLE", "QRESYNC"]
    assert "CONDSTORE, IDLE, QRESYNC" in shell("alias", "show", "me@example.org")
    left = shell.json("alias", "set", "me@example.org", "--show-capability", "idle", "--show-capability", "qresync")
    assert left["hidden_capabilities"] == ["CONDSTORE"]
    assert "do not see: CONDSTORE, IDLE." in shell("alias", "set", "me@example.org", "--hide-capability", "IDLE")
    shown = shell("alias", "set", "me@example.org", "--show-capability", "IDLE", "--show-capability", "CONDSTORE")
    assert shown == "Clients of me@example.org see every capability.\n"


def test_every_capability_can_be_hidden(shell: Shell, alias: str) -> None:
    options = [word for name in HIDEABLE for word in ("--hide-capability", name.lower())]
    assert shell.json("alias", "set", "me@example.org", *options)["hidden_capabilities"] == sorted(name.upper() for name in HIDEABLE)


@pytest.mark.parametrize("options", [(), *(("--hide-capability", name) for name in ("FROB", "IMAP4rev1", "STARTTLS"))])
def test_what_cannot_be_hidden_is_wrong_usage(shell: Shell, alias: str, options: tuple[str, ...]) -> None:
    shell("alias", "set", "me@example.org", *options, status=2)


def test_nobody_to_hide_from_is_refused(shell: Shell) -> None:
    assert shell.json("alias", "set", "nobody@example.org", "--hide-capability", "IDLE", status=1)["code"]


def test_mailbox_check(shell: Shell, alias: str) -> None:
    assert shell.json("mailbox", "check", "me@example.org", "--password-stdin", stdin=alias) == {
        "address": "me@example.org", "ok": True, "problems": [],
    }  # fmt: skip
    assert shell.json("mailbox", "check", "me@example.org", "--password-stdin", stdin="x", status=1)["code"] == "wrong_password"
    shell("mailbox", "check", "me@example.org", status=2)


def test_mailbox_stats(shell: Shell, alias: str) -> None:
    found = shell.json("mailbox", "stats", "me@example.org", "--password-stdin", stdin=alias)
    assert (found["messages"], found["logical"], found["saved_by_attachments"]) == (0, 0, 0)
    assert found["on_disk"] > 0
    assert "octets on disk" in shell("mailbox", "stats", "me@example.org", "--password-stdin", stdin=alias)


def test_mailbox_export(shell: Shell, alias: str, tmp_path: Path) -> None:
    output = tmp_path / "copy.sqlite"
    shell("mailbox", "export", "me@example.org", "--password-stdin", "--output", str(output), stdin=alias)
    assert not output.read_bytes().startswith(b"SQLite format 3")
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    again = shell.json("mailbox", "export", "me@example.org", "--password-stdin", "--output", str(output), stdin=alias, status=1)
    assert again["code"] == "already_exists"


def test_a_damaged_mailbox(shell: Shell, alias: str, tmp_path: Path) -> None:
    """What can be read is exported, and what cannot is named."""
    asked = ("me@example.org", "--password-stdin")

    def text(*arguments: str) -> str:
        """What a verb answers that is done and has something to say."""
        shell.monkeypatch.setattr(sys, "stdin", io.StringIO(alias))
        assert run(arguments) == 1
        return str(shell.capsys.readouterr().out)

    with opened(load(shell.config, {})) as store:
        found, key = store.accounts.unlock("me@example.org", alias.strip())
        mailbox_id = found.mailbox_id or ""
        with contextlib.closing(store.files.open(mailbox_id, key)) as connection:
            with connection:
                mails = [NewMessage(b"Subject: %d\r\n\r\n%s\r\n" % (number, os.urandom(5000).hex().encode())) for number in range(9)]
                append_messages(connection, "INBOX", mails, WHEN)
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            pages: list[Any] = connection.execute("SELECT pageno FROM dbstat WHERE name = 'bodies' AND pagetype = 'leaf'").fetchall()
            root = int(connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'terms_data'").get)
        file = store.files.path(mailbox_id)
    whole = file.read_bytes()

    def damage(page: int) -> None:
        file.write_bytes(whole[: (page - 1) * PAGE_SIZE + 100] + b"damaged" + whole[(page - 1) * PAGE_SIZE + 107 :])

    damage(root)
    output = tmp_path / "first.sqlite"
    exported = shell.json("mailbox", "export", *asked, "--output", str(output), stdin=alias, status=1)["rescued"]
    assert (exported["messages"], exported["whole"], exported["damaged"]) == (9, True, ["terms_data"]) and output.exists()
    checked = shell.json("mailbox", "check", *asked, stdin=alias, status=1)
    assert checked["damaged"] == ["terms_data"] and checked["lost"] == []
    assert "the search index is damaged (terms_data)" in text("mailbox", "check", *asked)
    damage(pages[-1][0])
    output = tmp_path / "second.sqlite"
    said = text("mailbox", "export", *asked, "--output", str(output))
    checked = shell.json("mailbox", "check", *asked, stdin=alias, status=1)
    lost = sorted(each["uid"] for each in checked["lost"])
    assert 0 < len(lost) < 9 and output.exists()
    assert f"Not in the copy, because they cannot be read: {len(lost)} messages: INBOX UID {lost[0]}" in said
    assert f"The copy has {9 - len(lost)} messages." in said


def test_check_tells_of_waiting_mail_that_was_moved_aside(shell: Shell, alias: str) -> None:
    """It was accepted, and nobody but an operator looks for it any more."""
    aside = shell.data / "mailboxes" / ("0" * 24 + "-tmp.damaged-1")
    aside.touch(mode=0o600)
    found = shell.json("check", status=1)
    assert [aside.name in each["detail"] for each in found["checks"] if each["status"] == "problem"] == [True]


def findings(checked: dict[str, Any]) -> list[dict[str, str]]:
    """All but the room on the disk, which is that of the moment."""
    return [each for each in checked["checks"] if each["check"] != "disk"]


def test_check_names_mail_that_could_not_be_stored(shell: Shell, alias: str) -> None:
    """Beside a server that has the file open, and without one."""
    settings = load(shell.config, {})
    with opened(settings) as store:
        found = store.accounts.aliases()[0]
        assert found.mailbox_id is not None and found.sealing_key is not None
        spool = Spool(store.files.temporary_path, store.server_key, execute, Clock())
        for number in range(3):
            at_once(spool.add(found.mailbox_id, found.sealing_key, Waiting(bytes([number]) * 16, WHEN, b"x")))
        assert total(look(settings, store.server_key)) == Sum(3, 0, ANY, 0)
        assert shell.json("check")["ok"] is True
        at_once(spool.refuse(found.mailbox_id, [bytes(16)]))
        beside = shell.json("check", status=1)
        assert total(look(settings, store.server_key)) == Sum(2, 1, ANY, 0)
        at_once(spool.close())
        before = names(shell.data / "mailboxes")
        assert total(look(settings, store.server_key)) == Sum(2, 1, ANY, 0)
        assert findings(shell.json("check", status=1)) == findings(beside)
        assert names(shell.data / "mailboxes") == before, "nothing is made"
    details = [each["detail"] for each in beside["checks"] if each["status"] == "problem"]
    assert len(details) == 1
    assert "me@example.org: 1 message set aside" in details[0] and found.mailbox_id in details[0]


def test_what_was_set_aside_is_named_wherever_it_lies(shell: Shell, alias: str) -> None:
    """Mail for other primaries is accepted mail too, and a file that nobody can look into may hold some."""
    settings = load(shell.config, {})
    with opened(settings) as store:
        queue = Queue(settings.queue_folder / "2", store.server_key, execute, Clock())
        public = store.accounts.aliases()[0].sealing_key or b""
        for each in ("a" * 24, "b" * 24, "c" * 24):
            at_once(queue.spool.add(each, public, Waiting(bytes(16), WHEN, b"x")))
        wal = (settings.queue_folder / "2" / f"{'c' * 24}.sqlite-wal").read_bytes()
        at_once(queue.spool.close())
        folder = settings.queue_folder / "2"
        (folder / f"{'a' * 24}.sqlite").rename(folder / f"{'a' * 24}.saving-1")
        (folder / f"{'b' * 24}.sqlite").rename(folder / f"{'b' * 24}.damaged-1")
        (folder / f"{'c' * 24}.sqlite-wal").write_bytes(wal)
        assert total(look(settings, store.server_key)) == Sum(1, 0, ANY, 1)
    told = [(each["status"], each["detail"]) for each in shell.json("check", status=1)["checks"]]
    problems = [detail for status, detail in told if status == "problem"]
    assert ["a" * 24 in problems[0], "b" * 24 in problems[1], len(problems)] == [True, True, 2]
    [note] = [detail for status, detail in told if status == "note" and "could not be looked into" in detail]
    assert f"{'c' * 24}.sqlite of nobody" in note


def test_a_primary_gets_another_name(shell: Shell, alias: str) -> None:
    """Only where it is, with its server stopped, and to a name that nobody has."""
    rename = ("directory", "rename-location")
    assert shell.json(*rename, "local", "One!", status=1)["code"] == "bad_settings"
    assert shell.json(*rename, "two", "three", status=1)["code"] == "refused"
    assert shell.json(*rename, "local", "local", status=1)["code"] == "already_exists"
    claimed = claim(shell.data)
    busy = shell.json(*rename, "local", "one", status=1)
    assert busy["code"] == "busy" and "stop it first" in busy["error"]
    os.close(claimed)
    assert shell.json("alias", "show", "me@example.org")["location"] == "local"
    assert shell.json(*rename, "local", "one") == {"aliases": 1, "location": "one"}
    assert shell.json("alias", "show", "me@example.org")["location"] == "one"
    with shell.config.open("a") as file:
        file.write('location = "two"\nprimaries = ["three=wss://three.example.org:7443"]\n')
    assert shell.json(*rename, "two", "three", status=1)["code"] == "refused"
    other = shell.json(*rename, "three", "two", status=1)
    assert other["code"] == "refused" and "another primary" in other["error"], "it may be running, on its box"
    said = shell(*rename, "one", "two")
    assert "1 alias is at two now." in said and "location =" not in said
    with shell.config.open("a") as file:
        file.write('role = "secondary"\nprimary = "wss://one.example.org:7443"\ndirectory_url = "postgresql://a@/b"\n')
    shell.config.write_text(re.sub("(?m)^primaries.*$", "", shell.config.read_text()))
    assert shell.json(*rename, "two", "four", status=1)["code"] == "refused"


def test_check_finds_what_is_wrong(shell: Shell, alias: str) -> None:
    assert shell.json("check")["ok"] is True
    mailbox = shell.data / "mailboxes" / f"{shell.json('alias', 'show', 'me@example.org')['mailbox']}.sqlite"
    (shell.data / "mailboxes" / ("0" * 24 + ".sqlite")).write_bytes(b"SQLite format 3\x00" + bytes(84))
    mailbox.unlink()
    (shell.data / "tls" / "key.pem").chmod(0o644)
    found = shell.json("check", status=1)
    problems = "\n".join(each["detail"] for each in found["checks"] if each["status"] == "problem")
    for word in ("is missing", "is not encrypted", "belongs to no alias", "can be read by others", "everybody can read its key"):
        assert word in problems
    assert run(["check"]) == 1


def test_check_refuses_a_server_key_that_others_can_read(shell: Shell) -> None:
    (shell.data / "secrets" / "server.key").chmod(0o640)
    found = shell.json("check", status=1)
    assert any("chmod 600" in each["detail"] for each in found["checks"])
    assert shell.json("alias", "list", status=1)["code"] == "bad_settings"


def test_config_describe(shell: Shell) -> None:
    assert shell("config", "describe") == describe()
    assert [each["name"] for each in shell.json("config", "describe")["settings"]] == [setting.name for setting in SETTINGS]


def test_version(shell: Shell) -> None:
    assert shell("version").startswith(f"forwardemail {__version__} (")
    assert shell.json("version")["version"] == __version__


def test_init_shows_passwords_once_and_lines_to_paste(tmp_path: Path, shell: Shell) -> None:
    arguments = ("init", "--data", str(tmp_path / "var"), "--development", "--example", "--port-offset", "4000")
    first, second = shell(*arguments), shell(*arguments)
    assert len(first.splitlines()) <= 24
    for text in ("4025", "4143", "4993", "example.com", "hello@example.com", "world@example.com", "shown this once"):
        assert text in first
    passwords = [line.split()[-1] for line in first.splitlines() if line.startswith("  alias")]
    assert len(passwords) == 2 and not any(password in second for password in passwords)
    assert "nothing was changed" in second and "Send a message:" in second


def test_init_without_an_example_says_how_an_address_is_made(tmp_path: Path, shell: Shell) -> None:
    """There is no hello@example.com to write to."""
    text = shell("init", "--data", str(tmp_path / "var"), "--development")
    assert "hello@" not in text and "PASSWORD" not in text
    assert "domain add example.com && " in text and "alias add you@example.com && " in text
    assert "twistd --nodaemon" in text


def test_init_for_production_names_the_dns_records(tmp_path: Path, shell: Shell) -> None:
    text = shell("init", "--data", str(tmp_path / "var"), "--hostname", "mail.example.org")
    assert "example.org.  MX  10 mail.example.org." in text
    assert shell.json("init", "--data", str(tmp_path / "var"))["new"] is False
    shell("init", "--data", str(tmp_path / "other"), "--example", status=2)
    assert shell.json("init", "--data", str(tmp_path), "--hostname", "a.example", status=1)["code"] == "refused"


def test_as_a_process(shell: Shell) -> None:
    """The status reaches the shell, and a closed pipe is no traceback."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from fe_twisted.app.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "alias", "show", "a@example.org", "--config", str(shell.config), "--json"],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == "not_found"
    assert done.stderr == ""


def test_an_alias_without_a_mailbox_is_only_placed(shell: Shell) -> None:
    with (shell.data / "forwardemail.toml").open("a") as file:
        file.write('primaries = ["two=wss://two.example.org:4190"]\n')
    shell("domain", "add", "example.org")
    assert shell.json("alias", "add", "there@example.org", "--location", "two")["location"] == "two"
    assert shell.json("alias", "add", "me@example.org")["location"] == "local"
    assert "no mailbox yet" in shell("alias", "move", "me@example.org", "two")
    assert shell.json("alias", "show", "me@example.org")["location"] == "two"
    assert "on the box of that primary" in shell.json("alias", "password", "me@example.org", status=1)["error"]
    assert shell.json("alias", "move", "me@example.org", "local")["location"] == "local"
    shell("alias", "password", "me@example.org")


def test_a_move_that_cannot_be_says_why(shell: Shell, alias: str) -> None:
    assert "name: local" in shell.json("alias", "move", "me@example.org", "nowhere", status=1)["error"]
    assert shell.json("alias", "move", "nobody@example.org", "local", status=1)["code"] == "not_found"
    assert "the server is not running" in shell.json("alias", "move", "me@example.org", "local", status=1)["error"]
    assert "no location nowhere" in shell.json("alias", "add", "new@example.org", "--location", "nowhere", status=1)["error"]


def test_where_a_mailbox_is_elsewhere_only_the_box_there_knows_what_waits(shell: Shell, alias: str) -> None:
    assert "local" in shell("alias", "list")
    assert shell.json("alias", "show", "me@example.org")["waiting"] is False
    shell.config.write_text(shell.config.read_text() + 'location = "two"\n')
    assert shell.json("alias", "show", "me@example.org")["waiting"] is None
    assert "ask on the box of local" in shell("alias", "show", "me@example.org")


def test_check_asks_redis(shell: Shell, alias: str, tmp_path: Path) -> None:
    def found() -> tuple[str, str]:
        [each] = [each for each in shell.json("check")["checks"] if each["check"] == "redis"]
        return each["status"], each["detail"]

    server = RedisServer(tmp_path, password="secret").start()
    try:
        settings = shell.config.read_text()
        shell.config.write_text(f'{settings}redis_url = "{server.url}"\n')
        assert found() == ("ok", f"127.0.0.1:{server.port}")
        assert "All is well." in shell("check")
        shell.config.write_text(f'{settings}redis_url = "{server.url.replace("secret", "other")}"\n')
        assert found()[0] == "away"
        assert "secret" not in found()[1] and "other" not in found()[1]
    finally:
        server.stop()
    assert found()[0] == "away" and "each box counts for itself" in found()[1]
    assert "All is well." not in shell("check")


def test_a_directory_is_not_copied_to_what_is_no_database(shell: Shell) -> None:
    """What was typed is named, and not how it is looked at."""
    text = shell("directory", "copy", "--to", "sqlite:///x", status=1)
    assert text.startswith("forwardemail: --to: this is not a PostgreSQL URL") and "FORWARDEMAIL_" not in text


@pytest.mark.parametrize("role", ["primary", "secondary"])
@pytest.mark.parametrize(("wanted", "said"), [(2, None), (5, "2 of 5 workers are connected"), (0, None)])
def test_status_says_when_workers_are_missing(wanted: int, said: str | None, role: str) -> None:
    """Of this box; those of a secondary call themselves secondaries, as they are to the primaries that they are linked to."""

    def report(name: str, role: str) -> Report:
        return Report(name, role, "0.1.0", "local", 1, 0)

    kind = "worker" if role == "primary" else "secondary"
    workers = [Peer("unix", 0, 0, report(f"one/worker-{number}", kind)) for number in (1, 2, 2)]
    others = [Peer("10.0.0.2", 0, 0, report(name, "secondary")) for name in ("two", "two/worker-1", "two/worker-2", "two/worker-3")]
    state = State(report("one", role), 0, (*workers, *others))
    text = "\n".join(_missing(state, wanted))
    assert (said in text and "restart" in text) if said is not None else text == ""


def test_check_tells_of_a_full_disk(shell: Shell, alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [each["status"] for each in shell.json("check")["checks"] if each["check"] == "disk"] == ["ok"]
    real = os.statvfs

    def full(path: Path) -> os.statvfs_result:
        return os.statvfs_result([*real(path)[:4], 3 * 2**20 // real(path).f_frsize, *real(path)[5:]])

    monkeypatch.setattr(os, "statvfs", full)
    [found] = [each for each in shell.json("check", status=1)["checks"] if each["check"] == "disk"]
    assert found["status"] == "problem" and found["detail"].startswith("3 MiB are free in ")


def test_check_of_a_folder_that_is_not_there_goes_on(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(path: Path) -> os.statvfs_result:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(os, "statvfs", away)
    checks = {each["check"]: each for each in shell.json("check", status=1)["checks"]}
    assert checks["disk"]["status"] == "problem" and checks["disk"]["detail"].endswith(": No such file or directory")
    assert "certificate" in checks
