"""What may be asked of a mailbox over the link, and how it is done at the primary.

How the arguments and the result of a method travel follows from its annotations.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from fe_twisted.base import errors
from fe_twisted.protocols.cluster.signature import Signature
from fe_twisted.protocols.cluster.values import COLUMNS, BadValue, Buffer, Codec, Shape, decode, encode
from fe_twisted.protocols.imap import search, sort
from fe_twisted.storage.mailbox import api
from fe_twisted.storage.mailbox.local import LocalMailbox

#: Octets of an item of an answer below which the next one may be twice as long.
LIGHT = 48 * 1024


@dataclass(frozen=True, slots=True)
class Opened:
    """The answer to ``open``: what the interface gives without I/O.

    :param modseqs: ``(folder, modseq)``.
    :param place: names the file, see :func:`fe_twisted.storage.mailbox.files.place_of`.
    """

    keywords: tuple[str, ...]
    modseqs: tuple[tuple[int, int], ...]
    place: bytes = b""


def _values_of(*modules: Any) -> list[type]:
    """The dataclasses and enums that are defined in modules."""
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and (issubclass(value, Enum) or hasattr(value, "__dataclass_fields__"))
    ]


#: Every class that may occur in a call: the values of the interface, of search programs and of orders.
CODEC = Codec([*_values_of(api, search, sort), Opened])

OPENED = CODEC.shape(Opened)


@dataclass(frozen=True, slots=True)
class Method:
    """What may be asked of a mailbox over the link.

    :param keyed: it changes something, so it has an idempotency key.
    """

    signature: Signature
    keyed: bool

    async def serve(self, mailbox: LocalMailbox, key: bytes, body: bytes) -> Sequence[Buffer] | AsyncGenerator[Sequence[Buffer], None]:
        """Do it, at the primary.

        :raises BadSyntax: the arguments are not those of the method.
        :raises fe_twisted.base.errors.MailError: what the mailbox said.
        """
        try:
            arguments, named = self.signature.read(body)
        except BadValue as error:
            raise errors.BadSyntax("arguments not understood", reason=f"{self.signature.name}: {error}") from error
        function = getattr(mailbox, self.signature.name)
        if self.signature.streams:
            return self._stream(function(*arguments, **named))
        if self.keyed and key:
            value = await mailbox.idempotent(key, lambda: function(*arguments, **named), self._encode, self._decode)
        else:
            value = await function(*arguments, **named)
        return encode(self.signature.result, value)

    async def _stream(self, items: AsyncGenerator[list[Any], None]) -> AsyncGenerator[Sequence[Buffer], None]:
        """Rows: the first as they come, then twice as many at once each time while they are light, as a message costs as much as many rows.

        They are put together by columns, because tuples that live on for a while cost more in the collection of garbage than all the rest.
        """
        columns: list[list[Any]] = []
        held = most = 1
        try:
            async for rows in items:
                if columns:
                    for column, more in zip(columns, zip(*rows, strict=True), strict=True):
                        column += more
                else:
                    columns = [list(column) for column in zip(*rows, strict=True)]
                held -= 1
                if held:
                    continue
                encoded = encode(COLUMNS, columns)
                yield encoded
                columns = []
                most = most * 2 if sum(map(len, encoded)) < LIGHT else 1
                held = most
            if columns:
                yield encode(COLUMNS, columns)
        finally:
            await items.aclose()

    def _encode(self, value: Any) -> bytes:
        return b"".join(encode(self.signature.result, value))

    def _decode(self, octets: bytes) -> Any:
        return decode(self.signature.result, octets)


#: By name; filled by the body of :class:`fe_twisted.storage.mailbox.remote.RemoteMailbox`.
METHODS: dict[str, Method] = {}


def declare(method: Callable[..., Any], *, keyed: bool) -> Method:
    """Take a method of the interface into the table."""
    signature = Signature(CODEC, method)
    METHODS[signature.name] = Method(signature, keyed)
    return METHODS[signature.name]


def read_answer(shape: Shape, octets: bytes) -> Any:
    """The value of an answer.

    :raises Ours: the primary does not speak our language.
    """
    try:
        return decode(shape, octets)
    except BadValue as error:
        raise errors.Ours(reason=f"an answer that was not understood: {error}") from error
