"""A message's octets to everything that is stored beside them, in one pass and for any octets at all.

Nothing here fails: what is broken is read the way :mod:`~fe_twisted.protocols.mime.entity` says, and what is too long is cut (searchable
text at :data:`~fe_twisted.protocols.mime.text.MAX_TEXT`, header fields at :data:`~fe_twisted.protocols.mime.entity.MAX_HEADERS`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fe_twisted.protocols.mime import charset, date, header, render, text, words
from fe_twisted.protocols.mime import entity as entities
from fe_twisted.protocols.mime.entity import MAX_FIELD, Entity
from fe_twisted.protocols.mime.message import Message
from fe_twisted.protocols.mime.order import order
from fe_twisted.protocols.mime.parts import Part
from fe_twisted.protocols.mime.preview import preview

#: Bodies of at least this many octets (as encoded) are worth storing once per mailbox.
MIN_ATTACHMENT = 4096
#: Message ids kept of one References field: the first and the newest ones.
MAX_REFERENCES = 1000
_MESSAGE_ID = re.compile(rb"<[^<>\s]+>")


def parse(content: bytes) -> Message:
    """Any octets as a message."""
    entity = entities.scan(content)
    root = entities.part(entity)
    headers = tuple([(name.decode("ascii").lower(), words.decode(header.unfold(value[:MAX_FIELD]))) for name, value in entity.fields])
    bodystructure, body = render.structures(content, entity)
    return Message(
        size=len(content),
        header_size=root.body,
        root=root,
        envelope=render.envelope(entity),
        bodystructure=bodystructure,
        body=body,
        sent=date.parse((entity.field(b"date") or b"").decode("latin-1")),
        message_id=charset.decode(entity.field(b"message-id") or b""),
        references=_references(entity),
        subject=_joined(headers, "subject"),
        sender=_joined(headers, "from"),
        to=_joined(headers, "to"),
        cc=_joined(headers, "cc"),
        bcc=_joined(headers, "bcc"),
        headers=headers,
        text=text.text(content, entity, root),
        attachments=tuple(_attachments(root)),
        order=order(entity),
        preview=preview(content, root),
    )


def _joined(headers: tuple[tuple[str, str], ...], name: str) -> str:
    return "\n".join([value for key, value in headers if key == name])


def _references(entity: Entity) -> tuple[str, ...]:
    for name in (b"references", b"in-reply-to"):
        found = _MESSAGE_ID.findall(entity.field(name) or b"")
        if found:
            unique = list(dict.fromkeys([charset.decode(one) for one in found]))
            return tuple(unique if len(unique) <= MAX_REFERENCES else [unique[0], *unique[1 - MAX_REFERENCES :]])
    return ()


def _attachments(part: Part) -> Iterator[tuple[int, int]]:
    """Leaves that are not shown as text, in the order of their octets."""
    if part.children:
        for child in part.children:
            yield from _attachments(child)
    elif part.end - part.body >= MIN_ATTACHMENT and (part.attachment or not part.type.startswith("text/")):
        yield part.body, part.end - part.body
