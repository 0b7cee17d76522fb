"""What an SMTP server answers (RFC 5321 section 4.2, RFC 2034), and the one mapping from errors to it."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, replace
from functools import lru_cache

from fe_twisted.base.errors import MailError, Ours

#: Octets of a reply line, CR LF included (RFC 5321 section 4.5.3.1.5).
MAX_LINE = 512

_UNPRINTABLE = re.compile(r"[^ -~]+")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply of one or more lines.

    :param enhanced: the enhanced status code, or an empty string where RFC 2034 section 4 wants none (greeting, EHLO, 354).
    :param text: printable ASCII; what is not becomes ``?``, so that nothing a client sent can end a line.
    :param more: further lines.
    """

    code: int
    enhanced: str
    text: str
    more: tuple[str, ...] = ()

    def tagged(self, connection: str) -> Reply:
        """With the connection id at the end, when the reply reports trouble (4xx, 5xx)."""
        if self.code < 400:
            return self
        tag = f" [id {connection}]"
        if self.more:
            return replace(self, more=(*self.more[:-1], self.more[-1] + tag))
        return replace(self, text=self.text + tag)

    def render(self) -> bytes:
        """The bytes for the wire; over-long lines are wrapped."""
        return _render(self.code, self.enhanced, (self.text, *self.more))


# Most replies are the same few again and again.
@lru_cache(maxsize=256)
def _render(code: int, enhanced: str, texts: tuple[str, ...]) -> bytes:
    status = f"{enhanced} " if enhanced else ""
    room = MAX_LINE - len(status) - 6
    lines = []
    for text in texts:
        text = _UNPRINTABLE.sub("?", text)
        lines += [text] if len(text) <= room else textwrap.wrap(text, room)
    last = len(lines) - 1
    return "".join(f"{code}{'-' if number < last else ' '}{status}{line}\r\n" for number, line in enumerate(lines)).encode("ascii")


def reply_to(error: BaseException | None) -> Reply:
    """How an error looks to an SMTP client; anything that is no :class:`MailError` is our own fault: 451, try again.

    A public text of several lines becomes a reply of several lines.
    """
    if not isinstance(error, MailError):
        error = Ours()
    text, *more = error.public.split("\n")
    return Reply(error.smtp.code, error.smtp.enhanced, text, tuple(more))
