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
MAX_READ = 8 * 1024 * 1024
#: Header fields of an attached message that people look for.
_SHOWN = (b"subject", b"from", b"to", b"cc", b"date")

#: A tag's name and its attributes.
_TAG = re.compile(r"<([/!?a-zA-Z][^\s<>/]*+)([^<>]*+)>")
#: Tags that do not end a word; all others stand on a line of their own.
# fmt: off
_INLINE_NAMES = (
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "del", "dfn", "em", "font", "i", "ins", "kbd", "label", "mark", "o:p",
    "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "tt", "u", "var", "wbr",
)
# fmt: on
_INLINE = frozenset(slash + name for name in _INLINE_NAMES for slash in ("", "/"))
_HIDDEN = frozenset({"script", "style", "template"})
_HREF = re.compile(r"\bhref\s*+=\s*+(?:\"([^\"]*+)|'([^']*+)|([^\s\"']++))", re.IGNORECASE)
_ENTITY = re.compile(r"&(?!amp;)(?:#([0-9]{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-zA-Z][a-zA-Z0-9]{1,31}));?")
_SPACE = re.compile(r"\s")
#: Characters of HTML or text that are taken apart at a time, so that tags without any text, or many words, need little memory.
_STEP = 256 * 1024


def fold(text: str) -> str:
    """The one normalisation that stored text and search patterns go through.

    Case folding, canonical composition (NFC), and every run of white space as one space, so that text matches across line breaks.
    """
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFC", text.casefold())
    if not folded:
        return ""
    inner = _single_spaced(folded)
    if not inner:
        return " "
    return f"{' ' if folded[0].isspace() else ''}{inner}{' ' if folded[-1].isspace() else ''}"


def _single_spaced(text: str) -> str:
    """The words of a text with one space between them; of a long one a little at a time, since words take ten times the memory of text."""
    if len(text) <= _STEP:
        return " ".join(text.split())
    shown: list[str] = []
    at = 0
    while at < len(text):
        space = _SPACE.search(text, at + _STEP)
        end = space.start() if space else len(text)
        shown.append(" ".join(text[at:end].split()))
        at = end
    return " ".join(filter(None, shown))


def visible(html: str) -> str:
    """The text of HTML: no markup, script or style; blocks on lines of their own; link targets at the end.

    A comment, script or style sheet that is not closed reaches to the end, as in a browser.
    """
    html = _without_comments(html)
    shown: list[str] = []
    links: dict[str, None] = {}
    closing = ""  # the tag that ends the script or style sheet that is being skipped
    position = 0
    while position < len(html):
        end = html.find("<", position + _STEP)
        pieces = _TAG.split(html[position : end if end >= 0 else len(html)])
        position = end if end >= 0 else len(html)
        if not closing:
            shown.append(pieces[0])
        for name, attributes, after in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
            name = name.lower()
            if closing:
                if name != closing:
                    continue
                closing = ""
            if name in _INLINE:
                if name == "a" and (href := _HREF.search(attributes)):
                    links[href[1] or href[2] or href[3] or ""] = None
                shown.append(after)
            elif name in _HIDDEN:
                closing = "/" + name
            else:
                shown.append("\n" + after)
    text = "".join(shown)
    if links:
        text = "\n".join([text, *links])
    return _without_entities(text) if "&" in text else text


def _without_comments(html: str) -> str:
    start = html.find("<!--")
    if start < 0:
        return html
    kept: list[str] = []
    position = 0
    while start >= 0:
        kept.append(html[position:start])
        end = html.find("-->", start + 4)
        if end < 0:
            return "".join(kept)
        position = end + 3
        start = html.find("<!--", position)
    kept.append(html[position:])
    return "".join(kept)


def _without_entities(text: str) -> str:
    """Character references replaced, with short cuts for the two that are common."""
    return _ENTITY.sub(_character, text.replace("&nbsp;", " ")).replace("&amp;", "&")


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
        # A message part that was not taken apart is text for whoever reads it: a delivery status, a partial message, one nested too deep.
        if part.type.startswith("text/") or (part.type.startswith("message/") and not part.children):
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
