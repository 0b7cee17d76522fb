"""MX: what is taken, what is refused and with which code."""

from __future__ import annotations

import re
import smtplib

import pytest

from tests.whole.daemon import Daemon, Owner, as_sent, received, simple, trace_of
from tests.whole.wire import Smtp


def test_ehlo_announces_what_the_issue_lists(daemon: Daemon) -> None:
    with Smtp(daemon) as smtp:
        assert re.match(rb"220 \S+ ESMTP", smtp.greeting)
        lines = {line[4:].decode().partition(" ")[0]: line[4:].decode() for line in smtp.hello().split(b"\n")[1:]}
    assert {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "STARTTLS", "CHUNKING"} <= set(lines)
    assert lines["SIZE"] == "SIZE 52428800"
    assert "AUTH" not in lines


def test_helo_works_too(daemon: Daemon, owner: Owner) -> None:
    with Smtp(daemon) as smtp:
        assert smtp.ask(b"HELO client.example.net").startswith(b"250 ")
        smtp.ask(b"MAIL FROM:<a@example.net>")
        smtp.ask(b"RCPT TO:<" + owner.address.encode() + b">")
        assert smtp.data(simple("by helo")).startswith(b"250")
    (stored,) = daemon.messages(owner)
    assert " with SMTP " in received(stored) or " with SMTPS " in received(stored)


def test_trace_fields(daemon: Daemon, owner: Owner) -> None:
    """Return-Path, Delivered-To, Received; then the message byte for byte."""
    message = simple("trace", "body\r\n.starts with a dot\r\n")
    daemon.send(owner.address, message, sender="from.here@example.net")
    (stored,) = daemon.messages(owner)
    trace = trace_of(stored).decode()
    assert re.search(r"^Return-Path: <from\.here@example\.net>\r$", trace, re.MULTILINE)
    assert re.search(rf"^Delivered-To: {owner.address}\r$", trace, re.MULTILINE)
    line = received(stored)
    assert "from client.example.net" in line and "[127.0.0.1]" in line and " with ESMTP" in line and " by " in line
    assert as_sent(stored) == message


@pytest.mark.parametrize(
    ("recipient", "code", "enhanced"),
    [
        ("nobody-here@example.com", 550, "5.1.1"),
        ("someone@example.org", 550, "5.7.1"),
        ("someone@[192.0.2.1]", 550, "5.7.1"),
    ],
)
def test_who_is_refused(daemon: Daemon, recipient: str, code: int, enhanced: str) -> None:
    """Unknown recipient; no open relay."""
    with daemon.smtp() as client:
        client.ehlo()
        client.mail("a@example.net")
        got, text = client.rcpt(recipient)
        assert (got, text.split()[0].decode()) == (code, enhanced)


@pytest.mark.parametrize(
    "attempt",
    ["{local}%example.org@{domain}", "@example.com:{local}@example.org", '"{local}@example.org"@{domain}', "{local}@example.org@{domain}"],
)
def test_no_relay_by_old_tricks(daemon: Daemon, owner: Owner, attempt: str) -> None:
    """Percent hack, source routes, quoted at signs: never relayed, and never taken for somebody else."""
    local, domain = owner.address.split("@")
    with Smtp(daemon) as smtp:
        smtp.hello()
        smtp.ask(b"MAIL FROM:<a@example.net>")
        reply = smtp.ask(b"RCPT TO:<" + attempt.format(local=local, domain=domain).encode() + b">")
    assert reply[:1] == b"5", reply


def test_several_recipients_one_unknown(daemon: Daemon) -> None:
    """Each recipient succeeds or fails by itself."""
    one, two = daemon.owner(), daemon.owner()
    with daemon.smtp() as client:
        refused = client.sendmail("a@example.net", [one.address, "nobody@example.com", two.address], simple("for two"))
    assert list(refused) == ["nobody@example.com"] and refused["nobody@example.com"][0] == 550
    for owner in (one, two):
        (stored,) = daemon.messages(owner)
        assert f"Delivered-To: {owner.address}\r\n".encode() in trace_of(stored)
        other = one if owner is two else two
        assert other.address.encode() not in stored, "a recipient must not learn of the others"


def test_one_recipient_twice_gets_one_copy(daemon: Daemon, owner: Owner) -> None:
    daemon.send([owner.address, owner.address.upper(), owner.address], simple("once"))
    assert len(daemon.messages(owner)) == 1


def test_plus_addressing(daemon: Daemon, owner: Owner) -> None:
    local, domain = owner.address.split("@")
    daemon.send(f"{local}+lists@{domain}", simple("plus"))
    (stored,) = daemon.messages(owner)
    assert f"Delivered-To: {local}+lists@{domain}".encode() in stored or f"Delivered-To: {owner.address}".encode() in stored


def test_upper_case_recipient(daemon: Daemon, owner: Owner) -> None:
    daemon.send(owner.address.upper(), simple("loud"))
    assert len(daemon.messages(owner)) == 1


def test_postmaster(fresh: Daemon) -> None:
    """``RCPT TO:<postmaster>`` and ``postmaster@domain`` are always taken (RFC 5321 section 4.5.1)."""
    owner = fresh.owner("postmaster")
    fresh.start()
    with Smtp(fresh) as smtp:
        smtp.hello()
        assert smtp.ask(b"MAIL FROM:<>").startswith(b"250")
        assert smtp.ask(b"RCPT TO:<Postmaster@EXAMPLE.com>").startswith(b"250")
        assert smtp.data(simple("to the postmaster")).startswith(b"250")
    assert len(fresh.messages(owner)) == 1
    with Smtp(fresh) as smtp:
        smtp.hello()
        assert smtp.ask(b"MAIL FROM:<>").startswith(b"250")
        bare = smtp.ask(b"RCPT TO:<postmaster>")
        assert bare[:1] in (b"2", b"5") and b"syntax" not in bare.lower()


def test_null_sender(daemon: Daemon, owner: Owner) -> None:
    """A bounce."""
    daemon.send(owner.address, simple("bounce"), sender="")
    (stored,) = daemon.messages(owner)
    assert stored.startswith(b"Return-Path: <>\r\n")


def test_size_announced_too_large(daemon: Daemon) -> None:
    with Smtp(daemon) as smtp:
        smtp.hello()
        assert smtp.ask(b"MAIL FROM:<a@example.net> SIZE=52428801").startswith(b"552 5.3.4")
        assert smtp.ask(b"MAIL FROM:<a@example.net> SIZE=52428800").startswith(b"250")


def test_unknown_parameters_are_refused(daemon: Daemon) -> None:
    with Smtp(daemon) as smtp:
        smtp.hello()
        assert smtp.ask(b"MAIL FROM:<a@example.net> FOO=bar").startswith(b"555")
        assert smtp.ask(b"MAIL FROM:<a@example.net>").startswith(b"250")


def test_recipients_limit(daemon: Daemon, owner: Owner) -> None:
    """The first hundred are taken, the next gets 452, and the message goes to those taken."""
    local, domain = owner.address.split("@")
    with Smtp(daemon) as smtp:
        smtp.hello()
        smtp.ask(b"MAIL FROM:<a@example.net>")
        replies = [smtp.ask(f"RCPT TO:<{local}+{n}@{domain}>".encode())[:3] for n in range(101)]
        assert replies[:100] == [b"250"] * 100
        assert replies[100] == b"452"
        assert smtp.data(simple("many")).startswith(b"250")


def test_hop_count(daemon: Daemon, owner: Owner) -> None:
    looping = b"".join(b"Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\n" for _ in range(101)) + simple("loop")
    with pytest.raises(smtplib.SMTPDataError) as error:
        daemon.send(owner.address, looping)
    assert error.value.smtp_code == 554 and b"5.4.6" in error.value.smtp_error
    assert daemon.messages(owner) == []


@pytest.mark.parametrize("content", [b"a\nb", b"a\rb", b"a\n.\nb", b"a\r.\rb", b"a\n.\r\nb", b"a\r\n.\nb", b"a\r\r\nb", b"\n"])
def test_bare_line_ends_are_refused(daemon: Daemon, owner: Owner, content: bytes) -> None:
    """SMTP smuggling: no bare CR or LF ends a message, and none is stored."""
    with Smtp(daemon) as smtp:
        smtp.envelope(owner.address)
        reply = smtp.data(b"Subject: x\r\n\r\n" + content + b"\r\nMAIL FROM:<evil@example.net>\r\n")
        assert re.match(rb"550 5\.6\.\d", reply), reply
        assert smtp.ask(b"NOOP").startswith(b"250"), "exactly one reply to DATA"
    assert daemon.messages(owner) == []


def test_pipelining(daemon: Daemon, owner: Owner) -> None:
    """Everything in one segment; replies in order; QUIT's after the message's."""
    address = owner.address.encode()
    message = simple("pipelined")
    with Smtp(daemon) as smtp:
        smtp.send(
            b"EHLO client.example.net\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<" + address + b">\r\nRCPT TO:<nobody@example.com>\r\n"
            b"RCPT TO:<" + address + b">\r\nDATA\r\n"
        )
        codes = [smtp.reply()[:3] for _ in range(6)]
        assert codes == [b"250", b"250", b"250", b"550", b"250", b"354"]
        smtp.send(message + b".\r\nMAIL FROM:<b@example.net>\r\nRCPT TO:<" + address + b">\r\nDATA\r\n")
        assert [smtp.reply()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
        smtp.send(message + b".\r\nQUIT\r\n")
        assert [smtp.reply()[:3] for _ in range(2)] == [b"250", b"221"]
        assert smtp.closed()
    assert [as_sent(stored) for stored in daemon.messages(owner)] == [message, message]


def test_data_without_recipient_when_pipelined(daemon: Daemon) -> None:
    """All recipients refused: DATA is refused too, so the body is not taken for commands by a client that pipelines."""
    with Smtp(daemon) as smtp:
        smtp.send(b"EHLO c\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<nobody@example.com>\r\nDATA\r\n")
        codes = [smtp.reply()[:3] for _ in range(4)]
        assert codes[2:] in ([b"550", b"503"], [b"550", b"554"])
        assert smtp.ask(b"NOOP").startswith(b"250")


def test_chunking(daemon: Daemon, owner: Owner) -> None:
    """BDAT in pieces cut anywhere, pipelined; dots are not touched."""
    message = simple("chunks", ".\r\n..\r\nend\r\n")
    first, second = message[:31], message[31:]
    with Smtp(daemon) as smtp:
        smtp.envelope(owner.address)
        smtp.send(b"BDAT %d\r\n" % len(first) + first + b"BDAT %d\r\n" % len(second) + second + b"BDAT 0 LAST\r\n")
        assert [smtp.reply()[:3] for _ in range(3)] == [b"250"] * 3
    (stored,) = daemon.messages(owner)
    assert as_sent(stored) == message


def test_smtputf8(daemon: Daemon) -> None:
    """A sender, a recipient and a header outside ASCII."""
    daemon.cli("alias", "add", "grüße@example.com")
    owner = daemon.password("grüße@example.com")
    message = "From: jörg@example.net\r\nSubject: Grüße\r\n\r\nText\r\n".encode()
    daemon.send("grüße@example.com", message, sender="jörg@example.net", options=["SMTPUTF8", "BODY=8BITMIME"])
    with Smtp(daemon) as smtp:
        smtp.hello()
        assert smtp.ask("MAIL FROM:<jörg@example.net> SMTPUTF8".encode()).startswith(b"250")
        assert smtp.ask("RCPT TO:<grüße@example.com>".encode()).startswith(b"250")
        assert smtp.data(message).startswith(b"250")
    client = daemon.imaps()
    client.authenticate("PLAIN", lambda _: f"\0{owner.address}\0{owner.password}".encode())
    assert client.select("INBOX")[1] == [b"2"]
    client.logout()


def test_rset_forgets_the_envelope(daemon: Daemon, owner: Owner) -> None:
    with Smtp(daemon) as smtp:
        smtp.envelope(owner.address)
        assert smtp.ask(b"RSET").startswith(b"250")
        assert smtp.ask(b"DATA").startswith(b"503")


def test_commands_out_of_order(daemon: Daemon, owner: Owner) -> None:
    with Smtp(daemon) as smtp:
        assert smtp.ask(b"MAIL FROM:<a@example.net>").startswith(b"503")
        smtp.hello()
        assert smtp.ask(b"RCPT TO:<" + owner.address.encode() + b">").startswith(b"503")
        assert smtp.ask(b"DATA").startswith(b"503")
        assert smtp.ask(b"MAIL FROM:<a@example.net>").startswith(b"250")
        assert smtp.ask(b"MAIL FROM:<b@example.net>").startswith(b"503")


def test_other_commands(daemon: Daemon) -> None:
    with Smtp(daemon) as smtp:
        smtp.hello()
        assert smtp.ask(b"NOOP ignored").startswith(b"250")
        assert smtp.ask(b"VRFY somebody")[:3] in (b"252", b"502")
        assert smtp.ask(b"EXPN list")[:3] in (b"252", b"502", b"550")
        assert smtp.ask(b"HELP")[:3] in (b"214", b"502", b"250")
        assert smtp.ask(b"AUTH PLAIN AGEAYg==")[:3] in (b"502", b"503", b"500")
        assert smtp.ask(b"QUIT").startswith(b"221")
        assert smtp.closed()


def test_a_client_that_vanishes_in_data(daemon: Daemon, owner: Owner) -> None:
    """Without the final dot nothing is stored."""
    with Smtp(daemon) as smtp:
        smtp.envelope(owner.address)
        smtp.ask(b"DATA")
        smtp.send(simple("half a message"))
    assert daemon.messages(owner) == []


def test_mailbox_not_ready(daemon: Daemon) -> None:
    """An alias without a password has no key to seal to: try again later."""
    daemon.cli("alias", "add", "notyet@example.com")
    with daemon.smtp() as client:
        client.ehlo()
        client.mail("a@example.net")
        assert client.rcpt("notyet@example.com")[0] == 450
