"""Two primaries that were given the same location: both say so, and neither makes a mailbox of the other anew."""

from __future__ import annotations

import imaplib
import smtplib
from pathlib import Path

import pytest

from tests.storage.directory.conftest import postgresql, postgresql_url  # noqa: F401  # fixtures
from tests.whole.daemon import Daemon, simple, until
from tests.whole.test_move import folder, introduce, prepare


def test_two_primaries_with_one_location(tmp_path: Path, postgresql_url: str) -> None:  # noqa: F811  # the fixture
    one, two = Daemon(tmp_path / "one"), Daemon(tmp_path / "two")
    url = postgresql_url.replace("+psycopg", "")
    for each in (one, two):
        prepare(each, "one", url)
    introduce(one, {"two": two})
    introduce(two, {"other": one})
    two.cli("link", "join", stdin=one.json("link", "token")["token"] + "\n")
    one.cli("domain", "add", "example.com")
    owner = one.owner("hello")
    before = one.start().json("alias", "show", owner.address)
    one.send(owner.address, simple("kept"))
    two.start()

    for each, other in ((one, "two"), (two, "other")):
        until(lambda each=each: len(each.json("status")["problems"]) >= 2, "it is seen from both ends")  # type: ignore[misc]
        text = each.cli("status")
        assert f"PROBLEM: the link to {other} leads to a primary of the location one, and so is this one, " in text
        assert " is a primary of the location one, and so is this one, " in text
        assert "location.wrong" in each.log()
        assert "is the primary of the location one" in each.cli("check", status=1)
    assert not [problem for problem in one.json("status")["problems"] if "no file here" in problem]
    missing = f"1 mailbox of the location one has no file here, {before['mailbox']} for one"
    assert missing in two.cli("status")

    # The directory tells the second one that the mailbox is its own. It is not: nobody gets an empty one, and no mail is taken for it.
    two.expected.append(r"imap\.failed .*\.sqlite is not there")
    with pytest.raises(imaplib.IMAP4.error):
        two.login(owner)
    with pytest.raises(smtplib.SMTPResponseException) as refused:
        two.send(owner.address, simple("not there"))
    assert refused.value.smtp_code == 451, "the sender tries again"
    assert folder(two) <= {".server-key-mark"}
    assert len(one.messages(owner)) == 1
    assert one.json("alias", "show", owner.address) == before

    # With a location of its own all is well, without a restart of the first.
    two.stop()
    two.config.write_text(two.config.read_text().replace('location = "one"', 'location = "two"').replace("other=wss", "one=wss"))
    two.start()
    for each in (one, two):
        until(lambda each=each: each.json("status")["problems"] == [], "nothing is wrong any more")  # type: ignore[misc]
    two.send(owner.address, simple("there"))
    until(lambda: len(one.messages(owner)) == 2, "it is handed over")
    assert len(two.messages(owner)) == 2
    for each in (one, two):
        each.stop()
