"""Clients that nobody here wrote: smtplib, imaplib, IMAPClient, curl, swaks."""

from __future__ import annotations

import datetime
import email.message
import imaplib
import re
import smtplib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from imapclient import IMAPClient

from tests.whole.daemon import Daemon, Owner, as_sent, contents, select, simple, trusting

Needs = Callable[[str], str]


def _run(*arguments: str, stdin: bytes | None = None, status: int = 0, timeout: float = 120) -> str:
    done = subprocess.run(arguments, input=stdin, capture_output=True, timeout=timeout, check=False)
    text = done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace")
    assert done.returncode == status, f"{arguments[0]}: exit {done.returncode}\n{text[-3000:]}"
    return text


# -- smtplib -----------------------------------------------------------------------------------------


def test_smtplib_plain_and_starttls(daemon: Daemon, owner: Owner) -> None:
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.net", owner.address, "Grüße"
    message.set_content("Text mit Ümlauten\n")
    message.add_attachment(bytes(range(256)) * 100, maintype="application", subtype="octet-stream", filename="ä.bin")
    message.set_boundary("the-same-both-times")
    for tls in (False, True):
        with smtplib.SMTP("127.0.0.1", daemon.port("mx")) as client:
            client.ehlo()
            if tls:
                client.starttls(context=trusting())
                client.ehlo()
                assert not client.has_extn("starttls")
            assert client.has_extn("pipelining") and client.has_extn("8bitmime")
            assert client.send_message(message) == {}
    first, second = daemon.messages(owner)
    assert as_sent(first) == as_sent(second)
    read = email.message_from_bytes(first, policy=email.policy.default)
    assert read["Subject"] == "Grüße"
    (attachment,) = read.iter_attachments()  # type: ignore[attr-defined]
    assert attachment.get_content() == bytes(range(256)) * 100 and attachment.get_filename() == "ä.bin"


def test_smtplib_smtputf8(daemon: Daemon, owner: Owner) -> None:
    message = email.message.EmailMessage(policy=email.policy.SMTPUTF8)
    message["From"], message["To"], message["Subject"] = "jörg@example.net", owner.address, "Grüße"
    message.set_content("Text\n")
    with smtplib.SMTP("127.0.0.1", daemon.port("mx")) as client:
        client.send_message(message)
    (stored,) = daemon.messages(owner)
    assert "Return-Path: <jörg@example.net>".encode() in stored and "Subject: Grüße".encode() in stored


def test_smtplib_many_on_one_connection(daemon: Daemon, owner: Owner) -> None:
    sent = [simple(f"number {number}") for number in range(50)]
    with daemon.smtp() as client:
        for message in sent:
            client.sendmail("a@example.net", owner.address, message)
    assert [as_sent(stored) for stored in daemon.messages(owner)] == sent


# -- imaplib -----------------------------------------------------------------------------------------


def test_imaplib_whole_tour(daemon: Daemon, owner: Owner) -> None:
    """Every command of imaplib that the server is to know."""
    client = daemon.imaps()
    assert "IMAP4REV1" in client.capabilities
    client.login(owner.address, owner.password)
    for word in ("IDLE", "NAMESPACE", "ID", "ENABLE", "UNSELECT", "UIDPLUS", "MOVE", "CHILDREN", "SPECIAL-USE", "LITERAL+"):
        assert word in client.capabilities or word in client.capability()[1][0].decode(), word
    names = {re.search(r'"?([^" ]+)"?\Z', line.decode())[1] for line in client.list()[1]}  # type: ignore[index,union-attr]
    assert {"INBOX", "Drafts", "Sent", "Archive", "Junk", "Trash"} <= names
    assert client.namespace()[0] == "OK"
    assert client.create("Work/Projects")[0] == "OK"
    assert client.subscribe("Work/Projects")[0] == "OK"
    assert any(b"Work/Projects" in line for line in client.lsub()[1])
    assert client.rename("Work", "Job")[0] == "OK"
    assert any(b"Job/Projects" in line for line in client.list('""', "Job/%")[1])
    date = imaplib.Time2Internaldate(datetime.datetime(2024, 2, 29, 12, 30, 15, tzinfo=datetime.timezone(datetime.timedelta(hours=-7))))
    for number in range(4):
        status, data = client.append("Job/Projects", r"(\Seen $Important)" if number % 2 else "", date, simple(f"number {number}"))
        assert status == "OK" and b"APPENDUID" in data[0]
    assert select(client, "Job/Projects") == 4
    flags, data = client.fetch("2", "(FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)")
    assert flags == "OK" and rb"\Seen" in data[0] and b"$Important" in data[0] and b'"29-Feb-2024 12:30:15 -0700"' in data[0]
    assert client.search(None, "SUBJECT", '"number 3"')[1] == [b"4"]
    assert client.search("UTF-8", "UNSEEN")[1] == [b"1 3"]
    assert client.search(None, "OR", "SEEN", "SUBJECT", '"number 0"')[1] == [b"1 2 4"]
    assert client.copy("1", "Archive")[0] == "OK"
    assert client.uid("MOVE", "2", "Trash")[0] == "OK"
    assert client.store("1", "+FLAGS", r"\Deleted")[0] == "OK"
    assert client.expunge()[1][-1:] == [b"1"], "the first is that of MOVE"
    status = client.status("Job/Projects", "(MESSAGES UNSEEN UIDNEXT UIDVALIDITY RECENT)")[1][0]
    assert b"MESSAGES 2" in status and b"UNSEEN 1" in status and b"UIDNEXT 5" in status
    assert client.check()[0] == "OK"
    assert client.noop()[0] == "OK"
    assert client.close()[0] == "OK"
    assert client.unsubscribe("Job/Projects")[0] == "OK"
    assert client.delete("Job/Projects")[0] == "OK"
    assert client.logout()[0] == "BYE"


def test_imaplib_authenticate_and_errors(daemon: Daemon, owner: Owner) -> None:
    client = daemon.imaps()
    client.authenticate("PLAIN", lambda _: f"\0{owner.address}\0{owner.password}".encode())
    assert client.select("No/Such/Folder")[0] == "NO"
    select(client)
    status, data = client.copy("1:*", "No/Such/Folder")
    assert status in ("NO", "OK"), data
    status, data = client.append("No/Such/Folder", None, None, b"x\r\n")  # type: ignore[arg-type]
    assert status == "NO" and b"TRYCREATE" in data[0]
    with pytest.raises(imaplib.IMAP4.error, match="BAD"):
        client.fetch("1", "(NOT-AN-ITEM)")
    assert client.noop()[0] == "OK"
    client.logout()


# -- IMAPClient --------------------------------------------------------------------------------------


def test_imapclient_tour(daemon: Daemon, owner: Owner) -> None:
    with IMAPClient("127.0.0.1", daemon.port("imaps"), ssl_context=trusting()) as client:
        client.login(owner.address, owner.password)
        folders = {name: flags for flags, _, name in client.list_folders()}
        special = {flag for flags in folders.values() for flag in flags}
        assert {b"\\Drafts", b"\\Sent", b"\\Archive", b"\\Junk", b"\\Trash"} <= special
        client.create_folder("Größe/日本語")
        assert "Größe/日本語" in [name for _, _, name in client.list_folders()], "modified UTF-7"
        info = client.select_folder("Größe/日本語")
        assert info[b"EXISTS"] == 0 and info[b"UIDNEXT"] == 1 and b"\\*" in info[b"PERMANENTFLAGS"]
        client.append("Größe/日本語", simple("one"), ["\\Flagged", "$label"])
        client.append("Größe/日本語", simple("two"))
        assert client.search(["FLAGGED"]) == [1]
        assert client.search(["SUBJECT", "two"]) == [2]
        assert client.search(["NOT", ["FLAGGED"], "SUBJECT", "tw"], "UTF-8") == [2]
        fetched = client.fetch([1, 2], ["FLAGS", "ENVELOPE", "BODYSTRUCTURE", "RFC822.SIZE", "BODY.PEEK[]<0.5>"])
        assert fetched[1][b"ENVELOPE"].subject == b"one" and fetched[2][b"RFC822.SIZE"] == len(simple("two"))
        assert fetched[1][b"BODY[]<0>"] == b"From:"
        assert fetched[1][b"BODYSTRUCTURE"][0].lower() == b"text"
        client.idle()
        daemon.send(owner.address, simple("elsewhere"))
        with IMAPClient("127.0.0.1", daemon.port("imaps"), ssl_context=trusting()) as other:
            other.login(owner.address, owner.password)
            other.select_folder("Größe/日本語")
            other.add_flags(2, ["\\Answered"])
        seen = client.idle_check(timeout=10)
        assert any(item[1:2] == (b"FETCH",) for item in seen), seen
        client.idle_done()
        client.move([1], "Archive")
        assert client.folder_status("Archive", ["MESSAGES"]) == {b"MESSAGES": 1}
        client.rename_folder("Größe/日本語", "Größe/renamed")
        client.unselect_folder()
        client.delete_folder("Größe/renamed")
        assert client.has_capability("ID")
        assert client.id_({"name": "test"})
        client.select_folder("INBOX")
        assert client.search(["ALL"]) == [1]


# -- curl --------------------------------------------------------------------------------------------


def test_curl_sends_and_reads(daemon: Daemon, owner: Owner, needs: Needs, tmp_path: Path) -> None:
    curl = needs("curl")
    message = simple("by curl", "line\r\n.dot\r\n" * 500)
    file = tmp_path / "message"
    file.write_bytes(message)
    for option in ((), ("--ssl-reqd",)):
        _run(
            curl, "--silent", "--show-error", "--insecure", *option, "--url", f"smtp://127.0.0.1:{daemon.port('mx')}/client.example.net",
            "--mail-from", "a@example.net", "--mail-rcpt", owner.address, "--upload-file", str(file),
        )  # fmt: skip
    base = f"imaps://127.0.0.1:{daemon.port('imaps')}"
    login = (curl, "--silent", "--show-error", "--insecure", "--user", f"{owner.address}:{owner.password}")
    assert "INBOX" in _run(*login, base)
    assert [as_sent(stored) for stored in daemon.messages(owner)] == [message, message]
    target = tmp_path / "fetched"
    _run(*login, f"{base}/INBOX;MAILINDEX=1", "--output", str(target))
    assert as_sent(target.read_bytes()) == message
    assert "SEARCH 1 2" in _run(*login, f"{base}/INBOX?SUBJECT%20curl")
    _run(*login, f"{base}/Drafts", "--upload-file", str(file))
    assert daemon.messages(owner, "Drafts") == [message]
    _run(*login, f"{base}/INBOX", "--request", r"STORE 1 +FLAGS \Deleted")
    _run(*login, f"{base}/INBOX", "--request", "EXPUNGE")
    assert len(daemon.messages(owner)) == 1
    assert "CAPABILITY" in _run(*login, base, "--request", "CAPABILITY")
    _run(curl, "--silent", "--insecure", "--user", f"{owner.address}:wrong", base, status=67)


# -- swaks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--pipeline"], ["--tls"], ["--tls", "--pipeline"], ["--protocol", "SMTP"]], ids=" ".join)
def test_swaks(daemon: Daemon, owner: Owner, needs: Needs, options: list[str]) -> None:
    text = _run(
        needs("swaks"), "--server", f"127.0.0.1:{daemon.port('mx')}", "--from", "a@example.net",
        "--to", f"{owner.address},nobody@example.com",
        "--helo", "client.example.net", "--header", "Subject: by swaks", "--body", "text of swaks", *options,
        status=0,
    )  # fmt: skip
    assert "550 5.1.1" in text
    (stored,) = daemon.messages(owner)
    assert b"Subject: by swaks\r\n" in stored and b"text of swaks" in stored
    assert (b"ESMTPS" in stored) == ("--tls" in options)


def test_swaks_long_message(daemon: Daemon, owner: Owner, needs: Needs, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"From: a@example.net\nSubject: long\n\n" + b"0123456789 abcdefghij\n" * 500_000)
    _run(
        needs("swaks"), "--server", f"127.0.0.1:{daemon.port('mx')}", "--from", "a@example.net", "--to", owner.address,
        "--data", f"@{body}",
        "--suppress-data",
    )  # fmt: skip
    (stored,) = daemon.messages(owner)
    assert stored.count(b"0123456789 abcdefghij\r\n") == 500_000


# -- between sessions --------------------------------------------------------------------------------


def test_seen_is_set_by_reading(daemon: Daemon, owner: Owner) -> None:
    """BODY[] sets it, BODY.PEEK[] and EXAMINE do not; other sessions are told."""
    daemon.send(owner.address, simple())
    one, two = daemon.login(owner), daemon.login(owner)
    contents(one, peek=True)
    assert rb"\Seen" not in one.fetch("1", "(FLAGS)")[1][0]
    readonly = daemon.imaps()
    readonly.login(owner.address, owner.password)
    readonly.select("INBOX", readonly=True)
    contents(readonly, peek=False)
    assert rb"\Seen" not in one.fetch("1", "(FLAGS)")[1][0]
    contents(one, peek=False)
    assert rb"\Seen" in one.fetch("1", "(FLAGS)")[1][0]
    two.noop()
    assert rb"\Seen" in two.fetch("1", "(FLAGS)")[1][0]
    for client in (one, two, readonly):
        client.logout()


def test_many_sessions_of_one_mailbox(daemon: Daemon, owner: Owner) -> None:
    """Twenty sessions; a message comes; each hears of it."""
    clients = [daemon.login(owner) for _ in range(20)]
    daemon.send(owner.address, simple())
    for client in clients:
        client.noop()
        assert len(contents(client)) == 1
    started = time.monotonic()
    for client in clients:
        client.logout()
    assert time.monotonic() - started < 10
