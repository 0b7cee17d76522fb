"""``forwardemail directory``: what cannot be copied to is said, and nothing is changed.  Copying itself: tests/whole/test_scaling.py."""

from __future__ import annotations

import pytest

from tests.app.test_cli import Shell, shell

__all__ = ["shell"]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("mysql://user@host/mail", "not a PostgreSQL URL"),
        ("postgresql://user:secret@host/mail", "password does not belong"),
        ("postgresql://user@/mail?host=/nowhere", "cannot be reached"),
    ],
)
def test_what_cannot_be_copied_to(shell: Shell, url: str, text: str) -> None:
    shell("domain", "add", "example.org")
    before = shell.config.read_bytes()
    told = shell("directory", "copy", "--to", url, status=1)
    assert text in told and "secret" not in told
    assert shell.config.read_bytes() == before
    assert shell.json("domain", "list")["domains"] == [{"domain": "example.org", "aliases": 0}]


def test_a_target_is_needed(shell: Shell) -> None:
    shell("directory", "copy", status=2)
