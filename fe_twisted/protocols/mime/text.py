"""The text that a person would see, for searching: bounded, decoded, without markup."""

from __future__ import annotations

import re
import unicodedata
from html.entities import html5

from fe_twisted.protocols.mime import charset, encoding, header, words
from fe_twisted.protocols.mime.entity import Entity
from fe_twisted.protocols.mime.parts import Part

#: Characters of text kept of one message.
MAX_TEXT = 4 * 1024 * 1024
#: Octets, still encoded and with markup, that are read for it.
MAX_READ = 16 * 1024 * 1024
#: Header fields of an attached message that people look for.
_SHOWN = (b"subject", b"from", b"to", b"cc", b"date")

_HIDDEN = re.compile(r"<(?:(!--)|(script|style|template)\b)", re.IGNORECASE)
_END_OF_HIDDEN = {name: re.compile(rf"</{name}\b[^<>]*+>?", re.IGNORECASE) for name in ("script", "style", "template")}
_INLINE = re.compile(
    r"</?+(?:a|abbr|acronym|b|bdi|bdo|big|cite|code|dfn|em|font|i|ins|kbd|mark|o:p|q|s|samp|small|span|strike|strong|sub|sup|tt|u|var|wbr)"
    r"(?:[\s/][^<>]*+)?>",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[/!?a-zA-Z][^<>]*+>")
_HREF = re.compile(r"\bhref\s*+=\s*+(?:\"([^\"<>]*+)|'([^'<>]*+)|([^\s\"'<>]++))", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#([0-9]{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-zA-Z][a-zA-Z0-9]{1,31}));?")


def fold(text: str) -> str:
    """The one normalisation that stored text and search patterns go through.

    Case folding, canonical composition (NFC), and every run of white space as one space, so that text matches across line breaks.
    """
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    if not folded:
        return ""
    inner = " ".join(folded.split())
    if not inner:
        return " "
    return f"{' ' if folded[0].isspace() else ''}{inner}{' ' if folded[-1].isspace() else ''}"


def visible(html: str) -> str:
    """The text of HTML: no markup, script or style; blocks on lines of their own; link targets at the end."""
    shown = _without_hidden(html) if "<" in html else html
    links = dict.fromkeys(first or second or third for first, second, third in _HREF.findall(shown))
    shown = _TAG.sub("\n", _INLINE.sub("", shown))
    if links:
        shown = "\n".join([shown, *links])
    return _ENTITY.sub(_character, shown) if "&" in shown else shown


def _without_hidden(html: str) -> str:
    """Without comments, scripts and style sheets; one that is not closed reaches to the end, as in a browser."""
    kept: list[str] = []
    position = 0
    while found := _HIDDEN.search(html, position):
        kept.append(html[position : found.start()])
        if found[1]:
            position = html.find("-->", found.end()) + 3
            if position < 3:
                return "".join(kept)
        else:
            closing = _END_OF_HIDDEN[found[2].lower()].search(html, found.end())
            if closing is None:
                return "".join(kept)
            position = closing.end()
        kept.append("\n")
    kept.append(html[position:])
    return "".join(kept)


def _character(found: re.Match[str]) -> str:
    decimal, hexadecimal, name = found.groups()
    if name:
        return html5.get(name + ";") or found[0]
    code = int(decimal) if decimal else int(hexadecimal, 16)
    return chr(code) if 0 < code < 0xD800 or 0xDFFF < code < 0x110000 else "\ufffd"


def text(content: bytes, entity: Entity, root: Part) -> str:
    """All text of a message; ``root`` is the same tree as ``entity``."""
    collector = _Collector(content)
    collector.visit(entity, root)
    return "\n".join(collector.found + collector.names)[:MAX_TEXT]


class _Collector:
    """Walks the tree until a bound is reached."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._characters = MAX_TEXT
        self._octets = MAX_READ
        self.found: list[str] = []
        self.names: list[str] = []

    def visit(self, entity: Entity, part: Part) -> None:
        """Adds a part and what is in it."""
        if part.filename:
            self.names.append(part.filename)
        if self._characters <= 0 or self._octets <= 0:
            return
        if part.type.startswith("text/"):
            self._add(self._decoded(part))
        elif part.is_message:
            fields = entity.children[0].fields
            self._add("\n".join([words.decode(header.unfold(value)) for name, value in fields if name.lower() in _SHOWN]))
        for child, child_part in zip(entity.children, part.children, strict=True):
            self.visit(child, child_part)

    def _add(self, text: str) -> None:
        if text:
            self.found.append(text[: self._characters])
            self._characters -= len(text) + 1

    def _decoded(self, part: Part) -> str:
        end = min(part.end, part.body + self._octets)
        self._octets -= end - part.body
        shown = charset.decode(encoding.decode(part.encoding, self._content[part.body : end]), part.charset)
        return visible(shown) if part.type == "text/html" else shown
