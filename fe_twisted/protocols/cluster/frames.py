"""What is said on the link, one frame in each WebSocket message, and the strict check of it.

A frame is a CBOR array (RFC 8949): its kind, then its fields.  Only integers, truth values, strings, byte strings and arrays of strings
occur; tags, indefinite lengths and floats are refused, and so is anything after the array.  ``Hello`` alone may be longer than this version
knows, so that later versions can add to it.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cbor2

from fe_twisted.protocols.cluster.tags import REFUSED, refuse

#: Octets of content in one frame at most.
PIECE = 256 * 1024

#: Octets of a WebSocket message at most: a full piece with its frame around it.
MAX_MESSAGE = PIECE + 1024

#: Octets of one frame before the peer has proved itself.
MAX_GREETING = 4096

#: Octets of one request body, or of one item of an answer.
MAX_BODY = 512 * 1024 * 1024

#: Octets of content that may be on their way in one stream.
WINDOW = 1024 * 1024

NONCE = 32
PROOF = 32
#: Octets of an idempotency key.
KEY = 16

_MAX_ID = 2**32 - 1
_MAX_INTEGER = 2**63 - 1
_MAX_KEYWORDS = 256
#: The line of a command with which one could be made before there was a limit (fe_twisted.storage.mailbox.api.MAX_KEYWORD).
_MAX_KEYWORD = 65_536
_MAX_TEXT = 1000
_METHOD = re.compile(r"\A[a-z][a-z_]{0,39}\Z")
_MAILBOX = re.compile(r"\A(?:[0-9a-f]{24})?\Z")
_NAME = re.compile(r"\A[!-~]{1,255}\Z")
_CLASS = re.compile(r"\A[A-Za-z]{1,40}\Z")
_REASON = re.compile(r"\A[a-z][a-z-]{0,39}\Z")


class BadFrame(Exception):
    """Bytes that are no frame of this protocol; the text says why and holds nothing of them."""


class Flags:
    """What ends with a piece of data; plain integers, because the operators of an enum take longer than all the rest of a small frame."""

    NOTHING = 0
    ITEM = 1
    STREAM = 2


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame of either side.

    :param lowest, highest: the protocol versions that it speaks.
    :param role: ``secondary`` calls, ``primary`` answers.
    :param name: what it calls itself, for the log.
    :param capabilities: names of what it can do beyond the version.
    :param nonce: 32 random octets.
    """

    kind: ClassVar[int] = 0
    lowest: int
    highest: int
    role: str
    name: str
    capabilities: tuple[str, ...]
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Proof:
    """That the sender has the link secret."""

    kind: ClassVar[int] = 1
    mac: bytes


@dataclass(frozen=True, slots=True)
class Refuse:
    """The last frame before the connection is closed: why."""

    kind: ClassVar[int] = 2
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Request:
    """A call.

    :param id: larger than that of every request before.
    :param method: a name of the answerer's table.
    :param mailbox: 24 hex digits, or empty.
    :param key: the idempotency key, 16 octets, or empty.
    :param credit: octets of answer that may be sent at once.
    :param size: octets of the whole body.
    :param body: the whole body, or empty: then it follows in ``Data`` frames once there is credit for it.
    """

    kind: ClassVar[int] = 3
    id: int
    method: str
    mailbox: str
    key: bytes
    credit: int
    size: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a request's body or of its answer.

    :param data: a view of the message that it came in; the octets are not copied for it.
    """

    kind: ClassVar[int] = 4
    id: int
    flags: int
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Error:
    """The answer is an error, and ends with it.

    :param name: its class in :mod:`fe_twisted.base.errors`.
    :param public: its public text.
    """

    kind: ClassVar[int] = 5
    id: int
    name: str
    public: str


@dataclass(frozen=True, slots=True)
class Credit:
    """So many octets more may be sent in this stream."""

    kind: ClassVar[int] = 6
    id: int
    octets: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """The caller wants no more of this answer."""

    kind: ClassVar[int] = 7
    id: int


@dataclass(frozen=True, slots=True)
class Notify:
    """Something changed in an open mailbox.

    :param folder: which, or 0 when names, subscriptions or annotations may have changed, or only the keywords grew.
    :param modseq: the folder's new modseq, 0 when it is gone.
    :param keywords: all keywords of the mailbox, or None when they are as they were.
    """

    kind: ClassVar[int] = 8
    mailbox: str
    folder: int
    modseq: int
    keywords: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Evict:
    """The primary has taken a mailbox back; it is no longer open on this connection.

    :param again: False: its sessions must end.  True: it is being moved; look up where it is, and open it again there.
    """

    kind: ClassVar[int] = 9
    mailbox: str
    again: bool = False


Frame = Hello | Proof | Refuse | Request | Data | Error | Credit | Cancel | Notify | Evict

#: ``Data`` is by far the most of all octets, and ``Request`` and ``Credit`` come next in number, so they are written and read without going
#: through the CBOR library.  The form is CBOR all the same, and any other form of them is read too.  ``Data`` is an array of four: 4, a
#: 32-bit integer, an integer below 24, and a byte string with a 32-bit length.
_DATA = struct.Struct(">BBBIBBI")
_DATA_PREFIX = b"\x84\x04\x1a"

#: An array of three: 6 and two 32-bit integers.
_CREDIT = struct.Struct(">BBBIBI")
_CREDIT_PREFIX = b"\x83\x06\x1a"

#: An array of eight: 3, a 32-bit integer, two texts of less than 256 octets, a byte string of less than 24, two 32-bit integers, and a byte
#: string with a 32-bit length.
_REQUEST = struct.Struct(">BBBIBB")
_REQUEST_MIDDLE = struct.Struct(">BIBIBI")
_REQUEST_PREFIX = b"\x88\x03\x1a"

#: An array of five: 8, a text of 24 octets, two 64-bit integers, and null.
_NOTIFY = struct.Struct(">BBBB24sBQBQB")
_NOTIFY_PREFIX = b"\x85\x08\x78\x18"


def encode(frame: Frame) -> bytes:
    """The frame as bytes; what is not within the limits is the caller's bug."""
    if isinstance(frame, Data):
        return encode_data(frame.id, frame.flags, [frame.data], len(frame.data))
    if isinstance(frame, Credit):
        return _CREDIT.pack(0x83, 6, 0x1A, frame.id, 0x1A, frame.octets)
    if isinstance(frame, Request):
        return _encode_request(frame)
    if isinstance(frame, Notify) and frame.keywords is None and len(frame.mailbox) == 24:
        return _NOTIFY.pack(0x85, 8, 0x78, 24, frame.mailbox.encode(), 0x1B, frame.folder, 0x1B, frame.modseq, 0xF6)
    return cbor2.dumps([frame.kind, *(getattr(frame, name) for name in frame.__slots__)])


def _encode_request(frame: Request) -> bytes:
    method, mailbox = frame.method.encode(), frame.mailbox.encode()
    return b"".join(
        (
            _REQUEST.pack(0x88, 3, 0x1A, frame.id, 0x78, len(method)),
            method,
            bytes((0x78, len(mailbox))),
            mailbox,
            bytes((0x40 | len(frame.key),)),
            frame.key,
            _REQUEST_MIDDLE.pack(0x1A, frame.credit, 0x1A, frame.size, 0x5A, len(frame.body)),
            frame.body,
        )
    )


def encode_data(number: int, flags: int, parts: Sequence[bytes | memoryview], length: int) -> bytes:
    """The ``Data`` frame of these parts, which have so many octets together; they are copied once."""
    return b"".join((_DATA.pack(0x84, 4, 0x1A, number, flags, 0x5A, length), *parts))


def decode(message: bytes) -> Frame:
    """The frame in a message.

    :raises BadFrame: it is none, in any respect.
    """
    if message[:3] == _DATA_PREFIX:
        return _decode_data(message)
    fields = _quickly(message) or _array(message)
    kind = fields[0] if fields else None
    if type(kind) is not int or kind not in _CHECKS:
        raise BadFrame("unknown kind of frame")
    make, checks = _CHECKS[kind]
    if len(fields) - 1 != len(checks) and not (make is Hello and len(fields) > len(checks)):
        raise BadFrame(f"{make.__name__} with {len(fields) - 1} fields")
    values: list[Any] = []
    for value, check in zip(fields[1:], checks, strict=False):
        values.append(tuple(value) if type(value) is list else value)
        if not check(values[-1]):
            raise BadFrame(f"{make.__name__}: bad {make.__slots__[len(values) - 1]}")
    frame: Frame = make(*values)
    if isinstance(frame, Request) and len(frame.body) not in (0, frame.size):
        raise BadFrame("Request: the body is not of its size")
    return frame


def _decode_data(message: bytes) -> Data:
    if len(message) < _DATA.size:
        raise BadFrame("Data cut short")
    _, _, _, number, flags, string, length = _DATA.unpack_from(message)
    if string != 0x5A or length != len(message) - _DATA.size or length > PIECE or flags > 3 or not number:
        raise BadFrame("Data: bad fields")
    return Data(number, flags, memoryview(message)[_DATA.size :])


def _quickly(message: bytes) -> list[Any] | None:
    """The fields of a ``Credit``, ``Request`` or ``Notify`` in the form that is written here; None for every other."""
    if len(message) > MAX_MESSAGE:
        return None
    try:
        if message[:3] == _CREDIT_PREFIX and len(message) == _CREDIT.size:
            _, kind, _, number, form, octets = _CREDIT.unpack(message)
            return [kind, number, octets] if form == 0x1A else None
        if message[:3] == _REQUEST_PREFIX:
            return _request_fields(message)
        if message[:4] == _NOTIFY_PREFIX and len(message) == _NOTIFY.size:
            _, kind, _, _, mailbox, first, folder, second, modseq, words = _NOTIFY.unpack(message)
            return [kind, mailbox.decode(), folder, modseq, None] if (first, second, words) == (0x1B, 0x1B, 0xF6) else None
    except (struct.error, IndexError, UnicodeDecodeError):
        pass
    return None


def _request_fields(message: bytes) -> list[Any] | None:
    _, kind, _, number, text, length = _REQUEST.unpack_from(message)
    at = _REQUEST.size + length
    method = message[_REQUEST.size : at]
    start, end = at + 2, at + 2 + message[at + 1]
    mailbox = message[start:end]
    size = message[end] & 0x1F
    key = message[end + 1 : end + 1 + size]
    at = end + 1 + size
    first, credit, second, whole, third, length = _REQUEST_MIDDLE.unpack_from(message, at)
    body = message[at + _REQUEST_MIDDLE.size :]
    forms = (text, message[start - 2], message[end] & 0xE0, first, second, third)
    if forms != (0x78, 0x78, 0x40, 0x1A, 0x1A, 0x5A) or size > 23 or len(body) != length:
        return None
    return [kind, number, method.decode(), mailbox.decode(), key, credit, whole, body]


def _array(message: bytes) -> list[Any]:
    """The CBOR array that a message is."""
    if len(message) > MAX_MESSAGE:
        raise BadFrame("too large")
    try:
        decoder = cbor2.CBORDecoder(io.BytesIO(message), semantic_decoders=REFUSED, tag_hook=refuse, max_depth=3, allow_indefinite=False)
        value = decoder.decode()
    except (cbor2.CBORDecodeError, ValueError, TypeError) as error:
        raise BadFrame("not CBOR of this protocol") from error
    if type(value) is not list:
        raise BadFrame("not an array")
    try:
        decoder.read(1)
    except cbor2.CBORDecodeEOF:
        return value
    raise BadFrame("something follows the frame")


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MAX_ID


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_BODY


def _is_integer(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_INTEGER


def _is_version(value: Any) -> bool:
    return type(value) is int and 0 < value < 1000


def _is_role(value: Any) -> bool:
    return type(value) is str and value in ("primary", "secondary")


def _is_name(value: Any) -> bool:
    return type(value) is str and _NAME.match(value) is not None


def _are_names(value: Any) -> bool:
    return type(value) is tuple and len(value) <= 64 and all(_is_name(name) for name in value)


def _is_nonce(value: Any) -> bool:
    return type(value) is bytes and len(value) == NONCE


def _is_proof(value: Any) -> bool:
    return type(value) is bytes and len(value) == PROOF


def _is_reason(value: Any) -> bool:
    return type(value) is str and _REASON.match(value) is not None


def _is_class(value: Any) -> bool:
    return type(value) is str and _CLASS.match(value) is not None


def _is_text(value: Any) -> bool:
    return type(value) is str and len(value) <= _MAX_TEXT


def _is_method(value: Any) -> bool:
    return type(value) is str and _METHOD.match(value) is not None


def _is_mailbox(value: Any) -> bool:
    return type(value) is str and _MAILBOX.match(value) is not None


def _is_mailbox_id(value: Any) -> bool:
    return _is_mailbox(value) and value != ""


def _is_key(value: Any) -> bool:
    return type(value) is bytes and len(value) in (0, KEY)


def _is_bool(value: Any) -> bool:
    return type(value) is bool


def _is_body(value: Any) -> bool:
    return type(value) is bytes and len(value) <= PIECE


def _are_keywords(value: Any) -> bool:
    if value is None:
        return True
    return type(value) is tuple and len(value) <= _MAX_KEYWORDS and all(type(word) is str and len(word) <= _MAX_KEYWORD for word in value)


#: For each kind what it makes and how its fields are checked, in their order.  Data is checked by itself.
_CHECKS: dict[int, tuple[Any, tuple[Any, ...]]] = {
    Hello.kind: (Hello, (_is_version, _is_version, _is_role, _is_name, _are_names, _is_nonce)),
    Proof.kind: (Proof, (_is_proof,)),
    Refuse.kind: (Refuse, (_is_reason, _is_text)),
    Request.kind: (Request, (_is_id, _is_method, _is_mailbox, _is_key, _is_size, _is_size, _is_body)),
    Error.kind: (Error, (_is_id, _is_class, _is_text)),
    Credit.kind: (Credit, (_is_id, _is_size)),
    Cancel.kind: (Cancel, (_is_id,)),
    Notify.kind: (Notify, (_is_mailbox_id, _is_integer, _is_integer, _are_keywords)),
    Evict.kind: (Evict, (_is_mailbox_id, _is_bool)),
}
