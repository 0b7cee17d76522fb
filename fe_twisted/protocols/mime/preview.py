"""The first words of a message (RFC 8970)."""

from __future__ import annotations

import re

from fe_twisted.protocols.mime import charset, encoding
from fe_twisted.protocols.mime.parts import Part
from fe_twisted.protocols.mime.text import visible

#: RFC 8970 section 3.2: at most 256 characters, 200 preferred.
MAX_PREVIEW = 200
#: Octets of a part, still encoded and with markup, that are read for it.
MAX_READ = 65_536

_TEXTS = ("text/plain", "text/html")
#: A line of somebody else's words, or a ruler; and the line that announces the words, which ends with a colon.
_QUOTED = re.compile(r"[ \t]*>|[-_=*]{3,}[ \t]*\r?$")
_ANNOUNCED = re.compile(r".{1,200}(?:wrote|schrieb|écrit|escribió|scrive)[ \t]?:\r?$", re.IGNORECASE)


def preview(content: bytes, root: Part) -> str:
    """Up to :data:`MAX_PREVIEW` characters of one line, without quotations of other messages; empty when there is no text to read."""
    for part in _texts(root):
        octets = encoding.decode(part.encoding, content[part.body : min(part.end, part.body + MAX_READ)])
        shown = charset.decode(octets, part.charset)
        found = _beginning(visible(shown) if part.type == "text/html" else shown)
        if found:
            return found
    return ""


def _texts(part: Part) -> list[Part]:
    """The texts that are shown to a reader, those that are cheap to read first within an alternative.

    What is encrypted holds none; parts of attached messages are not the words of this one.
    """
    if part.type == "multipart/encrypted" or part.attachment:
        return []
    if part.is_multipart:
        found = [text for child in part.children for text in _texts(child)]
        if part.type == "multipart/alternative":
            found.sort(key=lambda text: _TEXTS.index(text.type))
        return found
    return [part] if part.type in _TEXTS else []


def _beginning(text: str) -> str:
    words: list[str] = []
    length = 0
    for line in text.split("\n"):
        if length > MAX_PREVIEW or line.rstrip() == "--":  # a signature begins
            break
        if line.isspace() or not line or _QUOTED.match(line):
            continue
        if line.endswith((":", ":\r")) and _ANNOUNCED.match(line):
            continue
        for word in line[: 4 * MAX_PREVIEW].split():
            words.append(word)
            length += len(word) + 1
    joined = " ".join(words)[: 2 * MAX_PREVIEW]
    if not joined.isprintable():  # control characters, NUL and lone surrogates are nothing to read and cannot be sent
        joined = "".join([character if character.isprintable() else " " for character in joined])
    return " ".join(joined.split())[:MAX_PREVIEW].rstrip()
