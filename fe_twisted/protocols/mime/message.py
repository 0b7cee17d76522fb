"""What is worth knowing of a message before it is stored: computed once, never again.

:func:`parse` takes any bytes at all and never fails: broken MIME gets the structure that a tolerant reader would see.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from fe_twisted.protocols.mime.order import Order
from fe_twisted.protocols.mime.parts import Part


@dataclass(frozen=True, slots=True)
class Message:
    """A parsed message.

    :param size: octets in all.
    :param header_size: octets of the header with its final empty line.
    :param root: the part tree.
    :param envelope: IMAP ENVELOPE, ``(…)`` (RFC 9051 section 7.5.2), plain ASCII with literals for anything else.
    :param bodystructure: IMAP BODYSTRUCTURE with extension data.
    :param body: IMAP BODY: the same without extension data.
    :param sent: the Date: field, aware, or None when it is missing or not understood.
    :param message_id: the Message-ID: field's value without surrounding white space, or an empty string.
    :param references: message ids from References: or else In-Reply-To:, oldest first.
    :param subject, sender, to, cc, bcc: the decoded, unfolded field values (several fields joined by a newline) for searching.
    :param headers: every field of the header as ``(lower-case name, decoded value)``, in order.
    :param text: the decoded text of all text parts (and the headers of attached messages), for searching; not folded for case.
    :param attachments: ``(offset, length)`` of part bodies worth storing once, ascending, not overlapping.
    :param order: what SORT and THREAD compare (RFC 5256).
    :param preview: the first words of the text, up to 200 characters (RFC 8970).
    """

    size: int
    header_size: int
    root: Part
    envelope: bytes
    bodystructure: bytes
    body: bytes
    sent: datetime.datetime | None
    message_id: str
    references: tuple[str, ...]
    subject: str
    sender: str
    to: str
    cc: str
    bcc: str
    headers: tuple[tuple[str, str], ...]
    text: str
    attachments: tuple[tuple[int, int], ...]
    order: Order
    preview: str
