"""Where our answers differ from Dovecot's, who is right, and by which RFC: the list that :mod:`tests.whole.test_dovecot` reads.

A difference is one value of one message: an item of ENVELOPE, a cell of BODY or BODYSTRUCTURE (``1.2:encoding``), a section, a BINARY.  The
test fails on any that no rule here explains, and on any rule that is not needed when all messages are compared, so that the list stays as
long as it must be.

A rule that speaks of broken input looks for the breach in the message itself, with means of its own: a regular expression made from the
RFC's grammar, or the defects that Python's ``email`` names.
"""

from __future__ import annotations

import email
import email.message
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property

from tests.whole.twin import Refused
from tests.whole.values import Value

#: What a server has that has no such item.
MISSING = "missing"


class Message:
    """What the rules want to know of a message."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    @cached_property
    def defects(self) -> frozenset[str]:
        """Breaches of MIME's grammar, see :func:`_defects`."""
        return frozenset(_defects(self.content))

    @cached_property
    def fields(self) -> dict[bytes, list[bytes]]:
        """All fields of all headers in it by lower-case name, unfolded; also lines of text that look like one."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in re.findall(rb"^([!-9;-~]+)[ \t]*:((?>(?:[^\r\n]++|\r\n[ \t])*))", self.content, re.MULTILINE):
            found.setdefault(name.lower(), []).append(value.replace(b"\r\n", b"").strip(b" \t"))
        return found

    def values(self, *names: str) -> list[bytes]:
        """The values of all fields with these names."""
        return [value for name in names for value in self.fields.get(name.encode(), ())]

    def repeats(self, name: str) -> bool:
        """A header, this message's or that of a part, has the field twice."""
        return any(len(part.get_all(name, ())) > 1 for part in self.parts)

    @cached_property
    def without_version(self) -> bool:
        """This message or one inside it has no MIME-Version."""
        roots = [self.parts[0], *(inner for part in self.parts if part.get_content_maintype() == "message" for inner in _payload(part))]
        return any("mime-version" not in root for root in roots)

    @cached_property
    def parts(self) -> list[email.message.Message]:
        """The message and its parts as Python reads them."""
        return list(_read(self.content).walk())


@dataclass(frozen=True)
class Difference:
    """One value that is not the same.

    :param item: ``envelope``, ``structure``, ``section`` or ``binary``.
    :param place: what of it: ``1m:subject``, ``1.2.MIME``, ``2``.
    """

    message: Message
    item: str
    place: str
    ours: Value
    theirs: Value

    @property
    def cell(self) -> str:
        """The last word of the place: ``subject``, ``parameters``, ``MIME``."""
        return self.place.rpartition(":")[2]


#: As re.compile, which takes longer to find that it has done it before.
_compiled = cache(re.compile)


@dataclass(frozen=True)
class Rule:
    """Explains differences.

    :param right: ``ours``, ``theirs`` or ``either``.
    """

    name: str
    items: str
    cells: str
    right: str
    why: str
    holds: Callable[[Difference], bool]

    def explains(self, difference: Difference) -> bool:
        """Whether this is one of its kind."""
        return (
            _compiled(self.items).fullmatch(difference.item) is not None
            and _compiled(self.cells).fullmatch(difference.cell) is not None
            and self.holds(difference)
        )


# -- what is well-formed, by the grammars of the RFCs ----------------------------------------------------------------


def _any(pattern: bytes) -> bytes:
    """Any number of them, none given back; a possessive group would be read wrongly before Python 3.11.5."""
    return rb"(?>(?:" + pattern + rb")*)"


def _perhaps(pattern: bytes) -> bytes:
    """One or none, not given back."""
    return rb"(?>(?:" + pattern + rb")?)"


_ATOM = rb"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\x80-\xff]++"
_SPACE = rb"[ \t]*+"
_QUOTED = rb'"(?>(?:[^"\\]|\\.)*)"'
_WORD = rb"(?:" + _ATOM + rb"|" + _QUOTED + rb")"
_LOCAL = _WORD + _any(_SPACE + rb"\." + _SPACE + _WORD)
_DOMAIN = rb"(?:" + _ATOM + _any(_SPACE + rb"\." + _SPACE + _ATOM) + rb"|\[[^\[\]\\]*+\])"
_SPEC = _LOCAL + _SPACE + rb"@" + _SPACE + _DOMAIN
_ROUTE = _perhaps(rb"@" + _DOMAIN + _any(rb",@" + _DOMAIN) + rb":")
_PHRASE = _WORD + _any(_SPACE + rb"(?:" + _WORD + rb"|\.)")
_MAILBOX = rb"(?:" + _SPEC + rb"|" + _perhaps(_PHRASE) + _SPACE + rb"<" + _SPACE + _ROUTE + _SPEC + _SPACE + rb">)"
_MAILBOXES = _any(_SPACE + _perhaps(_MAILBOX) + _SPACE + rb",") + _SPACE + _perhaps(_MAILBOX)
_GROUP = _PHRASE + _SPACE + rb":" + _MAILBOXES + _SPACE + rb";"
#: RFC 5322 section 3.4 with section 4.4: empty elements, routes, white space around dots; UTF-8 as in RFC 6532.
_ADDRESS = re.compile(_SPACE + _perhaps(_MAILBOX + rb"|" + _GROUP) + _SPACE + rb"(?:,|\Z)")

_TOKEN = rb"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]++"
_PARAMETERS = _any(_SPACE + rb";" + _SPACE + _TOKEN + rb"=(?:" + _TOKEN + rb"|" + _QUOTED + rb")") + _SPACE
#: RFC 2045 section 5.1.
_CONTENT_TYPE = re.compile(_TOKEN + rb"/" + _TOKEN + _PARAMETERS)
#: RFC 2183 section 2.
_DISPOSITION = re.compile(_TOKEN + _PARAMETERS)


def _without_comments(value: bytes) -> bytes | None:
    """RFC 5322 section 3.2.2; None when a parenthesis is not closed."""
    kept = bytearray()
    depth, quoted, at = 0, False, 0
    while at < len(value):
        octet = value[at : at + 1]
        step = 2 if octet == b"\\" and (quoted or depth) else 1
        if octet == b'"' and not depth:
            quoted = not quoted
        if octet == b"(" and not quoted:
            depth += 1
        if not depth:
            kept += value[at : at + step]
        if octet == b")" and not quoted:
            if not depth:
                return None
            depth -= 1
            kept += b" "
        at += step
    return None if depth or quoted else bytes(kept)


def addresses_well_formed(value: bytes) -> bool:
    """Whether it is an address-list, obsolete forms included."""
    text = _without_comments(value)
    at = 0
    while text is not None and at < len(text):
        found = _ADDRESS.match(text, at)
        if found is None or (found.end() == at and at < len(text)):
            return False
        at = found.end()
    return text is not None


def well_formed(grammar: re.Pattern[bytes], value: bytes) -> bool:
    """Whether a field's value is what the grammar says, comments aside."""
    text = _without_comments(value)
    return text is not None and grammar.fullmatch(text.strip(b" \t")) is not None


def _payload(part: email.message.Message) -> list[email.message.Message]:
    inside = part.get_payload()
    return [one for one in inside if isinstance(one, email.message.Message)] if isinstance(inside, list) else []


def _read(content: bytes) -> email.message.Message:
    # Python takes the white space before a colon (RFC 5322 section 4.5) for a part of the name.
    return email.message_from_bytes(re.sub(rb"^([!-9;-~]+)[ \t]+:", rb"\1:", content, flags=re.MULTILINE))


def _defects(content: bytes) -> Iterator[str]:
    """What is wrong with the structure, or undecided by the RFCs."""
    boundaries: list[bytes] = []
    for part in _read(content).walk():
        yield from (type(defect).__name__ for defect in part.defects)
        for name in ("content-type", "content-transfer-encoding"):
            if len(part.get_all(name, ())) > 1:
                yield "repeated"
        if not part.keys():
            yield "no header"
        kind = str(part.get("content-type", "text/plain"))
        if not well_formed(_CONTENT_TYPE, kind.replace("\r\n", "").encode("utf-8", "replace")):
            yield "content type"
        if part.get_content_maintype() == "message" and any(not inner.get_payload() for inner in _payload(part)):
            yield "message without body"
        if part.get_content_type() == "message/global":
            yield "message/global"
        composite = part.get_content_maintype() in ("multipart", "message")
        encoding = str(part.get("content-transfer-encoding", "7bit")).strip().lower()
        if composite and encoding not in ("7bit", "8bit", "binary"):
            yield "encoded composite"
        if part.get_content_maintype() == "multipart":
            boundaries.append(str(part.get_boundary("")).encode("utf-8", "replace"))
    yield from _delimiter_defects(content, boundaries)


def _delimiter_defects(content: bytes, boundaries: list[bytes]) -> Iterator[str]:
    for number, boundary in enumerate(boundaries):
        if any(other.startswith(boundary) for place, other in enumerate(boundaries) if place != number):
            yield "boundary of another"
        if not boundary:
            yield "no boundary"
            continue
        if re.search(rb"boundary\*(?:0\*)?=", content, re.IGNORECASE):
            yield "encoded boundary"
        if len(boundary) > 70:
            yield "long boundary"
        line = rb"(?:^|\n)--" + re.escape(boundary)
        if re.search(line + rb"(?!(?:--)?[ \t]*(?:\r\n|\Z))", content):
            yield "delimiter goes on"
        if re.search(line + rb"[ \t]*\r\n--" + re.escape(boundary), content):
            yield "nothing between delimiters"


# -- the rules ------------------------------------------------------------------------------------------------------

_TEXTS = "date|subject|in-reply-to|message-id|id|description|md5|location"
_LISTS = "from|sender|reply-to|to|cc|bcc"
_FIELDS = {
    "id": "content-id",
    "description": "content-description",
    "md5": "content-md5",
    "location": "content-location",
    "language": "content-language",
    "encoding": "content-transfer-encoding",
    "parameters": "content-type",
    "type": "content-type",
    "subtype": "content-type",
    "disposition": "content-disposition",
}
_BOTH = "envelope|structure"


def _field(difference: Difference) -> str:
    return _FIELDS.get(difference.cell, difference.cell)


def _collapsed(value: Value) -> Value:
    if isinstance(value, list):
        return [_collapsed(one) for one in value]
    return b" ".join(value.split()) if isinstance(value, bytes) else value


def _repeated(difference: Difference) -> bool:
    names = {_field(difference)} | ({"from"} if difference.cell in ("sender", "reply-to") else set())
    return any(map(difference.message.repeats, names))


def _bad_addresses(difference: Difference) -> bool:
    names = {difference.cell, "from"} if difference.cell in ("sender", "reply-to") else {difference.cell}
    return not all(map(addresses_well_formed, difference.message.values(*names)))


def _without_missing(addresses: Value) -> Value:
    if not isinstance(addresses, list):
        return addresses
    return [one for one in addresses if one != [None, None, b"MISSING_MAILBOX", b"MISSING_DOMAIN"]] or None


def _empty_elements(difference: Difference) -> bool:
    theirs = _without_missing(difference.theirs)
    if theirs == _without_missing(difference.ours):
        return True
    # Sender and Reply-To that hold nobody are From (RFC 9051 section 7.5.2); Dovecot has found somebody
    return difference.cell in ("sender", "reply-to") and theirs is None


def _same_but(change: Callable[[Value], Value]) -> Callable[[Difference], bool]:
    return lambda difference: change(difference.ours) == change(difference.theirs)


def _lower(value: Value) -> Value:
    return value.lower() if isinstance(value, bytes) else value


def _pairs(value: Value) -> Value:
    """Parameters without the case of names and without their order."""
    if isinstance(value, list):
        return sorted((name.lower(), text) for name, text in zip(value[::2], value[1::2], strict=True))
    return [] if value is None else value


def _disposition(value: Value) -> Value:
    return (value[0].lower(), _pairs(value[1])) if isinstance(value, list) else value


def _added_charset(difference: Difference) -> bool:
    ours, theirs = _pairs(difference.ours), _pairs(difference.theirs)
    return isinstance(theirs, list) and ours == [pair for pair in theirs if pair != (b"charset", b"us-ascii")]


def _any_bad(grammar: re.Pattern[bytes], name: str) -> Callable[[Difference], bool]:
    return lambda difference: not all(well_formed(grammar, value) for value in difference.message.values(name))


def _fewer_languages(difference: Difference) -> bool:
    ours, theirs = difference.ours, difference.theirs
    return isinstance(ours, list) and isinstance(theirs, list) and ours[: len(theirs)] == theirs


def _defect(*names: str) -> Callable[[Difference], bool]:
    return lambda difference: not difference.message.defects.isdisjoint(names)


_DELIMITERS = (
    "StartBoundaryNotFoundDefect",
    "CloseBoundaryNotFoundDefect", "MultipartInvariantViolationDefect", "NoBoundaryInMultipartDefect", "no boundary",
    "boundary of another", "delimiter goes on", "nothing between delimiters", "long boundary",
)  # fmt: skip
_HEADERS = (
    "MissingHeaderBodySeparatorDefect", "InvalidHeaderDefect", "MisplacedEnvelopeHeaderDefect", "FirstHeaderLineIsContinuationDefect",
    "no header",
)  # fmt: skip
_ANYTHING = ".*"
_FOLDED_ENCODING = re.compile(rb"(?im)^content-transfer-encoding[ \t]*:(?:[ \t]*\r\n|.*[ )]\r\n)")

RULES: tuple[Rule, ...] = (
    Rule(
        "white space",
        _BOTH,
        f"{_TEXTS}|{_LISTS}",
        "ours",
        "RFC 5322 section 2.2.3: unfolding removes CR LF and nothing else; Dovecot makes one space of tabs and of several, and leaves "
        "one at the ends",
        _same_but(_collapsed),
    ),
    Rule("repeated field", _BOTH, _ANYTHING, "either", "RFC 5322 section 3.6: these may be there once", _repeated),
    Rule(
        "empty elements",
        _BOTH,
        _LISTS,
        "ours",
        "RFC 5322 section 4.4 (obs-addr-list): there may be nothing between two commas; Dovecot makes addresses of it",
        _empty_elements,
    ),
    Rule(
        "no addresses",
        _BOTH,
        _LISTS,
        "either",
        "not an address-list of RFC 5322 sections 3.4 and 4.4: what to make of it is anybody's guess",
        _bad_addresses,
    ),
    Rule(
        "case of names",
        "structure",
        "type|subtype|encoding",
        "either",
        "RFC 2045 sections 5.1 and 6.1: upper and lower case are the same",
        _same_but(_lower),
    ),
    Rule(
        "order of parameters",
        "structure",
        "parameters",
        "either",
        "RFC 2045 section 5.1: their order means nothing, nor does the case of names",
        _same_but(_pairs),
    ),
    Rule(
        "order in Content-Disposition",
        "structure",
        "disposition",
        "either",
        "RFC 2183 section 2: as in Content-Type",
        _same_but(_disposition),
    ),
    Rule(
        "charset named",
        "structure",
        "parameters",
        "either",
        "RFC 2045 section 5.2: text without a charset is in US-ASCII; Dovecot says it always, we where there is no Content-Type",
        _added_charset,
    ),
    Rule(
        "language as a list",
        "structure",
        "language",
        "either",
        "RFC 9051 section 9, body-fld-lang: a string or a list",
        lambda one: [one.ours] == one.theirs,
    ),
    Rule(
        "languages",
        "structure",
        "language",
        "ours",
        "RFC 3282 section 2: comments and empty elements are allowed; Dovecot stops there",
        _fewer_languages,
    ),
    Rule(
        "no Content-Type",
        "structure|section|binary",
        _ANYTHING,
        "ours",
        "RFC 2045 section 5.2: what is no Content-Type is text in US-ASCII; Dovecot has two empty strings",
        _defect("content type"),
    ),
    Rule(
        "no parameters",
        "structure",
        "parameters",
        "either",
        "not parameters of RFC 2045 section 5.1",
        _any_bad(_CONTENT_TYPE, "content-type"),
    ),
    Rule(
        "no Content-Disposition",
        "structure",
        "disposition",
        "either",
        "not a field of RFC 2183 section 2",
        _any_bad(_DISPOSITION, "content-disposition"),
    ),
    Rule(
        "no MIME-Version",
        "structure|binary",
        "encoding|disposition|language|location|md5|[0-9.]+",
        "either",
        "RFC 2045 section 4: without it a message may be read as MIME or not; Dovecot takes Content-Type and Content-ID, but none of "
        "the others",
        lambda one: one.message.without_version,
    ),
    Rule(
        "encoding in quotation marks",
        "structure|binary",
        "encoding|[0-9.]+",
        "either",
        "RFC 2045 section 6.1: it is a token; we read it all the same, Dovecot takes 7bit",
        lambda one: any(value.startswith(b'"') for value in one.message.values("content-transfer-encoding")),
    ),
    Rule(
        "boundary in RFC 2231's form",
        "structure|section|binary",
        _ANYTHING,
        "ours",
        "RFC 2231 section 4 holds for every parameter",
        _defect("encoded boundary"),
    ),
    Rule(
        "message/global",
        "structure|section|binary",
        _ANYTHING,
        "ours",
        "RFC 9051 section 9, media-message: as message/rfc822",
        _defect("message/global"),
    ),
    Rule(
        "encoded composite",
        "structure|section|binary",
        _ANYTHING,
        "either",
        "RFC 2045 section 6.4 forbids it: we do not look into an encoded message, Dovecot takes it for unencoded",
        _defect("encoded composite"),
    ),
    Rule(
        "header that is none",
        "envelope|structure|section|binary",
        _ANYTHING,
        "either",
        "RFC 5322 section 2.1: a header is fields; where its first line is none we take all for text, as Python does, Dovecot looks "
        "for fields further on",
        _defect(*_HEADERS),
    ),
    Rule(
        "delimiters",
        "structure|section|binary",
        _ANYTHING,
        "either",
        "not a multipart of RFC 2046 section 5.1.1: no closing delimiter, or none at all, one that is the beginning of another or "
        "of a longer "
        "line, "
        "nothing "
        "between two, more than 70 characters; Dovecot takes any line that begins with one for it, we those that are one and nothing else",
        _defect(*_DELIMITERS),
    ),
    Rule(
        "nowhere",
        "section|binary",
        _ANYTHING,
        "either",
        "RFC 3501 section 6.4.5 does not say what a part has that is not there: NIL or nothing",
        lambda one: one.ours is None and one.theirs == b"",
    ),
    Rule(
        "encoding folded",
        "binary",
        _ANYTHING,
        "ours",
        "RFC 2045 section 6.1 with RFC 5322 section 2.2.3: a field may go on in the next line and have white space and comments; "
        "Dovecot knows no such encoding",
        lambda one: one.theirs == Refused("NO", "UNKNOWN-CTE") and _FOLDED_ENCODING.search(one.message.content) is not None,
    ),
    Rule(
        "damaged encoding",
        "binary",
        _ANYTHING,
        "ours",
        "RFC 2045 sections 6.7 and 6.8: what is wrong should be ignored; we give what can be read, Dovecot refuses it or ends the "
        "connection",
        lambda one: one.theirs in (Refused("BYE"), Refused("NO", "PARSE"), Refused("NO", "SERVERBUG")),
    ),
    Rule(
        "decoded inside",
        "binary",
        _ANYTHING,
        "either",
        "RFC 3516 section 4.3 speaks of the section's own encoding; Dovecot decodes the parts inside of it too",
        lambda one: any(part.is_multipart() for part in one.message.parts),
    ),
    Rule(
        "NUL",
        "section|plain|binary",
        _ANYTHING,
        "either",
        "RFC 3501 section 4.3.1 allows none outside literal8; Dovecot stores another octet, we keep the message as it came",
        lambda one: b"\0" in one.message.content,
    ),
    Rule(
        "header without its empty line",
        "section",
        _ANYTHING,
        "ours",
        "RFC 9051 section 6.4.5.1: a message that has no body and no blank line gets none; Dovecot puts one after fields that it found",
        lambda one: isinstance(one.ours, bytes) and one.theirs == one.ours + b"\r\n" and b"\r\n\r\n" not in one.ours,
    ),
    Rule(
        "message without body",
        "structure|section|binary",
        _ANYTHING,
        "ours",
        "RFC 2046 section 5.1.1: the line break before a delimiter belongs to it, so there is no blank line either; Dovecot counts it "
        "twice",
        _defect("message without body"),
    ),
)


@dataclass(frozen=True)
class Found:
    """A message that one of both found.

    :param ours: whether it was ours.
    """

    message: Message
    keys: str
    ours: bool


@dataclass(frozen=True)
class SearchRule:
    """Explains why one of both finds a message."""

    name: str
    keys: str
    right: str
    why: str
    holds: Callable[[Found], bool]

    def explains(self, found: Found) -> bool:
        """Whether this is one of its kind."""
        return re.match(self.keys, found.keys) is not None and self.holds(found)


#: RFC 5322 section 3.3, roughly: no day above 39, no month that is none.
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DATE = re.compile(rf"\s*(?:[A-Za-z]{{3}},)?\s*[0-3]?\d\s+(?:{_MONTHS})\s+\d{{4}}\s+\d\d:\d\d(?::\d\d)?\s+(?:[+-]\d{{4}}|[A-Z]+)")


def _odd_encoding(found: Found) -> bool:
    """An encoding's name that Dovecot cannot read, see "encoding folded" and the others above; or a charset that it does not know."""
    message = found.message
    return (
        message.without_version
        or _FOLDED_ENCODING.search(message.content) is not None
        or any(value.startswith(b'"') for value in message.values("content-transfer-encoding"))
        or any(value.split(b" ")[0].lower() not in _KNOWN_ENCODINGS for value in message.values("content-transfer-encoding"))
        or re.search(rb"x-unknown|=\?eucgb2312_cn\?", message.content) is not None
    )


_KNOWN_ENCODINGS = (b"", b"7bit", b"8bit", b"binary", b"base64", b"quoted-printable")


SEARCH_RULES: tuple[SearchRule, ...] = (
    SearchRule(
        "no date",
        "SENT|NOT SENT",
        "ours",
        "RFC 9051 section 6.4.4: messages whose Date is …; where there is none Dovecot has 1970",
        lambda found: not found.ours and _DATE.match(str(found.message.parts[0].get("date", ""))) is None,
    ),
    SearchRule(
        "no addresses",
        "FROM|TO|CC",
        "either",
        "see the rule of this name above",
        lambda found: not all(map(addresses_well_formed, found.message.values("from", "to", "cc"))),
    ),
    SearchRule(
        "parts",
        "BODY|TEXT|CHARSET",
        "either",
        "a message whose parts are read in another way, see above",
        lambda found: bool(found.message.defects),
    ),
    SearchRule(
        "header that is none",
        "HEADER|SUBJECT|FROM|TO|CC|BCC|NOT SUBJECT",
        "either",
        "see the rule of this name above",
        lambda found: not found.message.defects.isdisjoint(_HEADERS),
    ),
    SearchRule("encoding", "BODY|TEXT|CHARSET", "ours", "an encoding that Dovecot does not read, see above", _odd_encoding),
    SearchRule(
        "header inside",
        "BODY|TEXT|CHARSET",
        "ours",
        "RFC 9051 section 6.4.4: the body of the message, and the header of an attached one is in it; Dovecot looks there if some text "
        "follows",
        lambda found: found.ours and any(part.get_content_maintype() == "message" for part in found.message.parts),
    ),
)
