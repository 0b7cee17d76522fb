"""Replies: codes on every line, connection ids on refusals, and nothing that could be two lines."""

from __future__ import annotations

from fe_twisted.base import errors
from fe_twisted.protocols.smtp.replies import MAX_LINE, Reply, reply_to


def test_render() -> None:
    assert Reply(250, "2.0.0", "ok").render() == b"250 2.0.0 ok\r\n"
    assert Reply(250, "", "mx", ("A", "B 1")).render() == b"250-mx\r\n250-A\r\n250 B 1\r\n"
    assert Reply(550, "5.1.1", "a", ("b",)).render() == b"550-5.1.1 a\r\n550 5.1.1 b\r\n"


def test_unprintable_text_is_replaced() -> None:
    """No CR, LF or 8-bit text leaves in a reply."""
    assert Reply(550, "", "a\r\nb\x00\té\u2028").render() == b"550 a?b?\r\n"


def test_long_text_is_wrapped() -> None:
    lines = Reply(550, "5.0.0", "word " * 300 + "x" * 2000).render().split(b"\r\n")
    assert len(lines) > 4
    assert all(len(line) + 2 <= MAX_LINE for line in lines)
    assert all(line.startswith(b"550-5.0.0 ") for line in lines[:-2])
    assert lines[-2].startswith(b"550 5.0.0 ")


def test_tag() -> None:
    """Only refusals are tagged, on their last line."""
    assert Reply(250, "", "ok").tagged("ab") == Reply(250, "", "ok")
    assert Reply(450, "4.0.0", "no").tagged("ab").text == "no [id ab]"
    assert Reply(450, "4.0.0", "no", ("x", "y")).tagged("ab").more == ("x", "y [id ab]")


def test_errors() -> None:
    """The public text only; a bug is 451."""
    assert reply_to(errors.StorageFailed(reason="/secret/path")) == Reply(451, "4.3.0", "storage failure, nothing was stored")
    assert reply_to(KeyError("secret")) == Reply(451, "4.3.0", "internal error")
    assert reply_to(errors.UnknownDomain("a\nb")) == Reply(550, "5.7.1", "a", ("b",))


def every(kind: type[errors.MailError]) -> list[type[errors.MailError]]:
    """A class and all below it."""
    return [kind, *(found for below in kind.__subclasses__() for found in every(below))]


def test_every_error_has_a_refusing_code_that_fits() -> None:
    """4xx or 5xx, with an enhanced code of the same class."""
    for kind in every(errors.MailError):
        code, enhanced = kind.smtp
        assert 400 <= code < 600
        assert enhanced.split(".")[0] in "45"
        if code not in (452,):
            assert str(code)[0] == enhanced[0], kind
